//! What a command is answered, once and again.

use super::*;
use crate::{ExpectedVersion, InvalidCommand, Version};

#[tokio::test(start_paused = true)]
async fn the_same_command_gets_the_same_answer_and_has_no_second_effect() {
    let world = World::new();
    let process = world.process().await;
    let first = process.send("a", "1", Do::Add { n: 2, times: 3 }).await.unwrap();
    let again = process.send("a", "1", Do::Add { n: 2, times: 3 }).await.unwrap();
    assert_eq!((first.version.get(), first.events, first.duplicate), (3, 3, false));
    assert_eq!(again, Receipt { duplicate: true, ..first });
    assert_eq!(world.sum("a").await, 6);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_remembered_though_it_would_be_accepted_now() {
    let world = World::new();
    let process = world.process().await;
    let refused = |answer: Answer| matches!(answer, Err(SendError::Refused(No::TooFew { sum: 0 })));
    assert!(refused(process.send("a", "take", Do::Take { n: 1 }).await));
    process.send("a", "add", add(5)).await.unwrap();
    assert!(refused(process.send("a", "take", Do::Take { n: 1 }).await));
    assert_eq!(world.sum("a").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_no_op_and_a_conflict_are_remembered_too() {
    let world = World::new();
    let process = world.process().await;
    let id = "a".to_owned();
    let nothing = process.send("a", "nothing", Do::Nothing).await.unwrap();
    assert_eq!((nothing.version.get(), nothing.events), (0, 0));
    let expecting = || {
        let expected = ExpectedVersion::Exactly(Version::new(1));
        process.bus.send(&id, add(1)).command_id("conflict").expect(expected)
    };
    assert!(matches!(expecting().await, Err(SendError::Conflict { actual: Version::EMPTY, .. })));
    process.send("a", "add", add(1)).await.unwrap();
    assert!(matches!(expecting().await, Err(SendError::Conflict { actual: Version::EMPTY, .. })));
    assert!(process.send("a", "nothing", Do::Nothing).await.unwrap().duplicate);
    assert_eq!(world.sum("a").await, 1);
}

/// Shows: what a command is expected to find is no part of what its id stands for. After a conflict it is decided anew with another
/// expectation, takes effect once, and a copy of what conflicted never does, through a restart too.
#[tokio::test(start_paused = true)]
async fn after_a_conflict_a_command_may_expect_another_version() {
    let exactly = |version| ExpectedVersion::Exactly(Version::new(version));
    // The last that was told to conflict and the ones before it are kept in two places.
    for told in [[exactly(3), exactly(2)], [exactly(2), exactly(3)]] {
        conflicts_in_order(told).await;
    }
}

async fn conflicts_in_order(told: [ExpectedVersion; 2]) {
    let world = World::new();
    let mut process = world.process().await;
    let id = "a".to_owned();
    let exactly = |version| ExpectedVersion::Exactly(Version::new(version));
    process.send("a", "add", add(1)).await.unwrap(); // version 1
    for restart in [true, true, false] {
        let sent = |expected| process.bus.send(&id, add(10)).command_id("c").expect(expected);
        let conflict = |answer: Answer, at: u64, wanted: ExpectedVersion| match answer {
            Err(SendError::Conflict { actual, expected }) => {
                assert_eq!((actual.get() >= at, expected), (true, wanted));
            }
            other => panic!("{other:?}"),
        };
        conflict(sent(ExpectedVersion::NoStream).await, 1, ExpectedVersion::NoStream);
        conflict(sent(exactly(0)).await, 1, exactly(0));
        for expected in told {
            conflict(sent(expected).await, 1, expected);
        }
        if restart {
            process = world.process().await;
        }
    }
    process.send("a", "more", add(1)).await.unwrap(); // version 2
    let sent = |expected| process.bus.send(&id, add(10)).command_id("c").expect(expected);
    // Both were told to conflict, and copies of them may come now.
    for expected in [exactly(2), exactly(3)] {
        assert!(matches!(sent(expected).await, Err(SendError::Conflict { .. })), "{expected:?}");
    }
    let done = sent(ExpectedVersion::StreamExists).await.unwrap();
    assert_eq!((done.version.get(), done.duplicate), (3, false));
    for expected in [exactly(2), exactly(3), ExpectedVersion::NoStream, ExpectedVersion::Any] {
        let again = sent(expected).await.unwrap();
        assert_eq!(
            (again.version.get(), again.duplicate),
            (3, true),
            "what took effect is answered whatever is expected"
        );
    }
    let other = process.bus.send(&id, add(11)).command_id("c").expect(exactly(3)).await;
    assert!(matches!(other, Err(SendError::CommandIdReused)));
    assert_eq!(world.sum("a").await, 12);
}

/// Shows: of one command sent several times in one round with other expectations, each is told what is true of it.
#[tokio::test(start_paused = true)]
async fn conflicts_within_a_round_are_each_their_own() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "add", add(1)).await.unwrap();
    let id = "a".to_owned();
    let send = |expected| process.bus.send(&id, add(10)).command_id("c").expect(expected).into_future();
    // All are queued before the owner looks.
    let (none, one, late) = tokio::join!(
        send(ExpectedVersion::NoStream),
        send(ExpectedVersion::Exactly(Version::new(1))),
        send(ExpectedVersion::Exactly(Version::new(7))),
    );
    assert!(matches!(none, Err(SendError::Conflict { expected: ExpectedVersion::NoStream, .. })), "{none:?}");
    assert_eq!(one.unwrap().version.get(), 2);
    assert!(late.unwrap().duplicate);
    assert_eq!(process.bus.status()[0].rounds, 2, "the three were one round");
    // The events stand before the answers in the log: what took effect is known when it is read back.
    let again = world.process().await;
    let repeat = again.bus.send(&id, add(10)).command_id("c").await.unwrap();
    assert_eq!((repeat.version.get(), repeat.duplicate), (2, true));
    assert_eq!(world.sum("a").await, 11);
}

#[tokio::test(start_paused = true)]
async fn a_command_id_with_another_payload_is_an_error() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    assert!(matches!(process.send("a", "1", add(2)).await, Err(SendError::CommandIdReused)));
    assert!(process.send("b", "1", add(2)).await.is_ok(), "the scope is the aggregate");
}

