//! Values, rows and how Rust types become them: the same on every database.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Datelike, NaiveDate, SecondsFormat, Utc};
use es_core::{AggregateKey, Version};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::json;
use crate::error::Error;

/// The kind of a column.
///
/// | kind | SQLite | PostgreSQL |
/// |---|---|---|
/// | [`Kind::Integer`] | `INTEGER` | `BIGINT` |
/// | [`Kind::Text`] | `TEXT` | `TEXT COLLATE "C"` |
/// | [`Kind::Bool`] | `INTEGER`, 0 or 1 | `BOOLEAN` |
/// | [`Kind::Bytes`] | `BLOB` | `BYTEA` |
/// | [`Kind::Json`] | `TEXT` | `JSON`, which keeps the text as it was given |
/// | [`Kind::Time`] | `TEXT`, as `2026-01-31T12:00:00.000000Z` | `TIMESTAMPTZ` |
/// | [`Kind::Date`] | `TEXT`, as `2026-01-31` | `DATE` |
/// | [`Kind::Decimal`] | `TEXT`, as `12.50`: it does not sort as the number does | `NUMERIC` |
/// | [`Kind::Uuid`] | `TEXT`, lower case with hyphens | `UUID` |
///
/// Times are written in full, to the microsecond and in UTC, so that they sort as text, and `recorded_at >=
/// '2026-01-31'` means the same on both. Texts are compared byte by byte on both, whatever collation the database has: equal
/// are those that are equal in Rust, and an index outlives an upgrade of the system's collations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A signed integer of 64 bits.
    Integer,
    /// Unicode text.
    Text,
    /// True or false.
    Bool,
    /// Bytes.
    Bytes,
    /// JSON, kept as the text it was given as.
    Json,
    /// A point in time, to the microsecond.
    Time,
    /// A day.
    Date,
    /// A decimal number of up to 28 digits, with its scale: `12.50` stays `12.50`, save in a key, where it is `12.5`; zero is `0`.
    Decimal,
    /// A UUID.
    Uuid,
}

impl Kind {
    pub(crate) const ALL: [Self; 9] = [
        Self::Integer,
        Self::Text,
        Self::Bool,
        Self::Bytes,
        Self::Json,
        Self::Time,
        Self::Date,
        Self::Decimal,
        Self::Uuid,
    ];

    /// Its name in what is stored.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Integer => "integer",
            Self::Text => "text",
            Self::Bool => "bool",
            Self::Bytes => "bytes",
            Self::Json => "json",
            Self::Time => "time",
            Self::Date => "date",
            Self::Decimal => "decimal",
            Self::Uuid => "uuid",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// A value of a column of this kind as a database without such a kind, or a statement without declared columns,
    /// gives it. None for what is not of this kind.
    pub(crate) fn declared(self, value: Value) -> Option<Value> {
        Some(match (self, value) {
            (_, Value::Null) => Value::Null,
            (Self::Bool, Value::Integer(value @ 0..=1)) => Value::Bool(value == 1),
            (Self::Json, Value::Text(text)) => Value::Json(text),
            (Self::Time, Value::Text(text)) => Value::Time(parse_time(&text)?),
            (Self::Date, Value::Text(text)) => Value::Date(text.parse().ok()?),
            (Self::Decimal, Value::Text(text)) => Value::Decimal(text.parse().ok()?),
            (Self::Decimal, Value::Integer(value)) => Value::Decimal(value.into()),
            (Self::Uuid, Value::Text(text)) => Value::Uuid(Uuid::parse_str(&text).ok()?),
            (kind, value) if value.kind() == Some(kind) => value,
            _ => return None,
        })
    }
}

/// A value of a column, or an argument of a statement.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// No value.
    Null,
    /// An integer.
    Integer(i64),
    /// Text; rows with the same text can share it.
    Text(Arc<str>),
    /// True or false.
    Bool(bool),
    /// Bytes.
    Bytes(Vec<u8>),
    /// JSON text.
    Json(Arc<str>),
    /// A point in time; what is finer than a microsecond is cut off before it is stored or compared.
    Time(DateTime<Utc>),
    /// A day.
    Date(NaiveDate),
    /// A decimal number.
    Decimal(Decimal),
    /// A UUID.
    Uuid(Uuid),
}

impl Value {
    /// The JSON text of anything that serde can write, the fields of each object in the order of their names: equal values have
    /// equal texts, whatever order a `HashMap` has. A `HashSet` becomes a list, which has no such order: keep a `BTreeSet`.
    ///
    /// # Errors
    /// What the value's `Serialize` refuses.
    pub fn json(value: &impl serde::Serialize) -> Result<Self, serde_json::Error> {
        json::canonical(&serde_json::to_string(value)?).map(|text| Self::Json(text.into()))
    }

