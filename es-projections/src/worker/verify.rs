//! Comparing a read model with the log: the log is replayed into a copy beside the live one, which goes on meanwhile.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Worker;
use super::read::Selection;
use super::rebuild::{Pace, RebuildProgress};
use super::run::{Extent, in_limits};
use crate::builds::{self, Build};
use crate::checkpoint::{self, Saved};
use crate::compare::{self, ComparedTable, Difference};
use crate::error::Error;
use crate::pages::Side;
use crate::parked::{self, Parked};
use crate::place::Place;
use crate::projection::Projection;
use crate::skipped::{LeftOut, Skipped};
use crate::sql::Tx;
use crate::workers::{self, Member};

/// How often others are shown that somebody is at work on the copy.
const BEAT: Duration = Duration::from_secs(1);
/// How often the snapshot is used, so that the server does not give it up.
const USE: Duration = Duration::from_secs(5);
/// How often it begins anew since what was parked is folded in meanwhile, or the database went back.
const ATTEMPTS: u32 = 3;
/// How often dropping the copy is tried.
const DROPS: u32 = 3;

/// What came of comparing a read model with the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The projection.
    pub projection: String,
    /// The place in the log at which both stood: where the live one was.
    pub at: Vec<ComparedAt>,
    /// Each table of the read model.
    pub tables: Vec<ComparedTable>,
    /// Aggregates that the replay could not fold in, though the live one has.
    pub not_replayed: Vec<Parked>,
    /// Aggregates that are parked in the live one: their waiting events were left out of the replay, too.
    pub parked: Vec<Parked>,
    /// Events that operators left out of the live one: so they were of the replay.
    pub skipped: Vec<Skipped>,
}

/// Where a partition was compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComparedAt {
    /// The topic.
    pub topic: Arc<str>,
    /// The partition.
    pub partition: u32,
    /// Everything before this offset was compared.
    pub next: u64,
    /// Where the log ended afterwards. What is between is not in the read model yet, and was not compared.
    pub end: u64,
}

/// Whether a read model is what the log gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All rows are the same in all columns.
    Equal,
    /// There are differences.
    Differs,
    /// Neither holds a row: there was nothing to be compared.
    Empty,
}

impl Verified {
    /// Whether it is what the log gives, save for what is [parked](Self::parked) or was [left out](Self::skipped).
    pub fn verdict(&self) -> Verdict {
        if !self.not_replayed.is_empty() || self.tables.iter().any(|table| !table.is_equal()) {
            return Verdict::Differs;
        }
        match self.tables.iter().all(|table| table.rows == 0) {
            true => Verdict::Empty,
            false => Verdict::Equal,
        }
    }

    /// The first rows that differ, table by table.
    pub fn differences(&self) -> impl Iterator<Item = &Difference> {
        self.tables.iter().flat_map(|table| &table.differences)
    }

    /// How many records of the log the read model did not contain, and so were not compared.
    pub fn behind(&self) -> u64 {
        self.at.iter().map(|at| at.end.saturating_sub(at.next)).sum()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Equal => "equal",
            Self::Differs => "differs",
            Self::Empty => "empty",
        })
    }
}

/// A read model as it was at one moment.
struct Then {
    /// Sees it so.
    tx: Tx,
    live: Build,
    stands: Vec<Saved>,
}

impl Worker {
    /// Compares a read model with the log: replays the log into a copy beside the live one, to exactly where that one stands, compares
    /// all columns of all rows of its tables, and drops the copy.
    ///
    /// The live one is read as it was at one moment, and goes on: its workers, whether they share or not, lose nothing, and it
    /// is neither changed nor switched. What it has parked, or an operator left out of it, is left out of the copy as well, and told.
    /// The replay makes way for commands as [`Worker::rebuild`] does; `report` is called a few times a second. What it needs is room
    /// for the copy, and three connections.
    ///
    /// Stopped half way, by dropping the future or killing the process, it leaves its copy behind: the next one drops
    /// it, and so do workers of the read model once there was no sign of life for as long as they
    /// [would wait](Worker::share), 3 s at least, or 10 s where they don't share. Of two at a time on one read model the one that began later goes on.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no live one, for a database in memory, which can't be read beside its writer, and where
    /// operators have parked aggregates folded in again and again meanwhile; [`Error::OtherVersion`] when it is another version's;
    /// [`Error::Fenced`] when another one began later; [`Error::Log`] when the log lost records that the read model contains.
    /// Else as for [`Worker::start`]. That it differs is no error: [`Verified::verdict`] tells.
    pub async fn verify(
        &self,
        projection: impl Projection,
        mut report: impl FnMut(RebuildProgress) + Send,
    ) -> Result<Verified, Error> {
        let projection: Arc<dyn Projection> = Arc::new(projection);
        self.check_sources()?;
        for _ in 0..ATTEMPTS {
            let copy = builds::copy(&self.database, &*projection).await?;
            let compared = tokio::select! {
                compared = self.replay_and_compare(&projection, &copy, &mut report) => compared,
                lost = self.show(&copy) => Err(lost),
            };
            match (compared, self.drop_copy(&copy).await) {
                // Whatever was compared may have been half of another one's.
                (_, Ok(false)) => return Err(lost(&copy)),
                (Ok(Some(verified)), Ok(true)) => return Ok(verified),
                (Ok(None), Ok(true)) => tracing::info!(projection = projection.name(), "verifying begins anew"),
                (Err(error), _) | (Ok(_), Err(error)) => return Err(error),
            }
        }
        let name = projection.name();
        Err(Error::invalid(format!(
            "read model {name} was changed by other means than new events {ATTEMPTS} times while it was verified: verify it \
             when parked aggregates are seen to and nobody rebuilds it"
        )))
    }

