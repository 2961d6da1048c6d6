//! SQLite: a pool of readers and one connection that writes.

mod wal;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Arguments, AssertSqlSafe, Column as _, ConnectOptions, Decode, Row as _, Sqlite, TypeInfo, ValueRef};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::DriverError;
use super::statement::{self, names, on_conflict_update, same_key};
use super::table::{Column, Table};
use super::tx::OnDuplicate;
use super::value::{Kind, Row, Value, time_text};
use wal::WalMover;

type Result<T> = std::result::Result<T, DriverError>;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Rows of one statement: enough to make its fixed cost small.
const CHUNK_ROWS: usize = 512;
/// SQLite's limit of arguments in one statement.
const ARGUMENTS_MAX: usize = 32_766;

pub(super) struct Pools {
    read: SqlitePool,
    write: SqlitePool,
    /// SQLite has one writer at a time; waiting here is fair and costs no busy loop.
    writer: Arc<Mutex<()>>,
    /// None for a database in memory, which has no write-ahead log.
    wal: Option<Arc<WalMover>>,
}

impl Pools {
    pub(super) async fn connect(url: &str, connections: u32) -> Result<Self> {
        let in_memory = url.starts_with("sqlite::memory:") || url.contains("mode=memory");
        // Rows and checkpoint move in one transaction, and the log can fill both again. So a power failure may take
        // the last transactions, as NORMAL allows in WAL mode, and nothing is lost nor torn.
        let options = SqliteConnectOptions::from_str(url)
            .map_err(failed)?
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", "-32768")
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", wal::WRITER_PAGES)
            .disable_statement_logging();
        // A database in memory lives as long as its connection, so there it is one, and never closed.
        let lasting = || SqlitePoolOptions::new().idle_timeout(None).max_lifetime(None);
        let write = lasting().max_connections(1).connect_with(options.clone()).await.map_err(failed)?;
        let read =
            if in_memory { write.clone() } else { lasting().max_connections(connections).connect_lazy_with(options) };
        let wal = (!in_memory).then(|| Arc::new(WalMover::start(read.clone())));
        Ok(Self { read, write, writer: Arc::default(), wal })
    }

    pub(super) async fn fetch(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        let args = arguments(args.iter().cloned())?;
        if !takes_all_columns(sql) {
            return decode_rows(&query(sql, args).fetch_all(&self.read).await.map_err(failed)?);
        }
        let mut tx = self.read.begin().await.map_err(failed)?;
        learn_schema(&mut tx).await?;
        decode_rows(&query(sql, args).fetch_all(&mut *tx).await.map_err(failed)?)
    }

    pub(super) async fn begin(&self) -> Result<Tx> {
        let turn = self.writer.clone().lock_owned().await;
        // Takes the lock at once: a transaction that begins by reading could not write if another process did meanwhile.
        let tx = self.write.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        Ok(Tx { tx, _turn: Some(turn), wal: self.wal.clone() })
    }

    /// A transaction that reads what is there now, beside the writer.
    pub(super) async fn snapshot(&self) -> Result<Tx> {
        if self.wal.is_none() {
            let reason = "a database in memory has one connection, and no other way to read beside it: use a file";
            return Err(DriverError::Invalid(reason.into()));
        }
        let mut tx = self.read.begin().await.map_err(failed)?;
        learn_schema(&mut tx).await?; // it begins with what is read first
        Ok(Tx { tx, _turn: None, wal: None })
    }

    pub(super) async fn close(&self) {
        self.read.close().await;
        self.write.close().await;
    }
}

pub(super) struct Tx {
    // Dropped in this order: the connection is given back before the next writer takes its turn.
    tx: sqlx::Transaction<'static, Sqlite>,
    /// None for one that only reads.
    _turn: Option<OwnedMutexGuard<()>>,
    wal: Option<Arc<WalMover>>,
}

impl Tx {
    pub(super) async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64> {
        self.run(sql, arguments(args.iter().cloned())?).await
    }

