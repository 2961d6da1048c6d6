//! What only a log on disk can do wrong: folders, crashes, torn writes, full disks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::log::{Batch, StoredRecord, TopicKind};
use crate::testing::log_contract;

const TOPIC: &str = "bank.account.events";

fn config() -> EmbeddedConfig {
    EmbeddedConfig { partitions: 3, ..EmbeddedConfig::default() }
}

fn open(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, config()).unwrap()
}

fn open_error(dir: &Path, config: EmbeddedConfig) -> (LogErrorKind, String) {
    let error = EmbeddedLog::open(dir, config).expect_err("the folder does not open");
    (error.kind(), error.to_string().replace(&*dir.to_string_lossy(), "DIR"))
}

async fn prepare(log: &EmbeddedLog) {
    log.prepare(&TopicSpec { name: TOPIC.into(), kind: TopicKind::Events }).await.unwrap();
}

fn record(text: impl Into<Bytes>) -> Record {
    let text = text.into();
    Record { key: text.clone(), value: Some(text), headers: vec![("es".into(), Bytes::from("h"))], timestamp_ms: 1 }
}

async fn next(reader: &mut dyn LogReader) -> Batch {
    tokio::time::timeout(Duration::from_secs(30), reader.next()).await.expect("there is something").unwrap()
}

/// The texts of a partition from an offset on, whose offsets are checked.
async fn read(log: &EmbeddedLog, partition: u32, from: u64) -> Vec<String> {
    let end = log.bounds(TOPIC, partition).await.unwrap().end;
    let mut reader = log.reader(TOPIC, &[(partition, from)]).await.unwrap();
    let mut texts = vec![];
    while from + (texts.len() as u64) < end {
        for StoredRecord { offset, record } in next(&mut *reader).await.records {
            assert_eq!(offset, from + texts.len() as u64);
            texts.push(String::from_utf8_lossy(&record.key).into_owned());
        }
    }
    texts
}

/// Appends rounds of five records to partition 0: `<round>.<place>`.
async fn append_rounds(log: &EmbeddedLog, rounds: Range<u32>) {
    let mut writer = log.writer(TOPIC, 0).await.unwrap();
    for round in rounds {
        let records = (0..5).map(|place| record(format!("{round}.{place}"))).collect();
        writer.append(records).await.unwrap();
    }
}

fn rounds(rounds: Range<u32>) -> Vec<String> {
    rounds.flat_map(|round| (0..5).map(move |place| format!("{round}.{place}"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds() {
    let dir = tempfile::tempdir().unwrap();
    log_contract::run_all(Arc::new(open(dir.path())), "contract").await;
}

/// Also with segments and write buffers so small that every case crosses many of them.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_holds_across_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), EmbeddedConfig { write_buffer_bytes: 2_000, ..config() }).unwrap();
    log_contract::run_all(Arc::new(log), "contract").await;
}

#[tokio::test]
async fn a_log_opened_again_goes_on_where_it_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedConfig { write_buffer_bytes: 2_000, ..config() };
    let mut expected: [Vec<String>; 3] = Default::default();
    for run in 0..4 {
        let log = EmbeddedLog::open(dir.path(), config).unwrap();
        prepare(&log).await;
        for round in 0..60_usize {
            let partition = (round * round) % 3;
            let texts: Vec<String> = (0..=round % 7).map(|place| format!("{run}.{round}.{place}")).collect();
            let mut writer = log.writer(TOPIC, partition as u32).await.unwrap();
            let offsets = writer.append(texts.iter().cloned().map(record).collect()).await.unwrap();
            assert_eq!(offsets[0], expected[partition].len() as u64);
            expected[partition].extend(texts);
        }
        for (partition, expected) in expected.iter().enumerate() {
            for from in (0..=expected.len()).step_by(17) {
                assert_eq!(read(&log, partition as u32, from as u64).await, expected[from..]);
            }
        }
    }
    let log = EmbeddedLog::open(dir.path(), config).unwrap();
    assert!(log.0.store.next_segment().unwrap() > 8, "the test crosses segments");
}

#[tokio::test]
async fn topics_are_apart_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    for run in 0..3_u64 {
        let log = open(dir.path());
        for name in ["bank.account.events", "bank.transfer.events", "a"] {
            let topic = TopicSpec { name: name.into(), kind: TopicKind::Events };
            assert_eq!(log.prepare(&topic).await.unwrap(), 3);
            let mut writer = log.writer(name, 1).await.unwrap();
            assert_eq!(writer.append(vec![record(name)]).await.unwrap(), [run]);
            let mut reader = log.reader(name, &[(1, 0)]).await.unwrap();
            let batch = next(&mut *reader).await;
            assert!(batch.records.iter().all(|stored| stored.record == record(name)));
            assert_eq!(batch.next, run + 1);
        }
    }
    let log = open(dir.path());
    for name in ["", "a/b", "..", "ž"] {
        let error = log.prepare(&TopicSpec { name: name.into(), kind: TopicKind::Events }).await.unwrap_err();
        assert_eq!(error.kind(), LogErrorKind::Settings, "{name}");
    }
}

#[tokio::test]
async fn a_batch_is_bounded_in_records_and_bytes_and_pins_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    prepare(&log).await;
    let mut writer = log.writer(TOPIC, 0).await.unwrap();
    writer.append((0..2_500).map(|n| record(n.to_string())).collect()).await.unwrap();
    writer.append((0..5).map(|_| record(vec![7; 450_000])).collect()).await.unwrap();
    let mut reader = log.reader(TOPIC, &[(0, 0)]).await.unwrap();
    let mut counts = vec![];
    while counts.iter().sum::<usize>() < 2_505 {
        let batch = next(&mut *reader).await;
        counts.push(batch.records.len());
        for Record { key, value, headers, .. } in batch.records.into_iter().map(|stored| stored.record) {
            drop((key, headers));
            assert!(value.unwrap().is_unique(), "the value keeps other memory than its record's");
        }
    }
    // 900,000 bytes a large record: two are more than 1 MiB. The third batch ends the small ones with one of them.
    assert_eq!(counts, [1_000, 1_000, 502, 2, 1]);
}

