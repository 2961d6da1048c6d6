//! Reading: a consumer with partitions assigned by hand, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use es_core::log::{Batch, LogError, LogErrorKind, LogReader, Record, StoredRecord};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::{Asking, Journal, POLL, Place, spawn};
use crate::config::KafkaConfig;
use crate::error::{ClientError, Next, code_of, failed, next_while_reading};
use crate::header::{self, Names};

/// The most records of a batch.
const BATCH_RECORDS: usize = 1_000;
/// A batch with this many bytes takes no further record.
const BATCH_BYTES: usize = 1_000_000;
/// Batches that wait for a slow caller, beside the one that the thread holds.
const BATCHES: usize = 2;
/// A piece of memory that records share: it is given back when the last of them is.
const PIECE_BYTES: usize = 32 << 10;

/// Reads partitions of one topic.
#[derive(Debug)]
pub(crate) struct KafkaReader {
    topic: Arc<str>,
    batches: mpsc::Receiver<Result<Batch, LogError>>,
}

impl KafkaReader {
    /// Blocks.
    pub(crate) fn open(
        asking: &Arc<Asking>,
        config: &KafkaConfig,
        topic: &str,
        from: &[(u32, u64)],
    ) -> Result<Self, LogError> {
        let what = || format!("reading {topic} from {}", places(from.iter().copied()));
        let mut assigned = TopicPartitionList::with_capacity(from.len());
        for &(partition, offset) in from {
            let offset = i64::try_from(offset)
                .map_err(|_| LogError::new(LogErrorKind::Lost, format!("{}: there is no such offset", what())))?;
            let number = i32::try_from(partition).expect("the partition is there, and Kafka counts in 31 bits");
            assigned
                .add_partition_offset(topic, number, Offset::Offset(offset))
                .map_err(|error| failed(what(), error))?;
        }
        let consumer: BaseConsumer<Journal> =
            config.for_reading().create_with_context(Journal::default()).map_err(|error| failed(what(), error))?;
        consumer.assign(&assigned).map_err(|error| failed(what(), error))?;
        let (sender, batches) = mpsc::channel(BATCHES);
        let topic: Arc<str> = topic.into();
        let fetching = Fetching {
            consumer,
            asking: Arc::clone(asking),
            topic: Arc::clone(&topic),
            positions: from.iter().copied().collect(),
            copier: Copier::default(),
            batch: None,
            bytes: 0,
            batches: sender,
        };
        spawn("es-kafka-read", || fetching.run())?;
        Ok(Self { topic, batches })
    }
}

#[async_trait]
impl LogReader for KafkaReader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        self.batches.recv().await.unwrap_or_else(|| {
            let message = format!("reading {}: this reader has failed before, open a new one", self.topic);
            Err(LogError::new(LogErrorKind::Unavailable, message))
        })
    }
}

/// The caller dropped the reader.
struct Left;

/// The thread's side of a reader.
struct Fetching {
    consumer: BaseConsumer<Journal>,
    asking: Arc<Asking>,
    topic: Arc<str>,
    /// The offset to read next of each partition.
    positions: BTreeMap<u32, u64>,
    copier: Copier,
    /// What is collected and not handed over yet.
    batch: Option<Batch>,
    bytes: usize,
    batches: mpsc::Sender<Result<Batch, LogError>>,
}

