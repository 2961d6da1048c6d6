//! What the owner of a partition is doing, for people and for the tasks beside it.

/// What a partition's owner is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum OwnerState {
    /// Reading the log and claiming the partition; commands are answered "not ready".
    TakingOver {
        /// What it waits for, for people.
        reason: String,
    },
    /// Deciding commands.
    Serving,
    /// The partition is another process's by the word of the group; commands go there.
    Elsewhere,
    /// Shut out by another process's claim. Without a group it stays so; else until the group gives the partition anew.
    Superseded {
        /// The node that claimed.
        by: String,
    },
    /// The log can't be trusted or used; it stays so until the process is started anew.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
    /// Shut down.
    Stopped,
}

impl OwnerState {
    /// Becomes [`OwnerState::TakingOver`] where it was not, with a new reason.
    pub(super) fn take_over(&mut self) -> bool {
        let other = !matches!(self, Self::TakingOver { .. });
        if other {
            *self = Self::TakingOver { reason: "reading the log and claiming the partition".into() };
        }
        other
    }
}
