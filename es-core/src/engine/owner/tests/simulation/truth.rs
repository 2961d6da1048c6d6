//! What is in the log, read without the code under test: its own reading of the records, and its own validity rule.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::Failure;
use super::domain::newer::Became;
use super::*;

/// A command that counts: the events that it gave, or its answer without any.
#[derive(Debug, Clone)]
pub(super) struct Decision {
    pub(super) command_id: String,
    /// By which one payload is told from another.
    pub(super) hash: String,
    /// Its first record and its last: before that one nothing shows.
    pub(super) first: u64,
    pub(super) place: u64,
    pub(super) recorded_at_ms: i64,
    /// The version that it was decided on.
    pub(super) at: u64,
    pub(super) outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Events(Vec<Became>),
    /// An entry of an answers record.
    Answered(Answered),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answered {
    Refused { level: u64 },
    NoOp,
    Conflict,
    Failed(Failure),
}

/// What counts of one aggregate, in the order of the log.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) decisions: Vec<Decision>,
    /// For each version the first record and the last of its command, and the level after it.
    pub(super) versions: Vec<(u64, u64, u64)>,
    head: [u8; 32],
}

pub(super) type Streams = BTreeMap<String, Stream>;

/// The whole log.
#[derive(Debug, Default)]
pub(super) struct Truth {
    pub(super) streams: Streams,
    /// The newest time of a record that counts, of all partitions.
    pub(super) last_ms: i64,
}

impl Truth {
    pub(super) fn of(log: &MemoryLog) -> Result<Self, String> {
        let mut truth = Self::default();
        for partition in 0..PARTITIONS {
            truth.read(partition, &log.partition(EVENTS, partition).records())?;
        }
        Ok(truth)
    }

    /// The validity rule: the claim with the highest number so far; its writer's records, each sequence once and upwards,
    /// none earlier than the claim's offset and its sequence allow; a command's events only all together.
    fn read(&mut self, partition: u32, records: &[StoredRecord]) -> Result<(), String> {
        let (mut epoch, mut claim_offset, mut last_sequence) = ((0, 0), 0, 0);
        let mut held: Vec<(u64, i64, Header, &Record)> = Vec::new();
        let mut last_ms = i64::MIN;
        for stored in records {
            let (offset, record) = (stored.offset, &stored.record);
            let Some(header) = Header::of(record) else { continue };
            if header.kind == CLAIM {
                if header.epoch.0 > epoch.0 {
                    (epoch, claim_offset, last_sequence) = (header.epoch, offset, 0);
                    held.clear();
                }
                continue;
            }
            let in_order = header.sequence > last_sequence && offset >= claim_offset + header.sequence;
            if header.epoch != epoch || !in_order {
                continue;
            }
            last_sequence = header.sequence;
            let now_ms = record.timestamp_ms;
            match header.kind {
                ANSWERS => {
                    self.answers(offset, record).map_err(|why| format!("answers at {partition}/{offset}: {why}"))?;
                }
                EVENT => {
                    if header.index == 0 {
                        held.clear();
                    }
                    if held.len() as u64 != header.index {
                        held.clear();
                        continue;
                    }
                    let whole = header.index + 1 == header.count;
                    held.push((offset, now_ms, header, record));
                    if !whole {
                        continue;
                    }
                    let events = std::mem::take(&mut held);
                    self.events(partition, events).map_err(|why| format!("events to {partition}/{offset}: {why}"))?;
                }
                kind => return Err(format!("a record of kind {kind} at {partition}/{offset}")),
            }
            if now_ms < last_ms {
                return Err(format!("time falls at {partition}/{offset}, from {last_ms} to {now_ms}"));
            }
            last_ms = now_ms;
            self.last_ms = self.last_ms.max(last_ms);
        }
        Ok(())
    }

