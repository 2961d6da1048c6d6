//! The cases on SQLite.

mod cases;

use std::path::Path;

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

/// Shows, by compiling: everything can be awaited in a task of a multi-threaded runtime.
#[expect(dead_code, reason = "compiling it is the test")]
fn futures_are_send(
    database: &es_projections::Database,
    worker: &es_projections::Handle,
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
