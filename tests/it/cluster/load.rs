//! Senders that want definite answers: each command goes to random processes with one key until it has one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use reqwest::Client;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::history::{Answer, Call, Command, History};
use super::nodes::{Address, Cluster, Release};

const SENDERS: u64 = 24;
/// One in so many sends deposits with a note, where there are processes that may know it. While no owner of an account
/// does, it goes on with other accounts and tries again now and then.
const NOTES_OF: u64 = 4;
/// Few, so that senders meet.
const ACCOUNTS: u64 = 12;
/// How long a command is tried after the load was told to end, and everything runs again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Senders at work.
pub(crate) struct Load {
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    senders: JoinSet<()>,
}

impl Load {
    /// Opens the accounts and begins.
    pub(crate) async fn start(cluster: &Cluster, seed: u64) -> Load {
        let (history, stop) = (Arc::new(History::new()), Arc::new(AtomicBool::new(false)));
        let mut load = Load { history, stop, senders: JoinSet::new() };
        let random = |number| fastrand::Rng::with_seed(seed.wrapping_mul(1_000) + number);
        let mut first = load.sender(cluster, SENDERS, random(SENDERS));
        for number in 0..ACCOUNTS {
            let key = first.key();
            first.definitely(&key, &account(number), &Command::Open).await;
        }
        for number in 0..SENDERS {
            let sender = load.sender(cluster, number, random(number));
            load.senders.spawn(sender.work());
        }
        load
    }

    fn sender(&self, cluster: &Cluster, number: u64, random: fastrand::Rng) -> Sender {
        Sender {
            number,
            random,
            processes: cluster.addresses(),
            notes: cluster.releases.contains(&Release::Next) && number.is_multiple_of(NOTES_OF),
            client: cluster.client.clone(),
            history: self.history.clone(),
            stop: self.stop.clone(),
            sent: 0,
            owed: Vec::new(),
        }
    }

    /// Waits until this many more calls were answered: the proof that the bank works now.
    pub(crate) async fn goes_on(&self, answers: usize) {
        let enough = self.history.answered() + answers;
        let what = format!("{answers} more answers");
        es_tests::eventually(&what, PATIENCE, async || (self.history.answered() >= enough).then_some(())).await;
    }

    /// Since the first command.
    pub(crate) fn now(&self) -> Duration {
        self.history.now()
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.history.calls()
    }

    /// Sends the first commands that were answered once more; the checker holds the answers against those of then.
    pub(crate) async fn repeat(&self, cluster: &Cluster, commands: usize) {
        let mut sender = self.sender(cluster, SENDERS, fastrand::Rng::new());
        let calls = self.calls();
        for call in calls.iter().filter(|call| call.answer.is_definite()).take(commands) {
            sender.definitely(&call.key, &call.account, &call.command).await;
        }
    }

    /// Lets every sender finish its command.
    pub(crate) async fn finish(&mut self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        let finished =
            async { while self.senders.join_next().await.transpose().expect("senders do not panic").is_some() {} };
        if tokio::time::timeout(PATIENCE, finished).await.is_err() {
            println!("some senders have waited {PATIENCE:?} for an answer in vain");
        }
        self.history.calls()
    }
}

fn account(number: u64) -> String {
    format!("a{number}")
}

struct Sender {
    number: u64,
    random: fastrand::Rng,
    processes: Arc<[Address]>,
    /// Whether it sends deposits with a note.
    notes: bool,
    client: Client,
    history: Arc<History>,
    stop: Arc<AtomicBool>,
    sent: u64,
    /// Deposits with a note that have no definite answer yet: their keys, accounts and commands, one of each account.
    owed: Vec<(String, String, Command)>,
}

