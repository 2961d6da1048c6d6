//! Not serving: until it may be tried again, or the group gives the partition to this process.

use std::ops::ControlFlow;
use std::time::Duration;

use futures::FutureExt;

use super::{Inbox, Known, Obstacle, Owner, revoked};
use crate::domain::aggregate::{Apply, Handle};
use crate::domain::causes::with_causes;
use crate::domain::error::NotDone;
use crate::engine::owner_state::OwnerState;
use crate::engine::partition::Mandate;
use crate::engine::pause::Backoff;
use crate::engine::round::Pending;
use crate::log::LogReader;

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

/// How long the group's answer may take before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl<A: Handle + Apply> Owner<A> {
    /// Answers "not ready" for a while: until it is time to try again, the group speaks anew or, where neither can help,
    /// for good.
    pub(super) async fn stand_down(
        &self,
        inbox: &mut Inbox<A>,
        obstacle: &Obstacle,
        pause: &mut Backoff,
    ) -> ControlFlow<()> {
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
    pub(super) async fn stand_by(
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
}
