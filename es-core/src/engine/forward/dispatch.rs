//! The owner's side of forwarding: takes the commands of one partition of the commands topic to the owner in this
//! process, in their order, and sends the answers back. What was not decided when the partition moves away is left for
//! the next owner: the offset that is committed is that of the first command without an answer.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::domain::aggregate::{Aggregate, Apply, Handle};
use crate::domain::clock::Clock;
use crate::domain::error::NotDone;
use crate::domain::ids::AggregateKey;
use crate::domain::text::{Seldom, short};
use crate::engine::budget::{Budget, Held};
use crate::engine::forward::Route;
use crate::engine::forward::lane::{Ending, Lane};
use crate::engine::forward::wire::{Answered, Forwarded, Malformed, Outcome, ReplyTo, Unreadable};
use crate::engine::owner_state::OwnerState;
use crate::engine::partition::Partition;
use crate::engine::round::{Caller, Job, Reply};
use crate::log::group::{Group, Member, Place};
use crate::log::partition::partition_of;
use crate::log::reader::record_at;
use crate::log::{Log, LogError, LogReader, StoredRecord};

/// How often the offset to go on from is committed.
const COMMIT_EVERY: Duration = Duration::from_millis(500);

/// How long the last answers may take to be sent when the partition moves away.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// What a dispatcher works with.
pub(crate) struct Dispatcher<A: Aggregate> {
    /// The name of this process.
    pub(crate) node: Arc<str>,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) group: Arc<dyn Group>,
    pub(crate) member: Arc<dyn Member>,
    pub(crate) route: Route,
    pub(crate) partition: u32,
    pub(crate) partitions: u32,
    pub(crate) inbox: mpsc::Sender<Job<A>>,
    /// The partition that it dispatches to.
    pub(crate) at: Partition,
    pub(crate) clock: Arc<dyn Clock>,
    /// Bytes of the commands that wait for owners.
    pub(crate) budget: Budget,
    /// Commands that may wait for the owner at once.
    pub(crate) in_flight_max: usize,
    /// How long a command lives that does not say so, in milliseconds.
    pub(crate) lifetime_ms: i64,
    pub(crate) window: Window,
    /// Of warnings about records that are no commands.
    pub(crate) seldom: Seldom,
}

/// When a command of the topic may be decided, by its record's timestamp. Together both are shorter than its id is
/// remembered: whoever reads it again, because the group lost its offset or the broker kept it for longer, finds that it
/// was decided or that it has expired, whatever the sender wrote.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    /// How long it lives at most.
    pub(crate) lifetime_max_ms: i64,
    /// How far the timestamp may be ahead of the clock.
    pub(crate) ahead_max_ms: i64,
}

impl Window {
    /// When it expires. One from the future has expired: it may not live on until the clock gets there, so whoever sent it
    /// is told to send it again.
    fn expires_at_ms(self, record_ms: i64, stated_ms: i64, now_ms: i64) -> i64 {
        if record_ms > now_ms.saturating_add(self.ahead_max_ms) {
            return i64::MIN;
        }
        stated_ms.min(record_ms.saturating_add(self.lifetime_max_ms))
    }
}

/// Why a run over the topic ended.
enum End {
    /// The partition moves away.
    Stopped,
    /// The owner could not decide a command now: from it on, all are taken again.
    Again,
}

/// An answer under way.
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What came of the command at an offset.
struct Answer {
    offset: u64,
    /// It was decided or passed over; else it is taken again.
    done: bool,
    /// For what was passed over.
    untold: Option<Telling>,
}

impl Answer {
    fn of(offset: u64, done: bool) -> Self {
        Self { offset, done, untold: None }
    }
}

/// A commit under way; tells the place where it was taken.
type Committing = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

