//! A process starts on Kafka without the local state of the one before it, from snapshots, and gives the same answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::doc::{Account, AccountCommand, AccountError};
use es_core::log::Log;
use es_core::{Bus, Engine, EngineConfig, SendError, snapshots_topic};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, topic_prefix};

const PATIENCE: Duration = Duration::from_secs(60);
const COMMANDS: usize = 600;

async fn start(log: &Arc<dyn Log>, namespace: &str) -> (Engine, Bus<Account>) {
    let namespace = Some(namespace.to_owned());
    let config = EngineConfig { namespace, unwritten_max: 50, snapshot_every: 100, ..EngineConfig::default() };
    let engine = Engine::new(log.clone(), config); // keeps its state in memory: gone with the process
    let bus = engine.start::<Account>().await.expect("starts");
    bus.ready().await.expect("serves");
    (engine, bus)
}

/// Deposits to 40 accounts, and withdrawals that are refused; how many of them are new.
async fn send_all(bus: &Bus<Account>) -> usize {
    let sending = (0..COMMANDS).map(|n| {
        let bus = bus.clone();
        tokio::spawn(async move {
            let refused = n % 10 == 9;
            let amount = if refused { u64::MAX } else { 1 };
            let command =
                if refused { AccountCommand::Withdraw { amount } } else { AccountCommand::Deposit { amount } };
            let deadline = Instant::now() + PATIENCE;
            loop {
                match bus.send(&format!("a{}", n % 40), command.clone()).command_id(format!("{n}")).await {
                    Ok(receipt) => return usize::from(!receipt.duplicate),
                    Err(SendError::Refused(AccountError::InsufficientFunds { .. })) if refused => return 0,
                    Err(error) => assert!(error.is_retryable() && Instant::now() < deadline, "{n}: {error:?}"),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
    });
    let mut new = 0;
    for sent in sending.collect::<Vec<_>>() {
        new += sent.await.unwrap();
    }
    new
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
