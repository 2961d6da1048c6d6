//! Bulk work over declared tables, and SQL of one's own: the same on both databases.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use es_core::log::memory::MemoryLog;
use es_core::log::record::{Claim, Encoder};
use es_core::{Epoch, EventSource};
use es_projections::{Database, Error, Kind, OnDuplicate, Row, Table, Value, Worker};
use uuid::Uuid;

use super::support::*;

fn everything() -> Table {
    Table::new("everything")
        .key("id", Kind::Integer)
        .key("part", Kind::Text)
        .column("text", Kind::Text)
        .optional("number", Kind::Integer)
        .optional("flag", Kind::Bool)
        .optional("bytes", Kind::Bytes)
        .optional("json", Kind::Json)
        .optional("time", Kind::Time)
        .optional("uuid", Kind::Uuid)
        .index("by_time", &["time", "number"])
}

fn numbers() -> Table {
    Table::new("numbers").key("id", Kind::Integer).column("text", Kind::Text)
}

fn time(text: &str) -> DateTime<Utc> {
    text.parse().expect("a time")
}

async fn with_table(url: &str, table: &Table) -> Database {
    let database = connect(url).await;
    let mut tx = database.begin().await.unwrap();
    tx.create(table).await.unwrap();
    tx.create(table).await.unwrap(); // again does no harm
    tx.commit().await.unwrap();
    database
}

fn sorted(rows: Vec<Row>) -> Vec<Vec<Value>> {
    let mut values: Vec<_> = rows.into_iter().map(Row::into_values).collect();
    values.sort_by_key(|row| format!("{:?}", &row[..1]));
    values
}

