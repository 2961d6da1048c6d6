//! A read model is compared with the log, which is replayed beside it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use es_core::{Recorded, StreamId};
use es_projections::audit::AuditTrail;
use es_projections::{
    Check, Database, Error, Projection, ProjectionError, RebuildProgress, Resumed, RowDiffers, RunningProjection, Tx,
    Verdict, Verified, Worker, WorkerState,
};

use super::accounts::model;
use super::builds::meanwhile;
use super::silence::{ALL, passed, passing};
use super::support::*;

const SILENCE: Duration = Duration::from_secs(1);

fn quiet(_: RebuildProgress) {}

async fn verify(worker: &Worker, projection: impl Projection) -> Verified {
    worker.verify(projection, quiet).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}

/// That it is equal, or the first differences.
#[track_caller]
fn assert_equal(verified: &Verified) {
    let told: Vec<_> = verified.differences().map(ToString::to_string).collect();
    assert_eq!(verified.verdict(), Verdict::Equal, "{told:?} {:?}", verified.not_replayed);
}

fn digests(verified: &Verified) -> Vec<String> {
    verified.tables.iter().map(|table| table.digest.to_string()).collect()
}

fn write_some(events: &mut Events, count: i64) {
    for number in 0..count {
        events.move_money(&format!("a{}", number % 40), 1 + number % 9);
    }
}

/// How many builds of the read model there are.
async fn builds(database: &Database) -> i64 {
    count(database, "es_builds").await
}

async fn change(database: &Database, sql: &str) {
    let mut tx = database.begin().await.unwrap();
    let changed = tx.execute(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {}", chain(&error)));
    assert_eq!(changed, 1, "{sql}");
    tx.commit().await.unwrap();
}

/// Shows: what was folded in is equal, row by row, however often and in whatever batches it is replayed; what was compared is told, and
/// nothing is left behind.
pub async fn what_is_untouched_is_equal(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    write_some(&mut events, 200);
    let live = events.worker(&database).share(SILENCE).start(model()).await.unwrap();
    caught_up(&live).await;
    let mut digests_seen = BTreeSet::new();
    for batch_max in [1, 7, 2_000] {
        let verified = verify(&events.worker(&database).batch_max(batch_max), model()).await;
        assert_equal(&verified);
        let rows: Vec<_> = verified.tables.iter().map(|table| (table.name.as_str(), table.rows)).collect();
        assert_eq!(rows, [("accounts", 40), ("banks", 3)]);
        assert!(verified.tables.iter().all(|table| {
            table.replayed_rows == table.rows
                && table.replayed_digest == table.digest
                && table.digest.to_string().len() == 64
        }));
        let at: Vec<_> = verified.at.iter().map(|at| (at.partition, at.next)).collect();
        let stands: Vec<_> = live.progress().iter().map(|at| (at.partition, at.next)).collect();
        assert_eq!((at, verified.behind()), (stands, 0));
        digests_seen.insert(digests(&verified));
    }
    assert_eq!(digests_seen.len(), 1);
    assert_eq!(builds(&database).await, 1);
    for table in ["es_checkpoints", "es_workers", "es_parked", "es_waiting", "es_skipped"] {
        let sql = format!("SELECT count(*) AS n FROM {} WHERE build <> 1", database.table_name(table));
        assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 0, "{table}");
    }
    assert!(database.fetch("SELECT * FROM bank_accounts_b2", &[]).await.is_err(), "its table is gone");
    // What is in the log and not in the read model is told.
    live.stop().await.unwrap();
    write_some(&mut events, 10);
    let verified = verify(&events.worker(&database), model()).await;
    assert_equal(&verified);
    assert_eq!(verified.behind(), 10);
}

