//! Several processes that share the partitions: who owns, how commands get there, and what a zombie can do.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::*;
use crate::engine::store::StateFolder;
use crate::log::Record;
use crate::log::group::memory::MemoryGroup;
use crate::{ExpectedVersion, OwnerState, partition_of};

const GROUP: &str = "test.counter.owners";
const COMMANDS: &str = "test.counter.commands";
const REPLIES: &str = "test.counter.replies";
pub(super) const PARTITIONS: u32 = 4;

pub(super) struct Cluster {
    pub(super) world: World,
    pub(super) group: MemoryGroup,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let log = MemoryLog::new(PARTITIONS).with_record_max_bytes(20_000);
        let world = World::new();
        let config = EngineConfig { send_deadline: Duration::from_secs(5), ..world.config.clone() };
        let world = World { log: log.clone(), config, ..world };
        Self { world, group: MemoryGroup::new(log) }
    }

    pub(super) async fn process(&self, node: &str) -> Process {
        let config = EngineConfig { node: node.into(), ..self.world.config.clone() };
        self.process_with(config).await
    }

    async fn process_with(&self, config: EngineConfig) -> Process {
        let engine = Engine::shared(Arc::new(self.world.log.clone()), Arc::new(self.group.clone()), config);
        let bus = engine.start::<Counter>().await.expect("starts");
        bus.ready().await.expect("serves or knows who does");
        Process { engine, bus }
    }

    fn owners(&self) -> Vec<String> {
        self.group.assigned(GROUP).into_iter().map(Option::unwrap_or_default).collect()
    }

    /// Waits until exactly these partitions are served by the process.
    pub(super) async fn serves(&self, process: &Process, count: usize) {
        eventually("as many partitions served", || serving(process).len() == count).await;
    }

    pub(super) async fn sum(&self, id: &str) -> u64 {
        let mut counter = Counter::default();
        for event in events_of(&self.world.log, home(id)).await {
            if event.envelope.stream.id.as_str() == id {
                counter.apply(&event.envelope.event::<Counter>().expect("readable"));
            }
        }
        counter.sum
    }

    /// Puts a record on the commands topic, as a service in another language does.
    fn produce(&self, partition: u32, key: &str, headers: &[(&'static str, &str)], payload: &str) {
        let headers = headers.iter().map(|(name, value)| ((*name).into(), value.to_string().into())).collect();
        let timestamp_ms = self.world.config.clock.now_ms();
        let record =
            Record { key: key.to_owned().into(), value: Some(payload.to_owned().into()), headers, timestamp_ms };
        self.world.log.partition(COMMANDS, partition).append_foreign(record);
    }

    fn replies(&self, partition: u32) -> Vec<String> {
        let value = |value: Option<Bytes>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
        self.world.log.partition(REPLIES, partition).records().into_iter().map(|it| value(it.record.value)).collect()
    }
}

pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

fn serving(process: &Process) -> BTreeSet<u32> {
    let status = process.bus.status();
    status.iter().filter(|one| one.state == OwnerState::Serving).map(|one| one.partition).collect()
}

pub(super) fn home(id: &str) -> u32 {
    partition_of(&crate::AggregateKey::new(id).unwrap(), PARTITIONS)
}

async fn events_of(log: &MemoryLog, partition: u32) -> Vec<Recorded> {
    let source = EventSource::of::<Counter>("test", PARTITIONS);
    let mut reader = PartitionReader::resume(source, partition, &Checkpoint::default());
    let mut events = Vec::new();
    for stored in log.partition(TOPIC, partition).records() {
        if let Fed::Events(released) = reader.feed(stored).expect("a whole log") {
            events.extend(released);
        }
    }
    for (id, stream) in by_stream(&events) {
        let versions: Vec<u64> = stream.iter().map(|event| event.envelope.version.get()).collect();
        assert_eq!(versions, (1..=stream.len() as u64).collect::<Vec<_>>(), "versions of {id}");
    }
    events
}

/// Ids that live in partitions which this process does not serve, or does.
pub(super) fn ids(process: &Process, here: bool) -> impl Iterator<Item = String> {
    let served = serving(process);
    (0..1_000).map(|number| format!("c{number}")).filter(move |id| served.contains(&home(id)) == here)
}

#[tokio::test(start_paused = true)]
async fn any_process_takes_any_command_and_the_owner_answers() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let two = cluster.process("two").await;
    cluster.serves(&one, 2).await;
    cluster.serves(&two, 2).await;
    assert!(serving(&one).is_disjoint(&serving(&two)));

    let id = ids(&one, false).next().unwrap();
    let receipt = one.send(&id, "a", add(5)).await.unwrap();
    assert_eq!((receipt.version.get(), receipt.events, receipt.duplicate), (1, 1, false));
    assert_eq!(receipt.position.partition, home(&id));
    let again = two.send(&id, "a", add(5)).await.unwrap();
    assert_eq!((again.version, again.position, again.duplicate), (receipt.version, receipt.position, true));
    let refused = one.send(&id, "b", Do::Take { n: 9 }).await;
    assert!(matches!(refused, Err(SendError::Refused(No::TooFew { sum: 5 }))), "{refused:?}");
    let refused = two.send(&id, "b", Do::Take { n: 9 }).await;
    assert!(matches!(refused, Err(SendError::Refused(No::TooFew { sum: 5 }))), "{refused:?}");
    let conflict = one.bus.send(&id, add(1)).expect(ExpectedVersion::NoStream).await;
    assert!(matches!(conflict, Err(SendError::Conflict { actual, .. }) if actual.get() == 1), "{conflict:?}");
    let no_op = one.send(&id, "c", Do::Nothing).await.unwrap();
    assert_eq!((no_op.version.get(), no_op.events), (1, 0));
    let reused = one.send(&id, "a", add(6)).await;
    assert!(matches!(reused, Err(SendError::CommandIdReused)), "{reused:?}");
    let panicked = one.send(&id, "d", Do::PanicInHandle).await;
    assert!(matches!(panicked, Err(SendError::Panicked(text)) if text == "handle gave up"));
    let long = one.send(&id, "e", Do::Long { bytes: 30_000 }).await;
    assert!(matches!(&long, Err(SendError::Invalid(why)) if why.to_string().contains("bytes, at most")), "{long:?}");
    assert_eq!(cluster.sum(&id).await, 5);
    let forwarded: u64 = two.bus.status().iter().map(|one| one.forwarded).sum();
    assert_eq!(forwarded, 7, "all but those that the owner's own process sent");
}

