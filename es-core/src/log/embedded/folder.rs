//! The folder: whether it is ours, and whether nobody else has it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;

use super::unavailable;
use crate::log::{LogError, LogErrorKind};

/// The database.
pub(super) const DATA: &str = "data";
/// The database while it is being made.
const NEW_DATA: &str = "data.new";
/// Says what the folder is; written once, after the database was made.
const MARKER: &str = "format";
const NEW_MARKER: &str = "format.new";
/// Locked by the process that has the log open; holds its id.
const LOCK: &str = "lock";

/// The first word of the marker's first line; its version follows.
const MAGIC: &str = "es-embedded-log";
/// The newest format that this program writes and reads.
const FORMAT: u32 = 1;

/// A folder that is ours alone until this is dropped.
pub(super) struct Folder {
    lock: File,
}

impl Drop for Folder {
    /// Closing the file is not enough: a child process that is just being started shares it until it runs its program.
    fn drop(&mut self) {
        let _ = self.lock.unlock(); // closing it follows
    }
}

impl Folder {
    /// Locks the folder; makes it where it is missing or empty, the database with `make`.
    pub(super) fn open(
        dir: &Path,
        partitions: u32,
        make: impl FnOnce(&Path) -> fjall::Result<()>,
    ) -> Result<Self, LogError> {
        check_partitions(partitions)?;
        let failed =
            |error: io::Error| unavailable(format!("opening the log in {} failed", dir.display())).with_source(error);
        verify(dir, partitions)?; // before anything in it is touched
        fs::create_dir_all(dir).map_err(failed)?;
        let folder = Self { lock: lock(dir)? };
        if !verify(dir, partitions)? {
            create(dir, partitions, make)?;
        }
        if !dir.join(DATA).try_exists().map_err(failed)? {
            if !dir.join(NEW_DATA).try_exists().map_err(failed)? {
                let message = format!("the log in {} has lost its data folder: restore it from a copy", dir.display());
                return Err(LogError::new(LogErrorKind::Lost, message));
            }
            finish(dir).map_err(failed)?;
        }
        Ok(folder)
    }
}

fn check_partitions(partitions: u32) -> Result<(), LogError> {
    if (1..=10_000).contains(&partitions) {
        return Ok(());
    }
    let message = format!("a log can't have {partitions} partitions: give it 1 to 10000");
    Err(LogError::new(LogErrorKind::Settings, message))
}

/// Whether the folder is a log already; an error when it is something else, or a log that this program can't take.
fn verify(dir: &Path, partitions: u32) -> Result<bool, LogError> {
    let shown = dir.display();
    let settings = |message: String| Err(LogError::new(LogErrorKind::Settings, message));
    let marker = match fs::read(dir.join(MARKER)) {
        Ok(marker) => String::from_utf8_lossy(&marker).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return verify_empty(dir).map(|()| false),
        Err(error) => return Err(unavailable(format!("reading the folder {shown} failed")).with_source(error)),
    };
    let Some((format, stored_partitions)) = parse(&marker) else {
        return settings(format!("the folder {shown} is not an embedded log: name another one"));
    };
    match (format, stored_partitions) {
        (format, _) if format > FORMAT => settings(format!(
            "the log in {shown} has format {format}, this program knows up to {FORMAT}: use the newer release"
        )),
        (_, Some(stored)) if stored != partitions => settings(format!(
            "the log in {shown} was made with {stored} partitions, not {partitions}: set it to {stored}"
        )),
        (_, None) => settings(format!("the marker {shown}/{MARKER} has no number of partitions: restore it")),
        _ => Ok(true),
    }
}

/// Format and number of partitions.
fn parse(marker: &str) -> Option<(u32, Option<u32>)> {
    let mut lines = marker.lines();
    let format = lines.next()?.strip_prefix(MAGIC)?.strip_prefix(' ')?.parse().ok()?;
    let partitions = lines.find_map(|line| line.strip_prefix("partitions ")?.parse().ok());
    Some((format, partitions))
}

/// What a process leaves that was killed while it made the log may be there.
fn verify_empty(dir: &Path) -> Result<(), LogError> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            let message = format!("reading the folder {} failed", dir.display());
            return Err(unavailable(message).with_source(error));
        }
    };
    for entry in entries {
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        if ![LOCK, NEW_DATA, NEW_MARKER].iter().any(|ours| name == *ours) {
            let message = format!(
                "the folder {} is not an embedded log, it holds {}: name another one or an empty one",
                dir.display(),
                name.display()
            );
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, LogError> {
    let path = dir.join(LOCK);
    let failed = |error| unavailable(format!("locking {} failed", path.display())).with_source(error);
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder); // only to name it
            let holder = match holder.trim() {
                "" => String::new(),
                pid => format!(" (pid {pid})"),
            };
            let remedy = "stop it, or name another folder";
            Err(unavailable(format!("another process{holder} has the log in {} open: {remedy}", dir.display())))
        }
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Makes the database aside and the marker after it, so that a marker always means a whole database.
fn create(dir: &Path, partitions: u32, make: impl FnOnce(&Path) -> fjall::Result<()>) -> Result<(), LogError> {
    let failed = |error: io::Error| unavailable(format!("making a log in {} failed", dir.display())).with_source(error);
    let data = dir.join(NEW_DATA);
    if data.try_exists().map_err(failed)? {
        fs::remove_dir_all(&data).map_err(failed)?;
    }
    make(&data).map_err(|error| unavailable(format!("making a log in {} failed", dir.display())).with_source(error))?;
    sync_folder(&data.join("keyspaces")).and_then(|()| sync_folder(&data)).map_err(failed)?;
    write_marker(dir, partitions).map_err(failed)
}

fn write_marker(dir: &Path, partitions: u32) -> io::Result<()> {
    let mut marker = File::create(dir.join(NEW_MARKER))?;
    write!(marker, "{MAGIC} {FORMAT}\npartitions {partitions}\n")?;
    marker.sync_all()?;
    fs::rename(dir.join(NEW_MARKER), dir.join(MARKER))?;
    sync_folder(dir)
}

/// Puts the new database in place.
fn finish(dir: &Path) -> io::Result<()> {
    fs::rename(dir.join(NEW_DATA), dir.join(DATA))?;
    sync_folder(dir)
}

#[cfg(unix)]
fn sync_folder(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> io::Result<()> {
    Ok(()) // only unix can sync a folder
}
