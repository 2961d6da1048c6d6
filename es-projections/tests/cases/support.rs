//! A log with hand-made records, and a read model that shows whether an event was folded in twice.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use es_core::log::Record;
use es_core::log::memory::MemoryLog;
use es_core::log::record::{Claim, Encoder, Stamp};
use es_core::{
    AggregateKey, CommandHash, CommandId, Envelope, Epoch, EventHash, EventId, EventSource, ManualClock, Position,
    Recorded, StreamId, Version, partition_of,
};
use es_projections::{Database, Error, Kind, Projection, ProjectionError, Row, RunningProjection, Table, Tx, Worker};
use tokio::sync::Notify;

/// What is waited for comes sooner, however slow the machine is: after this the test has failed.
pub const SOON: Duration = Duration::from_secs(300);
pub const PARTITIONS: u32 = 3;

/// The events of one aggregate type in a log in memory, as an owner would write them.
#[derive(Debug)]
pub struct Events {
    pub log: MemoryLog,
    pub source: EventSource,
    /// By this its workers measure silence: it stands, see [`super::silence`].
    pub clock: Arc<ManualClock>,
    encoder: Encoder,
    writers: Vec<Writer>,
    streams: HashMap<String, (u64, EventHash)>,
    now_ms: i64,
}

#[derive(Debug, Clone, Default)]
struct Writer {
    epoch: Epoch,
    sequence: u64,
}

impl Events {
    /// A log where all partitions are claimed.
    pub fn new() -> Self {
        Self::of("account", MemoryLog::new(PARTITIONS))
    }

    pub fn of(category: &str, log: MemoryLog) -> Self {
        Self::with_partitions(category, log, PARTITIONS)
    }

    pub fn with_partitions(category: &str, log: MemoryLog, partitions: u32) -> Self {
        let topic = es_core::events_topic("bank", category);
        let source = EventSource { context: "bank".into(), category: category.into(), topic: topic.into(), partitions };
        let encoder = Encoder::new("bank", category);
        let writers = vec![Writer::default(); partitions as usize];
        let (streams, clock) = (HashMap::new(), Arc::default());
        let mut events = Self { log, source, clock, encoder, writers, streams, now_ms: 1_700_000_000_000 };
        for partition in 0..partitions {
            events.claim(partition);
        }
        events
    }

    /// Takes over a partition and tells the epoch before.
    pub fn claim(&mut self, partition: u32) -> Epoch {
        let before = self.writers[partition as usize].epoch;
        let epoch = Epoch { number: before.number + 1, writer: u64::from(partition) + 77 * (before.number + 1) };
        let log_id = uuid::Uuid::from_u128(0x10_6000 + u128::from(partition));
        let claim = Claim {
            epoch,
            log_id,
            node: "test".into(),
            program: None,
            partitions: Some(self.source.partitions),
            previous: None,
            copy: None,
        };
        let record = self.encoder.claim(&claim, self.now_ms);
        self.append(partition, record);
        self.writers[partition as usize] = Writer { epoch, sequence: 0 };
        before
    }

    /// Appends a command's events that add these amounts, and tells the position of the last.
    pub fn add(&mut self, id: &str, amounts: &[i64]) -> Position {
        let mut position = None;
        let records = self.records(id, amounts);
        for record in records {
            position = Some(self.append(self.home(id), record));
        }
        position.expect("a command has events")
    }

