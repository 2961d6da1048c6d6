//! What is read of the topic, on its way into the store: collected, sorted, and loaded past the store's journal.

use std::collections::{BTreeMap, HashSet};
use std::str;

use bytes::{Bytes, BytesMut};

use super::Last;
use super::{aside, wire};
use crate::domain::ids::Epoch;
use crate::engine::remembered::Remembered;
use crate::engine::snapshot::{Lineage, Snapshot, SnapshotTopic, Subject, Unreadable, parse_key};
use crate::engine::store::{Store, StoreError, Table, Write, key};
use crate::engine::stored::{StoredCheckpoint, filling};
use crate::log::{Record, StoredRecord};

/// What is collected before it is sorted and loaded. What is loaded at once the store need not merge: 250,000 small
/// states and ids of a partition are.
const COLLECTED_BYTES_MAX: usize = if cfg!(test) { 20 * 150 } else { 64 << 20 };
/// What an entry takes at least, for the most part.
const ENTRY_BYTES: usize = 160;
/// A piece of memory that keys share.
const PIECE_BYTES: usize = 32 << 10;

pub(super) enum Refused {
    Store(StoreError),
    Record(Unreadable),
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A state or an id that was read.
#[derive(Default)]
struct Collected {
    key: Bytes,
    value: Bytes,
    /// Of the last record in a state, which may be that it was erased; or of the answer. Of two the greater one is newer.
    offset: u64,
    /// Nothing newer can have come before it.
    in_turn: bool,
}

/// Collects what is read, and loads it in batches.
pub(super) struct Filling<'a> {
    topic: &'a SnapshotTopic,
    store: &'a dyn Store,
    keys: Keys,
    collected: BTreeMap<Table, Vec<Collected>>,
    bytes: usize,
    /// About so many entries are collected for a table.
    expected: usize,
    tables: HashSet<Table>,
    writer: Writer,
    /// The newest writer met so far, and whether there were others with its number.
    leading: Epoch,
    contested: bool,
    written: u64,
}

impl<'a> Filling<'a> {
    pub(super) fn new(topic: &'a SnapshotTopic, store: &'a dyn Store, records: u64) -> Self {
        Self {
            topic,
            store,
            keys: Keys { prefix: key::prefix(topic.partition), piece: BytesMut::new() },
            collected: BTreeMap::new(),
            bytes: 0,
            expected: usize::try_from(records).unwrap_or(usize::MAX).min(COLLECTED_BYTES_MAX / ENTRY_BYTES),
            tables: HashSet::new(),
            writer: Writer::default(),
            leading: Epoch::default(),
            contested: false,
            written: 0,
        }
    }

    pub(super) fn take(&mut self, stored: StoredRecord, lineage: Lineage) -> Result<(), Refused> {
        let Record { key, value, .. } = stored.record;
        let (Some((subject, epoch)), Some(value)) = (self.writer.subject(&key), value) else { return Ok(()) };
        match subject {
            Subject::Aggregate(aggregate) => {
                let head = wire::snapshot(&value).ok_or(Refused::Record(Unreadable("snapshot")))?;
                if head.lineage == lineage.0 {
                    let (offset, in_turn) = (head.offset, self.is_in_turn(epoch));
                    let key = self.keys.state(aggregate);
                    self.collect(Table::States, Collected { key, value, offset, in_turn });
                }
            }
            Subject::Ids => {
                if wire::lineage(&value).ok_or(Refused::Record(Unreadable("record of ids")))? == lineage.0 {
                    let in_turn = self.is_in_turn(epoch);
                    wire::ids(&value).try_for_each(|entry| self.take_id(entry, &value, in_turn))?;
                }
            }
            Subject::Checkpoint => return Ok(()),
        }
        if self.bytes >= COLLECTED_BYTES_MAX {
            aside(|| self.load())?;
        }
        Ok(())
    }

