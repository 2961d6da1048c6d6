//! The bank's read models against the files that they come from, read here in another way: as of a time, by branch, by
//! day, rebuilt, and with an account that is parked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use chrono::NaiveDate;
use es_projections::Database;
use es_tests::{Postgres, Proc, accounts, eventually, transactions};

use crate::bank::{Bank, LONG, printed};

/// By account: balance and version, or whatever else of it is compared.
type ByAccount<T> = BTreeMap<String, T>;

/// Shows: the balances as of each month's end are the sums of the file up to that day.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn balances_at_each_months_end_embedded_are_those_of_the_file() {
    balances_at_each_months_end(&Bank::embedded());
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn balances_at_each_months_end_on_servers_are_those_of_the_file() {
    balances_at_each_months_end(&Bank::on_servers().await);
}

/// Shows: branches hold what their accounts hold, statements have each row of the file, and the sums of the days up to any
/// of them are the balance at its end.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn branches_statements_and_days_embedded_add_up_to_the_files() {
    branches_statements_and_days(&Bank::embedded()).await;
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn branches_statements_and_days_on_servers_add_up_to_the_files() {
    branches_statements_and_days(&Bank::on_servers().await).await;
}

fn balances_at_each_months_end(bank: &Bank) {
    let file = transactions();
    bank.import(&file, &[]);
    let printed = printed(&file);
    let mut different = Vec::new();
    for month in 1..=12 {
        let first = NaiveDate::from_ymd_opt(1993, month, 1).expect("a month");
        let last = first + chrono::Months::new(1) - chrono::Days::new(1);
        let until: u32 = last.format("%y%m%d").to_string().parse().expect("a number");
        let expected = printed.iter().filter_map(|(account, rows)| {
            let rows = rows.iter().filter(|row| row.day <= until);
            let (sum, count) = rows.fold((0, 0), |(sum, count), row| (sum + row.amount, count + 1));
            (count > 0).then(|| (account.clone(), (sum, count + 1)))
        });
        let expected: ByAccount<(i64, u64)> = expected.collect();
        let balances = bank.balances(&["--at", &last.to_string()]);
        assert_eq!(balances, expected, "at {last}");
        // One account's by its own events.
        if let (0, Some((account, (balance, version)))) = (month % 6, balances.iter().nth(month as usize)) {
            let then = bank.ok(&["account", account, "--at", &last.to_string(), "--json"]);
            let then: serde_json::Value = serde_json::from_str(&then).expect("one JSON object");
            assert_eq!((&then["balance"], &then["version"]), (&(*balance).into(), &(*version).into()), "{then}");
        }
        different.push(balances);
    }
    different.dedup();
    assert_eq!(different.len(), 12, "each month changes something");
}

