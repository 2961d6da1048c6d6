//! The derive macros of `es-core`, which are `Event`, `Command`, `Aggregate` and `Shape`, and of `es-projections`:
//! `ReadModel` and `ColumnValue`.
//!
//! Use them through these crates, which re-export them beside the traits of the same names (`es_core` by its feature
//! `derive`, on by default). Each derive reads its attributes (`attr`), collects what it refuses (`refusals`) and writes the
//! implementation; `message` is what events and commands have in common.

mod aggregate;
#[cfg(test)]
mod any_input;
mod attr;
mod column_value;
mod command;
mod event;
mod message;
mod names;
mod place;
mod read_model;
mod refusals;
mod serde_attr;
mod shape;
mod text;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `es_core::Event` for an enum: one variant per event type.
///
/// A variant is stored as its fields alone, under the name that its attribute gives. So Rust names can change freely,
/// and a stored name never changes. The types of its fields have a [`Shape`]. Variants have named fields, a single unnamed one, or none; they own their data,
/// so neither lifetimes nor `&'static` fields are allowed. The enum also derives or implements `Clone`, `Debug`, and
/// serde's `Serialize` and `Deserialize`.
///
/// | on | attribute | says |
/// |---|---|---|
/// | the enum | `#[event(aggregate = "account")]` | the stored name of the aggregate whose events these are; required |
/// | a variant | `#[event(name = "opened")]` | the stored name of the event type; required |
/// | a variant | `#[event(name = "opened", version = 2)]` | the version of its fields' shape; 1 unless given |
/// | a field | `#[shape(opaque = "money-1")]` | the name of its type's shape, for a type that has none |
///
/// Stored names are lower case: a letter, then letters, digits, `_` and `-`, in an event's name also `.`; at most 100
/// characters. Every `#[serde(…)]` attribute on a field works as usual. Those that choose another representation of
/// the enum (`tag`, `untagged`, `from` …) or leave variants out (`skip`, `other` …) are refused.
///
/// # Example: two event types
/// ```
/// use es_core::Event;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, Event)]
/// #[event(aggregate = "account")]
/// pub enum AccountEvent {
///     #[event(name = "opened", version = 2)]
///     Opened { owner: String, overdraft_limit: i64 },
///     #[event(name = "closed")]
///     Closed,
/// }
///
/// assert_eq!(AccountEvent::AGGREGATE, "account");
/// let opened = AccountEvent::Opened { owner: "Ada".into(), overdraft_limit: 0 };
/// let stored = &AccountEvent::TYPES[opened.type_index()];
/// assert_eq!((stored.name, stored.schema_version), ("opened", 2));
/// assert_eq!((stored.fields[1].name, stored.fields[1].rust_type), ("overdraft_limit", "i64"));
/// ```
///
/// # Example: a generic event
/// The bounds are written by hand; `#[serde(bound = "")]` keeps serde from adding its own beside them.
/// ```
/// use es_core::Event;
/// use es_core::Shape;
/// use serde::{Deserialize, Serialize, de::DeserializeOwned};
///
/// pub trait Amount: Shape + Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync {}
/// impl Amount for u64 {}
///
/// #[derive(Debug, Clone, Serialize, Deserialize, Event)]
/// #[serde(bound = "")]
/// #[event(aggregate = "purse")]
/// pub enum PurseEvent<A: Amount> {
///     #[event(name = "filled")]
///     Filled { amount: A },
/// }
///
/// assert_eq!(PurseEvent::Filled { amount: 5u64 }.type_index(), 0);
/// ```
#[proc_macro_derive(Event, attributes(event, shape))]
pub fn event(input: TokenStream) -> TokenStream {
    event::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_core::Command` for an enum: one variant per command type.
///
/// The stored name is the variant's in snake case (`OpenAccount` is `open_account`) unless an attribute gives another:
/// commands wait in the log for days at most, so their names follow the code. What is said of variants, fields, stored
/// names, shapes and serde attributes of events holds for commands too.
///
/// | on | attribute | says |
/// |---|---|---|
/// | a variant | `#[command(name = "open")]` | the stored name of the command type; the variant in snake case unless given |
///
/// # Example
/// ```
/// use es_core::Command;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, Command)]
/// pub enum AccountCommand {
///     OpenAccount { owner: String },
///     #[command(name = "close")]
///     CloseForEver,
/// }
///
/// let names: Vec<_> = AccountCommand::TYPES.iter().map(|command| command.name).collect();
/// assert_eq!(names, ["open_account", "close"]);
/// assert_eq!(AccountCommand::CloseForEver.type_index(), 1);
/// ```
#[proc_macro_derive(Command, attributes(command, shape))]
pub fn command(input: TokenStream) -> TokenStream {
    command::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_core::Aggregate` for a struct: the state of one instance, folded from its events.
///
/// The attribute names the types that belong together and what is stored; the behaviour is in `Handle` and `Apply`.
/// That the event enum belongs to this aggregate (`#[event(aggregate = "…")]`) is checked when it is compiled. The
/// struct also derives or implements `Clone`, `Default` (the state before the first event), and serde's `Serialize`
/// and `Deserialize`. For a state that is an enum, wrap it: `struct Account(Status);`.
///
/// | `#[aggregate(…)]` | says |
/// |---|---|
/// | `context = "bank"` | the bounded context: the first part of topic names; required |
/// | `name = "account"` | the stored name of the aggregate type; required |
/// | `command = AccountCommand` | its commands; required |
/// | `event = AccountEvent` | its events; required |
/// | `id = AccountId` | the type of its ids; `String` unless given |
/// | `error = AccountError` | why it refuses a command; `es_core::Rejection`, a text, unless given |
/// | `snapshot = 2` | raised by hand to build stored states anew; 1 unless given |
/// | `codec = MyCodec` | how payloads become bytes; `es_core::Json` unless given |
///
/// The aggregate has a `Shape`, as all types inside of it have: a stored state is built anew from events by itself when
/// names or types of fields change, or serde's attributes, or the value of a field's default, however deep inside. Raise
/// `snapshot` for what a shape can't tell: a change in `apply`, in the state's `Default`, and in code that writes or reads
/// values, which [`Shape`](macro@Shape) lists.
///
/// # Example
/// ```
/// use es_core::{Aggregate, Command, Event};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, Serialize, Deserialize, Command)]
/// pub enum CounterCommand { Increment }
///
/// #[derive(Debug, Clone, Serialize, Deserialize, Event)]
/// #[event(aggregate = "counter")]
/// pub enum CounterEvent {
///     #[event(name = "incremented")]
///     Incremented,
/// }
///
/// #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
/// pub enum CounterError {
///     #[error("the counter is full")]
///     Full,
/// }
///
/// #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
/// #[aggregate(
///     context = "demo", name = "counter", id = String,
///     command = CounterCommand, event = CounterEvent, error = CounterError,
/// )]
/// pub struct Counter { count: u64 }
///
/// assert_eq!((Counter::CONTEXT, Counter::NAME), ("demo", "counter"));
/// assert_eq!(Counter::SNAPSHOT_VERSION, 1);
/// assert_eq!(es_core::shape::text::<Counter>(), "#0{count: u64}");
/// ```
#[proc_macro_derive(Aggregate, attributes(aggregate, shape))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    aggregate::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_core::Shape` for a struct or an enum: what its values look like where they are stored and sent.
///
/// Every type inside of an aggregate, an event or a command has a shape. It is made of what serde's derives write:
/// names, types, serde's attributes, and the values of the defaults that `#[serde(default …)]` gives to named fields;
/// names of Rust types are no part of it. So a change of these changes the shape, however deep inside it is made.
///
/// A shape does not see into code. It stays the same when the body of a function changes that `#[serde(with = …)]`,
/// `serialize_with`, `deserialize_with` or `skip_serializing_if` names, of a conversion for `from`, `try_from` or `into`,
/// or of a serde trait that is written by hand; also when the default of an unnamed or a skipped field changes, or one
/// that is another at each call, such as the time. With `into` alone, the fields that are read are not seen. Where such a
/// change gives stored values another meaning, change a name with it, as that of `#[shape(opaque = …)]`, or raise
/// `snapshot` in the aggregate.
///
/// | on | attribute | says |
/// |---|---|---|
/// | a field | `#[shape(opaque = "money-1")]` | the name of its type's shape, for a type of another crate that has none: change it when what is stored of the type changes |
/// | the type | `#[shape(opaque = "money-1")]` | the same for this type, where serde's traits are written by hand |
///
/// Type parameters are bound to have a shape too, and to be serialised.
///
/// # Example
/// ```
/// use es_core::Shape;
/// use serde::{Deserialize, Serialize};
/// # mod other { #[derive(serde::Serialize, serde::Deserialize)] pub struct Color; }
///
/// #[derive(Serialize, Deserialize, Shape)]
/// #[serde(rename_all = "camelCase")]
/// struct Line {
///     from_point: (i64, i64),
///     #[serde(default)]
///     style: Style,
///     #[shape(opaque = "color-1")]
///     color: other::Color,
/// }
///
/// #[derive(Default, Serialize, Deserialize, Shape)]
/// enum Style {
///     #[default]
///     Solid,
///     Dashed { gaps: Vec<u8> },
/// }
///
/// assert_eq!(
///     es_core::shape::text::<Line>(),
///     "#0#[serde(rename_all = \"camelCase\")] {fromPoint: (i64, i64), \
///      #[serde(default)] style: #1<Solid, Dashed {gaps: [u8]}> = \"Solid\", color: color-1}"
/// );
/// ```
#[proc_macro_derive(Shape, attributes(shape))]
pub fn shape(input: TokenStream) -> TokenStream {
    shape::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_projections::ReadModel` for a struct: a row of a table, a column per field.
///
/// The struct has named fields that own their data, no parameters, and also derives or implements `Clone`. How events
/// change its rows is in `Fold`, and a `Model` of it is what a worker runs.
///
/// | on | attribute | says |
/// |---|---|---|
/// | the struct | `#[read_model(name = "accounts")]` | the name of the table and of its projection; required |
/// | the struct | `#[read_model(version = 2)]` | raised whenever the same events would give other rows; 1 unless given |
/// | the struct | `#[read_model(index(by_owner = [owner, id]))]` | an index over the columns of these fields; any number of them |
/// | a field | `#[key]` | it is the key, by which rows are told apart, or a part of it; required on one field or more |
/// | a field | `#[column(name = "holder")]` | the name of its column; the field's unless given |
/// | a field | `#[column(json)]` | it is kept as JSON, by serde's `Serialize` and `Deserialize` |
/// | a field | `#[column(text)]` | it is kept as text, by `Display` and `FromStr` |
///
/// A field that is kept neither as JSON nor as text has a type that is a `ColumnValue`: integers, `String`, `bool`, bytes,
/// decimals, UUIDs, times, dates, newtypes that derive it, and an `Option` of each. Where a field that is kept as JSON or as
/// text is written `Option<…>`, `None` is no value rather than a text.
///
/// Names are lower case letters, digits and `_`, a letter first: at most 24 for the table, 60 for a column, 14 for an index.
/// Those of tables and columns don't begin with `es_`.
///
/// # Example: a key, an index, and how fields are kept
/// ```
/// use es_projections::{Kind, ReadModel};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
/// pub struct Address { city: String }
///
/// #[derive(Debug, Clone, PartialEq, ReadModel)]
/// #[read_model(name = "accounts", version = 2, index(by_balance = [balance, id]), index(by_owner = [owner]))]
/// pub struct AccountRow {
///     #[key]
///     id: String,
///     #[column(name = "holder")]
///     owner: String,
///     balance: i64,
///     #[column(json)]
///     address: Option<Address>,
///     #[column(text)]
///     last_seen_from: std::net::IpAddr,
/// }
///
/// let table = AccountRow::table();
/// let columns: Vec<_> = table.columns().iter().map(|column| (column.name.as_str(), column.kind, column.optional)).collect();
/// assert_eq!(columns, [
///     ("id", Kind::Text, false),
///     ("holder", Kind::Text, false),
///     ("balance", Kind::Integer, false),
///     ("address", Kind::Json, true),
///     ("last_seen_from", Kind::Text, false),
/// ]);
/// ```
///
/// # Example: a key of several fields
/// The key is a tuple of their types, in the order of the fields; their columns come first in the table.
/// ```
/// use es_projections::ReadModel;
///
/// #[derive(Debug, Clone, ReadModel)]
/// #[read_model(name = "monthly_turnover")]
/// pub struct Turnover {
///     #[key]
///     account: String,
///     amount: i64,
///     #[key]
///     month: u32,
/// }
///
/// let row = Turnover { account: "1".into(), amount: 5, month: 202611 };
/// assert_eq!(row.key(), ("1".to_owned(), 202611));
/// assert_eq!(Turnover::table().columns()[1].name, "month");
/// ```
#[proc_macro_derive(ReadModel, attributes(read_model, key, column))]
pub fn read_model(input: TokenStream) -> TokenStream {
    read_model::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_projections::ColumnValue` for a newtype, a struct with one field: a column holds it as what is inside.
///
/// It derives `FromValue` too, so that the newtype can be read from a row of one's own SQL. There are no attributes, and
/// the struct has no parameters. A column is read without a check, so implement both by hand where not every value of the
/// inner type is one of the newtype.
///
/// # Example
/// ```
/// use es_projections::{ColumnValue, Kind, ReadModel, Value};
///
/// #[derive(Debug, Clone, PartialEq, Eq, Hash, ColumnValue)]
/// pub struct AccountId(String);
///
/// #[derive(Debug, Clone, Copy, PartialEq, ColumnValue)]
/// pub struct Cents { amount: i64 }
///
/// #[derive(Debug, Clone, PartialEq, ReadModel)]
/// #[read_model(name = "accounts")]
/// pub struct AccountRow {
///     #[key]
///     id: AccountId,
///     balance: Cents,
///     overdraft: Option<Cents>,
/// }
///
/// let row = AccountRow { id: AccountId("1".into()), balance: Cents { amount: 5 }, overdraft: None };
/// assert_eq!(row.to_values()?, [Value::Text("1".into()), Value::Integer(5), Value::Null]);
/// assert_eq!(Cents::KIND, Kind::Integer);
/// # Ok::<(), es_projections::Error>(())
/// ```
#[proc_macro_derive(ColumnValue)]
pub fn column_value(input: TokenStream) -> TokenStream {
    column_value::expand(&parse_macro_input!(input as DeriveInput)).into()
}
