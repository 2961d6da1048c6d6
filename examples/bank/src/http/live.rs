//! `GET /api/live`: each recorded event, as server-sent events.
//!
//! One task reads the log for all listeners, while there are any and for some time after. What it sent last is kept, so
//! that a listener that comes again with the id of its last event goes on there. What is not kept any more, for one that was away
//! or slow for long, is told in an event `missed`: which records of which partitions were not sent.

mod feed;

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use es_core::log::{Batch, Log, LogError};
use es_core::{EventSource, Fed, PartitionReader, Recorded};
use es_projections::{PartitionProgress, RunningProjection};
use futures::{Stream, StreamExt, stream};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::App;
use super::headers;
use super::problem::Problem;
use crate::app::ReadModels;
use crate::audit::Shown;
use feed::{Feed, Item, Listener, Place};

/// Events that are kept for listeners that are slow or come again.
const KEPT_MAX: usize = 4_096;
/// And their bytes at most: events may be large.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// Listeners at once: each is a connection that stays.
const LISTENERS_MAX: usize = 256;
/// For how long events are read on and kept when the last listener has gone.
const LINGER: Duration = Duration::from_secs(120);
/// How often is looked whether anybody listens.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// What is needed to read the log beside the owners.
pub(super) struct Live {
    log: Arc<dyn Log>,
    source: EventSource,
    /// Its checkpoints, which are near the end of the log, say where to begin.
    near_the_end: RunningProjection,
    stop: CancellationToken,
    running: Mutex<Option<Arc<Feed>>>,
}

/// Streams events until the listener goes or the process stops.
pub(super) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let last = headers::text(&headers, "last-event-id")?.filter(|id| !id.is_empty());
    let from = last.as_deref().map(|id| app.live.place(id)).transpose()?;
    if let Some(place) = &from {
        app.live.must_be_reached(place).await?;
    }
    let listener = app.live.listen(from)?;
    let items = stream::unfold(listener, |mut listener| async {
        let item = listener.next().await?;
        Some((Ok(event(&item, &listener)), listener))
    });
    let stop = app.live.stop.clone();
    Ok(Sse::new(items.take_until(stop.cancelled_owned())).keep_alive(KeepAlive::default()))
}

/// As it is sent: the id is where the listener is behind it.
fn event(item: &Item, listener: &Listener) -> Event {
    let event = Event::default().id(listener.place().to_string());
    match item {
        Item::Message(message) => event.event(&message.event_type).data(&message.json),
        Item::Gap(missed) => event.event("missed").data(json!({ "missed": missed }).to_string()),
    }
}

impl Live {
    pub(super) fn new(models: &ReadModels, stop: CancellationToken) -> Self {
        Self {
            log: models.store.log.clone(),
            source: models.store.source.clone(),
            near_the_end: models.accounts.clone(),
            stop,
            running: Mutex::default(),
        }
    }

    /// The place that the id of an event tells.
    fn place(&self, id: &str) -> Result<Place, Problem> {
        let wrong = || Problem::bad_request(format!("Last-Event-ID: {id:?} is not the id of an event of this stream"));
        let place: Place = id.parse().map_err(|_| wrong())?;
        if place.0.len() == self.source.partitions as usize { Ok(place) } else { Err(wrong()) }
    }

    /// Refuses a place that the log has not reached: then it is another log, and nothing would ever be sent.
    async fn must_be_reached(&self, place: &Place) -> Result<(), Problem> {
        for (partition, offset) in (0..).zip(&place.0) {
            let bounds = self.log.bounds(&self.source.topic, partition).await;
            let end =
                bounds.map_err(|error| Problem::unavailable("log-unavailable", "the log does not answer", &error))?.end;
            if end < *offset {
                return Err(Problem::bad_request("Last-Event-ID: the log does not reach that far, it was made anew"));
            }
        }
        Ok(())
    }

