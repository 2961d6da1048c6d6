//! Types that the examples in the docs share.

pub use crate::{Aggregate, Apply, Command, Context, Event, Handle};
#[cfg(feature = "engine")]
pub use crate::{Bus, Engine};
use serde::{Deserialize, Serialize};

/// What may happen to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub enum AccountEvent {
    /// Money came in.
    #[event(name = "deposited")]
    Deposited {
        /// In minor units.
        amount: u64,
    },
    /// Money went out.
    #[event(name = "withdrawn")]
    Withdrawn {
        /// In minor units.
        amount: u64,
    },
}

/// What may be asked of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
pub enum AccountCommand {
    /// Put money in; nothing happens for 0.
    Deposit {
        /// In minor units.
        amount: u64,
    },
    /// Take money out.
    Withdraw {
        /// In minor units.
        amount: u64,
    },
}

/// Why an account refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub enum AccountError {
    /// There is less than was asked for.
    #[error("the balance is {balance}")]
    InsufficientFunds {
        /// In minor units.
        balance: u64,
    },
}

/// An account.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = String, command = AccountCommand, event = AccountEvent, error = AccountError)]
pub struct Account {
    /// In minor units.
    pub balance: u64,
}

impl Handle for Account {
    fn handle(&self, command: AccountCommand, _: &Context) -> Result<Vec<AccountEvent>, AccountError> {
        match command {
            AccountCommand::Deposit { amount: 0 } => Ok(vec![]),
            AccountCommand::Deposit { amount } => Ok(vec![AccountEvent::Deposited { amount }]),
            AccountCommand::Withdraw { amount } if amount <= self.balance => {
                Ok(vec![AccountEvent::Withdrawn { amount }])
            }
            AccountCommand::Withdraw { .. } => Err(AccountError::InsufficientFunds { balance: self.balance }),
        }
    }
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent) {
        match event {
            AccountEvent::Deposited { amount } => self.balance += amount,
            AccountEvent::Withdrawn { amount } => self.balance -= amount,
        }
    }
}
