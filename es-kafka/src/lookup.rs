//! Looking up single records with one consumer for all that ask: a start asks for several in each partition, and a
//! consumer for each would be most of the time that it takes.

use std::ops::{ControlFlow, Range};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use es_core::log::{LogError, StoredRecord};
use rdkafka::error::KafkaError;
use tokio::sync::oneshot;

use crate::client::{POLL, lock, spawn};
use crate::config::KafkaConfig;
use crate::error::{Call, failed};
use crate::fetched::{Fetch, Fetched};
use crate::reader::Copier;

/// How long the consumer is kept after the last question.
const IDLE: Duration = Duration::from_secs(5);
/// How long others wait for one that is not answered.
const PATIENCE: Duration = Duration::from_secs(1);

/// It could not be found out: a reader of its own will wait for it, or tell why.
#[derive(Debug)]
pub(crate) struct Unknown;

/// A record that is looked for.
#[derive(Debug)]
struct Wish {
    topic: String,
    partition: u32,
    /// Where the first record is wanted. At most 63 bits.
    offsets: Range<u64>,
    /// That record, or that there is none. Dropped where that is not known.
    answer: oneshot::Sender<Option<StoredRecord>>,
}

/// Who asks for records.
#[derive(Debug)]
pub(crate) struct Lookups {
    config: Arc<KafkaConfig>,
    /// To the thread that has the consumer, if one was started.
    wishes: Mutex<Option<Sender<Wish>>>,
}

impl Lookups {
    pub(crate) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, wishes: Mutex::default() }
    }

    /// The first record at one of these offsets.
    pub(crate) async fn first(
        &self,
        topic: &str,
        partition: u32,
        offsets: Range<u64>,
    ) -> Result<Option<StoredRecord>, Unknown> {
        if i64::try_from(offsets.start).is_err() {
            return Err(Unknown);
        }
        let (answer, found) = oneshot::channel();
        let wish = Wish { topic: topic.to_owned(), partition, offsets, answer };
        self.ask(wish).map_err(|_| Unknown)?;
        found.await.map_err(|_| Unknown)
    }

    fn ask(&self, wish: Wish) -> Result<(), LogError> {
        let mut wishes = lock(&self.wishes);
        let wish = match wishes.as_ref() {
            Some(thread) => match thread.send(wish) {
                Ok(()) => return Ok(()),
                Err(gone) => gone.0,
            },
            None => wish,
        };
        let (thread, asked) = channel();
        let config = Arc::clone(&self.config);
        spawn("es-kafka-look", move || match Looking::open(&config) {
            Ok(looking) => looking.run(asked),
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "a consumer for single records"),
        })?;
        let _ = thread.send(wish); // it was just started; should it be gone, so is the wish
        *wishes = Some(thread);
        Ok(())
    }
}

/// The thread's side.
struct Looking {
    fetched: Fetched,
    copier: Copier,
}

