//! What the folds make of commands, through a bus and a log in memory, whatever the size of the batches.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use es_core::{Aggregate, AggregateKey, Bus, Engine, EventSource, ExpectedVersion, SendError, Version};
use es_projections::audit::{AuditTrail, Query, RefusedQuery};
use es_projections::{AsOf, Database, ReadModel, RunningProjection, Worker};

use super::*;
use crate::domain::{AccountCommand, AccountCommand as Command, Money, Status};

const SOON: Duration = Duration::from_secs(20);

struct Bench {
    engine: Engine,
    bus: Bus<Account>,
    database: Database,
}

impl Bench {
    async fn new() -> Self {
        let engine = Engine::in_memory();
        let bus = engine.start::<Account>().await.unwrap();
        bus.ready().await.unwrap();
        Self { engine, bus, database: Database::connect("sqlite::memory:", "bank").await.unwrap() }
    }

    async fn send(&self, account: &str, day: &str, command: AccountCommand) {
        let sent = self.bus.send(&account.parse().unwrap(), command).occurred_at(time(day));
        sent.await.unwrap();
    }

    fn worker(&self, batch: usize) -> Worker {
        let source = EventSource::of::<Account>(Account::CONTEXT, 4);
        Worker::new(self.database.clone(), self.engine.log().clone(), vec![source]).batch_max(batch)
    }

    /// All rows of both projections, folded in batches of this size.
    async fn rows(&self, batch: usize) -> (Vec<AccountRow>, Vec<BranchTotal>, Vec<StatementLine>, Vec<DailyBalance>) {
        for name in ["accounts", "statements"] {
            self.database.remove_projection(name).await.unwrap();
        }
        let worker = self.worker(batch);
        caught_up(worker.start(accounts()).await.unwrap()).await;
        caught_up(worker.start(statements()).await.unwrap()).await;
        (
            self.database.rows("ORDER BY id", &[]).await.unwrap(),
            self.database.rows("ORDER BY branch", &[]).await.unwrap(),
            self.database.rows("ORDER BY account, version", &[]).await.unwrap(),
            self.database.rows("ORDER BY account, day", &[]).await.unwrap(),
        )
    }
}

async fn caught_up(worker: RunningProjection) {
    worker.catch_up(SOON).await.unwrap();
    let status = worker.status().await;
    assert_eq!(status.parked, 0, "{}", worker.projection());
    worker.stop().await.unwrap();
}

fn key(text: &str) -> AggregateKey {
    text.parse().unwrap()
}

fn money(minor_units: i64) -> Money {
    Money::new(minor_units).unwrap()
}

fn day(text: &str) -> NaiveDate {
    text.parse().unwrap()
}

fn time(text: &str) -> DateTime<Utc> {
    crate::time::last_of(text).unwrap()
}

fn open(owner: &str, branch: Option<&str>) -> Command {
    Command::Open { owner: owner.into(), overdraft_limit: money(100), branch: branch.map(String::from) }
}

fn deposit(amount: i64) -> Command {
    Command::Deposit {
        amount: money(amount),
        reference: Some("sa\0lary".into()),
        #[cfg(next_release)]
        note: None,
    }
}

fn withdraw(amount: i64) -> Command {
    Command::Withdraw { amount: money(amount), reference: None, fee: None }
}

async fn some_business() -> Bench {
    let bench = Bench::new().await;
    bench.send("1", "1993-01-01", open("A\0da", Some("Pra\0ha"))).await;
    bench.send("1", "1993-01-03", deposit(500)).await;
    bench.send("2", "1993-01-02", open("Bob", Some("Pra\0ha"))).await;
    bench.send("2", "1993-01-03", deposit(70)).await;
    // Business dates come in any order.
    bench.send("1", "1993-01-02", withdraw(30)).await;
    bench.send("1", "1993-01-02", deposit(10)).await;
    bench.send("2", "1993-01-04", withdraw(70)).await;
    bench.send("2", "1993-01-04", Command::Close).await;
    bench.send("3", "1993-01-04", open("Cleo", None)).await;
    bench.send("3", "1993-01-05", deposit(7)).await;
    bench
}

