//! Tasks that panic, by a log or a group that does: each is told of and started anew, and all goes on.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::group::{Cluster, eventually, ids};
use super::*;
use crate::evidence::seal::{Sealing, SigningKey};
use crate::log::group::memory::MemoryGroup;
use crate::log::group::{Change, Group, GroupSpec, Member, Place};
use crate::log::{AppendError, Batch, LogError, LogErrorKind, LogReader, LogWriter, Record, TopicSpec};

const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

/// Panics at the next such call, once.
#[derive(Debug, Clone, Default)]
struct Trap(Arc<Mutex<Option<(&'static str, String)>>>);

impl Trap {
    fn arm(&self, call: &'static str, topic: &str) {
        *self.0.lock().unwrap() = Some((call, topic.into()));
    }

    fn pass(&self, call: &'static str, topic: &str) {
        let mut armed = self.0.lock().unwrap();
        if armed.as_ref().is_some_and(|(at, of)| *at == call && of == topic) {
            *armed = None;
            drop(armed);
            panic!("{call} of {topic} gave up");
        }
    }

    fn is_armed(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }
}

#[derive(Debug, Clone)]
struct TrapLog(MemoryLog, Trap);

#[async_trait]
impl Log for TrapLog {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        self.0.prepare(topic).await
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        Ok(Box::new(Trapped(self.0.writer(topic, partition).await?, self.1.clone(), topic.into())))
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        Ok(Box::new(Trapped(self.0.reader(topic, from).await?, self.1.clone(), topic.into())))
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        self.0.bounds(topic, partition).await
    }

    fn record_max_bytes(&self) -> usize {
        self.0.record_max_bytes()
    }
}

struct Trapped<T: ?Sized>(Box<T>, Trap, String);

#[async_trait]
impl LogWriter for Trapped<dyn LogWriter> {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        self.1.pass("append", &self.2);
        self.0.append(records).await
    }
}

#[async_trait]
impl LogReader for Trapped<dyn LogReader> {
    async fn next(&mut self) -> Result<Batch, LogError> {
        let batch = self.0.next().await;
        self.1.pass("read", &self.2);
        batch
    }
}

#[derive(Debug)]
struct TrapGroup(Arc<dyn Group>, Trap);

#[async_trait]
impl Group for TrapGroup {
    async fn join(&self, spec: &GroupSpec) -> Result<Arc<dyn Member>, LogError> {
        Ok(Arc::new(TrapMember(self.0.join(spec).await?, self.1.clone())))
    }

    async fn send(&self, topic: &str, partition: u32, record: Record) -> Result<(), AppendError> {
        self.0.send(topic, partition, record).await
    }
}

#[derive(Debug)]
struct TrapMember(Arc<dyn Member>, Trap);

#[async_trait]
impl Member for TrapMember {
    async fn next(&self) -> Result<Change, LogError> {
        let change = self.0.next().await;
        self.1.pass("change", "");
        change
    }

    async fn release(&self, partitions: &[u32]) -> Result<(), LogError> {
        self.0.release(partitions).await
    }

    async fn committed(&self, partition: u32) -> Result<Option<Place>, LogError> {
        self.0.committed(partition).await
    }

    async fn commit(&self, partition: u32, place: Place) -> Result<bool, LogError> {
        self.0.commit(partition, place).await
    }

    async fn confirm(&self, partition: u32) -> Result<bool, LogError> {
        self.0.confirm(partition).await
    }

    async fn leave(&self) {
        self.0.leave().await;
    }
}