#[tokio::test(start_paused = true)]
async fn a_repeat_within_the_round_waits_for_the_first_and_shares_its_answer() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("x", "0", add(1));
    process.queued(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let (one, two) = (process.sending("a", "1", add(7)), process.sending("a", "1", add(7)));
    process.queued(2).await;
    world.partition().release();
    hanging.await.unwrap().unwrap();
    let (one, two) = (one.await.unwrap().unwrap(), two.await.unwrap().unwrap());
    assert!(one.duplicate != two.duplicate);
    assert_eq!(one.position, two.position);
    assert_eq!(world.sum("a").await, 7);
}

#[tokio::test(start_paused = true)]
async fn after_the_retention_a_command_id_is_new() {
    let world = World::new();
    let config = EngineConfig { dedup_retention: Duration::from_secs(60), ..world.config.clone() };
    let process = world.process_with(config).await;
    process.send("a", "1", add(1)).await.unwrap();
    for n in 1..8 {
        world.clock.advance(7_500);
        process.send("a", &format!("other {n}"), add(0)).await.unwrap();
    }
    world.clock.advance(7_499);
    assert!(process.send("a", "1", add(1)).await.unwrap().duplicate);
    // It follows the time of a partition that is in use by a quarter of the retention at most.
    for n in 8..11 {
        world.clock.advance(7_500);
        process.send("a", &format!("other {n}"), add(0)).await.unwrap();
    }
    assert!(!process.send("a", "1", add(1)).await.unwrap().duplicate);
    assert_eq!(world.sum("a").await, 2);
}

/// An id that the bus made is not looked up, and is remembered like any other.
#[tokio::test(start_paused = true)]
async fn a_command_without_an_id_is_known_by_that_of_its_event() {
    let world = World::new();
    let process = world.process().await;
    process.bus.send(&"a".to_owned(), add(5)).await.unwrap();
    let id = world.events().await[0].envelope.command_id.clone();
    for _ in 0..2 {
        assert!(process.send("a", id.as_str(), add(5)).await.unwrap().duplicate);
    }
    let other = process.bus.send(&"a".to_owned(), add(6)).command_id(id.as_str()).await;
    assert!(matches!(other, Err(SendError::CommandIdReused)), "{other:?}");
    assert_eq!(world.sum("a").await, 5);
}

