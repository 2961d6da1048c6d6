//! For tests: of domain code, of this crate, of what is built on it, and of other logs. Behind the feature `testing`.

#[cfg(feature = "engine")]
mod errors;
mod given;
#[cfg(feature = "engine")]
pub mod log_contract;

#[cfg(feature = "engine")]
pub use errors::errors_tell_their_cause;
pub use given::{Given, Outcome, given, given_nothing};
