//! Clients: they send commands to any process, again with the same id until they have an answer, and write down what
//! they were told.

use std::fmt;

use super::*;
use crate::ExpectedVersion;

/// One sending of a command.
#[derive(Debug, Clone)]
pub(super) struct Call {
    pub(super) slot: usize,
    pub(super) id: String,
    pub(super) command_id: String,
    pub(super) command: Do,
    pub(super) expected: ExpectedVersion,
    /// The end of the log when it was called, and when the answer came: this tells before and after.
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) told: Told,
    /// An answer that is said to be the remembered one. Not judged: who settles a doubt can't tell who was first.
    pub(super) duplicate: bool,
}

/// What the client was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Accepted {
        version: u64,
        events: u32,
        offset: u64,
    },
    TooFew {
        sum: u64,
    },
    Conflict {
        actual: u64,
    },
    Reused,
    NotDone,
    Unknown,
    /// What no client should hear.
    Wrong(String),
}

impl Told {
    pub(super) fn is_definite(&self) -> bool {
        !matches!(self, Self::NotDone | Self::Unknown)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { slot, id, command_id, command, expected, from, to, told, duplicate } = self;
        let again = if *duplicate { ", as before" } else { "" };
        write!(f, "{from}..{to} process {slot}: {id} {command_id} {command:?} ({expected}) => {told:?}{again}")
    }
}

pub(super) struct Client {
    pub(super) sim: Arc<Sim>,
    pub(super) rng: fastrand::Rng,
    pub(super) number: usize,
}

impl Client {
    pub(super) async fn run(mut self) {
        for number in 0..self.rng.usize(4..16) {
            let id = format!("a{}", self.rng.u32(..3));
            let (command_id, command) = (format!("{}.{number}", self.number), self.command());
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
                    self.call(&id, &command_id, &Do::Add { n: 77, times: 1 }, expected).await;
                }
                _ => {}
            }
            let pause = Duration::from_millis(self.rng.u64(..20));
            tokio::time::sleep(pause).await;
        }
    }

    fn command(&mut self) -> Do {
        match self.rng.u32(..8) {
            0..=2 => Do::Add { n: self.rng.u64(1..5), times: 1 },
            3 => Do::Add { n: self.rng.u64(1..5), times: self.rng.u64(2..4) },
            4 => Do::Nothing,
            _ => Do::Take { n: self.rng.u64(1..8) },
        }
    }

    /// Asks until each aggregate has told its sum: by a refusal.
    pub(super) async fn ask_for_the_sums(mut self) {
        for number in 0..3 {
            let (id, command) = (format!("a{number}"), Do::Take { n: 1_000_000 });
            while !self.call(&id, "sum", &command, ExpectedVersion::Any).await.is_definite() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }

    /// Sends once, or twice at the same time.
    async fn call(&mut self, id: &str, command_id: &str, command: &Do, expected: ExpectedVersion) -> Told {
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
        command: &Do,
        expected: ExpectedVersion,
    ) -> impl Future<Output = Told> + use<> {
        let (sim, bus) = (self.sim.clone(), self.sim.bus(&mut self.rng));
        // Some don't wait for long, and go away.
        let patience = Duration::from_millis(if self.rng.u32(..10) == 0 { 1 } else { 5_000 });
        let (id, command_id, command) = (id.to_owned(), command_id.to_owned(), command.clone());
        async move {
            let Some((slot, bus)) = bus else { return Told::NotDone };
            let from = sim.end(&id).await;
            let send = bus.send(&id, command.clone()).command_id(&command_id).expect(expected);
            let answer = tokio::time::timeout(patience, send.into_future()).await;
            let duplicate = matches!(&answer, Ok(Ok(receipt)) if receipt.duplicate);
            let told = match answer {
                Ok(Ok(receipt)) => Told::Accepted {
                    version: receipt.version.get(),
                    events: receipt.events,
                    offset: receipt.position.offset,
                },
                Ok(Err(SendError::Refused(No::TooFew { sum }))) => Told::TooFew { sum },
                Ok(Err(SendError::Conflict { actual, .. })) => Told::Conflict { actual: actual.get() },
                Ok(Err(SendError::CommandIdReused)) => Told::Reused,
                Ok(Err(SendError::NotDone(_))) => Told::NotDone,
                Ok(Err(SendError::OutcomeUnknown { .. })) | Err(_) => Told::Unknown,
                Ok(Err(error)) => Told::Wrong(error.to_string()),
            };
            let to = sim.end(&id).await;
            let call = Call { slot, id, command_id, command, expected, from, to, told: told.clone(), duplicate };
            sim.history.lock().unwrap().push(call);
            told
        }
    }
}
