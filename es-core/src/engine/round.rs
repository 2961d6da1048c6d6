//! A round: what an owner decides and appends at once. Nothing that it decides is visible before it is proven.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use crate::domain::aggregate::{Aggregate, Apply, Command, Context, Handle, MessageType, Refusal};
use crate::domain::causes::with_causes;
use crate::domain::codec;
use crate::domain::envelope::{Envelope, Metadata};
use crate::domain::error::{NotDone, Unfit};
use crate::domain::guard;
use crate::domain::hash::{CommandHash, EventHash};
use crate::domain::ids::{
    Actor, AggregateKey, CausationId, CommandId, CorrelationId, Epoch, EventId, ExpectedVersion, StreamId, Version,
};
use crate::domain::limits;
use crate::domain::random::Random;
use crate::domain::text::short;
use crate::engine::budget::Held;
use crate::engine::forward::lane;
use crate::engine::remembered::Remembered;
use crate::engine::state::{Entry, PartitionState, fold};
use crate::engine::store::StoreError;
use crate::engine::store::key::Spans;
use crate::log::Record;
use crate::log::reader::LastRecord;
use crate::log::record::{Answer, AnswerEntry, Answers, COMMAND_BYTES_MAX, Encoder, Stamp};

/// Why a command was not decided that was taken from the queue.
pub(crate) const STARTING_OVER: &str = "what was known of the partition is looked up anew";

/// Why a command of the topic is put back.
const IN_ORDER: &str = "a command that stands before it on the topic comes first";

/// A command on its way to the owner.
pub(crate) struct Job<A: Aggregate> {
    pub(crate) id: AggregateKey,
    pub(crate) command: A::Command,
    pub(crate) hash: CommandHash,
    pub(crate) metadata: Metadata,
    /// Its id was made for it just now: nobody can have sent another command with it.
    pub(crate) is_fresh: bool,
    /// Milliseconds since 1970, after which it is not decided any more.
    pub(crate) expires_at_ms: i64,
    pub(crate) caller: Caller,
}

impl<A: Aggregate> Job<A> {
    pub(crate) fn not_done(self, why: NotDone) {
        self.caller.tell(Reply::NotDone(why));
    }
}

/// Who waits for a command's answer. One that is dropped without an answer learns that nothing was done, unless the
/// command was decided: then it learns nothing, since nobody knows any more.
pub(crate) struct Caller {
    reply: Option<oneshot::Sender<Reply>>,
    place: Option<lane::Place>,
    decided: bool,
    /// The command's bytes, until it is answered.
    _held: Held,
}

impl Caller {
    /// One in this process; commands of one sender are in no lane.
    pub(crate) fn local(held: Held) -> (Self, oneshot::Receiver<Reply>) {
        Self::new(None, held)
    }

    /// One whose command stands on the commands topic.
    pub(crate) fn in_lane(place: lane::Place, held: Held) -> (Self, oneshot::Receiver<Reply>) {
        Self::new(Some(place), held)
    }

    fn new(place: Option<lane::Place>, held: Held) -> (Self, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        (Self { reply: Some(reply), place, decided: false, _held: held }, answer)
    }

    fn is_gone(&self) -> bool {
        self.reply.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    fn tell(mut self, reply: Reply) {
        self.send(reply);
    }

    fn send(&mut self, reply: Reply) {
        // Before the answer: whoever hands on the next command must find the lane at its end.
        if let (Some(place), Reply::NotDone(why)) = (&self.place, &reply)
            && *why != NotDone::Expired
        {
            place.put_back();
        }
        if let Some(caller) = self.reply.take() {
            let _ = caller.send(reply); // nobody waits any more
        }
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.reply.is_none() {
            return;
        }
        if let Some(place) = &self.place {
            place.put_back();
        }
        if !self.decided {
            self.send(Reply::NotDone(NotDone::Stopped));
        }
    }
}

/// What the owner tells a caller.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The command's answer, proven and remembered.
    Answer {
        known: Arc<Remembered>,
        duplicate: bool,
    },
    NotDone(NotDone),
    CommandIdReused,
    /// This release can't tell what became of it, another one may.
    NotKnown(String),
    Parked(String),
}