impl Fetching {
    fn run(mut self) {
        while !self.batches.is_closed() {
            // Whatever is there is handed over before waiting for more.
            let patience = if self.batch.is_some() { Duration::ZERO } else { POLL };
            let done = match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    let partition = number(message.partition());
                    let stored = self.copier.copy(&message);
                    drop(message);
                    self.take(partition, stored)
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => self.end(number(partition)),
                Some(Err(error)) => match self.failure(error) {
                    None => Ok(()),
                    Some(failure) => {
                        let _ = self.hand_over().and_then(|()| self.send(Err(failure)));
                        return;
                    }
                },
                None => self.hand_over(),
            };
            if done.is_err() {
                return;
            }
        }
    }

    fn take(&mut self, partition: u32, stored: StoredRecord) -> Result<(), Left> {
        let full = |batch: &Batch| batch.partition != partition || batch.records.len() == BATCH_RECORDS;
        if self.batch.as_ref().is_some_and(full) || self.bytes >= BATCH_BYTES {
            self.hand_over()?;
        }
        let next = stored.offset + 1;
        self.bytes += stored.record.size();
        self.positions.insert(partition, next);
        let batch = self.batch.get_or_insert_with(|| Batch { partition, records: Vec::new(), next });
        batch.records.push(stored);
        batch.next = next;
        Ok(())
    }

    /// The partition has nothing more for now: passes offsets without a record.
    fn end(&mut self, partition: u32) -> Result<(), Left> {
        let end = self.consumer.context().take_reason().and_then(|reason| end_offset(&reason)).unwrap_or(0);
        let position = self.positions.entry(partition).or_insert(0);
        let passed = end > *position;
        *position = end.max(*position);
        let next = *position;
        if let Some(batch) = self.batch.as_mut().filter(|batch| batch.partition == partition) {
            batch.next = next;
            return self.hand_over();
        }
        self.hand_over()?;
        if passed { self.send(Ok(Batch { partition, records: Vec::new(), next })) } else { Ok(()) }
    }

    fn hand_over(&mut self) -> Result<(), Left> {
        self.bytes = 0;
        match self.batch.take() {
            Some(batch) => self.send(Ok(batch)),
            None => Ok(()),
        }
    }

    /// Waits while the caller is slow; meanwhile nothing is polled, so that the consumer stops fetching at its bound.
    fn send(&self, batch: Result<Batch, LogError>) -> Result<(), Left> {
        self.batches.blocking_send(batch).map_err(|_| Left)
    }

    /// What the caller must know; nothing, if librdkafka rides it out.
    fn failure(&self, error: KafkaError) -> Option<LogError> {
        let code = code_of(&error).unwrap_or(RDKafkaErrorCode::Unknown);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let step = next_while_reading(code);
        if step == Next::Retry && !fatal {
            return None;
        }
        let cause = self.consumer.context().take_reason().map_or_else(|| ClientError::from(error), ClientError::new);
        let outside = if step == Next::Lost { self.outside() } else { None };
        let message = outside.unwrap_or_else(|| {
            let positions = self.positions.iter().map(|(&partition, &offset)| (partition, offset));
            format!("reading {} at {}", self.topic, places(positions))
        });
        Some(LogError::new(step.kind(), message).with_source(cause))
    }

    /// The partition whose position is outside its bounds.
    fn outside(&self) -> Option<String> {
        self.positions.iter().find_map(|(&partition, &offset)| {
            let bounds = self.asking.bounds(Place { topic: &self.topic, partition, known: true }).ok()?;
            (offset < bounds.start || offset > bounds.end).then(|| {
                let (topic, start, end) = (&self.topic, bounds.start, bounds.end);
                format!(
                    "reading {topic}/{partition} at offset {offset}: it has {start} to {end}, so the log lost records \
                     or was made anew"
                )
            })
        })
    }
}

fn number(partition: i32) -> u32 {
    u32::try_from(partition).expect("an assigned partition is not negative")
}

fn places(from: impl Iterator<Item = (u32, u64)>) -> String {
    let places: Vec<String> =
        from.map(|(partition, offset)| format!("partition {partition} offset {offset}")).collect();
    places.join(", ")
}

/// The offset in librdkafka's message "… reached end of partition at offset 7 (HighwaterMark 7)". rdkafka passes on
/// nothing else of it; where the message should change one day, only offsets without a record are not passed.
fn end_offset(reason: &str) -> Option<u64> {
    let (_, rest) = reason.split_once("at offset ")?;
    rest.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Copies records out of librdkafka, one behind the other into pieces of memory that they share.
#[derive(Debug, Default)]
struct Copier {
    names: Names,
    /// The lengths of the header values of the record at hand.
    lengths: Vec<usize>,
    /// What is left of the piece.
    piece: BytesMut,
}

impl Copier {
    fn copy(&mut self, message: &BorrowedMessage<'_>) -> StoredRecord {
        let key = message.key().unwrap_or_default();
        let value = message.payload();
        let body = key.len() + value.map_or(0, <[u8]>::len);
        if self.piece.capacity() < body {
            self.piece = BytesMut::with_capacity(PIECE_BYTES.max(body));
        }
        self.piece.extend_from_slice(key);
        self.piece.extend_from_slice(value.unwrap_or_default());
        let mut headers = Vec::with_capacity(self.lengths.len());
        self.lengths.clear();
        header::for_each(message, |name, value| {
            self.piece.extend_from_slice(value);
            self.lengths.push(value.len());
            headers.push((self.names.get(name), Bytes::new()));
        });
        let mut copied = self.piece.split().freeze();
        let key = copied.split_to(key.len());
        let value = match value {
            Some(_) if headers.is_empty() => Some(std::mem::take(&mut copied)),
            value => value.map(|value| copied.split_to(value.len())),
        };
        for ((_, value), length) in headers.iter_mut().zip(&self.lengths) {
            *value = copied.split_to(*length);
        }
        StoredRecord {
            offset: u64::try_from(message.offset()).expect("a stored record has an offset"),
            record: Record { key, value, headers, timestamp_ms: message.timestamp().to_millis().unwrap_or(0) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_partition_is_read_from_the_clients_message() {
        let reason = "Fetch from broker 1 reached end of partition at offset 42 (HighwaterMark 42)";
        assert_eq!(end_offset(reason), Some(42));
        assert_eq!(end_offset("something else"), None);
    }
}