#[tokio::test(start_paused = true)]
async fn what_travels_with_a_command_arrives() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.process("one").await, cluster.process("two").await);
    cluster.serves(&one, 2).await;
    cluster.serves(&two, 2).await;
    let id = ids(&one, false).next().unwrap();
    let occurred_at = chrono::DateTime::from_timestamp_micros(1_600_000_000_123_456).unwrap();
    let send = one.bus.send(&id, add(1)).command_id("a").correlation_id("talk").causation_id("cause");
    let send = send.actor("Žofie").occurred_at(occurred_at).traceparent("00-4bf9-00f0-01").expect(ExpectedVersion::Any);
    send.await.unwrap();
    let event = events_of(&cluster.world.log, home(&id)).await.remove(0).envelope;
    assert_eq!((event.command_id.as_str(), event.correlation_id.as_str()), ("a", "talk"));
    assert_eq!((event.causation_id.unwrap().as_str(), event.actor.unwrap().as_str()), ("cause", "Žofie"));
    assert_eq!((event.occurred_at, event.traceparent.as_deref()), (occurred_at, Some("00-4bf9-00f0-01")));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_leaves_hands_over_without_a_lost_or_doubled_command() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let two = cluster.process("two").await;
    cluster.serves(&two, 2).await;
    let id = ids(&one, false).next().unwrap();
    let mut sent = 0;
    let leaving = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        two.engine.shutdown().await;
    };
    let sending = async {
        for number in 0..200 {
            one.send_until_done(&id, &format!("a{number}"), add(1)).await.unwrap();
            sent += 1;
        }
    };
    tokio::join!(leaving, sending);
    cluster.serves(&one, 4).await;
    assert_eq!((sent, cluster.sum(&id).await), (200, 200));
    assert_eq!(cluster.owners(), ["one"; 4]);
}

