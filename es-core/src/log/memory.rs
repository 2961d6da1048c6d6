//! The reference log: in memory, gone with the process, with faults on demand. Read it before writing another one.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, oneshot};

use super::{AppendError, Batch, Log, LogError, LogErrorKind, LogReader, LogWriter, Record, StoredRecord, TopicSpec};

/// The most records that a reader hands out at once.
const BATCH_RECORDS: usize = 1_000;

/// A log in memory, for tests and examples. Clones share the log.
///
/// ```
/// # use bytes::Bytes;
/// # use es_core::log::{AppendError, Log, LogReader, LogWriter, Record, TopicKind, TopicSpec, memory::{Fault, MemoryLog}};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let log = MemoryLog::new(4);
/// log.prepare(&TopicSpec { name: "bank.account.events".into(), kind: TopicKind::Events }).await?;
/// let mut writer = log.writer("bank.account.events", 0).await?;
/// let record = Record { key: Bytes::from("a"), value: None, headers: vec![], timestamp_ms: 0 };
///
/// // All land, and the writer is not told so.
/// log.partition("bank.account.events", 0).fault(Fault::ReportLost);
/// assert!(matches!(writer.append(vec![record.clone()]).await, Err(AppendError::Unknown(_))));
/// assert_eq!(log.partition("bank.account.events", 0).records().len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct MemoryLog {
    partitions: u32,
    record_max_bytes: usize,
    topics: Arc<Mutex<BTreeMap<String, Vec<Partition>>>>,
    /// Wakes readers in the order in which they came: a simulation can be repeated.
    changed: Arc<Notify>,
}

/// What goes wrong with one append.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// All records land; the answer is [`AppendError::Unknown`].
    ReportLost,
    /// No record lands; the answer is [`AppendError::Unknown`].
    Lost,
    /// No record lands; the answer is [`AppendError::Refused`].
    Refused,
    /// Only the first records land; the answer is [`AppendError::Unknown`].
    Torn {
        /// How many.
        landed: usize,
    },
    /// The answer is [`AppendError::Unknown`] at once; the records land at [`MemoryPartition::release`], as those of
    /// a zombie do whose request is delivered after the take-over.
    Delayed,
    /// No answer comes and nothing lands before [`MemoryPartition::release`]; then the records land, and the append
    /// answers where it is still waited for.
    Hang,
    /// Another writer's record lands in between; all land, the answer tells the true offsets.
    Interleaved {
        /// How many of the append's records stand before it.
        after: usize,
        /// The other writer's record.
        record: Record,
    },
}

#[derive(Debug, Default)]
struct Partition {
    records: Vec<StoredRecord>,
    end: u64,
    faults: VecDeque<Fault>,
    held: Vec<Held>,
}

/// An append on its way.
#[derive(Debug)]
struct Held {
    records: Vec<Record>,
    answer: Option<oneshot::Sender<Vec<u64>>>,
}

impl MemoryLog {
    /// A log whose topics have this many partitions.
    pub fn new(partitions: u32) -> Self {
        Self { partitions, record_max_bytes: 1_000_000, topics: Arc::default(), changed: Arc::default() }
    }

    /// The same with another limit of a record's size, in bytes as [`Record::size`] counts them.
    #[must_use]
    pub fn with_record_max_bytes(self, record_max_bytes: usize) -> Self {
        Self { record_max_bytes, ..self }
    }

    /// A hand on one partition, for tests: faults, and changes behind the writers' backs. Makes the topic where it is
    /// missing.
    ///
    /// # Panics
    /// When the log's topics do not have this partition.
    pub fn partition(&self, topic: &str, partition: u32) -> MemoryPartition {
        assert!(partition < self.partitions, "topic {topic} has {} partitions, not {partition}", self.partitions);
        self.make(topic);
        MemoryPartition { log: self.clone(), topic: topic.into(), partition }
    }

    /// Deletes a topic and makes it anew, empty: as whoever takes it for damaged does.
    pub fn make_anew(&self, topic: &str) {
        self.lock().remove(topic);
        self.make(topic);
        self.changed.notify_waiters();
    }

    fn make(&self, topic: &str) {
        let partitions = || (0..self.partitions).map(|_| Partition::default()).collect();
        self.lock().entry(topic.into()).or_insert_with(partitions);
    }

