//! The handle of a worker that was started.

use std::sync::Arc;
use std::time::Duration;

use es_core::Position;
use es_core::log::Log;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::lag::{Lag, PartitionLag};
use super::state::{Board, Notice, PartitionProgress, Status, WorkerState};
use crate::error::Error;
use crate::parked;
use crate::sql::Database;

/// How long [`RunningProjection::status`] asks the log.
const LAG_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the database is asked whether an event waits.
const LOOK_MAX: Duration = Duration::from_secs(5);
/// How often a worker is asked to look at what others commit while somebody waits.
const ASK: Duration = Duration::from_millis(50);

/// A worker that was started. Dropping the last clone of its handle stops it without waiting, and a warning is logged: from then on
/// nobody keeps the read model up to date.
#[derive(Debug, Clone)]
pub struct RunningProjection {
    board: Arc<Board>,
    log: Arc<dyn Log>,
    database: Database,
    shutdown: CancellationToken,
    _stop_on_drop: Arc<StopOnDrop>,
}

#[derive(Debug)]
struct StopOnDrop {
    board: Arc<Board>,
    shutdown: CancellationToken,
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if !self.shutdown.is_cancelled() && self.board.read(|notice| notice.stop().is_none()) {
            let projection = self.board.projection();
            tracing::warn!(%projection, "the last handle of the worker was dropped: it stops");
        }
        self.shutdown.cancel();
    }
}

impl RunningProjection {
    pub(super) fn new(board: Arc<Board>, log: Arc<dyn Log>, database: Database, shutdown: CancellationToken) -> Self {
        let guard = Arc::new(StopOnDrop { board: board.clone(), shutdown: shutdown.clone() });
        Self { board, log, database, shutdown, _stop_on_drop: guard }
    }

    /// The projection's name.
    pub fn projection(&self) -> &str {
        self.board.projection()
    }

