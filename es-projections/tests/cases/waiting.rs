//! Reads what was written, with a deadline.

use std::time::Duration;

use es_projections::{Error, Unwell, WorkerState};
use tokio_util::sync::CancellationToken;

use super::support::*;

pub async fn a_wait_ends_when_the_event_is_visible(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    for number in 1..=20 {
        let position = events.add("a", &[1, 1]);
        worker.wait_for(&position, SOON).await.unwrap();
        assert_eq!(balances(&database).await, format!("a {}/{}", number * 2, number * 2));
    }
}

pub async fn a_wait_ends_at_its_deadline_and_says_where_it_is(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    let mut position = events.add("a", &[1]);
    worker.wait_for(&position, SOON).await.unwrap();
    position.offset += 1;
    let error = worker.wait_for(&position, Duration::from_millis(30)).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { next: 2, .. }) && error.is_retryable());
    assert_eq!(
        error.to_string(),
        format!("projection balances has not reached {position} within 30ms, it goes on at offset 2")
    );
    position.category = "unknown".into();
    let error = worker.wait_for(&position, SOON).await.unwrap_err();
    assert_eq!(error.to_string(), format!("projection balances does not read the partition of {position}"));
}

/// Shows: what was read and is not folded in is as old as its first event, and a limit on that age is kept.
pub async fn a_read_model_that_is_behind_is_not_well(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let well = events.worker(&database).start(Balances::default()).await.unwrap();
    well.wait_for(&events.add("a", &[1, 2]), SOON).await.unwrap();
    caught_up(&well).await;
    well.check(Some(Duration::ZERO)).await.unwrap();

    // The events are of a day long ago.
    let hanging =
        events.worker(&database).start(Balances::named("hanging").with_table("hanging").hanging()).await.unwrap();
    let day = Duration::from_secs(24 * 3_600);
    let deadline = tokio::time::Instant::now() + SOON;
    let lag = loop {
        match hanging.check(Some(day)).await {
            Err(Unwell::Behind { lag, .. }) => break lag,
            other => assert!(tokio::time::Instant::now() < deadline, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    assert_eq!((&*lag.topic, lag.partition, lag.records), ("bank.account.events", partition("a"), 3));
    let all = hanging.status().await.lag.unwrap();
    assert_eq!(all.partitions.len(), PARTITIONS as usize);
    assert_eq!(all.longest().unwrap().partition, lag.partition);
    hanging.check(None).await.unwrap();
    hanging.check(Some(100_000 * day)).await.unwrap();
}

pub async fn a_stopped_worker_ends_waits_with_its_error(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    let mut position = events.add("a", &[1]);
    worker.wait_for(&position, SOON).await.unwrap();
    position.offset += 100;
    let waiting = tokio::spawn({
        let (worker, position) = (worker.clone(), position.clone());
        async move { worker.wait_for(&position, SOON).await }
    });
    tokio::time::sleep(Duration::from_millis(20)).await;
    worker.stop().await.unwrap();
    let error = waiting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Stopped { source: None, .. }), "{error:?}");
    assert!(matches!(worker.state(), WorkerState::Stopped { error: None }));
    worker.stop().await.unwrap(); // again does no harm
    position.offset -= 100;
    worker.wait_for(&position, SOON).await.unwrap(); // what is in is in
}

pub async fn a_worker_is_stopped_by_its_token(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let token = CancellationToken::new();
    let always = |_| Some(Trouble::Error);
    let failing = events.worker(&database).shutdown(token.clone()).start(Balances::failing(always)).await.unwrap();
    eventually("it is retrying", || matches!(failing.state(), WorkerState::Retrying { .. })).await;
    token.cancel();
    tokio::time::timeout(SOON, failing.stopped()).await.expect("it stops").unwrap();

    let forgotten = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&forgotten).await;
    drop(forgotten); // stops it: nobody would look at it any more
    events.add("a", &[2]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(balances(&database).await, "a 1/1");
}