#[tokio::test]
async fn accounts_and_branches_are_what_their_events_made_of_them() {
    let bench = some_business().await;
    let (accounts, branches, ..) = bench.rows(2_000).await;
    let account = |row: &AccountRow| {
        let AccountRow { id, owner, balance, status, version, branch, .. } = row.clone();
        (id, owner, balance.get(), status, version.get(), branch)
    };
    let zero = "\u{fffd}";
    let praha = || Some(format!("Pra{zero}ha"));
    let expected = [
        (key("1"), format!("A{zero}da"), 480, Status::Open, 4, praha()),
        (key("2"), "Bob".into(), 0, Status::Closed, 4, praha()),
        (key("3"), "Cleo".into(), 7, Status::Open, 2, None),
    ];
    assert_eq!(accounts.iter().map(account).collect::<Vec<_>>(), expected);
    assert_eq!((accounts[0].overdraft_limit, accounts[0].opened_at), (money(100), time("1993-01-01")));
    assert_eq!(branches, [BranchTotal { branch: praha().unwrap(), accounts: 1, balance: 480 }]);
}

#[tokio::test]
async fn a_statement_has_every_movement_and_each_day_its_sums() {
    let bench = some_business().await;
    let (.., lines, daily) = bench.rows(2_000).await;
    let line = |row: &StatementLine| (row.version.get(), row.amount.get(), row.event_type.clone());
    let first: Vec<_> = lines.iter().filter(|line| line.account == key("1")).map(line).collect();
    let kinds = ["opened", "deposited", "withdrawn", "deposited"].map(Arc::from);
    let expected: Vec<_> =
        (1..).zip([0, 500, -30, 10]).zip(kinds).map(|((version, by), kind)| (version, by, kind)).collect();
    assert_eq!(first, expected);
    assert_eq!(lines[1].reference.as_deref(), Some("sa\u{fffd}lary"));
    assert_eq!(lines[2].occurred_at, time("1993-01-02"));

    let first: Vec<_> = daily.iter().filter(|daily| daily.account == key("1")).cloned().collect();
    let account = || key("1");
    let expected = [
        DailyBalance { account: account(), day: day("1993-01-02"), money_in: 10, money_out: 30, change: -20 },
        DailyBalance { account: account(), day: day("1993-01-03"), money_in: 500, money_out: 0, change: 500 },
    ];
    assert_eq!(first, expected, "an opening moves nothing");
    assert_eq!(daily.iter().map(|daily| daily.change).sum::<i64>(), 487);
}

#[tokio::test]
async fn the_rows_are_the_same_whatever_the_size_of_the_batches() {
    let bench = some_business().await;
    let at_once = bench.rows(2_000).await;
    for batch in [1, 2, 3] {
        assert_eq!(bench.rows(batch).await, at_once, "in batches of {batch}");
    }
}

#[tokio::test]
async fn balances_at_a_business_time_are_sums_that_may_leave_out_versions() {
    let bench = some_business().await;
    let worker = bench.worker(3);
    let at = async |day: &str| {
        let built = worker.as_of(balances(), &AsOf::Occurred(time(day)), day, |_| {}).await.unwrap();
        let rows = built.database().rows::<BalanceRow>("ORDER BY account", &[]).await.unwrap();
        assert!(bench.database.remove_as_of(BalanceRow::NAME, day).await.unwrap());
        let told = |row: BalanceRow| (row.account.clone(), row.balance, row.version().map_or(0, Version::get));
        rows.into_iter().map(told).collect::<Vec<_>>()
    };
    assert_eq!(at("1992-12-31").await, []);
    // Versions 1, 3 and 4: the deposit of version 2 took place a day later, so no version left it so.
    assert_eq!(at("1993-01-02").await, [(key("1"), -20, 0), (key("2"), 0, 1)]);
    assert_eq!(at("1993-01-03").await, [(key("1"), 480, 4), (key("2"), 70, 2)]);
    assert_eq!(at("1993-01-04").await, [(key("1"), 480, 4), (key("2"), 0, 4), (key("3"), 0, 1)]);
}

