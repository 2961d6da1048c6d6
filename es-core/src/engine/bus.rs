//! The command bus: takes a command to the owner of its aggregate and brings back the answer.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::clock::{Clock, millis};
use crate::domain::codec::{self, Encoded};
use crate::domain::envelope::Metadata;
use crate::domain::error::{InvalidCommand, NEWER_ANSWER, NotDone, SendError};
use crate::domain::guard;
use crate::domain::hash::CommandHash;
use crate::domain::ids::{
    Actor, AggregateId, AggregateKey, CausationId, CommandId, CorrelationId, ExpectedVersion, InvalidId, Position,
    StreamId, Version,
};
use crate::domain::limits;
use crate::domain::text::short;
use crate::engine::budget::Budget;
use crate::engine::figures::PartitionStatus;
use crate::engine::forward::wire::{Forwarded, Outcome, Place};
use crate::engine::forward::{Forwarder, Unanswered};
use crate::engine::owner_state::OwnerState;
use crate::engine::parked::ParkedAggregate;
use crate::engine::partition::Partition;
use crate::engine::remembered::Remembered;
use crate::engine::retry::{self, Refolded, Retried, RetryError};
use crate::engine::round::{Caller, Job, Reply};
use crate::log::Log;
use crate::log::partition::partition_of;
use crate::log::reader::EventSource;
use crate::log::record::Answer;

/// Sends commands to the aggregates of one type. Cheap to clone.
///
/// ```
/// # use es_core::doc::*;
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let engine = Engine::in_memory();
/// let bus = engine.start::<Account>().await?;
/// bus.ready().await?;
///
/// let id = "42".to_string();
/// let receipt = bus.send(&id, AccountCommand::Deposit { amount: 5 }).actor("teller 7").await?;
/// assert_eq!(receipt.version.get(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Bus<A: Aggregate> {
    pub(crate) shared: Arc<Shared<A>>,
}

impl<A: Aggregate> Clone for Bus<A> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<A: Aggregate> fmt::Debug for Bus<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bus<{}>", A::NAME)
    }
}

pub(crate) struct Shared<A: Aggregate> {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) source: EventSource,
    pub(crate) desks: Arc<[Desk<A>]>,
    /// The way to the owners in other processes, where there may be any.
    pub(crate) forwarder: Option<Arc<Forwarder>>,
    pub(crate) send_deadline: Duration,
    pub(crate) retry_after: Duration,
    pub(crate) command_max_bytes: usize,
    pub(crate) clock: Arc<dyn Clock>,
    /// Bytes for commands that wait for owners here, and elsewhere.
    pub(crate) commands: Budget,
    pub(crate) forwarded: Budget,
    /// A permit to read the events of a parked aggregate again: one at a time reads a whole partition.
    pub(crate) refolds: Semaphore,
    /// The engine's.
    pub(crate) shutdown: CancellationToken,
}

/// Where commands of one partition are handed in.
pub(crate) struct Desk<A: Aggregate> {
    pub(crate) inbox: mpsc::Sender<Job<A>>,
    /// States of aggregates that are parked.
    pub(crate) refolded: mpsc::Sender<Refolded<A>>,
    pub(crate) partition: Partition,
}

/// The answer to an accepted command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The aggregate's stream.
    pub stream: StreamId,
    /// The version after the command.
    pub version: Version,
    /// The number of events that the command gave; 0 for a no-op.
    pub events: u32,
    /// Where a read model must be to contain the command.
    pub position: Position,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Whether this is the remembered answer to an earlier sending of the same command.
    pub duplicate: bool,
}

impl<A: Handle + Apply> Bus<A> {
    /// A command to the aggregate `id`; await it to send it.
    ///
    /// Without [`Sending::command_id`] each sending is a command of its own.
    ///
    /// # Order
    /// Two commands to one aggregate are decided in an order that you rely on only if you await the answer of the first
    /// before you send the second. If that answer is [`SendError::NotDone`] or [`SendError::OutcomeUnknown`], send the
    /// first again until it is neither.
    pub fn send(&self, id: &A::Id, command: A::Command) -> Sending<A> {
        Sending {
            bus: self.clone(),
            id: guard::call("its Display", || id.to_text())
                .map_err(|panic| InvalidId::new("aggregate id", &panic.text, "its Display panicked"))
                .and_then(AggregateKey::new),
            command,
            command_id: Ok(None),
            correlation_id: Ok(None),
            causation_id: Ok(None),
            actor: Ok(None),
            occurred_at: None,
            expected: ExpectedVersion::Any,
            traceparent: None,
            deadline: self.shared.send_deadline,
        }
    }

