//! An export is what the trail holds, complete enough to be proven without us, and nothing that is not finished looks like one.

use std::collections::BTreeMap;
use std::fs;
use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use es_core::Envelope;
use es_projections::audit::{AuditTrail, ExportFormat, Exported, Query, check_export, export};
use es_projections::{Database, Error, RunningProjection};
use rustix::fs::inotify;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::support::*;

const FORMATS: [(ExportFormat, &str); 2] =
    [(ExportFormat::JsonLines, "events.jsonl"), (ExportFormat::Csv, "events.csv")];

const NASTY: [&str; 7] = [
    "'; DROP TABLE bank_audit; --",
    "\" OR \"1\"=\"1,\"\"",
    ",,;\"\"\\\",\"payload\":{}",
    "\u{1f600}\u{feff} \u{202e}\u{2028}é",
    "=HYPERLINK(\"http://x\",\"y\")",
    "  spaces around  ",
    "a\\u0000\\n%s{}<![CDATA[",
];

async fn trail(events: &Events, database: &Database) -> RunningProjection {
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let worker = events.worker(database).start(trail).await.unwrap();
    caught_up(&worker).await;
    worker
}

async fn exported(database: &Database, query: &Query, format: ExportFormat, to: &Path) -> Result<Exported, Error> {
    export(database, query, format, to, |_| ()).await
}

/// A line as somebody reads it who knows nothing but `docs/formats.md`.
struct Line {
    fields: BTreeMap<String, String>,
    payload: Vec<u8>,
    as_text: bool,
}

impl Line {
    fn get(&self, name: &str) -> &str {
        self.fields.get(name).unwrap_or_else(|| panic!("{name} is not in {:?}", self.fields))
    }

    /// The SHA-256 over these fields, each preceded by its length.
    fn hash(&self) -> String {
        let time = |name| self.get(name).parse::<DateTime<Utc>>().unwrap();
        let number = |name| self.get(name).parse::<u64>().unwrap();
        let event_id = self.get("event_id").replace('-', "");
        let aggregate = format!("{}.{}", self.get("context"), self.get("category"));
        let fields: [&[u8]; 15] = [
            &1_u32.to_be_bytes(),
            aggregate.as_bytes(),
            self.get("aggregate_id").as_bytes(),
            &number("version").to_be_bytes(),
            self.get("event_type").as_bytes(),
            &(number("schema_version") as u32).to_be_bytes(),
            &u128::from_str_radix(&event_id, 16).unwrap().to_be_bytes(),
            &time("recorded_at").timestamp_millis().to_be_bytes(),
            &time("occurred_at").timestamp_micros().to_be_bytes(),
            self.get("command_id").as_bytes(),
            self.get("correlation_id").as_bytes(),
            self.get("causation_id").as_bytes(),
            self.get("actor").as_bytes(),
            &Sha256::digest(&self.payload),
            &bytes_of(self.get("previous_hash")),
        ];
        let mut sha256 = Sha256::new();
        for field in fields {
            sha256.update((field.len() as u32).to_be_bytes());
            sha256.update(field);
        }
        hex(&sha256.finalize())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|place| u8::from_str_radix(&hex[2 * place..2 * place + 2], 16).unwrap()).collect()
}

fn read(folder: &Path, file: &str) -> Vec<Line> {
    let text = String::from_utf8(fs::read(folder.join(file)).unwrap()).unwrap();
    if file.ends_with(".csv") { read_csv(&text) } else { text.split_terminator('\n').map(read_json).collect() }
}

fn read_json(line: &str) -> Line {
    let raw: BTreeMap<String, Box<RawValue>> = serde_json::from_str(line).unwrap();
    let text = |raw: &RawValue| match serde_json::from_str(raw.get()).unwrap() {
        serde_json::Value::String(text) => text,
        serde_json::Value::Null => String::new(),
        other => other.to_string(),
    };
    let payload = match (raw.get("payload"), raw.get("payload_base64")) {
        (Some(json), None) => json.get().as_bytes().to_vec(),
        (None, Some(bytes)) => BASE64_STANDARD.decode(text(bytes)).unwrap(),
        _ => panic!("not one payload: {line}"),
    };
    // Or without a parser that tells of raw text.
    if let Some((_, rest)) = line.split_once(",\"payload\":") {
        assert_eq!(rest.strip_suffix('}').unwrap().as_bytes(), payload);
    }
    let fields = raw.iter().filter(|(name, _)| !name.starts_with("payload"));
    let fields = fields.map(|(name, raw)| (name.clone(), text(raw))).collect();
    Line { fields, payload, as_text: raw.contains_key("payload") }
}

