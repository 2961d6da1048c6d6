//! Encoding to a record and back: the one module that knows keys, header names and the `es` header.
//!
//! Headers are CloudEvents 1.0 in Kafka's binary mode; everything of ours is packed into one header, `es`, a
//! protobuf message. `docs/formats.md` describes every stored format; bytes of each are kept as tests.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat};
use prost::Message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::envelope::Envelope;
pub use crate::domain::error::Unfit;
use crate::domain::hash::{CommandHash, EventHash};
use crate::domain::ids::{
    Actor, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, ExpectedVersion, StreamId, Version,
};
use crate::domain::limits::{self, COUNT_MAX};
use crate::log::Record;

/// The newest format of the `es` header that this program writes and reads.
const FORMAT: u32 = 1;

/// The event type of the record that says that an aggregate was erased; no event can have it.
pub const ERASED: &str = "!erased";

/// The most events of one command. A reader holds them until the last has come.
pub const COMMAND_EVENTS_MAX: u32 = 10_000;
/// The most bytes of the events of one command, as [`Record::size`] counts them.
pub const COMMAND_BYTES_MAX: usize = 64 << 20;
/// The most headers of a record that is read: each takes memory beside its bytes.
pub const HEADERS_MAX: usize = 100;

pub(crate) mod header {
    pub(crate) const SPEC_VERSION: &str = "ce_specversion";
    pub(crate) const ID: &str = "ce_id";
    pub(crate) const SOURCE: &str = "ce_source";
    pub(crate) const TYPE: &str = "ce_type";
    pub(crate) const SUBJECT: &str = "ce_subject";
    pub(crate) const TIME: &str = "ce_time";
    pub(super) const PARTITION_KEY: &str = "ce_partitionkey";
    pub(crate) const CONTENT_TYPE: &str = "content-type";
    pub(crate) const TRACEPARENT: &str = "traceparent";
    pub(super) const ES: &str = "es";
}

/// The `es` header.
#[derive(Clone, PartialEq, Message)]
struct Es {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(enumeration = "Kind", tag = "2")]
    kind: i32,
    #[prost(uint64, tag = "3")]
    epoch_number: u64,
    #[prost(fixed64, tag = "4")]
    epoch_writer: u64,
    #[prost(uint64, tag = "5")]
    sequence: u64,
    #[prost(uint32, tag = "6")]
    index: u32,
    #[prost(uint32, tag = "7")]
    count: u32,
    #[prost(uint64, tag = "8")]
    version: u64,
    #[prost(uint32, tag = "9")]
    schema_version: u32,
    #[prost(string, tag = "10")]
    command_id: String,
    #[prost(bytes = "bytes", tag = "11")]
    command_hash: Bytes,
    #[prost(string, tag = "12")]
    correlation_id: String,
    #[prost(string, tag = "13")]
    causation_id: String,
    #[prost(string, tag = "14")]
    actor: String,
    #[prost(bytes = "bytes", tag = "15")]
    previous_hash: Bytes,
    #[prost(bytes = "bytes", tag = "16")]
    hash: Bytes,
}

/// 0 is left out so that bytes which happen to be a protobuf message are not taken for an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
enum Kind {
    Unknown = 0,
    Event = 1,
    Claim = 2,
    Answers = 3,
    Erased = 4,
    Copied = 5,
}

/// What the validity rule looks at: who wrote a record, and where in the writer's sequence it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The writer's claim.
    pub epoch: Epoch,
    /// 1 for the first record after the claim, and one more for each.
    pub sequence: u64,
    /// The place of this event among those of its command, from 0.
    pub index: u32,
    /// The number of events of its command.
    pub count: u32,
}

/// The record with which a process takes over a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The new epoch.
    #[serde(skip)]
    pub epoch: Epoch,
    /// Random, from the partition's first claim, copied on: tells a topic from another of the same name.
    pub log_id: Uuid,
    /// The name of the process.
    pub node: String,
    /// What the program is, for people and for what they count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// The number of partitions of the topic: with another one its aggregates would live elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// The claim before this one.
    pub previous: Option<PreviousClaim>,
    /// The id of the copy, where the partition is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Uuid>,
}

/// The record with which a copied partition begins, before any of the records that were copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Copied {
    /// The copy's id, random: those who own the copy claim under it, which tells their claims from the copied ones.
    pub copy: Uuid,
    /// The id of the log of which it is a copy; a copy keeps it.
    pub from: Uuid,
    /// Where that log is, for people.
    pub cluster: String,
    /// What made the copy, with its version.
    pub tool: String,
    /// The offset in the source before which everything was copied.
    pub cut: u64,
    /// How many partitions the copy has, where it is to be told that some were added later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partitions: Option<u32>,
    /// What was sealed of the source, where it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed: Option<CopiedSeal>,
}

/// The last seal of the log that was copied, by which a copy is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopiedSeal {
    /// The number of leaves.
    pub size: u64,
    /// The root, 64 hex digits.
    pub root: String,
}

/// What a claim says of the program that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// What people call its release, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Arc<str>>,
    /// Tells the shapes of all events and commands that it knows from those of another: 16 hexadecimal digits.
    pub shapes: String,
}

/// The claim before a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousClaim {
    /// Its number.
    pub number: u64,
    /// Its writer, as a number.
    pub writer: u64,
    /// Its offset.
    pub offset: u64,
}

/// A record of a round with the answers of commands that gave no events: it proves that they were decided on the newest state, and
/// remembers the answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers {
    /// One entry per command, in the order of deciding.
    pub answers: Vec<AnswerEntry>,
}

/// A command's answer in an answers record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnswerEntry {
    /// The aggregate that was asked.
    pub aggregate: AggregateKey,
    /// The command.
    pub command: CommandId,
    /// The hash of its type and payload, in hex.
    #[serde(with = "hex_hash")]
    pub hash: CommandHash,
    /// The version at which it was decided.
    pub version: Version,
    /// The stored name of the command's type. Records of before it was kept have none.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub command_type: Option<Arc<str>>,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<Actor>,
    /// The conversation that it belongs to; none where that is its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation: Option<CorrelationId>,
    /// The command or event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation: Option<CausationId>,
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl AnswerEntry {
    /// No fewer bytes than it takes in the record: JSON may escape each byte of a text as six.
    pub(crate) fn size_bound(&self) -> usize {
        let len = |text: Option<&str>| text.map_or(0, str::len);
        let about = len(self.command_type.as_deref())
            + len(self.actor.as_ref().map(Actor::as_str))
            + len(self.correlation.as_ref().map(|id| id.as_str()))
            + len(self.causation.as_ref().map(|id| id.as_str()));
        let texts = 6 * (self.aggregate.as_str().len() + self.command.as_str().len() + about);
        texts + self.answer.size_bound() + 320
    }
}

