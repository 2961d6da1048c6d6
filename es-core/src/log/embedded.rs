//! The durable log in a folder of this machine: one process, no broker, every append on disk before it is answered.
//!
//! A thread of its own takes whatever appends are queued, of all partitions and topics, writes them as one batch and
//! syncs once, then answers each: group commit without a timer. Underneath is fjall, a log-structured key-value
//! store. `docs/formats.md` describes what is stored and why it is laid out so.
//!
//! After a failed write or sync nothing is ever acknowledged again: what the disk holds is only known after the log
//! is opened anew.

mod committer;
mod folder;
mod format;
mod journal;
mod reader;
mod store;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::oneshot;

use self::committer::{Append, Message};
use self::store::{Store, Topic};
use super::{AppendError, Log, LogError, LogErrorKind, LogReader, LogWriter, Record, TopicSpec};

/// How an [`EmbeddedLog`] is made and how much memory it takes: about `cache_bytes` + 5 × `write_buffer_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddedConfig {
    /// The number of partitions of each topic; fixed when the folder is made.
    pub partitions: u32,
    /// The largest record that can be appended, in bytes as [`Record::size`] counts them.
    pub record_max_bytes: usize,
    /// The cache for reading, in bytes.
    pub cache_bytes: u64,
    /// What is kept in memory before it is sorted to disk, in bytes. It is in the journal before.
    pub write_buffer_bytes: u64,
}

impl Default for EmbeddedConfig {
    /// 8 partitions, records up to 1 MB, 16 MiB for reading, 8 MiB for writing.
    fn default() -> Self {
        Self { partitions: 8, record_max_bytes: 1_000_000, cache_bytes: 16 << 20, write_buffer_bytes: 8 << 20 }
    }
}

/// A durable log in a folder. Clones share the log; dropping the last one closes it.
///
/// Writers and readers do not keep it open: once it is closed their calls fail. The folder is free for another
/// process when they are dropped too.
///
/// ```
/// # use bytes::Bytes;
/// # use es_core::log::{Log, LogReader, LogWriter, Record, TopicKind, TopicSpec};
/// # use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path().join("log");
/// let log = EmbeddedLog::open(&dir, EmbeddedConfig::default())?;
/// log.prepare(&TopicSpec { name: "bank.account.events".into(), kind: TopicKind::Events }).await?;
/// let mut writer = log.writer("bank.account.events", 3).await?;
/// let record = Record { key: Bytes::from("a"), value: None, headers: vec![], timestamp_ms: 0 };
/// assert_eq!(writer.append(vec![record]).await?, [0]);
/// assert_eq!(log.bounds("bank.account.events", 3).await?, 0..1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EmbeddedLog(Arc<Handle>);

struct Handle {
    store: Arc<Store>,
    record_max_bytes: usize,
    queue: mpsc::Sender<Message>,
    committer: Option<JoinHandle<()>>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EmbeddedLog({})", self.store.dir().display())
    }
}

impl EmbeddedLog {
    /// Opens the log in a folder, or makes it where the folder is missing or empty. Blocks: it reads what was
    /// written last, at most some 100 MB.
    ///
    /// What a power cut tore off at the end is dropped; it was never acknowledged.
    ///
    /// # Errors
    /// - [`LogErrorKind::Settings`] for a folder that is not ours, is of a newer release, or has another number of
    ///   partitions. Nothing in it is touched then.
    /// - [`LogErrorKind::Unavailable`] when another process has it open, or it can't be read.
    /// - [`LogErrorKind::Lost`] when it is damaged.
    pub fn open(dir: impl AsRef<Path>, config: EmbeddedConfig) -> Result<Self, LogError> {
        let store = Arc::new(Store::open(dir.as_ref(), &config)?);
        let (queue, appends) = mpsc::channel();
        let committer = committer::start(store.clone(), appends, config.write_buffer_bytes)?;
        let record_max_bytes = config.record_max_bytes;
        Ok(Self(Arc::new(Handle { store, record_max_bytes, queue, committer: Some(committer) })))
    }
}

impl Drop for Handle {
    /// Waits for the commit under way, which is short, so that the folder is free afterwards.
    fn drop(&mut self) {
        let _ = self.queue.send(Message::Stop); // fails when the committer is gone already
        if let Some(committer) = self.committer.take() {
            let _ = committer.join(); // its panic was answered to those who waited
        }
        self.store.close();
    }
}

#[async_trait]
impl Log for EmbeddedLog {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        let (store, topic) = (self.0.store.clone(), topic.clone());
        let prepared = tokio::task::spawn_blocking(move || store.prepare(&topic));
        prepared.await.map_err(|error| unavailable("preparing a topic was cut off").with_source(error))??;
        Ok(self.0.store.partitions())
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        let topic = self.0.store.topic(topic)?;
        topic.end(partition)?;
        let (queue, record_max_bytes) = (self.0.queue.clone(), self.0.record_max_bytes);
        Ok(Box::new(Writer { topic, partition, queue, record_max_bytes, doubtful: false }))
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(reader::Reader::new(self.0.store.clone(), self.0.store.topic(topic)?, from)?))
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        Ok(0..self.0.store.topic(topic)?.end(partition)?)
    }

    fn record_max_bytes(&self) -> usize {
        self.0.record_max_bytes
    }

    /// The one process that can open it has its local state on the same disk.
    fn keeps_snapshots(&self) -> bool {
        false
    }
}

struct Writer {
    topic: Arc<Topic>,
    partition: u32,
    queue: mpsc::Sender<Message>,
    record_max_bytes: usize,
    /// An append is under way, or was given up, or failed.
    doubtful: bool,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        let place = || format!("{}/{}", self.topic.name(), self.partition);
        if std::mem::replace(&mut self.doubtful, true) {
            let message = format!("a writer of {} was used again after a failed append", place());
            return Err(AppendError::Refused(LogError::new(LogErrorKind::Settings, message)));
        }
        let limit = self.record_max_bytes;
        if let Some(size) = records.iter().map(Record::size).find(|size| *size > limit) {
            let message = format!("appending a record of {size} bytes to {}: at most {limit} are allowed", place());
            return Err(AppendError::Refused(LogError::new(LogErrorKind::Settings, message)));
        }
        let count = records.len() as u64;
        let values = records.iter().map(format::encode).collect();
        let (answer, answered) = oneshot::channel();
        let append = Append { topic: self.topic.clone(), partition: self.partition, values, answer };
        if self.queue.send(Message::Append(append)).is_err() {
            return Err(AppendError::Refused(closed(&place())));
        }
        let first = answered.await.unwrap_or_else(|_| Err(AppendError::Unknown(closed(&place()))))?;
        self.doubtful = false;
        Ok((first..first + count).collect())
    }
}

fn closed(place: &str) -> LogError {
    unavailable(format!("appending to {place} failed: the log was closed"))
}

fn unavailable(message: impl Into<String>) -> LogError {
    LogError::new(LogErrorKind::Unavailable, message)
}
