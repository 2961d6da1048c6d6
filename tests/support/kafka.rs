//! A real Kafka broker.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::sync::OnceCell;

use crate::home::Home;
use crate::port::Port;
use crate::process::{SIGKILL, SIGTERM, Signal};
use crate::proxy::Proxy;
use crate::server::{Handle, Recipe, Server, assert_servers_allowed, complete};

/// Whatever the clients see of a cluster's identity, 16 bytes in Kafka's notation.
const CLUSTER_ID: &str = "ZXMtdGVzdHMtY2x1c3RlcQ";
/// Options of Java, with the memory that one broker needs for everything that tests do.
const JAVA: &[&str] = &["-Xms512m", "-Xmx512m"];
const SETTINGS: &str = include_str!("kafka.properties");
const DOWNLOAD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/support/kafka-jars");

/// A real Apache Kafka, one node that is broker and controller in one, with a data folder and ports of its own.
///
/// It keeps no topics for a client: automatic creation is off, and what Kafka itself needs has replication factor 1.
/// Only a test that [started](Kafka::start) its own broker has it mutable and can stop it, never one that shares it.
pub struct Kafka {
    server: Handle<Broker>,
    port: u16,
}

impl Kafka {
    /// The broker that all tests of this process share, started by the first that asks. It ends with the process.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn shared() -> &'static Kafka {
        static SHARED: OnceCell<Kafka> = OnceCell::const_new();
        SHARED.get_or_init(Kafka::start).await
    }

    /// Starts a broker of the caller's own, which is killed on drop.
    ///
    /// # Panics
    /// If there is no Java, if Kafka's jars are neither there nor to be had, or if the broker does not answer within
    /// two minutes. The message ends with the broker's log.
    pub async fn start() -> Kafka {
        Kafka::start_with(&[]).await
    }

    /// Starts a broker with broker settings that differ from ours, as `("log.cleaner.backoff.ms", "100")`.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_with(settings: &[(&str, &str)]) -> Kafka {
        let settings: String = settings.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        Kafka::start_on(Port::reserve(), Port::reserve(), JAVA, settings).await
    }

    /// Starts a broker with a proxy in front of it: who comes through the proxy is told its address, and so stays behind
    /// it, and who comes to [`bootstrap`](Self::bootstrap) goes past it.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn start_proxied() -> (Kafka, Proxy) {
        let (client, controller, proxied, proxy) = (Port::reserve(), Port::reserve(), Port::reserve(), Port::reserve());
        let (direct, control, behind, front) = (client.number(), controller.number(), proxied.number(), proxy.number());
        let settings = format!(
            "listeners=PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{control}\n\
             advertised.listeners=PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{front}\n\
             listener.security.protocol.map=PLAINTEXT:PLAINTEXT,PROXIED:PLAINTEXT,CONTROLLER:PLAINTEXT\n\
             inter.broker.listener.name=PLAINTEXT\n"
        );
        let kafka = Kafka::start_on(client, controller, JAVA, settings).await;
        // Kept for the broker until this process ends, as it may be started again.
        std::mem::forget(proxied);
        (kafka, Proxy::start(proxy, behind).await)
    }

    /// Settings that are given here replace ours.
    pub(crate) async fn start_on(
        client: Port,
        controller: Port,
        java: &'static [&'static str],
        settings: String,
    ) -> Kafka {
        assert_servers_allowed("Kafka");
        let port = client.number();
        let server = Handle::start(move || Broker::prepare(client, controller, java, &settings)).await;
        Kafka { server, port }
    }

    /// The address for clients' `bootstrap.servers`. It stays the same through [`restart`](Self::restart).
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Runs Kafka's own tool for access control lists on a broker that was [started with](Self::start_with) an authorizer.
    ///
    /// # Panics
    /// If it fails.
    pub async fn acls(&self, args: &[&str]) {
        let mut tool = Command::new("java");
        tool.arg("-cp").arg(jars().join("*")).args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]);
        tool.args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", &self.bootstrap()]).args(args);
        let done = tokio::task::spawn_blocking(move || drop(complete(&mut tool, "changing access control lists")));
        done.await.expect("the tool ends well");
    }

    /// What the broker has logged since its last start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// `kill -9`: the broker is gone when this returns. What it had handed to the operating system stays.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn kill(&mut self) {
        self.server.run(Server::kill).await;
    }

    /// Shuts the broker down in an orderly way.
    ///
    /// # Panics
    /// If it does not run, or does not end within a minute.
    pub async fn stop(&mut self) {
        self.server.run(Server::stop).await;
    }

    /// Starts the broker again on the same data and port, after stopping it if it runs.
    ///
    /// After [`kill`](Self::kill) this takes some seconds longer: the controller first waits for the end of the session
    /// of the broker's earlier life.
    ///
    /// # Panics
    /// As [`start`](Self::start).
    pub async fn restart(&mut self) {
        self.server.run(Server::restart).await;
    }

    /// `SIGSTOP`: the broker keeps its connections and answers nothing.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn pause(&mut self) {
        self.server.run(Server::pause).await;
    }

    /// `SIGCONT`: lets a paused broker go on.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn resume(&mut self) {
        self.server.run(Server::resume).await;
    }
}

