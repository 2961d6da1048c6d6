//! The names of things: checked newtypes used at every seam.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::random::{Random, SystemRandom, unique};

/// The longest aggregate id, command id, correlation id, causation id or actor, in bytes.
pub const ID_MAX_BYTES: usize = 200;

/// What can be the id of an aggregate: anything that is written as text and read back.
///
/// `String`, `Uuid`, integers and newtypes with [`fmt::Display`] and [`FromStr`] are ids without
/// further work. The text is what is stored, hashed to a partition and shown, so it must stay the same for ever.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be the id of an aggregate",
    label = "a trait is missing",
    note = "`String`, `Uuid` and integers are ids, and so is a type with `#[derive(Debug, Clone, PartialEq, Eq, Hash)]`, `Display` and `FromStr`, which give its text and read it back; or leave `id` out: then it is a `String`"
)]
pub trait AggregateId: Sized + Send + Sync + 'static {
    /// The text that is stored.
    fn to_text(&self) -> String;

    /// The id with this text; `None` when the text is that of no id of this type.
    fn from_text(text: &str) -> Option<Self>;
}

#[diagnostic::do_not_recommend]
impl<T: Clone + fmt::Debug + fmt::Display + FromStr + Eq + Hash + Send + Sync + 'static> AggregateId for T {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

/// Checks the text of an id: 1 to [`ID_MAX_BYTES`] bytes, no control characters.
fn check(what: &'static str, text: &str) -> Result<(), InvalidId> {
    let reason = if text.is_empty() {
        "it is empty"
    } else if text.len() > ID_MAX_BYTES {
        "it is longer than 200 bytes"
    } else if text.chars().any(char::is_control) {
        "it has a control character"
    } else {
        return Ok(());
    };
    Err(InvalidId::new(what, text, reason))
}

/// A text that can't be the id it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not valid: {reason}")]
pub struct InvalidId {
    what: &'static str,
    text: String,
    reason: &'static str,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, text: &str, reason: &'static str) -> Self {
        let shown: String = text.chars().take(80).collect();
        Self { what, text: shown, reason }
    }

    /// What the text should have been, for example `command id`.
    pub fn what(&self) -> &'static str {
        self.what
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            #[doc = concat!("Checks `text` and makes it a ", $what, ".")]
            ///
            /// # Errors
            /// [`InvalidId`] when it is empty, longer than [`ID_MAX_BYTES`] bytes or holds a control character.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidId> {
                let text = text.as_ref();
                check($what, text)?;
                Ok(Self(text.into()))
            }

            /// The text as given.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), &*self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().into()
            }
        }

        impl From<$name> for Arc<str> {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id.to_string().into())
            }
        }
    };
}

text_id!(
    /// The text of an aggregate's id: what keys, headers and the partition hash are made of.
    AggregateKey,
    "aggregate id"
);
text_id!(
    /// Unique id of one command within its aggregate, chosen by the sender: it makes a retry recognisable.
    CommandId,
    "command id"
);
text_id!(
    /// The same on all commands and events of one conversation; copied on.
    CorrelationId,
    "correlation id"
);
text_id!(
    /// Id of the one command or event that directly caused this one.
    CausationId,
    "causation id"
);
text_id!(
    /// Who sent a command: a user, a service, a job.
    Actor,
    "actor"
);

impl CommandId {
    /// A fresh command id (UUIDv4).
    pub fn random() -> Self {
        uuid::Builder::from_random_bytes(unique().to_be_bytes()).into_uuid().into()
    }
}

/// Unique id of one event; fresh for each attempt to record it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// A fresh event id (UUIDv7 of the given time in milliseconds since 1970).
    pub fn fresh(now_ms: u64) -> Self {
        let random: &dyn Random = &SystemRandom;
        Self::of(now_ms, random.u128())
    }

    /// The event id of this time with these random bits, of which the lowest 80 are looked at.
    pub(crate) fn of(now_ms: u64, random: u128) -> Self {
        let [.., a, b, c, d, e, f, g, h, i, j] = random.to_be_bytes();
        Self(uuid::Builder::from_unix_timestamp_millis(now_ms, &[a, b, c, d, e, f, g, h, i, j]).into_uuid())
    }

    /// The id as a UUID.
    pub fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for EventId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The ordered events of one aggregate instance: the aggregate's type name and its id, written `account-42`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    /// The aggregate type's stored name, for example `account`.
    pub category: Arc<str>,
    /// The aggregate's id.
    pub id: AggregateKey,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.category, self.id)
    }
}

/// Place of an event in its stream = count of events up to it: empty is 0, the first event has 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Version(u64);

impl Version {
    /// The version of a stream without events.
    pub const EMPTY: Version = Version(0);

    /// The version with this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version of the next event.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the sender believes the stream's version to be; optional, since the owner decides on the newest state anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpectedVersion {
    /// No belief.
    #[default]
    Any,
    /// No event yet.
    NoStream,
    /// At least one event.
    StreamExists,
    /// Exactly this version.
    Exactly(Version),
}

impl ExpectedVersion {
    /// Whether a stream at `version` is what was expected.
    pub fn holds(self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::NoStream => version == Version::EMPTY,
            Self::StreamExists => version != Version::EMPTY,
            Self::Exactly(expected) => version == expected,
        }
    }
}

impl fmt::Display for ExpectedVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any version"),
            Self::NoStream => f.write_str("no events"),
            Self::StreamExists => f.write_str("at least one event"),
            Self::Exactly(version) => write!(f, "version {version}"),
        }
    }
}

/// A take-over of a partition: the number grows with each, the writer is 64 random bits, fresh for every claim.
///
/// Written `<number>.<writer as 16 hex digits>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Above every number in the log at the time of the claim; 0 only before the first claim.
    pub number: u64,
    /// Random.
    pub writer: u64,
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:016x}", self.number, self.writer)
    }
}

/// A place in the log: an aggregate type's partition, and the offset of an event in it. Written `account/3@1234`.
///
/// A read model contains the event once its worker has gone past that offset.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// The aggregate type's stored name.
    pub category: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// The offset of the event.
    pub offset: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}@{}", self.category, self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let parts = || {
            let (category, rest) = text.split_once('/')?;
            let (partition, offset) = rest.split_once('@')?;
            if category.is_empty() {
                return None;
            }
            Some(Self { category: category.into(), partition: partition.parse().ok()?, offset: offset.parse().ok()? })
        };
        parts().ok_or_else(|| InvalidId::new("position", text, "it is not of the form account/3@1234"))
    }
}

impl TryFrom<String> for Position {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_and_the_message_names_value_and_reason() {
        assert_eq!(AggregateKey::new("").unwrap_err().to_string(), r#"aggregate id "" is not valid: it is empty"#);
        assert_eq!(
            CommandId::new("a\nb").unwrap_err().to_string(),
            r#"command id "a\nb" is not valid: it has a control character"#
        );
        assert!(CommandId::new("x".repeat(200)).is_ok());
        assert!(CommandId::new("x".repeat(201)).is_err());
    }

    #[test]
    fn a_position_is_read_as_it_is_written() {
        let position: Position = "account/3@1234".parse().unwrap();
        assert_eq!((position.partition, position.offset), (3, 1234));
        assert_eq!(position.to_string(), "account/3@1234");
        for wrong in ["", "account", "account/3", "account/x@1", "/3@1", "account/3@-1"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
