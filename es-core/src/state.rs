//! What an owner knows of its partition: states, command ids, and how far it has read. Memory is bounded: what
//! changed is collected in a generation that is written to the store in the background; the rest is cached.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use prost::Message;
use quick_cache::unsync::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

use crate::aggregate::{Aggregate, Apply, Event, Handle};
use crate::envelope::{CommandHash, Envelope, EventHash};
use crate::ids::{AggregateKey, CommandId, Version};
use crate::reader::{Checkpoint, Fed, Recorded};
use crate::record::{Answer, Answers};
use crate::store::{Store, StoreError, Table, Write};

/// Bounds of what is held in memory for one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateLimits {
    /// Changed states and new command ids that are collected before they are written to the store.
    pub(crate) unwritten_max: usize,
    /// Unchanged states that are kept for the next command.
    pub(crate) cached_max: usize,
    /// How long a command id is remembered, in milliseconds.
    pub(crate) retention_ms: i64,
}

/// The proven state of one aggregate.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Entry<A: Aggregate> {
    pub(crate) version: Version,
    #[serde(with = "hash_bytes")]
    pub(crate) head: EventHash,
    /// Why its stored events can't be folded; it stays at the version before.
    pub(crate) parked: Option<String>,
    pub(crate) state: A,
}

impl<A: Aggregate> Default for Entry<A> {
    fn default() -> Self {
        Self { version: Version::EMPTY, head: EventHash::default(), parked: None, state: A::default() }
    }
}

/// The remembered answer to a command.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Known {
    #[prost(int64, tag = "1")]
    pub(crate) recorded_at_ms: i64,
    #[prost(bytes = "vec", tag = "2")]
    hash: Vec<u8>,
    /// The offset of its last event, or of the answers record.
    #[prost(uint64, tag = "3")]
    pub(crate) offset: u64,
    /// The version of the first event; of the state where there is none.
    #[prost(uint64, tag = "4")]
    pub(crate) first: u64,
    /// The number of events.
    #[prost(uint32, tag = "5")]
    pub(crate) events: u32,
    /// An [`Answer`] in JSON where there is no event.
    #[prost(string, tag = "6")]
    answer: String,
}

impl Known {
    pub(crate) fn accepted(recorded_at_ms: i64, hash: CommandHash, offset: u64, first: Version, events: u32) -> Self {
        Self { recorded_at_ms, hash: hash.0.to_vec(), offset, first: first.get(), events, answer: String::new() }
    }

    pub(crate) fn answered(recorded_at_ms: i64, hash: CommandHash, offset: u64, at: Version, answer: &Answer) -> Self {
        let answer = serde_json::to_string(answer).expect("an answer holds text and numbers only");
        Self { recorded_at_ms, hash: hash.0.to_vec(), offset, first: at.get(), events: 0, answer }
    }

    /// The version after the command.
    pub(crate) fn version(&self) -> u64 {
        self.first + u64::from(self.events.max(1)) - 1
    }

    pub(crate) fn is_of(&self, hash: CommandHash) -> bool {
        self.hash == hash.0
    }

    /// The answer of a command without events; `None` for one that was accepted with events.
    pub(crate) fn answer(&self) -> Option<Answer> {
        (self.events == 0).then(|| serde_json::from_str(&self.answer).expect("written by this program as an answer"))
    }
}

/// A scope of idempotence: the same command id to two aggregates is two commands.
type IdKey = (AggregateKey, CommandId);

/// What changed since the last write to the store.
#[derive(Debug)]
struct Generation<A: Aggregate> {
    states: HashMap<AggregateKey, Arc<Entry<A>>>,
    ids: HashMap<IdKey, Arc<Known>>,
}

impl<A: Aggregate> Default for Generation<A> {
    fn default() -> Self {
        Self { states: HashMap::new(), ids: HashMap::new() }
    }
}

struct Flush<A: Aggregate> {
    generation: Arc<Generation<A>>,
    task: JoinHandle<Result<(), StoreError>>,
}