    pub(super) async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        if takes_all_columns(sql) {
            learn_schema(&mut self.tx).await?;
        }
        let rows = query(sql, arguments(args.iter().cloned())?).fetch_all(&mut *self.tx).await.map_err(failed)?;
        decode_rows(&rows)
    }

    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *self.tx).await.map_err(failed)?;
        Ok(())
    }

    pub(super) async fn create(&mut self, table: &Table, name: &str) -> Result<()> {
        self.script(&create(table, name)).await?;
        let sql = "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ?";
        let there = statement::first_texts(&self.fetch(sql, &[name.into()]).await?);
        self.script(&statement::create_indexes(table, name, &there)).await
    }

    pub(super) async fn upsert(&mut self, table: &Table, name: &str, rows: Vec<Vec<Value>>) -> Result<()> {
        self.write("INSERT", table, name, rows, &on_conflict_update(table)).await?;
        Ok(())
    }

    pub(super) async fn insert(
        &mut self,
        table: &Table,
        name: &str,
        rows: Vec<Vec<Value>>,
        or: OnDuplicate,
    ) -> Result<u64> {
        let end = match or {
            OnDuplicate::Fail => "",
            OnDuplicate::Keep | OnDuplicate::Retry => {
                &format!(" ON CONFLICT ({}) DO NOTHING", names(table.key_columns(), ""))
            }
        };
        // A failed statement ends the transaction, so what it had done need not be undone: FAIL spares the copy of each
        // page that ABORT would keep, a third of the time.
        self.write("INSERT OR FAIL", table, name, rows, end).await
    }

    async fn write(
        &mut self,
        insert: &str,
        table: &Table,
        name: &str,
        rows: Vec<Vec<Value>>,
        end: &str,
    ) -> Result<u64> {
        let width = table.columns().len();
        let start = format!("{insert} INTO {} ({}) VALUES ", statement::quoted(name), names(table.columns(), ""));
        self.run_each(rows, width, |len| format!("{start}{}{end}", tuples(len, width))).await
    }

    pub(super) async fn load(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<Vec<Row>> {
        let key = table.key_columns();
        let columns: Arc<[String]> = table.columns().iter().map(|column| column.name.clone()).collect();
        let mut loaded = Vec::with_capacity(keys.len());
        for chunk in chunks(keys, key.len()) {
            // A cross join is never turned around: one look-up by key for each key.
            let sql = format!(
                "WITH k({}) AS (VALUES {}) SELECT {} FROM k CROSS JOIN {} AS t ON {}",
                names(key, ""),
                tuples(chunk.len(), key.len()),
                names(table.columns(), "t."),
                statement::quoted(name),
                same_key(table, "t", "k"),
            );
            let args = arguments(chunk.into_iter().flatten())?;
            for row in query(&sql, args).fetch_all(&mut *self.tx).await.map_err(failed)? {
                loaded.push(Row { columns: columns.clone(), values: decode_declared(&row, table.columns())? });
            }
        }
        Ok(loaded)
    }

    pub(super) async fn delete(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<u64> {
        let key = table.key_columns();
        let start = format!("DELETE FROM {} WHERE ({}) IN (VALUES ", statement::quoted(name), names(key, ""));
        self.run_each(keys, key.len(), |len| format!("{start}{})", tuples(len, key.len()))).await
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.tx.commit().await.map_err(failed)?;
        if let Some(wal) = &self.wal {
            wal.committed();
        }
        Ok(())
    }

    pub(super) async fn rollback(self) -> Result<()> {
        self.tx.rollback().await.map_err(failed)
    }

    /// Runs a statement for each chunk of the rows. While one runs, the arguments of the next are made.
    async fn run_each(&mut self, rows: Vec<Vec<Value>>, width: usize, sql: impl Fn(usize) -> String) -> Result<u64> {
        let mut statements = chunks(rows, width)
            .map(|chunk| Ok::<_, DriverError>((sql(chunk.len()), arguments(chunk.into_iter().flatten())?)));
        let mut statement = statements.next().transpose()?;
        let mut changed = 0;
        while let Some((sql, args)) = statement {
            let (done, next) = future::join(self.run(&sql, args), async { statements.next().transpose() }).await;
            changed += done?;
            statement = next?;
        }
        Ok(changed)
    }

    async fn run(&mut self, sql: &str, args: SqliteArguments) -> Result<u64> {
        Ok(query(sql, args).execute(&mut *self.tx).await.map_err(failed)?.rows_affected())
    }
}

/// The statement that makes a table. `STRICT`, so that a value of another type is refused as it is elsewhere.
fn create(table: &Table, name: &str) -> String {
    let kind_name = |column: &Column| match column.kind {
        Kind::Integer | Kind::Bool => "INTEGER",
        Kind::Text | Kind::Json | Kind::Time | Kind::Date | Kind::Decimal | Kind::Uuid => "TEXT",
        Kind::Bytes => "BLOB",
    };
    statement::create(table, name, kind_name, " STRICT")
}

/// Splits rows so that few different statements are needed: each chunk's size is a power of two, and SQLite keeps
/// the prepared statement of each.
fn chunks(mut rows: Vec<Vec<Value>>, width: usize) -> impl Iterator<Item = Vec<Vec<Value>>> {
    let max = CHUNK_ROWS.min(ARGUMENTS_MAX / width);
    std::iter::from_fn(move || {
        let fits = rows.len().min(max);
        let size = 1 << fits.checked_ilog2()?;
        let rest = rows.split_off(size);
        Some(std::mem::replace(&mut rows, rest))
    })
}

/// `(?,?),(?,?)`
fn tuples(rows: usize, width: usize) -> String {
    let tuple = format!("({})", vec!["?"; width].join(","));
    vec![tuple; rows].join(",")
}

fn takes_all_columns(sql: &str) -> bool {
    sql.contains('*')
}

/// The driver counts the columns of a statement when it prepares it, and reads wrongly, without an error, where SQLite
/// prepares it again because another connection made the table anew. So a statement that may have `*` for its columns
/// is never kept, and another one before it, in the same transaction, brings the connection the newest schema.
async fn learn_schema(connection: &mut SqliteConnection) -> Result<()> {
    query("SELECT name FROM sqlite_schema LIMIT 1", SqliteArguments::default())
        .fetch_optional(connection)
        .await
        .map(drop)
        .map_err(failed)
}

fn query(sql: &str, args: SqliteArguments) -> sqlx::query::Query<'_, Sqlite, SqliteArguments> {
    sqlx::query_with(AssertSqlSafe(sql), args).persistent(!takes_all_columns(sql))
}

