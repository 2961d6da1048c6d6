//! Building a read model anew beside the one that serves, or as of some time or place.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::occurred::Occurred;
use super::read::Selection;
use super::run::Extent;
use super::yielding;
use super::{RunningProjection, Worker};
use crate::builds::{self, Build};
use crate::checkpoint::{Ledger, Saved};
use crate::compare;
use crate::cut;
use crate::digest::{self, Digest};
use crate::error::Error;
use crate::pages::Side;
use crate::parked::{self, Parked};
use crate::place::Place;
use crate::projection::Projection;
use crate::skipped::LeftOut;
use crate::sql::{Database, Table};
use crate::workers::Member;

/// How often progress is reported.
const REPORT: Duration = Duration::from_millis(200);
/// How often the others are shown that a rebuild is at work while the live one stands still.
const SHOW: Duration = Duration::from_millis(100);
/// The most aggregates that are told which a new build has parked.
const PARKED_TOLD_MAX: u32 = 5;
/// A build that is so close behind that it catches up within this time is made the read model.
const CLOSE: Duration = Duration::from_secs(1);
/// How often the switch is tried while the live one stands still.
const ATTEMPTS: u32 = 3;
/// How long the live one goes on where queries on its tables keep the switch from taking place.
const IN_USE: Duration = Duration::from_secs(5);

/// What must hold before a rebuilt read model replaces the live one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Nothing: the new version is meant to give other rows.
    Nothing,
    /// Both hold the same rows, those of the columns included that say what changed a row last.
    Equal,
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RebuildProgress {
    /// Records of the log that were handled, those before a stop included.
    pub done: u64,
    /// Records that are to be handled, as far as is known by now.
    pub total: u64,
    /// Records a second since this process began.
    pub per_second: f64,
    /// For how long it did nothing, since commands were coming in: until it is close to the log's end, it works a third of the time then.
    pub made_way: Duration,
}

/// What a read model is built as of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// Everything that was recorded until then, inclusive.
    Recorded(DateTime<Utc>),
    /// Everything that took place until then by its business time, inclusive, as far as it is in the log now. It is folded in the
    /// order of recording. An aggregate whose first event took place later was not there yet, and has nothing folded in.
    Occurred(DateTime<Utc>),
    /// Everything before a place in the log that was [saved](Worker::save_cut) under this name.
    Cut(String),
}

/// A read model as of some time or place. It stays as it is until it is removed with [`Database::remove_as_of`].
#[derive(Debug, Clone)]
pub struct Frozen {
    database: Database,
    build: Build,
    tables: Vec<Table>,
}

impl Frozen {
    /// The database in which the read model's tables are those of then: for queries.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The aggregates that it lacks events of, since they could not be folded in; at most `limit`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn parked(&self, limit: u32) -> Result<Vec<Parked>, Error> {
        self.database.parked_in(&self.build, limit).await
    }

    /// A digest over all rows: equal for equal rows.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Sql`].
    pub async fn digest(&self) -> Result<Digest, Error> {
        digest::of(&self.database, &self.tables).await
    }
}

