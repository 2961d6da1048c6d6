//! Groups: a Kafka consumer group on the commands topic says which process should own which partition.
//!
//! Its consumer takes part in the group and reads nothing: commands are read by a [`crate::reader`] per partition. What
//! is revoked is given back only when the owner has stopped, which is why the rebalance callback does not do it.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use es_core::log::group::{Change, Group, GroupSpec, Member, Place, Tenures};
use es_core::log::{AppendError, LogError, LogErrorKind, Record};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::client::{Journal, blocking, lock, spawn};
use crate::config::KafkaConfig;
use crate::error::{Call, Class, class, code_of, failed};
use crate::writer::{CONNECTING, headers};

/// How long the thread of a member waits for something to happen.
const POLL: Duration = Duration::from_millis(100);
/// How long leaving may take before the others have to miss this process.
const LEAVING_MAX: Duration = Duration::from_secs(5);
/// How long a member is not missed, where the client does not say so.
const SESSION: Duration = Duration::from_secs(6);
/// How long the question who is in the group may take before it is asked again.
const ASKING_MAX: Duration = Duration::from_secs(5);
/// The same for who leaves it, and then the question is left.
const ASKING_LAST: Duration = Duration::from_secs(1);

/// Kafka's consumer groups, and a producer for commands and replies. Made by [`KafkaLog::group`](crate::KafkaLog::group).
pub struct KafkaGroup {
    config: Arc<KafkaConfig>,
    /// Made when it is first needed, and anew after an error that it does not survive.
    producer: Mutex<Option<FutureProducer<Journal>>>,
    /// Of records that may not have arrived, of which their senders hear nothing but that.
    undelivered: Journal,
}

impl KafkaGroup {
    pub(crate) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, producer: Mutex::default(), undelivered: Journal::default() }
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
            .map_err(|error| failed(Call::Work, "creating a Kafka client", error))?;
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
        let (config, spec, producer) = (self.config.clone(), spec.clone(), self.producer()?);
        let member = blocking(move || {
            get_ready(&producer, &spec.topic, config.deadline());
            KafkaMember::join(&config, spec)
        });
        Ok(Arc::new(member.await?))
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
        let what = || format!("sending to {topic}/{partition}");
        let unknown = |error: KafkaError| {
            self.undelivered.note(&error, &format!("{}: {error}", what()));
            AppendError::Unknown(failed(Call::Report, what(), error))
        };
        // What the client did not take was never sent. Of what it took a report says nothing for certain.
        let taken = producer.send_result(message);
        let report = taken.map_err(|(error, _)| AppendError::Refused(failed(Call::Work, what(), error)))?;
        match report.await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err((error, _))) => Err(unknown(error)),
            Err(_) => Err(unknown(KafkaError::Canceled)),
        }
    }
}

/// Connects now, so that the first command or reply need not wait for it, and for the id that the producer asks for by
/// a timer: a second, which is longer than taking a partition over. Whatever fails here, sending tries again.
fn get_ready(producer: &FutureProducer<Journal>, topic: &str, patience: Duration) {
    for _ in 0..CONNECTING {
        if let Err(error) = producer.client().fetch_metadata(Some(topic), patience) {
            tracing::debug!(topic, error = &error as &dyn std::error::Error, "connecting for sending");
            return;
        }
    }
}

struct KafkaMember {
    spec: GroupSpec,
    seat: Arc<Seat>,
    changes: tokio::sync::Mutex<mpsc::UnboundedReceiver<Result<Change, LogError>>>,
    patience: Duration,
}

/// A place in the group, and whoever takes it at present: a consumer that Kafka fenced is of no use any more.
struct Seat {
    group: String,
    topic: String,
    node: String,
    client: ClientConfig,
    changes: mpsc::UnboundedSender<Result<Change, LogError>>,
    tenures: Arc<Tenures>,
    commits: Turns,
    consumer: Mutex<Arc<BaseConsumer<Rebalances>>>,
    stopped: AtomicBool,
}

