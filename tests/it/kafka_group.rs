//! Processes that share partitions through a Kafka consumer group.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::doc::{Account, AccountCommand, AccountError};
use es_core::log::group::{Change, Group as _, GroupSpec};
use es_core::log::{Log as _, TopicKind, TopicSpec};
use es_core::{AggregateKey, Bus, Engine, EngineConfig, OwnerState, SendError, partition_of};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, topic_prefix};

const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    engine: Engine,
    bus: Bus<Account>,
}

impl Node {
    async fn start(kafka: &Kafka, namespace: &str, node: &str) -> Self {
        let config = KafkaConfig::new(kafka.bootstrap()).partitions(PARTITIONS).property("session.timeout.ms", "2000");
        let log = KafkaLog::connect(config).await.expect("connects");
        let group = Arc::new(log.group());
        let config = EngineConfig { namespace: Some(namespace.into()), node: node.into(), ..EngineConfig::default() };
        let engine = Engine::shared(Arc::new(log), group, config);
        let bus = engine.start::<Account>().await.expect("starts");
        let ready = tokio::time::timeout(PATIENCE, bus.ready()).await;
        ready.unwrap_or_else(|_| panic!("{node} is not ready: {:?}", bus.status())).expect("serves or knows who does");
        Self { engine, bus }
    }

    fn serving(&self) -> BTreeSet<u32> {
        let status = self.bus.status();
        status.iter().filter(|one| one.state == OwnerState::Serving).map(|one| one.partition).collect()
    }

    async fn serves(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.serving().len() != count {
            assert!(Instant::now() < deadline, "{:?}", self.bus.status());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends, and sends again with the same id while that is what the error asks for; the version.
    async fn deposit(&self, account: &str, command_id: &str, amount: u64) -> u64 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let command = AccountCommand::Deposit { amount };
            match self.bus.send(&account.to_owned(), command).command_id(command_id).await {
                Ok(receipt) => return receipt.version.get(),
                Err(error) if error.is_retryable() && Instant::now() < deadline => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => panic!("{command_id}: {error}, {:?}", self.bus.status()),
            }
        }
    }
}

/// An account in a partition that is served here, or is not.
fn account(node: &Node, here: bool) -> String {
    let served = node.serving();
    let home = |id: &str| partition_of(&AggregateKey::new(id).unwrap(), PARTITIONS);
    (0..1_000).map(|number| format!("a{number}")).find(|id| served.contains(&home(id)) == here).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn two_processes_share_and_forward_and_a_graceful_stop_hands_over() {
    let kafka = Kafka::shared().await;
    let namespace = topic_prefix();
    let one = Node::start(kafka, &namespace, "one").await;
    one.serves(4).await;
    let two = Node::start(kafka, &namespace, "two").await;
    one.serves(2).await;
    two.serves(2).await;
    assert!(one.serving().is_disjoint(&two.serving()));

    let (here, there) = (account(&one, true), account(&one, false));
    assert_eq!((one.deposit(&here, "a", 5).await, one.deposit(&there, "a", 5).await), (1, 1));
    assert_eq!((two.deposit(&here, "b", 5).await, two.deposit(&there, "b", 5).await), (2, 2));
    let refused = one.bus.send(&there, AccountCommand::Withdraw { amount: 11 }).await;
    assert!(matches!(refused, Err(SendError::Refused(AccountError::InsufficientFunds { balance: 10 }))), "{refused:?}");
    assert_eq!(one.deposit(&there, "b", 5).await, 2, "a repeat, through the other process");

    let started = Instant::now();
    two.engine.shutdown().await;
    println!("two left after {:?}", started.elapsed());
    assert_eq!(one.deposit(&there, "c", 5).await, 3);
    println!("served again after {:?}", started.elapsed());
    one.serves(4).await;
    one.engine.shutdown().await;
}

/// Shows: who comes second under a name gets everything, and who was first is told of each partition that it lost, although
/// librdkafka takes them away without a word once it knows that it was fenced.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka"]
async fn a_fenced_member_hears_of_all_that_it_lost() {
    let kafka = Kafka::shared().await;
    let topic = format!("{}.account.commands", topic_prefix());
    let spec = GroupSpec { name: topic.clone(), node: "one".into(), topic: topic.clone(), partitions: PARTITIONS };
    let properties = [("session.timeout.ms", "2000"), ("heartbeat.interval.ms", "200")];
    let config = KafkaConfig::new(kafka.bootstrap()).partitions(PARTITIONS);
    let config = properties.into_iter().fold(config, |config, (name, value)| config.property(name, value));
    let first = KafkaLog::connect(config.clone()).await.expect("connects");
    first
        .prepare(&TopicSpec { name: topic, kind: TopicKind::Commands { kept_ms: 60_000, remembered_ms: 3_600_000 } })
        .await
        .expect("makes the topic");
    let all: BTreeSet<u32> = (0..PARTITIONS).collect();

    let older = first.group().join(&spec).await.expect("joins");
    let until = |member: Arc<dyn es_core::log::group::Member>, wanted: fn(Change) -> Vec<u32>| {
        let all = all.clone();
        tokio::time::timeout(PATIENCE, async move {
            let mut heard = BTreeSet::new();
            while heard != all {
                heard.extend(wanted(member.next().await.expect("no change is an error before the place stays taken")));
            }
        })
    };
    let assigned = |change| if let Change::Assigned(partitions) = change { partitions } else { Vec::new() };
    let lost = |change| if let Change::Lost(partitions) = change { partitions } else { Vec::new() };
    until(older.clone(), assigned).await.expect("the first gets all");
    let second = KafkaLog::connect(config).await.expect("connects");
    let newer = second.group().join(&spec).await.expect("joins");
    until(newer, assigned).await.expect("the second gets all");
    until(older, lost).await.expect("the first hears that it lost all");
}
