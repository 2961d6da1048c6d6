//! Two processes that both believe to own the partition: the newest claim decides.

use super::*;
use crate::log::record::{Decoded, decode};
use crate::{EventId, OwnerState, SeededRandom};

#[tokio::test(start_paused = true)]
async fn a_superseded_owner_gets_nothing_accepted_and_says_who_took_over() {
    let world = World::new();
    let old = world.process().await;
    old.send("a", "1", add(1)).await.unwrap();
    let node = "the new one".to_owned();
    let new = world.process_with(EngineConfig { node, ..world.config.clone() }).await;
    new.send("a", "2", add(10)).await.unwrap();
    assert!(is_not_in_log(&old.send("a", "3", add(100)).await));
    let Err(SendError::NotDone(NotDone::NotReady { reason })) = old.send("a", "4", add(100)).await else {
        panic!("an owner that was shut out answered");
    };
    assert!(reason.contains("the new one"), "{reason}");
    assert!(matches!(&old.bus.status()[0].state, OwnerState::Superseded { by } if by.contains("the new one")));
    assert_eq!(world.sum("a").await, 11);
    new.send("a", "5", Do::Take { n: 11 }).await.expect("the new owner serves undisturbed");
}

#[tokio::test(start_paused = true)]
async fn a_superseded_owner_refuses_nothing_from_old_state() {
    let world = World::new();
    let old = world.process().await;
    let new = world.process().await;
    new.send("a", "1", add(10)).await.unwrap();
    assert!(is_not_in_log(&old.send("a", "2", Do::Take { n: 5 }).await), "on the old state it would be refused");
    assert!(new.send("a", "2", Do::Take { n: 5 }).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_new_owner_knows_the_old_ones_answers() {
    let world = World::new();
    let old = world.process().await;
    old.send("a", "1", add(1)).await.unwrap();
    assert!(old.send("a", "2", Do::Take { n: 5 }).await.is_err());
    let new = world.process().await;
    new.send("a", "3", add(100)).await.unwrap();
    assert!(new.send("a", "1", add(1)).await.unwrap().duplicate);
    assert!(matches!(new.send("a", "2", Do::Take { n: 5 }).await, Err(SendError::Refused(No::TooFew { sum: 1 }))));
}

#[tokio::test(start_paused = true)]
async fn records_that_land_after_the_take_over_are_void() {
    let world = World::new();
    let old = world.process().await;
    world.fault(Fault::Hang);
    let sending = old.sending("a", "1", Do::Add { n: 1, times: 3 });
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = world.process().await;
    assert_eq!(world.partition().release(), 3);
    assert!(is_not_in_log(&sending.await.unwrap()), "the gap tells the old owner");
    assert_eq!(new.send_until_done("a", "1", Do::Add { n: 1, times: 3 }).await.unwrap().version.get(), 3);
    assert_eq!(world.sum("a").await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_landed_before_the_take_over_is_answered_as_done_by_the_superseded_owner() {
    let world = World::new();
    let old = world.process().await;
    world.fault(Fault::Hang);
    let sending = old.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = world.starting(world.config.clone()).await;
    new.bus.ready().await.unwrap();
    new.send("a", "2", add(10)).await.unwrap();
    // The old owner's report never comes; its deadline does, and the log has the last word.
    assert!(is_not_in_log(&sending.await.unwrap()));

    let world = World::new();
    let old = world.process().await;
    world.fault(Fault::ReportLost);
    let sending = old.sending("a", "1", add(1));
    assert!(sending.await.unwrap().is_ok());
    assert_eq!(world.sum("a").await, 1);
}

#[tokio::test(start_paused = true)]
async fn of_two_that_start_at_once_exactly_one_serves() {
    for _ in 0..20 {
        let world = World::new();
        let (one, two) = (world.starting(world.config.clone()).await, world.starting(world.config.clone()).await);
        let mut sum = 0;
        for n in 0..20 {
            for process in [&one, &two] {
                let _ = process.bus.ready().await;
                sum += u64::from(process.send("a", &format!("{n}"), add(1)).await.is_ok_and(|r| !r.duplicate));
            }
        }
        assert_eq!((world.sum("a").await, sum), (20, 20));
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_lands_behind_another_of_its_number_has_lost() {
    let world = World::new();
    world.fault(Fault::Hang); // the slow one's claim
    let slow = world.starting(world.config.clone()).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let quick = world.process().await;
    quick.send("a", "1", add(1)).await.unwrap();
    assert_eq!(world.partition().release(), 1);
    assert!(slow.bus.ready().await.is_err());
    assert!(slow.send("a", "2", add(10)).await.is_err());
    quick.send_until_done("a", "3", add(100)).await.unwrap();
    assert_eq!(world.sum("a").await, 101);
}

#[tokio::test(start_paused = true)]
async fn a_superseded_owner_says_of_nothing_that_it_failed() {
    for failing in [Do::PanicInHandle, Do::Long { bytes: 30_000 }] {
        let world = World::new();
        let old = world.process().await;
        old.send("a", "1", add(1)).await.unwrap();
        let new = world.process().await;
        let answer = old.send("a", "2", failing).await;
        assert!(is_not_in_log(&answer), "{answer:?}");
        drop(new);
    }
}

/// Nor that an aggregate is parked: the other owner may be of a release to which it is not.
#[tokio::test(start_paused = true)]
async fn a_superseded_owner_says_of_nothing_that_it_is_parked() {
    let world = World::new();
    let unread = bad_data::envelope("bad", 1, "unheard-of", "{}", crate::EventHash::default());
    bad_data::earlier(&world, &[unread]);
    let old = world.process().await;
    assert!(matches!(old.send("bad", "1", add(1)).await, Err(SendError::Parked { .. })));
    let new = world.process().await;
    let answer = old.send("bad", "2", add(1)).await;
    assert!(is_not_in_log(&answer), "{answer:?}");
    assert!(matches!(new.send_until_done("bad", "2", add(1)).await, Err(SendError::Parked { .. })));
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_told_with_its_round_and_remembered() {
    let world = World::new();
    let process = world.process().await;
    for _ in 0..2 {
        let answer = process.send("a", "1", Do::PanicInHandle).await;
        assert!(matches!(answer, Err(SendError::Panicked(_))), "{answer:?}");
    }
    assert_eq!(process.bus.status()[0].records, 1, "one answers record");
    assert!(matches!(process.send("a", "1", add(1)).await, Err(SendError::CommandIdReused)));
    assert_eq!(process.send("a", "2", add(1)).await.unwrap().version.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_id_that_the_new_owner_took_for_another_payload_is_an_error_to_the_old_owners_caller() {
    let world = World::new();
    let old = world.process().await;
    world.fault(Fault::Hang);
    let sending = old.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = world.process().await;
    new.send("a", "1", add(10)).await.unwrap();
    // The old owner settles by the log, which knows the id, but not of this command.
    assert!(matches!(sending.await.unwrap(), Err(SendError::CommandIdReused)));
    assert_eq!(world.sum("a").await, 10);
}

/// Copies of one virtual machine have the same memory and the same clock. Where their random bits are the same all the
/// same, the place of the claim tells whose it is.
#[tokio::test]
async fn an_owner_does_not_take_another_ones_claim_for_its_own_though_all_its_bits_are_the_same() {
    let world = World::new();
    let copy = || EngineConfig {
        random: Arc::new(SeededRandom::new(7)),
        append_deadline: Duration::from_secs(30),
        ..world.config.clone()
    };
    world.fault(Fault::Hang); // the first one's claim is on its way when the second one claims
    let one = world.starting(copy()).await;
    eventually("a claim under way", || world.partition().held() == 1).await;
    let two = world.process_with(copy()).await;
    two.send("a", "1", add(1)).await.unwrap();
    assert_eq!(world.partition().release(), 1);
    let (claims, epochs) = claims(&world);
    assert_eq!((claims, epochs), (2, 1), "both drew the same");
    assert!(one.bus.ready().await.is_err(), "it lost");
    let answer = one.send("a", "2", add(10)).await;
    assert!(matches!(answer, Err(SendError::NotDone(_))), "{answer:?}");
    two.send("a", "3", add(100)).await.expect("the one whose claim came first serves undisturbed");
    assert_eq!(world.sum("a").await, 101);
}

/// Whatever a process draws by chance it draws from the operating system: a thread's generator, seeded alike, decides
/// nothing that must be unique.
#[tokio::test]
async fn two_processes_whose_generators_are_seeded_alike_draw_other_claims_logs_and_ids() {
    let draws = async || {
        fastrand::seed(7);
        let world = World {
            config: EngineConfig { random: EngineConfig::default().random, ..World::new().config },
            ..World::new()
        };
        let process = world.process().await;
        process.send("a", "1", Do::Add { n: 1, times: 2 }).await.unwrap();
        process.bus.send(&"a".to_owned(), add(1)).await.unwrap();
        process.engine.shutdown().await;
        let of = |stored: crate::log::StoredRecord| match decode(&stored.record) {
            Decoded::Claim(claim) => vec![format!("{:x}", claim.epoch.writer), claim.log_id.to_string()],
            Decoded::Event(_, event) => vec![event.event_id.to_string(), event.command_id.to_string()],
            other => panic!("{other:?}"),
        };
        let mut drawn: Vec<String> = world.partition().records().into_iter().flat_map(of).collect();
        drawn.extend([EventId::fresh(1).to_string(), CommandId::random().to_string(), EngineConfig::default().node]);
        drawn.retain(|text| text != "1"); // the id that was given
        drawn
    };
    let (one, two) = (draws().await, draws().await);
    assert_eq!((one.len(), two.len()), (9, 9), "{one:?}");
    let same: Vec<_> = one.iter().filter(|text| two.contains(text)).collect();
    assert!(same.is_empty(), "drawn twice: {same:?}");
}

/// The claims in the log, and how many different epochs they have.
fn claims(world: &World) -> (usize, usize) {
    let epoch = |stored: crate::log::StoredRecord| match decode(&stored.record) {
        Decoded::Claim(claim) => Some(claim.epoch),
        _ => None,
    };
    let epochs: Vec<_> = world.partition().records().into_iter().filter_map(epoch).collect();
    let distinct: std::collections::HashSet<_> = epochs.iter().collect();
    (epochs.len(), distinct.len())
}
