//! What is logged, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::output::LogLines;

/// What a serving bank logs unless `RUST_LOG` says otherwise: our own news, and the troubles of others.
const WHILE_SERVING: &str = "warn,bank=info,es_core=info,es_kafka=info,es_projections=info";

/// Logs from the begin on where `RUST_LOG` asks for it. Otherwise a command tells its failure in one line, and what
/// led to it would only hide that line.
pub(crate) fn if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        begin(EnvFilter::from_default_env());
    }
}

/// Logs what happens while serving.
pub(crate) fn while_serving() {
    begin(EnvFilter::new(WHILE_SERVING));
}

fn begin(filter: EnvFilter) {
    let log = tracing_subscriber::fmt().with_writer(LogLines).with_ansi(std::io::stderr().is_terminal());
    // Fails where it has begun already, and then that is what was asked for.
    let _ = log.with_env_filter(filter).try_init();
}
