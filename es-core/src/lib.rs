//! es-core
// Lets the derives, which write `::es_core::…`, be used in this crate's own docs and tests.
extern crate self as es_core;

mod aggregate;
pub mod codec;
mod error;
mod ids;

pub use aggregate::{Aggregate, Apply, Command, Context, Event, Field, Handle, MessageType, Refusal};
pub use codec::{Codec, Json};
pub use error::{Cause, DecodeError, InvalidCommand, InvalidId, NotDone, SendError};
#[cfg(feature = "derive")]
pub use es_derive::{Aggregate, Command, Event};
pub use ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion,
    ID_MAX_BYTES, Position, StreamId, Version,
};
