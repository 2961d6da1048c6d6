//! Read models: projections fold the events of the log into SQL tables, on SQLite or PostgreSQL, from one source.
//!
//! A [`Projection`] is a name, tables and code that changes them. A [`Worker`] runs it: it reads all partitions of
//! its sources, decides by the validity rule which records count, and commits rows and checkpoint in one transaction,
//! so that a read model always equals the fold of the log at its checkpoint. [`Handle::wait_for`] waits until a read
//! model contains what was written.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use async_trait::async_trait;
//! use es_core::log::memory::MemoryLog;
//! use es_core::{EventSource, Recorded};
//! use es_projections::{Database, Kind, Projection, ProjectionError, Table, Tx, Worker};
//!
//! /// How many events each account has.
//! struct Activity(Table);
//!
//! #[async_trait]
//! impl Projection for Activity {
//!     fn name(&self) -> &str {
//!         "activity"
//!     }
//!
//!     fn tables(&self) -> Vec<Table> {
//!         vec![self.0.clone()]
//!     }
//!
//!     async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
//!         let row = |event: &Recorded| vec![event.envelope.stream.id.as_str().into(), event.envelope.version.into()];
//!         tx.upsert(&self.0, events.iter().map(row).collect()).await?;
//!         Ok(())
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = Arc::new(MemoryLog::new(4));
//! let topic: Arc<str> = es_core::events_topic("bank", "account").into();
//! # use es_core::log::{Log, TopicKind, TopicSpec};
//! # log.prepare(&TopicSpec { name: topic.to_string(), kind: TopicKind::Events }).await?;
//! let accounts = EventSource { context: "bank".into(), category: "account".into(), topic, partitions: 4 };
//!
//! let database = Database::connect("sqlite::memory:", "bank").await?;
//! let table = Table::new("activity").key("account", Kind::Text).column("events", Kind::Integer);
//! let worker = Worker::builder(database.clone(), log, vec![accounts]).start(Activity(table)).await?;
//! worker.catch_up(Duration::from_secs(5)).await?;
//!
//! let sql = format!("SELECT * FROM {} ORDER BY account", database.table_name("activity"));
//! for row in database.fetch(&sql, &[]).await? {
//!     println!("{}: {}", row.get::<String>("account")?, row.get::<i64>("events")?);
//! }
//! worker.stop().await?;
//! # Ok(())
//! # }
//! ```
//!
//! What the worker keeps beside the projections' tables, for SQL of one's own: `<namespace>_es_checkpoints` says how
//! far each projection is in each partition, and `<namespace>_es_quarantine` holds what is on the topics and is not an
//! event.

// Lets the derives, which write `::es_projections::…`, be used in this crate's own docs and tests.
extern crate self as es_projections;

pub mod audit;
mod builds;
mod checkpoint;
mod cut;
mod digest;
mod error;
mod migrations;
mod model;
mod parked;
mod projection;
mod sql;
mod worker;

pub use digest::Digest;
pub use error::{Error, ProjectionError};
pub use es_derive::{ColumnValue, ReadModel};
#[doc(hidden)]
pub use model::derived;
pub use model::{ColumnValue, Fold, Lineage, Model, ReadModel, Rows};
pub use parked::{Parked, Resumed};
pub use projection::Projection;
pub use sql::{Column, ConnectOptions, Database, FromValue, Kind, OnDuplicate, Row, Table, Tx, Value};
pub use worker::{AsOf, Check, Frozen, Handle, PartitionProgress, RebuildProgress, Status, Worker, WorkerState};
