//! Starts owners on a log and keeps what they share.

pub(crate) mod budget;
pub(crate) mod bus;
pub(crate) mod companion;
pub(crate) mod figures;
pub(crate) mod forgetting;
pub(crate) mod forward;
pub(crate) mod health;
pub(crate) mod membership;
pub(crate) mod owner;
pub(crate) mod owner_state;
pub(crate) mod parked;
pub(crate) mod partition;
pub(crate) mod pause;
pub(crate) mod remembered;
pub(crate) mod retry;
pub(crate) mod round;
pub(crate) mod snapshot;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod stored;
pub(crate) mod supervise;

use std::collections::HashSet;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::clock::{Clock, SystemClock, millis};
use crate::domain::format::Codec;
use crate::domain::limits;
use crate::domain::random::{Random, SystemRandom};
use crate::domain::shape;
use crate::domain::text::Seldom;
use crate::engine::budget::Budget;
use crate::engine::bus::{Bus, Desk, Shared};
use crate::engine::companion::{Beside, Companion};
use crate::engine::figures::Counters;
use crate::engine::forward::dispatch::{Dispatcher, Window};
use crate::engine::forward::{Forwarder, Route};
use crate::engine::membership::{Charge, Membership};
use crate::engine::owner::{Claims, Owner, OwnerLimits, Pace, TimeLimits};
use crate::engine::owner_state::OwnerState;
use crate::engine::partition::{Mandate, Partition};
use crate::engine::round::RoundContext;
use crate::engine::snapshot::{SnapshotLimits, SnapshotTopic, snapshots_topic};
use crate::engine::state::{StateLimits, schema};
use crate::engine::store::key::Spans;
use crate::engine::store::{StateFolder, StoreError};
use crate::engine::stored::Schema;
use crate::engine::supervise::{Restarts, supervise};
use crate::log::group::{Group, GroupSpec, Member};
use crate::log::memory::MemoryLog;
use crate::log::reader::{EventSource, events_topic, pass_over_added};
use crate::log::record::{COMMAND_EVENTS_MAX, Encoder, Program};
use crate::log::{Log, LogError, LogErrorKind, TopicKind, TopicSpec};

/// How long a command is kept on its topic at least, where no owner takes it: well below the time for which its id is
/// remembered.
const COMMANDS_KEPT_MS: u64 = 24 * 3600 * 1000;

