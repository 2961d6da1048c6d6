//! The store of tests and examples: unbounded, gone with the process.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::{Store, StoreError, Table, Write};

type Tables = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

#[derive(Debug, Default)]
pub(crate) struct MemoryStore(Mutex<Tables>);

impl MemoryStore {
    fn lock(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().get(&(table, key.to_vec())).cloned())
    }

    fn write(&self, writes: Vec<Write>) -> Result<(), StoreError> {
        self.lock().extend(writes.into_iter().map(|write| ((write.table, write.key), write.value)));
        Ok(())
    }

    fn clear(&self, prefix: &[u8]) -> Result<(), StoreError> {
        self.lock().retain(|(_, key), _| !key.starts_with(prefix));
        Ok(())
    }

    fn forget_ids_before(&self, oldest: u64) -> Result<(), StoreError> {
        self.lock().retain(|(table, _), _| !matches!(table, Table::Ids(span) if *span < oldest));
        Ok(())
    }

    fn is_in_memory(&self) -> bool {
        true
    }
}
