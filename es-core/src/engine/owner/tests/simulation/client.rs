//! Clients: through the bus, each of a handful of commands until it has an answer; and as a service in any language, a
//! few commands to one tank on the commands topic without waiting. What they were told.

use std::fmt;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::domain::newer::Ask;
use super::domain::{Dry, newer, older};
use super::*;
use crate::domain::codec::{Encoded, encode_command};
use crate::{ExpectedVersion, InvalidCommand, Json, PartitionStatus};

/// One sending of a command, with one answer to it.
#[derive(Debug, Clone)]
pub(super) struct Call {
    /// The process that was asked; none for a record on the commands topic.
    pub(super) slot: Option<usize>,
    pub(super) id: String,
    pub(super) command_id: String,
    pub(super) command: Ask,
    pub(super) expected: ExpectedVersion,
    /// The end of the log when it was called, and when the answer came: this tells before and after.
    pub(super) from: u64,
    pub(super) to: u64,
    /// When it was sent, by the clock of the process or of the producer.
    pub(super) sent_ms: i64,
    pub(super) told: Told,
    /// An answer that is said to be the remembered one. Not judged: who settles a doubt can't tell who was first.
    pub(super) duplicate: bool,
    pub(super) record: Option<OnTopic>,
}

/// Where a command stands that was put on the topic, and in what order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnTopic {
    /// Which one of all commands that were put there by this client.
    pub(super) number: usize,
    pub(super) client: usize,
    /// How often the topic had been made anew.
    pub(super) topic: usize,
    pub(super) offset: u64,
    pub(super) expires: Expires,
}

/// What a command on the topic says of when it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expires {
    Unsaid,
    Before,
    Soon,
    Late,
    Never,
    Nonsense,
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Accepted {
        version: u64,
        events: u32,
        offset: u64,
    },
    TooLittle {
        level: u64,
    },
    Conflict {
        actual: u64,
    },
    Reused,
    /// It can't be done, for good.
    Failed(Failure),
    Parked,
    NotDone,
    Unknown,
    /// The owner's release does not know it; another one may.
    NotKnown,
    /// By an owner's clock; another one may decide it still.
    Expired,
    /// What no client should hear.
    Wrong(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Panicked,
    TooLarge,
    TooMany,
    Malformed,
}

impl Told {
    pub(super) fn is_definite(&self) -> bool {
        !matches!(self, Self::NotDone | Self::Unknown | Self::NotKnown | Self::Expired | Self::Parked)
    }

    /// Whether this sending may have had an effect.
    pub(super) fn may_be_done(&self) -> bool {
        !matches!(self, Self::NotDone | Self::Parked)
    }

    fn of<E>(answer: Result<Receipt, SendError<E>>, level: impl Fn(E) -> u64) -> (Self, bool)
    where
        E: std::error::Error + 'static,
    {
        let duplicate = matches!(&answer, Ok(receipt) if receipt.duplicate);
        let told = match answer {
            Ok(receipt) => Self::Accepted {
                version: receipt.version.get(),
                events: receipt.events,
                offset: receipt.position.offset,
            },
            Err(SendError::Refused(no)) => Self::TooLittle { level: level(no) },
            Err(SendError::Conflict { actual, .. }) => Self::Conflict { actual: actual.get() },
            Err(SendError::CommandIdReused) => Self::Reused,
            Err(SendError::NotDone(_)) => Self::NotDone,
            Err(SendError::OutcomeUnknown { .. }) => Self::Unknown,
            Err(SendError::Panicked(_)) => Self::Failed(Failure::Panicked),
            Err(SendError::Parked { .. }) => Self::Parked,
            Err(SendError::Invalid(InvalidCommand::TooLarge { .. })) => Self::Failed(Failure::TooLarge),
            Err(SendError::Invalid(InvalidCommand::TooManyEvents { .. })) => Self::Failed(Failure::TooMany),
            Err(SendError::Invalid(InvalidCommand::Elsewhere(reason))) => Self::invalid(&reason),
            Err(error) => Self::Wrong(error.to_string()),
        };
        (told, duplicate)
    }

    /// What an owner elsewhere says in words.
    fn invalid(reason: &str) -> Self {
        match reason {
            _ if reason.contains("bytes") => Self::Failed(Failure::TooLarge),
            _ if reason.contains("events, at most") => Self::Failed(Failure::TooMany),
            _ if reason.contains("ce_expirestime") => Self::Failed(Failure::Malformed),
            _ => Self::Wrong(reason.into()),
        }
    }

