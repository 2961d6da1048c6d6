//! An amount of money in minor units.

use std::fmt;

use es_core::Shape;
use serde::{Deserialize, Serialize};

/// Money in minor units (cents, haléře), from -(2^53 - 1) to 2^53 - 1: what every JSON reader takes without rounding.
///
/// A sum that does not fit is refused, never wrapped or rounded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Shape)]
#[serde(try_from = "i64", into = "i64")]
pub(crate) struct Money(i64);

/// A number of minor units that is too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is out of range: the largest amount is {max} minor units", max = Money::MAX)]
pub(crate) struct OutOfRange(i64);

impl Money {
    pub(crate) const ZERO: Money = Money(0);
    pub(crate) const MAX: Money = Money((1 << 53) - 1);

    pub(crate) const fn new(minor_units: i64) -> Result<Self, OutOfRange> {
        // Written without `abs`, which i64::MIN has none of.
        if minor_units > Self::MAX.0 || minor_units < -Self::MAX.0 {
            return Err(OutOfRange(minor_units));
        }
        Ok(Self(minor_units))
    }

    pub(crate) const fn get(self) -> i64 {
        self.0
    }

    pub(crate) fn is_positive(self) -> bool {
        self.0 > 0
    }

    /// The sum, where it fits.
    pub(crate) fn plus(self, other: Money) -> Option<Money> {
        // Two numbers of 53 bits can't overflow 64.
        Self::new(self.0 + other.0).ok()
    }

    /// The difference, where it fits.
    pub(crate) fn minus(self, other: Money) -> Option<Money> {
        Self::new(self.0 - other.0).ok()
    }
}

impl TryFrom<i64> for Money {
    type Error = OutOfRange;
    fn try_from(minor_units: i64) -> Result<Self, OutOfRange> {
        Self::new(minor_units)
    }
}

impl From<Money> for i64 {
    fn from(money: Money) -> i64 {
        money.0
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_that_does_not_fit_is_refused() {
        let max = (1_i64 << 53) - 1;
        assert_eq!(Money::new(max), Ok(Money::MAX));
        assert!(Money::new(-max).is_ok());
        for minor_units in [max + 1, -max - 1, i64::MAX, i64::MIN] {
            assert_eq!(Money::new(minor_units), Err(OutOfRange(minor_units)));
        }
        assert_eq!(Money::MAX.plus(Money::new(1).unwrap()), None);
        assert_eq!(Money::new(-max).unwrap().minus(Money::new(1).unwrap()), None);
    }

    #[test]
    fn json_with_too_much_money_is_refused() {
        assert!(serde_json::from_str::<Money>("9007199254740991").is_ok());
        let error = serde_json::from_str::<Money>("9007199254740992").unwrap_err().to_string();
        assert!(error.starts_with("9007199254740992 is out of range"), "{error}");
    }
}
