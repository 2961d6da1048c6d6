//! What an owner knows of its partition: states, command ids, and how far it has read. Memory is bounded: what
//! changed is collected in a generation that is written to the store in the background; the rest is cached.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use quick_cache::unsync::Cache;
use sha2::{Digest, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::domain::aggregate::{Aggregate, Apply, Event, Handle};
use crate::domain::clock::Clock;
use crate::domain::envelope::Envelope;
use crate::domain::guard::{self, Panicked};
use crate::domain::hash::EventHash;
use crate::domain::ids::{AggregateKey, CommandId, Epoch, Version};
use crate::domain::shape;
use crate::engine::parked::{List, Parked};
use crate::engine::remembered::Remembered;
use crate::engine::snapshot::{Checkpointer, Flushed, Lineage, NewId, Snapshot, SnapshotTopic};
use crate::engine::store::key::{self, Spans};
use crate::engine::store::{Store, StoreError, Table, Write};
use crate::engine::stored::{Reached, Schema, StoredCheckpoint, forget_ids};
use crate::log::reader::{Checkpoint, Fed, Recorded};
use crate::log::record::Answers;

/// Bounds of what is held in memory for one partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StateLimits {
    /// Changed states and new command ids that are collected before they are written to the store.
    pub(crate) unwritten_max: usize,
    /// Unchanged states that are kept for the next command.
    pub(crate) cached_max: usize,
    /// How long a command id is remembered.
    pub(crate) spans: Spans,
    /// Stands for the program's release: what another one parked is tried again.
    pub(crate) release: u64,
}

/// The proven state of one aggregate.
#[derive(Debug, Clone)]
pub(crate) struct Entry<A: Aggregate> {
    pub(crate) version: Version,
    /// The offset of the event with this version.
    pub(crate) offset: u64,
    pub(crate) head: EventHash,
    /// Why its stored events can't be folded, and it stays at the version before; or why its state can't be kept.
    pub(crate) parked: Option<String>,
    /// `None` only where it is parked.
    pub(crate) state: Option<A>,
}

impl<A: Aggregate> Default for Entry<A> {
    fn default() -> Self {
        let (state, parked) = match guard::call("its Default", A::default) {
            Ok(state) => (Some(state), None),
            Err(panic) => (None, Some(panic.to_string())),
        };
        Self { version: Version::EMPTY, offset: 0, head: EventHash::default(), parked, state }
    }
}

impl<A: Aggregate> Entry<A> {
    /// As it is stored. A state that can't be written, or would not be read back, is left out, and why is told: that
    /// is the fault of its own aggregate alone. To read each once when it is flushed costs as much as writing it.
    fn snapshot(&self, lineage: Lineage) -> (Snapshot, Option<String>) {
        let stored = |state: Vec<u8>, parked: Option<&String>| {
            let mut snapshot = Snapshot::new(lineage, self.version.get(), self.offset, &self.head.0, state);
            snapshot.parked = parked.cloned().unwrap_or_default();
            snapshot
        };
        let Some(state) = &self.state else { return (stored(Vec::new(), self.parked.as_ref()), None) };
        match self.written(state) {
            Ok(state) => (stored(state, self.parked.as_ref()), None),
            Err(reason) => (stored(Vec::new(), Some(&reason)), Some(reason)),
        }
    }

    fn written(&self, state: &A) -> Result<Vec<u8>, String> {
        let written = guard::fallible("writing it", || serde_json::to_vec(state)).and_then(|state| {
            guard::fallible("reading it back", || serde_json::from_slice::<A>(&state).map(drop))
                .map_err(|reason| format!("it does not read back: {reason}"))?;
            Ok(state)
        });
        written.map_err(|reason| self.unkept(&reason))
    }

    fn unkept(&self, reason: &str) -> String {
        format!(
            "its state at version {} can't be kept: {reason}; mend its Serialize and Deserialize and raise the aggregate's \
             snapshot_version, then it is folded anew from its events",
            self.version
        )
    }

