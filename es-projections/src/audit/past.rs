//! How an aggregate was: its events in the audit trail are folded again, and their hash chain is checked on the way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use es_core::{EventHash, Recorded, StreamId, Version};
use serde::Serialize;
use serde_json::Value as Json;

use super::entry::Entry;
use super::query::{LIMIT_MAX, Order, Query};
use super::states::{self, Mark, PastState};
use crate::error::Error;
use crate::readable::{DamagedRow, Readable};
use crate::sql::Database;

/// What of an aggregate's past is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum At {
    /// As this version left it.
    Version(Version),
    /// As it was known at that time: with everything recorded until then, inclusive.
    Recorded(DateTime<Utc>),
    /// As it was at that business time: with everything that took place until then, inclusive, whenever it was recorded.
    Occurred(DateTime<Utc>),
}

/// A state of the past.
#[derive(Debug, Clone, PartialEq)]
pub struct StateAt<S> {
    /// The state.
    pub state: S,
    /// The last event that is folded in.
    pub last: Entry,
    /// How many events before it are not, since they took place later. Where there are none, the state is that of its version.
    pub left_out: u64,
}

impl<S> StateAt<S> {
    /// The version whose state this is; none where events before the last one are left out: no version left the aggregate so.
    pub fn version(&self) -> Option<Version> {
        (self.left_out == 0).then_some(self.last.recorded.envelope.version)
    }
}

/// A page of an aggregate's history.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The versions.
    pub steps: Vec<Step>,
    /// The cursor of the next page; none if there is none.
    pub next: Option<String>,
}

/// A version of an aggregate: an event, and what it changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The event with its metadata.
    pub entry: Entry,
    /// What changed in the state, field by field. None from the first event on that can't be folded by this program, and behind one
    /// that is damaged.
    pub changes: Option<Vec<Change>>,
}

/// A field of a state that an event changed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// Where it is in the state as JSON, as a JSON Pointer (RFC 6901): `/balance`. Lists are compared as a whole.
    pub field: String,
    /// Its value before; none where there was no such field, and for all of the first event's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Json>,
    /// Its value after; none where there is no such field any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Json>,
}

/// The past of one aggregate, as the audit trail tells it. To know a version, those behind the last state are read that the trail
/// [keeps](super::AuditTrail::keeping), or all before it where it keeps none.
///
/// Whatever is read is checked against the hashes on the way: that each event is the one that was recorded, and
/// follows the one before. That it is the one in the log, and that a kept state is what the log gives, only the log can tell: `verify` does.
///
/// ```no_run
/// # async fn ask(database: es_projections::Database) -> Result<(), Box<dyn std::error::Error>> {
/// # use es_core::doc::Account;
/// use es_core::StreamId;
/// use es_projections::audit::{At, Past, Query};
///
/// let past = Past::of(StreamId { category: "account".into(), id: "42".parse()? });
/// let new_year = "1994-01-01T00:00:00Z".parse()?;
/// if let Some(then) = past.state_at::<Account>(&database, &At::Occurred(new_year)).await? {
///     println!("{} since version {}", then.state.balance, then.last.recorded.envelope.version);
/// }
/// for step in past.history::<Account>(&database, &Query::default()).await?.steps {
///     println!("{} changed {:?}", step.entry.recorded.envelope.event_type, step.changes);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    stream: StreamId,
}

impl Past {
    /// The past of the aggregate with this stream.
    pub fn of(stream: StreamId) -> Self {
        Self { stream }
    }

    /// The aggregate's state at some point. None where it had no event until then.
    ///
    /// At a business time it is what the events make of it, in the order of their versions, that took place by then. Where its first one
    /// took place later, it was not there yet, and there is none, whatever else is recorded with an earlier time.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a version that it does not have; [`Error::Damaged`] for an event that was changed or is missing, which
    /// is named; [`Error::OtherVersion`] where this program can't fold one of them; [`Error::Unavailable`] or [`Error::Sql`] when the
    /// database fails or has no audit trail.
    pub async fn state_at<S: PastState>(&self, database: &Database, at: &At) -> Result<Option<StateAt<S>>, Error> {
        if let At::Version(version) = at
            && version.get() == 0
        {
            return Err(Error::invalid("versions are counted from 1, and 0 was asked for"));
        }
        if let At::Occurred(time) = at
            && let Some(first) = self.events(database, 0, 1).await?.first()
            && first.recorded.envelope.occurred_at > *time
        {
            return Ok(None);
        }
        let marks = states::marks::<S>(database, &self.stream).await?;
        let is_before = |mark: &&Mark| match at {
            At::Version(version) => mark.version <= version.get(),
            At::Recorded(time) => mark.recorded_at <= *time,
            At::Occurred(time) => mark.occurred_last <= *time,
        };
        let (mut told, behind) = self.begin::<S>(database, &marks, is_before).await?;
        if let At::Occurred(time) = at {
            for mark in behind {
                match mark.occurred_first > *time {
                    true => told.pass(mark),
                    false => self.read_on(database, &mut told, at, Some(mark)).await?,
                }
            }
        }
        self.read_on(database, &mut told, at, None).await?;
        if let At::Version(version) = at
            && told.chain.version < version.get()
            && told.chain.version > 0
        {
            let (stream, there) = (&self.stream, told.chain.version);
            return Err(Error::invalid(format!("{stream} has no version {version} in the audit trail, only {there}")));
        }
        match told.folded.failure {
            Some(failure) => {
                Err(Error::OtherVersion(format!("{} can't be folded by this program: {failure}", self.stream)))
            }
            None => Ok(told.last.map(|last| {
                let left_out = last.recorded.envelope.version.get() - told.count;
                StateAt { state: told.folded.state, last, left_out }
            })),
        }
    }