impl KafkaMember {
    /// Blocks.
    fn join(config: &KafkaConfig, spec: GroupSpec) -> Result<Self, LogError> {
        let client = config.for_group(&spec.name, &spec.node);
        let (sender, changes) = mpsc::unbounded_channel();
        let tenures = Arc::<Tenures>::default();
        let consumer = consumer(&client, sender.clone(), Arc::clone(&tenures))
            .map_err(|error| failed(Call::Start, joining(&spec.name, &spec.node), error))?;
        let what = || joining(&spec.name, &spec.node);
        consumer.subscribe(&[&spec.topic]).map_err(|error| failed(Call::Start, what(), error))?;
        let seat = Arc::new(Seat {
            group: spec.name.clone(),
            topic: spec.topic.clone(),
            node: spec.node.clone(),
            client,
            changes: sender,
            tenures,
            commits: Turns::default(),
            consumer: Mutex::new(consumer),
            stopped: AtomicBool::new(false),
        });
        let serving = Arc::clone(&seat);
        spawn("es-kafka-group", move || serving.serve())?;
        let changes = tokio::sync::Mutex::new(changes);
        Ok(Self { spec, seat, changes, patience: config.deadline() })
    }

    fn consumer(&self) -> Arc<BaseConsumer<Rebalances>> {
        self.seat.consumer()
    }

    fn list(&self, places: impl Iterator<Item = (u32, Offset)>) -> Result<TopicPartitionList, LogError> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in places {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            list.add_partition_offset(&self.spec.topic, number, offset)
                .map_err(|error| failed(Call::Work, format!("naming {}/{partition}", self.spec.topic), error))?;
        }
        Ok(list)
    }
}

impl KafkaMember {
    async fn committed_by(
        &self,
        consumer: Arc<BaseConsumer<Rebalances>>,
        partition: u32,
    ) -> Result<Option<Place>, LogError> {
        let list = self.list([(partition, Offset::Invalid)].into_iter())?;
        let (topic, patience) = (self.spec.topic.clone(), self.patience);
        blocking(move || {
            let found = consumer.committed_offsets(list, patience).map_err(|error| {
                failed(Call::Work, format!("asking for the committed offset of {topic}/{partition}"), error)
            })?;
            Ok(match found.elements().first().map(|element| element.offset()) {
                Some(Offset::Offset(offset)) => u64::try_from(offset).ok().map(|offset| Place { offset, after: None }),
                _ => None,
            })
        })
        .await
    }

    /// Only while this consumer has the partition and, where that is given, has seen no more rebalances than these.
    async fn commit_by(
        &self,
        consumer: Arc<BaseConsumer<Rebalances>>,
        partition: u32,
        place: Place,
        rebalances: Option<u64>,
    ) -> Result<bool, LogError> {
        let offset = Offset::Offset(i64::try_from(place.offset).unwrap_or(i64::MAX));
        let list = self.list([(partition, offset)].into_iter())?;
        let (what, seat) = (format!("committing {}/{partition}", self.spec.topic), Arc::clone(&self.seat));
        let committing = async {
            // The client sends a commit again by itself. So a later one has to wait until it knows what became of this one,
            // though nobody else may wait for that any more.
            let turn = self.seat.commits.of(partition).await;
            blocking(move || {
                let _turn = turn;
                // Kafka fences a member for good that commits while it is not in the group.
                let assigned = consumer.assignment().is_ok_and(|assigned| partitions(&assigned).contains(&partition));
                let seen = consumer.context().rebalances.load(Ordering::SeqCst);
                let the_same =
                    Arc::ptr_eq(&consumer, &seat.consumer()) && rebalances.is_none_or(|before| before == seen);
                let known = seat.tenures.is_known(partition);
                let lost = consumer.assignment_lost() || consumer.client().fatal_error().is_some();
                if !assigned || !the_same || !known || lost {
                    return Ok(false);
                }
                match consumer.commit(&list, CommitMode::Sync) {
                    Ok(()) => Ok(true),
                    Err(error) if is_no_longer_a_member(&error) => Ok(false),
                    Err(error) => Err(failed(Call::Work, what, error)),
                }
            })
            .await
        };
        tokio::time::timeout(self.patience, committing).await.unwrap_or_else(|_| {
            let message = format!("committing {}/{partition} took longer than {:?}", self.spec.topic, self.patience);
            Err(LogError::new(LogErrorKind::Unavailable, message))
        })
    }
}

