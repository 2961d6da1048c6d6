//! Event sourcing and CQRS: aggregates, the command bus, the write path and the log.
//!
//! Domain code is an [`Aggregate`]: a state, its commands and its events, with [`Handle`] to decide and [`Apply`] to
//! fold. An [`Engine`] runs one owner per partition of the log; a [`Bus`] takes each command to the owner of its
//! aggregate and brings back a [`Receipt`] or the domain's refusal.
//!
//! The log is behind the trait [`log::Log`]: [`log::memory::MemoryLog`] for tests, [`log::embedded::EmbeddedLog`] for
//! one machine, Apache Kafka in the crate `es-kafka`. Which records of a log count is decided by [`log::validity`], the
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

// What the engine alone uses of the domain.
#![cfg_attr(not(feature = "engine"), allow(dead_code))]

// Lets the derives, which write `::es_core::…`, be used in this crate's own docs and tests.
extern crate self as es_core;

#[cfg(feature = "derive")]
#[doc(hidden)]
pub mod doc;
mod domain;
#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "engine")]
mod evidence;
#[cfg(feature = "engine")]
pub mod log;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use domain::{codec, shape};
#[cfg(feature = "engine")]
pub use evidence::{seal, verify};

pub use domain::aggregate::{
    Aggregate, Apply, Command, Context, Event, Field, Handle, MessageType, Refusal, Rejection,
};
pub use domain::causes::with_causes;
pub use domain::clock::{Clock, ManualClock, SystemClock};
pub use domain::envelope::Envelope;
pub use domain::error::{Cause, DecodeError, InvalidCommand, NotDone, SendError};
pub use domain::format::{Codec, Json};
pub use domain::hash::{CommandHash, EventHash};
pub use domain::ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion,
    ID_MAX_BYTES, InvalidId, Position, StreamId, Version,
};
pub use domain::random::{Random, SeededRandom, SystemRandom};
pub use domain::shape::Shape;
#[cfg(feature = "engine")]
pub use engine::bus::{Bus, Receipt, Sending};
#[cfg(feature = "engine")]
pub use engine::companion::{Beside, Companion};
#[cfg(feature = "engine")]
pub use engine::figures::{Figure, FigureKind, PartitionStatus};
#[cfg(feature = "engine")]
pub use engine::owner_state::OwnerState;
#[cfg(feature = "engine")]
pub use engine::parked::ParkedAggregate;
#[cfg(feature = "engine")]
pub use engine::retry::{Retried, RetryError};
#[cfg(feature = "engine")]
pub use engine::snapshot::snapshots_topic;
#[cfg(feature = "engine")]
pub use engine::store::StoreError;
#[cfg(feature = "engine")]
pub use engine::{Engine, EngineConfig, StartError};
#[cfg(feature = "derive")]
pub use es_derive::{Aggregate, Command, Event, Shape};
#[cfg(feature = "engine")]
pub use log::partition::partition_of;
#[cfg(feature = "engine")]
pub use log::reader::{
    Checkpoint, EventSource, Fed, LastRecord, PartitionReader, Recorded, events_topic, verify_checkpoint,
};
