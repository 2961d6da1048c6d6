//! A round: what an owner decides and appends at once. Nothing that it decides is visible before it is proven.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use crate::aggregate::{Aggregate, Apply, Context, Handle};
use crate::codec;
use crate::envelope::{CommandHash, Envelope, EventHash};
use crate::error::InvalidCommand;
use crate::error::NotDone;
use crate::guard;
use crate::ids::{
    Actor, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion, StreamId, Version,
};
use crate::log::Record;
use crate::record::{Answer, AnswerEntry, Answers, Encoder, Stamp};
use crate::state::{Entry, Known, PartitionState, fold};
use crate::store::StoreError;

/// Why a command was not decided that was taken from the queue.
pub(crate) const STARTING_OVER: &str = "what was known of the partition is looked up anew";

/// What travels with a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metadata {
    pub(crate) command_id: CommandId,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) causation_id: Option<CausationId>,
    pub(crate) actor: Option<Actor>,
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    pub(crate) expected: ExpectedVersion,
    pub(crate) traceparent: Option<Arc<str>>,
}

/// A command on its way to the owner.
pub(crate) struct Job<A: Aggregate> {
    pub(crate) id: AggregateKey,
    pub(crate) command: A::Command,
    pub(crate) hash: CommandHash,
    pub(crate) metadata: Metadata,
    /// Milliseconds since 1970, after which it is not decided any more.
    pub(crate) expires_at_ms: i64,
    pub(crate) reply: oneshot::Sender<Reply>,
}

impl<A: Aggregate> Job<A> {
    pub(crate) fn not_done(self, why: NotDone) {
        let _ = self.reply.send(Reply::NotDone(why)); // nobody waits any more
    }
}

/// What the owner tells a caller.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The command's answer, proven and remembered.
    Answer {
        known: Arc<Known>,
        duplicate: bool,
    },
    NotDone(NotDone),
    CommandIdReused,
    Invalid(InvalidCommand),
    Panicked(String),
    Parked(String),
}

/// What a round needs to know of its owner.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    pub(crate) encoder: Encoder,
    pub(crate) context: Arc<str>,
    pub(crate) category: Arc<str>,
    pub(crate) content_type: Arc<str>,
    pub(crate) record_max_bytes: usize,
    pub(crate) events_max: usize,
}

/// A command whose outcome hangs on the append.
pub(crate) struct Pending {
    pub(crate) id: AggregateKey,
    pub(crate) command: CommandId,
    hash: CommandHash,
    outcome: Outcome,
    callers: Vec<oneshot::Sender<Reply>>,
}

enum Outcome {
    /// Its events; the last has this sequence.
    Events { first: Version, count: u32, last_sequence: u64 },
    /// An entry of an answers record; which one is known at the end of the round.
    Answer { at: Version, answer: Answer },
    /// It could not be decided. Not remembered; but an owner that was superseded, and does not know what was accepted
    /// since, may not say so either: it is told with the round.
    Failed(Reply),
}

impl Pending {
    /// Tells every caller; all but the first sent a duplicate. What the log has under the command's id may be another
    /// command, which another owner took first.
    pub(crate) fn answer(self, known: &Arc<Known>) {
        let same = known.is_of(self.hash);
        for (place, caller) in self.callers.into_iter().enumerate() {
            let answer = Reply::Answer { known: known.clone(), duplicate: place > 0 };
            let _ = caller.send(if same { answer } else { Reply::CommandIdReused });
        }
    }

    fn tell(self, reply: &Reply) {
        for caller in self.callers {
            let _ = caller.send(reply.clone());
        }
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.callers.iter().any(|caller| !caller.is_closed())
    }

    /// Tells every caller that nothing was done.
    pub(crate) fn not_done(self, why: &NotDone) {
        for caller in self.callers {
            let _ = caller.send(Reply::NotDone(why.clone()));
        }
    }
}

pub(crate) struct Round<'a, A: Aggregate> {
    desk: &'a Desk,
    state: &'a mut PartitionState<A>,
    epoch: Epoch,
    sequence: u64,
    now: DateTime<Utc>,
    /// What the clock shows; `now` may be ahead of it, since recorded time does not fall.
    clock_ms: i64,
    working: HashMap<AggregateKey, Entry<A>>,
    pending: Vec<Pending>,
    by_id: HashMap<(AggregateKey, CommandId), usize>,
    records: Vec<Record>,
    events: Vec<Envelope>,
    bytes: usize,
}