/// RFC 4180, by hand.
fn read_csv(text: &str) -> Vec<Line> {
    let (mut records, mut record, mut field, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => field.push(characters.next().unwrap()),
            '"' => quoted = !quoted,
            _ if quoted => field.push(character),
            ',' => record.push(std::mem::take(&mut field)),
            '\r' => {
                assert_eq!(characters.next(), Some('\n'));
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            '\n' => panic!("a line end without carriage return"),
            _ => field.push(character),
        }
    }
    assert!(field.is_empty() && record.is_empty() && !quoted);
    let header = records.remove(0);
    let line = |record: Vec<String>| {
        assert_eq!(record.len(), header.len());
        let record = record.iter().map(|field| field.strip_prefix('\'').unwrap_or(field).to_owned());
        let mut fields: BTreeMap<_, _> = header.iter().cloned().zip(record).collect();
        let (json, bytes) = (fields.remove("payload").unwrap(), fields.remove("payload_base64").unwrap());
        assert!(json.is_empty() || bytes.is_empty());
        let as_text = !json.is_empty();
        let payload = if json.is_empty() { BASE64_STANDARD.decode(bytes).unwrap() } else { json.into_bytes() };
        Line { fields, payload, as_text }
    };
    records.into_iter().map(line).collect()
}

fn is_told(line: &Line, event: &Envelope, position: (u32, u64)) {
    let time = |name| line.get(name).parse::<DateTime<Utc>>().unwrap();
    assert_eq!(line.payload, event.payload);
    assert_eq!((time("recorded_at"), time("occurred_at")), (event.recorded_at, event.occurred_at));
    for (name, expected) in [
        ("context", event.context.as_ref()),
        ("category", &event.stream.category),
        ("aggregate_id", event.stream.id.as_str()),
        ("version", &event.version.to_string()),
        ("event_id", &event.event_id.to_string()),
        ("event_type", &event.event_type),
        ("schema_version", &event.schema_version.to_string()),
        ("command_id", event.command_id.as_str()),
        ("command_hash", &event.command_hash.to_string()),
        ("correlation_id", event.correlation_id.as_str()),
        ("causation_id", event.causation_id.as_ref().map_or("", |id| id.as_str())),
        ("actor", event.actor.as_ref().map_or("", |actor| actor.as_str())),
        ("traceparent", event.traceparent.as_deref().unwrap_or_default()),
        ("content_type", &event.content_type),
        ("previous_hash", &event.previous_hash.to_string()),
        ("hash", &event.hash.to_string()),
        ("topic", "bank.account.events"),
        ("partition", &position.0.to_string()),
        ("offset", &position.1.to_string()),
    ] {
        assert_eq!(line.get(name), expected, "{name}");
    }
    assert_eq!(line.fields.len(), 21);
}