impl Worker {
    /// Builds a read model anew, in tables of its own, while the live one serves; then the live tables take over its rows, in one
    /// transaction.
    ///
    /// They stay the tables that they are, with all that users made on them: grants, policies, views, triggers, indexes, foreign
    /// keys, publications. Only rows that differ are written, so that triggers and subscribers see those alone. Where
    /// another version of the projection declares other columns, indexes or keys, the tables are changed to have
    /// them; what users made that needs a column which goes (a view on it, say), or would be lost with it without a word (on PostgreSQL
    /// indexes, constraints, statistics, defaults, the rights to the column and the comment on it), is told, object by object, before
    /// anything is built. A table that another version has no more goes, unless a view or a foreign key needs it. On SQLite a
    /// table whose key changes is made anew, and that is refused as long as users have made something on it.
    /// Whoever reads goes on meanwhile, save for the moment in which columns come and go; where the key or the kind of a
    /// column changes, PostgreSQL keeps readers waiting while the rows are written.
    ///
    /// For another version of the projection, or for the same one to be sure of the rows. Stopped half way, by dropping the
    /// future or killing the process, it goes on from there when it is called again. Workers that keep up the live one
    /// must [share](Worker::share): for the moment of the switch this one takes all partitions, and those of the same
    /// version go on with the new build. Where columns change, a long query on its tables puts
    /// the switch off until it ends; others wait for a fifth of a second at most, each time that it is tried. `report` is called a few times a second.
    ///
    /// # Errors
    /// [`Error::Differs`] when they were to be equal and are not, and whenever the new one has parked what the live one has
    /// folded in: the live one stays, and so does the new one, to be looked at, until [`Database::remove_replaced`]. [`Error::Invalid`] when there is no live one, and where something that users made stands in the
    /// way of other columns. Else as for [`Worker::start`].
    pub async fn rebuild(
        &self,
        projection: impl Projection,
        check: Check,
        mut report: impl FnMut(RebuildProgress) + Send,
    ) -> Result<(), Error> {
        let projection: Arc<dyn Projection> = Arc::new(projection);
        self.check_sources()?;
        // What stands in the way is told before anything is built.
        self.try_to_prepare(&*projection, None).await?;
        let build = builds::beside(&self.database, &*projection).await?;
        let mut pace = Pace::start();
        loop {
            let live = self.get_close(&projection, &build, None, &mut pace, &mut report).await?;
            // It may have come meanwhile.
            builds::analyze(&self.database, &build).await;
            let live = self.try_to_prepare(&*projection, Some(&build)).await?.unwrap_or(live);
            if live.is_made_of(&build) {
                return Err(self.whole(&build).fenced(0)); // another process has made it live
            }
            // From here on the live one stands still.
            pace.gentle = false;
            let mut ledger = self.whole(&live);
            let stands = ledger.take_over().await?;
            let compared = async {
                self.build(&projection, &build, Extent::of(&stands), &mut pace, &mut report).await?;
                if check == Check::Equal {
                    self.compare(&*projection, &live, &build).await?;
                }
                Ok(())
            };
            let compared = tokio::select! {
                compared = compared => compared,
                lost = hold(&mut ledger) => Err(lost),
            };
            let switched = match compared {
                Ok(()) => self.switch(&*projection, &mut ledger, &build, &stands).await,
                Err(error) => Err(error),
            };
            // Those that share take the places of whichever is live now.
            if let Err(error) = ledger.leave().await {
                tracing::debug!(error = &error as &dyn std::error::Error, "giving the fences back failed");
            }
            match switched? {
                None => break,
                Some(error) => self.wait_until_free(&*projection, &error).await,
            }
        }
        tracing::info!(projection = projection.name(), build = build.number, "the rebuilt read model is live");
        Ok(())
    }

    /// Finds out what would keep the live tables from taking over what a build holds; prepares them for this one. Tells which is live:
    /// while it waits, another rebuild may replace it.
    async fn try_to_prepare(&self, projection: &dyn Projection, build: Option<&Build>) -> Result<Option<Build>, Error> {
        loop {
            let tried = async {
                let Some(live) = builds::look_for_live(&self.database, projection.name()).await? else {
                    return Ok(None);
                };
                let to = build.unwrap_or(&live);
                if !builds::try_switch(self.database.begin().await?, projection, &live, to).await? {
                    return Err(self.database.unavailable("trying the switch", "another build went live meanwhile"));
                }
                if let Some(build) = build {
                    builds::prepare_switch(&self.database, projection, &live, build).await?;
                }
                Ok::<_, Error>(Some(live))
            };
            match tried.await {
                Err(error) if error.is_retryable() => self.wait_until_free(projection, &error).await,
                tried => return tried,
            }
        }
    }

    async fn wait_until_free(&self, projection: &dyn Projection, why: &Error) {
        let projection = projection.name();
        tracing::warn!(projection, error = why as &dyn std::error::Error, "the switch has to wait");
        tokio::time::sleep(IN_USE).await;
    }

