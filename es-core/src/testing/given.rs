//! Given events, when a command, then events or a refusal: domain tests without a runtime or a log.

use std::fmt;

use chrono::{DateTime, Utc};

use crate::domain::aggregate::{Aggregate, Apply, Context, Event, Handle, Refusal};
use crate::domain::codec::{decode_event, encode_event};
use crate::domain::ids::{Actor, AggregateKey, CommandId, CorrelationId, Version};

/// An aggregate with a past; see [`given`].
#[derive(Debug, Clone)]
pub struct Given<A: Aggregate> {
    state: A,
    context: Context,
}

/// What came of a command; see [`Given::when`].
#[must_use = "say what should have come of it"]
#[derive(Debug)]
pub struct Outcome<A: Aggregate> {
    /// The state after the events.
    pub state: A,
    /// The events, or the refusal.
    pub result: Result<Vec<A::Event>, A::Error>,
}

/// An aggregate to which these events happened.
///
/// ```
/// use es_core::doc::{Account, AccountCommand, AccountError, AccountEvent};
/// use es_core::testing::given;
///
/// given::<Account>([AccountEvent::Deposited { amount: 5 }])
///     .when(AccountCommand::Withdraw { amount: 3 })
///     .then([AccountEvent::Withdrawn { amount: 3 }]);
///
/// given::<Account>([AccountEvent::Deposited { amount: 5 }])
///     .when(AccountCommand::Withdraw { amount: 8 })
///     .refused(AccountError::InsufficientFunds { balance: 5 });
/// ```
#[track_caller]
pub fn given<A: Handle + Apply>(events: impl IntoIterator<Item = A::Event>) -> Given<A> {
    let mut state = A::default();
    let mut version = Version::EMPTY;
    for event in events {
        state.apply(&stored::<A, _>(&event).expect("an event of the past can be stored and read"));
        version = version.next();
    }
    let now = DateTime::<Utc>::UNIX_EPOCH;
    let id = |text: &str| AggregateKey::new(text).expect("a valid id");
    let command_id = CommandId::new("command").expect("a valid id");
    let correlation_id = CorrelationId::new("command").expect("a valid id");
    let context =
        Context { aggregate: id("aggregate"), version, now, occurred_at: now, command_id, correlation_id, actor: None };
    Given { state, context }
}

/// An aggregate to which nothing has happened yet.
#[track_caller]
pub fn given_nothing<A: Handle + Apply>() -> Given<A> {
    given([])
}

impl<A: Handle + Apply> Given<A> {
    /// The time that the handler sees, as that of recording and as business time.
    #[must_use]
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        (self.context.now, self.context.occurred_at) = (now, now);
        self
    }

    /// Who sends the command.
    ///
    /// # Panics
    /// When `actor` is not a valid [`Actor`].
    #[must_use]
    #[track_caller]
    pub fn by(mut self, actor: &str) -> Self {
        self.context.actor = Some(Actor::new(actor).expect("a valid actor"));
        self
    }

    /// The id that the aggregate has.
    ///
    /// # Panics
    /// When `id` is not a valid [`AggregateKey`].
    #[must_use]
    #[track_caller]
    pub fn with_id(mut self, id: &str) -> Self {
        self.context.aggregate = AggregateKey::new(id).expect("a valid aggregate id");
        self
    }

    /// Handles a command, stores and reads its events as the log would, and applies them; or stores and reads its refusal.
    ///
    /// # Panics
    /// When the handler or `apply` panics, or when an event or a refusal is not the same after it was stored and read.
    #[track_caller]
    pub fn when(self, command: A::Command) -> Outcome<A> {
        let Self { mut state, context } = self;
        let result = state.handle(command, &context);
        for event in result.iter().flatten() {
            let read =
                stored::<A, _>(event).unwrap_or_else(|error| panic!("{event:?} can't be stored and read: {error}"));
            assert_eq!(show(&read), show(event), "an event is not the same after it was stored and read");
            state.apply(&read);
        }
        if let Err(refusal) = &result {
            let read = remembered(refusal)
                .unwrap_or_else(|error| panic!("the refusal {refusal:?} can't be stored and read: {error}"));
            assert_eq!(show(&read), show(refusal), "a refusal is not the same after it was stored and read");
        }
        Outcome { state, result }
    }
}

