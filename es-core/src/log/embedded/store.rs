//! What is in the folder, seen from above: topics, the ends of their partitions, and reading records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, config};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::folder::{self, Folder};
use super::format::{self, parse_record_key, record_key, segment_key};
use super::{EmbeddedConfig, journal, unavailable};
use crate::log::{LogError, LogErrorKind, StoredRecord, TopicKind, TopicSpec};

/// A reader's batch has at most this many records,
const BATCH_RECORDS: usize = 1_000;
/// and takes no more when it has this many bytes.
const BATCH_BYTES: usize = 1 << 20;

/// The least that fjall takes. Journals hold what is not sorted yet; they are read when the log is opened.
const JOURNAL_BYTES: u64 = 64 << 20;

/// Two, so that a compaction keeps nobody from emptying the write buffer: that is what bounds memory.
const WORKERS: usize = 2;

pub(super) struct Store {
    topics: RwLock<BTreeMap<String, Arc<Topic>>>,
    /// Held while a topic is made.
    making: Mutex<()>,
    topic_names: Keyspace,
    segments: Keyspace,
    records: Keyspace,
    db: Database,
    partitions: u32,
    dir: PathBuf,
    /// Last, so that the folder is free only after the database is closed.
    _folder: Folder,
}

/// A topic with the ends of its partitions: what is durable.
pub(super) struct Topic {
    name: String,
    number: u32,
    ends: Vec<AtomicU64>,
    changed: watch::Sender<Log>,
}

/// Whether there may come more records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Open,
    Closed,
}

/// What is stored of a topic.
#[derive(Debug, Serialize, Deserialize)]
struct StoredTopic {
    number: u32,
    kind: String,
}

impl Store {
    pub(super) fn open(dir: &Path, config: &EmbeddedConfig) -> Result<Self, LogError> {
        let folder = Folder::open(dir, config.partitions, |data| {
            open_database(data, config).and_then(|db| keyspaces(&db, config).map(drop))
        })?;
        let data = dir.join(folder::DATA);
        journal::repair(&data)?;
        let opening = |error| store_error(&format!("opening the log in {}", dir.display()), error);
        let db = open_database(&data, config).map_err(opening)?;
        let (topic_names, segments, records) = keyspaces(&db, config).map_err(opening)?;
        let store = Self {
            topics: RwLock::default(),
            making: Mutex::default(),
            topic_names,
            segments,
            records,
            db,
            partitions: config.partitions,
            dir: dir.to_owned(),
            _folder: folder,
        };
        store.load_topics()?;
        Ok(store)
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn partitions(&self) -> u32 {
        self.partitions
    }

    pub(super) fn segments(&self) -> &Keyspace {
        &self.segments
    }

    pub(super) fn records(&self) -> &Keyspace {
        &self.records
    }

    /// A batch that is on disk, all or nothing, when its commit returns.
    pub(super) fn batch(&self) -> fjall::OwnedWriteBatch {
        self.db.batch().durability(Some(PersistMode::SyncData))
    }

    /// A segment that nothing was written to yet.
    pub(super) fn next_segment(&self) -> Result<u32, LogError> {
        let Some(last) = self.records.last_key_value() else { return Ok(0) };
        let key = last.key().map_err(|error| self.reading(error))?;
        let (segment, _) = parse_record_key(&key).ok_or_else(|| self.damaged("a record's key can't be read"))?;
        Ok(segment + 1)
    }

    pub(super) fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        let missing = || settings(format!("topic {name} does not exist in {}: prepare it", self.dir.display()));
        self.topics.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned().ok_or_else(missing)
    }

