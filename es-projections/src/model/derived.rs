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
use super::column::read_back;
use crate::error::Error;
use crate::sql::{self, Kind, Row, Table, Value};

/// How a field is kept in its column.
pub struct Field<T> {
    name: &'static str,
    kind: Kind,
    optional: bool,
    to_value: fn(&T) -> Result<Value, Cause>,
    read: fn(&Value, &str) -> Result<T, Error>,
    settle: fn(&mut T) -> Result<(), Cause>,
}

/// A field whose type says how it is kept.
pub const fn column<T: ColumnValue>(name: &'static str) -> Field<T> {
    Field { name, kind: T::KIND, optional: T::OPTIONAL, to_value: T::to_value, read: sql::read, settle: T::settle }
}

/// The same in the key, where a number has one text, however many zeros it was given.
#[track_caller]
pub const fn key<T: ColumnValue>(name: &'static str) -> Field<T> {
    assert!(!T::OPTIONAL, "a field of the key always holds a value: its type can't be an `Option`, or remove `#[key]`");
    if !matches!(T::KIND, Kind::Decimal) {
        return column(name);
    }
    let to_value: fn(&T) -> Result<Value, Cause> = |field| Ok(field.to_value()?.settled_key());
    let settle: fn(&mut T) -> Result<(), Cause> = |field| {
        let value = field.to_value()?.settled_key();
        *field = T::from_value(&value).ok_or_else(|| format!("{value} is not read back as {}", T::WHAT))?;
        Ok(())
    };
    Field { to_value, settle, ..column(name) }
}

/// A field that is kept as JSON.
pub const fn json<T: JsonValue>(name: &'static str) -> Field<T> {
    let read = |value: &Value, column: &str| from_json(&sql::read::<String>(value, column)?, column);
    let settle = |field: &mut T| {
        read_back(field, T::to_json, |value| {
            T::from_json(text_of(value)).map_err(|reason| not_read_back(text_of(value), &reason))
        })
    };
    Field { name, kind: Kind::Json, optional: false, to_value: T::to_json, read, settle }
}

/// The same, or nothing.
pub const fn optional_json<T: JsonValue>(name: &'static str) -> Field<Option<T>> {
    let to_value = |field: &Option<T>| field.as_ref().map_or(Ok(Value::Null), T::to_json);
    let read = |value: &Value, column: &str| {
        sql::read::<Option<String>>(value, column)?.map(|text| from_json(&text, column)).transpose()
    };
    let settle = |field: &mut Option<T>| field.as_mut().map_or(Ok(()), json::<T>("").settle);
    Field { name, kind: Kind::Json, optional: true, to_value, read, settle }
}

/// A field that is kept as its `Display` writes it.
pub const fn text<T: TextValue>(name: &'static str) -> Field<T> {
    let to_value = |field: &T| Ok(Value::Text(field.to_text().into()));
    let read = |value: &Value, column: &str| from_text(&sql::read::<String>(value, column)?, column);
    let settle = |field: &mut T| {
        let to_value = |field: &T| Ok(Value::Text(field.to_text().into()));
        read_back(field, to_value, |value| {
            T::from_text(text_of(value)).map_err(|reason| not_read_back(text_of(value), &reason))
        })
    };
    Field { name, kind: Kind::Text, optional: false, to_value, read, settle }
}

/// The same, or nothing.
pub const fn optional_text<T: TextValue>(name: &'static str) -> Field<Option<T>> {
    let to_value = |field: &Option<T>| Ok(field.as_ref().map(T::to_text).into());
    let read = |value: &Value, column: &str| {
        sql::read::<Option<String>>(value, column)?.map(|text| from_text(&text, column)).transpose()
    };
    let settle = |field: &mut Option<T>| field.as_mut().map_or(Ok(()), text::<T>("").settle);
    Field { name, kind: Kind::Text, optional: true, to_value, read, settle }
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
        (self.to_value)(field).map(Value::settled).map_err(|reason| self.refused(table, &reason))
    }

    /// Reads the field, whose column stands at `place` or elsewhere.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column.
    pub fn read(&self, row: &Row, place: usize) -> Result<T, Error> {
        (self.read)(row.value_at(place, self.name)?, self.name)
    }

    /// Makes the field what would be read back of it.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column.
    pub fn settle(&self, table: &str, field: &mut T) -> Result<(), Error> {
        (self.settle)(field).map_err(|reason| self.refused(table, &reason))
    }

    fn refused(&self, table: &str, reason: &Cause) -> Error {
        Error::invalid(format!("table {table:?}, column {:?}: {reason}", self.name))
    }
}

fn text_of(value: &Value) -> &str {
    match value {
        Value::Text(text) | Value::Json(text) => text,
        _ => "",
    }
}

fn not_read_back(text: &str, reason: &dyn Display) -> Cause {
    format!("{text:?} is not read back: {reason}").into()
}

fn from_json<T: JsonValue>(text: &str, column: &str) -> Result<T, Error> {
    T::from_json(text).map_err(|reason| unreadable(column, text, &reason))
}

fn from_text<T: TextValue>(text: &str, column: &str) -> Result<T, Error> {
    T::from_text(text).map_err(|reason| unreadable(column, text, &reason))
}

fn unreadable(column: &str, text: &str, reason: &dyn Display) -> Error {
    Error::Damaged(format!("column {column:?} holds {text:?}: {reason}"))
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
    /// Makes it what would be read back of it.
    pub settle: fn(&mut T) -> Result<(), Cause>,
}

/// What a newtype of `T` keeps.
pub const fn inner<T: ColumnValue>() -> Inner<T> {
    Inner {
        kind: T::KIND,
        optional: T::OPTIONAL,
        what: T::WHAT,
        to_value: T::to_value,
        from_value: T::from_value,
        settle: T::settle,
    }
}
