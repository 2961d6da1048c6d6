//! How an aggregate was, and what made a row what it is.

use es_core::doc::Account;
use es_core::{StreamId, Version};
use es_projections::audit::{At, AuditTrail, Order, Past, Query, StateAt, explain};
use es_projections::{Database, Error, RunningProjection};

use super::accounts::*;
use super::support::*;

async fn trail(events: &Events, database: &Database) -> RunningProjection {
    let trail = AuditTrail::new(std::slice::from_ref(&events.source)).keeping::<Account>();
    let worker = events.worker(database).start(trail).await.unwrap();
    caught_up(&worker).await;
    worker
}

fn past(id: &str) -> Past {
    Past::of(StreamId { category: "account".into(), id: key(id) })
}

/// The balance, and the version that it is of.
fn balance(state: Option<StateAt<Account>>) -> Option<(u64, u64)> {
    state.map(|then| (then.state.balance, then.last.recorded.envelope.version.get()))
}

fn changes(query: &Query, history: &es_projections::audit::History) -> Vec<String> {
    assert!(history.steps.len() <= query.limit as usize);
    let tell = |step: &es_projections::audit::Step| {
        let event = &step.entry.recorded.envelope;
        let changes = step.changes.as_ref().map(|changes| {
            let tell = |change: &es_projections::audit::Change| {
                let json = |value: &Option<serde_json::Value>| value.as_ref().map_or("-".into(), ToString::to_string);
                format!("{} {} {}", change.field, json(&change.from), json(&change.to))
            };
            changes.iter().map(tell).collect::<Vec<_>>().join(", ")
        });
        format!("{} {}: {}", event.version, event.event_type, changes.as_deref().unwrap_or("not known"))
    };
    history.steps.iter().map(tell).collect()
}

/// Shows: each version tells what it changed, in both orders and on whatever page it is.
pub async fn each_version_tells_what_it_changed(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for amount in [5, 7, -2, 0, 4] {
        events.move_money("a", amount);
        events.move_money("b", 1);
    }
    let _worker = trail(&events, &database).await;
    let expected = [
        "1 deposited: /balance - 5",
        "2 deposited: /balance 5 12",
        "3 withdrawn: /balance 12 10",
        "4 deposited: ",
        "5 deposited: /balance 10 14",
    ];
    for limit in [1, 2, 5, 1_000] {
        for order in [Order::OldestFirst, Order::NewestFirst] {
            let (mut query, mut told) = (Query { limit, order, ..Query::default() }, Vec::new());
            loop {
                let page = past("a").history::<Account>(&database, &query).await.unwrap();
                told.extend(changes(&query, &page));
                query.cursor = page.next;
                if query.cursor.is_none() {
                    break;
                }
            }
            if order == Order::NewestFirst {
                told.reverse();
            }
            assert_eq!(told, expected, "{limit} {order:?}");
        }
    }
    let nobody = past("nobody").history::<Account>(&database, &Query::default()).await.unwrap();
    assert_eq!((nobody.steps, nobody.next), (vec![], None));
    let query = Query { limit: 0, ..Query::default() };
    let error = past("a").history::<Account>(&database, &query).await.unwrap_err().to_string();
    assert_eq!(error, "limit 0 is not between 1 and 1000");
}