    /// Reads up to where the live build stands, again and again, until it is close; tells the live build. If asked to, each pass
    /// leaves out what the live one has left out of it, and notes that.
    pub(super) async fn get_close(
        &self,
        projection: &Arc<dyn Projection>,
        build: &Build,
        mut left_out: Option<&mut Vec<Arc<LeftOut>>>,
        pace: &mut Pace,
        report: &mut (impl FnMut(RebuildProgress) + Send),
    ) -> Result<Build, Error> {
        let mut took_before = Duration::MAX;
        loop {
            let live = builds::look_for_live(&self.database, projection.name()).await?;
            let live = live.ok_or_else(|| Error::invalid("the live read model was removed meanwhile"))?;
            let places = self.places();
            let reached = self.whole(&live).look_where_there().await?;
            // What the log does not have any more would be waited for, and then taken for what it has in its place.
            let saved = places.iter().zip(&reached).filter_map(|(place, saved)| Some((place, saved.as_ref()?)));
            let compared = self.compare_with_log(saved).await;
            compared.map_err(|source| Error::Log { projection: live.projection.clone(), source })?;
            let began = Instant::now();
            // The live one does not read a source that this version is the first to have: all of it that there is now.
            let ends = match reached.iter().all(Option::is_some) {
                true => vec![0; reached.len()],
                false => self.ends(&places).await?,
            };
            let until =
                reached.iter().zip(ends).map(|(saved, end)| saved.as_ref().map_or(end, |saved| saved.checkpoint.next));
            let until: Vec<u64> = until.collect();
            pace.next_pass(until.iter().sum());
            let mut extent = Extent { until: Some(until), ..Extent::ALL };
            if let Some(left_out) = &mut left_out {
                // Later than where it stands, so that nothing of that was folded in and waits since.
                let mut tx = self.database.begin().await?;
                left_out.push(Arc::new(LeftOut::of(&mut tx, &live).await?));
                tx.rollback().await?;
                extent.selection = left_out.last().cloned().map_or(Selection::All, Selection::Without);
            }
            self.build(projection, build, extent, pace, report).await?;
            // What no longer gets shorter never gets short enough.
            let took = began.elapsed();
            // A pass that made way tells nothing of that.
            if took < CLOSE || (!pace.gentle && took >= took_before) {
                return Ok(live);
            }
            took_before = if pace.gentle { Duration::MAX } else { took };
        }
    }

    /// Makes the build the live one, in one transaction, where both stand at the same place; tells why it could not, where
    /// that may pass.
    async fn switch(
        &self,
        projection: &dyn Projection,
        live: &mut Ledger,
        build: &Build,
        stands: &[Saved],
    ) -> Result<Option<Error>, Error> {
        let mut attempt = 1;
        loop {
            let error = match self.try_to_switch(projection, live, build, stands).await {
                Err(error) if error.is_retryable() => error,
                switched => return switched.map(|()| None),
            };
            // It may have been told too late.
            let now = builds::look_for_live(&self.database, projection.name()).await?;
            if now.is_some_and(|now| now.is_made_of(build)) {
                return Ok(None);
            }
            if attempt == ATTEMPTS {
                return Ok(Some(error));
            }
            attempt += 1;
            match live.renew().await {
                Err(error) if !error.is_retryable() => return Err(error),
                _ => tokio::time::sleep(SHOW).await,
            }
        }
    }

    async fn try_to_switch(
        &self,
        projection: &dyn Projection,
        live: &Ledger,
        build: &Build,
        stands: &[Saved],
    ) -> Result<(), Error> {
        let mut tx = self.database.begin_durably().await?;
        tx.lock_schema().await?;
        if !live.holds(&mut tx).await? {
            return Err(live.fenced(0));
        }
        live.shut_out_others(&mut tx).await?;
        // Another rebuild may have removed it meanwhile, or begun it anew.
        let built = self.whole(build);
        if !built.close_at(&mut tx, stands).await? {
            return Err(built.fenced(0));
        }
        // What was visible stays so.
        let parked = parked::waits_longer(&mut tx, build, live.build(), PARKED_TOLD_MAX).await?;
        if !parked.is_empty() {
            let difference = format!("it has parked {}", parked.join("; "));
            return Err(Error::Differs { projection: build.projection.clone(), difference });
        }
        tx.take_time().await?;
        builds::switch(&mut tx, projection, live.build(), build).await?;
        tx.commit().await
    }

