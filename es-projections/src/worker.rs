//! A worker: runs one projection over the partitions of its sources, all of them or its share.
//!
//! Readers decode the log and put whole commands into a queue, [`queue`]; the worker takes what is there, and in
//! one transaction moves the checkpoints, folds the events in and commits, [`run`]. While a batch is committed the
//! next one is decoded, and no more than that is held.

mod deploy;
mod health;
mod lag;
mod leftovers;
mod occurred;
mod pause;
mod quarantine;
mod queue;
mod read;
mod rebuild;
mod regroup;
mod requests;
mod run;
mod running;
mod share;
mod state;
mod time;
mod verify;
mod yielding;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use es_core::log::{Log, LogError};
use es_core::{Clock, EventSource, verify_checkpoint};
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::builds::{self, Build};
use crate::checkpoint::{Ledger, Saved};
use crate::error::Error;
use crate::place::Place;
use crate::projection::Projection;
use crate::sql::Database;
use crate::workers::Member;
pub use health::Unwell;
pub use lag::{Lag, PartitionLag};
pub use rebuild::{AsOf, Check, Frozen, RebuildProgress};
use run::{Extent, Run};
pub use running::RunningProjection;
use share::Heartbeat;
use state::Board;
pub use state::{PartitionProgress, StandsBy, Status, WorkerState};
use time::Time;
pub use verify::{ComparedAt, Verdict, Verified};

/// A worker's settings; [`Worker::start`] sets it to work.
#[derive(Clone)]
pub struct Worker {
    database: Database,
    log: Arc<dyn Log>,
    sources: Arc<[EventSource]>,
    limits: queue::Limits,
    name: Arc<str>,
    /// How often a batch is tried before the aggregates that make it fail are parked.
    park_after: u32,
    /// Where it shares the partitions with others: how long one of these may be silent before it counts as gone.
    share: Option<Duration>,
    /// Measures silence and trouble, instead of the machine's monotonic clock.
    clock: Option<Arc<dyn Clock>>,
    stands_in: bool,
    shutdown: CancellationToken,
}

impl Worker {
    /// A worker that reads these sources from the log and writes to the database.
    pub fn new(database: Database, log: Arc<dyn Log>, sources: Vec<EventSource>) -> Self {
        let limits = queue::Limits { events: 2_000, bytes: 4 << 20 };
        let name = format!("{} process {}", host(), std::process::id()).into();
        let shutdown = CancellationToken::new();
        let sources = sources.into();
        let (share, clock, stands_in) = (None, None, false);
        Self { database, log, sources, limits, name, park_after: 5, share, stands_in, clock, shutdown }
    }

    /// The most events of a transaction, save that a command is never split; 2,000 unless given.
    ///
    /// # Panics
    /// When `events` is 0.
    #[must_use]
    pub fn batch_max(mut self, events: usize) -> Self {
        assert!(events > 0, "a batch holds at least one event");
        self.limits.events = events;
        self
    }

    /// How often the projection may fail on a batch, with a growing pause between, before its commands are tried alone, and how often
    /// on each of these before its aggregate is parked; 5 unless given. Their later events wait behind, and all others go on:
    /// [`Database::parked`] lists them. A database that is away or busy is waited for however long it takes.
    #[must_use]
    pub fn park_after(mut self, failures: u32) -> Self {
        self.park_after = failures;
        self
    }

    /// The name that other workers see of it; the host's name and the process id unless given. Where workers share, two that run at the same
    /// time should not have the same one: whoever starts under a name takes over at once what an earlier one held
    /// under it, as a process does that was killed and comes back.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    /// Shares the partitions with the other workers of the projection that do so: for processes that each run the same
    /// projections, over the same sources. Each holds as many as the next one, or one more; what one gives back, when it
    /// stops or another joins, the others take, and so they do with what one held of which nothing was heard for as long
    /// as `silence`: at least a few seconds, since each gives a sign of life once a second. The handle of each waits for, and
    /// shows, what any of them commits.
    ///
    /// What a worker fails to get done for longer than `silence`, since its database, its log or the whole projection fails
    /// there, others take; it keeps away for a while that grows until it succeeds. Events on which the projection fails are not
    /// handed on: they are parked as without sharing.
    ///
    /// A worker that does not share takes all partitions when it starts, shuts out whoever held them, and stops when
    /// another one does the same. Those that share then wait for its end.
    ///
    /// Workers that hold different partitions may change one row at the same time: see
    /// [`Projection::project`](crate::Projection::project).
    #[must_use]
    pub fn share(mut self, silence: Duration) -> Self {
        self.share = Some(silence);
        self
    }

    /// Measures by this clock for how long another worker is silent and this one gets nothing done: for tests, which hold the time
    /// so that no worker is given up because the machine is slow. The machine's monotonic clock unless given.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Takes part in the [sharing](Worker::share) only while no worker does that was not told this: for a program that brings a read
    /// model up to date to look at it, and ends. Beside workers that serve it takes nothing from them, and waits for what they commit.
    #[must_use]
    pub fn stand_in(mut self) -> Self {
        self.stands_in = true;
        self
    }

    /// Stops the worker when this token is cancelled, as [`RunningProjection::stop`] does.
    #[must_use]
    pub fn shutdown(mut self, token: CancellationToken) -> Self {
        self.shutdown = token;
        self
    }

