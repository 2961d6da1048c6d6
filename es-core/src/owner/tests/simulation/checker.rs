//! Judges a history by the log at its end. What counts in the log is decided here anew, in plain words, and not by the
//! code under test.
//!
//! A call knows where the log ended when it was made and when its answer came. What counts of a log's beginning is the
//! same for ever, so these two places say between which versions the command was decided.

use std::collections::BTreeMap;

use super::client::{Call, Told};
use super::projection::Rows;
use super::*;
use crate::envelope::Envelope;
use crate::ids::Epoch;
use crate::record::{Answer, AnswerEntry, Decoded, Stamp, decode};

/// An event that counts.
#[derive(Debug)]
struct Fact {
    version: u64,
    command_id: String,
    event: Done,
    /// Its own place, and that of its command's last event: before that it does not show.
    offset: u64,
    complete_at: u64,
}

/// What counts of one aggregate.
#[derive(Debug, Default)]
struct Stream {
    facts: Vec<Fact>,
    /// What was answered without an event, with the place of the answers record.
    answers: BTreeMap<String, Vec<(u64, AnswerEntry)>>,
    last: Option<Envelope>,
}

type Streams = BTreeMap<String, Stream>;

pub(super) fn check(log: &MemoryLog, history: &[Call], rows: &Rows) -> Result<(), String> {
    let mut streams = Streams::new();
    for partition in 0..PARTITIONS {
        read(&log.partition(TOPIC, partition), &mut streams)?;
    }
    check_rows(&streams, rows)?;
    let mut commands: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    for call in history {
        commands.entry((&call.id, &call.command_id)).or_default().push(call);
    }
    for (id, stream) in &streams {
        let stranger = stream.facts.iter().find(|fact| !commands.contains_key(&(id.as_str(), &fact.command_id)));
        if let Some(fact) = stranger {
            return Err(format!("{id}: nobody sent what became {fact:?}"));
        }
    }
    let nothing = Stream::default();
    if let Some(call) = history.iter().find(|call| matches!(call.told, Told::Wrong(_))) {
        return Err(format!("nobody should hear that: {call}"));
    }
    for ((id, command_id), calls) in &commands {
        let stream = streams.get(*id).unwrap_or(&nothing);
        check_command(stream, command_id, calls).map_err(|why| format!("{id} {command_id}: {why}"))?;
    }
    Ok(())
}

