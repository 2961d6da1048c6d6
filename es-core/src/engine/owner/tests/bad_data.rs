//! What should not be in the log: it stops nothing but its own aggregate.

use super::*;
use crate::domain::ids::{Epoch, StreamId};
use crate::log::record::{Claim, Encoder, Stamp};
use crate::{AggregateKey, CommandHash, CommandId, CorrelationId, Envelope, EventHash, EventId, OwnerState, Version};
use bytes::Bytes;

const EPOCH: Epoch = Epoch { number: 1, writer: 7 };

pub(super) fn envelope(
    id: &str,
    version: u64,
    event_type: &str,
    payload: &'static str,
    previous: EventHash,
) -> Envelope {
    let time = chrono::DateTime::from_timestamp_millis(1_600_000_000_000).unwrap();
    let mut envelope = Envelope {
        context: "test".into(),
        stream: StreamId { category: "counter".into(), id: AggregateKey::new(id).unwrap() },
        version: Version::new(version),
        event_id: EventId::fresh(1),
        event_type: event_type.into(),
        schema_version: 1,
        recorded_at: time,
        occurred_at: time,
        command_id: CommandId::random(),
        command_hash: CommandHash::default(),
        correlation_id: CorrelationId::new("c").unwrap(),
        causation_id: None,
        actor: None,
        traceparent: None,
        content_type: "application/json".into(),
        payload: Bytes::from_static(payload.as_bytes()),
        previous_hash: previous,
        hash: EventHash::default(),
    };
    envelope.hash = envelope.compute_hash();
    envelope
}

