//! Appending: one idempotent producer per open writer, dropped at the first doubt.
//!
//! A broker remembers a producer for a day (`producer.id.expiration.ms`) by the *times in its records*. Where they are
//! older than that on the broker's clock, it forgets the producer when it restarts, and a batch that was appended and is
//! sent again is appended twice. The writer is told the offsets of the second copy, so whoever expects consecutive
//! offsets learns of it at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use es_core::log::{AppendError, LogError, LogErrorKind, LogWriter, Record};
use rdkafka::ClientContext;
use rdkafka::bindings::{rd_kafka_flush, rd_kafka_resp_err_t};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig};
use tokio::sync::oneshot;

use crate::client::{Journal, POLL, lock, spawn};
use crate::config::KafkaConfig;
use crate::error::{Call, ClientError, code_of, failed, next};

/// Questions about a topic after which a new producer usually has its id. It asks for one whenever an answer comes and a
/// broker is connected, else on a timer of half a second. The first answer teaches the brokers' own addresses, the second
/// comes by one of them, the third is for an id that was asked for on the connection left then.
pub(crate) const CONNECTING: usize = 3;
/// After this time a new producer asks for its id by itself.
const ID_TIMER: Duration = Duration::from_millis(600);
/// Between two questions before that.
const ID_PAUSE: Duration = Duration::from_millis(20);
/// Stands for an offset that was not reported yet.
const UNREPORTED: u64 = u64::MAX;

/// Appends to one partition.
pub(crate) struct KafkaWriter {
    topic: Arc<str>,
    partition: u32,
    number: i32,
    record_max_bytes: usize,
    producer: Arc<BaseProducer<Reports>>,
    stopped: Arc<AtomicBool>,
    /// Tells the sending thread that a round is complete.
    complete: mpsc::Sender<()>,
    /// Counts the records handed to the producer; names each in its report.
    produced: usize,
    /// An append failed, or was left before its end.
    doubtful: bool,
}

impl KafkaWriter {
    /// Blocks.
    pub(crate) fn open(config: &KafkaConfig, topic: &str, partition: u32) -> Result<Self, LogError> {
        let what = || format!("opening {topic}/{partition} for writing");
        let producer: BaseProducer<Reports> = config
            .for_writing()
            .create_with_context(Reports::default())
            .map_err(|error| failed(Call::Work, what(), error))?;
        let producer = Arc::new(producer);
        // Connects now, so that the first append need not; and on a busy machine the serving thread asks on.
        for _ in 0..CONNECTING {
            if let Err(error) = producer.client().fetch_metadata(Some(topic), config.deadline()) {
                producer.poll(Duration::from_millis(20)); // brings the causes to the journal
                return Err(producer.context().journal.explain(Call::Work, what(), error));
            }
        }
        let stopped = Arc::new(AtomicBool::new(false));
        let topic: Arc<str> = topic.into();
        serve(Arc::clone(&producer), Arc::clone(&stopped), Arc::clone(&topic))?;
        let complete = send_rounds(Arc::clone(&producer), Arc::clone(&stopped))?;
        Ok(Self {
            topic,
            partition,
            number: i32::try_from(partition).expect("the partition is there, and Kafka counts in 31 bits"),
            record_max_bytes: config.record_max_bytes(),
            producer,
            stopped,
            complete,
            produced: 0,
            doubtful: false,
        })
    }

    /// Refuses what the client or a broker would refuse, before anything is appended: one such record is fatal for
    /// a producer, and those before it would be in the log.
    fn check(&self, records: &[Record]) -> Result<(), AppendError> {
        let refused = |reason: String| {
            let message = format!("appending to {}/{}: {reason}", self.topic, self.partition);
            Err(AppendError::Refused(LogError::new(LogErrorKind::Settings, message)))
        };
        for record in records {
            let bytes = KafkaConfig::record_bytes(record);
            if bytes > self.record_max_bytes {
                let limit = self.record_max_bytes;
                return refused(format!("a record has {bytes} bytes, the largest that fits has {limit}"));
            }
            // To librdkafka 0 means now, and below it a broker may refuse.
            if record.timestamp_ms <= 0 {
                return refused(format!(
                    "a record's time is {} ms since 1970, it must be above 0",
                    record.timestamp_ms
                ));
            }
            if record.headers.iter().any(|(name, _)| name.contains('\0')) {
                return refused("a header's name contains a zero byte".into());
            }
        }
        Ok(())
    }

    async fn produce(&mut self, record: &Record) -> Result<(), AppendError> {
        let mut message = BaseRecord::with_opaque_to(&self.topic, self.produced)
            .partition(self.number)
            .key(record.key.as_ref())
            .timestamp(record.timestamp_ms)
            .headers(headers(record));
        message.payload = record.value.as_deref();
        loop {
            match self.producer.send(message) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => message = back,
                Err((error, _)) => return Err(self.unknown(ClientError::from(error), None)),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.produced += 1;
        Ok(())
    }

    fn unknown(&self, cause: ClientError, code: Option<RDKafkaErrorCode>) -> AppendError {
        let kind = code.map_or(LogErrorKind::Unavailable, |code| next(Call::Report, code).kind());
        let message = format!("appending to {}/{}", self.topic, self.partition);
        AppendError::Unknown(LogError::new(kind, message).with_source(cause))
    }
}

#[async_trait]
impl LogWriter for KafkaWriter {
    async fn append(&mut self, records: Vec<Record>) -> Result<Vec<u64>, AppendError> {
        if self.doubtful {
            return Err(self.unknown(ClientError::new("an append before it was not proven: open a new writer"), None));
        }
        self.check(&records)?;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.doubtful = true; // and stays so if this future is dropped
        let reported = self.producer.context().begin(self.produced, records.len());
        for record in &records {
            self.produce(record).await?;
        }
        let _ = self.complete.send(()); // without that thread, it is sent when its time to linger is over
        let offsets = match reported.await {
            Ok(Ok(offsets)) => offsets,
            Ok(Err(failure)) => return Err(self.unknown(failure.cause, failure.code)),
            Err(_) => return Err(self.unknown(ClientError::new("the client stopped"), None)),
        };
        self.doubtful = false;
        Ok(offsets)
    }
}

impl Drop for KafkaWriter {
    fn drop(&mut self) {
        // What is not sent yet is forgotten at once. The thread of the producer drops it, which may take long.
        self.producer.purge(PurgeConfig::default().queue().inflight().non_blocking());
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl std::fmt::Debug for KafkaWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KafkaWriter")
            .field("topic", &self.topic)
            .field("partition", &self.partition)
            .field("doubtful", &self.doubtful)
            .finish_non_exhaustive()
    }
}

pub(crate) fn headers(record: &Record) -> OwnedHeaders {
    record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_ref()) })
    })
}

