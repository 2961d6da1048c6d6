//! What servers, networks and administrators do to a read model on PostgreSQL.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use es_projections::{ConnectOptions, Database, Error, WorkerState};
use es_tests::{Postgres, Wire};

use super::cases::accounts::{everything, model};
use super::cases::support::{Balances, Events, SOON, balances, caught_up, chain, connect, eventually};

/// The URL through a proxy.
fn through(url: &str, server: &Postgres, wire: &Wire) -> String {
    url.replace(&format!(":{}/", server.port()), &format!(":{}/", wire.port()))
}

/// Shows: where a server falls silent, or the network to it is cut, every query ends in time, no connection is kept for it, and queries
/// and workers go on as soon as there is a way again, however many gave up their queries half way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_silent_server_is_given_up_and_found_again() {
    let server = Postgres::shared().await;
    let wire = Wire::start(server.port()).await;
    let url = through(&server.database().await, server, &wire);
    let options = ConnectOptions { connections: 4, statement_max: Duration::from_secs(2), ..ConnectOptions::default() };
    let database = Database::connect_with(&url, "bank", options).await.unwrap();
    let mut events = Events::new();
    let worker = events.worker(&database).start(model()).await.unwrap();
    events.move_money("a", 5);
    caught_up(&worker).await;
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut readers = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (database, answered, failed) = (database.within(Duration::from_secs(1)), answered.clone(), failed.clone());
        readers.spawn(async move {
            loop {
                let query = database.fetch("SELECT pg_sleep(0.01) IS NULL AS x", &[]);
                // Half of them are given up before that, as by clients who go away.
                let waits = Duration::from_millis(if number % 2 == 0 { 60_000 } else { 100 });
                let counter = match tokio::time::timeout(waits, query).await {
                    Ok(Ok(_)) => &answered,
                    Ok(Err(error)) => {
                        assert!(matches!(error, Error::Unavailable { .. }), "{}", chain(&error));
                        &failed
                    }
                    Err(_) => {
                        assert_ne!(number % 2, 0, "a query did not end by itself");
                        continue;
                    }
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let more = async |counter: &AtomicU64, what: &str| {
        let before = counter.load(Ordering::Relaxed);
        eventually(what, || counter.load(Ordering::Relaxed) > before + 20).await;
    };
    more(&answered, "queries are answered").await;
    for _ in 0..2 {
        wire.silence();
        let last = events.move_money("b", 5);
        more(&answered, "queries are answered on new connections").await;
        worker.wait_for(&last, SOON).await.unwrap_or_else(|error| panic!("{}; {:?}", chain(&error), worker.state()));
    }
    wire.cut_off(true);
    more(&failed, "queries fail").await;
    let last = events.move_money("c", 5);
    let retrying = || matches!(worker.state(), WorkerState::Retrying { .. });
    eventually("the worker says that it is in trouble", retrying).await;
    wire.cut_off(false);
    more(&answered, "queries are answered again").await;
    worker.wait_for(&last, SOON).await.unwrap_or_else(|error| panic!("{}; {:?}", chain(&error), worker.state()));
    readers.abort_all();
    while let Some(ended) = readers.join_next().await {
        assert!(ended.is_err_and(|error| error.is_cancelled()), "a reader failed");
    }
}

/// Shows: whatever the server refuses for a while, a worker says so with the code, parks nothing, and goes on when it is mended; as a
/// role without special rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_a_server_refuses_for_a_while_ends_no_worker() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let name = url.rsplit_once('/').unwrap().1.to_owned();
    let role = format!("teller_{name}");
    let run = async |url: &str, statements: &[String]| {
        let admin = Database::connect_with(url, "admin", ConnectOptions { connections: 1, ..Default::default() })
            .await
            .unwrap();
        for statement in statements {
            admin.fetch(statement, &[]).await.unwrap_or_else(|error| panic!("{statement}: {}", chain(&error)));
        }
        admin.close().await;
    };
    // From another database, so that this one may be closed.
    let elsewhere = server.database().await;
    run(&url, &[format!("CREATE ROLE {role} LOGIN"), format!("GRANT ALL ON SCHEMA public TO {role}")]).await;
    let database = connect(&url.replace("postgres@", &format!("{role}@"))).await;
    let mut events = Events::new();
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    let cut = format!("SELECT pg_terminate_backend(pid) AS cut FROM pg_stat_activity WHERE usename = '{role}'");
    let set = |what: &str| format!("ALTER DATABASE {name} SET {what}");
    let may = |what: &str| format!("ALTER ROLE {role} {what}");
    let here = |sql: &str| (url.clone(), vec![sql.to_owned()]);
    let there = |sql: String| (elsewhere.clone(), vec![sql, cut.clone()]);
    let troubles = [
        ("25006", there(set("default_transaction_read_only = on")), there(set("default_transaction_read_only = off"))),
        ("28000", there(may("NOLOGIN")), there(may("LOGIN"))),
        ("53300", there(may("CONNECTION LIMIT 0")), there(may("CONNECTION LIMIT -1"))),
        (
            "55000",
            there(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")),
            there(format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")),
        ),
        (
            "42501",
            here(&format!("REVOKE ALL ON bank_accounts FROM {role}")),
            here(&format!("GRANT ALL ON bank_accounts TO {role}")),
        ),
        ("42P01", here("ALTER TABLE bank_accounts RENAME TO away"), here("ALTER TABLE away RENAME TO bank_accounts")),
        (
            "42703",
            here("ALTER TABLE bank_accounts RENAME balance TO away"),
            here("ALTER TABLE bank_accounts RENAME away TO balance"),
        ),
    ];
    for (code, (make_in, make), (mend_in, mend)) in troubles {
        events.move_money("a", 5);
        caught_up(&worker).await;
        run(&make_in, &make).await;
        events.move_money("b", 5);
        let told = || match worker.state() {
            WorkerState::Retrying { error, .. } => chain(&*error).contains(&format!("SQLSTATE {code}")),
            _ => false,
        };
        eventually(code, told).await;
        run(&mend_in, &mend).await;
        caught_up(&worker).await;
        assert_eq!(worker.status().await.parked, 0, "{code}");
    }
    // Somebody holds the table for longer than the role may wait.
    run(&elsewhere, &[set("statement_timeout = '300ms'"), cut.clone()]).await;
    let holder = connect(&url).await;
    let mut held = holder.begin().await.unwrap();
    held.execute("LOCK TABLE bank_accounts IN SHARE MODE", &[]).await.unwrap();
    events.move_money("c", 5);
    events.move_money("d", 5);
    let told = || match worker.state() {
        WorkerState::Retrying { error, attempts, .. } => chain(&*error).contains("SQLSTATE 57014") && attempts > 2,
        _ => false,
    };
    eventually("57014", told).await;
    held.rollback().await.unwrap();
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 0);
    let undisturbed = connect("sqlite::memory:").await;
    let alone = events.worker(&undisturbed).start(model()).await.unwrap();
    caught_up(&alone).await;
    assert_eq!(everything(&holder).await, everything(&undisturbed).await);
}

/// Shows: at the start it is told why a server can't be used, and not only that time ran out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_server_that_can_not_be_used_is_told_with_its_cause() {
    let server = Postgres::shared().await;
    let wire = Wire::start(server.port()).await;
    let url = server.database().await;
    wire.cut_off(true);
    let nobody = format!("postgres://postgres@127.0.0.1:{}/bank", es_tests::free_port());
    let causes = [
        (nobody, "Connection refused"),
        (through(&url, server, &wire), "it does not answer to a new connection within"),
        (format!("{url}_2"), "SQLSTATE 3D000: there is no such database: create it, or mend the URL"),
        (url.replace("postgres@", "nobody@"), "SQLSTATE 28000: the user or the password is not right"),
    ];
    for (url, cause) in causes {
        let connecting = tokio::time::timeout(SOON, Database::connect(&url, "bank"));
        let error = chain(&connecting.await.expect("it does not wait for ever").unwrap_err());
        assert!(error.contains(cause), "{error}");
    }
}

/// Shows: a server that is killed while it commits, before or after it has, costs no event and doubles none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_server_killed_in_a_commit_costs_no_event_and_doubles_none() {
    let mut server = Postgres::start().await;
    let wire = Wire::start(server.port()).await;
    let url = through(&server.database().await, &server, &wire);
    let mut events = Events::new();
    let worker = events.worker(&connect(&url).await).batch_max(40).start(Balances::default()).await.unwrap();
    for _ in 0..5 {
        for number in 0..300 {
            events.add(&format!("a{}", number % 7), &[1, 2]);
        }
        wire.mute_after(Some("COMMIT"));
        wire.muted().await;
        server.kill().await;
        wire.mute_after(None);
        server.restart().await;
    }
    caught_up(&worker).await;
    let totals = (0..7).map(|number| {
        let commands = 5 * (0..300).filter(|command| command % 7 == number).count();
        format!("a{number} {}/{}", 3 * commands, 2 * commands)
    });
    assert_eq!(balances(&connect(&url).await).await, totals.collect::<Vec<_>>().join(", "));
    worker.stop().await.unwrap();
}