/// Who may commit for a partition now: one at a time.
#[derive(Default)]
struct Turns(Mutex<HashMap<u32, Arc<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for the turn, which lasts until it is dropped.
    async fn of(&self, partition: u32) -> tokio::sync::OwnedMutexGuard<()> {
        let turn = Arc::clone(lock(&self.0).entry(partition).or_default());
        turn.lock_owned().await
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
            Some(change) => change.inspect(|change| self.seat.tenures.told(change)),
            None => std::future::pending().await, // the consumer, and with it this member, is going
        }
    }

    async fn release(&self, partitions: &[u32]) -> Result<(), LogError> {
        let consumer = self.consumer();
        // What was lost was given back at once.
        let deferred: Vec<u32> = {
            let mut deferred = lock(&consumer.context().deferred);
            partitions.iter().copied().filter(|partition| deferred.remove(partition)).collect()
        };
        if deferred.is_empty() {
            return Ok(());
        }
        let list = self.list(deferred.into_iter().map(|partition| (partition, Offset::Invalid)))?;
        let group = self.spec.name.clone();
        blocking(move || {
            consumer
                .incremental_unassign(&list)
                .map_err(|error| failed(Call::Work, format!("giving back to group {group}"), error))
        })
        .await
    }

    async fn committed(&self, partition: u32) -> Result<Option<Place>, LogError> {
        self.committed_by(self.consumer(), partition).await
    }

    async fn commit(&self, partition: u32, place: Place) -> Result<bool, LogError> {
        self.commit_by(self.consumer(), partition, place, None).await
    }

    async fn confirm(&self, partition: u32) -> Result<bool, LogError> {
        // The group takes a commit from its members only: this one is of what is committed. Another member may have had the
        // partition in between, and committed more: then this consumer has seen a rebalance, or was replaced.
        let consumer = self.consumer();
        let before = consumer.context().rebalances.load(Ordering::SeqCst);
        let committed = self.committed_by(Arc::clone(&consumer), partition).await?;
        self.commit_by(consumer, partition, committed.unwrap_or(Place { offset: 0, after: None }), Some(before)).await
    }

    async fn leave(&self) {
        let (seat, consumer) = (Arc::clone(&self.seat), self.consumer());
        // Closing would not tell the group: a member with a name is expected back.
        let left = blocking(move || {
            let subscribed = consumer.subscription().is_ok_and(|topics| topics.count() > 0);
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
            // Only now does the client tell the group, and not at all if it is closed before it came to that.
            let member = subscribed && consumer.client().fatal_error().is_none();
            while member && Instant::now() < deadline && seat.is_taken(&consumer, ASKING_LAST).unwrap_or(false) {
                std::thread::sleep(Duration::from_millis(10));
            }
            Ok(())
        });
        let _ = left.await; // the others miss this process when its session is over
        self.seat.stopped.store(true, Ordering::Relaxed);
    }
}

impl Drop for KafkaMember {
    fn drop(&mut self) {
        self.consumer().context().leaving.store(true, Ordering::SeqCst);
        self.seat.stopped.store(true, Ordering::Relaxed); // its thread drops the consumer, which may take long
    }
}

fn joining(group: &str, node: &str) -> String {
    format!("joining group {group} as node {node}")
}

fn consumer(
    client: &ClientConfig,
    changes: mpsc::UnboundedSender<Result<Change, LogError>>,
    tenures: Arc<Tenures>,
) -> Result<Arc<BaseConsumer<Rebalances>>, KafkaError> {
    let context = Rebalances {
        journal: Journal::default(),
        changes,
        tenures,
        told: Mutex::default(),
        deferred: Mutex::default(),
        leaving: AtomicBool::new(false),
        fenced: AtomicBool::new(false),
        rebalances: AtomicU64::new(0),
    };
    client.create_with_context(context).map(Arc::new)
}

impl Seat {
    fn consumer(&self) -> Arc<BaseConsumer<Rebalances>> {
        Arc::clone(&lock(&self.consumer))
    }

    /// The thread in which rebalances are told.
    fn serve(&self) {
        while !self.stopped.load(Ordering::Relaxed) {
            let consumer = self.consumer();
            if let Some(Err(error)) = consumer.poll(POLL) {
                // What concerns the group alone comes here only: that the user may not join it, that its settings differ.
                consumer.context().journal.note(&error, &format!("{}: {error}", joining(&self.group, &self.node)));
            }
            let Some((_, reason)) = consumer.client().fatal_error() else { continue };
            if let Err(error) = self.take_again(consumer, &reason) {
                let _ = self.changes.send(Err(error)); // nobody listens: the member is going
                return;
            }
        }
    }

