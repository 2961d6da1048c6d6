//! Services in other languages: commands that `kcat` sends, as the documentation shows it.

use std::process::Command;

use es_core::log::Log;
use es_tests::{Kafka, eventually};
use serde_json::{Value, json};

use crate::bank::{LONG, program};
use crate::cluster::nodes::Cluster;

const FORMATS: &str = include_str!("../../docs/formats.md");

/// The documented commands, for another broker and namespace.
struct Documented {
    kafka: String,
    namespace: String,
}

impl Documented {
    /// The lines of the example up to where its second command begins, or from there on.
    fn lines(&self, second: bool) -> String {
        let (_, from) = FORMATS.split_once("```sh\nprintf").expect("an example");
        let (example, _) = from.split_once("```").expect("its end");
        let (send, receive) = example.split_once("\nkcat").expect("two commands");
        let text = if second { format!("kcat{receive}") } else { format!("printf{send}") };
        let topic = format!("-t {}.account", self.namespace);
        text.replace("localhost:9092", &self.kafka).replace("-t bank.account", &topic)
    }

    fn send(&self, change: impl Fn(String) -> String) {
        run(&change(self.lines(false)));
    }

    /// Waits for so many answers, and gives all there are.
    async fn answers(&self, count: usize) -> Vec<Value> {
        let read = || -> Vec<Value> {
            let text = run(&self.lines(true));
            text.lines().map(|line| serde_json::from_str(line).expect("an answer in JSON")).collect()
        };
        eventually(&format!("{count} answers"), LONG, async || Some(read()).filter(|read| read.len() >= count)).await
    }
}

fn run(shell: &str) -> String {
    let output = Command::new("sh").args(["-c", shell]).output().expect("a shell");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell}\n{errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_command_sent_with_kcat_is_answered_and_one_to_the_wrong_partition_is_misrouted() {
    let mut cluster = Cluster::start(&Kafka::shared().await.bootstrap(), 1).await;
    let documented = Documented { kafka: cluster.kafka.clone(), namespace: cluster.namespace.clone() };
    let (client, url) = (cluster.client.clone(), cluster.nodes[0].url());
    let get = async |account: &str| {
        let answer = client.get(format!("{url}/api/accounts/{account}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
    };
    let open = r#"{"owner":"Ada","overdraft_limit":0}"#;
    documented.send(|line| {
        let line = line.replace(r#"{"amount":500}"#, open).replace("account.deposit", "account.open");
        line.replace("order-7", "open-42")
    });
    documented.send(|line| line); // word by word
    documented.send(|line| line);
    documented.send(|line| line.replace("500", "501").replace("deposit", "withdraw").replace("order-7", "too-much"));
    documented.send(|line| line.replace("500", "-1").replace("order-7", "less-than-nothing"));
    let answers = documented.answers(5).await;
    let of = |id: &str| -> Vec<&Value> { answers.iter().filter(|answer| answer["command_id"] == id).collect() };
    let [first, again] = of("order-7")[..] else { panic!("{answers:#?}") };
    assert_eq!((&first["aggregate"], &first["request"]), (&json!("42"), &json!("mine")));
    let accepted = |answer: &Value| answer["outcome"]["accepted"].clone();
    assert_eq!((&accepted(first)["version"], &accepted(first)["events"]), (&json!(2), &json!(1)), "{first}");
    assert_eq!(accepted(first)["at"]["duplicate"], false);
    assert_eq!(accepted(again)["at"]["duplicate"], true, "{again}");
    assert_eq!(accepted(again)["at"]["offset"], accepted(first)["at"]["offset"]);
    let refused = &of("too-much")[0]["outcome"]["refused"];
    assert_eq!(refused["version"], 2, "{answers:#?}");
    assert!(refused["error"].to_string().contains("500"), "typed, with the balance: {refused}");
    assert!(of("less-than-nothing")[0]["outcome"]["accepted"].is_null(), "{answers:#?}");
    eventually("the deposit to be visible", LONG, async || (get("42").await.1["balance"] == 500).then_some(())).await;

    // CRC32, librdkafka's own default, agrees with murmur2 by chance only.
    let sent: Vec<String> = (0..16).map(|number| format!("m{number}")).collect();
    for account in &sent {
        documented.send(|line| {
            let line = line.replace(r#"{"amount":500}"#, open).replace("account.deposit", "account.open");
            line.replace("murmur2_random", "consistent")
                .replace("order-7", account)
                .replace("-k 42", &format!("-k {account}"))
        });
    }
    let answers = documented.answers(5 + sent.len()).await;
    let misrouted: Vec<&Value> = answers.iter().filter(|one| !one["outcome"]["misrouted"].is_null()).collect();
    assert!(!misrouted.is_empty(), "{answers:#?}");
    let figure = cluster.nodes[0].figure(&client, "bank_owner_misrouted_commands_total").await;
    assert_eq!(figure, misrouted.len() as u64);
    assert!(misrouted[0]["outcome"].to_string().contains("murmur2_random"), "the remedy: {}", misrouted[0]);
    let log = es_kafka::KafkaLog::connect(es_kafka::KafkaConfig::new(&cluster.kafka)).await.expect("connects");
    let keys = keys(&log, &es_core::events_topic(&cluster.namespace, "account")).await;
    for account in &sent {
        let was_misrouted = misrouted.iter().any(|answer| answer["aggregate"] == account.as_str());
        assert_eq!(
            keys.iter().any(|key| key.starts_with(&format!("{account}/"))),
            !was_misrouted,
            "{account}: {keys:?}"
        );
    }

    // What is no event of ours is shown with its place.
    let (kafka, namespace) = (&documented.kafka, &documented.namespace);
    run(&format!("printf rubbish | kcat -P -b {kafka} -t {namespace}.account.events -p 3 -k somebody"));
    let elsewhere = tempfile::tempdir().expect("a temporary folder");
    let shown = |args: &[&str]| {
        let mut command = program(args);
        command.args(["--kafka", kafka, "--namespace", namespace]).arg("--data").arg(elsewhere.path());
        let output = command.output().expect("the bank runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let told: Value = serde_json::from_str(&shown(&["quarantine", "--json"])).expect("JSON");
    assert_eq!(told["foreign"].as_array().map(Vec::len), Some(1), "{told}");
    let record = &told["foreign"][0];
    assert_eq!((&record["partition"], &record["bytes"]), (&json!(3), &json!("somebodyrubbish".len())), "{told}");
    let text = shown(&["quarantine"]);
    assert!(text.contains("account.events/3 offset") && text.contains("1 foreign records, 0 void"), "{text}");
    cluster.nodes[0].stop().await;
}

/// The keys of all records.
async fn keys(log: &es_kafka::KafkaLog, topic: &str) -> Vec<String> {
    let mut keys = Vec::new();
    for partition in 0..8 {
        let bounds = log.bounds(topic, partition).await.expect("bounds");
        let mut reader = log.reader(topic, &[(partition, bounds.start)]).await.expect("a reader");
        let mut next = bounds.start;
        while next < bounds.end {
            let batch = reader.next().await.expect("records");
            next = batch.next;
            keys.extend(batch.records.iter().map(|stored| String::from_utf8_lossy(&stored.record.key).into_owned()));
        }
    }
    keys
}
