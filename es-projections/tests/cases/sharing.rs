//! Several workers of one projection, as several processes have: each folds in its share of the partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use es_core::log::memory::MemoryLog;
use es_core::{Position, Recorded, StreamId};
use es_projections::{
    Check, Database, Error, Projection, ProjectionError, Resumed, RunningProjection, StandsBy, Tx, Worker, WorkerState,
};
use tokio::sync::Notify;

use super::accounts::{FAILS, everything, model};
use super::silence::{ALL, beats, passed, passing, running};
use super::support::*;

const PARTITIONS: u32 = 8;
const SILENCE: Duration = Duration::from_millis(600);
/// A silence that no test waits for; beats are a second apart.
const NEVER: Duration = Duration::from_secs(3_600);

fn new_events() -> Events {
    Events::with_partitions("account", MemoryLog::new(PARTITIONS), PARTITIONS)
}

/// A worker with connections of its own, as one of another process has.
async fn worker(events: &Events, url: &str, name: &str, silence: Duration) -> Worker {
    events.worker(&connect(url).await).name(name).share(silence)
}

async fn started(events: &Events, url: &str, name: &str, silence: Duration) -> RunningProjection {
    worker(events, url, name, silence).await.start(Balances::default()).await.unwrap()
}

fn held(worker: &RunningProjection) -> usize {
    worker.progress().iter().filter(|at| at.held).count()
}

fn holds(worker: &RunningProjection, position: &Position) -> bool {
    worker.progress()[position.partition as usize].held
}

async fn shares(workers: &[&RunningProjection], wanted: &[usize]) {
    let found = || workers.iter().map(|worker| held(worker)).collect::<Vec<_>>();
    eventually(&format!("they hold {wanted:?} partitions"), || found() == wanted).await;
}

async fn fences(database: &Database) -> i64 {
    let sql = format!("SELECT sum(fence) AS fence FROM {}", database.table_name("es_checkpoints"));
    database.fetch(&sql, &[]).await.unwrap()[0].get("fence").unwrap()
}

/// What the accounts of a test must hold: one with each partition among them, and each one's balance and events.
#[derive(Default)]
struct Expected {
    accounts: BTreeMap<String, (i64, i64)>,
    number: i64,
}

impl Expected {
    /// Adds a command to the next of some accounts.
    fn add(&mut self, events: &mut Events) -> Position {
        self.number += 1;
        let id = format!("a{:02}", self.number % 32);
        let amounts: Vec<_> = (0..=self.number % 3).map(|more| self.number + more).collect();
        let (balance, count) = self.accounts.entry(id.clone()).or_default();
        *balance += amounts.iter().sum::<i64>();
        *count += amounts.len() as i64;
        events.add(&id, &amounts)
    }

    /// As [`balances`] shows them.
    fn shown(&self) -> String {
        let show = |(id, (balance, count)): (&String, &(i64, i64))| format!("{id} {balance}/{count}");
        self.accounts.iter().map(show).collect::<Vec<_>>().join(", ")
    }
}

