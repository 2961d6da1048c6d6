//! Checkpoints in the database: where a projection goes on, and the fence of the worker that may move it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::Utc;
use es_core::log::validity::Current;
use es_core::{Checkpoint, Epoch};

use crate::builds::{self, Build};
use crate::error::Error;
use crate::place::Place;
use crate::sql::{Database, Row, Tx, Value};
use crate::workers::{self, Member};

/// The checkpoint rows of one build of one read model, as a worker that holds some of them may move them.
#[derive(Debug)]
pub(crate) struct Ledger {
    database: Database,
    build: Build,
    places: Arc<[Place]>,
    /// This worker.
    member: Member,
    /// The fence of each place that it holds.
    fences: Vec<Option<i64>>,
}

/// The rows as they stand, whoever holds them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Standing {
    pub(crate) saved: Vec<Saved>,
    /// Who holds each place; none where it is free.
    pub(crate) holders: Vec<Option<Arc<str>>>,
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
    /// The ledger of a worker that holds nothing yet.
    pub(crate) fn new(database: Database, build: Build, places: Arc<[Place]>, member: Member) -> Self {
        let fences = vec![None; places.len()];
        Self { database, build, places, member, fences }
    }

    pub(crate) fn build(&self) -> &Build {
        &self.build
    }

    pub(crate) fn member(&self) -> &Member {
        &self.member
    }

    /// Whether it holds each of the places.
    pub(crate) fn held(&self) -> Vec<bool> {
        self.fences.iter().map(Option::is_some).collect()
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
            let mut tx = self.database.begin_durably().await?; // as in `take`
            match self.make_and_take(&mut tx).await {
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

    async fn make_and_take(&self, tx: &mut Tx) -> Result<(Vec<Option<i64>>, Vec<Saved>), Error> {
        self.make_rows(tx).await?;
        // Those that share come back with their next beat.
        workers::strike_all(tx, &self.build).await?;
        workers::beat(tx, &self.build, &self.member).await?;
        self.take_all(tx).await
    }

    /// Comes in among those that share the places, and holds none of them yet.
    ///
    /// # Errors
    /// As for [`Ledger::take_over`].
    pub(crate) async fn join(&mut self) -> Result<(), Error> {
        let mut tx = self.database.begin().await?;
        self.make_rows(&mut tx).await?;
        workers::beat(&mut tx, &self.build, &self.member).await?;
        tx.commit().await
    }

    /// Makes the rows that are missing.
    async fn make_rows(&self, tx: &mut Tx) -> Result<(), Error> {
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
        // Else an insert would wait for whoever changes the row that is there.
        let select = format!("SELECT topic, topic_partition FROM {table} WHERE projection = ? AND build = ?");
        let rows = tx.fetch(&select, &self.build.key()).await?;
        let there = rows.iter().map(|row| Ok((row.get::<String>("topic")?, row.get::<u32>("topic_partition")?)));
        let there: HashSet<_> = there.collect::<Result<_, Error>>()?;
        for (place, Place { topic, partition, .. }) in self.places.iter().enumerate() {
            if there.contains(&(topic.to_string(), *partition)) {
                continue;
            }
            let empty = Checkpoint::default();
            let rest = [log_id_value(&empty), writer_value(&empty), Utc::now().into()];
            tx.execute(&insert, &[self.key(place).as_slice(), &rest].concat()).await?;
        }
        Ok(())
    }

    /// Takes those of the places that stand as they were seen: free, or held by this other worker, of which nothing was
    /// heard since.
    pub(crate) async fn take(&mut self, seen: &Standing, places: &[usize], gone: Option<&Member>) -> Result<(), Error> {
        // A fence that went back with the server's last transactions would look like another worker's.
        let mut tx = self.database.begin_durably().await?;
        tx.wait_briefly_for_locks().await?;
        let (table, workers) = (tx.table_name("es_checkpoints"), tx.table_name("es_workers"));
        let held_by = match gone {
            None => "holder IS NULL".to_owned(),
            Some(_) => format!(
                "holder = ? AND NOT EXISTS (SELECT 1 FROM {workers} AS w WHERE w.projection = {table}.projection \
                 AND w.build = {table}.build AND w.worker = {table}.holder AND w.beat <> ?)"
            ),
        };
        let update = format!(
            "UPDATE {table} SET fence = fence + 1, holder = ? WHERE projection = ? AND build = ? AND topic = ? \
             AND topic_partition = ? AND fence = ? AND next_offset = ? AND {held_by}"
        );
        // A machine that died in a transaction leaves rows locked until the server gives that up: they keep nobody from the rest.
        let lock = format!(
            "SELECT fence FROM {table} WHERE projection = ? AND build = ? AND topic = ? AND topic_partition = ? {}",
            tx.skipping_locked()
        );
        let (mut taken, mut passed_over) = (Vec::new(), false);
        for &place in places {
            if tx.fetch(&lock, &self.key(place)).await?.is_empty() {
                passed_over = true;
                continue;
            }
            let mut args = vec![self.member.name.clone().into()];
            args.extend(self.key(place));
            args.extend([seen.fences[place].into(), integer(seen.saved[place].checkpoint.next)]);
            if let Some(gone) = gone {
                args.extend([gone.name.clone().into(), gone.beat.into()]);
            }
            if tx.execute(&update, &args).await? == 1 {
                taken.push((place, seen.fences[place] + 1));
            }
        }
        if let Some(gone) = gone
            && !passed_over
        {
            workers::strike(&mut tx, &self.build, gone).await?;
        }
        // Seen only now, when a rebuild that is about to replace it can't any more.
        let live = builds::find_live(&mut tx, &self.build.projection).await?;
        if live.as_ref() != Some(&self.build) {
            return tx.rollback().await;
        }
        tx.commit().await?;
        for (place, fence) in taken {
            self.fences[place] = Some(fence);
        }
        Ok(())
    }

    /// Gives places back, for others to take.
    pub(crate) async fn give_back(&mut self, places: &[usize]) -> Result<(), Error> {
        if places.is_empty() {
            return Ok(());
        }
        let mut tx = self.database.begin().await?;
        let table = tx.table_name("es_checkpoints");
        let update = format!(
            "UPDATE {table} SET holder = NULL WHERE projection = ? AND build = ? AND topic = ? AND topic_partition = ? \
             AND holder = ?"
        );
        for &place in places {
            let holder = [self.member.name.clone().into()];
            tx.execute(&update, &[self.key(place).as_slice(), &holder].concat()).await?;
        }
        tx.commit().await?;
        for &place in places {
            self.fences[place] = None;
        }
        Ok(())
    }

    /// Holds no more what others took, or what it gave back without being told so; tells a place of them.
    pub(crate) fn drop_lost(&mut self, standing: &Standing) -> Option<usize> {
        let mut lost = None;
        for (place, fence) in self.fences.iter_mut().enumerate() {
            let ours = standing.is_held_by(place, &self.member.name);
            if fence.is_some_and(|fence| !ours || fence != standing.fences[place]) {
                *fence = None;
                lost.get_or_insert(place);
            }
        }
        lost
    }

    /// What it holds without knowing, since it was not told that it took it.
    pub(crate) fn strays(&self, standing: &Standing) -> Vec<usize> {
        let strays = self.fences.iter().enumerate().filter(|(_, fence)| fence.is_none()).map(|(place, _)| place);
        strays.filter(|&place| standing.is_held_by(place, &self.member.name)).collect()
    }

    /// Says that it is there still, and holds all places.
    pub(crate) async fn renew(&mut self) -> Result<(), Error> {
        let mut tx = self.database.begin().await?;
        if !self.holds(&mut tx).await? {
            return Err(self.fenced(0));
        }
        self.member.beat += 1;
        workers::beat(&mut tx, &self.build, &self.member).await?;
        tx.commit().await
    }

    /// Shuts out every worker of the build, and tells whether it is the same still and has come as far as these checkpoints. The
    /// transaction is one that commits durably.
    pub(crate) async fn close_at(&self, tx: &mut Tx, least: &[Saved]) -> Result<bool, Error> {
        if !builds::stands(tx, &self.build).await? {
            return Ok(false);
        }
        let (_, saved) = self.take_all(tx).await?;
        self.leave_in(tx).await?;
        Ok(saved.iter().zip(least).all(|(saved, least)| saved.checkpoint.next >= least.checkpoint.next))
    }

    /// Raises the fence of each row, and gives both.
    async fn take_all(&self, tx: &mut Tx) -> Result<(Vec<Option<i64>>, Vec<Saved>), Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!(
            "UPDATE {table} SET fence = fence + 1, holder = ? \
             WHERE projection = ? AND build = ? AND topic = ? AND topic_partition = ? RETURNING {COLUMNS}"
        );
        let mut taken = (Vec::with_capacity(self.places.len()), Vec::with_capacity(self.places.len()));
        for place in 0..self.places.len() {
            let holder = [self.member.name.clone().into()];
            let rows = tx.fetch(&update, &[&holder, self.key(place).as_slice()].concat()).await?;
            let row = rows.first().ok_or_else(|| self.fenced(place))?;
            taken.0.push(Some(row.get("fence")?));
            taken.1.push(read(row)?);
        }
        Ok(taken)
    }

    /// Whether this worker still holds what it believes to; until the end of the transaction nobody can take it.
    pub(crate) async fn holds(&self, tx: &mut Tx) -> Result<bool, Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!("UPDATE {table} SET holder = ? WHERE projection = ? AND build = ? AND holder = ?");
        let holder = [self.member.name.clone().into()];
        let held = tx.execute(&update, &[&holder, &self.build.key()[..], &holder].concat()).await?;
        Ok(held == self.fences.iter().flatten().count() as u64)
    }

    /// Shuts out every other worker of the build, also from places that are not among this one's: a version that is given fewer
    /// sources has none of the others.
    pub(crate) async fn shut_out_others(&self, tx: &mut Tx) -> Result<(), Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!(
            "UPDATE {table} SET fence = fence + 1, holder = NULL \
             WHERE projection = ? AND build = ? AND (holder IS NULL OR holder <> ?)"
        );
        let args = [&self.build.key()[..], &[self.member.name.clone().into()]].concat();
        tx.execute(&update, &args).await.map(drop)
    }

    /// Tells the others that this worker moves nothing any more.
    pub(crate) async fn leave(&self) -> Result<(), Error> {
        let mut tx = self.database.begin().await?;
        self.leave_in(&mut tx).await?;
        tx.commit().await
    }

    async fn leave_in(&self, tx: &mut Tx) -> Result<(), Error> {
        let table = tx.table_name("es_checkpoints");
        let update = format!("UPDATE {table} SET holder = NULL WHERE projection = ? AND build = ? AND holder = ?");
        let holder = [self.member.name.clone().into()];
        tx.execute(&update, &[&self.build.key()[..], &holder].concat()).await?;
        workers::leave(tx, &self.build, &self.member).await
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
        const WIDTH: usize = 19;
        let table = tx.table_name("es_checkpoints");
        let tuple = format!("({})", ["?"; WIDTH].join(","));
        let tuples = vec![tuple; moves.len()].join(",");
        // The holder, too: the fences of a read model that was removed and made anew are counted from the start.
        // Columns of a VALUES list have these names on both databases.
        let sql = format!(
            "UPDATE {table} AS c SET log_id = m.column7, next_offset = m.column8, epoch_number = m.column9, \
             epoch_writer = m.column10, claim_offset = m.column11, last_sequence = m.column12, last_record = m.column13, \
             events = events + m.column14, void = void + m.column15, quarantined = quarantined + m.column16, \
             moved_at = m.column17, copy_id = m.column18, copied = m.column19 \
             FROM (VALUES {tuples}) AS m WHERE c.projection = m.column1 AND c.build = m.column2 AND c.topic = m.column3 \
             AND c.topic_partition = m.column4 AND c.fence = m.column5 AND c.next_offset = m.column6 AND c.holder = ?"
        );
        let mut args = Vec::with_capacity(moves.len() * WIDTH + 1);
        for step in moves {
            let current = step.to.current;
            args.extend(self.key(step.place));
            // No row has the fence of a place that is not held.
            args.extend([self.fences[step.place].unwrap_or(-1).into(), integer(step.from)]);
            args.extend([log_id_value(&step.to), integer(step.to.next), integer(current.epoch.number)]);
            args.extend([writer_value(&step.to), integer(current.claim_offset), integer(current.last_sequence)]);
            args.push(last_record_value(&step.to).into());
            args.extend([integer(step.events as u64), integer(step.void), integer(step.quarantined as u64)]);
            args.push(Utc::now().into());
            args.push(current.copy.map(|id| id.to_string()).into());
            args.push(integer(u64::from(current.copied)));
        }
        args.push(self.member.name.clone().into());
        tx.execute(&sql, &args).await
    }

    /// The rows as they stand.
    ///
    /// # Errors
    /// [`Error::Fenced`] when one of them is gone.
    pub(crate) async fn look(&self) -> Result<Standing, Error> {
        look(&self.database, &self.build, &self.places).await
    }

    /// Where each place stands; none where the build has no row of it, since it was given fewer sources.
    pub(crate) async fn look_where_there(&self) -> Result<Vec<Option<Saved>>, Error> {
        let sql = select_rows(&self.database.table_name("es_checkpoints"));
        let rows = self.database.fetch(&sql, &self.build.key()).await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            found.insert((row.get::<String>("topic")?, row.get::<u32>("topic_partition")?), read(row)?);
        }
        Ok(self.places.iter().map(|place| found.remove(&(place.topic.to_string(), place.partition))).collect())
    }

    /// That another worker took over.
    pub(crate) fn fenced(&self, place: usize) -> Error {
        fenced(&self.build, &self.places[place])
    }

    fn key(&self, place: usize) -> Vec<Value> {
        let Place { topic, partition, .. } = &self.places[place];
        let [projection, build] = self.build.key();
        vec![projection, build, topic.clone().into(), (*partition).into()]
    }
}