impl Looking {
    fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.for_reading(1);
        // A record is wanted, not what comes after it; and a broker that waits for more of one partition would keep the next
        // round waiting.
        client.set("fetch.message.max.bytes", "16384").set("queued.min.messages", "1").set("fetch.wait.max.ms", "10");
        let fetched = Fetched::new(&client)
            .map_err(|error| failed(Call::Work, "creating a Kafka client for single records", error))?;
        Ok(Self { fetched, copier: Copier::default() })
    }

    /// Until nobody asks for a while. Whoever asks while the client goes, which may take long, is told at once: what
    /// was asked is dropped before it.
    fn run(mut self, asked: Receiver<Wish>) {
        let mut wishes = Vec::new();
        loop {
            if wishes.is_empty() {
                match asked.recv_timeout(IDLE) {
                    Ok(wish) => wishes.push(wish),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                }
            }
            wishes.extend(asked.try_iter());
            let (round, rest) = next_round(wishes);
            wishes = rest;
            if let Err(error) = self.look(round) {
                tracing::debug!(error = &error as &dyn std::error::Error, "looking up single records");
            }
            self.fetched.stop();
        }
    }

    /// Answers wishes for different partitions of one topic. What fails concerns one of them, or an earlier round: none of
    /// them is believed then.
    fn look(&mut self, mut round: Vec<Wish>) -> Result<(), KafkaError> {
        let from = round.iter().map(|wish| (wish.partition, wish.offsets.start));
        self.fetched.start(&round[0].topic, from)?;
        let deadline = Instant::now() + PATIENCE;
        while !round.is_empty() && Instant::now() < deadline {
            let mut failed = None;
            self.fetched.each(POLL, |fetch| {
                match fetch {
                    Fetch::Record(message) => {
                        answer(&mut round, message.partition, message.offset, || Some(self.copier.copy(&message)));
                    }
                    Fetch::End { partition, offset } => answer(&mut round, partition, offset, || None),
                    Fetch::Failure { code, .. } => failed = Some(KafkaError::MessageConsumption(code)),
                }
                let going_on = failed.is_none() && !round.is_empty();
                if going_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
            if let Some(error) = failed.or_else(|| self.fetched.failure()) {
                return Err(error);
            }
            round.retain(|wish| !wish.answer.is_closed());
        }
        Ok(())
    }
}

/// Answers who waits for this partition, where the place that came says what there is: a record, or the offset that comes
/// next. A broker may be behind the one that told the partition's bounds: an end before what is looked for says nothing.
fn answer(round: &mut Vec<Wish>, partition: u32, offset: u64, found: impl FnOnce() -> Option<StoredRecord>) {
    let Some(place) = round.iter().position(|wish| wish.partition == partition) else { return };
    let offsets = &round[place].offsets;
    if offsets.contains(&offset) {
        if let Some(found) = found() {
            let _ = round.swap_remove(place).answer.send(Some(found));
        }
    } else if offset >= offsets.end {
        let _ = round.swap_remove(place).answer.send(None);
    }
}

/// Those that can be looked up together, and the others.
fn next_round(wishes: Vec<Wish>) -> (Vec<Wish>, Vec<Wish>) {
    let (mut round, mut rest): (Vec<Wish>, Vec<Wish>) = (Vec::new(), Vec::new());
    for wish in wishes {
        let fits = round.iter().all(|other| other.topic == wish.topic && other.partition != wish.partition);
        if fits { round.push(wish) } else { rest.push(wish) }
    }
    (round, rest)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use es_core::log::Record;

    use super::*;

    fn wish(topic: &str, partition: u32, offset: u64) -> Wish {
        Wish { topic: topic.into(), partition, offsets: offset..offset + 1, answer: oneshot::channel().0 }
    }

    #[test]
    fn a_round_is_of_one_topic_and_has_a_partition_once() {
        let wishes = vec![wish("a", 0, 1), wish("a", 0, 2), wish("b", 1, 3), wish("a", 1, 4)];
        let offsets = |wishes: &[Wish]| wishes.iter().map(|wish| wish.offsets.start).collect::<Vec<_>>();
        let (round, rest) = next_round(wishes);
        assert_eq!((offsets(&round), offsets(&rest)), (vec![1, 4], vec![2, 3]));
        let (round, rest) = next_round(rest);
        assert_eq!((offsets(&round), offsets(&rest)), (vec![2], vec![3]));
    }

    #[test]
    fn only_a_record_or_an_end_behind_what_is_looked_for_is_an_answer() {
        let record = |offset| {
            let record = Record { key: Bytes::new(), value: None, headers: Vec::new(), timestamp_ms: 1 };
            move || Some(StoredRecord { offset, record })
        };
        let ask = || {
            let (answer, found) = oneshot::channel();
            (vec![Wish { topic: "a".into(), partition: 3, offsets: 5..7, answer }], found)
        };
        let (mut round, mut found) = ask();
        answer(&mut round, 2, 9, || None); // of another partition
        answer(&mut round, 3, 4, record(4)); // of an earlier round
        answer(&mut round, 3, 5, || None); // of a broker that is behind
        answer(&mut round, 3, 6, || None);
        assert!(found.try_recv().is_err() && round.len() == 1);
        answer(&mut round, 3, 6, record(6));
        assert_eq!(found.try_recv().unwrap().map(|found| found.offset), Some(6));
        for behind in [record(7)(), None] {
            let (mut round, mut found) = ask();
            answer(&mut round, 3, 7, || behind);
            assert_eq!((found.try_recv(), round.len()), (Ok(None), 0));
        }
    }
}