impl<'a, A: Handle + Apply> Round<'a, A> {
    /// A round whose first record has the sequence after `sequence`.
    pub(crate) fn new(
        desk: &'a Desk,
        state: &'a mut PartitionState<A>,
        epoch: Epoch,
        sequence: u64,
        clock_ms: i64,
    ) -> Self {
        let now_ms = clock_ms.max(state.last_recorded_ms());
        Self {
            desk,
            state,
            epoch,
            sequence,
            now: DateTime::from_timestamp_millis(now_ms).expect("a clock shows a time within chrono's range"),
            clock_ms,
            working: HashMap::new(),
            pending: Vec::new(),
            by_id: HashMap::new(),
            records: Vec::new(),
            events: Vec::new(),
            bytes: 0,
        }
    }

    /// Decides one command on the working state, or answers it at once where that needs no proof.
    pub(crate) fn decide(&mut self, job: Job<A>) -> Result<(), StoreError> {
        if job.reply.is_closed() {
            return Ok(()); // the caller went away before anything was done
        }
        let key = (job.id.clone(), job.metadata.command_id.clone());
        if let Some(&place) = self.by_id.get(&key) {
            let pending = &mut self.pending[place];
            if pending.hash == job.hash {
                pending.callers.push(job.reply);
            } else {
                let _ = job.reply.send(Reply::CommandIdReused);
            }
            return Ok(());
        }
        let known = match self.state.known(&key.0, &key.1, self.now.timestamp_millis()) {
            Ok(known) => known,
            Err(error) => return Err(self.give_up(job, error)),
        };
        if let Some(known) = known {
            let same = known.is_of(job.hash);
            let _ =
                job.reply.send(if same { Reply::Answer { known, duplicate: true } } else { Reply::CommandIdReused });
            return Ok(());
        }
        if job.expires_at_ms <= self.clock_ms {
            let Job { id, hash, metadata, reply, .. } = job;
            let outcome = Outcome::Failed(Reply::NotDone(NotDone::Expired));
            self.by_id.insert(key, self.pending.len());
            self.pending.push(Pending { id, command: metadata.command_id, hash, outcome, callers: vec![reply] });
            return Ok(());
        }
        let mut entry = match self.working.remove(&job.id) {
            Some(entry) => entry,
            None => match self.state.entry(&job.id) {
                Ok(entry) => working(&entry),
                Err(error) => return Err(self.give_up(job, error)),
            },
        };
        let Job { id, command, hash, metadata, reply, .. } = job;
        let outcome = self.outcome(&id, &mut entry, command, hash, &metadata).unwrap_or_else(Outcome::Failed);
        self.by_id.insert(key, self.pending.len());
        let command = metadata.command_id;
        self.pending.push(Pending { id: id.clone(), command, hash, outcome, callers: vec![reply] });
        self.working.insert(id, entry);
        Ok(())
    }

    /// The store can't be read, so the round is not appended: everybody in it is told so.
    fn give_up(&mut self, job: Job<A>, error: StoreError) -> StoreError {
        let why = NotDone::NotReady { reason: STARTING_OVER.into() };
        for pending in self.pending.drain(..) {
            pending.not_done(&why);
        }
        let _ = job.reply.send(Reply::NotDone(why));
        error
    }

    /// Decides, and makes the records of the events.
    fn outcome(
        &mut self,
        id: &AggregateKey,
        entry: &mut Entry<A>,
        command: A::Command,
        hash: CommandHash,
        metadata: &Metadata,
    ) -> Result<Outcome, Reply> {
        if let Some(reason) = &entry.parked {
            return Err(Reply::Parked(reason.clone()));
        }
        let at = entry.version;
        if !metadata.expected.holds(at) {
            return Ok(Outcome::Answer { at, answer: Answer::Conflict(metadata.expected) });
        }
        let Some(state) = &entry.state else { return Err(Reply::Parked("it has no state".into())) };
        let context = self.context(id, at, metadata);
        let decided = guard::call("handle", || state.handle(command, &context));
        match decided.map_err(|panic| Reply::Panicked(panic.text))? {
            Ok(events) if events.is_empty() => Ok(Outcome::Answer { at, answer: Answer::NoOp(()) }),
            Ok(events) => self.record(id, entry, &events, hash, metadata, context.occurred_at),
            Err(refusal) => {
                let text = guard::fallible("writing its refusal", || serde_json::to_string(&refusal))
                    .map_err(|reason| Reply::Invalid(InvalidCommand::Encoding(reason)))?;
                // An answers record holds it beside two ids, as JSON text within JSON.
                self.check_size("refusal", 2 * text.len() + 4096)?;
                Ok(Outcome::Answer { at, answer: Answer::Refused(text) })
            }
        }
    }

