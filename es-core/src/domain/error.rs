//! What can go wrong, sorted by what the caller does next.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::ids::{AggregateKey, ExpectedVersion, InvalidId, Version};

/// A boxed cause.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// A stored payload that this program can't read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The type's stored name is not among those of the enum.
    #[error("the type {name:?} is not known to this program")]
    UnknownType {
        /// The stored name.
        name: String,
    },
    /// The type is known, in another shape.
    #[error("the type {name:?} is stored with schema version {stored}, this program knows {known}")]
    UnknownSchemaVersion {
        /// The stored name.
        name: String,
        /// The version that is stored.
        stored: u32,
        /// The version that this program knows.
        known: u32,
    },
    /// The payload has a field that this program would pass over: a later release knows what it means.
    #[error("the payload of type {name:?} has the field {field:?}, which this program does not know")]
    UnknownField {
        /// The stored name.
        name: String,
        /// The way to it, for example `lines.0.note`.
        field: String,
    },
    /// The bytes do not have the shape of the type.
    #[error("the payload of type {name:?} does not fit: {reason}")]
    Payload {
        /// The stored name.
        name: String,
        /// What the codec says.
        reason: String,
    },
}

impl DecodeError {
    /// Whether the program does not know the type at all.
    pub fn is_unknown_type(&self) -> bool {
        matches!(self, Self::UnknownType { .. })
    }
}

/// Why a command has no receipt. What the caller does next decides the variant.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SendError<E: StdError + 'static> {
    /// The domain said no. It is the command's answer for good: the same id gets it again.
    #[error("the command was refused")]
    Refused(#[source] E),
    /// The stream is not at the version that the sender expected. Nothing was done, and never will be for this sending; the
    /// same command may be sent with the same id and another expectation, and is decided anew.
    #[error("the stream is at version {actual}, expected was {expected}")]
    Conflict {
        /// What the sender expected.
        expected: ExpectedVersion,
        /// The version at which it was decided.
        actual: Version,
    },
    /// This sending did nothing, and never will: send again later, with the same id. Another id would be another
    /// command, and an earlier sending under the same id may have had an effect, or may still have it.
    #[error("nothing was done, send again with the same command id: {0}")]
    NotDone(NotDone),
    /// It may or may not have happened: send again with the same command id to learn which.
    #[error("the outcome is unknown after {waited:?}{}: send again with the same command id", because(.reason))]
    OutcomeUnknown {
        /// How long the sender waited.
        waited: Duration,
        /// Why nobody answered, where that is known: for example that the owner is of a release without the command.
        reason: Option<String>,
    },
    /// The command id was used before for another command to this aggregate.
    #[error("the command id was used before with another payload: give each command an id of its own")]
    CommandIdReused,
    /// The command can't be carried out as it is; nothing was done. Where its owner says so it is the answer for good.
    #[error("the command is not valid: {0}")]
    Invalid(InvalidCommand),
    /// The handler, or `apply` of a new event, panicked; nothing was appended. It is the command's answer for good.
    #[error("deciding the command panicked: {0}")]
    Panicked(String),
    /// The aggregate's stored events can't be folded, or its state can't be kept. Nothing was done so far: send again,
    /// with the same id, once it is resumed. Nothing is remembered of the command.
    #[error("aggregate {aggregate} is parked, send again with the same command id once it is not: {reason}")]
    Parked {
        /// Which one.
        aggregate: AggregateKey,
        /// What is wrong with its stored events.
        reason: String,
    },
}

impl<E: StdError + 'static> SendError<E> {
    /// Whether sending the same command with the same id again is the right thing to do.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotDone(_) | Self::OutcomeUnknown { .. })
    }

    /// Whether the expected version was not the actual one.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict { .. })
    }
}

fn because(reason: &Option<String>) -> String {
    reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"))
}

/// Why nothing was done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotDone {
    /// The owner of the aggregate's partition is not serving yet, or no longer.
    NotReady {
        /// Why.
        reason: String,
    },
    /// The owner's queue is full.
    Overloaded {
        /// When to try again.
        retry_after: Duration,
    },
    /// The append was in doubt and the log shows that the command did not happen.
    NotInLog,
    /// The command expired before it was decided.
    Expired,
    /// The command came to a partition that its aggregate does not live in.
    Misrouted {
        /// The owner's words.
        reason: String,
    },
    /// The bus was shut down.
    Stopped,
}

impl fmt::Display for NotDone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady { reason } => write!(f, "the owner is not ready: {reason}"),
            Self::Overloaded { retry_after } => write!(f, "the owner is overloaded, retry after {retry_after:?}"),
            Self::NotInLog => f.write_str("an append failed and the log does not hold the command"),
            Self::Expired => f.write_str("it expired before it was decided"),
            Self::Misrouted { reason } => write!(f, "it came to the wrong partition: {reason}"),
            Self::Stopped => f.write_str("the bus was shut down"),
        }
    }
}

/// What is wrong with a command before the domain sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidCommand {
    /// An id that can't be one.
    Id(InvalidId),
    /// Serialising the command, its events or its refusal failed.
    Encoding(String),
    /// An event, answer or command is too large for a record.
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: usize,
        /// The largest that fits, in bytes.
        limit: usize,
    },
    /// One command gave too many events.
    TooManyEvents {
        /// How many.
        count: usize,
        /// The most that one command may give.
        limit: usize,
    },
    /// The owner, in another process, says so in these words.
    Elsewhere(String),
}

/// What is said of a command whose remembered answer is of a kind that a newer release knows.
pub(crate) const NEWER_ANSWER: &str =
    "a newer release decided it, with an answer of a kind that this one does not know: ask a process of that release";

/// Why a command can't be carried out as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unfit {
    /// An event or refusal is too large for a record; sizes in bytes.
    TooLarge {
        /// What is too large: `event` or `refusal`.
        what: String,
        /// Its size.
        bytes: u64,
        /// The largest that fits.
        limit: u64,
    },
    /// It gave more events than one command may.
    TooManyEvents {
        /// How many.
        count: u64,
        /// The most that one command may give.
        limit: u64,
    },
    /// Its events or its refusal can't be written; why.
    Encoding(String),
}

impl From<Unfit> for InvalidCommand {
    fn from(unfit: Unfit) -> Self {
        let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
        match unfit {
            Unfit::TooLarge { what, bytes, limit } => {
                let what = ["refusal", "list of events"].into_iter().find(|known| *known == what).unwrap_or("event");
                Self::TooLarge { what, bytes: size(bytes), limit: size(limit) }
            }
            Unfit::TooManyEvents { count, limit } => Self::TooManyEvents { count: size(count), limit: size(limit) },
            Unfit::Encoding(reason) => Self::Encoding(reason),
        }
    }
}

impl fmt::Display for InvalidCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(error) => error.fmt(f),
            Self::Encoding(reason) => write!(f, "it can't be encoded: {reason}"),
            Self::TooLarge { what, bytes, limit } => {
                write!(f, "its {what} has {bytes} bytes, at most {limit} are allowed: send less at once")
            }
            Self::TooManyEvents { count, limit } => {
                write!(f, "it gave {count} events, at most {limit} are allowed: split the command")
            }
            Self::Elsewhere(reason) => f.write_str(reason),
        }
    }
}

impl StdError for NotDone {}
impl StdError for InvalidCommand {}