/// Shows: each holds as many as the next one or one more, and no event is lost or doubled while that changes.
pub async fn partitions_are_split_evenly_while_workers_join_and_leave(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let stop = Arc::new(AtomicBool::new(false));
    let first = started(&events, url, "first", NEVER).await;
    assert_eq!(held(&first), 8, "who is alone holds all at once");
    let (log, source) = (events.log.clone(), events.source.clone());
    let load = tokio::spawn({
        let stop = stop.clone();
        async move {
            while !stop.load(Ordering::Relaxed) {
                expected.add(&mut events);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (events, expected)
        }
    });
    let start = async |name: &str| {
        let worker = Worker::new(connect(url).await, Arc::new(log.clone()), vec![source.clone()]);
        worker.name(name).share(NEVER).batch_max(5).start(Balances::default()).await.unwrap()
    };
    let second = start("second").await;
    shares(&[&first, &second], &[4, 4]).await;
    let third = start("third").await;
    shares(&[&first, &second, &third], &[3, 3, 2]).await;
    first.stop().await.unwrap();
    shares(&[&second, &third], &[4, 4]).await;
    second.stop().await.unwrap();
    shares(&[&third], &[8]).await;
    stop.store(true, Ordering::Relaxed);
    let (_, expected) = load.await.unwrap();
    caught_up(&third).await;
    assert_eq!(balances(&database).await, expected.shown());
    let folded: u64 = third.progress().iter().map(|at| at.events).sum();
    assert_eq!(folded as i64, expected.accounts.values().map(|(_, events)| events).sum::<i64>());
    third.stop().await.unwrap();
    assert_eq!(count(&database, "es_workers").await, 0, "who stops leaves nothing behind");
}

/// Shows: a short program beside a long one does not end the long one's projections.
pub async fn a_worker_that_starts_and_stops_beside_another_ends_nothing(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let long = started(&events, url, "long", NEVER).await;
    for _ in 0..3 {
        let short = started(&events, url, "short", NEVER).await;
        let last = (0..32).map(|_| expected.add(&mut events)).last().unwrap();
        short.wait_for(&last, SOON).await.unwrap();
        caught_up(&short).await;
        assert_eq!(balances(&database).await, expected.shown());
        short.stop().await.unwrap();
        let last = expected.add(&mut events);
        long.wait_for(&last, SOON).await.unwrap();
        caught_up(&long).await;
    }
    shares(&[&long], &[8]).await;
    assert!(matches!(long.state(), WorkerState::Running));
}

/// Shows: whoever folded an event in, each reads what was written, soon; and nothing moves from one to the other.
pub async fn every_handle_waits_for_every_partition(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let first = started(&events, url, "first", NEVER).await;
    let second = started(&events, url, "second", NEVER).await;
    shares(&[&first, &second], &[4, 4]).await;
    let fences_before = fences(&database).await;
    let (mut elsewhere, mut between_beats) = (0, 0);
    for _ in 0..40 {
        let position = expected.add(&mut events);
        for worker in [&first, &second] {
            let before = beats(&database, ALL).await;
            worker.wait_for(&position, SOON).await.unwrap();
            assert_eq!(balances(&database).await, expected.shown());
            elsewhere += usize::from(!holds(worker, &position));
            between_beats += usize::from(!holds(worker, &position) && beats(&database, ALL).await == before);
        }
    }
    assert_eq!(elsewhere, 40, "each event is one's alone");
    // Told at a beat alone, hardly one would be; on a machine so slow that each takes a beat's time, still some are.
    assert!(between_beats > 4, "who waits is told soon, not at the next beat: {between_beats} of 40");
    for worker in [&first, &second] {
        caught_up(worker).await;
        assert_eq!(worker.status().await.lag.unwrap().records(), 0);
        assert!(matches!(worker.state(), WorkerState::Running));
    }
    assert_eq!(first.progress().iter().map(|at| at.next).sum::<u64>(), {
        second.progress().iter().map(|at| at.next).sum::<u64>()
    });
    assert_eq!(fences(&database).await, fences_before);
}

/// Shows: one whose database is away is gone for the others, keeps away for longer the longer that lasts, and has its share
/// again once it is well.
pub async fn who_gets_nothing_done_loses_its_partitions(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let broken = Arc::new(AtomicBool::new(false));
    let hook = {
        let broken = broken.clone();
        move |_| broken.load(Ordering::Relaxed).then_some(Trouble::Away)
    };
    let first = started(&events, url, "first", SILENCE).await;
    let second = worker(&events, url, "second", SILENCE).await.start(Balances::failing(hook)).await.unwrap();
    shares(&[&first, &second], &[4, 4]).await;
    broken.store(true, Ordering::Relaxed);
    let time = passing(&events, url, SILENCE, "worker LIKE 'first %'").await;
    for _ in 0..32 {
        let position = expected.add(&mut events);
        first.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, expected.shown());
    broken.store(false, Ordering::Relaxed);
    shares(&[&first, &second], &[4, 4]).await;
    drop(time);
    for _ in 0..32 {
        let position = expected.add(&mut events);
        second.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, expected.shown());
}

/// Balances that fail on one account.
struct Picky(Balances);

#[async_trait]
impl Projection for Picky {
    crate::passes_on_to!(0);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        if events.iter().any(|event| event.envelope.stream.id.as_str() == "bad") {
            return Err("made to fail".into());
        }
        self.0.project(tx, events).await
    }
}

