//! What derived read models put into tables and read from them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use es_core::{AggregateKey, Version};
use es_projections::{ColumnValue, Database, Error, FromValue, Kind, ReadModel, Row, Table, Value};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Name, kind and whether it may hold no value, of each column.
fn columns(table: &Table) -> Vec<(&str, Kind, bool)> {
    table.columns().iter().map(|column| (column.name.as_str(), column.kind, column.optional)).collect()
}

fn key_columns(table: &Table) -> Vec<&str> {
    table.key_columns().iter().map(|column| column.name.as_str()).collect()
}

/// The rows of these keys, after `rows` were written to a table of their own.
async fn stored<R: ReadModel>(rows: &[R]) -> (Database, Vec<Row>) {
    let database = Database::connect("sqlite::memory:", "test").await.expect("SQLite is there");
    let table = R::table();
    let mut tx = database.begin().await.expect("a transaction begins");
    tx.create(&table).await.expect("the table is valid");
    let values = rows.iter().map(|row| row.to_values().expect("the rows can be stored")).collect();
    tx.upsert(&table, values).await.expect("the rows fit the table");
    let keys = rows.iter().map(|row| R::key_values(&row.key()).expect("the keys can be stored")).collect();
    let loaded = tx.load(&table, keys).await.expect("the keys fit the table");
    tx.commit().await.expect("the transaction commits");
    (database, loaded)
}

/// Asserts that a row is what it was after it was stored, however it is read.
async fn assert_round_trip<R: ReadModel + PartialEq + fmt::Debug>(row: R) {
    let (database, loaded) = stored(std::slice::from_ref(&row)).await;
    let [loaded] = loaded.as_slice() else { panic!("{} rows of one key", loaded.len()) };
    assert_eq!(R::from_row(loaded).expect("what was loaded is a row"), row);
    let found = database.row::<R>(&row.key()).await.expect("the table is there");
    assert_eq!(found.as_ref(), Some(&row));
    // In another order of columns, as a query of one's own may give them.
    let table = R::table();
    let names: Vec<_> = table.columns().iter().rev().map(|column| format!("\"{}\"", column.name)).collect();
    let sql = format!("SELECT {}, 1 AS one FROM {}", names.join(", "), database.table_name(R::NAME));
    let turned = database.fetch(&sql, &[]).await.expect("the columns are there");
    assert_eq!(R::from_row(&turned[0]).expect("the order of columns does not matter"), row);
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "every_type")]
struct EveryType {
    #[key]
    id: String,
    a: i64,
    b: i32,
    c: i16,
    d: i8,
    e: u64,
    f: u32,
    g: u16,
    h: u8,
    flag: bool,
    blob: Vec<u8>,
    bytes: Bytes,
    decimal: Decimal,
    uuid: Uuid,
    time: DateTime<Utc>,
    date: NaiveDate,
    json: serde_json::Value,
    aggregate: AggregateKey,
    version: Version,
}

fn every_type() -> EveryType {
    EveryType {
        id: "ü'\"".into(),
        a: i64::MIN,
        b: i32::MIN,
        c: i16::MIN,
        d: i8::MIN,
        e: i64::MAX as u64,
        f: u32::MAX,
        g: u16::MAX,
        h: u8::MAX,
        flag: true,
        blob: vec![0, 255],
        bytes: Bytes::from_static(b"\0"),
        decimal: "-12.50".parse().expect("a decimal"),
        uuid: Uuid::from_u128(5),
        time: "2026-01-31T12:00:00.123456Z".parse().expect("a time"),
        date: "2024-02-29".parse().expect("a date"),
        json: serde_json::json!({ "a": [1, null, "\0"] }),
        aggregate: AggregateKey::new("account-1").expect("a key"),
        version: Version::new(7),
    }
}

#[tokio::test]
async fn a_row_of_every_type_is_read_as_it_was_written() {
    let table = EveryType::table();
    let integer = |name| (name, Kind::Integer, false);
    let mut expected = vec![("id", Kind::Text, false)];
    expected.extend(["a", "b", "c", "d", "e", "f", "g", "h"].map(integer));
    expected.extend([
        ("flag", Kind::Bool, false),
        ("blob", Kind::Bytes, false),
        ("bytes", Kind::Bytes, false),
        ("decimal", Kind::Decimal, false),
        ("uuid", Kind::Uuid, false),
        ("time", Kind::Time, false),
        ("date", Kind::Date, false),
        ("json", Kind::Json, false),
        ("aggregate", Kind::Text, false),
        ("version", Kind::Integer, false),
    ]);
    assert_eq!(columns(&table), expected);
    assert_round_trip(every_type()).await;
}

