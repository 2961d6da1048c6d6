//! Given events, then rows: tests of folds without a log or a server. Behind the feature `testing`.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use es_core::{
    Aggregate, AggregateKey, Codec, CommandHash, CommandId, CorrelationId, Envelope, EventHash, EventId, Recorded,
    StreamId, Version, codec,
};

use crate::model::{Fold, Model, ReadModel};
use crate::projection::Projection;
use crate::sql::{Database, Value};

/// Events of any aggregates, for a read model; see [`given`].
#[must_use = "ask for the rows"]
pub struct Given<R> {
    model: Model<R>,
    events: Vec<Recorded>,
    streams: HashMap<StreamId, (Version, EventHash)>,
    now: DateTime<Utc>,
}

/// A read model without rows, to which events happen.
///
/// ```
/// # use es_core::doc::{Account, AccountEvent};
/// # use es_core::Recorded;
/// # use es_projections::{Fold, ProjectionError, ReadModel, Rows};
/// use es_projections::testing::given;
/// #
/// # #[derive(Debug, Clone, PartialEq, ReadModel)]
/// # #[read_model(name = "accounts")]
/// # struct AccountRow { #[key] id: String, balance: i64 }
/// #
/// # impl Fold<Account> for AccountRow {
/// #     fn fold(event: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
/// #         let id = recorded.envelope.stream.id.to_string();
/// #         let AccountEvent::Deposited { amount } = *event else { return Ok(()) };
/// #         let new = || AccountRow { id: id.clone(), balance: 0 };
/// #         rows.change_or_insert(&id, new, |row| row.balance += amount as i64)
/// #     }
/// # }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let rows = given::<AccountRow>()
///     .event::<Account>("1", AccountEvent::Deposited { amount: 5 })
///     .event::<Account>("1", AccountEvent::Deposited { amount: 3 })
///     .rows()
///     .await;
/// assert_eq!(rows, [AccountRow { id: "1".into(), balance: 8 }]);
/// # }
/// ```
pub fn given<R: ReadModel>() -> Given<R> {
    Given { model: Model::new(), events: Vec::new(), streams: HashMap::new(), now: DateTime::UNIX_EPOCH }
}

impl<R: ReadModel> Given<R> {
    /// One more event of the aggregate with this id. It is stored and read as the log would. Each is a second later than the one
    /// before.
    ///
    /// # Panics
    /// When `id` is not a valid [`AggregateKey`], or the event can't be stored and read.
    #[track_caller]
    pub fn event<A: Aggregate>(mut self, id: &str, event: A::Event) -> Self
    where
        R: Fold<A>,
    {
        if !self.model.follows_category(A::NAME) {
            self.model = self.model.follow::<A>();
        }
        let envelope = self.envelope::<A>(id, &event);
        envelope.event::<A>().unwrap_or_else(|error| panic!("{event:?} can't be read: {error}"));
        self.now = envelope.recorded_at + TimeDelta::seconds(1);
        self.streams.insert(envelope.stream.clone(), (envelope.version, envelope.hash));
        self.events.push(Recorded { partition: 0, offset: self.events.len() as u64, envelope });
        self
    }

    #[track_caller]
    fn envelope<A: Aggregate>(&self, id: &str, event: &A::Event) -> Envelope {
        let (kind, payload) = codec::encode_event::<A::Codec, A::Event>(event)
            .unwrap_or_else(|error| panic!("{event:?} can't be stored: {error}"));
        let id = AggregateKey::new(id).expect("a valid aggregate id");
        let stream = StreamId { category: A::NAME.into(), id };
        let (version, previous_hash) = self.streams.get(&stream).copied().unwrap_or_default();
        let mut envelope = Envelope {
            context: A::CONTEXT.into(),
            stream,
            version: version.next(),
            event_id: EventId::fresh(self.now.timestamp_millis().unsigned_abs()),
            event_type: kind.name.into(),
            schema_version: kind.schema_version,
            recorded_at: self.now,
            occurred_at: self.now,
            command_id: CommandId::random(),
            command_hash: CommandHash::default(),
            correlation_id: CorrelationId::new("conversation").expect("a valid id"),
            causation_id: None,
            actor: None,
            traceparent: None,
            content_type: A::Codec::CONTENT_TYPE.into(),
            payload: payload.into(),
            previous_hash,
            hash: EventHash::default(),
        };
        envelope.hash = envelope.compute_hash();
        envelope
    }

    /// What follows happens at this time: of recording, and in business.
    pub fn at(mut self, now: DateTime<Utc>) -> Self {
        self.now = now;
        self
    }

