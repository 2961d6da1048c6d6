//! What the log holds, read as every reader reads it, and what the processes' read models make of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use es_core::log::{Log as _, TopicKind, TopicSpec};
use es_core::{Checkpoint, Envelope, EventSource, Fed, PartitionReader, Position, events_topic};
use es_kafka::{KafkaConfig, KafkaLog};
use serde_json::Value;

use super::checker::{Log, Logged};
use super::history::Event;
use super::nodes::Cluster;
use crate::kafka_log::{connect_with, read_all};

const PATIENCE: Duration = Duration::from_secs(60);

/// The log of a cluster, and how many of its records count for nothing.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) log: Log,
    pub(crate) claims: u64,
    pub(crate) void: u64,
    pub(crate) foreign: u64,
}

/// The events topic of a namespace, and a log to reach it.
pub(crate) async fn open(kafka: &str, namespace: &str) -> (KafkaLog, EventSource) {
    let log = connect_with(KafkaConfig::new(kafka).timeout(PATIENCE)).await;
    let topic = events_topic(namespace, "account");
    let spec = TopicSpec { name: topic.clone(), kind: TopicKind::Events };
    let partitions = log.prepare(&spec).await.expect("the topic is fit");
    let source = EventSource { context: "bank".into(), category: "account".into(), topic: topic.into(), partitions };
    (log, source)
}

impl Truth {
    pub(crate) async fn read(kafka: &str, namespace: &str) -> Truth {
        let (log, source) = open(kafka, namespace).await;
        let mut truth = Truth::default();
        for partition in 0..source.partitions {
            let mut reader = PartitionReader::resume(source.clone(), partition, &Checkpoint::default());
            for stored in read_all(&log, &source.topic, partition).await {
                match reader.feed(stored).expect("the log is whole") {
                    Fed::Events(events) => {
                        for event in events {
                            let offset = event.offset;
                            let position = Position { category: source.category.clone(), partition, offset };
                            truth.add(&event.envelope, position.to_string());
                        }
                    }
                    Fed::Claim(_) => truth.claims += 1,
                    Fed::Void(_) => truth.void += 1,
                    Fed::Foreign(_) => truth.foreign += 1,
                    _ => {}
                }
            }
        }
        truth
    }

    fn add(&mut self, envelope: &Envelope, position: String) {
        let payload: Value = serde_json::from_slice(&envelope.payload).expect("the bank's events are JSON");
        let amount = || payload["amount"].as_i64().expect("an amount");
        let text = |name: &str| payload[name].as_str().map(String::from);
        let event = match &*envelope.event_type {
            "opened" => Event::Opened,
            "deposited" => Event::Deposited { amount: amount(), note: text("note") },
            "withdrawn" => Event::Withdrawn { amount: amount(), reference: text("reference") },
            other => panic!("the load causes no event {other:?}"),
        };
        let (version, key) = (envelope.version.get(), envelope.command_id.to_string());
        let account = envelope.stream.id.to_string();
        let recorded_ms = u64::try_from(envelope.recorded_at.timestamp_millis()).expect("it was recorded after 1970");
        self.log.entry(account).or_default().push(Logged { version, key, event, position, recorded_ms });
    }
}

/// Waits until the read model of every process equals the fold of the log; what differs, else.
pub(crate) async fn compare_read_models(cluster: &Cluster, expected: &BTreeMap<String, (i64, u64)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for node in cluster.nodes.iter().filter(|node| node.process.is_some()) {
        let started = Instant::now();
        loop {
            let served = accounts(cluster, &node.url()).await;
            if served.as_ref() == Ok(expected) {
                break;
            }
            if started.elapsed() > PATIENCE {
                wrong.push(format!("{} serves {served:?}, the log holds {expected:?}", node.name));
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    wrong
}

async fn accounts(cluster: &Cluster, url: &str) -> Result<BTreeMap<String, (i64, u64)>, String> {
    let answer = cluster.client.get(format!("{url}/api/accounts?limit=1000")).timeout(Duration::from_secs(5)).send();
    let text = answer.await.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
    let body: Value = serde_json::from_str(&text).map_err(|_| text.clone())?;
    let items = body["items"].as_array().ok_or(text)?;
    let row = |item: &Value| {
        let (id, balance, version) = (item["id"].as_str(), item["balance"].as_i64(), item["version"].as_u64());
        Some((id?.to_owned(), (balance?, version?)))
    };
    items.iter().map(row).collect::<Option<_>>().ok_or_else(|| format!("{body}"))
}