/// Shows: what can't be asked of a past is refused with the reason, and SQL in what is asked is text like any other.
pub async fn impossible_questions_about_a_past_are_refused(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    let ids = ["a", "b", "'; DROP TABLE bank_audit; --", "\" OR \"1\"=\"1", "a%_\\?$1", "/* ' \" */"];
    for id in ids {
        for amount in [5, 7, 2] {
            events.move_money(id, amount);
        }
    }
    let _worker = trail(&events, &database).await;
    let query = Query { limit: 2, ..Query::default() };
    let refused = async |id: &str, query: Query, reason: &str| {
        let error = past(id).history::<Account>(&database, &query).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    let cursor = past("a").history::<Account>(&database, &query).await.unwrap().next.unwrap();
    for limit in [0, 1_001, u32::MAX] {
        refused("a", Query { limit, ..query.clone() }, &format!("limit {limit} is not between 1 and 1000")).await;
    }
    let with = |cursor: &str, order| Query { cursor: Some(cursor.into()), order, ..query.clone() };
    let other = "is not one of this query";
    refused("b", with(&cursor, Order::NewestFirst), other).await;
    refused("a", with(&cursor, Order::OldestFirst), other).await;
    for rubbish in ["", "x", "'; DROP TABLE bank_audit; --", &format!("{cursor}'"), &format!("{cursor} OR 1=1")] {
        refused("a", with(rubbish, Order::NewestFirst), other).await;
    }
    let of_all = query.run(&database).await.unwrap().next.unwrap();
    refused("a", with(&of_all, Order::NewestFirst), other).await;
    for id in ids {
        let told = past(id).history::<Account>(&database, &Query::default()).await.unwrap();
        assert_eq!(told.steps.len(), 3, "{id}");
        assert!(told.steps.iter().all(|step| step.entry.recorded.envelope.stream.id.as_str() == id));
        let whole = past(id).state_at::<Account>(&database, &At::Version(Version::new(3))).await.unwrap();
        assert_eq!(balance(whole), Some((14, 3)), "{id}");
        let error = past(id).state_at::<Account>(&database, &At::Version(Version::new(u64::MAX))).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)) && error.to_string().contains(", only 3"), "{error:?}");
    }
    for nobody in ["' OR 1=1 --", "%", "_", "a'"] {
        assert!(past(nobody).history::<Account>(&database, &Query::default()).await.unwrap().steps.is_empty());
        let none = past(nobody).state_at::<Account>(&database, &At::Version(Version::new(1))).await.unwrap();
        assert_eq!(balance(none), None);
    }
    assert_eq!(count(&database, "audit").await, 18);
}

/// Shows: a state as of a version, as it was known at a time, and as it was at a business time, which events come to later.
pub async fn a_state_is_told_as_of_a_version_and_of_either_time(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let noon = events.now();
    let mut known = Vec::new();
    for (amount, day) in [(5, 0), (7, 10), (2, 3)] {
        events.move_money_on("a", amount, day);
        known.push(events.now());
    }
    // More than one page of events before.
    for _ in 0..2_000 {
        events.move_money_on("long", 1, 0);
    }
    let _worker = trail(&events, &database).await;
    let at = async |id: &str, at: At| balance(past(id).state_at::<Account>(&database, &at).await.unwrap());
    for (version, expected) in [(1, (5, 1)), (2, (12, 2)), (3, (14, 3))] {
        assert_eq!(at("a", At::Version(Version::new(version))).await, Some(expected));
        assert_eq!(at("a", At::Recorded(known[version as usize - 1])).await, Some(expected));
    }
    assert_eq!(at("long", At::Version(Version::new(1_500))).await, Some((1_500, 1_500)));
    assert_eq!(at("a", At::Recorded(noon)).await, None, "nothing was recorded yet");
    let day = |days| At::Occurred(known[2] + chrono::TimeDelta::days(days));
    assert_eq!(at("a", day(-1)).await, None);
    assert_eq!(at("a", day(0)).await, Some((5, 1)));
    assert_eq!(at("a", day(3)).await, Some((7, 3)), "the third came to be known last");
    assert_eq!(at("a", day(11)).await, Some((14, 3)));
    assert_eq!(at("nobody", At::Version(Version::new(1))).await, None);
    for (version, reason) in [
        (4, "account-a has no version 4 in the audit trail, only 3"),
        (0, "versions are counted from 1, and 0 was asked for"),
    ] {
        let error = past("a").state_at::<Account>(&database, &At::Version(Version::new(version))).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert_eq!(error.to_string(), reason);
    }
}