async fn branches_statements_and_days(bank: &Bank) {
    let (file, accounts) = (transactions(), accounts());
    let imported = bank.import(&file, &["--accounts", accounts.to_str().expect("a path in UTF-8")]);
    println!("with accounts: {imported}");
    let (printed, districts) = (printed(&file), districts(&accounts));
    let database = bank.connect().await;
    check_branches(&database, &printed_balances(&file), &districts).await;

    let sql = format!("SELECT account, day, money_in, money_out, change FROM {}", database.table_name("daily"));
    let rows = database.fetch(&format!("{sql} ORDER BY account, day"), &[]).await.unwrap();
    let mut days: ByAccount<Vec<(u32, i64, i64, i64)>> = BTreeMap::new();
    for row in &rows {
        let day: NaiveDate = row.get("day").unwrap();
        let day = day.format("%y%m%d").to_string().parse().unwrap();
        let sums = (row.get("money_in").unwrap(), row.get("money_out").unwrap(), row.get("change").unwrap());
        days.entry(row.get("account").unwrap()).or_default().push((day, sums.0, sums.1, sums.2));
    }
    let mut expected: ByAccount<Vec<(u32, i64, i64, i64)>> = BTreeMap::new();
    for (account, rows) in &printed {
        let mut rows = rows.clone();
        rows.sort_by_key(|row| row.day); // stable, though no order within a day matters here
        let days = rows.chunk_by(|one, other| one.day == other.day).map(|day| {
            let sum = |sign: i64| day.iter().map(|row| (row.amount * sign).max(0)).sum::<i64>();
            (day[0].day, sum(1), sum(-1), sum(1) - sum(-1))
        });
        expected.insert(account.clone(), days.collect());
    }
    assert_eq!(days, expected);

    let sql = format!(
        "SELECT account, CAST(sum(amount) AS BIGINT) AS amount, count(*) AS lines, count(reference) AS told, max(version) AS version FROM {} \
         WHERE event_type <> 'opened' GROUP BY account",
        database.table_name("statements")
    );
    for row in database.fetch(&sql, &[]).await.unwrap() {
        let account: String = row.get("account").unwrap();
        let rows = &printed[&account];
        let (lines, balance) = (rows.len() as i64, rows.iter().map(|row| row.amount).sum::<i64>());
        assert_eq!((row.get("lines").unwrap(), row.get("version").unwrap()), (lines, lines + 1));
        assert_eq!(row.get::<i64>("amount").unwrap(), balance, "account {account}");
    }
    database.close().await;
}

/// Shows: an account's versions with what each changed, what it was at each, and whose command made a row what it is.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn an_account_tells_its_past() {
    let (bank, file) = (Bank::embedded(), transactions());
    bank.import(&file, &["--accounts", accounts().to_str().expect("a path in UTF-8")]);
    let printed = printed(&file);
    let (account, rows) = printed.iter().max_by_key(|(_, rows)| rows.len()).expect("there are some");
    let history: serde_json::Value = serde_json::from_str(&bank.ok(&["history", account, "--json"])).unwrap();
    let items = history["items"].as_array().unwrap();
    assert_eq!(items.len(), rows.len() + 1);
    assert_eq!(items[0]["changed"]["status"], serde_json::json!({ "to": "open" }));
    let mut balance = 0;
    for (item, version) in items[1..].iter().zip(2..) {
        let changed = &item["changed"]["balance"];
        assert_eq!((&item["version"], &changed["from"]), (&version.into(), &balance.into()), "{item}");
        balance = changed["to"].as_i64().unwrap();
    }
    assert_eq!(balance, rows.iter().map(|row| row.amount).sum::<i64>());
    let middle = &items[items.len() / 2];
    let version = middle["version"].to_string();
    let then: serde_json::Value =
        serde_json::from_str(&bank.ok(&["account", account, "--version", &version, "--json"])).unwrap();
    assert_eq!((&then["balance"], &then["version"]), (&middle["changed"]["balance"]["to"], &middle["version"]));
    assert_eq!(then["last"]["hash"], middle["hash"]);
    let lines = bank.ok(&["history", account]);
    assert!(
        lines.contains(&format!(
            "    balance from {} to {}\n",
            then["balance"],
            items[items.len() / 2 + 1]["changed"]["balance"]["to"]
        )),
        "{lines}"
    );

    // Each row leads to an event of the account, and the newest of its rows to the newest.
    let newest = items.last().unwrap();
    let day = &newest["occurred_at"].as_str().unwrap()[..10];
    for row in
        [&["account", account][..], &["statement", account, &newest["version"].to_string()], &["day", account, day]]
    {
        let explained: serde_json::Value =
            serde_json::from_str(&bank.ok(&[&["explain", "--json"], row].concat())).unwrap();
        assert_eq!(explained["event"]["event_id"], newest["event_id"], "{row:?}");
    }
    let told = bank.ok(&["explain", "account", account]);
    assert!(told.contains(&format!("all of the account: bank history {account}\n")), "{told}");
    assert!(told.contains(newest["command_id"].as_str().unwrap()), "{told}");
    for (args, reason) in [
        (&["account", "nobody"][..], "account nobody was not there then"),
        (&["account", account, "--at", "1992-12-31"], "was not there then"),
        (&["account", account, "--version", "100000"], "has no version 100000 in the audit trail"),
        (&["history", "nobody"], "there is no account nobody: nothing was ever recorded of it"),
        (&["explain", "branch", "nowhere"], "there is no row for branch nowhere"),
    ] {
        let output = bank.run(args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && told.contains(reason) && told.lines().count() == 1,
            "{args:?}: {told}"
        );
    }
}

