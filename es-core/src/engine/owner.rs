//! The write path: the one task that decides and appends for a partition.
//!
//! It takes the partition over with a claim, then works in rounds: decide what is queued, append it all, and tell
//! every caller once each record is proven to follow the claim without a gap. Anything else is doubt: the writer is
//! dropped, a new claim is made, and the log says what became of the round.

#[cfg(test)]
pub(crate) mod tests;
mod time;

use std::collections::HashSet;
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::causes::with_causes;
use crate::domain::clock::Clock;
use crate::domain::error::NotDone;
use crate::domain::guard::panic_text;
use crate::domain::ids::Epoch;
use crate::domain::text::{Seldom, short};
use crate::engine::membership::Mandate;
use crate::engine::parked::Parked;
use crate::engine::pause::Backoff;
use crate::engine::retry::{Refolded, Retried};
use crate::engine::round::{Closed, Desk, Job, Pending, Round, STARTING_OVER};
use crate::engine::snapshot::SnapshotTopic;
use crate::engine::state::{PartitionState, StateLimits};
use crate::engine::store::{StateFolder, StoreError};
use crate::engine::supervise::{Health, Restarts};
use crate::log::reader::{EventSource, Fed, PartitionReader, verify_checkpoint};
use crate::log::record::{Claim, PreviousClaim, Program};
use crate::log::{AppendError, Batch, Log, LogError, LogErrorKind, LogReader, LogWriter};

use time::Untimely;
pub(crate) use time::{Pace, TimeLimits};

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
    pub(crate) time: TimeLimits,
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
    /// The partition is another process's by the word of the group; commands go there.
    Elsewhere,
    /// Shut out by another process's claim. Without a group it stays so; else until the group gives the partition anew.
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
    /// Commands from other processes that were answered.
    pub(crate) forwarded: AtomicU64,
    /// Records on the commands topic that were no command of the aggregate type.
    pub(crate) rejected: AtomicU64,
    /// Commands that came to a partition in which their aggregate does not live.
    pub(crate) misrouted: AtomicU64,
    /// Commands that expired before they were decided.
    pub(crate) expired: AtomicU64,
    /// The offset up to which the log was read.
    pub(crate) read_to: AtomicU64,
    pub(crate) restored: AtomicU64,
    /// Events that the last seal covers, those that are read and not sealed, and seals written and failed.
    pub(crate) sealed: AtomicU64,
    pub(crate) unsealed: AtomicU64,
    pub(crate) seals: AtomicU64,
    pub(crate) failed_seals: AtomicU64,
    pub(crate) checkpoints: AtomicU64,
    pub(crate) failed_checkpoints: AtomicU64,
    pub(crate) parked: Arc<Parked>,
    pub(crate) health: Health,
}

pub(crate) struct Owner<A: Aggregate> {
    pub(crate) node: String,
    /// What the claims say of this program.
    pub(crate) program: Program,
    pub(crate) source: EventSource,
    pub(crate) partition: u32,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) folder: Arc<StateFolder>,
    /// Where states are kept for who has none; `None` where that is switched off.
    pub(crate) snapshots: Option<SnapshotTopic>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pace: Pace,
    pub(crate) limits: OwnerLimits,
    pub(crate) desk: Desk,
    pub(crate) status: watch::Sender<OwnerState>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) shutdown: CancellationToken,
    /// The group's word on who should own the partition.
    pub(crate) mandate: watch::Receiver<Mandate>,
    /// Asks the group for its word anew; nobody hears where there is no group.
    pub(crate) asking: mpsc::Sender<u32>,
    /// Whether to follow the log while another process owns the partition, so that a take-over is short.
    pub(crate) standby: bool,
    /// States of aggregates that are parked.
    pub(crate) refolded: mpsc::Receiver<Refolded<A>>,
    pub(crate) claims: Claims,
    /// Of warnings about records that do not count.
    pub(crate) seldom: Seldom,
    pub(crate) aggregate: PhantomData<fn() -> A>,
}

/// The claims that this owner sent.
#[derive(Default)]
pub(crate) struct Claims {
    /// Their writers: one in doubt may land later and is not another process's.
    writers: HashSet<u64>,
    /// The word of the group under which the last one was sent.
    grant: Option<u64>,
    /// The number of the last one that stood: records may have been appended under it.
    served: u64,
}

impl Claims {
    fn note(&mut self, epoch: Epoch, grant: u64) {
        self.writers.insert(epoch.writer);
        self.grant = Some(grant);
    }
}

