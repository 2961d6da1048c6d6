//! The owner's side of forwarding: takes the commands of one partition of the commands topic to the owner in this
//! process, in their order, and sends the answers back. What was not decided when the partition moves away is left for
//! the next owner: the offset that is committed is that of the first command without an answer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::aggregate::{Aggregate, Apply, Handle};
use crate::clock::Clock;
use crate::error::NotDone;
use crate::forward::Route;
use crate::forward::wire::{Answered, Forwarded, Malformed, Outcome, ReplyTo, Unreadable};
use crate::group::{Group, Member};
use crate::ids::AggregateKey;
use crate::log::{Log, LogError, LogReader, StoredRecord};
use crate::owner::{Counters, OwnerState};
use crate::partition::partition_of;
use crate::round::{Job, Reply};

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
    pub(crate) status: watch::Receiver<OwnerState>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Commands that may wait for the owner at once.
    pub(crate) in_flight_max: usize,
    /// How long a command lives that does not say so, in milliseconds.
    pub(crate) lifetime_ms: i64,
}

/// Why a run over the topic ended.
enum End {
    /// The partition moves away.
    Stopped,
    /// The owner could not decide a command now: from it on, all are taken again.
    Again,
}

/// An answer under way; tells the command's offset, and whether it is done with.
type Answering = Pin<Box<dyn Future<Output = (u64, bool)> + Send>>;

/// A commit under way; tells the offset where it was taken.
type Committing = Pin<Box<dyn Future<Output = Option<u64>> + Send>>;

impl<A: Handle + Apply> Dispatcher<A> {
    /// Works until stopped, then commits what is done with.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut progress = Progress::default();
        loop {
            match self.run_once(&mut progress, &stop).await {
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
        if let Some(offset) = progress.to_commit() {
            self.commit(offset).await;
        }
    }

    async fn run_once(&mut self, progress: &mut Progress, stop: &CancellationToken) -> Result<End, LogError> {
        let serving = self.status.wait_for(|state| *state == OwnerState::Serving);
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            serving = serving => if serving.is_err() { return Ok(End::Stopped) },
        }
        let mut tail = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(End::Stopped),
            tail = self.start(progress) => tail?,
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
            let room = !again && answers.len() < self.in_flight_max;
            tokio::select! {
                biased;
                Some((offset, done)) = answers.next() => {
                    if done { progress.done(offset) } else { again = true }
                }
                () = stop.cancelled() => {
                    // The owner has answered what it had, save what is in doubt: the next owner answers that.
                    let rest = async {
                        while let Some((offset, done)) = answers.next().await {
                            if done {
                                progress.done(offset);
                            }
                        }
                    };
                    let _ = tokio::time::timeout(LAST_ANSWERS, rest).await;
                    return Ok(End::Stopped);
                }
                batch = tail.next(), if room => {
                    let batch = batch?;
                    for stored in batch.records {
                        progress.began(stored.offset);
                        let answering = self.take(stored).await;
                        answers.push(answering);
                    }
                    progress.passed(batch.next);
                }
                Some(committed) = async { Some(committing.as_mut()?.await) } => {
                    committing = None;
                    progress.committed = committed.or(progress.committed);
                }
                _ = commit_due.tick(), if committing.is_none() => {
                    committing = progress.to_commit().map(|offset| self.commit(offset));
                }
            }
        }
    }

    /// Opens the topic where the next run begins.
    async fn start(&self, progress: &mut Progress) -> Result<Box<dyn LogReader>, LogError> {
        let bounds = self.log.bounds(&self.route.commands, self.partition).await?;
        let from = match progress.first_undone() {
            Some(offset) => offset,
            None => self.member.committed(self.partition).await?.unwrap_or(bounds.start),
        };
        // Commands are deleted after a while, and a topic may be made anew: an offset outside is no loss of events.
        let from = from.clamp(bounds.start, bounds.end);
        let tail = self.log.reader(&self.route.commands, &[(self.partition, from)]).await?;
        progress.restart(from);
        Ok(tail)
    }

    /// Hands one command to the owner; the future is its answer's.
    async fn take(&self, stored: StoredRecord) -> Answering {
        let offset = stored.offset;
        match self.job(&stored) {
            Ok((job, answer, forwarded)) => {
                if self.inbox.send(job).await.is_err() {
                    return Box::pin(std::future::ready((offset, false))); // the owner is gone
                }
                let (partition, reply) = (self.partition, self.replier());
                let counters = self.counters.clone();
                Box::pin(async move {
                    let answer = answer.await.unwrap_or(Reply::NotDone(NotDone::Stopped));
                    match &answer {
                        Reply::NotDone(NotDone::Expired) => {
                            counters.expired.fetch_add(1, Ordering::Relaxed);
                        }
                        Reply::NotDone(_) => return (offset, false),
                        _ => {}
                    }
                    counters.forwarded.fetch_add(1, Ordering::Relaxed);
                    let (id, command_id) = (forwarded.id.as_str(), forwarded.metadata.command_id.as_str());
                    reply.send(forwarded.reply_to.as_ref(), id, command_id, Outcome::of(&answer, partition)).await;
                    (offset, true)
                })
            }
            Err(rejected) => {
                let (malformed, outcome) = *rejected;
                let (topic, partition) = (&self.route.commands, self.partition);
                let (key, reason) = (&malformed.key, &malformed.reason);
                tracing::warn!(%topic, partition, offset, key, reason, "a record that can't be taken for a command");
                self.counters.rejected.fetch_add(1, Ordering::Relaxed);
                let reply = self.replier();
                Box::pin(async move {
                    let command_id = malformed.command_id.unwrap_or_default();
                    reply.send(malformed.reply_to.as_ref(), &malformed.key, &command_id, outcome).await;
                    (offset, true)
                })
            }
        }
    }

    #[expect(clippy::type_complexity, reason = "the parts of one command, used once")]
    fn job(
        &self,
        stored: &StoredRecord,
    ) -> Result<(Job<A>, oneshot::Receiver<Reply>, Forwarded), Box<(Malformed, Outcome)>> {
        let invalid = |malformed: Malformed| {
            let reason = malformed.reason.clone();
            Box::new((malformed, Outcome::Invalid { reason }))
        };
        let forwarded = Forwarded::decode::<A>(&stored.record, self.lifetime_ms).map_err(invalid)?;
        let malformed = |reason: String| Malformed {
            reason,
            key: forwarded.id.to_string(),
            command_id: Some(forwarded.metadata.command_id.to_string()),
            reply_to: forwarded.reply_to.clone(),
        };
        if let Some(reason) = self.misrouted(&forwarded.id) {
            self.counters.misrouted.fetch_add(1, Ordering::Relaxed);
            return Err(Box::new((malformed(reason.clone()), Outcome::Misrouted { reason })));
        }
        let (command, hash) = forwarded.command::<A>().map_err(|error| match error {
            Unreadable::Invalid(reason) => invalid(malformed(reason)),
            Unreadable::NotKnown(reason) => {
                let outcome = Outcome::NotKnown { reason: reason.clone(), node: self.node.to_string() };
                Box::new((malformed(reason), outcome))
            }
        })?;
        let (reply, answer) = oneshot::channel();
        let (id, metadata) = (forwarded.id.clone(), forwarded.metadata.clone());
        let job = Job { id, command, hash, metadata, expires_at_ms: forwarded.expires_at_ms, reply };
        Ok((job, answer, forwarded))
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

    /// Tells the offset where the group took it. Where it did not, whoever takes the commands again finds that they were
    /// decided.
    fn commit(&self, offset: u64) -> Committing {
        let (member, partition) = (self.member.clone(), self.partition);
        Box::pin(async move {
            let committed = member.commit(partition, offset).await;
            if let Err(error) = &committed {
                tracing::debug!(error = error as &dyn std::error::Error, "committing commands");
            }
            committed.is_ok_and(|taken| taken).then_some(offset)
        })
    }
}

