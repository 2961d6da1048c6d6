//! Sealing: a task beside the owners, which reads what they appended and signs it from time to time. Whatever happens to
//! it, the owners go on; what it did not seal is sealed later, by itself or by whoever owns the partition then.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::{join_all, select_all};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::key::PublicKey;
use super::note::Seal;
use super::topic::{SealsPartition, Unsound, leaves_record, note_record, seals_topic};
use super::tree::{Tree, TreeHash, leaf_hash};
use super::{Sealing, origin, sealed_of};
use crate::engine::companion::Beside;
use crate::engine::owner_state::OwnerState;
use crate::engine::supervise::Restarts;
use crate::log::reader::{Checkpoint, PartitionReader, copy_begun, verify_checkpoint};
use crate::log::scan::Scan;
use crate::log::{AppendError, Batch, LogError, LogErrorKind, LogReader};

/// Leaves that are written at once; with more, a record of them comes before the next note.
const LEAVES_MAX: usize = 8_192;
/// The pauses after failures: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The shortest and the longest time between two seals.
const EVERY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(24 * 3600));
/// How long an append may take, and looking for the last note.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the last notes may take when the engine stops.
const FINISH: Duration = Duration::from_secs(5);

/// The task.
pub(crate) struct Sealer {
    sealing: Sealing,
    /// The seals topic.
    topic: Arc<str>,
    beside: Beside,
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Topic(#[from] Unsound),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the last note is about {0}, this is {1}: it belongs to another partition, or topic")]
    Origin(String, String),
    #[error(
        "this process signed {signed} events, and the seals tell of {found}: they were cut off or changed; restore them, or \
         see who did it and start the process anew"
    )]
    Shortened { signed: u64, found: u64 },
    #[error("appending seals")]
    Append(#[from] AppendError),
    #[error("reading or appending seals took longer than {DEADLINE:?}")]
    Deadline,
}

/// What is known of a partition that is being sealed.
struct Line {
    reader: PartitionReader,
    tree: Tree,
    /// The leaves that are not in the topic yet.
    unwritten: Vec<TreeHash>,
    /// The size of the last note.
    sealed: u64,
    /// What the tree must be when it has that size, where the log is read from its beginning.
    expected: Option<TreeHash>,
    /// Makes keys unique.
    writer: u64,
}

/// Why a partition is not sealed for a while.
struct Pause {
    failures: u32,
    until: Instant,
}

/// What the task knows of the partitions.
#[derive(Default)]
struct Known {
    /// Those that are being sealed.
    lines: BTreeMap<u32, Line>,
    pauses: BTreeMap<u32, Pause>,
    /// Size and root of what this process signed last: it signs nothing that does not go on from there.
    signed: BTreeMap<u32, (u64, TreeHash)>,
}

impl Sealer {
    pub(crate) fn new(sealing: Sealing, beside: Beside) -> Self {
        let topic = seals_topic(beside.namespace(), &beside.source.category).into();
        Self { sealing, topic, beside }
    }

    pub(crate) async fn run(self) {
        let mut known = Known::default();
        let counters = self.beside.partitions.iter().map(|partition| partition.counters.clone()).collect();
        let mut restarts = Restarts::new("sealing", counters);
        loop {
            let sealing = async {
                tokio::select! {
                    biased;
                    () = self.beside.shutdown.cancelled() => {}
                    () = self.seal(&mut known) => {}
                }
            };
            let Err(panic) = AssertUnwindSafe(sealing).catch_unwind().await else { break };
            known.lines.clear(); // what was signed stays: nothing is signed that contradicts it
            tokio::select! {
                biased;
                () = self.beside.shutdown.cancelled() => break,
                () = restarts.after(panic) => {}
            }
        }
        let _ = timeout(FINISH, self.finish(known.lines)).await; // what is not sealed now is sealed by the next owner
    }

