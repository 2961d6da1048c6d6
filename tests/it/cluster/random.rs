//! Faults in any mix, for as long as `ES_FAULTS_MINUTES` says; `scripts/faults` sets it.

use std::time::{Duration, Instant};

use es_tests::{Kafka, Proc, Proxy, Switches};

use super::nodes::Release;
use super::{Trial, behind_a_proxy, seed};

/// Without the variable: enough to see that it works.
const SHORT: Duration = Duration::from_secs(25);
/// After this everything is mended and checked, and the next trial begins.
const TRIAL_MAX: Duration = Duration::from_secs(120);

/// Shows: processes that are killed, frozen, doubled in their work, asked to leave, and come back as another release, a
/// broker that is killed and frozen, and a network that holds, cuts and swallows, in any mix, leave every answer true.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn faults_in_any_mix_lose_and_double_nothing() {
    let what = "any mix";
    let minutes = std::env::var("ES_FAULTS_MINUTES").ok().and_then(|minutes| minutes.parse::<f64>().ok());
    let end = Instant::now() + minutes.map_or(SHORT, |minutes| Duration::from_secs_f64(minutes * 60.0));
    let (mut kafka, proxy) = Kafka::start_proxied().await;
    let first = seed();
    for seed in first.. {
        let mut cluster = behind_a_proxy(&kafka, &proxy).await;
        cluster.releases = &[Release::This, Release::Next];
        let mut trial = Trial::seeded(what, cluster, seed).await;
        let trial_end = end.min(Instant::now() + TRIAL_MAX);
        while Instant::now() < trial_end {
            fault(&mut trial, &mut kafka, &proxy).await;
            trial.pause(2_000).await;
        }
        proxy.set(Switches::default());
        // A deposit with a note waits for an owner that knows notes.
        trial.cluster.all_become(Release::Next).await;
        trial.finish(what).await;
        if Instant::now() >= end {
            return;
        }
    }
}

impl Trial {
    fn start_as_any(&mut self, number: usize) {
        let release = if self.random.bool() { Release::This } else { Release::Next };
        self.cluster.nodes[number].start_as(release);
    }
}

async fn fault(trial: &mut Trial, kafka: &mut Kafka, proxy: &Proxy) {
    let victim = trial.random.usize(..trial.cluster.nodes.len());
    let fault = trial.random.u8(..16);
    let node = &trial.cluster.nodes[victim];
    println!("{:.1?}: fault {fault} of {}, {:?}", trial.load.now(), node.name, node.release());
    trial.cluster.nodes[victim].restart_if_ended();
    match fault {
        0..4 => {
            trial.cluster.nodes[victim].kill();
            trial.pause(3_000).await;
            trial.start_as_any(victim);
        }
        4..6 => {
            trial.cluster.nodes[victim].kill();
            trial.cluster.nodes[victim].start();
        }
        6..9 => {
            trial.cluster.nodes[victim].signal(Proc::sigstop);
            trial.pause(5_000).await;
            trial.cluster.nodes[victim].signal(Proc::sigcont);
        }
        9..11 => {
            trial.cluster.nodes[victim].stop().await;
            trial.pause(2_000).await;
            trial.start_as_any(victim);
        }
        11 => {
            kafka.kill().await;
            trial.pause(1_000).await;
            kafka.restart().await;
        }
        12 => {
            kafka.pause().await;
            trial.pause(4_000).await;
            kafka.resume().await;
        }
        13 => proxy.cut(),
        14 => {
            let hold_produce = Some(trial.events_topic());
            proxy.set(Switches { hold_produce, ..Switches::default() });
            trial.pause(5_000).await;
            proxy.set(Switches::default());
        }
        _ => {
            let (hold_requests, hold_answers) = (trial.random.bool(), trial.random.bool());
            proxy.set(Switches { hold_requests, hold_answers, ..Switches::default() });
            trial.pause(5_000).await;
            proxy.set(Switches::default());
        }
    }
}
