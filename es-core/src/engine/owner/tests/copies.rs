//! A partition that was copied: dense where its source has holes, with records doubled where the copier was killed, torn
//! at its end, made by two copiers at once; and an owner goes on in it while a copier is still at work.

use uuid::Uuid;

use super::*;
use crate::EventId;
use crate::domain::ids::Epoch;
use crate::log::record::{Claim, Copied, Decoded, Encoder, Stamp, decode};
use crate::log::{Record, StoredRecord};

fn source() -> EventSource {
    EventSource::of::<Counter>("test", 1)
}

fn encoder() -> Encoder {
    Encoder::new("test", "counter")
}

fn log_id(records: &[Record]) -> Uuid {
    let claim = |record: &Record| match decode(record) {
        Decoded::Claim(claim) => Some(claim.log_id),
        _ => None,
    };
    records.iter().find_map(claim).expect("a claim")
}

fn beginning(records: &[Record], copy: u128) -> Record {
    let (copy, from) = (Uuid::from_u128(copy), log_id(records));
    let (cluster, tool) = ("elsewhere".to_owned(), "a test".to_owned());
    let copied = Copied { copy, from, cluster, tool, cut: records.len() as u64, partitions: None, sealed: None };
    encoder().copied(&copied, 1_700_000_000_000)
}

/// Puts these into the partition, one behind the other.
fn fill(world: &World, records: impl IntoIterator<Item = Record>) {
    for record in records {
        world.partition().append_foreign(record);
    }
}

fn stored(records: &[Record]) -> Vec<StoredRecord> {
    (0..).zip(records).map(|(offset, record)| StoredRecord { offset, record: record.clone() }).collect()
}

/// The events that count, by their ids, read to `cut` and from there by another reader with what the first one saved.
fn read(records: &[StoredRecord], cut: usize) -> Vec<EventId> {
    let mut reader = PartitionReader::resume(source(), 0, &Checkpoint::default());
    let feed = |reader: &mut PartitionReader, stored: &StoredRecord| match reader.feed(stored.clone()).expect("whole") {
        Fed::Events(events) => events.into_iter().map(|event| event.envelope.event_id).collect(),
        _ => Vec::new(),
    };
    let mut events: Vec<EventId> = records[..cut].iter().flat_map(|stored| feed(&mut reader, stored)).collect();
    let saved = serde_json::to_string(&reader.checkpoint()).expect("text");
    let checkpoint: Checkpoint = serde_json::from_str(&saved).expect("the same");
    let mut reader = PartitionReader::resume(source(), 0, &checkpoint);
    let rest = records.iter().filter(|stored| stored.offset >= checkpoint.next);
    events.extend(rest.flat_map(|stored| feed(&mut reader, stored)));
    events
}

/// A log of several owners, with commands of several events and refusals of which the records were erased.
async fn with_holes(seed: u64) -> World {
    let world = World::new();
    let mut random = fastrand::Rng::with_seed(seed);
    for owner in 0..random.usize(1..4) {
        let process = world.process_with(EngineConfig { snapshot_every: 0, ..world.config.clone() }).await;
        for n in 0..random.usize(2..10) {
            let command = match random.u32(..3) {
                0 => Do::Take { n: 1_000 },
                _ => Do::Add { n: 1, times: random.u64(1..4) },
            };
            let _ = process.send("a", &format!("{owner} {n}"), command).await;
        }
        process.engine.shutdown().await;
    }
    let is_answers = |stored: &StoredRecord| matches!(decode(&stored.record), Decoded::Answers(..));
    let (records, end) = (world.partition().records(), world.log.bounds(TOPIC, 0).await.unwrap().end);
    let rest =
        records.into_iter().filter(|stored| stored.offset + 1 == end || !is_answers(stored) || random.u32(..4) == 0);
    world.partition().replace(rest.collect());
    world
}

/// What a copier writes that is killed now and then, and begins again a little before.
fn copier(records: &[Record], copy: u128, kills: bool, random: &mut fastrand::Rng) -> Vec<Record> {
    let (mut written, mut at) = (vec![beginning(records, copy)], 0);
    while let Some(record) = records.get(at) {
        written.push(record.clone());
        at += 1;
        if kills && random.u32(..15) == 0 {
            at = at.saturating_sub(random.usize(1..7));
        }
    }
    written
}

