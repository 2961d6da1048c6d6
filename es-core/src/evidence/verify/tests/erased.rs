//! Of an aggregate that was erased one record is left, and all others can be verified as before.

use super::{World, counted};
use crate::domain::envelope::Envelope;
use crate::domain::hash::EventHash;
use crate::domain::ids::{CommandId, CorrelationId, Epoch, EventId};
use crate::engine::owner::tests::Do;
use crate::evidence::verify::{Report, Wrong};
use crate::log::StoredRecord;
use crate::log::record::{self, Claim, Decoded, ERASED, Encoder, PreviousClaim, Stamp};

const ERASED_ID: &str = "counter-4";

impl World {
    fn last_of(&self, id: &str) -> Envelope {
        let all = counted(&self.events().records());
        all.into_iter().rfind(|event| event.envelope.stream.id.as_str() == id).expect("it has events").envelope
    }

    /// Takes the log over and says that the aggregate is erased; its events stay for now.
    fn say_erased(&self, id: &str, epoch_number: u64) {
        let records = self.events().records();
        let Some(Decoded::Claim(claim)) =
            records.iter().map(|stored| record::decode(&stored.record)).rfind(|it| matches!(it, Decoded::Claim(_)))
        else {
            panic!("somebody claimed the log")
        };
        let epoch = Epoch { number: epoch_number, writer: 99 };
        let previous = Some(PreviousClaim { number: claim.epoch.number, writer: claim.epoch.writer, offset: 0 });
        let encoder = Encoder::new("test", "counter");
        let last = self.last_of(id);
        let mut erased = Envelope {
            event_id: EventId::from(uuid::Uuid::from_u128(7)),
            event_type: ERASED.into(),
            command_id: CommandId::new("erase").unwrap(),
            correlation_id: CorrelationId::new("erase").unwrap(),
            payload: "{}".into(),
            previous_hash: last.hash,
            hash: EventHash::default(),
            ..last
        };
        erased.hash = erased.compute_hash();
        let timestamp_ms = erased.recorded_at.timestamp_millis();
        self.events().append_foreign(encoder.claim(&Claim { epoch, previous, ..claim }, timestamp_ms));
        self.events().append_foreign(encoder.erased(&erased, Stamp { epoch, sequence: 1, index: 0, count: 1 }));
    }

    /// As compaction does once there are tombstones.
    fn remove(&self, is_gone: impl Fn(&Envelope) -> bool) {
        let is_kept = |stored: &StoredRecord| match record::decode(&stored.record) {
            Decoded::Event(_, event) => !is_gone(&event),
            _ => true,
        };
        self.events().replace(self.events().records().into_iter().filter(is_kept).collect());
    }

    /// With everything sealed: who erases waits for that.
    async fn sealed() -> Self {
        let world = Self::worked().await;
        world.work(4, 10, Some(world.sealing())).await;
        world
    }

    /// With an aggregate that is erased, and more events after that, some of which are its own.
    async fn erased() -> Self {
        let world = Self::sealed().await;
        world.say_erased(ERASED_ID, 100);
        world.work(5, 1, Some(world.sealing())).await;
        world.remove(|event| event.stream.id.as_str() == ERASED_ID);
        world.work(7, 40, Some(world.sealing())).await;
        world
    }
}

fn erased_in(report: &Report) -> Vec<(&str, u64)> {
    let erased = &report.partitions[0].erased;
    erased.iter().map(|erased| (erased.stream.id.as_str(), erased.version.get())).collect()
}

