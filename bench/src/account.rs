//! The aggregate that is measured, and sending to it through the bus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use es_core::{
    Aggregate, AggregateKey, Apply, Bus, Command, Context, Event, Handle, Position, Receipt, SendError, partition_of,
};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::Failure;
use crate::load::Work;

#[derive(Debug, Clone, Serialize, Deserialize, Event)]
#[event(aggregate = "account")]
pub(crate) enum AccountEvent {
    #[event(name = "deposited")]
    Deposited { amount: i64, reference: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, Command)]
pub(crate) enum AccountCommand {
    Deposit { amount: i64, reference: String },
}

#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
pub(crate) enum AccountError {
    #[error("the amount is not above 0")]
    Amount,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize, Aggregate)]
#[aggregate(
    context = "bank", name = "account", id = String,
    command = AccountCommand, event = AccountEvent, error = AccountError
)]
pub(crate) struct Account {
    balance: i64,
}

impl Handle for Account {
    fn handle(&self, command: AccountCommand, _: &Context) -> Result<Vec<AccountEvent>, AccountError> {
        let AccountCommand::Deposit { amount, reference } = command;
        if amount <= 0 {
            return Err(AccountError::Amount);
        }
        Ok(vec![AccountEvent::Deposited { amount, reference }])
    }
}

impl Apply for Account {
    fn apply(&mut self, event: &AccountEvent) {
        let AccountEvent::Deposited { amount, .. } = event;
        self.balance += amount;
    }
}

/// Commands that were given a key.
static SENT: AtomicU64 = AtomicU64::new(0);

/// Deposits through the bus.
#[derive(Clone)]
pub(crate) struct Deposits {
    bus: Bus<Account>,
    ids: Arc<Vec<String>>,
    /// Gives commands ids of their sender's, as whoever may send them again does; begins with this text.
    keys: Option<Arc<str>>,
}

impl Deposits {
    pub(crate) fn new(bus: Bus<Account>, accounts: usize) -> Self {
        Self { bus, ids: Arc::new((0..accounts).map(|number| format!("account-{number:06}")).collect()), keys: None }
    }

    /// The same where each command has an id of its sender's, under which it is looked up.
    pub(crate) fn with_keys(self) -> Self {
        Self { keys: Some(es_tests::unique_name("key").into()), ..self }
    }

    /// To those of the accounts that live in these partitions.
    pub(crate) fn to_partitions(bus: Bus<Account>, accounts: usize, partitions: &[u32]) -> Self {
        let all = Self::new(bus, accounts);
        let count = all.bus.source().partitions;
        let there = |id: &&String| partitions.contains(&partition(id, count));
        let ids = Arc::new(all.ids.iter().filter(there).cloned().collect());
        Self { ids, ..all }
    }

    async fn send(&self, place: usize) -> Result<Receipt, SendError<AccountError>> {
        let command = AccountCommand::Deposit { amount: 1_250, reference: "salary".into() };
        let sending = self.bus.send(&self.ids[place % self.ids.len()], command).actor("bench");
        match &self.keys {
            None => sending.await,
            Some(keys) => sending.command_id(format!("{keys}-{}", SENT.fetch_add(1, Ordering::Relaxed))).await,
        }
    }

    /// One deposit that may fail.
    pub(crate) async fn try_once(&self, place: usize) -> Result<(), SendError<AccountError>> {
        self.send(place).await.map(drop)
    }

    /// One deposit, and where its event is.
    pub(crate) async fn position(&self, place: usize) -> Position {
        self.send(place).await.expect("a deposit is accepted by a quiet system").position
    }

    /// So many deposits, spread over the accounts in turn.
    pub(crate) async fn fill(&self, count: usize) -> Result<(), Failure> {
        const SENDERS: usize = 1_024;
        let mut senders = JoinSet::new();
        for sender in 0..SENDERS {
            let deposits = self.clone();
            senders.spawn(async move {
                for place in (sender..count).step_by(SENDERS) {
                    deposits.once(place).await;
                }
            });
        }
        while let Some(ended) = senders.join_next().await {
            ended?;
        }
        Ok(())
    }
}

impl Work for Deposits {
    async fn once(&self, place: usize) {
        self.try_once(place).await.expect("a deposit is accepted by a quiet system");
    }
}

/// Where an account lives.
fn partition(id: &str, partitions: u32) -> u32 {
    partition_of(&AggregateKey::new(id).expect("a short text"), partitions)
}
