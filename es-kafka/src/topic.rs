//! Making a topic so that it keeps every event, or every snapshot, and refusing one that would not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use es_core::log::{LogError, LogErrorKind, TopicKind, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use tokio::runtime::Handle;

use crate::client::{Asking, Journal, Place, spawn};
use crate::config::KafkaConfig;
use crate::error::failed;

/// A reader must have this long to see a record before compaction may take its predecessor away.
const COMPACTION_LAG_MS: u64 = 7 * 24 * 60 * 60 * 1000;
/// Snapshots are written again and again: compaction begins at segments of this size, or a day old, and when a fifth
/// of a partition is new. Kafka's own defaults, 1 GB, a week and half, would let a restore read much that is old.
const SNAPSHOTS: [(&str, &str); 3] =
    [("segment.bytes", "67108864"), ("segment.ms", "86400000"), ("min.cleanable.dirty.ratio", "0.2")];
/// Kafka's own default for `max.message.bytes`.
const MESSAGE_MAX_BYTES: usize = 1_048_588;
const PARTITIONS: u32 = 8;
const REPLICAS: usize = 3;
/// Nobody waits that long for an answer.
const REPLIES_KEPT_MS: u64 = 60 * 60 * 1000;

/// Makes the topic where it is missing, verifies it, and tells its number of partitions. Blocks.
pub(crate) fn prepare(asking: &Asking, config: &KafkaConfig, topic: &TopicSpec) -> Result<u32, LogError> {
    let admin = Admin::new(config)?;
    let prepared = match topic.kind {
        TopicKind::Events | TopicKind::Snapshots | TopicKind::Seals => {
            make_and_verify(&admin, asking, config, &topic.name, topic.kind)
        }
        TopicKind::Commands { retention_ms } => passing(&admin, asking, config, &topic.name, retention_ms),
        TopicKind::Replies => passing(&admin, asking, config, &topic.name, REPLIES_KEPT_MS),
        kind => {
            let message = format!("topic {} is of the kind {kind:?}, which is not known here", topic.name);
            Err(LogError::new(LogErrorKind::Settings, message))
        }
    };
    spawn("es-kafka-admin", || drop(admin))?; // takes a tenth of a second
    prepared
}

fn make_and_verify(
    admin: &Admin,
    asking: &Asking,
    config: &KafkaConfig,
    topic: &str,
    kind: TopicKind,
) -> Result<u32, LogError> {
    let new = |replicas, batch_bytes| new_settings(kind, replicas, batch_bytes);
    let found = find_or_make(admin, asking, config, topic, new)?;
    let settings = admin.settings(topic)?;
    let wanted = Wanted { partitions: config.asked_partitions(), batch_bytes: config.batch_max_bytes() };
    verify(topic, kind, &found, &settings, &wanted)?;
    for partition in 0..found.partitions {
        let start = asking.bounds(Place { topic, partition, known: true })?.start;
        if start > 0 {
            return Err(shortened(topic, kind, partition, start));
        }
    }
    Ok(found.partitions)
}

/// A topic of what is on its way, commands or replies: nothing is kept there for longer than `retention_ms`.
fn passing(
    admin: &Admin,
    asking: &Asking,
    config: &KafkaConfig,
    topic: &str,
    retention_ms: u64,
) -> Result<u32, LogError> {
    let new = |replicas, batch_bytes| new_passing_settings(replicas, batch_bytes, retention_ms);
    let found = find_or_make(admin, asking, config, topic, new)?;
    verify_passing(topic, &admin.settings(topic)?, retention_ms)?;
    Ok(found.partitions)
}

fn find_or_make(
    admin: &Admin,
    asking: &Asking,
    config: &KafkaConfig,
    topic: &str,
    settings: impl Fn(usize, usize) -> NewSettings,
) -> Result<Shape, LogError> {
    let metadata = asking.metadata(Some(topic))?;
    match Shape::of(&metadata, topic) {
        Some(shape) => Ok(shape),
        None => {
            admin.create(topic, config, metadata.brokers().len(), settings)?;
            await_leaders(asking, topic, config.deadline())
        }
    }
}

