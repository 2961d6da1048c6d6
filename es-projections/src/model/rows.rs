//! The rows that a batch of events touches, in memory.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use es_core::{Position, Recorded};

use super::query::{LINEAGE, Lineage, ranks};
use super::{Pending, ReadModel};
use crate::error::{Error, ProjectionError};
use crate::sql::{OnDuplicate, Table, Tx, Value};

/// The rows that a [`Fold`](super::Fold) changes.
///
/// Those that are there already are loaded all at once: to learn which they are, the events are folded once without any effect.
/// The closures of that pass are not called.
pub struct Rows {
    tables: Vec<(TypeId, Box<dyn TableOf>)>,
    /// For each event of the batch its place in the order of time.
    ranks: Vec<usize>,
    /// The event at hand, as its place in the order of time.
    event: usize,
    /// Only looking for what has to be loaded.
    ahead: bool,
    /// The event at hand asked for a row that is not loaded, so that what came of it does not count.
    missed: bool,
    /// Some event did: what else it touches is not known.
    unsure: bool,
}

/// Why a fold that asked for a row has to end: it is called again when the row is there.
#[derive(Debug, thiserror::Error)]
#[error("the row is not loaded yet: a fold must return this error")]
struct NotLoaded;

impl Rows {
    pub(super) fn new(tables: impl Iterator<Item = Box<dyn TableOf>>, events: &[Recorded]) -> Self {
        let tables = tables.map(|table| (table.row_type(), table)).collect();
        Self { tables, ranks: ranks(events), event: 0, ahead: true, missed: false, unsure: false }
    }

    /// The row of this key, as the events before left it.
    ///
    /// # Errors
    /// When it has to be loaded first: the fold must return that error, and is called again. When the [`Model`](super::Model)
    /// has no such rows.
    pub fn get<R: ReadModel>(&mut self, key: &R::Key) -> Result<Option<&R>, ProjectionError> {
        let (ahead, key) = (self.ahead, stored_key::<R>(key)?);
        let held = self.held::<R>()?;
        match held.index.get(&key) {
            // Looking ahead, what this batch does to it is not known yet.
            Some(&place) if held.slots[place].is_known() && !(ahead && held.slots[place].changed_by.is_some()) => {
                Ok(self.held::<R>()?.slots[place].row.as_ref())
            }
            Some(_) if ahead => {
                self.missed = true;
                Err(NotLoaded.into())
            }
            _ => {
                held.want(&key);
                self.missed = true;
                Err(NotLoaded.into())
            }
        }
    }

    /// Adds a row that is not there yet. It is not looked for: where it is there, the database refuses it.
    ///
    /// # Errors
    /// When it is there; when the [`Model`](super::Model) has no such rows.
    pub fn insert<R: ReadModel>(&mut self, mut row: R) -> Result<(), ProjectionError> {
        let (event, ahead) = (self.event, self.ahead);
        self.held::<R>()?;
        row.settle()?;
        let key = stored_key::<R>(&row.key())?;
        let held = self.held::<R>()?;
        let place = held.place(&key);
        let slot = &mut held.slots[place];
        if ahead {
            slot.made |= slot.changed_by.is_none();
            slot.changed_by.get_or_insert(event);
            return Ok(());
        }
        if slot.row.is_some() {
            return Err(format!("{} has a row {:?} already", R::NAME, row.key()).into());
        }
        slot.set(false, Some(row), event);
        Ok(())
    }

    /// Changes the row of this key. Its key must stay as it is.
    ///
    /// # Errors
    /// When it is not there, or has to be loaded first; when the [`Model`](super::Model) has no such rows.
    pub fn change<R: ReadModel>(&mut self, key: &R::Key, change: impl FnOnce(&mut R)) -> Result<(), ProjectionError> {
        self.with(key, false, |row| match row {
            Some(mut row) => {
                change(&mut row);
                Ok(Some(row))
            }
            None => Err(format!("{} has no row {key:?} to be changed", R::NAME).into()),
        })
    }

