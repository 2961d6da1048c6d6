//! States that the trail keeps of aggregates with many events, so that to tell one of their versions not all before it are read.

use std::collections::HashMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use chrono::{DateTime, Utc};
use es_core::{Apply, EventHash, Recorded, StreamId, Version};
use serde_json::Value as Json;
use sha2::{Digest, Sha256};

use super::entry::{Entry, array};
use crate::error::{Error, ProjectionError};
use crate::sql::{Database, Kind, Row, Table, Tx, Value};

/// A state is kept behind each so many versions.
pub(super) const EVERY: u64 = 500;
/// A larger state is not kept, in bytes of its JSON.
const STATE_MAX: usize = 256 << 10;
/// The most states that are kept at once, where earlier ones are missing.
const ANEW_MAX: usize = 8;

/// What an aggregate's events are folded into, to tell how it was. Every aggregate is one by its [`Apply`].
pub trait PastState: Sized + Send + 'static {
    /// The stored name of the aggregate type.
    const CATEGORY: &'static str;

    /// What tells states of this form from those that another release kept: those are not used. It changes with the fields, and
    /// where the same events give another state.
    fn form() -> String;

    /// The state before the first event.
    fn before(stream: &StreamId) -> Self;

    /// Changes the state by one event.
    ///
    /// # Errors
    /// Where the program can't: no state is told from there on.
    fn fold(&mut self, recorded: &Recorded) -> Result<(), ProjectionError>;

    /// What is kept of it.
    ///
    /// # Errors
    /// Where it can't be written: then it is not kept.
    fn keep(&self) -> Result<Json, serde_json::Error>;

    /// The state of which this was kept.
    ///
    /// # Errors
    /// Where it can't be read: then all events before are.
    fn restore(stream: &StreamId, kept: Json) -> Result<Self, serde_json::Error>;
}

impl<A: Apply> PastState for A {
    const CATEGORY: &'static str = A::NAME;

    fn form() -> String {
        let mut hash = Sha256::new();
        hash.update(format!("{}.{} {}\n{}", A::CONTEXT, A::NAME, A::SNAPSHOT_VERSION, es_core::shape::text::<A>()));
        hash.finalize()[..16].iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
    }

    fn before(_: &StreamId) -> Self {
        Self::default()
    }

    fn fold(&mut self, recorded: &Recorded) -> Result<(), ProjectionError> {
        self.apply(&recorded.envelope.event::<A>()?);
        Ok(())
    }

    fn keep(&self) -> Result<Json, serde_json::Error> {
        serde_json::to_value(self)
    }

    fn restore(_: &StreamId, kept: Json) -> Result<Self, serde_json::Error> {
        serde_json::from_value(kept)
    }
}

/// Keeps the states of one aggregate type.
#[derive(Debug, Clone)]
pub(super) struct Keeper {
    pub(super) category: &'static str,
    form: String,
    /// From what was kept before, or nothing before the first event; none where the events can't be folded.
    advance: fn(&StreamId, Option<Json>, &[Entry]) -> Option<Json>,
}

impl Keeper {
    pub(super) fn of<S: PastState>() -> Self {
        Self { category: S::CATEGORY, form: S::form(), advance: advance::<S> }
    }

    /// Keeps the state behind an event whose version is a multiple of [`EVERY`], which is in the trail with all before it. Where states
    /// before it are missing, or of another form, as after a new release, the first of them are kept anew, and it is kept once they are.
    pub(super) async fn keep(&self, tx: &mut Tx, event: &Recorded) -> Result<Vec<Vec<Value>>, Error> {
        let (stream, version) = (&event.envelope.stream, event.envelope.version.get());
        let mut before = match self.is_kept(tx, stream, version - EVERY).await? {
            true => version - EVERY,
            false => self.last_of_the_first(tx, stream).await?,
        };
        let mut kept = match before {
            0 => None,
            _ => match self.kept(tx, stream, before).await? {
                Some(state) => Some(state),
                None => return Ok(Vec::new()),
            },
        };
        let mut rows = Vec::new();
        while before < version && rows.len() < ANEW_MAX {
            let Some((row, state)) = self.keep_next(tx, stream, before, kept.take()).await? else { break };
            rows.push(row);
            (before, kept) = (before + EVERY, Some(state));
        }
        Ok(rows)
    }

    /// Whether a state of this form is kept behind a version, which it always is before the first.
    async fn is_kept(&self, tx: &mut Tx, stream: &StreamId, version: u64) -> Result<bool, Error> {
        let sql = format!(
            "SELECT form FROM {} WHERE category = ? AND aggregate_id = ? AND version = ?",
            tx.table_name("audit_states")
        );
        let found = tx.fetch(&sql, &[&of(stream)[..], &[integer(version)]].concat()).await?;
        Ok(version == 0 || found.first().is_some_and(|row| self.is_form_of(row)))
    }

    fn is_form_of(&self, row: &Row) -> bool {
        row.get::<String>("form").is_ok_and(|form| form == self.form)
    }

    /// Up to which version states of this form are kept without a gap.
    async fn last_of_the_first(&self, tx: &mut Tx, stream: &StreamId) -> Result<u64, Error> {
        let sql = format!(
            "SELECT version, form FROM {} WHERE category = ? AND aggregate_id = ? ORDER BY version",
            tx.table_name("audit_states")
        );
        let rows = tx.fetch(&sql, &of(stream)).await?;
        let versions = (1..).map(|place| place * EVERY);
        let is_next = |row: &Row, version: u64| {
            self.is_form_of(row) && row.get::<Version>("version").is_ok_and(|there| there.get() == version)
        };
        Ok(rows.iter().zip(versions).take_while(|(row, version)| is_next(row, *version)).count() as u64 * EVERY)
    }