    /// Waits until every partition has an owner that serves, here or, by the word of the group, in another process.
    ///
    /// # Errors
    /// [`NotDone::NotReady`] as soon as one can't serve without help: superseded, failed or stopped.
    pub async fn ready(&self) -> Result<(), NotDone> {
        for desk in self.shared.desks.iter() {
            let mut status = desk.partition.status.clone();
            let settled = status
                .wait_for(|state| !matches!(state, OwnerState::TakingOver { .. }))
                .await
                .map_or(OwnerState::Stopped, |state| state.clone());
            if !matches!(settled, OwnerState::Serving | OwnerState::Elsewhere) {
                return Err(not_ready(&settled));
            }
        }
        Ok(())
    }

    /// Each partition's owner, in order.
    pub fn status(&self) -> Vec<PartitionStatus> {
        let one = |(partition, desk): (u32, &Desk<A>)| {
            let queued = desk.inbox.max_capacity() - desk.inbox.capacity();
            PartitionStatus::of(partition, desk.partition.status.borrow().clone(), queued, &desk.partition.counters)
        };
        (0..).zip(self.shared.desks.iter()).map(one).collect()
    }

    /// The aggregates of the partitions that this process follows whose commands are answered "parked", and why: at most 1,000 of a
    /// partition. They are tried again at the start of another release ([`EngineConfig::release`](crate::EngineConfig::release)), and
    /// by [`Bus::retry_parked`].
    pub fn parked(&self) -> Vec<ParkedAggregate> {
        let all = (0..).zip(self.shared.desks.iter());
        all.flat_map(|(partition, desk)| desk.partition.counters.parked.named(partition)).collect()
    }

    /// Folds the events of a parked aggregate from the beginning of the log, and lets it go on where they and its state can be
    /// used now. That takes as long as reading the log of a partition; one is read at a time, and commands do not wait for it.
    /// Within one release it helps where what was wrong was not in the events: a state that could not be kept, or code that
    /// depends on something else.
    ///
    /// # Errors
    /// [`RetryError::NotServed`] where another process owns the partition, [`RetryError::Overtaken`] and
    /// [`RetryError::Log`] where it may be done again.
    pub async fn retry_parked(&self, aggregate: &AggregateKey) -> Result<Retried, RetryError> {
        let Shared { source, desks, log, .. } = &*self.shared;
        let partition = partition_of(aggregate, source.partitions);
        let desk = &desks[partition as usize];
        let served = || match &*desk.partition.status.borrow() {
            OwnerState::Serving => Ok(()),
            other => Err(RetryError::NotServed { partition, reason: not_ready(other).to_string() }),
        };
        served()?;
        let _turn = self.shared.refolds.acquire().await.expect("it is never closed");
        served()?; // that may have taken long
        let resumed = desk.partition.counters.parked.resumed();
        if !desk.partition.counters.parked.may_have(aggregate) {
            return Ok(Retried::NotParked);
        }
        let (entry, read_to) = retry::refold::<A>(log.as_ref(), source, partition, aggregate)
            .await
            .map_err(|source| RetryError::Log { aggregate: aggregate.clone(), source })?;
        let entry = match entry {
            Ok(entry) => Arc::new(entry),
            Err(reason) => return Ok(Retried::Parked { reason }),
        };
        let (taken, answer) = oneshot::channel();
        let refolded = Refolded { aggregate: aggregate.clone(), entry, read_to, resumed, taken };
        let mut status = desk.partition.status.clone();
        let answer = async {
            let _ = desk.refolded.send(refolded).await; // where the owner is gone, so is the answer
            answer.await.ok()
        };
        // An owner that serves no more takes nothing; what it left is too old for the next time.
        let answer = tokio::select! {
            biased;
            answer = answer => answer,
            _ = status.wait_for(|state| *state != OwnerState::Serving) => None,
        };
        answer.map_or_else(
            || {
                served()?;
                Err(RetryError::Overtaken { partition, aggregate: aggregate.clone() })
            },
            Ok,
        )
    }

    /// Where this aggregate type's events are, for projections.
    pub fn source(&self) -> &EventSource {
        &self.shared.source
    }
}