/// Shows: each field of each event is in its line, whatever it holds, and from a line alone the event's hash is computed again; both
/// formats tell of the same events, the manifest of both, and the system's own tool finds the files unchanged.
pub async fn a_line_is_enough_to_prove_its_event(url: &str) {
    let (database, mut events, dir) = (connect(url).await, Events::new(), tempfile::tempdir().unwrap());
    let mut written = Vec::new();
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    // And whether they stand in a line as they are.
    let payloads: Vec<(&str, Vec<u8>, bool)> = vec![
        ("application/json", b"null".to_vec(), true),
        ("application/json", b"{ \"a\" :1.10,\"a\":\"\\u0000\", \"n\": 1e999999 }".to_vec(), true),
        ("application/json", b"{\"two\":\n\"lines\"}".to_vec(), false),
        ("application/json", b" {\"spaces\":\"around\"} ".to_vec(), false),
        ("application/json", deep(126).into_bytes(), true),
        ("application/json", deep(127).into_bytes(), false),
        ("application/json", b"".to_vec(), false),
        ("application/json", b"{\"broken\":".to_vec(), false),
        ("application/x-protobuf", b"\x00\x01\xff\r\n\"".to_vec(), false),
        ("text/plain; \"a\",\r\n\tb\u{1}", b"text".to_vec(), false),
    ];
    let mut as_text = Vec::new();
    for (content_type, payload, is_text) in payloads {
        let event = events.event("plain", "added", payload.into(), |event| event.content_type = content_type.into());
        let position = events.add_event(&event);
        written.push((event, (position.partition, position.offset)));
        as_text.push(is_text);
    }
    as_text.resize(as_text.len() + NASTY.len(), true);
    for nasty in NASTY {
        let payload = serde_json::to_vec(&serde_json::json!({ nasty: [nasty, "\n\r\t\0\""] })).unwrap();
        let event = events.event(nasty, nasty, payload.into(), |event| {
            event.command_id = nasty.parse().unwrap();
            event.correlation_id = nasty.parse().unwrap();
            event.causation_id = Some(nasty.parse().unwrap());
            event.actor = Some(nasty.parse().unwrap());
            event.traceparent = Some(format!("{nasty}\n\r\"\u{1},").into());
            event.schema_version = 3;
            event.occurred_at = "1993-02-03T04:05:06.789012Z".parse().unwrap();
        });
        let position = events.add_event(&event);
        written.push((event, (position.partition, position.offset)));
    }
    let _worker = trail(&events, &database).await;
    let mut hashes = Vec::new();
    for (format, file) in FORMATS {
        let folder = dir.path().join(file).join("made");
        let done = exported(&database, &Query::default(), format, &folder).await.unwrap();
        let lines = read(&folder, file);
        assert_eq!(lines.len(), written.len());
        assert_eq!(lines.iter().map(|line| line.as_text).collect::<Vec<_>>(), as_text);
        for (line, (event, position)) in lines.iter().zip(&written) {
            is_told(line, event, *position);
            assert_eq!((line.hash().as_str(), line.get("hash")), (line.get("hash"), event.hash.to_string().as_str()));
        }
        let all: Vec<u8> = lines.iter().flat_map(|line| bytes_of(line.get("hash"))).collect();
        assert_eq!(done.manifest.events_sha256, hex(&Sha256::digest(all)));
        assert_eq!(check_export(&folder).await.unwrap(), done);
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        assert_eq!(done.manifest_sha256, hex(&Sha256::digest(manifest)));
        let checked =
            Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
        let checked = checked.unwrap();
        let told = String::from_utf8(checked.stdout).unwrap();
        assert!(checked.status.success(), "{told}");
        assert_eq!(told, format!("{file}: OK\nlines.sha256: OK\nmanifest.json: OK\n"));
        hashes.push(done.manifest.events_sha256);
    }
    assert_eq!(hashes[0], hashes[1]);
}