/// An answer that appends no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Answer {
    /// The domain refused; its error as JSON text.
    Refused(String),
    /// Accepted, without events.
    NoOp(()),
    /// The stream was not at the expected version.
    Conflict(ExpectedVersion),
    /// Deciding it panicked, with this text; nothing was appended.
    Panicked(String),
    /// It can't be carried out as it is.
    Invalid(Unfit),
    /// A newer release's, of a kind that this program does not know: the command was decided, and is not decided again.
    #[serde(untagged)]
    Other(serde_json::Map<String, serde_json::Value>),
}

impl Answer {
    /// No fewer bytes than it takes in an answers record, where a refusal is JSON text within JSON.
    fn size_bound(&self) -> usize {
        match self {
            Self::Refused(text) => 2 * text.len(),
            Self::Panicked(text) | Self::Invalid(Unfit::Encoding(text)) => 6 * text.len(),
            Self::NoOp(()) | Self::Conflict(_) | Self::Invalid(_) | Self::Other(_) => 0,
        }
    }
}

impl<'de> Deserialize<'de> for Answer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde_json::{Map, Value};
        let fields = Map::<String, Value>::deserialize(deserializer)?;
        let known = fields.iter().find_map(|(kind, value)| {
            Some(match (kind.as_str(), value) {
                ("refused", Value::String(text)) => Self::Refused(text.clone()),
                ("no_op", Value::Null) => Self::NoOp(()),
                ("conflict", expected) => Self::Conflict(ExpectedVersion::deserialize(expected).ok()?),
                ("panicked", Value::String(text)) => Self::Panicked(text.clone()),
                ("invalid", unfit) => Self::Invalid(Unfit::deserialize(unfit).ok()?),
                _ => return None,
            })
        });
        Ok(known.unwrap_or(Self::Other(fields)))
    }
}

mod hex_hash {
    use super::CommandHash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &CommandHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |place: usize| char::from(text.as_bytes()[place]).to_digit(16);
        let byte = |place| Some((digit(2 * place)? * 16 + digit(2 * place + 1)?) as u8);
        let read = || {
            let mut hash = [0; 17];
            for (place, into) in hash.iter_mut().enumerate() {
                *into = byte(place)?;
            }
            Some(CommandHash(hash))
        };
        let hash = if text.len() == 34 { read() } else { None };
        hash.ok_or_else(|| D::Error::custom("a command hash has 34 hex digits"))
    }
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// An event.
    Event(Stamp, Box<Envelope>),
    /// An answers record.
    Answers(Stamp, Answers),
    /// The word that an aggregate was erased up to a version: what is left of its events.
    Erased(Stamp, Box<Envelope>),
    /// A claim.
    Claim(Claim),
    /// The beginning of a copy.
    Copied(Copied),
    /// A null value: an erased event, or a key that was cleared.
    Tombstone,
    /// Not one of ours; why.
    Foreign(String),
    /// Written by a newer release, in this format.
    Newer(u32),
}

/// Encodes what one owner writes: the parts that are the same for all its records are made once.
#[derive(Debug, Clone)]
pub struct Encoder {
    source: Bytes,
}

impl Encoder {
    /// An encoder for the aggregate type `name` in topics of this namespace.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { source: format!("/{namespace}/{name}").into() }
    }

    /// The record of an event.
    pub fn event(&self, event: &Envelope, stamp: Stamp) -> Record {
        let key = format!("{}/{}@{}", event.stream.id, event.version, stamp.epoch);
        self.with_metadata(event, Kind::Event, stamp, key)
    }

    /// The record that says that an aggregate's events up to this version are erased. It is written like an event of the type
    /// [`ERASED`], whose version and previous hash are those of the last event that is erased.
    pub fn erased(&self, erased: &Envelope, stamp: Stamp) -> Record {
        self.with_metadata(erased, Kind::Erased, stamp, format!("!erased/{}@{}", erased.stream.id, stamp.epoch))
    }

    fn with_metadata(&self, event: &Envelope, kind: Kind, stamp: Stamp, key: String) -> Record {
        let id = event.stream.id.as_str();
        let subject = Bytes::copy_from_slice(id.as_bytes());
        let es = Es {
            version: event.version.get(),
            schema_version: event.schema_version,
            command_id: event.command_id.as_str().into(),
            command_hash: Bytes::copy_from_slice(&event.command_hash.0),
            correlation_id: event.correlation_id.as_str().into(),
            causation_id: event.causation_id.as_ref().map_or_else(String::new, |id| id.as_str().into()),
            actor: event.actor.as_ref().map_or_else(String::new, |actor| actor.as_str().into()),
            previous_hash: Bytes::copy_from_slice(&event.previous_hash.0),
            hash: Bytes::copy_from_slice(&event.hash.0),
            ..Es::stamped(kind, stamp)
        };
        let ce_type = format!("{}.{}.{}", event.context, event.stream.category, event.event_type);
        let mut headers: Vec<(Cow<'static, str>, Bytes)> = Vec::with_capacity(10);
        let mut push = |name: &'static str, value: Bytes| headers.push((Cow::Borrowed(name), value));
        push(header::SPEC_VERSION, Bytes::from_static(b"1.0"));
        push(header::ID, event.event_id.to_string().into());
        push(header::SOURCE, self.source.clone());
        push(header::TYPE, ce_type.into());
        push(header::SUBJECT, subject.clone());
        push(header::TIME, event.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true).into());
        push(header::PARTITION_KEY, subject);
        push(header::CONTENT_TYPE, Bytes::copy_from_slice(event.content_type.as_bytes()));
        if let Some(traceparent) = &event.traceparent {
            push(header::TRACEPARENT, Bytes::copy_from_slice(traceparent.as_bytes()));
        }
        push(header::ES, es.encode_to_vec().into());
        Record {
            key: key.into(),
            value: Some(event.payload.clone()),
            headers,
            timestamp_ms: event.recorded_at.timestamp_millis(),
        }
    }

    /// The record of a claim.
    pub fn claim(&self, claim: &Claim, timestamp_ms: i64) -> Record {
        let stamp = Stamp { epoch: claim.epoch, sequence: 0, index: 0, count: 0 };
        control(format!("!claim/{}", claim.epoch), claim, Es::stamped(Kind::Claim, stamp), timestamp_ms)
    }

    /// The record with which a copy begins.
    pub fn copied(&self, copied: &Copied, timestamp_ms: i64) -> Record {
        let stamp = Stamp { epoch: Epoch::default(), sequence: 0, index: 0, count: 0 };
        control(format!("!copied/{}", copied.copy), copied, Es::stamped(Kind::Copied, stamp), timestamp_ms)
    }

    /// An answers record.
    pub fn answers(&self, answers: &Answers, stamp: Stamp, timestamp_ms: i64) -> Record {
        let key = format!("!answers/{}@{}", stamp.sequence, stamp.epoch);
        control(key, answers, Es::stamped(Kind::Answers, stamp), timestamp_ms)
    }
}

