//! Rows that are structs: the events say which are touched, and how.

use chrono::{DateTime, NaiveDate, Utc};
use es_core::doc::{Account, AccountEvent};
use es_core::{AggregateKey, Recorded, Version};
use es_projections::{
    ColumnValue, Fold, Kind, Lineage, Model, ProjectionError, ReadModel, Row, Rows, Value, WorkerState,
};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::accounts::*;
use super::support::*;

/// Shows: which rows are loaded together, made, changed or deleted within one batch, changes nothing.
pub async fn rows_are_the_same_at_every_batch_size(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut held = [0_i64; 5];
    for _ in 0..200 {
        let account = rng.usize(..5);
        // Often back to nothing, so that rows are deleted and made anew.
        let amount = if held[account] > 0 && rng.bool() { -held[account] } else { rng.i64(1..9) };
        held[account] += amount;
        events.move_money_on(&format!("a{account}"), amount, rng.i64(0..3));
    }
    let mut first = None;
    for batch in [1, 2, 3, 7, 50, 1_000] {
        let worker = events.worker(&database).batch_max(batch).start(model()).await.unwrap();
        caught_up(&worker).await;
        worker.stop().await.unwrap();
        let found = everything(&database).await;
        assert!(found.len() > 5, "there are rows: {found:?}");
        assert_eq!(&found, first.get_or_insert_with(|| found.clone()), "in batches of {batch}");
        database.remove_projection("accounts").await.unwrap();
    }
    let rows = first.unwrap();
    let shown: Vec<_> = (0..5).filter(|&account| held[account] != 0).map(|account| format!("a{account}")).collect();
    let found: Vec<_> = rows.iter().filter(|row| row.starts_with('a')).map(|row| row[..2].to_owned()).collect();
    assert_eq!(found, shown);
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "wrong")]
struct Wrong {
    #[key]
    id: String,
}

impl Fold<Account> for Wrong {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = recorded.envelope.stream.id.to_string();
        let AccountEvent::Deposited { amount } = event else { return Ok(()) };
        match amount {
            1 => rows.change(&id, |_: &mut Self| {}),
            2 => rows.delete::<Self>(&id),
            3 => rows.insert(Self { id: id.clone() }).and_then(|()| rows.insert(Self { id })),
            4 => rows.change_or_insert(&id, || Self { id: id.clone() }, |row| row.id = "other".into()),
            _ => rows.insert(BankRow { bank: id, day: NaiveDate::MIN, change: 0 }),
        }
    }
}

pub async fn every_change_is_refused_that_can_not_be(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for (id, amount) in [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 5)] {
        events.move_money(id, amount);
    }
    let worker = events.worker(&database).park_after(0).start(Model::<Wrong>::new().follow::<Account>()).await.unwrap();
    caught_up(&worker).await;
    let mut reasons: Vec<_> = database.parked("wrong", 10).await.unwrap();
    reasons.sort_by(|one, other| one.aggregate_id.cmp(&other.aggregate_id));
    let reasons: Vec<_> = reasons.iter().map(|parked| parked.reason.as_str()).collect();
    assert_eq!(
        reasons,
        [
            r#"wrong has no row "a" to be changed"#,
            r#"wrong has no row "b" to be deleted"#,
            r#"wrong has a row "c" already"#,
            r#"the key of row "d" of wrong was changed to "other""#,
            "the model has no rows banks: give it `.with_rows()` of them",
        ]
    );
    assert_eq!(count(&database, "wrong").await, 0);
}

pub async fn a_row_tells_what_changed_it_last(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let worker = events.worker(&database).start(model()).await.unwrap();
    events.move_money("a", 5);
    events.move_money("b", 7);
    let last = events.move_money("a", 1);
    worker.wait_for(&last, SOON).await.unwrap();
    caught_up(&worker).await;
    let lineage: Lineage = database.lineage::<AccountRow>(&"a".into()).await.unwrap().unwrap();
    assert_eq!((lineage.version, lineage.position), (Version::new(2), last));
    let row = database.row::<AccountRow>(&"a".into()).await.unwrap().unwrap();
    assert_eq!(row, AccountRow { id: "a".into(), balance: 6, events: 2, bank: "bank 2".into() });
    assert_eq!(database.row::<AccountRow>(&"c".into()).await.unwrap(), None);
    let rich = database.rows::<AccountRow>("WHERE balance > ? ORDER BY id", &[6.into()]).await.unwrap();
    assert_eq!(rich.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, ColumnValue)]
