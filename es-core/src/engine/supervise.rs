//! Tasks that must not end unseen: one that panics is told of, and started anew after a pause.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::guard::panic_text;
use crate::engine::figures::Counters;
use crate::engine::pause::Backoff;

/// The panics of one task.
pub(crate) struct Restarts {
    task: &'static str,
    /// Of the partitions that it works for.
    counters: Vec<Arc<Counters>>,
    pause: Backoff,
    began: Instant,
}

/// A task that ran for so long is not in trouble any more: the next pause is a short one.
const WELL_AFTER: Duration = Duration::from_secs(60);

impl Restarts {
    pub(crate) fn new(task: &'static str, counters: Vec<Arc<Counters>>) -> Self {
        Self { task, counters, pause: Backoff::default(), began: Instant::now() }
    }

    /// Tells of a panic, and waits until the task is to be started anew.
    ///
    /// # Cancel safety
    /// The task is told to run from then on.
    pub(crate) async fn after(&mut self, panic: Box<dyn Any + Send>) {
        if self.began.elapsed() > WELL_AFTER {
            self.pause = Backoff::default();
        }
        let (text, wait) = (panic_text(&*panic), self.pause.next());
        drop(panic);
        tracing::error!(task = self.task, text, ?wait, "a task panicked and is started anew");
        let _down = Down::tell(self.task, &self.counters, &text);
        tokio::time::sleep(wait).await;
        self.began = Instant::now();
    }
}

/// While it lives, the task is told to be down.
struct Down<'a>(&'static str, &'a [Arc<Counters>]);

impl<'a> Down<'a> {
    fn tell(task: &'static str, counters: &'a [Arc<Counters>], text: &str) -> Self {
        for health in counters.iter().map(|counters| &counters.health) {
            health.goes_down(task, text);
        }
        Self(task, counters)
    }
}

impl Drop for Down<'_> {
    fn drop(&mut self) {
        for counters in self.1 {
            counters.health.comes_up(self.0);
        }
    }
}

/// Runs a task until it ends by itself or is to stop.
pub(crate) async fn supervise<F: Future<Output = ()>>(
    mut restarts: Restarts,
    stop: &CancellationToken,
    mut start: impl FnMut() -> F,
) {
    loop {
        // Making it may panic as well as running it.
        let Err(panic) = AssertUnwindSafe(async { start().await }).catch_unwind().await else { return };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = restarts.after(panic) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_told_until_the_task_runs_again() {
        let counters = Arc::<Counters>::default();
        let (health, runs, stop) = (counters.clone(), AtomicU64::new(0), CancellationToken::new());
        let work = supervise(Restarts::new("the work", vec![counters]), &stop, async || {
            if runs.fetch_add(1, Ordering::Relaxed) < 2 {
                panic!("it gave up");
            }
        });
        let watch = async {
            while health.health.restarts() == 0 {
                tokio::task::yield_now().await;
            }
            assert_eq!(health.health.down(), ["the work panicked and is started anew soon: it gave up"]);
        };
        tokio::join!(work, watch);
        assert_eq!((runs.load(Ordering::Relaxed), health.health.restarts()), (3, 2));
        assert!(health.health.down().is_empty());
    }

    #[tokio::test]
    async fn a_task_that_is_to_stop_is_not_started_anew() {
        let stop = CancellationToken::new();
        let restarts = Restarts::new("the work", vec![Arc::default()]);
        supervise(restarts, &stop, async || {
            stop.cancel();
            panic!("it gave up");
        })
        .await;
    }
}