struct Broker {
    libs: PathBuf,
    properties: PathBuf,
    options: &'static [&'static str],
    /// Both kept, so that no other server gets a port of ours while this one is down.
    client: Port,
    _controller: Port,
}

impl Broker {
    fn prepare(client: Port, controller: Port, java: &'static [&'static str], settings: &str) -> Server<Broker> {
        let libs = jars();
        let home = Home::new("kafka");
        let properties = home.path().join("server.properties");
        let places = places(home.path(), client.number(), controller.number());
        // In a properties file the last of several values counts.
        fs::write(&properties, format!("{SETTINGS}{places}{settings}")).expect("a new folder can be written");
        let broker = Broker { libs, properties, options: java, client, _controller: controller };
        broker.format();
        Server::new(broker, home)
    }

    fn format(&self) {
        let mut format = self.java();
        // A second of work: compiling it well would take longer than running it.
        format.args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "kafka.tools.StorageTool", "format"]);
        format.args(["--cluster-id", CLUSTER_ID, "--config"]).arg(&self.properties);
        complete(&mut format, "formatting Kafka's data folder");
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        java.arg("-cp").arg(self.libs.join("*"));
        java
    }
}

impl Recipe for Broker {
    const NAME: &'static str = "Kafka";
    const STOP: Signal = SIGTERM;
    const ABANDON: Signal = SIGKILL;

    fn command(&self) -> Command {
        let mut java = self.java();
        java.args(self.options).arg("-Djava.awt.headless=true");
        // The list of all settings would hide what matters in the tail of the log.
        java.arg("-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn");
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        java.arg("kafka.Kafka").arg(&self.properties);
        java
    }

    /// The port answers some time before the broker may be given partitions; the line comes after both.
    fn answers(&self, log: &str) -> bool {
        log.contains("Kafka Server started") && speaks_kafka(self.client.number()).is_ok()
    }
}

fn places(home: &Path, client: u16, controller: u16) -> String {
    format!(
        "log.dirs={}/data\n\
         listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{client}\n\
         controller.quorum.voters=1@127.0.0.1:{controller}\n",
        home.display()
    )
}

fn jars() -> PathBuf {
    let output = complete(&mut Command::new(DOWNLOAD), "getting Kafka's jars");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}

/// Asks for the versions that the broker speaks, the one request that every broker answers to everybody.
fn speaks_kafka(port: u16) -> io::Result<()> {
    const CORRELATION: [u8; 4] = *b"ask!";
    // Length 10, api key 18 (ApiVersions), version 0, correlation id, no client id.
    let request = [&[0, 0, 0, 10, 0, 18, 0, 0][..], &CORRELATION, &[0xff, 0xff]].concat();
    let mut broker = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    broker.set_read_timeout(Some(Duration::from_secs(1)))?;
    broker.write_all(&request)?;
    let mut answer = [0; 8];
    broker.read_exact(&mut answer)?;
    if answer[4..] == CORRELATION { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
