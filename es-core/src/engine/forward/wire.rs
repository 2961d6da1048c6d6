//! Commands and replies as records. A command is a CloudEvent in Kafka's binary mode with text headers alone, so that
//! any client in any language can send one; a reply is JSON. `docs/formats.md` describes both.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::domain::aggregate::Aggregate;
use crate::domain::codec;
use crate::domain::envelope::Metadata;
use crate::domain::error::{DecodeError, InvalidCommand, NEWER_ANSWER, NotDone};
use crate::domain::format::{Codec, Json};
use crate::domain::hash::CommandHash;
use crate::domain::ids::{Actor, AggregateKey, CausationId, CommandId, CorrelationId, ExpectedVersion, Version};
use crate::domain::limits;
use crate::domain::text::short;
use crate::engine::remembered::Remembered;
use crate::engine::round::Reply;
use crate::log::Record;
use crate::log::record::{Answer, HEADERS_MAX};

/// The format of a reply; a process that knows only an older one does not read it.
const REPLY_FORMAT: u32 = 1;

mod header {
    pub(super) use crate::log::record::header::{
        CONTENT_TYPE, ID, SOURCE, SPEC_VERSION, SUBJECT, TIME, TRACEPARENT, TYPE,
    };
    pub(super) const CORRELATION_ID: &str = "ce_correlationid";
    pub(super) const CAUSATION_ID: &str = "ce_causationid";
    pub(super) const ACTOR: &str = "ce_actor";
    pub(super) const EXPECTED_VERSION: &str = "ce_expectedversion";
    pub(super) const EXPIRES_AT: &str = "ce_expirestime";
    pub(super) const REPLY_TO: &str = "ce_replypartition";
    pub(super) const REQUEST: &str = "ce_request";
    pub(super) const RELEASE: &str = "ce_release";
    pub(super) const SHAPE: &str = "ce_shape";
}

/// Where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    /// The partition of the replies topic.
    pub(crate) partition: u32,
    /// Tells one asking from another with the same command id; comes back as it is.
    pub(crate) request: String,
}

/// A command on its way between processes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Forwarded {
    pub(crate) id: AggregateKey,
    /// The stored name of the command's type.
    pub(crate) name: Arc<str>,
    pub(crate) payload: Bytes,
    pub(crate) metadata: Metadata,
    /// Milliseconds since 1970, after which nobody decides it any more.
    pub(crate) expires_at_ms: i64,
    pub(crate) reply_to: Option<ReplyTo>,
    /// The sender's release, for people; and what tells the shape that the command's type has there.
    pub(crate) release: Option<Arc<str>>,
    pub(crate) shape: Option<Arc<str>>,
}

