//! How the table of a read model becomes what a new build of it holds, and stays the table that it is: with the grants, policies,
//! indexes, triggers, views and all that users have made on it.

use super::names::quoted;
use super::statement::{names, same_key};
use super::table::{Column, Index, Table};

/// A table that takes over what another one holds.
#[derive(Debug)]
pub(crate) struct Change {
    /// Its name in the database.
    pub(crate) name: String,
    /// What it is; none where it is not there yet.
    pub(crate) from: Option<Table>,
    /// What it becomes; none where it goes.
    pub(crate) to: Option<Table>,
    /// The table in the database that holds the rows.
    pub(crate) built: String,
}

/// Both forms of a table that stays.
pub(super) struct Columns<'a> {
    from: &'a Table,
    pub(super) to: &'a Table,
}

impl Change {
    /// Both forms, where the table was there and stays.
    pub(super) fn columns(&self) -> Option<Columns<'_>> {
        Some(Columns { from: self.from.as_ref()?, to: self.to.as_ref()? })
    }

    /// Whether only rows change.
    pub(crate) fn is_of_rows(&self) -> bool {
        self.from == self.to
    }

    /// Whether a table that people may read becomes another one, or goes.
    pub(super) fn keeps_readers_out(&self) -> bool {
        self.from.is_some() && !self.is_of_rows()
    }

    /// Whether it does so before the rows can be taken over.
    pub(crate) fn keeps_readers_out_early(&self) -> bool {
        self.columns().is_some_and(|columns| columns.has_another_key() || columns.of_another_kind().next().is_some())
    }
}

impl<'a> Columns<'a> {
    pub(super) fn added(&self) -> impl Iterator<Item = &'a Column> {
        let (from, to) = (self.from, self.to);
        to.columns().iter().filter(|column| find(from, &column.name).is_none())
    }

    pub(super) fn removed(&self) -> impl Iterator<Item = &'a Column> {
        let (from, to) = (self.from, self.to);
        from.columns().iter().filter(|column| find(to, &column.name).is_none())
    }

    /// Those of another kind, as they become.
    pub(super) fn of_another_kind(&self) -> impl Iterator<Item = &'a Column> {
        let (from, to) = (self.from, self.to);
        to.columns().iter().filter(|column| find(from, &column.name).is_some_and(|was| was.kind != column.kind))
    }

    /// Those of the same kind that had to hold a value and need not any more, or the other way round, as they become.
    pub(super) fn otherwise_optional(&self) -> impl Iterator<Item = &'a Column> {
        let from = self.from;
        let changed = move |was: &Column, column: &Column| was.kind == column.kind && was.optional != column.optional;
        self.to.columns().iter().filter(move |column| find(from, &column.name).is_some_and(|was| changed(was, column)))
    }

    /// Those that need no value any more: they go, or are optional from now on.
    pub(super) fn emptied(&self) -> impl Iterator<Item = &'a Column> {
        self.removed().chain(self.otherwise_optional().filter(|column| column.optional))
    }

    pub(super) fn from(&self) -> &'a Table {
        self.from
    }

    /// Whether it was part of the key.
    pub(super) fn is_in_key(&self, column: &Column) -> bool {
        self.from.key_columns().iter().any(|key| key.name == column.name)
    }

    pub(super) fn has_another_key(&self) -> bool {
        self.from.key_columns() != self.to.key_columns()
    }

    /// The framework's indexes that go: those that are declared no more, or otherwise.
    pub(super) fn indexes_removed(&self) -> impl Iterator<Item = &'a Index> {
        let to = self.to;
        self.from.indexes().iter().filter(|index| !to.indexes().contains(index))
    }

    /// Those of the framework's indexes that stay over a column that becomes another one.
    pub(super) fn indexes_over_changed(&self) -> impl Iterator<Item = &'a Index> {
        let changed: Vec<_> = self.of_another_kind().chain(self.otherwise_optional()).collect();
        let to = self.to;
        let is_over = move |index: &&Index| {
            changed.iter().any(|column| {
                index.columns.contains(&column.name)
                    || index.condition.as_ref().is_some_and(|condition| condition.contains(&column.name))
            })
        };
        self.from.indexes().iter().filter(move |index| to.indexes().contains(index)).filter(is_over)
    }
}

fn find<'a>(table: &'a Table, name: &str) -> Option<&'a Column> {
    table.columns().iter().find(|column| column.name == name)
}

/// Statements that make the rows of table `name` those of `built`, and write no row that is the same in both. `differs` compares a
/// column of `t` and `b`.
pub(super) fn take_rows(name: &str, table: &Table, built: &str, differs: impl Fn(&Column) -> String) -> Vec<String> {
    let (name, built, columns) = (quoted(name), quoted(built), names(table.columns(), ""));
    let same = same_key(table, "t", "b");
    let rest = &table.columns()[table.key_columns().len()..];
    let mut statements =
        vec![format!("DELETE FROM {name} AS t WHERE NOT EXISTS (SELECT 1 FROM {built} AS b WHERE {same})")];
    if !rest.is_empty() {
        let set = rest.iter().map(|column| format!("{0} = b.{0}", quoted(&column.name))).collect::<Vec<_>>().join(", ");
        let differs = rest.iter().map(differs).collect::<Vec<_>>().join(" OR ");
        statements.push(format!("UPDATE {name} AS t SET {set} FROM {built} AS b WHERE {same} AND ({differs})"));
    }
    let of_built = names(table.columns(), "b.");
    statements.push(format!(
        "INSERT INTO {name} ({columns}) SELECT {of_built} FROM {built} AS b \
         WHERE NOT EXISTS (SELECT 1 FROM {name} AS t WHERE {same})"
    ));
    statements
}

/// The statement that adds all rows.
pub(super) fn add_rows(name: &str, table: &Table, built: &str) -> String {
    let columns = names(table.columns(), "");
    format!("INSERT INTO {} ({columns}) SELECT {columns} FROM {}", quoted(name), quoted(built))
}
