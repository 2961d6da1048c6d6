//! The time by which workers measure silence. It stands, so that nobody is taken for gone because the machine is slow; where a
//! test needs silence, it passes in steps, each once whoever is there has raised its beat since the step before.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use es_core::ManualClock;
use es_projections::Database;
use tokio::task::JoinSet;

use super::support::{Events, connect};

/// Everybody who has a row.
pub const ALL: &str = "1 = 1";

/// Time that passes in the background, until it is dropped.
#[must_use = "time passes until this is dropped"]
pub struct Passing {
    _task: JoinSet<()>,
}

/// Silence passes for whom `present`, a condition on `es_workers`, does not name.
pub async fn passing(events: &Events, url: &str, silence: Duration, present: &'static str) -> Passing {
    let (database, clock) = (connect(url).await, events.clock.clone());
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            step(&database, &clock, silence / 4, present).await;
        }
    });
    Passing { _task: task }
}

/// Time passes as it does on the machine, whoever is slow: some are taken for gone who are there.
pub fn running(events: &Events) -> Passing {
    let clock = events.clock.clone();
    let mut task = JoinSet::new();
    task.spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(10)).await;
            clock.advance(10);
        }
    });
    Passing { _task: task }
}

/// So much time passes, in steps of a part of the silence.
pub async fn passed(events: &Events, url: &str, time: Duration, silence: Duration, present: &str) {
    let (database, step_by) = (connect(url).await, silence / 4);
    for _ in 0..time.as_millis().div_ceil(step_by.as_millis()) {
        step(&database, &events.clock, step_by, present).await;
    }
}

async fn step(database: &Database, clock: &Arc<ManualClock>, by: Duration, present: &str) {
    let before = beats(database, present).await;
    clock.advance(by.as_millis() as i64);
    loop {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = beats(database, present).await;
        // Who has left raises no beat any more.
        if before.iter().all(|(worker, beat)| now.get(worker).is_none_or(|raised| raised > beat)) {
            return;
        }
    }
}

/// The beats of the workers for which the condition holds.
pub async fn beats(database: &Database, present: &str) -> HashMap<String, i64> {
    let sql = format!("SELECT worker, beat FROM {} WHERE {present}", database.table_name("es_workers"));
    let rows = database.fetch(&sql, &[]).await.unwrap_or_default();
    rows.iter().map(|row| (row.get("worker").unwrap(), row.get("beat").unwrap())).collect()
}
