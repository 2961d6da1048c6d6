//! What all listeners are sent: the newest events, each with the place that it is at in every partition.
//!
//! The last of them are kept, so that a listener that comes again, or that was slow, goes on where it was. What is not
//! kept any more is told as a gap, by partition and offsets: it is in the audit trail.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::watch;

/// For each partition the offset behind what was sent: the id of a server-sent event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place(pub(super) Vec<u64>);

/// An event as it is sent: written once for all listeners.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) partition: u32,
    pub(super) offset: u64,
    pub(super) event_type: String,
    pub(super) json: String,
    /// Before and behind it.
    from: Place,
    pub(super) to: Place,
}

/// Records of a partition that a listener was not sent, events among them or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Missed {
    pub(super) partition: u32,
    /// The first offset.
    pub(super) from: u64,
    /// The offset behind the last.
    pub(super) to: u64,
}

/// What comes next to a listener.
#[derive(Debug)]
pub(super) enum Item {
    Message(Arc<Message>),
    /// It was too slow, or away for too long.
    Gap(Vec<Missed>),
}

/// The newest events.
pub(super) struct Feed {
    kept: Arc<Mutex<Kept>>,
    /// Told of each event. Listeners take them from those that are kept, so that a slow one holds none of its own.
    sent: watch::Sender<()>,
    kept_max: usize,
    bytes_max: usize,
}

struct Kept {
    messages: VecDeque<Arc<Message>>,
    bytes: usize,
    /// How many were sent before the first that is kept.
    before: u64,
    /// Behind all that was sent.
    place: Place,
}

/// One who is sent what is new.
pub(super) struct Listener {
    kept: Arc<Mutex<Kept>>,
    sent: watch::Receiver<()>,
    /// How many events were sent before the next one.
    next: u64,
    place: Place,
    /// Up to where what comes next may begin, to be told at once.
    begin: Option<Place>,
}

impl Feed {
    /// Of a log that was read up to `place`; `kept_max` events are kept, and so many that they have `bytes_max` bytes.
    pub(super) fn new(place: Place, kept_max: usize, bytes_max: usize) -> Self {
        let kept = Kept { messages: VecDeque::new(), bytes: 0, before: 0, place };
        Self { kept: Arc::new(Mutex::new(kept)), sent: watch::Sender::new(()), kept_max, bytes_max }
    }

    /// Sends an event to everybody who listens.
    pub(super) fn send(&self, partition: u32, offset: u64, event_type: String, json: String) {
        let mut kept = lock(&self.kept);
        let from = kept.place.clone();
        if let Some(next) = kept.place.0.get_mut(partition as usize) {
            *next = offset + 1;
        }
        let to = kept.place.clone();
        let message = Arc::new(Message { partition, offset, event_type, json, from, to });
        kept.bytes += message.bytes();
        kept.messages.push_back(message);
        // The newest stays however large it is.
        while kept.messages.len() > self.kept_max || kept.bytes > self.bytes_max && kept.messages.len() > 1 {
            let Some(first) = kept.messages.pop_front() else { break };
            kept.bytes -= first.bytes();
            kept.before += 1;
        }
        drop(kept);
        self.sent.send_replace(());
    }

    /// Listens from a place on that was told before, or else from now on.
    pub(super) fn listen(&self, from: Option<Place>) -> Listener {
        let guard = lock(&self.kept);
        let (kept, sent) = (self.kept.clone(), self.sent.subscribe());
        let Some(place) = from else {
            let (next, place) = (guard.before + guard.messages.len() as u64, guard.place.clone());
            return Listener { kept, sent, next, place, begin: None };
        };
        let begin = guard.messages.front().map_or(&guard.place, |first| &first.from).clone();
        Listener { kept, sent, next: guard.before, place, begin: Some(begin) }
    }

    pub(super) fn listeners(&self) -> usize {
        self.sent.receiver_count()
    }
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Message {
    fn bytes(&self) -> usize {
        self.event_type.len() + self.json.len() + 2 * size_of_val(self.to.0.as_slice())
    }
}

impl Listener {
    /// The next event, or what is missing before it. None once nothing more comes.
    pub(super) async fn next(&mut self) -> Option<Item> {
        if let Some(begin) = self.begin.take()
            && let Some(gap) = self.pass(&begin)
        {
            return Some(gap);
        }
        loop {
            self.sent.borrow_and_update();
            let Some((number, message)) = self.first_kept() else {
                self.sent.changed().await.ok()?;
                continue;
            };
            if !self.place.has(&message) {
                if let Some(gap) = self.pass(&message.from) {
                    return Some(gap);
                }
                self.next = number + 1;
                self.place.raise_to(&message.to);
                return Some(Item::Message(message));
            }
            self.next = number + 1;
        }
    }

    /// The first event that is kept of those that it was not sent, and how many were sent before it.
    fn first_kept(&self) -> Option<(u64, Arc<Message>)> {
        let kept = lock(&self.kept);
        let number = self.next.max(kept.before);
        kept.messages.get((number - kept.before) as usize).map(|message| (number, message.clone()))
    }