/// Shows: whatever is recorded first, an aggregate is not there before its first event took place; where events in between took place
/// later, the state is no version's, and tells how many.
pub async fn what_was_not_there_yet_is_not_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let now = events.now();
    // The newest first, as an archive may be sorted.
    for (amount, day) in [(5, 10), (7, 5), (2, 1)] {
        events.move_money_on("newest", amount, day);
    }
    for (amount, day) in [(5, 1), (7, 5), (2, 3), (1, 9)] {
        events.move_money_on("late", amount, day);
    }
    let _worker = trail(&events, &database).await;
    let at = async |id: &str, days| {
        let at = At::Occurred(now + chrono::TimeDelta::days(days) + chrono::TimeDelta::seconds(10));
        let then = past(id).state_at::<Account>(&database, &at).await.unwrap();
        then.map(|then| (then.state.balance, then.version().map(Version::get), then.left_out))
    };
    for day in [0, 1, 5, 9] {
        assert_eq!(at("newest", day).await, None, "{day}");
    }
    assert_eq!(at("newest", 10).await, Some((14, Some(3), 0)));
    assert_eq!(at("late", 0).await, None);
    assert_eq!(at("late", 1).await, Some((5, Some(1), 0)));
    assert_eq!(at("late", 3).await, Some((7, None, 1)), "no version left it so");
    assert_eq!(at("late", 5).await, Some((14, Some(3), 0)));
    assert_eq!(at("late", 9).await, Some((15, Some(4), 0)));
}

async fn run(database: &Database, statement: &str) {
    let mut tx = database.begin().await.unwrap();
    assert!(tx.execute(statement, &[]).await.unwrap() > 0, "{statement}");
    tx.commit().await.unwrap();
}

