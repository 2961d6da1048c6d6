//! The local state store: states, command ids and the reader's checkpoint of each partition, in one atomic batch.
//!
//! It can be deleted at any time: everything in it is made of the log. Its formats are for this machine alone and
//! may change with a release; a store of another format is built anew. So is one that is damaged: whoever finds that
//! out condemns it, everybody who works with it is told so from then on, and [`StateFolder::store`] gives a new one.

mod disk;
mod folder;
pub(crate) mod key;
mod memory;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::error::Cause;

pub(crate) use folder::StateFolder;
pub(crate) use key::Span;
pub(crate) use memory::MemoryStore;

/// What a key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Table {
    /// Aggregates' states by partition and id.
    States,
    /// Checkpoints by partition.
    Checkpoints,
    /// Command ids of a stretch of time. They are forgotten by dropping the whole table, which costs nothing.
    Ids(Span),
}

impl Table {
    /// The stretch of time of a table of command ids.
    pub(crate) fn span(self) -> Option<Span> {
        if let Self::Ids(span) = self { Some(span) } else { None }
    }
}

/// One change: a value to set.
pub(crate) struct Write {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Bytes,
}

/// A key-value store with atomic batches. Keys begin with the partition; [`key`] makes them.
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;
    /// The first entries of a table whose keys begin with `prefix` and come after `after`, at most so many.
    fn page(&self, table: Table, prefix: &[u8], after: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError>;
    /// The tables of command ids that there are.
    fn id_tables(&self) -> Vec<Span>;
    /// All or nothing, also through a crash. Not durable at once: the log is.
    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError>;
    /// Sets many values at once, in the order of their keys, none twice. Quicker than writing them; a crash may leave
    /// any part of them.
    fn load(&self, table: Table, sorted: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), StoreError>;
    /// Removes everything of a partition.
    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError>;
    /// Removes the tables of command ids that `which` names. Nothing is written between that and the removal.
    fn forget_ids(&self, which: &dyn Fn() -> Result<Vec<Span>, StoreError>) -> Result<(), StoreError>;
    /// Whether writing takes no time.
    fn is_in_memory(&self) -> bool {
        false
    }
    /// It holds what can't be right: nothing of it is to be used any more, by nobody.
    fn condemn(&self);
    /// Whether it was condemned, by a caller or because it failed.
    fn is_condemned(&self) -> bool;
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
