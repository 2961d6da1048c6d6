//! A transaction, with statements of one's own and bulk work over declared tables.

use std::borrow::Cow;
use std::collections::HashMap;

use es_core::Cause;

use super::change::Change;
use super::statement::{Named, OnDuplicate};
use super::table::Table;
use super::value::{Row, Value};
use super::{Database, DriverError, TABLES_MAX, all_readable, check_args, postgres, sqlite};
use crate::builds::Build;
use crate::error::Error;

/// A transaction of a worker or a tool. Dropping it rolls it back.
///
/// The same source runs on every database. [`Tx::upsert`], [`Tx::insert`], [`Tx::load`] and [`Tx::delete`] take
/// whole batches and send a statement per some thousand rows; use them rather than a statement per event.
pub struct Tx {
    database: Database,
    inner: Inner,
    /// A statement failed or was given up: as on PostgreSQL, none may follow it on SQLite.
    failed: Option<Failure>,
}

/// What is remembered of a statement that failed, whose error may get lost.
struct Failure {
    what: Cow<'static, str>,
    fault: Fault,
}

/// Whose fault it is.
#[derive(Clone, Copy)]
enum Fault {
    /// The database's, and it may pass.
    Passing,
    /// Nor is it that of the rows: the statement, the tables or the rights have to be mended.
    Sql,
    /// That of the rows or of the call.
    Own,
}

pub(super) enum Inner {
    Sqlite(sqlite::Tx),
    Postgres(postgres::Tx),
}

impl Tx {
    pub(super) fn new(database: Database, inner: Inner) -> Self {
        Self { database, inner, failed: None }
    }

    /// The name of a table in this database, quoted, for SQL of one's own: `"bank_accounts"` for `accounts`.
    pub fn table_name(&self, name: &str) -> String {
        self.database.table_name(name)
    }

