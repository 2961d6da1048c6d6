//! What a read model can't fold in stops one aggregate, and no other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use es_core::log::memory::MemoryLog;
use es_core::{Recorded, StreamId};
use es_projections::{
    AsOf, Check, ConnectOptions, Database, Error, Model, OnDuplicate, Projection, ProjectionError, Resumed, Tx,
    WorkerState,
};

use super::accounts::*;
use super::support::*;

fn stream(id: &str) -> StreamId {
    StreamId { category: "account".into(), id: key(id) }
}

/// Shows: whatever is wrong with an event, its aggregate waits behind it, in order, over restarts, and others go on.
pub async fn one_bad_event_stops_one_aggregate(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    let kinds = ["bytes", "unknown", "error", "panic", "duplicate"];
    for id in kinds {
        events.move_money(id, 5);
    }
    let bad = [
        events.rubbish("bytes", "deposited", "nonsense"),
        events.rubbish("unknown", "renamed", "{}"),
        events.move_money("error", FAILS as i64),
        events.move_money("panic", PANICS as i64),
        events.move_money("duplicate", IS_THERE_ALREADY as i64),
    ];
    events.move_money("good", 1);
    for id in kinds {
        events.move_money(id, 2);
    }
    caught_up(&worker).await;
    let good = events.move_money("good", 1);
    worker.wait_for(&good, SOON).await.unwrap();
    assert!(matches!(worker.state(), WorkerState::Running));
    assert_eq!(shown(&database).await, "bytes 5/1, duplicate 5/1, error 5/1, good 2/2, panic 5/1, unknown 5/1");
    assert_eq!(worker.status().await.parked, 5);
    let mut parked = database.parked("accounts", 10).await.unwrap();
    parked.sort_by(|one, other| one.aggregate_id.cmp(&other.aggregate_id));
    assert!(parked.iter().all(|parked| parked.waiting == 2 && parked.category == "account"));
    let reason = |place: usize| parked[place].reason.as_str();
    assert!(reason(0).starts_with(r#"the payload of type "deposited" does not fit"#), "{}", reason(0));
    assert!(reason(1).contains("adding to bank_accounts"), "{}", reason(1));
    assert_eq!(reason(2), "thirteen");
    assert_eq!(reason(3), "it panicked: the number of the beast");
    assert_eq!(reason(4), r#"the type "renamed" is not known to this program"#);
    for position in &bad {
        let error = worker.wait_for(position, SOON).await.unwrap_err();
        assert!(matches!(error, Error::Parked { .. }), "{error:?}");
    }
    // Another worker finds them parked.
    worker.stop().await.unwrap();
    let worker = events.worker(&database).start(model()).await.unwrap();
    let late = events.move_money("error", 4);
    let good = events.move_money("good", 1);
    worker.wait_for(&good, SOON).await.unwrap();
    let error = worker.wait_for(&late, SOON).await.unwrap_err();
    assert_eq!(error.to_string(), "account-error is parked in read model accounts: thirteen");
    assert_eq!(worker.status().await.parked, 5);
    let waiting = database.waiting("accounts", &stream("error"), 10).await.unwrap();
    let versions: Vec<_> = waiting.iter().map(|entry| entry.recorded.envelope.version.get()).collect();
    assert_eq!(versions, [2, 3, 4]);
}

/// Shows: what waits comes in order, and only once, when the projection can fold it in; and until then it stays.
pub async fn what_waits_is_folded_in_once_it_can_be(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    events.move_money("a", 5);
    events.move_money("a", FAILS_UNLESS_HEALED as i64);
    for _ in 0..1_200 {
        events.move_money("a", 1);
    }
    caught_up(&worker).await;
    assert_eq!(shown(&database).await, "a 5/1");
    let first = seen(&database, "accounts", "a").await;
    let Resumed::Parked(parked) =
        database.retry_parked("accounts", &stream("a"), seen(&database, "accounts", "a").await, SOON).await.unwrap()
    else {
        panic!("it fails still")
    };
    assert_eq!((parked.attempts, parked.waiting, parked.reason.as_str()), (3, 1_201, "fourteen"));
    HEALED.store(true, Ordering::Relaxed);
    assert_eq!(
        database.retry_parked("accounts", &stream("a"), seen(&database, "accounts", "a").await, SOON).await.unwrap(),
        Resumed::Done
    );
    assert_eq!(shown(&database).await, "a 1219/1202");
    assert_eq!(database.parked("accounts", 10).await.unwrap(), []);
    assert_eq!(count(&database, "es_waiting").await, 0);
    let last = events.move_money("a", 1);
    worker.wait_for(&last, SOON).await.unwrap();
    assert_eq!(shown(&database).await, "a 1220/1203");
    assert_eq!(worker.status().await.parked, 0);
    let error = database.retry_parked("accounts", &stream("a"), first, SOON).await.unwrap_err();
    assert_eq!(error.to_string(), "account-a is not parked in read model accounts");
}

/// Shows: only with a name and a reason, which are kept; and what waits behind is folded in.
pub async fn an_event_is_left_out_by_name_and_reason(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).park_after(0).start(model()).await.unwrap();
    for amount in [5, FAILS as i64, 2, FAILS as i64, 3] {
        events.move_money("a", amount);
    }
    caught_up(&worker).await;
    let skip = async |by, why| {
        let seen = seen(&database, "accounts", "a").await;
        database.skip_parked("accounts", &stream("a"), seen, by, why, SOON).await
    };
    let error = skip("ada", " ").await.unwrap_err().to_string();
    assert_eq!(error, "an event is left out only with the name of who says so, and a reason");
    let Resumed::Parked(parked) = skip("ada", "an error of the import").await.unwrap() else {
        panic!("the next one fails, too")
    };
    assert_eq!(parked.waiting, 2);
    assert_eq!(shown(&database).await, "a 7/2");
    assert_eq!(skip("ada", "the same").await.unwrap(), Resumed::Done);
    assert_eq!(shown(&database).await, "a 10/3");
    let sql = format!("SELECT * FROM {} ORDER BY version", database.table_name("es_skipped"));
    let skipped = database.fetch(&sql, &[]).await.unwrap();
    let told = skipped.iter().map(|row| {
        let text = |column| row.get::<String>(column).unwrap();
        let version: i64 = row.get("version").unwrap();
        format!("{version} {} {} {}: {}", text("aggregate_id"), text("reason"), text("skipped_by"), text("skipped_why"))
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, ["2 a thirteen ada: an error of the import", "4 a thirteen ada: the same"]);
    worker.stop().await.unwrap();
    events.move_money("b", FAILS as i64);
    let worker = events.worker(&database).park_after(0).start(model()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    let soon = Duration::from_millis(200);
    let error = database
        .retry_parked("accounts", &stream("b"), seen(&database, "accounts", "b").await, soon)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NoAnswer { .. }), "{error:?}");
}

/// Counts accounts' events, and does not care whether its statements fail.
struct Careless(Balances);

#[async_trait]
impl Projection for Careless {
    crate::passes_on_to!(0);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.0.project(tx, events).await?;
        let has = |id: &str| events.iter().any(|event| event.envelope.stream.id.as_str() == id);
        if has("bad") {
            let row = tx.load(&self.0.tables()[0], vec![vec!["bad".into()]]).await?.remove(0).into_values();
            let _ = tx.insert(&self.0.tables()[0], vec![row], OnDuplicate::Fail).await;
        }
        if has("wrong") {
            let _ = tx.upsert(&self.0.tables()[0], vec![vec!["too short".into()]]).await;
        }
        Ok(())
    }
}

/// Shows: a statement's failure that the projection hides is told and parks like any other, and is not tried for ever.
pub async fn who_passes_over_a_failed_statement_has_failed(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).park_after(1).start(Careless(Balances::default())).await.unwrap();
    events.add("good", &[1]);
    let bad = events.add("bad", &[1]);
    let wrong = events.add("wrong", &[1]);
    let last = events.add("good", &[2]);
    worker.wait_for(&last, SOON).await.unwrap();
    let Error::Parked { reason, .. } = worker.wait_for(&bad, SOON).await.unwrap_err() else { panic!("not parked") };
    assert!(reason.starts_with("going on after a statement that failed: return its error instead: "), "{reason}");
    assert!(reason.contains("the database refuses the rows"), "{reason}");
    let Error::Parked { reason, .. } = worker.wait_for(&wrong, SOON).await.unwrap_err() else { panic!("not parked") };
    assert!(reason.starts_with("going on after a statement that failed: return its error instead: "), "{reason}");
    assert_eq!(balances(&database).await, "good 3/2");
}

