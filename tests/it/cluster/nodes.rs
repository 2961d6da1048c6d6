//! Processes of the bank that share one Kafka, each with a name, a fixed port and a data folder of its own.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_tests::{Proc, bank_binary, bank_next_binary, eventually, free_port, topic_prefix};
use reqwest::Client;
use tempfile::TempDir;

use crate::bank::{LONG, program_at};

/// What a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Release {
    This,
    /// Another program, in which a deposit may have a note.
    Next,
}

/// Where senders reach a process as long as it is of one release.
#[derive(Debug, Clone)]
pub(crate) struct Address {
    pub(crate) process: String,
    pub(crate) release: Release,
    pub(crate) url: String,
}

/// A process that may be down.
pub(crate) struct Node {
    pub(crate) name: String,
    release: Release,
    /// Of each release one, so that a request which is meant for one never comes to the other.
    ports: [u16; 2],
    kafka: String,
    namespace: String,
    options: Vec<String>,
    data: PathBuf,
    pub(crate) process: Option<Proc>,
    /// Not to be started again.
    pub(crate) retired: bool,
    /// What its earlier lives logged.
    log: String,
}

/// Processes that share the accounts of one namespace.
pub(crate) struct Cluster {
    pub(crate) kafka: String,
    pub(crate) namespace: String,
    pub(crate) nodes: Vec<Node>,
    pub(crate) client: Client,
    /// What each process that is added from now on is given beside its own.
    pub(crate) options: Vec<String>,
    /// The releases that its processes may be of.
    pub(crate) releases: &'static [Release],
    dir: TempDir,
}

impl Cluster {
    /// No process yet; `kafka` is where tests reach the log.
    pub(crate) fn empty(kafka: &str) -> Cluster {
        Cluster {
            kafka: kafka.into(),
            namespace: topic_prefix(),
            nodes: Vec::new(),
            client: Client::new(),
            options: Vec::new(),
            releases: &[Release::This],
            dir: tempfile::tempdir().expect("a temporary folder"),
        }
    }

    /// Starts processes and waits until each is ready.
    pub(crate) async fn start(kafka: &str, count: usize) -> Cluster {
        Cluster::start_with(kafka, count, &[]).await
    }

    /// The same with more options for each process.
    pub(crate) async fn start_with(kafka: &str, count: usize, options: &[&str]) -> Cluster {
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let mut cluster = Cluster { options, ..Cluster::empty(kafka) };
        for _ in 0..count {
            cluster.add(kafka).start();
        }
        cluster.all_ready().await;
        cluster
    }

    /// One more process, not started yet, which reaches Kafka at an address that may be its own.
    pub(crate) fn add(&mut self, kafka: &str) -> &mut Node {
        self.add_as(&format!("node-{}", self.nodes.len()), kafka)
    }

    /// The same under a name that may be another's.
    pub(crate) fn add_as(&mut self, name: &str, kafka: &str) -> &mut Node {
        self.nodes.push(Node {
            release: Release::This,
            ports: [free_port(), free_port()],
            kafka: kafka.into(),
            namespace: self.namespace.clone(),
            options: self.options.clone(),
            data: self.dir.path().join(self.nodes.len().to_string()),
            process: None,
            retired: false,
            log: String::new(),
            name: name.into(),
        });
        self.nodes.last_mut().expect("pushed just now")
    }

    /// Where each process is, or may come to be.
    pub(crate) fn addresses(&self) -> Arc<[Address]> {
        let address = |node: &Node, release| Address { process: node.name.clone(), release, url: node.url_of(release) };
        let releases = self.releases;
        let all = self.nodes.iter().flat_map(|node| releases.iter().map(move |&release| (node, release)));
        all.map(|(node, release)| address(node, release)).collect()
    }

    /// Starts what is down, lets go on what is stopped, and waits until every process serves what it should.
    pub(crate) async fn heal(&mut self) {
        for node in self.nodes.iter_mut().filter(|node| !node.retired) {
            node.restart_if_ended();
            node.process.as_mut().expect("started just now").sigcont();
        }
        self.all_ready().await;
    }

    /// Starts each process anew as one of this release, one after the other.
    pub(crate) async fn all_become(&mut self, release: Release) {
        for node in &mut self.nodes {
            node.restart_if_ended();
            node.stop().await;
            node.start_as(release);
            node.ready(&self.client).await;
        }
    }

    pub(crate) async fn all_ready(&mut self) {
        let client = self.client.clone();
        for node in &mut self.nodes {
            if node.process.is_some() {
                node.ready(&client).await;
            }
        }
    }

    /// The sum of one figure of the owners over all processes that run.
    pub(crate) async fn figure(&self, name: &str) -> u64 {
        self.figure_without(usize::MAX, name).await
    }

    /// The same without one process, which may be frozen.
    pub(crate) async fn figure_without(&self, absent: usize, name: &str) -> u64 {
        let mut sum = 0;
        let others = self.nodes.iter().enumerate().filter(|(number, _)| *number != absent);
        for (_, node) in others.filter(|(_, node)| node.process.is_some()) {
            sum += node.figure(&self.client, name).await;
        }
        sum
    }

