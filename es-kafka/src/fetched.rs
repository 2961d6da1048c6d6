//! Records as librdkafka fetched them, taken many at a time.
//!
//! This is librdkafka's simple consumer: partitions are started by hand, and nothing of a group is done. They have a
//! queue of their own, so nothing but their messages, ends and failures comes there. All else that a client has to say
//! (logs, failures of brokers, of logging in, of the client as a whole) comes to the queue where rdkafka expects it.
//!
//! A message belongs to librdkafka all the time: it lends them to a callback, one after the other, and destroys each
//! afterwards (`rd_kafka_consume_callback()` in `rdkafka.h`). That is marked as deprecated there, but
//! `rd_kafka_consume_batch_queue()` only logs that a topic is gone.

#![allow(unsafe_code, reason = "rdkafka takes messages one by one, and panics at header names that are not UTF-8")]

use std::any::Any;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use es_core::log::record::HEADERS_MAX;
use rdkafka::ClientConfig;
use rdkafka::bindings::{
    rd_kafka_consume_callback_queue, rd_kafka_consume_start_queue, rd_kafka_consume_stop, rd_kafka_header_get_all,
    rd_kafka_last_error, rd_kafka_message_errstr, rd_kafka_message_headers, rd_kafka_message_t,
    rd_kafka_message_timestamp, rd_kafka_outq_len, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_t,
    rd_kafka_resp_err_t, rd_kafka_t, rd_kafka_topic_destroy, rd_kafka_topic_new, rd_kafka_topic_t, rd_kafka_yield,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::client::Journal;

/// Fetches partitions of one topic at a time.
pub(crate) struct Fetched {
    // The handles go before the client, and fields are dropped in this order.
    topic: Option<Topic>,
    messages: Queue,
    consumer: BaseConsumer<Journal>,
}

impl Fetched {
    /// Without a group, of which librdkafka would ask the coordinator, on a connection of its own.
    pub(crate) fn new(config: &ClientConfig) -> Result<Self, KafkaError> {
        let consumer: BaseConsumer<Journal> = config.create_with_context(Journal::default())?;
        // SAFETY: the client is alive. The handle is the caller's to destroy.
        let messages = Queue::new(unsafe { rd_kafka_queue_new(consumer.client().native_ptr()) })?;
        Ok(Self { topic: None, messages, consumer })
    }

    /// Fetches these partitions from these offsets on, and no others any more. A failure that was under way before may still
    /// come.
    pub(crate) fn start(&mut self, topic: &str, from: impl Iterator<Item = (u32, u64)>) -> Result<(), KafkaError> {
        self.stop();
        let name = CString::new(topic).map_err(KafkaError::Nul)?;
        // SAFETY: the client is alive, and the name ends in a zero byte. Without settings it has those of the client.
        let handle = unsafe { rd_kafka_topic_new(self.consumer.client().native_ptr(), name.as_ptr(), ptr::null_mut()) };
        let handle = NonNull::new(handle).ok_or_else(|| KafkaError::MetadataFetch(last_error()))?;
        let topic = self.topic.insert(Topic { handle, started: Vec::new() });
        for (partition, offset) in from {
            let number = i32::try_from(partition).expect("Kafka counts partitions in 31 bits");
            let offset = i64::try_from(offset).expect("Kafka counts offsets in 63 bits");
            // SAFETY: topic and queue are alive, and stay so until the partition is stopped.
            let started = unsafe {
                rd_kafka_consume_start_queue(topic.handle.as_ptr(), number, offset, self.messages.0.as_ptr())
            };
            if started != 0 {
                return Err(KafkaError::MessageConsumption(last_error()));
            }
            topic.started.push(number);
        }
        Ok(())
    }

    /// Ends fetching. What was fetched and not taken goes with it.
    pub(crate) fn stop(&mut self) {
        self.topic = None;
    }

    /// Waits until something is there, then calls `each` with one after the other of what is, until it breaks; what is
    /// left then comes with the next call. False if nothing came.
    pub(crate) fn each<F>(&mut self, patience: Duration, each: F) -> bool
    where
        F: FnMut(Fetch<'_>) -> ControlFlow<()>,
    {
        let patience = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        let mut lending = Lending { client: self.consumer.client().native_ptr(), each, panic: None };
        // SAFETY: the queue is alive and nobody else takes from it. `lend` is called by this thread and during this call
        // only, with a pointer to `lending`, which nothing else uses meanwhile.
        let served = unsafe {
            rd_kafka_consume_callback_queue(
                self.messages.0.as_ptr(),
                patience,
                Some(lend::<F>),
                (&raw mut lending).cast(),
            )
        };
        if let Some(panic) = lending.panic {
            resume_unwind(panic);
        }
        served > 0
    }

    /// A failure that concerns no partition. Logs that came before it are in the journal then.
    pub(crate) fn failure(&self) -> Option<KafkaError> {
        let client = self.consumer.client().native_ptr();
        // SAFETY: the client is alive.
        let events = unsafe { rd_kafka_outq_len(client) };
        (0..events).find_map(|_| match self.consumer.poll(Duration::ZERO)? {
            Ok(_) => unreachable!("messages have a queue of their own"),
            Err(error) => Some(error),
        })
    }

    pub(crate) fn journal(&self) -> &Arc<Journal> {
        self.consumer.context()
    }
}

/// A topic of which partitions are fetched.
struct Topic {
    handle: NonNull<rd_kafka_topic_t>,
    started: Vec<i32>,
}

// SAFETY: librdkafka's topics have locks of their own and are bound to no thread.
unsafe impl Send for Topic {}

impl Drop for Topic {
    fn drop(&mut self) {
        for &partition in &self.started {
            // SAFETY: the topic is alive. This waits for a thread of the client, not for a broker; records that are in
            // the queue are passed over from then on.
            unsafe { rd_kafka_consume_stop(self.handle.as_ptr(), partition) };
        }
        // SAFETY: the handle is this one's, and the client is alive.
        unsafe { rd_kafka_topic_destroy(self.handle.as_ptr()) }
    }
}

/// Why the last call of this thread failed.
fn last_error() -> RDKafkaErrorCode {
    // SAFETY: it reads a variable of the thread.
    unsafe { rd_kafka_last_error() }.into()
}

/// A handle of a queue, which must go before the client.
struct Queue(NonNull<rd_kafka_queue_t>);

// SAFETY: librdkafka's queues have locks of their own and are bound to no thread.
unsafe impl Send for Queue {}

impl Queue {
    fn new(queue: *mut rd_kafka_queue_t) -> Result<Self, KafkaError> {
        NonNull::new(queue).map(Self).ok_or_else(|| KafkaError::ClientCreation("there is no such queue".into()))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the handle is this one's, and the client is alive. What is still in a queue that was made here goes
        // with it, and what is forwarded to it later is destroyed by librdkafka.
        unsafe { rd_kafka_queue_destroy(self.0.as_ptr()) }
    }
}

/// What the callback works with.
struct Lending<F> {
    client: *mut rd_kafka_t,
    each: F,
    panic: Option<Box<dyn Any + Send>>,
}

/// # Safety
///
/// For `rd_kafka_consume_callback_queue()` only, with a pointer to a `Lending<F>`.
unsafe extern "C" fn lend<F>(message: *mut rd_kafka_message_t, lending: *mut c_void)
where
    F: FnMut(Fetch<'_>) -> ControlFlow<()>,
{
    // SAFETY: see above; librdkafka makes one call after the other.
    let lending = unsafe { &mut *lending.cast::<Lending<F>>() };
    // SAFETY: librdkafka lends the message for the time of this call, and `each` can't keep it for longer.
    let fetch = || (lending.each)(unsafe { Fetch::new(message) });
    // A panic must not pass through librdkafka.
    let flow = catch_unwind(AssertUnwindSafe(fetch)).unwrap_or_else(|panic| {
        lending.panic = Some(panic);
        ControlFlow::Break(())
    });
    if flow.is_break() {
        // SAFETY: this is one of librdkafka's callbacks. It makes no further call then, and puts the rest back.
        unsafe { rd_kafka_yield(lending.client) };
    }
}

/// What comes from a partition.
#[derive(Debug)]
pub(crate) enum Fetch<'a> {
    Record(Message<'a>),
    /// There is nothing more for now.
    End {
        partition: u32,
        /// The offset of the record that comes next.
        offset: u64,
    },
    Failure {
        code: RDKafkaErrorCode,
        reason: String,
    },
}

impl Fetch<'_> {
    /// # Safety
    ///
    /// The message must be alive for the lifetime, and lent by librdkafka's consumer.
    unsafe fn new(message: *const rd_kafka_message_t) -> Self {
        // SAFETY: the message is alive. Without an error its key and payload are null or have as many bytes as it says;
        // with one they are no record's.
        unsafe {
            let partition = || u32::try_from((*message).partition).expect("an assigned partition is not negative");
            let offset = || u64::try_from((*message).offset).expect("a record or an end has an offset");
            // As a number, since it may be of a broker that knows more codes than the enum has.
            let code = (&raw const (*message).err).cast::<i32>().read();
            match rd_kafka_resp_err_t::try_from(code) {
                Ok(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR) => Self::Record(Message {
                    partition: partition(),
                    offset: offset(),
                    timestamp_ms: Some(rd_kafka_message_timestamp(message, ptr::null_mut())).filter(|&time| time != -1),
                    key: bytes((*message).key, (*message).key_len),
                    value: bytes((*message).payload, (*message).len),
                    message,
                    lent: PhantomData,
                }),
                Ok(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF) => {
                    Self::End { partition: partition(), offset: offset() }
                }
                code => Self::Failure {
                    code: code.unwrap_or(rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN).into(),
                    reason: CStr::from_ptr(rd_kafka_message_errstr(message)).to_string_lossy().trim().to_owned(),
                },
            }
        }
    }
}

/// A record, lent by librdkafka.
#[derive(Debug)]
pub(crate) struct Message<'a> {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: Option<i64>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    message: *const rd_kafka_message_t,
    lent: PhantomData<&'a rd_kafka_message_t>,
}

impl Message<'_> {
    /// Calls `each` with name and value of every header, in order; of more than a record of ours may have, with as many
    /// as show that.
    pub(crate) fn each_header(&self, mut each: impl FnMut(&CStr, &[u8])) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is alive; librdkafka parses the headers and keeps owning them.
        let found = unsafe { rd_kafka_message_headers(self.message, &mut headers) };
        if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return;
        }
        for index in 0..=HEADERS_MAX {
            let (mut name, mut value, mut size) = (ptr::null::<c_char>(), ptr::null::<c_void>(), 0);
            // SAFETY: the headers live as long as their message.
            let found = unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size) };
            if found != rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            // SAFETY: names end in a zero byte, and a value that is not null has `size` bytes.
            let (name, value) = unsafe { (CStr::from_ptr(name), bytes(value, size)) };
            each(name, value.unwrap_or_default());
        }
    }
}

