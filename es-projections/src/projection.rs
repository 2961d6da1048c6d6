//! A projection: the code that folds events into a read model.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::Recorded;
use es_core::log::record::AnswerEntry;

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

    /// The aggregate types whose events it folds in, by their stored names; none unless given, where it takes whatever its worker reads.
    /// A worker that lacks a source of one of them does not start, nor does one where this is empty.
    fn follows(&self) -> Option<Vec<&str>> {
        None
    }

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

    /// The column of a table that tells in which release's form a row is, for one whose rows only spare work: where two builds have a row
    /// in other forms, or one of them lacks it, they are equal still.
    #[doc(hidden)]
    fn form_column(&self, table: &str) -> Option<&'static str> {
        let _ = table;
        None
    }

    /// Whether [`Projection::refused`] is to be called. It is not, unless this says so.
    fn wants_refused(&self) -> bool {
        false
    }

    /// Writes down commands that changed nothing: they were refused, conflicted with a version, or had nothing to do. Called
    /// in the transaction in which the checkpoint moves past them, beside the events of the batch and in no order with them.
    ///
    /// # Errors
    /// Any. The transaction is rolled back, and the batch comes again after a pause; nothing is parked.
    async fn refused(&self, tx: &mut Tx, commands: &[RefusedCommand]) -> Result<(), ProjectionError> {
        let _ = (tx, commands);
        Ok(())
    }
}

/// A command that changed nothing, as the log remembers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedCommand {
    /// The aggregate type's stored name.
    pub category: Arc<str>,
    /// Where the answers record is.
    pub partition: u32,
    /// Its offset.
    pub offset: u64,
    /// The place in the record, from 0.
    pub place: u32,
    /// When it was written.
    pub recorded_at: DateTime<Utc>,
    /// The command and its answer.
    pub entry: AnswerEntry,
}

#[async_trait]
impl<P: Projection + ?Sized> Projection for Arc<P> {
    fn name(&self) -> &str {
        (**self).name()
    }

    fn version(&self) -> u32 {
        (**self).version()
    }

    fn tables(&self) -> Vec<Table> {
        (**self).tables()
    }

    fn follows(&self) -> Option<Vec<&str>> {
        (**self).follows()
    }

    async fn setup(&self, tx: &mut Tx) -> Result<(), ProjectionError> {
        (**self).setup(tx).await
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        (**self).project(tx, events).await
    }

    fn form_column(&self, table: &str) -> Option<&'static str> {
        (**self).form_column(table)
    }

    fn wants_refused(&self) -> bool {
        (**self).wants_refused()
    }

    async fn refused(&self, tx: &mut Tx, commands: &[RefusedCommand]) -> Result<(), ProjectionError> {
        (**self).refused(tx, commands).await
    }
}
