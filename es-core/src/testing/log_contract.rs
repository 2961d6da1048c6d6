//! What every log must do, as cases that run against any of them.
//!
//! ```
//! # use std::sync::Arc;
//! # use es_core::log::memory::MemoryLog;
//! # use es_core::testing::log_contract;
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! log_contract::run_all(Arc::new(MemoryLog::new(4)), "contract").await;
//! # }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use crate::domain::clock::{Clock, SystemClock};
use crate::log::{
    AppendError, Batch, Log, LogErrorKind, LogReader, LogWriter, Record, StoredRecord, TopicKind, TopicSpec,
};

/// How long a case may take; one that hangs fails by name.
const CASE_TIMEOUT: Duration = Duration::from_secs(60);

/// A case: panics when the log does not do what its name says.
pub type Case = fn(Contract) -> BoxFuture<'static, ()>;

/// The log under test, and a topic that this case has for itself.
#[derive(Debug, Clone)]
pub struct Contract {
    /// The log; its topics have at least two partitions.
    pub log: Arc<dyn Log>,
    /// The name of a topic that does not exist yet.
    pub topic: String,
}

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Every case with its name.
        pub const CASES: &[(&str, Case)] = &[$((stringify!($name), |contract| $name(contract).boxed())),*];
    };
}

cases! {
    a_record_is_read_back_as_it_was_appended,
    rounds_follow_one_another,
    an_append_of_nothing_answers,
    bounds_tell_the_first_offset_and_the_next,
    a_reader_starts_in_the_middle,
    single_records_are_found_by_all_that_ask_at_once,
    a_single_record_past_the_end_is_an_error,
    a_single_record_at_the_end_is_waited_for,
    one_reader_reads_several_partitions,
    readers_do_not_take_from_one_another,
    a_waiting_reader_gets_what_comes_later,
    a_reader_that_is_given_up_loses_nothing,
    two_writers_interleave_and_see_the_true_offsets,
    writers_of_all_partitions_append_at_once,
    a_record_too_large_is_refused_and_harms_no_other,
    reading_past_the_end_is_an_error,
    what_does_not_exist_is_an_error,
    preparing_again_changes_nothing,
    a_large_round_lands_whole,
    dropping_a_writer_does_not_wait,
}

