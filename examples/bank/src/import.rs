//! `bank import`: the transactions of a file, each as a command through the bus.

mod file;
mod known;
mod lanes;
mod pkdd99;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::NaiveDate;
use es_projections::Database;

use crate::app::{Bank, Options, catch_up};
use crate::cli::wrong_usage;
use crate::failure::Failure;
use crate::read_model::Name;
use crate::time::yymmdd;
use file::Encoding;
use known::Known;
use lanes::{Item, Lanes};
use report::Report;

/// Rows that are looked up at once in what was imported before.
const BATCH: usize = 512;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The transactions, as in trans.asc
    trans: PathBuf,
    /// Open these accounts first, as in account.asc, with their districts as branches
    #[arg(long, value_name = "FILE")]
    accounts: Option<PathBuf>,
    /// Leave out what was before this day
    #[arg(long, value_name = "YYMMDD", value_parser = yymmdd)]
    from: Option<NaiveDate>,
    /// Leave out what was after this day
    #[arg(long, value_name = "YYMMDD", value_parser = yymmdd)]
    to: Option<NaiveDate>,
    /// How letters beyond ASCII are written. Unless given: UTF-8 behind a byte order mark, else Latin-1, and where both fit
    /// the import stops and asks
    #[arg(long, value_name = "ENCODING")]
    encoding: Option<Encoding>,
    /// Print the summary as a JSON object
    #[arg(long)]
    json: bool,
}

/// Imports the file and waits until the read models contain all of it.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    if let (Some(from), Some(to)) = (args.from, args.to)
        && from > to
    {
        wrong_usage("--from is later than --to: nothing can be between");
    }
    let started = Instant::now();
    // Both are looked at before anything is opened, so that a wrong name or header changes nothing.
    let transactions = pkdd99::Transactions::open(&args.trans, args.encoding)?;
    let open = |path: &PathBuf| pkdd99::Accounts::open(path, args.encoding).map(|accounts| (path.clone(), accounts));
    let accounts = args.accounts.as_ref().map(open).transpose()?;
    let bank = Bank::open(options, None, false).await?;
    bank.bus.ready().await.map_err(|error| Failure::because("taking over the accounts", &error))?;
    // Only then it tells of everything that was imported before.
    catch_up(&bank.models.audit).await?;
    must_not_be_parked(&bank.models.store.database).await?;
    let mut known = Known::open(&bank.models.store.database).await?;

    let report = Arc::new(Report::new(transactions.bytes()));
    let correlation = format!("import-{}", file_name(&args.trans));
    let lanes = Lanes::start(&bank.bus, &report, &correlation);
    let selection = Selection { from: args.from, to: args.to };
    let (sender, told) = (lanes.sender(), report.clone());
    let reading = tokio::task::spawn_blocking(move || {
        if let Some((path, accounts)) = accounts {
            read_accounts(accounts, &path, selection, &sender, &told)?;
        }
        read_transactions(transactions, selection, &mut known, &sender, &told)
    });
    let accounts = lanes.finish().await;
    reading.await??;
    let accounts = accounts?;
    report.waiting_for_read_models();
    bank.models.catch_up().await?;
    let summary = report.finish(accounts, started.elapsed());
    // What was done is done, whether or not the summary can be written.
    bank.stop().await?;
    summary.print(args.json)
}

/// Refuses to look for earlier imports in an audit trail that lacks some: a row would be booked for a second account.
async fn must_not_be_parked(database: &Database) -> Result<(), Failure> {
    let parked = database.parked(Name::Audit.as_str(), 1).await?;
    let Some(first) = parked.first() else { return Ok(()) };
    Err(Failure::new(format!(
        "account {} is parked in the audit trail, which tells whose transactions were imported before: see to it with \
         `bank parked`, then import the file; nothing was done",
        first.aggregate_id
    )))
}

/// The days that were asked for.
#[derive(Debug, Clone, Copy)]
struct Selection {
    from: Option<NaiveDate>,
    to: Option<NaiveDate>,
}

impl Selection {
    fn has(self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| from <= day) && !self.is_over(day)
    }

    fn is_over(self, day: NaiveDate) -> bool {
        self.to.is_some_and(|to| to < day)
    }
}

