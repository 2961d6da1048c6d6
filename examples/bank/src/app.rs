//! The one place that brings log, owners, database and read models together.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use es_core::log::Log;
use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::log::group::Group;
use es_core::{Bus, Companion, Engine, EngineConfig, EventSource};
use es_kafka::{KafkaConfig, KafkaLog};
use es_projections::audit::AuditTrail;
use es_projections::{ConnectOptions, Database, Error, Projection, RunningProjection, Worker, WorkerState};
use futures::future::{join_all, try_join_all};

use crate::domain::Account;
use crate::failure::Failure;
use crate::folder::Folder;
use crate::keys::Keys;
use crate::output::say;
use crate::progress::OfBuild;
use crate::read_model::{self, PastAccount};

/// Importing a file again changes nothing, however late: so command ids are remembered for ten years, on disk.
const DEDUP_RETENTION: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Read models that do not move for this long are given up.
const STANDSTILL: Duration = Duration::from_secs(10);
/// What a process keeps up of the read models is the others' when nothing was heard of it for this long.
const SILENCE: Duration = Duration::from_secs(5);
/// States kept in memory per partition. Small: the whole process is to stay within a few hundred megabytes.
const STATES_MAX: usize = 2_000;
/// How long what is under way may keep the database's connections when the process ends.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// Where log, database and local state are.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// The folder for the embedded log, the SQLite database and local state
    #[arg(long, env = "BANK_DATA", value_name = "DIR", default_value = "bank-data", global = true)]
    pub(crate) data: PathBuf,
    /// Kafka's brokers; without them the log is embedded in DIR
    #[arg(long, env = "BANK_KAFKA", value_name = "HOST:PORT,…", global = true)]
    pub(crate) kafka: Option<String>,
    /// A property of the Kafka client (librdkafka), for TLS, passwords or timeouts; may be given several times
    #[arg(
        long,
        env = "BANK_KAFKA_PROPERTIES",
        value_name = "NAME=VALUE",
        value_delimiter = ' ',
        hide_env_values = true,
        global = true
    )]
    pub(crate) kafka_property: Vec<String>,
    /// The database of the read models, as postgres://…; without it SQLite in DIR
    #[arg(long, env = "BANK_DATABASE", value_name = "URL", hide_env_values = true, global = true)]
    pub(crate) database: Option<String>,
    /// The first part of the names of topics and tables
    #[arg(long, value_name = "NAME", default_value = "bank", global = true)]
    pub(crate) namespace: String,
    /// On Kafka, how many records of a partition may come before its changed states are written to the snapshots topic;
    /// 0 for no snapshots
    #[arg(long, value_name = "RECORDS", default_value_t = EngineConfig::default().snapshot_every, global = true)]
    pub(crate) snapshot_every: u64,
    /// Go on with accounts whose last record is ahead of the clock, where it is not later than this (RFC 3339)
    #[arg(long, value_name = "TIME", global = true)]
    pub(crate) accept_time_until: Option<DateTime<Utc>>,
    #[command(flatten)]
    pub(crate) keys: Keys,
}

/// The log and the database.
pub(crate) struct Store {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) source: EventSource,
    pub(crate) database: Database,
    /// The other processes on the same Kafka; none where the log is embedded.
    group: Option<Arc<dyn Group>>,
    folder: Folder,
}

/// Log and database, and the read models that are kept up to date.
pub(crate) struct ReadModels {
    pub(crate) store: Store,
    pub(crate) accounts: RunningProjection,
    pub(crate) statements: RunningProjection,
    pub(crate) audit: RunningProjection,
}

/// Read models and command owners: the whole bank.
pub(crate) struct Bank {
    pub(crate) bus: Bus<Account>,
    pub(crate) models: ReadModels,
    engine: Engine,
}

impl Store {
    pub(crate) async fn open(options: &Options) -> Result<Self, Failure> {
        let folder = Folder::open(&options.data)?;
        let ((log, group), database) = tokio::try_join!(open_log(options, &folder), open_database(options, &folder))?;
        let source = EventSource::open::<Account>(log.as_ref(), &options.namespace).await?;
        Ok(Self { log, source, database, group, folder })
    }