/// How an engine works. Every bound has a default that suits a service with a few hundred concurrent senders.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The first part of topic names, in place of the aggregates' context: lower case letters, digits, `_` and `-`.
    pub namespace: Option<String>,
    /// The name of this process in claims, messages and the group. Each process needs its own; one that comes back under
    /// its old name soon gets its partitions back. Made of the process id and chance unless given.
    pub node: String,
    /// Where local state is kept; it can be deleted at any time. `None` keeps it in memory, without a bound, for tests.
    pub state_dir: Option<PathBuf>,
    /// How long a command id is remembered at least; 7 days. In a partition that is in use it is forgotten within a quarter
    /// more, in an idle one when it is used again.
    pub dedup_retention: Duration,
    /// How far the log's time may be ahead of the clock; 5 minutes. Recorded time never falls, so a partition whose last
    /// record lies further ahead is not served: all that followed would carry the time of a clock that was wrong.
    pub clock_skew_max: Duration,
    /// Serves a partition though its time is ahead of the clock by more than [`EngineConfig::clock_skew_max`], where its
    /// last record is not later than this: the way back for a log in which a wrong clock has written. Until the clock has
    /// caught up, all that is recorded there carries the log's last time; business times and what is remembered go by
    /// the clock. Not given.
    pub accept_time_until: Option<DateTime<Utc>>,
    /// Commands that may wait for one partition's owner; above it callers are told "overloaded". 4,096.
    pub queue_max: usize,
    /// Bytes of commands that may wait for owners in this process, of all its partitions and aggregate types together,
    /// whether they were sent here or come from other processes; and as many that may wait for owners in other processes.
    /// Above it callers are told "overloaded", and commands stay on their topic. 64 MiB.
    pub commands_max_bytes: usize,
    /// Commands decided in one round at most; 1,024.
    pub round_max: usize,
    /// Bytes of events and answers after which a round takes no further command; 4 MiB.
    pub round_max_bytes: usize,
    /// Events that one command may give at most; 1,000, and never more than 10,000, or 64 MiB.
    pub events_max: usize,
    /// How long a round with refusals or no-ops alone waits for company; 2 ms.
    pub linger: Duration,
    /// How long an append may take before it is in doubt; 10 s.
    pub append_deadline: Duration,
    /// How long [`Bus::send`] waits for an answer; 30 s.
    pub send_deadline: Duration,
    /// Changed states and command ids collected per partition before they are written to disk; 10,000.
    pub unwritten_max: usize,
    /// Unchanged states kept in memory per partition; 20,000.
    pub cached_max: usize,
    /// Whether to follow partitions that other processes of the group own, so that taking one over is short. It costs
    /// what reading the whole topic costs. Off.
    pub standby: bool,
    /// Records of the log between two checkpoints of a partition in the snapshots topic; 100,000. A process without
    /// local state reads at most about so many, and `unwritten_max`, of the events. 0 writes and reads no snapshots.
    /// Without effect on a log that keeps none ([`Log::keeps_snapshots`]).
    pub snapshot_every: u64,
    /// Tasks beside the owners: a [`Sealing`](crate::seal::Sealing) seals what they append, so that it shows if it is changed.
    /// None unless given.
    pub companions: Vec<Arc<dyn Companion>>,
    /// The name of the program's release: aggregates that another one parked are tried again at the start. Size and time
    /// of the program's file stand for it unless given. Claims and forwarded commands tell it, and processes name it that
    /// do not know a command: at most 200 bytes.
    pub release: Option<String>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
    /// Makes unique whatever must be; the operating system.
    pub random: Arc<dyn Random>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        let random: Arc<dyn Random> = Arc::new(SystemRandom);
        Self {
            namespace: None,
            node: format!("pid-{}-{:08x}", std::process::id(), random.u64() as u32),
            state_dir: None,
            dedup_retention: Duration::from_secs(7 * 24 * 3600),
            clock_skew_max: Duration::from_secs(300),
            accept_time_until: None,
            queue_max: 4_096,
            commands_max_bytes: 64 << 20,
            round_max: 1_024,
            round_max_bytes: 4 << 20,
            events_max: 1_000,
            linger: Duration::from_millis(2),
            append_deadline: Duration::from_secs(10),
            send_deadline: Duration::from_secs(30),
            unwritten_max: 10_000,
            cached_max: 20_000,
            standby: false,
            snapshot_every: 100_000,
            companions: Vec::new(),
            release: None,
            clock: Arc::new(SystemClock),
            random,
        }
    }
}

/// Why an aggregate type can't be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The log can't be used.
    #[error("starting aggregate {aggregate}")]
    Log {
        /// The aggregate type.
        aggregate: &'static str,
        /// Why.
        #[source]
        source: LogError,
    },
    /// The local state can't be used.
    #[error("starting aggregate {aggregate}")]
    Store {
        /// The aggregate type.
        aggregate: &'static str,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The aggregate type runs on this engine already: a second owner would shut out the first.
    #[error("starting aggregate {aggregate} a second time on one engine: clone the bus that the first start gave")]
    Started {
        /// The aggregate type.
        aggregate: &'static str,
    },
    /// The namespace can't be the first part of a topic's name.
    #[error("the namespace {0:?} is not valid: use lower case letters, digits, _ and -, beginning with a letter")]
    Namespace(String),
    /// The release can't be passed on.
    #[error("the release is not valid: {0}")]
    Release(String),
    /// A bound of [`EngineConfig`] is 0, which nothing could be within.
    #[error(
        "the setting EngineConfig::{0} is 0, so that no command could ever be done: give more, or leave the default"
    )]
    Bound(&'static str),
}