fn read_accounts(
    accounts: pkdd99::Accounts,
    path: &Path,
    selection: Selection,
    lanes: &lanes::Sender,
    report: &Report,
) -> Result<(), Failure> {
    for row in accounts {
        match row?.result {
            Ok(opening) if selection.is_over(opening.date) => {}
            Ok(opening) if lanes.send(Item::Open(opening)) => {}
            Ok(_) => return Ok(()), // a lane failed, and says why
            Err(refused) => report.note(&format!("{}, {refused}", path.display())),
        }
    }
    Ok(())
}

/// On a thread that may block.
fn read_transactions(
    transactions: pkdd99::Transactions,
    selection: Selection,
    known: &mut Known,
    lanes: &lanes::Sender,
    report: &Report,
) -> Result<(), Failure> {
    let mut batch = Vec::with_capacity(BATCH);
    for row in transactions {
        let row = match row {
            Ok(row) => row,
            // The failure says that what stands before it is imported.
            Err(failure) => {
                send(&mut batch, known, lanes, report)?;
                return Err(failure);
            }
        };
        report.read_up_to(row.end);
        match row.result {
            Ok(transaction) if !selection.has(transaction.date) => {}
            Ok(transaction) => {
                report.read();
                batch.push(transaction);
                if batch.len() == BATCH && !send(&mut batch, known, lanes, report)? {
                    return Ok(()); // a lane failed, and says why
                }
            }
            Err(refused) => {
                report.read();
                report.refused(&refused.to_string());
            }
        }
    }
    send(&mut batch, known, lanes, report).map(drop)
}

/// Sends those whose `trans_id` is no other account's. False when a lane has failed.
fn send(
    batch: &mut Vec<pkdd99::Transaction>,
    known: &mut Known,
    lanes: &lanes::Sender,
    report: &Report,
) -> Result<bool, Failure> {
    let others = tokio::runtime::Handle::current().block_on(known.others(batch))?;
    for (transaction, other) in batch.drain(..).zip(others) {
        if let Some(other) = other {
            let pkdd99::Transaction { line, id, .. } = transaction;
            report.refused(&format!(
                "line {line} refused: its trans_id {id} is that of a transaction of account {other}"
            ));
        } else if !lanes.send(Item::Transaction(transaction)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The file's name, cut so that it fits in a correlation id.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: what the failure says of the rows before it is true: they are on their way.
    #[tokio::test]
    async fn a_file_that_ends_in_a_failure_is_imported_up_to_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("trans.asc");
        let header = "trans_id;account_id;date;type;operation;amount;balance;k_symbol;bank;account";
        let row = |id: u64, operation: &str| format!("{id};1;930101;PRIJEM;{operation};700;700;;;");
        let rows = [header.into(), row(1, "VKLAD"), row(2, "VKLAD"), row(3, "vkladů"), row(4, "VKLAD")];
        std::fs::write(&path, rows.join("\r\n")).unwrap();
        let database = Database::connect("sqlite::memory:", "bank").await.unwrap();
        let mut tx = database.begin().await.unwrap();
        let table = database.table_name("audit");
        tx.execute(&format!("CREATE TABLE {table} (actor TEXT)"), &[]).await.unwrap();
        tx.commit().await.unwrap();
        let mut known = Known::open(&database).await.unwrap();

        let (items, mut sent) = tokio::sync::mpsc::channel(8);
        let reading = tokio::task::spawn_blocking(move || {
            let transactions = pkdd99::Transactions::open(&path, None)?;
            let all = Selection { from: None, to: None };
            read_transactions(transactions, all, &mut known, &lanes::Sender::of_one(items), &Report::new(1))
        });
        let failure = reading.await.unwrap().unwrap_err().to_string();
        assert!(failure.contains("line 4") && failure.contains("what stands before it is imported"), "{failure}");
        let mut ids = Vec::new();
        while let Some(Item::Transaction(transaction)) = sent.recv().await {
            ids.push(transaction.id);
        }
        assert_eq!(ids, [1, 2]);
    }
}
