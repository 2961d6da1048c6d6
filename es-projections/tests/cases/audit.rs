//! The audit trail holds every event as it was recorded, and answers what is asked of it.

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use es_core::Envelope;
use es_projections::audit::{AuditTrail, Order, Query};
use es_projections::{Database, Error, Handle};

use super::support::*;

const NASTY: [&str; 6] = [
    "'; DROP TABLE bank_audit; --",
    "\" OR \"1\"=\"1",
    "a%_\\?$1:x{}",
    "\u{1f600}\u{feff} \u{202e}",
    "1) UNION SELECT 1 --",
    "/* ' \" ? */",
];

async fn trail(events: &Events, database: &Database) -> Handle {
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
        let payload = serde_json::to_vec(&serde_json::json!({ nasty: [nasty, null, 1] })).unwrap();
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
        let event = events.event(id, kind, Bytes::from_static(b"{}"), |event| {
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
    refused(Query { from: Some(noon), to: Some(noon), ..Query::default() }, "no time is from").await;
    refused(Query { event_type: Some("a\0b".into()), ..Query::default() }, "zero character").await;
    let query = Query { limit: 3, ..Query::default() };
    let cursor = query.run(&database).await.unwrap().next.unwrap();
    let other = Query { actor: Some("ann".parse().unwrap()), cursor: Some(cursor.clone()), ..Query::default() };
    refused(other, "is not one of this query").await;
    for cursor in ["", "x", &cursor[1..], &cursor[..14], &format!("{}'; --", &cursor[..20])] {
        refused(Query { cursor: Some(cursor.into()), ..query.clone() }, "is not one of this query").await;
    }
    assert_eq!(count(&database, "audit").await, 10);
    drop(events);
}
