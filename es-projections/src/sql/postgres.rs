//! PostgreSQL: bulk work through arrays and `unnest`.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;
use sqlx::encode::IsNull;
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{
    PgArgumentBuffer, PgArguments, PgConnectOptions, PgConnection, PgHasArrayType, PgPool, PgPoolOptions, PgRow,
    PgTypeInfo,
};
use sqlx::{
    Arguments, AssertSqlSafe, Column as _, ConnectOptions, Connection, Decode, Encode, Postgres, Row as _, Type,
    TypeInfo, ValueRef,
};
use uuid::Uuid;

use super::DriverError;
use super::statement::{self, names, numbered, on_conflict_update, same_key};
use super::table::{Column, Table};
use super::tx::OnDuplicate;
use super::value::{Kind, Row, Value};

type Result<T> = std::result::Result<T, DriverError>;

/// How long to wait for a connection.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// For how long a connection that nobody used is taken to be there still.
const TRUSTED_FOR: Duration = Duration::from_millis(100);
/// Rows and roughly bytes of one statement.
const CHUNK_ROWS: usize = 4_096;
const CHUNK_BYTES: usize = 16 << 20;

pub(super) struct Pool(PgPool);

impl Pool {
    pub(super) async fn connect(url: &str, connections: u32) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            .map_err(failed)?
            .application_name("es-projections")
            .options([
                // Rows and checkpoint move in one transaction, and the log can fill both again. So a crash of the
                // server may take the last transactions, and the worker sees it at the checkpoint and goes back. Fences are
                // committed durably.
                ("synchronous_commit", "off"),
                // A worker that hangs inside a transaction holds the rows that its successor needs.
                ("idle_in_transaction_session_timeout", "30s"),
                ("client_min_messages", "warning"),
                ("timezone", "UTC"),
            ])
            .disable_statement_logging();
        // A worker uses a connection without pause: asking the server each time whether it is there would cost a worker at
        // work a round trip per batch.
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            .test_before_acquire(false)
            .before_acquire(|connection, used| {
                Box::pin(async move {
                    if used.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            });
        Ok(Self(pool.connect_with(options).await.map_err(failed)?))
    }

    pub(super) async fn fetch(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        let sql = numbered(sql);
        let mut connection = self.0.acquire().await.map_err(failed)?;
        match rows(&mut connection, &sql, arguments(args)?).await {
            Err(DriverError::Stale(_)) => rows(&mut connection, &sql, arguments(args)?).await,
            rows => rows,
        }
    }

    /// Planned for these arguments, since it is not kept.
    pub(super) async fn fetch_planned(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        let mut connection = self.0.acquire().await.map_err(failed)?;
        let args = Args { typed: false, ..arguments(args)? };
        rows(&mut connection, &numbered(sql), args).await
    }

    pub(super) async fn begin(&self) -> Result<Tx> {
        Ok(Tx(self.0.begin().await.map_err(failed)?))
    }

    /// A transaction that reads what is there now. First it takes these tables by their names, which a rebuild could give to others.
    pub(super) async fn snapshot(&self, tables: &[String]) -> Result<Tx> {
        let begun = self.0.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await;
        let mut tx = Tx(begun.map_err(failed)?);
        tx.script(&format!("LOCK TABLE {} IN ACCESS SHARE MODE", tables.join(", "))).await?;
        Ok(tx)
    }

    pub(super) async fn close(&self) {
        self.0.close().await;
    }
}

pub(super) struct Tx(sqlx::Transaction<'static, Postgres>);

impl Tx {
    pub(super) async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64> {
        self.run(&numbered(sql), arguments(args)?).await
    }

    pub(super) async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>> {
        rows(&mut self.0, &numbered(sql), arguments(args)?).await
    }

    pub(super) async fn script(&mut self, sql: &str) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *self.0).await.map_err(failed)?;
        Ok(())
    }

    /// A lock by name until the end of the transaction.
    pub(super) async fn lock(&mut self, name: &str) -> Result<()> {
        let sql = "SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1, 0))";
        rows(&mut self.0, sql, arguments(&[name.into()])?).await?;
        Ok(())
    }

    pub(super) async fn create(&mut self, table: &Table, name: &str) -> Result<()> {
        self.script(&create(table, name)).await?;
        let sql = "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema() AND tablename = ?";
        let there = statement::first_texts(&self.fetch(sql, &[name.into()]).await?);
        self.script(&statement::create_indexes(table, name, &there)).await
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
        let (name, into, from) = (statement::quoted(name), names(columns, ""), unnest(columns.len()));
        let sql = format!("INSERT INTO {name} ({into}) SELECT * FROM {from}{end}");
        let mut changed = 0;
        for chunk in chunks(rows) {
            changed += self.run(&sql, arrays(columns, &chunk)?).await?;
        }
        Ok(changed)
    }

    /// The views on these tables, then the tables, so that nobody who has the one waits for the other.
    pub(super) async fn lock_tables(&mut self, tables: &[String]) -> Result<()> {
        let views = "SELECT DISTINCT quote_ident(n.nspname) || '.' || quote_ident(v.relname) AS name FROM pg_depend AS d \
                     JOIN pg_rewrite AS r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass \
                     JOIN pg_class AS v ON v.oid = r.ev_class AND v.relkind = 'v' \
                     JOIN pg_namespace AS n ON n.oid = v.relnamespace \
                     WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT to_regclass(quote_ident(t)) FROM unnest(string_to_array(?, ' ')) AS t) \
                     ORDER BY 1";
        let found = self.fetch(views, &[tables.join(" ").into()]).await?;
        let mut names = Vec::with_capacity(found.len() + tables.len());
        for row in &found {
            names.push(row.get::<String>("name").map_err(|error| DriverError::Invalid(error.to_string()))?);
        }
        names.extend(tables.iter().map(|table| statement::quoted(table)));
        self.script(&format!("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", names.join(", "))).await
    }

