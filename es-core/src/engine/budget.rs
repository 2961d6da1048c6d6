//! How many bytes of commands may be in memory at once, in the whole process.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a command takes beside its payload, about.
const OVERHEAD: usize = 512;

/// Bytes for commands that wait for an answer.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    max: u32,
    /// Of these, what commands of the topics may take: a flood there leaves some for those that are sent here.
    topics: Arc<Semaphore>,
    topics_max: u32,
}

/// A command's bytes; they are given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    _bytes: OwnedSemaphorePermit,
    _topics: Option<OwnedSemaphorePermit>,
}

impl Budget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        let max = u32::try_from(max_bytes).unwrap_or(u32::MAX).max(1);
        let topics_max = (max - max / 4).max(1);
        let semaphore = |permits: u32| Arc::new(Semaphore::new(permits as usize));
        Self { bytes: semaphore(max), max, topics: semaphore(topics_max), topics_max }
    }

    /// `None` where there is no room.
    pub(crate) fn try_hold(&self, payload_bytes: usize) -> Option<Held> {
        let bytes = self.bytes.clone().try_acquire_many_owned(permits(payload_bytes, self.max));
        Some(Held { _bytes: bytes.ok()?, _topics: None })
    }

    /// Waits until there is room for a command of a topic.
    pub(crate) async fn hold(&self, payload_bytes: usize) -> Held {
        const OPEN: &str = "it is never closed";
        let topics = self.topics.clone().acquire_many_owned(permits(payload_bytes, self.topics_max)).await.expect(OPEN);
        let bytes = self.bytes.clone().acquire_many_owned(permits(payload_bytes, self.max)).await.expect(OPEN);
        Held { _bytes: bytes, _topics: Some(topics) }
    }
}

/// One that is larger than all there is passes when it is alone.
fn permits(payload_bytes: usize, max: u32) -> u32 {
    u32::try_from(payload_bytes.saturating_add(OVERHEAD)).unwrap_or(u32::MAX).min(max)
}
