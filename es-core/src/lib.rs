//! es-core
// Lets the derives, which write `::es_core::…`, be used in this crate's own docs and tests.
extern crate self as es_core;

mod aggregate;
mod bus;
mod clock;
pub mod codec;
#[cfg(feature = "derive")]
#[doc(hidden)]
pub mod doc;
mod engine;
mod envelope;
mod error;
mod ids;
pub mod log;
mod owner;
mod partition;
mod reader;
pub mod record;
mod round;
mod state;
mod store;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod validity;

pub use aggregate::{Aggregate, Apply, Command, Context, Event, Field, Handle, MessageType, Refusal};
pub use bus::{Bus, PartitionStatus, Receipt, Send};
pub use clock::{Clock, ManualClock, SystemClock};
pub use codec::{Codec, Json};
pub use engine::{Engine, EngineConfig, StartError};
pub use envelope::{CommandHash, Envelope, EventHash};
pub use error::{Cause, DecodeError, InvalidCommand, InvalidId, NotDone, SendError};
pub use store::StoreError;
#[cfg(feature = "derive")]
pub use es_derive::{Aggregate, Command, Event};
pub use ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion,
    ID_MAX_BYTES, Position, StreamId, Version,
};
pub use owner::OwnerState;
pub use partition::partition_of;
pub use reader::{Checkpoint, EventSource, Fed, PartitionReader, Recorded, events_topic, verify_checkpoint};
