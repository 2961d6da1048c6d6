//! Processes that die, freeze, come and go.

use std::time::Duration;

use es_tests::Kafka;

use super::Trial;

/// Shows: whichever process is killed when, and comes back when, every answer stays true.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn killed_processes_lose_and_double_nothing() {
    const KILLS: usize = 25;
    let what = "kills";
    let kafka = Kafka::shared().await;
    let mut trial = Trial::start(what, &kafka.bootstrap(), 3).await;
    for _ in 0..KILLS {
        let victim = trial.random.usize(..3);
        trial.cluster.nodes[victim].kill();
        if trial.random.bool() {
            // Long enough that the others may have taken over, or have just begun to.
            pause(&mut trial, 3_000).await;
        }
        trial.cluster.nodes[victim].start();
        pause(&mut trial, 2_500).await;
    }
    let (_, truth) = trial.finish(what).await;
    assert!(truth.claims > KILLS as u64, "processes take over");
}

async fn pause(trial: &mut Trial, at_most_ms: u64) {
    tokio::time::sleep(Duration::from_millis(trial.random.u64(..at_most_ms))).await;
}