    /// Kafka fences the older of two members with one name, for good. It also fences a member that has just come back:
    /// a commit that was under way when the group had given up the member and it joined anew is taken for an older
    /// member's. Time tells both apart: who is gone does not keep a place for longer than its session.
    fn take_again(&self, fenced: Arc<BaseConsumer<Rebalances>>, reason: &str) -> Result<(), LogError> {
        tracing::warn!(group = %self.group, node = %self.node, reason, "waiting until the place in the group is free");
        fenced.context().fenced.store(true, Ordering::SeqCst);
        // Not what the consumer has now: librdkafka takes everything from one that it knows to be fenced without a word.
        let lost = std::mem::take(&mut *lock(&fenced.context().told)).into_iter().collect();
        let _ = self.changes.send(Ok(Change::Lost(lost)));
        let Some(next) = self.next_consumer() else { return Ok(()) };
        *lock(&self.consumer) = Arc::clone(&next);
        drop(fenced); // that nothing of it takes part any more
        if self.stays_taken(&next) {
            let message = format!(
                "another process may have joined as node {:?}: give each process a name of its own ({reason})",
                self.node
            );
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
        tracing::info!(group = %self.group, node = %self.node, "joining the group anew");
        if let Err(error) = next.subscribe(&[&self.topic]) {
            // Only a fenced consumer refuses that, and then it is replaced in its turn.
            tracing::warn!(group = %self.group, error = &error as &dyn std::error::Error, "joining the group anew");
        }
        Ok(())
    }

    /// A consumer to take the place with; none where that is not wanted any more.
    fn next_consumer(&self) -> Option<Arc<BaseConsumer<Rebalances>>> {
        while !self.stopped.load(Ordering::Relaxed) {
            match consumer(&self.client, self.changes.clone(), Arc::clone(&self.tenures)) {
                Ok(consumer) => return Some(consumer),
                Err(error) => {
                    tracing::warn!(group = %self.group, error = &error as &dyn std::error::Error, "making a consumer");
                }
            }
            std::thread::sleep(POLL);
        }
        None
    }

    /// Whether there is a member under this process's name for longer than one that is gone would be missed.
    fn stays_taken(&self, consumer: &BaseConsumer<Rebalances>) -> bool {
        let session_ms = self.client.get("session.timeout.ms").and_then(|session| session.parse().ok());
        let session = session_ms.map_or(SESSION, Duration::from_millis);
        let mut taken_since = None;
        while !self.stopped.load(Ordering::Relaxed) {
            let _ = consumer.poll(Duration::ZERO); // for the journal
            match self.is_taken(consumer, ASKING_MAX) {
                Ok(false) => return false,
                Ok(true) => {
                    // Only from here on: a broker that just starts gives every member a new session.
                    if taken_since.get_or_insert_with(Instant::now).elapsed() > session * 2 + ASKING_MAX {
                        return true;
                    }
                }
                Err(error) => {
                    tracing::debug!(group = %self.group, error = &error as &dyn std::error::Error, "asking who is in it");
                    taken_since = None;
                }
            }
            std::thread::sleep(POLL);
        }
        false
    }

    /// Whether there is a member under this process's name.
    fn is_taken(&self, consumer: &BaseConsumer<Rebalances>, patience: Duration) -> Result<bool, KafkaError> {
        // How Kafka makes the ids of members that have a name.
        let named = format!("{}-", self.node);
        let has_name = |id: &str| id.strip_prefix(&named).is_some_and(|rest| Uuid::try_parse(rest).is_ok());
        let list = consumer.fetch_group_list(Some(&self.group), patience)?;
        Ok(list.groups().iter().flat_map(|group| group.members()).any(|member| has_name(member.id())))
    }
}

fn partitions(list: &TopicPartitionList) -> Vec<u32> {
    list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect()
}

/// Whether the group has gone on without the member that asks.
fn is_no_longer_a_member(error: &KafkaError) -> bool {
    code_of(error).is_some_and(|code| class(code) == Class::Outside)
}

/// Hands on what the group says.
struct Rebalances {
    journal: Journal,
    changes: mpsc::UnboundedSender<Result<Change, LogError>>,
    tenures: Arc<Tenures>,
    /// The partitions that were told to be this process's.
    told: Mutex<BTreeSet<u32>>,
    /// Revoked partitions that were not given back yet.
    deferred: Mutex<BTreeSet<u32>>,
    leaving: AtomicBool,
    /// Its consumer was given up; what it still has to say is past.
    fenced: AtomicBool,
    /// How often the group changed what this member has.
    rebalances: AtomicU64,
}

impl Rebalances {
    fn tell(&self, change: Result<Change, LogError>) {
        if self.fenced.load(Ordering::SeqCst) {
            return;
        }
        match &change {
            Ok(Change::Assigned(partitions)) => lock(&self.told).extend(partitions),
            Ok(Change::Revoked(partitions) | Change::Lost(partitions)) => {
                lock(&self.told).retain(|partition| !partitions.contains(partition));
            }
            Err(_) => {}
        }
        if let Ok(change) = &change {
            self.tenures.changed(change);
        }
        let _ = self.changes.send(change); // nobody listens: the member is going
    }
}

impl ConsumerContext for Rebalances {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, kind: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.rebalances.fetch_add(1, Ordering::SeqCst);
        let partitions = partitions(list);
        if kind == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            let _ = list.set_all_offsets(Offset::End);
            // Nothing is read: a message that comes before the pause is passed over.
            let assigned = consumer.incremental_assign(list).and_then(|()| consumer.pause(list));
            match assigned {
                Ok(()) => self.tell(Ok(Change::Assigned(partitions))),
                Err(error) => self.tell(Err(failed(Call::Work, format!("taking partitions {partitions:?}"), error))),
            }
            return;
        }
        let lost = consumer.assignment_lost();
        if lost || self.leaving.load(Ordering::SeqCst) || self.fenced.load(Ordering::SeqCst) {
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
        self.journal.error(error, reason);
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::RDKafkaApiKey;

    use super::*;

    const TOPIC: &str = "commands";

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        cluster
    }

