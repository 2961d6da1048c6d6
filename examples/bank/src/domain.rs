//! What a bank is: pure code, without a log, a database or a clock in sight.

mod account;
#[cfg(test)]
mod account_tests;
mod money;

pub(crate) use account::{Account, AccountCommand, AccountError, AccountEvent, AccountId, Status};
pub(crate) use money::Money;
