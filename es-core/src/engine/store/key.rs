//! The keys of the local state store.

use serde::{Deserialize, Serialize};

use super::Table;

/// Keys of everything of a partition begin so.
pub(crate) fn prefix(partition: u32) -> [u8; 4] {
    partition.to_be_bytes()
}

/// An aggregate's state.
pub(crate) fn state(partition: u32, aggregate: &str) -> Vec<u8> {
    [&prefix(partition), aggregate.as_bytes()].concat()
}

/// The aggregate of a state's key; `None` for a mark.
pub(crate) fn parse_state(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.get(4..)?).ok()
}

/// A command id. No id holds a control character, so the zero byte ends the first.
pub(crate) fn id(partition: u32, aggregate: &str, command: &str) -> Vec<u8> {
    [&prefix(partition), aggregate.as_bytes(), &[0], command.as_bytes()].concat()
}

/// Aggregate and command id of its key; `None` for a mark.
pub(crate) fn parse_id(key: &[u8]) -> Option<(&str, &str)> {
    std::str::from_utf8(key.get(4..)?).ok()?.split_once('\0')
}

/// Where a table of a partition says which write to it was the last; among the checkpoints, the tables that are being
/// filled. No text has this byte.
pub(crate) fn mark(partition: u32) -> Vec<u8> {
    [&prefix(partition)[..], &[0xff]].concat()
}

/// A stretch of time. Its width is part of it: it is a setting of the process that began the table, and another process
/// may have another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) width_ms: u64,
    /// Counted from 1970.
    pub(crate) number: u64,
}

impl Span {
    /// The first millisecond after it.
    pub(crate) fn end_ms(self) -> i64 {
        i64::try_from(u128::from(self.width_ms) * (u128::from(self.number) + 1)).unwrap_or(i64::MAX)
    }
}

/// How long command ids are remembered. They are kept in tables by time, each half the retention long, so that about
/// three are looked at, and a few more after the setting was changed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    pub(crate) retention_ms: i64,
}

impl Spans {
    /// The table to which what was recorded then is written.
    pub(crate) fn table(self, time_ms: i64) -> Table {
        let width_ms = (self.retention_ms / 2).max(1).cast_unsigned();
        Table::Ids(Span { width_ms, number: time_ms.max(0).cast_unsigned() / width_ms })
    }

    /// Whether all that was recorded in this stretch, by whatever setting, is past the retention now.
    pub(crate) fn is_over(self, span: Span, now_ms: i64) -> bool {
        !self.holds(span.end_ms() - 1, now_ms)
    }

    /// Whether what was recorded then is still remembered.
    pub(crate) fn holds(self, recorded_at_ms: i64, now_ms: i64) -> bool {
        recorded_at_ms.saturating_add(self.retention_ms) > now_ms
    }
}