    /// The state at the last of these marks that is before the point asked for, and the marks behind it. Without one, the state
    /// before the first event.
    async fn begin<'m, S: PastState>(
        &self,
        database: &Database,
        marks: &'m [Mark],
        is_before: impl Fn(&&Mark) -> bool,
    ) -> Result<(Telling<S>, &'m [Mark]), Error> {
        let before = marks.iter().take_while(is_before).count();
        if let Some(mark) = before.checked_sub(1).map(|last| &marks[last])
            && let Some(state) = states::state::<S>(database, &self.stream, mark).await?
            && let Some(entry) = self.events(database, mark.version - 1, 1).await?.pop()
            && entry.recorded.envelope.version.get() == mark.version
            && entry.recorded.envelope.hash == mark.hash
        {
            let chain = Chain { version: mark.version, hash: mark.hash };
            let folded = Folded { state, failure: None };
            return Ok((Telling { chain, folded, last: Some(entry), count: mark.version }, &marks[before..]));
        }
        let folded = Folded { state: S::before(&self.stream), failure: None };
        // All is read then, so that marks serve nothing.
        Ok((Telling { chain: Chain::default(), folded, last: None, count: 0 }, if before == 0 { marks } else { &[] }))
    }

    /// Folds what follows up to a mark, or to where it is over.
    async fn read_on<S: PastState>(
        &self,
        database: &Database,
        told: &mut Telling<S>,
        at: &At,
        mark: Option<&Mark>,
    ) -> Result<(), Error> {
        loop {
            let end = match (mark, at) {
                (Some(mark), _) => mark.version,
                (None, At::Version(version)) => version.get(),
                (None, _) => u64::MAX,
            };
            let limit = end.saturating_sub(told.chain.version).min(LIMIT_MAX.into());
            if limit == 0 {
                break;
            }
            let entries = self.events(database, told.chain.version, limit).await?;
            let is_last = (entries.len() as u64) < limit;
            for entry in entries {
                let event = &entry.recorded.envelope;
                let (is_over, counts) = match at {
                    At::Version(version) => (event.version > *version, true),
                    // It does not fall from one version to the next.
                    At::Recorded(time) => (event.recorded_at > *time, true),
                    At::Occurred(time) => (false, event.occurred_at <= *time),
                };
                if is_over {
                    return Ok(());
                }
                told.chain.follow(&entry)?;
                if counts {
                    told.folded.take(&entry);
                    told.count += 1;
                    told.last = Some(entry);
                }
            }
            if is_last {
                break;
            }
        }
        match mark {
            Some(mark) if told.chain.version != mark.version || told.chain.hash != mark.hash => {
                Err(Error::Damaged(format!(
                    "version {} of {} in the audit trail is not the one that a state is kept of: build the trail anew from the log",
                    mark.version, self.stream
                )))
            }
            _ => Ok(()),
        }
    }

    /// A page of the aggregate's versions, each with what it changed in the aggregate's state. Of the query only order, limit
    /// and cursor count.
    ///
    /// # Errors
    /// [`Error::Damaged`] for an event that was changed or is missing, which is named; else as for [`Query::run`].
    pub async fn history<S: PastState + Serialize>(
        &self,
        database: &Database,
        query: &Query,
    ) -> Result<History, Error> {
        let (page, damage_before) = self.read_history::<S>(database, query).await?;
        let (steps, next) = page.all()?;
        damage_before.map_or(Ok(History { steps, next }), Err)
    }

    /// The same, where versions that are damaged or missing take no others with them. They are told at their places; what the versions
    /// behind them changed is not known, on the pages that come after either.
    ///
    /// # Errors
    /// As for [`Query::run`], save for what is damaged.
    pub async fn history_readable<S: PastState + Serialize>(
        &self,
        database: &Database,
        query: &Query,
    ) -> Result<Readable<Step, String>, Error> {
        self.read_history::<S>(database, query).await.map(|(page, _)| page)
    }

    /// A page, and what is damaged before it.
    async fn read_history<S: PastState + Serialize>(
        &self,
        database: &Database,
        query: &Query,
    ) -> Result<(Readable<Step, String>, Option<Error>), Error> {
        let query = Query {
            aggregate: Some(self.stream.clone()),
            order: query.order,
            limit: query.limit,
            cursor: query.cursor.clone(),
            ..Query::default()
        };
        let Readable { items: mut entries, next } = query.run_readable(database).await?;
        if query.order == Order::NewestFirst {
            entries.reverse();
        }
        let first = entries.iter().flatten().next().map_or(1, |entry| entry.recorded.envelope.version.get());
        let (mut told, damage_before) = match self.tell_until::<S>(database, first).await {
            Ok(told) => (Some(told), None),
            Err(error @ Error::Damaged(_)) => (None, Some(error)),
            Err(error) => return Err(error),
        };
        let mut items = Vec::with_capacity(entries.len());
        let mut before = told.as_ref().and_then(Telling::shown);
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(damaged) => {
                    items.push(Err(damaged));
                    (told, before) = (None, None);
                    continue;
                }
            };
            let followed = match &mut told {
                Some(told) => told.chain.follow(&entry),
                None => check_hash(&entry),
            };
            match followed {
                Ok(()) => {}
                Err(Error::Damaged(reason)) => {
                    let is_missing = told.as_ref().is_some_and(|told| told.chain.is_before(&entry));
                    let row = match &told {
                        Some(told) if is_missing => format!("version {} of {}", told.chain.version + 1, self.stream),
                        _ => named(&entry),
                    };
                    items.push(Err(DamagedRow { row, reason }));
                    (told, before) = (None, None);
                    if !is_missing {
                        continue;
                    }
                }
                Err(error) => return Err(error),
            }
            let mut changes = None;
            if let Some(told) = &mut told {
                told.folded.take(&entry);
                let after = told.folded.shown();
                changes = before.as_ref().zip(after.as_ref()).map(|(before, after)| self::changes(before, after));
                before = after;
            }
            items.push(Ok(Step { entry, changes }));
        }
        if query.order == Order::NewestFirst {
            items.reverse();
        }
        Ok((Readable { items, next }, damage_before))
    }

    /// What the versions before this one made.
    async fn tell_until<S: PastState>(&self, database: &Database, version: u64) -> Result<Telling<S>, Error> {
        let marks = states::marks::<S>(database, &self.stream).await?;
        let (mut told, _) = self.begin::<S>(database, &marks, |mark| mark.version < version).await?;
        if version > 1 {
            self.read_on(database, &mut told, &At::Version(Version::new(version - 1)), None).await?;
        }
        Ok(told)
    }

    /// Its events behind a version.
    async fn events(&self, database: &Database, after: u64, limit: u64) -> Result<Vec<Entry>, Error> {
        let sql = format!(
            "SELECT * FROM {} WHERE category = ? AND aggregate_id = ? AND version > ? ORDER BY version LIMIT {limit}",
            database.table_name("audit")
        );
        let args = [&states::of(&self.stream)[..], &[states::integer(after)]].concat();
        database.fetch_planned(&sql, &args).await?.iter().map(Entry::from_row).collect()
    }
}

