//! Groups: a Kafka consumer group on the commands topic says which process should own which partition.
//!
//! Its consumer takes part in the group and reads nothing: commands are read by a [`crate::reader`] per partition. What
//! is revoked is given back only when the owner has stopped, which is why the rebalance callback does not do it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use es_core::group::{Change, Group, GroupSpec, Member};
use es_core::log::{AppendError, LogError, LogErrorKind, Record};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::client::{Journal, blocking, lock, spawn};
use crate::config::KafkaConfig;
use crate::error::{code_of, failed};
use crate::writer::headers;

/// How long the thread of a member waits for something to happen.
const POLL: Duration = Duration::from_millis(100);
/// How long leaving may take before the others have to miss this process.
const LEAVING_MAX: Duration = Duration::from_secs(5);

/// Kafka's consumer groups, and a producer for commands and replies. Made by [`KafkaLog::group`](crate::KafkaLog::group).
pub struct KafkaGroup {
    config: Arc<KafkaConfig>,
    /// Made when it is first needed, and anew after an error that it does not survive.
    producer: Mutex<Option<FutureProducer<Journal>>>,
}

impl KafkaGroup {
    pub(crate) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, producer: Mutex::default() }
    }

    fn producer(&self) -> Result<FutureProducer<Journal>, LogError> {
        let mut kept = lock(&self.producer);
        if let Some(producer) = kept.as_ref().filter(|producer| producer.client().fatal_error().is_none()) {
            return Ok(producer.clone());
        }
        let made: FutureProducer<Journal> = self
            .config
            .for_sending()
            .create_with_context(Journal::default())
            .map_err(|error| failed("creating a Kafka client", error))?;
        *kept = Some(made.clone());
        Ok(made)
    }
}

impl std::fmt::Debug for KafkaGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaGroup").field("brokers", &self.config.brokers()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Group for KafkaGroup {
    async fn join(&self, spec: &GroupSpec) -> Result<Arc<dyn Member>, LogError> {
        let (config, spec) = (self.config.clone(), spec.clone());
        let member = blocking(move || KafkaMember::join(&config, spec)).await?;
        Ok(Arc::new(member))
    }

    async fn send(&self, topic: &str, partition: u32, record: Record) -> Result<(), AppendError> {
        let number = i32::try_from(partition).map_err(|_| {
            let message = format!("sending to {topic}: there is no partition {partition}");
            AppendError::Refused(LogError::new(LogErrorKind::Settings, message))
        })?;
        let producer = self.producer().map_err(AppendError::Refused)?;
        let mut message = FutureRecord::to(topic)
            .partition(number)
            .key(record.key.as_ref())
            .timestamp(record.timestamp_ms)
            .headers(headers(&record));
        message.payload = record.value.as_deref();
        match producer.send(message, Duration::ZERO).await {
            Ok(_) => Ok(()),
            Err((error, _)) => {
                use RDKafkaErrorCode::{MessageSizeTooLarge, QueueFull, UnknownPartition, UnknownTopic};
                let refused =
                    matches!(code_of(&error), Some(MessageSizeTooLarge | QueueFull | UnknownPartition | UnknownTopic));
                let error = failed(format!("sending to {topic}/{partition}"), error);
                Err(if refused { AppendError::Refused(error) } else { AppendError::Unknown(error) })
            }
        }
    }
}

struct KafkaMember {
    spec: GroupSpec,
    consumer: Arc<BaseConsumer<Rebalances>>,
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Change, LogError>>>,
    stopped: Arc<AtomicBool>,
    patience: Duration,
}

impl KafkaMember {
    /// Blocks.
    fn join(config: &KafkaConfig, spec: GroupSpec) -> Result<Self, LogError> {
        let what = || format!("joining group {} as node {}", spec.name, spec.node);
        let (sender, changes) = mpsc::unbounded_channel();
        let context = Rebalances {
            journal: Journal::default(),
            changes: sender,
            deferred: Mutex::default(),
            leaving: AtomicBool::new(false),
            node: spec.node.clone(),
        };
        let consumer: BaseConsumer<Rebalances> = config
            .for_group(&spec.name, &spec.node)
            .create_with_context(context)
            .map_err(|error| failed(what(), error))?;
        consumer.subscribe(&[&spec.topic]).map_err(|error| failed(what(), error))?;
        let consumer = Arc::new(consumer);
        let stopped = Arc::new(AtomicBool::new(false));
        serve(Arc::clone(&consumer), Arc::clone(&stopped))?;
        let changes = tokio::sync::Mutex::new(changes);
        Ok(Self { spec, consumer, changes, stopped, patience: config.deadline() })
    }

    fn list(&self, places: impl Iterator<Item = (u32, Offset)>) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            list.add_partition_offset(&self.spec.topic, number, offset)
                .map_err(|error| failed(format!("naming {}/{partition}", self.spec.topic), error))?;
        }
        Ok(list)
    }
}

impl std::fmt::Debug for KafkaMember {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaMember").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[async_trait]
impl Member for KafkaMember {
    async fn next(&self) -> Result<Change, LogError> {
        match self.changes.lock().await.recv().await {
            Some(change) => change,
            None => std::future::pending().await, // the consumer, and with it this member, is going
        }
    }

