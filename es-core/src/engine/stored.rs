//! What the local store says of a partition: how far it goes, what made it, and which tables it has something in.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::engine::forgetting::Forgetting;
use crate::engine::parked::List;
use crate::engine::store::key::{self, Spans};
use crate::engine::store::{Span, Store, StoreError, Table, Write};
use crate::log::reader::Checkpoint;

/// What states of an aggregate type look like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Schema {
    /// Changes with the shape of state and events, and with the declared version.
    pub(crate) fingerprint: Arc<str>,
    /// Declared by the aggregate.
    pub(crate) snapshot_version: u32,
    /// Stands for the program's release; 0 where nobody asks.
    pub(crate) release: u64,
}

/// A place of the log up to which everything was folded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reached {
    pub(crate) checkpoint: Checkpoint,
    /// The newest time at which something before it was recorded.
    pub(crate) last_recorded_ms: i64,
}

/// The stored checkpoint of a partition, with what it was made by.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct StoredCheckpoint {
    pub(super) fingerprint: String,
    pub(super) last_recorded_ms: i64,
    pub(super) checkpoint: Checkpoint,
    /// Where the first command with an event that could not be folded begins: no snapshot may claim what is behind.
    pub(super) held: Option<Reached>,
    /// The number of the flush, and the last one that wrote to each table.
    pub(super) flush: u64,
    pub(super) tables: Vec<(Table, u64)>,
    /// Aggregates that are parked, and the release that parked them.
    #[serde(default)]
    pub(super) parked: List,
    #[serde(default)]
    pub(super) forgetting: Forgetting,
}

impl StoredCheckpoint {
    /// What the store holds of a partition, if that is of use: made by the same code, and whole. A database that lost
    /// a file may have older contents in one table than in another; every table says by itself how old it is.
    pub(crate) fn read(
        store: &dyn Store,
        partition: u32,
        schema: &Schema,
        spans: Spans,
    ) -> Result<Option<Self>, StoreError> {
        let Some(value) = store.get(Table::Checkpoints, &key::prefix(partition))? else { return Ok(None) };
        let stored = serde_json::from_slice::<Self>(&value).ok();
        let Some(stored) = stored.filter(|stored| *stored.fingerprint == *schema.fingerprint) else { return Ok(None) };
        if stored.parked.count() > 0 && stored.parked.release != schema.release {
            let parked = stored.parked.count();
            tracing::info!(partition, parked, "another release parked aggregates: their events are tried again");
            return Ok(None);
        }
        for (table, flush) in &stored.tables {
            if table.span().is_some_and(|span| spans.is_over(span, stored.forgetting.by_ms)) {
                continue; // of no use any more
            }
            let mark = store.get(*table, &key::mark(partition))?;
            let mark = mark.and_then(|mark| Some(u64::from_be_bytes(mark.as_ref().try_into().ok()?)));
            if mark.is_none_or(|mark| mark < *flush) {
                tracing::warn!(partition, ?table, "the local state store lost what was written last: it is built anew");
                return Ok(None);
            }
        }
        Ok(Some(stored))
    }

    /// After the store was filled from snapshots.
    pub(crate) fn restored(schema: &Schema, reached: Reached, forgetting: Forgetting, tables: HashSet<Table>) -> Self {
        let fingerprint = schema.fingerprint.to_string();
        let Reached { checkpoint, last_recorded_ms } = reached;
        Self { fingerprint, last_recorded_ms, checkpoint, forgetting, ..Self::default() }.wrote(tables)
    }

    /// After one more flush, which wrote to these tables.
    pub(super) fn wrote(mut self, tables: HashSet<Table>) -> Self {
        self.flush += 1;
        self.tables.retain(|(table, _)| !tables.contains(table));
        self.tables.extend(tables.into_iter().map(|table| (table, self.flush)));
        self
    }

    /// The partition has nothing any more in the tables of command ids that are over.
    pub(super) fn forget(&mut self, spans: Spans) {
        let by_ms = self.forgetting.by_ms;
        self.tables.retain(|(table, _)| !table.span().is_some_and(|span| spans.is_over(span, by_ms)));
    }

    /// The tables in which command ids of the partition are.
    pub(super) fn id_tables(&self) -> impl Iterator<Item = Span> {
        self.tables.iter().filter_map(|(table, _)| table.span())
    }

    /// The checkpoint, and in each table of this flush its number.
    pub(crate) fn writes(&self, partition: u32) -> Result<Vec<Write>, StoreError> {
        let value = serde_json::to_vec(self).map_err(|error| StoreError::new("encoding a checkpoint for", error))?;
        let checkpoint = Write { table: Table::Checkpoints, key: key::prefix(partition).to_vec(), value: value.into() };
        let touched = self.tables.iter().filter(|(_, flush)| *flush == self.flush);
        let marks = touched.map(|(table, flush)| Write {
            table: *table,
            key: key::mark(partition),
            value: Bytes::copy_from_slice(&flush.to_be_bytes()),
        });
        Ok(marks.chain([checkpoint]).collect())
    }

    /// The offset to go on from.
    pub(crate) fn next(&self) -> u64 {
        self.checkpoint.next
    }

    pub(crate) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What a checkpoint of the snapshots topic may say.
    pub(super) fn reached(&self) -> Reached {
        let reached = || Reached { checkpoint: self.checkpoint.clone(), last_recorded_ms: self.last_recorded_ms };
        self.held.clone().unwrap_or_else(reached)
    }
}

/// Removes the tables of command ids that are over by now and in which no partition has anything to look for. All
/// partitions share them, and each has its own time: one of whose clock was ahead takes nothing from the others.
pub(super) fn forget_ids(store: &dyn Store, spans: Spans, by_ms: i64) -> Result<(), StoreError> {
    let over = || store.id_tables().into_iter().filter(move |span| spans.is_over(*span, by_ms));
    if over().next().is_none() {
        return Ok(());
    }
    store.forget_ids(&|| {
        let wanted = wanted_tables(store)?;
        Ok(over().filter(|span| !wanted.contains(&Table::Ids(*span))).collect())
    })
}

/// The tables in which some partition has something, or is being filled.
fn wanted_tables(store: &dyn Store) -> Result<HashSet<Table>, StoreError> {
    const PAGE: usize = 100;
    let (mut wanted, mut after) = (HashSet::new(), Vec::new());
    loop {
        let page = store.page(Table::Checkpoints, &[], &after, PAGE)?;
        let Some((last, _)) = page.last() else { return Ok(wanted) };
        after.clone_from(last);
        for (_, value) in page {
            let tables = match serde_json::from_slice::<StoredCheckpoint>(&value) {
                Ok(stored) => stored.tables.into_iter().map(|(table, _)| table).collect(),
                Err(_) => serde_json::from_slice::<Vec<Table>>(&value).unwrap_or_default(),
            };
            wanted.extend(tables);
        }
    }
}

/// Says that these tables are being filled for a partition, which has no checkpoint before it is.
pub(crate) fn filling(partition: u32, tables: &HashSet<Table>) -> Result<Write, StoreError> {
    let tables: Vec<Table> = tables.iter().copied().collect();
    let value = serde_json::to_vec(&tables).map_err(|error| StoreError::new("encoding tables for", error))?;
    Ok(Write { table: Table::Checkpoints, key: key::mark(partition), value: value.into() })
}
