//! Given events, when a command comes, then events or a refusal.

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
    Event::Deposited {
        amount: money(amount),
        reference: None,
        #[cfg(next_release)]
        note: None,
    }
}

fn withdrawn(amount: i64) -> Event {
    Event::Withdrawn { amount: money(amount), reference: None }
}

fn open(overdraft_limit: i64) -> Command {
    Command::Open { owner: "Ada".into(), overdraft_limit: money(overdraft_limit), branch: None }
}

fn deposit(amount: i64) -> Command {
    Command::Deposit {
        amount: money(amount),
        reference: None,
        #[cfg(next_release)]
        note: None,
    }
}

fn withdraw(amount: i64) -> Command {
    Command::Withdraw { amount: money(amount), reference: None, fee: None }
}

fn withdraw_with_fee(amount: i64, fee: i64) -> Command {
    Command::Withdraw { amount: money(amount), reference: Some("rent".into()), fee: Some(money(fee)) }
}

fn insufficient(balance: i64, overdraft_limit: i64, amount: i64, fee: Option<i64>) -> Refusal {
    let (balance, overdraft_limit, amount) = (money(balance), money(overdraft_limit), money(amount));
    Refusal::InsufficientFunds { balance, overdraft_limit, amount, fee: fee.map(money) }
}

fn given(events: &[Event]) -> Account {
    let mut account = Account::default();
    events.iter().for_each(|event| account.apply(event));
    account
}

#[track_caller]
fn check(events: &[Event], command: Command, then: Result<Event, Refusal>) {
    assert_eq!(given(events).decide(command), then.map(|event| vec![event]));
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
        assert_eq!(given(events).decide(reserve.clone()), Ok(Vec::new()));
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
    check(&events, withdraw(151), Err(insufficient(100, 50, 151, None)));
    let account = given(&[opened(50), deposited(100), withdrawn(150)]);
    assert_eq!((account.balance, account.status), (money(-50), Status::Open));
}

#[test]
fn a_fee_is_taken_with_the_withdrawal_or_neither() {
    let events = [opened(50), deposited(100)];
    let both = given(&events).decide(withdraw_with_fee(120, 30)).unwrap();
    let rent = Event::Withdrawn { amount: money(120), reference: Some("rent".into()) };
    let fee = Event::Withdrawn { amount: money(30), reference: Some("fee".into()) };
    assert_eq!(both, [rent, fee]);
    let refusal = insufficient(100, 50, 120, Some(31));
    assert_eq!(
        refusal.to_string(),
        "the balance is 100 and may go down to -50, 120 and a fee of 31 are more than that"
    );
    check(&events, withdraw_with_fee(120, 31), Err(refusal));
    for fee in [0, -1] {
        let refusal = Refusal::AmountNotPositive { amount: money(fee) };
        check(&events, withdraw_with_fee(1, fee), Err(refusal));
    }
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
    check(&empty, withdraw(max), Err(insufficient(-max, max, max, None)));
    // The sum is out of the range of money, and so is what would be left.
    check(&[opened(max)], withdraw_with_fee(max, 1), Err(insufficient(0, max, max, Some(1))));
    // The sum is, and what is left is not.
    assert_eq!(given(&full).decide(withdraw_with_fee(max, max)).unwrap().len(), 2);
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
fn a_command_without_later_fields_has_the_bytes_of_before_there_were_these() {
    let before = [
        (open(5), "open", r#"{"overdraft_limit":5,"owner":"Ada"}"#),
        (withdraw(5), "withdraw", r#"{"amount":5}"#),
        (deposit(5), "deposit", r#"{"amount":5}"#),
    ];
    for (command, name, payload) in before {
        let sent = codec::encode_command::<Json, Command>(&command).unwrap();
        assert_eq!((sent.kind.name, sent.payload.as_slice()), (name, payload.as_bytes()));
        assert_eq!(sent.hash, es_core::CommandHash::of(name, payload.as_bytes()));
    }
}

/// Refusals are stored too, in answers records.
#[test]
fn refusals_are_stored_as_ever() {
    let stored = r#"{"InsufficientFunds":{"balance":1,"overdraft_limit":2,"amount":4}}"#;
    let refusal = insufficient(1, 2, 4, None);
    assert_eq!(serde_json::to_string(&refusal).unwrap(), stored);
    assert_eq!(serde_json::from_str::<Refusal>(stored).unwrap(), refusal);
}
