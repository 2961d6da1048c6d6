//! How columns hold what the domain has: which knows of no database.

use es_core::Cause;
use es_projections::{ColumnValue, FromValue, Kind, Value};

use crate::domain::Money;

/// Not derived: what is read is checked.
impl FromValue for Money {
    const WHAT: &'static str = "an amount of money in minor units";

    fn from_value(value: &Value) -> Option<Self> {
        Money::new(i64::from_value(value)?).ok()
    }
}

impl ColumnValue for Money {
    const KIND: Kind = Kind::Integer;

    fn to_value(&self) -> Result<Value, Cause> {
        Ok(self.get().into())
    }
}

/// Text that PostgreSQL can hold, which has no zero characters; what was recorded keeps them.
pub(super) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}
