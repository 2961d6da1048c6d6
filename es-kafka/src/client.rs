//! What every client of librdkafka has in common: its logs go to `tracing`, and its last failure is kept as a cause.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use es_core::log::{LogError, LogErrorKind};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::{Metadata, MetadataTopic};

use crate::config::KafkaConfig;
use crate::error::{Call, Class, ClientError, Next, class, code_of, failed, is_missing, next};

/// How long a thread that serves a client waits for it before it looks whether it should stop.
pub(crate) const POLL: Duration = Duration::from_millis(200);
/// The longest silence between two log lines about a failure that goes on.
const QUIET_MAX: Duration = Duration::from_secs(60);

/// Runs what blocks on a thread where that is allowed.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(stopped) => match stopped.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(LogError::new(LogErrorKind::Unavailable, "asking Kafka was stopped with the runtime")),
        },
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is whole at every point where a panic could happen.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes librdkafka's logs and errors.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(RDKafkaErrorCode, String)>,
    silent_until: Option<Instant>,
    silence: Duration,
    suppressed: u32,
}

impl Journal {
    /// The last failure that names a cause.
    pub(crate) fn last(&self) -> Option<(RDKafkaErrorCode, String)> {
        lock(&self.state).last.clone()
    }

    /// The reason of the last failure, and forgets it.
    pub(crate) fn take_reason(&self) -> Option<String> {
        lock(&self.state).last.take().map(|(_, reason)| reason)
    }

    /// Why something failed: where an error says only that no broker answered in time, the last failure says more.
    pub(crate) fn explain(&self, call: Call, message: impl Into<String>, error: KafkaError) -> LogError {
        let vague = code_of(&error).is_some_and(|code| next(call, code) == Next::Wait);
        match self.last() {
            Some((code, reason)) if vague => {
                LogError::new(next(call, code).kind(), message).with_source(ClientError::new(reason))
            }
            _ => failed(call, message, error),
        }
    }

    pub(crate) fn note(&self, error: &KafkaError, reason: &str) {
        let code = code_of(error).unwrap_or(RDKafkaErrorCode::Unknown);
        let mut state = lock(&self.state);
        if code != RDKafkaErrorCode::AllBrokersDown {
            state.last = Some((code, reason.to_owned()));
        }
        let now = Instant::now();
        if state.silent_until.is_some_and(|until| now < until) {
            state.suppressed += 1;
            return;
        }
        // Twice as long as the last silence, or from the start after a time without failures.
        let ended = state.silent_until.is_none_or(|until| now.duration_since(until) > state.silence);
        let silence = if ended { Duration::from_secs(1) } else { (state.silence * 2).min(QUIET_MAX) };
        state.silence = silence;
        state.silent_until = Some(now + silence);
        let suppressed = std::mem::take(&mut state.suppressed);
        drop(state);
        tracing::warn!(target: "librdkafka", %code, suppressed, "{reason}");
    }
}

impl ClientContext for Journal {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        use RDKafkaLogLevel::{Alert, Critical, Debug, Emerg, Error, Info, Notice, Warning};
        match level {
            // The same failures come as errors, which `note` spaces out; every client warns of properties that are
            // meant for the others, and a new producer of the connection on which it first asked for its id.
            Error | Warning | Notice | Info if matches!(facility, "FAIL" | "ERROR" | "CONFWARN" | "GETPID") => {
                if facility == "FAIL" {
                    // Not every failure comes as an error too: a broker that hangs up does not.
                    let reason = message.split_once("]: ").map_or(message, |(_thread, reason)| reason);
                    let code = RDKafkaErrorCode::BrokerTransportFailure;
                    lock(&self.state).last.get_or_insert_with(|| (code, reason.to_owned()));
                }
                tracing::debug!(target: "librdkafka", facility, "{message}");
            }
            Emerg | Alert | Critical | Error | Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
            Notice | Info => tracing::info!(target: "librdkafka", facility, "{message}"),
            Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
        }
    }

    fn stats_raw(&self, statistics: &[u8]) {
        let statistics = String::from_utf8_lossy(statistics);
        tracing::debug!(target: "librdkafka", %statistics, "statistics");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.note(&error, reason);
    }
}

impl ConsumerContext for Journal {}

/// A partition that is asked about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    /// It was seen before: a broker that does not know it will hear of it, which takes a moment for a new topic.
    pub(crate) known: bool,
}

/// Asks about brokers, topics and offsets. Its calls block.
pub(crate) struct Asking {
    consumer: Arc<BaseConsumer<Journal>>,
    stopped: Arc<AtomicBool>,
    brokers: String,
    timeout: Duration,
}

