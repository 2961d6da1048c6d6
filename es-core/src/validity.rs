//! The validity rule: which records of a partition count. Decided by the log, the same for every reader, in
//! constant memory.
//!
//! Several processes may believe that they own a partition, and what a paused or cut-off one sent may land late.
//! The claim that stands last in the log decides: only its writer's records count, in its sequence, and none that
//! lies lower than where that sequence can be. Owner, projections, audit and tools all read through this.

use serde::{Deserialize, Serialize};

use crate::ids::Epoch;
use crate::record::Stamp;

/// The rule's state: the current claim, the last sequence, and what is held of one command.
#[derive(Debug, Clone)]
pub struct Rule<T> {
    current: Current,
    held: Vec<(u64, u64, T)>,
}

/// The state without what is held: what a checkpoint stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The epoch of the current claim; number 0 before the first.
    pub epoch: Epoch,
    /// The offset of the current claim.
    pub claim_offset: u64,
    /// The sequence of the last record that counted; 0 right after the claim.
    pub last_sequence: u64,
}

/// What a record is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It counts and completes a command: these are the command's events.
    Released(Vec<T>),
    /// It counts; more of its command must come first.
    Held,
    /// It does not count.
    Void(VoidReason),
}

/// Why a record does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoidReason {
    /// Its number is below the current claim's: a superseded writer.
    Superseded,
    /// Its number is above the current claim's: a claim was lost. Alarm; do not serve.
    LostClaim,
    /// It has the current number and another writer: the loser of a duel, or a copy.
    OtherWriter,
    /// Its sequence is not above the last: a copy.
    Repeated,
    /// Its offset is too low for its sequence: the log lost its tail.
    OffsetTooLow,
    /// It is not the next event of the command that is held.
    Incomplete,
    /// A claim whose number is not above the current one: it lost.
    LostDuel,
}

impl<T> Rule<T> {
    /// Starts at a place in the log where `current` was the state and nothing was held.
    pub fn resume(current: Current) -> Self {
        Self { current, held: Vec::new() }
    }

    /// The state without what is held.
    pub fn current(&self) -> Current {
        self.current
    }

    /// Where a reader that has read up to `next` goes on after a restart, and in which state: at the first held
    /// event, since what is held is not stored.
    pub fn resume_point(&self, next: u64) -> (u64, Current) {
        match self.held.first() {
            None => (next, self.current),
            Some((offset, sequence, _)) => (*offset, Current { last_sequence: sequence - 1, ..self.current }),
        }
    }

    /// Takes a claim. One with a higher number becomes the current one, and what was held is void.
    ///
    /// # Errors
    /// [`VoidReason::LostDuel`] when its number is not higher.
    pub fn claim(&mut self, offset: u64, epoch: Epoch) -> Result<(), VoidReason> {
        if epoch.number <= self.current.epoch.number {
            return Err(VoidReason::LostDuel);
        }
        self.current = Current { epoch, claim_offset: offset, last_sequence: 0 };
        self.held.clear();
        Ok(())
    }

    /// Takes an answers record.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn answers(&mut self, offset: u64, stamp: Stamp) -> Result<(), VoidReason> {
        self.advance(offset, stamp)
    }

    /// Takes an event.
    pub fn event(&mut self, offset: u64, stamp: Stamp, event: T) -> Verdict<T> {
        if let Err(reason) = self.advance(offset, stamp) {
            return Verdict::Void(reason);
        }
        if stamp.index == 0 {
            self.held.clear();
        } else if self.held.len() != stamp.index as usize {
            self.held.clear();
            return Verdict::Void(VoidReason::Incomplete);
        }
        if stamp.count == 1 {
            return Verdict::Released(vec![event]);
        }
        self.held.push((offset, stamp.sequence, event));
        if stamp.index + 1 < stamp.count {
            return Verdict::Held;
        }
        Verdict::Released(self.held.drain(..).map(|(_, _, event)| event).collect())
    }

    /// Notes what this process itself appended and saw proven, without reading it back.
    pub fn proven(&mut self, last_sequence: u64) {
        debug_assert!(self.held.is_empty(), "an owner reads to its claim, which voids what is held, before it appends");
        self.current.last_sequence = last_sequence;
    }

    fn advance(&mut self, offset: u64, stamp: Stamp) -> Result<(), VoidReason> {
        let current = &mut self.current;
        if stamp.epoch.number > current.epoch.number {
            return Err(VoidReason::LostClaim);
        }
        if stamp.epoch.number < current.epoch.number {
            return Err(VoidReason::Superseded);
        }
        if stamp.epoch.writer != current.epoch.writer {
            return Err(VoidReason::OtherWriter);
        }
        if stamp.sequence <= current.last_sequence {
            return Err(VoidReason::Repeated);
        }
        if offset < current.claim_offset + stamp.sequence {
            return Err(VoidReason::OffsetTooLow);
        }
        current.last_sequence = stamp.sequence;
        Ok(())
    }
}
