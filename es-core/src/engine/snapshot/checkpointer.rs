//! Writing snapshots: a task beside the owner, which takes what the owner flushed to the local store and keeps the
//! topic's chain of checkpoints. Whatever happens to it, the owner goes on; a checkpoint that fails is made later,
//! from the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use prost::Message;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::restore::Useless;
use super::{
    CheckpointRecord, Extent, FORMAT, IdEntry, Ids, Lineage, Snapshot, SnapshotTopic, Subject, Unreadable,
    aggregate_key, checkpoint_key, ids_key, parse_key,
};
use crate::domain::ids::{AggregateKey, CommandId, Epoch};
use crate::engine::forgetting::Forgetting;
use crate::engine::remembered::Remembered;
use crate::engine::store::{Store, StoreError, Table, key};
use crate::engine::stored::Reached;
use crate::engine::supervise::Restarts;
use crate::log::{AppendError, LogError, LogWriter, Record, StoredRecord};

/// Flushes that wait to be taken. One more, and the next checkpoint is made from the store.
const FLUSHES_MAX: usize = 4;
/// What is collected in memory before a checkpoint is made, due or not.
const COLLECTED_BYTES_MAX: usize = 16 << 20;
/// What is appended at once.
const APPEND_RECORDS_MAX: usize = 500;
const APPEND_BYTES_MAX: usize = 512 << 10;
/// The size of a record of ids, where the log takes so much.
const IDS_BYTES_MAX: usize = 128 << 10;
/// Entries of the store that are looked at before others get a turn.
const PAGE: usize = 500;
/// Records written between two sweeps at least.
const SWEEP_MIN: u64 = if cfg!(test) { 10 } else { 1_000 };
/// Keys remembered during a sweep, so that none is cleared for each of its records that compaction has not taken yet.
const SWEPT_MAX: usize = 10_000;
/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What one flush wrote to the local store.
#[derive(Debug)]
pub(crate) struct Flushed {
    /// It holds all that changed between these offsets of the log.
    pub(crate) from: u64,
    pub(crate) to: u64,
    /// What a checkpoint of it says: `to`, or the first event that an aggregate is parked for.
    pub(crate) reached: Reached,
    /// Values as they stand in the topic.
    pub(crate) states: Vec<(AggregateKey, Bytes)>,
    pub(crate) ids: Vec<NewId>,
    pub(crate) forgetting: Forgetting,
}

/// A command id since the last flush.
#[derive(Debug, Clone)]
pub(crate) struct NewId {
    pub(crate) aggregate: AggregateKey,
    pub(crate) command: CommandId,
    pub(crate) recorded_at_ms: i64,
    /// As it stands in the local store.
    pub(crate) known: Bytes,
}

/// The task's end that an owner's state holds. Dropping it ends the task where it stands.
#[derive(Debug)]
pub(crate) struct Checkpointer {
    flushed: Option<mpsc::Sender<(Epoch, Flushed)>>,
    /// The owner's claim; none between its claims.
    epoch: Option<Epoch>,
    task: JoinHandle<()>,
}

impl Checkpointer {
    /// Starts the task; `epoch` is the owner's claim.
    pub(crate) fn start(topic: SnapshotTopic, store: Arc<dyn Store>, epoch: Epoch) -> Self {
        let (sender, flushed) = mpsc::channel(FLUSHES_MAX);
        let task = Task {
            topic,
            store,
            flushed,
            claim: epoch,
            epoch,
            since: None,
            covered: None,
            end: 0,
            collected: None,
            extent: Extent::default(),
            sweeping: Sweeping { checkpoints: None },
            failures: 0,
            not_before: Instant::now(),
            ending: false,
        };
        Self { flushed: Some(sender), epoch: Some(epoch), task: tokio::spawn(task.run()) }
    }

    /// The owner claimed anew.
    pub(crate) fn claimed(&mut self, epoch: Epoch) {
        self.epoch = Some(epoch);
    }

    /// What is flushed from now on may be another owner's to write, until the owner claims anew.
    pub(crate) fn unclaimed(&mut self) {
        self.epoch = None;
    }

