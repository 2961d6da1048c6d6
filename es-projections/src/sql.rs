//! The database: one connection string, one source of SQL, SQLite or PostgreSQL below it.

mod change;
mod json;
mod migrations;
mod names;
mod pool;
mod postgres;
mod sort;
mod sqlite;
mod statement;
mod table;
mod tx;
mod value;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use es_core::Cause;
use tokio::time::Instant;

use crate::error::Error;
pub(crate) use change::Change;
pub(crate) use json::is_same_but_for_order;
use names::check_namespace;
pub(crate) use names::{check_name, quoted};
pub(crate) use sort::is_late;
pub use statement::OnDuplicate;
pub(crate) use statement::{Named, names};
pub use table::{Column, Table};
pub use tx::Tx;
pub use value::{FromValue, Kind, Row, Value};
pub(crate) use value::{NO_ZEROS, read, settled_time};

/// A database with the tables of one namespace: the namespace's name begins each table's.
///
/// Cloning is cheap and shares the connections.
#[derive(Clone)]
pub struct Database {
    inner: Arc<Inner>,
    seen: Option<Arc<Seen>>,
    limit: Duration,
}

/// Tables that have another name in the database than the one they are asked for by.
#[derive(Debug)]
struct Seen {
    tables: Vec<String>,
    suffix: String,
}

struct Inner {
    pool: Pool,
    namespace: String,
    url: Arc<str>,
}

/// Where a database is.
enum Target<'a> {
    Url(&'a str),
    /// A whole path.
    File(&'a Path),
}

enum Pool {
    Sqlite(sqlite::Pools),
    Postgres(postgres::Pool),
}

/// How long all attempts to connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long one of them may.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a statement may take that makes or drops tables, or fills an index.
const TABLES_MAX: Duration = Duration::from_secs(60 * 60);

/// How hard to try when connecting, how many connections to hold, and how long a statement may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectOptions {
    /// How often to try, with a growing pause between, before giving up. At least 1; 8 unless given, all of them within 10 s.
    pub attempts: u32,
    /// The most connections: 10 unless given. On SQLite these are for reading, and two more write.
    pub connections: u32,
    /// The most time that a statement may take, the wait for a connection included: 30 s unless given, and no more than 24 days. What
    /// takes longer fails with [`Error::Unavailable`], and its connection is closed. [`Database::within`] sets another one.
    pub statement_max: Duration,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self { attempts: 8, connections: 10, statement_max: Duration::from_secs(30) }
    }
}

impl Database {
    /// Connects and brings the framework's own tables up to date.
    ///
    /// `url` is `sqlite://path` (made where it is missing), `sqlite::memory:` or `postgres://…`. `namespace` begins
    /// the name of each table, as `bank` does in `bank_accounts`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a URL or namespace that can't be used, [`Error::Unavailable`] when the database can't
    /// be reached within the attempts, [`Error::OtherVersion`] for tables of a newer release.
    pub async fn connect(url: &str, namespace: &str) -> Result<Self, Error> {
        Self::connect_with(url, namespace, ConnectOptions::default()).await
    }

    /// The same with options.
    ///
    /// # Errors
    /// As for [`Database::connect`].
    pub async fn connect_with(url: &str, namespace: &str, options: ConnectOptions) -> Result<Self, Error> {
        Self::connect_to(&Target::Url(url), namespace, options).await
    }

    /// Connects to SQLite in this file, which is made where it is missing: the path is taken as it is, whatever characters it
    /// has, where a URL would have some of them encoded.
    ///
    /// # Errors
    /// As for [`Database::connect`].
    pub async fn open_file(path: &Path, namespace: &str, options: ConnectOptions) -> Result<Self, Error> {
        let absolute = std::path::absolute(path)
            .map_err(|error| Error::invalid(format!("the database file {} can't be found: {error}", path.display())))?;
        Self::connect_to(&Target::File(&absolute), namespace, options).await
    }

