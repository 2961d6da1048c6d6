//! Read models on PostgreSQL: the cases that every database passes, and a server that goes away under load.

#[path = "../../es-projections/tests/cases/mod.rs"]
mod cases;
mod server_faults;

use std::time::Duration;

use cases::accounts::{everything, model};
use cases::support::{Balances, Events, balances, caught_up, chain, connect, count};
use es_projections::audit::{AuditTrail, Query};
use es_projections::{ConnectOptions, Database, Error};
use es_tests::Postgres;

macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                #[ignore = "needs PostgreSQL: run scripts/test"]
                async fn $name() {
                    let url = es_tests::Postgres::shared().await.database().await;
                    super::cases::$module::$name(&url).await;
                }
            )*
        }
    )*};
}

crate::for_each_case!(tests);

/// Shows: whatever the server's stops, crashes and lost commits do to a worker, rows equal the fold of the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_server_that_goes_away_under_load_costs_no_event_and_doubles_none() {
    let mut server = Postgres::start().await;
    let url = server.database().await;
    let database = connect(&url).await;
    let mut events = Events::new();
    let sum = events.worker(&database).batch_max(50).start(Balances::default()).await.unwrap();
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let trail = events.worker(&database).batch_max(50).start(trail).await.unwrap();
    let mut written = 0;
    for round in 0..6 {
        for number in 0..400 {
            events.add(&format!("a{}", number % 7), &[1, 2]);
            written += 2;
            if number == 200 {
                if round % 2 == 0 { server.kill().await } else { server.stop().await }
            }
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        server.restart().await;
    }
    caught_up(&sum).await;
    caught_up(&trail).await;
    assert_eq!(count(&database, "audit").await, written);
    let totals = (0..7).map(|number| {
        let commands = 6 * (0..400).filter(|command| command % 7 == number).count();
        format!("a{number} {}/{}", 3 * commands, 2 * commands)
    });
    assert_eq!(balances(&database).await, totals.collect::<Vec<_>>().join(", "));
    sum.stop().await.unwrap();
    trail.stop().await.unwrap();
}

/// Shows: a derived read model that two workers share has the rows of an undisturbed one, however the server's stops and
/// crashes move partitions between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_server_that_goes_away_under_load_costs_two_that_share_no_row() {
    let mut server = Postgres::start().await;
    let url = server.database().await;
    let mut events = Events::new();
    let _time = cases::silence::running(&events);
    let mut sharing = Vec::new();
    for name in ["one", "two"] {
        // Connections of its own, as another process has.
        let worker = events.worker(&connect(&url).await).batch_max(50).name(name).share(Duration::from_secs(2));
        sharing.push(worker.start(model()).await.unwrap());
    }
    for round in 0..4 {
        for number in 0..400 {
            // No sum is 0, which would delete a row.
            events.move_money(&format!("a{}", number % 23), if number % 5 == 0 { -1 } else { 3 });
            if number == 200 {
                if round % 2 == 0 { server.kill().await } else { server.stop().await }
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        server.restart().await;
    }
    for worker in &sharing {
        caught_up(worker).await;
    }
    let undisturbed = connect("sqlite::memory:").await;
    let alone = events.worker(&undisturbed).start(model()).await.unwrap();
    caught_up(&alone).await;
    assert_eq!(everything(&connect(&url).await).await, everything(&undisturbed).await);
    for worker in &sharing {
        worker.stop().await.unwrap();
    }
}

/// Shows: no question to the audit trail is kept as a statement, which the server would plan for what is usual: what has many events
/// would be sorted as if it had few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn questions_to_the_audit_trail_are_planned_for_what_they_ask() {
    let url = Postgres::shared().await.database().await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let worker = events.worker(&connect(&url).await).start(trail).await.unwrap();
    caught_up(&worker).await;
    // One connection, so that the statements of all that it was used for are told.
    let options = ConnectOptions { connections: 1, ..ConnectOptions::default() };
    let database = Database::connect_with(&url, "bank", options).await.unwrap();
    for _ in 0..10 {
        let correlation = Some("conversation".parse().unwrap());
        let page = Query { correlation, limit: 1, ..Query::default() }.run(&database).await.unwrap();
        let next = Query {
            correlation: Some("conversation".parse().unwrap()),
            limit: 1,
            cursor: page.next,
            ..Query::default()
        };
        assert_eq!(next.run(&database).await.unwrap().entries.len(), 1);
    }
    let kept = "SELECT count(*) AS kept FROM pg_prepared_statements \
                WHERE statement LIKE '%bank_audit%' AND statement NOT LIKE '%pg_prepared_statements%'";
    assert_eq!(database.fetch(kept, &[]).await.unwrap()[0].get::<i64>("kept").unwrap(), 0);
    worker.stop().await.unwrap();
}

/// Shows: a server that is not there is named, without the password, after a bounded time.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_server_that_is_not_there_is_named() {
    let port = es_tests::free_port();
    let url = format!("postgres://teller:s3cret@127.0.0.1:{port}/bank");
    let options = ConnectOptions { attempts: 3, ..ConnectOptions::default() };
    let error = Database::connect_with(&url, "bank", options).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_retryable());
    let shown = format!("connecting on postgres://teller:***@127.0.0.1:{port}/bank failed");
    assert!(error.to_string().starts_with(&shown), "{error}");
}

