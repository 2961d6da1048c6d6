//! The one way into users' code: a panic there fails what it was called for, and never a task.
//!
//! Users' code is `handle`, `apply`, `Default`, `Clone`, serde both ways, codecs, and `Display` of ids and errors. Not
//! guarded is `Drop`, which must not panic.

use std::any::Any;
use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::domain::text::short;

/// Users' code panicked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Panicked {
    what: &'static str,
    /// What the panic said, shortened.
    pub(crate) text: String,
}

impl Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked: {}", self.what, self.text)
    }
}

/// Calls users' code. What a panic leaves may be half of something: the caller drops it.
pub(crate) fn call<T>(what: &'static str, code: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| Panicked { what, text: panic_text(&*panic) })
}

/// Calls users' code that may fail; a panic is one more way to do so.
pub(crate) fn fallible<T, E: Display>(what: &'static str, code: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    // The error's `Display` is users' code too.
    call(what, || code().map_err(|error| error.to_string())).unwrap_or_else(|panic| Err(panic.to_string()))
}

/// What a panic said, shortened.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    short(text.unwrap_or("a panic without text")).into_owned()
}