    /// Waits until the read model contains the event at this position: reads what was written.
    ///
    /// The database is not asked: the worker tells after each commit. Only where others hold some of the partitions does
    /// it look there, for what they commit.
    ///
    /// # Errors
    /// [`Error::Deadline`] with where it is when `within` has passed, [`Error::Parked`] when the event waits behind one
    /// that could not be folded in, [`Error::Stopped`] with its error when the worker
    /// stopped, [`Error::Invalid`] for a position in a partition that it does not read.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn wait_for(&self, position: &Position, within: Duration) -> Result<(), Error> {
        let Some(place) = self.board.place_of(position) else {
            let projection = self.board.projection();
            return Err(Error::invalid(format!("projection {projection} does not read the partition of {position}")));
        };
        if self.wait_until(within, |progress| progress[place].next > position.offset).await? {
            // Only where something is parked, or another worker would know, is the database asked.
            let sure = self.board.read(|notice| notice.is_sound(place));
            return if sure {
                Ok(())
            } else {
                parked::refuse_waiting(&self.database.within(LOOK_MAX), self.projection(), position).await
            };
        }
        Err(self.late(position.clone(), self.board.read(|notice| notice.progress()[place].next), within))
    }

    /// Waits until everything that is in the log when this is called has been handled. The begin of a command that is not
    /// complete counts as handled where this worker itself holds the partition: of others it does not know what they have read.
    ///
    /// # Errors
    /// As for [`RunningProjection::wait_for`]; [`Error::Log`] when the log can't be asked for its end.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn catch_up(&self, within: Duration) -> Result<(), Error> {
        let mut ends = Vec::new();
        for at in self.progress() {
            let bounds = self.log.bounds(&at.topic, at.partition).await;
            ends.push(bounds.map_err(|source| Error::Log { projection: self.board.projection().clone(), source })?.end);
        }
        let behind = |progress: &[PartitionProgress]| progress.iter().zip(&ends).position(|(at, end)| at.read < *end);
        if self.wait_until(within, |progress| behind(progress).is_none()).await? {
            return Ok(());
        }
        let progress = self.progress();
        let place = behind(&progress).unwrap_or(0);
        let PartitionProgress { category, partition, next, .. } = progress[place].clone();
        Err(self.late(Position { category, partition, offset: ends[place].saturating_sub(1) }, next, within))
    }

    /// How far it is in each partition.
    pub fn progress(&self) -> Vec<PartitionProgress> {
        self.board.read(|notice| notice.progress().to_vec())
    }

    /// How it is doing.
    pub fn state(&self) -> WorkerState {
        self.board.read(Notice::state)
    }

    /// How it is doing and how far it is behind the log, which is asked, for at most a second.
    pub async fn status(&self) -> Status {
        let lag = tokio::time::timeout(LAG_TIMEOUT, self.lag()).await.ok().flatten();
        Status { state: self.state(), lag, parked: self.board.read(Notice::parked) }
    }

    async fn lag(&self) -> Option<Lag> {
        // Owned, since the future of a closure over references would not be Send.
        let behind = stream::iter(self.progress().into_iter().enumerate()).map(async |(place, at)| {
            let PartitionProgress { topic, partition, read, .. } = at;
            let end = self.log.bounds(&topic, partition).await.ok()?.end;
            let time = self.board.backlog().age(place, read, end);
            Some(PartitionLag { topic, partition, records: end.saturating_sub(read), time })
        });
        let partitions: Vec<Option<PartitionLag>> = behind.buffered(16).collect().await;
        Some(Lag { partitions: partitions.into_iter().collect::<Option<_>>()? })
    }

    /// Waits until the worker has stopped, whatever stops it.
    ///
    /// # Errors
    /// Why it stopped, unless it was asked to.
    pub async fn stopped(&self) -> Result<(), Error> {
        let mut receiver = self.board.subscribe();
        // The board outlives this call, so its sender is there.
        let _ = receiver.wait_for(|notice| notice.stop().is_some()).await;
        match self.board.read(|notice| notice.stop().cloned()).flatten() {
            None => Ok(()),
            Some(_) => Err(self.stopped_error()),
        }
    }

    /// Asks the worker to stop and waits until it has: the batch at hand is committed or rolled back as a whole.
    ///
    /// # Errors
    /// Why it had stopped before, if it failed.
    pub async fn stop(&self) -> Result<(), Error> {
        self.shutdown.cancel();
        self.stopped().await
    }

    /// Whether it is to leave most of the time to others from now on.
    pub(super) fn make_way(&self, way: bool) {
        self.board.yielding().give(way);
    }

    /// For how long it did.
    pub(super) fn made_way(&self) -> Duration {
        self.board.yielding().given()
    }

    /// Waits for progress; false when it did not come in time.
    async fn wait_until(
        &self,
        within: Duration,
        reached: impl Fn(&[PartitionProgress]) -> bool,
    ) -> Result<bool, Error> {
        let mut receiver = self.board.subscribe();
        let waited = receiver.wait_for(|notice| reached(notice.progress()) || notice.stop().is_some());
        let asking = async {
            loop {
                self.board.ask();
                tokio::time::sleep(ASK).await;
            }
        };
        let waited = async {
            tokio::select! {
                biased;
                notice = waited => notice,
                never = asking => never,
            }
        };
        let in_time = match tokio::time::timeout(within, waited).await {
            Ok(notice) => notice.is_ok_and(|notice| reached(notice.progress())),
            Err(_) => return Ok(false),
        };
        if in_time { Ok(true) } else { Err(self.stopped_error()) }
    }

    fn late(&self, position: Position, next: u64, within: Duration) -> Error {
        Error::Deadline { projection: self.board.projection().clone(), position, next, within }
    }

    fn stopped_error(&self) -> Error {
        let source = self.board.read(|notice| notice.stop().cloned()).flatten();
        Error::Stopped { projection: self.board.projection().clone(), source }
    }
}
