//! Copies of a read model that were made to be compared with it, by processes that were killed.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::builds::{self, Build, State};
use crate::error::Error;
use crate::sql::Database;
use crate::workers::{self, Member};

/// How long a copy may be without a sign of life where the workers have no silence of their own.
const SILENCE: Duration = Duration::from_secs(10);
/// The least that it may: signs are given a second apart.
const SILENCE_MIN: Duration = Duration::from_secs(3);
/// What one look may take, so that it does not hold up the beat.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// The copies that a worker of the live read model has seen.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    seen: Vec<Seen>,
    looked: Option<Duration>,
    /// What is dropped now, beside the beat: SQLite may take long for a large table.
    drops: JoinSet<()>,
}

#[derive(Debug)]
struct Seen {
    copy: Build,
    /// The last signs of life of who works on it.
    signs: Vec<Member>,
    /// For how long there was no other.
    silent: Duration,
}

impl Leftovers {
    /// Drops those of which nothing was heard for long. What fails is done at the next look. Called after each beat of the worker's own,
    /// `pace` apart: time in which it could not raise that does not count, since others may not have been able to, either.
    pub(super) async fn look(
        &mut self,
        database: &Database,
        live: &Build,
        silence: Option<Duration>,
        pace: Duration,
        now: Duration,
    ) {
        while self.drops.try_join_next().is_some() {}
        if live.state != State::Live || !self.drops.is_empty() {
            return;
        }
        let passed = |before| now.saturating_sub(before).min(2 * pace);
        let passed = self.looked.replace(now).map_or(Duration::ZERO, passed);
        let silence = silence.map_or(SILENCE, |silence| silence.max(SILENCE_MIN));
        let looked = tokio::time::timeout(LOOK_MAX, self.try_to_look(database, live, silence, passed));
        match looked.await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "looking for copies left behind failed");
            }
            Err(_) => tracing::debug!("looking for copies left behind takes long"),
        }
        self.forget();
    }

    /// Whom it did not look at, it did not hear.
    pub(super) fn forget(&mut self) {
        (self.seen, self.looked) = (Vec::new(), None);
    }

    async fn try_to_look(
        &mut self,
        database: &Database,
        live: &Build,
        silence: Duration,
        passed: Duration,
    ) -> Result<(), Error> {
        let mut seen = Vec::new();
        for copy in builds::copies(database, &live.projection).await? {
            let signs = workers::of(database, &copy).await?;
            let before = self.seen.iter().find(|before| before.copy == copy && before.signs == signs);
            let silent = before.map_or(Duration::ZERO, |before| before.silent + passed);
            if silent < silence {
                seen.push(Seen { copy, signs, silent });
                continue;
            }
            let database = database.clone();
            self.drops.spawn(async move {
                let (projection, build) = (copy.projection.clone(), copy.number);
                match drop_copy(&database, &copy).await {
                    Ok(()) => tracing::info!(%projection, build, "a copy that was left behind is dropped"),
                    Err(error) => {
                        let error = &error as &dyn std::error::Error;
                        tracing::warn!(%projection, build, error, "dropping a copy that was left behind failed");
                    }
                }
            });
        }
        self.seen = seen;
        Ok(())
    }
}

/// Somebody who is at work on it all the same may hold its rows: nobody is to wait behind this one until that ends.
async fn drop_copy(database: &Database, copy: &Build) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    tx.wait_briefly_for_locks().await?;
    builds::remove_copy(tx, copy).await.map(drop)
}