/// Shows: an import with the accounts' file after one without it, and the other way round, opens nothing twice.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn the_accounts_file_may_come_later_or_not_again() {
    let (bank, file) = (Bank::embedded(), transactions());
    let rows = printed(&file).values().map(|rows| rows.len() as u64).sum::<u64>();
    let accounts = accounts();
    let with = ["--accounts", accounts.to_str().expect("a path in UTF-8")];
    bank.import(&file, &[]);
    let before = bank.balances(&[]);
    let path = file.to_str().expect("a path in UTF-8");
    let output = bank.run(&[&["import", "pkdd99", path, "--json"], &with[..]].concat());
    let again: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&again["duplicate"], &again["accepted"], &again["refused"]), (&rows.into(), &0.into(), &0.into()));
    let told = String::from_utf8(output.stderr).unwrap();
    let stay = format!("{} accounts were open before, with another branch", before.len());
    assert!(told.starts_with(&stay) && told.lines().count() == 1, "{told}");
    let after = bank.balances(&[]);
    assert!(before.iter().all(|(account, balance)| after[account] == *balance));
    // Those that only the accounts' file has are open since.
    assert_eq!(after.len(), districts(&accounts).len());

    let other = Bank::embedded();
    other.import(&file, &with);
    let balances = other.balances(&[]);
    for more in [&with[..], &[]] {
        let again = other.import(&file, more);
        assert_eq!((&again["duplicate"], &again["refused"]), (&rows.into(), &0.into()));
        assert_eq!(other.balances(&[]), balances);
    }
    let database = other.connect().await;
    check_branches(&database, &printed_balances(&file), &districts(&accounts)).await;
    database.close().await;
}

/// Shows: rows of the accounts' file that can't be taken are told with file, line and column, and the others are.
#[test]
#[ignore = "needs the bank binary: run scripts/test"]
fn bad_rows_of_the_accounts_file_are_told() {
    let bank = Bank::embedded();
    let file = |name: &str, text: &str| {
        let path = bank.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let trans = file("trans.asc", "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account\n");
    let header = "account_id;district_id;frequency;date";
    let accounts =
        file("account.asc", &format!("{header}\n1;5;X;930101\n2;5.5;X;930101\n3;5;X;930230\nx;5;X;930101\n"));
    let output = bank.run(&["import", "pkdd99", &trans, "--accounts", &accounts]);
    assert!(output.status.success(), "{output:?}");
    let expected = [
        format!("{accounts}, line 3 refused: district_id \"5.5\" is not a whole number"),
        format!("{accounts}, line 4 refused: date \"930230\" is not a date: there is no such day"),
        format!("{accounts}, line 5 refused: account_id \"x\" is not a whole number"),
    ];
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.lines().collect::<Vec<_>>(), expected);
    assert_eq!(bank.balances(&[]), [("1".to_owned(), (0, 1))].into());

    let accounts = file("other.asc", &header.replace("district_id;", ""));
    let output = bank.run(&["import", "pkdd99", &trans, "--accounts", &accounts]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains(&accounts), "{told}");
    assert!(told.contains("column \"district_id\" is missing") && told.contains(header), "{told}");
}

/// Shows: a rebuild switches where the rows are equal; where they are not it tells them and switches only if asked to; and
/// read models of another release are refused with the command that mends them.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn read_models_are_rebuilt_and_compared_embedded() {
    rebuilt_and_compared(&Bank::embedded()).await;
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn read_models_are_rebuilt_and_compared_on_servers() {
    rebuilt_and_compared(&Bank::on_servers().await).await;
}