/// Shows: a change by hand of any column of any table is found, and told with key, column and both values.
pub async fn what_was_changed_by_hand_is_found(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    write_some(&mut events, 200);
    let live = events.worker(&database).start(model()).await.unwrap();
    caught_up(&live).await;
    let worker = events.worker(&database);
    let mut columns = Vec::new();
    for table in model().tables() {
        let keys = table.key_columns().len();
        let rest = table.columns()[keys..].iter().map(|column| (table.name().to_owned(), column.clone()));
        columns.extend(rest);
    }
    assert_eq!(columns.len(), 12);
    for (table, column) in columns {
        let (name, column, kind) = (database.table_name(&table), column.name, column.kind);
        let one = format!("SELECT min({column}) AS value FROM {name}");
        // Of uuids there is no least one.
        let one = if column == "es_event_id" { format!("SELECT {column} AS value FROM {name}") } else { one };
        let value = database.fetch(&one, &[]).await.unwrap()[0].values()[0].clone();
        let wrong = match kind {
            es_projections::Kind::Integer => format!("{column} - 1"),
            es_projections::Kind::Text => format!("{column} || 'x'"),
            es_projections::Kind::Time => "'2001-01-31T12:00:00.000000Z'".into(),
            es_projections::Kind::Uuid => "'00000000-0000-7000-8000-000000000001'".into(),
            other => panic!("{other:?}"),
        };
        let key = if table == "accounts" { "id" } else { "bank" };
        let first = format!("(SELECT min({key}) FROM {name})");
        change(&database, &format!("UPDATE {name} SET {column} = {wrong} WHERE {key} = {first}")).await;
        let verified = verify(&worker, model()).await;
        let told: Vec<_> = verified.differences().collect();
        assert_eq!((verified.verdict(), told.len()), (Verdict::Differs, 1), "{table}.{column}: {told:?}");
        assert_eq!((told[0].table.as_str(), told[0].row), (table.as_str(), RowDiffers::Changed));
        let names: Vec<_> = told[0].columns.iter().map(|differs| differs.column.as_str()).collect();
        assert_eq!(names, [column.as_str()]);
        let (is, was) = (told[0].columns[0].live.clone().unwrap(), told[0].columns[0].replayed.clone().unwrap());
        assert_ne!(is, was, "{value}");
        let differing: Vec<_> = verified.tables.iter().filter(|table| table.digest != table.replayed_digest).collect();
        assert_eq!(differing.iter().map(|table| table.name.as_str()).collect::<Vec<_>>(), [table.as_str()]);
        let back = match kind {
            es_projections::Kind::Integer => was,
            _ => format!("'{was}'"),
        };
        change(&database, &format!("UPDATE {name} SET {column} = {back} WHERE {key} = {first}")).await;
    }
    assert_equal(&verify(&worker, model()).await);
    let accounts = database.table_name("accounts");
    change(&database, &format!("UPDATE {accounts} SET balance = 6 WHERE id = 'a7'")).await;
    change(&database, &format!("DELETE FROM {accounts} WHERE id = 'a8'")).await;
    let columns = "balance, events, bank, es_event_id, es_version, es_recorded_at, es_position";
    let copied =
        format!("INSERT INTO {accounts} (id, {columns}) SELECT 'zz', {columns} FROM {accounts} WHERE id = 'a9'");
    change(&database, &copied).await;
    let verified = verify(&worker, model()).await;
    let told: Vec<_> = verified.differences().map(ToString::to_string).collect();
    let expected = [
        "accounts a7: balance is 6, replayed 26",
        "accounts a8 is missing, replayed it is there",
        "accounts zz is there, replayed it is not",
    ];
    assert_eq!(told, expected);
    let (missing, added) = (&verified.tables[0].differences[1], &verified.tables[0].differences[2]);
    assert_eq!((missing.row, missing.columns.len()), (RowDiffers::Missing, 7));
    assert_eq!((added.row, added.columns[0].replayed.clone()), (RowDiffers::Added, None));
    assert_eq!(verified.tables[0].rows, 40);
    // Whoever kept it up goes on, though it had taken no share.
    let position = events.move_money("late", 1);
    live.wait_for(&position, SOON).await.unwrap();
}

/// Shows: rows behind many that are equal are found, too, and not more than a few of many are told.
pub async fn few_of_many_differences_are_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for number in 0..2_500 {
        events.add(&format!("a{number:04}"), &[1]);
    }
    let live = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let worker = events.worker(&database);
    let name = database.table_name("balances");
    change(&database, &format!("UPDATE {name} SET balance = 2 WHERE account = 'a2345'")).await;
    let verified = verify(&worker, Balances::default()).await;
    let told: Vec<_> = verified.differences().map(ToString::to_string).collect();
    assert_eq!(told, ["balances a2345: balance is 2, replayed 1"]);
    let mut tx = database.begin().await.unwrap();
    tx.execute(&format!("UPDATE {name} SET balance = 3 WHERE account > 'a1'"), &[]).await.unwrap();
    tx.execute(&format!("DELETE FROM {name} WHERE account < 'a1'"), &[]).await.unwrap();
    tx.commit().await.unwrap();
    let verified = verify(&worker, Balances::default()).await;
    let table = &verified.tables[0];
    assert_eq!((table.rows, table.replayed_rows, table.differences.len()), (1_500, 2_500, 5));
    assert_eq!(table.differences[0].to_string(), "balances a0000 is missing, replayed it is there");
}

