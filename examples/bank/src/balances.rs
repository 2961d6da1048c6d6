//! `bank balances`: the balance of each account, now or at a business time.

use std::io::{self, BufWriter, Write};

use chrono::{DateTime, Utc};

use crate::app::{Options, ReadModels};
use crate::audit::{AccountChange, changes_before};
use crate::failure::Failure;
use crate::read_model::accounts;
use crate::time::end_of;
use es_projections::Database;

/// Rows of one query.
const PAGE: u32 = 2_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The balances at a business time: RFC 3339, or a date for its end
    #[arg(long, value_name = "TIME", value_parser = end_of)]
    at: Option<DateTime<Utc>>,
    /// Print as CSV
    #[arg(long)]
    csv: bool,
}

struct Balance {
    account: String,
    balance: i64,
    version: u64,
}

/// Brings the read models up to date and prints the balances.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let models = ReadModels::open(options, None).await?;
    models.catch_up().await?;
    let mut out = Printer { out: BufWriter::new(io::stdout().lock()), csv: args.csv };
    out.header()?;
    match args.at {
        None => print_now(&models.database, &mut out).await?,
        Some(before) => print_before(&models.database, before, &mut out).await?,
    }
    out.out.flush()?;
    models.stop().await
}

async fn print_now(database: &Database, out: &mut Printer<impl Write>) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = accounts(database, after.as_deref(), PAGE).await?;
        for row in &page {
            out.row(&Balance { account: row.id.clone(), balance: row.balance.get(), version: row.version.get() })?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.id),
            None => return Ok(()),
        }
    }
}

/// The sum of each account's events that occurred before; an account without any is left out. One account is held at
/// a time, since the audit trail is read in the order of its key.
async fn print_before(
    database: &Database,
    before: DateTime<Utc>,
    out: &mut Printer<impl Write>,
) -> Result<(), Failure> {
    let mut current: Option<Balance> = None;
    let mut after = (String::new(), 0);
    loop {
        let page = changes_before(database, &after, before, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = (last.account.clone(), last.version);
        for AccountChange { account, version, event } in page {
            if current.as_ref().is_none_or(|current| current.account != account)
                && let Some(done) = current.replace(Balance { account, balance: 0, version: 0 })
            {
                out.row(&done)?;
            }
            if let Some(current) = &mut current {
                current.balance += event.balance_change();
                current.version = version;
            }
        }
    }
    current.map_or(Ok(()), |done| out.row(&done))
}

struct Printer<W> {
    out: W,
    csv: bool,
}

impl<W: Write> Printer<W> {
    fn header(&mut self) -> Result<(), Failure> {
        let line = if self.csv {
            "account,balance,version".into()
        } else {
            format!("{:<24} {:>20} {:>8}", "account", "balance", "version")
        };
        Ok(writeln!(self.out, "{line}")?)
    }

    fn row(&mut self, Balance { account, balance, version }: &Balance) -> Result<(), Failure> {
        if self.csv {
            Ok(writeln!(self.out, "{},{balance},{version}", quoted(account))?)
        } else {
            Ok(writeln!(self.out, "{account:<24} {balance:>20} {version:>8}")?)
        }
    }
}

/// A field of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}
