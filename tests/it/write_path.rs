//! The write path on real logs: answers and log agree, whatever happens to broker, process and folder.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use es_core::doc::{Account, AccountCommand, AccountError};
use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::log::{Log, Record};
use es_core::{
    Bus, Checkpoint, Engine, EngineConfig, Fed, NotDone, OwnerState, PartitionReader, Receipt, Recorded, SendError,
};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, eventually, topic_prefix};

use crate::bank::LONG;

const PARTITIONS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(60);

struct Process {
    engine: Engine,
    bus: Bus<Account>,
}

type Answer = Result<Receipt, SendError<AccountError>>;

impl Process {
    async fn start(log: &Arc<dyn Log>, config: EngineConfig) -> Self {
        let engine = Engine::new(log.clone(), config);
        let bus = engine.start::<Account>().await.expect("starts");
        bus.ready().await.expect("serves");
        Self { engine, bus }
    }

    /// Sends, and sends again with the same id while that is what the error asks for.
    async fn send(&self, account: usize, command_id: &str, command: AccountCommand) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.bus.send(&format!("a{account}"), command.clone()).command_id(command_id).await;
            if !answer.as_ref().is_err_and(SendError::is_retryable) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{command_id} is still {answer:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn config(namespace: &str, state: Option<&Path>) -> EngineConfig {
    EngineConfig {
        namespace: Some(namespace.to_owned()),
        state_dir: state.map(Path::to_owned),
        append_deadline: Duration::from_secs(3),
        unwritten_max: 200,
        ..EngineConfig::default()
    }
}

async fn kafka_log(kafka: &Kafka) -> Arc<dyn Log> {
    let config = KafkaConfig::new(kafka.bootstrap()).partitions(PARTITIONS);
    Arc::new(KafkaLog::connect(config).await.expect("connects"))
}

fn embedded_log(dir: &Path) -> Arc<dyn Log> {
    let config = EmbeddedConfig { partitions: PARTITIONS, ..EmbeddedConfig::default() };
    Arc::new(EmbeddedLog::open(dir, config).expect("opens"))
}

/// The events that count, checked: versions without hole or fork, hash chain, a command's events once.
async fn events(log: &Arc<dyn Log>, bus: &Bus<Account>) -> Vec<Recorded> {
    let source = bus.source();
    let mut events = Vec::new();
    for partition in 0..source.partitions {
        let end = log.bounds(&source.topic, partition).await.unwrap().end;
        let mut reader = PartitionReader::resume(source.clone(), partition, &Checkpoint::default());
        let mut tail = log.reader(&source.topic, &[(partition, 0)]).await.unwrap();
        while reader.next() < end {
            let batch = tail.next().await.unwrap();
            for stored in batch.records {
                if let Fed::Events(released) = reader.feed(stored).unwrap() {
                    events.extend(released);
                }
            }
            reader.skip_to(batch.next);
        }
    }
    let mut heads = BTreeMap::new();
    let mut commands = HashSet::new();
    for event in events.iter().map(|event| &event.envelope) {
        let (version, hash) = heads.entry(event.stream.id.clone()).or_insert((0, event.previous_hash));
        assert_eq!((event.version.get(), event.previous_hash), (*version + 1, *hash), "of {}", event.stream);
        (*version, *hash) = (event.version.get(), event.hash);
        assert!(commands.insert((event.stream.id.clone(), event.command_id.clone())), "{} twice", event.command_id);
    }
    events
}

fn balances(events: &[Recorded]) -> BTreeMap<String, u64> {
    let mut accounts = BTreeMap::<String, Account>::new();
    for event in events {
        let account = accounts.entry(event.envelope.stream.id.to_string()).or_default();
        es_core::Apply::apply(account, &event.envelope.event::<Account>().unwrap());
    }
    accounts.into_iter().map(|(id, account)| (id, account.balance)).collect()
}

/// Many senders, each command sent one to three times, some withdrawals that are refused. The receipts and the log
/// must tell the same story.
async fn load(process: &Arc<Process>, senders: usize, commands: usize) -> BTreeMap<String, u64> {
    let mut tasks = tokio::task::JoinSet::new();
    for sender in 0..senders {
        let process = process.clone();
        tasks.spawn(async move {
            let mut sum = BTreeMap::<String, u64>::new();
            for n in 0..commands {
                let account = (sender * 7 + n) % 20;
                let command_id = format!("{sender}-{n}");
                let refused = n % 10 == 9;
                let command = if refused {
                    AccountCommand::Withdraw { amount: u64::MAX }
                } else {
                    AccountCommand::Deposit { amount: 1 + n as u64 }
                };
                let mut positions = HashSet::new();
                for repeat in 0..1 + n % 3 {
                    match process.send(account, &command_id, command.clone()).await {
                        Ok(receipt) => {
                            assert!(!refused);
                            assert!(repeat == 0 || receipt.duplicate);
                            positions.insert(receipt.position.to_string());
                        }
                        Err(SendError::Refused(AccountError::InsufficientFunds { .. })) => assert!(refused),
                        Err(error) => panic!("{command_id}: {error:?}"),
                    }
                }
                if !refused {
                    assert_eq!(positions.len(), 1, "one place in the log");
                    *sum.entry(format!("a{account}")).or_default() += 1 + n as u64;
                }
            }
            sum
        });
    }
    let mut sum = BTreeMap::<String, u64>::new();
    while let Some(sender) = tasks.join_next().await {
        for (account, amount) in sender.unwrap() {
            *sum.entry(account).or_default() += amount;
        }
    }
    sum
}

/// Load, then the same commands again after a restart with the local state, and again without it.
async fn answers_survive_restarts(log: Arc<dyn Log>, namespace: &str) {
    let state = tempfile::tempdir().unwrap();
    let process = Arc::new(Process::start(&log, config(namespace, Some(state.path()))).await);
    let sum = load(&process, 16, 30).await;
    assert_eq!(balances(&events(&log, &process.bus).await), sum);
    let count = events(&log, &process.bus).await.len();
    process.engine.shutdown().await;
    drop(process);
    for keep in [true, false] {
        if !keep {
            std::fs::remove_dir_all(state.path()).unwrap();
        }
        let process = Arc::new(Process::start(&log, config(namespace, Some(state.path()))).await);
        assert_eq!(load(&process, 16, 30).await, sum);
        assert_eq!(events(&log, &process.bus).await.len(), count, "repeats changed something");
        process.engine.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_answers_and_log_agree_and_survive_restarts() {
    let dir = tempfile::tempdir().unwrap();
    answers_survive_restarts(embedded_log(dir.path()), "bank").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_answers_and_log_agree_and_survive_restarts() {
    answers_survive_restarts(kafka_log(Kafka::shared().await).await, &topic_prefix()).await;
}

/// A second process on the same topic: the first gets nothing accepted, refuses nothing, and says why.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_a_later_process_shuts_out_an_earlier_one() {
    let log = kafka_log(Kafka::shared().await).await;
    let namespace = topic_prefix();
    let first = Arc::new(Process::start(&log, config(&namespace, None)).await);
    let mut sum = load(&first, 8, 10).await;
    let second = Arc::new(Process::start(&log, config(&namespace, None)).await);
    second.send(0, "later", AccountCommand::Deposit { amount: 1_000 }).await.unwrap();
    *sum.entry("a0".into()).or_default() += 1_000;
    for account in 0..40 {
        for command in [AccountCommand::Deposit { amount: 1 }, AccountCommand::Withdraw { amount: u64::MAX }] {
            let answer = first.bus.send(&format!("a{account}"), command).await;
            assert!(matches!(answer, Err(SendError::NotDone(_))), "{answer:?}");
        }
    }
    let superseded = |state: &OwnerState| matches!(state, OwnerState::Superseded { .. });
    // An owner in doubt of its append reads first what became of it.
    let all = async || first.bus.status().iter().all(|status| superseded(&status.state)).then_some(());
    eventually("the first process to be shut out of every partition", LONG, all).await;
    assert_eq!(balances(&events(&log, &second.bus).await), sum);
}

/// The broker is killed under load and comes back: every receipt is in the log once, and the service resumes by itself.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_a_killed_broker_loses_and_doubles_nothing() {
    let mut kafka = Kafka::start().await;
    let log = kafka_log(&kafka).await;
    let process = Arc::new(Process::start(&log, config("bank", None)).await);
    let loading = {
        let process = process.clone();
        tokio::spawn(async move { load(&process, 32, 150).await })
    };
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        kafka.kill().await;
        kafka.restart().await;
    }
    let sum = loading.await.unwrap();
    assert_eq!(balances(&events(&log, &process.bus).await), sum);
}

/// The broker stands still for longer than an append may take: the round is in doubt, what it sends later is void or
/// counted, never both.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_a_broker_that_stands_still_loses_and_doubles_nothing() {
    let mut kafka = Kafka::start().await;
    let log = kafka_log(&kafka).await;
    let config = EngineConfig { append_deadline: Duration::from_millis(500), ..config("bank", None) };
    let process = Arc::new(Process::start(&log, config).await);
    let loading = {
        let process = process.clone();
        tokio::spawn(async move { load(&process, 32, 150).await })
    };
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kafka.pause().await;
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        kafka.resume().await;
    }
    let sum = loading.await.unwrap();
    assert_eq!(balances(&events(&log, &process.bus).await), sum);
    let doubts: u64 = process.bus.status().iter().map(|status| status.doubts).sum();
    assert!(doubts > 0, "nothing was put in doubt");
}

