//! Where a worker reads.

use std::sync::Arc;

/// A partition of one of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into the worker's sources.
    pub(crate) source: usize,
    pub(crate) category: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}
