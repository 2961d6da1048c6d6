//! Commands that changed nothing since they were refused, or conflicted with a version: who was refused what, when and why.
//!
//! The log remembers them in its answers records, beside the events. The columns of `<namespace>_audit_refused`, for SQL of one's own:
//!
//! | column | holds |
//! |---|---|
//! | `topic`, `topic_partition`, `topic_offset`, `place` | the answers record, and the place in it: the primary key |
//! | `category`, `aggregate_id`, `version` | the stream that was asked, and the version at which it refused |
//! | `command_id`, `command_type`, `command_hash` | the command |
//! | `correlation_id`, `causation_id`, `actor` | the rest of its metadata, null where not given |
//! | `recorded_at` | when it was refused |
//! | `answer`, `reason` | the word for the answer, `refused` or `conflict`, and what was answered, as JSON |

use std::sync::Arc;

use chrono::{DateTime, Utc};
use es_core::log::record::{Answer, AnswerEntry};
use es_core::{Actor, AggregateKey, CausationId, CommandHash, CommandId, CorrelationId, StreamId, Version};
use sha2::{Digest, Sha256};

use super::LIMIT_MAX;
use super::place::Place;
use crate::error::Error;
use crate::projection::RefusedCommand;
use crate::readable::{DamagedRow, Readable};
use crate::sql::{Database, FromValue, Kind, Row, Table, Value};

/// A command that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stream that was asked.
    pub stream: StreamId,
    /// The version at which it refused.
    pub version: Version,
    /// The command.
    pub command_id: CommandId,
    /// The stored name of its type; none where a release before wrote it.
    pub command_type: Option<String>,
    /// The hash of its type and payload.
    pub command_hash: CommandHash,
    /// The conversation.
    pub correlation_id: CorrelationId,
    /// The command or event that caused it.
    pub causation_id: Option<CausationId>,
    /// Who sent it.
    pub actor: Option<Actor>,
    /// When it was refused.
    pub recorded_at: DateTime<Utc>,
    /// The word for the answer: `refused` or `conflict`.
    pub answer: String,
    /// What was answered, as JSON: the domain's error, or the version that was expected.
    pub reason: String,
    /// The topic of the answers record.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The place in it, from 0.
    pub place: u32,
}

/// Asks for commands that were refused, the newest first.
///
/// ```no_run
/// # async fn ask(database: es_projections::Database) -> Result<(), Box<dyn std::error::Error>> {
/// use es_projections::audit::RefusedQuery;
///
/// let query = RefusedQuery { actor: Some("teller-7".parse()?), ..RefusedQuery::default() };
/// for refused in query.run(&database).await?.refused {
///     println!("{} was refused {:?}: {}", refused.stream, refused.command_type, refused.reason);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedQuery {
    /// Of this aggregate.
    pub aggregate: Option<StreamId>,
    /// Of commands that this actor sent.
    pub actor: Option<Actor>,
    /// Of this conversation.
    pub correlation: Option<CorrelationId>,
    /// Of the command with this id.
    pub command: Option<CommandId>,
    /// Refused at this time or later.
    pub from: Option<DateTime<Utc>>,
    /// Refused before this time.
    pub to: Option<DateTime<Utc>>,
    /// The most of a page, from 1 to [`LIMIT_MAX`]; 100 unless given.
    pub limit: u32,
    /// Where to go on: [`RefusedPage::next`] of the page before, of the same query.
    pub cursor: Option<String>,
}

/// A page of refused commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedPage {
    /// The commands, the one refused last first.
    pub refused: Vec<Refused>,
    /// The cursor of the next page; none if there is none.
    pub next: Option<String>,
}

impl Default for RefusedQuery {
    fn default() -> Self {
        let (aggregate, actor, correlation, command) = (None, None, None, None);
        Self { aggregate, actor, correlation, command, from: None, to: None, limit: 100, cursor: None }
    }
}

/// The order of a page.
const ORDER: &str = "recorded_at, topic, topic_partition, topic_offset, place";

impl RefusedQuery {
    /// Asks for one page.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a limit out of range, times that nothing can lie between, or a cursor of another query;
    /// [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no audit trail.
    pub async fn run(&self, database: &Database) -> Result<RefusedPage, Error> {
        let (refused, next) = self.run_readable(database).await?.all()?;
        Ok(RefusedPage { refused, next })
    }