impl Reply {
    /// The answer to a command with this hash, of what was remembered under its id.
    fn remembered(known: &Arc<Remembered>, hash: CommandHash, duplicate: bool) -> Self {
        match known.is_of(hash) {
            Some(true) => Self::Answer { known: known.clone(), duplicate },
            Some(false) => Self::CommandIdReused,
            None => {
                let reason = "the command id is remembered by a hash of a kind that this release can't make";
                Self::NotKnown(reason.into())
            }
        }
    }
}

/// What a round needs to know of its owner.
#[derive(Debug, Clone)]
pub(crate) struct RoundContext {
    pub(crate) encoder: Encoder,
    /// What makes ids unique.
    pub(crate) random: Arc<dyn Random>,
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
    pub(crate) expected: ExpectedVersion,
    about: About,
    outcome: Outcome,
    /// What the clock showed when it was decided.
    clock_ms: i64,
    /// The first is the command's; the others sent the same id, perhaps with another payload.
    callers: Vec<(CommandHash, Caller)>,
}

/// Whose command it is, for who asks later why it was refused.
struct About {
    command_type: &'static str,
    actor: Option<Actor>,
    correlation: CorrelationId,
    causation: Option<CausationId>,
}

enum Outcome {
    /// Its events, recorded then; the last has this sequence.
    Events { first: Version, count: u32, last_sequence: u64, recorded_ms: i64 },
    /// An entry of an answers record; which one is known at the end of the round.
    Answer { at: Version, answer: Answer },
    /// It is not decided here and now. Not remembered; but an owner that was superseded, and does not know what was
    /// accepted since, may not say so either: it is told with the round.
    Undecided(Reply),
}

/// Why a command gives neither events nor a refusal.
enum Failure {
    Panicked(String),
    Unfit(Unfit),
    Parked(String),
}

impl About {
    fn of<C: Command>(command: &C, metadata: &Metadata) -> Self {
        Self {
            command_type: guard::call("type_index", || C::TYPES[command.type_index()].name).unwrap_or_default(),
            actor: metadata.actor.clone(),
            correlation: metadata.correlation_id.clone(),
            causation: metadata.causation_id.clone(),
        }
    }

    /// The conversation, unless the command began it.
    fn joined(&self, command: &CommandId) -> Option<CorrelationId> {
        Some(&self.correlation).filter(|correlation| correlation.as_str() != command.as_str()).cloned()
    }
}

impl Pending {
    fn of(
        id: AggregateKey,
        metadata: Metadata,
        about: About,
        outcome: Outcome,
        clock_ms: i64,
        (hash, mut caller): (CommandHash, Caller),
    ) -> Self {
        caller.decided = true;
        let Metadata { command_id: command, expected, .. } = metadata;
        Self { id, command, expected, about, outcome, clock_ms, callers: vec![(hash, caller)] }
    }

    fn hash(&self) -> CommandHash {
        self.callers[0].0
    }

    fn share(&mut self, hash: CommandHash, mut caller: Caller) {
        caller.decided = true;
        self.callers.push((hash, caller));
    }

    /// Tells every caller; all but the first sent a duplicate. What the log has under the command's id may be another
    /// command, which another owner took first.
    pub(crate) fn answer(self, known: &Arc<Remembered>) {
        for (place, (hash, caller)) in self.callers.into_iter().enumerate() {
            caller.tell(Reply::remembered(known, hash, place > 0));
        }
    }

    /// Whether this may be its answer. One that was forgotten when it was decided is that to an earlier command of its id.
    pub(crate) fn may_be(&self, found: &Remembered, spans: Spans) -> bool {
        spans.holds(found.recorded_at_ms, self.clock_ms)
    }

