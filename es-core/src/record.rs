//! Encoding to a record and back: the one module that knows keys, header names and the `es` header.
//!
//! Headers are CloudEvents 1.0 in Kafka's binary mode; everything of ours is packed into one header, `es`, a
//! protobuf message. `docs/formats.md` describes every stored format; bytes of each are kept as tests.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use prost::Message;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::envelope::{CommandHash, Envelope, EventHash};
use crate::ids::{AggregateKey, CommandId, Epoch, ExpectedVersion, StreamId, Version};
use crate::log::Record;

/// The newest format of the `es` header that this program writes and reads.
const FORMAT: u32 = 1;

mod header {
    pub(super) const SPEC_VERSION: &str = "ce_specversion";
    pub(super) const ID: &str = "ce_id";
    pub(super) const SOURCE: &str = "ce_source";
    pub(super) const TYPE: &str = "ce_type";
    pub(super) const SUBJECT: &str = "ce_subject";
    pub(super) const TIME: &str = "ce_time";
    pub(super) const PARTITION_KEY: &str = "ce_partitionkey";
    pub(super) const CONTENT_TYPE: &str = "content-type";
    pub(super) const TRACEPARENT: &str = "traceparent";
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
    /// The claim before this one.
    pub previous: Option<PreviousClaim>,
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

/// The record that ends a round with refusals or no-ops: it proves that they were decided on the newest state, and
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
    /// The answer.
    #[serde(flatten)]
    pub answer: Answer,
}

impl AnswerEntry {
    /// No fewer bytes than it takes in the record: JSON may escape each byte of a text as six.
    pub(crate) fn size_bound(&self) -> usize {
        let refusal = if let Answer::Refused(text) = &self.answer { 2 * text.len() } else { 0 };
        6 * (self.aggregate.as_str().len() + self.command.as_str().len()) + refusal + 256
    }
}

/// An answer that appends no event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The domain refused; its error as JSON text.
    Refused(String),
    /// Accepted, without events.
    NoOp(()),
    /// The stream was not at the expected version.
    Conflict(ExpectedVersion),
}

mod hex_hash {
    use super::CommandHash;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hash: &CommandHash, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(hash)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CommandHash, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).ok().filter(|_| text.len() == 32);
        number
            .map(|number| CommandHash(number.to_be_bytes()))
            .ok_or_else(|| D::Error::custom("a command hash has 32 hex digits"))
    }
}

/// What a record turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// An event.
    Event(Stamp, Box<Envelope>),
    /// An answers record.
    Answers(Stamp, Answers),
    /// A claim.
    Claim(Claim),
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
            ..Es::stamped(Kind::Event, stamp)
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
            key: format!("{id}/{}@{}", event.version, stamp.epoch).into(),
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
    let Some(es) = record.header(header::ES) else { return Decoded::Foreign("it has no es header".into()) };
    let Ok(es) = Es::decode(es.clone()) else { return Decoded::Foreign("its es header can't be read".into()) };
    if es.format > FORMAT && Kind::try_from(es.kind).is_ok_and(|kind| kind != Kind::Unknown) {
        return Decoded::Newer(es.format);
    }
    if es.format != FORMAT {
        return Decoded::Foreign(format!("its es header has format {}", es.format));
    }
    let decoded = match es.kind() {
        Kind::Event => decode_event(record, value, &es),
        Kind::Claim => decode_claim(value, &es),
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

fn decode_event(record: &Record, value: &Bytes, es: &Es) -> Result<Decoded, String> {
    let text = |name: &'static str| {
        let value = record.header(name).ok_or_else(|| format!("it has no header {name}"))?;
        std::str::from_utf8(value).map_err(|_| format!("its header {name} is not UTF-8"))
    };
    fn optional<T>(
        text: &str,
        parse: impl Fn(&str) -> Result<T, crate::error::InvalidId>,
    ) -> Result<Option<T>, String> {
        if text.is_empty() { Ok(None) } else { parse(text).map(Some).map_err(|error| error.to_string()) }
    }
    fn array<const N: usize>(bytes: &Bytes, what: &str) -> Result<[u8; N], String> {
        bytes.as_ref().try_into().map_err(|_| format!("its {what} has {} bytes instead of {N}", bytes.len()))
    }
    let invalid = |error: crate::error::InvalidId| error.to_string();
    if es.count == 0 || es.index >= es.count || es.version == 0 {
        return Err(format!("it is event {} of {} at version {}", es.index, es.count, es.version));
    }
    let mut parts = text(header::TYPE)?.splitn(3, '.');
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
        occurred_at: occurred_at.with_timezone(&Utc),
        command_id: CommandId::new(&es.command_id).map_err(invalid)?,
        command_hash: CommandHash(array(&es.command_hash, "command hash")?),
        correlation_id: crate::ids::CorrelationId::new(&es.correlation_id).map_err(invalid)?,
        causation_id: optional(&es.causation_id, |text| crate::ids::CausationId::new(text))?,
        actor: optional(&es.actor, |text| crate::ids::Actor::new(text))?,
        traceparent: record.header(header::TRACEPARENT).and_then(|v| std::str::from_utf8(v).ok()).map(Arc::from),
        content_type: text(header::CONTENT_TYPE)?.into(),
        payload: value.clone(),
        previous_hash: EventHash(array(&es.previous_hash, "previous hash")?),
        hash: EventHash(array(&es.hash, "hash")?),
    };
    Ok(Decoded::Event(es.stamp(), Box::new(envelope)))
}
