//! The group: processes that share the partitions of an aggregate type.
//!
//! It says which process should own which partition; who does own it, the claims in the log decide. Two groups are
//! known: [`memory::MemoryGroup`] for tests, and Kafka's consumer groups in the crate `es-kafka`.

pub mod memory;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use crate::log::{AppendError, LogError, Record};

/// What a process says of itself when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSpec {
    /// The group's name, for example `bank.account.owners`.
    pub name: String,
    /// The process's name: one that comes back under it soon gets what it had. Two at once are one too many.
    pub node: String,
    /// The topic whose partitions are shared out: the one with the commands.
    pub topic: String,
    /// The number of its partitions.
    pub partitions: u32,
}

/// A change of what a process should own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// These partitions too, or none: the first change tells that the process has joined.
    Assigned(Vec<u32>),
    /// These no longer. Nobody gets them before [`Member::release`].
    Revoked(Vec<u32>),
    /// The group has gone on without this process: somebody else may have these already.
    Lost(Vec<u32>),
}

/// Where to go on in a partition of the topic that is shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The offset of the next record.
    pub offset: u64,
    /// What stands for the record before it ([`Place::mark`]), where that is known. In a topic that was made anew another
    /// record is there.
    pub after: Option<u64>,
}

impl Place {
    /// What stands for a record: the first 8 bytes of the SHA-256 of its timestamp, key and headers, each with its length
    /// before it.
    pub fn mark(record: &Record) -> u64 {
        let mut hasher = Sha256::new();
        let mut add = |part: &[u8]| hasher.update([&(part.len() as u64).to_be_bytes(), part].concat());
        add(&record.timestamp_ms.to_be_bytes());
        add(&record.key);
        for (name, value) in &record.headers {
            add(name.as_bytes());
            add(value);
        }
        u64::from_be_bytes(hasher.finalize()[..8].try_into().expect("a SHA-256 has 32 bytes"))
    }
}

/// Groups by name, and the way to the other members.
#[async_trait]
pub trait Group: fmt::Debug + Send + Sync + 'static {
    /// Joins a group. What is assigned is told by [`Member::next`].
    async fn join(&self, spec: &GroupSpec) -> Result<Arc<dyn Member>, LogError>;

    /// Adds a record to a topic of commands or replies. Any number of callers at once; a record may be in the topic
    /// even after an error of the kind [`AppendError::Unknown`].
    async fn send(&self, topic: &str, partition: u32, record: Record) -> Result<(), AppendError>;
}

/// A process's place in a group. Dropping it leaves without a word.
#[async_trait]
pub trait Member: fmt::Debug + Send + Sync + 'static {
    /// Waits for the next change. One caller at a time.
    ///
    /// # Errors
    /// [`LogErrorKind::Settings`](crate::log::LogErrorKind::Settings) when another process joined under the same name;
    /// this one is out for good.
    ///
    /// # Cancel safety
    /// Cancel safe.
    async fn next(&self) -> Result<Change, LogError>;

    /// Hands back partitions that were revoked or lost.
    async fn release(&self, partitions: &[u32]) -> Result<(), LogError>;

    /// The place that was last committed for a partition of the topic.
    async fn committed(&self, partition: u32) -> Result<Option<Place>, LogError>;

    /// Commits the place to go on from in a partition of the topic, and tells whether the group still counts with this
    /// process. It does not where the process lost the partition and has it anew before [`Member::next`] told so: another
    /// process may have committed a later place in between.
    async fn commit(&self, partition: u32, place: Place) -> Result<bool, LogError>;

    /// Whether the group still counts with this process for a partition, as [`Member::commit`] does. A `true` is newer than
    /// the call, so it renews the word of an earlier assignment. On Kafka it commits anew what is committed.
    async fn confirm(&self, partition: u32) -> Result<bool, LogError>;

    /// Leaves, so that the others need not wait until this process is missed.
    async fn leave(&self);
}

/// Which assignments a member has heard of: for implementations of [`Member`].
///
/// A partition that was lost may be assigned anew at once. Until [`Member::next`] has told so, whoever works on the
/// partition does not know that it was away.
#[derive(Debug, Default)]
pub struct Tenures(Mutex<BTreeMap<u32, Tenure>>);

/// How often a partition was assigned, and how often that was told.
#[derive(Debug, Clone, Copy, Default)]
struct Tenure {
    assigned: u64,
    told: u64,
}

impl Tenures {
    /// Notes a change that [`Member::next`] is going to tell.
    pub fn changed(&self, change: &Change) {
        self.note(change, |tenure| tenure.assigned += 1);
    }

    /// Notes a change that [`Member::next`] tells now.
    pub fn told(&self, change: &Change) {
        self.note(change, |tenure| tenure.told += 1);
    }

    /// Whether the newest assignment of a partition was told.
    pub fn is_known(&self, partition: u32) -> bool {
        let tenures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tenures.get(&partition).is_some_and(|tenure| tenure.assigned == tenure.told)
    }

    fn note(&self, change: &Change, note: impl Fn(&mut Tenure)) {
        let Change::Assigned(partitions) = change else { return };
        let mut tenures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().for_each(|partition| note(tenures.entry(*partition).or_default()));
    }
}