    fn context(&self, id: &AggregateKey, version: Version, metadata: &Metadata) -> Context {
        let occurred_at = metadata.occurred_at.unwrap_or(self.now);
        Context {
            aggregate: id.clone(),
            version,
            now: self.now,
            // What is stored has microseconds; what the handler sees is what is stored.
            occurred_at: DateTime::from_timestamp_micros(occurred_at.timestamp_micros()).unwrap_or(self.now),
            command_id: metadata.command_id.clone(),
            correlation_id: metadata.correlation_id.clone(),
            actor: metadata.actor.clone(),
        }
    }

    /// Encodes the events, applies them to the working state, and only then takes them into the round.
    fn record(
        &mut self,
        id: &AggregateKey,
        entry: &mut Entry<A>,
        events: &[A::Event],
        hash: CommandHash,
        metadata: &Metadata,
        occurred_at: DateTime<Utc>,
    ) -> Result<Outcome, Reply> {
        let (count, limit) = (events.len(), self.desk.events_max);
        if count > limit {
            return Err(Reply::Invalid(InvalidCommand::TooManyEvents { count, limit }));
        }
        let count = u32::try_from(count).expect("bounded by the limit above");
        let first = entry.version.next();
        let (mut version, mut head) = (entry.version, entry.head);
        let (mut envelopes, mut records) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        for (index, event) in (0..count).zip(events) {
            version = version.next();
            let envelope = self.envelope(id, event, version, head, hash, metadata, occurred_at)?;
            let sequence = self.sequence + 1 + u64::from(index);
            let record = self.desk.encoder.event(&envelope, Stamp { epoch: self.epoch, sequence, index, count });
            self.check_size("event", record.size())?;
            head = envelope.hash;
            envelopes.push(envelope);
            records.push(record);
        }
        let applied = guard::call("apply", || {
            let state = entry.state.as_mut().expect("it was decided on");
            events.iter().for_each(|event| state.apply(event));
        });
        if let Err(panic) = applied {
            match self.rebuild(id) {
                Ok(rebuilt) => *entry = rebuilt,
                // Nobody may decide on what may be half applied.
                Err(_) => entry.parked = Some("its state could not be looked up again after a panic".into()),
            }
            return Err(Reply::Panicked(panic.text));
        }
        (entry.version, entry.head) = (version, head);
        self.sequence += u64::from(count);
        self.bytes += records.iter().map(Record::size).sum::<usize>();
        self.records.append(&mut records);
        self.events.append(&mut envelopes);
        Ok(Outcome::Events { first, count, last_sequence: self.sequence })
    }

