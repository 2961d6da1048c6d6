//! SQLite: a pool of readers and one connection that writes.

mod change;
mod wal;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use futures::future;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteRow, SqliteSynchronous,
};
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, ConnectOptions, Connection, Decode, Row as _, Sqlite, TypeInfo, ValueRef,
};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::timeout;

use super::names::quoted;
use super::pool::{GivenUp, Lease, Open, Pool, ends, left};
use super::statement::{self, Named, OnDuplicate, names, on_conflict_update, same_key};
use super::table::{Column, Table};
use super::value::{Kind, Row, Value, settled_time, time_text, unreadable};
use super::{DriverError, Durable, sort};
use wal::WalMover;

type Result<T> = std::result::Result<T, DriverError>;

/// How long a statement waits for another process that writes.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many steps of its machine SQLite does before it looks whether the statement was given up: some tens of microseconds.
const STEPS: i32 = 10_000;
/// Rows of one statement: enough to make its fixed cost small.
const CHUNK_ROWS: usize = 512;
/// SQLite's limit of arguments in one statement.
const ARGUMENTS_MAX: usize = 32_766;

#[derive(Clone)]
struct Opener {
    options: SqliteConnectOptions,
    in_memory: bool,
}

impl Open for Opener {
    type Connection = SqliteConnection;

    async fn open(&self) -> Result<(SqliteConnection, GivenUp)> {
        let mut connection = SqliteConnection::connect_with(&self.options).await.map_err(failed)?;
        let given_up = GivenUp::default();
        if !self.in_memory {
            // Else it would run to its end in the thread of the connection, whoever has closed that, and keep the lock of a writer.
            let given_up = given_up.clone();
            let mut handle = connection.lock_handle().await.map_err(failed)?;
            handle.set_progress_handler(STEPS, move || !given_up.is_told());
        }
        Ok((connection, given_up))
    }

    /// A database in memory lives as long as its connection.
    fn is_the_database(&self) -> bool {
        self.in_memory
    }
}

pub(super) struct Pools {
    read: Pool<Opener>,
    write: Pool<Opener>,
    /// Its commits are synced to the disk.
    durable: Pool<Opener>,
    /// SQLite has one writer at a time; waiting here is fair and costs no busy loop.
    writer: Arc<Mutex<()>>,
    /// None for a database in memory, which has no write-ahead log.
    wal: Option<Arc<WalMover>>,
}

impl Pools {
    pub(super) async fn connect(url: &str, connections: u32, within: Duration) -> Result<Self> {
        let in_memory = url.starts_with("sqlite::memory:") || url.contains("mode=memory");
        let options = SqliteConnectOptions::from_str(url).map_err(failed)?;
        Self::with(options, in_memory, connections, within).await
    }

    /// `path` is a whole one: SQLite takes what begins with `file:` for a URL.
    pub(super) async fn open(path: &Path, connections: u32, within: Duration) -> Result<Self> {
        Self::with(SqliteConnectOptions::new().filename(path), false, connections, within).await
    }

