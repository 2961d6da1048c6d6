//! The derive macros of `es-core`: `Event`, `Command` and `Aggregate`.
//!
//! Use them through `es_core`, whose feature `derive` (on by default) re-exports them beside the traits of the same
//! names. Each derive reads its attributes (`attr`), collects what it refuses (`refusals`) and writes the
//! implementation; `message` is what events and commands have in common.

mod aggregate;
#[cfg(test)]
mod any_input;
mod attr;
mod command;
mod event;
mod message;
mod refusals;
mod text;

use proc_macro::TokenStream;
use syn::{DeriveInput, parse_macro_input};

/// Derives `es_core::Event` for an enum: one variant per event type.
///
/// A variant is stored as its fields alone, under the name that its attribute gives. So Rust names can change freely,
/// and a stored name never changes. Variants have named fields, a single unnamed one, or none; they own their data,
/// so neither lifetimes nor `&'static` fields are allowed. The enum also derives or implements `Clone`, `Debug`, and
/// serde's `Serialize` and `Deserialize`.
///
/// | on | attribute | says |
/// |---|---|---|
/// | the enum | `#[event(aggregate = "account")]` | the stored name of the aggregate whose events these are; required |
/// | a variant | `#[event(name = "opened")]` | the stored name of the event type; required |
/// | a variant | `#[event(name = "opened", version = 2)]` | the version of its fields' shape; 1 unless given |
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
/// use serde::{Deserialize, Serialize, de::DeserializeOwned};
///
/// pub trait Amount: Clone + std::fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {}
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
#[proc_macro_derive(Event, attributes(event))]
pub fn event(input: TokenStream) -> TokenStream {
    event::expand(&parse_macro_input!(input as DeriveInput)).into()
}

/// Derives `es_core::Command` for an enum: one variant per command type.
///
/// The stored name is the variant's in snake case (`OpenAccount` is `open_account`) unless an attribute gives another:
/// commands wait in the log for days at most, so their names follow the code. What is said of variants, fields, stored
/// names and serde attributes of events holds for commands too.
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
#[proc_macro_derive(Command, attributes(command))]
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
/// | `id = AccountId` | the type of its ids; required |
/// | `command = AccountCommand` | its commands; required |
/// | `event = AccountEvent` | its events; required |
/// | `error = AccountError` | why it refuses a command; required |
/// | `snapshot = 2` | raised by hand to build stored states anew; 1 unless given |
/// | `codec = MyCodec` | how payloads become bytes; `es_core::Json` unless given |
///
/// A stored state is built anew from events by itself when names or types of this struct's fields change, or serde's
/// attributes on it or them (`SHAPE`). Raise `snapshot` for what the derive can't see: a change inside a field's
/// type, or in `apply`.
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
/// assert_eq!(Counter::SHAPE, "count: u64");
/// ```
#[proc_macro_derive(Aggregate, attributes(aggregate))]
pub fn aggregate(input: TokenStream) -> TokenStream {
    aggregate::expand(&parse_macro_input!(input as DeriveInput)).into()
}
