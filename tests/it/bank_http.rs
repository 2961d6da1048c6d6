//! The HTTP interface, as anyone drives it from outside.

use std::time::Duration;

use es_tests::{Proc, eventually};
use futures::StreamExt;
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};

use crate::bank::{Bank, LONG};

/// A bank that serves, and a client for it.
struct Served {
    bank: Bank,
    process: Proc,
    url: String,
    client: Client,
}

/// What came back.
struct Answer {
    status: u16,
    headers: reqwest::header::HeaderMap,
    body: Value,
}

impl Served {
    async fn start(bank: Bank) -> Served {
        Self::start_with(bank, &["--trust-actor-header"]).await
    }

    async fn start_with(bank: Bank, more: &[&str]) -> Served {
        let (process, url) = bank.serve_with(more).await;
        Served { bank, process, url, client: Client::new() }
    }

    async fn send(&self, method: Method, path: &str, body: Option<&str>, headers: &[(&str, &str)]) -> Answer {
        let mut request = self.client.request(method, format!("{}{path}", self.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.body(body.to_owned());
            if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
                request = request.header("Content-Type", "application/json");
            }
        }
        let response = request.send().await.expect("the bank answers");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole answer");
        Answer { status, headers, body: serde_json::from_str(&text).unwrap_or(Value::String(text)) }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(&body.to_string()), &[]).await
    }

    async fn post_with(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, Some(&body.to_string()), headers).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None, &[]).await
    }

    /// A GET that reads what was written.
    async fn get_after(&self, path: &str, written: &Answer) -> Answer {
        self.send(Method::GET, path, None, &[("ES-Position", written.header("es-position"))]).await
    }

    async fn open(&self, id: &str) -> Answer {
        let opened = self.post("/api/accounts", &json!({ "id": id, "owner": "Ada", "overdraft_limit": 100 })).await;
        assert_eq!(opened.status, 201, "{}", opened.body);
        opened
    }
}

impl Answer {
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", self.headers)).to_str().unwrap()
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status, &self.body["code"]), (status, &code.into()), "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail"] {
            assert!(self.body[member].is_string(), "{}", self.body);
        }
    }
}

/// Shows: an account's life, each answer as the interface promises it, and reads that contain the writes.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn an_account_lives_from_opening_to_closing() {
    let bank = Served::start(Bank::embedded()).await;
    let opened = bank.open("a 1/x").await;
    assert_eq!(opened.header("location"), "/api/accounts/a%201%2Fx");
    let position = opened.header("es-position").to_owned();
    assert_eq!(opened.body, json!({ "id": "a 1/x", "version": 1, "position": position, "duplicate": false }));
    bank.post("/api/accounts", &json!({ "id": "a 1/x", "owner": "Bob" })).await.is_problem(409, "account-exists");

    let path = "/api/accounts/a%201%2Fx";
    let deposit = bank.post(&format!("{path}/deposits"), &json!({ "amount": 500, "reference": "wages" })).await;
    assert_eq!((deposit.status, &deposit.body["version"]), (201, &2.into()));
    let withdrawal = bank.post(&format!("{path}/withdrawals"), &json!({ "amount": 600 })).await;
    let account = bank.get_after(path, &withdrawal).await;
    assert_eq!((account.status, account.header("etag")), (200, "\"3\""));
    let expected = json!({ "id": "a 1/x", "owner": "Ada", "balance": -100, "overdraft_limit": 100, "status": "open", "version": 3 });
    assert_eq!(account.body, expected);
    let too_much = bank.post(&format!("{path}/withdrawals"), &json!({ "amount": 1 })).await;
    too_much.is_problem(422, "insufficient-funds");
    bank.send(Method::POST, &format!("{path}/close"), None, &[]).await.is_problem(422, "balance-not-zero");
    bank.post(&format!("{path}/deposits"), &json!({ "amount": 100 })).await;
    let closed = bank.send(Method::POST, &format!("{path}/close"), None, &[]).await;
    assert_eq!((closed.status, &closed.body["version"]), (201, &5.into()));
    bank.post(&format!("{path}/deposits"), &json!({ "amount": 1 })).await.is_problem(422, "account-closed");
    assert_eq!(bank.get_after(path, &closed).await.body["status"], "closed");

    bank.post("/api/accounts/nobody/deposits", &json!({ "amount": 1 })).await.is_problem(404, "account-not-found");
    bank.get("/api/accounts/nobody").await.is_problem(404, "account-not-found");
    bank.get("/api/accounts/nobody/history").await.is_problem(404, "account-not-found");
    bank.get("/api/nothing").await.is_problem(404, "not-found");
    let wrong = bank.send(Method::DELETE, "/api/accounts", None, &[]).await;
    wrong.is_problem(405, "method-not-allowed");
    assert!(wrong.header("allow").contains("POST"));
}

/// Shows: a withdrawal and its fee are two events of one command: both or neither, under one key, in the order told.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_fee_is_taken_with_its_withdrawal_or_neither() {
    let bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    let withdrawals = "/api/accounts/a/withdrawals";
    let key = |key: &'static str| [("Idempotency-Key", key)];
    let rent = json!({ "amount": 60, "reference": "rent", "fee": 10 });
    let taken = bank.post_with(withdrawals, &rent, &key("k1")).await;
    assert_eq!((taken.status, &taken.body["version"]), (201, &3.into()), "{}", taken.body);
    let again = bank.post_with(withdrawals, &rent, &key("k1")).await;
    assert_eq!((&again.body["duplicate"], &again.body["version"]), (&true.into(), &3.into()), "{}", again.body);
    assert_eq!(again.body["position"], taken.body["position"]);
    let without = json!({ "amount": 60, "reference": "rent" });
    bank.post_with(withdrawals, &without, &key("k1")).await.is_problem(422, "idempotency-key-reused");
    // 30 may still be taken: 25 alone, and not 25 with a fee of 6.
    let greedy = bank.post(withdrawals, &json!({ "amount": 25, "fee": 6 })).await;
    greedy.is_problem(422, "insufficient-funds");
    let why = "the balance is -70 and may go down to -100, 25 and a fee of 6 are more than that";
    assert_eq!(greedy.body["detail"], why);
    for fee in [json!(0), json!(-1), json!(1.5), json!("1"), json!(9_007_199_254_740_992_i64)] {
        let answer = bank.post(withdrawals, &json!({ "amount": 1, "fee": fee })).await;
        answer.is_problem(400, "bad-request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.starts_with("fee: it is not a whole number from 1 to 9007199254740991"), "{fee}: {detail}");
    }
    bank.post("/api/accounts/a/deposits", &json!({ "amount": 1, "fee": 1 })).await.is_problem(400, "bad-request");
    assert_eq!(bank.get_after("/api/accounts/a", &taken).await.body["balance"], -70);
    let history = bank.get_after("/api/accounts/a/history", &taken).await;
    let event = |at: usize| {
        let item = &history.body["items"][at];
        (item["version"].as_u64(), item["data"].clone(), item["command_id"].as_str())
    };
    assert_eq!(event(0), (Some(3), json!({ "amount": 10, "reference": "fee" }), Some("k1")));
    assert_eq!(event(1), (Some(2), json!({ "amount": 60, "reference": "rent" }), Some("k1")));
    assert_eq!(event(2).0, Some(1));
}

