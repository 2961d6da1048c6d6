//! Reading a part of a partition from its begin to its end, where others follow it for ever.

use crate::log::{Log, LogError, LogReader, StoredRecord};

/// The records of a partition between two offsets, batch by batch.
#[derive(Debug)]
pub(crate) struct Scan {
    /// None when there is nothing to read.
    reader: Option<OpenReader>,
    next: u64,
    end: u64,
}

struct OpenReader(Box<dyn LogReader>);

impl std::fmt::Debug for OpenReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OpenReader")
    }
}

impl Scan {
    /// From an offset that is within the partition's bounds, up to another.
    pub(crate) async fn open(
        log: &dyn Log,
        topic: &str,
        partition: u32,
        from: u64,
        end: u64,
    ) -> Result<Self, LogError> {
        let reader = if from < end { Some(OpenReader(log.reader(topic, &[(partition, from)]).await?)) } else { None };
        Ok(Self { reader, next: from, end })
    }

    /// The next records, of which there may be none; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<StoredRecord>>, LogError> {
        let Some(OpenReader(reader)) = self.reader.as_mut().filter(|_| self.next < self.end) else { return Ok(None) };
        let mut batch = reader.next().await?;
        self.next = batch.next;
        batch.records.retain(|stored| stored.offset < self.end);
        Ok(Some(batch.records))
    }
}
