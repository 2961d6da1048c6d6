//! Commands for partitions that another process owns: sent through the commands topic, answered through the replies
//! topic. Here is the asking side; [`dispatch`] is the side of the owner.

pub(crate) mod dispatch;
pub(crate) mod lane;
pub(crate) mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::domain::aggregate::Aggregate;
use crate::domain::causes::with_causes;
use crate::domain::clock::{Clock, millis};
use crate::domain::error::NotDone;
use crate::domain::random::Random;
use crate::engine::pause::Backoff;
use crate::log::group::Group;
use crate::log::{AppendError, Log, LogError, LogReader};
use wire::{Answered, Forwarded, Outcome, ReplyTo};

/// The topics beside the one with the events, and who sends.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    pub(crate) commands: Arc<str>,
    pub(crate) replies: Arc<str>,
    /// The `ce_source` of what this process sends.
    pub(crate) source: Arc<str>,
    /// The release of this process, where it has a name.
    pub(crate) release: Option<Arc<str>>,
}

/// Asks owners in other processes.
pub(crate) struct Forwarder {
    pub(crate) group: Arc<dyn Group>,
    pub(crate) route: Route,
    pub(crate) clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    /// The partition of the replies topic that this process reads.
    replies_partition: u32,
    waiting_max: usize,
    /// How long a command is kept on its topic.
    kept: Duration,
    /// How long after its first sending a command is sent again: well below the time for which its id is remembered.
    resent: Duration,
    /// Where the answers are read first.
    tail: Mutex<Option<Box<dyn LogReader>>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Answered>>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// Nothing was done.
    NotDone(NotDone),
    /// It may have been done.
    Unknown { reason: Option<String> },
}

impl Forwarder {
    /// Chooses one partition of the replies, which is read from its end on: by [`Self::read`].
    #[expect(clippy::too_many_arguments, reason = "each is told once, at the start")]
    pub(crate) async fn open(
        log: Arc<dyn Log>,
        group: Arc<dyn Group>,
        route: Route,
        partitions: u32,
        waiting_max: usize,
        kept_ms: u64,
        remembered: Duration,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Arc<Self>, LogError> {
        let replies_partition = fastrand::u32(..partitions);
        let tail = open_at_end(log.as_ref(), &route.replies, replies_partition).await?;
        let (kept, resent) = (Duration::from_millis(kept_ms), remembered / 4 * 3);
        let (tail, waiting) = (Mutex::new(Some(tail)), Mutex::default());
        Ok(Arc::new(Self { group, route, clock, random, replies_partition, waiting_max, kept, resent, tail, waiting }))
    }

    /// Sends a command to the owner of its partition and waits for the answer. A command that the owner does not know,
    /// which another release may, is sent again with the same id, and so is one that its topic does not keep any longer.
    pub(crate) async fn ask<A: Aggregate>(
        &self,
        mut command: Forwarded,
        partition: u32,
        deadline: Duration,
    ) -> Result<Answered, Unanswered> {
        let mut said = None;
        // By the clock too, which may jump: nothing is sent again when its id may be forgotten.
        let until_ms = self.clock.now_ms().saturating_add(millis(deadline.min(self.resent)));
        let asking = async {
            let mut pause = Backoff::default();
            let mut sent = false;
            loop {
                match self.ask_once::<A>(&mut command, partition, deadline, until_ms).await {
                    Ok(Answered { outcome: Outcome::NotKnown { reason, node }, .. }) => {
                        said = Some(format!("node {node} does not know the command: {reason}"));
                        sent = true;
                    }
                    Ok(Answered { outcome: Outcome::Expired, .. }) if deadline > self.kept => sent = true,
                    Err(Unanswered::Unknown { .. }) if deadline > self.kept => sent = true,
                    // What was sent before may be decided by another owner.
                    Err(Unanswered::NotDone(why)) if sent => said = Some(why.to_string()),
                    answer => return answer,
                }
                tokio::time::sleep(pause.next()).await;
                if self.clock.now_ms() >= until_ms {
                    return Err(Unanswered::Unknown { reason: said.clone() });
                }
            }
        };
        let answer = tokio::time::timeout(deadline, asking).await;
        answer.unwrap_or(Err(Unanswered::Unknown { reason: said }))
    }

    /// Sends a command once and waits as long as its topic keeps it.
    async fn ask_once<A: Aggregate>(
        &self,
        command: &mut Forwarded,
        partition: u32,
        deadline: Duration,
        until_ms: i64,
    ) -> Result<Answered, Unanswered> {
        // From the operating system: whoever can write answers, and not read commands, can't guess what one is for.
        let request = format!("{:032x}", self.random.u128());
        command.reply_to = Some(ReplyTo { partition: self.replies_partition, request: request.clone() });
        let now_ms = self.clock.now_ms();
        let lifetime = deadline.min(self.kept);
        command.expires_at_ms = until_ms.min(now_ms.saturating_add(millis(lifetime)));
        command.release.clone_from(&self.route.release);
        let record = command.encode::<A>(&self.route.source, now_ms);
        let waiting = self.wait_for(request)?;
        match self.group.send(&self.route.commands, partition, record).await {
            Ok(()) | Err(AppendError::Unknown(_)) => {} // the answer will tell
            Err(AppendError::Refused(error)) => {
                let reason = format!("sending it to its owner failed: {}", with_causes(&error));
                return Err(Unanswered::NotDone(NotDone::NotReady { reason }));
            }
        }
        let answer = tokio::time::timeout(lifetime, waiting.answer()).await.ok().flatten();
        answer.ok_or(Unanswered::Unknown { reason: None })
    }

    fn wait_for(&self, request: String) -> Result<Waiting<'_>, Unanswered> {
        let (sender, answer) = oneshot::channel();
        let mut waiting = self.waiting();
        if waiting.len() >= self.waiting_max {
            let retry_after = Duration::from_millis(100);
            return Err(Unanswered::NotDone(NotDone::Overloaded { retry_after }));
        }
        waiting.insert(request.clone(), sender);
        drop(waiting);
        Ok(Waiting { forwarder: self, request, answer })
    }

