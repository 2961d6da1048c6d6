//! The audit trail holds every event as it was recorded, and answers what is asked of it.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use es_core::{Envelope, MessageType};
use es_projections::audit::{AuditTrail, Order, PayloadField, Query};
use es_projections::{Check, Database, Error, RunningProjection};

use super::support::*;

const NASTY: [&str; 6] = [
    "'; DROP TABLE bank_audit; --",
    "\" OR \"1\"=\"1",
    "a%_\\?$1:x{}",
    "\u{1f600}\u{feff} \u{202e}",
    "1) UNION SELECT 1 --",
    "/* ' \" ? */",
];

async fn trail(events: &Events, database: &Database) -> RunningProjection {
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let worker = events.worker(database).start(trail).await.unwrap();
    caught_up(&worker).await;
    worker
}

async fn ask(database: &Database, query: Query) -> Vec<Envelope> {
    let page = query.run(database).await.unwrap();
    assert_eq!(page.next, None);
    page.entries.into_iter().map(|entry| entry.recorded.envelope).collect()
}

fn oldest_first() -> Query {
    Query { order: Order::OldestFirst, ..Query::default() }
}

/// Shows: what was recorded is what the trail tells, whatever characters it holds; and its hash holds still.
pub async fn every_field_comes_back_whatever_it_holds(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let mut written = Vec::new();
    for nasty in NASTY {
        let payload = serde_json::to_vec(
            &serde_json::json!({ nasty: [nasty, null, 1], "text": nasty, "nested": { nasty: nasty } }),
        )
        .unwrap();
        let event = events.event(nasty, nasty, payload.into(), |event| {
            event.command_id = nasty.parse().unwrap();
            // Half of them begin their conversation, half join one.
            let prefix = if nasty.contains('"') { "joined " } else { "" };
            event.correlation_id = format!("{prefix}{nasty}").parse().unwrap();
            event.causation_id = Some(nasty.parse().unwrap());
            event.actor = Some(nasty.parse().unwrap());
            event.traceparent = Some(nasty.into());
            event.schema_version = 3;
            event.occurred_at = "1993-02-03T04:05:06.789012Z".parse().unwrap();
        });
        events.add_event(&event);
        written.push(event);
    }
    trail(&events, &database).await;
    assert_eq!(ask(&database, oldest_first()).await, written);
    for event in &written {
        assert_eq!(event.compute_hash(), event.hash);
        for query in [
            Query { aggregate: Some(event.stream.clone()), ..Query::default() },
            Query { actor: event.actor.clone(), ..Query::default() },
            Query { correlation: Some(event.correlation_id.clone()), ..Query::default() },
            Query { command: Some(event.command_id.clone()), ..Query::default() },
            Query { causation: event.causation_id.clone(), ..Query::default() },
            // Each caused itself: the tree ends all the same.
            Query { caused_by: event.causation_id.clone(), ..Query::default() },
            Query { fields: vec![format!("text={}", event.event_type).parse().unwrap()], ..Query::default() },
            Query {
                fields: vec![PayloadField::new(["nested", &event.event_type], &*event.event_type).unwrap()],
                ..Query::default()
            },
            Query { event_type: Some(event.event_type.as_ref().into()), ..Query::default() },
        ] {
            assert_eq!(ask(&database, query).await, std::slice::from_ref(event));
        }
    }
    let entry = &oldest_first().run(&database).await.unwrap().entries[0];
    assert_eq!(entry.topic.as_ref(), "bank.account.events");
    assert_eq!((entry.recorded.partition, entry.recorded.offset), (partition(NASTY[0]), 1));
}