impl Es {
    fn stamped(kind: Kind, stamp: Stamp) -> Self {
        Self {
            format: FORMAT,
            kind: kind.into(),
            epoch_number: stamp.epoch.number,
            epoch_writer: stamp.epoch.writer,
            sequence: stamp.sequence,
            index: stamp.index,
            count: stamp.count,
            ..Self::default()
        }
    }

    fn stamp(&self) -> Stamp {
        let epoch = Epoch { number: self.epoch_number, writer: self.epoch_writer };
        Stamp { epoch, sequence: self.sequence, index: self.index, count: self.count }
    }
}

fn control(key: String, value: &impl Serialize, es: Es, timestamp_ms: i64) -> Record {
    Record {
        key: key.into(),
        value: Some(serde_json::to_vec(value).expect("control records hold text and numbers only").into()),
        headers: vec![(Cow::Borrowed(header::ES), es.encode_to_vec().into())],
        timestamp_ms,
    }
}

/// Reads a record. Never fails: what can't be read is [`Decoded::Foreign`] and says why.
pub fn decode(record: &Record) -> Decoded {
    let Some(value) = &record.value else { return Decoded::Tombstone };
    if record.headers.len() > HEADERS_MAX {
        return Decoded::Foreign(format!("it has more than {HEADERS_MAX} headers"));
    }
    let Some(es) = record.header(header::ES) else { return Decoded::Foreign("it has no es header".into()) };
    let Ok(es) = Es::decode(es.clone()) else { return Decoded::Foreign("its es header can't be read".into()) };
    if es.format > FORMAT && Kind::try_from(es.kind).is_ok_and(|kind| kind != Kind::Unknown) {
        return Decoded::Newer(es.format);
    }
    if es.format != FORMAT {
        return Decoded::Foreign(format!("its es header has format {}", es.format));
    }
    if es.epoch_number.max(es.sequence).max(es.version) > COUNT_MAX {
        return Decoded::Foreign("its es header has a number that is too large".into());
    }
    if let Err(reason) = limits::recorded_ms(record.timestamp_ms) {
        return Decoded::Foreign(reason);
    }
    let decoded = match es.kind() {
        Kind::Event => decode_event(record, value, &es).map(|event| Decoded::Event(es.stamp(), event)),
        Kind::Erased => decode_erased(record, value, &es),
        Kind::Claim => decode_claim(value, &es),
        Kind::Copied => serde_json::from_slice(value)
            .map(Decoded::Copied)
            .map_err(|error| format!("a record that a copy begins with and that can't be read: {error}")),
        Kind::Answers => serde_json::from_slice(value)
            .map(|answers| Decoded::Answers(es.stamp(), answers))
            .map_err(|error| format!("an answers record that can't be read: {error}")),
        Kind::Unknown => Err(format!("its es header has kind {}", es.kind)),
    };
    decoded.unwrap_or_else(Decoded::Foreign)
}

fn decode_claim(value: &Bytes, es: &Es) -> Result<Decoded, String> {
    let claim: Claim = serde_json::from_slice(value).map_err(|error| format!("a claim that can't be read: {error}"))?;
    Ok(Decoded::Claim(Claim { epoch: es.stamp().epoch, ..claim }))
}

fn decode_erased(record: &Record, value: &Bytes, es: &Es) -> Result<Decoded, String> {
    let erased = decode_event(record, value, es)?;
    match (&*erased.event_type, es.count) {
        (ERASED, 1) => Ok(Decoded::Erased(es.stamp(), erased)),
        (other, count) => Err(format!("it says that an aggregate is erased, with type {other} as one of {count}")),
    }
}

