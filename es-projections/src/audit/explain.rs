//! Where a row comes from.

use chrono::TimeDelta;

use super::entry::Entry;
use super::query::{LIMIT_MAX, Order, Page, Query};
use crate::error::Error;
use crate::model::Lineage;
use crate::sql::Database;

/// The event that last changed a row, with its command, its actor and its conversation: from what
/// [`Database::lineage`] tells of the row. [`Past`](super::Past) and [`Query`](super::Query) lead from there to the other
/// events of the aggregate, and to those of the same command or conversation.
///
/// None where the audit trail does not have it yet: wait for [`Lineage::position`](crate::Lineage::position) there.
///
/// # Errors
/// [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no audit trail.
pub async fn explain(database: &Database, lineage: &Lineage) -> Result<Option<Entry>, Error> {
    // The time finds it by an index, and few others with it.
    let (at, order) = (lineage.recorded_at, Order::OldestFirst);
    let (recorded_from, recorded_to) = (Some(at), at.checked_add_signed(TimeDelta::microseconds(1)));
    let mut query = Query { recorded_from, recorded_to, order, limit: LIMIT_MAX, ..Query::default() };
    loop {
        let Page { entries, next } = query.run(database).await?;
        let found = entries.into_iter().find(|entry| entry.recorded.envelope.event_id == lineage.event_id);
        if found.is_some() || next.is_none() {
            return Ok(found);
        }
        query.cursor = next;
    }
}