/// A command that is about to be sent; see [`Bus::send`].
#[must_use = "a command is sent when this is awaited"]
pub struct Sending<A: Aggregate> {
    bus: Bus<A>,
    id: Result<AggregateKey, InvalidId>,
    command: A::Command,
    command_id: Result<Option<CommandId>, InvalidId>,
    correlation_id: Result<Option<CorrelationId>, InvalidId>,
    causation_id: Result<Option<CausationId>, InvalidId>,
    actor: Result<Option<Actor>, InvalidId>,
    occurred_at: Option<DateTime<Utc>>,
    expected: ExpectedVersion,
    traceparent: Option<Arc<str>>,
    deadline: Duration,
}

impl<A: Aggregate> fmt::Debug for Sending<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("id", &self.id).field("command_id", &self.command_id).finish_non_exhaustive()
    }
}

impl<A: Aggregate> Sending<A> {
    /// The id that makes a retry recognisable: unique among the commands to this aggregate.
    pub fn command_id(mut self, id: impl AsRef<str>) -> Self {
        self.command_id = CommandId::new(id).map(Some);
        self
    }

    /// The conversation that the command belongs to; its own id unless given.
    pub fn correlation_id(mut self, id: impl AsRef<str>) -> Self {
        self.correlation_id = CorrelationId::new(id).map(Some);
        self
    }

    /// The command or event that caused this command.
    pub fn causation_id(mut self, id: impl AsRef<str>) -> Self {
        self.causation_id = CausationId::new(id).map(Some);
        self
    }

    /// Who sends it.
    pub fn actor(mut self, actor: impl AsRef<str>) -> Self {
        self.actor = Actor::new(actor).map(Some);
        self
    }

    /// The business time of the events; the time of recording unless given. Kept to the microsecond.
    pub fn occurred_at(mut self, time: DateTime<Utc>) -> Self {
        self.occurred_at = Some(time);
        self
    }

    /// What the stream's version must be for the command to be decided.
    pub fn expect(mut self, expected: ExpectedVersion) -> Self {
        self.expected = expected;
        self
    }

    /// The W3C trace context, copied to the events.
    pub fn traceparent(mut self, value: &str) -> Self {
        self.traceparent = Some(value.into());
        self
    }

    /// How long to wait for the answer, instead of the engine's default.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }
}

impl<A: Handle + Apply> IntoFuture for Sending<A> {
    type Output = Result<Receipt, SendError<A::Error>>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    /// Sends the command and waits for its answer.
    ///
    /// Dropping the future after it was polled leaves the outcome unknown; sending again with the same command id is safe.
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.deliver())
    }
}

impl<A: Handle + Apply> Sending<A> {
    async fn deliver(self) -> Result<Receipt, SendError<A::Error>> {
        let (bus, deadline) = (self.bus.clone(), self.deadline);
        let shared = &bus.shared;
        let prepared = self.prepare().map_err(SendError::Invalid)?;
        let partition = partition_of(&prepared.id, shared.source.partitions);
        let desk = &shared.desks[partition as usize];
        let state = desk.partition.status.borrow().clone();
        if shared.shutdown.is_cancelled() {
            return Err(SendError::NotDone(NotDone::Stopped));
        }
        match (&state, &shared.forwarder) {
            (OwnerState::Serving, _) => prepared.ask_here(shared, desk, partition, deadline).await,
            (OwnerState::Elsewhere | OwnerState::Superseded { .. }, Some(forwarder)) => {
                prepared.ask_elsewhere(shared, forwarder, partition, deadline).await
            }
            _ => Err(SendError::NotDone(not_ready(&state))),
        }
    }

