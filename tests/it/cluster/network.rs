//! A network between one process and the broker that holds, loses, cuts and slows. The process behind the proxy is the
//! first; the others reach the broker as it is.

use std::time::Duration;

use es_tests::{Kafka, Proc, Proxy, Switches, eventually};

use super::{PARTITIONS, Trial, behind_a_proxy};
use crate::bank::LONG;

async fn start(what: &str) -> (Kafka, Proxy, Trial) {
    let (kafka, proxy) = Kafka::start_proxied().await;
    let cluster = behind_a_proxy(&kafka, &proxy).await;
    (kafka, proxy, Trial::of(what, cluster).await)
}

impl Trial {
    async fn others_take_over(&self) {
        let cluster = &self.cluster;
        let taken = async || (cluster.figure_without(0, "bank_owner_serving").await == PARTITIONS).then_some(());
        eventually("the others to serve every partition", LONG, taken).await;
    }

    async fn first_serves_again(&mut self) {
        let client = self.cluster.client.clone();
        self.cluster.nodes[0].ready(&client).await;
        self.cluster.nodes[0].serves(&client, 1).await;
    }
}

/// Holds back what the first process has to say to the events topic, until there is something to be held.
async fn hold_produce(proxy: &Proxy, trial: &Trial) {
    let before = proxy.held();
    proxy.set(Switches { hold_produce: Some(trial.events_topic()), ..Switches::default() });
    eventually("a produce request to be held", LONG, async || (proxy.held() > before).then_some(())).await;
}

/// Shows: what a process had sent before it was killed, and what arrives only after others took over, is void.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn what_a_killed_process_sent_arrives_late_and_is_void() {
    let what = "late records of the dead";
    let (_kafka, proxy, mut trial) = start(what).await;
    for _ in 0..2 {
        trial.first_serves_again().await;
        trial.load.goes_on(50).await;
        hold_produce(&proxy, &trial).await;
        trial.cluster.nodes[0].kill();
        trial.others_take_over().await;
        trial.load.goes_on(100).await;
        proxy.set(Switches::default());
        trial.load.goes_on(100).await;
        trial.cluster.nodes[0].start();
    }
    let (_, truth) = trial.finish(what).await;
    assert!(truth.void > 0, "what was held has arrived");
}

/// Shows: the same of a process that was frozen and lives on: who waits for it gets true answers.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn what_a_frozen_process_sent_arrives_late_and_is_void() {
    let what = "late records of the frozen";
    let (_kafka, proxy, mut trial) = start(what).await;
    for _ in 0..2 {
        trial.first_serves_again().await;
        trial.load.goes_on(50).await;
        hold_produce(&proxy, &trial).await;
        trial.cluster.nodes[0].signal(Proc::sigstop);
        trial.others_take_over().await;
        trial.load.goes_on(100).await;
        trial.cluster.nodes[0].signal(Proc::sigcont);
        // It notices that it was shut out before the late records come, or after. What it then gets anew of the
        // partitions stands still, since its claims are held too.
        trial.pause(4_000).await;
        proxy.set(Switches::default());
    }
    let (_, truth) = trial.finish(what).await;
    assert!(truth.void > 0, "what was held has arrived");
}

/// Shows: appends whose reports are lost come to true answers and to no second effect.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn lost_answers_to_appends_end_in_true_answers() {
    let what = "lost answers";
    let (_kafka, proxy, mut trial) = start(what).await;
    trial.load.goes_on(50).await;
    proxy.set(Switches { drop_produce_answers: Some(trial.events_topic()), ..Switches::default() });
    // One lost answer alone ends without a doubt where the producer asks again in time.
    let client = trial.cluster.client.clone();
    let node = &trial.cluster.nodes[0];
    let doubts = async || (node.figure(&client, "bank_owner_doubts_total").await > 0).then_some(());
    eventually("the owner to be in doubt", LONG, doubts).await;
    assert!(proxy.dropped() > 0, "answers were lost");
    proxy.set(Switches::default());
    trial.first_serves_again().await;
    trial.finish(what).await;
}

/// Shows: connections that are cut five times a second lose and double nothing, and work goes on.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn cut_connections_lose_and_double_nothing() {
    let what = "cuts";
    let (_kafka, proxy, trial) = start(what).await;
    let cutting = async {
        for _ in 0..50 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            proxy.cut();
        }
    };
    tokio::join!(cutting, trial.load.goes_on(300));
    trial.finish(what).await;
}

/// Shows: an owner whose connections take everything and bring nothing, longer than its session lasts, is replaced,
/// and comes back without harm; the same where only one direction is dead.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_black_hole_and_half_open_connections_change_nothing() {
    let what = "black holes";
    let (_kafka, proxy, mut trial) = start(what).await;
    for (hold_requests, hold_answers) in [(true, true), (true, false), (false, true)] {
        trial.first_serves_again().await;
        trial.load.goes_on(50).await;
        proxy.set(Switches { hold_requests, hold_answers, ..Switches::default() });
        trial.others_take_over().await;
        trial.load.goes_on(100).await;
        proxy.set(Switches::default());
        trial.load.goes_on(100).await;
    }
    trial.finish(what).await;
}

/// Shows: a process that is 50 ms away from the broker works as the others do.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_slow_connection_changes_nothing() {
    let what = "slow";
    let (_kafka, proxy, trial) = start(what).await;
    proxy.set(Switches { delay: Duration::from_millis(50), ..Switches::default() });
    trial.load.goes_on(500).await;
    let client = trial.cluster.client.clone();
    trial.cluster.nodes[0].serves(&client, 1).await;
    trial.finish(what).await;
}