/// Balances that tell of each failure of the database no more than its text.
struct Vague {
    balances: Balances,
    conflicts: AtomicU64,
}

#[async_trait]
impl Projection for Vague {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.balances.project(tx, events).await?;
        if self.conflicts.fetch_add(1, Ordering::Relaxed) < 5 {
            // As where another worker was first.
            let table = &self.balances.tables()[0];
            let key = vec![events[0].envelope.stream.id.as_str().into()];
            let row = tx.load(table, vec![key]).await?.remove(0).into_values();
            let added = tx.insert(table, vec![row], OnDuplicate::Retry).await;
            added.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

/// Shows: what may pass is not the events' failure, whatever the projection makes of the error.
pub async fn what_may_pass_parks_nothing_whatever_is_told_of_it(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let vague = Vague { balances: Balances::default(), conflicts: AtomicU64::new(0) };
    let worker = events.worker(&database).park_after(1).start(vague).await.unwrap();
    let last = events.add("a", &[1]);
    worker.wait_for(&last, SOON).await.unwrap();
    assert_eq!(worker.status().await.parked, 0);
    assert_eq!(balances(&database).await, "a 1/1");
}

/// Shows: of a command whose second event fails, the first is not visible either.
pub async fn a_command_is_parked_as_a_whole(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    // The projection of this one fails on an event without an amount.
    let worker = events.worker(&database).park_after(1).start(Balances::default()).await.unwrap();
    events.add("a", &[1, 2]);
    for record in events.command("a", vec![r#"{"amount":3}"#.into(), "{}".into()]) {
        events.append(partition("a"), record);
    }
    events.add("b", &[1]);
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 3/2, b 1/1");
    let parked = database.parked("balances", 10).await.unwrap();
    assert_eq!((parked[0].waiting, parked[0].reason.as_str()), (2, "an event without an amount"));
}

/// Shows: a projection that is broken waits for its repair, rather than to put every aggregate aside.
pub async fn a_projection_that_fails_on_all_parks_none(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for number in 0..30 {
        events.add(&format!("a{number}"), &[1]);
    }
    let worker =
        events.worker(&database).park_after(1).start(Balances::failing(|_| Some(Trouble::Error))).await.unwrap();
    let failing = || matches!(worker.state(), WorkerState::Retrying { attempts: 4.., .. });
    eventually("it failed often", failing).await;
    assert_eq!(database.parked("balances", 10).await.unwrap(), []);
    worker.stop().await.unwrap();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(count(&database, "balances").await, 30);
}

/// Shows: however many bad aggregates come first, the good ones behind them go on, in the same batch or in a later one.
pub async fn any_number_of_bad_aggregates_stops_no_other(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    (0..11).for_each(|n| drop(events.rubbish(&format!("bad-{n}"), "renamed", "{}")));
    (0..100).for_each(|n| drop(events.move_money(&format!("good-{n}"), 1)));
    let batches = events.worker(&database).park_after(1).batch_max(40);
    let worker = batches.start(model()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 11);
    assert_eq!(count(&database, "accounts").await, 100);
    worker.stop().await.unwrap();
    // Three batches of nothing else.
    (11..130).for_each(|n| drop(events.rubbish(&format!("bad-{n}"), "renamed", "{}")));
    events.move_money("good-100", 1);
    let worker = batches.start(model()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 130);
    assert_eq!(count(&database, "accounts").await, 101);
    assert!(matches!(worker.state(), WorkerState::Running), "{:?}", worker.state());
}

/// Balances, with something that may go wrong before.
struct Told<F>(Balances, F);

#[async_trait]
impl<F: Fn(&[Recorded]) -> Result<(), ProjectionError> + Send + Sync + 'static> Projection for Told<F> {
    crate::passes_on_to!(0);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        (self.1)(events)?;
        self.0.project(tx, events).await
    }
}

fn has(events: &[Recorded], id: &str) -> bool {
    events.iter().any(|event| event.envelope.stream.id.as_str() == id)
}

/// Shows: that one aggregate used its attempts up costs another none of its own: what fails once alone is tried again. What is told
/// of the attempts is true.
pub async fn each_command_has_attempts_of_its_own(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    for id in ["bad", "good", "shaky", "good"] {
        events.add(id, &[1]);
    }
    let shook = AtomicU64::new(0);
    let fails = move |events: &[Recorded]| match () {
        () if has(events, "bad") => Err("bad".into()),
        () if has(events, "shaky") && shook.fetch_add(1, Ordering::Relaxed) < 2 => Err("shaky".into()),
        () => Ok(()),
    };
    let worker = events.worker(&database).park_after(2).start(Told(Balances::default(), fails)).await.unwrap();
    caught_up(&worker).await;
    let parked = database.parked("balances", 10).await.unwrap();
    let told: Vec<_> = parked.iter().map(|parked| (parked.aggregate_id.as_str(), parked.attempts)).collect();
    assert_eq!(told, [("bad", 3)]);
    assert_eq!(balances(&database).await, "good 2/2, shaky 1/1");
}

/// Shows: a projection that succeeds at first and then fails on all does not put all that follows aside: it waits for its repair.
pub async fn a_projection_that_breaks_half_way_parks_few(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    events.add("bad", &[1]);
    events.add("good", &[1]);
    for number in 0..30 {
        events.add(&format!("a{number}"), &[1]);
    }
    let healed = Arc::new(AtomicU64::new(0));
    let (heal, goods) = (healed.clone(), AtomicU64::new(0));
    let fails = move |events: &[Recorded]| match () {
        () if has(events, "bad") => Err("bad".into()),
        // It is tried out, and then folded in.
        () if heal.load(Ordering::Relaxed) == 0 && goods.load(Ordering::Relaxed) == 2 => Err("broken".into()),
        () => {
            goods.fetch_add(u64::from(has(events, "good")), Ordering::Relaxed);
            Ok(())
        }
    };
    let worker = events.worker(&database).park_after(1).start(Told(Balances::default(), fails)).await.unwrap();
    let failing = || matches!(worker.state(), WorkerState::Retrying { attempts: 6.., .. });
    eventually("it failed often", failing).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let parked = database.parked("balances", 100).await.unwrap().len();
    assert!(parked <= 3, "{parked} are parked");
    healed.store(1, Ordering::Relaxed);
    caught_up(&worker).await;
    assert_eq!(count(&database, "balances").await + parked as i64, 32);
}

/// A projection that counts how often it is called, and how many of its events were folded in before.
struct Counted {
    model: Model<AccountRow>,
    calls: Arc<AtomicU64>,
    /// More events at once than this take longer than a statement may.
    events_max: usize,
}

#[async_trait]
impl Projection for Counted {
    crate::passes_on_to!(model);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if events.len() > self.events_max {
            let counting = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 30000000) \
                            SELECT count(*) AS n FROM n";
            tx.fetch(counting, &[]).await?;
        }
        self.model.project(tx, events).await
    }
}

