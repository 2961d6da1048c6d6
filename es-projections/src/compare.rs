//! Whether two builds of a read model hold the same rows, and which they don't.

use std::collections::HashMap;
use std::fmt;

use futures::future::try_join;

use crate::digest::{Digest, Sum, row_hash};
use crate::error::Error;
use crate::pages::{Pages, Side, key_of};
use crate::sql::{Column, Row, Table, Value};

/// The most rows of a table that are told.
const TOLD_MAX: usize = 5;
/// The most characters of a value that are told.
const VALUE_MAX: usize = 100;
/// Those that are told of it before the first that differs.
const BEFORE: usize = 20;

/// A table of a read model, compared with what the log gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedTable {
    /// Its name without the namespace.
    pub name: String,
    /// How many rows the live one has.
    pub rows: u64,
    /// How many the replayed one has.
    pub replayed_rows: u64,
    /// The digest of the live one's rows.
    pub digest: Digest,
    /// The digest of the replayed one's rows.
    pub replayed_digest: Digest,
    /// The first rows that differ, at most 5 that the replayed one has otherwise or not at all, and 5 that only the live one has; none
    /// where all rows are the same.
    pub differences: Vec<Difference>,
}

/// A row that is not what the log gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The table's name without the namespace.
    pub table: String,
    /// The values of the key's columns.
    pub key: Vec<String>,
    /// What is wrong with it.
    pub row: RowDiffers,
    /// The columns that differ; where the row is on one side only, all but the key's.
    pub columns: Vec<ColumnDiffers>,
}

/// What is wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowDiffers {
    /// Both have it, with other values.
    Changed,
    /// The live one lacks it.
    Missing,
    /// Only the live one has it.
    Added,
}

/// A column of a row that is not what the log gives. Of long values the part is told where they begin to differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnDiffers {
    /// The column.
    pub column: String,
    /// What the live one holds, as text; none where it lacks the row.
    pub live: Option<String>,
    /// What the replayed one holds.
    pub replayed: Option<String>,
}