    /// Whether its id may have been forgotten by the log's time, if it was recorded.
    pub(crate) fn may_be_forgotten(&self, log_ms: i64, spans: Spans) -> bool {
        !spans.holds(self.clock_ms, log_ms)
    }

    fn is_answered(&self) -> bool {
        matches!(self.outcome, Outcome::Answer { .. })
    }

    fn conflicts(&self) -> bool {
        matches!(&self.outcome, Outcome::Answer { answer: Answer::Conflict(_), .. })
    }

    fn tell(self, reply: &Reply) {
        for (_, caller) in self.callers {
            caller.tell(reply.clone());
        }
    }

    /// Whether somebody still waits for the answer.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.callers.iter().any(|(_, caller)| !caller.is_gone())
    }

    /// Tells every caller that nothing was done.
    pub(crate) fn not_done(self, why: &NotDone) {
        self.tell(&Reply::NotDone(why.clone()));
    }
}

pub(crate) struct Round<'a, A: Aggregate> {
    desk: &'a RoundContext,
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
    /// The sequence and the time of the answers record that holds each pending command; 0 for those with events. For those
    /// from `answered` on it is not made yet.
    answers_at: Vec<(u64, i64)>,
    answered: usize,
    /// The aggregates of those that came over the topic.
    owing: HashSet<AggregateKey>,
    /// The event id of the last record, where that is an event.
    last_event: Option<EventId>,
    bytes: usize,
    /// Of the next event's id; drawn once for a round, and one more for each event.
    event_id: Option<u128>,
}

impl<'a, A: Handle + Apply> Round<'a, A> {
    /// A round whose first record has the sequence after `sequence`.
    pub(crate) fn new(desk: &'a RoundContext, state: &'a mut PartitionState<A>, epoch: Epoch, sequence: u64) -> Self {
        Self {
            desk,
            now: recorded_at(state.last_recorded_ms()),
            state,
            epoch,
            sequence,
            clock_ms: i64::MIN,
            working: HashMap::new(),
            pending: Vec::new(),
            by_id: HashMap::new(),
            records: Vec::new(),
            events: Vec::new(),
            answers_at: Vec::new(),
            answered: 0,
            owing: HashSet::new(),
            last_event: None,
            bytes: 0,
            event_id: None,
        }
    }

    /// What comes is decided at this time.
    pub(crate) fn at(&mut self, clock_ms: i64) {
        self.clock_ms = clock_ms;
        self.now = self.now.max(recorded_at(clock_ms));
    }

