//! One partition, as the tasks see it that run beside its owner.

use std::sync::Arc;

use tokio::sync::watch;

use crate::engine::figures::Counters;
use crate::engine::owner_state::OwnerState;

/// The handle of a partition: what its owner is doing, and what was counted.
#[derive(Debug, Clone)]
pub(crate) struct Partition {
    pub(crate) status: watch::Receiver<OwnerState>,
    pub(crate) counters: Arc<Counters>,
}

impl Partition {
    /// Whether its owner is here and decides commands.
    pub(crate) fn is_served(&self) -> bool {
        *self.status.borrow() == OwnerState::Serving
    }
}

/// Whether a partition is this process's to claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mandate {
    /// There is no group: the process that started last is right.
    Sole,
    /// The process reads the log before it joins the group.
    CatchingUp,
    /// The group has not said yet.
    Waiting,
    /// The group says so. The number grows with each time that it says so anew.
    Held(u64),
    /// It is another process's.
    Elsewhere,
    /// The process was put out of the group for good; why.
    Expelled(String),
}

impl Mandate {
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::Sole | Self::Held(_))
    }

    /// The number of the word that allows to claim.
    pub(crate) fn grant(&self) -> u64 {
        if let Self::Held(grant) = self { *grant } else { 0 }
    }
}