struct Replier {
    group: Arc<dyn Group>,
    clock: Arc<dyn Clock>,
    topic: Arc<str>,
    partitions: u32,
}

impl Replier {
    async fn send(&self, to: Option<&ReplyTo>, aggregate: &str, command_id: &str, outcome: Outcome) {
        let Some(to) = to.filter(|to| to.partition < self.partitions) else { return };
        let record = Answered::new(aggregate, command_id, &to.request, outcome).encode(self.clock.now_ms());
        if let Err(error) = self.group.send(&self.topic, to.partition, record).await {
            let topic = &self.topic;
            tracing::warn!(%topic, command_id, error = &error as &dyn std::error::Error, "an answer could not be sent");
        }
    }
}

/// Which commands are done with, in the order of their offsets.
#[derive(Debug, Default)]
struct Progress {
    under_way: VecDeque<(u64, bool)>,
    /// The offset after the last record read.
    next: Option<u64>,
    committed: Option<u64>,
}

impl Progress {
    fn restart(&mut self, from: u64) {
        self.under_way.clear();
        self.next = Some(from);
    }

    fn began(&mut self, offset: u64) {
        self.under_way.push_back((offset, false));
    }

    fn passed(&mut self, next: u64) {
        self.next = Some(next);
    }

    fn done(&mut self, offset: u64) {
        if let Ok(place) = self.under_way.binary_search_by_key(&offset, |(offset, _)| *offset) {
            self.under_way[place].1 = true;
        }
        while self.under_way.front().is_some_and(|(_, done)| *done) {
            self.under_way.pop_front();
        }
    }

    fn first_undone(&self) -> Option<u64> {
        self.under_way.front().map(|(offset, _)| *offset).or(self.next)
    }

    fn to_commit(&self) -> Option<u64> {
        self.first_undone().filter(|offset| self.committed != Some(*offset))
    }
}