    /// Makes the topic where it is missing. Blocks.
    pub(super) fn prepare(&self, spec: &TopicSpec) -> Result<(), LogError> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if self.topic(&spec.name).is_ok() {
            return Ok(());
        }
        if !is_valid_name(&spec.name) {
            let rule = "a name has 1 to 249 letters, digits, dots, underscores or hyphens";
            return Err(settings(format!("making topic {:?} failed: {rule}", spec.name)));
        }
        let number = self.topics.read().unwrap_or_else(PoisonError::into_inner).len() as u32;
        let kind = match spec.kind {
            TopicKind::Events => "events".into(),
            TopicKind::Commands { .. } | TopicKind::Replies => {
                let rule = "the embedded log belongs to one process, which forwards nothing";
                return Err(settings(format!("making topic {:?} failed: {rule}", spec.name)));
            }
            TopicKind::Snapshots => "snapshots".into(),
            TopicKind::Seals => "seals".into(),
        };
        let stored = serde_json::to_vec(&StoredTopic { number, kind }).expect("a number and a name");
        let mut batch = self.batch();
        batch.insert(&self.topic_names, spec.name.as_str(), stored);
        batch.commit().map_err(|error| unavailable(format!("making topic {} failed", spec.name)).with_source(error))?;
        let ends = (0..self.partitions).map(|_| AtomicU64::new(0)).collect();
        self.add(Topic::new(spec.name.clone(), number, ends));
        Ok(())
    }

    /// Tells waiting readers that nothing comes any more.
    pub(super) fn close(&self) {
        for topic in self.topics.read().unwrap_or_else(PoisonError::into_inner).values() {
            topic.changed.send_replace(Log::Closed);
        }
    }

    /// Reads records from `from` on, at least one, none at or after `end`. Blocks.
    pub(super) fn read(
        &self,
        topic: &Topic,
        partition: u32,
        from: u64,
        end: u64,
    ) -> Result<Vec<StoredRecord>, LogError> {
        let mut records = vec![];
        let mut bytes = 0;
        let mut next = from;
        let mut segment = self.segment_of(topic.number, partition, from)?;
        while next < end {
            let Some(in_segment) = segment else { return Err(self.missing(topic, partition, next)) };
            let first = record_key(in_segment, topic.number, partition, next);
            let last = record_key(in_segment, topic.number, partition, end - 1);
            for entry in self.records.range(first..=last) {
                let (key, value) = entry.into_inner().map_err(|error| self.reading(error))?;
                if parse_record_key(&key) != Some((in_segment, next)) {
                    return Err(self.missing(topic, partition, next));
                }
                // Copied, since the value is part of a block that would be kept in memory as a whole.
                let record = format::decode(Bytes::copy_from_slice(&value))
                    .map_err(|reason| self.unreadable(topic, partition, next, &reason))?;
                bytes += value.len();
                records.push(StoredRecord { offset: next, record });
                next += 1;
                if records.len() >= BATCH_RECORDS || bytes >= BATCH_BYTES {
                    return Ok(records);
                }
            }
            segment = self.segment_of(topic.number, partition, next)?.filter(|following| *following > in_segment);
        }
        Ok(records)
    }

    /// The segment in which the record at this offset is, if there is one.
    fn segment_of(&self, topic: u32, partition: u32, offset: u64) -> Result<Option<u32>, LogError> {
        let keys = segment_key(topic, partition, 0)..=segment_key(topic, partition, offset);
        let Some(last) = self.segments.range(keys).next_back() else { return Ok(None) };
        let segment = last.value().map_err(|error| self.reading(error))?;
        let segment = segment.as_ref().try_into().map_err(|_| self.damaged("a segment's number can't be read"))?;
        Ok(Some(u32::from_be_bytes(segment)))
    }

    fn load_topics(&self) -> Result<(), LogError> {
        for entry in self.topic_names.iter() {
            let (name, stored) = entry.into_inner().map_err(|error| self.reading(error))?;
            let stored: StoredTopic = serde_json::from_slice(&stored)
                .map_err(|error| self.damaged("a topic can't be read").with_source(error))?;
            let name = String::from_utf8(name.to_vec()).map_err(|_| self.damaged("a topic's name is not UTF-8"))?;
            let ends: Result<_, _> = (0..self.partitions)
                .map(|partition| self.find_end(stored.number, partition).map(AtomicU64::new))
                .collect();
            self.add(Topic::new(name, stored.number, ends?));
        }
        Ok(())
    }

    /// One past the last record.
    fn find_end(&self, topic: u32, partition: u32) -> Result<u64, LogError> {
        let Some(segment) = self.segment_of(topic, partition, u64::MAX)? else { return Ok(0) };
        let keys = record_key(segment, topic, partition, 0)..=record_key(segment, topic, partition, u64::MAX);
        let last = self.records.range(keys).next_back().ok_or_else(|| self.damaged("a segment has no records"))?;
        let key = last.key().map_err(|error| self.reading(error))?;
        let (_, offset) = parse_record_key(&key).ok_or_else(|| self.damaged("a record's key can't be read"))?;
        Ok(offset + 1)
    }

    fn add(&self, topic: Topic) {
        self.topics.write().unwrap_or_else(PoisonError::into_inner).insert(topic.name.clone(), Arc::new(topic));
    }

    fn reading(&self, error: fjall::Error) -> LogError {
        store_error(&format!("reading the log in {}", self.dir.display()), error)
    }

    fn missing(&self, topic: &Topic, partition: u32, offset: u64) -> LogError {
        self.unreadable(topic, partition, offset, "it is missing")
    }

    fn unreadable(&self, topic: &Topic, partition: u32, offset: u64, reason: &str) -> LogError {
        self.damaged(&format!("reading {}/{partition} at offset {offset} failed, {reason}", topic.name))
    }

    fn damaged(&self, what: &str) -> LogError {
        let message = format!("the log in {} is damaged, restore it from a copy: {what}", self.dir.display());
        LogError::new(LogErrorKind::Lost, message)
    }
}

