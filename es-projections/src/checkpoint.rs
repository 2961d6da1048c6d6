//! Checkpoints in the database: where a projection goes on, and the fence of the worker that may move it.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::Utc;
use es_core::validity::Current;
use es_core::{Checkpoint, Epoch, EventId};
use uuid::Uuid;

use crate::builds::{self, Build};
use crate::error::Error;
use crate::sql::{Database, Row, Tx, Value};

/// A partition of one of the sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Index into the worker's sources.
    pub(crate) source: usize,
    pub(crate) category: Arc<str>,
    pub(crate) topic: Arc<str>,
    pub(crate) partition: u32,
}

/// The checkpoint rows of one build of one read model, as the worker that took the fences may move them.
#[derive(Debug)]
pub(crate) struct Ledger {
    database: Database,
    build: Build,
    places: Arc<[Place]>,
    /// The name of this worker in the rows: no other's.
    holder: Arc<str>,
    fences: Vec<i64>,
}

/// The rows as they stand, whoever may move them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) saved: Vec<Saved>,
    /// Another worker that holds a fence; none when they are free.
    pub(crate) holder: Option<Arc<str>>,
    /// Whether all are held by the one that looks.
    ours: bool,
    fences: Vec<i64>,
}

/// What a batch changes in the checkpoint row of one place.
#[derive(Debug)]
pub(crate) struct Move {
    /// Index into the worker's places.
    pub(crate) place: usize,
    /// The offset at which the row must stand.
    pub(crate) from: u64,
    pub(crate) to: Checkpoint,
    pub(crate) events: usize,
    pub(crate) void: u64,
    pub(crate) quarantined: usize,
}

/// A checkpoint row.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Saved {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) events: u64,
    pub(crate) void: u64,
    pub(crate) quarantined: u64,
}

impl Ledger {
    /// The ledger of a worker that holds no fence yet.
    pub(crate) fn new(database: Database, build: Build, places: Arc<[Place]>, holder: Arc<str>) -> Self {
        Self { database, build, places, holder, fences: Vec::new() }
    }

