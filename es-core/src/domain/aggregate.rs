//! Domain code: what a user implements or derives. Pure and synchronous; knows nothing of the engine.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::format::Codec;
use crate::domain::ids::{Actor, AggregateId, AggregateKey, CommandId, CorrelationId, Version};
use crate::domain::shape::{Content, Shape, Shapes};

/// The consistency boundary: its state is folded from one stream of events. Derived.
///
/// The derive states the types that belong together and the stored names; [`Handle`] and [`Apply`] hold the
/// behaviour. `Default` is the state before the first event.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "not an aggregate",
    note = "derive it: `#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]` and `#[aggregate(context = \"…\", name = \"…\", command = …, event = …)]`"
)]
pub trait Aggregate: Shape + Default + Clone + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The aggregate's id.
    type Id: AggregateId;
    /// What may be asked of it.
    type Command: Command;
    /// What may have happened to it.
    type Event: Event;
    /// Why it refuses a command. It travels between processes and is remembered, so its serde names must stay.
    type Error: Refusal;
    /// How payloads become bytes; [`crate::Json`] unless the derive says otherwise.
    type Codec: Codec;

    /// The bounded context, for example `bank`: the first part of topic names.
    const CONTEXT: &'static str;
    /// The stored name of the aggregate type, for example `account`.
    const NAME: &'static str;
    /// Raised by hand when stored states must be built anew although their [`Shape`] is the same. 1 unless given.
    const SNAPSHOT_VERSION: u32;
}

/// Decides a command: state and command give events, or a refusal. Pure; time and new ids come from the context.
#[doc(alias = "decide")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not handle its commands",
    label = "`Handle` is missing",
    note = "write `impl Handle for {Self} {{ fn handle(&self, command: …, cx: &Context) -> Result<Vec<…Event>, …Error> }}`"
)]
pub trait Handle: Aggregate {
    /// Decides `command` on the state of all earlier events. An empty list is a no-op: accepted, nothing happened.
    ///
    /// # Errors
    /// The domain's refusal. It is an answer like any other: remembered, and given again for the same command id.
    fn handle(&self, command: Self::Command, cx: &Context) -> Result<Vec<Self::Event>, Self::Error>;
}

/// Folds an event into the state. It can't fail: a recorded event is a fact.
#[doc(alias = "evolve")]
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not apply its events",
    label = "`Apply` is missing",
    note = "write `impl Apply for {Self} {{ fn apply(&mut self, event: &…Event) }}`"
)]
pub trait Apply: Aggregate {
    /// Changes the state by one event.
    fn apply(&mut self, event: &Self::Event);
}

/// A fact in the past tense. Derived on an enum, one variant per event type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an event enum",
    label = "not an event enum",
    note = "derive it: `#[derive(Debug, Clone, Serialize, Deserialize, Event)]` and `#[event(aggregate = \"…\")]`"
)]
pub trait Event: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The stored name of the aggregate type whose events these are.
    const AGGREGATE: &'static str;
    /// A description per variant, in declaration order.
    const TYPES: &'static [MessageType];
    /// The index of this event's variant in [`Event::TYPES`].
    fn type_index(&self) -> usize;
    /// What each variant holds, in declaration order.
    #[doc(hidden)]
    fn shapes(shapes: &mut Shapes) -> Vec<Content>;
}

/// A request in the imperative; may be refused. Derived on an enum, one variant per command type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a command enum",
    label = "not a command enum",
    note = "derive it: `#[derive(Debug, Clone, Serialize, Deserialize, Command)]`"
)]
pub trait Command: Clone + fmt::Debug + Serialize + DeserializeOwned + Send + Sync + 'static {
    /// A description per variant, in declaration order.
    const TYPES: &'static [MessageType];
    /// The index of this command's variant in [`Command::TYPES`].
    fn type_index(&self) -> usize;
    /// What each variant holds, in declaration order.
    #[doc(hidden)]
    fn shapes(shapes: &mut Shapes) -> Vec<Content>;
}

/// What an aggregate's error must be: an error that can be stored and sent. Implemented by the compiler.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be an aggregate's error",
    label = "a trait is missing",
    note = "it needs `#[derive(Debug, Serialize, Deserialize, thiserror::Error)]` and `#[error(\"…\")]` with its text; or leave `error` out: the aggregate then refuses with an `es_core::Rejection`, which is a text"
)]
pub trait Refusal: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: std::error::Error + Serialize + DeserializeOwned + Send + Sync + 'static> Refusal for T {}

/// A refusal that is a text, for aggregates that declare no error of their own.
///
/// ```
/// use es_core::Rejection;
///
/// fn withdraw(balance: u64, amount: u64) -> Result<u64, Rejection> {
///     balance.checked_sub(amount).ok_or_else(|| format!("the balance is {balance}").into())
/// }
///
/// assert_eq!(withdraw(5, 8), Err("the balance is 5".into()));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct Rejection(String);

impl From<&str> for Rejection {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl From<String> for Rejection {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

/// One variant of an event or command enum: its stored name, the version of its shape and its fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MessageType {
    /// The stored name.
    pub name: &'static str,
    /// The version of the payload's shape, from 1.
    pub schema_version: u32,
    /// The fields in declaration order; one named `0` for a newtype variant.
    pub fields: &'static [Field],
}

/// A field of an event or command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The Rust name.
    pub name: &'static str,
    /// The Rust type as written.
    pub rust_type: &'static str,
}

/// What a handler may know besides state and command. The same command decided twice sees the same ids.
#[derive(Debug, Clone)]
pub struct Context {
    pub(crate) aggregate: AggregateKey,
    pub(crate) version: Version,
    pub(crate) now: DateTime<Utc>,
    pub(crate) occurred_at: DateTime<Utc>,
    pub(crate) command_id: CommandId,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) actor: Option<Actor>,
}

impl Context {
    /// The id of the aggregate that decides.
    pub fn aggregate_id(&self) -> &AggregateKey {
        &self.aggregate
    }

    /// The version of the state that decides; 0 before the first event.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The time at which the events will be recorded. It never falls, so it may be a little ahead of the clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The business time that the sender gave, or else what the clock shows.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.occurred_at
    }

    /// The id of the command.
    pub fn command_id(&self) -> &CommandId {
        &self.command_id
    }

    /// The correlation id of the conversation.
    pub fn correlation_id(&self) -> &CorrelationId {
        &self.correlation_id
    }

    /// Who sent the command, where it was said.
    pub fn actor(&self) -> Option<&Actor> {
        self.actor.as_ref()
    }

    /// A new id that is the same however often this command is decided: UUIDv5 of aggregate, command id and `name`.
    pub fn new_id(&self, name: &str) -> Uuid {
        let text = format!("{}\0{}\0{name}", self.aggregate, self.command_id);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
    }
}