pub async fn every_kind_of_value_comes_back(url: &str) {
    let table = everything();
    let database = with_table(url, &table).await;
    let nasty = "'; DROP TABLE bank_everything; -- \" \\ ? $1 % _ \u{1f600} \r\n\t {\"a\":1}";
    let full = vec![
        Value::Integer(i64::MIN),
        nasty.into(),
        "".into(),
        i64::MAX.into(),
        true.into(),
        vec![0u8, 255, 39, 92].into(),
        Value::Json(r#"{"b": 1,  "a":[1e400,"\u0000 ' \\"], "b":2}"#.into()),
        time("1993-01-01T00:00:00.000001Z").into(),
        Uuid::from_u128(0x0123_4567_89ab_cdef).into(),
    ];
    let empty: Vec<Value> =
        [vec![Value::Integer(1), "".into(), nasty.into()], vec![Value::Null; 6]].into_iter().flatten().collect();
    let edge = vec![
        Value::Integer(2),
        "x".into(),
        "x".into(),
        (-1).into(),
        false.into(),
        Value::Bytes(Vec::new()),
        Value::Json("null".into()),
        time("9999-12-31T23:59:59.999999Z").into(),
        Uuid::nil().into(),
    ];
    let rows = vec![full, empty, edge];
    let mut tx = database.begin().await.unwrap();
    tx.upsert(&table, rows.clone()).await.unwrap();
    let keys: Vec<_> = rows.iter().map(|row| row[..2].to_vec()).chain([vec![Value::Integer(3), "no".into()]]).collect();
    assert_eq!(sorted(tx.load(&table, keys.clone()).await.unwrap()), {
        let mut rows = rows.clone();
        rows.sort_by_key(|row| format!("{:?}", &row[..1]));
        rows
    });
    tx.commit().await.unwrap();

    // Times compare as times, with arguments and with text.
    let name = database.table_name("everything");
    let sql = format!("SELECT id FROM {name} WHERE time >= ? AND time < '2000-01-01' ORDER BY time");
    let rows = database.fetch(&sql, &[time("1993-01-01T00:00:00Z").into()]).await.unwrap();
    assert_eq!(rows.len(), 1);
    let sql = format!("SELECT id, flag, uuid, time, number FROM {name} WHERE part = ? ORDER BY id");
    let row = database.fetch(&sql, &[nasty.into()]).await.unwrap().remove(0);
    assert_eq!(row.get::<i64>("id").unwrap(), i64::MIN);
    assert!(row.get::<bool>("flag").unwrap());
    assert_eq!(row.get::<Option<Uuid>>("uuid").unwrap(), Some(Uuid::from_u128(0x0123_4567_89ab_cdef)));
    assert_eq!(row.get::<DateTime<Utc>>("time").unwrap(), time("1993-01-01T00:00:00.000001Z"));
    assert_eq!(
        row.get::<u32>("number").unwrap_err().to_string(),
        "column \"number\" is read as an integer from 0 to 4294967295, but holds integer"
    );
    assert!(row.get::<i64>("nothing").unwrap_err().to_string().starts_with("there is no column \"nothing\""));
}

pub async fn of_rows_with_one_key_the_last_is_written(url: &str) {
    let table = numbers();
    let database = with_table(url, &table).await;
    let row = |id: i64, text: &str| vec![id.into(), text.into()];
    let mut tx = database.begin().await.unwrap();
    tx.upsert(&table, vec![row(1, "a"), row(2, "b"), row(1, "c"), row(1, "d")]).await.unwrap();
    tx.upsert(&table, vec![row(2, "e"), row(3, "f")]).await.unwrap();
    tx.upsert(&table, vec![]).await.unwrap();
    let keys = vec![vec![1.into()], vec![2.into()], vec![3.into()], vec![1.into()]];
    let rows = sorted(tx.load(&table, keys).await.unwrap());
    assert_eq!(rows, [row(1, "d"), row(2, "e"), row(3, "f")]);
}

pub async fn duplicates_fail_or_stay(url: &str) {
    let table = numbers();
    let database = with_table(url, &table).await;
    let row = |id: i64, text: &str| vec![id.into(), text.into()];
    let mut tx = database.begin().await.unwrap();
    assert_eq!(tx.insert(&table, vec![row(1, "a"), row(2, "b")], OnDuplicate::Fail).await.unwrap(), 2);
    assert_eq!(tx.insert(&table, vec![row(2, "x"), row(3, "c"), row(3, "y")], OnDuplicate::Keep).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let mut tx = database.begin().await.unwrap();
    let error = tx.insert(&table, vec![row(4, "d"), row(1, "z")], OnDuplicate::Fail).await.unwrap_err();
    assert!(matches!(error, Error::Data { .. }) && !error.is_retryable(), "{error:?}");
    assert!(chain(&error).to_lowercase().contains("unique"), "{}", chain(&error));
    // On SQLite the rows before the duplicate are written; nothing can be made of that.
    let error = tx.upsert(&table, vec![row(5, "e")]).await.unwrap_err();
    assert_eq!(error.to_string(), "a statement of this transaction failed: it can only be rolled back");
    assert!(tx.commit().await.is_err());
    let sql = format!("SELECT text FROM {} ORDER BY id", database.table_name("numbers"));
    let rows = database.fetch(&sql, &[]).await.unwrap();
    let texts: Vec<String> = rows.iter().map(|row| row.get("text").unwrap()).collect();
    assert_eq!(texts, ["a", "b", "c"]);
}

pub async fn thousands_of_rows_are_written_loaded_and_deleted(url: &str) {
    let table = numbers();
    let database = with_table(url, &table).await;
    let ids = 0..10_123;
    let mut tx = database.begin().await.unwrap();
    tx.upsert(&table, ids.clone().map(|id| vec![id.into(), format!("n{id}").into()]).collect()).await.unwrap();
    let rows = tx.load(&table, ids.clone().map(|id| vec![id.into()]).collect()).await.unwrap();
    assert_eq!(rows.len(), 10_123);
    let deleted = tx.delete(&table, ids.filter(|id| id % 2 == 0).map(|id: i64| vec![id.into()]).collect()).await;
    assert_eq!(deleted.unwrap(), 5_062);
    tx.commit().await.unwrap();
    assert_eq!(count(&database, "numbers").await, 5_061);
}

pub async fn rows_that_do_not_fit_are_refused(url: &str) {
    let table = everything();
    let database = with_table(url, &numbers()).await;
    let mut tx = database.begin().await.unwrap();
    let refused = |error: Error| {
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        error.to_string()
    };
    let error = tx.upsert(&numbers(), vec![vec![1.into()]]).await.unwrap_err();
    assert_eq!(refused(error), "table \"numbers\": a row has 1 values, not 2");
    let error = tx.upsert(&numbers(), vec![vec!["1".into(), "x".into()]]).await.unwrap_err();
    assert_eq!(refused(error), "table \"numbers\", column \"id\": given Text, declared Integer");
    let error = tx.upsert(&numbers(), vec![vec![1.into(), Value::Null]]).await.unwrap_err();
    assert_eq!(refused(error), "table \"numbers\", column \"text\": given no value, declared Text");
    // A database that takes it would hide what another one refuses.
    let error = tx.upsert(&numbers(), vec![vec![1.into(), "a\0b".into()]]).await.unwrap_err();
    assert_eq!(refused(error), "table \"numbers\", column \"text\": text with a zero character can't be stored");
    let late = DateTime::<Utc>::MAX_UTC;
    let row = vec![1.into(), "".into(), "".into(), Value::Null, Value::Null, Value::Null, Value::Null, late.into()];
    let row = [row, vec![Value::Null]].concat();
    let error = tx.upsert(&table, vec![row]).await.unwrap_err();
    assert!(refused(error).ends_with("is not between the years 0 and 9999"));
    for (table, reason) in [
        (Table::new("x; DROP").key("id", Kind::Text), "table \"x; DROP\" is not a valid name"),
        (Table::new("x").key("I\"d", Kind::Text), "column \"I\\\"d\" is not a valid name"),
        (Table::new("x").column("id", Kind::Text), "table \"x\": it has no key"),
        (Table::new("x").key("id", Kind::Text).column("id", Kind::Text), "table \"x\": it has two columns \"id\""),
        (Table::new("es_x").key("id", Kind::Text), "table \"es_x\": names with es_ are the framework's own"),
        (
            Table::new("x").key("id", Kind::Text).index("i", &["no"]),
            "index \"i\" is over \"no\", which is not a column",
        ),
    ] {
        let error = refused(tx.create(&table).await.unwrap_err());
        assert!(error.contains(reason), "{error}");
    }
    for namespace in ["", "Bank", "b-k", "1b", "b\"", "a_b", "anamespacethatistoolong"] {
        let error = refused(Database::connect(url, namespace).await.unwrap_err());
        assert!(error.contains("is not a valid name"), "{error}");
    }
}

pub async fn statements_of_ones_own_run_on_both(url: &str) {
    let database = with_table(url, &everything()).await;
    let name = database.table_name("everything");
    let mut tx = database.begin().await.unwrap();
    let insert = format!("INSERT INTO {name} (id, part, text, number, json, time) VALUES (?, ?, '?', ?, ?, ?) -- ?");
    for id in 1..=3i64 {
        let args =
            [id.into(), "p".into(), Value::Null, Value::json(&vec![id]).unwrap(), time("2026-01-01T00:00:00Z").into()];
        assert_eq!(tx.execute(&insert, &args).await.unwrap(), 1);
    }
    let update = format!("UPDATE {name} SET number = id * ? WHERE text = '?' AND id <> ?");
    assert_eq!(tx.execute(&update, &[10.into(), 2.into()]).await.unwrap(), 2);
    tx.commit().await.unwrap();
    let sql = format!("SELECT sum(number) AS total, count(*) AS rows, count(number) AS numbers FROM {name}");
    let row = database.fetch(&sql, &[]).await.unwrap().remove(0);
    assert_eq!(row.get::<i64>("total").unwrap(), 40);
    assert_eq!((row.get::<i64>("rows").unwrap(), row.get::<i64>("numbers").unwrap()), (3, 2));
    let sql = format!("SELECT json, sum(number) AS total FROM {name} WHERE id = ? GROUP BY id, part");
    let row = database.fetch(&sql, &[2.into()]).await.unwrap().remove(0);
    assert_eq!(row.get::<serde_json::Value>("json").unwrap(), serde_json::json!([2]));
    assert_eq!(row.get::<Option<i64>>("total").unwrap(), None);
    // An argument that is null at first, and of no type that can be told, may be a number later.
    let sql = "SELECT count(*) AS n FROM (VALUES (?, ?), (?, ?)) AS v WHERE CAST(v.column2 AS BIGINT) = 7";
    for (number, found) in [(None, 0), (Some(7i64), 1), (None, 0), (Some(8), 0), (Some(7), 1)] {
        let mut tx = database.begin().await.unwrap();
        let rows = tx.fetch(sql, &["x".into(), number.into(), "y".into(), Value::Null]).await.unwrap();
        assert_eq!(rows[0].get::<i64>("n").unwrap(), found);
        tx.commit().await.unwrap();
    }
    let error = database.fetch("SELECT no_such_column", &[]).await.unwrap_err();
    assert!(matches!(error, Error::Sql { .. }), "{error:?}");
    let error = database.fetch(&format!("SELECT 1 AS one FROM {name} WHERE text = ?"), &["a\0".into()]).await;
    assert!(matches!(error, Err(Error::Invalid(_))), "{error:?}");
}

pub async fn a_transaction_that_is_dropped_changes_nothing(url: &str) {
    let table = numbers();
    let database = with_table(url, &table).await;
    for _ in 0..3 {
        let mut tx = database.begin().await.unwrap();
        tx.upsert(&table, vec![vec![1.into(), "a".into()]]).await.unwrap();
        drop(tx);
        assert_eq!(count(&database, "numbers").await, 0);
    }
}

/// Shows: a row whose key is a decimal number is found, replaced, refused and deleted by that number.
pub async fn a_number_is_one_key_however_it_is_written(url: &str) {
    let database = connect(url).await;
    let table = Table::new("rates").key("rate", Kind::Decimal).column("name", Kind::Text);
    let rate = |text: &str| Value::Decimal(text.parse().unwrap());
    let mut tx = database.begin().await.unwrap();
    tx.create(&table).await.unwrap();
    tx.upsert(&table, vec![vec![rate("1.50"), "a".into()], vec![rate("1.5"), "b".into()]]).await.unwrap();
    tx.upsert(&table, vec![vec![rate("1.500"), "c".into()], vec![rate("-0.0"), "zero".into()]]).await.unwrap();
    let more = vec![vec![rate("1.50000"), "d".into()], vec![rate("0"), "e".into()]];
    assert_eq!(tx.insert(&table, more, OnDuplicate::Keep).await.unwrap(), 0);
    let found = tx.load(&table, vec![vec![rate("01.50")]]).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].get::<String>("name").unwrap(), "c");
    assert_eq!(tx.delete(&table, vec![vec![rate("1.50")], vec![rate("0.00")]]).await.unwrap(), 2);
    tx.rollback().await.unwrap();
}