    async fn with(options: SqliteConnectOptions, in_memory: bool, connections: u32, within: Duration) -> Result<Self> {
        // Rows and checkpoint move in one transaction, and the log can fill both again. So a power failure may take
        // the last transactions, as NORMAL allows in WAL mode, and nothing is lost nor torn.
        let options = options
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY_TIMEOUT)
            .pragma("cache_size", "-32768")
            .pragma("temp_store", "memory")
            .pragma("wal_autocheckpoint", wal::WRITER_PAGES)
            .disable_statement_logging();
        let opener = Opener { options, in_memory };
        let write = Pool::new(opener.clone(), 1);
        drop(write.acquire(within).await?);
        if in_memory {
            return Ok(Self { read: write.clone(), durable: write.clone(), write, writer: Arc::default(), wal: None });
        }
        let durable = Opener { options: opener.options.clone().synchronous(SqliteSynchronous::Full), in_memory };
        let read = Pool::new(opener, connections);
        let wal = Some(Arc::new(WalMover::start(read.clone())));
        Ok(Self { read, write, durable: Pool::new(durable, 1), writer: Arc::default(), wal })
    }

    pub(super) async fn fetch(&self, sql: &str, args: &[Value], limit: Duration) -> Result<Vec<Row>> {
        let (args, ends) = (arguments(args.iter().cloned())?, ends(limit));
        let mut lease = lease(&self.read, limit).await?;
        if !takes_all_columns(sql) {
            let left = left(ends);
            let done = timeout(left, fetch(lease.ask(), sql, args)).await;
            return lease.answered(left, done);
        }
        let mut tx = Tx { lease, _turn: None, wal: None, limit: left(ends), ended: false };
        tx.script("BEGIN").await?;
        tx.limit = left(ends);
        learn_schema(&mut tx).await?;
        tx.limit = left(ends);
        let rows = tx.ask(sql, args).await?;
        tx.limit = limit; // the rows are there
        tx.rollback().await.map(|()| rows)
    }

    pub(super) async fn begin(&self, durable: Durable, limit: Duration) -> Result<Tx> {
        let ends = ends(limit);
        let turn = timeout(limit, self.writer.clone().lock_owned()).await;
        let busy = |_| DriverError::Unavailable(format!("another transaction has been writing for {limit:?}").into());
        let turn = Some(turn.map_err(busy)?);
        let pool = if durable == Durable::AtOnce { &self.durable } else { &self.write };
        let lease = lease(pool, left(ends)).await?;
        let mut tx = Tx { lease, _turn: turn, wal: self.wal.clone(), limit: left(ends), ended: false };
        // Takes the lock at once: a transaction that begins by reading could not write if another process did meanwhile.
        tx.script("BEGIN IMMEDIATE").await?;
        tx.limit = limit;
        Ok(tx)
    }

    /// A transaction that reads what is there now, beside the writer.
    pub(super) async fn snapshot(&self, limit: Duration) -> Result<Tx> {
        if self.wal.is_none() {
            let reason = "a database in memory has one connection, and no other way to read beside it: use a file";
            return Err(DriverError::Invalid(reason.into()));
        }
        let ends = ends(limit);
        let lease = lease(&self.read, limit).await?;
        let mut tx = Tx { lease, _turn: None, wal: None, limit: left(ends), ended: false };
        tx.script("BEGIN").await?;
        tx.limit = left(ends);
        learn_schema(&mut tx).await?; // it begins with what is read first
        tx.limit = limit;
        Ok(tx)
    }

    pub(super) async fn close(&self) {
        for pool in [&self.read, &self.durable, &self.write] {
            pool.close().await;
        }
    }
}

/// A connection without a transaction.
async fn lease(pool: &Pool<Opener>, limit: Duration) -> Result<Lease<Opener>> {
    let mut lease = pool.acquire(limit).await?;
    if lease.was_given_up() {
        // It is the database itself, in memory, and what was begun on it was never ended.
        let rolled_back = timeout(limit, script(lease.ask(), "ROLLBACK")).await;
        if rolled_back.is_ok() {
            let _ = lease.answered(limit, Ok(Ok(()))); // where nothing was begun there is nothing to end
        }
    }
    Ok(lease)
}

/// A transaction. Unless SQLite answers to its end the connection is closed: whether that is in a transaction still, nobody knows.
/// After some failures, as of a full disk, SQLite ends one by itself.
pub(super) struct Tx {
    // Dropped in this order: the connection is given back before the next writer takes its turn.
    lease: Lease<Opener>,
    /// None for one that only reads.
    _turn: Option<OwnedMutexGuard<()>>,
    wal: Option<Arc<WalMover>>,
    limit: Duration,
    ended: bool,
}

impl Drop for Tx {
    fn drop(&mut self) {
        if !self.ended {
            self.lease.give_up();
        }
    }
}

impl Tx {
    pub(super) async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64> {
        self.run(sql, arguments(args.iter().cloned())?).await
    }