    fn events(&mut self, partition: u32, events: Vec<(u64, i64, Header, &Record)>) -> Result<(), String> {
        let ((first, ..), (place, recorded_at_ms, header, last)) =
            (events.first().ok_or("none")?, events.last().ok_or("none")?);
        let text = |record: &Record, name: &str| {
            record.header(name).map(|value| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
        };
        let id = text(last, "ce_subject");
        if partition_of(&crate::AggregateKey::new(&id).map_err(|error| error.to_string())?, PARTITIONS) != partition {
            return Err(format!("{id} does not live here"));
        }
        let stream = self.streams.entry(id.clone()).or_default();
        let mut became = Vec::new();
        for (_, _, event, record) in &events {
            let due = stream.versions.len() as u64 + 1;
            if event.version != due {
                return Err(format!("{id} has version {} where {due} is due", event.version));
            }
            if text(record, "ce_subject") != id || event.command_id != header.command_id {
                return Err(format!("events of {id} and another command are together"));
            }
            let key = format!("{id}/{due}@{}.{:016x}", event.epoch.0, event.epoch.1);
            if record.key != key.as_bytes() {
                return Err(format!("its key is {:?}, not {key}", record.key));
            }
            if event.previous_hash != stream.head || event.hash != event.compute_hash(&id, record) {
                return Err(format!("version {due} of {id} does not continue the chain of hashes"));
            }
            stream.head = event.hash;
            let event = event_of(&text(record, "ce_type"), record.value.as_deref().unwrap_or_default())?;
            let level = level_after(stream.level(), &event).ok_or_else(|| format!("{event:?} can't be applied"))?;
            stream.versions.push((*first, *place, level));
            became.push(event);
        }
        stream.decisions.push(Decision {
            command_id: header.command_id.clone(),
            hash: header.command_hash.clone(),
            first: *first,
            place: *place,
            recorded_at_ms: *recorded_at_ms,
            at: stream.versions.len() as u64 - became.len() as u64,
            outcome: Outcome::Events(became),
        });
        Ok(())
    }

    fn answers(&mut self, place: u64, record: &Record) -> Result<(), String> {
        const ABOUT: [&str; 8] =
            ["aggregate", "command", "hash", "version", "type", "actor", "correlation", "causation"];
        let value: Value =
            serde_json::from_slice(record.value.as_deref().unwrap_or_default()).map_err(|error| error.to_string())?;
        for entry in value["answers"].as_array().ok_or("it has no answers")? {
            let text =
                |name: &str| entry[name].as_str().map(str::to_owned).ok_or_else(|| format!("no {name}: {entry}"));
            let (name, answer) = entry
                .as_object()
                .and_then(|fields| fields.iter().find(|(name, _)| !ABOUT.contains(&name.as_str())))
                .ok_or_else(|| format!("no answer: {entry}"))?;
            let answer = match (name.as_str(), answer) {
                ("no_op", _) => Answered::NoOp,
                ("conflict", _) => Answered::Conflict,
                ("refused", Value::String(refused)) => {
                    let refused: Value = serde_json::from_str(refused).map_err(|error| error.to_string())?;
                    let level = refused["TooLittle"]["level"].as_u64().ok_or_else(|| refused.to_string())?;
                    Answered::Refused { level }
                }
                ("panicked", _) => Answered::Failed(Failure::Panicked),
                ("invalid", why) if why["too_large"].is_object() => Answered::Failed(Failure::TooLarge),
                ("invalid", why) if why["too_many_events"].is_object() => Answered::Failed(Failure::TooMany),
                _ => return Err(format!("an answer of another kind: {entry}")),
            };
            let version = entry["version"].as_u64().ok_or("no version")?;
            self.streams.entry(text("aggregate")?).or_default().decisions.push(Decision {
                command_id: text("command")?,
                hash: text("hash")?,
                first: place,
                place,
                recorded_at_ms: record.timestamp_ms,
                at: version,
                outcome: Outcome::Answered(answer),
            });
        }
        Ok(())
    }
}

impl Stream {
    fn level(&self) -> u64 {
        self.versions.last().map_or(0, |(_, _, level)| *level)
    }

    pub(super) fn level_at(&self, version: u64) -> u64 {
        if version == 0 { 0 } else { self.versions.get(version as usize - 1).map_or(0, |(_, _, level)| *level) }
    }