/// Partitions and replicas of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    partitions: u32,
    /// The smallest number of replicas of its partitions.
    replicas: usize,
    led: bool,
}

impl Shape {
    fn of(metadata: &Metadata, topic: &str) -> Option<Self> {
        let topic = metadata.topics().iter().find(|found| found.name() == topic)?;
        let partitions = topic.partitions();
        let replicas = partitions.iter().map(|partition| partition.replicas().len()).min()?;
        Some(Self {
            partitions: u32::try_from(partitions.len()).expect("Kafka counts partitions in 31 bits"),
            replicas,
            led: partitions.iter().all(|partition| partition.leader() >= 0),
        })
    }
}

/// A new topic is known to brokers one after the other.
fn await_leaders(asking: &Asking, topic: &str, patience: Duration) -> Result<Shape, LogError> {
    let deadline = Instant::now() + patience;
    loop {
        match Shape::of(&asking.metadata(Some(topic))?, topic) {
            Some(shape) if shape.led => return Ok(shape),
            _ if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                let message = format!("creating topic {topic}: it has no leaders after {patience:?}");
                return Err(LogError::new(LogErrorKind::Unavailable, message));
            }
        }
    }
}

struct Admin {
    client: AdminClient<Journal>,
    options: AdminOptions,
    patience: Duration,
    runtime: Handle,
}

