//! Filling the local store from the snapshots topic.

mod wire;

use std::collections::{BTreeMap, HashSet};
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use prost::Message;
use tokio::runtime::{Handle, RuntimeFlavor};
use uuid::Uuid;

use super::{CheckpointRecord, Extent, Lineage, Reached, Snapshot, SnapshotTopic, Subject, Unreadable, parse_key};
use crate::ids::Epoch;
use crate::log::{LogError, StoredRecord};
use crate::record::{self, Decoded};
use crate::state::StoredCheckpoint;
use crate::store::{Store, StoreError, Table, key};

/// The offsets looked at first for the last checkpoint; each look after that is at eight times as many.
const FIRST_LOOK: u64 = 1_000;
/// What is collected before it is sorted and loaded into the store: the more, the fewer tables it has to merge later.
const COLLECTED_MAX: usize = if cfg!(test) { 20 } else { 100_000 };
const COLLECTED_BYTES_MAX: usize = 8 << 20;

/// Why the topic is of no use; the log has everything.
#[derive(Debug, thiserror::Error)]
pub(super) enum Useless {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the record at {topic} offset {offset}")]
    Record {
        topic: String,
        offset: u64,
        #[source]
        source: Unreadable,
    },
}

impl SnapshotTopic {
    /// Fills the store from the topic where that is quicker than reading the log from where the store is. Never in
    /// the way of a start: whatever fails, the store is what it was, or empty.
    pub(crate) async fn restore_where_quicker(&self, store: &Arc<dyn Store>) {
        if let Err(error) = self.try_restore(store.as_ref()).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(topic = %self.topic, partition = self.partition, error, "not restoring from snapshots: reading the log instead");
        }
    }

    async fn try_restore(&self, store: &dyn Store) -> Result<(), Useless> {
        let local = StoredCheckpoint::read(store, self.partition, &self.schema, self.limits.spans)?;
        let (log_id, all) = match local {
            Some(local) => {
                let Some(last) = self.last_checkpoint(local.log_id()).await? else { return Ok(()) };
                // A record of the log takes no less time to fold than one of the topic to store.
                let behind = last.reached.checkpoint.next.saturating_sub(local.next());
                if behind <= last.extent.swept + last.extent.written {
                    return Ok(());
                }
                (local.log_id(), self.all().await?)
            }
            None if self.restored.load(Ordering::Relaxed) => {
                tracing::warn!(topic = %self.topic, partition = self.partition, "what was restored from snapshots was of no use: reading the log instead");
                return Ok(());
            }
            None => {
                let (log_id, all) = futures::try_join!(self.log_id(), self.all())?;
                let Some(log_id) = log_id else { return Ok(()) }; // nothing was ever written
                (log_id, all)
            }
        };
        store.clear(&key::prefix(self.partition))?;
        let restored = self.restore(store, log_id, all).await;
        if !matches!(restored, Ok(true)) {
            store.clear(&key::prefix(self.partition))?;
        }
        self.restored.fetch_or(restored?, Ordering::Relaxed);
        Ok(())
    }

    /// What is in the topic now.
    async fn all(&self) -> Result<Records, LogError> {
        let bounds = self.log.bounds(&self.topic, self.partition).await?;
        self.read(bounds.start, bounds.end).await
    }

    /// The id of the log that has the events, from its first claim.
    async fn log_id(&self) -> Result<Option<Uuid>, LogError> {
        let (topic, partition) = (&self.source.topic, self.partition);
        let bounds = self.log.bounds(topic, partition).await?;
        let mut reader = self.log.reader(topic, &[(partition, bounds.start)]).await?;
        let mut next = bounds.start;
        while next < bounds.end {
            let batch = reader.next().await?;
            next = batch.next;
            for stored in batch.records {
                if let Decoded::Claim(claim) = record::decode(&stored.record) {
                    return Ok(Some(claim.log_id));
                }
            }
        }
        Ok(None)
    }

    /// The highest checkpoint of our lineage near the end of the topic. Any one of it would do to go on from: all
    /// that changed before it is in the topic, whoever wrote what came later.
    pub(super) async fn last_checkpoint(&self, log_id: Uuid) -> Result<Option<Last>, Useless> {
        let found = self.look(log_id, |found| found.best.is_some()).await?;
        if found.best.is_none() && found.of_another_log {
            tracing::warn!(topic = %self.topic, partition = self.partition, %log_id, "ignoring snapshots of another log: the events topic was made anew");
        }
        Ok(found.best)
    }

    /// Whether the process has no states of the partition, and those in the topic look different from its own: it is
    /// the first of a release that must make them from the log.
    pub(crate) async fn is_of_another_release(&self, store: &dyn Store) -> bool {
        self.try_is_of_another_release(store).await.unwrap_or_else(|error| {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(topic = %self.topic, partition = self.partition, error, "looking for snapshots of this release");
            false
        })
    }

    async fn try_is_of_another_release(&self, store: &dyn Store) -> Result<bool, Useless> {
        if StoredCheckpoint::read(store, self.partition, &self.schema, self.limits.spans)?.is_some() {
            return Ok(false);
        }
        let Some(log_id) = self.log_id().await? else { return Ok(false) };
        let found = self.look(log_id, |found| found.best.is_some() || found.of_another_shape).await?;
        Ok(found.best.is_none() && found.of_another_shape)
    }

    /// Looks for checkpoints from the end of the topic back, until enough is found.
    async fn look(&self, log_id: Uuid, enough: impl Fn(&Found) -> bool) -> Result<Found, Useless> {
        let bounds = self.log.bounds(&self.topic, self.partition).await?;
        let mut look = FIRST_LOOK;
        loop {
            let from = bounds.end.saturating_sub(look).max(bounds.start);
            let mut found = Found::of(Lineage::of(&self.schema, log_id), log_id);
            let mut records = self.read(from, bounds.end).await?;
            while let Some(stored) = records.next().await? {
                found.note(&stored).map_err(|source| self.unreadable(&stored, source))?;
            }
            if enough(&found) || from == bounds.start {
                return Ok(found);
            }
            look = look.saturating_mul(8);
        }
    }

    /// Reads the whole topic, from its beginning on, into an empty store. Tells whether it holds a checkpoint.
    ///
    /// It is read until nothing more is there: the owner of the day may be writing, and a record that compaction took
    /// away before it was read is there again under the same key, behind the end of a moment ago.
    async fn restore(&self, store: &dyn Store, log_id: Uuid, mut records: Records) -> Result<bool, Useless> {
        let mut found = Found::of(Lineage::of(&self.schema, log_id), log_id);
        let mut filling = Filling::new(self, store);
        loop {
            while let Some(stored) = records.next().await? {
                let unreadable = |source| self.unreadable(&stored, source);
                found.note(&stored).map_err(unreadable)?;
                filling.take(&stored, found.lineage).map_err(|error| match error {
                    Refused::Store(error) => error.into(),
                    Refused::Record(source) => unreadable(source),
                })?;
            }
            let end = self.log.bounds(&self.topic, self.partition).await?.end;
            if end <= records.end {
                break;
            }
            records.end = end;
        }
        let Some(Last { reached, .. }) = found.best else { return Ok(false) };
        let next = reached.checkpoint.next;
        let states = aside(|| filling.finish(reached))?;
        tracing::info!(topic = %self.topic, partition = self.partition, states, next, "restored from snapshots");
        self.counters.restored.fetch_add(states, Ordering::Relaxed);
        Ok(true)
    }

    fn unreadable(&self, stored: &StoredRecord, source: Unreadable) -> Useless {
        Useless::Record { topic: self.to_string(), offset: stored.offset, source }
    }

    /// The records from one offset to another.
    pub(super) async fn read(&self, from: u64, end: u64) -> Result<Records, LogError> {
        let reader = self.log.reader(&self.topic, &[(self.partition, from)]).await?;
        Ok(Records { reader, batch: Vec::new().into_iter().peekable(), next: from, end })
    }
}

