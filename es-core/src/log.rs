//! The log: what the engine asks of it, and the implementations in this crate.
//!
//! The trait is narrow on purpose: claims, validity and continuity are built on top of it once, so that they are
//! the same on every log. [`memory::MemoryLog`] is the reference, short enough to read before writing another.

pub mod embedded;
pub mod group;
pub(crate) mod limits;
pub mod memory;
pub(crate) mod partition;
pub(crate) mod reader;
pub mod record;
pub(crate) mod scan;
pub mod validity;

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

use crate::domain::error::Cause;

/// A record as it is appended: Kafka's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The key; unique, save for tombstones.
    pub key: Bytes,
    /// The value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Name and value of each header, in order.
    pub headers: Vec<(Cow<'static, str>, Bytes)>,
    /// Milliseconds since 1970, set by the writer.
    pub timestamp_ms: i64,
}

impl Record {
    /// The value of the first header with this name.
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The bytes of key, value and headers together.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len) + headers
    }
}

/// A record with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRecord {
    /// The offset in its partition.
    pub offset: u64,
    /// The record.
    pub record: Record,
}

/// Records of one partition in offset order, and where it goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The partition.
    pub partition: u32,
    /// The records; empty where only offsets without a record were passed.
    pub records: Vec<StoredRecord>,
    /// The offset to go on from: at least one past the last record. It may be further, since offsets may have no
    /// record (compacted away, or a marker of a foreign transaction).
    pub next: u64,
}

/// A topic that must be there before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSpec {
    /// Its full name, for example `bank.account.events`.
    pub name: String,
    /// What it holds, which decides how it is made and verified.
    pub kind: TopicKind,
}

/// What a topic holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TopicKind {
    /// Every event for ever, claims and answers: compacted, never shortened.
    Events,
    /// Commands on their way to an owner; none may be there for longer than command ids are remembered.
    Commands {
        /// How long they are kept at least, in milliseconds.
        kept_ms: u64,
        /// How long command ids are remembered, in milliseconds.
        remembered_ms: u64,
    },
    /// Answers on their way back; deleted after an hour.
    Replies,
    /// States, checkpoints and command ids, made of the events: compacted, never shortened otherwise.
    Snapshots,
    /// Hashes and signatures of the events: neither compacted nor shortened.
    Seals,
}

/// A log of topics with partitions.
#[async_trait]
pub trait Log: fmt::Debug + Send + Sync + 'static {
    /// Makes the topic where it is missing, verifies it where it is there, and tells its number of partitions.
    ///
    /// # Errors
    /// [`LogErrorKind::Settings`] for a topic that could lose history, naming setting, value and remedy.
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError>;

    /// Opens a partition for writing. Several writers may be open; nothing here keeps them apart.
    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError>;

    /// Reads from the given offset of each given partition on. Records of aborted foreign transactions may be among them.
    ///
    /// # Errors
    /// [`LogErrorKind::Lost`] when an offset is outside the partition's bounds, now or while reading.
    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError>;

    /// The first record at one of these offsets; `None` where there is none any more. Waits until the log is that long. For
    /// a glance: a [`reader`](Self::reader) goes on.
    ///
    /// # Errors
    /// As [`reader`](Self::reader) and [`LogReader::next`].
    async fn first_record(
        &self,
        topic: &str,
        partition: u32,
        offsets: Range<u64>,
    ) -> Result<Option<StoredRecord>, LogError> {
        self.reader(topic, &[(partition, offsets.start)]).await?.first_before(offsets.end).await
    }

    /// The first offset and the one after the last.
    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError>;

    /// The largest record that can be appended, in bytes as [`Record::size`] counts them.
    fn record_max_bytes(&self) -> usize;

    /// Whether snapshots in the log are of use: a process may start without the local state of the one before it.
    fn keeps_snapshots(&self) -> bool {
        true
    }
}

/// Appends to one partition, in order.
#[async_trait]
pub trait LogWriter: Send {
    /// Appends the records in this order and tells the offset of each, once they are durable.
    ///
    /// After an error the writer must not be used again: the caller drops it, which never waits.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the outcome unknown.
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError>;
}

/// Reads partitions of one topic.
#[async_trait]
pub trait LogReader: Send {
    /// The next records of some partition; waits until there are any.
    ///
    /// # Cancel safety
    /// Cancel safe: what was read is kept.
    async fn next(&mut self) -> Result<Batch, LogError>;

    /// The first record of the only partition that is read, if it comes before this offset; waits until the log is that
    /// long.
    async fn first_before(&mut self, end: u64) -> Result<Option<StoredRecord>, LogError> {
        loop {
            let batch = self.next().await?;
            if let Some(first) = batch.records.into_iter().next() {
                return Ok((first.offset < end).then_some(first));
            }
            if batch.next >= end {
                return Ok(None);
            }
        }
    }
}

/// What became of an append that was not proven.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// None of the records is in the log, nor will be.
    #[error("the log refused the records")]
    Refused(#[source] LogError),
    /// Some, all or none of the records are in the log, or will be later.
    #[error("whether the log took the records is unknown")]
    Unknown(#[source] LogError),
}

/// What the caller does about a [`LogError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogErrorKind {
    /// Try again later: the log can't be reached or has no room.
    Unavailable,
    /// Fix the settings: the topic, the folder or the configuration is not fit for use.
    Settings,
    /// Give up: the log lost records, or holds what can't be read.
    Lost,
}

/// A failure of the log.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct LogError {
    kind: LogErrorKind,
    message: String,
    #[source]
    source: Option<Cause>,
}

impl LogError {
    /// An error of this kind; the message says verb, object and values.
    pub fn new(kind: LogErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Cause>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What to do about it.
    pub fn kind(&self) -> LogErrorKind {
        self.kind
    }

    /// Whether trying again later may help.
    pub fn is_retryable(&self) -> bool {
        self.kind == LogErrorKind::Unavailable
    }
}
