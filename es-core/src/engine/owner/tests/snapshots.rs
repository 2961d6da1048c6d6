//! A process without local state begins with snapshots, and is none the wiser. No process here has a disk, unless it
//! says so.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;

use super::*;
use crate::engine::snapshot::kept;
use crate::log::{Batch, LogError, LogReader, LogWriter, TopicSpec};

impl World {
    /// Flushes and checkpoints come after a few commands.
    fn hasty(&self) -> EngineConfig {
        EngineConfig { unwritten_max: 4, snapshot_every: 8, ..self.config.clone() }
    }

    async fn hasty_process(&self) -> Process {
        self.process_with(self.hasty()).await
    }

    fn snapshots(&self) -> MemoryPartition {
        self.log.partition(SNAPSHOTS, 0)
    }

    /// The keys that a compacted topic still has.
    fn keys(&self) -> Vec<String> {
        let table: BTreeMap<_, _> =
            self.snapshots().records().into_iter().map(|stored| (stored.record.key, stored.record.value)).collect();
        let live = table.into_iter().filter(|(_, value)| value.is_some());
        live.map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
    }

    /// The highest offset up to which a checkpoint says that all is there.
    fn covered(&self) -> u64 {
        self.snapshots().records().iter().filter_map(|stored| kept::checkpoint(&stored.record)).max().unwrap_or(0)
    }
}

impl Process {
    fn status(&self) -> crate::PartitionStatus {
        self.bus.status().remove(0)
    }

    /// Waits until so many checkpoints were made since the start.
    async fn checkpoints(&self, count: u64) {
        self.wait_for(|status| status.checkpoints >= count).await;
    }