    /// Decides one command on the working state, or answers it at once where that needs no proof.
    pub(crate) fn decide(&mut self, job: Job<A>) -> Result<(), StoreError> {
        if job.caller.is_gone() {
            return Ok(()); // the caller went away before anything was done
        }
        if job.caller.place.as_ref().is_some_and(|place| !place.is_open()) {
            job.not_done(NotDone::NotReady { reason: IN_ORDER.into() });
            return Ok(());
        }
        let Some(job) = self.unknown(job)? else { return Ok(()) };
        if let Err(reason) = limits::recorded_ms(self.now.timestamp_millis()) {
            job.not_done(NotDone::NotReady { reason: format!("nothing can be recorded by the clock here: {reason}") });
            return Ok(());
        }
        if job.expires_at_ms <= self.clock_ms {
            // Not by its id: another sending of it may have time.
            self.pass_over(job, Reply::NotDone(NotDone::Expired));
            return Ok(());
        }
        let mut entry = match self.working.remove(&job.id) {
            Some(entry) => entry,
            None => match self.state.entry(&job.id) {
                Ok(entry) => working(&entry),
                Err(error) => return Err(self.give_up(job, error)),
            },
        };
        if let Some(reason) = &entry.parked {
            let reply = Reply::Parked(reason.clone());
            self.working.insert(job.id.clone(), entry);
            self.pass_over(job, reply);
            return Ok(());
        }
        if job.caller.place.as_ref().is_some_and(|place| !place.is_next_of(&job.id)) {
            self.working.insert(job.id.clone(), entry);
            job.not_done(NotDone::NotReady { reason: IN_ORDER.into() });
            return Ok(());
        }
        let Job { id, command, hash, metadata, caller, is_fresh, .. } = job;
        let (at, about) = (entry.version, About::of(&command, &metadata));
        let in_lane = caller.place.is_some();
        let outcome = match self.outcome(&id, &mut entry, command, hash, &metadata, in_lane) {
            Ok(outcome) => outcome,
            Err(Failure::Panicked(text)) => Outcome::Answer { at, answer: Answer::Panicked(text) },
            Err(Failure::Unfit(unfit)) => Outcome::Answer { at, answer: Answer::Invalid(unfit) },
            Err(Failure::Parked(reason)) => Outcome::Undecided(Reply::Parked(reason)),
        };
        if !is_fresh {
            self.by_id.insert((id.clone(), metadata.command_id.clone()), self.pending.len());
        }
        let pending = Pending::of(id.clone(), metadata, about, outcome, self.clock_ms, (hash, caller));
        if in_lane && pending.is_answered() {
            self.owing.insert(id.clone());
        }
        self.bytes += self.entry_of(&pending).map_or(0, |entry| entry.size_bound());
        self.pending.push(pending);
        self.working.insert(id, entry);
        Ok(())
    }

    /// The command again if nothing is known under its id. Else it is told that, now or with the round.
    fn unknown(&mut self, job: Job<A>) -> Result<Option<Job<A>>, StoreError> {
        if job.is_fresh {
            return Ok(Some(job));
        }
        let key = (job.id.clone(), job.metadata.command_id.clone());
        if let Some(&place) = self.by_id.get(&key) {
            let pending = &mut self.pending[place];
            // After a conflict it is decided anew if it was sent with another precondition.
            if pending.hash() != job.hash || !pending.conflicts() || pending.expected == job.metadata.expected {
                if job.caller.place.is_some() && place >= self.answered && pending.is_answered() {
                    self.owing.insert(job.id);
                }
                pending.share(job.hash, job.caller);
                return Ok(None);
            }
        }
        let known = match self.state.known(&key.0, &key.1, self.clock_ms) {
            Ok(known) => known,
            Err(error) => return Err(self.give_up(job, error)),
        };
        if let Some(known) = known {
            let told = match known.is_of(job.hash) {
                Some(true) => known.told(job.metadata.expected),
                Some(false) | None => Some(known),
            };
            if let Some(told) = told {
                job.caller.tell(Reply::remembered(&told, job.hash, true));
                return Ok(None);
            }
        }
        Ok(Some(job))
    }

    /// Answers a command, with the round, without deciding it.
    fn pass_over(&mut self, job: Job<A>, reply: Reply) {
        let Job { id, command, hash, metadata, caller, .. } = job;
        if let Some(place) = &caller.place {
            place.pass(&id);
        }
        let about = About::of(&command, &metadata);
        let outcome = Outcome::Undecided(reply);
        self.pending.push(Pending::of(id, metadata, about, outcome, self.clock_ms, (hash, caller)));
    }