    /// Begins to listen; the first listener starts the reader.
    fn listen(self: &Arc<Self>, from: Option<Place>) -> Result<Listener, Problem> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(feed) = &*running {
            if feed.listeners() >= LISTENERS_MAX {
                let detail = format!("there are {LISTENERS_MAX} listeners already");
                return Err(Problem::try_again("overloaded", detail));
            }
            return Ok(feed.listen(from));
        }
        let progress = self.near_the_end.progress();
        let resume =
            |at: &PartitionProgress| PartitionReader::resume(self.source.clone(), at.partition, &at.checkpoint);
        let readers: Vec<_> = progress.iter().map(resume).collect();
        let next = |partition| readers.iter().find(|reader| reader.partition() == partition).map(PartitionReader::next);
        let place = (0..self.source.partitions).map(|partition| next(partition).unwrap_or_default()).collect();
        let feed = Arc::new(Feed::new(Place(place), KEPT_MAX, KEPT_BYTES_MAX));
        let listener = feed.listen(from);
        *running = Some(feed.clone());
        tokio::spawn(self.clone().run(feed, readers));
        Ok(listener)
    }

    /// Reads while anybody listens. Listeners see the end of their stream when the log can't be read on.
    async fn run(self: Arc<Self>, feed: Arc<Feed>, mut readers: Vec<PartitionReader>) {
        loop {
            let deserted = self.until_deserted(&feed);
            let failed = tokio::select! {
                () = deserted => return,
                () = self.stop.cancelled() => return self.forget(),
                Err(error) = self.follow(&mut readers, &feed) => error,
            };
            tracing::warn!(error = &failed as &dyn std::error::Error, "reading the log for live events failed");
            if !failed.is_retryable() {
                return self.forget();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn until_deserted(&self, feed: &Feed) {
        let mut heard = Instant::now();
        loop {
            tokio::time::sleep(LOOK).await;
            // Under the lock under which others begin to listen, so that nobody comes between.
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if feed.listeners() > 0 {
                heard = Instant::now();
            } else if heard.elapsed() >= LINGER {
                *running = None;
                return;
            }
        }
    }

    fn forget(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn follow(&self, readers: &mut [PartitionReader], feed: &Feed) -> Result<Infallible, LogError> {
        let from: Vec<_> = readers.iter().map(|reader| (reader.partition(), reader.next())).collect();
        let mut log = self.log.reader(&self.source.topic, &from).await?;
        loop {
            let Batch { partition, records, next } = log.next().await?;
            let Some(reader) = readers.iter_mut().find(|reader| reader.partition() == partition) else { continue };
            for record in records {
                if let Fed::Events(events) = reader.feed(record)? {
                    for event in &events {
                        let (event_type, json) = written(event);
                        feed.send(event.partition, event.offset, event_type, json);
                    }
                }
            }
            reader.skip_to(next);
        }
    }
}

/// Type and data of an event as they are sent.
fn written(recorded: &Recorded) -> (String, String) {
    let json = serde_json::to_string(&Shown::recorded(recorded)).expect("text and numbers are JSON");
    // A line break ends a field. In a type it is no name of ours, and in JSON it is only space between its parts.
    let event_type = recorded.envelope.event_type.replace(['\r', '\n'], "\u{fffd}");
    (event_type, json.replace(['\r', '\n'], " "))
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;
    use es_core::{AggregateKey, CommandHash, CommandId, Envelope, EventHash, EventId, Version};

    use super::*;
    use crate::audit::stream;

    /// What others wrote to the topic is sent on as one event, whatever its type and the layout of its JSON.
    #[test]
    fn line_breaks_end_no_field() {
        let time = DateTime::from_timestamp_millis(1_700_000_000_000).unwrap();
        let envelope = Envelope {
            context: "bank".into(),
            stream: stream(AggregateKey::new("a").unwrap()),
            version: Version::new(1),
            event_id: EventId::fresh(7),
            event_type: "opened\r\nid: 0\rdata: x\n".into(),
            schema_version: 1,
            recorded_at: time,
            occurred_at: time,
            command_id: CommandId::random(),
            command_hash: CommandHash([7; 17]),
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: "application/json".into(),
            payload: "{\r\n\"owner\":\r\"A\\nda\"\n}".into(),
            previous_hash: EventHash::default(),
            hash: EventHash::default(),
        };
        let (event_type, json) = written(&Recorded { partition: 0, offset: 0, envelope });
        drop(Event::default().event(&event_type).data(&json));
        assert_eq!(event_type, "opened\u{fffd}\u{fffd}id: 0\u{fffd}data: x\u{fffd}");
        let parsed: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(parsed["data"]["owner"], "A\nda");
        assert!(!json.contains(['\r', '\n']));
    }
}
