//! Read models that are built beside the live one, or as of some time or place.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use es_core::Recorded;
use es_projections::{
    AsOf, Check, Database, Error, Kind, Projection, ProjectionError, RebuildProgress, RunningProjection, StandsBy,
    Table, Tx, WorkerState,
};

use super::accounts::*;
use super::silence::{ALL, passing};
use super::support::*;

const SILENCE: Duration = Duration::from_secs(5);

fn quiet(_: RebuildProgress) {}

async fn goes_on(worker: &RunningProjection, events: &mut Events) {
    let position = events.move_money("late", 1);
    worker.wait_for(&position, SOON).await.unwrap_or_else(|error| panic!("{}: {}", worker.state(), chain(&error)));
}

/// Balances with further SQL.
struct WithSetup {
    balances: Balances,
    sql: &'static str,
    passes_over: bool,
}

#[async_trait]
impl Projection for WithSetup {
    crate::passes_on_to!(balances);

    async fn setup(&self, tx: &mut Tx) -> Result<(), ProjectionError> {
        match tx.execute(self.sql, &[]).await {
            Err(error) if !self.passes_over => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.balances.project(tx, events).await
    }
}

/// Shows: a setup with a mistake in it is told as such by whatever makes the read model, rather than tried for ever.
pub async fn a_setup_that_fails_is_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let of = |version, sql| WithSetup { balances: Balances::of_version(version), sql, passes_over: false };
    let (right, wrong) = ("SELECT 1", "CREAT VIEW mine AS SELECT 1");
    let worker = events.worker(&database).share(SILENCE);
    let ended = async || {
        let told = |error: Error| {
            assert!(matches!(error, Error::Sql { .. }), "{error:?}");
            let told = chain(&error);
            assert!(told.contains("the setup of projection balances") && told.contains("statement"), "{told}");
        };
        told(worker.start(of(1, wrong)).await.unwrap_err());
        let error = worker.start(WithSetup { passes_over: true, ..of(1, wrong) }).await.unwrap_err();
        assert!(matches!(error, Error::Sql { .. }), "{error:?}");
        let live = worker.start(of(1, right)).await.unwrap();
        caught_up(&live).await;
        told(worker.rebuild(of(1, wrong), Check::Nothing, quiet).await.unwrap_err());
        told(worker.deploy(of(2, wrong), quiet).await.unwrap_err());
        caught_up(&live).await;
        assert_eq!(balances(&database).await, "a 1/1");
        worker.deploy(of(2, right), quiet).await.map(drop).unwrap();
    };
    tokio::time::timeout(SOON, ended()).await.expect("it ends");
}

/// Shows: while events come in, a build catches up, holds the same rows, takes the other's place, and is kept up from then on by the
/// workers that share meanwhile.
pub async fn a_rebuild_takes_the_live_ones_place_under_load(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for number in 0..500 {
        events.move_money(&format!("a{}", number % 40), 1 + number % 9);
    }
    let live = events.worker(&database).share(SILENCE).start(model()).await.unwrap();
    caught_up(&live).await;
    let worker = events.worker(&database).batch_max(20);
    let over = Arc::new(AtomicBool::new(false));
    let load = {
        let over = over.clone();
        tokio::spawn(async move {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number += 1;
                events.move_money(&format!("a{}", number % 40), 1 + number % 9);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            events
        })
    };
    let seen = Arc::new(AtomicU64::new(0));
    let report = {
        let seen = seen.clone();
        move |progress: RebuildProgress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            seen.store(progress.done, Ordering::Relaxed);
        }
    };
    worker.rebuild(model(), Check::Equal, report).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert!(seen.load(Ordering::Relaxed) > 500, "it told how far it was");
    tokio::time::sleep(Duration::from_millis(100)).await;
    over.store(true, Ordering::Relaxed);
    let mut events = load.await.unwrap();
    goes_on(&live, &mut events).await;
    caught_up(&live).await;
    let kept = everything(&database).await;
    assert!(database.fetch("SELECT * FROM bank_accounts_b2", &[]).await.is_err(), "what was built is in the live one");
    assert!(database.remove_replaced("accounts").await.unwrap());
    live.stop().await.unwrap();
    // The same rows as if nothing had happened.
    database.remove_projection("accounts").await.unwrap();
    let anew = events.worker(&database).start(model()).await.unwrap();
    caught_up(&anew).await;
    assert_eq!(everything(&database).await, kept);
}

