//! Reading: a consumer with partitions assigned by hand, on a thread of its own.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use es_core::log::{Batch, LogError, LogErrorKind, LogReader, Record, StoredRecord};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::sync::mpsc;

use crate::client::{Asking, POLL, Place, spawn};
use crate::config::KafkaConfig;
use crate::error::{Call, Class, ClientError, Next, class, code_of, failed, next};
use crate::fetched::{Fetch, Fetched, Message};
use crate::header::Names;

/// A batch with this many records takes no further one.
const BATCH_RECORDS: usize = 1_000;
/// The same in bytes.
const BATCH_BYTES: usize = 1_000_000;
/// Batches that wait for a slow caller, beside the one that the thread holds.
const BATCHES: usize = 2;
/// How often a record that can't be read is fetched again: what broke on its way is whole then.
const DAMAGED_MAX: u32 = 3;
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
        if from.iter().any(|&(_, offset)| i64::try_from(offset).is_err()) {
            return Err(LogError::new(LogErrorKind::Lost, format!("{}: there is no such offset", what())));
        }
        let mut fetched =
            Fetched::new(&config.for_reading(from.len())).map_err(|error| failed(Call::Work, what(), error))?;
        fetched.start(topic, from.iter().copied()).map_err(|error| failed(Call::Work, what(), error))?;
        let (sender, batches) = mpsc::channel(BATCHES);
        let topic: Arc<str> = topic.into();
        let fetching = Fetching {
            fetched,
            asking: Arc::clone(asking),
            topic: Arc::clone(&topic),
            collected: Collected { positions: from.iter().copied().collect(), ..Collected::default() },
            damaged: Damaged::default(),
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

/// The caller dropped the reader, or knows why it failed.
struct Ended;

/// The thread's side of a reader.
struct Fetching {
    fetched: Fetched,
    asking: Arc<Asking>,
    topic: Arc<str>,
    collected: Collected,
    damaged: Damaged,
    batches: mpsc::Sender<Result<Batch, LogError>>,
}

impl Fetching {
    fn run(mut self) {
        while !self.batches.is_closed() {
            if self.step().is_err() {
                return;
            }
        }
    }

    fn step(&mut self) -> Result<(), Ended> {
        // Whatever is there is handed over before waiting for more.
        let patience = if self.collected.batch.is_some() { Duration::ZERO } else { POLL };
        let mut failure = None;
        let found = self.fetched.each(patience, |fetch| {
            match fetch {
                Fetch::Record(message) => self.collected.take(&message),
                Fetch::End { partition, offset } => self.collected.end(partition, offset),
                Fetch::Failure { code, reason } => failure = Some((KafkaError::MessageConsumption(code), reason)),
            }
            // All that is there: what stays while others come would not count against the bound of reading ahead.
            if failure.is_none() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if !found {
            self.collected.complete();
        }
        self.hand_over()?;
        if let Some((error, reason)) = failure {
            self.fetched.journal().note(&error, &reason);
            self.tell(error)?;
        }
        self.fetched.failure().map_or(Ok(()), |error| self.tell(error))
    }

    fn hand_over(&mut self) -> Result<(), Ended> {
        let complete = std::mem::take(&mut self.collected.complete);
        complete.into_iter().try_for_each(|batch| self.send(Ok(batch)))
    }

    /// Waits while the caller is slow; meanwhile nothing is polled, so that the consumer stops fetching at its bound.
    fn send(&self, batch: Result<Batch, LogError>) -> Result<(), Ended> {
        self.batches.blocking_send(batch).map_err(|_| Ended)
    }

    /// Ends with what the caller must know.
    fn tell(&mut self, error: KafkaError) -> Result<(), Ended> {
        let broken = code_of(&error).is_some_and(|code| class(code) == Class::Damaged);
        if broken && self.damaged.again(&self.collected.positions) && self.start_again() {
            return Ok(());
        }
        let Some(failure) = self.failure(error) else { return Ok(()) };
        self.collected.complete();
        self.hand_over()?;
        self.send(Err(failure))?;
        Err(Ended)
    }

    /// From where the last record was taken. Behind a damaged record librdkafka goes on with the next.
    fn start_again(&mut self) -> bool {
        let positions = self.collected.positions.iter().map(|(&partition, &offset)| (partition, offset));
        self.fetched.start(&self.topic, positions).is_ok()
    }

    /// What the caller must know; nothing, if librdkafka rides it out.
    fn failure(&self, error: KafkaError) -> Option<LogError> {
        let code = code_of(&error).unwrap_or(RDKafkaErrorCode::Unknown);
        let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
        let step = next(Call::Work, code);
        if step == Next::Wait && !fatal {
            return None;
        }
        let cause = self.fetched.journal().take_reason().map_or_else(|| ClientError::from(error), ClientError::new);
        let outside = if step == Next::Lost { self.outside() } else { None };
        let message = outside.unwrap_or_else(|| {
            let positions = self.collected.positions.iter().map(|(&partition, &offset)| (partition, offset));
            format!("reading {} at {}", self.topic, places(positions))
        });
        Some(LogError::new(step.kind(), message).with_source(cause))
    }

    /// The partition whose position is outside its bounds.
    fn outside(&self) -> Option<String> {
        self.collected.positions.iter().find_map(|(&partition, &offset)| {
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

fn places(from: impl Iterator<Item = (u32, u64)>) -> String {
    let places: Vec<String> =
        from.map(|(partition, offset)| format!("partition {partition} offset {offset}")).collect();
    places.join(", ")
}

/// Counts how often records could not be read at the same place.
#[derive(Debug, Default)]
struct Damaged {
    at: BTreeMap<u32, u64>,
    times: u32,
}

impl Damaged {
    /// Whether to fetch once more from these positions.
    fn again(&mut self, positions: &BTreeMap<u32, u64>) -> bool {
        if self.at != *positions {
            *self = Self { at: positions.clone(), times: 0 };
        }
        self.times += 1;
        self.times <= DAMAGED_MAX
    }
}

/// What was fetched and is not handed over yet.
#[derive(Debug, Default)]
struct Collected {
    /// The offset to read next of each partition.
    positions: BTreeMap<u32, u64>,
    copier: Copier,
    /// The batch that takes the next record, and its bytes.
    batch: Option<Batch>,
    bytes: usize,
    complete: Vec<Batch>,
}

impl Collected {
    fn take(&mut self, message: &Message<'_>) {
        let stored = self.copier.copy(message);
        self.add(message.partition, stored);
    }

    fn add(&mut self, partition: u32, stored: StoredRecord) {
        let (next, bytes) = (stored.offset + 1, stored.record.size());
        self.positions.insert(partition, next);
        let batch = self.batch_of(partition);
        batch.records.push(stored);
        batch.next = next;
        let full = batch.records.len() == BATCH_RECORDS;
        self.bytes += bytes;
        if full || self.bytes >= BATCH_BYTES {
            self.complete();
        }
    }

    /// The partition has nothing more for now: passes offsets without a record.
    fn end(&mut self, partition: u32, end: u64) {
        let position = self.positions.entry(partition).or_insert(0);
        if end > *position {
            *position = end;
            self.batch_of(partition).next = end;
        }
        self.complete();
    }

    fn batch_of(&mut self, partition: u32) -> &mut Batch {
        if self.batch.as_ref().is_some_and(|batch| batch.partition != partition) {
            self.complete();
        }
        self.batch.get_or_insert_with(|| Batch { partition, records: Vec::new(), next: 0 })
    }

    fn complete(&mut self) {
        self.bytes = 0;
        self.complete.extend(self.batch.take());
    }
}

/// Copies records out of librdkafka, one behind the other into pieces of memory that they share.
#[derive(Debug, Default)]
pub(crate) struct Copier {
    names: Names,
    /// The lengths of the header values of the record at hand.
    lengths: Vec<usize>,
    /// What is left of the piece.
    piece: BytesMut,
}

impl Copier {
    pub(crate) fn copy(&mut self, message: &Message<'_>) -> StoredRecord {
        let key = message.key.unwrap_or_default();
        let value = message.value;
        let body = key.len() + value.map_or(0, <[u8]>::len);
        if self.piece.capacity() < body {
            self.piece = BytesMut::with_capacity(PIECE_BYTES.max(body));
        }
        self.piece.extend_from_slice(key);
        self.piece.extend_from_slice(value.unwrap_or_default());
        let mut headers = Vec::with_capacity(self.lengths.len());
        self.lengths.clear();
        message.each_header(|name, value| {
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
            offset: message.offset,
            record: Record { key, value, headers, timestamp_ms: message.timestamp_ms.unwrap_or(0) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: u64, bytes: usize) -> StoredRecord {
        let value = Some(Bytes::from(vec![0; bytes]));
        StoredRecord { offset, record: Record { key: Bytes::new(), value, headers: Vec::new(), timestamp_ms: 0 } }
    }

    /// Partition, number of records and next offset of what is complete.
    fn complete(collected: &mut Collected) -> Vec<(u32, usize, u64)> {
        collected.complete.drain(..).map(|batch| (batch.partition, batch.records.len(), batch.next)).collect()
    }

    #[test]
    fn a_batch_is_of_one_partition_and_bounded_in_records_and_bytes() {
        let mut collected = Collected::default();
        (0..BATCH_RECORDS as u64 + 1).for_each(|offset| collected.add(0, record(offset, 1)));
        assert_eq!(complete(&mut collected), [(0, BATCH_RECORDS, BATCH_RECORDS as u64)]);
        collected.add(1, record(5, BATCH_BYTES));
        let next = BATCH_RECORDS as u64 + 1;
        assert_eq!(complete(&mut collected), [(0, 1, next), (1, 1, 6)]);
        collected.add(1, record(6, BATCH_BYTES - 10));
        assert_eq!(complete(&mut collected), []);
        collected.add(1, record(7, 10));
        assert_eq!(complete(&mut collected), [(1, 2, 8)]);
    }

    #[test]
    fn a_damaged_record_is_fetched_again_and_given_up_where_it_stays_so() {
        let mut damaged = Damaged::default();
        let (first, later) = (BTreeMap::from([(0, 7), (1, 2)]), BTreeMap::from([(0, 8), (1, 2)]));
        let mut tried = |positions, times: u32| (0..times).map(|_| damaged.again(positions)).collect::<Vec<_>>();
        assert_eq!(tried(&first, 2), [true, true]);
        assert_eq!(tried(&later, DAMAGED_MAX + 2), [true, true, true, false, false]);
    }

    #[test]
    fn the_end_of_a_partition_passes_offsets_without_a_record() {
        let mut collected = Collected { positions: [(0, 3), (1, 0)].into(), ..Collected::default() };
        collected.end(0, 3);
        assert_eq!(complete(&mut collected), []);
        collected.add(0, record(3, 1));
        collected.end(0, 6);
        assert_eq!(complete(&mut collected), [(0, 1, 6)]);
        collected.add(0, record(6, 1));
        collected.end(1, 2);
        assert_eq!(complete(&mut collected), [(0, 1, 7), (1, 0, 2)]);
        collected.end(0, 7);
        assert_eq!(complete(&mut collected), []);
        assert_eq!(collected.positions, [(0, 7), (1, 2)].into());
    }
}