    /// What the store's checksums let pass is what was written, so a state that can't be read is no damage of the store.
    fn from_snapshot(value: Bytes) -> Result<Self, crate::domain::error::Cause> {
        let Snapshot { version, offset, head, state, parked, .. } = Snapshot::parse(value)?;
        let mut entry = Self {
            version: Version::new(version),
            offset,
            head: EventHash(head.as_ref().try_into()?),
            parked: (!parked.is_empty()).then_some(parked),
            state: None,
        };
        match guard::fallible("reading it", || serde_json::from_slice(&state)) {
            Ok(state) => entry.state = Some(state),
            Err(reason) if entry.parked.is_none() => entry.parked = Some(entry.unkept(&reason)),
            Err(_) => {}
        }
        Ok(entry)
    }

    /// The same if it can be decided on and kept; else why not.
    pub(crate) fn usable(self) -> Result<Self, String> {
        match (&self.parked, &self.state) {
            (Some(reason), _) => Err(reason.clone()),
            (None, Some(state)) => self.written(state).map(drop).map(|()| self),
            (None, None) => Err("there is no state of it".into()),
        }
    }

    /// The same once more, to work on.
    pub(crate) fn copy(&self) -> Result<Self, Panicked> {
        guard::call("its Clone", || self.clone())
    }

    /// Whether the event at this offset is part of the state already: what is replayed may begin before the state.
    fn contains(&self, offset: u64) -> bool {
        self.version > Version::EMPTY && offset <= self.offset
    }
}

/// A scope of idempotence: the same command id to two aggregates is two commands.
type IdKey = (AggregateKey, CommandId);

/// What changed since the last write to the store.
#[derive(Debug)]
struct Generation<A: Aggregate> {
    states: HashMap<AggregateKey, Arc<Entry<A>>>,
    ids: HashMap<IdKey, Arc<Remembered>>,
}

impl<A: Aggregate> Default for Generation<A> {
    fn default() -> Self {
        Self { states: HashMap::new(), ids: HashMap::new() }
    }
}

/// A write to the store that is under way.
struct Flush<A: Aggregate> {
    generation: Arc<Generation<A>>,
    /// Tells whose states could not be written, and why.
    task: AbortOnDropHandle<Result<Vec<Unkept>, StoreError>>,
}

/// An aggregate whose state can't be kept, and why.
type Unkept = (AggregateKey, String);

pub(crate) struct PartitionState<A: Aggregate> {
    partition: u32,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    limits: StateLimits,
    changed: Generation<A>,
    flushing: Option<Flush<A>>,
    cached: Cache<AggregateKey, Arc<Entry<A>>>,
    /// The log's time: the newest at which something that counts was recorded.
    last_recorded_ms: i64,
    /// What the store holds, or will when the flush under way is done.
    stored: StoredCheckpoint,
    parked: Arc<Parked>,
    checkpointer: Option<Checkpointer>,
}

impl<A: Handle + Apply> PartitionState<A> {
    /// Goes on from what the store holds of the partition. What was made by other code is cleared: it is built anew.
    pub(crate) fn open(
        partition: u32,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        limits: StateLimits,
        parked: Arc<Parked>,
    ) -> Result<(Self, Checkpoint), StoreError> {
        let schema = Schema { release: limits.release, ..schema::<A>() };
        let stored = match StoredCheckpoint::read(store.as_ref(), partition, &schema, limits.spans)? {
            Some(stored) => stored,
            None => {
                store.clear(&key::prefix(partition))?;
                StoredCheckpoint { fingerprint: schema.fingerprint.to_string(), ..StoredCheckpoint::default() }
            }
        };
        let checkpoint = stored.checkpoint.clone();
        parked.begin(List { release: limits.release, ..stored.parked.clone() });
        let state = Self {
            partition,
            store,
            clock,
            limits,
            changed: Generation::default(),
            flushing: None,
            cached: Cache::new(limits.cached_max),
            last_recorded_ms: stored.last_recorded_ms,
            stored,
            parked,
            checkpointer: None,
        };
        Ok((state, checkpoint))
    }

    /// From now on what is flushed goes to the snapshots topic too, under this claim.
    pub(crate) fn keep_snapshots(&mut self, topic: &SnapshotTopic, claim: Epoch) {
        match &mut self.checkpointer {
            Some(checkpointer) => checkpointer.claimed(claim),
            none => *none = Some(Checkpointer::start(topic.clone(), self.store.clone(), claim)),
        }
    }