    /// What every database gives back of it: a time to the microsecond and without a leap second, zero without sign and scale.
    #[must_use]
    pub(crate) fn settled(self) -> Self {
        match self {
            Self::Time(time) => Self::Time(settled_time(time)),
            Self::Decimal(number) if number.is_zero() => Self::Decimal(Decimal::ZERO),
            other => other,
        }
    }

    /// The same of a key, where a number has one text: `1.0` and `1.00` are one key, also where a database compares their texts.
    #[must_use]
    pub(crate) fn settled_key(self) -> Self {
        match self.settled() {
            Self::Decimal(number) => Self::Decimal(number.normalize()),
            other => other,
        }
    }

    /// Whether it is [`Value::Null`].
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// The kind; none for [`Value::Null`].
    pub fn kind(&self) -> Option<Kind> {
        Some(match self {
            Self::Null => return None,
            Self::Integer(_) => Kind::Integer,
            Self::Text(_) => Kind::Text,
            Self::Bool(_) => Kind::Bool,
            Self::Bytes(_) => Kind::Bytes,
            Self::Json(_) => Kind::Json,
            Self::Time(_) => Kind::Time,
            Self::Date(_) => Kind::Date,
            Self::Decimal(_) => Kind::Decimal,
            Self::Uuid(_) => Kind::Uuid,
        })
    }

    /// Why not every database takes it. One that does would hide what another one refuses.
    pub(crate) fn unstorable(&self) -> Option<String> {
        match self {
            Self::Text(text) if text.contains('\0') => Some(NO_ZEROS.into()),
            Self::Json(text) if text.contains('\0') => Some("JSON has no zero characters".into()),
            Self::Time(time) if !(0..=9999).contains(&time.year()) => {
                Some(format!("time {time} is not between the years 0 and 9999"))
            }
            Self::Date(date) if !(0..=9999).contains(&date.year()) => {
                Some(format!("date {date} is not between the years 0 and 9999"))
            }
            _ => None,
        }
    }

    /// Roughly the bytes that it takes in a statement.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len() + 8,
            Self::Bytes(bytes) => bytes.len() + 8,
            _ => 24,
        }
    }
}

macro_rules! from {
    ($($type:ty => |$value:ident| $made:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $made
            }
        }
    )*};
}

from! {
    i64 => |value| Self::Integer(value);
    i32 => |value| Self::Integer(value.into());
    u32 => |value| Self::Integer(value.into());
    bool => |value| Self::Bool(value);
    String => |value| Self::Text(value.into());
    &str => |value| Self::Text(value.into());
    &String => |value| Self::Text(value.as_str().into());
    Arc<str> => |value| Self::Text(value);
    AggregateKey => |value| Self::Text(value.into());
    Vec<u8> => |value| Self::Bytes(value);
    &[u8] => |value| Self::Bytes(value.into());
    Bytes => |value| Self::Bytes(value.into());
    DateTime<Utc> => |value| Self::Time(value);
    NaiveDate => |value| Self::Date(value);
    Decimal => |value| Self::Decimal(value);
    Uuid => |value| Self::Uuid(value);
    Version => |value| Self::Integer(i64::try_from(value.get()).expect("versions are counted from 1, one by one"));
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Why text is refused that PostgreSQL can't hold.
pub(crate) const NO_ZEROS: &str = "text with a zero character can't be stored";

/// What can be read from a column with [`Row::get`].
pub trait FromValue: Sized {
    /// What it reads, for the error message.
    const WHAT: &'static str;

    /// Reads the value; none if it is of another kind.
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty, $what:literal: $($pattern:pat => $made:expr),+;)*) => {$(
        impl FromValue for $type {
            const WHAT: &'static str = $what;
            fn from_value(value: &Value) -> Option<Self> {
                match value {
                    $($pattern => $made,)+
                    _ => None,
                }
            }
        }
    )*};
}

