//! What the log on Kafka does when the broker is not there, dies, or is not ours alone.

use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::doc::{Account, AccountCommand};
use es_core::log::{AppendError, Log, LogErrorKind};
use es_core::{Engine, EngineConfig, OwnerState};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::{Kafka, eventually, free_port, topic_prefix, unique_name};
use rdkafka::ClientConfig;
use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_resp_err_t};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::time::timeout;

use crate::kafka_log::{PATIENCE, connect, connect_with, prepared, read_all, read_to, record};

/// A broker that is not there: tried until the time is over, then named with the cause.
#[tokio::test]
async fn a_broker_that_is_not_there_is_named_in_time() {
    let address = format!("127.0.0.1:{}", free_port());
    let started = Instant::now();
    let config = KafkaConfig::new(&address).timeout(Duration::from_secs(2));
    let error = KafkaLog::connect(config).await.unwrap_err();
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < PATIENCE, "{took:?}");
    assert_eq!(error.kind(), LogErrorKind::Unavailable);
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(error.to_string().contains(&address) && error.to_string().contains("2s"), "{error}");
    assert!(cause.contains("Connection refused"), "{cause}");
}

#[tokio::test]
async fn a_property_that_does_not_exist_is_named() {
    let config = KafkaConfig::new("127.0.0.1:1").property("no.such.property", "1");
    let error = KafkaLog::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Settings);
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(cause.contains("no.such.property"), "{cause}");
}

#[tokio::test]
async fn a_property_that_would_break_the_protocol_is_refused_before_anything_is_tried() {
    let config = KafkaConfig::new("127.0.0.1:1").property("acks", "1");
    let error = KafkaLog::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Settings);
    assert!(error.to_string().contains("acks"), "{error}");
}

/// A user with the right password gets in; a wrong one is told so at once, without showing it.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_password_is_checked() {
    let users = "org.apache.kafka.common.security.plain.PlainLoginModule required user_bank=\"hunter2\";";
    let kafka = Kafka::start_with(&[
        ("listener.security.protocol.map", "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("sasl.enabled.mechanisms", "PLAIN"),
        ("listener.name.plaintext.plain.sasl.jaas.config", users),
    ])
    .await;
    let config = |password: &str| KafkaConfig::new(kafka.bootstrap()).sasl("PLAIN", "bank", password);
    let log = connect_with(config("hunter2")).await;
    let topic = prepared(&log).await;
    assert_eq!(log.writer(&topic, 0).await.unwrap().append(vec![record("in")]).await.unwrap(), [0]);
    assert_eq!(read_all(&log, &topic, 0).await.len(), 1);

    let started = Instant::now();
    let error = KafkaLog::connect(config("hunter3").timeout(PATIENCE)).await.unwrap_err();
    assert!(started.elapsed() < PATIENCE / 2, "not at once, but at the end of its patience: {:?}", started.elapsed());
    assert_eq!(error.kind(), LogErrorKind::Settings);
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(error.to_string().contains("check user, password") && cause.contains("Authentication failed"), "{error:?}");
    assert!(!format!("{error:?}").contains("hunter3"), "{error:?}");

    // A client that does not log in is told what may be wrong.
    let silent = KafkaConfig::new(kafka.bootstrap()).timeout(Duration::from_secs(1));
    let error = KafkaLog::connect(silent).await.unwrap_err();
    let cause = std::error::Error::source(&error).expect("a cause").to_string();
    assert!(error.to_string().contains("TLS and login") && cause.contains("Disconnected"), "{error:?}");
}

