//! Connections that are kept for later, and never waited for without a bound.
//!
//! sqlx has a pool of its own. It asks each connection that comes back whether it still works, however long the answer takes, so a
//! connection whose server vanished keeps its place for ever; and of a server that can't be reached it tells only that time ran out.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout, timeout_at};

use super::DriverError;

type Result<T> = std::result::Result<T, DriverError>;

/// For how long a connection that nobody used is taken to work still. A worker uses one without pause: asking the server each time
/// would cost it a round trip per batch.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// How long a connection may take to say that it works.
const PING_MAX: Duration = Duration::from_secs(1);
/// Longer than anything takes: a longer time has no end that a clock could tell.
const EVER: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
/// How long a connection is kept that nobody uses, and how old it may become: a server's memory for it only grows.
const IDLE_MAX: Duration = Duration::from_secs(10 * 60);
const AGE_MAX: Duration = Duration::from_secs(30 * 60);
/// How long a connection may take to say goodbye.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// When the time for a piece of work is over.
pub(super) fn ends(limit: Duration) -> Instant {
    Instant::now() + limit.min(EVER)
}

/// How much of it is left.
pub(super) fn left(ends: Instant) -> Duration {
    ends.saturating_duration_since(Instant::now())
}

/// Tells what still runs on a connection that nobody waits for it any more.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn is_told(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a connection is opened.
pub(super) trait Open: Send + Sync + 'static {
    type Connection: Connection + Send;

    fn open(&self) -> impl Future<Output = Result<(Self::Connection, GivenUp)>> + Send;

    /// A connection that is all there is of its database is neither asked, nor closed, whatever happens on it.
    fn is_the_database(&self) -> bool {
        false
    }
}

pub(super) struct Pool<O: Open>(Arc<Shared<O>>);

struct Shared<O: Open> {
    opener: O,
    max: u32,
    permits: Arc<Semaphore>,
    /// The one that was used last is the last.
    idle: Mutex<Vec<Held<O::Connection>>>,
}

struct Held<C> {
    connection: C,
    opened: Instant,
    used: Instant,
    /// Whether all that was asked on it was answered.
    sound: bool,
    given_up: GivenUp,
}

/// A connection in use. It goes back to the pool only after an answer to all that was asked on it; else it is closed, which nobody
/// waits for.
pub(super) struct Lease<O: Open> {
    held: Option<Held<O::Connection>>,
    pool: Arc<Shared<O>>,
    _permit: OwnedSemaphorePermit,
}

impl<O: Open> Clone for Pool<O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<O: Open> Pool<O> {
    pub(super) fn new(opener: O, max: u32) -> Self {
        let permits = Arc::new(Semaphore::new(max as usize));
        Self(Arc::new(Shared { opener, max, permits, idle: Mutex::default() }))
    }

    /// A connection that works, within this time.
    pub(super) async fn acquire(&self, within: Duration) -> Result<Lease<O>> {
        let deadline = ends(within);
        let permit = timeout_at(deadline, self.0.permits.clone().acquire_owned()).await;
        let in_use = |_| DriverError::late(format!("all {} connections were in use for {within:?}", self.0.max));
        let closed = |_| DriverError::Unavailable("the connections are closed".into());
        let permit = permit.map_err(in_use)?.map_err(closed)?;
        let opened = async {
            match self.find_working().await {
                Some(held) => Ok(held),
                None => self.0.opener.open().await.map(|(connection, given_up)| Held::new(connection, given_up)),
            }
        };
        let late = |_| DriverError::late(format!("it does not answer to a new connection within {within:?}"));
        let held = timeout_at(deadline, opened).await.map_err(late)??;
        Ok(Lease { held: Some(held), pool: self.0.clone(), _permit: permit })
    }

    async fn find_working(&self) -> Option<Held<O::Connection>> {
        let mut held = self.0.idle().pop()?;
        if self.0.opener.is_the_database() || held.used.elapsed() < TRUSTED_FOR {
            return Some(held);
        }
        let works = matches!(timeout(PING_MAX, held.connection.ping()).await, Ok(Ok(())));
        if !works {
            self.0.doubt();
        }
        works.then_some(held)
    }

