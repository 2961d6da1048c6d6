//! The data folder: checked before anything in it is touched, and locked for one process.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// The version of what the folder holds.
const FORMAT: &str = "bank data 1\n";
const FORMAT_FILE: &str = "format";
const NEW_FORMAT_FILE: &str = "format.new";
const LOCK_FILE: &str = "lock";
/// What a folder may hold before its format is written.
const MARKERS: [&str; 3] = [FORMAT_FILE, NEW_FORMAT_FILE, LOCK_FILE];
/// What it may hold beside an empty marker.
const DATA: [&str; 5] = ["log", "state", "bank.db", "bank.db-wal", "bank.db-shm"];

/// A data folder that is this process's own until it is dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    _lock: File,
}

impl Folder {
    /// Takes the folder, and makes it where it is missing or empty.
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        let failed = |error: io::Error| {
            Failure::because(format!("opening the data folder {shown} failed (choose another with --data)"), &error)
        };
        fs::create_dir_all(path).map_err(failed)?;
        check(path)?;
        let lock = File::create(path.join(LOCK_FILE)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let what = format!("the data folder {shown} is in use by another process");
                return Err(Failure::new(format!(
                    "{what}: stop that one, or give this one another folder with --data"
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if !is_marked(path) {
            mark(path).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// The folder's whole path, whatever it was called when it was opened.
    pub(crate) fn shown(&self) -> String {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone()).display().to_string()
    }

    /// A path in the folder.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

fn is_marked(path: &Path) -> bool {
    fs::read(path.join(FORMAT_FILE)).is_ok_and(|format| !format.is_empty())
}

/// Synced and then renamed into place, and the folder synced too: a process that is killed here leaves no half-written
/// marker, and a machine that loses power none that is empty.
fn mark(path: &Path) -> io::Result<()> {
    let mut marker = File::create(path.join(NEW_FORMAT_FILE))?;
    marker.write_all(FORMAT.as_bytes())?;
    marker.sync_all()?;
    fs::rename(path.join(NEW_FORMAT_FILE), path.join(FORMAT_FILE))?;
    File::open(path)?.sync_all()
}

/// Refuses a folder that holds anything else, or what a newer release made.
fn check(path: &Path) -> Result<(), Failure> {
    let shown = path.display();
    match fs::read_to_string(path.join(FORMAT_FILE)) {
        Ok(format) if format == FORMAT => return Ok(()),
        // A machine lost power before an unsynced marker was written. It is written again if all else here is ours.
        Ok(format) if format.is_empty() => {}
        Ok(format) if format.starts_with("bank data ") => {
            let what = format!("the data folder {shown} is of another release, its format is {:?}", format.trim());
            return Err(Failure::new(format!("{what}, not {:?}: run that release", FORMAT.trim())));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => return Err(foreign(path, FORMAT_FILE)),
    }
    let marked = path.join(FORMAT_FILE).exists();
    let entries =
        fs::read_dir(path).map_err(|error| Failure::because(format!("reading the folder {shown}"), &error))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let data: &[&str] = if marked { &DATA } else { &[] };
        if !MARKERS.iter().chain(data).any(|ours| name == *ours) {
            return Err(foreign(path, &name.to_string_lossy()));
        }
    }
    Ok(())
}

fn foreign(path: &Path, name: &str) -> Failure {
    let what = format!("{} is not a data folder of the bank: it holds {name:?}", path.display());
    Failure::new(format!("{what}; nothing was touched, choose a new or empty folder with --data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(path: &Path, because: &str) {
        let failure = Folder::open(path).unwrap_err().to_string();
        assert!(failure.contains(because), "{failure}");
    }

    #[test]
    fn a_folder_is_made_used_by_one_and_used_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/data");
        let folder = Folder::open(&path).unwrap();
        refused(&path, "in use by another process");
        drop(folder);
        Folder::open(&path).unwrap();
    }

    #[test]
    fn a_folder_that_is_not_ours_stays_untouched() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        refused(dir.path(), "thesis.tex");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_empty_marker_is_written_again_if_the_rest_is_ours() {
        let dir = tempfile::tempdir().unwrap();
        drop(Folder::open(dir.path()).unwrap());
        fs::write(dir.path().join("bank.db"), "rows").unwrap();
        fs::create_dir(dir.path().join("log")).unwrap();
        fs::write(dir.path().join(FORMAT_FILE), "").unwrap();
        drop(Folder::open(dir.path()).unwrap());
        assert_eq!(fs::read_to_string(dir.path().join(FORMAT_FILE)).unwrap(), FORMAT);

        fs::write(dir.path().join(FORMAT_FILE), "").unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        refused(dir.path(), "thesis.tex");
        assert_eq!(fs::read(dir.path().join(FORMAT_FILE)).unwrap(), b"");
    }

    #[test]
    fn a_folder_of_a_newer_release_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FORMAT_FILE), "bank data 2\n").unwrap();
        refused(dir.path(), "bank data 2");
    }

    #[test]
    fn a_process_killed_while_it_made_the_folder_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), "").unwrap();
        fs::write(dir.path().join(NEW_FORMAT_FILE), "bank").unwrap();
        Folder::open(dir.path()).unwrap();
    }
}