/// An answer that is told once nobody takes the command from the topic again.
type Telling = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<A: Handle + Apply> Dispatcher<A> {
    /// Works until stopped, then commits what is done with.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut progress = Progress::default();
        loop {
            let lane = Arc::new(Lane::default());
            let ended = {
                let _ending = Ending(lane.clone());
                self.run_once(&mut progress, &lane, &stop).await
            };
            progress.passed_over |= lane.has_passed();
            match ended {
                Ok(End::Stopped) => break,
                Ok(End::Again) => {}
                Err(error) => {
                    let (topic, partition) = (&self.route.commands, self.partition);
                    tracing::warn!(%topic, partition, error = &error as &dyn std::error::Error, "taking commands");
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep(Duration::from_millis(50)) => {}
            }
        }
        if let Some(place) = progress.to_commit()
            && let Some(committed) = self.commit(place).await
        {
            progress.committed(committed);
            let last = progress.telling.collect::<()>();
            let _ = tokio::time::timeout(LAST_ANSWERS, last).await;
        }
    }

    async fn run_once(
        &mut self,
        progress: &mut Progress,
        lane: &Arc<Lane>,
        stop: &CancellationToken,
    ) -> Result<End, LogError> {
        let serving = self.at.status.wait_for(|state| *state == OwnerState::Serving);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            serving = serving => if serving.is_err() { return Ok(End::Stopped) },
        }
        let mut tail = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            tail = self.start(progress) => match tail? {
                Some(tail) => tail,
                None => return Ok(End::Again),
            },
        };
        let mut answers: FuturesUnordered<Answering> = FuturesUnordered::new();
        let mut again = false;
        let mut commit_due = tokio::time::interval(COMMIT_EVERY);
        // Beside the work: the group may be slow to answer.
        let mut committing: Option<Committing> = None;
        loop {
            if again && answers.is_empty() {
                return Ok(End::Again);
            }
            let room = !again && answers.len() + progress.untold() < self.in_flight_max;
            tokio::select! {
                biased;
                Some(answer) = answers.next() => {
                    if !progress.note(answer) { again = true }
                }
                Some(()) = progress.telling.next() => {}
                () = stop.cancelled() => {
                    // The owner has answered what it had, save what is in doubt: the next owner answers that.
                    let rest = async {
                        while let Some(answer) = answers.next().await {
                            progress.note(answer);
                        }
                    };
                    let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
                    return Ok(End::Stopped);
                }
                batch = tail.next(), if room => {
                    let batch = batch?;
                    for stored in batch.records {
                        if lane.has_ended() {
                            break; // it is taken again
                        }
                        progress.began(&stored);
                        let taken = tokio::select! {
                            biased;
                            () = stop.cancelled() => break,
                            taken = self.take(stored, lane, progress) => taken,
                        };
                        answers.push(taken);
                    }
                }
                Some(committed) = async { Some(committing.as_mut()?.await) } => {
                    committing = None;
                    if let Some(committed) = committed {
                        lane.committed(committed.offset);
                        progress.committed(committed);
                    }
                }
                _ = commit_due.tick(), if committing.is_none() => {
                    committing = progress.to_commit().map(|place| self.commit(place));
                }
            }
        }
    }

    /// Opens the topic where the next run begins; `None` where that must not be yet.
    async fn start(&self, progress: &mut Progress) -> Result<Option<Box<dyn LogReader>>, LogError> {
        // What was passed over must not be decided after what is taken now: it is behind what is committed, or nobody
        // goes on.
        if progress.passed_over
            && let Some(place) = progress.to_commit()
        {
            let Some(committed) = self.commit(place).await else { return Ok(None) };
            progress.committed(committed);
        }
        progress.passed_over = false;
        let place = match progress.first_undone() {
            Some(place) => Some(place),
            None => self.member.committed(self.partition).await?,
        };
        let bounds = self.log.bounds(&self.route.commands, self.partition).await?;
        // Commands are deleted after a while: an offset before the first is no loss.
        let from = match place {
            Some(place) if self.is_of_this_topic(place, &bounds).await? => place.offset.max(bounds.start),
            Some(Place { offset, .. }) => {
                let (topic, partition, end) = (&self.route.commands, self.partition, bounds.end);
                tracing::warn!(%topic, partition, offset, end, "the topic was made anew: its commands are taken from the first");
                (progress.committed, progress.rejected) = (None, None);
                bounds.start
            }
            None => bounds.start,
        };
        let tail = self.log.reader(&self.route.commands, &[(self.partition, from)]).await?;
        progress.restart(place.filter(|place| place.offset == from).unwrap_or(Place { offset: from, after: None }));
        Ok(Some(tail))
    }

    /// Whether a place is of the topic that there is now, or of one that was made anew since: then it is behind the end, or
    /// another record is before it. What is there now is younger, and a command that was decided is known by its id.
    async fn is_of_this_topic(&self, place: Place, bounds: &Range<u64>) -> Result<bool, LogError> {
        let Place { offset, after } = place;
        if offset <= bounds.start || offset > bounds.end {
            return Ok(offset <= bounds.end);
        }
        let Some(after) = after else { return Ok(true) };
        let found = record_at(self.log.as_ref(), &self.route.commands, self.partition, offset - 1).await?;
        Ok(found.is_some_and(|found| Place::mark(&found.record) == after))
    }

    /// Hands one command to the owner; the future is its answer's.
    async fn take(&self, stored: StoredRecord, lane: &Arc<Lane>, progress: &mut Progress) -> Answering {
        let offset = stored.offset;
        let held = self.budget.hold(stored.record.size()).await;
        let (job, answer, back) = match self.job(stored, lane, held) {
            Ok(taken) => taken,
            Err(rejected) => {
                return self.reject(offset, *rejected, lane, progress);
            }
        };
        if self.inbox.send(job).await.is_err() {
            return Box::pin(std::future::ready(Answer::of(offset, false))); // the owner is gone
        }
        let (partition, node, replier) = (self.partition, self.node.clone(), self.replier());
        let counters = self.at.counters.clone();
        Box::pin(async move {
            let answer = answer.await.unwrap_or(Reply::NotDone(NotDone::Stopped));
            match &answer {
                Reply::NotDone(NotDone::Expired) => {
                    counters.expired.fetch_add(1, Ordering::Relaxed);
                }
                Reply::NotDone(_) => return Answer::of(offset, false),
                _ => {}
            }
            counters.forwarded.fetch_add(1, Ordering::Relaxed);
            let outcome = Outcome::of(&answer, partition, &node);
            if matches!(answer, Reply::Parked(_)) {
                // To another release it may not be: "nothing was done" is told once none takes the command any more.
                let untold: Telling = Box::pin(async move { replier.send(&back, outcome).await });
                return Answer { offset, done: true, untold: Some(untold) };
            }
            replier.send(&back, outcome).await;
            Answer::of(offset, true)
        })
    }

    /// A command that is not handed to the owner. That it is not valid is told once it is certain that nobody, of another
    /// release perhaps, takes it from the topic again. That it is not known here is no final word, and told at once.
    fn reject(&self, offset: u64, rejected: Rejected, lane: &Lane, progress: &mut Progress) -> Answering {
        let Rejected { back, reason, outcome } = rejected;
        let (topic, partition, key) = (&self.route.commands, self.partition, short(&back.aggregate));
        if progress.rejected.is_none_or(|before| offset > before) {
            progress.rejected = Some(offset); // it may be taken again
            self.at.counters.rejected.fetch_add(1, Ordering::Relaxed);
            if matches!(outcome, Outcome::Misrouted { .. }) {
                self.at.counters.misrouted.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(left_out) = self.seldom.note() {
                tracing::warn!(%topic, partition, offset, %key, reason, left_out, "a record that can't be taken for a command");
            }
        }
        if let Ok(id) = AggregateKey::new(&back.aggregate) {
            lane.pass(id, offset);
        }
        let replier = self.replier();
        if matches!(outcome, Outcome::NotKnown { .. }) {
            return Box::pin(async move {
                replier.send(&back, outcome).await;
                Answer::of(offset, true)
            });
        }
        let untold: Telling = Box::pin(async move { replier.send(&back, outcome).await });
        Box::pin(std::future::ready(Answer { offset, done: true, untold: Some(untold) }))
    }

    fn job(&self, stored: StoredRecord, lane: &Arc<Lane>, held: Held) -> Result<Taken<A>, Box<Rejected>> {
        let forwarded = Forwarded::decode::<A>(&stored.record, self.lifetime_ms).map_err(|malformed| {
            let Malformed { reason, key, command_id, reply_to } = malformed;
            let back = Back { aggregate: key, command_id: command_id.unwrap_or_default(), reply_to };
            Box::new(Rejected { back, outcome: Outcome::Invalid { reason: reason.clone() }, reason })
        })?;
        let (aggregate, command_id) = (forwarded.id.to_string(), forwarded.metadata.command_id.to_string());
        let back = Back { aggregate, command_id, reply_to: forwarded.reply_to.clone() };
        if let Some(reason) = self.misrouted(&forwarded.id) {
            return Err(Box::new(Rejected { back, outcome: Outcome::Misrouted { reason: reason.clone() }, reason }));
        }
        let (command, hash) = match forwarded.command::<A>() {
            Ok(command) => command,
            Err(Unreadable::Invalid(reason)) => {
                return Err(Box::new(Rejected { back, outcome: Outcome::Invalid { reason: reason.clone() }, reason }));
            }
            Err(Unreadable::NotKnown(reason)) => {
                let reason = match &self.route.release {
                    Some(release) => format!("this process is of release {release}; {reason}"),
                    None => reason,
                };
                let outcome = Outcome::NotKnown { reason: reason.clone(), node: self.node.to_string() };
                return Err(Box::new(Rejected { back, outcome, reason }));
            }
        };
        let (caller, answer) = Caller::in_lane(lane.place(stored.offset), held);
        let Forwarded { id, metadata, expires_at_ms: stated_ms, .. } = forwarded;
        let expires_at_ms = self.window.expires_at_ms(stored.record.timestamp_ms, stated_ms, self.clock.now_ms());
        Ok((Job { id, command, hash, metadata, is_fresh: false, expires_at_ms, caller }, answer, back))
    }

    fn misrouted(&self, id: &AggregateKey) -> Option<String> {
        let home = partition_of(id, self.partitions);
        let (topic, here) = (&self.route.commands, self.partition);
        (home != here).then(|| {
            format!(
                "aggregate {id} lives in partition {home}, the command came to partition {here} of {topic}: send it \
                 with the partitioner murmur2 (librdkafka: partitioner=murmur2_random)"
            )
        })
    }

    fn replier(&self) -> Replier {
        let (group, clock) = (self.group.clone(), self.clock.clone());
        Replier { group, clock, topic: self.route.replies.clone(), partitions: self.partitions }
    }

    /// Tells the place where the group took it. Where it did not, whoever takes the commands again finds that they were
    /// decided.
    fn commit(&self, place: Place) -> Committing {
        let (member, partition) = (self.member.clone(), self.partition);
        Box::pin(async move {
            let committed = member.commit(partition, place).await;
            if let Err(error) = &committed {
                tracing::debug!(error = error as &dyn std::error::Error, "committing commands");
            }
            committed.is_ok_and(|taken| taken).then_some(place)
        })
    }
}

