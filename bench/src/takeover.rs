//! How long partitions stand still when their process goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::{Bus, Engine, EngineConfig, OwnerState, SendError};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::Proc;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::account::{Account, Deposits};
use crate::embedded::folder;
use crate::figure::{Figure, detail, median};
use crate::{Args, Failure};

const ACCOUNTS: usize = 1_000_000;
const TURNS: usize = 3;
/// This process and two that it starts.
const PROCESSES: usize = 3;
/// What `es-kafka` gives a session unless it is told otherwise: how long a process that was killed is not missed.
const SESSION: Duration = Duration::from_secs(6);
/// How long starting, sharing out and taking over may take, each.
const LONG: Duration = Duration::from_secs(120);
/// Between two commands to a partition, and two looks at who serves what.
const PAUSE: Duration = Duration::from_millis(5);
/// One that comes to nobody is answered by nobody.
const ANSWER: Duration = Duration::from_secs(60);

/// How a process goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Going {
    Killed,
    Stopped,
}

/// What the processes have of the partitions that others own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The state of when they last owned them: here, all but what the measurement wrote.
    State,
    /// The same, and they follow them.
    Standby,
    /// Nothing, where they never owned them.
    Nothing,
}

/// Seconds until every partition of the process is served again by another; floor: the session, for one that was killed.
pub(crate) async fn takeover(
    name: &'static str,
    accounts: &Accounts,
    going: Going,
    kept: Kept,
) -> Result<Figure, Failure> {
    let mut times = vec![];
    for _ in 0..TURNS {
        times.push(accounts.turn(going, kept).await?.as_secs_f64());
    }
    let floor = (going == Going::Killed).then_some(SESSION.as_secs_f64());
    detail(|| format!("{name}: {times:.3?} s"));
    Ok(Figure { name, unit: "s", value: median(times), floor })
}

/// Accounts in the partitions of a topic, and the state of all of them.
pub(crate) struct Accounts {
    broker: String,
    namespace: String,
    dir: TempDir,
}

impl Accounts {
    pub(crate) async fn open(broker: String) -> Result<Self, Failure> {
        let accounts = Self { broker, namespace: es_tests::unique_name("bench"), dir: folder()? };
        let started = Instant::now();
        let log = Arc::new(KafkaLog::connect(KafkaConfig::new(&accounts.broker)).await?);
        let (namespace, state_dir) = (Some(accounts.namespace.clone()), Some(accounts.full()));
        let engine = Engine::new(log, EngineConfig { namespace, state_dir, ..EngineConfig::default() });
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        Deposits::new(bus, ACCOUNTS).fill(ACCOUNTS).await?;
        engine.shutdown().await;
        detail(|| format!("{ACCOUNTS} accounts in {:?}", started.elapsed()));
        Ok(accounts)
    }

    /// The state of all partitions.
    fn full(&self) -> PathBuf {
        self.dir.path().join("full")
    }

    async fn turn(&self, going: Going, kept: Kept) -> Result<Duration, Failure> {
        let dir = folder()?;
        let mut processes = self.start(dir.path(), kept).await?;
        let stood_still = processes.lose_one(going).await?;
        processes.stop().await;
        let until = stood_still.iter().map(|still| still.until).max();
        Ok(until.ok_or("the process owned no partition")?)
    }

    /// Starts the processes and waits until each has its share.
    async fn start(&self, dir: &Path, kept: Kept) -> Result<Processes, Failure> {
        let chance = es_tests::unique_name("node");
        let mut places = Vec::new();
        for process in 0..PROCESSES {
            let own = dir.join(process.to_string());
            if kept != Kept::Nothing {
                copy(&self.full(), &own)?;
            }
            places.push(Place {
                broker: self.broker.clone(),
                namespace: self.namespace.clone(),
                node: format!("{chance}-{process}"),
                dir: own,
                standby: kept == Kept::Standby,
            });
        }
        let others = places.split_off(1);
        let (engine, bus) = places.remove(0).start().await?;
        let others = others.iter().map(Child::spawn).collect::<Result<_, _>>()?;
        let mut processes = Processes { engine, bus, others };
        processes.shared_out().await?;
        Ok(processes)
    }
}

/// This process's part, and those that it started.
struct Processes {
    engine: Engine,
    bus: Bus<Account>,
    others: Vec<Child>,
}