    /// Where a flush that begins now is handed to.
    pub(crate) fn outlet(&self) -> impl FnOnce(Flushed) + Send + 'static {
        let outlet = self.flushed.clone().zip(self.epoch);
        move |flushed| {
            if let Some((sender, epoch)) = outlet {
                let _ = sender.try_send((epoch, flushed)); // full: it is behind, and reads from the store what it misses
            }
        }
    }

    /// Lets it write what it has, for so long.
    pub(crate) async fn finish(mut self, patience: Duration) {
        self.flushed = None;
        let _ = tokio::time::timeout(patience, &mut self.task).await; // what is not written is read from the log
    }
}

impl Drop for Checkpointer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error(transparent)]
    Topic(#[from] Useless),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("in the local state store")]
    Stored(#[from] Unreadable),
    #[error("appending snapshots")]
    Append(#[from] AppendError),
    #[error("appending snapshots took longer than {0:?}")]
    Deadline(Duration),
    #[error("the snapshot {key} has {bytes} bytes, the log takes {limit}: the log is read from before it at a restore")]
    TooLarge { key: String, bytes: usize, limit: usize },
    #[error("the topic was made anew, or lost its tail: the next checkpoint holds every state")]
    Shortened,
}

/// Up to where the topic's last checkpoint reaches: all that changed before is in the topic.
#[derive(Debug, Clone, Copy)]
struct Covered {
    next: u64,
    last_recorded_ms: i64,
}

/// What was flushed since the last checkpoint; of each aggregate the newest state.
struct Collected {
    from: u64,
    to: u64,
    reached: Reached,
    states: BTreeMap<AggregateKey, Bytes>,
    ids: Vec<NewId>,
    bytes: usize,
    forgetting: Forgetting,
}

struct Task {
    topic: SnapshotTopic,
    store: Arc<dyn Store>,
    flushed: mpsc::Receiver<(Epoch, Flushed)>,
    claim: Epoch,
    /// What keys are marked with: the claim, and in place of its writer another one after every failed append. What
    /// that append still has on the wire must not replace what is written after it.
    epoch: Epoch,
    /// From where on states are in the topic under `epoch`.
    since: Option<u64>,
    /// `None` before it was looked up.
    covered: Option<Covered>,
    /// One past the last offset that was seen in the topic.
    end: u64,
    collected: Option<Collected>,
    extent: Extent,
    sweeping: Sweeping,
    failures: u32,
    not_before: Instant,
    /// The owner stops.
    ending: bool,
}

impl Task {
    async fn run(mut self) {
        let mut restarts = Restarts::new("writing snapshots", vec![self.topic.counters.clone()]);
        while let Err(panic) = AssertUnwindSafe(self.work()).catch_unwind().await {
            // What it may have on the wire must not replace what is written from now on; what it collected is in the store.
            (self.epoch.writer, self.since, self.covered, self.collected) = (self.topic.random.u64(), None, None, None);
            restarts.after(panic).await;
        }
    }

    async fn work(&mut self) {
        while let Some((claim, flushed)) = self.flushed.recv().await {
            if claim != self.claim {
                (self.claim, self.epoch, self.since) = (claim, claim, None);
            }
            self.collect(flushed);
            if self.is_due() && Instant::now() >= self.not_before {
                self.attempt().await;
            }
        }
        self.ending = true;
        self.attempt().await; // the owner stops: the next one need not read what is collected
    }

    fn collect(&mut self, flushed: Flushed) {
        let Flushed { from, to, reached, states, ids, forgetting } = flushed;
        // After a gap what is collected is of no use: the checkpoint will be made from the store.
        let before = self.collected.take().filter(|collected| from <= collected.to);
        let mut collected = before.unwrap_or_else(|| Collected {
            from,
            to,
            reached: reached.clone(),
            states: BTreeMap::new(),
            ids: Vec::new(),
            bytes: 0,
            forgetting,
        });
        (collected.to, collected.reached, collected.forgetting) = (to, reached, forgetting);
        for (id, value) in states {
            collected.bytes += id.as_str().len() + value.len();
            let replaced = collected.states.insert(id, value);
            collected.bytes -= replaced.map_or(0, |value| value.len());
        }
        let id_bytes = |id: &NewId| id.aggregate.as_str().len() + id.command.as_str().len() + id.known.len();
        collected.bytes += ids.iter().map(id_bytes).sum::<usize>();
        collected.ids.extend(ids);
        self.collected = Some(collected);
    }

    fn is_due(&self) -> bool {
        let covered = self.covered.map_or(0, |covered| covered.next);
        self.collected.as_ref().is_some_and(|collected| {
            collected.to.saturating_sub(covered) >= self.topic.limits.every || collected.bytes >= COLLECTED_BYTES_MAX
        })
    }

    /// Makes a checkpoint of what is collected. Whether it succeeds or not, nothing is collected afterwards.
    async fn attempt(&mut self) {
        let Some(collected) = self.collected.take() else { return };
        let (topic, partition, to) = (self.topic.topic.clone(), self.topic.partition, collected.to);
        match self.checkpoint(&collected).await {
            Ok(()) => {
                self.failures = 0;
                self.topic.counters.checkpoints.fetch_add(1, Ordering::Relaxed);
                tracing::debug!(%topic, partition, to, "snapshots up to here are in the topic");
            }
            Err(error) => {
                self.failures += 1;
                self.topic.counters.failed_checkpoints.fetch_add(1, Ordering::Relaxed);
                let pause = Duration::from_millis(100 << self.failures.min(16)).min(PAUSE_MAX);
                self.not_before = Instant::now() + pause;
                if matches!(error, Failed::Append(_) | Failed::Deadline(_) | Failed::Shortened) {
                    (self.epoch.writer, self.since) = (self.topic.random.u64(), None);
                }
                if matches!(error, Failed::Shortened) {
                    (self.covered, self.end, self.extent) =
                        (Some(Covered { next: 0, last_recorded_ms: 0 }), 0, Extent::default());
                }
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%topic, partition, error, ?pause, "snapshots could not be written: a restore reads more of the log");
            }
        }
    }

    async fn checkpoint(&mut self, collected: &Collected) -> Result<(), Failed> {
        let Reached { checkpoint, last_recorded_ms } = &collected.reached;
        let bounds = self.topic.log.bounds(&self.topic.topic, self.topic.partition).await?;
        if bounds.end < self.end {
            return Err(Failed::Shortened);
        }
        let covered = match self.covered {
            Some(covered) => covered,
            None => {
                let last = self.topic.last_checkpoint(checkpoint.into()).await?;
                self.extent = last.as_ref().map_or(self.extent, |last| last.extent);
                last.map_or(Covered { next: 0, last_recorded_ms: 0 }, |last| Covered {
                    next: last.reached.checkpoint.next,
                    last_recorded_ms: last.reached.last_recorded_ms,
                })
            }
        };
        self.covered = Some(covered);
        if collected.to <= covered.next {
            return Ok(()); // another process is ahead
        }
        let since = *self.since.get_or_insert(covered.next);
        let lineage = Lineage::of(&self.topic.schema, checkpoint);
        let mut writing =
            Writing::open(&self.topic, self.epoch, lineage, collected.to, self.end.max(bounds.end)).await?;
        if collected.from <= covered.next {
            writing.collected(collected).await?;
        } else {
            writing.stored(self.store.as_ref(), covered).await?;
        }
        writing.ids_record().await?;
        writing.send().await?; // acknowledged before the checkpoint says so
        self.extent.written += writing.count + 1;
        let record = CheckpointRecord::new(&self.topic.schema, &collected.reached, collected.forgetting, self.extent);
        writing.put(checkpoint_key(self.epoch), Some(record.encode_to_vec().into())).await?;
        writing.send().await?;
        self.covered = Some(Covered { next: collected.to, last_recorded_ms: *last_recorded_ms });
        // Sweeping reads the whole topic: nobody waits for that at an end.
        if !self.ending && self.extent.written >= self.extent.swept.max(SWEEP_MIN) {
            let acknowledged = since..collected.to;
            let by_ms = collected.forgetting.by_ms;
            let swept = self.sweeping.sweep(&mut writing, self.store.as_ref(), acknowledged, by_ms).await?;
            self.extent = Extent { swept, written: 0 };
        }
        self.end = writing.end;
        Ok(())
    }
}

/// One checkpoint on its way to the topic.
struct Writing<'a> {
    topic: &'a SnapshotTopic,
    epoch: Epoch,
    lineage: Lineage,
    to: u64,
    /// Open for this checkpoint only: checkpoints are rare, and a Kafka client costs threads.
    writer: Box<dyn LogWriter>,
    records: Vec<Record>,
    bytes: usize,
    ids: Ids,
    ids_bytes: usize,
    ids_records: usize,
    count: u64,
    end: u64,
}

