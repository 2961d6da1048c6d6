//! The readers: decode, apply the validity rule, and put whole commands into the queue.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use es_core::log::record::Answers;
use es_core::log::{Batch, Log, LogError, StoredRecord};
use es_core::{Checkpoint, EventSource, Fed, PartitionReader, Recorded};

use super::pause::Pause;
use super::queue::{Chunk, Quarantined, Queue};
use super::state::{Board, Origin};
use crate::error::Error;
use crate::projection::RefusedCommand;
use crate::skipped::LeftOut;

/// Reads partitions of one source until something is final.
pub(super) struct SourceReader {
    pub(super) log: Arc<dyn Log>,
    pub(super) source: EventSource,
    /// Its index among the worker's sources.
    pub(super) index: usize,
    /// Its first partition's index among the worker's places.
    pub(super) first_place: usize,
    pub(super) queue: Arc<Queue>,
    pub(super) board: Arc<Board>,
    /// For each partition where to end; none to go on for ever.
    pub(super) until: Option<Vec<u64>>,
    pub(super) selection: Selection,
    /// Whether refused commands are wanted, too.
    pub(super) refused: bool,
}

/// Which events are folded in.
#[derive(Debug, Clone)]
pub(super) enum Selection {
    All,
    /// Those that were recorded until then.
    RecordedUntil(DateTime<Utc>),
    /// All save those that another build has left out.
    Without(Arc<LeftOut>),
}

impl Selection {
    fn takes(&self, event: &Recorded) -> bool {
        match self {
            Self::All => true,
            Self::RecordedUntil(time) => event.envelope.recorded_at <= *time,
            Self::Without(left_out) => !left_out.has(event),
        }
    }

    /// Whether what has no business time is taken.
    fn takes_recorded(&self, recorded_at: DateTime<Utc>) -> bool {
        match self {
            Self::All | Self::Without(_) => true,
            Self::RecordedUntil(time) => recorded_at <= *time,
        }
    }
}

impl SourceReader {
    /// Reads on from the checkpoints of these partitions, and returns only with an error that trying again can't mend.
    pub(super) async fn run(self, checkpoints: Vec<(u32, Checkpoint)>) -> LogError {
        let resume = |(partition, checkpoint): &(u32, Checkpoint)| {
            (*partition, PartitionReader::resume(self.source.clone(), *partition, checkpoint))
        };
        let mut readers: HashMap<_, _> = checkpoints.iter().map(resume).collect();
        let mut pause = Pause::new("reading the log");
        loop {
            let Err(error) = self.follow(&mut readers, &mut pause).await;
            if !error.is_retryable() {
                return error;
            }
            let error = Arc::new(Error::Log { projection: self.board.projection().clone(), source: error });
            self.board.trouble(Origin::Source(self.index), error.clone());
            tokio::time::sleep(pause.grow(self.board.projection(), &error)).await;
        }
    }

    async fn follow(
        &self,
        readers: &mut HashMap<u32, PartitionReader>,
        pause: &mut Pause,
    ) -> Result<std::convert::Infallible, LogError> {
        let from: Vec<_> = readers.values().map(|reader| (reader.partition(), reader.next())).collect();
        let mut log = self.log.reader(&self.source.topic, &from).await?;
        loop {
            let batch = log.next().await?;
            if pause.reset() {
                self.board.well(Origin::Source(self.index));
            }
            let reader = readers.get_mut(&batch.partition).expect("a log reads the partitions that it was asked for");
            self.feed(reader, batch).await?;
        }
    }

    async fn feed(&self, reader: &mut PartitionReader, batch: Batch) -> Result<(), LogError> {
        let limits = self.queue.limits();
        let place = self.first_place + batch.partition as usize;
        let until = self.until.as_ref().map_or(u64::MAX, |until| until[batch.partition as usize]);
        if reader.next() >= until {
            return Ok(());
        }
        let mut chunk = Chunk::at(place, reader.checkpoint());
        for stored in batch.records.into_iter().take_while(|stored| stored.offset < until) {
            self.take(&mut chunk, reader, stored)?;
            if chunk.weight() >= limits.events || chunk.bytes >= limits.bytes {
                let full = std::mem::replace(&mut chunk, Chunk::at(place, reader.checkpoint()));
                self.push(cut(full, reader)).await;
            }
        }
        reader.skip_to(batch.next.min(until));
        self.push(cut(chunk, reader)).await;
        Ok(())
    }

    async fn push(&self, chunk: Chunk) {
        if let Some(since) = chunk.since {
            self.board.backlog().read(chunk.place, chunk.read, since);
        }
        self.queue.push(chunk).await;
    }
}

impl SourceReader {
    /// Feeds a record to the reader and adds what comes of it to the chunk.
    fn take(&self, chunk: &mut Chunk, reader: &mut PartitionReader, stored: StoredRecord) -> Result<(), LogError> {
        let (offset, timestamp_ms) = (stored.offset, stored.record.timestamp_ms);
        let bytes = stored.record.value.as_ref().map_or(0, Bytes::len);
        match take(chunk, reader, stored, &self.selection)? {
            Some(answers) if self.refused => {
                let recorded_at = DateTime::from_timestamp_millis(timestamp_ms).unwrap_or_default();
                let (partition, category) = (reader.partition(), &self.source.category);
                let one = |(place, entry)| RefusedCommand {
                    category: category.clone(),
                    partition,
                    offset,
                    place,
                    recorded_at,
                    entry,
                };
                if self.selection.takes_recorded(recorded_at) {
                    chunk.refused.extend((0..).zip(answers.answers).map(one));
                    chunk.bytes += 2 * bytes;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Feeds a record to the reader and adds what comes of it to the chunk, but answers, which are given back.
fn take(
    chunk: &mut Chunk,
    reader: &mut PartitionReader,
    stored: StoredRecord,
    selection: &Selection,
) -> Result<Option<Answers>, LogError> {
    /// What an event takes in memory beside its payload, roughly.
    const EVENT_BYTES: usize = 700;
    let (offset, timestamp_ms) = (stored.offset, stored.record.timestamp_ms);
    let (key, value) = (stored.record.key.clone(), stored.record.value.clone());
    match reader.feed(stored)? {
        Fed::Events(mut events) => {
            chunk.since = chunk.since.or(events.first().map(|event| event.envelope.recorded_at));
            events.retain(|event| selection.takes(event));
            chunk.bytes += events.iter().map(|event| event.envelope.payload.len() + EVENT_BYTES).sum::<usize>();
            chunk.events.extend(events);
            chunk.ends_here(reader.checkpoint());
        }
        Fed::Foreign(reason) => {
            tracing::warn!(topic_partition = reader.partition(), offset, reason, "a record that is not an event");
            let value = value.unwrap_or_default();
            chunk.bytes += key.len() + value.len() + EVENT_BYTES;
            chunk.quarantined.push(Quarantined { offset, reason, timestamp_ms, key, value });
        }
        Fed::Void(reason) => {
            tracing::info!(topic_partition = reader.partition(), offset, ?reason, "a void record");
            chunk.void += 1;
        }
        Fed::Answers(answers) => return Ok(Some(answers)),
        Fed::Nothing | Fed::Erased(_) | Fed::Claim(_) | Fed::Copied(_) => {}
    }
    Ok(None)
}

/// Ends a chunk where the reader is.
fn cut(chunk: Chunk, reader: &PartitionReader) -> Chunk {
    Chunk { to: reader.checkpoint(), read: reader.next(), ..chunk }
}