/// The records of a stretch of a partition, one by one.
pub(super) struct Records {
    reader: Box<dyn crate::log::LogReader>,
    batch: Peekable<std::vec::IntoIter<StoredRecord>>,
    next: u64,
    end: u64,
}

impl Records {
    pub(super) async fn next(&mut self) -> Result<Option<StoredRecord>, LogError> {
        loop {
            if let Some(stored) = self.batch.next_if(|stored| stored.offset < self.end) {
                return Ok(Some(stored));
            }
            if self.next >= self.end || self.batch.peek().is_some() {
                return Ok(None);
            }
            let batch = self.reader.next().await?;
            (self.next, self.batch) = (batch.next, batch.records.into_iter().peekable());
        }
    }
}

/// The last checkpoint.
pub(super) struct Last {
    pub(super) reached: Reached,
    pub(super) extent: Extent,
}

/// Looks for the checkpoint with the highest offset.
struct Found {
    lineage: Lineage,
    log_id: Uuid,
    best: Option<Last>,
    of_another_log: bool,
    /// Of the same log, with states of another shape.
    of_another_shape: bool,
}

impl Found {
    fn of(lineage: Lineage, log_id: Uuid) -> Self {
        Self { lineage, log_id, best: None, of_another_log: false, of_another_shape: false }
    }

