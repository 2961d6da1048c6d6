//! PostgreSQL: bulk work through arrays and `unnest`.

mod change;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgHasArrayType, PgRow, PgTypeInfo,
};
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, ConnectOptions, Connection, Decode, Encode, Postgres, Row as _, Type,
    TypeInfo, ValueRef,
};
use tokio::time::timeout;
use uuid::Uuid;

use super::names::quoted;
use super::pool::{GivenUp, Lease, Open, ends, left};
use super::statement::{self, Named, OnDuplicate, names, numbered, on_conflict_update, same_key};
use super::table::{Column, Table};
use super::value::{Kind, Row, Value, settled_time, unreadable};
use super::{DriverError, Durable, sort};

type Result<T> = std::result::Result<T, DriverError>;

/// Rows and roughly bytes of one statement.
const CHUNK_ROWS: usize = 4_096;
const CHUNK_BYTES: usize = 16 << 20;

struct Opener {
    options: PgConnectOptions,
    /// How long a statement may take.
    statement_max: Duration,
}

impl Open for Opener {
    type Connection = PgConnection;

    async fn open(&self) -> Result<(PgConnection, GivenUp)> {
        let mut connection = PgConnection::connect_with(&self.options).await.map_err(failed).map_err(opening)?;
        script(&mut connection, &settings(self.statement_max)).await.map_err(opening)?;
        match script(&mut connection, &OPTIONAL_SETTINGS.replace("{settings}", &wanted(OPTIONAL))).await {
            Ok(()) => {}
            Err(error @ DriverError::Lost(_)) => return Err(error),
            Err(error) => tracing::debug!(?error, "the server takes none of the settings that spare it dead clients"),
        }
        // Of a connection that is closed the server ends the statement by itself, within seconds.
        Ok((connection, GivenUp::default()))
    }
}

/// In milliseconds, as the server takes it: it knows no more than 24 days, and with 0 it never ends a statement.
fn statement_ms(max: Duration) -> u128 {
    max.as_millis().clamp(1, i32::MAX.unsigned_abs().into())
}

/// Has the server give up by itself what this client gives up, or can't any more: statements, transactions and connections would
/// hold locks. What somebody has set for the role, the database or the server stays.
fn settings(statement_max: Duration) -> String {
    let statement_max = format!("{}ms", statement_ms(statement_max));
    let wanted =
        wanted([("statement_timeout", statement_max.as_str()), ("idle_in_transaction_session_timeout", "30s")]);
    format!(
        "SELECT set_config(s.name, w.value, false) FROM pg_settings AS s JOIN (VALUES {wanted}) AS w(name, value) ON s.name = w.name \
         WHERE s.source = 'default'"
    )
}

/// Those that some platforms refuse, or refuse a value of.
const OPTIONAL: [(&str, &str); 5] = [
    ("client_connection_check_interval", "5s"),
    ("tcp_keepalives_idle", "15"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "30s"),
];
/// Each by itself, so that one that is refused keeps none of the others.
const OPTIONAL_SETTINGS: &str = "DO $$ DECLARE it record; BEGIN \
    FOR it IN SELECT s.name, w.value FROM pg_settings AS s JOIN (VALUES {settings}) AS w(name, value) ON s.name = w.name \
        WHERE s.source = 'default' LOOP \
        BEGIN PERFORM set_config(it.name, it.value, false); EXCEPTION WHEN OTHERS THEN NULL; END; \
    END LOOP; END $$";

fn wanted<const N: usize>(settings: [(&str, &str); N]) -> String {
    settings.map(|(name, value)| format!("('{name}', '{value}')")).join(", ")
}

/// There are no rows yet whose fault an error could be.
fn opening(error: DriverError) -> DriverError {
    match error {
        DriverError::Data(cause) => DriverError::Sql(cause),
        other => other,
    }
}

pub(super) struct Pool {
    pool: super::pool::Pool<Opener>,
    statement_max: Duration,
}