    fn group(config: KafkaConfig) -> KafkaGroup {
        KafkaGroup::new(Arc::new(config.timeout(Duration::from_secs(1))))
    }

    fn record(bytes: usize) -> Record {
        let value = Some(vec![0; bytes].into());
        Record { key: "a".into(), value, headers: Vec::new(), timestamp_ms: 1 }
    }

    /// What was sent once may be in the topic, whatever the last report about it says: a topic that a broker does not know
    /// any more was there a moment ago, and so was a right.
    #[tokio::test]
    async fn no_report_says_that_a_record_was_not_sent() {
        let cluster = cluster();
        let group =
            group(KafkaConfig::new(cluster.bootstrap_servers()).property("topic.metadata.propagation.max.ms", "1"));
        group.send(TOPIC, 0, record(1)).await.unwrap();
        let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        cluster.request_errors(RDKafkaApiKey::Produce, &denied);
        let unknown = |outcome: Result<(), AppendError>| match outcome {
            Err(AppendError::Unknown(error)) => assert_eq!(error.kind(), LogErrorKind::Unavailable),
            outcome => panic!("{outcome:?}"),
        };
        unknown(group.send(TOPIC, 0, record(1)).await);

        cluster.topic_error("gone", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        unknown(group.send("gone", 0, record(1)).await);
        group.send(TOPIC, 0, record(1)).await.unwrap();
    }

    #[tokio::test]
    async fn what_the_client_does_not_take_was_not_sent() {
        let cluster = cluster();
        let group = group(KafkaConfig::new(cluster.bootstrap_servers()).property("queue.buffering.max.messages", "1"));
        let outcome = group.send(TOPIC, 0, record(2_000_000)).await;
        assert!(matches!(outcome, Err(AppendError::Refused(_))), "{outcome:?}");
        cluster.broker_down(1).unwrap();
        // The second comes while the first waits for its broker.
        let (waiting, second) = tokio::join!(biased; group.send(TOPIC, 0, record(1)), group.send(TOPIC, 0, record(1)));
        assert!(matches!(second, Err(AppendError::Refused(_))), "the queue is full: {second:?}");
        assert!(matches!(waiting, Err(AppendError::Unknown(_))), "{waiting:?}");
    }

    /// Shows: a commit waits for an earlier one of its partition that is under way still, though its caller has gone.
    #[tokio::test]
    async fn commits_of_a_partition_come_one_after_the_other() {
        let turns = Turns::default();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let turn = turns.of(1).await;
        let under_way = blocking(move || {
            let _turn = turn;
            let _ = ended.recv();
            Ok(())
        });
        let gone = tokio::time::timeout(Duration::from_millis(20), under_way).await;
        assert!(gone.is_err());
        assert!(tokio::time::timeout(Duration::from_millis(20), turns.of(1)).await.is_err());
        drop(turns.of(2).await);
        end.send(()).unwrap();
        drop(turns.of(1).await);
    }
}