    /// A record on the replies topic.
    pub(super) fn of_reply(outcome: &serde_json::Value) -> Self {
        let Some((kind, value)) = outcome.as_object().and_then(|fields| fields.iter().next()) else {
            return match outcome.as_str() {
                Some("command_id_reused") => Self::Reused,
                Some("expired") => Self::Expired,
                _ => Self::Wrong(outcome.to_string()),
            };
        };
        let number = |name: &str| value[name].as_u64().unwrap_or_default();
        match kind.as_str() {
            "accepted" => {
                let offset = value["at"]["offset"].as_u64().unwrap_or_default();
                Self::Accepted { version: number("version"), events: number("events") as u32, offset }
            }
            "refused" => {
                let level = value["error"]["TooLittle"]["level"].as_u64();
                level.map_or_else(|| Self::Wrong(value.to_string()), |level| Self::TooLittle { level })
            }
            "conflict" => Self::Conflict { actual: number("version") },
            "panicked" => Self::Failed(Failure::Panicked),
            "invalid" => Self::invalid(value["reason"].as_str().unwrap_or_default()),
            "parked" => Self::Parked,
            "not_done" => Self::NotDone,
            "not_known" => Self::NotKnown,
            _ => Self::Wrong(outcome.to_string()),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, id, command_id, command, expected, from, to, told, duplicate, record, sent_ms: _ } = self;
        let again = if *duplicate { ", as before" } else { "" };
        match (slot, record) {
            (Some(slot), _) => write!(f, "{from}..{to} process {slot}")?,
            (None, Some(record)) => {
                write!(f, "{from}..{to} topic {} offset {} {:?}", record.topic, record.offset, record.expires)?;
            }
            (None, None) => {}
        }
        write!(f, ": {id} {command_id} {command:?} ({expected}) => {told:?}{again}")
    }
}

/// The bus of a process of either release.
#[derive(Clone)]
pub(super) enum AnyBus {
    Newer(Bus<newer::Tank>),
    Older(Bus<older::Tank>),
}

impl AnyBus {
    pub(super) fn status(&self) -> Vec<PartitionStatus> {
        match self {
            Self::Newer(bus) => bus.status(),
            Self::Older(bus) => bus.status(),
        }
    }

    /// None where the process's release does not know the command.
    fn send(
        &self,
        id: &str,
        command_id: &str,
        ask: &Ask,
        expected: ExpectedVersion,
    ) -> Option<BoxFuture<'static, (Told, bool)>> {
        let id = id.to_owned();
        let level = |Dry::TooLittle { level }| level;
        match self {
            Self::Newer(bus) => {
                let send = bus.send(&id, ask.clone()).command_id(command_id).expect(expected);
                Some(async move { Told::of(send.await, level) }.boxed())
            }
            Self::Older(bus) => {
                let send = bus.send(&id, older::Ask::of(ask)?).command_id(command_id).expect(expected);
                Some(async move { Told::of(send.await, level) }.boxed())
            }
        }
    }
}

pub(super) struct Client {
    pub(super) sim: Arc<Sim>,
    pub(super) rng: fastrand::Rng,
    pub(super) number: usize,
}