    async fn wait_for(&self, what: impl Fn(&crate::PartitionStatus) -> bool) {
        for _ in 0..2_000 {
            if what(&self.status()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{:?}", self.status());
    }

    /// What the aggregate holds, told by a refusal.
    async fn sum(&self, id: &str, command_id: &str) -> u64 {
        match self.send_until_done(id, command_id, Do::Take { n: u64::MAX }).await {
            Err(SendError::Refused(No::TooFew { sum })) => sum,
            answer => panic!("{answer:?}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_without_local_state_gives_the_same_answers() {
    let world = World::new();
    let process = world.hasty_process().await;
    for n in 0..50 {
        process.send(&format!("c{}", n % 7), &format!("{n}"), add(n)).await.unwrap();
    }
    process.send("c0", "nothing", Do::Nothing).await.unwrap();
    assert!(process.send("c0", "refused", Do::Take { n: 10_000 }).await.is_err());
    process.send("c0", "enough", add(20_000)).await.unwrap();
    process.engine.shutdown().await;
    assert_eq!(
        world.covered(),
        world.log.bounds(TOPIC, 0).await.unwrap().end,
        "a graceful stop leaves nothing to read"
    );
    let process = world.hasty_process().await;
    assert!(process.status().restored >= 7);
    for n in 0..50 {
        assert!(process.send(&format!("c{}", n % 7), &format!("{n}"), add(n)).await.unwrap().duplicate);
    }
    assert!(process.send("c0", "nothing", Do::Nothing).await.unwrap().duplicate);
    let refused = process.send("c0", "refused", Do::Take { n: 10_000 }).await;
    assert!(matches!(refused, Err(SendError::Refused(No::TooFew { sum: 196 }))), "{refused:?}");
    assert_eq!(process.send("c1", "next", add(1)).await.unwrap().version.get(), 8);
    world.events().await;
}

impl Process {
    /// A conflict under the id `k`: what expects another version is decided anew.
    async fn conflicts(&self) {
        let expected = crate::ExpectedVersion::Exactly(crate::Version::new(3));
        let conflict = self.bus.send(&"a".to_owned(), add(1)).command_id("k").expect(expected).await;
        assert!(conflict.unwrap_err().is_conflict());
    }
}

/// A command id may have several answers: a conflict, and what was decided later without that precondition. A restore
/// finds them in one load of the store or in two, by what lies between.
#[tokio::test(start_paused = true)]
async fn of_two_answers_to_one_id_the_last_is_restored() {
    for between in [0, 40] {
        let world = World::new();
        let config = EngineConfig { unwritten_max: 1, snapshot_every: 1, ..world.config.clone() };
        let process = world.process_with(config).await;
        process.conflicts().await;
        process.checkpoints(1).await; // in a record of its own
        for n in 0..between {
            process.send("b", &format!("{n}"), add(1)).await.unwrap();
        }
        assert!(!process.send("a", "k", add(1)).await.unwrap().duplicate);
        process.engine.shutdown().await;
        assert_eq!(world.covered(), world.log.bounds(TOPIC, 0).await.unwrap().end);
        let process = world.hasty_process().await;
        assert!(process.status().restored > 0);
        assert!(process.send("a", "k", add(1)).await.unwrap().duplicate, "{between} between: it took effect twice");
    }
}

/// Counts the readers of snapshots that are open.
#[derive(Debug)]
struct Watched {
    log: MemoryLog,
    open: Arc<AtomicUsize>,
    most: AtomicUsize,
}

struct WatchedReader {
    reader: Box<dyn LogReader>,
    open: Arc<AtomicUsize>,
}

impl Drop for WatchedReader {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl LogReader for WatchedReader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        tokio::task::yield_now().await; // the others get on
        self.reader.next().await
    }
}

#[async_trait]
impl Log for Watched {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        self.log.prepare(topic).await
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        self.log.writer(topic, partition).await
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        let reader = self.log.reader(topic, from).await?;
        if topic != SNAPSHOTS {
            return Ok(reader);
        }
        let open = self.open.clone();
        self.most.fetch_max(open.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        Ok(Box::new(WatchedReader { reader, open }))
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        self.log.bounds(topic, partition).await
    }

    fn record_max_bytes(&self) -> usize {
        self.log.record_max_bytes()
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_restores_a_few_partitions_at_once() {
    const PARTITIONS: u32 = 16;
    let mut world = World::new();
    world.log = MemoryLog::new(PARTITIONS);
    let process = world.hasty_process().await;
    for n in 0..200 {
        process.send(&format!("c{n}"), &format!("{n}"), add(n)).await.unwrap();
    }
    process.engine.shutdown().await;
    let log = Arc::new(Watched { log: world.log.clone(), open: Arc::default(), most: AtomicUsize::new(0) });
    let engine = Engine::new(log.clone(), world.hasty());
    let bus = engine.start::<Counter>().await.unwrap();
    bus.ready().await.unwrap();
    assert_eq!(bus.status().iter().map(|status| status.restored).sum::<u64>(), 200);
    let most = log.most.load(Ordering::Relaxed);
    assert!((2..=6).contains(&most), "{most} of {PARTITIONS} at once");
}

#[tokio::test(start_paused = true)]
async fn what_was_replayed_is_in_the_next_checkpoint_too() {
    let world = World::new();
    let process = world.process().await; // never flushes
    process.send("replayed", "1", add(5)).await.unwrap();
    process.engine.kill().await;
    let process = world.hasty_process().await;
    for n in 0..20 {
        process.send("other", &format!("{n}"), add(1)).await.unwrap();
    }
    process.checkpoints(1).await;
    process.engine.kill().await;
    let process = world.hasty_process().await;
    assert!(process.status().restored >= 2);
    assert_eq!(process.sum("replayed", "sum").await, 5);
    assert!(process.send("replayed", "1", add(5)).await.unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_owners_late_snapshots_replace_nothing() {
    let world = World::new();
    let old = world.hasty_process().await;
    world.snapshots().fault(Fault::Delayed);
    for n in 0..8 {
        old.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    old.wait_for(|status| status.failed_checkpoints > 0).await;
    let new = world.hasty_process().await;
    for n in 8..20 {
        new.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    new.checkpoints(1).await;
    new.engine.shutdown().await;
    assert!(world.snapshots().release() > 0);
    world.snapshots().compact();
    let process = world.hasty_process().await;
    assert_eq!(process.sum("a", "sum").await, 20);
    assert_eq!(process.send("a", "next", add(1)).await.unwrap().version.get(), 21);
}

/// The same of answers. The newer one is in the store already when the late one is read.
#[tokio::test(start_paused = true)]
async fn an_owner_keeps_no_states_that_another_one_made() {
    let world = World::new();
    let config = EngineConfig { unwritten_max: 1, snapshot_every: 1, ..world.config.clone() };
    let old = world.process_with(config.clone()).await;
    old.send("a", "1", add(1)).await.unwrap();
    old.checkpoints(1).await;
    let covered = world.covered();
    let new = world.process_with(EngineConfig { snapshot_every: 0, ..config }).await;
    for n in 0..8 {
        // The old one reads a thousand at once.
        new.send("a", &format!("new {n}"), Do::Add { n: 1, times: 900 }).await.unwrap();
    }
    assert!(is_not_in_log(&old.send("a", "2", add(1)).await), "it reads what the new one wrote, and is shut out");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.covered(), covered, "they would stand under the old claim, below what the new one says of them");
}

#[tokio::test(start_paused = true)]
async fn a_superseded_owners_late_answers_replace_none() {
    let world = World::new();
    let old = world.process_with(EngineConfig { unwritten_max: 1, snapshot_every: 1, ..world.config.clone() }).await;
    world.snapshots().fault(Fault::Delayed);
    old.conflicts().await;
    old.wait_for(|status| status.failed_checkpoints > 0).await;
    let new = world.hasty_process().await;
    assert!(!new.send("a", "k", add(1)).await.unwrap().duplicate);
    for n in 0..40 {
        new.send(&format!("c{n}"), "1", add(1)).await.unwrap(); // a restore loads more than once
    }
    new.engine.shutdown().await;
    assert!(world.snapshots().release() > 0);
    let process = world.hasty_process().await;
    assert!(process.status().restored > 0);
    assert!(process.send("a", "k", add(1)).await.unwrap().duplicate, "it took effect twice");
}

#[tokio::test(start_paused = true)]
async fn what_an_owners_own_failed_append_brings_late_replaces_nothing() {
    let world = World::new();
    let process = world.hasty_process().await;
    world.snapshots().fault(Fault::Delayed);
    for n in 0..8 {
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    process.wait_for(|status| status.failed_checkpoints > 0).await;
    for n in 8..20 {
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    for n in 0..40 {
        process.send(&format!("c{n}"), "1", add(1)).await.unwrap(); // a restore loads more than once
    }
    process.engine.shutdown().await;
    assert!(world.snapshots().release() > 0);
    let before = world.snapshots().records().len();
    let process = world.hasty_process().await;
    assert_eq!(process.sum("a", "sum").await, 20);
    process.engine.kill().await;
    assert_eq!(world.snapshots().records().len(), before);
    world.snapshots().compact();
    assert_eq!(world.hasty_process().await.sum("a", "sum").await, 20);
}

#[tokio::test(start_paused = true)]
async fn a_snapshots_topic_that_takes_nothing_does_not_stop_the_owner_and_is_made_up_for() {
    let world = World::new();
    let process = world.hasty_process().await;
    for fault in [Fault::Refused, Fault::Lost, Fault::Torn { landed: 1 }] {
        world.snapshots().fault(fault);
    }
    for n in 0..200 {
        process.send(&format!("c{}", n % 5), &format!("{n}"), add(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(if process.status().failed_checkpoints < 3 { 20 } else { 0 })).await;
    }
    assert_eq!(process.status().failed_checkpoints, 3);
    process.engine.shutdown().await;
    let process = world.hasty_process().await;
    assert!(process.status().restored >= 5);
    for n in 0..200 {
        assert!(process.send(&format!("c{}", n % 5), &format!("{n}"), add(1)).await.unwrap().duplicate);
    }
}

#[tokio::test(start_paused = true)]
async fn flushes_that_come_too_fast_for_the_topic_are_read_from_the_store_later() {
    let world = World::new();
    let config = EngineConfig { snapshot_every: 40, append_deadline: Duration::from_secs(20), ..world.hasty() };
    let process = world.process_with(config).await;
    world.snapshots().fault(Fault::Hang);
    for (id, count) in [("first", 41), ("taken", 12), ("too fast", 60)] {
        for n in 0..count {
            process.send(id, &format!("{n}"), add(1)).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert!(world.snapshots().release() > 0);
    process.checkpoints(1).await;
    for n in 0..60 {
        process.send("after", &format!("{n}"), add(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    process.checkpoints(2).await;
    process.engine.kill().await;
    let process = world.hasty_process().await;
    for (id, count) in [("first", 41), ("taken", 12), ("too fast", 60), ("after", 60)] {
        assert_eq!(process.sum(id, "sum").await, count, "{id}");
        assert!(process.send(id, "11", add(1)).await.unwrap().duplicate);
    }
}

#[tokio::test(start_paused = true)]
async fn a_local_store_ahead_of_the_topic_is_caught_up_with() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let on_disk = EngineConfig { state_dir: Some(dir.path().to_owned()), ..world.hasty() };
    // Flushed to disk, and nothing in the topic.
    let process = world.process_with(EngineConfig { snapshot_every: 0, ..on_disk.clone() }).await;
    for n in 0..10 {
        process.send("early", &format!("{n}"), add(1)).await.unwrap();
    }
    assert!(process.send("early", "refused", Do::Take { n: 11 }).await.is_err());
    process.engine.shutdown().await;
    drop(process);
    let process = world.process_with(on_disk).await;
    for n in 0..10 {
        process.send("late", &format!("{n}"), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    let process = world.hasty_process().await;
    assert!(process.status().restored >= 2);
    assert_eq!((process.sum("early", "sum").await, process.sum("late", "sum").await), (10, 10));
    assert!(process.send("early", "5", add(1)).await.unwrap().duplicate);
    assert!(process.send("early", "refused", Do::Take { n: 11 }).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_local_store_is_given_up_only_where_the_topic_is_much_newer() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let on_disk = EngineConfig { state_dir: Some(dir.path().to_owned()), ..world.hasty() };
    let process = world.process_with(on_disk.clone()).await;
    process.send("a", "1", add(1)).await.unwrap();
    process.engine.shutdown().await;
    drop(process);
    for (commands, restored) in [(2, false), (300, true)] {
        let elsewhere = world.hasty_process().await;
        for n in 0..commands {
            elsewhere.send("a", &format!("{commands}-{n}"), add(1)).await.unwrap();
        }
        elsewhere.engine.shutdown().await;
        world.snapshots().compact();
        let process = world.process_with(on_disk.clone()).await;
        assert_eq!(process.status().restored > 0, restored);
        assert_eq!(process.sum("a", &format!("sum-{commands}")).await, world.sum("a").await);
        assert!(process.send("a", "1", add(1)).await.unwrap().duplicate);
        process.engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_another_log_are_ignored() {
    let world = World::new();
    let process = world.hasty_process().await;
    for n in 0..20 {
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    let anew = World::new(); // another events topic beside the old snapshots
    for stored in world.snapshots().records() {
        anew.snapshots().append_foreign(stored.record);
    }
    for round in 0..2 {
        let process = anew.hasty_process().await;
        assert_eq!(process.status().restored, round);
        for n in 0..10 {
            assert!(!process.send("a", &format!("{round}-{n}"), add(1)).await.unwrap().duplicate);
        }
        assert_eq!(process.sum("a", &format!("sum-{round}")).await, 10 * (round + 1));
        process.engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn states_of_another_shape_are_folded_anew_and_those_of_the_old_shape_stay_for_a_way_back() {
    let world = World::new();
    let process = world.hasty_process().await;
    for n in [3, 9, 4, 1, 1, 1, 1, 1, 1, 1] {
        process.send("a", &CommandId::random().to_string(), add(n)).await.unwrap();
    }
    process.engine.shutdown().await;
    let engine = Engine::new(Arc::new(world.log.clone()), world.hasty());
    let bus = engine.start::<restart::Newer>().await.unwrap();
    bus.ready().await.unwrap();
    for _ in 0..30 {
        assert!(matches!(bus.send(&"a".to_owned(), Do::Nothing).await, Err(SendError::Refused(No::TooFew { sum: 9 }))));
    }
    assert_eq!(bus.status()[0].restored, 0);
    engine.shutdown().await;
    world.snapshots().compact();
    let process = world.hasty_process().await;
    assert!(process.status().restored >= 1);
    assert_eq!(process.sum("a", "sum").await, 23);
}

#[tokio::test(start_paused = true)]
async fn snapshots_of_the_old_shape_are_cleared_after_the_checkpoint_that_counts_on_them() {
    let world = World::new();
    let config = EngineConfig { dedup_retention: Duration::from_secs(60), ..world.hasty() };
    let process = world.process_with(config.clone()).await;
    process.send("quiet", "1", add(5)).await.unwrap();
    process.engine.shutdown().await;
    world.clock.advance(60_000);
    let process = world.process_with(config.clone()).await;
    for n in 0..10 {
        process.send("busy", &format!("{n}"), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    let left_by_another_shape = async |commands: u64| {
        let engine = Engine::new(Arc::new(world.log.clone()), config.clone());
        let bus = engine.start::<restart::Newer>().await.unwrap();
        bus.ready().await.unwrap();
        for _ in 0..commands {
            assert!(bus.send(&"busy".to_owned(), Do::Nothing).await.is_err());
            world.clock.advance(30);
        }
        engine.shutdown().await;
        world.snapshots().compact();
        world.keys().iter().filter(|key| key.starts_with("quiet@")).count()
    };
    let both = left_by_another_shape(600).await;
    assert_eq!(both, 2, "the snapshot is past the retention, the checkpoint that counts on it is not");
    let process = world.process_with(config.clone()).await;
    assert_eq!(process.sum("quiet", "sum").await, 5);
    process.engine.kill().await;
    world.clock.advance(60_000);
    assert_eq!(left_by_another_shape(2_400).await, 1);
}

#[tokio::test(start_paused = true)]
async fn keys_of_earlier_claims_are_cleared_once_a_newer_snapshot_is_there() {
    let world = World::new();
    let process = world.hasty_process().await;
    for id in ["busy", "quiet"] {
        for n in 0..6 {
            process.send(id, &format!("{n}"), add(1)).await.unwrap();
        }
    }
    process.engine.shutdown().await;
    let of_first = |keys: &[String], subject: &str| keys.iter().any(|key| key.starts_with(&format!("{subject}@1.")));
    assert!(of_first(&world.keys(), "busy") && of_first(&world.keys(), "quiet"));
    let process = world.hasty_process().await;
    for n in 0..100 {
        process.send("busy", &format!("again {n}"), add(1)).await.unwrap();
        tokio::task::yield_now().await;
    }
    process.engine.shutdown().await;
    let keys = world.keys();
    assert!(!of_first(&keys, "busy") && !of_first(&keys, "!checkpoint"), "{keys:?}");
    assert!(of_first(&keys, "quiet"), "its only snapshot: {keys:?}");
    world.snapshots().compact();
    let process = world.hasty_process().await;
    assert_eq!((process.sum("busy", "sum").await, process.sum("quiet", "sum").await), (106, 6));
}

#[tokio::test(start_paused = true)]
async fn command_ids_past_the_retention_are_cleared() {
    let world = World::new();
    let config = EngineConfig { dedup_retention: Duration::from_secs(60), ..world.hasty() };
    let process = world.process_with(config.clone()).await;
    for n in 0..12 {
        process.send("a", &format!("old {n}"), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    let old: Vec<String> = world.keys().into_iter().filter(|key| key.starts_with("!ids/")).collect();
    assert!(!old.is_empty());
    world.clock.advance(60_000);
    let process = world.process_with(config.clone()).await;
    for n in 0..100 {
        process.send("a", &format!("new {n}"), add(1)).await.unwrap();
        world.clock.advance(200);
    }
    process.engine.shutdown().await;
    let keys = world.keys();
    assert!(!old.iter().any(|key| keys.contains(key)), "{keys:?}");
    let process = world.process_with(config).await;
    assert!(process.send("a", "new 99", add(1)).await.unwrap().duplicate);
    assert!(!process.send("a", "old 1", add(1)).await.unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn no_checkpoint_goes_past_the_event_that_an_aggregate_is_parked_for() {
    let world = World::new();
    let event = |id, version, kind, previous| bad_data::envelope(id, version, kind, "{\"n\":1}", previous);
    let first = event("bad", 1, "added", crate::EventHash::default());
    let unread = event("bad", 2, "unheard-of", first.hash);
    let good = event("good", 1, "added", crate::EventHash::default());
    bad_data::earlier(&world, &[first, unread, good]); // behind the claim at offset 0
    for round in 0..3 {
        let process = world.hasty_process().await;
        assert_eq!(process.status().restored >= 2, round > 0);
        for n in 0..20 {
            process.send("good", &format!("{round}-{n}"), add(1)).await.unwrap();
        }
        let answer = process.send("bad", "1", add(1)).await;
        assert!(matches!(&answer, Err(SendError::Parked { reason, .. }) if reason.contains("offset 2")), "{answer:?}");
        assert_eq!(process.sum("good", &format!("sum-{round}")).await, 1 + 20 * (round + 1));
        process.engine.shutdown().await;
        assert_eq!(world.covered(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_too_large_for_a_record_keeps_checkpoints_back_and_harms_nobody() {
    let world = World::new();
    let process = world.hasty_process().await;
    process.send("a", "1", add(1)).await.unwrap();
    for n in 0..2 {
        process.send("large", &format!("{n}"), Do::Long { bytes: 15_000 }).await.unwrap();
    }
    for n in 0..30 {
        process.send("b", &format!("{n}"), add(1)).await.unwrap();
    }
    process.engine.shutdown().await;
    assert!(process.status().failed_checkpoints > 0);
    assert_eq!((process.status().checkpoints, world.covered()), (0, 0));
    let process = world.hasty_process().await;
    assert_eq!((process.sum("a", "sum").await, process.sum("b", "sum").await), (1, 30));
    assert!(process.send("large", "1", Do::Long { bytes: 15_000 }).await.unwrap().duplicate);
}

#[tokio::test(start_paused = true)]
async fn a_topic_made_anew_under_a_running_owner_gets_every_state_again() {
    let world = World::new();
    let process = world.hasty_process().await;
    for n in 0..20 {
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
    }
    process.checkpoints(1).await;
    world.snapshots().truncate(0);
    for n in 0..60 {
        process.send("b", &format!("{n}"), add(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(if process.status().failed_checkpoints == 0 { 10 } else { 5 })).await;
    }
    process.engine.shutdown().await;
    let process = world.hasty_process().await;
    assert_eq!((process.sum("a", "sum").await, process.sum("b", "sum").await), (20, 60));
    assert!(process.send("a", "7", add(1)).await.unwrap().duplicate);
}

/// Owners in turn, some killed, some stopped, some left to go on until they notice; what they write to the snapshots
/// topic is lost, torn, or lands when others have long gone on; and compaction. Every new owner, who has nothing but
/// the topic and the log, must know every state and every answer.
#[tokio::test(start_paused = true)]
async fn whoever_takes_over_knows_every_state_and_answer() {
    let runs = std::env::var("SNAPSHOT_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(25);
    let (mut restored, mut checkpoints) = (0, 0);
    for seed in 0..runs {
        let world = World::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sums = BTreeMap::<String, u64>::new();
        let mut sent: Vec<(String, String, Do)> = Vec::new();
        let mut older: Vec<Process> = Vec::new();
        let mut process = world.hasty_process().await;
        for step in 0..120u64 {
            match random.u8(0..100) {
                0..8 => {
                    checkpoints += process.status().checkpoints;
                    let before = std::mem::replace(&mut process, world.hasty_process().await);
                    restored += process.status().restored;
                    match random.u8(0..3) {
                        0 => before.engine.kill().await,
                        1 => before.engine.shutdown().await,
                        _ => older.push(before),
                    }
                    for (id, sum) in &sums {
                        assert_eq!(process.sum(id, &format!("sum {step}")).await, *sum, "{id} in seed {seed}");
                    }
                    for (id, command_id, command) in &sent {
                        let answer = process.send_until_done(id, command_id, command.clone()).await;
                        let answer = answer.unwrap_or_else(|error| panic!("{command_id} in seed {seed}: {error:?}"));
                        assert!(answer.duplicate, "{command_id} to {id} in seed {seed} was forgotten");
                    }
                }
                8..70 => {
                    let (id, n) = (format!("c{}", random.u8(0..4)), random.u64(1..100));
                    let command = Do::Add { n, times: random.u64(1..3) };
                    let command_id = format!("{step}");
                    let receipt = process.send_until_done(&id, &command_id, command.clone()).await.unwrap();
                    *sums.entry(id.clone()).or_default() += n * u64::from(receipt.events);
                    sent.push((id, command_id, command));
                }
                70..74 => world.snapshots().fault(Fault::Delayed),
                74..76 => world.snapshots().fault(Fault::Lost),
                76..78 => world.snapshots().fault(Fault::ReportLost),
                78..80 => world.snapshots().fault(Fault::Torn { landed: random.usize(0..3) }),
                80..84 => drop(world.snapshots().release()),
                84..88 => world.snapshots().compact(),
                88..91 if !older.is_empty() => {
                    older.swap_remove(random.usize(..older.len())).engine.shutdown().await;
                }
                _ => tokio::time::sleep(Duration::from_millis(random.u64(0..4))).await,
            }
        }
        world.events().await;
    }
    assert!(restored > 5 * runs && checkpoints > 2 * runs, "{restored} states restored, {checkpoints} checkpoints");
}
