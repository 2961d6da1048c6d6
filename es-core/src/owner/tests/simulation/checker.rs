//! Judges a history by the log at its end. What counts in the log is decided here anew, in plain words, and not by the
//! code under test.

use std::collections::BTreeMap;

use super::client::{Call, Told};
use super::projection::Rows;
use super::*;
use crate::ids::Epoch;
use crate::record::{Decoded, Stamp, decode};

/// An event that counts.
#[derive(Debug)]
struct Fact {
    version: u64,
    command_id: String,
    event: Done,
}

/// The streams of all partitions.
type Streams = BTreeMap<String, Vec<Fact>>;

pub(super) fn check(log: &MemoryLog, history: &[Call], rows: &Rows) -> Result<(), String> {
    let mut streams = Streams::new();
    for partition in 0..PARTITIONS {
        read(&log.partition(TOPIC, partition), &mut streams);
    }
    for (id, facts) in &streams {
        check_stream(id, facts)?;
    }
    check_rows(&streams, rows)?;
    let mut commands: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    for call in history {
        commands.entry((&call.id, &call.command_id)).or_default().push(call);
    }
    let nothing = Vec::new();
    for ((id, command_id), calls) in &commands {
        let facts = streams.get(*id).unwrap_or(&nothing);
        check_command(facts, command_id, calls, history).map_err(|why| format!("{id} {command_id}: {why}"))?;
    }
    check_order(history)
}

