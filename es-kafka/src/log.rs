//! The log trait on Kafka.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use es_core::log::{Log, LogError, LogErrorKind, LogReader, LogWriter, StoredRecord, TopicSpec};

use crate::client::{Asking, Place, blocking, lock};
use crate::config::KafkaConfig;
use crate::group::KafkaGroup;
use crate::lookup::{Lookups, Unknown};
use crate::reader::KafkaReader;
use crate::topic;
use crate::writer::KafkaWriter;

/// Kafka as the log. Cloning is cheap: clones share a connection for questions.
#[derive(Debug, Clone)]
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    asking: Arc<Asking>,
    lookups: Arc<Lookups>,
    /// The number of partitions of each topic seen so far.
    seen: Arc<Mutex<HashMap<String, u32>>>,
}

impl KafkaLog {
    /// Connects to Kafka, trying again until the configured time is over.
    ///
    /// # Errors
    /// [`LogErrorKind::Unavailable`] when no broker answers in time, naming them and the cause;
    /// [`LogErrorKind::Settings`] for a property that would break a guarantee, is unknown, or is refused by a broker.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub async fn connect(config: KafkaConfig) -> Result<Self, LogError> {
        config.check()?;
        let config = Arc::new(config);
        let settings = Arc::clone(&config);
        let asking = blocking(move || Asking::connect(&settings)).await?;
        let lookups = Lookups::new(Arc::clone(&config));
        Ok(Self { config, asking: Arc::new(asking), lookups: Arc::new(lookups), seen: Arc::default() })
    }

    /// Kafka's consumer groups, for processes that share partitions: see [`es_core::Engine::shared`].
    pub fn group(&self) -> KafkaGroup {
        KafkaGroup::new(Arc::clone(&self.config))
    }

    fn knows(&self, topic: &str, partition: u32) -> bool {
        lock(&self.seen).get(topic).is_some_and(|&count| partition < count)
    }

    /// Refuses partitions that are not there. Those that were seen are, though a broker may not know of them yet, or not any
    /// more: what it says of them passes.
    async fn require(&self, topic: &str, partitions: &[u32]) -> Result<(), LogError> {
        if partitions.iter().all(|&partition| self.knows(topic, partition)) {
            return Ok(());
        }
        let (asking, name) = (Arc::clone(&self.asking), topic.to_owned());
        let found = blocking(move || asking.partitions(&name)).await?.filter(|&count| count > 0);
        let refused = |message: String| Err(LogError::new(LogErrorKind::Settings, message));
        let Some(count) = found else {
            return refused(format!("topic {topic} is not there at {}: prepare it first", self.asking.brokers()));
        };
        lock(&self.seen).entry(topic.to_owned()).or_insert(count);
        match partitions.iter().find(|&&partition| partition >= count) {
            Some(partition) => {
                refused(format!("topic {topic} has {count} partitions, and none with number {partition}"))
            }
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn prepare(&self, topic: &TopicSpec) -> Result<u32, LogError> {
        let (config, asking, spec) = (Arc::clone(&self.config), Arc::clone(&self.asking), topic.clone());
        let found = blocking(move || topic::prepare(&asking, &config, &spec)).await?;
        let known = *lock(&self.seen).entry(topic.name.clone()).or_insert(found);
        if known != found {
            let name = &topic.name;
            let message = if found > known {
                format!(
                    "topic {name} has {found} partitions and had {known} before: some were added on the broker; start this \
                     process anew, it goes on with {known} while the others are empty"
                )
            } else {
                format!(
                    "topic {name} has {found} partitions and had {known} before: it was made anew; restore it with {known}, \
                     since aggregates can't move"
                )
            };
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
        Ok(found)
    }

    async fn writer(&self, topic: &str, partition: u32) -> Result<Box<dyn LogWriter>, LogError> {
        self.require(topic, &[partition]).await?;
        let (config, topic) = (Arc::clone(&self.config), topic.to_owned());
        let writer = blocking(move || KafkaWriter::open(&config, &topic, partition)).await?;
        Ok(Box::new(writer))
    }

    async fn reader(&self, topic: &str, from: &[(u32, u64)]) -> Result<Box<dyn LogReader>, LogError> {
        self.require(topic, &from.iter().map(|&(partition, _)| partition).collect::<Vec<_>>()).await?;
        let (config, asking) = (Arc::clone(&self.config), Arc::clone(&self.asking));
        let (topic, from) = (topic.to_owned(), from.to_vec());
        let reader = blocking(move || KafkaReader::open(&asking, &config, &topic, &from)).await?;
        Ok(Box::new(reader))
    }

    async fn first_record(
        &self,
        topic: &str,
        partition: u32,
        offsets: Range<u64>,
    ) -> Result<Option<StoredRecord>, LogError> {
        self.require(topic, &[partition]).await?;
        match self.lookups.first(topic, partition, offsets.clone()).await {
            Ok(found) => Ok(found),
            Err(Unknown) => self.reader(topic, &[(partition, offsets.start)]).await?.first_before(offsets.end).await,
        }
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<Range<u64>, LogError> {
        let known = self.knows(topic, partition);
        let (asking, topic) = (Arc::clone(&self.asking), topic.to_owned());
        blocking(move || asking.bounds(Place { topic: &topic, partition, known })).await
    }

    fn record_max_bytes(&self) -> usize {
        self.config.record_max_bytes()
    }
}