    /// The records of a command, as the partition's writer would append them next.
    pub fn records(&mut self, id: &str, amounts: &[i64]) -> Vec<Record> {
        self.command(id, amounts.iter().map(|amount| format!(r#"{{"amount":{amount}}}"#)).collect())
    }

    /// The records of a command whose events have these payloads.
    pub fn command(&mut self, id: &str, payloads: Vec<String>) -> Vec<Record> {
        let count = payloads.len() as u32;
        let command = CommandId::random();
        let event = |events: &mut Self, payload: String| {
            events.event(id, "added", payload.into(), |event| event.command_id = command.clone())
        };
        let envelopes: Vec<_> = payloads.into_iter().map(|payload| event(self, payload)).collect();
        (0..).zip(&envelopes).map(|(index, envelope)| self.encode(envelope, index, count)).collect()
    }

    /// Appends one event as it is given.
    pub fn add_event(&mut self, envelope: &Envelope) -> Position {
        let record = self.encode(envelope, 0, 1);
        self.append(partition_of(&envelope.stream.id, self.source.partitions), record)
    }

    /// The next event of a stream, changed, and then hashed.
    pub fn event(
        &mut self,
        id: &str,
        event_type: &str,
        payload: Bytes,
        change: impl FnOnce(&mut Envelope),
    ) -> Envelope {
        self.now_ms += 1;
        let now = DateTime::from_timestamp_millis(self.now_ms).expect("a time of this century");
        let (version, previous_hash) = self.streams.get(id).copied().unwrap_or_default();
        let mut event = Envelope {
            context: self.source.context.clone(),
            stream: StreamId { category: self.source.category.clone(), id: key(id) },
            version: Version::new(version + 1),
            event_id: EventId::fresh(self.now_ms as u64),
            event_type: event_type.into(),
            schema_version: 1,
            recorded_at: now,
            occurred_at: now,
            command_id: CommandId::random(),
            command_hash: CommandHash([7; 17]),
            correlation_id: "conversation".parse().expect("a valid id"),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: "application/json".into(),
            payload,
            previous_hash,
            hash: EventHash::default(),
        };
        change(&mut event);
        event.hash = event.compute_hash();
        self.streams.insert(id.into(), (event.version.get(), event.hash));
        event
    }

    fn encode(&mut self, envelope: &Envelope, index: u32, count: u32) -> Record {
        let writer = &mut self.writers[partition_of(&envelope.stream.id, self.source.partitions) as usize];
        writer.sequence += 1;
        self.encoder.event(envelope, Stamp { epoch: writer.epoch, sequence: writer.sequence, index, count })
    }

    pub fn append(&self, partition: u32, record: Record) -> Position {
        let offset = self.log.partition(&self.source.topic, partition).append_foreign(record);
        Position { category: self.source.category.clone(), partition, offset }
    }

    /// The partition of an aggregate.
    pub fn home(&self, id: &str) -> u32 {
        partition_of(&key(id), self.source.partitions)
    }

    pub fn worker(&self, database: &Database) -> Worker {
        let log = Arc::new(self.log.clone());
        Worker::new(database.clone(), log, vec![self.source.clone()]).clock(self.clock.clone())
    }

    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now_ms).expect("a time of this century")
    }
}

pub fn key(id: &str) -> AggregateKey {
    AggregateKey::new(id).expect("a valid id")
}

pub fn partition(id: &str) -> u32 {
    partition_of(&key(id), PARTITIONS)
}

pub async fn connect(url: &str) -> Database {
    Database::connect(url, "bank").await.expect("the test's database is there")
}

type Hook = Box<dyn Fn(i64) -> Option<Trouble> + Send + Sync>;

/// That the database is away.
pub fn away() -> Error {
    Error::Unavailable { doing: "a statement".into(), database: "made".into(), source: "made to be away".into() }
}

/// What goes wrong with a batch after its rows were written.
pub enum Trouble {
    Error,
    Panic,
    /// The database is away.
    Away,
    /// The transaction is committed, and then fails.
    CommitThenError,
}

/// The sum of amounts per account, and the number of events: adding, so that twice shows.
pub struct Balances {
    table: Table,
    name: &'static str,
    version: u32,
    attempts: AtomicI64,
    hook: Option<Hook>,
    /// Never comes to an end.
    hang: bool,
    /// Told when it hangs.
    pub hangs: Arc<Notify>,
    /// The number of events of each batch that was given.
    pub batches: Arc<Mutex<Vec<usize>>>,
}

impl Default for Balances {
    fn default() -> Self {
        let table = Table::new("balances")
            .key("account", Kind::Text)
            .column("balance", Kind::Integer)
            .column("events", Kind::Integer)
            .column("changed_at", Kind::Time)
            .index("by_balance", &["balance"]);
        let (attempts, hangs, batches) = (AtomicI64::new(0), Arc::default(), Arc::default());
        Self { table, name: "balances", version: 1, attempts, hook: None, hang: false, hangs, batches }
    }
}

impl Balances {
    /// The hook is asked after each attempt's rows were written, with the attempt's number from 1.
    pub fn failing(hook: impl Fn(i64) -> Option<Trouble> + Send + Sync + 'static) -> Self {
        Self { hook: Some(Box::new(hook)), ..Self::default() }
    }

    pub fn of_version(version: u32) -> Self {
        Self { version, ..Self::default() }
    }

    pub fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }

