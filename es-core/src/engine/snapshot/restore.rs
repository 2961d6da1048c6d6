//! Filling the local store from the snapshots topic.

mod filling;
mod wire;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use prost::Message;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::SemaphorePermit;

use self::filling::{Filling, Refused};
use super::{CheckpointRecord, Extent, Lineage, Origin, SnapshotTopic, Subject, Unreadable, parse_key};
use crate::engine::forgetting::Forgetting;
use crate::engine::store::{Store, StoreError, key};
use crate::engine::stored::{Reached, StoredCheckpoint};
use crate::log::reader::{copy_begun, first_claim, verify_checkpoint};
use crate::log::scan::Scan;
use crate::log::{LogError, StoredRecord};

/// The offsets looked at first for the last checkpoint; each look after that is at eight times as many.
const FIRST_LOOK: u64 = 1_000;
/// How long a permit is kept while nothing comes.
const SILENCE_MAX: Duration = Duration::from_secs(1);

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
        let origin = match local {
            Some(local) => {
                let Some(last) = self.last_checkpoint(local.checkpoint().into()).await? else { return Ok(()) };
                // A record of the log takes no less time to fold than one of the topic to store.
                let behind = last.reached.checkpoint.next.saturating_sub(local.next());
                if behind <= last.extent.swept + last.extent.written {
                    return Ok(());
                }
                // It knows what the log had, and nobody else may. Where that is gone the log is not to be served.
                verify_checkpoint(self.log.as_ref(), &self.source, self.partition, local.checkpoint()).await?;
                local.checkpoint().into()
            }
            None if self.restored.load(Ordering::Relaxed) => {
                tracing::warn!(topic = %self.topic, partition = self.partition, "what was restored from snapshots was of no use: reading the log instead");
                return Ok(());
            }
            None => match self.origin().await? {
                Some(origin) => origin,
                None => return Ok(()), // nothing was ever written
            },
        };
        let mut permit = Some(self.permit().await);
        let all = self.scan(self.log.bounds(&self.topic, self.partition).await?).await?;
        store.clear(&key::prefix(self.partition))?;
        let restored = self.restore(store, origin, all, &mut permit).await;
        if !matches!(restored, Ok(true)) {
            store.clear(&key::prefix(self.partition))?;
        }
        self.restored.fetch_or(restored?, Ordering::Relaxed);
        Ok(())
    }

    /// The log that has the events, by its first claim and, where it is a copy, its first record.
    async fn origin(&self) -> Result<Option<Origin>, LogError> {
        let (log, topic) = (self.log.as_ref(), &self.source.topic);
        let Some(first) = first_claim(log, topic, self.partition).await? else { return Ok(None) };
        let copy = copy_begun(log, topic, self.partition).await?.map(|copied| copied.copy);
        Ok(Some(Origin { log_id: first.log_id, copy }))
    }

    /// The highest checkpoint of our lineage near the end of the topic. Any one of it would do to go on from: all
    /// that changed before it is in the topic, whoever wrote what came later.
    pub(super) async fn last_checkpoint(&self, origin: Origin) -> Result<Option<Last>, Useless> {
        let found = self.look(origin, |found| found.best.is_some()).await?;
        if found.best.is_none() && found.of_another_log {
            let log_id = origin.log_id;
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
        let Some(origin) = self.origin().await? else { return Ok(false) };
        let found = self.look(origin, |found| found.best.is_some() || found.of_another_shape).await?;
        Ok(found.best.is_none() && found.of_another_shape)
    }

    /// Looks for checkpoints from the end of the topic back, until enough is found.
    async fn look(&self, origin: Origin, enough: impl Fn(&Found) -> bool) -> Result<Found, Useless> {
        let bounds = self.log.bounds(&self.topic, self.partition).await?;
        let mut look = FIRST_LOOK;
        loop {
            let from = bounds.end.saturating_sub(look).max(bounds.start);
            let mut found = Found::of(Lineage::of(&self.schema, origin), origin);
            let mut scan = self.scan(from..bounds.end).await?;
            while let Some(records) = scan.next().await? {
                for stored in records {
                    found.note(&stored).map_err(|source| self.unreadable(stored.offset, source))?;
                }
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
    async fn restore<'a>(
        &'a self,
        store: &dyn Store,
        origin: Origin,
        mut scan: Scan,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<bool, Useless> {
        let mut found = Found::of(Lineage::of(&self.schema, origin), origin);
        let mut filling = Filling::new(self, store, scan.offsets_left());
        loop {
            while let Some(records) = self.next(&mut scan, permit).await? {
                for stored in records {
                    let offset = stored.offset;
                    found.note(&stored).map_err(|source| self.unreadable(offset, source))?;
                    filling.take(stored, found.lineage).map_err(|error| match error {
                        Refused::Store(error) => error.into(),
                        Refused::Record(source) => self.unreadable(offset, source),
                    })?;
                }
            }
            let end = self.log.bounds(&self.topic, self.partition).await?.end;
            if !scan.extend(end) {
                break;
            }
        }
        let Some(last) = found.best else { return Ok(false) };
        let next = last.reached.checkpoint.next;
        let states = aside(|| filling.finish(last))?;
        tracing::info!(topic = %self.topic, partition = self.partition, states, next, "restored from snapshots");
        self.counters.restored.fetch_add(states, Ordering::Relaxed);
        Ok(true)
    }

    async fn permit(&self) -> SemaphorePermit<'_> {
        self.restores.acquire().await.expect("it is never closed")
    }

    /// The next records. When none come for a while, as from a broker that is gone, other partitions need not wait for that.
    async fn next<'a>(
        &'a self,
        scan: &mut Scan,
        permit: &mut Option<SemaphorePermit<'a>>,
    ) -> Result<Option<Vec<StoredRecord>>, LogError> {
        if let Ok(next) = tokio::time::timeout(SILENCE_MAX, scan.next()).await {
            return next;
        }
        *permit = None;
        let next = scan.next().await;
        *permit = Some(self.permit().await);
        next
    }

    fn unreadable(&self, offset: u64, source: Unreadable) -> Useless {
        Useless::Record { topic: self.to_string(), offset, source }
    }

    pub(super) async fn scan(&self, offsets: Range<u64>) -> Result<Scan, LogError> {
        Scan::open(self.log.as_ref(), &self.topic, self.partition, offsets).await
    }
}

/// The last checkpoint.
pub(crate) struct Last {
    pub(super) reached: Reached,
    pub(super) forgetting: Forgetting,
    pub(super) extent: Extent,
}

/// Looks for the checkpoint with the highest offset.
struct Found {
    lineage: Lineage,
    origin: Origin,
    best: Option<Last>,
    of_another_log: bool,
    /// Of the same log, with states of another shape.
    of_another_shape: bool,
}

impl Found {
    fn of(lineage: Lineage, origin: Origin) -> Self {
        Self { lineage, origin, best: None, of_another_log: false, of_another_shape: false }
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
        let Origin { log_id, copy } = self.origin;
        let copy = copy.as_ref().map_or(&[][..], |copy| copy.as_bytes());
        let same_log = record.log_id == log_id.as_bytes()[..] && record.copy == copy;
        self.of_another_log |= !same_log;
        if record.lineage != self.lineage.0[..] {
            self.of_another_shape |= same_log;
            return Ok(());
        }
        let extent = Extent { swept: record.swept, written: record.written };
        let last = Last { reached: record.reached()?, forgetting: record.forgetting(), extent };
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
