//! The store on disk: fjall, a keyspace per table. Its blocks and its journal have checksums.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use super::{Span, Store, StoreError, Table, Write};
use crate::domain::error::Cause;
use crate::domain::guard::panic_text;

/// Write buffers are small: states are few and flushed in bulk, and memory is bounded by this, not by their number.
const MEMTABLE_BYTES: u64 = if cfg!(test) { 4 << 10 } else { 8 << 20 };
const JOURNAL_BYTES: u64 = 64 << 20;
const CACHE_BYTES: u64 = if cfg!(test) { 0 } else { 16 << 20 }; // tests damage what is read

/// Entries that are removed at once.
const CLEARED_MAX: usize = 1_000;

/// A database with the states of one aggregate type.
pub(crate) struct DiskStore {
    db: Database,
    tables: Mutex<BTreeMap<Table, Keyspace>>,
    /// Written to by whoever removes tables, read by whoever writes to them.
    removing: RwLock<()>,
    condemned: AtomicBool,
}

impl std::fmt::Debug for DiskStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DiskStore")
    }
}

impl DiskStore {
    /// Opens the database in this folder, or makes it.
    pub(crate) fn open(data: &Path) -> Result<Self, StoreError> {
        let options = || Database::builder(data).cache_size(CACHE_BYTES).max_journaling_size(JOURNAL_BYTES);
        let opened = catch_unwind(AssertUnwindSafe(|| -> Result<Self, Cause> {
            let db = options().worker_threads(1).open()?;
            let names = db.list_keyspace_names();
            let store =
                Self { db, tables: Mutex::default(), removing: RwLock::default(), condemned: AtomicBool::new(false) };
            for table in names.iter().filter_map(|name| parse(name)) {
                store.keyspace(table)?;
            }
            Ok(store)
        }));
        opened
            .unwrap_or_else(|panic| Err(panic_text(&*panic).into()))
            .map_err(|error| StoreError::new("opening", error))
    }

    /// Does something with the database. After a failure nothing of it is believed: one block that can't be read is
    /// enough to know that the disk lies, and fjall itself takes no write after one that failed.
    fn trying<T>(&self, action: &'static str, what: impl FnOnce() -> Result<T, Cause>) -> Result<T, StoreError> {
        if self.is_condemned() {
            return Err(StoreError::new(action, "it was found damaged before"));
        }
        let result = catch_unwind(AssertUnwindSafe(what)).unwrap_or_else(|panic| Err(panic_text(&*panic).into()));
        result.map_err(|error| {
            self.condemn();
            StoreError::new(action, error)
        })
    }

    fn keyspace(&self, table: Table) -> Result<Keyspace, Cause> {
        let mut tables = self.lock();
        if let Some(keyspace) = tables.get(&table) {
            return Ok(keyspace.clone());
        }
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        let keyspace = self.db.keyspace(&name(table), options)?;
        tables.insert(table, keyspace.clone());
        Ok(keyspace)
    }

    /// Removes the entries of a partition, or so many pages of them. First go the checkpoints, which say that the rest is whole: a
    /// process may end before all is removed.
    fn clear_pages(&self, prefix: &[u8], mut pages: usize) -> Result<(), StoreError> {
        let mut tables: Vec<Table> = self.lock().keys().copied().collect();
        tables.sort_by_key(|table| *table != Table::Checkpoints);
        for table in tables {
            let mut from = Bound::Included(prefix.to_vec());
            while pages > 0
                && let Some(last) = self.clear_page(table, prefix, from)?
            {
                from = Bound::Excluded(last);
                pages -= 1;
            }
        }
        Ok(())
    }

    /// Removes some entries of a table, and tells the last.
    fn clear_page(&self, table: Table, prefix: &[u8], from: Bound<Vec<u8>>) -> Result<Option<Vec<u8>>, StoreError> {
        // Not for all pages: others write meanwhile.
        let _writing = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        let Some(keyspace) = self.existing(table) else { return Ok(None) };
        self.trying("clearing", || {
            let (mut batch, mut last) = (self.db.batch(), None);
            for entry in keyspace.range::<Vec<u8>, _>((from, Bound::Unbounded)).take(CLEARED_MAX) {
                let key = entry.key()?;
                if !key.starts_with(prefix) {
                    break;
                }
                last = Some(key.to_vec());
                batch.remove(&keyspace, key);
            }
            batch.commit()?;
            Ok(last)
        })
    }

