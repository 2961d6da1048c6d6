//! What may be written: each limit that a reader has of a value is one function here. Every way in asks it, and so does
//! the owner before it appends, so that nothing is acknowledged which a reader would not take.

use chrono::{DateTime, Datelike, Utc};

use crate::domain::envelope::Metadata;
use crate::domain::error::InvalidCommand;

/// Numbers, sequences and versions only grow by one, so none comes near this; what does is not ours.
pub(crate) const COUNT_MAX: u64 = 1 << 62;

/// The end of the year 9999, in milliseconds since 1970: the last time that can be written as text.
pub(crate) const TIME_MAX_MS: i64 = 253_402_300_799_999;

/// The longest trace context and request, in bytes.
pub(crate) const TEXT_MAX_BYTES: usize = 200;

/// A business time as it is stored: in UTC, to the microsecond, with a year that RFC 3339 can write.
///
/// # Errors
/// A time whose year in UTC is not one of 0000 to 9999, though the year as it was written may be.
pub(crate) fn business_time(time: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    // A leap second becomes the second after it, which may be that of another year.
    let stored = DateTime::from_timestamp_micros(time.timestamp_micros());
    stored
        .filter(|stored| (0..=9999).contains(&stored.year()))
        .ok_or_else(|| format!("it occurred at {time}, and a time is written with a year from 0 to 9999 in UTC"))
}

/// A time of recording, in milliseconds since 1970.
///
/// # Errors
/// A time before 1970 or after 9999: no record can be written then.
pub(crate) fn recorded_ms(ms: i64) -> Result<(), String> {
    match (0..=TIME_MAX_MS).contains(&ms) {
        true => Ok(()),
        false => Err(format!("its timestamp is {ms} ms since 1970, and a record's is from 0 to {TIME_MAX_MS}")),
    }
}

/// A text that is only passed on: at most [`TEXT_MAX_BYTES`] bytes, without control characters.
///
/// # Errors
/// Says which of the two.
pub(crate) fn passed_on(what: &str, text: &str) -> Result<(), String> {
    if text.len() > TEXT_MAX_BYTES {
        return Err(format!("its {what} has {} bytes, at most {TEXT_MAX_BYTES} are passed on", text.len()));
    }
    match text.chars().any(char::is_control) {
        true => Err(format!("its {what} {text:?} has a control character")),
        false => Ok(()),
    }
}

/// What comes with a command, as it is stored.
///
/// # Errors
/// Names what can't be stored. Ids are checked where they are made.
pub(crate) fn metadata(mut metadata: Metadata) -> Result<Metadata, InvalidCommand> {
    let encoding = InvalidCommand::Encoding;
    metadata.occurred_at = metadata.occurred_at.map(business_time).transpose().map_err(encoding)?;
    if let Some(traceparent) = &metadata.traceparent {
        passed_on("traceparent", traceparent).map_err(encoding)?;
    }
    Ok(metadata)
}