/// So many events that an export takes several pages: of two actors, each at a business time before that of the one before.
async fn many(database: &Database) -> (Vec<Envelope>, RunningProjection) {
    let (mut events, mut written) = (Events::new(), Vec::new());
    let now = events.now();
    for number in 0..700 {
        let payload = Bytes::from(format!(r#"{{"amount":{number},"even":{}}}"#, number % 2 == 0));
        let event = events.event(&format!("a{}", number % 7), "added", payload, |event| {
            event.occurred_at = now - TimeDelta::hours(number);
            event.actor = Some(["ann", "bob"][number as usize % 2].parse().unwrap());
        });
        events.add_event(&event);
        written.push(event);
    }
    let worker = trail(&events, database).await;
    (written, worker)
}

/// Shows: an export holds all that its filters let through, page after page, the oldest first, and its manifest says what that is; exports of
/// the same events have the same hash of events.
pub async fn an_export_is_the_whole_of_what_was_asked_for(url: &str) {
    let (database, dir) = (connect(url).await, tempfile::tempdir().unwrap());
    let (written, _worker) = many(&database).await;
    let ids = |events: &[&Envelope]| events.iter().map(|event| event.event_id.to_string()).collect::<Vec<_>>();
    let all: Vec<_> = written.iter().collect();
    let stream = Some(written[3].stream.clone());
    let field = vec!["even=true".parse().unwrap()];
    let (from, to) = (Some(written[650].occurred_at), Some(written[10].occurred_at));
    let few = |takes: &dyn Fn(usize) -> bool| {
        (0..written.len()).filter(|place| takes(*place)).map(|place| &written[place]).collect::<Vec<_>>()
    };
    let backwards = |mut events: Vec<_>| {
        events.reverse();
        events
    };
    let id = stream.as_ref().unwrap().id.as_str();
    // Neither order, nor limit, nor cursor count.
    let whole = Query { limit: 3, cursor: Some("x".into()), ..Query::default() };
    let cases = [
        ("recorded_at", whole, all, serde_json::json!({})),
        (
            "recorded_at",
            Query { actor: Some("bob".parse().unwrap()), fields: field.clone(), ..Query::default() },
            vec![],
            serde_json::json!({ "actor": "bob", "fields": [{ "path": ["even"], "value": true }] }),
        ),
        (
            "version",
            Query { aggregate: stream.clone(), fields: field, ..Query::default() },
            few(&|place| place % 7 == 3 && place % 2 == 0),
            serde_json::json!({
                "aggregate": { "category": "account", "id": id }, "fields": [{ "path": ["even"], "value": true }],
            }),
        ),
        (
            "occurred_at",
            Query { from, to, ..Query::default() },
            backwards(few(&|place| (11..=650).contains(&place))),
            serde_json::json!({ "from": "2023-10-18T20:13:20.000000Z", "to": "2023-11-14T12:13:20.000000Z" }),
        ),
    ];
    for (number, (order, query, expected, selection)) in cases.into_iter().enumerate() {
        let mut hashes = Vec::new();
        for (format, file) in FORMATS {
            let (folder, mut found) = (dir.path().join(format!("{number} {file}")), Vec::new());
            let done = export(&database, &query, format, &folder, |events| found.push(events)).await.unwrap();
            let lines = read(&folder, file);
            assert_eq!(lines.iter().map(|line| line.get("event_id").to_owned()).collect::<Vec<_>>(), ids(&expected));
            assert_eq!((found.is_sorted(), found.last()), (true, Some(&(expected.len() as u64))));
            let manifest = &done.manifest;
            assert_eq!((manifest.format, manifest.release.as_str()), (1, env!("CARGO_PKG_VERSION")));
            assert_eq!((manifest.events as usize, manifest.order.as_str()), (expected.len(), order));
            assert_eq!(manifest.selection, selection);
            let mut partitions = BTreeMap::new();
            for line in &lines {
                let offset: u64 = line.get("offset").parse().unwrap();
                let place = (line.get("topic").to_owned(), line.get("partition").parse::<u32>().unwrap());
                let (events, first, last) = partitions.entry(place).or_insert((0, offset, offset));
                (*events, *first, *last) = (*events + 1, offset.min(*first), offset.max(*last));
            }
            let told = manifest
                .partitions
                .iter()
                .map(|of| ((of.topic.to_string(), of.partition), (of.events, of.first, of.last)));
            assert_eq!(told.collect::<Vec<_>>(), partitions.into_iter().collect::<Vec<_>>());
            assert_eq!(check_export(&folder).await.unwrap(), done);
            hashes.push(manifest.events_sha256.clone());
        }
        assert_eq!(hashes[0], hashes[1]);
    }
}

/// Writes all hashes anew, as somebody would who wants a changed file to pass.
fn forge(folder: &Path, file: &str) {
    let bytes = fs::read(folder.join(file)).unwrap();
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').skip(usize::from(file.ends_with(".csv")));
    let lines: String = lines.map(|line| hex(&Sha256::digest(line)) + "\n").collect();
    fs::write(folder.join("lines.sha256"), lines).unwrap();
    let path = folder.join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (part, file) in [("file", file), ("lines", "lines.sha256")] {
        let bytes = fs::read(folder.join(file)).unwrap();
        manifest[part]["bytes"] = bytes.len().into();
        manifest[part]["sha256"] = hex(&Sha256::digest(bytes)).into();
    }
    fs::write(&path, serde_json::to_vec(&manifest).unwrap()).unwrap();
    forge_sums(folder, file);
}

fn forge_sums(folder: &Path, file: &str) {
    let sum = |name: &str| format!("{}  {name}\n", hex(&Sha256::digest(fs::read(folder.join(name)).unwrap())));
    fs::write(folder.join("SHA256SUMS"), [file, "lines.sha256", "manifest.json"].map(sum).concat()).unwrap();
}

/// Shows: whatever is changed in an export is found, and the first wrong line is named; also where hashes are changed with it.
pub async fn what_was_changed_in_an_export_is_found(url: &str) {
    let (database, mut events, dir) = (connect(url).await, Events::new(), tempfile::tempdir().unwrap());
    for number in 0..6 {
        let payload = Bytes::from(format!(r#"{{"amount":{number}}}"#));
        let event = events.event("a", "added", payload, |event| event.traceparent = Some("00-trace-01".into()));
        events.add_event(&event);
    }
    let _worker = trail(&events, &database).await;
    for (format, file) in FORMATS {
        let header = usize::from(format == ExportFormat::Csv);
        let original = dir.path().join(format!("original {file}"));
        exported(&database, &Query::default(), format, &original).await.unwrap();
        let bytes = fs::read(original.join(file)).unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let at = |place: usize| header + place; // counted from 0
        let swapped = |one: usize, other: usize| {
            let mut lines = lines.clone();
            lines.swap(at(one), at(other));
            lines.concat()
        };
        let without = |place: usize| {
            let mut lines = lines.clone();
            lines.remove(at(place));
            lines.concat()
        };
        let with = |place: usize, from: &str, to: &str| {
            let mut lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert!(lines[at(place)].contains(from), "{}", lines[at(place)]);
            lines[at(place)] = lines[at(place)].replacen(from, to, 1);
            lines.concat()
        };
        let amount =
            |amount: u32| if header == 1 { format!("\"\"amount\"\":{amount}") } else { format!("\"amount\":{amount}") };
        let check = async |changed: &[(&str, Option<String>)], forged: bool| {
            let folder = tempfile::tempdir().unwrap();
            for name in [file, "lines.sha256", "manifest.json", "SHA256SUMS"] {
                fs::copy(original.join(name), folder.path().join(name)).unwrap();
            }
            for (name, text) in changed {
                match text {
                    Some(text) => fs::write(folder.path().join(name), text).unwrap(),
                    None => fs::remove_file(folder.path().join(name)).unwrap(),
                }
            }
            if forged {
                forge(folder.path(), file);
            }
            check_export(folder.path()).await
        };
        let line = |place: usize| format!("line {} of ", at(place) + 1);
        let mut cases = vec![
            (with(3, &amount(3), &amount(300)), line(3)),
            (with(2, "00-trace-01", "00-trace-02"), line(2)), // no event hash covers that
            (swapped(1, 4), line(1)),
            (without(2), line(2)),
            (without(5), line(5)),
            (text.clone() + lines[at(0)], line(6)),
            (text.trim_end().to_owned(), line(5)),
            (text[..text.len() - 30].to_owned(), line(5)),
            (String::new(), "line 1 of ".into()),
        ];
        if format == ExportFormat::Csv {
            cases.push((text.replacen("context", "contexts", 1), "line 1 of ".into()));
            cases.push((with(4, "\"", ""), line(4)));
        }
        for (changed, named) in cases {
            let error = check(&[(file, Some(changed))], false).await.unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error:?}");
            assert!(error.to_string().starts_with(&named), "{named}: {error}");
        }
        // Any byte at all, here and there.
        for place in (0..bytes.len()).step_by(97) {
            let mut bytes = bytes.clone();
            bytes[place] ^= 1;
            let folder = tempfile::tempdir().unwrap();
            for name in ["lines.sha256", "manifest.json", "SHA256SUMS"] {
                fs::copy(original.join(name), folder.path().join(name)).unwrap();
            }
            fs::write(folder.path().join(file), &bytes).unwrap();
            let number = 1 + text[..place].matches('\n').count();
            let error = check_export(folder.path()).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("line {number} of ")), "byte {place}: {error}");
        }
        // With all hashes of files and lines changed too.
        for (changed, reason) in [
            (with(3, &amount(3), &amount(300)), format!("{}{}/{file} is not what", line(3), "")),
            (swapped(1, 4), "its events are not those of the manifest".to_owned()),
            (without(2), "its events are not those of the manifest".to_owned()),
            (with(2, "bank.account.events", "bank.account.other"), "its events are not those of the manifest".into()),
        ] {
            let error = check(&[(file, Some(changed))], true).await.unwrap_err().to_string();
            let told = reason.split('/').next().unwrap();
            assert!(error.contains(told), "{told}: {error}");
        }
        let manifest = fs::read_to_string(original.join("manifest.json")).unwrap();
        let hashes = fs::read_to_string(original.join("lines.sha256")).unwrap();
        for (name, text, reason) in [
            (
                "manifest.json",
                manifest.replace("\"events\": 6", "\"events\": 7"),
                "SHA256SUMS is not what was exported",
            ),
            (
                "manifest.json",
                manifest.replace("\"events\": 6", "\"events\": x"),
                "manifest.json is not what was exported",
            ),
            ("manifest.json", manifest.replace(file, "../events"), "no export has its events in"),
            (
                "manifest.json",
                manifest.replace("\"format\": 1", "\"format\": 2"),
                "has format 2, and this release reads 1",
            ),
            ("lines.sha256", hashes.replacen('a', "b", 1), "lines.sha256 is not what was exported"),
            ("SHA256SUMS", String::new(), "SHA256SUMS is not what was exported"),
        ] {
            let error = check(&[(name, Some(text))], false).await.unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        for (name, reason) in [
            (file, "reading "),
            ("lines.sha256", "reading "),
            ("SHA256SUMS", "reading "),
            ("manifest.json", "holds no export, or one that was never finished"),
        ] {
            let error = check(&[(name, None)], false).await.unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(name), "{error}");
        }
        // A manifest that was made for other files, with sums that go with it.
        let told: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        for (part, name) in [("file", file), ("lines", "lines.sha256")] {
            for member in ["bytes", "sha256"] {
                let mut forged = told.clone();
                forged[part][member] = if member == "bytes" { 5.into() } else { "ab".repeat(32).into() };
                let forged_text = forged.to_string();
                let sum = |part: &str| forged[part]["sha256"].as_str().unwrap().to_owned();
                let sums = [
                    format!("{}  {file}\n", sum("file")),
                    format!("{}  lines.sha256\n", sum("lines")),
                    format!("{}  manifest.json\n", hex(&Sha256::digest(&forged_text))),
                ];
                let changed = [("manifest.json", Some(forged_text)), ("SHA256SUMS", Some(sums.concat()))];
                let error = check(&changed, false).await.unwrap_err().to_string();
                let reason = format!("{name} is not what was exported: it has not the size and the hash");
                assert!(error.contains(&reason), "{reason}: {error}");
            }
        }
        check(&[], true).await.unwrap();
        // Nor is a file without line ends read into memory as a whole.
        let endless = tempfile::tempdir().unwrap();
        for name in ["lines.sha256", "manifest.json", "SHA256SUMS"] {
            fs::copy(original.join(name), endless.path().join(name)).unwrap();
        }
        fs::write(endless.path().join(file), if header == 1 { lines[0] } else { "" }).unwrap();
        let changed = fs::OpenOptions::new().write(true).open(endless.path().join(file)).unwrap();
        changed.set_len(100 << 20).unwrap();
        let error = check_export(endless.path()).await.unwrap_err().to_string();
        assert!(error.starts_with(&line(0)) && error.ends_with("it is longer than any line of an export"), "{error}");
    }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Shows: an export that is broken off, or fails on its disk, its database or what that holds, leaves nothing behind and says why; and one
/// that is there stays as it is.
pub async fn an_export_that_does_not_end_is_none(url: &str) {
    let (database, dir) = (connect(url).await, tempfile::tempdir().unwrap());
    let folder = dir.path().join("export");
    let query = Query::default();
    let no_trail = exported(&database, &query, ExportFormat::Csv, &folder).await.unwrap_err();
    assert!(matches!(no_trail, Error::Sql { .. }), "{no_trail:?}");
    let (written, worker) = many(&database).await;
    let impossible = Query { from: Some(written[0].occurred_at), to: Some(written[0].occurred_at), ..Query::default() };
    let error = exported(&database, &impossible, ExportFormat::Csv, &folder).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    assert!(!folder.exists(), "no folder is made for what can't be asked");

    for (format, file) in FORMATS {
        // Dropped in the midst.
        let (midst, reached) = tokio::sync::oneshot::channel();
        let mut midst = Some(midst);
        let progress = |events| {
            if events > 250
                && let Some(midst) = midst.take()
            {
                midst.send(()).unwrap();
            }
        };
        tokio::select! {
            biased;
            _ = reached => {}
            _ = export(&database, &query, format, &folder, progress) => panic!("it was to be dropped"),
        }
        eventually("what was written is removed", || names(&folder).is_empty()).await;

        // Without its database, in the midst.
        let rename = async |from: &str, to: &str| {
            let mut tx = database.begin().await.unwrap();
            tx.execute(&format!("ALTER TABLE {from} RENAME TO {to}"), &[]).await.unwrap();
            tx.commit().await.unwrap();
        };
        let progress = |events| {
            if events == 250 {
                let runtime = tokio::runtime::Handle::current();
                tokio::task::block_in_place(|| runtime.block_on(rename("bank_audit", "gone")));
            }
        };
        let error = export(&database, &query, format, &folder, progress).await.unwrap_err();
        assert!(matches!(error, Error::Sql { .. }), "{error:?}");
        assert_eq!(names(&folder), [""; 0]);
        rename("gone", "bank_audit").await;

        // A full disk.
        for full in [file, "lines.sha256", "manifest.json", "SHA256SUMS"] {
            std::os::unix::fs::symlink("/dev/full", folder.join(format!("{full}.unfinished"))).unwrap();
            let error = exported(&database, &query, format, &folder).await.unwrap_err();
            assert!(matches!(error, Error::File { .. }), "{error:?}");
            let told = chain(&error);
            assert!(told.contains(&format!("writing {}", folder.join(full).display())), "{told}");
            assert!(told.contains("No space left on device"), "{told}");
            assert_eq!(names(&folder), [""; 0]);
        }

        // Two at once.
        let held = fs::File::open(&folder).unwrap();
        held.lock().unwrap();
        let error = exported(&database, &query, format, &folder).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains("is being exported to"), "{error:?}");
    }
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [file.clone(), file.join("below")] {
        let error = exported(&database, &query, ExportFormat::Csv, &path).await.unwrap_err();
        assert!(matches!(error, Error::File { .. }), "{error:?}");
        assert!(
            chain(&error).starts_with(&format!("making the folder {} failed: ", path.display())),
            "{}",
            chain(&error)
        );
    }

    // What a killed process leaves is no export, and written over by the next.
    for name in ["events.csv.unfinished", "manifest.json.unfinished"] {
        fs::write(folder.join(name), "rubbish").unwrap();
    }
    let error = check_export(&folder).await.unwrap_err();
    assert!(error.to_string().contains("or one that was never finished"), "{error}");
    let done = exported(&database, &query, ExportFormat::Csv, &folder).await.unwrap();
    assert_eq!(names(&folder), ["SHA256SUMS", "events.csv", "lines.sha256", "manifest.json"]);
    for left in ["SHA256SUMS", "events.csv", "lines.sha256", "manifest.json"] {
        let error = exported(&database, &query, ExportFormat::JsonLines, &folder).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        let told = error.to_string();
        assert!(told.contains(left) && told.contains("choose another folder, or remove that"), "{told}");
        assert_eq!(check_export(&folder).await.is_ok(), left == "SHA256SUMS");
        fs::remove_file(folder.join(left)).unwrap();
    }

    // A trail that was changed.
    worker.stop().await.unwrap();
    let mut tx = database.begin().await.unwrap();
    let change = r#"UPDATE bank_audit SET payload = '{"amount":-1}' WHERE aggregate_id = 'a3' AND version = 90"#;
    assert_eq!(tx.execute(change, &[]).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let error = exported(&database, &query, ExportFormat::JsonLines, &folder).await.unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error:?}");
    assert!(
        error.to_string().starts_with("version 90 of account-a3 in the audit trail is not what was recorded"),
        "{error}"
    );
    assert_eq!(names(&folder), [""; 0]);
    let again = Query { aggregate: Some(written[0].stream.clone()), ..Query::default() };
    let again = exported(&database, &again, ExportFormat::JsonLines, &folder).await.unwrap();
    assert_eq!((again.manifest.events, done.manifest.events), (100, 700));
}

/// Shows: at no moment is there a manifest without all that it tells of.
pub async fn a_manifest_comes_last(url: &str) {
    let (database, mut events, dir) = (connect(url).await, Events::new(), tempfile::tempdir().unwrap());
    events.add("a", &[1, 2]);
    let _worker = trail(&events, &database).await;
    // The system notes the order in which files get their names.
    let notes = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&notes, dir.path(), inotify::WatchFlags::MOVED_TO).unwrap();
    exported(&database, &Query::default(), ExportFormat::JsonLines, dir.path()).await.unwrap();
    let mut room = [MaybeUninit::uninit(); 4096];
    let (mut notes, mut named) = (inotify::Reader::new(notes, &mut room), Vec::new());
    while let Ok(note) = notes.next() {
        named.push(note.file_name().unwrap().to_str().unwrap().to_owned());
    }
    assert_eq!(named, ["events.jsonl", "lines.sha256", "SHA256SUMS", "manifest.json"]);
}