/// Somebody else writes to the topic under load: each record is a gap, is counted, and changes nothing.
async fn foreign_records_change_nothing(log: Arc<dyn Log>, namespace: &str) {
    let process = Arc::new(Process::start(&log, config(namespace, None)).await);
    let topic = process.bus.source().topic.clone();
    let foreign = {
        let log = log.clone();
        tokio::spawn(async move {
            let mut writer = log.writer(&topic, 1).await.unwrap();
            for n in 0..10 {
                let value = Some(Bytes::from_static(b"rubbish"));
                let key = Bytes::from(format!("a{n}/1"));
                writer.append(vec![Record { key, value, headers: vec![], timestamp_ms: 1 }]).await.unwrap();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let sum = load(&process, 16, 30).await;
    foreign.await.unwrap();
    assert_eq!(balances(&events(&log, &process.bus).await), sum);
    for account in 0..20 {
        process.send(account, "last", AccountCommand::Deposit { amount: 0 }).await.expect("served");
    }
    assert_eq!(process.bus.status()[1].foreign, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn embedded_foreign_records_under_load_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    foreign_records_change_nothing(embedded_log(dir.path()), "bank").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_foreign_records_under_load_change_nothing() {
    foreign_records_change_nothing(kafka_log(Kafka::shared().await).await, &topic_prefix()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_after_a_shutdown_are_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let log = embedded_log(dir.path());
    let process = Process::start(&log, config("bank", None)).await;
    process.engine.shutdown().await;
    let answer = process.bus.send(&"a0".to_owned(), AccountCommand::Deposit { amount: 1 }).await;
    assert!(matches!(answer, Err(SendError::NotDone(NotDone::Stopped))));
}
