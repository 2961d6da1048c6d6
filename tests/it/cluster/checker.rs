//! Decides whether what senders were told can be true, given what the log holds.
//!
//! An account must behave as if each command were decided at one moment between its first call that may have had an
//! effect and its first definite answer. The log gives the order of the accepted ones, so nothing is searched: it is
//! looked whether that order fits the times, and whether each refusal has a version at which it was right.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::Duration;

use super::history::{Answer, Call, Command, Event};

/// An event of the log that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Logged {
    pub(crate) version: u64,
    pub(crate) key: String,
    pub(crate) event: Event,
    pub(crate) position: String,
    pub(crate) recorded_ms: u64,
}

/// The events of each account, in the order of the log.
pub(crate) type Log = BTreeMap<String, Vec<Logged>>;

/// A kind of untruth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Broken {
    /// Versions of an account are not 1, 2, 3 …
    Versions,
    /// A command has an event twice.
    Twice,
    /// Not all events of a command stand together in their order.
    Torn,
    /// An event lacks a field that its command has.
    Dropped,
    /// An event of a command that nobody sent, or another event than the command asks for.
    NotAsked,
    /// An accepted command is not in the log where its answer says.
    Lost,
    /// A command took effect in a call that was told that nothing was done.
    DoneAllTheSame,
    /// A refused command has an event.
    RefusedAndDone,
    /// A refusal was right at no version that it can have seen.
    FalseRefusal,
    /// A withdrawal was accepted that the balance did not allow.
    Overdrawn,
    /// A command that began after another's answer has a lower version.
    Order,
    /// One key got two answers.
    TwoAnswers,
    /// A repeat of an answered command was not called a duplicate.
    NotADuplicate,
    /// A command never got a definite answer.
    Unanswered,
    /// An answer that no sender should get.
    WrongAnswer,
}

/// One untruth, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    pub(crate) broken: Broken,
    pub(crate) what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.broken, self.what)
    }
}

/// A command with all its calls in the order in which they returned.
struct Sent<'a> {
    key: &'a str,
    account: &'a str,
    command: &'a Command,
    calls: Vec<&'a Call>,
}

impl Sent<'_> {
    /// The calls that may have had an effect; "not done" is taken at its word.
    fn effective(&self) -> impl Iterator<Item = &&Call> {
        self.calls.iter().filter(|call| !matches!(call.answer, Answer::NotDone(_)))
    }

    /// When the first call began that may have had an effect.
    fn began(&self) -> Option<Duration> {
        self.effective().map(|call| call.called).min()
    }

    /// The same on the clock that events are recorded by.
    fn began_ms(&self) -> Option<u64> {
        self.effective().map(|call| call.called_ms).min()
    }

    /// The first definite answer.
    fn answered(&self) -> Option<&Call> {
        self.calls.iter().find(|call| call.answer.is_definite()).copied()
    }
}

/// An event and where it stands among those of its account.
struct Placed<'a> {
    account: &'a str,
    place: usize,
    logged: &'a Logged,
}

/// An account between two commands.
struct State {
    version: u64,
    balance: Option<i64>,
}

/// An accepted or possibly accepted command in the order of the log.
struct Done {
    /// The first command of the account is at 1, as its state behind that.
    place: usize,
    version: u64,
    began: Duration,
    /// `MAX` without an answer.
    ended: Duration,
}

/// All that can't be true.
pub(crate) fn check(calls: &[Call], log: &Log) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut report = |broken, what: String| found.push(Violation { broken, what });
    let (sent, done) = (by_key(calls), by_command(log));
    for (key, events) in &done {
        match sent.get(key) {
            Some(command) => check_events(command, events, &mut report),
            None => report(Broken::NotAsked, format!("nobody sent {key}, at {}", events[0].logged.position)),
        }
    }
    for command in sent.values() {
        check_answers(command, done.get(command.key).map_or(&[], Vec::as_slice), &mut report);
    }
    for (account, logged) in log {
        // With other versions nothing can be said of their order.
        if has_all_versions(account, logged, &mut report) {
            check_account(account, logged, &sent, &mut report);
        }
    }
    found
}

type Report<'a> = &'a mut dyn FnMut(Broken, String);