/// # Safety
///
/// What is not null must have `size` bytes, which nobody changes for the lifetime.
unsafe fn bytes<'a>(bytes: *const c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: see above.
    (!bytes.is_null()).then(|| unsafe { slice::from_raw_parts(bytes.cast(), size) })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::message::{Header, OwnedHeaders};
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};

    use super::*;
    use crate::config::KafkaConfig;

    const TOPIC: &str = "records";

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 2, 1).unwrap();
        cluster
    }

    fn write<'a>(
        cluster: &MockCluster<'_, DefaultProducerContext>,
        records: impl IntoIterator<Item = BaseRecord<'a, [u8], [u8]>>,
    ) {
        let producer: BaseProducer = KafkaConfig::new(cluster.bootstrap_servers()).for_writing().create().unwrap();
        for record in records {
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(Duration::from_secs(30)).unwrap();
    }

    fn read(cluster: &MockCluster<'_, DefaultProducerContext>, topic: &str) -> Fetched {
        let config = KafkaConfig::new(cluster.bootstrap_servers())
            // For so long a topic that is not there is taken for a new one; unless given, half a minute.
            .property("topic.metadata.propagation.max.ms", "100");
        let mut fetched = Fetched::new(&config.for_reading(2)).unwrap();
        fetched.start(topic, [(0, 0), (1, 0)].into_iter()).unwrap();
        fetched
    }

    /// Goes on until `done` has found what it looks for.
    #[track_caller]
    fn until<T>(mut done: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(found) = done() {
                return found;
            }
            assert!(Instant::now() < deadline, "it did not come");
        }
    }

    /// Partition, key, value, time and headers.
    type Seen = (u32, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(Vec<u8>, Vec<u8>)>);

    #[test]
    fn records_come_as_they_were_written_and_then_the_end_of_each_partition() {
        let cluster = cluster();
        let headers = OwnedHeaders::new()
            .insert(Header { key: "a", value: Some("1") })
            .insert(Header { key: "none", value: None::<&str> })
            .insert(Header { key: "empty", value: Some("") });
        let record = || BaseRecord::<[u8], [u8]>::to(TOPIC).partition(0).timestamp(7);
        write(
            &cluster,
            [
                record().key(b"key").payload(b"value").headers(headers),
                record().key(b"tombstone"),
                record().key(b"").payload(b""),
                record().payload(b"no key"),
            ],
        );
        let mut fetched = read(&cluster, TOPIC);
        let (mut seen, mut ends): (Vec<Seen>, Vec<_>) = (Vec::new(), Vec::new());
        until(|| {
            fetched.each(Duration::from_millis(200), |fetch| {
                match fetch {
                    Fetch::Record(message) => {
                        assert_eq!(message.offset, seen.len() as u64);
                        let mut headers = Vec::new();
                        message.each_header(|name, value| headers.push((name.to_bytes().into(), value.into())));
                        let (key, value) = (message.key.map(Into::into), message.value.map(Into::into));
                        seen.push((message.partition, key, value, message.timestamp_ms, headers));
                    }
                    Fetch::End { partition, offset } => ends.push((partition, offset)),
                    Fetch::Failure { code, reason } => panic!("{code}: {reason}"),
                }
                ControlFlow::Continue(())
            });
            (ends.len() == 2).then_some(())
        });
        let bytes = |text: &str| Some(Vec::from(text));
        let headers = [("a", "1"), ("none", ""), ("empty", "")].map(|(name, value)| (name.into(), value.into())).into();
        let expected: [Seen; 4] = [
            (0, bytes("key"), bytes("value"), Some(7), headers),
            (0, bytes("tombstone"), None, Some(7), vec![]),
            (0, bytes(""), bytes(""), Some(7), vec![]),
            (0, None, bytes("no key"), Some(7), vec![]),
        ];
        assert_eq!(seen, expected);
        ends.sort_unstable();
        assert_eq!(ends, [(0, 4), (1, 0)]);
        assert!(!fetched.each(Duration::ZERO, |fetch| panic!("{fetch:?}")));
    }

    /// A header of two bytes takes fifty in memory: a record of a megabyte could take hundreds.
    #[test]
    fn no_more_headers_are_taken_than_show_that_a_record_is_not_ours() {
        let cluster = cluster();
        let headers = |count| {
            let header = || Header { key: "", value: Some("") };
            (0..count).fold(OwnedHeaders::new(), |headers, _| headers.insert(header()))
        };
        let record = |count| BaseRecord::to(TOPIC).partition(0).key(&b""[..]).payload(&b""[..]).headers(headers(count));
        write(&cluster, [record(HEADERS_MAX), record(HEADERS_MAX + 1), record(5_000)]);
        let mut fetched = read(&cluster, TOPIC);
        let mut seen = Vec::new();
        until(|| {
            fetched.each(Duration::from_millis(200), |fetch| {
                if let Fetch::Record(message) = fetch {
                    let mut count = 0;
                    message.each_header(|_, _| count += 1);
                    seen.push(count);
                }
                ControlFlow::Continue(())
            });
            (seen.len() == 3).then_some(())
        });
        assert_eq!(seen, [HEADERS_MAX, HEADERS_MAX + 1, HEADERS_MAX + 1]);
    }

    #[test]
    fn what_a_break_or_a_panic_leaves_comes_with_the_next_call() {
        let cluster = cluster();
        write(&cluster, (0..100).map(|_| BaseRecord::to(TOPIC).partition(0).key(&b""[..]).payload(&b""[..])));
        let mut fetched = read(&cluster, TOPIC);
        let mut seen = Vec::new();
        until(|| {
            let panic = catch_unwind(AssertUnwindSafe(|| {
                fetched.each(Duration::from_millis(200), |fetch| {
                    let Fetch::Record(message) = fetch else { return ControlFlow::Continue(()) };
                    seen.push(message.offset);
                    assert!(seen.len() != 50, "the middle");
                    ControlFlow::Break(())
                })
            }));
            assert_eq!(panic.is_err(), seen.len() == 50, "the panic reaches the caller");
            (seen.len() == 51).then_some(())
        });
        assert_eq!(seen, (0..51).collect::<Vec<_>>());
        drop(fetched); // with messages in the queue
    }

    #[test]
    fn a_topic_that_is_gone_is_a_failure_of_its_partitions() {
        let cluster = cluster();
        let missing = rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        cluster.topic_error("gone", missing).unwrap();
        let mut fetched = read(&cluster, "gone");
        let (code, reason) = until(|| {
            let mut failure = None;
            fetched.each(Duration::from_millis(200), |fetch| {
                if let Fetch::Failure { code, reason } = fetch {
                    failure = Some((code, reason));
                }
                ControlFlow::Break(())
            });
            failure
        });
        assert_eq!(crate::error::class(code), crate::error::Class::Missing, "{code}");
        assert!(reason.contains("gone"), "{reason}");
    }

    #[test]
    fn a_failure_of_a_broker_concerns_no_partition_and_reaches_the_journal() {
        let cluster = cluster();
        let mut fetched = read(&cluster, TOPIC);
        cluster.broker_down(1).unwrap();
        let error = until(|| {
            fetched.each(Duration::from_millis(20), |fetch| match fetch {
                Fetch::Failure { code, reason } => panic!("{code}: {reason}"),
                _ => ControlFlow::Continue(()),
            });
            fetched.failure()
        });
        assert!(fetched.journal().last().is_some(), "{error}");
    }
}
