//! An account: events, commands, refusals and the state between them.

use std::str::FromStr;
use std::{fmt, iter};

use es_core::{Aggregate, AggregateKey, Apply, Command, Context, Event, Handle, InvalidId, Shape};
use serde::{Deserialize, Serialize};

use super::money::Money;

/// The reference of what is withdrawn as a fee.
const FEE: &str = "fee";

/// What may happen to an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub(crate) enum AccountEvent {
    #[event(name = "opened")]
    Opened {
        owner: String,
        overdraft_limit: Money,
        /// Events of before there were branches have none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
    },
    #[event(name = "deposited")]
    Deposited {
        amount: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
        #[cfg(next_release)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    #[event(name = "withdrawn")]
    Withdrawn {
        amount: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reference: Option<String>,
    },
    #[event(name = "closed")]
    Closed,
}

/// What may be asked of an account.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
pub(crate) enum AccountCommand {
    /// Changes nothing, and is remembered like every command. Sent to an account that is made of a key, it says what
    /// the key was used for: who uses it again to open another account is told so.
    Reserve {
        id: String,
        owner: String,
        overdraft_limit: Money,
    },
    Open {
        owner: String,
        overdraft_limit: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
    },
    Deposit {
        amount: Money,
        reference: Option<String>,
        #[cfg(next_release)]
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    Withdraw {
        amount: Money,
        reference: Option<String>,
        /// Taken with it or not at all, and recorded as a withdrawal of its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fee: Option<Money>,
    },
    Close,
}

/// Why an account refuses.
#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum AccountError {
    #[error("the account is there already")]
    AlreadyOpen,
    #[error("there is no such account")]
    NotFound,
    #[error("the account is closed")]
    Closed,
    #[error("the amount is {amount}, it must be above 0")]
    AmountNotPositive { amount: Money },
    #[error("the overdraft limit is {limit}, it can't be below 0")]
    OverdraftNegative { limit: Money },
    #[error("the balance is {balance} and may go down to -{overdraft_limit}, {} more than that", asked(.amount, .fee))]
    InsufficientFunds {
        balance: Money,
        overdraft_limit: Money,
        amount: Money,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fee: Option<Money>,
    },
    #[error("the balance is {balance}, with {amount} more it would be too large to be kept")]
    BalanceTooLarge { balance: Money, amount: Money },
    #[error("the balance is {balance}, it must be 0")]
    BalanceNotZero { balance: Money },
}

fn asked(amount: &Money, fee: &Option<Money>) -> String {
    match fee {
        None => format!("{amount} is"),
        Some(fee) => format!("{amount} and a fee of {fee} are"),
    }
}

/// Where an account is in its life.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Shape)]
pub(crate) enum Status {
    /// Not opened yet.
    #[default]
    Absent,
    Open,
    Closed,
}

/// An account as far as decisions need it: who owns it, for example, decides nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "bank", name = "account", id = AccountId, command = AccountCommand, event = AccountEvent, error = AccountError)]
pub(crate) struct Account {
    pub(crate) status: Status,
    pub(crate) balance: Money,
    pub(crate) overdraft_limit: Money,
}

impl Handle for Account {
    fn handle(&self, command: AccountCommand, _: &Context) -> Result<Vec<AccountEvent>, AccountError> {
        self.decide(command)
    }
}

