//! A projection: folds each partition from its checkpoint on, and crashes between batch and commit.

use std::collections::BTreeMap;

use super::domain::newer;
use super::*;
use crate::verify_checkpoint;

/// Of each tank: the number of its events, and its level.
pub(super) type Rows = BTreeMap<String, (u64, u64)>;

/// Reads to the end of the run: until no client is at work, and nothing came for a while.
pub(super) async fn run(sim: Arc<Sim>, partition: u32, mut rng: fastrand::Rng) -> Rows {
    let source = EventSource::of::<newer::Tank>("test", PARTITIONS);
    let (mut stored, mut checkpoint) = (Rows::new(), Checkpoint::default());
    loop {
        let (mut rows, mut reader) = (stored.clone(), PartitionReader::resume(source.clone(), partition, &checkpoint));
        sim.log.partition(EVENTS, partition); // makes the topic, where no process was faster
        verify_checkpoint(&sim.log, &source, partition, &checkpoint).await.expect("a whole log");
        let mut tail = sim.log.reader(EVENTS, &[(partition, checkpoint.next)]).await.expect("a whole log");
        loop {
            let batch = match tokio::time::timeout(Duration::from_secs(5), tail.next()).await {
                Ok(batch) => batch,
                Err(_) if sim.finished.load(Ordering::Relaxed) => return stored,
                Err(_) => continue,
            };
            for stored in batch.expect("a whole log").records {
                if let Fed::Events(events) = reader.feed(stored).expect("a whole log") {
                    for event in events {
                        fold(&mut rows, &event);
                    }
                }
                if rng.u32(..10) == 0 {
                    break; // the rest of the batch is read again after the commit or the crash
                }
            }
            if rng.u32(..4) == 0 {
                break; // a crash: what is not committed is gone
            }
            (stored, checkpoint) = (rows.clone(), reader.checkpoint());
            tail = sim.log.reader(EVENTS, &[(partition, reader.next())]).await.expect("a whole log");
        }
    }
}

fn fold(rows: &mut Rows, event: &Recorded) {
    let (events, level) = rows.entry(event.envelope.stream.id.to_string()).or_default();
    *events += 1;
    let event = event.envelope.event::<newer::Tank>().expect("readable");
    *level = truth::level_after(*level, &event).expect("it was decided on this level");
}