    /// The claim may be over: what is flushed until the next one may be another owner's to write.
    pub(crate) fn pause_snapshots(&mut self) {
        if let Some(checkpointer) = &mut self.checkpointer {
            checkpointer.unclaimed();
        }
    }

    /// What is flushed from now on is another owner's to write: a key of this one's claim would get states that are newer
    /// than it.
    pub(crate) fn end_snapshots(&mut self) {
        self.checkpointer = None;
    }

    /// Lets the snapshots topic have what was flushed last, for so long.
    pub(crate) async fn finish_snapshots(&mut self, patience: Duration) {
        if let Some(checkpointer) = self.checkpointer.take() {
            checkpointer.finish(patience).await;
        }
    }

    /// The newest time at which an event was recorded in this partition.
    pub(crate) fn last_recorded_ms(&self) -> i64 {
        self.last_recorded_ms
    }

    /// Notes when a round was recorded.
    pub(crate) fn note_time(&mut self, recorded_at_ms: i64) {
        self.last_recorded_ms = self.last_recorded_ms.max(recorded_at_ms);
        self.follow_time();
    }

    fn follow_time(&mut self) {
        self.stored.forgetting.follow(self.last_recorded_ms.min(self.clock.now_ms()), self.limits.spans);
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
        let key = key::state(self.partition, id.as_str());
        let Some(value) = self.store.get(Table::States, &key)? else { return Ok(Arc::default()) };
        let entry = Arc::new(Entry::from_snapshot(value).map_err(|error| self.damaged(error))?);
        if let Some(reason) = &entry.parked {
            self.parked.add(id, reason); // perhaps only now: its state could not be read
        }
        self.cached.insert(id.clone(), entry.clone());
        Ok(entry)
    }

    /// The answer that a command got before, unless it is forgotten. What is forgotten has expired before, which the clock
    /// says: so it is never forgotten by a later time than the clock's.
    pub(crate) fn known(
        &self,
        id: &AggregateKey,
        command: &CommandId,
        clock_ms: i64,
    ) -> Result<Option<Arc<Remembered>>, StoreError> {
        let by_ms = self.stored.forgetting.by_ms.min(clock_ms);
        let known = self.recorded(id, command)?;
        Ok(known.filter(|known| self.limits.spans.holds(known.recorded_at_ms, by_ms)))
    }

    /// The answer that a command got before, however long ago: what the log holds happened, whatever a clock says.
    pub(crate) fn recorded(
        &self,
        id: &AggregateKey,
        command: &CommandId,
    ) -> Result<Option<Arc<Remembered>>, StoreError> {
        let key = (id.clone(), command.clone());
        let remembered = self
            .changed
            .ids
            .get(&key)
            .or_else(|| self.flushing.as_ref().and_then(|flush| flush.generation.ids.get(&key)))
            .cloned();
        match remembered {
            Some(known) => Ok(Some(known)),
            None => self.stored_id(&key),
        }
    }

    /// Takes a proven state.
    pub(crate) fn put(&mut self, id: AggregateKey, entry: Arc<Entry<A>>) {
        match &entry.parked {
            Some(reason) => self.parked.add(&id, reason),
            None if self.parked.count() > 0 => self.parked.remove(&id),
            None => {}
        }
        self.changed.states.insert(id, entry);
    }

