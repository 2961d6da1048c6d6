//! Making way: a build beside the live read model leaves most of the time to what serves.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// For each part of its time that a build works, so many it does not.
const PARTS: u32 = 2;
/// How much longer it takes by that.
pub(super) const SLOWER: u64 = PARTS as u64 + 1;
/// The longest pause: a batch that took longer waited for the database, not worked.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Whether a worker makes way, and for how long it did.
#[derive(Debug, Default)]
pub(super) struct Yielding {
    gives: AtomicBool,
    given_us: AtomicU64,
}

impl Yielding {
    pub(super) fn give(&self, gives: bool) {
        self.gives.store(gives, Ordering::Relaxed);
    }

    pub(super) fn given(&self) -> Duration {
        Duration::from_micros(self.given_us.load(Ordering::Relaxed))
    }

    /// Does nothing for a while after so much work, if it is to make way.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(super) async fn after(&self, worked: Duration) {
        if self.gives.load(Ordering::Relaxed) {
            let pause = (worked * PARTS).min(PAUSE_MAX);
            tokio::time::sleep(pause).await;
            self.given_us.fetch_add(u64::try_from(pause.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}
