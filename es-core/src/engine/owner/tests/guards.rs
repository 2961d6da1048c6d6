//! Users' code that panics, or does not write what it can read: it stops its own command or aggregate, and nothing else.

use std::cell::Cell;

use super::group::eventually;
use super::*;
use crate::engine::snapshot::kept;
use crate::log::Record;
use crate::log::group::memory::MemoryGroup;
use crate::{AggregateKey, OwnerState, Retried};

/// A text that panics where it says so.
#[derive(Debug, Default, PartialEq, crate::Shape)]
struct Cargo(String);

impl Clone for Cargo {
    fn clone(&self) -> Self {
        assert!(self.0 != "clone", "clone gave up");
        Self(self.0.clone())
    }
}

impl Serialize for Cargo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        assert!(self.0 != "write" || MENDED.get(), "write gave up");
        match self.0.as_str() {
            "error" => Err(serde::ser::Error::custom("can't be written")),
            "null" => serializer.serialize_unit(), // as JSON writes a number that is none
            text => serializer.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for Cargo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        assert!(text != "read" || MENDED.get(), "read gave up");
        Ok(Self(text))
    }
}

thread_local! {
    static NO_DEFAULT: Cell<bool> = const { Cell::new(false) };
    /// Stands for what panics for another reason than its text.
    static MENDED: Cell<bool> = const { Cell::new(false) };
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Aggregate)]
#[aggregate(context = "test", name = "ship", id = ShipId, command = Order, event = Happened, error = Refused)]
struct Ship {
    orders: u64,
    hold: Cargo,
}

