//! Starts owners on a log and keeps what they share.

use std::marker::PhantomData;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Aggregate, Apply, Handle};
use crate::bus::{Bus, Counter, Shared};
use crate::clock::{Clock, SystemClock};
use crate::codec::Codec;
use crate::forward::dispatch::Dispatcher;
use crate::forward::{Forwarder, Route};
use crate::group::{Group, GroupSpec, Member};
use crate::log::memory::MemoryLog;
use crate::log::{Log, LogError, LogErrorKind, TopicKind, TopicSpec};
use crate::membership::{Charge, Mandate, Membership};
use crate::owner::{Claims, Counters, Owner, OwnerLimits, OwnerState};
use crate::reader::{EventSource, events_topic, verify_partitions};
use crate::record::Encoder;
use crate::round::Desk;
use crate::seal::{Owned, Sealer, Sealing, seals_topic};
use crate::snapshot::{SnapshotLimits, SnapshotTopic, snapshots_topic};
use crate::state::{StateLimits, schema};
use crate::store::key::Spans;
use crate::store::{StateFolder, StoreError};

/// The longest time that commands are kept on their topic.
const COMMANDS_KEPT: Duration = Duration::from_secs(24 * 3600);

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
    /// How long a command id is remembered; 7 days.
    pub dedup_retention: Duration,
    /// Commands that may wait for one partition's owner; above it callers are told "overloaded". 4,096.
    pub queue_max: usize,
    /// Commands decided in one round at most; 1,024.
    pub round_max: usize,
    /// Bytes of events after which a round takes no further command; 4 MiB.
    pub round_max_bytes: usize,
    /// Events that one command may give at most; 1,000.
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
    /// Whether and how events are sealed, so that it shows if they are changed; see [`crate::seal`]. Not unless given.
    pub sealing: Option<Sealing>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            namespace: None,
            node: format!("pid-{}-{:08x}", std::process::id(), fastrand::u32(..)),
            state_dir: None,
            dedup_retention: Duration::from_secs(7 * 24 * 3600),
            queue_max: 4_096,
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
            sealing: None,
            clock: Arc::new(SystemClock),
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
    /// The namespace can't be the first part of a topic's name.
    #[error("the namespace {0:?} is not valid: use lower case letters, digits, _ and -, beginning with a letter")]
    Namespace(String),
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
        Self {
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
        let aggregate = A::NAME;
        let log_error = |source| StartError::Log { aggregate, source };
        let namespace = self.config.namespace.as_deref().unwrap_or(A::CONTEXT);
        check_namespace(namespace)?;
        let spec = TopicSpec { name: events_topic(namespace, A::NAME), kind: TopicKind::Events };
        let partitions = self.log.prepare(&spec).await.map_err(log_error)?;
        if partitions == 0 {
            let message = format!("the topic {} has no partitions", spec.name);
            return Err(log_error(LogError::new(LogErrorKind::Settings, message)));
        }
        let snapshots = self.snapshots::<A>(namespace, partitions).await.map_err(log_error)?;
        let seals = self.seals::<A>(namespace, partitions).await.map_err(log_error)?;
        let folder = self.folder(&spec.name).await.map_err(|source| StartError::Store { aggregate, source })?;
        let source = EventSource::of::<A>(namespace, partitions);
        verify_partitions(self.log.as_ref(), &source).await.map_err(log_error)?;
        let desk = Desk {
            encoder: Encoder::new(namespace, A::NAME),
            context: A::CONTEXT.into(),
            category: A::NAME.into(),
            content_type: A::Codec::CONTENT_TYPE.into(),
            record_max_bytes: self.log.record_max_bytes(),
            events_max: self.config.events_max,
        };
        let (asking, asked) = mpsc::channel(partitions as usize);
        let kept: Vec<Kept> = (0..partitions)
            .map(|partition| {
                let counters = Arc::<Counters>::default();
                let topic = snapshots.as_deref();
                let topic = topic.map(|topic| self.snapshot_topic::<A>(topic, partition, &source, &desk, &counters));
                Kept { folder: folder.clone(), snapshots: topic, counters }
            })
            .collect();
        let first = match &self.group {
            None => Mandate::Sole,
            Some(_) if of_another_release(&kept).await => Mandate::CatchingUp,
            Some(_) => Mandate::Waiting,
        };
        let (mandates, words): (Vec<_>, Vec<_>) = (0..partitions).map(|_| watch::channel(first.clone())).unzip();
        let desks: Arc<[Counter<A>]> = (0..)
            .zip(kept.into_iter().zip(words))
            .map(|(partition, (kept, mandate))| {
                self.spawn_owner::<A>(partition, &source, &desk, kept, mandate, &asking)
            })
            .collect();
        if let Some((topic, sealing)) = seals {
            self.spawn_sealer::<A>(topic, sealing, &source, &desks);
        }
        let forwarder = match &self.group {
            Some(group) => {
                let joining = Joining { group, namespace, partitions, mandates, asked, desks: &desks };
                Some(self.join::<A>(joining).await.map_err(log_error)?)
            }
            None => None,
        };
        let shared = Shared {
            source,
            desks,
            forwarder,
            send_deadline: self.config.send_deadline,
            retry_after: Duration::from_millis(100),
            command_max_bytes: desk.record_max_bytes,
        };
        Ok(Bus { shared: Arc::new(shared) })
    }

    /// Takes part in the group that shares the partitions of an aggregate type.
    async fn join<A: Handle + Apply>(&self, joining: Joining<'_, A>) -> Result<Arc<Forwarder>, LogError> {
        let Joining { group, namespace, partitions, mandates, asked, desks } = joining;
        let node = &self.config.node;
        let lifetime = self.config.send_deadline.min(self.config.dedup_retention);
        let retention_ms = self.config.dedup_retention.min(COMMANDS_KEPT).as_millis() as u64;
        let route = Route {
            commands: format!("{namespace}.{}.commands", A::NAME).into(),
            replies: format!("{namespace}.{}.replies", A::NAME).into(),
            source: format!("/{namespace}/{}/{node}", A::NAME).into(),
        };
        for (topic, kind) in
            [(&route.commands, TopicKind::Commands { retention_ms }), (&route.replies, TopicKind::Replies)]
        {
            let found = self.log.prepare(&TopicSpec { name: topic.to_string(), kind }).await?;
            if found != partitions {
                let message = format!(
                    "topic {topic} has {found} partitions, that of the events {partitions}: make it anew with as many"
                );
                return Err(LogError::new(LogErrorKind::Settings, message));
            }
        }
        let clock = self.config.clock.clone();
        let (forwarder, reading) = Forwarder::open(
            self.log.clone(),
            group.clone(),
            route.clone(),
            partitions,
            self.config.queue_max,
            retention_ms,
            clock.clone(),
        )
        .await?;
        let spec = GroupSpec {
            name: format!("{namespace}.{}.owners", A::NAME),
            node: node.clone(),
            topic: route.commands.to_string(),
            partitions,
        };
        let charge = |(mandate, desk): (watch::Sender<Mandate>, &Counter<A>)| Charge {
            mandate,
            status: desk.status.clone(),
            counters: desk.counters.clone(),
        };
        let catching_up = mandates.iter().any(|mandate| *mandate.borrow() == Mandate::CatchingUp);
        // Else a group that can't be joined is an error of the start.
        let joined = if catching_up { None } else { Some(group.join(&spec).await?) };
        let charges = mandates.into_iter().zip(desks.iter()).map(charge).collect();
        let (log, in_group, desks) = (self.log.clone(), group.clone(), desks.clone());
        let (in_flight_max, node) = ((self.config.queue_max / 2).max(1), Arc::<str>::from(node.as_str()));
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
                status: desk.status.clone(),
                counters: desk.counters.clone(),
                clock: clock.clone(),
                in_flight_max,
                lifetime_ms: lifetime.as_millis().try_into().unwrap_or(i64::MAX),
            };
            Box::pin(dispatcher.run(stop)) as _
        };
        let membership = Membership {
            spec,
            charges,
            asking: asked,
            beside: Box::new(beside),
            shutdown: self.shutdown.clone(),
            grants: 0,
        };
        let shutdown = self.shutdown.clone();
        let mut tasks = self.lock();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => {}
                () = reading => {}
            }
        });
        let (log, group, events) = (self.log.clone(), group.clone(), events_topic(namespace, A::NAME));
        tasks.spawn(async move {
            let member = match joined {
                Some(member) => member,
                None => match membership.catch_up_and_join(log.as_ref(), &events, group.as_ref()).await {
                    Some(member) => member,
                    None => return,
                },
            };
            membership.run(member).await;
        });
        Ok(forwarder)
    }

    /// Stops every owner: what was queued is answered "not done", and local state is written down. In a group the others
    /// take the partitions over at once.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        let mut tasks = std::mem::take(&mut *self.lock());
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "an owner panicked");
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

    fn spawn_owner<A: Handle + Apply>(
        &self,
        partition: u32,
        source: &EventSource,
        desk: &Desk,
        kept: Kept,
        mandate: watch::Receiver<Mandate>,
        asking: &mpsc::Sender<u32>,
    ) -> Counter<A> {
        let (inbox, jobs) = mpsc::channel(self.config.queue_max);
        let (status_sender, status) = watch::channel(OwnerState::TakingOver { reason: "starting".into() });
        let Kept { folder, snapshots, counters } = kept;
        let owner = Owner::<A> {
            node: self.config.node.clone(),
            source: source.clone(),
            partition,
            log: self.log.clone(),
            folder,
            snapshots,
            clock: self.config.clock.clone(),
            limits: self.limits(),
            desk: desk.clone(),
            status: status_sender,
            counters: counters.clone(),
            shutdown: self.shutdown.clone(),
            mandate,
            asking: asking.clone(),
            standby: self.config.standby,
            claims: Claims::default(),
            aggregate: PhantomData,
        };
        self.lock().spawn(owner.run(jobs));
        Counter { inbox, status, counters }
    }

    fn spawn_sealer<A: Aggregate>(&self, topic: String, sealing: Sealing, source: &EventSource, desks: &[Counter<A>]) {
        let owned = |desk: &Counter<A>| Owned { status: desk.status.clone(), counters: desk.counters.clone() };
        let sealer = Sealer {
            log: self.log.clone(),
            source: source.clone(),
            topic: topic.into(),
            sealing,
            owned: desks.iter().map(owned).collect(),
            clock: self.config.clock.clone(),
            shutdown: self.shutdown.clone(),
        };
        self.lock().spawn(sealer.run());
    }

    fn snapshot_topic<A: Aggregate>(
        &self,
        topic: &str,
        partition: u32,
        source: &EventSource,
        desk: &Desk,
        counters: &Arc<Counters>,
    ) -> SnapshotTopic {
        SnapshotTopic {
            log: self.log.clone(),
            source: source.clone(),
            topic: topic.into(),
            partition,
            schema: schema::<A>(),
            clock: self.config.clock.clone(),
            counters: counters.clone(),
            limits: SnapshotLimits {
                every: self.config.snapshot_every,
                spans: self.spans(),
                record_max_bytes: desk.record_max_bytes,
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
            },
            round_max: config.round_max,
            round_max_bytes: config.round_max_bytes,
            linger: config.linger,
            append_deadline: config.append_deadline,
        }
    }

    fn spans(&self) -> Spans {
        Spans { retention_ms: self.config.dedup_retention.as_millis().try_into().unwrap_or(i64::MAX) }
    }

    /// Prepares the snapshots topic, and tells its name; `None` where there is none.
    async fn snapshots<A: Aggregate>(&self, namespace: &str, partitions: u32) -> Result<Option<String>, LogError> {
        if self.config.snapshot_every == 0 || !self.log.keeps_snapshots() {
            return Ok(None);
        }
        let spec = TopicSpec { name: snapshots_topic(namespace, A::NAME), kind: TopicKind::Snapshots };
        self.beside(spec, partitions, "delete it, it is made anew").await.map(Some)
    }

    /// Prepares the seals topic, where events are sealed.
    async fn seals<A: Aggregate>(
        &self,
        namespace: &str,
        partitions: u32,
    ) -> Result<Option<(String, Sealing)>, LogError> {
        let Some(sealing) = self.config.sealing.clone() else { return Ok(None) };
        let spec = TopicSpec { name: seals_topic(namespace, A::NAME), kind: TopicKind::Seals };
        let name = self.beside(spec, partitions, "keep what it holds, and have it made anew").await?;
        Ok(Some((name, sealing)))
    }

    /// Prepares a topic that is about the events topic, partition by partition.
    async fn beside(&self, topic: TopicSpec, partitions: u32, remedy: &str) -> Result<String, LogError> {
        let (found, name) = (self.log.prepare(&topic).await?, topic.name);
        if found != partitions {
            let message = format!("the topic {name} has {found} partitions, the events topic {partitions}: {remedy}");
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
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

/// What an aggregate type brings into the group.
struct Joining<'a, A: Aggregate> {
    group: &'a Arc<dyn Group>,
    namespace: &'a str,
    partitions: u32,
    mandates: Vec<watch::Sender<Mandate>>,
    asked: mpsc::Receiver<u32>,
    desks: &'a Arc<[Counter<A>]>,
}

impl Drop for Engine {
    /// Owners stop by themselves, without anyone waiting for them.
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn check_namespace(namespace: &str) -> Result<(), StartError> {
    let tail = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let fits = namespace.starts_with(|c: char| c.is_ascii_lowercase()) && namespace.chars().all(tail);
    if fits && namespace.len() <= 100 { Ok(()) } else { Err(StartError::Namespace(namespace.into())) }
}