#[test]
fn a_commit_takes_all_that_is_queued_within_a_bound() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(prepare(&log));
    let (queue, appends) = mpsc::channel();
    let append = |partition: u32, bytes: usize| {
        let topic = log.0.store.topic(TOPIC).unwrap();
        Message::Append(Append { topic, partition, values: vec![vec![0; bytes]], answer: oneshot::channel().0 })
    };
    let taken = || {
        let mut batch = vec![];
        let stopped = committer::next_batch(&appends, &mut batch);
        (batch.len(), stopped)
    };
    (0..50).for_each(|place| queue.send(append(place % 3, 10)).unwrap());
    assert_eq!(taken(), (50, false));
    (0..5).for_each(|_| queue.send(append(0, 3 << 20)).unwrap());
    assert_eq!(taken(), (3, false), "8 MiB are enough");
    queue.send(Message::Stop).unwrap();
    assert_eq!(taken(), (2, true));
}

/// On a runtime with one thread that may block, so that the test says when the disk answers.
#[test]
fn a_reader_that_is_given_up_keeps_what_it_read() {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(1).build().unwrap();
    let block = || {
        let (release, held) = mpsc::channel::<()>();
        drop(runtime.spawn_blocking(move || held.recv()));
        release
    };
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    runtime.block_on(async {
        prepare(&log).await;
        append_rounds(&log, 0..1).await;
        let mut reader = log.reader(TOPIC, &[(0, 0)]).await.unwrap();
        let blocked = block();
        assert!(futures::poll!(reader.next()).is_pending());
        drop(blocked);
        runtime.spawn_blocking(|| ()).await.unwrap(); // the disk has answered
        let _blocked = block();
        let std::task::Poll::Ready(batch) = futures::poll!(reader.next()) else {
            panic!("what was read was thrown away")
        };
        assert_eq!(batch.unwrap().next, 5);
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_made_at_once_are_apart() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let mut tasks = tokio::task::JoinSet::new();
    for place in 0..24 {
        let log = log.clone();
        let topic = TopicSpec { name: format!("topic-{}", place / 2), kind: TopicKind::Events };
        tasks.spawn(async move { log.prepare(&topic).await.unwrap() });
    }
    tasks.join_all().await;
    let numbers = |log: &EmbeddedLog| -> std::collections::BTreeSet<u32> {
        (0..12).map(|place| log.0.store.topic(&format!("topic-{place}")).unwrap().number()).collect()
    };
    assert_eq!(numbers(&log), (0..12).collect());
    drop(log);
    assert_eq!(numbers(&open(dir.path())), (0..12).collect());
}

#[tokio::test]
async fn a_record_that_is_missing_or_unreadable_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    prepare(&log).await;
    append_rounds(&log, 0..2).await;
    let store = &log.0.store;
    store.records().insert(format::record_key(0, 0, 0, 3).as_slice(), b"\x07").unwrap();
    store.records().remove(format::record_key(0, 0, 0, 7).as_slice()).unwrap();
    store.records().remove(format::record_key(0, 0, 0, 9).as_slice()).unwrap();
    let error = async |from| {
        let mut reader = log.reader(TOPIC, &[(0, from)]).await.unwrap();
        let error = reader.next().await.unwrap_err();
        assert_eq!(error.kind(), LogErrorKind::Lost);
        error.to_string().replace(&*dir.path().to_string_lossy(), "DIR")
    };
    let damaged = "the log in DIR is damaged, restore it from a copy: reading bank.account.events/0 at offset";
    assert_eq!(error(0).await, format!("{damaged} 3 failed, it has format 7: upgrade this program"));
    assert_eq!(error(4).await, format!("{damaged} 7 failed, it is missing"));
    assert_eq!(error(8).await, format!("{damaged} 9 failed, it is missing"));
}

// --- Folders.

#[test]
fn a_folder_that_is_not_ours_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&str, &str, &str); 5] = [
        (
            "holiday.jpg",
            "x",
            "the folder DIR is not an embedded log, it holds holiday.jpg: name another one or an empty one",
        ),
        ("format", "something\n", "the folder DIR is not an embedded log: name another one"),
        ("format", "es-embedded-log x\n", "the folder DIR is not an embedded log: name another one"),
        (
            "format",
            "es-embedded-log 2\n",
            "the log in DIR has format 2, this program knows up to 1: use the newer release",
        ),
        ("format", "es-embedded-log 1\n", "the marker DIR/format has no number of partitions: restore it"),
    ];
    for (place, (file, content, message)) in cases.into_iter().enumerate() {
        let dir = dir.path().join(place.to_string());
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(file), content).unwrap();
        assert_eq!(open_error(&dir, config()), (LogErrorKind::Settings, message.into()));
        let left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [file], "nothing was added");
        assert_eq!(fs::read_to_string(dir.join(file)).unwrap(), content);
    }
}