    /// Takes the proven answer to a command.
    pub(crate) fn remember(&mut self, id: AggregateKey, command: CommandId, known: Remembered) -> Arc<Remembered> {
        self.last_recorded_ms = self.last_recorded_ms.max(known.recorded_at_ms);
        let before = if known.is_conflict() { self.known(&id, &command, known.recorded_at_ms) } else { Ok(None) };
        let known = match before {
            Ok(Some(before)) => known.after(&before),
            Ok(None) => Arc::new(known),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "looking up an earlier conflict");
                Arc::new(known)
            }
        };
        self.changed.ids.insert((id, command), known.clone());
        known
    }

    /// Folds what was read from the log; `before` is where the reader could have gone on from before that.
    pub(crate) fn replay(
        &mut self,
        fed: Fed,
        offset: u64,
        timestamp_ms: i64,
        before: &Checkpoint,
    ) -> Result<(), StoreError> {
        match fed {
            Fed::Events(events) => self.replay_command(events, before),
            Fed::Erased(erased) => self.replay_erased(&erased),
            Fed::Answers(answers) => {
                self.replay_answers(answers, offset, timestamp_ms);
                Ok(())
            }
            Fed::Claim(_) | Fed::Copied(_) | Fed::Nothing | Fed::Void(_) | Fed::Foreign(_) => Ok(()),
        }
    }

    fn replay_command(&mut self, events: Vec<Recorded>, before: &Checkpoint) -> Result<(), StoreError> {
        let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(()) };
        let (id, command) = (first.envelope.stream.id.clone(), first.envelope.command_id.clone());
        let recorded_at_ms = last.envelope.recorded_at.timestamp_millis();
        let recorded_before_ms = self.last_recorded_ms;
        self.last_recorded_ms = recorded_before_ms.max(recorded_at_ms);
        // Whatever its age by the clock, which may be wrong for once: the log's time goes on, and takes it away.
        let (hash, version) = (first.envelope.command_hash, first.envelope.version);
        let known = Remembered::accepted(recorded_at_ms, hash, last.offset, version, events.len() as u32);
        self.remember(id.clone(), command, known);
        let proven = self.entry(&id)?;
        if proven.parked.is_some() {
            return Ok(());
        }
        let (entry, failed) = fold_command(&proven, &events);
        if let Some((event, reason)) = &failed {
            let (partition, offset) = (event.partition, event.offset);
            tracing::error!(aggregate = %id, partition, offset, %reason, "parking an aggregate whose events can't be folded");
            let reached = || Reached { checkpoint: before.clone(), last_recorded_ms: recorded_before_ms };
            self.stored.held.get_or_insert_with(reached);
        } else if entry.version == proven.version {
            return Ok(()); // it was in the state before
        }
        self.put(id, Arc::new(entry));
        Ok(())
    }

    fn replay_erased(&mut self, erased: &Recorded) -> Result<(), StoreError> {
        let Envelope { stream, recorded_at, .. } = &erased.envelope;
        self.last_recorded_ms = self.last_recorded_ms.max(recorded_at.timestamp_millis());
        if let Some(entry) = self.entry(&stream.id)?.erased(erased) {
            self.put(stream.id.clone(), Arc::new(entry));
        }
        Ok(())
    }

    /// Takes the state of an aggregate that is parked, made anew from its events, unless one went on since those were read:
    /// `resumed` is how often that had been. Tells whether it took it.
    pub(crate) fn resume(&mut self, id: AggregateKey, parked: &Entry<A>, entry: Arc<Entry<A>>, resumed: u64) -> bool {
        if self.parked.resumed() != resumed || entry.version < parked.version {
            return false;
        }
        tracing::info!(aggregate = %id, version = %entry.version, "a parked aggregate goes on");
        self.parked.resume();
        self.put(id, entry);
        // What is held stays so: a snapshot of it may fail, and no checkpoint may go past it then.
        true
    }

    fn replay_answers(&mut self, answers: Answers, offset: u64, timestamp_ms: i64) {
        self.last_recorded_ms = self.last_recorded_ms.max(timestamp_ms);
        for entry in answers.answers {
            let known = Remembered::answered(timestamp_ms, entry.hash, offset, entry.version, &entry.answer);
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
        let (from, to) = (self.stored.next(), checkpoint.next);
        let tables = generation.tables(self.limits.spans);
        self.stored.checkpoint = checkpoint;
        self.stored.last_recorded_ms = self.last_recorded_ms;
        self.stored.parked = self.parked.list();
        self.stored = std::mem::take(&mut self.stored).wrote(tables);
        self.follow_time();
        self.stored.forget(self.limits.spans);
        let forgetting = self.stored.forgetting;
        let (store, partition, spans) = (self.store.clone(), self.partition, self.limits.spans);
        let (stored, written) = (self.stored.clone(), generation.clone());
        let outlet = self.checkpointer.as_ref().map(Checkpointer::outlet);
        let in_memory = store.is_in_memory();
        let write = move || {
            let lineage = Lineage::of(&schema::<A>(), stored.checkpoint());
            let Encoded { mut writes, states, ids, unkept } = encode_generation(&written, lineage, partition, spans);
            writes.extend(stored.writes(partition)?);
            store.write(writes)?;
            if let Some(outlet) = outlet {
                outlet(Flushed { from, to, reached: stored.reached(), states, ids, forgetting });
            }
            forget_ids(store.as_ref(), spans, forgetting.by_ms)?;
            Ok(unkept)
        };
        // In memory it takes no thread, and so a simulation can be repeated.
        let task = if in_memory { tokio::spawn(async move { write() }) } else { tokio::task::spawn_blocking(write) };
        self.flushing = Some(Flush { generation, task: AbortOnDropHandle::new(task) });
        Ok(())
    }

    async fn finish_flush(&mut self) -> Result<(), StoreError> {
        let Some(flush) = &mut self.flushing else { return Ok(()) };
        let result = (&mut flush.task).await.unwrap_or_else(|error| Err(StoreError::new("writing", error)));
        let Some(flush) = self.flushing.take() else { return Ok(()) };
        // A failed write leaves the generation out of the store: what is in memory must not look written.
        for (id, reason) in result? {
            tracing::error!(aggregate = %id, %reason, "parking an aggregate");
            let newest = self.changed.states.get(&id).or_else(|| flush.generation.states.get(&id));
            if let Some(Entry { version, offset, head, .. }) = newest.map(Arc::as_ref) {
                let (version, offset, head) = (*version, *offset, *head);
                self.put(id, Arc::new(Entry { version, offset, head, parked: Some(reason), state: None }));
            }
        }
        for (id, entry) in &flush.generation.states {
            if !self.changed.states.contains_key(id) {
                self.cached.insert(id.clone(), entry.clone());
            }
        }
        Ok(())
    }

    fn stored_id(&self, (id, command): &IdKey) -> Result<Option<Arc<Remembered>>, StoreError> {
        let key = key::id(self.partition, id.as_str(), command.as_str());
        let mut newest: Option<Remembered> = None;
        for span in self.stored.id_tables() {
            let Some(value) = self.store.get(Table::Ids(span), &key)? else { continue };
            let known = Remembered::parse(value).map_err(|error| self.damaged(error))?;
            // Stretches overlap where the retention was changed, and an id that was forgotten may have come again.
            let at = |known: &Remembered| (known.recorded_at_ms, known.offset);
            if newest.as_ref().is_none_or(|newest| at(newest) < at(&known)) {
                newest = Some(known);
            }
        }
        Ok(newest.map(Arc::new))
    }

    /// What the store holds can't be read: it is of no use to anybody.
    fn damaged(&self, error: impl Into<crate::domain::error::Cause>) -> StoreError {
        self.store.condemn();
        StoreError::new("reading", error)
    }
}

