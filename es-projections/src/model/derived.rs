//! What `#[derive(ReadModel)]` and `#[derive(ColumnValue)]` write calls to. Not for use by hand.
//!
//! The derives ask for everything that a field's type must have in one place, the call of one of these functions, so that
//! the compiler tells what it lacks once.

use std::fmt::Display;
use std::str::FromStr;

pub use es_core::Cause;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ColumnValue;
use crate::error::Error;
use crate::sql::{Kind, Row, Table, Value};

/// How a field is kept in its column.
pub struct Field<T> {
    name: &'static str,
    kind: Kind,
    optional: bool,
    to_value: fn(&T) -> Result<Value, Cause>,
    read: fn(&Row, usize, &str) -> Result<T, Error>,
}

/// A field whose type says how it is kept.
pub const fn column<T: ColumnValue>(name: &'static str) -> Field<T> {
    let read = |row: &Row, place, column: &str| row.get_at(place, column);
    Field { name, kind: T::KIND, optional: T::OPTIONAL, to_value: T::to_value, read }
}

/// The same in the key.
#[track_caller]
pub const fn key<T: ColumnValue>(name: &'static str) -> Field<T> {
    assert!(!T::OPTIONAL, "a field of the key always holds a value: its type can't be an `Option`, or remove `#[key]`");
    column(name)
}

/// A field that is kept as JSON.
pub const fn json<T: JsonValue>(name: &'static str) -> Field<T> {
    let read = |row: &Row, place, column: &str| from_json(&row.get_at::<String>(place, column)?, column);
    Field { name, kind: Kind::Json, optional: false, to_value: T::to_json, read }
}

/// The same, or nothing.
pub const fn optional_json<T: JsonValue>(name: &'static str) -> Field<Option<T>> {
    let to_value = |field: &Option<T>| field.as_ref().map_or(Ok(Value::Null), T::to_json);
    let read = |row: &Row, place, column: &str| {
        row.get_at::<Option<String>>(place, column)?.map(|text| from_json(&text, column)).transpose()
    };
    Field { name, kind: Kind::Json, optional: true, to_value, read }
}

/// A field that is kept as its `Display` writes it.
pub const fn text<T: TextValue>(name: &'static str) -> Field<T> {
    let to_value = |field: &T| Ok(Value::Text(field.to_text().into()));
    let read = |row: &Row, place, column: &str| from_text(&row.get_at::<String>(place, column)?, column);
    Field { name, kind: Kind::Text, optional: false, to_value, read }
}

/// The same, or nothing.
pub const fn optional_text<T: TextValue>(name: &'static str) -> Field<Option<T>> {
    let to_value = |field: &Option<T>| Ok(field.as_ref().map(T::to_text).into());
    let read = |row: &Row, place, column: &str| {
        row.get_at::<Option<String>>(place, column)?.map(|text| from_text(&text, column)).transpose()
    };
    Field { name, kind: Kind::Text, optional: true, to_value, read }
}

impl<T> Field<T> {
    /// Adds the column.
    #[must_use]
    pub fn add(&self, table: Table) -> Table {
        if self.optional { table.optional(self.name, self.kind) } else { table.column(self.name, self.kind) }
    }

    /// Adds the column to the key.
    #[must_use]
    pub fn add_key(&self, table: Table) -> Table {
        table.key(self.name, self.kind)
    }

    /// The value to store.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column.
    pub fn value(&self, table: &str, field: &T) -> Result<Value, Error> {
        (self.to_value)(field)
            .map_err(|reason| Error::invalid(format!("table {table:?}, column {:?}: {reason}", self.name)))
    }

    /// Reads the field, whose column stands at `place` or elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column.
    pub fn read(&self, row: &Row, place: usize) -> Result<T, Error> {
        (self.read)(row, place, self.name)
    }
}

fn from_json<T: JsonValue>(text: &str, column: &str) -> Result<T, Error> {
    T::from_json(text).map_err(|reason| unreadable(column, text, &reason))
}

fn from_text<T: TextValue>(text: &str, column: &str) -> Result<T, Error> {
    T::from_text(text).map_err(|reason| unreadable(column, text, &reason))
}

fn unreadable(column: &str, text: &str, reason: &dyn Display) -> Error {
    Error::invalid(format!("column {column:?} holds {text:?}: {reason}"))
}

/// What `#[column(json)]` needs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be kept as JSON",
    label = "neither written nor read by serde, or only one of both",
    note = "`#[column(json)]` needs both of `#[derive(Serialize, Deserialize)]` on `{Self}`, with data that it owns"
)]
pub trait JsonValue: Sized {
    /// Writes it.
    ///
    /// # Errors
    /// What its `Serialize` refuses.
    fn to_json(&self) -> Result<Value, Cause>;

    /// Reads it.
    ///
    /// # Errors
    /// What its `Deserialize` refuses.
    fn from_json(text: &str) -> Result<Self, serde_json::Error>;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned> JsonValue for T {
    fn to_json(&self) -> Result<Value, Cause> {
        Ok(Value::json(self)?)
    }

    fn from_json(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }
}

/// What `#[column(text)]` needs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be kept as text",
    label = "no `Display`, no `FromStr`, or one whose error has no `Display`",
    note = "`#[column(text)]` needs `Display` to write it, and `FromStr` with an error that has `Display` to read it: implement \
            them on `{Self}`"
)]
pub trait TextValue: Sized {
    /// Writes it.
    fn to_text(&self) -> String;

    /// Reads it.
    ///
    /// # Errors
    /// What its `FromStr` refuses.
    fn from_text(text: &str) -> Result<Self, String>;
}

#[diagnostic::do_not_recommend]
impl<T: Display + FromStr<Err: Display>> TextValue for T {
    fn to_text(&self) -> String {
        self.to_string()
    }

    fn from_text(text: &str) -> Result<Self, String> {
        text.parse().map_err(|reason: T::Err| reason.to_string())
    }
}

/// What a newtype keeps, as its own type says.
pub struct Inner<T> {
    /// The kind of the column.
    pub kind: Kind,
    /// Whether the column may hold no value.
    pub optional: bool,
    /// What it reads, for messages.
    pub what: &'static str,
    /// The value to store.
    pub to_value: fn(&T) -> Result<Value, Cause>,
    /// Reads the value.
    pub from_value: fn(&Value) -> Option<T>,
}

/// What a newtype of `T` keeps.
pub const fn inner<T: ColumnValue>() -> Inner<T> {
    Inner { kind: T::KIND, optional: T::OPTIONAL, what: T::WHAT, to_value: T::to_value, from_value: T::from_value }
}