    /// Waits for what is in use; what is asked for from now on is refused.
    pub(super) async fn close(&self) {
        let all = self.0.permits.acquire_many(self.0.max).await;
        self.0.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.0.idle());
        for held in idle {
            let _ = timeout(CLOSE_MAX, held.connection.close()).await; // it is dropped either way
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.0.permits.is_closed()
    }
}

impl<O: Open> Shared<O> {
    /// Drops what nobody uses: whatever silenced one connection may have silenced the others.
    fn doubt(&self) {
        if !self.opener.is_the_database() {
            self.idle().clear();
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Held<O::Connection>>> {
        // Whole even after a panic: nothing between lock and unlock panics half way through a change.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Held<C> {
    fn new(connection: C, given_up: GivenUp) -> Self {
        let now = Instant::now();
        Self { connection, opened: now, used: now, sound: true, given_up }
    }
}

impl<O: Open> Lease<O> {
    /// The connection, for one piece of work. Until [`Lease::answered`] it counts as given up.
    pub(super) fn ask(&mut self) -> &mut O::Connection {
        let held = self.held();
        held.sound = false;
        &mut held.connection
    }

    /// Notes how a piece of work ended that was given this time.
    pub(super) fn answered<T>(&mut self, given: Duration, done: std::result::Result<Result<T>, Elapsed>) -> Result<T> {
        // Of the other connections it tells something only where there was time to answer: who waited for this one almost as long
        // as may be has none left for the work itself, and would close all.
        let doubtful = done.is_ok() || given >= PING_MAX;
        let done = done.unwrap_or_else(|_| Err(DriverError::late(format!("it does not answer within {given:?}"))));
        let sound = !matches!(done, Err(DriverError::Lost(_)));
        self.held().sound = sound;
        if !sound && doubtful {
            self.pool.doubt();
        }
        done
    }

    /// Has it closed rather than given back.
    pub(super) fn give_up(&mut self) {
        self.held().sound = false;
    }

    /// Only one that is its database comes back when it was given up.
    pub(super) fn was_given_up(&self) -> bool {
        self.held.as_ref().is_some_and(|held| !held.sound)
    }

    fn held(&mut self) -> &mut Held<O::Connection> {
        self.held.as_mut().expect("a lease has its connection until it is dropped")
    }
}

impl<O: Open> Drop for Lease<O> {
    fn drop(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let is_all = self.pool.opener.is_the_database();
        if !is_all && (!held.sound || held.opened.elapsed() > AGE_MAX || self.pool.permits.is_closed()) {
            held.given_up.0.store(true, Ordering::Relaxed);
            return;
        }
        held.used = Instant::now();
        let mut idle = self.pool.idle();
        if !is_all {
            idle.retain(|other| other.used.elapsed() < IDLE_MAX);
        }
        idle.push(held);
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use sqlx::SqliteConnection;

    use super::*;

    struct InMemory;

    impl Open for InMemory {
        type Connection = SqliteConnection;

        async fn open(&self) -> Result<(SqliteConnection, GivenUp)> {
            let connection = SqliteConnection::connect("sqlite::memory:").await;
            Ok((connection.map_err(|error| DriverError::Lost(error.into()))?, GivenUp::default()))
        }
    }

    /// Shows: a connection that does not answer makes the others doubtful where it had the time to; who has waited for it until little time
    /// was left closes it alone.
    #[tokio::test]
    async fn who_has_no_time_left_closes_no_other_connection() {
        const LONG: Duration = Duration::from_secs(300);
        for (given, idle) in [(Duration::from_millis(1), 1), (PING_MAX, 0)] {
            let pool = Pool::new(InMemory, 2);
            let (mut one, other) = (pool.acquire(LONG).await.unwrap(), pool.acquire(LONG).await.unwrap());
            drop(other);
            one.ask();
            let done = timeout(Duration::ZERO, pending::<Result<()>>()).await;
            assert!(matches!(one.answered(given, done), Err(DriverError::Lost(_))));
            let given_up = one.held().given_up.clone();
            drop(one);
            assert_eq!(pool.0.idle().len(), idle, "{given:?}");
            assert!(given_up.is_told());
        }
    }

    /// Shows: a time that is longer than a clock can tell ends nevertheless, and what is over has no time left.
    #[tokio::test]
    async fn every_time_has_an_end() {
        assert!(left(ends(Duration::MAX)) > Duration::from_secs(1_000_000));
        assert_eq!(left(ends(Duration::ZERO)), Duration::ZERO);
    }
}
