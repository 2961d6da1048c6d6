//! Read models whose rows are structs: the user says which rows an event touches, and how.

mod column;
pub mod derived;
mod query;
mod rows;

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use async_trait::async_trait;
use es_core::{Aggregate, DecodeError, Recorded};

use crate::error::{Error, ProjectionError};
use crate::projection::Projection;
use crate::sql::{Row, Table, Tx, Value};
pub use column::ColumnValue;
pub use query::{Lineage, RowsPage};
pub(crate) use query::{page_of, read_page};
pub use rows::Rows;
use rows::TableOf;

/// A row of a read model: `#[derive(ReadModel)]` on a struct.
///
/// [`Fold`] says how events change rows, and a [`Model`] of it is what a worker runs.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row of a read model",
    note = "write `#[derive(ReadModel)]` on `{Self}`"
)]
pub trait ReadModel: Clone + Send + Sync + 'static {
    /// What tells rows apart: the type of the key field, or a tuple of the types of several.
    type Key: Clone + Eq + Hash + fmt::Debug + Send + Sync + 'static;

    /// The name of the table, and of the projection that folds into it.
    const NAME: &'static str;
    /// Raised whenever the same events would give other rows: of the rows beside the first ones, too.
    const VERSION: u32;

    /// The table, without the columns that say what changed a row last.
    fn table() -> Table;

    /// The key of this row.
    fn key(&self) -> Self::Key;

    /// The values of the key columns, in the table's order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be stored.
    fn key_values(key: &Self::Key) -> Result<Vec<Value>, Error>;

    /// The values of all columns, in the table's order.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a value that can't be stored.
    fn to_values(&self) -> Result<Vec<Value>, Error>;

    /// The row from what was read, in the table's order or another.
    ///
    /// # Errors
    /// [`Error::Damaged`] naming the column that does not hold what the field needs.
    fn from_row(row: &Row) -> Result<Self, Error>;

    /// Makes the row what would be read back of it: a time loses what is finer than a microsecond. So what later events find
    /// does not depend on whether it was stored in between.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the column whose value can't be stored, or not be read back.
    fn settle(&mut self) -> Result<(), Error> {
        let columns = Self::table().columns().iter().map(|column| column.name.clone()).collect();
        *self = Self::from_row(&Row { columns, values: self.to_values()?, unreadable: Vec::new() })?;
        Ok(())
    }

    /// The same of a key.
    ///
    /// # Errors
    /// As for [`ReadModel::settle`].
    fn settle_key(key: &mut Self::Key) -> Result<(), Error> {
        Self::key_values(key).map(drop)
    }
}

/// How the events of an aggregate type change rows.
///
/// ```
/// use es_core::doc::{Account, AccountEvent};
/// use es_core::{Recorded, Version};
/// use es_projections::{Fold, ProjectionError, ReadModel, Rows};
///
/// #[derive(Debug, Clone, PartialEq, ReadModel)]
/// #[read_model(name = "accounts")]
/// struct AccountRow {
///     #[key]
///     id: String,
///     balance: i64,
/// }
///
/// impl Fold<Account> for AccountRow {
///     fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
///         let id = recorded.envelope.stream.id.to_string();
///         let new = || AccountRow { id: id.clone(), balance: 0 };
///         match *event {
///             AccountEvent::Deposited { amount } => rows.change_or_insert(&id, new, |row| row.balance += amount as i64),
///             AccountEvent::Withdrawn { amount } => rows.change(&id, |row: &mut AccountRow| row.balance -= amount as i64),
///         }
///     }
/// }
/// ```
pub trait Fold<A: Aggregate>: ReadModel {
    /// Changes the rows that an event touches, of this type or of others that the [`Model`] has.
    ///
    /// It must depend on nothing but its arguments, and where several aggregates change one row not on the order of their events:
    /// those of one aggregate come in order, those of others at any time between. It may be called more than once for an event, to learn which rows
    /// it touches; what is done in the closures it gives to [`Rows`] is done once.
    ///
    /// # Errors
    /// Any. The aggregate is parked, with this as the reason.
    fn fold(event: &A::Event, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError>;
}

/// The projection of a [`ReadModel`]: loads the rows of a whole batch at once, folds in memory, and writes them back at once.
///
/// Each row has four more columns, which say what changed it last: `es_event_id`, `es_version`, `es_recorded_at` and
/// `es_position`. Of events of several partitions, which are read side by side, the last is the one recorded last.
pub struct Model<R> {
    tables: Vec<Kind>,
    followed: Vec<Followed>,
    ignores_unknown: bool,
    rows: PhantomData<fn() -> R>,
}

/// A kind of rows.
#[derive(Clone)]
struct Kind {
    table: Table,
    version: u32,
    empty: fn(Table) -> Box<dyn TableOf>,
}

/// An aggregate type whose events are folded in.
struct Followed {
    category: &'static str,
    decode: fn(&Recorded) -> Result<Box<dyn Pending>, DecodeError>,
}

/// An event that was decoded.
trait Pending: Send + Sync {
    fn fold(&self, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError>;
}

struct Decoded<A: Aggregate, R> {
    event: A::Event,
    rows: PhantomData<fn() -> R>,
}

impl<A: Aggregate, R: Fold<A>> Pending for Decoded<A, R> {
    fn fold(&self, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
        R::fold(&self.event, recorded, rows)
    }
}

fn decode<A: Aggregate, R: Fold<A>>(recorded: &Recorded) -> Result<Box<dyn Pending>, DecodeError> {
    let event = recorded.envelope.event::<A>()?;
    Ok(Box::new(Decoded::<A, R> { event, rows: PhantomData }))
}

impl<R: ReadModel> Model<R> {
    /// A projection into these rows that follows nothing yet.
    #[expect(clippy::new_without_default, reason = "without `follow` it does nothing")]
    pub fn new() -> Self {
        Self { tables: vec![kind::<R>()], followed: Vec::new(), ignores_unknown: false, rows: PhantomData }
    }

