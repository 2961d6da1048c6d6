//! What a read model has not folded in of what it has passed: events that wait, and those that an operator left out.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use es_core::{Recorded, StreamId, Version};

use crate::builds::Build;
use crate::error::Error;
use crate::parked::stream_of;
use crate::sql::Tx;

/// An event that an operator left out of a read model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// The aggregate's type.
    pub category: String,
    /// Its id.
    pub aggregate_id: String,
    /// The event's version.
    pub version: Version,
    /// Its type.
    pub event_type: String,
    /// Why it could not be folded in.
    pub reason: String,
    /// Who left it out.
    pub skipped_by: String,
    /// For what reason.
    pub skipped_why: String,
    /// When.
    pub skipped_at: DateTime<Utc>,
}

/// What one build has not folded in, as of some moment.
#[derive(Debug)]
pub(crate) struct LeftOut {
    build: i64,
    /// The first version that waits of each aggregate that is parked.
    waiting: HashMap<StreamId, Version>,
    skipped: HashMap<StreamId, HashSet<Version>>,
    told: Vec<Skipped>,
}

impl LeftOut {
    pub(crate) async fn of(tx: &mut Tx, build: &Build) -> Result<Self, Error> {
        let mut found =
            Self { build: build.number, waiting: HashMap::new(), skipped: HashMap::new(), told: Vec::new() };
        let waiting = format!(
            "SELECT category, aggregate_id, min(version) AS version FROM {} WHERE projection = ? AND build = ? \
             GROUP BY category, aggregate_id",
            tx.table_name("es_waiting")
        );
        for row in tx.fetch(&waiting, &build.key()).await? {
            found.waiting.insert(stream_of(&row)?, row.get("version")?);
        }
        let skipped = format!(
            "SELECT category, aggregate_id, version, event_type, reason, skipped_by, skipped_why, skipped_at FROM {} \
             WHERE projection = ? AND build = ? ORDER BY category, aggregate_id, version",
            tx.table_name("es_skipped")
        );
        for row in tx.fetch(&skipped, &build.key()).await? {
            let version = row.get("version")?;
            found.skipped.entry(stream_of(&row)?).or_default().insert(version);
            found.told.push(Skipped {
                category: row.get("category")?,
                aggregate_id: row.get("aggregate_id")?,
                version,
                event_type: row.get("event_type")?,
                reason: row.get("reason")?,
                skipped_by: row.get("skipped_by")?,
                skipped_why: row.get("skipped_why")?,
                skipped_at: row.get("skipped_at")?,
            });
        }
        Ok(found)
    }

    /// Whether the build lacks this event.
    pub(crate) fn has(&self, event: &Recorded) -> bool {
        let event = &event.envelope;
        self.waiting.get(&event.stream).is_some_and(|first| *first <= event.version)
            || self.skipped.get(&event.stream).is_some_and(|versions| versions.contains(&event.version))
    }

    /// Whether this was of the same build as a later look, and all that waits here waits there, too: nothing of it was folded in meanwhile.
    pub(crate) fn waits_in(&self, later: &Self) -> bool {
        self.build == later.build && self.waiting.iter().all(|(stream, first)| later.waiting.get(stream) == Some(first))
    }

    pub(crate) fn skipped(&self) -> &[Skipped] {
        &self.told
    }
}
