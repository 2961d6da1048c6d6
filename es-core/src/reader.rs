//! Reading a partition: decode each record, apply the validity rule, release whole commands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::aggregate::Aggregate;
use crate::envelope::Envelope;
use crate::ids::EventId;
use crate::log::{Log, LogError, LogErrorKind, StoredRecord};
use crate::partition::partition_of;
use crate::record::{self, Answers, Claim, Decoded, Stamp};
use crate::scan::Scan;
use crate::validity::{Current, Rule, Verdict, VoidReason};

/// Where the events of an aggregate type are: its topic and the number of partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSource {
    /// The bounded context as declared by the aggregate.
    pub context: Arc<str>,
    /// The aggregate type's stored name.
    pub category: Arc<str>,
    /// The events topic.
    pub topic: Arc<str>,
    /// The number of partitions of the topic.
    pub partitions: u32,
}

impl EventSource {
    /// The events of aggregate type `A` under a namespace, whose topic has this many partitions.
    pub fn of<A: Aggregate>(namespace: &str, partitions: u32) -> Self {
        let topic = events_topic(namespace, A::NAME).into();
        Self { context: A::CONTEXT.into(), category: A::NAME.into(), topic, partitions }
    }
}

/// The name of the events topic of an aggregate type, for example `bank.account.events`.
pub fn events_topic(namespace: &str, aggregate: &str) -> String {
    format!("{namespace}.{aggregate}.events")
}

/// An event that counts, with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The event.
    pub envelope: Envelope,
}

/// What a record meant to the reader.
#[derive(Debug, Clone, PartialEq)]
pub enum Fed {
    /// Nothing to do: a tombstone, or an event that waits for the rest of its command.
    Nothing,
    /// The events of one command, complete.
    Events(Vec<Recorded>),
    /// The word that counts that an aggregate was erased up to a version; the hash before it is that of the event with this version.
    Erased(Box<Recorded>),
    /// An answers record that counts.
    Answers(Answers),
    /// A claim that is now the current one.
    Claim(Claim),
    /// One of ours that does not count.
    Void(VoidReason),
    /// Not one of ours; why.
    Foreign(String),
}

/// Where a reader goes on, and in which state: stored beside what was made of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The log's id; nil before the first claim.
    pub log_id: Uuid,
    /// The offset to go on from.
    pub next: u64,
    /// The state of the validity rule there.
    pub current: Current,
    /// Id and offset of the last event before `next`.
    pub last_event: Option<(EventId, u64)>,
}

/// Reads one partition record by record, without I/O of its own, in constant memory.
#[derive(Debug, Clone)]
pub struct PartitionReader {
    source: EventSource,
    partition: u32,
    log_id: Uuid,
    next: u64,
    rule: Rule<Recorded>,
    last_event: Option<(EventId, u64)>,
    node: String,
}

impl PartitionReader {
    /// A reader that goes on at a checkpoint; the default checkpoint is the beginning.
    pub fn resume(source: EventSource, partition: u32, checkpoint: &Checkpoint) -> Self {
        Self {
            source,
            partition,
            log_id: checkpoint.log_id,
            next: checkpoint.next,
            rule: Rule::resume(checkpoint.current),
            last_event: checkpoint.last_event,
            node: String::new(),
        }
    }

    /// The offset to read next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The state of the validity rule.
    pub fn current(&self) -> Current {
        self.rule.current()
    }

    /// The node of the current claim, where this reader has read it.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The log's id; nil before the first claim.
    pub fn log_id(&self) -> Uuid {
        self.log_id
    }

    /// Where to go on after a restart. Never inside a command.
    pub fn checkpoint(&self) -> Checkpoint {
        let (next, current) = self.rule.resume_point(self.next);
        Checkpoint { log_id: self.log_id, next, current, last_event: self.last_event }
    }

