//! A broker that dies, and one that others write to.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use es_core::log::{Log as _, Record};
use es_tests::{Kafka, KafkaCluster, eventually};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use tokio::task::spawn_blocking;

use super::{Trial, truth};
use crate::bank::LONG;
use crate::kafka_log::{read_all, record};

/// Shows: `kill -9` and restart of the broker under the load of three processes lose and double nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_killed_broker_loses_and_doubles_nothing() {
    let what = "broker kills";
    let mut kafka = Kafka::start().await;
    let mut trial = Trial::start(what, &kafka.bootstrap(), 3).await;
    for _ in 0..2 {
        trial.load.goes_on(200).await;
        kafka.kill().await;
        trial.pause(2_000).await;
        kafka.restart().await;
    }
    trial.finish(what).await;
}

/// Shows: with three brokers, topics have three replicas, and each broker in turn may be killed under load: the bank goes
/// on with the other two, and loses and doubles nothing.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn each_of_three_brokers_may_be_killed_while_the_bank_goes_on() {
    let what = "kills of one in three brokers";
    let mut kafka = KafkaCluster::start().await;
    let trial = Trial::start(what, &kafka.bootstrap(), 3).await;
    for number in 0..3 {
        in_sync(&trial).await;
        trial.load.goes_on(100).await;
        kafka.nodes[number].kill().await;
        trial.load.goes_on(200).await;
        kafka.nodes[number].restart().await;
    }
    in_sync(&trial).await;
    trial.finish(what).await;
}

/// Shows: the same of brokers that freeze, keep their connections and answer nothing, and go on later.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn each_of_three_brokers_may_freeze_while_the_bank_goes_on() {
    let what = "freezes of one in three brokers";
    let mut kafka = KafkaCluster::start().await;
    let trial = Trial::start(what, &kafka.bootstrap(), 3).await;
    for number in 0..3 {
        in_sync(&trial).await;
        trial.load.goes_on(100).await;
        kafka.nodes[number].pause().await;
        trial.load.goes_on(200).await;
        kafka.nodes[number].resume().await;
    }
    in_sync(&trial).await;
    trial.finish(what).await;
}

/// Waits until all brokers are there and every partition of the bank's topics has three replicas, all in sync.
async fn in_sync(trial: &Trial) {
    let client: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", &trial.cluster.kafka).create().expect("a client can be made");
    let client = Arc::new(client);
    let all_in_sync = |metadata: &Metadata| {
        let topics = metadata.topics().iter();
        let ours: Vec<_> = topics.filter(|topic| topic.name().starts_with(&trial.cluster.namespace)).collect();
        let mut partitions = ours.iter().flat_map(|topic| topic.partitions());
        let whole = partitions.all(|partition| partition.replicas().len() == 3 && partition.isr().len() == 3);
        metadata.brokers().len() == 3 && !ours.is_empty() && whole
    };
    eventually("three replicas of everything to be in sync", LONG, async || {
        let client = client.clone();
        let asked = spawn_blocking(move || client.fetch_metadata(None, Duration::from_secs(5)));
        let metadata = asked.await.expect("asking does not panic").ok()?;
        all_in_sync(&metadata).then_some(())
    })
    .await;
}

/// Shows: what others write into the events topic is counted as foreign or void, and changes nothing: rubbish, copies
/// of valid records, and another payload for a version that there is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn foreign_records_are_counted_and_change_nothing() {
    let what = "foreign records";
    let kafka = Kafka::shared().await.bootstrap();
    let mut trial = Trial::start(what, &kafka, 2).await;
    let (log, source) = truth::open(&kafka, &trial.cluster.namespace).await;
    let (mut rubbish, mut copies) = (0, 0);
    for _ in 0..5 {
        trial.load.goes_on(100).await;
        for partition in 0..source.partitions {
            let mut stored = read_all(&log, &source.topic, partition).await;
            stored.retain(|stored| stored.record.value.is_some());
            let mut records = vec![record("rubbish"), Record { value: None, ..record("a5/1@1.deadbeef") }];
            records[1].headers.clear();
            rubbish += 1; // a tombstone of nothing is nobody's concern
            let some = (0..3).filter_map(|_| trial.random.choice(&stored)).map(|stored| stored.record.clone());
            for copy in some {
                let forked = Record { value: Some(Bytes::from_static(b"{\"amount\":1000000}")), ..copy.clone() };
                records.extend([copy, forked]);
            }
            copies += records.len() as u64 - 2;
            let mut writer = log.writer(&source.topic, partition).await.expect("the topic is there");
            writer.append(records).await.expect("the broker takes everything");
        }
    }
    let cluster = &trial.cluster;
    let counted = async || {
        let void = cluster.figure("bank_owner_void_records_total").await;
        let foreign = cluster.figure("bank_owner_foreign_records_total").await;
        (void > 0 && foreign > 0).then_some((void, foreign))
    };
    let counted = eventually("the owners to count what is not theirs", LONG, counted).await;
    println!("{what}: {rubbish} rubbish, {copies} copies and forks, the owners counted {counted:?}");
    let (_, truth) = trial.finish(what).await;
    assert_eq!(truth.foreign + truth.void, rubbish + copies, "{} foreign, {} void", truth.foreign, truth.void);
}