impl Asking {
    /// Connects, trying again until the configured time is over.
    pub(crate) fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let consumer: BaseConsumer<Journal> = config
            .for_asking()
            .create_with_context(Journal::default())
            .map_err(|error| failed(Call::Start, "creating a Kafka client", error))?;
        let consumer = Arc::new(consumer);
        await_broker(&consumer, config)?;
        let stopped = Arc::new(AtomicBool::new(false));
        serve(Arc::clone(&consumer), Arc::clone(&stopped))?;
        Ok(Self { consumer, stopped, brokers: config.brokers().to_owned(), timeout: config.deadline() })
    }

    /// What the cluster says of one topic, or of all.
    pub(crate) fn metadata(&self, topic: Option<&str>) -> Result<Metadata, LogError> {
        self.retrying(
            Call::Start,
            |patience| self.consumer.fetch_metadata(topic, patience),
            passes,
            || match topic {
                Some(topic) => format!("asking Kafka at {} about topic {topic}", self.brokers),
                None => format!("asking Kafka at {} about its topics", self.brokers),
            },
        )
    }

    /// The first offset and the one after the last.
    pub(crate) fn bounds(&self, place: Place<'_>) -> Result<Range<u64>, LogError> {
        let Place { topic, partition, known } = place;
        let what = || format!("asking Kafka at {} for the bounds of {topic}/{partition}", self.brokers);
        let Ok(number) = i32::try_from(partition) else {
            return Err(LogError::new(LogErrorKind::Settings, format!("{}: there is no such partition", what())));
        };
        let call = if known { Call::Work } else { Call::Start };
        let again = |error: &KafkaError| passes(error) || (known && is_missing(error));
        let ask = |patience| {
            let bounds = self.consumer.fetch_watermarks(topic, number, patience);
            if known && bounds.as_ref().is_err_and(is_missing) {
                // librdkafka keeps what it heard of a topic from a broker that did not know it yet, until it is told anew.
                let _ = self.consumer.fetch_metadata(Some(topic), patience);
            }
            bounds
        };
        let (low, high) = self.retrying(call, ask, again, what)?;
        match (u64::try_from(low), u64::try_from(high)) {
            (Ok(low), Ok(high)) => Ok(low..high),
            _ => Err(LogError::new(LogErrorKind::Unavailable, format!("{} gave {low} and {high}", what()))),
        }
    }

    /// The number of partitions of a topic; none, where no broker that was asked knows it.
    pub(crate) fn partitions(&self, topic: &str) -> Result<Option<u32>, LogError> {
        let metadata = self.metadata(Some(topic))?;
        Ok(self.found(&metadata, topic)?.map(|found| count(found.partitions().len())))
    }

    /// The topic as the metadata has it, none where it is not there.
    ///
    /// # Errors
    /// Where the broker tells nothing of it, which is not the same as that it is not there.
    pub(crate) fn found<'a>(&self, metadata: &'a Metadata, topic: &str) -> Result<Option<&'a MetadataTopic>, LogError> {
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        let Some(code) = found.error().map(RDKafkaErrorCode::from) else { return Ok(Some(found)) };
        let error = KafkaError::MetadataFetch(code);
        match class(code) {
            Class::Missing => Ok(None),
            Class::Passing => Ok(Some(found)),
            _ => Err(failed(Call::Start, format!("asking Kafka at {} about topic {topic}", self.brokers), error)),
        }
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    fn retrying<T>(
        &self,
        call: Call,
        ask: impl Fn(Duration) -> Result<T, KafkaError>,
        again: impl Fn(&KafkaError) -> bool,
        what: impl Fn() -> String,
    ) -> Result<T, LogError> {
        let deadline = Instant::now() + self.timeout;
        let journal = self.consumer.context();
        journal.take_reason(); // of something earlier
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            let error = match ask(patience) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            if !again(&error) || Instant::now() >= deadline {
                return Err(journal.explain(call, what(), error));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

pub(crate) fn count(partitions: usize) -> u32 {
    u32::try_from(partitions).expect("Kafka counts partitions in 31 bits")
}

/// Whether to ask again.
fn passes(error: &KafkaError) -> bool {
    code_of(error).is_some_and(|code| next(Call::Work, code) == Next::Wait)
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed); // its thread drops the client, which may block
    }
}

impl std::fmt::Debug for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asking").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