async fn rebuilt_and_compared(bank: &Bank) {
    let (file, accounts) = (transactions(), accounts());
    bank.import(&file, &["--accounts", accounts.to_str().expect("a path in UTF-8")]);
    let balances = bank.balances(&[]);
    let told = bank.ok(&["rebuild", "--equal", "accounts"]);
    assert!(told.starts_with("accounts: rebuilt from") && told.contains("it is live, with the same rows"), "{told}");
    assert_eq!(bank.ok(&["rebuild", "--equal"]).lines().count(), 3);
    assert_eq!(bank.balances(&[]), balances);

    let change = async |sql: String| {
        let database = bank.connect().await;
        let mut tx = database.begin().await.unwrap();
        let sql = sql.replace("{accounts}", &database.table_name("accounts"));
        assert_eq!(tx.execute(&sql.replace("{builds}", &database.table_name("es_builds")), &[]).await.unwrap(), 1);
        tx.commit().await.unwrap();
        database.close().await;
    };
    let account = balances.keys().next().expect("an account").clone();
    change(format!("UPDATE {{accounts}} SET balance = balance + 1 WHERE id = '{account}'")).await;
    let wrong = bank.balances(&[]);
    let output = bank.run(&["rebuild", "--equal", "accounts"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    let (is, was) = (wrong[&account].0, balances[&account].0);
    let difference = format!("accounts {account}: balance is {is}, replayed {was}; without --equal");
    assert!(told.contains(&difference), "{difference} is not in {told}");
    assert_eq!(bank.balances(&[]), wrong, "it has not switched");
    bank.ok(&["rebuild", "accounts"]);
    assert_eq!(bank.balances(&[]), balances);

    change("UPDATE {builds} SET version = 1 WHERE projection = 'accounts' AND state = 'live'".into()).await;
    for command in [&["balances"][..], &["audit"]] {
        let output = bank.run(command);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains("run `bank rebuild accounts`"), "{told}");
    }
    // A release with another version builds it before it listens.
    drop(bank.serve().await);
    assert_eq!(bank.balances(&[]), balances);
}

/// Shows: read models are what the log gives, whoever replays it; a balance changed by hand is told with account and column.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn read_models_are_verified_embedded() {
    verified(&Bank::embedded()).await;
}

/// The same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn read_models_are_verified_on_servers() {
    verified(&Bank::on_servers().await).await;
}

