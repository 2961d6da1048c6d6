//! Aggregates that a read model could not fold in: what waits, why, and what an operator has them do.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use es_core::{Cause, Envelope, EventId, Position, Recorded, StreamId, Version};
use uuid::Uuid;

use crate::audit::{self, Entry};
use crate::builds::{self, Build};
use crate::error::Error;
use crate::readable::DamagedRow;
use crate::sql::{Database, OnDuplicate, Row, Table, Tx, Value};

/// How often the answer to an operator is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// An aggregate whose events wait, since one of them could not be folded in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The read model.
    pub projection: String,
    /// The aggregate's type and id.
    pub category: String,
    /// Its id.
    pub aggregate_id: String,
    /// Why the first of its waiting events can't be folded in.
    pub reason: String,
    /// How often that was tried.
    pub attempts: u64,
    /// When it was tried last.
    pub tried_at: DateTime<Utc>,
    /// Since when its events wait.
    pub parked_at: DateTime<Utc>,
    /// How many events wait.
    pub waiting: u64,
    /// The first of them: what is asked to be done with it names it.
    pub event_id: EventId,
    /// Its version.
    pub version: Version,
}

/// What became of an aggregate that was to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resumed {
    /// All its events are folded in.
    Done,
    /// It is parked still: its next waiting event failed.
    Parked(Parked),
}

/// What an operator may ask the worker to do with a parked aggregate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Fold its waiting events in; if this is the first of them still, where one is named.
    Retry { seen: Option<EventId> },
    /// The same without those of the command that begins with this event.
    Skip { seen: EventId, by: String, why: String },
}

impl Asked {
    pub(crate) fn seen(&self) -> Option<EventId> {
        match self {
            Self::Retry { seen } => *seen,
            Self::Skip { seen, .. } => Some(*seen),
        }
    }
}