    /// Builds a read model as of some time or place, in tables of its own; the one of this name, where it is there already. The
    /// same again gives the same rows. What can't be folded in is parked there for good: [`Frozen::parked`] tells.
    ///
    /// Business time may be given to events later: what is built is as of the log of now, which is kept with it.
    ///
    /// # Errors
    /// [`Error::Invalid`] when this name stands for another time or place, for a cut that was not saved, and for a time that
    /// is not over yet. Else as for [`Worker::start`].
    pub async fn as_of(
        &self,
        projection: impl Projection,
        as_of: &AsOf,
        name: &str,
        mut report: impl FnMut(RebuildProgress) + Send,
    ) -> Result<Frozen, Error> {
        let projection: Arc<dyn Projection> = Arc::new(projection);
        self.check_sources()?;
        let selection = match as_of {
            AsOf::Recorded(time) => Selection::RecordedUntil(*time),
            AsOf::Occurred(_) | AsOf::Cut(_) => Selection::All,
        };
        if let AsOf::Recorded(time) = as_of
            && *time > Utc::now()
        {
            return Err(Error::invalid(format!("{time} is not over yet: what is recorded until then is not known")));
        }
        let places = self.places();
        let given = match as_of {
            AsOf::Cut(cut) => Some(self.load_cut(cut, &places).await?),
            AsOf::Recorded(_) | AsOf::Occurred(_) => None,
        };
        let build = builds::frozen(&self.database, &*projection, name, &as_of.to_string()).await?;
        let until = match given {
            Some(until) => until,
            None => self.own_cut(projection.name(), name, &places).await?,
        };
        let mut pace = Pace::start();
        let extent = Extent { until: Some(until), selection };
        let projection: Arc<dyn Projection> = match as_of {
            AsOf::Occurred(until) => Arc::new(Occurred { projection, build: build.clone(), until: *until }),
            AsOf::Recorded(_) | AsOf::Cut(_) => projection,
        };
        self.build(&projection, &build, extent, &mut pace, &mut report).await?;
        Ok(Frozen { database: build.of(&self.database), build, tables: projection.tables() })
    }

    /// Saves the end of the log, as it is now, under a name for [`AsOf::Cut`].
    ///
    /// # Errors
    /// [`Error::Invalid`] when the name stands for another place; [`Error::Log`] when the log can't be reached.
    pub async fn save_cut(&self, name: &str) -> Result<(), Error> {
        if name.is_empty() || name.starts_with('!') || name.chars().any(char::is_control) {
            return Err(Error::invalid(format!(
                "{name:?} is no name for a cut: it must be text that does not begin with !"
            )));
        }
        let places = self.places();
        cut::save(&self.database, name, &places, &self.ends(&places).await?).await
    }

    /// The offsets of a saved cut, which the log must reach.
    async fn load_cut(&self, name: &str, places: &[Place]) -> Result<Vec<u64>, Error> {
        let until = cut::load(&self.database, name, places).await?;
        for ((place, until), end) in places.iter().zip(&until).zip(self.ends(places).await?) {
            if end < *until {
                let Place { topic, partition, .. } = place;
                return Err(Error::invalid(format!(
                    "{topic}/{partition} ends at offset {end}, cut {name:?} is at {until}"
                )));
            }
        }
        Ok(until)
    }

    /// The end of the log when a read model was first asked for as of some time.
    async fn own_cut(&self, projection: &str, name: &str, places: &[Place]) -> Result<Vec<u64>, Error> {
        let own = cut::own(projection, name);
        if let Some(until) = cut::find(&self.database, &own, places).await? {
            return Ok(until);
        }
        let ends = self.ends(places).await?;
        let saved = cut::save(&self.database, &own, places, &ends).await;
        // Another process that began the same may have been first.
        match cut::find(&self.database, &own, places).await? {
            Some(first) => Ok(first),
            None => saved.map(|()| ends),
        }
    }

    /// Runs a worker of the build until all of the extent is in it.
    pub(super) async fn build(
        &self,
        projection: &Arc<dyn Projection>,
        build: &Build,
        extent: Extent,
        pace: &mut Pace,
        report: &mut (dyn FnMut(RebuildProgress) + Send),
    ) -> Result<(), Error> {
        let until = extent.until.clone().unwrap_or_default();
        // Another one that is at it keeps the fence.
        let worker = Self { share: None, ..self.clone() };
        let handle = worker.start_build(projection.clone(), build.clone(), extent).await?;
        let mut ends = None;
        let ended = async {
            loop {
                match tokio::time::timeout(REPORT, handle.stopped()).await {
                    Ok(ended) => return ended,
                    Err(_) => {
                        report(pace.at(&handle, &until));
                        handle.make_way(pace.gentle && self.log_grows(&mut ends).await);
                    }
                }
            }
        };
        ended.await?;
        report(pace.at(&handle, &until));
        pace.made_way += handle.made_way();
        let complete = handle.progress().iter().zip(&until).all(|(at, until)| at.read >= *until);
        if complete {
            return Ok(());
        }
        Err(Error::Stopped { projection: build.projection.clone(), source: None }) // it was asked to
    }

