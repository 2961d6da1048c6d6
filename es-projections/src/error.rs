//! What can go wrong, sorted by what the caller does next.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use es_core::log::LogError;
use es_core::{Cause, EventId, Position, Version};

/// What a projection may return: any error, so that `?` works on all of them.
pub type ProjectionError = Cause;

/// A failure of a read model, its worker or its database.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Try again later: the database can't be reached, is busy, or went away.
    #[error("{doing} on {database} failed: the database can't be reached or is busy")]
    Unavailable {
        /// What was tried.
        doing: String,
        /// The database's URL without its password.
        database: Arc<str>,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Fix the data: the database refuses these rows, and would take others.
    #[error("{doing} on {database} failed: the database refuses the rows")]
    Data {
        /// What was tried.
        doing: String,
        /// The database's URL without its password.
        database: Arc<str>,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Fix the statement, the tables or the rights to them: the database refused it, whatever the rows are.
    #[error("{doing} on {database} failed")]
    Sql {
        /// What was tried.
        doing: String,
        /// The database's URL without its password.
        database: Arc<str>,
        /// What the driver said.
        #[source]
        source: Cause,
    },
    /// Fix the call: a name, a URL, a row or a query is not valid.
    #[error("{0}")]
    Invalid(String),
    /// Build it anew from the log, and find out who did it: what is stored is not what was recorded.
    #[error("{0}")]
    Damaged(String),
    /// Remove or rebuild: what is stored was made by another version of the projection or of this program.
    #[error("{0}")]
    OtherVersion(String),
    /// Make room, or choose another folder: a file can't be read or written.
    #[error("{doing} {} failed", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Give up, or [share](crate::Worker::share): another worker took over this partition of the projection.
    #[error("projection {projection} lost {place} to a worker that started later")]
    Fenced {
        /// The projection.
        projection: Arc<str>,
        /// Topic and partition.
        place: String,
    },
    /// The log failed. [`LogError::kind`] says what to do; a lost tail is final.
    #[error("projection {projection} can't read the log")]
    Log {
        /// The projection.
        projection: Arc<str>,
        /// What the log said.
        #[source]
        source: LogError,
    },
    /// Fix the projection or the data: it failed, or it panicked, on a batch of events.
    #[error("projection {projection} failed on {events}")]
    Projection {
        /// The projection.
        projection: Arc<str>,
        /// Which events it was given.
        events: String,
        /// What it returned.
        #[source]
        source: ProjectionError,
    },
    /// Wait longer or answer without: the read model does not contain the position yet.
    #[error("projection {projection} has not reached {position} within {within:?}, it goes on at offset {next}")]
    Deadline {
        /// The projection.
        projection: Arc<str>,
        /// What was waited for.
        position: Position,
        /// Where the projection is in that partition.
        next: u64,
        /// How long was waited.
        within: Duration,
    },
    /// Mend it: the aggregate is parked in this read model, and its event waits. See [`Database::parked`](crate::Database::parked).
    #[error("{stream} is parked in read model {projection}: {reason}")]
    Parked {
        /// The read model.
        projection: Arc<str>,
        /// The aggregate's stream.
        stream: String,
        /// Why its first waiting event can't be folded in.
        reason: String,
    },
    /// Look again: what was asked for a parked aggregate was meant for another event than the one that it waits behind now.
    #[error(
        "nothing was done: {stream} waits in read model {projection} behind version {version}, event {event_id}, and no longer behind event {seen}"
    )]
    OtherEvent {
        /// The read model.
        projection: Arc<str>,
        /// The aggregate's stream.
        stream: String,
        /// The event that was seen.
        seen: EventId,
        /// The version that it waits behind now.
        version: Version,
        /// The event of that version.
        event_id: EventId,
    },
    /// Start a worker of the read model, or wait longer: none has done what it was asked.
    #[error("no worker of read model {projection} has seen to {stream} within {within:?}: it is asked still")]
    NoAnswer {
        /// The read model.
        projection: Arc<str>,
        /// The aggregate's stream.
        stream: String,
        /// How long was waited.
        within: Duration,
    },
    /// Don't switch: a rebuilt read model differs from the live one, and was to be equal.
    #[error("the rebuilt read model {projection} differs from the live one, which stays: {difference}")]
    Differs {
        /// The read model.
        projection: Arc<str>,
        /// The first rows that differ.
        difference: String,
    },
    /// Start it again: the worker stopped. The source says why, if it was not asked to.
    #[error("projection {projection} is stopped")]
    Stopped {
        /// The projection.
        projection: Arc<str>,
        /// Why, unless it was asked to.
        #[source]
        source: Option<Arc<Error>>,
    },
}

impl Error {
    /// Whether trying the same again later may help.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::Deadline { .. } => true,
            Self::Log { source, .. } => source.is_retryable(),
            _ => false,
        }
    }

    /// Whether another worker took over.
    pub fn is_fenced(&self) -> bool {
        match self {
            Self::Fenced { .. } => true,
            Self::Stopped { source: Some(source), .. } => source.is_fenced(),
            _ => false,
        }
    }

    /// Whether the log lost records that the read model contains.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Log { source, .. } => source.kind() == es_core::log::LogErrorKind::Lost,
            Self::Stopped { source: Some(source), .. } => source.is_lost(),
            _ => false,
        }
    }

    /// Whether it is the database's failure and not that of the rows: other rows, or other events, would meet it, too.
    pub(crate) fn is_the_databases(&self) -> bool {
        matches!(self, Self::Unavailable { .. } | Self::Sql { .. })
    }

    /// Whether a worker that has run ends by it. The database never ends one: whatever it says may be mended while the worker tries
    /// again. What remains is a worker that was shut out, a log that is not the one that was read, and a task of its own that broke down.
    pub(crate) fn ends_a_worker(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::OtherVersion(_) | Self::Projection { .. } => true,
            Self::Log { source, .. } => !source.is_retryable(),
            _ => false,
        }
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::Invalid(reason.into())
    }
}
