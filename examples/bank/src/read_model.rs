//! The accounts as SQL sees them.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{Apply, Recorded, Version};
use es_projections::{Database, Error, Kind, Projection, ProjectionError, Row, Table, Tx, Value};

use crate::domain::{Account, AccountEvent, Money, Status};

/// Folds accounts into the table `accounts`, a row each.
pub(crate) struct Accounts {
    table: Table,
}

/// A row of the table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AccountRow {
    pub(crate) id: String,
    pub(crate) owner: String,
    pub(crate) balance: Money,
    pub(crate) overdraft_limit: Money,
    pub(crate) status: String,
    pub(crate) version: Version,
    pub(crate) opened_at: DateTime<Utc>,
    pub(crate) changed_at: DateTime<Utc>,
}

impl Accounts {
    pub(crate) fn new() -> Self {
        // The order of the columns is that of `AccountRow::into_values`.
        let table = Table::new("accounts")
            .key("id", Kind::Text)
            .column("owner", Kind::Text)
            .column("balance", Kind::Integer)
            .column("overdraft_limit", Kind::Integer)
            .column("status", Kind::Text)
            .column("version", Kind::Integer)
            .column("opened_at", Kind::Time)
            .column("changed_at", Kind::Time);
        Self { table }
    }
}

#[async_trait]
impl Projection for Accounts {
    fn name(&self) -> &str {
        "accounts"
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.table.clone()]
    }

    /// Loads the rows of the whole batch at once, folds in memory and writes them back at once.
    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let mut rows: HashMap<&str, AccountRow> = HashMap::new();
        let keys = events.iter().map(|event| vec![event.envelope.stream.id.as_str().into()]).collect();
        let loaded = tx.load(&self.table, keys).await?;
        let loaded = loaded.iter().map(|row| AccountRow::from_row(row).map(|row| (row.id.clone(), row)));
        let mut loaded = loaded.collect::<Result<HashMap<String, AccountRow>, Error>>()?;
        for recorded in events {
            let id = recorded.envelope.stream.id.as_str();
            let row = match rows.entry(id) {
                Entry::Occupied(row) => row.into_mut(),
                Entry::Vacant(place) => place.insert(loaded.remove(id).unwrap_or_else(|| AccountRow::absent(id))),
            };
            row.fold(recorded)?;
        }
        tx.upsert(&self.table, rows.into_values().map(AccountRow::into_values).collect()).await?;
        Ok(())
    }
}

impl AccountRow {
    fn absent(id: &str) -> Self {
        Self {
            id: id.into(),
            owner: String::new(),
            balance: Money::ZERO,
            overdraft_limit: Money::ZERO,
            status: Status::Absent.as_str().into(),
            version: Version::EMPTY,
            opened_at: DateTime::UNIX_EPOCH,
            changed_at: DateTime::UNIX_EPOCH,
        }
    }

    fn fold(&mut self, recorded: &Recorded) -> Result<(), ProjectionError> {
        let envelope = &recorded.envelope;
        if envelope.version != self.version.next() {
            let place = format!("partition {} offset {}", recorded.partition, recorded.offset);
            let (stream, found, next) = (&envelope.stream, envelope.version, self.version.next());
            return Err(format!("{stream} has version {found} at {place}, the next is {next}").into());
        }
        let event = envelope.event::<Account>()?;
        let mut account =
            Account { status: Status::Open, balance: self.balance, overdraft_limit: self.overdraft_limit };
        account.apply(&event);
        if let AccountEvent::Opened { owner, .. } = event {
            // PostgreSQL's text can't hold a zero character; what was recorded keeps it.
            self.owner = owner.replace('\0', "\u{fffd}");
            self.opened_at = envelope.occurred_at;
        }
        (self.balance, self.overdraft_limit) = (account.balance, account.overdraft_limit);
        self.status = account.status.as_str().into();
        self.version = envelope.version;
        self.changed_at = envelope.recorded_at;
        Ok(())
    }

    fn into_values(self) -> Vec<Value> {
        vec![
            self.id.into(),
            self.owner.into(),
            self.balance.get().into(),
            self.overdraft_limit.get().into(),
            self.status.into(),
            self.version.into(),
            self.opened_at.into(),
            self.changed_at.into(),
        ]
    }

    fn from_row(row: &Row) -> Result<Self, Error> {
        let money = |column| Money::new(row.get(column)?).map_err(|error| Error::Invalid(format!("{column} {error}")));
        Ok(Self {
            id: row.get("id")?,
            owner: row.get("owner")?,
            balance: money("balance")?,
            overdraft_limit: money("overdraft_limit")?,
            status: row.get("status")?,
            version: Version::new(row.get("version")?),
            opened_at: row.get("opened_at")?,
            changed_at: row.get("changed_at")?,
        })
    }
}

/// The account with this id, if it was opened.
pub(crate) async fn account(database: &Database, id: &str) -> Result<Option<AccountRow>, Error> {
    let sql = format!("SELECT * FROM {} WHERE id = ?", database.table_name("accounts"));
    database.fetch(&sql, &[id.into()]).await?.first().map(AccountRow::from_row).transpose()
}

/// At most `limit` accounts in the order of their ids, from behind `after` on.
pub(crate) async fn accounts(database: &Database, after: Option<&str>, limit: u32) -> Result<Vec<AccountRow>, Error> {
    let table = database.table_name("accounts");
    // No id is empty, so that all are behind the empty text.
    let sql = format!("SELECT * FROM {table} WHERE id > ? ORDER BY id LIMIT ?");
    let rows = database.fetch(&sql, &[after.unwrap_or_default().into(), limit.into()]).await?;
    rows.iter().map(AccountRow::from_row).collect()
}
