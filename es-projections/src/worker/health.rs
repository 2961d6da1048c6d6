//! Whether a projection is well.

use std::sync::Arc;
use std::time::Duration;

use super::lag::PartitionLag;
use super::running::RunningProjection;
use super::state::WorkerState;
use crate::error::Error;

/// Why a projection is not well.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Unwell {
    /// Something fails, and is tried again.
    #[error("projection {projection} is in trouble")]
    Trouble {
        /// The projection.
        projection: Arc<str>,
        /// The last failure.
        source: Arc<Error>,
    },
    /// The worker stopped with an error.
    #[error("projection {projection} stopped")]
    Failed {
        /// The projection.
        projection: Arc<str>,
        /// Why.
        source: Arc<Error>,
    },
    /// The worker was stopped.
    #[error("projection {projection} was stopped")]
    Stopped {
        /// The projection.
        projection: Arc<str>,
    },
    /// The read model is further behind the log than it may be.
    #[error(
        "projection {projection} is {:.1?} behind in {}/{}, by {} records, and may be {limit:?}",
        lag.time, lag.topic, lag.partition, lag.records
    )]
    Behind {
        /// The projection.
        projection: Arc<str>,
        /// The partition in which it is furthest behind.
        lag: PartitionLag,
        /// How long it may be.
        limit: Duration,
    },
    /// The log does not say where it ends.
    #[error("how far projection {projection} is behind is not known: the log can't be asked for its end")]
    Unknown {
        /// The projection.
        projection: Arc<str>,
    },
}

impl RunningProjection {
    /// Whether the projection is well: it works without trouble, here or in another process, and where `lag_max` is given, no event
    /// has waited longer than that, as far as [`PartitionLag::time`] tells.
    ///
    /// # Errors
    /// [`Unwell`] with the reason.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn check(&self, lag_max: Option<Duration>) -> Result<(), Unwell> {
        let projection: Arc<str> = self.projection().into();
        match self.state() {
            WorkerState::Running | WorkerState::StandingBy { .. } => {}
            WorkerState::Retrying { error: source, .. } => return Err(Unwell::Trouble { projection, source }),
            WorkerState::Stopped { error: Some(source) } => return Err(Unwell::Failed { projection, source }),
            WorkerState::Stopped { error: None } => return Err(Unwell::Stopped { projection }),
        }
        let Some(limit) = lag_max else { return Ok(()) };
        let Some(lag) = self.status().await.lag else { return Err(Unwell::Unknown { projection }) };
        match lag.longest() {
            Some(lag) if lag.time > limit => Err(Unwell::Behind { projection, lag: lag.clone(), limit }),
            _ => Ok(()),
        }
    }
}
