//! The folder in which an aggregate type's state store is, and the store that is in use.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::disk::DiskStore;
use super::{MemoryStore, Store, StoreError};

/// The version of what the folder holds; another one is deleted and built anew.
const FORMAT: &str = "es state store 3\n";

/// The state store of one aggregate type, shared by its partitions' owners.
pub(crate) struct StateFolder {
    place: Option<Place>,
    current: Mutex<Arc<dyn Store>>,
}

/// Where the store is on disk. Each store has a folder of its own, `data-<number>`: one that is given up may be in
/// use for a moment longer, and would write to the files of the next.
struct Place {
    dir: PathBuf,
    _lock: File,
}

impl fmt::Debug for StateFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(f, "StateFolder({})", place.dir.display()),
            None => f.write_str("StateFolder(in memory)"),
        }
    }
}

impl StateFolder {
    /// A store that is gone with the process.
    pub(crate) fn in_memory() -> Self {
        Self { place: None, current: Mutex::new(Arc::new(MemoryStore::default())) }
    }

    /// Opens the folder, or makes it. What it holds in another format, or damaged, is deleted first.
    pub(crate) fn on_disk(dir: &Path) -> Result<Self, StoreError> {
        fs::create_dir_all(dir).map_err(opening)?;
        let place = Place { dir: dir.to_owned(), _lock: lock(dir)? };
        let format = dir.join("format");
        let another = fs::read_to_string(&format).is_ok_and(|found| found != FORMAT);
        if another {
            tracing::info!(folder = %dir.display(), "deleting a state store of another format");
        }
        let store = match place.newest()? {
            Some(number) if !another => place.reopen(number).or_else(|error| {
                let cause = &error as &dyn std::error::Error;
                tracing::warn!(folder = %dir.display(), error = cause, "deleting a damaged state store: it is built anew");
                place.begin_anew()
            }),
            _ => place.begin_anew(),
        };
        fs::write(&format, FORMAT).map_err(opening)?;
        Ok(Self { current: Mutex::new(Arc::new(store?)), place: Some(place) })
    }

    /// The store; a new and empty one where the last was condemned.
    pub(crate) fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.is_condemned() {
            *current = match &self.place {
                Some(place) => {
                    tracing::warn!(folder = %place.dir.display(), "giving up a damaged state store: it is built anew");
                    Arc::new(place.begin_anew()?)
                }
                None => Arc::new(MemoryStore::default()),
            };
        }
        Ok(current.clone())
    }
}

impl Place {
    fn data(&self, number: u64) -> PathBuf {
        self.dir.join(format!("data-{number}"))
    }

    /// Opens what an earlier process left. Where that one ended in the middle of opening it, that is given up: some of
    /// fjall's files say how much memory to reserve, and a flipped bit there ends the process (tried).
    fn reopen(&self, number: u64) -> Result<DiskStore, StoreError> {
        let mark = self.dir.join("opening");
        if mark.exists() {
            return Err(StoreError::new("opening", "the last process that opened it ended there"));
        }
        fs::write(&mark, []).map_err(opening)?;
        let opened = DiskStore::open(&self.data(number));
        fs::remove_file(&mark).map_err(opening)?;
        self.delete_before(number)?;
        opened
    }

    /// Opens an empty store beside what there is, and deletes that.
    fn begin_anew(&self) -> Result<DiskStore, StoreError> {
        let next = self.newest()?.map_or(0, |number| number + 1);
        let store = DiskStore::open(&self.data(next))?;
        let _ = fs::remove_file(self.dir.join("opening")); // it was about an older one
        self.delete_before(next)?;
        Ok(store)
    }

    /// Deletes older stores. One that somebody still writes to is deleted at the next start.
    fn delete_before(&self, number: u64) -> Result<(), StoreError> {
        for (_, path) in self.stores()?.into_iter().filter(|(other, _)| *other < number) {
            if let Err(error) = fs::remove_dir_all(&path) {
                tracing::debug!(folder = %path.display(), error = &error as &dyn std::error::Error, "an old state store stays for now");
            }
        }
        Ok(())
    }

    fn newest(&self) -> Result<Option<u64>, StoreError> {
        Ok(self.stores()?.into_iter().map(|(number, _)| number).max())
    }

    fn stores(&self) -> Result<Vec<(u64, PathBuf)>, StoreError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(opening)? {
            let entry = entry.map_err(opening)?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("data-")?.parse().ok());
            found.extend(number.map(|number| (number, entry.path())));
        }
        Ok(found)
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let lock = File::create(dir.join("lock")).map_err(opening)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let message = format!("another process uses {}: stop it, or give this one its own folder", dir.display());
            Err(StoreError::new("opening", message))
        }
        Err(TryLockError::Error(error)) => Err(opening(error)),
    }
}

fn opening(error: std::io::Error) -> StoreError {
    StoreError::new("opening", error)
}
