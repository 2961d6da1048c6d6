//! What the bank's tests share: the program as a child process, its embedded and its full surroundings, and what
//! must become of the real transactions.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use es_projections::Database;
use es_tests::{Kafka, Postgres, Proc, bank_binary, eventually, topic_prefix};
use tempfile::TempDir;

pub(crate) const LONG: Duration = Duration::from_secs(180);

/// A bank of one test: a folder of its own, and a namespace and a database of its own where there are servers.
pub(crate) struct Bank {
    pub(crate) dir: TempDir,
    options: Vec<String>,
}

impl Bank {
    /// A bank on the embedded log and SQLite.
    pub(crate) fn embedded() -> Bank {
        Bank { dir: tempfile::tempdir().expect("a temporary folder"), options: Vec::new() }
    }

    /// A bank on Kafka and PostgreSQL.
    pub(crate) async fn on_servers() -> Bank {
        let (kafka, postgres) = tokio::join!(Kafka::shared(), Postgres::shared());
        let options = ["--kafka", &kafka.bootstrap(), "--database", &postgres.database().await];
        let namespace = ["--namespace".into(), topic_prefix()];
        let options = options.map(String::from).into_iter().chain(namespace).collect();
        Bank { options, ..Bank::embedded() }
    }

    /// The same bank with its read models in another database.
    pub(crate) fn with_database(self, url: &str) -> Bank {
        self.with_option("--database", url)
    }

    /// The same bank with another value of an option that it has.
    pub(crate) fn with_option(mut self, name: &str, value: &str) -> Bank {
        let place = self.options.iter().position(|option| option == name).expect("a bank on servers") + 1;
        self.options[place] = value.into();
        self
    }

    /// The value of an option that it has.
    pub(crate) fn option(&self, name: &str) -> String {
        let place = self.options.iter().position(|option| option == name).expect("a bank on servers");
        self.options[place + 1].clone()
    }

    /// The database of its read models.
    pub(crate) async fn connect(&self) -> Database {
        let option = |name| self.options.iter().any(|option| option == name).then(|| self.option(name));
        let embedded = || format!("sqlite://{}", self.data().join("bank.db").display());
        let url = option("--database").unwrap_or_else(embedded);
        let namespace = option("--namespace").unwrap_or_else(|| "bank".into());
        Database::connect(&url, &namespace).await.expect("the database is there")
    }

    /// The same bank with a folder of its own, as on another machine.
    pub(crate) fn elsewhere(&self) -> Bank {
        Bank { options: self.options.clone(), ..Bank::embedded() }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The program with this bank's options and without anything from the environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = program(args);
        command.arg("--data").arg(self.data()).args(&self.options);
        command
    }

    /// Runs a command to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Output {
        output(self.command(args))
    }

    /// Runs a command that must succeed, and gives its standard output.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).expect("output in UTF-8")
    }

    /// Imports a file and gives the summary.
    #[track_caller]
    pub(crate) fn import(&self, file: &Path, more: &[&str]) -> serde_json::Value {
        let file = file.to_str().expect("a path in UTF-8");
        let json = self.ok(&[&["import", "pkdd99", file, "--json"], more].concat());
        serde_json::from_str(&json).expect("one JSON object")
    }

    /// Balance and version of each account, 0 where no version left it so.
    #[track_caller]
    pub(crate) fn balances(&self, more: &[&str]) -> BTreeMap<String, (i64, u64)> {
        let csv = self.ok(&[&["balances", "--csv"], more].concat());
        let mut lines = csv.lines();
        assert_eq!(lines.next(), Some("account,balance,version"));
        let row = |line: &str| {
            let fields: Vec<&str> = line.split(',').collect();
            let version = if fields[2].is_empty() { 0 } else { fields[2].parse().expect("a version") };
            (fields[0].to_owned(), (fields[1].parse().expect("a balance"), version))
        };
        lines.map(row).collect()
    }

    /// Serves on a free port, and gives the process and its address once it says that it listens.
    pub(crate) async fn serve(&self) -> (Proc, String) {
        self.serve_with(&[]).await
    }

    /// The same with more options.
    pub(crate) async fn serve_with(&self, more: &[&str]) -> (Proc, String) {
        let mut serving = Proc::spawn(self.command(&[&["serve", "--listen", "127.0.0.1:0"], more].concat()));
        let address = eventually("the bank to listen", LONG, async || {
            assert!(serving.exited().is_none(), "the bank ended: {}", serving.stderr());
            serving.stdout().trim().strip_prefix("listening on ").map(String::from)
        });
        let address = address.await;
        (serving, address)
    }
}

/// The program without anything from the environment.
pub(crate) fn program(args: &[&str]) -> Command {
    program_at(&bank_binary(), args)
}

/// The same of another program than that of this release.
pub(crate) fn program_at(binary: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binary);
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BANK_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command
}

#[track_caller]
pub(crate) fn output(mut command: Command) -> Output {
    command.output().expect("the bank can be started")
}

/// A row of the file: day, signed amount and printed balance in haléře.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Printed {
    pub(crate) day: u32,
    pub(crate) amount: i64,
    pub(crate) balance: i64,
}

/// The rows by account, read here once more and in another way than the program does.
pub(crate) fn printed(file: &Path) -> BTreeMap<String, Vec<Printed>> {
    let bytes = std::fs::read(file).expect("the transactions can be read");
    let text = String::from_utf8_lossy(&bytes);
    let mut accounts: BTreeMap<String, Vec<Printed>> = BTreeMap::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(';').map(|field| field.trim_matches('"')).collect();
        let sign = if fields[3] == "PRIJEM" { 1 } else { -1 };
        let row = Printed {
            day: fields[2].parse().expect("a date"),
            amount: sign * minor_units(fields[5]),
            balance: minor_units(fields[6]),
        };
        accounts.entry(fields[1].into()).or_default().push(row);
    }
    accounts
}

/// `12.30` is 1230.
fn minor_units(text: &str) -> i64 {
    let (whole, decimals) = text.split_once('.').expect("a decimal point");
    assert_eq!(decimals.len(), 2, "{text}");
    format!("{whole}{decimals}").parse().expect("a number")
}