impl Admin {
    fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let client = config
            .for_admin()
            .create_with_context(Journal::default())
            .map_err(|error| failed("creating a Kafka client", error))?;
        let patience = config.deadline();
        let options = AdminOptions::new().request_timeout(Some(patience)).operation_timeout(Some(patience));
        Ok(Self { client, options, patience, runtime: Handle::current() })
    }

    fn create(
        &self,
        topic: &str,
        config: &KafkaConfig,
        brokers: usize,
        settings: impl Fn(usize, usize) -> NewSettings,
    ) -> Result<(), LogError> {
        let replicas = config.asked_replication_factor().map_or(brokers.clamp(1, REPLICAS), usize::from);
        let settings = settings(replicas, config.batch_max_bytes());
        let partitions = config.asked_partitions().unwrap_or(PARTITIONS);
        let what = || format!("creating topic {topic} with {partitions} partitions and {replicas} replicas");
        let too_many = |_| LogError::new(LogErrorKind::Settings, format!("{}: too many", what()));
        let mut new = NewTopic::new(
            topic,
            i32::try_from(partitions).map_err(too_many)?,
            TopicReplication::Fixed(i32::try_from(replicas).map_err(too_many)?),
        );
        for (name, value) in &settings {
            new = new.set(name, value);
        }
        let results = self.runtime.block_on(self.client.create_topics([&new], &self.options));
        let outcome = results.map_err(|error| failed(what(), error))?.into_iter().next();
        match outcome {
            // Somebody was faster: what they made is verified like any other.
            Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
                tracing::info!(topic, partitions, replicas, "topic created");
                if replicas < REPLICAS {
                    tracing::warn!(
                        topic,
                        replicas,
                        "what is acknowledged may be on one broker only: for production have three"
                    );
                }
                Ok(())
            }
            Some(Err((_, code))) => Err(failed(what(), KafkaError::AdminOp(code))),
            None => Err(LogError::new(LogErrorKind::Unavailable, format!("{}: no answer", what()))),
        }
    }

    /// A new topic is known to brokers one after the other. One that does not know it answers with an error, of which
    /// rdkafka leaves nothing but the lack of settings; so does one that may not tell them.
    fn settings(&self, topic: &str) -> Result<Settings, LogError> {
        let what = || format!("reading the settings of topic {topic} (the right DescribeConfigs is needed)");
        let deadline = Instant::now() + self.patience;
        loop {
            let asked = [ResourceSpecifier::Topic(topic)];
            let results = self.runtime.block_on(self.client.describe_configs(&asked, &self.options));
            let found = results.map_err(|error| failed(what(), error))?.into_iter().next();
            let entries = match found {
                Some(found) => found.map_err(|code| failed(what(), KafkaError::AdminOp(code)))?.entries,
                None => Vec::new(),
            };
            if !entries.is_empty() {
                return Ok(entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect());
            }
            if Instant::now() >= deadline {
                return Err(LogError::new(LogErrorKind::Unavailable, format!("{}: no answer", what())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

type Settings = HashMap<String, String>;
type NewSettings = Vec<(&'static str, String)>;

fn new_passing_settings(replicas: usize, batch_bytes: usize, retention_ms: u64) -> NewSettings {
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", retention_ms.to_string()),
        ("segment.ms", retention_ms.to_string()),
        ("min.insync.replicas", if replicas >= REPLICAS { "2" } else { "1" }.into()),
        ("message.timestamp.type", "CreateTime".into()),
        ("max.message.bytes", batch_bytes.max(MESSAGE_MAX_BYTES).to_string()),
    ]
}

/// Refuses a topic whose records could come after their command ids were forgotten: they would take effect twice.
fn verify_passing(topic: &str, settings: &Settings, retention_ms: u64) -> Result<(), LogError> {
    let setting = |name: &str| settings.get(name).map_or("", |value| value.trim());
    let mut wrong = Vec::new();
    if setting("cleanup.policy") != "delete" {
        wrong.push(format!("cleanup.policy is {:?}: set it to delete", setting("cleanup.policy")));
    }
    let kept = setting("retention.ms").parse::<i64>().ok().and_then(|kept| u64::try_from(kept).ok());
    if kept.is_none_or(|kept| kept > retention_ms) {
        let found = setting("retention.ms");
        wrong.push(format!(
            "retention.ms is {found:?}, so a command could come after its id was forgotten: set it to {retention_ms} or less"
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let message = format!("topic {topic} is not fit for commands and replies: {}", wrong.join("; "));
    Err(LogError::new(LogErrorKind::Settings, message))
}

fn new_settings(kind: TopicKind, replicas: usize, batch_bytes: usize) -> NewSettings {
    let mut settings = vec![
        // Of seals nothing is ever replaced: a record with the key of another would only take that away.
        ("cleanup.policy", if kind == TopicKind::Seals { "delete" } else { "compact" }.into()),
        ("retention.ms", "-1".into()),
        ("retention.bytes", "-1".into()),
        ("min.insync.replicas", if replicas >= REPLICAS { "2" } else { "1" }.into()),
        ("unclean.leader.election.enable", "false".into()),
        ("message.timestamp.type", "CreateTime".into()),
        ("max.message.bytes", batch_bytes.max(MESSAGE_MAX_BYTES).to_string()),
    ];
    match kind {
        TopicKind::Snapshots => settings.extend(SNAPSHOTS.map(|(name, value)| (name, value.to_owned()))),
        TopicKind::Seals => {}
        _ => settings.push(("min.compaction.lag.ms", COMPACTION_LAG_MS.to_string())),
    }
    settings
}

/// What this client needs of a topic.
struct Wanted {
    partitions: Option<u32>,
    batch_bytes: usize,
}

/// Refuses a topic that could lose history or can't take what is appended, naming everything that is wrong.
///
/// A snapshots topic must lose nothing either: a checkpoint says that all that changed before it is there. Only its
/// compaction may be as quick as it likes, since a reader that misses a record finds a newer one of the same key.
fn verify(topic: &str, kind: TopicKind, shape: &Shape, settings: &Settings, wanted: &Wanted) -> Result<(), LogError> {
    let (what, is_events) = (name_of(kind), kind == TopicKind::Events);
    let mut wrong = Vec::new();
    let setting = |name: &str| settings.get(name).map_or("", |value| value.trim());
    let number = |name: &str| setting(name).parse::<i64>().ok();
    let mut set = |name: &str, why: &str, remedy: &str| {
        wrong.push(format!("{name} is {:?}, {why}: set it to {remedy}", setting(name)));
    };

    let cleanup: Vec<&str> = setting("cleanup.policy").split(',').map(str::trim).collect();
    if cleanup.contains(&"delete") {
        for name in ["retention.ms", "retention.bytes"] {
            if number(name) != Some(-1) {
                let why = format!("so cleanup.policy delete removes {what}");
                set(name, &why, "-1, or cleanup.policy to compact");
            }
        }
    }
    let lag = number("min.compaction.lag.ms").and_then(|lag| u64::try_from(lag).ok());
    if is_events && cleanup.contains(&"compact") && lag.is_none_or(|lag| lag < COMPACTION_LAG_MS) {
        let remedy = format!("{COMPACTION_LAG_MS} (7 days) or more");
        set("min.compaction.lag.ms", "so a slow reader could miss a record", &remedy);
    }
    if shape.replicas >= REPLICAS && number("min.insync.replicas").is_none_or(|replicas| replicas < 2) {
        set("min.insync.replicas", "so what was acknowledged may be on one broker only", "2");
    }
    if setting("unclean.leader.election.enable") != "false" {
        set("unclean.leader.election.enable", &format!("so a broker that lags behind could drop {what}"), "false");
    }
    if is_events && setting("message.timestamp.type") != "CreateTime" {
        set("message.timestamp.type", "so brokers replace the time at which an event was recorded", "CreateTime");
    }
    let batch_bytes = i64::try_from(wanted.batch_bytes).unwrap_or(i64::MAX);
    if number("max.message.bytes").is_none_or(|bytes| bytes < batch_bytes) {
        let remedy = format!("{batch_bytes} or more, or the client's property message.max.bytes lower");
        set("max.message.bytes", "less than the client sends at once", &remedy);
    }
    if let Some(partitions) = wanted.partitions
        && partitions != shape.partitions
    {
        let found = shape.partitions;
        wrong.push(format!(
            "it has {found} partitions, asked for are {partitions}: ask for {found}, since aggregates can't move"
        ));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    Err(LogError::new(LogErrorKind::Settings, format!("topic {topic} is not fit for {what}: {}", wrong.join("; "))))
}

fn shortened(topic: &str, kind: TopicKind, partition: u32, start: u64) -> LogError {
    let remedy = match kind {
        TopicKind::Snapshots => "its first snapshots were deleted: delete the topic, it is made anew",
        TopicKind::Seals => {
            "its first seals were deleted: restore the topic, or keep what it holds and have it made anew"
        }
        _ => "its first events were deleted: restore the topic, or begin with a new one",
    };
    let what = name_of(kind);
    let message =
        format!("topic {topic} is not fit for {what}: partition {partition} begins at offset {start}, {remedy}");
    LogError::new(LogErrorKind::Lost, message)
}

/// What a topic of this kind must not lose.
fn name_of(kind: TopicKind) -> &'static str {
    match kind {
        TopicKind::Snapshots => "snapshots",
        TopicKind::Seals => "seals",
        _ => "events",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: TopicKind = TopicKind::Events;
    const GOOD: Shape = Shape { partitions: 4, replicas: 3, led: true };
    const WANTED: Wanted = Wanted { partitions: Some(4), batch_bytes: 1_000_061 };

    fn made() -> Settings {
        new_settings(EVENTS, 3, WANTED.batch_bytes).into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn with(changes: &[(&str, &str)]) -> Settings {
        let mut settings = made();
        settings.extend(changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        settings
    }

    #[test]
    fn a_topic_as_it_is_made_is_accepted() {
        verify("t", EVENTS, &GOOD, &made(), &WANTED).unwrap();
    }

    #[test]
    fn deleting_is_accepted_where_nothing_is_ever_old_or_large_enough() {
        verify("t", EVENTS, &GOOD, &with(&[("cleanup.policy", "delete"), ("min.compaction.lag.ms", "0")]), &WANTED)
            .unwrap();
        verify("t", EVENTS, &GOOD, &with(&[("cleanup.policy", "compact,delete")]), &WANTED).unwrap();
    }

    #[test]
    fn each_dangerous_setting_is_refused_with_value_and_remedy() {
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("cleanup.policy", "delete"), ("retention.ms", "604800000")], "retention.ms is \"604800000\""),
            (&[("cleanup.policy", "compact,delete"), ("retention.bytes", "1000")], "retention.bytes is \"1000\""),
            (&[("min.compaction.lag.ms", "0")], "min.compaction.lag.ms is \"0\""),
            (&[("min.insync.replicas", "1")], "min.insync.replicas is \"1\""),
            (&[("unclean.leader.election.enable", "true")], "unclean.leader.election.enable is \"true\""),
            (&[("message.timestamp.type", "LogAppendTime")], "message.timestamp.type is \"LogAppendTime\""),
            (&[("max.message.bytes", "1000060")], "max.message.bytes is \"1000060\""),
        ];
        for (changes, expected) in table {
            let error = verify("bank.account.events", EVENTS, &GOOD, &with(changes), &WANTED).unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), LogErrorKind::Settings);
            assert!(message.contains("bank.account.events") && message.contains(expected), "{message}");
            assert!(message.contains("set it to"), "{message}");
        }
    }

    #[test]
    fn a_setting_that_the_broker_does_not_tell_is_refused() {
        let message = verify("t", EVENTS, &GOOD, &Settings::new(), &WANTED).unwrap_err().to_string();
        assert!(message.contains("unclean.leader.election.enable is \"\""), "{message}");
    }

    #[test]
    fn commands_must_be_deleted_before_their_ids_are_forgotten() {
        let made = |changes: &[(&str, &str)]| -> Settings {
            let given = changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            let new = new_passing_settings(3, 1_000, 5_000).into_iter().map(|(name, value)| (name.to_owned(), value));
            new.chain(given).collect()
        };
        verify_passing("t", &made(&[]), 5_000).unwrap();
        for retention in ["5001", "-1", ""] {
            let message = verify_passing("t", &made(&[("retention.ms", retention)]), 5_000).unwrap_err().to_string();
            assert!(message.contains("set it to 5000 or less"), "{message}");
        }
        let message = verify_passing("t", &made(&[("cleanup.policy", "compact")]), 5_000).unwrap_err().to_string();
        assert!(message.contains("set it to delete"), "{message}");
    }

    #[test]
    fn with_few_replicas_one_in_sync_is_enough() {
        let single = Shape { replicas: 1, ..GOOD };
        verify("t", EVENTS, &single, &with(&[("min.insync.replicas", "1")]), &WANTED).unwrap();
    }

    #[test]
    fn another_number_of_partitions_is_refused_only_if_one_is_asked_for() {
        let other = Shape { partitions: 5, ..GOOD };
        let message = verify("t", EVENTS, &other, &made(), &WANTED).unwrap_err().to_string();
        assert!(message.contains("5 partitions, asked for are 4"), "{message}");
        verify("t", EVENTS, &other, &made(), &Wanted { partitions: None, ..WANTED }).unwrap();
    }

    #[test]
    fn a_snapshots_topic_is_compacted_soon_and_refused_where_it_could_lose_any() {
        let made = |changes: &[(&str, &str)]| -> Settings {
            let made = new_settings(TopicKind::Snapshots, 3, WANTED.batch_bytes);
            let made = made.into_iter().map(|(name, value)| (name.to_owned(), value));
            made.chain(changes.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()))).collect()
        };
        let verify = |changes: &[(&str, &str)]| verify("t", TopicKind::Snapshots, &GOOD, &made(changes), &WANTED);
        verify(&[]).unwrap();
        verify(&[("min.compaction.lag.ms", "0"), ("message.timestamp.type", "LogAppendTime")]).unwrap();
        for (name, value) in [("unclean.leader.election.enable", "true"), ("min.insync.replicas", "1")] {
            let message = verify(&[(name, value)]).unwrap_err().to_string();
            assert!(message.contains("not fit for snapshots") && message.contains(name), "{message}");
        }
        let deleting = [("cleanup.policy", "compact,delete"), ("retention.ms", "604800000")];
        let message = verify(&deleting).unwrap_err().to_string();
        assert!(message.contains("so cleanup.policy delete removes snapshots"), "{message}");
    }
}
