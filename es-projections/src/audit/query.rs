//! Asking the audit trail: filters, a stable order and pages.

mod by;
mod field;
mod plan;

use chrono::{DateTime, SubsecRound, Utc};
use es_core::{Actor, CausationId, CommandId, CorrelationId, MessageType, Recorded, StreamId};
use sha2::{Digest, Sha256};

use super::entry::Entry;
use super::place::Place;
use crate::error::Error;
use crate::readable::{DamagedRow, Readable};
use crate::sql::{Database, Row};
pub use field::PayloadField;
pub(super) use plan::JOINED_CONVERSATION;

/// The most entries of a page.
pub const LIMIT_MAX: u32 = 1_000;
/// The most entries that are looked at for a page, unless its limit is as large: what an index does not serve costs no page more than that.
const EXAMINED_MAX: u32 = 500;

/// What is asked of the audit trail; what is not given is not filtered, and filters combine freely.
///
/// ```no_run
/// # async fn ask(database: es_projections::Database) -> Result<(), Box<dyn std::error::Error>> {
/// use es_projections::audit::Query;
///
/// let mut query = Query { actor: Some("teller-7".parse()?), limit: 50, ..Query::default() };
/// loop {
///     let page = query.run(&database).await?;
///     for entry in &page.entries {
///         println!("{} {}", entry.recorded.envelope.stream, entry.recorded.envelope.event_type);
///     }
///     let Some(next) = page.next else { break };
///     query.cursor = Some(next);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Order
/// The filters alone say what the pages are ordered by. The events of an aggregate are in the order of their versions, unless a command
/// or a tree is asked for too, and what one thing caused directly in that of recording. Else, where more ends are given of a range of business time
/// than of one of recorded time, events are in the order of business time, and of those with the same in that of recording; and all
/// others are in the order of recording.
///
/// # Cost
/// One filter leads: the first that is given of `caused_by`, `command`, `aggregate`, `causation`, `correlation`, `actor` together with
/// `event_type`, and `event_type`, with the times that the order goes by. An index has what it finds in the order of the page, so a
/// page costs the same wherever it is. The other filters, those on payloads among them, have no index and are applied
/// to what the leading one finds, to the next 500 entries for a page. So a page may hold fewer entries than its limit, or none, and
/// still have a next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Events of this aggregate.
    pub aggregate: Option<StreamId>,
    /// Events whose commands this actor sent.
    pub actor: Option<Actor>,
    /// Events of this conversation.
    pub correlation: Option<CorrelationId>,
    /// Events of commands that this command or event caused directly.
    pub causation: Option<CausationId>,
    /// All that this command or event caused: its own events, those of the commands that it or they caused, and so on. At most
    /// 10,000 commands and events.
    pub caused_by: Option<CausationId>,
    /// Events of the command with this id.
    pub command: Option<CommandId>,
    /// Events of this type, by its stored name. [`Query::check_type`] tells whether there is such a type.
    pub event_type: Option<String>,
    /// Events that occurred at this business time or later.
    pub from: Option<DateTime<Utc>>,
    /// Events that occurred before this business time.
    pub to: Option<DateTime<Utc>>,
    /// Events that were recorded at this time or later.
    pub recorded_from: Option<DateTime<Utc>>,
    /// Events that were recorded before this time.
    pub recorded_to: Option<DateTime<Utc>>,
    /// Events whose payloads are JSON and have all of these fields.
    pub fields: Vec<PayloadField>,
    /// In the order or against it.
    pub order: Order,
    /// The most entries of a page, from 1 to [`LIMIT_MAX`]; 100 unless given.
    pub limit: u32,
    /// Where to go on: [`Page::next`] of the page before, of the same query.
    pub cursor: Option<String>,
}

/// The direction of entries. Their order is stable, since what happened at the same time has an order too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The last first.
    #[default]
    NewestFirst,
    /// The first first.
    OldestFirst,
}