impl<A: Handle + Apply> Entry<A> {
    /// Folds what was read, where it is of this aggregate.
    pub(crate) fn follow(&mut self, aggregate: &AggregateKey, fed: Fed) {
        match fed {
            Fed::Events(events)
                if self.parked.is_none()
                    && events.first().is_some_and(|first| first.envelope.stream.id == *aggregate) =>
            {
                *self = fold_command(self, &events).0;
            }
            Fed::Erased(erased) if erased.envelope.stream.id == *aggregate => {
                if let Some(entry) = self.erased(&erased) {
                    *self = entry;
                }
            }
            _ => {}
        }
    }

    /// An aggregate that was erased goes on from nothing, with the next version; `None` where this is a later state.
    fn erased(&self, erased: &Recorded) -> Option<Self> {
        let Envelope { version, previous_hash, .. } = erased.envelope;
        let later = self.contains(erased.offset) || self.version > version;
        (!later).then(|| Self { version, head: previous_hash, offset: erased.offset, ..Self::default() })
    }
}

/// Applies a command's events, except those that the state contains already. Where one can't be applied the state is
/// that before it, parked.
fn fold_command<'a, A: Handle + Apply>(
    before: &Entry<A>,
    events: &'a [Recorded],
) -> (Entry<A>, Option<(&'a Recorded, String)>) {
    let fold_all = |events: &'a [Recorded]| {
        let Ok(mut entry) = before.copy() else {
            let Entry { version, offset, head, .. } = *before;
            let parked = Some("its Clone panicked".to_owned());
            let entry = Entry { version, offset, head, parked, state: None };
            return (entry, events.first().map(|event| (event, "copying its state panicked".into())));
        };
        for event in events {
            if entry.contains(event.offset) {
                if event.envelope.version == entry.version && event.envelope.hash != entry.head {
                    return (entry, Some((event, "the state kept of it is that of another event".into())));
                }
                continue;
            }
            if let Err(reason) = fold(&mut entry, &event.envelope) {
                return (entry, Some((event, reason)));
            }
            entry.offset = event.offset;
        }
        (entry, None)
    };
    let (entry, failed) = fold_all(events);
    let Some((event, reason)) = failed else { return (entry, None) };
    // Once more without it: what `apply` left may be half of something.
    let good = events.iter().position(|other| other.offset == event.offset).unwrap_or(0);
    let (mut entry, _) = fold_all(&events[..good]);
    entry.parked = Some(format!("event {} at offset {}: {reason}", event.envelope.version, event.offset));
    (entry, Some((event, reason)))
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
    let Some(state) = &mut entry.state else { return Err("there is no state to apply it to".into()) };
    if let Err(panic) = guard::call("applying it", || state.apply(&event)) {
        entry.state = None; // half applied: nobody may decide on it
        return Err(panic.to_string());
    }
    (entry.version, entry.head) = (envelope.version, envelope.hash);
    Ok(())
}