fn load(mut events: Events, stop: Arc<AtomicBool>) -> tokio::task::JoinHandle<Events> {
    tokio::spawn(async move {
        for number in 0.. {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            events.move_money(&format!("a{}", number % 40), 1 + number % 9);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        events
    })
}

fn held(worker: &RunningProjection) -> usize {
    worker.progress().iter().filter(|at| at.held).count()
}

async fn fences(database: &Database) -> i64 {
    let sql = format!("SELECT sum(fence) AS fence FROM {} WHERE build = 1", database.table_name("es_checkpoints"));
    database.fetch(&sql, &[]).await.unwrap()[0].get("fence").unwrap()
}

/// Shows: while events are written and folded in by three that share, both sides are compared at one place in the log, and none
/// of the three loses a partition or waits.
pub async fn who_shares_goes_on_while_it_is_verified(url: &str) {
    let mut events = Events::new();
    write_some(&mut events, 200);
    let mut sharing = Vec::new();
    for name in ["first", "second", "third"] {
        let worker = events.worker(&connect(url).await).name(name).batch_max(20).share(SILENCE);
        sharing.push(worker.start(model()).await.unwrap());
    }
    eventually("each has one", || sharing.iter().all(|worker| held(worker) == 1)).await;
    let database = connect(url).await;
    let (before, worker) = (fences(&database).await, events.worker(&connect(url).await).batch_max(20));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = load(events, stop.clone());
    let mut offsets = Vec::new();
    for _ in 0..5 {
        let verified = verify(&worker, model()).await;
        assert_equal(&verified);
        let at = verified.at.iter().map(|at| at.next).sum::<u64>();
        offsets.push(at);
        let held = || sharing.iter().flat_map(|worker| worker.progress()).filter(|at| at.held);
        eventually("they go on", || held().map(|at| at.next).sum::<u64>() > at).await;
    }
    assert!(offsets.is_sorted_by(|one, next| one < next), "it went on: {offsets:?}");
    stop.store(true, Ordering::Relaxed);
    let mut events = writing.await.unwrap();
    assert!(sharing.iter().all(|worker| held(worker) == 1));
    assert_eq!(fences(&database).await, before, "nobody took anything");
    for worker in &sharing {
        let position = events.move_money("late", 1);
        worker.wait_for(&position, SOON).await.unwrap();
        caught_up(worker).await;
        assert!(matches!(worker.state(), WorkerState::Running), "{}", worker.state());
    }
    assert_equal(&verify(&worker, model()).await);
    assert_eq!(builds(&database).await, 1);
}

/// Shows: one that has all partitions goes on, too, and what it folds in while the copy gets close and is compared does not count.
pub async fn who_does_not_share_goes_on_while_it_is_verified(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    write_some(&mut events, 500);
    let live = events.worker(&connect(url).await).start(model()).await.unwrap();
    caught_up(&live).await;
    let (before, worker) = (fences(&database).await, events.worker(&connect(url).await).batch_max(10));
    let stop = Arc::new(AtomicBool::new(false));
    let writing = load(events, stop.clone());
    for _ in 0..3 {
        assert_equal(&verify(&worker, model()).await);
    }
    stop.store(true, Ordering::Relaxed);
    writing.await.unwrap();
    caught_up(&live).await;
    assert_eq!(fences(&database).await, before);
    assert!(matches!(live.state(), WorkerState::Running), "{}", live.state());
}

/// Shows: replayed by one, two or three workers, or alone in another database's tables, the state is the same to the last byte.
pub async fn any_number_of_workers_gives_the_same_state(url: &str) {
    let mut events = Events::new();
    write_some(&mut events, 100);
    let mut seen = Vec::new();
    for (namespace, workers) in [("one", 1), ("two", 2), ("three", 3), ("again", 3)] {
        let mut sharing = Vec::new();
        for number in 0..workers {
            // Connections of its own, as another process has.
            let database = Database::connect(url, namespace).await.unwrap();
            let worker = events.worker(&database).name(&format!("worker {number}")).batch_max(7).share(SILENCE);
            sharing.push(worker.start(model()).await.unwrap());
        }
        // While partitions change hands.
        write_some_in(&mut events, &sharing).await;
        for worker in &sharing {
            caught_up(worker).await;
        }
        seen.push((namespace, sharing));
    }
    let mut digests_seen = BTreeSet::new();
    for (namespace, sharing) in &seen {
        for worker in sharing {
            caught_up(worker).await;
        }
        let verified = verify(&events.worker(&Database::connect(url, namespace).await.unwrap()), model()).await;
        assert_equal(&verified);
        digests_seen.insert(digests(&verified));
    }
    let memory = connect("sqlite::memory:").await;
    let alone = events.worker(&memory).start(model()).await.unwrap();
    caught_up(&alone).await;
    let error = events.worker(&memory).verify(model(), quiet).await.unwrap_err();
    assert!(error.to_string().contains("a database in memory has one connection"), "{error}");
    assert_eq!(digests_seen.len(), 1, "{digests_seen:?}");
}

async fn write_some_in(events: &mut Events, workers: &[RunningProjection]) {
    for number in 0..60 {
        let position = events.move_money(&format!("a{}", number % 40), 3);
        if number % 20 == 0 {
            workers[0].wait_for(&position, SOON).await.unwrap();
        }
    }
}

/// Drops a verification in the midst of the replay, as a kill of its process does.
async fn killed(worker: &Worker, url: &str) {
    let database = connect(url).await;
    let hanging = Balances::default().hanging();
    let hangs = hanging.hangs.clone();
    tokio::select! {
        verified = worker.verify(hanging, quiet) => panic!("it did not hang: {verified:?}"),
        () = hangs.notified() => {}
    }
    assert_eq!(builds(&database).await, 2, "it left its copy");
}

/// Shows: what one that was killed or failed has left is dropped by the next one, and by workers of the read model once it was silent.
pub async fn what_a_killed_one_left_is_dropped(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let first = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&first).await;
    first.stop().await.unwrap();
    let worker = events.worker(&database);
    killed(&worker, url).await;
    assert_equal(&verify(&worker, Balances::default()).await);
    assert_eq!(builds(&database).await, 1);

    killed(&worker, url).await;
    let time = passing(&events, url, SILENCE, "build = 1").await;
    let next = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    let deadline = tokio::time::Instant::now() + SOON;
    while builds(&database).await != 1 {
        assert!(tokio::time::Instant::now() < deadline, "it is there still");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(database.fetch("SELECT * FROM bank_balances_b2", &[]).await.is_err(), "its table is gone");
    // One that is at work for longer than that is left alone.
    drop(time);
    let _time = passing(&events, url, SILENCE, ALL).await;
    let slow = Balances::failing(|_| {
        std::thread::sleep(Duration::from_millis(200));
        None
    });
    for _ in 0..20 {
        events.add("a", &[1]);
    }
    caught_up(&next).await;
    assert_equal(&verify(&worker.clone().batch_max(1), slow).await);

    // One that fails drops its copy itself.
    let token = tokio_util::sync::CancellationToken::new();
    let stop = token.clone();
    let stopped = worker.clone().shutdown(token).verify(Balances::default().hanging(), move |_| stop.cancel()).await;
    assert!(matches!(stopped, Err(Error::Stopped { .. })), "{stopped:?}");
    assert_eq!(builds(&database).await, 1);
    assert_eq!(balances(&database).await, "a 23/22");
}

/// Shows: one that has to wait for long, here for who has locked the table, is not taken for dead.
pub async fn who_waits_is_not_taken_for_dead(url: &str) {
    if !url.starts_with("postgres") {
        return; // nobody can lock a table against its readers on SQLite
    }
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let mut locks = connect(url).await.begin().await.unwrap();
    locks.execute(&format!("LOCK TABLE {}", database.table_name("balances")), &[]).await.unwrap();
    let worker = events.worker(&connect(url).await);
    let verifying = tokio::spawn(async move { worker.verify(Balances::default(), quiet).await });
    passed(&events, url, 7 * SILENCE, SILENCE, ALL).await;
    locks.rollback().await.unwrap();
    assert_equal(&verifying.await.unwrap().unwrap_or_else(|error| panic!("{}", chain(&error))));
}

/// Shows: of two at a time the earlier one ends with an error, not with a verdict on half of the other's copy.
pub async fn of_two_the_later_one_goes_on(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let (worker, url) = (events.worker(&database), url.to_owned());
    let (log, source) = (events.log.clone(), events.source.clone());
    let mut reports = 0;
    let another = move |_| {
        reports += 1;
        if reports != 2 {
            return; // it is complete for the last time at the second, and compared next
        }
        let (url, log, source) = (url.clone(), log.clone(), source.clone());
        meanwhile(async move {
            let worker = Worker::new(connect(&url).await, Arc::new(log), vec![source]);
            killed(&worker, &url).await;
        });
    };
    let error = worker.verify(Balances::default(), another).await.unwrap_err();
    assert!(error.is_fenced(), "{}", chain(&error));
    assert_eq!(error.to_string(), "projection balances lost its replayed copy to a worker that started later");
    assert_eq!(builds(&database).await, 2, "the other one's is there");
    assert_equal(&verify(&worker, Balances::default()).await);
}

fn stream(id: &str) -> StreamId {
    StreamId { category: "account".into(), id: key(id) }
}

/// Balances that can't take the second event of some accounts, and keep nothing of the idle.
struct Failing {
    balances: Balances,
    of: Vec<&'static str>,
}

#[async_trait]
impl Projection for Failing {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let fails = |event: &Recorded| {
            event.envelope.version.get() == 2 && self.of.contains(&event.envelope.stream.id.as_str())
        };
        if events.iter().any(fails) {
            return Err("the second".into());
        }
        let busy = events.iter().filter(|event| event.envelope.stream.id.as_str() != "idle");
        self.balances.project(tx, &busy.cloned().collect::<Vec<_>>()).await
    }
}

