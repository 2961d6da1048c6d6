//! The framework's own tables: numbered files, each applied once, in order, and never changed after a release.

use chrono::Utc;
use sha2::{Digest, Sha256};

use super::{Database, Row};
use crate::error::Error;

/// In order. A change of the tables is a new file at the end.
const MIGRATIONS: &[(i64, &str, &str)] = &[
    (1, "worker", include_str!("../../migrations/0001_worker.sql")),
    (2, "holder", include_str!("../../migrations/0002_holder.sql")),
    (3, "builds", include_str!("../../migrations/0003_builds.sql")),
    (4, "workers", include_str!("../../migrations/0004_workers.sql")),
    (5, "wishes", include_str!("../../migrations/0005_wishes.sql")),
    (6, "absent", include_str!("../../migrations/0006_absent.sql")),
];

/// Applies what is missing.
pub(crate) async fn run(database: &Database) -> Result<(), Error> {
    let table = database.table_name("es_migrations");
    let select = format!("SELECT id, name, checksum FROM {table} ORDER BY id");
    // Reading first: a program that only looks does not wait for one that writes all the time.
    match database.fetch(&select, &[]).await {
        Ok(applied) if check(database, &applied)? == MIGRATIONS.len() => return Ok(()),
        Err(error) if error.is_retryable() => return Err(error),
        _ => {} // there is no such table yet, or it lacks some
    }
    let mut tx = database.begin().await?;
    tx.lock_schema().await?;
    let columns = "id BIGINT PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, applied_at {time} NOT NULL";
    tx.migrate("es_migrations", &format!("CREATE TABLE IF NOT EXISTS {table} ({columns})")).await?;
    let applied = check(database, &tx.fetch(&select, &[]).await?)?;
    for (id, name, file) in &MIGRATIONS[applied..] {
        tx.migrate(name, &file.replace("{prefix}", database.namespace())).await?;
        let insert = format!("INSERT INTO {table} (id, name, checksum, applied_at) VALUES (?, ?, ?, ?)");
        tx.execute(&insert, &[(*id).into(), (*name).into(), checksum(file).into(), Utc::now().into()]).await?;
    }
    tx.commit().await
}

/// Whether the applied migrations are ours, unchanged; tells how many they are.
fn check(database: &Database, applied: &[Row]) -> Result<usize, Error> {
    let place = format!("the tables of namespace {} on {}", database.namespace(), database.url());
    for row in applied {
        let (id, name): (i64, String) = (row.get("id")?, row.get("name")?);
        let Some((_, _, file)) = MIGRATIONS.iter().find(|(known, ..)| *known == id) else {
            let reason = format!("{place} were made by a newer release (migration {id}, {name}): upgrade this program");
            return Err(Error::OtherVersion(reason));
        };
        if checksum(file) != row.get::<String>("checksum")? {
            let what = format!("made by another build (migration {id}, {name}, differs)");
            return Err(Error::OtherVersion(format!("{place} were {what}: use another namespace")));
        }
    }
    Ok(applied.len())
}

fn checksum(file: &str) -> String {
    Sha256::digest(file).iter().map(|byte| format!("{byte:02x}")).collect()
}