impl Pool {
    pub(super) async fn connect(
        url: &str,
        connections: u32,
        statement_max: Duration,
        within: Duration,
    ) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(failed)?
            .application_name("es-projections")
            .options([
                // Rows and checkpoint move in one transaction, and the log can fill both again. So a crash of the
                // server may take the last transactions, and the worker sees it at the checkpoint and goes back. Fences are
                // committed durably.
                ("synchronous_commit", "off"),
                ("client_min_messages", "warning"),
                ("timezone", "UTC"),
            ])
            .disable_statement_logging();
        let pool = super::pool::Pool::new(Opener { options, statement_max }, connections);
        drop(pool.acquire(within).await?);
        Ok(Self { pool, statement_max })
    }

    pub(super) async fn fetch(&self, sql: &str, args: &[Value], limit: Duration) -> Result<Vec<Row>> {
        let (sql, ends) = (numbered(sql), ends(limit));
        loop {
            match self.ask(&sql, arguments(args)?, left(ends)).await {
                // This connection knows it now, and the next one may not yet.
                Err(DriverError::Stale(_)) if !left(ends).is_zero() => {}
                rows => return rows,
            }
        }
    }

    /// Planned for these arguments, since it is not kept.
    pub(super) async fn fetch_planned(&self, sql: &str, args: &[Value], limit: Duration) -> Result<Vec<Row>> {
        let args = Args { typed: false, ..arguments(args)? };
        self.ask(&numbered(sql), args, limit).await
    }

    async fn ask(&self, sql: &str, args: Args, limit: Duration) -> Result<Vec<Row>> {
        let ends = ends(limit);
        let mut lease = self.pool.acquire(limit).await?;
        let left = left(ends);
        let done = timeout(left, rows(lease.ask(), sql, args)).await;
        lease.answered(left, done)
    }

    pub(super) async fn begin(&self, durable: Durable, limit: Duration) -> Result<Tx> {
        let begin = match durable {
            Durable::AtOnce => "BEGIN; SET LOCAL synchronous_commit = on",
            Durable::WithTheNext => "BEGIN",
        };
        self.begin_with(begin, limit).await
    }

    async fn begin_with(&self, begin: &str, limit: Duration) -> Result<Tx> {
        let ends = ends(limit);
        let lease = self.pool.acquire(limit).await?;
        let mut tx = Tx { lease, limit: left(ends), statement_max: self.statement_max, ended: false };
        tx.script(begin).await?;
        tx.limit = limit;
        Ok(tx)
    }

    /// A transaction that reads what is there now. First it takes these tables by their names, which a rebuild could give to others.
    pub(super) async fn snapshot(&self, tables: &[String], limit: Duration) -> Result<Tx> {
        let ends = ends(limit);
        let mut tx = self.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", limit).await?;
        tx.limit = left(ends);
        // First, since any query decides what is now: what a rebuild commits while this waits for its tables has to be in it.
        tx.script(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "))).await?;
        tx.limit = left(ends);
        // A table may have other columns by now than when this connection read it last; an error would end the transaction.
        tx.forget_statements().await?;
        tx.limit = left(ends);
        // Whoever reads it may be slow, and holds no row. What was set for the role stays.
        tx.script(
            "SELECT set_config(name, '0', true) FROM pg_settings \
             WHERE name = 'idle_in_transaction_session_timeout' AND source = 'session'",
        )
        .await?;
        tx.limit = limit;
        Ok(tx)
    }

    pub(super) async fn close(&self) {
        self.pool.close().await;
    }
}