    async fn connect_to(target: &Target<'_>, namespace: &str, options: ConnectOptions) -> Result<Self, Error> {
        check_namespace(namespace)?;
        let shown: Arc<str> = match target {
            Target::Url(url) => without_password(url).into(),
            Target::File(path) => format!("sqlite://{}", path.display()).into(),
        };
        let mut pause = Duration::from_millis(50);
        let deadline = Instant::now() + CONNECT_WITHIN;
        for attempt in 1.. {
            let within = CONNECT_MAX.min(deadline - Instant::now());
            match Pool::connect(target, &shown, &options, within).await {
                Ok(pool) => {
                    let inner = Arc::new(Inner { pool, namespace: namespace.into(), url: shown });
                    let database = Self { inner, seen: None, limit: options.statement_max };
                    migrations::run(&database).await?;
                    return Ok(database);
                }
                Err(error)
                    if error.is_retryable() && attempt < options.attempts && Instant::now() + pause < deadline =>
                {
                    tracing::warn!(database = %shown, attempt, ?pause, error = &error as &dyn std::error::Error, "connecting failed");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(3));
                }
                Err(error) => return Err(error),
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The same database, where a question, the begin of a transaction and each statement in it may take this long, the wait for a
    /// connection included: less than [`ConnectOptions::statement_max`] for what somebody waits for. What takes longer is given up: its
    /// connection is closed. SQLite ends its work then; PostgreSQL does within 5 s, where its system tells it that a client has gone, and
    /// else at its `statement_timeout`. More than `statement_max` has no effect on PostgreSQL, where it is that
    /// timeout: for statements that take longer, connect with a higher one.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit, ..self.clone() }
    }

    /// The name of a table in this database, quoted, for SQL of one's own: `"bank_accounts"` for `accounts`.
    pub fn table_name(&self, name: &str) -> String {
        quoted(&self.full_name(name))
    }

    fn full_name(&self, name: &str) -> String {
        let seen = self.seen.as_ref().filter(|seen| seen.tables.iter().any(|table| table == name));
        format!("{}_{name}{}", self.inner.namespace, seen.map_or("", |seen| &seen.suffix))
    }

    /// The same database, in which these tables' names end so.
    pub(crate) fn with_tables(&self, tables: &[String], suffix: &str) -> Self {
        let seen = Seen { tables: tables.to_vec(), suffix: suffix.to_owned() };
        Self { seen: (!suffix.is_empty()).then(|| Arc::new(seen)), ..self.clone() }
    }

    /// Runs a query outside a transaction. `?` stands for the arguments in turn.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn fetch(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        let rows = self.fetch_readable(sql, args).await?;
        all_readable(rows).map_err(|error| self.error("a query", error))
    }

    /// The same where a value that can't be read takes no other with it, as a number that is none, or a text that is not UTF-8: only
    /// [`Row::get`] of its column tells it.
    ///
    /// # Errors
    /// As for [`Database::fetch`].
    pub async fn fetch_readable(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        check_args(args)?;
        let rows = match &self.inner.pool {
            Pool::Sqlite(pools) => pools.fetch(sql, args, self.limit).await,
            Pool::Postgres(pool) => pool.fetch(sql, args, self.limit).await,
        };
        rows.map_err(|error| self.error("a query", error))
    }

    /// Runs a query that is planned for these arguments. A statement that is kept is planned, on PostgreSQL, for any arguments once it
    /// was run some times, and so for what is usual: it would sort all that a frequent value has, as if that were little. A value that
    /// can't be read is told by [`Row::get`].
    pub(crate) async fn fetch_planned(&self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        check_args(args)?;
        let rows = match &self.inner.pool {
            Pool::Sqlite(pools) => pools.fetch(sql, args, self.limit).await, // it plans by the statement alone
            Pool::Postgres(pool) => pool.fetch_planned(sql, args, self.limit).await,
        };
        rows.map_err(|error| self.error("a query", error))
    }

    /// Whether a `UNION ALL` with an order takes a row at a time from the parts, if these have that order. Else each of them should be
    /// given the order and a limit of its own: this database may sort all rows of all parts if it thinks them few.
    pub(crate) fn merges_unions(&self) -> bool {
        matches!(&self.inner.pool, Pool::Sqlite(_))
    }