/// `kill -9` and restart of the broker under load: every acknowledged record is there, exactly once and at the offset
/// that was told; a reader waits through it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn what_was_acknowledged_survives_a_killed_broker() {
    let mut kafka = Kafka::start().await;
    let log = connect_with(KafkaConfig::new(kafka.bootstrap()).timeout(PATIENCE)).await;
    let topic = prepared(&log).await;
    let mut reader = log.reader(&topic, &[(0, 0)]).await.unwrap();
    let following = tokio::spawn(async move {
        let mut keys = Vec::new();
        while keys.last().is_none_or(|key: &bytes::Bytes| key.as_ref() != b"end") {
            let batch = reader.next().await.expect("the reader rides it out");
            keys.extend(batch.records.into_iter().map(|stored| stored.record.key));
        }
        keys
    });
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let load = tokio::spawn(append_until(log.clone(), topic.clone(), stopped));
    tokio::time::sleep(Duration::from_millis(500)).await;
    for _ in 0..2 {
        kafka.kill().await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        kafka.restart().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    stop.send(()).unwrap();
    let (acknowledged, doubts) = timeout(PATIENCE, load).await.expect("appending goes on").unwrap();
    log.writer(&topic, 0).await.unwrap().append(vec![record("end")]).await.unwrap();

    let stored = read_all(&log, &topic, 0).await;
    let mut found = HashMap::new();
    for stored in &stored {
        let earlier = found.insert(stored.record.key.clone(), stored.offset);
        assert!(earlier.is_none(), "{:?} is there twice", stored.record.key);
    }
    assert!(!acknowledged.is_empty());
    for (key, offset) in &acknowledged {
        assert_eq!(found.get(key.as_bytes()), Some(offset), "{key}");
    }
    if doubts == 0 {
        assert_eq!(stored.len(), acknowledged.len() + 1, "nothing else is there");
    }
    let followed = timeout(PATIENCE, following).await.expect("the reader gets to the end").unwrap();
    assert!(followed.iter().eq(stored.iter().map(|stored| &stored.record.key)));
}

/// Keys and offsets of what was acknowledged, and the number of rounds of which nobody can tell.
async fn append_until(
    log: KafkaLog,
    topic: String,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> (Vec<(String, u64)>, u32) {
    let (mut acknowledged, mut doubts) = (Vec::new(), 0);
    let mut writer = log.writer(&topic, 0).await.unwrap();
    for round in 0.. {
        if stopped.try_recv().is_ok() {
            break;
        }
        let keys: Vec<String> = (0..64).map(|number| format!("{round}-{number}")).collect();
        match writer.append(keys.iter().map(record).collect()).await {
            Ok(offsets) => {
                assert!(offsets.windows(2).all(|pair| pair[1] == pair[0] + 1), "one writer, so no gap: {offsets:?}");
                acknowledged.extend(keys.into_iter().zip(offsets));
            }
            Err(AppendError::Unknown(cause)) => {
                println!("round {round} is in doubt: {cause:?}");
                doubts += 1;
                writer = log.writer(&topic, 0).await.expect("the broker comes back");
            }
            Err(refused) => panic!("{refused:?}"),
        }
    }
    (acknowledged, doubts)
}

/// Another producer's record in between shows as a gap in the very next offsets.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn another_producers_record_shows_as_a_gap() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    let mut other = log.writer(&topic, 0).await.unwrap();
    assert_eq!(writer.append(vec![record("a"), record("b")]).await.unwrap(), [0, 1]);
    assert_eq!(other.append(vec![record("foreign")]).await.unwrap(), [2]);
    assert_eq!(writer.append(vec![record("c"), record("d")]).await.unwrap(), [3, 4]);
}