/// Shows: one bad event in a full batch is found in few attempts, each of which is committed by itself: where the database is far, a
/// careful look at each event would never end.
pub async fn a_bad_event_in_a_full_batch_is_found_in_few_attempts(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    (0..999).for_each(|n| drop(events.move_money(&format!("a{n}"), 1)));
    events.rubbish("bad", "renamed", "{}");
    (0..1_000).for_each(|n| drop(events.move_money(&format!("b{n}"), 1)));
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Counted { model: model(), calls: calls.clone(), events_max: usize::MAX };
    let worker = events.worker(&database).park_after(1).start(counted).await.unwrap();
    caught_up(&worker).await;
    assert_eq!((worker.status().await.parked, count(&database, "accounts").await), (1, 1_999));
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls < 80, "{calls} attempts");
}

/// Shows: what takes longer than it may is tried in smaller parts until it does not, parks nothing, and later batches grow again.
pub async fn what_takes_too_long_is_tried_in_smaller_parts(url: &str) {
    let options = ConnectOptions { statement_max: Duration::from_secs(2), ..ConnectOptions::default() };
    let database = Database::connect_with(url, "bank", options).await.unwrap();
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    (0..200).for_each(|n| drop(events.move_money(&format!("a{n}"), 1)));
    let calls = Arc::new(AtomicU64::new(0));
    let counted = Counted { model: model(), calls: calls.clone(), events_max: 30 };
    let worker = events.worker(&database).park_after(0).start(counted).await.unwrap();
    caught_up(&worker).await;
    assert_eq!((worker.status().await.parked, count(&database, "accounts").await), (0, 200));
}

