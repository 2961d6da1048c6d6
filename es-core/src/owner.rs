//! The write path: the one task that decides and appends for a partition.
//!
//! It takes the partition over with a claim, then works in rounds: decide what is queued, append it all, and tell
//! every caller once each record is proven to follow the claim without a gap. Anything else is doubt: the writer is
//! dropped, a new claim is made, and the log says what became of the round.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::aggregate::{Aggregate, Apply, Handle};
use crate::clock::Clock;
use crate::error::NotDone;
use crate::ids::Epoch;
use crate::log::{AppendError, Log, LogError, LogErrorKind, LogReader, LogWriter};
use crate::reader::{EventSource, Fed, PartitionReader, verify_checkpoint};
use crate::record::{Claim, PreviousClaim};
use crate::round::{Closed, Desk, Job, Pending, Reply, Round, STARTING_OVER};
use crate::snapshot::SnapshotTopic;
use crate::state::{PartitionState, StateLimits};
use crate::store::{StateFolder, StoreError};

/// Bounds of an owner's work.
#[derive(Debug, Clone)]
pub(crate) struct OwnerLimits {
    pub(crate) state: StateLimits,
    /// Commands decided in one round at most.
    pub(crate) round_max: usize,
    /// Bytes of events after which a round takes no further command.
    pub(crate) round_max_bytes: usize,
    /// How long a round with refusals or no-ops alone waits for company: each answers record costs an append.
    pub(crate) linger: Duration,
    /// How long an append or a claim may take before it is in doubt.
    pub(crate) append_deadline: Duration,
}

/// What a partition's owner is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnerState {
    /// Reading the log and claiming the partition; commands are answered "not ready".
    TakingOver {
        /// What it waits for, for people.
        reason: String,
    },
    /// Deciding commands.
    Serving,
    /// Shut out by another process's claim; it stays so.
    Superseded {
        /// The node that claimed.
        by: String,
    },
    /// The log can't be trusted or used; it stays so until the process is started anew.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
    /// Shut down.
    Stopped,
}

/// What an owner has seen on its partition, counted since it started.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) rounds: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) doubts: AtomicU64,
    pub(crate) void: AtomicU64,
    pub(crate) foreign: AtomicU64,
    pub(crate) restored: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) failed_checkpoints: AtomicU64,
}

pub(crate) struct Owner<A: Aggregate> {
    pub(crate) node: String,
    pub(crate) source: EventSource,
    pub(crate) partition: u32,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) folder: Arc<StateFolder>,
    /// Where states are kept for who has none; `None` where that is switched off.
    pub(crate) snapshots: Option<SnapshotTopic>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) limits: OwnerLimits,
    pub(crate) desk: Desk,
    pub(crate) inbox: mpsc::Receiver<Job<A>>,
    pub(crate) status: watch::Sender<OwnerState>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) shutdown: CancellationToken,
    /// The writers of every claim that this owner sent: one in doubt may land later and is not another process's.
    pub(crate) claims: HashSet<u64>,
}

/// What an owner knows of the log: its folded state, and the reader that folded it.
struct Known<A: Aggregate> {
    state: PartitionState<A>,
    reader: PartitionReader,
}

/// A claim that stands, and the writer that may append under it.
struct Claimed {
    epoch: Epoch,
    offset: u64,
    writer: Box<dyn LogWriter>,
}

/// Why an owner stopped serving.
enum Left {
    Shutdown,
    /// These commands hang on an append whose outcome the log must tell.
    Doubt(Vec<Pending>),
    Store(StoreError),
}

/// Why the partition is not, or no longer, this owner's to write.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("claiming the partition: {0}")]
    Claim(#[source] AppendError),
    #[error("claiming the partition took longer than {0:?}")]
    Deadline(Duration),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("node {by} claimed the partition")]
    Superseded { by: String },
}

