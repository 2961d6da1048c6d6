//! Three real Kafka nodes that keep three copies of everything.

use std::fmt::Write;

use crate::kafka::Kafka;
use crate::port::Port;

/// Half of the memory that a node alone has, so that three fit. Compiled quickly rather than well: with three of them and
/// their clients on a few cores, a start would take 20 s otherwise.
const JAVA: &[&str] = &["-Xms256m", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"];
/// As a cluster is run where data matters: what is acknowledged is on two nodes at least, and one of three may be down.
const SETTINGS: &str = "\
    default.replication.factor=3\n\
    min.insync.replicas=2\n\
    offsets.topic.replication.factor=3\n\
    transaction.state.log.replication.factor=3\n\
    transaction.state.log.min.isr=2\n\
    share.coordinator.state.topic.replication.factor=3\n\
    share.coordinator.state.topic.min.isr=2\n";

/// Three nodes of Apache Kafka, each broker and controller in one; all three are the quorum of controllers.
///
/// Each is a [`Kafka`] of its own, to be killed, paused and started again while the others go on.
pub struct KafkaCluster {
    /// The nodes.
    pub nodes: [Kafka; 3],
}

impl KafkaCluster {
    /// Starts three nodes, which are killed on drop.
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub async fn start() -> KafkaCluster {
        let ports: [(Port, Port); 3] = std::array::from_fn(|_| (Port::reserve(), Port::reserve()));
        let voters: Vec<String> =
            (1..).zip(&ports).map(|(id, (_, own))| format!("{id}@127.0.0.1:{}", own.number())).collect();
        let voters = voters.join(",");
        let node = |id: u32, (client, controller)| {
            let mut settings = SETTINGS.to_owned();
            let _ = writeln!(settings, "node.id={id}\ncontroller.quorum.voters={voters}");
            Kafka::start_on(client, controller, JAVA, settings)
        };
        let [first, second, third] = ports;
        // At the same time: none of them serves before two of them have met.
        let nodes = tokio::join!(node(1, first), node(2, second), node(3, third));
        KafkaCluster { nodes: nodes.into() }
    }

    /// The addresses of all three for clients' `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        self.nodes.each_ref().map(Kafka::bootstrap).join(",")
    }
}