impl Forwarded {
    /// The record; `source` says who sends it.
    pub(crate) fn encode<A: Aggregate>(&self, source: &str, now_ms: i64) -> Record {
        let metadata = &self.metadata;
        let mut headers: Vec<(Cow<'static, str>, Bytes)> = Vec::with_capacity(14);
        let mut push = |name: &'static str, value: &str| headers.push((name.into(), value.to_owned().into()));
        push(header::SPEC_VERSION, "1.0");
        push(header::ID, metadata.command_id.as_str());
        push(header::SOURCE, source);
        push(header::TYPE, &format!("{}.{}.{}", A::CONTEXT, A::NAME, self.name));
        push(header::SUBJECT, self.id.as_str());
        push(header::CONTENT_TYPE, A::Codec::CONTENT_TYPE);
        push(header::CORRELATION_ID, metadata.correlation_id.as_str());
        push(header::EXPIRES_AT, &time_text_ms(self.expires_at_ms));
        if let Some(id) = &metadata.causation_id {
            push(header::CAUSATION_ID, id.as_str());
        }
        if let Some(actor) = &metadata.actor {
            push(header::ACTOR, actor.as_str());
        }
        if let Some(time) = metadata.occurred_at {
            push(header::TIME, &time.to_rfc3339_opts(SecondsFormat::Micros, true));
        }
        if metadata.expected != ExpectedVersion::Any {
            push(header::EXPECTED_VERSION, &expected_text(metadata.expected));
        }
        if let Some(traceparent) = &metadata.traceparent {
            push(header::TRACEPARENT, traceparent);
        }
        if let Some(reply_to) = &self.reply_to {
            push(header::REPLY_TO, &reply_to.partition.to_string());
            push(header::REQUEST, &reply_to.request);
        }
        if let Some(release) = &self.release {
            push(header::RELEASE, release);
        }
        if let Some(shape) = &self.shape {
            push(header::SHAPE, shape);
        }
        Record {
            key: Bytes::copy_from_slice(self.id.as_str().as_bytes()),
            value: Some(self.payload.clone()),
            headers,
            timestamp_ms: now_ms,
        }
    }

    /// Reads a record of anybody. Without a time to expire, it does so `lifetime_ms` after its timestamp.
    pub(crate) fn decode<A: Aggregate>(record: &Record, lifetime_ms: i64) -> Result<Self, Malformed> {
        Self::decode_parts::<A>(record, lifetime_ms).map_err(|reason| Malformed {
            reason: short(&reason).into_owned(),
            key: short(&String::from_utf8_lossy(&record.key)).into_owned(),
            command_id: optional(record, header::ID).ok().flatten().map(|id| short(id).into_owned()),
            reply_to: reply_to(record).ok().flatten(),
        })
    }

    fn decode_parts<A: Aggregate>(record: &Record, lifetime_ms: i64) -> Result<Self, String> {
        if record.headers.len() > HEADERS_MAX {
            return Err(format!("it has more than {HEADERS_MAX} headers"));
        }
        let key = std::str::from_utf8(&record.key).map_err(|_| "its key, the aggregate id, is not UTF-8")?;
        let id = AggregateKey::new(key).map_err(text)?;
        if key.starts_with('!') {
            return Err(format!("aggregate id {key:?} begins with !, as control records do"));
        }
        if let Some(subject) = optional(record, header::SUBJECT)?
            && subject != key
        {
            return Err(format!("its header ce_subject is {subject:?}, its key {key:?}: they must be the same"));
        }
        let command_id = CommandId::new(required(record, header::ID)?).map_err(text)?;
        let ce_type = required(record, header::TYPE)?;
        let prefix = format!("{}.{}.", A::CONTEXT, A::NAME);
        let Some(name) = ce_type.strip_prefix(&prefix) else {
            return Err(format!("its header ce_type is {ce_type:?}: write {prefix} and the command's type"));
        };
        let payload = record.value.clone().ok_or("it has no payload")?;
        let correlation_id = match optional(record, header::CORRELATION_ID)? {
            Some(id) => CorrelationId::new(id).map_err(text)?,
            None => CorrelationId::new(command_id.as_str()).map_err(text)?,
        };
        let metadata = limits::metadata(Metadata {
            correlation_id,
            causation_id: optional(record, header::CAUSATION_ID)?.map(CausationId::new).transpose().map_err(text)?,
            actor: optional(record, header::ACTOR)?.map(Actor::new).transpose().map_err(text)?,
            occurred_at: optional(record, header::TIME)?.map(|value| parse_time(header::TIME, value)).transpose()?,
            expected: optional(record, header::EXPECTED_VERSION)?.map_or(Ok(ExpectedVersion::Any), parse_expected)?,
            traceparent: optional(record, header::TRACEPARENT)?.map(Arc::from),
            command_id,
        });
        let expires_at_ms = match optional(record, header::EXPIRES_AT)? {
            Some(value) => parse_time(header::EXPIRES_AT, value)?.timestamp_millis(),
            None => record.timestamp_ms.saturating_add(lifetime_ms),
        };
        let (metadata, reply_to) = (metadata.map_err(text)?, reply_to(record)?);
        let told = |name| -> Result<Option<Arc<str>>, String> {
            let told = optional(record, name)?;
            told.map_or(Ok(()), |told| limits::passed_on(name, told))?;
            Ok(told.map(Arc::from))
        };
        let (release, shape) = (told(header::RELEASE)?, told(header::SHAPE)?);
        Ok(Self { id, name: name.into(), payload, metadata, expires_at_ms, reply_to, release, shape })
    }

    /// The command, and the hash by which a repeat is known: of the command in canonical form, so that spaces and the
    /// order of fields make no other command.
    pub(crate) fn command<A: Aggregate>(&self) -> Result<(A::Command, CommandHash), Unreadable> {
        let command = codec::decode_command::<A::Codec, A::Command>(&self.name, &self.payload)
            .map_err(|error| self.unreadable::<A>(&error))?;
        let hash = codec::hash_command(&command).map_err(Unreadable::Invalid)?;
        // A field within a tagged or flattened type is passed over by serde where it is not known. What a bus sends is
        // canonical: where it is written in another way here, something of it got lost, or is another default.
        let is_json = A::Codec::CONTENT_TYPE == Json::CONTENT_TYPE;
        if is_json && self.is_of_another_shape::<A>() && CommandHash::of(&self.name, &self.payload) != hash {
            let reason = format!("{}, and this one can't read all of it", self.another_shape());
            return Err(Unreadable::NotKnown(reason));
        }
        Ok((command, hash))
    }

    fn is_of_another_shape<A: Aggregate>(&self) -> bool {
        let here = codec::command_fingerprint::<A::Command>(&self.name);
        self.shape.as_deref().is_some_and(|there| here.is_some_and(|here| here != there))
    }

    fn another_shape(&self) -> String {
        let release = self.release.as_deref().map_or_else(String::new, |release| format!(", {release}"));
        format!("the sender's release{release} has another shape of it")
    }

    /// Whether another release may read what this one can't: where the sender's says that the type has another shape
    /// there, or where this one knows no such type or field. A command of another shape that can be read whole is read.
    fn unreadable<A: Aggregate>(&self, error: &DecodeError) -> Unreadable {
        let reason = error.to_string();
        if self.is_of_another_shape::<A>() {
            return Unreadable::NotKnown(format!("{}: {reason}", self.another_shape()));
        }
        // A sender that tells no shape may have been written for a later release.
        let is_newer = self.shape.is_none() && matches!(error, DecodeError::UnknownField { .. });
        if is_newer || error.is_unknown_type() { Unreadable::NotKnown(reason) } else { Unreadable::Invalid(reason) }
    }
}

/// Why a command can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Another release may know it.
    NotKnown(String),
    /// No release does.
    Invalid(String),
}