impl OwnerState {
    /// Becomes [`OwnerState::TakingOver`] where it was not, with a new reason.
    fn take_over(&mut self) -> bool {
        let other = !matches!(self, Self::TakingOver { .. });
        if other {
            *self = Self::TakingOver { reason: "reading the log and claiming the partition".into() };
        }
        other
    }
}

/// Answers what comes "not ready", for ever.
async fn refuse<A: Aggregate>(inbox: &mut Inbox<A>) {
    while let Some(job) = inbox.recv().await {
        job.not_done(NotDone::NotReady { reason: "the partition is being taken over".into() });
    }
    std::future::pending().await
}

/// Waits until the partition is not this process's to claim any more.
async fn revoked(mandate: &mut watch::Receiver<Mandate>) {
    if mandate.wait_for(|mandate| !mandate.is_held()).await.is_err() {
        std::future::pending().await // nobody can say so any more: the engine is going
    }
}

/// Where commands wait for their owner.
pub(crate) type Inbox<A> = mpsc::Receiver<Job<A>>;

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
    /// The group gave the partition to another process.
    Revoked,
    /// These commands hang on an append whose outcome the log must tell.
    Doubt(Vec<Pending>),
    Store(StoreError),
    /// The clock jumped.
    Untimely(Obstacle),
}

/// What an owner that does not serve waits for.
#[derive(Clone, Copy)]
enum Next {
    /// Some time.
    Again,
    /// The group's word.
    Ask,
    Never,
}

/// Why a process that could take part in the group does not yet.
const CATCHING_UP: &str = "making the states of this release from the log before joining the group";

/// The first claim in a copy is as far as this above those that were copied: what the source claims from then on, and a
/// copier brings that is late, is below it.
const ABOVE_SOURCE: u64 = 1 << 32;

