//! Replaying a log into read models.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::log::Log;
use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::{Bus, Engine, EngineConfig, EventSource, Recorded};
use es_kafka::{KafkaConfig, KafkaLog};
use es_projections::audit::AuditTrail;
use es_projections::{
    Check, ConnectOptions, Database, Fold, Model, Projection, ProjectionError, ReadModel, Rows, Table, Value, Worker,
};

use crate::Failure;
use crate::account::{Account, AccountEvent, Deposits};
use crate::embedded::folder;
use crate::figure::{Figure, detail, median};
use crate::floor::BulkInsert;
use crate::load::{cpu_seconds, rate};
use crate::memory::resident_mb;

const ACCOUNTS: usize = 1_000;
const TURNS: usize = 3;
/// What a worker takes at once, unless told otherwise.
const BATCH: usize = 2_000;
const PATIENCE: Duration = Duration::from_secs(300);

/// An account's balance, as a user would declare it.
#[derive(Debug, Clone, ReadModel)]
#[read_model(name = "balances")]
struct Balance {
    #[key]
    account: String,
    balance: i64,
    deposits: u64,
}

impl Fold<Account> for Balance {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let AccountEvent::Deposited { amount, .. } = event;
        let account = recorded.envelope.stream.id.to_string();
        let new = || Self { account: account.clone(), balance: 0, deposits: 0 };
        rows.change_or_insert(&account, new, |row| {
            row.balance += amount;
            row.deposits += 1;
        })
    }
}

/// What is filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Target {
    /// A derived row per account.
    Balances,
    /// The audit trail.
    Audit,
}

impl Target {
    /// The table, and how many of its rows a batch writes.
    fn table(self, source: &EventSource) -> (Table, usize) {
        match self {
            Self::Balances => (Model::<Balance>::new().follow::<Account>().tables().remove(0), ACCOUNTS),
            Self::Audit => (AuditTrail::new(std::slice::from_ref(source)).tables().remove(0), BATCH),
        }
    }

    async fn replay(self, worker: &Worker, source: &EventSource) -> Result<(), Failure> {
        let handle = match self {
            Self::Balances => worker.start(Model::<Balance>::new().follow::<Account>()).await?,
            Self::Audit => worker.start(AuditTrail::new(std::slice::from_ref(source))).await?,
        };
        handle.catch_up(PATIENCE).await?;
        Ok(handle.stop().await?)
    }
}

/// Events a second from the embedded log into SQLite; floor: bulk statements of the same rows.
pub(crate) async fn embedded(name: &'static str, model: Target, events: usize) -> Result<Figure, Failure> {
    let dir = folder()?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path().join("log"), EmbeddedConfig::default())?);
    let source = fill(&log, "bank", dir.path(), events).await?;
    let urls = (0..TURNS).map(|turn| format!("sqlite://{}", dir.path().join(format!("{turn}.db")).display()));
    measure(name, model, events, &log, &source, urls.collect()).await
}

/// The same from Kafka into PostgreSQL.
pub(crate) async fn kafka(
    name: &'static str,
    model: Target,
    events: usize,
    broker: &str,
    databases: Vec<String>,
) -> Result<Figure, Failure> {
    let dir = folder()?;
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaConfig::new(broker)).await?);
    let source = fill(&log, &es_tests::unique_name("bench"), dir.path(), events).await?;
    measure(name, model, events, &log, &source, databases).await
}

