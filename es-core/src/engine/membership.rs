//! This process's place in the group: tells each partition's owner whether the partition is its to claim, and hands
//! partitions back once their owners have stopped.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::domain::causes::with_causes;
use crate::engine::owner_state::OwnerState;
use crate::engine::partition::{Mandate, Partition};
use crate::engine::supervise::{Restarts, supervise};
use crate::log::group::{Change, Group, GroupSpec, Member};
use crate::log::{Log, LogError};

/// What the membership has of one partition.
pub(crate) struct Charge {
    pub(crate) mandate: watch::Sender<Mandate>,
    pub(crate) partition: Partition,
}

/// What runs beside an owner while it has its partition, until it is told to stop.
pub(crate) type Beside = Arc<dyn Fn(u32, Arc<dyn Member>, CancellationToken) -> BoxFuture + Send + Sync>;
type BoxFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Membership {
    pub(crate) spec: GroupSpec,
    pub(crate) charges: Vec<Charge>,
    /// Owners that another process's claim shut out ask here whether the group still means them.
    pub(crate) asking: mpsc::Receiver<u32>,
    pub(crate) beside: Beside,
    pub(crate) shutdown: CancellationToken,
    /// Counts how often the group gave its word.
    pub(crate) grants: u64,
}

/// What runs for an assigned partition.
struct Running {
    stop: CancellationToken,
    task: AbortOnDropHandle<()>,
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        let _ = self.task.await; // what it left, the next owner takes
    }
}

/// How many partitions the group is asked for at once, each with a thread that waits for its answer.
const CONFIRMING_MAX: usize = 8;

/// Who is no further behind than this has caught up: what is left is read while partitions are handed over.
const NEARLY: u64 = if cfg!(test) { 0 } else { 1_000 };

