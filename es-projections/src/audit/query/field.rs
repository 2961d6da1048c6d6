//! Filters on what stands in a payload.

use std::str::FromStr;

use serde::Serialize;
use serde_json::{Number, Value};

use crate::error::Error;

/// A field of a JSON payload, and the value that it must have.
///
/// As text it is `path=value`, the names of nested fields joined by dots: `amount=500`, `customer.name=Ada`. What reads as
/// a JSON number, `true`, `false`, `null` or a text in quotes is that; all else is text as it stands.
///
/// ```
/// use es_projections::audit::PayloadField;
///
/// let amount: PayloadField = "amount=500".parse()?;
/// assert_eq!(amount, PayloadField::new(["amount"], 500)?);
/// // The quotes make it a text; without them it would be a number.
/// let reference: PayloadField = r#"transfer.reference="500""#.parse()?;
/// assert_eq!(reference, PayloadField::new(["transfer", "reference"], "500")?);
/// # Ok::<(), es_projections::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PayloadField {
    path: Vec<String>,
    value: Value,
}

impl PayloadField {
    /// The field that is reached by these names, one inside the other, equals `value`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no name, or the value is an array or an object.
    pub fn new<S: Into<String>>(path: impl IntoIterator<Item = S>, value: impl Into<Value>) -> Result<Self, Error> {
        let (path, value): (Vec<String>, _) = (path.into_iter().map(Into::into).collect(), value.into());
        if path.is_empty() || path.iter().any(String::is_empty) {
            return Err(Error::invalid(format!("payload field {:?} has an empty name", path.join("."))));
        }
        if value.is_array() || value.is_object() {
            let path = path.join(".");
            return Err(Error::invalid(format!(
                "payload field {path:?} is compared with {value}: give a text, a number, true, false or null"
            )));
        }
        Ok(Self { path, value })
    }

    /// Whether a payload has such a field. An array is not looked into.
    pub(super) fn is_in(&self, payload: &Value) -> bool {
        let found = self.path.iter().try_fold(payload, |value, name| value.as_object()?.get(name));
        found.is_some_and(|found| equal(found, &self.value))
    }
}

impl FromStr for PayloadField {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (path, value) = text
            .split_once('=')
            .ok_or_else(|| Error::invalid(format!("payload field {text:?} has no value: write path=value")))?;
        Self::new(path.split('.'), serde_json::from_str(value).unwrap_or_else(|_| Value::from(value)))
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => equal_numbers(one, other),
        _ => one == other,
    }
}

/// `5` is `5.0`; integers are compared as such, since large ones are not all different as floating-point numbers.
fn equal_numbers(one: &Number, other: &Number) -> bool {
    if one.is_f64() || other.is_f64() { one.as_f64() == other.as_f64() } else { one == other }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_in(field: &str, payload: &Value) -> bool {
        field.parse::<PayloadField>().unwrap().is_in(payload)
    }

    #[test]
    fn a_field_is_found_by_its_path_and_compared_by_its_kind() {
        let payload =
            json!({ "n": 5, "f": 2.0, "t": "5", "b": true, "x": null, "a": [1], "o": { "p": { "q": "a=b" } } });
        for field in ["n=5", "n=5.0", "f=2", "t=\"5\"", "b=true", "x=null", "o.p.q=a=b"] {
            assert!(is_in(field, &payload), "{field}");
        }
        for field in ["n=\"5\"", "n=6", "t=5", "b=1", "y=null", "a=1", "a.0=1", "o=p", "o.p=q", "n.m=5", "q=a=b"] {
            assert!(!is_in(field, &payload), "{field}");
        }
        let large = json!({ "n": 9_007_199_254_740_993_u64 });
        assert!(is_in("n=9007199254740993", &large) && !is_in("n=9007199254740992", &large));
        assert!(!is_in("n=1", &json!([1])) && !is_in("n=1", &json!(1)));
    }

    #[test]
    fn what_is_no_filter_is_refused_with_the_remedy() {
        for (text, reason) in [
            ("amount", "write path=value"),
            ("=5", "has an empty name"),
            ("a..b=5", "has an empty name"),
            ("a=[1]", "give a text, a number, true, false or null"),
            ("a={\"b\":1}", "is compared with {\"b\":1}"),
        ] {
            let error = text.parse::<PayloadField>().unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
