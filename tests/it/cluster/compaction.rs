//! Compaction that takes at once whatever it may, while processes lose their folders.

use std::collections::BTreeSet;

use bytes::Bytes;
use es_core::log::{Log as _, StoredRecord};
use es_core::{events_topic, snapshots_topic};
use es_kafka::KafkaLog;
use es_tests::{Kafka, eventually};

use super::nodes::Cluster;
use super::{Trial, truth};
use crate::bank::LONG;
use crate::kafka_log::{connect, read_all, record};
use crate::kafka_topics::{Settings, change, create};

/// Compacts what is half a second old, and drops the tombstones with what they erase.
const SOON: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("segment.ms", "500"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("delete.retention.ms", "0"),
];
const LAG: &str = "min.compaction.lag.ms";
const SEVEN_DAYS: &str = "604800000";

/// Shows: with compaction at once, tombstones included, processes that lose their folders restore true states and
/// answers from what is left of the snapshots, and no event ever vanishes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn what_compaction_leaves_is_enough() {
    let what = "compaction";
    let kafka = Kafka::start_with(&[("log.cleaner.backoff.ms", "100")]).await;
    let mut cluster = Cluster::empty(&kafka.bootstrap());
    let events = events_topic(&cluster.namespace, "account");
    let snapshots = snapshots_topic(&cluster.namespace, "account");
    create_topics(&kafka, &cluster.namespace).await;
    cluster.options = ["--snapshot-every", "10"].map(String::from).into();
    for _ in 0..3 {
        cluster.add(&kafka.bootstrap()).start();
    }
    cluster.all_ready().await;
    let mut trial = Trial::of(what, cluster).await;
    let log = connect(&kafka).await;

    let mut seen = BTreeSet::new();
    for round in 0..6 {
        trial.load.goes_on(200).await;
        seen.extend(keys(&log, &snapshots).await);
        let victim = round % 3;
        trial.cluster.nodes[victim].lose();
        trial.pause(2_000).await;
        trial.cluster.nodes[victim].start();
    }
    let cleared = async || {
        let left = keys(&log, &snapshots).await;
        let cleared = seen.difference(&left).count();
        (cleared > 0).then_some(cleared)
    };
    let cleared = eventually("keys of earlier claims to be erased without a trace", LONG, cleared).await;
    let (span, left) = extent(&log, &snapshots).await;
    println!("{what}: {cleared} of {} keys are erased, {left} of {span} records of the snapshots are left", seen.len());
    assert!(left * 2 < span, "{left} of {span} records are left: there was no compaction");

    compact_events(&kafka, &log, &trial, &events).await;
    // All of them at once: nobody knows anything but what Kafka holds.
    trial.cluster.nodes.iter_mut().for_each(|node| node.lose());
    trial.cluster.nodes.iter_mut().for_each(|node| node.start());
    trial.cluster.all_ready().await;
    let restored = trial.cluster.figure("bank_owner_restored_aggregates_total").await;
    assert!(restored > 0, "nothing came from snapshots");
    trial.load.repeat(&trial.cluster, 100).await;
    trial.finish(what).await;
}

/// As the bank would make them, but for when they are compacted.
async fn create_topics(kafka: &Kafka, namespace: &str) {
    let topic = |kind: &str| format!("{namespace}.account.{kind}");
    let passing: Settings<'_> = &[("cleanup.policy", "delete"), ("retention.ms", "3600000")];
    create(kafka, &topic("events"), &[&SOON[..], &[(LAG, SEVEN_DAYS)]].concat()).await;
    create(kafka, &topic("snapshots"), &SOON).await;
    create(kafka, &topic("commands"), passing).await;
    create(kafka, &topic("replies"), passing).await;
}

/// Compacts the events topic under the load, which a bank that starts would refuse, and looks whether all is there.
async fn compact_events(kafka: &Kafka, log: &KafkaLog, trial: &Trial, topic: &str) {
    for partition in 0..2 {
        let mut writer = log.writer(topic, partition).await.expect("the topic is there");
        writer.append(vec![record("rubbish"), record("rubbish")]).await.expect("the broker takes everything");
    }
    let before = truth::Truth::read(&trial.cluster.kafka, &trial.cluster.namespace).await;
    change(kafka, topic, &[&SOON[..], &[(LAG, "0")]].concat()).await;
    eventually("the events topic to be compacted", LONG, async || {
        let rubbish = |stored: &&StoredRecord| stored.record.key == "rubbish";
        let count = records(log, topic).await.iter().filter(rubbish).count();
        (count == 2).then_some(())
    })
    .await;
    change(kafka, topic, &[&SOON[..], &[(LAG, SEVEN_DAYS)]].concat()).await;
    let after = truth::Truth::read(&trial.cluster.kafka, &trial.cluster.namespace).await;
    for (account, events) in &before.log {
        assert!(after.log[account].starts_with(events), "events of {account} have vanished");
    }
}

async fn records(log: &KafkaLog, topic: &str) -> Vec<StoredRecord> {
    let (first, second) = tokio::join!(read_all(log, topic, 0), read_all(log, topic, 1));
    [first, second].concat()
}

/// The keys of all records, tombstones included.
async fn keys(log: &KafkaLog, topic: &str) -> BTreeSet<Bytes> {
    records(log, topic).await.into_iter().map(|stored| stored.record.key).collect()
}

/// How many records there were, and how many are left.
async fn extent(log: &KafkaLog, topic: &str) -> (u64, u64) {
    let mut span = 0;
    for partition in 0..2 {
        span += log.bounds(topic, partition).await.expect("the partition is there").end;
    }
    (span, records(log, topic).await.len() as u64)
}