/// Shows: an event is parked by who holds it, and not handed round, though the attempts before take longer than the silence
/// after which others take over.
pub async fn an_event_that_fails_for_long_is_parked(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let mut workers = Vec::new();
    for name in ["first", "second"] {
        let worker = worker(&events, url, name, SILENCE).await.park_after(6); // 3 s with the pauses
        workers.push(worker.start(Picky(Balances::default())).await.unwrap());
    }
    shares(&[&workers[0], &workers[1]], &[4, 4]).await;
    let before = fences(&database).await;
    let _time = passing(&events, url, SILENCE, ALL).await;
    let bad = events.add("bad", &[1]);
    let last = (0..32).map(|_| expected.add(&mut events)).last().unwrap();
    for worker in &workers {
        let parked = worker.wait_for(&bad, SOON).await.unwrap_err();
        assert!(matches!(&parked, Error::Parked { reason, .. } if reason == "made to fail"), "{parked:?}");
        worker.wait_for(&last, SOON).await.unwrap();
        caught_up(worker).await;
    }
    assert_eq!(fences(&database).await, before, "nobody took anything");
    assert_eq!(balances(&database).await, expected.shown());
}

/// Shows: partitions of one that is gone are taken, save those whose rows a transaction holds, until it ends.
pub async fn what_a_dead_machine_has_locked_keeps_nobody_from_the_rest(url: &str) {
    if !url.starts_with("postgres") {
        return; // a transaction locks all or nothing on SQLite
    }
    let (database, mut events) = (connect(url).await, new_events());
    started(&events, url, "first", SILENCE).await.stop().await.unwrap();
    let mut machine = database.begin().await.unwrap();
    let table = machine.table_name("es_checkpoints");
    machine.execute(&format!("UPDATE {table} SET holder = 'dead'"), &[]).await.unwrap();
    machine.commit().await.unwrap();
    let mut machine = database.begin().await.unwrap();
    machine.execute(&format!("UPDATE {table} SET holder = 'dead' WHERE topic_partition = 3"), &[]).await.unwrap();
    let second = started(&events, url, "second", SILENCE).await;
    eventually("the rest is taken", || held(&second) == 7).await;
    assert!(!second.progress()[3].held);
    machine.rollback().await.unwrap();
    eventually("all are taken", || held(&second) == 8).await;
    let last = events.add("a", &[1]);
    second.wait_for(&last, SOON).await.unwrap();
}

/// Balances, whose worker's whole thread stands still in a batch.
struct Freezing {
    balances: Balances,
    frozen: Arc<AtomicBool>,
    is_postgres: bool,
}

#[async_trait]
impl Projection for Freezing {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        if !self.frozen.load(Ordering::Relaxed) {
            return self.balances.project(tx, events).await;
        }
        self.balances.project(tx, events).await?;
        // While it is frozen, the database gives its transaction up. PostgreSQL does so by itself, after half a minute;
        // SQLite when the process ends.
        if self.is_postgres {
            tx.execute("SET LOCAL idle_in_transaction_session_timeout = '300ms'", &[]).await?;
        } else {
            tx.execute("ROLLBACK", &[]).await?;
        }
        while self.frozen.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if self.is_postgres {
            return Ok(()); // and commits
        }
        tx.execute("BEGIN", &[]).await?; // for the rollback
        Err("the database gave the transaction up".into())
    }
}

/// Starts a worker in a runtime of its own, as a process is one; ends with the runtime.
fn in_a_runtime(
    events: &Events,
    url: &str,
    name: &str,
    batch_max: usize,
    silence: Duration,
    projection: impl Projection,
) -> (tokio::runtime::Runtime, RunningProjection) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (log, source) = (Arc::new(events.log.clone()), events.source.clone());
    let (url, name, clock) = (url.to_owned(), name.to_owned(), events.clock.clone());
    let (sender, receiver) = std::sync::mpsc::channel();
    runtime.spawn(async move {
        let worker = Worker::new(connect(&url).await, log, vec![source]).name(&name).share(silence).clock(clock);
        sender.send(worker.batch_max(batch_max).start(projection).await).unwrap();
    });
    let started = tokio::task::block_in_place(|| receiver.recv().unwrap());
    (runtime, started.unwrap())
}

