//! The time between two attempts.

use std::time::Duration;

use crate::error::Error;

/// How long a pause may become.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A pause that grows with each failure, with a line in the log each time it does.
pub(super) struct Pause {
    what: &'static str,
    next: Duration,
}

impl Pause {
    pub(super) const FIRST: Duration = Duration::from_millis(50);

    pub(super) fn new(what: &'static str) -> Self {
        Self { what, next: Self::FIRST }
    }

    /// The pause after one more failure.
    pub(super) fn grow(&mut self, projection: &str, error: &Error) -> Duration {
        let pause = self.next;
        if pause < PAUSE_MAX {
            self.next = (pause * 2).min(PAUSE_MAX);
            tracing::warn!(
                projection,
                ?pause,
                error = error as &dyn std::error::Error,
                "{} failed, trying again",
                self.what
            );
        }
        pause
    }

    /// Begins anew after a success; tells whether there had been a failure.
    pub(super) fn reset(&mut self) -> bool {
        std::mem::replace(&mut self.next, Self::FIRST) != Self::FIRST
    }
}