#[test]
fn another_number_of_partitions_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let marker = fs::read_to_string(dir.path().join("format")).unwrap();
    assert_eq!(marker, "es-embedded-log 1\npartitions 3\n", "a stored format");
    let message = "the log in DIR was made with 3 partitions, not 4: set it to 3";
    let error = open_error(dir.path(), EmbeddedConfig { partitions: 4, ..config() });
    assert_eq!(error, (LogErrorKind::Settings, message.into()));
    let (kind, _) = open_error(&dir.path().join("other"), EmbeddedConfig { partitions: 0, ..config() });
    assert_eq!(kind, LogErrorKind::Settings);
    assert!(!dir.path().join("other").exists());
    drop(open(dir.path()));
}

#[test]
fn a_second_opening_is_an_error_that_names_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let pid = std::process::id();
    let message = format!("another process (pid {pid}) has the log in DIR open: stop it, or name another folder");
    assert_eq!(open_error(dir.path(), config()), (LogErrorKind::Unavailable, message));
    drop(log);
    drop(open(dir.path()));
}

#[tokio::test]
async fn a_log_whose_making_was_cut_off_is_made_anew_or_finished() {
    let dir = tempfile::tempdir().unwrap();
    // Killed before the marker: whatever is there is thrown away.
    fs::write(dir.path().join("lock"), "1").unwrap();
    fs::write(dir.path().join("format.new"), "es-emb").unwrap();
    fs::create_dir(dir.path().join("data.new")).unwrap();
    fs::write(dir.path().join("data.new/0.jnl"), "half").unwrap();
    let log = open(dir.path());
    prepare(&log).await;
    append_rounds(&log, 0..2).await;
    drop(log);
    // Killed after the marker: the database is whole.
    fs::rename(dir.path().join("data"), dir.path().join("data.new")).unwrap();
    assert_eq!(read(&open(dir.path()), 0, 0).await, rounds(0..2));
    // No database at all was never a state of ours.
    fs::remove_dir_all(dir.path().join("data")).unwrap();
    let (kind, message) = open_error(dir.path(), config());
    assert_eq!(
        (kind, message.as_str()),
        (LogErrorKind::Lost, "the log in DIR has lost its data folder: restore it from a copy")
    );
}

