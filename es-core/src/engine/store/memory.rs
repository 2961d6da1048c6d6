//! The store of tests and examples: unbounded, gone with the process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use bytes::Bytes;

use super::{Span, Store, StoreError, Table, Write};

type Tables = BTreeMap<Table, BTreeMap<Vec<u8>, Bytes>>;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore {
    tables: Mutex<Tables>,
    /// Written to by whoever removes tables, read by whoever writes to them.
    removing: RwLock<()>,
    condemned: AtomicBool,
}

impl MemoryStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().get(&table).and_then(|entries| entries.get(key)).cloned())
    }

    fn page(&self, table: Table, prefix: &[u8], after: &[u8], max: usize) -> Result<Vec<(Vec<u8>, Bytes)>, StoreError> {
        let tables = self.lock();
        let Some(entries) = tables.get(&table) else { return Ok(Vec::new()) };
        let entries = entries.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        let of_prefix = entries.take_while(|(key, _)| key.starts_with(prefix));
        Ok(of_prefix.take(max).map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn id_tables(&self) -> Vec<Span> {
        self.lock().keys().filter_map(|table| table.span()).collect()
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        let _writing = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        let mut tables = self.lock();
        for Write { table, key, value } in writes {
            tables.entry(table).or_default().insert(key, value);
        }
        Ok(())
    }

    fn load(&self, table: Table, sorted: &mut dyn Iterator<Item = (Bytes, Bytes)>) -> Result<(), StoreError> {
        let _writing = self.removing.read().unwrap_or_else(PoisonError::into_inner);
        self.lock().entry(table).or_default().extend(sorted.map(|(key, value)| (key.into(), value)));
        Ok(())
    }

    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.lock().values_mut().for_each(|entries| entries.retain(|key, _| !key.starts_with(prefix)));
        Ok(())
    }

    fn forget_ids(&self, which: &dyn Fn() -> Result<Vec<Span>, StoreError>) -> Result<(), StoreError> {
        let _removing = self.removing.write().unwrap_or_else(PoisonError::into_inner);
        for span in which()? {
            self.lock().remove(&Table::Ids(span));
        }
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
