//! The text of statements that both databases share.

use super::table::{Column, Index, Table};
use super::value::{FromValue, Row};

/// A name in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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

/// The texts of the first column.
pub(super) fn first_texts(rows: &[Row]) -> Vec<String> {
    rows.iter().filter_map(|row| String::from_value(row.values.first()?)).collect()
}

/// The statements that make those indexes of a table that are not there. One that came with a rebuilt table has the number of the
/// build in its name, since it can't be renamed with the table everywhere.
pub(super) fn create_indexes(table: &Table, full_name: &str, there: &[String]) -> String {
    let is_there = |index: &str| {
        there.iter().filter_map(|name| name.strip_prefix(full_name)?.strip_prefix('_')).any(|name| {
            let built = || name.strip_prefix('b')?.split_once('_').filter(|(build, _)| build.parse::<u32>().is_ok());
            name == index || built().is_some_and(|(_, name)| name == index)
        })
    };
    let missing = table.indexes().iter().filter(|index| !is_there(&index.name));
    let create = |index: &Index| {
        let over = index.columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ");
        let index_name = quoted(&format!("{full_name}_{}", index.name));
        let condition = index.condition.as_ref().map(|condition| format!(" WHERE {condition}")).unwrap_or_default();
        format!("CREATE INDEX IF NOT EXISTS {index_name} ON {} ({over}){condition};\n", quoted(full_name))
    };
    missing.map(create).collect()
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