#[tokio::test]
async fn a_task_that_panics_is_started_anew() {
    for (call, topic) in [
        ("append", "events"),    // the owner
        ("read", "commands"),    // the dispatcher
        ("read", "replies"),     // who hands answers to those who wait
        ("append", "seals"),     // the sealer
        ("append", "snapshots"), // who writes snapshots
        ("change", ""),          // the membership
    ] {
        let cluster = Cluster::new();
        let trap = Trap::default();
        let log = TrapLog(cluster.world.log.clone(), trap.clone());
        let group = TrapGroup(Arc::new(cluster.group.clone()), trap.clone());
        let key = SigningKey::from_pem("example.com/test", PEM).unwrap();
        let config = EngineConfig {
            node: "one".into(),
            unwritten_max: 1,
            snapshot_every: 1,
            companions: vec![Arc::new(Sealing { every: Duration::from_millis(20), ..Sealing::new(key) })],
            ..cluster.world.config.clone()
        };
        let engine = Engine::shared(Arc::new(log), Arc::new(group), config);
        let bus = engine.start::<Counter>().await.unwrap();
        bus.ready().await.unwrap();
        let one = Process { engine, bus };
        let two = cluster.process("two").await;
        cluster.serves(&one, 2).await;
        cluster.serves(&two, 2).await;
        let (here, elsewhere) = (ids(&one, true).next().unwrap(), ids(&one, false).next().unwrap());

        let topic = if topic.is_empty() { String::new() } else { format!("test.counter.{topic}") };
        trap.arm(call, &topic);
        let mut sent = 0;
        while trap.is_armed() {
            // Here, from here, and to here. What hangs on the panic is unknown, and sent again.
            let soon = Duration::from_millis(200);
            for (bus, id) in [(&one.bus, &here), (&one.bus, &elsewhere), (&two.bus, &here)] {
                let _ = bus.send(id, add(1)).command_id(format!("{sent}")).deadline(soon).await;
                sent += 1;
            }
            if call == "change" {
                cluster.group.expel("test.counter.owners", "one");
                cluster.group.notice("test.counter.owners");
            }
        }
        let restarts = || one.bus.status().iter().map(|status| status.restarts).sum::<u64>();
        eventually("told of", || restarts() > 0).await;
        eventually("all run again", || one.bus.status().iter().all(|status| status.down.is_empty())).await;
        let mut known = 0;
        for n in 0..sent {
            let (process, id) = [(&one, &here), (&one, &elsewhere), (&two, &here)][n % 3];
            let mut done = false;
            for _ in 0..5_000 {
                match process.send(id, &n.to_string(), add(1)).await {
                    Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(2)).await,
                    answer => {
                        done = answer.is_ok();
                        break;
                    }
                }
            }
            assert!(done, "{call} of {topic}: {:?}", process.bus.status());
            known += 1;
        }
        assert_eq!(cluster.sum(&here).await + cluster.sum(&elsewhere).await, known, "{call} of {topic}");
        // What was to be done beside goes on too.
        let before: Vec<_> = one.bus.status().iter().map(|status| (status.seals, status.checkpoints)).collect();
        let more = || {
            one.bus.status().iter().zip(&before).any(|(now, before)| now.seals > before.0)
                && one.bus.status().iter().zip(&before).any(|(now, before)| now.checkpoints > before.1)
        };
        for n in 0..1_000 {
            if more() {
                break;
            }
            let id = ids(&one, true).next().unwrap_or_else(|| here.clone());
            let _ = one.send(&id, &format!("more {n}"), add(1)).await;
        }
        eventually("seals and snapshots are written", more).await;
        one.engine.shutdown().await;
        two.engine.shutdown().await;
    }
}

/// Refuses the first that wants to join.
#[derive(Debug)]
struct Grudging(MemoryGroup, AtomicBool);

#[async_trait]
impl Group for Grudging {
    async fn join(&self, spec: &GroupSpec) -> Result<Arc<dyn Member>, LogError> {
        if !self.1.swap(true, Ordering::SeqCst) {
            return Err(LogError::new(LogErrorKind::Settings, "not you"));
        }
        self.0.join(spec).await
    }

    async fn send(&self, topic: &str, partition: u32, record: Record) -> Result<(), AppendError> {
        self.0.send(topic, partition, record).await
    }
}

#[tokio::test]
async fn a_start_that_failed_for_its_group_leaves_nothing_behind() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let group = Arc::new(Grudging(MemoryGroup::new(world.log.clone()), AtomicBool::new(false)));
    let config = EngineConfig { state_dir: Some(dir.path().into()), ..world.config.clone() };
    let engine = Engine::shared(Arc::new(world.log.clone()), group, config);
    let failed = engine.start::<Counter>().await.map(drop);
    assert!(failed.as_ref().is_err_and(|error| crate::with_causes(error).contains("not you")), "{failed:?}");
    let bus = engine.start::<Counter>().await.expect("the folder is free");
    bus.ready().await.unwrap();
    engine.shutdown().await;
}
