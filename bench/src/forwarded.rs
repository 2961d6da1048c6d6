//! A command to an account that another process owns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::log::{Log, TopicKind, TopicSpec};
use es_core::{Bus, Engine, EngineConfig, OwnerState};
use es_kafka::{KafkaConfig, KafkaLog};
use tempfile::TempDir;

use crate::Failure;
use crate::account::{Account, Deposits};
use crate::embedded::folder;
use crate::figure::Figure;
use crate::floor::{self, Hop, Hops};
use crate::load;

const PARTITIONS: u32 = 4;
const ACCOUNTS: usize = 1_000;
/// How long sharing out the partitions may take.
const SHARED_OUT: Duration = Duration::from_secs(60);

/// As a process has it: nothing is shared with another but Kafka.
struct Process {
    engine: Engine,
    bus: Bus<Account>,
    log: Arc<KafkaLog>,
    _dir: TempDir,
}

impl Process {
    async fn start(broker: &str, namespace: &str, node: &str) -> Result<Self, Failure> {
        let dir = folder()?;
        let log = Arc::new(KafkaLog::connect(KafkaConfig::new(broker).partitions(PARTITIONS)).await?);
        let (namespace, state_dir) = (Some(namespace.to_owned()), Some(dir.path().join("state")));
        let config = EngineConfig { namespace, state_dir, node: node.into(), ..EngineConfig::default() };
        let engine = Engine::shared(log.clone(), Arc::new(log.group()), config);
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        Ok(Self { engine, bus, log, _dir: dir })
    }

    fn serves(&self) -> Vec<u32> {
        let status = self.bus.status();
        status.iter().filter(|status| status.state == OwnerState::Serving).map(|status| status.partition).collect()
    }
}

/// From the sending to the answer; floor: the same records produced and consumed.
pub(crate) async fn one(name: &'static str, broker: String) -> Result<Figure, Failure> {
    let namespace = es_tests::unique_name("bench");
    let here = Process::start(&broker, &namespace, "here").await?;
    let there = Process::start(&broker, &namespace, "there").await?;
    let half = PARTITIONS as usize / 2;
    let started = Instant::now();
    while here.serves().len() != half || there.serves().len() != half {
        if started.elapsed() > SHARED_OUT {
            return Err(format!("the partitions are not shared out after {SHARED_OUT:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let deposits = Deposits::to_partitions(here.bus.clone(), ACCOUNTS, &there.serves());
    load::rate(64, floor::SAMPLING, &deposits).await;
    let events = here.bus.source().topic.to_string();
    let commands = events.replace(".events", ".commands");
    let replies = events.replace(".events", ".replies");
    let [commands, events, replies] = [commands, events, replies].map(|topic| hop(here.log.as_ref(), topic));
    let floor = Hops::start(&broker, commands.await?, events.await?, replies.await?)?;
    let (ours, floor) = load::one(&deposits, &floor).await;
    here.engine.shutdown().await;
    there.engine.shutdown().await;
    Ok(Figure::of_medians(name, "ms p50", ours, floor))
}

/// A new topic beside one of ours, with the records that ours holds.
async fn hop(log: &KafkaLog, ours: String) -> Result<Hop, Failure> {
    let records = floor::records(log, &ours, PARTITIONS).await?;
    let topic = format!("{ours}.floor");
    log.prepare(&TopicSpec { name: topic.clone(), kind: TopicKind::Events }).await?;
    Ok(Hop { topic, records })
}