    fn existing(&self, table: Table) -> Option<Keyspace> {
        self.lock().get(&table).cloned()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Table, Keyspace>> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(table: Table) -> String {
    match table {
        Table::States => "states".into(),
        Table::Checkpoints => "checkpoints".into(),
        Table::Ids(Span { width_ms, number }) => format!("ids-{width_ms}-{number}"),
    }
}

fn parse(name: &str) -> Option<Table> {
    match name {
        "states" => Some(Table::States),
        "checkpoints" => Some(Table::Checkpoints),
        name => {
            let (width_ms, number) = name.strip_prefix("ids-")?.split_once('-')?;
            Some(Table::Ids(Span { width_ms: width_ms.parse().ok()?, number: number.parse().ok()? }))
        }
    }
}

impl Store for DiskStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let Some(keyspace) = self.existing(table) else { return Ok(None) };
        // Copied, since the value is part of a block that would be kept in memory as a whole.
        self.trying("reading", || Ok(keyspace.get(key)?.map(|value| Bytes::copy_from_slice(&value))))
    }

    fn page(&self, table: Table, prefix: &[u8], after: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let Some(keyspace) = self.existing(table) else { return Ok(Vec::new()) };
        self.trying("reading", || {
            let mut page = Vec::new();
            for entry in keyspace.range::<&[u8], _>((Bound::Excluded(after), Bound::Unbounded)).take(max) {
                let (key, value) = entry.into_inner()?;
                if !key.starts_with(prefix) {
                    break;
                }
                page.push((key.to_vec(), Bytes::copy_from_slice(&value)));
            }
            Ok(page)
        })
    }

    fn id_tables(&self) -> Vec<Span> {
        self.lock().keys().filter_map(|table| table.span()).collect()
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let _writing = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        self.trying("writing", || {
            let mut batch = self.db.batch();
            for Write { table, key, value } in writes {
                batch.insert(&self.keyspace(table)?, key, value);
            }
            Ok(batch.commit()?)
        })
    }

    fn load(&self, table: Table, sorted: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), StoreError> {
        let _writing = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        self.trying("writing", || {
            let keyspace = self.keyspace(table)?;
            let mut ingestion = keyspace.start_ingestion()?; // past journal and memtable
            for (key, value) in sorted {
                ingestion.write(key, value)?;
            }
            Ok(ingestion.finish()?)
        })
    }

    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.clear_pages(prefix, usize::MAX)
    }

    fn forget_ids(&self, which: &dyn Fn() -> Result<Vec<Span>, StoreError>) -> Result<(), StoreError> {
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        for span in which()? {
            let keyspace = self.lock().remove(&Table::Ids(span));
            if let Some(keyspace) = keyspace {
                self.trying("clearing", || Ok(self.db.delete_keyspace(keyspace)?))?;
            }
        }
        Ok(())
    }

    fn condemn(&self) {
        self.condemned.store(true, Ordering::Release);
    }

    fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::store::key;

    /// Shows: a process that ends while it clears a partition leaves nothing that claims to be whole.
    #[test]
    fn what_says_that_a_partition_is_whole_is_cleared_first() {
        let folder = tempfile::tempdir().unwrap();
        let store = DiskStore::open(folder.path()).unwrap();
        let id = Table::Ids(Span { width_ms: 1, number: 0 });
        let of = |partition: u32| key::prefix(partition).to_vec();
        let write = |table, partition| Write { table, key: of(partition), value: Bytes::from_static(b"x") };
        store.write([Table::States, Table::Checkpoints, id].map(|table| write(table, 0)).into()).unwrap();
        store.write([Table::States, Table::Checkpoints, id].map(|table| write(table, 1)).into()).unwrap();
        let left = |table, partition| store.get(table, &of(partition)).unwrap().is_some();
        store.clear_pages(&of(0), 1).unwrap();
        assert!(!left(Table::Checkpoints, 0) && left(Table::States, 0) && left(id, 0));
        store.clear(&of(0)).unwrap();
        assert!(!left(Table::States, 0) && !left(id, 0));
        assert!(left(Table::Checkpoints, 1) && left(Table::States, 1) && left(id, 1));
    }
}