struct Iban(String);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    street: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Color {
    Red,
    Green,
}

impl std::fmt::Display for Color {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if *self == Self::Red { "red" } else { "green" })
    }
}

impl std::str::FromStr for Color {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "red" => Ok(Self::Red),
            "green" => Ok(Self::Green),
            other => Err(format!("{other} is no color")),
        }
    }
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "typed", index(by_day = [day, color]))]
struct Typed {
    #[key]
    iban: Iban,
    #[key]
    day: NaiveDate,
    small: i16,
    large: u64,
    open: bool,
    price: Decimal,
    rate: Option<Decimal>,
    id: Uuid,
    account: AggregateKey,
    version: Version,
    at: DateTime<Utc>,
    bytes: Vec<u8>,
    #[column(json)]
    address: Address,
    #[column(json)]
    last_address: Option<Address>,
    #[column(text)]
    color: Color,
    #[column(text, name = "liked")]
    liked_color: Option<Color>,
    other: Option<Iban>,
    document: serde_json::Value,
}

impl Typed {
    fn of(iban: &str, some: bool) -> Self {
        let address = Address { street: "Žižkova 7".into() };
        Self {
            iban: Iban(iban.into()),
            day: NaiveDate::from_ymd_opt(1993, 1, 31).unwrap(),
            small: -7,
            large: i64::MAX as u64,
            open: some,
            price: "-12.50".parse().unwrap(),
            rate: some.then(|| "79228162514264337593543950335".parse().unwrap()),
            id: Uuid::from_u128(7),
            account: AggregateKey::new("42").unwrap(),
            version: Version::new(3),
            at: DateTime::from_timestamp_micros(1_700_000_000_123_456).unwrap(),
            bytes: vec![0, 255],
            address: address.clone(),
            last_address: some.then_some(address),
            color: Color::Red,
            liked_color: some.then_some(Color::Green),
            other: some.then(|| Iban("CZ".into())),
            document: serde_json::json!({ "a": [1, null, "x"] }),
        }
    }
}

impl Fold<Account> for Typed {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = recorded.envelope.stream.id.as_str();
        match event {
            AccountEvent::Deposited { amount } => rows.insert(Self::of(id, amount % 2 == 0)),
            // Loaded, changed and written back.
            AccountEvent::Withdrawn { .. } => {
                let row = Self::of(id, false);
                rows.change(&row.key(), |row: &mut Self| row.open = !row.open)
            }
        }
    }
}

