//! The seals topic: the hash of every event's leaf, and the signed notes. The one module that knows its keys.
//!
//! Whoever resumes does so at the last note, and writes the leaves behind it again: so the leaves before a note are in
//! the topic when the note is, and several may write without harm, since what they write is the same. Keys are unique,
//! so that compaction takes nothing: a copy that lands late would else remain in place of what stands in order.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::str;
use std::sync::Arc;

use bytes::Bytes;

use super::key::PublicKey;
use super::note::{NotSealed, Seal};
use super::tree::{Tree, TreeHash};
use crate::log::scan::Scan;
use crate::log::{Log, LogError, Record, StoredRecord};

/// The records at the topic's end in which the last note is looked for first; then in eight times as many, and so on.
const FIRST_LOOK: u64 = 16;
/// The header of a note's record with the roots of the subtrees that its tree consists of.
const SUBTREES: &str = "subtrees";

/// The name of the seals topic of an aggregate type, for example `bank.account.seals`.
pub fn seals_topic(namespace: &str, aggregate: &str) -> String {
    format!("{namespace}.{aggregate}.seals")
}

/// A partition of the seals topic.
#[derive(Debug, Clone)]
pub(crate) struct SealsPartition {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}

/// What a record of the topic holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The hashes of the leaves from this one on.
    Leaves { from: u64, leaves: Vec<TreeHash> },
    /// A signed note, and the roots of the subtrees of its tree.
    Note { note: String, subtrees: Bytes },
    /// A tombstone, with which somebody cleaned up.
    Nothing,
    /// Not ours.
    Foreign,
}

impl Kept {
    pub(crate) fn decode(record: &Record) -> Self {
        let key = str::from_utf8(&record.key).unwrap_or_default();
        let Some(value) = &record.value else { return Self::Nothing };
        if let Some(span) = key.strip_prefix("v1/leaves/") {
            let from = span.split_once('-').and_then(|(from, _)| from.parse().ok());
            return match (from, value.as_chunks()) {
                (Some(from), (leaves, [])) => Self::Leaves { from, leaves: leaves.to_vec() },
                _ => Self::Foreign,
            };
        }
        match (key.strip_prefix("v1/note/"), str::from_utf8(value)) {
            (Some(_), Ok(note)) => {
                Self::Note { note: note.into(), subtrees: record.header(SUBTREES).cloned().unwrap_or_default() }
            }
            _ => Self::Foreign,
        }
    }
}

/// The record of the leaves from `from` on; `writer` makes its key unique.
pub(super) fn leaves_record(from: u64, leaves: &[TreeHash], writer: u64, timestamp_ms: i64) -> Record {
    let key = format!("v1/leaves/{from}-{}@{writer:016x}", from + leaves.len() as u64);
    Record { key: key.into(), value: Some(leaves.concat().into()), headers: Vec::new(), timestamp_ms }
}

/// The record of a signed note about this tree.
pub(super) fn note_record(tree: &Tree, note: String, writer: u64, timestamp_ms: i64) -> Record {
    Record {
        key: format!("v1/note/{}@{writer:016x}", tree.size()).into(),
        value: Some(note.into()),
        headers: vec![(Cow::Borrowed(SUBTREES), tree.to_bytes().into())],
        timestamp_ms,
    }
}

/// Why the topic's last note can't be gone on from.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsound {
    #[error(
        "the note at {topic}/{partition} offset {offset} is not to be trusted: give the public key of who signed it, or see who changed it"
    )]
    Note {
        topic: Arc<str>,
        partition: u32,
        offset: u64,
        #[source]
        source: NotSealed,
    },
    #[error(
        "the hashes beside the note at {topic}/{partition} offset {offset} are not those that were signed: the topic was changed"
    )]
    Subtrees { topic: Arc<str>, partition: u32, offset: u64 },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl SealsPartition {
    /// The last note that is sound; an error where there are notes and none is.
    pub(super) async fn last(&self, keys: &[PublicKey]) -> Result<Option<(Seal, Tree)>, Unsound> {
        let bounds = self.log.bounds(&self.topic, self.partition).await?;
        let (mut look, mut unsound) = (FIRST_LOOK, None);
        loop {
            let from = bounds.end.saturating_sub(look).max(bounds.start);
            let mut scan = Scan::open(self.log.as_ref(), &self.topic, self.partition, from..bounds.end).await?;
            let mut last: Option<(Seal, Tree)> = None;
            while let Some(records) = scan.next().await? {
                for StoredRecord { offset, record } in records {
                    let Kept::Note { note, subtrees } = Kept::decode(&record) else { continue };
                    // What anybody may have put there does not keep us from going on from what is right.
                    match self.check(offset, &note, &subtrees, keys) {
                        Ok(found) if last.as_ref().is_none_or(|(seal, _)| seal.size <= found.0.size) => {
                            last = Some(found);
                        }
                        Ok(_) => {}
                        Err(error) => unsound = Some(error),
                    }
                }
            }
            if last.is_some() {
                if let Some(error) = unsound {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(topic = %self.topic, partition = self.partition, error, "a note that is not right is passed over");
                }
                return Ok(last);
            }
            if from == bounds.start {
                return unsound.map_or(Ok(None), Err);
            }
            look = look.saturating_mul(8);
        }
    }

    fn check(&self, offset: u64, note: &str, subtrees: &[u8], keys: &[PublicKey]) -> Result<(Seal, Tree), Unsound> {
        let (topic, partition) = (self.topic.clone(), self.partition);
        let (seal, _) = Seal::verify(note, keys).map_err(|source| Unsound::Note {
            topic: topic.clone(),
            partition,
            offset,
            source,
        })?;
        match Tree::from_bytes(seal.size, subtrees).filter(|tree| tree.root() == seal.root) {
            Some(tree) => Ok((seal, tree)),
            None => Err(Unsound::Subtrees { topic, partition, offset }),
        }
    }
}

