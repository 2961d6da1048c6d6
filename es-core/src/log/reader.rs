//! Reading a partition: decode each record, apply the validity rule, release whole commands.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::aggregate::Aggregate;
use crate::domain::envelope::Envelope;
use crate::domain::ids::{Epoch, EventId};
use crate::log::partition::partition_of;
use crate::log::record::{self, Answers, COMMAND_BYTES_MAX, Claim, Copied, Decoded, Stamp};
use crate::log::scan::Scan;
use crate::log::validity::{Current, Rule, Verdict, VoidReason};
use crate::log::{Log, LogError, LogErrorKind, Record, StoredRecord, TopicKind, TopicSpec};

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

    /// The same, with the topic made where it is missing and its partitions counted.
    ///
    /// Partitions that were added to the topic later are passed over as long as they are empty: an aggregate lives in the
    /// partition that its id gives for the number with which the topic was claimed first.
    ///
    /// # Errors
    /// [`LogErrorKind::Settings`] where the topic is not fit for use, or has another number of partitions than it was
    /// claimed with and they can't be passed over.
    pub async fn open<A: Aggregate>(log: &dyn Log, namespace: &str) -> Result<Self, LogError> {
        let source = Self::of::<A>(namespace, 0);
        let topic = TopicSpec { name: source.topic.to_string(), kind: TopicKind::Events };
        let found = log.prepare(&topic).await?;
        if found == 0 {
            let message = format!("the topic {} has no partitions", topic.name);
            return Err(LogError::new(LogErrorKind::Settings, message));
        }
        // The claims in a copy tell how many the source had.
        let claimed = match copy_begun(log, &topic.name, 0).await? {
            Some(copied) => copied.partitions,
            None => first_claim(log, &topic.name, 0).await?.and_then(|claim| claim.partitions),
        };
        let claimed = claimed.unwrap_or(found);
        pass_over_added(log, &topic.name, found, claimed, "that its events were written with").await?;
        Ok(Self { partitions: claimed, ..source })
    }
}

/// Passes over partitions that were added to a topic and are empty.
///
/// # Errors
/// [`LogErrorKind::Settings`] where something is in them, or the topic has fewer than are wanted.
pub(crate) async fn pass_over_added(
    log: &dyn Log,
    topic: &str,
    found: u32,
    wanted: u32,
    why: &str,
) -> Result<(), LogError> {
    let refused = |what: String| {
        let message = format!("topic {topic} has {found} partitions and not the {wanted} {why}: {what}");
        Err(LogError::new(LogErrorKind::Settings, message))
    };
    if found < wanted {
        return refused(format!("it was made anew; delete it and restore it, or have it made with {wanted}"));
    }
    for partition in wanted..found {
        let bounds = log.bounds(topic, partition).await?;
        if bounds.end > 0 {
            let (added, end) = (found - wanted, bounds.end);
            return refused(format!(
                "{added} were added on the broker, and others have written {end} records to partition {partition}, where \
                 nothing can count; restore it with {wanted}"
            ));
        }
    }
    if found > wanted {
        tracing::warn!(topic, found, wanted, "partitions were added to a topic: they are empty and passed over");
    }
    Ok(())
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
    /// The partition is a copy, which begins here.
    Copied(Copied),
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
    /// The last record that counted.
    pub last: Option<LastRecord>,
}

/// The last record that counted before a checkpoint: an event, an answers record or an erased record. It is looked at
/// before a reader goes on, so that a lost tail is noticed even where others have written as much again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its offset.
    pub offset: u64,
    /// The claim of its writer.
    pub epoch: Epoch,
    /// Its place among the writer's records.
    pub sequence: u64,
    /// The event id of an event or of an erased record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
}

impl LastRecord {
    fn new(offset: u64, stamp: Stamp, event_id: Option<EventId>) -> Self {
        Self { offset, epoch: stamp.epoch, sequence: stamp.sequence, event_id }
    }

    /// Whether the record at its offset is the one that was there.
    fn is(&self, found: &StoredRecord) -> bool {
        let (stamp, event_id) = match record::decode(&found.record) {
            Decoded::Event(stamp, event) | Decoded::Erased(stamp, event) => (stamp, Some(event.event_id)),
            Decoded::Answers(stamp, _) => (stamp, None),
            _ => return false,
        };
        *self == Self::new(found.offset, stamp, event_id)
    }
}

