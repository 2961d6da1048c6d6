//! Topics are made so that they keep every event, and those that would not are refused.

use std::collections::HashMap;
use std::sync::Arc;

use es_core::doc::{Account, AccountCommand};
use es_core::log::{Log, LogErrorKind, TopicKind, TopicSpec};
use es_core::{Engine, EngineConfig, with_causes};
use es_kafka::KafkaConfig;
use es_tests::{Kafka, KafkaCluster};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::task::spawn_blocking;

use crate::kafka_log::{PATIENCE, connect, connect_with, events, prepared, record};

/// Names and values.
pub(crate) type Settings<'a> = &'a [(&'a str, &'a str)];

fn admin(bootstrap: &str) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("an admin client can be made")
}

/// A topic with two partitions.
pub(crate) async fn create(kafka: &Kafka, topic: &str, settings: Settings<'_>) {
    let mut new = NewTopic::new(topic, 2, TopicReplication::Fixed(1));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let made = admin(&kafka.bootstrap()).create_topics([&new], &AdminOptions::new()).await.unwrap();
    made.into_iter().for_each(|made| drop(made.expect("the topic can be made")));
}

async fn settings(bootstrap: &str, topic: &str) -> HashMap<String, String> {
    let asked = [ResourceSpecifier::Topic(topic)];
    let mut told = admin(bootstrap).describe_configs(&asked, &AdminOptions::new()).await.unwrap();
    let entries = told.remove(0).unwrap().entries;
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// These settings and no others, whatever was set before.
pub(crate) async fn change(kafka: &Kafka, topic: &str, settings: Settings<'_>) {
    let mut new = AlterConfig::new(ResourceSpecifier::Topic(topic));
    for (name, value) in settings {
        new = new.set(name, value);
    }
    let changed = admin(&kafka.bootstrap()).alter_configs([&new], &AdminOptions::new()).await.unwrap();
    changed.into_iter().for_each(|changed| drop(changed.expect("the topic can be changed")));
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_missing_topic_is_made_so_that_nothing_is_ever_lost() {
    let kafka = Kafka::shared().await;
    let log = connect_with(KafkaConfig::new(kafka.bootstrap()).partitions(3)).await;
    let topic = events("account");
    assert_eq!(log.prepare(&topic).await.unwrap(), 3);
    assert_eq!(log.prepare(&topic).await.unwrap(), 3, "and accepted when it is there");

    let settings = settings(&kafka.bootstrap(), &topic.name).await;
    let expected = [
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("min.compaction.lag.ms", "604800000"),
        ("min.insync.replicas", "1"),
        ("unclean.leader.election.enable", "false"),
        ("message.timestamp.type", "CreateTime"),
        ("max.message.bytes", "1048588"),
    ];
    for (name, value) in expected {
        assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_snapshots_topic_is_made_to_be_compacted_soon_and_refused_where_it_could_lose_any() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let snapshots = || TopicSpec { kind: TopicKind::Snapshots, ..events("account") };
    let topic = snapshots();
    log.prepare(&topic).await.unwrap();
    let settings = settings(&kafka.bootstrap(), &topic.name).await;
    for (name, value) in [("cleanup.policy", "compact"), ("retention.ms", "-1"), ("segment.bytes", "67108864")] {
        assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
    }
    let topic = snapshots();
    create(kafka, &topic.name, &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "0")]).await;
    log.prepare(&topic).await.unwrap();
    let topic = snapshots();
    create(kafka, &topic.name, &[("cleanup.policy", "compact,delete")]).await;
    let message = log.prepare(&topic).await.unwrap_err().to_string();
    assert!(message.contains("so cleanup.policy delete removes snapshots"), "{message}");
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_seals_topic_is_made_to_keep_all_and_refused_where_it_could_lose_any() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let seals = || TopicSpec { kind: TopicKind::Seals, ..events("account") };
    let topic = seals();
    log.prepare(&topic).await.unwrap();
    let settings = settings(&kafka.bootstrap(), &topic.name).await;
    for (name, value) in [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")] {
        assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
    }
    log.prepare(&topic).await.unwrap();
    let topic = seals();
    create(kafka, &topic.name, &[("cleanup.policy", "delete")]).await;
    let message = log.prepare(&topic).await.unwrap_err().to_string();
    assert!(message.contains("not fit for seals") && message.contains("removes seals"), "{message}");
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn two_processes_can_make_a_topic_at_the_same_time() {
    let kafka = Kafka::shared().await;
    let (one, other) = tokio::join!(connect(kafka), connect(kafka));
    let topic = events("account");
    let (one, other) = tokio::join!(one.prepare(&topic), other.prepare(&topic));
    assert_eq!((one.unwrap(), other.unwrap()), (8, 8));
}

/// Shows: where there are three brokers each record is on three and acknowledged by two, and a topic that some of them
/// do not know yet is waited for.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn with_three_brokers_a_topic_has_three_replicas_and_two_must_be_in_sync() {
    let kafka = KafkaCluster::start().await;
    let (bootstrap, log) = (kafka.bootstrap(), connect_with(KafkaConfig::new(kafka.bootstrap())).await);
    for _ in 0..5 {
        let kinds = [
            TopicKind::Events,
            TopicKind::Snapshots,
            TopicKind::Seals,
            TopicKind::Commands { kept_ms: 500, remembered_ms: 1_000 },
            TopicKind::Replies,
        ];
        for kind in kinds {
            let topic = TopicSpec { kind, ..events("account") };
            log.prepare(&topic).await.unwrap();
            let settings = settings(&bootstrap, &topic.name).await;
            assert_eq!(settings.get("min.insync.replicas").map(String::as_str), Some("2"), "{kind:?}");
            let (name, client) = (topic.name.clone(), admin(&bootstrap));
            let metadata = spawn_blocking(move || client.inner().fetch_metadata(Some(name.as_str()), PATIENCE))
                .await
                .unwrap()
                .unwrap();
            let partitions = metadata.topics()[0].partitions();
            assert!(partitions.iter().all(|partition| partition.replicas().len() == 3), "{kind:?}");
        }
    }
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_client_with_larger_batches_makes_a_topic_that_takes_them() {
    let kafka = Kafka::shared().await;
    let log = connect_with(KafkaConfig::new(kafka.bootstrap()).property("message.max.bytes", "2000000")).await;
    let topic = prepared(&log).await;
    assert_eq!(settings(&kafka.bootstrap(), &topic).await["max.message.bytes"], "2000061");
    // The smaller default is refused by name.
    let topic = events("account");
    create(kafka, &topic.name, &[("cleanup.policy", "compact"), ("min.compaction.lag.ms", "604800000")]).await;
    let message = log.prepare(&topic).await.unwrap_err().to_string();
    assert!(message.contains("max.message.bytes is \"1048588\"") && message.contains("2000061 or more"), "{message}");
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn an_existing_topic_that_could_lose_history_is_refused() {
    const COMPACTED: [(&str, &str); 2] = [("cleanup.policy", "compact"), ("min.compaction.lag.ms", "604800000")];
    const DELETED: [(&str, &str); 3] =
        [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let table: [(Settings<'_>, Settings<'_>, Option<&str>); 11] = [
        (&COMPACTED, &[], None),
        (&DELETED, &[], None),
        (&COMPACTED, &[("compression.type", "lz4"), ("segment.bytes", "1048576")], None),
        (&[], &[], Some("retention.ms is \"604800000\", so cleanup.policy delete removes events: set it to -1")),
        (&DELETED, &[("retention.bytes", "1000000")], Some("retention.bytes is \"1000000\"")),
        (&DELETED, &[("cleanup.policy", "compact,delete"), ("min.compaction.lag.ms", "604800000")], None),
        (&COMPACTED, &[("cleanup.policy", "compact,delete")], Some("retention.ms is \"604800000\"")),
        (&COMPACTED, &[("min.compaction.lag.ms", "604799999")], Some("min.compaction.lag.ms is \"604799999\"")),
        (&COMPACTED, &[("unclean.leader.election.enable", "true")], Some("unclean.leader.election.enable is \"true\"")),
        (
            &COMPACTED,
            &[("message.timestamp.type", "LogAppendTime")],
            Some("message.timestamp.type is \"LogAppendTime\""),
        ),
        (&COMPACTED, &[("max.message.bytes", "1000060")], Some("max.message.bytes is \"1000060\"")),
    ];
    for (base, changes, refused) in table {
        let topic = events("account");
        let settings: HashMap<&str, &str> = base.iter().chain(changes).copied().collect();
        create(kafka, &topic.name, &settings.into_iter().collect::<Vec<_>>()).await;
        let outcome = log.prepare(&topic).await;
        match refused {
            None => assert_eq!(outcome.unwrap(), 2, "{base:?} {changes:?}"),
            Some(expected) => {
                let error = outcome.expect_err(expected);
                assert_eq!(error.kind(), LogErrorKind::Settings);
                let message = error.to_string();
                assert!(message.contains(expected) && message.contains(&topic.name), "{message}");
            }
        }
    }
}

/// Shows: a command is off its topic before its id is forgotten, whatever settings the topic was made with.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_commands_topic_that_keeps_commands_for_longer_than_their_ids_is_refused() {
    const WEEK_MS: u64 = 7 * 24 * 60 * 60 * 1000;
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let commands = || TopicSpec {
        kind: TopicKind::Commands { kept_ms: WEEK_MS / 7, remembered_ms: WEEK_MS },
        ..events("account")
    };
    let topic = commands();
    log.prepare(&topic).await.unwrap();
    log.prepare(&topic).await.unwrap();
    let settings = settings(&kafka.bootstrap(), &topic.name).await;
    let expected = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "86400000"),
        ("segment.ms", "21600000"),
        ("message.timestamp.type", "LogAppendTime"),
    ];
    for (name, value) in expected {
        assert_eq!(settings.get(name).map(String::as_str), Some(value), "{name}");
    }

    const SHORT: [(&str, &str); 2] = [("retention.ms", "86400000"), ("segment.ms", "86400000")];
    let table: [(Settings<'_>, Settings<'_>, Option<&str>); 8] = [
        (&SHORT, &[("message.timestamp.type", "LogAppendTime")], None),
        // The broker's own bound for times in the future: an hour.
        (&SHORT, &[], None),
        (&SHORT, &[("message.timestamp.after.max.ms", "259200000")], Some("for 694800000 ms")),
        (&SHORT, &[("retention.ms", "604800000")], Some("retention.ms \"604800000\"")),
        (&SHORT, &[("retention.ms", "-1")], Some("stay on it for ever")),
        (&SHORT, &[("segment.ms", "604800000")], Some("segment.ms \"604800000\"")),
        (&[], &[("retention.ms", "86400000")], Some("segment.ms \"604800000\"")),
        (
            &SHORT,
            &[("cleanup.policy", "compact,delete")],
            Some("cleanup.policy is \"compact,delete\": set it to delete"),
        ),
    ];
    for (base, changes, refused) in table {
        let topic = commands();
        let settings: HashMap<&str, &str> = base.iter().chain(changes).copied().collect();
        create(kafka, &topic.name, &settings.into_iter().collect::<Vec<_>>()).await;
        match (log.prepare(&topic).await, refused) {
            (Ok(2), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(error.kind(), LogErrorKind::Settings);
                let message = error.to_string();
                assert!(message.contains(expected) && message.contains(&topic.name), "{message}");
            }
            outcome => panic!("{changes:?}: {outcome:?}"),
        }
    }
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn another_number_of_partitions_is_refused() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let topic = events("account");
    assert_eq!(log.prepare(&topic).await.unwrap(), 8);
    // Asked for by the configuration.
    let other = connect_with(KafkaConfig::new(kafka.bootstrap()).partitions(4)).await;
    let error = other.prepare(&topic).await.unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Settings);
    assert!(error.to_string().contains("it has 8 partitions, asked for are 4"), "{error}");
    assert!(error.to_string().contains("leave the number out"), "{error}");
    // Remembered from before: somebody added some.
    raise(kafka, &topic.name, 9).await;
    let error = es_tests::eventually("the new partition", PATIENCE, async || {
        log.prepare(&topic).await.err() // brokers hear of it one after the other
    })
    .await;
    assert_eq!(error.kind(), LogErrorKind::Settings);
    assert!(error.to_string().contains("has 9 partitions and had 8 before: some were added"), "{error}");
}

