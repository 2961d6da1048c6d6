//! The order of commands that come over one path, the commands topic.
//!
//! Commands are handed to the owner in the order of the topic, many at once. One that it puts back ("nothing was done")
//! is taken again, and so is every one behind it: else the second would be decided before the first. So from the moment
//! at which one is put back the owner decides no other of the lane.
//!
//! A command may also be answered without being decided: it expired, or its aggregate is parked, or it can't be read
//! here. It stays on the topic, and whoever takes the topic from an earlier place may decide it yet. So later commands
//! to the same aggregate wait until that place is behind what is committed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::ids::AggregateKey;

/// The commands of one run over the topic.
#[derive(Debug, Default)]
pub(crate) struct Lane(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    broken: bool,
    /// Aggregates with commands that were passed over, and their offsets.
    passed: HashMap<AggregateKey, Vec<u64>>,
}

/// A command's place in a lane.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    lane: Arc<Lane>,
    offset: u64,
}

impl Lane {
    pub(crate) fn place(self: &Arc<Self>, offset: u64) -> Place {
        Place { lane: self.clone(), offset }
    }

    /// From now on nothing of it is decided.
    pub(crate) fn end(&self) {
        self.state().broken = true;
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.state().broken
    }

    /// A command to this aggregate was answered without being decided.
    pub(crate) fn pass(&self, id: AggregateKey, offset: u64) {
        self.state().passed.entry(id).or_default().push(offset);
    }

    /// What is before this offset nobody takes from the topic again.
    pub(crate) fn committed(&self, offset: u64) {
        self.state().passed.retain(|_, passed| {
            passed.retain(|passed| *passed >= offset);
            !passed.is_empty()
        });
    }

    /// Whether something was passed over that may be taken again.
    pub(crate) fn has_passed(&self) -> bool {
        !self.state().passed.is_empty()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    pub(crate) fn is_open(&self) -> bool {
        !self.lane.has_ended()
    }

    /// Whether no earlier command to the aggregate was passed over.
    pub(crate) fn is_next_of(&self, id: &AggregateKey) -> bool {
        let state = self.lane.state();
        state.passed.get(id).is_none_or(|passed| passed.iter().all(|passed| *passed > self.offset))
    }

    pub(crate) fn put_back(&self) {
        self.lane.end();
    }

    pub(crate) fn pass(&self, id: &AggregateKey) {
        self.lane.pass(id.clone(), self.offset);
    }
}

/// Ends a lane when the run over the topic ends, however it ends: before the callers of its commands are gone, so that
/// no later one is decided where an earlier one is found to be without a caller.
pub(crate) struct Ending(pub(crate) Arc<Lane>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}
