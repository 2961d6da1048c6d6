//! The real transactions go through the bus into the log and come out of SQL with the right balances, whatever is
//! killed in between.

use std::path::Path;
use std::time::Duration;

use es_core::log::Log as _;
use es_tests::{Proc, eventually, transactions};

use crate::bank::{Bank, LONG, Printed, printed};

/// How far the bank's printed balances, which it rounded inside, may be from ours: one crown.
const CROWN: i64 = 100;

/// Shows: each balance is the sum of the account's amounts to the haléř and agrees with what the bank printed, and a
/// second import changes nothing.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn importing_twice_embedded_gives_the_balances_of_the_bank() {
    import_twice(&Bank::embedded());
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn importing_twice_on_servers_gives_the_balances_of_the_bank() {
    import_twice(&Bank::on_servers().await);
}

/// Shows: killed again and again in the middle of an import, the next import goes on, and nothing is lost or doubled.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn an_import_killed_at_any_moment_embedded_is_finished_by_the_next() {
    import_killed(&Bank::embedded()).await;
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn an_import_killed_at_any_moment_on_servers_is_finished_by_the_next() {
    import_killed(&Bank::on_servers().await).await;
}

fn import_twice(bank: &Bank) {
    let file = transactions();
    let rows = rows(&file);
    let first = bank.import(&file, &[]);
    println!("first import: {first}");
    assert_eq!((&first["read"], &first["accepted"]), (&rows.into(), &rows.into()));
    assert_eq!((&first["duplicate"], &first["refused"]), (&0.into(), &0.into()));
    assert_eq!(first["accounts"], printed(&file).len());
    check_balances(bank, &file);

    let second = bank.import(&file, &[]);
    println!("second import: {second}");
    assert_eq!((&second["read"], &second["duplicate"]), (&rows.into(), &rows.into()));
    assert_eq!((&second["accepted"], &second["refused"]), (&0.into(), &0.into()));
    check_balances(bank, &file);
}

async fn import_killed(bank: &Bank) {
    let file = transactions();
    let mut killed = 0;
    for pause in [60, 1_200, 400, 2_500, 150, 800] {
        let file = file.to_str().expect("a path in UTF-8");
        let mut import = Proc::spawn(bank.command(&["import", "pkdd99", file]));
        // The moment is random enough: how far the import is by then depends on the machine.
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match import.exited() {
            None => killed += 1,
            Some(status) => assert!(status.success(), "{}", import.stderr()),
        }
        import.kill9();
    }
    assert!(killed > 0, "each import was over before it could be killed");
    let last = bank.import(&file, &[]);
    println!("after {killed} kills: {last}");
    let done = last["accepted"].as_u64().zip(last["duplicate"].as_u64()).map(|(accepted, known)| accepted + known);
    assert_eq!((done, &last["refused"]), (Some(rows(&file)), &0.into()));
    check_balances(bank, &file);
}

/// Balances are the sums of the file, versions its numbers of rows and one for the opening, and both are so in the
/// read model and in the audit trail. The printed balances agree where they chain.
fn check_balances(bank: &Bank, file: &Path) {
    let printed = printed(file);
    let expected = printed.iter().map(|(account, rows)| {
        let balance: i64 = rows.iter().map(|row| row.amount).sum();
        (account.clone(), (balance, rows.len() as u64 + 1))
    });
    let (expected, balances) = (expected.collect(), bank.balances(&[]));
    assert_eq!(balances, expected);
    assert_eq!(bank.balances(&["--at", "1993-12-31"]), expected);

    let chains = printed.iter().filter_map(|(account, rows)| Some((account, last_of_chain(rows)?)));
    let chains: Vec<_> = chains.collect();
    for (account, last) in &chains {
        assert!((balances[*account].0 - last).abs() <= CROWN, "account {account}: printed was {last}");
    }
    println!("{} of {} accounts chain and agree with the last printed balance", chains.len(), printed.len());
    assert!(chains.len() * 100 >= printed.len() * 95, "too few accounts chain for the comparison to mean anything");
}

fn rows(file: &Path) -> u64 {
    printed(file).values().map(|rows| rows.len() as u64).sum()
}

/// The last printed balance, if in some order within each day every row reproduces its printed balance.
fn last_of_chain(rows: &[Printed]) -> Option<i64> {
    let (mut balance, mut last) = (0, None);
    for day in rows.chunk_by(|one, other| one.day == other.day) {
        last = Some(last_of_day(balance, day)?);
        balance += day.iter().map(|row| row.amount).sum::<i64>();
    }
    last
}

fn last_of_day(balance: i64, rows: &[Printed]) -> Option<i64> {
    let fits = |row: &Printed| (balance + row.amount - row.balance).abs() <= CROWN;
    if let [row] = rows {
        return fits(row).then_some(row.balance);
    }
    (0..rows.len()).filter(|place| fits(&rows[*place])).find_map(|place| {
        let rest = [&rows[..place], &rows[place + 1..]].concat();
        last_of_day(balance + rows[place].amount, &rest)
    })
}