impl EngineConfig {
    fn check_bounds(&self) -> Result<(), StartError> {
        let bounds = [
            ("dedup_retention", self.dedup_retention.is_zero()),
            ("queue_max", self.queue_max == 0),
            ("commands_max_bytes", self.commands_max_bytes == 0),
            ("round_max", self.round_max == 0),
            ("round_max_bytes", self.round_max_bytes == 0),
            ("events_max", self.events_max == 0),
            ("append_deadline", self.append_deadline.is_zero()),
        ];
        let zero = bounds.into_iter().find(|(_, is_zero)| *is_zero);
        zero.map_or(Ok(()), |(name, _)| Err(StartError::Bound(name)))
    }
}

/// Runs the owners of aggregates on a log.
#[derive(Debug)]
pub struct Engine {
    log: Arc<dyn Log>,
    group: Option<Arc<dyn Group>>,
    config: EngineConfig,
    shutdown: CancellationToken,
    /// Owners and memberships.
    tasks: Mutex<JoinSet<()>>,
    /// Permits for filling the stores of partitions from snapshots.
    restores: Arc<Semaphore>,
    /// Bytes of commands that wait for owners here, and for owners in other processes. Not one for both: two processes
    /// that wait for each other must not keep each other from deciding.
    commands: Budget,
    forwarded: Budget,
    /// The events topics of the aggregate types that run.
    started: Mutex<HashSet<String>>,
    /// What a process that was here before left on its disk.
    #[cfg(test)]
    kept: Option<Arc<StateFolder>>,
}

impl Engine {
    /// An engine on this log that owns all partitions. One that starts later on the same log shuts it out.
    pub fn new(log: Arc<dyn Log>, config: EngineConfig) -> Self {
        Self::with(log, None, config)
    }

    /// An engine that shares the partitions with the other processes of a group: each partition has one owner, and any
    /// process takes any command and forwards it to its owner. [`EngineConfig::node`] must differ between processes.
    pub fn shared(log: Arc<dyn Log>, group: Arc<dyn Group>, config: EngineConfig) -> Self {
        Self::with(log, Some(group), config)
    }

    fn with(log: Arc<dyn Log>, group: Option<Arc<dyn Group>>, config: EngineConfig) -> Self {
        let bytes = config.commands_max_bytes;
        Self {
            commands: Budget::new(bytes),
            forwarded: Budget::new(bytes),
            started: Mutex::default(),
            log,
            group,
            config,
            shutdown: CancellationToken::new(),
            tasks: Mutex::default(),
            restores: Arc::new(Semaphore::new(restores_max())),
            #[cfg(test)]
            kept: None,
        }
    }

    /// The same on a folder that outlives the engine, as one on disk does.
    #[cfg(test)]
    pub(crate) fn on_folder(mut self, folder: Arc<StateFolder>) -> Self {
        self.kept = Some(folder);
        self
    }

    /// An engine on a new [`MemoryLog`] with 4 partitions, for tests and examples.
    pub fn in_memory() -> Self {
        Self::new(Arc::new(MemoryLog::new(4)), EngineConfig::default())
    }

    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Prepares the topic of aggregate type `A` and starts an owner for each of its partitions.
    ///
    /// The owners take over in the background: [`Bus::ready`] waits for them.
    ///
    /// # Errors
    /// [`StartError`] when the topic's settings could lose history, the log can't be reached, or the state folder
    /// is in use.
    pub async fn start<A: Handle + Apply>(&self) -> Result<Bus<A>, StartError> {
        let topic = events_topic(self.config.namespace.as_deref().unwrap_or(A::CONTEXT), A::NAME);
        let mut starting = Starting { started: &self.started, topic, keep: false };
        if !starting.begin() {
            return Err(StartError::Started { aggregate: A::NAME });
        }
        let bus = self.start_first::<A>().await?;
        starting.keep = true;
        Ok(bus)
    }