impl Order {
    fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::NewestFirst => ("DESC", "<"),
            Self::OldestFirst => ("ASC", ">"),
        }
    }
}

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries. They may be fewer than the limit, or none, although there is a next page.
    pub entries: Vec<Entry>,
    /// The cursor of the next page; none if there is none.
    pub next: Option<String>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            aggregate: None,
            actor: None,
            correlation: None,
            causation: None,
            caused_by: None,
            command: None,
            event_type: None,
            from: None,
            to: None,
            recorded_from: None,
            recorded_to: None,
            fields: Vec::new(),
            order: Order::default(),
            limit: 100,
            cursor: None,
        }
    }
}

impl Query {
    /// Asks for one page.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit out of range, times that no event can lie between, a cursor of another
    /// query, or a tree that is too large; [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no
    /// audit trail.
    pub async fn run(&self, database: &Database) -> Result<Page, Error> {
        let (entries, next) = self.run_readable(database).await?.all()?;
        Ok(Page { entries, next })
    }

    /// The same, where entries that are damaged take no others with them. They are told at their places, and count among those of the page;
    /// which of the filters they would pass is not known.
    ///
    /// # Errors
    /// As for [`Query::run`], save for what is damaged; [`Error::Damaged`] only for [`Query::caused_by`] with ids in the tree that
    /// can't be read.
    pub async fn run_readable(&self, database: &Database) -> Result<Readable<Entry, String>, Error> {
        let mut place = self.check()?;
        let plan = self.plan(database).await?;
        let limit = self.limit as usize;
        let (mut items, mut examined) = (Vec::with_capacity(limit), 0);
        // One more tells whether there is a next page. If the other filters leave some out, ever more are looked at.
        let mut rows = self.limit + 1;
        while let Some((sql, args)) = plan.statement(self, &place, rows) {
            let found = database.fetch_planned(&sql, &args).await?;
            for row in &found {
                let entry = DamagedRow::of(Entry::from_row(row), || named(row))?;
                let behind = entry
                    .as_ref()
                    .ok()
                    .map(|Entry { recorded, .. }| Place::behind(plan.by.values(recorded), plan.by.text(recorded)));
                if entry.as_ref().map_or(true, |entry| self.takes(&entry.recorded)) {
                    if items.len() == limit {
                        return Ok(Readable { items, next: Some(self.cursor_at(&place)) });
                    }
                    items.push(entry);
                }
                match behind {
                    Some(behind) => place = behind,
                    None => place.damaged += 1,
                }
            }
            if found.len() < rows as usize {
                break;
            }
            examined += rows;
            if examined >= EXAMINED_MAX {
                return Ok(Readable { items, next: Some(self.cursor_at(&place)) });
            }
            rows = rows.saturating_mul(4).min(EXAMINED_MAX - examined);
        }
        Ok(Readable { items, next: None })
    }