/// What was told so far.
struct Telling<S> {
    chain: Chain,
    folded: Folded<S>,
    /// The last event that was folded in.
    last: Option<Entry>,
    /// How many were.
    count: u64,
}

impl<S: Serialize> Telling<S> {
    /// The state, nothing before the first event; none where it is not known.
    fn shown(&self) -> Option<Json> {
        if self.chain.version == 0 { Some(Json::Null) } else { self.folded.shown() }
    }
}

impl<S> Telling<S> {
    /// Leaves out what is up to a mark.
    fn pass(&mut self, mark: &Mark) {
        self.chain = Chain { version: mark.version, hash: mark.hash };
    }
}

/// How far the hash chain was followed.
#[derive(Default)]
struct Chain {
    version: u64,
    hash: EventHash,
}

impl Chain {
    /// Whether versions are missing between.
    fn is_before(&self, entry: &Entry) -> bool {
        entry.recorded.envelope.version.get() > self.version + 1 && check_hash(entry).is_ok()
    }

    fn follow(&mut self, entry: &Entry) -> Result<(), Error> {
        let event = &entry.recorded.envelope;
        let next = self.version + 1;
        if event.version.get() != next {
            return Err(Error::Damaged(format!(
                "version {next} of {} is not in the audit trail, and version {} is: build the trail anew from the log",
                event.stream, event.version
            )));
        }
        if event.previous_hash != self.hash {
            return Err(is_not_what_was_recorded(entry));
        }
        check_hash(entry)?;
        (self.version, self.hash) = (next, event.hash);
        Ok(())
    }
}

