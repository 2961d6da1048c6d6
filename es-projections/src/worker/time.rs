//! The time by which a worker measures how long others are silent and how long it has been in trouble itself.

use std::sync::Arc;
use std::time::Duration;

use es_core::Clock;
use tokio::time::Instant;

/// The machine's monotonic clock, unless the worker was given one.
#[derive(Debug, Clone)]
pub(super) struct Time {
    began: Instant,
    held: Option<Arc<dyn Clock>>,
}

impl Time {
    pub(super) fn of(held: Option<Arc<dyn Clock>>) -> Self {
        Self { began: Instant::now(), held }
    }

    /// Since some moment that stays the same.
    pub(super) fn now(&self) -> Duration {
        match &self.held {
            None => self.began.elapsed(),
            Some(clock) => Duration::from_millis(clock.now_ms().try_into().unwrap_or(0)),
        }
    }
}