/// Shows: a batch may move more checkpoints than one statement has room for.
pub async fn thousands_of_partitions_move_at_once(url: &str) {
    const MANY: u32 = 3_000;
    let database = connect(url).await;
    let log = MemoryLog::new(MANY);
    let source = EventSource { partitions: MANY, ..Events::new().source };
    for partition in 0..MANY {
        let (epoch, log_id) = (Epoch { number: 1, writer: 7 }, Uuid::from_u128(u128::from(partition)));
        let claim = Claim {
            epoch,
            log_id,
            node: "test".into(),
            program: None,
            partitions: Some(MANY),
            previous: None,
            copy: None,
        };
        let record = Encoder::new("bank", "account").claim(&claim, 1_700_000_000_000);
        log.partition(&source.topic, partition).append_foreign(record);
    }
    let worker = Worker::new(database.clone(), Arc::new(log), vec![source]).batch_max(2 * MANY as usize);
    let worker = worker.start(Balances::default()).await.unwrap();
    worker.catch_up(SOON * 3).await.unwrap_or_else(|error| panic!("{}: {}", chain(&error), worker.state()));
    worker.stop().await.unwrap();
    let sql = format!("SELECT sum(next_offset) AS n FROM {}", database.table_name("es_checkpoints"));
    assert_eq!(database.fetch(&sql, &[]).await.unwrap()[0].get::<u32>("n").unwrap(), MANY);
}

