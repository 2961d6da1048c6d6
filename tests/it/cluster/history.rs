//! What senders asked for and were told, with the times at which they began and ended.

use std::iter;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a sender wants of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Open,
    /// The note is known to the next release alone.
    Deposit {
        amount: i64,
        note: Option<String>,
    },
    /// With a fee it asks for two events.
    Withdraw {
        amount: i64,
        fee: Option<i64>,
    },
}

/// An event, as far as commands say what it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Opened,
    Deposited { amount: i64, note: Option<String> },
    Withdrawn { amount: i64, reference: Option<String> },
}

impl Event {
    /// What a program makes of it that does not know notes.
    pub(crate) fn without_note(&self) -> Event {
        match self {
            Self::Deposited { amount, .. } => Self::Deposited { amount: *amount, note: None },
            other => other.clone(),
        }
    }
}

impl Command {
    /// The events that it asks for, in their order.
    pub(crate) fn events(&self) -> Vec<Event> {
        match self {
            Self::Open => vec![Event::Opened],
            Self::Deposit { amount, note } => vec![Event::Deposited { amount: *amount, note: note.clone() }],
            Self::Withdraw { amount, fee } => {
                let withdrawn = Event::Withdrawn { amount: *amount, reference: None };
                let fee = fee.map(|amount| Event::Withdrawn { amount, reference: Some("fee".into()) });
                iter::once(withdrawn).chain(fee).collect()
            }
        }
    }

    pub(crate) fn has_note(&self) -> bool {
        matches!(self, Self::Deposit { note: Some(_), .. })
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Accepted {
        version: u64,
        position: String,
        duplicate: bool,
    },
    Refused {
        code: String,
        detail: String,
    },
    /// "Nothing was done, send again".
    NotDone(String),
    /// Nobody can tell: an answer that says so, none in time, or a connection that broke.
    Unknown(String),
    /// What no sender should ever be told.
    Wrong(String),
}

impl Answer {
    pub(crate) fn is_definite(&self) -> bool {
        matches!(self, Self::Accepted { .. } | Self::Refused { .. })
    }
}

/// One attempt of one sender at one process.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) process: String,
    pub(crate) key: String,
    pub(crate) account: String,
    pub(crate) command: Command,
    /// When it began, in milliseconds since 1970: on the clock that events are recorded by.
    pub(crate) called_ms: u64,
    /// Since the beginning of the history.
    pub(crate) called: Duration,
    pub(crate) returned: Duration,
    pub(crate) answer: Answer,
}

/// All calls of one load, on one clock.
#[derive(Debug)]
pub(crate) struct History {
    began: Instant,
    calls: Mutex<Vec<Call>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), calls: Mutex::default() }
    }

    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn add(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of calls with a definite answer so far.
    pub(crate) fn answered(&self) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|call| call.answer.is_definite()).count()
    }
}
