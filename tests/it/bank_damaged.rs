//! Rows that somebody damaged by hand: the bank tells them at their places, by HTTP and on the command line, and serves all others.

use es_projections::{Database, Value as Sql};
use es_tests::eventually;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::bank::{Bank, LONG};

/// The items of a list, and what is damaged among them at its place.
fn told(list: &Value, member: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let mut all: Vec<_> = list["items"].as_array().expect("a list").iter().map(|item| text(&item[member])).collect();
    let none = Vec::new();
    for damaged in list["damaged"].as_array().unwrap_or(&none).iter().rev() {
        let before = damaged["before"].as_u64().expect("a place") as usize;
        all.insert(before, format!("! {}", damaged["id"].as_str().expect("which it is").split(" at ").next().unwrap()));
    }
    all
}

async fn run(database: &Database, statements: &[(&str, &[Sql])]) {
    let mut tx = database.begin().await.unwrap();
    for (statement, args) in statements {
        assert!(tx.execute(statement, args).await.unwrap() > 0, "{statement}");
    }
    tx.commit().await.unwrap();
}

/// Shows: whatever row is damaged, the lists have all others, tell it at its place and in the figures, and their pages go on behind it; by
/// itself it is a fault of the bank. The command line prints all others too, and fails in the end.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_damaged_row_takes_no_list_with_it() {
    let bank = Bank::embedded();
    let (mut serving, url) = bank.serve().await;
    let client = Client::new();
    let post = async |path: &str, body: Value| {
        client.post(format!("{url}{path}")).json(&body).send().await.expect("the bank answers").status().as_u16()
    };
    let get = async |path: &str| -> (u16, Value) {
        let answer = client.get(format!("{url}{path}")).send().await.expect("the bank answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    };
    for id in ["a", "b", "c", "d"] {
        assert_eq!(post("/api/accounts", json!({ "id": id, "owner": "Ada" })).await, 201);
    }
    for amount in 1..=4 {
        assert_eq!(post("/api/accounts/a/deposits", json!({ "amount": amount })).await, 201);
        assert_eq!(post("/api/accounts/a/withdrawals", json!({ "amount": 1_000 + amount })).await, 422);
    }
    eventually("the read models to catch up", LONG, async || {
        let (_, audit) = get("/api/audit?limit=1000").await;
        let (_, refused) = get("/api/audit?refused=true").await;
        let (_, accounts) = get("/api/accounts").await;
        let len = |list: &Value| list["items"].as_array().map(Vec::len);
        let all = (len(&audit), len(&refused), len(&accounts)) == (Some(8), Some(4), Some(4));
        (all && accounts["items"][0]["version"] == 5).then_some(())
    })
    .await;
    let database = bank.connect().await;
    run(
        &database,
        &[
            ("UPDATE bank_accounts SET status = 'weird' WHERE id = 'b'", &[]),
            // Not even an id, and the first of all.
            ("UPDATE bank_accounts SET id = '' WHERE id = 'd'", &[]),
            ("UPDATE bank_audit SET command_id = '' WHERE aggregate_id = 'a' AND version = 3", &[]),
            ("UPDATE bank_audit_refused SET correlation_id = '' WHERE reason LIKE '%1003%'", &[]),
        ],
    )
    .await;
    database.close().await;

    let (status, accounts) = get("/api/accounts").await;
    assert_eq!((status, told(&accounts, "id")), (200, ["! ", "a", "! b", "c"].map(String::from).into()));
    assert!(accounts["damaged"][0]["reference"].is_string(), "{accounts}");
    for limit in 1..4 {
        let (mut all, mut cursor) = (Vec::new(), String::new());
        loop {
            let (_, page) = get(&format!("/api/accounts?limit={limit}{cursor}")).await;
            all.extend(told(&page, "id"));
            let Some(next) = page["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
            assert!(all.len() < 10, "{all:?}");
        }
        assert_eq!(all, ["! ", "a", "! b", "c"], "{limit}");
    }
    assert_eq!(get("/api/accounts/b").await.0, 500);
    assert_eq!(get("/api/accounts?cursor=61-0").await.0, 400);

    let expected = ["5", "4", "! version 3 of account-a", "2", "1"];
    for path in ["/api/accounts/a/history", "/api/audit?account=a"] {
        let (status, list) = get(path).await;
        assert_eq!((status, told(&list, "version")), (200, expected.map(String::from).into()), "{path}");
        let (_, first) = get(&format!("{path}{}limit=3", if path.contains('?') { '&' } else { '?' })).await;
        let next = first["next"].as_str().expect("a next page");
        let (_, rest) = get(&format!("{path}{}cursor={next}", if path.contains('?') { '&' } else { '?' })).await;
        assert_eq!(told(&rest, "version"), ["2", "1"], "{path}");
    }
    let (_, history) = get("/api/accounts/a/history").await;
    assert_eq!(history["items"][1]["changed"], Value::Null, "what came before it is not known");
    assert_eq!(history["items"][2]["changed"]["balance"]["to"], 1, "{history}");
    assert_eq!(get("/api/accounts/a?version=2").await.0, 200);
    assert_eq!(get("/api/accounts/a?version=5").await.0, 500);

    let (status, refused) = get("/api/audit?refused=true&account=a").await;
    let why = told(&refused, "why");
    assert_eq!((status, why.len()), (200, 4), "{refused}");
    assert!(why[0].contains("1004") && why[1].starts_with("! answer") && why[2].contains("1002"), "{why:?}");
    let figures = client.get(format!("{url}/metrics")).send().await.unwrap().text().await.unwrap();
    let figure = figures.lines().find_map(|line| line.strip_prefix("bank_damaged_rows_total ")).expect("it is counted");
    assert!(figure.parse::<u64>().unwrap() >= 10, "{figure}");
    assert_eq!(client.get(format!("{url}/readyz")).send().await.unwrap().status(), StatusCode::OK);
    serving.sigint();
    serving.wait(LONG).await;

    for (command, ours, damaged) in [
        (&["balances", "--csv"][..], &["\na,", "\nc,"][..], &["b can't be read"][..]),
        (&["audit", "--account", "a"], &["a 1 opened", "a 4 deposited"], &["version 3 of account-a"]),
        (
            &["audit", "--account", "a", "--json"],
            &["\"version\":4", "\"before\":2", "\"damaged\":[{"],
            &["version 3 of account-a"],
        ),
        (&["audit", "--refused"], &["1004", "1002"], &["answer"]),
        (&["history", "a"], &["a 1 opened", "a 4 deposited"], &["version 3 of account-a"]),
        (&["history", "a", "--json"], &["\"version\":4", "\"before\":2"], &["version 3 of account-a"]),
    ] {
        let output = bank.run(command);
        let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
        assert_eq!(output.status.code(), Some(1), "{command:?}: {out}{err}");
        assert!(ours.iter().all(|part| out.contains(part)), "{command:?}: {out}");
        assert!(damaged.iter().all(|part| err.contains(part)), "{command:?}: {err}");
        assert!(err.contains("can't be read: build it anew with `bank rebuild"), "{command:?}: {err}");
        if command.contains(&"--json") {
            serde_json::from_str::<Value>(&out).unwrap_or_else(|error| panic!("{command:?}: {error}: {out}"));
        }
    }
    bank.ok(&["rebuild", "accounts"]);
    bank.ok(&["balances"]);
}