impl Default for Ship {
    fn default() -> Self {
        assert!(!NO_DEFAULT.get(), "default gave up");
        Self { orders: 0, hold: Cargo::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ShipId(&'static str);

impl std::fmt::Display for ShipId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        assert!(self.0 != "display", "display gave up");
        f.write_str(self.0)
    }
}

impl std::str::FromStr for ShipId {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned().leak()))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
enum Order {
    Sail,
    /// The command itself.
    Carry {
        cargo: Cargo,
    },
    /// An event with it.
    Record {
        cargo: String,
    },
    /// A state with it.
    Load {
        cargo: String,
    },
    /// A refusal with it.
    Refuse {
        cargo: String,
    },
    PanicInHandle,
    PanicInApply,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
#[event(aggregate = "ship")]
enum Happened {
    #[event(name = "sailed")]
    Sailed,
    #[event(name = "recorded")]
    Recorded { cargo: Cargo },
    #[event(name = "loaded")]
    Loaded { cargo: String },
    #[event(name = "sunk")]
    Sunk,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
#[error("refused")]
struct Refused {
    cargo: Cargo,
}

impl Handle for Ship {
    fn handle(&self, command: Order, _: &Context) -> Result<Vec<Happened>, Refused> {
        Ok(vec![match command {
            Order::Sail | Order::Carry { .. } => Happened::Sailed,
            Order::Record { cargo } => Happened::Recorded { cargo: Cargo(cargo) },
            Order::Load { cargo } => Happened::Loaded { cargo },
            Order::Refuse { cargo } => return Err(Refused { cargo: Cargo(cargo) }),
            Order::PanicInHandle => panic!("handle gave up"),
            Order::PanicInApply => Happened::Sunk,
        }])
    }
}

impl Apply for Ship {
    fn apply(&mut self, event: &Happened) {
        self.orders += 1;
        match event {
            Happened::Loaded { cargo } => self.hold = Cargo(cargo.clone()),
            Happened::Sunk => panic!("apply gave up"),
            Happened::Sailed | Happened::Recorded { .. } => {}
        }
    }
}

type ShipAnswer = Result<Receipt, SendError<Refused>>;

async fn start(world: &World, config: EngineConfig) -> (Engine, Bus<Ship>) {
    let engine = Engine::new(Arc::new(world.log.clone()), config);
    let bus = engine.start::<Ship>().await.expect("starts");
    bus.ready().await.expect("serves");
    (engine, bus)
}

async fn send(bus: &Bus<Ship>, id: &'static str, command_id: &str, order: Order) -> ShipAnswer {
    bus.send(&ShipId(id), order).command_id(command_id).await
}

fn claims(world: &World) -> usize {
    let records = world.log.partition("test.ship.events", 0).records();
    records.iter().filter(|stored| stored.record.key.starts_with(b"!claim")).count()
}

#[tokio::test]
async fn what_panics_in_users_code_fails_its_command_alone() {
    let cargo = |text: &str| text.to_owned();
    let cases = [
        ("handle", Order::PanicInHandle, "handle gave up"),
        ("apply", Order::PanicInApply, "apply gave up"),
        ("writing the command", Order::Carry { cargo: Cargo("write".into()) }, "write gave up"),
        ("writing the event", Order::Record { cargo: cargo("write") }, "write gave up"),
        ("an event that can't be written", Order::Record { cargo: cargo("error") }, "can't be written"),
        ("writing the refusal", Order::Refuse { cargo: cargo("write") }, "write gave up"),
        ("a refusal that can't be written", Order::Refuse { cargo: cargo("error") }, "can't be written"),
        ("reading the refusal", Order::Refuse { cargo: cargo("read") }, "read gave up"),
    ];
    for (case, order, said) in cases {
        let world = World::new();
        let (engine, bus) = start(&world, world.config.clone()).await;
        let answer = send(&bus, "a", "1", order).await;
        let text = answer.as_ref().unwrap_err().to_string();
        assert!(text.contains(said), "{case}: {text}");
        let again = send(&bus, "a", "2", Order::Sail).await;
        assert_eq!(again.expect(case).version.get(), 1, "{case}");
        assert_eq!((bus.status()[0].state.clone(), claims(&world)), (OwnerState::Serving, 1), "{case}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_shown_fails_its_command_alone() {
    let world = World::new();
    let (_engine, bus) = start(&world, world.config.clone()).await;
    let answer = send(&bus, "display", "1", Order::Sail).await;
    assert!(answer.unwrap_err().to_string().contains("its Display panicked"));
    send(&bus, "a", "2", Order::Sail).await.unwrap();
}

/// The state is in memory, but can't be copied, or not be written and read back: nobody may decide on it.
#[tokio::test]
async fn a_state_that_cannot_be_kept_parks_its_aggregate_alone() {
    for (text, reason) in [
        ("clone", "its Clone panicked: clone gave up"),
        ("write", "writing it panicked: write gave up"),
        ("error", "can't be written"),
        ("read", "it does not read back: reading it back panicked: read gave up"),
        ("null", "it does not read back: invalid type: null"),
    ] {
        let world = World::new();
        let config = EngineConfig { unwritten_max: 1, cached_max: 1, snapshot_every: 1, ..world.config.clone() };
        let (engine, bus) = start(&world, config.clone()).await;
        send(&bus, "bad", "1", Order::Load { cargo: text.into() }).await.unwrap();
        for n in 0..20 {
            send(&bus, "good", &n.to_string(), Order::Sail).await.unwrap();
        }
        let parked = |answer: ShipAnswer| {
            let Err(SendError::Parked { reason: said, .. }) = &answer else { panic!("{text}: {answer:?}") };
            assert!(said.contains(reason), "{text}: {said}");
        };
        parked(send(&bus, "bad", "2", Order::Sail).await);
        assert_eq!((bus.status()[0].state.clone(), claims(&world)), (OwnerState::Serving, 1), "{text}");
        engine.shutdown().await;
        // The next process has it from the snapshots, or folds it: the others go on, as ever.
        let (engine, bus) = start(&world, config).await;
        for n in 0..20 {
            assert!(send(&bus, "good", &n.to_string(), Order::Sail).await.unwrap().duplicate, "{text}");
        }
        assert_eq!(send(&bus, "good", "more", Order::Sail).await.unwrap().version.get(), 21, "{text}");
        let answer = send(&bus, "bad", "3", Order::Sail).await;
        assert!(matches!(answer, Err(SendError::Parked { .. })), "{text}: {answer:?}");
        assert_eq!(claims(&world), 2, "{text}");
        engine.shutdown().await;
    }
}

#[tokio::test]
async fn a_stored_event_whose_reading_panics_parks_its_aggregate_alone() {
    let world = World::new();
    let config = EngineConfig { snapshot_every: 0, ..world.config.clone() };
    let (engine, bus) = start(&world, config.clone()).await;
    let recorded = send(&bus, "bad", "1", Order::Record { cargo: "read".into() }).await;
    send(&bus, "good", "1", Order::Sail).await.unwrap();
    engine.shutdown().await;
    let (_engine, bus) = start(&world, config).await;
    assert!(send(&bus, "good", "1", Order::Sail).await.unwrap().duplicate);
    let answer = send(&bus, "bad", "2", Order::Sail).await;
    match recorded {
        Ok(_) => assert!(matches!(answer, Err(SendError::Parked { .. })), "{answer:?}"),
        Err(error) => assert!(error.to_string().contains("read gave up") && answer.is_ok(), "{error}: {answer:?}"),
    }
}

#[tokio::test]
async fn a_default_that_panics_parks_what_has_no_state_yet() {
    let world = World::new();
    let (_engine, bus) = start(&world, world.config.clone()).await;
    send(&bus, "a", "1", Order::Sail).await.unwrap();
    NO_DEFAULT.set(true);
    let answer = send(&bus, "b", "1", Order::Sail).await;
    assert!(matches!(answer, Err(SendError::Parked { .. })), "{answer:?}");
    send(&bus, "a", "2", Order::Sail).await.unwrap();
    NO_DEFAULT.set(false);
    send(&bus, "b", "1", Order::Sail).await.unwrap();
}

fn key(id: &str) -> AggregateKey {
    AggregateKey::new(id).unwrap()
}

fn is_parked(answer: &ShipAnswer) -> bool {
    matches!(answer, Err(SendError::Parked { .. }))
}

/// A state that can't be kept parks its aggregate; once it can it goes on, in this life of the process.
#[tokio::test]
async fn what_is_parked_for_its_state_is_tried_again_without_a_start() {
    let world = World::new();
    let config = EngineConfig { unwritten_max: 1, cached_max: 1, snapshot_every: 1, ..world.config.clone() };
    let (engine, bus) = start(&world, config.clone()).await;
    send(&bus, "bad", "1", Order::Load { cargo: "write".into() }).await.unwrap();
    for n in 0..3 {
        send(&bus, "good", &n.to_string(), Order::Sail).await.unwrap();
    }
    assert!(is_parked(&send(&bus, "bad", "2", Order::Sail).await));
    let Retried::Parked { reason } = bus.retry_parked(&key("bad")).await.unwrap() else { panic!("it still is") };
    assert!(reason.contains("write gave up"), "{reason}");
    assert!(is_parked(&send(&bus, "bad", "2", Order::Sail).await));
    MENDED.set(true);
    assert_eq!(bus.retry_parked(&key("bad")).await.unwrap(), Retried::Resumed);
    assert_eq!(bus.retry_parked(&key("bad")).await.unwrap(), Retried::NotParked);
    assert_eq!(bus.retry_parked(&key("good")).await.unwrap(), Retried::NotParked);
    assert_eq!((bus.status()[0].parked, bus.parked()), (0, Vec::new()));
    assert_eq!(send(&bus, "bad", "2", Order::Sail).await.unwrap().version.get(), 2);
    engine.shutdown().await;
    let (_engine, bus) = start(&world, config).await;
    assert_eq!(send(&bus, "bad", "3", Order::Sail).await.unwrap().version.get(), 3);
    assert_eq!(claims(&world), 2);
}

/// An event that can't be read holds the checkpoints back; they stay until another release folds it from the start.
#[tokio::test]
async fn what_is_parked_for_an_event_is_tried_again_and_checkpoints_stay() {
    let world = World::new();
    let config = EngineConfig { unwritten_max: 1, cached_max: 1, snapshot_every: 1, ..world.config.clone() };
    MENDED.set(true);
    let (engine, bus) = start(&world, EngineConfig { snapshot_every: 0, ..config.clone() }).await;
    send(&bus, "bad", "1", Order::Record { cargo: "read".into() }).await.unwrap();
    send(&bus, "bad", "2", Order::Sail).await.unwrap();
    for n in 0..3 {
        send(&bus, "good", &n.to_string(), Order::Sail).await.unwrap();
    }
    engine.shutdown().await;
    MENDED.set(false);
    let (engine, bus) = start(&world, config.clone()).await;
    assert!(is_parked(&send(&bus, "bad", "3", Order::Sail).await));
    for n in 3..6 {
        send(&bus, "good", &n.to_string(), Order::Sail).await.unwrap();
    }
    let covered = || {
        let records = world.log.partition(&crate::snapshots_topic("test", "ship"), 0).records();
        records.iter().filter_map(|stored| kept::checkpoint(&stored.record)).max().unwrap_or(0)
    };
    assert!(covered() <= 1, "{}", covered());
    assert!(matches!(bus.retry_parked(&key("bad")).await, Ok(Retried::Parked { .. })));
    MENDED.set(true);
    assert_eq!(bus.retry_parked(&key("bad")).await.unwrap(), Retried::Resumed);
    assert_eq!(send(&bus, "bad", "3", Order::Sail).await.unwrap().version.get(), 3);
    engine.shutdown().await;
    assert!(covered() <= 1, "a checkpoint that fails must not be gone past: {}", covered());
    let (_engine, bus) = start(&world, config).await;
    assert_eq!(send(&bus, "bad", "4", Order::Sail).await.unwrap().version.get(), 4);
}

/// A state that was read before its aggregate went on, or before the owner's claim, may lack events.
#[tokio::test]
async fn a_state_that_may_lack_events_is_not_taken() {
    let world = World::new();
    let config = EngineConfig { unwritten_max: 1, cached_max: 1, ..world.config.clone() };
    let (_engine, bus) = start(&world, config).await;
    let load = |text: &str| Order::Load { cargo: text.into() };
    let park = async |first: u64| {
        MENDED.set(false);
        send(&bus, "bad", &first.to_string(), load("write")).await.unwrap();
        for n in 0..3 {
            send(&bus, "good", &format!("{first} {n}"), Order::Sail).await.unwrap();
        }
        assert!(is_parked(&send(&bus, "bad", "other", Order::Sail).await));
        MENDED.set(true);
    };
    park(1).await;
    let desk = &bus.shared.desks[0];
    let refolded = async || {
        let resumed = desk.partition.counters.parked.resumed();
        let (entry, read_to) =
            crate::engine::retry::refold::<Ship>(&world.log, bus.source(), 0, &key("bad")).await.unwrap();
        let (taken, answer) = tokio::sync::oneshot::channel();
        let entry = Arc::new(entry.unwrap());
        (crate::engine::retry::Refolded { aggregate: key("bad"), entry, read_to, resumed, taken }, answer)
    };
    let (mut early, answer) = refolded().await;
    early.read_to = 0; // up to the claim
    desk.refolded.send(early).await.unwrap();
    assert!(answer.await.is_err());
    assert!(is_parked(&send(&bus, "bad", "other", Order::Sail).await));
    let (stale, answer) = refolded().await;
    assert_eq!(bus.retry_parked(&key("bad")).await.unwrap(), Retried::Resumed);
    send(&bus, "bad", "2", Order::Sail).await.unwrap();
    park(3).await;
    desk.refolded.send(stale).await.unwrap();
    assert!(answer.await.is_err());
    assert!(is_parked(&send(&bus, "bad", "other", Order::Sail).await));
    assert_eq!(bus.retry_parked(&key("bad")).await.unwrap(), Retried::Resumed);
    assert_eq!(send(&bus, "bad", "other", Order::Sail).await.unwrap().version.get(), 4);
}

#[tokio::test]
async fn a_command_of_the_topic_whose_reading_panics_stops_no_other() {
    let world = World::new();
    let group = Arc::new(MemoryGroup::new(world.log.clone()));
    let engine = Engine::shared(Arc::new(world.log.clone()), group, world.config.clone());
    let bus = engine.start::<Ship>().await.unwrap();
    bus.ready().await.unwrap();
    let produce = |id: &str, ce_type: &str, payload: &'static str| {
        let headers = vec![("ce_id".into(), id.to_owned().into()), ("ce_type".into(), ce_type.to_owned().into())];
        let timestamp_ms = world.config.clock.now_ms();
        let record = Record { key: "a".into(), value: Some(payload.into()), headers, timestamp_ms };
        world.log.partition("test.ship.commands", 0).append_foreign(record);
    };
    produce("1", "test.ship.carry", r#"{"cargo":"read"}"#);
    produce("2", "test.ship.sail", "{}");
    eventually("both are taken", || bus.status()[0].forwarded == 1 && bus.status()[0].rejected == 1).await;
    assert_eq!(bus.status()[0].state, OwnerState::Serving);
}
