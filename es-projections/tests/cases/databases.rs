//! What is asked of a database: at one moment, for good, and by a worker that has something to do.

use std::time::Duration;

use es_core::doc::Account;
use es_core::log::memory::MemoryLog;
use es_core::{EventSource, Version};
use es_projections::{ConnectOptions, Database, Error, Model, ReadModel};

use super::accounts::*;
use super::support::*;

/// Shows: pages that are read one after the other are of one moment, whatever is folded in between.
pub async fn read_models_are_read_at_one_moment(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 5);
    events.move_money("b", 7);
    let worker = events.worker(&database).start(model()).await.unwrap();
    caught_up(&worker).await;
    let mut moment = database.at_one_moment(&[AccountRow::NAME]).await.unwrap();
    let before = moment.rows::<AccountRow>("WHERE id < ? ORDER BY id", &["b".into()]).await.unwrap();
    events.move_money("a", -3);
    let last = events.move_money("b", 3);
    worker.wait_for(&last, SOON).await.unwrap();
    caught_up(&worker).await;
    let after = moment.rows::<AccountRow>("WHERE id >= ? ORDER BY id", &["b".into()]).await.unwrap();
    assert_eq!((before[0].balance, after[0].balance), (5, 7));
    drop(moment);
    assert_eq!(shown(&database).await, "a 2/2, b 10/2");
}