impl Database {
    /// The parked aggregates of a read model, those that wait longest first; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn parked(&self, projection: &str, limit: u32) -> Result<Vec<Parked>, Error> {
        whole(self.parked_readable(projection, limit).await?)
    }

    /// The same, where a row that can't be read is told at its place, and takes no other with it.
    ///
    /// # Errors
    /// As for [`Database::parked`].
    pub async fn parked_readable(
        &self,
        projection: &str,
        limit: u32,
    ) -> Result<Vec<Result<Parked, DamagedRow>>, Error> {
        let condition =
            "b.state = 'live' AND b.projection = ? ORDER BY p.parked_at, p.category, p.aggregate_id LIMIT ?";
        self.select_parked(condition, &[projection.into(), limit.into()]).await
    }

    /// The events of a parked aggregate that wait, in order; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn waiting(&self, projection: &str, stream: &StreamId, limit: u32) -> Result<Vec<Entry>, Error> {
        whole(self.waiting_readable(projection, stream, limit).await?)
    }

    /// The same, where an event that can't be read is told at its place, and takes no other with it.
    ///
    /// # Errors
    /// As for [`Database::waiting`].
    pub async fn waiting_readable(
        &self,
        projection: &str,
        stream: &StreamId,
        limit: u32,
    ) -> Result<Vec<Result<Entry, DamagedRow>>, Error> {
        let (waiting, builds) = (self.table_name("es_waiting"), self.table_name("es_builds"));
        let sql = format!(
            "SELECT w.* FROM {waiting} AS w JOIN {builds} AS b ON b.projection = w.projection AND b.build = w.build \
             WHERE b.state = 'live' AND b.projection = ? AND w.category = ? AND w.aggregate_id = ? ORDER BY w.version LIMIT ?"
        );
        let args = [projection.into(), stream.category.clone().into(), stream.id.as_str().into(), limit.into()];
        let rows = self.fetch_readable(&sql, &args).await?;
        rows.iter().map(|row| DamagedRow::of(Entry::from_row(row), || audit::named(row))).collect()
    }

    /// Has the worker of a read model fold in the waiting events of an aggregate, and waits until it has. `seen` is the first of them,
    /// as [`Parked::event_id`] tells it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the aggregate is not parked; [`Error::OtherEvent`] when another event is the first by now;
    /// [`Error::NoAnswer`] when no worker has done it within `within`: it is asked still, and does it when it runs.
    pub async fn retry_parked(
        &self,
        projection: &str,
        stream: &StreamId,
        seen: EventId,
        within: Duration,
    ) -> Result<Resumed, Error> {
        self.ask(projection, stream, &Asked::Retry { seen: Some(seen) }, within).await
    }

    /// Leaves the events of the first waiting command out of a read model for good, which is recorded with who did it and
    /// why, and has the worker fold in what waits behind. `seen` is the first event of that command: nothing else is left out,
    /// whatever others ask meanwhile.
    ///
    /// # Errors
    /// As for [`Database::retry_parked`]; [`Error::Invalid`] without a name or a reason.
    pub async fn skip_parked(
        &self,
        projection: &str,
        stream: &StreamId,
        seen: EventId,
        by: &str,
        why: &str,
        within: Duration,
    ) -> Result<Resumed, Error> {
        if by.trim().is_empty() || why.trim().is_empty() {
            return Err(Error::invalid("an event is left out only with the name of who says so, and a reason"));
        }
        self.ask(projection, stream, &Asked::Skip { seen, by: by.into(), why: why.into() }, within).await
    }

    async fn ask(
        &self,
        projection: &str,
        stream: &StreamId,
        asked: &Asked,
        within: Duration,
    ) -> Result<Resumed, Error> {
        let mut tx = self.begin_durably().await?;
        let missing = || Error::invalid(format!("{stream} is not parked in read model {projection}"));
        let live = builds::find_live(&mut tx, projection).await?.ok_or_else(missing)?;
        let first = first_waiting(&mut tx, &live, stream, 1).await?;
        let first = first.first().ok_or_else(missing)?;
        refuse_other(projection, asked, &first.recorded.envelope)?;
        let table = tx.table_name("es_parked");
        let update = format!("UPDATE {table} SET asked = ?, asked_by = ?, asked_why = ?, asked_event = ? WHERE {KEY}");
        let seen = asked.seen().map(EventId::get);
        let values = match asked {
            Asked::Retry { .. } => ["retry".into(), Value::Null, Value::Null, seen.into()],
            Asked::Skip { by, why, .. } => ["skip".into(), by.into(), why.into(), seen.into()],
        };
        if tx.execute(&update, &[&values[..], &key(&live, stream)].concat()).await? == 0 {
            return Err(missing());
        }
        tx.commit().await?;
        let select = format!("SELECT asked, asked_event FROM {} WHERE {KEY}", self.table_name("es_parked"));
        let answered = async {
            loop {
                let rows = self.fetch(&select, &key(&live, stream)).await?;
                let waits = match rows.first() {
                    None => false,
                    Some(row) => {
                        let of: Option<Uuid> = row.get("asked_event")?;
                        row.get::<Option<String>>("asked")?.is_some() && (of.is_none() || of == seen)
                    }
                };
                if !waits {
                    return self.answer(&live, stream, asked).await;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(within, answered).await.unwrap_or_else(|_| {
            Err(Error::NoAnswer { projection: projection.into(), stream: stream.to_string(), within })
        })
    }

    /// What became of what was asked.
    async fn answer(&self, build: &Build, stream: &StreamId, asked: &Asked) -> Result<Resumed, Error> {
        let parked = self.parked_of(build, stream).await?;
        if let Asked::Skip { seen, .. } = asked
            && !self.is_left_out(build, stream, *seen).await?
        {
            return match parked {
                Some(parked) if parked.event_id == *seen => Ok(Resumed::Parked(parked)),
                Some(parked) => Err(other_event(&build.projection, stream, *seen, parked.version, parked.event_id)),
                None => Err(Error::invalid(format!(
                    "nothing was left out: {stream} went on in read model {} with event {seen}, as somebody else asked",
                    build.projection
                ))),
            };
        }
        Ok(parked.map_or(Resumed::Done, Resumed::Parked))
    }

    async fn is_left_out(&self, build: &Build, stream: &StreamId, event: EventId) -> Result<bool, Error> {
        let table = self.table_name("es_skipped");
        let sql = format!("SELECT version FROM {table} WHERE {KEY} AND event_id = ?");
        let args = [&key(build, stream)[..], &[event.get().into()]].concat();
        Ok(!self.fetch(&sql, &args).await?.is_empty())
    }

    async fn parked_of(&self, build: &Build, stream: &StreamId) -> Result<Option<Parked>, Error> {
        let condition =
            "b.state = 'live' AND p.projection = ? AND p.build = ? AND p.category = ? AND p.aggregate_id = ?";
        Ok(whole(self.select_parked(condition, &key(build, stream)).await?)?.into_iter().next())
    }

    /// The parked aggregates of one build.
    pub(crate) async fn parked_in(&self, build: &Build, limit: u32) -> Result<Vec<Parked>, Error> {
        let condition = "p.projection = ? AND p.build = ? ORDER BY p.parked_at, p.category, p.aggregate_id LIMIT ?";
        whole(self.select_parked(condition, &[&build.key()[..], &[limit.into()]].concat()).await?)
    }

    async fn select_parked(&self, condition: &str, args: &[Value]) -> Result<Vec<Result<Parked, DamagedRow>>, Error> {
        let sql = select_parked(|name| self.table_name(name), condition);
        let rows = self.fetch_readable(&sql, args).await?;
        rows.iter().map(|row| DamagedRow::of(Parked::read(row), || named(row))).collect()
    }
}

fn whole<T>(rows: Vec<Result<T, DamagedRow>>) -> Result<Vec<T>, Error> {
    let all: Result<_, DamagedRow> = rows.into_iter().collect();
    all.map_err(|damaged| Error::Damaged(damaged.to_string()))
}

/// Which parked aggregate a row is of, as far as that can be read.
fn named(row: &Row) -> String {
    let text = |column| row.get::<String>(column).unwrap_or_else(|_| "?".into());
    format!("{}-{}, parked in read model {}", text("category"), text("aggregate_id"), text("projection"))
}

/// All parked aggregates of one build, as this transaction sees them.
pub(crate) async fn all(tx: &mut Tx, build: &Build) -> Result<Vec<Parked>, Error> {
    let condition = "p.projection = ? AND p.build = ? ORDER BY p.category, p.aggregate_id";
    let sql = select_parked(|name| tx.table_name(name), condition);
    tx.fetch(&sql, &build.key()).await?.iter().map(Parked::read).collect()
}

fn select_parked(table_name: impl Fn(&str) -> String, condition: &str) -> String {
    let (parked, builds) = (table_name("es_parked"), table_name("es_builds"));
    let waiting = table_name("es_waiting");
    let of_it = "w.projection = p.projection AND w.build = p.build AND w.category = p.category \
                 AND w.aggregate_id = p.aggregate_id";
    format!(
        "SELECT p.*, (SELECT count(*) FROM {waiting} AS w WHERE {of_it}) AS waiting, \
         (SELECT w.event_id FROM {waiting} AS w WHERE {of_it} ORDER BY w.version LIMIT 1) AS first_event, \
         (SELECT min(w.version) FROM {waiting} AS w WHERE {of_it}) AS first_version \
         FROM {parked} AS p JOIN {builds} AS b ON b.projection = p.projection AND b.build = p.build \
         WHERE {condition}"
    )
}

impl Parked {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            projection: row.get("projection")?,
            category: row.get("category")?,
            aggregate_id: row.get("aggregate_id")?,
            reason: row.get("reason")?,
            attempts: row.get("attempts")?,
            tried_at: row.get("tried_at")?,
            parked_at: row.get("parked_at")?,
            waiting: row.get("waiting")?,
            event_id: row.get::<Uuid>("first_event")?.into(),
            version: row.get("first_version")?,
        })
    }
}

