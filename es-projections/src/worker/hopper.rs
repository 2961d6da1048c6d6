//! What was read and waits to be committed: bounded, so that a slow database slows the readers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use es_core::{Checkpoint, Recorded};
use tokio::sync::Notify;

use super::read::Quarantined;

/// The most that one transaction, and so the hopper, holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: usize,
}

/// What was read of one partition: whole commands, and the checkpoint behind them.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Index into the worker's places.
    pub(super) place: usize,
    /// The checkpoint's offset before.
    pub(super) from: u64,
    /// The checkpoint behind.
    pub(super) to: Checkpoint,
    /// The offset up to which was read: further than the checkpoint while a command is not complete.
    pub(super) read: u64,
    /// When the first event of it was recorded.
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) events: Vec<Recorded>,
    pub(super) quarantined: Vec<Quarantined>,
    pub(super) void: u64,
    /// Roughly, of events and quarantined records.
    pub(super) bytes: usize,
}

/// Chunks of all partitions.
#[derive(Debug)]
pub(super) struct Hopper {
    limits: Limits,
    held: Mutex<Held>,
    /// One committer waits here.
    filled: Notify,
    /// The readers wait here.
    emptied: Notify,
}

#[derive(Debug, Default)]
struct Held {
    chunks: Vec<Chunk>,
    events: usize,
    bytes: usize,
}

impl Hopper {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, held: Mutex::default(), filled: Notify::new(), emptied: Notify::new() }
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds a chunk, once there is room for it.
    pub(super) async fn push(&self, chunk: Chunk) {
        let mut chunk = Some(chunk);
        loop {
            let emptied = self.emptied.notified(); // from here on nothing is missed
            if self.try_push(&mut chunk) {
                return self.filled.notify_one();
            }
            emptied.await;
        }
    }

    /// Takes all that is there, once there is anything.
    ///
    /// # Cancel safety
    /// Cancel safe: nothing is taken before it returns.
    pub(super) async fn take(&self) -> Vec<Chunk> {
        loop {
            let held = std::mem::take(&mut *self.lock());
            if !held.chunks.is_empty() {
                self.emptied.notify_waiters();
                let mut chunks = held.chunks;
                // Workers that write the same tables touch partitions in one order, so that they don't wait in circles.
                chunks.sort_unstable_by_key(|chunk| chunk.place);
                return chunks;
            }
            self.filled.notified().await;
        }
    }

    fn try_push(&self, waiting: &mut Option<Chunk>) -> bool {
        let mut held = self.lock();
        let Some(chunk) = waiting.as_ref() else { return true };
        let fits = held.events + chunk.weight() <= self.limits.events && held.bytes + chunk.bytes <= self.limits.bytes;
        // A command larger than the limits goes alone.
        if !fits && !held.chunks.is_empty() {
            return false;
        }
        let Some(chunk) = waiting.take() else { return true };
        held.events += chunk.weight();
        held.bytes += chunk.bytes;
        match held.chunks.iter_mut().find(|other| other.place == chunk.place) {
            Some(before) => before.extend(chunk),
            None => held.chunks.push(chunk),
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // Whole even after a panic: nothing between lock and unlock panics half way through a change.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunk {
    /// An empty chunk at a checkpoint.
    pub(super) fn at(place: usize, to: Checkpoint) -> Self {
        let (from, read) = (to.next, to.next);
        Self { place, from, to, read, since: None, events: Vec::new(), quarantined: Vec::new(), void: 0, bytes: 0 }
    }

    /// What counts against the limit of events.
    pub(super) fn weight(&self) -> usize {
        self.events.len() + self.quarantined.len()
    }

    /// Whether the database must know of it.
    pub(super) fn moves(&self) -> bool {
        self.to.next != self.from || self.void > 0 || !self.quarantined.is_empty()
    }

    fn extend(&mut self, mut next: Chunk) {
        self.to = next.to;
        self.read = next.read;
        self.since = self.since.or(next.since);
        self.events.append(&mut next.events);
        self.quarantined.append(&mut next.quarantined);
        self.void += next.void;
        self.bytes += next.bytes;
    }
}
