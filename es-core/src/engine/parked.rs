//! Aggregates whose stored events or states can't be used: which they are, of a partition, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::domain::ids::AggregateKey;
use crate::domain::text::short;

/// Those that are named: a release that can read nothing must not fill the memory with reasons.
const NAMED_MAX: usize = 1_000;
/// Those that are counted beside them.
const UNNAMED_MAX: usize = 100_000;

/// An aggregate whose commands are answered "parked".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedAggregate {
    /// The partition that it lives in.
    pub partition: u32,
    /// Which one.
    pub aggregate: AggregateKey,
    /// What is wrong with its stored events or its state.
    pub reason: String,
}

/// Those of a partition, shared by its owner and the bus.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    list: Mutex<List>,
    /// How often one was tried again and went on.
    resumed: AtomicU64,
}

/// Stored with the partition's checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct List {
    /// Stands for the release that parked them: another one tries them again.
    pub(crate) release: u64,
    pub(crate) named: BTreeMap<AggregateKey, String>,
    /// What stands for each of the others.
    pub(crate) unnamed: BTreeSet<u64>,
}

impl List {
    pub(crate) fn count(&self) -> u64 {
        (self.named.len() + self.unnamed.len()) as u64
    }

    fn add(&mut self, aggregate: &AggregateKey, reason: &str) {
        if self.named.len() < NAMED_MAX || self.named.contains_key(aggregate) {
            self.unnamed.remove(&number(aggregate.as_str().as_bytes()));
            self.named.insert(aggregate.clone(), short(reason).into_owned());
        } else if self.unnamed.len() < UNNAMED_MAX {
            self.unnamed.insert(number(aggregate.as_str().as_bytes()));
        }
    }

    fn remove(&mut self, aggregate: &AggregateKey) {
        if self.named.remove(aggregate).is_none() && !self.unnamed.is_empty() {
            self.unnamed.remove(&number(aggregate.as_str().as_bytes()));
        }
    }
}

impl Parked {
    /// Begins anew with what was stored.
    pub(crate) fn begin(&self, list: List) {
        *self.lock() = list;
    }

    pub(crate) fn add(&self, aggregate: &AggregateKey, reason: &str) {
        self.lock().add(aggregate, reason);
    }

    pub(crate) fn remove(&self, aggregate: &AggregateKey) {
        self.lock().remove(aggregate);
    }

    pub(crate) fn list(&self) -> List {
        self.lock().clone()
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().count()
    }

    pub(crate) fn named(&self, partition: u32) -> Vec<ParkedAggregate> {
        let one = |(aggregate, reason): (&AggregateKey, &String)| ParkedAggregate {
            partition,
            aggregate: aggregate.clone(),
            reason: reason.clone(),
        };
        self.lock().named.iter().map(one).collect()
    }

    /// A number that changes whenever one goes on: what was read of any before is not all of it then.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }

    pub(crate) fn resume(&self) {
        self.resumed.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether it is known to be parked; more than are counted may be.
    pub(crate) fn may_have(&self, aggregate: &AggregateKey) -> bool {
        let list = self.lock();
        list.named.contains_key(aggregate)
            || list.unnamed.len() == UNNAMED_MAX
            || list.unnamed.contains(&number(aggregate.as_str().as_bytes()))
    }

    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands for a release: its name, or else size and time of the program's own file.
pub(crate) fn release(name: Option<&str>) -> u64 {
    static PROGRAM: OnceLock<u64> = OnceLock::new();
    let program = || {
        let file = std::env::current_exe().and_then(std::fs::metadata);
        file.map_or(0, |file| number(format!("{} {:?}", file.len(), file.modified().ok()).as_bytes()))
    };
    name.map_or_else(|| *PROGRAM.get_or_init(program), |name| number(name.as_bytes()))
}

fn number(bytes: &[u8]) -> u64 {
    let digest = Sha256::digest(bytes);
    u64::from_be_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> AggregateKey {
        AggregateKey::new(number.to_string()).unwrap()
    }

    #[test]
    fn each_counts_once_whether_it_is_named_or_not() {
        let parked = Parked::default();
        for _ in 0..2 {
            (0..1_500).for_each(|one| parked.add(&key(one), "a reason"));
        }
        assert_eq!((parked.count(), parked.named(0).len()), (1_500, NAMED_MAX));
        (0..1_500).step_by(3).for_each(|one| parked.remove(&key(one)));
        parked.remove(&key(0));
        assert_eq!(parked.count(), 1_000);
        (0..1_500).for_each(|one| parked.add(&key(one), "a reason"));
        assert_eq!((parked.count(), parked.named(0).len()), (1_500, NAMED_MAX));
        let stored = serde_json::to_vec(&parked.list()).unwrap();
        let again = Parked::default();
        again.begin(serde_json::from_slice(&stored).unwrap());
        (0..1_500).for_each(|one| again.add(&key(one), "a reason"));
        assert_eq!(again.count(), 1_500);
    }

    #[test]
    fn there_is_an_end_to_what_is_counted() {
        let parked = Parked::default();
        (0..200_000).for_each(|one| parked.add(&key(one), "a reason"));
        assert_eq!(parked.count(), (NAMED_MAX + UNNAMED_MAX) as u64);
    }
}