    /// The working state once more, from the proven one and this round's events: `apply` may have left half of it.
    fn rebuild(&mut self, id: &AggregateKey) -> Result<Entry<A>, Reply> {
        let mut entry = working(&*self.state.entry(id).map_err(|error| Reply::Panicked(error.to_string()))?);
        for event in self.events.iter().filter(|event| event.stream.id == *id) {
            fold(&mut entry, event).map_err(Reply::Panicked)?;
        }
        Ok(entry)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the envelope")]
    fn envelope(
        &self,
        id: &AggregateKey,
        event: &A::Event,
        version: Version,
        previous_hash: EventHash,
        command_hash: CommandHash,
        metadata: &Metadata,
        occurred_at: DateTime<Utc>,
    ) -> Result<Envelope, Reply> {
        let (kind, payload) = codec::encode_event::<A::Codec, A::Event>(event)
            .map_err(|reason| Reply::Invalid(InvalidCommand::Encoding(reason)))?;
        let mut envelope = Envelope {
            context: self.desk.context.clone(),
            stream: StreamId { category: self.desk.category.clone(), id: id.clone() },
            version,
            event_id: EventId::fresh(self.now.timestamp_millis().max(0) as u64),
            event_type: kind.name.into(),
            schema_version: kind.schema_version,
            recorded_at: self.now,
            occurred_at,
            command_id: metadata.command_id.clone(),
            command_hash,
            correlation_id: metadata.correlation_id.clone(),
            causation_id: metadata.causation_id.clone(),
            actor: metadata.actor.clone(),
            traceparent: metadata.traceparent.clone(),
            content_type: self.desk.content_type.clone(),
            payload: payload.into(),
            previous_hash,
            hash: EventHash::default(),
        };
        envelope.hash = envelope.compute_hash();
        Ok(envelope)
    }

    fn check_size(&self, what: &'static str, bytes: usize) -> Result<(), Reply> {
        let limit = self.desk.record_max_bytes;
        if bytes <= limit { Ok(()) } else { Err(Reply::Invalid(InvalidCommand::TooLarge { what, bytes, limit })) }
    }

    /// The bytes of the events so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are answers to prove and no event that would be appended anyway.
    pub(crate) fn has_only_answers(&self) -> bool {
        self.records.is_empty() && !self.pending.is_empty()
    }

    /// Ends the deciding: the answers records are made, and what hangs on the append is set apart.
    pub(crate) fn close(mut self) -> Closed<A> {
        let mut entries: Vec<AnswerEntry> = Vec::new();
        let mut bytes = 0;
        let mut answer_sequences = Vec::with_capacity(self.pending.len());
        let mut chunks: Vec<Vec<AnswerEntry>> = Vec::new();
        for pending in &self.pending {
            let Outcome::Answer { at, answer } = &pending.outcome else {
                answer_sequences.push(0);
                continue;
            };
            let entry = AnswerEntry {
                aggregate: pending.id.clone(),
                command: pending.command.clone(),
                hash: pending.hash,
                version: *at,
                answer: answer.clone(),
            };
            let size = entry.size_bound();
            if bytes + size > self.desk.record_max_bytes && !entries.is_empty() {
                chunks.push(std::mem::take(&mut entries));
                bytes = 0;
            }
            bytes += size;
            entries.push(entry);
            answer_sequences.push(self.sequence + 1 + chunks.len() as u64);
        }
        let failures_alone = self.records.is_empty() && chunks.is_empty() && !self.pending.is_empty();
        if !entries.is_empty() || failures_alone {
            chunks.push(entries);
        }
        for answers in chunks {
            self.sequence += 1;
            let stamp = Stamp { epoch: self.epoch, sequence: self.sequence, index: 0, count: 0 };
            let record = self.desk.encoder.answers(&Answers { answers }, stamp, self.now.timestamp_millis());
            self.records.push(record);
        }
        let first_sequence = self.sequence + 1 - self.records.len() as u64;
        let last_event = self.events.last().map(|event| (event.event_id, self.events.len() as u64));
        Closed {
            records: self.records,
            first_sequence,
            last_sequence: self.sequence,
            recorded_at_ms: self.now.timestamp_millis(),
            working: self.working,
            pending: self.pending,
            answer_sequences,
            last_event,
        }
    }
}

/// What a round works on: a state that can't be copied is not decided on.
fn working<A: Aggregate>(proven: &Entry<A>) -> Entry<A> {
    proven.copy().unwrap_or_else(|panic| {
        let Entry { version, offset, head, .. } = *proven;
        Entry { version, offset, head, parked: Some(panic.to_string()), state: None }
    })
}

/// A round whose records are to be appended.
pub(crate) struct Closed<A: Aggregate> {
    pub(crate) records: Vec<Record>,
    pub(crate) first_sequence: u64,
    pub(crate) last_sequence: u64,
    recorded_at_ms: i64,
    working: HashMap<AggregateKey, Entry<A>>,
    pending: Vec<Pending>,
    /// The sequence of the answers record that holds each pending command; 0 for those with events.
    answer_sequences: Vec<u64>,
    /// The last event's id and its place in the round, from 1: events come before answers.
    last_event: Option<(EventId, u64)>,
}

impl<A: Handle + Apply> Closed<A> {
    /// Id and offset of the round's last event.
    pub(crate) fn last_event(&self, claim_offset: u64) -> Option<(EventId, u64)> {
        self.last_event.map(|(id, place)| (id, claim_offset + self.first_sequence - 1 + place))
    }

    /// The append is proven: first the states, then every caller's answer.
    pub(crate) fn publish(self, state: &mut PartitionState<A>, claim_offset: u64) {
        let mut changed: HashMap<AggregateKey, u64> = HashMap::new();
        for pending in &self.pending {
            if let Outcome::Events { last_sequence, .. } = &pending.outcome {
                changed.insert(pending.id.clone(), *last_sequence); // in the order of the log: the last one stays
            }
        }
        for (id, entry) in self.working {
            if let Some(last_sequence) = changed.get(&id) {
                state.put(id, Arc::new(Entry { offset: claim_offset + last_sequence, ..entry }));
            }
        }
        for (pending, answer_sequence) in self.pending.into_iter().zip(self.answer_sequences) {
            let known = match &pending.outcome {
                Outcome::Events { first, count, last_sequence } => {
                    let offset = claim_offset + last_sequence;
                    Known::accepted(self.recorded_at_ms, pending.hash, offset, *first, *count)
                }
                Outcome::Answer { at, answer } => {
                    let offset = claim_offset + answer_sequence;
                    Known::answered(self.recorded_at_ms, pending.hash, offset, *at, answer)
                }
                Outcome::Failed(reply) => {
                    let reply = reply.clone();
                    pending.tell(&reply);
                    continue;
                }
            };
            let known = state.remember(pending.id.clone(), pending.command.clone(), known);
            pending.answer(&known);
        }
    }

    /// The append is in doubt: what the log must be asked about.
    pub(crate) fn into_pending(self) -> Vec<Pending> {
        self.pending
    }
}