/// A command as the owner takes it, its answer, and the way back.
type Taken<A> = (Job<A>, oneshot::Receiver<Reply>, Back);

/// What is needed of a command to answer it.
struct Back {
    aggregate: String,
    command_id: String,
    reply_to: Option<ReplyTo>,
}

/// A command that is not handed to the owner, and what it is answered.
struct Rejected {
    back: Back,
    reason: String,
    outcome: Outcome,
}

struct Replier {
    group: Arc<dyn Group>,
    clock: Arc<dyn Clock>,
    topic: Arc<str>,
    partitions: u32,
}

impl Replier {
    async fn send(&self, back: &Back, outcome: Outcome) {
        let Some(to) = back.reply_to.as_ref().filter(|to| to.partition < self.partitions) else { return };
        let answered = Answered::new(&back.aggregate, &back.command_id, &to.request, outcome);
        if let Err(error) = self.group.send(&self.topic, to.partition, answered.encode(self.clock.now_ms())).await {
            let (topic, command_id) = (&self.topic, &back.command_id);
            tracing::warn!(%topic, command_id, error = &error as &dyn std::error::Error, "an answer could not be sent");
        }
    }
}

/// Which commands are done with, in the order of their offsets.
#[derive(Default)]
struct Progress {
    under_way: VecDeque<UnderWay>,
    /// The place after the last record read.
    next: Option<Place>,
    committed: Option<Place>,
    /// Answers to commands that were passed over, in the order of their offsets.
    untold: VecDeque<(u64, Telling)>,
    /// Those that are being told.
    telling: FuturesUnordered<Telling>,
    /// The last record that was counted as no command.
    rejected: Option<u64>,
    /// Something was answered without being decided that is not behind what is committed.
    passed_over: bool,
}

