//! The workers of a build: each says in the database that it is there, by a beat that it raises.

use std::sync::Arc;

use crate::builds::Build;
use crate::error::Error;
use crate::sql::{Database, Tx};

/// A worker of a build, as its row tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Member {
    /// No other worker has this name.
    pub(crate) name: Arc<str>,
    pub(crate) beat: i64,
    /// Whether it shares the places with others, or takes all of them.
    pub(crate) shares: bool,
    /// Whether it holds some only where no other one shares them.
    pub(crate) stands_in: bool,
}

/// Writes the row, with the beat as it is now.
pub(crate) async fn beat(tx: &mut Tx, build: &Build, member: &Member) -> Result<(), Error> {
    let table = tx.table_name("es_workers");
    let upsert = format!(
        "INSERT INTO {table} (projection, build, worker, beat, shares) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (projection, build, worker) DO UPDATE SET beat = excluded.beat, shares = excluded.shares"
    );
    let shares = i64::from(member.shares) + i64::from(member.shares && member.stands_in);
    let row = [member.name.clone().into(), member.beat.into(), shares.into()];
    tx.execute(&upsert, &[&build.key()[..], &row].concat()).await.map(drop)
}

/// The workers of a build, by name.
pub(crate) async fn of(database: &Database, build: &Build) -> Result<Vec<Member>, Error> {
    let table = database.table_name("es_workers");
    let sql = format!("SELECT worker, beat, shares FROM {table} WHERE projection = ? AND build = ?");
    let rows = database.fetch(&sql, &build.key()).await?;
    let read = |row: &crate::sql::Row| {
        let (name, shares): (String, i64) = (row.get("worker")?, row.get("shares")?);
        Ok(Member { name: name.into(), beat: row.get("beat")?, shares: shares != 0, stands_in: shares == 2 })
    };
    let mut members = rows.iter().map(read).collect::<Result<Vec<_>, Error>>()?;
    // Not by the database, where each has an order of its own.
    members.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    Ok(members)
}

/// Deletes the row of a worker that stops.
pub(crate) async fn leave(tx: &mut Tx, build: &Build, member: &Member) -> Result<(), Error> {
    let delete =
        format!("DELETE FROM {} WHERE projection = ? AND build = ? AND worker = ?", tx.table_name("es_workers"));
    tx.execute(&delete, &[&build.key()[..], &[member.name.clone().into()]].concat()).await.map(drop)
}

/// Deletes the row of a worker that is gone, unless it was heard of since.
pub(crate) async fn strike(tx: &mut Tx, build: &Build, gone: &Member) -> Result<(), Error> {
    let table = tx.table_name("es_workers");
    let delete = format!("DELETE FROM {table} WHERE projection = ? AND build = ? AND worker = ? AND beat = ?");
    let row = [gone.name.clone().into(), gone.beat.into()];
    tx.execute(&delete, &[&build.key()[..], &row].concat()).await.map(drop)
}

/// Deletes all rows of a build.
pub(crate) async fn strike_all(tx: &mut Tx, build: &Build) -> Result<(), Error> {
    let delete = format!("DELETE FROM {} WHERE projection = ? AND build = ?", tx.table_name("es_workers"));
    tx.execute(&delete, &build.key()).await.map(drop)
}
