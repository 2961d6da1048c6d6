//! Reading read models as they are at one moment.

use crate::error::Error;
use crate::model::{ReadModel, RowsPage, page_of, read_page};
use crate::readable::After;
use crate::sql::{Database, Row, Tx, Value};

/// Read models at one moment: whatever is asked of it is answered from the rows that were there when it began, however long that takes.
///
/// It keeps nobody from writing. While it is open PostgreSQL can't reclaim what was deleted since, and SQLite's write-ahead log grows;
/// and a rebuild that gives a table other columns waits until it has ended. Dropping it ends it.
#[derive(Debug)]
pub struct Moment {
    tx: Tx,
    tables: Vec<String>,
}

impl Database {
    /// Begins to read these tables as they are now.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a database in memory, which can't be read beside its writer; [`Error::Unavailable`], or
    /// [`Error::Sql`] when there is no such table.
    pub async fn at_one_moment(&self, tables: &[&str]) -> Result<Moment, Error> {
        let names: Vec<_> = tables.iter().map(|table| self.table_name(table)).collect();
        let tx = self.snapshot_of(&names).await?;
        Ok(Moment { tx, tables: tables.iter().map(ToString::to_string).collect() })
    }
}

impl Moment {
    /// The rows that the rest of a statement selects, as [`Database::rows`] tells them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the moment was begun without this table; else as for [`Database::rows`].
    pub async fn rows<R: ReadModel>(&mut self, rest: &str, args: &[Value]) -> Result<Vec<R>, Error> {
        self.check_named(R::NAME)?;
        let sql = format!("SELECT * FROM {} {rest}", self.table_name(R::NAME));
        self.fetch(&sql, args).await?.iter().map(R::from_row).collect()
    }

    /// The rows in the order of their keys, page by page, as [`Database::page`] tells them.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the moment was begun without this table; else as for [`Database::page`].
    pub async fn page<R: ReadModel>(&mut self, after: &After<R::Key>, limit: u32) -> Result<RowsPage<R>, Error> {
        self.check_named(R::NAME)?;
        let (sql, args) = page_of::<R>(&self.table_name(R::NAME), after, limit)?;
        read_page(&self.tx.fetch_readable(&sql, &args).await?, after, limit)
    }

    /// Runs a query. `?` stands for the arguments in turn. Of a table that was not named at the beginning, a rebuild may have changed
    /// the columns since: name all.
    ///
    /// # Errors
    /// As for [`Database::fetch`].
    pub async fn fetch(&mut self, sql: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        self.tx.fetch(sql, args).await
    }

    /// The name of a table, quoted, for SQL of one's own.
    pub fn table_name(&self, name: &str) -> String {
        self.tx.table_name(name)
    }

    /// A table that was not named may get other columns while it is read.
    fn check_named(&self, table: &str) -> Result<(), Error> {
        if self.tables.iter().any(|named| named == table) {
            return Ok(());
        }
        Err(Error::invalid(format!("table {table} was not named when the moment began: name it in at_one_moment")))
    }
}
