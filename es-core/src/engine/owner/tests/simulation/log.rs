//! The model log with a pause before and after everything, so that others run, and crashes fall, in between.

use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;

use crate::log::memory::MemoryLog;
use crate::log::{AppendError, Batch, Log, LogError, LogReader, LogWriter, Record, TopicSpec};

#[derive(Debug, Clone)]
pub(super) struct SimLog(pub(super) MemoryLog);

async fn pause() {
    super::yields(fastrand::usize(..4)).await;
}

/// Seldom, some time passes; sometimes too much for the deadline of an append.
async fn late() {
    if fastrand::u32(..40) == 0 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(..400))).await;
    }
}

#[async_trait]
impl Log for SimLog {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        pause().await;
        self.0.prepare(topic).await
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        pause().await;
        Ok(Box::new(SimWriter(self.0.writer(topic, partition).await?)))
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        pause().await;
        Ok(Box::new(SimReader(self.0.reader(topic, from).await?)))
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        pause().await;
        let bounds = self.0.bounds(topic, partition).await;
        pause().await;
        bounds
    }

    fn record_max_bytes(&self) -> usize {
        self.0.record_max_bytes()
    }
}

struct SimWriter(Box<dyn LogWriter>);

#[async_trait]
impl LogWriter for SimWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        pause().await;
        late().await;
        let reported = self.0.append(records).await;
        pause().await;
        late().await;
        reported
    }
}

struct SimReader(Box<dyn LogReader>);

#[async_trait]
impl LogReader for SimReader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        pause().await;
        self.0.next().await // and no pause after it: what was read would be lost with the future
    }
}
