//! An event as a line of an export, and back.

use std::borrow::Cow;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use chrono::SecondsFormat;
use es_core::{CommandHash, Envelope, EventHash, Recorded, StreamId, Version};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::csv::{self, COLUMNS};
use crate::audit::entry::{Entry, JSON_DEPTH_MAX, json_text};

/// An event as text. The payload is last, so that its bytes are found in a line of JSON by whoever has no means to ask a
/// parser for them.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Line<'a> {
    #[serde(borrow)]
    context: Cow<'a, str>,
    #[serde(borrow)]
    category: Cow<'a, str>,
    #[serde(borrow)]
    aggregate_id: Cow<'a, str>,
    version: u64,
    #[serde(borrow)]
    event_id: Cow<'a, str>,
    #[serde(borrow)]
    event_type: Cow<'a, str>,
    schema_version: u32,
    #[serde(borrow)]
    recorded_at: Cow<'a, str>,
    #[serde(borrow)]
    occurred_at: Cow<'a, str>,
    #[serde(borrow)]
    command_id: Cow<'a, str>,
    #[serde(borrow)]
    command_hash: Cow<'a, str>,
    #[serde(borrow)]
    correlation_id: Cow<'a, str>,
    #[serde(borrow)]
    causation_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    actor: Option<Cow<'a, str>>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content_type: Cow<'a, str>,
    #[serde(borrow)]
    previous_hash: Cow<'a, str>,
    #[serde(borrow)]
    hash: Cow<'a, str>,
    #[serde(borrow)]
    topic: Cow<'a, str>,
    partition: u32,
    offset: u64,
    #[serde(borrow, default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload_base64: Option<Cow<'a, str>>,
}

/// A payload that is `null` is one.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl<'a> Line<'a> {
    pub(super) fn of(entry: &'a Entry) -> Self {
        let Recorded { partition, offset, envelope: event } = &entry.recorded;
        let payload = raw(event);
        let payload_base64 = payload.is_none().then(|| BASE64_STANDARD.encode(&event.payload).into());
        Self {
            context: event.context.as_ref().into(),
            category: event.stream.category.as_ref().into(),
            aggregate_id: event.stream.id.as_str().into(),
            version: event.version.get(),
            event_id: event.event_id.to_string().into(),
            event_type: event.event_type.as_ref().into(),
            schema_version: event.schema_version,
            recorded_at: event.recorded_at.to_rfc3339_opts(SecondsFormat::Millis, true).into(),
            occurred_at: event.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true).into(),
            command_id: event.command_id.as_str().into(),
            command_hash: event.command_hash.to_string().into(),
            correlation_id: event.correlation_id.as_str().into(),
            causation_id: event.causation_id.as_ref().map(|id| id.as_str().into()),
            actor: event.actor.as_ref().map(|actor| actor.as_str().into()),
            traceparent: event.traceparent.as_ref().map(|text| text.as_ref().into()),
            content_type: event.content_type.as_ref().into(),
            previous_hash: event.previous_hash.to_string().into(),
            hash: event.hash.to_string().into(),
            topic: entry.topic.as_ref().into(),
            partition: *partition,
            offset: *offset,
            payload,
            payload_base64,
        }
    }

    /// Appends it as a line of JSON.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(&mut *out, self).expect("texts and numbers are written to memory");
        out.push(b'\n');
    }

    /// Appends it as a record of CSV.
    pub(super) fn write_csv(&self, out: &mut Vec<u8>) {
        let [version, schema_version] = [self.version.to_string(), self.schema_version.to_string()];
        let [partition, offset] = [self.partition.to_string(), self.offset.to_string()];
        let fields: [&str; COLUMNS.len()] = [
            &self.context,
            &self.category,
            &self.aggregate_id,
            &version,
            &self.event_id,
            &self.event_type,
            &schema_version,
            &self.recorded_at,
            &self.occurred_at,
            &self.command_id,
            &self.command_hash,
            &self.correlation_id,
            self.causation_id.as_deref().unwrap_or_default(),
            self.actor.as_deref().unwrap_or_default(),
            self.traceparent.as_deref().unwrap_or_default(),
            &self.content_type,
            &self.previous_hash,
            &self.hash,
            &self.topic,
            &partition,
            &offset,
            self.payload.map_or("", RawValue::get),
            self.payload_base64.as_deref().unwrap_or_default(),
        ];
        csv::write(fields, out);
    }

    pub(super) fn from_json(line: &'a [u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|error| error.to_string())
    }

    /// Of the fields of a record of CSV.
    pub(super) fn from_csv(fields: &'a [String]) -> Result<Self, String> {
        let [.., payload, payload_base64] = fields else { return Err("it is empty".into()) };
        if fields.len() != COLUMNS.len() {
            return Err(format!("it has {} fields, not {}", fields.len(), COLUMNS.len()));
        }
        let payload = match payload.as_str() {
            "" => None,
            json => Some(serde_json::from_str(json).map_err(|error| format!("its payload: {error}"))?),
        };
        let mut fields = fields.iter();
        let mut next = || Cow::Borrowed(fields.next().expect("they were counted").as_str());
        let given = |text: Cow<'a, str>| Some(text).filter(|text| !text.is_empty());
        Ok(Self {
            context: next(),
            category: next(),
            aggregate_id: next(),
            version: parse("version", &next())?,
            event_id: next(),
            event_type: next(),
            schema_version: parse("schema_version", &next())?,
            recorded_at: next(),
            occurred_at: next(),
            command_id: next(),
            command_hash: next(),
            correlation_id: next(),
            causation_id: given(next()),
            actor: given(next()),
            traceparent: given(next()),
            content_type: next(),
            previous_hash: next(),
            hash: next(),
            topic: next(),
            partition: parse("partition", &next())?,
            offset: parse("offset", &next())?,
            payload_base64: payload.is_none().then(|| payload_base64.into()),
            payload,
        })
    }

    /// The event that the line tells of.
    pub(super) fn entry(&self) -> Result<Entry, String> {
        let payload = match (self.payload, &self.payload_base64) {
            (Some(json), None) => json.get().as_bytes().to_vec(),
            (None, Some(text)) => {
                BASE64_STANDARD.decode(text.as_bytes()).map_err(|error| format!("its payload_base64: {error}"))?
            }
            _ => return Err("it has not one payload".into()),
        };
        let envelope = Envelope {
            context: self.context.as_ref().into(),
            stream: StreamId {
                category: self.category.as_ref().into(),
                id: parse("aggregate_id", &self.aggregate_id)?,
            },
            version: Version::new(self.version),
            event_id: parse::<uuid::Uuid>("event_id", &self.event_id)?.into(),
            event_type: self.event_type.as_ref().into(),
            schema_version: self.schema_version,
            recorded_at: parse("recorded_at", &self.recorded_at)?,
            occurred_at: parse("occurred_at", &self.occurred_at)?,
            command_id: parse("command_id", &self.command_id)?,
            command_hash: CommandHash(hex("command_hash", &self.command_hash)?),
            correlation_id: parse("correlation_id", &self.correlation_id)?,
            causation_id: self.causation_id.as_ref().map(|id| parse("causation_id", id)).transpose()?,
            actor: self.actor.as_ref().map(|actor| parse("actor", actor)).transpose()?,
            traceparent: self.traceparent.as_deref().map(Arc::from),
            content_type: self.content_type.as_ref().into(),
            payload: payload.into(),
            previous_hash: EventHash(hex("previous_hash", &self.previous_hash)?),
            hash: EventHash(hex("hash", &self.hash)?),
        };
        let recorded = Recorded { partition: self.partition, offset: self.offset, envelope };
        Ok(Entry { topic: self.topic.as_ref().into(), recorded })
    }
}