    /// Takes a new fence at each place, which shuts out whoever held the one before, and reads where to go on.
    ///
    /// # Errors
    /// [`Error::Fenced`] when the build was removed, or made something else, since it was looked for.
    pub(crate) async fn take_over(&mut self) -> Result<Vec<Saved>, Error> {
        // The one at work moves its rows in an order of the database's own: it may happen that each waits for the other.
        const ATTEMPTS: usize = 5;
        let mut attempt = 1;
        loop {
            let mut tx = self.database.begin().await?;
            match self.take_or_make(&mut tx).await {
                Ok((fences, saved)) => {
                    tx.commit().await?;
                    self.fences = fences;
                    return Ok(saved);
                }
                Err(error) if error.is_retryable() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn take_or_make(&self, tx: &mut Tx) -> Result<(Vec<i64>, Vec<Saved>), Error> {
        tx.lock_schema().await?;
        if !builds::stands(tx, &self.build).await? {
            return Err(self.fenced(0));
        }
        let table = tx.table_name("es_checkpoints");
        let insert = format!(
            "INSERT INTO {table} (projection, build, topic, topic_partition, fence, log_id, next_offset, epoch_number, \
             epoch_writer, claim_offset, last_sequence, events, void, quarantined, moved_at) \
             VALUES (?, ?, ?, ?, 0, ?, 0, 0, ?, 0, 0, 0, 0, 0, ?) ON CONFLICT DO NOTHING"
        );
        for place in 0..self.places.len() {
            let empty = Checkpoint::default();
            let rest = [log_id_value(&empty), writer_value(&empty), Utc::now().into()];
            tx.execute(&insert, &[self.key(place).as_slice(), &rest].concat()).await?;
        }
        self.take(tx).await
    }

    /// The same, if the rows still stand as they were seen. None when they moved meanwhile: their holder is at work.
    pub(crate) async fn take_over_from(&mut self, seen: &Standing) -> Result<Option<Vec<Saved>>, Error> {
        let mut tx = self.database.begin().await?;
        tx.wait_briefly_for_rows().await?;
        let (fences, saved) = self.take(&mut tx).await?;
        // Seen only now, when a rebuild that is about to replace it can't any more.
        let live = builds::find_live(&mut tx, &self.build.projection).await?;
        if live.is_none_or(|live| live.number != self.build.number) {
            return tx.rollback().await.map(|()| None);
        }
        let follows = fences.iter().zip(&seen.fences).all(|(taken, seen)| *taken == seen + 1);
        if !follows || saved != seen.saved {
            return tx.rollback().await.map(|()| None);
        }
        tx.commit().await?;
        self.fences = fences;
        Ok(Some(saved))
    }

    /// Takes new fences in place of those that it holds, so that nobody takes it for dead who sees them.
    pub(crate) async fn renew(&mut self) -> Result<(), Error> {
        let mut tx = self.database.begin().await?;
        if !self.holds(&mut tx).await? {
            return Err(self.fenced(0));
        }
        let (fences, _) = self.take(&mut tx).await?;
        tx.commit().await?;
        self.fences = fences;
        Ok(())
    }

    /// Shuts out every worker of the build, and tells whether it is the same still and has come as far as these checkpoints.
    pub(crate) async fn close_at(&self, tx: &mut Tx, least: &[Saved]) -> Result<bool, Error> {
        if !builds::stands(tx, &self.build).await? {
            return Ok(false);
        }
        let (_, saved) = self.take(tx).await?;
        self.release_in(tx).await?;
        Ok(saved.iter().zip(least).all(|(saved, least)| saved.checkpoint.next >= least.checkpoint.next))
    }

    /// Raises the fence of each row, and gives both.
    async fn take(&self, tx: &mut Tx) -> Result<(Vec<i64>, Vec<Saved>), Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!(
            "UPDATE {table} SET fence = fence + 1, holder = ? \
             WHERE projection = ? AND build = ? AND topic = ? AND topic_partition = ? RETURNING {COLUMNS}"
        );
        // A fence that went back with the server's last transactions would look like another worker's.
        tx.commit_durably().await?;
        let mut taken = (Vec::with_capacity(self.places.len()), Vec::with_capacity(self.places.len()));
        for place in 0..self.places.len() {
            let holder = [self.holder.clone().into()];
            let rows = tx.fetch(&update, &[&holder, self.key(place).as_slice()].concat()).await?;
            let row = rows.first().ok_or_else(|| self.fenced(place))?;
            taken.0.push(row.get("fence")?);
            taken.1.push(read(row)?);
        }
        Ok(taken)
    }

    /// Whether this worker still holds all fences; until the end of the transaction nobody can take one.
    pub(crate) async fn holds(&self, tx: &mut Tx) -> Result<bool, Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!("UPDATE {table} SET holder = ? WHERE projection = ? AND build = ? AND holder = ?");
        let holder = [self.holder.clone().into()];
        let held = tx.execute(&update, &[&holder, &self.build.key()[..], &holder].concat()).await?;
        Ok(held == self.places.len() as u64)
    }

    pub(crate) fn build(&self) -> &Build {
        &self.build
    }

    /// Goes on with another build, of which it holds no fence yet.
    pub(crate) fn turn_to(&mut self, build: Build) {
        (self.build, self.fences) = (build, Vec::new());
    }

    /// Tells those that stand by that this worker moves nothing any more.
    pub(crate) async fn release(&self) -> Result<(), Error> {
        let mut tx = self.database.begin().await?;
        self.release_in(&mut tx).await?;
        tx.commit().await
    }

    async fn release_in(&self, tx: &mut Tx) -> Result<(), Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!("UPDATE {table} SET holder = NULL WHERE projection = ? AND build = ? AND holder = ?");
        let holder = [self.holder.clone().into()];
        tx.execute(&update, &[&self.build.key()[..], &holder].concat()).await.map(drop)
    }

