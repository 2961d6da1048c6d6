//! A log that lost its tail, and was filled again by others: whoever read the tail does not go on, whatever its last
//! record was.

use super::*;
use crate::domain::envelope::Envelope;
use crate::domain::hash::EventHash;
use crate::engine::store::StateFolder;
use crate::log::record::{Decoded, ERASED, Encoder, Stamp, decode};
use crate::log::{LogError, LogErrorKind, Record};
use crate::{OwnerState, verify_checkpoint};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Event,
    Answers,
    Erased,
}

const KINDS: [Kind; 3] = [Kind::Event, Kind::Answers, Kind::Erased];

fn source() -> EventSource {
    EventSource::of::<Counter>("test", 1)
}

/// Where a reader of all that is there goes on.
fn checkpoint(world: &World) -> Checkpoint {
    let mut reader = PartitionReader::resume(source(), 0, &Checkpoint::default());
    for stored in world.partition().records() {
        reader.feed(stored).expect("a whole log");
    }
    reader.checkpoint()
}

async fn verified(world: &World, checkpoint: &Checkpoint) -> Result<(), LogError> {
    verify_checkpoint(&world.log, &source(), 0, checkpoint).await
}

/// The record that says that the aggregate of the last event was erased, as the owner of the last claim writes it.
fn erased(world: &World) -> Record {
    let event = |record: &Record| match decode(record) {
        Decoded::Event(stamp, event) => Some((stamp, *event)),
        _ => None,
    };
    let records = world.partition().records();
    let (stamp, last) = records.iter().rev().find_map(|stored| event(&stored.record)).expect("an event");
    let mut erased = Envelope {
        event_type: ERASED.into(),
        payload: "{}".into(),
        hash: EventHash::default(),
        previous_hash: last.hash,
        ..last
    };
    erased.hash = erased.compute_hash();
    Encoder::new("test", "counter").erased(&erased, Stamp { sequence: stamp.sequence + 1, index: 0, count: 1, ..stamp })
}

/// A log whose last record is of this kind: a claim at offset 0, an event at 1, that record at 2.
async fn ending_with(kind: Kind) -> World {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    match kind {
        Kind::Event => assert!(process.send("a", "2", add(1)).await.is_ok()),
        Kind::Answers => assert!(process.send("a", "2", Do::Take { n: 100 }).await.is_err()),
        Kind::Erased => assert_eq!(world.partition().append_foreign(erased(&world)), 2),
    }
    process.engine.shutdown().await;
    assert_eq!(world.partition().records().len(), 3);
    world
}

/// Another process claims what is left and writes until the log is as long as it was, or longer.
async fn filled_again(world: &World, end: u64) {
    // Without snapshots, by which it would notice too.
    let other = world.process_with(EngineConfig { snapshot_every: 0, ..world.config.clone() }).await;
    for n in 0.. {
        if world.log.bounds(TOPIC, 0).await.unwrap().end >= end {
            break;
        }
        other.send("b", &format!("other {n}"), add(1)).await.unwrap();
    }
    other.engine.shutdown().await;
}

#[tokio::test]
async fn a_tail_that_was_lost_and_filled_again_is_noticed_whatever_its_last_record_was() {
    for kind in KINDS {
        for lost_from in [1, 2] {
            for end in [3, 8] {
                let world = ending_with(kind).await;
                let checkpoint = checkpoint(&world);
                assert_eq!(checkpoint.last.expect("a last record").offset, 2, "{kind:?}");
                verified(&world, &checkpoint).await.expect("nothing was lost");
                world.partition().truncate(lost_from);
                filled_again(&world, end).await;
                let told = verified(&world, &checkpoint).await;
                assert!(
                    matches!(&told, Err(error) if error.kind() == LogErrorKind::Lost),
                    "{kind:?} lost from offset {lost_from}, filled again to {end}: {told:?}"
                );
            }
        }
    }
}

/// What an owner knows of its partition is older than what others made of the log: it does not serve on it, neither when
/// it starts nor when it is in doubt.
#[tokio::test]
async fn an_owner_that_saw_more_does_not_serve_on_what_others_filled_again() {
    for running in [false, true] {
        let world = World::new();
        let kept = Arc::new(StateFolder::in_memory());
        let start = async |kept: &Arc<StateFolder>| {
            // No snapshots: else the other one notices, by these.
            let send_deadline = Duration::from_secs(2);
            let config = EngineConfig { snapshot_every: 0, unwritten_max: 1, send_deadline, ..world.config.clone() };
            let engine = Engine::new(Arc::new(world.log.clone()), config).on_folder(kept.clone());
            let bus = engine.start::<Counter>().await.unwrap();
            (bus.ready().await, Process { engine, bus })
        };
        let (_, first) = start(&kept).await;
        first.send("a", "1", add(1)).await.unwrap(); // offset 1
        for n in 0..8 {
            assert!(first.send("a", &format!("r{n}"), Do::Take { n: 100 }).await.is_err()); // offsets 2 to 9
        }
        if !running {
            first.engine.shutdown().await;
        }
        world.partition().truncate(2);
        let (_, other) = start(&Arc::new(StateFolder::in_memory())).await; // claims at offset 2
        for n in 0..7 {
            other.send("a", &format!("o{n}"), add(1)).await.unwrap(); // offsets 3 to 9
        }
        other.engine.shutdown().await;
        let again = if running { first } else { start(&kept).await.1 };
        if running {
            world.fault(Fault::Refused); // as the log does with a producer whose last records it lost
        }
        let answer = again.send("a", "2", add(1)).await;
        let told = matches!(answer, Err(SendError::NotDone(_) | SendError::OutcomeUnknown { .. }));
        assert!(told, "running: {running}: {answer:?}");
        eventually("it gives up", || {
            matches!(&again.bus.status()[0].state, OwnerState::Failed { reason } if reason.contains("lost its tail"))
        })
        .await;
    }
}

/// Erasing takes records away for good: that is no lost tail, but it hides none either.
#[tokio::test]
async fn a_last_record_that_compaction_took_is_no_lost_tail() {
    for kind in KINDS {
        let take = |world: &World| {
            let rest = world.partition().records().into_iter().filter(|stored| stored.offset != 2).collect::<Vec<_>>();
            world.partition().replace(rest);
        };
        let world = ending_with(kind).await;
        let checkpoint = self::checkpoint(&world);
        filled_again(&world, 6).await; // a claim and more, behind it
        take(&world);
        verified(&world, &checkpoint).await.unwrap_or_else(|error| panic!("{kind:?}: {error}"));

        // Lost, filled again, and what was written in its place was taken: but not the claim under which it was.
        let world = ending_with(kind).await;
        let checkpoint = self::checkpoint(&world);
        world.partition().truncate(1);
        filled_again(&world, 6).await;
        take(&world);
        let told = verified(&world, &checkpoint).await;
        assert!(matches!(&told, Err(error) if error.kind() == LogErrorKind::Lost), "{kind:?}: {told:?}");
    }
}