impl Processes {
    /// Waits until each has its share, and none has what another has.
    async fn shared_out(&mut self) -> Result<(), Failure> {
        let started = Instant::now();
        let partitions = self.bus.source().partitions as usize;
        loop {
            let mut shares = vec![serves(&self.bus)];
            shares.extend(self.others.iter().map(Child::serves));
            let least = partitions / PROCESSES;
            if shares.iter().all(|share| share.len() >= least) && shares.concat().len() == partitions {
                return Ok(());
            }
            for Child(process) in &mut self.others {
                if let Some(status) = process.exited() {
                    return Err(format!("a process ended with {status}: {}", process.stderr()).into());
                }
            }
            if started.elapsed() > LONG {
                return Err(format!("the partitions are not shared out after {LONG:?}: {shares:?}").into());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Has one go, and tells how long each of its partitions stood still.
    async fn lose_one(&mut self, going: Going) -> Result<Vec<StoodStill>, Failure> {
        let lost = self.others.remove(0);
        let to = |partition: u32| Deposits::to_partitions(self.bus.clone(), 1_000, &[partition]);
        let deposits: Vec<Deposits> = lost.serves().into_iter().map(to).collect();
        for deposits in &deposits {
            deposits.try_once(0).await.map_err(|error| format!("before anything happened: {error}"))?;
        }
        let (gone, over) = watch::channel(false);
        let started = Instant::now();
        let pings = deposits.into_iter().map(|deposits| tokio::spawn(ping(deposits, started, over.clone())));
        let pings: Vec<_> = pings.collect();
        lost.go(going).await?;
        let ended = started.elapsed();
        gone.send_replace(true);
        let mut stood_still = Vec::new();
        for pinged in pings {
            stood_still.push(pinged.await??);
        }
        detail(|| format!("{going:?}: the process ended after {ended:?}, {stood_still:?}"));
        Ok(stood_still)
    }

    async fn stop(mut self) {
        for Child(process) in &mut self.others {
            process.sigterm();
        }
        self.engine.shutdown().await;
        for Child(process) in &mut self.others {
            process.wait(LONG).await;
        }
    }
}

/// The longest time between two answers of a partition.
#[derive(Debug, Clone, Copy, Default)]
struct StoodStill {
    /// Since it was begun to send.
    from: Duration,
    until: Duration,
}

/// Sends one command after the other to a partition, until one that was sent after its process went is answered.
async fn ping(deposits: Deposits, started: Instant, gone: watch::Receiver<bool>) -> Result<StoodStill, Failure> {
    let (mut longest, mut last) = (StoodStill::default(), Duration::ZERO);
    for place in 0.. {
        let after = *gone.borrow();
        match deposits.try_once(place).await {
            Ok(()) => {
                let now = started.elapsed();
                if now - last > longest.until - longest.from {
                    longest = StoodStill { from: last, until: now };
                }
                last = now;
                if after {
                    return Ok(longest);
                }
            }
            Err(SendError::NotDone(_)) => {}
            Err(error) => return Err(error.into()),
        }
        if started.elapsed() > LONG {
            return Err(format!("a partition is not served again after {LONG:?}").into());
        }
        tokio::time::sleep(PAUSE).await;
    }
    unreachable!("it goes on until it returns")
}

/// Where a process works, and as whom.
#[derive(Debug, Clone)]
struct Place {
    broker: String,
    namespace: String,
    node: String,
    dir: PathBuf,
    standby: bool,
}

impl Place {
    async fn start(self) -> Result<(Engine, Bus<Account>), Failure> {
        let log = Arc::new(KafkaLog::connect(KafkaConfig::new(&self.broker)).await?);
        let config = EngineConfig {
            namespace: Some(self.namespace),
            state_dir: Some(self.dir),
            node: self.node,
            standby: self.standby,
            send_deadline: ANSWER,
            ..EngineConfig::default()
        };
        let group = Arc::new(log.group());
        let engine = Engine::shared(log, group, config);
        let bus = engine.start::<Account>().await?;
        bus.ready().await?;
        Ok((engine, bus))
    }
}

fn serves(bus: &Bus<Account>) -> Vec<u32> {
    let status = bus.status();
    status.iter().filter(|status| status.state == OwnerState::Serving).map(|status| status.partition).collect()
}

struct Child(Proc);

impl Child {
    fn spawn(place: &Place) -> Result<Self, Failure> {
        let Place { broker, namespace, node, dir, standby } = place;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--own-accounts").arg(dir).args(["--kafka", broker, "--namespace", namespace, "--node", node]);
        if *standby {
            command.arg("--standby");
        }
        Ok(Self(Proc::spawn(command)))
    }

    /// What it said last.
    fn serves(&self) -> Vec<u32> {
        let said = self.0.stdout();
        let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let last = whole.lines().last().unwrap_or_default();
        last.split_whitespace().filter_map(|partition| partition.parse().ok()).collect()
    }

    /// Waits until it is gone.
    async fn go(self, going: Going) -> Result<(), Failure> {
        let Self(mut process) = self;
        if going == Going::Killed {
            process.kill9();
            return Ok(());
        }
        process.sigterm();
        let status = process.wait(LONG).await;
        if status.success() {
            return Ok(());
        }
        Err(format!("a process ended with {status}: {}", process.stderr()).into())
    }
}

/// Takes part until it is asked to end, and prints which partitions it serves: what [`takeover`] starts.
pub(crate) async fn own_accounts(dir: &Path, args: &Args) -> Result<(), Failure> {
    let mut terminated = signal(SignalKind::terminate())?;
    let given = |option: &Option<String>| option.clone().ok_or("an option is missing");
    let place = Place {
        broker: given(&args.kafka)?,
        namespace: given(&args.namespace)?,
        node: given(&args.node)?,
        dir: dir.to_owned(),
        standby: args.standby,
    };
    let (engine, bus) = place.start().await?;
    let mut served = vec![];
    loop {
        let serves = serves(&bus);
        if serves != served {
            println!("{}", serves.iter().map(u32::to_string).collect::<Vec<_>>().join(" "));
            served = serves;
        }
        tokio::select! {
            biased;
            _ = terminated.recv() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    engine.shutdown().await;
    Ok(())
}

/// A folder with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() { copy(&entry.path(), &to)? } else { fs::copy(entry.path(), to).map(drop)? }
    }
    Ok(())
}