    /// Moves checkpoints within the transaction that changes the rows. False when one of them does not stand where
    /// it should, or has another fence: the transaction must be rolled back then.
    pub(crate) async fn advance(&self, tx: &mut Tx, moves: &[Move]) -> Result<bool, Error> {
        // Far below what a statement may have of arguments: 32,766 on SQLite, 65,535 on PostgreSQL.
        const MOVES_MAX: usize = 1_000;
        for moves in moves.chunks(MOVES_MAX) {
            if self.advance_some(tx, moves).await? != moves.len() as u64 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Tells how many were moved.
    async fn advance_some(&self, tx: &mut Tx, moves: &[Move]) -> Result<u64, Error> {
        const WIDTH: usize = 18;
        let table = tx.table_name("es_checkpoints");
        let tuple = format!("({})", ["?"; WIDTH].join(","));
        let tuples = vec![tuple; moves.len()].join(",");
        // The holder, too: the fences of a read model that was removed and made anew are counted from the start.
        // Columns of a VALUES list have these names on both databases.
        let sql = format!(
            "UPDATE {table} AS c SET log_id = m.column7, next_offset = m.column8, epoch_number = m.column9, \
             epoch_writer = m.column10, claim_offset = m.column11, last_sequence = m.column12, last_event_id = m.column13, \
             last_event_offset = CAST(m.column14 AS BIGINT), events = events + m.column15, void = void + m.column16, \
             quarantined = quarantined + m.column17, moved_at = m.column18 \
             FROM (VALUES {tuples}) AS m WHERE c.projection = m.column1 AND c.build = m.column2 AND c.topic = m.column3 \
             AND c.topic_partition = m.column4 AND c.fence = m.column5 AND c.next_offset = m.column6 AND c.holder = ?"
        );
        let mut args = Vec::with_capacity(moves.len() * WIDTH + 1);
        for step in moves {
            let current = step.to.current;
            args.extend(self.key(step.place));
            args.extend([self.fences[step.place].into(), integer(step.from)]);
            args.extend([log_id_value(&step.to), integer(step.to.next), integer(current.epoch.number)]);
            args.extend([writer_value(&step.to), integer(current.claim_offset), integer(current.last_sequence)]);
            args.push(step.to.last_event.map(|(id, _)| id.to_string()).into());
            args.push(step.to.last_event.map_or(Value::Null, |(_, offset)| integer(offset)));
            args.extend([integer(step.events as u64), integer(step.void), integer(step.quarantined as u64)]);
            args.push(Utc::now().into());
        }
        args.push(self.holder.clone().into());
        tx.execute(&sql, &args).await
    }

    /// The rows as they stand.
    ///
    /// # Errors
    /// [`Error::Fenced`] when one of them has another fence or holder, or is gone.
    pub(crate) async fn load(&self) -> Result<Vec<Saved>, Error> {
        let Standing { saved, fences, ours, .. } = self.look().await?;
        if !ours {
            return Err(self.fenced(0));
        }
        let other = fences.iter().zip(&self.fences).position(|(stands, ours)| stands != ours);
        other.map_or(Ok(saved), |place| Err(self.fenced(place)))
    }

    /// The rows as they stand, under any fence.
    ///
    /// # Errors
    /// [`Error::Fenced`] when one of them is gone.
    pub(crate) async fn look(&self) -> Result<Standing, Error> {
        let table = self.database.table_name("es_checkpoints");
        let sql =
            format!("SELECT {COLUMNS}, topic, topic_partition, holder FROM {table} WHERE projection = ? AND build = ?");
        let rows = self.database.fetch(&sql, &self.build.key()).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert((row.get::<String>("topic")?, row.get::<u32>("topic_partition")?), row);
        }
        let mut standing = Standing { saved: Vec::new(), holder: None, ours: true, fences: Vec::new() };
        for (index, place) in self.places.iter().enumerate() {
            let row = found.get(&(place.topic.to_string(), place.partition)).ok_or_else(|| self.fenced(index))?;
            standing.saved.push(read(row)?);
            standing.fences.push(row.get("fence")?);
            let holder: Option<String> = row.get("holder")?;
            standing.ours &= holder.as_deref() == Some(&*self.holder);
            let other = holder.filter(|holder| **holder != *self.holder);
            standing.holder = standing.holder.or(other.map(Arc::from));
        }
        Ok(standing)
    }

    /// That another worker took over.
    pub(crate) fn fenced(&self, place: usize) -> Error {
        let Place { topic, partition, .. } = &self.places[place];
        Error::Fenced { projection: self.build.projection.clone(), place: format!("{topic}/{partition}") }
    }

    fn key(&self, place: usize) -> Vec<Value> {
        let Place { topic, partition, .. } = &self.places[place];
        let [projection, build] = self.build.key();
        vec![projection, build, topic.clone().into(), (*partition).into()]
    }
}

const COLUMNS: &str = "fence, log_id, next_offset, epoch_number, epoch_writer, claim_offset, last_sequence, \
    last_event_id, last_event_offset, events, void, quarantined";

fn read(row: &Row) -> Result<Saved, Error> {
    let number = |column| row.get::<i64>(column).map(|number| number as u64);
    let damaged = |column: &str| Error::invalid(format!("column {column:?} of a checkpoint row is damaged"));
    let writer = u64::from_str_radix(&row.get::<String>("epoch_writer")?, 16).map_err(|_| damaged("epoch_writer"))?;
    let id: Option<Uuid> = row.get("last_event_id")?;
    let offset: Option<i64> = row.get("last_event_offset")?;
    let current = Current {
        epoch: Epoch { number: number("epoch_number")?, writer },
        claim_offset: number("claim_offset")?,
        last_sequence: number("last_sequence")?,
    };
    let checkpoint = Checkpoint {
        log_id: row.get("log_id")?,
        next: number("next_offset")?,
        current,
        last_event: id.zip(offset).map(|(id, offset)| (EventId::from(id), offset as u64)),
    };
    let (events, void, quarantined) = (number("events")?, number("void")?, number("quarantined")?);
    Ok(Saved { checkpoint, events, void, quarantined })
}

/// Databases have signed integers only: numbers from 2^63 on, which no log reaches, come back as they were.
fn integer(number: u64) -> Value {
    Value::Integer(number as i64)
}

fn log_id_value(checkpoint: &Checkpoint) -> Value {
    checkpoint.log_id.to_string().into()
}

fn writer_value(checkpoint: &Checkpoint) -> Value {
    format!("{:016x}", checkpoint.current.epoch.writer).into()
}
