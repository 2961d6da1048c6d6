//! Tables as a projection declares them.

use super::statement::quoted;
use super::value::{Kind, Value};
use crate::error::Error;

/// A table of a read model: its name without the namespace, its columns, its key and its indexes.
///
/// ```
/// use es_projections::{Kind, Table};
///
/// let accounts = Table::new("accounts")
///     .key("id", Kind::Text)
///     .column("balance", Kind::Integer)
///     .optional("closed_at", Kind::Time)
///     .index("by_balance", &["balance"]);
/// assert_eq!(accounts.columns().len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: String,
    columns: Vec<Column>,
    key_len: usize,
    indexes: Vec<Index>,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name.
    pub name: String,
    /// The kind of its values.
    pub kind: Kind,
    /// Whether it may hold no value.
    pub optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) columns: Vec<String>,
    pub(crate) condition: Option<String>,
}

impl Table {
    /// A table without columns. Its name in the database has the namespace before it, as in `bank_accounts`.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), columns: Vec::new(), key_len: 0, indexes: Vec::new() }
    }

    /// Adds a column to the primary key. Key columns come first in a row, in the order in which they are added.
    #[must_use]
    pub fn key(mut self, name: impl Into<String>, kind: Kind) -> Self {
        self.columns.insert(self.key_len, Column { name: name.into(), kind, optional: false });
        self.key_len += 1;
        self
    }

    /// Adds a column that always holds a value.
    #[must_use]
    pub fn column(mut self, name: impl Into<String>, kind: Kind) -> Self {
        self.columns.push(Column { name: name.into(), kind, optional: false });
        self
    }

    /// Adds a column that may hold no value.
    #[must_use]
    pub fn optional(mut self, name: impl Into<String>, kind: Kind) -> Self {
        self.columns.push(Column { name: name.into(), kind, optional: true });
        self
    }

    /// Adds an index over columns. Its name in the database has the table's before it.
    #[must_use]
    pub fn index(mut self, name: impl Into<String>, columns: &[&str]) -> Self {
        let columns = columns.iter().map(|&column| column.into()).collect();
        self.indexes.push(Index { name: name.into(), columns, condition: None });
        self
    }

    /// Adds an index over columns of those rows where the first of them holds a value.
    #[must_use]
    pub fn index_present(self, name: impl Into<String>, columns: &[&str]) -> Self {
        let condition = columns.first().map(|column| format!("{} IS NOT NULL", quoted(column)));
        self.index_where(name, columns, &condition.unwrap_or_default())
    }

    /// Adds an index over columns of those rows that meet a condition.
    #[must_use]
    pub(crate) fn index_where(mut self, name: impl Into<String>, columns: &[&str], condition: &str) -> Self {
        self = self.index(name, columns);
        self.indexes.last_mut().expect("one was just added").condition = Some(condition.into());
        self
    }

    /// The name without the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All columns, those of the key first: the order of the values in a row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The columns of the primary key.
    pub fn key_columns(&self) -> &[Column] {
        &self.columns[..self.key_len]
    }

    /// One text for each number in keys: `1.0` and `1.00` are one key, also where a database compares their texts.
    pub(crate) fn plain_keys(&self, mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
        if self.key_columns().iter().any(|column| column.kind == Kind::Decimal) {
            for value in rows.iter_mut().flat_map(|row| row.iter_mut().take(self.key_len)) {
                if let Value::Decimal(number) = value {
                    *number = number.normalize();
                }
            }
        }
        rows
    }

    pub(crate) fn indexes(&self) -> &[Index] {
        &self.indexes
    }

    /// Checks names and structure.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |what: String| Err(Error::invalid(format!("table {:?}: {what}", self.name)));
        check_name("table", &self.name, TABLE_MAX)?;
        if self.name.starts_with("es_") {
            return wrong("names with es_ are the framework's own".into());
        }
        let is_number = |rest: &str| !rest.is_empty() && rest.bytes().all(|digit| digit.is_ascii_digit());
        if self.name.rsplit_once("_b").is_some_and(|(_, rest)| is_number(rest)) {
            return wrong("names that end in _b and a number are those of builds of another table".into());
        }
        if self.key_len == 0 {
            return wrong("it has no key".into());
        }
        for (place, column) in self.columns.iter().enumerate() {
            check_name("column", &column.name, COLUMN_MAX)?;
            if self.columns[..place].iter().any(|other| other.name == column.name) {
                return wrong(format!("it has two columns {:?}", column.name));
            }
        }
        for index in &self.indexes {
            check_name("index", &index.name, INDEX_MAX)?;
            if index.columns.is_empty() {
                return wrong(format!("index {:?} has no columns", index.name));
            }
            let unknown = |name: &&String| !self.columns.iter().any(|column| column.name == **name);
            if let Some(name) = index.columns.iter().find(unknown) {
                return wrong(format!("index {:?} is over {name:?}, which is not a column", index.name));
            }
        }
        Ok(())
    }

    /// Checks that each row has a value of the right kind for each of `columns`.
    pub(crate) fn check_rows(&self, columns: &[Column], rows: &[Vec<Value>]) -> Result<(), Error> {
        for row in rows {
            if row.len() != columns.len() {
                let (found, wanted) = (row.len(), columns.len());
                return Err(Error::invalid(format!("table {:?}: a row has {found} values, not {wanted}", self.name)));
            }
            for (column, value) in columns.iter().zip(row) {
                let fits = value.kind().map_or(column.optional, |kind| kind == column.kind);
                if let Some(reason) = value.unstorable() {
                    let place = format!("table {:?}, column {:?}", self.name, column.name);
                    return Err(Error::invalid(format!("{place}: {reason}")));
                }
                if !fits {
                    let found = value.kind().map_or_else(|| "no value".into(), |kind| format!("{kind:?}"));
                    let wanted = format!("{:?}", column.kind);
                    let place = format!("table {:?}, column {:?}", self.name, column.name);
                    return Err(Error::invalid(format!("{place}: given {found}, declared {wanted}")));
                }
            }
        }
        Ok(())
    }

    /// What tells this shape from another.
    pub(crate) fn shape(&self) -> String {
        let columns = self.columns.iter().map(|column| {
            let optional = if column.optional { "?" } else { "" };
            format!("{} {:?}{optional}", column.name, column.kind).to_lowercase()
        });
        let columns: Vec<_> = columns.collect();
        format!("{}({}; key {})", self.name, columns.join(", "), self.key_len)
    }
}

// PostgreSQL cuts names off at 63 bytes: namespace, table, build (`_b1234`) and index name share them, with two
// underscores between.
pub(crate) const NAMESPACE_MAX: usize = 16;
const TABLE_MAX: usize = 24;
const INDEX_MAX: usize = 14;
const COLUMN_MAX: usize = 60;

/// Checks a name that becomes part of a statement.
pub(crate) fn check_name(what: &str, name: &str, max: usize) -> Result<(), Error> {
    let first = name.starts_with(|first: char| first.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if first && rest && name.len() <= max {
        return Ok(());
    }
    let rule = format!("it must be 1 to {max} lower-case letters, digits and underscores, a letter first");
    Err(Error::invalid(format!("{what} {name:?} is not a valid name: {rule}")))
}