/// Shows: who was refused what, when and why is in the trail, each attempt once, whatever the size of the batches; and is no event.
#[tokio::test]
async fn what_was_refused_is_in_the_trail() {
    let bench = Bench::new().await;
    bench.send("a", "1993-01-01", open("Ada", None)).await;
    let id = "a".parse().unwrap();
    let withdraw = |amount| Command::Withdraw { amount: money(amount), reference: None, fee: None };
    for _ in 0..2 {
        let greedy = bench.bus.send(&id, withdraw(1_000)).command_id("greedy").actor("teller 7");
        let refused = greedy.correlation_id("corr").causation_id("cause").await;
        assert!(matches!(refused, Err(SendError::Refused(_))), "{refused:?}");
    }
    let stale = bench.bus.send(&id, withdraw(1)).command_id("stale").expect(ExpectedVersion::NoStream).await;
    assert!(stale.unwrap_err().is_conflict());
    bench
        .bus
        .send(&id, Command::Reserve { id: "a".into(), owner: "x".into(), overdraft_limit: money(0) })
        .await
        .unwrap();
    bench.bus.send(&"nobody".parse().unwrap(), withdraw(1)).await.unwrap_err();
    let source = EventSource::of::<Account>(Account::CONTEXT, 4);
    let mut before = None;
    for batch in [1, 2, 100] {
        bench.database.remove_projection("audit").await.unwrap();
        let trail = AuditTrail::new(std::slice::from_ref(&source));
        caught_up(bench.worker(batch).start(trail).await.unwrap()).await;
        let events = Query::default().run(&bench.database).await.unwrap().entries;
        assert_eq!(events.len(), 1);
        let mut all = Vec::new();
        let mut query = RefusedQuery { limit: 1, ..RefusedQuery::default() };
        loop {
            let page = query.run(&bench.database).await.unwrap();
            all.extend(page.refused);
            query.cursor = page.next;
            if query.cursor.is_none() {
                break;
            }
        }
        assert_eq!(all.len(), 3, "{all:?}");
        let one = |query: RefusedQuery| {
            let database = bench.database.clone();
            async move { query.run(&database).await.unwrap().refused }
        };
        let of_actor = one(RefusedQuery { actor: Some("teller 7".parse().unwrap()), ..RefusedQuery::default() }).await;
        let [greedy] = of_actor.as_slice() else { panic!("{of_actor:?}") };
        assert_eq!((greedy.stream.id.as_str(), greedy.command_id.as_str()), ("a", "greedy"));
        assert_eq!((greedy.command_type.as_deref(), greedy.answer.as_str()), (Some("withdraw"), "refused"));
        assert_eq!(greedy.causation_id.as_ref().map(|id| id.as_str()), Some("cause"));
        assert_eq!(greedy.version.get(), 1);
        assert!(serde_json::from_str::<crate::domain::AccountError>(&greedy.reason).is_ok(), "{}", greedy.reason);
        let of_talk = one(RefusedQuery { correlation: Some("corr".parse().unwrap()), ..RefusedQuery::default() }).await;
        assert_eq!(of_talk, of_actor);
        let of_command = one(RefusedQuery { command: Some("stale".parse().unwrap()), ..RefusedQuery::default() }).await;
        assert_eq!((of_command.len(), of_command[0].answer.as_str()), (1, "conflict"));
        let account = Some(crate::audit::stream(key("a")));
        assert_eq!(one(RefusedQuery { aggregate: account, ..RefusedQuery::default() }).await.len(), 2);
        let late = Some(greedy.recorded_at + TimeDelta::days(1));
        assert!(one(RefusedQuery { from: late, ..RefusedQuery::default() }).await.is_empty());
        assert_eq!(*before.get_or_insert_with(|| all.clone()), all);
    }
    let other = RefusedQuery { cursor: Some("x".into()), ..RefusedQuery::default() }.run(&bench.database).await;
    assert!(matches!(other, Err(es_projections::Error::Invalid(_))), "{other:?}");
}
