//! How an aggregate was: its events in the audit trail are folded again, and their hash chain is checked on the way.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use es_core::{Apply, EventHash, Recorded, StreamId, Version};
use serde::Serialize;
use serde_json::Value as Json;

use super::entry::Entry;
use super::query::{LIMIT_MAX, Order, Page, Query};
use crate::error::{Error, ProjectionError};
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
    /// The last event that is folded in: its version is the state's.
    pub last: Entry,
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
    /// What changed in the state, field by field. None from the first event on that can't be folded by this program.
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

/// The past of one aggregate, as the audit trail tells it. To know a version all before it are read, so that asking for a late
/// one of very many takes its time.
///
/// Whatever the trail tells of it is checked against the hashes on the way: that each event is the one that was recorded, and
/// follows the one before. That it is the one in the log, only the log can tell.
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
    /// # Errors
    /// [`Error::Invalid`] for a version that it does not have; [`Error::Damaged`] for an event that was changed or is missing, which
    /// is named; [`Error::OtherVersion`] where this program can't fold one of them; [`Error::Unavailable`] or [`Error::Sql`] when the
    /// database fails or has no audit trail.
    pub async fn state_at<A: Apply>(&self, database: &Database, at: &At) -> Result<Option<StateAt<A>>, Error> {
        self.fold_at(database, at, A::default(), apply).await
    }

    /// The same of whatever else an aggregate's events are folded into.
    ///
    /// # Errors
    /// As for [`Past::state_at`].
    pub async fn fold_at<S>(
        &self,
        database: &Database,
        at: &At,
        state: S,
        fold: impl Fn(&mut S, &Recorded) -> Result<(), ProjectionError>,
    ) -> Result<Option<StateAt<S>>, Error> {
        if let At::Version(version) = at
            && version.get() == 0
        {
            return Err(Error::invalid("versions are counted from 1, and 0 was asked for"));
        }
        let (mut chain, mut folded) = (Chain::default(), Folded { state, failure: None });
        let mut last = None;
        let mut pages = self.pages();
        while let Some(page) = pages.next(database).await? {
            for entry in page {
                let event = &entry.recorded.envelope;
                let (is_over, counts) = match at {
                    At::Version(version) => (event.version > *version, true),
                    // It does not fall from one version to the next.
                    At::Recorded(time) => (event.recorded_at > *time, true),
                    At::Occurred(time) => (false, event.occurred_at <= *time),
                };
                if is_over {
                    return self.done(folded, last);
                }
                chain.follow(&entry)?;
                if counts {
                    folded.take(&entry, &fold);
                    last = Some(entry);
                }
            }
        }
        if let At::Version(version) = at
            && chain.version < version.get()
            && chain.version > 0
        {
            let (stream, there) = (&self.stream, chain.version);
            return Err(Error::invalid(format!("{stream} has no version {version} in the audit trail, only {there}")));
        }
        self.done(folded, last)
    }

    fn done<S>(&self, folded: Folded<S>, last: Option<Entry>) -> Result<Option<StateAt<S>>, Error> {
        match folded.failure {
            Some(failure) => {
                Err(Error::OtherVersion(format!("{} can't be folded by this program: {failure}", self.stream)))
            }
            None => Ok(last.map(|last| StateAt { state: folded.state, last })),
        }
    }

    /// A page of the aggregate's versions, each with what it changed in the aggregate's state. Of the query only order, limit
    /// and cursor count.
    ///
    /// # Errors
    /// [`Error::Damaged`] for an event that was changed or is missing, which is named; else as for [`Query::run`].
    pub async fn history<A: Apply>(&self, database: &Database, query: &Query) -> Result<History, Error> {
        self.history_of(database, query, A::default(), apply).await
    }

    /// The same of whatever else an aggregate's events are folded into.
    ///
    /// # Errors
    /// As for [`Past::history`].
    pub async fn history_of<S: Serialize>(
        &self,
        database: &Database,
        query: &Query,
        state: S,
        fold: impl Fn(&mut S, &Recorded) -> Result<(), ProjectionError>,
    ) -> Result<History, Error> {
        let query = Query {
            aggregate: Some(self.stream.clone()),
            order: query.order,
            limit: query.limit,
            cursor: query.cursor.clone(),
            ..Query::default()
        };
        let Page { mut entries, next } = query.run(database).await?;
        if query.order == Order::NewestFirst {
            entries.reverse();
        }
        let first = entries.first().map_or(1, |entry| entry.recorded.envelope.version.get());
        let (mut chain, mut folded) = (Chain::default(), Folded { state, failure: None });
        let mut pages = self.pages();
        while chain.version + 1 < first
            && let Some(page) = pages.next(database).await?
        {
            for entry in page.into_iter().take_while(|entry| entry.recorded.envelope.version.get() < first) {
                chain.follow(&entry)?;
                folded.take(&entry, &fold);
            }
        }
        let mut steps = Vec::with_capacity(entries.len());
        let mut before = if chain.version == 0 { Some(Json::Null) } else { folded.shown() };
        for entry in entries {
            chain.follow(&entry)?;
            folded.take(&entry, &fold);
            let after = folded.shown();
            let changes = before.as_ref().zip(after.as_ref()).map(|(before, after)| changes(before, after));
            before = after;
            steps.push(Step { entry, changes });
        }
        if query.order == Order::NewestFirst {
            steps.reverse();
        }
        Ok(History { steps, next })
    }

    /// All its events, from the first on.
    fn pages(&self) -> Pages {
        let (aggregate, order) = (Some(self.stream.clone()), Order::OldestFirst);
        Pages(Some(Query { aggregate, order, limit: LIMIT_MAX, ..Query::default() }))
    }
}

