//! Sealing and verifying as an operator and an auditor do it: with the program, its log and the public key. Copies of the
//! log are changed as who has the disk, or the topic, in hand can.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use es_core::log::embedded::{EmbeddedConfig, EmbeddedLog};
use es_core::log::record::{self, Decoded, Encoder};
use es_core::log::{Log, StoredRecord, TopicKind, TopicSpec};
use es_core::seal::seals_topic;
use es_core::{EventHash, events_topic};
use es_kafka::KafkaConfig;
use es_tests::{eventually, topic_prefix, transactions};
use serde_json::Value;

use crate::bank::{Bank, LONG};
use crate::kafka_log::{connect_with, read_to};

/// An Ed25519 key as OpenSSL writes it; that of the first test vector of RFC 8032.
const SIGNING_KEY: &str = "-----BEGIN PRIVATE KEY-----\n\
    MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
pub(crate) const PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n-----END PUBLIC KEY-----\n";
const OTHER_PUBLIC_KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=\n-----END PUBLIC KEY-----\n";

struct Keys {
    signing: String,
    public: String,
    other: String,
}

impl Keys {
    fn beside(bank: &Bank) -> Keys {
        let write = |name: &str, text| {
            let file = bank.dir.path().join(name);
            fs::write(&file, text).expect("a key can be written");
            file.to_str().expect("a path in UTF-8").to_owned()
        };
        Keys {
            signing: write("signing.pem", SIGNING_KEY),
            public: write("public.pem", PUBLIC_KEY),
            other: write("other.pem", OTHER_PUBLIC_KEY),
        }
    }
}

/// What `bank verify` says on standard error, where it fails.
fn refusal(bank: &Bank, args: &[&str]) -> String {
    let output = bank.run(args);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).expect("output in UTF-8")
}

/// A log that a test reads and writes itself.
struct Copying {
    log: Box<dyn Log>,
    namespace: String,
}

impl Copying {
    /// That in the bank's data folder, which is made where it is missing.
    fn embedded(bank: &Bank) -> Copying {
        bank.ok(&["verify", "--log-only"]);
        let log = EmbeddedLog::open(bank.data().join("log"), EmbeddedConfig::default()).expect("nobody has it open");
        Copying { log: Box::new(log), namespace: "bank".into() }
    }

    async fn kafka(bank: &Bank, namespace: &str) -> Copying {
        let log = connect_with(KafkaConfig::new(bank.option("--kafka"))).await;
        Copying { log: Box::new(log), namespace: namespace.into() }
    }

    fn topics(&self) -> [TopicSpec; 2] {
        let events = TopicSpec { name: events_topic(&self.namespace, "account"), kind: TopicKind::Events };
        [events, TopicSpec { name: seals_topic(&self.namespace, "account"), kind: TopicKind::Seals }]
    }

    async fn read(&self, topic: &TopicSpec, partition: u32) -> Vec<StoredRecord> {
        let end = self.log.bounds(&topic.name, partition).await.expect("it is there").end;
        if end == 0 {
            return Vec::new();
        }
        let mut reader = self.log.reader(&topic.name, &[(partition, 0)]).await.expect("a reader");
        read_to(reader.as_mut(), end).await
    }

    /// Copies events and seals, with the events of a partition changed.
    async fn copy_to(&self, to: &Copying, changed: u32, change: impl Fn(&mut Vec<StoredRecord>)) {
        for (place, (from, into)) in self.topics().into_iter().zip(to.topics()).enumerate() {
            let partitions = self.log.prepare(&from).await.expect("it is fit");
            assert_eq!(to.log.prepare(&into).await.expect("it is fit"), partitions);
            for partition in 0..partitions {
                let mut records = self.read(&from, partition).await;
                if (place, partition) == (0, changed) {
                    change(&mut records);
                }
                let mut writer = to.log.writer(&into.name, partition).await.expect("a writer");
                for chunk in records.chunks(500) {
                    let records = chunk.iter().map(|stored| stored.record.clone()).collect();
                    writer.append(records).await.expect("it is appended");
                }
            }
        }
    }

    /// The partition with the most records, the place of its middle event among its events, and that event's account.
    async fn middle(&self) -> (u32, usize, String) {
        let [events, _] = self.topics();
        let partitions = self.log.prepare(&events).await.expect("it is fit");
        let mut largest = (0, Vec::new());
        for partition in 0..partitions {
            let records = self.read(&events, partition).await;
            if records.len() > largest.1.len() {
                largest = (partition, records);
            }
        }
        let (partition, records) = largest;
        let accounts: Vec<_> = records.iter().filter_map(account).collect();
        (partition, accounts.len() / 2, accounts[accounts.len() / 2].clone())
    }
}

fn account(stored: &StoredRecord) -> Option<String> {
    match record::decode(&stored.record) {
        Decoded::Event(_, event) => Some(event.stream.id.to_string()),
        _ => None,
    }
}