/// Reads one partition record by record, without I/O of its own, in constant memory.
#[derive(Debug, Clone)]
pub struct PartitionReader {
    source: EventSource,
    partition: u32,
    log_id: Uuid,
    next: u64,
    rule: Rule<Recorded>,
    /// The bytes of the events that are held.
    held_bytes: usize,
    last: Option<LastRecord>,
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
            held_bytes: 0,
            last: checkpoint.last,
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
        Checkpoint { log_id: self.log_id, next, current, last: self.last }
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
        let fed = self.take(offset, record);
        if fed.is_err() {
            self.next = offset; // whoever goes on from here meets it again
        }
        fed
    }

    fn take(&mut self, offset: u64, record: Record) -> Result<Fed, LogError> {
        let verdict = match record::decode(&record) {
            Decoded::Event(stamp, envelope) => return self.event(offset, stamp, record.size(), *envelope),
            Decoded::Answers(stamp, answers) => self.counted(offset, stamp, None).map(|()| Fed::Answers(answers)),
            Decoded::Erased(stamp, erased) => return self.erased(offset, stamp, *erased),
            Decoded::Claim(claim) => return self.claim(offset, claim),
            Decoded::Copied(copied) => self.rule.copied(copied.copy).map(|()| {
                self.log_id = copied.from;
                Fed::Copied(copied)
            }),
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
    pub(crate) fn proven(&mut self, last: LastRecord) {
        self.rule.proven(last.sequence);
        self.next = last.offset + 1;
        self.last = Some(last);
    }

    fn event(&mut self, offset: u64, stamp: Stamp, bytes: usize, envelope: Envelope) -> Result<Fed, LogError> {
        if let Some(reason) = self.misplaced(&envelope) {
            return Ok(Fed::Foreign(reason));
        }
        let event = Recorded { partition: self.partition, offset, envelope };
        match self.rule.event(offset, stamp, event) {
            Verdict::Released(events) => {
                let last = events.last().map(|last| last.envelope.event_id);
                self.last = Some(LastRecord::new(offset, stamp, last));
                Ok(Fed::Events(events))
            }
            Verdict::Held => {
                self.held_bytes = if stamp.index == 0 { bytes } else { self.held_bytes + bytes };
                if self.held_bytes > COMMAND_BYTES_MAX {
                    self.rule.give_up();
                    return self.void(offset, VoidReason::TooLarge);
                }
                Ok(Fed::Nothing)
            }
            Verdict::Void(reason) => self.void(offset, reason),
        }
    }

    fn erased(&mut self, offset: u64, stamp: Stamp, erased: Envelope) -> Result<Fed, LogError> {
        if let Some(reason) = self.misplaced(&erased) {
            return Ok(Fed::Foreign(reason));
        }
        match self.counted(offset, stamp, Some(erased.event_id)) {
            Ok(()) => Ok(Fed::Erased(Box::new(Recorded { partition: self.partition, offset, envelope: erased }))),
            Err(reason) => self.void(offset, reason),
        }
    }

    /// Takes a record that is alone in its command.
    fn counted(&mut self, offset: u64, stamp: Stamp, event_id: Option<EventId>) -> Result<(), VoidReason> {
        self.rule.answers(offset, stamp)?;
        self.last = Some(LastRecord::new(offset, stamp, event_id));
        Ok(())
    }

    fn misplaced(&self, event: &Envelope) -> Option<String> {
        if event.context != self.source.context || event.stream.category != self.source.category {
            return Some(format!("it is an event of {}.{}", event.context, event.stream.category));
        }
        let home = partition_of(&event.stream.id, self.source.partitions);
        (home != self.partition).then(|| format!("its aggregate {} lives in partition {home}", event.stream.id))
    }

    fn claim(&mut self, offset: u64, claim: Claim) -> Result<Fed, LogError> {
        let before = self.rule.clone();
        if let Err(reason) = self.rule.claim(offset, claim.epoch, claim.copy) {
            return self.void(offset, reason);
        }
        let checked = self.check_claim(offset, &claim);
        if checked.is_err() {
            self.rule = before;
        }
        checked?;
        self.log_id = claim.log_id;
        self.node.clone_from(&claim.node);
        Ok(Fed::Claim(claim))
    }

    fn check_claim(&self, offset: u64, claim: &Claim) -> Result<(), LogError> {
        if !self.log_id.is_nil() && self.log_id != claim.log_id {
            return Err(self.lost(offset, &format!("claims log {}, the log so far is {}", claim.log_id, self.log_id)));
        }
        if self.rule.current().copied { Ok(()) } else { check_partitions(claim, &self.source) }
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
                "topic {topic} was claimed with {before} partitions and is read as if it had {now}: where they were added \
                 on the broker, start this process anew, which passes over them (EventSource::open); else restore the \
                 topic with {before}, since aggregates can't move"
            );
            Err(LogError::new(LogErrorKind::Settings, message))
        }
        _ => Ok(()),
    }
}

