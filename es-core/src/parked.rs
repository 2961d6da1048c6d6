//! Aggregates whose stored events or states can't be used: which they are, of a partition, and why.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ids::AggregateKey;
use crate::text::short;

/// Those that are named: a release that can read nothing must not fill the memory with reasons.
const NAMED_MAX: usize = 1_000;

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
pub(crate) struct Parked(Mutex<List>);

/// Stored with the partition's checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct List {
    /// Stands for the release that parked them: another one tries them again.
    pub(crate) release: u64,
    pub(crate) named: BTreeMap<AggregateKey, String>,
    /// How many more there are.
    pub(crate) unnamed: u64,
}

impl List {
    pub(crate) fn count(&self) -> u64 {
        self.named.len() as u64 + self.unnamed
    }
}

impl Parked {
    /// Begins anew with what was stored.
    pub(crate) fn begin(&self, list: List) {
        *self.lock() = list;
    }

    pub(crate) fn add(&self, aggregate: &AggregateKey, reason: &str) {
        let mut list = self.lock();
        if list.named.len() < NAMED_MAX || list.named.contains_key(aggregate) {
            list.named.insert(aggregate.clone(), short(reason).into_owned());
        } else {
            list.unnamed += 1;
        }
    }

    pub(crate) fn remove(&self, aggregate: &AggregateKey) {
        self.lock().named.remove(aggregate);
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

    fn lock(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