/// Shows: of an aggregate with very many events few are read to tell a late version, its history or its state at a time: those behind
/// the last state that the trail kept. A state that is not what the events give is found by a comparison with the log, one of another form
/// is not used, and what stands at its place is compared.
pub async fn a_version_of_very_many_is_told_from_a_kept_state(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    for _ in 0..1_300 {
        events.move_money("long", 1);
        events.now();
    }
    let worker = trail(&events, &database).await;
    assert_eq!(count(&database, "audit_states").await, 2);
    let trail = || AuditTrail::new(std::slice::from_ref(&events.source)).keeping::<Account>();
    let verdict = async || events.worker(&database).verify(trail(), |_| ()).await.unwrap().verdict();
    assert_eq!(verdict().await, es_projections::Verdict::Equal);
    // Whoever reads it notices.
    run(&database, r#"UPDATE bank_audit SET payload = '{"amount":300}' WHERE version = 3"#).await;
    let at = async |at: At| past("long").state_at::<Account>(&database, &at).await.map(balance);
    let version = |version| At::Version(Version::new(version));
    let is_damaged = |told: Result<_, Error>| matches!(told, Err(Error::Damaged(_)));
    assert_eq!(at(version(1_300)).await.unwrap(), Some((1_300, 1_300)));
    assert_eq!(at(version(1_000)).await.unwrap(), Some((1_000, 1_000)));
    assert_eq!(at(version(999)).await.unwrap(), Some((999, 999)));
    assert_eq!(at(At::Recorded(events.now())).await.unwrap(), Some((1_300, 1_300)));
    assert_eq!(at(At::Occurred(events.now())).await.unwrap(), Some((1_300, 1_300)));
    assert!(is_damaged(at(version(499)).await), "before the first state all are read");
    let newest = past("long").history::<Account>(&database, &Query { limit: 2, ..Query::default() }).await.unwrap();
    let told = changes(&Query { limit: 2, ..Query::default() }, &newest);
    assert_eq!(told, ["1300 deposited: /balance 1299 1300", "1299 deposited: /balance 1298 1299"]);
    let error = at(version(1_301)).await.unwrap_err().to_string();
    assert_eq!(error, "account-long has no version 1301 in the audit trail, only 1300");
    run(&database, r#"UPDATE bank_audit SET payload = '{"amount":1}' WHERE version = 3"#).await;
    run(&database, r#"UPDATE bank_audit_states SET state = '{"balance":7}' WHERE version = 1000"#).await;
    assert_eq!(verdict().await, es_projections::Verdict::Differs);
    // What is kept only spares reading: where it can't be read, events are.
    let unreadable = if url.starts_with("postgres") { "'infinity'" } else { "CAST(x'ff' AS TEXT)" };
    run(&database, &format!("UPDATE bank_audit_states SET occurred_first = {unreadable} WHERE version = 1000")).await;
    assert_eq!(at(version(1_300)).await.unwrap(), Some((1_300, 1_300)), "from the state before");
    run(&database, "UPDATE bank_audit_states SET occurred_first = occurred_last WHERE version = 1000").await;
    assert_eq!(at(version(1_300)).await.unwrap(), Some((307, 1_300)), "from what is kept");
    run(&database, "UPDATE bank_audit_states SET form = 'another' WHERE version = 1000").await;
    assert_eq!(at(version(1_300)).await.unwrap(), Some((1_300, 1_300)), "from the state before");
    run(&database, "UPDATE bank_audit_states SET form = 'another' WHERE version = 500").await;
    assert_eq!(at(version(1_300)).await.unwrap(), Some((1_300, 1_300)), "from the first event on");
    worker.stop().await.unwrap();
}

/// Shows: after a release that keeps states in another form the comparison with the log is equal still, and the trail goes on keeping:
/// the earlier ones anew, too.
pub async fn states_of_an_earlier_release_are_kept_anew(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    (0..1_100).for_each(|_| drop(events.move_money("long", 1)));
    let worker = trail(&events, &database).await;
    run(&database, "UPDATE bank_audit_states SET form = 'another', state = '{}' WHERE version > 0").await;
    let trail = || AuditTrail::new(std::slice::from_ref(&events.source)).keeping::<Account>();
    let verified = events.worker(&database).verify(trail(), |_| ()).await.unwrap();
    assert_eq!(verified.verdict(), es_projections::Verdict::Equal, "{:?}", verified.differences().next());
    (0..500).for_each(|_| drop(events.move_money("long", 1)));
    caught_up(&worker).await;
    let sql = "SELECT version FROM bank_audit_states WHERE form <> 'another' ORDER BY version";
    let kept = database.fetch(sql, &[]).await.unwrap();
    let kept: Vec<i64> = kept.iter().map(|row| row.get("version").unwrap()).collect();
    assert_eq!(kept, [500, 1_000, 1_500]);
    let told = past("long").state_at::<Account>(&database, &At::Version(Version::new(1_600))).await.map(balance);
    assert_eq!(told.unwrap(), Some((1_600, 1_600)));
    worker.stop().await.unwrap();
}

/// Shows: at every business time, in whatever order such times come, the states that are kept change nothing of what is told.
pub async fn business_times_in_any_order_are_told_as_if_all_were_read(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let (now, mut rng, mut days) = (events.now(), fastrand::Rng::with_seed(11), Vec::new());
    for version in 1..=1_700 {
        // In order at first, then long before, then all over the place.
        let day = match version {
            ..=600 => version / 10,
            601..=1_100 => rng.i64(40..50),
            _ => rng.i64(2..200),
        };
        events.move_money_on("a", version, day);
        days.push(day);
    }
    let _worker = trail(&events, &database).await;
    assert_eq!(count(&database, "audit_states").await, 3);
    for day in [-1, 0, 1, 30, 39, 45, 49, 55, 60, 120, 199, 300] {
        let time = now + chrono::TimeDelta::days(day) + chrono::TimeDelta::seconds(10);
        let then = past("a").state_at::<Account>(&database, &At::Occurred(time)).await.unwrap();
        let counted: Vec<u64> = (1..).zip(&days).filter(|(_, at)| **at <= day).map(|(version, _)| version).collect();
        let expected = counted.last().map(|last| (counted.iter().sum(), *last, last - counted.len() as u64));
        let told = then.map(|then| (then.state.balance, then.last.recorded.envelope.version.get(), then.left_out));
        assert_eq!(told, expected, "on day {day}");
    }
}

/// Shows: from an event on that this program can't fold nothing is told, and before all; and its name is.
pub async fn what_can_not_be_folded_again_is_told(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    events.move_money("a", 5);
    events.rubbish("a", "renamed", "{}");
    events.move_money("a", 1);
    let _worker = trail(&events, &database).await;
    let query = Query { order: Order::OldestFirst, ..Query::default() };
    let history = past("a").history::<Account>(&database, &query).await.unwrap();
    let expected = ["1 deposited: /balance - 5", "2 renamed: not known", "3 deposited: not known"];
    assert_eq!(changes(&query, &history), expected);
    let at = async |version| past("a").state_at::<Account>(&database, &At::Version(Version::new(version))).await;
    assert_eq!(balance(at(1).await.unwrap()), Some((5, 1)));
    let error = at(3).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    let reason = r#"version 2: the type "renamed" is not known to this program"#;
    assert_eq!(error.to_string(), format!("account-a can't be folded by this program: {reason}"));
}

/// Shows: an event that somebody changed in the database, moved or deleted is noticed by whoever asks for the past.
pub async fn a_past_that_was_changed_is_noticed(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    for id in ["changed", "swapped", "deleted", "first", "whole"] {
        for amount in 1..=4 {
            events.move_money(id, amount);
        }
    }
    let _worker = trail(&events, &database).await;
    let mut tx = database.begin().await.unwrap();
    for change in [
        r#"UPDATE bank_audit SET payload = '{"amount":300}' WHERE aggregate_id = 'changed' AND version = 3"#,
        "UPDATE bank_audit SET version = 9 WHERE aggregate_id = 'swapped' AND version = 2",
        "UPDATE bank_audit SET version = 2 WHERE aggregate_id = 'swapped' AND version = 3",
        "UPDATE bank_audit SET version = 3 WHERE aggregate_id = 'swapped' AND version = 9",
        "DELETE FROM bank_audit WHERE aggregate_id = 'deleted' AND version = 3",
        "DELETE FROM bank_audit WHERE aggregate_id = 'first' AND version = 1",
    ] {
        assert_eq!(tx.execute(change, &[]).await.unwrap(), 1, "{change}");
    }
    tx.commit().await.unwrap();
    for (id, reason) in [
        ("changed", "version 3 of account-changed in the audit trail is not what was recorded"),
        ("swapped", "version 2 of account-swapped in the audit trail is not what was recorded"),
        ("deleted", "version 3 of account-deleted is not in the audit trail, and version 4 is"),
        ("first", "version 1 of account-first is not in the audit trail, and version 2 is"),
    ] {
        let at = At::Version(Version::new(4));
        let error = past(id).state_at::<Account>(&database, &at).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error:?}");
        let state = error.to_string();
        let newest = Query { limit: 1, ..Query::default() };
        let history = past(id).history::<Account>(&database, &newest).await.unwrap_err().to_string();
        assert!(state.starts_with(reason), "{state}");
        assert!(history.ends_with(&state), "{history}");
    }
    let whole = past("whole").state_at::<Account>(&database, &At::Version(Version::new(4))).await.unwrap();
    assert_eq!(balance(whole), Some((10, 4)));
}

/// Shows: a row leads to the event that last changed it, and that to who asked for it.
pub async fn a_row_leads_to_the_event_that_changed_it(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    let model = events.worker(&database).start(model()).await.unwrap();
    events.move_money("a", 5);
    let payload = br#"{"amount":2}"#.as_slice();
    let event = events.event("a", "deposited", payload.into(), |event| event.actor = Some("ann".parse().unwrap()));
    events.add_event(&event);
    let last = events.move_money("b", 7);
    model.wait_for(&last, SOON).await.unwrap();
    caught_up(&model).await;
    let lineage = database.lineage::<AccountRow>(&"a".to_owned()).await.unwrap().unwrap();
    let _worker = trail(&events, &database).await;
    let entry = explain(&database, &lineage).await.unwrap().unwrap();
    assert_eq!(entry.recorded.envelope, event);
    assert_eq!(entry.recorded.envelope.actor.as_ref().unwrap().as_str(), "ann");
    let other = es_projections::Lineage { event_id: es_core::EventId::fresh(1), ..lineage };
    assert_eq!(explain(&database, &other).await.unwrap(), None);
}