    /// Takes the next record.
    ///
    /// # Errors
    /// [`LogErrorKind::Lost`] when the log shows that it is not the one that was read before, or can't be read on:
    /// a lost claim, another log id, a newer format.
    pub fn feed(&mut self, stored: StoredRecord) -> Result<Fed, LogError> {
        let StoredRecord { offset, record } = stored;
        if offset < self.next {
            return Ok(Fed::Nothing); // read before
        }
        self.next = offset + 1;
        let verdict = match record::decode(&record) {
            Decoded::Event(stamp, envelope) => return self.event(offset, stamp, *envelope),
            Decoded::Answers(stamp, answers) => self.rule.answers(offset, stamp).map(|()| Fed::Answers(answers)),
            Decoded::Erased(stamp, erased) => return self.erased(offset, stamp, *erased),
            Decoded::Claim(claim) => return self.claim(offset, claim),
            Decoded::Tombstone => Ok(Fed::Nothing),
            Decoded::Foreign(reason) => Ok(Fed::Foreign(reason)),
            Decoded::Newer(format) => {
                let reason = format!("was written by a newer release, in format {format}: upgrade this program");
                return Err(self.lost(offset, &reason));
            }
        };
        verdict.or_else(|reason| self.void(offset, reason))
    }

    /// Passes offsets that have no record.
    pub fn skip_to(&mut self, next: u64) {
        self.next = self.next.max(next);
    }

    /// Notes what this process appended itself and saw proven, without reading it back.
    pub(crate) fn proven(&mut self, last_sequence: u64, next: u64, last_event: Option<(EventId, u64)>) {
        self.rule.proven(last_sequence);
        self.next = next;
        self.last_event = last_event.or(self.last_event);
    }

    fn event(&mut self, offset: u64, stamp: Stamp, envelope: Envelope) -> Result<Fed, LogError> {
        if let Some(reason) = self.misplaced(&envelope) {
            return Ok(Fed::Foreign(reason));
        }
        let event = Recorded { partition: self.partition, offset, envelope };
        match self.rule.event(offset, stamp, event) {
            Verdict::Released(events) => {
                self.last_event = events.last().map(|last| (last.envelope.event_id, last.offset));
                Ok(Fed::Events(events))
            }
            Verdict::Held => Ok(Fed::Nothing),
            Verdict::Void(reason) => self.void(offset, reason),
        }
    }

    fn erased(&mut self, offset: u64, stamp: Stamp, erased: Envelope) -> Result<Fed, LogError> {
        if let Some(reason) = self.misplaced(&erased) {
            return Ok(Fed::Foreign(reason));
        }
        match self.rule.answers(offset, stamp) {
            Ok(()) => Ok(Fed::Erased(Box::new(Recorded { partition: self.partition, offset, envelope: erased }))),
            Err(reason) => self.void(offset, reason),
        }
    }

    fn misplaced(&self, event: &Envelope) -> Option<String> {
        if event.context != self.source.context || event.stream.category != self.source.category {
            return Some(format!("it is an event of {}.{}", event.context, event.stream.category));
        }
        let home = partition_of(&event.stream.id, self.source.partitions);
        (home != self.partition).then(|| format!("its aggregate {} lives in partition {home}", event.stream.id))
    }

    fn claim(&mut self, offset: u64, claim: Claim) -> Result<Fed, LogError> {
        if let Err(reason) = self.rule.claim(offset, claim.epoch) {
            return self.void(offset, reason);
        }
        if !self.log_id.is_nil() && self.log_id != claim.log_id {
            return Err(self.lost(offset, &format!("claims log {}, the log so far is {}", claim.log_id, self.log_id)));
        }
        check_partitions(&claim, &self.source)?;
        self.log_id = claim.log_id;
        self.node.clone_from(&claim.node);
        Ok(Fed::Claim(claim))
    }

    fn void(&self, offset: u64, reason: VoidReason) -> Result<Fed, LogError> {
        match reason {
            VoidReason::LostClaim => Err(self.lost(offset, "belongs to a claim that is not in the log")),
            reason => Ok(Fed::Void(reason)),
        }
    }

    fn lost(&self, offset: u64, what: &str) -> LogError {
        let message = format!("the record at {}/{} offset {offset} {what}", self.source.topic, self.partition);
        LogError::new(LogErrorKind::Lost, message)
    }
}