    pub(super) async fn load(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<Vec<Row>> {
        let key = table.key_columns();
        let (name, select, on) = (statement::quoted(name), names(table.columns(), "t."), same_key(table, "t", "k"));
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
            loaded.append(&mut rows(&mut self.0, &sql, arrays(key, &chunk)?).await?);
        }
        Ok(loaded)
    }

    pub(super) async fn delete(&mut self, table: &Table, name: &str, keys: Vec<Vec<Value>>) -> Result<u64> {
        let key = table.key_columns();
        let (name, from, columns) = (statement::quoted(name), unnest(key.len()), names(key, ""));
        let sql = format!("DELETE FROM {name} AS t USING {from} AS k({columns}) WHERE {}", same_key(table, "t", "k"));
        let mut changed = 0;
        for chunk in chunks(keys) {
            changed += self.run(&sql, arrays(key, &chunk)?).await?;
        }
        Ok(changed)
    }

    pub(super) async fn commit(self) -> Result<()> {
        self.0.commit().await.map_err(failed)
    }

    pub(super) async fn rollback(self) -> Result<()> {
        self.0.rollback().await.map_err(failed)
    }

    async fn run(&mut self, sql: &str, args: Args) -> Result<u64> {
        match query(sql, args).execute(&mut *self.0).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(failed_on(&mut self.0, error).await),
        }
    }
}

fn create(table: &Table, name: &str) -> String {
    let kind_name = |column: &Column| match column.kind {
        Kind::Integer => "BIGINT",
        Kind::Text => "TEXT",
        Kind::Bool => "BOOLEAN",
        Kind::Bytes => "BYTEA",
        // JSON keeps the text byte for byte and takes what JSONB refuses, such as \u0000 and huge numbers.
        Kind::Json => "JSON",
        Kind::Time => "TIMESTAMPTZ",
        Kind::Date => "DATE",
        Kind::Decimal => "NUMERIC",
        Kind::Uuid => "UUID",
    };
    statement::create(table, name, kind_name, "")
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
            Value::Time(value) => args.add(value),
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
        Ok(rows) => decode_rows(&rows),
        Err(error) => Err(failed_on(connection, error).await),
    }
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

fn decode_rows(rows: &[PgRow]) -> Result<Vec<Row>> {
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    let columns: Arc<[String]> = first.columns().iter().map(|column| column.name().to_owned()).collect();
    let decode = |row: &PgRow| {
        let values = (0..columns.len()).map(|place| decode_value(row, place)).collect::<Result<_>>()?;
        Ok(Row { columns: columns.clone(), values })
    };
    rows.iter().map(decode).collect()
}

fn decode_value(row: &PgRow, place: usize) -> Result<Value> {
    let value = row.try_get_raw(place).map_err(failed)?;
    if value.is_null() {
        return Ok(Value::Null);
    }
    let info = value.type_info().into_owned();
    let decoded = match info.name() {
        "INT8" => <i64 as Decode<Postgres>>::decode(value).map(Value::Integer),
        "INT4" => <i32 as Decode<Postgres>>::decode(value).map(Value::from),
        "INT2" => <i16 as Decode<Postgres>>::decode(value).map(|value| Value::Integer(value.into())),
        "TEXT" | "VARCHAR" | "NAME" => <&str as Decode<Postgres>>::decode(value).map(Value::from),
        "BOOL" => <bool as Decode<Postgres>>::decode(value).map(Value::Bool),
        "BYTEA" => <Vec<u8> as Decode<Postgres>>::decode(value).map(Value::Bytes),
        "JSON" => value.as_str().map(|text| Value::Json(text.into())),
        // A version byte stands before the text.
        "JSONB" => value.as_str().map(|text| Value::Json(text[1..].into())),
        "TIMESTAMPTZ" => <DateTime<Utc> as Decode<Postgres>>::decode(value).map(Value::Time),
        "UUID" => <Uuid as Decode<Postgres>>::decode(value).map(Value::Uuid),
        "DATE" => <NaiveDate as Decode<Postgres>>::decode(value).map(Value::Date),
        // What `sum` makes of integers, or a decimal number.
        "NUMERIC" => match value.as_bytes().map(integral) {
            Ok(Some(integer)) => Ok(Value::Integer(integer)),
            Ok(None) => <Decimal as Decode<Postgres>>::decode(value).map(Value::Decimal),
            Err(error) => Err(error),
        },
        other => {
            let name = row.column(place).name();
            return Err(DriverError::Invalid(format!("column {name:?} is {other}, which is not read: cast it")));
        }
    };
    decoded.map_err(DriverError::Sql)
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

/// Sorts PostgreSQL's errors: connection, resources, shutdown, and conflicts with other transactions may pass.
fn failed(error: sqlx::Error) -> DriverError {
    super::sort_error(error, |code| {
        let passing = ["57P01", "57P02", "57P03", "40001", "40P01", "55P03", "25P03"];
        code.starts_with("08") || code.starts_with("53") || passing.contains(&code)
    })
}
