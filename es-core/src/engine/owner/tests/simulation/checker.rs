//! Judges a history by the log at its end. What counts in the log is decided by `truth.rs` anew, in plain words, and not
//! by the code under test.
//!
//! A call knows where the log ended when it was made and when its answer came. What counts of a log's beginning is the
//! same for ever, so these two places say between which versions the command was decided.

use std::collections::BTreeMap;

use super::client::{Call, Expires, Failure, Told};
use super::domain::newer::{Ask, Became};
use super::plan::Hazard;
use super::projection::Rows;
use super::truth::{Answered, Decision, Outcome, Stream, Truth, level_after};
use super::*;

/// What a command gives, on a level.
#[derive(Debug, Clone, PartialEq)]
enum Gives {
    Events(Vec<Became>),
    Nothing,
    TooLittle,
    Failure(Failure),
}

fn gives(command: &Ask, level: u64) -> Gives {
    let events = match *command {
        Ask::Pour { n, times } => vec![Became::Poured { n }; times as usize],
        Ask::Drain { n } if n > level => return Gives::TooLittle,
        Ask::Drain { n } => vec![Became::Drained { n }],
        Ask::Look => return Gives::Nothing,
        Ask::Shake if level % 2 == 1 => return Gives::Failure(Failure::Panicked),
        Ask::Shake => vec![Became::Poured { n: 1 }],
        Ask::Fill { n } => vec![Became::Poured { n: 1 }, Became::Filled { n }],
        Ask::Describe { bytes } if bytes > 15_000 => return Gives::Failure(Failure::TooLarge),
        Ask::Describe { bytes } => vec![Became::Described { text: "x".repeat(bytes) }],
        Ask::Label { n, mark } => vec![Became::Labelled { n, mark }],
        Ask::Mark { n } => vec![Became::Marked { n }],
    };
    if events.len() > EVENTS_MAX {
        return Gives::Failure(Failure::TooMany);
    }
    match events.iter().try_fold(level, level_after) {
        Some(_) => Gives::Events(events),
        None => Gives::Failure(Failure::Panicked),
    }
}

pub(super) fn check(sim: &Sim, truth: &Truth, history: &[Call], rows: &Rows) -> Result<(), String> {
    check_rows(truth, rows)?;
    let mut commands: BTreeMap<(&str, &str), Vec<&Call>> = BTreeMap::new();
    for call in history {
        commands.entry((&call.id, &call.command_id)).or_default().push(call);
    }
    for (id, stream) in &truth.streams {
        let sent = |decision: &&Decision| commands.contains_key(&(id.as_str(), &*decision.command_id));
        if let Some(decision) = stream.decisions.iter().find(|decision| !sent(decision)) {
            return Err(format!("{id}: nobody sent what became {decision:?}"));
        }
    }
    if let Some(call) = history.iter().find(|call| matches!(call.told, Told::Wrong(_))) {
        return Err(format!("nobody should hear that: {call}"));
    }
    let nothing = Stream::default();
    for ((id, command_id), calls) in &commands {
        let stream = truth.streams.get(*id).unwrap_or(&nothing);
        let of_command = Of { sim, stream, decisions: decisions(stream, command_id), calls };
        of_command.check().map_err(|why| format!("{id} {command_id}: {why}"))?;
    }
    check_order(sim, truth, history)
}

fn decisions<'a>(stream: &'a Stream, command_id: &str) -> Vec<&'a Decision> {
    stream.decisions.iter().filter(|decision| decision.command_id == *command_id).collect()
}

fn check_rows(truth: &Truth, rows: &Rows) -> Result<(), String> {
    let row = |stream: &Stream| {
        let version = stream.versions.len() as u64;
        (version, stream.level_at(version))
    };
    let streams = truth.streams.iter().filter(|(_, stream)| !stream.versions.is_empty());
    let folded: Rows = streams.map(|(id, stream)| (id.clone(), row(stream))).collect();
    if *rows == folded { Ok(()) } else { Err(format!("the projection has {rows:?}, the log {folded:?}")) }
}