/// Shows: a difference keeps the live one in its place, and is told by its rows.
pub async fn a_rebuild_that_differs_is_refused_with_the_rows(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for id in ["a", "b", "c"] {
        events.move_money(id, 5);
    }
    let live = events.worker(&database).share(SILENCE).start(model()).await.unwrap();
    caught_up(&live).await;
    let mut tx = database.begin().await.unwrap();
    for change in ["UPDATE {} SET balance = 6 WHERE id = 'a'", "DELETE FROM {} WHERE id = 'b'"] {
        tx.execute(&change.replace("{}", &tx.table_name("accounts")), &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let error = events.worker(&database).rebuild(model(), Check::Equal, quiet).await.unwrap_err();
    let Error::Differs { difference, .. } = &error else { panic!("{error:?}") };
    assert_eq!(difference, "accounts a: balance is 6, replayed 5; accounts b is missing, replayed it is there");
    assert_eq!(shown(&database).await, "a 6/1, c 5/1", "the live one stays");
    goes_on(&live, &mut events).await;
    // Without the check it takes its place, damage and all repaired.
    events.worker(&database).rebuild(model(), Check::Nothing, quiet).await.unwrap();
    assert_eq!(shown(&database).await, "a 5/1, b 5/1, c 5/1, late 1/1");
    goes_on(&live, &mut events).await;
}

pub async fn a_rebuild_goes_on_where_it_was_stopped(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for number in 0..2_000 {
        events.move_money(&format!("a{}", number % 40), 1);
    }
    let live = events.worker(&database).share(SILENCE).start(model()).await.unwrap();
    caught_up(&live).await;
    let token = tokio_util::sync::CancellationToken::new();
    let stop = token.clone();
    let worker = events.worker(&database).batch_max(10);
    let stopping = move |progress: RebuildProgress| {
        if progress.done > 0 {
            stop.cancel();
        }
    };
    let stopped = worker.clone().shutdown(token).rebuild(model(), Check::Equal, stopping).await;
    let error = stopped.expect_err("it was stopped");
    assert!(matches!(error, Error::Stopped { .. }), "{error:?}");
    let built = build_rows(&database).await;
    assert!(built > 0, "it had begun");
    let first = Arc::new(AtomicU64::new(u64::MAX));
    let report = {
        let first = first.clone();
        move |progress: RebuildProgress| {
            first.fetch_min(progress.done, Ordering::Relaxed);
        }
    };
    worker.rebuild(model(), Check::Equal, report).await.unwrap();
    assert!(first.load(Ordering::Relaxed) > 0, "it did not begin anew");
    let sql = format!("SELECT count(*) AS n FROM {}", database.table_name("es_builds"));
    assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 2, "there was one build");
}

async fn build_rows(database: &Database) -> i64 {
    let sql = format!("SELECT sum(events) AS n FROM {} WHERE build = 2", database.table_name("es_checkpoints"));
    database.fetch(&sql, &[]).await.unwrap()[0].get::<Option<i64>>("n").unwrap().unwrap_or(0)
}

/// Shows: a newer version with other columns is built while the older one serves; whoever kept up the older one stops and says why.
pub async fn another_version_replaces_the_one_before(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let newer = || Balances::of_version(2).with_column("note");
    let error = events.worker(&database).start(newer()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    events.worker(&database).rebuild(newer(), Check::Nothing, quiet).await.unwrap();
    assert_eq!(balances(&database).await, "a 3/2");
    let position = events.add("b", &[7]);
    let stands_by =
        || matches!(live.state(), WorkerState::StandingBy { why: StandsBy::OtherVersion { version: 2 }, .. });
    eventually("the old release stands by", stands_by).await;
    let worker = events.worker(&database).start(newer()).await.unwrap();
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 3/2, b 7/1");
    let error = events.worker(&database).start(Balances::default()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    assert!(matches!(worker.state(), WorkerState::Running));
}

/// Shows: a version that reads more than the live one is built to the end of what the live one does not read, and then live.
pub async fn a_version_with_one_more_source_becomes_live(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    live.stop().await.unwrap();
    // As of a live one that was given no source of these events.
    let mut tx = database.begin().await.unwrap();
    let delete = format!("DELETE FROM {}", database.table_name("es_checkpoints"));
    assert!(tx.execute(&delete, &[]).await.unwrap() > 0);
    tx.commit().await.unwrap();
    let newer = || Balances::of_version(2).with_column("note");
    let worker = events.worker(&database).share(SILENCE);
    let new = tokio::time::timeout(SOON, worker.deploy(newer(), quiet)).await.expect("it ends").unwrap();
    let position = events.add("b", &[7]);
    new.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 3/2, b 7/1");
}

/// Shows: a switch shuts out the old version's workers also where the new one does not read: they would go on writing their rows
/// into its tables.
pub async fn a_switch_shuts_out_workers_of_sources_that_are_not_read_any_more(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let table = database.table_name("es_checkpoints");
    let rest = "fence, log_id, next_offset, epoch_number, epoch_writer, claim_offset, last_sequence, last_record, events, \
                void, quarantined, moved_at";
    let mut tx = database.begin().await.unwrap();
    let insert = format!(
        "INSERT INTO {table} (projection, build, topic, topic_partition, holder, {rest}) \
         SELECT projection, build, 'bank.van.events', topic_partition, 'a worker of the old version', {rest} FROM {table} \
         WHERE topic_partition = 0"
    );
    assert_eq!(tx.execute(&insert, &[]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let stands = async || {
        let sql = format!("SELECT fence, holder FROM {table} WHERE topic = 'bank.van.events'");
        let row = database.fetch(&sql, &[]).await.unwrap().remove(0);
        (row.get::<i64>("fence").unwrap(), row.get::<Option<String>>("holder").unwrap())
    };
    let (before, _) = stands().await;
    let newer = Balances::of_version(2).with_column("note");
    events.worker(&database).rebuild(newer, Check::Nothing, quiet).await.unwrap();
    assert_eq!(stands().await, (before + 1, None));
}

/// Shows: a new release builds its version beside the old one, which serves until the switch, and whose workers end neither then nor
/// later: they wait for, and show, what the new one commits, and go on when their own version is live again.
pub async fn a_new_release_is_deployed_beside_the_old_one(url: &str) {
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let worker = async |name: &str| events.worker(&connect(url).await).name(name).share(SILENCE);
    let (one, two) = (worker("release 1").await, worker("release 2").await);
    let (other, back) = (worker("another of release 2").await, worker("release 1 again").await);
    let old = one.start(Balances::default()).await.unwrap();
    caught_up(&old).await;
    let newer = || Balances::of_version(2).with_column("note");
    let (new, second) = tokio::join!(two.deploy(newer(), quiet), other.deploy(newer(), quiet));
    let (new, second) = (new.unwrap(), second.unwrap());
    let position = events.add("b", &[7]);
    for handle in [&new, &second, &old] {
        handle.wait_for(&position, SOON).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
    let stands_by =
        || matches!(old.state(), WorkerState::StandingBy { why: StandsBy::OtherVersion { version: 2 }, .. });
    eventually("the old release stands by", stands_by).await;
    old.check(None).await.unwrap();
    let database = connect(url).await;
    assert_eq!(balances(&database).await, "a 3/2, b 7/1");
    // A way back is a rebuild of the old release; it is not taken by a start.
    let error = back.deploy(Balances::default(), quiet).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    new.stop().await.unwrap();
    second.stop().await.unwrap();
    back.rebuild(Balances::default(), Check::Nothing, quiet).await.unwrap();
    let position = events.add("c", &[4]);
    old.wait_for(&position, SOON).await.unwrap();
    eventually("it works again", || matches!(old.state(), WorkerState::Running)).await;
    assert_eq!(balances(&database).await, "a 3/2, b 7/1, c 4/1");
}

/// Whose setup fails with what may pass, from the second time on, so many times.
struct Passing {
    balances: Balances,
    setups: AtomicU64,
    failures: u64,
}

#[async_trait]
impl Projection for Passing {
    crate::passes_on_to!(balances);

    async fn setup(&self, _: &mut Tx) -> Result<(), ProjectionError> {
        match self.setups.fetch_add(1, Ordering::Relaxed) {
            0 => Ok(()),
            again if again <= self.failures => Err(away().into()),
            _ => Ok(()),
        }
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.balances.project(tx, events).await
    }
}

/// Shows: a deployment that is under way goes on, whatever passes of the database meanwhile; before, and for good, an error is told.
pub async fn a_passing_error_ends_no_deployment(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let worker = events.worker(&database).share(SILENCE);
    let live = worker.start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let newer = Passing { balances: Balances::of_version(2), setups: AtomicU64::new(0), failures: 3 };
    let deployed = worker.deploy(newer, quiet).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    caught_up(&deployed).await;
    assert_eq!(balances(&database).await, "a 1/1");
    deployed.stop().await.unwrap();
    let away = Passing { balances: Balances::of_version(2), setups: AtomicU64::new(1), failures: 1 };
    let error = worker.deploy(away, quiet).await.unwrap_err();
    assert!(error.is_retryable(), "nothing is to be deployed: {error:?}");
}

pub async fn a_read_model_as_of_a_time_is_the_same_whenever_it_is_built(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money_on("a", 5, 0);
    events.move_money_on("b", 7, -2);
    events.move_money_on("a", 1, 2);
    let then = events.now();
    events.move_money_on("a", 3, -1);
    let live = events.worker(&database).start(model()).await.unwrap();
    caught_up(&live).await;
    let worker = events.worker(&database);
    let recorded = worker.as_of(model(), &AsOf::Recorded(then), "then", quiet).await.unwrap();
    assert_eq!(shown(recorded.database()).await, "a 6/2, b 7/1");
    let yesterday = AsOf::Occurred(then - TimeDelta::days(1) + TimeDelta::seconds(10));
    let occurred = worker.as_of(model(), &yesterday, "yesterday", quiet).await.unwrap();
    assert_eq!(shown(occurred.database()).await, "b 7/1", "a was not there yet, though something is recorded before");
    assert_eq!(shown(&database).await, "a 9/3, b 7/1", "the live one is what it was");
    // Later events change nothing, not even one that belongs to an earlier day.
    events.move_money_on("b", 4, -5);
    caught_up(&live).await;
    let first = (recorded.digest().await.unwrap(), occurred.digest().await.unwrap());
    assert_ne!(first.0, first.1);
    for (as_of, name, first) in [(AsOf::Recorded(then), "then", first.0), (yesterday.clone(), "yesterday", first.1)] {
        let again = worker.as_of(model(), &as_of, name, quiet).await.unwrap();
        assert_eq!(again.digest().await.unwrap(), first, "{name}");
    }
    let error = worker.as_of(model(), &AsOf::Recorded(then), "yesterday", quiet).await.unwrap_err();
    assert!(error.to_string().starts_with(r#""yesterday" is read model accounts as of occurred "#), "{error}");
    // Whoever removes it and builds it again has the log of now: what was recorded then is the same, what took place then is not.
    for (as_of, name, expected) in [(AsOf::Recorded(then), "then", "a 6/2, b 7/1"), (yesterday, "yesterday", "b 11/2")]
    {
        assert!(database.remove_as_of("accounts", name).await.unwrap());
        let anew = worker.clone().batch_max(1).as_of(model(), &as_of, name, quiet).await.unwrap();
        assert_eq!(shown(anew.database()).await, expected, "{name}");
        assert_eq!(anew.digest().await.unwrap() == first.0, name == "then", "{name}");
    }
    assert!(!database.remove_as_of("accounts", "tomorrow").await.unwrap());
    let future = AsOf::Recorded(chrono::Utc::now() + TimeDelta::days(1));
    let error = worker.as_of(model(), &future, "tomorrow", quiet).await.unwrap_err();
    assert!(error.to_string().contains("is not over yet"), "{error}");
}

/// Shows: as of a business time, an aggregate whose first event took place later has nothing in the read model, in batches of any size and
/// when it is stopped half way; its other events fail nothing.
pub async fn a_read_model_as_of_a_business_time_lacks_what_was_not_there_yet(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for number in 0..60 {
        // The newest first.
        events.move_money_on(&format!("newest{}", number % 3), 5, 60 - number);
        events.move_money_on(&format!("oldest{}", number % 3), 5, number);
    }
    let then = AsOf::Occurred(events.now() + TimeDelta::days(30));
    let expected = "oldest0 55/11, oldest1 50/10, oldest2 50/10";
    for batch in [1, 7, 1_000] {
        let name = format!("in batches of {batch}");
        let worker = events.worker(&database).batch_max(batch);
        let token = tokio_util::sync::CancellationToken::new();
        let stop = token.clone();
        let stopped = worker.clone().shutdown(token).as_of(model(), &then, &name, move |_| stop.cancel()).await;
        drop(stopped); // it goes on below
        let built = worker.as_of(model(), &then, &name, quiet).await.unwrap();
        assert!(built.parked(1).await.unwrap().is_empty());
        assert_eq!(shown(built.database()).await, expected, "{name}");
        database.remove_as_of("accounts", &name).await.unwrap();
    }
    assert_eq!(count(&database, "es_absent").await, 0, "it goes with the read model");
}

pub async fn a_read_model_as_of_a_cut_holds_what_is_before_it(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database);
    events.move_money("a", 5);
    worker.save_cut("january").await.unwrap();
    worker.save_cut("january").await.unwrap();
    events.move_money("a", 2);
    events.move_money("b", 1);
    let error = worker.save_cut("january").await.unwrap_err().to_string();
    assert_eq!(error, r#"cut "january" is saved already, at another place: give this one another name"#);
    let cut = worker.as_of(model(), &AsOf::Cut("january".into()), "first", quiet).await.unwrap();
    assert_eq!(shown(cut.database()).await, "a 5/1");
    let again = worker.as_of(model(), &AsOf::Cut("january".into()), "second", quiet).await.unwrap();
    assert_eq!(again.digest().await.unwrap(), cut.digest().await.unwrap());
    let error = worker.as_of(model(), &AsOf::Cut("may".into()), "third", quiet).await.unwrap_err().to_string();
    assert_eq!(error, r#"there is no cut "may": save one with `Worker::save_cut`"#);
}

/// Runs something to its end in the midst of a rebuild or a verification, which waits for it.
pub fn meanwhile(work: impl Future<Output = ()> + Send + 'static) {
    let run = move || tokio::runtime::Runtime::new().unwrap().block_on(work);
    std::thread::spawn(run).join().unwrap();
}

/// Shows: what another rebuild made of a build, after this one was complete, never becomes the read model.
pub async fn a_build_that_was_begun_anew_meanwhile_is_not_made_live(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let last = events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    live.wait_for(&last, SOON).await.unwrap();
    let (other, log, source) = (url.to_owned(), events.log.clone(), events.source.clone());
    let mut reports = 0;
    let begin_anew = move |_| {
        reports += 1;
        if reports != 2 {
            return; // it is complete for the last time at the second
        }
        let (url, log, source) = (other.clone(), log.clone(), source.clone());
        meanwhile(async move {
            let database = connect(&url).await;
            assert!(database.remove_replaced("balances").await.unwrap());
            let worker = es_projections::Worker::new(database, Arc::new(log), vec![source]);
            let hanging = Balances::default().hanging();
            let hangs = hanging.hangs.clone();
            tokio::select! {
                rebuilt = worker.rebuild(hanging, Check::Nothing, quiet) => panic!("it did not hang: {rebuilt:?}"),
                () = hangs.notified() => {}
            }
        });
    };
    let error = events.worker(&database).rebuild(Balances::default(), Check::Nothing, begin_anew).await.unwrap_err();
    assert!(error.is_fenced(), "{}", chain(&error));
    assert_eq!(balances(&database).await, "a 3/2");
    let position = events.add("a", &[3]);
    live.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 6/3");
}

/// Shows: a rebuild whose build is removed between two passes ends, and leaves nothing.
pub async fn a_build_that_is_removed_meanwhile_is_not_gone_on_with(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let other = url.to_owned();
    let mut reports = 0;
    let remove = move |_| {
        reports += 1;
        if reports == 1 {
            let url = other.clone();
            meanwhile(async move { assert!(connect(&url).await.remove_replaced("balances").await.unwrap()) });
        }
    };
    let error = events.worker(&database).rebuild(Balances::default(), Check::Nothing, remove).await.unwrap_err();
    let sql = format!("SELECT count(*) AS n FROM {} WHERE build = 2", database.table_name("es_checkpoints"));
    assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 0, "nothing is left");
    assert!(error.is_fenced(), "{}", chain(&error));
    let position = events.add("a", &[3]);
    live.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 6/3");
}

/// Shows: where each pass takes long, however little there is to do, a rebuild ends all the same.
pub async fn a_rebuild_that_never_gets_close_ends(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let slow = Balances::failing(|_| {
        std::thread::sleep(Duration::from_millis(1_100));
        None
    });
    let worker = events.worker(&database);
    let load = tokio::spawn(async move {
        loop {
            events.add("a", &[1]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let rebuilt = tokio::time::timeout(SOON, worker.rebuild(slow, Check::Equal, quiet)).await;
    load.abort();
    rebuilt.expect("it ends").unwrap_or_else(|error| panic!("{}", chain(&error)));
}

/// Shows: a rebuild does nothing for most of the time while commands come in, and works without pause while none do.
pub async fn a_rebuild_makes_way_for_commands(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for _ in 0..160 {
        events.add("a", &[1]);
    }
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let slow = || {
        Balances::failing(|_| {
            std::thread::sleep(Duration::from_millis(30));
            None
        })
    };
    let worker = events.worker(&database).batch_max(4);
    let rebuild = async || {
        let made_way = Arc::new(Mutex::new(Duration::ZERO));
        let told = made_way.clone();
        let report = move |progress: RebuildProgress| *told.lock().unwrap() = progress.made_way;
        worker.rebuild(slow(), Check::Equal, report).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
        *made_way.lock().unwrap()
    };
    assert_eq!(rebuild().await, Duration::ZERO, "nobody was there to make way for");
    assert!(database.remove_replaced("balances").await.unwrap());
    let load = tokio::spawn(async move {
        loop {
            events.add("b", &[1]);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    let made_way = tokio::time::timeout(SOON, rebuild()).await;
    load.abort();
    assert!(made_way.expect("it ends") > Duration::ZERO);
    live.stop().await.unwrap();
}

/// Shows: however long the last pass takes, who shares does not take the rebuild for dead.
pub async fn a_rebuild_is_not_taken_for_silent(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for _ in 0..10 {
        events.add("a", &[1]);
    }
    let live = events.worker(&database).share(Duration::from_millis(500)).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let slow = Balances::failing(|_| {
        std::thread::sleep(Duration::from_millis(100));
        None
    });
    let _time = passing(&events, url, Duration::from_millis(500), ALL).await;
    let worker = events.worker(&database).batch_max(1);
    let waiting = live.clone();
    let load = tokio::spawn(async move {
        loop {
            let position = events.add("a", &[1]);
            let _ = waiting.wait_for(&position, Duration::from_millis(50)).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let rebuilt = tokio::time::timeout(SOON, worker.rebuild(slow, Check::Equal, quiet)).await;
    load.abort();
    rebuilt.expect("it ends").unwrap_or_else(|error| panic!("{}", chain(&error)));
    caught_up(&live).await;
}

/// Balances with a view on them.
struct Viewed(Balances);

#[async_trait]
impl Projection for Viewed {
    crate::passes_on_to!(0);

    async fn setup(&self, tx: &mut Tx) -> Result<(), ProjectionError> {
        let (view, table) = (tx.table_name("rich"), tx.table_name("balances"));
        let create = format!("CREATE OR REPLACE VIEW {view} AS SELECT * FROM {table} WHERE balance > 0");
        tx.execute(&create, &[]).await?;
        Ok(())
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.0.project(tx, events).await
    }
}

/// Shows: whoever reads a table for long keeps no rebuild of the same columns from its end, and sees what was there when it began.
pub async fn a_long_query_keeps_no_rows_from_being_taken_over(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let live = events.worker(&database).share(SILENCE).start(Balances::default()).await.unwrap();
    caught_up(&live).await;
    let mut tx = database.begin().await.unwrap();
    tx.execute("UPDATE bank_balances SET balance = 7", &[]).await.unwrap();
    tx.commit().await.unwrap();
    let other = connect(url).await;
    let mut report = match url.starts_with("postgres") {
        true => {
            let mut report = other.begin().await.unwrap();
            report.fetch("SELECT * FROM bank_balances", &[]).await.unwrap();
            Some(report)
        }
        false => None, // there a transaction of one's own writes, and is the only one
    };
    events.worker(&database).rebuild(Balances::default(), Check::Nothing, quiet).await.unwrap();
    assert_eq!(balances(&database).await, "a 1/1");
    if let Some(report) = report.take() {
        report.rollback().await.unwrap();
    }
}

/// Shows: as long as somebody reads a table whose columns are to change, others read it too and new events come in; then they
/// change, though they read all the time.
pub async fn a_long_query_puts_the_switch_off_and_nobody_else(url: &str) {
    if !url.starts_with("postgres") {
        return; // readers keep nobody from writing on SQLite
    }
    let database = connect(url).await;
    let mut events = Events::new();
    let mut last = events.add("a", &[1]);
    let live = events.worker(&database).share(SILENCE).start(Viewed(Balances::default())).await.unwrap();
    live.wait_for(&last, SOON).await.unwrap();
    let mut report = connect(url).await.begin().await.unwrap();
    let read = format!("SELECT * FROM {}", database.table_name("rich"));
    report.fetch(&read, &[]).await.unwrap();
    let switched = Arc::new(AtomicBool::new(false));
    let rebuild = {
        let (worker, switched) = (events.worker(&database), switched.clone());
        tokio::spawn(async move {
            let newer = Viewed(Balances::of_version(2).with_column("note"));
            let ended = worker.rebuild(newer, Check::Nothing, quiet).await;
            switched.store(true, Ordering::Relaxed);
            ended
        })
    };
    // Over several attempts, and a time in which the live one goes on.
    for _ in 0..40 {
        last = events.add("a", &[1]);
        let answer = tokio::time::timeout(SOON, database.fetch(&read, &[])).await;
        assert_eq!(answer.expect("a reader need not wait for the report").unwrap().len(), 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    live.wait_for(&last, SOON).await.unwrap();
    assert!(!switched.load(Ordering::Relaxed), "the report holds its table");
    report.rollback().await.unwrap();
    let reading = async {
        let others = [connect(url).await, connect(url).await];
        while !switched.load(Ordering::Relaxed) {
            for answer in futures::future::join_all(others.iter().map(|other| other.fetch(&read, &[]))).await {
                assert_eq!(answer.expect("readers only wait").len(), 1);
            }
        }
    };
    let ended = tokio::time::timeout(SOON, futures::future::join(rebuild, reading)).await.expect("it ends");
    ended.0.unwrap().unwrap();
    drop(live.stop().await); // it may have seen by itself that it is another version's
    let live = events.worker(&database).start(Viewed(Balances::of_version(2).with_column("note"))).await.unwrap();
    last = events.add("a", &[1]);
    live.wait_for(&last, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 42/42");
}

/// With a second table.
struct Paired(Balances, Table);

#[async_trait]
impl Projection for Paired {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn version(&self) -> u32 {
        self.0.version()
    }

    fn tables(&self) -> Vec<Table> {
        [self.0.tables(), vec![self.1.clone()]].concat()
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.0.project(tx, events).await
    }
}

/// Shows: queries that follow on each other without pause, and take two tables in the other order than the switch does, keep neither
/// from other columns.
pub async fn readers_of_two_tables_put_no_switch_off(url: &str) {
    if !url.starts_with("postgres") {
        return; // readers keep nobody from writing on SQLite
    }
    let database = connect(url).await;
    let mut events = Events::new();
    let last = events.add("a", &[1]);
    let pairs = || Table::new("pairs").key("account", Kind::Text);
    let live = events.worker(&database).share(SILENCE).start(Paired(Balances::default(), pairs())).await.unwrap();
    live.wait_for(&last, SOON).await.unwrap();
    let (balances, pairs_then) = (database.table_name("balances"), pairs().optional("note", Kind::Text));
    let read = format!(
        "SELECT count(*) AS n FROM (SELECT 1 AS one FROM {} LIMIT 1) AS p RIGHT JOIN {balances} AS b ON p.one = 1, \
         generate_series(1, 50000)",
        database.table_name("pairs")
    );
    let switched = AtomicBool::new(false);
    let rebuild = async {
        let newer = Paired(Balances::of_version(2).with_column("note"), pairs_then.clone());
        let ended = events.worker(&database).rebuild(newer, Check::Nothing, quiet).await;
        switched.store(true, Ordering::Relaxed);
        ended
    };
    let reader = async || {
        let other = connect(url).await;
        while !switched.load(Ordering::Relaxed) {
            other.fetch(&read, &[]).await.expect("readers only wait");
        }
    };
    let readers = futures::future::join_all([reader(), reader(), reader(), reader()]);
    let ended = tokio::time::timeout(SOON, futures::future::join(rebuild, readers)).await.expect("it ends");
    ended.0.unwrap();
}

/// Shows: a rebuild does not take another projection's table for its own.
pub async fn tables_that_are_named_like_builds_are_refused(url: &str) {
    let database = connect(url).await;
    let events = Events::new();
    let _live = events.worker(&database).start(Balances::default()).await.unwrap();
    let other = Balances::named("other").with_table("balances_b2");
    let error = events.worker(&database).start(other).await.unwrap_err().to_string();
    let reason = "names that end in _b and a number are those of builds of another table";
    assert_eq!(error, format!(r#"table "balances_b2": {reason}"#));
    let other = Balances::named("other").with_table("balances_b2b");
    let _other = events.worker(&database).start(other).await.unwrap();
}