impl<A: Handle + Apply> Outcome<A> {
    /// Exactly these events came of it; none is a no-op.
    ///
    /// # Panics
    /// When it is not so; the message shows both.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = A::Event>) -> A {
        let expected: Vec<A::Event> = events.into_iter().collect();
        match &self.result {
            Ok(actual) => {
                let (actual, expected): (Vec<_>, Vec<_>) =
                    (actual.iter().map(show).collect(), expected.iter().map(show).collect());
                assert_eq!(actual, expected, "other events came of it");
            }
            Err(refusal) => panic!("refused with {refusal:?} ({refusal}), expected were the events {expected:?}"),
        }
        self.state
    }

    /// It was refused with this refusal.
    ///
    /// # Panics
    /// When it was not; the message shows both.
    #[track_caller]
    pub fn refused(self, refusal: A::Error)
    where
        A::Error: PartialEq,
    {
        match &self.result {
            Ok(events) => panic!("accepted with {events:?}, expected was the refusal {refusal:?}"),
            Err(actual) => assert!(
                *actual == refusal,
                "refused for another reason\n  actual: {actual:?} ({actual})\nexpected: {refusal:?} ({refusal})"
            ),
        }
    }
}

/// What a snapshot of it shows (`insta::assert_snapshot!`): the events as they are stored, a line each, or the refusal.
impl<A: Handle + Apply> fmt::Display for Outcome<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.result {
            Ok(events) if events.is_empty() => f.write_str("nothing happened"),
            Ok(events) => events.iter().try_for_each(|event| {
                let (kind, payload) = encode_event::<A::Codec, A::Event>(event).map_err(|_| fmt::Error)?;
                writeln!(f, "{} v{} {}", kind.name, kind.schema_version, String::from_utf8_lossy(&payload))
            }),
            Err(refusal) => write!(f, "refused: {refusal}"),
        }
    }
}

fn show<T: fmt::Debug>(value: &T) -> String {
    format!("{value:?}")
}

/// A refusal as another process, or a later one, gets it.
fn remembered<E: Refusal>(refusal: &E) -> Result<E, serde_json::Error> {
    serde_json::from_slice(&serde_json::to_vec(refusal)?)
}

fn stored<A: Aggregate<Event = E>, E: Event>(event: &E) -> Result<E, String> {
    let (kind, payload) = encode_event::<A::Codec, E>(event)?;
    decode_event::<A::Codec, E>(kind.name, kind.schema_version, &payload).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc::{Account, AccountCommand, AccountError, AccountEvent};

    #[test]
    fn an_outcome_shows_what_would_be_stored() {
        let outcome = given_nothing::<Account>().when(AccountCommand::Deposit { amount: 5 });
        insta::assert_snapshot!(outcome, @r#"deposited v1 {"amount":5}"#);
        let outcome = given_nothing::<Account>().when(AccountCommand::Withdraw { amount: 5 });
        insta::assert_snapshot!(outcome, @"refused: the balance is 0");
        let outcome = given_nothing::<Account>().when(AccountCommand::Deposit { amount: 0 });
        insta::assert_snapshot!(outcome, @"nothing happened");
    }

    #[test]
    #[should_panic(expected = "other events came of it")]
    fn other_events_fail_the_test() {
        given_nothing::<Account>()
            .when(AccountCommand::Deposit { amount: 5 })
            .then([AccountEvent::Deposited { amount: 6 }]);
    }

    #[test]
    #[should_panic(expected = "expected was the refusal")]
    fn an_accepted_command_is_not_a_refusal() {
        let no = AccountError::InsufficientFunds { balance: 5 };
        given_nothing::<Account>().when(AccountCommand::Deposit { amount: 5 }).refused(no);
    }

    #[test]
    #[should_panic(expected = "actual: InsufficientFunds { balance: 0 } (the balance is 0)")]
    fn another_refusal_is_told_with_both() {
        let other = AccountError::InsufficientFunds { balance: 5 };
        given_nothing::<Account>().when(AccountCommand::Withdraw { amount: 5 }).refused(other);
    }
}
