//! Asking the audit trail: filters, a stable order and pages.

use chrono::{DateTime, Utc};
use es_core::{Actor, CommandId, CorrelationId, StreamId};
use sha2::{Digest, Sha256};

use super::entry::Entry;
use crate::error::Error;
use crate::sql::{Database, Value};

/// The most entries of a page.
pub const LIMIT_MAX: u32 = 1_000;

/// The rows whose command did not begin the conversation: the others are found by their command id.
pub(super) const JOINED_CONVERSATION: &str = "correlation_id <> command_id";

/// What is asked of the audit trail; what is not given is not filtered.
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Events of this aggregate.
    pub aggregate: Option<StreamId>,
    /// Events whose commands this actor sent.
    pub actor: Option<Actor>,
    /// Events of this conversation.
    pub correlation: Option<CorrelationId>,
    /// Events of the command with this id.
    pub command: Option<CommandId>,
    /// Events of this type, by its stored name.
    pub event_type: Option<String>,
    /// Events that occurred at this business time or later.
    pub from: Option<DateTime<Utc>>,
    /// Events that occurred before this business time.
    pub to: Option<DateTime<Utc>>,
    /// In the order of recording or against it.
    pub order: Order,
    /// The most entries of a page, from 1 to [`LIMIT_MAX`]; 100 unless given.
    pub limit: u32,
    /// Where to go on: [`Page::next`] of the page before, of the same query.
    pub cursor: Option<String>,
}

/// The order of entries: that of recording. It is stable, since what was recorded at the same time has an order too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The last recorded first.
    #[default]
    NewestFirst,
    /// The first recorded first.
    OldestFirst,
}

/// A page of entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The entries.
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
            command: None,
            event_type: None,
            from: None,
            to: None,
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
    /// [`Error::Invalid`] for a limit out of range, times that no event can lie between, or a cursor of another
    /// query; [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no audit trail.
    pub async fn run(&self, database: &Database) -> Result<Page, Error> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(Error::invalid(format!("limit {} is not between 1 and {LIMIT_MAX}", self.limit)));
        }
        if let (Some(from), Some(to)) = (self.from, self.to)
            && from >= to
        {
            return Err(Error::invalid(format!("no time is from {from} on and before {to}")));
        }
        let (sql, args) = self.statement(&database.table_name("audit"))?;
        let rows = database.fetch(&sql, &args).await?;
        let limit = self.limit as usize;
        let entries = rows.iter().take(limit).map(Entry::from_row).collect::<Result<Vec<_>, _>>()?;
        let last = entries.last().filter(|_| rows.len() > limit);
        let next = last.map(|last| self.cursor_behind(last));
        Ok(Page { entries, next })
    }

    /// The statement and its arguments: no value stands in the text.
    fn statement(&self, table: &str) -> Result<(String, Vec<Value>), Error> {
        let mut conditions = Vec::new();
        let mut args = Vec::new();
        if let Some(id) = &self.correlation {
            conditions.push(format!(
                "(correlation_id = ? AND {JOINED_CONVERSATION} OR command_id = ? AND correlation_id = command_id)"
            ));
            args.extend([id.as_str().into(), id.as_str().into()]);
        }
        let mut filter = |condition: &str, value: Option<Value>| {
            if let Some(value) = value {
                conditions.push(condition.to_owned());
                args.push(value);
            }
        };
        filter("category = ?", self.aggregate.as_ref().map(|stream| stream.category.clone().into()));
        filter("aggregate_id = ?", self.aggregate.as_ref().map(|stream| stream.id.as_str().into()));
        filter("actor = ?", self.actor.as_ref().map(|actor| actor.as_str().into()));
        filter("command_id = ?", self.command.as_ref().map(|id| id.as_str().into()));
        filter("event_type = ?", self.event_type.as_ref().map(Into::into));
        filter("occurred_at >= ?", self.from.map(Into::into));
        filter("occurred_at < ?", self.to.map(Into::into));
        let (direction, beyond) = match self.order {
            Order::NewestFirst => ("DESC", "<"),
            Order::OldestFirst => ("ASC", ">"),
        };
        let order = self.order_columns();
        if let Some(cursor) = &self.cursor {
            let places = vec!["?"; order.len()].join(", ");
            conditions.push(format!("({}) {beyond} ({places})", order.join(", ")));
            args.extend(self.cursor_values(cursor)?);
        }
        let condition =
            if conditions.is_empty() { String::new() } else { format!(" WHERE {}", conditions.join(" AND ")) };
        let order = order.iter().map(|column| format!("{column} {direction}")).collect::<Vec<_>>().join(", ");
        args.push(Value::from(self.limit + 1));
        Ok((format!("SELECT * FROM {table}{condition} ORDER BY {order} LIMIT ?"), args))
    }

    /// The order of recording. Within one aggregate its versions are that order, and the primary key has them.
    fn order_columns(&self) -> &'static [&'static str] {
        match self.aggregate {
            Some(_) => &["version"],
            None => &["recorded_at", "category", "topic_partition", "topic_offset"],
        }
    }

    /// What the cursor holds: a mark of the query, and the last entry's place in the order.
    fn cursor_behind(&self, last: &Entry) -> String {
        let event = &last.recorded.envelope;
        let place = match self.aggregate {
            Some(_) => event.version.to_string(),
            None => {
                let (recorded_at, category) = (event.recorded_at.timestamp_micros(), &event.stream.category);
                format!("{recorded_at}.{}.{}.{category}", last.recorded.partition, last.recorded.offset)
            }
        };
        format!("{}.{place}", self.mark())
    }

    fn cursor_values(&self, cursor: &str) -> Result<Vec<Value>, Error> {
        let values = || {
            let place = cursor.strip_prefix(&self.mark())?.strip_prefix('.')?;
            if self.aggregate.is_some() {
                return Some(vec![place.parse::<i64>().ok()?.into()]);
            }
            let mut parts = place.splitn(4, '.');
            let recorded_at = DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?;
            let (partition, offset): (u32, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            Some(vec![recorded_at.into(), parts.next()?.into(), partition.into(), offset.into()])
        };
        values().ok_or_else(|| Error::invalid(format!("cursor {cursor:?} is not one of this query")))
    }

    /// Tells this query's cursors from another's; limit and cursor may differ.
    fn mark(&self) -> String {
        let same = Self { limit: 1, cursor: None, ..self.clone() };
        let digest = Sha256::digest(format!("{same:?}"));
        digest[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
