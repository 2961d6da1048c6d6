//! A broker that dies, and one that others write to.

use bytes::Bytes;
use es_core::log::{Log as _, Record};
use es_tests::{Kafka, eventually};

use super::Trial;
use super::truth;
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
