//! What Rust types columns hold.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use es_core::{AggregateKey, Cause, Version};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::sql::{FromValue, Kind, NO_ZEROS, Value, is_same_but_for_order, settled_time};

/// A Rust type that a column of a read model holds.
///
/// It is there for integers, text, `bool`, bytes, [`Decimal`], [`Uuid`], times and dates, JSON, ids, and an `Option` of each.
/// `#[derive(ColumnValue)]` makes it for a newtype. A field of any other type says how it is written:
/// `#[column(json)]` or `#[column(text)]`.
#[diagnostic::on_unimplemented(
    message = "a column can't hold `{Self}`",
    note = "write `#[column(json)]` on the field of the read model to keep it as JSON, `#[column(text)]` to keep it as its `Display` writes it, \
            or `#[derive(ColumnValue)]` on `{Self}` if it is a newtype"
)]
pub trait ColumnValue: FromValue {
    /// The kind of the column.
    const KIND: Kind;
    /// Whether the column may hold no value.
    const OPTIONAL: bool = false;

    /// The value to store.
    ///
    /// # Errors
    /// For a value that no database can hold.
    fn to_value(&self) -> Result<Value, Cause>;

    /// Makes it what would be read back of it.
    ///
    /// # Errors
    /// For a value that can't be stored, or not be read back.
    fn settle(&mut self) -> Result<(), Cause> {
        read_back(self, Self::to_value, |value| {
            Self::from_value(value).ok_or_else(|| format!("{value} is not read back as {}", Self::WHAT).into())
        })
    }
}

/// How often a value may change by being written and read, until it is what it was.
const SETTLES_IN: usize = 4;

/// Writes and reads a value until it stays what it is, as a number does whose last digit is rounded once.
pub(super) fn read_back<T>(
    field: &mut T,
    to_value: impl Fn(&T) -> Result<Value, Cause>,
    read: impl Fn(&Value) -> Result<T, Cause>,
) -> Result<(), Cause> {
    let write = |field: &T| -> Result<Value, Cause> {
        let value = to_value(field)?.settled();
        match value.unstorable() {
            Some(reason) => Err(reason.into()),
            None => Ok(value),
        }
    };
    let mut value = write(field)?;
    for _ in 0..SETTLES_IN {
        *field = read(&value)?;
        let again = write(field)?;
        let is_same = match (&value, &again) {
            (Value::Json(one), Value::Json(other)) => is_same_but_for_order(one, other),
            (one, other) => one == other,
        };
        if is_same {
            return Ok(());
        }
        value = again;
    }
    Err(format!("{value} is read back as another value each time").into())
}

fn always<T>(_: &mut T) -> Result<(), Cause> {
    Ok(())
}

fn storable(value: &impl ColumnValue) -> Result<(), Cause> {
    value.to_value()?.unstorable().map_or(Ok(()), |reason| Err(reason.into()))
}

fn without_zeros(text: &str) -> Result<(), Cause> {
    if text.contains('\0') { Err(NO_ZEROS.into()) } else { Ok(()) }
}

macro_rules! column_value {
    ($($type:ty, $kind:ident, |$value:ident| $made:expr, $settle:expr;)*) => {$(
        // Some of them, in an order that changes with what else is compiled, would only hide the remedy.
        #[diagnostic::do_not_recommend]
        impl ColumnValue for $type {
            const KIND: Kind = Kind::$kind;

            fn to_value(&self) -> Result<Value, Cause> {
                let $value = self;
                Ok($made)
            }

            fn settle(&mut self) -> Result<(), Cause> {
                let settle: fn(&mut Self) -> Result<(), Cause> = $settle;
                settle(self)
            }
        }
    )*};
}

column_value! {
    i64, Integer, |value| Value::Integer(*value), always;
    i32, Integer, |value| Value::Integer((*value).into()), always;
    i16, Integer, |value| Value::Integer((*value).into()), always;
    i8, Integer, |value| Value::Integer((*value).into()), always;
    u64, Integer, |value| Value::Integer(i64::try_from(*value).map_err(|_| format!("{value} is above {}", i64::MAX))?), |value| storable(value);
    u32, Integer, |value| Value::Integer((*value).into()), always;
    u16, Integer, |value| Value::Integer((*value).into()), always;
    u8, Integer, |value| Value::Integer((*value).into()), always;
    bool, Bool, |value| Value::Bool(*value), always;
    String, Text, |value| value.into(), |value| without_zeros(value);
    Arc<str>, Text, |value| value.clone().into(), |value| without_zeros(value);
    Vec<u8>, Bytes, |value| Value::Bytes(value.clone()), always;
    Bytes, Bytes, |value| Value::Bytes(value.to_vec()), always;
    Decimal, Decimal, |value| Value::Decimal(*value), |value| {
        if value.is_zero() {
            *value = Decimal::ZERO;
        }
        Ok(())
    };
    Uuid, Uuid, |value| Value::Uuid(*value), always;
    DateTime<Utc>, Time, |value| Value::Time(*value), |value| {
        *value = settled_time(*value);
        storable(value)
    };
    NaiveDate, Date, |value| Value::Date(*value), |value| storable(value);
    serde_json::Value, Json, |value| Value::json(value)?, |value| {
        read_back(value, Self::to_value, |value| Self::from_value(value).ok_or_else(|| format!("{value} is no JSON").into()))
    };
    AggregateKey, Text, |value| value.clone().into(), |value| without_zeros(value.as_str());
    Version, Integer, |value| (*value).into(), always;
}

#[diagnostic::do_not_recommend]
impl<T: ColumnValue> ColumnValue for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn to_value(&self) -> Result<Value, Cause> {
        self.as_ref().map_or(Ok(Value::Null), T::to_value)
    }

    fn settle(&mut self) -> Result<(), Cause> {
        self.as_mut().map_or(Ok(()), T::settle)
    }
}
