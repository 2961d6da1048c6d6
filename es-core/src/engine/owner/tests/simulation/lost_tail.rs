//! A log that loses its tail below what a process has read or written: nothing is served on it any more, by nobody who
//! saw more.

use super::*;
use crate::verify_checkpoint;
use crate::{OwnerState, log::LogErrorKind};

/// One process on one partition, at rest; then the tail is lost, others may write behind it, and it is asked again.
fn run(seed: u64) -> Result<(), String> {
    fastrand::seed(seed);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut world = World::new();
        world.config.random = Arc::new(SeededRandom::new(seed));
        world.config.unwritten_max = 1; // all that is known is on disk
        world.config.send_deadline = Duration::from_secs(1);
        let disk = Arc::new(StateFolder::in_memory());
        let start = async |world: &World| {
            let engine = Engine::new(Arc::new(SimLog(world.log.clone())), world.config.clone());
            let engine = engine.on_folder(disk.clone());
            let bus = engine.start::<Counter>().await.expect("starts");
            Process { engine, bus }
        };
        let mut process = start(&world).await;
        for number in 0..rng.usize(1..8) {
            let times = rng.u64(1..4);
            process.send_until_done("a", &format!("{number}"), Do::Add { n: 1, times }).await.unwrap();
            if rng.u32(..4) == 0 {
                let refused = Do::Take { n: 1_000 };
                process.send_until_done("a", &format!("refused {number}"), refused).await.unwrap_err();
            }
            if rng.u32(..6) == 0 {
                process.engine.kill().await;
                process = start(&world).await;
            }
        }
        let source = EventSource::of::<Counter>("test", 1);
        let mut reader = PartitionReader::resume(source.clone(), 0, &Checkpoint::default());
        world.partition().records().into_iter().for_each(|stored| drop(reader.feed(stored)));

        // The last record that counts is lost at least.
        let last = reader.checkpoint().last.expect("a last record").offset;
        let lost_from = rng.u64(..=last);
        let end = reader.next();
        world.partition().truncate(lost_from);
        let lost = end - lost_from;
        let written_since = rng.u64(..=2 * lost);
        if rng.bool() {
            for _ in 0..written_since {
                world.partition().append_foreign(rubbish());
            }
        } else if written_since > 0 {
            // Another process, which knows nothing of it.
            let other = Engine::new(Arc::new(world.log.clone()), world.config.clone());
            let bus = other.start::<Counter>().await.expect("starts");
            let other = Process { engine: other, bus };
            for number in 1..written_since {
                other.send_until_done("b", &format!("since {number}"), add(1)).await.unwrap();
            }
            other.engine.shutdown().await;
        }
        if rng.u32(..3) == 0 {
            process.engine.kill().await;
            process = start(&world).await;
        } else if written_since >= lost {
            // Where an append would not lie too low, it is for the log to refuse a writer whose last records it lost, as
            // Kafka does with idempotent producers.
            world.fault(if rng.bool() { Fault::Refused } else { Fault::Lost });
        } else if rng.bool() {
            world.fault(if rng.bool() { Fault::ReportLost } else { Fault::Hang });
        }
        for number in 0..3 {
            let command = Do::Add { n: 1, times: rng.u64(1..8) };
            let answer = process.send("a", &format!("late {number}"), command).await;
            if !matches!(answer, Err(SendError::NotDone(_) | SendError::OutcomeUnknown { .. })) {
                return Err(format!("it serves on a log that ends at {lost_from} instead of {end}: {answer:?}"));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        let state = process.bus.status()[0].state.clone();
        if !matches!(state, OwnerState::Failed { .. }) {
            return Err(format!("it is {state:?} on a log that ends at {lost_from} instead of {end}"));
        }
        match verify_checkpoint(&world.log, &source, 0, &reader.checkpoint()).await {
            Err(error) if error.kind() == LogErrorKind::Lost => {}
            other => return Err(format!("a projection would go on: {other:?}")),
        }
        // Who never saw what is gone may serve, on what is left: what the old process still wrote does not count.
        process.engine.kill().await;
        let newcomer = world.starting(world.config.clone()).await;
        if newcomer.bus.ready().await.is_ok() {
            let answer = newcomer.send("a", "new", add(1)).await;
            let events = world.events().await;
            let due = events.iter().filter(|event| event.envelope.stream.id.as_str() == "a").count() as u64;
            if !matches!(&answer, Ok(receipt) if receipt.version.get() == due) {
                return Err(format!("there are {due} events, and a newcomer was told {answer:?}"));
            }
        }
        Ok(())
    })
}

#[test]
fn a_lost_tail_is_never_served_on() {
    let failed: Vec<String> = (0..500).filter_map(|seed| Some(format!("seed {seed}: {}", run(seed).err()?))).collect();
    assert!(failed.is_empty(), "{} of 500: {:#?}", failed.len(), &failed[..failed.len().min(5)]);
}