/// Shows: a process that stands still past the silence, in the midst of a batch, changes nothing when it goes on; the other one finishes.
pub async fn who_is_frozen_in_a_batch_loses_its_partitions_and_changes_nothing(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let frozen = Arc::new(AtomicBool::new(false));
    let (balances_of, is_postgres) = (Balances::default(), url.starts_with("postgres"));
    let batches = balances_of.batches.clone();
    let first = started(&events, url, "first", SILENCE).await;
    let freezing = Freezing { balances: balances_of, frozen: frozen.clone(), is_postgres };
    let (runtime, second) = in_a_runtime(&events, url, "second", 1_000, SILENCE, freezing);
    shares(&[&first, &second], &[4, 4]).await;
    let before = batches.lock().unwrap().len();
    frozen.store(true, Ordering::Relaxed);
    let last = (0..64).map(|_| expected.add(&mut events)).last().unwrap();
    eventually("it is in a batch", || batches.lock().unwrap().len() > before).await;
    let time = passing(&events, url, SILENCE, "worker LIKE 'first %'").await;
    first.wait_for(&last, SOON).await.unwrap();
    caught_up(&first).await;
    assert_eq!(held(&first), 8);
    assert_eq!(balances(&database).await, expected.shown());
    assert_eq!(count(&database, "es_workers").await, 1, "its row is deleted");
    assert_eq!(held(&second), 4, "it does not know yet");
    drop(time);
    frozen.store(false, Ordering::Relaxed);
    shares(&[&first, &second], &[4, 4]).await;
    assert_eq!(balances(&database).await, expected.shown());
    for _ in 0..32 {
        let position = expected.add(&mut events);
        second.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, expected.shown());
    second.stop().await.unwrap();
    runtime.shutdown_background();
}

/// Shows: a transaction that takes long is work, not silence.
pub async fn a_slow_one_keeps_its_partitions(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let (begun, goes_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = Slow { balances: Balances::default(), begun: begun.clone(), goes_on: goes_on.clone() };
    let first = started(&events, url, "first", SILENCE).await;
    let second = worker(&events, url, "second", SILENCE).await.start(slow).await.unwrap();
    shares(&[&first, &second], &[4, 4]).await;
    let fences_before = fences(&database).await;
    let of_second = loop {
        let position = expected.add(&mut events);
        if holds(&second, &position) {
            break position;
        }
    };
    begun.notified().await;
    if url.starts_with("postgres") {
        passed(&events, url, SILENCE * 3, SILENCE, ALL).await;
    } else {
        events.clock.advance(10 * SILENCE.as_millis() as i64); // its transaction keeps everybody from raising a beat
    }
    goes_on.notify_one();
    first.wait_for(&of_second, SOON).await.unwrap();
    assert_eq!(fences(&database).await, fences_before);
    assert_eq!((held(&first), held(&second)), (4, 4));
    caught_up(&first).await;
    assert_eq!(balances(&database).await, expected.shown());
}

/// Balances that take as long as they are told to.
struct Slow {
    balances: Balances,
    begun: Arc<Notify>,
    goes_on: Arc<Notify>,
}

#[async_trait]
impl Projection for Slow {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.begun.notify_one();
        self.goes_on.notified().await;
        self.goes_on.notify_one(); // once is enough
        self.balances.project(tx, events).await
    }
}

/// Shows: after `kill -9` a process goes on at once, where it comes back under its name; others wait for the silence.
pub async fn who_comes_back_under_its_name_need_not_wait(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let (runtime, killed) = in_a_runtime(&events, url, "one", 1_000, NEVER, Balances::default());
    let last = expected.add(&mut events);
    killed.wait_for(&last, SOON).await.unwrap();
    runtime.shutdown_background();
    let another = started(&events, url, "another", NEVER).await;
    assert_eq!(held(&another), 0);
    assert!(
        matches!(another.state(), WorkerState::StandingBy { why: StandsBy::Others { .. }, .. }),
        "{}",
        another.state()
    );
    let again = started(&events, url, "one", NEVER).await;
    assert_eq!(held(&again), 4);
    shares(&[&another, &again], &[4, 4]).await;
    for _ in 0..32 {
        let position = expected.add(&mut events);
        another.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, expected.shown());
}

