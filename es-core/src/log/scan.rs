//! Reading a part of a partition from its begin to its end, where others follow it for ever.

use std::ops::Range;

use crate::log::{Log, LogError, LogReader, StoredRecord};

/// The records of a partition between two offsets, batch by batch.
pub(crate) struct Scan {
    /// None when there is nothing to read.
    reader: Option<Box<dyn LogReader>>,
    /// Up to where it was read, and what of that is behind the end.
    read_to: u64,
    ahead: Vec<StoredRecord>,
    end: u64,
}

impl std::fmt::Debug for Scan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scan").field("read_to", &self.read_to).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Scan {
    /// Of these offsets, which are within the partition's bounds.
    pub(crate) async fn open(
        log: &dyn Log,
        topic: &str,
        partition: u32,
        offsets: Range<u64>,
    ) -> Result<Self, LogError> {
        let reader = match offsets.is_empty() {
            true => None,
            false => Some(log.reader(topic, &[(partition, offsets.start)]).await?),
        };
        Ok(Self { reader, read_to: offsets.start, ahead: Vec::new(), end: offsets.end })
    }

    /// The next records, of which there may be none; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<StoredRecord>>, LogError> {
        let next = self.ahead.first().map_or(self.read_to, |stored| stored.offset);
        let Some(reader) = self.reader.as_mut().filter(|_| next < self.end) else { return Ok(None) };
        let mut records = std::mem::take(&mut self.ahead);
        if records.is_empty() {
            let batch = reader.next().await?;
            (self.read_to, records) = (batch.next, batch.records);
        }
        self.ahead = records.split_off(records.partition_point(|stored| stored.offset < self.end));
        Ok(Some(records))
    }

    /// How many offsets there are before the end; of records there may be fewer.
    pub(crate) fn offsets_left(&self) -> u64 {
        self.end.saturating_sub(self.read_to)
    }

    /// Goes on to a later end, if there was anything to read. Tells whether it is later.
    pub(crate) fn extend(&mut self, end: u64) -> bool {
        let later = end > self.end;
        self.end = self.end.max(end);
        later
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::log::memory::MemoryLog;
    use crate::log::{Record, TopicKind, TopicSpec};

    #[tokio::test]
    async fn what_was_read_behind_the_end_is_there_when_it_moves() {
        let log = MemoryLog::new(1);
        log.prepare(&TopicSpec { name: "t".into(), kind: TopicKind::Seals }).await.unwrap();
        let record = |key: u8| Record {
            key: Bytes::copy_from_slice(&[key]),
            value: Some(Bytes::new()),
            headers: Vec::new(),
            timestamp_ms: 0,
        };
        log.writer("t", 0).await.unwrap().append((0..10).map(record).collect()).await.unwrap();
        let mut scan = Scan::open(&log, "t", 0, 2..4).await.unwrap();
        let mut offsets = Vec::new();
        for end in [4, 5, 10] {
            assert_eq!(scan.extend(end), end > 4);
            assert!(!scan.extend(end - 1), "it never ends earlier");
            while let Some(records) = scan.next().await.unwrap() {
                offsets.extend(records.iter().map(|stored| stored.offset));
            }
            assert_eq!(offsets, (2..end).collect::<Vec<_>>());
        }
        assert_eq!(Scan::open(&log, "t", 0, 3..3).await.unwrap().next().await.unwrap(), None);
    }
}
