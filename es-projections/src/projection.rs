//! A projection: the code that folds events into a read model.

use async_trait::async_trait;
use es_core::Recorded;

use crate::error::ProjectionError;
use crate::sql::{Table, Tx};

/// Folds events into tables.
///
/// A [`Worker`](crate::Worker) calls [`Projection::project`] with one batch of events after the other, each in a
/// transaction in which it also moves the checkpoint. So rows and checkpoint change together, and every event is
/// folded in exactly once, whatever is stopped or killed in between.
///
/// What is done outside the transaction (a mail, a request) is repeated when the batch is.
#[async_trait]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a projection",
    note = "write `#[async_trait] impl Projection for {Self} {{ … }}` with `name`, `tables` and `project`"
)]
pub trait Projection: Send + Sync + 'static {
    /// The stored name: 1 to 40 lower-case letters, digits and underscores. Renaming it starts a new read model.
    fn name(&self) -> &str;

    /// Raised whenever the same events would give other rows or other tables. 1 unless given.
    fn version(&self) -> u32 {
        1
    }

    /// The tables, made when the worker starts.
    fn tables(&self) -> Vec<Table>;

    /// Further SQL once the tables are there, at every start: views, for example.
    ///
    /// # Errors
    /// Any; the worker does not start then.
    async fn setup(&self, tx: &mut Tx) -> Result<(), ProjectionError> {
        let _ = tx;
        Ok(())
    }

    /// Folds a batch of events into the tables.
    ///
    /// The events are those of whole commands: never a part of one. They may be of several aggregates and
    /// partitions; those of one aggregate are in the order of their versions.
    ///
    /// Where workers [share](crate::Worker::share) the partitions, others may change the same rows at the same time, unless
    /// these are of one aggregate, as when its id is in their key. A [`Model`](crate::Model) sees to that by itself. SQL of one's own must do so
    /// on PostgreSQL: what [`Tx::load`] gives is locked until the end of the transaction and may be written back, but a row
    /// that it did not find may have been added since. So such rows are added with
    /// [`OnDuplicate::Retry`](crate::OnDuplicate::Retry), not with [`Tx::upsert`]; or one statement does it all, as `INSERT … ON CONFLICT (key) DO UPDATE SET total = t.total + excluded.total` does.
    ///
    /// # Errors
    /// Any. The transaction is rolled back, and the batch comes again after a pause; nothing is skipped.
    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError>;
}