    /// The store can't be read, so the round is not appended: everybody in it is told so.
    fn give_up(&mut self, job: Job<A>, error: StoreError) -> StoreError {
        let why = NotDone::NotReady { reason: STARTING_OVER.into() };
        for pending in self.pending.drain(..) {
            pending.not_done(&why);
        }
        job.not_done(why);
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
        in_lane: bool,
    ) -> Result<Outcome, Failure> {
        let at = entry.version;
        if !metadata.expected.holds(at) {
            return Ok(Outcome::Answer { at, answer: Answer::Conflict(metadata.expected) });
        }
        let Some(state) = &entry.state else { return Err(Failure::Parked("it has no state".into())) };
        let context = self.context(id, at, metadata);
        let decided = guard::call("handle", || state.handle(command, &context));
        match decided.map_err(|panic| Failure::Panicked(panic.text))? {
            Ok(events) if events.is_empty() => Ok(Outcome::Answer { at, answer: Answer::NoOp(()) }),
            Ok(events) => {
                // Events may land and an answers record behind them may not: then the later command took effect, and the
                // earlier one is decided anew.
                if in_lane && self.owing.contains(id) {
                    self.cut_answers();
                }
                self.record(id, entry, &events, hash, metadata, context.occurred_at)
            }
            Err(refusal) => {
                let text = written_refusal(&refusal).map_err(unencodable)?;
                // An answers record holds it beside ids, as JSON text within JSON.
                self.check_size("refusal", 2 * text.len() + 8192)?;
                Ok(Outcome::Answer { at, answer: Answer::Refused(text) })
            }
        }
    }