    pub fn with_table(mut self, name: &str) -> Self {
        let columns = self.table.columns()[1..].iter();
        let table = Table::new(name).key("account", Kind::Text);
        self.table = columns.fold(table, |table, column| table.column(&column.name, column.kind));
        self
    }

    pub fn hanging(self) -> Self {
        Self { hang: true, ..self }
    }

    pub fn with_column(mut self, name: &str) -> Self {
        self.table = self.table.optional(name, Kind::Text);
        self
    }
}

#[async_trait]
impl Projection for Balances {
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.table.clone()]
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        if self.hang {
            self.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        let id = |event: &Recorded| event.envelope.stream.id.as_str().to_owned();
        let keys = events.iter().map(|event| vec![id(event).into()]).collect();
        let mut rows = BTreeMap::new();
        for row in tx.load(&self.table, keys).await? {
            rows.insert(row.get::<String>("account")?, row.into_values());
        }
        for event in events {
            let payload: serde_json::Value = serde_json::from_slice(&event.envelope.payload)?;
            let amount = payload["amount"].as_i64().ok_or("an event without an amount")?;
            let new = || {
                let mut row = vec![id(event).into(), 0.into(), 0.into(), event.envelope.recorded_at.into()];
                row.resize(self.table.columns().len(), es_projections::Value::Null);
                row
            };
            let row = rows.entry(id(event)).or_insert_with(new);
            for (place, more) in [(1, amount), (2, 1)] {
                let es_projections::Value::Integer(sum) = &mut row[place] else { return Err("not an integer".into()) };
                *sum += more;
            }
            row[3] = event.envelope.recorded_at.into();
        }
        tx.upsert(&self.table, rows.into_values().collect()).await?;
        self.batches.lock().unwrap().push(events.len());
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed) + 1;
        match self.hook.as_ref().and_then(|hook| hook(attempt)) {
            None => Ok(()),
            Some(Trouble::Error) => Err("made to fail".into()),
            Some(Trouble::Panic) => panic!("made to panic"),
            Some(Trouble::Away) => Err(away().into()),
            Some(Trouble::CommitThenError) => {
                tx.execute("COMMIT", &[]).await?;
                tx.execute("BEGIN", &[]).await?; // for the rollback
                Err("made to fail after the commit".into())
            }
        }
    }
}

/// What a projection that wraps another one passes on to it: name, version and tables.
#[macro_export]
macro_rules! passes_on_to {
    ($($field:tt)+) => {
        fn name(&self) -> &str {
            self.$($field)+.name()
        }

        fn version(&self) -> u32 {
            self.$($field)+.version()
        }

        fn tables(&self) -> Vec<es_projections::Table> {
            self.$($field)+.tables()
        }
    };
}

/// The balances and numbers of events as `a 5/2, b 7/1`.
pub async fn balances(database: &Database) -> String {
    let sql = format!("SELECT account, balance, events FROM {} ORDER BY account", database.table_name("balances"));
    let rows = database.fetch(&sql, &[]).await.expect("the table is there");
    let show = |row: &Row| {
        let (account, balance): (String, i64) = (row.get("account").unwrap(), row.get("balance").unwrap());
        format!("{account} {balance}/{}", row.get::<i64>("events").unwrap())
    };
    rows.iter().map(show).collect::<Vec<_>>().join(", ")
}

pub async fn count(database: &Database, table: &str) -> i64 {
    let sql = format!("SELECT count(*) AS n FROM {}", database.table_name(table));
    database.fetch(&sql, &[]).await.expect("the table is there")[0].get("n").unwrap()
}

/// The event that a parked account waits behind, as an operator sees it.
pub async fn seen(database: &Database, projection: &str, id: &str) -> EventId {
    let parked = database.parked(projection, 1_000).await.expect("the table is there");
    parked.iter().find(|parked| parked.aggregate_id == id).expect("it is parked").event_id
}

/// Waits for a condition.
#[track_caller]
pub fn eventually<'a>(what: &'a str, condition: impl Fn() -> bool + 'a) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let deadline = tokio::time::Instant::now() + SOON;
        while !condition() {
            assert!(tokio::time::Instant::now() < deadline, "{caller}: waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

pub use es_core::with_causes as chain;

pub async fn caught_up(worker: &RunningProjection) {
    let caught_up = worker.catch_up(SOON).await;
    caught_up.unwrap_or_else(|error| panic!("{}; the worker is {:?}", chain(&error), worker.state()));
}