    /// Changes the row of this key; makes it first where it is not there.
    ///
    /// # Errors
    /// When it has to be loaded first; when the [`Model`](super::Model) has no such rows.
    pub fn change_or_insert<R: ReadModel>(
        &mut self,
        key: &R::Key,
        new: impl FnOnce() -> R,
        change: impl FnOnce(&mut R),
    ) -> Result<(), ProjectionError> {
        self.with(key, false, |row| {
            let mut row = row.unwrap_or_else(new);
            change(&mut row);
            Ok(Some(row))
        })
    }

    /// Deletes the row of this key.
    ///
    /// # Errors
    /// When it is not there, or has to be loaded first; when the [`Model`](super::Model) has no such rows.
    pub fn delete<R: ReadModel>(&mut self, key: &R::Key) -> Result<(), ProjectionError> {
        self.with(key, true, |row: Option<R>| match row {
            Some(_) => Ok(None),
            None => Err(format!("{} has no row {key:?} to be deleted", R::NAME).into()),
        })
    }

    /// Replaces a row that is loaded by what comes of it. What may be deleted has to be loaded even if this batch made it: the
    /// database, which refuses a row that is there already, does not see it.
    fn with<R: ReadModel>(
        &mut self,
        key: &R::Key,
        deletes: bool,
        change: impl FnOnce(Option<R>) -> Result<Option<R>, ProjectionError>,
    ) -> Result<(), ProjectionError> {
        let (event, ahead) = (self.event, self.ahead);
        let stored = stored_key::<R>(key)?;
        let held = self.held::<R>()?;
        let place = held.place(&stored);
        let slot = &mut held.slots[place];
        if ahead {
            // Nothing is said about what it becomes, so the event goes on to what else it touches.
            slot.changed_by.get_or_insert(event);
            slot.wanted |= if deletes { slot.stored.is_none() } else { !slot.is_known() && !slot.made };
            return Ok(());
        }
        if !slot.is_known() || deletes && slot.stored.is_none() {
            slot.wanted = true;
            self.missed = true;
            return Err(NotLoaded.into());
        }
        slot.keep();
        let was_there = slot.row.is_some();
        let mut row = change(slot.row.take())?;
        if let Some(row) = &mut row {
            row.settle()?;
            let changed = row.key();
            if stored_key::<R>(&changed)? != stored {
                return Err(format!("the key of row {key:?} of {} was changed to {changed:?}", R::NAME).into());
            }
        }
        slot.set(was_there, row, event);
        Ok(())
    }

    /// Folds all events; true when that needed nothing but what was loaded, so that the rows are what they must be.
    pub(super) fn fold(
        &mut self,
        events: &[Recorded],
        decoded: &[Option<Box<dyn Pending>>],
    ) -> Result<bool, ProjectionError> {
        let looking = self.ahead;
        self.unsure = false;
        for (place, (recorded, event)) in events.iter().zip(decoded).enumerate() {
            let Some(event) = event else { continue };
            (self.event, self.missed) = (self.ranks[place], false);
            let folded = event.fold(recorded, self);
            if !self.missed && !self.ahead {
                folded?;
            }
            self.unsure |= self.missed;
            self.ahead |= self.missed;
        }
        Ok(!looking && !self.ahead)
    }

    /// Loads what was asked for. What was folded before is forgotten.
    pub(super) async fn load(&mut self, tx: &mut Tx) -> Result<(), Error> {
        let mut loaded = false;
        for (_, table) in &mut self.tables {
            table.begin_anew();
            loaded |= table.load(tx).await?;
        }
        // Looking ahead again finds what depends on what was loaded now.
        self.ahead = loaded && self.unsure;
        Ok(())
    }