pub(crate) struct PartitionState<A: Aggregate> {
    partition: u32,
    store: Arc<dyn Store>,
    limits: StateLimits,
    changed: Generation<A>,
    flushing: Option<Flush<A>>,
    cached: Cache<AggregateKey, Arc<Entry<A>>>,
    /// Tables of command ids that may hold a live one.
    forgotten_before: u64,
    last_recorded_ms: i64,
}

/// The stored checkpoint of a partition, with what it was made by.
#[derive(Serialize, Deserialize)]
struct StoredCheckpoint {
    fingerprint: String,
    last_recorded_ms: i64,
    checkpoint: Checkpoint,
}

impl<A: Handle + Apply> PartitionState<A> {
    /// Goes on from what the store holds of the partition. What was made by other code is cleared: it is built anew.
    pub(crate) fn open(
        partition: u32,
        store: Arc<dyn Store>,
        limits: StateLimits,
    ) -> Result<(Self, Checkpoint), StoreError> {
        let key = partition.to_be_bytes();
        let stored: Option<StoredCheckpoint> =
            store.get(Table::Checkpoints, &key)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let (checkpoint, last_recorded_ms) = match stored {
            Some(stored) if stored.fingerprint == fingerprint::<A>() => (stored.checkpoint, stored.last_recorded_ms),
            _ => {
                store.clear(&key)?;
                (Checkpoint::default(), 0)
            }
        };
        let state = Self {
            partition,
            store,
            limits,
            changed: Generation::default(),
            flushing: None,
            cached: Cache::new(limits.cached_max),
            forgotten_before: 0,
            last_recorded_ms,
        };
        Ok((state, checkpoint))
    }

    /// The newest time at which an event was recorded in this partition.
    pub(crate) fn last_recorded_ms(&self) -> i64 {
        self.last_recorded_ms
    }

    /// The proven state of an aggregate; the default at version 0 where there is none.
    pub(crate) fn entry(&mut self, id: &AggregateKey) -> Result<Arc<Entry<A>>, StoreError> {
        if let Some(entry) = self.changed.states.get(id) {
            return Ok(entry.clone());
        }
        if let Some(entry) = self.flushing.as_ref().and_then(|flush| flush.generation.states.get(id)) {
            return Ok(entry.clone());
        }
        if let Some(entry) = self.cached.get(id) {
            return Ok(entry.clone());
        }
        let Some(bytes) = self.store.get(Table::States, &self.state_key(id))? else { return Ok(Arc::default()) };
        let entry: Entry<A> = serde_json::from_slice(&bytes).map_err(|error| StoreError::new("reading", error))?;
        let entry = Arc::new(entry);
        self.cached.insert(id.clone(), entry.clone());
        Ok(entry)
    }

    /// The answer that a command got before, within the retention.
    pub(crate) fn known(
        &self,
        id: &AggregateKey,
        command: &CommandId,
        now_ms: i64,
    ) -> Result<Option<Arc<Known>>, StoreError> {
        let key = (id.clone(), command.clone());
        let remembered = self
            .changed
            .ids
            .get(&key)
            .or_else(|| self.flushing.as_ref().and_then(|flush| flush.generation.ids.get(&key)))
            .cloned();
        let known = match remembered {
            Some(known) => Some(known),
            None => self.stored_id(&key, now_ms)?,
        };
        Ok(known.filter(|known| known.recorded_at_ms.saturating_add(self.limits.retention_ms) > now_ms))
    }

    /// Takes a proven state.
    pub(crate) fn put(&mut self, id: AggregateKey, entry: Arc<Entry<A>>) {
        self.changed.states.insert(id, entry);
    }

    /// Takes the proven answer to a command.
    pub(crate) fn remember(&mut self, id: AggregateKey, command: CommandId, known: Known) -> Arc<Known> {
        self.last_recorded_ms = self.last_recorded_ms.max(known.recorded_at_ms);
        let known = Arc::new(known);
        self.changed.ids.insert((id, command), known.clone());
        known
    }

    /// Folds what was read from the log.
    pub(crate) fn replay(&mut self, fed: Fed, offset: u64, timestamp_ms: i64, now_ms: i64) -> Result<(), StoreError> {
        match fed {
            Fed::Events(events) => self.replay_command(events, now_ms),
            Fed::Answers(answers) => {
                self.replay_answers(answers, offset, timestamp_ms, now_ms);
                Ok(())
            }
            Fed::Claim(_) | Fed::Nothing | Fed::Void(_) | Fed::Foreign(_) => Ok(()),
        }
    }