/// Shows: a wish is for the event that was seen. Whatever others ask meanwhile, nothing else is left out, and who asked is told.
pub async fn a_skip_leaves_out_what_was_seen_and_nothing_else(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let projection = Moody::default();
    let moods = projection.moods.clone();
    moods.lock().unwrap().insert("a", Mood::Fails);
    let worker = events.worker(&database).park_after(0).start(projection).await.unwrap();
    let first = events.add("a", &[1]);
    for record in events.command("a", vec!["{}".into()]) {
        events.append(partition("a"), record);
    }
    caught_up(&worker).await;
    let parked = database.parked("balances", 10).await.unwrap();
    assert_eq!((parked[0].version.get(), parked[0].waiting), (1, 2));
    // Ada sees version 1. Meanwhile Bob has it tried again with a mended release, which fails on version 2.
    let ada_saw = parked[0].event_id;
    moods.lock().unwrap().clear();
    let resumed = database.retry_parked("balances", &stream("a"), ada_saw, SOON).await.unwrap();
    let Resumed::Parked(parked) = resumed else { panic!("version 2 fails") };
    assert_eq!(parked.version.get(), 2);
    worker.wait_for(&first, SOON).await.unwrap();
    let error = database.skip_parked("balances", &stream("a"), ada_saw, "ada", "an error", SOON).await.unwrap_err();
    assert!(matches!(error, Error::OtherEvent { seen, .. } if seen == ada_saw), "{error:?}");
    // The same when the worker comes to it only after something else was done.
    let sql = format!(
        "UPDATE {} SET asked = 'skip', asked_by = 'ada', asked_why = 'an error', asked_event = ?",
        database.table_name("es_parked")
    );
    let mut tx = database.begin().await.unwrap();
    tx.execute(&sql, &[ada_saw.get().into()]).await.unwrap();
    tx.commit().await.unwrap();
    let asked = format!("SELECT asked FROM {}", database.table_name("es_parked"));
    while database.fetch(&asked, &[]).await.unwrap()[0].get::<Option<String>>("asked").unwrap().is_some() {
        assert!(matches!(worker.state(), WorkerState::Running), "{:?}", worker.state());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(count(&database, "es_skipped").await, 0);
    assert_eq!(balances(&database).await, "a 1/1");
    let done = database.skip_parked("balances", &stream("a"), parked.event_id, "ada", "an error", SOON).await.unwrap();
    assert_eq!((done, count(&database, "es_skipped").await), (Resumed::Done, 1));
}

pub async fn event_types_that_are_not_known_may_be_passed_over(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 5);
    events.rubbish("a", "renamed", "{}");
    events.move_money("a", 2);
    let worker = events.worker(&database).start(model().ignore_unknown_types()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(shown(&database).await, "a 7/2");
    // What is known and does not fit is another matter.
    events.rubbish("a", "deposited", "nonsense");
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 1);
}

