//! A command's way to its owner in another process and back, bare.

use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use es_core::log::Record;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::ThreadedProducer;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::produce::{Reports, producer, send};
use crate::Failure;
use crate::load::Work;

/// How soon a thread sees that it is not needed any more.
const POLL: Duration = Duration::from_millis(100);

/// A topic, and the records that are produced to it.
pub(crate) struct Hop {
    pub(crate) topic: String,
    pub(crate) records: Vec<Record>,
}

/// One that asks, and one that answers when it has produced an event; each with clients of its own.
#[derive(Clone)]
pub(crate) struct Hops(Arc<Asker>);

struct Asker {
    commands: Hop,
    producer: ThreadedProducer<Reports>,
    replies: Mutex<mpsc::UnboundedReceiver<()>>,
    /// The threads end with it.
    _life: Arc<()>,
}

impl Hops {
    /// The topics are new, and partition 0 of each is used.
    pub(crate) fn start(broker: &str, commands: Hop, events: Hop, replies: Hop) -> Result<Self, Failure> {
        let life = Arc::new(());
        let (replied, answers) = mpsc::unbounded_channel();
        each(consumer(broker, &replies.topic)?, Arc::downgrade(&life), move |_| {
            let _ = replied.send(()); // nobody asks any more
        });
        let owned = consumer(broker, &commands.topic)?;
        let (appending, answering) = (producer(broker)?, producer(broker)?);
        each(owned, Arc::downgrade(&life), move |place| {
            let (report, reported) = oneshot::channel();
            send(&appending, &events.topic, 0, &events.records[place % events.records.len()], report);
            reported.blocking_recv().expect("the report comes");
            send(&answering, &replies.topic, 0, &replies.records[place % replies.records.len()], oneshot::channel().0);
        });
        let asker = Asker { commands, producer: producer(broker)?, replies: Mutex::new(answers), _life: life };
        Ok(Self(Arc::new(asker)))
    }
}

impl Work for Hops {
    /// For one sender: whatever is answered next is its answer.
    async fn once(&self, place: usize) {
        let Asker { commands, producer, replies, .. } = &*self.0;
        let mut replies = replies.lock().await;
        send(producer, &commands.topic, 0, &commands.records[place % commands.records.len()], oneshot::channel().0);
        replies.recv().await.expect("the threads run while there is an asker");
    }
}

fn consumer(broker: &str, topic: &str) -> Result<BaseConsumer, Failure> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker).set("group.id", "floor").set("enable.auto.commit", "false");
    let consumer: BaseConsumer = config.create()?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&from)?;
    Ok(consumer)
}

/// Has a thread do something for each record; it is told how many came before.
fn each(consumer: BaseConsumer, life: Weak<()>, mut work: impl FnMut(usize) + Send + 'static) {
    thread::spawn(move || {
        let mut count = 0;
        while life.strong_count() > 0 {
            match consumer.poll(POLL) {
                Some(Ok(_)) => {
                    work(count);
                    count += 1;
                }
                Some(Err(error)) => panic!("the floor's records can be read: {error}"),
                None => {}
            }
        }
    });
}