/// A record on a commands topic that is no command of the aggregate type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Malformed {
    pub(crate) reason: String,
    pub(crate) key: String,
    pub(crate) command_id: Option<String>,
    pub(crate) reply_to: Option<ReplyTo>,
}

fn reply_to(record: &Record) -> Result<Option<ReplyTo>, String> {
    let Some(partition) = optional(record, header::REPLY_TO)? else { return Ok(None) };
    let partition = partition
        .parse()
        .map_err(|_| format!("its header {} is {partition:?}: write a partition's number", header::REPLY_TO))?;
    let request = optional(record, header::REQUEST)?.unwrap_or_default();
    limits::passed_on(header::REQUEST, request)?;
    Ok(Some(ReplyTo { partition, request: request.to_owned() }))
}

fn optional<'a>(record: &'a Record, name: &str) -> Result<Option<&'a str>, String> {
    let Some(value) = record.header(name) else { return Ok(None) };
    std::str::from_utf8(value).map(Some).map_err(|_| format!("its header {name} is not UTF-8"))
}

fn required<'a>(record: &'a Record, name: &str) -> Result<&'a str, String> {
    optional(record, name)?.ok_or_else(|| format!("it has no header {name}"))
}

fn parse_time(name: &str, value: &str) -> Result<DateTime<Utc>, String> {
    let time = DateTime::parse_from_rfc3339(value);
    Ok(time.map_err(|error| format!("its header {name} is {value:?}, not a time as in RFC 3339: {error}"))?.to_utc())
}

/// A time in milliseconds since 1970 as text; one that can't be written is the last that can.
fn time_text_ms(ms: i64) -> String {
    let time = DateTime::from_timestamp_millis(ms.clamp(0, limits::TIME_MAX_MS)).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn expected_text(expected: ExpectedVersion) -> Cow<'static, str> {
    match expected {
        ExpectedVersion::Any => "any".into(),
        ExpectedVersion::NoStream => "no-stream".into(),
        ExpectedVersion::StreamExists => "stream-exists".into(),
        ExpectedVersion::Exactly(version) => version.get().to_string().into(),
    }
}

fn parse_expected(value: &str) -> Result<ExpectedVersion, String> {
    Ok(match value {
        "any" => ExpectedVersion::Any,
        "no-stream" => ExpectedVersion::NoStream,
        "stream-exists" => ExpectedVersion::StreamExists,
        number => ExpectedVersion::Exactly(Version::new(number.parse().map_err(|_| {
            let name = header::EXPECTED_VERSION;
            format!("its header {name} is {value:?}: write any, no-stream, stream-exists or a version")
        })?)),
    })
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// An answer on its way back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answered {
    format: u32,
    pub(crate) aggregate: String,
    pub(crate) command_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) request: String,
    pub(crate) outcome: Outcome,
}

