//! The balances at a business time.

use es_core::{AggregateKey, Recorded, Version};
use es_projections::{Database, Error, Fold, ProjectionError, ReadModel, Rows};

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
    pub(crate) version: Version,
}

impl Fold<Account> for BalanceRow {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let envelope = &recorded.envelope;
        let account = &envelope.stream.id;
        let mut sum = Some(0);
        let new = || Self { account: account.clone(), balance: 0, version: Version::EMPTY };
        rows.change_or_insert::<Self>(account, new, |row| {
            sum = row.balance.checked_add(event.balance_change());
            row.balance = sum.unwrap_or_default();
            row.version = envelope.version;
        })?;
        sum.map(drop).ok_or_else(|| format!("what account {account} holds is out of the range of 64 bits").into())
    }
}

/// At most `limit` balances in the order of the accounts' ids, from behind `after` on.
pub(crate) async fn balances_after(
    database: &Database,
    after: Option<&AggregateKey>,
    limit: u32,
) -> Result<Vec<BalanceRow>, Error> {
    let args = [after.map_or("", AggregateKey::as_str).into(), limit.into()];
    database.rows("WHERE account > ? ORDER BY account LIMIT ?", &args).await
}
