//! Two releases of one program: the same stored names and events, and types that differ, deep inside.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::engine::store::StateFolder;
use crate::log::Record;
use crate::log::group::memory::MemoryGroup;
use crate::{Shape, partition_of};

#[derive(Debug, Clone, PartialEq, thiserror::Error, Serialize, Deserialize)]
pub(super) enum TooMuch {
    #[error("{taken} were taken")]
    Taken { taken: u64 },
}

/// The first release: it does not count what is taken.
mod one {
    use super::*;

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
    #[aggregate(context = "test", name = "stock", id = String, command = Ask, event = Told, error = TooMuch)]
    pub(super) struct Stock {
        sums: Sums,
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Shape)]
    struct Sums {
        put: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    pub(super) enum Ask {
        Put { n: u64, by: Person },
        Take { n: u64 },
        Bring { to: Place },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    pub(super) struct Person {
        pub(super) name: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(tag = "kind")]
    pub(super) enum Place {
        Home { street: String },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "stock")]
    pub(super) enum Told {
        #[event(name = "put")]
        Put { n: u64, by: String },
        #[event(name = "taken")]
        Taken { n: u64 },
    }

    impl Handle for Stock {
        fn handle(&self, command: Ask, _: &Context) -> Result<Vec<Told>, TooMuch> {
            Ok(vec![match command {
                Ask::Put { n, by } => Told::Put { n, by: by.name },
                Ask::Take { n } => Told::Taken { n },
                Ask::Bring { to: Place::Home { street } } => Told::Put { n: 0, by: street },
            }])
        }
    }

    impl Apply for Stock {
        fn apply(&mut self, event: &Told) {
            if let Told::Put { n, .. } = event {
                self.sums.put += n;
            }
        }
    }
}

/// The next one: it lets no more than 100 be taken, and knows on whose behalf somebody puts something.
mod two {
    use super::*;

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
    #[aggregate(context = "test", name = "stock", id = String, command = Ask, event = Told, error = TooMuch)]
    pub(super) struct Stock {
        sums: Sums,
    }

    #[derive(Debug, Clone, Default, Serialize, Deserialize, Shape)]
    #[serde(default)]
    struct Sums {
        put: u64,
        taken: u64,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Command)]
    pub(super) enum Ask {
        Put { n: u64, by: Person },
        Take { n: u64 },
        Bring { to: Place },
        Count,
        Tag { tags: HashMap<String, u64>, of: HashSet<String> },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    pub(super) struct Person {
        pub(super) name: String,
        #[serde(default)]
        pub(super) behalf: String,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Shape)]
    #[serde(tag = "kind")]
    pub(super) enum Place {
        Home {
            street: String,
            #[serde(default)]
            floor: u64,
        },
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Event)]
    #[event(aggregate = "stock")]
    pub(super) enum Told {
        #[event(name = "put")]
        Put { n: u64, by: String },
        #[event(name = "taken")]
        Taken { n: u64 },
    }

    impl Handle for Stock {
        fn handle(&self, command: Ask, _: &Context) -> Result<Vec<Told>, TooMuch> {
            let taken = self.sums.taken;
            match command {
                Ask::Put { n, by } => Ok(vec![Told::Put { n, by: format!("{} for {}", by.name, by.behalf) }]),
                Ask::Take { n } if taken + n <= 100 => Ok(vec![Told::Taken { n }]),
                Ask::Take { .. } => Err(TooMuch::Taken { taken }),
                Ask::Bring { to: Place::Home { street, floor } } => {
                    Ok(vec![Told::Put { n: 0, by: format!("{street}, {floor}") }])
                }
                Ask::Count | Ask::Tag { .. } => Ok(vec![]),
            }
        }
    }

    impl Apply for Stock {
        fn apply(&mut self, event: &Told) {
            match event {
                Told::Put { n, .. } => self.sums.put += n,
                Told::Taken { n } => self.sums.taken += n,
            }
        }
    }
}

async fn start<A: Handle + Apply>(engine: &Engine) -> Bus<A> {
    let bus = engine.start::<A>().await.expect("starts");
    bus.ready().await.expect("serves, or knows who does");
    bus
}

