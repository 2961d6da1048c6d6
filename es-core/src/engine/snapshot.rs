//! Snapshots: states, command ids and checkpoints in a compacted topic beside the events, so that a process without
//! local state begins there instead of at the first event. The one module that knows the topic's keys and values;
//! `docs/formats.md` describes them, bytes of each are kept as tests.
//!
//! The owner of a partition writes them in the background ([`checkpointer`]); a process that has no local state, or
//! one that is far behind, fills it from them ([`restore`]). They are always safe to throw away, and never to be
//! believed by halves. So:
//!
//! - Keys carry the claim of their writer. What a superseded owner sends late can't replace what a later one wrote;
//!   among the keys of one aggregate the highest version is right.
//! - A checkpoint record says: whatever changed before this offset of the log is in the topic. It is written when all
//!   that was acknowledged, and it reaches back to the topic's last checkpoint, no matter who changed or replayed it.
//! - What is read of the log after the checkpoint skips what a snapshot has already.
//! - Whatever was written for another log, or by code whose states look different, is of another [`Lineage`] and is
//!   not read.

mod checkpointer;
mod restore;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::domain::clock::Clock;
use crate::domain::ids::Epoch;
use crate::domain::random::Random;
use crate::engine::figures::Counters;
use crate::engine::forgetting::Forgetting;
use crate::engine::store::key::Spans;
use crate::engine::stored::{Reached, Schema};
use crate::log::reader::{Checkpoint, EventSource, LastRecord};
use crate::log::validity::Current;
use crate::log::{Log, Record};

pub(crate) use checkpointer::{Checkpointer, Flushed, NewId};

/// The format of all values. It is part of the lineage, so another one is never read by this program.
const FORMAT: u32 = 1;

/// The name of the snapshots topic of an aggregate type, for example `bank.account.snapshots`.
pub fn snapshots_topic(namespace: &str, aggregate: &str) -> String {
    format!("{namespace}.{aggregate}.snapshots")
}

/// One partition of the snapshots topic, and what is needed to work with it.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotTopic {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) source: EventSource,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
    pub(crate) schema: Schema,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Arc<dyn Random>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: SnapshotLimits,
    /// This process filled its store from the topic before.
    pub(crate) restored: Arc<AtomicBool>,
    /// Permits to fill a store from the topic, of the whole process: each that does takes memory.
    pub(crate) restores: Arc<Semaphore>,
}

/// Bounds of writing snapshots.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnapshotLimits {
    /// Records of the log between two checkpoints.
    pub(crate) every: u64,
    pub(crate) spans: Spans,
    pub(crate) record_max_bytes: usize,
    /// How long an append may take before it is in doubt.
    pub(crate) append_deadline: Duration,
}

/// The log of which snapshots are. A copy keeps the id of its source, and its offsets are others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) log_id: Uuid,
    pub(crate) copy: Option<Uuid>,
}

impl From<&Checkpoint> for Origin {
    fn from(checkpoint: &Checkpoint) -> Self {
        Self { log_id: checkpoint.log_id, copy: checkpoint.current.copy }
    }
}

#[cfg(test)]
impl From<Uuid> for Origin {
    fn from(log_id: Uuid) -> Self {
        Self { log_id, copy: None }
    }
}

/// Tells snapshots that go together: of the same log, and of states of the same shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Lineage([u8; 16]);

impl Lineage {
    pub(crate) fn of(schema: &Schema, log: impl Into<Origin>) -> Self {
        let Origin { log_id, copy } = log.into();
        let hasher = Sha256::new().chain_update(FORMAT.to_be_bytes()).chain_update(log_id.as_bytes());
        let hasher = hasher.chain_update(copy.as_ref().map_or(&[][..], |copy| copy.as_bytes()));
        let digest = hasher.chain_update(schema.fingerprint.as_bytes()).finalize();
        Self(digest[..16].try_into().expect("a SHA-256 has 32 bytes"))
    }

    fn bytes(self) -> Bytes {
        Bytes::copy_from_slice(&self.0)
    }
}