/// Shows: what is parked, or was left out by an operator, is so in the replay, though that one could fold it in; all others are compared.
pub async fn what_is_parked_or_left_out_is_so_in_the_replay(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for id in ["a", "b", "c", "idle"] {
        for amount in [5, 7, 2] {
            events.add(id, &[amount]);
        }
    }
    // It fails on the second event of two accounts, as long as it is not healed.
    let sick = || Failing { balances: Balances::default(), of: vec!["a", "b"] };
    let live = events.worker(&database).park_after(0).share(SILENCE).start(sick()).await.unwrap();
    caught_up(&live).await;
    assert_eq!(live.status().await.parked, 2);
    let first = seen(&database, "balances", "b").await;
    let skipped = database.skip_parked("balances", &stream("b"), first, "ada", "an error", SOON).await.unwrap();
    assert_eq!(skipped, Resumed::Done);
    assert_eq!(balances(&database).await, "a 5/1, b 7/2, c 14/3");
    for projection in [sick(), Failing { balances: Balances::default(), of: vec![] }] {
        let verified = verify(&events.worker(&database).park_after(0), projection).await;
        assert_equal(&verified);
        let parked: Vec<_> =
            verified.parked.iter().map(|parked| (parked.aggregate_id.as_str(), parked.waiting)).collect();
        assert_eq!(parked, [("a", 2)]);
        let [skipped] = verified.skipped.as_slice() else { panic!("{:?}", verified.skipped) };
        let told = (skipped.aggregate_id.as_str(), skipped.version.get(), skipped.skipped_by.as_str());
        assert_eq!((told, skipped.skipped_why.as_str()), (("b", 2, "ada"), "an error"));
    }
    // What the live one has folded in and the replay can't is a difference.
    let sicker = Failing { balances: Balances::default(), of: vec!["a", "b", "c"] };
    let verified = verify(&events.worker(&database).park_after(0), sicker).await;
    assert_eq!(verified.verdict(), Verdict::Differs);
    assert_eq!(verified.not_replayed.iter().map(|parked| parked.aggregate_id.as_str()).collect::<Vec<_>>(), ["c"]);
    let told: Vec<_> = verified.differences().map(ToString::to_string).collect();
    assert!(told.len() == 1 && told[0].starts_with("balances c: balance is 14, replayed 5"), "{told:?}");
    assert_eq!(database.parked("balances", 10).await.unwrap().len(), 1, "the live one's are what they were");
    // Though no row tells.
    let sicker = Failing { balances: Balances::default(), of: vec!["idle"] };
    let verified = verify(&events.worker(&database).park_after(0), sicker).await;
    assert_eq!((verified.verdict(), verified.differences().count()), (Verdict::Differs, 0));
}

