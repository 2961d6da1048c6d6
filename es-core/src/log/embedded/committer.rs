//! The one thread that writes: takes what is queued, one batch, one sync, then the answers.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::format::{record_key, segment_key};
use super::store::{Store, Topic};
use super::unavailable;
use crate::log::{AppendError, LogError};

/// A batch takes no more appends beyond this many bytes: it is in memory twice while it is written.
const BATCH_BYTES: usize = 8 << 20;

/// What the committer is asked. The queue holds at most one append of each writer in use.
pub(super) enum Message {
    Append(Append),
    Stop,
}

/// Encoded records of one partition, and who waits for the offset of the first.
pub(super) struct Append {
    pub(super) topic: Arc<Topic>,
    pub(super) partition: u32,
    pub(super) values: Vec<Vec<u8>>,
    pub(super) answer: oneshot::Sender<Result<u64, AppendError>>,
}

pub(super) fn start(
    store: Arc<Store>,
    queue: Receiver<Message>,
    segment_bytes: u64,
) -> Result<JoinHandle<()>, LogError> {
    let segment = store.next_segment()?;
    let committer = Committer { store, segment, segment_bytes, in_segment: 0, tails: HashMap::new(), failed: None };
    let thread = std::thread::Builder::new().name("es-log-commit".into());
    thread
        .spawn(move || committer.run(&queue))
        .map_err(|error| unavailable("starting the thread that writes the log failed").with_source(error))
}

struct Committer {
    store: Arc<Store>,
    /// Where new records go.
    segment: u32,
    segment_bytes: u64,
    /// Bytes in the segment so far.
    in_segment: u64,
    tails: HashMap<(u32, u32), Tail>,
    /// Set by the first failed write: nothing is written any more.
    failed: Option<Arc<fjall::Error>>,
}

/// The end of a partition.
struct Tail {
    next: u64,
    /// The segment of the last record written by this process.
    segment: Option<u32>,
}

impl Committer {
    fn run(mut self, queue: &Receiver<Message>) {
        let mut stopped = false;
        while !stopped {
            let mut appends = vec![];
            stopped = next_batch(queue, &mut appends);
            self.commit(appends);
        }
    }

    fn commit(&mut self, mut appends: Vec<Append>) {
        if let Some(error) = &self.failed {
            return self.answer_failed(appends, AppendError::Refused, error);
        }
        if self.in_segment >= self.segment_bytes {
            self.segment += 1;
            self.in_segment = 0;
        }
        let mut batch = self.store.batch();
        let landed: Vec<_> = appends.iter_mut().map(|append| self.add(&mut batch, append)).collect();
        match batch.commit() {
            Ok(()) => publish(appends, &landed),
            Err(error) => self.fail(appends, error),
        }
    }

    /// Moves the records into the batch and tells their offsets.
    fn add(&mut self, batch: &mut fjall::OwnedWriteBatch, append: &mut Append) -> Range<u64> {
        let (topic, partition) = (append.topic.number(), append.partition);
        let tail = self.tails.entry((topic, partition)).or_insert_with(|| {
            let next = append.topic.end(partition).expect("a writer's partition was checked when it was opened");
            Tail { next, segment: None }
        });
        let first = tail.next;
        if tail.segment != Some(self.segment) && !append.values.is_empty() {
            let key = segment_key(topic, partition, first);
            batch.insert(self.store.segments(), key.as_slice(), self.segment.to_be_bytes().as_slice());
            tail.segment = Some(self.segment);
        }
        for value in append.values.drain(..) {
            self.in_segment += value.len() as u64;
            let key = record_key(self.segment, topic, partition, tail.next);
            batch.insert(self.store.records(), key.as_slice(), value);
            tail.next += 1;
        }
        first..tail.next
    }

    /// The disk refused: what of this batch is on it will be known when the log is opened again, not before. A sync
    /// that fails once may well succeed the next time without having written anything, so there is no next time.
    fn fail(&mut self, appends: Vec<Append>, error: fjall::Error) {
        let dir = self.store.dir().display();
        tracing::error!(folder = %dir, error = &error as &dyn std::error::Error, "writing the log failed, it takes no more records");
        let error = Arc::new(error);
        let outcome = match *error {
            fjall::Error::Poisoned => AppendError::Refused, // found out before anything was written
            _ => AppendError::Unknown,
        };
        self.answer_failed(appends, outcome, &error);
        self.failed = Some(error);
    }