    fn replay_command(&mut self, events: Vec<Recorded>, now_ms: i64) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let (id, command) = (first.envelope.stream.id.clone(), first.envelope.command_id.clone());
        let recorded_at_ms = last.envelope.recorded_at.timestamp_millis();
        self.last_recorded_ms = self.last_recorded_ms.max(recorded_at_ms);
        if recorded_at_ms.saturating_add(self.limits.retention_ms) > now_ms {
            let (hash, version) = (first.envelope.command_hash, first.envelope.version);
            let known = Known::accepted(recorded_at_ms, hash, last.offset, version, events.len() as u32);
            self.remember(id.clone(), command, known);
        }
        let mut entry = (*self.entry(&id)?).clone();
        for event in &events {
            if entry.parked.is_some() {
                break;
            }
            if let Err(reason) = fold(&mut entry, &event.envelope) {
                let (partition, offset) = (event.partition, event.offset);
                tracing::error!(aggregate = %id, partition, offset, %reason, "parking an aggregate whose events can't be folded");
                entry.parked = Some(format!("event {} at offset {offset}: {reason}", event.envelope.version));
            }
        }
        self.put(id, Arc::new(entry));
        Ok(())
    }

    fn replay_answers(&mut self, answers: Answers, offset: u64, timestamp_ms: i64, now_ms: i64) {
        self.last_recorded_ms = self.last_recorded_ms.max(timestamp_ms);
        if timestamp_ms.saturating_add(self.limits.retention_ms) <= now_ms {
            return;
        }
        for entry in answers.answers {
            let known = Known::answered(timestamp_ms, entry.hash, offset, entry.version, &entry.answer);
            self.remember(entry.aggregate, entry.command, known);
        }
    }

    /// Begins to write what changed to the store once enough is collected. Waits only for the write before it.
    pub(crate) async fn flush_if_due(&mut self, checkpoint: impl FnOnce() -> Checkpoint) -> Result<(), StoreError> {
        if self.changed.states.len().max(self.changed.ids.len()) < self.limits.unwritten_max {
            return Ok(());
        }
        self.begin_flush(checkpoint()).await
    }

    /// Writes everything and waits for it.
    pub(crate) async fn flush(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.begin_flush(checkpoint).await?;
        self.finish_flush().await
    }

    async fn begin_flush(&mut self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.finish_flush().await?;
        let generation = Arc::new(std::mem::take(&mut self.changed));
        let stored =
            StoredCheckpoint { fingerprint: fingerprint::<A>(), last_recorded_ms: self.last_recorded_ms, checkpoint };
        let (store, partition, span_ms) = (self.store.clone(), self.partition, self.span_ms());
        let oldest = self.span_of(self.last_recorded_ms - self.limits.retention_ms);
        self.forgotten_before = self.forgotten_before.max(oldest);
        let written = generation.clone();
        let in_memory = store.is_in_memory();
        let write = move || {
            store.write(encode_generation(&written, &stored, partition, span_ms)?)?;
            store.forget_ids_before(oldest)
        };
        // In memory it takes no thread, and so a simulation can be repeated.
        let task = if in_memory { tokio::spawn(async move { write() }) } else { tokio::task::spawn_blocking(write) };
        self.flushing = Some(Flush { generation, task });
        Ok(())
    }

    async fn finish_flush(&mut self) -> Result<(), StoreError> {
        let Some(flush) = &mut self.flushing else { return Ok(()) };
        let result = (&mut flush.task).await.unwrap_or_else(|error| Err(StoreError::new("writing", error)));
        let Some(flush) = self.flushing.take() else { return Ok(()) };
        // A failed write leaves the generation out of the store: what is in memory must not look written.
        result?;
        for (id, entry) in &flush.generation.states {
            if !self.changed.states.contains_key(id) {
                self.cached.insert(id.clone(), entry.clone());
            }
        }
        Ok(())
    }

    fn stored_id(&self, key: &IdKey, now_ms: i64) -> Result<Option<Arc<Known>>, StoreError> {
        let bytes = id_key(self.partition, key);
        let oldest = self.span_of(now_ms - self.limits.retention_ms).max(self.forgotten_before);
        for span in (oldest..=self.span_of(now_ms.max(self.last_recorded_ms))).rev() {
            if let Some(value) = self.store.get(Table::Ids(span), &bytes)? {
                let known = Known::decode(value.as_slice()).map_err(|error| StoreError::new("reading", error))?;
                return Ok(Some(Arc::new(known)));
            }
        }
        Ok(None)
    }

    /// Command ids are kept in tables by time, each half the retention long, so that at most three are looked at.
    fn span_ms(&self) -> i64 {
        (self.limits.retention_ms / 2).max(1)
    }

    fn span_of(&self, time_ms: i64) -> u64 {
        (time_ms / self.span_ms()).max(0) as u64
    }

    fn state_key(&self, id: &AggregateKey) -> Vec<u8> {
        state_key(self.partition, id)
    }
}

