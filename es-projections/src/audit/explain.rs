//! Where a row comes from.

use super::entry::Entry;
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
    // The time finds it by an index, and hardly any other with it.
    let sql = format!("SELECT * FROM {} WHERE recorded_at = ? AND event_id = ?", database.table_name("audit"));
    let rows = database.fetch(&sql, &[lineage.recorded_at.into(), lineage.event_id.get().into()]).await?;
    rows.first().map(Entry::from_row).transpose()
}