/// Shows: what an operator has folded in while it is verified is in the replay as well.
pub async fn what_goes_on_meanwhile_is_replayed(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for amount in [5, 7] {
        events.add("a", &[amount]);
    }
    let projection = super::parked::Moody::default();
    let moods = projection.moods.clone();
    moods.lock().unwrap().insert("a", super::parked::Mood::Fails);
    let live = events.worker(&database).park_after(0).share(SOON).start(projection).await.unwrap();
    caught_up(&live).await;
    assert_eq!(balances(&database).await, "");
    moods.lock().unwrap().clear();
    let other = url.to_owned();
    let mut reports = 0;
    let retry = move |_| {
        reports += 1;
        if reports == 1 {
            let url = other.clone();
            meanwhile(async move {
                let database = connect(&url).await;
                let first = seen(&database, "balances", "a").await;
                let resumed = database.retry_parked("balances", &stream("a"), first, SOON).await.unwrap();
                assert_eq!(resumed, Resumed::Done);
            });
        }
    };
    let worker = events.worker(&database);
    let verified = worker.verify(Balances::default(), retry).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_equal(&verified);
    assert_eq!(verified.parked, []);
    assert_eq!(balances(&database).await, "a 12/2");
}

/// Shows: where nothing was compared, nothing is said to be equal.
pub async fn nothing_compared_is_not_equal(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database);
    let error = worker.verify(Balances::default(), quiet).await.unwrap_err().to_string();
    assert_eq!(error, "there is no read model balances to be verified: start a worker of it");
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    assert_eq!(verify(&worker, Balances::default()).await.verdict(), Verdict::Empty);
    let position = events.add("a", &[1]);
    live.wait_for(&position, SOON).await.unwrap();
    assert_equal(&verify(&worker, Balances::default()).await);
    change(&database, &format!("DELETE FROM {}", database.table_name("balances"))).await;
    let verified = verify(&worker, Balances::default()).await;
    assert_eq!((verified.verdict(), verified.tables[0].rows), (Verdict::Differs, 0));
    // Another version's rows are not meant to be the same.
    let error = worker.verify(Balances::of_version(2), quiet).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
}

