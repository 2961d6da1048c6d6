//! What others see of a worker: where it is, and how it is doing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use es_core::{Checkpoint, Position, StreamId, partition_of, with_causes};
use tokio::sync::{Notify, watch};

use super::lag::{Backlog, Lag};
use super::time::Time;
use super::yielding::Yielding;
use crate::checkpoint::Saved;
use crate::error::Error;
use crate::place::Place;

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
    /// Other workers, mostly of other processes, hold all partitions: see [`Worker::share`](super::Worker::share). It
    /// shows what they commit, and takes its share as soon as there is one.
    StandingBy {
        /// Why it holds none.
        why: StandsBy,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// It does nothing any more.
    Stopped {
        /// Why, unless it was asked to.
        error: Option<Arc<Error>>,
    },
}

/// Why a worker holds no partition.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum StandsBy {
    /// Others hold them for now: one that does not share them, a rebuild, or those that give some back in a moment.
    Others {
        /// One of them.
        holder: Arc<str>,
    },
    /// There are more workers than partitions: another one's end would give it something to do.
    Spare {
        /// How many workers there are.
        workers: usize,
        /// How many partitions there are.
        partitions: usize,
    },
    /// The read model was replaced by one of another version of the projection, as a new release does: see
    /// [`Worker::deploy`](super::Worker::deploy). Its own workers fold the events in; this one goes on if its version is live again.
    OtherVersion {
        /// The version that is live.
        version: u32,
    },
}

impl fmt::Display for StandsBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Others { holder } => write!(f, "its partitions are held by {holder}"),
            Self::Spare { workers, partitions } => {
                write!(f, "there are more workers ({workers}) than partitions ({partitions})")
            }
            Self::OtherVersion { version } => write!(f, "the read model is of version {version} now"),
        }
    }
}

/// In a few words, an error with its causes.
impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("running"),
            Self::Retrying { error, attempts, .. } => {
                write!(f, "trying again after {attempts} failures: {}", with_causes(error))
            }
            Self::StandingBy { why, .. } => write!(f, "standing by: {why}"),
            Self::Stopped { error: None } => f.write_str("stopped"),
            Self::Stopped { error: Some(error) } => write!(f, "stopped: {}", with_causes(error)),
        }
    }
}

/// How a worker is doing, and how far it is.
#[derive(Debug, Clone)]
pub struct Status {
    /// How it is doing.
    pub state: WorkerState,
    /// How far it is behind the log; none when the log can't be asked.
    pub lag: Option<Lag>,
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
    /// Whether this worker folds it in; else another one does, or one will in a moment.
    pub held: bool,
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
    backlog: Backlog,
    yielding: Yielding,
    /// Somebody waits for progress: what other workers commit is looked at sooner.
    asked: Notify,
    /// How many batches were committed.
    settled: AtomicU64,
    time: Time,
}

/// What the board shows.
#[derive(Debug, Default)]
pub(super) struct Notice {
    progress: Vec<PartitionProgress>,
    troubles: BTreeMap<Origin, Trouble>,
    /// Why it holds no place, and since when.
    standing_by: Option<(StandsBy, DateTime<Utc>)>,
    /// How many aggregates are parked at the places that it holds.
    parked: usize,
    /// The places of all that were parked when it was looked for those of others.
    parked_at: Vec<usize>,
    stopped: Option<Option<Arc<Error>>>,
}

/// What of the worker is in trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// The transaction.
    Commit,
    /// The projection, on the events of a batch: those that fail again and again are parked.
    Events,
    /// The look at the other workers.
    Heartbeat,
    /// The reader of a source.
    Source(usize),
}

#[derive(Debug, Clone)]
struct Trouble {
    error: Arc<Error>,
    since: DateTime<Utc>,
    /// The same by a clock that is not set.
    began: Duration,
    attempts: u32,
}

impl Board {
    pub(super) fn new(projection: Arc<str>, places: Arc<[Place]>, time: Time) -> Self {
        let backlog = Backlog::new(places.len());
        Self {
            projection,
            places,
            sender: watch::Sender::default(),
            backlog,
            yielding: Yielding::default(),
            asked: Notify::new(),
            settled: AtomicU64::new(0),
            time,
        }
    }

    pub(super) fn projection(&self) -> &Arc<str> {
        &self.projection
    }