fn await_broker(consumer: &BaseConsumer<Journal>, config: &KafkaConfig) -> Result<(), LogError> {
    let deadline = Instant::now() + config.deadline();
    loop {
        let patience = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(500));
        let Err(error) = consumer.fetch_metadata(None, patience) else { return Ok(()) };
        for _ in 0..100 {
            let _ = consumer.poll(Duration::ZERO); // one log line or failure each, for the journal
        }
        let refused = consumer.context().last().is_some_and(|(code, _)| next(Call::Start, code) == Next::Settings);
        if refused || Instant::now() >= deadline {
            let (brokers, waited) = (config.brokers(), config.deadline());
            let message = if refused {
                format!("connecting to Kafka at {brokers}: check user, password, certificates and security.protocol")
            } else {
                format!(
                    "connecting to Kafka at {brokers} failed for {waited:?}: check that a broker listens there and \
                     that TLS and login are what it wants"
                )
            };
            return Err(consumer.context().explain(Call::Start, message, error));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A thread that takes the client's logs and errors, which would pile up, and drops the client in the end.
fn serve(consumer: Arc<BaseConsumer<Journal>>, stopped: Arc<AtomicBool>) -> Result<(), LogError> {
    let serving = move || {
        while !stopped.load(Ordering::Relaxed) {
            let _ = consumer.poll(POLL); // messages there are none, and the journal has the errors
        }
    };
    spawn("es-kafka-ask", serving)
}

/// Starts a thread that nobody waits for.
pub(crate) fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), LogError> {
    thread::Builder::new().name(name.into()).spawn(work).map(drop).map_err(|error| {
        LogError::new(LogErrorKind::Unavailable, format!("starting the thread {name}")).with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;

    const TOPIC: &str = "records";

    fn cluster() -> MockCluster<'static, DefaultProducerContext> {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic(TOPIC, 1, 1).unwrap();
        cluster
    }

    #[test]
    fn a_failure_that_goes_on_is_logged_once_in_a_growing_while() {
        let journal = Journal::default();
        let failure = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        for _ in 0..5 {
            journal.note(&failure, "connection refused");
        }
        assert_eq!(lock(&journal.state).suppressed, 4);
        let first = lock(&journal.state).silence;
        lock(&journal.state).silent_until = Some(Instant::now());
        journal.note(&failure, "connection refused");
        assert_eq!(lock(&journal.state).suppressed, 0);
        assert_eq!(lock(&journal.state).silence, 2 * first);
    }

    #[test]
    fn a_vague_failure_is_explained_by_the_last_one_that_names_a_cause() {
        let journal = Journal::default();
        let cause = |error: &LogError| std::error::Error::source(error).expect("a cause").to_string();
        let vague = || KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        assert!(cause(&journal.explain(Call::Start, "asking", vague())).contains("Timed out"));
        journal.note(&KafkaError::Global(RDKafkaErrorCode::Authentication), "wrong password");
        journal.note(&KafkaError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        let error = journal.explain(Call::Start, "asking", vague());
        assert_eq!((error.kind(), cause(&error).as_str()), (LogErrorKind::Settings, "wrong password"));
        let error = journal.explain(Call::Work, "asking", vague());
        assert_eq!((error.kind(), cause(&error).as_str()), (LogErrorKind::Unavailable, "wrong password"));
        let clear = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopic);
        assert!(!cause(&journal.explain(Call::Start, "asking", clear)).contains("password"));
    }

    /// What a broker denies a process at work it may give back: nothing that was asked is final.
    #[test]
    fn a_right_that_comes_back_is_used_again() {
        let cluster = cluster();
        let config = KafkaConfig::new(cluster.bootstrap_servers()).timeout(Duration::from_secs(1));
        let asking = Asking::connect(&config).unwrap();
        let bounds = |known| asking.bounds(Place { topic: TOPIC, partition: 0, known });
        // One for each end, which librdkafka asks for at once.
        let denied = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED; 2];
        for (known, kind) in [(false, LogErrorKind::Settings), (true, LogErrorKind::Unavailable)] {
            cluster.request_errors(RDKafkaApiKey::ListOffsets, &denied);
            assert_eq!(bounds(known).unwrap_err().kind(), kind, "known: {known}");
        }
        assert_eq!(bounds(true).unwrap(), 0..0);
    }

    /// A topic whose existence a broker does not tell is not taken for missing: it would be made anew.
    #[test]
    fn a_topic_that_may_not_be_seen_is_not_taken_for_missing() {
        let cluster = cluster();
        let config = KafkaConfig::new(cluster.bootstrap_servers()).timeout(Duration::from_secs(1));
        let asking = Asking::connect(&config).unwrap();
        assert_eq!(asking.partitions(TOPIC).unwrap(), Some(1));
        cluster.topic_error("gone", RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART).unwrap();
        assert_eq!(asking.partitions("gone").unwrap(), None);
        cluster.topic_error(TOPIC, RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED).unwrap();
        let error = asking.partitions(TOPIC).unwrap_err();
        assert_eq!(error.kind(), LogErrorKind::Settings);
        let cause = std::error::Error::source(&error).expect("a cause").to_string();
        assert!(error.to_string().contains(TOPIC) && cause.contains("authorization"), "{error}: {cause}");
    }
}
