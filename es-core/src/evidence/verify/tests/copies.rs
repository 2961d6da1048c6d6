//! A log that was copied with its seals is verified as its source is, and sealed on from where that was.

use uuid::Uuid;

use super::World;
use crate::log::record::{self, Copied, Decoded, Encoder};

/// Copies events and seals: the events one behind the other, without the answers records, as after a compaction.
async fn copy_of(source: &World, drop_event: bool) -> World {
    let copy = World::new();
    let records = source.events().records();
    let Decoded::Claim(claim) = record::decode(&records[0].record) else { panic!("a claim comes first") };
    let (cluster, tool) = ("elsewhere".to_owned(), "a test".to_owned());
    let copied = Copied {
        copy: Uuid::from_u128(1),
        from: claim.log_id,
        cluster,
        tool,
        cut: 1_000,
        partitions: None,
        sealed: None,
    };
    copy.events().append_foreign(Encoder::new("test", "counter").copied(&copied, 1_700_000_000_000));
    let mut missing = drop_event;
    for stored in records {
        match record::decode(&stored.record) {
            Decoded::Answers(..) => continue,
            Decoded::Event(stamp, _) if stamp.count == 1 && std::mem::take(&mut missing) => continue,
            _ => copy.events().append_foreign(stored.record),
        };
    }
    for stored in source.seals().records() {
        copy.seals().append_foreign(stored.record);
    }
    copy
}

#[tokio::test]
async fn a_copy_is_verified_by_the_seals_of_its_source_and_sealed_on() {
    let source = World::worked().await;
    let before = source.verify().await;
    let copy = copy_of(&source, false).await;
    let report = copy.verify().await;
    assert_eq!(report.first(), None);
    assert_eq!((report.events(), report.sealed()), (before.events(), before.sealed()));

    copy.work(7, 20, Some(copy.sealing())).await;
    let report = copy.verify().await;
    assert_eq!(report.first(), None);
    assert!(report.events() > before.events(), "leaves go on");
    assert_eq!(report.sealed(), report.events(), "what was copied and what came since");
    copy.work(8, 20, Some(copy.sealing())).await; // from a note of the copy
    let report = copy.verify().await;
    assert_eq!((report.first(), report.sealed()), (None, report.events()));
}

#[tokio::test]
async fn a_copy_that_lacks_an_event_is_found_and_not_sealed_anew() {
    let source = World::worked().await;
    let copy = copy_of(&source, true).await;
    assert!(copy.verify().await.first().is_some());
    let notes = copy.seals().records().len();
    copy.work(7, 20, Some(copy.sealing())).await;
    let signed = copy.seals().records().len();
    assert_eq!(signed, notes, "nothing that contradicts what was signed");
}