    /// None where it has to begin anew.
    async fn replay_and_compare(
        &self,
        projection: &Arc<dyn Projection>,
        copy: &Build,
        report: &mut (impl FnMut(RebuildProgress) + Send),
    ) -> Result<Option<Verified>, Error> {
        let places = self.places();
        // Else the copy would never come as far as the live one.
        let Then { stands, .. } = self.now(projection, &places).await?;
        let checked = self.compare_with_log(places.iter().zip(&stands)).await;
        checked.map_err(|source| Error::Log { projection: copy.projection.clone(), source })?;
        let (mut pace, mut passes) = (Pace::start(), Vec::new());
        self.get_close(projection, copy, Some(&mut passes), &mut pace, report).await?;
        // From here on the live one is as it is now, though it goes on.
        let Then { tx: mut then, live, stands } = self.now(projection, &places).await?;
        let left_out = Arc::new(LeftOut::of(&mut then, &live).await?);
        if !passes.iter().all(|before| before.waits_in(&left_out)) {
            return Ok(None);
        }
        pace.gentle = false;
        let extent = Extent { selection: Selection::Without(left_out.clone()), ..Extent::of(&stands) };
        tokio::select! {
            built = self.build(projection, copy, extent, &mut pace, report) => built?,
            lost = keep(&mut then) => return Err(lost),
        }
        let reached = self.whole(copy).look().await?.saved;
        let next = |saved: &Saved| saved.checkpoint.next;
        if !reached.iter().map(next).eq(stands.iter().map(next)) {
            return Ok(None); // the database went back
        }
        let (replayed, mut compared) = (copy.of(&self.database), Vec::new());
        for table in &projection.tables() {
            let form = projection.form_column(table.name());
            let table = compare::table(&mut Side::Then(&mut then), &mut Side::Now(&replayed), table, form).await?;
            compared.push(table);
        }
        let parked = parked::all(&mut then, &live).await?;
        then.rollback().await?;
        let ends = self.ends(&places).await?;
        let at = places.iter().zip(&stands).zip(ends).map(|((place, saved), end)| {
            let Place { topic, partition, .. } = place;
            ComparedAt { topic: topic.clone(), partition: *partition, next: next(saved), end }
        });
        Ok(Some(Verified {
            projection: projection.name().into(),
            at: at.collect(),
            tables: compared,
            not_replayed: self.database.parked_in(copy, i32::MAX.unsigned_abs()).await?,
            parked,
            skipped: left_out.skipped().to_vec(),
        }))
    }

    /// The live one as it is now, whatever becomes of it.
    async fn now(&self, projection: &Arc<dyn Projection>, places: &[Place]) -> Result<Then, Error> {
        let mut tx = self.database.snapshot(&projection.tables()).await?;
        let live = builds::find_live(&mut tx, projection.name()).await?;
        let live = builds::check_live(&self.database, &**projection, live)?;
        let stands = checkpoint::look_in(&mut tx, &live, places).await?.saved;
        Ok(Then { tx, live, stands })
    }

    /// Shows that it is at work on the copy, as long as that is there.
    async fn show(&self, copy: &Build) -> Error {
        let mut member = Member { shares: false, ..self.member() };
        loop {
            member.beat += 1;
            match self.show_once(copy, &member).await {
                Ok(true) => {}
                Ok(false) => return lost(copy),
                Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "raising the beat failed"),
            }
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn show_once(&self, copy: &Build, member: &Member) -> Result<bool, Error> {
        let mut tx = self.database.begin().await?;
        let there = builds::stands(&mut tx, copy).await?;
        if there {
            workers::beat(&mut tx, copy, member).await?;
        }
        tx.commit().await.map(|()| there)
    }

    /// False when it was not there any more.
    async fn drop_copy(&self, copy: &Build) -> Result<bool, Error> {
        let mut attempt = 1;
        loop {
            let dropped = async { builds::remove_copy(self.database.begin().await?, copy).await };
            match in_limits(&self.database, "dropping the replayed copy", dropped).await {
                Err(error) if error.is_retryable() && attempt < DROPS => attempt += 1,
                dropped => return dropped,
            }
            tokio::time::sleep(BEAT).await;
        }
    }
}

/// Uses the snapshot now and then, for ever.
async fn keep(then: &mut Tx) -> Error {
    loop {
        tokio::time::sleep(USE).await;
        if let Err(error) = then.fetch("SELECT 1 AS one", &[]).await {
            return error;
        }
    }
}

fn lost(copy: &Build) -> Error {
    Error::Fenced { projection: copy.projection.clone(), place: "its replayed copy".into() }
}