async fn raise(kafka: &Kafka, topic: &str, partitions: usize) {
    let more = NewPartitions::new(topic, partitions);
    let changed = admin(&kafka.bootstrap()).create_partitions([&more], &AdminOptions::new()).await.unwrap();
    changed.into_iter().for_each(|changed| drop(changed.unwrap()));
}

/// Shows: whatever topic somebody gives more partitions, the next start goes on as before where that is right, and else
/// names the topic and the way back.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn partitions_that_were_added_are_passed_over_or_named() {
    let kafka = Kafka::shared().await;
    let namespace = es_tests::topic_prefix();
    let start = async |kafka_config: KafkaConfig| {
        let log = connect_with(kafka_config).await;
        let group = Arc::new(log.group());
        let config = EngineConfig { namespace: Some(namespace.clone()), ..EngineConfig::default() };
        let engine = Engine::shared(Arc::new(log), group, config);
        let bus = engine.start::<Account>().await.map_err(|error| with_causes(&error))?;
        tokio::time::timeout(PATIENCE, bus.ready()).await.expect("serves in time").expect("serves");
        let sent = bus.send(&"7".to_owned(), AccountCommand::Deposit { amount: 5 }).command_id("the same");
        let receipt = sent.await.expect("is accepted");
        let partitions = bus.status().len();
        engine.shutdown().await;
        Ok::<_, String>((partitions, receipt.version.get()))
    };
    let unasked = || KafkaConfig::new(kafka.bootstrap());
    assert_eq!(start(unasked().partitions(2)).await, Ok((2, 1)));
    for topic in ["events", "snapshots"] {
        raise(kafka, &format!("{namespace}.account.{topic}"), 3).await;
        assert_eq!(start(unasked()).await, Ok((2, 1)), "{topic}: as before");
    }
    raise(kafka, &format!("{namespace}.account.commands"), 3).await;
    let told = es_tests::eventually("the new partition", PATIENCE, async || {
        start(unasked()).await.err() // the broker hears of it in a moment
    });
    let told = told.await;
    assert!(told.contains("account.commands has 3 partitions, that of the events counts 2: delete it"), "{told}");
}

#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_topic_whose_first_records_were_deleted_is_refused() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let topic = events("account");
    // Kafka deletes records only where the policy allows it.
    let settings = [("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")];
    create(kafka, &topic.name, &settings).await;
    log.prepare(&topic).await.unwrap();
    log.writer(&topic.name, 1).await.unwrap().append((0..5).map(|n| record(n.to_string())).collect()).await.unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic.name, 1, Offset::Offset(3)).unwrap();
    admin(&kafka.bootstrap()).delete_records(&before, &AdminOptions::new()).await.unwrap();

    let error = log.prepare(&topic).await.unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Lost);
    let message = error.to_string();
    assert!(message.contains("partition 1 begins at offset 3") && message.contains(&topic.name), "{message}");

    // And a reader that begins before them is told, not moved on in silence.
    let mut reader = log.reader(&topic.name, &[(0, 0), (1, 2)]).await.unwrap();
    let error = reader.next().await.unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Lost);
    assert!(error.to_string().contains(&format!("{}/1 at offset 2: it has 3 to 5", topic.name)), "{error}");
}
