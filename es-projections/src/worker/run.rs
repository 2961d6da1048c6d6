//! The worker's task: one transaction after the other, each of rows and checkpoints.

use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use es_core::log::LogError;
use es_core::{Cause, Recorded, StreamId};
use futures::FutureExt;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Worker;
use super::pause::Pause;
use super::quarantine;
use super::queue::{Chunk, Queue};
use super::read::{Selection, SourceReader};
use super::share::Heartbeat;
use super::state::{Board, Origin};
use crate::builds::{self, Build};
use crate::checkpoint::{Ledger, Move, Saved};
use crate::error::Error;
use crate::parked;
use crate::place::Place;
use crate::projection::Projection;
use crate::sql::{Database, Tx, is_late};
use crate::workers::Member;

/// The longest that one attempt at a batch may take: a statement on a dead connection would wait for minutes.
const ATTEMPT_MAX: Duration = Duration::from_secs(60);
/// How long an attempt may go on after the worker was asked to stop.
const GRACE: Duration = Duration::from_secs(5);
/// How long giving places back may take: without, others take them later, and that is all.
const LEAVE_MAX: Duration = Duration::from_secs(2);

/// How often an operator's wishes for parked aggregates are looked for.
const LOOK_ASKED: Duration = Duration::from_millis(200);

/// So many aggregates are parked though nothing else is there on which the projection would not fail.
const PARKED_UNSEEN_MAX: usize = 10;
/// For so long others are tried out at once, and until nothing more is read for this long.
const TRY_OUT_MAX: Duration = Duration::from_secs(60);
const NOTHING_MORE: Duration = Duration::from_secs(1);

/// Into so many parts a batch is divided that fails.
const PARTS: usize = 8;
/// What takes this long, and fails, is tried in smaller parts.
const SLOW: Duration = Duration::from_secs(10);

/// A worker at work.
pub(super) struct Run {
    pub(super) worker: Worker,
    pub(super) projection: Arc<dyn Projection>,
    /// As the projection sees it.
    pub(super) database: Database,
    pub(super) ledger: Ledger,
    pub(super) heartbeat: Heartbeat,
    pub(super) board: Arc<Board>,
    pub(super) extent: Extent,
    /// The aggregates whose events wait, of the places that it holds.
    pub(super) parked: HashSet<StreamId>,
    /// The most commands of a transaction, after one took too long; grows again with each that does not.
    pub(super) part_max: Option<usize>,
    pub(super) shutdown: CancellationToken,
}

/// What of the log is folded in.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    /// For each place the offset before which to end; none to go on for ever.
    pub(super) until: Option<Vec<u64>>,
    pub(super) selection: Selection,
}

impl Extent {
    pub(super) const ALL: Self = Self { until: None, selection: Selection::All };

    /// Everything before where this much is saved.
    pub(super) fn of(saved: &[Saved]) -> Self {
        Self { until: Some(saved.iter().map(|saved| saved.checkpoint.next).collect()), ..Self::ALL }
    }
}

/// What an attempt at a part of a batch does.
enum How<'a> {
    Fold,
    /// Its one command failed so often, and at last for this reason: it waits, and what comes later of its aggregate waits behind.
    Park(&'a Cause, u32),
}

/// What came of an attempt.
enum Attempt {
    /// It is in the database, and this aggregate is parked now.
    Done(Option<StreamId>),
    /// A checkpoint does not stand where it should.
    Elsewhere,
}

/// Why an attempt failed.
enum Failed {
    /// The projection did, for this reason, not the database: the same events will fail again.
    OnEvents(Cause),
    Otherwise(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Otherwise(error)
    }
}

/// What is known of a batch while it is settled.
#[derive(Default)]
struct Pass {
    /// The projection failed on it as often as it may: what fails now is divided until it is one command, which is parked.
    careful: bool,
    /// The projection has succeeded on something since the last aggregate was parked.
    works: bool,
    /// How many aggregates were parked since it has.
    parked: usize,
    /// The command on which it has succeeded when it was tried out last.
    succeeded_on: Option<Vec<Recorded>>,
    /// What was read behind it was taken to be tried out.
    is_read_on: bool,
}