pub async fn every_type_of_field_comes_back(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let model = || Model::<Typed>::new().follow::<Account>();
    let worker = events.worker(&database).start(model()).await.unwrap();
    events.move_money("some", 2);
    events.move_money("none", 1);
    caught_up(&worker).await;
    for (iban, some) in [("some", true), ("none", false)] {
        let row = Typed::of(iban, some);
        assert_eq!(database.row::<Typed>(&row.key()).await.unwrap(), Some(row), "{iban}");
        events.move_money(iban, -1);
    }
    caught_up(&worker).await;
    assert!(matches!(worker.state(), WorkerState::Running));
    for (iban, some) in [("some", true), ("none", false)] {
        let row = Typed { open: !some, ..Typed::of(iban, some) };
        assert_eq!(database.row::<Typed>(&row.key()).await.unwrap(), Some(row), "{iban}");
    }
    let day = [Value::Date(NaiveDate::from_ymd_opt(1993, 1, 31).unwrap())];
    assert_eq!(database.rows::<Typed>("WHERE day = ?", &day).await.unwrap().len(), 2);
    let kinds: Vec<_> = Typed::table().columns().iter().map(|column| column.kind).collect();
    assert!(kinds.contains(&Kind::Decimal) && kinds.contains(&Kind::Date));
    let too_large = Typed { large: u64::MAX, ..Typed::of("x", true) };
    let error = too_large.to_values().unwrap_err().to_string();
    assert_eq!(error, r#"table "typed", column "large": 18446744073709551615 is above 9223372036854775807"#);
    // A row that was written by hand.
    let mut tx = database.begin().await.unwrap();
    let sql = format!("UPDATE {} SET color = 'blue' WHERE iban = 'some'", tx.table_name("typed"));
    tx.execute(&sql, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let error = database.row::<Typed>(&Typed::of("some", true).key()).await.unwrap_err().to_string();
    assert_eq!(error, r#"column "color" holds "blue": blue is no color"#);
    let _: &Row;
}

/// A row as long as an account has money, made blindly.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "blind")]
struct Blind {
    #[key]
    id: String,
}

impl Fold<Account> for Blind {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let id = recorded.envelope.stream.id.to_string();
        match event {
            AccountEvent::Deposited { .. } => rows.insert(Self { id }),
            AccountEvent::Withdrawn { .. } => rows.delete::<Self>(&id),
        }
    }
}

/// Shows: a row that is there already is refused also where the same batch deletes it again.
pub async fn a_row_made_twice_is_refused_at_every_batch_size(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let first = events.move_money("a", 1);
    let model = || Model::<Blind>::new().follow::<Account>();
    for batch in [1, 10] {
        let worker = events.worker(&database).batch_max(batch).park_after(1).start(model()).await.unwrap();
        worker.wait_for(&first, SOON).await.unwrap();
        caught_up(&worker).await;
        worker.stop().await.unwrap();
        if batch == 1 {
            database.remove_projection("blind").await.unwrap();
        }
    }
    assert_eq!(count(&database, "blind").await, 1);
    // Made and deleted, and so often, is nothing; made once more is not.
    for amount in [-1, 1, -1, 1, 1, -1] {
        events.move_money("a", amount);
    }
    events.move_money("b", 1);
    events.move_money("b", -1);
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    caught_up(&worker).await;
    let parked = database.parked("blind", 10).await.unwrap();
    assert_eq!(
        parked.iter().map(|parked| (parked.aggregate_id.as_str(), parked.waiting)).collect::<Vec<_>>(),
        [("a", 2)]
    );
    assert_eq!(count(&database, "blind").await, 1, "the row of a, which its waiting events concern");
    worker.stop().await.unwrap();
    // Two events in one batch, the first of which finds its row in the database.
    events.move_money("c", 1);
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    events.move_money("c", 1);
    events.move_money("c", -1);
    let worker = events.worker(&database).park_after(1).start(model()).await.unwrap();
    caught_up(&worker).await;
    assert_eq!(worker.status().await.parked, 2);
}

/// Shows: what changed a row last that was deleted and made anew is what made it, whatever the clocks of its writers said.
pub async fn a_row_made_anew_tells_nothing_of_the_one_before(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for (amount, seconds) in [(1, 100), (-1, 50), (1, 10)] {
        let event_type = if amount < 0 { "withdrawn" } else { "deposited" };
        let payload = r#"{"amount":1}"#.into();
        let later = chrono::TimeDelta::seconds(seconds);
        let event = events.event("a", event_type, payload, |event| event.recorded_at += later);
        events.add_event(&event);
    }
    for batch in [1, 2, 10] {
        let model = Model::<Blind>::new().follow::<Account>();
        let worker = events.worker(&database).batch_max(batch).park_after(1).start(model).await.unwrap();
        caught_up(&worker).await;
        worker.stop().await.unwrap();
        let lineage = database.lineage::<Blind>(&"a".into()).await.unwrap().unwrap();
        assert_eq!(lineage.version, Version::new(3), "in batches of {batch}");
        database.remove_projection("blind").await.unwrap();
    }
}
