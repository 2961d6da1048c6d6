//! What others see of a worker: where it is, and how it is doing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use es_core::{Checkpoint, Position};
use tokio::sync::{Notify, watch};

use crate::checkpoint::{Place, Saved, Standing};
use crate::error::Error;

/// How a worker is doing.
#[derive(Debug, Clone)]
pub enum WorkerState {
    /// It works, or waits for events.
    Running,
    /// Something failed; it tries again, and no event is skipped.
    Retrying {
        /// The last failure.
        error: Arc<Error>,
        /// Since when it fails.
        since: DateTime<Utc>,
        /// How often it failed since then.
        attempts: u32,
    },
    /// Another worker, mostly of another process, took the fence and does the work: see
    /// [`Worker::stand_by`](super::Worker::stand_by).
    StandingBy {
        /// That worker.
        holder: Arc<str>,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It does nothing any more.
    Stopped {
        /// Why, unless it was asked to.
        error: Option<Arc<Error>>,
    },
}

/// In a few words, the causes of an error not among them.
impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Retrying { error, attempts, .. } => write!(f, "trying again after {attempts} failures: {error}"),
            Self::StandingBy { holder, .. } => write!(f, "standing by: fence taken by {holder}"),
            Self::Stopped { error: None } => f.write_str("stopped"),
            Self::Stopped { error: Some(error) } => write!(f, "stopped: {error}"),
        }
    }
}

/// How a worker is doing, and how far it is.
#[derive(Debug, Clone)]
pub struct Status {
    /// How it is doing.
    pub state: WorkerState,
    /// The number of records that it has not handled yet; none when the log can't be asked.
    pub lag: Option<u64>,
    /// The number of aggregates whose events wait: see [`Database::parked`](crate::Database::parked).
    pub parked: usize,
}

/// How far a worker is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The aggregate type's stored name.
    pub category: Arc<str>,
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset to go on from: everything before is in the read model.
    pub next: u64,
    /// The offset up to which it has read: further than `next` while a command is not complete.
    pub read: u64,
    /// The checkpoint behind `next`: whoever reads the log beside the worker may begin there.
    pub checkpoint: Checkpoint,
    /// Events folded in since the read model was begun.
    pub events: u64,
    /// Void records passed since then. Those inside a command that is not complete yet may be counted again after a
    /// restart, and so may quarantined ones.
    pub void: u64,
    /// Records quarantined since then, since they are not events of ours.
    pub quarantined: u64,
}

/// Progress and troubles of one worker, written by its tasks, read by its handles.
#[derive(Debug)]
pub(super) struct Board {
    projection: Arc<str>,
    places: Arc<[Place]>,
    sender: watch::Sender<Notice>,
    /// Somebody waits for progress: who only looks at what another worker commits looks sooner.
    asked: Notify,
}

/// What the board shows.
#[derive(Debug, Default)]
pub(super) struct Notice {
    progress: Vec<PartitionProgress>,
    troubles: BTreeMap<Origin, Trouble>,
    /// Who has the fence, and since when.
    standing_by: Option<(Arc<str>, DateTime<Utc>)>,
    /// How many aggregates are parked.
    parked: usize,
    stopped: Option<Option<Arc<Error>>>,
}

/// What of the worker is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The transaction.
    Commit,
    /// The reader of a source.
    Source(usize),
}

#[derive(Debug, Clone)]
struct Trouble {
    error: Arc<Error>,
    since: DateTime<Utc>,
    attempts: u32,
}

impl Board {
    pub(super) fn new(projection: Arc<str>, places: Arc<[Place]>, saved: &[Saved]) -> Self {
        let board = Self { projection, places, sender: watch::Sender::default(), asked: Notify::new() };
        board.reset(saved);
        board
    }

    pub(super) fn projection(&self) -> &Arc<str> {
        &self.projection
    }

