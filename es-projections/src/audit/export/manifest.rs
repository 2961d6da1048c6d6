//! What an export tells of itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, SubsecRound, Utc};
use es_core::{EventHash, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};
use sha2::{Digest, Sha256};

use crate::audit::entry::Entry;
use crate::audit::query::Query;

/// The version of what stands in the folder.
pub(super) const FORMAT: u32 = 1;

/// What an export holds: its `manifest.json`, a stored format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The version of the format: 1.
    pub format: u32,
    /// The release of the framework that wrote it.
    pub release: String,
    /// When it was finished.
    pub exported_at: DateTime<Utc>,
    /// The filters that were given. None: every event.
    pub selection: Json,
    /// What the events are in the order of, the oldest first: `version`, `recorded_at` or `occurred_at`.
    pub order: String,
    /// How many events there are.
    pub events: u64,
    /// The SHA-256, in hexadecimal digits, over the hashes of the events, 32 bytes each, in the order of the lines. It is the same for the same
    /// events, whatever the format.
    pub events_sha256: String,
    /// Which part of the log they come from.
    pub partitions: Vec<ExportedPartition>,
    /// The file with the events: `events.jsonl` or `events.csv`.
    pub file: ExportedFile,
    /// The file with a SHA-256 for each event's line, `lines.sha256`: it tells which line is wrong, where the hash of all only tells that one is.
    pub lines: ExportedFile,
}

/// What an export has of a partition of the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportedPartition {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// How many events are from there.
    pub events: u64,
    /// The least of their offsets.
    pub first: u64,
    /// The largest of their offsets.
    pub last: u64,
}

/// A file of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExportedFile {
    /// Its name in the folder.
    pub name: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

impl Manifest {
    /// The manifest of an export that is complete now.
    pub(super) fn of(query: &Query, events: Events, file: ExportedFile, lines: ExportedFile) -> Self {
        let Events { count, digest, partitions } = events;
        Self {
            format: FORMAT,
            release: env!("CARGO_PKG_VERSION").into(),
            exported_at: Utc::now().trunc_subsecs(3),
            selection: selection(query),
            order: query.ordered_by().into(),
            events: count,
            events_sha256: hex(digest),
            partitions: partitions.into_values().collect(),
            file,
            lines,
        }
    }

    /// As it stands in its file.
    pub(super) fn text(&self) -> String {
        let text = serde_json::to_string_pretty(self).expect("texts and numbers are written to memory");
        text + "\n"
    }
}

/// What the manifest tells of all events together.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    count: u64,
    digest: Sha256,
    partitions: BTreeMap<(Arc<str>, u32), ExportedPartition>,
}

impl Events {
    pub(super) fn add(&mut self, Entry { topic, recorded }: &Entry) {
        let Recorded { partition, offset, envelope } = recorded;
        let EventHash(hash) = envelope.hash;
        self.count += 1;
        self.digest.update(hash);
        let place = (topic.clone(), *partition);
        let of_partition = self.partitions.entry(place).or_insert_with(|| ExportedPartition {
            topic: topic.clone(),
            partition: *partition,
            events: 0,
            first: *offset,
            last: *offset,
        });
        of_partition.events += 1;
        // Not always in order: that may be the one of business time.
        of_partition.first = of_partition.first.min(*offset);
        of_partition.last = of_partition.last.max(*offset);
    }

    /// Whether it is these that a manifest tells of.
    pub(super) fn are_those_of(self, manifest: &Manifest) -> bool {
        self.count == manifest.events
            && hex(self.digest) == manifest.events_sha256
            && self.partitions.into_values().eq(manifest.partitions.iter().cloned())
    }
}

pub(super) fn hex(digest: Sha256) -> String {
    EventHash(digest.finalize().into()).to_string()
}

