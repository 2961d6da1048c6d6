//! Clocks that are wrong: what is forgotten, what is recorded, and who serves.

use super::*;
use crate::log::Record;
use crate::log::group::memory::MemoryGroup;
use crate::{Clock, OwnerState};

const DAY_MS: i64 = 86_400_000;
const COMMANDS: &str = "test.counter.commands";

/// Why the partition is not served.
fn reason(process: &Process) -> String {
    match &process.bus.status()[0].state {
        OwnerState::TakingOver { reason } => reason.clone(),
        other => format!("it is {other:?}"),
    }
}

async fn not_served(process: &Process, why: &str) {
    eventually(why, || reason(process).contains(why)).await;
    let answer = process.send("a", "not served", add(1)).await;
    let told = matches!(&answer, Err(SendError::NotDone(NotDone::NotReady { reason })) if reason.contains(why));
    assert!(told, "{answer:?}");
}

#[tokio::test]
async fn a_clock_that_was_ahead_at_the_start_forgets_no_command_id() {
    for kind in [add(1), Do::Take { n: 5 }] {
        let world = World::new();
        let first = world.process().await;
        let before = first.send("a", "1", kind.clone()).await;
        first.engine.shutdown().await;
        world.clock.advance(8 * DAY_MS);
        let second = world.process().await; // reads the log, and claims
        world.clock.advance(-8 * DAY_MS); // the time service has set the clock right
        let again = second.send("a", "1", kind).await;
        assert_eq!(again.as_ref().map(|receipt| receipt.duplicate).ok(), before.as_ref().map(|_| true).ok());
        assert_eq!(world.events().await.len(), usize::from(before.is_ok()), "it took effect twice within a second");
    }
}

/// What the log holds happened, whatever the clock says when it is asked.
#[tokio::test]
async fn what_is_in_the_log_is_never_told_as_not_done() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::ReportLost); // of the event
    world.fault(Fault::Lost); // of the claim, which is tried again after 25 ms or more
    let sending = process.sending("a", "1", add(1));
    eventually("the event landed", || world.partition().records().len() >= 2).await;
    world.clock.advance(8 * DAY_MS); // the machine slept, or its clock was set
    let answer = sending.await.unwrap();
    assert!(answer.is_ok(), "it is in the log, its sum {}: {answer:?}", world.sum("a").await);
}

/// The machine slept while commands waited: whoever sent them has given up, and may have sent them elsewhere since.
#[tokio::test(start_paused = true)]
async fn a_command_that_waited_past_its_deadline_by_the_clock_is_not_decided() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = process.sending("a", "2", add(1));
    process.queued(1).await;
    world.clock.advance(3_600_000);
    world.partition().release();
    hanging.await.unwrap().unwrap();
    let told = waiting.await.unwrap();
    assert!(matches!(told, Err(SendError::NotDone(NotDone::Expired))), "{told:?}");
    assert!(!process.send("a", "2", add(1)).await.unwrap().duplicate);
}

/// One clock says that an id is forgotten and that a command has expired. By the time of an owner before, whose clock was
/// ahead for a while, the id would be forgotten of a command that has not expired.
#[tokio::test(start_paused = true)]
async fn an_owner_whose_clock_is_behind_the_log_forgets_by_its_clock() {
    let world = World::new();
    let on = |clock: Arc<ManualClock>| {
        let dedup_retention = Duration::from_secs(120);
        world.process_with(EngineConfig {
            clock,
            dedup_retention,
            unwritten_max: 1,
            snapshot_every: 1,
            ..world.config.clone()
        })
    };
    let first = on(world.clock.clone()).await;
    first.send("a", "1", add(1)).await.unwrap();
    first.send("a", "quiet", add(1)).await.unwrap();
    first.engine.shutdown().await;
    let clock = Arc::new(ManualClock::at(world.clock.now_ms() + 125_000));
    let ahead = on(clock.clone()).await;
    assert!(ahead.send("a", "1", add(1)).await.unwrap().duplicate);
    for n in 2..6 {
        ahead.send("a", &format!("{n}"), add(1)).await.unwrap();
        clock.advance(10_000);
    }
    assert!(!ahead.send("a", "1", add(1)).await.unwrap().duplicate, "its clock is believed by now");
    ahead.engine.kill().await;
    let behind = on(world.clock.clone()).await;
    assert!(behind.send("a", "quiet", add(1)).await.unwrap().duplicate, "it took effect twice at one time");
}

