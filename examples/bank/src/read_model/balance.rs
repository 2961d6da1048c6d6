//! The balances at a business time.

use es_core::{AggregateKey, Recorded, Version};
use es_projections::{Fold, ProjectionError, ReadModel, Rows};

use crate::domain::{Account, AccountEvent};

/// The sum of what happened to an account until a business time.
///
/// Less than an [`AccountRow`](super::AccountRow), which needs each version: of events in the order in which they were
/// recorded, those until a business time may leave out any but the opening, without which the account was not there yet.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "balances")]
pub(crate) struct BalanceRow {
    #[key]
    pub(crate) account: AggregateKey,
    pub(crate) balance: i64,
    /// That of the last event among them.
    pub(crate) last: Version,
    /// How many they are.
    pub(crate) events: u64,
}

impl BalanceRow {
    /// The version that left the account so; none where events before the last one took place later.
    pub(crate) fn version(&self) -> Option<Version> {
        (self.events == self.last.get()).then_some(self.last)
    }
}

impl Fold<Account> for BalanceRow {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let envelope = &recorded.envelope;
        let account = &envelope.stream.id;
        let mut sum = Some(0);
        let new = || Self { account: account.clone(), balance: 0, last: Version::EMPTY, events: 0 };
        rows.change_or_insert::<Self>(account, new, |row| {
            sum = row.balance.checked_add(event.balance_change());
            row.balance = sum.unwrap_or_default();
            row.last = envelope.version;
            row.events += 1;
        })?;
        sum.map(drop).ok_or_else(|| format!("what account {account} holds is out of the range of 64 bits").into())
    }
}
