//! The cases on SQLite.

mod cases;

use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use cases::support::{Balances, Events, SOON, balances, chain, connect, eventually};
use es_core::Recorded;
use es_projections::{Projection, ProjectionError, Tx, WorkerState};

/// The URL of a database of the test's own.
fn url(folder: &Path) -> String {
    format!("sqlite://{}/test.db", folder.display())
}

macro_rules! tests {
    ($($module:ident: $($name:ident)*;)*) => {$(
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let folder = tempfile::tempdir().unwrap();
                    super::cases::$module::$name(&super::url(folder.path())).await;
                }
            )*
        }
    )*};
}

for_each_case!(tests);

/// A read model for which there is no room, as often as it is told.
struct Full {
    balances: Balances,
    times: AtomicI64,
}

#[async_trait]
impl Projection for Full {
    crate::passes_on_to!(balances);

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        self.balances.project(tx, events).await?;
        if self.times.fetch_sub(1, Ordering::Relaxed) > 0 {
            // As SQLite does on a full disk, it ends the transaction by itself.
            tx.fetch("PRAGMA max_page_count = 1", &[]).await?;
            tx.execute("CREATE TABLE more AS SELECT randomblob(1000000) AS bytes", &[]).await?;
        }
        Ok(())
    }
}

/// Shows: after a full disk a worker goes on as soon as there is room, and so does everybody else who writes; nothing is parked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_gone_on_from_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let database = connect(&url(folder.path())).await;
    let mut events = Events::new();
    let full = Full { balances: Balances::default(), times: AtomicI64::new(3) };
    let worker = events.worker(&database).park_after(0).start(full).await.unwrap();
    let last = events.add("a", &[1]);
    eventually("it is told with what helps", || match worker.state() {
        WorkerState::Retrying { error, .. } => chain(&*error).contains("the disk is full: make room"),
        _ => false,
    })
    .await;
    worker.wait_for(&last, SOON).await.unwrap_or_else(|error| panic!("{}; {:?}", chain(&error), worker.state()));
    assert_eq!((balances(&database).await.as_str(), worker.status().await.parked), ("a 1/1", 0));
}

/// Shows: a transaction in which a statement failed leaves no trace on the connection, whoever drops it, in a file or in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_transaction_leaves_the_next_one_alone() {
    let folder = tempfile::tempdir().unwrap();
    for url in [url(folder.path()), "sqlite::memory:".to_owned()] {
        let database = connect(&url).await;
        let mut tx = database.begin().await.unwrap();
        tx.execute("CREATE TABLE t (n INTEGER)", &[]).await.unwrap();
        tx.commit().await.unwrap();
        for _ in 0..3 {
            let mut tx = database.begin().await.unwrap();
            tx.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
            tx.execute("INSERT INTO nowhere VALUES (1)", &[]).await.unwrap_err();
            drop(tx);
            let mut given_up = database.begin().await.unwrap();
            let slow = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300000) SELECT max(x) AS x FROM n";
            let waited = tokio::time::timeout(std::time::Duration::ZERO, given_up.fetch(slow, &[])).await;
            assert!(waited.is_err(), "it is given up half way");
        }
        assert_eq!(database.fetch("SELECT count(*) AS n FROM t", &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 0);
        let mut tx = database.begin().await.unwrap();
        tx.execute("INSERT INTO t VALUES (1)", &[]).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(database.fetch("SELECT count(*) AS n FROM t", &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 1);
    }
}

/// Shows, by compiling: everything can be awaited in a task of a multi-threaded runtime.
#[expect(dead_code, reason = "compiling it is the test")]
fn futures_are_send(
    database: &es_projections::Database,
    worker: &es_projections::RunningProjection,
    events: &cases::support::Events,
) {
    fn send(_: impl Send) {}
    let position = "account/0@1".parse().expect("a position");
    let soon = std::time::Duration::ZERO;
    send(es_projections::Database::connect("", ""));
    send(database.fetch("", &[]));
    send(database.begin());
    send(database.remove_projection(""));
    send(es_projections::audit::Query::default().run(database));
    send(es_projections::audit::Query::default().explain(database));
    let (query, folder) = (es_projections::audit::Query::default(), Path::new(""));
    send(es_projections::audit::export(database, &query, Default::default(), folder, |_| ()));
    send(es_projections::audit::check_export(folder));
    send(events.worker(database).start(cases::support::Balances::default()));
    send(events.worker(database).verify(cases::support::Balances::default(), |_| {}));
    send(worker.wait_for(&position, soon));
    send(worker.catch_up(soon));
    send(worker.status());
    send(worker.stop());
}
