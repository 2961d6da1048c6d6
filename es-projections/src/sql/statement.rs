//! The text of statements that both databases share.

use super::names::quoted;
use super::table::{Column, Index, Table};
use super::value::Row;

/// What [`Tx::insert`](super::tx::Tx::insert) does with a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The statement fails.
    Fail,
    /// The row that is there stays.
    Keep,
    /// The transaction can only be rolled back, and is tried again without counting as a failure: for rows that were
    /// looked for and not there, since another worker may have been first.
    Retry,
}

/// The names of columns in a list, each with `prefix` before it.
pub(crate) fn names(columns: &[Column], prefix: &str) -> String {
    let names = columns.iter().map(|column| format!("{prefix}{}", quoted(&column.name)));
    names.collect::<Vec<_>>().join(", ")
}

/// `a."x" = b."x" AND …` for the key of a table.
pub(super) fn same_key(table: &Table, left: &str, right: &str) -> String {
    let equal = table.key_columns().iter().map(|column| {
        let name = quoted(&column.name);
        format!("{left}.{name} = {right}.{name}")
    });
    equal.collect::<Vec<_>>().join(" AND ")
}

/// The end of an upsert: what to do with a row whose key is there.
pub(super) fn on_conflict_update(table: &Table) -> String {
    let key = names(table.key_columns(), "");
    let rest = &table.columns()[table.key_columns().len()..];
    if rest.is_empty() {
        return format!(" ON CONFLICT ({key}) DO NOTHING");
    }
    let set = rest.iter().map(|column| {
        let name = quoted(&column.name);
        format!("{name} = excluded.{name}")
    });
    format!(" ON CONFLICT ({key}) DO UPDATE SET {}", set.collect::<Vec<_>>().join(", "))
}

/// The statement that makes a table; `kind_name` is the database's name of a column's kind.
pub(super) fn create(table: &Table, full_name: &str, kind_name: impl Fn(&Column) -> &'static str, end: &str) -> String {
    let columns = table.columns().iter().map(|column| {
        let null = if column.optional { "" } else { " NOT NULL" };
        format!("{} {}{null}", quoted(&column.name), kind_name(column))
    });
    let columns = columns.collect::<Vec<_>>().join(", ");
    let key = names(table.key_columns(), "");
    let name = quoted(full_name);
    format!("CREATE TABLE IF NOT EXISTS {name} ({columns}, PRIMARY KEY ({key})){end};\n")
}

/// What has a name in the database already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Named {
    Table,
    /// An index on this table, over these columns.
    Index {
        table: String,
        columns: Vec<String>,
    },
    /// Something else: a view, say.
    Other,
}

impl Named {
    /// From a row of `kind`, `on_table` and `columns`.
    pub(super) fn of_row(row: &Row) -> Option<Self> {
        let text = |column: &str| row.get::<Option<String>>(column).ok().flatten();
        Some(match text("kind")?.as_str() {
            "table" => Self::Table,
            "index" => {
                let columns = text("columns").unwrap_or_default();
                Self::Index { table: text("on_table")?, columns: columns.split(',').map(str::to_owned).collect() }
            }
            _ => Self::Other,
        })
    }
}

/// The name of an index in the database.
pub(super) fn index_name(table: &str, index: &Index) -> String {
    format!("{table}_{}", index.name)
}

/// The statement that makes an index of a table, unless it is there. What is there under its name and is not it is told.
pub(super) fn create_index(table: &str, index: &Index, there: Option<Named>) -> Result<Option<String>, String> {
    let name = index_name(table, index);
    let remedy = "give the index another name, or remove what has its name";
    match there {
        None => {}
        Some(Named::Index { table: on, columns }) if on == table => {
            if columns == index.columns {
                return Ok(None);
            }
            let (there, declared) = (columns.join(", "), index.columns.join(", "));
            return Err(format!("index {name:?} is over {there}, and declared over {declared}: {remedy}"));
        }
        Some(Named::Index { table: on, .. }) => {
            return Err(format!("index {name:?} of table {table:?} is one of table {on:?} already: {remedy}"));
        }
        Some(Named::Table | Named::Other) => {
            return Err(format!("index {name:?} of table {table:?} has the name of something else: {remedy}"));
        }
    }
    let over = index.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
    let condition = index.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
    Ok(Some(format!("CREATE INDEX {} ON {} ({over}){condition}", quoted(&name), quoted(table))))
}

/// Replaces each `?` outside quotes and comments by `$1`, `$2` and so on.
pub(super) fn numbered(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 16);
    let mut count = 0;
    let mut rest = sql;
    while let Some(at) = rest.find(['?', '\'', '"', '-', '/']) {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let len = match from.as_bytes() {
            [b'?', ..] => {
                count += 1;
                out.push_str(&format!("${count}"));
                rest = &from[1..];
                continue;
            }
            [quote @ (b'\'' | b'"'), ..] => from[1..].find(char::from(*quote)).map(|end| end + 2),
            [b'-', b'-', ..] => from.find('\n'),
            [b'/', b'*', ..] => from[2..].find("*/").map(|end| end + 4),
            _ => Some(1),
        };
        let (kept, after) = from.split_at(len.unwrap_or(from.len()));
        out.push_str(kept);
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_numbered_outside_quotes_and_comments() {
        for (sql, numbered_sql) in [
            ("SELECT ?, ?", "SELECT $1, $2"),
            ("SELECT 'a?''?', \"?\" , ?", "SELECT 'a?''?', \"?\" , $1"),
            ("SELECT 1 - ? -- why?\n, ? /* ? */ / ?", "SELECT 1 - $1 -- why?\n, $2 /* ? */ / $3"),
            ("SELECT 'open ?", "SELECT 'open ?"),
        ] {
            assert_eq!(numbered(sql), numbered_sql);
        }
    }
}