/// The state of the first release has no count of what was taken: taken for a state of the next one, it would say 0.
#[tokio::test]
async fn a_state_of_another_shape_deep_inside_is_not_used_from_disk_nor_from_snapshots() {
    let id = "a".to_owned();
    for with_folder in [true, false] {
        let world = World::new();
        let folder = Arc::new(StateFolder::in_memory());
        let config = EngineConfig { unwritten_max: 1, snapshot_every: 4, ..world.config.clone() };
        let engine = || {
            let engine = Engine::new(Arc::new(world.log.clone()), config.clone());
            if with_folder { engine.on_folder(folder.clone()) } else { engine }
        };
        let before = engine();
        let bus = start::<one::Stock>(&before).await;
        for _ in 0..9 {
            bus.send(&id, one::Ask::Take { n: 10 }).await.unwrap();
        }
        before.shutdown().await;
        let after = engine();
        let bus = start::<two::Stock>(&after).await;
        let refused = bus.send(&id, two::Ask::Take { n: 20 }).await;
        assert!(
            matches!(refused, Err(SendError::Refused(TooMuch::Taken { taken: 90 }))),
            "with a folder: {with_folder}: {refused:?}"
        );
        bus.send(&id, two::Ask::Take { n: 10 }).await.expect("100 are allowed");
    }
}

#[tokio::test]
async fn a_repeat_is_known_again_whatever_the_order_of_maps_and_by_the_next_release() {
    let (world, id) = (World::new(), "a".to_owned());
    let engine = || Engine::new(Arc::new(world.log.clone()), world.config.clone());
    let before = engine();
    let bus = start::<one::Stock>(&before).await;
    let put = one::Ask::Put { n: 1, by: one::Person { name: "Ada".into() } };
    assert!(!bus.send(&id, put).command_id("put").await.unwrap().duplicate);
    before.shutdown().await;
    let after = engine();
    let bus = start::<two::Stock>(&after).await;
    let put = |behalf: &str| two::Ask::Put { n: 1, by: two::Person { name: "Ada".into(), behalf: behalf.into() } };
    assert!(bus.send(&id, put("")).command_id("put").await.unwrap().duplicate);
    let other = bus.send(&id, put("Bob")).command_id("put").await;
    assert!(matches!(other, Err(SendError::CommandIdReused)), "{other:?}");
    for repeat in 0..20 {
        // Each has an order of its own.
        let tags = (0..8).map(|n| (format!("tag{n}"), n)).collect();
        let tag = two::Ask::Tag { tags, of: (0..8).map(|n| format!("of{n}")).collect() };
        let receipt = bus.send(&id, tag).command_id("tag").await.unwrap();
        assert_eq!(receipt.duplicate, repeat > 0);
    }
}

const PARTITIONS: u32 = 4;
const COMMANDS: &str = "test.stock.commands";

