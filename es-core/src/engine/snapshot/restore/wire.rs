//! Of the messages in the topic what a restore needs of them, without taking them apart: millions of them only pass
//! through. The rest is looked at when it is needed. `None` where something is not as it should be.

use std::str;

/// Of a [`Snapshot`](crate::engine::snapshot::Snapshot) what tells whether it is wanted.
pub(super) struct Head<'a> {
    pub(super) lineage: &'a [u8],
    pub(super) offset: u64,
}

/// One command id.
pub(super) struct Id<'a> {
    pub(super) aggregate: &'a str,
    pub(super) command: &'a str,
    /// A [`Remembered`](crate::engine::remembered::Remembered).
    pub(super) known: &'a [u8],
    pub(super) recorded_at_ms: i64,
    /// Where its record is: an id that was sent again may have several answers, and the last one counts.
    pub(super) offset: u64,
}

pub(super) fn snapshot(message: &[u8]) -> Option<Head<'_>> {
    let mut head = Head { lineage: &[], offset: 0 };
    for field in Fields(message) {
        match field? {
            (2, Field::Bytes(lineage)) => head.lineage = lineage,
            (4, Field::Number(offset)) => head.offset = offset,
            _ => {}
        }
    }
    Some(head)
}

/// Of a record of ids.
pub(super) fn lineage(message: &[u8]) -> Option<&[u8]> {
    let lineage = Fields(message).find_map(|field| match field {
        Some((2, Field::Bytes(lineage))) => Some(Some(lineage)),
        Some(_) => None,
        None => Some(None),
    });
    lineage.unwrap_or(Some(&[]))
}

pub(super) fn ids(message: &[u8]) -> impl Iterator<Item = Option<Id<'_>>> {
    Fields(message).filter_map(|field| match field {
        Some((3, Field::Bytes(entry))) => Some(id(entry)),
        Some(_) => None,
        None => Some(None),
    })
}

fn id(message: &[u8]) -> Option<Id<'_>> {
    let mut id = Id { aggregate: "", command: "", known: &[], recorded_at_ms: 0, offset: 0 };
    for field in Fields(message) {
        match field? {
            (1, Field::Bytes(aggregate)) => id.aggregate = str::from_utf8(aggregate).ok()?,
            (2, Field::Bytes(command)) => id.command = str::from_utf8(command).ok()?,
            (3, Field::Bytes(known)) => id.known = known,
            _ => {}
        }
    }
    for field in Fields(id.known) {
        match field? {
            (1, Field::Number(time)) => id.recorded_at_ms = time.cast_signed(),
            (3, Field::Number(offset)) => {
                id.offset = offset;
                break; // the rest is looked at when it is needed
            }
            _ => {}
        }
    }
    Some(id)
}

/// The fields of a protobuf message, by their tags. Ends after a `None`.
struct Fields<'a>(&'a [u8]);

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Four or eight bytes.
    Fixed,
}

impl<'a> Fields<'a> {
    #[inline]
    fn varint(&mut self) -> Option<u64> {
        match self.0 {
            [byte @ ..0x80, rest @ ..] => {
                self.0 = rest;
                Some(u64::from(*byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for place in 0..10 {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    #[inline]
    fn bytes(&mut self, count: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    #[inline]
    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Number(self.varint()?),
            1 => self.bytes(8).map(|_| Field::Fixed)?,
            2 => {
                let count = self.varint()?;
                Field::Bytes(self.bytes(count)?)
            }
            5 => self.bytes(4).map(|_| Field::Fixed)?,
            _ => return None,
        };
        Some((key >> 3, field))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;

    use super::*;
    use crate::domain::hash::CommandHash;
    use crate::domain::ids::Version;
    use crate::engine::remembered::Remembered;
    use crate::engine::snapshot::{FORMAT, IdEntry, Ids, Lineage, Schema, Snapshot};

    const LINEAGE: [u8; 16] = [7; 16];

    #[test]
    fn what_is_needed_is_found_in_what_is_written() {
        let schema = Schema { fingerprint: "f".into(), snapshot_version: 1, release: 0 };
        let lineage_of_it = Lineage::of(&schema, uuid::Uuid::nil());
        let written = Snapshot::new(lineage_of_it, 300, 70_000, &[1; 32], b"{}".to_vec()).encoded();
        let head = snapshot(&written).unwrap();
        assert_eq!((head.lineage, head.offset), (&lineage_of_it.0[..], 70_000));

        let known = Remembered::accepted(1_700_000_000_123, CommandHash([9; 17]), 70_000, Version::new(300), 1);
        let entry = |command: &str| IdEntry {
            aggregate: "Žižka".into(),
            command: command.into(),
            known: known.encode_to_vec().into(),
        };
        let lineage_bytes = Bytes::copy_from_slice(&LINEAGE);
        let written = Ids { format: FORMAT, lineage: lineage_bytes, ids: vec![entry("a"), entry("b")], newest_ms: -1 };
        let written = written.encode_to_vec();
        assert_eq!(lineage(&written), Some(&LINEAGE[..]));
        let found: Vec<_> = ids(&written).map(|id| id.expect("whole")).collect();
        let commands: Vec<_> = found.iter().map(|id| (id.aggregate, id.command, id.recorded_at_ms)).collect();
        let time = 1_700_000_000_123;
        assert_eq!(commands, [("Žižka", "a", time), ("Žižka", "b", time)]);
        assert!(found.iter().all(|id| id.known == known.encode_to_vec()));
    }

    #[test]
    fn what_is_cut_off_or_no_message_is_noticed_and_never_a_panic() {
        let known = Remembered::accepted(5, CommandHash([9; 17]), 7, Version::new(3), 1);
        let entry = IdEntry { aggregate: "a".into(), command: "c".into(), known: known.encode_to_vec().into() };
        let lineage_bytes = Bytes::copy_from_slice(&LINEAGE);
        let whole = Ids { format: FORMAT, lineage: lineage_bytes, ids: vec![entry], newest_ms: 1 }.encode_to_vec();
        for end in 0..whole.len() {
            let cut = &whole[..end];
            // Cut between two fields it is a shorter message.
            let between = Ids::decode(cut).is_ok();
            assert_eq!(ids(cut).any(|id| id.is_none()), !between, "cut at {end}");
        }
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..10_000 {
            let rubbish: Vec<u8> = (0..rng.usize(..40)).map(|_| rng.u8(..)).collect();
            let _ = (snapshot(&rubbish).is_some(), lineage(&rubbish).is_some(), ids(&rubbish).count());
        }
    }
}
