//! The servers and processes that other tests rely on do what their docs say.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use es_tests::{Kafka, Postgres, Proc, eventually, free_port, topic_prefix, unique_name};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use sqlx::{Connection, PgConnection};

/// As long as a busy machine may take for what is quick on an idle one.
const LONG: Duration = Duration::from_secs(60);

/// A topic can be created, written and read on the shared broker.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_keeps_a_record() {
    let kafka = Kafka::shared().await;
    let topic = new_topic(kafka).await;
    produce(kafka, &topic, "hello").await;
    assert_eq!(consume(kafka, &topic, 0).await, "hello");
}

/// A second test gets the same broker: one address, and no second start.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_is_shared_by_the_tests_of_a_process() {
    let (one, other) = tokio::join!(Kafka::shared(), Kafka::shared());
    assert!(std::ptr::eq(one, other));
    let topic = new_topic(one).await;
    produce(other, &topic, "shared").await;
    assert_eq!(consume(one, &topic, 0).await, "shared");
}

/// Nobody gets a topic by naming it.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_creates_no_topic_by_itself() {
    let kafka = Kafka::shared().await;
    let producer: FutureProducer =
        client(kafka).set("message.timeout.ms", "10000").create().expect("a producer can be made");
    let topic = topic_prefix();
    let sent = producer.send(FutureRecord::<str, str>::to(&topic).payload("lost"), LONG).await;
    sent.expect_err("a topic that was not created takes no record");
}

/// What was acknowledged before `kill -9` is there after a restart, at the same address, for the same clients.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_killed_and_restarted_keeps_its_records_and_its_address() {
    let mut kafka = Kafka::start().await;
    let before = kafka.bootstrap();
    let topic = new_topic(&kafka).await;
    produce(&kafka, &topic, "before").await;

    kafka.kill().await;
    assert!(TcpStream::connect(&before).is_err(), "a killed broker takes no connection");
    kafka.restart().await;

    assert_eq!(kafka.bootstrap(), before);
    assert_eq!(consume(&kafka, &topic, 0).await, "before");
    produce(&kafka, &topic, "after").await;
    assert_eq!(consume(&kafka, &topic, 1).await, "after");
}

/// An orderly stop keeps the data too, and a paused broker acknowledges nothing until it goes on.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn kafka_can_be_stopped_and_paused() {
    let mut kafka = Kafka::start_with(&[("num.partitions", "1")]).await;
    let topic = new_topic(&kafka).await;
    produce(&kafka, &topic, "before").await;

    kafka.stop().await;
    kafka.restart().await;
    assert_eq!(consume(&kafka, &topic, 0).await, "before");

    let producer: FutureProducer = client(&kafka).create().expect("a producer can be made");
    producer.send(FutureRecord::<str, str>::to(&topic).payload("connected"), LONG).await.expect("the broker runs");
    kafka.pause().await;
    let mut sent = std::pin::pin!(producer.send(FutureRecord::<str, str>::to(&topic).payload("late"), LONG));
    tokio::time::timeout(Duration::from_secs(1), &mut sent).await.expect_err("a paused broker answers nothing");
    kafka.resume().await;
    sent.await.expect("the broker goes on");
    assert_eq!(consume(&kafka, &topic, 2).await, "late");
}

/// Each database is empty and apart from the others.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn postgres_gives_each_test_a_database_of_its_own() {
    let postgres = Postgres::shared().await;
    let (one, other) = (postgres.database().await, postgres.database().await);
    assert_ne!(one, other);

    let mut one = connect(&one).await;
    let mut other = connect(&other).await;
    sqlx::raw_sql("create table t (n int)").execute(&mut one).await.expect("the database takes a table");
    assert_eq!(number(&mut one, "select count(*) from t").await, 0);
    assert_eq!(number(&mut other, "select count(*) from pg_tables where tablename = 't'").await, 0);
    assert_eq!(number(&mut other, "select 1::bigint").await, 1);
}

/// Rows survive an orderly stop as well as `kill -9`, at the same address.
#[tokio::test]
#[ignore = "needs PostgreSQL: run scripts/test"]
async fn postgres_stopped_or_killed_keeps_its_rows() {
    let mut postgres = Postgres::start().await;
    let url = postgres.database().await;
    let mut connection = connect(&url).await;
    sqlx::raw_sql("create table t (n bigint); insert into t values (7)")
        .execute(&mut connection)
        .await
        .expect("a table");

    postgres.stop().await;
    sqlx::raw_sql("select 1").execute(&mut connection).await.expect_err("a stopped server answers nothing");
    postgres.restart().await;
    assert_eq!(number(&mut connect(&url).await, "select n from t").await, 7);

    // A connection is open meanwhile, so that a helper of the server has to go too.
    let _open = connect(&url).await;
    postgres.kill().await;
    PgConnection::connect(&url).await.expect_err("a killed server takes no connection");
    postgres.restart().await;
    assert_eq!(number(&mut connect(&url).await, "select n from t").await, 7);
}

