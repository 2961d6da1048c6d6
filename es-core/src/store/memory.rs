//! The store of tests and examples: unbounded, gone with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use super::{Store, StoreError, Table, Write};

type Tables = BTreeMap<(Table, Vec<u8>), Bytes>;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    tables: Mutex<Tables>,
    condemned: AtomicBool,
}

impl MemoryStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().get(&(table, key.to_vec())).cloned())
    }

    fn page(&self, table: Table, prefix: &[u8], after: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let after = Bound::Excluded((table, after.to_vec()));
        let tables = self.lock();
        let entries = tables.range((after, Bound::Unbounded));
        let of_prefix = entries.take_while(|((found, key), _)| *found == table && key.starts_with(prefix));
        Ok(of_prefix.take(max).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }

    fn id_tables(&self) -> Vec<u64> {
        let mut spans: Vec<u64> = self.lock().keys().filter_map(|(table, _)| table.span()).collect();
        spans.dedup();
        spans
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.lock().extend(writes.into_iter().map(|write| ((write.table, write.key), write.value)));
        Ok(())
    }

    fn load(&self, table: Table, sorted: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), StoreError> {
        self.lock().extend(sorted.map(|(key, value)| ((table, key.into()), value)));
        Ok(())
    }

    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.lock().retain(|(_, key), _| !key.starts_with(prefix));
        Ok(())
    }

    fn forget_ids_before(&self, oldest: u64) -> Result<(), StoreError> {
        self.lock().retain(|(table, _), _| table.span().is_none_or(|span| span >= oldest));
        Ok(())
    }

    fn condemn(&self) {
        self.condemned.store(true, Ordering::Relaxed);
    }

    fn is_condemned(&self) -> bool {
        self.condemned.load(Ordering::Relaxed)
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}
