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