/// What becomes of an account's events.
#[derive(Clone, Copy, PartialEq)]
pub enum Mood {
    Fails,
    DatabaseAway,
    Hangs,
}

/// Balances, save for the accounts that it is given a mood for.
#[derive(Default)]
pub struct Moody {
    balances: Balances,
    pub moods: Arc<Mutex<HashMap<&'static str, Mood>>>,
}

#[async_trait]
impl Projection for Moody {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let mood = |event: &Recorded| self.moods.lock().unwrap().get(event.envelope.stream.id.as_str()).copied();
        match events.iter().find_map(mood) {
            None => self.balances.project(tx, events).await,
            Some(Mood::Fails) => Err("a mood".into()),
            Some(Mood::DatabaseAway) => {
                let (doing, database) = ("a query".into(), "postgres://db".into());
                Err(Error::Unavailable { doing, database, source: "it is away".into() }.into())
            }
            Some(Mood::Hangs) => std::future::pending().await,
        }
    }
}

async fn ask_retry_of_all(database: &Database) {
    let mut tx = database.begin().await.unwrap();
    let sql = format!("UPDATE {} SET asked = 'retry'", tx.table_name("es_parked"));
    tx.execute(&sql, &[]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Shows: what was asked is done once the database is there again, and meanwhile nothing that was unparked is put behind again.
pub async fn a_wish_outlives_a_database_that_is_away(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let projection = Moody::default();
    let moods = projection.moods.clone();
    moods.lock().unwrap().extend([("a", Mood::Fails), ("b", Mood::Fails)]);
    let worker = events.worker(&database).park_after(0).start(projection).await.unwrap();
    events.add("a", &[1]);
    events.add("b", &[1]);
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 2);
    *moods.lock().unwrap() = HashMap::from([("b", Mood::DatabaseAway)]);
    ask_retry_of_all(&database).await;
    while balances(&database).await != "a 1/1" {
        assert!(!matches!(worker.state(), WorkerState::Stopped { .. }), "{:?}", worker.state());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let position = events.add("a", &[2]);
    worker.wait_for(&position, SOON).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(balances(&database).await, "a 3/2");
    tokio::time::sleep(Duration::from_millis(300)).await;
    moods.lock().unwrap().clear();
    let position = events.add("b", &[2]);
    let deadline = tokio::time::Instant::now() + SOON;
    while balances(&database).await != "a 3/2, b 3/2" {
        assert!(tokio::time::Instant::now() < deadline, "{} {:?}", balances(&database).await, worker.state());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(count(&database, "es_waiting").await, 0);
}

/// Shows: a worker stops though what was asked hangs.
pub async fn a_wish_that_hangs_does_not_keep_a_worker(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let projection = Moody::default();
    let moods = projection.moods.clone();
    moods.lock().unwrap().insert("a", Mood::Fails);
    let worker = events.worker(&database).park_after(0).start(projection).await.unwrap();
    events.add("a", &[1]);
    caught_up(&worker).await;
    moods.lock().unwrap().insert("a", Mood::Hangs);
    ask_retry_of_all(&database).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    tokio::time::timeout(Duration::from_secs(10), worker.stop()).await.expect("it stops").unwrap();
}

/// Shows: what an operator left out is left out of each build to come, with who did it and why.
pub async fn what_was_left_out_is_left_out_of_a_rebuild(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let sharing = || events.worker(&database).park_after(0).share(SOON);
    let worker = sharing().start(model()).await.unwrap();
    for amount in [5, FAILS as i64, 2] {
        events.move_money("a", amount);
    }
    caught_up(&worker).await;
    let first = seen(&database, "accounts", "a").await;
    let skipped = database.skip_parked("accounts", &stream("a"), first, "ada", "an error", SOON).await.unwrap();
    assert_eq!(skipped, Resumed::Done);
    let rebuild = events.worker(&database).park_after(0).rebuild(model(), Check::Equal, |_| {}).await;
    rebuild.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!(shown(&database).await, "a 7/2");
    assert_eq!(database.parked("accounts", 10).await.unwrap(), []);
    assert!(database.remove_replaced("accounts").await.unwrap());
    let sql = format!("SELECT * FROM {}", database.table_name("es_skipped"));
    let rows = database.fetch(&sql, &[]).await.unwrap();
    let told: Vec<String> = ["reason", "skipped_by", "skipped_why"].map(|column| rows[0].get(column).unwrap()).into();
    assert_eq!((rows.len(), told), (1, vec!["thirteen".into(), "ada".into(), "an error".into()]));
}

/// Shows: a rebuilt read model that can't fold in what the live one holds does not take its place.
pub async fn what_is_visible_is_not_parked_by_a_rebuild(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let (live, newer) = (Moody::default(), Moody::default());
    live.moods.lock().unwrap().insert("b", Mood::Fails);
    newer.moods.lock().unwrap().extend([("a", Mood::Fails), ("b", Mood::Fails)]);
    events.add("b", &[1]);
    events.add("c", &[1]);
    let last = events.add("a", &[1]);
    let worker = events.worker(&database).park_after(0).share(SOON).start(live).await.unwrap();
    worker.wait_for(&last, SOON).await.unwrap();
    caught_up(&worker).await;
    let rebuild = events.worker(&database).park_after(0).rebuild(newer, Check::Nothing, |_| {}).await;
    let Err(Error::Differs { difference, .. }) = rebuild else { panic!("{rebuild:?}") };
    assert_eq!(difference, "it has parked account-a: a mood");
    assert_eq!(balances(&database).await, "a 1/1, c 1/1");
    assert!(database.remove_replaced("balances").await.unwrap());
    // What waits in both may.
    let same = Moody::default();
    same.moods.lock().unwrap().insert("b", Mood::Fails);
    events.worker(&database).park_after(0).rebuild(same, Check::Nothing, |_| {}).await.unwrap();
    assert_eq!(database.parked("balances", 10).await.unwrap().len(), 1);
}

/// Shows: a read model as of a time tells what it lacks.
pub async fn a_read_model_as_of_a_time_tells_what_is_parked(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 5);
    events.move_money("b", FAILS as i64);
    let worker = events.worker(&database).park_after(0);
    let frozen = worker.as_of(model(), &AsOf::Recorded(events.now()), "then", |_| {}).await.unwrap();
    assert_eq!(shown(frozen.database()).await, "a 5/1");
    let parked = frozen.parked(10).await.unwrap();
    assert_eq!((parked.len(), parked[0].aggregate_id.as_str(), parked[0].waiting), (1, "b", 1));
    assert_eq!(database.parked("accounts", 10).await.unwrap(), [], "the live one, which there is not, lacks nothing");
}
