//! Starts owners on a log and keeps what they share.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Aggregate, Apply, Handle};
use crate::bus::{Bus, Counter, Shared};
use crate::clock::{Clock, SystemClock};
use crate::codec::Codec;
use crate::log::memory::MemoryLog;
use crate::log::{Log, LogError, LogErrorKind, TopicKind, TopicSpec};
use crate::owner::{Counters, Owner, OwnerLimits, OwnerState};
use crate::reader::{EventSource, events_topic};
use crate::record::Encoder;
use crate::round::Desk;
use crate::snapshot::{SnapshotLimits, SnapshotTopic, snapshots_topic};
use crate::state::{StateLimits, schema};
use crate::store::key::Spans;
use crate::store::{StateFolder, StoreError};

/// How an engine works. Every bound has a default that suits a service with a few hundred concurrent senders.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The first part of topic names, in place of the aggregates' context: lower case letters, digits, `_` and `-`.
    pub namespace: Option<String>,
    /// The name of this process in claims and messages.
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
    /// Records of the log between two checkpoints of a partition in the snapshots topic; 20,000. A process without
    /// local state reads at most about so many, and `unwritten_max`, of the events. 0 writes and reads no snapshots.
    /// Without effect on a log that keeps none ([`Log::keeps_snapshots`]).
    pub snapshot_every: u64,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            namespace: None,
            node: format!("pid-{}", std::process::id()),
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
            snapshot_every: 20_000,
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
    config: EngineConfig,
    shutdown: CancellationToken,
    owners: Mutex<JoinSet<()>>,
}

impl Engine {
    /// An engine on this log.
    pub fn new(log: Arc<dyn Log>, config: EngineConfig) -> Self {
        Self { log, config, shutdown: CancellationToken::new(), owners: Mutex::default() }
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
        let folder = self.folder(&spec.name).await.map_err(|source| StartError::Store { aggregate, source })?;
        let source = EventSource::of::<A>(namespace, partitions);
        let desk = Desk {
            encoder: Encoder::new(namespace, A::NAME),
            context: A::CONTEXT.into(),
            category: A::NAME.into(),
            content_type: A::Codec::CONTENT_TYPE.into(),
            record_max_bytes: self.log.record_max_bytes(),
            events_max: self.config.events_max,
        };
        let desks = (0..partitions)
            .map(|partition| self.spawn_owner::<A>(partition, &source, &desk, &folder, snapshots.as_deref()))
            .collect();
        let shared = Shared {
            source,
            desks,
            send_deadline: self.config.send_deadline,
            retry_after: Duration::from_millis(100),
            command_max_bytes: desk.record_max_bytes,
        };
        Ok(Bus { shared: Arc::new(shared) })
    }

    /// Stops every owner: what was queued is answered "not done", and local state is written down.
    pub async fn shutdown(&self) {
        self.shutdown.cancel();
        let mut owners = std::mem::take(&mut *self.owners.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some(ended) = owners.join_next().await {
            if let Err(error) = ended {
                tracing::error!(error = &error as &dyn std::error::Error, "an owner panicked");
            }
        }
    }

    /// Ends every owner where it stands, as `kill -9` would.
    #[cfg(test)]
    pub(crate) async fn kill(&self) {
        let mut owners = std::mem::take(&mut *self.owners.lock().unwrap_or_else(PoisonError::into_inner));
        owners.shutdown().await;
    }

    fn spawn_owner<A: Handle + Apply>(
        &self,
        partition: u32,
        source: &EventSource,
        desk: &Desk,
        folder: &Arc<StateFolder>,
        snapshots: Option<&str>,
    ) -> Counter<A> {
        let (inbox, jobs) = mpsc::channel(self.config.queue_max);
        let (status_sender, status) = watch::channel(OwnerState::TakingOver { reason: "starting".into() });
        let counters = Arc::new(Counters::default());
        let snapshots = snapshots.map(|topic| SnapshotTopic {
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
        });
        let owner = Owner::<A> {
            node: self.config.node.clone(),
            source: source.clone(),
            partition,
            log: self.log.clone(),
            folder: folder.clone(),
            snapshots,
            clock: self.config.clock.clone(),
            limits: self.limits(),
            desk: desk.clone(),
            inbox: jobs,
            status: status_sender,
            counters: counters.clone(),
            shutdown: self.shutdown.clone(),
            claims: HashSet::new(),
        };
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).spawn(owner.run());
        Counter { inbox, status, counters }
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
        let found = self.log.prepare(&spec).await?;
        if found != partitions {
            let name = &spec.name;
            let message = format!(
                "the topic {name} has {found} partitions, the events topic {partitions}: delete it, it is made anew"
            );
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
        Ok(Some(spec.name))
    }

    /// A folder per topic, so that two aggregate types, or namespaces, do not meet.
    async fn folder(&self, topic: &str) -> Result<Arc<StateFolder>, StoreError> {
        let Some(dir) = &self.config.state_dir else { return Ok(Arc::new(StateFolder::in_memory())) };
        let dir = dir.join(topic);
        let opened = tokio::task::spawn_blocking(move || StateFolder::on_disk(&dir)).await;
        Ok(Arc::new(opened.unwrap_or_else(|error| Err(StoreError::new("opening", error)))?))
    }
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
