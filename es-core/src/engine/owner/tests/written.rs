//! What is written is what is read: nothing is acknowledged that a reader of the log would not take, and the state
//! that decides is the one that every reader folds.

use chrono::{DateTime, Utc};

use super::*;
use crate::OwnerState;
use crate::domain::error::InvalidCommand;
use crate::log::Record;
use crate::log::group::memory::MemoryGroup;

/// A gauge whose events can hold what JSON can't.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "test", name = "gauge", id = String, command = Ask, event = Told, error = Cannot)]
struct Gauge {
    readings: u64,
    loud: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
enum Ask {
    Read {
        value: f64,
    },
    /// An event whose value is 0 / 0.
    Divide,
    /// Refused with a value that JSON has no number for.
    Refuse,
    Shout,
    Odd,
    PanicInRefusal,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "gauge")]
enum Told {
    #[event(name = "read")]
    Read { value: f64 },
    #[event(name = "shouted")]
    Shouted {
        /// Never stored: no reader knows it.
        #[serde(skip)]
        loud: bool,
    },
    #[event(name = "odd")]
    Odd(Odd),
}

/// Written, but its reading panics.
#[derive(Debug, Clone, PartialEq, Serialize, crate::Shape)]
struct Odd(u64);

impl<'de> Deserialize<'de> for Odd {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("nobody can read it")
    }
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
enum Cannot {
    #[error("the value is {value}")]
    Value { value: f64 },
    #[error("never")]
    Written(#[serde(serialize_with = "panics")] u8),
}

fn panics<S: serde::Serializer>(_: &u8, _: S) -> Result<S::Ok, S::Error> {
    panic!("nobody can write it")
}

impl Handle for Gauge {
    fn handle(&self, command: Ask, _: &Context) -> Result<Vec<Told>, Cannot> {
        match command {
            Ask::Read { value } => Ok(vec![Told::Read { value }]),
            Ask::Divide => Ok(vec![Told::Read { value: 1.0 }, Told::Read { value: f64::NAN }]),
            Ask::Refuse => Err(Cannot::Value { value: f64::INFINITY }),
            Ask::Shout if self.loud > 0 => Err(Cannot::Value { value: 1.0 }),
            Ask::Shout => Ok(vec![Told::Shouted { loud: true }]),
            Ask::Odd => Ok(vec![Told::Odd(Odd(1))]),
            Ask::PanicInRefusal => Err(Cannot::Written(1)),
        }
    }
}

impl Apply for Gauge {
    fn apply(&mut self, event: &Told) {
        match event {
            Told::Shouted { loud } => self.loud += u64::from(*loud),
            Told::Read { .. } | Told::Odd(_) => self.readings += 1,
        }
    }
}

async fn gauge(world: &World) -> (Engine, Bus<Gauge>) {
    let engine = Engine::new(Arc::new(world.log.clone()), world.config.clone());
    let bus = engine.start::<Gauge>().await.expect("starts");
    bus.ready().await.expect("serves");
    (engine, bus)
}

async fn ask(bus: &Bus<Gauge>, command_id: &str, command: Ask) -> Result<Receipt, SendError<Cannot>> {
    bus.send(&"a".to_owned(), command).command_id(command_id).await
}

#[tokio::test]
async fn an_event_or_refusal_that_would_not_be_read_back_fails_its_command_alone() {
    let world = World::new();
    let (engine, bus) = gauge(&world).await;
    let failing = [Ask::Divide, Ask::Refuse, Ask::Odd, Ask::PanicInRefusal];
    for (place, command) in failing.into_iter().enumerate() {
        let answer = ask(&bus, &format!("failing {place}"), command.clone()).await;
        assert!(matches!(answer, Err(SendError::Invalid(_) | SendError::Panicked(_))), "{command:?}: {answer:?}");
        assert_eq!(bus.status()[0].state, OwnerState::Serving, "after {command:?}");
        // Nothing of it is left: the next command has the next version.
        let next = ask(&bus, &format!("next {place}"), Ask::Read { value: 0.5 }).await.expect("the aggregate is well");
        assert_eq!(next.version.get(), place as u64 + 1, "after {command:?}");
    }
    let records = world.log.partition("test.gauge.events", 0).records();
    let texts = records.iter().filter_map(|stored| std::str::from_utf8(stored.record.value.as_deref()?).ok());
    assert!(!texts.into_iter().any(|text| text.contains("refused")), "no sender could read that");
    engine.shutdown().await;
    let (_engine, bus) = gauge(&world).await;
    let next = ask(&bus, "last", Ask::Read { value: 1.0 }).await.expect("every reader can read all of it");
    assert_eq!(next.version.get(), 5);
}

#[tokio::test]
async fn the_state_that_decides_is_the_one_that_every_reader_folds() {
    let world = World::new();
    let (engine, bus) = gauge(&world).await;
    ask(&bus, "1", Ask::Shout).await.unwrap();
    // What was not stored has no say, whether or not a process was started anew in between.
    ask(&bus, "2", Ask::Shout).await.expect("no event says that it was loud");
    engine.shutdown().await;
    let (_engine, bus) = gauge(&world).await;
    ask(&bus, "3", Ask::Shout).await.expect("no event says that it was loud");
}

const COMMANDS: &str = "test.counter.commands";
const REPLIES: &str = "test.counter.replies";

#[tokio::test]
async fn what_a_reader_would_not_take_is_refused_on_every_way_in_and_the_rest_is_read() {
    let accepted = ["0000-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.9999999+00:01"];
    let refused = ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00", "9999-12-31T23:59:60Z"];
    let times = accepted.iter().map(|time| (*time, true)).chain(refused.iter().map(|time| (*time, false)));
    for (time, good) in times {
        for from_topic in [true, false] {
            let world = World::new();
            let group = MemoryGroup::new(world.log.clone());
            let engine = Engine::shared(Arc::new(world.log.clone()), Arc::new(group.clone()), world.config.clone());
            let bus = engine.start::<Counter>().await.expect("starts");
            bus.ready().await.expect("serves");
            if from_topic {
                let reply = ask_by_topic(&world, time).await;
                assert_eq!(reply.contains("accepted"), good, "{time}: {reply}");
                assert_eq!(reply.contains("invalid"), !good, "{time}: {reply}");
            } else {
                let occurred_at = DateTime::parse_from_rfc3339(time).unwrap().to_utc();
                let answer = bus.send(&"c".to_owned(), add(4)).command_id("a").occurred_at(occurred_at).await;
                let refused = matches!(answer, Err(SendError::Invalid(InvalidCommand::Encoding(_))));
                assert_eq!((answer.is_ok(), refused), (good, !good), "{time}: {answer:?}");
            }
            // Whatever was acknowledged, every reader sees, to the microsecond.
            let events = world.events().await;
            let shown: Vec<DateTime<Utc>> = events.iter().map(|event| event.envelope.occurred_at).collect();
            let micros = DateTime::parse_from_rfc3339(time).unwrap().timestamp_micros();
            let stored = DateTime::from_timestamp_micros(micros).unwrap();
            assert_eq!(shown, if good { vec![stored] } else { vec![] }, "{time}, from the topic: {from_topic}");
            engine.shutdown().await;
        }
    }
}

/// The answer to a command that comes over the topic, as a service in any language sends it.
async fn ask_by_topic(world: &World, time: &str) -> String {
    let headers = [
        ("ce_id", "a"),
        ("ce_type", "test.counter.add"),
        ("ce_time", time),
        ("ce_replypartition", "0"),
        ("ce_request", "r"),
    ];
    let headers = headers.iter().map(|(name, value)| ((*name).into(), value.to_string().into())).collect();
    let timestamp_ms = world.config.clock.now_ms();
    let value = Some(r#"{"times":1,"n":4}"#.into());
    world.log.partition(COMMANDS, 0).append_foreign(Record { key: "c".into(), value, headers, timestamp_ms });
    for _ in 0..2_000 {
        if let Some(reply) = world.log.partition(REPLIES, 0).records().pop() {
            return String::from_utf8(reply.record.value.expect("a value").to_vec()).expect("text");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no answer");
}

#[tokio::test]
async fn nothing_is_told_that_a_clock_outside_of_recordable_time_can_not_record() {
    let world = World::new();
    let process = world.process().await;
    process.send("a", "1", add(1)).await.unwrap();
    world.clock.advance(crate::domain::limits::TIME_MAX_MS);
    let events = process.send("a", "2", add(1)).await;
    let answer = process.send("a", "3", Do::Nothing).await;
    assert!(matches!(events, Err(SendError::NotDone(NotDone::NotReady { .. }))), "{events:?}");
    assert!(matches!(answer, Err(SendError::NotDone(NotDone::NotReady { .. }))), "{answer:?}");
    assert_eq!(world.sum("a").await, 1);
}
