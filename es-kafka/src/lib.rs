//! Apache Kafka as the log of [`es_core`].
//!
//! [`KafkaLog`] implements [`es_core::log::Log`]: it makes and verifies topics, appends with one idempotent producer
//! per partition, and reads partitions from given offsets. Claims, validity and continuity are built on top of it
//! once, in `es-core`. Types of the Kafka client stay inside.
//!
//! ```no_run
//! use es_core::log::{Log, TopicKind, TopicSpec};
//! use es_kafka::{KafkaConfig, KafkaLog};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let log = KafkaLog::connect(KafkaConfig::new("localhost:9092").partitions(12)).await?;
//! let topic = TopicSpec { name: "bank.account.events".into(), kind: TopicKind::Events };
//! assert_eq!(log.prepare(&topic).await?, 12);
//!
//! let mut reader = log.reader(&topic.name, &[(0, 0)]).await?;
//! let batch = reader.next().await?;
//! println!("{} records, go on at offset {}", batch.records.len(), batch.next);
//! # Ok(())
//! # }
//! ```

mod client;
mod config;
mod error;
mod fetched;
mod group;
mod header;
mod log;
mod lookup;
mod reader;
mod topic;
mod writer;

pub use config::KafkaConfig;
pub use group::KafkaGroup;
pub use log::KafkaLog;
