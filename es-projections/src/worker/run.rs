//! The worker's task: one transaction after the other, each of rows and checkpoints.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use es_core::log::LogError;
use es_core::{Cause, Recorded};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::hopper::{Chunk, Hopper};
use super::quarantine;
use super::read::{PAUSE_MAX, SourceReader};
use super::state::{Board, Origin};
use crate::checkpoint::{Ledger, Move, Saved};
use crate::error::Error;
use crate::projection::Projection;

/// The longest that one attempt at a batch may take: a statement on a dead connection would wait for minutes.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// How long an attempt may go on after the worker was asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long giving the fence back may take: without, those that stand by wait longer, and that is all.
const RELEASE_MAX: Duration = Duration::from_secs(2);

/// A worker at work.
pub(super) struct Run {
    pub(super) worker: Worker,
    pub(super) projection: Arc<dyn Projection>,
    pub(super) ledger: Ledger,
    pub(super) board: Arc<Board>,
    pub(super) shutdown: CancellationToken,
}

/// What follows a batch.
pub(super) enum Next {
    /// The next one.
    Continue,
    /// Nothing: the worker was asked to stop.
    Stop,
    /// Reading again from these checkpoints: the database stands elsewhere than was believed.
    Rewind(Vec<Saved>),
}

impl Run {
    /// Works until it is asked to stop or can't go on, and shows how that ended. Never panics.
    pub(super) async fn finish(mut self, saved: Vec<Saved>) {
        let ended = AssertUnwindSafe(self.work(saved)).catch_unwind().await;
        let error = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => Some(self.failed("the worker itself".into(), panicked(&*panic))),
        };
        self.release().await;
        let projection = self.board.projection();
        match &error {
            None => tracing::info!(%projection, "projection stopped"),
            Some(error) => tracing::error!(%projection, error = error as &dyn std::error::Error, "projection stopped"),
        }
        self.board.stopped(error.map(Arc::new));
    }

    async fn work(&mut self, mut saved: Vec<Saved>) -> Result<(), Error> {
        while let Next::Rewind(stored) = self.follow_or_stand_by(&saved).await? {
            if !self.verify_patiently(&stored).await? {
                break;
            }
            self.board.reset(&stored);
            saved = stored;
        }
        Ok(())
    }

    async fn follow_or_stand_by(&mut self, saved: &[Saved]) -> Result<Next, Error> {
        match (self.follow(saved).await, self.worker.stand_by) {
            (Err(error), Some(silence)) if error.is_fenced() => self.stand_by(silence).await,
            (followed, _) => followed,
        }
    }

    /// Gives the fence back, so that who stands by need not wait for silence.
    pub(super) async fn release(&self) {
        let released = tokio::time::timeout(RELEASE_MAX, self.ledger.release()).await;
        if let Ok(Err(error)) = released {
            let projection = self.board.projection();
            tracing::debug!(%projection, error = &error as &dyn std::error::Error, "giving the fence back failed");
        }
    }

    /// Compares checkpoints with the log, again and again while it can't be reached. False when asked to stop.
    async fn verify_patiently(&self, saved: &[Saved]) -> Result<bool, Error> {
        let mut pause = Pause::new("comparing checkpoints with the log");
        loop {
            match self.verify(saved).await {
                Err(error) if error.is_retryable() => {
                    let error = Arc::new(error);
                    self.board.trouble(Origin::Commit, error.clone());
                    let pause = pause.grow(self.board.projection(), &error);
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(false),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                verified => return verified.map(|()| true),
            }
        }
    }

    /// Reads on from the checkpoints and commits batch after batch.
    async fn follow(&mut self, saved: &[Saved]) -> Result<Next, Error> {
        let hopper = Arc::new(Hopper::new(self.worker.limits));
        let mut readers = self.spawn_readers(&hopper, saved); // aborted when this returns
        loop {
            let batch = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(Next::Stop),
                Some(ended) = readers.join_next() => return Err(match ended {
                    Ok(error) => self.log_error(error),
                    Err(panic) => self.failed("a reader".into(), panic.into()),
                }),
                batch = hopper.take() => batch,
            };
            match self.settle(Batch::new(batch)).await? {
                Next::Continue => {}
                end => return Ok(end),
            }
        }
    }

    fn spawn_readers(&self, hopper: &Arc<Hopper>, saved: &[Saved]) -> JoinSet<LogError> {
        let mut readers = JoinSet::new();
        let mut first_place = 0;
        for (index, source) in self.worker.sources.iter().enumerate() {
            let until = first_place + source.partitions as usize;
            let checkpoints = saved[first_place..until].iter().map(|saved| saved.checkpoint.clone()).collect();
            let reader = SourceReader {
                log: self.worker.log.clone(),
                source: source.clone(),
                index,
                first_place,
                hopper: hopper.clone(),
                board: self.board.clone(),
            };
            readers.spawn(reader.run(checkpoints));
            first_place = until;
        }
        readers
    }

    /// Tries until the batch is in the database, once.
    async fn settle(&mut self, batch: Batch) -> Result<Next, Error> {
        let mut pause = Pause::new("a batch");
        loop {
            let error = match self.attempt_or_stop(&batch).await {
                Some(Ok(true)) => return Ok(self.settled(&batch)),
                Some(Ok(false)) => None,
                Some(Err(error)) => Some(Arc::new(error)),
                None => return Ok(Next::Stop),
            };
            if let Some(error) = error {
                self.board.trouble(Origin::Commit, error.clone());
                let pause = pause.grow(self.board.projection(), &error);
                tokio::select! {
                    () = self.shutdown.cancelled() => return Ok(Next::Stop),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            // Whether a failed commit took place, and who else moved the checkpoint, is what the checkpoint says.
            match self.ledger.load().await {
                Ok(saved) if batch.is_in(&saved) => return Ok(self.settled(&batch)),
                Ok(saved) if batch.comes_next(&saved) => tokio::time::sleep(Pause::FIRST).await,
                Ok(saved) => {
                    tracing::warn!(projection = %self.board.projection(), "the database went back: reading again from there");
                    return Ok(Next::Rewind(saved));
                }
                Err(error) if error.is_fenced() => return Err(error),
                Err(_) => {} // tried again, and told, with the batch
            }
        }
    }

    /// One attempt; none when the worker was asked to stop and it did not end soon.
    async fn attempt_or_stop(&self, batch: &Batch) -> Option<Result<bool, Error>> {
        let attempt = tokio::time::timeout(ATTEMPT_MAX, self.attempt(batch));
        let stop = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            done = attempt => Some(done.unwrap_or_else(|_| {
                let cause = format!("it took longer than {ATTEMPT_MAX:?}");
                Err(self.failed(batch.describe(&self.board), cause.into()))
            })),
            () = stop => None,
        }
    }

    /// Rows and checkpoints in one transaction. False when a checkpoint does not stand where it should.
    async fn attempt(&self, batch: &Batch) -> Result<bool, Error> {
        if batch.moves.is_empty() {
            return Ok(true);
        }
        let mut tx = self.worker.database.begin().await?;
        if !self.ledger.advance(&mut tx, &batch.moves).await? {
            return tx.rollback().await.map(|()| false);
        }
        quarantine::insert(&mut tx, self.board.places(), &batch.chunks).await?;
        if !batch.events.is_empty() {
            let projected = AssertUnwindSafe(self.projection.project(&mut tx, &batch.events)).catch_unwind().await;
            projected
                .unwrap_or_else(|panic| Err(panicked(&*panic)))
                .map_err(|source| self.failed(batch.describe(&self.board), source))?;
        }
        tx.commit().await.map(|()| true)
    }

    fn settled(&self, batch: &Batch) -> Next {
        self.board.moved(|progress| {
            for chunk in &batch.chunks {
                let at = &mut progress[chunk.place];
                at.next = chunk.to.next;
                at.checkpoint = chunk.to.clone();
                at.read = chunk.read;
            }
            for step in &batch.moves {
                let at = &mut progress[step.place];
                at.events += step.events as u64;
                at.void += step.void;
                at.quarantined += step.quarantined as u64;
            }
        });
        Next::Continue
    }

    pub(super) fn log_error(&self, source: LogError) -> Error {
        Error::Log { projection: self.board.projection().clone(), source }
    }

    fn failed(&self, events: String, source: Cause) -> Error {
        Error::Projection { projection: self.board.projection().clone(), events, source }
    }
}

