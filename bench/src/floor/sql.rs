//! Rows in bulk: one statement a batch and one transaction, with sqlx and nothing else.

use chrono::{DateTime, Utc};
use es_projections::{Column, Database, Kind, Table, Value};
use sqlx::postgres::{PgArguments, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe};
use uuid::Uuid;

use crate::Failure;

/// Writes rows to a table of the same shape as another.
pub(crate) struct BulkInsert {
    pool: Pool,
    columns: Vec<Column>,
    /// The start and the end of the statement.
    start: String,
    end: String,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl BulkInsert {
    /// Makes the table, empty, with the same key and indexes.
    pub(crate) async fn like(url: &str, table: &Table) -> Result<Self, Failure> {
        let columns = table.columns().to_vec();
        let key: Vec<_> = table.key_columns().iter().map(|column| column.name.clone()).collect();
        let names =
            |columns: &[Column]| columns.iter().map(|column| column.name.clone()).collect::<Vec<_>>().join(", ");
        let set = columns[key.len()..].iter().map(|column| format!("{0} = excluded.{0}", column.name));
        let end = format!(" ON CONFLICT ({}) DO UPDATE SET {}", key.join(", "), set.collect::<Vec<_>>().join(", "));
        let start = format!("INSERT INTO floor_{} ({}) ", table.name(), names(&columns));
        // Through another namespace the framework makes the same table.
        let floor = Database::connect(url, "floor").await?;
        let mut tx = floor.begin().await?;
        tx.create(table).await?;
        tx.commit().await?;
        floor.close().await;
        let pool = if url.starts_with("sqlite:") {
            let options: SqliteConnectOptions = url.parse()?;
            let options = options
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Normal)
                .pragma("cache_size", "-32768");
            Pool::Sqlite(SqlitePoolOptions::new().max_connections(1).connect_with(options).await?)
        } else {
            let pool = PgPoolOptions::new().max_connections(1).connect(url).await?;
            sqlx::query("SET synchronous_commit = off").execute(&pool).await?;
            Pool::Postgres(pool)
        };
        Ok(Self { pool, columns, start, end })
    }

    /// Writes rows, those of the same keys in place of others, and commits.
    pub(crate) async fn write(&self, rows: Vec<Vec<Value>>) -> Result<(), Failure> {
        match &self.pool {
            Pool::Sqlite(pool) => {
                let mut tx = pool.begin().await?;
                for chunk in rows.chunks(512) {
                    let tuple = format!("({})", vec!["?"; self.columns.len()].join(","));
                    let sql = format!("{}VALUES {}{}", self.start, vec![tuple; chunk.len()].join(","), self.end);
                    let mut args = SqliteArguments::default();
                    for value in chunk.iter().flatten() {
                        add(&mut args, value).map_err(|error| error.to_string())?;
                    }
                    sqlx::query_with(AssertSqlSafe(sql), args).execute(&mut *tx).await?;
                }
                tx.commit().await?;
            }
            Pool::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                let places = (1..=self.columns.len()).map(|place| match self.columns[place - 1].kind {
                    Kind::Json => format!("${place}::text[]::json[]"),
                    _ => format!("${place}"),
                });
                let places = places.collect::<Vec<_>>().join(", ");
                let sql = format!("{}SELECT * FROM unnest({places}){}", self.start, self.end);
                let mut args = PgArguments::default();
                for (place, column) in self.columns.iter().enumerate() {
                    let values = rows.iter().map(|row| &row[place]);
                    add_array(&mut args, column.kind, values).map_err(|error| error.to_string())?;
                }
                sqlx::query_with(AssertSqlSafe(sql), args).execute(&mut *tx).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }
}

fn add(args: &mut SqliteArguments, value: &Value) -> Result<(), sqlx::error::BoxDynError> {
    match value {
        Value::Null => args.add(None::<i64>),
        Value::Integer(value) => args.add(*value),
        Value::Bytes(value) => args.add(value.clone()),
        other => args.add(other.to_string()),
    }
}

fn add_array<'a>(
    args: &mut PgArguments,
    kind: Kind,
    values: impl Iterator<Item = &'a Value>,
) -> Result<(), sqlx::error::BoxDynError> {
    fn some<'a, T>(values: impl Iterator<Item = &'a Value>, get: impl Fn(&'a Value) -> Option<T>) -> Vec<Option<T>> {
        values.map(get).collect()
    }
    match kind {
        Kind::Integer => args.add(some(values, |value| match value {
            Value::Integer(value) => Some(*value),
            _ => None,
        })),
        Kind::Bytes => args.add(some(values, |value| match value {
            Value::Bytes(value) => Some(value.clone()),
            _ => None,
        })),
        Kind::Time => args.add(some::<DateTime<Utc>>(values, |value| match value {
            Value::Time(value) => Some(*value),
            _ => None,
        })),
        Kind::Uuid => args.add(some::<Uuid>(values, |value| match value {
            Value::Uuid(value) => Some(*value),
            _ => None,
        })),
        _ => args.add(some(values, |value| (!value.is_null()).then(|| value.to_string()))),
    }
}