/// Applies a recorded event to the state that it follows. After an error the state must not be used.
pub(crate) fn fold<A: Handle + Apply>(entry: &mut Entry<A>, envelope: &Envelope) -> Result<(), String> {
    if envelope.version != entry.version.next() {
        return Err(format!("its version is {}, the next is {}", envelope.version, entry.version.next()));
    }
    if envelope.previous_hash != entry.head {
        return Err("it does not continue the hash chain of its stream".into());
    }
    let event = envelope.event::<A>().map_err(|error| error.to_string())?;
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| entry.state.apply(&event))) {
        entry.state = A::default(); // half applied: nobody may decide on it
        return Err(format!("applying it panicked: {}", panic_text(&*panic)));
    }
    (entry.version, entry.head) = (envelope.version, envelope.hash);
    Ok(())
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without text").to_owned()
}

/// Changes whenever stored states may mean something else: the aggregate's shape, its events' shapes, its snapshot version.
fn fingerprint<A: Aggregate>() -> String {
    let mut hasher = Sha256::new();
    hasher.update(format!("{}.{} {} {}\n", A::CONTEXT, A::NAME, A::SNAPSHOT_VERSION, A::SHAPE));
    for kind in A::Event::TYPES {
        hasher.update(format!("{kind:?}\n"));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encode_generation<A: Aggregate>(
    generation: &Generation<A>,
    checkpoint: &StoredCheckpoint,
    partition: u32,
    span_ms: i64,
) -> Result<Vec<Write>, StoreError> {
    let json = |error: serde_json::Error| StoreError::new("encoding a state for", error);
    let mut spans = HashSet::new();
    let mut writes = Vec::with_capacity(generation.states.len() + generation.ids.len() + 1);
    for (id, entry) in &generation.states {
        let value = serde_json::to_vec(&**entry).map_err(json)?;
        writes.push(Write { table: Table::States, key: state_key(partition, id), value });
    }
    for (key, known) in &generation.ids {
        let span = (known.recorded_at_ms / span_ms).max(0) as u64;
        spans.insert(span);
        writes.push(Write { table: Table::Ids(span), key: id_key(partition, key), value: known.encode_to_vec() });
    }
    let value = serde_json::to_vec(checkpoint).map_err(json)?;
    writes.push(Write { table: Table::Checkpoints, key: partition.to_be_bytes().to_vec(), value });
    Ok(writes)
}

fn state_key(partition: u32, id: &AggregateKey) -> Vec<u8> {
    [&partition.to_be_bytes(), id.as_str().as_bytes()].concat()
}

/// No id holds a control character, so the zero byte ends the first.
fn id_key(partition: u32, (id, command): &IdKey) -> Vec<u8> {
    [&partition.to_be_bytes(), id.as_str().as_bytes(), &[0], command.as_str().as_bytes()].concat()
}

mod hash_bytes {
    use crate::envelope::EventHash;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &EventHash, serializer: S) -> Result<S::Ok, S::Error> {
        hash.0.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EventHash, D::Error> {
        Ok(EventHash(<[u8; 32]>::deserialize(deserializer)?))
    }
}
