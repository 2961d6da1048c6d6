//! What is written is what would be read back, or refused with the event: rows do not depend on how many events are folded in at once.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use es_core::Recorded;
use es_core::doc::{Account, AccountEvent};
use es_core::log::memory::MemoryLog;
use es_projections::{ColumnValue, Database, Fold, Model, ProjectionError, ReadModel, Rows, Verdict};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::support::*;

/// A text that is the same in other letters, which no database knows.
#[derive(Debug, Clone)]
struct Email(String);

impl PartialEq for Email {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }
}

impl Eq for Email {}

impl std::hash::Hash for Email {
    fn hash<H: std::hash::Hasher>(&self, hasher: &mut H) {
        self.0.to_ascii_lowercase().hash(hasher);
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Email {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_owned()))
    }
}

/// What is read back in other letters than it was written in.
#[derive(Debug, Clone, PartialEq)]
struct Folded(String);

impl fmt::Display for Folded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Folded {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self(text.to_lowercase()))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ColumnValue)]
struct Moment(DateTime<Utc>);

/// A row of every kind. Its key is of what databases and Rust may compare otherwise.
#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "kinds")]
struct AllKinds {
    #[key]
    at: DateTime<Utc>,
    #[key]
    rate: Decimal,
    #[key]
    #[column(text)]
    email: Email,
    #[key]
    text: String,
    events: i64,
    whole: u64,
    flag: bool,
    moment: Option<Moment>,
    day: NaiveDate,
    amount: Decimal,
    bytes: Vec<u8>,
    uuid: Uuid,
    json: serde_json::Value,
    #[column(json)]
    tags: HashMap<String, Option<f64>>,
    #[column(text)]
    folded: Folded,
    #[column(json)]
    ratio: Option<f64>,
    /// What the fold found before.
    before: String,
}

fn pick<T: Clone>(rng: &mut fastrand::Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())].clone()
}

impl Fold<Account> for AllKinds {
    /// The amount is a seed.
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let seed = match *event {
            AccountEvent::Deposited { amount } | AccountEvent::Withdrawn { amount } => amount,
        };
        let mut rng = fastrand::Rng::with_seed(seed);
        let rng = &mut rng;
        let times = [
            "2026-01-31T12:00:00.123456789Z",
            "2026-01-31T12:00:00.123456001Z",
            "1969-12-31T23:59:59.999999999Z",
            "1993-01-01T00:00:00.000000500Z",
            "2016-12-31T23:59:60.5Z",
        ];
        let time = |rng: &mut fastrand::Rng| pick(rng, &times).parse::<DateTime<Utc>>();
        let decimal = |rng: &mut fastrand::Rng| {
            pick(rng, &["1.50", "1.5", "-0.00", "0", "79228162514264337593543950335"]).parse::<Decimal>()
        };
        let key = (
            time(rng)?,
            decimal(rng)?,
            Email(pick(rng, &["Ada@b", "ada@b"]).into()),
            pick(rng, &["ä", "a\u{308}", "A ", "A"]).to_owned(),
        );
        let new = || Self {
            at: key.0,
            rate: key.1,
            email: key.2.clone(),
            text: key.3.clone(),
            events: 0,
            whole: 0,
            flag: false,
            moment: None,
            day: NaiveDate::default(),
            amount: Decimal::ZERO,
            bytes: Vec::new(),
            uuid: Uuid::nil(),
            json: serde_json::Value::Null,
            tags: HashMap::new(),
            folded: Folded(String::new()),
            ratio: None,
            before: String::new(),
        };
        let _ = recorded;
        let (amount, moment) = (decimal(rng)?, Moment(time(rng)?));
        let ratio = pick(rng, &[0.1 + 0.2, -0.0, f64::MIN_POSITIVE, f64::MAX, 1e23, 2.225073858507201e-308, 5e-324]);
        let found = match rows.get::<Self>(&key)? {
            Some(row) => {
                format!("{:?} {} {:?} {:?} {} {:?}", row.at, row.rate, row.moment, row.folded, row.amount, row.ratio)
            }
            None => "nothing".into(),
        };
        rows.change_or_insert(&key, new, |row| {
            row.before = found;
            row.events += 1;
            row.whole = pick(rng, &[0, i64::MAX as u64]);
            row.flag = !row.flag;
            row.moment = rng.bool().then_some(moment);
            row.day += TimeDelta::days(rng.i64(0..1000));
            row.amount = amount;
            row.bytes.push(rng.u8(..));
            row.uuid = Uuid::from_u128(rng.u128(..));
            row.json = serde_json::json!({ "z": ratio, "a": [null, rng.u64(..)], "m": { "b": 1, "a": "\u{0}'\\" } });
            row.tags.insert(format!("t{}", rng.u8(..)), rng.bool().then_some(ratio));
            row.folded = Folded(pick(rng, &["ABC", "abC"]).into());
            row.ratio = Some(ratio);
        })
    }
}

async fn all(database: &Database, table: &str) -> Vec<String> {
    let name = database.table_name(table);
    let mut rows: Vec<_> = database
        .fetch(&format!("SELECT * FROM {name}"), &[])
        .await
        .unwrap()
        .iter()
        .map(|row| format!("{row:?}"))
        .collect();
    rows.sort();
    rows
}