#[derive(Debug, Clone, Default, PartialEq, ReadModel)]
#[read_model(name = "every_option")]
struct EveryOption {
    #[key]
    id: u8,
    integer: Option<i64>,
    flag: Option<bool>,
    text: Option<String>,
    blob: Option<Vec<u8>>,
    bytes: Option<Bytes>,
    decimal: Option<Decimal>,
    uuid: Option<Uuid>,
    time: Option<DateTime<Utc>>,
    date: Option<NaiveDate>,
    json: std::option::Option<serde_json::Value>,
    aggregate: Option<AggregateKey>,
    version: Option<Version>,
}

#[tokio::test]
async fn an_option_is_a_column_that_may_hold_no_value() {
    let table = EveryOption::table();
    assert!(table.columns()[1..].iter().all(|column| column.optional));
    let none = EveryOption::default();
    assert!(none.to_values().expect("it can be stored")[1..].iter().all(Value::is_null));
    assert_round_trip(none).await;
    let all = every_type();
    assert_round_trip(EveryOption {
        id: 1,
        integer: Some(all.a),
        flag: Some(all.flag),
        text: Some(String::new()),
        blob: Some(Vec::new()),
        bytes: Some(all.bytes),
        decimal: Some(all.decimal),
        uuid: Some(all.uuid),
        time: Some(all.time),
        date: Some(all.date),
        // Not the same as no value.
        json: Some(serde_json::Value::Null),
        aggregate: Some(all.aggregate),
        version: Some(all.version),
    })
    .await;
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Address {
    city: String,
}

/// A colour as `#rrggbb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Colour(u32);

impl fmt::Display for Colour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{:06x}", self.0)
    }
}

impl FromStr for Colour {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_prefix('#').ok_or("it does not begin with #")?;
        u32::from_str_radix(digits, 16).map(Self).map_err(|error| error.to_string())
    }
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "kept")]
struct Kept {
    #[key]
    #[column(text)]
    colour: Colour,
    #[column(json)]
    address: Address,
    #[column(json)]
    former: Option<Address>,
    #[column(json, name = "tag_set")]
    tags: BTreeMap<String, u8>,
    #[column(text)]
    from: IpAddr,
    #[column(name = "second")]
    #[column(text)]
    other: Option<Colour>,
    #[column(json)]
    number: i64,
}

fn kept() -> Kept {
    Kept {
        colour: Colour(0xff),
        address: Address { city: "Brno".into() },
        former: None,
        tags: [("a".into(), 2)].into(),
        from: IpAddr::from([127, 0, 0, 1]),
        other: None,
        number: 5,
    }
}