/// A transaction. Unless the server answers to its end the connection is closed.
pub(super) struct Tx {
    lease: Lease<Opener>,
    limit: Duration,
    statement_max: Duration,
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
        self.run(&numbered(sql), arguments(args)?).await
    }

    pub(super) async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        self.ask(&numbered(sql), arguments(args)?).await
    }

    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        let done = timeout(self.limit, script(self.lease.ask(), sql)).await;
        self.lease.answered(self.limit, done)
    }

    async fn forget_statements(&mut self) -> Result<()> {
        let cleared = async { self.lease.ask().clear_cached_statements().await.map_err(failed) };
        let done = timeout(self.limit, cleared).await;
        self.lease.answered(self.limit, done)
    }

    /// Allows the statements of this transaction this time; where a limit of the role is in the way, that stays.
    pub(super) async fn allow(&mut self, limit: Duration) -> Result<()> {
        let (ours, more) = (statement_ms(self.statement_max), statement_ms(limit));
        self.limit = limit;
        self.script(&format!(
            "SELECT set_config(name, '{more}ms', true) FROM pg_settings \
             WHERE name = 'statement_timeout' AND source = 'session' AND setting = '{ours}'"
        ))
        .await
    }

    async fn ask(&mut self, sql: &str, args: Args) -> Result<Vec<Row>> {
        let done = timeout(self.limit, rows(self.lease.ask(), sql, args)).await;
        self.lease.answered(self.limit, done)
    }

    async fn run(&mut self, sql: &str, args: Args) -> Result<u64> {
        let done = timeout(self.limit, execute(self.lease.ask(), sql, args)).await;
        self.lease.answered(self.limit, done)
    }

    /// A lock by name until the end of the transaction.
    pub(super) async fn lock(&mut self, name: &str) -> Result<()> {
        let sql = "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1, 0))";
        self.ask(sql, arguments(&[name.into()])?).await.map(drop)
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
        let sql = "SELECT CASE WHEN c.relkind IN ('r', 'p') THEN 'table' WHEN c.relkind = 'i' THEN 'index' ELSE 'other' END AS kind, \
                   t.relname::text AS on_table, \
                   (SELECT string_agg(a.attname::text, ',' ORDER BY k.place) \
                    FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k(column_number, place) \
                    JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = k.column_number) AS columns \
                   FROM pg_class AS c LEFT JOIN pg_index AS i ON i.indexrelid = c.oid LEFT JOIN pg_class AS t ON t.oid = i.indrelid \
                   WHERE c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema()) AND c.relname = ?";
        Ok(self.fetch(sql, &[name.into()]).await?.first().and_then(Named::of_row))
    }

    pub(super) async fn upsert(&mut self, table: &Table, name: &str, rows: Vec<Vec<Value>>) -> Result<()> {
        self.write(table, name, rows, &on_conflict_update(table)).await?;
        Ok(())
    }

    pub(super) async fn insert(
        &mut self,
        table: &Table,
        name: &str,
        rows: Vec<Vec<Value>>,
        or: OnDuplicate,
    ) -> Result<u64> {
        let key = table.key_columns();
        let keep = format!(" ON CONFLICT ({}) DO NOTHING", names(key, ""));
        let end = match or {
            OnDuplicate::Fail => "",
            OnDuplicate::Keep => &keep,
            // In order, so that two that add the same rows don't wait in circles.
            OnDuplicate::Retry => {
                let ordinals = (1..=key.len()).map(|place| place.to_string()).collect::<Vec<_>>();
                &format!(" ORDER BY {}{keep}", ordinals.join(", "))
            }
        };
        self.write(table, name, rows, end).await
    }

    async fn write(&mut self, table: &Table, name: &str, rows: Vec<Vec<Value>>, end: &str) -> Result<u64> {
        let columns = table.columns();
        let (name, into, from) = (quoted(name), names(columns, ""), unnest(columns.len()));
        let sql = format!("INSERT INTO {name} ({into}) SELECT * FROM {from}{end}");
        let mut changed = 0;
        for chunk in chunks(rows) {
            changed += self.run(&sql, arrays(columns, &chunk)?).await?;
        }
        Ok(changed)
    }

    pub(super) async fn load(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<Vec<Row>> {
        let key = table.key_columns();
        let (name, select, on) = (quoted(name), names(table.columns(), "t."), same_key(table, "t", "k"));
        // Other workers may load the same rows, to change them: one after the other, in the order of the keys, so that
        // they don't wait in circles.
        let sql = format!(
            "SELECT {select} FROM {} AS k({}) JOIN {name} AS t ON {on} ORDER BY {} FOR UPDATE OF t",
            unnest(key.len()),
            names(key, ""),
            names(key, "t.")
        );
        let mut loaded = Vec::new();
        for chunk in chunks(keys) {
            loaded.append(&mut self.ask(&sql, arrays(key, &chunk)?).await?);
        }
        Ok(loaded)
    }

    pub(super) async fn delete(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<u64> {
        let key = table.key_columns();
        let (name, from, columns) = (quoted(name), unnest(key.len()), names(key, ""));
        let sql = format!("DELETE FROM {name} AS t USING {from} AS k({columns}) WHERE {}", same_key(table, "t", "k"));
        let mut changed = 0;
        for chunk in chunks(keys) {
            changed += self.run(&sql, arrays(key, &chunk)?).await?;
        }
        Ok(changed)
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        self.script("COMMIT").await?;
        self.ended = true;
        Ok(())
    }

    pub(super) async fn rollback(mut self) -> Result<()> {
        self.script("ROLLBACK").await?;
        self.ended = true;
        Ok(())
    }
}

fn create(table: &Table, name: &str) -> String {
    statement::create(table, name, kind_name, "")
}

fn kind_name(column: &Column) -> &'static str {
    match column.kind {
        Kind::Integer => "BIGINT",
        // Bytes are compared, as on SQLite: a collation may take two texts for one, and another release of it sorts otherwise.
        Kind::Text => "TEXT COLLATE \"C\"",
        Kind::Bool => "BOOLEAN",
        Kind::Bytes => "BYTEA",
        // JSON keeps the text byte for byte and takes what JSONB refuses, such as \u0000 and huge numbers.
        Kind::Json => "JSON",
        Kind::Time => "TIMESTAMPTZ",
        Kind::Date => "DATE",
        Kind::Decimal => "NUMERIC",
        Kind::Uuid => "UUID",
    }
}

