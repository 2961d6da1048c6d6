//! Waiting for a condition with a deadline.

use std::time::{Duration, Instant};

/// Between two looks at a condition.
pub(crate) const PAUSE: Duration = Duration::from_millis(20);

/// Deadlines are given for a quiet machine. They only end what has failed, so a busy one may take this many times as long.
const BUSY: u32 = 6;

/// The deadline, on a machine of which nothing is known.
pub(crate) fn at_most(within: Duration) -> Duration {
    within * BUSY
}

/// Calls `probe` until it gives a value, and returns that value.
///
/// For what a test can only see from outside: a row that appears, a process that answers. `what` completes the sentence
/// "waited … for".
///
/// # Panics
/// If `within`, as a quiet machine needs it, is over six times, and the last look still gave `None`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// use std::time::Duration;
/// let mut looks = 0;
/// let found = es_tests::eventually("the third look", Duration::from_secs(5), async || {
///     looks += 1;
///     (looks == 3).then_some(looks)
/// });
/// assert_eq!(found.await, 3);
/// # }
/// ```
pub async fn eventually<T>(what: &str, within: Duration, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    // The real clock: a test that pauses tokio's would be at its deadline at once.
    let (started, within) = (Instant::now(), at_most(within));
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(started.elapsed() < within, "waited {within:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
}
