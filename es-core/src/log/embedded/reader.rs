//! Reads partitions in turn; waits at the end.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::store::{Log, Store, Topic};
use super::unavailable;
use crate::log::{Batch, LogError, LogErrorKind, LogReader, StoredRecord};

pub(super) struct Reader {
    store: Arc<Store>,
    topic: Arc<Topic>,
    /// Partitions and where they go on; the one to look at next stands first.
    places: VecDeque<(u32, u64)>,
    /// The read under way, for the partition that stands last. Kept when the caller gives up, so that a caller who
    /// often does so gets on all the same.
    reading: Option<JoinHandle<Result<Vec<StoredRecord>, LogError>>>,
    changed: watch::Receiver<Log>,
}

impl Reader {
    pub(super) fn new(store: Arc<Store>, topic: Arc<Topic>, from: &[(u32, u64)]) -> Result<Self, LogError> {
        for (partition, offset) in from {
            let end = topic.end(*partition)?;
            if *offset > end {
                let place = format!("{}/{partition} from offset {offset}", topic.name());
                return Err(LogError::new(LogErrorKind::Lost, format!("reading {place} failed: it ends at {end}")));
            }
        }
        let changed = topic.subscribe();
        Ok(Self { store, topic, places: from.iter().copied().collect(), reading: None, changed })
    }

    /// Starts reading the next partition that has something. The log is on disk: that takes a thread that may block.
    fn start(&mut self) -> Result<bool, LogError> {
        for _ in 0..self.places.len() {
            let (partition, from) = self.places[0];
            self.places.rotate_left(1);
            let end = self.topic.end(partition)?;
            if from < end {
                let (store, topic) = (self.store.clone(), self.topic.clone());
                self.reading = Some(tokio::task::spawn_blocking(move || store.read(&topic, partition, from, end)));
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            if let Some(reading) = &mut self.reading {
                let read = reading.await;
                self.reading = None;
                let records = read.map_err(|error| unavailable("reading the log was cut off").with_source(error))??;
                let (partition, next) = self.places.back_mut().expect("the place that is being read");
                *next += records.len() as u64;
                return Ok(Batch { partition: *partition, records, next: *next });
            }
            let log = *self.changed.borrow_and_update(); // before the look, so that no change in between is missed
            if self.start()? {
                continue;
            }
            if log == Log::Closed {
                return Err(unavailable(format!("reading topic {} failed: the log was closed", self.topic.name())));
            }
            self.changed.changed().await.expect("the topic is held here, and with it the sender");
        }
    }
}