    /// Refuses an event type that is none of these, in which a slip of the pen would find nothing: `check_type(AccountEvent::TYPES)`.
    /// [`Query::run`] doesn't, since a trail may hold events of types that the program no longer has.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the names of those that there are.
    pub fn check_type<'a>(&self, known: impl IntoIterator<Item = &'a MessageType>) -> Result<(), Error> {
        let Some(asked) = &self.event_type else { return Ok(()) };
        let names: Vec<_> = known.into_iter().map(|known| known.name).collect();
        if names.contains(&asked.as_str()) {
            return Ok(());
        }
        Err(Error::invalid(format!("there is no event type {asked:?}: there are {}", names.join(", "))))
    }

    /// How the database finds the page, a line for each step, as its `EXPLAIN` tells it.
    ///
    /// # Errors
    /// As for [`Query::run`].
    pub async fn explain(&self, database: &Database) -> Result<Vec<String>, Error> {
        let place = self.check()?;
        let page = self.plan(database).await?.statement(self, &place, self.limit + 1);
        let mut steps = Vec::new();
        for (sql, args) in self.tree(database).into_iter().chain(page) {
            steps.extend(database.explain(&sql, &args).await?);
        }
        Ok(steps)
    }

    /// The column that the pages are ordered by before all others.
    pub(super) fn ordered_by(&self) -> &'static str {
        self.by().columns()[0]
    }

    /// Checks limit and times, and tells where the page begins.
    fn check(&self) -> Result<Place, Error> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(Error::invalid(format!("limit {} is not between 1 and {LIMIT_MAX}", self.limit)));
        }
        for (what, from, to) in
            [("business time", self.from, self.to), ("time of recording", self.recorded_from, self.recorded_to)]
        {
            if let (Some(from), Some(to)) = (from, to)
                && from >= to
            {
                return Err(Error::invalid(format!("no {what} is from {from} on and before {to}")));
            }
        }
        self.cursor.as_deref().map_or(Ok(Place::default()), |cursor| self.place(cursor))
    }

    /// Whether all filters let an event through, save for that on the tree, which is in the statement.
    fn takes(&self, recorded: &Recorded) -> bool {
        let event = &recorded.envelope;
        let is = |asked: Option<&str>, value: &str| asked.is_none_or(|asked| asked == value);
        let has = |asked: Option<&str>, value: Option<&str>| asked.is_none_or(|asked| value == Some(asked));
        let within = |time: DateTime<Utc>, from: Option<DateTime<Utc>>, to: Option<DateTime<Utc>>| {
            from.is_none_or(|from| stored(from) <= time) && to.is_none_or(|to| time < stored(to))
        };
        self.aggregate.as_ref().is_none_or(|stream| *stream == event.stream)
            && has(self.actor.as_ref().map(Actor::as_str), event.actor.as_ref().map(Actor::as_str))
            && is(self.correlation.as_ref().map(CorrelationId::as_str), event.correlation_id.as_str())
            && has(self.causation.as_ref().map(|id| id.as_str()), event.causation_id.as_ref().map(|id| id.as_str()))
            && is(self.command.as_ref().map(CommandId::as_str), event.command_id.as_str())
            && is(self.event_type.as_deref(), &event.event_type)
            && within(event.occurred_at, self.from, self.to)
            && within(event.recorded_at, self.recorded_from, self.recorded_to)
            && self.takes_payload(&event.payload)
    }

    fn takes_payload(&self, payload: &[u8]) -> bool {
        if self.fields.is_empty() {
            return true;
        }
        let json = serde_json::from_slice(payload);
        json.is_ok_and(|payload| self.fields.iter().all(|field| field.is_in(&payload)))
    }

    /// What the cursor holds: a mark of the query, and a place in the order.
    fn cursor_at(&self, place: &Place) -> String {
        format!("{}.{}", self.mark(), place.text())
    }

    fn place(&self, cursor: &str) -> Result<Place, Error> {
        let text = cursor.strip_prefix(&self.mark()).and_then(|rest| rest.strip_prefix('.'));
        let place = text.and_then(|text| Place::parse(text, |entry| self.by().parse(entry)));
        place.ok_or_else(|| Error::invalid(format!("cursor {cursor:?} is not one of this query")))
    }

    /// Tells this query's cursors from another's; limit and cursor may differ.
    fn mark(&self) -> String {
        let same = Self { limit: 1, cursor: None, ..self.clone() };
        let digest = Sha256::digest(format!("{same:?}"));
        digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Which event a row is of, as far as that can be read.
pub(crate) fn named(row: &Row) -> String {
    let text = |column| row.get::<String>(column).unwrap_or_else(|_| "?".into());
    let number = |column| row.get::<u64>(column).map_or_else(|_| "?".into(), |number| number.to_string());
    let (version, partition, offset) = (number("version"), number("topic_partition"), number("topic_offset"));
    let stream = format!("{}-{}", text("category"), text("aggregate_id"));
    format!("version {version} of {stream} at {}/{partition} offset {offset}", text("topic"))
}

/// A time as the database has it, which cuts off what is finer than a microsecond.
fn stored(time: DateTime<Utc>) -> DateTime<Utc> {
    time.trunc_subsecs(6)
}