/// How long the group's answer may take before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why the partition is not, or no longer, this owner's to write.
#[derive(Debug, thiserror::Error)]
enum Obstacle {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("claiming the partition: {0}")]
    Claim(#[source] AppendError),
    #[error("claiming the partition took longer than {0:?}")]
    Deadline(Duration),
    #[error("an earlier claim of this owner, {0}, landed late")]
    OwnClaim(Epoch),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Untimely(#[from] Untimely),
    #[error("a copy of another log began to be made here while the partition was claimed")]
    Copied,
    #[error("node {by} claimed the partition")]
    Superseded { by: String },
}

impl Obstacle {
    /// Whether it stays until the process is started anew.
    fn is_final(&self) -> bool {
        matches!(self, Self::Log(error) if error.kind() != LogErrorKind::Unavailable)
    }
}

impl<A: Handle + Apply> Owner<A> {
    /// Takes over and serves until shut down, superseded or failed; commands are answered all the while.
    /// After a panic it begins anew from the store: what hung on an append is as unknown to its callers as after a crash.
    pub(crate) async fn run(mut self, mut inbox: Inbox<A>) {
        let mut restarts = Restarts::new("the owner", vec![self.counters.clone()]);
        loop {
            let Err(panic) = AssertUnwindSafe(self.work(&mut inbox)).catch_unwind().await else { return };
            let reason = format!("its owner panicked: {}", panic_text(&*panic));
            self.status.send_replace(OwnerState::TakingOver { reason });
            let (shutdown, mut mandate) = (self.shutdown.clone(), self.mandate.clone());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = revoked(&mut mandate) => {}
                () = restarts.after(panic) => {}
                () = refuse(&mut inbox) => unreachable!("it never ends"),
            }
        }
    }

    async fn work(&mut self, inbox: &mut Inbox<A>) {
        let mut known = None;
        let mut doubtful: Vec<Pending> = Vec::new();
        let mut pause = Backoff::default();
        let shutdown = self.shutdown.clone();
        let mut mandate = self.mandate.clone();
        loop {
            if !mandate.borrow_and_update().is_held() {
                if self.stand_by(inbox, &mut known, &mut doubtful).await.is_break() {
                    break;
                }
                pause = Backoff::default();
                continue;
            }
            self.status.send_if_modified(OwnerState::take_over);
            let attempt = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                () = revoked(&mut mandate) => continue,
                attempt = self.take_over(&mut known) => attempt,
                // Not kept for later: what is in doubt comes first, and whether it was done is not known yet.
                () = refuse(inbox) => unreachable!("it never ends"),
            };
            if matches!(attempt, Ok(_) | Err(Obstacle::Superseded { .. } | Obstacle::OwnClaim(_))) {
                self.settle(&mut known, &mut doubtful);
            }
            if let (Err(Obstacle::Superseded { .. }), Some(known)) = (&attempt, &mut known) {
                known.state.end_snapshots();
            }
            let obstacle = match (attempt, &mut known) {
                (Ok(claimed), Some(known)) => {
                    pause = Backoff::default();
                    let mut queued = Vec::with_capacity(self.limits.round_max);
                    let left = self.serve(known, claimed, inbox, &mut queued).await;
                    for job in queued {
                        job.not_done(NotDone::NotReady { reason: STARTING_OVER.into() });
                    }
                    match left {
                        Left::Shutdown => break,
                        Left::Revoked => continue,
                        Left::Doubt(pending) => {
                            doubtful.extend(pending);
                            continue;
                        }
                        Left::Store(error) => error.into(),
                        Left::Untimely(obstacle) => obstacle,
                    }
                }
                (Err(obstacle), _) => obstacle,
                (Ok(_), None) => unreachable!("a take-over leaves what it read"),
            };
            if matches!(obstacle, Obstacle::Store(_)) {
                known = None; // what is in memory may not be in the store: begin from the store again
            }
            // Nobody settles what hangs on a log that can't be used: its callers learn that the outcome is unknown.
            let hopeless = obstacle.is_final();
            doubtful.retain(|pending| !hopeless && pending.is_waited_for());
            if self.stand_down(inbox, &obstacle, &mut pause).await.is_break() {
                break;
            }
        }
        self.stop(inbox, known).await;
    }

    /// Catches up, claims, and reads to the claim. Harmless to repeat, and to drop: an unused claim only voids.
    async fn take_over(&mut self, known: &mut Option<Known<A>>) -> Result<Claimed, Obstacle> {
        self.clock_ms()?;
        match known {
            // What was read may be gone by now, and other records at its place.
            Some(known) => {
                let checkpoint = known.reader.checkpoint();
                verify_checkpoint(self.log.as_ref(), &self.source, self.partition, &checkpoint).await?;
            }
            None => *known = Some(self.open().await?),
        }
        let known = known.as_mut().expect("opened just now");
        let before = known.reader.current().epoch;
        let topic = self.source.topic.clone();
        // Both take a while to open.
        let writer = async { Ok(self.log.writer(&topic, self.partition).await?) };
        let (mut tail, mut writer) = futures::try_join!(self.catch_up(known), writer)?;
        self.timely_ms(known).await?;
        let current = known.reader.current();
        let grant = self.mandate.borrow().grant();
        let another_came = current.epoch != before && !self.claims.writers.contains(&current.epoch.writer);
        if another_came && self.claims.grant == Some(grant) {
            return Err(self.superseded(known)); // it claimed later, and the group has not spoken since: it is right
        }
        let above = if current.copied { ABOVE_SOURCE } else { 1 };
        let epoch = Epoch { number: current.epoch.number + above, writer: self.desk.random.u64() };
        self.claims.note(epoch, grant);
        let offset = self.append_claim(known, writer.as_mut(), epoch).await?;
        self.read_to(known, tail.as_mut(), offset + 1).await?;
        let current = known.reader.current();
        if current.epoch != epoch && self.claims.writers.contains(&current.epoch.writer) {
            return Err(Obstacle::OwnClaim(current.epoch)); // one whose report was lost landed late, before this one
        }
        // The epoch alone does not tell: a copy of this machine may have drawn the same bits.
        if (current.epoch, current.claim_offset) != (epoch, offset) {
            return Err(self.superseded(known));
        }
        if current.copied {
            return Err(Obstacle::Copied); // it began while the claim was on its way
        }
        self.timely_ms(known).await?; // by what the owner before wrote last
        tracing::info!(%topic, partition = self.partition, %epoch, offset, "took over a partition");
        self.claims.served = epoch.number;
        if let Some(snapshots) = &self.snapshots {
            known.state.keep_snapshots(snapshots, epoch);
        }
        Ok(Claimed { epoch, offset, writer })
    }

    /// Reads to the end of the log, and what reads on.
    async fn catch_up(&self, known: &mut Known<A>) -> Result<Box<dyn LogReader>, Obstacle> {
        let topic = &self.source.topic;
        let end = self.log.bounds(topic, self.partition).await?.end;
        let mut tail = self.log.reader(topic, &[(self.partition, known.reader.next())]).await?;
        self.read_to(known, tail.as_mut(), end).await?;
        Ok(tail)
    }

    async fn open(&self) -> Result<Known<A>, Obstacle> {
        let store = self.folder.store()?;
        if let Some(snapshots) = &self.snapshots {
            snapshots.restore_where_quicker(&store).await;
        }
        let (state, checkpoint) = PartitionState::open(
            self.partition,
            store,
            self.clock.clone(),
            self.limits.state,
            self.counters.parked.clone(),
        )?;
        verify_checkpoint(self.log.as_ref(), &self.source, self.partition, &checkpoint).await?;
        let reader = PartitionReader::resume(self.source.clone(), self.partition, &checkpoint);
        self.counters.read_to.store(reader.next(), Ordering::Relaxed);
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
            id if id.is_nil() => Uuid::from_u128(self.desk.random.u128()),
            id => id,
        };
        let partitions = Some(self.source.partitions);
        let program = Some(self.program.clone());
        let claim = Claim { epoch, log_id, node: self.node.clone(), program, partitions, previous, copy: current.copy };
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
            self.fold(known, batch)?;
            known.state.flush_if_due(|| known.reader.checkpoint()).await?;
        }
        Ok(())
    }

    fn fold(&self, known: &mut Known<A>, batch: Batch) -> Result<(), Obstacle> {
        for stored in batch.records {
            let (offset, timestamp_ms) = (stored.offset, stored.record.timestamp_ms);
            let before = known.reader.checkpoint();
            let fed = known.reader.feed(stored)?;
            self.note(&fed, offset);
            known.state.replay(fed, offset, timestamp_ms, &before)?;
        }
        known.reader.skip_to(batch.next);
        self.counters.read_to.store(known.reader.next(), Ordering::Relaxed);
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
                if let Some(left_out) = self.seldom.note() {
                    let reason = short(reason);
                    tracing::warn!(%topic, partition, offset, %reason, left_out, "foreign record");
                }
            }
            Fed::Nothing | Fed::Events(_) | Fed::Erased(_) | Fed::Answers(_) | Fed::Claim(_) | Fed::Copied(_) => {}
        }
    }

    /// Rounds, until something comes between.
    async fn serve(
        &mut self,
        known: &mut Known<A>,
        mut claimed: Claimed,
        inbox: &mut Inbox<A>,
        queued: &mut Vec<Job<A>>,
    ) -> Left {
        self.status.send_replace(OwnerState::Serving);
        let mut sequence = 0;
        let shutdown = self.shutdown.clone();
        let mut mandate = self.mandate.clone();
        loop {
            if !mandate.borrow().is_held() {
                return Left::Revoked;
            }
            while let Ok(refolded) = self.refolded.try_recv() {
                if let Err(error) = resume(known, &claimed, refolded) {
                    return Left::Store(error);
                }
            }
            if queued.is_empty() {
                let received = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Left::Shutdown,
                    () = revoked(&mut mandate) => return Left::Revoked,
                    Some(refolded) = self.refolded.recv() => match resume(known, &claimed, refolded) {
                        Ok(()) => continue,
                        Err(error) => return Left::Store(error),
                    },
                    received = inbox.recv_many(queued, self.limits.round_max) => received, // no timer
                };
                if received == 0 {
                    return Left::Shutdown; // every bus is gone
                }
            }
            let now_ms = match self.timely_ms(known).await {
                Ok(now_ms) => now_ms,
                Err(obstacle) => return Left::Untimely(obstacle),
            };
            let mut closed = match self.decide(known, claimed.epoch, sequence, now_ms, inbox, queued).await {
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
        now_ms: i64,
        inbox: &mut Inbox<A>,
        queued: &mut Vec<Job<A>>,
    ) -> Result<Closed<A>, StoreError> {
        let mut round = Round::new(&self.desk, &mut known.state, epoch, sequence);
        round.at(now_ms);
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
            let company = inbox.recv_many(queued, self.limits.round_max);
            let _ = tokio::time::timeout(self.limits.linger, company).await; // cancel safe: nothing is lost
            // A clock that jumped is seen to before the next round.
            if let Ok(now_ms) = self.pace.time_ms(self.clock.as_ref(), self.limits.time.skew_max_ms) {
                round.at(now_ms);
            }
        }
    }

    fn publish(&self, known: &mut Known<A>, closed: Closed<A>, claimed: &Claimed) {
        let records = closed.last_sequence + 1 - closed.first_sequence;
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        self.counters.records.fetch_add(records, Ordering::Relaxed);
        known.reader.proven(closed.last_record(claimed.offset));
        closed.publish(&mut known.state, claimed.offset);
    }

    fn doubt(&self, why: &dyn std::error::Error, pending: Vec<Pending>) -> Left {
        self.counters.doubts.fetch_add(1, Ordering::Relaxed);
        let commands = pending.len();
        tracing::warn!(topic = %self.source.topic, partition = self.partition, commands, why = with_causes(why), "an append is in doubt");
        self.status.send_replace(OwnerState::TakingOver { reason: "an append is in doubt".into() });
        Left::Doubt(pending)
    }

    /// The log was read to a claim above the one in doubt: what is in it happened, what is not did not and never will.
    fn settle(&self, known: &mut Option<Known<A>>, doubtful: &mut Vec<Pending>) {
        let Some(known) = known else { return };
        for pending in doubtful.drain(..) {
            match known.state.recorded(&pending.id, &pending.command) {
                Ok(found) => {
                    let found = found.filter(|found| pending.may_be(found, self.limits.state.spans));
                    match found.and_then(|known| known.told(pending.expected)) {
                        Some(answer) => pending.answer(&answer),
                        // Nobody can tell: what was recorded may have been forgotten since.
                        None if pending.may_be_forgotten(known.state.last_recorded_ms(), self.limits.state.spans) => {}
                        None => pending.not_done(&NotDone::NotInLog),
                    }
                }
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "settling a command"),
            }
        }
    }

    fn superseded(&self, known: &Known<A>) -> Obstacle {
        let epoch = known.reader.current().epoch;
        Obstacle::Superseded { by: format!("{} (claim {epoch})", known.reader.node()) }
    }

    /// Answers "not ready" for a while: until it is time to try again, the group speaks anew or, where neither can help,
    /// for good.
    async fn stand_down(&self, inbox: &mut Inbox<A>, obstacle: &Obstacle, pause: &mut Backoff) -> ControlFlow<()> {
        let reason = with_causes(obstacle);
        let (topic, partition) = (&self.source.topic, self.partition);
        let wait = pause.next();
        let (state, next) = match obstacle {
            Obstacle::Superseded { by } => (OwnerState::Superseded { by: by.clone() }, Next::Ask),
            _ if obstacle.is_final() => (OwnerState::Failed { reason: reason.clone() }, Next::Never),
            _ => (OwnerState::TakingOver { reason: reason.clone() }, Next::Again),
        };
        match next {
            Next::Again => tracing::warn!(%topic, partition, reason, ?wait, "could not take over a partition"),
            Next::Ask | Next::Never => tracing::error!(%topic, partition, reason, "no longer the owner of a partition"),
        }
        self.status.send_replace(state);
        let (asking, mut mandate) = (self.asking.clone(), self.mandate.clone());
        let before = mandate.borrow_and_update().clone();
        let waited = async {
            match next {
                Next::Again => tokio::time::sleep(wait).await,
                Next::Never => std::future::pending().await,
                // What the group says after this moment is newer than the other process's claim. The pause, with its
                // jitter, ends duels of two that are both told yes.
                Next::Ask => loop {
                    tokio::time::sleep(wait).await;
                    if asking.send(partition).await.is_err() {
                        std::future::pending::<()>().await; // there is no group: the later claim is right for good
                    }
                    let spoken = tokio::time::timeout(ASK_AGAIN, mandate.wait_for(|now| *now != before)).await;
                    if spoken.is_ok_and(|spoken| spoken.is_ok()) {
                        return;
                    }
                },
            }
        };
        let mut lost = self.mandate.clone();
        let shutdown = self.shutdown.clone();
        tokio::pin!(waited);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return ControlFlow::Break(()),
                () = revoked(&mut lost) => return ControlFlow::Continue(()),
                () = &mut waited => return ControlFlow::Continue(()),
                job = inbox.recv() => match job {
                    Some(job) => job.not_done(NotDone::NotReady { reason: reason.clone() }),
                    None => return ControlFlow::Break(()),
                },
            }
        }
    }

    /// Until the group gives the partition to this process: follows the log where that is wanted, or where commands
    /// hang on an append whose outcome only the next owner's claim decides.
    async fn stand_by(
        &self,
        inbox: &mut Inbox<A>,
        known: &mut Option<Known<A>>,
        doubtful: &mut Vec<Pending>,
    ) -> ControlFlow<()> {
        let mut tail: Option<Box<dyn LogReader>> = None;
        let mut opening = None;
        let mut pause = Backoff::default();
        let (mut mandate, shutdown) = (self.mandate.clone(), self.shutdown.clone());
        if let Some(known) = known {
            known.state.end_snapshots();
        }
        loop {
            self.status.send_replace(match &*mandate.borrow_and_update() {
                Mandate::Sole | Mandate::Held(_) => return ControlFlow::Continue(()),
                Mandate::Elsewhere => OwnerState::Elsewhere,
                Mandate::CatchingUp => OwnerState::TakingOver { reason: CATCHING_UP.into() },
                Mandate::Waiting => OwnerState::TakingOver { reason: "joining the group".into() },
                Mandate::Expelled(reason) => OwnerState::Failed { reason: reason.clone() },
            });
            doubtful.retain(Pending::is_waited_for);
            let catching_up = *mandate.borrow() == Mandate::CatchingUp;
            let follows = self.standby || catching_up || !doubtful.is_empty();
            let followed = async {
                if !follows {
                    opening = None;
                    return std::future::pending().await;
                }
                if known.is_none() {
                    // Goes on where it was, however often something comes between: it may take long.
                    let opened = opening.get_or_insert_with(|| self.open().boxed()).await;
                    opening = None;
                    *known = Some(opened?);
                }
                self.follow(known.as_mut().expect("opened by now"), &mut tail).await
            };
            let error = tokio::select! {
                biased;
                () = shutdown.cancelled() => return ControlFlow::Break(()),
                changed = mandate.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return ControlFlow::Break(()), // the engine is going
                },
                job = inbox.recv() => match job {
                    Some(job) => {
                        let reason = if catching_up { CATCHING_UP } else { "another process owns the partition" };
                        job.not_done(NotDone::NotReady { reason: reason.into() });
                        continue;
                    }
                    None => return ControlFlow::Break(()),
                },
                followed = followed => match followed {
                    Ok(()) => {
                        pause = Backoff::default();
                        let number = known.as_ref().map_or(0, |known| known.reader.current().epoch.number);
                        if number > self.claims.served {
                            self.settle(known, doubtful);
                        }
                        continue;
                    }
                    Err(error) => error,
                },
                () = tokio::time::sleep(ASK_AGAIN), if !doubtful.is_empty() => continue,
            };
            let reason = with_causes(&error);
            tracing::warn!(topic = %self.source.topic, partition = self.partition, reason, "following a partition");
            tail = None;
            if matches!(error, Obstacle::Store(_)) {
                *known = None;
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return ControlFlow::Break(()),
                _ = mandate.changed() => {}
                () = tokio::time::sleep(pause.next()) => {}
            }
        }
    }

    /// Reads and folds the next records. Cancel safe: what was folded stays, what was read and not folded is read again.
    async fn follow(&self, known: &mut Known<A>, tail: &mut Option<Box<dyn LogReader>>) -> Result<(), Obstacle> {
        known.state.flush_if_due(|| known.reader.checkpoint()).await?;
        if tail.is_none() {
            let from = (self.partition, known.reader.next());
            *tail = Some(self.log.reader(&self.source.topic, &[from]).await?);
        }
        let batch = tail.as_mut().expect("opened just now").next().await?;
        self.fold(known, batch)
    }

    /// Answers what is still queued, and writes the states down so that the next start is short.
    async fn stop(&self, inbox: &mut Inbox<A>, known: Option<Known<A>>) {
        self.status.send_replace(OwnerState::Stopped);
        inbox.close();
        while let Some(job) = inbox.recv().await {
            job.not_done(NotDone::Stopped);
        }
        if let Some(Known { mut state, reader }) = known {
            if let Err(error) = state.flush(reader.checkpoint()).await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the next start reads more of the log");
            }
            state.finish_snapshots(self.limits.append_deadline).await;
        }
    }
}

/// Takes the state of a parked aggregate that was read while it was parked, under this claim. It decides nothing then, so
/// all its events are in the state.
fn resume<A: Handle + Apply>(known: &mut Known<A>, claimed: &Claimed, refolded: Refolded<A>) -> Result<(), StoreError> {
    let Refolded { aggregate, entry, read_to, resumed, taken } = refolded;
    let before = known.state.entry(&aggregate)?;
    let retried = if before.parked.is_none() {
        Retried::NotParked
    } else if read_to > claimed.offset && known.state.resume(aggregate, &before, entry, resumed) {
        Retried::Resumed
    } else {
        return Ok(()); // nothing is told
    };
    let _ = taken.send(retried); // the caller may have gone
    Ok(())
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
