//! For tests: of domain code, of this crate, of what is built on it, and of other logs. Behind the feature `testing`.

mod errors;
mod given;
pub mod log_contract;

pub use errors::errors_tell_their_cause;
pub use given::{Given, Outcome, given, given_nothing};
