//! What integration tests and benchmarks need around the framework: a real Kafka broker, a real PostgreSQL, and child
//! processes that can be killed, stopped and watched. It knows nothing of the framework's crates.
//!
//! Everything started here listens on 127.0.0.1 only, keeps its data in a folder of its own, and dies with the process
//! that started it, even when that one is killed with `kill -9`.
//!
//! A test that needs a server carries `#[ignore = "needs Kafka: run scripts/test"]` (or `PostgreSQL`), so that a bare
//! `cargo test` works with cargo alone. When it does run, a missing server is a panic, never a skip.
//!
//! ```no_run
//! use es_tests::{Kafka, Postgres, topic_prefix};
//!
//! # async fn example() {
//! let kafka = Kafka::shared().await; // one broker for all tests of this process
//! let events = format!("{}.account.events", topic_prefix());
//! println!("{events} on {}", kafka.bootstrap());
//!
//! let url = Postgres::shared().await.database().await; // an empty database of this test's own
//! println!("{url}");
//!
//! let mut own = Kafka::start().await; // a broker that this test may kill
//! own.kill().await;
//! own.restart().await; // same data, same port
//! # }
//! ```

mod data;
mod home;
mod kafka;
mod kafka_cluster;
mod names;
mod port;
mod postgres;
mod process;
mod proxy;
mod server;
mod wait;
mod wire;

pub use data::{accounts, transactions};
pub use kafka::Kafka;
pub use kafka_cluster::KafkaCluster;
pub use names::{bank_binary, bank_next_binary, topic_prefix, unique_name};
pub use port::free_port;
pub use postgres::Postgres;
pub use process::Proc;
pub use proxy::{Proxy, Switches};
pub use wait::eventually;
pub use wire::Wire;