#[tokio::test(start_paused = true)]
async fn a_zombie_gets_nothing_accepted_and_sends_its_callers_to_the_new_owner() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let two = cluster.process("two").await;
    cluster.serves(&one, 2).await;
    let id = ids(&one, true).next().unwrap();
    one.send(&id, "a", add(5)).await.unwrap();
    cluster.group.expel(GROUP, "one");
    cluster.serves(&two, 4).await;
    two.send(&id, "b", Do::Take { n: 5 }).await.unwrap();

    // The zombie still believes that there are 5, and that the partition is its own.
    assert!(serving(&one).contains(&home(&id)));
    let answer = one.send(&id, "c", Do::Take { n: 5 }).await;
    assert!(is_not_in_log(&answer), "{answer:?}");
    let answer = one.send(&id, "c", Do::Take { n: 5 }).await;
    assert!(matches!(answer, Err(SendError::Refused(No::TooFew { sum: 0 }))), "{answer:?}");
    let state = &one.bus.status()[home(&id) as usize].state;
    assert!(matches!(state, OwnerState::Superseded { by } if by.starts_with("two ")), "{state:?}");
    tokio::time::sleep(Duration::from_millis(300)).await;
    let state = &one.bus.status()[home(&id) as usize].state;
    assert!(matches!(state, OwnerState::Superseded { .. }), "the group did not say that it is its own: {state:?}");
    assert_eq!(cluster.sum(&id).await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_the_group_means_claims_again_after_a_stray_claim() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let id = ids(&one, true).next().unwrap();
    one.send(&id, "a", add(5)).await.unwrap();
    let stray = cluster.world.process().await; // outside of the group: it takes over everything
    stray.send(&id, "b", add(1)).await.unwrap();
    let receipt = one.send_until_done(&id, "c", add(1)).await.unwrap();
    assert_eq!(receipt.version.get(), 3);
    assert_eq!(cluster.sum(&id).await, 7);
    let answer = stray.send(&id, "d", add(1)).await;
    assert!(is_not_in_log(&answer), "{answer:?}");
}

/// Shows: a group that is slow to confirm does not keep a process from handing over what it is asked for.
#[tokio::test(start_paused = true)]
async fn who_waits_for_the_groups_word_still_hears_of_changes() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    cluster.serves(&one, 4).await;
    cluster.group.silence(true);
    let stray = cluster.world.process().await; // outside of the group: it takes over everything
    // Its owners find that they were shut out, and will ask the group.
    let ids: Vec<String> = ids(&one, true).take(20).collect();
    let sending = futures::future::join_all(ids.iter().map(|id| one.send(id, "a", add(1))));
    let shut_out = eventually("to be shut out of all", || serving(&one).is_empty());
    tokio::select! {
        _ = sending => {}
        () = shut_out => {}
    }
    tokio::time::sleep(Duration::from_millis(200)).await; // the longest pause before they ask
    stray.engine.shutdown().await;
    let joining = tokio::spawn(async move { (cluster.process("two").await, cluster) });
    let (two, cluster) = tokio::time::timeout(Duration::from_secs(10), joining).await.expect("not held up").unwrap();
    cluster.serves(&two, 2).await;
    cluster.group.silence(false);
    cluster.serves(&one, 2).await;
}

