//! A read model equals the fold of the log.

use super::support::*;
use es_core::log::Record;
use es_core::log::memory::MemoryLog;
use es_projections::{Error, Value, Worker};
use std::sync::Arc;

/// Writes commands of one to three events on ten accounts.
fn write_some(events: &mut Events, commands: i64) {
    for number in 0..commands {
        let amounts: Vec<_> = (0..=number % 3).map(|more| number + more).collect();
        events.add(&format!("a{}", number % 10), &amounts);
    }
}

/// Shows: rows and checkpoint fit each other at every stop, whatever the size of batches.
pub async fn rows_equal_the_fold_after_stops_at_every_batch_size(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for batch_max in 1..=12 {
        write_some(&mut events, 7);
        let worker = events.worker(&database).batch_max(batch_max).start(Balances::default()).await.unwrap();
        write_some(&mut events, 9);
        eventually("some events are in", || worker.progress().iter().any(|at| at.events > 0)).await;
        worker.stop().await.unwrap(); // somewhere in the middle
    }
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    let stopped_often = balances(&database).await;

    database.remove_projection("balances").await.unwrap();
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(stopped_often, balances(&database).await);
    let total: u64 = worker.progress().iter().map(|at| at.events).sum();
    let rows = database.fetch(&format!("SELECT sum(events) AS n FROM {}", database.table_name("balances")), &[]).await;
    assert_eq!(rows.unwrap()[0].get::<u64>("n").unwrap(), total);
}

pub async fn replaying_twice_changes_nothing(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    write_some(&mut events, 20);
    let mut seen = Vec::new();
    for _ in 0..3 {
        let worker = events.worker(&database).start(Balances::default()).await.unwrap();
        caught_up(&worker).await;
        worker.stop().await.unwrap();
        seen.push(balances(&database).await);
    }
    assert!(seen[0].contains("a0 ") && seen.iter().all(|same| *same == seen[0]), "{seen:?}");
}

/// Shows: all events of a command become visible together, also across a restart in between.
pub async fn a_torn_command_is_not_visible_until_it_is_complete(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let torn = events.records("a", &[10, 100, 1000]);
    events.append(partition("a"), torn[0].clone());
    events.append(partition("a"), torn[1].clone());
    for _ in 0..2 {
        let worker = events.worker(&database).batch_max(1).start(Balances::default()).await.unwrap();
        caught_up(&worker).await;
        let at = &worker.progress()[partition("a") as usize];
        assert_eq!((at.next, at.read), (2, 4), "claim and first event, then the torn ones");
        worker.stop().await.unwrap();
        assert_eq!(balances(&database).await, "a 1/1");
    }
    let worker = events.worker(&database).batch_max(1).start(Balances::default()).await.unwrap();
    let position = events.append(partition("a"), torn[2].clone());
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(balances(&database).await, "a 1111/4");
}

pub async fn a_torn_command_that_a_claim_voids_never_becomes_visible(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let torn = events.records("a", &[10, 100]);
    events.append(partition("a"), torn[0].clone());
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    events.claim(partition("a"));
    events.append(partition("a"), torn[1].clone()); // of the zombie
    let position = events.add("b", &[5]);
    worker.wait_for(&position, SOON).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "b 5/1");
    assert_eq!(worker.progress()[partition("a") as usize].void, 1);
}