/// The payload, where it is JSON that stands in a line as it is: it has no line end, nothing around it that a parser would take off,
/// and the line is not too deep for a parser that reads by recursion.
fn raw(event: &Envelope) -> Option<&RawValue> {
    let text = json_text(event, JSON_DEPTH_MAX - 2)?;
    let in_a_line = !text.contains(['\n', '\r']);
    serde_json::from_str::<&RawValue>(text).ok().filter(|raw| in_a_line && raw.get().len() == text.len())
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("its {name}: {error}"))
}

/// Lower-case digits, as `Display` writes them.
fn hex<const N: usize>(name: &str, text: &str) -> Result<[u8; N], String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
    let byte = |pair: &[u8]| Some((digit(pair[0])? << 4 | digit(*pair.get(1)?)?) as u8);
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("its {name} is not {N} bytes in hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    fn sample(content_type: &str, payload: &'static str, actor: Option<&str>) -> Entry {
        let mut envelope = Envelope {
            context: "bank".into(),
            stream: StreamId { category: "account".into(), id: "A, \"7\"".parse().unwrap() },
            version: Version::new(2),
            event_id: uuid::Uuid::from_u128(0x0192_3456_789a_7bcd_8ef0_1234_5678_9abc).into(),
            event_type: "deposited".into(),
            schema_version: 1,
            recorded_at: DateTime::from_timestamp_millis(1_700_000_000_120).unwrap(),
            occurred_at: DateTime::from_timestamp_micros(741_830_400_000_001).unwrap(),
            command_id: "order-7".parse().unwrap(),
            command_hash: CommandHash([0xab; 17]),
            correlation_id: "talk".parse().unwrap(),
            causation_id: None,
            actor: actor.map(|actor| actor.parse().unwrap()),
            traceparent: None,
            content_type: content_type.into(),
            payload: payload.into(),
            previous_hash: EventHash([1; 32]),
            hash: EventHash::default(),
        };
        envelope.hash = envelope.compute_hash();
        Entry { topic: "bank.account.events".into(), recorded: Recorded { partition: 3, offset: 41, envelope } }
    }

    fn json(entry: &Entry) -> String {
        let mut line = Vec::new();
        Line::of(entry).write_json(&mut line);
        assert_eq!(Line::from_json(&line).unwrap().entry().unwrap(), *entry);
        String::from_utf8(line).unwrap()
    }

    fn csv(entry: &Entry) -> String {
        let mut record = Vec::new();
        Line::of(entry).write_csv(&mut record);
        assert_eq!(Line::from_csv(&csv::read(&record).unwrap()).unwrap().entry().unwrap(), *entry);
        String::from_utf8(record).unwrap()
    }

    /// The bytes of format 1.
    #[test]
    fn lines_are_those_that_were_always_written() {
        let json_payload = sample("application/json", r#"{"amount": 5,"reference":"a,b"}"#, Some("=1+1"));
        let other_payload = sample("text/plain", "5\n", None);
        let zeroes = "01".repeat(32);
        assert_eq!(
            json(&json_payload),
            [
                r#"{"context":"bank","category":"account","aggregate_id":"A, \"7\"","version":2,"#,
                r#""event_id":"01923456-789a-7bcd-8ef0-123456789abc","event_type":"deposited","schema_version":1,"#,
                r#""recorded_at":"2023-11-14T22:13:20.120Z","occurred_at":"1993-07-05T00:00:00.000001Z","#,
                r#""command_id":"order-7","command_hash":"ababababababababababababababababab","correlation_id":"talk","#,
                r#""causation_id":null,"actor":"=1+1","traceparent":null,"content_type":"application/json","#,
                &format!(r#""previous_hash":"{zeroes}","hash":"{}","#, json_payload.recorded.envelope.hash),
                r#""topic":"bank.account.events","partition":3,"offset":41,"#,
                r#""payload":{"amount": 5,"reference":"a,b"}}"#,
                "\n",
            ]
            .concat()
        );
        assert!(json(&other_payload).ends_with(",\"offset\":41,\"payload_base64\":\"NQo=\"}\n"));
        let header = [
            "context,category,aggregate_id,version,event_id,event_type,schema_version,recorded_at,occurred_at,command_id,",
            "command_hash,correlation_id,causation_id,actor,traceparent,content_type,previous_hash,hash,topic,partition,",
            "offset,payload,payload_base64\r\n",
        ];
        assert_eq!(String::from_utf8(csv::header()).unwrap(), header.concat());
        assert_eq!(
            csv(&json_payload),
            [
                r#"bank,account,"A, ""7""",2,01923456-789a-7bcd-8ef0-123456789abc,deposited,1,"#,
                "2023-11-14T22:13:20.120Z,1993-07-05T00:00:00.000001Z,order-7,ababababababababababababababababab,talk,,'=1+1,,",
                &format!("application/json,{zeroes},{},", json_payload.recorded.envelope.hash),
                r#"bank.account.events,3,41,"{""amount"": 5,""reference"":""a,b""}","#,
                "\r\n",
            ]
            .concat()
        );
        assert!(csv(&other_payload).ends_with(",bank.account.events,3,41,,NQo=\r\n"));
    }

    /// And what no line of ours is, is told.
    #[test]
    fn a_line_that_is_none_is_refused_with_the_reason() {
        let good = json(&sample("application/json", "5", None));
        for (from, to, reason) in [
            ("\"version\":2", "\"version\":-2", "invalid value"),
            ("\"payload\":5", "\"payload\":", "expected value"),
            (",\"payload\":5", "", "it has not one payload"),
            ("\"payload\":5", "\"payload_base64\":\"?\"", "its payload_base64: "),
            ("\"payload\":5", "\"payload\":5,\"payload_base64\":\"NQ==\"", "it has not one payload"),
            ("abab", "ABab", "its command_hash is not 17 bytes"),
            ("abab", "+bab", "its command_hash is not 17 bytes"),
            ("abab", "aba", "its command_hash is not 17 bytes"),
            ("2023-11-14T", "yesterday", "its recorded_at: "),
            ("\"talk\"", "\"\"", "its correlation_id: "),
            ("01923456-", "x", "its event_id: "),
        ] {
            let line = good.replacen(from, to, 1);
            assert_ne!(line, good);
            let refused = Line::from_json(line.as_bytes()).and_then(|line| line.entry());
            assert!(refused.as_ref().is_err_and(|told| told.contains(reason)), "{line}: {refused:?}");
        }
        let record = csv(&sample("application/json", "5", None));
        for (record, reason) in [
            ("a,b\r\n".to_owned(), "it has 2 fields, not 23"),
            (record.replace("\r\n", ",\r\n"), "it has 24 fields, not 23"),
            (record.replace("\r\n", ",,\r\n"), "it has more fields"),
            (record.replace("talk", "ta\rlk"), "a carriage return stands in its midst"),
            (record.replace(",5,", ",{,"), "its payload: "),
        ] {
            let fields = csv::read(record.as_bytes());
            let refused = fields.and_then(|fields| Line::from_csv(&fields)?.entry());
            assert!(refused.as_ref().is_err_and(|told| told.contains(reason)), "{record}: {refused:?}");
        }
    }
}