// The further patterns are for statements of the user's own, whose columns have no declared kind on SQLite.
from_value! {
    i64, "an integer": Value::Integer(value) => Some(*value);
    u64, "an integer from 0": Value::Integer(value) => u64::try_from(*value).ok();
    u32, "an integer from 0 to 4294967295": Value::Integer(value) => u32::try_from(*value).ok();
    u16, "an integer from 0 to 65535": Value::Integer(value) => u16::try_from(*value).ok();
    u8, "an integer from 0 to 255": Value::Integer(value) => u8::try_from(*value).ok();
    i32, "an integer of 32 bits": Value::Integer(value) => i32::try_from(*value).ok();
    i16, "an integer of 16 bits": Value::Integer(value) => i16::try_from(*value).ok();
    i8, "an integer of 8 bits": Value::Integer(value) => i8::try_from(*value).ok();
    bool, "true or false": Value::Bool(value) => Some(*value), Value::Integer(value @ 0..=1) => Some(*value == 1);
    String, "text": Value::Text(value) | Value::Json(value) => Some(value.as_ref().into()), Value::Uuid(value) => Some(value.to_string());
    Arc<str>, "text": Value::Text(value) | Value::Json(value) => Some(value.clone()), Value::Uuid(value) => Some(value.to_string().into());
    Vec<u8>, "bytes": Value::Bytes(value) => Some(value.clone());
    Bytes, "bytes": Value::Bytes(value) => Some(value.clone().into());
    DateTime<Utc>, "a time": Value::Time(value) => Some(*value), Value::Text(text) => parse_time(text);
    NaiveDate, "a date": Value::Date(value) => Some(*value), Value::Text(text) => text.parse().ok();
    Decimal, "a decimal number": Value::Decimal(value) => Some(*value), Value::Text(text) => text.parse().ok(), Value::Integer(value) => Some((*value).into());
    AggregateKey, "an aggregate id": Value::Text(text) => AggregateKey::new(text).ok();
    Version, "a version": Value::Integer(value) => u64::try_from(*value).ok().map(Version::new);
    Uuid, "a UUID": Value::Uuid(value) => Some(*value), Value::Text(text) => Uuid::parse_str(text).ok();
    serde_json::Value, "JSON": Value::Json(text) | Value::Text(text) => serde_json::from_str(text).ok();
}

impl<T: FromValue> FromValue for Option<T> {
    const WHAT: &'static str = T::WHAT;

    fn from_value(value: &Value) -> Option<Self> {
        if value.is_null() { Some(None) } else { T::from_value(value).map(Some) }
    }
}

/// Reads a column's value.
pub(crate) fn read<T: FromValue>(value: &Value, column: &str) -> Result<T, Error> {
    T::from_value(value).ok_or_else(|| {
        let found = value.kind().map_or_else(|| "null".into(), |kind| format!("{kind:?}").to_lowercase());
        Error::Damaged(format!("column {column:?} is read as {}, but holds {found}", T::WHAT))
    })
}

/// Why a column's value can't be read.
pub(super) fn unreadable(column: &str, reason: impl fmt::Display) -> String {
    format!("column {column:?} can't be read: {reason}")
}

/// A row: its columns' names and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub(crate) columns: Arc<[String]>,
    pub(crate) values: Vec<Value>,
    /// The values that are there and can't be read, by their places, which hold [`Value::Null`], with the reason.
    pub(crate) unreadable: Vec<(usize, String)>,
}

impl Row {
    /// The value of a column.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no such column, [`Error::Damaged`] when its value is not of that type.
    pub fn get<T: FromValue>(&self, column: &str) -> Result<T, Error> {
        read(self.value_at(usize::MAX, column)?, column)
    }

    /// The value of a column that stands at `place`, or else wherever it is.
    pub(crate) fn value_at(&self, place: usize, column: &str) -> Result<&Value, Error> {
        let place = match self.columns.get(place) {
            Some(name) if name == column => place,
            _ => self
                .columns
                .iter()
                .position(|name| name == column)
                .ok_or_else(|| Error::invalid(format!("there is no column {column:?} among {:?}", self.columns)))?,
        };
        match self.unreadable.iter().find(|(unreadable, _)| *unreadable == place) {
            Some((_, reason)) => Err(Error::Damaged(reason.clone())),
            None => Ok(&self.values[place]),
        }
    }

    /// From values each of which the database gave, or which can't be read for this reason.
    pub(super) fn of(columns: Arc<[String]>, given: impl Iterator<Item = Result<Value, String>>) -> Self {
        let mut unreadable = Vec::new();
        let value = |(place, value): (usize, Result<Value, String>)| {
            value.unwrap_or_else(|reason| {
                unreadable.push((place, reason));
                Value::Null
            })
        };
        let values = given.enumerate().map(value).collect();
        Self { columns, values, unreadable }
    }

    /// The names of the columns.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The values in the order of the columns.
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The values in the order of the columns, without a copy.
    pub fn into_values(self) -> Vec<Value> {
        self.values
    }
}

/// A time as every database has it. What is finer than a microsecond is cut off, before 1970 as well; a leap second becomes
/// the first one of the next minute.
pub(crate) fn settled_time(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(time.timestamp_micros()).unwrap_or(time)
}

/// A time as text that sorts as the time does.
pub(crate) fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Integer(value) => value.fmt(f),
            Self::Text(value) | Self::Json(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Bytes(value) => write!(f, "{} bytes", value.len()),
            Self::Time(value) => f.write_str(&time_text(*value)),
            Self::Date(value) => value.fmt(f),
            Self::Decimal(value) => value.fmt(f),
            Self::Uuid(value) => value.fmt(f),
        }
    }
}