    /// Seals for ever.
    ///
    /// # Cancel safety
    /// Leaves that were being written stay among those that are not, and are written again.
    async fn seal(&self, known: &mut Known) {
        let every = self.sealing.every.clamp(EVERY.0, EVERY.1);
        let mut tick = interval_at(Instant::now() + every, every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.update(known).await;
            let mut reader = match self.read(&known.lines).await {
                Ok(reader) => reader,
                Err(error) => {
                    self.fail_all(known, &error.into());
                    continue;
                }
            };
            // Until other partitions are to be sealed.
            loop {
                let batch = tokio::select! {
                    biased;
                    () = self.changed(known) => break,
                    _ = tick.tick() => None,
                    batch = next_of(&mut reader) => Some(batch),
                };
                let whole = match batch {
                    None => self.seal_all(known).await,
                    Some(Ok(batch)) => self.take(batch, known).await,
                    Some(Err(error)) => {
                        self.fail_all(known, &error.into());
                        false
                    }
                };
                if !whole {
                    break;
                }
            }
        }
    }

    /// Which partitions are to be sealed here now.
    fn served(&self) -> impl Iterator<Item = u32> {
        (0..self.beside.source.partitions).filter(|partition| self.beside.is_served(*partition))
    }

    /// Waits until other partitions are to be sealed.
    async fn changed(&self, Known { lines, pauses, .. }: &Known) {
        let mut statuses: Vec<_> = self.beside.partitions.iter().map(|partition| partition.status.clone()).collect();
        loop {
            statuses.retain_mut(|status| {
                status.mark_unchanged();
                status.has_changed().is_ok() // else its owner has ended for good
            });
            let now = Instant::now();
            let due = |partition: &u32| pauses.get(partition).is_none_or(|pause| pause.until <= now);
            let begins = self.served().any(|partition| !lines.contains_key(&partition) && due(&partition));
            if begins || lines.keys().any(|partition| !self.beside.is_served(*partition)) {
                return;
            }
            let next = pauses.values().map(|pause| pause.until).filter(|until| *until > now).min();
            let pause = next.map_or(PAUSES.1, |until| until - now);
            let changes = statuses.iter_mut().map(|status| Box::pin(status.changed())).collect::<Vec<_>>();
            if changes.is_empty() {
                sleep(pause).await;
            } else {
                let _ = timeout(pause, select_all(changes)).await;
            }
        }
    }

    /// Drops what others own now, and begins with what is owned here.
    async fn update(&self, known: &mut Known) {
        let served: Vec<_> = self.served().collect();
        known.lines.retain(|partition, _| served.contains(partition));
        known.pauses.retain(|partition, _| served.contains(partition));
        for partition in served {
            let now = Instant::now();
            if known.lines.contains_key(&partition)
                || known.pauses.get(&partition).is_some_and(|pause| pause.until > now)
            {
                continue;
            }
            let signed = known.signed.get(&partition).copied();
            match timeout(DEADLINE, self.resume(partition, signed)).await.unwrap_or(Err(Failed::Deadline)) {
                Ok(line) => {
                    self.show(partition, &line);
                    known.lines.insert(partition, line);
                }
                Err(error) => self.fail(partition, &mut known.pauses, &error),
            }
        }
    }

    /// Where the last note ends, whoever signed it, but not before what this process has `signed`.
    async fn resume(&self, partition: u32, signed: Option<(u64, TreeHash)>) -> Result<Line, Failed> {
        let keys: Vec<PublicKey> =
            std::iter::once(self.sealing.key.public()).chain(self.sealing.trusted.iter().cloned()).collect();
        let (checkpoint, tree) = match self.seals(partition).last(&keys).await? {
            None => (Checkpoint::default(), Tree::default()),
            Some((seal, tree)) => {
                let here = origin(&self.beside.source, partition, seal.reader.log_id);
                if seal.origin != here {
                    return Err(Failed::Origin(seal.origin, here));
                }
                (seal.reader, tree)
            }
        };
        let copy =
            copy_begun(self.beside.log.as_ref(), &self.beside.source.topic, partition).await?.map(|copied| copied.copy);
        // A note that was copied with the events tells where they are in the source. The leaves are the same.
        let elsewhere = copy.is_some() && checkpoint.current.copy != copy;
        if !elsewhere {
            verify_checkpoint(self.beside.log.as_ref(), &self.beside.source, partition, &checkpoint).await?;
        }
        if let Some((size, root)) = signed
            && (tree.size() < size || tree.size() == size && tree.root() != root)
        {
            return Err(Failed::Shortened { signed: size, found: tree.size() });
        }
        let (sealed, writer) = (tree.size(), self.beside.random.u64());
        let (checkpoint, tree, expected) = match elsewhere {
            true => (Checkpoint::default(), Tree::default(), (sealed > 0).then(|| tree.root())),
            false => (checkpoint, tree, None),
        };
        let reader = PartitionReader::resume(self.beside.source.clone(), partition, &checkpoint);
        Ok(Line { reader, sealed, expected, tree, unwritten: Vec::new(), writer })
    }

