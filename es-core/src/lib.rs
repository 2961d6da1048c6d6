//! es-core
// Lets the derives, which write `::es_core::…`, be used in this crate's own docs and tests.
extern crate self as es_core;

mod aggregate;
mod clock;
pub mod codec;
mod envelope;
mod error;
mod ids;
pub mod log;
mod partition;
mod reader;
pub mod record;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod validity;

pub use aggregate::{Aggregate, Apply, Command, Context, Event, Field, Handle, MessageType, Refusal};
pub use clock::{Clock, ManualClock, SystemClock};
pub use codec::{Codec, Json};
pub use envelope::{CommandHash, Envelope, EventHash};
pub use error::{Cause, DecodeError, InvalidCommand, InvalidId, NotDone, SendError};
#[cfg(feature = "derive")]
pub use es_derive::{Aggregate, Command, Event};
pub use ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion,
    ID_MAX_BYTES, Position, StreamId, Version,
};
pub use partition::partition_of;
pub use reader::{Checkpoint, EventSource, Fed, PartitionReader, Recorded, events_topic, verify_checkpoint};
