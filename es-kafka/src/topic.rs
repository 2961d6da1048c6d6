//! Making a topic so that it keeps every event, or every snapshot, and refusing one that would not.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use es_core::log::{LogError, LogErrorKind, TopicKind, TopicSpec};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use tokio::runtime::Handle;

use crate::client::{Asking, Journal, Place, count, spawn};
use crate::config::KafkaConfig;
use crate::error::{Call, failed};

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
/// A segment of a new commands topic takes records for at most so long, and a quarter of the time for which ids are
/// remembered.
const SEGMENT_MS: u64 = 6 * 60 * 60 * 1000;
/// What brokers take to look for segments to delete, and how far their clocks may be from those of owners.
const SLACK_MS: u64 = 60 * 60 * 1000;
/// Nobody waits that long for an answer.
const REPLIES_KEPT_MS: u64 = 60 * 60 * 1000;

/// Makes the topic where it is missing, verifies it, and tells its number of partitions. Blocks.
pub(crate) fn prepare(asking: &Asking, config: &KafkaConfig, topic: &TopicSpec) -> Result<u32, LogError> {
    let admin = Admin::new(config)?;
    let prepared = match topic.kind {
        TopicKind::Events | TopicKind::Snapshots | TopicKind::Seals => {
            make_and_verify(&admin, asking, config, &topic.name, topic.kind)
        }
        TopicKind::Commands { kept_ms, remembered_ms } => {
            passing(&admin, asking, config, &topic.name, Some(InTime { kept_ms, remembered_ms }))
        }
        TopicKind::Replies => passing(&admin, asking, config, &topic.name, None),
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

/// A topic of what is on its way: commands, whose ids are remembered for a time, or replies.
fn passing(
    admin: &Admin,
    asking: &Asking,
    config: &KafkaConfig,
    topic: &str,
    in_time: Option<InTime>,
) -> Result<u32, LogError> {
    let (kept_ms, segment_ms) = match in_time {
        Some(in_time) => (in_time.kept_ms, in_time.segment_ms()),
        None => (REPLIES_KEPT_MS, REPLIES_KEPT_MS),
    };
    let new = |replicas, batch_bytes| new_passing_settings(replicas, batch_bytes, kept_ms, segment_ms);
    let found = find_or_make(admin, asking, config, topic, new)?;
    verify_passing(topic, &admin.settings(topic)?, in_time)?;
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
    match Shape::of(asking, &metadata, topic)? {
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
    fn of(asking: &Asking, metadata: &Metadata, topic: &str) -> Result<Option<Self>, LogError> {
        let Some(topic) = asking.found(metadata, topic)? else { return Ok(None) };
        let partitions = topic.partitions();
        let replicas = partitions.iter().map(|partition| partition.replicas().len()).min();
        Ok(replicas.map(|replicas| Self {
            partitions: count(partitions.len()),
            replicas,
            led: partitions.iter().all(|partition| partition.leader() >= 0),
        }))
    }
}

/// A new topic is known to brokers one after the other.
fn await_leaders(asking: &Asking, topic: &str, patience: Duration) -> Result<Shape, LogError> {
    let deadline = Instant::now() + patience;
    loop {
        match Shape::of(asking, &asking.metadata(Some(topic))?, topic)? {
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
            .map_err(|error| failed(Call::Start, "creating a Kafka client", error))?;
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
        let outcome = results.map_err(|error| failed(Call::Start, what(), error))?.into_iter().next();
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
            Some(Err((_, code))) => Err(failed(Call::Start, what(), KafkaError::AdminOp(code))),
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
            let found = results.map_err(|error| failed(Call::Start, what(), error))?.into_iter().next();
            let entries = match found {
                Some(found) => found.map_err(|code| failed(Call::Start, what(), KafkaError::AdminOp(code)))?.entries,
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

/// A command that is on its topic for longer than its id is remembered would take effect twice: once when it is decided,
/// and again when the group's offsets are lost and its owner reads the topic from its start.
#[derive(Debug, Clone, Copy)]
struct InTime {
    /// How long a new topic keeps a segment after the last record that came to it.
    kept_ms: u64,
    remembered_ms: u64,
}

impl InTime {
    /// How long records are added to the same segment of a new topic.
    fn segment_ms(self) -> u64 {
        SEGMENT_MS.min(self.remembered_ms / 4)
    }

    fn slack_ms(self) -> u64 {
        SLACK_MS.min(self.remembered_ms / 8)
    }

    /// The longest time for which a command may be on a topic with these settings; `None` where nothing bounds it.
    fn longest_ms(self, settings: &Settings) -> Option<u64> {
        let number = |name: &str| settings.get(name)?.trim().parse::<u64>().ok();
        // With the senders' times a segment may begin with a record of the future, and end with another.
        let ahead_ms = match setting(settings, "message.timestamp.type") {
            "LogAppendTime" => 0,
            _ => number("message.timestamp.after.max.ms")?.checked_mul(2)?,
        };
        let kept_ms = number("retention.ms")?.checked_add(number("segment.ms")?)?;
        kept_ms.checked_add(ahead_ms)?.checked_add(self.slack_ms())
    }
}

fn setting<'a>(settings: &'a Settings, name: &str) -> &'a str {
    settings.get(name).map_or("", |value| value.trim())
}

/// The settings of a new topic of commands or replies. Brokers set the times of its records, so that no sender's clock
/// decides when they are deleted.
fn new_passing_settings(replicas: usize, batch_bytes: usize, kept_ms: u64, segment_ms: u64) -> NewSettings {
    vec![
        ("cleanup.policy", "delete".into()),
        ("retention.ms", kept_ms.to_string()),
        ("segment.ms", segment_ms.to_string()),
        ("min.insync.replicas", if replicas >= REPLICAS { "2" } else { "1" }.into()),
        ("message.timestamp.type", "LogAppendTime".into()),
        ("max.message.bytes", batch_bytes.max(MESSAGE_MAX_BYTES).to_string()),
    ]
}

/// Refuses a topic whose records are not deleted in time.
fn verify_passing(topic: &str, settings: &Settings, in_time: Option<InTime>) -> Result<(), LogError> {
    let mut wrong = Vec::new();
    let cleanup = setting(settings, "cleanup.policy");
    if cleanup != "delete" {
        wrong.push(format!("cleanup.policy is {cleanup:?}: set it to delete"));
    }
    let longest_ms = in_time.map(|in_time| (in_time, in_time.longest_ms(settings)));
    if let Some((in_time, longest_ms)) = longest_ms
        && longest_ms.is_none_or(|longest_ms| longest_ms > in_time.remembered_ms)
    {
        let names = ["retention.ms", "segment.ms", "message.timestamp.type", "message.timestamp.after.max.ms"];
        let found = names.map(|name| format!("{name} {:?}", setting(settings, name))).join(", ");
        let longest = longest_ms.map_or("for ever".into(), |longest_ms| format!("for {longest_ms} ms"));
        let (ids_ms, kept_ms, segment_ms) = (in_time.remembered_ms, in_time.kept_ms, in_time.segment_ms());
        wrong.push(format!(
            "a command could stay on it {longest} and its id is remembered for {ids_ms} ms, so it could take effect twice \
             ({found}): set retention.ms to {kept_ms}, segment.ms to {segment_ms} and message.timestamp.type to \
             LogAppendTime"
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
        let added = if found > partitions {
            "; where some were added on the broker, leave the number out: they are passed over while they are empty"
        } else {
            ""
        };
        wrong.push(format!(
            "it has {found} partitions, asked for are {partitions}: ask for {found}, since aggregates can't move{added}"
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
    fn a_command_never_stays_for_longer_than_its_id_is_remembered() {
        const DAY_MS: u64 = 24 * 60 * 60 * 1000;
        let of = |ms: u64| InTime { kept_ms: DAY_MS.min(ms / 2), remembered_ms: ms };
        let made = |in_time: InTime, changes: &[(&str, &str)]| -> Settings {
            let new = new_passing_settings(3, 1_000, in_time.kept_ms, in_time.segment_ms());
            let given = changes.iter().map(|&(name, value)| (name, value.to_owned()));
            new.into_iter().chain(given).map(|(name, value)| (name.to_owned(), value)).collect()
        };
        for ms in [1_000, 60_000, DAY_MS, 2 * DAY_MS, 7 * DAY_MS, 365 * DAY_MS, u64::MAX] {
            verify_passing("t", &made(of(ms), &[]), Some(of(ms))).unwrap();
        }

        let week = of(7 * DAY_MS);
        let create_time = ("message.timestamp.type", "CreateTime");
        let table: &[(&[(&str, &str)], &str)] = &[
            (&[("retention.ms", "-1")], "for ever"),
            (&[("retention.ms", "")], "for ever"),
            (&[("retention.ms", "604800000")], "for 630000000 ms"),
            // Kafka's own default: the segment of a quiet topic is a week old before it is complete.
            (&[("segment.ms", "604800000")], "for 694800000 ms"),
            (&[create_time], "for ever"),
            (&[create_time, ("message.timestamp.after.max.ms", "9223372036854775807")], "for ever"),
            (&[create_time, ("message.timestamp.after.max.ms", "259200000")], "for 630000000 ms"),
        ];
        for (changes, expected) in table {
            let error = verify_passing("t", &made(week, changes), Some(week)).unwrap_err();
            let message = error.to_string();
            assert_eq!(error.kind(), LogErrorKind::Settings);
            assert!(message.contains(expected) && message.contains("set retention.ms to 86400000"), "{message}");
            assert!(changes.iter().all(|(name, value)| message.contains(&format!("{name} {value:?}"))), "{message}");
        }
        let hour_ahead = [create_time, ("message.timestamp.after.max.ms", "3600000")];
        verify_passing("t", &made(week, &hour_ahead), Some(week)).unwrap();
        let message = verify_passing("t", &made(week, &[("cleanup.policy", "compact")]), Some(week)).unwrap_err();
        assert!(message.to_string().contains("set it to delete"), "{message}");
        verify_passing("t", &made(week, &[("retention.ms", "604800000")]), None).unwrap();
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
