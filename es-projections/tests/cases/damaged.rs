//! Rows that somebody damaged by hand: told at their places, while all others are read.

use es_core::doc::Account;
use es_core::{CommandHash, StreamId};
use es_projections::audit::{AuditTrail, Entry, Order, Past, Query, Refused, RefusedQuery, Step, explain};
use es_projections::{After, DamagedRow, Database, Error, Readable, RunningProjection};

use super::accounts::*;
use super::support::*;

const ORDERS: [Order; 2] = [Order::OldestFirst, Order::NewestFirst];

async fn trail(events: &Events, database: &Database) -> RunningProjection {
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let worker = events.worker(database).start(trail).await.unwrap();
    caught_up(&worker).await;
    worker
}

async fn run(database: &Database, statements: &[&str]) {
    let mut tx = database.begin().await.unwrap();
    for statement in statements {
        assert!(tx.execute(statement, &[]).await.unwrap() > 0, "{statement}");
    }
    tx.commit().await.unwrap();
}

/// What no program can read as text, a time or a date. PostgreSQL keeps everything else out, and knows times that Rust has none for.
fn unreadable(url: &str, kind: &str) -> String {
    if url.starts_with("postgres") { format!("'infinity'::{kind}") } else { "CAST(x'ff' AS TEXT)".into() }
}

fn shown<T>(items: &[Result<T, DamagedRow>], show: impl Fn(&T) -> String) -> Vec<String> {
    let one = |item: &Result<T, DamagedRow>| match item {
        Ok(item) => show(item),
        Err(damaged) => format!("! {}", damaged.row.split(" at ").next().unwrap()),
    };
    items.iter().map(one).collect()
}

fn version(entry: &Entry) -> String {
    let event = &entry.recorded.envelope;
    format!("{} {}", event.stream.id, event.version)
}

/// All pages of a list, none of which has more than it may.
async fn pages<T, C>(limit: usize, ask: impl AsyncFn(Option<C>) -> Readable<T, C>) -> Vec<Result<T, DamagedRow>> {
    let (mut all, mut cursor, mut asked) = (Vec::new(), None, 0);
    loop {
        let page = ask(cursor).await;
        assert!(page.items.len() <= limit);
        asked += 1;
        assert!(asked < 100, "it goes in circles");
        all.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return all;
        }
    }
}

/// Shows: an entry of the trail that can't be read takes no other with it, wherever it stands and whatever is asked for: it is told at its
/// place, once, and the pages go on behind it. Who must have all is told that this is not all.
pub async fn damaged_entries_take_no_page_with_them(url: &str) {
    let (database, mut events) =
        (connect(url).await, Events::with_partitions("account", es_core::log::memory::MemoryLog::new(1), 1));
    for amount in 1..=7 {
        events.move_money("a", amount);
    }
    let _worker = trail(&events, &database).await;
    run(
        &database,
        &[
            "UPDATE bank_audit SET correlation_id = '' WHERE version = 1", // no id is empty
            &format!("UPDATE bank_audit SET occurred_at = {} WHERE version = 3", unreadable(url, "timestamptz")),
            "UPDATE bank_audit SET topic_partition = -1 WHERE version = 4",
            "UPDATE bank_audit SET command_id = '' WHERE version = 7",
        ],
    )
    .await;
    let of_stream = Some(StreamId { category: "account".into(), id: key("a") });
    let asked = [
        Query { aggregate: of_stream.clone(), ..Query::default() },
        Query { recorded_to: Some(events.now() + chrono::TimeDelta::seconds(1)), ..Query::default() },
        Query { event_type: Some("deposited".into()), ..Query::default() },
    ];
    let expected = [
        "! version 1 of account-a",
        "a 2",
        "! version 3 of account-a",
        "! version 4 of account-a",
        "a 5",
        "a 6",
        "! version 7 of account-a",
    ];
    for query in asked {
        for (order, limit) in ORDERS.into_iter().flat_map(|order| [1, 2, 3, 7, 100].map(|limit| (order, limit))) {
            let ask = async |cursor| {
                let query = Query { order, limit, cursor, ..query.clone() };
                query.run_readable(&database).await.unwrap()
            };
            let mut all = shown(&pages(limit as usize, ask).await, version);
            if order == Order::NewestFirst {
                all.reverse();
            }
            assert_eq!(all, expected, "{query:?} {order:?} {limit}");
        }
        let error = Query { limit: 2, order: Order::OldestFirst, ..query }.run(&database).await.unwrap_err();
        assert!(matches!(error, Error::Damaged(_)), "{error:?}");
    }
}

