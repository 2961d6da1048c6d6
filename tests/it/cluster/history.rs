//! What senders did and were told, with the times at which they began and ended.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What a sender wants of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Open,
    Deposit(i64),
    Withdraw(i64),
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
