//! What a verification found.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::domain::ids::{StreamId, Version};

/// How far a verification is, in records of the log; where partitions are read several times, `done` comes past `total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Records read.
    pub done: u64,
    /// Records there were when it began.
    pub total: u64,
}

/// What was found in all partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// One entry a partition.
    pub partitions: Vec<Verified>,
    /// What is wrong with notes that were given.
    pub notes: Vec<String>,
}

/// What was found in a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// The partition.
    pub partition: u32,
    /// Events that count.
    pub events: u64,
    /// Aggregates that they belong to, or were erased.
    pub aggregates: u64,
    /// Records of superseded writers, which do not count.
    pub void: u64,
    /// Records that are not ours.
    pub foreign: u64,
    /// Notes in the seals topic that are right.
    pub notes: u64,
    /// The last of them: up to there, what is in the log is what was signed, but for the findings.
    pub sealed: Option<Sealed>,
    /// Events, and erasures, that came after it: nothing protects them yet.
    pub unsealed: u64,
    /// Aggregates that were erased, in the order of the log; at most 1,000.
    pub erased: Vec<Erased>,
    /// What is wrong, in the order of the log; at most 100.
    pub findings: Vec<Finding>,
}

/// What was signed last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The number of events, and of erasures.
    pub size: u64,
    /// When, by the clock of who signed.
    pub signed_at: DateTime<Utc>,
    /// The name that stands with the signature.
    pub by: String,
}

/// An aggregate of which the events were erased.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// The aggregate.
    pub stream: StreamId,
    /// Up to this version.
    pub version: Version,
    /// When that was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// Something that is not as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The partition.
    pub partition: u32,
    /// The place among the partition's events, from 0: so many before it are as they were.
    pub index: u64,
    /// Where it is in the log, if something is there.
    pub offset: Option<u64>,
    /// The event, as far as it can be told.
    pub event: Option<(StreamId, Version)>,
    /// What is wrong.
    pub wrong: Wrong,
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wrong {
    /// Its fields, its payload or its hash were changed: its hash is not that of the rest.
    Changed,
    /// It does not follow on the aggregate's event before it; how.
    Chain(String),
    /// Its hash is right, and another event was sealed at its place, which is gone.
    Rewritten,
    /// An event was sealed at this place, and is gone.
    Dropped,
    /// It was sealed at this place, and is further on now.
    Moved,
    /// It was not sealed here; what was comes after it.
    Inserted,
    /// It was sealed at this place, and is there, but does not count any more; why.
    NoLongerCounts(String),
    /// So many events that were sealed at this place, and are the last ones, are gone.
    CutOff(u64),
    /// The events before a place are not those of which somebody signed the root.
    NotAsSigned(Box<Sealed>),
    /// The log can't be read from here on; why.
    Unreadable(String),
    /// The seals topic was damaged or changed; how.
    Seals(String),
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.notes.is_empty() && self.partitions.iter().all(|partition| partition.findings.is_empty())
    }

    /// The first that is wrong with an event, of the first partition that has any.
    pub fn first(&self) -> Option<&Finding> {
        self.partitions.iter().find_map(|partition| partition.findings.first())
    }

    /// Events that count.
    pub fn events(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.events).sum()
    }

    /// Events, and erasures, that were sealed.
    pub fn sealed(&self) -> u64 {
        self.partitions.iter().filter_map(|partition| partition.sealed.as_ref()).map(|sealed| sealed.size).sum()
    }

    /// Those that were not.
    pub fn unsealed(&self) -> u64 {
        self.partitions.iter().map(|partition| partition.unsealed).sum()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} event {}", self.partition, self.index)?;
        if let Some(offset) = self.offset {
            write!(f, " at offset {offset}")?;
        }
        if let Some((stream, version)) = &self.event {
            write!(f, " ({stream} version {version})")?;
        }
        write!(f, ": {}", self.wrong)
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed => f.write_str("it was changed: its hash is not that of its fields and payload"),
            Self::Chain(how) => f.write_str(how),
            Self::Rewritten => f.write_str("it was rewritten: its hash is right, and another one was sealed"),
            Self::Dropped => f.write_str("it was sealed, and is gone"),
            Self::Moved => f.write_str("it was sealed here, and stands further on now"),
            Self::Inserted => f.write_str("it was inserted: what was sealed here comes after it"),
            Self::NoLongerCounts(why) => write!(f, "it was sealed, and does not count any more: {why}"),
            Self::CutOff(events) => write!(f, "the log was cut off: {events} events that were sealed are gone"),
            Self::NotAsSigned(signed) => {
                let Sealed { size, signed_at, by } = &**signed;
                let at = signed_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
                write!(f, "among the events from here to {size} something is not what {by} signed at {at}")
            }
            Self::Unreadable(why) => write!(f, "the log can't be read on: {why}"),
            Self::Seals(how) => write!(f, "the seals are damaged: {how}"),
        }
    }
}