impl Standing {
    pub(crate) fn is_held_by(&self, place: usize, holder: &str) -> bool {
        self.holders[place].as_deref() == Some(holder)
    }

    /// Where the places of this holder stand.
    pub(crate) fn of(&self, holder: &str) -> Vec<(usize, u64)> {
        let held = self.holders.iter().zip(&self.saved).enumerate();
        let held = held.filter(|(_, (other, _))| other.as_deref() == Some(holder));
        held.map(|(place, (_, saved))| (place, saved.checkpoint.next)).collect()
    }

    #[cfg(test)]
    pub(crate) fn of_holders(holders: &[Option<&str>]) -> Self {
        let saved = vec![Saved::default(); holders.len()];
        let holders: Vec<_> = holders.iter().map(|holder| holder.map(Arc::from)).collect();
        Self { saved, fences: vec![1; holders.len()], holders }
    }
}

/// The rows as they stand.
///
/// # Errors
/// [`Error::Fenced`] when one of them is gone.
pub(crate) async fn look(database: &Database, build: &Build, places: &[Place]) -> Result<Standing, Error> {
    let sql = select_rows(&database.table_name("es_checkpoints"));
    standing(&database.fetch(&sql, &build.key()).await?, build, places)
}

/// The same within a transaction.
pub(crate) async fn look_in(tx: &mut Tx, build: &Build, places: &[Place]) -> Result<Standing, Error> {
    let sql = select_rows(&tx.table_name("es_checkpoints"));
    standing(&tx.fetch(&sql, &build.key()).await?, build, places)
}