    /// As [`Model::with_rows`].
    pub fn with_rows<S: ReadModel>(mut self) -> Self {
        self.model = self.model.with_rows::<S>();
        self
    }

    /// The rows that the events give, in the order of their keys.
    ///
    /// The events are folded in three times: in one batch, one by one, and one aggregate after the other, the last one first. A worker
    /// may do each.
    ///
    /// # Panics
    /// When the fold fails, and when the rows are not the same each time; the message shows both.
    pub async fn rows(self) -> Vec<R> {
        let [together, apart, by_aggregate] = [self.in_one_batch(), self.one_by_one(), self.by_aggregate()];
        let rows = self.fold(together).await;
        let same = |how, other: &[R]| {
            let (one, other) = (values(&rows), values(other));
            assert!(
                one == other,
                "the rows of read model {} depend on {how}\n  in one batch: {one:?}\n otherwise: {other:?}",
                R::NAME
            );
        };
        same("which events come in one batch", &self.fold(apart).await);
        same("the order in which events of different aggregates come", &self.fold(by_aggregate).await);
        rows
    }

    fn in_one_batch(&self) -> Vec<Vec<Recorded>> {
        vec![self.events.clone()]
    }

    fn one_by_one(&self) -> Vec<Vec<Recorded>> {
        self.events.iter().map(|event| vec![event.clone()]).collect()
    }

    fn by_aggregate(&self) -> Vec<Vec<Recorded>> {
        let mut streams: Vec<(&StreamId, Vec<Recorded>)> = Vec::new();
        for event in &self.events {
            let stream = &event.envelope.stream;
            match streams.iter_mut().find(|(known, _)| *known == stream) {
                Some((_, events)) => events.push(event.clone()),
                None => streams.push((stream, vec![event.clone()])),
            }
        }
        streams.into_iter().rev().map(|(_, events)| events).collect()
    }

    async fn fold(&self, batches: Vec<Vec<Recorded>>) -> Vec<R> {
        let database = Database::connect("sqlite::memory:", "test").await.expect("SQLite opens in memory");
        let mut tx = database.begin().await.expect("a transaction begins");
        for table in self.model.tables() {
            tx.create(&table).await.expect("the table of a read model is made");
        }
        for batch in batches {
            let folded = self.model.project(&mut tx, &batch).await;
            folded.unwrap_or_else(|error| panic!("read model {} fails: {}", R::NAME, es_core::with_causes(&*error)));
        }
        tx.commit().await.expect("the transaction commits");
        let table = R::table();
        let keys: Vec<_> = table.key_columns().iter().map(|column| column.name.as_str()).collect();
        let rows = database.rows(&format!("ORDER BY {}", keys.join(", ")), &[]).await;
        rows.unwrap_or_else(|error| panic!("a row can't be read: {}", es_core::with_causes(&error)))
    }
}

fn values<R: ReadModel>(rows: &[R]) -> Vec<Vec<Value>> {
    rows.iter().map(|row| row.to_values().expect("what was read can be written")).collect()
}

#[cfg(test)]
mod tests {
    use es_core::doc::{Account, AccountEvent};

    use super::*;
    use crate::error::ProjectionError;
    use crate::model::Rows;

    /// The account that something happened to last, which depends on the order of accounts.
    #[derive(Debug, Clone, PartialEq, es_derive::ReadModel)]
    #[read_model(name = "last")]
    struct Last {
        #[key]
        one: i64,
        account: String,
    }

    impl Fold<Account> for Last {
        fn fold(_: &AccountEvent, recorded: &Recorded, rows: &mut Rows) -> Result<(), ProjectionError> {
            let account = recorded.envelope.stream.id.to_string();
            let new = || Last { one: 1, account: account.clone() };
            rows.change_or_insert(&1, new, |row| row.account = account.clone())
        }
    }

    const SOME: AccountEvent = AccountEvent::Deposited { amount: 5 };

    #[tokio::test]
    async fn events_of_one_aggregate_come_in_order() {
        let rows = given::<Last>().event::<Account>("1", SOME).event::<Account>("1", SOME).rows().await;
        assert_eq!(rows, [Last { one: 1, account: "1".into() }]);
    }

    #[tokio::test]
    #[should_panic(
        expected = "the rows of read model last depend on the order in which events of different aggregates"
    )]
    async fn a_fold_that_depends_on_the_order_of_aggregates_fails_the_test() {
        given::<Last>().event::<Account>("1", SOME).event::<Account>("2", SOME).rows().await;
    }
}