fn by_key(calls: &[Call]) -> HashMap<&str, Sent<'_>> {
    let mut sent: HashMap<&str, Sent<'_>> = HashMap::new();
    for call in calls {
        let new = || Sent { key: &call.key, account: &call.account, command: &call.command, calls: Vec::new() };
        sent.entry(&call.key).or_insert_with(new).calls.push(call);
    }
    for command in sent.values_mut() {
        command.calls.sort_by_key(|call| call.returned);
    }
    sent
}

/// The events of each command.
fn by_command(log: &Log) -> BTreeMap<&str, Vec<Placed<'_>>> {
    let mut done: BTreeMap<&str, Vec<Placed<'_>>> = BTreeMap::new();
    for (account, logged) in log {
        for (place, logged) in logged.iter().enumerate() {
            done.entry(&logged.key).or_default().push(Placed { account, place, logged });
        }
    }
    done
}

fn has_all_versions(account: &str, logged: &[Logged], report: Report<'_>) -> bool {
    let wrong = logged.iter().zip(1..).find(|(event, expected)| event.version != *expected);
    if let Some((Logged { version, position, .. }, expected)) = wrong {
        report(Broken::Versions, format!("account {account}: {version} at {position}, not {expected}"));
    }
    wrong.is_none()
}

/// Whether a command has the events that it asks for, each once, together and in their order.
fn check_events(command: &Sent<'_>, events: &[Placed<'_>], report: Report<'_>) {
    let asked = command.command.events();
    let mut missing = asked.clone();
    let mut torn = !events.windows(2).all(|two| two[0].place + 1 == two[1].place);
    for Placed { account, logged, .. } in events {
        let here = *account == command.account;
        if let Some(next) = missing.iter().position(|event| here && *event == logged.event) {
            torn |= next != 0;
            missing.remove(next);
            continue;
        }
        let broken = match () {
            () if !here => Broken::NotAsked,
            () if asked.contains(&logged.event) => Broken::Twice,
            () if asked.iter().any(|event| event.without_note() == logged.event) => Broken::Dropped,
            () => Broken::NotAsked,
        };
        let (key, of, command) = (command.key, command.account, command.command);
        return report(broken, format!("{key} asked {command:?} of {of}, {account} got {logged:?}"));
    }
    if torn || !missing.is_empty() {
        let found: Vec<&Logged> = events.iter().map(|event| event.logged).collect();
        report(Broken::Torn, format!("{} asked for {asked:?}, {} got {found:?}", command.key, command.account));
    }
}

fn check_answers(command: &Sent<'_>, events: &[Placed<'_>], report: Report<'_>) {
    let key = command.key;
    for call in &command.calls {
        if let Answer::Wrong(what) = &call.answer {
            report(Broken::WrongAnswer, format!("{key} at {}: {what}", call.process));
        }
    }
    let first_event = events.first().map(|event| event.logged);
    // Of a repeat that is called a duplicate, the answer alone does not tell what it repeats: the call itself may have been
    // decided by an owner that went, and read again by the next.
    if let (Some(event), Some(began_ms)) = (first_event, command.began_ms())
        && event.recorded_ms < began_ms
    {
        let told: Vec<_> = command.calls.iter().map(|call| (call.called_ms, &call.answer)).collect();
        report(
            Broken::DoneAllTheSame,
            format!("{key} was recorded before a call that may have done it: {event:?}, {told:?}"),
        );
    }
    let Some(first) = command.answered() else {
        report(Broken::Unanswered, format!("{key}: {:?}", command.calls.last().map(|call| &call.answer)));
        if command.began().is_none()
            && let Some(event) = first_event
        {
            report(Broken::DoneAllTheSame, format!("{key} was told each time that nothing was done: {event:?}"));
        }
        return;
    };
    match (&first.answer, first_event) {
        (Answer::Accepted { version, position, .. }, _) => {
            // The answer names the last event.
            let last = events.get(command.command.events().len() - 1).map(|event| event.logged);
            if last.is_none_or(|last| (*version, position) != (last.version, &last.position)) {
                report(Broken::Lost, format!("{key} was told {:?}, the log has {last:?}", first.answer));
            }
        }
        (_, Some(event)) => report(Broken::RefusedAndDone, format!("{key}: {:?} and {event:?}", first.answer)),
        (_, None) => {}
    }
    for later in command.calls.iter().filter(|call| call.answer.is_definite()) {
        if !same(&first.answer, &later.answer) {
            let (one, two) = (&first.process, &later.process);
            report(Broken::TwoAnswers, format!("{key}: {one} {:?}, {two} {:?}", first.answer, later.answer));
        }
        if later.called > first.returned
            && let Answer::Accepted { duplicate: false, .. } = later.answer
        {
            report(Broken::NotADuplicate, format!("{key} at {}: {:?}", later.process, later.answer));
        }
    }
}

