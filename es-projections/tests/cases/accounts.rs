//! A derived read model with a row per account and one per day, and events that it can't fold in.

use std::sync::atomic::{AtomicBool, Ordering};

use chrono::NaiveDate;
use es_core::doc::{Account, AccountEvent};
use es_core::{Position, Recorded};
use es_projections::{Database, Fold, Model, ProjectionError, ReadModel, Rows};

use super::support::Events;

/// An account; deleted when its balance is 0.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "accounts", index(by_balance = [balance]))]
pub struct AccountRow {
    #[key]
    pub id: String,
    pub balance: i64,
    pub events: u32,
    /// The bank that the account's first deposit tells.
    pub bank: String,
}

/// What banks hold, each day.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "banks")]
pub struct BankRow {
    #[key]
    pub bank: String,
    #[key]
    pub day: NaiveDate,
    pub change: i64,
}

/// Amounts that stand for what goes wrong.
pub const FAILS: u64 = 13;
pub const PANICS: u64 = 666;
pub const IS_THERE_ALREADY: u64 = 777;

/// Fails, too; used by one test, which heals it.
pub const FAILS_UNLESS_HEALED: u64 = 14;
pub static HEALED: AtomicBool = AtomicBool::new(false);

pub fn model() -> Model<AccountRow> {
    Model::new().with_rows::<BankRow>().follow::<Account>()
}

impl Fold<Account> for AccountRow {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = recorded.envelope.stream.id.to_string();
        let change = match *event {
            AccountEvent::Deposited { amount } => amount as i64,
            AccountEvent::Withdrawn { amount } => -(amount as i64),
        };
        match change as u64 {
            FAILS => return Err("thirteen".into()),
            FAILS_UNLESS_HEALED if !HEALED.load(Ordering::Relaxed) => return Err("fourteen".into()),
            PANICS => panic!("the number of the beast"),
            IS_THERE_ALREADY => return rows.insert(Self { id, balance: 0, events: 0, bank: String::new() }),
            _ => {}
        }
        let bank = match rows.get::<Self>(&id)? {
            Some(row) => row.bank.clone(),
            // What an event does not tell, an earlier one did: the first amount names the bank.
            None => format!("bank {}", change % 3),
        };
        let new = || Self { id: id.clone(), balance: 0, events: 0, bank: bank.clone() };
        rows.change_or_insert(&id, new, |row| {
            row.balance += change;
            row.events += 1;
        })?;
        let key = (bank, recorded.envelope.occurred_at.date_naive());
        let new = || BankRow { bank: key.0.clone(), day: key.1, change: 0 };
        rows.change_or_insert(&key, new, |row| row.change += change)?;
        if rows.get::<Self>(&id)?.is_some_and(|row| row.balance == 0) {
            rows.delete::<Self>(&id)?;
        }
        Ok(())
    }
}

impl Events {
    /// Appends a deposit, or a withdrawal.
    pub fn move_money(&mut self, id: &str, amount: i64) -> Position {
        self.move_money_on(id, amount, 0)
    }

    /// The same with a business time so many days from now.
    pub fn move_money_on(&mut self, id: &str, amount: i64, days: i64) -> Position {
        let event_type = if amount < 0 { "withdrawn" } else { "deposited" };
        let payload = format!(r#"{{"amount":{}}}"#, amount.abs()).into();
        let event = self.event(id, event_type, payload, |event| event.occurred_at += chrono::TimeDelta::days(days));
        self.add_event(&event)
    }

    /// Appends an event that no program knows.
    pub fn rubbish(&mut self, id: &str, event_type: &str, payload: &'static str) -> Position {
        let event = self.event(id, event_type, payload.into(), |_| {});
        self.add_event(&event)
    }
}

/// The accounts as `a 5/2, b 7/1`.
pub async fn shown(database: &Database) -> String {
    let rows = database.rows::<AccountRow>("ORDER BY id", &[]).await.expect("the table is there");
    rows.iter().map(|row| format!("{} {}/{}", row.id, row.balance, row.events)).collect::<Vec<_>>().join(", ")
}

/// All rows of both tables with what changed them last, as text.
pub async fn everything(database: &Database) -> Vec<String> {
    let mut all = Vec::new();
    for (table, key) in [("accounts", "id"), ("banks", "bank, day")] {
        let sql = format!("SELECT * FROM {} ORDER BY {key}", database.table_name(table));
        for row in database.fetch(&sql, &[]).await.expect("the table is there") {
            all.push(row.values().iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        }
    }
    all
}