    fn answer_failed(&self, appends: Vec<Append>, outcome: fn(LogError) -> AppendError, error: &Arc<fjall::Error>) {
        for append in appends {
            let dir = self.store.dir().display();
            let message = format!(
                "writing the log in {dir} failed and it takes nothing more: free or replace the disk, then start again"
            );
            let _ = append.answer.send(Err(outcome(unavailable(message).with_source(error.clone()))));
        }
    }
}

/// Waits for an append, then takes what else is queued. True when the log is being closed.
pub(super) fn next_batch(queue: &Receiver<Message>, appends: &mut Vec<Append>) -> bool {
    let mut bytes = 0;
    let mut message = queue.recv().unwrap_or(Message::Stop);
    loop {
        match message {
            Message::Stop => return true,
            Message::Append(append) => {
                bytes += append.values.iter().map(Vec::len).sum::<usize>();
                appends.push(append);
            }
        }
        if bytes >= BATCH_BYTES {
            return false;
        }
        match queue.try_recv() {
            Ok(next) => message = next,
            Err(_) => return false,
        }
    }
}

/// Readers see the records from now on, writers get their answers. Nobody saw them before the sync.
fn publish(appends: Vec<Append>, landed: &[Range<u64>]) {
    for (append, offsets) in appends.iter().zip(landed) {
        append.topic.publish(append.partition, offsets.end);
    }
    for batch in appends.chunk_by(|one, other| Arc::ptr_eq(&one.topic, &other.topic)) {
        batch[0].topic.wake_readers();
    }
    for (append, offsets) in appends.into_iter().zip(landed) {
        let _ = append.answer.send(Ok(offsets.start)); // nobody waits any more: as good as lost
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::log::embedded::EmbeddedConfig;
    use crate::log::{TopicKind, TopicSpec};

    fn committer(dir: &Path) -> Committer {
        let store = Store::open(dir, &EmbeddedConfig::default()).unwrap();
        store.prepare(&TopicSpec { name: "events".into(), kind: TopicKind::Events }).unwrap();
        let store = Arc::new(store);
        Committer { store, segment: 0, segment_bytes: 100, in_segment: 0, tails: HashMap::new(), failed: None }
    }

    fn append(committer: &Committer) -> (Append, oneshot::Receiver<Result<u64, AppendError>>) {
        let topic = committer.store.topic("events").unwrap();
        let (answer, answered) = oneshot::channel();
        (Append { topic, partition: 0, values: vec![vec![1]], answer }, answered)
    }

    /// The store alone refuses too, but only after the failures that it knows of.
    #[test]
    fn after_a_failed_commit_every_append_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut committer = committer(dir.path());
        let (good, mut answered) = append(&committer);
        committer.commit(vec![good]);
        assert_eq!(answered.try_recv().unwrap().unwrap(), 0);

        let (first, mut answered) = append(&committer);
        committer.fail(vec![first], std::io::Error::other("the disk is gone").into());
        assert!(matches!(answered.try_recv().unwrap(), Err(AppendError::Unknown(_))));
        for _ in 0..3 {
            let (later, mut answered) = append(&committer);
            committer.commit(vec![later]);
            assert!(matches!(answered.try_recv().unwrap(), Err(AppendError::Refused(_))));
        }
        assert_eq!(committer.store.topic("events").unwrap().end(0).unwrap(), 1);
    }

    #[test]
    fn one_batch_takes_appends_of_all_partitions_and_a_full_segment_ends() {
        let dir = tempfile::tempdir().unwrap();
        let mut committer = committer(dir.path());
        let (mut appends, mut answers) = (vec![], vec![]);
        for place in 0..6 {
            let (append, answered) = append(&committer);
            appends.push(Append { partition: place % 2, values: vec![vec![1; 40]], ..append });
            answers.push(answered);
        }
        committer.commit(appends);
        let offsets: Vec<u64> = answers.iter_mut().map(|answer| answer.try_recv().unwrap().unwrap()).collect();
        assert_eq!(offsets, [0, 0, 1, 1, 2, 2]);
        assert_eq!(committer.segment, 0);
        committer.commit(vec![append(&committer).0]);
        assert_eq!(committer.segment, 1);
    }
}