fn apply<A: Apply>(state: &mut A, recorded: &Recorded) -> Result<(), ProjectionError> {
    state.apply(&recorded.envelope.event::<A>()?);
    Ok(())
}

/// What is still to be asked.
struct Pages(Option<Query>);

impl Pages {
    async fn next(&mut self, database: &Database) -> Result<Option<Vec<Entry>>, Error> {
        let Some(query) = self.0.take() else { return Ok(None) };
        let Page { entries, next } = query.run(database).await?;
        self.0 = next.map(|cursor| Query { cursor: Some(cursor), ..query });
        Ok(Some(entries))
    }
}

/// How far the hash chain was followed.
#[derive(Default)]
struct Chain {
    version: u64,
    hash: EventHash,
}

impl Chain {
    fn follow(&mut self, entry: &Entry) -> Result<(), Error> {
        let event = &entry.recorded.envelope;
        let next = self.version + 1;
        if event.version.get() != next {
            return Err(Error::Damaged(format!(
                "version {next} of {} is not in the audit trail, and version {} is: build the trail anew from the log",
                event.stream, event.version
            )));
        }
        if event.previous_hash != self.hash || event.compute_hash() != event.hash {
            return Err(Error::Damaged(format!(
                "version {next} of {} in the audit trail is not what was recorded, or does not follow the version before: its \
                 hash says so; build the trail anew from the log, and verify that",
                event.stream
            )));
        }
        (self.version, self.hash) = (next, event.hash);
        Ok(())
    }
}

/// A state, or why it is not known.
struct Folded<S> {
    state: S,
    failure: Option<String>,
}

impl<S> Folded<S> {
    fn take(&mut self, entry: &Entry, fold: impl Fn(&mut S, &Recorded) -> Result<(), ProjectionError>) {
        if self.failure.is_some() {
            return;
        }
        let version = entry.recorded.envelope.version;
        let state = &mut self.state;
        self.failure = match catch_unwind(AssertUnwindSafe(|| fold(state, &entry.recorded))) {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("version {version}: {error}")),
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
