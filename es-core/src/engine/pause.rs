//! Pauses between tries.

use std::time::Duration;

/// A pause that doubles up to 5 s, with jitter so that two that failed together do not stay together.
#[derive(Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    pub(crate) fn next(&mut self) -> Duration {
        let base_ms = (50u64 << self.failures.min(7)).min(5_000);
        self.failures += 1;
        Duration::from_millis(fastrand::u64(base_ms / 2..=base_ms))
    }
}