fn select_rows(table: &str) -> String {
    format!("SELECT {COLUMNS}, topic, topic_partition, holder FROM {table} WHERE projection = ? AND build = ?")
}

fn standing(rows: &[Row], build: &Build, places: &[Place]) -> Result<Standing, Error> {
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        found.insert((row.get::<String>("topic")?, row.get::<u32>("topic_partition")?), row);
    }
    let mut standing = Standing { saved: Vec::new(), holders: Vec::new(), fences: Vec::new() };
    for place in places {
        let row = found.get(&(place.topic.to_string(), place.partition)).ok_or_else(|| fenced(build, place))?;
        standing.saved.push(read(row)?);
        standing.fences.push(row.get("fence")?);
        standing.holders.push(row.get::<Option<String>>("holder")?.map(Arc::from));
    }
    Ok(standing)
}

fn fenced(build: &Build, place: &Place) -> Error {
    let Place { topic, partition, .. } = place;
    Error::Fenced { projection: build.projection.clone(), place: format!("{topic}/{partition}") }
}

const COLUMNS: &str = "fence, log_id, next_offset, epoch_number, epoch_writer, claim_offset, last_sequence, \
    last_record, copy_id, copied, events, void, quarantined";

fn read(row: &Row) -> Result<Saved, Error> {
    let number = |column| row.get::<i64>(column).map(|number| number as u64);
    let damaged = |column: &str| Error::invalid(format!("column {column:?} of a checkpoint row is damaged"));
    let writer = u64::from_str_radix(&row.get::<String>("epoch_writer")?, 16).map_err(|_| damaged("epoch_writer"))?;
    let last: Option<String> = row.get("last_record")?;
    let last = last.map(|text| serde_json::from_str(&text)).transpose().map_err(|_| damaged("last_record"))?;
    let current = Current {
        epoch: Epoch { number: number("epoch_number")?, writer },
        claim_offset: number("claim_offset")?,
        last_sequence: number("last_sequence")?,
        copy: row.get("copy_id")?,
        copied: number("copied")? != 0,
    };
    let checkpoint = Checkpoint { log_id: row.get("log_id")?, next: number("next_offset")?, current, last };
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

/// The last record that counted, as JSON.
fn last_record_value(checkpoint: &Checkpoint) -> Option<String> {
    checkpoint.last.map(|last| serde_json::to_string(&last).expect("it holds numbers and text only"))
}

fn writer_value(checkpoint: &Checkpoint) -> Value {
    format!("{:016x}", checkpoint.current.epoch.writer).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::projection::Projection;
    use crate::sql::{Kind, Table};

    struct Nothing;

    #[async_trait::async_trait]
    impl Projection for Nothing {
        fn name(&self) -> &str {
            "nothing"
        }

        fn tables(&self) -> Vec<Table> {
            vec![Table::new("nothing").key("id", Kind::Integer)]
        }

        async fn project(&self, _: &mut Tx, _: &[es_core::Recorded]) -> Result<(), crate::error::ProjectionError> {
            Ok(())
        }
    }

    fn place(partition: u32) -> Place {
        Place { source: 0, category: "account".into(), topic: "bank.account.events".into(), partition }
    }

    async fn joined(database: &Database, name: &str) -> Ledger {
        let build = builds::live(database, &Nothing).await.unwrap();
        let member = Member { name: name.into(), beat: 0, shares: true, stands_in: false };
        let mut ledger = Ledger::new(database.clone(), build, (0..4).map(place).collect(), member);
        ledger.join().await.unwrap();
        ledger
    }

    fn step(place: usize, from: u64, next: u64) -> Move {
        Move { place, from, to: Checkpoint { next, ..Checkpoint::default() }, events: 1, void: 0, quarantined: 0 }
    }

    async fn advance(ledger: &Ledger, moves: &[Move]) -> bool {
        let mut tx = ledger.database.begin().await.unwrap();
        let moved = ledger.advance(&mut tx, moves).await.unwrap();
        if moved {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
        }
        moved
    }

    /// Shows: what was seen is taken only as long as it is so, and who lost one place moves no batch with it.
    #[tokio::test]
    async fn a_place_is_taken_only_from_who_is_free_or_silent_still() {
        let database = Database::connect("sqlite::memory:", "bank").await.unwrap();
        let (mut one, mut two) = (joined(&database, "one").await, joined(&database, "two").await);
        let free = one.look().await.unwrap();
        one.take(&free, &[0, 1, 2], None).await.unwrap();
        two.take(&free, &[2, 3], None).await.unwrap();
        assert_eq!((one.held(), two.held()), (vec![true, true, true, false], vec![false, false, false, true]));
        assert!(advance(&one, &[step(0, 0, 5)]).await);
        assert!(!advance(&two, &[step(1, 0, 5)]).await, "it does not hold that");

        // Seen silent: but it moved, or was heard of, before it was taken from.
        let silent = one.member().clone();
        let seen = two.look().await.unwrap();
        assert!(advance(&one, &[step(0, 5, 6)]).await);
        two.take(&seen, &[0], Some(&silent)).await.unwrap();
        assert!(!two.held()[0]);
        let seen = two.look().await.unwrap();
        let alive = Member { beat: 1, ..silent.clone() };
        let mut tx = database.begin().await.unwrap();
        workers::beat(&mut tx, one.build(), &alive).await.unwrap();
        tx.commit().await.unwrap();
        two.take(&seen, &[0, 1], Some(&silent)).await.unwrap();
        assert_eq!(two.held(), [false, false, false, true]);
        assert_eq!(workers::of(&database, one.build()).await.unwrap().len(), 2);

        // Gone: it does not know, and nothing of a batch with what it lost is in.
        two.take(&seen, &[0, 1], Some(&alive)).await.unwrap();
        assert_eq!(two.held(), [true, true, false, true]);
        assert_eq!(workers::of(&database, one.build()).await.unwrap().len(), 1);
        assert!(!advance(&one, &[step(1, 0, 1), step(2, 0, 1)]).await);
        let stands = one.look().await.unwrap();
        assert_eq!(stands.saved[2].checkpoint.next, 0);
        assert_eq!(one.drop_lost(&stands), Some(0));
        assert_eq!(one.held(), [false, false, true, false]);
        assert!(advance(&one, &[step(2, 0, 1)]).await);

        one.give_back(&[2]).await.unwrap();
        assert!(!advance(&one, &[step(2, 1, 2)]).await, "it gave that back");
        let mut tx = database.begin().await.unwrap();
        assert!(two.holds(&mut tx).await.unwrap());
        tx.rollback().await.unwrap();
    }
}