    fn seals(&self, partition: u32) -> SealsPartition {
        SealsPartition { log: self.beside.log.clone(), topic: self.topic.clone(), partition }
    }

    async fn read(&self, lines: &BTreeMap<u32, Line>) -> Result<Option<Box<dyn LogReader>>, LogError> {
        let from: Vec<_> = lines.iter().map(|(partition, line)| (*partition, line.reader.next())).collect();
        if from.is_empty() {
            Ok(None)
        } else {
            self.beside.log.reader(&self.beside.source.topic, &from).await.map(Some)
        }
    }

    /// Whether all went well.
    async fn take(&self, batch: Batch, known: &mut Known) -> bool {
        let partition = batch.partition;
        let Some(line) = known.lines.get_mut(&partition) else { return true };
        let taken = async {
            line.take(batch)?;
            if line.unwritten.len() >= LEAVES_MAX { self.write(partition, line, false).await } else { Ok(()) }
        };
        let taken = taken.await;
        self.show(partition, line);
        self.settle(partition, taken, known)
    }

    /// Whether all went well.
    async fn seal_all(&self, known: &mut Known) -> bool {
        let mut whole = true;
        let due = known.lines.iter().filter(|(_, line)| line.tree.size() > line.sealed);
        for partition in due.map(|(partition, _)| *partition).collect::<Vec<_>>() {
            let Some(line) = known.lines.get_mut(&partition) else { continue };
            let written = self.write(partition, line, true).await;
            if written.is_ok() {
                known.signed.insert(partition, (line.tree.size(), line.tree.root()));
                known.pauses.remove(&partition);
            }
            self.show(partition, line);
            whole &= self.settle(partition, written, known);
        }
        whole
    }

    /// After a failure the topic tells what is there: the partition is resumed.
    fn settle(&self, partition: u32, done: Result<(), Failed>, known: &mut Known) -> bool {
        let Err(error) = done else { return true };
        known.lines.remove(&partition);
        self.fail(partition, &mut known.pauses, &error);
        false
    }