/// The first claim of a partition of events; `None` where nobody ever claimed it.
pub(crate) async fn first_claim(log: &dyn Log, topic: &str, partition: u32) -> Result<Option<Claim>, LogError> {
    let claim = |stored: &StoredRecord| match record::decode(&stored.record) {
        Decoded::Claim(claim) => Some(claim),
        _ => None,
    };
    first(log, topic, partition, claim).await
}

/// The first record of a partition that is wanted.
async fn first<T>(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    wanted: impl Fn(&StoredRecord) -> Option<T>,
) -> Result<Option<T>, LogError> {
    let bounds = log.bounds(topic, partition).await?;
    if bounds.is_empty() {
        return Ok(None);
    }
    let first = log.first_record(topic, partition, bounds.clone()).await?;
    if let Some(found) = first.as_ref().and_then(&wanted) {
        return Ok(Some(found));
    }
    // Something that is not ours came first.
    let mut scan = Scan::open(log, topic, partition, bounds).await?;
    while let Some(records) = scan.next().await? {
        if let Some(found) = records.iter().find_map(&wanted) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {} of log {} at claim {}", self.next, self.log_id, self.current.epoch)
    }
}

/// Compares a checkpoint with the log before a reader goes on from it.
///
/// # Errors
/// [`LogErrorKind::Lost`] when the log ends before the checkpoint, or holds another record where the claim or the last
/// record that counted was: it lost its tail or was made anew. Never go on then: what was made of the events may hold what the log lacks.
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
    // Offsets of the one log may by chance fit the other.
    let copy = copy_begun(log, &source.topic, partition).await?.map(|copied| copied.copy);
    if copy != checkpoint.current.copy {
        let name = |copy: Option<Uuid>| copy.map_or("the original".to_owned(), |copy| format!("copy {copy}"));
        return Err(lost(format!("it was made of {}, the log is {}", name(checkpoint.current.copy), name(copy))));
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
    let Some(last) = checkpoint.last else { return Ok(()) };
    let LastRecord { offset, epoch, sequence, .. } = last;
    if bounds.end <= offset {
        return Err(lost(format!("the log ends at offset {}", bounds.end)));
    }
    match record_at(log, &source.topic, partition, offset).await? {
        Some(found) if last.is(&found) => Ok(()),
        Some(_) => Err(lost(format!("the record at offset {offset} is not number {sequence} of claim {epoch}"))),
        // Compaction took it, or it was lost and compaction took what was written in its place. But whoever writes
        // there claims first, and compaction never takes a claim.
        None => match later_claim(log, source, partition, checkpoint).await? {
            Some((offset, epoch)) => Err(lost(format!("claim {epoch} is at offset {offset}"))),
            None => Ok(()),
        },
    }
}

/// The record with which the partition begins, where it is a copy: before it nothing counted.
pub(crate) async fn copy_begun(log: &dyn Log, topic: &str, partition: u32) -> Result<Option<Copied>, LogError> {
    let begun = first(log, topic, partition, |stored| match record::decode(&stored.record) {
        Decoded::Copied(copied) => Some(Some(copied)),
        Decoded::Claim(Claim { copy: None, .. }) => Some(None),
        _ => None,
    });
    Ok(begun.await?.flatten())
}

/// A claim above that of the checkpoint which stands before it; there is none in the log of which it was made.
async fn later_claim(
    log: &dyn Log,
    source: &EventSource,
    partition: u32,
    checkpoint: &Checkpoint,
) -> Result<Option<(u64, Epoch)>, LogError> {
    let Current { epoch, claim_offset, copy, .. } = checkpoint.current;
    let mut scan = Scan::open(log, &source.topic, partition, claim_offset..checkpoint.next).await?;
    while let Some(records) = scan.next().await? {
        let later = records.iter().find_map(|stored| match record::decode(&stored.record) {
            Decoded::Claim(claim) if claim.epoch.number > epoch.number && claim.copy == copy => {
                Some((stored.offset, claim.epoch))
            }
            _ => None,
        });
        if later.is_some() {
            return Ok(later);
        }
    }
    Ok(None)
}