/// Shows: one that takes all partitions by force gets them, and those that share have them again after its end.
pub async fn who_does_not_share_has_all_until_it_stops(url: &str) {
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let first = started(&events, url, "first", SILENCE).await;
    let second = started(&events, url, "second", SILENCE).await;
    shares(&[&first, &second], &[4, 4]).await;
    let all = events.worker(&connect(url).await).name("all").start(Balances::default()).await.unwrap();
    assert_eq!(held(&all), 8);
    shares(&[&first, &second], &[0, 0]).await;
    let standing_by = || first.state().to_string().starts_with("standing by: its partitions are held by all (");
    eventually("it says so", standing_by).await;
    passed(&events, url, SILENCE * 3 / 2, SILENCE, ALL).await; // nothing to do is not silence
    for _ in 0..32 {
        let position = expected.add(&mut events);
        first.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(held(&all), 8);
    assert!(matches!(all.state(), WorkerState::Running), "{}", all.state());
    all.stop().await.unwrap();
    shares(&[&first, &second], &[4, 4]).await;
    let position = expected.add(&mut events);
    second.wait_for(&position, SOON).await.unwrap();
    caught_up(&first).await;
    assert_eq!(balances(&database).await, expected.shown());
}

/// Shows: a worker for which nothing is left says why, waits and shows what the others do, and goes on when one of them ends.
pub async fn more_workers_than_partitions_is_said(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(2), 2);
    let start = async |name: &str| started(&events, url, name, NEVER).await;
    let workers = [start("a").await, start("b").await, start("c").await];
    let [a, b, c] = &workers;
    shares(&[a, b, c], &[1, 1, 0]).await;
    let spare =
        || matches!(c.state(), WorkerState::StandingBy { why: StandsBy::Spare { workers: 3, partitions: 2 }, .. });
    eventually("it says so", spare).await;
    assert_eq!(c.state().to_string(), "standing by: there are more workers (3) than partitions (2)");
    let position = events.add("x", &[1]);
    c.wait_for(&position, SOON).await.unwrap();
    a.stop().await.unwrap();
    shares(&[b, c], &[1, 1]).await;
    assert!(matches!(c.state(), WorkerState::Running));
    let position = events.add("x", &[1]);
    c.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "x 2/2");
}

/// Shows: the begin of a command, which moves nobody's checkpoint, moves no partition from one to another.
pub async fn an_incomplete_command_is_nobodys_silence(url: &str) {
    let (database, mut events) = (connect(url).await, new_events());
    let first = started(&events, url, "first", SILENCE).await;
    let second = started(&events, url, "second", SILENCE).await;
    shares(&[&first, &second], &[4, 4]).await;
    let before = fences(&database).await;
    let mut records = events.records("a", &[10, 20]).into_iter();
    let begin = events.append(events.home("a"), records.next().unwrap());
    passed(&events, url, SILENCE * 3, SILENCE, ALL).await;
    for worker in [&first, &second] {
        worker.wait_for(&begin, Duration::ZERO).await.unwrap_err();
    }
    assert_eq!(fences(&database).await, before);
    let position = events.append(events.home("a"), records.next().unwrap());
    for worker in [&first, &second] {
        worker.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, "a 30/2");
}

/// Shows: a program that only looks takes nothing from those that serve, and folds in what is missing where there is nobody else.
pub async fn who_stands_in_takes_nothing_from_others(url: &str) {
    let (mut events, mut expected) = (new_events(), Expected::default());
    let database = connect(url).await;
    let serves = started(&events, url, "serves", NEVER).await;
    let before = fences(&database).await;
    let looks = worker(&events, url, "looks", NEVER).await.stand_in();
    let looking = looks.start(Balances::default()).await.unwrap();
    (0..16).for_each(|_| drop(expected.add(&mut events)));
    let last = expected.add(&mut events);
    looking.wait_for(&last, SOON).await.unwrap();
    caught_up(&looking).await;
    assert_eq!((held(&serves), held(&looking), fences(&database).await), (8, 0, before));
    assert!(
        matches!(looking.state(), WorkerState::StandingBy { why: StandsBy::Others { .. }, .. }),
        "{:?}",
        looking.state()
    );
    looking.stop().await.unwrap();
    serves.stop().await.unwrap();
    let looks = worker(&events, url, "looks again", NEVER).await.stand_in();
    let last = expected.add(&mut events);
    let looking = looks.start(Balances::default()).await.unwrap();
    looking.wait_for(&last, SOON).await.unwrap();
    assert_eq!(balances(&database).await, expected.shown());
    let serves = started(&events, url, "serves", NEVER).await;
    shares(&[&serves, &looking], &[8, 0]).await;
}

