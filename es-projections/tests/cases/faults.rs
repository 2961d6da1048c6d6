//! Whatever fails, no event is lost and none is folded in twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use es_core::log::memory::MemoryLog;
use es_core::log::{Batch, Log, LogError, LogErrorKind, LogReader, LogWriter, TopicSpec};
use es_projections::{Unwell, Worker, WorkerState};

use super::support::*;

/// Shows: rows and checkpoint are one transaction.
pub async fn a_crash_between_rows_and_commit_leaves_neither(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let healthy = Arc::new(AtomicBool::new(false));
    let hook = {
        let healthy = healthy.clone();
        move |_| (!healthy.load(Ordering::Relaxed)).then_some(Trouble::Error)
    };
    let worker = events.worker(&database).start(Balances::failing(hook)).await.unwrap();
    let failing = || matches!(worker.state(), WorkerState::Retrying { attempts: 2.., .. });
    eventually("it failed twice", failing).await;
    let WorkerState::Retrying { error, .. } = worker.state() else { panic!("it is retrying") };
    let places = (0..PARTITIONS).map(|place| {
        let end = if place == partition("a") { 3 } else { 1 };
        format!("bank.account.events/{place} offsets 0 to {end}")
    });
    let places = places.collect::<Vec<_>>().join(", ");
    assert_eq!(chain(&*error), format!("projection balances failed on 2 events of {places}: made to fail"));
    assert_eq!(balances(&database).await, "", "no rows");
    let sql = format!("SELECT sum(next_offset) AS n FROM {}", database.table_name("es_checkpoints"));
    assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap(), 0, "no checkpoint");
    assert_eq!(worker.status().await.lag.unwrap().records(), 5, "nothing is skipped: two events and three claims");
    assert!(matches!(worker.check(None).await, Err(Unwell::Trouble { .. })));
    healthy.store(true, Ordering::Relaxed);
    caught_up(&worker).await;
    worker.check(None).await.unwrap();
    assert_eq!(balances(&database).await, "a 3/2");
    assert!(matches!(worker.state(), WorkerState::Running));
    assert_eq!(worker.status().await.lag.unwrap().records(), 0);
}

pub async fn a_panic_is_retried_and_shown(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let hook = |attempt| (attempt <= 2).then_some(Trouble::Panic);
    let worker = events.worker(&database).start(Balances::failing(hook)).await.unwrap();
    eventually("it is retrying", || match worker.state() {
        WorkerState::Retrying { error, .. } => chain(&*error).ends_with("it panicked: made to panic"),
        _ => false,
    })
    .await;
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 1/1");
}

/// Shows: after a failure the checkpoint says whether the batch is in.
pub async fn a_commit_of_unknown_outcome_is_looked_up(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let balances_projection = Balances::failing(|attempt| (attempt == 1).then_some(Trouble::CommitThenError));
    let batches = balances_projection.batches.clone();
    let worker = events.worker(&database).start(balances_projection).await.unwrap();
    caught_up(&worker).await;
    let position = events.add("b", &[3]);
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 3/2, b 3/1");
    assert_eq!(batches.lock().unwrap().iter().sum::<usize>(), 3, "the first batch came once");
}

/// Shows: a server that lost its last commits in a crash, or was restored, is filled up again from the log.
pub async fn a_database_that_went_back_is_filled_again(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    let position = events.add("a", &[1]);
    worker.wait_for(&position, SOON).await.unwrap();
    caught_up(&worker).await;
    for table in ["balances", "es_checkpoints"] {
        copy(&database, table, &format!("saved_{table}")).await;
    }
    let position = events.add("a", &[10]);
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 11/2");
    let mut tx = database.begin().await.unwrap();
    for table in ["balances", "es_checkpoints"] {
        let (name, saved) = (database.table_name(table), database.table_name(&format!("saved_{table}")));
        tx.execute(&format!("DELETE FROM {name}"), &[]).await.unwrap();
        tx.execute(&format!("INSERT INTO {name} SELECT * FROM {saved}"), &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(balances(&database).await, "a 1/1");
    let position = events.add("a", &[100]);
    eventually("it is there again", || worker.progress().iter().map(|at| at.events).sum::<u64>() == 3).await;
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 111/3");
}

async fn copy(database: &es_projections::Database, from: &str, to: &str) {
    let mut tx = database.begin().await.unwrap();
    let (from, to) = (database.table_name(from), database.table_name(to));
    tx.execute(&format!("CREATE TABLE {to} AS SELECT * FROM {from}"), &[]).await.unwrap();
    tx.commit().await.unwrap();
}

/// Shows: a zombie worker changes nothing.
pub async fn an_older_worker_can_not_commit(url: &str) {
    let mut events = Events::new();
    events.add("a", &[1]);
    // Each with connections of its own, as two processes have.
    let (first, second) = (connect(url).await, connect(url).await);
    let older = events.worker(&first).start(Balances::default()).await.unwrap();
    caught_up(&older).await;
    let newer = events.worker(&second).start(Balances::default()).await.unwrap();
    let position = events.add("a", &[2]);
    newer.wait_for(&position, SOON).await.unwrap();
    let error = older.stopped().await.unwrap_err();
    assert!(error.is_fenced(), "{error:?}");
    let home = partition("a");
    let why = format!("projection balances lost bank.account.events/{home} to a worker that started later");
    assert!(
        chain(&error).starts_with("projection balances is stopped: projection balances lost "),
        "{}",
        chain(&error)
    );
    assert!(chain(&error).ends_with("to a worker that started later"), "{why}");
    assert_eq!(chain(&older.wait_for(&position, SOON).await.unwrap_err()), chain(&error));
    assert_eq!(balances(&second).await, "a 3/2");
    let position = events.add("a", &[4]);
    newer.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&first).await, "a 7/3");
}