/// Shows: a database that goes away in the middle and comes back costs nothing.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn an_import_survives_a_restart_of_the_database() {
    let mut postgres = es_tests::Postgres::start().await;
    let kafka = es_tests::Kafka::shared().await.bootstrap();
    let (url, namespace, bank) = (postgres.database().await, es_tests::topic_prefix(), Bank::embedded());
    let file = transactions();
    let options = ["--kafka", &kafka, "--database", &url, "--namespace", &namespace];
    let import = ["import", "pkdd99", file.to_str().expect("a path in UTF-8")];
    let mut import = Proc::spawn(bank.command(&[&import[..], &options].concat()));
    // An import that begins without its database says so and ends.
    let (log, source) = crate::cluster::truth::open(&kafka, &namespace).await;
    eventually("the import to be under way", LONG, async || {
        let mut records = 0;
        for partition in 0..source.partitions {
            records += log.bounds(&source.topic, partition).await.expect("Kafka answers").end;
        }
        (records > 500).then_some(())
    })
    .await;
    assert!(import.exited().is_none(), "it is over before its database goes: {}", import.stderr());
    postgres.kill().await;
    postgres.restart().await;
    let status = import.wait(LONG).await;
    assert!(status.success(), "{}", import.stderr());
    let csv = bank.ok(&[&["balances", "--csv"], &options[..]].concat());
    assert_eq!(csv.lines().count(), printed(&file).len() + 1);
}

/// Shows: of a file whose newest rows come first nobody had money before the account was opened, and a version is told only where one
/// left the account so: over HTTP, and on the command line.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_file_of_the_newest_first_gives_no_account_money_before_it_was_opened() {
    let bank = Bank::embedded();
    let file = bank.dir.path().join("newest-first.asc");
    // Account 9 has its newest row first. Account 8 has its oldest first, and its others against their order.
    let rows = [
        r#""trans_id";"account_id";"date";"type";"operation";"amount";"balance";"k_symbol";"bank";"account""#,
        r#"3;9;930630;"VYDAJ";"VYBER";200.00;800.00;"";;"#,
        r#"4;8;930101;"PRIJEM";"VKLAD";100.00;100.00;"";;"#,
        r#"2;9;930301;"PRIJEM";"VKLAD";300.00;1000.00;"";;"#,
        r#"1;9;930101;"PRIJEM";"VKLAD";700.00;700.00;"";;"#,
        r#"6;8;930630;"PRIJEM";"VKLAD";400.00;700.00;"";;"#,
        r#"5;8;930301;"PRIJEM";"VKLAD";200.00;300.00;"";;"#,
    ];
    std::fs::write(&file, rows.join("\n")).expect("the folder can be written");
    let imported = bank.import(&file, &[]);
    assert_eq!((&imported["read"], &imported["accepted"]), (&6.into(), &6.into()), "{imported}");
    let (mut serving, url) = bank.serve().await;
    let at = async |account: &str, day: &str| -> serde_json::Value {
        let answer = reqwest::get(format!("{url}/api/accounts/{account}?at={day}")).await.expect("the bank answers");
        let (status, tag) = (answer.status().as_u16(), answer.headers().contains_key("etag"));
        let body: serde_json::Value = answer.json().await.expect("JSON");
        assert_eq!(tag, body["version"].is_u64(), "what no version left so has no tag: {body}");
        serde_json::json!([status, body["balance"], body["version"], body["left_out"]])
    };
    let (missing, days) = (serde_json::json!([404, null, null, null]), ["1992-12-31", "1993-01-01", "1993-05-31"]);
    for day in days {
        assert_eq!(at("9", day).await, missing, "it was opened on 30 June: {day}");
    }
    assert_eq!(at("9", "1993-06-30").await, serde_json::json!([200, 80_000, 4, null]));
    assert_eq!(at("8", days[0]).await, missing);
    assert_eq!(at("8", "1993-01-01").await, serde_json::json!([200, 10_000, 2, null]));
    // Version 4, of March, stands behind version 3, of June: what was at the end of March no version is.
    assert_eq!(at("8", "1993-03-31").await, serde_json::json!([200, 30_000, null, 1]));
    assert_eq!(at("8", "1993-06-30").await, serde_json::json!([200, 70_000, 4, null]));
    serving.sigint();
    serving.wait(LONG).await;
    let balances = |day| {
        let balances = bank.balances(&["--at", day]);
        balances.into_iter().map(|(account, (balance, version))| (account, balance, version)).collect::<Vec<_>>()
    };
    let of = |account: &str, balance, version| (account.to_owned(), balance, version);
    assert_eq!(balances(days[0]), []);
    assert_eq!(balances("1993-01-01"), [of("8", 10_000, 2)]);
    assert_eq!(balances("1993-03-31"), [of("8", 30_000, 0)]);
    assert_eq!(balances("1993-06-30"), [of("8", 70_000, 4), of("9", 80_000, 4)]);
}
