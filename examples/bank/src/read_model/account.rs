//! The accounts as they are, and what each branch holds.

use chrono::{DateTime, Utc};
use es_core::{Aggregate, AggregateKey, Apply, Recorded, StreamId, Version};
use es_projections::audit::PastState;
use es_projections::{Database, Error, Fold, ProjectionError, ReadModel, Rows};
use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::column::storable;
use crate::domain::{Account, AccountEvent, Money, Status};

/// An account.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, ReadModel)]
#[read_model(name = "accounts", version = 2)]
pub(crate) struct AccountRow {
    #[key]
    pub(crate) id: AggregateKey,
    pub(crate) owner: String,
    pub(crate) balance: Money,
    pub(crate) overdraft_limit: Money,
    #[column(text)]
    pub(crate) status: Status,
    pub(crate) version: Version,
    pub(crate) opened_at: DateTime<Utc>,
    pub(crate) changed_at: DateTime<Utc>,
    pub(crate) branch: Option<String>,
}

/// What the open accounts of a branch hold together. Accounts without a branch are in none.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "branches")]
pub(crate) struct BranchTotal {
    #[key]
    pub(crate) branch: String,
    pub(crate) accounts: i64,
    pub(crate) balance: i64,
}

impl Fold<Account> for AccountRow {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = &recorded.envelope.stream.id;
        let branch = if let AccountEvent::Opened { .. } = event {
            let row = Self::absent(id).after(event, recorded)?;
            let branch = row.branch.clone();
            rows.insert(row)?;
            branch
        } else {
            // Only its own row says in which branch an account is.
            let row = rows.get::<Self>(id)?.ok_or_else(|| format!("account {id} was not opened"))?;
            let (branch, after) = (row.branch.clone(), row.clone().after(event, recorded)?);
            rows.change::<Self>(id, |row| *row = after)?;
            branch
        };
        branch.map_or(Ok(()), |branch| BranchTotal::fold(event, branch, rows))
    }
}

impl AccountRow {
    fn absent(id: &AggregateKey) -> Self {
        Self {
            id: id.clone(),
            owner: String::new(),
            balance: Money::ZERO,
            overdraft_limit: Money::ZERO,
            status: Status::Absent,
            version: Version::EMPTY,
            opened_at: DateTime::UNIX_EPOCH,
            changed_at: DateTime::UNIX_EPOCH,
            branch: None,
        }
    }

    /// What comes of the row, which is that of the version before.
    fn after(mut self, event: &AccountEvent, recorded: &Recorded) -> Result<Self, ProjectionError> {
        let envelope = &recorded.envelope;
        if envelope.version != self.version.next() {
            let place = format!("partition {} offset {}", recorded.partition, recorded.offset);
            let (stream, found, next) = (&envelope.stream, envelope.version, self.version.next());
            return Err(format!("{stream} has version {found} at {place}, the next is {next}").into());
        }
        self.fold_in(event, recorded);
        Ok(self)
    }

    /// Changes the row by the domain's own fold.
    fn fold_in(&mut self, event: &AccountEvent, recorded: &Recorded) {
        let envelope = &recorded.envelope;
        let mut account = Account { status: self.status, balance: self.balance, overdraft_limit: self.overdraft_limit };
        account.apply(event);
        if let AccountEvent::Opened { owner, branch, .. } = event {
            self.owner = storable(owner);
            self.branch = branch.as_deref().map(storable);
            self.opened_at = envelope.occurred_at;
        }
        (self.status, self.balance, self.overdraft_limit) = (account.status, account.balance, account.overdraft_limit);
        self.version = envelope.version;
        self.changed_at = envelope.recorded_at;
    }
}

/// An account in its past: its row, as it was.
#[derive(Debug)]
pub(crate) struct PastAccount(pub(crate) AccountRow);

impl PastState for PastAccount {
    const CATEGORY: &'static str = Account::NAME;

    fn form() -> String {
        // Raised when the fields of a row change, or what events do to it.
        format!("account row {} 1", AccountRow::VERSION)
    }

    fn before(stream: &StreamId) -> Self {
        Self(AccountRow::absent(&stream.id))
    }

    fn fold(&mut self, recorded: &Recorded) -> Result<(), ProjectionError> {
        let event = recorded.envelope.event::<Account>()?;
        self.0.fold_in(&event, recorded);
        Ok(())
    }

    fn keep(&self) -> Result<serde_json::Value, serde_json::Error> {
        serde_json::to_value(&self.0)
    }

    fn restore(_: &StreamId, kept: serde_json::Value) -> Result<Self, serde_json::Error> {
        serde_json::from_value(kept).map(Self)
    }
}

/// What may change.
impl Serialize for PastAccount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let AccountRow { owner, balance, overdraft_limit, status, branch, .. } = &self.0;
        let mut fields = serializer.serialize_struct("PastAccount", 5)?;
        fields.serialize_field("owner", owner)?;
        fields.serialize_field("balance", balance)?;
        fields.serialize_field("overdraft_limit", overdraft_limit)?;
        fields.serialize_field("status", status.as_str())?;
        match branch {
            Some(branch) => fields.serialize_field("branch", branch)?,
            None => fields.skip_field("branch")?,
        }
        fields.end()
    }
}

impl BranchTotal {
    fn fold(event: &AccountEvent, branch: String, rows: &mut Rows) -> Result<(), ProjectionError> {
        let accounts = match event {
            AccountEvent::Opened { .. } => 1,
            AccountEvent::Closed => -1,
            AccountEvent::Deposited { .. } | AccountEvent::Withdrawn { .. } => 0,
        };
        let mut sum = Some(0);
        let new = || Self { branch: branch.clone(), accounts: 0, balance: 0 };
        rows.change_or_insert::<Self>(&branch, new, |total| {
            total.accounts += accounts;
            sum = total.balance.checked_add(event.balance_change());
            total.balance = sum.unwrap_or_default();
        })?;
        sum.map(drop).ok_or_else(|| format!("what branch {branch} holds is out of the range of 64 bits").into())
    }
}

/// The account with this id, if it was opened.
pub(crate) async fn account(database: &Database, id: &AggregateKey) -> Result<Option<AccountRow>, Error> {
    database.row(id).await
}
