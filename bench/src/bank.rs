//! The bank's program, and importing with it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use es_core::log::{Log, LogWriter, Record, TopicKind, TopicSpec};
use es_kafka::{KafkaConfig, KafkaLog};
use es_tests::Proc;
use serde::Deserialize;

use crate::Failure;
use crate::embedded::folder;
use crate::figure::Figure;

/// Records that the raw loop appends at once.
const CHUNK: usize = 256;
const TURNS: usize = 3;

/// The program `bank` beside this one.
pub(crate) fn bank() -> Result<PathBuf, Failure> {
    let program = std::env::current_exe()?;
    let bank = program.with_file_name("bank");
    if bank.is_file() {
        return Ok(bank);
    }
    let beside = program.display();
    Err(format!("the program `bank` is not beside {beside}: run `cargo build --release -p bank` first").into())
}

/// The part of the summary that is needed.
#[derive(Debug, Deserialize)]
struct Summary {
    read: u64,
    accepted: u64,
}

/// From the start of the program to its end, with the read models caught up.
pub(crate) async fn import_embedded(name: &'static str, file: &Path) -> Result<Figure, Failure> {
    let (mut ours, mut floor) = (vec![], vec![]);
    for _ in 0..TURNS {
        let dir = folder()?;
        ours.push(import(file, &["--data".into(), dir.path().join("data").display().to_string()]).await?);
        floor.push(raw_file(file, &dir.path().join("floor"))?);
    }
    Ok(Figure::of_medians(name, "s", ours, floor))
}

/// The same with Kafka and PostgreSQL, which have been at work for a while: the first import is not counted.
pub(crate) async fn import_kafka(
    name: &'static str,
    file: &Path,
    broker: &str,
    databases: Vec<String>,
) -> Result<Figure, Failure> {
    let (mut ours, mut floor) = (vec![], vec![]);
    for database in databases {
        let dir = folder()?;
        let namespace = es_tests::unique_name("bench");
        let data = dir.path().join("data").display().to_string();
        let options = ["--data", &data, "--kafka", broker, "--database", &database, "--namespace", &namespace];
        ours.push(import(file, &options.map(String::from)).await?);
        floor.push(raw_kafka(file, broker, &format!("{namespace}.floor")).await?);
    }
    ours.remove(0);
    floor.remove(0);
    Ok(Figure::of_medians(name, "s", ours, floor))
}

/// A database each, since what was imported already is only recognised.
pub(crate) const IMPORTS: usize = TURNS + 1;

async fn import(file: &Path, options: &[String]) -> Result<f64, Failure> {
    let mut import = Command::new(bank()?);
    import.args(["import", "pkdd99"]).arg(file).arg("--json").args(options);
    let started = Instant::now();
    let mut bank = Proc::spawn(import);
    let status = bank.wait(Duration::from_secs(120)).await;
    let seconds = started.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("`bank import` ended with {status}: {}", bank.stderr()).into());
    }
    let output = bank.stdout();
    let summary: Summary = serde_json::from_str(&output).map_err(|error| format!("{error}: {output:?}"))?;
    if summary.read == 0 || summary.accepted != summary.read {
        return Err(format!("`bank import` did not take every row: {summary:?}").into());
    }
    Ok(seconds)
}

/// Reads the file and appends each line, with a sync for each chunk.
fn raw_file(file: &Path, to: &Path) -> Result<f64, Failure> {
    use std::io::Write;
    let started = Instant::now();
    let text = fs::read(file)?;
    let mut log = fs::File::create(to)?;
    for lines in lines(&text).chunks(CHUNK) {
        log.write_all(&lines.concat())?;
        log.sync_data()?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Reads the file and produces each line, waiting for the reports of each chunk.
async fn raw_kafka(file: &Path, broker: &str, topic: &str) -> Result<f64, Failure> {
    let started = Instant::now();
    let text = fs::read(file)?;
    let log = KafkaLog::connect(KafkaConfig::new(broker).partitions(1)).await?;
    log.prepare(&TopicSpec { name: topic.into(), kind: TopicKind::Events }).await?;
    let mut writer: Box<dyn LogWriter> = log.writer(topic, 0).await?;
    let record = |(number, line): (usize, &[u8])| Record {
        key: number.to_string().into(),
        value: Some(line.to_vec().into()),
        headers: vec![],
        timestamp_ms: 1_000,
    };
    let records: Vec<Record> = lines(&text).iter().copied().enumerate().map(record).collect();
    for chunk in records.chunks(CHUNK) {
        writer.append(chunk.to_vec()).await?;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// The rows, without the line that names the columns.
fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').skip(1).collect()
}