/// Shows: over values of every kind that databases, JSON or Rust keep, compare or round in their own ways, rows are the same in batches of
/// any size, are found by their keys, and a replay gives them again.
pub async fn rows_of_every_kind_do_not_depend_on_the_batch(url: &str) {
    let database = connect(url).await;
    let mut events = Events::with_partitions("account", MemoryLog::new(1), 1);
    for seed in 1..=300 {
        events.move_money(&format!("a{}", seed % 3), seed);
    }
    let model = || Model::<AllKinds>::new().follow::<Account>();
    let mut first: Option<Vec<String>> = None;
    for batch in [1, 7, 300] {
        let worker = events.worker(&database).batch_max(batch).park_after(1).start(model()).await.unwrap();
        caught_up(&worker).await;
        let parked = database.parked("kinds", 10).await.unwrap();
        assert!(parked.is_empty(), "{parked:?}");
        let rows = all(&database, "kinds").await;
        assert!(rows.len() > 20, "{}", rows.len());
        let first = first.get_or_insert_with(|| rows.clone());
        for (one, other) in rows.iter().zip(&*first) {
            assert_eq!(one, other, "in batches of {batch}");
        }
        assert_eq!(rows.len(), first.len());
        let verified = events.worker(&database).verify(model(), |_| ()).await.unwrap();
        assert_eq!(verified.verdict(), Verdict::Equal, "{:?}", verified.differences().next());
        worker.stop().await.unwrap();
        for row in database.rows::<AllKinds>("", &[]).await.unwrap() {
            let mut settled = row.clone();
            settled.settle().unwrap();
            assert_eq!(settled, row, "what was read stays");
            assert!(database.row::<AllKinds>(&row.key()).await.unwrap().is_some());
        }
        database.remove_projection("kinds").await.unwrap();
    }
    // A key is found as it is given, not only as it is stored.
    let worker = events.worker(&database).start(model()).await.unwrap();
    caught_up(&worker).await;
    let row = database
        .rows::<AllKinds>("WHERE rate = ? LIMIT 1", &["1.5".parse::<Decimal>().unwrap().into()])
        .await
        .unwrap()
        .remove(0);
    let finer = (row.at + TimeDelta::nanoseconds(7), "1.500".parse().unwrap(), row.email.clone(), row.text.clone());
    assert_eq!(database.row::<AllKinds>(&finer).await.unwrap(), Some(row));
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "refused")]
struct Refused {
    #[key]
    id: String,
    #[column(json)]
    ratio: f64,
    name: String,
    whole: u64,
    at: DateTime<Utc>,
    day: Option<NaiveDate>,
}

impl Fold<Account> for Refused {
    fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        let AccountEvent::Deposited { amount } = *event else { return Ok(()) };
        let id = recorded.envelope.stream.id.to_string();
        let new =
            || Self { id: id.clone(), ratio: 0.0, name: String::new(), whole: 0, at: DateTime::UNIX_EPOCH, day: None };
        rows.change_or_insert(&id, new, |row| match amount {
            1 => row.ratio = f64::NAN,
            2 => row.ratio = f64::INFINITY,
            3 => row.name = "a\0b".into(),
            4 => row.whole = u64::MAX,
            5 => row.at = DateTime::<Utc>::MAX_UTC,
            6 => row.day = Some(NaiveDate::MIN),
            // What comes after in one batch would hide it.
            _ => *row = new(),
        })
    }
}

/// Shows: what can't be stored, or not be read back, is refused with the event that brought it, in the midst of any batch.
pub async fn what_can_not_be_read_back_is_refused(url: &str) {
    let database = connect(url).await;
    let reasons = [
        r#"column "ratio": "null" is not read back: invalid type: null, expected f64"#,
        r#"column "ratio": "null" is not read back"#,
        r#"column "name": text with a zero character can't be stored"#,
        r#"column "whole": 18446744073709551615 is above"#,
        r#"column "at": time +262142-12-31"#,
        r#"column "day": date -262143-01-01 is not between"#,
    ];
    let mut events = Events::new();
    for (amount, id) in (1..).zip(["a", "b", "c", "d", "e", "f"]) {
        events.move_money(id, 9);
        events.move_money(id, amount);
        events.move_money(id, 9);
    }
    for batch in [1, 100] {
        let worker = events.worker(&database).batch_max(batch).park_after(1);
        let worker = worker.start(Model::<Refused>::new().follow::<Account>()).await.unwrap();
        caught_up(&worker).await;
        let mut parked = database.parked("refused", 10).await.unwrap();
        parked.sort_by(|one, other| one.aggregate_id.cmp(&other.aggregate_id));
        assert_eq!(parked.len(), reasons.len(), "{parked:?}");
        for (parked, reason) in parked.iter().zip(reasons) {
            assert!(parked.reason.contains(reason) && parked.waiting == 2, "{parked:?}");
        }
        assert_eq!(database.rows::<Refused>("", &[]).await.unwrap().len(), 6, "all can be read");
        worker.stop().await.unwrap();
        database.remove_projection("refused").await.unwrap();
    }
}
