//! Many accounts at once, each in the order of the file.
//!
//! Every account belongs to one lane, and a lane sends its next command when the one before is answered. So the order
//! holds through retries too, and the lanes together fill the rounds of the owners.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use es_core::{Bus, NotDone, Receipt, SendError, Sending};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::pkdd99::{Direction, Opening, Transaction};
use super::report::Report;
use crate::domain::{Account, AccountCommand, AccountError, AccountId, Money};
use crate::failure::Failure;
use crate::time::midnight;

/// Commands in flight.
const LANES: usize = 2_048;
/// Rows that wait in a lane: a few, so that the lanes stay busy where an account has several rows in a row.
const WAITING: usize = 32;
/// What an imported account may owe: 10,000,000.00. History is told, not judged, and a part of it may begin anywhere.
const OVERDRAFT: i64 = 1_000_000_000;
/// How long a command is sent again before the import gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Who sends the commands of an import.
pub(super) const ACTOR: &str = "import";

/// What a lane is given.
pub(super) enum Item {
    Open(Opening),
    Transaction(Transaction),
}

/// All lanes.
pub(super) struct Lanes {
    sender: Sender,
    lanes: JoinSet<Result<usize, Failure>>,
}

/// Hands items to their lanes, from a thread that may block.
#[derive(Clone)]
pub(super) struct Sender(Arc<[mpsc::Sender<Item>]>);

impl Lanes {
    pub(super) fn start(bus: &Bus<Account>, report: &Arc<Report>, correlation: &str) -> Self {
        let mut lanes = JoinSet::new();
        let open = |_| {
            let (sender, items) = mpsc::channel(WAITING);
            let lane = Lane {
                bus: bus.clone(),
                report: report.clone(),
                correlation: correlation.into(),
                opened: HashSet::new(),
            };
            lanes.spawn(lane.run(items));
            sender
        };
        let sender = Sender((0..LANES).map(open).collect());
        Self { sender, lanes }
    }

    pub(super) fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Waits until everything was answered; tells how many accounts there were.
    pub(super) async fn finish(self) -> Result<usize, Failure> {
        let Self { sender, mut lanes } = self;
        drop(sender);
        let mut accounts = 0;
        while let Some(done) = lanes.join_next().await {
            accounts += done??;
        }
        Ok(accounts)
    }
}

impl Sender {
    /// False when the lane has failed: then nothing more is to be sent.
    pub(super) fn send(&self, item: Item) -> bool {
        let account = match &item {
            Item::Open(opening) => opening.account,
            Item::Transaction(transaction) => transaction.account,
        };
        self.0[(account % LANES as u64) as usize].blocking_send(item).is_ok()
    }
}

#[cfg(test)]
impl Sender {
    /// All lanes are this one.
    pub(super) fn of_one(items: mpsc::Sender<Item>) -> Self {
        Self(vec![items; LANES].into())
    }
}

struct Lane {
    bus: Bus<Account>,
    report: Arc<Report>,
    correlation: Arc<str>,
    /// Accounts that this import has seen to be open.
    opened: HashSet<u64>,
}

impl Lane {
    async fn run(mut self, mut items: mpsc::Receiver<Item>) -> Result<usize, Failure> {
        while let Some(item) = items.recv().await {
            match item {
                Item::Open(opening) => self.open(opening).await?,
                Item::Transaction(transaction) => self.send(transaction).await?,
            }
        }
        Ok(self.opened.len())
    }

    async fn open(&mut self, Opening { account, date, district }: Opening) -> Result<(), Failure> {
        if !self.opened.insert(account) {
            return Ok(());
        }
        let open = AccountCommand::Open {
            owner: format!("Account {account}"),
            overdraft_limit: Money::new(OVERDRAFT)?,
            branch: district.map(|district| district.to_string()),
        };
        let send = || {
            let command = self.bus.send(&id_of(account)?, open.clone()).command_id(format!("open-{account}"));
            Ok(command.occurred_at(midnight(date)))
        };
        match self.deliver(send).await? {
            Ok(_) => {}
            // Opened before, perhaps by an import with the accounts' file where this one has none, or the other way
            // round: the id is the same, and then it was used for other contents. It is open, and stays as it is.
            Err(SendError::Refused(AccountError::AlreadyOpen) | SendError::CommandIdReused) => {
                if district.is_some() {
                    self.report.opened_otherwise();
                }
            }
            Err(error) => self.report.note(&format!("account {account} was not opened: {}", reason(&error))),
        }
        Ok(())
    }

    async fn send(&mut self, transaction: Transaction) -> Result<(), Failure> {
        let Transaction { line, id, account, date, direction, amount, reference } = transaction;
        self.open(Opening { account, date, district: None }).await?;
        let command = match direction {
            Direction::Credit => AccountCommand::Deposit {
                amount,
                reference,
                #[cfg(next_release)]
                note: None,
            },
            Direction::Debit => AccountCommand::Withdraw { amount, reference, fee: None },
        };
        let send = || {
            let command = self.bus.send(&id_of(account)?, command.clone()).command_id(command_id(id));
            Ok(command.occurred_at(midnight(date)))
        };
        match self.deliver(send).await? {
            Ok(receipt) => self.report.done(receipt.duplicate),
            Err(error) => self.report.refused(&format!("line {line} refused: {}", reason(&error))),
        }
        Ok(())
    }

    /// Sends until there is an answer that stays: what was not done, or may have been, is sent again with the same id.
    async fn deliver(
        &self,
        send: impl Fn() -> Result<Sending<Account>, Failure>,
    ) -> Result<Result<Receipt, SendError<AccountError>>, Failure> {
        let (started, mut pause) = (Instant::now(), Duration::from_millis(5));
        loop {
            let command = send()?.correlation_id(&self.correlation).actor(ACTOR);
            let error = match command.await {
                Err(error) if error.is_retryable() => error,
                answer => return Ok(answer),
            };
            let hopeless = matches!(error, SendError::NotDone(NotDone::Stopped));
            if hopeless || started.elapsed() > PATIENCE {
                let what = "sending a command failed, and importing the file again goes on where this stopped";
                return Err(Failure::because(what, &error));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }
}

/// The command id of a transaction.
pub(super) fn command_id(trans_id: u64) -> String {
    format!("pkdd99-{trans_id}")
}

fn id_of(account: u64) -> Result<AccountId, Failure> {
    Ok(account.to_string().parse()?)
}

fn reason(error: &SendError<AccountError>) -> String {
    match error {
        SendError::CommandIdReused => "its trans_id was imported before with other contents".into(),
        error => es_core::with_causes(error),
    }
}