/// The validity rule: the claim with the highest number so far; its writer's records, each sequence once and upwards,
/// none earlier than the claim's offset and its sequence allow; a command's events only all together.
fn read(partition: &MemoryPartition, streams: &mut Streams) -> Result<(), String> {
    let (mut epoch, mut claim_offset, mut last_sequence, mut last_ms) = (Epoch::default(), 0, 0, i64::MIN);
    let mut held: Vec<(u64, Envelope)> = Vec::new();
    for stored in partition.records() {
        let (offset, now_ms) = (stored.offset, stored.record.timestamp_ms);
        let counts = |stamp: Stamp, last_sequence: u64| {
            stamp.epoch == epoch && stamp.sequence > last_sequence && offset >= claim_offset + stamp.sequence
        };
        match decode(&stored.record) {
            Decoded::Claim(claim) if claim.epoch.number > epoch.number => {
                (epoch, claim_offset, last_sequence) = (claim.epoch, offset, 0);
                held.clear();
            }
            Decoded::Answers(stamp, answers) if counts(stamp, last_sequence) => {
                last_sequence = stamp.sequence;
                for entry in answers.answers {
                    let stream = streams.entry(entry.aggregate.to_string()).or_default();
                    stream.answers.entry(entry.command.to_string()).or_default().push((offset, entry));
                }
            }
            Decoded::Event(stamp, envelope) if counts(stamp, last_sequence) => {
                last_sequence = stamp.sequence;
                if stamp.index == 0 {
                    held.clear();
                }
                if held.len() != stamp.index as usize {
                    held.clear();
                    continue;
                }
                held.push((offset, *envelope));
                if stamp.index + 1 == stamp.count {
                    if now_ms < last_ms {
                        return Err(format!("time falls at offset {offset}, from {last_ms} to {now_ms}"));
                    }
                    last_ms = now_ms;
                    for (place, envelope) in held.drain(..) {
                        streams.entry(envelope.stream.id.to_string()).or_default().add(place, offset, envelope)?;
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

impl Stream {
    fn add(&mut self, offset: u64, complete_at: u64, envelope: Envelope) -> Result<(), String> {
        let (id, version, due) = (&envelope.stream.id, envelope.version.get(), self.facts.len() as u64 + 1);
        if version != due {
            return Err(format!("{id} has version {version} where {due} is due, at offset {offset}"));
        }
        let before = self.last.as_ref().map_or_else(Default::default, |last| last.hash);
        if envelope.previous_hash != before || envelope.hash != envelope.compute_hash() {
            return Err(format!("version {version} of {id} does not continue the chain of hashes"));
        }
        let event = envelope.event::<Counter>().map_err(|error| error.to_string())?;
        let command_id = envelope.command_id.to_string();
        self.facts.push(Fact { version, command_id, event, offset, complete_at });
        self.last = Some(envelope);
        Ok(())
    }

    /// The version that shows where the log ends here.
    fn version_at(&self, end: u64) -> u64 {
        self.facts.partition_point(|fact| fact.complete_at < end) as u64
    }

    /// The versions that showed at some time between two ends of the log: never one inside a command.
    fn between(&self, from: u64, to: u64) -> Vec<u64> {
        let (low, high) = (self.version_at(from), self.version_at(to));
        let whole = |version: &u64| match self.facts.get(*version as usize) {
            Some(next) => *version == 0 || self.facts[*version as usize - 1].complete_at < next.offset,
            None => true,
        };
        (low..=high).filter(whole).collect()
    }

    fn sum_at(&self, version: u64) -> u64 {
        self.facts[..version as usize].iter().fold(0, |sum, fact| match fact.event {
            Done::Added { n } => sum + n,
            Done::Taken { n } => sum - n,
            _ => sum,
        })
    }
}

fn check_rows(streams: &Streams, rows: &Rows) -> Result<(), String> {
    let row = |stream: &Stream| (stream.facts.len() as u64, stream.sum_at(stream.facts.len() as u64));
    let folded: Rows = streams
        .iter()
        .filter(|(_, stream)| !stream.facts.is_empty())
        .map(|(id, stream)| (id.clone(), row(stream)))
        .collect();
    if *rows == folded { Ok(()) } else { Err(format!("the projection has {rows:?}, the log {folded:?}")) }
}

/// One command, in all its sendings, with the same or another payload.
fn check_command(stream: &Stream, command_id: &str, calls: &[&Call]) -> Result<(), String> {
    let events: Vec<&Fact> = stream.facts.iter().filter(|fact| fact.command_id == command_id).collect();
    let answers = stream.answers.get(command_id).map_or(&[][..], Vec::as_slice);
    // It needs no proof: the sender did use the id twice, even if the other use comes to nothing.
    let reused = calls.iter().find(|call| call.told == Told::Reused);
    if let Some(call) = reused.filter(|call| calls.iter().all(|other| other.command == call.command)) {
        return Err(format!("there was no other payload: {call}"));
    }
    let answered = |call: &&&Call| call.told.is_definite() && call.told != Told::Reused;
    let (command, place) = match (events.as_slice(), answers) {
        ([], []) => {
            let told = calls.iter().find(answered);
            return told.map_or(Ok(()), |call| Err(format!("the log knows nothing of it: {call}")));
        }
        ([.., last], []) => {
            // With two payloads under one id, the log says which was the first.
            let sent = calls.iter().find(|call| gives(&call.command, &events));
            let sent = sent.ok_or_else(|| format!("{} gave {events:?}", calls[0]))?;
            (&sent.command, last.offset)
        }
        ([], [(offset, entry)]) => {
            let sent = calls.iter().find(|call| hash(&call.command) == entry.hash);
            let sent = sent.ok_or_else(|| format!("nobody sent what was answered by {entry:?}"))?;
            (&sent.command, *offset)
        }
        _ => return Err(format!("it took effect twice: {events:?}, {answers:?}")),
    };
    let (own, other): (Vec<&Call>, Vec<&Call>) = calls.iter().partition(|call| call.command == *command);
    if let Some(call) = other.iter().find(answered) {
        return Err(format!("its id belonged to {command:?}: {call}"));
    }
    // Who was told that nothing was done did not do it.
    let done: Vec<&&Call> = own.iter().filter(|call| call.told != Told::NotDone && call.from <= place).collect();
    let Some(from) = done.iter().map(|call| call.from).min() else {
        let told: Vec<String> = own.iter().map(ToString::to_string).collect();
        return Err(format!("it is in the log at offset {place}, and no call can have done it: {told:?}"));
    };
    let first = events.first().map_or(place, |first| first.offset);
    if first < from {
        return Err(format!("it is in the log at offset {first}, before it was sent"));
    }
    for call in own.iter().filter(answered) {
        if place >= call.to {
            return Err(format!("answered before it was in the log at offset {place}: {call}"));
        }
        check_answer(stream, &events, answers, from, call).map_err(|why| format!("{why}: {call}"))?;
    }
    Ok(())
}

/// Whether what was told is what the log says, and right for a version between the first call and this answer.
fn check_answer(
    stream: &Stream,
    events: &[&Fact],
    answers: &[(u64, AnswerEntry)],
    from: u64,
    call: &Call,
) -> Result<(), String> {
    let expected = |version: u64| call.expected.holds(crate::Version::new(version));
    let (Some(version), recorded) = (
        match answers {
            [] => events.last().map(|last| last.version),
            [(_, entry), ..] => Some(entry.version.get()),
        },
        answers.first(),
    ) else {
        return Err("nothing in the log".into());
    };
    let between = stream.between(from, call.to);
    let right = match (&call.told, recorded.map(|(offset, entry)| (offset, &entry.answer))) {
        (Told::Accepted { version: at, events: count, offset }, None) => {
            let before = version - events.len() as u64;
            let enough = !matches!(call.command, Do::Take { n } if n > stream.sum_at(before));
            let place = events.last().map(|last| last.offset);
            *at == version && *count as usize == events.len() && Some(*offset) == place && expected(before) && enough
        }
        (Told::Accepted { version: at, events: 0, offset }, Some((place, Answer::NoOp(())))) => {
            *at == version
                && offset == place
                && call.command == Do::Nothing
                && expected(version)
                && between.contains(&version)
        }
        (Told::TooFew { sum }, Some((_, Answer::Refused(_)))) => {
            let short = matches!(call.command, Do::Take { n } if n > *sum);
            short && between.contains(&version) && stream.sum_at(version) == *sum && expected(version)
        }
        (Told::Conflict { actual }, Some((_, Answer::Conflict(_)))) => {
            *actual == version && between.contains(&version) && !expected(version)
        }
        _ => false,
    };
    if right { Ok(()) } else { Err(format!("not what the log says, at version {version} of {between:?}")) }
}

fn gives(command: &Do, events: &[&Fact]) -> bool {
    match command {
        Do::Add { n, times } => {
            events.len() as u64 == *times && events.iter().all(|fact| fact.event == Done::Added { n: *n })
        }
        Do::Take { n } => events.len() == 1 && events[0].event == Done::Taken { n: *n },
        _ => false,
    }
}

fn hash(command: &Do) -> crate::CommandHash {
    let (kind, payload) = crate::codec::encode_command::<crate::Json, Do>(command).expect("it can be encoded");
    crate::CommandHash::of(kind.name, &payload)
}