/// Of commands that one client put on the topic one behind the other, to one tank, the later one was not decided first.
fn check_order(sim: &Sim, truth: &Truth, history: &[Call]) -> Result<(), String> {
    let mut last: BTreeMap<(usize, &str), (&Decision, &Call)> = BTreeMap::new();
    let mut sent: Vec<_> = history.iter().filter_map(|call| Some((call.record?, call))).collect();
    sent.sort_by_key(|(record, _)| (record.client, record.number));
    sent.dedup_by_key(|(record, _)| (record.client, record.number));
    for (record, call) in sent {
        // Told so by one owner's clock, it may be decided by another's: its sender can't count on it.
        let expired = |other: &Call| other.told == Told::Expired && other.command_id == call.command_id;
        if history.iter().any(expired) {
            continue;
        }
        // So it is with what one release passed over as not known, where the group forgot that it is done with.
        let plan = &sim.plan;
        if plan.has(Hazard::Offsets) && plan.has(Hazard::Releases) && is_of_the_newer_release(&call.command) {
            continue;
        }
        let Some(stream) = truth.streams.get(&call.id) else { continue };
        let Some(decision) = decisions(stream, &call.command_id).into_iter().next() else { continue };
        if let Some((earlier, before)) = last.get(&(record.client, &*call.id)) {
            // A round's answers stand behind its events: what tells is the version.
            if decision.at < earlier.at {
                return Err(format!("decided in another order: {call}: {decision:?}; {before}: {earlier:?}"));
            }
            sim.reach(Reach::InOrder);
            if call.from <= earlier.first {
                sim.reach(Reach::InFlight);
            }
        }
        last.insert((record.client, &*call.id), (decision, call));
    }
    Ok(())
}

fn is_of_the_newer_release(command: &Ask) -> bool {
    matches!(command, Ask::Mark { .. } | Ask::Label { mark: 1.., .. })
}

/// One command, in all its sendings, with the same or another payload.
struct Of<'a> {
    sim: &'a Sim,
    stream: &'a Stream,
    decisions: Vec<&'a Decision>,
    calls: &'a [&'a Call],
}

