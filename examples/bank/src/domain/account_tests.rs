//! Given events, when a command comes, then an event or a refusal.

use es_core::{Apply, Json, codec};

use super::{
    Account, AccountCommand as Command, AccountError as Refusal, AccountEvent as Event, AccountId, Money, Status,
};

fn money(minor_units: i64) -> Money {
    Money::new(minor_units).expect("test amounts fit")
}

fn opened(overdraft_limit: i64) -> Event {
    Event::Opened { owner: "Ada".into(), overdraft_limit: money(overdraft_limit), branch: None }
}

fn deposited(amount: i64) -> Event {
    Event::Deposited { amount: money(amount), reference: None }
}

fn withdrawn(amount: i64) -> Event {
    Event::Withdrawn { amount: money(amount), reference: None }
}

fn open(overdraft_limit: i64) -> Command {
    Command::Open { owner: "Ada".into(), overdraft_limit: money(overdraft_limit), branch: None }
}

fn deposit(amount: i64) -> Command {
    Command::Deposit { amount: money(amount), reference: None }
}

fn withdraw(amount: i64) -> Command {
    Command::Withdraw { amount: money(amount), reference: None }
}

fn given(events: &[Event]) -> Account {
    let mut account = Account::default();
    events.iter().for_each(|event| account.apply(event));
    account
}

#[track_caller]
fn check(events: &[Event], command: Command, then: Result<Event, Refusal>) {
    assert_eq!(given(events).decide(command), then.map(Some));
}

#[test]
fn an_account_is_opened_once() {
    check(&[], open(500), Ok(opened(500)));
    check(&[opened(0)], open(500), Err(Refusal::AlreadyOpen));
    check(&[opened(0), Event::Closed], open(0), Err(Refusal::AlreadyOpen));
    check(&[], open(-1), Err(Refusal::OverdraftNegative { limit: money(-1) }));
}

#[test]
fn a_reservation_changes_nothing() {
    let reserve = Command::Reserve { id: "7".into(), owner: "Ada".into(), overdraft_limit: money(0) };
    for events in [&[][..], &[opened(0)], &[opened(0), Event::Closed]] {
        assert_eq!(given(events).decide(reserve.clone()), Ok(None));
    }
}

#[test]
fn an_account_that_was_never_opened_takes_nothing() {
    for command in [deposit(1), withdraw(1), Command::Close] {
        check(&[], command, Err(Refusal::NotFound));
    }
}

#[test]
fn a_closed_account_takes_nothing() {
    for command in [deposit(1), withdraw(1), Command::Close] {
        check(&[opened(0), Event::Closed], command, Err(Refusal::Closed));
    }
}

#[test]
fn money_goes_in_and_out_down_to_the_overdraft_limit() {
    let events = [opened(50), deposited(100)];
    check(&events, withdraw(150), Ok(withdrawn(150)));
    let refusal = Refusal::InsufficientFunds { balance: money(100), overdraft_limit: money(50), amount: money(151) };
    check(&events, withdraw(151), Err(refusal));
    let account = given(&[opened(50), deposited(100), withdrawn(150)]);
    assert_eq!((account.balance, account.status), (money(-50), Status::Open));
}

#[test]
fn amounts_must_be_above_zero() {
    for amount in [0, -1] {
        let refusal = Refusal::AmountNotPositive { amount: money(amount) };
        check(&[opened(0)], deposit(amount), Err(refusal.clone()));
        check(&[opened(0)], withdraw(amount), Err(refusal));
    }
}

#[test]
fn a_balance_never_leaves_the_range_of_money() {
    let (max, full) = (Money::MAX.get(), [opened(Money::MAX.get()), deposited(Money::MAX.get())]);
    check(&full, deposit(1), Err(Refusal::BalanceTooLarge { balance: Money::MAX, amount: money(1) }));
    let empty = [opened(max), withdrawn(max)];
    let refusal = Refusal::InsufficientFunds { balance: money(-max), overdraft_limit: Money::MAX, amount: money(max) };
    check(&empty, withdraw(max), Err(refusal));
}

#[test]
fn only_an_empty_account_is_closed() {
    check(&[opened(0)], Command::Close, Ok(Event::Closed));
    check(&[opened(0), deposited(7)], Command::Close, Err(Refusal::BalanceNotZero { balance: money(7) }));
    check(&[opened(9), withdrawn(7)], Command::Close, Err(Refusal::BalanceNotZero { balance: money(-7) }));
}

#[test]
fn an_id_is_any_text_that_the_log_takes() {
    for id in ["1", "account 7", "Konto-Nr. 5/8", "účet"] {
        assert_eq!(id.parse::<AccountId>().unwrap().to_string(), id);
    }
    for id in ["", "!claim", "a\nb", &"x".repeat(201)] {
        assert!(id.parse::<AccountId>().is_err(), "{id:?}");
    }
}

/// Stored payloads are for ever: these bytes must be readable by every later release.
#[test]
fn payloads_are_stored_as_ever() {
    let with_reference = Event::Withdrawn { amount: money(7), reference: Some("rent".into()) };
    let in_branch = Event::Opened { owner: "Ada".into(), overdraft_limit: money(5), branch: Some("55".into()) };
    let stored = [
        (in_branch, "opened", r#"{"owner":"Ada","overdraft_limit":5,"branch":"55"}"#),
        (opened(5), "opened", r#"{"owner":"Ada","overdraft_limit":5}"#),
        (deposited(7), "deposited", r#"{"amount":7}"#),
        (with_reference, "withdrawn", r#"{"amount":7,"reference":"rent"}"#),
        (Event::Closed, "closed", "{}"),
    ];
    for (event, name, json) in stored {
        let (kind, payload) = codec::encode_event::<Json, Event>(&event).unwrap();
        assert_eq!((kind.name, kind.schema_version, payload), (name, 1, json.as_bytes().to_vec()));
        assert_eq!(codec::decode_event::<Json, Event>(name, 1, json.as_bytes()).unwrap(), event);
    }
}

/// A command's hash is over these bytes: with others, a command that was sent before would be refused as another one.
#[test]
fn a_command_without_a_branch_has_the_bytes_of_before_there_were_branches() {
    let sent = codec::encode_command::<Json, Command>(&open(5)).unwrap();
    let payload = br#"{"overdraft_limit":5,"owner":"Ada"}"#.as_slice();
    assert_eq!((sent.kind.name, sent.payload.as_slice()), ("open", payload));
    assert_eq!(sent.hash, es_core::CommandHash::of("open", payload));
}
