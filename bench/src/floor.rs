//! The raw form of the same work: the records that ours wrote, written again without deciding anything.

mod file;
mod hops;
mod produce;
mod sql;

use std::time::Duration;

use es_core::EventSource;
use es_core::log::{Log, Record};

pub(crate) use self::file::{FileLoop, FileOnce};
pub(crate) use self::hops::{Hop, Hops};
pub(crate) use self::produce::Produce;
pub(crate) use self::sql::BulkInsert;
use crate::Failure;

/// How long ours runs before its records are taken as templates.
pub(crate) const SAMPLING: Duration = Duration::from_millis(300);
const TEMPLATES: usize = 1_000;

/// Event records that ours wrote.
pub(crate) async fn templates(log: &dyn Log, source: &EventSource) -> Result<Vec<Record>, Failure> {
    records(log, &source.topic, source.partitions).await
}

/// Records that ours wrote to a topic.
pub(crate) async fn records(log: &dyn Log, topic: &str, partitions: u32) -> Result<Vec<Record>, Failure> {
    let mut from = Vec::new();
    for partition in 0..partitions {
        let bounds = log.bounds(topic, partition).await?;
        if bounds.end > bounds.start + 1 {
            from.push((partition, bounds.start + 1)); // the first of the events is the claim
        }
    }
    let mut reader = log.reader(topic, &from).await?;
    let batch = reader.next().await?;
    Ok(batch.records.into_iter().map(|stored| stored.record).take(TEMPLATES).collect())
}

/// What the embedded log stores of a record, or as much: key, value, the headers' values, and lengths.
pub(crate) fn bytes(record: &Record) -> Vec<u8> {
    const STORE_KEY: usize = 20;
    let mut bytes = vec![0; STORE_KEY + 8 + 4 + 2 * record.headers.len()];
    bytes.extend_from_slice(&record.key);
    bytes.extend_from_slice(record.value.as_deref().unwrap_or_default());
    for (_, value) in &record.headers {
        bytes.extend_from_slice(value);
    }
    bytes
}