/// What stored states of the aggregate look like: changes whenever they may mean something else.
pub(crate) fn schema<A: Aggregate>() -> Schema {
    let mut hasher = Sha256::new();
    hasher.update(format!("{}.{} {} {}\n", A::CONTEXT, A::NAME, A::SNAPSHOT_VERSION, shape::text::<A>()));
    for (kind, shape) in A::Event::TYPES.iter().zip(shape::of_events::<A::Event>().texts()) {
        hasher.update(format!("{} {} {shape}\n", kind.name, kind.schema_version));
    }
    let fingerprint: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Schema { fingerprint: fingerprint.into(), snapshot_version: A::SNAPSHOT_VERSION, release: 0 }
}

impl<A: Aggregate> Generation<A> {
    /// The tables that it is written to.
    fn tables(&self, spans: Spans) -> HashSet<Table> {
        let ids = self.ids.values().map(|known| spans.table(known.recorded_at_ms));
        ids.chain((!self.states.is_empty()).then_some(Table::States)).collect()
    }
}

/// What is written to the store, and the same values once more as the snapshots topic takes them.
struct Encoded {
    writes: Vec<Write>,
    states: Vec<(AggregateKey, Bytes)>,
    ids: Vec<NewId>,
    unkept: Vec<Unkept>,
}

fn encode_generation<A: Aggregate>(
    generation: &Generation<A>,
    lineage: Lineage,
    partition: u32,
    spans: Spans,
) -> Encoded {
    let mut unkept = Vec::new();
    let mut writes = Vec::with_capacity(generation.states.len() + generation.ids.len() + 4);
    let mut states = Vec::with_capacity(generation.states.len());
    let mut ids = Vec::with_capacity(generation.ids.len());
    for (id, entry) in &generation.states {
        let (snapshot, reason) = entry.snapshot(lineage);
        unkept.extend(reason.map(|reason| (id.clone(), reason)));
        let value = snapshot.encoded();
        if entry.version > Version::EMPTY {
            states.push((id.clone(), snapshot.for_topic(value.clone())));
        }
        writes.push(Write { table: Table::States, key: key::state(partition, id.as_str()), value });
    }
    for ((aggregate, command), known) in &generation.ids {
        let (recorded_at_ms, value) = (known.recorded_at_ms, Bytes::from(known.encode_to_vec()));
        let key = key::id(partition, aggregate.as_str(), command.as_str());
        writes.push(Write { table: spans.table(recorded_at_ms), key, value: value.clone() });
        ids.push(NewId { aggregate: aggregate.clone(), command: command.clone(), recorded_at_ms, known: value });
    }
    Encoded { writes, states, ids, unkept }
}
