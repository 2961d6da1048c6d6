//! How far a projection is behind the log, in records and in time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

/// How far a projection is behind the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lag {
    /// Of each partition that it reads.
    pub partitions: Vec<PartitionLag>,
}

/// How far a projection is behind the log in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionLag {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// How many records it has not handled yet.
    pub records: u64,
    /// For how long the first event among them has been recorded, by the clocks of who recorded it and of this process. Where
    /// that event was not read yet, or another worker holds the partition: for how long its handles have been asked for the lag
    /// without that a record was handled. Zero where there are none.
    pub time: Duration,
}

impl Lag {
    /// How many records it has not handled yet.
    pub fn records(&self) -> u64 {
        self.partitions.iter().map(|at| at.records).sum()
    }

    /// The partition in which it is furthest behind in time, if it is behind.
    pub fn longest(&self) -> Option<&PartitionLag> {
        self.partitions.iter().filter(|at| at.records > 0).max_by_key(|at| at.time)
    }
}

/// What was read of each place and is not in the read model yet.
#[derive(Debug)]
pub(super) struct Backlog(Vec<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    /// The offsets up to which was read, each with the time of the first event before it.
    read: VecDeque<(u64, DateTime<Utc>)>,
    /// Where the place stood when the log was seen to have more, and when that was.
    stood: Option<(u64, Instant)>,
}

impl Backlog {
    pub(super) fn new(places: usize) -> Self {
        Self((0..places).map(|_| Mutex::default()).collect())
    }

    /// Notes that events were read, up to an offset, the first of which was recorded then.
    pub(super) fn read(&self, place: usize, up_to: u64, first: DateTime<Utc>) {
        self.lock(place).read.push_back((up_to, first));
    }

    /// Notes that everything up to an offset is in the read model.
    pub(super) fn handled(&self, place: usize, up_to: u64) {
        let mut waiting = self.lock(place);
        let handled = waiting.read.partition_point(|(read, _)| *read <= up_to);
        waiting.read.drain(..handled);
    }

    /// Forgets what was read: it is read again.
    pub(super) fn clear(&self) {
        (0..self.0.len()).for_each(|place| self.lock(place).read.clear());
    }

    /// How long the first event has waited, where a place stands at `at` and the log ends at `end`.
    pub(super) fn age(&self, place: usize, at: u64, end: u64) -> Duration {
        let mut waiting = self.lock(place);
        // A reader that was about to be stopped may have noted something behind the others' backs.
        waiting.read.retain(|(read, _)| *read > at);
        if at >= end {
            waiting.stood = None;
            return Duration::ZERO;
        }
        let now = Instant::now();
        let since = match waiting.stood {
            Some((stood, since)) if stood == at => since,
            _ => now,
        };
        waiting.stood = Some((at, since));
        // Clocks of several machines are not quite the same: an event of the future has not waited at all.
        let recorded = waiting.read.front().and_then(|(_, first)| (Utc::now() - *first).to_std().ok());
        recorded.unwrap_or_default().max(now - since)
    }

    fn lock(&self, place: usize) -> MutexGuard<'_, Waiting> {
        // Whole even after a panic: nothing between lock and unlock panics half way through a change.
        self.0[place].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_as_old_as_its_first_event() {
        let backlog = Backlog::new(1);
        let ago = |seconds| Utc::now() - TimeDelta::seconds(seconds);
        backlog.read(0, 5, ago(60));
        backlog.read(0, 9, ago(20));
        let seconds = |at, end| backlog.age(0, at, end).as_secs();
        assert_eq!(seconds(0, 9), 60);
        backlog.handled(0, 4);
        assert_eq!(seconds(0, 9), 60, "not all of it is handled");
        backlog.handled(0, 5);
        assert_eq!(seconds(5, 9), 20);
        backlog.handled(0, 9);
        assert_eq!(seconds(9, 9), 0);
        backlog.read(0, 12, ago(-30));
        assert_eq!(seconds(9, 12), 0, "recorded by a clock that is ahead");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_read_is_as_old_as_it_is_known() {
        let backlog = Backlog::new(1);
        let seconds = |at, end| backlog.age(0, at, end).as_secs();
        assert_eq!(seconds(3, 5), 0);
        tokio::time::advance(Duration::from_secs(7)).await;
        assert_eq!(seconds(3, 6), 7);
        assert_eq!(seconds(4, 6), 0, "it moved");
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(seconds(4, 6), 2);
        assert_eq!(seconds(6, 6), 0);
        assert_eq!(seconds(6, 7), 0);
    }
}
