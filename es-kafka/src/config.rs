//! How to reach Kafka, and with which settings.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use es_core::log::{LogError, LogErrorKind, Record};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// librdkafka's own default, written down because the topic must fit it.
const MESSAGE_MAX_BYTES: usize = 1_000_000;
/// What a broker may answer a reader at once where it reads few partitions: each question costs a broker as much as a
/// megabyte.
const ANSWER_BYTES: usize = 4 << 20;
/// The head of a record batch, which `message.max.bytes` does not count.
const BATCH_HEAD_BYTES: usize = 61;
/// Room for what a record takes beside key, value and headers: its own lengths, and those of 98 headers.
const RECORD_HEAD_BYTES: usize = 1_024;
const HEADERS: usize = 98;
/// The group's protocol, in which the newer of two members with one name is let in and the older fenced.
const GROUP_PROTOCOL: &str = "classic";
/// The most bytes that the lengths of a header's name and value take.
const HEADER_HEAD_BYTES: usize = 10;

/// How to reach Kafka, and with which settings.
///
/// Any property of librdkafka can be given with [`property`](Self::property). Those on which the guarantees rest are
/// set by this crate; [`KafkaLog::connect`](crate::KafkaLog::connect) refuses a value that would break one.
///
/// # Example: TLS and a password
/// ```
/// use std::time::Duration;
///
/// let config = es_kafka::KafkaConfig::new("kafka-1.example.com:9093,kafka-2.example.com:9093")
///     .ssl_ca("/etc/kafka/ca.pem")
///     .sasl("SCRAM-SHA-512", "bank", "hunter2")
///     .property("compression.type", "lz4")
///     .partitions(12)
///     .timeout(Duration::from_secs(20));
/// assert!(!format!("{config:?}").contains("hunter2"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    brokers: String,
    properties: BTreeMap<String, String>,
    tls: bool,
    partitions: Option<u32>,
    replication_factor: Option<u16>,
    timeout: Duration,
}

