//! The write path on the reference log: what callers are told, and what is in the log at the end, fault by fault.

mod answers;
mod bad_data;
mod commands;
mod copies;
mod damage;
mod doubt;
mod group;
mod guards;
mod lost_tail;
mod releases;
mod restart;
mod retention;
mod shapes;
mod simulation;
mod snapshots;
mod tasks;
mod time;
mod two_owners;
mod written;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::log::Log;
use crate::log::memory::{Fault, MemoryLog, MemoryPartition};
use crate::log::reader::{Checkpoint, EventSource, Fed, PartitionReader, Recorded};
use crate::{
    Aggregate, Apply, Bus, Command, CommandId, Context, Engine, EngineConfig, Event, Handle, ManualClock, NotDone,
    Receipt, SendError,
};

const TOPIC: &str = "test.counter.events";
const SNAPSHOTS: &str = "test.counter.snapshots";

/// A counter that can be made to misbehave.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "test", name = "counter", id = String, command = Do, event = Done, error = No)]
pub(crate) struct Counter {
    sum: u64,
    steps: u64,
    /// All that was said.
    said: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
pub(crate) enum Do {
    /// As many events as `times`.
    Add {
        n: u64,
        times: u64,
    },
    /// Refused when there is less.
    Take {
        n: u64,
    },
    Nothing,
    PanicInHandle,
    PanicInApply,
    /// An event with this many bytes.
    Long {
        bytes: usize,
    },
    Say {
        text: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "counter")]
pub(crate) enum Done {
    #[event(name = "added")]
    Added { n: u64 },
    #[event(name = "taken")]
    Taken { n: u64 },
    #[event(name = "panicked")]
    Panicked,
    #[event(name = "said")]
    Said { text: String },
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(crate) enum No {
    #[error("there are {sum}")]
    TooFew { sum: u64 },
}

impl Handle for Counter {
    fn handle(&self, command: Do, _: &Context) -> Result<Vec<Done>, No> {
        match command {
            Do::Add { n, times } => Ok((0..times).map(|_| Done::Added { n }).collect()),
            Do::Take { n } if n <= self.sum => Ok(vec![Done::Taken { n }]),
            Do::Take { .. } => Err(No::TooFew { sum: self.sum }),
            Do::Nothing => Ok(vec![]),
            Do::PanicInHandle => panic!("handle gave up"),
            Do::PanicInApply => Ok(vec![Done::Added { n: 1000 }, Done::Panicked]),
            Do::Say { text } => Ok(vec![Done::Said { text }]),
            Do::Long { bytes } => Ok(vec![Done::Said { text: "x".repeat(bytes) }]),
        }
    }
}

impl Apply for Counter {
    fn apply(&mut self, event: &Done) {
        self.steps += 1;
        match event {
            Done::Added { n } => self.sum += n,
            Done::Taken { n } => self.sum -= n,
            Done::Panicked => panic!("apply gave up"),
            Done::Said { text } => self.said.push_str(text),
        }
    }
}

/// One partition of a log in memory, a clock that stands, and processes on them.
struct World {
    log: MemoryLog,
    clock: Arc<ManualClock>,
    config: EngineConfig,
}

impl World {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let config = EngineConfig {
            clock: clock.clone(),
            append_deadline: Duration::from_millis(300),
            linger: Duration::from_millis(1),
            ..EngineConfig::default()
        };
        Self { log: MemoryLog::new(1).with_record_max_bytes(20_000), clock, config }
    }

    fn partition(&self) -> MemoryPartition {
        self.log.partition(TOPIC, 0)
    }

    fn fault(&self, fault: Fault) {
        self.partition().fault(fault);
    }

    /// A process that serves.
    async fn process(&self) -> Process {
        self.process_with(self.config.clone()).await
    }

    async fn process_with(&self, config: EngineConfig) -> Process {
        let process = self.starting(config).await;
        process.bus.ready().await.expect("serves");
        process
    }

    async fn starting(&self, config: EngineConfig) -> Process {
        let engine = Engine::new(Arc::new(self.log.clone()), config);
        let bus = engine.start::<Counter>().await.expect("starts");
        Process { engine, bus }
    }

    /// The events that count, as every reader sees them.
    async fn events(&self) -> Vec<Recorded> {
        let mut reader = PartitionReader::resume(EventSource::of::<Counter>("test", 1), 0, &Checkpoint::default());
        let mut tail = self.log.reader(TOPIC, &[(0, 0)]).await.expect("a reader");
        let end = self.log.bounds(TOPIC, 0).await.expect("bounds").end;
        let mut events = Vec::new();
        while reader.next() < end {
            for stored in tail.next().await.expect("a batch").records {
                if let Fed::Events(released) = reader.feed(stored).expect("a whole log") {
                    events.extend(released);
                }
            }
        }
        for (id, stream) in by_stream(&events) {
            let versions: Vec<u64> = stream.iter().map(|event| event.envelope.version.get()).collect();
            assert_eq!(versions, (1..=stream.len() as u64).collect::<Vec<_>>(), "versions of {id}");
            for pair in stream.windows(2) {
                assert_eq!(pair[1].envelope.previous_hash, pair[0].envelope.hash, "hash chain of {id}");
                assert!(pair[1].envelope.recorded_at >= pair[0].envelope.recorded_at, "time of {id}");
            }
            assert!(stream.iter().all(|event| event.envelope.hash == event.envelope.compute_hash()));
        }
        events
    }

    /// The sum of a counter, folded from the log.
    async fn sum(&self, id: &str) -> u64 {
        let mut counter = Counter::default();
        for event in self.events().await.iter().filter(|event| event.envelope.stream.id.as_str() == id) {
            counter.apply(&event.envelope.event::<Counter>().expect("readable"));
        }
        counter.sum
    }
}

fn by_stream(events: &[Recorded]) -> std::collections::BTreeMap<String, Vec<&Recorded>> {
    let mut streams = std::collections::BTreeMap::<String, Vec<&Recorded>>::new();
    for event in events {
        streams.entry(event.envelope.stream.id.to_string()).or_default().push(event);
    }
    streams
}

struct Process {
    engine: Engine,
    bus: Bus<Counter>,
}

type Answer = Result<Receipt, SendError<No>>;

impl Process {
    async fn send(&self, id: &str, command_id: &str, command: Do) -> Answer {
        self.bus.send(&id.to_owned(), command).command_id(command_id).await
    }

    /// Sends again, with the same id, for as long as it is said that nothing was done.
    async fn send_until_done(&self, id: &str, command_id: &str, command: Do) -> Answer {
        for _ in 0..200 {
            match self.send(id, command_id, command.clone()).await {
                Err(SendError::NotDone(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
        panic!("{command:?} was never done");
    }

    /// Sends from a task of its own.
    fn sending(&self, id: &str, command_id: &str, command: Do) -> tokio::task::JoinHandle<Answer> {
        let (bus, id, command_id) = (self.bus.clone(), id.to_owned(), command_id.to_owned());
        tokio::spawn(async move { bus.send(&id, command).command_id(command_id).await })
    }

    /// Waits until the owner has this many commands in its queue.
    async fn queued(&self, count: usize) {
        for _ in 0..1_000 {
            if self.bus.status()[0].queued == count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("{} commands are queued instead of {count}", self.bus.status()[0].queued);
    }
}

fn add(n: u64) -> Do {
    Do::Add { n, times: 1 }
}

fn is_not_in_log(answer: &Answer) -> bool {
    matches!(answer, Err(SendError::NotDone(NotDone::NotInLog)))
}

/// Waits for a condition, for half a minute at most.
async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