impl Of<'_> {
    fn check(&self) -> Result<(), String> {
        // It needs no proof: the sender did use the id twice, even if the other use comes to nothing.
        let reused = self.calls.iter().find(|call| call.told == Told::Reused);
        let all_same = |call: &&&Call| self.calls.iter().all(|other| other.command == call.command);
        if let Some(call) = reused.filter(all_same) {
            return Err(format!("there was no other payload: {call}"));
        }
        for decision in &self.decisions {
            self.check_decision(decision).map_err(|why| format!("{why}: {decision:?}"))?;
        }
        for pair in self.decisions.windows(2) {
            self.check_again(pair[0], pair[1])?;
            let one_payload = self.calls.iter().all(|call| call.command == self.calls[0].command);
            if one_payload && pair[0].hash != pair[1].hash {
                return Err(format!("one command has two hashes: {pair:?}"));
            }
        }
        self.calls.iter().try_for_each(|call| self.check_call(call).map_err(|why| format!("{why}: {call}")))
    }

    /// It was sent, by a sending that was not told that it did nothing, and is what the domain says.
    fn check_decision(&self, decision: &Decision) -> Result<(), String> {
        let fitting: Vec<_> = self.calls.iter().filter(|call| self.fits(call, decision)).collect();
        if fitting.is_empty() {
            return Err(format!("nobody asked for that, but {}", self.calls[0]));
        }
        // With the group's offsets it is lost that a command was passed over: another release may decide it then.
        let passed_over = |call: &Call| call.told == Told::Parked && self.sim.plan.has(Hazard::Offsets);
        let may_be_done = |call: &&&&Call| call.told.may_be_done() || passed_over(call);
        let doers: Vec<_> = fitting.iter().filter(may_be_done).filter(|call| call.from <= decision.first).collect();
        let Some(from) = doers.iter().map(|call| call.from).min() else {
            let told: Vec<String> = self.calls.iter().map(ToString::to_string).collect();
            return Err(format!("it is in the log, and no call can have done it: {told:?}"));
        };
        let showed = || self.stream.between(from, decision.place).contains(&decision.at);
        if matches!(decision.outcome, Outcome::Answered(_)) && !showed() {
            return Err(format!("decided on a version that did not show after {from}"));
        }
        let told_before = |told: Told| self.calls.iter().any(|call| call.told == told && call.to <= decision.place);
        if told_before(Told::NotDone) {
            self.sim.reach(Reach::NotDoneThenDone);
        }
        if told_before(Told::Unknown) {
            self.sim.reach(Reach::UnknownThenDone);
        }
        Ok(())
    }

    /// A command takes effect again only when its id was forgotten in the log's own time, and somebody sent it again. A
    /// process whose clock is ahead by more than the retention sends all that it sends again, by the log's time.
    fn check_again(&self, before: &Decision, again: &Decision) -> Result<(), String> {
        let remembered_ms = self.sim.plan.shortest_retention().as_millis() as i64;
        let after_ms = again.recorded_at_ms - before.recorded_at_ms;
        if after_ms < remembered_ms {
            return Err(format!("it took effect twice, {after_ms} ms apart: {before:?}, {again:?}"));
        }
        let later = |call: &Call| {
            call.from > before.place || call.sent_ms >= before.recorded_at_ms.saturating_add(remembered_ms)
        };
        let sent_again = |call: &&Call| call.told.may_be_done() && later(call) && call.from <= again.first;
        // Here a topic keeps all. A broker deletes commands before the shortest retention that a process had is over, so
        // a longer one finds none that was forgotten; nor does a process whose clock is behind, for which they have time.
        let is_short = after_ms <= self.sim.plan.longest_life().as_millis() as i64;
        let finds_old = is_short || self.sim.plan.has(Hazard::Clocks);
        let stayed = |call: &&Call| call.record.is_some() && finds_old && call.from <= again.first;
        if !self.calls.iter().any(|call| sent_again(call) || stayed(call)) {
            return Err(format!("it took effect again, and nobody sent it again: {before:?}, {again:?}"));
        }
        self.sim.reach(Reach::DoneAgain);
        Ok(())
    }

    /// Whether what was decided is what this call asks for.
    fn fits(&self, call: &Call, decision: &Decision) -> bool {
        let expected = call.expected.holds(crate::Version::new(decision.at));
        let level = self.stream.level_at(decision.at);
        let asked = gives(&call.command, level);
        match &decision.outcome {
            Outcome::Events(events) => expected && asked == Gives::Events(events.clone()),
            Outcome::Answered(Answered::Conflict) => !expected,
            Outcome::Answered(Answered::NoOp) => expected && asked == Gives::Nothing,
            Outcome::Answered(Answered::Refused { level: told }) => {
                expected && asked == Gives::TooLittle && *told == level
            }
            Outcome::Answered(Answered::Failed(failure)) => expected && asked == Gives::Failure(*failure),
        }
    }

    /// What was told is in the log by then.
    fn check_call(&self, call: &Call) -> Result<(), String> {
        if let Some(record) = call.record
            && record.expires == Expires::Nonsense
            && !self.decisions.is_empty()
        {
            return Err("it can't be read, and was decided".into());
        }
        match &call.told {
            Told::Failed(Failure::Malformed) | Told::Reused => return Ok(()),
            Told::Failed(failure) => self.sim.reach(match failure {
                Failure::TooLarge => Reach::TooLarge,
                Failure::TooMany => Reach::TooMany,
                _ => Reach::Panicked,
            }),
            told if !told.is_definite() => return Ok(()),
            _ => {}
        }
        let told = |decision: &&&Decision| self.is_told(call, decision);
        match self.decisions.iter().find(told) {
            Some(decision) if decision.place < call.to => Ok(()),
            Some(decision) => Err(format!("answered before it was in the log at offset {}", decision.place)),
            None => Err(format!("not what the log says, which has {:?}", self.decisions)),
        }
    }

    fn is_told(&self, call: &Call, decision: &Decision) -> bool {
        let at = decision.at;
        let same = match (&call.told, &decision.outcome) {
            (Told::Accepted { version, events, offset }, Outcome::Events(known)) => {
                let count = known.len() as u64;
                *version == at + count && u64::from(*events) == count && *offset == decision.place
            }
            (Told::Accepted { version, events: 0, offset }, Outcome::Answered(Answered::NoOp)) => {
                *version == at && *offset == decision.place
            }
            (Told::TooLittle { level }, Outcome::Answered(Answered::Refused { level: known })) => level == known,
            (Told::Conflict { actual }, Outcome::Answered(Answered::Conflict)) => *actual == at,
            (Told::Failed(told), Outcome::Answered(Answered::Failed(failure))) => told == failure,
            _ => false,
        };
        same && self.fits(call, decision)
    }
}
