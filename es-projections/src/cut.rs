//! Cuts: a place in the log, the offset of each partition, saved under a name.

use std::collections::HashMap;

use chrono::Utc;

use crate::error::Error;
use crate::place::Place;
use crate::sql::{Database, Tx, Value};

/// The name of the cut of a read model as of some time: no name that a user gives looks like it.
pub(crate) fn own(projection: &str, label: &str) -> String {
    format!("!{projection} {label}")
}

/// Forgets a cut.
pub(crate) async fn forget(tx: &mut Tx, name: &str) -> Result<(), Error> {
    let table = tx.table_name("es_cuts");
    tx.execute(&format!("DELETE FROM {table} WHERE name = ?"), &[name.into()]).await.map(drop)
}

/// Saves a cut. One that is there stays: a name stands for one place for ever.
pub(crate) async fn save(database: &Database, name: &str, places: &[Place], offsets: &[u64]) -> Result<(), Error> {
    let mut tx = database.begin_durably().await?;
    let table = tx.table_name("es_cuts");
    let insert = format!(
        "INSERT INTO {table} (name, topic, topic_partition, next_offset, saved_at) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
    );
    let mut added = 0;
    for (place, offset) in places.iter().zip(offsets) {
        let (topic, partition) = (place.topic.clone().into(), place.partition.into());
        let row = [name.into(), topic, partition, Value::Integer(*offset as i64), Utc::now().into()];
        added += tx.execute(&insert, &row).await?;
    }
    if added == places.len() as u64 {
        return tx.commit().await;
    }
    // It was there before, or another process was first.
    tx.rollback().await?;
    if find(database, name, places).await?.as_deref() == Some(offsets) {
        return Ok(());
    }
    Err(Error::invalid(format!("cut {name:?} is saved already, at another place: give this one another name")))
}

/// The offset of each place.
pub(crate) async fn load(database: &Database, name: &str, places: &[Place]) -> Result<Vec<u64>, Error> {
    let found = find(database, name, places).await?;
    found.ok_or_else(|| Error::invalid(format!("there is no cut {name:?}: save one with `Worker::save_cut`")))
}

/// The same; none where no cut has that name.
pub(crate) async fn find(database: &Database, name: &str, places: &[Place]) -> Result<Option<Vec<u64>>, Error> {
    let table = database.table_name("es_cuts");
    let sql = format!("SELECT topic, topic_partition, next_offset FROM {table} WHERE name = ?");
    let mut found = HashMap::new();
    for row in database.fetch(&sql, &[name.into()]).await? {
        found.insert((row.get::<String>("topic")?, row.get::<u32>("topic_partition")?), row.get::<u64>("next_offset")?);
    }
    if found.is_empty() {
        return Ok(None);
    }
    // Partitions that are not in it are those of a topic that was not read when it was saved.
    let offset = |place: &Place| found.get(&(place.topic.to_string(), place.partition)).copied().unwrap_or(0);
    Ok(Some(places.iter().map(offset).collect()))
}
