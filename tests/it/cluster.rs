//! Several processes on one Kafka under load, while they are killed, stopped, cut off, doubled and replaced by another
//! release. Senders write down what they asked for and were told, and a checker decides whether it can be true of what
//! the log holds in the end.

mod broker;
mod checker;
mod compaction;
mod crashes;
mod history;
mod load;
mod network;
pub(crate) mod nodes;
mod random;
mod releases;
pub(crate) mod truth;

use std::time::Duration;

use es_tests::{Kafka, Proxy};
use history::Call;
use load::Load;
use nodes::Cluster;
use truth::Truth;

/// Partitions of a topic that nobody set otherwise.
pub(crate) const PARTITIONS: u64 = 8;

/// A cluster under load, and the chance by which its faults are chosen.
pub(crate) struct Trial {
    pub(crate) cluster: Cluster,
    pub(crate) load: Load,
    pub(crate) random: fastrand::Rng,
}

impl Trial {
    pub(crate) async fn start(what: &str, kafka: &str, processes: usize) -> Trial {
        Trial::of(what, Cluster::start(kafka, processes).await).await
    }

    /// A load on a cluster that runs.
    pub(crate) async fn of(what: &str, cluster: Cluster) -> Trial {
        Trial::seeded(what, cluster, seed()).await
    }

    pub(crate) async fn seeded(what: &str, cluster: Cluster, seed: u64) -> Trial {
        println!("{what}: ES_FAULTS_SEED={seed}, namespace {}", cluster.namespace);
        let load = Load::start(&cluster, seed).await;
        Trial { cluster, load, random: fastrand::Rng::with_seed(seed) }
    }

    pub(crate) fn events_topic(&self) -> String {
        es_core::events_topic(&self.cluster.namespace, "account")
    }

    /// Up to so long, by chance.
    pub(crate) async fn pause(&mut self, at_most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(..at_most_ms))).await;
    }

    /// Mends everything, ends the load and checks it against the log and the read models.
    ///
    /// # Panics
    /// With every untruth that was found.
    pub(crate) async fn finish(mut self, what: &str) -> (Vec<Call>, Truth) {
        self.cluster.heal().await;
        self.load.goes_on(100).await;
        let calls = self.load.finish().await;
        let truth = Truth::read(&self.cluster.kafka, &self.cluster.namespace).await;
        println!("{what}: {}", load::summary(&calls));
        println!("{what}: {} claims, {} void and {} foreign records", truth.claims, truth.void, truth.foreign);
        let mut wrong: Vec<String> = checker::check(&calls, &truth.log).iter().map(ToString::to_string).collect();
        wrong.extend(truth::compare_read_models(&self.cluster, &checker::balances(&truth.log)).await);
        if !wrong.is_empty() {
            println!("{what}: {truth:#?}");
            panic!("{what}: {} untruths\n{}", wrong.len(), wrong.join("\n"));
        }
        (calls, truth)
    }
}

/// `ES_FAULTS_SEED`, or chance.
fn seed() -> u64 {
    let given = std::env::var("ES_FAULTS_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| fastrand::u64(..1 << 32))
}

/// A cluster with its first process behind the proxy.
async fn behind_a_proxy(kafka: &Kafka, proxy: &Proxy) -> Cluster {
    let mut cluster = Cluster::empty(&kafka.bootstrap());
    cluster.add(&proxy.bootstrap()).start();
    cluster.add(&kafka.bootstrap()).start();
    cluster.add(&kafka.bootstrap()).start();
    cluster.all_ready().await;
    let client = cluster.client.clone();
    cluster.nodes[0].serves(&client, 1).await;
    cluster
}

impl Drop for Trial {
    /// Who has to find out why a test failed needs what the processes logged and what the senders were told.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let folder = self.cluster.keep_logs();
            let calls: Vec<String> = self.load.calls().iter().map(|call| format!("{call:?}\n")).collect();
            let written = std::fs::write(folder.join("history"), calls.concat());
            eprintln!("logs and history are in {}, {written:?}", folder.display());
        }
    }
}