impl Pass {
    fn succeeds(&mut self) {
        (self.works, self.parked) = (true, 0);
    }

    fn parks(&mut self) {
        (self.works, self.parked) = (false, self.parked + 1);
    }
}

/// What came of a part of a batch.
enum Settled {
    Done,
    /// It is to be tried in smaller parts, of so many commands.
    Divide(usize),
    Next(Next),
}

/// What follows a batch.
pub(super) enum Next {
    /// The next one.
    Continue,
    /// Nothing: the worker was asked to stop.
    Stop,
    /// Reading again from what is saved: the database stands elsewhere than was believed, or other places are held.
    Anew,
}

impl Run {
    /// Works until it is asked to stop or can't go on, and shows how that ended. Never panics.
    pub(super) async fn finish(mut self, saved: Vec<Saved>) {
        let ended = AssertUnwindSafe(self.work(saved)).catch_unwind().await;
        let error = match ended {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(panic) => Some(self.failed("the worker itself".into(), panicked(&*panic))),
        };
        self.leave().await;
        let projection = self.board.projection();
        match &error {
            None => tracing::info!(%projection, "projection stopped"),
            Some(error) => tracing::error!(%projection, error = error as &dyn std::error::Error, "projection stopped"),
        }
        self.board.stopped(error.map(Arc::new));
    }

    async fn work(&mut self, mut saved: Vec<Saved>) -> Result<(), Error> {
        loop {
            match self.follow(&saved).await {
                Ok(Next::Anew) => {}
                Ok(Next::Continue | Next::Stop) => return Ok(()),
                // It lost a place, and goes on with the others.
                Err(error) if error.is_fenced() && self.shares() => {}
                Err(error) if error.ends_a_worker() => return Err(error),
                Err(error) => self.board.trouble(Origin::Commit, error.into()),
            }
            match self.begin_patiently().await? {
                Some(stored) => saved = stored,
                None => return Ok(()),
            }
        }
    }

    fn shares(&self) -> bool {
        self.worker.share.is_some()
    }

    /// Gives back what it holds, so that others need not wait for silence.
    pub(super) async fn leave(&mut self) {
        self.heartbeat.stop().await;
        let left = tokio::time::timeout(LEAVE_MAX, self.ledger.leave()).await;
        if let Ok(Err(error)) = left {
            let projection = self.board.projection();
            tracing::debug!(%projection, error = &error as &dyn std::error::Error, "giving the fences back failed");
        }
    }