/// The filters that are given, by the names of the fields of [`Query`].
fn selection(query: &Query) -> Json {
    // Whole, so that a new filter is not forgotten here.
    let Query {
        aggregate,
        actor,
        correlation,
        causation,
        caused_by,
        command,
        event_type,
        from,
        to,
        recorded_from,
        recorded_to,
        fields,
        order: _,
        limit: _,
        cursor: _,
    } = query;
    let time = |time: &Option<DateTime<Utc>>| time.map(|time| time.to_rfc3339_opts(SecondsFormat::Micros, true));
    let aggregate = aggregate.as_ref().map(|stream| json!({ "category": stream.category, "id": stream.id }));
    let all = [
        ("aggregate", json!(aggregate)),
        ("actor", json!(actor)),
        ("correlation", json!(correlation)),
        ("causation", json!(causation)),
        ("caused_by", json!(caused_by)),
        ("command", json!(command)),
        ("event_type", json!(event_type)),
        ("from", json!(time(from))),
        ("to", json!(time(to))),
        ("recorded_from", json!(time(recorded_from))),
        ("recorded_to", json!(time(recorded_to))),
        ("fields", if fields.is_empty() { Json::Null } else { json!(fields) }),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_null());
    Json::Object(given.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text of format 1.
    #[test]
    fn the_manifest_is_the_one_that_was_always_written() {
        let file = |name: &str| ExportedFile { name: name.into(), bytes: 812, sha256: "ab".repeat(32) };
        let topic = "bank.account.events".into();
        let manifest = Manifest {
            format: 1,
            release: "0.1.0".into(),
            exported_at: "2026-01-02T03:04:05.678Z".parse().unwrap(),
            selection: selection(&Query {
                aggregate: Some(es_core::StreamId { category: "account".into(), id: "7".parse().unwrap() }),
                actor: Some("ann".parse().unwrap()),
                correlation: Some("talk".parse().unwrap()),
                causation: Some("order-6".parse().unwrap()),
                caused_by: Some("order-5".parse().unwrap()),
                command: Some("order-7".parse().unwrap()),
                event_type: Some("deposited".into()),
                from: Some("1993-01-01T00:00:00Z".parse().unwrap()),
                to: Some("1994-01-01T00:00:00Z".parse().unwrap()),
                recorded_from: Some("2025-01-01T00:00:00Z".parse().unwrap()),
                recorded_to: Some("2026-01-01T00:00:00Z".parse().unwrap()),
                fields: vec!["amount=5".parse().unwrap(), "by.name=Ada".parse().unwrap()],
                ..Query::default()
            }),
            order: "version".into(),
            events: 1,
            events_sha256: "cd".repeat(32),
            partitions: vec![ExportedPartition { topic, partition: 3, events: 1, first: 41, last: 41 }],
            file: file("events.jsonl"),
            lines: file("lines.sha256"),
        };
        let (ab, cd) = ("ab".repeat(32), "cd".repeat(32));
        let text = [
            r#"{"format":1,"release":"0.1.0","exported_at":"2026-01-02T03:04:05.678Z","selection":{"#,
            r#""actor":"ann","aggregate":{"category":"account","id":"7"},"causation":"order-6","caused_by":"order-5","#,
            r#""command":"order-7","correlation":"talk","event_type":"deposited","#,
            r#""fields":[{"path":["amount"],"value":5},{"path":["by","name"],"value":"Ada"}],"#,
            r#""from":"1993-01-01T00:00:00.000000Z","recorded_from":"2025-01-01T00:00:00.000000Z","#,
            r#""recorded_to":"2026-01-01T00:00:00.000000Z","to":"1994-01-01T00:00:00.000000Z"},"#,
            &format!(r#""order":"version","events":1,"events_sha256":"{cd}","#),
            r#""partitions":[{"topic":"bank.account.events","partition":3,"events":1,"first":41,"last":41}],"#,
            &format!(r#""file":{{"name":"events.jsonl","bytes":812,"sha256":"{ab}"}},"#),
            &format!(r#""lines":{{"name":"lines.sha256","bytes":812,"sha256":"{ab}"}}}}"#),
        ];
        assert_eq!(serde_json::to_string(&manifest).unwrap(), text.concat());
        assert!(manifest.text().starts_with("{\n  \"format\": 1,\n") && manifest.text().ends_with("  }\n}\n"));
        assert_eq!(serde_json::from_str::<Manifest>(&manifest.text()).unwrap(), manifest);
        assert_eq!(selection(&Query::default()), json!({}));
    }
}
