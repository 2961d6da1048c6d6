//! The write path: the one task that decides and appends for a partition.
//!
//! It takes the partition over with a claim, then works in rounds: decide what is queued, append it all, and tell
//! every caller once each record is proven to follow the claim without a gap. Anything else is doubt: the writer is
//! dropped, a new claim is made, and the log says what became of the round.

mod serve;
mod settle;
mod stand_by;
mod take_over;
#[cfg(test)]
pub(crate) mod tests;
mod time;

use std::collections::HashSet;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::clock::Clock;
use crate::domain::error::NotDone;
use crate::domain::guard::panic_text;
use crate::domain::ids::Epoch;
use crate::domain::text::Seldom;
use crate::engine::figures::Counters;
use crate::engine::owner_state::OwnerState;
use crate::engine::partition::Mandate;
use crate::engine::pause::Backoff;
use crate::engine::retry::Refolded;
use crate::engine::round::{Job, Pending, RoundContext, STARTING_OVER};
use crate::engine::snapshot::SnapshotTopic;
use crate::engine::state::{PartitionState, StateLimits};
use crate::engine::store::{StateFolder, StoreError};
use crate::engine::supervise::Restarts;
use crate::log::reader::{EventSource, PartitionReader};
use crate::log::record::Program;
use crate::log::{AppendError, Log, LogError, LogErrorKind, LogWriter};

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
    pub(crate) context: RoundContext,
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

/// Answers what comes "not ready", for ever.
async fn refuse<A: Aggregate>(inbox: &mut Inbox<A>) {
    while let Some(job) = inbox.recv().await {
        job.not_done(NotDone::NotReady { reason: "the partition is being taken over".into() });
    }
    std::future::pending::<()>().await;
}

/// Waits until the partition is not this process's to claim any more.
async fn revoked(mandate: &mut watch::Receiver<Mandate>) {
    if mandate.wait_for(|mandate| !mandate.is_held()).await.is_err() {
        std::future::pending::<()>().await; // nobody can say so any more: the engine is going
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
                    if !matches!(left, Left::Shutdown) {
                        known.state.pause_snapshots();
                    }
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