    /// Writes what became of the rows.
    pub(super) async fn write(self, tx: &mut Tx, events: &[Recorded]) -> Result<(), Error> {
        let mut in_order = vec![0; events.len()];
        for (place, rank) in self.ranks.into_iter().enumerate() {
            in_order[rank] = place;
        }
        let events: Vec<&Recorded> = in_order.into_iter().map(|place| &events[place]).collect();
        for (_, table) in self.tables {
            table.write(tx, &events).await?;
        }
        Ok(())
    }

    fn held<R: ReadModel>(&mut self) -> Result<&mut Held<R>, ProjectionError> {
        let of_type = self.tables.iter_mut().find(|(row_type, _)| *row_type == TypeId::of::<R>());
        let held = of_type.and_then(|(_, table)| table.as_any().downcast_mut());
        held.ok_or_else(|| format!("the model has no rows {}: give it `.with_rows()` of them", R::NAME).into())
    }
}

/// The touched rows of one type.
#[async_trait]
pub(super) trait TableOf: Send {
    fn row_type(&self) -> TypeId;
    fn as_any(&mut self) -> &mut dyn Any;
    /// Makes the rows what they were in the database.
    fn begin_anew(&mut self);
    /// Loads those that are wanted; false when there are none.
    async fn load(&mut self, tx: &mut Tx) -> Result<bool, Error>;
    /// The events are in the order of time.
    async fn write(self: Box<Self>, tx: &mut Tx, events: &[&Recorded]) -> Result<(), Error>;
}

/// A key as the database has it. Rows are told apart by it: what is one key in Rust may be two there.
type StoredKey = Arc<[Value]>;

fn stored_key<R: ReadModel>(key: &R::Key) -> Result<StoredKey, Error> {
    let mut key = key.clone();
    R::settle_key(&mut key)?;
    Ok(R::key_values(&key)?.into())
}

struct Held<R: ReadModel> {
    table: Table,
    /// Where the slot of a key is.
    index: HashMap<StoredKey, usize>,
    /// In the order in which they were first touched.
    slots: Vec<Slot<R>>,
}

struct Slot<R> {
    key: StoredKey,
    /// As it is in the database; none while that was not looked up.
    stored: Option<Stored<R>>,
    row: Option<R>,
    wanted: bool,
    /// Looking ahead, an event of this batch makes it before others change it.
    made: bool,
    /// The last event that changed it, as its place in the order of time.
    changed_by: Option<usize>,
    /// What changed the stored row last.
    lineage: Option<Lineage>,
    /// This batch deleted it: what is there now is another one.
    deleted: bool,
}

enum Stored<R> {
    Absent,
    /// It was loaded, and is in the slot still.
    Present,
    /// It was loaded, and was this.
    Was(R),
}

pub(super) fn empty<R: ReadModel>(table: Table) -> Box<dyn TableOf> {
    Box::new(Held::<R> { table, index: HashMap::new(), slots: Vec::new() })
}

impl<R: ReadModel> Held<R> {
    fn place(&mut self, key: &StoredKey) -> usize {
        if let Some(&place) = self.index.get(key) {
            return place;
        }
        self.index.insert(key.clone(), self.slots.len());
        self.slots.push(Slot {
            key: key.clone(),
            stored: None,
            row: None,
            wanted: false,
            made: false,
            changed_by: None,
            lineage: None,
            deleted: false,
        });
        self.slots.len() - 1
    }

    fn want(&mut self, key: &StoredKey) {
        let place = self.place(key);
        self.slots[place].wanted = true;
    }
}

impl<R: Clone> Slot<R> {
    /// Whether what it holds is the truth: it was loaded, or this batch made it.
    fn is_known(&self) -> bool {
        self.stored.is_some() || self.row.is_some()
    }

    /// Before a change: keeps what was loaded.
    fn keep(&mut self) {
        if let (Some(Stored::Present), Some(row)) = (&self.stored, &self.row) {
            self.stored = Some(Stored::Was(row.clone()));
        }
    }