    /// Runs a statement and tells how many rows it changed. `?` stands for the arguments in turn.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`]; the transaction can only be rolled back then.
    pub async fn execute(&mut self, sql: &str, args: &[Value]) -> Result<u64, Error> {
        self.sound(check_args(args))?;
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.execute(sql, args).await,
            Inner::Postgres(tx) => tx.execute(sql, args).await,
        };
        self.noted("a statement", done)
    }

    /// Runs a query. `?` stands for the arguments in turn.
    ///
    /// # Errors
    /// As for [`Tx::execute`].
    pub async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        let rows = self.fetch_readable(sql, args).await?;
        self.noted("a query", all_readable(rows))
    }

    /// The same where a value that can't be read is told by [`Row::get`], and takes no other with it.
    pub(crate) async fn fetch_readable(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        self.sound(check_args(args))?;
        self.usable()?;
        let rows = match &mut self.inner {
            Inner::Sqlite(tx) => tx.fetch(sql, args).await,
            Inner::Postgres(tx) => tx.fetch(sql, args).await,
        };
        self.noted("a query", rows)
    }

    /// Makes a table and its indexes where they are missing.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that can't be used, or that something else has; else as for [`Tx::execute`].
    pub async fn create(&mut self, table: &Table) -> Result<(), Error> {
        self.sound(table.check())?;
        self.usable()?;
        let name = self.full_name(table);
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.create(table, &name).await,
            Inner::Postgres(tx) => tx.create(table, &name).await,
        };
        self.noted(&format!("creating table {name}"), done)
    }

    /// What has this name in the database.
    pub(crate) async fn find(&mut self, name: &str) -> Result<Option<Named>, Error> {
        self.usable()?;
        let found = match &mut self.inner {
            Inner::Sqlite(tx) => tx.find(name).await,
            Inner::Postgres(tx) => tx.find(name).await,
        };
        self.noted("looking for a table", found)
    }

    /// Writes rows: those whose key is there are replaced. Of rows with one key the last is taken.
    ///
    /// # Errors
    /// [`Error::Invalid`] when a row does not fit the table; else as for [`Tx::execute`].
    pub async fn upsert(&mut self, table: &Table, rows: Vec<Vec<Value>>) -> Result<(), Error> {
        let rows = table.settled(rows);
        self.sound(table.check_rows(table.columns(), &rows))?;
        self.usable()?;
        let rows = last_of_each_key(rows, table.key_columns().len());
        let name = self.full_name(table);
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.upsert(table, &name, rows).await,
            Inner::Postgres(tx) => tx.upsert(table, &name, rows).await,
        };
        self.noted(&format!("writing to {name}"), done)
    }

    /// Adds rows and tells how many were added.
    ///
    /// # Errors
    /// As for [`Tx::upsert`].
    pub async fn insert(&mut self, table: &Table, rows: Vec<Vec<Value>>, or: OnDuplicate) -> Result<u64, Error> {
        let rows = table.settled(rows);
        self.sound(table.check_rows(table.columns(), &rows))?;
        self.usable()?;
        let (name, count) = (self.full_name(table), rows.len() as u64);
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.insert(table, &name, rows, or).await,
            Inner::Postgres(tx) => tx.insert(table, &name, rows, or).await,
        };
        let doing = format!("adding to {name}");
        let added = self.noted(&doing, done)?;
        if or == OnDuplicate::Retry && added < count {
            let error = self.database.unavailable(&doing, "another worker added the same rows meanwhile");
            self.failed = Some(Failure::of(&error));
            return Err(error);
        }
        Ok(added)
    }

    /// The rows of these keys that are there, in no particular order. Until the end of the transaction nobody else can
    /// change them; of those that are not there another one may be the first to add them.
    ///
    /// # Errors
    /// As for [`Tx::upsert`].
    pub async fn load(&mut self, table: &Table, keys: Vec<Vec<Value>>) -> Result<Vec<Row>, Error> {
        let keys = table.settled(keys);
        self.sound(table.check_rows(table.key_columns(), &keys))?;
        self.usable()?;
        let keys = last_of_each_key(keys, table.key_columns().len());
        let name = self.full_name(table);
        let rows = match &mut self.inner {
            Inner::Sqlite(tx) => tx.load(table, &name, keys).await,
            Inner::Postgres(tx) => tx.load(table, &name, keys).await,
        };
        self.noted(&format!("loading from {name}"), rows.and_then(all_readable))
    }

    /// Deletes the rows of these keys and tells how many there were.
    ///
    /// # Errors
    /// As for [`Tx::upsert`].
    pub async fn delete(&mut self, table: &Table, keys: Vec<Vec<Value>>) -> Result<u64, Error> {
        let keys = table.settled(keys);
        self.sound(table.check_rows(table.key_columns(), &keys))?;
        self.usable()?;
        let name = self.full_name(table);
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.delete(table, &name, keys).await,
            Inner::Postgres(tx) => tx.delete(table, &name, keys).await,
        };
        self.noted(&format!("deleting from {name}"), done)
    }

    /// Commits.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`]; whether it was committed is unknown then. [`Error::Invalid`] when a
    /// statement of it failed; it is rolled back then.
    pub async fn commit(mut self) -> Result<(), Error> {
        self.usable()?;
        let done = match self.inner {
            Inner::Sqlite(tx) => tx.commit().await,
            Inner::Postgres(tx) => tx.commit().await,
        };
        done.map_err(|error| self.database.error("committing", error))
    }

    /// Rolls back.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`]; nothing was committed either way.
    pub async fn rollback(self) -> Result<(), Error> {
        let done = match self.inner {
            Inner::Sqlite(tx) => tx.rollback().await,
            Inner::Postgres(tx) => tx.rollback().await,
        };
        done.map_err(|error| self.database.error("rolling back", error))
    }

    /// Runs statements without arguments, with a database's own names of types in them.
    pub(crate) async fn migrate(&mut self, name: &str, script: &str) -> Result<(), Error> {
        self.take_time().await?;
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.script(&with_types(script, ["TEXT", "BLOB", "TEXT", "TEXT"])).await,
            Inner::Postgres(tx) => {
                let script = script.replace(" TEXT", " TEXT COLLATE \"C\"");
                tx.script(&with_types(&script, ["TIMESTAMPTZ", "BYTEA", "UUID", "JSON"])).await
            }
        };
        self.noted(&format!("migration {name}"), done)
    }

    /// Shuts out every other transaction that does the same in this namespace, until the end of this one.
    pub(crate) async fn lock_schema(&mut self) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // a transaction that may write is the only one
            Inner::Postgres(tx) => tx.lock(&self.database.inner.namespace).await,
        };
        self.noted("locking the schema", done)
    }

    /// Statements that wait for what another transaction holds fail soon, rather than keep their connection, and others
    /// waiting behind.
    pub(crate) async fn wait_briefly_for_locks(&mut self) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // a transaction that may write is the only one
            Inner::Postgres(tx) => tx.wait_briefly().await,
        };
        self.noted("setting the lock timeout", done)
    }

    /// The same for tables that nobody but the server itself uses: its vacuum makes way for who has waited for a second.
    pub(crate) async fn wait_for_vacuum(&mut self) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()),
            Inner::Postgres(tx) => tx.wait_for_vacuum().await,
        };
        self.noted("setting the lock timeout", done)
    }

    /// What ends a query so that it locks the rows which it finds, and passes those over that another transaction holds.
    pub(crate) fn skipping_locked(&self) -> &'static str {
        match self.inner {
            Inner::Sqlite(_) => "", // a transaction that may write is the only one
            Inner::Postgres(_) => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// Does what the database may refuse of a change: the transaction has to be rolled back then. Fails soon where somebody is in
    /// the way.
    pub(crate) async fn try_change(&mut self, change: &Change) -> Result<(), Error> {
        self.wait_briefly_for_locks().await?;
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.try_change(change).await,
            Inner::Postgres(tx) => tx.try_change(change).await,
        };
        self.noted(&format!("trying to change table {}", change.name), done)
    }

    /// The planner learns how much a table holds, which takes its time and may have to wait.
    pub(crate) async fn analyze(&mut self, name: &str) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // it plans these statements without
            Inner::Postgres(tx) => tx.script(&format!("ANALYZE {}", super::quoted(name))).await,
        };
        self.noted(&format!("counting what table {name} holds"), done)
    }

    /// Does what can be done of a change while everybody goes on.
    pub(crate) async fn prepare_change(&mut self, change: &Change) -> Result<(), Error> {
        self.wait_briefly_for_locks().await?;
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // it does all in one transaction, which keeps nobody from reading
            Inner::Postgres(tx) => tx.prepare_change(change).await,
        };
        self.noted(&format!("preparing to change table {}", change.name), done)
    }

    /// First step of a table that takes over what another one holds: nobody else writes it from here on. Each step fails soon where
    /// somebody is in the way.
    pub(crate) async fn hold(&mut self, change: &Change) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // a transaction that may write is the only one
            Inner::Postgres(tx) => tx.hold(change).await,
        };
        self.noted(&format!("holding table {}", change.name), done)
    }

    /// Nobody reads the tables any more that become others. For all of them at once, and as late as may be.
    pub(crate) async fn keep_readers_out(&mut self, changes: &[Change]) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // nobody sees a transaction of another's
            Inner::Postgres(tx) => tx.keep_readers_out(changes).await,
        };
        self.noted("keeping readers out", done)
    }

    /// Takes over the rows.
    pub(crate) async fn take_over(&mut self, change: &Change) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.take_over(change).await,
            Inner::Postgres(tx) => tx.take_over(change).await,
        };
        self.noted(&format!("changing table {}", change.name), done)
    }

    /// Does what can wait until readers are kept out.
    pub(crate) async fn end_change(&mut self, change: &Change) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(_) => Ok(()), // it did all at once
            Inner::Postgres(tx) => tx.end_change(change).await,
        };
        self.noted(&format!("changing table {}", change.name), done)
    }

    /// Allows its statements as long as making and filling tables takes.
    pub(crate) async fn take_time(&mut self) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => {
                tx.allow(TABLES_MAX);
                Ok(())
            }
            Inner::Postgres(tx) => tx.allow(TABLES_MAX).await,
        };
        self.noted("allowing more time", done)
    }

    /// That trying again later may help.
    pub(crate) fn unavailable(&self, doing: &str, reason: Cause) -> Error {
        self.database.unavailable(doing, reason)
    }

    /// From here on the tables of this build are meant by their plain names.
    pub(crate) fn see(&mut self, build: &Build) {
        self.database = build.of(&self.database);
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.database.inner.namespace
    }

    /// What follows can be undone by itself.
    pub(crate) async fn savepoint(&mut self) -> Result<(), Error> {
        self.script("setting a savepoint", "SAVEPOINT es").await
    }

    /// Keeps what was done since the savepoint.
    pub(crate) async fn release(&mut self) -> Result<(), Error> {
        self.script("releasing a savepoint", "RELEASE SAVEPOINT es").await
    }

    /// Undoes what was done since the savepoint, whatever failed since then.
    pub(crate) async fn undo(&mut self) -> Result<(), Error> {
        self.failed = None;
        self.script("going back to a savepoint", "ROLLBACK TO SAVEPOINT es; RELEASE SAVEPOINT es").await
    }

    async fn script(&mut self, doing: &str, sql: &str) -> Result<(), Error> {
        self.usable()?;
        let done = match &mut self.inner {
            Inner::Sqlite(tx) => tx.script(sql).await,
            Inner::Postgres(tx) => tx.script(sql).await,
        };
        self.noted(doing, done)
    }

    fn full_name(&self, table: &Table) -> String {
        self.database.full_name(table.name())
    }

    /// The failure of a statement that whoever ran it has passed over, or of one that was not waited for.
    pub(crate) fn passed_over(&self) -> Option<Error> {
        let Failure { what, fault } = self.failed.as_ref()?;
        let doing = "going on after a statement that failed";
        Some(match fault {
            Fault::Passing => self.database.unavailable(doing, what.clone().into_owned()),
            Fault::Sql => self.database.refused(doing, what.clone().into_owned()),
            Fault::Own => Error::invalid(format!("{doing}: return its error instead: {what}")),
        })
    }

    /// A statement that is refused has failed, too.
    fn sound(&mut self, checked: Result<(), Error>) -> Result<(), Error> {
        if let Err(error) = &checked {
            self.failed.get_or_insert_with(|| Failure::of(error));
        }
        checked
    }

    /// Before a statement: if its future is dropped half way, it counts as failed.
    fn usable(&mut self) -> Result<(), Error> {
        if self.failed.is_some() {
            return Err(Error::invalid("a statement of this transaction failed: it can only be rolled back"));
        }
        self.failed = Some(Failure { what: "a statement was given up half way".into(), fault: Fault::Passing });
        Ok(())
    }

    fn noted<T>(&mut self, doing: &str, done: Result<T, DriverError>) -> Result<T, Error> {
        let done = done.map_err(|error| self.database.error(doing, error));
        self.failed = done.as_ref().err().map(Failure::of);
        done
    }
}

impl Failure {
    fn of(error: &Error) -> Self {
        let fault = match error {
            Error::Unavailable { .. } => Fault::Passing,
            Error::Sql { .. } => Fault::Sql,
            _ => Fault::Own,
        };
        Self { what: es_core::with_causes(error).into(), fault }
    }
}

impl std::fmt::Debug for Tx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tx").field("database", &self.database).finish_non_exhaustive()
    }
}

fn with_types(script: &str, names: [&str; 4]) -> String {
    let places = ["{time}", "{bytes}", "{uuid}", "{json}"];
    places.iter().zip(names).fold(script.to_owned(), |script, (place, name)| script.replace(place, name))
}

/// A statement can change a row only once, so of the rows with one key only the last goes into it.
fn last_of_each_key(mut rows: Vec<Vec<Value>>, key_len: usize) -> Vec<Vec<Value>> {
    let mut last = HashMap::with_capacity(rows.len());
    for (place, row) in rows.iter().enumerate() {
        last.insert(&row[..key_len], place);
    }
    if last.len() == rows.len() {
        return rows;
    }
    let mut keep: Vec<usize> = last.into_values().collect();
    keep.sort_unstable();
    keep.into_iter().map(|place| std::mem::take(&mut rows[place])).collect()
}