impl<'a> Writing<'a> {
    async fn open(
        topic: &'a SnapshotTopic,
        epoch: Epoch,
        lineage: Lineage,
        to: u64,
        end: u64,
    ) -> Result<Writing<'a>, Failed> {
        let writer = topic.log.writer(&topic.topic, topic.partition).await?;
        Ok(Self {
            topic,
            epoch,
            lineage,
            to,
            writer,
            records: Vec::new(),
            bytes: 0,
            ids: Ids::default(),
            ids_bytes: 0,
            ids_records: 0,
            count: 0,
            end,
        })
    }

    /// States and ids are sorted: who restores from them has less to sort.
    async fn collected(&mut self, collected: &Collected) -> Result<(), Failed> {
        for (id, value) in &collected.states {
            self.put(aggregate_key(id.as_str(), self.epoch), Some(value.clone())).await?;
        }
        let mut ids: Vec<&NewId> = collected.ids.iter().collect();
        ids.sort_by(|one, other| (&one.aggregate, &one.command).cmp(&(&other.aggregate, &other.command)));
        for id in ids {
            let (aggregate, command) = (id.aggregate.as_str().to_owned(), id.command.as_str().to_owned());
            self.id(IdEntry { aggregate, command, known: id.known.clone() }, id.recorded_at_ms).await?;
        }
        Ok(())
    }

    /// What changed since the last checkpoint, from the store. It may have changed again since it was flushed: that
    /// is no harm, since it is proven, and a restore skips what it has already.
    async fn stored(&mut self, store: &dyn Store, covered: Covered) -> Result<(), Failed> {
        let prefix = key::prefix(self.topic.partition);
        let mut after = prefix.to_vec();
        loop {
            let page = store.page(Table::States, &prefix, &after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after.clone_from(last);
            for (key, value) in page {
                let Some(aggregate) = key::parse_state(&key) else { continue };
                let snapshot = Snapshot::parse(value.clone())?;
                if snapshot.version > 0 && snapshot.offset >= covered.next {
                    self.put(aggregate_key(aggregate, self.epoch), Some(snapshot.for_topic(value))).await?;
                }
            }
            tokio::task::yield_now().await;
        }
        for span in store.id_tables().into_iter().filter(|span| span.end_ms() > covered.last_recorded_ms) {
            let mut after = prefix.to_vec();
            loop {
                let page = store.page(Table::Ids(span), &prefix, &after, PAGE)?;
                let Some((last, _)) = page.last() else { break };
                after.clone_from(last);
                for (key, value) in page {
                    let Some((aggregate, command)) = key::parse_id(&key) else { continue };
                    let known = Remembered::decode(value.clone()).map_err(|_| Unreadable("command id"))?;
                    if known.offset >= covered.next {
                        let (aggregate, command) = (aggregate.to_owned(), command.to_owned());
                        self.id(IdEntry { aggregate, command, known: value }, known.recorded_at_ms).await?;
                    }
                }
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn id(&mut self, entry: IdEntry, recorded_at_ms: i64) -> Result<(), Failed> {
        // Lengths and tags of an entry take less than the room left here.
        let bytes = entry.aggregate.len() + entry.command.len() + entry.known.len() + 16;
        let limit = IDS_BYTES_MAX.min(self.topic.limits.record_max_bytes.saturating_sub(1_024));
        if self.ids_bytes + bytes > limit {
            self.ids_record().await?;
        }
        self.ids_bytes += bytes;
        self.ids.newest_ms = self.ids.newest_ms.max(recorded_at_ms);
        self.ids.ids.push(entry);
        Ok(())
    }

    async fn ids_record(&mut self) -> Result<(), Failed> {
        if self.ids.ids.is_empty() {
            return Ok(());
        }
        let ids = Ids { format: FORMAT, lineage: self.lineage.bytes(), ..std::mem::take(&mut self.ids) };
        let key = ids_key(self.to, self.ids_records, self.epoch);
        (self.ids_bytes, self.ids_records) = (0, self.ids_records + 1);
        self.put(key, Some(ids.encode_to_vec().into())).await
    }

    async fn put(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), Failed> {
        let record = self.topic.record(key, value);
        let (bytes, limit) = (record.size(), self.topic.limits.record_max_bytes);
        if bytes > limit {
            let key = String::from_utf8_lossy(&record.key).into_owned();
            return Err(Failed::TooLarge { key, bytes, limit });
        }
        self.bytes += bytes;
        self.records.push(record);
        if self.records.len() < APPEND_RECORDS_MAX && self.bytes < APPEND_BYTES_MAX {
            return Ok(());
        }
        self.send().await
    }

    async fn send(&mut self) -> Result<(), Failed> {
        if self.records.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let deadline = self.topic.limits.append_deadline;
        let append = self.writer.append(std::mem::take(&mut self.records));
        let offsets = tokio::time::timeout(deadline, append).await.map_err(|_| Failed::Deadline(deadline))??;
        if offsets.first().is_some_and(|first| *first < self.end) {
            return Err(Failed::Shortened);
        }
        self.end = offsets.last().map_or(self.end, |last| last + 1);
        self.count += offsets.len() as u64;
        Ok(())
    }
}

/// Clears keys that are not needed any more, by reading the topic now and then: as often as it was written anew, so
/// that it costs no more than the writing, and needs no memory of who wrote what.
struct Sweeping {
    /// The lineages whose checkpoints the last sweep left in the topic; `None` before the first.
    checkpoints: Option<HashSet<Bytes>>,
}

impl Sweeping {
    /// Tells how many records there are. `acknowledged`: states whose last change is there are in the topic under this
    /// writer's keys. `by_ms`: what is over by then is cleared, as in the store.
    async fn sweep(
        &mut self,
        writing: &mut Writing<'_>,
        store: &dyn Store,
        acknowledged: std::ops::Range<u64>,
        by_ms: i64,
    ) -> Result<u64, Failed> {
        let topic = writing.topic;
        let bounds = topic.log.bounds(&topic.topic, topic.partition).await?;
        let mut scan = topic.scan(bounds).await?;
        let (mut checkpoints, mut swept, mut count) = (HashMap::new(), HashSet::new(), 0);
        while let Some(records) = scan.next().await? {
            for stored in records {
                count += 1;
                let key = &stored.record.key;
                if parse_key(key).is_some_and(|(subject, _)| subject == Subject::Checkpoint) {
                    let record =
                        stored.record.value.as_ref().and_then(|value| CheckpointRecord::decode(value.clone()).ok());
                    checkpoints.remove(key);
                    checkpoints.extend(record.map(|record| (key.clone(), record.lineage)));
                }
                if self.is_over(&stored, writing, store, &acknowledged, by_ms)? && !swept.contains(key) {
                    if swept.len() < SWEPT_MAX {
                        swept.insert(key.clone());
                    }
                    checkpoints.remove(key);
                    writing.put(key.clone(), None).await?;
                }
            }
        }
        writing.send().await?;
        self.checkpoints = Some(checkpoints.into_values().collect());
        Ok(count)
    }

    fn is_over(
        &self,
        stored: &StoredRecord,
        writing: &Writing<'_>,
        store: &dyn Store,
        acknowledged: &std::ops::Range<u64>,
        by_ms: i64,
    ) -> Result<bool, Failed> {
        let record = &stored.record;
        let (Some((subject, epoch)), Some(value)) = (parse_key(&record.key), &record.value) else { return Ok(false) };
        let spans = writing.topic.limits.spans;
        let earlier = epoch != writing.epoch && epoch.number <= writing.epoch.number;
        let ours = |lineage: &Bytes| *lineage == writing.lineage.0[..];
        Ok(match subject {
            Subject::Ids => Ids::decode(value.clone()).is_ok_and(|ids| !spans.holds(ids.newest_ms, by_ms)),
            Subject::Checkpoint => {
                CheckpointRecord::decode(value.clone()).is_ok_and(|found| match ours(&found.lineage) {
                    true => earlier,
                    // Who goes back to the release that wrote it restores from it, for a while.
                    false => !spans.holds(record.timestamp_ms, by_ms),
                })
            }
            Subject::Aggregate(aggregate) => {
                let Ok(snapshot) = Snapshot::parse(value.clone()) else { return Ok(false) };
                if !ours(&snapshot.lineage) {
                    // Not as long as a checkpoint says that it is there.
                    let kept = self.checkpoints.as_ref().is_none_or(|kept| kept.contains(&snapshot.lineage));
                    return Ok(!kept && !spans.holds(record.timestamp_ms, by_ms));
                }
                if !earlier {
                    return Ok(false);
                }
                let own = store.get(Table::States, &key::state(writing.topic.partition, aggregate))?;
                match own {
                    Some(own) => acknowledged.contains(&Snapshot::parse(own)?.offset),
                    None => false,
                }
            }
        })
    }
}