    async fn start_first<A: Handle + Apply>(&self) -> Result<Bus<A>, StartError> {
        let aggregate = A::NAME;
        let log_error = |source| StartError::Log { aggregate, source };
        let namespace = self.config.namespace.as_deref().unwrap_or(A::CONTEXT);
        check_namespace(namespace)?;
        self.config.check_bounds()?;
        limits::passed_on("release", self.config.release.as_deref().unwrap_or_default())
            .map_err(StartError::Release)?;
        let source = EventSource::open::<A>(self.log.as_ref(), namespace).await.map_err(log_error)?;
        let partitions = source.partitions;
        let snapshots = self.snapshots::<A>(namespace, partitions).await.map_err(log_error)?;
        self.prepare_companions::<A>(namespace, partitions).await.map_err(log_error)?;
        let folder = self.folder(&source.topic).await.map_err(|source| StartError::Store { aggregate, source })?;
        let context = RoundContext {
            encoder: Encoder::new(namespace, A::NAME),
            random: self.config.random.clone(),
            context: A::CONTEXT.into(),
            category: A::NAME.into(),
            content_type: A::Codec::CONTENT_TYPE.into(),
            record_max_bytes: self.log.record_max_bytes(),
            events_max: self.config.events_max.min(COMMAND_EVENTS_MAX as usize),
        };
        let (asking, asked) = mpsc::channel(partitions as usize);
        let kept: Vec<Kept> = (0..partitions)
            .map(|partition| {
                let counters = Arc::<Counters>::default();
                let topic = snapshots.as_deref();
                let topic = topic.map(|topic| self.snapshot_topic::<A>(topic, partition, &source, &context, &counters));
                Kept { folder: folder.clone(), snapshots: topic, counters }
            })
            .collect();
        let first = match &self.group {
            None => Mandate::Sole,
            Some(_) if of_another_release(&kept).await => Mandate::CatchingUp,
            Some(_) => Mandate::Waiting,
        };
        // All that may fail comes before anything runs.
        let joined = match &self.group {
            Some(group) => {
                let catching_up = first == Mandate::CatchingUp;
                Some(self.join::<A>(group, namespace, partitions, catching_up).await.map_err(log_error)?)
            }
            None => None,
        };
        let (mandates, words): (Vec<_>, Vec<_>) = (0..partitions).map(|_| watch::channel(first.clone())).unzip();
        let desks: Arc<[Desk<A>]> = (0..)
            .zip(kept.into_iter().zip(words))
            .map(|(partition, (kept, mandate))| {
                self.spawn_owner::<A>(partition, &source, &context, kept, mandate, &asking)
            })
            .collect();
        self.spawn_companions(namespace, &source, &desks);
        let forwarder = joined.map(|joined| self.take_part::<A>(joined, namespace, mandates, asked, &desks));
        let shared = Shared {
            log: self.log.clone(),
            source,
            desks,
            forwarder,
            send_deadline: self.config.send_deadline,
            retry_after: Duration::from_millis(100),
            command_max_bytes: context.record_max_bytes,
            clock: self.config.clock.clone(),
            commands: self.commands.clone(),
            forwarded: self.forwarded.clone(),
            refolds: Semaphore::new(1),
            shutdown: self.shutdown.clone(),
        };
        Ok(Bus { shared: Arc::new(shared) })
    }