/// Shows: no payload stops the trail, and each is kept to the byte.
pub async fn payloads_that_are_not_json_are_kept(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let deep = "[".repeat(5000) + &"]".repeat(5000);
    let mut written = Vec::new();
    for (content_type, payload) in [
        ("application/json", "{\"a\": \"\\u0000\", \"n\": 1e999999, \"a\":  2 }\n".as_bytes()),
        ("application/json", br#""\ud800""#),
        ("application/json", b""),
        ("application/json", b"{\"a\":"),
        ("application/json", b"\xff\xfe"),
        ("application/json", b"\"a\0b\""),
        ("application/json", deep.as_bytes()),
        ("application/cloudevents+json; charset=utf-8", b"[1]"),
        ("application/x-protobuf", b"\x00\x01\xff"),
        ("text/plain", b"{}"),
        ("with a zero \0 character", b"{}"),
    ] {
        let event = events.event("a", "added", Bytes::copy_from_slice(payload), |event| {
            event.content_type = content_type.into();
        });
        events.add_event(&event);
        written.push(Envelope { content_type: content_type.replace('\0', "\u{fffd}").into(), ..event });
    }
    let worker = trail(&events, &database).await;
    assert_eq!(ask(&database, oldest_first()).await, written);
    assert!(written.iter().all(|event| event.compute_hash() == event.hash));
    let sql =
        format!("SELECT count(payload) AS json, count(payload_bytes) AS bytes FROM {}", database.table_name("audit"));
    let row = database.fetch(&sql, &[]).await.unwrap().remove(0);
    assert_eq!((row.get::<i64>("json").unwrap(), row.get::<i64>("bytes").unwrap()), (3, 8));
    worker.stop().await.unwrap();
}

/// Ten events an hour apart in business time, of two accounts, two actors, two types.
async fn ten(database: &Database) -> (Events, Vec<Envelope>, DateTime<Utc>) {
    let mut events = Events::new();
    let noon: DateTime<Utc> = "1993-06-01T12:00:00Z".parse().unwrap();
    let mut written = Vec::new();
    for number in 0..10 {
        let (id, kind) = (["a", "b"][number % 2], ["deposited", "withdrawn"][number / 5]);
        let payload = serde_json::json!({ "number": number, "even": number % 2 == 0 }).to_string();
        let event = events.event(id, kind, payload.into(), |event| {
            event.occurred_at = noon + TimeDelta::hours(number as i64);
            event.actor = Some(["ann", "bob"][number / 3 % 2].parse().unwrap());
        });
        events.add_event(&event);
        written.push(event);
    }
    trail(&events, database).await;
    (events, written, noon)
}

pub async fn filters_combine(url: &str) {
    let database = connect(url).await;
    let (_events, written, noon) = ten(&database).await;
    let expect = async |query: Query, places: &[usize]| {
        let expected: Vec<_> = places.iter().map(|place| written[*place].clone()).collect();
        assert_eq!(ask(&database, Query { order: Order::OldestFirst, ..query.clone() }).await, expected);
        let reversed: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(ask(&database, query).await, reversed);
    };
    let actor = Some("bob".parse().unwrap());
    let event_type = Some("withdrawn".to_owned());
    let aggregate = Some(written[0].stream.clone());
    expect(Query::default(), &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).await;
    expect(Query { actor: actor.clone(), ..Query::default() }, &[3, 4, 5, 9]).await;
    expect(Query { actor: actor.clone(), event_type, ..Query::default() }, &[5, 9]).await;
    expect(Query { actor: actor.clone(), aggregate: aggregate.clone(), ..Query::default() }, &[4]).await;
    let (from, to) = (Some(noon + TimeDelta::hours(3)), Some(noon + TimeDelta::hours(6)));
    expect(Query { from, ..Query::default() }, &[3, 4, 5, 6, 7, 8, 9]).await;
    expect(Query { to, ..Query::default() }, &[0, 1, 2, 3, 4, 5]).await;
    expect(Query { from, to, aggregate, ..Query::default() }, &[4]).await;
    expect(Query { actor: Some("nobody".parse().unwrap()), ..Query::default() }, &[]).await;
    let recorded = |place: usize| Some(written[place].recorded_at);
    let (recorded_from, recorded_to) = (recorded(4), recorded(8));
    expect(Query { recorded_from, ..Query::default() }, &[4, 5, 6, 7, 8, 9]).await;
    expect(Query { recorded_to, ..Query::default() }, &[0, 1, 2, 3, 4, 5, 6, 7]).await;
    let between = Query { recorded_from, recorded_to, ..Query::default() };
    expect(between.clone(), &[4, 5, 6, 7]).await;
    expect(Query { aggregate: Some(written[1].stream.clone()), ..between.clone() }, &[5, 7]).await;
    expect(Query { actor: actor.clone(), ..between.clone() }, &[4, 5]).await;
    expect(Query { from, to, ..between.clone() }, &[4, 5]).await;
    expect(Query { to: Some(noon), ..between.clone() }, &[]).await;
    let field = |text: &str| vec![text.parse().unwrap()];
    expect(Query { fields: field("even=true"), ..between.clone() }, &[4, 6]).await;
    expect(Query { fields: field("number=7"), ..Query::default() }, &[7]).await;
    expect(Query { fields: field("even=false"), actor, from, ..Query::default() }, &[3, 5, 9]).await;
    expect(Query { fields: [field("even=false"), field("number=4")].concat(), ..Query::default() }, &[]).await;
    let aggregate = Some(Events::new().event("nobody", "x", Bytes::new(), |_| {}).stream);
    expect(Query { aggregate, ..between }, &[]).await;
}

/// Shows: pages neither repeat nor leave out an event, also when events of the same time are many, or more come.
pub async fn pages_follow_each_other_in_both_orders(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let now = events.now();
    let mut written = Vec::new();
    for number in 0..25 {
        let event = events.event(["a", "b", "c"][number % 3], "added", Bytes::from_static(b"{}"), |event| {
            event.recorded_at = now + TimeDelta::milliseconds(number as i64 / 10); // ten at a time
        });
        events.add_event(&event);
        written.push(event.event_id);
    }
    let worker = trail(&events, &database).await;
    for order in [Order::OldestFirst, Order::NewestFirst] {
        for aggregate in [None, Some(events.event("a", "x", Bytes::new(), |_| {}).stream)] {
            let mut query = Query { order, limit: 4, aggregate: aggregate.clone(), ..Query::default() };
            let whole = Query { limit: 1000, ..query.clone() }.run(&database).await.unwrap().entries;
            let mut paged = Vec::new();
            loop {
                let page = query.run(&database).await.unwrap();
                assert!(page.entries.len() <= 4);
                paged.extend(page.entries);
                let Some(next) = page.next else { break };
                query.cursor = Some(next);
            }
            assert_eq!(paged, whole);
            assert_eq!(whole.len(), if aggregate.is_some() { 9 } else { 25 });
        }
    }
    // Oldest first, what comes later is found behind the last page.
    let query = Query { limit: 20, ..oldest_first() };
    let first = query.run(&database).await.unwrap();
    let next = Query { cursor: first.next, ..query };
    assert_eq!(next.run(&database).await.unwrap().entries.len(), 5);
    let position = events.add("d", &[1]);
    worker.wait_for(&position, SOON).await.unwrap();
    assert_eq!(next.run(&database).await.unwrap().entries.len(), 6);
}

/// Shows: whatever a command caused is found, over commands and events, whether the ids go in a circle or two ways lead to one.
pub async fn a_tree_holds_all_that_was_caused(url: &str) {
    let database = connect(url).await;
    let mut events = Events::new();
    let mut written: Vec<Envelope> = Vec::new();
    let mut add = |id: &str, command: &str, cause: Option<&str>| {
        let event = events.event(id, "added", Bytes::from_static(b"{}"), |event| {
            event.command_id = command.parse().unwrap();
            event.causation_id = cause.map(|cause| cause.parse().unwrap());
        });
        events.add_event(&event);
        written.push(event.clone());
        event.event_id.to_string()
    };
    let first = add("a", "order", Some("round"));
    let paid = add("b", "pay", Some(&first));
    add("a", "ship", Some("pay"));
    add("c", "thank", Some(&paid));
    add("c", "round", Some("thank"));
    add("d", "elsewhere", Some("somebody"));
    add("d", "alone", None);
    trail(&events, &database).await;
    let ids = |caused_by: &str| Query { caused_by: Some(caused_by.parse().unwrap()), ..oldest_first() };
    let commands = async |query: Query| {
        let found = ask(&database, query).await;
        found.iter().map(|event| event.command_id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(commands(ids("order")).await, "order pay ship thank round");
    assert_eq!(commands(ids("pay")).await, "order pay ship thank round");
    assert_eq!(commands(ids(&paid)).await, "order pay ship thank round", "by the circle");
    assert_eq!(commands(ids("ship")).await, "ship");
    assert_eq!(commands(ids("somebody")).await, "elsewhere");
    assert_eq!(commands(ids("nobody")).await, "");
    let newest_first = Query { order: Order::NewestFirst, limit: 2, ..ids("order") };
    let page = newest_first.run(&database).await.unwrap();
    let rest = Query { cursor: page.next, limit: 3, ..newest_first };
    assert_eq!(commands(rest).await, "ship pay order");
    let of_a = Query { aggregate: Some(written[0].stream.clone()), ..ids("order") };
    assert_eq!(commands(of_a).await, "order ship");
    let direct = Query { causation: Some("pay".parse().unwrap()), ..oldest_first() };
    assert_eq!(commands(direct).await, "ship");
}

/// Shows: a filter that no index serves is a bounded work for each page, and the pages together are the whole, once.
pub async fn pages_are_bounded_whatever_is_filtered(url: &str) {
    let database = connect(url).await;
    many(&database).await;
    let all = async |mut query: Query| {
        let (mut found, mut pages, mut empty) = (Vec::new(), 0, 0);
        loop {
            let page = query.run(&database).await.unwrap();
            assert!(page.entries.len() <= query.limit as usize);
            (pages, empty) = (pages + 1, empty + usize::from(page.entries.is_empty()));
            found.extend(page.entries.iter().map(|entry| entry.recorded.envelope.command_id.to_string()));
            let Some(next) = page.next else { return (found, pages, empty) };
            query.cursor = Some(next);
        }
    };
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let rare = Query { fields: vec!["amount=3456".parse().unwrap()], order, limit: 50, ..Query::default() };
        let (found, pages, empty) = all(rare.clone()).await;
        assert_eq!((found, pages >= 6, empty), (vec!["c3456".to_owned()], true, pages - 1));
        let (found, pages, _) = all(Query { fields: vec!["amount=-1".parse().unwrap()], ..rare.clone() }).await;
        assert!(found.is_empty() && pages >= 6, "{pages} pages");
        // A range of recorded time needs no look at what is before and behind it, in an aggregate either.
        let stream = Some(Events::new().event("large", "x", Bytes::new(), |_| {}).stream);
        let middle = Events::new().now() + TimeDelta::milliseconds(600);
        let (recorded_from, recorded_to) = match order {
            Order::NewestFirst => (None, Some(middle - TimeDelta::milliseconds(500))),
            Order::OldestFirst => (Some(middle + TimeDelta::milliseconds(500)), None),
        };
        let far = Query { aggregate: stream, recorded_from, recorded_to, order, limit: 20, ..Query::default() };
        assert_eq!(far.run(&database).await.unwrap().entries.len(), 20);
        // Of business times, many are the same, and none is in the order of recording.
        let from = Some(Events::new().now() - TimeDelta::days(2_000));
        let occurred = Query { from, fields: Vec::new(), ..rare };
        let (found, ..) = all(occurred.clone()).await;
        let (whole, ..) = all(Query { limit: 1_000, ..occurred.clone() }).await;
        assert_eq!(found, whole);
        assert_eq!(whole.iter().collect::<std::collections::HashSet<_>>().len(), whole.len());
        let times = Query { limit: 1_000, ..occurred }.run(&database).await.unwrap().entries;
        let times: Vec<_> = times.iter().map(|entry| entry.recorded.envelope.occurred_at).collect();
        assert!(if order == Order::OldestFirst { times.is_sorted() } else { times.iter().rev().is_sorted() });
    }
}

/// Shows: a trail of before the indexes is refused with the remedy, and a rebuild is one.
pub async fn a_trail_of_before_gets_its_indexes_by_a_rebuild(url: &str) {
    let database = connect(url).await;
    let (events, ..) = ten(&database).await;
    let mut tx = database.begin().await.unwrap();
    let builds = tx.table_name("es_builds");
    tx.execute(&format!("UPDATE {builds} SET version = 1"), &[]).await.unwrap();
    for index in ["by_recorded", "by_occurred", "actor_recorded", "actor_occurred"] {
        tx.execute(&format!("DROP INDEX bank_audit_{index}"), &[]).await.unwrap();
    }
    tx.commit().await.unwrap();
    let again = || AuditTrail::new(std::slice::from_ref(&events.source));
    let error = events.worker(&database).start(again()).await.unwrap_err();
    assert!(matches!(error, Error::OtherVersion(_)), "{error:?}");
    assert!(error.to_string().contains("was built by version 1"), "{error}");
    let plan = async || Query::default().explain(&database).await.unwrap().join("\n");
    assert!(!plan().await.contains("by_recorded"), "{}", plan().await);
    events.worker(&database).rebuild(again(), Check::Equal, |_| {}).await.unwrap();
    database.remove_replaced("audit").await.unwrap();
    events.worker(&database).start(again()).await.unwrap().stop().await.unwrap();
    let sql = if url.starts_with("postgres") {
        "SELECT indexname AS name FROM pg_indexes WHERE tablename = 'bank_audit'"
    } else {
        "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'bank_audit'"
    };
    let names: Vec<String> =
        database.fetch(sql, &[]).await.unwrap().iter().map(|row| row.get("name").unwrap()).collect();
    assert_eq!(names.len(), 9, "{names:?}");
    assert!(names.iter().any(|name| name.ends_with("_actor_occurred")), "{names:?}");
    assert_eq!(ask(&database, oldest_first()).await.len(), 10);
}

pub async fn impossible_queries_are_refused(url: &str) {
    let database = connect(url).await;
    let (events, _, noon) = ten(&database).await;
    let refused = async |query: Query, reason: &str| {
        let error = query.run(&database).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
    };
    refused(Query { limit: 0, ..Query::default() }, "limit 0 is not between 1 and 1000").await;
    refused(Query { limit: 1001, ..Query::default() }, "limit 1001 is not between 1 and 1000").await;
    let range = (Some(noon), Some(noon));
    refused(Query { from: range.0, to: range.1, ..Query::default() }, "no business time is from").await;
    let query = Query { recorded_from: range.0, recorded_to: range.1, ..Query::default() };
    refused(query, "no time of recording is from").await;
    refused(Query { event_type: Some("a\0b".into()), ..Query::default() }, "zero character").await;
    const KNOWN: [MessageType; 2] = [kind("deposited"), kind("withdrawn")];
    let query = Query { event_type: Some("withdrawn".into()), ..Query::default() };
    query.check_type(&KNOWN).unwrap();
    Query::default().check_type(&KNOWN).unwrap();
    let error = Query { event_type: Some("Withdrawn".into()), ..query }.check_type(&KNOWN).unwrap_err();
    assert_eq!(error.to_string(), "there is no event type \"Withdrawn\": there are deposited, withdrawn");
    let query = Query { limit: 3, ..Query::default() };
    let cursor = query.run(&database).await.unwrap().next.unwrap();
    let with_cursor = Query { cursor: Some(cursor.clone()), ..query.clone() };
    for other in [
        Query { actor: Some("ann".parse().unwrap()), ..with_cursor.clone() },
        Query { order: Order::OldestFirst, ..with_cursor.clone() },
        Query { recorded_from: Some(noon), ..with_cursor.clone() },
        Query { caused_by: Some("x".parse().unwrap()), ..with_cursor.clone() },
        Query { fields: vec!["a=1".parse().unwrap()], ..with_cursor },
    ] {
        refused(other, "is not one of this query").await;
    }
    for cursor in ["", "x", &cursor[1..], &cursor[..14], &format!("{}'; --", &cursor[..20])] {
        refused(Query { cursor: Some(cursor.into()), ..query.clone() }, "is not one of this query").await;
    }
    assert_eq!(count(&database, "audit").await, 10);
    drop(events);
}

/// So many rows that a database with statistics prefers an index to reading them all: of accounts, actors, types and conversations some are
/// frequent and some are rare, and business times have nothing to do with those of recording.
async fn many(database: &Database) {
    const EVENTS: usize = 6_000;
    let mut events = Events::new();
    let (now, mut written) = (events.now(), Vec::new());
    for number in 0..EVENTS {
        let id = if number % 4 == 0 { "large".into() } else { format!("a{}", number % 500) };
        let kind = ["added", "moved", "closed"][if number % 1_000 == 7 { 2 } else { number % 2 }];
        let event = events.event(&id, kind, Bytes::from(format!(r#"{{"amount":{number}}}"#)), |event| {
            event.recorded_at = now + TimeDelta::milliseconds(number as i64 / 5);
            event.occurred_at = now - TimeDelta::days((number * 7_919 % 3_000) as i64);
            let rare = number % 100 == 0;
            event.actor = Some(if rare { "rare" } else { "often" }.parse().unwrap());
            event.command_id = format!("c{number}").parse().unwrap();
            let conversation = if number % 3 == 0 { "all".into() } else { format!("c{}", number / 20 * 20) };
            event.correlation_id = conversation.parse().unwrap();
            event.causation_id = (number % 2 == 0).then(|| format!("c{}", number / 10 * 10 + 1).parse().unwrap());
        });
        written.push(event);
    }
    let batch = |events: &Events| events.worker(database).batch_max(2_000);
    for event in &written {
        events.add_event(event);
    }
    let trail = AuditTrail::new(std::slice::from_ref(&events.source));
    let worker = batch(&events).start(trail).await.unwrap();
    caught_up(&worker).await;
    worker.stop().await.unwrap();
    if database.url().starts_with("postgres") {
        database.fetch(&format!("ANALYZE {}", database.table_name("audit")), &[]).await.unwrap();
    }
}

const fn kind(name: &'static str) -> MessageType {
    MessageType { name, schema_version: 1, fields: &[] }
}

/// Whether all rows come through the index, and none are sorted but those of one time. What a command or a tree has is little, and
/// may be sorted.
fn in_order_on_sqlite(plan: &[String], index: &str) -> bool {
    let index = if index == "key" { "sqlite_autoindex_" } else { index };
    let in_order = |(place, line): (usize, &String)| {
        let sorted = plan.get(place + 1).is_some_and(|next| next == "USE TEMP B-TREE FOR ORDER BY");
        let searched = line.starts_with("SEARCH bank_audit ") || line.starts_with("SEARCH t ");
        searched && (line.contains("by_command") || line.contains("by_causation") || line.contains(index) && !sorted)
    };
    let reads = |line: &String| matches!(line.split(' ').nth(1), Some("bank_audit" | "t"));
    let mut reads = plan.iter().enumerate().filter(|(_, line)| reads(line));
    plan.iter().any(|line| line.contains(index)) && reads.all(in_order)
}

/// The same. Where the database expects no more than a page it may use another index, and sort.
fn in_order_on_postgres(plan: &[String], index: &str) -> bool {
    let index = if index == "key" { "_pkey" } else { index };
    let steps: Vec<_> = plan.iter().map(|line| line.trim()).filter(|line| line.contains("(cost=")).collect();
    let few = |step: &str| {
        let rows = || step.split_once(" rows=")?.1.split(' ').next()?.parse::<u32>().ok();
        rows().is_some_and(|rows| rows <= 50)
    };
    let in_order = |(place, step): (usize, &&str)| {
        let sorted = place > 0 && steps[place - 1].starts_with("->  Sort");
        few(step) || step.contains("Index Scan") && step.contains(index) && !sorted
    };
    let reads = |step: &str| step.contains(" on bank_audit") && !step.contains(" on bank_audit t ");
    let whole = steps.iter().any(|step| step.contains("Seq Scan on bank_audit"));
    !whole && steps.iter().enumerate().filter(|(_, step)| reads(step)).all(in_order)
}

/// Shows: whatever is asked, and wherever the page is, an index has the rows in the order of the page, so that nothing is
/// sorted but what happened at the same time, and not more is read than is shown.
pub async fn every_filter_is_served_by_an_index(url: &str) {
    let database = connect(url).await;
    many(&database).await;
    let stream = |id: &str| Some(Events::new().event(id, "x", Bytes::new(), |_| {}).stream);
    let recorded: DateTime<Utc> = Events::new().now() + TimeDelta::milliseconds(300);
    let occurred = recorded - TimeDelta::days(1_000);
    let with_recorded = |query: &Query| {
        let to = recorded + TimeDelta::milliseconds(400);
        Query { recorded_from: Some(recorded), recorded_to: Some(to), ..query.clone() }
    };
    let with_occurred =
        |query: &Query| Query { from: Some(occurred), to: Some(occurred + TimeDelta::days(400)), ..query.clone() };
    let all = Query { limit: 20, ..Query::default() };
    let of_type = Query { event_type: Some("added".into()), ..all.clone() };
    let actor = |name: &str| Query { actor: Some(name.parse().unwrap()), ..all.clone() };
    let actor_and_type = |name: &str| Query { event_type: Some("added".into()), ..actor(name) };
    let correlation = Query { correlation: Some("all".parse().unwrap()), ..all.clone() };
    let causation = Query { causation: Some("c11".parse().unwrap()), ..all.clone() };
    let cases: Vec<(&str, Query)> = vec![
        ("by_recorded", all.clone()),
        ("by_recorded", with_recorded(&all)),
        ("by_occurred", with_occurred(&all)),
        ("by_recorded", of_type.clone()),
        ("by_recorded", with_recorded(&of_type)),
        ("by_occurred", with_occurred(&of_type)),
        ("by_recorded", Query { event_type: Some("closed".into()), ..all.clone() }),
        ("actor_recorded", actor("often")),
        ("actor_recorded", with_recorded(&actor("often"))),
        ("actor_occurred", with_occurred(&actor("often"))),
        ("actor_recorded", actor("rare")),
        ("actor_recorded", actor_and_type("often")),
        ("actor_recorded", with_recorded(&actor_and_type("often"))),
        ("actor_occurred", with_occurred(&actor_and_type("often"))),
        ("actor_recorded", Query { event_type: Some("closed".into()), ..actor("rare") }),
        ("corr_recorded", correlation.clone()),
        ("corr_recorded", with_recorded(&correlation)),
        ("corr_occurred", with_occurred(&correlation)),
        ("by_command", Query { command: Some("c77".parse().unwrap()), ..all.clone() }),
        ("by_causation", causation.clone()),
        ("by_command", Query { caused_by: Some("c11".parse().unwrap()), ..all.clone() }),
        ("key", Query { aggregate: stream("large"), ..all.clone() }),
        ("key", with_recorded(&Query { aggregate: stream("large"), ..all.clone() })),
        ("key", with_occurred(&Query { aggregate: stream("large"), ..all.clone() })),
    ];
    for (index, query) in cases {
        for order in [Order::NewestFirst, Order::OldestFirst] {
            let mut query = Query { order, ..query.clone() };
            for page in 0..2 {
                let plan = query.explain(&database).await.unwrap();
                let in_order = if url.starts_with("postgres") { in_order_on_postgres } else { in_order_on_sqlite };
                let told = plan.join("\n");
                assert!(in_order(&plan, index), "page {page} of {query:?} does not go by {index}:\n{told}");
                let Some(next) = query.run(&database).await.unwrap().next else { break };
                query.cursor = Some(next);
            }
        }
    }
}
