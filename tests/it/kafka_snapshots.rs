//! A process starts on Kafka without the local state of the one before it, from snapshots, and gives the same answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::doc::{Account, AccountCommand, AccountError};
use es_core::log::{Log, Record, StoredRecord};
use es_core::{Bus, Clock, Engine, EngineConfig, ManualClock, SendError, SystemClock, events_topic, snapshots_topic};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, eventually, topic_prefix};
use futures::StreamExt;

use crate::bank::LONG;
use crate::kafka_topics::create;

const PATIENCE: Duration = Duration::from_secs(60);
const COMMANDS: usize = 600;

async fn start(log: &Arc<dyn Log>, namespace: &str) -> (Engine, Bus<Account>) {
    start_with(log, namespace, 100, Arc::new(SystemClock)).await
}

async fn start_with(
    log: &Arc<dyn Log>,
    namespace: &str,
    snapshot_every: u64,
    clock: Arc<dyn Clock>,
) -> (Engine, Bus<Account>) {
    let namespace = Some(namespace.to_owned());
    let config = EngineConfig {
        namespace,
        unwritten_max: snapshot_every as usize / 2,
        snapshot_every,
        clock,
        ..EngineConfig::default()
    };
    let engine = Engine::new(log.clone(), config); // keeps its state in memory: gone with the process
    let bus = engine.start::<Account>().await.expect("starts");
    bus.ready().await.expect("serves");
    (engine, bus)
}

/// Deposits to 40 accounts, and withdrawals that are refused; how many of them are new.
async fn send_all(bus: &Bus<Account>) -> usize {
    send_round(bus, 0).await
}

