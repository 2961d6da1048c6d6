//! Tables as a projection declares them.

use super::names::{check_name, quoted};
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

    /// The rows as every database gives them back, keys first.
    pub(crate) fn settled(&self, mut rows: Vec<Vec<Value>>) -> Vec<Vec<Value>> {
        for row in &mut rows {
            for (place, value) in row.iter_mut().enumerate() {
                if matches!(value, Value::Time(_) | Value::Decimal(_)) {
                    let given = std::mem::replace(value, Value::Null);
                    *value = if place < self.key_len { given.settled_key() } else { given.settled() };
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
            if SYSTEM_COLUMNS.contains(&column.name.as_str()) {
                return wrong(format!("column {:?} is PostgreSQL's own name: give it another", column.name));
            }
            if self.columns[..place].iter().any(|other| other.name == column.name) {
                return wrong(format!("it has two columns {:?}", column.name));
            }
        }
        for (place, index) in self.indexes.iter().enumerate() {
            check_name("index", &index.name, INDEX_MAX)?;
            if self.indexes[..place].iter().any(|other| other.name == index.name) {
                return wrong(format!("it has two indexes {:?}", index.name));
            }
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

    /// What its rows are: name, columns and key.
    pub(crate) fn columns_text(&self) -> String {
        format!("{})", self.open_text())
    }

    fn open_text(&self) -> String {
        let columns = self.columns.iter().map(|column| {
            let optional = if column.optional { "?" } else { "" };
            format!("{} {}{optional}", column.name, column.kind.name())
        });
        let columns: Vec<_> = columns.collect();
        format!("{}({}; key {}", self.name, columns.join(", "), self.key_len)
    }

    /// What tells this shape from another: columns, key and indexes. [`Table::of_shape`] reads it.
    pub(crate) fn shape(&self) -> String {
        let index = |index: &Index| {
            let condition = index.condition.as_ref().map(|condition| format!(" where {condition}"));
            format!("; {}({}){}", index.name, index.columns.join(", "), condition.unwrap_or_default())
        };
        format!("{}{})", self.open_text(), self.indexes.iter().map(index).collect::<String>())
    }

    /// The table that has this shape.
    pub(crate) fn of_shape(shape: &str) -> Option<Self> {
        let (name, rest) = shape.strip_suffix(')')?.split_once('(')?;
        let mut parts = rest.split("; ");
        let column = |text: &str| {
            let (name, kind) = text.split_once(' ')?;
            let (kind, optional) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
            Some(Column { name: name.into(), kind: Kind::of_name(kind)?, optional })
        };
        let columns = parts.next()?.split(", ").map(column).collect::<Option<Vec<_>>>()?;
        let key_len = parts.next()?.strip_prefix("key ")?.parse().ok()?;
        let index = |text: &str| {
            let (name, rest) = text.split_once('(')?;
            let (columns, condition) = rest.split_once(')')?;
            let condition = condition.strip_prefix(" where ").map(str::to_owned);
            Some(Index { name: name.into(), columns: columns.split(", ").map(str::to_owned).collect(), condition })
        };
        Some(Self { name: name.into(), columns, key_len, indexes: parts.map(index).collect::<Option<_>>()? })
    }
}

/// What PostgreSQL has in every table.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

// PostgreSQL cuts names off at 63 bytes: namespace, table, build (`_b1234`) and index name share them, with two
// underscores between.
const TABLE_MAX: usize = 24;
const INDEX_MAX: usize = 14;
const COLUMN_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::names::{NAMESPACE_MAX, check_namespace};

    fn table() -> Table {
        Table::new("moves")
            .key("id", Kind::Text)
            .key("day", Kind::Date)
            .column("amount", Kind::Decimal)
            .optional("note", Kind::Json)
            .index("by_day", &["day", "amount"])
            .index_present("by_note", &["note"])
    }

    #[test]
    fn a_shape_is_read_again() {
        let shape = r#"moves(id text, day date, amount decimal, note json?; key 2; by_day(day, amount); by_note(note) where "note" IS NOT NULL)"#;
        assert_eq!(table().shape(), shape);
        assert_eq!(Table::of_shape(shape), Some(table()));
        assert_eq!(table().columns_text(), "moves(id text, day date, amount decimal, note json?; key 2)");
        for kind in Kind::ALL {
            let table = Table::new("t").key("k", Kind::Uuid).optional("c", kind);
            assert_eq!(Table::of_shape(&table.shape()), Some(table));
        }
        for rubbish in ["", "moves", "moves()", "moves(id text)", "moves(id tixt; key 1)", "moves(id text; key x)"] {
            assert_eq!(Table::of_shape(rubbish), None, "{rubbish}");
        }
    }

    /// Shows: the longest names that are allowed fit into what PostgreSQL keeps of one.
    #[test]
    fn the_longest_names_fit() {
        let index = NAMESPACE_MAX + 1 + TABLE_MAX + "_b9999".len() + 1 + INDEX_MAX;
        assert!(index <= 63, "{index}");
        const { assert!(COLUMN_MAX <= 63) };
    }

    #[test]
    fn no_two_namespaces_can_share_a_table() {
        for name in ["bank", "b2"] {
            check_namespace(name).unwrap();
        }
        for name in ["bank_eu", "bank_", "bank_es", "b_1"] {
            let error = check_namespace(name).unwrap_err().to_string();
            assert!(error.contains("an underscore would make its tables' names those of another"), "{error}");
        }
    }
}