/// Shows: bodies that are not as promised are refused with the field that is wrong, and nothing happens.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn bad_bodies_are_refused_and_name_the_field() {
    let bank = Served::start(Bank::embedded()).await;
    let opened = bank.open("a").await;
    let long = format!(r#"{{"amount":1,"reference":"{}"}}"#, "x".repeat(201));
    for (body, named) in [
        (r#"{"amount":0}"#, "amount"),
        (r#"{"amount":-5}"#, "amount"),
        (r#"{"amount":9007199254740992}"#, "amount"),
        (r#"{"amount":99999999999999999999999}"#, "amount"),
        (r#"{"amount":1.5}"#, "amount"),
        (r#"{"amount":1e2}"#, "amount"),
        (r#"{"amount":"1"}"#, "amount"),
        (r#"{"amount":null}"#, "amount"),
        (r#"{"amount":1,"amount":2}"#, "amount"),
        (r#"{"reference":"x"}"#, "amount"),
        (r#"{"amount":1,"currency":"CZK"}"#, "currency"),
        (r#"{"amount":1,"reference":7}"#, "reference"),
        (r#"{"amount":1,"reference":""}"#, "reference"),
        (&long, "reference"),
        (r#"{"amount":1"#, "line 1"),
        (r#"{"amount":1} {}"#, "behind its object"),
        (r"[1]", "not a JSON object"),
        ("", "not a JSON object"),
        ("\u{0}", "not a JSON object"),
    ] {
        let answer = bank.send(Method::POST, "/api/accounts/a/deposits", Some(body), &[]).await;
        answer.is_problem(400, "bad-request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(named), "{body}: {detail}");
    }
    for (body, named) in [
        (json!({ "id": "b" }), "owner"),
        (json!({ "id": "b", "owner": "" }), "owner"),
        (json!({ "id": "b", "owner": "x".repeat(201) }), "owner"),
        (json!({ "id": "", "owner": "Ada" }), "id"),
        (json!({ "id": "!b", "owner": "Ada" }), "id"),
        (json!({ "id": "x".repeat(201), "owner": "Ada" }), "id"),
        (json!({ "id": "b", "owner": "Ada", "overdraft_limit": -1 }), "overdraft_limit"),
        (json!({ "id": "b", "owner": "Ada", "balance": 1_000_000 }), "balance"),
    ] {
        let answer = bank.post("/api/accounts", &body).await;
        answer.is_problem(400, "bad-request");
        assert!(answer.body["detail"].as_str().unwrap().contains(named), "{body}: {}", answer.body);
    }
    for size in [(64 << 10) + 1, 5 << 20] {
        let body = " ".repeat(size);
        bank.send(Method::POST, "/api/accounts", Some(&body), &[]).await.is_problem(413, "too-large");
    }
    assert_eq!(bank.get_after("/api/accounts", &opened).await.body["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(bank.get("/api/accounts/a").await.body["version"], 1);
}

/// Shows: a key makes a repeat recognisable, for successes and refusals, through a restart too.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn the_same_key_gets_the_same_answer() {
    let mut bank = Served::start(Bank::embedded()).await;
    let key = |key: &'static str| [("Idempotency-Key", key)];
    let first = bank.post_with("/api/accounts", &json!({ "owner": "Ada" }), &key("k1")).await;
    let id = first.body["id"].as_str().expect("an id").to_owned();
    let deposits = format!("/api/accounts/{id}/deposits");
    let withdrawals = format!("/api/accounts/{id}/withdrawals");
    bank.post_with(&withdrawals, &json!({ "amount": 5 }), &key("k2")).await.is_problem(422, "insufficient-funds");
    let deposit = bank.post_with(&deposits, &json!({ "amount": 70 }), &key("k3")).await;
    for _ in 0..2 {
        let repeat = bank.post_with("/api/accounts", &json!({ "owner": "Ada" }), &key("k1")).await;
        assert_eq!((repeat.status, &repeat.body["id"]), (201, &id.as_str().into()));
        assert_eq!((&repeat.body["duplicate"], &repeat.body["version"]), (&true.into(), &1.into()));
        assert_eq!(repeat.body["position"], first.body["position"]);
        // There is enough by now, and the answer is what it was.
        bank.post_with(&withdrawals, &json!({ "amount": 5 }), &key("k2")).await.is_problem(422, "insufficient-funds");
        let repeat = bank.post_with(&deposits, &json!({ "amount": 70 }), &key("k3")).await;
        assert_eq!((&repeat.body["duplicate"], &repeat.body["version"]), (&true.into(), &2.into()));
        let other = bank.post_with("/api/accounts", &json!({ "owner": "Bob" }), &key("k1")).await;
        other.is_problem(422, "idempotency-key-reused");
        let other = bank.post_with(&deposits, &json!({ "amount": 71 }), &key("k3")).await;
        other.is_problem(422, "idempotency-key-reused");
        bank.post_with(&withdrawals, &json!({ "amount": 70 }), &key("k3"))
            .await
            .is_problem(422, "idempotency-key-reused");
        assert_eq!(bank.get_after(&format!("/api/accounts/{id}"), &deposit).await.body["balance"], 70);

        bank.process.kill9();
        (bank.process, bank.url) = bank.bank.serve().await;
    }
    let odd = "ключ\t".repeat(40);
    for duplicate in [false, true] {
        let headers = [("Idempotency-Key", odd.as_str())];
        let answer = bank.post_with(&deposits, &json!({ "amount": 1 }), &headers).await;
        assert_eq!((answer.status, &answer.body["duplicate"]), (201, &duplicate.into()), "{}", answer.body);
    }
}

/// Shows: a key stands for one account, whichever the bodies name, through a restart too.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_key_opens_one_account_only() {
    let mut bank = Served::start(Bank::embedded()).await;
    let (named, made) = (json!({ "id": "a", "owner": "Ada" }), json!({ "owner": "Ada" }));
    let key = |key: &'static str| [("Idempotency-Key", key)];
    let mut last = bank.post_with("/api/accounts", &named, &key("named")).await;
    let id = bank.post_with("/api/accounts", &made, &key("made")).await.body["id"].clone();
    let own = json!({ "id": id, "owner": "Ada" });
    for _ in 0..2 {
        for (body, with) in [(&named, "named"), (&made, "made"), (&own, "made")] {
            last = bank.post_with("/api/accounts", body, &key(with)).await;
            assert_eq!((last.status, &last.body["duplicate"]), (201, &true.into()), "{}", last.body);
        }
        let others = [("b", "Ada", "named"), ("a", "Bob", "named"), ("b", "Ada", "made")];
        for (id, owner, with) in others {
            let answer = bank.post_with("/api/accounts", &json!({ "id": id, "owner": owner }), &key(with)).await;
            answer.is_problem(422, "idempotency-key-reused");
        }
        bank.post_with("/api/accounts", &made, &key("named")).await.is_problem(422, "idempotency-key-reused");
        bank.post_with("/api/accounts", &named, &key("late")).await.is_problem(409, "account-exists");
        bank.process.kill9();
        (bank.process, bank.url) = bank.bank.serve().await;
    }
    assert_eq!(bank.get_after("/api/accounts", &last).await.body["items"].as_array().map(Vec::len), Some(2));
}

/// Shows: headers are checked, and what they say comes out of the audit trail.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn headers_are_checked_and_kept() {
    let bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    let (deposits, one) = ("/api/accounts/a/deposits", json!({ "amount": 1 }));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [
        ("X-Correlation-Id", "corr"),
        ("X-Causation-Id", "cause"),
        ("X-Actor", "teller 7"),
        ("Idempotency-Key", "key"),
        ("traceparent", trace),
        ("If-Match", "\"1\""),
    ];
    let done = bank.post_with(deposits, &one, &headers).await;
    assert_eq!(done.status, 201, "{}", done.body);
    let entry = &bank.get_after("/api/audit?actor=teller%207&correlation=corr", &done).await.body["items"][0];
    assert_eq!((&entry["causation_id"], &entry["command_id"]), (&"cause".into(), &"key".into()), "{entry}");
    assert_eq!((&entry["account"], &entry["data"]["amount"]), (&"a".into(), &1.into()));

    bank.post_with(deposits, &one, &[("If-Match", "\"1\"")]).await.is_problem(412, "version-mismatch");
    assert_eq!(bank.post_with(deposits, &one, &[("If-Match", "2")]).await.status, 201);
    assert_eq!(bank.post_with(deposits, &one, &[("If-Match", "*")]).await.status, 201); // version 4
    assert_eq!(bank.post_with(deposits, &one, &[("If-Match", "\"1\", \"4\"")]).await.status, 201);
    for none in ["W/\"5\"", "\"1\", \"2\"", "\"another\""] {
        bank.post_with(deposits, &one, &[("If-Match", none)]).await.is_problem(412, "version-mismatch");
    }
    bank.post_with(deposits, &one, &[("If-None-Match", "*")]).await.is_problem(412, "version-mismatch");
    let long = "x".repeat(201);
    for (name, value) in [
        ("If-Match", "abc"),
        ("Idempotency-Key", ""),
        ("Idempotency-Key", &long),
        ("X-Actor", &long),
        ("X-Correlation-Id", ""),
        ("X-Causation-Id", &long),
    ] {
        let answer = bank.post_with(deposits, &one, &[(name, value)]).await;
        answer.is_problem(400, "bad-request");
        let detail = answer.body["detail"].as_str().unwrap().to_lowercase();
        assert!(detail.contains(&name.to_lowercase()), "{detail}");
    }
    for position in ["abc", "account/99@1", "loan/0@1"] {
        let answer = bank.send(Method::GET, "/api/accounts", None, &[("ES-Position", position)]).await;
        answer.is_problem(400, "bad-request");
    }
    let future = bank.send(Method::GET, "/api/accounts/a", None, &[("ES-Position", "account/0@999999")]).await;
    future.is_problem(503, "not-caught-up");
    assert_eq!(future.header("retry-after"), "1");
}

/// Shows: a precondition is no part of what a key stands for, and a key is one account's.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_key_stands_for_a_command_to_an_account_whatever_is_expected() {
    let mut bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    bank.open("b").await;
    let one = json!({ "amount": 1 });
    let with = |tag: &'static str| [("Idempotency-Key", "k"), ("If-Match", tag)];
    for wrong in ["\"99\"", "\"0\"", "W/\"1\""] {
        let answer = bank.post_with("/api/accounts/a/deposits", &one, &with(wrong)).await;
        answer.is_problem(412, "version-mismatch");
    }
    bank.process.kill9();
    (bank.process, bank.url) = bank.bank.serve().await;
    let done = bank.post_with("/api/accounts/a/deposits", &one, &with("\"1\"")).await;
    assert_eq!((done.status, &done.body["duplicate"]), (201, &false.into()), "{}", done.body);
    for any in ["\"1\"", "\"2\"", "\"99\"", "W/\"1\"", "*"] {
        let again = bank.post_with("/api/accounts/a/deposits", &one, &with(any)).await;
        assert_eq!((again.status, &again.body["duplicate"]), (201, &true.into()), "{any}: {}", again.body);
    }
    // To another account it is another command, with whatever body.
    let other =
        bank.post_with("/api/accounts/b/withdrawals", &json!({ "amount": 7 }), &[("Idempotency-Key", "k")]).await;
    assert_eq!((other.status, &other.body["duplicate"]), (201, &false.into()), "{}", other.body);
    for (path, body) in [("deposits", json!({ "amount": 2 })), ("withdrawals", one.clone()), ("close", json!({}))] {
        let path = format!("/api/accounts/a/{path}");
        let reused = bank.post_with(&path, &body, &[("Idempotency-Key", "k")]).await;
        reused.is_problem(422, "idempotency-key-reused");
    }
    let account = bank.get_after("/api/accounts/a", &done).await;
    assert_eq!((&account.body["balance"], account.header("etag")), (&1.into(), "\"2\""));
    for (condition, status) in [("\"2\"", 304), ("W/\"2\"", 304), ("\"1\", \"2\"", 304), ("*", 304), ("\"1\"", 200)] {
        let answer = bank.send(Method::GET, "/api/accounts/a", None, &[("If-None-Match", condition)]).await;
        assert_eq!((answer.status, answer.header("etag")), (status, "\"2\""), "{condition}");
        assert_eq!(answer.body == Value::String(String::new()), status == 304, "{condition}");
    }
}

/// Shows: a page of another site moves no money, nor does one under a name that was bent to this address; and nobody names an actor
/// whom the operator does not trust.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn a_page_of_another_site_moves_no_money() {
    let bank = Served::start_with(Bank::embedded(), &[]).await;
    bank.open("a").await;
    let (path, body) = ("/api/accounts/a/deposits", r#"{"amount":1}"#);
    let host = bank.url.trim_start_matches("http://").to_owned();
    for (headers, status, code) in [
        (&[("Content-Type", "text/plain")][..], 415, "unsupported-media-type"),
        (&[("Content-Type", "application/x-www-form-urlencoded")], 415, "unsupported-media-type"),
        (&[("Origin", "https://evil.example")], 403, "cross-site"),
        (&[("Origin", "null")], 403, "cross-site"),
        (&[("Sec-Fetch-Site", "cross-site")], 403, "cross-site"),
        (&[("Host", "evil.example")], 421, "unknown-host"),
    ] {
        bank.send(Method::POST, path, Some(body), headers).await.is_problem(status, code);
    }
    bank.send(Method::GET, "/api/accounts", None, &[("Host", "evil.example")]).await.is_problem(421, "unknown-host");
    let close = bank.send(Method::POST, "/api/accounts/a/close", None, &[("Content-Type", "text/plain")]).await;
    close.is_problem(415, "unsupported-media-type");
    let own = format!("http://{host}");
    let headers = [("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin"), ("X-Actor", "the director")];
    let done = bank.send(Method::POST, path, Some(body), &headers).await;
    assert_eq!((done.status, &done.body["version"]), (201, &2.into()), "{}", done.body);
    let audit = bank.get_after("/api/audit?type=deposited", &done).await;
    assert_eq!(audit.body["items"][0]["actor"], Value::Null, "{}", audit.body);
}

/// Shows: who was refused what, when and why can be asked, and a refused attempt is no event.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn what_was_refused_is_in_the_trail() {
    let bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    let headers = [("X-Actor", "teller 7"), ("X-Correlation-Id", "corr"), ("Idempotency-Key", "greedy")];
    let refused = bank.post_with("/api/accounts/a/withdrawals", &json!({ "amount": 1000 }), &headers).await;
    refused.is_problem(422, "insufficient-funds");
    let stale = [("If-Match", "\"7\""), ("X-Actor", "teller 8")];
    bank.post_with("/api/accounts/a/deposits", &json!({ "amount": 1 }), &stale)
        .await
        .is_problem(412, "version-mismatch");
    bank.post("/api/accounts/nobody/deposits", &json!({ "amount": 1 })).await.is_problem(404, "account-not-found");
    let of = async |filter: &str| -> Vec<Value> {
        bank.get(&format!("/api/audit?refused=true{filter}")).await.body["items"].as_array().expect("a list").clone()
    };
    let all = eventually("what was refused", LONG, async || {
        let all = of("").await;
        (all.len() == 3).then_some(all)
    });
    let all = all.await;
    let greedy = &of("&actor=teller%207").await[0];
    assert_eq!((&greedy["account"], &greedy["command_id"]), (&"a".into(), &"greedy".into()), "{greedy}");
    assert_eq!((&greedy["command_type"], &greedy["answer"]), (&"withdraw".into(), &"refused".into()), "{greedy}");
    assert_eq!((&greedy["correlation_id"], &greedy["version"]), (&"corr".into(), &1.into()), "{greedy}");
    assert!(greedy["why"].as_str().unwrap().contains("1000 is more than that"), "{greedy}");
    assert_eq!(of("&account=a&actor=teller%208").await[0]["answer"], "conflict");
    assert_eq!(of("&account=nobody").await.len(), 1);
    for filter in ["&correlation=corr", "&command=greedy"] {
        assert_eq!(of(filter).await, std::slice::from_ref(greedy), "{filter}");
    }
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = bank.get(&format!("/api/audit?refused=true&limit=1{cursor}")).await.body;
        paged.extend(page["items"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, all);
    bank.get("/api/audit?refused=true&type=opened").await.is_problem(400, "bad-request");
    bank.get("/api/audit?refused=maybe").await.is_problem(400, "bad-request");
    assert_eq!(bank.get("/api/audit").await.body["items"].as_array().map(Vec::len), Some(1));
}

/// Shows: lists come in pages that together are the whole, once.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn lists_come_in_pages() {
    let bank = Served::start(Bank::embedded()).await;
    let mut last = bank.open("a0").await;
    for number in 1..7 {
        last = bank.open(&format!("a{number}")).await;
    }
    for amount in 1..=6 {
        last = bank.post("/api/accounts/a3/deposits", &json!({ "amount": amount })).await;
    }
    bank.get_after("/api/accounts", &last).await;
    bank.get_after("/api/audit", &last).await;
    for (path, key, expected) in [
        ("/api/accounts?limit=3", "id", json!(["a0", "a1", "a2", "a3", "a4", "a5", "a6"])),
        ("/api/accounts/a3/history?limit=3", "version", json!([7, 6, 5, 4, 3, 2, 1])),
        ("/api/audit?account=a3&limit=3", "version", json!([7, 6, 5, 4, 3, 2, 1])),
        ("/api/audit?account=a3&type=deposited&limit=4", "version", json!([7, 6, 5, 4, 3, 2])),
    ] {
        let (mut seen, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = bank.get(&format!("{path}{cursor}")).await;
            assert_eq!(page.status, 200, "{}", page.body);
            seen.extend(page.body["items"].as_array().unwrap().iter().map(|item| item[key].clone()));
            let Some(next) = page.body["next"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!(Value::from(seen), expected, "{path}");
    }
    let newest = &bank.get("/api/accounts/a3/history").await.body["items"][0];
    assert_eq!(
        (&newest["changed"]["balance"], &newest["type"]),
        (&json!({ "from": 15, "to": 21 }), &"deposited".into())
    );
    assert_eq!(bank.get("/api/audit?limit=1000").await.body["items"].as_array().map(Vec::len), Some(13));
    for wrong in [
        "accounts?limit=0",
        "accounts?limit=1001",
        "accounts?limit=x",
        "accounts?cursor=zz",
        "accounts?page=2",
        "audit?limit=1001",
        "audit?cursor=zz",
        "audit?from=soon",
        "audit?to=930101",
        "audit?actor=",
        "accounts/a3/history?limit=-1",
        "accounts/a3/history?cursor=zz",
    ] {
        bank.get(&format!("/api/{wrong}")).await.is_problem(400, "bad-request");
    }
}

/// Shows: every filter of the audit trail finds what it names, alone and with others, and SQL in it is text like any other; what can't be
/// meant is refused by its name.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn the_audit_trail_is_asked_by_every_filter() {
    let bank = Served::start(Bank::embedded()).await;
    for id in ["a", "b"] {
        bank.open(id).await;
    }
    let nasty = "O'Brien\"; DROP TABLE bank_audit; --";
    let send = async |account: &str, kind: &str, body: Value, key: &str, cause: &str| {
        let headers =
            [("Idempotency-Key", key), ("X-Causation-Id", cause), ("X-Correlation-Id", "talk"), ("X-Actor", nasty)];
        let done = bank.post_with(&format!("/api/accounts/{account}/{kind}"), &body, &headers).await;
        assert_eq!(done.status, 201, "{}", done.body);
        done
    };
    send("a", "deposits", json!({ "amount": 500, "reference": nasty }), "first", "order").await;
    send("b", "deposits", json!({ "amount": 7 }), "second", "first").await;
    let last = send("a", "withdrawals", json!({ "amount": 7 }), "third", "second").await;
    bank.get_after("/api/audit", &last).await;
    let found = async |filters: &str| {
        let answer = bank.get(&format!("/api/audit?{filters}")).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        let items = answer.body["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["command_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    let escaped = "O%27Brien%22%3B%20DROP%20TABLE%20bank_audit%3B%20--";
    for (filters, expected) in [
        ("caused_by=first", "third second first"),
        ("caused_by=second&account=b", "second"),
        ("causation=first", "second"),
        ("causation=order&type=deposited", "first"),
        ("command=third", "third"),
        ("field=amount=7", "third second"),
        ("field=amount=7&field=amount=8", ""),
        ("field=amount=%227%22", ""),
        ("field=amount=7&account=a&recorded_from=2024-01-01", "third"),
        ("correlation=talk&recorded_to=2024-01-01", ""),
        ("correlation=talk&from=2024-01-01&type=withdrawn", "third"),
        (&format!("actor={escaped}"), "third second first"),
        (&format!("actor={escaped}&field=reference={escaped}"), "first"),
        (&format!("command={escaped}"), ""),
        (&format!("caused_by={escaped}"), ""),
        (&format!("correlation={escaped}&causation={escaped}&account={escaped}"), ""),
        (&format!("field={escaped}={escaped}"), ""),
    ] {
        assert_eq!(found(filters).await, expected, "{filters}");
    }
    let page = bank.get("/api/audit?caused_by=first&limit=2").await.body;
    let cursor = page["next"].as_str().unwrap();
    assert_eq!(found(&format!("caused_by=first&limit=2&cursor={cursor}")).await, "first");
    for (wrong, reason) in [
        ("type=paid", "type: there is no event type \"paid\": there are opened, deposited, withdrawn, closed"),
        (&format!("type={escaped}"), "there is no event type"),
        ("from=1993-02-01&to=1993-01-01", "no business time is from"),
        ("recorded_from=1993-02-01&recorded_to=1993-01-01", "no time of recording is from"),
        ("recorded_from=1993-12-31T12:00:00", "recorded_from: \"1993-12-31T12:00:00\" has no time zone: write"),
        ("recorded_to=soon", "recorded_to: \"soon\" is neither a date"),
        ("field=amount", "field: payload field \"amount\" has no value: write path=value"),
        ("field==7", "has an empty name"),
        ("caused_by=", "caused_by: "),
        ("causation=%00", "causation: "),
        ("command=", "command: "),
        ("limit=1001", "limit: 1001 is not between 1 and 1000"),
        ("limit=-1", "limit: "),
        ("account=a&account=b", "account is given more than once"),
        ("acount=a", "there is no parameter \"acount\""),
        (&format!("cursor={cursor}"), "is not one of this query"),
        (&format!("caused_by=second&cursor={cursor}"), "is not one of this query"),
        (&format!("cursor={escaped}"), "is not one of this query"),
    ] {
        let answer = bank.get(&format!("/api/audit?{wrong}")).await;
        answer.is_problem(400, "bad-request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{wrong}: {detail}");
    }
}

/// Shows: an account as it was, by version and by business time, after a change that the request waits for.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn an_account_is_told_as_it_was() {
    let bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    let mut last = None;
    for amount in [5, 7] {
        last = Some(bank.post("/api/accounts/a/deposits", &json!({ "amount": amount })).await);
    }
    let last = last.unwrap();
    for (version, balance) in [(1, 0), (2, 5), (3, 12)] {
        let then = bank.get_after(&format!("/api/accounts/a?version={version}"), &last).await;
        assert_eq!(
            (then.status, &then.body["balance"], &then.body["version"]),
            (200, &balance.into(), &version.into())
        );
        assert_eq!((then.header("etag"), &then.body["owner"]), (format!("\"{version}\"").as_str(), &"Ada".into()));
    }
    let tomorrow = (chrono::Utc::now() + chrono::Days::new(1)).format("%Y-%m-%d");
    let then = bank.get(&format!("/api/accounts/a?at={tomorrow}")).await;
    assert_eq!((&then.body["balance"], &then.body["version"]), (&12.into(), &3.into()));
    for (query, status, code) in [
        ("a?at=1993-12-31", 404, "account-not-found"),
        ("nobody?version=1", 404, "account-not-found"),
        ("a?version=4", 400, "bad-request"),
        ("a?version=0", 400, "bad-request"),
        ("a?version=x", 400, "bad-request"),
        ("a?version=1&at=1993-12-31", 400, "bad-request"),
        ("a?at=1993-12-31T12:00:00", 400, "bad-request"),
        ("a?at=%27%20OR%201%3D1%20--", 400, "bad-request"),
    ] {
        bank.get(&format!("/api/accounts/{query}")).await.is_problem(status, code);
    }
}

/// Shows: SQL in every field of every question about the past is text like any other; what can't be meant is refused with its reason; and
/// after all of it each event is still there.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn bad_questions_about_the_past_are_refused_and_change_nothing() {
    let bank = Served::start(Bank::embedded()).await;
    let nasty = "O'Brien\"; DROP TABLE bank_audit; --";
    let escaped = "O%27Brien%22%3B%20DROP%20TABLE%20bank_audit%3B%20--";
    bank.open(nasty).await;
    bank.open("a").await;
    let mut last = None;
    for account in ["a", escaped] {
        last = Some(bank.post(&format!("/api/accounts/{account}/deposits"), &json!({ "amount": 5 })).await);
    }
    let last = last.unwrap();
    bank.get_after("/api/audit", &last).await;
    let cursor = async |path: &str| {
        let page = bank.get_after(path, &last).await.body;
        page["next"].as_str().unwrap_or_else(|| panic!("{path} has a next page: {page}")).to_owned()
    };
    let of_audit = cursor("/api/audit?account=a&limit=1").await;
    let of_history = cursor("/api/accounts/a/history?limit=1").await;
    let all = bank.get("/api/audit").await.body;
    assert_eq!(all["items"].as_array().map(Vec::len), Some(4), "{all}");
    let (no_cursor, not_counted) = ("is not one of this query", "is not a number from 1 on");
    let (no_date, no_zone, no_limit) = ("is neither a date", "has no time zone: write", "is not between 1 and 1000");
    for (path, reason) in [
        ("audit?limit=0", no_limit),
        ("audit?limit=1001", no_limit),
        (&format!("audit?limit={escaped}"), "limit: "),
        ("audit?from=1993-12-31T12:00:00", no_zone),
        ("audit?to=1993-12-31T12:00", no_zone),
        ("audit?recorded_from=1993-12-31%2012:00:00", no_zone),
        ("audit?recorded_to=1993-12-31T12:00:00.5", no_zone),
        (&format!("audit?from={escaped}"), no_date),
        (&format!("audit?to={escaped}"), no_date),
        (&format!("audit?recorded_from={escaped}"), no_date),
        (&format!("audit?recorded_to={escaped}"), no_date),
        (&format!("audit?type={escaped}"), "there is no event type"),
        (&format!("audit?cursor={of_audit}"), no_cursor),
        (&format!("audit?account=a&cursor={of_audit}{escaped}"), no_cursor),
        (&format!("audit?{escaped}=1"), "there is no parameter"),
        ("audit?from=1993-01-01&to=1992-12-31", "no business time is from"),
        ("accounts/a/history?limit=0", no_limit),
        ("accounts/a/history?limit=1001", no_limit),
        (&format!("accounts/a/history?limit={escaped}"), "limit"),
        (&format!("accounts/{escaped}/history?cursor={of_history}"), no_cursor),
        (&format!("accounts/a/history?cursor={escaped}"), no_cursor),
        (&format!("accounts/a/history?cursor={of_history}{escaped}"), no_cursor),
        (&format!("accounts/a/history?{escaped}=1"), "unknown field"),
        ("accounts/a/history?from=1993-01-01", "unknown field"),
        ("accounts/a?at=1993-12-31T12:00:00", no_zone),
        ("accounts/a?at=31.12.1993", no_date),
        (&format!("accounts/a?at={escaped}"), no_date),
        ("accounts/a?version=0", "versions are counted from 1"),
        ("accounts/a?version=3", "account-a has no version 3 in the audit trail, only 2"),
        ("accounts/a?version=18446744073709551615", "has no version 18446744073709551615"),
        ("accounts/a?version=18446744073709551616", not_counted),
        ("accounts/a?version=-1", not_counted),
        (&format!("accounts/a?version={escaped}"), not_counted),
        ("accounts/a?version=1&at=1993-12-31", "only one of them can be given"),
        (&format!("accounts/a?{escaped}=1"), "unknown field"),
    ] {
        let answer = bank.get(&format!("/api/{path}")).await;
        answer.is_problem(400, "bad-request");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(detail.contains(reason), "{path}: {detail}");
    }
    // The audit trail's cursor of the same order is one of the history too, which asks the same.
    assert_eq!(bank.get(&format!("/api/accounts/a/history?cursor={of_audit}")).await.status, 200);
    for nobody in ["%27%20OR%201=1%20--", "%22%20OR%20%22%22=%22", "a%25", "_"] {
        for path in ["history", "?version=1", "?at=2999-01-01"] {
            let separator = if path.starts_with('?') { "" } else { "/" };
            let answer = bank.get(&format!("/api/accounts/{nobody}{separator}{path}")).await;
            answer.is_problem(404, "account-not-found");
        }
    }
    for (path, version) in [("history?limit=1", 2), ("?version=1", 1), ("?at=9999-12-31", 2)] {
        let separator = if path.starts_with('?') { "" } else { "/" };
        let told = bank.get(&format!("/api/accounts/{escaped}{separator}{path}")).await;
        let found = if path.starts_with('?') { &told.body } else { &told.body["items"][0] };
        let id = if path.starts_with('?') { &found["id"] } else { &found["account"] };
        assert_eq!((told.status, id, &found["version"]), (200, &nasty.into(), &version.into()), "{}", told.body);
    }
    for ever in ["from=0001-01-01", "to=9999-12-31", "recorded_from=0001-01-01&recorded_to=9999-12-31T23:59:59Z"] {
        assert_eq!(
            bank.get(&format!("/api/audit?{ever}")).await.body["items"].as_array().map(Vec::len),
            Some(4),
            "{ever}"
        );
    }
    assert_eq!(bank.get("/api/audit").await.body, all);
}

/// Shows: each event that is recorded while somebody listens reaches the listener, in the account's order.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn recorded_events_are_told_live() {
    let mut bank = Served::start(Bank::embedded()).await;
    let opened = bank.open("a").await;
    bank.get_after("/api/accounts", &opened).await;
    let response = bank.client.get(format!("{}/api/live", bank.url)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    for amount in 1..=5 {
        bank.post("/api/accounts/a/deposits", &json!({ "amount": amount })).await;
    }
    let (mut stream, mut text) = (response.bytes_stream(), String::new());
    while text.matches("\n\n").count() < 5 {
        let chunk = tokio::time::timeout(LONG, stream.next()).await.expect("events come").expect("the stream goes on");
        text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
    }
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let amounts: Vec<Value> =
        data.map(|data| serde_json::from_str::<Value>(data).unwrap()["data"]["amount"].clone()).collect();
    assert_eq!(amounts, [1, 2, 3, 4, 5]);
    drop(stream);
    // Whoever comes again goes on where it was.
    let ids: Vec<String> = text.lines().filter_map(|line| line.strip_prefix("id: ").map(String::from)).collect();
    for (last, expected) in [(&ids[1], 3..=5), (&ids[3], 5..=5)] {
        let again =
            bank.client.get(format!("{}/api/live", bank.url)).header("Last-Event-ID", last).send().await.unwrap();
        let (mut stream, mut text) = (again.bytes_stream(), String::new());
        while text.matches("\n\n").count() < expected.clone().count() {
            let chunk = tokio::time::timeout(LONG, stream.next()).await.expect("events come").expect("it goes on");
            text.push_str(std::str::from_utf8(&chunk.unwrap()).unwrap());
        }
        let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
        let amounts = data.map(|data| serde_json::from_str::<Value>(data).unwrap()["data"]["amount"].clone());
        assert_eq!(amounts.collect::<Vec<_>>(), expected.map(Value::from).collect::<Vec<_>>());
    }
    for wrong in ["1", "a.b", "9999999.0.0.0.0.0.0.0"] {
        let answer = bank.send(Method::GET, "/api/live", None, &[("Last-Event-ID", wrong)]).await;
        answer.is_problem(400, "bad-request");
    }
    let response = bank.client.get(format!("{}/api/live", bank.url)).send().await.unwrap();
    let mut stream = response.bytes_stream();
    // A listener keeps nobody from stopping.
    bank.process.sigterm();
    assert!(bank.process.wait(LONG).await.success(), "{}", bank.process.stderr());
    assert!(tokio::time::timeout(LONG, stream.next()).await.is_ok_and(|end| !matches!(end, Some(Ok(_)))));
}

/// Shows: what operators look at is there and true.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn operators_see_health_and_figures() {
    let bank = Served::start(Bank::embedded()).await;
    assert_eq!(bank.get("/healthz").await.status, 200);
    assert_eq!(bank.get("/readyz").await.status, 200);
    assert_eq!(bank.get("/").await.status, 200);
    let opened = bank.open("a").await;
    assert_eq!(bank.get("/api/parked").await.body, json!({ "parked": 0, "items": [] }));
    assert_eq!(bank.post("/api/parked/a/retry", &json!({})).await.body, json!({ "id": "a", "resumed": false }));
    bank.post("/api/parked/!a/retry", &json!({})).await.is_problem(404, "account-not-found");
    bank.get_after("/api/accounts", &opened).await;
    bank.get_after("/api/audit", &opened).await;
    let metrics = eventually("the statements, for which no request waits", LONG, async || {
        let metrics = bank.get("/metrics").await;
        metrics
            .body
            .as_str()?
            .contains("bank_projection_events_total{projection=\"statements\"} 1\n")
            .then_some(metrics)
    });
    let metrics = metrics.await;
    assert!(metrics.header("content-type").starts_with("text/plain; version=0.0.4"));
    let text = metrics.body.as_str().expect("text").to_owned();
    let mut named = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            named.push(rest.split(' ').next().unwrap().to_owned());
            assert!(text.contains(&format!("# HELP {} ", named.last().unwrap())), "{line}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(named.iter().any(|name| series == name || series.starts_with(&format!("{name}{{"))), "{line}");
        }
    }
    let sum = |name: &str| -> u64 {
        let values = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        values.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert_eq!(sum("bank_owner_serving"), 8);
    assert_eq!(sum("bank_owner_records_total"), 1);
    assert_eq!(sum("bank_projection_running"), 3);
    assert_eq!(sum("bank_owner_parked_aggregates"), 0);
    assert_eq!(sum("bank_projection_parked_aggregates"), 0);
    assert_eq!(sum("bank_projection_events_total"), 3);
    for name in ["bank_projection_lag_records", "bank_projection_lag_seconds"] {
        let series = text.lines().filter(|line| line.starts_with(&format!("{name}{{"))).count();
        assert_eq!(series, 3 * 8, "{name} of each projection and partition");
    }
}

/// Shows: read models that can't follow turn the process's health red where a limit was given, though commands are taken.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn read_models_that_lag_behind_are_not_ready() {
    let bank = Served::start_with(Bank::embedded(), &["--lag-max", "1"]).await;
    let opened = bank.open("a").await;
    bank.get_after("/api/accounts", &opened).await;
    assert_eq!(bank.get("/readyz").await.status, 200);
    // SQLite has one writer at a time.
    let database = bank.bank.connect().await;
    let held = database.begin().await.unwrap();
    assert_eq!(bank.post("/api/accounts/a/deposits", &json!({ "amount": 5 })).await.status, 201);
    let red = eventually("the limit", LONG, async || {
        let ready = bank.get("/readyz").await;
        (ready.status == 503).then(|| ready.body["detail"].as_str().expect("text").to_owned())
    });
    let detail = red.await;
    assert!(detail.contains(" behind in bank.account.events/") && detail.ends_with("and may be 1s"), "{detail}");
    held.rollback().await.unwrap();
    eventually("what waited", LONG, async || (bank.get("/readyz").await.status == 200).then_some(())).await;
}

/// Shows: SIGINT and SIGTERM end the process with status 0, and what was acknowledged is there afterwards.
#[tokio::test]
#[ignore = "needs the bank binary: run scripts/test"]
async fn signals_end_it_in_order() {
    let mut bank = Served::start(Bank::embedded()).await;
    bank.open("a").await;
    for (round, stop) in [(1, Proc::sigint as fn(&mut Proc)), (2, Proc::sigterm)] {
        let deposit = bank.post("/api/accounts/a/deposits", &json!({ "amount": 1 })).await;
        assert_eq!(deposit.body["version"], round + 1);
        stop(&mut bank.process);
        assert!(bank.process.wait(LONG).await.success(), "{}", bank.process.stderr());
        (bank.process, bank.url) = bank.bank.serve().await;
    }
}

/// Shows: a short command beside a bank that serves takes its projections only while it runs.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn commands_beside_a_serving_bank_leave_its_read_models_running() {
    let bank = Served::start(Bank::on_servers().await).await;
    bank.open("a").await;
    let beside = bank.bank.elsewhere();
    for amount in 1..=3_u64 {
        assert_eq!(beside.balances(&[])["a"].1, amount);
        let deposit = bank.post("/api/accounts/a/deposits", &json!({ "amount": amount })).await;
        let account = bank.get_after("/api/accounts/a", &deposit).await;
        assert_eq!((account.status, &account.body["version"]), (200, &json!(amount + 1)), "{}", account.body);
        let audit = bank.get_after("/api/audit?type=deposited", &deposit).await;
        assert_eq!(audit.body["items"].as_array().map(Vec::len), Some(amount as usize), "{}", audit.body);
        assert_eq!(bank.get("/readyz").await.status, 200);
    }
}

/// Shows: of two banks that serve each reads what either wrote, and the one that is left goes on.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn two_serving_banks_read_what_either_wrote() {
    let first = Served::start(Bank::on_servers().await).await;
    first.open("a").await;
    let mut second = Served::start(first.bank.elsewhere()).await;
    for round in 0..5 {
        for bank in [&first, &second] {
            let deposit = deposited(bank).await;
            for bank in [&first, &second] {
                let account = bank.get_after("/api/accounts/a", &deposit).await;
                assert_eq!((account.status, &account.body["version"]), (200, &deposit.body["version"]), "{round}");
            }
        }
    }
    for bank in [&first, &second] {
        let shares = eventually("both to have partitions of all three projections", LONG, async || {
            let metrics = bank.get("/metrics").await;
            let text = metrics.body.as_str()?;
            let held = text.lines().filter_map(|line| line.strip_prefix("bank_projection_partitions{"));
            (held.filter(|line| !line.ends_with(" 0")).count() == 3).then_some(())
        });
        shares.await;
    }

    second.process.sigterm();
    assert!(second.process.wait(LONG).await.success(), "{}", second.process.stderr());
    let deposit = deposited(&first).await;
    let account = first.get_after("/api/accounts/a", &deposit).await;
    assert_eq!((account.status, &account.body["version"]), (200, &deposit.body["version"]));
}

/// A deposit, once somebody owns the account.
async fn deposited(bank: &Served) -> Answer {
    eventually("the deposit to be taken", LONG, async || {
        let answer = bank.post("/api/accounts/a/deposits", &json!({ "amount": 1 })).await;
        (answer.status == 201).then_some(answer)
    })
    .await
}

/// Shows: commands, repeats, reads and refusals are the same on Kafka and PostgreSQL.
#[tokio::test]
#[ignore = "needs Kafka and PostgreSQL: run scripts/test"]
async fn the_same_on_servers() {
    let bank = Served::start(Bank::on_servers().await).await;
    bank.open("a").await;
    let headers = [("Idempotency-Key", "k"), ("X-Actor", "teller")];
    for duplicate in [false, true] {
        let deposit = bank.post_with("/api/accounts/a/deposits", &json!({ "amount": 5 }), &headers).await;
        assert_eq!((deposit.status, &deposit.body["duplicate"]), (201, &duplicate.into()), "{}", deposit.body);
        let account = bank.get_after("/api/accounts/a", &deposit).await;
        assert_eq!((&account.body["balance"], &account.body["version"]), (&5.into(), &2.into()));
        let audit = bank.get_after("/api/audit?actor=teller", &deposit).await;
        assert_eq!(audit.body["items"].as_array().map(Vec::len), Some(1));
    }
    bank.post("/api/accounts/a/withdrawals", &json!({ "amount": 106 })).await.is_problem(422, "insufficient-funds");
    let ready = eventually("the bank to be ready", Duration::from_secs(30), async || {
        let ready = bank.get("/readyz").await;
        (ready.status == StatusCode::OK.as_u16()).then_some(ready)
    });
    ready.await;
}