impl<A: Handle + Apply> Owner<A> {
    /// Takes over and serves until shut down, superseded or failed; commands are answered all the while.
    pub(crate) async fn run(mut self) {
        let mut known = None;
        let mut doubtful: Vec<Pending> = Vec::new();
        let mut pause = Backoff::default();
        let shutdown = self.shutdown.clone();
        loop {
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                attempt = self.take_over(&mut known) => attempt,
            };
            if matches!(attempt, Ok(_) | Err(Obstacle::Superseded { .. })) {
                self.settle(&mut known, &mut doubtful);
            }
            let obstacle = match (attempt, &mut known) {
                (Ok(claimed), Some(known)) => {
                    pause = Backoff::default();
                    match self.serve(known, claimed).await {
                        Left::Shutdown => break,
                        Left::Doubt(pending) => {
                            doubtful.extend(pending);
                            continue;
                        }
                        Left::Store(error) => error.into(),
                    }
                }
                (Err(obstacle), _) => obstacle,
                (Ok(_), None) => unreachable!("a take-over leaves what it read"),
            };
            if matches!(obstacle, Obstacle::Store(_)) {
                known = None; // what is in memory may not be in the store: begin from the store again
            }
            if self.stand_down(&obstacle, &mut pause).await.is_break() {
                break;
            }
        }
        self.stop(known).await;
    }

    /// Catches up, claims, and reads to the claim. Harmless to repeat, and to drop: an unused claim only voids.
    async fn take_over(&mut self, known: &mut Option<Known<A>>) -> Result<Claimed, Obstacle> {
        if known.is_none() {
            *known = Some(self.open().await?);
        }
        let known = known.as_mut().expect("opened just now");
        let before = known.reader.current().epoch;
        let topic = &self.source.topic;
        let end = self.log.bounds(topic, self.partition).await?.end;
        let mut tail = self.log.reader(topic, &[(self.partition, known.reader.next())]).await?;
        self.read_to(known, tail.as_mut(), end).await?;
        let current = known.reader.current();
        let another_came = current.epoch != before && !self.claims.contains(&current.epoch.writer);
        if another_came && !self.claims.is_empty() {
            return Err(self.superseded(known)); // a claim above this owner's own: it began later, so it is right
        }
        let epoch = Epoch { number: current.epoch.number + 1, writer: fastrand::u64(..) };
        self.claims.insert(epoch.writer);
        let mut writer = self.log.writer(topic, self.partition).await?;
        let offset = self.append_claim(known, writer.as_mut(), epoch).await?;
        self.read_to(known, tail.as_mut(), offset + 1).await?;
        if known.reader.current().epoch != epoch {
            return Err(self.superseded(known));
        }
        tracing::info!(%topic, partition = self.partition, %epoch, offset, "took over a partition");
        if let Some(snapshots) = &self.snapshots {
            known.state.keep_snapshots(snapshots, epoch);
        }
        Ok(Claimed { epoch, offset, writer })
    }

    async fn open(&self) -> Result<Known<A>, Obstacle> {
        let store = self.folder.store()?;
        if let Some(snapshots) = &self.snapshots {
            snapshots.restore_where_quicker(&store).await;
        }
        let (state, checkpoint) = PartitionState::open(self.partition, store, self.limits.state)?;
        verify_checkpoint(self.log.as_ref(), &self.source, self.partition, &checkpoint).await?;
        let reader = PartitionReader::resume(self.source.clone(), self.partition, &checkpoint);
        Ok(Known { state, reader })
    }

    async fn append_claim(&self, known: &Known<A>, writer: &mut dyn LogWriter, epoch: Epoch) -> Result<u64, Obstacle> {
        let current = known.reader.current();
        let previous = (current.epoch.number > 0).then_some(PreviousClaim {
            number: current.epoch.number,
            writer: current.epoch.writer,
            offset: current.claim_offset,
        });
        let log_id = match known.reader.log_id() {
            id if id.is_nil() => Uuid::from_u128(fastrand::u128(..)),
            id => id,
        };
        let claim = Claim { epoch, log_id, node: self.node.clone(), previous };
        let now_ms = self.clock.now_ms().max(known.state.last_recorded_ms());
        let append = writer.append(vec![self.desk.encoder.claim(&claim, now_ms)]);
        let deadline = self.limits.append_deadline;
        let offsets = tokio::time::timeout(deadline, append)
            .await
            .map_err(|_| Obstacle::Deadline(deadline))?
            .map_err(Obstacle::Claim)?;
        Ok(offsets[0])
    }

    /// Reads and folds up to, not including, offset `end`.
    async fn read_to(&self, known: &mut Known<A>, tail: &mut dyn LogReader, end: u64) -> Result<(), Obstacle> {
        while known.reader.next() < end {
            let batch = tail.next().await?;
            let now_ms = self.clock.now_ms();
            for stored in batch.records {
                let (offset, timestamp_ms) = (stored.offset, stored.record.timestamp_ms);
                let before = known.reader.checkpoint();
                let fed = known.reader.feed(stored)?;
                self.note(&fed, offset);
                known.state.replay(fed, offset, timestamp_ms, now_ms, &before)?;
            }
            known.reader.skip_to(batch.next);
            known.state.flush_if_due(|| known.reader.checkpoint()).await?;
        }
        Ok(())
    }

    /// Counts and logs what does not count as an event.
    fn note(&self, fed: &Fed, offset: u64) {
        let (topic, partition) = (&self.source.topic, self.partition);
        match fed {
            Fed::Void(reason) => {
                self.counters.void.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%topic, partition, offset, ?reason, "void record");
            }
            Fed::Foreign(reason) => {
                self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%topic, partition, offset, reason, "foreign record");
            }
            Fed::Nothing | Fed::Events(_) | Fed::Answers(_) | Fed::Claim(_) => {}
        }
    }

    /// Serves until something comes between; what was not decided then is told so.
    async fn serve(&mut self, known: &mut Known<A>, claimed: Claimed) -> Left {
        self.status.send_replace(OwnerState::Serving);
        let mut queued = Vec::with_capacity(self.limits.round_max);
        let left = self.rounds(known, claimed, &mut queued).await;
        for job in queued {
            let _ = job.reply.send(Reply::NotDone(NotDone::NotReady { reason: STARTING_OVER.into() }));
        }
        left
    }

    /// One round after another.
    async fn rounds(&mut self, known: &mut Known<A>, mut claimed: Claimed, queued: &mut Vec<Job<A>>) -> Left {
        let mut sequence = 0;
        let shutdown = self.shutdown.clone();
        loop {
            if queued.is_empty() {
                let received = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Left::Shutdown,
                    received = self.inbox.recv_many(queued, self.limits.round_max) => received, // no timer
                };
                if received == 0 {
                    return Left::Shutdown; // every bus is gone
                }
            }
            let mut closed = match self.decide(known, claimed.epoch, sequence, queued).await {
                Ok(closed) => closed,
                Err(error) => return Left::Store(error),
            };
            if closed.records.is_empty() {
                continue; // every command was answered from memory
            }
            let records = std::mem::take(&mut closed.records);
            let count = records.len();
            let append = claimed.writer.append(records);
            match tokio::time::timeout(self.limits.append_deadline, append).await {
                Ok(Ok(offsets)) if follows_on(&offsets, claimed.offset + closed.first_sequence, count) => {
                    sequence = closed.last_sequence;
                    self.publish(known, closed, &claimed);
                }
                Ok(Ok(offsets)) => {
                    return self.doubt(&Gap { claimed: claimed.offset, sequence, offsets }, closed.into_pending());
                }
                Ok(Err(error)) => return self.doubt(&error, closed.into_pending()),
                Err(_) => return self.doubt(&Obstacle::Deadline(self.limits.append_deadline), closed.into_pending()),
            }
            if let Err(error) = known.state.flush_if_due(|| known.reader.checkpoint()).await {
                return Left::Store(error);
            }
        }
    }

    /// Decides what is queued; a round of answers alone waits a moment for company.
    async fn decide(
        &mut self,
        known: &mut Known<A>,
        epoch: Epoch,
        sequence: u64,
        queued: &mut Vec<Job<A>>,
    ) -> Result<Closed<A>, StoreError> {
        let mut round = Round::new(&self.desk, &mut known.state, epoch, sequence, self.clock.now_ms());
        let mut lingered = false;
        loop {
            let mut rest = std::mem::take(queued).into_iter();
            while round.bytes() < self.limits.round_max_bytes
                && let Some(job) = rest.next()
            {
                if let Err(error) = round.decide(job) {
                    queued.extend(rest);
                    return Err(error);
                }
            }
            queued.extend(rest);
            if lingered || !round.has_only_answers() {
                return Ok(round.close());
            }
            lingered = true;
            let company = self.inbox.recv_many(queued, self.limits.round_max);
            let _ = tokio::time::timeout(self.limits.linger, company).await; // cancel safe: nothing is lost
        }
    }

    fn publish(&self, known: &mut Known<A>, closed: Closed<A>, claimed: &Claimed) {
        let records = closed.last_sequence + 1 - closed.first_sequence;
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        self.counters.records.fetch_add(records, Ordering::Relaxed);
        let next = claimed.offset + closed.last_sequence + 1;
        known.reader.proven(closed.last_sequence, next, closed.last_event(claimed.offset));
        closed.publish(&mut known.state, claimed.offset);
    }

    fn doubt(&self, why: &dyn std::error::Error, pending: Vec<Pending>) -> Left {
        self.counters.doubts.fetch_add(1, Ordering::Relaxed);
        let commands = pending.len();
        tracing::warn!(topic = %self.source.topic, partition = self.partition, commands, why = describe(why), "an append is in doubt");
        self.status.send_replace(OwnerState::TakingOver { reason: "an append is in doubt".into() });
        Left::Doubt(pending)
    }

    /// The log was read to a claim above the one in doubt: what is in it happened, what is not did not and never will.
    fn settle(&self, known: &mut Option<Known<A>>, doubtful: &mut Vec<Pending>) {
        let Some(known) = known else { return };
        let now_ms = self.clock.now_ms();
        for pending in doubtful.drain(..) {
            match known.state.known(&pending.id, &pending.command, now_ms) {
                Ok(Some(answer)) => pending.answer(&answer),
                Ok(None) => pending.not_done(&NotDone::NotInLog),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "settling a command"),
            }
        }
    }

    fn superseded(&self, known: &Known<A>) -> Obstacle {
        let epoch = known.reader.current().epoch;
        Obstacle::Superseded { by: format!("{} (claim {epoch})", known.reader.node()) }
    }

    /// Answers "not ready" for a while, or for good where trying again can't help.
    async fn stand_down(&mut self, obstacle: &Obstacle, pause: &mut Backoff) -> ControlFlow<()> {
        let reason = describe(obstacle);
        let for_good = match obstacle {
            Obstacle::Superseded { by } => Some(OwnerState::Superseded { by: by.clone() }),
            Obstacle::Log(error) if error.kind() != LogErrorKind::Unavailable => {
                Some(OwnerState::Failed { reason: reason.clone() })
            }
            _ => None,
        };
        let (topic, partition) = (&self.source.topic, self.partition);
        let wait = match &for_good {
            Some(state) => {
                tracing::error!(%topic, partition, reason, "no longer the owner of a partition");
                self.status.send_replace(state.clone());
                None
            }
            None => {
                let wait = pause.next();
                tracing::warn!(%topic, partition, reason, ?wait, "could not take over a partition");
                self.status.send_replace(OwnerState::TakingOver { reason: reason.clone() });
                Some(wait)
            }
        };
        let shutdown = self.shutdown.clone();
        let waited = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(waited);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return ControlFlow::Break(()),
                () = &mut waited => return ControlFlow::Continue(()),
                job = self.inbox.recv() => match job {
                    Some(job) => { let _ = job.reply.send(Reply::NotDone(NotDone::NotReady { reason: reason.clone() })); }
                    None => return ControlFlow::Break(()),
                },
            }
        }
    }

    /// Answers what is still queued, and writes the states down so that the next start is short.
    async fn stop(mut self, known: Option<Known<A>>) {
        self.status.send_replace(OwnerState::Stopped);
        self.inbox.close();
        while let Some(job) = self.inbox.recv().await {
            let _ = job.reply.send(Reply::NotDone(NotDone::Stopped));
        }
        if let Some(Known { mut state, reader }) = known {
            if let Err(error) = state.flush(reader.checkpoint()).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the next start reads more of the log");
            }
            state.finish_snapshots(self.limits.append_deadline).await;
        }
    }
}

/// Whether the reports are exactly the offsets that follow: then no other record, and so no claim, came between.
fn follows_on(offsets: &[u64], first: u64, count: usize) -> bool {
    offsets.len() == count && offsets.iter().zip(first..).all(|(reported, expected)| *reported == expected)
}

#[derive(Debug, thiserror::Error)]
#[error("after sequence {sequence} of the claim at offset {claimed} the log reported {offsets:?}")]
struct Gap {
    claimed: u64,
    sequence: u64,
    offsets: Vec<u64>,
}

/// An error with its causes, for people.
fn describe(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// A pause that doubles up to 5 s, with jitter so that two that failed together do not stay together.
#[derive(Default)]
struct Backoff {
    failures: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let base_ms = (50u64 << self.failures.min(7)).min(5_000);
        self.failures += 1;
        Duration::from_millis(fastrand::u64(base_ms / 2..=base_ms))
    }
}
