//! What Rust types columns hold.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use es_core::{AggregateKey, Cause, Version};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::sql::{FromValue, Kind, Value};

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
}

macro_rules! column_value {
    ($($type:ty, $kind:ident, |$value:ident| $made:expr;)*) => {$(
        // Some of them, in an order that changes with what else is compiled, would only hide the remedy.
        #[diagnostic::do_not_recommend]
        impl ColumnValue for $type {
            const KIND: Kind = Kind::$kind;

            fn to_value(&self) -> Result<Value, Cause> {
                let $value = self;
                Ok($made)
            }
        }
    )*};
}

column_value! {
    i64, Integer, |value| Value::Integer(*value);
    i32, Integer, |value| Value::Integer((*value).into());
    i16, Integer, |value| Value::Integer((*value).into());
    i8, Integer, |value| Value::Integer((*value).into());
    u64, Integer, |value| Value::Integer(i64::try_from(*value).map_err(|_| format!("{value} is above {}", i64::MAX))?);
    u32, Integer, |value| Value::Integer((*value).into());
    u16, Integer, |value| Value::Integer((*value).into());
    u8, Integer, |value| Value::Integer((*value).into());
    bool, Bool, |value| Value::Bool(*value);
    String, Text, |value| value.into();
    Arc<str>, Text, |value| value.clone().into();
    Vec<u8>, Bytes, |value| Value::Bytes(value.clone());
    Bytes, Bytes, |value| Value::Bytes(value.to_vec());
    Decimal, Decimal, |value| Value::Decimal(*value);
    Uuid, Uuid, |value| Value::Uuid(*value);
    DateTime<Utc>, Time, |value| Value::Time(*value);
    NaiveDate, Date, |value| Value::Date(*value);
    serde_json::Value, Json, |value| Value::Json(value.to_string().into());
    AggregateKey, Text, |value| value.clone().into();
    Version, Integer, |value| (*value).into();
}

#[diagnostic::do_not_recommend]
impl<T: ColumnValue> ColumnValue for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn to_value(&self) -> Result<Value, Cause> {
        self.as_ref().map_or(Ok(Value::Null), T::to_value)
    }
}
