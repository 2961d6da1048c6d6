//! Several workers of one projection, as several processes have: one works, the others stand by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use es_projections::{Database, Handle, Worker, WorkerState};

use super::support::*;

const SILENCE: Duration = Duration::from_millis(300);
/// A silence that no test waits for.
const NEVER: Duration = Duration::from_secs(3_600);

/// A worker with connections of its own, as one of another process has.
async fn worker(events: &Events, url: &str, name: &str, silence: Duration) -> Worker {
    events.worker(&connect(url).await).name(name).stand_by(silence)
}

async fn started(events: &Events, url: &str, name: &str, silence: Duration) -> Handle {
    worker(events, url, name, silence).await.start(Balances::default()).await.unwrap()
}

/// The state in words, without the part of a holder's name that is made up.
fn state(worker: &Handle) -> String {
    let state = worker.state().to_string();
    state.split(" (").next().unwrap_or_default().to_owned()
}

async fn fence(database: &Database) -> i64 {
    let sql = format!("SELECT max(fence) AS fence FROM {}", database.table_name("es_checkpoints"));
    database.fetch(&sql, &[]).await.unwrap()[0].get("fence").unwrap()
}

/// Shows: a short program beside a long one does not end the long one's projections.
pub async fn who_stands_by_goes_on_when_the_other_has_stopped(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let long = started(&events, url, "long", NEVER).await;
    for round in 1..=3 {
        let short = started(&events, url, "short", NEVER).await;
        if round == 2 {
            let position = events.add("a", &[1]); // so that one of them notices before the other stops
            short.wait_for(&position, SOON).await.unwrap();
            eventually("it stands by", || matches!(long.state(), WorkerState::StandingBy { .. })).await;
        }
        short.stop().await.unwrap();
        let position = events.add("a", &[10]);
        long.wait_for(&position, SOON).await.unwrap();
        eventually("it works again", || matches!(long.state(), WorkerState::Running)).await;
    }
    assert_eq!(balances(&database).await, "a 31/4");
    long.stop().await.unwrap();
}

/// Shows: both processes read what was written, and neither takes the work from the other while that one works.
pub async fn of_two_that_work_the_second_keeps_the_fence_and_both_wait(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let first = started(&events, url, "first", SILENCE).await;
    caught_up(&first).await;
    let second = started(&events, url, "second", SILENCE).await;
    let fences = fence(&database).await;
    for round in 1..=20 {
        let position = events.add("a", &[1, 1]);
        first.wait_for(&position, SOON).await.unwrap();
        assert_eq!(balances(&database).await, format!("a {0}/{0}", 1 + 2 * round));
        second.wait_for(&position, SOON).await.unwrap();
        caught_up(&first).await;
        if round % 5 == 0 {
            tokio::time::sleep(SILENCE * 2).await; // nothing to do is not silence
        }
    }
    assert_eq!((state(&first), state(&second)), ("standing by: fence taken by second".into(), "running".into()));
    assert_eq!(first.status().await.lag, Some(0));
    assert_eq!(fence(&database).await, fences);
    first.stop().await.unwrap(); // and gives back no fence of another's
    let position = events.add("a", &[1]);
    second.wait_for(&position, SOON).await.unwrap();
    assert!(matches!(second.state(), WorkerState::Running));
}

/// Shows: one that gets nothing done though there is something to do is gone, and says so itself once it is well.
pub async fn who_stands_by_takes_over_from_a_silent_one(url: &str) {
    let mut events = Events::new();
    let first = started(&events, url, "first", SILENCE).await;
    let broken = Arc::new(AtomicBool::new(false));
    let hook = {
        let broken = broken.clone();
        move |_| broken.load(Ordering::Relaxed).then_some(Trouble::Error)
    };
    let second = worker(&events, url, "second", NEVER).await.start(Balances::failing(hook)).await.unwrap();
    let position = events.add("a", &[1]);
    first.wait_for(&position, SOON).await.unwrap();
    assert_eq!(state(&first), "standing by: fence taken by second");
    broken.store(true, Ordering::Relaxed);
    let position = events.add("a", &[10]);
    first.wait_for(&position, SOON).await.unwrap();
    assert!(matches!(first.state(), WorkerState::Running));
    second.wait_for(&position, SOON).await.unwrap();
    assert_eq!(state(&second), "standing by: fence taken by first");
    assert_eq!(balances(&connect(url).await).await, "a 11/2");
}

/// Shows: a transaction that takes long is work, not silence.
pub async fn a_slow_one_keeps_the_fence(url: &str) {
    let mut events = Events::new();
    let first = started(&events, url, "first", SILENCE).await;
    let slow = |_| {
        std::thread::sleep(SILENCE * 8);
        None
    };
    let second = worker(&events, url, "second", SILENCE).await.start(Balances::failing(slow)).await.unwrap();
    let fences = fence(&connect(url).await).await;
    for _ in 0..2 {
        let position = events.add("a", &[1]);
        first.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!((state(&first), state(&second)), ("standing by: fence taken by second".into(), "running".into()));
    assert_eq!(fence(&connect(url).await).await, fences);
}

/// Shows: the begin of a command, which moves nobody's checkpoint, does not make two workers take turns.
pub async fn an_incomplete_command_is_nobodys_silence(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let first = started(&events, url, "first", SILENCE).await;
    let second = started(&events, url, "second", SILENCE).await;
    let position = events.add("a", &[1]);
    first.wait_for(&position, SOON).await.unwrap();
    let mut records = events.records("a", &[10, 20]).into_iter();
    let begin = events.append(partition("a"), records.next().unwrap());
    let before = fence(&database).await;
    let elsewhere = ["b", "c", "d", "e"].into_iter().find(|id| partition(id) != partition("a")).unwrap();
    for _ in 0..5 {
        let position = events.add(elsewhere, &[1]); // so that whoever was shut out notices
        for worker in [&first, &second] {
            worker.wait_for(&position, SOON).await.unwrap();
            caught_up(worker).await; // it has to read the begin for itself, once
        }
        for worker in [&first, &second] {
            worker.wait_for(&begin, SILENCE * 2).await.unwrap_err(); // whoever stands by looks all the while
        }
    }
    let taken = fence(&database).await - before;
    assert!(taken <= 1, "the fence was taken {taken} times");
    let position = events.append(partition("a"), records.next().unwrap());
    for worker in [&first, &second] {
        worker.wait_for(&position, SOON).await.unwrap();
    }
    assert_eq!(balances(&database).await, format!("a 31/3, {elsewhere} 5/5"));
}

/// Shows: nobody stands by for a read model that is not there any more.
pub async fn a_removed_read_model_ends_who_stands_by(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let first = started(&events, url, "first", NEVER).await;
    let second = started(&events, url, "second", NEVER).await;
    let position = events.add("a", &[1]);
    first.wait_for(&position, SOON).await.unwrap();
    database.remove_projection("balances").await.unwrap();
    events.add("a", &[1]);
    for worker in [first, second] {
        let error = tokio::time::timeout(SOON, worker.stopped()).await.expect("it ends").unwrap_err();
        assert!(error.is_fenced(), "{error:?}");
    }
}