    async fn release(&self, partitions: &[u32]) -> Result<(), LogError> {
        // What was lost was given back at once.
        let deferred: Vec<u32> = {
            let mut deferred = lock(&self.consumer.context().deferred);
            partitions.iter().copied().filter(|partition| deferred.remove(partition)).collect()
        };
        if deferred.is_empty() {
            return Ok(());
        }
        let list = self.list(deferred.into_iter().map(|partition| (partition, Offset::Invalid)))?;
        let (consumer, group) = (Arc::clone(&self.consumer), self.spec.name.clone());
        blocking(move || {
            consumer.incremental_unassign(&list).map_err(|error| failed(format!("giving back to group {group}"), error))
        })
        .await
    }

    async fn committed(&self, partition: u32) -> Result<Option<u64>, LogError> {
        let list = self.list([(partition, Offset::Invalid)].into_iter())?;
        let (consumer, topic, patience) = (Arc::clone(&self.consumer), self.spec.topic.clone(), self.patience);
        blocking(move || {
            let found = consumer
                .committed_offsets(list, patience)
                .map_err(|error| failed(format!("asking for the committed offset of {topic}/{partition}"), error))?;
            Ok(match found.elements().first().map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => u64::try_from(offset).ok(),
                _ => None,
            })
        })
        .await
    }

    async fn commit(&self, partition: u32, offset: u64) -> Result<bool, LogError> {
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        let list = self.list([(partition, offset)].into_iter())?;
        let consumer = Arc::clone(&self.consumer);
        let what = format!("committing {}/{partition}", self.spec.topic);
        let committing = blocking(move || match consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(true),
            Err(error) if is_no_longer_a_member(&error) => Ok(false),
            Err(error) => Err(failed(what, error)),
        });
        tokio::time::timeout(self.patience, committing).await.unwrap_or_else(|_| {
            let message = format!("committing {}/{partition} took longer than {:?}", self.spec.topic, self.patience);
            Err(LogError::new(LogErrorKind::Unavailable, message))
        })
    }

    async fn leave(&self) {
        let consumer = Arc::clone(&self.consumer);
        // Closing would not tell the group: a member with a name is expected back.
        let left = blocking(move || {
            let context = consumer.context();
            context.leaving.store(true, Ordering::SeqCst);
            let deferred: Vec<u32> = std::mem::take(&mut *lock(&context.deferred)).into_iter().collect();
            if !deferred.is_empty() {
                let _ = consumer.assignment().and_then(|assigned| consumer.incremental_unassign(&assigned));
            }
            consumer.unsubscribe();
            let deadline = Instant::now() + LEAVING_MAX;
            while consumer.assignment().is_ok_and(|assigned| assigned.count() > 0) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        let _ = left.await; // the others miss this process when its session is over
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.consumer.context().leaving.store(true, Ordering::SeqCst);
        self.stopped.store(true, Ordering::Relaxed); // its thread drops the consumer, which may take long
    }
}

/// The thread in which rebalances are told.
fn serve(consumer: Arc<BaseConsumer<Rebalances>>, stopped: Arc<AtomicBool>) -> Result<(), LogError> {
    let serving = move || {
        while !stopped.load(Ordering::Relaxed) {
            if let Some(Err(error)) = consumer.poll(POLL) {
                tracing::debug!(error = &error as &dyn std::error::Error, "taking part in a group");
            }
        }
    };
    spawn("es-kafka-group", serving)
}

/// Whether the group has gone on without the member that asks.
fn is_no_longer_a_member(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AssignmentLost, FencedInstanceId, IllegalGeneration, RebalanceInProgress, UnknownMemberId};
    matches!(
        code_of(error),
        Some(AssignmentLost | FencedInstanceId | IllegalGeneration | RebalanceInProgress | UnknownMemberId)
    )
}

/// Hands on what the group says.
struct Rebalances {
    journal: Journal,
    changes: mpsc::UnboundedSender<Result<Change, LogError>>,
    /// Revoked partitions that were not given back yet.
    deferred: Mutex<BTreeSet<u32>>,
    leaving: AtomicBool,
    node: String,
}

impl Rebalances {
    fn tell(&self, change: Result<Change, LogError>) {
        let _ = self.changes.send(change); // nobody listens: the member is going
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<u32> =
            list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let _ = list.set_all_offsets(Offset::End);
            // Nothing is read: a message that comes before the pause is passed over.
            let assigned = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
            match assigned {
                Ok(()) => self.tell(Ok(Change::Assigned(partitions))),
                Err(error) => self.tell(Err(failed(format!("taking partitions {partitions:?}"), error))),
            }
            return;
        }
        let lost = consumer.assignment_lost();
        if lost || self.leaving.load(Ordering::SeqCst) {
            if let Err(error) = consumer.incremental_unassign(list) {
                tracing::warn!(error = &error as &dyn std::error::Error, ?partitions, "giving up partitions");
            }
            self.tell(Ok(Change::Lost(partitions)));
        } else {
            lock(&self.deferred).extend(&partitions);
            self.tell(Ok(Change::Revoked(partitions)));
        }
    }

    fn main_queue_min_poll_interval(&self) -> rdkafka::util::Timeout {
        rdkafka::util::Timeout::After(POLL)
    }
}

impl ClientContext for Rebalances {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.journal.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.journal.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let fatal = code_of(&error) == Some(RDKafkaErrorCode::Fatal);
        self.journal.error(error, reason);
        if fatal {
            let message = format!(
                "another process may have joined as node {:?}: give each process a name of its own ({reason})",
                self.node
            );
            self.tell(Err(LogError::new(LogErrorKind::Settings, message)));
        }
    }
}