#[tokio::test(start_paused = true)]
async fn a_panic_fails_its_command_alone_and_appends_nothing() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("x", "0", add(1));
    process.queued(0).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    let round: Vec<_> = [add(1), Do::PanicInHandle, add(10), Do::PanicInApply, add(100)]
        .into_iter()
        .enumerate()
        .map(|(n, command)| process.sending("a", &n.to_string(), command))
        .collect();
    process.queued(5).await;
    world.partition().release();
    hanging.await.unwrap().unwrap();
    let mut answers = Vec::new();
    for sending in round {
        answers.push(sending.await.unwrap());
    }
    assert!(matches!(&answers[1], Err(SendError::Panicked(text)) if text == "handle gave up"));
    assert!(matches!(&answers[3], Err(SendError::Panicked(text)) if text == "apply gave up"));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 3);
    assert_eq!(world.sum("a").await, 111);
    let whole = process.send("a", "last", Do::Take { n: 112 }).await;
    assert!(matches!(whole, Err(SendError::Refused(No::TooFew { sum: 111 }))), "half of the events stayed applied");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_is_refused_with_its_size_and_the_rest_goes_on() {
    let world = World::new();
    let process = world.process().await;
    let long = process.send("a", "1", Do::Long { bytes: 30_000 }).await;
    assert!(matches!(
        long,
        Err(SendError::Invalid(InvalidCommand::TooLarge { what: "event", limit: 20_000, bytes })) if bytes > 30_000
    ));
    let many = process.send("a", "2", Do::Add { n: 1, times: 1_001 }).await;
    assert!(matches!(many, Err(SendError::Invalid(InvalidCommand::TooManyEvents { count: 1_001, limit: 1_000 }))));
    assert!(matches!(process.send("!x", "3", add(1)).await, Err(SendError::Invalid(InvalidCommand::Id(_)))));
    assert!(matches!(process.send("x", "", add(1)).await, Err(SendError::Invalid(InvalidCommand::Id(_)))));
    assert_eq!(process.send("a", "4", add(1)).await.unwrap().version.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_is_overloaded_and_nothing_was_done() {
    let world = World::new();
    let process = world.process_with(EngineConfig { queue_max: 1, ..world.config.clone() }).await;
    world.fault(Fault::Hang);
    let hanging = process.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let waiting = process.sending("a", "2", add(10));
    process.queued(1).await;
    let third = process.send("a", "3", add(100)).await;
    assert!(matches!(third, Err(SendError::NotDone(NotDone::Overloaded { .. }))));
    world.partition().release();
    hanging.await.unwrap().unwrap();
    waiting.await.unwrap().unwrap();
    assert_eq!(world.sum("a").await, 11);
}

#[tokio::test(start_paused = true)]
async fn many_refusals_are_told_in_records_that_fit() {
    let world = World::new();
    let process = world.process().await;
    let sendings: Vec<_> = (0..300).map(|n| process.sending("a", &format!("{n:0>190}"), Do::Take { n: 1 })).collect();
    for sending in sendings {
        assert!(matches!(sending.await.unwrap(), Err(SendError::Refused(_))));
    }
    let largest = world.partition().records().iter().map(|stored| stored.record.size()).max().unwrap();
    assert!(largest <= 20_000, "{largest}");
}

/// A round ends at its bytes, and those of refusals are bytes like those of events.
#[tokio::test(start_paused = true)]
async fn refusals_fill_a_round_as_events_do() {
    for command in [Do::Take { n: 1 }, Do::Say { text: "x".repeat(500) }] {
        let world = World::new();
        let process = world.process_with(EngineConfig { round_max_bytes: 1_000, ..world.config.clone() }).await;
        world.fault(Fault::Hang);
        let hanging = process.sending("x", "0", add(1));
        eventually("an append that hangs", || world.partition().held() > 0).await;
        let sendings: Vec<_> = (0..8).map(|n| process.sending("a", &format!("{n}"), command.clone())).collect();
        process.queued(8).await;
        world.partition().release();
        hanging.await.unwrap().unwrap();
        for sending in sendings {
            let _ = sending.await.unwrap();
        }
        let rounds = process.bus.status()[0].rounds;
        assert!(rounds > 3, "{command:?}: all were decided in {rounds} rounds");
    }
}

#[tokio::test(start_paused = true)]
async fn recorded_time_does_not_fall_when_the_clock_does() {
    let world = World::new();
    let process = world.process().await;
    let first = process.send("a", "1", add(1)).await.unwrap();
    world.clock.advance(-5_000);
    let second = process.send("a", "2", add(1)).await.unwrap();
    assert_eq!(second.recorded_at, first.recorded_at);
    process.engine.shutdown().await;
    let after_restart = world.process().await.send("a", "3", add(1)).await.unwrap();
    assert_eq!(after_restart.recorded_at, first.recorded_at);
    world.events().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_whose_caller_went_away_before_its_turn_is_not_done() {
    let world = World::new();
    let process = world.process().await;
    world.fault(Fault::Hang);
    let hanging = process.sending("a", "1", add(1));
    tokio::time::sleep(Duration::from_millis(20)).await;
    let dropped = process.sending("a", "2", add(10));
    process.queued(1).await;
    dropped.abort();
    assert!(dropped.await.is_err());
    world.partition().release();
    hanging.await.unwrap().unwrap();
    process.send("a", "3", add(100)).await.unwrap();
    assert_eq!(world.sum("a").await, 101);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_cannot_be_written_is_refused() {
    let world = World::new();
    let process = world.process().await;
    let time = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    let send = |at| process.bus.send(&"a".to_owned(), add(1)).occurred_at(at);
    let answer = send(time("+10000-01-01T00:00:00Z")).await;
    assert!(
        matches!(&answer, Err(SendError::Invalid(why)) if why.to_string().contains("year from 0 to 9999")),
        "{answer:?}"
    );
    for at in ["9999-12-31T23:59:59.999999Z", "0000-01-01T00:00:00Z"] {
        send(time(at)).await.unwrap();
    }
    assert_eq!(world.sum("a").await, 2);
}