    /// What runs projections. Other processes of this bank do so, too: each keeps up its share of the partitions. The name is
    /// that of the data folder, which is one process's at a time, on its machine.
    pub(crate) fn worker(&self) -> Worker {
        let worker = Worker::new(self.database.clone(), self.log.clone(), vec![self.source.clone()]);
        worker.name(&format!("bank in {}{}", machine(), self.folder.shown())).share(SILENCE)
    }

    pub(crate) fn audit_trail(&self) -> AuditTrail {
        AuditTrail::new(std::slice::from_ref(&self.source)).keeping::<PastAccount>()
    }

    /// Closes the connections; those of a query that does not end are left to the end of the process.
    pub(crate) async fn close(&self) {
        close(&self.database).await;
    }
}

impl ReadModels {
    /// Opens log and database, and starts the projections. `node` is what those of other processes call these. Read models of an earlier
    /// release are built anew beside those that serve.
    async fn serve(options: &Options, node: Option<&str>) -> Result<Self, Failure> {
        let store = Store::open(options).await?;
        let worker = store.worker();
        let worker = match node {
            Some(node) => worker.name(node),
            None => worker,
        };
        let accounts = deploy(&worker, read_model::accounts()).await?;
        let statements = deploy(&worker, read_model::statements()).await?;
        let audit = deploy(&worker, store.audit_trail()).await?;
        Ok(Self { store, accounts, statements, audit })
    }

    /// The same to look at the read models: what processes that serve keep up is left to them.
    pub(crate) async fn open_to_read(options: &Options) -> Result<Self, Failure> {
        let store = Store::open(options).await?;
        let worker = store.worker().stand_in();
        let accounts = start(&worker, read_model::accounts()).await?;
        let statements = start(&worker, read_model::statements()).await?;
        let audit = start(&worker, store.audit_trail()).await?;
        Ok(Self { store, accounts, statements, audit })
    }

    pub(crate) fn all(&self) -> [&RunningProjection; 3] {
        [&self.accounts, &self.statements, &self.audit]
    }

    /// Waits until the read models contain everything that is in the log now, save what is parked.
    pub(crate) async fn settle(&self) -> Result<(), Failure> {
        try_join_all(self.all().map(catch_up)).await.map(drop)
    }

    /// The same, and tells where something is parked: what is shown next lacks it.
    pub(crate) async fn catch_up(&self) -> Result<(), Failure> {
        self.settle().await?;
        for model in self.all() {
            let parked = model.status().await.parked;
            if parked > 0 {
                let name = model.projection();
                say(format_args!(
                    "bank: read model {name} lacks events of {parked} accounts, which are parked: see `bank parked`"
                ));
            }
        }
        Ok(())
    }

    /// Stops the projections, each at the end of its batch.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let stopped = join_all(self.all().map(RunningProjection::stop)).await;
        self.store.close().await;
        Ok(stopped.into_iter().collect::<Result<_, _>>()?)
    }
}

/// Starts a projection, or tells what to do where its tables are of another release.
async fn start(worker: &Worker, projection: impl Projection) -> Result<RunningProjection, Failure> {
    let name = projection.name().to_owned();
    worker.start(projection).await.map_err(|error| refused(&name, error))
}

fn refused(name: &str, error: Error) -> Failure {
    match error {
        Error::OtherVersion(_) => Failure::new(format!(
            "read model {name} was built by another release of the bank: run `bank rebuild {name}` with the same options, \
             which builds it anew, or go on with that release"
        )),
        error => error.into(),
    }
}

/// Starts a projection; where its tables are of an earlier release it is built anew beside them first.
async fn deploy(worker: &Worker, projection: impl Projection) -> Result<RunningProjection, Failure> {
    let (name, bar) = (projection.name().to_owned(), OfBuild::new(projection.name()));
    let deployed = worker.deploy(projection, |progress| bar.show(progress)).await;
    bar.clear();
    deployed.map_err(|error| refused(&name, error))
}

