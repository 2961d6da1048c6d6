//! Verification on the reference log: what was done to a log, and where that is found.

mod changes;
mod copies;
mod erased;
mod seals;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Report, Verifier, Wrong};
use crate::engine::companion::Companion;
use crate::engine::owner::tests::{Counter, Do};
use crate::evidence::seal::{Sealing, SigningKey, sealed_of, seals_topic};
use crate::log::StoredRecord;
use crate::log::memory::{MemoryLog, MemoryPartition};
use crate::log::reader::{Checkpoint, EventSource, PartitionReader, Recorded};
use crate::{Bus, Engine, EngineConfig, ManualClock};

const TOPIC: &str = "test.counter.events";

/// A log of one partition, and who signs.
pub(super) struct World {
    log: MemoryLog,
    key: SigningKey,
    clock: Arc<ManualClock>,
}

impl World {
    fn new() -> Self {
        let key = crate::evidence::seal::tests::key();
        Self { log: MemoryLog::new(1), key, clock: Arc::new(ManualClock::at(1_700_000_000_000)) }
    }

    /// A process that owns the log and seals it, until it is shut down at the latest.
    async fn process(&self, sealing: Option<Sealing>) -> (Engine, Bus<Counter>) {
        // Without snapshots: an owner would refuse a log that was cut off since.
        let companions = sealing.map(|sealing| Arc::new(sealing) as Arc<dyn Companion>).into_iter().collect();
        let config =
            EngineConfig { companions, snapshot_every: 0, clock: self.clock.clone(), ..EngineConfig::default() };
        let engine = Engine::new(Arc::new(self.log.clone()), config);
        let bus = engine.start::<Counter>().await.expect("starts");
        bus.ready().await.expect("serves");
        (engine, bus)
    }

    fn sealing(&self) -> Sealing {
        Sealing { every: Duration::from_secs(3600), ..Sealing::new(self.key.clone()) }
    }

    /// Some commands by a process, some of which are refused, and a seal at its end.
    async fn work(&self, seed: u64, commands: u64, sealing: Option<Sealing>) {
        let (engine, bus) = self.process(sealing).await;
        let mut chance = fastrand::Rng::with_seed(seed);
        for place in 0..commands {
            let id = format!("counter-{}", chance.u32(..9));
            let command = match chance.u32(..5) {
                0 => Do::Take { n: chance.u64(1..60) },
                _ => Do::Add { n: chance.u64(1..20), times: chance.u64(1..4) },
            };
            self.clock.advance(chance.i64(0..50));
            let _ = bus.send(&id, command).actor("ada").command_id(format!("{seed}-{place}")).await;
        }
        engine.shutdown().await;
    }

    /// A log that four processes wrote one after the other, and the last one did not seal.
    async fn worked() -> Self {
        let world = Self::new();
        for seed in 0..3 {
            world.work(seed, 40, Some(world.sealing())).await;
        }
        world.work(3, 10, None).await;
        world
    }

    fn events(&self) -> MemoryPartition {
        self.log.partition(TOPIC, 0)
    }

    fn seals(&self) -> MemoryPartition {
        self.log.partition(&seals_topic("test", "counter"), 0)
    }

    fn verifier(&self) -> Verifier {
        Verifier::new(Arc::new(self.log.clone()), EventSource::of::<Counter>("test", 1))
            .seals(&seals_topic("test", "counter"), vec![self.key.public()])
    }

    async fn verify(&self) -> Report {
        self.verifier().run(|_| {}).await.expect("the log can be read")
    }
}

/// What counts in these records, as far as they can be read.
fn counted(records: &[StoredRecord]) -> Vec<Recorded> {
    let mut reader = PartitionReader::resume(EventSource::of::<Counter>("test", 1), 0, &Checkpoint::default());
    records.iter().cloned().map_while(|stored| reader.feed(stored).ok()).flat_map(sealed_of).collect()
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: it did not come to that");
}

#[tokio::test]
async fn a_log_that_nobody_changed_is_sound_and_the_report_tells_what_was_read() {
    let world = World::worked().await;
    let report = world.verify().await;
    assert_eq!(report.first(), None);
    assert!(report.is_sound());
    let (all, unsealed) = (counted(&world.events().records()), "3-");
    let sealed = all.iter().filter(|event| !event.envelope.command_id.as_str().starts_with(unsealed)).count();
    assert!(sealed > 100 && sealed < all.len(), "{sealed} of {}", all.len());
    assert_eq!((report.events(), report.sealed()), (all.len() as u64, sealed as u64));
    let found = &report.partitions[0];
    let ids: HashMap<_, _> = all.iter().map(|event| (event.envelope.stream.id.clone(), ())).collect();
    assert_eq!((found.aggregates, found.notes, found.void, found.foreign), (ids.len() as u64, 3, 0, 0));
    assert_eq!(found.sealed.as_ref().map(|sealed| sealed.by.as_str()), Some("example.com/bank"));
}

/// Where there are more aggregates than heads may be kept, each is followed all the same.
#[tokio::test]
async fn chains_are_followed_whatever_memory_there_is() {
    let world = World::worked().await;
    let mut records = world.events().records();
    let all = counted(&records);
    for heads_max in [1, 2, 3, 5, 100] {
        let unsealed = Verifier::new(Arc::new(world.log.clone()), EventSource::of::<Counter>("test", 1));
        let report = unsealed.clone().heads_max(heads_max).run(|_| {}).await.unwrap();
        assert!(report.is_sound(), "{:?}", report.first());
        assert_eq!(report.partitions[0].aggregates, 9, "with {heads_max} heads");
    }
    // The hole that an event leaves shows by the chain alone where a later command's events follow.
    for event in &all {
        let later = all.iter().any(|later| {
            let (later, event) = (&later.envelope, &event.envelope);
            later.stream == event.stream && later.version > event.version && later.command_id != event.command_id
        });
        if !later || event.envelope.version.get() % 4 != 0 {
            continue;
        }
        let whole = records.clone();
        records.retain(|stored| stored.offset != event.offset);
        world.events().replace(records.clone());
        for heads_max in [1, 3, 100] {
            let unsealed = Verifier::new(Arc::new(world.log.clone()), EventSource::of::<Counter>("test", 1));
            let report = unsealed.heads_max(heads_max).run(|_| {}).await.unwrap();
            let first = report.first().expect("a hole is found");
            assert!(matches!(first.wrong, Wrong::Chain(_)), "{first}");
            assert_eq!(first.event.as_ref().map(|(stream, _)| stream), Some(&event.envelope.stream), "{first}");
        }
        records = whole;
    }
}