    /// One writer's versions and offsets grow, and a later claim's are not below an earlier one's: only what landed out of
    /// turn has to be compared with what is in the store.
    fn is_in_turn(&mut self, epoch: Epoch) -> bool {
        if epoch.number > self.leading.number {
            (self.leading, self.contested) = (epoch, false);
        }
        self.contested |= epoch.number == self.leading.number && epoch != self.leading;
        epoch == self.leading && !self.contested
    }

    /// However old it is: a clock that was wrong may have recorded what is behind it.
    fn take_id(&mut self, entry: Option<wire::Id<'_>>, value: &Bytes, in_turn: bool) -> Result<(), Refused> {
        let wire::Id { aggregate, command, known, recorded_at_ms, offset } =
            entry.ok_or(Refused::Record(Unreadable("command id")))?;
        let (key, value) = (self.keys.id(aggregate, command), value.slice_ref(known));
        let table = self.topic.limits.spans.table(recorded_at_ms);
        self.collect(table, Collected { key, value, offset, in_turn });
        Ok(())
    }

    fn collect(&mut self, table: Table, entry: Collected) {
        self.bytes += entry.key.len() + entry.value.len() + size_of::<Collected>();
        // There may be very many tables of ids, where nobody was busy for long.
        let expected = if self.collected.len() < 4 { self.expected } else { 0 };
        self.collected.entry(table).or_insert_with(|| Vec::with_capacity(expected)).push(entry);
    }

    fn load(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        self.say_what_is_filled()?;
        for (table, collected) in std::mem::take(&mut self.collected) {
            self.load_table(table, collected, None)?;
        }
        Ok(())
    }

    /// Before anything is loaded, so that nobody takes the tables away.
    fn say_what_is_filled(&mut self) -> Result<(), StoreError> {
        let before = self.tables.len();
        self.tables.extend(self.collected.keys());
        if self.tables.len() == before {
            Ok(())
        } else {
            self.store.write(vec![filling(self.topic.partition, &self.tables)?])
        }
    }

    /// Loads one entry for each key, and one more behind them.
    fn load_table(
        &mut self,
        table: Table,
        mut collected: Vec<Collected>,
        last: Option<(Bytes, Bytes)>,
    ) -> Result<(), StoreError> {
        let mut order = order(&collected);
        order.dedup_by(|later, earlier| {
            let (after, before) = (&collected[*later], &collected[*earlier]);
            let same = after.key == before.key;
            if same && (after.offset > before.offset || (after.offset == before.offset && after.in_turn)) {
                *earlier = *later;
            }
            same
        });
        let newer = order.into_iter().filter_map(|place| {
            let newer = self.is_newer(table, &collected[place]);
            newer.map(|newer| newer.then_some(place)).transpose()
        });
        let order: Vec<usize> = newer.collect::<Result<_, _>>()?;
        if table == Table::States {
            self.written += order.len() as u64;
        }
        if order.is_empty() && last.is_none() {
            return Ok(());
        }
        let entries = order.into_iter().map(|place| {
            let Collected { key, value, .. } = std::mem::take(&mut collected[place]);
            (key, value)
        });
        self.store.load(table, &mut entries.chain(last))
    }

    /// Whether the store has nothing as new of it.
    fn is_newer(&self, table: Table, entry: &Collected) -> Result<bool, StoreError> {
        if entry.in_turn {
            return Ok(true);
        }
        let Some(before) = self.store.get(table, &entry.key)? else { return Ok(true) };
        let before = match table {
            Table::States => {
                Snapshot::parse(before).map(|before| before.offset).map_err(crate::domain::error::Cause::from)
            }
            _ => Remembered::parse(before).map(|before| before.offset),
        };
        Ok(before.map_err(|error| StoreError::new("reading", error))? < entry.offset)
    }