    /// Joins the group that shares the partitions of an aggregate type, or gets ready to.
    async fn join<A: Handle + Apply>(
        &self,
        group: &Arc<dyn Group>,
        namespace: &str,
        partitions: u32,
        catching_up: bool,
    ) -> Result<Joined, LogError> {
        let node = &self.config.node;
        let remembered_ms = self.config.dedup_retention.as_millis().try_into().unwrap_or(u64::MAX);
        let kept_ms = COMMANDS_KEPT_MS.min(remembered_ms / 2);
        let route = Route {
            commands: format!("{namespace}.{}.commands", A::NAME).into(),
            replies: format!("{namespace}.{}.replies", A::NAME).into(),
            source: format!("/{namespace}/{}/{node}", A::NAME).into(),
            release: self.release_name(),
        };
        for (topic, kind) in
            [(&route.commands, TopicKind::Commands { kept_ms, remembered_ms }), (&route.replies, TopicKind::Replies)]
        {
            let found = self.log.prepare(&TopicSpec { name: topic.to_string(), kind }).await?;
            if found != partitions {
                let message = format!(
                    "topic {topic} has {found} partitions, that of the events counts {partitions}: delete it, it is made \
                     anew (ask for {partitions} partitions where that is not what new topics get); what was on its way is \
                     sent again under the same command ids"
                );
                return Err(LogError::new(LogErrorKind::Settings, message));
            }
        }
        let remembered = self.config.dedup_retention;
        let window = Window {
            lifetime_max_ms: kept_ms.try_into().unwrap_or(i64::MAX),
            ahead_max_ms: millis(self.config.clock_skew_max.min(remembered / 4)),
        };
        let forwarder = Forwarder::open(
            self.log.clone(),
            group.clone(),
            route.clone(),
            partitions,
            self.config.queue_max,
            kept_ms,
            remembered,
            self.config.clock.clone(),
            self.config.random.clone(),
        )
        .await?;
        let spec = GroupSpec {
            name: format!("{namespace}.{}.owners", A::NAME),
            node: node.clone(),
            topic: route.commands.to_string(),
            partitions,
        };
        // Else a group that can't be joined is an error of the start.
        let member = if catching_up { None } else { Some(group.join(&spec).await?) };
        Ok(Joined { group: group.clone(), spec, route, window, forwarder, member })
    }