    /// Folds in the events of an aggregate type.
    ///
    /// # Panics
    /// When it is followed already.
    #[must_use]
    pub fn follow<A: Aggregate>(mut self) -> Self
    where
        R: Fold<A>,
    {
        assert!(self.followed(A::NAME).is_none(), "read model {} follows {} twice", R::NAME, A::NAME);
        self.followed.push(Followed { category: A::NAME, decode: decode::<A, R> });
        self
    }

    /// Gives the folds rows of another type beside those of `R`, in a table of their own: for what an event does not
    /// tell and an earlier one did. Raising the version of these rows raises the model's.
    ///
    /// # Panics
    /// When there are such rows already.
    #[must_use]
    pub fn with_rows<S: ReadModel>(mut self) -> Self {
        assert!(self.tables.iter().all(|kind| kind.table.name() != S::NAME), "there are rows {} already", S::NAME);
        self.tables.push(kind::<S>());
        self
    }

    /// Passes over event types that the program does not know, rather than to park their aggregates.
    #[must_use]
    pub fn ignore_unknown_types(mut self) -> Self {
        self.ignores_unknown = true;
        self
    }

    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn follows_category(&self, category: &str) -> bool {
        self.followed(category).is_some()
    }

    fn followed(&self, category: &str) -> Option<&Followed> {
        self.followed.iter().find(|followed| followed.category == category)
    }

    /// Nothing for an event that is passed over.
    fn decode(&self, recorded: &Recorded) -> Result<Option<Box<dyn Pending>>, DecodeError> {
        let Some(followed) = self.followed(&recorded.envelope.stream.category) else { return Ok(None) };
        match (followed.decode)(recorded) {
            Err(error) if self.ignores_unknown && error.is_unknown_type() => Ok(None),
            decoded => decoded.map(Some),
        }
    }
}

fn kind<R: ReadModel>() -> Kind {
    Kind { table: query::with_lineage(R::table()), version: R::VERSION, empty: rows::empty::<R> }
}

#[async_trait]
impl<R: ReadModel> Projection for Model<R> {
    fn name(&self) -> &str {
        R::NAME
    }

    /// It rises whenever that of any of its rows does.
    fn version(&self) -> u32 {
        let further = self.tables[1..].iter().map(|kind| kind.version.saturating_sub(1));
        further.fold(R::VERSION, u32::saturating_add)
    }

    fn tables(&self) -> Vec<Table> {
        self.tables.iter().map(|kind| kind.table.clone()).collect()
    }

    fn follows(&self) -> Option<Vec<&str>> {
        Some(self.followed.iter().map(|followed| followed.category).collect())
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let decoded = events.iter().map(|recorded| self.decode(recorded)).collect::<Result<Vec<_>, _>>()?;
        let mut rows = Rows::new(self.tables.iter().map(|kind| (kind.empty)(kind.table.clone())), events);
        // First only to learn what is touched. Where a row to touch depends on another's content, that one is loaded
        // first, and so on; and where it depends on what this batch does to it, the fold shows it.
        while !rows.fold(events, &decoded)? {
            rows.load(tx).await?;
        }
        Ok(rows.write(tx, events).await?)
    }
}
