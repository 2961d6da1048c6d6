//! For tests: of domain code, of this crate, of what is built on it, and of other logs. Behind the feature `testing`.

mod given;
pub mod log_contract;

pub use given::{Given, Outcome, given, given_nothing};