impl Membership {
    /// Joins, where that is wanted once the owners have nearly read to the end of the log; `None` where the process is shut down before. The
    /// others go on with what they have meanwhile.
    pub(crate) async fn catch_up_and_join(
        &self,
        log: &dyn Log,
        events: &str,
        group: &dyn Group,
        catching_up: bool,
    ) -> Option<Arc<dyn Member>> {
        if catching_up {
            tracing::info!(group = %self.spec.name, "states look different in this release: making them from the log before joining");
        }
        loop {
            let joined = async {
                match !catching_up || self.has_caught_up(log, events).await? {
                    true => group.join(&self.spec).await.map(Some),
                    false => Ok(None),
                }
            };
            let joined = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                joined = joined => joined,
            };
            match joined {
                Ok(Some(member)) => break Some(member),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(group = %self.spec.name, error = &error as &dyn std::error::Error, "joining the group");
                }
            }
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                () = tokio::time::sleep(Duration::from_millis(200)) => {}
            }
        }
    }

    async fn has_caught_up(&self, log: &dyn Log, events: &str) -> Result<bool, LogError> {
        for (partition, charge) in (0..).zip(&self.charges) {
            let end = log.bounds(events, partition).await?.end;
            if charge.partition.counters.read_to.load(Ordering::Relaxed).saturating_add(NEARLY) < end {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes part until shut down; after a panic it leaves and joins anew. `joined` is `None` where that waits until the
    /// owners have caught up.
    pub(crate) async fn supervised(
        mut self,
        mut joined: Option<Arc<dyn Member>>,
        log: &dyn Log,
        events: &str,
        group: &dyn Group,
        mut restarts: Restarts,
    ) {
        let shutdown = self.shutdown.clone();
        let mut catching_up = joined.is_none();
        loop {
            let work = async {
                let member = match &joined {
                    Some(member) => member.clone(),
                    None => match self.catch_up_and_join(log, events, group, catching_up).await {
                        Some(member) => joined.insert(member).clone(),
                        None => return,
                    },
                };
                self.run(member).await;
            };
            let Err(panic) = AssertUnwindSafe(work).catch_unwind().await else { return };
            for charge in &self.charges {
                charge.mandate.send_replace(Mandate::Waiting);
            }
            catching_up = false; // the states are those of this release by now, or nobody follows the log
            if let Some(member) = joined.take() {
                let _ = AssertUnwindSafe(member.leave()).catch_unwind().await; // else the session ends by itself
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = restarts.after(panic) => {}
            }
        }
    }

    /// Takes part until shut down, then leaves once every owner has stopped.
    async fn run(&mut self, member: Arc<dyn Member>) {
        let mut running: BTreeMap<u32, Running> = BTreeMap::new();
        // Beside the changes, which must not wait: the group may be slow to answer.
        let mut confirming = FuturesUnordered::new();
        let mut asked = BTreeSet::new();
        let shutdown = self.shutdown.clone();
        loop {
            let change = tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                change = member.next() => change,
                Some((partition, grant, confirmed)) = confirming.next() => {
                    asked.remove(&partition);
                    // Not where it spoke meanwhile: what the owner saw since may be newer than this answer.
                    if confirmed && *self.charges[partition as usize].mandate.borrow() == Mandate::Held(grant) {
                        self.grant(partition);
                    }
                    continue;
                }
                Some(partition) = self.asking.recv(), if confirming.len() < CONFIRMING_MAX => {
                    let mandate = self.charges[partition as usize].mandate.borrow().clone();
                    if let Mandate::Held(grant) = mandate && asked.insert(partition) {
                        let (member, group) = (member.clone(), self.spec.name.clone());
                        confirming.push(async move { (partition, grant, confirm(member, &group, partition).await) });
                    }
                    continue;
                }
            };
            match change {
                Ok(Change::Assigned(partitions)) => self.assigned(&member, partitions, &mut running),
                Ok(Change::Revoked(partitions) | Change::Lost(partitions)) => {
                    self.hand_back(member.as_ref(), partitions, &mut running).await;
                }
                Err(error) if error.is_retryable() => {
                    tracing::warn!(group = %self.spec.name, error = &error as &dyn std::error::Error, "the group");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => {
                    tracing::error!(group = %self.spec.name, error = &error as &dyn std::error::Error, "out of the group");
                    for charge in &self.charges {
                        charge.mandate.send_replace(Mandate::Expelled(with_causes(&error)));
                    }
                    shutdown.cancelled().await;
                    break;
                }
            }
        }
        self.stopped(running).await;
        member.leave().await;
    }

    fn grant(&mut self, partition: u32) {
        self.grants += 1;
        self.charges[partition as usize].mandate.send_replace(Mandate::Held(self.grants));
    }

    fn assigned(&mut self, member: &Arc<dyn Member>, partitions: Vec<u32>, running: &mut BTreeMap<u32, Running>) {
        tracing::info!(group = %self.spec.name, ?partitions, "partitions assigned");
        for partition in partitions {
            if (partition as usize) < self.charges.len() {
                self.grant(partition);
                let stop = CancellationToken::new();
                let (beside, member, told) = (self.beside.clone(), member.clone(), stop.clone());
                let counters = vec![self.charges[partition as usize].partition.counters.clone()];
                let restarts = Restarts::new("taking commands of the topic", counters);
                let task = tokio::spawn(async move {
                    supervise(restarts, &told, || beside(partition, member.clone(), told.clone())).await;
                });
                running.insert(partition, Running { stop, task: AbortOnDropHandle::new(task) });
            }
        }
        for charge in &self.charges {
            charge.mandate.send_if_modified(|mandate| {
                let waiting = matches!(mandate, Mandate::Waiting | Mandate::CatchingUp);
                if waiting {
                    *mandate = Mandate::Elsewhere;
                }
                waiting
            });
        }
    }

    /// First the owners finish their rounds, then what runs beside them, then others may have the partitions.
    async fn hand_back(&self, member: &dyn Member, partitions: Vec<u32>, running: &mut BTreeMap<u32, Running>) {
        tracing::info!(group = %self.spec.name, ?partitions, "partitions revoked");
        for partition in &partitions {
            if let Some(charge) = self.charges.get(*partition as usize) {
                charge.mandate.send_replace(Mandate::Elsewhere);
            }
        }
        for partition in &partitions {
            self.at_rest(*partition).await;
            if let Some(running) = running.remove(partition) {
                running.end().await;
            }
        }
        if let Err(error) = member.release(&partitions).await {
            tracing::warn!(group = %self.spec.name, error = &error as &dyn std::error::Error, "handing partitions back");
        }
    }

    /// Waits until the owner has answered what it had.
    async fn at_rest(&self, partition: u32) {
        let Some(charge) = self.charges.get(partition as usize) else { return };
        let mut status = charge.partition.status.clone();
        let at_work = |state: &OwnerState| matches!(state, OwnerState::Serving | OwnerState::TakingOver { .. });
        let _ = status.wait_for(|state| !at_work(state)).await; // an owner that ended is at rest too
    }

    async fn stopped(&self, running: BTreeMap<u32, Running>) {
        for (partition, running) in running {
            self.at_rest(partition).await;
            running.end().await;
        }
    }
}

/// Whether the group still counts with this process for a partition; not, where it does not say.
async fn confirm(member: Arc<dyn Member>, group: &str, partition: u32) -> bool {
    member.confirm(partition).await.unwrap_or_else(|error| {
        tracing::debug!(%group, partition, error = &error as &dyn std::error::Error, "asking the group");
        false
    })
}