    /// What follows a text that is no column's, so that it is compared byte by byte, as those of tables are.
    pub(crate) fn bytewise(&self) -> &'static str {
        match &self.inner.pool {
            Pool::Sqlite(_) => "", // it does so by itself
            Pool::Postgres(_) => " COLLATE \"C\"",
        }
    }

    /// How the database would run a query, a line for each step.
    pub(crate) async fn explain(&self, sql: &str, args: &[Value]) -> Result<Vec<String>, Error> {
        let (explain, column) = match &self.inner.pool {
            Pool::Sqlite(_) => ("EXPLAIN QUERY PLAN", "detail"),
            Pool::Postgres(_) => ("EXPLAIN", "QUERY PLAN"),
        };
        let rows = self.fetch(&format!("{explain} {sql}"), args).await?;
        rows.iter().map(|row| row.get(column)).collect()
    }

    /// Begins a transaction that may write. On SQLite one is open at a time, and others wait for it: a projection that
    /// began another within its own would wait for ever.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn begin(&self) -> Result<Tx, Error> {
        self.begin_with(Durable::WithTheNext).await
    }

    /// The same, with a commit that outlives a crash of server and machine, and with it all that was committed before. What moves a
    /// checkpoint needs none: its loss is seen at the checkpoint, and the log fills the rest again.
    pub(crate) async fn begin_durably(&self) -> Result<Tx, Error> {
        self.begin_with(Durable::AtOnce).await
    }

    async fn begin_with(&self, durable: Durable) -> Result<Tx, Error> {
        let begun = match &self.inner.pool {
            Pool::Sqlite(pools) => pools.begin(durable, self.limit).await.map(tx::Inner::Sqlite),
            Pool::Postgres(pool) => pool.begin(durable, self.limit).await.map(tx::Inner::Postgres),
        };
        let inner = begun.map_err(|error| self.error("beginning a transaction", error))?;
        Ok(Tx::new(self.clone(), inner))
    }

    /// Begins a transaction that sees the database as it is when it begins, and keeps nobody from writing. These tables keep their
    /// names until its end.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a database in memory, which has no connection beside the one that writes.
    pub(crate) async fn snapshot(&self, tables: &[Table]) -> Result<Tx, Error> {
        let names: Vec<_> = tables.iter().map(|table| self.table_name(table.name())).collect();
        self.snapshot_of(&names).await
    }

    /// The same with the tables' names as the database has them, quoted.
    pub(crate) async fn snapshot_of(&self, names: &[String]) -> Result<Tx, Error> {
        let begun = match &self.inner.pool {
            Pool::Sqlite(pools) => pools.snapshot(self.limit).await.map(tx::Inner::Sqlite),
            Pool::Postgres(pool) => pool.snapshot(names, self.limit).await.map(tx::Inner::Postgres),
        };
        let inner = begun.map_err(|error| self.error("beginning a snapshot", error))?;
        Ok(Tx::new(self.clone(), inner))
    }

    /// The URL without its password.
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.inner.namespace
    }

    /// Closes all connections. What is open is finished first; what begins later fails.
    pub async fn close(&self) {
        match &self.inner.pool {
            Pool::Sqlite(pools) => pools.close().await,
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    /// That trying again later may help.
    pub(crate) fn unavailable(&self, doing: &str, reason: impl Into<Cause>) -> Error {
        Error::Unavailable { doing: doing.into(), database: self.inner.url.clone(), source: reason.into() }
    }

    /// That somebody has to mend the statement, the tables or the rights.
    pub(crate) fn refused(&self, doing: &str, reason: impl Into<Cause>) -> Error {
        Error::Sql { doing: doing.into(), database: self.inner.url.clone(), source: reason.into() }
    }

    fn error(&self, doing: &str, error: DriverError) -> Error {
        error.into_error(doing, &self.inner.url)
    }
}

/// The rows, unless there is a value among them that can't be read.
fn all_readable(rows: Vec<Row>) -> Result<Vec<Row>, DriverError> {
    match rows.iter().find_map(|row| row.unreadable.first()) {
        Some((_, reason)) => Err(DriverError::Damaged(reason.clone())),
        None => Ok(rows),
    }
}

fn check_args(args: &[Value]) -> Result<(), Error> {
    args.iter()
        .find_map(Value::unstorable)
        .map_or(Ok(()), |reason| Err(Error::invalid(format!("an argument: {reason}"))))
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("url", &self.inner.url).field("namespace", &self.inner.namespace).finish()
    }
}

