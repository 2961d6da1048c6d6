//! Asking for rows by their key, or with a condition in SQL.

use chrono::{DateTime, Utc};
use es_core::{EventId, Position, Recorded, Version};
use uuid::Uuid;

use super::ReadModel;
use crate::error::Error;
use crate::readable::{After, DamagedRow, Readable};
use crate::sql::{Column, Database, Kind, Row, Table, Value, names, quoted};

/// What changed a row last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    /// The event.
    pub event_id: EventId,
    /// Its version in its aggregate's stream.
    pub version: Version,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
    /// Where it is in the log.
    pub position: Position,
}

pub(super) const LINEAGE: usize = 4;

/// By recorded time, aggregate type, partition and offset. Several partitions are read side by side, so that which of their
/// events comes last is not decided by the order in which they come, but in the same way whenever they are read.
type TimeOrder<'a> = (DateTime<Utc>, &'a str, u32, u64);

/// For each event its place in the order of time.
pub(super) fn ranks(events: &[Recorded]) -> Vec<usize> {
    fn order(event: &Recorded) -> TimeOrder<'_> {
        let envelope = &event.envelope;
        (envelope.recorded_at, &envelope.stream.category, event.partition, event.offset)
    }
    let mut places: Vec<usize> = (0..events.len()).collect();
    places.sort_by(|&one, &other| order(&events[one]).cmp(&order(&events[other])));
    let mut ranks = vec![0; events.len()];
    for (rank, place) in places.into_iter().enumerate() {
        ranks[place] = rank;
    }
    ranks
}

/// The table with the columns of [`Lineage`] behind its own.
pub(super) fn with_lineage(table: Table) -> Table {
    table
        .column("es_event_id", Kind::Uuid)
        .column("es_version", Kind::Integer)
        .column("es_recorded_at", Kind::Time)
        .column("es_position", Kind::Text)
}

impl Lineage {
    pub(super) fn into_values(self) -> [Value; LINEAGE] {
        [self.event_id.get().into(), self.version.into(), self.recorded_at.into(), self.position.to_string().into()]
    }

    /// Whether the event is later than another one.
    pub(super) fn is_later_than(&self, other: &Self) -> bool {
        self.time_order() > other.time_order()
    }

    fn time_order(&self) -> TimeOrder<'_> {
        let Position { category, partition, offset } = &self.position;
        (self.recorded_at, category, *partition, *offset)
    }

    /// What changed this row last.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not a row of a [`ReadModel`], [`Error::Damaged`] when it holds what no worker wrote.
    pub fn of(row: &Row) -> Result<Self, Error> {
        let position: String = row.get("es_position")?;
        let damaged = |_| Error::Damaged(format!("column \"es_position\" holds {position:?}, which is no position"));
        Ok(Self {
            event_id: row.get::<Uuid>("es_event_id")?.into(),
            version: Version::new(row.get("es_version")?),
            recorded_at: row.get("es_recorded_at")?,
            position: position.parse().map_err(damaged)?,
        })
    }
}

/// A page of the rows of a read model.
pub type RowsPage<R> = Readable<R, After<<R as ReadModel>::Key>>;

/// The statement for a page, which asks for one row more to tell whether there is a next one.
pub(crate) fn page_of<R: ReadModel>(
    table_name: &str,
    after: &After<R::Key>,
    limit: u32,
) -> Result<(String, Vec<Value>), Error> {
    let table = R::table();
    let key = names(table.key_columns(), "");
    let (mut behind, mut args) = (String::new(), Vec::new());
    if let Some(last) = &after.key {
        let mut last = last.clone();
        R::settle_key(&mut last)?;
        args = R::key_values(&last)?;
        behind = format!("WHERE ({key}) > ({})", vec!["?"; args.len()].join(", "));
    }
    args.extend([limit.saturating_add(1).into(), after.damaged.into()]);
    Ok((format!("SELECT * FROM {table_name} {behind} ORDER BY {key} LIMIT ? OFFSET ?"), args))
}

pub(crate) fn read_page<R: ReadModel>(rows: &[Row], after: &After<R::Key>, limit: u32) -> Result<RowsPage<R>, Error> {
    let (mut items, mut after) = (Vec::with_capacity(rows.len()), after.clone());
    for row in rows.iter().take(limit as usize) {
        let read = DamagedRow::of(R::from_row(row), || named::<R>(row))?;
        match &read {
            Ok(read) => after = read.key().into(),
            Err(_) => after.damaged += 1,
        }
        items.push(read);
    }
    let next = (rows.len() > items.len()).then_some(after);
    Ok(Readable { items, next })
}

/// The key of a row, as far as it can be read.
fn named<R: ReadModel>(row: &Row) -> String {
    let part = |column: &Column| row.value_at(usize::MAX, &column.name).map_or_else(|_| "?".into(), Value::to_string);
    R::table().key_columns().iter().map(part).collect::<Vec<_>>().join(" ")
}

impl Database {
    /// The row of a key, if it is there.
    ///
    /// # Errors
    /// [`Error::Unavailable`], or [`Error::Sql`] when there is no such read model.
    pub async fn row<R: ReadModel>(&self, key: &R::Key) -> Result<Option<R>, Error> {
        self.found::<R>(key).await?.as_ref().map(R::from_row).transpose()
    }

    /// What changed the row of a key last.
    ///
    /// # Errors
    /// As for [`Database::row`].
    pub async fn lineage<R: ReadModel>(&self, key: &R::Key) -> Result<Option<Lineage>, Error> {
        self.found::<R>(key).await?.as_ref().map(Lineage::of).transpose()
    }

    /// The rows that the rest of a statement selects, for example `WHERE balance > ? ORDER BY id LIMIT 10`.
    ///
    /// # Errors
    /// As for [`Database::row`].
    pub async fn rows<R: ReadModel>(&self, rest: &str, args: &[Value]) -> Result<Vec<R>, Error> {
        let sql = format!("SELECT * FROM {} {rest}", self.table_name(R::NAME));
        self.fetch(&sql, args).await?.iter().map(R::from_row).collect()
    }

    /// The rows in the order of their keys, page by page. A row that can't be read is told at its place, and takes no other with it.
    ///
    /// ```no_run
    /// # use es_projections::{After, Database, Error, ReadModel};
    /// # async fn list<R: ReadModel>(database: &Database) -> Result<(), Error> {
    /// let mut after = Some(After::default());
    /// while let Some(place) = after {
    ///     let page = database.page::<R>(&place, 100).await?;
    ///     for row in page.items {
    ///         match row {
    ///             Ok(row) => println!("{:?}", row.key()),
    ///             Err(damaged) => eprintln!("{damaged}"),
    ///         }
    ///     }
    ///     after = page.next;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`Database::row`], save for rows that can't be read.
    pub async fn page<R: ReadModel>(&self, after: &After<R::Key>, limit: u32) -> Result<RowsPage<R>, Error> {
        let (sql, args) = page_of::<R>(&self.table_name(R::NAME), after, limit)?;
        read_page(&self.fetch_readable(&sql, &args).await?, after, limit)
    }

    async fn found<R: ReadModel>(&self, key: &R::Key) -> Result<Option<Row>, Error> {
        let table = R::table();
        let equal = table.key_columns().iter().map(|column| format!("{} = ?", quoted(&column.name)));
        let condition = equal.collect::<Vec<_>>().join(" AND ");
        let sql = format!("SELECT * FROM {} WHERE {condition}", self.table_name(R::NAME));
        let mut key = key.clone();
        R::settle_key(&mut key)?;
        Ok(self.fetch(&sql, &R::key_values(&key)?).await?.into_iter().next())
    }
}