/// Shows: rubbish and forks are kept for inspection, and change nothing.
pub async fn foreign_and_void_records_are_counted_and_change_nothing(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let home = partition("a");
    let rubbish = |key: &[u8], value: Option<Vec<u8>>| Record {
        key: key.to_vec().into(),
        value: value.map(Into::into),
        headers: vec![("ce_type".into(), b"x.y.z\0'\"".to_vec().into())],
        timestamp_ms: i64::MAX,
    };
    events.append(home, rubbish(b"", Some(vec![0; 1000])));
    events.append(home, rubbish(b"'; DROP TABLE bank_balances; --\xff", Some(b"{}".to_vec())));
    events.append(home, rubbish(b"tombstone", None));
    // Another aggregate type's event, and one whose aggregate lives elsewhere.
    let mut others = Events::of("other", MemoryLog::new(PARTITIONS));
    others.claim(home);
    let other = others.records("a", &[3])[0].clone();
    events.append(home, other);
    let strayed = events.records("a", &[4])[0].clone();
    events.append((home + 1) % PARTITIONS, strayed);
    // A superseded writer's event lands late.
    let late = events.records("a", &[5])[0].clone();
    events.claim(home);
    events.append(home, late);
    let position = events.add("b", &[7]);
    for round in 0..2 {
        if round == 1 {
            database.remove_projection("balances").await.unwrap(); // what is quarantined stays, and is not doubled
        }
        let worker = events.worker(&database).batch_max(2).start(Balances::default()).await.unwrap();
        worker.wait_for(&position, SOON).await.unwrap();
        caught_up(&worker).await;
        assert_eq!(balances(&database).await, "a 1/1, b 7/1");
        let at = worker.progress();
        assert_eq!(at.iter().map(|at| at.quarantined).sum::<u64>(), 4);
        assert_eq!(at.iter().map(|at| at.void).sum::<u64>(), 1);
        worker.stop().await.unwrap();
    }
    let sql = format!(
        "SELECT * FROM {} WHERE topic_partition = ? ORDER BY topic_offset",
        database.table_name("es_quarantine")
    );
    let rows = database.fetch(&sql, &[Value::from(home)]).await.unwrap();
    assert_eq!(count(&database, "es_quarantine").await, 4);
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0].get::<i64>("record_size").unwrap(), 1000);
    assert_eq!(rows[0].get::<Vec<u8>>("record_start").unwrap(), vec![0; 256]);
    assert_eq!(rows[0].get::<String>("reason").unwrap(), "it has no es header");
    assert_eq!(rows[1].get::<Vec<u8>>("record_key").unwrap(), b"'; DROP TABLE bank_balances; --\xff");
    assert_eq!(rows[2].get::<String>("reason").unwrap(), "it is an event of bank.other");
}

pub async fn two_aggregate_types_go_into_one_read_model(url: &str) {
    let database = connect(url).await;
    let log = MemoryLog::new(PARTITIONS);
    let mut accounts = Events::of("account", log.clone());
    let mut transfers = Events::of("transfer", log.clone());
    accounts.add("a", &[1]);
    let sources = vec![accounts.source.clone(), transfers.source.clone()];
    let builder = Worker::new(database.clone(), Arc::new(log), sources);
    let worker = builder.start(Balances::default()).await.unwrap();
    let position = transfers.add("b", &[2, 3]);
    worker.wait_for(&position, SOON).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 1/1, b 5/2");
    worker.stop().await.unwrap();
    let worker = builder.start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 1/1, b 5/2");

    let twice = vec![accounts.source.clone(), accounts.source.clone()];
    let error = Worker::new(database, Arc::new(accounts.log.clone()), twice).start(Balances::default()).await;
    assert_eq!(error.unwrap_err().to_string(), "a worker was given bank.account.events twice");
}

/// Shows: another version never writes into the tables of this one.
pub async fn a_read_model_of_another_version_is_refused_and_can_be_removed(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.add("a", &[1]);
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    let everything = format!("SELECT * FROM {}", database.table_name("balances"));
    for _ in 0..20 {
        database.fetch(&everything, &[]).await.unwrap(); // prepared on all connections
    }

    let error = events.worker(&database).start(Balances::of_version(2)).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "the read model of projection balances in namespace bank was built by version 1, this program has version 2: \
         run the program that has version 1, or build it anew beside it with `Worker::rebuild`, or remove it with \
         `Database::remove_projection(\"balances\")`"
    );
    let error = events.worker(&database).start(Balances::default().with_column("note")).await.unwrap_err();
    assert!(error.to_string().contains("both say version 1: raise `Projection::version`"), "{error}");

    let error = events.worker(&database).start(Balances::named("other")).await.unwrap_err();
    assert_eq!(error.to_string(), "projection other has table \"balances\", which is projection balances's");

    // The refused ones took no fence; removing shuts the running one out.
    let position = events.add("a", &[2]);
    worker.wait_for(&position, SOON).await.unwrap();
    assert!(database.remove_projection("balances").await.unwrap());
    events.add("a", &[3]);
    assert!(worker.stopped().await.unwrap_err().is_fenced());
    assert!(!database.remove_projection("balances").await.unwrap());
    let next = events.worker(&database).start(Balances::of_version(2).with_column("note")).await.unwrap();
    caught_up(&next).await;
    assert_eq!(balances(&database).await, "a 6/3");
    for _ in 0..20 {
        assert_eq!(database.fetch(&everything, &[]).await.unwrap()[0].columns().len(), 5);
    }
    let position = events.add("a", &[4]);
    next.wait_for(&position, SOON).await.unwrap();
}