    /// Does [`Run::begin`] again and again while log or database fail. None when asked to stop.
    async fn begin_patiently(&mut self) -> Result<Option<Vec<Saved>>, Error> {
        let mut pause = Pause::new("beginning at the checkpoints");
        loop {
            let begun = async {
                if self.shares() {
                    let database = self.database.clone();
                    in_limits(&database, "going on with the live build", self.turn_to_live()).await?;
                }
                self.begin().await
            };
            match begun.await {
                Err(error) if !error.ends_a_worker() => {
                    let error = Arc::new(error);
                    self.board.trouble(Origin::Commit, error.clone());
                    let pause = pause.grow(self.board.projection(), &error);
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(None),
                        () = tokio::time::sleep(pause) => {}
                    }
                }
                // It lost another place since it looked, or the read model was replaced.
                Err(error) if error.is_fenced() && self.shares() => {
                    match in_limits(&self.database, "looking for the live build", self.find_live()).await {
                        Ok(None) => return Err(error),
                        Err(other) if other.ends_a_worker() => return Err(other),
                        Ok(Some(_)) | Err(_) => {}
                    }
                    tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(None),
                        () = tokio::time::sleep(Pause::FIRST) => {}
                    }
                }
                begun => return begun.map(Some),
            }
        }
    }

    /// The rows as they stand. What was lost, and what a commit of unknown outcome took, this worker holds no more.
    pub(super) async fn look(&mut self) -> Result<Vec<Saved>, Error> {
        in_limits(&self.database.clone(), "looking at the checkpoints", async {
            let standing = self.ledger.look().await?;
            let lost = self.ledger.drop_lost(&standing);
            if let (Some(place), false) = (lost, self.shares()) {
                return Err(self.ledger.fenced(place));
            }
            self.ledger.give_back(&self.ledger.strays(&standing)).await?;
            Ok(standing.saved)
        })
        .await
    }

    /// Where a rebuild has replaced the build that this worker kept up: goes on with the new one, if it is of the same
    /// version. One of another version it only looks at, until its own is live again.
    async fn turn_to_live(&mut self) -> Result<(), Error> {
        let Some(live) = self.find_live().await? else { return Ok(()) };
        if live == *self.ledger.build() {
            return Ok(());
        }
        let (database, version) = (&self.worker.database, live.version);
        let build = match builds::live(database, &*self.projection).await {
            Err(Error::OtherVersion(_)) => live,
            build => build?,
        };
        let is_ours = build.is_of(&*self.projection);
        if !is_ours {
            let projection = self.board.projection();
            tracing::warn!(%projection, version, "the read model is of another version now: standing by");
        }
        let (places, member) = (self.board.places().clone(), self.ledger.member().clone());
        let member = Member { shares: is_ours && self.shares(), ..member };
        let mut ledger = Ledger::new(database.clone(), build.clone(), places, member);
        ledger.join().await?;
        let heartbeat = Heartbeat::start(database, &build, &self.board, ledger.member(), self.worker.share).await?;
        self.leave().await;
        self.database = build.of(&self.worker.database);
        (self.ledger, self.heartbeat) = (ledger, heartbeat);
        self.regroup().await.map(drop)
    }

    /// The build that is the read model now.
    async fn find_live(&self) -> Result<Option<Build>, Error> {
        builds::look_for_live(&self.worker.database, &self.ledger.build().projection).await
    }

    /// Reads on from the checkpoints and commits batch after batch.
    async fn follow(&mut self, saved: &[Saved]) -> Result<Next, Error> {
        let queue = Arc::new(Queue::new(self.worker.limits));
        let mut readers = self.spawn_readers(&queue, saved); // aborted when this returns
        let mut looked = Instant::now();
        // Whether it is known which aggregates are parked.
        let mut sure = true;
        while !self.is_complete() {
            let batch = tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Ok(Next::Stop),
                Some(ended) = readers.join_next() => return Err(match ended {
                    Ok(error) => self.log_error(error),
                    Err(panic) => self.failed("a reader".into(), panic.into()),
                }),
                () = tokio::time::sleep_until(looked + LOOK_ASKED), if !self.parked.is_empty() => {
                    sure = self.see_to_requests().await?;
                    looked = Instant::now();
                    continue;
                }
                seen = self.heartbeat.changed() => {
                    if !seen {
                        return Err(self.failed("the heartbeat".into(), "it has ended".into()));
                    }
                    let database = self.database.clone();
                    match in_limits(&database, "sharing the partitions out", self.regroup()).await {
                        Ok(false) => continue,
                        Ok(true) => return Ok(Next::Anew),
                        // Half done, maybe.
                        Err(error) if !error.ends_a_worker() => {
                            self.board.trouble(Origin::Commit, error.into());
                            return Ok(Next::Anew);
                        }
                        Err(error) => return Err(error),
                    }
                }
                batch = queue.take(), if sure => batch,
            };
            let began = Instant::now();
            match self.settle(Batch::new(batch), &queue).await? {
                Next::Continue => {}
                end => return Ok(end),
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Ok(Next::Stop),
                () = self.board.yielding().after(began.elapsed()) => {}
            }
        }
        Ok(Next::Stop)
    }

    /// Whether all has been read that was to be.
    fn is_complete(&self) -> bool {
        let Some(until) = &self.extent.until else { return false };
        self.board.read(|notice| notice.progress().iter().zip(until).all(|(at, until)| at.read >= *until))
    }

    fn spawn_readers(&self, queue: &Arc<Queue>, saved: &[Saved]) -> JoinSet<LogError> {
        let mut readers = JoinSet::new();
        let held = self.ledger.held();
        let mut first_place = 0;
        for (index, source) in self.worker.sources.iter().enumerate() {
            let places = first_place..first_place + source.partitions as usize;
            let of_place = |place: usize| (self.board.places()[place].partition, saved[place].checkpoint.clone());
            let checkpoints: Vec<_> = places.clone().filter(|&place| held[place]).map(of_place).collect();
            let reader = SourceReader {
                log: self.worker.log.clone(),
                source: source.clone(),
                index,
                first_place,
                queue: queue.clone(),
                board: self.board.clone(),
                until: self.extent.until.as_ref().map(|until| until[places.clone()].to_vec()),
                selection: self.extent.selection.clone(),
                refused: self.projection.wants_refused(),
            };
            if !checkpoints.is_empty() {
                readers.spawn(reader.run(checkpoints));
            }
            first_place = places.end;
        }
        readers
    }

    /// Tries until the batch is in the database, once: as a whole, or in parts where it fails or takes too long, each of which is
    /// committed by itself. Commands that fail again and again are put aside, with those of their aggregates that come later.
    async fn settle(&mut self, batch: Batch, queue: &Queue) -> Result<Next, Error> {
        let mut pass = Pass::default();
        let mut parts = VecDeque::from(batch.in_parts(self.part_max));
        while let Some(part) = parts.pop_front() {
            match self.settle_part(&part, &parts, &mut pass, queue).await? {
                Settled::Done => self.grow(part.commands()),
                Settled::Divide(commands) => {
                    part.in_parts(Some(commands)).into_iter().rev().for_each(|part| parts.push_front(part));
                }
                Settled::Next(next) => return Ok(next),
            }
        }
        Ok(if pass.is_read_on { Next::Anew } else { Next::Continue })
    }

    /// After so many commands were not too many.
    fn grow(&mut self, commands: usize) {
        if self.part_max.is_some_and(|max| commands >= max) {
            self.part_max = Some(commands * 2).filter(|max| *max < self.worker.limits.events);
        }
    }

    async fn settle_part(
        &mut self,
        part: &Batch,
        rest: &VecDeque<Batch>,
        pass: &mut Pass,
        queue: &Queue,
    ) -> Result<Settled, Error> {
        let mut pause = Pause::new("a batch");
        let mut failures = 0;
        // Why its one command is to be parked.
        let mut reason: Option<Cause> = None;
        loop {
            let began = Instant::now();
            let how = reason.as_ref().map_or(How::Fold, |reason| How::Park(reason, failures));
            let folds = reason.is_none() && !self.all_waits(part);
            let Some(attempt) = self.in_time(self.attempt(part, how)).await else {
                return Ok(Settled::Next(Next::Stop));
            };
            let slow = |cause| Err(Failed::Otherwise(self.failed(part.describe(&self.board), cause)));
            let mut late = attempt.is_err();
            let failed = match attempt.unwrap_or_else(slow) {
                Ok(Attempt::Done(parked)) => {
                    match &parked {
                        Some(_) => pass.parks(),
                        None if folds => pass.succeeds(),
                        None => {}
                    }
                    self.parked.extend(parked);
                    self.settled(part);
                    return Ok(Settled::Done);
                }
                Ok(Attempt::Elsewhere) => None,
                Err(Failed::OnEvents(cause)) => {
                    failures += 1;
                    pass.careful |= failures > self.worker.park_after;
                    if pass.careful && part.commands() > 1 {
                        return Ok(Settled::Divide(part.commands().div_ceil(PARTS)));
                    }
                    // Each command has its own attempts: what fails once may only have met what failed beside it.
                    let used_up = failures > self.worker.park_after;
                    let broken = async {
                        match used_up {
                            true => self.is_broken(part, rest, pass, queue).await,
                            false => Ok(false),
                        }
                    };
                    let broken = tokio::select! {
                        () = self.shutdown.cancelled() => return Ok(Settled::Next(Next::Stop)),
                        broken = broken => broken,
                    };
                    match broken {
                        Ok(false) if used_up => {
                            reason = Some(cause);
                            continue;
                        }
                        Ok(false) => Some((Origin::Events, self.failed(part.describe(&self.board), cause))),
                        Ok(true) => {
                            let events = format!("whatever was tried, and at first on {}", part.describe(&self.board));
                            Some((Origin::Commit, self.failed(events, cause)))
                        }
                        Err(error) => Some((Origin::Commit, error)),
                    }
                }
                Err(Failed::Otherwise(error)) => {
                    late |= is_late(&error) || began.elapsed() > SLOW;
                    Some((Origin::Commit, error))
                }
            };
            if let Some((origin, error)) = failed {
                let error = Arc::new(error);
                self.board.trouble(origin, error.clone());
                let pause = pause.grow(self.board.projection(), &error);
                tokio::select! {
                    () = self.shutdown.cancelled() => return Ok(Settled::Next(Next::Stop)),
                    () = tokio::time::sleep(pause) => {}
                }
            }
            // Whether a failed commit took place, and who else moved the checkpoint, is what the checkpoint says.
            match self.look().await {
                Ok(_) if !self.holds_all_of(part) => return Ok(Settled::Next(Next::Anew)),
                Ok(saved) if part.is_in(&saved) => {
                    // Whether its aggregate was parked then is not known here.
                    let parked = parked::streams(&self.database, self.ledger.build());
                    if let Ok(parked) = in_limits(&self.database, "looking for what is parked", parked).await {
                        self.note_parked(parked);
                        self.settled(part);
                        return Ok(Settled::Done);
                    }
                }
                Ok(saved) if part.comes_next(&saved) => {
                    if late && part.commands() > 1 {
                        let commands = part.commands().div_ceil(PARTS);
                        self.part_max = Some(commands);
                        return Ok(Settled::Divide(commands));
                    }
                    tokio::time::sleep(Pause::FIRST).await;
                }
                Ok(_) => {
                    tracing::warn!(projection = %self.board.projection(), "the database went back: reading again from there");
                    return Ok(Settled::Next(Next::Anew));
                }
                Err(error) if error.is_fenced() => return Err(error),
                Err(_) => {} // tried again, and told, with the part
            }
        }
    }

    /// Whether the projection fails on all events, rather than on those of some aggregates: then nothing is parked. It does not where it
    /// has succeeded on any of this batch since it failed on another aggregate; nor where there are too few aggregates to tell. Else
    /// others are tried, without a commit: the one on which that succeeded last, then the first command of each further aggregate of the
    /// batch, then of each batch that is read behind it, until one succeeds, nothing more is read, or a minute is over. The next time
    /// it is asked, it goes on reading from there.
    async fn is_broken(
        &self,
        part: &Batch,
        rest: &VecDeque<Batch>,
        pass: &mut Pass,
        queue: &Queue,
    ) -> Result<bool, Error> {
        let others = self.first_commands(rest.iter().flat_map(|batch| commands(&batch.events)), part);
        if pass.works || pass.parked + 1 + others.len() <= PARKED_UNSEEN_MAX {
            return Ok(false);
        }
        let until = Instant::now() + TRY_OUT_MAX;
        if let Some(command) = pass.succeeded_on.take()
            && self.succeeds_on(&command).await?
        {
            pass.succeeds();
            pass.succeeded_on = Some(command);
            return Ok(false);
        }
        let mut broken = self.fails_on_all(&others, until, pass).await?;
        while broken.is_none()
            && let Ok(chunks) = tokio::time::timeout(NOTHING_MORE, queue.take()).await
        {
            pass.is_read_on = true;
            let ahead = Batch::new(chunks);
            let others = self.first_commands(commands(&ahead.events), part);
            broken = self.fails_on_all(&others, until, pass).await?;
        }
        Ok(broken.unwrap_or(true))
    }

    /// False as soon as it succeeds on one of these commands, true when the time is over; none where it failed on all of them.
    async fn fails_on_all(
        &self,
        commands: &[&[Recorded]],
        until: Instant,
        pass: &mut Pass,
    ) -> Result<Option<bool>, Error> {
        for command in commands {
            if Instant::now() > until {
                return Ok(Some(true));
            }
            if self.succeeds_on(command).await? {
                pass.succeeds();
                pass.succeeded_on = Some(command.to_vec());
                return Ok(Some(false));
            }
        }
        Ok(None)
    }

    /// The first command of each aggregate that is neither parked nor that of this part.
    fn first_commands<'a>(&self, commands: impl Iterator<Item = &'a [Recorded]>, part: &Batch) -> Vec<&'a [Recorded]> {
        let mut seen: HashSet<&'a StreamId> = HashSet::new();
        let fails = part.events.first().map(|event| &event.envelope.stream);
        let is_new = |command: &&'a [Recorded]| {
            let command: &'a [Recorded] = command;
            let stream = &command[0].envelope.stream;
            Some(stream) != fails && !self.parked.contains(stream) && seen.insert(stream)
        };
        commands.filter(is_new).collect()
    }

    /// Whether the projection succeeds on a command, which changes nothing.
    async fn succeeds_on(&self, command: &[Recorded]) -> Result<bool, Error> {
        let tried = async {
            let mut tx = self.database.begin().await?;
            let projected = self.project(&mut tx, command).await;
            let _ = tx.rollback().await; // or it is closed
            match projected {
                Ok(()) => Ok(true),
                Err(cause) if is_the_databases(&cause) => Err(self.failed(describe(command), cause)),
                Err(_) => Ok(false),
            }
        };
        in_limits(&self.database, "trying events out", tried).await
    }

    /// Whether all that a part holds is put aside, so that nothing is folded in.
    fn all_waits(&self, part: &Batch) -> bool {
        part.events.iter().all(|event| self.parked.contains(&event.envelope.stream))
    }

    /// Whether it holds the places of a batch still.
    fn holds_all_of(&self, batch: &Batch) -> bool {
        let held = self.ledger.held();
        batch.chunks.iter().all(|chunk| held[chunk.place])
    }

    /// Gives a piece of work its time, or tells that it took longer; none when the worker was asked to stop and it did not
    /// end soon.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<Result<T, Cause>> {
        let stop = async {
            self.shutdown.cancelled().await;
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            biased;
            done = tokio::time::timeout(ATTEMPT_MAX, work) => {
                Some(done.map_err(|_| format!("it took longer than {ATTEMPT_MAX:?}").into()))
            }
            () = stop => None,
        }
    }

    /// Notes which aggregates wait at the places that it holds.
    pub(super) fn note_parked(&mut self, parked: Vec<StreamId>) {
        let held = self.ledger.held();
        let here = |stream: &StreamId| self.board.place_of_stream(stream).is_some_and(|place| held[place]);
        self.parked = parked.into_iter().filter(here).collect();
    }

    /// Rows and checkpoints in one transaction.
    async fn attempt(&self, part: &Batch, how: How<'_>) -> Result<Attempt, Failed> {
        if part.moves.is_empty() {
            return Ok(Attempt::Done(None));
        }
        let mut tx = self.database.begin().await?;
        if !self.ledger.advance(&mut tx, &part.moves).await? {
            tx.rollback().await?;
            return Ok(Attempt::Elsewhere);
        }
        quarantine::insert(&mut tx, self.board.places(), &part.chunks).await?;
        self.refused(&mut tx, part).await?;
        let parked = match how {
            How::Fold => self.fold(&mut tx, part).await.map(|()| None)?,
            How::Park(reason, failures) => self.park(&mut tx, &part.events, reason, failures).await?,
        };
        tx.commit().await?;
        if let Some(stream) = &parked {
            let projection = self.board.projection();
            tracing::error!(%projection, %stream, "parked: its events wait until it is seen to, others go on");
        }
        Ok(Attempt::Done(parked))
    }

    async fn refused(&self, tx: &mut Tx, batch: &Batch) -> Result<(), Failed> {
        let commands: Vec<_> = batch.chunks.iter().flat_map(|chunk| chunk.refused.iter().cloned()).collect();
        if commands.is_empty() {
            return Ok(());
        }
        let written = AssertUnwindSafe(self.projection.refused(tx, &commands)).catch_unwind().await;
        let written = written.unwrap_or_else(|panic| Err(panicked(&*panic)));
        written.map_err(|cause| Failed::Otherwise(self.failed(batch.describe(&self.board), cause)))
    }

    async fn fold(&self, tx: &mut Tx, part: &Batch) -> Result<(), Failed> {
        let all = &part.events;
        let waits = |event: &Recorded| self.parked.contains(&event.envelope.stream);
        let sorted = |cause: Cause| match is_the_databases(&cause) {
            true => Failed::Otherwise(self.failed(part.describe(&self.board), cause)),
            false => Failed::OnEvents(cause),
        };
        if self.parked.is_empty() || !all.iter().any(waits) {
            return self.project(tx, all).await.map_err(sorted);
        }
        let (waiting, going): (Vec<Recorded>, Vec<Recorded>) = all.iter().cloned().partition(waits);
        self.put_aside(tx, &waiting).await?;
        self.project(tx, &going).await.map_err(sorted)
    }

    /// Parks the aggregate of a command, unless the command was left out of another build: then it is left out of this one. Tells the
    /// aggregate that is parked.
    async fn park(
        &self,
        tx: &mut Tx,
        command: &[Recorded],
        reason: &Cause,
        failures: u32,
    ) -> Result<Option<StreamId>, Error> {
        let build = self.ledger.build();
        if parked::skip_again(tx, build, &self.with_topics(command), reason).await? {
            return Ok(None);
        }
        let Some(stream) = command.first().map(|event| event.envelope.stream.clone()) else { return Ok(None) };
        parked::park(tx, build, &stream, reason, failures).await?;
        self.put_aside(tx, command).await?;
        Ok(Some(stream))
    }

    /// Folds in the events of one command, or none of them: then tells why.
    pub(super) async fn fold_command(&self, tx: &mut Tx, command: &[Recorded]) -> Result<Option<Cause>, Error> {
        tx.savepoint().await?;
        match self.project(tx, command).await {
            Ok(()) => tx.release().await.map(|()| None),
            Err(cause) if is_the_databases(&cause) => Err(self.failed(describe(command), cause)),
            Err(cause) => tx.undo().await.map(|()| Some(cause)),
        }
    }

    async fn put_aside(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), Error> {
        parked::wait(tx, self.ledger.build(), &self.with_topics(events)).await
    }

    fn with_topics<'a>(&self, events: &'a [Recorded]) -> Vec<(&'a Recorded, Arc<str>)> {
        let topic = |event: &Recorded| {
            let of_it = |place: &&Place| place.category == event.envelope.stream.category;
            let place = self.board.places().iter().find(of_it);
            place.expect("an event comes from one of the places").topic.clone()
        };
        events.iter().map(|event| (event, topic(event))).collect()
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), Cause> {
        if events.is_empty() {
            return Ok(());
        }
        let projected = AssertUnwindSafe(self.projection.project(tx, events)).catch_unwind().await;
        let projected = projected.unwrap_or_else(|panic| Err(panicked(&*panic)));
        match (projected, tx.passed_over()) {
            (Err(cause), _) if is_the_databases(&cause) => Err(cause),
            // Whatever the projection makes of the error: it is not the events'.
            (_, Some(error)) if error.is_the_databases() => Err(error.into()),
            (Ok(()), Some(error)) => Err(error.into()),
            (projected, _) => projected,
        }
    }

    fn settled(&self, batch: &Batch) {
        self.board.parked(self.parked.len());
        batch.chunks.iter().for_each(|chunk| self.board.backlog().handled(chunk.place, chunk.read));
        self.board.moved(!batch.moves.is_empty(), |progress| {
            for chunk in &batch.chunks {
                let at = &mut progress[chunk.place];
                at.next = chunk.to.next;
                at.checkpoint = chunk.to.clone();
                at.read = chunk.read;
            }
            for step in &batch.moves {
                let at = &mut progress[step.place];
                at.events += step.events as u64;
                at.void += step.void;
                at.quarantined += step.quarantined as u64;
            }
        });
    }

    pub(super) fn log_error(&self, source: LogError) -> Error {
        Error::Log { projection: self.board.projection().clone(), source }
    }

    pub(super) fn failed(&self, events: String, source: Cause) -> Error {
        Error::Projection { projection: self.board.projection().clone(), events, source }
    }
}