fn shared(log: &MemoryLog, group: &MemoryGroup, release: &str) -> Engine {
    let config = EngineConfig { node: release.into(), release: Some(release.into()), ..World::new().config };
    Engine::shared(Arc::new(log.clone()), Arc::new(group.clone()), config)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..2_000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

fn serving<A: Handle + Apply>(bus: &Bus<A>) -> usize {
    bus.status().iter().filter(|one| one.state == crate::OwnerState::Serving).count()
}

/// The behalf of everything that was put, by aggregate.
fn behalves(log: &MemoryLog) -> std::collections::BTreeMap<String, Vec<String>> {
    let mut found = std::collections::BTreeMap::<String, Vec<String>>::new();
    for partition in 0..PARTITIONS {
        let source = EventSource::of::<two::Stock>("test", PARTITIONS);
        let mut reader = PartitionReader::resume(source, partition, &Checkpoint::default());
        for stored in log.partition("test.stock.events", partition).records() {
            let Fed::Events(events) = reader.feed(stored).expect("a whole log") else { continue };
            for event in events {
                if let two::Told::Put { by, .. } = event.envelope.event::<two::Stock>().expect("readable") {
                    let behalf = by.split_once(" for ").map_or("", |(_, behalf)| behalf);
                    found.entry(event.envelope.stream.id.to_string()).or_default().push(behalf.into());
                }
            }
        }
    }
    found
}

#[tokio::test]
async fn a_rolling_deployment_loses_no_field_that_the_older_release_does_not_know() {
    let log = MemoryLog::new(PARTITIONS).with_record_max_bytes(20_000);
    let group = MemoryGroup::new(log.clone());
    let old = shared(&log, &group, "r1");
    let old_bus = start::<one::Stock>(&old).await;
    let new = shared(&log, &group, "r2");
    let new_bus = start::<two::Stock>(&new).await;
    eventually("both serve", async || serving(&old_bus) == 2 && serving(&new_bus) == 2).await;
    let here = |id: &String| {
        let home = partition_of(&crate::AggregateKey::new(id).unwrap(), PARTITIONS) as usize;
        new_bus.status()[home].state == crate::OwnerState::Serving
    };
    let ids: Vec<String> = (0..20).map(|n| format!("s{n}")).collect();
    let elsewhere = ids.iter().filter(|id| !here(id)).count();
    assert!((1..20).contains(&elsewhere), "of 20 aggregates {elsewhere} are the older release's");

    // What a command has besides is left out where it equals its default: the older release decides that.
    let put = |behalf: &str| two::Ask::Put { n: 1, by: two::Person { name: "Ada".into(), behalf: behalf.into() } };
    let foreign = ids.iter().find(|id| !here(id)).unwrap();
    new_bus.send(foreign, put("")).command_id("plain").await.expect("the older release knows all of it");
    // A command of the older release is decided by the newer one.
    let own = ids.iter().find(|id| here(id)).unwrap();
    let before = one::Ask::Put { n: 1, by: one::Person { name: "Ada".into() } };
    old_bus.send(own, before).command_id("plain").await.expect("the newer release knows all of it");

    // Told within a short deadline that nobody knows, with the older release named.
    let short = new_bus.send(foreign, put("Eve")).command_id("short").deadline(Duration::from_millis(300)).await;
    match short {
        Err(SendError::OutcomeUnknown { reason: Some(reason), .. }) => {
            for part in ["node r1", "release r1", "release, r2", "\"by.behalf\""] {
                assert!(reason.contains(part), "{part}: {reason}");
            }
        }
        other => panic!("{other:?}"),
    }
    // Nor is one read in part whose new field serde passes over, within a tagged type.
    let bring = |floor| two::Ask::Bring { to: two::Place::Home { street: "Long Lane".into(), floor } };
    let floor = new_bus.send(foreign, bring(3)).deadline(Duration::from_millis(300)).await;
    let Err(SendError::OutcomeUnknown { reason: Some(reason), .. }) = &floor else { panic!("{floor:?}") };
    assert!(reason.contains("can't read all of it"), "{reason}");
    new_bus.send(foreign, bring(0)).await.expect("the older release knows all of it");
    let count = new_bus.send(foreign, two::Ask::Count).deadline(Duration::from_millis(300)).await;
    assert!(matches!(count, Err(SendError::OutcomeUnknown { reason: Some(_), .. })), "{count:?}");

    // Those who wait are answered once a process of the newer release owns all.
    let sent: Vec<_> = ids
        .iter()
        .map(|id| {
            let (bus, id, command) = (new_bus.clone(), id.clone(), put("Bob"));
            tokio::spawn(async move { bus.send(&id, command).command_id("1").deadline(Duration::from_secs(60)).await })
        })
        .collect();
    eventually("the owner here has decided its own", async || {
        behalves(&log).values().flatten().filter(|behalf| *behalf == "Bob").count() == 20 - elsewhere
    })
    .await;
    old.shutdown().await;
    for sending in sent {
        sending.await.unwrap().expect("decided by the newer release");
    }
    for id in &ids {
        let told = behalves(&log).remove(id).unwrap_or_default();
        assert_eq!(told.iter().filter(|behalf| *behalf == "Bob").count(), 1, "{id}: {told:?}");
    }
    // The claims say which release made them.
    let claims: Vec<String> = (0..PARTITIONS)
        .flat_map(|partition| log.partition("test.stock.events", partition).records())
        .filter_map(|stored| match crate::log::record::decode(&stored.record) {
            crate::log::record::Decoded::Claim(claim) => claim.program.and_then(|program| program.release),
            _ => None,
        })
        .map(|release| release.to_string())
        .collect();
    assert!(claims.iter().any(|release| release == "r1") && claims.iter().any(|release| release == "r2"), "{claims:?}");
}

/// What a service sends that says nothing of shapes, or the same shape, is not valid with a field that nobody knows.
#[tokio::test]
async fn a_field_that_nobody_knows_is_refused_by_its_name() {
    let log = MemoryLog::new(1).with_record_max_bytes(20_000);
    let group = MemoryGroup::new(log.clone());
    let engine = shared(&log, &group, "r2");
    let _bus = start::<two::Stock>(&engine).await;
    let same = crate::domain::codec::command_fingerprint::<two::Ask>("put").unwrap();
    let cases = [
        (
            "put",
            r#"{"n":1,"by":{"name":"Ada","age":7}}"#,
            None,
            r#"not_known":{"reason":"this process is of release r2; the payload of type \"put\" has the field \"by.age\""#,
        ),
        (
            "put",
            r#"{"n":1,"by":{"name":"Ada","age":7}}"#,
            Some(same),
            r#"invalid":{"reason":"the payload of type \"put\" has the field \"by.age\""#,
        ),
        ("put", r#"{"n":1,"by":{"name":"Ada","age":7}}"#, Some("other"), r#"not_known"#),
        ("count", r#"{"all":true}"#, None, r#"the field \"all\""#),
        ("count", "{}", Some("other"), r#"accepted"#),
        ("counted", "{}", None, r#"not_known"#),
    ];
    for (place, (name, payload, shape, expected)) in cases.into_iter().enumerate() {
        let (id, type_) = (format!("c{place}"), format!("test.stock.{name}"));
        let mut headers = vec![
            ("ce_id".into(), id.clone().into()),
            ("ce_type".into(), type_.into()),
            ("ce_replypartition".into(), "0".into()),
        ];
        headers.extend(shape.map(|shape| ("ce_shape".into(), shape.to_owned().into())));
        let timestamp_ms = World::new().config.clock.now_ms();
        let record = Record { key: "a".into(), value: Some(payload.into()), headers, timestamp_ms };
        log.partition(COMMANDS, 0).append_foreign(record);
        let reply = async || {
            let replies = log.partition("test.stock.replies", 0).records();
            let text = |value: Option<bytes::Bytes>| String::from_utf8(value.expect("a value").to_vec()).expect("text");
            replies.into_iter().find(|it| it.record.key == id.as_bytes()).map(|it| text(it.record.value))
        };
        eventually("a reply", async || reply().await.is_some()).await;
        let reply = reply().await.unwrap();
        assert!(reply.contains(expected), "{name} {payload} {shape:?}: {reply}");
    }
}

/// What an earlier, or a later, release remembered: whether a command is the same can't be told, so neither is said.
#[tokio::test]
async fn an_id_that_is_remembered_by_a_hash_of_an_unknown_kind_is_neither_the_same_nor_used() {
    let world = World::new();
    let same = crate::domain::codec::hash_command(&add(1)).unwrap();
    let mut other = same;
    other.0[0] = 2;
    let recorded = |command_hash, id: &str| {
        let recorded_at = chrono::DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        let added = bad_data::envelope(id, 1, "added", r#"{"n":1}"#, crate::EventHash::default());
        let command_id = CommandId::new("1").unwrap();
        let event = crate::Envelope { recorded_at, command_hash, command_id, ..added };
        crate::Envelope { hash: event.compute_hash(), ..event }
    };
    bad_data::earlier(&world, &[recorded(same, "a"), recorded(other, "b")]);
    let process = world.process().await;
    let repeat = process.send("a", "1", add(1)).await.unwrap();
    assert!(repeat.duplicate);
    let unknown = process.send("b", "1", add(1)).await;
    assert!(matches!(unknown, Err(SendError::OutcomeUnknown { reason: Some(_), .. })), "{unknown:?}");
    assert_eq!((world.sum("a").await, world.sum("b").await), (1, 1));
}