pub async fn tables_of_a_newer_release_are_refused(url: &str) {
    let database = connect(url).await;
    connect(url).await; // again does no harm
    Database::connect(url, "other").await.unwrap();
    let mut tx = database.begin().await.unwrap();
    let insert = format!(
        "INSERT INTO {} (id, name, checksum, applied_at) VALUES (1000, 'more', 'x', '2026-01-01T00:00:00Z')",
        database.table_name("es_migrations")
    );
    tx.execute(&insert, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let error = Database::connect(url, "bank").await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    assert!(error.to_string().contains("made by a newer release (migration 1000, more): upgrade this program"));
    let mut tx = database.begin().await.unwrap();
    let migrations = database.table_name("es_migrations");
    tx.execute(&format!("DELETE FROM {migrations} WHERE id = 1000"), &[]).await.unwrap();
    tx.execute(&format!("UPDATE {migrations} SET checksum = 'x'"), &[]).await.unwrap();
    tx.commit().await.unwrap();
    let error = Database::connect(url, "bank").await.unwrap_err();
    assert!(error.to_string().contains("made by another build (migration 1, worker, differs)"), "{error}");
}

/// Shows: whoever upgrades keeps the read model that an earlier release has built, and goes on where that one was.
pub async fn tables_of_the_first_release_are_brought_up_and_gone_on_with(url: &str) {
    let other = Database::connect(url, "other").await.unwrap();
    let mut events = Events::new();
    events.add("a", &[1, 2]);
    let worker = events.worker(&other).start(Balances::default()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();

    let types = match url.starts_with("postgres") {
        true => ["TIMESTAMPTZ", "BYTEA"],
        false => ["TEXT", "BLOB"],
    };
    let mut tx = other.begin().await.unwrap();
    for script in [include_str!("../../migrations/0001_worker.sql"), include_str!("../../migrations/0002_holder.sql")] {
        let script = script.replace("{prefix}", "bank").replace("{time}", types[0]).replace("{bytes}", types[1]);
        for statement in without_comments(&script).split(';').filter(|statement| !statement.trim().is_empty()) {
            tx.execute(statement, &[]).await.unwrap();
        }
    }
    let checkpoint = "topic, topic_partition, fence, holder, log_id, next_offset, epoch_number, epoch_writer, \
                      claim_offset, last_sequence, last_record, copy_id, copied, events, void, quarantined, moved_at";
    for statement in [
        "CREATE TABLE bank_es_migrations AS SELECT * FROM other_es_migrations WHERE id <= 2".to_owned(),
        "INSERT INTO bank_es_projections (projection, version, tables, shape, created_at) \
         SELECT projection, version, tables, shape, created_at FROM other_es_builds"
            .to_owned(),
        format!(
            "INSERT INTO bank_es_checkpoints (projection, version, {checkpoint}) \
             SELECT projection, 1, {checkpoint} FROM other_es_checkpoints"
        ),
        "CREATE TABLE bank_balances (account TEXT PRIMARY KEY, balance BIGINT NOT NULL, events BIGINT NOT NULL, \
         changed_at {time} NOT NULL)"
            .replace("{time}", types[0]),
        "INSERT INTO bank_balances SELECT account, balance, events, changed_at FROM other_balances".to_owned(),
    ] {
        tx.execute(&statement, &[]).await.unwrap();
    }
    tx.commit().await.unwrap();

    let database = connect(url).await;
    let worker = events.worker(&database).start(Balances::default()).await.unwrap();
    events.add("a", &[3]);
    caught_up(&worker).await;
    assert_eq!(balances(&database).await, "a 6/3");
    let folded: u64 = worker.progress().iter().map(|at| at.events).sum();
    assert_eq!(folded, 3, "two of them by the release before");
    worker.stop().await.unwrap();
    for name in ["es_builds", "es_parked", "es_waiting", "es_skipped", "es_cuts", "es_workers"] {
        count(&database, name).await; // is there
    }
}

fn without_comments(script: &str) -> String {
    script.lines().filter(|line| !line.trim_start().starts_with("--")).collect::<Vec<_>>().join("\n")
}

/// Shows: two that load, change and add the same rows at once, each in an order of its own, wait for each other and not in a circle.
pub async fn who_changes_the_same_rows_waits_in_no_circle(url: &str) {
    // Few of many: so the database looks for each by its key, in the order in which they are asked for.
    const ROWS: i64 = 20_000;
    const APART: usize = 50;
    let database = connect(url).await;
    let table = Table::new("contended").key("id", Kind::Integer).column("n", Kind::Integer);
    let mut tx = database.begin().await.unwrap();
    tx.create(&table).await.unwrap();
    let rows = (0..ROWS).map(|id| vec![id.into(), 0.into()]).collect();
    tx.insert(&table, rows, OnDuplicate::Fail).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = database.begin().await.unwrap();
    if url.starts_with("postgres") {
        tx.execute(&format!("ANALYZE {}", database.table_name("contended")), &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let change = async |ids: &[i64]| {
        for round in 1..=20 {
            let mut tx = database.begin().await?;
            let keys = ids.iter().map(|id| vec![(*id).into()]).collect();
            let mut rows: Vec<_> = tx.load(&table, keys).await?.into_iter().map(|row| row.into_values()).collect();
            rows.iter_mut().for_each(|row| row[1] = round.into());
            tx.upsert(&table, rows).await?;
            tx.commit().await?;
        }
        Ok::<_, Error>(())
    };
    let add = async |ids: &[i64]| {
        for round in 1..=40 {
            let mut tx = database.begin().await?;
            let new = ids.iter().map(|id| vec![(id + ROWS * round).into(), 0.into()]).collect();
            match tx.insert(&table, new, OnDuplicate::Retry).await {
                Ok(_) => tx.commit().await?,
                Err(error) if chain(&error).contains("another worker added") => tx.rollback().await?,
                Err(error) => return Err(error),
            }
        }
        Ok::<_, Error>(())
    };
    let upwards: Vec<_> = (0..ROWS).step_by(APART).collect();
    let downwards: Vec<_> = upwards.iter().rev().copied().collect();
    let (one, other) = tokio::join!(change(&upwards), change(&downwards));
    // Many at once, so that both are in the midst of it.
    let (upwards, downwards): (Vec<_>, Vec<_>) = ((0..4_000).collect(), (0..4_000).rev().collect());
    let (third, fourth) = tokio::join!(add(&upwards), add(&downwards));
    for done in [one, other, third, fourth] {
        done.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
}