/// A thread that takes the producer's reports, and drops it in the end.
fn serve(producer: Arc<BaseProducer<Reports>>, stopped: Arc<AtomicBool>, topic: Arc<str>) -> Result<(), LogError> {
    let timer = Instant::now() + ID_TIMER;
    let serving = move || {
        while !stopped.load(Ordering::Relaxed) {
            let without_id = || !producer.context().ready.load(Ordering::Relaxed) && Instant::now() < timer;
            producer.poll(if without_id() { ID_PAUSE } else { POLL });
            if without_id() {
                let _ = producer.client().fetch_metadata(Some(&topic), POLL); // for its answer, see `open`
            }
        }
    };
    spawn("es-kafka-write", serving)
}

/// A thread that has each round sent at once and as a whole.
///
/// Without lingering the client sends the first records of a round while the others are still handed to it, and
/// those have to wait for the answer (there may be others in flight only as long as there are no more than five
/// records), for which it asks over and over, at the cost of most of a processor. So it lingers, and is told when a
/// round is complete.
fn send_rounds(producer: Arc<BaseProducer<Reports>>, stopped: Arc<AtomicBool>) -> Result<mpsc::Sender<()>, LogError> {
    let (complete, completed) = mpsc::channel();
    let sending = move || {
        while completed.recv().is_ok() {
            while flush(&producer) == Flushed::Partly && !stopped.load(Ordering::Relaxed) {}
        }
    };
    spawn("es-kafka-send", sending)?;
    Ok(complete)
}

#[derive(PartialEq)]
enum Flushed {
    Wholly,
    Partly,
}

/// Lets nothing linger until everything is reported, or a while is over. The reports come to another thread.
#[allow(unsafe_code)]
fn flush(producer: &BaseProducer<Reports>) -> Flushed {
    let patience = i32::try_from(POLL.as_millis()).expect("a fraction of a second");
    // SAFETY: the client lives as long as its producer. rdkafka's own way does not wait in the client, which lets
    // records linger again before it comes to send them.
    match unsafe { rd_kafka_flush(producer.client().native_ptr(), patience) } {
        rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT => Flushed::Partly,
        _ => Flushed::Wholly,
    }
}

/// Takes the reports of the round that is being appended.
#[derive(Default)]
struct Reports {
    journal: Journal,
    /// Something was reported, so the producer has its id.
    ready: AtomicBool,
    round: Mutex<Option<Round>>,
}

struct Round {
    /// The number of its first record, among all that the producer was given.
    first: usize,
    offsets: Vec<u64>,
    missing: usize,
    done: oneshot::Sender<Result<Vec<u64>, Failure>>,
}

struct Failure {
    code: Option<RDKafkaErrorCode>,
    cause: ClientError,
}

impl Reports {
    fn begin(&self, first: usize, count: usize) -> oneshot::Receiver<Result<Vec<u64>, Failure>> {
        let (done, reported) = oneshot::channel();
        *lock(&self.round) = Some(Round { first, offsets: vec![UNREPORTED; count], missing: count, done });
        reported
    }

    fn reported(&self, number: usize, offset: i64) {
        self.ready.store(true, Ordering::Relaxed);
        // A batch that was sent twice may be reported without offsets: -1 for its first record.
        let Ok(offset) = u64::try_from(offset) else {
            return self.fail(None, ClientError::new("a record was delivered without telling its offset"));
        };
        let mut current = lock(&self.round);
        let Some(round) = current.as_mut() else { return };
        let Some(slot) = number.checked_sub(round.first).and_then(|index| round.offsets.get_mut(index)) else { return };
        if *slot == UNREPORTED {
            round.missing -= 1;
        }
        *slot = offset;
        if round.missing == 0
            && let Some(round) = current.take()
        {
            drop(current);
            let _ = round.done.send(Ok(round.offsets)); // nobody waits: the future was dropped
        }
    }

    fn fail(&self, code: Option<RDKafkaErrorCode>, cause: ClientError) {
        let failed = lock(&self.round).take();
        if let Some(round) = failed {
            let _ = round.done.send(Err(Failure { code, cause })); // nobody waits: the future was dropped
        }
    }
}

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.journal.log(level, facility, message);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.journal.stats_raw(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let fatal = code_of(&error) == Some(RDKafkaErrorCode::Fatal);
        self.journal.error(error, reason);
        if fatal {
            // Records that are still queued may never be reported.
            self.fail(Some(RDKafkaErrorCode::Fatal), ClientError::new(reason));
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, number: usize) {
        match result {
            Ok(message) => self.reported(number, message.offset()),
            Err((error, _)) => self.fail(code_of(error), ClientError::from(error.clone())),
        }
    }
}
