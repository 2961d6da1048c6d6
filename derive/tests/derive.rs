//! What derived types put into the log and read from it, byte for byte: these bytes are stored for ever.

use std::collections::BTreeMap;
use std::fmt::Debug;

use es_core::codec::{Encoded, decode_command, decode_event, encode_command, encode_event};
use es_core::{Aggregate, Codec, Command, DecodeError, Event, Field, Json, Shape, shape};
use serde::de::{DeserializeOwned, DeserializeSeed};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
enum AccountEvent {
    #[event(name = "opened", version = 2)]
    Opened { owner: String, overdraft_limit: Option<Vec<u8>> },
    #[event(name = "deposited")]
    Deposited { amount: u64 },
    #[event(name = "address.moved")]
    Moved(Address),
    #[event(name = "closed")]
    Closed,
    #[event(name = "audited")]
    Audited {},
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
struct Address {
    city: String,
}

/// The stored type, schema version and payload.
fn stored<E: Event>(event: &E) -> (&'static str, u32, String) {
    let (stored, payload) = encode_event::<Json, E>(event).expect("the test's events can be encoded");
    (stored.name, stored.schema_version, String::from_utf8(payload).expect("JSON is UTF-8"))
}

fn read<E: Event>(name: &str, payload: &str) -> Result<E, DecodeError> {
    decode_event::<Json, E>(name, 1, payload.as_bytes())
}

/// Asserts the payload that `event` is stored as, and that it is read back from it.
#[track_caller]
fn assert_stored<E: Event + PartialEq>(event: E, name: &str, payload: &str) {
    let (stored_name, version, stored_payload) = stored(&event);
    assert_eq!((stored_name, stored_payload.as_str()), (name, payload));
    assert_eq!(decode_event::<Json, E>(name, version, payload.as_bytes()), Ok(event));
}

#[test]
fn an_event_is_stored_as_its_fields_under_its_stored_name() {
    assert_stored(AccountEvent::Deposited { amount: 5 }, "deposited", r#"{"amount":5}"#);
    assert_stored(
        AccountEvent::Opened { owner: "Ada".into(), overdraft_limit: None },
        "opened",
        r#"{"owner":"Ada","overdraft_limit":null}"#,
    );
    assert_stored(AccountEvent::Moved(Address { city: "Brno".into() }), "address.moved", r#"{"city":"Brno"}"#);
    assert_stored(AccountEvent::Closed, "closed", "{}");
    assert_stored(AccountEvent::Audited {}, "audited", "{}");
}

#[test]
fn an_event_enum_describes_its_types() {
    assert_eq!(AccountEvent::AGGREGATE, "account");
    let types: Vec<_> = AccountEvent::TYPES.iter().map(|stored| (stored.name, stored.schema_version)).collect();
    assert_eq!(types, [("opened", 2), ("deposited", 1), ("address.moved", 1), ("closed", 1), ("audited", 1)]);
    assert_eq!(
        AccountEvent::TYPES[0].fields,
        [Field { name: "owner", rust_type: "String" }, Field { name: "overdraft_limit", rust_type: "Option<Vec<u8>>" }]
    );
    assert_eq!(AccountEvent::TYPES[2].fields, [Field { name: "0", rust_type: "Address" }]);
    assert_eq!(AccountEvent::TYPES[3].fields, []);
}

#[test]
fn renaming_a_variant_changes_nothing_that_is_stored() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Renamed {
        #[event(name = "closed")]
        ShutDown,
        #[event(name = "deposited")]
        MoneyCameIn { amount: u64 },
    }
    assert_stored(Renamed::MoneyCameIn { amount: 5 }, "deposited", r#"{"amount":5}"#);
    assert_eq!(read("closed", "{}"), Ok(Renamed::ShutDown));
}

#[test]
fn what_the_program_does_not_know_is_an_error_that_names_it() {
    assert_eq!(
        read::<AccountEvent>("frozen", "{}").unwrap_err().to_string(),
        r#"the type "frozen" is not known to this program"#
    );
    // The Rust name is not a stored name.
    assert!(read::<AccountEvent>("Closed", "{}").is_err());
    assert_eq!(
        decode_event::<Json, AccountEvent>("opened", 1, b"{}").unwrap_err().to_string(),
        r#"the type "opened" is stored with schema version 1, this program knows 2"#
    );
    assert_eq!(
        read::<AccountEvent>("deposited", "{}").unwrap_err().to_string(),
        r#"the payload of type "deposited" does not fit: missing field `amount` at line 1 column 2"#
    );
    for torn in ["", "{", r#"{"amount":5"#, r#"{"amount":5}}"#, "5", "null", r#"{"amount":-5}"#, r#"{"Deposited":5}"#] {
        assert!(read::<AccountEvent>("deposited", torn).is_err(), "{torn}");
    }
}

#[test]
fn fields_from_a_newer_writer_are_ignored() {
    assert_eq!(read("closed", r#"{"reason":"moved","by":[1]}"#), Ok(AccountEvent::Closed));
    assert_eq!(read("audited", r#"{"reason":"moved"}"#), Ok(AccountEvent::Audited {}));
    assert_eq!(read("deposited", r#"{"note":null,"amount":5}"#), Ok(AccountEvent::Deposited { amount: 5 }));
    assert!(read::<AccountEvent>("closed", "null").is_err());
}

#[test]
fn serde_attributes_on_fields_work_as_usual() {
    mod as_text {
        use serde::{Deserialize, Deserializer, Serializer};

        pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_str(&number.to_string())
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        }
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Attributes {
        #[event(name = "deposited")]
        Deposited {
            #[serde(rename = "sum", with = "as_text")]
            amount: u64,
            #[serde(default, skip_serializing_if = "Option::is_none", alias = "remark")]
            note: Option<String>,
            #[serde(skip)]
            seen: bool,
        },
        #[event(name = "tagged")]
        Tagged {
            id: u8,
            #[serde(flatten)]
            tags: BTreeMap<String, u8>,
        },
        #[event(name = "counted")]
        Counted(#[serde(with = "as_text")] u64),
        #[event(name = "noted")]
        Noted(#[serde(skip)] u8),
        #[event(name = "moved")]
        #[serde(rename_all = "camelCase")]
        Moved { to_city: String },
    }

    let deposited = Attributes::Deposited { amount: 5, note: None, seen: false };
    assert_stored(deposited.clone(), "deposited", r#"{"sum":"5"}"#);
    let with_note = Attributes::Deposited { amount: 5, note: Some("rent".into()), seen: false };
    assert_stored(with_note.clone(), "deposited", r#"{"sum":"5","note":"rent"}"#);
    assert_eq!(read("deposited", r#"{"sum":"5","remark":"rent"}"#), Ok(with_note));
    let seen = Attributes::Deposited { amount: 5, note: None, seen: true };
    assert_eq!(read("deposited", &stored(&seen).2), Ok(deposited));
    assert_stored(Attributes::Tagged { id: 1, tags: [("a".into(), 2)].into() }, "tagged", r#"{"id":1,"a":2}"#);
    assert_stored(Attributes::Counted(7), "counted", r#""7""#);
    assert_stored(Attributes::Noted(0), "noted", "{}");
    assert_stored(Attributes::Moved { to_city: "Brno".into() }, "moved", r#"{"toCity":"Brno"}"#);
}

#[test]
fn serde_attributes_that_only_name_variants_change_nothing() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[serde(rename_all = "SCREAMING-KEBAB-CASE", rename_all_fields = "camelCase", deny_unknown_fields)]
    #[event(aggregate = "account")]
    enum Named {
        #[event(name = "opened")]
        #[serde(rename = "1", alias = "Closed")]
        Opened { by_whom: String },
        #[event(name = "closed")]
        Closed,
    }
    assert_stored(Named::Opened { by_whom: "Ada".into() }, "opened", r#"{"byWhom":"Ada"}"#);
    assert_stored(Named::Closed, "closed", "{}");
    assert!(read::<Named>("opened", r#"{"byWhom":"Ada","note":1}"#).is_err());
}

#[test]
fn variants_that_are_configured_out_do_not_count() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Configured {
        #[cfg(any())]
        #[event(name = "frozen")]
        Frozen { reason: NoSuchType },
        #[event(name = "deposited")]
        Deposited {
            #[cfg(any())]
            note: NoSuchType,
            amount: u64,
        },
        #[cfg(not(any()))]
        #[cfg_attr(not(any()), event(name = "closed"))]
        Closed,
    }
    assert_eq!(Configured::TYPES.iter().map(|stored| stored.name).collect::<Vec<_>>(), ["deposited", "closed"]);
    assert_eq!(Configured::TYPES[0].fields.len(), 1);
    assert_stored(Configured::Deposited { amount: 5 }, "deposited", r#"{"amount":5}"#);
    assert_stored(Configured::Closed, "closed", "{}");
}

#[test]
fn discriminants_and_order_have_no_say() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Numbered {
        #[event(name = "closed")]
        Closed = 7,
        #[event(name = "opened")]
        Opened = 3,
    }
    assert_eq!(Numbered::Opened.type_index(), 1);
    assert_stored(Numbered::Opened, "opened", "{}");
    assert_stored(Numbered::Closed, "closed", "{}");
}

#[test]
fn names_of_fields_are_without_the_raw_prefix() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Raw {
        #[event(name = "type")]
        r#Type { r#type: u8 },
    }
    assert_eq!(Raw::TYPES[0].fields, [Field { name: "type", rust_type: "u8" }]);
    assert_stored(Raw::r#Type { r#type: 1 }, "type", r#"{"type":1}"#);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
enum AccountCommand {
    OpenAccount {
        owner: String,
    },
    #[command(name = "deposit-money")]
    Deposit {
        amount: u64,
    },
    CloseHTTPSession,
}

#[test]
fn a_command_is_named_by_its_variant_in_snake_case_or_by_its_attribute() {
    let names: Vec<_> = AccountCommand::TYPES.iter().map(|stored| stored.name).collect();
    assert_eq!(names, ["open_account", "deposit-money", "close_http_session"]);
    assert!(AccountCommand::TYPES.iter().all(|stored| stored.schema_version == 1));
}

#[test]
fn a_command_is_stored_as_its_fields() {
    let open = AccountCommand::OpenAccount { owner: "Ada".into() };
    let Encoded { kind, payload, .. } = encode_command::<Json, _>(&open).expect("the command can be encoded");
    assert_eq!((kind.name, payload.as_slice()), ("open_account", br#"{"owner":"Ada"}"#.as_slice()));
    assert_eq!(decode_command::<Json, AccountCommand>("open_account", &payload), Ok(open));
    let unknown = decode_command::<Json, AccountCommand>("OpenAccount", &payload);
    assert_eq!(unknown, Err(DecodeError::UnknownType { name: "OpenAccount".into() }));
}

#[test]
fn a_command_with_a_field_that_nobody_reads_is_refused_at_any_depth() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    enum Order {
        Place { lines: Vec<Line>, by: Option<Box<Address>>, notes: BTreeMap<String, Kind> },
        Move(Address),
        Cancel,
        Count {},
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Line {
        #[serde(alias = "piece")]
        item: String,
        #[serde(default)]
        count: u64,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(tag = "kind")]
    enum Kind {
        Text { text: String },
    }
    let read = |name: &str, payload: &str| decode_command::<Json, Order>(name, payload.as_bytes());
    let good =
        r#"{"lines":[{"item":"a"},{"piece":"b","count":1}],"by":{"city":"x"},"notes":{"n":{"kind":"Text","text":""}}}"#;
    assert!(read("place", good).is_ok(), "{:?}", read("place", good));
    let cases = [
        ("place", r#"{"lines":[],"by":null,"notes":{},"note":"x"}"#, "note"),
        ("place", r#"{"lines":[{"item":"a"},{"item":"b","price":5}],"by":null,"notes":{}}"#, "lines.1.price"),
        ("place", r#"{"lines":[],"by":{"city":"x","zip":{"a":1}},"notes":{}}"#, "by.?.zip"),
        ("move", r#"{"city":"x","zip":null}"#, "zip"),
        ("cancel", r#"{"reason":"x"}"#, "reason"),
        ("count", r#"{"all":true}"#, "all"),
    ];
    for (name, payload, field) in cases {
        let unknown = DecodeError::UnknownField { name: name.into(), field: field.into() };
        assert_eq!(read(name, payload), Err(unknown), "{payload}");
    }
}

#[derive(Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("the account is closed")]
struct AccountClosed;

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(
    context = "bank",
    name = "account",
    id = u64,
    command = AccountCommand,
    event = AccountEvent,
    error = AccountClosed,
)]
struct Account {
    /// Not part of the shape.
    balance: u64,
    #[serde(rename = "holder", default)]
    owner: Option<String>,
    #[cfg(any())]
    frozen: NoSuchType,
    r#type: (u8, [u8; 4]),
}

#[test]
fn an_aggregate_says_what_is_stored() {
    assert_eq!((Account::CONTEXT, Account::NAME, Account::SNAPSHOT_VERSION), ("bank", "account", 1));
    assert_eq!(
        shape::text::<Account>(),
        r#"#0{balance: u64, #[serde(rename = "holder", default)] holder: option<text> = null, type: (u8, [u8; 4])}"#
    );
    assert_eq!(<Account as Aggregate>::Codec::CONTENT_TYPE, "application/json");
}

#[test]
fn an_aggregate_may_wrap_an_enum_and_choose_its_codec_and_snapshot_version() {
    struct Pretty;

    impl Codec for Pretty {
        const CONTENT_TYPE: &'static str = "application/json; pretty";

        fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
            serde_json::to_vec_pretty(value).map_err(|error| error.to_string())
        }

        fn decode<'de, S: DeserializeSeed<'de>>(bytes: &'de [u8], seed: S) -> Result<S::Value, String> {
            Json::decode(bytes, seed)
        }
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Shape)]
    enum Status {
        #[default]
        Open,
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
    #[aggregate(context = "bank", name = "account", snapshot = 3, codec = Pretty)]
    #[aggregate(id = String, command = AccountCommand, event = AccountEvent, error = AccountClosed)]
    struct Wrapped(Status);

    assert_eq!((Wrapped::SNAPSHOT_VERSION, shape::text::<Wrapped>()), (3, "#0<Open>"));
    assert_eq!(<Wrapped as Aggregate>::Codec::CONTENT_TYPE, "application/json; pretty");
    let (_, payload) = encode_event::<Pretty, _>(&AccountEvent::Deposited { amount: 5 }).expect("it can be encoded");
    assert_eq!(payload, b"{\n  \"amount\": 5\n}");
}

#[test]
fn generic_events_and_aggregates_work_with_the_bounds_that_they_write() {
    trait Value: Shape + Debug + Clone + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync {}
    impl Value for u64 {}

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[serde(bound = "")]
    #[event(aggregate = "purse")]
    enum PurseEvent<V: Value, const N: usize>
    where
        V: PartialOrd,
    {
        #[event(name = "filled")]
        Filled { with: Vec<V> },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    #[serde(bound = "")]
    enum PurseCommand<V: Value> {
        Fill(V),
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
    #[serde(bound = "")]
    #[aggregate(
        context = "bank", name = "purse", id = String, command = PurseCommand<V>, event = PurseEvent<V, 2>,
        error = AccountClosed,
    )]
    struct Purse<V>
    where
        V: Value + PartialOrd,
    {
        content: V,
    }

    assert_stored(PurseEvent::<u64, 2>::Filled { with: vec![5] }, "filled", r#"{"with":[5]}"#);
    assert_eq!(
        (Purse::<u64>::NAME, shape::text::<Purse<u64>>()),
        ("purse", r#"#0#[serde(bound = "")] {content: u64}"#)
    );
    assert_eq!(PurseCommand::Fill(5u64).type_index(), 0);
}

/// Tuples and newtypes have no number in a shape: inside of themselves stands how many brackets further out they are.
#[test]
fn a_tuple_inside_of_itself_is_named_by_its_distance() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Rope(String, Vec<Rope>);
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Chain(u64, Option<Box<Chain>>, Knot);
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Knot(BTreeMap<String, Chain>);
    assert_eq!(shape::text::<Rope>(), "(text, [^2])");
    assert_eq!(shape::text::<Chain>(), "(u64, option<^2>, map<text, ^2>)");
    assert_eq!(shape::text::<Knot>(), "map<text, (u64, option<^2>, ^2)>");

    // The same in a command, which is written and read through its shape.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    enum Tie {
        Rope(Rope),
        Chain { chain: Chain },
    }
    let rope = Tie::Rope(Rope("a".into(), vec![Rope("b".into(), vec![])]));
    assert_sent(&rope, "rope", r#"["a",[["b",[]]]]"#);
    let end = Chain(2, None, Knot(BTreeMap::new()));
    let chain = Chain(1, Some(Box::new(end.clone())), Knot(BTreeMap::from([("k".into(), end)])));
    assert_sent(&Tie::Chain { chain }, "chain", r#"{"chain":[1,[2,null,{}],{"k":[2,null,{}]}]}"#);
}

/// Asserts the payload that a command is sent as, and that it is read back from it.
#[track_caller]
fn assert_sent<C: Command + PartialEq + Debug>(command: &C, name: &str, payload: &str) {
    let sent = encode_command::<Json, C>(command).expect("the command can be encoded");
    assert_eq!((sent.kind.name, str::from_utf8(&sent.payload).expect("JSON is UTF-8")), (name, payload));
    assert_eq!(decode_command::<Json, C>(name, &sent.payload).as_ref(), Ok(command));
}

/// What is stored without the field has another meaning with another default, and the attribute may look the same.
#[test]
fn the_value_of_a_default_is_in_the_shape() {
    fn limit() -> u64 {
        100
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Limits {
        #[serde(default = "limit")]
        daily: u64,
        #[serde(default)]
        names: Vec<String>,
        single: Option<u64>,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(default)]
    struct Whole {
        daily: u64,
        limits: Limits,
    }
    impl Default for Whole {
        fn default() -> Self {
            Self { daily: 7, limits: Limits { daily: 9, names: vec!["a".into()], single: None } }
        }
    }
    let limits =
        r#"{#[serde(default = "limit")] daily: u64 = 100, #[serde(default)] names: [text] = [], single: option<u64>}"#;
    assert_eq!(shape::text::<Limits>(), format!("#0{limits}"));
    assert_eq!(
        shape::text::<Whole>(),
        format!(r##"#0#[serde(default)] {{daily: u64 = 7, limits: #1{limits} = {{"daily":9,"names":["a"]}}}}"##)
    );
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "account")]
    enum Limited {
        #[event(name = "limited")]
        Limited {
            #[serde(default = "limit")]
            daily: u64,
        },
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    enum Limit {
        Set {
            #[serde(default = "limit")]
            daily: u64,
        },
    }
    assert_sent(&Limit::Set { daily: 100 }, "set", "{}");
    assert_sent(&Limit::Set { daily: 0 }, "set", r#"{"daily":0}"#);
    // An event is stored in full: a default that is another one later must not change what happened.
    assert_stored(Limited::Limited { daily: 100 }, "limited", r#"{"daily":100}"#);
}

/// What is stored is read as the other type: a change there changes what a stored state means.
#[test]
fn a_type_that_is_read_as_another_has_both_in_its_shape() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(from = "Cents")]
    struct Money {
        cents: i64,
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    struct Cents {
        cents: i64,
        #[serde(default)]
        fee: u8,
    }
    impl From<Cents> for Money {
        fn from(read: Cents) -> Self {
            Self { cents: read.cents - i64::from(read.fee) }
        }
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(into = "String", try_from = "Cents")]
    struct Told(i64);
    impl From<Told> for String {
        fn from(told: Told) -> Self {
            told.0.to_string()
        }
    }
    impl TryFrom<Cents> for Told {
        type Error = String;
        fn try_from(read: Cents) -> Result<Self, String> {
            Ok(Self(read.cents))
        }
    }
    let cents = "{cents: i64, #[serde(default)] fee: u8 = 0}";
    assert_eq!(shape::text::<Money>(), format!(r##"#0#[serde(from = "Cents")] {{cents: i64}} read as #1{cents}"##));
    assert_eq!(
        shape::text::<Told>(),
        format!(r##"#[serde(into = "String", try_from = "Cents")] text read as #0{cents}"##)
    );
    assert_eq!(shape::text::<Vec<Money>>(), format!("[{}]", shape::text::<Money>()));
}

/// In an untagged enum the form of a number says which variant it is: 2.0 must not come out as 2.
#[test]
fn a_whole_float_of_an_untagged_enum_stays_one() {
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(untagged)]
    enum Amount {
        Pieces(u64),
        Weight(f64),
    }
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    enum Order {
        Buy { amount: Amount },
        Tell { what: serde_json::Value },
        Weigh { weight: f64 },
    }
    let hashes: Vec<_> = [Amount::Pieces(2), Amount::Weight(2.0), Amount::Weight(2.5)]
        .into_iter()
        .map(|amount| {
            let sent = encode_command::<Json, _>(&Order::Buy { amount: amount.clone() }).expect("it can be encoded");
            let read = decode_command::<Json, Order>("buy", &sent.payload);
            assert_eq!(read, Ok(Order::Buy { amount }), "{}", String::from_utf8_lossy(&sent.payload));
            sent.hash
        })
        .collect();
    assert_ne!(hashes[0], hashes[1], "two pieces and a weight of two are two commands");
    for what in [serde_json::json!(2), serde_json::json!(2.0), serde_json::json!({"a": [1.0, 1e300, -3.0]})] {
        let sent = encode_command::<Json, _>(&Order::Tell { what: what.clone() }).expect("it can be encoded");
        let read = decode_command::<Json, Order>("tell", &sent.payload);
        assert_eq!(read, Ok(Order::Tell { what }), "{}", String::from_utf8_lossy(&sent.payload));
    }
    assert_sent(&Order::Weigh { weight: 2.0 }, "weigh", r#"{"weight":2.0}"#);
}