/// Where the event is among the records of its partition.
fn at(records: &[StoredRecord], event: usize) -> usize {
    let mut events = (0..records.len()).filter(|place| account(&records[*place]).is_some());
    events.nth(event).expect("there are so many events")
}

/// Gives an event another actor, and all events of its account the hashes that come of it.
fn rewrite(records: &mut [StoredRecord], event: usize) {
    let (place, encoder) = (at(records, event), Encoder::new("bank", "account"));
    let mut heads: HashMap<_, EventHash> = HashMap::new();
    for (at, stored) in records.iter_mut().enumerate() {
        let Decoded::Event(stamp, mut event) = record::decode(&stored.record) else { continue };
        let head = heads.entry(event.stream.id.clone()).or_default();
        if at == place {
            event.actor = Some("nobody".parse().expect("an actor"));
        }
        event.previous_hash = *head;
        event.hash = event.compute_hash();
        *head = event.hash;
        stored.record = encoder.event(&event, stamp);
    }
}

/// Shows: what was imported under a key is sealed to the last event; verification is sound; one event is proven to somebody
/// with the public key alone, by the program and without any of its code; and each change to a copy of the log is told at its
/// place, though all hashes were computed anew.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn what_a_bank_seals_is_verified_and_changes_to_a_copy_are_told() {
    let bank = Bank::embedded();
    let keys = Keys::beside(&bank);
    let text = fs::read(transactions()).expect("the transactions can be read");
    let rows: Vec<_> = text.split_inclusive(|byte| *byte == b'\n').take(3_000).collect();
    let file = bank.dir.path().join("trans.asc");
    fs::write(&file, rows.concat()).expect("a part of them can be written");
    let summary = bank.import(&file, &["--signing-key", &keys.signing, "--signing-name", "example.com/bank"]);
    let trusting = ["--public-key", &keys.public];
    let verify = [&["verify", "--json"][..], &trusting].concat();
    let report: Value = serde_json::from_str(&bank.ok(&verify)).expect("one JSON object");
    let (log, models) = (&report["log"], report["read_models"].as_array().expect("a list"));
    let events = summary["accepted"].as_u64().unwrap() + summary["accounts"].as_u64().unwrap();
    assert_eq!((&log["sound"], &log["events"], &log["sealed"]), (&true.into(), &events.into(), &events.into()));
    assert_eq!(models.len(), 3, "{models:?}");
    assert!(bank.ok(&["verify", "--log-only"]).contains("seals: not checked"));

    let notes = bank.dir.path().join("notes");
    fs::write(&notes, bank.ok(&[&["seals"][..], &trusting].concat())).unwrap();
    let notes = notes.to_str().unwrap();
    let with_notes = [&["verify", "--log-only", "--note", notes][..], &trusting].concat();
    bank.ok(&with_notes);
    let by_other = refusal(&bank, &["verify", "--log-only", "--public-key", &keys.other]);
    assert!(by_other.contains("example.com/bank") && by_other.contains("trusted"), "{by_other}");
    proves_an_event(&bank, &keys);

    let original = Copying::embedded(&bank);
    let (partition, event, account) = original.middle().await;
    let place = format!("partition {partition} event {event}");
    type Change = Box<dyn Fn(&mut Vec<StoredRecord>)>;
    let rows: [(&str, Change); 4] = [
        ("it was rewritten", Box::new(move |records| rewrite(records, event))),
        (
            "it was changed",
            Box::new(move |records| {
                let at = at(records, event);
                let value = records[at].record.value.take().expect("a payload");
                let text = String::from_utf8(value.to_vec()).expect("JSON");
                records[at].record.value = Some(text.replacen('{', "{ ", 1).into());
            }),
        ),
        ("cut off", Box::new(move |records| records.truncate(at(records, event)))),
        (
            "it was sealed",
            Box::new(move |records| {
                let at = at(records, event);
                records.remove(at);
            }),
        ),
    ];
    for (told, change) in rows {
        let copy = Bank::embedded();
        original.copy_to(&Copying::embedded(&copy), partition, change).await;
        let why = refusal(&copy, &[&["verify", "--log-only"][..], &trusting].concat());
        assert!(why.contains(&place) && why.contains(told), "{told}: {why}");
        if told.starts_with("it was") && !told.ends_with("sealed") {
            assert!(why.contains(&format!("account-{account}")), "{why}");
        }
        let json = copy.run(&[&["verify", "--log-only", "--json"][..], &trusting].concat());
        let json: Value = serde_json::from_slice(&json.stdout).expect("one JSON object");
        assert_eq!(json["log"]["sound"], false);
    }
    // Cut off with its seals: what is left is right, and the notes that were kept tell what is gone.
    let copy = Bank::embedded();
    let into = Copying::embedded(&copy);
    original.copy_to(&into, partition, |records| records.truncate(at(records, event))).await;
    let emptied = Bank::embedded();
    let without_seals = Copying { log: Copying::embedded(&emptied).log, namespace: "bank".into() };
    let [events_topic, seals] = without_seals.topics();
    without_seals.log.prepare(&events_topic).await.unwrap();
    without_seals.log.prepare(&seals).await.unwrap();
    for partition in 0..8 {
        let records = into.read(&events_topic, partition).await;
        let mut writer = without_seals.log.writer(&events_topic.name, partition).await.unwrap();
        writer.append(records.into_iter().map(|stored| stored.record).collect()).await.unwrap();
    }
    drop(without_seals);
    emptied.ok(&[&["verify", "--log-only"][..], &trusting].concat());
    let why = refusal(&emptied, &with_notes);
    assert!(why.contains(&place) && why.contains("cut off"), "{why}");
}

