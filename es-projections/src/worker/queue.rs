//! What was read and waits to be committed: bounded, so that a slow database slows the readers.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use es_core::{Checkpoint, Recorded};
use tokio::sync::Notify;

use crate::projection::RefusedCommand;

/// The most that one transaction, and so the queue, holds.
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
    /// The end of each command.
    pub(super) ends: Vec<End>,
    pub(super) quarantined: Vec<Quarantined>,
    pub(super) refused: Vec<RefusedCommand>,
    pub(super) void: u64,
    /// Roughly, of events and quarantined records.
    pub(super) bytes: usize,
}

/// The end of a command in a chunk: what is before it, and the checkpoint behind.
#[derive(Debug)]
pub(super) struct End {
    pub(super) events: usize,
    pub(super) quarantined: usize,
    pub(super) refused: usize,
    pub(super) void: u64,
    pub(super) to: Checkpoint,
}

/// Chunks of all partitions.
#[derive(Debug)]
pub(super) struct Queue {
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

impl Queue {
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
        let (events, ends, quarantined, refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { place, from, to, read, since: None, events, ends, quarantined, refused, void: 0, bytes: 0 }
    }

    /// Notes that a command ends here.
    pub(super) fn ends_here(&mut self, to: Checkpoint) {
        let (events, quarantined, refused) = (self.events.len(), self.quarantined.len(), self.refused.len());
        self.ends.push(End { events, quarantined, refused, void: self.void, to });
    }

    /// A chunk for each command; what follows the last one goes with it.
    pub(super) fn into_commands(mut self) -> Vec<Chunk> {
        let mut commands = Vec::with_capacity(self.ends.len().max(1));
        while let [.., before, _] = self.ends.as_slice() {
            let (events, quarantined, refused, void) = (before.events, before.quarantined, before.refused, before.void);
            let mut last = Chunk::at(self.place, before.to.clone());
            last.read = std::mem::replace(&mut self.read, last.from);
            last.to = std::mem::replace(&mut self.to, last.to);
            last.events = self.events.split_off(events);
            last.quarantined = self.quarantined.split_off(quarantined);
            last.refused = self.refused.split_off(refused);
            last.void = std::mem::replace(&mut self.void, void) - void;
            last.ends.extend(self.ends.pop().map(|end| End {
                events: end.events - events,
                quarantined: end.quarantined - quarantined,
                refused: end.refused - refused,
                void: end.void - void,
                to: end.to,
            }));
            commands.push(last);
        }
        commands.push(self);
        commands.reverse();
        commands
    }

    /// What counts against the limit of events.
    pub(super) fn weight(&self) -> usize {
        self.events.len() + self.quarantined.len() + self.refused.len()
    }

    /// Whether the database must know of it.
    pub(super) fn moves(&self) -> bool {
        self.to.next != self.from || self.void > 0 || !self.quarantined.is_empty()
    }

    pub(super) fn extend(&mut self, mut next: Chunk) {
        let (events, quarantined, refused) = (self.events.len(), self.quarantined.len(), self.refused.len());
        let void = self.void;
        self.ends.extend(next.ends.into_iter().map(|end| End {
            events: events + end.events,
            quarantined: quarantined + end.quarantined,
            refused: refused + end.refused,
            void: void + end.void,
            to: end.to,
        }));
        self.to = next.to;
        self.read = next.read;
        self.since = self.since.or(next.since);
        self.events.append(&mut next.events);
        self.quarantined.append(&mut next.quarantined);
        self.refused.append(&mut next.refused);
        self.void += next.void;
        self.bytes += next.bytes;
    }
}

/// A record on an events topic that is not an event of ours.
#[derive(Debug, Clone)]
pub(super) struct Quarantined {
    pub(super) offset: u64,
    pub(super) reason: String,
    pub(super) timestamp_ms: i64,
    pub(super) key: Bytes,
    pub(super) value: Bytes,
}

impl Quarantined {
    /// When the record's writer says that it was written, where a database can hold that.
    pub(super) fn recorded_at(&self) -> Option<DateTime<Utc>> {
        const YEAR_9999_MS: i64 = 253_402_300_799_999;
        let plausible = (0..=YEAR_9999_MS).contains(&self.timestamp_ms);
        plausible.then(|| DateTime::from_timestamp_millis(self.timestamp_ms)).flatten()
    }
}

/// The start of what may be long.
pub(super) fn start_of(bytes: &Bytes) -> Vec<u8> {
    const START: usize = 256;
    bytes[..bytes.len().min(START)].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(next: u64) -> Checkpoint {
        Checkpoint { next, ..Checkpoint::default() }
    }

    /// Shows: the commands of a chunk, put together again, are the chunk, wherever they are cut, and each begins where the one before ends.
    #[test]
    fn a_chunk_is_its_commands() {
        let mut chunk = Chunk::at(3, checkpoint(10));
        for (next, void) in [(12, 1), (13, 0), (17, 2)] {
            chunk.void += void;
            chunk.ends_here(checkpoint(next));
        }
        (chunk.to, chunk.read, chunk.void) = (checkpoint(18), 20, 4);
        let commands = chunk.into_commands();
        let told = commands.iter().map(|one| (one.from, one.to.next, one.read, one.void));
        assert_eq!(told.collect::<Vec<_>>(), [(10, 12, 12, 1), (12, 13, 13, 0), (13, 18, 20, 3)]);
        assert!(commands.iter().all(|command| command.ends.len() == 1));
        let whole = commands.into_iter().reduce(|mut whole, next| {
            whole.extend(next);
            whole
        });
        let whole = whole.expect("there are commands");
        assert_eq!((whole.from, whole.to.next, whole.read, whole.void), (10, 18, 20, 4));
        let ends = whole.ends.iter().map(|end| (end.to.next, end.void));
        assert_eq!(ends.collect::<Vec<_>>(), [(12, 1), (13, 1), (17, 3)]);
    }
}