    /// Checks and encodes here, in the caller's task, so that the owner need not.
    fn prepare(self) -> Result<Prepared<A>, InvalidCommand> {
        let id = self.id.map_err(InvalidCommand::Id)?;
        if id.as_str().starts_with('!') {
            let reserved = InvalidId::new("aggregate id", id.as_str(), "it begins with !, as control records do");
            return Err(InvalidCommand::Id(reserved));
        }
        let command_id = self.command_id.map_err(InvalidCommand::Id)?;
        let is_fresh = command_id.is_none();
        let command_id = command_id.unwrap_or_else(CommandId::random);
        let correlation_id = match self.correlation_id.map_err(InvalidCommand::Id)? {
            Some(id) => id,
            None => CorrelationId::new(command_id.as_str()).map_err(InvalidCommand::Id)?,
        };
        let Encoded { kind, payload, hash } =
            codec::encode_command::<A::Codec, A::Command>(&self.command).map_err(InvalidCommand::Encoding)?;
        let (bytes, limit) = (payload.len(), self.bus.shared.command_max_bytes);
        if bytes > limit {
            return Err(InvalidCommand::TooLarge { what: "payload", bytes, limit });
        }
        // What is decided is what an owner in another process would read.
        let command = codec::decode_command::<A::Codec, A::Command>(kind.name, &payload)
            .map_err(|error| InvalidCommand::Encoding(error.to_string()))?;
        let metadata = limits::metadata(Metadata {
            command_id,
            correlation_id,
            causation_id: self.causation_id.map_err(InvalidCommand::Id)?,
            actor: self.actor.map_err(InvalidCommand::Id)?,
            occurred_at: self.occurred_at,
            expected: self.expected,
            traceparent: self.traceparent,
        })?;
        Ok(Prepared { id, command, name: kind.name, payload, hash, metadata, is_fresh })
    }
}

/// A command that was checked and encoded.
struct Prepared<A: Aggregate> {
    id: AggregateKey,
    command: A::Command,
    name: &'static str,
    payload: Vec<u8>,
    hash: CommandHash,
    metadata: Metadata,
    is_fresh: bool,
}

impl<A: Handle + Apply> Prepared<A> {
    async fn ask_here(
        self,
        shared: &Shared<A>,
        desk: &Desk<A>,
        partition: u32,
        deadline: Duration,
    ) -> Result<Receipt, SendError<A::Error>> {
        let (id, asked) = (self.id.clone(), Instant::now());
        let Some(held) = shared.commands.try_hold(self.payload.len()) else {
            return Err(SendError::NotDone(NotDone::Overloaded { retry_after: shared.retry_after }));
        };
        let (caller, answer) = Caller::local(held);
        let Self { id: aggregate, command, metadata, hash, is_fresh, .. } = self;
        // A machine that slept, or a clock that was set, may have passed the time for which its id is remembered.
        let expires_at_ms = shared.clock.now_ms().saturating_add(millis(deadline));
        let job = Job { id: aggregate, command, hash, metadata, is_fresh, expires_at_ms, caller };
        desk.inbox.try_send(job).map_err(|error| {
            SendError::NotDone(match error {
                mpsc::error::TrySendError::Full(_) => NotDone::Overloaded { retry_after: shared.retry_after },
                mpsc::error::TrySendError::Closed(_) => NotDone::Stopped,
            })
        })?;
        // An owner that goes without a word leaves the outcome as unknown as one that is too slow.
        let reply = match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(reply)) => reply,
            answer => {
                let reason = answer.is_ok().then(|| "its owner ended meanwhile".to_owned());
                return Err(SendError::OutcomeUnknown { waited: asked.elapsed(), reason });
            }
        };
        match reply {
            Reply::Answer { known, duplicate } => shared.answer(id, partition, &known, duplicate, asked.elapsed()),
            Reply::NotDone(why) => Err(SendError::NotDone(why)),
            Reply::CommandIdReused => Err(SendError::CommandIdReused),
            Reply::NotKnown(reason) => Err(SendError::OutcomeUnknown { waited: asked.elapsed(), reason: Some(reason) }),
            Reply::Parked(reason) => Err(SendError::Parked { aggregate: id, reason }),
        }
    }

    async fn ask_elsewhere(
        self,
        shared: &Shared<A>,
        forwarder: &Forwarder,
        partition: u32,
        deadline: Duration,
    ) -> Result<Receipt, SendError<A::Error>> {
        let (id, asked) = (self.id.clone(), Instant::now());
        let Some(_held) = shared.forwarded.try_hold(self.payload.len()) else {
            return Err(SendError::NotDone(NotDone::Overloaded { retry_after: shared.retry_after }));
        };
        let command = Forwarded {
            id: self.id,
            name: self.name.into(),
            payload: self.payload.into(),
            metadata: self.metadata,
            expires_at_ms: i64::MAX,
            reply_to: None,
            release: None,
            shape: codec::command_fingerprint::<A::Command>(self.name).map(Arc::from),
        };
        let answer = tokio::select! {
            biased;
            answer = forwarder.ask::<A>(command, partition, deadline) => answer,
            // Nobody reads answers any more.
            () = shared.shutdown.cancelled() => {
                Err(Unanswered::Unknown { reason: Some("the engine was stopped meanwhile".into()) })
            }
        };
        match answer {
            Ok(answered) => shared.forwarded(id, answered.outcome, asked.elapsed()),
            Err(Unanswered::NotDone(why)) => Err(SendError::NotDone(why)),
            Err(Unanswered::Unknown { reason }) => Err(SendError::OutcomeUnknown { waited: asked.elapsed(), reason }),
        }
    }
}

