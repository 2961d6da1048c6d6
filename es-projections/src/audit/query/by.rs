//! The order of a page, and places in it.

use chrono::DateTime;
use es_core::Recorded;

use crate::sql::Value;

/// What entries are ordered by. Each ends in what no two events share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// The versions of one aggregate, as the primary key has them.
    Version,
    /// The time of recording.
    Recorded,
    /// The business time; of those that share one, and days are shared by many, the time of recording.
    Occurred,
}

impl By {
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Version => &["version"],
            Self::Recorded => &["recorded_at", "category", "topic_partition", "topic_offset"],
            Self::Occurred => &["occurred_at", "recorded_at", "category", "topic_partition", "topic_offset"],
        }
    }

    /// An event's values of these columns.
    pub(super) fn values(self, recorded: &Recorded) -> Vec<Value> {
        let event = &recorded.envelope;
        let mut values = match self {
            Self::Version => return vec![event.version.into()],
            Self::Recorded => vec![event.recorded_at.into()],
            Self::Occurred => vec![event.occurred_at.into(), event.recorded_at.into()],
        };
        let offset = Value::Integer(recorded.offset as i64);
        values.extend([event.stream.category.clone().into(), recorded.partition.into(), offset]);
        values
    }

    /// The same as a part of a cursor. The category is last: it may hold anything.
    pub(super) fn text(self, recorded: &Recorded) -> String {
        let event = &recorded.envelope;
        let (recorded_at, occurred_at) = (event.recorded_at.timestamp_micros(), event.occurred_at.timestamp_micros());
        let end = format!("{}.{}.{}", recorded.partition, recorded.offset, event.stream.category);
        match self {
            Self::Version => event.version.to_string(),
            Self::Recorded => format!("{recorded_at}.{end}"),
            Self::Occurred => format!("{occurred_at}.{recorded_at}.{end}"),
        }
    }

    /// The values that the text stands for.
    pub(super) fn parse(self, text: &str) -> Option<Vec<Value>> {
        let times = match self {
            Self::Version => return Some(vec![text.parse::<i64>().ok()?.into()]),
            Self::Recorded => 1,
            Self::Occurred => 2,
        };
        let mut parts = text.splitn(times + 3, '.');
        let mut values = Vec::with_capacity(times + 3);
        for _ in 0..times {
            values.push(DateTime::from_timestamp_micros(parts.next()?.parse().ok()?)?.into());
        }
        let (partition, offset): (u32, i64) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        values.extend([parts.next()?.into(), partition.into(), offset.into()]);
        Some(values)
    }
}
