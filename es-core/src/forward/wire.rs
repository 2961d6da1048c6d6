//! Commands and replies as records. A command is a CloudEvent in Kafka's binary mode with text headers alone, so that
//! any client in any language can send one; a reply is JSON. `docs/formats.md` describes both.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::aggregate::Aggregate;
use crate::codec::{self, Codec};
use crate::envelope::CommandHash;
use crate::error::{DecodeError, NotDone};
use crate::ids::{Actor, AggregateKey, CausationId, CommandId, CorrelationId, ExpectedVersion, Version};
use crate::log::Record;
use crate::record::Answer;
use crate::round::{Metadata, Reply};
use crate::state::Known;

/// The format of a reply; a process that knows only an older one does not read it.
const REPLY_FORMAT: u32 = 1;

mod header {
    pub(super) const SPEC_VERSION: &str = "ce_specversion";
    pub(super) const ID: &str = "ce_id";
    pub(super) const SOURCE: &str = "ce_source";
    pub(super) const TYPE: &str = "ce_type";
    pub(super) const SUBJECT: &str = "ce_subject";
    pub(super) const TIME: &str = "ce_time";
    pub(super) const CONTENT_TYPE: &str = "content-type";
    pub(super) const TRACEPARENT: &str = "traceparent";
    pub(super) const CORRELATION_ID: &str = "ce_correlationid";
    pub(super) const CAUSATION_ID: &str = "ce_causationid";
    pub(super) const ACTOR: &str = "ce_actor";
    pub(super) const EXPECTED_VERSION: &str = "ce_expectedversion";
    pub(super) const EXPIRES_AT: &str = "ce_expirestime";
    pub(super) const REPLY_TO: &str = "ce_replypartition";
    pub(super) const REQUEST: &str = "ce_request";
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
            reason,
            key: String::from_utf8_lossy(&record.key).into_owned(),
            command_id: optional(record, header::ID).ok().flatten().map(str::to_owned),
            reply_to: reply_to(record).ok().flatten(),
        })
    }

    fn decode_parts<A: Aggregate>(record: &Record, lifetime_ms: i64) -> Result<Self, String> {
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
        let metadata = Metadata {
            correlation_id,
            causation_id: optional(record, header::CAUSATION_ID)?.map(CausationId::new).transpose().map_err(text)?,
            actor: optional(record, header::ACTOR)?.map(Actor::new).transpose().map_err(text)?,
            occurred_at: optional(record, header::TIME)?.map(|value| parse_time(header::TIME, value)).transpose()?,
            expected: optional(record, header::EXPECTED_VERSION)?.map_or(Ok(ExpectedVersion::Any), parse_expected)?,
            traceparent: optional(record, header::TRACEPARENT)?.map(Arc::from),
            command_id,
        };
        let expires_at_ms = match optional(record, header::EXPIRES_AT)? {
            Some(value) => parse_time(header::EXPIRES_AT, value)?.timestamp_millis(),
            None => record.timestamp_ms.saturating_add(lifetime_ms),
        };
        Ok(Self { id, name: name.into(), payload, metadata, expires_at_ms, reply_to: reply_to(record)? })
    }

    /// The command, and the hash by which a repeat is known: of the payload as this program would write it, so that
    /// spaces and the order of fields make no other command.
    pub(crate) fn command<A: Aggregate>(&self) -> Result<(A::Command, CommandHash), Unreadable> {
        let command = codec::decode_command::<A::Codec, A::Command>(&self.name, &self.payload)?;
        let (kind, payload) = codec::encode_command::<A::Codec, A::Command>(&command).map_err(Unreadable::Invalid)?;
        Ok((command, CommandHash::of(kind.name, &payload)))
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

impl From<DecodeError> for Unreadable {
    fn from(error: DecodeError) -> Self {
        let reason = error.to_string();
        if error.is_unknown_type() { Self::NotKnown(reason) } else { Self::Invalid(reason) }
    }
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
    Ok(Some(ReplyTo { partition, request: optional(record, header::REQUEST)?.unwrap_or_default().to_owned() }))
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

fn time_text_ms(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms).unwrap_or(DateTime::<Utc>::MAX_UTC).to_rfc3339_opts(SecondsFormat::Millis, true)
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
    /// The aggregate's stored events can't be read; nothing was done.
    Parked { reason: String },
    /// It was not decided in time; nothing was done.
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
    pub(crate) fn of(reply: &Reply, partition: u32) -> Self {
        match reply {
            Reply::Answer { known, duplicate } => Self::of_known(known, partition, *duplicate),
            Reply::NotDone(NotDone::Expired) => Self::Expired,
            Reply::NotDone(why) => Self::NotDone { reason: why.to_string() },
            Reply::CommandIdReused => Self::CommandIdReused,
            Reply::Invalid(why) => Self::Invalid { reason: why.to_string() },
            Reply::Panicked(reason) => Self::Panicked { reason: reason.clone() },
            Reply::Parked(reason) => Self::Parked { reason: reason.clone() },
        }
    }

    fn of_known(known: &Known, partition: u32, duplicate: bool) -> Self {
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
        }
    }
}