    /// Writes the leaves that are not in the topic, and a note if asked for.
    async fn write(&self, partition: u32, line: &mut Line, note: bool) -> Result<(), Failed> {
        let now_ms = self.beside.clock.now_ms();
        let at_once = LEAVES_MAX.min(self.beside.log.record_max_bytes() / 64).max(1);
        let first = line.tree.size() - line.unwritten.len() as u64;
        let mut records: Vec<_> = (first..)
            .step_by(at_once)
            .zip(line.unwritten.chunks(at_once))
            .map(|(from, leaves)| leaves_record(from, leaves, line.writer, now_ms))
            .collect();
        if note {
            let reader = line.reader.checkpoint();
            let seal = Seal {
                origin: origin(&self.beside.source, partition, reader.log_id),
                size: line.tree.size(),
                root: line.tree.root(),
                signed_at: DateTime::<Utc>::from_timestamp_millis(now_ms).unwrap_or_default(),
                reader,
            };
            records.push(note_record(&line.tree, seal.sign(&self.sealing.key), line.writer, now_ms));
        }
        let appended = async {
            let mut writer = self.beside.log.writer(&self.topic, partition).await?;
            writer.append(records).await?;
            Ok::<_, Failed>(())
        };
        timeout(DEADLINE, appended).await.map_err(|_| Failed::Deadline)??;
        line.unwritten.clear();
        if note {
            line.sealed = line.tree.size();
            self.beside.partitions[partition as usize].counters.seals.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The engine stops: seals what the owners appended last.
    async fn finish(&self, lines: BTreeMap<u32, Line>) {
        join_all(lines.into_iter().map(async |(partition, line)| {
            if let Err(error) = self.finish_one(partition, line).await {
                self.tell(partition, &error);
            }
        }))
        .await;
    }

    async fn finish_one(&self, partition: u32, mut line: Line) -> Result<(), Failed> {
        let mut status = self.beside.partitions[partition as usize].status.clone();
        let _ = status.wait_for(|status| *status != OwnerState::Serving).await;
        line.writer = self.beside.random.u64(); // an append may have been given up half way
        let (log, topic) = (self.beside.log.as_ref(), &self.beside.source.topic);
        let end = log.bounds(topic, partition).await?.end;
        let mut rest = Scan::open(log, topic, partition, line.reader.next()..end).await?;
        while let Some(records) = rest.next().await? {
            line.take(Batch { partition, records, next: 0 })?;
            if line.unwritten.len() >= LEAVES_MAX {
                self.write(partition, &mut line, false).await?;
            }
        }
        if line.tree.size() > line.sealed { self.write(partition, &mut line, true).await } else { Ok(()) }
    }

    fn fail_all(&self, known: &mut Known, error: &Failed) {
        for partition in std::mem::take(&mut known.lines).into_keys() {
            self.fail(partition, &mut known.pauses, error);
        }
    }

    fn fail(&self, partition: u32, pauses: &mut BTreeMap<u32, Pause>, error: &Failed) {
        self.tell(partition, error);
        let pause = pauses.entry(partition).or_insert(Pause { failures: 0, until: Instant::now() });
        pause.until = Instant::now() + PAUSES.0.saturating_mul(1 << pause.failures.min(10)).min(PAUSES.1);
        pause.failures += 1;
    }

    fn tell(&self, partition: u32, error: &Failed) {
        self.beside.partitions[partition as usize].counters.failed_seals.fetch_add(1, Ordering::Relaxed);
        let error = error as &dyn std::error::Error;
        tracing::error!(topic = %self.beside.source.topic, partition, error, "not sealed: what is recorded is not tamper-evident until it is");
    }

    fn show(&self, partition: u32, line: &Line) {
        let counters = &self.beside.partitions[partition as usize].counters;
        counters.sealed.store(line.sealed, Ordering::Relaxed);
        counters.unsealed.store(line.tree.size().saturating_sub(line.sealed), Ordering::Relaxed);
    }
}

impl Line {
    fn take(&mut self, batch: Batch) -> Result<(), LogError> {
        for stored in batch.records {
            for event in sealed_of(self.reader.feed(stored)?) {
                let envelope = &event.envelope;
                if envelope.compute_hash() != envelope.hash {
                    // Sealed as it says it is, so that whoever verifies finds out.
                    tracing::error!(stream = %envelope.stream, version = %envelope.version, offset = event.offset, "an event is not what its hash says: the log was damaged or changed");
                }
                let leaf = leaf_hash(&envelope.hash);
                self.push(leaf)?;
            }
        }
        self.reader.skip_to(batch.next);
        Ok(())
    }

    fn push(&mut self, leaf: TreeHash) -> Result<(), LogError> {
        self.tree.push(leaf);
        match self.expected {
            None => self.unwritten.push(leaf),
            Some(root) if self.tree.size() == self.sealed => {
                if self.tree.root() != root {
                    let (partition, sealed) = (self.reader.partition(), self.sealed);
                    let message = format!(
                        "the first {sealed} events of partition {partition} of a copied log are not those that were \
                         sealed: copy it anew, or verify it"
                    );
                    return Err(LogError::new(LogErrorKind::Lost, message));
                }
                self.expected = None;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

async fn next_of(reader: &mut Option<Box<dyn LogReader>>) -> Result<Batch, LogError> {
    match reader {
        Some(reader) => reader.next().await,
        None => std::future::pending().await,
    }
}