#[tokio::test]
async fn fields_are_kept_as_json_or_text_where_they_say_so() {
    assert_eq!(
        columns(&Kept::table()),
        [
            ("colour", Kind::Text, false),
            ("address", Kind::Json, false),
            ("former", Kind::Json, true),
            ("tag_set", Kind::Json, false),
            ("from", Kind::Text, false),
            ("second", Kind::Text, true),
            ("number", Kind::Json, false),
        ]
    );
    assert_eq!(
        kept().to_values().expect("it can be stored"),
        [
            Value::Text("#0000ff".into()),
            Value::Json(r#"{"city":"Brno"}"#.into()),
            Value::Null,
            Value::Json(r#"{"a":2}"#.into()),
            Value::Text("127.0.0.1".into()),
            Value::Null,
            Value::Json("5".into()),
        ]
    );
    assert_round_trip(kept()).await;
    let former = Some(Address { city: "Olomouc".into() });
    assert_round_trip(Kept { former, other: Some(Colour(1)), ..kept() }).await;
}

#[tokio::test]
async fn what_a_column_can_not_hold_is_an_error_that_names_it() {
    let (database, _) = stored(&[kept()]).await;
    let table = database.table_name("kept");
    for (change, expected) in [
        ("colour = 'red'", r#"column "colour" holds "red": it does not begin with #"#),
        ("address = '{}'", r#"column "address" holds "{}": missing field `city` at line 1 column 2"#),
        ("former = '{'", r#"column "former" holds "{": EOF while parsing an object at line 1 column 1"#),
        ("second = ''", r#"column "second" holds "": it does not begin with #"#),
    ] {
        let mut tx = database.begin().await.expect("a transaction begins");
        tx.execute(&format!("UPDATE {table} SET {change}"), &[]).await.expect("a statement");
        let rows = tx.fetch(&format!("SELECT * FROM {table}"), &[]).await.expect("a query");
        assert_eq!(Kept::from_row(&rows[0]).unwrap_err().to_string(), expected);
        tx.rollback().await.expect("the transaction is rolled back");
    }
    let rows = database.fetch(&format!("SELECT 'a' AS id FROM {table}"), &[]).await.expect("a query");
    assert!(EveryType::from_row(&rows[0]).unwrap_err().to_string().starts_with(r#"there is no column "a""#));

    let error = EveryType { e: u64::MAX, ..every_type() }.to_values().unwrap_err();
    let expected = format!(r#"table "every_type", column "e": {} is above {}"#, u64::MAX, i64::MAX);
    assert!(matches!(error, Error::Invalid(reason) if reason == expected));
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, ColumnValue)]
struct AccountId(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ColumnValue)]
struct Cents {
    r#amount: i64,
}

/// A newtype of a newtype, and of an `Option`.
#[derive(Debug, Clone, Copy, PartialEq, ColumnValue)]
struct Limit(Option<Cents>);

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "newtypes")]
struct Newtypes {
    balance: Cents,
    overdraft: Option<Cents>,
    limit: Limit,
    #[key]
    id: AccountId,
}

#[tokio::test]
async fn a_newtype_is_what_is_inside() {
    assert_eq!((AccountId::KIND, Cents::KIND, Limit::KIND), (Kind::Text, Kind::Integer, Kind::Integer));
    assert_eq!((AccountId::WHAT, Cents::WHAT), (String::WHAT, i64::WHAT));
    assert_eq!((Cents::OPTIONAL, Limit::OPTIONAL), (false, true));
    assert_eq!(Cents::from_value(&Value::Text("5".into())), None);
    assert_eq!(Limit::from_value(&Value::Null), Some(Limit(None)));
    assert_eq!(
        columns(&Newtypes::table()),
        [
            ("id", Kind::Text, false),
            ("balance", Kind::Integer, false),
            ("overdraft", Kind::Integer, true),
            ("limit", Kind::Integer, true),
        ]
    );
    let id = AccountId("1".into());
    let (balance, limit) = (Cents { amount: -5 }, Limit(None));
    assert_round_trip(Newtypes { balance, overdraft: None, limit, id: id.clone() }).await;
    assert_round_trip(Newtypes { balance, overdraft: Some(balance), limit: Limit(Some(balance)), id }).await;
}

#[derive(Debug, Clone, PartialEq, ReadModel)]
#[read_model(name = "several_keys", version = 3)]
struct SeveralKeys {
    amount: i64,
    #[key]
    month: u32,
    note: String,
    #[key]
    #[column(name = "of")]
    account: AccountId,
    #[column(text)]
    #[key]
    colour: Colour,
}

#[tokio::test]
async fn a_key_of_several_fields_is_a_tuple_in_their_order() {
    assert_eq!((SeveralKeys::NAME, SeveralKeys::VERSION), ("several_keys", 3));
    let table = SeveralKeys::table();
    assert_eq!((table.name(), key_columns(&table)), ("several_keys", vec!["month", "of", "colour"]));
    let others: Vec<_> = columns(&table)[3..].iter().map(|column| column.0).collect();
    assert_eq!(others, ["amount", "note"]);

    let account = AccountId("1".into());
    let row = SeveralKeys { amount: 5, month: 202611, note: "x".into(), account, colour: Colour(1) };
    let key: (u32, AccountId, Colour) = row.key();
    assert_eq!(key, (202611, AccountId("1".into()), Colour(1)));
    let in_key = [Value::Integer(202611), Value::Text("1".into()), Value::Text("#000001".into())];
    assert_eq!(SeveralKeys::key_values(&key).expect("it can be stored"), in_key);
    let mut all = in_key.to_vec();
    all.extend([Value::Integer(5), Value::Text("x".into())]);
    assert_eq!(row.to_values().expect("it can be stored"), all);
    assert_round_trip(row).await;
}

#[tokio::test]
async fn a_row_may_be_its_key_alone() {
    #[derive(Debug, Clone, PartialEq, ReadModel)]
    #[read_model(name = "seen")]
    struct Seen {
        #[key]
        id: Uuid,
    }
    assert_eq!((Seen::NAME, Seen::VERSION), ("seen", 1));
    assert_round_trip(Seen { id: Uuid::from_u128(1) }).await;
}

#[test]
fn indexes_are_over_the_columns_of_their_fields() {
    #[derive(Debug, Clone, ReadModel)]
    #[read_model(
        name = "accounts",
        index(by_balance = [balance, id]),
        index(by_owner = [owner, r#type], by_type = [r#type,],),
    )]
    struct Indexed {
        #[key]
        id: String,
        #[column(name = "holder")]
        owner: Option<String>,
        r#type: u8,
        balance: i64,
    }
    let expected = Table::new("accounts")
        .key("id", Kind::Text)
        .optional("holder", Kind::Text)
        .column("type", Kind::Integer)
        .column("balance", Kind::Integer)
        .index("by_balance", &["balance", "id"])
        .index("by_owner", &["holder", "type"])
        .index("by_type", &["type"]);
    assert_eq!(Indexed::table(), expected);
}