    /// Takes part in the group.
    fn take_part<A: Handle + Apply>(
        &self,
        joined: Joined,
        namespace: &str,
        mandates: Vec<watch::Sender<Mandate>>,
        asked: mpsc::Receiver<u32>,
        desks: &Arc<[Desk<A>]>,
    ) -> Arc<Forwarder> {
        let Joined { group, spec, route, window, forwarder, member } = joined;
        let (clock, partitions) = (self.config.clock.clone(), spec.partitions);
        let lifetime = self.config.send_deadline.min(self.config.dedup_retention);
        let charge =
            |(mandate, desk): (watch::Sender<Mandate>, &Desk<A>)| Charge { mandate, partition: desk.partition.clone() };
        let charges = mandates.into_iter().zip(desks.iter()).map(charge).collect();
        let counters: Vec<_> = desks.iter().map(|desk| desk.partition.counters.clone()).collect();
        let (log, in_group, desks, budget) = (self.log.clone(), group.clone(), desks.clone(), self.commands.clone());
        let (in_flight_max, node) = ((self.config.queue_max / 2).max(1), Arc::<str>::from(spec.node.as_str()));
        let beside = move |partition: u32, member: Arc<dyn Member>, stop: CancellationToken| {
            let desk = &desks[partition as usize];
            let dispatcher = Dispatcher {
                node: node.clone(),
                log: log.clone(),
                group: in_group.clone(),
                member,
                route: route.clone(),
                partition,
                partitions,
                inbox: desk.inbox.clone(),
                at: desk.partition.clone(),
                clock: clock.clone(),
                in_flight_max,
                lifetime_ms: millis(lifetime),
                window,
                seldom: Seldom::default(),
                budget: budget.clone(),
            };
            Box::pin(dispatcher.run(stop)) as _
        };
        let membership = Membership {
            spec,
            charges,
            asking: asked,
            beside: Arc::new(beside),
            shutdown: self.shutdown.clone(),
            grants: 0,
        };
        let shutdown = self.shutdown.clone();
        let mut tasks = self.lock();
        let (reading, log, restarts) =
            (forwarder.clone(), self.log.clone(), Restarts::new("reading answers", counters.clone()));
        tasks.spawn(async move {
            let read = supervise(restarts, &shutdown, || reading.read(log.as_ref()));
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = read => {}
            }
        });
        let (log, events) = (self.log.clone(), events_topic(namespace, A::NAME));
        let restarts = Restarts::new("taking part in the group", counters);
        tasks
            .spawn(async move { membership.supervised(member, log.as_ref(), &events, group.as_ref(), restarts).await });
        forwarder
    }

    /// Stops every owner: what was queued is answered "not done", and local state is written down. In a group the others
    /// take the partitions over at once.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        let mut tasks = std::mem::take(&mut *self.lock());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "a task did not stop by itself");
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every owner where it stands, as `kill -9` would.
    #[cfg(test)]
    pub(crate) async fn kill(&self) {
        let mut tasks = std::mem::take(&mut *self.lock());
        tasks.shutdown().await;
    }

    fn release_name(&self) -> Option<Arc<str>> {
        self.config.release.as_deref().map(Arc::from)
    }

    fn spawn_owner<A: Handle + Apply>(
        &self,
        partition: u32,
        source: &EventSource,
        context: &RoundContext,
        kept: Kept,
        mandate: watch::Receiver<Mandate>,
        asking: &mpsc::Sender<u32>,
    ) -> Desk<A> {
        let (inbox, jobs) = mpsc::channel(self.config.queue_max);
        let (refolded, states) = mpsc::channel(1);
        let (status_sender, status) = watch::channel(OwnerState::TakingOver { reason: "starting".into() });
        let Kept { folder, snapshots, counters } = kept;
        let owner = Owner::<A> {
            node: self.config.node.clone(),
            program: Program { release: self.release_name(), shapes: shape::of_messages::<A>() },
            source: source.clone(),
            partition,
            log: self.log.clone(),
            folder,
            snapshots,
            clock: self.config.clock.clone(),
            pace: Pace::of(self.config.clock.as_ref()),
            limits: self.limits(),
            context: context.clone(),
            status: status_sender,
            counters: counters.clone(),
            shutdown: self.shutdown.clone(),
            mandate,
            asking: asking.clone(),
            standby: self.config.standby,
            refolded: states,
            claims: Claims::default(),
            seldom: Seldom::default(),
            aggregate: PhantomData,
        };
        self.lock().spawn(owner.run(jobs));
        Desk { inbox, refolded, partition: Partition { status, counters } }
    }

    fn spawn_companions<A: Aggregate>(&self, namespace: &str, source: &EventSource, desks: &[Desk<A>]) {
        for companion in &self.config.companions {
            let beside = Beside {
                log: self.log.clone(),
                namespace: namespace.to_owned(),
                source: source.clone(),
                partitions: desks.iter().map(|desk| desk.partition.clone()).collect(),
                clock: self.config.clock.clone(),
                random: self.config.random.clone(),
                shutdown: self.shutdown.clone(),
            };
            let companion = companion.clone();
            self.lock().spawn(async move { companion.run(beside).await });
        }
    }

    fn snapshot_topic<A: Aggregate>(
        &self,
        topic: &str,
        partition: u32,
        source: &EventSource,
        context: &RoundContext,
        counters: &Arc<Counters>,
    ) -> SnapshotTopic {
        SnapshotTopic {
            log: self.log.clone(),
            source: source.clone(),
            topic: topic.into(),
            partition,
            schema: Schema { release: self.release(), ..schema::<A>() },
            clock: self.config.clock.clone(),
            random: self.config.random.clone(),
            counters: counters.clone(),
            limits: SnapshotLimits {
                every: self.config.snapshot_every,
                spans: self.spans(),
                record_max_bytes: context.record_max_bytes,
                append_deadline: self.config.append_deadline,
            },
            restored: Arc::default(),
            restores: self.restores.clone(),
        }
    }

    fn limits(&self) -> OwnerLimits {
        let config = &self.config;
        OwnerLimits {
            state: StateLimits {
                unwritten_max: config.unwritten_max,
                cached_max: config.cached_max,
                spans: self.spans(),
                release: self.release(),
            },
            round_max: config.round_max,
            round_max_bytes: config.round_max_bytes,
            linger: config.linger,
            append_deadline: config.append_deadline,
            time: TimeLimits {
                skew_max_ms: millis(config.clock_skew_max),
                accepted_until_ms: config.accept_time_until.map(|time| time.timestamp_millis()),
            },
        }
    }

    fn release(&self) -> u64 {
        parked::release(self.config.release.as_deref())
    }

    fn spans(&self) -> Spans {
        Spans { retention_ms: millis(self.config.dedup_retention) }
    }

    /// Prepares the snapshots topic, and tells its name; `None` where there is none.
    async fn snapshots<A: Aggregate>(&self, namespace: &str, partitions: u32) -> Result<Option<String>, LogError> {
        if self.config.snapshot_every == 0 || !self.log.keeps_snapshots() {
            return Ok(None);
        }
        let spec = TopicSpec { name: snapshots_topic(namespace, A::NAME), kind: TopicKind::Snapshots };
        self.beside(spec, partitions).await.map(Some)
    }

    async fn prepare_companions<A: Aggregate>(&self, namespace: &str, partitions: u32) -> Result<(), LogError> {
        for topic in self.config.companions.iter().flat_map(|companion| companion.topics(namespace, A::NAME)) {
            self.beside(topic, partitions).await?;
        }
        Ok(())
    }

    /// Prepares a topic that is about the events topic, partition by partition.
    async fn beside(&self, topic: TopicSpec, partitions: u32) -> Result<String, LogError> {
        let (found, name) = (self.log.prepare(&topic).await?, topic.name);
        pass_over_added(self.log.as_ref(), &name, found, partitions, "that the events topic counts").await?;
        Ok(name)
    }

    /// A folder per topic, so that two aggregate types, or namespaces, do not meet.
    async fn folder(&self, topic: &str) -> Result<Arc<StateFolder>, StoreError> {
        #[cfg(test)]
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let Some(dir) = &self.config.state_dir else { return Ok(Arc::new(StateFolder::in_memory())) };
        let dir = dir.join(topic);
        let opened = tokio::task::spawn_blocking(move || StateFolder::on_disk(&dir)).await;
        Ok(Arc::new(opened.unwrap_or_else(|error| Err(StoreError::new("opening", error)))?))
    }
}

