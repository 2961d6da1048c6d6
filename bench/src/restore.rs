//! Starting without local state: from the snapshots in Kafka.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::{Engine, EngineConfig, snapshots_topic};
use es_kafka::{KafkaConfig, KafkaLog};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::Failure;
use crate::account::{Account, Deposits};
use crate::embedded::folder;
use crate::figure::{Figure, detail};
use crate::load::cpu_seconds;

const ACCOUNTS: usize = 1_000_000;
const TURNS: usize = 9;

/// States a second from an empty folder to a bus that serves; floor: consuming the same records.
pub(crate) async fn restore(name: &'static str, broker: String) -> Result<Figure, Failure> {
    let log = Arc::new(KafkaLog::connect(KafkaConfig::new(&broker)).await?);
    let namespace = es_tests::unique_name("bench");
    let filled = folder()?;
    let engine = engine(&log, &namespace, filled.path());
    let bus = engine.start::<Account>().await?;
    bus.ready().await?;
    let partitions = bus.source().partitions;
    Deposits::new(bus, ACCOUNTS).fill(ACCOUNTS).await?;
    engine.shutdown().await;
    let topic = snapshots_topic(&namespace, "account");
    let (mut ours, mut floor) = (vec![], vec![]);
    for _ in 0..TURNS {
        let empty = folder()?;
        let (started, cpu) = (Instant::now(), cpu_seconds());
        let engine = self::engine(&log, &namespace, empty.path());
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        let cpu = cpu_seconds() - cpu;
        let restored: u64 = bus.status().iter().map(|status| status.restored).sum();
        ours.push(restored as f64 / started.elapsed().as_secs_f64());
        detail(|| format!("{restored} states in {:?}, {cpu:.2} s of the processor", started.elapsed()));
        engine.shutdown().await;
        let started = Instant::now();
        let engine = self::engine(&log, &namespace, empty.path());
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        detail(|| format!("with the local state in {:?}", started.elapsed()));
        engine.shutdown().await;
        let (broker, topic) = (broker.clone(), topic.clone());
        floor.push(tokio::task::spawn_blocking(move || consume(&broker, &topic, partitions)).await??);
    }
    Ok(Figure::of_medians(name, "states/s", ours, floor))
}

fn engine(log: &Arc<KafkaLog>, namespace: &str, dir: &std::path::Path) -> Engine {
    let (namespace, state_dir) = (Some(namespace.to_owned()), Some(dir.to_owned()));
    Engine::new(log.clone(), EngineConfig { namespace, state_dir, ..EngineConfig::default() })
}

/// Reads the topic to its end; tells the records a second.
fn consume(broker: &str, topic: &str, partitions: u32) -> Result<f64, Failure> {
    let started = Instant::now();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker)
        .set("group.id", "floor")
        .set("fetch.queue.backoff.ms", "2")
        .create()?;
    let mut from = TopicPartitionList::new();
    let mut left = 0;
    for partition in 0..i32::try_from(partitions)? {
        let (start, end) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(10))?;
        from.add_partition_offset(topic, partition, Offset::Offset(start))?;
        left += end - start;
    }
    consumer.assign(&from)?;
    let (mut records, mut bytes) = (0, 0);
    while records < left {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            bytes += message?.payload_len();
            records += 1;
        }
    }
    detail(|| format!("floor: {records} records of {bytes} bytes in {:?}", started.elapsed()));
    Ok(records as f64 / started.elapsed().as_secs_f64())
}