    /// The versions that showed at some time between two ends of the log: never one inside a command.
    pub(super) fn between(&self, from: u64, to: u64) -> Vec<u64> {
        let version_at = |end: u64| self.versions.partition_point(|(_, complete, _)| *complete < end) as u64;
        let whole = |version: &u64| match self.versions.get(*version as usize) {
            Some((first, ..)) => *version == 0 || self.versions[*version as usize - 1].1 < *first,
            None => true,
        };
        (version_at(from)..=version_at(to)).filter(whole).collect()
    }
}

/// The level after an event; none where it can't be applied.
pub(super) fn level_after(level: u64, event: &Became) -> Option<u64> {
    match event {
        Became::Poured { n } | Became::Labelled { n, .. } | Became::Marked { n } => Some(level + n),
        Became::Drained { n } => level.checked_sub(*n),
        Became::Filled { n } => Some(level + n).filter(|level| *level <= domain::BRIM),
        Became::Described { .. } => Some(level),
    }
}

fn event_of(ce_type: &str, payload: &[u8]) -> Result<Became, String> {
    let fields: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let number = |name: &str| fields[name].as_u64().ok_or_else(|| format!("{ce_type} without {name}: {fields}"));
    Ok(match ce_type.strip_prefix("test.tank.").unwrap_or_default() {
        "poured" => Became::Poured { n: number("n")? },
        "drained" => Became::Drained { n: number("n")? },
        "filled" => Became::Filled { n: number("n")? },
        "labelled" => Became::Labelled { n: number("n")?, mark: fields["mark"].as_u64().unwrap_or(0) },
        "marked" => Became::Marked { n: number("n")? },
        "described" => Became::Described { text: fields["text"].as_str().unwrap_or_default().into() },
        other => return Err(format!("an event of type {other:?}")),
    })
}

const EVENT: u64 = 1;
const CLAIM: u64 = 2;
const ANSWERS: u64 = 3;

/// The `es` header, as `docs/formats.md` describes it.
#[derive(Debug, Default)]
struct Header {
    kind: u64,
    /// Number and writer.
    epoch: (u64, u64),
    sequence: u64,
    index: u64,
    count: u64,
    version: u64,
    schema_version: u64,
    command_id: String,
    command_hash: String,
    correlation_id: String,
    causation_id: String,
    actor: String,
    previous_hash: [u8; 32],
    hash: [u8; 32],
}

impl Header {
    /// None for what is not one of ours.
    fn of(record: &Record) -> Option<Self> {
        record.value.as_ref()?;
        let mut bytes = &record.header("es")?[..];
        let mut header = Self::default();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes)?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            match (tag >> 3, tag & 7) {
                (field, 0) => {
                    let value = varint(&mut bytes)?;
                    match field {
                        2 => header.kind = value,
                        3 => header.epoch.0 = value,
                        5 => header.sequence = value,
                        6 => header.index = value,
                        7 => header.count = value,
                        8 => header.version = value,
                        9 => header.schema_version = value,
                        _ => {}
                    }
                }
                (field, 1) => {
                    let (value, rest) = bytes.split_first_chunk::<8>()?;
                    bytes = rest;
                    if field == 4 {
                        header.epoch.1 = u64::from_le_bytes(*value);
                    }
                }
                (field, 2) => {
                    let length = usize::try_from(varint(&mut bytes)?).ok()?;
                    let (value, rest) = bytes.split_at_checked(length)?;
                    bytes = rest;
                    match field {
                        10 => header.command_id = text(value),
                        11 => header.command_hash = value.iter().map(|byte| format!("{byte:02x}")).collect(),
                        12 => header.correlation_id = text(value),
                        13 => header.causation_id = text(value),
                        14 => header.actor = text(value),
                        15 => header.previous_hash = value.try_into().ok()?,
                        16 => header.hash = value.try_into().ok()?,
                        _ => {}
                    }
                }
                _ => return None,
            }
        }
        Some(header)
    }

    /// The hash of an event, over what `docs/formats.md` lists.
    fn compute_hash(&self, id: &str, record: &Record) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hasher.update((bytes.len() as u32).to_be_bytes());
            hasher.update(bytes);
        };
        let text = |name: &str| record.header(name).map(|value| String::from_utf8_lossy(value)).unwrap_or_default();
        let event_type = text("ce_type");
        let occurred = chrono::DateTime::parse_from_rfc3339(&text("ce_time")).map_or(0, |time| time.timestamp_micros());
        field(&1u32.to_be_bytes());
        field(b"test.tank");
        field(id.as_bytes());
        field(&self.version.to_be_bytes());
        field(event_type.strip_prefix("test.tank.").unwrap_or_default().as_bytes());
        field(&(self.schema_version as u32).to_be_bytes());
        field(uuid::Uuid::parse_str(&text("ce_id")).unwrap_or_default().as_bytes());
        field(&record.timestamp_ms.to_be_bytes());
        field(&occurred.to_be_bytes());
        for text in [&self.command_id, &self.correlation_id, &self.causation_id, &self.actor] {
            field(text.as_bytes());
        }
        field(&Sha256::digest(record.value.as_deref().unwrap_or_default()));
        field(&self.previous_hash);
        hasher.finalize().into()
    }
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
