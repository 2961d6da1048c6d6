//! Two processes that both believe to own the partition: the newest claim decides.

use super::*;
use crate::OwnerState;

#[tokio::test]
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

#[tokio::test]
async fn a_superseded_owner_refuses_nothing_from_old_state() {
    let world = World::new();
    let old = world.process().await;
    let new = world.process().await;
    new.send("a", "1", add(10)).await.unwrap();
    assert!(is_not_in_log(&old.send("a", "2", Do::Take { n: 5 }).await), "on the old state it would be refused");
    assert!(new.send("a", "2", Do::Take { n: 5 }).await.is_ok());
}

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
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

#[tokio::test]
async fn what_fails_is_told_with_its_round_and_not_remembered() {
    let world = World::new();
    let process = world.process().await;
    for _ in 0..2 {
        let answer = process.send("a", "1", Do::PanicInHandle).await;
        assert!(matches!(answer, Err(SendError::Panicked(_))), "{answer:?}");
    }
    assert_eq!(process.bus.status()[0].records, 2, "an answers record without an answer each");
    assert_eq!(process.send("a", "1", add(1)).await.unwrap().version.get(), 1);
}

#[tokio::test]
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