    async fn kept(&self, tx: &mut Tx, stream: &StreamId, version: u64) -> Result<Option<Json>, Error> {
        let sql = format!(
            "SELECT state FROM {} WHERE category = ? AND aggregate_id = ? AND version = ?",
            tx.table_name("audit_states")
        );
        let found = tx.fetch(&sql, &[&of(stream)[..], &[integer(version)]].concat()).await?;
        Ok(found.first().and_then(|row| row.get::<Json>("state").ok()))
    }

    /// The row of the state behind [`EVERY`] versions more, and the state.
    async fn keep_next(
        &self,
        tx: &mut Tx,
        stream: &StreamId,
        before: u64,
        kept: Option<Json>,
    ) -> Result<Option<(Vec<Value>, Json)>, Error> {
        let version = before + EVERY;
        let sql = format!(
            "SELECT * FROM {} WHERE category = ? AND aggregate_id = ? AND version > ? AND version <= ? ORDER BY version",
            tx.table_name("audit")
        );
        let rows = tx.fetch(&sql, &[&of(stream)[..], &[integer(before), integer(version)]].concat()).await?;
        if rows.len() as u64 != EVERY {
            return Ok(None);
        }
        let Ok(entries) = rows.iter().map(Entry::from_row).collect::<Result<Vec<_>, _>>() else { return Ok(None) };
        let Some(state) = (self.advance)(stream, kept, &entries) else { return Ok(None) };
        let Ok(value @ Value::Json(_)) = Value::json(&state) else { return Ok(None) };
        if value.size() > STATE_MAX {
            return Ok(None);
        }
        let occurred = || entries.iter().map(|entry| entry.recorded.envelope.occurred_at);
        let (Some(first), Some(last)) = (occurred().min(), occurred().max()) else { return Ok(None) };
        let Some(Entry { recorded, .. }) = entries.last() else { return Ok(None) };
        let hash = Value::from(recorded.envelope.hash.0.as_slice());
        let row = [
            integer(version),
            self.form.clone().into(),
            value,
            hash,
            recorded.envelope.recorded_at.into(),
            first.into(),
            last.into(),
        ];
        Ok(Some(([&of(stream)[..], &row].concat(), state)))
    }
}

fn advance<S: PastState>(stream: &StreamId, kept: Option<Json>, entries: &[Entry]) -> Option<Json> {
    let folded = catch_unwind(AssertUnwindSafe(|| {
        let mut state = match kept {
            Some(kept) => S::restore(stream, kept).ok()?,
            None => S::before(stream),
        };
        for entry in entries {
            state.fold(&entry.recorded).ok()?;
        }
        state.keep().ok()
    }));
    folded.ok().flatten()
}

pub(super) fn table() -> Table {
    Table::new("audit_states")
        .key("category", Kind::Text)
        .key("aggregate_id", Kind::Text)
        .key("version", Kind::Integer)
        .column("form", Kind::Text)
        .column("state", Kind::Json)
        .column("hash", Kind::Bytes)
        .column("recorded_at", Kind::Time)
        .column("occurred_first", Kind::Time)
        .column("occurred_last", Kind::Time)
}

pub(super) fn of(stream: &StreamId) -> [Value; 2] {
    [stream.category.clone().into(), stream.id.clone().into()]
}

pub(super) fn integer(version: u64) -> Value {
    Value::Integer(i64::try_from(version).unwrap_or(i64::MAX))
}

/// Where a state is kept, with what is known of the versions since the mark before.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    pub(super) version: u64,
    pub(super) hash: EventHash,
    pub(super) recorded_at: DateTime<Utc>,
    /// The earliest and the latest business time of those versions.
    pub(super) occurred_first: DateTime<Utc>,
    pub(super) occurred_last: DateTime<Utc>,
}

/// The marks of an aggregate from the first on, as far as none is missing or can't be read: they only spare reading events.
pub(super) async fn marks<S: PastState>(database: &Database, stream: &StreamId) -> Result<Vec<Mark>, Error> {
    let sql = format!(
        "SELECT version, form, hash, recorded_at, occurred_first, occurred_last FROM {} \
         WHERE category = ? AND aggregate_id = ? ORDER BY version",
        database.table_name("audit_states")
    );
    let form = S::form();
    let mut marks = Vec::new();
    for row in database.fetch_readable(&sql, &of(stream)).await? {
        let due = (marks.len() as u64 + 1) * EVERY;
        match Mark::of(&row) {
            Ok(mark) if mark.version == due && row.get::<String>("form").is_ok_and(|kept| kept == form) => {
                marks.push(mark);
            }
            _ => break,
        }
    }
    Ok(marks)
}

impl Mark {
    fn of(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            version: row.get::<Version>("version")?.get(),
            hash: EventHash(array(row, "hash")?),
            recorded_at: row.get("recorded_at")?,
            occurred_first: row.get("occurred_first")?,
            occurred_last: row.get("occurred_last")?,
        })
    }
}

/// The state that is kept at a mark; none where it can't be read.
pub(super) async fn state<S: PastState>(
    database: &Database,
    stream: &StreamId,
    mark: &Mark,
) -> Result<Option<S>, Error> {
    let sql = format!(
        "SELECT state FROM {} WHERE category = ? AND aggregate_id = ? AND version = ?",
        database.table_name("audit_states")
    );
    let found = database.fetch_readable(&sql, &[&of(stream)[..], &[integer(mark.version)]].concat()).await?;
    let kept = |row: &Row| row.get::<Json>("state").ok();
    Ok(found.first().and_then(kept).and_then(|kept| S::restore(stream, kept).ok()))
}

/// The keepers by category.
pub(super) type Keepers = HashMap<&'static str, Keeper>;