    pub(super) async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        if takes_all_columns(sql) {
            learn_schema(self).await?;
        }
        self.ask(sql, arguments(args.iter().cloned())?).await
    }

    pub(super) fn allow(&mut self, limit: Duration) {
        self.limit = limit;
    }

    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        let done = timeout(self.limit, script(self.lease.ask(), sql)).await;
        self.lease.answered(self.limit, done)
    }

    async fn ask(&mut self, sql: &str, args: SqliteArguments) -> Result<Vec<Row>> {
        let done = timeout(self.limit, fetch(self.lease.ask(), sql, args)).await;
        self.lease.answered(self.limit, done)
    }

    async fn run(&mut self, sql: &str, args: SqliteArguments) -> Result<u64> {
        let work = async {
            let done = query(sql, args).execute(self.lease.ask()).await.map_err(failed)?;
            Ok(done.rows_affected())
        };
        let done = timeout(self.limit, work).await;
        self.lease.answered(self.limit, done)
    }

    pub(super) async fn create(&mut self, table: &Table, name: &str) -> Result<()> {
        self.script(&create(table, name)).await?;
        for index in table.indexes() {
            let there = self.find(&statement::index_name(name, index)).await?;
            if let Some(create) = statement::create_index(name, index, there).map_err(DriverError::Invalid)? {
                self.script(&create).await?;
            }
        }
        Ok(())
    }

    /// What has this name.
    pub(super) async fn find(&mut self, name: &str) -> Result<Option<Named>> {
        let sql = "SELECT type AS kind, tbl_name AS on_table, \
                   (SELECT group_concat(name) FROM (SELECT name FROM pragma_index_info(s.name) ORDER BY seqno)) AS columns \
                   FROM sqlite_schema AS s WHERE name = ?";
        Ok(self.fetch(sql, &[name.into()]).await?.first().and_then(Named::of_row))
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
        let start = format!("{insert} INTO {} ({}) VALUES ", quoted(name), names(table.columns(), ""));
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
                quoted(name),
                same_key(table, "t", "k"),
            );
            let args = arguments(chunk.into_iter().flatten())?;
            let work = async { query(&sql, args).fetch_all(self.lease.ask()).await.map_err(failed) };
            let done = timeout(self.limit, work).await;
            for row in self.lease.answered(self.limit, done)? {
                loaded.push(decode_declared(&row, &columns, table.columns()));
            }
        }
        Ok(loaded)
    }

    pub(super) async fn delete(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<u64> {
        let key = table.key_columns();
        let start = format!("DELETE FROM {} WHERE ({}) IN (VALUES ", quoted(name), names(key, ""));
        self.run_each(keys, key.len(), |len| format!("{start}{})", tuples(len, key.len()))).await
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.script("COMMIT").await?;
        self.ended = true;
        if let Some(wal) = &self.wal {
            wal.committed();
        }
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<()> {
        self.script("ROLLBACK").await?;
        self.ended = true;
        Ok(())
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
}

/// The statement that makes a table. `STRICT`, so that a value of another type is refused as it is elsewhere.
fn create(table: &Table, name: &str) -> String {
    statement::create(table, name, kind_name, " STRICT")
}

fn kind_name(column: &Column) -> &'static str {
    match column.kind {
        Kind::Integer | Kind::Bool => "INTEGER",
        Kind::Text | Kind::Json | Kind::Time | Kind::Date | Kind::Decimal | Kind::Uuid => "TEXT",
        Kind::Bytes => "BLOB",
    }
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
async fn learn_schema(tx: &mut Tx) -> Result<()> {
    tx.ask("SELECT name FROM sqlite_schema LIMIT 1", SqliteArguments::default()).await.map(drop)
}

async fn fetch(connection: &mut SqliteConnection, sql: &str, args: SqliteArguments) -> Result<Vec<Row>> {
    query(sql, args).fetch_all(connection).await.map(|rows| decode_rows(&rows)).map_err(failed)
}

async fn script(connection: &mut SqliteConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(failed)
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
            Value::Time(value) => args.add(time_text(settled_time(value))),
            Value::Date(value) => args.add(value.to_string()),
            Value::Decimal(value) => args.add(value.to_string()),
            Value::Uuid(value) => args.add(value.hyphenated().to_string()),
        };
        added.map_err(DriverError::Sql)?;
    }
    Ok(args)
}

fn decode_rows(rows: &[SqliteRow]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let decode = |row: &SqliteRow| {
        let value = |place| decode_value(row, place).map_err(|reason| unreadable(&columns[place], &*reason));
        Row::of(columns.clone(), (0..columns.len()).map(value))
    };
    rows.iter().map(decode).collect()
}

/// A value as it is stored: SQLite knows integers, text and blobs.
fn decode_value(row: &SqliteRow, place: usize) -> std::result::Result<Value, BoxDynError> {
    let value = row.try_get_raw(place)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    match value.type_info().name() {
        "INTEGER" => <i64 as Decode<Sqlite>>::decode(value).map(Value::Integer),
        "TEXT" => <&str as Decode<Sqlite>>::decode(value).map(Value::from),
        "BLOB" => <Vec<u8> as Decode<Sqlite>>::decode(value).map(Value::Bytes),
        other => Err(format!("it is {other}, which is not read: cast it").into()),
    }
}

/// The row of a declared table.
fn decode_declared(row: &SqliteRow, names: &Arc<[String]>, columns: &[Column]) -> Row {
    let decode = |(place, column): (usize, &Column)| {
        let value = decode_value(row, place).map_err(|reason| unreadable(&column.name, &*reason))?;
        column
            .kind
            .declared(value)
            .ok_or_else(|| format!("column {:?} holds what is no {:?}", column.name, column.kind))
    };
    Row::of(names.clone(), columns.iter().enumerate().map(decode))
}

fn failed(error: sqlx::Error) -> DriverError {
    DriverError::of(error, "SQLite's code", sort::of_sqlite)
}
