//! What `#[derive(ReadModel)]` and `#[derive(ColumnValue)]` write calls to. Not for use by hand.

use std::fmt::Display;
use std::str::FromStr;

use es_core::Cause;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ColumnValue;
use crate::error::Error;
pub use crate::sql::{FromValue, Kind, Row, Table, Value};

/// Adds a column of the kind that a field's type says.
#[must_use]
pub fn column<T: ColumnValue>(table: Table, name: &'static str) -> Table {
    if T::OPTIONAL { table.optional(name, T::KIND) } else { table.column(name, T::KIND) }
}

/// Adds a column to the key.
#[must_use]
pub fn key<T: ColumnValue>(table: Table, name: &'static str) -> Table {
    const { assert!(!T::OPTIONAL, "a column of the key always holds a value: it can't be an `Option`") };
    table.key(name, T::KIND)
}

/// The value of a field.
///
/// # Errors
/// [`Error::Invalid`] naming the column.
pub fn value<T: ColumnValue>(table: &str, column: &str, field: &T) -> Result<Value, Error> {
    field.to_value().map_err(|reason| unfit(table, column, &*reason))
}

/// The value of a field that is kept as JSON.
///
/// # Errors
/// [`Error::Invalid`] naming the column.
pub fn json<T: Serialize>(table: &str, column: &str, field: &T) -> Result<Value, Error> {
    Value::json(field).map_err(|reason| unfit(table, column, &reason))
}

/// The value of a field that is kept as its `Display` writes it.
pub fn text<T: Display>(field: &T) -> Value {
    Value::Text(field.to_string())
}

/// Reads a field that stands at `place`, or else wherever its column is.
///
/// # Errors
/// [`Error::Invalid`] naming the column.
pub fn read<T: FromValue>(row: &Row, place: usize, column: &str) -> Result<T, Error> {
    row.get_at(place, column)
}

/// Reads a field that is kept as JSON.
///
/// # Errors
/// [`Error::Invalid`] naming the column.
pub fn read_json<T: DeserializeOwned>(row: &Row, place: usize, column: &str) -> Result<T, Error> {
    let text: String = row.get_at(place, column)?;
    serde_json::from_str(&text).map_err(|reason| unreadable(column, &text, &reason))
}

/// Reads a field that is kept as text.
///
/// # Errors
/// [`Error::Invalid`] naming the column.
pub fn read_text<T: FromStr<Err: Display>>(row: &Row, place: usize, column: &str) -> Result<T, Error> {
    let text: String = row.get_at(place, column)?;
    text.parse().map_err(|reason: T::Err| unreadable(column, &text, &reason))
}

/// A cause of why a newtype refuses what its column holds.
pub type Refusal = Cause;

fn unfit(table: &str, column: &str, reason: &dyn Display) -> Error {
    Error::invalid(format!("table {table:?}, column {column:?}: {reason}"))
}

fn unreadable(column: &str, text: &str, reason: &dyn Display) -> Error {
    Error::invalid(format!("column {column:?} holds {text:?}: {reason}"))
}