/// What became of a command.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// Accepted: `events` events, the last of which is `version`; for a no-op none, and the state's version.
    Accepted { version: u64, events: u32, at: Place },
    /// Refused by the domain, with its error.
    Refused { error: Box<RawValue>, version: u64, at: Place },
    /// The stream was at `version`.
    Conflict { expected: ExpectedVersion, version: u64, at: Place },
    /// The command id was used before with another payload.
    CommandIdReused,
    /// It can't be carried out as it is; nothing was done.
    Invalid { reason: String },
    /// It came to a partition that its aggregate does not live in; nothing was done.
    Misrouted { reason: String },
    /// Deciding it panicked; nothing was done.
    Panicked { reason: String },
    /// The aggregate is parked: nothing was done so far. Send again, with the same id, once it is not.
    Parked { reason: String },
    /// This owner did not decide it in time. Another may have.
    Expired,
    /// Nothing was done, and trying again may help.
    NotDone { reason: String },
    /// This process does not know the command, which another release may: it was passed over here. The sender sends
    /// it again, with the same id, until it comes to a process that knows it.
    NotKnown { reason: String, node: String },
}

/// Where an answer stands in the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) recorded_at: DateTime<Utc>,
    pub(crate) duplicate: bool,
}

impl Answered {
    pub(crate) fn new(aggregate: &str, command_id: &str, request: &str, outcome: Outcome) -> Self {
        let (aggregate, command_id, request) = (aggregate.into(), command_id.into(), request.into());
        Self { format: REPLY_FORMAT, aggregate, command_id, request, outcome }
    }

    pub(crate) fn encode(&self, now_ms: i64) -> Record {
        Record {
            key: Bytes::copy_from_slice(self.command_id.as_bytes()),
            value: Some(serde_json::to_vec(self).expect("a reply holds text and numbers only").into()),
            headers: vec![(header::CONTENT_TYPE.into(), Bytes::from_static(b"application/json"))],
            timestamp_ms: now_ms,
        }
    }

    /// `None` for what is no reply, or one of a newer format.
    pub(crate) fn decode(record: &Record) -> Option<Self> {
        serde_json::from_slice(record.value.as_ref()?).ok().filter(|answered: &Self| answered.format == REPLY_FORMAT)
    }
}

impl Outcome {
    /// What the owner of this partition, on this node, told.
    pub(crate) fn of(reply: &Reply, partition: u32, node: &str) -> Self {
        match reply {
            Reply::Answer { known, duplicate } => Self::of_known(known, partition, *duplicate, node),
            Reply::NotDone(NotDone::Expired) => Self::Expired,
            Reply::NotDone(why) => Self::NotDone { reason: why.to_string() },
            Reply::CommandIdReused => Self::CommandIdReused,
            Reply::NotKnown(reason) => Self::NotKnown { reason: reason.clone(), node: node.into() },
            Reply::Parked(reason) => Self::Parked { reason: reason.clone() },
        }
    }