    fn find(&self, topic: &str, partition: u32) -> Result<MemoryPartition, LogError> {
        let topics = self.lock();
        let found = topics.get(topic).ok_or_else(|| settings(format!("topic {topic} does not exist: prepare it")))?;
        if partition as usize >= found.len() {
            return Err(settings(format!("topic {topic} has {} partitions, not {partition}", found.len())));
        }
        Ok(MemoryPartition { log: self.clone(), topic: topic.into(), partition })
    }

    /// No `.await` happens under this lock.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Vec<Partition>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn settings(message: String) -> LogError {
    LogError::new(LogErrorKind::Settings, message)
}

#[async_trait]
impl Log for MemoryLog {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        self.make(&topic.name);
        Ok(self.partitions)
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        Ok(Box::new(Writer { partition: self.find(topic, partition)?, doubtful: false }))
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        let places: Result<VecDeque<_>, _> =
            from.iter().map(|(partition, offset)| Ok((self.find(topic, *partition)?, *offset))).collect();
        let places = places?;
        for (partition, offset) in &places {
            partition.read(*offset)?;
        }
        Ok(Box::new(Reader { places, changed: self.changed.clone() }))
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        Ok(0..self.find(topic, partition)?.change(|partition| partition.end))
    }

    fn record_max_bytes(&self) -> usize {
        self.record_max_bytes
    }
}

#[derive(Debug)]
struct Writer {
    partition: MemoryPartition,
    /// An append is under way, or was given up, or failed.
    doubtful: bool,
}

#[async_trait]
impl LogWriter for Writer {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        if std::mem::replace(&mut self.doubtful, true) {
            return Err(AppendError::Refused(settings("a writer was used again after a failed append".into())));
        }
        let limit = self.partition.log.record_max_bytes;
        if let Some(size) = records.iter().map(Record::size).find(|size| *size > limit) {
            return Err(AppendError::Refused(settings(format!(
                "appending a record of {size} bytes to {} is refused: at most {limit} are allowed",
                self.partition
            ))));
        }
        let offsets = match self.partition.append(records)? {
            Outcome::Landed(offsets) => offsets,
            Outcome::Hanging(answer) => match answer.await {
                Ok(offsets) => offsets,
                Err(_) => std::future::pending().await,
            },
        };
        self.doubtful = false;
        Ok(offsets)
    }
}

enum Outcome {
    Landed(Vec<u64>),
    Hanging(oneshot::Receiver<Vec<u64>>),
}

/// Reads partitions in turn, so that a busy one does not starve the others.
#[derive(Debug)]
struct Reader {
    places: VecDeque<(MemoryPartition, u64)>,
    changed: Arc<Notify>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        loop {
            let changed = self.changed.clone();
            let change = changed.notified(); // before the look, so that no change between look and wait is missed
            for _ in 0..self.places.len() {
                self.places.rotate_left(1);
                let Some((partition, offset)) = self.places.back_mut() else { break };
                if let Some(batch) = partition.read(*offset)? {
                    *offset = batch.next;
                    return Ok(batch);
                }
            }
            change.await;
        }
    }
}

/// One partition of a [`MemoryLog`].
#[derive(Debug, Clone)]
pub struct MemoryPartition {
    log: MemoryLog,
    topic: String,
    partition: u32,
}

impl MemoryPartition {
    /// Lets this happen to the next append that has no fault yet. Faults queue up.
    pub fn fault(&self, fault: Fault) {
        self.change(|partition| partition.faults.push_back(fault));
    }

    /// Lets land what [`Fault::Delayed`] and [`Fault::Hang`] hold back, in the order of the appends, and tells how
    /// many records that were.
    pub fn release(&self) -> usize {
        self.change(|partition| {
            let held = std::mem::take(&mut partition.held);
            let landed = held.into_iter().map(|Held { records, answer }| {
                let offsets = partition.land(records);
                let count = offsets.len();
                if let Some(answer) = answer {
                    let _ = answer.send(offsets); // nobody waits any more: as good as lost
                }
                count
            });
            landed.sum()
        })
    }

    /// How many records [`Fault::Delayed`] and [`Fault::Hang`] hold back.
    pub fn held(&self) -> usize {
        self.change(|partition| partition.held.iter().map(|held| held.records.len()).sum())
    }

    /// Takes back every fault that has not happened yet, and lets land what is held back.
    pub fn calm(&self) -> usize {
        self.change(|partition| partition.faults.clear());
        self.release()
    }

    /// Appends a record as some other writer, past all faults, and tells its offset.
    pub fn append_foreign(&self, record: Record) -> u64 {
        self.change(|partition| partition.land(vec![record])[0])
    }