// --- Closing.

#[tokio::test]
async fn after_closing_nothing_is_appended_and_nobody_waits() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    prepare(&log).await;
    append_rounds(&log, 0..1).await;
    let mut writer = log.writer(TOPIC, 0).await.unwrap();
    let mut reader = log.reader(TOPIC, &[(0, 5)]).await.unwrap();
    let waiting = tokio::spawn(async move { (reader.next().await, reader) });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(log);
    assert!(matches!(writer.append(vec![record("late")]).await, Err(AppendError::Refused(_))));
    let (read_result, reader) = waiting.await.unwrap();
    assert_eq!(read_result.unwrap_err().kind(), LogErrorKind::Unavailable);
    drop((reader, writer));
    assert_eq!(read(&open(dir.path()), 0, 0).await, rounds(0..1));
}

// --- Crashes. The folder is copied while the log is open: that is what a killed process leaves.

/// A folder as a crash leaves it after these rounds, and the length of its journal before the last one.
async fn crashed(count: u32) -> (tempfile::TempDir, u64) {
    let (live, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let log = open(live.path());
    prepare(&log).await;
    append_rounds(&log, 0..count - 1).await;
    let before = fs::metadata(journal_of(live.path())).unwrap().len();
    append_rounds(&log, count - 1..count).await;
    copy_folder(live.path(), copy.path());
    (copy, before)
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The newest journal.
fn journal_of(dir: &Path) -> PathBuf {
    let journals = fs::read_dir(dir.join("data")).unwrap().map(|entry| entry.unwrap().path());
    journals.filter(|path| path.extension().is_some_and(|extension| extension == "jnl")).max().unwrap()
}

/// Opens a torn copy: all but the last round must be there, the last one whole or not at all, and it must go on.
async fn assert_recovers(dir: &Path, count: u32, what: &str) {
    let log = EmbeddedLog::open(dir, config()).unwrap_or_else(|error| panic!("{what}: {error} {error:?}"));
    let found = read(&log, 0, 0).await;
    assert!(found == rounds(0..count) || found == rounds(0..count - 1), "{what}: {found:?}");
    let kept = found.len() as u32 / 5;
    append_rounds(&log, kept..kept + 1).await;
    drop(log);
    assert_eq!(read(&open(dir), 0, 0).await, rounds(0..kept + 1), "{what}, opened again");
}

#[tokio::test]
async fn a_torn_end_of_the_journal_is_cut_off() {
    let (crash, before) = crashed(4).await;
    let journal = fs::read(journal_of(crash.path())).unwrap();
    let before = before as usize;
    let mut random = fastrand::Rng::with_seed(7);
    for case in 0..40 {
        let mut torn = journal.clone();
        let at = random.usize(before..torn.len());
        let what = match case % 5 {
            0 => {
                torn.truncate(at);
                format!("cut at {at}")
            }
            1 => {
                torn[at] ^= 1 << random.u8(..8);
                format!("a bit of byte {at} flipped")
            }
            2 => {
                let end = random.usize(at..torn.len()) + 1;
                torn[at..end].fill(0);
                format!("{at} to {end} not written")
            }
            3 => {
                torn[at..].iter_mut().for_each(|byte| *byte = random.u8(..));
                format!("rubbish from {at}")
            }
            _ => {
                torn.truncate(at);
                torn.resize(64 << 20, 0);
                format!("cut at {at}, with room for more")
            }
        };
        let copy = tempfile::tempdir().unwrap();
        copy_folder(crash.path(), copy.path());
        fs::write(journal_of(copy.path()), torn).unwrap();
        assert_recovers(copy.path(), 4, &what).await;
    }
}

#[tokio::test]
async fn damage_before_the_last_batch_is_an_error_and_nothing_is_cut_off() {
    let (crash, before) = crashed(4).await;
    let journal = fs::read(journal_of(crash.path())).unwrap();
    for at in [0, 40, before as usize / 2, before as usize - 30] {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(crash.path(), copy.path());
        let mut damaged = journal.clone();
        damaged[at] ^= 0xff;
        fs::write(journal_of(copy.path()), &damaged).unwrap();
        let (kind, message) = open_error(copy.path(), config());
        assert_eq!(kind, LogErrorKind::Lost, "byte {at}: {message}");
        assert!(message.contains("is damaged at byte"), "{message}");
        assert!(fs::read(journal_of(copy.path())).unwrap() == damaged);
    }
}

#[tokio::test]
async fn what_is_behind_a_hole_in_the_journal_is_looked_through_too() {
    let (crash, before) = crashed(4).await;
    let path = journal_of(crash.path());
    let journal = fs::read(&path).unwrap();
    let (older, last) = journal.split_at(before as usize);
    let write = |older: &[u8], last: &[u8]| {
        fs::write(&path, older).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(last, 8 << 20).unwrap();
        file.set_len(64 << 20).unwrap();
    };
    let mut damaged = older.to_vec();
    damaged[before as usize - 30] ^= 0xff;
    write(&damaged, last);
    assert_eq!(open_error(crash.path(), config()).0, LogErrorKind::Lost);
    write(older, &last[..last.len() - 2]);
    assert_recovers(crash.path(), 4, "the last batch is behind a hole").await;
}

#[tokio::test]
async fn damage_in_an_older_journal_is_an_error() {
    let (crash, before) = crashed(3).await;
    let data = crash.path().join("data");
    let journal = fs::read(journal_of(crash.path())).unwrap();
    let (older, newer) = journal.split_at(before as usize);
    fs::write(data.join("0.jnl"), [older, b"torn"].concat()).unwrap();
    fs::write(data.join("1.jnl"), newer).unwrap();
    assert_eq!(open_error(crash.path(), config()).0, LogErrorKind::Lost);
    fs::write(data.join("0.jnl"), [older, &[0; 5_000]].concat()).unwrap();
    assert_eq!(read(&open(crash.path()), 0, 0).await, rounds(0..3));
}

// --- Other processes. They are this test program again, running one of the ignored tests below.

fn child(test: &str, dir: &Path, shell: &str) -> Child {
    Command::new("sh")
        .args(["-c", &format!("{shell} exec \"$0\" --exact log::embedded::tests::{test} --ignored --nocapture")])
        .arg(std::env::current_exe().unwrap())
        .env("ES_TEST_DIR", dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn lines(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok)
}

/// Appends round after round and says so, from where the log ends.
#[tokio::test]
#[ignore = "a process that other tests start"]
async fn appending_process() {
    let Ok(dir) = std::env::var("ES_TEST_DIR") else { return };
    let log = open(Path::new(&dir));
    prepare(&log).await;
    let first = log.bounds(TOPIC, 0).await.unwrap().end as u32 / 5;
    for round in first.. {
        append_rounds(&log, round..round + 1).await;
        println!("\nacknowledged {round}");
    }
}

#[tokio::test]
async fn what_a_killed_process_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let mut process = child("appending_process", dir.path(), "");
        let mut acknowledged = 0;
        for line in
            lines(&mut process).filter_map(|line| line.strip_prefix("acknowledged ")?.parse::<u32>().ok()).take(150)
        {
            if acknowledged == 0 {
                let (kind, message) = open_error(dir.path(), config());
                assert_eq!(kind, LogErrorKind::Unavailable);
                assert!(message.contains(&format!("(pid {})", process.id())), "{message}");
            }
            acknowledged = line + 1;
        }
        process.kill().unwrap(); // SIGKILL
        process.wait().unwrap();
        assert!(acknowledged > 0);
        let log = open(dir.path());
        let found = read(&log, 0, 0).await;
        assert_eq!(found, rounds(0..found.len() as u32 / 5), "whole rounds");
        assert!(found.len() as u32 / 5 >= acknowledged, "{} of {acknowledged} rounds", found.len() / 5);
    }
}

/// Appends under a limit of file size until the disk refuses, and says what came of each append.
#[tokio::test]
#[ignore = "a process that another test starts"]
async fn process_on_a_full_disk() {
    let Ok(dir) = std::env::var("ES_TEST_DIR") else { return };
    let log = open(Path::new(&dir));
    for round in 0.. {
        let mut writer = log.writer(TOPIC, round % 3).await.unwrap();
        let end = async |log: &EmbeddedLog| log.bounds(TOPIC, round % 3).await.unwrap().end;
        let before = end(&log).await;
        match writer.append(vec![record(vec![b'x'; 20_000])]).await {
            Ok(offsets) => println!("\nacknowledged {} {}", round % 3, offsets[0]),
            Err(error) => {
                assert_eq!(end(&log).await, before, "readers see nothing of it");
                let (AppendError::Unknown(cause) | AppendError::Refused(cause)) = &error;
                println!("\nfailed {} {:?} {cause}", matches!(error, AppendError::Refused(_)), cause.kind());
                if round > 80 {
                    return;
                }
            }
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn after_a_failed_write_nothing_is_acknowledged_until_the_log_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    prepare(&log).await;
    drop(log);
    // Writes beyond 1 MB fail, as on a full disk, instead of killing the process. The unit is 512 bytes.
    let mut process = child("process_on_a_full_disk", dir.path(), "trap '' XFSZ; ulimit -f 2000;");
    let (mut acknowledged, mut failures) = ([0_u64; 3], vec![]);
    for line in lines(&mut process) {
        if let Some(line) = line.strip_prefix("acknowledged ") {
            assert!(failures.is_empty(), "{line} was acknowledged after a failure");
            let (partition, offset) = line.split_once(' ').unwrap();
            acknowledged[partition.parse::<usize>().unwrap()] = offset.parse::<u64>().unwrap() + 1;
        } else if let Some(line) = line.strip_prefix("failed ") {
            failures.push(line.to_owned());
        }
    }
    assert!(process.wait().unwrap().success());
    assert!(failures.len() > 10, "{failures:?}");
    let remedy = "takes nothing more: free or replace the disk, then start again";
    assert!(failures[0].starts_with("false Unavailable") && failures[0].ends_with(remedy), "{}", failures[0]);
    for failure in &failures[1..] {
        assert!(failure.starts_with("true Unavailable") && failure.ends_with(remedy), "{failure}");
    }

    let log = open(dir.path());
    let mut found = 0;
    for (partition, acknowledged) in (0..).zip(acknowledged) {
        assert!(acknowledged > 5);
        assert!(read(&log, partition, 0).await.len() as u64 >= acknowledged);
        found += log.bounds(TOPIC, partition).await.unwrap().end - acknowledged;
    }
    assert!(found <= 1, "only the append whose outcome was unknown may be there too");
    append_rounds(&log, 0..1).await;
}

/// Catches a program's syncs on their way to the C library: they fail as soon as a file is there that the environment names.
#[cfg(target_os = "linux")]
const FAILING_SYNCS: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int synced(long call, int file) {
    const char *failing = getenv("ES_FAILING_SYNCS");
    if (failing && access(failing, F_OK) == 0) {
        errno = EIO;
        return -1;
    }
    return syscall(call, file);
}

int fdatasync(int file) { return synced(SYS_fdatasync, file); }
int fsync(int file) { return synced(SYS_fsync, file); }
"#;

/// Appends on a disk whose syncs fail from the fourth append on, and says what came of each.
#[tokio::test]
#[ignore = "a process that another test starts"]
async fn process_whose_syncs_fail() {
    let (Ok(dir), Ok(failing)) = (std::env::var("ES_TEST_DIR"), std::env::var("ES_FAILING_SYNCS")) else { return };
    let log = open(Path::new(&dir));
    prepare(&log).await;
    for round in 0..6 {
        if round == 3 {
            std::fs::write(&failing, "").unwrap();
        }
        let mut writer = log.writer(TOPIC, 0).await.unwrap();
        match writer.append(vec![record(format!("{round}"))]).await {
            Ok(_) => println!("\nacknowledged {round}"),
            Err(error) => println!("\nfailed {round} {}", matches!(error, AppendError::Refused(_))),
        }
    }
}

/// What the disk only may have is not acknowledged, though every process can read it until the power fails.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_was_not_synced_is_not_acknowledged() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let at = |name: &str| tools.path().join(name).display().to_string();
    std::fs::write(at("syncs.c"), FAILING_SYNCS).unwrap();
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let made = Command::new(cc).args(["-shared", "-fPIC", "-o", &at("syncs.so"), &at("syncs.c")]).status().unwrap();
    assert!(made.success());
    let shell = format!("export LD_PRELOAD='{}' ES_FAILING_SYNCS='{}';", at("syncs.so"), at("failing"));
    let mut process = child("process_whose_syncs_fail", dir.path(), &shell);
    let told: Vec<String> =
        lines(&mut process).filter(|line| line.starts_with("acknowledged ") || line.starts_with("failed ")).collect();
    assert!(process.wait().unwrap().success());
    let refused = "acknowledged 0, acknowledged 1, acknowledged 2, failed 3 false, failed 4 true, failed 5 true";
    assert_eq!(told.join(", "), refused);
    let log = open(dir.path());
    assert_eq!(read(&log, 0, 0).await[..3], ["0", "1", "2"]);
}