/// Shows: the same of commands that were refused.
pub async fn damaged_refusals_take_no_page_with_them(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    events.move_money("a", 1);
    let _worker = trail(&events, &database).await;
    let mut tx = database.begin().await.unwrap();
    let columns = "topic, topic_partition, topic_offset, place, category, aggregate_id, version, command_id, command_hash, \
                   correlation_id, recorded_at, answer, reason";
    let insert = format!(
        "INSERT INTO bank_audit_refused ({columns}) VALUES ('t', 0, 9, ?, 'account', 'a', 1, ?, ?, 'corr', ?, 'refused', '1')"
    );
    let hash = es_projections::Value::from(CommandHash::default().0.as_slice());
    for place in 0..6_i64 {
        let args = [place.into(), format!("command {place}").into(), hash.clone(), events.now().into()];
        tx.execute(&insert, &args).await.unwrap();
    }
    tx.commit().await.unwrap();
    run(
        &database,
        &[
            "UPDATE bank_audit_refused SET version = -1 WHERE place = 0",
            "UPDATE bank_audit_refused SET command_id = '' WHERE place = 2",
            "UPDATE bank_audit_refused SET correlation_id = '' WHERE place = 3",
            "UPDATE bank_audit_refused SET topic_offset = -9 WHERE place = 5",
        ],
    )
    .await;
    let show = |refused: &Refused| refused.command_id.to_string();
    // The newest first: what has another offset now is the last.
    let expected = ["command 4", "! answer 3", "! answer 2", "command 1", "! answer 0", "! answer 5"];
    for limit in [1, 2, 3, 6, 100] {
        let ask = async |cursor| {
            RefusedQuery { limit, cursor, ..RefusedQuery::default() }.run_readable(&database).await.unwrap()
        };
        assert_eq!(shown(&pages(limit as usize, ask).await, show), expected, "{limit}");
    }
    let error = RefusedQuery::default().run(&database).await.unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error:?}");
}

/// Shows: an aggregate's history tells the versions that are damaged or missing, and all others. What those behind one changed is not
/// known; the hash chain is followed on from the first that can be read.
pub async fn a_damaged_version_takes_no_history_with_it(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    for id in ["unreadable", "changed", "deleted", "first"] {
        for amount in 1..=4 {
            events.move_money(id, amount);
        }
    }
    let _worker = trail(&events, &database).await;
    run(
        &database,
        &[
            "UPDATE bank_audit SET command_id = '' WHERE aggregate_id = 'unreadable' AND version = 3",
            r#"UPDATE bank_audit SET payload = '{"amount":300}' WHERE aggregate_id = 'changed' AND version = 3"#,
            "DELETE FROM bank_audit WHERE aggregate_id = 'deleted' AND version = 3",
            r#"UPDATE bank_audit SET payload = '{"amount":300}' WHERE aggregate_id = 'first' AND version IN (1, 3)"#,
        ],
    )
    .await;
    let show = |step: &Step| {
        let changed = step.changes.as_ref().map_or("not known".into(), |changes| changes.len().to_string());
        format!("{}: {changed}", step.entry.recorded.envelope.version)
    };
    for (id, expected) in [
        ("unreadable", ["1: 1", "2: 1", "! version 3 of account-unreadable", "4: not known"]),
        ("changed", ["1: 1", "2: 1", "! version 3 of account-changed", "4: not known"]),
        ("deleted", ["1: 1", "2: 1", "! version 3 of account-deleted", "4: not known"]),
        ("first", ["! version 1 of account-first", "2: not known", "! version 3 of account-first", "4: not known"]),
    ] {
        let past = Past::of(StreamId { category: "account".into(), id: key(id) });
        for order in ORDERS {
            let query = Query { order, ..Query::default() };
            let mut all = shown(&past.history_readable::<Account>(&database, &query).await.unwrap().items, show);
            if order == Order::NewestFirst {
                all.reverse();
            }
            assert_eq!(all, expected, "{order:?}");
            let error = past.history::<Account>(&database, &query).await.unwrap_err();
            assert!(matches!(error, Error::Damaged(_)), "{error:?}");
        }
        // On a page of its own a version does not know what came before it, and is told all the same.
        let newest = Query { limit: 1, ..Query::default() };
        let page = past.history_readable::<Account>(&database, &newest).await.unwrap();
        // One that is missing stands before the next one.
        let missing = (id == "deleted").then_some("! version 3 of account-deleted");
        let told: Vec<_> = ["4: not known"].into_iter().chain(missing).collect();
        assert_eq!(shown(&page.items, show), told, "{id}");
        let next = Query { cursor: page.next, ..Query::default() };
        let rest = past.history_readable::<Account>(&database, &next).await.unwrap();
        assert_eq!(page.items.len() + rest.items.len(), 4, "{id}: {rest:?}");
    }
}

