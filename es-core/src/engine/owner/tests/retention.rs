//! How long command ids are remembered: by the setting of whoever decides, whatever it was before, and by each
//! partition's own time.

use super::*;
use crate::domain::clock::Clock;
use crate::engine::store::StateFolder;
use crate::log::Record;
use crate::log::record::{Decoded, decode};
use crate::partition_of;

const DAY_MS: i64 = 86_400_000;

fn days(days: u64) -> Duration {
    Duration::from_secs(days * 86_400)
}

async fn on(world: &World, kept: &Arc<StateFolder>, config: EngineConfig) -> Process {
    let engine = Engine::new(Arc::new(world.log.clone()), config).on_folder(kept.clone());
    let bus = engine.start::<Counter>().await.unwrap();
    Process { engine, bus }
}

/// The retention is a setting: another value makes no id unknown that is within both, and nothing has to be built anew.
#[tokio::test]
async fn another_retention_forgets_no_command_id_that_is_within_both() {
    let mut forgotten = Vec::new();
    for retentions in [[7, 14, 7], [14, 7, 14], [7, 8, 7], [8, 7, 30], [1, 365, 2]] {
        for on_disk in [false, true] {
            let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
            let kept = match on_disk {
                true => Arc::new(StateFolder::on_disk(dir.path()).unwrap()),
                false => Arc::new(StateFolder::in_memory()),
            };
            for (round, retention) in retentions.into_iter().enumerate() {
                let config = EngineConfig {
                    dedup_retention: days(retention),
                    unwritten_max: 1,
                    snapshot_every: 0,
                    ..world.config.clone()
                };
                let process = on(&world, &kept, config).await;
                process.bus.ready().await.unwrap();
                for before in 0..round {
                    let again = process.send("a", &format!("{before}"), add(1)).await.unwrap();
                    if !again.duplicate {
                        forgotten.push(format!("{before} of {retentions:?} days in round {round}, on disk: {on_disk}"));
                    }
                }
                process.send("a", &format!("{round}"), add(1)).await.unwrap();
                process.engine.shutdown().await;
                // What is in the store is not in the log any more: it is not read from there.
                world.partition().append_foreign(rubbish());
                let records = world.partition().records().into_iter();
                let rest = records.filter(|stored| !matches!(decode(&stored.record), Decoded::Event(..)));
                world.partition().replace(rest.collect());
                world.clock.advance(DAY_MS / 8);
            }
        }
    }
    assert!(forgotten.is_empty(), "these took effect again: {forgotten:#?}");
}

/// Keeps the log's end where it was, or behind it.
fn rubbish() -> Record {
    Record { key: "who".into(), value: Some("knows".into()), headers: vec![], timestamp_ms: 1 }
}

/// An id that was forgotten and sent again is known by its newer answer, though the older one is within the retention
/// once that is longer.
#[tokio::test]
async fn of_two_answers_to_one_id_the_newer_one_is_right() {
    let world = World::new();
    let kept = Arc::new(StateFolder::in_memory());
    let with = |retention| EngineConfig { dedup_retention: days(retention), unwritten_max: 1, ..world.config.clone() };
    let short = on(&world, &kept, with(1)).await;
    short.bus.ready().await.unwrap();
    assert_eq!(short.send("a", "1", add(1)).await.unwrap().version.get(), 1);
    for n in 0..3 {
        world.clock.advance(DAY_MS / 2 + 1);
        short.send("b", &format!("{n}"), add(1)).await.unwrap();
    }
    assert_eq!(short.send("a", "1", add(1)).await.unwrap().version.get(), 2);
    short.engine.shutdown().await;
    let long = on(&world, &kept, with(30)).await;
    long.bus.ready().await.unwrap();
    let again = long.send("a", "1", add(1)).await.unwrap();
    assert_eq!((again.version.get(), again.duplicate), (2, true));
}

