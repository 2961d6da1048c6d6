//! Moves what was committed from the write-ahead log into the database, beside the writer.
//!
//! SQLite lets the writer do that after a commit, which costs it a fifth of its time while a read model is built. Here a
//! connection of its own does it. While it works the writer goes on, so it may never reach the end; then the writer does
//! the little that is left when the log has grown long, and the log begins anew.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Opener, Pool, Result, script};

/// Pages of write-ahead log after which the writer does it itself: 80 MB.
pub(super) const WRITER_PAGES: &str = "20000";
/// How long what was committed waits at least.
const PAUSE: Duration = Duration::from_millis(250);

/// How long it may take: a disk may hang.
const MOVE_MAX: Duration = Duration::from_secs(60);

/// The task that does it, ended on drop.
pub(super) struct WalMover {
    committed: Arc<AtomicBool>,
    task: AbortHandle,
}

impl WalMover {
    pub(super) fn start(pool: Pool<Opener>) -> Self {
        let committed = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(pool, committed.clone())).abort_handle();
        Self { committed, task }
    }

    /// Notes that there is something to do.
    pub(super) fn committed(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }
}

impl Drop for WalMover {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(pool: Pool<Opener>, committed: Arc<AtomicBool>) {
    while !pool.is_closed() {
        tokio::time::sleep(PAUSE).await;
        if !committed.swap(false, Ordering::Relaxed) {
            continue;
        }
        if let Err(error) = move_on(&pool).await {
            tracing::debug!(?error, "moving the write-ahead log failed, the writer will do it");
        }
    }
}

async fn move_on(pool: &Pool<Opener>) -> Result<()> {
    let mut lease = pool.acquire(MOVE_MAX).await?;
    // Passive: it waits for nobody, and does what it can.
    let done = timeout(MOVE_MAX, script(lease.ask(), "PRAGMA wal_checkpoint(PASSIVE)")).await;
    lease.answered(MOVE_MAX, done)
}