/// Shows: nobody waits for a read model that is not there any more.
pub async fn a_removed_read_model_ends_who_shares(url: &str) {
    let (database, mut events) = (connect(url).await, new_events());
    let first = started(&events, url, "first", NEVER).await;
    let second = started(&events, url, "second", NEVER).await;
    shares(&[&first, &second], &[4, 4]).await;
    let position = events.add("a", &[1]);
    first.wait_for(&position, SOON).await.unwrap();
    database.remove_projection("balances").await.unwrap();
    for worker in [first, second] {
        let error = tokio::time::timeout(SOON, worker.stopped()).await.expect("it ends").unwrap_err();
        assert!(error.is_fenced(), "{error:?}");
    }
}

/// Shows: a rebuild is compared with what two workers keep up, replaces it, and both go on with it.
pub async fn a_rebuild_takes_the_place_of_what_two_share(url: &str) {
    let (database, mut events) = (connect(url).await, new_events());
    for number in 0..200 {
        events.move_money(&format!("a{}", number % 40), 1 + number % 9);
    }
    let first = worker(&events, url, "first", SILENCE).await.start(model()).await.unwrap();
    let second = worker(&events, url, "second", SILENCE).await.start(model()).await.unwrap();
    shares(&[&first, &second], &[4, 4]).await;
    let rebuilder = events.worker(&connect(url).await).batch_max(20);
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn({
        let stop = stop.clone();
        async move {
            for number in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                events.move_money(&format!("a{}", number % 40), 1 + number % 9);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            events
        }
    });
    for _ in 0..2 {
        rebuilder.rebuild(model(), Check::Equal, |_| {}).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        shares(&[&first, &second], &[4, 4]).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut events = load.await.unwrap();
    for worker in [&first, &second] {
        let position = events.move_money("late", 1);
        worker.wait_for(&position, SOON).await.unwrap();
        caught_up(worker).await;
    }
    let kept = everything(&database).await;
    first.stop().await.unwrap();
    second.stop().await.unwrap();
    assert_eq!(count(&database, "es_workers").await, 0);
    database.remove_projection("accounts").await.unwrap();
    let anew = events.worker(&database).start(model()).await.unwrap();
    caught_up(&anew).await;
    assert_eq!(everything(&database).await, kept);
}

/// Shows: an operator's wish reaches the worker that holds the aggregate's partition, whichever that is by then.
pub async fn who_holds_the_partition_sees_to_a_wish(url: &str) {
    let (database, mut events) = (connect(url).await, new_events());
    let start = async |name: &str| worker(&events, url, name, NEVER).await.park_after(0).start(model()).await.unwrap();
    let (first, second) = (start("first").await, start("second").await);
    shares(&[&first, &second], &[4, 4]).await;
    // Who folds nothing of the partition in, and has nothing parked itself, knows all the same.
    let alone = events.move_money("alone", FAILS as i64);
    for worker in [&first, &second] {
        let error = worker.wait_for(&alone, SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "account-alone is parked in read model accounts: thirteen");
    }
    let stream = |id: &str| StreamId { category: "account".into(), id: key(id) };
    let skip = async |id: &str| {
        let first = seen(&database, "accounts", id).await;
        database.skip_parked("accounts", &stream(id), first, "ada", "an error", SOON).await.unwrap()
    };
    assert_eq!(skip("alone").await, Resumed::Done);
    let ids: Vec<_> = (0..16).map(|number| format!("a{number}")).collect();
    let mut last = Vec::new();
    for amount in [5, FAILS as i64, 2, FAILS as i64, 3] {
        last = ids.iter().map(|id| events.move_money(id, amount)).collect();
    }
    for worker in [&first, &second] {
        caught_up(worker).await;
        let error = worker.wait_for(&last[0], SOON).await.unwrap_err();
        assert_eq!(error.to_string(), "account-a0 is parked in read model accounts: thirteen");
    }
    assert_eq!(database.parked("accounts", 100).await.unwrap().len(), 16);
    for worker in [&first, &second] {
        let deadline = tokio::time::Instant::now() + SOON;
        while worker.status().await.parked != 16 {
            assert!(tokio::time::Instant::now() < deadline, "{}", worker.status().await.parked);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for id in &ids {
        assert!(matches!(skip(id).await, Resumed::Parked(_)), "{id}");
    }
    // Who loses all to one that does not share, or a part of it, in the midst of looking for wishes, goes on.
    let all = events.worker(&connect(url).await).park_after(0).start(model()).await.unwrap();
    shares(&[&first, &second, &all], &[0, 0, 8]).await;
    all.stop().await.unwrap();
    shares(&[&first, &second], &[4, 4]).await;
    // What one held, the other sees to.
    first.stop().await.unwrap();
    for id in &ids {
        assert_eq!(skip(id).await, Resumed::Done, "{id}");
    }
    let rows = super::accounts::shown(&database).await;
    assert_eq!(rows.matches(" 10/3").count(), 16, "{rows}");
    assert_eq!(count(&database, "es_waiting").await, 0);
}

/// Shows: of rows that several workers change at once each change counts, and they are what one worker alone makes of the log.
pub async fn rows_of_several_partitions_lose_no_update(url: &str) {
    let (database, mut events) = (connect(url).await, new_events());
    let start = async |name: &str| {
        worker(&events, url, name, NEVER).await.batch_max(3).park_after(1).start(model()).await.unwrap()
    };
    let workers = [start("a").await, start("b").await, start("c").await];
    shares(&workers.each_ref(), &[3, 3, 2]).await;
    let mut sum = 0;
    for number in 0..1_500_i64 {
        let amount = 1 + number % 9;
        sum += amount;
        // Three banks, on few days that come one after the other: rows that all add and change.
        events.move_money_on(&format!("a{}", number % 60), amount, number / 100);
        if number % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    for worker in &workers {
        caught_up(worker).await;
    }
    assert_eq!(database.parked("accounts", 10).await.unwrap(), []);
    let sql = format!("SELECT CAST(sum(change) AS BIGINT) AS n FROM {}", database.table_name("banks"));
    assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), sum);
    let shared = everything(&database).await;
    for worker in &workers {
        worker.stop().await.unwrap();
    }
    database.remove_projection("accounts").await.unwrap();
    let alone = events.worker(&database).start(model()).await.unwrap();
    caught_up(&alone).await;
    assert_eq!(everything(&database).await, shared);
}

/// Shows: whenever workers join, leave or are killed, rows are those of each event once.
pub async fn whoever_joins_leaves_or_dies_no_event_is_lost_or_doubled(url: &str) {
    let seed = std::env::var("ES_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}: set ES_SEED to run it again");
    let mut rng = fastrand::Rng::with_seed(seed);
    let (database, mut events, mut expected) = (connect(url).await, new_events(), Expected::default());
    let mut workers = Vec::new();
    let until = tokio::time::Instant::now() + Duration::from_secs(12);
    let _time = running(&events);
    let mut started = 0;
    while tokio::time::Instant::now() < until {
        for _ in 0..rng.usize(1..60) {
            expected.add(&mut events);
        }
        match rng.u32(0..4) {
            0 | 1 if workers.len() < 4 => {
                started += 1;
                let (name, batch_max) = (format!("worker {started}"), rng.usize(1..40));
                workers.push(in_a_runtime(&events, url, &name, batch_max, SILENCE, Balances::default()));
            }
            2 if !workers.is_empty() => {
                let (runtime, worker) = workers.swap_remove(rng.usize(..workers.len()));
                worker.stop().await.unwrap();
                runtime.shutdown_background();
            }
            3 if !workers.is_empty() => {
                let (runtime, _) = workers.swap_remove(rng.usize(..workers.len()));
                runtime.shutdown_background(); // as kill -9 does
            }
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(rng.u64(0..400))).await;
    }
    let (runtime, last) = in_a_runtime(&events, url, "last", 100, SILENCE, Balances::default());
    caught_up(&last).await;
    assert_eq!(balances(&database).await, expected.shown());
    println!("{started} workers, {} commands", expected.number);
    workers.push((runtime, last));
    for (runtime, worker) in workers {
        worker.stop().await.unwrap();
        runtime.shutdown_background();
    }
}