/// Shows: a log that lacks what the read model contains is told, and not waited for.
pub async fn a_log_that_lost_its_tail_is_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for _ in 0..5 {
        events.add("a", &[1]);
    }
    let live = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    live.stop().await.unwrap();
    let worker = Events::new().worker(&database);
    let verified = tokio::time::timeout(SOON, worker.verify(Balances::default(), quiet)).await.expect("it ends");
    assert!(verified.as_ref().is_err_and(Error::is_lost), "{verified:?}");
    assert_eq!(builds(&database).await, 1);
    let rebuilt = tokio::time::timeout(SOON, worker.rebuild(Balances::default(), Check::Nothing, quiet)).await;
    let rebuilt = rebuilt.expect("it ends");
    assert!(rebuilt.as_ref().is_err_and(Error::is_lost), "{rebuilt:?}");
}

/// Shows: a read model that is rebuilt and verified again and again at the same time is equal each time.
pub async fn a_rebuild_beside_it_does_no_harm(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    write_some(&mut events, 300);
    let live = events.worker(&database).share(5 * SILENCE).start(model()).await.unwrap();
    caught_up(&live).await;
    let over = Arc::new(AtomicBool::new(false));
    let (rebuilder, stop) = (events.worker(&connect(url).await).name("another process"), over.clone());
    let rebuilding = tokio::spawn(async move {
        let mut rebuilt = 0;
        while !stop.load(Ordering::Relaxed) {
            rebuilder.rebuild(model(), Check::Equal, quiet).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            rebuilt += 1;
        }
        rebuilt
    });
    let worker = events.worker(&database);
    let (mut verified, deadline) = (0, tokio::time::Instant::now() + Duration::from_secs(8));
    while tokio::time::Instant::now() < deadline {
        match worker.verify(model(), quiet).await {
            Ok(told) => {
                assert_equal(&told);
                verified += 1;
            }
            // A rebuild came between each time.
            Err(Error::Invalid(reason)) => assert!(reason.contains("nobody rebuilds it"), "{reason}"),
            Err(error) => panic!("{}", chain(&error)),
        }
    }
    over.store(true, Ordering::Relaxed);
    let rebuilt: i32 = rebuilding.await.unwrap();
    assert!(rebuilt > 0 && verified > 0, "{rebuilt} {verified}");
    caught_up(&live).await;
    assert_equal(&verify(&worker, model()).await);
}