pub async fn a_lost_tail_stops_the_worker(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    events.add("a", &[2]);
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    let home = events.log.partition(&events.source.topic, partition("a"));
    home.truncate(2);
    // While running: a reader past the end says so, or the next record is noticed at the next start.
    events.add("a", &[3]);
    worker.stop().await.ok();
    let error = events.worker(&database).start(Balances::default()).await.unwrap_err();
    assert!(error.is_lost(), "{error:?}");
    assert!(chain(&error).contains("the log lost its tail or was made anew"), "{}", chain(&error));
    assert_eq!(balances(&database).await, "a 3/2", "as it was");
}

pub async fn a_topic_made_anew_stops_the_worker(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    let mut anew = Events::of("account", MemoryLog::new(PARTITIONS));
    for _ in 0..9 {
        anew.add("a", &[1]);
    }
    let error = anew.worker(&database).start(Balances::default()).await.unwrap_err();
    assert!(error.is_lost(), "{error:?}");
}

/// A log that can't be reached for some calls.
#[derive(Debug)]
struct Flaky {
    log: MemoryLog,
    failures: Arc<AtomicI64>,
}

impl Flaky {
    fn call(&self) -> Result<(), LogError> {
        if self.failures.fetch_sub(1, Ordering::Relaxed) > 0 {
            return Err(LogError::new(LogErrorKind::Unavailable, "reading failed: no broker answers"));
        }
        Ok(())
    }
}

#[async_trait]
impl Log for Flaky {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        self.log.prepare(topic).await
    }
    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        self.log.writer(topic, partition).await
    }
    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        self.call()?;
        let reader = self.log.reader(topic, from).await?;
        let log = Flaky { log: self.log.clone(), failures: self.failures.clone() };
        Ok(Box::new(FlakyReader { reader, log }))
    }
    async fn bounds(&self, topic: &str, partition: u32) -> Result<std::ops::Range<u64>, LogError> {
        self.log.bounds(topic, partition).await
    }
    fn record_max_bytes(&self) -> usize {
        self.log.record_max_bytes()
    }
}

struct FlakyReader {
    reader: Box<dyn LogReader>,
    log: Flaky,
}

#[async_trait]
impl LogReader for FlakyReader {
    async fn next(&mut self) -> Result<Batch, LogError> {
        self.log.call()?;
        self.reader.next().await
    }
}

pub async fn a_log_that_goes_away_is_read_on(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let failures = Arc::new(AtomicI64::new(0));
    let log = Arc::new(Flaky { log: events.log.clone(), failures: failures.clone() });
    let builder = Worker::new(database.clone(), log, vec![events.source.clone()]);
    let worker = builder.start(Balances::default()).await.unwrap();
    let position = events.add("a", &[1]);
    worker.wait_for(&position, SOON).await.unwrap();
    failures.store(4, Ordering::Relaxed);
    let position = events.add("a", &[2]); // wakes the reader; it fails at the next call
    eventually("it is retrying", || matches!(worker.state(), WorkerState::Retrying { .. })).await;
    events.add("a", &[4]);
    worker.wait_for(&position, SOON).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 7/3");
    assert!(matches!(worker.state(), WorkerState::Running));
}

/// Shows: a batch never ends inside a command, however small batches are.
pub async fn a_large_command_is_not_split(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1; 3]);
    events.add("a", &[1; 2500]); // more than the log gives at once
    events.add("a", &[1; 2]);
    let projection = Balances::default();
    let batches = projection.batches.clone();
    let worker = events.worker(&database).batch_max(2).start(projection).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 2505/2505");
    assert_eq!(*batches.lock().unwrap(), [3, 2500, 2]);
}

/// Shows: a worker of a read model that was removed is shut out, though the one made anew has fences with the same numbers.
pub async fn a_worker_of_a_removed_read_model_can_not_commit_to_the_next(url: &str) {
    let mut events = Events::new();
    events.add("a", &[1]);
    let (first, second) = (connect(url).await, connect(url).await);
    let older = events.worker(&first).start(Balances::default()).await.unwrap();
    caught_up(&older).await;
    second.remove_projection("balances").await.unwrap();
    let newer = events.worker(&second).start(Balances::default()).await.unwrap();
    caught_up(&newer).await;
    for number in 0..20 {
        let position = events.add("a", &[number]);
        newer.wait_for(&position, SOON).await.unwrap();
    }
    let error = tokio::time::timeout(SOON, older.stopped()).await.expect("it was shut out").unwrap_err();
    assert!(error.is_fenced(), "{}", chain(&error));
    assert!(matches!(newer.state(), WorkerState::Running));
    assert_eq!(balances(&second).await, "a 191/21");
}