/// Splits rows by number and size.
fn chunks(rows: Vec<Vec<Value>>) -> impl Iterator<Item = Vec<Vec<Value>>> {
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut chunk = Vec::with_capacity(rows.len().min(CHUNK_ROWS));
        let mut bytes = 0;
        while chunk.len() < CHUNK_ROWS && bytes < CHUNK_BYTES {
            let Some(row) = rows.next() else { break };
            bytes += row.iter().map(Value::size).sum::<usize>();
            chunk.push(row);
        }
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// `unnest($1, $2)`
fn unnest(width: usize) -> String {
    let places = (1..=width).map(|place| format!("${place}")).collect::<Vec<_>>();
    format!("unnest({})", places.join(", "))
}

/// The arguments of a statement, and whether their types are known, so that it may be kept.
struct Args {
    values: PgArguments,
    typed: bool,
}

fn arguments(values: &[Value]) -> Result<Args> {
    let mut args = PgArguments::default();
    for value in values {
        let added = match value {
            Value::Null => args.add(Untyped),
            Value::Integer(value) => args.add(value),
            Value::Text(value) => args.add(&**value),
            Value::Bool(value) => args.add(value),
            Value::Bytes(value) => args.add(value),
            Value::Json(value) => args.add(JsonText(value)),
            Value::Time(value) => args.add(settled_time(*value)),
            Value::Date(value) => args.add(value),
            Value::Decimal(value) => args.add(value),
            Value::Uuid(value) => args.add(value),
        };
        added.map_err(DriverError::Sql)?;
    }
    Ok(Args { values: args, typed: !values.iter().any(Value::is_null) })
}

/// A statement is prepared once per connection, with the types of its first arguments. So one with a null among them is
/// not kept: the server guesses the type, and may guess another than that of a value that comes later.
fn query(sql: &str, args: Args) -> sqlx::query::Query<'_, Postgres, PgArguments> {
    sqlx::query_with(AssertSqlSafe(sql), args.values).persistent(args.typed)
}

async fn rows(connection: &mut PgConnection, sql: &str, args: Args) -> Result<Vec<Row>> {
    match query(sql, args).fetch_all(&mut *connection).await {
        Ok(rows) => Ok(decode_rows(&rows)),
        Err(error) => Err(failed_on(connection, error).await),
    }
}

async fn execute(connection: &mut PgConnection, sql: &str, args: Args) -> Result<u64> {
    match query(sql, args).execute(&mut *connection).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(error) => Err(failed_on(connection, error).await),
    }
}

async fn script(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.map(drop).map_err(failed)
}

/// An array per column.
fn arrays(columns: &[Column], rows: &[Vec<Value>]) -> Result<Args> {
    let mut arrays: Vec<Array> = columns.iter().map(|column| Array::new(column.kind, rows.len())).collect();
    for row in rows {
        for (array, value) in arrays.iter_mut().zip(row) {
            array.push(value);
        }
    }
    let mut args = PgArguments::default();
    for array in arrays {
        let added = match array {
            Array::Integer(values) => args.add(values),
            Array::Text(values) => args.add(values),
            Array::Bool(values) => args.add(values),
            Array::Bytes(values) => args.add(values),
            Array::Json(values) => args.add(values),
            Array::Time(values) => args.add(values),
            Array::Date(values) => args.add(values),
            Array::Decimal(values) => args.add(values),
            Array::Uuid(values) => args.add(values),
        };
        added.map_err(DriverError::Sql)?;
    }
    Ok(Args { values: args, typed: true })
}

