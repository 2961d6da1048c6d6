//! Standing by: another worker took the fence, and this one goes on when that one is gone.
//!
//! There is no heartbeat to keep up: a holder that works moves the checkpoints, and one that moves none while the log
//! has more is not missed, whether it lives or not.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use tokio::time::Instant;

use super::run::{Next, Pause, Run};
use super::state::{Origin, PartitionProgress};
use crate::builds;
use crate::checkpoint::{Saved, Standing};
use crate::error::Error;

/// How often the checkpoints are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The same while somebody waits for them.
const LOOK_SOON: Duration = Duration::from_millis(50);

/// How long the checkpoints have not moved though the log has more.
#[derive(Default)]
struct Silence {
    seen: Option<Standing>,
    since: Option<Instant>,
}

impl Run {
    /// Looks at what the other worker commits until this one takes over, or is asked to stop.
    pub(super) async fn stand_by(&mut self, silence_max: Duration) -> Result<Next, Error> {
        let projection = self.board.projection().clone();
        tracing::info!(%projection, "standing by: another worker took the fence");
        let mut pause = Pause::new("looking at another worker's checkpoints");
        let mut silence = Silence::default();
        loop {
            match self.look(&mut silence, silence_max).await {
                Ok(Some(saved)) => {
                    tracing::info!(%projection, "took over from another worker");
                    return Ok(Next::Rewind(saved));
                }
                Ok(None) => drop(pause.reset()),
                Err(error) if error.is_retryable() => {
                    let error = Arc::new(error);
                    self.board.trouble(Origin::Commit, error.clone());
                    pause.grow(&projection, &error);
                }
                Err(error) => return Err(error),
            }
            let asked = async {
                tokio::time::sleep(LOOK_SOON).await;
                self.board.asked().await;
            };
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(Next::Stop),
                () = asked => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Shows what is saved, and takes over if its holder is gone: then tells where to go on.
    async fn look(&mut self, silence: &mut Silence, silence_max: Duration) -> Result<Option<Vec<Saved>>, Error> {
        self.turn_to_live().await?;
        let standing = match self.ledger.look().await {
            // It was replaced, and removed, since it was looked for.
            Err(error) if error.is_fenced() && self.was_replaced().await? => return Ok(None),
            looked => looked?,
        };
        self.board.stands_by(&standing);
        if silence.seen.as_ref() != Some(&standing) {
            *silence = Silence { seen: Some(standing.clone()), since: None };
        } else if silence.since.is_none() && self.log_has_more().await {
            silence.since = Some(Instant::now());
        }
        let silent = silence.since.is_some_and(|since| since.elapsed() >= silence_max);
        if standing.holder.is_some() && !silent {
            return Ok(None);
        }
        match self.ledger.take_over_from(&standing).await {
            // A holder that is in the midst of a long transaction holds the rows, and so is not silent. And if the
            // database can't be reached, the next look says so.
            Err(error) if error.is_retryable() => {
                tracing::debug!(error = &error as &dyn std::error::Error, "taking over failed");
                Ok(None)
            }
            Err(error) if error.is_fenced() && self.was_replaced().await? => Ok(None),
            taken => taken,
        }
    }

    /// Where a rebuild has replaced the build that this worker kept up: goes on with the new one, if it is of the same
    /// version.
    async fn turn_to_live(&mut self) -> Result<(), Error> {
        if self.was_replaced().await? {
            let build = builds::live(&self.worker.database, &*self.projection).await?;
            self.database = build.of(&self.worker.database);
            self.ledger.turn_to(build);
        }
        Ok(())
    }

    async fn was_replaced(&self) -> Result<bool, Error> {
        let ours = self.ledger.build();
        let live = builds::look_for_live(&self.worker.database, &ours.projection).await?;
        Ok(live.is_some_and(|live| live.number != ours.number))
    }

    /// Whether there is anything behind the checkpoints. What this worker itself has read from there on, and could
    /// not move them with, does not count: the begin of a command whose rest may never come is nobody's silence.
    async fn log_has_more(&self) -> bool {
        let progress = self.board.read(|notice| notice.progress().to_vec());
        let more = stream::iter(progress).map(async |at: PartitionProgress| {
            let bounds = self.worker.log.bounds(&at.topic, at.partition).await;
            bounds.is_ok_and(|bounds| bounds.end > at.read)
        });
        more.buffer_unordered(16).any(std::future::ready).await
    }
}
