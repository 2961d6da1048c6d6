//! The keys of the local state store.

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

/// Where a table of a partition says which write to it was the last. No text has this byte.
pub(crate) fn mark(partition: u32) -> Vec<u8> {
    [&prefix(partition)[..], &[0xff]].concat()
}

/// Command ids are kept in tables by time, each half the retention long, so that at most three are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spans {
    pub(crate) retention_ms: i64,
}

impl Spans {
    pub(crate) fn of(self, time_ms: i64) -> u64 {
        (time_ms / (self.retention_ms / 2).max(1)).max(0) as u64
    }

    /// The first whose ids are not all past the retention.
    pub(crate) fn oldest(self, now_ms: i64) -> u64 {
        self.of(now_ms.saturating_sub(self.retention_ms))
    }

    pub(crate) fn table(self, time_ms: i64) -> Table {
        Table::Ids(self.of(time_ms))
    }

    /// Whether what was recorded then is still remembered.
    pub(crate) fn holds(self, recorded_at_ms: i64, now_ms: i64) -> bool {
        recorded_at_ms.saturating_add(self.retention_ms) > now_ms
    }
}