/// What goes into one transaction.
struct Batch {
    /// Of each place, without the events.
    chunks: Vec<Chunk>,
    moves: Vec<Move>,
    events: Vec<Recorded>,
}

impl Batch {
    fn new(mut chunks: Vec<Chunk>) -> Self {
        let mut moves = Vec::with_capacity(chunks.len());
        let mut events = Vec::new();
        for chunk in &mut chunks {
            if chunk.moves() {
                moves.push(Move {
                    place: chunk.place,
                    from: chunk.from,
                    to: chunk.to.clone(),
                    events: chunk.events.len(),
                    void: chunk.void,
                    quarantined: chunk.quarantined.len(),
                });
            }
            events.append(&mut chunk.events);
        }
        Self { chunks, moves, events }
    }

    fn is_in(&self, saved: &[Saved]) -> bool {
        // A batch of foreign and void records inside an incomplete command moves nothing: it comes again, which is harmless.
        let advances = self.moves.iter().any(|step| step.to.next != step.from);
        advances && self.moves.iter().all(|step| saved[step.place].checkpoint == step.to)
    }

    fn comes_next(&self, saved: &[Saved]) -> bool {
        self.moves.iter().all(|step| saved[step.place].checkpoint.next == step.from)
    }

    /// The events, for an error's message.
    fn describe(&self, board: &Board) -> String {
        let places = self.moves.iter().map(|step| {
            let place = &board.places()[step.place];
            format!("{}/{} offsets {} to {}", place.topic, place.partition, step.from, step.to.next)
        });
        let mut places: Vec<_> = places.take(4).collect();
        if self.moves.len() > places.len() {
            places.push(format!("{} more partitions", self.moves.len() - places.len()));
        }
        format!("{} events of {}", self.events.len(), places.join(", "))
    }
}

/// A panic's message.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Cause {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message")).into()
}

/// A pause that grows with each failure, with a line in the log each time it does.
pub(super) struct Pause {
    what: &'static str,
    next: Duration,
}

impl Pause {
    const FIRST: Duration = Duration::from_millis(50);

    pub(super) fn new(what: &'static str) -> Self {
        Self { what, next: Self::FIRST }
    }

    /// The pause after one more failure.
    pub(super) fn grow(&mut self, projection: &str, error: &Error) -> Duration {
        let pause = self.next;
        if pause < PAUSE_MAX {
            self.next = (pause * 2).min(PAUSE_MAX);
            tracing::warn!(
                projection,
                ?pause,
                error = error as &dyn std::error::Error,
                "{} failed, trying again",
                self.what
            );
        }
        pause
    }

    /// Begins anew after a success; tells whether there had been a failure.
    pub(super) fn reset(&mut self) -> bool {
        std::mem::replace(&mut self.next, Self::FIRST) != Self::FIRST
    }
}