    fn context(&self, id: &AggregateKey, version: Version, metadata: &Metadata) -> Context {
        // By the clock: recorded time may be ahead of it, and says nothing of when it happened.
        let clock = DateTime::from_timestamp_millis(self.clock_ms).unwrap_or(self.now);
        let occurred_at = metadata.occurred_at.unwrap_or(clock);
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

    /// Encodes the events, applies what every reader will read of them to the working state, and only then takes them
    /// into the round.
    fn record(
        &mut self,
        id: &AggregateKey,
        entry: &mut Entry<A>,
        events: &[A::Event],
        hash: CommandHash,
        metadata: &Metadata,
        occurred_at: DateTime<Utc>,
    ) -> Result<Outcome, Failure> {
        let (count, limit) = (events.len(), self.desk.events_max);
        if count > limit {
            return Err(Failure::Unfit(Unfit::TooManyEvents { count: count as u64, limit: limit as u64 }));
        }
        let count = u32::try_from(count).expect("bounded by the limit above");
        let first = entry.version.next();
        let (mut version, mut head) = (entry.version, entry.head);
        let (mut envelopes, mut records) = (Vec::with_capacity(events.len()), Vec::with_capacity(events.len()));
        let mut read = Vec::with_capacity(events.len());
        let mut bytes = 0;
        for (index, event) in (0..count).zip(events) {
            version = version.next();
            let written = Written::<A>::of(event)?;
            let envelope = self.envelope(id, written.kind, written.payload, version, head, hash, metadata, occurred_at);
            let stamp = Stamp { epoch: self.epoch, sequence: self.sequence + 1 + u64::from(index), index, count };
            crate::log::limits::event(&envelope, &stamp).map_err(unencodable)?;
            let record = self.desk.encoder.event(&envelope, stamp);
            self.check_size("event", record.size())?;
            bytes += record.size();
            if bytes > COMMAND_BYTES_MAX {
                let (what, bytes, limit) = ("list of events".to_owned(), bytes as u64, COMMAND_BYTES_MAX as u64);
                return Err(Failure::Unfit(Unfit::TooLarge { what, bytes, limit }));
            }
            head = envelope.hash;
            envelopes.push(envelope);
            records.push(record);
            read.push(written.read);
        }
        let applied = guard::call("apply", || {
            let state = entry.state.as_mut().expect("it was decided on");
            read.iter().for_each(|event| state.apply(event));
        });
        if let Err(panic) = applied {
            match self.rebuild(id) {
                Ok(rebuilt) => *entry = rebuilt,
                // Nobody may decide on what may be half applied.
                Err(_) => {
                    let reason = "its state could not be looked up again after a panic".to_owned();
                    (entry.parked, entry.state) = (Some(reason), None);
                }
            }
            return Err(Failure::Panicked(panic.text));
        }
        (entry.version, entry.head) = (version, head);
        self.sequence += u64::from(count);
        self.bytes += records.iter().map(Record::size).sum::<usize>();
        self.last_event = envelopes.last().map(|event| event.event_id);
        self.records.append(&mut records);
        self.events.append(&mut envelopes);
        let (last_sequence, recorded_ms) = (self.sequence, self.now.timestamp_millis());
        Ok(Outcome::Events { first, count, last_sequence, recorded_ms })
    }

    /// The working state once more, from the proven one and this round's events: `apply` may have left half of it.
    fn rebuild(&mut self, id: &AggregateKey) -> Result<Entry<A>, String> {
        let mut entry = working(&*self.state.entry(id).map_err(|error| with_causes(&error))?);
        for event in self.events.iter().filter(|event| event.stream.id == *id) {
            fold(&mut entry, event)?;
        }
        Ok(entry)
    }

    #[expect(clippy::too_many_arguments, reason = "each is a field of the envelope")]
    fn envelope(
        &mut self,
        id: &AggregateKey,
        kind: &MessageType,
        payload: Vec<u8>,
        version: Version,
        previous_hash: EventHash,
        command_hash: CommandHash,
        metadata: &Metadata,
        occurred_at: DateTime<Utc>,
    ) -> Envelope {
        let random = self.event_id.get_or_insert_with(|| self.desk.random.u128());
        *random = random.wrapping_add(1);
        let event_id = EventId::of(self.now.timestamp_millis().max(0) as u64, *random);
        let mut envelope = Envelope {
            context: self.desk.context.clone(),
            stream: StreamId { category: self.desk.category.clone(), id: id.clone() },
            version,
            event_id,
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
        envelope
    }

    fn check_size(&self, what: &str, bytes: usize) -> Result<(), Failure> {
        let limit = self.desk.record_max_bytes;
        if bytes <= limit {
            return Ok(());
        }
        let (what, bytes, limit) = (what.to_owned(), bytes as u64, limit as u64);
        Err(Failure::Unfit(Unfit::TooLarge { what, bytes, limit }))
    }

    /// The entry of an answers record, where the command has one.
    fn entry_of(&self, pending: &Pending) -> Option<AnswerEntry> {
        let Outcome::Answer { at, answer } = &pending.outcome else { return None };
        Some(AnswerEntry {
            aggregate: pending.id.clone(),
            command: pending.command.clone(),
            hash: pending.hash(),
            version: *at,
            command_type: Some(pending.about.command_type.into()),
            actor: pending.about.actor.clone(),
            correlation: pending.about.joined(&pending.command),
            causation: pending.about.causation.clone(),
            answer: answer.clone(),
        })
    }

    /// The bytes of events and answers so far.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there are answers to prove and no event that would be appended anyway.
    pub(crate) fn has_only_answers(&self) -> bool {
        self.events.is_empty() && !self.pending.is_empty()
    }

    /// Makes the answers records of what was answered so far.
    fn cut_answers(&mut self) {
        let mut entries: Vec<AnswerEntry> = Vec::new();
        let mut bytes = 0;
        for place in self.answered..self.pending.len() {
            let Some(entry) = self.entry_of(&self.pending[place]) else {
                self.answers_at.push((0, 0));
                continue;
            };
            let size = entry.size_bound();
            if bytes + size > self.desk.record_max_bytes && !entries.is_empty() {
                self.append_answers(std::mem::take(&mut entries));
                bytes = 0;
            }
            bytes += size;
            entries.push(entry);
            self.answers_at.push((self.sequence + 1, self.now.timestamp_millis()));
        }
        self.answered = self.pending.len();
        self.owing.clear();
        if !entries.is_empty() {
            self.append_answers(entries);
        }
    }

    fn append_answers(&mut self, answers: Vec<AnswerEntry>) {
        self.sequence += 1;
        let stamp = Stamp { epoch: self.epoch, sequence: self.sequence, index: 0, count: 0 };
        let record = self.desk.encoder.answers(&Answers { answers }, stamp, self.now.timestamp_millis());
        self.records.push(record);
        self.last_event = None;
    }

    /// Ends the deciding: the rest of the answers records is made, and what hangs on the append is set apart.
    pub(crate) fn close(mut self) -> Closed<A> {
        self.cut_answers();
        if self.records.is_empty() && !self.pending.is_empty() {
            self.append_answers(Vec::new()); // what was passed over is told once it is proven who owns the partition
        }
        Closed {
            first_sequence: self.sequence + 1 - self.records.len() as u64,
            recorded_at_ms: self.records.last().map_or(i64::MIN, |record| record.timestamp_ms),
            records: self.records,
            last_sequence: self.sequence,
            working: self.working,
            pending: self.pending,
            answers_at: self.answers_at,
            last_event: self.last_event,
            epoch: self.epoch,
        }
    }
}

/// Not said at length: it is recorded.
fn unencodable(reason: String) -> Failure {
    Failure::Unfit(Unfit::Encoding(short(&reason).into_owned()))
}

fn recorded_at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("a clock shows a time within chrono's range")
}

/// What a round works on: a state that can't be copied is not decided on.
fn working<A: Aggregate>(proven: &Entry<A>) -> Entry<A> {
    proven.copy().unwrap_or_else(|panic| {
        let Entry { version, offset, head, .. } = *proven;
        Entry { version, offset, head, parked: Some(panic.to_string()), state: None }
    })
}

/// An event as it is stored, and as every reader will read it: what `handle` returned may hold what the format can't,
/// such as a NaN or a skipped field, and nobody may decide on that.
struct Written<A: Aggregate> {
    kind: &'static MessageType,
    payload: Vec<u8>,
    read: A::Event,
}

impl<A: Aggregate> Written<A> {
    fn of(event: &A::Event) -> Result<Self, Failure> {
        let (kind, payload) = codec::encode_event::<A::Codec, A::Event>(event).map_err(unencodable)?;
        let read = codec::decode_event::<A::Codec, A::Event>(kind.name, kind.schema_version, &payload)
            .map_err(|error| unencodable(format!("an event of it would not be read back: {error}")))?;
        Ok(Self { kind, payload, read })
    }
}

/// A refusal as it is stored, which the sender can read.
fn written_refusal<E: Refusal>(refusal: &E) -> Result<String, String> {
    let written = guard::fallible("writing its refusal", || serde_json::to_string(refusal));
    written.and_then(|text| {
        guard::fallible("reading its refusal back", || serde_json::from_str::<E>(&text).map(drop))
            .map_err(|error| format!("its refusal {} would not be read back: {error}", short(&text)))?;
        Ok(text)
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
    answers_at: Vec<(u64, i64)>,
    epoch: Epoch,
    /// The event id of the last record, where that is an event.
    last_event: Option<EventId>,
}

impl<A: Handle + Apply> Closed<A> {
    /// The last record, as a reader would find it.
    pub(crate) fn last_record(&self, claim_offset: u64) -> LastRecord {
        let (epoch, sequence) = (self.epoch, self.last_sequence);
        LastRecord { offset: claim_offset + sequence, epoch, sequence, event_id: self.last_event }
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
        // Also where nothing is remembered: recorded time never falls.
        state.note_time(self.recorded_at_ms);
        for (pending, (sequence, recorded_ms)) in self.pending.into_iter().zip(self.answers_at) {
            let known = match &pending.outcome {
                Outcome::Events { first, count, last_sequence, recorded_ms } => {
                    let offset = claim_offset + last_sequence;
                    Remembered::accepted(*recorded_ms, pending.hash(), offset, *first, *count)
                }
                Outcome::Answer { at, answer } => {
                    let offset = claim_offset + sequence;
                    Remembered::answered(recorded_ms, pending.hash(), offset, *at, answer)
                }
                Outcome::Undecided(reply) => {
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