    fn set(&mut self, was_there: bool, row: Option<R>, event: usize) {
        self.deleted |= row.is_none();
        // What is made anew tells nothing of what was there before.
        self.changed_by = if was_there { self.changed_by.max(Some(event)) } else { Some(event) };
        self.row = row;
    }
}

#[async_trait]
impl<R: ReadModel> TableOf for Held<R> {
    fn row_type(&self) -> TypeId {
        TypeId::of::<R>()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }

    fn begin_anew(&mut self) {
        for slot in &mut self.slots {
            (slot.changed_by, slot.made, slot.deleted) = (None, false, false);
            match slot.stored.take() {
                Some(Stored::Was(row)) => (slot.row, slot.stored) = (Some(row), Some(Stored::Present)),
                Some(Stored::Present) => slot.stored = Some(Stored::Present),
                Some(Stored::Absent) => (slot.row, slot.stored) = (None, Some(Stored::Absent)),
                None => slot.row = None,
            }
        }
    }

    async fn load(&mut self, tx: &mut Tx) -> Result<bool, Error> {
        let mut keys = Vec::new();
        for slot in self.slots.iter_mut().filter(|slot| slot.wanted) {
            slot.wanted = false;
            keys.push(slot.key.to_vec());
            slot.stored = Some(Stored::Absent);
        }
        if keys.is_empty() {
            return Ok(false);
        }
        for row in tx.load(&self.table, keys).await? {
            let lineage = Lineage::of(&row)?;
            let row = R::from_row(&row)?;
            let key = row.key();
            let Some(&place) = self.index.get(&stored_key::<R>(&key)?) else {
                let name = R::NAME;
                return Err(Error::invalid(format!("read model {name} gave row {key:?}, which was not asked for")));
            };
            let slot = &mut self.slots[place];
            (slot.row, slot.stored, slot.lineage) = (Some(row), Some(Stored::Present), Some(lineage));
        }
        Ok(true)
    }

    async fn write(self: Box<Self>, tx: &mut Tx, events: &[&Recorded]) -> Result<(), Error> {
        let (mut added, mut missed, mut changed, mut deleted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for slot in self.slots {
            let Some(by) = slot.changed_by else { continue };
            match (slot.stored, slot.row) {
                (None, Some(row)) => added.push(values(&row, None, events[by])?),
                (Some(Stored::Absent), Some(row)) => missed.push(values(&row, None, events[by])?),
                (Some(_), Some(row)) => {
                    let before = slot.lineage.filter(|_| !slot.deleted);
                    changed.push(values(&row, before, events[by])?);
                }
                (Some(Stored::Present | Stored::Was(_)), None) => deleted.push(slot.key.to_vec()),
                (Some(Stored::Absent) | None, None) => {}
            }
        }
        if !deleted.is_empty() {
            tx.delete(&self.table, deleted).await?;
        }
        if !changed.is_empty() {
            tx.upsert(&self.table, changed).await?;
        }
        if !missed.is_empty() {
            tx.insert(&self.table, missed, OnDuplicate::Retry).await?;
        }
        if !added.is_empty() {
            tx.insert(&self.table, added, OnDuplicate::Fail).await?;
        }
        Ok(())
    }
}

/// The row with what changed it last.
fn values<R: ReadModel>(row: &R, before: Option<Lineage>, by: &Recorded) -> Result<Vec<Value>, Error> {
    let envelope = &by.envelope;
    let lineage = Lineage {
        event_id: envelope.event_id,
        version: envelope.version,
        recorded_at: envelope.recorded_at,
        position: Position { category: envelope.stream.category.clone(), partition: by.partition, offset: by.offset },
    };
    let last = before.filter(|before| before.is_later_than(&lineage)).unwrap_or(lineage);
    let mut values = row.to_values()?;
    values.reserve_exact(LINEAGE);
    values.extend(last.into_values());
    Ok(values)
}