fn check_hash(entry: &Entry) -> Result<(), Error> {
    let event = &entry.recorded.envelope;
    if event.compute_hash() == event.hash { Ok(()) } else { Err(is_not_what_was_recorded(entry)) }
}

fn is_not_what_was_recorded(entry: &Entry) -> Error {
    let event = &entry.recorded.envelope;
    Error::Damaged(format!(
        "version {} of {} in the audit trail is not what was recorded, or does not follow the version before: its hash says so; \
         build the trail anew from the log, and verify that",
        event.version, event.stream
    ))
}

/// Which event it is, and where.
fn named(Entry { topic, recorded }: &Entry) -> String {
    let Recorded { envelope: event, partition, offset } = recorded;
    format!("version {} of {} at {topic}/{partition} offset {offset}", event.version, event.stream)
}

/// A state, or why it is not known.
struct Folded<S> {
    state: S,
    failure: Option<String>,
}

impl<S: PastState> Folded<S> {
    fn take(&mut self, entry: &Entry) {
        if self.failure.is_some() {
            return;
        }
        let version = entry.recorded.envelope.version;
        let state = &mut self.state;
        self.failure = match catch_unwind(AssertUnwindSafe(|| state.fold(&entry.recorded))) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("version {version}: {}", es_core::with_causes(&*error))),
            Err(_) => Some(format!("version {version}: folding it panicked")),
        };
    }
}

impl<S: Serialize> Folded<S> {
    fn shown(&self) -> Option<Json> {
        self.failure.is_none().then(|| serde_json::to_value(&self.state).ok()).flatten()
    }
}

/// What is different, in the order of the fields.
fn changes(before: &Json, after: &Json) -> Vec<Change> {
    let mut found = Vec::new();
    compare(String::new(), Some(before).filter(|before| !before.is_null()), Some(after), &mut found);
    found
}

fn compare(field: String, before: Option<&Json>, after: Option<&Json>, found: &mut Vec<Change>) {
    if before == after {
        return;
    }
    let fields = |json: Option<&Json>| json.and_then(Json::as_object).cloned();
    match (fields(before), fields(after)) {
        (Some(old), Some(new)) => compare_fields(&field, &old, &new, found),
        // Of a whole that comes or goes each field is told.
        (None, Some(new)) if before.is_none() && !new.is_empty() => {
            compare_fields(&field, &serde_json::Map::new(), &new, found);
        }
        (Some(old), None) if after.is_none() && !old.is_empty() => {
            compare_fields(&field, &old, &serde_json::Map::new(), found);
        }
        _ => found.push(Change { field, from: before.cloned(), to: after.cloned() }),
    }
}

fn compare_fields(
    field: &str,
    old: &serde_json::Map<String, Json>,
    new: &serde_json::Map<String, Json>,
    found: &mut Vec<Change>,
) {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    for name in new.keys().chain(gone) {
        let escaped = name.replace('~', "~0").replace('/', "~1");
        compare(format!("{field}/{escaped}"), old.get(name), new.get(name), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(before: Json, after: Json) -> Vec<String> {
        let tell = |change: Change| format!("{} {:?} {:?}", change.field, change.from, change.to);
        changes(&before, &after).into_iter().map(tell).collect()
    }

    #[test]
    fn fields_are_told_at_every_depth() {
        assert_eq!(told(json!({ "a": 1 }), json!({ "a": 1 })), [""; 0]);
        let before = json!({ "same": 1, "n": { "a/b": 1, "c": [1, 2] }, "gone": {}, "left": { "x": 1 } });
        let after = json!({ "same": 1, "n": { "a/b": 2, "c": [1, 3] }, "new": { "~": null } });
        let expected = [
            "/n/a~1b Some(Number(1)) Some(Number(2))",
            "/n/c Some(Array [Number(1), Number(2)]) Some(Array [Number(1), Number(3)])",
            "/new/~0 None Some(Null)",
            "/gone Some(Object {}) None",
            "/left/x Some(Number(1)) None",
        ];
        assert_eq!(told(before, after), expected);
        assert_eq!(told(Json::Null, json!({ "a": 1 })), ["/a None Some(Number(1))"]);
        assert_eq!(
            told(json!({ "a": 1 }), json!({ "a": { "b": 1 } })),
            ["/a Some(Number(1)) Some(Object {\"b\": Number(1)})"]
        );
        assert_eq!(told(json!(1), json!(2)), [" Some(Number(1)) Some(Number(2))"]);
    }
}
