//! The remembered answer to a command.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

use crate::domain::hash::CommandHash;
use crate::domain::ids::{ExpectedVersion, Version};
use crate::log::record::Answer;

/// The remembered answer to a command. Stored for ever, in the snapshots topic: `docs/formats.md`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Remembered {
    #[prost(int64, tag = "1")]
    pub(crate) recorded_at_ms: i64,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    /// The offset of its last event, or of the answers record.
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
    /// The version of the first event; of the state where there is none.
    #[prost(uint64, tag = "4")]
    pub(crate) first: u64,
    /// The number of events.
    #[prost(uint32, tag = "5")]
    pub(crate) events: u32,
    /// An [`Answer`] in JSON where there is no event.
    #[prost(string, tag = "6")]
    answer: String,
    /// Of a version conflict: what earlier sendings of the same command expected, in JSON, and what may hold by now.
    #[prost(string, repeated, tag = "7")]
    conflicts: Vec<String>,
}

/// Conflicts of one command id that are told apart; then the last is its answer for good.
const CONFLICTS_MAX: usize = 8;

impl Remembered {
    pub(crate) fn accepted(recorded_at_ms: i64, hash: CommandHash, offset: u64, first: Version, events: u32) -> Self {
        Self { recorded_at_ms, hash: hash.0.to_vec(), offset, first: first.get(), events, ..Self::default() }
    }

    pub(crate) fn answered(recorded_at_ms: i64, hash: CommandHash, offset: u64, at: Version, answer: &Answer) -> Self {
        let answer = serde_json::to_string(answer).expect("an answer holds text and numbers only");
        Self { recorded_at_ms, hash: hash.0.to_vec(), offset, first: at.get(), answer, ..Self::default() }
    }

    /// The version after the command.
    pub(crate) fn version(&self) -> u64 {
        self.first + u64::from(self.events.max(1)) - 1
    }

    /// Reads one that was stored, perhaps by another release.
    pub(crate) fn parse(value: Bytes) -> Result<Self, crate::domain::error::Cause> {
        let known = Self::decode(value)?;
        if known.events == 0 {
            serde_json::from_str::<Answer>(&known.answer)?;
        }
        Ok(known)
    }

    /// Whether it is the answer to the command with this hash; `None` where this program can't tell.
    pub(crate) fn is_of(&self, hash: CommandHash) -> Option<bool> {
        CommandHash(self.hash.as_slice().try_into().ok()?).is_same(hash)
    }

    /// What a sending with this expectation is told, if anything is known for it. A precondition is no part of what a
    /// command id stands for: after a version conflict the command may be sent with another one, and is decided anew. Not with one
    /// that was told before to conflict: a copy of that sending may still come, and must not take effect.
    pub(crate) fn told(self: &Arc<Self>, expected: ExpectedVersion) -> Option<Arc<Self>> {
        let Some(Answer::Conflict(last)) = self.answer() else { return Some(self.clone()) };
        if last == expected || self.conflicts.len() >= CONFLICTS_MAX {
            return Some(self.clone());
        }
        let known = self.conflicts.contains(&expected_text(expected));
        let answer = serde_json::to_string(&Answer::Conflict(expected)).expect("an answer holds text and numbers only");
        known.then(|| Arc::new(Self { answer, ..Self::clone(self) }))
    }

    /// What is known once this was decided after `before` under the same id: a conflict never stands in for what took effect.
    pub(super) fn after(mut self, before: &Arc<Self>) -> Arc<Self> {
        let (Some(Answer::Conflict(now)), same) = (self.answer(), before.hash == self.hash) else {
            return Arc::new(self);
        };
        let Some(Answer::Conflict(last)) = before.answer().filter(|_| same) else { return before.clone() };
        self.conflicts.clone_from(&before.conflicts);
        if last != now && may_hold_after(last, before.version()) && self.conflicts.len() < CONFLICTS_MAX {
            let text = expected_text(last);
            if !self.conflicts.contains(&text) {
                self.conflicts.push(text);
            }
        }
        Arc::new(self)
    }

    pub(super) fn is_conflict(&self) -> bool {
        matches!(self.answer(), Some(Answer::Conflict(_)))
    }

    /// The answer of a command without events; `None` for one that was accepted with events.
    pub(crate) fn answer(&self) -> Option<Answer> {
        (self.events == 0).then(|| serde_json::from_str(&self.answer).expect("looked at when it was read"))
    }
}

/// Whether what did not hold at this version may hold at a later one: versions only grow.
fn may_hold_after(expected: ExpectedVersion, version: u64) -> bool {
    match expected {
        ExpectedVersion::Exactly(wanted) => wanted.get() > version,
        ExpectedVersion::NoStream => false,
        ExpectedVersion::Any | ExpectedVersion::StreamExists => true,
    }
}

fn expected_text(expected: ExpectedVersion) -> String {
    serde_json::to_string(&expected).expect("it is a word or a number")
}