/// Shows: a worker that would have nothing to do, or lacks what it needs, says so at its start rather than to look up to date.
pub async fn a_worker_that_can_fold_nothing_in_does_not_start(url: &str) {
    let database = connect(url).await;
    let events = Events::new();
    let start = async |model: Model<AccountRow>, sources: Vec<EventSource>| {
        let log = std::sync::Arc::new(events.log.clone());
        let worker = es_projections::Worker::new(database.clone(), log, sources);
        worker.start(model).await.map(drop).unwrap_err().to_string()
    };
    let nothing = start(Model::<AccountRow>::new(), vec![events.source.clone()]).await;
    assert_eq!(nothing, "projection accounts follows no aggregate: give it one with `follow`");
    let other = Events::of("branch", MemoryLog::new(PARTITIONS)).source;
    let missing = start(Model::<AccountRow>::new().follow::<Account>(), vec![other]).await;
    let told = "projection accounts follows aggregate account, and its worker was given the events of branch only: give it that one's \
                source, too";
    assert_eq!(missing, told);
    let tables = format!("SELECT count(*) AS n FROM {}", database.table_name("es_builds"));
    assert_eq!(database.fetch(&tables, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 0, "nothing was made");
}

/// Shows: what no checkpoint would tell the loss of, fences, wishes and cuts, is committed so that it outlives a crash of the machine.
pub async fn what_no_checkpoint_tells_is_durable(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let table = |name: &str| database.table_name(name);
    let seen = table("seen_commits");
    let how = match url.starts_with("sqlite") {
        // 1: synced now and then; 2: at each commit.
        true => "(SELECT CASE synchronous WHEN 2 THEN 'on' ELSE 'off' END FROM pragma_synchronous)",
        false => "current_setting('synchronous_commit')",
    };
    let watched = [
        ("es_cuts", "INSERT"),
        ("es_parked", "UPDATE"),
        ("es_skipped", "INSERT"),
        ("es_checkpoints", "UPDATE OF fence"),
    ];
    let mut tx = database.begin().await.unwrap();
    tx.execute(&format!("CREATE TABLE {seen} (what TEXT, how TEXT)"), &[]).await.unwrap();
    for (name, what) in watched {
        let (trigger, on) = (format!("seen_{name}"), table(name));
        let insert = format!("INSERT INTO {seen} VALUES ('{name}', {how});");
        let statements = match url.starts_with("sqlite") {
            true => vec![format!("CREATE TRIGGER {trigger} AFTER {what} ON {on} BEGIN {insert} END")],
            false => vec![
                format!(
                    "CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {insert} RETURN NULL; END $$"
                ),
                format!("CREATE TRIGGER {trigger} AFTER {what} ON {on} FOR EACH ROW EXECUTE FUNCTION {trigger}()"),
            ],
        };
        for statement in statements {
            tx.execute(&statement, &[]).await.unwrap();
        }
    }
    tx.commit().await.unwrap();
    let worker = events.worker(&database).park_after(0).start(model()).await.unwrap();
    events.move_money("a", FAILS as i64);
    caught_up(&worker).await;
    let parked = database.parked("accounts", 1).await.unwrap();
    assert_eq!(parked[0].version, Version::new(1));
    let stream = es_core::StreamId { category: "account".into(), id: key("a") };
    database.skip_parked("accounts", &stream, parked[0].event_id, "ada", "an error", SOON).await.unwrap();
    events.worker(&database).save_cut("then").await.unwrap();
    let rows = database.fetch(&format!("SELECT DISTINCT what, how FROM {seen} ORDER BY what"), &[]).await.unwrap();
    let told: Vec<_> =
        rows.iter().map(|row| (row.get::<String>("what").unwrap(), row.get::<String>("how").unwrap())).collect();
    let durable =
        ["es_checkpoints", "es_cuts", "es_parked", "es_skipped"].map(|what| (what.to_owned(), "on".to_owned()));
    assert_eq!(told, durable);
}

/// Shows: a statement that was given up, since it took too long, ends and holds nothing any more: others write soon.
pub async fn what_is_given_up_ends(url: &str) {
    let database = connect(url).await;
    let endless = match url.starts_with("sqlite") {
        true => "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) AS x FROM n",
        false => "SELECT count(*) AS x FROM generate_series(1, 1000000000000)",
    };
    let table = database.table_name("counted");
    let mut tx = database.begin().await.unwrap();
    tx.execute(&format!("CREATE TABLE {table} (n INTEGER)"), &[]).await.unwrap();
    tx.execute(&format!("INSERT INTO {table} VALUES (0)"), &[]).await.unwrap();
    tx.commit().await.unwrap();
    let soon = database.within(Duration::from_millis(500));
    let write = async || {
        let mut tx = soon.begin().await?;
        tx.execute(&format!("UPDATE {table} SET n = n + 1"), &[]).await?;
        Ok::<_, Error>(tx)
    };
    let mut tx = loop {
        match write().await {
            Ok(tx) => break tx,
            Err(error) => assert!(error.is_retryable(), "{error:?}"), // the machine is slow
        }
    };
    let error = tx.fetch(endless, &[]).await.unwrap_err();
    assert!(error.is_retryable() && chain(&error).contains("does not answer within"), "{}", chain(&error));
    drop(tx);
    let written = async {
        loop {
            let written = match write().await {
                Ok(tx) => tx.commit().await,
                Err(error) => Err(error),
            };
            match written {
                Ok(()) => break,
                Err(error) => assert!(error.is_retryable(), "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(SOON, written).await.expect("what was given up holds nothing");
}

/// Shows: every time may be allowed, none and all there is among them, for a database and for a question.
pub async fn any_time_may_be_allowed(url: &str) {
    for statement_max in [Duration::MAX, Duration::from_secs(60)] {
        let options = ConnectOptions { statement_max, ..ConnectOptions::default() };
        let database = Database::connect_with(url, "bank", options).await.unwrap();
        for limit in [Duration::MAX, Duration::from_secs(u64::from(u32::MAX))] {
            let patient = database.within(limit);
            assert_eq!(patient.fetch("SELECT 1 AS one", &[]).await.unwrap().len(), 1);
            patient.begin().await.unwrap().commit().await.unwrap();
        }
        let asked = database.within(Duration::ZERO).fetch("SELECT 1 AS one", &[]).await;
        assert!(asked.as_ref().err().is_none_or(Error::is_retryable), "{asked:?}");
        assert_eq!(database.fetch("SELECT 1 AS one", &[]).await.unwrap().len(), 1);
    }
}