impl ComparedTable {
    /// Whether all rows are the same in all columns.
    pub fn is_equal(&self) -> bool {
        self.differences.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.table, self.key.join("/"))?;
        match self.row {
            RowDiffers::Missing => f.write_str(" is missing, replayed it is there"),
            RowDiffers::Added => f.write_str(" is there, replayed it is not"),
            RowDiffers::Changed => {
                let text = |value: &Option<String>| value.clone().unwrap_or_default();
                let tell = |differs: &ColumnDiffers| {
                    format!("{} is {}, replayed {}", differs.column, text(&differs.live), text(&differs.replayed))
                };
                write!(f, ": {}", self.columns.iter().map(tell).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Compares a table of both, row by row: sums of hashes could be made to be equal. Where rows have a form, those of equal form.
pub(crate) async fn table(
    live: &mut Side<'_>,
    replayed: &mut Side<'_>,
    table: &Table,
    form: Option<&str>,
) -> Result<ComparedTable, Error> {
    let (mut pages, mut others) = (Pages::of(table), Pages::of(table));
    let (mut sum, mut other_sum) = (Sum::default(), Sum::default());
    // Before the first page that differs.
    let mut differs_after = None;
    loop {
        let before = pages.last.clone();
        let (rows, other_rows) = try_join(pages.next(live), others.next(replayed)).await?;
        if rows.is_none() && other_rows.is_none() {
            break;
        }
        let (rows, other_rows) = (rows.unwrap_or_default(), other_rows.unwrap_or_default());
        rows.iter().for_each(|row| sum.add(&row_hash(row)));
        other_rows.iter().for_each(|row| other_sum.add(&row_hash(row)));
        let same = || rows.iter().zip(&other_rows).all(|(one, other)| is_same(one, other));
        if differs_after.is_none() && (rows.len() != other_rows.len() || !same()) {
            differs_after = Some(before);
        }
    }
    let differences = match differs_after {
        Some(after) => differences(live, replayed, table, form, after).await?,
        None => Vec::new(),
    };
    Ok(ComparedTable {
        name: table.name().into(),
        rows: sum.rows,
        replayed_rows: other_sum.rows,
        digest: sum.digest(table),
        replayed_digest: other_sum.digest(table),
        differences,
    })
}

/// The first rows behind a key that are not the same in both.
async fn differences(
    live: &mut Side<'_>,
    replayed: &mut Side<'_>,
    table: &Table,
    form: Option<&str>,
    after: Option<Vec<Value>>,
) -> Result<Vec<Difference>, Error> {
    let form = form.and_then(|form| table.columns().iter().position(|column| column.name == form));
    let is_of_another_form =
        |one: &Row, other: &Row| form.is_some_and(|place| one.values()[place] != other.values()[place]);
    let (mut told, mut added) = (Vec::new(), Vec::new());
    let mut pages = Pages::after(table, after.clone());
    while let Some(rows) = pages.next(replayed).await? {
        let there = of_same_keys(live, table, &rows).await?;
        for row in &rows {
            match there.get(key_of(table, row)) {
                Some(there) if is_same(there, row) || is_of_another_form(there, row) => {}
                None if form.is_some() => {}
                Some(there) => told.push(difference(table, RowDiffers::Changed, Some(there), Some(row))),
                None => told.push(difference(table, RowDiffers::Missing, None, Some(row))),
            }
        }
        if told.len() >= TOLD_MAX {
            break;
        }
    }
    let mut pages = Pages::after(table, after);
    pages.ended = form.is_some();
    while let Some(rows) = pages.next(live).await? {
        let there = of_same_keys(replayed, table, &rows).await?;
        let only = rows.iter().filter(|row| !there.contains_key(key_of(table, row)));
        added.extend(only.map(|row| difference(table, RowDiffers::Added, Some(row), None)));
        if added.len() >= TOLD_MAX {
            break;
        }
    }
    told.truncate(TOLD_MAX);
    added.truncate(TOLD_MAX);
    told.append(&mut added);
    Ok(told)
}

/// The rows of a side that have the keys of these, by key.
async fn of_same_keys(side: &mut Side<'_>, table: &Table, rows: &[Row]) -> Result<HashMap<Vec<Value>, Row>, Error> {
    let keys: Vec<_> = rows.iter().map(|row| key_of(table, row)).collect();
    let found = side.rows_of(table, &keys).await?;
    Ok(found.into_iter().map(|row| (key_of(table, &row).to_vec(), row)).collect())
}

fn difference(table: &Table, differs: RowDiffers, live: Option<&Row>, replayed: Option<&Row>) -> Difference {
    let of = |row: Option<&Row>, place: usize| row.map(|row| row.values()[place].clone());
    let column = |(place, column): (usize, &Column)| {
        let (live, replayed) = (of(live, place), of(replayed, place));
        let both = live.as_ref().zip(replayed.as_ref());
        if place < table.key_columns().len() || both.is_some_and(|(one, other)| is_same_value(one, other)) {
            return None;
        }
        let (live, replayed) = told(live.as_ref(), replayed.as_ref());
        Some(ColumnDiffers { column: column.name.clone(), live, replayed })
    };
    let key = live.or(replayed).map(|row| key_of(table, row).iter().map(text).collect());
    Difference {
        table: table.name().into(),
        key: key.unwrap_or_default(),
        row: differs,
        columns: table.columns().iter().enumerate().filter_map(column).collect(),
    }
}

fn is_same(one: &Row, other: &Row) -> bool {
    one.values().iter().zip(other.values()).all(|(one, other)| is_same_value(one, other))
}

fn is_same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        // They are equal as numbers, whatever their scales.
        (Value::Decimal(one), Value::Decimal(other)) => one == other && one.scale() == other.scale(),
        _ => one == other,
    }
}

/// Both values as text; of long ones the part in which they begin to differ.
fn told(one: Option<&Value>, other: Option<&Value>) -> (Option<String>, Option<String>) {
    let (one, other) = (one.map(text), other.map(text));
    let common = one
        .as_ref()
        .zip(other.as_ref())
        .map_or(0, |(one, other)| one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count());
    let part = |text: String| {
        let length = text.chars().count();
        if length <= VALUE_MAX {
            return text;
        }
        let from = common.saturating_sub(BEFORE);
        let (start, end) = (if from > 0 { "…" } else { "" }, if from + VALUE_MAX < length { "…" } else { "" });
        format!("{start}{}{end}", text.chars().skip(from).take(VALUE_MAX).collect::<String>())
    };
    (one.map(part), other.map(part))
}

fn text(value: &Value) -> String {
    match value {
        Value::Bytes(bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_long_values_the_part_is_told_where_they_differ() {
        let long = |end: &str| Value::from(format!("{}{end}", "ä".repeat(200)));
        let (one, other) = (long("one"), long("other"));
        let (one, other) = told(Some(&one), Some(&other));
        let start = format!("…{}", "ä".repeat(19));
        assert_eq!((one, other), (Some(format!("{start}one")), Some(format!("{start}other"))));
        let (whole, _) = told(Some(&long("")), None);
        assert_eq!(whole.unwrap(), format!("{}…", "ä".repeat(100)));
        let bytes = Value::Bytes(vec![0, 255]);
        assert_eq!(told(Some(&Value::Null), Some(&bytes)), (Some("null".into()), Some("00ff".into())));
    }
}
