//! Producing records to Kafka, bare.

use std::sync::Arc;

use es_core::log::Record;
use rdkafka::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::KafkaResult;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};
use tokio::sync::{mpsc, oneshot};

use crate::Failure;
use crate::load::Work;

/// Answers each record's sender when its report comes.
pub(super) struct Reports;

impl ClientContext for Reports {}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<oneshot::Sender<()>>;

    fn delivery(&self, result: &DeliveryResult<'_>, answer: Self::DeliveryOpaque) {
        if let Err((error, _)) = result {
            panic!("the broker takes the floor's records: {error}");
        }
        let _ = answer.send(()); // the sender is gone at the end of the window
    }
}

/// An idempotent producer that sends at once.
pub(super) fn producer(broker: &str) -> KafkaResult<ThreadedProducer<Reports>> {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", broker)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "0")
        .set("queue.buffering.max.messages", "0");
    config.create_with_context(Reports)
}

/// An idempotent producer for each partition, as ours has, with the same settings.
#[derive(Clone)]
pub(crate) struct Produce {
    topic: Arc<str>,
    producers: Arc<Vec<ThreadedProducer<Reports>>>,
    templates: Arc<Vec<Record>>,
}

impl Produce {
    pub(crate) fn start(broker: &str, topic: &str, partitions: u32, templates: Vec<Record>) -> Result<Self, Failure> {
        let producers = (0..partitions).map(|_| producer(broker)).collect::<Result<_, _>>()?;
        Ok(Self { topic: topic.into(), producers: Arc::new(producers), templates: Arc::new(templates) })
    }

    /// A bare owner loop for each partition: takes the next from its channel and produces it.
    pub(crate) fn looped(&self, accounts: usize) -> Looped {
        let owner = |partition| {
            let (inbox, mut queued) = mpsc::channel::<(usize, oneshot::Sender<()>)>(4_096);
            let produce = self.clone();
            tokio::spawn(async move {
                while let Some((place, answer)) = queued.recv().await {
                    produce.send(place, partition, answer);
                }
            });
            inbox
        };
        Looped { owners: Arc::new((0..self.producers.len()).map(owner).collect()), accounts }
    }

    fn send(&self, place: usize, partition: usize, answer: oneshot::Sender<()>) {
        let record = &self.templates[place % self.templates.len()];
        let number = i32::try_from(partition).expect("a few partitions");
        send(&self.producers[partition], &self.topic, number, record, answer);
    }
}

/// Hands a record to a client; `answer` tells when it is reported.
pub(super) fn send(
    producer: &ThreadedProducer<Reports>,
    topic: &str,
    partition: i32,
    record: &Record,
    answer: oneshot::Sender<()>,
) {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    let headers = record
        .headers
        .iter()
        .fold(headers, |headers, (key, value)| headers.insert(Header { key, value: Some(value.as_ref()) }));
    let produced = BaseRecord::with_opaque_to(topic, Box::new(answer))
        .partition(partition)
        .key(record.key.as_ref())
        .payload(record.value.as_deref().unwrap_or_default())
        .timestamp(record.timestamp_ms)
        .headers(headers);
    if let Err((error, _)) = producer.send(produced) {
        panic!("the client takes the floor's records: {error}");
    }
}

/// One at a time, on the caller's task.
impl Work for Produce {
    async fn once(&self, place: usize) {
        let (answer, answered) = oneshot::channel();
        self.send(place, place % self.producers.len(), answer);
        answered.await.expect("the report comes");
    }
}

/// Takes the place of a template, and tells when its record was reported.
type Inbox = mpsc::Sender<(usize, oneshot::Sender<()>)>;

#[derive(Clone)]
pub(crate) struct Looped {
    owners: Arc<Vec<Inbox>>,
    accounts: usize,
}

impl Work for Looped {
    async fn once(&self, place: usize) {
        let (answer, answered) = oneshot::channel();
        let owner = &self.owners[place % self.accounts % self.owners.len()];
        owner.send((place, answer)).await.expect("the loops run while senders are there");
        answered.await.expect("the report comes");
    }
}