impl KafkaConfig {
    /// The brokers to begin with, as `host:port,host:port`; the others are learnt from them.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            properties: BTreeMap::new(),
            tls: false,
            partitions: None,
            replication_factor: None,
            timeout: Duration::from_secs(10),
        }
    }

    /// Sets any property of librdkafka, by its own name, for every client.
    #[must_use]
    pub fn property(mut self, name: impl AsRef<str>, value: impl Into<String>) -> Self {
        self.properties.insert(canonical(name.as_ref()).to_owned(), value.into());
        self
    }

    /// Encrypts connections, trusting the certificate authorities of the system.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Encrypts connections, trusting the certificate authorities in this file (PEM).
    #[must_use]
    pub fn ssl_ca(self, file: impl Into<String>) -> Self {
        self.tls().property("ssl.ca.location", file)
    }

    /// Shows the brokers this certificate (PEM), for mutual TLS.
    #[must_use]
    pub fn ssl_certificate(self, file: impl Into<String>) -> Self {
        self.tls().property("ssl.certificate.location", file)
    }

    /// The private key of the certificate (PEM).
    #[must_use]
    pub fn ssl_key(self, file: impl Into<String>) -> Self {
        self.tls().property("ssl.key.location", file)
    }

    /// The password of the private key.
    #[must_use]
    pub fn ssl_key_password(self, password: impl Into<String>) -> Self {
        self.tls().property("ssl.key.password", password)
    }

    /// Logs in by `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`. Encrypt the connection too, since `PLAIN` sends the
    /// password as it is.
    #[must_use]
    pub fn sasl(self, mechanism: impl Into<String>, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.property("sasl.mechanism", mechanism)
            .property("sasl.username", username)
            .property("sasl.password", password)
    }

    /// The number of partitions that topics are made with and must have. Unless given, 8 for a new topic, and
    /// whatever an existing one has. It can't be changed once a topic holds events.
    #[must_use]
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = Some(partitions);
        self
    }

    /// The replication factor of new topics; unless given, 3, or the number of brokers where that is smaller.
    #[must_use]
    pub fn replication_factor(mut self, replicas: u16) -> Self {
        self.replication_factor = Some(replicas);
        self
    }

    /// How long connecting, making topics and asking for offsets may take, each; 10 seconds unless given. Appending
    /// and reading have no limit of their own.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(crate) fn asked_partitions(&self) -> Option<u32> {
        self.partitions
    }

    pub(crate) fn asked_replication_factor(&self) -> Option<u16> {
        self.replication_factor
    }

    pub(crate) fn deadline(&self) -> Duration {
        self.timeout
    }

    /// The largest record that the client takes, as [`Record::size`] counts.
    pub(crate) fn record_max_bytes(&self) -> usize {
        self.message_max_bytes().saturating_sub(RECORD_HEAD_BYTES)
    }

    /// The bytes of a record as the limit above counts them: it leaves room for only so many headers.
    pub(crate) fn record_bytes(record: &Record) -> usize {
        record.size() + record.headers.len().saturating_sub(HEADERS) * HEADER_HEAD_BYTES
    }

    /// The largest batch that the client sends.
    pub(crate) fn batch_max_bytes(&self) -> usize {
        self.message_max_bytes() + BATCH_HEAD_BYTES
    }

    fn message_max_bytes(&self) -> usize {
        let given = self.properties.get("message.max.bytes").and_then(|bytes| bytes.trim().parse().ok());
        given.unwrap_or(MESSAGE_MAX_BYTES)
    }

    /// Refuses what would break a guarantee.
    pub(crate) fn check(&self) -> Result<(), LogError> {
        let refused = |message: String| Err(LogError::new(LogErrorKind::Settings, message));
        if self.brokers.trim().is_empty() {
            return refused("no Kafka broker is given: name one or more as host:port,host:port".into());
        }
        if self.partitions == Some(0) || self.replication_factor == Some(0) {
            return refused("partitions and replication factor must be at least 1".into());
        }
        for (name, value) in &self.properties {
            let Some(rule) = RULES.iter().find(|rule| rule.name == name) else { continue };
            let value = value.trim().to_ascii_lowercase();
            if !rule.allowed.contains(&value.as_str()) {
                return refused(format!("the Kafka property {name} can't be {value:?}: {}: leave it out", rule.why));
            }
        }
        Ok(())
    }

    /// For asking about brokers, topics and offsets.
    pub(crate) fn for_asking(&self) -> ClientConfig {
        // Without it a foreign open transaction would hide the end of a partition.
        self.client(&[], &[("isolation.level", "read_uncommitted"), ("allow.auto.create.topics", "false")])
    }

    /// For making and describing topics.
    pub(crate) fn for_admin(&self) -> ClientConfig {
        self.client(&[], &[])
    }

    pub(crate) fn for_writing(&self) -> ClientConfig {
        let limit = MESSAGE_MAX_BYTES.to_string();
        let defaults = [
            // The writer ends the lingering when a round is complete.
            ("linger.ms", "5"),
            ("message.max.bytes", limit.as_str()),
            // A round is bounded by whoever decides it, and there is one at a time: no second bound.
            ("queue.buffering.max.messages", "0"),
            ("queue.buffering.max.kbytes", "2147483647"),
        ];
        let fixed = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            ("message.timeout.ms", "0"),
            ("allow.auto.create.topics", "false"),
        ];
        self.client(&defaults, &fixed)
    }

    /// For reading so many partitions.
    pub(crate) fn for_reading(&self, partitions: usize) -> ClientConfig {
        let answer_bytes = (ANSWER_BYTES / partitions.max(1)).max(1 << 20).to_string();
        let defaults = [
            // How much is read ahead, for all partitions of a reader together, before no broker is asked any more. The
            // bytes alone would be no bound, since librdkafka counts neither headers nor its own 500 bytes a record.
            // Where the caller is slow, as much again waits to be handed over.
            ("queued.min.messages", "5000"),
            ("queued.max.messages.kbytes", "8192"),
            ("fetch.max.bytes", "16777216"),
            // Of one partition at once.
            ("fetch.message.max.bytes", answer_bytes.as_str()),
            // How soon reading ahead goes on after it stopped at that bound; the default of a second starves.
            ("fetch.queue.backoff.ms", "2"),
            ("fetch.error.backoff.ms", "100"),
        ];
        let fixed = [
            ("check.crcs", "true"),
            ("isolation.level", "read_uncommitted"),
            ("auto.offset.reset", "error"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
        ];
        self.client(&defaults, &fixed)
    }

    /// For taking part in a group. Nothing is read with it.
    pub(crate) fn for_group(&self, group: &str, node: &str) -> ClientConfig {
        let defaults = [
            // How soon a process that was killed is missed; brokers allow no less unless they are told to.
            ("session.timeout.ms", "6000"),
            // How soon a process hears that the others share out anew.
            ("heartbeat.interval.ms", "500"),
        ];
        let fixed = [
            ("group.id", group),
            ("group.instance.id", node),
            ("group.protocol", GROUP_PROTOCOL),
            ("partition.assignment.strategy", "cooperative-sticky"),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("allow.auto.create.topics", "false"),
            ("queued.min.messages", "1"),
            ("queued.max.messages.kbytes", "64"),
        ];
        self.client(&defaults, &fixed)
    }

    /// For sending commands and replies, each on its own.
    pub(crate) fn for_sending(&self) -> ClientConfig {
        let timeout = self.timeout.as_millis().clamp(1_000, 60_000).to_string();
        let defaults = [("linger.ms", "0"), ("queue.buffering.max.messages", "100000")];
        let fixed = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("max.in.flight", "5"),
            // Nobody waits longer, and a hole between two of them is no harm.
            ("message.timeout.ms", timeout.as_str()),
            ("allow.auto.create.topics", "false"),
        ];
        self.client(&defaults, &fixed)
    }

    fn client(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("client.id", "es-kafka");
        client.set("socket.keepalive.enable", "true");
        // librdkafka's default maximum of 10 s is most of the stall after a broker's restart. And a new client waits
        // for half of the first value before it connects to a broker that it learnt of: small makes opening fast.
        client.set("reconnect.backoff.ms", "20").set("reconnect.backoff.max.ms", "500");
        // A broker that freezes keeps its connections: how soon a request to it is given up, and how soon a client hears
        // who leads in its place. The defaults of 60 s and 5 minutes are how long everybody would wait.
        client.set("socket.timeout.ms", "5000").set("topic.metadata.refresh.interval.ms", "5000");
        if let Some(protocol) = self.security_protocol() {
            client.set("security.protocol", protocol);
        }
        let given = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in defaults.iter().copied().chain(given).chain(fixed.iter().copied()) {
            client.set(name, value);
        }
        client.set("bootstrap.servers", &self.brokers);
        let debug = self.properties.contains_key("debug");
        client.set_log_level(if debug { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
        client
    }

    fn security_protocol(&self) -> Option<&'static str> {
        match (self.tls, self.properties.contains_key("sasl.mechanism")) {
            (true, true) => Some("sasl_ssl"),
            (true, false) => Some("ssl"),
            (false, true) => Some("sasl_plaintext"),
            (false, false) => None,
        }
    }
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: BTreeMap<_, _> = self.properties.iter().map(|(name, value)| (name, redacted(name, value))).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("properties", &shown)
            .field("tls", &self.tls)
            .field("partitions", &self.partitions)
            .field("replication_factor", &self.replication_factor)
            .field("timeout", &self.timeout)
            .finish()
    }
}