/// Where the states of a partition are kept, on this machine and in a topic, and what its owner counts.
struct Kept {
    folder: Arc<StateFolder>,
    snapshots: Option<SnapshotTopic>,
    counters: Arc<Counters>,
}

/// How many partitions are filled from snapshots at once. Each collects a lot before it loads it: a few more than there
/// are cores, so that while some wait for a broker or the disk others go on, and not so many that they fill the memory.
fn restores_max() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get() + 2).min(6)
}

/// Whether states in the snapshots topic look different from those of this program, and none are on this machine.
async fn of_another_release(kept: &[Kept]) -> bool {
    let looks = kept.iter().map(async |Kept { folder, snapshots, .. }| {
        match (snapshots, folder.store()) {
            (Some(snapshots), Ok(store)) => snapshots.is_of_another_release(store.as_ref()).await,
            _ => false, // the owner says what is wrong with the store
        }
    });
    futures::future::join_all(looks).await.contains(&true)
}

/// The place of this process in the group of an aggregate type, and what it takes part with.
struct Joined {
    group: Arc<dyn Group>,
    spec: GroupSpec,
    route: Route,
    window: Window,
    forwarder: Arc<Forwarder>,
    /// `None` where joining waits until the owners have caught up.
    member: Option<Arc<dyn Member>>,
}

/// An aggregate type that is being started; given up unless it was.
struct Starting<'a> {
    started: &'a Mutex<HashSet<String>>,
    topic: String,
    keep: bool,
}

impl Starting<'_> {
    fn begin(&mut self) -> bool {
        let new = self.lock().insert(self.topic.clone());
        self.keep = !new; // what another start has begun is not this one's to give up
        new
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        if !self.keep {
            self.lock().remove(&self.topic);
        }
    }
}

impl Drop for Engine {
    /// Owners end where they stand, as when the process is killed; the log and the next start make up for it.
    /// [`Engine::shutdown`] lets them finish.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn check_namespace(namespace: &str) -> Result<(), StartError> {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let fits = namespace.starts_with(|c: char| c.is_ascii_lowercase()) && namespace.chars().all(tail);
    if fits && namespace.len() <= 100 { Ok(()) } else { Err(StartError::Namespace(namespace.into())) }
}
