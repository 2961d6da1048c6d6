//! The local state is damaged: files are cut, overwritten, gone. It is noticed, built anew, and nobody is told wrong.

use std::path::{Path, PathBuf};

use super::*;
use crate::engine::store::{StateFolder, Table, Write, key};

const ACCOUNTS: u64 = 40;

fn on_disk(world: &World, dir: &Path) -> EngineConfig {
    EngineConfig {
        state_dir: Some(dir.to_owned()),
        unwritten_max: 16,
        snapshot_every: 64,
        cached_max: 4,
        ..world.config.clone()
    }
}

/// A process that sent many commands, and its folder.
async fn filled(world: &World, dir: &Path) -> Process {
    let process = world.process_with(on_disk(world, dir)).await;
    for n in 0..400 {
        process.send(&format!("c{}", n % ACCOUNTS), &format!("{n}"), add(1)).await.unwrap();
    }
    process
}

/// Every state and every answer, whatever it takes the owner to find out.
async fn check(process: &Process, more: u64, round: &str) {
    for n in 0..400 {
        let answer = process.send_until_done(&format!("c{}", n % ACCOUNTS), &format!("{n}"), add(1)).await.unwrap();
        assert!(answer.duplicate, "command {n}, {round}");
    }
    for id in 0..ACCOUNTS {
        let answer = process.send_until_done(&format!("c{id}"), &format!("sum {round}"), Do::Take { n: 10_000 }).await;
        let expected = 10 + more;
        assert!(
            matches!(answer, Err(SendError::Refused(No::TooFew { sum })) if sum == expected),
            "c{id}, {round}: {answer:?}"
        );
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found.sort();
    found
}

/// Does some harm to some file of the store, and tells what.
fn harm(dir: &Path, random: &mut fastrand::Rng) -> String {
    let data: Vec<PathBuf> = files(dir).into_iter().filter(|file| file.to_string_lossy().contains("data-")).collect();
    let Some(file) = random.choice(&data) else { return "nothing".into() };
    let Ok(mut bytes) = std::fs::read(file) else { return "nothing".into() };
    let what = match random.u8(0..4) {
        0 => {
            std::fs::remove_file(file).unwrap();
            "removed".to_owned()
        }
        1 => {
            let length = random.usize(0..=bytes.len());
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length as u64).unwrap();
            format!("cut to {length} of {}", bytes.len())
        }
        _ if bytes.is_empty() => "is empty".to_owned(),
        flips => {
            // In place, as a disk does it. But not in the lengths of fjall's tables of contents, for which it reserves
            // memory before it looks at the checksum: that would end the process.
            let is_length = |at: usize| (4..8).any(|back| at >= back && bytes[at - back..].starts_with(b"TOC!"));
            let places: Vec<usize> = (0..flips * 4).map(|_| random.usize(..bytes.len())).collect();
            for at in places.into_iter().filter(|at| !is_length(*at)).collect::<Vec<_>>() {
                bytes[at] ^= 1 << random.u8(0..8);
            }
            use std::os::unix::fs::FileExt;
            std::fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(&bytes, 0).unwrap();
            format!("{} bits flipped", flips * 4)
        }
    };
    format!("{}: {what}", file.display())
}

fn runs() -> u64 {
    std::env::var("DAMAGE_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(6)
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_before_a_start_is_noticed_and_made_good() {
    for seed in 0..runs() {
        let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
        let process = filled(&world, dir.path()).await;
        process.engine.shutdown().await;
        drop(process);
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..3 {
            let what = harm(dir.path(), &mut random);
            let process = world.process_with(on_disk(&world, dir.path())).await;
            check(&process, 0, &format!("seed {seed}, round {round}, {what}")).await;
            process.engine.shutdown().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_under_a_running_load_is_noticed_and_made_good() {
    for seed in 0..runs() {
        let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
        let process = filled(&world, dir.path()).await;
        let mut random = fastrand::Rng::with_seed(seed);
        for round in 0..4 {
            let what = harm(dir.path(), &mut random);
            for n in 0..ACCOUNTS {
                process.send_until_done(&format!("c{n}"), &format!("{round}-{n}"), add(1)).await.unwrap();
            }
            check(&process, round + 1, &format!("seed {seed}, round {round}, {what}")).await;
        }
        process.engine.shutdown().await;
        drop(process);
        let process = world.process_with(on_disk(&world, dir.path())).await;
        check(&process, 4, &format!("seed {seed}, at the end")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn entries_that_cannot_be_decoded_are_built_anew() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = filled(&world, dir.path()).await;
    process.engine.shutdown().await;
    drop(process);
    let rubbish = || bytes::Bytes::from_static(b"rubbish");
    for (round, table) in [Table::States, Table::Checkpoints].into_iter().enumerate() {
        let folder = StateFolder::on_disk(&dir.path().join(TOPIC)).unwrap();
        let store = folder.store().unwrap();
        let entries = store.page(table, &[], &[], 1_000).unwrap().into_iter().map(|(key, _)| key);
        for key in entries.filter(|key| *key != key::mark(0)) {
            store.write(vec![Write { table, key, value: rubbish() }]).unwrap();
        }
        drop((store, folder));
        let process = world.process_with(on_disk(&world, dir.path())).await;
        check(&process, 0, &format!("round {round}")).await;
        process.engine.shutdown().await;
    }
}

/// The ids of a stretch of time are gone with their table, everything else is there.
#[tokio::test(start_paused = true)]
async fn a_table_that_lost_what_was_written_last_is_noticed() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = filled(&world, dir.path()).await;
    process.engine.shutdown().await;
    drop(process);
    let folder = StateFolder::on_disk(&dir.path().join(TOPIC)).unwrap();
    let store = folder.store().unwrap();
    store.forget_ids(&|| Ok(store.id_tables())).unwrap();
    drop((store, folder));
    let process = world.process_with(on_disk(&world, dir.path())).await;
    check(&process, 0, "without ids").await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_the_last_process_could_not_open_is_given_up() {
    let (world, dir) = (World::new(), tempfile::tempdir().unwrap());
    let process = filled(&world, dir.path()).await;
    process.engine.shutdown().await;
    drop(process);
    let folder = dir.path().join(TOPIC);
    std::fs::write(folder.join("opening"), []).unwrap();
    let process = world.process_with(on_disk(&world, dir.path())).await;
    assert!(!folder.join("data-0").exists() && !folder.join("opening").exists());
    check(&process, 0, "after an end while opening").await;
}
