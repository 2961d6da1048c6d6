//! A process ends and another goes on, from the local store where it is, from the log where it is not.

use super::*;
use crate::OwnerState;

fn on_disk(world: &World, dir: &tempfile::TempDir) -> EngineConfig {
    EngineConfig { state_dir: Some(dir.path().to_owned()), unwritten_max: 8, ..world.config.clone() }
}

#[tokio::test(start_paused = true)]
async fn states_and_answers_come_back_from_disk_or_log() {
    for keep in [true, false] {
        let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
        let process = world.process_with(on_disk(&world, &dir)).await;
        for n in 0..50 {
            process.send(&format!("c{}", n % 7), &format!("{n}"), add(n)).await.unwrap();
        }
        assert!(process.send("c0", "refused", Do::Take { n: 10_000 }).await.is_err());
        process.engine.shutdown().await;
        drop(process);
        if !keep {
            std::fs::remove_dir_all(dir.path()).unwrap();
        }
        let process = world.process_with(on_disk(&world, &dir)).await;
        for n in 0..50 {
            assert!(process.send(&format!("c{}", n % 7), &format!("{n}"), add(n)).await.unwrap().duplicate);
        }
        assert!(matches!(
            process.send("c0", "refused", Do::Take { n: 10_000 }).await,
            Err(SendError::Refused(No::TooFew { .. }))
        ));
        assert_eq!(process.send("c1", "next", add(1)).await.unwrap().version.get(), 8);
        world.events().await;
        process.engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_without_a_word_leaves_a_store_that_can_be_gone_on_from() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    for round in 0..6u64 {
        let process = world.process_with(on_disk(&world, &dir)).await;
        for n in 0..13 {
            process.send("a", &format!("{round}-{n}"), add(1)).await.unwrap();
        }
        // Killed: nothing is flushed; what was written in the background is what the next one finds.
        process.engine.kill().await;
        drop(process);
        while std::fs::File::open(dir.path().join(TOPIC).join("lock")).unwrap().try_lock().is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await; // a write in the background is still under way
        }
        assert_eq!(world.sum("a").await, (round + 1) * 13);
    }
    let process = world.process_with(on_disk(&world, &dir)).await;
    process.send("a", "all", Do::Take { n: 78 }).await.expect("the state is the fold of the log");
    process.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_do_not_share_a_state_folder() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let _first = world.process_with(on_disk(&world, &dir)).await;
    let engine = Engine::new(Arc::new(world.log.clone()), on_disk(&world, &dir));
    let error = engine.start::<Counter>().await.map(|_| ()).unwrap_err();
    let cause = std::error::Error::source(&error).and_then(|error| error.source()).unwrap().to_string();
    assert!(cause.contains("another process uses"), "{cause}");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_lost_its_tail_is_noticed() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = world.process_with(on_disk(&world, &dir)).await;
    for n in 0..20 {
        process.send("a", &n.to_string(), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    drop(process);
    world.partition().truncate(10);
    let process = world.starting(on_disk(&world, &dir)).await;
    assert!(process.bus.ready().await.is_err());
    let state = process.bus.status()[0].state.clone();
    assert!(matches!(&state, OwnerState::Failed { reason } if reason.contains("lost its tail")), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_log_made_anew_is_noticed_even_if_it_is_longer() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = world.process_with(on_disk(&world, &dir)).await;
    process.send("a", "1", add(1)).await.unwrap();
    process.engine.shutdown().await;
    drop(process);
    let other = World::new();
    let process = other.process().await;
    for n in 0..20 {
        process.send("a", &n.to_string(), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    let process = other.starting(on_disk(&other, &dir)).await;
    assert!(process.bus.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_store_is_built_anew() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = world.process_with(on_disk(&world, &dir)).await;
    for n in 0..20 {
        process.send("a", &n.to_string(), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    drop(process);
    let data = dir.path().join(TOPIC).join("data-0");
    for entry in std::fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"rubbish").unwrap();
        }
    }
    let process = world.process_with(on_disk(&world, &dir)).await;
    assert_eq!(process.send("a", "next", Do::Take { n: 20 }).await.unwrap().version.get(), 21);
    process.engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_queued_at_shutdown_is_told_that_nothing_was_done() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let queued = process.sending("a", "2", add(10));
    process.queued(1).await;
    let (partition, bus) = (world.partition(), process.bus.clone());
    let stopping = tokio::spawn(async move { process.engine.shutdown().await });
    partition.release();
    hanging.await.unwrap().expect("the round under way is finished");
    assert!(matches!(queued.await.unwrap(), Err(SendError::NotDone(NotDone::Stopped)) | Ok(_)));
    stopping.await.unwrap();
    assert!(matches!(bus.send(&"a".to_owned(), add(1)).await, Err(SendError::NotDone(NotDone::Stopped))));
}

/// A later release of [`Counter`]: the same events, another state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "test", name = "counter", id = String, command = Do, event = Done, error = No)]
pub(super) struct Newer {
    #[serde(default)]
    largest: u64,
}

impl Handle for Newer {
    fn handle(&self, _: Do, _: &Context) -> Result<Vec<Done>, No> {
        Err(No::TooFew { sum: self.largest })
    }
}

impl Apply for Newer {
    fn apply(&mut self, event: &Done) {
        if let Done::Added { n } = event {
            self.largest = self.largest.max(*n);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn states_of_another_shape_are_built_anew_from_events() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = world.process_with(on_disk(&world, &dir)).await;
    for n in [3, 9, 4] {
        process.send("a", &n.to_string(), add(n)).await.unwrap();
    }
    process.engine.shutdown().await;
    drop(process);
    let engine = Engine::new(Arc::new(world.log.clone()), on_disk(&world, &dir));
    let bus = engine.start::<Newer>().await.unwrap();
    bus.ready().await.unwrap();
    assert!(matches!(bus.send(&"a".to_owned(), Do::Nothing).await, Err(SendError::Refused(No::TooFew { sum: 9 }))));
    engine.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_runs_notices_a_lost_tail_at_its_next_doubt() {
    let world = World::new();
    let process = world.process().await;
    for n in 0..20 {
        process.send("a", &n.to_string(), add(1)).await.unwrap();
    }
    world.partition().truncate(10);
    let answer = process.send("a", "late", add(1)).await; // reported at an offset that is too low
    assert!(answer.is_err(), "{answer:?}");
    let state = process.bus.status()[0].state.clone();
    assert!(matches!(&state, OwnerState::Failed { reason } if reason.contains("lost its tail")), "{state:?}");
    let claims = world.partition().records().iter().filter(|stored| stored.record.key.starts_with(b"!claim")).count();
    assert_eq!(claims, 1, "another claim would void what others hold for valid");
}

#[tokio::test(start_paused = true)]
async fn partitions_that_were_added_are_passed_over_while_they_are_empty() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    process.engine.shutdown().await;
    let wider = || {
        let wider = MemoryLog::new(3);
        for stored in world.partition().records() {
            wider.partition(TOPIC, 0).append_foreign(stored.record);
        }
        wider
    };
    let start = async |log: MemoryLog| {
        let engine = Engine::new(Arc::new(log), world.config.clone());
        engine.start::<Counter>().await.map(|bus| Process { engine, bus })
    };

    let log = wider();
    let process = start(log.clone()).await.unwrap();
    process.bus.ready().await.unwrap();
    assert_eq!(process.bus.status().len(), 1, "the number of partitions is that of the first claim");
    assert!(process.send("a", "1", add(1)).await.unwrap().duplicate, "each aggregate is where it was");
    for id in ["b", "c", "d", "e", "f"] {
        process.send(id, id, add(1)).await.unwrap();
    }
    assert_eq!([1, 2].map(|added| log.partition(TOPIC, added).records().len()), [0, 0]);

    let written = wider();
    written.partition(TOPIC, 2).append_foreign(world.partition().records()[0].record.clone());
    let error = start(written).await.map(drop).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("has 3 partitions and not the 1 that its events were written with"), "{cause}");
    assert!(cause.contains("2 were added on the broker") && cause.contains("partition 2"), "{cause}");
}

/// An alarm that a restart silences is none.
#[tokio::test(start_paused = true)]
async fn a_record_that_stops_an_owner_stops_it_at_every_start() {
    let (world, other, dir) = (World::new(), World::new(), tempfile::tempdir().unwrap());
    for _ in 0..3 {
        other.process().await.engine.shutdown().await;
    }
    other.process().await.send("a", "1", add(1)).await.unwrap();
    let of_a_lost_claim = other.partition().records().pop().unwrap().record;
    let process = world.process_with(on_disk(&world, &dir)).await;
    process.send("a", "1", add(1)).await.unwrap();
    process.engine.shutdown().await;
    drop(process);
    world.partition().append_foreign(of_a_lost_claim);
    for start in 0..3 {
        let process = world.starting(on_disk(&world, &dir)).await;
        let failed = || {
            let state = process.bus.status().remove(0).state;
            assert_ne!(state, OwnerState::Serving, "at start {start}");
            matches!(state, OwnerState::Failed { .. })
        };
        eventually("it does not serve", failed).await;
        process.engine.shutdown().await;
    }
}

/// Partitions share the tables of command ids.
#[tokio::test(start_paused = true)]
async fn a_clock_far_ahead_on_one_partition_makes_no_other_forget() {
    let world = World { log: MemoryLog::new(2), ..World::new() };
    let partition = |id: &&str| crate::partition_of(&crate::AggregateKey::new(*id).unwrap(), 2);
    let [here, there] =
        [0, 1].map(|wanted| ["a", "b", "c", "d", "e"].into_iter().find(|id| partition(id) == wanted).unwrap());
    let config = EngineConfig {
        dedup_retention: Duration::from_secs(60),
        accept_time_until: chrono::DateTime::from_timestamp_millis(1_700_000_000_000 + 2 * 86_400_000),
        unwritten_max: 1,
        ..world.config.clone()
    };
    let kept = Arc::new(crate::engine::store::StateFolder::in_memory());
    let start = async |clock: Arc<ManualClock>| {
        let engine = Engine::new(Arc::new(world.log.clone()), EngineConfig { clock, ..config.clone() });
        let engine = engine.on_folder(kept.clone());
        let bus = engine.start::<Counter>().await.unwrap();
        bus.ready().await.unwrap();
        Process { engine, bus }
    };
    let first = start(world.clock.clone()).await;
    first.send(here, "1", add(1)).await.unwrap();
    first.engine.shutdown().await;
    let ahead = Arc::new(ManualClock::at(1_700_000_000_000 + 86_400_000));
    let engine = Engine::new(Arc::new(world.log.clone()), EngineConfig { clock: ahead, ..config.clone() });
    let bus = engine.start::<Counter>().await.unwrap();
    bus.ready().await.unwrap();
    Process { engine, bus }.send(there, "1", add(1)).await.unwrap();
    let second = start(world.clock.clone()).await;
    for n in 2..6 {
        second.send(there, &n.to_string(), add(1)).await.unwrap(); // more than one write to the store
    }
    assert!(second.send(here, "1", add(1)).await.unwrap().duplicate, "its command id was forgotten");
}