fn redacted<'a>(name: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", "key.pem", "oauthbearer", "passphrase"];
    if secret.iter().any(|part| name.contains(part)) { "(hidden)" } else { value }
}

/// librdkafka has several names for some properties; the last one set would win by chance.
fn canonical(name: &str) -> &str {
    match name {
        "metadata.broker.list" => "bootstrap.servers",
        "request.required.acks" => "acks",
        "delivery.timeout.ms" => "message.timeout.ms",
        "max.in.flight.requests.per.connection" => "max.in.flight",
        "retries" => "message.send.max.retries",
        "queue.buffering.max.ms" => "linger.ms",
        "compression.codec" => "compression.type",
        "max.partition.fetch.bytes" => "fetch.message.max.bytes",
        "sasl.mechanisms" => "sasl.mechanism",
        name => name,
    }
}

/// A property on which a guarantee rests.
struct Rule {
    name: &'static str,
    /// In lower case; none for a property that must not be given at all.
    allowed: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule { name: "bootstrap.servers", allowed: &[], why: "the brokers are given to KafkaConfig::new" },
    Rule { name: "enable.idempotence", allowed: &["true"], why: "a retry could append an event twice or out of order" },
    Rule { name: "acks", allowed: &["all", "-1"], why: "an event could be lost that was acknowledged" },
    Rule {
        name: "message.timeout.ms",
        allowed: &["0"],
        why: "the client would drop one record and deliver those after it",
    },
    Rule {
        name: "message.send.max.retries",
        allowed: &["2147483647"],
        why: "the client would drop one record and deliver those after it",
    },
    Rule {
        name: "max.in.flight",
        allowed: &["1", "2", "3", "4", "5"],
        why: "brokers remember five batches of an idempotent producer",
    },
    Rule { name: "group.id", allowed: &[], why: "readers are in no group, and that of the processes has its own name" },
    Rule {
        name: "group.protocol",
        allowed: &[GROUP_PROTOCOL],
        why: "under the newer protocol a process that comes back is fenced by its own earlier self until the broker misses \
              that, and the session timeout is the broker's",
    },
    Rule { name: "transactional.id", allowed: &[], why: "events are appended without transactions" },
    Rule {
        name: "delivery.report.only.error",
        allowed: &["false"],
        why: "the reports of success are the proof of an append",
    },
    Rule {
        name: "isolation.level",
        allowed: &["read_uncommitted"],
        why: "a foreign open transaction would hide an owner's own claim",
    },
    Rule {
        name: "auto.offset.reset",
        allowed: &["error"],
        why: "a reader whose offset is gone would skip events in silence",
    },
    Rule {
        name: "enable.auto.commit",
        allowed: &["false"],
        why: "checkpoints are kept beside what was made of events",
    },
    Rule { name: "enable.auto.offset.store", allowed: &["false"], why: "offsets are not kept in Kafka" },
    Rule { name: "check.crcs", allowed: &["true"], why: "a record that was damaged on its way would be folded in" },
    Rule { name: "enable.partition.eof", allowed: &["true"], why: "a reader could not pass offsets without a record" },
    Rule {
        name: "allow.auto.create.topics",
        allowed: &["false"],
        why: "a topic must be made with settings that keep every event",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(config: KafkaConfig) -> String {
        let error = config.check().expect_err("must be refused");
        assert_eq!(error.kind(), LogErrorKind::Settings);
        error.to_string()
    }

    #[test]
    fn properties_that_would_break_a_guarantee_are_refused_with_the_reason() {
        let table = [
            ("enable.idempotence", "false", "append an event twice"),
            ("acks", "1", "lost that was acknowledged"),
            ("request.required.acks", "0", "lost that was acknowledged"),
            ("message.timeout.ms", "30000", "drop one record"),
            ("delivery.timeout.ms", "30000", "drop one record"),
            ("retries", "3", "drop one record"),
            ("max.in.flight.requests.per.connection", "6", "five batches"),
            ("transactional.id", "bank", "without transactions"),
            ("delivery.report.only.error", "true", "proof of an append"),
            ("isolation.level", "read_committed", "hide an owner's own claim"),
            ("auto.offset.reset", "earliest", "skip events in silence"),
            ("enable.auto.commit", "true", "checkpoints"),
            ("enable.auto.offset.store", "true", "not kept in Kafka"),
            ("check.crcs", "false", "damaged on its way"),
            ("enable.partition.eof", "false", "without a record"),
            ("allow.auto.create.topics", "true", "settings that keep every event"),
            ("bootstrap.servers", "other:9092", "KafkaConfig::new"),
            ("group.id", "bank", "readers are in no group"),
            ("group.protocol", "consumer", "fenced by its own earlier self"),
        ];
        for (name, value, reason) in table {
            let message = refusal(KafkaConfig::new("localhost:9092").property(name, value));
            assert!(message.contains(canonical(name)) && message.contains(reason), "{name}: {message}");
        }
        let rules_tried = table.map(|(name, ..)| canonical(name));
        assert!(RULES.iter().all(|rule| rules_tried.contains(&rule.name)), "each rule has a case");
    }

    #[test]
    fn the_values_that_are_needed_may_be_given_too() {
        for rule in RULES {
            for value in rule.allowed {
                let config = KafkaConfig::new("localhost:9092").property(rule.name, value.to_uppercase());
                config.check().unwrap_or_else(|error| panic!("{} {value}: {error}", rule.name));
            }
        }
    }

    #[test]
    fn an_empty_broker_list_and_no_partitions_are_refused() {
        assert!(refusal(KafkaConfig::new(" ")).contains("host:port"));
        assert!(refusal(KafkaConfig::new("localhost:9092").partitions(0)).contains("at least 1"));
        assert!(refusal(KafkaConfig::new("localhost:9092").replication_factor(0)).contains("at least 1"));
    }

    #[test]
    fn given_properties_reach_every_client_and_can_change_defaults_only() {
        let config = KafkaConfig::new("localhost:9092")
            .property("queue.buffering.max.ms", "3")
            .property("sasl.mechanisms", "PLAIN")
            .property("fetch.max.bytes", "1000000");
        let writing = config.for_writing();
        assert_eq!(writing.get("linger.ms"), Some("3"));
        assert_eq!(writing.get("acks"), Some("all"));
        assert_eq!(writing.get("security.protocol"), Some("sasl_plaintext"));
        let reading = config.for_reading(1);
        assert_eq!(reading.get("fetch.max.bytes"), Some("1000000"));
        assert_eq!(reading.get("auto.offset.reset"), Some("error"));
    }

    /// What is written here is on every broker that must have it, once, in its order, before it is acknowledged.
    #[test]
    fn every_client_has_the_settings_on_which_the_guarantees_rest() {
        let config = KafkaConfig::new("localhost:9092");
        let clients = [
            ("writing", config.for_writing()),
            ("sending", config.for_sending()),
            ("reading", config.for_reading(3)),
            ("asking", config.for_asking()),
            ("in the group", config.for_group("bank.account.owners", "node-1")),
        ];
        let settings = [
            ("acks", "all", &["writing", "sending"][..]),
            ("enable.idempotence", "true", &["writing", "sending"]),
            ("max.in.flight", "5", &["writing", "sending"]),
            ("message.timeout.ms", "0", &["writing"]),
            ("isolation.level", "read_uncommitted", &["reading", "asking"]),
            ("auto.offset.reset", "error", &["reading"]),
            ("enable.auto.commit", "false", &["reading", "in the group"]),
            ("enable.auto.offset.store", "false", &["reading", "in the group"]),
            ("enable.partition.eof", "true", &["reading"]),
            ("check.crcs", "true", &["reading"]),
            ("allow.auto.create.topics", "false", &["writing", "sending", "reading", "asking", "in the group"]),
            ("partition.assignment.strategy", "cooperative-sticky", &["in the group"]),
            ("group.instance.id", "node-1", &["in the group"]),
        ];
        for (property, value, of) in settings {
            for (name, client) in clients.iter().filter(|(name, _)| of.contains(name)) {
                assert_eq!(client.get(property), Some(value), "{property} {name}");
            }
        }
    }

    #[test]
    fn a_group_is_joined_by_the_protocol_that_its_rules_are_written_for() {
        let config = KafkaConfig::new("localhost:9092");
        assert_eq!(config.for_group("bank.account.owners", "node-1").get("group.protocol"), Some("classic"));
        refusal(config.clone().property("group.protocol", "consumer"));
        config.property("group.protocol", "classic").check().unwrap();
    }

    #[test]
    fn the_security_protocol_follows_from_what_is_given_unless_named() {
        let plain = KafkaConfig::new("localhost:9092");
        let protocol =
            |config: &KafkaConfig| config.for_writing().get("security.protocol").unwrap_or("plaintext").to_owned();
        assert_eq!(protocol(&plain), "plaintext");
        assert_eq!(protocol(&plain.clone().ssl_ca("ca.pem")), "ssl");
        assert_eq!(protocol(&plain.clone().tls().sasl("PLAIN", "a", "b")), "sasl_ssl");
        assert_eq!(protocol(&plain.tls().property("security.protocol", "plaintext")), "plaintext");
    }

    #[test]
    fn secrets_are_not_shown() {
        let config = KafkaConfig::new("localhost:9092")
            .sasl("PLAIN", "bank", "hunter2")
            .ssl_key_password("hunter2")
            .property("ssl.key.pem", "hunter2")
            .property("sasl.oauthbearer.client.secret", "hunter2");
        let shown = format!("{config:?}");
        assert!(!shown.contains("hunter2") && shown.contains("bank"), "{shown}");
    }

    #[test]
    fn the_largest_record_follows_the_clients_limit() {
        let config = KafkaConfig::new("localhost:9092");
        assert_eq!(config.record_max_bytes(), 998_976);
        assert_eq!(config.property("message.max.bytes", "2000000").batch_max_bytes(), 2_000_061);
    }
}