fn proves_an_event(bank: &Bank, keys: &Keys) {
    let account = bank.balances(&[]).into_keys().next().expect("an account");
    let proof = bank.ok(&["prove", &account, "--version", "2", "--public-key", &keys.public]);
    let write = |name: &str, text: &str| {
        let file = bank.dir.path().join(name);
        fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let right = write("proof.json", &proof);
    let changed = write("changed.json", &proof.replace("\"actor\": \"import\"", "\"actor\": \"nobody\""));
    assert_ne!(proof, fs::read_to_string(&changed).unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/check-proof");
    let by_script =
        |proof: &str, key: &str| Command::new(&script).args([proof, key]).output().expect("python3 is there");
    // On another machine: no log, no database.
    let elsewhere = Bank::embedded();
    let checked = elsewhere.ok(&["check-proof", &right, "--public-key", &keys.public]);
    assert!(checked.contains(&format!("account-{account} version 2")), "{checked}");
    assert!(!elsewhere.data().exists(), "nothing was made");
    let checked = by_script(&right, &keys.public);
    assert!(checked.status.success(), "{checked:?}");
    for (proof, key) in [(&changed, &keys.public), (&right, &keys.other)] {
        let why = refusal(&elsewhere, &["check-proof", proof, "--public-key", key]);
        assert!(why.contains("proves nothing"), "{why}");
        let checked = by_script(proof, key);
        assert!(!checked.status.success(), "{checked:?}");
    }
    let why = refusal(bank, &["prove", &account, "--version", "1000000", "--public-key", &keys.public]);
    assert!(why.contains("has no event 1000000"), "{why}");
}

/// Shows: two processes on Kafka seal what they own, whoever is killed; the survivor goes on from the other's seals; and a
/// rewritten event in a copy of the topics is told at its place.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn processes_on_kafka_seal_what_they_own_and_go_on_from_each_others_seals() {
    let bank = Bank::on_servers().await;
    let keys = Keys::beside(&bank);
    let other = bank.elsewhere();
    let serving = |name: &'static str| ["--node", name, "--signing-key", &keys.signing, "--seal-every", "1"];
    let (one, two) = (serving("one"), serving("two"));
    let ((mut first, address), (second, other_address)) = tokio::join!(bank.serve_with(&one), other.serve_with(&two));
    let client = reqwest::Client::new();
    let open = async |address: &str, id: u32| {
        let body = serde_json::json!({ "id": id.to_string(), "owner": "Ada" });
        let done = async || {
            let sent = client.post(format!("{address}/api/accounts")).header("idempotency-key", format!("open-{id}"));
            sent.json(&body).send().await.ok().filter(|answer| answer.status().is_success()).map(drop)
        };
        eventually("an account to be opened", LONG, done).await;
    };
    for id in 0..100 {
        open(if id % 2 == 0 { &address } else { &other_address }, id).await;
    }
    first.kill9();
    for id in 100..200 {
        open(&other_address, id).await;
    }
    // While it serves, too.
    let verify = ["verify", "--log-only", "--json", "--public-key", &keys.public];
    let third = bank.elsewhere();
    let sealed = async || {
        let report: Value = serde_json::from_str(&third.ok(&verify)).expect("one JSON object");
        assert_eq!(report["log"]["sound"], true, "{report}");
        (report["log"]["sealed"] == 200).then_some(())
    };
    eventually("all to be sealed", LONG, sealed).await;
    let metrics = client.get(format!("{other_address}/metrics")).send().await.unwrap().text().await.unwrap();
    let figure = |name: &str| -> u64 {
        let lines = metrics.lines().filter(|line| line.starts_with(&format!("bank_owner_{name}{{")));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!((figure("sealed_events"), figure("unsealed_events")), (200, 0));
    drop(second);

    let copied = topic_prefix();
    let (from, to) = (Copying::kafka(&bank, &bank.option("--namespace")).await, Copying::kafka(&bank, &copied).await);
    let (partition, event, account) = from.middle().await;
    from.copy_to(&to, partition, |records| rewrite(records, event)).await;
    let copy = bank.elsewhere().with_option("--namespace", &copied);
    let why = refusal(&copy, &verify);
    let place = format!("partition {partition} event {event}");
    assert!(why.contains(&place) && why.contains("rewritten") && why.contains(&account), "{why}");
}