    /// Loses the tail: everything from this offset on.
    pub fn truncate(&self, to: u64) {
        self.change(|partition| {
            partition.records.retain(|stored| stored.offset < to);
            partition.end = partition.end.min(to);
        });
    }

    /// Keeps only the last record of each key. Offsets keep their numbers.
    pub fn compact(&self) {
        self.change(|partition| {
            let mut seen = HashSet::new();
            partition.records.reverse();
            partition.records.retain(|stored| seen.insert(stored.record.key.clone()));
            partition.records.reverse();
        });
    }

    /// Puts these records, in offset order, in the place of all that are there, as whoever has the disk in hand can.
    pub fn replace(&self, records: Vec<StoredRecord>) {
        self.change(|partition| {
            partition.end = records.last().map_or(0, |last| last.offset + 1);
            partition.records = records;
        });
    }

    /// All records, in offset order.
    pub fn records(&self) -> Vec<StoredRecord> {
        self.change(|partition| partition.records.clone())
    }

    fn append(&self, mut records: Vec<Record>) -> Result<Outcome, AppendError> {
        let unavailable = |what: &str| LogError::new(LogErrorKind::Unavailable, format!("appending to {self} {what}"));
        let unknown = || AppendError::Unknown(unavailable("got no report"));
        self.change(|partition| match partition.faults.pop_front() {
            None => Ok(Outcome::Landed(partition.land(records))),
            Some(Fault::ReportLost) => {
                partition.land(records);
                Err(unknown())
            }
            Some(Fault::Lost) => Err(unknown()),
            Some(Fault::Refused) => Err(AppendError::Refused(unavailable("was refused"))),
            Some(Fault::Torn { landed }) => {
                records.truncate(landed);
                partition.land(records);
                Err(unknown())
            }
            Some(Fault::Delayed) => {
                partition.held.push(Held { records, answer: None });
                Err(unknown())
            }
            Some(Fault::Hang) => {
                let (answer, waiting) = oneshot::channel();
                partition.held.push(Held { records, answer: Some(answer) });
                Ok(Outcome::Hanging(waiting))
            }
            Some(Fault::Interleaved { after, record }) => {
                let rest = records.split_off(after.min(records.len()));
                let mut offsets = partition.land(records);
                partition.land(vec![record]);
                offsets.extend(partition.land(rest));
                Ok(Outcome::Landed(offsets))
            }
        })
    }

    /// What there is from this offset on; `None` at the end.
    fn read(&self, from: u64) -> Result<Option<Batch>, LogError> {
        self.change(|partition| {
            if from > partition.end {
                let message = format!("reading {self} from offset {from} failed: it ends at {}", partition.end);
                return Err(LogError::new(LogErrorKind::Lost, message));
            }
            if from == partition.end {
                return Ok(None);
            }
            let first = partition.records.partition_point(|stored| stored.offset < from);
            let last = partition.records.len().min(first + BATCH_RECORDS);
            let records = partition.records[first..last].to_vec();
            let next = partition.records.get(last).map_or(partition.end, |stored| stored.offset);
            Ok(Some(Batch { partition: self.partition, records, next }))
        })
    }

    /// Does something to the partition as one step, and wakes readers.
    fn change<T>(&self, what: impl FnOnce(&mut Partition) -> T) -> T {
        let mut topics = self.log.lock();
        let partitions = topics.get_mut(&self.topic).expect("topics are never removed");
        let partition = &mut partitions[self.partition as usize];
        let end = partition.end;
        let result = what(partition);
        if partition.end != end {
            self.log.changed.notify_waiters();
        }
        result
    }
}

impl std::fmt::Display for MemoryPartition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

