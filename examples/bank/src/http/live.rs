//! `GET /api/live`: each recorded event, as server-sent events.
//!
//! One task reads the log for all listeners, while there are any. What a listener has not taken is held for it up to
//! a bound; one that falls behind further is dropped.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use es_core::log::{Batch, Log, LogError};
use es_core::{EventSource, Fed, PartitionReader, Recorded};
use es_projections::{Handle, PartitionProgress};
use futures::{Stream, StreamExt, stream};
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio_util::sync::CancellationToken;

use super::App;
use super::problem::Problem;
use crate::app::ReadModels;
use crate::audit::Shown;

/// Events that are held for the slowest listener.
const BEHIND_MAX: usize = 4_096;
/// Listeners at once: each is a connection that stays.
const LISTENERS_MAX: usize = 256;
/// How often the reader looks whether anybody listens.
const LOOK: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);

/// An event as it is sent: written once for all listeners.
#[derive(Debug)]
struct Message {
    id: String,
    event_type: String,
    json: String,
}

impl Message {
    fn event(&self) -> Event {
        Event::default().id(&self.id).event(&self.event_type).data(&self.json)
    }
}

/// What is needed to read the log beside the owners.
pub(super) struct Live {
    log: Arc<dyn Log>,
    source: EventSource,
    /// Its checkpoints, which are near the end of the log, say where to begin.
    near_the_end: Handle,
    stop: CancellationToken,
    running: Mutex<Option<Sender<Arc<Message>>>>,
}

/// Streams events until the listener goes, falls behind, or the process stops.
pub(super) async fn events(
    State(app): State<App>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let receiver = app.live.listen()?;
    let messages = stream::unfold(receiver, |mut receiver| async {
        match receiver.recv().await {
            Ok(message) => Some((message, receiver)),
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "a listener of live events was too slow and is dropped");
                None
            }
            Err(broadcast::error::RecvError::Closed) => None,
        }
    });
    let event = |message: Arc<Message>| Ok(message.event());
    let stop = app.live.stop.clone();
    Ok(Sse::new(messages.map(event).take_until(stop.cancelled_owned())).keep_alive(KeepAlive::default()))
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

    /// Begins to listen; the first listener starts the reader.
    fn listen(self: &Arc<Self>) -> Result<Receiver<Arc<Message>>, Problem> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = &*running {
            if sender.receiver_count() >= LISTENERS_MAX {
                let detail = format!("there are {LISTENERS_MAX} listeners already");
                return Err(Problem::try_again("overloaded", detail));
            }
            return Ok(sender.subscribe());
        }
        let (sender, receiver) = broadcast::channel(BEHIND_MAX);
        *running = Some(sender.clone());
        tokio::spawn(self.clone().run(sender));
        Ok(receiver)
    }

    /// Reads while anybody listens. Listeners see the end of their stream when the log can't be read on.
    async fn run(self: Arc<Self>, sender: Sender<Arc<Message>>) {
        let progress = self.near_the_end.progress();
        let resume =
            |at: &PartitionProgress| PartitionReader::resume(self.source.clone(), at.partition, &at.checkpoint);
        let mut readers: Vec<_> = progress.iter().map(resume).collect();
        loop {
            let deserted = self.until_deserted(&sender);
            let failed = tokio::select! {
                () = deserted => return,
                () = self.stop.cancelled() => return self.forget(),
                Err(error) = self.follow(&mut readers, &sender) => error,
            };
            tracing::warn!(error = &failed as &dyn std::error::Error, "reading the log for live events failed");
            if !failed.is_retryable() {
                return self.forget();
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn until_deserted(&self, sender: &Sender<Arc<Message>>) {
        loop {
            tokio::time::sleep(LOOK).await;
            // Under the lock under which others begin to listen, so that nobody comes between.
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                *running = None;
                return;
            }
        }
    }

    fn forget(&self) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn follow(
        &self,
        readers: &mut [PartitionReader],
        sender: &Sender<Arc<Message>>,
    ) -> Result<Infallible, LogError> {
        let from: Vec<_> = readers.iter().map(|reader| (reader.partition(), reader.next())).collect();
        let mut log = self.log.reader(&self.source.topic, &from).await?;
        loop {
            let Batch { partition, records, next } = log.next().await?;
            let Some(reader) = readers.iter_mut().find(|reader| reader.partition() == partition) else { continue };
            for record in records {
                if let Fed::Events(events) = reader.feed(record)? {
                    // Nobody may listen just now.
                    events.iter().for_each(|event| drop(sender.send(Arc::new(message(event)))));
                }
            }
            reader.skip_to(next);
        }
    }
}

fn message(recorded: &Recorded) -> Message {
    let shown = Shown::recorded(recorded);
    let json = serde_json::to_string(&shown).expect("text and numbers are JSON");
    // A line break ends a field. In a type it is no name of ours, and in JSON it is only space between its parts.
    let event_type = recorded.envelope.event_type.replace(['\r', '\n'], "\u{fffd}");
    Message { id: shown.position().into(), event_type, json: json.replace(['\r', '\n'], " ") }
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
            command_hash: CommandHash([7; 16]),
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: "application/json".into(),
            payload: "{\r\n\"owner\":\r\"A\\nda\"\n}".into(),
            previous_hash: EventHash::default(),
            hash: EventHash::default(),
        };
        let message = message(&Recorded { partition: 0, offset: 0, envelope });
        drop(message.event());
        assert_eq!(message.event_type, "opened\u{fffd}\u{fffd}id: 0\u{fffd}data: x\u{fffd}");
        let json: serde_json::Value = serde_json::from_str(&message.json).unwrap();
        assert_eq!(json["data"]["owner"], "A\nda");
        assert!(!message.json.contains(['\r', '\n']));
    }
}
