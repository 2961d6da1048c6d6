//! Event sourcing and CQRS: aggregates, the command bus, the write path and the log.
//!
//! Domain code is an [`Aggregate`]: a state, its commands and its events, with [`Handle`] to decide and [`Apply`] to
//! fold. An [`Engine`] runs one owner per partition of the log; a [`Bus`] takes each command to the owner of its
//! aggregate and brings back a [`Receipt`] or the domain's refusal.
//!
//! The log is behind the trait [`log::Log`]: [`log::memory::MemoryLog`] for tests, [`log::embedded::EmbeddedLog`] for
//! one machine, Apache Kafka in the crate `es-kafka`. Which records of a log count is decided by [`validity`], the
//! same for every reader; [`PartitionReader`] applies it, for projections too.
//!
//! ```
//! use es_core::doc::{Account, AccountCommand, AccountError}; // a small account, as in the README
//! use es_core::{Engine, SendError};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::in_memory();
//! let bus = engine.start::<Account>().await?;
//! bus.ready().await?;
//!
//! let id = "42".to_owned();
//! bus.send(&id, AccountCommand::Deposit { amount: 5 }).await?;
//! let too_much = bus.send(&id, AccountCommand::Withdraw { amount: 8 }).await;
//! assert!(matches!(too_much, Err(SendError::Refused(AccountError::InsufficientFunds { balance: 5 }))));
//! engine.shutdown().await;
//! # Ok(())
//! # }
//! ```

// Lets the derives, which write `::es_core::…`, be used in this crate's own docs and tests.
extern crate self as es_core;

mod aggregate;
mod budget;
mod bus;
mod causes;
mod clock;
pub mod codec;
#[cfg(feature = "derive")]
#[doc(hidden)]
pub mod doc;
mod engine;
mod envelope;
mod error;
mod forgetting;
mod forward;
pub mod group;
mod guard;
mod ids;
mod limits;
pub mod log;
mod membership;
mod owner;
mod parked;
mod partition;
mod pause;
mod random;
mod reader;
pub mod record;
mod retry;
mod round;
mod scan;
pub mod seal;
pub mod shape;
mod snapshot;
mod state;
mod store;
mod supervise;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod text;
pub mod validity;
pub mod verify;

pub use aggregate::{Aggregate, Apply, Command, Context, Event, Field, Handle, MessageType, Refusal};
pub use bus::{Bus, PartitionStatus, Receipt, Send};
pub use causes::with_causes;
pub use clock::{Clock, ManualClock, SystemClock};
pub use codec::{Codec, Json};
pub use engine::{Engine, EngineConfig, StartError};
pub use envelope::{CommandHash, Envelope, EventHash};
pub use error::{Cause, DecodeError, InvalidCommand, InvalidId, NotDone, SendError};
#[cfg(feature = "derive")]
pub use es_derive::{Aggregate, Command, Event, Shape};
pub use ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion,
    ID_MAX_BYTES, Position, StreamId, Version,
};
pub use owner::OwnerState;
pub use parked::ParkedAggregate;
pub use partition::partition_of;
pub use random::{Random, SeededRandom, SystemRandom};
pub use reader::{
    Checkpoint, EventSource, Fed, LastRecord, PartitionReader, Recorded, events_topic, verify_checkpoint,
};
pub use retry::{Retried, RetryError};
pub use shape::Shape;
pub use snapshot::snapshots_topic;
pub use store::StoreError;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
