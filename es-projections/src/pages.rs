//! The rows of a table, page by page.

use crate::error::Error;
use crate::sql::{Database, Row, Table, Tx, Value, names};

/// Rows of one query.
pub(crate) const PAGE: u32 = 1_000;
/// Keys of one query.
const KEYS: usize = 250;

/// Where rows are read.
pub(crate) enum Side<'a> {
    /// As they are when they are read.
    Now(&'a Database),
    /// As they were when this transaction began.
    Then(&'a mut Tx),
}

impl Side<'_> {
    /// Rows with the columns of a table. What is no value of its column's kind, as only a hand can have written it, is taken
    /// as it is: so it differs.
    pub(crate) async fn rows(&mut self, table: &Table, condition: &str, args: &[Value]) -> Result<Vec<Row>, Error> {
        let name = match self {
            Self::Now(database) => database.table_name(table.name()),
            Self::Then(tx) => tx.table_name(table.name()),
        };
        let sql = format!("SELECT {} FROM {name} {condition}", names(table.columns(), ""));
        let mut rows = match self {
            Self::Now(database) => database.fetch(&sql, args).await,
            Self::Then(tx) => tx.fetch(&sql, args).await,
        }?;
        for row in &mut rows {
            for (value, column) in row.values.iter_mut().zip(table.columns()) {
                if let Some(declared) = column.kind.declared(value.clone()) {
                    *value = declared;
                }
            }
        }
        Ok(rows)
    }

    /// The rows of these keys that are there.
    pub(crate) async fn rows_of(&mut self, table: &Table, keys: &[&[Value]]) -> Result<Vec<Row>, Error> {
        let columns = table.key_columns();
        let tuple = format!("({})", vec!["?"; columns.len()].join(", "));
        let mut found = Vec::with_capacity(keys.len());
        for keys in keys.chunks(KEYS) {
            let tuples = vec![tuple.as_str(); keys.len()].join(", ");
            let condition = format!("WHERE ({}) IN (VALUES {tuples})", names(columns, ""));
            found.append(&mut self.rows(table, &condition, &keys.concat()).await?);
        }
        Ok(found)
    }
}

/// The rows of a table in the order of their keys.
pub(crate) struct Pages<'a> {
    table: &'a Table,
    /// The key of the last row; none before the first page.
    pub(crate) last: Option<Vec<Value>>,
    pub(crate) ended: bool,
}

impl<'a> Pages<'a> {
    pub(crate) fn of(table: &'a Table) -> Self {
        Self::after(table, None)
    }

    pub(crate) fn after(table: &'a Table, last: Option<Vec<Value>>) -> Self {
        Self { table, last, ended: false }
    }

    pub(crate) async fn next(&mut self, side: &mut Side<'_>) -> Result<Option<Vec<Row>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let key = names(self.table.key_columns(), "");
        let behind = self.last.as_ref().map(|last| format!("WHERE ({key}) > ({})", vec!["?"; last.len()].join(", ")));
        let condition = format!("{} ORDER BY {key} LIMIT {PAGE}", behind.unwrap_or_default());
        let args = self.last.clone().unwrap_or_default();
        let rows = side.rows(self.table, &condition, &args).await?;
        self.ended = rows.len() < PAGE as usize;
        if let Some(last) = rows.last() {
            self.last = Some(key_of(self.table, last).to_vec());
        }
        Ok(Some(rows))
    }
}

pub(crate) fn key_of<'a>(table: &Table, row: &'a Row) -> &'a [Value] {
    &row.values()[..table.key_columns().len()]
}