/// The validity rule: the claim with the highest number so far; its writer's records, each sequence once and upwards,
/// none earlier than the claim's offset and its sequence allow; a command's events only all together.
fn read(partition: &MemoryPartition, streams: &mut Streams) {
    let (mut epoch, mut claim_offset, mut last_sequence) = (Epoch::default(), 0, 0);
    let mut held: Vec<(Stamp, Fact, String)> = Vec::new();
    for stored in partition.records() {
        let counts = |stamp: Stamp, last_sequence: u64| {
            stamp.epoch == epoch && stamp.sequence > last_sequence && stored.offset >= claim_offset + stamp.sequence
        };
        match decode(&stored.record) {
            Decoded::Claim(claim) if claim.epoch.number > epoch.number => {
                (epoch, claim_offset, last_sequence) = (claim.epoch, stored.offset, 0);
                held.clear();
            }
            Decoded::Answers(stamp, _) if counts(stamp, last_sequence) => last_sequence = stamp.sequence,
            Decoded::Event(stamp, envelope) if counts(stamp, last_sequence) => {
                last_sequence = stamp.sequence;
                if stamp.index == 0 {
                    held.clear();
                }
                if held.len() != stamp.index as usize {
                    held.clear();
                    continue;
                }
                let event = envelope.event::<Counter>().expect("readable");
                let command_id = envelope.command_id.to_string();
                let fact = Fact { version: envelope.version.get(), command_id, event };
                held.push((stamp, fact, envelope.stream.id.to_string()));
                if stamp.index + 1 == stamp.count {
                    for (_, fact, id) in held.drain(..) {
                        streams.entry(id).or_default().push(fact);
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_stream(id: &str, facts: &[Fact]) -> Result<(), String> {
    for (fact, version) in facts.iter().zip(1..) {
        if fact.version != version {
            return Err(format!("{id} has version {} where {version} is due", fact.version));
        }
    }
    // The events of one command stand together; its id does not come again.
    let mut ids: Vec<&str> = facts.iter().map(|fact| fact.command_id.as_str()).collect();
    ids.dedup();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() == count { Ok(()) } else { Err(format!("a command to {id} took effect twice: {facts:?}")) }
}

fn check_rows(streams: &Streams, rows: &Rows) -> Result<(), String> {
    let folded: Rows =
        streams.iter().map(|(id, facts)| (id.clone(), (facts.len() as u64, sum_at(facts, facts.len())))).collect();
    if *rows == folded { Ok(()) } else { Err(format!("the projection has {rows:?}, the log {folded:?}")) }
}

fn sum_at(facts: &[Fact], version: usize) -> u64 {
    facts[..version].iter().fold(0, |sum, fact| match fact.event {
        Done::Added { n } => sum + n,
        Done::Taken { n } => sum - n,
        _ => sum,
    })
}

/// One command, in all its sendings.
fn check_command(facts: &[Fact], command_id: &str, calls: &[&Call], history: &[Call]) -> Result<(), String> {
    let first = calls.iter().min_by_key(|call| call.called).expect("it was called");
    let events: Vec<&Fact> = facts.iter().filter(|fact| fact.command_id == command_id).collect();
    let original: Vec<&&Call> = calls.iter().filter(|call| call.command == first.command).collect();
    let definite: Vec<&&&Call> = original.iter().filter(|call| call.told.is_definite()).collect();
    // A repeat with another payload may be the first that is decided, where the original was never done.
    let taken_by_the_other = !events.is_empty() && !gives(&first.command, &events);
    if taken_by_the_other {
        let other = calls.iter().any(|call| call.command != first.command && gives(&call.command, &events));
        return if other { Ok(()) } else { Err(format!("{:?} gave {events:?}", first.command)) };
    }
    for pair in definite.windows(2) {
        let told_otherwise = pair.iter().all(|call| call.told != Told::Reused) && pair[0].told != pair[1].told;
        if told_otherwise {
            return Err(format!("it was answered in two ways: {} and {}", pair[0], pair[1]));
        }
    }
    if calls.iter().all(|call| call.told == Told::NotDone) && !events.is_empty() {
        return Err(format!("it was never done, by what was told, and is in the log: {events:?}"));
    }
    let Some(answered) = definite.iter().min_by_key(|call| call.returned) else { return Ok(()) };
    // The versions at which it may have been decided: after what was known before, before what came later.
    let accepted = |call: &&Call| call.id == first.id && matches!(call.told, Told::Accepted { events: 1.., .. });
    let before = history.iter().filter(accepted).filter(|call| call.returned < first.called);
    let low = before.map(version_of).max().unwrap_or(0);
    let begun = |call: &&Call| {
        let begin = history.iter().filter(|other| other.id == call.id && other.command_id == call.command_id);
        begin.map(|other| other.called).min().expect("itself") > answered.returned
    };
    let after = history.iter().filter(accepted).filter(begun);
    let high = after.map(|call| first_version_of(call) - 1).min().unwrap_or(facts.len() as u64);
    let window = low..=high;
    let decided = |holds: &dyn Fn(u64) -> bool| {
        let found = window.clone().any(holds);
        if found { Ok(()) } else { Err(format!("{} is right for no version of {window:?}: {facts:?}", answered)) }
    };
    let expected = first.expected;
    let holds = |version: u64| expected.holds(crate::Version::new(version));
    match answered.told {
        Told::Accepted { version, events: 0 } => {
            decided(&|at| at == version && holds(at))?;
            if first.command == Do::Nothing { Ok(()) } else { Err("a no-op".into()) }
        }
        Told::Accepted { version, events: count } => {
            let in_log = events.len() == count as usize && events.last().is_some_and(|last| last.version == version);
            if !in_log || !gives(&first.command, &events) {
                return Err(format!("it was accepted at version {version}, the log holds {events:?}"));
            }
            let at = version - u64::from(count);
            let enough = !matches!(first.command, Do::Take { n } if n > sum_at(facts, at as usize));
            if enough && holds(at) {
                decided(&|before| before == at || before == version)
            } else {
                Err(format!("it could not be accepted at version {at}"))
            }
        }
        Told::TooFew { sum } => {
            let Do::Take { n } = first.command else { return Err("refused".into()) };
            no_event(&events)?;
            decided(&|at| sum_at(facts, at as usize) == sum && sum < n && holds(at))
        }
        Told::Conflict { actual } => {
            no_event(&events)?;
            decided(&|at| at == actual && !holds(at))
        }
        Told::Reused => {
            let other = calls.iter().any(|call| call.command != first.command);
            if other { Ok(()) } else { Err("reused, and there was no other payload".into()) }
        }
        Told::NotDone | Told::Unknown => Ok(()),
    }
}

fn no_event(events: &[&Fact]) -> Result<(), String> {
    if events.is_empty() { Ok(()) } else { Err(format!("it was refused and is in the log: {events:?}")) }
}

fn gives(command: &Do, events: &[&Fact]) -> bool {
    match command {
        Do::Add { n, times } => {
            events.len() as u64 == *times && events.iter().all(|fact| fact.event == Done::Added { n: *n })
        }
        Do::Take { n } => events.len() == 1 && events[0].event == Done::Taken { n: *n },
        _ => events.is_empty(),
    }
}

fn version_of(call: &Call) -> u64 {
    if let Told::Accepted { version, .. } = call.told { version } else { 0 }
}

fn first_version_of(call: &Call) -> u64 {
    if let Told::Accepted { version, events } = call.told { version + 1 - u64::from(events) } else { u64::MAX }
}

/// What was answered before another command was first sent has the lower version.
fn check_order(history: &[Call]) -> Result<(), String> {
    let accepted: Vec<&Call> =
        history.iter().filter(|call| matches!(call.told, Told::Accepted { events: 1.., .. })).collect();
    for later in &accepted {
        let same = history.iter().filter(|call| call.id == later.id && call.command_id == later.command_id);
        let begun = same.map(|call| call.called).min().expect("itself");
        let earlier = accepted.iter().filter(|call| call.id == later.id && call.returned < begun);
        if let Some(earlier) = earlier.clone().find(|call| version_of(call) >= first_version_of(later)) {
            return Err(format!("out of order: {earlier} and then {later}"));
        }
    }
    Ok(())
}