    /// Makes the projection's tables, takes all partitions or its [share](Worker::share) of them, compares their
    /// checkpoints with the log, and goes on from there in a task of its own.
    ///
    /// # Errors
    /// [`Error::OtherVersion`] when the tables were built by another version of the projection, [`Error::Log`] when
    /// the log lost records that the read model contains or can't be reached, [`Error::Invalid`] for names that
    /// can't be used, [`Error::Unavailable`] when the database can't be reached.
    pub async fn start(&self, projection: impl Projection) -> Result<RunningProjection, Error> {
        let projection: Arc<dyn Projection> = Arc::new(projection);
        self.check_sources()?;
        self.check_follows(&*projection)?;
        loop {
            let build = builds::live(&self.database, &*projection).await?;
            match self.start_build(projection.clone(), build, Extent::ALL).await {
                // It was replaced or removed in between.
                Err(error) if error.is_fenced() => {}
                started => return started,
            }
        }
    }

    async fn start_build(
        &self,
        projection: Arc<dyn Projection>,
        build: Build,
        extent: Extent,
    ) -> Result<RunningProjection, Error> {
        self.check_follows(&*projection)?;
        let database = build.of(&self.database);
        let name = build.projection.clone();
        let places = self.places();
        let mut ledger = Ledger::new(self.database.clone(), build, places.clone(), self.member());
        let saved = match self.share {
            Some(_) => {
                ledger.join().await?;
                vec![Saved::default(); places.len()] // until it has begun
            }
            None => ledger.take_over().await?,
        };
        let board = Arc::new(Board::new(name, places, Time::of(self.clock.clone())));
        board.reset(&saved, &ledger.held(), 0);
        let (member, live) = (ledger.member(), ledger.build());
        let heartbeat = match Heartbeat::start(&self.database, live, &board, member, self.share).await {
            Ok(heartbeat) => heartbeat,
            Err(error) => {
                let _ = ledger.leave().await; // else others wait for its silence
                return Err(error);
            }
        };
        let shutdown = self.shutdown.child_token();
        let mut run = Run {
            worker: self.clone(),
            projection,
            database,
            ledger,
            heartbeat,
            board: board.clone(),
            extent,
            parked: HashSet::new(),
            part_max: None,
            shutdown: shutdown.clone(),
        };
        let begun = async {
            run::in_limits(&self.database, "sharing the partitions out", run.regroup()).await?;
            run.begin().await
        };
        let saved = match begun.await {
            Ok(saved) => saved,
            Err(error) => {
                run.leave().await;
                return Err(error);
            }
        };
        tokio::spawn(run.finish(saved));
        Ok(RunningProjection::new(board, self.log.clone(), self.database.clone(), shutdown))
    }

    /// This worker under a name that no other one has.
    fn member(&self) -> Member {
        let name = format!("{} ({:.8})", self.name, Uuid::new_v4().simple().to_string()).into();
        Member { name, beat: 0, shares: self.share.is_some(), stands_in: self.stands_in }
    }

    /// What nobody feeds would look as if it were up to date.
    fn check_follows(&self, projection: &dyn Projection) -> Result<(), Error> {
        let (name, Some(follows)) = (projection.name(), projection.follows()) else { return Ok(()) };
        if follows.is_empty() {
            return Err(Error::invalid(format!("projection {name} follows no aggregate: give it one with `follow`")));
        }
        let has = |category: &&str| self.sources.iter().any(|source| *source.category == **category);
        match follows.iter().find(|category| !has(category)) {
            None => Ok(()),
            Some(category) => {
                let given: Vec<_> = self.sources.iter().map(|source| &*source.category).collect();
                let given = given.join(", ");
                Err(Error::invalid(format!(
                    "projection {name} follows aggregate {category}, and its worker was given the events of {given} only: give it \
                     that one's source, too"
                )))
            }
        }
    }

    fn check_sources(&self) -> Result<(), Error> {
        if self.sources.is_empty() {
            return Err(Error::invalid("a worker needs at least one source of events"));
        }
        for (place, source) in self.sources.iter().enumerate() {
            let same = |other: &EventSource| other.topic == source.topic || other.category == source.category;
            if self.sources[..place].iter().any(same) {
                return Err(Error::invalid(format!("a worker was given {} twice", source.topic)));
            }
        }
        Ok(())
    }

    /// Compares the checkpoints of these places with the log.
    pub(crate) async fn compare_with_log(&self, saved: impl Iterator<Item = (&Place, &Saved)>) -> Result<(), LogError> {
        const AT_ONCE: usize = 16;
        let checks = saved.map(|(place, saved)| {
            verify_checkpoint(&*self.log, &self.sources[place.source], place.partition, &saved.checkpoint).boxed()
        });
        let checks: Vec<_> = checks.collect();
        stream::iter(checks).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await.map(drop)
    }

    fn places(&self) -> Arc<[Place]> {
        let of_source = |(source, events): (usize, &EventSource)| {
            let (category, topic) = (events.category.clone(), events.topic.clone());
            (0..events.partitions).map(move |partition| Place {
                source,
                category: category.clone(),
                topic: topic.clone(),
                partition,
            })
        };
        self.sources.iter().enumerate().flat_map(of_source).collect()
    }
}

impl Run {
    /// Before it goes on: where, and with what parked, as nobody else can change it any more.
    async fn begin(&mut self) -> Result<Vec<Saved>, Error> {
        let saved = self.look().await?;
        self.look_for_parked().await?;
        self.verify(&saved).await?;
        self.board.reset(&saved, &self.ledger.held(), self.parked.len());
        Ok(saved)
    }

    /// Compares the checkpoint of each place that it holds with the log.
    async fn verify(&self, saved: &[Saved]) -> Result<(), Error> {
        let places = self.board.places().iter().zip(saved).zip(self.ledger.held());
        let held = places.filter(|(_, held)| *held).map(|(place, _)| place);
        self.worker.compare_with_log(held).await.map_err(|source| self.log_error(source))
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("database", &self.database)
            .field("sources", &self.sources)
            .finish_non_exhaustive()
    }
}