/// Runs every case, each on a topic of its own whose name begins with `prefix`.
///
/// # Panics
/// When cases fail; the message names them.
pub async fn run_all(log: Arc<dyn Log>, prefix: &str) {
    let mut failed = vec![];
    for (name, _) in CASES {
        let result = tokio::spawn(run(log.clone(), prefix.to_owned(), name)).await;
        if let Err(error) = result {
            failed.push(format!("{name}: {}", panic_message(error)));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases failed:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

/// Runs the case with this name, on a topic whose name begins with `prefix`.
///
/// # Panics
/// When it fails, takes longer than a minute, or does not exist.
pub async fn run(log: Arc<dyn Log>, prefix: String, name: &str) {
    let (_, case) = CASES.iter().find(|(known, _)| *known == name).expect("a case of the list");
    let topic = format!("{prefix}.{}.events", name.replace('_', "-"));
    let contract = Contract { log, topic };
    tokio::time::timeout(CASE_TIMEOUT, case(contract)).await.expect("the case ends within a minute");
}

fn panic_message(error: tokio::task::JoinError) -> String {
    let panic = match error.try_into_panic() {
        Ok(panic) => panic,
        Err(error) => return error.to_string(),
    };
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

impl Contract {
    async fn prepare(&self) -> u32 {
        let spec = TopicSpec { name: self.topic.clone(), kind: TopicKind::Events };
        let partitions = self.log.prepare(&spec).await.expect("the topic is made");
        assert!(partitions >= 2, "the contract needs two partitions");
        partitions
    }

    async fn writer(&self, partition: u32) -> Box<dyn LogWriter> {
        self.log.writer(&self.topic, partition).await.expect("the partition opens for writing")
    }

    async fn reader(&self, from: &[(u32, u64)]) -> Box<dyn LogReader> {
        self.log.reader(&self.topic, from).await.expect("the partitions open for reading")
    }

    /// Everything of a partition.
    async fn read(&self, partition: u32) -> Vec<StoredRecord> {
        let bounds = self.log.bounds(&self.topic, partition).await.expect("the partition has bounds");
        let mut reader = self.reader(&[(partition, bounds.start)]).await;
        read_until(&mut *reader, partition, bounds.end).await
    }
}

/// A record with this text as key and value.
fn record(text: &str) -> Record {
    Record {
        key: Bytes::copy_from_slice(text.as_bytes()),
        value: Some(Bytes::copy_from_slice(text.as_bytes())),
        headers: vec![("es".into(), Bytes::from_static(&[1, 0, 255]))],
        timestamp_ms: SystemClock.now_ms(),
    }
}

async fn append(writer: &mut dyn LogWriter, keys: &[&str]) -> Vec<u64> {
    writer.append(keys.iter().map(|key| record(key)).collect()).await.expect("the records are appended")
}

async fn next(reader: &mut dyn LogReader) -> Batch {
    let batch = reader.next().await.expect("the reader reads");
    assert!(batch.records.windows(2).all(|pair| pair[0].offset < pair[1].offset), "out of order");
    assert!(batch.records.last().is_none_or(|last| last.offset < batch.next), "next is not past the last record");
    batch
}

/// Reads the only partition of a reader up to an offset.
async fn read_until(reader: &mut dyn LogReader, partition: u32, end: u64) -> Vec<StoredRecord> {
    let mut records = vec![];
    let mut at = 0;
    while at < end {
        let batch = next(reader).await;
        assert_eq!(batch.partition, partition);
        at = batch.next;
        records.extend(batch.records);
    }
    records
}

fn keys(records: &[StoredRecord]) -> Vec<(u64, String)> {
    let key = |stored: &StoredRecord| String::from_utf8_lossy(&stored.record.key).into_owned();
    records.iter().map(|stored| (stored.offset, key(stored))).collect()
}

async fn a_record_is_read_back_as_it_was_appended(contract: Contract) {
    contract.prepare().await;
    let now = SystemClock.now_ms();
    let plain = record("plain");
    let records = vec![
        Record {
            headers: vec![
                ("es".into(), Bytes::from_static(&[0, 159, 146, 150, 255])),
                ("b".into(), Bytes::from_static(b"1")),
                ("a".into(), Bytes::from_static(b"")),
                ("b".into(), Bytes::from_static(b"2")),
                ("ce_subject".into(), Bytes::from("Ž")),
            ],
            timestamp_ms: now - 86_400_000,
            ..record("headers: in order, twice, binary")
        },
        Record { value: Some(Bytes::from_static(&[0, 255, 10])), ..record("a/1@1.0 é") },
        Record { value: Some(Bytes::new()), ..record("an empty value") },
        Record { value: None, ..record("a tombstone") },
        Record { headers: vec![], ..record("no headers") },
        plain,
    ];
    let mut writer = contract.writer(1).await;
    assert_eq!(writer.append(records.clone()).await.expect("the records are appended"), [0, 1, 2, 3, 4, 5]);
    let read: Vec<Record> = contract.read(1).await.into_iter().map(|stored| stored.record).collect();
    for (read, appended) in read.iter().zip(&records) {
        assert_eq!(read, appended);
    }
    assert_eq!(read.len(), records.len());
}

async fn rounds_follow_one_another(contract: Contract) {
    contract.prepare().await;
    let mut writer = contract.writer(0).await;
    let mut expected = vec![];
    for round in 0..60 {
        let texts: Vec<String> = (0..round % 13 + 1).map(|place| format!("{round}.{place}")).collect();
        let offsets = append(&mut *writer, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let first = expected.len() as u64;
        assert_eq!(offsets, (first..first + texts.len() as u64).collect::<Vec<_>>(), "round {round}");
        expected.extend(offsets.into_iter().zip(texts));
    }
    assert_eq!(keys(&contract.read(0).await), expected);
}

async fn an_append_of_nothing_answers(contract: Contract) {
    contract.prepare().await;
    let mut writer = contract.writer(0).await;
    assert!(append(&mut *writer, &[]).await.is_empty());
    assert_eq!(append(&mut *writer, &["a"]).await, [0]);
}

async fn bounds_tell_the_first_offset_and_the_next(contract: Contract) {
    contract.prepare().await;
    let bounds = async |partition| contract.log.bounds(&contract.topic, partition).await.expect("there are bounds");
    assert_eq!(bounds(0).await, 0..0);
    append(&mut *contract.writer(0).await, &["a", "b", "c"]).await;
    assert_eq!(bounds(0).await, 0..3);
    assert_eq!(bounds(1).await, 0..0);
}

async fn a_reader_starts_in_the_middle(contract: Contract) {
    contract.prepare().await;
    append(&mut *contract.writer(0).await, &["a", "b", "c", "d"]).await;
    let mut reader = contract.reader(&[(0, 2)]).await;
    let records = read_until(&mut *reader, 0, 4).await;
    assert_eq!(keys(&records), [(2, "c".into()), (3, "d".into())]);
}

async fn single_records_are_found_by_all_that_ask_at_once(contract: Contract) {
    contract.prepare().await;
    for partition in [0, 1] {
        let texts: Vec<String> = (0..5).map(|place| format!("{partition}.{place}")).collect();
        append(&mut *contract.writer(partition).await, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    // The same partition again and again, so that one question's answer could be taken for another's.
    let asked = (0..40).map(|number| (number % 2, u64::from(number * 7 % 5)));
    let found = asked.map(async |(partition, offset)| {
        let found = contract.log.first_record(&contract.topic, partition, offset..offset + 1).await;
        let found = found.expect("the log is asked").expect("the record is there");
        assert_eq!(keys(&[found]), [(offset, format!("{partition}.{offset}"))]);
    });
    futures::future::join_all(found).await;
    let first = contract.log.first_record(&contract.topic, 0, 1..5).await.expect("the log is asked");
    assert_eq!(first.map(|first| first.offset), Some(1));
}

async fn a_single_record_past_the_end_is_an_error(contract: Contract) {
    contract.prepare().await;
    append(&mut *contract.writer(0).await, &["a"]).await;
    let error = contract.log.first_record(&contract.topic, 0, 2..3).await.expect_err("there is no such offset");
    assert_eq!(error.kind(), LogErrorKind::Lost, "{error}");
    let after = contract.log.first_record(&contract.topic, 0, 0..1).await.expect("nothing is wrong with the others");
    assert_eq!(keys(&Vec::from_iter(after)), [(0, "a".into())]);
}

async fn a_single_record_at_the_end_is_waited_for(contract: Contract) {
    contract.prepare().await;
    append(&mut *contract.writer(0).await, &["a"]).await;
    let (log, topic) = (contract.log.clone(), contract.topic.clone());
    let waiting = tokio::spawn(async move { log.first_record(&topic, 0, 1..2).await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "there was nothing to find");
    append(&mut *contract.writer(0).await, &["b"]).await;
    let found = waiting.await.expect("it does not panic").expect("the log is asked").expect("the record is there");
    assert_eq!(keys(&[found]), [(1, "b".into())]);
}

async fn one_reader_reads_several_partitions(contract: Contract) {
    let partitions = contract.prepare().await;
    let mut expected = BTreeMap::new();
    for partition in 0..partitions {
        let texts: Vec<String> = (0..=partition).map(|place| format!("{partition}.{place}")).collect();
        append(&mut *contract.writer(partition).await, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let records: Vec<(u64, String)> = (0..).zip(texts).collect();
        expected.insert(partition, records);
    }
    let from: Vec<_> = (0..partitions).map(|partition| (partition, 0)).collect();
    let mut reader = contract.reader(&from).await;
    let mut read: BTreeMap<u32, Vec<(u64, String)>> = BTreeMap::new();
    while read.values().map(Vec::len).sum::<usize>() < expected.values().map(Vec::len).sum() {
        let batch = next(&mut *reader).await;
        read.entry(batch.partition).or_default().extend(keys(&batch.records));
    }
    assert_eq!(read, expected);
}

async fn readers_do_not_take_from_one_another(contract: Contract) {
    contract.prepare().await;
    let mut early = contract.reader(&[(0, 0)]).await;
    append(&mut *contract.writer(0).await, &["a", "b"]).await;
    let mut late = contract.reader(&[(0, 0)]).await;
    let expected = [(0, "a".into()), (1, "b".into())];
    assert_eq!(keys(&read_until(&mut *early, 0, 2).await), expected);
    assert_eq!(keys(&read_until(&mut *late, 0, 2).await), expected);
}

async fn a_waiting_reader_gets_what_comes_later(contract: Contract) {
    contract.prepare().await;
    let mut writer = contract.writer(0).await;
    append(&mut *writer, &["old"]).await;
    let mut reader = contract.reader(&[(0, 1), (1, 0)]).await;
    let waiting = tokio::spawn(async move {
        let batch = next(&mut *reader).await;
        (batch.partition, keys(&batch.records), reader)
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished(), "there was nothing to read");
    append(&mut *writer, &["new"]).await;
    let (partition, read, mut reader) = waiting.await.expect("the reader reads");
    assert_eq!((partition, read), (0, vec![(1, "new".into())]));
    append(&mut *contract.writer(1).await, &["other"]).await;
    let batch = next(&mut *reader).await;
    assert_eq!((batch.partition, keys(&batch.records)), (1, vec![(0, "other".into())]));
}

async fn a_reader_that_is_given_up_loses_nothing(contract: Contract) {
    contract.prepare().await;
    let mut reader = contract.reader(&[(0, 0)]).await;
    let mut writer = contract.writer(0).await;
    let appending = tokio::spawn(async move {
        for round in 0..100 {
            append(&mut *writer, &[&format!("{round}")]).await;
        }
    });
    let mut read = vec![];
    let mut given_up = 0;
    while read.len() < 100 {
        tokio::select! {
            biased;
            batch = next(&mut *reader) => read.extend(keys(&batch.records)),
            // Ready at once or soon: the reader is left at each of its steps.
            () = tokio::time::sleep(Duration::from_micros(given_up % 3 * 400)) => given_up += 1,
        }
    }
    appending.await.expect("the records are appended");
    let expected: Vec<(u64, String)> = (0..100).map(|round| (round, round.to_string())).collect();
    assert_eq!(read, expected);
}

async fn two_writers_interleave_and_see_the_true_offsets(contract: Contract) {
    contract.prepare().await;
    let (mut one, mut other) = (contract.writer(0).await, contract.writer(0).await);
    assert_eq!(append(&mut *one, &["one"]).await, [0]);
    assert_eq!(append(&mut *other, &["other"]).await, [1]);
    assert_eq!(append(&mut *one, &["one again"]).await, [2], "the gap shows the first writer that it is not alone");

    let start = Arc::new(tokio::sync::Barrier::new(2));
    let mut tasks = tokio::task::JoinSet::new();
    for (name, mut writer) in [("x", one), ("y", other)] {
        let start = start.clone();
        tasks.spawn(async move {
            start.wait().await;
            let mut appended = vec![];
            for round in 0..40 {
                let texts = [format!("{name}{round}.0"), format!("{name}{round}.1")];
                let offsets = append(&mut *writer, &[&texts[0], &texts[1]]).await;
                appended.extend(offsets.into_iter().zip(texts));
            }
            assert!(appended.windows(2).all(|pair| pair[0].0 < pair[1].0), "a writer's records are in its order");
            appended
        });
    }
    let mut expected: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    expected.sort();
    assert_eq!(keys(&contract.read(0).await)[3..], expected);
}

async fn writers_of_all_partitions_append_at_once(contract: Contract) {
    let partitions = contract.prepare().await;
    let mut tasks = tokio::task::JoinSet::new();
    for partition in 0..partitions {
        let mut writer = contract.writer(partition).await;
        tasks.spawn(async move {
            for round in 0..30 {
                assert_eq!(append(&mut *writer, &[&format!("{partition}.{round}")]).await, [round]);
            }
        });
    }
    tasks.join_all().await;
    for partition in 0..partitions {
        let expected: Vec<_> = (0..30).map(|round| (round, format!("{partition}.{round}"))).collect();
        assert_eq!(keys(&contract.read(partition).await), expected);
    }
}

async fn a_record_too_large_is_refused_and_harms_no_other(contract: Contract) {
    contract.prepare().await;
    let mut good = contract.writer(0).await;
    append(&mut *good, &["before"]).await;
    let limit = contract.log.record_max_bytes();
    let exact = Record { key: Bytes::from("k"), value: Some(vec![7; limit - 1].into()), headers: vec![], ..record("") };
    let over = Record { value: Some(vec![7; limit].into()), ..exact.clone() };
    assert_eq!((exact.size(), over.size()), (limit, limit + 1));

    let mut bad = contract.writer(0).await;
    let refused = bad.append(vec![record("with it"), over]).await;
    assert!(matches!(refused, Err(AppendError::Refused(_))), "{refused:?}");
    drop(bad);

    assert_eq!(append(&mut *good, &["after"]).await, [1]);
    let mut fresh = contract.writer(0).await;
    assert_eq!(fresh.append(vec![exact.clone()]).await.expect("the largest record fits"), [2]);
    let read = contract.read(0).await;
    assert_eq!(keys(&read[..2]), [(0, "before".into()), (1, "after".into())]);
    assert!(read.len() == 3 && read[2].record == exact, "the largest record is read back");
}

async fn reading_past_the_end_is_an_error(contract: Contract) {
    contract.prepare().await;
    append(&mut *contract.writer(0).await, &["a"]).await;
    contract.reader(&[(0, 1)]).await; // the end itself is where one waits
    let error = match contract.log.reader(&contract.topic, &[(0, 2)]).await {
        Err(error) => error,
        Ok(mut reader) => reader.next().await.expect_err("there is nothing to wait for"),
    };
    assert_eq!(error.kind(), LogErrorKind::Lost, "{error}");
}

async fn what_does_not_exist_is_an_error(contract: Contract) {
    let partitions = contract.prepare().await;
    let missing = format!("{}.missing", contract.topic);
    for (topic, partition) in [(&missing, 0), (&contract.topic, partitions)] {
        let errors = [
            contract.log.writer(topic, partition).await.err(),
            contract.log.reader(topic, &[(partition, 0)]).await.err(),
            contract.log.bounds(topic, partition).await.err(),
        ];
        for error in errors {
            let error = error.expect("nothing opens");
            assert_eq!(error.kind(), LogErrorKind::Settings, "{error}");
            assert!(error.to_string().contains(topic.as_str()), "the error names the topic: {error}");
        }
    }
}

async fn preparing_again_changes_nothing(contract: Contract) {
    let partitions = contract.prepare().await;
    let mut writer = contract.writer(0).await;
    append(&mut *writer, &["a"]).await;
    assert_eq!(contract.prepare().await, partitions);
    assert_eq!(append(&mut *writer, &["b"]).await, [1]);
    assert_eq!(keys(&contract.read(0).await), [(0, "a".into()), (1, "b".into())]);
}

async fn a_large_round_lands_whole(contract: Contract) {
    contract.prepare().await;
    let large = |place: u64| Record { value: Some(vec![place as u8; 1_000].into()), ..record(&place.to_string()) };
    let records: Vec<Record> = (0..2_000).map(large).collect();
    let mut writer = contract.writer(0).await;
    let offsets = writer.append(records.clone()).await.expect("2 MB fit");
    assert_eq!(offsets, (0..2_000).collect::<Vec<_>>());
    let read: Vec<Record> = contract.read(0).await.into_iter().map(|stored| stored.record).collect();
    assert!(read == records, "{} records were read back, not all as appended", read.len());
}

async fn dropping_a_writer_does_not_wait(contract: Contract) {
    contract.prepare().await;
    let mut writer = contract.writer(0).await;
    append(&mut *writer, &["a"]).await;
    let mut under_way = writer.append(vec![record("b")]);
    let _ = futures::poll!(&mut under_way);
    let begin = Instant::now();
    drop(under_way);
    drop(writer);
    assert!(begin.elapsed() < Duration::from_secs(10), "dropping the writer took {:?}", begin.elapsed());

    let mut fresh = contract.writer(0).await;
    append(&mut *fresh, &["c"]).await;
    let read = keys(&contract.read(0).await);
    let texts: BTreeSet<&str> = read.iter().map(|(_, text)| text.as_str()).collect();
    assert!(texts.contains("a") && texts.contains("c"), "{read:?}");
}
