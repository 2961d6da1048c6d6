//! For tests: of this crate, of what is built on it, and of other logs. Behind the feature `testing`.

pub mod log_contract;
