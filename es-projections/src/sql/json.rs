//! JSON as text that is compared.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use serde_json::value::RawValue;

/// The same JSON with the fields of each object in the order of their names. Numbers stay as they are written.
pub(crate) fn canonical(text: &str) -> Result<String, serde_json::Error> {
    let mut out = String::with_capacity(text.len());
    write(text, &mut out)?;
    Ok(out)
}

fn write(text: &str, out: &mut String) -> Result<(), serde_json::Error> {
    match text.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text)?;
            for (place, (name, value)) in fields.iter().enumerate() {
                out.push(if place == 0 { '{' } else { ',' });
                out.push_str(&serde_json::to_string(name)?);
                out.push(':');
                write(value.get(), out)?;
            }
            out.push_str(if fields.is_empty() { "{}" } else { "}" });
        }
        // A list without objects has nothing to be put in order.
        Some(b'[') if text.contains('{') => {
            let items: Vec<&RawValue> = serde_json::from_str(text)?;
            for (place, item) in items.iter().enumerate() {
                out.push(if place == 0 { '[' } else { ',' });
                write(item.get(), out)?;
            }
            out.push_str(if items.is_empty() { "[]" } else { "]" });
        }
        _ => out.push_str(text),
    }
    Ok(())
}

/// Whether both are the same, whatever order their lists are in: that of a `HashSet` is another one each time.
pub(crate) fn is_same_but_for_order(one: &str, other: &str) -> bool {
    let sorted = |text| serde_json::from_str(text).map(sorted).ok();
    one == other || sorted(one).zip(sorted(other)).is_some_and(|(one, other)| one == other)
}

fn sorted(json: Json) -> Json {
    match json {
        Json::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(sorted).collect();
            items.sort_by_cached_key(Json::to_string);
            Json::Array(items)
        }
        Json::Object(fields) => Json::Object(fields.into_iter().map(|(name, value)| (name, sorted(value))).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_sorted_at_every_depth_and_nothing_else_is_changed() {
        for (text, expected) in [
            (
                r#"{"b":1,"a":[{"d":1e400,"c":0.10},2,1],"é\"":{}}"#,
                r#"{"a":[{"c":0.10,"d":1e400},2,1],"b":1,"é\"":{}}"#,
            ),
            ("[]", "[]"),
            ("[3,1,2]", "[3,1,2]"),
            (r#"["{"]"#, r#"["{"]"#),
            ("null", "null"),
            (r#""{""#, r#""{""#),
        ] {
            assert_eq!(canonical(text).unwrap(), expected);
        }
        assert!(canonical("{").is_err());
        assert!(is_same_but_for_order(r#"{"a":[1,{"x":[2,3]}]}"#, r#"{"a":[{"x":[3,2]},1]}"#));
        assert!(!is_same_but_for_order("[1,1,2]", "[1,2,2]"));
    }
}
