//! Figures of the framework, each beside the raw floor of the same work from the same run.
//!
//! Ours and the floor are measured in turn and the medians reported, so that a busy machine slows both alike.

mod account;
mod audit;
mod bank;
mod embedded;
mod figure;
mod floor;
mod forwarded;
mod kafka;
mod load;
mod memory;
mod replay;
mod restore;
mod servers;
mod takeover;
mod validity;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::figure::Figure;
use crate::replay::Target;
use crate::servers::Servers;
use crate::takeover::{Going, Kept};

// So that the floors are not slowed by the allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a figure, or the run, may fail with.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Prints a line per figure: its name, our value, the raw floor of the same work, and the ratio of both.
#[derive(Debug, Parser)]
#[command(name = "bench")]
pub(crate) struct Args {
    /// The figures to measure; all unless given.
    names: Vec<String>,
    /// One JSON object a line.
    #[arg(long)]
    json: bool,
    /// Names the figures and says what each is.
    #[arg(long)]
    list: bool,
    /// Tells each turn's measurement on standard error, and what it took of the processor.
    #[arg(long)]
    verbose: bool,
    /// A broker to use; unless given, one is started.
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// A PostgreSQL database to use; unless given, a server is started.
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The events of the audit trail that is asked: 10,000,000 take 10 GB of disk.
    #[arg(long, value_name = "N", default_value_t = 10_000_000, value_parser = clap::value_parser!(i64).range(1..))]
    trail_events: i64,
    /// What a figure starts as a process of its own.
    #[arg(long, hide = true, value_name = "DIR")]
    open_accounts: Option<PathBuf>,
    /// The same; `--kafka` and the three below tell it the rest.
    #[arg(long, hide = true, value_name = "DIR")]
    own_accounts: Option<PathBuf>,
    #[arg(long, hide = true)]
    namespace: Option<String>,
    #[arg(long, hide = true)]
    node: Option<String>,
    #[arg(long, hide = true)]
    standby: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(dir) = &args.open_accounts {
        return report("opening accounts", memory::open_accounts(dir).await)
            .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if let Some(dir) = &args.own_accounts {
        return report("owning accounts", takeover::own_accounts(dir, &args).await)
            .map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if args.verbose {
        figure::be_verbose();
    }
    if args.list {
        for (name, what) in FIGURES {
            println!("{name:24} {what}");
        }
        return ExitCode::SUCCESS;
    }
    let known = |name: &str| FIGURES.iter().any(|(known, _)| *known == name);
    if let Some(unknown) = args.names.iter().find(|name| !known(name)) {
        eprintln!("there is no figure {unknown}: --list names them");
        return ExitCode::from(2);
    }
    let wanted = |name: &str| args.names.is_empty() || args.names.iter().any(|wanted| wanted == name);
    let mut servers = Servers::new(&args);
    let mut failed = false;
    for (name, _) in FIGURES.iter().filter(|(name, _)| wanted(name)) {
        match report(name, measure(name, &args, &mut servers).await) {
            Some(figure) if args.json => println!("{}", figure.json()),
            Some(figure) => println!("{figure}"),
            None => failed = true,
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Says what failed, with its causes.
fn report<T>(what: &str, result: Result<T, Failure>) -> Option<T> {
    let error = match result {
        Ok(value) => return Some(value),
        Err(error) => error,
    };
    eprintln!("{what}: {}", es_core::with_causes(&*error));
    None
}

const FIGURES: &[(&str, &str)] = &[
    (
        "embedded-256",
        "256 senders on 1,000 accounts; floor: a loop that appends the same bytes, a sync for what is queued",
    ),
    ("embedded-1", "one sender; floor: one append to a file and a sync, of the same bytes"),
    (
        "kafka-256",
        "256 senders on 1,000 accounts in 4 partitions; floor: a bare owner loop that produces the same records",
    ),
    ("kafka-256-keys", "the same where each command has an id of its sender's, so that it may be sent again"),
    ("kafka-1", "one sender; floor: one idempotent produce at a time, of the same records"),
    ("kafka-hot-16", "16 senders on one account; floor: as kafka-256"),
    (
        "forwarded-1",
        "one sender to accounts that another process owns; floor: a bare loop of the same hops with the same records",
    ),
    (
        "restore-kafka",
        "a start without local state, from 1,000,000 snapshots; floor: a bare consumer of the same records",
    ),
    (
        "validity-rule",
        "reading and decoding 300,000 events from Kafka with the validity rule; floor: the same without the rule",
    ),
    (
        "validity-rule-alone",
        "the rule on records that are decoded; floor: all that reading one takes, so the ratio is its part",
    ),
    (
        "takeover-kill",
        "1,000,000 accounts; from `kill -9` of one of three processes until all is served again; floor: the session",
    ),
    ("takeover-kill-standby", "the same where the others follow its partitions"),
    ("takeover-kill-empty", "the same where the others have no local state, save of what they owned before"),
    ("takeover-stop", "as takeover-kill, from SIGTERM; without a floor"),
    ("takeover-stop-standby", "the same where the others follow its partitions"),
    ("takeover-stop-empty", "the same where the others have no local state, save of what they owned before"),
    ("import-embedded", "`bank import` of the transactions; floor: reading the file, appending each line to another"),
    ("import-kafka-postgres", "the same with Kafka and PostgreSQL; floor: reading the file, producing each line"),
    ("replay-balances", "events into a derived row per account, in SQLite; floor: bulk statements of the same rows"),
    ("replay-audit", "events into the audit trail, in SQLite; floor: bulk statements of the same rows"),
    (
        "audit-queries",
        "the worst kind of question to an audit trail of 10,000,000 events, in SQLite: a page of 50; without a floor",
    ),
    ("audit-queries-postgres", "the same in PostgreSQL"),
    ("replay-balances-kafka-postgres", "as replay-balances, from Kafka into PostgreSQL"),
    ("replay-audit-kafka-postgres", "as replay-audit, from Kafka into PostgreSQL"),
    (
        "live-lag-kafka-postgres",
        "from an acknowledged command to its visible row, at 5,000 commands/s; without a floor",
    ),
    (
        "rebuild-slowdown-kafka-postgres",
        "how much less 256 senders get done while a read model is rebuilt; without a floor",
    ),
    (
        "replay-memory-10m",
        "how much the process grows from the first to the last million of 10,000,000 events replayed into SQLite",
    ),
    ("memory-1m", "peak resident memory of `bank serve` with 1,000,000 accounts opened over HTTP"),
    ("memory-core-1m", "the same of the framework alone, without HTTP and read models"),
];

async fn measure(name: &'static str, args: &Args, servers: &mut Servers) -> Result<Figure, Failure> {
    match name {
        "embedded-256" => embedded::many(name).await,
        "embedded-1" => embedded::one(name).await,
        "kafka-256" => kafka::many(name, servers.kafka().await, 256, 1_000, false).await,
        "kafka-256-keys" => kafka::many(name, servers.kafka().await, 256, 1_000, true).await,
        "kafka-1" => kafka::one(name, servers.kafka().await).await,
        "kafka-hot-16" => kafka::many(name, servers.kafka().await, 16, 1, false).await,
        "forwarded-1" => forwarded::one(name, servers.kafka().await).await,
        "restore-kafka" => restore::restore(name, servers.kafka().await).await,
        "validity-rule" => validity::reading(name, servers.kafka().await).await,
        "validity-rule-alone" => validity::alone(name, servers.kafka().await).await,
        "takeover-kill" => takeover::takeover(name, servers.accounts().await?, Going::Killed, Kept::State).await,
        "takeover-kill-standby" => {
            takeover::takeover(name, servers.accounts().await?, Going::Killed, Kept::Standby).await
        }
        "takeover-kill-empty" => {
            takeover::takeover(name, servers.accounts().await?, Going::Killed, Kept::Nothing).await
        }
        "takeover-stop" => takeover::takeover(name, servers.accounts().await?, Going::Stopped, Kept::State).await,
        "takeover-stop-standby" => {
            takeover::takeover(name, servers.accounts().await?, Going::Stopped, Kept::Standby).await
        }
        "takeover-stop-empty" => {
            takeover::takeover(name, servers.accounts().await?, Going::Stopped, Kept::Nothing).await
        }
        "import-embedded" => bank::import_embedded(name, &es_tests::transactions()).await,
        "import-kafka-postgres" => {
            let broker = servers.kafka().await;
            let databases = servers.databases(bank::IMPORTS).await;
            bank::import_kafka(name, &es_tests::transactions(), &broker, databases).await
        }
        "replay-balances" => replay::embedded(name, Target::Balances, 400_000).await,
        "replay-audit" => replay::embedded(name, Target::Audit, 200_000).await,
        "replay-balances-kafka-postgres" | "replay-audit-kafka-postgres" => {
            let (broker, databases) = (servers.kafka().await, servers.databases(replay::DATABASES).await);
            let (into, events) = match name {
                "replay-balances-kafka-postgres" => (Target::Balances, 400_000),
                _ => (Target::Audit, 200_000),
            };
            replay::kafka(name, into, events, &broker, databases).await
        }
        "audit-queries" => {
            let dir = embedded::folder()?;
            audit::queries(name, &format!("sqlite://{}", dir.path().join("trail.db").display()), args.trail_events)
                .await
        }
        "audit-queries-postgres" => audit::queries(name, &servers.databases(1).await[0], args.trail_events).await,
        "live-lag-kafka-postgres" => {
            let (broker, databases) = (servers.kafka().await, servers.databases(1).await);
            replay::live_lag(name, &broker, &databases[0]).await
        }
        "rebuild-slowdown-kafka-postgres" => {
            let (broker, databases) = (servers.kafka().await, servers.databases(1).await);
            replay::rebuild_slowdown(name, &broker, &databases[0]).await
        }
        "replay-memory-10m" => replay::memory(name).await,
        "memory-1m" => memory::of_bank(name).await,
        "memory-core-1m" => memory::of_core(name).await,
        _ => unreachable!("the names were checked against the list"),
    }
}