/// Shows: what spares the server dead clients is set on each connection, one by one; what somebody has set for the role stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn each_connection_asks_the_server_to_give_up_by_itself() {
    let url = Postgres::shared().await.database().await;
    let set = async |database: &Database| {
        let sql = "SELECT string_agg(name || ' ' || setting, ', ' ORDER BY name) AS settings FROM pg_settings WHERE name IN \
                   ('client_connection_check_interval', 'idle_in_transaction_session_timeout', 'statement_timeout', \
                   'tcp_keepalives_idle', 'tcp_user_timeout')";
        database.fetch(sql, &[]).await.unwrap()[0].get::<String>("settings").unwrap()
    };
    let expected = "client_connection_check_interval 5000, idle_in_transaction_session_timeout 30000, statement_timeout 30000, \
                    tcp_keepalives_idle 15, tcp_user_timeout 30000";
    let database = connect(&url).await;
    assert_eq!(set(&database).await, expected);
    let name = url.rsplit('/').next().unwrap();
    for setting in ["statement_timeout = '7s'", "tcp_keepalives_idle = 99"] {
        database.fetch(&format!("ALTER DATABASE {name} SET {setting}"), &[]).await.unwrap();
    }
    let other = connect(&url).await;
    let expected = expected.replace("statement_timeout 30000", "statement_timeout 7000").replace("idle 15", "idle 99");
    assert_eq!(set(&other).await, expected);
    // One that the server refuses keeps none of the others.
    database.fetch(&format!("ALTER DATABASE {name} SET statement_timeout = 0"), &[]).await.unwrap();
    assert!(set(&connect(&url).await).await.contains("statement_timeout 0"));
}

/// Shows: a connection that the server has ended is told once, and not used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_connection_that_the_server_ended_is_not_used_again() {
    let url = Postgres::shared().await.database().await;
    let options = ConnectOptions { connections: 1, ..ConnectOptions::default() };
    let database = Database::connect_with(&url, "bank", options).await.unwrap();
    for _ in 0..20 {
        let error = database.fetch("SELECT pg_terminate_backend(pg_backend_pid()) AS ended", &[]).await.unwrap_err();
        assert!(error.is_retryable(), "{error:?}");
        database.fetch("SELECT 1 AS one", &[]).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}

/// Shows: before the live table takes over what was built the planner knows how much that is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn what_was_built_is_counted_before_it_is_taken_over() {
    let database = connect(&Postgres::shared().await.database().await).await;
    let mut events = Events::new();
    (0..50).for_each(|number| drop(events.move_money(&format!("a{number}"), 1)));
    let worker = events.worker(&database).share(Duration::from_secs(5));
    caught_up(&worker.start(model()).await.unwrap()).await;
    let mut counted = 0;
    let look = |_| {
        let sql = "SELECT count(DISTINCT tablename) AS n FROM pg_stats WHERE tablename LIKE 'bank%_b2'";
        let look = async { database.fetch(sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap() };
        let now = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(look));
        counted = counted.max(now);
    };
    worker.rebuild(model(), es_projections::Check::Equal, look).await.unwrap();
    assert_eq!(counted, 2, "both tables");
}

/// Shows: while a table gets other columns again and again, all who ask go on, though each connection has its statement
/// prepared for the old ones.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn other_columns_are_read_on_every_connection() {
    const CONNECTIONS: u32 = 8;
    let url = Postgres::shared().await.database().await;
    let options = ConnectOptions { connections: CONNECTIONS, ..ConnectOptions::default() };
    let (admin, database) = (connect(&url).await, Database::connect_with(&url, "bank", options).await.unwrap());
    admin.fetch("CREATE TABLE changing (n BIGINT)", &[]).await.unwrap();
    admin.fetch("INSERT INTO changing VALUES (1)", &[]).await.unwrap();
    let changed = std::sync::atomic::AtomicBool::new(false);
    let change = async {
        for round in 0..200 {
            admin.fetch(&format!("ALTER TABLE changing ADD COLUMN c{round} BIGINT"), &[]).await.unwrap();
        }
        changed.store(true, std::sync::atomic::Ordering::Relaxed);
    };
    let asked = (0..5).map(async |_| {
        while !changed.load(std::sync::atomic::Ordering::Relaxed) {
            let rows = database.fetch("SELECT * FROM changing", &[]).await;
            rows.unwrap_or_else(|error| panic!("{}", chain(&error)));
        }
    });
    tokio::join!(change, futures::future::join_all(asked));
}

/// Shows: a moment is not ended by a statement that its connection has prepared for the columns that a table had before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn a_moment_reads_other_columns_than_the_one_before() {
    let url = Postgres::shared().await.database().await;
    let options = ConnectOptions { connections: 1, ..ConnectOptions::default() };
    let (admin, database) = (connect(&url).await, Database::connect_with(&url, "bank", options).await.unwrap());
    admin.fetch("CREATE TABLE bank_changing (n BIGINT)", &[]).await.unwrap();
    for round in 0..3 {
        let read = "SELECT * FROM bank_changing";
        database.fetch(read, &[]).await.unwrap();
        admin.fetch(&format!("ALTER TABLE bank_changing ADD COLUMN c{round} BIGINT"), &[]).await.unwrap();
        let mut moment = database.at_one_moment(&["changing"]).await.unwrap();
        moment.fetch(read, &[]).await.unwrap_or_else(|error| panic!("round {round}: {}", chain(&error)));
    }
}