    /// Goes on to a place, and tells what it was not sent of what lies before.
    fn pass(&mut self, place: &Place) -> Option<Item> {
        let missed = self.place.missed_before(place);
        self.place.raise_to(place);
        (!missed.is_empty()).then_some(Item::Gap(missed))
    }

    /// What is behind all that it was sent.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }
}

impl Place {
    fn of(&self, partition: u32) -> u64 {
        self.0.get(partition as usize).copied().unwrap_or_default()
    }

    fn has(&self, message: &Message) -> bool {
        message.offset < self.of(message.partition)
    }

    fn missed_before(&self, place: &Place) -> Vec<Missed> {
        let one = |(partition, to): (u32, &u64)| {
            let from = self.of(partition);
            (from < *to).then_some(Missed { partition, from, to: *to })
        };
        (0..).zip(&place.0).filter_map(one).collect()
    }

    fn raise_to(&mut self, other: &Place) {
        for (here, there) in self.0.iter_mut().zip(&other.0) {
            *here = (*here).max(*there);
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl FromStr for Place {
    type Err = std::num::ParseIntError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split('.').map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// More than any of these has.
    const BYTES: usize = 100_000;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    fn send(feed: &Feed, partition: u32, offset: u64) {
        feed.send(partition, offset, "opened".into(), format!("{partition}@{offset}"));
    }

    /// What a listener has been sent by now.
    async fn sent(listener: &mut Listener, count: usize) -> Vec<String> {
        let mut sent = Vec::new();
        for _ in 0..count {
            sent.push(match listener.next().await.expect("more comes") {
                Item::Message(message) => message.json.clone(),
                Item::Gap(missed) => {
                    let ranges =
                        missed.iter().map(|missed| format!("{}:{}-{}", missed.partition, missed.from, missed.to));
                    format!("missed {}", ranges.collect::<Vec<_>>().join(" "))
                }
            });
        }
        sent
    }

    /// Shows: whoever comes again with the id of the last event is sent all that came since, and nothing twice.
    #[tokio::test]
    async fn a_listener_goes_on_where_it_was() {
        let feed = Feed::new(place("10.20"), 8, BYTES);
        send(&feed, 0, 10);
        let mut first = feed.listen(None);
        send(&feed, 1, 20);
        send(&feed, 0, 12);
        assert_eq!(sent(&mut first, 1).await, ["1@20"]);
        let at = first.place().to_string();
        assert_eq!(at, "11.21");
        drop(first);
        send(&feed, 1, 25);
        let mut again = feed.listen(Some(place(&at)));
        send(&feed, 0, 13);
        assert_eq!(sent(&mut again, 3).await, ["0@12", "1@25", "0@13"]);
        assert_eq!(again.place().to_string(), "14.26");
        // From before all that is kept, as after a restart.
        let mut early = feed.listen(Some(place("7.20")));
        assert_eq!(sent(&mut early, 3).await, ["missed 0:7-10", "0@10", "1@20"]);
        // And so it is where nothing is kept yet, before anything comes.
        let empty = Feed::new(place("10.20"), 8, BYTES);
        assert_eq!(sent(&mut empty.listen(Some(place("10.17"))), 1).await, ["missed 1:17-20"]);
        // Another process was further.
        let mut ahead = feed.listen(Some(place("13.26")));
        assert_eq!(sent(&mut ahead, 1).await, ["0@13"]);
    }

    /// Shows: a slow listener is told which records it was not sent, and goes on with what is kept.
    #[tokio::test]
    async fn a_slow_listener_is_told_what_it_missed() {
        let feed = Feed::new(place("0.0"), 4, BYTES);
        let mut slow = feed.listen(None);
        send(&feed, 0, 0);
        assert_eq!(sent(&mut slow, 1).await, ["0@0"]);
        for offset in 1..7 {
            send(&feed, 0, offset);
            send(&feed, 1, offset - 1);
        }
        let all = sent(&mut slow, 5).await;
        assert_eq!(all, ["missed 0:1-5 1:0-4", "0@5", "1@4", "0@6", "1@5"]);
        let later = feed.listen(None);
        assert_eq!(later.place().to_string(), "7.6");
        drop(feed);
        assert!(slow.next().await.is_none());
    }

    /// Shows: large events push out what was kept before them, and a slow listener is told so.
    #[tokio::test]
    async fn no_more_bytes_are_kept_than_fit() {
        let feed = Feed::new(place("0.0"), 1_000, 10_000);
        let mut slow = feed.listen(None);
        for offset in 0..50 {
            feed.send(0, offset, "opened".into(), "x".repeat(900));
        }
        let kept = lock(&feed.kept).messages.len() as u64;
        assert_eq!((kept, lock(&feed.kept).bytes <= 10_000), (10, true));
        assert_eq!(sent(&mut slow, 1).await, ["missed 0:0-40"]);
        assert_eq!(sent(&mut feed.listen(Some(place("1.0"))), 1).await, ["missed 0:1-40"]);
        feed.send(0, 50, "opened".into(), "y".repeat(20_000));
        assert_eq!(sent(&mut slow, 1).await, ["missed 0:40-50"]);
        assert_eq!(sent(&mut slow, 1).await, ["y".repeat(20_000)]);
    }
}
