//! A task that runs beside the owners of an aggregate type, such as the one that seals. The engine knows that there is one,
//! and not what it does.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::domain::clock::Clock;
use crate::domain::random::Random;
use crate::engine::partition::Partition;
use crate::log::reader::EventSource;
use crate::log::{Log, TopicSpec};

/// Runs beside the owners of each aggregate type, in each process: see [`EngineConfig::companions`](crate::EngineConfig::companions).
///
/// Whatever happens to it, the owners go on. Several processes run it at once, and a partition may change hands at any time:
/// so it does its work for the partitions that are served here, from a checkpoint that it finds in the log.
#[async_trait]
pub trait Companion: fmt::Debug + Send + Sync + 'static {
    /// The topics that it writes, beside the events topic and with as many partitions. They are prepared before anything runs.
    fn topics(&self, namespace: &str, aggregate: &str) -> Vec<TopicSpec>;

    /// Runs until the engine shuts down.
    async fn run(&self, beside: Beside);
}

/// What a [`Companion`] has to do with.
#[derive(Debug)]
pub struct Beside {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) namespace: String,
    pub(crate) source: EventSource,
    /// By number.
    pub(crate) partitions: Vec<Partition>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) shutdown: CancellationToken,
}

impl Beside {
    /// The log.
    pub fn log(&self) -> &Arc<dyn Log> {
        &self.log
    }

    /// Where the events are.
    pub fn source(&self) -> &EventSource {
        &self.source
    }

    /// The first part of the topics' names.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Whether the owner of a partition is here and decides commands.
    pub fn is_served(&self, partition: u32) -> bool {
        self.partitions.get(partition as usize).is_some_and(Partition::is_served)
    }

    /// Waits until the engine shuts down.
    pub async fn stopped(&self) {
        self.shutdown.cancelled().await;
    }
}