impl<A: Aggregate> Shared<A> {
    fn answer(
        &self,
        id: AggregateKey,
        partition: u32,
        known: &Remembered,
        duplicate: bool,
        waited: Duration,
    ) -> Result<Receipt, SendError<A::Error>> {
        let at = Version::new(known.version());
        match known.answer() {
            Some(Answer::Refused(text)) => return Err(refused::<A>(&text)),
            Some(Answer::Conflict(expected)) => return Err(SendError::Conflict { expected, actual: at }),
            Some(Answer::Panicked(text)) => return Err(SendError::Panicked(text)),
            Some(Answer::Invalid(unfit)) => return Err(SendError::Invalid(unfit.into())),
            Some(Answer::Other(_)) => {
                return Err(SendError::OutcomeUnknown { waited, reason: Some(NEWER_ANSWER.into()) });
            }
            Some(Answer::NoOp(())) | None => {}
        }
        let recorded_at = DateTime::from_timestamp_millis(known.recorded_at_ms).unwrap_or_default();
        Ok(self.receipt(id, at, known.events, Place { partition, offset: known.offset, recorded_at, duplicate }))
    }

    /// The answer of an owner in another process.
    fn forwarded(&self, id: AggregateKey, outcome: Outcome, waited: Duration) -> Result<Receipt, SendError<A::Error>> {
        Err(match outcome {
            Outcome::Accepted { version, events, at } => {
                return Ok(self.receipt(id, Version::new(version), events, at));
            }
            Outcome::Refused { error, .. } => refused::<A>(error.get()),
            Outcome::Conflict { expected, version, .. } => {
                SendError::Conflict { expected, actual: Version::new(version) }
            }
            Outcome::CommandIdReused => SendError::CommandIdReused,
            Outcome::Invalid { reason } => SendError::Invalid(InvalidCommand::Elsewhere(reason)),
            Outcome::Misrouted { reason } => SendError::NotDone(NotDone::Misrouted { reason }),
            Outcome::Panicked { reason } => SendError::Panicked(reason),
            Outcome::Parked { reason } => SendError::Parked { aggregate: id, reason },
            // Nothing proves it: an owner with another clock, before or after this one, may have decided the command.
            Outcome::Expired => {
                let reason = Some("it expired before it was decided, by the owner's clock".into());
                SendError::OutcomeUnknown { waited, reason }
            }
            Outcome::NotKnown { reason, .. } => SendError::OutcomeUnknown { waited, reason: Some(reason) },
            Outcome::NotDone { reason } => SendError::NotDone(NotDone::NotReady { reason }),
        })
    }

    fn receipt(&self, id: AggregateKey, version: Version, events: u32, at: Place) -> Receipt {
        let category = self.source.category.clone();
        Receipt {
            stream: StreamId { category: category.clone(), id },
            version,
            events,
            position: Position { category, partition: at.partition, offset: at.offset },
            recorded_at: at.recorded_at,
            duplicate: at.duplicate,
        }
    }
}

/// The domain's refusal as it was when it was made.
fn refused<A: Aggregate>(text: &str) -> SendError<A::Error> {
    guard::fallible("reading its refusal", || serde_json::from_str(text)).map_or_else(
        |error| SendError::Invalid(InvalidCommand::Encoding(format!("its refusal {}: {error}", short(text)))),
        SendError::Refused,
    )
}

fn not_ready(state: &OwnerState) -> NotDone {
    let reason = match state {
        OwnerState::Serving => "it is just taking over".into(),
        OwnerState::TakingOver { reason } => reason.clone(),
        OwnerState::Elsewhere => "another process owns the partition".into(),
        OwnerState::Superseded { by } => format!("{by} took the partition over"),
        OwnerState::Failed { reason } => reason.clone(),
        OwnerState::Stopped => return NotDone::Stopped,
    };
    NotDone::NotReady { reason }
}