impl Account {
    pub(super) fn decide(&self, command: AccountCommand) -> Result<Vec<AccountEvent>, AccountError> {
        let event = match command {
            AccountCommand::Reserve { .. } => return Ok(Vec::new()),
            AccountCommand::Open { owner, overdraft_limit, branch } => {
                if self.status != Status::Absent {
                    return Err(AccountError::AlreadyOpen);
                }
                if overdraft_limit < Money::ZERO {
                    return Err(AccountError::OverdraftNegative { limit: overdraft_limit });
                }
                AccountEvent::Opened { owner, overdraft_limit, branch }
            }
            AccountCommand::Deposit {
                amount,
                reference,
                #[cfg(next_release)]
                note,
            } => {
                self.must_be_open()?;
                positive(amount)?;
                if self.balance.plus(amount).is_none() {
                    return Err(AccountError::BalanceTooLarge { balance: self.balance, amount });
                }
                AccountEvent::Deposited {
                    amount,
                    reference,
                    #[cfg(next_release)]
                    note,
                }
            }
            AccountCommand::Withdraw { amount, reference, fee } => {
                self.must_be_open()?;
                positive(amount)?;
                fee.map_or(Ok(()), positive)?;
                let (balance, overdraft_limit) = (self.balance, self.overdraft_limit);
                // -(2^53 - 1) is also where money ends, so a difference that does not fit is never allowed.
                let rest = balance.minus(amount).and_then(|rest| rest.minus(fee.unwrap_or_default()));
                if rest.is_none_or(|rest| rest.get() < -overdraft_limit.get()) {
                    return Err(AccountError::InsufficientFunds { balance, overdraft_limit, amount, fee });
                }
                let withdrawn = AccountEvent::Withdrawn { amount, reference };
                let fee = fee.map(|amount| AccountEvent::Withdrawn { amount, reference: Some(FEE.into()) });
                return Ok(iter::once(withdrawn).chain(fee).collect());
            }
            AccountCommand::Close => {
                self.must_be_open()?;
                if self.balance != Money::ZERO {
                    return Err(AccountError::BalanceNotZero { balance: self.balance });
                }
                AccountEvent::Closed
            }
        };
        Ok(vec![event])
    }

    fn must_be_open(&self) -> Result<(), AccountError> {
        match self.status {
            Status::Absent => Err(AccountError::NotFound),
            Status::Open => Ok(()),
            Status::Closed => Err(AccountError::Closed),
        }
    }
}

fn positive(amount: Money) -> Result<(), AccountError> {
    if amount.is_positive() { Ok(()) } else { Err(AccountError::AmountNotPositive { amount }) }
}

impl AccountEvent {
    /// By how many minor units it changes the balance.
    pub(crate) fn balance_change(&self) -> i64 {
        match self {
            Self::Deposited { amount, .. } => amount.get(),
            Self::Withdrawn { amount, .. } => -amount.get(),
            Self::Opened { .. } | Self::Closed => 0,
        }
    }
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent) {
        const DECIDED: &str = "a recorded amount was checked against the balance when it was decided";
        match event {
            AccountEvent::Opened { overdraft_limit, .. } => {
                self.status = Status::Open;
                self.overdraft_limit = *overdraft_limit;
            }
            AccountEvent::Deposited { amount, .. } => self.balance = self.balance.plus(*amount).expect(DECIDED),
            AccountEvent::Withdrawn { amount, .. } => self.balance = self.balance.minus(*amount).expect(DECIDED),
            AccountEvent::Closed => self.status = Status::Closed,
        }
    }
}

impl Status {
    /// The word for it in tables and answers.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text is no status.
#[derive(Debug, Clone, thiserror::Error)]
#[error("it is none of absent, open and closed")]
pub(crate) struct UnknownStatus;

impl FromStr for Status {
    type Err = UnknownStatus;
    fn from_str(text: &str) -> Result<Self, UnknownStatus> {
        let all = [Self::Absent, Self::Open, Self::Closed];
        all.into_iter().find(|status| status.as_str() == text).ok_or(UnknownStatus)
    }
}

/// An account's id: any text of 1 to 200 bytes without control characters that does not begin with `!` and is
/// not `.` or `..`, which browsers take out of a URL however they are written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct AccountId(AggregateKey);

/// Why a text is no account id.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum InvalidAccountId {
    #[error("{0}")]
    Text(InvalidId),
    #[error("an account id can't begin with !, which is kept for the log's own records")]
    Reserved,
    #[error("an account id can't be . or .., which no browser leaves in a URL")]
    Dots,
}

impl AccountId {
    pub(crate) fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// As events and read models have it.
    pub(crate) fn key(&self) -> &AggregateKey {
        &self.0
    }
}

impl FromStr for AccountId {
    type Err = InvalidAccountId;
    fn from_str(text: &str) -> Result<Self, InvalidAccountId> {
        if text.starts_with('!') {
            return Err(InvalidAccountId::Reserved);
        }
        if matches!(text, "." | "..") {
            return Err(InvalidAccountId::Dots);
        }
        AggregateKey::new(text).map(Self).map_err(InvalidAccountId::Text)
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
