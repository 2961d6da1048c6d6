//! The framework's own tables: numbered files, each applied once, in order, and never changed after a release.

use chrono::Utc;
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::sql::{Database, Tx};

/// In order. A change of the tables is a new file at the end.
const MIGRATIONS: &[(i64, &str, &str)] = &[(1, "worker", include_str!("../migrations/0001_worker.sql"))];

/// Applies what is missing.
pub(crate) async fn run(database: &Database) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    tx.lock_schema().await?;
    let table = database.table_name("es_migrations");
    let columns = "id BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at {time} NOT NULL";
    tx.migrate("es_migrations", &format!("CREATE TABLE IF NOT EXISTS {table} ({columns})")).await?;
    let applied = tx.fetch(&format!("SELECT id, name, checksum FROM {table} ORDER BY id"), &[]).await?;
    for row in &applied {
        check(database, row.get("id")?, &row.get::<String>("name")?, &row.get::<String>("checksum")?)?;
    }
    for (id, name, file) in &MIGRATIONS[applied.len()..] {
        apply(&mut tx, database, name, file).await?;
        let insert = format!("INSERT INTO {table} (id, name, checksum, applied_at) VALUES (?, ?, ?, ?)");
        tx.execute(&insert, &[(*id).into(), (*name).into(), checksum(file).into(), Utc::now().into()]).await?;
    }
    tx.commit().await
}

async fn apply(tx: &mut Tx, database: &Database, name: &str, file: &str) -> Result<(), Error> {
    tx.migrate(name, &file.replace("{prefix}", database.namespace())).await
}

/// Whether an applied migration is one of ours, unchanged.
fn check(database: &Database, id: i64, name: &str, found: &str) -> Result<(), Error> {
    let place = format!("the tables of namespace {} on {}", database.namespace(), database.url());
    let Some((_, _, file)) = MIGRATIONS.iter().find(|(known, ..)| *known == id) else {
        let reason = format!("{place} were made by a newer release (migration {id}, {name}): upgrade this program");
        return Err(Error::OtherVersion(reason));
    };
    if checksum(file) != found {
        let reason =
            format!("{place} were made by another build (migration {id}, {name}, differs): use another namespace");
        return Err(Error::OtherVersion(reason));
    }
    Ok(())
}

fn checksum(file: &str) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}
