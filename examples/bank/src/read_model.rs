//! What SQL sees of the accounts: structs, of which each is a row.
//!
//! Two projections, since each reads the log once: [`accounts`] with the accounts and what their branches hold, and
//! [`statements`] with every movement and the sums of each day. A third one, [`balances`], is only built as of a time.

mod account;
mod balance;
mod column;
mod statement;
#[cfg(test)]
mod tests;

use std::fmt;

use es_projections::{Model, Projection};

use crate::domain::Account;
pub(crate) use account::{AccountRow, BranchTotal, PastAccount, account};
pub(crate) use balance::BalanceRow;
pub(crate) use statement::{DailyBalance, StatementLine};

/// The read models that are kept up to date, as the command line calls them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    Accounts,
    Statements,
    Audit,
}

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self::Accounts, Self::Statements, Self::Audit];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::Statements => "statements",
            Self::Audit => "audit",
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Folds accounts into the tables `accounts` and `branches`.
pub(crate) fn accounts() -> impl Projection {
    Model::<AccountRow>::new().with_rows::<BranchTotal>().follow::<Account>()
}

/// Folds accounts into the tables `statements` and `daily`.
pub(crate) fn statements() -> impl Projection {
    Model::<StatementLine>::new().with_rows::<DailyBalance>().follow::<Account>()
}

/// Folds accounts into the table `balances`, for a business time.
pub(crate) fn balances() -> impl Projection {
    Model::<BalanceRow>::new().follow::<Account>()
}