#[tokio::test(start_paused = true)]
async fn two_processes_with_one_name_leave_the_later_one() {
    let cluster = Cluster::new();
    let first = cluster.process("same").await;
    let second = cluster.process("same").await;
    cluster.serves(&second, 4).await;
    let answer = first.send("c1", "a", add(1)).await;
    let Err(SendError::NotDone(why)) = answer else { panic!("{answer:?}") };
    assert!(why.to_string().contains("another process joined as node \"same\""), "{why}");
    second.send("c1", "a", add(1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_command_in_doubt_when_the_partition_moves_gets_the_true_answer() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    cluster.serves(&one, 4).await;
    let id = "c1";
    one.send(id, "a", add(1)).await.unwrap();
    cluster.world.log.partition(TOPIC, home(id)).fault(Fault::Hang);
    let landed = one.sending(id, "b", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    // While the append hangs, the partition goes to another process, which claims before the append is over.
    cluster.group.expel(GROUP, "one");
    let two = cluster.process("two").await;
    cluster.serves(&two, 4).await;
    cluster.group.notice(GROUP);
    cluster.world.log.partition(TOPIC, home(id)).release();
    let answer = landed.await.unwrap();
    assert!(is_not_in_log(&answer), "{answer:?}");
    assert_eq!(two.send(id, "b", add(1)).await.unwrap().version.get(), 2);
    assert_eq!(cluster.sum(id).await, 2);
}

#[tokio::test(start_paused = true)]
async fn commands_wait_on_the_topic_for_the_next_owner() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let two = cluster.process("two").await;
    cluster.serves(&two, 2).await;
    let id = ids(&one, false).next().unwrap();
    // The owner ends without a word, and the group has not noticed: nobody serves the partition.
    let zombie = two.engine.kill();
    zombie.await;
    let waiting = one.sending(&id, "a", add(3));
    cluster.serves(&one, 4).await;
    assert_eq!(waiting.await.unwrap().unwrap().version.get(), 1);
    assert_eq!(cluster.sum(&id).await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_process_without_an_answer_says_that_the_outcome_is_unknown() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let two = cluster.process("two").await;
    cluster.serves(&two, 2).await;
    let id = ids(&one, false).next().unwrap();
    cluster.world.log.partition(COMMANDS, home(&id)).fault(Fault::ReportLost);
    one.send(&id, "a", add(1)).await.unwrap(); // the answer tells what the report did not
    cluster.world.log.partition(COMMANDS, home(&id)).fault(Fault::Lost);
    let soon = Duration::from_millis(50);
    let answer = one.bus.send(&id, add(1)).command_id("b").deadline(soon).await;
    assert!(matches!(answer, Err(SendError::OutcomeUnknown { waited, .. }) if waited >= soon), "{answer:?}");
    cluster.world.log.partition(COMMANDS, home(&id)).fault(Fault::Refused);
    let answer = one.send(&id, "c", add(1)).await;
    assert!(matches!(answer, Err(SendError::NotDone(NotDone::NotReady { .. }))), "{answer:?}");
    assert_eq!(cluster.sum(&id).await, 1);
}

#[tokio::test(start_paused = true)]
async fn no_more_than_so_many_commands_are_under_way_to_other_processes() {
    let cluster = Cluster::new();
    let config = EngineConfig { node: "one".into(), queue_max: 2, ..cluster.world.config.clone() };
    let one = cluster.process_with(config).await;
    let two = cluster.process("two").await;
    cluster.serves(&two, 2).await;
    let id = ids(&one, false).next().unwrap();
    cluster.world.log.partition(TOPIC, home(&id)).fault(Fault::Hang);
    let (first, second) = (one.sending(&id, "a", add(1)), one.sending(&id, "b", add(1)));
    tokio::time::sleep(Duration::from_millis(30)).await;
    let answer = one.send(&id, "c", add(1)).await;
    assert!(matches!(answer, Err(SendError::NotDone(NotDone::Overloaded { .. }))), "{answer:?}");
    cluster.world.log.partition(TOPIC, home(&id)).release();
    first.await.unwrap().unwrap();
    second.await.unwrap().unwrap();
    assert_eq!(cluster.sum(&id).await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_in_any_language_sends_a_command_as_a_record() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    cluster.serves(&one, 4).await;
    let here = home("c1");
    let command = |id: &'static str| {
        [("ce_id", id), ("ce_type", "test.counter.add"), ("ce_replypartition", "2"), ("ce_request", "r-7")]
    };
    let payload = r#"{ "times": 2, "n": 4 }"#;
    cluster.produce(here, "c1", &command("a"), payload);
    eventually("an answer", || !cluster.replies(2).is_empty()).await;
    let reply = cluster.replies(2).remove(0);
    insta::assert_snapshot!(reply, @r#"{"format":1,"aggregate":"c1","command_id":"a","request":"r-7","outcome":{"accepted":{"version":2,"events":2,"at":{"partition":3,"offset":2,"recorded_at":"2023-11-14T22:13:20Z","duplicate":false}}}}"#);
    // The same command from this program, whose payload has its fields in another order, is a repeat.
    assert!(one.send("c1", "a", Do::Add { n: 4, times: 2 }).await.unwrap().duplicate);

    let misrouted = (here + 1) % PARTITIONS;
    cluster.produce(misrouted, "c1", &command("b"), payload);
    cluster.produce(here, "c1", &command("c"), "{}");
    cluster.produce(here, "c1", &[("ce_id", "d"), ("ce_replypartition", "2")], payload);
    cluster.produce(
        here,
        "c1",
        &[command("e").as_slice(), &[("ce_expirestime", "2020-01-01T00:00:00Z")]].concat(),
        payload,
    );
    cluster.produce(
        here,
        "c1",
        &[("ce_id", "f"), ("ce_type", "test.counter.add"), ("ce_replypartition", "99")],
        payload,
    );
    cluster.produce(here, "c1", &[], "rubbish");
    eventually("every answer", || cluster.replies(2).len() == 5 && one.bus.status()[here as usize].rejected == 3).await;
    let mut replies = cluster.replies(2).split_off(1);
    replies.sort();
    insta::assert_snapshot!(replies.join("\n"), @r#"
    {"format":1,"aggregate":"c1","command_id":"b","request":"r-7","outcome":{"misrouted":{"reason":"aggregate c1 lives in partition 3, the command came to partition 0 of test.counter.commands: send it with the partitioner murmur2 (librdkafka: partitioner=murmur2_random)"}}}
    {"format":1,"aggregate":"c1","command_id":"c","request":"r-7","outcome":{"invalid":{"reason":"the payload of type \"add\" does not fit: missing field `n` at line 1 column 2"}}}
    {"format":1,"aggregate":"c1","command_id":"d","outcome":{"invalid":{"reason":"it has no header ce_type"}}}
    {"format":1,"aggregate":"c1","command_id":"e","request":"r-7","outcome":"expired"}
    "#);
    eventually("the one without a way back", || one.bus.status()[here as usize].forwarded == 3).await;
    let status = &one.bus.status();
    assert_eq!((status[misrouted as usize].misrouted, status[here as usize].expired), (1, 1));
    assert_eq!(cluster.sum("c1").await, 16, "a and f");
}

#[tokio::test(start_paused = true)]
async fn a_standby_has_read_what_it_takes_over() {
    let cluster = Cluster::new();
    let one = cluster.process("one").await;
    let config = EngineConfig { node: "two".into(), standby: true, ..cluster.world.config.clone() };
    let two = cluster.process_with(config).await;
    cluster.serves(&two, 2).await;
    let id = ids(&two, false).next().unwrap();
    for number in 0..10 {
        one.send(&id, &format!("a{number}"), add(1)).await.unwrap();
    }
    // Foreign records are counted where they are read: the standby reads them although it is not the owner.
    let foreign = Record { key: "x".into(), value: Some("y".into()), headers: vec![], timestamp_ms: 1 };
    cluster.world.log.partition(TOPIC, home(&id)).append_foreign(foreign);
    eventually("followed", || two.bus.status()[home(&id) as usize].foreign == 1).await;
    assert_eq!(two.bus.status()[home(&id) as usize].state, OwnerState::Elsewhere);
    one.engine.shutdown().await;
    cluster.serves(&two, 4).await;
    assert_eq!(two.send(&id, "b", Do::Take { n: 10 }).await.unwrap().version.get(), 11);
    assert_eq!(two.bus.status()[home(&id) as usize].foreign, 1, "not read again");
}

/// The process of a new release makes its states before it takes anything from those that have theirs.
#[tokio::test(start_paused = true)]
async fn a_release_with_other_states_reads_the_log_before_it_joins() {
    let cluster = Cluster::new();
    let config = EngineConfig { unwritten_max: 1, snapshot_every: 1, ..cluster.world.config.clone() };
    let one = cluster.process_with(EngineConfig { node: "one".into(), ..config.clone() }).await;
    for number in 0..40 {
        one.send(&format!("c{number}"), "1", add(number)).await.unwrap();
    }
    eventually("snapshots", || one.bus.status().iter().all(|status| status.checkpoints > 0)).await;
    let foreign = Record { key: "x".into(), value: Some("y".into()), headers: vec![], timestamp_ms: 1 };
    for partition in 0..PARTITIONS {
        cluster.world.log.partition(TOPIC, partition).append_foreign(foreign.clone());
    }
    let config = EngineConfig { node: "two".into(), ..config };
    let disk = Arc::new(StateFolder::in_memory());
    let shared = || {
        let (log, group) = (Arc::new(cluster.world.log.clone()), Arc::new(cluster.group.clone()));
        Engine::shared(log, group, config.clone()).on_folder(disk.clone())
    };
    let engine = shared();
    let two = engine.start::<super::restart::Newer>().await.unwrap();
    let nothing = two.send(&"c1".to_owned(), Do::Nothing).await;
    assert!(matches!(nothing, Err(SendError::NotDone(NotDone::NotReady { .. }))), "{nothing:?}");
    for _ in 0..10_000 {
        if cluster.owners().contains(&"two".to_owned()) {
            break;
        }
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(two.status().iter().all(|status| status.foreign == 1), "read to the end: {:?}", two.status());
    two.ready().await.unwrap();
    engine.shutdown().await;
    // The next time it has its states.
    let engine = shared();
    let two = engine.start::<super::restart::Newer>().await.unwrap();
    eventually("joined", || cluster.owners().contains(&"two".to_owned())).await;
    two.ready().await.unwrap();
    assert!(two.status().iter().all(|status| status.foreign == 0), "not read again: {:?}", two.status());
}

/// Processes come and go, are expelled and told or not, while commands are sent to all of them.
#[tokio::test(start_paused = true)]
async fn coming_and_going_loses_and_doubles_nothing() {
    let cluster = Cluster::new();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut processes = vec![cluster.process("n0").await];
    let mut expected = std::collections::BTreeMap::<String, u64>::new();
    for step in 0..60 {
        match rng.u32(..10) {
            0..=2 if processes.len() < 4 => processes.push(cluster.process(&format!("n{step}")).await),
            3 if processes.len() > 1 => {
                let leaving = processes.remove(rng.usize(..processes.len()));
                leaving.engine.shutdown().await;
            }
            4 if processes.len() > 1 => {
                let killed = processes.remove(rng.usize(..processes.len()));
                killed.engine.kill().await;
            }
            5 if processes.len() > 1 => {
                let node = cluster.owners().swap_remove(0);
                cluster.group.expel(GROUP, &node);
            }
            6 | 7 => cluster.group.notice(GROUP),
            _ => {}
        }
        let sends = (0..6).map(|number| {
            let id = format!("c{}", rng.u32(..8));
            *expected.entry(id.clone()).or_default() += 1;
            let process = &processes[rng.usize(..processes.len())];
            async move {
                let command = format!("{step}-{number}");
                for _ in 0..500 {
                    match process.send(&id, &command, add(1)).await {
                        Ok(_) => return,
                        Err(error) if error.is_retryable() => tokio::time::sleep(Duration::from_millis(5)).await,
                        Err(error) => panic!("{error}"),
                    }
                }
                panic!("{command} to {id} was never done: {:?}", process.bus.status());
            }
        });
        futures::future::join_all(sends.collect::<Vec<_>>()).await;
    }
    for (id, sum) in expected {
        assert_eq!(cluster.sum(&id).await, sum, "{id}");
    }
}