fn decode_event(record: &Record, value: &Bytes, es: &Es) -> Result<Box<Envelope>, String> {
    let text = |name: &'static str| {
        let value = record.header(name).ok_or_else(|| format!("it has no header {name}"))?;
        std::str::from_utf8(value).map_err(|_| format!("its header {name} is not UTF-8"))
    };
    fn optional<T>(
        text: &str,
        parse: impl Fn(&str) -> Result<T, crate::domain::ids::InvalidId>,
    ) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some).map_err(|error| error.to_string()) }
    }
    fn array<const N: usize>(bytes: &Bytes, what: &str) -> Result<[u8; N], String> {
        bytes.as_ref().try_into().map_err(|_| format!("its {what} has {} bytes instead of {N}", bytes.len()))
    }
    let invalid = |error: crate::domain::ids::InvalidId| error.to_string();
    if es.count == 0 || es.index >= es.count || es.version == 0 {
        return Err(format!("it is event {} of {} at version {}", es.index, es.count, es.version));
    }
    if es.count > COMMAND_EVENTS_MAX {
        return Err(format!("it is one of {} events of a command, which has at most {COMMAND_EVENTS_MAX}", es.count));
    }
    let ce_type = text(header::TYPE)?;
    if ce_type.chars().any(char::is_control) {
        return Err("its ce_type has a control character".into());
    }
    let mut parts = ce_type.splitn(3, '.');
    let (Some(context), Some(category), Some(event_type)) = (parts.next(), parts.next(), parts.next()) else {
        return Err("its ce_type is not of the form context.aggregate.event".into());
    };
    let occurred_at =
        DateTime::parse_from_rfc3339(text(header::TIME)?).map_err(|error| format!("its ce_time: {error}"))?;
    let envelope = Envelope {
        context: context.into(),
        stream: StreamId { category: category.into(), id: AggregateKey::new(text(header::SUBJECT)?).map_err(invalid)? },
        version: Version::new(es.version),
        event_id: Uuid::parse_str(text(header::ID)?).map_err(|error| format!("its ce_id: {error}"))?.into(),
        event_type: event_type.into(),
        schema_version: es.schema_version,
        recorded_at: DateTime::from_timestamp_millis(record.timestamp_ms).ok_or("its timestamp is out of range")?,
        occurred_at: limits::business_time(occurred_at.to_utc())?,
        command_id: CommandId::new(&es.command_id).map_err(invalid)?,
        command_hash: CommandHash(array(&es.command_hash, "command hash")?),
        correlation_id: crate::domain::ids::CorrelationId::new(&es.correlation_id).map_err(invalid)?,
        causation_id: optional(&es.causation_id, |text| crate::domain::ids::CausationId::new(text))?,
        actor: optional(&es.actor, |text| crate::domain::ids::Actor::new(text))?,
        traceparent: record.header(header::TRACEPARENT).and_then(|v| std::str::from_utf8(v).ok()).map(Arc::from),
        content_type: text(header::CONTENT_TYPE)?.into(),
        payload: value.clone(),
        previous_hash: EventHash(array(&es.previous_hash, "previous hash")?),
        hash: EventHash(array(&es.hash, "hash")?),
    };
    Ok(Box::new(envelope))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use chrono::Utc;

    use super::*;
    use crate::domain::ids::{Actor, CausationId, CorrelationId};

    fn encoder() -> Encoder {
        Encoder::new("bank", "account")
    }

    fn stamp() -> Stamp {
        let epoch = Epoch { number: 7, writer: 0x0123_4567_89ab_cdef };
        Stamp { epoch, sequence: 300, index: 1, count: 3 }
    }

    fn uuid(byte: u8) -> Uuid {
        Uuid::from_bytes([byte; 16])
    }

    fn time(micros: i64) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(1_700_000_000_000_000 + micros).unwrap()
    }

    fn full() -> Envelope {
        let envelope = Envelope {
            context: "bank".into(),
            stream: StreamId { category: "account".into(), id: AggregateKey::new("Žižka/42").unwrap() },
            version: Version::new(12),
            event_id: uuid(0xe0).into(),
            event_type: "deposited".into(),
            schema_version: 2,
            recorded_at: time(123_000),
            occurred_at: time(-86_400_000_001),
            command_id: CommandId::new("c-1").unwrap(),
            command_hash: CommandHash::of("deposit", b"{}"),
            correlation_id: CorrelationId::new("conversation").unwrap(),
            causation_id: Some(CausationId::new("cause").unwrap()),
            actor: Some(Actor::new("clerk 9").unwrap()),
            traceparent: Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".into()),
            content_type: "application/json".into(),
            payload: Bytes::from(r#"{"amount":1}"#),
            previous_hash: EventHash([0xaa; 32]),
            hash: EventHash::default(),
        };
        Envelope { hash: envelope.compute_hash(), ..envelope }
    }

    fn minimal() -> Envelope {
        let envelope = Envelope {
            stream: StreamId { category: "account".into(), id: AggregateKey::new("42").unwrap() },
            version: Version::new(1),
            schema_version: 1,
            occurred_at: time(123_000),
            causation_id: None,
            actor: None,
            traceparent: None,
            payload: Bytes::from("{}"),
            previous_hash: EventHash::default(),
            ..full()
        };
        Envelope { hash: envelope.compute_hash(), ..envelope }
    }

    fn claim() -> Claim {
        let previous = Some(PreviousClaim { number: 6, writer: u64::MAX, offset: 1_234_567 });
        let program = Some(Program { release: Some("2026.3".into()), shapes: "0123456789abcdef".into() });
        Claim {
            epoch: stamp().epoch,
            log_id: uuid(0x10),
            node: "host-1".into(),
            program,
            partitions: Some(8),
            previous,
            copy: None,
        }
    }

    fn answers() -> Answers {
        let entry = |command: &str, answer| AnswerEntry {
            aggregate: AggregateKey::new("42").unwrap(),
            command: CommandId::new(command).unwrap(),
            hash: CommandHash::of("withdraw", command.as_bytes()),
            version: Version::new(12),
            command_type: None,
            actor: None,
            correlation: None,
            causation: None,
            answer,
        };
        let refused = Answer::Refused(r#"{"insufficient_funds":{"balance":5}}"#.into());
        let expected = [
            ExpectedVersion::Any,
            ExpectedVersion::NoStream,
            ExpectedVersion::StreamExists,
            ExpectedVersion::Exactly(Version::new(3)),
        ];
        let conflicts =
            (0..).zip(expected).map(|(place, expected)| entry(&format!("c-4.{place}"), Answer::Conflict(expected)));
        Answers {
            answers: [entry("c-2", refused), entry("c-3", Answer::NoOp(()))].into_iter().chain(conflicts).collect(),
        }
    }

    /// A record as text: what is text as it is, the es header in hex.
    fn show(record: &Record) -> String {
        let mut shown = format!("timestamp {}\nkey {}\n", record.timestamp_ms, String::from_utf8_lossy(&record.key));
        for (name, value) in &record.headers {
            match name.as_ref() {
                header::ES => writeln!(shown, "{name} {}", hex(value)).unwrap(),
                name => writeln!(shown, "{name} {}", String::from_utf8_lossy(value)).unwrap(),
            }
        }
        let value = record.value.as_deref().unwrap_or(b"(tombstone)");
        shown + "value " + &String::from_utf8_lossy(value)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The record that [`show`] shows so.
    fn parse(shown: &str) -> Record {
        let mut record = Record { key: Bytes::new(), value: None, headers: vec![], timestamp_ms: 0 };
        for line in shown.trim().lines() {
            let (name, value) = line.trim().split_once(' ').unwrap();
            let text = Bytes::copy_from_slice(value.as_bytes());
            match name {
                "timestamp" => record.timestamp_ms = value.parse().unwrap(),
                "key" => record.key = text,
                "value" => record.value = Some(text),
                header::ES => record.headers.push((Cow::Borrowed(header::ES), unhex(value))),
                name => record.headers.push((Cow::Owned(name.into()), text)),
            }
        }
        record
    }

    fn unhex(text: &str) -> Bytes {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn an_event_with_every_field() {
        insta::assert_snapshot!(show(&encoder().event(&full(), stamp())), @r#"
        timestamp 1700000000123
        key Žižka/42/12@7.0123456789abcdef
        ce_specversion 1.0
        ce_id e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0
        ce_source /bank/account
        ce_type bank.account.deposited
        ce_subject Žižka/42
        ce_time 2023-11-13T22:13:19.999999Z
        ce_partitionkey Žižka/42
        content-type application/json
        traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        es 08011001180721efcdab896745230128ac0230013803400c48025203632d315a110190a449f7f137e6c36db9862e5639fadc620c636f6e766572736174696f6e6a0563617573657207636c65726b20397a20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa820120325e027b4219e3ee280f90acdbf86bb5aafcd9db6bee75cd0aa3405368fa8e9b
        value {"amount":1}
        "#);
    }

    #[test]
    fn what_a_copy_begins_with() {
        let sealed = Some(CopiedSeal { size: 1_042, root: "ab".repeat(32) });
        let (cluster, tool) = ("east".to_owned(), "es restore 0.1.0".to_owned());
        let copied = Copied { copy: uuid(0xc0), from: uuid(0x10), cluster, tool, cut: 1_100, partitions: None, sealed };
        let record = encoder().copied(&copied, 1_700_000_000_123);
        insta::assert_snapshot!(show(&record), @r#"
        timestamp 1700000000123
        key !copied/c0c0c0c0-c0c0-c0c0-c0c0-c0c0c0c0c0c0
        es 08011005
        value {"copy":"c0c0c0c0-c0c0-c0c0-c0c0-c0c0c0c0c0c0","from":"10101010-1010-1010-1010-101010101010","cluster":"east","tool":"es restore 0.1.0","cut":1100,"sealed":{"size":1042,"root":"abababababababababababababababababababababababababababababababab"}}
        "#);
        assert_eq!(decode(&record), Decoded::Copied(copied));
        let in_it = Claim { copy: Some(uuid(0xc0)), ..claim() };
        let record = encoder().claim(&in_it, 0);
        assert_eq!(decode(&record), Decoded::Claim(in_it));
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default()).into_owned();
        assert!(value.ends_with(r#","copy":"c0c0c0c0-c0c0-c0c0-c0c0-c0c0c0c0c0c0"}"#), "{value}");
    }

    #[test]
    fn an_event_with_nothing_optional() {
        let stamp = Stamp { sequence: 1, index: 0, count: 1, ..stamp() };
        insta::assert_snapshot!(show(&encoder().event(&minimal(), stamp)), @r#"
        timestamp 1700000000123
        key 42/1@7.0123456789abcdef
        ce_specversion 1.0
        ce_id e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0
        ce_source /bank/account
        ce_type bank.account.deposited
        ce_subject 42
        ce_time 2023-11-14T22:13:20.123000Z
        ce_partitionkey 42
        content-type application/json
        es 08011001180721efcdab896745230128013801400148015203632d315a110190a449f7f137e6c36db9862e5639fadc620c636f6e766572736174696f6e7a20000000000000000000000000000000000000000000000000000000000000000082012009a0979dd778c51c11fa445da3d5b46b204a7247e69b19814c3a4f76b9eccd42
        value {}
        "#);
    }

    #[test]
    fn a_claim() {
        insta::assert_snapshot!(show(&encoder().claim(&claim(), 1_700_000_000_123)), @r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","program":{"release":"2026.3","shapes":"0123456789abcdef"},"partitions":8,"previous":{"number":6,"writer":18446744073709551615,"offset":1234567}}
        "#);
    }

    #[test]
    fn a_first_claim() {
        let first = Claim { previous: None, ..claim() };
        insta::assert_snapshot!(show(&encoder().claim(&first, 1_700_000_000_123)), @r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","program":{"release":"2026.3","shapes":"0123456789abcdef"},"partitions":8,"previous":null}
        "#);
    }

    #[test]
    fn an_answers_record() {
        insta::assert_snapshot!(show(&encoder().answers(&answers(), stamp(), 1_700_000_000_123)), @r#"
        timestamp 1700000000123
        key !answers/300@7.0123456789abcdef
        es 08011003180721efcdab896745230128ac0230013803
        value {"answers":[{"aggregate":"42","command":"c-2","hash":"01d2d59bca6106d4c5c2a13ecae200401a","version":12,"refused":"{\"insufficient_funds\":{\"balance\":5}}"},{"aggregate":"42","command":"c-3","hash":"0187e208275e1145445112b26953e42f4e","version":12,"no_op":null},{"aggregate":"42","command":"c-4.0","hash":"018ca0552da7ae926a58a82ec9bbf2a712","version":12,"conflict":"Any"},{"aggregate":"42","command":"c-4.1","hash":"012e3e32a5df424d054db1323434136a11","version":12,"conflict":"NoStream"},{"aggregate":"42","command":"c-4.2","hash":"01f1978b9b521bfec98bda16afc5665be9","version":12,"conflict":"StreamExists"},{"aggregate":"42","command":"c-4.3","hash":"018ce1d10f585d62227aa6095e0f8af617","version":12,"conflict":{"Exactly":3}}]}
        "#);
    }

    fn erased() -> Envelope {
        let erased = Envelope { event_type: ERASED.into(), payload: Bytes::from("{}"), ..full() };
        Envelope { hash: erased.compute_hash(), ..erased }
    }

    #[test]
    fn an_erased_record() {
        let stamp = Stamp { index: 0, count: 1, ..stamp() };
        insta::assert_snapshot!(show(&encoder().erased(&erased(), stamp)), @r#"
        timestamp 1700000000123
        key !erased/Žižka/42@7.0123456789abcdef
        ce_specversion 1.0
        ce_id e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0
        ce_source /bank/account
        ce_type bank.account.!erased
        ce_subject Žižka/42
        ce_time 2023-11-13T22:13:19.999999Z
        ce_partitionkey Žižka/42
        content-type application/json
        traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        es 08011004180721efcdab896745230128ac023801400c48025203632d315a110190a449f7f137e6c36db9862e5639fadc620c636f6e766572736174696f6e6a0563617573657207636c65726b20397a20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa820120355414e106865d26d01136394be6ed6fa7ce6e0aa599f8de25bb3372ded695f7
        value {}
        "#);
        let again = decode(&encoder().erased(&erased(), stamp));
        assert_eq!(again, Decoded::Erased(stamp, Box::new(erased())));
        // With the type of an event, or as a part of a command, it says nothing.
        for (type_, stamp) in [("deposited", stamp), (ERASED, Stamp { count: 2, ..stamp })] {
            let wrong = Envelope { event_type: type_.into(), ..erased() };
            assert!(matches!(decode(&encoder().erased(&wrong, stamp)), Decoded::Foreign(_)), "{type_}");
        }
    }

    // Records as release 0.1.0 wrote them. Never changed: what is read of them must stay the same.
    const OLD_FULL: &str = r#"
        timestamp 1700000000123
        key Žižka/42/12@7.0123456789abcdef
        ce_specversion 1.0
        ce_id e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0
        ce_source /bank/account
        ce_type bank.account.deposited
        ce_subject Žižka/42
        ce_time 2023-11-13T22:13:19.999999Z
        ce_partitionkey Žižka/42
        content-type application/json
        traceparent 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
        es 08011001180721efcdab896745230128ac0230013803400c48025203632d315a110190a449f7f137e6c36db9862e5639fadc620c636f6e766572736174696f6e6a0563617573657207636c65726b20397a20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa820120325e027b4219e3ee280f90acdbf86bb5aafcd9db6bee75cd0aa3405368fa8e9b
        value {"amount":1}
    "#;

    const OLD_MINIMAL: &str = r#"
        timestamp 1700000000123
        key 42/1@7.0123456789abcdef
        ce_specversion 1.0
        ce_id e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0
        ce_source /bank/account
        ce_type bank.account.deposited
        ce_subject 42
        ce_time 2023-11-14T22:13:20.123000Z
        ce_partitionkey 42
        content-type application/json
        es 08011001180721efcdab896745230128013801400148015203632d315a110190a449f7f137e6c36db9862e5639fadc620c636f6e766572736174696f6e7a20000000000000000000000000000000000000000000000000000000000000000082012009a0979dd778c51c11fa445da3d5b46b204a7247e69b19814c3a4f76b9eccd42
        value {}
    "#;

    const OLD_CLAIM: &str = r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","previous":{"number":6,"writer":18446744073709551615,"offset":1234567}}
    "#;

    const OLD_CLAIM_WITH_PARTITIONS: &str = r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","partitions":8,"previous":{"number":6,"writer":18446744073709551615,"offset":1234567}}
    "#;

    const OLD_CLAIM_WITH_PROGRAM: &str = r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","program":{"release":"2026.3","shapes":"0123456789abcdef"},"partitions":8,"previous":{"number":6,"writer":18446744073709551615,"offset":1234567}}
    "#;

    const OLD_FIRST_CLAIM: &str = r#"
        timestamp 1700000000123
        key !claim/7.0123456789abcdef
        es 08011002180721efcdab8967452301
        value {"log_id":"10101010-1010-1010-1010-101010101010","node":"host-1","previous":null}
    "#;

    const OLD_ANSWERS: &str = r#"
        timestamp 1700000000123
        key !answers/300@7.0123456789abcdef
        es 08011003180721efcdab896745230128ac0230013803
        value {"answers":[{"aggregate":"42","command":"c-2","hash":"01d2d59bca6106d4c5c2a13ecae200401a","version":12,"refused":"{\"insufficient_funds\":{\"balance\":5}}"},{"aggregate":"42","command":"c-3","hash":"0187e208275e1145445112b26953e42f4e","version":12,"no_op":null},{"aggregate":"42","command":"c-4.0","hash":"018ca0552da7ae926a58a82ec9bbf2a712","version":12,"conflict":"Any"},{"aggregate":"42","command":"c-4.1","hash":"012e3e32a5df424d054db1323434136a11","version":12,"conflict":"NoStream"},{"aggregate":"42","command":"c-4.2","hash":"01f1978b9b521bfec98bda16afc5665be9","version":12,"conflict":"StreamExists"},{"aggregate":"42","command":"c-4.3","hash":"018ce1d10f585d62227aa6095e0f8af617","version":12,"conflict":{"Exactly":3}}]}
    "#;

    #[test]
    fn old_bytes_are_read() {
        assert_eq!(decode(&parse(OLD_FULL)), Decoded::Event(stamp(), Box::new(full())));
        let first = Stamp { sequence: 1, index: 0, count: 1, ..stamp() };
        assert_eq!(decode(&parse(OLD_MINIMAL)), Decoded::Event(first, Box::new(minimal())));
        assert_eq!(decode(&parse(OLD_CLAIM)), Decoded::Claim(Claim { program: None, partitions: None, ..claim() }));
        let first = Claim { program: None, partitions: None, previous: None, ..claim() };
        assert_eq!(decode(&parse(OLD_FIRST_CLAIM)), Decoded::Claim(first));
        let whole = Claim { program: None, ..claim() };
        assert_eq!(decode(&parse(OLD_CLAIM_WITH_PARTITIONS)), Decoded::Claim(whole));
        assert_eq!(decode(&parse(OLD_CLAIM_WITH_PROGRAM)), Decoded::Claim(claim()));
        assert_eq!(decode(&parse(OLD_ANSWERS)), Decoded::Answers(stamp(), answers()));
    }

    /// Shows: who was refused what is in the record, and nothing where it was not given.
    #[test]
    fn an_answer_tells_whose_it_is() {
        let mut entry = answers().answers.remove(0);
        entry.command_type = Some("withdraw".into());
        entry.actor = Some(Actor::new("clerk 9").unwrap());
        entry.correlation = Some(CorrelationId::new("conversation").unwrap());
        entry.causation = Some(CausationId::new("cause").unwrap());
        let answers = Answers { answers: vec![entry] };
        let record = encoder().answers(&answers, stamp(), 0);
        insta::assert_snapshot!(std::str::from_utf8(record.value.as_ref().unwrap()).unwrap(), @r#"{"answers":[{"aggregate":"42","command":"c-2","hash":"01d2d59bca6106d4c5c2a13ecae200401a","version":12,"type":"withdraw","actor":"clerk 9","correlation":"conversation","causation":"cause","refused":"{\"insufficient_funds\":{\"balance\":5}}"}]}"#);
        assert_eq!(decode(&record), Decoded::Answers(stamp(), answers.clone()));
        assert!(record.value.unwrap().len() <= answers.answers[0].size_bound());
    }

    fn text(random: &mut fastrand::Rng) -> String {
        let letters: Vec<char> = "aZ09-_./@!%\"\\ žß漢🏦".chars().collect();
        let mut text = String::new();
        for _ in 0..random.usize(1..40) {
            text.push(*random.choice(&letters).unwrap());
        }
        text
    }

    fn random_envelope(random: &mut fastrand::Rng) -> Envelope {
        fn maybe<T>(random: &mut fastrand::Rng, make: impl Fn(&mut fastrand::Rng) -> T) -> Option<T> {
            random.bool().then(|| make(random))
        }
        // From the year 1 to 9999.
        let seconds = |random: &mut fastrand::Rng| random.i64(-62_135_596_800..253_402_300_800);
        Envelope {
            context: "bank".into(),
            stream: StreamId { category: "account".into(), id: AggregateKey::new(text(random)).unwrap() },
            version: Version::new(random.u64(1..=COUNT_MAX)),
            event_id: Uuid::from_u128(random.u128(..)).into(),
            event_type: "opened.twice".into(),
            schema_version: random.u32(..),
            recorded_at: DateTime::from_timestamp_millis(random.i64(0..=limits::TIME_MAX_MS)).unwrap(),
            occurred_at: DateTime::from_timestamp_micros(seconds(random) * 1_000_000 + random.i64(0..1_000_000))
                .unwrap(),
            command_id: CommandId::new(text(random)).unwrap(),
            command_hash: CommandHash(std::array::from_fn(|_| random.u8(..))),
            correlation_id: CorrelationId::new(text(random)).unwrap(),
            causation_id: maybe(random, |random| CausationId::new(text(random)).unwrap()),
            actor: maybe(random, |random| Actor::new(text(random)).unwrap()),
            traceparent: maybe(random, |random| text(random).into()),
            content_type: "application/json".into(),
            payload: (0..random.usize(..100)).map(|_| random.u8(..)).collect(),
            previous_hash: EventHash(std::array::from_fn(|_| random.u8(..))),
            hash: EventHash(std::array::from_fn(|_| random.u8(..))),
        }
    }

    fn random_stamp(random: &mut fastrand::Rng) -> Stamp {
        let count = random.u32(1..=COMMAND_EVENTS_MAX);
        let epoch = Epoch { number: random.u64(..=COUNT_MAX), writer: random.u64(..) };
        Stamp { epoch, sequence: random.u64(..=COUNT_MAX), index: random.u32(..count), count }
    }

    #[test]
    fn what_is_encoded_is_read_back() {
        let mut random = fastrand::Rng::with_seed(3);
        for _ in 0..5_000 {
            let (envelope, stamp) = (random_envelope(&mut random), random_stamp(&mut random));
            let record = encoder().event(&envelope, stamp);
            assert_eq!(decode(&record), Decoded::Event(stamp, Box::new(envelope)));
        }
    }

    /// Values at and beyond each limit. What [`event`](crate::log::limits::event) lets pass is read back equal; that it lets enough pass and
    /// refuses enough is counted.
    #[test]
    fn what_the_limits_let_pass_is_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(5);
        let (mut passed, mut refused) = (0, 0);
        for _ in 0..20_000 {
            let (mut envelope, mut stamp) = (random_envelope(&mut random), random_stamp(&mut random));
            for _ in 0..random.usize(..3) {
                at_a_limit(&mut random, &mut envelope, &mut stamp);
            }
            if crate::log::limits::event(&envelope, &stamp).is_err() {
                refused += 1;
                continue;
            }
            passed += 1;
            let record = encoder().event(&envelope, stamp);
            assert_eq!(decode(&record), Decoded::Event(stamp, Box::new(envelope)));
        }
        assert!(passed > 5_000 && refused > 5_000, "{passed} passed, {refused} were refused");
    }

    fn at_a_limit(random: &mut fastrand::Rng, envelope: &mut Envelope, stamp: &mut Stamp) {
        let count = |random: &mut fastrand::Rng| {
            *random.choice(&[0, 1, COUNT_MAX - 1, COUNT_MAX, COUNT_MAX + 1, u64::MAX]).unwrap()
        };
        let ms = |random: &mut fastrand::Rng| {
            let max = limits::TIME_MAX_MS;
            *random.choice(&[-62_167_219_200_001, -62_167_219_200_000, -1, 0, max, max + 1, max + 3_600_000]).unwrap()
        };
        let nanos = |random: &mut fastrand::Rng| *random.choice(&[0, 1, 999, 1_000, 999_999, 1_000_000]).unwrap();
        let time = |random: &mut fastrand::Rng| {
            DateTime::from_timestamp_millis(ms(random)).unwrap() + chrono::TimeDelta::nanoseconds(nanos(random))
        };
        let name = |random: &mut fastrand::Rng| -> Arc<str> {
            (*random.choice(&["a", "a.b", "", "a\u{0}", "a\nb", "ž"]).unwrap()).into()
        };
        match random.u8(..11) {
            0 => envelope.version = Version::new(count(random)),
            1 => stamp.epoch.number = count(random),
            2 => stamp.sequence = count(random),
            3 => stamp.index = *random.choice(&[0, stamp.count - 1, stamp.count, u32::MAX]).unwrap(),
            4 => envelope.recorded_at = time(random),
            5 => envelope.occurred_at = time(random),
            6 => envelope.context = name(random),
            7 => envelope.stream.category = name(random),
            8 => envelope.event_type = name(random),
            9 => envelope.traceparent = Some("x".repeat(random.usize(..400)).into()),
            _ => envelope.traceparent = Some(name(random)),
        }
    }

    #[test]
    fn claims_and_answers_are_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(6);
        for _ in 0..5_000 {
            let epoch = Epoch { number: random.u64(..=COUNT_MAX), writer: random.u64(..) };
            let previous = random.bool().then(|| PreviousClaim {
                number: random.u64(..),
                writer: random.u64(..),
                offset: random.u64(..),
            });
            let (log_id, node) = (Uuid::from_u128(random.u128(..)), text(&mut random));
            let partitions = random.bool().then(|| random.u32(..));
            let program = random.bool().then(|| Program {
                release: random.bool().then(|| text(&mut random).into()),
                shapes: text(&mut random),
            });
            let copy = random.bool().then(|| Uuid::from_u128(random.u128(..)));
            let claim = Claim { epoch, log_id, node, program, partitions, previous, copy };
            let time = random.i64(0..=limits::TIME_MAX_MS);
            assert_eq!(decode(&encoder().claim(&claim, time)), Decoded::Claim(claim));

            let stamp = Stamp { index: 0, count: 0, ..random_stamp(&mut random) };
            let answers = (0..random.usize(..4)).map(|_| random_answer(&mut random)).collect();
            let answers = Answers { answers };
            assert_eq!(decode(&encoder().answers(&answers, stamp, time)), Decoded::Answers(stamp, answers));
        }
    }

    fn random_answer(random: &mut fastrand::Rng) -> AnswerEntry {
        let answer = match random.u8(..6) {
            0 => Answer::Refused(text(random)),
            1 => Answer::NoOp(()),
            2 => Answer::Conflict(ExpectedVersion::Any),
            3 => Answer::Conflict(ExpectedVersion::NoStream),
            4 => Answer::Conflict(ExpectedVersion::StreamExists),
            _ => Answer::Conflict(ExpectedVersion::Exactly(Version::new(random.u64(..)))),
        };
        AnswerEntry {
            aggregate: AggregateKey::new(text(random)).unwrap(),
            command: CommandId::new(text(random)).unwrap(),
            hash: CommandHash(std::array::from_fn(|_| random.u8(..))),
            version: Version::new(random.u64(..)),
            command_type: random.bool().then(|| text(random).into()),
            actor: random.bool().then(|| Actor::new(text(random)).unwrap()),
            correlation: random.bool().then(|| CorrelationId::new(text(random)).unwrap()),
            causation: random.bool().then(|| CausationId::new(text(random)).unwrap()),
            answer,
        }
    }

    #[test]
    fn keys_of_different_epochs_differ() {
        let key = |number, writer| {
            let epoch = Epoch { number, writer };
            let stamp = Stamp { epoch, ..stamp() };
            let claim = encoder().claim(&Claim { epoch, ..claim() }, 0);
            [encoder().event(&full(), stamp).key, encoder().answers(&answers(), stamp, 0).key, claim.key]
        };
        let keys: std::collections::BTreeSet<_> =
            [key(1, 1), key(1, 2), key(2, 1), key(1, 0x1000_0000_0000_0000)].into_iter().flatten().collect();
        assert_eq!(keys.len(), 12);
    }

    #[test]
    fn control_keys_are_told_from_events_by_their_first_byte() {
        assert_eq!(encoder().claim(&claim(), 0).key[0], b'!');
        assert_eq!(encoder().answers(&answers(), stamp(), 0).key[0], b'!');
    }

    #[test]
    fn a_newer_format_is_told_from_a_foreign_record() {
        let with_es = |es: Es| {
            let mut record = encoder().claim(&claim(), 0);
            record.headers = vec![(Cow::Borrowed(header::ES), es.encode_to_vec().into())];
            decode(&record)
        };
        let es = Es::stamped(Kind::Event, stamp());
        assert_eq!(with_es(Es { format: 2, ..es.clone() }), Decoded::Newer(2));
        let foreign = |es, reason: &str| assert_eq!(with_es(es), Decoded::Foreign(reason.into()));
        foreign(Es { format: 2, kind: 0, ..es.clone() }, "its es header has format 2");
        foreign(Es { format: 0, ..es.clone() }, "its es header has format 0");
        foreign(Es { kind: 0, ..es }, "its es header has kind 0");
    }

    #[test]
    fn what_is_missing_or_wrong_makes_an_event_foreign_and_is_named() {
        let reason = |change: &dyn Fn(&mut Record)| {
            let mut record = encoder().event(&full(), stamp());
            change(&mut record);
            match decode(&record) {
                Decoded::Foreign(reason) => reason,
                other => panic!("{other:?}"),
            }
        };
        for name in [header::ID, header::TYPE, header::SUBJECT, header::TIME, header::CONTENT_TYPE, header::ES] {
            let removed = reason(&|record| record.headers.retain(|(known, _)| known != name));
            assert!(removed.contains(name), "{name}: {removed}");
            let rubbish = reason(&|record| {
                let place = record.headers.iter().position(|(known, _)| known == name).unwrap();
                record.headers[place].1 = Bytes::from_static(&[0xff]);
            });
            assert!(rubbish.contains(name), "{name}: {rubbish}");
        }
        let count = Stamp { index: 3, ..stamp() };
        assert!(matches!(decode(&encoder().event(&full(), count)), Decoded::Foreign(_)));
        let version = Envelope { version: Version::EMPTY, ..full() };
        assert!(matches!(decode(&encoder().event(&version, stamp())), Decoded::Foreign(_)));
        assert_eq!(decode(&Record { value: None, ..encoder().event(&full(), stamp()) }), Decoded::Tombstone);
    }

    #[test]
    fn rubbish_is_never_a_panic() {
        let mut random = fastrand::Rng::with_seed(4);
        let records = [
            encoder().event(&full(), stamp()),
            encoder().event(&minimal(), stamp()),
            encoder().claim(&claim(), 0),
            encoder().answers(&answers(), stamp(), 0),
        ];
        let spoil = |random: &mut fastrand::Rng, bytes: &Bytes| -> Bytes {
            let mut bytes = bytes.to_vec();
            match random.u8(..4) {
                0 => bytes.truncate(random.usize(..=bytes.len())),
                1 => bytes.extend((0..random.usize(..20)).map(|_| random.u8(..))),
                2 => bytes = (0..random.usize(..60)).map(|_| random.u8(..)).collect(),
                _ => {
                    for _ in 0..random.usize(1..4) {
                        if !bytes.is_empty() {
                            let at = random.usize(..bytes.len());
                            bytes[at] = random.u8(..);
                        }
                    }
                }
            }
            bytes.into()
        };
        for _ in 0..40_000 {
            let mut record = random.choice(&records).unwrap().clone();
            match random.usize(..=record.headers.len() + 1) {
                0 => record.value = record.value.map(|value| spoil(&mut random, &value)),
                1 => record.timestamp_ms = random.i64(..),
                place => {
                    let (_, value) = &mut record.headers[place - 2];
                    *value = spoil(&mut random, value);
                }
            }
            let _ = decode(&record);
        }
    }
}
