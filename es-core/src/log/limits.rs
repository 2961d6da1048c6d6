//! What may be appended: the limits that a reader has of an event with its place.

use crate::domain::envelope::Envelope;
use crate::domain::limits::{COUNT_MAX, business_time, passed_on, recorded_ms};
use crate::log::record::{COMMAND_EVENTS_MAX, Stamp};

/// An event with its place: what this lets pass is read back equal.
///
/// # Errors
/// Names what a reader would not take.
pub(crate) fn event(event: &Envelope, stamp: &Stamp) -> Result<(), String> {
    let counts = [event.version.get(), stamp.epoch.number, stamp.sequence];
    if counts.iter().any(|count| *count > COUNT_MAX) || event.version.get() == 0 || stamp.index >= stamp.count {
        return Err(format!("it is event {} of {} at version {}", stamp.index, stamp.count, event.version));
    }
    if stamp.count > COMMAND_EVENTS_MAX {
        return Err(format!(
            "it is one of {} events of a command, which has at most {COMMAND_EVENTS_MAX}",
            stamp.count
        ));
    }
    recorded_ms(event.recorded_at.timestamp_millis())?;
    if business_time(event.occurred_at)? != event.occurred_at {
        return Err(format!("it occurred at {}, and a time is stored to the microsecond", event.occurred_at));
    }
    if !event.recorded_at.timestamp_subsec_nanos().is_multiple_of(1_000_000) {
        return Err(format!("it is recorded at {}, and that is stored to the millisecond", event.recorded_at));
    }
    for (what, name) in [("context", &event.context), ("aggregate type", &event.stream.category)] {
        if name.contains('.') {
            return Err(format!(
                "its {what} is {name:?}: no dot can be in it, since dots separate the parts of a type"
            ));
        }
    }
    let names = [&event.context, &event.stream.category, &event.event_type];
    match names.iter().any(|name| name.chars().any(char::is_control)) {
        true => Err("its type has a control character".into()),
        false => event.traceparent.as_deref().map_or(Ok(()), |text| passed_on("traceparent", text)),
    }
}
