//! The figures on Kafka.

use std::sync::Arc;

use es_core::log::{Log, TopicKind, TopicSpec};
use es_core::{Engine, EngineConfig};
use es_kafka::{KafkaConfig, KafkaLog};
use tempfile::TempDir;

use crate::Failure;
use crate::account::{Account, Deposits};
use crate::embedded::folder;
use crate::figure::Figure;
use crate::floor::{self, Produce};
use crate::load;

struct Setup {
    engine: Engine,
    deposits: Deposits,
    floor: Produce,
    _dir: TempDir,
}

impl Setup {
    async fn new(broker: String, accounts: usize, keys: bool) -> Result<Self, Failure> {
        let dir = folder()?;
        let log = Arc::new(KafkaLog::connect(KafkaConfig::new(&broker).partitions(4)).await?);
        let namespace = Some(es_tests::unique_name("bench"));
        let state_dir = Some(dir.path().join("state"));
        let config = EngineConfig { namespace, state_dir, ..EngineConfig::default() };
        let engine = Engine::new(log.clone(), config);
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        let deposits = Deposits::new(bus.clone(), accounts);
        let deposits = if keys { deposits.with_keys() } else { deposits };
        load::rate(64, floor::SAMPLING, &deposits).await;
        let templates = floor::templates(log.as_ref(), bus.source()).await?;
        let topic = format!("{}.floor", bus.source().topic);
        let partitions = log.prepare(&TopicSpec { name: topic.clone(), kind: TopicKind::Events }).await?;
        let floor = Produce::start(&broker, &topic, partitions, templates)?;
        Ok(Self { engine, deposits, floor, _dir: dir })
    }
}

pub(crate) async fn many(
    name: &'static str,
    broker: String,
    senders: usize,
    accounts: usize,
    keys: bool,
) -> Result<Figure, Failure> {
    let setup = Setup::new(broker, accounts, keys).await?;
    let floor = setup.floor.looped(accounts);
    let (ours, floor) = load::many(senders, &setup.deposits, &floor).await;
    setup.engine.shutdown().await;
    Ok(Figure::of_medians(name, "commands/s", ours, floor))
}

pub(crate) async fn one(name: &'static str, broker: String) -> Result<Figure, Failure> {
    let setup = Setup::new(broker, 1_000, false).await?;
    let (ours, floor) = load::one(&setup.deposits, &setup.floor).await;
    setup.engine.shutdown().await;
    Ok(Figure::of_medians(name, "ms p50", ours, floor))
}