impl Bank {
    /// Opens everything. The owners take over in the background: [`Bus::ready`] waits for them. On one Kafka each process
    /// needs a name of its own; without one it is made up. `standby`: as [`EngineConfig::standby`].
    pub(crate) async fn open(options: &Options, node: Option<&str>, standby: bool) -> Result<Self, Failure> {
        let sealing = options.keys.sealing()?;
        let models = ReadModels::serve(options, node).await?;
        let unnamed = EngineConfig::default();
        let config = EngineConfig {
            namespace: Some(options.namespace.clone()),
            node: node.map_or(unnamed.node, str::to_owned),
            state_dir: Some(models.store.folder.join("state")),
            dedup_retention: DEDUP_RETENTION,
            snapshot_every: options.snapshot_every,
            unwritten_max: unwritten_max(options.snapshot_every),
            cached_max: STATES_MAX,
            standby,
            companions: sealing.map(|sealing| Arc::new(sealing) as Arc<dyn Companion>).into_iter().collect(),
            accept_time_until: options.accept_time_until,
            ..EngineConfig::default()
        };
        let engine = match &models.store.group {
            Some(group) => Engine::shared(models.store.log.clone(), group.clone(), config),
            None => Engine::new(models.store.log.clone(), config),
        };
        let bus = engine.start::<Account>().await?;
        Ok(Self { bus, models, engine })
    }

    /// Stops the owners, then the projections.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        self.engine.shutdown().await;
        self.models.stop().await
    }
}

/// The log, and the group of processes that share it.
async fn open_log(options: &Options, folder: &Folder) -> Result<(Arc<dyn Log>, Option<Arc<dyn Group>>), Failure> {
    if let Some(brokers) = &options.kafka {
        let mut config = KafkaConfig::new(brokers);
        for property in &options.kafka_property {
            let Some((name, value)) = property.split_once('=') else {
                return Err(Failure::new(format!("--kafka-property {property:?} is not of the form NAME=VALUE")));
            };
            config = config.property(name, value);
        }
        let log = KafkaLog::connect(config).await?;
        let group = Arc::new(log.group());
        return Ok((Arc::new(log), Some(group)));
    }
    let dir = folder.join("log");
    let opened = tokio::task::spawn_blocking(move || EmbeddedLog::open(dir, EmbeddedConfig::default())).await;
    Ok((Arc::new(opened??), None))
}

async fn open_database(options: &Options, folder: &Folder) -> Result<Database, Failure> {
    // Each connection to SQLite has a cache of its own, and the requests of one process need no more than a few.
    let connect = ConnectOptions { connections: 4, ..ConnectOptions::default() };
    Ok(match &options.database {
        Some(url) => Database::connect_with(url, &options.namespace, connect).await?,
        None => Database::open_file(&folder.join("bank.db"), &options.namespace, connect).await?,
    })
}

/// The name of the machine, or container, with a colon, where the system tells it.
fn machine() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!("{}:", name.trim()) }
}

async fn close(database: &Database) {
    if tokio::time::timeout(CLOSE_MAX, database.close()).await.is_err() {
        tracing::warn!("what the database was asked last is cut off, it takes longer than {CLOSE_MAX:?}");
    }
}

/// States and command ids collected before they are written to disk. Snapshots are made of what is written.
fn unwritten_max(snapshot_every: u64) -> usize {
    match usize::try_from(snapshot_every) {
        Ok(0) | Err(_) => STATES_MAX,
        Ok(every) => every.min(STATES_MAX),
    }
}

/// Waits for one projection as long as it moves.
pub(crate) async fn catch_up(projection: &RunningProjection) -> Result<(), Failure> {
    loop {
        let before = projection.progress();
        match projection.catch_up(STANDSTILL).await {
            Ok(()) => return Ok(()),
            Err(Error::Deadline { .. }) if projection.progress() != before => {}
            Err(error) => return Err(stuck(projection, &error)),
        }
    }
}

/// What keeps a projection from going on says more than that it is late.
fn stuck(projection: &RunningProjection, error: &Error) -> Failure {
    match projection.state() {
        WorkerState::Retrying { error, .. } => {
            Failure::because(format!("projection {} can't go on", projection.projection()), &*error)
        }
        _ => Failure::because("waiting for the read models", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_not_given_back_does_not_keep_the_process() {
        let database = Database::connect("sqlite::memory:", "bank").await.unwrap();
        let _held = database.begin().await.unwrap();
        let closed = tokio::time::timeout(CLOSE_MAX * 2, close(&database)).await;
        assert!(closed.is_ok(), "it waits for the connection");
    }
}