/// A foreign transaction that stays open hides nothing of ours, and its marker, which has an offset but no record, is
/// passed.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_foreign_open_transaction_hides_nothing_and_its_marker_is_passed() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let topic = prepared(&log).await;
    let mut writer = log.writer(&topic, 0).await.unwrap();
    let mut reader = log.reader(&topic, &[(0, 0)]).await.unwrap();

    let foreign = transaction(kafka).await;
    let foreign = send(foreign, &topic).await;
    assert_eq!(writer.append(vec![record("ours")]).await.unwrap(), [1]);
    assert_eq!(log.bounds(&topic, 0).await.unwrap(), 0..2);
    let stored = read_to(reader.as_mut(), 2).await;
    assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [0, 1]);

    tokio::task::spawn_blocking(move || foreign.abort_transaction(PATIENCE)).await.unwrap().unwrap();
    // The broker answers the abort before it writes the marker.
    eventually("the marker", PATIENCE, async || (log.bounds(&topic, 0).await.unwrap() == (0..3)).then_some(())).await;
    let nothing = read_to(reader.as_mut(), 3).await;
    assert_eq!(nothing, []);
    // Also by a reader that begins at the marker, and where records follow it.
    let mut at_marker = log.reader(&topic, &[(0, 2)]).await.unwrap();
    assert_eq!(read_to(at_marker.as_mut(), 3).await, []);
    assert_eq!(writer.append(vec![record("later")]).await.unwrap(), [3]);
    for reader in [&mut reader, &mut at_marker] {
        let stored = read_to(reader.as_mut(), 4).await;
        assert_eq!(stored.iter().map(|stored| stored.offset).collect::<Vec<_>>(), [3]);
    }
}

async fn transaction(kafka: &Kafka) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", unique_name("foreign"))
        .create()
        .unwrap();
    let begin = move || {
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        producer
    };
    tokio::task::spawn_blocking(begin).await.unwrap()
}

/// Sends one record to partition 0 and waits until it is there.
async fn send(producer: BaseProducer, topic: &str) -> BaseProducer {
    let topic = topic.to_owned();
    let send = move || {
        producer.send(BaseRecord::to(&topic).partition(0).key("foreign").payload("foreign")).map_err(|e| e.0).unwrap();
        producer.flush(PATIENCE).unwrap();
        producer
    };
    tokio::task::spawn_blocking(send).await.unwrap()
}

/// A reader beyond the end is told that the log lost its tail, with topic, partition and offset.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn an_offset_beyond_the_end_is_lost() {
    let log = connect(Kafka::shared().await).await;
    let topic = prepared(&log).await;
    log.writer(&topic, 2).await.unwrap().append(vec![record("one")]).await.unwrap();
    let mut reader = log.reader(&topic, &[(1, 0), (2, 5)]).await.unwrap();
    let error = timeout(PATIENCE, reader.next()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), LogErrorKind::Lost, "{error:?}");
    assert!(error.to_string().contains(&format!("{topic}/2 at offset 5: it has 0 to 1")), "{error}");
    let after = timeout(PATIENCE, reader.next()).await.unwrap().unwrap_err();
    assert_eq!(after.kind(), LogErrorKind::Unavailable);
    // Just at the end is not beyond it.
    let mut reader = log.reader(&topic, &[(2, 1)]).await.unwrap();
    log.writer(&topic, 2).await.unwrap().append(vec![record("two")]).await.unwrap();
    assert_eq!(read_to(reader.as_mut(), 2).await.len(), 1);
}

/// Dropping readers and writers never waits, not even for a broker that hangs with records on the way to it.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn dropping_never_waits() {
    let mut kafka = Kafka::start().await;
    let log = connect(&kafka).await;
    let topic = prepared(&log).await;
    let reader = log.reader(&topic, &[(0, 0)]).await.unwrap();
    let mut writer = log.writer(&topic, 0).await.unwrap();
    writer.append(vec![record("warm")]).await.unwrap();
    kafka.pause().await;
    let hanging = writer.append((0..10_000).map(|number| record(number.to_string())).collect());
    timeout(Duration::from_millis(200), hanging).await.unwrap_err();
    let started = Instant::now();
    drop(writer);
    drop(reader);
    drop(log);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(5), "the broker answers nothing, and it was waited for: {took:?}");
    kafka.resume().await;
}