    pub(super) fn time(&self) -> &Time {
        &self.time
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

    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    pub(super) fn yielding(&self) -> &Yielding {
        &self.yielding
    }

    /// Index of the partition of a position.
    pub(super) fn place_of(&self, position: &Position) -> Option<usize> {
        let here = |place: &Place| place.category == position.category && place.partition == position.partition;
        self.places.iter().position(here)
    }

    /// The place of an aggregate's events.
    pub(super) fn place_of_stream(&self, stream: &StreamId) -> Option<usize> {
        let of_type = |place: &&Place| place.category == stream.category;
        let partitions = self.places.iter().filter(of_type).count();
        let partition = (partitions > 0).then(|| partition_of(&stream.id, partitions as u32))?;
        let here = |place: &Place| place.category == stream.category && place.partition == partition;
        self.places.iter().position(here)
    }

    /// Shows a worker that begins, or begins anew, at what is saved, which places it holds, and how many aggregates are
    /// parked there.
    pub(super) fn reset(&self, saved: &[Saved], held: &[bool], parked: usize) {
        self.backlog.clear();
        let mut progress = self.progress_of(saved);
        for (at, held) in progress.iter_mut().zip(held) {
            at.held = *held;
        }
        self.sender.send_modify(|notice| {
            notice.progress = progress;
            notice.parked = parked;
            notice.troubles.retain(|origin, _| *origin == Origin::Heartbeat);
        });
    }

    /// Shows what is saved of the places that other workers hold.
    pub(super) fn others(&self, saved: &[Saved]) {
        let progress = self.progress_of(saved);
        self.sender.send_if_modified(|notice| {
            let others = notice.progress.iter_mut().zip(progress).filter(|(at, _)| !at.held);
            others.fold(false, |changed, (at, saved)| {
                // What this worker has read itself, of a command that is not complete, stays read.
                let read = if at.next == saved.next { at.read } else { saved.read };
                let saved = PartitionProgress { read, ..saved };
                let moved = *at != saved;
                *at = saved;
                changed || moved
            })
        });
    }

    /// Shows why it holds no place, if it holds none; true when that is news.
    pub(super) fn stands_by(&self, why: Option<StandsBy>) -> bool {
        let mut news = false;
        self.sender.send_if_modified(|notice| {
            let why = why.filter(|_| notice.progress.iter().all(|at| !at.held));
            let (before, since) = notice.standing_by.take().unzip();
            news = why != before;
            let since = since.unwrap_or_else(Utc::now);
            notice.standing_by = why.map(|why| (why, since));
            news
        });
        news
    }

    fn progress_of(&self, saved: &[Saved]) -> Vec<PartitionProgress> {
        let progress = self.places.iter().zip(saved).map(|(place, saved)| PartitionProgress {
            category: place.category.clone(),
            topic: place.topic.clone(),
            partition: place.partition,
            held: false,
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

    /// Waits until somebody waits for progress while other workers hold some of the places.
    pub(super) async fn asked_for_others(&self) {
        loop {
            self.asked.notified().await;
            if !self.holds_all() {
                return;
            }
        }
    }

    /// Whether it has anything to do.
    pub(super) fn holds_any(&self) -> bool {
        self.read(|notice| notice.progress.iter().any(|at| at.held))
    }

    /// Whether no other worker has anything to do.
    pub(super) fn holds_all(&self) -> bool {
        self.read(|notice| notice.progress.iter().all(|at| at.held))
    }

    /// Shows that places moved, and whether anything was committed.
    pub(super) fn moved(&self, committed: bool, change: impl FnOnce(&mut [PartitionProgress])) {
        self.settled.fetch_add(u64::from(committed), Ordering::Relaxed);
        self.sender.send_modify(|notice| {
            change(&mut notice.progress);
            if committed {
                notice.troubles.remove(&Origin::Commit);
                notice.troubles.remove(&Origin::Events);
            }
        });
    }

    /// How many batches were committed.
    pub(super) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Shows what is parked, wherever: of the places that other workers hold that is what counts.
    pub(super) fn all_parked(&self, streams: &[StreamId]) {
        let places: Vec<_> = streams.iter().filter_map(|stream| self.place_of_stream(stream)).collect();
        self.sender.send_if_modified(|notice| {
            let changed = notice.parked_at != places;
            notice.parked_at = places;
            changed
        });
    }

    /// For how long something of this has failed.
    pub(super) fn in_trouble_for(&self, of: impl Fn(Origin) -> bool) -> Duration {
        let now = self.time.now();
        self.read(|notice| {
            let troubles = notice.troubles.iter().filter(|(origin, _)| of(**origin));
            troubles.map(|(_, trouble)| now.saturating_sub(trouble.began)).max().unwrap_or_default()
        })
    }

    /// Shows how many aggregates are parked at the places that it holds.
    pub(super) fn parked(&self, parked: usize) {
        self.sender.send_if_modified(|notice| std::mem::replace(&mut notice.parked, parked) != parked);
    }

    pub(super) fn trouble(&self, origin: Origin, error: Arc<Error>) {
        self.sender.send_modify(|notice| {
            let new = Trouble { error: error.clone(), since: Utc::now(), began: self.time.now(), attempts: 0 };
            let trouble = notice.troubles.entry(origin).or_insert(new);
            trouble.error = error;
            trouble.attempts += 1;
            if origin == Origin::Events {
                notice.troubles.remove(&Origin::Commit); // the database did answer
            }
        });
    }

    pub(super) fn well(&self, origin: Origin) {
        self.sender.send_if_modified(|notice| notice.troubles.remove(&origin).is_some());
    }

    pub(super) fn stopped(&self, error: Option<Arc<Error>>) {
        self.sender.send_modify(|notice| {
            notice.progress.iter_mut().for_each(|at| at.held = false);
            notice.parked_at.clear(); // or what it held would be counted twice
            notice.stopped = Some(error);
        });
    }
}

impl Notice {
    pub(super) fn progress(&self) -> &[PartitionProgress] {
        &self.progress
    }

    /// How many aggregates are parked.
    pub(super) fn parked(&self) -> usize {
        self.parked + self.parked_at.iter().filter(|&&place| !self.progress[place].held).count()
    }

    /// Whether nothing of a place can be parked without this worker's knowledge, and nothing is.
    pub(super) fn is_sound(&self, place: usize) -> bool {
        self.progress[place].held && self.parked == 0
    }

    /// Whether the worker stopped, and why.
    pub(super) fn stop(&self) -> Option<&Option<Arc<Error>>> {
        self.stopped.as_ref()
    }

    pub(super) fn state(&self) -> WorkerState {
        if let Some(error) = &self.stopped {
            return WorkerState::Stopped { error: error.clone() };
        }
        if let Some(Trouble { error, since, attempts, .. }) = self.troubles.values().next().cloned() {
            return WorkerState::Retrying { error, since, attempts };
        }
        match self.standing_by.clone() {
            Some((why, since)) if self.progress.iter().all(|at| !at.held) => WorkerState::StandingBy { why, since },
            _ => WorkerState::Running,
        }
    }
}