impl Partition {
    fn land(&mut self, records: Vec<Record>) -> Vec<u64> {
        let first = self.end;
        self.end += records.len() as u64;
        let stored = (first..).zip(records).map(|(offset, record)| StoredRecord { offset, record });
        self.records.extend(stored);
        (first..self.end).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::log::TopicKind;

    const TOPIC: &str = "bank.account.events";

    fn record(key: &str) -> Record {
        let value = Some(Bytes::copy_from_slice(key.as_bytes()));
        Record { key: Bytes::copy_from_slice(key.as_bytes()), value, headers: vec![], timestamp_ms: 0 }
    }

    fn keys(partition: &MemoryPartition) -> String {
        let key = |stored: StoredRecord| format!("{}{}", stored.offset, String::from_utf8_lossy(&stored.record.key));
        partition.records().into_iter().map(key).collect::<Vec<_>>().join(" ")
    }

    async fn log() -> (MemoryLog, MemoryPartition) {
        let log = MemoryLog::new(2).with_record_max_bytes(100);
        assert_eq!(log.prepare(&TopicSpec { name: TOPIC.into(), kind: TopicKind::Events }).await.unwrap(), 2);
        let partition = log.partition(TOPIC, 1);
        (log, partition)
    }

    /// Appends a and b with this fault and tells how it was answered.
    async fn append_with(fault: Fault) -> (MemoryPartition, String) {
        let (log, partition) = log().await;
        partition.fault(fault);
        let mut writer = log.writer(TOPIC, 1).await.unwrap();
        let answer = match writer.append(vec![record("a"), record("b")]).await {
            Ok(offsets) => format!("{offsets:?}"),
            Err(AppendError::Unknown(_)) => "unknown".into(),
            Err(AppendError::Refused(_)) => "refused".into(),
        };
        if answer == "unknown" || answer == "refused" {
            assert!(matches!(writer.append(vec![record("again")]).await, Err(AppendError::Refused(_))));
        }
        (partition, answer)
    }

    #[tokio::test]
    async fn the_contract_holds() {
        crate::testing::log_contract::run_all(Arc::new(MemoryLog::new(3)), "contract").await;
    }

    #[tokio::test]
    async fn faults_do_what_they_say() {
        for (fault, answer, landed) in [
            (Fault::ReportLost, "unknown", "0a 1b"),
            (Fault::Lost, "unknown", ""),
            (Fault::Refused, "refused", ""),
            (Fault::Torn { landed: 1 }, "unknown", "0a"),
            (Fault::Interleaved { after: 1, record: record("x") }, "[0, 2]", "0a 1x 2b"),
        ] {
            let (partition, answered) = append_with(fault.clone()).await;
            assert_eq!((answered.as_str(), keys(&partition).as_str()), (answer, landed), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_delayed_append_lands_behind_what_came_in_between() {
        let (partition, answer) = append_with(Fault::Delayed).await;
        assert_eq!((answer.as_str(), keys(&partition).as_str()), ("unknown", ""));
        partition.append_foreign(record("claim"));
        assert_eq!(partition.release(), 2);
        assert_eq!(keys(&partition), "0claim 1a 2b");
        assert_eq!(partition.release(), 0);
    }

    #[tokio::test]
    async fn a_hanging_append_answers_after_the_release_and_lands_even_if_nobody_waits() {
        let (log, partition) = log().await;
        let mut appends = vec![];
        for _ in 0..2 {
            let mut writer = log.writer(TOPIC, 1).await.unwrap();
            partition.fault(Fault::Hang);
            appends.push(tokio::spawn(async move { writer.append(vec![record("a")]).await }));
        }
        let (given_up, waiting) = (appends.pop().unwrap(), appends.pop().unwrap());
        while partition.change(|partition| partition.held.len()) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(keys(&partition), "");
        given_up.abort();
        assert!(given_up.await.unwrap_err().is_cancelled());
        assert_eq!(partition.release(), 2);
        assert_eq!(keys(&partition), "0a 1a");
        assert_eq!(waiting.await.unwrap().unwrap(), [0]);
    }

    #[tokio::test]
    async fn a_compacted_log_keeps_offsets_and_readers_pass_the_holes() {
        let (log, partition) = log().await;
        for key in ["a", "b", "a", "c", "c"] {
            partition.append_foreign(record(key));
        }
        partition.compact();
        assert_eq!(keys(&partition), "1b 2a 4c");
        let mut reader = log.reader(TOPIC, &[(1, 3)]).await.unwrap();
        let batch = reader.next().await.unwrap();
        assert_eq!((batch.records[0].offset, batch.next), (4, 5));
        partition.truncate(4);
        let mut reader = log.reader(TOPIC, &[(1, 3)]).await.unwrap();
        assert_eq!(reader.next().await.unwrap(), Batch { partition: 1, records: vec![], next: 4 });
    }

    #[tokio::test]
    async fn a_reader_past_a_lost_tail_says_so() {
        let (log, partition) = log().await;
        partition.append_foreign(record("a"));
        partition.append_foreign(record("b"));
        let mut reader = log.reader(TOPIC, &[(1, 2)]).await.unwrap();
        partition.truncate(1);
        assert_eq!(reader.next().await.unwrap_err().kind(), LogErrorKind::Lost);
        assert_eq!(log.reader(TOPIC, &[(1, 2)]).await.err().map(|error| error.kind()), Some(LogErrorKind::Lost));
    }
}