/// Gives work outside of an attempt its time: on a connection that died it would keep the worker, and what it holds, for
/// as long as the connection, while its beat goes on.
pub(super) async fn in_limits<T>(
    database: &Database,
    doing: &str,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let done = tokio::time::timeout(ATTEMPT_MAX, work).await;
    done.unwrap_or_else(|_| Err(database.unavailable(doing, format!("it took longer than {ATTEMPT_MAX:?}"))))
}

/// The events of one command after the other.
pub(super) fn commands(events: &[Recorded]) -> impl Iterator<Item = &[Recorded]> {
    events.chunk_by(|one, next| {
        let (one, next) = (&one.envelope, &next.envelope);
        one.command_id == next.command_id && one.stream == next.stream
    })
}

/// Whether a projection failed because the database did, whatever the events are.
fn is_the_databases(cause: &Cause) -> bool {
    let first = &**cause as &(dyn std::error::Error + 'static);
    std::iter::successors(Some(first), |error| error.source())
        .any(|error| error.downcast_ref().is_some_and(Error::is_the_databases))
}

fn describe(command: &[Recorded]) -> String {
    let event = &command[0].envelope;
    format!("{} events of {} from version {} on", command.len(), event.stream, event.version)
}

/// What goes into one transaction.
struct Batch {
    /// Of each place, without the events.
    chunks: Vec<Chunk>,
    moves: Vec<Move>,
    events: Vec<Recorded>,
}

impl Batch {
    fn new(mut chunks: Vec<Chunk>) -> Self {
        let mut moves = Vec::with_capacity(chunks.len());
        let mut events = Vec::new();
        for chunk in &mut chunks {
            if chunk.moves() {
                moves.push(Move {
                    place: chunk.place,
                    from: chunk.from,
                    to: chunk.to.clone(),
                    events: chunk.events.len(),
                    void: chunk.void,
                    quarantined: chunk.quarantined.len(),
                });
            }
            events.append(&mut chunk.events);
        }
        Self { chunks, moves, events }
    }

    /// How many commands it has: the smallest parts of it.
    fn commands(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.ends.len().max(1)).sum()
    }

    /// In parts of so many commands, each of which ends where commands end.
    fn in_parts(mut self, max: Option<usize>) -> Vec<Batch> {
        let Some(max) = max.filter(|max| *max < self.commands()) else { return vec![self] };
        let mut events = self.events.into_iter();
        for chunk in &mut self.chunks {
            let count = chunk.ends.last().map_or(0, |end| end.events);
            chunk.events.extend(events.by_ref().take(count));
        }
        let mut commands = self.chunks.into_iter().flat_map(Chunk::into_commands).peekable();
        let mut parts = Vec::new();
        while commands.peek().is_some() {
            let mut chunks: Vec<Chunk> = Vec::new();
            for command in commands.by_ref().take(max.max(1)) {
                match chunks.last_mut().filter(|last| last.place == command.place) {
                    Some(last) => last.extend(command),
                    None => chunks.push(command),
                }
            }
            parts.push(Batch::new(chunks));
        }
        parts
    }

    fn is_in(&self, saved: &[Saved]) -> bool {
        // A batch of foreign and void records inside an incomplete command moves nothing: it comes again, which is harmless.
        let advances = self.moves.iter().any(|step| step.to.next != step.from);
        advances && self.moves.iter().all(|step| saved[step.place].checkpoint == step.to)
    }

    fn comes_next(&self, saved: &[Saved]) -> bool {
        self.moves.iter().all(|step| saved[step.place].checkpoint.next == step.from)
    }

    /// The events, for an error's message.
    fn describe(&self, board: &Board) -> String {
        let places = self.moves.iter().map(|step| {
            let place = &board.places()[step.place];
            format!("{}/{} offsets {} to {}", place.topic, place.partition, step.from, step.to.next)
        });
        let mut places: Vec<_> = places.take(4).collect();
        if self.moves.len() > places.len() {
            places.push(format!("{} more partitions", self.moves.len() - places.len()));
        }
        format!("{} events of {}", self.events.len(), places.join(", "))
    }
}

/// A panic's message.
fn panicked(panic: &(dyn std::any::Any + Send)) -> Cause {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    format!("it panicked: {}", text.unwrap_or("without a message")).into()
}