const NOTHING_ASKED: &str = "asked = NULL, asked_by = NULL, asked_why = NULL, asked_event = NULL";
const KEY: &str = "projection = ? AND build = ? AND category = ? AND aggregate_id = ?";

fn key(build: &Build, stream: &StreamId) -> Vec<Value> {
    let [projection, number] = build.key();
    vec![projection, number, stream.category.clone().into(), stream.id.as_str().into()]
}

/// Refuses what is asked of another event than the first that waits.
fn refuse_other(projection: &str, asked: &Asked, first: &Envelope) -> Result<(), Error> {
    match asked.seen() {
        Some(seen) if seen != first.event_id => {
            Err(other_event(projection, &first.stream, seen, first.version, first.event_id))
        }
        _ => Ok(()),
    }
}

fn other_event(projection: &str, stream: &StreamId, seen: EventId, version: Version, event_id: EventId) -> Error {
    Error::OtherEvent { projection: projection.into(), stream: stream.to_string(), seen, version, event_id }
}

/// Refuses the position of an event that waits.
pub(crate) async fn refuse_waiting(database: &Database, projection: &str, position: &Position) -> Result<(), Error> {
    let (waiting, builds) = (database.table_name("es_waiting"), database.table_name("es_builds"));
    let parked = database.table_name("es_parked");
    let sql = format!(
        "SELECT p.category, p.aggregate_id, p.reason FROM {waiting} AS w \
         JOIN {builds} AS b ON b.projection = w.projection AND b.build = w.build AND b.state = 'live' \
         JOIN {parked} AS p ON p.projection = w.projection AND p.build = w.build AND p.category = w.category \
         AND p.aggregate_id = w.aggregate_id \
         WHERE w.projection = ? AND w.category = ? AND w.topic_partition = ? AND w.topic_offset = ?"
    );
    let Position { category, partition, offset } = position;
    let args = [projection.into(), category.clone().into(), (*partition).into(), Value::Integer(*offset as i64)];
    match database.fetch(&sql, &args).await?.first() {
        None => Ok(()),
        Some(row) => Err(Error::Parked {
            projection: projection.into(),
            stream: stream_of(row)?.to_string(),
            reason: row.get("reason")?,
        }),
    }
}