/// A state at a version, in the topic and in the local store alike.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Snapshot {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    lineage: Bytes,
    #[prost(uint64, tag = "3")]
    pub(crate) version: u64,
    /// Of the event with this version.
    #[prost(uint64, tag = "4")]
    pub(crate) offset: u64,
    /// The hash of that event.
    #[prost(bytes = "bytes", tag = "5")]
    pub(crate) head: Bytes,
    /// In JSON.
    #[prost(bytes = "bytes", tag = "6")]
    pub(crate) state: Bytes,
    /// Why the next event can't be folded; in the local store only. Why there is no state; in the topic too.
    #[prost(string, tag = "7")]
    pub(crate) parked: String,
}

/// Command ids with their answers.
#[derive(Clone, PartialEq, Message)]
struct Ids {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    lineage: Bytes,
    #[prost(message, repeated, tag = "3")]
    ids: Vec<IdEntry>,
    /// When the newest of them was recorded.
    #[prost(int64, tag = "4")]
    newest_ms: i64,
}

/// One command id. `known` is a [`crate::engine::remembered::Remembered`], not taken apart where it is only passed on.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct IdEntry {
    #[prost(string, tag = "1")]
    pub(crate) aggregate: String,
    #[prost(string, tag = "2")]
    pub(crate) command: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) known: Bytes,
}

/// A checkpoint record.
#[derive(Clone, PartialEq, Message)]
struct CheckpointRecord {
    #[prost(uint32, tag = "1")]
    format: u32,
    #[prost(bytes = "bytes", tag = "2")]
    lineage: Bytes,
    #[prost(string, tag = "3")]
    fingerprint: String,
    #[prost(uint32, tag = "4")]
    snapshot_version: u32,
    #[prost(bytes = "bytes", tag = "5")]
    log_id: Bytes,
    #[prost(uint64, tag = "6")]
    next: u64,
    #[prost(uint64, tag = "7")]
    epoch_number: u64,
    #[prost(fixed64, tag = "8")]
    epoch_writer: u64,
    #[prost(uint64, tag = "9")]
    claim_offset: u64,
    #[prost(uint64, tag = "10")]
    last_sequence: u64,
    #[prost(message, optional, tag = "11")]
    last: Option<Counted>,
    #[prost(int64, tag = "12")]
    last_recorded_ms: i64,
    #[prost(uint64, tag = "13")]
    swept: u64,
    #[prost(uint64, tag = "14")]
    written: u64,
    /// Empty where the partition is no copy.
    #[prost(bytes = "bytes", tag = "15")]
    copy: Bytes,
    #[prost(bool, tag = "16")]
    copied: bool,
    #[prost(int64, tag = "17")]
    forgotten_by_ms: i64,
    #[prost(int64, tag = "18")]
    forgotten_next_ms: i64,
}

/// A [`LastRecord`].
#[derive(Clone, PartialEq, Message)]
struct Counted {
    #[prost(uint64, tag = "1")]
    offset: u64,
    #[prost(uint64, tag = "2")]
    epoch_number: u64,
    #[prost(fixed64, tag = "3")]
    epoch_writer: u64,
    #[prost(uint64, tag = "4")]
    sequence: u64,
    /// Empty where it has none.
    #[prost(bytes = "bytes", tag = "5")]
    event_id: Bytes,
}

impl Counted {
    fn new(last: &LastRecord) -> Self {
        let event_id = last.event_id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.get().as_bytes()));
        let Epoch { number: epoch_number, writer: epoch_writer } = last.epoch;
        Self { offset: last.offset, epoch_number, epoch_writer, sequence: last.sequence, event_id }
    }

    fn record(&self) -> Result<LastRecord, Unreadable> {
        let event_id = match self.event_id.is_empty() {
            true => None,
            false => Some(Uuid::from_slice(&self.event_id).map_err(|_| Unreadable("checkpoint"))?.into()),
        };
        let epoch = Epoch { number: self.epoch_number, writer: self.epoch_writer };
        Ok(LastRecord { offset: self.offset, epoch, sequence: self.sequence, event_id })
    }
}

/// How long the topic is: offsets do not tell, since compaction takes most of the records away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Extent {
    /// The records that were there when it was swept.
    swept: u64,
    /// Those written since.
    written: u64,
}