    /// Keeps what the processes logged, for who has to find out why a test failed; tells where.
    pub(crate) fn keep_logs(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&self.namespace);
        fs::create_dir_all(&folder).expect("target/tmp can be written");
        for (number, node) in self.nodes.iter().enumerate() {
            let last = node.process.as_ref().map(Proc::stderr).unwrap_or_default();
            let log = format!("{}{last}", node.log);
            fs::write(folder.join(format!("{number}-{}.log", node.name)), log).expect("target/tmp can be written");
        }
        folder
    }
}

impl Node {
    pub(crate) fn release(&self) -> Release {
        self.release
    }

    /// Where it is reached as long as it is of the release that it has now.
    pub(crate) fn url(&self) -> String {
        self.url_of(self.release)
    }

    fn url_of(&self, release: Release) -> String {
        format!("http://{}", self.listens(release))
    }

    fn listens(&self, release: Release) -> String {
        format!("127.0.0.1:{}", self.ports[release as usize])
    }

    /// Starts the process as one of this release, which need not be what it was.
    pub(crate) fn start_as(&mut self, release: Release) {
        self.release = release;
        self.start();
    }

    /// Starts the process and waits for nothing.
    pub(crate) fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(self.spawn());
    }

    fn spawn(&self) -> Proc {
        let binary = match self.release {
            Release::This => bank_binary(),
            Release::Next => bank_next_binary(),
        };
        let mut command = program_at(&binary, &["serve"]);
        command.args(["--listen", &self.listens(self.release), "--node", &self.name]);
        command.args(["--kafka", &self.kafka, "--namespace", &self.namespace]).arg("--data").arg(&self.data);
        command.args(&self.options);
        // A process that is gone is missed soon, so that a test sees many take-overs.
        for property in ["session.timeout.ms=1500", "heartbeat.interval.ms=300"] {
            command.args(["--kafka-property", property]);
        }
        Proc::spawn(command)
    }

    /// `kill -9`, where it runs.
    pub(crate) fn kill(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.kill9();
        self.bury(&process, "killed");
    }

    /// `kill -9`, and its folder is gone too, as with a machine that is replaced.
    pub(crate) fn lose(&mut self) {
        self.kill();
        fs::remove_dir_all(&self.data).expect("its folder can be removed");
    }

    /// Asks it to end and waits until it has.
    pub(crate) async fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        process.sigterm();
        let status = process.wait(LONG).await;
        assert!(status.success(), "{} ended with {status}: {}", self.name, process.stderr());
        self.bury(&process, "stopped");
    }

    /// A process may end by itself while Kafka is away, and is started again, as a supervisor would.
    pub(crate) fn restart_if_ended(&mut self) {
        if let Some(status) = self.process.as_mut().and_then(Proc::exited) {
            let process = self.process.take().expect("it has ended just now");
            self.bury(&process, &format!("ended by itself with {status}"));
        }
        if self.process.is_none() {
            self.start();
        }
    }

    fn bury(&mut self, process: &Proc, how: &str) {
        let _ = writeln!(self.log, "{}--- process {} {how}\n", process.stderr(), process.id());
    }

    pub(crate) fn signal(&mut self, signal: fn(&mut Proc)) {
        signal(self.process.as_mut().expect("the process runs"));
    }

    /// What its present life has logged.
    pub(crate) fn stderr(&self) -> String {
        self.process.as_ref().map(Proc::stderr).unwrap_or_default()
    }

    /// Waits until every partition is served here or elsewhere.
    pub(crate) async fn ready(&mut self, client: &Client) {
        let started = Instant::now();
        loop {
            let answer = client.get(format!("{}/readyz", self.url())).timeout(Duration::from_secs(2)).send().await;
            let why = match answer {
                Ok(answer) if answer.status().is_success() => return,
                Ok(answer) => answer.text().await.unwrap_or_default(),
                Err(error) => format!("{error:?}"),
            };
            let errors = self.stderr();
            assert!(started.elapsed() < LONG, "{} is not ready: {why}\n{errors}", self.name);
            let ended = self.process.as_mut().and_then(Proc::exited);
            assert!(ended.is_none(), "{} ended with {ended:?}: {why}\n{errors}", self.name);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The sum of one figure of the owners over all partitions; 0 where the process does not answer.
    pub(crate) async fn figure(&self, client: &Client, name: &str) -> u64 {
        let asked = client.get(format!("{}/metrics", self.url())).timeout(Duration::from_secs(2)).send().await;
        let Ok(answer) = asked else { return 0 };
        let text = answer.text().await.unwrap_or_default();
        let series = format!("{name}{{");
        let values = text.lines().filter(|line| line.starts_with(&series));
        values.map(|line| line.rsplit(' ').next().and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)).sum()
    }

    /// Waits until the process serves at least this many partitions.
    pub(crate) async fn serves(&self, client: &Client, partitions: u64) {
        let what = format!("{} to serve {partitions} partitions", self.name);
        let serves = async || (self.figure(client, "bank_owner_serving").await >= partitions).then_some(());
        eventually(&what, LONG, serves).await;
    }
}