impl Client {
    pub(super) async fn run(mut self) {
        for number in 0..self.rng.usize(4..14) {
            let id = format!("a{}", self.rng.u32(..3));
            let (command_id, command) = (format!("{}.{number}", self.number), any_command(&self.sim, &mut self.rng));
            let expected = match self.rng.u32(..8) {
                0 => ExpectedVersion::Exactly(crate::Version::new(self.rng.u64(..6))),
                1 => ExpectedVersion::NoStream,
                _ => ExpectedVersion::Any,
            };
            let gives_up = self.rng.u32(..10) == 0;
            while !self.call(&id, &command_id, &command, expected).await.is_definite() {
                if gives_up && self.rng.bool() {
                    break;
                }
                let pause = Duration::from_millis(self.rng.u64(1..40));
                tokio::time::sleep(pause).await;
            }
            match self.rng.u32(..6) {
                0 => {
                    self.call(&id, &command_id, &command, expected).await;
                }
                1 => {
                    self.call(&id, &command_id, &Ask::Pour { n: 77, times: 1 }, expected).await;
                }
                _ => {}
            }
            let pause = Duration::from_millis(self.rng.u64(..20));
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks until each tank has told its level: by a refusal.
    pub(super) async fn ask_for_the_levels(mut self) {
        for number in 0..3 {
            let (id, command) = (format!("a{number}"), Ask::Drain { n: 1_000_000 });
            while !self.call(&id, "level", &command, ExpectedVersion::Any).await.is_definite() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Sends once, or twice at the same time.
    async fn call(&mut self, id: &str, command_id: &str, command: &Ask, expected: ExpectedVersion) -> Told {
        let first = self.send(id, command_id, command, expected);
        if self.rng.u32(..10) > 0 {
            return first.await;
        }
        let second = self.send(id, command_id, command, expected);
        let (first, second) = futures::join!(first, second);
        if first.is_definite() { first } else { second }
    }

    fn send(
        &mut self,
        id: &str,
        command_id: &str,
        command: &Ask,
        expected: ExpectedVersion,
    ) -> impl Future<Output = Told> + use<> {
        let (sim, bus) = (self.sim.clone(), self.sim.bus(&mut self.rng));
        // Some don't wait for long, and go away.
        let patience = Duration::from_millis(if self.rng.u32(..10) == 0 { 1 } else { 5_000 });
        let (id, command_id, command) = (id.to_owned(), command_id.to_owned(), command.clone());
        async move {
            let Some((slot, bus)) = bus else { return Told::NotDone };
            let from = sim.end(&id).await;
            let sent_ms = sim.clock.now_ms() + sim.skews[slot].load(Ordering::Relaxed);
            let Some(send) = bus.send(&id, &command_id, &command, expected) else { return Told::NotDone };
            let (told, duplicate) = tokio::time::timeout(patience, send).await.unwrap_or((Told::Unknown, false));
            let to = sim.end(&id).await;
            let slot = Some(slot);
            let known = told.clone();
            let call =
                Call { slot, id, command_id, command, expected, from, to, sent_ms, told, duplicate, record: None };
            sim.history.lock().unwrap().push(call);
            known
        }
    }
}

fn any_command(sim: &Sim, rng: &mut fastrand::Rng) -> Ask {
    if sim.plan.has(Hazard::Failures) && rng.u32(..3) == 0 {
        return match rng.u32(..5) {
            0 => Ask::Describe { bytes: 30_000 },
            1 => Ask::Pour { n: 1, times: EVENTS_MAX as u64 + 1 },
            2 => Ask::Shake,
            _ => Ask::Fill { n: rng.u64(1..8) },
        };
    }
    if sim.plan.has(Hazard::Releases) && rng.u32(..4) == 0 {
        return match rng.u32(..4) {
            0 => Ask::Mark { n: 1 },
            _ => Ask::Label { n: rng.u64(1..3), mark: rng.u64(..3) },
        };
    }
    match rng.u32(..8) {
        0..=2 => Ask::Pour { n: rng.u64(1..5), times: 1 },
        3 => Ask::Pour { n: rng.u64(1..5), times: rng.u64(2..4) },
        4 => Ask::Look,
        _ => Ask::Drain { n: rng.u64(1..8) },
    }
}

/// Puts a few commands to one tank on the topic, one behind the other, and waits for nothing.
pub(super) struct Service {
    pub(super) sim: Arc<Sim>,
    pub(super) rng: fastrand::Rng,
    pub(super) number: usize,
}

impl Service {
    pub(super) async fn run(mut self) {
        for round in 0..self.rng.usize(1..4) {
            let id = format!("a{}", self.rng.u32(..3));
            for number in 0..self.rng.usize(2..5) {
                let command = any_command(&self.sim, &mut self.rng);
                self.put(&id, 10 * round + number, command).await;
                if self.rng.u32(..4) == 0 {
                    let pause = Duration::from_millis(self.rng.u64(..10));
                    tokio::time::sleep(pause).await;
                }
            }
            let pause = Duration::from_millis(self.rng.u64(..600));
            tokio::time::sleep(pause).await;
        }
    }

    async fn put(&mut self, id: &str, number: usize, command: Ask) {
        let (sim, client) = (self.sim.clone(), self.number);
        let (expires, now_ms, retention_ms) =
            (self.expires(), sim.clock.now_ms(), sim.plan.retention.as_millis() as i64);
        let until = match expires {
            Expires::Unsaid => None,
            Expires::Before => Some(time(now_ms - 1)),
            Expires::Soon => Some(time(now_ms + self.rng.i64(1..60))),
            Expires::Late => Some(time(now_ms + 20 * retention_ms)),
            Expires::Never => Some("9999-12-31T23:59:59Z".into()),
            Expires::Nonsense => Some("soon".into()),
        };
        let command_id = format!("t{client}.{number}");
        let Encoded { kind, payload, .. } = encode_command::<Json, Ask>(&command).expect("it can be encoded");
        let replies = self.rng.u32(..PARTITIONS).to_string();
        let mut headers = vec![
            ("ce_id".into(), command_id.clone().into()),
            ("ce_type".into(), format!("test.tank.{}", kind.name).into()),
            ("ce_replypartition".into(), replies.into()),
            ("ce_request".into(), command_id.clone().into()),
        ];
        headers.extend(until.map(|until| ("ce_expirestime".into(), until.into())));
        let key = id.to_owned().into();
        let record = Record { key, value: Some(payload.into()), headers, timestamp_ms: now_ms };
        let from = sim.end(id).await;
        let topic = sim.topics_anew.load(Ordering::Relaxed);
        let offset = sim.log.partition(COMMANDS, home(id)).append_foreign(record);
        let record = Some(OnTopic { number, client, topic, offset, expires });
        let (id, expected) = (id.to_owned(), ExpectedVersion::Any);
        let (to, told, sent_ms, duplicate) = (u64::MAX, Told::Unknown, now_ms, false);
        let call = Call { slot: None, id, command_id, command, expected, from, to, sent_ms, told, duplicate, record };
        sim.history.lock().unwrap().push(call);
    }

    fn expires(&mut self) -> Expires {
        match self.rng.u32(..12) {
            0 => Expires::Unsaid,
            1 => Expires::Before,
            2 => Expires::Soon,
            3 => Expires::Never,
            4 => Expires::Nonsense,
            _ => Expires::Late,
        }
    }
}

fn time(ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(ms).expect("a time of this century").to_rfc3339()
}