    /// Whether the log has more than when this was asked last.
    async fn log_grows(&self, ends: &mut Option<Vec<u64>>) -> bool {
        let now = self.ends(&self.places()).await.ok();
        let before = std::mem::replace(ends, now);
        before.is_some() && *ends != before
    }

    /// The ledger of one that takes all places.
    pub(super) fn whole(&self, build: &Build) -> Ledger {
        let member = Member { shares: false, ..self.member() };
        Ledger::new(self.database.clone(), build.clone(), self.places(), member)
    }

    /// Where the log ends.
    pub(super) async fn ends(&self, places: &[Place]) -> Result<Vec<u64>, Error> {
        let mut ends = Vec::with_capacity(places.len());
        for place in places {
            let bounds = self.log.bounds(&place.topic, place.partition).await;
            ends.push(bounds.map_err(|source| Error::Log { projection: place.category.clone(), source })?.end);
        }
        Ok(ends)
    }

    async fn compare(&self, projection: &dyn Projection, live: &Build, build: &Build) -> Result<(), Error> {
        let (one, other) = (live.of(&self.database), build.of(&self.database));
        let mut differences = Vec::new();
        for table in &projection.tables() {
            let form = projection.form_column(table.name());
            let compared = compare::table(&mut Side::Now(&one), &mut Side::Now(&other), table, form).await?;
            differences.extend(compared.differences.iter().map(ToString::to_string));
        }
        if differences.is_empty() {
            return Ok(());
        }
        Err(Error::Differs { projection: build.projection.clone(), difference: differences.join("; ") })
    }
}

/// Holds the fences, as others can see, until they are lost.
async fn hold(ledger: &mut Ledger) -> Error {
    loop {
        tokio::time::sleep(SHOW).await;
        match ledger.renew().await {
            Err(error) if error.is_fenced() => return error,
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "raising the beat failed"),
            Ok(()) => {}
        }
    }
}

impl std::fmt::Display for AsOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Recorded(time) => write!(f, "recorded {}", time.to_rfc3339()),
            Self::Occurred(time) => write!(f, "occurred {}", time.to_rfc3339()),
            Self::Cut(name) => write!(f, "cut {name}"),
        }
    }
}

/// How fast a build goes.
pub(super) struct Pace {
    started: Instant,
    /// What was done when it was looked at first.
    first: Option<u64>,
    /// Whether it makes way for commands.
    pub(super) gentle: bool,
    /// Where the last pass ended, and how much it had to do.
    passed: Option<(u64, u64)>,
    /// For how long it did, in the passes before.
    made_way: Duration,
}

impl Pace {
    pub(super) fn start() -> Self {
        Self { started: Instant::now(), first: None, gentle: true, passed: None, made_way: Duration::ZERO }
    }

    /// Makes way in the first pass, and in those after as long as each has clearly less to do: else it would never get close.
    fn next_pass(&mut self, end: u64) {
        let todo = self.passed.map_or(end, |(before, _)| end.saturating_sub(before));
        self.gentle = self.passed.is_none_or(|(_, before)| todo < before / yielding::SLOWER / 2);
        self.passed = Some((end, todo));
    }

    fn at(&mut self, handle: &RunningProjection, until: &[u64]) -> RebuildProgress {
        let done = handle.progress().iter().zip(until).map(|(at, until)| at.read.min(*until)).sum();
        let first = *self.first.get_or_insert(done);
        let per_second = done.saturating_sub(first) as f64 / self.started.elapsed().as_secs_f64().max(1e-3);
        let made_way = self.made_way + handle.made_way();
        RebuildProgress { done, total: until.iter().sum(), per_second, made_way }
    }
}