fn same(one: &Answer, two: &Answer) -> bool {
    match (one, two) {
        (Answer::Accepted { version: a, position: b, .. }, Answer::Accepted { version: c, position: d, .. }) => {
            (a, b) == (c, d)
        }
        (one, two) => one == two,
    }
}

/// Times against the order of the log, and refusals.
fn check_account(account: &str, logged: &[Logged], sent: &HashMap<&str, Sent<'_>>, report: Report<'_>) {
    let mut states = vec![State { version: 0, balance: None }];
    let mut done = Vec::new();
    // Nobody sees the state between two events of one command.
    for (events, place) in logged.chunk_by(|one, next| one.key == next.key).zip(1..) {
        let mut balance = states[place - 1].balance;
        for event in events {
            let (after, allowed) = fold(balance, &event.event);
            if !allowed {
                report(Broken::Overdrawn, format!("account {account}: {event:?} with balance {balance:?}"));
            }
            balance = after;
        }
        let version = states[place - 1].version + events.len() as u64;
        states.push(State { version, balance });
        done.extend(sent.get(events[0].key.as_str()).and_then(|command| {
            let ended = command.answered().map_or(Duration::MAX, |call| call.returned);
            Some(Done { place, version, began: command.began()?, ended })
        }));
    }
    check_order(account, &done, report);
    check_refusals(account, &states, &done, sent, report);
}

/// The balance after an event, and whether it was allowed.
fn fold(balance: Option<i64>, event: &Event) -> (Option<i64>, bool) {
    match (balance, event) {
        (None, Event::Opened) => (Some(0), true),
        (Some(balance), Event::Deposited { amount, .. }) => (Some(balance + amount), true),
        (Some(balance), Event::Withdrawn { amount, .. }) => (Some(balance - amount), *amount <= balance),
        (balance, _) => (balance, false),
    }
}

fn check_order(account: &str, done: &[Done], report: Report<'_>) {
    let mut latest: Option<&Done> = None;
    for this in done {
        if let Some(latest) = latest.filter(|latest| this.ended < latest.began) {
            let (this, latest, ended, began) = (this.version, latest.version, this.ended, latest.began);
            let what = format!("account {account}: {this} was answered at {ended:?}, {latest} began at {began:?}");
            report(Broken::Order, what);
        }
        if latest.is_none_or(|latest| latest.began < this.began) {
            latest = Some(this);
        }
    }
}

/// Each refusal gets the first state at which it is right, in the order of their beginnings: if any choice fits, this
/// one does.
fn check_refusals(account: &str, states: &[State], done: &[Done], sent: &HashMap<&str, Sent<'_>>, report: Report<'_>) {
    let refused = |command: &&Sent<'_>| {
        command.account == account
            && command.answered().is_some_and(|call| matches!(call.answer, Answer::Refused { .. }))
    };
    let mut refused: Vec<&Sent<'_>> = sent.values().filter(refused).collect();
    refused.sort_by_key(|command| command.began());
    let mut placed: Vec<(Duration, usize)> = Vec::new();
    for command in refused {
        let (Some(began), Some(answer)) = (command.began(), command.answered()) else { continue };
        let before = done.iter().filter(|done| done.ended < began).map(|done| done.place).max();
        let earlier = placed.iter().filter(|(ended, _)| *ended < began).map(|(_, place)| *place).max();
        let first = before.max(earlier).unwrap_or(0);
        let after = done.iter().filter(|done| done.began > answer.returned).map(|done| done.place).min();
        let last = after.map_or(states.len() - 1, |place| place - 1);
        match (first..=last).find(|place| is_right(&answer.answer, command.command, states[*place].balance)) {
            Some(place) => placed.push((answer.returned, place)),
            None => {
                let seen: BTreeSet<i64> =
                    states[first.min(last)..=last.max(first)].iter().filter_map(|at| at.balance).collect();
                let (first, last) = (states[first].version, states[last].version);
                let (key, answer) = (command.key, &answer.answer);
                report(Broken::FalseRefusal, format!("{key} at versions {first} to {last} with {seen:?}: {answer:?}"));
            }
        }
    }
}