#[tokio::test]
async fn the_rest_is_verified_and_the_erased_aggregate_is_told() {
    let world = World::sealed().await;
    let version = world.last_of(ERASED_ID).version.get();
    world.say_erased(ERASED_ID, 100);
    let (engine, _) = world.process(Some(world.sealing())).await;
    engine.shutdown().await;
    // While its events are there, when some of them are gone, and when all are.
    for every in [u64::MAX, 2, 1] {
        world.remove(|event| event.stream.id.as_str() == ERASED_ID && event.version.get() % every == 0);
        let report = world.verify().await;
        assert_eq!(report.first(), None, "each {every}. event removed");
        assert_eq!(erased_in(&report), [(ERASED_ID, version)]);
    }
    // It goes on with the next version, and so do the seals.
    let (engine, bus) = world.process(Some(world.sealing())).await;
    let receipt = bus.send(&ERASED_ID.to_owned(), Do::Add { n: 3, times: 2 }).await.unwrap();
    assert_eq!(receipt.version.get(), version + 2);
    let too_much = bus.send(&ERASED_ID.to_owned(), Do::Take { n: 7 }).await;
    assert!(too_much.is_err(), "what it had is forgotten");
    engine.shutdown().await;
    let report = world.verify().await;
    assert_eq!(report.first(), None);
    let erased_sealed = version + report.events();
    assert_eq!(report.sealed(), erased_sealed + 1, "its events, its erasure, and all others");
}

/// What nobody sealed anybody may have written, with the highest version there is, and it explains nothing.
#[tokio::test]
async fn an_erasure_that_is_not_sealed_explains_nothing() {
    let world = World::sealed().await;
    world.say_erased(ERASED_ID, 100);
    assert_eq!(world.verify().await.first(), None, "its events are there");
    world.remove(|event| event.stream.id.as_str() == ERASED_ID);
    let first = counted(&world.events().records()).len();
    let report = world.verify().await;
    assert!(matches!(report.first().expect("they are missing").wrong, Wrong::Dropped), "{first}: {:?}", report.first());
}

/// Nor where the log is read several times, and what another one erased is not there to be counted.
#[tokio::test]
async fn an_erasure_that_is_not_sealed_explains_nothing_whatever_memory_there_is() {
    let world = World::erased().await;
    for victim in 0..9 {
        let (victim, whole) = (format!("counter-{victim}"), world.events().records());
        if victim == ERASED_ID {
            continue;
        }
        world.say_erased(&victim, 1_000);
        world.remove(|event| event.stream.id.as_str() == victim);
        for heads_max in [1, 2, 100] {
            let report = world.verifier().heads_max(heads_max).run(|_| {}).await.unwrap();
            assert!(!report.is_sound(), "{victim} with {heads_max} heads");
        }
        world.events().replace(whole);
    }
}

/// That something was erased hides nothing else.
#[tokio::test]
async fn what_is_dropped_beside_an_erased_aggregate_is_found() {
    let world = World::erased().await;
    assert_eq!(world.verify().await.first(), None);
    let whole = world.events().records();
    let mut found = 0;
    for victim in counted(&whole) {
        if *victim.envelope.event_type == *ERASED {
            continue;
        }
        world.events().replace(whole.iter().filter(|stored| stored.offset != victim.offset).cloned().collect());
        let report = world.verify().await;
        let first = report.first().unwrap_or_else(|| panic!("{} at {}", victim.envelope.stream, victim.offset));
        assert!(!matches!(first.wrong, Wrong::Seals(_)), "{first}");
        found += 1;
    }
    assert!(found > 100, "{found}");
}

/// Who drops an aggregate's events and says that it was erased says so where nothing was sealed, or something else.
#[tokio::test]
async fn an_erasure_that_was_forged_before_the_last_seal_is_found() {
    let world = World::worked().await;
    let whole = world.events().records();
    world.say_erased(ERASED_ID, 100);
    let forged = world.events().records()[whole.len() + 1].clone();
    let sealed = world.verify().await.sealed();
    // With the stamp of the record in whose place it comes, in the midst of what was sealed.
    let all = counted(&whole);
    let place = whole.iter().position(|stored| stored.offset == all[sealed as usize / 2].offset).unwrap();
    let (Decoded::Event(stamp, _), Decoded::Erased(_, erased)) =
        (record::decode(&whole[place].record), record::decode(&forged.record))
    else {
        panic!("an event and an erasure")
    };
    let mut records = whole.clone();
    records[place].record = Encoder::new("test", "counter").erased(&erased, Stamp { index: 0, count: 1, ..stamp });
    world.events().replace(records);
    world.remove(|event| event.stream.id.as_str() == ERASED_ID);
    let report = world.verify().await;
    let first = report.first().expect("it was not sealed there");
    assert!(first.index <= sealed / 2, "{first}");
}