/// As a model with many more runs shows: `docs/protocol/model.py`.
#[tokio::test]
async fn a_copy_holds_the_events_of_its_source_however_it_was_made() {
    let (mut holes, mut doubled) = (0, 0);
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = with_holes(seed).await;
        let original = world.partition().records();
        holes += original.last().expect("records").offset as usize + 1 - original.len();
        let events = read(&original, 0);
        let records: Vec<Record> = original.into_iter().map(|stored| stored.record).collect();
        let mut copy = copier(&records, 1, seed % 2 == 0, &mut random);
        if seed % 3 == 0 {
            let mut other = copier(&records, 2, true, &mut random).into_iter().peekable();
            let mut both = Vec::new();
            for record in copy {
                both.push(record);
                while other.peek().is_some() && random.u32(..5) < 2 {
                    both.extend(other.next());
                }
            }
            copy = both;
        }
        doubled += copy.len() - records.len();
        for cut in 0..=copy.len() {
            assert_eq!(read(&stored(&copy), cut), events, "seed {seed}, resumed at {cut}");
            let torn = read(&stored(&copy[..cut]), 0);
            assert_eq!(torn[..], events[..torn.len()], "seed {seed}, torn at {cut}");
        }
        // A copy of the copy.
        let again = copier(&copy, 3, true, &mut random);
        assert_eq!(read(&stored(&again), 0), events, "seed {seed}, copied twice");
    }
    assert!(holes > 50 && doubled > 200, "{holes} holes, {doubled} records doubled");
}

#[tokio::test]
async fn an_owner_goes_on_in_a_copy_and_what_a_late_copier_brings_changes_nothing() {
    let origin = with_holes(2).await;
    let records: Vec<Record> = origin.partition().records().into_iter().map(|stored| stored.record).collect();
    let events = origin.events().await.len() as u64;
    let world = World::new();
    fill(&world, copier(&records, 1, true, &mut fastrand::Rng::with_seed(1)));
    let process = world.process().await;
    let receipt = process.send("a", "in the copy", add(1)).await.unwrap();
    assert_eq!(receipt.version.get(), events + 1);
    assert!(process.send("a", "in the copy", add(1)).await.unwrap().duplicate);
    let known = world.events().await[0].envelope.command_id.clone();
    let again = process.send("a", known.as_str(), Do::Add { n: 1, times: 1 }).await;
    assert!(
        matches!(again, Ok(_) | Err(SendError::CommandIdReused)),
        "what was answered in the source is known: {again:?}"
    );
    assert_eq!(world.events().await.len() as u64, events + 1);

    // The source lives on, and so does its copier.
    let last = match decode(&records[records.len() - 1]) {
        Decoded::Event(stamp, _) | Decoded::Answers(stamp, _) => stamp.epoch.number,
        Decoded::Claim(claim) => claim.epoch.number,
        other => panic!("{other:?}"),
    };
    let event = world.events().await.pop().expect("events").envelope;
    fill(&world, records.iter().cloned());
    fill(&world, [beginning(&records, 9)]);
    for number in last + 1..last + 4 {
        let epoch = Epoch { number, writer: 1 };
        let node = "source".to_owned();
        let claim = Claim {
            epoch,
            log_id: log_id(&records),
            node,
            program: None,
            partitions: Some(1),
            previous: None,
            copy: None,
        };
        let stamp = Stamp { epoch, sequence: 1, index: 0, count: 1 };
        fill(&world, [encoder().claim(&claim, 1_700_000_000_000), encoder().event(&event, stamp)]);
    }
    assert_eq!(world.events().await.len() as u64, events + 1, "the events of the copy");
    process.engine.shutdown().await;
    let next = world.process().await;
    assert_eq!(next.send("a", "later", add(1)).await.unwrap().version.get(), events + 2);
    assert!(next.send("a", "in the copy", add(1)).await.unwrap().duplicate);
    assert_eq!(next.bus.status()[0].state, crate::OwnerState::Serving);
}

/// What was read in the source is not gone on with in the copy, though an offset may fit by chance.
#[tokio::test]
async fn a_checkpoint_of_the_source_is_none_of_the_copy() {
    let origin = World::new();
    let process = origin.process().await;
    process.send("a", "0", Do::Take { n: 1 }).await.unwrap_err();
    process.engine.shutdown().await;
    let process = origin.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    process.engine.shutdown().await;
    let records: Vec<_> = origin.partition().records();
    // Without the answers record the others stand in the copy where they stood.
    let rest: Vec<Record> = records.iter().filter(|stored| stored.offset != 1).map(|it| it.record.clone()).collect();
    let mut reader = PartitionReader::resume(source(), 0, &Checkpoint::default());
    records.into_iter().for_each(|stored| drop(reader.feed(stored).unwrap()));
    let world = World::new();
    fill(&world, [beginning(&rest, 1)].into_iter().chain(rest));
    let told = crate::verify_checkpoint(&world.log, &source(), 0, &reader.checkpoint()).await;
    let told = told.expect_err("another log").to_string();
    assert!(told.contains("it was made of the original, the log is copy"), "{told}");
}