    /// The same, where rows that are damaged take no others with them. They are told at their places, and count among those of the page.
    ///
    /// # Errors
    /// As for [`RefusedQuery::run`], save for what is damaged.
    pub async fn run_readable(&self, database: &Database) -> Result<Readable<Refused, String>, Error> {
        let mut place = self.check()?;
        let (mut conditions, mut args) = (Vec::new(), Vec::new());
        let mut all = |condition: &str, values: Vec<Value>| {
            conditions.push(condition.to_owned());
            args.extend(values);
        };
        if let Some(StreamId { category, id }) = &self.aggregate {
            all("category = ? AND aggregate_id = ?", vec![category.clone().into(), id.as_str().into()]);
        }
        for (column, text) in [
            ("actor", self.actor.as_ref().map(Actor::as_str)),
            ("correlation_id", self.correlation.as_ref().map(CorrelationId::as_str)),
            ("command_id", self.command.as_ref().map(CommandId::as_str)),
        ] {
            if let Some(text) = text {
                all(&format!("{column} = ?"), vec![text.into()]);
            }
        }
        if let Some(from) = self.from {
            all("recorded_at >= ?", vec![from.into()]);
        }
        if let Some(to) = self.to {
            all("recorded_at < ?", vec![to.into()]);
        }
        if let Some(behind) = place.values() {
            all(&format!("({ORDER}) < (?, ?, ?, ?, ?)"), behind.to_vec());
        }
        let filter = if conditions.is_empty() { String::new() } else { format!("WHERE {}", conditions.join(" AND ")) };
        let order = ORDER.replace(", ", " DESC, ");
        let table = database.table_name(TABLE);
        args.extend([(self.limit + 1).into(), place.damaged.into()]);
        let sql = format!("SELECT * FROM {table} {filter} ORDER BY {order} DESC LIMIT ? OFFSET ?");
        let rows = database.fetch_planned(&sql, &args).await?;
        let mut items = Vec::with_capacity(rows.len());
        for row in rows.iter().take(self.limit as usize) {
            let refused = DamagedRow::of(Refused::from_row(row), || named(row))?;
            match &refused {
                Ok(refused) => place = refused.place(),
                Err(_) => place.damaged += 1,
            }
            items.push(refused);
        }
        let more = rows.len() > items.len();
        Ok(Readable { items, next: more.then(|| format!("{}.{}", self.mark(), place.text())) })
    }

    fn check(&self) -> Result<Place, Error> {
        if !(1..=LIMIT_MAX).contains(&self.limit) {
            return Err(Error::invalid(format!("limit {} is not between 1 and {LIMIT_MAX}", self.limit)));
        }
        if let Some((from, to)) = self.from.zip(self.to).filter(|(from, to)| from >= to) {
            return Err(Error::invalid(format!("no time of recording is from {from} on and before {to}")));
        }
        let Some(cursor) = &self.cursor else { return Ok(Place::default()) };
        let text = cursor.strip_prefix(&self.mark()).and_then(|rest| rest.strip_prefix('.'));
        let place = text.and_then(|text| Place::parse(text, values_of));
        place.ok_or_else(|| Error::invalid(format!("cursor {cursor:?} is not one of this query")))
    }

