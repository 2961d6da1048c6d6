//! `bank export`: the trail of a selection as files, and whether they are still what was exported.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use es_tests::Proc;
use serde_json::Value;

use crate::bank::{Bank, output, program};

/// The rows of ten accounts: 260 events.
fn excerpt() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("it/data/pkdd99-excerpt.asc")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// Exit status 1, nothing on standard output, and one line that holds each of `words`.
#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let line = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!((output.status.code(), output.stdout.len(), line.lines().count()), (Some(1), 0, 1), "{output:?}");
    for word in words {
        assert!(line.contains(word), "{word} is not in: {line}");
    }
}

fn summary(json: &[u8]) -> Value {
    serde_json::from_slice(json).expect("one JSON object")
}

/// Exports in both formats and checks both, without the bank's data.
fn is_exported_and_checked(bank: &Bank) {
    bank.import(&excerpt(), &[]);
    let asked = ["--actor", "import", "--type", "deposited", "--from", "1993-06-01"];
    let trail: Value = serde_json::from_str(&bank.ok(&[&["audit", "--json"], &asked[..]].concat())).unwrap();
    let trail: Vec<_> = trail["items"].as_array().unwrap().iter().map(|item| item["event_id"].clone()).collect();
    assert!(trail.len() > 10, "{trail:?}");
    let mut hashes = Vec::new();
    for (csv, file) in [(&[][..], "events.jsonl"), (&["--csv"], "events.csv")] {
        let folder = bank.dir.path().join(file);
        let args = [&["export", "--json", "--into", text(&folder)], csv, &asked].concat();
        let done = bank.run(&args);
        assert_eq!((done.status.code(), done.stderr.len()), (Some(0), 0), "{done:?}");
        let told = summary(&done.stdout);
        let manifest = &told["manifest"];
        assert_eq!((&manifest["events"], &manifest["order"]), (&trail.len().into(), &"occurred_at".into()));
        assert_eq!((&manifest["selection"]["actor"], &manifest["file"]["name"]), (&"import".into(), &file.into()));
        assert_eq!(told["folder"], text(&folder));
        let written: Value = serde_json::from_slice(&fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        assert_eq!(*manifest, written);
        let lines = fs::read_to_string(folder.join(file)).unwrap();
        let lines: Vec<_> = lines.lines().skip(csv.len()).collect();
        assert_eq!(lines.len(), trail.len());
        for (line, event_id) in lines.iter().zip(&trail) {
            assert!(line.contains(event_id.as_str().unwrap()), "{line}");
        }
        let sums = Command::new("sha256sum").args(["-c", "--strict", "SHA256SUMS"]).current_dir(&folder).output();
        assert!(sums.unwrap().status.success());
        let checked = output(program(&["export", "--json", "--check", text(&folder)]));
        assert_eq!((checked.status.code(), summary(&checked.stdout)), (Some(0), told.clone()), "{checked:?}");
        let checked = String::from_utf8(output(program(&["export", "--check", text(&folder)])).stdout).unwrap();
        for word in
            [&format!("{} events", trail.len()), text(&folder.join(file)), told["manifest_sha256"].as_str().unwrap()]
        {
            assert!(checked.contains(word), "{word} is not in {checked}");
        }
        hashes.push(manifest["events_sha256"].clone());
    }
    assert_eq!(hashes[0], hashes[1]);
}

/// Shows: what `bank audit` finds is exported, in its order, in both formats with one hash of events; and checked.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn a_selection_is_exported_and_checked() {
    is_exported_and_checked(&Bank::embedded());
}

/// Shows: the same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn the_same_on_servers() {
    is_exported_and_checked(&Bank::on_servers().await);
}

/// Shows: a changed export, one that is there already, a full disk and what is no export are each told in one line, and nothing is
/// left of an export that failed.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn what_is_wrong_with_an_export_is_told() {
    let bank = Bank::embedded();
    bank.import(&excerpt(), &[]);
    let folder = bank.dir.path().join("export");
    bank.ok(&["export", "--into", text(&folder)]);
    fails(&bank.run(&["export", "--csv", "--into", text(&folder)]), &["an export already", "choose another folder"]);
    let check = |folder: &Path| output(program(&["export", "--check", text(folder)]));
    let events = folder.join("events.jsonl");
    let changed = fs::read_to_string(&events).unwrap().replacen("\"version\":7,", "\"version\":8,", 1);
    let line = changed.lines().position(|line| line.contains("\"version\":8,")).unwrap() + 1;
    fs::write(&events, changed).unwrap();
    fails(&check(&folder), &[&format!("line {line} of {} is not what was exported", events.display())]);
    fails(&check(bank.dir.path()), &["holds no export, or one that was never finished"]);
    fails(&bank.run(&["export", "--into", text(&events)]), &["making the folder", text(&events)]);

    let full = bank.dir.path().join("full");
    fs::create_dir(&full).unwrap();
    symlink("/dev/full", full.join("events.jsonl.unfinished")).unwrap();
    fails(&bank.run(&["export", "--into", text(&full)]), &["writing", text(&full), "No space left on device"]);
    assert_eq!(names(&full), [""; 0]);
}

/// Shows: a process that is killed while it writes leaves nothing that looks like an export, and the next one can use the folder.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_killed_export_is_none() {
    let bank = Bank::embedded();
    bank.import(&excerpt(), &[]);
    let folder = bank.dir.path().join("export");
    fs::create_dir(&folder).unwrap();
    // A pipe that nobody empties holds it up in the midst, with a part written.
    let pipe = folder.join("events.jsonl.unfinished");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut exporting = Proc::spawn(bank.command(&["export", "--into", text(&folder)]));
    let (path, mut part) = (pipe.clone(), [0; 4096]);
    let reading = tokio::task::spawn_blocking(move || {
        let mut pipe = File::open(path).unwrap();
        pipe.read_exact(&mut part).unwrap();
        pipe
    });
    let pipe_end = tokio::time::timeout(Duration::from_secs(60), reading).await.expect("it writes").unwrap();
    assert!(exporting.exited().is_none(), "{}", exporting.stderr());
    exporting.kill9();
    exporting.wait(Duration::from_secs(10)).await;
    drop(pipe_end);
    assert_eq!(names(&folder), ["events.jsonl.unfinished", "lines.sha256.unfinished"]);
    let none = output(program(&["export", "--check", text(&folder)]));
    fails(&none, &["holds no export, or one that was never finished"]);
    fs::remove_file(&pipe).unwrap();
    fs::write(&pipe, "a part of a line").unwrap();
    bank.ok(&["export", "--into", text(&folder)]);
    assert_eq!(names(&folder), ["SHA256SUMS", "events.jsonl", "lines.sha256", "manifest.json"]);
    assert!(output(program(&["export", "--check", text(&folder)])).status.success());
}