/// A record of somebody else, whatever it looks like, is read as far as it can be and stops nothing.
#[tokio::test]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_foreign_record_of_any_shape_is_read() {
    let kafka = Kafka::shared().await;
    let log = connect(kafka).await;
    let topic = prepared(&log).await;
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).create().expect("a producer can be made");
    let headers = OwnedHeaders::new()
        .insert(Header { key: "null", value: None::<&str> })
        .insert(Header { key: "", value: Some("") });
    add_header(&headers, c"\xff\xfe", b"odd");
    let odd = BaseRecord::<[u8], ()>::to(&topic).partition(0).key(b"\xff").headers(headers);
    producer.send(odd).map_err(|e| e.0).unwrap();
    tokio::task::spawn_blocking(move || producer.flush(PATIENCE).unwrap()).await.unwrap();

    let ours = record("ours");
    log.writer(&topic, 0).await.unwrap().append(vec![ours.clone()]).await.unwrap();
    let stored = read_all(&log, &topic, 0).await;
    assert_eq!(stored[1].record, ours);
    let foreign = &stored[0].record;
    assert_eq!((foreign.key.as_ref(), &foreign.value), (&b"\xff"[..], &None));
    let headers: Vec<(&str, &[u8])> = foreign.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    assert_eq!(headers, [("null", &b""[..]), ("", b""), ("\u{fffd}\u{fffd}", b"odd")]);
}

/// Adds a header whose name need not be UTF-8, as other clients may.
#[allow(unsafe_code)]
fn add_header(headers: &OwnedHeaders, name: &CStr, value: &[u8]) {
    let native = std::ptr::from_ref(headers.as_borrowed()).cast_mut().cast();
    let name_bytes = isize::try_from(name.count_bytes()).unwrap();
    let value_bytes = isize::try_from(value.len()).unwrap();
    // SAFETY: borrowed headers are librdkafka's own behind a reference; it copies name and value.
    let added = unsafe { rd_kafka_header_add(native, name.as_ptr(), name_bytes, value.as_ptr().cast(), value_bytes) };
    assert_eq!(added, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
}

/// Shows: a right that is taken away and given back stops no partition. Its owner says what is missing, tries again, and
/// serves without a restart; what could not be appended meanwhile takes effect once.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs Kafka: run scripts/test"]
async fn a_right_that_is_given_back_is_used_without_a_restart() {
    let kafka = Kafka::start_with(&[
        ("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer"),
        ("allow.everyone.if.no.acl.found", "true"),
    ])
    .await;
    let log = connect_with(KafkaConfig::new(kafka.bootstrap()).partitions(1)).await;
    let config = EngineConfig {
        namespace: Some(topic_prefix()),
        send_deadline: Duration::from_secs(2),
        append_deadline: Duration::from_secs(2),
        ..EngineConfig::default()
    };
    let engine = Engine::new(Arc::new(log), config);
    let bus = engine.start::<Account>().await.expect("starts");
    bus.ready().await.expect("serves");
    let deposit = async |id: &str| {
        let sent = bus.send(&"7".to_owned(), AccountCommand::Deposit { amount: 5 }).command_id(id);
        sent.await
    };
    assert_eq!(deposit("before").await.expect("is accepted").version.get(), 1);

    let topic = bus.source().topic.to_string();
    let denied = ["--deny-principal", "User:*", "--operation", "All", "--topic", &topic];
    kafka.acls(&[&["--add"], &denied[..]].concat()).await;
    let state = eventually("the owner to say what is missing", PATIENCE, async || {
        let _ = deposit("meanwhile").await; // told that it is not done, or not known
        let state = bus.status().remove(0).state;
        matches!(&state, OwnerState::TakingOver { reason } if reason.contains("authorization failed")).then_some(state)
    });
    println!("without the right: {:?}", state.await);

    kafka.acls(&[&["--remove", "--force"], &denied[..]].concat()).await;
    let receipt = eventually("the owner to serve again", PATIENCE, async || deposit("meanwhile").await.ok()).await;
    assert_eq!(receipt.version.get(), 2, "once");
    engine.shutdown().await;
}