impl Pool {
    async fn connect(
        target: &Target<'_>,
        shown: &Arc<str>,
        options: &ConnectOptions,
        within: Duration,
    ) -> Result<Self, Error> {
        let connections = options.connections.max(1);
        let url = match target {
            Target::Url(url) => url,
            Target::File(path) => {
                let pools = sqlite::Pools::open(path, connections, within).await;
                return pools.map(Self::Sqlite).map_err(|error| error.into_error("connecting", shown));
            }
        };
        let connected = if url.starts_with("sqlite:") {
            sqlite::Pools::connect(url, connections, within).await.map(Self::Sqlite)
        } else if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            postgres::Pool::connect(url, connections, options.statement_max, within).await.map(Self::Postgres)
        } else {
            let forms = "it must begin with sqlite:// or postgres://";
            return Err(Error::invalid(format!("database URL {shown:?} is not valid: {forms}")));
        };
        connected.map_err(|error| error.into_error("connecting", shown))
    }
}

/// When a commit is safe from a crash of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    AtOnce,
    /// Soon, or with the next one that is so at once.
    WithTheNext,
}

/// What a driver said, sorted by what to do next.
#[derive(Debug)]
enum DriverError {
    /// There was no answer, and the connection is good for nothing more.
    Lost(Cause),
    Unavailable(Cause),
    /// A statement was prepared for a table that was made anew since. The same again works.
    Stale(Cause),
    Data(Cause),
    Invalid(String),
    /// What is stored is not what a worker stores there.
    Damaged(String),
    Sql(Cause),
}

impl DriverError {
    fn into_error(self, doing: &str, database: &Arc<str>) -> Error {
        let (doing, database) = (doing.to_owned(), database.clone());
        match self {
            Self::Lost(source) | Self::Unavailable(source) | Self::Stale(source) => {
                Error::Unavailable { doing, database, source }
            }
            Self::Data(source) => Error::Data { doing, database, source },
            Self::Sql(source) => Error::Sql { doing, database, source },
            Self::Damaged(reason) => Error::Damaged(format!("{doing} on {database}: {reason}")),
            Self::Invalid(reason) => Error::Invalid(format!("{doing} on {database}: {reason}")),
        }
    }
}

/// The URL with the password of its user, or of its parameters, replaced.
fn without_password(url: &str) -> String {
    let (address, parameters) = url.split_once('?').map_or((url, None), |(address, rest)| (address, Some(rest)));
    let mut shown = address.to_owned();
    if let Some((scheme, rest)) = address.split_once("://")
        && let Some((user, host)) = rest.rsplit_once('@')
        && let Some((name, _)) = user.split_once(':')
    {
        shown = format!("{scheme}://{name}:***@{host}");
    }
    if let Some(parameters) = parameters {
        let hide = |parameter: &str| match parameter.split_once('=') {
            Some((name, _)) if name.contains("password") => format!("{name}=***"),
            _ => parameter.to_owned(),
        };
        shown = format!("{shown}?{}", parameters.split('&').map(hide).collect::<Vec<_>>().join("&"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path is no URL: nothing in it is decoded or cut off.
    #[tokio::test]
    async fn a_database_is_in_the_file_that_was_named() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a%41.db", "a?mode=memory", "a#b.db", "a b.db", "file:c.db", "ž+&=.db"] {
            let path = dir.path().join(name);
            let database = Database::open_file(&path, "bank", ConnectOptions::default()).await.unwrap();
            assert!(path.is_file(), "{name}");
            database.close().await;
        }
        assert!(!dir.path().join("aA.db").exists());
    }

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("postgres://bank:s3cret@db:5432/bank", "postgres://bank:***@db:5432/bank"),
            ("postgres://bank:p@ss:w@db/bank?sslmode=require", "postgres://bank:***@db/bank?sslmode=require"),
            ("postgres://db/bank?user=a&password=s3cret", "postgres://db/bank?user=a&password=***"),
            ("postgres://bank@db/bank", "postgres://bank@db/bank"),
            ("sqlite://bank.db", "sqlite://bank.db"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
