//! Commands on the commands topic: what they are told holds, and they are decided in their order, whatever goes wrong.

use super::group::{Cluster, eventually, ids};
use super::*;
use crate::domain::clock::Clock;
use crate::log::Record;
use crate::log::group::Group;
use crate::log::group::memory::MemoryGroup;
use crate::log::record::HEADERS_MAX;
use crate::{InvalidCommand, OwnerState};

const GROUP: &str = "test.counter.owners";
const COMMANDS: &str = "test.counter.commands";
const REPLIES: &str = "test.counter.replies";

/// One partition, and the processes that share it.
struct Shared {
    world: World,
    group: MemoryGroup,
}

impl Shared {
    fn new() -> Self {
        let world = World::new();
        let config = EngineConfig { send_deadline: Duration::from_secs(5), ..world.config.clone() };
        Self { group: MemoryGroup::new(world.log.clone()), world: World { config, ..world } }
    }

    async fn process(&self, node: &str) -> Process {
        self.process_with(EngineConfig { node: node.into(), ..self.world.config.clone() }).await
    }

    async fn process_with(&self, config: EngineConfig) -> Process {
        let group: Arc<dyn Group> = Arc::new(self.group.clone());
        let engine = Engine::shared(Arc::new(self.world.log.clone()), group, config);
        let bus = engine.start::<Counter>().await.expect("starts");
        bus.ready().await.expect("serves");
        Process { engine, bus }
    }

    /// A command as a service in any language sends it.
    fn produce(&self, id: &str, ce_type: &str, payload: &str) {
        self.produce_with(id, ce_type, payload, &[]);
    }