impl Topic {
    fn new(name: String, number: u32, ends: Vec<AtomicU64>) -> Self {
        Self { name, number, ends, changed: watch::Sender::new(Log::Open) }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn number(&self) -> u32 {
        self.number
    }

    /// One past the last durable record of a partition.
    pub(super) fn end(&self, partition: u32) -> Result<u64, LogError> {
        let missing = || settings(format!("topic {} has {} partitions, not {partition}", self.name, self.ends.len()));
        Ok(self.ends.get(partition as usize).ok_or_else(missing)?.load(Ordering::Acquire))
    }

    pub(super) fn publish(&self, partition: u32, end: u64) {
        self.ends[partition as usize].store(end, Ordering::Release);
    }

    pub(super) fn wake_readers(&self) {
        self.changed.send_replace(Log::Open);
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Log> {
        self.changed.subscribe()
    }
}

fn open_database(data: &Path, config: &EmbeddedConfig) -> fjall::Result<Database> {
    Database::builder(data)
        .cache_size(config.cache_bytes)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(WORKERS)
        // Compressed again and compared when it is read back: another release of the compressor must not matter.
        .journal_compression(fjall::CompressionType::None)
        .manual_journal_persist(true)
        .open()
}

fn keyspaces(db: &Database, config: &EmbeddedConfig) -> fjall::Result<(Keyspace, Keyspace, Keyspace)> {
    // Records are read in order and never looked up one by one: larger blocks, no filters.
    let options = || {
        KeyspaceCreateOptions::default()
            .max_memtable_size(config.write_buffer_bytes)
            .data_block_size_policy(config::BlockSizePolicy::all(16 << 10))
            .filter_policy(config::FilterPolicy::disabled())
    };
    Ok((db.keyspace("topics", options)?, db.keyspace("segments", options)?, db.keyspace("records", options)?))
}

/// What Kafka allows, so that a name is good for both.
fn is_valid_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=249).contains(&name.len()) && name.bytes().all(allowed) && name != "." && name != ".."
}

/// An input or output error may go away, anything else is a damaged store.
fn store_error(action: &str, error: fjall::Error) -> LogError {
    let kind = match &error {
        fjall::Error::Io(_) | fjall::Error::Storage(fjall::LsmError::Io(_)) => LogErrorKind::Unavailable,
        fjall::Error::Poisoned | fjall::Error::Locked => LogErrorKind::Unavailable,
        _ => LogErrorKind::Lost,
    };
    LogError::new(kind, format!("{action} failed")).with_source(error)
}

fn settings(message: String) -> LogError {
    LogError::new(LogErrorKind::Settings, message)
}