/// A node whose clock is a year ahead writes, and goes. Its time stays in the log.
async fn written_ahead(world: &World, days: i64) {
    world.clock.advance(days * DAY_MS);
    let wrong = world.process_with(EngineConfig { node: "wrong".into(), ..world.config.clone() }).await;
    wrong.send("a", "wrong", add(1)).await.unwrap();
    wrong.engine.shutdown().await;
    world.clock.advance(-days * DAY_MS);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_ahead_is_not_served_before_the_clock_has_caught_up() {
    let world = World::new();
    written_ahead(&world, 370).await;
    let right = world.starting(EngineConfig { node: "right".into(), ..world.config.clone() }).await;
    not_served(&right, "370 days ahead of this machine's clock").await;
    let told = reason(&right);
    assert!(told.contains("by node wrong under claim 1."), "{told}");
    assert!(told.contains("accept_time_until"), "{told}");
    assert_eq!(world.events().await.len(), 1);
    world.clock.advance(370 * DAY_MS - 299_000);
    right.bus.ready().await.unwrap();
    right.send("a", "right", add(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn clocks_may_differ_a_little() {
    let world = World::new();
    world.clock.advance(299_000);
    world.process().await.send("a", "1", add(1)).await.unwrap();
    world.clock.advance(-299_000);
    let behind = world.process().await;
    behind.send("a", "2", add(1)).await.unwrap();
}

/// The way back: an operator says up to what time a log is served. What is recorded stands still, what happened does not,
/// and ids are remembered as long as ever.
#[tokio::test(start_paused = true)]
async fn an_operator_has_a_log_served_that_is_ahead() {
    let world = World::new();
    let first = world.process().await;
    first.send("a", "before", add(1)).await.unwrap();
    first.engine.shutdown().await;
    written_ahead(&world, 370).await;
    let last = world.events().await[1].envelope.recorded_at;
    let accepting = |until| EngineConfig { accept_time_until: Some(until), unwritten_max: 1, ..world.config.clone() };
    let too_early = world.starting(accepting(last - chrono::TimeDelta::milliseconds(1))).await;
    not_served(&too_early, "ahead of this machine's clock").await;
    too_early.engine.shutdown().await;
    let process = world.process_with(accepting(last)).await;
    for n in 0..3 {
        assert!(process.send("a", "before", add(1)).await.unwrap().duplicate, "after {n} days");
        process.send("a", &format!("{n}"), add(1)).await.unwrap();
        world.clock.advance(DAY_MS);
    }
    process.engine.shutdown().await;
    let process = world.process_with(accepting(last)).await;
    for id in ["0", "1", "2"] {
        assert!(process.send("a", id, add(1)).await.unwrap().duplicate, "{id}");
    }
    for (n, event) in world.events().await[2..].iter().enumerate() {
        assert_eq!(event.envelope.recorded_at, last, "recorded time does not fall");
        let happened = 1_700_000_000_000 + n as i64 * DAY_MS;
        assert_eq!(event.envelope.occurred_at.timestamp_millis(), happened, "business time is the clock's");
    }
}

/// A clock that jumps by days is not the time before it has kept it for a while.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_while_an_owner_serves_is_not_believed_at_once() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    world.clock.jump(8 * DAY_MS);
    let _ = process.send("a", "1", add(1)).await; // taken from the queue, and not decided
    not_served(&process, "jumped ahead by 8 days").await;
    world.clock.jump(-8 * DAY_MS);
    process.bus.ready().await.unwrap();
    assert!(process.send("a", "1", add(1)).await.unwrap().duplicate);
    assert_eq!(world.events().await.len(), 1);

    world.clock.jump(DAY_MS);
    let _ = process.send("a", "2", add(1)).await;
    not_served(&process, "jumped ahead by 24 hours").await;
    world.clock.advance(300_000); // a machine that slept keeps its time
    process.bus.ready().await.unwrap();
    process.send("a", "3", add(1)).await.unwrap();
}

/// A command on the topic as a service in any language sends it, with this timestamp.
fn produce(world: &World, timestamp_ms: i64) {
    let headers = [("ce_id", "a"), ("ce_type", "test.counter.add"), ("ce_expirestime", "2099-01-01T00:00:00Z")];
    let headers = headers.map(|(name, value)| (name.into(), value.into()));
    let value = Some(r#"{"times":1,"n":1}"#.into());
    let record = Record { key: "c".into(), value, headers: headers.into(), timestamp_ms };
    world.log.partition(COMMANDS, 0).append_foreign(record);
}

/// A command that says that it never expires is on the topic for longer than its id is remembered, and the group's offset
/// is lost: again and again it is read from the start.
#[tokio::test(start_paused = true)]
async fn a_command_on_the_topic_takes_effect_once_however_long_it_stays_there() {
    for ahead_ms in [0, 60_000, 200_000, 3_600_000, 2 * DAY_MS, 9 * DAY_MS, 365 * DAY_MS] {
        let world = World::new();
        produce(&world, world.clock.now_ms() + ahead_ms);
        for day in 0..20 {
            let config = EngineConfig { node: "one".into(), ..world.config.clone() };
            let group = MemoryGroup::new(world.log.clone());
            let engine = Engine::shared(Arc::new(world.log.clone()), Arc::new(group), config);
            let bus = engine.start::<Counter>().await.unwrap();
            bus.ready().await.unwrap();
            eventually("it was read", || bus.status()[0].forwarded == 1).await;
            engine.shutdown().await;
            let times = world.sum("c").await;
            assert!(times <= 1, "{ahead_ms} ms ahead: it took effect {times} times by day {day}");
            world.clock.advance(DAY_MS);
        }
        assert!(ahead_ms > 200_000 || world.sum("c").await == 1, "{ahead_ms} ms ahead");
    }
}