/// Refuses a topic that has another number of partitions than when it was claimed.
fn check_partitions(claim: &Claim, source: &EventSource) -> Result<(), LogError> {
    match claim.partitions {
        Some(before) if before != source.partitions => {
            let (topic, now) = (&source.topic, source.partitions);
            let message = format!(
                "topic {topic} has {now} partitions and was claimed with {before}: aggregates can't move, so restore it \
                 with {before}"
            );
            Err(LogError::new(LogErrorKind::Settings, message))
        }
        _ => Ok(()),
    }
}

/// The first claim of a partition of events; `None` where nobody ever claimed it.
pub(crate) async fn first_claim(log: &dyn Log, topic: &str, partition: u32) -> Result<Option<Claim>, LogError> {
    let bounds = log.bounds(topic, partition).await?;
    if bounds.is_empty() {
        return Ok(None);
    }
    let claim = |stored: &StoredRecord| match record::decode(&stored.record) {
        Decoded::Claim(claim) => Some(claim),
        _ => None,
    };
    let first = log.first_record(topic, partition, bounds.clone()).await?;
    if let Some(claim) = first.as_ref().and_then(claim) {
        return Ok(Some(claim));
    }
    // Something that is not ours came first.
    let mut scan = Scan::open(log, topic, partition, bounds).await?;
    while let Some(records) = scan.next().await? {
        if let Some(claim) = records.iter().find_map(claim) {
            return Ok(Some(claim));
        }
    }
    Ok(None)
}

/// Looks at the first claim of a topic, for all its partitions: one that was added has none of its own.
///
/// # Errors
/// [`LogErrorKind::Settings`] when the number of partitions was changed.
pub(crate) async fn verify_partitions(log: &dyn Log, source: &EventSource) -> Result<(), LogError> {
    first_claim(log, &source.topic, 0).await?.map_or(Ok(()), |claim| check_partitions(&claim, source))
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of log {} at claim {}", self.next, self.log_id, self.current.epoch)
    }
}

/// Compares a checkpoint with the log before a reader goes on from it.
///
/// # Errors
/// [`LogErrorKind::Lost`] when the log ends before the checkpoint, or holds another record where the last event was:
/// it lost its tail or was made anew. Never go on then: what was made of the events may hold what the log lacks.
pub async fn verify_checkpoint(
    log: &dyn Log,
    source: &EventSource,
    partition: u32,
    checkpoint: &Checkpoint,
) -> Result<(), LogError> {
    if checkpoint.next == 0 {
        return Ok(());
    }
    let place = format!("{}/{partition}", source.topic);
    let lost = |what: String| {
        let remedy = "the log lost its tail or was made anew; restore the log, or remove what was built from it";
        LogError::new(LogErrorKind::Lost, format!("resuming {place} at {checkpoint}: {what}: {remedy}"))
    };
    let bounds = log.bounds(&source.topic, partition).await?;
    if bounds.end < checkpoint.next {
        return Err(lost(format!("the log ends at offset {}", bounds.end)));
    }
    let claim_offset = checkpoint.current.claim_offset;
    if checkpoint.current.epoch.number > 0 {
        let found = record_at(log, &source.topic, partition, claim_offset).await?;
        let same = found.is_some_and(|found| {
            matches!(record::decode(&found.record), Decoded::Claim(claim)
                if claim.epoch == checkpoint.current.epoch && claim.log_id == checkpoint.log_id)
        });
        if !same {
            return Err(lost(format!("its claim is not at offset {claim_offset}")));
        }
    }
    if let Some((id, offset)) = checkpoint.last_event {
        // An event that is gone was erased: compaction takes nothing else. The claim above stands for the rest.
        if let Some(found) = record_at(log, &source.topic, partition, offset).await?
            && !matches!(record::decode(&found.record), Decoded::Event(_, event) if event.event_id == id)
        {
            return Err(lost(format!("the record at offset {offset} is not event {id}")));
        }
    }
    Ok(())
}

/// The record at exactly this offset, if there is one.
async fn record_at(log: &dyn Log, topic: &str, partition: u32, offset: u64) -> Result<Option<StoredRecord>, LogError> {
    log.first_record(topic, partition, offset..offset + 1).await
}
