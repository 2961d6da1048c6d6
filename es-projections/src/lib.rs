//! Read models: projections fold the events of the log into SQL tables, on SQLite or PostgreSQL, from one source.
//!
//! A read model is mostly a [`Model`]: a struct that is a row (`#[derive(ReadModel)]`), and a [`Fold`] that says what an event does to which rows.
//! Whatever else can be said in SQL is a [`Projection`]: a name, tables and code that changes them. A [`Worker`] runs either: it reads all partitions of
//! its sources, decides by the validity rule which records count, and commits rows and checkpoint in one transaction,
//! so that a read model always equals the fold of the log at its checkpoint. [`RunningProjection::wait_for`] waits until a read
//! model contains what was written.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use es_core::doc::{Account, AccountCommand, AccountEvent};
//! use es_core::log::memory::MemoryLog;
//! use es_core::{Engine, EngineConfig, Recorded};
//! use es_projections::{Database, Fold, Model, ProjectionError, ReadModel, Rows, Worker};
//!
//! /// A row of the table `accounts`.
//! #[derive(Debug, Clone, PartialEq, ReadModel)]
//! #[read_model(name = "accounts", index(by_balance = [balance]))]
//! struct AccountRow {
//!     #[key]
//!     id: String,
//!     balance: i64,
//! }
//!
//! impl Fold<Account> for AccountRow {
//!     fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
//!         let id = recorded.envelope.stream.id.to_string();
//!         let new = || AccountRow { id: id.clone(), balance: 0 };
//!         match *event {
//!             AccountEvent::Deposited { amount } => rows.change_or_insert(&id, new, |row| row.balance += amount as i64),
//!             AccountEvent::Withdrawn { amount } => rows.change(&id, |row: &mut AccountRow| row.balance -= amount as i64),
//!         }
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Arc::new(MemoryLog::new(4)); // or an `EmbeddedLog`, or a `KafkaLog`
//! let engine = Engine::new(log.clone(), EngineConfig::default());
//! let bus = engine.start::<Account>().await?;
//! bus.ready().await?;
//!
//! let database = Database::connect("sqlite::memory:", "bank").await?;
//! let worker = Worker::new(database.clone(), log, vec![bus.source().clone()]);
//! let accounts = worker.start(Model::<AccountRow>::new().follow::<Account>()).await?;
//!
//! let id = "42".to_owned();
//! let receipt = bus.send(&id, AccountCommand::Deposit { amount: 5 }).await?;
//! accounts.wait_for(&receipt.position, Duration::from_secs(5)).await?;
//! assert_eq!(database.row::<AccountRow>(&id).await?, Some(AccountRow { id, balance: 5 }));
//!
//! accounts.stop().await?;
//! engine.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! One event that can't be folded in stops its aggregate in that read model and nothing else: [`Database::parked`]. A read model is built anew beside the
//! one that serves with [`Worker::rebuild`], compared with the log with [`Worker::verify`], and built as of a time with [`Worker::as_of`].
//!
//! What the worker keeps beside the projections' tables, for SQL of one's own: `<namespace>_es_checkpoints` says how far each build of each read
//! model is in each partition, and `<namespace>_es_quarantine` holds what is on the topics and is not an event;
//! `_es_workers` says who works on it; `_es_builds`, `_es_parked`, `_es_waiting`, `_es_skipped` and `_es_cuts` are what their names say.

// Lets the derives, which write `::es_projections::…`, be used in this crate's own docs and tests.
extern crate self as es_projections;

pub mod audit;
mod builds;
mod checkpoint;
mod compare;
mod cut;
mod digest;
mod error;
mod model;
mod moment;
mod pages;
mod parked;
mod place;
mod projection;
mod readable;
mod skipped;
mod sql;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod worker;
mod workers;

pub use compare::{ColumnDiffers, ComparedTable, Difference, RowDiffers};
pub use digest::Digest;
pub use error::{Error, ProjectionError};
pub use es_derive::{ColumnValue, ReadModel};
#[doc(hidden)]
pub use model::derived;
pub use model::{ColumnValue, Fold, Lineage, Model, ReadModel, Rows, RowsPage};
pub use moment::Moment;
pub use parked::{Parked, Resumed};
pub use projection::{Projection, RefusedCommand};
pub use readable::{After, DamagedRow, Readable};
pub use skipped::Skipped;
pub use sql::{Column, ConnectOptions, Database, FromValue, Kind, OnDuplicate, Row, Table, Tx, Value};
pub use worker::{
    AsOf, Check, ComparedAt, Frozen, Lag, PartitionLag, PartitionProgress, RebuildProgress, RunningProjection,
    StandsBy, Status, Unwell, Verdict, Verified, Worker, WorkerState,
};

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct ReadmeDoctests;