    /// The checkpoint last: without it a store counts as empty.
    pub(super) fn finish(mut self, last: Last) -> Result<u64, StoreError> {
        self.say_what_is_filled()?;
        let mut collected = std::mem::take(&mut self.collected);
        let stored = StoredCheckpoint::restored(&self.topic.schema, last.reached, last.forgetting, self.tables.clone());
        let writes = stored.writes(self.topic.partition)?;
        let (checkpoint, marks): (Vec<_>, Vec<_>) =
            writes.into_iter().partition(|write| write.table == Table::Checkpoints);
        // Marks are behind all keys, and loaded with them: written for themselves they would have to be merged.
        for Write { table, key, value } in marks {
            let rest = collected.remove(&table).unwrap_or_default();
            self.load_table(table, rest, Some((key.into(), value)))?;
        }
        let filled = filling(self.topic.partition, &HashSet::new())?;
        self.store.write(checkpoint.into_iter().chain([filled]).collect())?;
        Ok(self.written)
    }
}

/// The places of these in the order of their keys; of those with one key in the order in which they came. What one
/// checkpoint wrote is in order already.
fn order(collected: &[Collected]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..collected.len()).collect();
    order.sort_by(|one, other| collected[*one].key.cmp(&collected[*other].key));
    order
}

/// Who wrote the last key, as it stands at the key's end.
#[derive(Default)]
struct Writer {
    end: Bytes,
    epoch: Epoch,
}

impl Writer {
    /// As [`parse_key`], which only the first key of a writer needs.
    fn subject<'k>(&mut self, key: &'k Bytes) -> Option<(Subject<'k>, Epoch)> {
        let same = key.strip_suffix(&self.end[..]).filter(|_| !self.end.is_empty());
        if let Some(aggregate) = same.filter(|start| !start.starts_with(b"!")) {
            return Some((Subject::Aggregate(str::from_utf8(aggregate).ok()?), self.epoch));
        }
        let (subject, epoch) = parse_key(key)?;
        let end = key.iter().rposition(|byte| *byte == b'@').expect("an epoch is behind it");
        *self = Self { end: key.slice(end..), epoch };
        Some((subject, epoch))
    }
}

/// Makes keys of the store, one behind the other into pieces of memory that they share.
struct Keys {
    prefix: [u8; 4],
    piece: BytesMut,
}

impl Keys {
    fn state(&mut self, aggregate: &str) -> Bytes {
        self.make(&[aggregate.as_bytes()])
    }

    fn id(&mut self, aggregate: &str, command: &str) -> Bytes {
        self.make(&[aggregate.as_bytes(), &[0], command.as_bytes()])
    }

    fn make(&mut self, parts: &[&[u8]]) -> Bytes {
        let bytes = self.prefix.len() + parts.iter().map(|part| part.len()).sum::<usize>();
        if self.piece.capacity() < bytes {
            self.piece = BytesMut::with_capacity(PIECE_BYTES.max(bytes));
        }
        self.piece.extend_from_slice(&self.prefix);
        parts.iter().for_each(|part| self.piece.extend_from_slice(part));
        self.piece.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_the_same_whoever_wrote_the_one_before() {
        let mut keys = vec!["", "@", "a", "a@", "a@7", "a@7.zz", "@1.00000000000000aa", "!ids/3.0@1.00000000000000aa"];
        keys.extend(["!checkpoint@2.00000000000000bb", "!else@2.00000000000000bb", "a@b@2.00000000000000bb"]);
        keys.extend([
            "a@1.00000000000000aa",
            "a@11.00000000000000aa",
            "a@2.00000000000000bb",
            "a@1.00000000000000aa@2.00000000000000bb",
        ]);
        for before in &keys {
            for key in &keys {
                let mut writer = Writer::default();
                let (before, key) = (Bytes::from_static(before.as_bytes()), Bytes::from_static(key.as_bytes()));
                let _ = writer.subject(&before);
                assert_eq!(writer.subject(&key), parse_key(&key), "{key:?} after {before:?}");
            }
        }
        let invalid = Bytes::from_static(b"\xff@1.00000000000000aa");
        let mut writer = Writer::default();
        assert!(writer.subject(&Bytes::from_static(b"a@1.00000000000000aa")).is_some());
        assert_eq!(writer.subject(&invalid), None);
    }
}