    fn note(&mut self, stored: &StoredRecord) -> Result<(), Unreadable> {
        if !stored.record.key.starts_with(b"!") {
            return Ok(()); // as most
        }
        let (Some((Subject::Checkpoint, _)), Some(value)) = (parse_key(&stored.record.key), &stored.record.value)
        else {
            return Ok(());
        };
        let record = CheckpointRecord::decode(value.clone()).map_err(|_| Unreadable("checkpoint"))?;
        let same_log = record.log_id == self.log_id.as_bytes()[..];
        self.of_another_log |= !same_log;
        if record.lineage != self.lineage.0[..] {
            self.of_another_shape |= same_log;
            return Ok(());
        }
        let extent = Extent { swept: record.swept, written: record.written };
        let last = Last { reached: record.reached()?, extent };
        if self.best.as_ref().is_none_or(|best| best.reached.checkpoint.next <= last.reached.checkpoint.next) {
            self.best = Some(last);
        }
        Ok(())
    }
}

/// Does work that takes a while, so that other tasks of this thread go on elsewhere, where there are other threads.
fn aside<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        _ => tokio::task::block_in_place(work),
    }
}

enum Refused {
    Store(StoreError),
    Record(Unreadable),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A state that was read.
struct Collected {
    key: Vec<u8>,
    version: u64,
    /// Nothing newer can have come before it.
    in_turn: bool,
    value: Bytes,
}

/// Collects what is read, and loads it in batches.
struct Filling<'a> {
    topic: &'a SnapshotTopic,
    store: &'a dyn Store,
    now_ms: i64,
    states: Vec<Collected>,
    ids: BTreeMap<Table, Vec<(Vec<u8>, Bytes)>>,
    /// How many, and their bytes.
    collected: usize,
    bytes: usize,
    tables: HashSet<Table>,
    /// The newest writer met so far, and whether there were others with its number.
    leading: Epoch,
    contested: bool,
    written: u64,
}

impl<'a> Filling<'a> {
    fn new(topic: &'a SnapshotTopic, store: &'a dyn Store) -> Self {
        Self {
            topic,
            store,
            now_ms: topic.clock.now_ms(),
            states: Vec::new(),
            ids: BTreeMap::new(),
            collected: 0,
            bytes: 0,
            tables: HashSet::new(),
            leading: Epoch::default(),
            contested: false,
            written: 0,
        }
    }