    fn of_known(known: &Remembered, partition: u32, duplicate: bool, node: &str) -> Self {
        let recorded_at = DateTime::from_timestamp_millis(known.recorded_at_ms).unwrap_or_default();
        let at = Place { partition, offset: known.offset, recorded_at, duplicate };
        let version = known.version();
        match known.answer() {
            None => Self::Accepted { version, events: known.events, at },
            Some(Answer::NoOp(())) => Self::Accepted { version, events: 0, at },
            Some(Answer::Refused(error)) => match RawValue::from_string(error) {
                Ok(error) => Self::Refused { error, version, at },
                Err(error) => Self::Invalid { reason: format!("its refusal is not JSON: {error}") },
            },
            Some(Answer::Conflict(expected)) => Self::Conflict { expected, version, at },
            Some(Answer::Panicked(reason)) => Self::Panicked { reason },
            Some(Answer::Invalid(unfit)) => Self::Invalid { reason: InvalidCommand::from(unfit).to_string() },
            Some(Answer::Other(_)) => Self::NotKnown { reason: NEWER_ANSWER.into(), node: node.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::Account;

    fn text(random: &mut fastrand::Rng) -> String {
        let letters: Vec<char> = "aZ09-_./@!%\"\\ žß漢🏦".chars().collect();
        let first = *random.choice(&['a', '0', 'ž']).unwrap();
        let rest = (0..random.usize(..39)).map(|_| *random.choice(&letters).unwrap());
        std::iter::once(first).chain(rest).collect()
    }

    fn random_expected(random: &mut fastrand::Rng) -> ExpectedVersion {
        match random.u8(..4) {
            0 => ExpectedVersion::Any,
            1 => ExpectedVersion::NoStream,
            2 => ExpectedVersion::StreamExists,
            _ => ExpectedVersion::Exactly(Version::new(random.u64(..))),
        }
    }

    fn random_command(random: &mut fastrand::Rng) -> Forwarded {
        let time = |random: &mut fastrand::Rng| {
            // From the year 0 to 9999.
            let seconds = random.i64(-62_167_219_200..253_402_300_800);
            DateTime::from_timestamp_nanos(0) + chrono::TimeDelta::new(seconds, random.u32(..1_000_000_000)).unwrap()
        };
        let metadata = limits::metadata(Metadata {
            command_id: CommandId::new(text(random)).unwrap(),
            correlation_id: CorrelationId::new(text(random)).unwrap(),
            causation_id: random.bool().then(|| CausationId::new(text(random)).unwrap()),
            actor: random.bool().then(|| Actor::new(text(random)).unwrap()),
            occurred_at: random.bool().then(|| time(random)),
            expected: random_expected(random),
            traceparent: random.bool().then(|| text(random).into()),
        });
        Forwarded {
            id: AggregateKey::new(text(random)).unwrap(),
            name: "deposit".into(),
            payload: (0..random.usize(..100)).map(|_| random.u8(..)).collect(),
            metadata: metadata.unwrap(),
            expires_at_ms: random.i64(0..=limits::TIME_MAX_MS),
            reply_to: random.bool().then(|| ReplyTo { partition: random.u32(..), request: text(random) }),
            release: random.bool().then(|| text(random).into()),
            shape: random.bool().then(|| text(random).into()),
        }
    }

    #[test]
    fn a_command_is_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            let command = random_command(&mut random);
            let record = command.encode::<Account>("here", random.i64(0..=limits::TIME_MAX_MS));
            assert_eq!(Forwarded::decode::<Account>(&record, 1), Ok(command));
        }
    }

    #[test]
    fn a_time_to_expire_that_can_not_be_written_is_the_last_that_can() {
        let mut random = fastrand::Rng::with_seed(8);
        for (given, read) in [(i64::MAX, limits::TIME_MAX_MS), (limits::TIME_MAX_MS + 1, limits::TIME_MAX_MS), (-1, 0)]
        {
            let command = Forwarded { expires_at_ms: given, ..random_command(&mut random) };
            let record = command.encode::<Account>("here", 0);
            assert_eq!(Forwarded::decode::<Account>(&record, 1), Ok(Forwarded { expires_at_ms: read, ..command }));
        }
    }

    #[test]
    fn what_is_only_passed_on_has_a_length() {
        let mut random = fastrand::Rng::with_seed(9);
        let command = random_command(&mut random);
        let reason = |name: &'static str, value: String| {
            let mut record = command.encode::<Account>("here", 0);
            record.headers.retain(|(known, _)| known != name && known != header::REPLY_TO);
            record.headers.push((header::REPLY_TO.into(), "0".into()));
            record.headers.push((name.into(), value.into()));
            Forwarded::decode::<Account>(&record, 1).map_err(|malformed| malformed.reason)
        };
        for name in [header::REQUEST, header::TRACEPARENT, header::RELEASE, header::SHAPE] {
            assert!(reason(name, "x".repeat(limits::TEXT_MAX_BYTES)).is_ok(), "{name}");
            for wrong in ["x".repeat(limits::TEXT_MAX_BYTES + 1), "a\nb".into()] {
                let reason = reason(name, wrong).unwrap_err();
                assert!(reason.contains(name), "{name}: {reason}");
            }
        }
    }

    #[test]
    fn a_reply_is_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(10);
        for _ in 0..2_000 {
            let at = Place {
                partition: random.u32(..),
                offset: random.u64(..),
                recorded_at: DateTime::from_timestamp_millis(random.i64(0..=limits::TIME_MAX_MS)).unwrap(),
                duplicate: random.bool(),
            };
            let (version, reason) = (random.u64(..), text(&mut random));
            let outcome = match random.u8(..10) {
                0 => Outcome::Accepted { version, events: random.u32(..), at },
                1 => Outcome::Refused { error: serde_json::value::to_raw_value(&reason).unwrap(), version, at },
                2 => Outcome::Conflict { expected: random_expected(&mut random), version, at },
                3 => Outcome::CommandIdReused,
                4 => Outcome::Invalid { reason },
                5 => Outcome::Misrouted { reason },
                6 => Outcome::Panicked { reason },
                7 => Outcome::Parked { reason },
                8 => Outcome::Expired,
                _ => Outcome::NotDone { reason },
            };
            let reply = Answered::new(&text(&mut random), &text(&mut random), &text(&mut random), outcome);
            let read = Answered::decode(&reply.encode(0)).expect("a reply");
            assert_eq!(format!("{read:?}"), format!("{reply:?}"));
        }
    }
}
