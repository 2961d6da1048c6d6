//! The log on a real Kafka: what is appended is read back as it was, and what can't be appended is refused in time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use es_core::log::{AppendError, Log, LogErrorKind, LogReader, Record, StoredRecord, TopicKind, TopicSpec};
use es_core::testing::log_contract;
use es_core::{Clock, SystemClock};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, topic_prefix};
use tokio::time::timeout;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn connect(kafka: &Kafka) -> KafkaLog {
    connect_with(KafkaConfig::new(kafka.bootstrap())).await
}

pub(crate) async fn connect_with(config: KafkaConfig) -> KafkaLog {
    KafkaLog::connect(config).await.expect("the broker answers")
}

pub(crate) fn events(name: &str) -> TopicSpec {
    TopicSpec { name: format!("{}.{name}.events", topic_prefix()), kind: TopicKind::Events }
}

/// A new events topic; its name.
pub(crate) async fn prepared(log: &KafkaLog) -> String {
    let topic = events("account");
    log.prepare(&topic).await.expect("a new topic is fit");
    topic.name
}

pub(crate) fn record(key: impl Into<String>) -> Record {
    let key = key.into();
    Record {
        value: Some(Bytes::from(format!("value of {key}"))),
        headers: vec![("es".into(), Bytes::from_static(b"\x08\x01")), ("ce_id".into(), key.clone().into())],
        key: key.into(),
        timestamp_ms: SystemClock.now_ms(),
    }
}

/// Reads until the offset to go on from is at least `end`.
pub(crate) async fn read_to(reader: &mut dyn LogReader, end: u64) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    timeout(PATIENCE, async {
        loop {
            let batch = reader.next().await.expect("the partition can be read");
            records.extend(batch.records);
            if batch.next >= end {
                break;
            }
        }
    })
    .await
    .expect("the end of the partition is reached");
    records
}

pub(crate) async fn read_all(log: &KafkaLog, topic: &str, partition: u32) -> Vec<StoredRecord> {
    let bounds = log.bounds(topic, partition).await.expect("the partition is there");
    if bounds.is_empty() {
        return Vec::new();
    }
    let mut reader = log.reader(topic, &[(partition, bounds.start)]).await.expect("the partition is there");
    read_to(reader.as_mut(), bounds.end).await
}

/// The suite that every log has to pass.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn the_contract_holds() {
    let kafka = Kafka::shared().await;
    let log = connect_with(KafkaConfig::new(kafka.bootstrap()).partitions(3)).await;
    log_contract::run_all(Arc::new(log), &topic_prefix()).await;
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_round_of_many_batches_keeps_its_order_and_a_reader_follows_every_partition() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    let mut reader = log.reader(&topic, &[(0, 0), (1, 0)]).await.unwrap();
    for partition in [0, 1] {
        let mut writer = log.writer(&topic, partition).await.unwrap();
        let big = |number| Record { value: Some(vec![b'x'; 1_000].into()), ..record(format!("{partition}-{number}")) };
        let offsets = writer.append((0..5_000).map(big).collect()).await.unwrap();
        assert_eq!(offsets, (0..5_000).collect::<Vec<_>>());
    }
    let mut keys = [Vec::new(), Vec::new()];
    while keys.iter().any(|keys| keys.len() < 5_000) {
        let batch = timeout(PATIENCE, reader.next()).await.unwrap().unwrap();
        assert!(batch.records.len() <= 1_000, "{} records", batch.records.len());
        let bytes: usize = batch.records.iter().map(|stored| stored.record.size()).sum();
        assert!(bytes < 1_100_000, "{bytes} bytes");
        let last = batch.records.last().map_or(0, |last| last.offset + 1);
        assert!(batch.next >= last);
        keys[batch.partition as usize].extend(batch.records.into_iter().map(|stored| stored.record.key));
    }
    for (partition, keys) in keys.iter().enumerate() {
        assert!(keys.iter().enumerate().all(|(number, key)| key == format!("{partition}-{number}").as_bytes()));
    }
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_slow_reader_loses_nothing() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    // More than the batches and the queue of the client hold.
    let large = |number: u64| Record { value: Some(vec![b'x'; 100_000].into()), ..record(number.to_string()) };
    for round in 0..10 {
        writer.append((0..60).map(|number| large(round * 60 + number)).collect()).await.unwrap();
    }
    let mut reader = log.reader(&topic, &[(0, 0)]).await.unwrap();
    let first = reader.next().await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rest = read_to(reader.as_mut(), 600).await;
    let offsets: Vec<u64> = first.records.iter().chain(&rest).map(|stored| stored.offset).collect();
    assert_eq!(offsets, (0..600).collect::<Vec<_>>());
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_time_that_kafka_would_replace_or_a_header_it_would_cut_is_refused() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    let bad = [
        Record { timestamp_ms: 0, ..record("now") },
        Record { timestamp_ms: -1, ..record("none") },
        Record { headers: vec![("a\0b".into(), Bytes::new())], ..record("cut") },
    ];
    for record in bad {
        let error = writer.append(vec![record]).await.unwrap_err();
        assert!(matches!(error, AppendError::Refused(_)), "{error:?}");
    }
    assert_eq!(writer.append(vec![record("good")]).await.unwrap(), [0]);
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn what_a_broker_refuses_leaves_the_outcome_unknown_and_the_writer_useless() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    let in_three_days = Record { timestamp_ms: 4_000_000_000_000, ..record("ahead of time") };
    let error = timeout(PATIENCE, writer.append(vec![in_three_days])).await.unwrap().unwrap_err();
    let AppendError::Unknown(cause) = &error else { panic!("{error:?}") };
    assert_eq!(cause.kind(), LogErrorKind::Unavailable, "{cause:?}");
    let error = writer.append(vec![record("after")]).await.unwrap_err();
    assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
    drop(writer);
    let mut writer = log.writer(&topic, 0).await.unwrap();
    assert_eq!(writer.append(vec![record("after")]).await.unwrap(), [0]);
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn an_append_that_is_left_makes_the_writer_useless() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    let left = timeout(Duration::ZERO, writer.append((0..1_000).map(|n| record(n.to_string())).collect())).await;
    if left.is_err() {
        let error = writer.append(vec![record("after")]).await.unwrap_err();
        assert!(matches!(error, AppendError::Unknown(_)), "{error:?}");
    }
    drop(writer);
    // Whatever came of it, offsets are whole and keys are there once at most.
    let mut writer = log.writer(&topic, 0).await.unwrap();
    writer.append(vec![record("end")]).await.unwrap();
    let stored = read_all(&log, &topic, 0).await;
    let keys: BTreeSet<_> = stored.iter().map(|stored| stored.record.key.clone()).collect();
    assert_eq!(keys.len(), stored.len());
}
