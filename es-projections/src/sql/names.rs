//! Names in the database: which are allowed, and how a statement has them.

use crate::error::Error;

/// The longest name that begins those of tables.
pub(super) const NAMESPACE_MAX: usize = 16;

/// A name in double quotes.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Checks the name that begins those of tables. It has no underscore, as one ends it there: else `bank_eu_balances` could be the
/// table of two.
pub(crate) fn check_namespace(name: &str) -> Result<(), Error> {
    check_name("namespace", name, NAMESPACE_MAX)?;
    if name.contains('_') {
        let other = name.replace('_', "");
        let why = "an underscore would make its tables' names those of another namespace's tables";
        return Err(Error::invalid(format!("namespace {name:?} is not a valid name: {why}; name it {other:?}, say")));
    }
    Ok(())
}

/// Checks a name that becomes part of a statement.
pub(crate) fn check_name(what: &str, name: &str, max: usize) -> Result<(), Error> {
    let first = name.starts_with(|first: char| first.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if first && rest && name.len() <= max {
        return Ok(());
    }
    let rule = format!("it must be 1 to {max} lower-case letters, digits and underscores, a letter first");
    Err(Error::invalid(format!("{what} {name:?} is not a valid name: {rule}")))
}