    pub(super) fn places(&self) -> &Arc<[Place]> {
        &self.places
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Notice> {
        self.sender.subscribe()
    }

    pub(super) fn read<T>(&self, read: impl FnOnce(&Notice) -> T) -> T {
        read(&self.sender.borrow())
    }

    /// Index of the partition of a position.
    pub(super) fn place_of(&self, position: &Position) -> Option<usize> {
        let here = |place: &Place| place.category == position.category && place.partition == position.partition;
        self.places.iter().position(here)
    }

    /// Shows a worker that begins, or begins anew, at what is saved.
    pub(super) fn reset(&self, saved: &[Saved]) {
        let progress = self.progress_of(saved);
        self.sender.send_modify(|notice| {
            notice.progress = progress;
            notice.troubles.clear();
            notice.standing_by = None;
        });
    }

    /// Shows what another worker saved.
    pub(super) fn stands_by(&self, standing: &Standing) {
        let mut progress = self.progress_of(&standing.saved);
        let holder = standing.holder.clone().unwrap_or_else(|| "a worker that has stopped".into());
        self.sender.send_modify(|notice| {
            for (at, before) in progress.iter_mut().zip(&notice.progress) {
                if at.next == before.next {
                    at.read = before.read;
                }
            }
            notice.progress = progress;
            notice.troubles.clear();
            let since = notice.standing_by.take().map_or_else(Utc::now, |(_, since)| since);
            notice.standing_by = Some((holder, since));
        });
    }

    fn progress_of(&self, saved: &[Saved]) -> Vec<PartitionProgress> {
        let progress = self.places.iter().zip(saved).map(|(place, saved)| PartitionProgress {
            category: place.category.clone(),
            topic: place.topic.clone(),
            partition: place.partition,
            next: saved.checkpoint.next,
            read: saved.checkpoint.next,
            checkpoint: saved.checkpoint.clone(),
            events: saved.events,
            void: saved.void,
            quarantined: saved.quarantined,
        });
        progress.collect()
    }

    /// Says that somebody waits for progress.
    pub(super) fn ask(&self) {
        self.asked.notify_one();
    }

    /// Waits until somebody waits for progress.
    pub(super) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Shows that a place moved.
    pub(super) fn moved(&self, change: impl FnOnce(&mut [PartitionProgress])) {
        self.sender.send_modify(|notice| {
            change(&mut notice.progress);
            notice.troubles.remove(&Origin::Commit);
        });
    }

    /// Shows how many aggregates are parked.
    pub(super) fn parked(&self, parked: usize) {
        self.sender.send_if_modified(|notice| std::mem::replace(&mut notice.parked, parked) != parked);
    }

    pub(super) fn trouble(&self, origin: Origin, error: Arc<Error>) {
        self.sender.send_modify(|notice| {
            let new = Trouble { error: error.clone(), since: Utc::now(), attempts: 0 };
            let trouble = notice.troubles.entry(origin).or_insert(new);
            trouble.error = error;
            trouble.attempts += 1;
        });
    }

    pub(super) fn well(&self, origin: Origin) {
        self.sender.send_if_modified(|notice| notice.troubles.remove(&origin).is_some());
    }

    pub(super) fn stopped(&self, error: Option<Arc<Error>>) {
        self.sender.send_modify(|notice| notice.stopped = Some(error));
    }
}

impl Notice {
    pub(super) fn progress(&self) -> &[PartitionProgress] {
        &self.progress
    }

    pub(super) fn parked(&self) -> usize {
        self.parked
    }

    pub(super) fn is_standing_by(&self) -> bool {
        self.standing_by.is_some()
    }

    /// Whether the worker stopped, and why.
    pub(super) fn stop(&self) -> Option<&Option<Arc<Error>>> {
        self.stopped.as_ref()
    }

    pub(super) fn state(&self) -> WorkerState {
        if let Some(error) = &self.stopped {
            return WorkerState::Stopped { error: error.clone() };
        }
        if let Some(Trouble { error, since, attempts }) = self.troubles.values().next().cloned() {
            return WorkerState::Retrying { error, since, attempts };
        }
        match self.standing_by.clone() {
            Some((holder, since)) => WorkerState::StandingBy { holder, since },
            None => WorkerState::Running,
        }
    }
}