enum Array<'a> {
    Integer(Vec<Option<i64>>),
    Text(Vec<Option<&'a str>>),
    Bool(Vec<Option<bool>>),
    Bytes(Vec<Option<&'a [u8]>>),
    Json(Vec<Option<JsonText<'a>>>),
    Time(Vec<Option<DateTime<Utc>>>),
    Date(Vec<Option<NaiveDate>>),
    Decimal(Vec<Option<Decimal>>),
    Uuid(Vec<Option<Uuid>>),
}

impl<'a> Array<'a> {
    fn new(kind: Kind, len: usize) -> Self {
        match kind {
            Kind::Integer => Self::Integer(Vec::with_capacity(len)),
            Kind::Text => Self::Text(Vec::with_capacity(len)),
            Kind::Bool => Self::Bool(Vec::with_capacity(len)),
            Kind::Bytes => Self::Bytes(Vec::with_capacity(len)),
            Kind::Json => Self::Json(Vec::with_capacity(len)),
            Kind::Time => Self::Time(Vec::with_capacity(len)),
            Kind::Date => Self::Date(Vec::with_capacity(len)),
            Kind::Decimal => Self::Decimal(Vec::with_capacity(len)),
            Kind::Uuid => Self::Uuid(Vec::with_capacity(len)),
        }
    }

    fn push(&mut self, value: &'a Value) {
        match (self, value) {
            (Self::Integer(values), Value::Integer(value)) => values.push(Some(*value)),
            (Self::Text(values), Value::Text(value)) => values.push(Some(value)),
            (Self::Bool(values), Value::Bool(value)) => values.push(Some(*value)),
            (Self::Bytes(values), Value::Bytes(value)) => values.push(Some(value)),
            (Self::Json(values), Value::Json(value)) => values.push(Some(JsonText(value))),
            (Self::Time(values), Value::Time(value)) => values.push(Some(*value)),
            (Self::Date(values), Value::Date(value)) => values.push(Some(*value)),
            (Self::Decimal(values), Value::Decimal(value)) => values.push(Some(*value)),
            (Self::Uuid(values), Value::Uuid(value)) => values.push(Some(*value)),
            (array, Value::Null) => array.push_null(),
            (_, value) => unreachable!("rows are checked against the table's kinds, and this is {value:?}"),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Integer(values) => values.push(None),
            Self::Text(values) => values.push(None),
            Self::Bool(values) => values.push(None),
            Self::Bytes(values) => values.push(None),
            Self::Json(values) => values.push(None),
            Self::Time(values) => values.push(None),
            Self::Date(values) => values.push(None),
            Self::Decimal(values) => values.push(None),
            Self::Uuid(values) => values.push(None),
        }
    }
}

/// JSON as text. sqlx's own JSON type is JSONB on the wire.
struct JsonText<'a>(&'a str);

impl Type<Postgres> for JsonText<'_> {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(114))
    }
}

impl PgHasArrayType for JsonText<'_> {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(199))
    }
}

impl Encode<'_, Postgres> for JsonText<'_> {
    fn encode_by_ref(&self, buf: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        buf.extend(self.0.as_bytes());
        Ok(IsNull::No)
    }
}

/// A null whose type the server finds out.
struct Untyped;

impl Type<Postgres> for Untyped {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(Oid(705))
    }
}

impl Encode<'_, Postgres> for Untyped {
    fn encode_by_ref(&self, _: &mut PgArgumentBuffer) -> std::result::Result<IsNull, BoxDynError> {
        Ok(IsNull::Yes)
    }
}

fn decode_rows(rows: &[PgRow]) -> Vec<Row> {
    let Some(first) = rows.first() else { return Vec::new() };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let decode = |row: &PgRow| {
        let value = |place| decode_value(row, place).map_err(|reason| unreadable(&columns[place], &*reason));
        Row::of(columns.clone(), (0..columns.len()).map(value))
    };
    rows.iter().map(decode).collect()
}

fn decode_value(row: &PgRow, place: usize) -> std::result::Result<Value, BoxDynError> {
    let value = row.try_get_raw(place)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    let info = value.type_info().into_owned();
    match info.name() {
        "INT8" => <i64 as Decode<Postgres>>::decode(value).map(Value::Integer),
        "INT4" => <i32 as Decode<Postgres>>::decode(value).map(Value::from),
        "INT2" => <i16 as Decode<Postgres>>::decode(value).map(|value| Value::Integer(value.into())),
        "TEXT" | "VARCHAR" | "NAME" => <&str as Decode<Postgres>>::decode(value).map(Value::from),
        "BOOL" => <bool as Decode<Postgres>>::decode(value).map(Value::Bool),
        "BYTEA" => <Vec<u8> as Decode<Postgres>>::decode(value).map(Value::Bytes),
        "JSON" => value.as_str().map(|text| Value::Json(text.into())),
        // A version byte stands before the text.
        "JSONB" => value.as_str().map(|text| Value::Json(text[1..].into())),
        "TIMESTAMPTZ" => time(value.as_bytes()?).map(Value::Time),
        "UUID" => <Uuid as Decode<Postgres>>::decode(value).map(Value::Uuid),
        "DATE" => date(value.as_bytes()?).map(Value::Date),
        // What `sum` makes of integers, or a decimal number.
        "NUMERIC" => match value.as_bytes().map(integral) {
            Ok(Some(integer)) => Ok(Value::Integer(integer)),
            Ok(None) => <Decimal as Decode<Postgres>>::decode(value).map(Value::Decimal),
            Err(error) => Err(error),
        },
        other => Err(format!("it is {other}, which is not read: cast it").into()),
    }
}