/// The same with command ids of their own.
async fn send_round(bus: &Bus<Account>, round: usize) -> usize {
    let sending = (0..COMMANDS).map(async |n| {
        let refused = n % 10 == 9;
        let amount = if refused { u64::MAX } else { 1 };
        let command = if refused { AccountCommand::Withdraw { amount } } else { AccountCommand::Deposit { amount } };
        let deadline = Instant::now() + PATIENCE;
        loop {
            match bus.send(&format!("a{}", n % 40), command.clone()).command_id(format!("{round}.{n}")).await {
                Ok(receipt) => return usize::from(!receipt.duplicate),
                Err(SendError::Refused(AccountError::InsufficientFunds { .. })) if refused => return 0,
                Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{n}: {error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    // In as many rounds as several flushes take.
    futures::stream::iter(sending).buffer_unordered(20).fold(0, async |new, sent| new + sent).await
}

fn sum(bus: &Bus<Account>, what: impl Fn(&es_core::PartitionStatus) -> u64) -> u64 {
    bus.status().iter().map(what).sum()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_process_in_another_ones_place_begins_with_snapshots_and_gives_the_same_answers() {
    let kafka = Kafka::shared().await;
    let config = KafkaConfig::new(kafka.bootstrap()).partitions(2);
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(config).await.expect("connects"));
    let namespace = topic_prefix();
    let (first, bus) = start(&log, &namespace).await;
    assert_eq!(send_all(&bus).await, COMMANDS - COMMANDS / 10);
    first.shutdown().await;
    assert!(sum(&bus, |status| status.checkpoints) >= 2, "{:?}", bus.status());
    assert_eq!(sum(&bus, |status| status.failed_checkpoints), 0);
    let topic = snapshots_topic(&namespace, "account");
    for partition in 0..2 {
        assert!(log.bounds(&topic, partition).await.unwrap().end > 0);
    }
    // In turn: one that is stopped, one that is shut out while it runs.
    let (second, bus) = start(&log, &namespace).await;
    assert_eq!(sum(&bus, |status| status.restored), 36); // four have nothing but refusals
    assert_eq!(send_all(&bus).await, 0, "an answer was forgotten");
    bus.send(&"a1".to_owned(), AccountCommand::Deposit { amount: 1_000 }).await.unwrap();
    let (third, bus) = start(&log, &namespace).await;
    assert_eq!(sum(&bus, |status| status.restored), 36); // four have nothing but refusals
    assert_eq!(send_all(&bus).await, 0, "an answer was forgotten");
    let too_much = bus.send(&"a1".to_owned(), AccountCommand::Withdraw { amount: 1_100 }).await;
    // 15 commands to each account; a1's are all deposits of 1, and then there is the large one.
    assert!(
        matches!(too_much, Err(SendError::Refused(AccountError::InsufficientFunds { balance: 1_015 }))),
        "{too_much:?}"
    );
    second.shutdown().await;
    third.shutdown().await;
}

/// What of a partition can be read.
async fn read_all(log: &Arc<dyn Log>, topic: &str, partition: u32) -> (u64, Vec<StoredRecord>) {
    let bounds = log.bounds(topic, partition).await.unwrap();
    let mut reader = log.reader(topic, &[(partition, bounds.start)]).await.unwrap();
    let (mut next, mut records) = (bounds.start, Vec::new());
    while next < bounds.end {
        let batch = reader.next().await.unwrap();
        next = batch.next;
        records.extend(batch.records);
    }
    (bounds.end, records)
}

/// A broker that compacts whatever it may, as soon as it may: the snapshots by their keys and tombstones, and the
/// events, since the processes' clocks show last month.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn compaction_that_takes_all_it_may_takes_nothing_that_counts() {
    const ROUNDS: usize = 12;
    let at_once = [("log.cleaner.backoff.ms", "50"), ("log.retention.check.interval.ms", "1000")];
    let kafka = Kafka::start_with(&at_once).await;
    let namespace = topic_prefix();
    let (events, snapshots) = (events_topic(&namespace, "account"), snapshots_topic(&namespace, "account"));
    let compacted = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "500"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("delete.retention.ms", "0"),
    ];
    create(&kafka, &snapshots, &[&compacted[..], &[("retention.ms", "-1")]].concat()).await;
    let kept = [("retention.ms", "-1"), ("retention.bytes", "-1"), ("min.compaction.lag.ms", "604800000")];
    create(&kafka, &events, &[&compacted[..], &kept].concat()).await;
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaConfig::new(kafka.bootstrap())).await.expect("connects"));
    let clock = Arc::new(ManualClock::at(SystemClock.now_ms() - 30 * 24 * 3_600_000));
    let mut shut_out = Vec::new();
    for round in 0..ROUNDS {
        let (engine, bus) = start_with(&log, &namespace, 20, clock.clone()).await;
        for before in 0..round {
            assert_eq!(send_round(&bus, before).await, 0, "round {before} was forgotten in round {round}");
        }
        assert_eq!(send_round(&bus, round).await, COMMANDS - COMMANDS / 10);
        for partition in 0..2 {
            // Compaction keeps the last record of a key, also of one that is nobody's.
            let rubbish = Record {
                key: "rubbish".into(),
                value: Some("x".into()),
                headers: vec![],
                timestamp_ms: clock.now_ms(),
            };
            log.writer(&events, partition).await.unwrap().append(vec![rubbish]).await.unwrap();
        }
        clock.advance(60_000);
        // The last one stops in an orderly way, the others are shut out.
        shut_out.push(engine);
    }
    shut_out.pop().unwrap().shutdown().await;
    let of_the_first = async |partition| {
        let (_, records) = read_all(&log, &snapshots, partition).await;
        records.iter().any(|stored| stored.record.key.starts_with(b"!checkpoint@1."))
    };
    eventually("tombstones to take what the first process wrote", LONG, async || {
        (!of_the_first(0).await && !of_the_first(1).await).then_some(())
    })
    .await;
    for topic in [&events, &snapshots] {
        for partition in 0..2 {
            eventually(&format!("{topic}/{partition} to be compacted"), LONG, async || {
                let (end, records) = read_all(&log, topic, partition).await;
                ((records.len() as u64) < end).then_some(())
            })
            .await;
        }
    }
    let mut recorded = 0;
    for partition in 0..2 {
        let (_, records) = read_all(&log, &events, partition).await;
        recorded += records.iter().filter(|stored| stored.record.key.starts_with(b"a")).count();
    }
    assert_eq!(recorded, ROUNDS * (COMMANDS - COMMANDS / 10), "every event is there");
    let (engine, bus) = start_with(&log, &namespace, 20, clock).await;
    assert_eq!(sum(&bus, |status| status.restored), 36, "{:?}", bus.status());
    for round in 0..ROUNDS {
        assert_eq!(send_round(&bus, round).await, 0, "round {round} was forgotten");
    }
    let too_much = bus.send(&"a1".to_owned(), AccountCommand::Withdraw { amount: 1_000 }).await;
    let balance = 15 * ROUNDS as u64;
    assert!(
        matches!(too_much, Err(SendError::Refused(AccountError::InsufficientFunds { balance: found })) if found == balance),
        "{too_much:?}"
    );
    engine.shutdown().await;
}
