//! Where a row comes from.

use chrono::TimeDelta;

use super::entry::Entry;
use super::query::{LIMIT_MAX, Order, Query};
use crate::error::Error;
use crate::model::Lineage;
use crate::readable::Readable;
use crate::sql::Database;

/// The event that last changed a row, with its command, its actor and its conversation: from what
/// [`Database::lineage`] tells of the row. [`Past`](super::Past) and [`Query`](super::Query) lead from there to the other
/// events of the aggregate, and to those of the same command or conversation.
///
/// None where the audit trail does not have it yet: wait for [`Lineage::position`](crate::Lineage::position) there.
///
/// # Errors
/// [`Error::Damaged`] where it may be an entry that can't be read; [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no audit trail.
pub async fn explain(database: &Database, lineage: &Lineage) -> Result<Option<Entry>, Error> {
    // The time finds it by an index, and few others with it.
    let (at, order) = (lineage.recorded_at, Order::OldestFirst);
    let (recorded_from, recorded_to) = (Some(at), at.checked_add_signed(TimeDelta::microseconds(1)));
    let mut query = Query { recorded_from, recorded_to, order, limit: LIMIT_MAX, ..Query::default() };
    let mut damage = None;
    loop {
        let Readable { items, next } = query.run_readable(database).await?;
        for entry in items {
            match entry {
                Ok(entry) if entry.recorded.envelope.event_id == lineage.event_id => return Ok(Some(entry)),
                Ok(_) => {}
                Err(damaged) => damage = damage.or(Some(damaged)),
            }
        }
        if next.is_none() {
            // It may be the one that can't be read.
            return damage.map_or(Ok(None), |damaged| Err(Error::Damaged(damaged.to_string())));
        }
        query.cursor = next;
    }
}