fn is_right(answer: &Answer, command: &Command, balance: Option<i64>) -> bool {
    let (Answer::Refused { code, detail }, Command::Withdraw { amount, fee }, Some(balance)) =
        (answer, command, balance)
    else {
        return false; // the load sends nothing else that may be refused
    };
    let told = format!("the balance is {balance} ");
    code == "insufficient-funds" && amount + fee.unwrap_or(0) > balance && detail.starts_with(&told)
}

/// The balance and version of each account.
pub(crate) fn balances(log: &Log) -> BTreeMap<String, (i64, u64)> {
    let balance = |logged: &[Logged]| logged.iter().fold(None, |balance, event| fold(balance, &event.event).0);
    log.iter().map(|(account, logged)| (account.clone(), (balance(logged).unwrap_or(0), logged.len() as u64))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "a";

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn call(key: &str, command: Command, times: (u64, u64), answer: Answer) -> Call {
        let (called_ms, called, returned) = (times.0, at(times.0), at(times.1));
        Call { process: "one".into(), key: key.into(), account: A.into(), command, called_ms, called, returned, answer }
    }

    fn accepted(version: u64) -> Answer {
        Answer::Accepted { version, position: position(version), duplicate: false }
    }

    fn again(version: u64) -> Answer {
        Answer::Accepted { version, position: position(version), duplicate: true }
    }

    fn refused(balance: i64) -> Answer {
        let detail = format!("the balance is {balance} and may go down to -0");
        Answer::Refused { code: "insufficient-funds".into(), detail }
    }

    fn position(version: u64) -> String {
        format!("account/0@{version}")
    }

    fn deposit(amount: i64) -> Command {
        Command::Deposit { amount, note: None }
    }

    fn deposit_with_note(amount: i64) -> Command {
        Command::Deposit { amount, note: Some("rent".into()) }
    }

    fn withdraw(amount: i64) -> Command {
        Command::Withdraw { amount, fee: None }
    }

    fn withdraw_with_fee(amount: i64, fee: i64) -> Command {
        Command::Withdraw { amount, fee: Some(fee) }
    }

    /// The events of a command from this version on, recorded so late that it tells nothing.
    fn events(version: u64, key: &str, command: Command) -> Vec<Logged> {
        let logged = |(event, version)| {
            let (key, position) = (key.to_owned(), position(version));
            Logged { version, key, event, position, recorded_ms: u64::MAX }
        };
        command.events().into_iter().zip(version..).map(logged).collect()
    }

    fn event(version: u64, key: &str, command: Command) -> Logged {
        events(version, key, command).remove(0)
    }

    fn recorded(recorded_ms: u64, event: Logged) -> Logged {
        Logged { recorded_ms, ..event }
    }

    /// Opened, 10 put in, 4 taken out, 8 refused with the rest of 6.
    fn good() -> (Vec<Call>, Log) {
        let calls = vec![
            call("k1", Command::Open, (0, 10), accepted(1)),
            call("k2", deposit(10), (20, 30), Answer::Unknown("no answer".into())),
            call("k2", deposit(10), (31, 32), Answer::NotDone("not ready".into())),
            call("k2", deposit(10), (33, 40), again(2)),
            call("k3", withdraw(4), (50, 60), accepted(3)),
            call("k4", withdraw(8), (70, 80), refused(6)),
            call("k4", withdraw(8), (90, 95), refused(6)),
        ];
        let events = vec![
            recorded(5, event(1, "k1", Command::Open)),
            recorded(25, event(2, "k2", deposit(10))),
            recorded(55, event(3, "k3", withdraw(4))),
        ];
        (calls, BTreeMap::from([(A.to_owned(), events)]))
    }

    /// The same, and then 3 taken out with a fee of 1.
    fn good_with_fee() -> (Vec<Call>, Log) {
        let (mut calls, mut log) = good();
        calls.push(call("k5", withdraw_with_fee(3, 1), (100, 110), accepted(5)));
        log.get_mut(A).unwrap().extend(events(4, "k5", withdraw_with_fee(3, 1)));
        (calls, log)
    }

    #[track_caller]
    fn catches(broken: &[Broken], forge: impl FnOnce(&mut Vec<Call>, &mut Vec<Logged>)) {
        catches_in(good(), broken, forge);
    }

    #[track_caller]
    fn catches_in(
        (mut calls, mut log): (Vec<Call>, Log),
        broken: &[Broken],
        forge: impl FnOnce(&mut Vec<Call>, &mut Vec<Logged>),
    ) {
        forge(&mut calls, log.get_mut(A).unwrap());
        let found = check(&calls, &log);
        let kinds: BTreeSet<Broken> = found.iter().map(|violation| violation.broken).collect();
        assert_eq!(kinds, broken.iter().copied().collect(), "{found:#?}");
    }

    #[test]
    fn a_true_history_is_accepted() {
        catches(&[], |_, _| {});
        let (_, log) = good();
        assert_eq!(balances(&log)[A], (6, 3));
        catches_in(good_with_fee(), &[], |_, _| {});
        let (_, log) = good_with_fee();
        assert_eq!(balances(&log)[A], (2, 5));
    }

    #[test]
    fn a_hole_a_fork_and_a_wrong_start_are_caught() {
        catches(&[Broken::Versions, Broken::Lost], |_, log| log[2].version = 4);
        catches(&[Broken::Versions, Broken::Lost], |_, log| log[2].version = 2);
        catches(&[Broken::Versions, Broken::Lost], |_, log| log[0].version = 0);
    }

    #[test]
    fn a_command_that_took_effect_twice_is_caught() {
        catches(&[Broken::Twice, Broken::Order, Broken::FalseRefusal], |_, log| log.push(event(4, "k2", deposit(10))));
    }

    /// As if it were written down anew, with the versions as they must be.
    fn renumber(log: &mut [Logged]) {
        for (event, version) in log.iter_mut().zip(1..) {
            (event.version, event.position) = (version, position(version));
        }
    }

    #[test]
    fn half_a_command_is_caught() {
        catches_in(good_with_fee(), &[Broken::Torn, Broken::Lost], |_, log| drop(log.pop()));
        for half in [3, 4] {
            // Its sender was told of the half that is there.
            catches_in(good_with_fee(), &[Broken::Torn, Broken::Lost], |calls, log| {
                calls.last_mut().unwrap().answer = accepted(4);
                log.remove(half);
                renumber(log);
            });
            // Its sender has no answer yet.
            catches_in(good_with_fee(), &[Broken::Torn, Broken::Unanswered], |calls, log| {
                calls.last_mut().unwrap().answer = Answer::Unknown("no answer".into());
                log.remove(half);
                renumber(log);
            });
        }
    }

    #[test]
    fn a_command_whose_events_do_not_stand_together_in_order_is_caught() {
        catches_in(good_with_fee(), &[Broken::Torn], |_, log| {
            log.swap(3, 4);
            renumber(log);
        });
        catches_in(good_with_fee(), &[Broken::Torn], |calls, log| {
            calls.last_mut().unwrap().answer = accepted(6);
            calls.push(call("k6", deposit(9), (100, 110), accepted(5)));
            log.insert(4, event(5, "k6", deposit(9)));
            renumber(log);
        });
        // Its versions are 4 and 6.
        catches_in(good_with_fee(), &[Broken::Versions, Broken::Lost], |_, log| log[4].version = 6);
    }

    #[test]
    fn a_command_of_several_events_that_took_effect_twice_is_caught() {
        catches_in(good_with_fee(), &[Broken::Twice], |_, log| {
            let fee = Logged { version: 6, ..log[4].clone() };
            log.push(fee);
        });
        catches_in(good_with_fee(), &[Broken::Twice, Broken::Overdrawn], |_, log| {
            log.extend(events(6, "k5", withdraw_with_fee(3, 1)));
        });
    }

    #[test]
    fn a_refusal_from_between_the_events_of_a_command_is_caught() {
        for (balance, broken) in [(6, &[][..]), (3, &[Broken::FalseRefusal]), (2, &[])] {
            catches_in(good_with_fee(), broken, |calls, _| {
                calls.push(call("k6", withdraw(9), (105, 120), refused(balance)));
            });
        }
        // There was enough for the amount, and for the fee, and not for both.
        catches_in(good_with_fee(), &[], |calls, _| {
            calls.push(call("k6", withdraw_with_fee(2, 1), (120, 130), refused(2)));
        });
        catches_in(good_with_fee(), &[Broken::FalseRefusal], |calls, _| {
            calls.push(call("k6", withdraw_with_fee(1, 1), (120, 130), refused(2)));
        });
    }

    #[test]
    fn a_field_that_was_dropped_is_caught() {
        let noted = |logged: Command| {
            move |calls: &mut Vec<Call>, log: &mut Vec<Logged>| {
                calls.push(call("k6", deposit_with_note(7), (100, 110), accepted(4)));
                log.push(event(4, "k6", logged));
            }
        };
        catches(&[], noted(deposit_with_note(7)));
        catches(&[Broken::Dropped], noted(deposit(7)));
        catches(&[Broken::NotAsked], noted(deposit_with_note(8)));
        catches(&[Broken::NotAsked], noted(Command::Deposit { amount: 7, note: Some("other".into()) }));
        catches(&[Broken::NotAsked], |_, log| log[1].event = event(2, "k2", deposit_with_note(10)).event);
    }

    #[test]
    fn an_event_that_nobody_asked_for_is_caught() {
        catches(&[Broken::NotAsked], |_, log| log.push(event(4, "other", deposit(1))));
        // With the same balance, so that nothing else is wrong.
        catches(&[Broken::NotAsked], |_, log| log[2].event = event(3, "k3", deposit(-4)).event);
    }

    #[test]
    fn an_acknowledged_command_that_is_lost_is_caught() {
        catches(&[Broken::Lost, Broken::FalseRefusal], |_, log| drop(log.pop()));
        catches(&[Broken::Lost], |calls, _| {
            calls[4].answer = Answer::Accepted { version: 3, position: "account/0@9".into(), duplicate: false };
        });
    }

    #[test]
    fn a_refused_command_with_an_event_is_caught() {
        catches(&[Broken::RefusedAndDone, Broken::Overdrawn], |_, log| {
            log.push(event(4, "k4", withdraw(8)));
        });
    }

    #[test]
    fn a_refusal_from_old_state_is_caught() {
        // Right when the balance was 10, which the sender of k3 was told is past.
        catches(&[Broken::FalseRefusal], |calls, _| {
            calls.truncate(5);
            calls.push(call("k4", withdraw(11), (70, 80), refused(10)));
        });
        // At the same time it may have been before it.
        catches(&[], |calls, _| {
            calls.truncate(5);
            calls.push(call("k4", withdraw(11), (55, 80), refused(10)));
        });
    }

    #[test]
    fn a_refusal_from_the_future_is_caught() {
        catches(&[Broken::FalseRefusal], |calls, _| {
            calls.truncate(5);
            calls.push(call("k4", withdraw(8), (41, 45), refused(6)));
        });
    }

    #[test]
    fn refusals_that_go_back_in_time_are_caught() {
        // Both while k3 is under way, one after the other: first after it, then before it.
        catches(&[Broken::FalseRefusal], |calls, _| {
            calls.truncate(4);
            calls.push(call("k3", withdraw(4), (50, 90), accepted(3)));
            calls.push(call("k4", withdraw(11), (51, 55), refused(6)));
            calls.push(call("k5", withdraw(11), (56, 60), refused(10)));
        });
        catches(&[], |calls, _| {
            calls.truncate(4);
            calls.push(call("k3", withdraw(4), (50, 90), accepted(3)));
            calls.push(call("k4", withdraw(11), (51, 55), refused(10)));
            calls.push(call("k5", withdraw(11), (56, 60), refused(6)));
        });
    }

    #[test]
    fn a_refusal_that_was_never_right_is_caught() {
        catches(&[Broken::FalseRefusal], |calls, _| {
            calls.truncate(5);
            calls.push(call("k4", withdraw(6), (70, 80), refused(6)));
        });
        catches(&[Broken::FalseRefusal], |calls, _| {
            calls.push(call("k5", deposit(1), (70, 80), refused(6)));
        });
    }

    #[test]
    fn a_withdrawal_of_what_was_not_there_is_caught() {
        catches(&[Broken::Overdrawn, Broken::NotAsked, Broken::FalseRefusal], |_, log| {
            log[2].event = event(3, "k3", withdraw(11)).event;
        });
    }

    #[test]
    fn versions_against_the_order_of_time_are_caught() {
        // k3 began when k2 was answered, and stands before it.
        catches(&[Broken::Order], |calls, log| {
            *calls = vec![
                call("k1", Command::Open, (0, 10), accepted(1)),
                call("k2", deposit(10), (20, 30), accepted(3)),
                call("k3", deposit(4), (40, 50), accepted(2)),
            ];
            log[1] = event(2, "k3", deposit(4));
            log[2] = event(3, "k2", deposit(10));
        });
        // At the same time any order is right.
        catches(&[], |calls, log| {
            *calls = vec![
                call("k1", Command::Open, (0, 10), accepted(1)),
                call("k2", deposit(10), (20, 40), accepted(3)),
                call("k3", deposit(4), (40, 50), accepted(2)),
            ];
            log[1] = event(2, "k3", deposit(4));
            log[2] = event(3, "k2", deposit(10));
        });
    }

    #[test]
    fn an_effect_of_a_call_that_was_told_nothing_is_done_is_caught() {
        // The call at 20 was told that nothing was done, k3 came after it, and k2's event stands before k3's.
        catches(&[Broken::Order, Broken::DoneAllTheSame], |calls, log| {
            *calls = vec![
                call("k1", Command::Open, (0, 10), accepted(1)),
                call("k2", deposit(10), (20, 30), Answer::NotDone("not ready".into())),
                call("k3", deposit(4), (40, 50), accepted(3)),
                call("k2", deposit(10), (60, 70), again(2)),
            ];
            log[2].event = event(3, "k3", deposit(4)).event;
        });
        catches(&[Broken::DoneAllTheSame, Broken::Unanswered], |calls, _| {
            calls.retain(|call| call.key != "k3" && call.key != "k4");
            calls.push(call("k3", withdraw(4), (50, 60), Answer::NotDone("not ready".into())));
        });
    }

    /// The first call was told that nothing was done, and took effect; the next finds that it was done before.
    #[test]
    fn a_command_that_was_done_before_any_call_that_may_have_done_it_is_caught() {
        let not_done = || Answer::NotDone("the append failed and the log does not hold it".into());
        catches(&[Broken::DoneAllTheSame], |calls, _| calls[1].answer = not_done());
        // Where the call that was answered did it itself, and another owner found it done.
        catches(&[], |calls, log| {
            calls[1].answer = not_done();
            log[1].recorded_ms = 34;
        });
        catches(&[], |_, log| log[1].recorded_ms = 20);
    }

    #[test]
    fn two_answers_to_one_key_are_caught() {
        catches(&[Broken::TwoAnswers], |calls, _| {
            calls.push(call("k3", withdraw(4), (100, 110), again(2)));
        });
        catches(&[Broken::TwoAnswers], |calls, _| {
            calls.push(call("k3", withdraw(4), (100, 110), refused(2)));
        });
        catches(&[Broken::TwoAnswers], |calls, _| {
            calls.push(call("k4", withdraw(8), (100, 110), refused(7)));
        });
    }

    #[test]
    fn a_repeat_that_is_not_called_so_is_caught() {
        catches(&[Broken::NotADuplicate], |calls, _| {
            calls.push(call("k3", withdraw(4), (100, 110), accepted(3)));
        });
    }

    #[test]
    fn a_command_without_an_answer_and_a_wrong_answer_are_caught() {
        catches(&[Broken::Unanswered], |calls, _| {
            calls.push(call("k5", deposit(1), (100, 110), Answer::Unknown("no answer".into())));
        });
        catches(&[Broken::WrongAnswer, Broken::Unanswered], |calls, _| {
            calls.push(call("k5", deposit(1), (100, 110), Answer::Wrong("500".into())));
        });
    }
}
