//! Checkpoints in the database: where a projection goes on, and the fence of the worker that may move it.

use std::sync::Arc;

use chrono::Utc;
use es_core::validity::Current;
use es_core::{Checkpoint, Epoch, EventId};
use uuid::Uuid;

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

/// The checkpoint rows of one version of one projection, as the worker that took the fences may move them.
#[derive(Debug)]
pub(crate) struct Ledger {
    database: Database,
    projection: Arc<str>,
    version: u32,
    places: Arc<[Place]>,
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
#[derive(Debug, Clone, Default)]
pub(crate) struct Saved {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) events: u64,
    pub(crate) void: u64,
    pub(crate) quarantined: u64,
}

impl Ledger {
    /// Takes a new fence at each place, which shuts out whoever held the one before, and reads where to go on.
    pub(crate) async fn take_over(
        database: Database,
        projection: Arc<str>,
        version: u32,
        places: Arc<[Place]>,
    ) -> Result<(Self, Vec<Saved>), Error> {
        let mut ledger = Self { database, projection, version, places, fences: Vec::new() };
        let mut tx = ledger.database.begin().await?;
        let table = tx.table_name("es_checkpoints");
        let insert = format!(
            "INSERT INTO {table} (projection, version, topic, topic_partition, fence, log_id, next_offset, epoch_number, \
             epoch_writer, claim_offset, last_sequence, events, void, quarantined, moved_at) \
             VALUES (?, ?, ?, ?, 0, ?, 0, 0, ?, 0, 0, 0, 0, 0, ?) ON CONFLICT DO NOTHING"
        );
        let fence = format!(
            "UPDATE {table} SET fence = fence + 1 WHERE projection = ? AND version = ? AND topic = ? AND topic_partition = ? \
             RETURNING {COLUMNS}"
        );
        let mut saved = Vec::with_capacity(ledger.places.len());
        for place in 0..ledger.places.len() {
            let key = ledger.key(place);
            let empty = Checkpoint::default();
            let rest = [log_id_value(&empty), writer_value(&empty), Utc::now().into()];
            tx.execute(&insert, &[key.as_slice(), &rest].concat()).await?;
            let rows = tx.fetch(&fence, &key).await?;
            let row = rows.first().ok_or_else(|| Error::invalid("a checkpoint row vanished while it was written"))?;
            ledger.fences.push(row.get("fence")?);
            saved.push(read(row)?);
        }
        tx.commit().await?;
        Ok((ledger, saved))
    }

    /// Moves checkpoints within the transaction that changes the rows. False when one of them does not stand where
    /// it should, or has another fence: the transaction must be rolled back then.
    pub(crate) async fn advance(&self, tx: &mut Tx, moves: &[Move]) -> Result<bool, Error> {
        const WIDTH: usize = 18;
        let table = tx.table_name("es_checkpoints");
        let tuple = format!("({})", ["?"; WIDTH].join(","));
        let tuples = vec![tuple; moves.len()].join(",");
        // Columns of a VALUES list have these names on both databases.
        let sql = format!(
            "UPDATE {table} AS c SET log_id = m.column7, next_offset = m.column8, epoch_number = m.column9, \
             epoch_writer = m.column10, claim_offset = m.column11, last_sequence = m.column12, last_event_id = m.column13, \
             last_event_offset = CAST(m.column14 AS BIGINT), events = events + m.column15, void = void + m.column16, \
             quarantined = quarantined + m.column17, moved_at = m.column18 \
             FROM (VALUES {tuples}) AS m WHERE c.projection = m.column1 AND c.version = m.column2 AND c.topic = m.column3 \
             AND c.topic_partition = m.column4 AND c.fence = m.column5 AND c.next_offset = m.column6"
        );
        let mut args = Vec::with_capacity(moves.len() * WIDTH);
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
        Ok(tx.execute(&sql, &args).await? == moves.len() as u64)
    }

    /// The rows as they stand.
    ///
    /// # Errors
    /// [`Error::Fenced`] when one of them has another fence or is gone.
    pub(crate) async fn load(&self) -> Result<Vec<Saved>, Error> {
        let table = self.database.table_name("es_checkpoints");
        let sql = format!("SELECT {COLUMNS}, topic, topic_partition FROM {table} WHERE projection = ? AND version = ?");
        let rows = self.database.fetch(&sql, &[self.projection.clone().into(), self.version.into()]).await?;
        let mut saved = vec![None; self.places.len()];
        for row in &rows {
            let (topic, partition): (String, u32) = (row.get("topic")?, row.get("topic_partition")?);
            let here = |place: &Place| *place.topic == *topic && place.partition == partition;
            if let Some(place) = self.places.iter().position(here)
                && row.get::<i64>("fence")? == self.fences[place]
            {
                saved[place] = Some(read(row)?);
            }
        }
        let missing = saved.iter().position(Option::is_none);
        missing.map_or(Ok(()), |place| Err(self.fenced(place)))?;
        Ok(saved.into_iter().flatten().collect())
    }

    fn fenced(&self, place: usize) -> Error {
        let Place { topic, partition, .. } = &self.places[place];
        Error::Fenced { projection: self.projection.clone(), place: format!("{topic}/{partition}") }
    }

    fn key(&self, place: usize) -> Vec<Value> {
        let Place { topic, partition, .. } = &self.places[place];
        vec![self.projection.clone().into(), self.version.into(), topic.clone().into(), (*partition).into()]
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
