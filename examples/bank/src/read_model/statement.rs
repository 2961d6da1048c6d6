//! What moved on each account, and the sums of each day.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use es_core::{AggregateKey, Recorded, Version};
use es_projections::{Fold, ProjectionError, ReadModel, Rows};

use super::column::storable;
use crate::domain::{Account, AccountEvent, Money};

/// A line of an account's statement: one of its events.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "statements")]
pub(crate) struct StatementLine {
    #[key]
    pub(crate) account: AggregateKey,
    #[key]
    pub(crate) version: Version,
    /// The business time.
    pub(crate) occurred_at: DateTime<Utc>,
    /// By how much the balance changed.
    pub(crate) amount: Money,
    pub(crate) event_type: Arc<str>,
    pub(crate) reference: Option<String>,
}

/// What went in and out of an account on a day of business time, in UTC.
///
/// The balance at the end of a day is the sum of the changes up to it, rather than a column: events may come with any
/// business time, and one of last year would change every row since.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "daily")]
pub(crate) struct DailyBalance {
    #[key]
    pub(crate) account: AggregateKey,
    #[key]
    pub(crate) day: NaiveDate,
    pub(crate) money_in: i64,
    pub(crate) money_out: i64,
    pub(crate) change: i64,
}

impl Fold<Account> for StatementLine {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let envelope = &recorded.envelope;
        let account = &envelope.stream.id;
        if event.balance_change() != 0 {
            DailyBalance::fold(event, account, envelope.occurred_at.date_naive(), rows)?;
        }
        let reference = match event {
            AccountEvent::Deposited { reference, .. } | AccountEvent::Withdrawn { reference, .. } => reference,
            AccountEvent::Opened { .. } | AccountEvent::Closed => &None,
        };
        rows.insert(Self {
            account: account.clone(),
            version: envelope.version,
            occurred_at: envelope.occurred_at,
            amount: Money::new(event.balance_change())?,
            event_type: envelope.event_type.clone(),
            reference: reference.as_deref().map(storable),
        })
    }
}

impl DailyBalance {
    fn fold(
        event: &AccountEvent,
        account: &AggregateKey,
        day: NaiveDate,
        rows: &mut Rows,
    ) -> Result<(), ProjectionError> {
        let mut fits = true;
        let new = || Self { account: account.clone(), day, money_in: 0, money_out: 0, change: 0 };
        rows.change_or_insert::<Self>(&(account.clone(), day), new, |daily| {
            let after = daily.clone().after(event.balance_change());
            fits = after.is_some();
            *daily = after.unwrap_or_else(|| daily.clone());
        })?;
        // A balance has bounds, but money may go in and out as often as it likes.
        if fits { Ok(()) } else { Err(format!("what moved on {day} is out of the range of 64 bits").into()) }
    }

    fn after(mut self, change: i64) -> Option<Self> {
        self.money_in = self.money_in.checked_add(change.max(0))?;
        self.money_out = self.money_out.checked_add((-change).max(0))?;
        self.change = self.change.checked_add(change)?;
        Some(self)
    }
}
