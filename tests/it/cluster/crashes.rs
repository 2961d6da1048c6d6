//! Processes that die, freeze, come and go.

use std::time::Duration;

use es_tests::{Kafka, Proc, eventually};

use super::nodes::Cluster;
use super::{PARTITIONS, Trial};
use crate::bank::LONG;

/// Shows: whichever process is killed when, and comes back when, every answer stays true.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn killed_processes_lose_and_double_nothing() {
    const KILLS: usize = 100;
    let what = "kills";
    let mut trial = Trial::start(what, &Kafka::shared().await.bootstrap(), 3).await;
    for _ in 0..KILLS {
        let victim = trial.random.usize(..3);
        trial.cluster.nodes[victim].kill();
        if trial.random.u8(..3) == 0 {
            // Long enough that the others may have taken over, or have just begun to.
            trial.pause(2_500).await;
        }
        trial.cluster.nodes[victim].start();
        // Often too short to take anything over, or to start at all.
        let at_most_ms = [300, 800, 2_500][trial.random.usize(..3)];
        trial.pause(at_most_ms).await;
    }
    let (_, truth) = trial.finish(what).await;
    assert!(truth.claims > KILLS as u64, "processes take over");
}

/// Shows: a process that was frozen while others took over wakes as a zombie that gets nothing accepted, refuses nothing
/// from what it knew, and tells those who wait for it the truth.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_frozen_process_wakes_and_changes_nothing() {
    let what = "freezes";
    let mut trial = Trial::start(what, &Kafka::shared().await.bootstrap(), 3).await;
    for _ in 0..4 {
        let victim = trial.random.usize(..3);
        trial.cluster.nodes[victim].signal(Proc::sigstop);
        let others = format!("the others to serve what {} had", trial.cluster.nodes[victim].name);
        let cluster = &trial.cluster;
        let taken = async || (cluster.figure_without(victim, "bank_owner_serving").await == PARTITIONS).then_some(());
        eventually(&others, LONG, taken).await;
        // What it was about to decide when it was frozen is old by now.
        trial.load.goes_on(200).await;
        trial.cluster.nodes[victim].signal(Proc::sigcont);
        trial.load.goes_on(200).await;
        trial.cluster.all_ready().await;
    }
    trial.finish(what).await;
}

/// Shows: of two processes with one name the older says so and steps aside, and the newer works.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn of_two_with_one_name_the_older_steps_aside() {
    let what = "doubles";
    let kafka = Kafka::shared().await.bootstrap();
    let mut cluster = Cluster::start(&kafka, 2).await;
    let name = cluster.nodes[0].name.clone();
    cluster.add_as(&name, &kafka); // known to the senders from the start
    let mut trial = Trial::of(what, cluster).await;
    trial.load.goes_on(100).await;
    trial.cluster.nodes[2].start();
    let older = &trial.cluster.nodes[0];
    eventually("the older to say so", LONG, async || {
        older.stderr().contains("another process may have joined").then_some(())
    })
    .await;
    let client = trial.cluster.client.clone();
    trial.cluster.nodes[2].ready(&client).await;
    trial.cluster.nodes[2].serves(&client, 1).await;
    trial.load.goes_on(200).await;
    let older = &mut trial.cluster.nodes[0];
    assert_eq!(older.figure(&client, "bank_owner_serving").await, 0, "{}", older.stderr());
    assert!(older.process.as_mut().expect("nobody ended it").exited().is_none(), "{}", older.stderr());
    older.stop().await;
    older.retired = true;
    trial.finish(what).await;
}

/// Shows: a restart of every process in turn, each asked to end, loses no command and silences nobody for long.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_rolling_restart_loses_no_command() {
    let what = "rolling restart";
    let mut trial = Trial::start(what, &Kafka::shared().await.bootstrap(), 3).await;
    let client = trial.cluster.client.clone();
    for number in 0..3 {
        let node = &mut trial.cluster.nodes[number];
        node.stop().await;
        node.start();
        node.ready(&client).await;
        trial.load.goes_on(100).await;
    }
    trial.finish(what).await;
}

/// Shows: processes that come and go all the time, also before they have come, leave every answer true.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn processes_may_join_and_leave_all_the_time() {
    let what = "join and leave";
    let kafka = Kafka::shared().await.bootstrap();
    let mut cluster = Cluster::start(&kafka, 2).await;
    cluster.add(&kafka);
    let mut trial = Trial::of(what, cluster).await;
    let mut turn = tokio::time::interval(Duration::from_secs(2));
    for _ in 0..15 {
        turn.tick().await;
        trial.cluster.nodes[2].start();
        turn.tick().await;
        trial.cluster.nodes[2].stop().await;
    }
    trial.finish(what).await;
}