/// Milliseconds from an acknowledged command to its visible row, the 99th of a hundred, at 5,000 commands a second, of a
/// broker that has been at work for a while; without a floor.
pub(crate) async fn live_lag(name: &'static str, broker: &str, url: &str) -> Result<Figure, Failure> {
    const PER_SECOND: u64 = 5_000;
    const WARM: Duration = Duration::from_secs(20);
    const MEASURED: Duration = Duration::from_secs(10);
    warn_of_autogroups();
    let dir = folder()?;
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaConfig::new(broker)).await?);
    let (engine, bus) = serving(&log, &es_tests::unique_name("bench"), dir.path()).await?;
    let database = Database::connect(url, "bank").await?;
    let worker = Worker::new(database.clone(), log, vec![bus.source().clone()]);
    let balances = worker.start(Model::<Balance>::new().follow::<Account>()).await?;
    let deposits = Deposits::new(bus, ACCOUNTS);
    let mut pace = tokio::time::interval(Duration::from_millis(1));
    let mut waiting = tokio::task::JoinSet::new();
    let mut lags = Vec::new();
    let mut sent = 0;
    let started = Instant::now();
    while started.elapsed() < WARM + MEASURED {
        pace.tick().await;
        let due = started.elapsed().as_millis() as u64 * PER_SECOND / 1_000;
        while sent < due {
            let (deposits, balances, place) = (deposits.clone(), balances.clone(), sent as usize);
            waiting.spawn(async move {
                let position = deposits.position(place).await;
                let acknowledged = Instant::now();
                balances.wait_for(&position, PATIENCE).await.expect("the worker is well");
                (acknowledged, acknowledged.elapsed())
            });
            sent += 1;
        }
        while let Some(waited) = waiting.try_join_next() {
            lags.push(waited?);
        }
    }
    while let Some(waited) = waiting.join_next().await {
        lags.push(waited?);
    }
    balances.stop().await?;
    engine.shutdown().await;
    let mut lags: Vec<_> = lags.into_iter().filter(|(at, _)| *at - started > WARM).map(|(_, lag)| lag).collect();
    lags.sort_unstable();
    let at = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    detail(|| {
        format!("{} commands, p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms", lags.len(), at(0.5), at(0.99), at(1.0))
    });
    Ok(Figure { name, unit: "ms p99", value: at(0.99), floor: None })
}

/// Megabytes by which the process grows between the first and the last million of 10,000,000 events that it replays; without a
/// floor.
pub(crate) async fn memory(name: &'static str) -> Result<Figure, Failure> {
    const EVENTS: usize = 10_000_000;
    const PART: u64 = 1_000_000;
    let dir = folder()?;
    let log: Arc<dyn Log> = Arc::new(EmbeddedLog::open(dir.path().join("log"), EmbeddedConfig::default())?);
    let source = fill(&log, "bank", dir.path(), EVENTS).await?;
    let database = Database::connect(&format!("sqlite://{}", dir.path().join("rows.db").display()), "bank").await?;
    let worker = Worker::new(database, log, vec![source]);
    let handle = worker.start(Model::<Balance>::new().follow::<Account>()).await?;
    let (mut early, mut late) = (0.0_f64, 0.0_f64);
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let events: u64 = handle.progress().iter().map(|at| at.events).sum();
        if events < PART {
            early = early.max(resident_mb("self")?);
        } else if events >= EVENTS as u64 - PART {
            late = late.max(resident_mb("self")?);
        }
        if events >= EVENTS as u64 {
            break;
        }
    }
    handle.stop().await?;
    detail(|| format!("{early:.0} MB during the first {PART} events, {late:.0} MB during the last"));
    Ok(Figure { name, unit: "MB growth", value: late - early, floor: None })
}

/// How much less 256 senders get done while the read model is rebuilt, in percent; without a floor.
pub(crate) async fn rebuild_slowdown(name: &'static str, broker: &str, url: &str) -> Result<Figure, Failure> {
    const EVENTS: usize = 600_000;
    const SENDERS: usize = 256;
    const WINDOW: Duration = Duration::from_secs(3);
    warn_of_autogroups();
    let dir = folder()?;
    let log: Arc<dyn Log> = Arc::new(KafkaLog::connect(KafkaConfig::new(broker)).await?);
    let (engine, bus) = serving(&log, &es_tests::unique_name("bench"), dir.path()).await?;
    let model = || Model::<Balance>::new().follow::<Account>();
    let database = Database::connect(url, "bank").await?;
    let worker = Worker::new(database.clone(), log, vec![bus.source().clone()]).share(Duration::from_secs(5));
    let deposits = Deposits::new(bus, ACCOUNTS);
    deposits.fill(EVENTS).await?;
    let live = worker.start(model()).await?;
    live.catch_up(PATIENCE).await?;
    let (mut alone, mut beside) = (vec![], vec![]);
    rate(SENDERS, WINDOW, &deposits).await;
    for _ in 0..TURNS {
        alone.push(rate(SENDERS, WINDOW, &deposits).await.per_second);
        let rebuild = worker.rebuild(model(), Check::Nothing, |_| {});
        tokio::select! {
            rebuilt = rebuild => {
                rebuilt?;
                return Err("the rebuild ended before what it slows was measured".into());
            }
            rate = rate(SENDERS, WINDOW, &deposits) => beside.push(rate.per_second),
        }
        // The next one begins anew.
        database.remove_replaced(Balance::NAME).await?;
    }
    live.stop().await?;
    engine.shutdown().await;
    detail(|| format!("alone {alone:.0?}, beside a rebuild {beside:.0?} commands/s"));
    Ok(Figure { name, unit: "% slower", value: (1.0 - median(beside) / median(alone)) * 100.0, floor: None })
}