/// The record at exactly this offset, if there is one.
pub(crate) async fn record_at(
    log: &dyn Log,
    topic: &str,
    partition: u32,
    offset: u64,
) -> Result<Option<StoredRecord>, LogError> {
    log.first_record(topic, partition, offset..offset + 1).await
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use chrono::DateTime;

    use super::*;
    use crate::doc::Account;
    use crate::domain::hash::{CommandHash, EventHash};
    use crate::domain::ids::{AggregateKey, CommandId, CorrelationId, Epoch, StreamId, Version};
    use crate::log::record::{COMMAND_EVENTS_MAX, Encoder};

    const EPOCH: Epoch = Epoch { number: 1, writer: 7 };

    fn event(version: u64, payload: Bytes) -> Envelope {
        Envelope {
            context: "bank".into(),
            stream: StreamId { category: "account".into(), id: AggregateKey::new("a").unwrap() },
            version: Version::new(version),
            event_id: Uuid::from_u128(version.into()).into(),
            event_type: "deposited".into(),
            schema_version: 1,
            recorded_at: DateTime::from_timestamp_millis(1).unwrap(),
            occurred_at: DateTime::from_timestamp_millis(1).unwrap(),
            command_id: CommandId::new("1").unwrap(),
            command_hash: CommandHash::of("deposit", b""),
            correlation_id: CorrelationId::new("1").unwrap(),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: "application/json".into(),
            payload,
            previous_hash: EventHash([0; 32]),
            hash: EventHash([0; 32]),
        }
    }

    /// A reader behind a claim at offset 0.
    fn reader() -> PartitionReader {
        let mut reader = PartitionReader::resume(EventSource::of::<Account>("bank", 1), 0, &Checkpoint::default());
        let claim = Claim {
            epoch: EPOCH,
            log_id: Uuid::from_u128(1),
            node: "n".into(),
            program: None,
            partitions: Some(1),
            previous: None,
            copy: None,
        };
        let record = Encoder::new("bank", "account").claim(&claim, 1);
        assert!(matches!(reader.feed(StoredRecord { offset: 0, record }).unwrap(), Fed::Claim(_)));
        reader
    }

    /// The event with this sequence, as one of its command's, at the offset where it counts.
    fn stored(sequence: u64, index: u32, count: u32, payload: &Bytes) -> StoredRecord {
        let stamp = Stamp { epoch: EPOCH, sequence, index, count };
        let record = Encoder::new("bank", "account").event(&event(sequence, payload.clone()), stamp);
        StoredRecord { offset: sequence, record }
    }

    /// Whoever can write events must not be able to fill the memory of all readers with a command that never ends.
    #[test]
    fn what_is_held_of_a_command_is_bounded() {
        let mut reader = reader();
        let large = Bytes::from(vec![b' '; COMMAND_BYTES_MAX / 4]);
        let fed: Vec<Fed> = (1..=5).map(|n| reader.feed(stored(n, n as u32 - 1, 9, &large)).unwrap()).collect();
        let incomplete = Fed::Void(VoidReason::Incomplete);
        assert_eq!(fed, [Fed::Nothing, Fed::Nothing, Fed::Nothing, Fed::Void(VoidReason::TooLarge), incomplete]);
        assert_eq!(reader.checkpoint().next, 6, "nothing is held any more");
        // Another command counts, also one that is as large as it may be.
        let fits = Bytes::from(vec![b' '; COMMAND_BYTES_MAX / 4 - 1_000]);
        let fed: Vec<Fed> = (6..=9).map(|n| reader.feed(stored(n, n as u32 - 6, 4, &fits)).unwrap()).collect();
        assert!(matches!(&fed[3], Fed::Events(events) if events.len() == 4), "{:?}", fed.len());
    }

    #[test]
    fn a_command_of_more_events_than_one_may_have_is_foreign() {
        let fed = |count| reader().feed(stored(1, 0, count, &Bytes::new())).unwrap();
        assert_eq!(fed(COMMAND_EVENTS_MAX), Fed::Nothing);
        for count in [COMMAND_EVENTS_MAX + 1, u32::MAX] {
            assert!(matches!(fed(count), Fed::Foreign(reason) if reason.contains(&count.to_string())));
        }
    }

    #[test]
    fn a_record_of_more_headers_than_one_may_have_is_foreign() {
        let with = |count: usize| {
            let mut stored = stored(1, 0, 1, &Bytes::new());
            stored.record.headers.resize(count, ("x".into(), Bytes::new()));
            reader().feed(stored).unwrap()
        };
        assert!(matches!(with(record::HEADERS_MAX), Fed::Events(_)));
        assert!(matches!(with(record::HEADERS_MAX + 1), Fed::Foreign(reason) if reason.contains("headers")));
    }
}
