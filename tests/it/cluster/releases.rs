//! Processes of two releases at once: a deployment, and a way back.

use es_tests::{Kafka, Proc, eventually};

use super::Trial;
use super::nodes::{Cluster, Release};
use crate::bank::LONG;

impl Trial {
    /// Ends a process, asked to or killed, and starts it as one of this release: under its name, on its folder.
    async fn deploy(&mut self, number: usize, release: Release) {
        let (client, asked) = (self.cluster.client.clone(), self.random.bool());
        let node = &mut self.cluster.nodes[number];
        println!("{:.1?}: {} becomes {release:?}, asked to: {asked}", self.load.now(), node.name);
        if asked {
            node.stop().await;
        } else {
            node.kill();
        }
        node.start_as(release);
        node.ready(&client).await;
        node.serves(&client, 1).await;
        self.load.goes_on(100).await;
    }

    /// Kills a process, which comes back, or freezes it for longer than its session.
    async fn kill_or_freeze_one(&mut self) {
        let victim = self.random.usize(..self.cluster.nodes.len());
        if self.random.bool() {
            self.cluster.nodes[victim].kill();
            self.load.goes_on(100).await;
            self.cluster.nodes[victim].start();
        } else {
            self.cluster.nodes[victim].signal(Proc::sigstop);
            let others = async || {
                let (serving, all) =
                    (self.cluster.figure_without(victim, "bank_owner_serving").await, super::PARTITIONS);
                (serving == all).then_some(())
            };
            eventually("the others to serve every partition", LONG, others).await;
            self.cluster.nodes[victim].signal(Proc::sigcont);
        }
        self.load.goes_on(100).await;
        self.cluster.all_ready().await;
    }

    /// Waits until a process of this release, as an owner, has passed over a deposit with a note.
    async fn passes_over(&self, number: usize) {
        let (client, node) = (&self.cluster.client, &self.cluster.nodes[number]);
        assert_eq!(node.release(), Release::This);
        let what = format!("{} to pass over a deposit with a note", node.name);
        let passed = async || (node.figure(client, "bank_owner_rejected_commands_total").await > 0).then_some(());
        eventually(&what, LONG, passed).await;
    }

    /// Waits until so many more deposits with a note were accepted.
    async fn notes_go_on(&self, notes: usize) {
        let accepted = || {
            let calls = self.load.calls();
            calls.iter().filter(|call| call.command.has_note() && call.answer.is_definite()).count()
        };
        let enough = accepted() + notes;
        let what = format!("{notes} more deposits with a note");
        eventually(&what, LONG, async || (accepted() >= enough).then_some(())).await;
    }
}

/// Shows: while a release comes that knows a field more, goes back and comes again, process by process, each in its turn
/// the owner of what the other had, no field is lost, no command is done twice, and each gets its answer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_release_comes_goes_back_and_comes_again() {
    let what = "releases";
    let kafka = Kafka::shared().await.bootstrap();
    let mut cluster = Cluster::empty(&kafka);
    cluster.releases = &[Release::This, Release::Next];
    for _ in 0..3 {
        cluster.add(&kafka).start();
    }
    cluster.all_ready().await;
    cluster.add(&kafka); // of the next release from the start
    let mut trial = Trial::of(what, cluster).await;
    trial.load.goes_on(100).await;

    trial.deploy(3, Release::Next).await;
    trial.passes_over(0).await;
    trial.deploy(0, Release::Next).await;
    trial.notes_go_on(1).await;
    trial.kill_or_freeze_one().await;
    trial.deploy(1, Release::Next).await;
    trial.notes_go_on(1).await;

    // What it had decided itself, it now reads as the other release left it, and so on.
    trial.deploy(0, Release::This).await;
    trial.passes_over(0).await;
    trial.kill_or_freeze_one().await;
    trial.deploy(1, Release::This).await;
    trial.passes_over(1).await;
    trial.deploy(1, Release::Next).await;
    trial.kill_or_freeze_one().await;
    trial.deploy(0, Release::Next).await;
    trial.deploy(2, Release::Next).await;

    // What waits for an owner that knows it has one now. What this release decided, the next one remembers.
    trial.notes_go_on(50).await;
    trial.load.repeat(&trial.cluster, 100).await;
    trial.finish(what).await;
}