/// Each process of PostgreSQL is a session, and so a scheduling group, of its own: on a busy machine Linux lets such groups wait
/// for hundreds of milliseconds. A server that runs as a service is in a group with all its processes.
fn warn_of_autogroups() {
    let setting = std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    if setting.is_ok_and(|setting| setting.trim() != "0") {
        eprintln!(
            "bench: kernel.sched_autogroup_enabled keeps PostgreSQL from the processor, which it would not for a service: \
             set it to 0 before"
        );
    }
}

/// How many databases [`kafka`] needs.
pub(crate) const DATABASES: usize = TURNS;

/// The owners of all accounts, ready, with their state in `dir`.
async fn serving(log: &Arc<dyn Log>, namespace: &str, dir: &Path) -> Result<(Engine, Bus<Account>), Failure> {
    let (namespace, state_dir) = (Some(namespace.to_owned()), Some(dir.join("state")));
    let engine = Engine::new(log.clone(), EngineConfig { namespace, state_dir, ..EngineConfig::default() });
    let bus = engine.start::<Account>().await?;
    bus.ready().await?;
    Ok((engine, bus))
}

async fn fill(log: &Arc<dyn Log>, namespace: &str, dir: &Path, events: usize) -> Result<EventSource, Failure> {
    let (engine, bus) = serving(log, namespace, dir).await?;
    let source = bus.source().clone();
    Deposits::new(bus, ACCOUNTS).fill(events).await?;
    engine.shutdown().await;
    Ok(source)
}

async fn measure(
    name: &'static str,
    model: Target,
    events: usize,
    log: &Arc<dyn Log>,
    source: &EventSource,
    urls: Vec<String>,
) -> Result<Figure, Failure> {
    let (mut ours, mut floor) = (vec![], vec![]);
    for url in urls {
        let connect = ConnectOptions { connections: 4, ..ConnectOptions::default() };
        let database = Database::connect_with(&url, "bank", connect).await?;
        let worker = Worker::new(database.clone(), log.clone(), vec![source.clone()]);
        let (started, cpu) = (Instant::now(), cpu_seconds());
        model.replay(&worker, source).await?;
        let (took, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        detail(|| format!("{events} events in {took:.2} s, {cpu:.2} s of the processor"));
        ours.push(events as f64 / took);
        floor.push(events as f64 / bulk(&url, &database, model, events, source).await?);
        database.close().await;
    }
    Ok(Figure::of_medians(name, "events/s", ours, floor))
}

/// The seconds that plain statements take to write as many rows to a table of the same shape.
async fn bulk(
    url: &str,
    database: &Database,
    model: Target,
    events: usize,
    source: &EventSource,
) -> Result<f64, Failure> {
    let (table, rows) = model.table(source);
    let into = BulkInsert::like(url, &table).await?;
    let order = table.key_columns().iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ");
    let sql = format!("SELECT * FROM {} ORDER BY {order} LIMIT ? OFFSET ?", database.table_name(table.name()));
    let mut seconds = 0.0;
    for batch in 0..events / BATCH {
        // The same accounts in each batch, and other events.
        let first = if model == Target::Balances { 0 } else { batch * rows };
        let args = [Value::Integer(rows as i64), Value::Integer(first as i64)];
        let rows: Vec<_> =
            database.fetch(&sql, &args).await?.into_iter().map(es_projections::Row::into_values).collect();
        let started = Instant::now();
        into.write(rows).await?;
        seconds += started.elapsed().as_secs_f64();
    }
    Ok(seconds)
}
