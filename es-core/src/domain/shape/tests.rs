//! Shapes of types as users write them, and the canonical form that they give.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::*;
use crate::domain::codec;
use crate::{CommandHash, Json, Shape};

/// A value in canonical form.
fn canonical<T: Shape + Serialize>(value: &T) -> String {
    let known = known::<T>(Role::Value, |shapes| vec![Content::One(Link::new("", shapes.of::<T>()))]);
    String::from_utf8(known.canonical(0, value).expect("it has a canonical form")).expect("JSON is UTF-8")
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
struct Tree {
    value: u64,
    #[serde(default)]
    children: Vec<Tree>,
    parent: Option<Box<Tree>>,
}

#[test]
fn a_shape_goes_through_all_types_and_ends_in_one_that_is_inside_of_itself() {
    assert_eq!(text::<Tree>(), "#0{value: u64, #[serde(default)] children: [#0] = [], parent: option<#0>}");
}

/// Types without names for their parts, in which they are themselves, directly and through another.
#[test]
fn a_tuple_or_newtype_may_be_inside_of_itself() {
    #[derive(Serialize, Deserialize, Shape)]
    struct Node(String, Vec<Node>);
    #[derive(Serialize, Deserialize, Shape)]
    struct Next(u64, Option<Box<Next>>);
    #[derive(Serialize, Deserialize, Shape)]
    struct Forest(Vec<Forest>);
    #[derive(Serialize, Deserialize, Shape)]
    struct Outer(Vec<Inner>, Forest);
    #[derive(Serialize, Deserialize, Shape)]
    struct Inner {
        outer: Option<Outer>,
    }
    #[derive(Serialize, Deserialize, Shape)]
    struct Endless(Box<Endless>);
    assert_eq!(text::<Node>(), "(text, [^2])");
    assert_eq!(text::<Next>(), "(u64, option<^2>)");
    assert_eq!((text::<Forest>(), text::<Vec<Forest>>()), ("[^1]", "[^1]"));
    assert_eq!(text::<Outer>(), "([#0{outer: option<^4>}], [^1])");
    assert_eq!(text::<Endless>(), "^0");
    let nested = Node("a".into(), vec![Node("b".into(), vec![])]);
    assert_eq!(canonical(&nested), r#"["a",[["b",[]]]]"#);
    assert_eq!(canonical(&Next(1, Some(Box::new(Next(2, None))))), "[1,[2,null]]");
}

/// A field that is missing in what is stored is read as its default: another value gives another meaning.
#[test]
fn the_values_of_defaults_are_part_of_a_shape_where_they_are_always_the_same() {
    mod before {
        pub(super) fn limit() -> u64 {
            100
        }
    }
    mod after {
        pub(super) fn limit() -> u64 {
            200
        }
    }
    fn another_each_time() -> u64 {
        use std::sync::atomic::{AtomicU64, Ordering};
        static LAST: AtomicU64 = AtomicU64::new(0);
        LAST.fetch_add(1, Ordering::Relaxed)
    }
    macro_rules! text {
        ($limit:path) => {{
            use $limit as limit;
            #[derive(Serialize, Deserialize, Shape)]
            struct Account {
                #[serde(default = "limit", skip_serializing_if = "is_zero")]
                limit: u64,
            }
            text::<Account>()
        }};
    }
    let attribute = r#"#[serde(default = "limit", skip_serializing_if = "is_zero")]"#;
    assert_eq!(text!(before::limit), format!("#0{{{attribute} limit: u64 = 100}}"));
    assert_eq!(text!(after::limit), format!("#0{{{attribute} limit: u64 = 200}}"));
    assert_eq!(text!(another_each_time), format!("#0{{{attribute} limit: u64}}"));
    assert_eq!(
        text::<Options>(),
        "#0#[serde(default)] {fast: bool = false, seen: set<text> = []}",
        "of the whole struct's default"
    );
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

mod two_releases {
    use super::*;

    pub(super) mod one {
        use super::*;
        #[derive(Default, Serialize, Deserialize, Shape)]
        pub(crate) struct Account {
            pub(crate) sums: Vec<Option<(Sums, u8)>>,
        }
        #[derive(Default, Serialize, Deserialize, Shape)]
        pub(crate) struct Sums {
            pub(crate) paid: u64,
        }
    }

    pub(super) mod two {
        use super::*;
        #[derive(Default, Serialize, Deserialize, Shape)]
        pub(crate) struct Account {
            pub(crate) sums: Vec<Option<(Sums, u8)>>,
        }
        #[derive(Default, Serialize, Deserialize, Shape)]
        pub(crate) struct Sums {
            pub(crate) paid: u64,
            #[serde(default)]
            pub(crate) taken: u64,
        }
    }
}

#[test]
fn a_change_deep_inside_changes_the_shape_and_a_renamed_type_does_not() {
    assert_ne!(text::<two_releases::one::Account>(), text::<two_releases::two::Account>());

    #[derive(Serialize, Deserialize, Shape)]
    struct Other {
        sums: Vec<Option<(Renamed, u8)>>,
    }
    #[derive(Serialize, Deserialize, Shape)]
    struct Renamed {
        paid: u64,
    }
    assert_eq!(text::<two_releases::one::Account>(), text::<Other>());
}

/// Each differs from the first in one respect, which gives what is stored another form.
#[test]
fn whatever_changes_what_is_stored_changes_the_shape() {
    macro_rules! texts {
        ($({$($definition:tt)*})+) => {
            [$({
                #[derive(Serialize, Deserialize, Shape)]
                $($definition)*
                text::<Other>()
            }),+]
        };
    }
    let texts = texts! {
        { struct Other { a: u64, b: Option<String> } }
        { struct Other { a: u32, b: Option<String> } }
        { struct Other { a: u64, b: String } }
        { struct Other { b: Option<String>, c: u64 } }
        { struct Other { a: u64, #[serde(default)] b: Option<String> } }
        { #[derive(Default)] #[serde(default)] struct Other { a: u64, b: Option<String> } }
        { struct Other { a: u64, #[serde(rename = "c")] b: Option<String> } }
        { #[serde(rename_all = "UPPERCASE")] struct Other { a: u64, b: Option<String> } }
        { struct Other { a: u64, #[serde(skip)] #[allow(dead_code)] b: Option<String> } }
        { struct Other { a: u64, #[shape(opaque = "text-1")] b: Option<String> } }
        { struct Other { a: u64, #[shape(opaque = "text-2")] b: Option<String> } }
        { struct Other { a: [u64; 1], b: Option<String> } }
        { struct Other { a: BTreeMap<u64, u64>, b: Option<String> } }
        { struct Other(u64, Option<String>); }
        { #[derive(Default)] #[serde(default)] struct Other(u64, Option<String>); }
        { struct Other; }
        { #[serde(rename = "unit")] struct Other; }
        { enum Other { A { a: u64, b: Option<String> } } }
        { enum Other { A(u64, Option<String>) } }
        { enum Other { A, B } }
        { enum Other { A, #[serde(rename = "C")] B } }
        { #[serde(tag = "t")] enum Other { A, B } }
    };
    let different: BTreeSet<_> = texts.iter().collect();
    assert_eq!(different.len(), texts.len(), "{texts:#?}");
}

#[allow(dead_code)]
fn nothing<T>() -> T {
    unreachable!("a default that nothing needs")
}

#[test]
fn what_a_type_is_wrapped_in_is_no_part_of_its_shape() {
    #[derive(Serialize, Deserialize, Shape)]
    struct Id(String);
    assert_eq!(text::<Id>(), "text");
    assert_eq!(text::<Box<Vec<std::sync::Arc<str>>>>(), "[text]");
    assert_eq!(text::<(HashSet<Id>, HashMap<Id, [u8; 2]>)>(), "(set<text>, map<text, [u8; 2]>)");
}

#[test]
fn a_type_that_is_written_as_another_has_its_shape() {
    #[derive(Clone, Serialize, Deserialize, Shape)]
    #[serde(into = "(u64, String)", from = "(u64, String)")]
    struct Money {
        amount: u64,
        currency: Unknown,
    }
    /// It has no shape of its own, and needs none.
    #[derive(Clone)]
    struct Unknown(String);
    impl From<Money> for (u64, String) {
        fn from(money: Money) -> Self {
            (money.amount, money.currency.0)
        }
    }
    impl From<(u64, String)> for Money {
        fn from((amount, currency): (u64, String)) -> Self {
            Self { amount, currency: Unknown(currency) }
        }
    }
    assert_eq!(text::<Money>(), r#"#[serde(into = "(u64, String)", from = "(u64, String)")] (u64, text)"#);
    assert_eq!(canonical(&Money { amount: 5, currency: Unknown("Kč".into()) }), r#"[5,"Kč"]"#);
}

#[test]
fn a_type_that_is_read_as_another_has_both_shapes() {
    #[derive(Clone, Serialize, Deserialize, Shape)]
    #[serde(from = "Old")]
    struct Read {
        amount: u64,
        fee: Option<u8>,
    }
    #[derive(Clone, Serialize, Deserialize, Shape)]
    #[serde(into = "u64", try_from = "Old")]
    struct Both(u64);
    /// With a later release's type inside, which is itself read as this one.
    #[derive(Serialize, Deserialize, Shape)]
    struct Old {
        amount: u32,
        then: Option<Box<Read>>,
    }
    impl From<Old> for Read {
        fn from(old: Old) -> Self {
            Self { amount: old.amount.into(), fee: old.then.and_then(|then| then.fee) }
        }
    }
    impl From<Old> for Both {
        fn from(old: Old) -> Self {
            Self(old.amount.into())
        }
    }
    impl From<Both> for u64 {
        fn from(both: Both) -> Self {
            both.0
        }
    }
    let read = r#"#0#[serde(from = "Old")] {amount: u64, fee: option<u8>}"#;
    assert_eq!(text::<Read>(), format!("{read} read as #1{{amount: u32, then: option<#0>}}"));
    let old = r#"#0{amount: u32, then: option<#1#[serde(from = "Old")] {amount: u64, fee: option<u8>} read as #0>}"#;
    assert_eq!(text::<Both>(), format!(r#"#[serde(into = "u64", try_from = "Old")] u64 read as {old}"#));
    // It is written as its own fields say.
    assert_eq!(canonical(&Read { amount: 5, fee: None }), r#"{"amount":5}"#);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
#[serde(rename_all = "camelCase")]
struct Order {
    zip_code: String,
    amount: u64,
    note: Option<String>,
    #[serde(default)]
    tags: HashMap<String, u64>,
    #[serde(default = "one")]
    count: u64,
    #[serde(default)]
    options: Options,
    #[serde(default = "some")]
    limit: Option<u64>,
    #[serde(default, with = "as_text")]
    fee: u64,
}

fn one() -> u64 {
    1
}

fn some() -> Option<u64> {
    Some(9)
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Shape)]
#[serde(default)]
struct Options {
    fast: bool,
    seen: HashSet<String>,
}

mod as_text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

fn order() -> Order {
    serde_json::from_str(r#"{"zipCode":"110 00","amount":0}"#).expect("all else has a default")
}

#[test]
fn members_are_sorted_and_what_equals_its_default_is_left_out_at_every_level() {
    assert_eq!(canonical(&order()), r#"{"amount":0,"zipCode":"110 00"}"#);
    let fast = Order { options: Options { fast: true, ..Options::default() }, ..order() };
    assert_eq!(canonical(&fast), r#"{"amount":0,"options":{"fast":true},"zipCode":"110 00"}"#);
    // A default is what the attribute says it is, not what looks like nothing.
    let others = Order { count: 0, limit: None, fee: 5, note: Some(String::new()), ..order() };
    assert_eq!(canonical(&others), r#"{"amount":0,"count":0,"fee":"5","limit":null,"note":"","zipCode":"110 00"}"#);
}

#[test]
fn what_is_the_same_is_written_the_same() {
    // Each has a random order of its own.
    let tags = || (0..30).map(|n| (format!("tag{n}"), n)).collect::<HashMap<_, _>>();
    let seen = || (0..30).map(|n| format!("seen{n}")).collect::<HashSet<_>>();
    let order = || Order { tags: tags(), options: Options { fast: true, seen: seen() }, ..order() };
    let written: BTreeSet<_> = (0..20).map(|_| canonical(&order())).collect();
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(canonical(&HashMap::from([(10, "b"), (9, "a")])), r#"{"10":"b","9":"a"}"#);
    assert_eq!(canonical(&HashSet::from([3, 20, 1])), "[1,20,3]");
    let nested = HashMap::from([("z", HashMap::from([("b", 1), ("a", 2)])), ("é", HashMap::new())]);
    assert_eq!(canonical(&nested), r#"{"z":{"a":2,"b":1},"é":{}}"#);
}

#[test]
fn what_is_left_out_is_read_as_the_same() {
    let orders = [
        order(),
        Order { note: Some("x".into()), count: 7, ..order() },
        Order { options: Options { fast: true, seen: ["a".into()].into() }, ..order() },
        Order { tags: [("a".into(), 0)].into(), limit: None, fee: 3, ..order() },
    ];
    for order in orders {
        assert_eq!(serde_json::from_str::<Order>(&canonical(&order)).unwrap(), order);
    }
    let tree = |children: Vec<Tree>| Tree { value: 1, children, parent: None };
    let nested = tree(vec![tree(vec![]), tree(vec![tree(vec![])])]);
    assert_eq!(canonical(&nested), r#"{"children":[{"value":1},{"children":[{"value":1}],"value":1}],"value":1}"#);
    assert_eq!(serde_json::from_str::<Tree>(&canonical(&nested)).unwrap(), nested);
}

#[test]
fn nothing_is_left_out_that_is_not_read_from_nothing() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Shape)]
    struct Limit(Option<u64>);
    #[derive(Debug, PartialEq, Serialize, Deserialize, Shape)]
    struct Wrapped {
        limit: Limit,
        #[serde(with = "as_text")]
        fee: u64,
        both: (Option<u8>, Option<u8>),
    }
    let wrapped = Wrapped { limit: Limit(None), fee: 0, both: (None, Some(1)) };
    assert_eq!(canonical(&wrapped), r#"{"both":[null,1],"fee":"0","limit":null}"#);
    assert_eq!(serde_json::from_str::<Wrapped>(&canonical(&wrapped)).unwrap(), wrapped);
}

#[test]
fn any_value_is_read_back_and_equal_values_are_equal_bytes() {
    let mut random = fastrand::Rng::with_seed(2);
    let word = |random: &mut fastrand::Rng| -> String {
        let letters = ["", "a", "b", "\"", "\\", "\u{1}", "é", "\u{1f600}", "\u{fb33}"];
        (0..random.usize(..4)).map(|_| *random.choice(&letters).unwrap()).collect()
    };
    for _ in 0..5_000 {
        let order = Order {
            zip_code: word(&mut random),
            amount: random.u64(..3),
            note: random.bool().then(|| word(&mut random)),
            tags: (0..random.usize(..5)).map(|_| (word(&mut random), random.u64(..))).collect(),
            count: random.u64(..3),
            options: Options { fast: random.bool(), seen: (0..random.usize(..5)).map(|_| word(&mut random)).collect() },
            limit: random.bool().then(|| random.u64(8..11)),
            fee: random.u64(..2),
        };
        let written = canonical(&order);
        assert_eq!(serde_json::from_str::<Order>(&written).unwrap(), order, "{written}");
        // As another process has it, with other maps, of all that serde writes.
        let again: Order = serde_json::from_str(&serde_json::to_string(&order).unwrap()).unwrap();
        assert_eq!(canonical(&again), written);
    }
}

#[test]
fn enums_of_every_representation() {
    #[derive(Debug, PartialEq, Serialize, Deserialize, Shape)]
    enum Outside {
        Unit,
        One(Options),
        Two(Option<u8>, u8),
        Named { z: u8, a: Option<u8> },
    }
    assert_eq!(canonical(&Outside::Unit), r#""Unit""#);
    assert_eq!(canonical(&Outside::One(Options::default())), r#"{"One":{}}"#);
    assert_eq!(canonical(&Outside::Two(None, 1)), r#"{"Two":[null,1]}"#);
    assert_eq!(canonical(&Outside::Named { z: 1, a: None }), r#"{"Named":{"z":1}}"#);

    #[derive(Debug, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(tag = "kind", rename_all = "snake_case", rename_all_fields = "UPPERCASE")]
    enum Inside {
        OneField { z: u8, a: Option<u8> },
        Inner(Options),
        Unit,
    }
    assert_eq!(canonical(&Inside::OneField { z: 1, a: None }), r#"{"Z":1,"kind":"one_field"}"#);
    assert_eq!(canonical(&Inside::Inner(Options::default())), r#"{"kind":"inner"}"#);
    assert_eq!(canonical(&Inside::Unit), r#"{"kind":"unit"}"#);

    // Nothing is known of what stands where: nothing is left out, and members are sorted.
    #[derive(Debug, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(tag = "t", content = "c")]
    enum Beside {
        A { z: Option<u8>, a: u8 },
    }
    assert_eq!(canonical(&Beside::A { z: None, a: 1 }), r#"{"c":{"a":1,"z":null},"t":"A"}"#);
}

#[test]
fn what_is_flattened_stands_among_the_others() {
    #[derive(Serialize, Deserialize, Shape)]
    struct Outer {
        z: u8,
        #[serde(flatten)]
        options: Options,
        a: Option<u8>,
        #[serde(flatten)]
        rest: BTreeMap<String, Option<u8>>,
    }
    let rest = BTreeMap::from([("m".to_owned(), None)]);
    let outer = Outer { z: 1, options: Options { fast: true, ..Options::default() }, a: None, rest };
    assert_eq!(canonical(&outer), r#"{"fast":true,"m":null,"z":1}"#);
}

#[test]
fn texts_and_numbers_are_written_as_rfc_8785_says_and_whole_floats_stay_floats() {
    // The example of its section 3.2.3.
    let keys = ["\u{20ac}", "\r", "\u{fb33}", "1", "\u{1f600}", "\u{80}", "\u{f6}"];
    let map: HashMap<_, _> = keys.into_iter().map(|key| (key, 0)).collect();
    assert_eq!(
        canonical(&map),
        "{\"\\r\":0,\"1\":0,\"\u{80}\":0,\"\u{f6}\":0,\"\u{20ac}\":0,\"\u{1f600}\":0,\"\u{fb33}\":0}"
    );
    assert_eq!(
        canonical(&"\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}\t\u{8}\u{c}"),
        "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\\t\\b\\f\""
    );
    // Of its appendix B, and around the places where the form changes.
    let numbers = [
        (0.0, "0.0"),
        (-0.0, "0.0"),
        (5e-324, "5e-324"),
        (-f64::MAX, "-1.7976931348623157e+308"),
        (9_007_199_254_740_992.0, "9007199254740992.0"),
        (295_147_905_179_352_830_000.0, "295147905179352830000.0"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (333_333_333.333_333_3, "333333333.3333333"),
        (-0.01, "-0.01"),
        (100.0, "100.0"),
    ];
    for (number, written) in numbers {
        assert_eq!(canonical(&number), written);
    }
    assert_eq!(canonical(&0.1f32), "0.1");
    assert_eq!(canonical(&(u64::MAX, i128::MIN)), "[18446744073709551615,-170141183460469231731687303715884105728]");
    let known = known::<f64>(Role::Value, |shapes| vec![Content::One(Link::new("", shapes.of::<f64>()))]);
    assert_eq!(known.canonical(0, f64::NAN).unwrap_err(), "JSON has no number for NaN");
}

/// Any float is read back the same.
#[test]
fn floats_are_read_back_equal() {
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..50_000 {
        let number = f64::from_bits(random.u64(..));
        if number.is_finite() && number != 0.0 {
            assert_eq!(canonical(&number).parse(), Ok(number));
        }
        let short = random.i32(-10_000..10_000) as f64 / 100.0;
        assert_eq!(canonical(&short).parse(), Ok(short));
    }
}

/// The same JSON whatever the canonical form knows: of a value without defaults and maps, sorted by names.
#[test]
fn a_value_of_which_nothing_is_known_is_sorted_json() {
    let json = serde_json::json!({"b": [1, null, {"d": true, "c": "x\u{1}"}], "a": {}, "c": [], "aa": -5});
    assert_eq!(canonical(&json), r#"{"a":{},"aa":-5,"b":[1,null,{"c":"x\u0001","d":true}],"c":[]}"#);
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, crate::Command)]
enum Before {
    Pay { amount: u64, to: Vec<u8> },
    Close,
    Wrapped(Inner1),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
struct Inner1 {
    a: u8,
}

/// The next release: fields with defaults, everywhere, and in another order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, crate::Command)]
enum After {
    Close {
        reason: Option<String>,
    },
    Wrapped(Inner2),
    Pay {
        note: Option<String>,
        to: Vec<u8>,
        #[serde(default)]
        urgent: bool,
        amount: u64,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
struct Inner2 {
    #[serde(default)]
    b: Vec<u8>,
    a: u8,
}

#[test]
fn a_later_release_takes_the_same_request_for_the_same_command() {
    let pairs = [
        (Before::Pay { amount: 5, to: vec![1] }, "pay"),
        (Before::Close, "close"),
        (Before::Wrapped(Inner1 { a: 1 }), "wrapped"),
    ];
    for (before, name) in pairs {
        let sent = codec::encode_command::<Json, _>(&before).unwrap();
        let after: After = codec::decode_command::<Json, _>(name, &sent.payload).unwrap();
        assert_eq!(codec::hash_command(&after), codec::hash_command(&before), "{name}");
    }
    let urgent = After::Pay { note: None, to: vec![1], urgent: true, amount: 5 };
    assert_ne!(codec::hash_command(&urgent), codec::hash_command(&Before::Pay { amount: 5, to: vec![1] }));
}

#[test]
fn a_hash_is_of_the_name_and_the_canonical_form() {
    let hash = codec::hash_command(&Before::Pay { amount: 5, to: vec![] }).unwrap();
    assert_eq!(hash, CommandHash::of("pay", br#"{"amount":5,"to":[]}"#));
    assert_eq!(hash.to_string(), "01f376ac0574182df61a74fdaca8946d07");
    assert_eq!(codec::hash_command(&Before::Close), Ok(CommandHash::of("close", b"{}")));
}

#[test]
fn a_hash_of_a_kind_that_is_not_known_is_never_the_same_or_another() {
    let known = CommandHash::of("pay", b"{}");
    let mut other = known;
    other.0[0] = 2;
    assert_eq!((known.is_same(known), known.is_same(CommandHash::of("pay", b"[]"))), (Some(true), Some(false)));
    for (one, two) in [(known, other), (other, known), (other, other), (CommandHash::default(), known)] {
        assert_eq!(one.is_same(two), None);
    }
}

#[test]
fn a_default_that_panics_or_that_is_never_the_same_leaves_nothing_out() {
    #[derive(Serialize, Deserialize, Shape)]
    struct Odd {
        #[serde(default = "nothing")]
        a: u8,
    }
    assert_eq!(canonical(&Odd { a: 0 }), r#"{"a":0}"#);
}
