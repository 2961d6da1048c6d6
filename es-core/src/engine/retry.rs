//! Parked aggregates are tried again: their events are folded beside the owner, which goes on with all others. It takes
//! the state if that is of all their events.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::ids::AggregateKey;
use crate::engine::state::Entry;
use crate::log::reader::{Checkpoint, EventSource, PartitionReader};
use crate::log::{Log, LogError};

/// What became of a parked aggregate that was tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Retried {
    /// Its commands are decided from now on.
    Resumed,
    /// It was not parked.
    NotParked,
    /// It still can't be used.
    Parked {
        /// What is wrong with its stored events or its state.
        reason: String,
    },
}

/// Why a parked aggregate could not be tried again. Nothing has changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RetryError {
    /// Only the process that owns its partition can do it.
    #[error("partition {partition} is not served by this process ({reason}): try again at the one that serves it")]
    NotServed {
        /// The partition that the aggregate lives in.
        partition: u32,
        /// What this process does with it.
        reason: String,
    },
    /// The partition was taken over, or another aggregate in it went on, while the events were read.
    #[error(
        "aggregates of partition {partition} went on while the events of aggregate {aggregate} were read: try again"
    )]
    Overtaken {
        /// The partition that the aggregate lives in.
        partition: u32,
        /// Which one.
        aggregate: AggregateKey,
    },
    /// The log can't be read.
    #[error("reading the events of aggregate {aggregate}")]
    Log {
        /// Which one.
        aggregate: AggregateKey,
        /// What the log says.
        #[source]
        source: LogError,
    },
}

/// A state for the owner to take.
pub(crate) struct Refolded<A: Aggregate> {
    pub(crate) aggregate: AggregateKey,
    pub(crate) entry: Arc<Entry<A>>,
    /// The offset up to which the log was read for it, and how often an aggregate had gone on before that.
    pub(crate) read_to: u64,
    pub(crate) resumed: u64,
    /// Nothing is told where events may be missing.
    pub(crate) taken: oneshot::Sender<Retried>,
}

/// Folds the events of one aggregate from the beginning of the log; tells up to which offset that was read.
pub(crate) async fn refold<A: Handle + Apply>(
    log: &dyn Log,
    source: &EventSource,
    partition: u32,
    aggregate: &AggregateKey,
) -> Result<(Result<Entry<A>, String>, u64), LogError> {
    let bounds = log.bounds(&source.topic, partition).await?;
    let mut reader = PartitionReader::resume(source.clone(), partition, &Checkpoint::default());
    let mut tail = log.reader(&source.topic, &[(partition, bounds.start)]).await?;
    let mut entry = Entry::default();
    while reader.next() < bounds.end {
        let batch = tail.next().await?;
        for stored in batch.records {
            entry.follow(aggregate, reader.feed(stored)?);
        }
        reader.skip_to(batch.next);
    }
    Ok((entry.usable(), reader.next()))
}