fn arguments(values: impl Iterator<Item = Value>) -> Result<SqliteArguments> {
    let mut args = SqliteArguments::default();
    for value in values {
        let added = match value {
            Value::Null => args.add(None::<i64>),
            Value::Integer(value) => args.add(value),
            Value::Text(value) | Value::Json(value) => args.add(value),
            Value::Bool(value) => args.add(i64::from(value)),
            Value::Bytes(value) => args.add(value),
            Value::Time(value) => args.add(time_text(value)),
            Value::Date(value) => args.add(value.to_string()),
            Value::Decimal(value) => args.add(value.to_string()),
            Value::Uuid(value) => args.add(value.hyphenated().to_string()),
        };
        added.map_err(DriverError::Sql)?;
    }
    Ok(args)
}

fn decode_rows(rows: &[SqliteRow]) -> Result<Vec<Row>> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let decode = |row: &SqliteRow| {
        let values = (0..columns.len()).map(|place| decode_value(row, place)).collect::<Result<_>>()?;
        Ok(Row { columns: columns.clone(), values })
    };
    rows.iter().map(decode).collect()
}

/// A value as it is stored: SQLite knows integers, text and blobs.
fn decode_value(row: &SqliteRow, place: usize) -> Result<Value> {
    let value = row.try_get_raw(place).map_err(failed)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    let decoded = match value.type_info().name() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(value).map(Value::Integer),
        "TEXT" => <&str as Decode<Sqlite>>::decode(value).map(Value::from),
        "BLOB" => <Vec<u8> as Decode<Sqlite>>::decode(value).map(Value::Bytes),
        other => {
            let name = row.column(place).name();
            return Err(DriverError::Invalid(format!("column {name:?} is {other}, which is not read: cast it")));
        }
    };
    decoded.map_err(DriverError::Sql)
}

/// The values of a declared table's columns.
fn decode_declared(row: &SqliteRow, columns: &[Column]) -> Result<Vec<Value>> {
    let decode = |(place, column): (usize, &Column)| {
        let wrong = || DriverError::Invalid(format!("column {:?} holds what is no {:?}", column.name, column.kind));
        column.kind.declared(decode_value(row, place)?).ok_or_else(wrong)
    };
    columns.iter().enumerate().map(decode).collect()
}

/// Sorts SQLite's errors: busy, locked, I/O and full may pass.
fn failed(error: sqlx::Error) -> DriverError {
    super::sort_error(error, |code| {
        let primary = code.parse::<i32>().map_or(0, |code| code & 0xff);
        matches!(primary, 5 | 6 | 10 | 13)
    })
}