/// The streams that are parked in a build.
pub(crate) async fn streams(database: &Database, build: &Build) -> Result<Vec<StreamId>, Error> {
    let sql = select_streams(&database.table_name("es_parked"));
    database.fetch(&sql, &build.key()).await?.iter().map(stream_of).collect()
}

/// The same within a transaction.
pub(crate) async fn streams_in(tx: &mut Tx, build: &Build) -> Result<Vec<StreamId>, Error> {
    let sql = select_streams(&tx.table_name("es_parked"));
    tx.fetch(&sql, &build.key()).await?.iter().map(stream_of).collect()
}

fn select_streams(table: &str) -> String {
    format!("SELECT category, aggregate_id FROM {table} WHERE projection = ? AND build = ?")
}

/// What operators ask, with how often the first event was tried already.
pub(crate) async fn asked(database: &Database, build: &Build) -> Result<Vec<(StreamId, Asked)>, Error> {
    let table = database.table_name("es_parked");
    let sql = format!("SELECT * FROM {table} WHERE projection = ? AND build = ? AND asked IS NOT NULL");
    let read = |row: &Row| {
        let asked = match row.get::<String>("asked")?.as_str() {
            "retry" => Asked::Retry { seen: row.get::<Option<Uuid>>("asked_event")?.map(EventId::from) },
            "skip" => Asked::Skip {
                seen: row.get::<Uuid>("asked_event")?.into(),
                by: row.get("asked_by")?,
                why: row.get("asked_why")?,
            },
            other => {
                return Err(Error::invalid(format!(
                    "a parked aggregate is asked to {other:?}, which no release knows"
                )));
            }
        };
        Ok((stream_of(row)?, asked))
    };
    database.fetch(&sql, &build.key()).await?.iter().map(read).collect()
}

pub(crate) fn stream_of(row: &Row) -> Result<StreamId, Error> {
    let (category, id): (String, es_core::AggregateKey) = (row.get("category")?, row.get("aggregate_id")?);
    Ok(StreamId { category: category.into(), id })
}

