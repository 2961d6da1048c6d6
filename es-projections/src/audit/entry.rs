//! An event as a row of the audit trail, and back.

use std::sync::Arc;

use es_core::{
    Actor, AggregateKey, CausationId, CommandHash, CommandId, CorrelationId, Envelope, EventHash, EventId, Recorded,
    StreamId, Version,
};

use crate::error::Error;
use crate::sql::{FromValue, Row, Value};

/// An event of the audit trail, complete: its hash can be computed again, and its payload decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The topic that it is in.
    pub topic: Arc<str>,
    /// The event, and where it is in the topic.
    pub recorded: Recorded,
}

/// The values in the order of the table's columns.
pub(crate) fn to_row(recorded: &Recorded, topic: &Arc<str>) -> Vec<Value> {
    let event = &recorded.envelope;
    let (payload, payload_bytes) = match json_text(event, JSON_DEPTH_MAX) {
        Some(text) => (Value::Json(text.into()), Value::Null),
        None => (Value::Null, event.payload.clone().into()),
    };
    vec![
        text(event.stream.category.clone()),
        text(event.stream.id.clone()),
        event.version.into(),
        text(event.context.clone()),
        event.event_id.get().into(),
        text(event.event_type.clone()),
        event.schema_version.into(),
        event.recorded_at.into(),
        event.occurred_at.into(),
        text(event.command_id.clone()),
        Value::from(event.command_hash.0.as_slice()),
        text(event.correlation_id.clone()),
        event.causation_id.clone().map_or(Value::Null, text),
        event.actor.clone().map_or(Value::Null, text),
        event.traceparent.clone().map_or(Value::Null, text),
        text(event.content_type.clone()),
        payload,
        payload_bytes,
        Value::from(event.previous_hash.0.as_slice()),
        Value::from(event.hash.0.as_slice()),
        topic.clone().into(),
        recorded.partition.into(),
        Value::Integer(recorded.offset as i64),
    ]
}

/// Headers may hold a zero character, which PostgreSQL's text can't: one in a media type must not stop the trail.
fn text(text: impl Into<Arc<str>>) -> Value {
    let text = text.into();
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// The payload as text, where it is JSON that every database takes as such, and no deeper than that.
pub(super) fn json_text(event: &Envelope, depth_max: usize) -> Option<&str> {
    let media_type = event.content_type.split(';').next().unwrap_or_default().trim();
    if media_type != "application/json" && !media_type.ends_with("+json") {
        return None;
    }
    let text = std::str::from_utf8(&event.payload).ok()?;
    let valid = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
    // A short text can't be too deep.
    (valid && (text.len() <= 2 * depth_max || depth(text) <= depth_max)).then_some(text)
}

/// Databases read JSON by recursion, each with a limit of its own; this is serde_json's.
pub(super) const JSON_DEPTH_MAX: usize = 128;

/// How deep arrays and objects are nested in valid JSON.
fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth -= 1,
            _ => {}
        }
    }
    deepest
}

impl Entry {
    pub(crate) fn from_row(row: &Row) -> Result<Self, Error> {
        let payload = match row.get::<Option<String>>("payload")? {
            Some(text) => text.into_bytes(),
            None => row.get("payload_bytes")?,
        };
        let category: Arc<str> = row.get::<String>("category")?.into();
        let envelope = Envelope {
            context: row.get::<String>("context")?.into(),
            stream: StreamId { category, id: id(row, "aggregate_id", |text| AggregateKey::new(text))? },
            version: Version::new(row.get("version")?),
            event_id: EventId::from(row.get::<uuid::Uuid>("event_id")?),
            event_type: row.get::<String>("event_type")?.into(),
            schema_version: row.get("schema_version")?,
            recorded_at: row.get("recorded_at")?,
            occurred_at: row.get("occurred_at")?,
            command_id: id(row, "command_id", |text| CommandId::new(text))?,
            command_hash: CommandHash(array(row, "command_hash")?),
            correlation_id: id(row, "correlation_id", |text| CorrelationId::new(text))?,
            causation_id: optional_id(row, "causation_id", |text| CausationId::new(text))?,
            actor: optional_id(row, "actor", |text| Actor::new(text))?,
            traceparent: row.get::<Option<String>>("traceparent")?.map(Into::into),
            content_type: row.get::<String>("content_type")?.into(),
            payload: payload.into(),
            previous_hash: EventHash(array(row, "previous_hash")?),
            hash: EventHash(array(row, "hash")?),
        };
        let recorded = Recorded { partition: row.get("topic_partition")?, offset: row.get("topic_offset")?, envelope };
        Ok(Self { topic: row.get::<String>("topic")?.into(), recorded })
    }
}

fn id<T, E: std::fmt::Display>(row: &Row, column: &str, new: impl Fn(&str) -> Result<T, E>) -> Result<T, Error> {
    new(&row.get::<String>(column)?).map_err(|error| damaged(column, error))
}

fn optional_id<T, E: std::fmt::Display>(
    row: &Row,
    column: &str,
    new: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, Error> {
    let text = row.get::<Option<String>>(column)?;
    text.map(|text| new(&text)).transpose().map_err(|error| damaged(column, error))
}

pub(super) fn array<const N: usize>(row: &Row, column: &str) -> Result<[u8; N], Error>
where
    Vec<u8>: FromValue,
{
    let bytes: Vec<u8> = row.get(column)?;
    let len = bytes.len();
    bytes.try_into().map_err(|_| damaged(column, format!("{len} bytes instead of {N}")))
}

fn damaged(column: &str, what: impl std::fmt::Display) -> Error {
    Error::Damaged(format!("a row of the audit trail is damaged in column {column:?}: {what}"))
}