/// All partitions share the tables of ids, and each has its own time. A clock that was ahead when one of them recorded
/// something takes nothing from the others.
#[tokio::test(start_paused = true)]
async fn a_clock_that_was_ahead_on_one_partition_makes_no_other_forget() {
    let world = World { log: MemoryLog::new(2), ..World::new() };
    let kept = Arc::new(StateFolder::in_memory());
    let of = |partition| {
        let is_home = |id: &String| partition_of(&crate::AggregateKey::new(id.as_str()).unwrap(), 2) == partition;
        (0..).map(|n| format!("c{n}")).find(is_home).unwrap()
    };
    let (one, other) = (of(0), of(1));
    let config = || EngineConfig { unwritten_max: 1, ..world.config.clone() };
    let first = on(&world, &kept, config()).await;
    first.bus.ready().await.unwrap();
    first.send(&other, "1", add(1)).await.unwrap();
    first.engine.shutdown().await;
    world.clock.advance(8 * DAY_MS);
    let ahead = on(&world, &kept, config()).await;
    ahead.bus.ready().await.unwrap();
    for n in 0..3 {
        ahead.send(&one, &format!("ahead {n}"), add(1)).await.unwrap();
    }
    ahead.engine.shutdown().await;
    world.clock.advance(-8 * DAY_MS); // somebody has set it right
    let last = on(&world, &kept, config()).await;
    eventually("the other partition is served", || last.bus.status()[1].state == crate::OwnerState::Serving).await;
    assert!(last.send(&other, "1", add(1)).await.unwrap().duplicate, "the same command took effect twice");
}

/// A clock that is a year ahead for a while makes nothing forgotten: neither while it is wrong, nor once an operator has
/// the log served that it drove ahead; neither in a folder, nor in the snapshots topic.
#[tokio::test(start_paused = true)]
async fn a_clock_far_ahead_makes_nothing_forgotten() {
    const YEAR_MS: i64 = 365 * DAY_MS;
    for in_folder in [true, false] {
        let world = World::new();
        let config = || EngineConfig {
            unwritten_max: 1,
            snapshot_every: if in_folder { 0 } else { 1 },
            accept_time_until: chrono::DateTime::from_timestamp_millis(world.clock.now_ms() + 2 * YEAR_MS),
            ..world.config.clone()
        };
        let folder = Arc::new(StateFolder::in_memory());
        let start = async || {
            let kept = if in_folder { folder.clone() } else { Arc::new(StateFolder::in_memory()) };
            let process = on(&world, &kept, config()).await;
            process.bus.ready().await.unwrap();
            process
        };
        let work = async |process: &Process, when: &str| {
            for n in 0..30 {
                process.send("b", &format!("{when} {n}"), add(1)).await.unwrap();
                world.clock.advance(DAY_MS / 60);
                tokio::task::yield_now().await;
            }
        };
        let right = start().await;
        right.send("a", "1", add(1)).await.unwrap();
        work(&right, "right").await;
        right.engine.shutdown().await;
        world.clock.advance(YEAR_MS);
        let wrong = start().await;
        assert!(
            wrong.send("a", "1", add(1)).await.unwrap().duplicate,
            "with the wrong clock, in a folder: {in_folder}"
        );
        work(&wrong, "wrong").await;
        wrong.engine.shutdown().await;
        if !in_folder {
            world.log.partition(SNAPSHOTS, 0).compact();
        }
        world.clock.advance(-YEAR_MS);
        let right = start().await;
        assert!(
            right.send("a", "1", add(1)).await.unwrap().duplicate,
            "with the clock set right, in a folder: {in_folder}"
        );
        work(&right, "right again").await;
        assert!(right.send("a", "1", add(1)).await.unwrap().duplicate, "a while later, in a folder: {in_folder}");
    }
}

/// What is over is removed, though partitions that are idle still know what they knew.
#[tokio::test]
async fn tables_that_nobody_needs_are_removed() {
    let world = World { log: MemoryLog::new(2), ..World::new() };
    let kept = Arc::new(StateFolder::in_memory());
    let config = EngineConfig { unwritten_max: 1, ..world.config.clone() };
    let process = on(&world, &kept, config).await;
    process.bus.ready().await.unwrap();
    let partition = |id: &str| partition_of(&crate::AggregateKey::new(id).unwrap(), 2);
    let idle = (0..).map(|n| format!("c{n}")).find(|id| partition(id) != partition("a")).unwrap();
    process.send(&idle, "1", add(1)).await.unwrap();
    let mut most = 0;
    for n in 0..100 {
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
        process.send("a", &format!("{n} again"), add(1)).await.unwrap();
        world.clock.advance(DAY_MS);
        most = most.max(kept.store().unwrap().id_tables().len());
    }
    assert!((2..=6).contains(&most), "{most} tables of two partitions");
    for n in 2..5 {
        process.send(&idle, &format!("{n}"), add(1)).await.unwrap();
        process.send("a", &format!("last {n}"), add(1)).await.unwrap();
        world.clock.advance(DAY_MS);
    }
    process.engine.shutdown().await;
    let left = kept.store().unwrap().id_tables();
    assert!(left.len() <= 4, "{left:?}");
}
