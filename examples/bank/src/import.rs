//! `bank import`: the transactions of a file, each as a command through the bus.

mod file;
mod lanes;
mod pkdd99;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use chrono::NaiveDate;

use crate::app::{Bank, Options};
use crate::cli::wrong_usage;
use crate::failure::Failure;
use crate::time::yymmdd;
use lanes::{Item, Lanes};
use report::Report;

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
    let transactions = pkdd99::Transactions::open(&args.trans)?;
    let open = |path: &PathBuf| pkdd99::Accounts::open(path).map(|accounts| (path.clone(), accounts));
    let accounts = args.accounts.as_ref().map(open).transpose()?;
    let bank = Bank::open(options, None, false).await?;
    bank.bus.ready().await.map_err(|error| Failure::because("taking over the accounts", &error))?;

    let report = Arc::new(Report::new(transactions.bytes()));
    let correlation = format!("import-{}", file_name(&args.trans));
    let lanes = Lanes::start(&bank.bus, &report, &correlation);
    let selection = Selection { from: args.from, to: args.to };
    let (sender, told) = (lanes.sender(), report.clone());
    let reading = tokio::task::spawn_blocking(move || {
        if let Some((path, accounts)) = accounts {
            read_accounts(accounts, &path, selection, &sender, &told)?;
        }
        read_transactions(transactions, selection, &sender, &told)
    });
    let accounts = lanes.finish().await;
    reading.await??;
    let accounts = accounts?;
    report.waiting_for_read_models();
    bank.models.catch_up().await?;
    report.finish(accounts, started.elapsed()).print(args.json);
    bank.stop().await
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

fn read_transactions(
    transactions: pkdd99::Transactions,
    selection: Selection,
    lanes: &lanes::Sender,
    report: &Report,
) -> Result<(), Failure> {
    for row in transactions {
        let row = row?;
        report.read_up_to(row.end);
        match row.result {
            Ok(transaction) if !selection.has(transaction.date) => {}
            Ok(transaction) => {
                report.read();
                if !lanes.send(Item::Transaction(transaction)) {
                    return Ok(()); // a lane failed, and says why
                }
            }
            Err(refused) => {
                report.read();
                report.refused(&refused.to_string());
            }
        }
    }
    Ok(())
}

/// The file's name, cut so that it fits in a correlation id.
fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.chars().filter(|c| !c.is_control()).take(40).collect()
}