async fn verified(bank: &Bank) {
    let output = bank.run(&["verify"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && told.contains("there is no read model accounts"), "{told}");
    let (file, accounts) = (transactions(), accounts());
    bank.import(&file, &["--accounts", accounts.to_str().expect("a path in UTF-8")]);
    let told = bank.ok(&["verify"]);
    for (model, table) in [("accounts", "branches"), ("statements", "daily"), ("audit", "audit")] {
        assert!(told.contains(&format!("{model}: equal to what ")) && told.contains(&format!("  {table}: ")), "{told}");
    }
    assert!(told.contains(&format!("  accounts: {} rows, ", bank.balances(&[]).len())), "{told}");
    let state = state(bank);
    assert_eq!((state.len(), &state), (7, &self::state(bank)), "replayed again");

    let account = bank.balances(&[]).into_keys().next().expect("an account");
    let change = async |by: i64| {
        let database = bank.connect().await;
        let mut tx = database.begin().await.unwrap();
        let (table, event) = (tx.table_name("accounts"), tx.table_name("audit"));
        tx.execute(&format!("UPDATE {table} SET balance = balance + {by} WHERE id = '{account}'"), &[]).await.unwrap();
        let type_ = if by > 0 { "closed" } else { "opened" };
        let sql = format!("UPDATE {event} SET event_type = '{type_}' WHERE aggregate_id = '{account}' AND version = 1");
        assert_eq!(tx.execute(&sql, &[]).await.unwrap(), 1);
        tx.commit().await.unwrap();
        database.close().await;
    };
    change(100).await;
    let is = bank.balances(&[])[&account].0;
    let output = bank.run(&["verify"]);
    let (out, told) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
    let difference = format!("accounts {account}: balance is {is}, replayed {}", is - 100);
    assert!(told.contains("read model accounts differs from the log: ") && told.contains(&difference), "{told}");
    assert!(out.contains("accounts: differs from") && out.contains("statements: equal to"), "{out}");
    assert!(out.contains(&format!("  audit account/{account}/1: event_type is closed, replayed opened\n")), "{out}");
    let output = bank.run(&["verify", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    let accounts = &found["read_models"][0];
    assert_eq!((&accounts["read_model"], &accounts["verdict"]), (&"accounts".into(), &"differs".into()));
    let expected = serde_json::json!({
        "table": "accounts", "key": [account], "row": "changed",
        "columns": [{ "column": "balance", "live": is.to_string(), "replayed": (is - 100).to_string() }],
    });
    assert_eq!(accounts["differences"], serde_json::json!([expected]));
    change(-100).await;
    assert_eq!(self::state(bank), state);
}

/// The digest of each table, all of which are what the log gives. A claim that comes late, of a bank that serves, may be
/// behind; whoever compares digests sees that no event is.
fn state(bank: &Bank) -> BTreeMap<String, String> {
    let verified: serde_json::Value = serde_json::from_str(&bank.ok(&["verify", "--json"])).expect("one JSON object");
    let mut digests = BTreeMap::new();
    for model in verified["read_models"].as_array().expect("a list") {
        assert_eq!(model["verdict"], "equal", "{model}");
        for table in model["tables"].as_array().expect("a list") {
            assert_eq!((&table["digest"], &table["rows"]), (&table["replayed_digest"], &table["replayed_rows"]));
            let text = |field: &str| table[field].as_str().expect("text").to_owned();
            digests.insert(text("table"), text("digest"));
        }
    }
    digests
}

/// Shows: whatever processes folded the log in, and however many shared that, gives the same state; serving banks go on while they
/// are verified; and what a killed verification left is dropped by the next one.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn other_processes_give_the_same_state() {
    let bank = Bank::on_servers().await;
    bank.import(&transactions(), &[]);
    let state = state(&bank);
    for processes in [1, 3] {
        let url = Postgres::shared().await.database().await;
        let banks: Vec<_> = (0..processes).map(|_| bank.elsewhere().with_database(&url)).collect();
        let mut serving = Vec::new();
        for bank in &banks {
            serving.push(bank.serve().await);
        }
        let client = reqwest::Client::new();
        for (_, url) in &serving {
            eventually("the bank to be ready", LONG, async || {
                let ready = client.get(format!("{url}/readyz")).send().await.ok()?;
                (ready.status().as_u16() == 200).then_some(())
            })
            .await;
        }
        let beside = bank.elsewhere().with_database(&url);
        // Which brings them up to date.
        assert_eq!(beside.balances(&[]), bank.balances(&[]));
        beside.ok(&["parked"]);
        assert_eq!(self::state(&beside), state, "{processes} processes");
        for (_, url) in &serving {
            // A connection of its own: those of the client were closed meanwhile.
            let ready = reqwest::get(format!("{url}/readyz")).await.unwrap();
            assert_eq!(ready.status().as_u16(), 200, "it goes on");
        }
    }

    let database = bank.connect().await;
    let builds = async || {
        let sql = format!("SELECT count(*) AS n FROM {}", database.table_name("es_builds"));
        database.fetch(&sql, &[]).await.unwrap()[0].get::<i64>("n").unwrap()
    };
    let elsewhere = bank.elsewhere();
    let mut verifying = Proc::spawn(elsewhere.command(&["verify"]));
    while builds().await == 3 {
        assert!(verifying.exited().is_none(), "it ended before it could be killed: {}", verifying.stderr());
    }
    verifying.kill9();
    assert_eq!(builds().await, 4, "it left its copy");
    assert_eq!(self::state(&bank), state);
    assert_eq!(builds().await, 3);
    database.close().await;
}

/// Shows: beside a bank that serves, read models are rebuilt and balances of a time are built, and it goes on serving.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn read_models_are_rebuilt_beside_a_serving_bank() {
    let bank = Bank::on_servers().await;
    bank.import(&transactions(), &[]);
    let balances = bank.balances(&[]);
    let (_serving, url) = bank.serve().await;
    let beside = bank.elsewhere();
    assert_eq!(beside.ok(&["rebuild", "--equal"]).lines().count(), 3);
    assert_eq!(beside.balances(&["--at", "1993-12-31"]), balances);

    let (client, account) = (reqwest::Client::new(), balances.keys().next().expect("an account"));
    let deposit = client
        .post(format!("{url}/api/accounts/{account}/deposits"))
        .header("Content-Type", "application/json")
        .body("{\"amount\":5}")
        .send();
    let written = deposit.await.unwrap();
    assert_eq!(written.status().as_u16(), 201);
    let position = written.headers()["es-position"].clone();
    let read =
        client.get(format!("{url}/api/accounts/{account}")).header("es-position", position).send().await.unwrap();
    let read: serde_json::Value = serde_json::from_slice(&read.bytes().await.unwrap()).unwrap();
    assert_eq!(read["balance"], balances[account].0 + 5);
    let ready = client.get(format!("{url}/readyz")).send().await.unwrap();
    assert_eq!(ready.status().as_u16(), 200);
}

/// Shows: an account that moved more on a day than a column holds is parked in that read model only, with what comes
/// later; operators see it, and have it go on without the event.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn an_account_that_cannot_be_folded_in_is_parked_and_seen_to() {
    let bank = Bank::embedded();
    let file = bank.dir.path().join("trans.asc");
    let mut rows = "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account\n".to_owned();
    let mut row = |id: u32, account: u32, kind: &str, amount: &str| {
        writeln!(rows, "{id};{account};930105;{kind};;{amount};0.00;;;").expect("a string");
    };
    // 1,024 times the largest amount is just below 2^63, and 1,025 times is not.
    for pair in 0..1_024 {
        row(2 * pair, 7, "PRIJEM", "90071992547409.91");
        row(2 * pair + 1, 7, "VYDAJ", "90071992547409.91");
    }
    row(3_000, 7, "PRIJEM", "90071992547409.91");
    row(3_001, 7, "VYDAJ", "1.00");
    row(3_002, 8, "PRIJEM", "5.00");
    fs::write(&file, rows).unwrap();
    let output = bank.run(&["import", "pkdd99", file.to_str().unwrap(), "--json"]);
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && told.contains("read model statements lacks events of 1 account"), "{told}");
    assert_eq!(bank.balances(&[])["7"], ((1 << 53) - 101, 2_051), "accounts have all of it");

    let reason = "what moved on 1993-01-05 is out of the range of 64 bits";
    let listed = bank.ok(&["parked"]);
    assert!(
        listed.starts_with("statements 7 since ") && listed.contains("2 events wait from version 2050 on"),
        "{listed}"
    );
    assert!(listed.contains(reason) && listed.ends_with("1 account is parked\n"), "{listed}");
    let listed: serde_json::Value = serde_json::from_str(&bank.ok(&["parked", "--json"])).unwrap();
    let item = &listed["items"][0];
    assert_eq!((&item["read_model"], &item["account"]), (&"statements".into(), &"7".into()));
    assert_eq!((&item["waiting"], &item["reason"]), (&2.into(), &reason.into()));
    let waiting = bank.ok(&["parked", "show", "statements", "7"]);
    assert!(waiting.contains(" 7 2050 deposited ") && waiting.contains(" 7 2051 withdrawn "), "{waiting}");
    assert_eq!(waiting.lines().count(), 3, "{waiting}");

    let (mut serving, url) = bank.serve().await;
    let get = async |path: &str| reqwest::get(format!("{url}{path}")).await.unwrap();
    assert_eq!(get("/readyz").await.status().as_u16(), 200);
    let figures = get("/metrics").await.text().await.unwrap();
    for (model, parked) in [("accounts", 0), ("statements", 1), ("audit", 0)] {
        let line = format!("bank_projection_parked_aggregates{{projection=\"{model}\"}} {parked}\n");
        assert!(figures.contains(&line), "{line} is not in {figures}");
    }
    serving.sigterm();
    serving.wait(crate::bank::LONG).await;

    let failed = |args: &[&str], words: &str| {
        let output = bank.run(args);
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        assert!(told.contains(words), "{told}");
    };
    failed(
        &["parked", "retry", "statements", "8", "--version", "1"],
        "account 8 is not parked in read model statements",
    );
    failed(&["parked", "show", "accounts", "7"], "account 7 is not parked in read model accounts");
    failed(&["parked", "retry", "statements", "7", "--version", "2050"], reason);
    let skip = |version| {
        let why = "a test of the largest amount";
        ["parked", "skip", "statements", "7", "--version", version, "--by", "ops", "--why", why]
    };
    failed(&skip("2049"), "account 7 waits behind version 2050 in read model statements, not behind version 2049");
    assert_eq!(bank.ok(&skip("2050")), "account 7 has all its other events in read model statements\n");
    assert_eq!(bank.ok(&["parked"]), "nothing is parked\n");

    let database = bank.connect().await;
    let sql = format!("SELECT max(version) AS last, count(*) AS lines FROM {}", database.table_name("statements"));
    let lines = database.fetch(&format!("{sql} WHERE account = '7'"), &[]).await.unwrap();
    assert_eq!((lines[0].get("last").unwrap(), lines[0].get("lines").unwrap()), (2_051_u64, 2_050_u64));
    let skipped = format!("SELECT skipped_by, version FROM {}", database.table_name("es_skipped"));
    let skipped = database.fetch(&skipped, &[]).await.unwrap();
    assert_eq!(
        (skipped[0].get("skipped_by").unwrap(), skipped[0].get("version").unwrap()),
        ("ops".to_owned(), 2_050_u64)
    );
    database.close().await;
}

