//! Headers of requests: checked, and what is wrong with one names it.

use axum::http::HeaderMap;
use es_core::{
    Actor, CausationId, CommandId, CorrelationId, ExpectedVersion, Position, Receipt, SendError, Sending, Version,
};
use uuid::Uuid;

use super::problem::Problem;
use super::tags::Tags;
use crate::domain::{Account, AccountError};

const KEY_MAX: usize = 200;
/// The namespace of ids that are made of an `Idempotency-Key`. It must stay for ever.
const KEYS: Uuid = Uuid::from_u128(0x6b1d_58a0_3c52_4d0f_9a7e_21c4_5f0d_88e3);

/// What the headers of a command say.
#[derive(Debug)]
pub(super) struct CommandHeaders {
    key: Option<String>,
    condition: Condition,
    correlation: Option<CorrelationId>,
    causation: Option<CausationId>,
    actor: Option<Actor>,
    traceparent: Option<String>,
}

impl CommandHeaders {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let key = text(headers, "idempotency-key")?;
        if let Some(key) = &key
            && !(1..=KEY_MAX).contains(&key.chars().count())
        {
            return Err(Problem::bad_request(format!("Idempotency-Key: it must have 1 to {KEY_MAX} characters")));
        }
        Ok(Self {
            key,
            condition: Condition::of(headers)?,
            correlation: id(headers, "x-correlation-id")?,
            causation: id(headers, "x-causation-id")?,
            actor: id(headers, "x-actor")?,
            // By the standard a trace context that can't be read is as good as none.
            traceparent: text(headers, "traceparent").ok().flatten().filter(|value| is_traceparent(value)),
        })
    }

    /// The id of what the command makes: the same for the same key.
    pub(super) fn new_id(&self) -> Uuid {
        self.id_of_key().unwrap_or_else(Uuid::new_v4)
    }

    /// The id that is made of the key.
    pub(super) fn id_of_key(&self) -> Option<Uuid> {
        self.key.as_ref().map(|key| Uuid::new_v5(&KEYS, key.as_bytes()))
    }

    /// Gives the command its id, and nothing else of what the headers say.
    pub(super) fn identify(&self, command: Sending<Account>) -> Sending<Account> {
        match &self.key {
            Some(key) => command.command_id(command_id(key)),
            None => command,
        }
    }

    /// Sends the command, on one of the versions that the condition names. The condition is no part of what the key stands for:
    /// a command that took effect is answered so whatever the condition, and one that did not may be sent with another.
    pub(super) async fn send(&self, send: impl Fn() -> Sending<Account>) -> Result<Receipt, SendError<AccountError>> {
        let versions = match &self.condition {
            Condition::One(expected) => return self.apply(send()).expect(*expected).await,
            Condition::Versions(versions) => versions,
        };
        let mut expected = versions.first().map_or(Version::new(NEVER), |first| *first);
        let mut tries = versions.len();
        loop {
            tries = tries.saturating_sub(1);
            match self.apply(send()).expect(ExpectedVersion::Exactly(expected)).await {
                // Nothing was done, and it is another of those that are as good.
                Err(SendError::Conflict { actual, .. }) if tries > 0 && versions.contains(&actual) => expected = actual,
                answer => return answer,
            }
        }
    }

    fn apply(&self, command: Sending<Account>) -> Sending<Account> {
        let mut command = self.identify(command);
        if let Some(correlation) = &self.correlation {
            command = command.correlation_id(correlation.as_str());
        }
        if let Some(causation) = &self.causation {
            command = command.causation_id(causation.as_str());
        }
        if let Some(actor) = &self.actor {
            command = command.actor(actor.as_str());
        }
        if let Some(traceparent) = &self.traceparent {
            command = command.traceparent(traceparent);
        }
        command
    }
}

/// The position that a read model must contain.
pub(super) fn position(headers: &HeaderMap) -> Result<Option<Position>, Problem> {
    let parse = |text: String| text.parse().map_err(|error| Problem::bad_request(format!("ES-Position: {error}")));
    text(headers, "es-position")?.map(parse).transpose()
}

/// The key itself, or what stands for one that no command id can be: too many bytes, or a tab.
fn command_id(key: &str) -> String {
    if CommandId::new(key).is_ok() { key.into() } else { format!("key-{}", Uuid::new_v5(&KEYS, key.as_bytes())) }
}

/// What a command is decided on.
#[derive(Debug)]
pub(super) enum Condition {
    One(ExpectedVersion),
    /// Any of these versions; without any, on none.
    Versions(Vec<Version>),
}

impl Condition {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (matching, none) = (Tags::of(headers, "if-match")?, Tags::of(headers, "if-none-match")?);
        Ok(match (matching.map(|tags| tags.strong()), none) {
            (None, None) => Self::One(ExpectedVersion::Any),
            (Some(None), None) => Self::One(ExpectedVersion::StreamExists),
            (Some(Some(versions)), None) => Self::Versions(versions),
            (None, Some(Tags::Any)) => Self::One(ExpectedVersion::NoStream),
            (_, Some(_)) => {
                return Err(Problem::bad_request(
                    "if-none-match: with a command it can only be *, and without if-match",
                ));
            }
        })
    }
}

/// The version that no stream has.
const NEVER: u64 = i64::MAX as u64;

fn id<T: std::str::FromStr<Err: std::fmt::Display>>(headers: &HeaderMap, name: &str) -> Result<Option<T>, Problem> {
    let parse = |text: String| text.parse().map_err(|error| Problem::bad_request(format!("{name}: {error}")));
    text(headers, name)?.map(parse).transpose()
}

pub(super) fn text(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("{name}: it is given twice")));
    }
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.into())).map_err(|_| Problem::bad_request(format!("{name}: it is not UTF-8")))
}

/// All lines of a header as one list.
pub(super) fn list(headers: &HeaderMap, name: &str) -> Result<Option<String>, Problem> {
    let line = |value: &axum::http::HeaderValue| std::str::from_utf8(value.as_bytes()).map(str::to_owned);
    let lines: Result<Vec<_>, _> = headers.get_all(name).iter().map(line).collect();
    let lines = lines.map_err(|_| Problem::bad_request(format!("{name}: it is not UTF-8")))?;
    Ok((!lines.is_empty()).then(|| lines.join(", ")))
}

/// `00-<32 hex digits>-<16 hex digits>-<2 hex digits>`, of this or a later version.
fn is_traceparent(value: &str) -> bool {
    let parts: Vec<&str> = value.splitn(5, '-').collect();
    let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let lens: Vec<usize> = parts.iter().take(4).map(|part| part.len()).collect();
    value.len() <= 128 && lens == [2, 32, 16, 2] && parts.iter().take(4).all(|part| hex(part))
}