/// What the topic says, in order: a leaf for each event, and the notes.
#[derive(Debug)]
pub(crate) struct Told {
    scan: Scan,
    queue: VecDeque<Word>,
    /// The leaves that were told.
    leaves: u64,
}

/// A leaf, or a note.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Word {
    /// The next leaf.
    Leaf(TreeHash),
    /// A note, and its offset.
    Note(u64, String),
    /// The leaves from this number on are not there: what comes begins further on, at this offset.
    Gap(u64),
    /// The record at this offset is not ours.
    Foreign(u64),
}

impl Told {
    /// From the begin to an offset.
    pub(crate) async fn open(seals: &SealsPartition, end: u64) -> Result<Self, LogError> {
        let start = seals.log.bounds(&seals.topic, seals.partition).await?.start;
        let scan = Scan::open(seals.log.as_ref(), &seals.topic, seals.partition, start..end).await?;
        Ok(Self { scan, queue: VecDeque::new(), leaves: 0 })
    }

    pub(crate) async fn next(&mut self) -> Result<Option<Word>, LogError> {
        loop {
            if let Some(word) = self.queue.pop_front() {
                return Ok(Some(word));
            }
            let Some(records) = self.scan.next().await? else { return Ok(None) };
            for StoredRecord { offset, record } in records {
                match Kept::decode(&record) {
                    Kept::Note { note, .. } => self.queue.push_back(Word::Note(offset, note)),
                    // What was written again, by who resumed, was told before.
                    Kept::Leaves { from, leaves } if from <= self.leaves => {
                        let known = (self.leaves - from).min(leaves.len() as u64) as usize;
                        self.leaves += (leaves.len() - known) as u64;
                        self.queue.extend(leaves[known..].iter().copied().map(Word::Leaf));
                    }
                    Kept::Leaves { .. } => self.queue.push_back(Word::Gap(offset)),
                    Kept::Foreign => self.queue.push_back(Word::Foreign(offset)),
                    Kept::Nothing => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(record: &Record) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let headers = record.headers.iter().map(|(name, value)| format!("{name} {}\n", hex(value)));
        let (key, value) = (str::from_utf8(&record.key).unwrap(), record.value.as_ref().unwrap());
        let value = str::from_utf8(value).map_or_else(|_| hex(value), str::to_owned);
        format!("key {key}\n{}value {value}", headers.collect::<String>())
    }

    /// Stored for ever: what one release writes every later one reads.
    #[test]
    fn records_keep_their_bytes() {
        let leaves = leaves_record(700, &[[0xab; 32], [0xcd; 32]], 0x0123_4567_89ab_cdef, 5);
        insta::assert_snapshot!(show(&leaves), @r"
        key v1/leaves/700-702@0123456789abcdef
        value ababababababababababababababababababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd
        ");
        assert_eq!(Kept::decode(&leaves), Kept::Leaves { from: 700, leaves: vec![[0xab; 32], [0xcd; 32]] });
        let mut tree = Tree::default();
        (0..3).for_each(|leaf| tree.push([leaf; 32]));
        let note = note_record(&tree, "a note".into(), 0x0123_4567_89ab_cdef, 5);
        insta::assert_snapshot!(show(&note), @r"
        key v1/note/3@0123456789abcdef
        subtrees 2ad82c3a51e8ed6418cb5bf267c5f9e521b99f7ab4fce657f460a8f1a3e87b2e0202020202020202020202020202020202020202020202020202020202020202
        value a note
        ");
        assert_eq!(Kept::decode(&note), Kept::Note { note: "a note".into(), subtrees: tree.to_bytes().into() });
    }

    #[test]
    fn what_is_not_ours_is_told_apart() {
        let record = |key: &str, value: Option<&[u8]>| Record {
            key: Bytes::copy_from_slice(key.as_bytes()),
            value: value.map(Bytes::copy_from_slice),
            headers: Vec::new(),
            timestamp_ms: 5,
        };
        let hash = [7; 32];
        for foreign in [
            record("v1/leaves/0-1@00", Some(&hash[1..])),
            record("v1/leaves/x-1@00", Some(&hash)),
            record("v1/note/1@00", Some(&[0xff])),
            record("v2/note/1@00", Some(b"a note")),
            record("", Some(b"")),
        ] {
            assert_eq!(Kept::decode(&foreign), Kept::Foreign, "{foreign:?}");
        }
        assert_eq!(Kept::decode(&record("v1/leaves/0-1@00", None)), Kept::Nothing);
    }
}