/// A command that was read, and perhaps those behind it.
struct UnderWay {
    place: Place,
    done: bool,
}

impl Progress {
    fn restart(&mut self, from: Place) {
        self.under_way.clear();
        self.next = Some(from);
        self.untold.retain(|(offset, _)| *offset < from.offset); // what is taken again is answered again
    }

    fn began(&mut self, stored: &StoredRecord) {
        let place = self.next.filter(|next| next.offset == stored.offset);
        let place = place.unwrap_or(Place { offset: stored.offset, after: None });
        self.under_way.push_back(UnderWay { place, done: false });
        self.next = Some(Place { offset: stored.offset + 1, after: Some(Place::mark(&stored.record)) });
    }

    /// Tells whether the command is done with.
    fn note(&mut self, answer: Answer) -> bool {
        let Answer { offset, done, untold } = answer;
        if let Some(untold) = untold {
            let place = self.untold.partition_point(|(before, _)| *before < offset);
            self.untold.insert(place, (offset, untold));
        }
        if done {
            self.done(offset);
        }
        done
    }

    fn done(&mut self, offset: u64) {
        if let Ok(found) = self.under_way.binary_search_by_key(&offset, |one| one.place.offset) {
            self.under_way[found].done = true;
        }
        while self.under_way.front().is_some_and(|one| one.done) {
            self.under_way.pop_front();
        }
    }

    fn untold(&self) -> usize {
        self.untold.len() + self.telling.len()
    }

    /// The group took this place; these answers may be told now.
    fn committed(&mut self, committed: Place) {
        self.committed = Some(committed);
        let told = self.untold.partition_point(|(offset, _)| *offset < committed.offset);
        self.telling.extend(self.untold.drain(..told).map(|(_, telling)| telling));
    }

    fn first_undone(&self) -> Option<Place> {
        self.under_way.front().map(|one| one.place).or(self.next)
    }

    fn to_commit(&self) -> Option<Place> {
        let is_committed = |place: &Place| self.committed.is_some_and(|committed| committed.offset == place.offset);
        self.first_undone().filter(|place| !is_committed(place))
    }
}