    fn produce_with(&self, id: &str, ce_type: &str, payload: &str, more: &[(&'static str, &str)]) {
        self.produce_to("c", id, ce_type, payload, more);
    }

    fn produce_to(&self, key: &str, id: &str, ce_type: &str, payload: &str, more: &[(&'static str, &str)]) {
        let ce_type = format!("test.counter.{ce_type}");
        let own = [("ce_id", id), ("ce_type", &ce_type), ("ce_replypartition", "0"), ("ce_request", id)];
        let headers = own.iter().chain(more);
        let headers = headers.map(|(name, value)| ((*name).into(), value.to_string().into())).collect();
        let timestamp_ms = self.world.config.clock.now_ms();
        let record =
            Record { key: key.to_owned().into(), value: Some(payload.to_owned().into()), headers, timestamp_ms };
        self.world.log.partition(COMMANDS, 0).append_foreign(record);
    }

    fn add(&self, id: &str, n: u64) {
        self.produce(id, "add", &format!(r#"{{"times":1,"n":{n}}}"#));
    }

    fn take(&self, id: &str, n: u64) {
        self.produce(id, "take", &format!(r#"{{"n":{n}}}"#));
    }

    /// What was answered to a command, in turn.
    fn told(&self, id: &str) -> Vec<String> {
        let ours = format!(r#""command_id":"{id}""#);
        let records = self.world.log.partition(REPLIES, 0).records().into_iter();
        let texts = records.map(|it| String::from_utf8(it.record.value.unwrap().to_vec()).unwrap());
        texts.filter(|text| text.contains(&ours)).collect()
    }

    async fn answered(&self, ids: &[&str]) {
        eventually("every answer", || ids.iter().all(|id| !self.told(id).is_empty())).await;
    }

    /// Until the owner has decided what it had, and hangs on its append.
    async fn hangs(&self) {
        eventually("an append that hangs", || self.world.partition().held() > 0).await;
    }

    /// A command that opens the partition's books once more, when all that stood before it is decided.
    async fn settled(&self, id: &str) {
        self.produce(id, "nothing", "{}");
        self.answered(&[id]).await;
    }
}

/// Each is final when it is told: then the log has it, and whoever takes the topic again tells the same.
#[tokio::test(start_paused = true)]
async fn a_command_that_was_told_to_fail_takes_no_effect_later() {
    // The sum overflows as long as there is something in it; two events are too many for the first process.
    for (said, times, n) in [("panicked", 1, u64::MAX), ("invalid", 2, 1)] {
        let shared = Shared::new();
        let config = EngineConfig { node: "one".into(), events_max: 1, ..shared.world.config.clone() };
        let one = shared.process_with(config).await;
        one.send("c", "first", add(1)).await.unwrap();
        shared.produce("x", "add", &format!(r#"{{"times":{times},"n":{n}}}"#));
        shared.answered(&["x"]).await;
        assert!(shared.told("x")[0].contains(said), "{:?}", shared.told("x"));
        one.send("c", "second", Do::Take { n: 1 }).await.unwrap();
        one.engine.kill().await; // before the offset is committed: that is every half second
        drop(one);
        let _next = shared.process("next").await;
        shared.settled("end").await;
        assert_eq!(shared.world.sum("c").await, 0, "it took effect after it was answered {said}");
        assert!(shared.told("x").iter().all(|told| told.contains(said)), "{:?}", shared.told("x"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_repeat_of_a_command_that_failed_gets_the_same_answer() {
    let world = World::new();
    let process = world.process().await;
    for round in 0..2 {
        let panicked = process.send("a", "1", Do::PanicInHandle).await;
        assert!(matches!(&panicked, Err(SendError::Panicked(text)) if text == "handle gave up"), "{panicked:?}");
        let long = process.send("a", "2", Do::Long { bytes: 30_000 }).await;
        let limit = 20_000;
        assert!(
            matches!(&long, Err(SendError::Invalid(InvalidCommand::TooLarge { what: "event", limit: found, .. })) if *found == limit),
            "{round}: {long:?}"
        );
        let many = process.send("a", "3", Do::Add { n: 1, times: 1_001 }).await;
        assert!(
            matches!(many, Err(SendError::Invalid(InvalidCommand::TooManyEvents { count: 1_001, limit: 1_000 }))),
            "{round}: {many:?}"
        );
    }
    // Also by the next process, whose limits are others.
    process.engine.shutdown().await;
    let process = world.process_with(EngineConfig { events_max: 5_000, ..world.config.clone() }).await;
    let many = process.send("a", "3", Do::Add { n: 1, times: 1_001 }).await;
    assert!(matches!(many, Err(SendError::Invalid(InvalidCommand::TooManyEvents { count: 1_001, .. }))), "{many:?}");
    assert_eq!(world.sum("a").await, 0);
}

/// A later release answers in a way that this one does not know: it was decided, and is not decided again.
#[tokio::test(start_paused = true)]
async fn an_answer_of_an_unknown_kind_is_not_decided_again() {
    let world = World::new();
    let process = world.process_with(EngineConfig { snapshot_every: 0, ..world.config.clone() }).await;
    assert!(matches!(process.send("a", "1", Do::Take { n: 1 }).await, Err(SendError::Refused(_))));
    process.engine.shutdown().await;
    let mut last = world.partition().records().pop().expect("the answers record");
    let text = String::from_utf8(last.record.value.take().unwrap().to_vec()).unwrap();
    let newer = text.replace(r#""refused":"#, r#""postponed":"#);
    assert_ne!(text, newer);
    last.record.value = Some(newer.into());
    world.partition().truncate(last.offset);
    world.partition().append_foreign(last.record);
    for config in [world.config.clone(), EngineConfig { unwritten_max: 1, ..world.config.clone() }] {
        let process = world.process_with(config).await;
        process.send("a", "fill", add(1)).await.unwrap();
        let answer = process.send("a", "1", Do::Take { n: 1 }).await;
        let Err(SendError::OutcomeUnknown { reason: Some(reason), .. }) = &answer else { panic!("{answer:?}") };
        assert!(reason.contains("a newer release decided it"), "{reason}");
        process.engine.shutdown().await;
    }
    assert_eq!(world.sum("a").await, 1);
}

/// The second needs what the first brings.
#[tokio::test(start_paused = true)]
async fn commands_are_decided_in_their_order_around_a_doubt() {
    for fault in [Fault::Hang, Fault::Lost] {
        let shared = Shared::new();
        let _one = shared.process("one").await;
        shared.world.fault(Fault::Hang);
        shared.add("zero", 0);
        shared.hangs().await;
        shared.world.fault(fault); // of the first command's append, which never lands in time
        shared.add("first", 5);
        shared.take("second", 5);
        shared.world.partition().release();
        shared.answered(&["first", "second"]).await;
        let second = shared.told("second");
        assert!(second.iter().all(|told| told.contains("accepted")), "decided before the first: {second:?}");
        assert_eq!(shared.world.sum("c").await, 0);
    }
}

/// The first is refused, and the second brings what it needs: wherever the round is torn, the second takes no effect
/// before the first has its answer.
#[tokio::test(start_paused = true)]
async fn a_round_that_is_torn_keeps_the_order_of_an_answer_and_of_the_events_behind_it() {
    for landed in 0..4 {
        let shared = Shared::new();
        let _one = shared.process("one").await;
        shared.world.fault(Fault::Hang);
        shared.add("zero", 0);
        shared.hangs().await;
        shared.world.fault(Fault::Torn { landed });
        shared.take("first", 5);
        shared.add("second", 5);
        shared.take("third", 9);
        shared.add("fourth", 1);
        shared.world.partition().release();
        shared.answered(&["first", "second", "third", "fourth"]).await;
        let told = ["first", "third"].map(|id| shared.told(id));
        assert!(told.iter().flatten().all(|told| told.contains("refused")), "{landed} landed: {told:#?}");
        assert_eq!(shared.world.sum("c").await, 6, "{landed} landed");
    }
}

/// The first is being appended and in doubt when the second comes.
#[tokio::test(start_paused = true)]
async fn a_command_that_comes_during_a_doubt_is_not_decided_before_the_one_in_doubt() {
    let shared = Shared::new();
    let _one = shared.process("one").await;
    shared.world.fault(Fault::Hang);
    shared.add("first", 5);
    shared.hangs().await;
    shared.take("second", 5);
    shared.take("third", 9);
    shared.answered(&["first", "second", "third"]).await;
    assert!(shared.told("second").iter().all(|told| told.contains("accepted")), "{:?}", shared.told("second"));
    assert!(shared.told("third").iter().all(|told| told.contains("refused")), "{:?}", shared.told("third"));
}

/// What was told to fail is behind one that is taken again: it was decided, and is not decided anew.
#[tokio::test(start_paused = true)]
async fn what_failed_fails_again_when_what_stands_before_it_is_taken_again() {
    let shared = Shared::new();
    let one = shared.process("one").await;
    one.send("c", "zero", add(1)).await.unwrap();
    shared.world.fault(Fault::Hang);
    shared.take("first", 1);
    shared.hangs().await;
    shared.add("second", u64::MAX); // overflows only while there is something
    shared.answered(&["first", "second"]).await;
    shared.settled("end").await;
    let second = shared.told("second");
    let kinds = ["accepted", "panicked"].map(|kind| second.iter().any(|told| told.contains(kind)));
    assert_ne!(kinds, [true, true], "answers to one command: {second:#?}");
}

/// By the clock of one owner the first is too late, by that of the next it is not: then it comes first, or not at all.
#[tokio::test(start_paused = true)]
async fn what_one_owner_passed_over_is_not_decided_by_the_next_after_what_stands_behind_it() {
    for case in ["expired", "not known", "invalid"] {
        let shared = Shared::new();
        let time = |ahead_ms: i64| {
            let ms = shared.world.clock.now_ms() + ahead_ms;
            chrono::DateTime::from_timestamp_millis(ms).unwrap().to_rfc3339()
        };
        let ahead = Arc::new(ManualClock::at(shared.world.clock.now_ms() + 10_000));
        let config = EngineConfig { node: "one".into(), clock: ahead, ..shared.world.config.clone() };
        let one = shared.process_with(config).await;
        shared.group.expel(GROUP, "one"); // it does not know: what it commits does not count
        match case {
            "expired" => {
                shared.produce_with("first", "add", r#"{"times":1,"n":5}"#, &[("ce_expirestime", &time(5_000))]);
            }
            "not known" => shared.produce("first", "give", r#"{"n":5}"#),
            _ => shared.produce("first", "add", r#"{"times":1}"#),
        }
        shared.produce_with("second", "take", r#"{"n":5}"#, &[("ce_expirestime", &time(600_000))]);
        eventually("the first is passed over", || {
            let status = one.bus.status().remove(0);
            status.expired + status.rejected > 0
        })
        .await;
        one.send("x", "after both", add(1)).await.unwrap();
        let records = shared.world.partition().records().into_iter();
        let mut texts = records.map(|it| String::from_utf8_lossy(&it.record.value.unwrap()).into_owned());
        assert!(!texts.any(|text| text.contains(r#""command":"second""#)), "{case}: it was decided");
        assert!(shared.told("first").iter().all(|told| !told.contains("invalid")), "{:?}", shared.told("first"));

        let _two = shared.process("two").await;
        shared.answered(&["first", "second"]).await;
        let second = shared.told("second");
        let kind = if case == "expired" { "accepted" } else { "refused" };
        assert!(second.iter().all(|told| told.contains(kind)), "{case}: {second:?}");
    }
}

/// The same where a doubt lies between: the next run over the topic begins behind what was passed over, and may not take
/// what stands there before the group has taken that offset.
#[tokio::test(start_paused = true)]
async fn what_was_passed_over_holds_up_the_next_run_over_the_topic_too() {
    let shared = Shared::new();
    let one = shared.process("one").await;
    shared.group.expel(GROUP, "one"); // it does not know: what it commits does not count
    shared.produce("first", "give", r#"{"n":5}"#);
    eventually("the first is passed over", || one.bus.status()[0].rejected == 1).await;
    shared.world.fault(Fault::Lost);
    shared.produce_to("d", "between", "add", r#"{"times":1,"n":1}"#, &[]);
    eventually("a doubt", || one.bus.status()[0].doubts == 1).await;
    shared.take("second", 5);
    tokio::time::sleep(Duration::from_secs(10)).await; // many runs
    one.send("x", "after all", add(1)).await.unwrap();
    let records = shared.world.partition().records().into_iter();
    let mut texts = records.map(|it| String::from_utf8_lossy(&it.record.value.unwrap()).into_owned());
    assert!(!texts.any(|text| text.contains(r#""command":"second""#)), "it was decided");

    let _two = shared.process("two").await;
    shared.answered(&["between", "second"]).await;
    assert!(shared.told("first").iter().all(|told| told.contains("not_known")), "{:?}", shared.told("first"));
}

/// Each header is looked at for each name that a command may have, so there is a bound.
#[tokio::test(start_paused = true)]
async fn a_command_of_more_headers_than_one_may_have_is_refused() {
    let shared = Shared::new();
    let _one = shared.process("one").await;
    for (id, headers) in [("fits", HEADERS_MAX), ("more", HEADERS_MAX + 1)] {
        shared.produce_with(id, "add", r#"{"times":1,"n":1}"#, &vec![("x", "y"); headers - 4]);
    }
    shared.answered(&["fits", "more"]).await;
    assert!(shared.told("fits")[0].contains("accepted"), "{:?}", shared.told("fits"));
    let more = &shared.told("more")[0];
    assert!(more.contains("invalid") && more.contains("more than 100 headers"), "{more}");
    assert_eq!(shared.world.sum("c").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeat_that_has_time_is_not_told_that_it_expired() {
    let shared = Shared::new();
    let one = shared.process("one").await;
    shared.world.fault(Fault::Hang);
    let hanging = one.sending("x", "0", add(1));
    shared.hangs().await;
    let long_ago = [("ce_expirestime", "2020-01-01T00:00:00Z")];
    shared.produce_with("a", "add", r#"{"times":1,"n":1}"#, &long_ago);
    one.queued(1).await;
    let repeat = one.sending("c", "a", add(1));
    one.queued(2).await;
    shared.world.partition().release();
    hanging.await.unwrap().unwrap();
    assert!(!repeat.await.unwrap().unwrap().duplicate);
    shared.answered(&["a"]).await;
    assert!(shared.told("a")[0].contains("expired"));
    assert_eq!(shared.world.sum("c").await, 1);
}

/// Another payload under an id whose first use is in doubt: nobody knows yet whether the id was used.
#[tokio::test(start_paused = true)]
async fn that_an_id_was_used_is_told_when_it_is_certain() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("x", "0", add(1));
    eventually("an append that hangs", || world.partition().held() > 0).await;
    let first = process.sending("a", "1", add(1));
    process.queued(1).await;
    let other = process.sending("a", "1", add(2));
    process.queued(2).await;
    world.fault(Fault::Lost);
    world.partition().release();
    hanging.await.unwrap().unwrap();
    assert!(is_not_in_log(&first.await.unwrap()));
    let other = other.await.unwrap();
    assert!(matches!(other, Err(SendError::NotDone(_))), "{other:?}");
    process.send_until_done("a", "1", add(2)).await.unwrap();
}

/// What waits behind an append in doubt is told that nothing was done while the partition is being claimed, not later.
#[tokio::test(start_paused = true)]
async fn what_is_queued_when_an_owner_takes_over_again_is_not_done() {
    let world = World::new();
    let append_deadline = Duration::from_secs(300);
    let process = world.process_with(EngineConfig { append_deadline, ..world.config.clone() }).await;
    world.fault(Fault::Hang); // the round
    world.fault(Fault::Hang); // the claim after it
    let hanging = process.sending("a", "1", add(1));
    eventually("an append that hangs", || world.partition().held() > 0).await;
    let queued = process.sending("a", "2", add(2));
    process.queued(1).await;
    let record = Record { key: "x".into(), value: Some("y".into()), headers: vec![], timestamp_ms: 1 };
    world.partition().append_foreign(record); // so the round does not follow on
    world.partition().release();
    let queued = tokio::time::timeout(Duration::from_secs(20), queued).await.expect("told at once").unwrap();
    assert!(matches!(queued, Err(SendError::NotDone(NotDone::NotReady { .. }))), "{queued:?}");
    assert!(!hanging.is_finished());
    eventually("a claim that hangs", || world.partition().held() > 0).await;
    world.partition().release();
    assert_eq!(hanging.await.unwrap().unwrap().version.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn commands_on_a_topic_that_was_made_anew_are_taken_from_the_first() {
    let shared = Shared::new();
    let one = shared.process("one").await;
    for n in 0..10 {
        shared.add(&format!("a{n}"), 1);
    }
    eventually("all are done", || one.bus.status()[0].forwarded == 10).await;
    one.engine.shutdown().await; // commits 10
    shared.world.log.partition(COMMANDS, 0).truncate(0);
    for n in 0..5 {
        shared.add(&format!("b{n}"), 1);
    }
    let two = shared.process("two").await;
    eventually("all are done", || two.bus.status()[0].forwarded == 5).await;
    assert_eq!(shared.world.sum("c").await, 15);
    // It is as long as it was when that was committed, or longer.
    two.engine.shutdown().await; // commits 5
    for (again, commands) in [("c", 5), ("d", 9)] {
        shared.world.clock.advance(1_000);
        shared.world.log.partition(COMMANDS, 0).truncate(0);
        for n in 0..commands {
            shared.add(&format!("{again}{n}"), 1);
        }
        let three = shared.process("three").await;
        eventually("all are done", || three.bus.status()[0].forwarded == commands).await;
        three.engine.shutdown().await;
    }
    assert_eq!(shared.world.sum("c").await, 29);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_without_an_end_is_one_for_the_owner_elsewhere_too() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.process("one").await, cluster.process("two").await);
    cluster.serves(&one, 2).await;
    cluster.serves(&two, 2).await;
    let elsewhere = ids(&one, false).next().unwrap();
    one.bus.send(&elsewhere, add(1)).deadline(Duration::MAX).await.unwrap();
    let here = ids(&one, true).next().unwrap();
    one.bus.send(&here, add(1)).deadline(Duration::MAX).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_is_gone_says_so_at_once() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.process("one").await, cluster.process("two").await);
    cluster.serves(&one, 2).await;
    cluster.serves(&two, 2).await;
    let (here, elsewhere) = (ids(&one, true).next().unwrap(), ids(&one, false).next().unwrap());
    let log = &cluster.world.log;
    log.partition(TOPIC, super::group::home(&here)).fault(Fault::Hang);
    log.partition(TOPIC, super::group::home(&elsewhere)).fault(Fault::Hang);
    let hanging = [one.sending(&here, "1", add(1)), one.sending(&elsewhere, "1", add(1))];
    for id in [&here, &elsewhere] {
        eventually("it hangs", || log.partition(TOPIC, super::group::home(id)).held() > 0).await;
    }
    let queued = one.sending(&here, "2", add(1));
    eventually("queued", || one.bus.status().iter().any(|status| status.queued == 1)).await;
    let bus = one.bus.clone();
    drop(one);
    assert!(matches!(queued.await.unwrap(), Err(SendError::NotDone(NotDone::Stopped))));
    for hanging in hanging {
        let answer = hanging.await.unwrap();
        let Err(SendError::OutcomeUnknown { waited, reason: Some(_) }) = answer else { panic!("{answer:?}") };
        assert!(waited < Duration::from_secs(5), "{waited:?}: not the deadline");
    }
    for id in [here, elsewhere] {
        let answer = bus.send(&id, add(1)).await;
        assert!(matches!(answer, Err(SendError::NotDone(NotDone::Stopped))), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_aggregate_type_starts_once() {
    let world = World::new();
    let process = world.process().await;
    let error = process.engine.start::<Counter>().await.map(drop).unwrap_err();
    insta::assert_snapshot!(error, @"starting aggregate counter a second time on one engine: clone the bus that the first start gave");
    process.send("a", "1", add(1)).await.unwrap();
    assert_eq!(process.bus.status()[0].state, OwnerState::Serving);
}

/// A flood of large commands, from here and from elsewhere, takes no more memory than it may.
#[tokio::test(start_paused = true)]
async fn commands_that_wait_are_bounded_in_bytes() {
    let world = World { log: MemoryLog::new(1), ..World::new() };
    let append_deadline = Duration::from_secs(60);
    let config = EngineConfig { commands_max_bytes: 4_000_000, append_deadline, ..world.config.clone() };
    let shared = Shared { group: MemoryGroup::new(world.log.clone()), world: World { config, ..world } };
    let one = shared.process("one").await;
    shared.world.fault(Fault::Hang);
    let hanging = one.sending("x", "0", add(1));
    shared.hangs().await;
    // The command is large, its events are not.
    let large = format!(r#"{{"times":1,"n":1{}}}"#, " ".repeat(900_000));
    for n in 0..40 {
        shared.produce(&format!("a{n}"), "add", &large);
    }
    one.queued(3).await; // of four, one is left for what is sent here
    let text = Do::Say { text: "x".repeat(900_000) };
    let fits = one.sending("s", "large", text.clone());
    one.queued(4).await;
    let answer = one.send("s", "larger", text).await;
    assert!(matches!(answer, Err(SendError::NotDone(NotDone::Overloaded { .. }))), "{answer:?}");
    let small = one.sending("s", "small", add(1));
    one.queued(5).await;
    shared.world.partition().release();
    hanging.await.unwrap().unwrap();
    fits.await.unwrap().unwrap();
    small.await.unwrap().unwrap();
    eventually("all are done", || one.bus.status()[0].forwarded == 40).await;
    assert_eq!(shared.world.sum("c").await, 40);
}

/// Shows: a bound of 0 is told at the start, and not by commands that nobody ever answers.
#[tokio::test(start_paused = true)]
async fn a_bound_of_nothing_is_refused_at_the_start() {
    let zero = Duration::ZERO;
    let base = EngineConfig::default;
    let table = [
        ("dedup_retention", EngineConfig { dedup_retention: zero, ..base() }),
        ("queue_max", EngineConfig { queue_max: 0, ..base() }),
        ("commands_max_bytes", EngineConfig { commands_max_bytes: 0, ..base() }),
        ("round_max", EngineConfig { round_max: 0, ..base() }),
        ("round_max_bytes", EngineConfig { round_max_bytes: 0, ..base() }),
        ("events_max", EngineConfig { events_max: 0, ..base() }),
        ("append_deadline", EngineConfig { append_deadline: zero, ..base() }),
    ];
    for (name, config) in table {
        let engine = Engine::new(Arc::new(World::new().log), config);
        let error = engine.start::<Counter>().await.map(drop).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the setting EngineConfig::{name} is 0")), "{error}");
    }
}