/// A log that an earlier process wrote: a claim and these events, each a command of its own.
pub(super) fn earlier(world: &World, events: &[Envelope]) {
    let encoder = Encoder::new("test", "counter");
    let claim = Claim {
        epoch: EPOCH,
        log_id: uuid::Uuid::from_u128(1),
        node: "earlier".into(),
        program: None,
        partitions: None,
        previous: None,
        copy: None,
    };
    world.partition().append_foreign(encoder.claim(&claim, 0));
    for (sequence, event) in (1..).zip(events) {
        let stamp = Stamp { epoch: EPOCH, sequence, index: 0, count: 1 };
        world.partition().append_foreign(encoder.event(event, stamp));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_read_parks_its_aggregate_alone() {
    for (event_type, payload) in [("added", "{\"n\":\"x\"}"), ("unheard-of", "{}"), ("panicked", "{}")] {
        let world = World::new();
        let good = envelope("good", 1, "added", "{\"n\":1}", EventHash::default());
        earlier(&world, &[good, envelope("bad", 1, event_type, payload, EventHash::default())]);
        let process = world.process().await;
        let answer = process.send("bad", "1", add(1)).await;
        assert!(matches!(&answer, Err(SendError::Parked { reason, .. }) if reason.contains("offset 2")), "{answer:?}");
        assert_eq!(process.send("good", "1", add(1)).await.unwrap().version.get(), 2);
    }
}

/// Shows: what is parked is counted and named, is so after a restart, and is tried again by another release alone.
#[tokio::test]
async fn what_is_parked_is_named_and_tried_again_by_another_release() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let config = |release: &str| EngineConfig {
        state_dir: Some(dir.path().into()),
        release: Some(release.into()),
        ..world.config.clone()
    };
    let good = envelope("good", 1, "added", "{\"n\":1}", EventHash::default());
    earlier(&world, &[good, envelope("bad", 1, "unheard-of", "{}", EventHash::default())]);
    for (release, mended, parked) in [("one", false, 1), ("one", true, 1), ("two", true, 0), ("three", true, 0)] {
        if mended {
            // Stands for a release that knows what the other did not.
            let mut records = world.partition().records();
            let record = &mut records[2].record;
            record.value = Some(Bytes::from_static(b"{\"n\":1}"));
            for (name, value) in &mut record.headers {
                if name == "ce_type" {
                    *value = Bytes::from_static(b"test.counter.added");
                }
            }
            world.partition().replace(records);
        }
        let process = world.process_with(config(release)).await;
        assert_eq!(process.bus.status()[0].parked, parked, "{release}");
        let named = process.bus.parked();
        assert_eq!(named.len() as u64, parked, "{release}");
        for named in named {
            assert_eq!((named.partition, named.aggregate.as_str()), (0, "bad"));
            assert!(named.reason.contains("offset 2"), "{}", named.reason);
        }
        let answer = process.send("bad", release, add(1)).await;
        assert_eq!(matches!(answer, Err(SendError::Parked { .. })), parked == 1, "{release}: {answer:?}");
        process.engine.shutdown().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_the_next_parks_its_aggregate() {
    let world = World::new();
    let first = envelope("a", 1, "added", "{\"n\":1}", EventHash::default());
    let third = envelope("a", 3, "added", "{\"n\":1}", first.hash);
    earlier(&world, &[first, third]);
    let process = world.process().await;
    let answer = process.send("a", "1", add(1)).await;
    assert!(
        matches!(&answer, Err(SendError::Parked { reason, .. }) if reason.contains("its version is 3, the next is 2"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_that_does_not_continue_the_hash_chain_parks_its_aggregate() {
    let world = World::new();
    let first = envelope("a", 1, "added", "{\"n\":1}", EventHash::default());
    let second = envelope("a", 2, "added", "{\"n\":1}", EventHash([9; 32]));
    earlier(&world, &[first, second]);
    let process = world.process().await;
    let answer = process.send("a", "1", add(1)).await;
    assert!(matches!(&answer, Err(SendError::Parked { reason, .. }) if reason.contains("hash chain")));
}

#[tokio::test(start_paused = true)]
async fn a_record_of_a_claim_that_is_not_in_the_log_stops_the_owner() {
    let world = World::new();
    earlier(&world, &[]);
    let stamp = Stamp { epoch: Epoch { number: 5, writer: 1 }, sequence: 1, index: 0, count: 1 };
    let event = envelope("a", 1, "added", "{\"n\":1}", EventHash::default());
    world.partition().append_foreign(Encoder::new("test", "counter").event(&event, stamp));
    let process = world.starting(world.config.clone()).await;
    assert!(process.bus.ready().await.is_err());
    let state = process.bus.status()[0].state.clone();
    assert!(matches!(&state, OwnerState::Failed { reason } if reason.contains("offset 1")), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn foreign_and_copied_records_are_counted_and_change_nothing() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    let own = world.partition().records().last().unwrap().record.clone();
    process.engine.shutdown().await;
    world.partition().append_foreign(own); // a mirror replays it
    let rubbish = crate::log::Record {
        key: Bytes::from_static(b"a/1"),
        value: Some(Bytes::from_static(b"{}")),
        headers: vec![("es".into(), Bytes::from_static(&[255, 255]))],
        timestamp_ms: 0,
    };
    world.partition().append_foreign(rubbish);
    let process = world.process().await;
    let status = &process.bus.status()[0];
    assert_eq!((status.void, status.foreign), (1, 1));
    assert_eq!(process.send("a", "2", add(1)).await.unwrap().version.get(), 2);
    assert_eq!(world.sum("a").await, 2);
}

/// Numbers that whoever knows a claim could write: none makes a reader panic or believe more.
#[tokio::test(start_paused = true)]
async fn numbers_out_of_bounds_are_foreign() {
    let world = World::new();
    let good = envelope("a", 1, "added", "{\"n\":1}", EventHash::default());
    earlier(&world, std::slice::from_ref(&good));
    let encoder = Encoder::new("test", "counter");
    let next = |version| envelope("a", version, "added", "{\"n\":1}", good.hash);
    let stamp = Stamp { epoch: EPOCH, sequence: 2, index: 0, count: 1 };
    for (event, stamp) in [
        (next(u64::MAX), stamp),
        (next(2), Stamp { sequence: u64::MAX, ..stamp }),
        (next(2), Stamp { epoch: Epoch { number: u64::MAX, writer: 7 }, ..stamp }),
    ] {
        world.partition().append_foreign(encoder.event(&event, stamp));
    }
    let timeless = crate::log::Record { timestamp_ms: i64::MAX, ..encoder.event(&next(2), stamp) };
    world.partition().append_foreign(timeless);
    let epoch = Epoch { number: u64::MAX, writer: 1 };
    let claim = Claim {
        epoch,
        log_id: uuid::Uuid::from_u128(1),
        node: "x".into(),
        program: None,
        partitions: None,
        previous: None,
        copy: None,
    };
    world.partition().append_foreign(encoder.claim(&claim, 0));
    let process = world.process().await;
    assert_eq!(process.bus.status()[0].foreign, 5);
    assert_eq!(process.send("a", "1", add(1)).await.unwrap().version.get(), 2);
}