    /// Tells this query's cursors from another's; limit and cursor may differ.
    fn mark(&self) -> String {
        let same = Self { limit: 1, cursor: None, ..self.clone() };
        Sha256::digest(format!("{same:?}"))[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The values of [`ORDER`] that a cursor holds.
fn values_of(text: &str) -> Option<Vec<Value>> {
    let mut parts = text.splitn(5, '.');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (time, partition, offset, place) = (number()?, number()?, number()?, number()?);
    let time = DateTime::from_timestamp_micros(time)?;
    Some(vec![time.into(), parts.next()?.into(), partition.into(), offset.into(), place.into()])
}

const TABLE: &str = "audit_refused";

/// Few are refused, as against what is done: so each filter has its index.
pub(super) fn table() -> Table {
    Table::new(TABLE)
        .key("topic", Kind::Text)
        .key("topic_partition", Kind::Integer)
        .key("topic_offset", Kind::Integer)
        .key("place", Kind::Integer)
        .column("category", Kind::Text)
        .column("aggregate_id", Kind::Text)
        .column("version", Kind::Integer)
        .column("command_id", Kind::Text)
        .optional("command_type", Kind::Text)
        .column("command_hash", Kind::Bytes)
        .column("correlation_id", Kind::Text)
        .optional("causation_id", Kind::Text)
        .optional("actor", Kind::Text)
        .column("recorded_at", Kind::Time)
        .column("answer", Kind::Text)
        .column("reason", Kind::Text)
        .index("by_recorded", &["recorded_at"])
        .index("by_aggregate", &["category", "aggregate_id", "recorded_at"])
        .index("by_command", &["command_id"])
        .index("by_correlation", &["correlation_id", "recorded_at"])
        .index_present("by_actor", &["actor", "recorded_at"])
}

/// The row of an answer, where it refused something.
pub(super) fn to_row(command: &RefusedCommand, topic: &Arc<str>) -> Option<Vec<Value>> {
    let RefusedCommand { category, partition, offset, place, recorded_at, entry } = command;
    let AnswerEntry { aggregate, command, hash, version, .. } = entry;
    let (answer, reason) = told(&entry.answer)?;
    let text = |text: &str| Value::from(text.replace('\0', "\u{fffd}").as_str());
    let optional = |value: Option<&str>| value.map_or(Value::Null, text);
    let correlation = entry.correlation.as_ref().map_or(command.as_str(), |id| id.as_str());
    Some(vec![
        topic.clone().into(),
        (*partition).into(),
        Value::Integer(*offset as i64),
        (*place).into(),
        category.clone().into(),
        text(aggregate.as_str()),
        (*version).into(),
        text(command.as_str()),
        optional(entry.command_type.as_deref()),
        Value::from(hash.0.as_slice()),
        text(correlation),
        optional(entry.causation.as_ref().map(|id| id.as_str())),
        optional(entry.actor.as_ref().map(Actor::as_str)),
        (*recorded_at).into(),
        answer.as_str().into(),
        text(&reason),
    ])
}

/// The word for an answer and what it says; none for one that refuses nothing.
fn told(answer: &Answer) -> Option<(String, String)> {
    if matches!(answer, Answer::NoOp(())) {
        return None;
    }
    let serde_json::Value::Object(told) = serde_json::to_value(answer).ok()? else { return None };
    let (word, reason) = told.into_iter().next()?;
    // A refusal is JSON as text already.
    let reason = if let serde_json::Value::String(text) = reason { text } else { reason.to_string() };
    Some((word, reason))
}

/// Which refused command a row is of, as far as that can be read.
fn named(row: &Row) -> String {
    let text = |column| row.get::<String>(column).unwrap_or_else(|_| "?".into());
    let number = |column| row.get::<u64>(column).map_or_else(|_| "?".into(), |number| number.to_string());
    let (partition, offset, place) = (number("topic_partition"), number("topic_offset"), number("place"));
    format!("answer {place} at {}/{partition} offset {offset}", text("topic"))
}

impl Refused {
    /// Its place in [`ORDER`].
    fn place(&self) -> Place {
        let Self { recorded_at, partition, offset, place, topic, .. } = self;
        let text = format!("{}.{partition}.{offset}.{place}.{topic}", recorded_at.timestamp_micros());
        let (partition, place) = ((*partition).into(), (*place).into());
        let values =
            vec![(*recorded_at).into(), topic.clone().into(), partition, Value::Integer(*offset as i64), place];
        Place::behind(values, text)
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        let damaged =
            |error: es_core::InvalidId| Error::Damaged(format!("a refused command of the audit trail: {error}"));
        let hash: Vec<u8> = row.get("command_hash")?;
        let hash =
            hash.try_into().map_err(|_| Error::Damaged("a command hash of the audit trail is damaged".into()))?;
        let id = AggregateKey::new(text::<String>(row, "aggregate_id")?).map_err(damaged)?;
        Ok(Self {
            stream: StreamId { category: text(row, "category")?, id },
            version: Version::new(row.get("version")?),
            command_id: CommandId::new(text::<String>(row, "command_id")?).map_err(damaged)?,
            command_type: row.get("command_type")?,
            command_hash: CommandHash(hash),
            correlation_id: CorrelationId::new(text::<String>(row, "correlation_id")?).map_err(damaged)?,
            causation_id: text::<Option<String>>(row, "causation_id")?
                .map(CausationId::new)
                .transpose()
                .map_err(damaged)?,
            actor: text::<Option<String>>(row, "actor")?.map(Actor::new).transpose().map_err(damaged)?,
            recorded_at: row.get("recorded_at")?,
            answer: row.get("answer")?,
            reason: row.get("reason")?,
            topic: text(row, "topic")?,
            partition: row.get("topic_partition")?,
            offset: row.get("topic_offset")?,
            place: row.get("place")?,
        })
    }
}

fn text<T: FromValue>(row: &Row, column: &str) -> Result<T, Error> {
    row.get(column)
}
