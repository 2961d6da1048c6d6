//! The store on disk: fjall, a keyspace per table.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::{Store, StoreError, Table, Write};

/// The version of what the folder holds; another one is deleted and built anew.
const FORMAT: &str = "es state store 1\n";

/// Write buffers are small: states are few and flushed in bulk, and memory is bounded by this, not by their number.
const MEMTABLE_BYTES: u64 = 8 << 20;
const JOURNAL_BYTES: u64 = 64 << 20;
const CACHE_BYTES: u64 = 16 << 20;

/// A folder with the states of one aggregate type.
pub(crate) struct DiskStore {
    db: Database,
    tables: Mutex<BTreeMap<Table, Keyspace>>,
    _lock: File,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskStore")
    }
}

impl DiskStore {
    /// Opens the folder, or makes it. What it holds in another format, or damaged, is deleted first.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let opening = |error: std::io::Error| StoreError::new("opening", error);
        fs::create_dir_all(dir).map_err(opening)?;
        let lock = File::create(dir.join("lock")).map_err(opening)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let message =
                    format!("another process uses {}: stop it, or give this one its own folder", dir.display());
                return Err(StoreError::new("opening", message));
            }
            Err(TryLockError::Error(error)) => return Err(opening(error)),
        }
        let format = dir.join("format");
        let data = dir.join("data");
        if fs::read_to_string(&format).is_ok_and(|found| found != FORMAT) {
            tracing::info!(folder = %dir.display(), "deleting a state store of another format");
            fs::remove_dir_all(&data).map_err(opening)?;
        }
        fs::write(&format, FORMAT).map_err(opening)?;
        let db = open_database(&data).or_else(|error| {
            tracing::warn!(folder = %dir.display(), %error, "deleting a damaged state store: it is built anew from the log");
            fs::remove_dir_all(&data).map_err(opening)?;
            open_database(&data).map_err(|error| StoreError::new("opening", error))
        })?;
        let names = db.list_keyspace_names();
        let store = Self { db, tables: Mutex::default(), _lock: lock };
        for table in names.iter().filter_map(|name| parse(name)) {
            store.keyspace(table)?;
        }
        Ok(store)
    }

    fn keyspace(&self, table: Table) -> Result<Keyspace, StoreError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keyspace) = tables.get(&table) {
            return Ok(keyspace.clone());
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = self.db.keyspace(&name(table), options).map_err(|error| StoreError::new("opening", error))?;
        tables.insert(table, keyspace.clone());
        Ok(keyspace)
    }

    fn existing(&self, table: Table) -> Option<Keyspace> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).get(&table).cloned()
    }
}

fn open_database(data: &PathBuf) -> fjall::Result<Database> {
    Database::builder(data).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES).worker_threads(1).open()
}

fn name(table: Table) -> String {
    match table {
        Table::States => "states".into(),
        Table::Checkpoints => "checkpoints".into(),
        Table::Ids(span) => format!("ids-{span}"),
    }
}

fn parse(name: &str) -> Option<Table> {
    match name {
        "states" => Some(Table::States),
        "checkpoints" => Some(Table::Checkpoints),
        name => Some(Table::Ids(name.strip_prefix("ids-")?.parse().ok()?)),
    }
}

impl Store for DiskStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(keyspace) = self.existing(table) else { return Ok(None) };
        let value = keyspace.get(key).map_err(|error| StoreError::new("reading", error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let mut batch = self.db.batch();
        for Write { table, key, value } in writes {
            batch.insert(&self.keyspace(table)?, key, value);
        }
        batch.commit().map_err(|error| StoreError::new("writing", error))
    }

    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError> {
        let clearing = |error: fjall::Error| StoreError::new("clearing", error);
        let tables: Vec<Keyspace> =
            self.tables.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for keyspace in tables {
            for entry in keyspace.prefix(prefix) {
                keyspace.remove(entry.key().map_err(clearing)?).map_err(clearing)?;
            }
        }
        Ok(())
    }

    fn forget_ids_before(&self, oldest: u64) -> Result<(), StoreError> {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let old: Vec<Table> = tables.range(..Table::Ids(oldest)).map(|(table, _)| *table).collect();
        for table in old.into_iter().filter(|table| matches!(table, Table::Ids(_))) {
            if let Some(keyspace) = tables.remove(&table) {
                self.db.delete_keyspace(keyspace).map_err(|error| StoreError::new("clearing", error))?;
            }
        }
        Ok(())
    }
}