    /// No `.await` happens under this lock.
    fn waiting(&self) -> MutexGuard<'_, HashMap<String, oneshot::Sender<Answered>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands answers to who waits for them, for ever. What comes while the log can't be read is missed: those who wait
    /// for it learn it by sending again.
    pub(crate) async fn read(&self, log: &dyn Log) {
        let first = self.tail.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut tail = match first {
            Some(tail) => tail,
            None => self.open_again(log).await,
        };
        loop {
            let error = match tail.next().await {
                Ok(batch) => {
                    for stored in batch.records {
                        let Some(answered) = Answered::decode(&stored.record) else { continue };
                        if let Some(asker) = self.waiting().remove(&answered.request) {
                            let _ = asker.send(answered); // who asked went away
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            tracing::warn!(topic = %self.route.replies, error = &error as &dyn std::error::Error, "reading answers");
            tail = self.open_again(log).await;
        }
    }

    async fn open_again(&self, log: &dyn Log) -> Box<dyn LogReader> {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match open_at_end(log, &self.route.replies, self.replies_partition).await {
                Ok(tail) => break tail,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "opening the answers again");
                }
            }
        }
    }
}

async fn open_at_end(log: &dyn Log, topic: &str, partition: u32) -> Result<Box<dyn LogReader>, LogError> {
    let end = log.bounds(topic, partition).await?.end;
    log.reader(topic, &[(partition, end)]).await
}

/// A place among those who wait, given up on drop.
struct Waiting<'a> {
    forwarder: &'a Forwarder,
    request: String,
    answer: oneshot::Receiver<Answered>,
}

impl Waiting<'_> {
    async fn answer(mut self) -> Option<Answered> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.forwarder.waiting().remove(&self.request);
    }
}