/// Shows: what made a row is told, though another event that was recorded at the same time can't be read; where it may be that one itself,
/// this is told.
pub async fn a_damaged_entry_takes_no_lineage_with_it(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    let model = events.worker(&database).start(model()).await.unwrap();
    events.move_money("a", 5);
    events.move_money("b", 5);
    caught_up(&model).await;
    let _worker = trail(&events, &database).await;
    run(
        &database,
        &[
            "UPDATE bank_audit SET recorded_at = (SELECT recorded_at FROM bank_audit WHERE aggregate_id = 'a') WHERE aggregate_id = 'b'",
            "UPDATE bank_audit SET command_id = '' WHERE aggregate_id = 'b'",
        ],
    )
    .await;
    let lineage = database.lineage::<AccountRow>(&"a".to_owned()).await.unwrap().unwrap();
    let entry = explain(&database, &lineage).await.unwrap().unwrap();
    assert_eq!(entry.recorded.envelope.event_id, lineage.event_id);
    let other = es_projections::Lineage { event_id: es_core::EventId::fresh(1), ..lineage };
    let error = explain(&database, &other).await.unwrap_err();
    assert!(matches!(error, Error::Damaged(_)), "{error:?}");
}

/// Shows: a row of a read model that can't be read, its key included, takes no list with it; pages go on behind it.
pub async fn damaged_rows_take_no_list_with_them(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    for day in 0..6 {
        events.move_money_on("a", 3, day);
    }
    let worker = events.worker(&database).start(model()).await.unwrap();
    caught_up(&worker).await;
    let days = database.rows::<BankRow>("ORDER BY day", &[]).await.unwrap();
    let day = |n: usize| days[n].day.to_string();
    let first = if url.starts_with("postgres") { "'-infinity'" } else { "CAST(x'30ff' AS TEXT)" };
    run(
        &database,
        &[
            "UPDATE bank_accounts SET events = -1",
            &format!("UPDATE bank_banks SET day = {} WHERE day = '{}'", unreadable(url, "date"), day(5)),
            &format!("UPDATE bank_banks SET day = {first} WHERE day = '{}'", day(0)),
            &format!("UPDATE bank_banks SET es_position = 'x' WHERE day = '{}'", day(2)),
        ],
    )
    .await;
    // Lineage is not read with a row.
    let damaged = || [format!("! {} ?", days[0].bank)];
    let expected: Vec<_> = damaged().into_iter().chain((1..5).map(day)).chain(damaged()).collect();
    for limit in [1, 2, 4, 6, 100] {
        let ask =
            async |after: Option<After<_>>| database.page::<BankRow>(&after.unwrap_or_default(), limit).await.unwrap();
        let all = shown(&pages(limit as usize, ask).await, |row| row.day.to_string());
        assert_eq!(all, expected, "{limit}");
    }
    let page = database.page::<AccountRow>(&After::default(), 10).await.unwrap();
    assert_eq!(shown(&page.items, |row| row.id.clone()), ["! a"]);
    assert!(matches!(database.rows::<BankRow>("", &[]).await, Err(Error::Damaged(_))), "who wants all is told");
    if !url.ends_with(":memory:") {
        let mut moment = database.at_one_moment(&["banks"]).await.unwrap();
        let page = moment.page::<BankRow>(&After::default(), 10).await.unwrap();
        assert_eq!(shown(&page.items, |row| row.day.to_string()), expected);
    }
    worker.stop().await.unwrap();
}

/// Shows: of what is parked, and of what waits, a row that can't be read takes no other with it.
pub async fn damaged_rows_take_nothing_parked_with_them(url: &str) {
    let (database, mut events) = (connect(url).await, Events::new());
    let worker = events.worker(&database).park_after(0).start(model()).await.unwrap();
    for id in ["a", "b", "c"] {
        events.move_money(id, FAILS as i64);
        events.move_money(id, 1);
    }
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    run(
        &database,
        &[
            "UPDATE bank_es_parked SET attempts = -1 WHERE aggregate_id = 'b'",
            "UPDATE bank_es_waiting SET command_id = '' WHERE aggregate_id = 'c' AND version = 1",
        ],
    )
    .await;
    let parked = database.parked_readable("accounts", 10).await.unwrap();
    let mut parked = shown(&parked, |parked| parked.aggregate_id.clone());
    parked.sort();
    assert_eq!(parked, ["! account-b, parked in read model accounts", "a", "c"]);
    assert!(matches!(database.parked("accounts", 10).await, Err(Error::Damaged(_))));
    let stream = StreamId { category: "account".into(), id: key("c") };
    let waiting = database.waiting_readable("accounts", &stream, 10).await.unwrap();
    assert_eq!(shown(&waiting, version), ["! version 1 of account-c", "c 2"]);
}