/// Shows: a rebuild that takes the live one's place while that is compared waits for nobody, and what is compared is the one before
/// still.
pub async fn a_switch_while_it_is_compared_does_no_harm(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(5 * SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let (other, log, source) = (url.to_owned(), events.log.clone(), events.source.clone());
    let mut reports = 0;
    let rebuild = move |_| {
        reports += 1;
        if reports != 2 {
            return; // it is complete for the last time at the second, and compared next
        }
        let (url, log, source) = (other.clone(), log.clone(), source.clone());
        meanwhile(async move {
            let worker = Worker::new(connect(&url).await, Arc::new(log), vec![source]).name("another process");
            let rebuild = worker.rebuild(Balances::default(), Check::Equal, quiet);
            tokio::time::timeout(SOON, rebuild).await.expect("it waits for nobody").unwrap();
        });
    };
    let verified = events.worker(&database).verify(Balances::default(), rebuild).await;
    assert_equal(&verified.unwrap_or_else(|error| panic!("{}", chain(&error))));
    let position = events.add("a", &[3]);
    live.wait_for(&position, SOON).await.unwrap();
}

/// Shows: each column of the audit trail is compared with the log.
pub async fn the_audit_trail_is_verified(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for id in ["a", "b", "c"] {
        events.add(id, &[1, 2]);
    }
    let bytes = events.event("a", "added", vec![0, 255].into(), |event| {
        event.content_type = "application/octet-stream".into();
        event.actor = Some("ada".parse().unwrap());
    });
    events.add_event(&bytes);
    let trail = || AuditTrail::new(std::slice::from_ref(&events.source));
    let live = events.worker(&database).share(SILENCE).start(trail()).await.unwrap();
    caught_up(&live).await;
    let worker = events.worker(&database);
    assert_equal(&verify(&worker, trail()).await);
    let table = trail().tables().remove(0);
    let name = database.table_name("audit");
    let is_bytes = |name: &str| name == "payload_bytes";
    for column in &table.columns()[table.key_columns().len()..] {
        use es_projections::Kind;
        let column_name = &column.name;
        let wrong = match column.kind {
            Kind::Integer => format!("{column_name} + 1"),
            Kind::Text => "'other'".into(),
            Kind::Time => "'2001-01-31T12:00:00.000000Z'".into(),
            Kind::Uuid => "'00000000-0000-7000-8000-000000000001'".into(),
            Kind::Json => "'{\"amount\":3}'".into(),
            Kind::Bytes if url.starts_with("postgres") => "'\\x00ff00'".into(),
            Kind::Bytes => "x'00ff00'".into(),
            other => panic!("{other:?}"),
        };
        let version = if is_bytes(column_name) { 3 } else { 1 };
        let of = format!("aggregate_id = 'a' AND version = {version}");
        let read = format!("SELECT {column_name} AS value FROM {name} WHERE {of}");
        let before = database.fetch(&read, &[]).await.unwrap()[0].values()[0].clone();
        change(&database, &format!("UPDATE {name} SET {column_name} = {wrong} WHERE {of}")).await;
        let verified = verify(&worker, trail()).await;
        let told: Vec<_> = verified.differences().collect();
        assert_eq!((verified.verdict(), told.len()), (Verdict::Differs, 1), "{column_name}");
        assert_eq!(told[0].key, ["account".to_owned(), "a".into(), version.to_string()]);
        let names: Vec<_> = told[0].columns.iter().map(|differs| differs.column.as_str()).collect();
        assert_eq!(names, [column_name.as_str()]);
        let mut tx = database.begin().await.unwrap();
        tx.execute(&format!("UPDATE {name} SET {column_name} = ? WHERE {of}"), &[before]).await.unwrap();
        tx.commit().await.unwrap();
    }
    assert_equal(&verify(&worker, trail()).await);
}