    fn take(&mut self, stored: &StoredRecord, lineage: Lineage) -> Result<(), Refused> {
        let (Some((subject, epoch)), Some(value)) = (parse_key(&stored.record.key), &stored.record.value) else {
            return Ok(());
        };
        match subject {
            Subject::Aggregate(aggregate) => {
                let head = wire::snapshot(value).ok_or(Refused::Record(Unreadable("snapshot")))?;
                if head.lineage == lineage.0 {
                    self.take_state(aggregate, epoch, head.version, value);
                }
            }
            Subject::Ids => {
                if wire::lineage(value).ok_or(Refused::Record(Unreadable("record of ids")))? == lineage.0 {
                    wire::ids(value).try_for_each(|entry| self.take_id(entry, value))?;
                }
            }
            Subject::Checkpoint => return Ok(()),
        }
        if self.collected >= COLLECTED_MAX || self.bytes >= COLLECTED_BYTES_MAX {
            aside(|| self.load())?;
        }
        Ok(())
    }

    fn count(&mut self, key: &[u8], value: &Bytes) {
        self.collected += 1;
        self.bytes += key.len() + value.len();
    }

    /// One writer's versions grow, and a later claim's are not below an earlier one's: only what landed out of turn has
    /// to be compared with what is in the store.
    fn take_state(&mut self, aggregate: &str, epoch: Epoch, version: u64, value: &Bytes) {
        if epoch.number > self.leading.number {
            (self.leading, self.contested) = (epoch, false);
        }
        self.contested |= epoch.number == self.leading.number && epoch != self.leading;
        let in_turn = epoch == self.leading && !self.contested;
        let key = key::state(self.topic.partition, aggregate);
        self.count(&key, value);
        self.states.push(Collected { key, version, in_turn, value: value.clone() });
    }

    fn take_id(&mut self, entry: Option<wire::Id<'_>>, value: &Bytes) -> Result<(), Refused> {
        let wire::Id { aggregate, command, known, recorded_at_ms } =
            entry.ok_or(Refused::Record(Unreadable("command id")))?;
        let spans = self.topic.limits.spans;
        if spans.holds(recorded_at_ms, self.now_ms) {
            let (key, known) = (key::id(self.topic.partition, aggregate, command), value.slice_ref(known));
            self.count(&key, &known);
            self.ids.entry(spans.table(recorded_at_ms)).or_default().push((key, known));
        }
        Ok(())
    }

    fn load(&mut self) -> Result<(), StoreError> {
        (self.collected, self.bytes) = (0, 0);
        let states = self.highest_states()?;
        self.written += states.len() as u64;
        let mut tables = std::mem::take(&mut self.ids);
        tables.insert(Table::States, states);
        for (table, mut entries) in tables {
            if entries.is_empty() {
                continue;
            }
            self.tables.insert(table);
            entries.sort_by(|one, other| one.0.cmp(&other.0));
            entries.dedup_by(|one, other| one.0 == other.0);
            self.store.load(table, entries)?;
        }
        Ok(())
    }

    /// The highest version of each aggregate that was collected, unless the store has a higher one; sorted.
    fn highest_states(&mut self) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let mut states = std::mem::take(&mut self.states);
        states.sort_by(|one, other| one.key.cmp(&other.key)); // stable: what came last stays last
        let mut highest: Vec<Collected> = Vec::with_capacity(states.len());
        for state in states {
            match highest.last_mut().filter(|last| last.key == state.key) {
                None => highest.push(state),
                Some(last) if state.version > last.version || (state.version == last.version && state.in_turn) => {
                    *last = state;
                }
                Some(_) => {}
            }
        }
        let mut loaded = Vec::with_capacity(highest.len());
        for Collected { key, version, in_turn, value } in highest {
            let before = if in_turn { None } else { self.store.get(Table::States, &key)? };
            let before = before.map(Snapshot::parse).transpose().map_err(|error| StoreError::new("reading", error))?;
            if before.is_none_or(|before| before.version < version) {
                loaded.push((key, value));
            }
        }
        Ok(loaded)
    }

    /// The checkpoint last: without it a store counts as empty.
    fn finish(mut self, reached: Reached) -> Result<u64, StoreError> {
        self.load()?;
        let stored = StoredCheckpoint::restored(&self.topic.schema, reached, self.tables);
        self.store.write(stored.writes(self.topic.partition)?)?;
        Ok(self.written)
    }
}