/// A value of the topic, or of the local store, that this program can't have written.
#[derive(Debug, thiserror::Error)]
#[error("a {0} can't be read")]
pub(crate) struct Unreadable(&'static str);

impl Snapshot {
    pub(crate) fn new(lineage: Lineage, version: u64, offset: u64, head: &[u8; 32], state: Vec<u8>) -> Self {
        let (head, state) = (Bytes::copy_from_slice(head), state.into());
        Self { format: FORMAT, lineage: lineage.bytes(), version, offset, head, state, parked: String::new() }
    }

    pub(crate) fn parse(value: Bytes) -> Result<Self, Unreadable> {
        let parsed = Self::decode(value).map_err(|_| Unreadable("snapshot"))?;
        if parsed.format == FORMAT && parsed.head.len() == 32 { Ok(parsed) } else { Err(Unreadable("snapshot")) }
    }

    pub(crate) fn encoded(&self) -> Bytes {
        self.encode_to_vec().into()
    }

    /// As it stands in the topic: what the state is parked for is found again by whoever reads on, but for a state that
    /// could not be written.
    pub(crate) fn for_topic(self, value: Bytes) -> Bytes {
        let as_it_is = self.parked.is_empty() || self.state.is_empty();
        if as_it_is { value } else { Self { parked: String::new(), ..self }.encoded() }
    }
}

impl CheckpointRecord {
    fn new(schema: &Schema, reached: &Reached, forgetting: Forgetting, extent: Extent) -> Self {
        let Reached { checkpoint, last_recorded_ms } = reached;
        Self {
            format: FORMAT,
            lineage: Lineage::of(schema, checkpoint).bytes(),
            fingerprint: schema.fingerprint.to_string(),
            snapshot_version: schema.snapshot_version,
            log_id: Bytes::copy_from_slice(checkpoint.log_id.as_bytes()),
            next: checkpoint.next,
            epoch_number: checkpoint.current.epoch.number,
            epoch_writer: checkpoint.current.epoch.writer,
            claim_offset: checkpoint.current.claim_offset,
            last_sequence: checkpoint.current.last_sequence,
            last: checkpoint.last.as_ref().map(Counted::new),
            last_recorded_ms: *last_recorded_ms,
            swept: extent.swept,
            written: extent.written,
            copy: checkpoint.current.copy.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            copied: checkpoint.current.copied,
            forgotten_by_ms: forgetting.by_ms,
            forgotten_next_ms: forgetting.next_ms,
        }
    }

    fn forgetting(&self) -> Forgetting {
        Forgetting { by_ms: self.forgotten_by_ms, next_ms: self.forgotten_next_ms }
    }

    fn reached(&self) -> Result<Reached, Unreadable> {
        let uuid = |bytes: &Bytes| Uuid::from_slice(bytes).map_err(|_| Unreadable("checkpoint"));
        let log_id = uuid(&self.log_id)?;
        let copy = if self.copy.is_empty() { None } else { Some(uuid(&self.copy)?) };
        let last = self.last.as_ref().map(Counted::record).transpose()?;
        let current = Current {
            epoch: Epoch { number: self.epoch_number, writer: self.epoch_writer },
            claim_offset: self.claim_offset,
            last_sequence: self.last_sequence,
            copy,
            copied: self.copied,
        };
        let checkpoint = Checkpoint { log_id, next: self.next, current, last };
        Ok(Reached { checkpoint, last_recorded_ms: self.last_recorded_ms })
    }
}

/// What a record of the topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject<'a> {
    Aggregate(&'a str),
    Ids,
    Checkpoint,
}

fn aggregate_key(aggregate: &str, epoch: Epoch) -> Bytes {
    format!("{aggregate}@{epoch}").into()
}

/// The `part`th record of the ids up to this offset.
fn ids_key(to: u64, part: usize, epoch: Epoch) -> Bytes {
    format!("!ids/{to}.{part}@{epoch}").into()
}

fn checkpoint_key(epoch: Epoch) -> Bytes {
    format!("!checkpoint@{epoch}").into()
}

/// Subject and writer of a key; `None` where it is not one of ours. Taken apart from the right, since an id may hold
/// an `@`.
fn parse_key(key: &[u8]) -> Option<(Subject<'_>, Epoch)> {
    let (subject, epoch) = std::str::from_utf8(key).ok()?.rsplit_once('@')?;
    let (number, writer) = epoch.split_once('.')?;
    let epoch = Epoch { number: number.parse().ok()?, writer: u64::from_str_radix(writer, 16).ok()? };
    let subject = match subject {
        "!checkpoint" => Subject::Checkpoint,
        control if control.starts_with("!ids/") => Subject::Ids,
        control if control.starts_with('!') => return None,
        aggregate => Subject::Aggregate(aggregate),
    };
    Some((subject, epoch))
}

impl SnapshotTopic {
    fn record(&self, key: Bytes, value: Option<Bytes>) -> Record {
        Record { key, value, headers: Vec::new(), timestamp_ms: self.clock.now_ms() }
    }
}

impl std::fmt::Display for SnapshotTopic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// What tests look for in the topic.
#[cfg(test)]
pub(crate) mod kept {
    use super::*;

    /// The offset that a checkpoint record names.
    pub(crate) fn checkpoint(record: &Record) -> Option<u64> {
        let (subject, _) = parse_key(&record.key)?;
        let value = record.value.clone().filter(|_| subject == Subject::Checkpoint)?;
        CheckpointRecord::decode(value).ok().map(|record| record.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::hash::CommandHash;
    use crate::domain::ids::{EventId, ExpectedVersion, Version};
    use crate::engine::remembered::Remembered;
    use crate::log::record::Answer;

    const EPOCH: Epoch = Epoch { number: 7, writer: 0x0123_4567_89ab_cdef };
    const FORGETTING: Forgetting = Forgetting { by_ms: 1_700_000_000_001, next_ms: 1_700_000_000_002 };

    fn schema() -> Schema {
        Schema { fingerprint: "f0f0".into(), snapshot_version: 2, release: 0 }
    }

    fn log_id() -> Uuid {
        Uuid::from_bytes([0x10; 16])
    }

    fn lineage() -> Lineage {
        Lineage::of(&schema(), log_id())
    }

    fn snapshot() -> Snapshot {
        Snapshot::new(lineage(), 12, 345, &[0xaa; 32], br#"{"balance":5}"#.to_vec())
    }

    fn ids() -> Ids {
        let known = [
            Remembered::accepted(1_700_000_000_123, CommandHash([0xbb; 17]), 345, Version::new(11), 2),
            Remembered::answered(1_700_000_000_124, CommandHash([0xcc; 17]), 346, Version::new(12), &Answer::NoOp(())),
            Remembered::answered(
                1_700_000_000_125,
                CommandHash([0xdd; 17]),
                346,
                Version::new(12),
                &Answer::Refused(r#"{"insufficient_funds":{"balance":5}}"#.into()),
            ),
            Remembered::answered(
                1_700_000_000_125,
                CommandHash([0xee; 17]),
                346,
                Version::new(12),
                &Answer::Conflict(ExpectedVersion::NoStream),
            ),
        ];
        let entry = |(n, known): (usize, Remembered)| IdEntry {
            aggregate: "Žižka/42".into(),
            command: format!("c-{n}"),
            known: known.encode_to_vec().into(),
        };
        let ids = known.into_iter().enumerate().map(entry).collect();
        Ids { format: FORMAT, lineage: lineage().bytes(), ids, newest_ms: 1_700_000_000_125 }
    }

    fn reached() -> Reached {
        let current = Current { epoch: EPOCH, claim_offset: 300, last_sequence: 46, ..Current::default() };
        let event_id = Some(EventId::from(Uuid::from_bytes([0xe0; 16])));
        let last = Some(LastRecord { offset: 345, epoch: EPOCH, sequence: 45, event_id });
        let checkpoint = Checkpoint { log_id: log_id(), next: 347, current, last };
        Reached { checkpoint, last_recorded_ms: 1_700_000_000_125 }
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Bytes {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_snapshot() {
        insta::assert_snapshot!(hex(&snapshot().encoded()), @"0801121027edaea073399347d83ffb26ef6ec26b180c20d9022a20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa320d7b2262616c616e6365223a357d");
    }

    #[test]
    fn command_ids() {
        insta::assert_snapshot!(hex(&ids().encode_to_vec()), @"0801121027edaea073399347d83ffb26ef6ec26b1a340a0ac5bd69c5be6b612f34321203632d301a2108fbd095ffbc311211bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb18d902200b28021a420a0ac5bd69c5be6b612f34321203632d311a2f08fcd095ffbc311211cccccccccccccccccccccccccccccccccc18da02200c320e7b226e6f5f6f70223a6e756c6c7d1a6a0a0ac5bd69c5be6b612f34321203632d321a5708fdd095ffbc311211dddddddddddddddddddddddddddddddddd18da02200c32367b2272656675736564223a227b5c22696e73756666696369656e745f66756e64735c223a7b5c2262616c616e63655c223a357d7d227d1a4b0a0ac5bd69c5be6b612f34321203632d331a3808fdd095ffbc311211eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee18da02200c32177b22636f6e666c696374223a224e6f53747265616d227d20fdd095ffbc31");
    }

    #[test]
    fn a_checkpoint() {
        insta::assert_snapshot!(hex(&CheckpointRecord::new(&schema(), &reached(), FORGETTING, Extent { swept: 40, written: 2 }).encode_to_vec()), @"0801121027edaea073399347d83ffb26ef6ec26b1a046630663020022a101010101010101010101010101010101030db02380741efcdab896745230148ac02502e5a2208d902100719efcdab8967452301202d2a10e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e060fdd095ffbc3168287002880181d095ffbc31900182d095ffbc31");
    }

    #[test]
    fn keys() {
        let keys = [aggregate_key("a@b/Ž", EPOCH), ids_key(347, 1, EPOCH), checkpoint_key(EPOCH)];
        let shown: Vec<&str> = keys.iter().map(|key| std::str::from_utf8(key).unwrap()).collect();
        insta::assert_snapshot!(shown.join("\n"), @"
        a@b/Ž@7.0123456789abcdef
        !ids/347.1@7.0123456789abcdef
        !checkpoint@7.0123456789abcdef
        ");
        let parsed: Vec<_> = keys.iter().map(|key| parse_key(key).unwrap()).collect();
        assert_eq!(parsed, [(Subject::Aggregate("a@b/Ž"), EPOCH), (Subject::Ids, EPOCH), (Subject::Checkpoint, EPOCH)]);
        for foreign in ["", "a", "a@7", "a@x.1", "!new/1@7.0123456789abcdef", "@"] {
            assert_eq!(parse_key(foreign.as_bytes()), None, "{foreign}");
        }
        assert_eq!(parse_key(&[0xff, b'@', b'1', b'.', b'1']), None);
    }

    /// Written by 0.1: read for ever.
    #[test]
    fn old_bytes_are_read() {
        const SNAPSHOT: &str = "0801121027edaea073399347d83ffb26ef6ec26b180c20d9022a20aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa320d7b2262616c616e6365223a357d";
        const IDS: &str = "0801121027edaea073399347d83ffb26ef6ec26b1a340a0ac5bd69c5be6b612f34321203632d301a2108fbd095ffbc311211bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb18d902200b28021a420a0ac5bd69c5be6b612f34321203632d311a2f08fcd095ffbc311211cccccccccccccccccccccccccccccccccc18da02200c320e7b226e6f5f6f70223a6e756c6c7d1a6a0a0ac5bd69c5be6b612f34321203632d321a5708fdd095ffbc311211dddddddddddddddddddddddddddddddddd18da02200c32367b2272656675736564223a227b5c22696e73756666696369656e745f66756e64735c223a7b5c2262616c616e63655c223a357d7d227d1a4b0a0ac5bd69c5be6b612f34321203632d331a3808fdd095ffbc311211eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee18da02200c32177b22636f6e666c696374223a224e6f53747265616d227d20fdd095ffbc31";
        const CHECKPOINT: &str = "0801121027edaea073399347d83ffb26ef6ec26b1a046630663020022a101010101010101010101010101010101030db02380741efcdab896745230148ac02502e5a2208d902100719efcdab8967452301202d2a10e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e060fdd095ffbc3168287002880181d095ffbc31900182d095ffbc31";
        assert_eq!(Snapshot::parse(unhex(SNAPSHOT)).unwrap(), snapshot());
        assert_eq!(Ids::decode(unhex(IDS)).unwrap(), ids());
        let record = CheckpointRecord::decode(unhex(CHECKPOINT)).unwrap();
        assert_eq!((record.reached().unwrap(), record.forgetting()), (reached(), FORGETTING));
        assert_eq!((record.lineage, record.snapshot_version), (lineage().bytes(), 2));
    }

    #[test]
    fn whatever_is_written_is_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..5_000 {
            let epoch = Epoch { number: random.u64(..), writer: random.u64(..) };
            let text: String =
                (0..random.usize(1..20)).map(|_| *random.choice(&['a', '@', '/', '.', 'ž']).unwrap()).collect();
            let (key, ids, checkpoint) =
                (aggregate_key(&text, epoch), ids_key(random.u64(..), random.usize(..), epoch), checkpoint_key(epoch));
            assert_eq!(parse_key(&key), Some((Subject::Aggregate(&text), epoch)), "{text}");
            assert_eq!(parse_key(&ids), Some((Subject::Ids, epoch)));
            assert_eq!(parse_key(&checkpoint), Some((Subject::Checkpoint, epoch)));

            let head = std::array::from_fn(|_| random.u8(..));
            let state = (0..random.usize(..50)).map(|_| random.u8(..)).collect();
            let snapshot = Snapshot::new(lineage(), random.u64(..), random.u64(..), &head, state);
            assert_eq!(Snapshot::parse(snapshot.encoded()).unwrap(), snapshot);

            let current = Current {
                epoch,
                claim_offset: random.u64(..),
                last_sequence: random.u64(..),
                copy: random.bool().then(|| Uuid::from_u128(random.u128(..))),
                copied: random.bool(),
            };
            let last = random.bool().then(|| LastRecord {
                offset: random.u64(..),
                epoch,
                sequence: random.u64(..),
                event_id: random.bool().then(|| EventId::from(Uuid::from_u128(random.u128(..)))),
            });
            let log_id = Uuid::from_u128(random.u128(..));
            let checkpoint = Checkpoint { log_id, next: random.u64(..), current, last };
            let reached = Reached { checkpoint, last_recorded_ms: random.i64(..) };
            let forgetting = Forgetting { by_ms: random.i64(..), next_ms: random.i64(..) };
            let extent = Extent { swept: random.u64(..), written: random.u64(..) };
            let record = CheckpointRecord::new(&schema(), &reached, forgetting, extent);
            let read = CheckpointRecord::decode(Bytes::from(record.encode_to_vec())).unwrap();
            assert_eq!((read.reached().unwrap(), read.forgetting(), &read), (reached, forgetting, &record));

            let hash = CommandHash(std::array::from_fn(|_| random.u8(..)));
            let (at, offset) = (Version::new(random.u64(..)), random.u64(..));
            let known = match random.bool() {
                true => Remembered::accepted(random.i64(..), hash, offset, at, random.u32(1..)),
                false => Remembered::answered(random.i64(..), hash, offset, at, &Answer::Refused(text)),
            };
            assert_eq!(Remembered::parse(known.encode_to_vec().into()).unwrap(), known);
        }
    }

    #[test]
    fn what_can_not_be_read_is_an_error_and_never_a_panic() {
        let value = snapshot().encoded();
        for length in 0..value.len() {
            let _ = Snapshot::parse(value.slice(..length));
            let _ = CheckpointRecord::decode(value.slice(..length)).map(|record| record.reached().is_ok());
        }
        assert!(Snapshot::parse(Bytes::from_static(b"rubbish")).is_err());
        assert!(Snapshot::parse(Snapshot { format: FORMAT + 1, ..snapshot() }.encoded()).is_err());
        assert!(Snapshot::parse(Snapshot { head: Bytes::new(), ..snapshot() }.encoded()).is_err());
        assert!(CheckpointRecord::default().reached().is_err());
    }

    #[test]
    fn a_lineage_differs_with_log_copy_and_shape() {
        let other = Schema { fingerprint: "f0f1".into(), ..schema() };
        let copy = Origin { log_id: log_id(), copy: Some(Uuid::from_bytes([0xc0; 16])) };
        assert_ne!(Lineage::of(&schema(), copy), lineage());
        assert_ne!(Lineage::of(&other, log_id()), lineage());
        assert_ne!(Lineage::of(&schema(), Uuid::from_bytes([0x11; 16])), lineage());
    }

    #[test]
    fn what_a_state_is_parked_for_stays_in_the_local_store() {
        let parked = Snapshot { parked: "event 13".into(), ..snapshot() };
        assert_eq!(parked.clone().for_topic(parked.encoded()), snapshot().encoded());
        let unwritten = Snapshot { state: Bytes::new(), ..parked };
        assert_eq!(unwritten.clone().for_topic(unwritten.encoded()), unwritten.encoded());
    }
}