/// Parks an aggregate. Its events are put behind by [`wait`].
pub(crate) async fn park(
    tx: &mut Tx,
    build: &Build,
    stream: &StreamId,
    reason: &Cause,
    attempts: u32,
) -> Result<(), Error> {
    let table = tx.table_name("es_parked");
    let columns = "(projection, build, category, aggregate_id, reason, attempts, tried_at, parked_at)";
    let insert = format!("INSERT INTO {table} {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    let now = Utc::now();
    let rest = [told(reason).into(), attempts.into(), now.into(), now.into()];
    tx.execute(&insert, &[&key(build, stream)[..], &rest].concat()).await.map(drop)
}

/// After another attempt at the first waiting event.
pub(crate) async fn failed_again(tx: &mut Tx, build: &Build, stream: &StreamId, reason: &Cause) -> Result<(), Error> {
    let table = tx.table_name("es_parked");
    let update =
        format!("UPDATE {table} SET reason = ?, attempts = attempts + 1, tried_at = ?, {NOTHING_ASKED} WHERE {KEY}");
    let start = [told(reason).into(), Utc::now().into()];
    tx.execute(&update, &[&start[..], &key(build, stream)].concat()).await.map(drop)
}

/// What was asked is not done: it was meant for another event than the one that is the first now.
pub(crate) async fn refuse(tx: &mut Tx, build: &Build, stream: &StreamId) -> Result<(), Error> {
    let update = format!("UPDATE {} SET {NOTHING_ASKED} WHERE {KEY}", tx.table_name("es_parked"));
    tx.execute(&update, &key(build, stream)).await.map(drop)
}

/// What was asked is half done: the rest is to fold in what waits.
pub(crate) async fn go_on(tx: &mut Tx, build: &Build, stream: &StreamId) -> Result<(), Error> {
    let table = tx.table_name("es_parked");
    let update = format!(
        "UPDATE {table} SET asked = 'retry', asked_by = NULL, asked_why = NULL, asked_event = NULL WHERE {KEY}"
    );
    tx.execute(&update, &key(build, stream)).await.map(drop)
}

/// The aggregate waits no more.
pub(crate) async fn unpark(tx: &mut Tx, build: &Build, stream: &StreamId) -> Result<(), Error> {
    let table = tx.table_name("es_parked");
    tx.execute(&format!("DELETE FROM {table} WHERE {KEY}"), &key(build, stream)).await.map(drop)
}

/// Has events wait, each behind those of its aggregate that wait already.
pub(crate) async fn wait(tx: &mut Tx, build: &Build, events: &[(&Recorded, Arc<str>)]) -> Result<(), Error> {
    if events.is_empty() {
        return Ok(());
    }
    let row = |(recorded, topic): &(&Recorded, Arc<str>)| {
        let mut row = build.key().to_vec();
        row.extend(crate::audit::to_row(recorded, topic));
        row
    };
    tx.insert(&waiting_table(), events.iter().map(row).collect(), OnDuplicate::Fail).await.map(drop)
}

/// The first waiting events of an aggregate: whole commands, and at least `limit` events if so many wait.
pub(crate) async fn first_waiting(
    tx: &mut Tx,
    build: &Build,
    stream: &StreamId,
    limit: u32,
) -> Result<Vec<Entry>, Error> {
    let table = tx.table_name("es_waiting");
    let sql = format!("SELECT * FROM {table} WHERE {KEY} ORDER BY version LIMIT ?");
    let rows = tx.fetch(&sql, &[&key(build, stream)[..], &[limit.into()]].concat()).await?;
    let mut entries = rows.iter().map(Entry::from_row).collect::<Result<Vec<_>, _>>()?;
    if let Some(last) = entries.last().map(|entry| entry.recorded.envelope.clone()) {
        let rest = format!("SELECT * FROM {table} WHERE {KEY} AND version > ? AND command_id = ? ORDER BY version");
        let behind = [last.version.into(), last.command_id.as_str().into()];
        for row in tx.fetch(&rest, &[&key(build, stream)[..], &behind].concat()).await? {
            entries.push(Entry::from_row(&row)?);
        }
    }
    Ok(entries)
}

/// These events wait no more.
pub(crate) async fn done(tx: &mut Tx, build: &Build, events: &[Recorded]) -> Result<(), Error> {
    let keys = events.iter().map(|event| {
        let mut row = key(build, &event.envelope.stream);
        row.push(event.envelope.version.into());
        row
    });
    tx.delete(&waiting_table(), keys.collect()).await.map(drop)
}

/// Records that events are left out.
pub(crate) async fn skip(tx: &mut Tx, build: &Build, events: &[Entry], by: &str, why: &str) -> Result<(), Error> {
    let Some(first) = events.first() else { return Ok(()) };
    let select = format!("SELECT reason FROM {} WHERE {KEY}", tx.table_name("es_parked"));
    let parked = tx.fetch(&select, &key(build, &first.recorded.envelope.stream)).await?;
    let reason: String = parked.first().map(|row| row.get("reason")).transpose()?.unwrap_or_default();
    let events: Vec<_> = events.iter().map(|entry| (&entry.recorded, entry.topic.clone())).collect();
    add_skipped(tx, build, &events, &reason, by, why).await
}

/// Leaves out what was left out of another build of the read model, for good, if that is so.
pub(crate) async fn skip_again(
    tx: &mut Tx,
    build: &Build,
    events: &[(&Recorded, Arc<str>)],
    reason: &Cause,
) -> Result<bool, Error> {
    let Some((first, _)) = events.first() else { return Ok(false) };
    let sql = format!(
        "SELECT skipped_by, skipped_why FROM {} WHERE projection = ? AND build <> ? AND category = ? AND aggregate_id = ? \
         AND version = ? AND event_id = ? ORDER BY build DESC LIMIT 1",
        tx.table_name("es_skipped")
    );
    let event = [first.envelope.version.into(), first.envelope.event_id.get().into()];
    let found = tx.fetch(&sql, &[&key(build, &first.envelope.stream)[..], &event].concat()).await?;
    let Some(row) = found.first() else { return Ok(false) };
    let (by, why): (String, String) = (row.get("skipped_by")?, row.get("skipped_why")?);
    add_skipped(tx, build, events, &told(reason), &by, &why).await?;
    Ok(true)
}

/// What waits in one build and not in another, with the reason: at most `limit` aggregates.
pub(crate) async fn waits_longer(tx: &mut Tx, one: &Build, other: &Build, limit: u32) -> Result<Vec<String>, Error> {
    let (parked, waiting) = (tx.table_name("es_parked"), tx.table_name("es_waiting"));
    let first = format!(
        "SELECT min(w.version) FROM {waiting} AS w WHERE w.projection = p.projection AND w.category = p.category \
         AND w.aggregate_id = p.aggregate_id AND w.build"
    );
    let sql = format!(
        "SELECT p.category, p.aggregate_id, p.reason FROM {parked} AS p WHERE p.projection = ? AND p.build = ? \
         AND ({first} = p.build) < COALESCE(({first} = ?), 9223372036854775807) \
         ORDER BY p.category, p.aggregate_id LIMIT ?"
    );
    let [projection, number] = one.key();
    let args = [projection, number, other.key()[1].clone(), limit.into()];
    let tell = |row: &Row| Ok(format!("{}: {}", stream_of(row)?, row.get::<String>("reason")?));
    tx.fetch(&sql, &args).await?.iter().map(tell).collect()
}

async fn add_skipped(
    tx: &mut Tx,
    build: &Build,
    events: &[(&Recorded, Arc<str>)],
    reason: &str,
    by: &str,
    why: &str,
) -> Result<(), Error> {
    let table = tx.table_name("es_skipped");
    let columns = "(projection, build, category, aggregate_id, version, event_id, event_type, topic, topic_partition, \
                   topic_offset, reason, skipped_by, skipped_why, skipped_at)";
    let insert = format!("INSERT INTO {table} {columns} VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    for (recorded, topic) in events {
        let envelope = &recorded.envelope;
        let rest = [
            envelope.version.into(),
            envelope.event_id.get().into(),
            clean(&envelope.event_type).into(),
            topic.clone().into(),
            recorded.partition.into(),
            Value::Integer(recorded.offset as i64),
            reason.into(),
            clean(by).into(),
            clean(why).into(),
            Utc::now().into(),
        ];
        tx.execute(&insert, &[&key(build, &envelope.stream)[..], &rest].concat()).await?;
    }
    Ok(())
}

/// As the migration makes it: the audit trail's columns behind those of the build.
fn waiting_table() -> Table {
    use crate::sql::Kind;
    let table = Table::new("es_waiting").key("projection", Kind::Text).key("build", Kind::Integer);
    crate::audit::columns(table)
}

/// An error with its causes, as it can be stored.
fn told(reason: &Cause) -> String {
    clean(&es_core::with_causes(&**reason))
}

fn clean(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
