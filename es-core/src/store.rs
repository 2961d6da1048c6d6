//! The local state store: states, command ids and the reader's checkpoint of each partition, in one atomic batch.
//!
//! It can be deleted at any time: everything in it is made of the log. Its formats are for this machine alone and
//! may change with a release; a store of another format is built anew.

mod disk;
mod memory;

use std::fmt;

use crate::error::Cause;

pub(crate) use disk::DiskStore;
pub(crate) use memory::MemoryStore;

/// What a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Aggregates' states by partition and id.
    States,
    /// Checkpoints by partition.
    Checkpoints,
    /// Command ids of a stretch of time. They are forgotten by dropping the whole table, which costs nothing.
    Ids(u64),
}

/// One change: a value to set.
pub(crate) struct Write {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

/// A key-value store with atomic batches. Keys begin with the partition.
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// All or nothing, also through a crash. Not durable at once: the log is.
    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError>;
    /// Removes everything of a partition.
    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError>;
    /// Removes the tables of command ids before this one.
    fn forget_ids_before(&self, oldest: u64) -> Result<(), StoreError>;
    /// Whether writing takes no time.
    fn is_in_memory(&self) -> bool {
        false
    }
}

/// A failure of the local state store. Its folder can always be deleted: it is built anew from the log.
#[derive(Debug, thiserror::Error)]
#[error("{action} the local state store failed")]
pub struct StoreError {
    action: &'static str,
    #[source]
    source: Cause,
}

impl StoreError {
    pub(crate) fn new(action: &'static str, source: impl Into<Cause>) -> Self {
        Self { action, source: source.into() }
    }
}