impl Sender {
    async fn work(mut self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.work_once().await;
            self.pause(20).await;
        }
        for (key, account, command) in std::mem::take(&mut self.owed) {
            self.definitely(&key, &account, &command).await;
        }
    }

    async fn work_once(&mut self) {
        if !self.owed.is_empty() && self.random.u8(..3) == 0 {
            let place = self.random.usize(..self.owed.len());
            let (key, account, command) = self.owed[place].clone();
            if self.call(&key, &account, &command).await {
                self.owed.swap_remove(place);
            }
            return;
        }
        let account = account(self.random.u64(..ACCOUNTS));
        let command = self.some_command();
        let key = self.key();
        if command.has_note() {
            let is_owed = self.owed.iter().any(|(_, owed, _)| *owed == account);
            if !is_owed && !self.call(&key, &account, &command).await {
                self.owed.push((key, account, command));
            }
            return;
        }
        self.definitely(&key, &account, &command).await;
        if self.random.u8(..10) == 0 {
            self.call(&key, &account, &command).await; // whether it is answered or not
        }
    }

    fn some_command(&mut self) -> Command {
        match self.random.u8(..10) {
            0..5 => {
                let note = (self.notes && self.random.bool()).then(|| format!("of {} to {}", self.number, self.sent));
                Command::Deposit { amount: self.random.i64(1..100), note }
            }
            5..8 => Command::Withdraw { amount: self.random.i64(1..150), fee: None },
            _ => Command::Withdraw { amount: self.random.i64(1..150), fee: Some(self.random.i64(1..10)) },
        }
    }

    fn key(&mut self) -> String {
        self.sent += 1;
        format!("s{}-{}", self.number, self.sent)
    }

    /// Sends until the answer is definite.
    async fn definitely(&mut self, key: &str, account: &str, command: &Command) {
        while !self.call(key, account, command).await {
            self.pause(100).await;
        }
    }

    /// One attempt at a random process of a release that knows the command; whether no other is needed.
    async fn call(&mut self, key: &str, account: &str, command: &Command) -> bool {
        let knows = |address: &&Address| address.release == Release::Next || !command.has_note();
        let knowing: Vec<&Address> = self.processes.iter().filter(knows).collect();
        let Address { process, url, .. } = knowing[self.random.usize(..knowing.len())].clone();
        // Impatient senders leave commands behind that nobody waits for, patient ones learn what such a command came to.
        let patience = Duration::from_millis([300, 2_000, 2_000, 10_000][self.random.usize(..4)]);
        let (called_ms, called) = (now_ms(), self.history.now());
        let answer = attempt(&self.client, &url, key, account, command, patience).await;
        let returned = self.history.now();
        let done = answer.is_definite() || matches!(answer, Answer::Wrong(_));
        let (key, account, command) = (key.to_owned(), account.to_owned(), command.clone());
        self.history.add(Call { process, key, account, command, called_ms, called, returned, answer });
        done
    }

    async fn pause(&mut self, at_most_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.random.u64(..at_most_ms))).await;
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_millis()).expect("milliseconds in 64 bits")
}

async fn attempt(
    client: &Client,
    url: &str,
    key: &str,
    account: &str,
    command: &Command,
    patience: Duration,
) -> Answer {
    let (path, mut body) = match command {
        Command::Open => ("/api/accounts".into(), json!({ "id": account, "owner": "Ada" })),
        Command::Deposit { amount, note } => {
            (format!("/api/accounts/{account}/deposits"), json!({ "amount": amount, "note": note }))
        }
        Command::Withdraw { amount, fee } => {
            (format!("/api/accounts/{account}/withdrawals"), json!({ "amount": amount, "fee": fee }))
        }
    };
    // This release knows no notes, not even that there is none.
    body.as_object_mut().expect("each body is an object").retain(|_, member| !member.is_null());
    let request = client.post(format!("{url}{path}")).header("Idempotency-Key", key).json(&body).timeout(patience);
    let answered = async {
        let answer = request.send().await?;
        let status = answer.status().as_u16();
        Ok::<_, reqwest::Error>((status, answer.text().await?))
    };
    match answered.await {
        Ok((status, text)) => understand(status, &text),
        // A refused connection proves that nothing was sent; no other error proves anything.
        Err(error) if error.is_connect() => Answer::NotDone(format!("{error:?}")),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

fn understand(status: u16, text: &str) -> Answer {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let word = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
    match (status, body["version"].as_u64(), body["duplicate"].as_bool()) {
        (201, Some(version), Some(duplicate)) => Answer::Accepted { version, position: word("position"), duplicate },
        (422, ..) if word("code") == "insufficient-funds" => {
            Answer::Refused { code: word("code"), detail: word("detail") }
        }
        (503, ..) => Answer::NotDone(word("detail")),
        (504, ..) => Answer::Unknown(word("detail")),
        _ => Answer::Wrong(format!("{status} {text}")),
    }
}

/// What a load came to, for people.
pub(crate) fn summary(calls: &[Call]) -> String {
    let mut definite: Vec<&Call> = calls.iter().filter(|call| call.answer.is_definite()).collect();
    definite.sort_by_key(|call| call.returned);
    let gap = definite.windows(2).map(|two| two[1].returned - two[0].returned).max().unwrap_or_default();
    let mut waits: BTreeMap<&str, (Duration, Duration)> = BTreeMap::new();
    for call in &definite {
        waits.entry(&call.key).or_insert((call.called, call.returned));
    }
    for call in calls {
        waits.entry(&call.key).and_modify(|(called, _)| *called = (*called).min(call.called));
    }
    let longest = waits.values().map(|(called, returned)| *returned - *called).max().unwrap_or_default();
    let count = |of: fn(&Answer) -> bool| calls.iter().filter(|call| of(&call.answer)).count();
    format!(
        "{} commands, {} calls: {} accepted, {} refused, {} not done, {} unknown; longest silence {gap:.1?}, longest \
         wait of a command {longest:.1?}",
        waits.len(),
        calls.len(),
        count(|answer| matches!(answer, Answer::Accepted { .. })),
        count(|answer| matches!(answer, Answer::Refused { .. })),
        count(|answer| matches!(answer, Answer::NotDone(_))),
        count(|answer| matches!(answer, Answer::Unknown(_))),
    )
}