/// The district of each account.
fn districts(accounts: &Path) -> ByAccount<String> {
    let text = fs::read_to_string(accounts).expect("the accounts can be read");
    let row = |line: &str| {
        let mut fields = line.split(';').map(String::from);
        Some((fields.next()?, fields.next()?))
    };
    text.lines().skip(1).filter_map(row).collect()
}

fn printed_balances(file: &Path) -> ByAccount<i64> {
    printed(file).into_iter().map(|(account, rows)| (account, rows.iter().map(|row| row.amount).sum())).collect()
}

/// The table of branches is the join of balances and districts.
async fn check_branches(database: &Database, balances: &ByAccount<i64>, districts: &ByAccount<String>) {
    let mut expected: BTreeMap<String, (i64, i64)> = BTreeMap::new();
    for (account, district) in districts {
        let branch = expected.entry(district.clone()).or_default();
        branch.0 += 1;
        branch.1 += balances.get(account).copied().unwrap_or_default();
    }
    let sql = format!("SELECT branch, accounts, balance FROM {}", database.table_name("branches"));
    let rows = database.fetch(&sql, &[]).await.unwrap();
    let rows = rows
        .iter()
        .map(|row| (row.get("branch").unwrap(), (row.get("accounts").unwrap(), row.get::<i64>("balance").unwrap())));
    assert_eq!(rows.collect::<BTreeMap<String, (i64, i64)>>(), expected);
}