/// Microseconds since 2000. The driver's own reading panics on what Rust has no time for, as `infinity`.
fn time(bytes: &[u8]) -> std::result::Result<DateTime<Utc>, BoxDynError> {
    const YEAR_2000: i64 = 946_684_800_000_000;
    let micros = i64::from_be_bytes(bytes.try_into()?);
    let time = micros.checked_add(YEAR_2000).and_then(DateTime::from_timestamp_micros);
    time.ok_or_else(|| "it is a time that is out of range".into())
}

/// Days since 2000, the same.
fn date(bytes: &[u8]) -> std::result::Result<NaiveDate, BoxDynError> {
    const YEAR_2000: i32 = 730_120; // counted from the first day of year 1
    let days = i32::from_be_bytes(bytes.try_into()?);
    let date = days.checked_add(YEAR_2000).and_then(NaiveDate::from_num_days_from_ce_opt);
    date.ok_or_else(|| "it is a date that is out of range".into())
}

/// A NUMERIC without a scale that fits an integer.
fn integral(bytes: &[u8]) -> Option<i64> {
    let words: Vec<i16> = bytes.chunks_exact(2).map(|pair| i16::from_be_bytes([pair[0], pair[1]])).collect();
    let [_, weight, sign, 0, digits @ ..] = words.as_slice() else { return None };
    // Digits are of base 10,000; the first counts 10,000 to the power of `weight`.
    let places = usize::try_from(i32::from(*weight) + 1).ok().filter(|places| *places <= 5)?;
    let digit = |place| i128::from(digits.get(place).copied().unwrap_or(0));
    let number = (0..places).fold(0, |number, place| number * 10_000 + digit(place));
    match *sign as u16 {
        0x0000 => i64::try_from(number).ok(),
        0x4000 => i64::try_from(-number).ok(),
        _ => None,
    }
}

/// Sorts an error of a statement. Where a table was made anew, what was prepared for the old one is thrown away.
async fn failed_on(connection: &mut PgConnection, error: sqlx::Error) -> DriverError {
    const CACHED_PLAN_MUST_NOT_CHANGE_RESULT_TYPE: &str = "0A000";
    let code = error.as_database_error().and_then(|error| error.code());
    if code.as_deref() == Some(CACHED_PLAN_MUST_NOT_CHANGE_RESULT_TYPE) {
        return match connection.clear_cached_statements().await {
            Ok(()) => DriverError::Stale(error.into()),
            Err(error) => failed(error),
        };
    }
    failed(error)
}

fn failed(error: sqlx::Error) -> DriverError {
    DriverError::of(error, "SQLSTATE", |code, _| sort::of_sqlstate(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: what PostgreSQL knows and Rust does not is told, at the ends of both.
    #[test]
    fn times_and_dates_out_of_range_are_told() {
        assert_eq!(time(&0_i64.to_be_bytes()).unwrap().to_rfc3339(), "2000-01-01T00:00:00+00:00");
        assert_eq!(time(&(-1_i64).to_be_bytes()).unwrap().to_rfc3339(), "1999-12-31T23:59:59.999999+00:00");
        assert_eq!(date(&59_i32.to_be_bytes()).unwrap().to_string(), "2000-02-29");
        assert_eq!(date(&(-1_i32).to_be_bytes()).unwrap().to_string(), "1999-12-31");
        for infinity in [i64::MAX, i64::MIN] {
            assert!(time(&infinity.to_be_bytes()).is_err());
        }
        for infinity in [i32::MAX, i32::MIN] {
            assert!(date(&infinity.to_be_bytes()).is_err());
        }
    }

    #[test]
    fn the_server_is_told_a_time_that_it_takes() {
        for (max, told) in [(Duration::ZERO, 1), (Duration::from_secs(30), 30_000), (Duration::MAX, 2_147_483_647)] {
            assert_eq!(statement_ms(max), told);
        }
    }
}