/// A child does not outlive the process that started it, even when that one is killed with `kill -9`.
///
/// The test runs itself once more as the parent to kill.
#[tokio::test]
async fn children_die_with_their_parent() {
    const CHILD_FILE: &str = "ES_TESTS_CHILD_FILE";
    if let Some(file) = std::env::var_os(CHILD_FILE) {
        let child = Proc::spawn(sleep());
        std::fs::write(file, child.id().to_string()).expect("the test that started this one waits for the file");
        tokio::time::sleep(LONG * 2).await;
        unreachable!("the test that started this one kills it");
    }

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("child");
    let mut again = Command::new(std::env::current_exe().expect("a running test has a path"));
    again.args(["--exact", "servers::children_die_with_their_parent"]).env(CHILD_FILE, &file);
    let mut parent = Proc::spawn(again);
    let child = eventually("the child's id", LONG, async || std::fs::read_to_string(&file).ok()?.parse().ok()).await;
    assert!(runs(child));

    parent.kill9();
    eventually("the child to die", LONG, async || (!runs(child)).then_some(())).await;
}

/// The thread that asked for a child may end before it: each test has a thread of its own, shared servers have none.
#[tokio::test]
async fn children_outlive_the_thread_that_asked_for_them() {
    let started = std::thread::spawn(|| Proc::spawn(sleep())).join();
    let mut child = started.expect("the child was started");
    // A signal at the thread's end would have come by now.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(child.exited(), None);
}

/// A stopped process makes no progress and goes on where it was; its output and its end are seen.
#[tokio::test]
async fn a_process_can_be_stopped_continued_and_watched() {
    let mut count = Command::new("sh");
    count.args(["-c", "i=0; while [ $i -lt 100 ]; do i=$((i+1)); echo $i; sleep 0.02; done; echo done >&2; exit 3"]);
    let mut count = Proc::spawn(count);
    eventually("the first line", LONG, async || count.stdout().starts_with('1').then_some(())).await;

    count.sigstop();
    eventually("the stop", LONG, async || (state(count.id()) == Some('T')).then_some(())).await;
    let lines = count.stdout();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(count.stdout(), lines);
    assert_eq!(count.exited(), None);

    count.sigcont();
    assert_eq!(count.wait(LONG).await.code(), Some(3));
    assert!(count.stdout().ends_with("99\n100\n"));
    assert_eq!(count.stderr(), "done\n");
}

/// After `kill9` the process is gone, frozen or not, and a second one does nothing.
#[tokio::test]
async fn a_killed_process_is_gone() {
    let mut child = Proc::spawn(sleep());
    child.sigstop();
    child.kill9();
    assert!(!runs(child.id()));
    child.kill9();
    assert!(child.exited().is_some());
}

/// Ports given away are different ones, below those that outgoing connections get.
#[test]
fn free_ports_differ() {
    let ports = [free_port(), free_port(), free_port()];
    assert!(ports[0] != ports[1] && ports[1] != ports[2] && ports[0] != ports[2], "{ports:?}");
    assert!(ports.iter().all(|port| *port < 32_768), "{ports:?}");
}

fn client(kafka: &Kafka) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", kafka.bootstrap());
    config
}

async fn new_topic(kafka: &Kafka) -> String {
    let topic = format!("{}.account.events", topic_prefix());
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client can be made");
    let wanted = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    let created = admin.create_topics([&wanted], &AdminOptions::new()).await.expect("the broker answers");
    assert_eq!(created, [Ok(topic.clone())]);
    topic
}

async fn produce(kafka: &Kafka, topic: &str, payload: &str) {
    let producer: FutureProducer = client(kafka).create().expect("a producer can be made");
    producer.send(FutureRecord::<str, str>::to(topic).payload(payload), LONG).await.expect("the broker takes a record");
}

async fn consume(kafka: &Kafka, topic: &str, offset: i64) -> String {
    let consumer: StreamConsumer =
        client(kafka).set("group.id", unique_name("g")).create().expect("a consumer can be made");
    let mut place = TopicPartitionList::new();
    place.add_partition_offset(topic, 0, Offset::Offset(offset)).expect("an offset");
    consumer.assign(&place).expect("a partition can be assigned");
    let record = tokio::time::timeout(LONG, consumer.recv()).await.expect("a record in time").expect("a record");
    assert_eq!(record.offset(), offset);
    String::from_utf8(record.payload().expect("a payload").to_vec()).expect("text")
}

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url).await.expect("the server takes a connection")
}

async fn number(connection: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(connection).await.expect("the query gives a number")
}

fn sleep() -> Command {
    let mut sleep = Command::new("sleep");
    sleep.arg("300");
    sleep
}

/// The letter that the kernel has for what a process does, `None` when there is no such process.
fn state(process: u32) -> Option<char> {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat")).ok()?;
    stat.rsplit(") ").next()?.chars().next()
}

fn runs(process: u32) -> bool {
    !matches!(state(process), None | Some('Z' | 'X'))
}
