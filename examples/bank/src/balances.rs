//! `bank balances`: the balance of each account, now or at a business time.

use std::io::{self, BufWriter, Write};

use chrono::{DateTime, TimeDelta, Utc};
use es_core::AggregateKey;
use es_projections::{AsOf, Database, Frozen, Parked, ReadModel};
use uuid::Uuid;

use crate::app::{Options, ReadModels, Store};
use crate::failure::Failure;
use crate::progress::OfBuild;
use crate::read_model::{self, BalanceRow, accounts_after, balances_after};
use crate::time::{last_of, shown};

/// Rows of one query.
const PAGE: u32 = 2_000;
/// Longer than anybody prints.
const LEFT_BEHIND: TimeDelta = TimeDelta::days(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The balances at a business time: RFC 3339, or a date for its end
    #[arg(long, value_name = "TIME", value_parser = last_of)]
    at: Option<DateTime<Utc>>,
    /// Print as CSV
    #[arg(long)]
    csv: bool,
}

struct Balance {
    account: AggregateKey,
    balance: i64,
    version: u64,
}

/// Prints the balances: those of now after the read models are up to date.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut out = Printer { out: BufWriter::new(io::stdout().lock()), csv: args.csv };
    if let Some(time) = args.at {
        let store = Store::open(options).await?;
        print_at(&store, time, &mut out).await?;
        out.out.flush()?;
        store.close().await;
        return Ok(());
    }
    let models = ReadModels::open(options, None).await?;
    models.catch_up().await?;
    print_now(&models.store.database, &mut out).await?;
    out.out.flush()?;
    models.stop().await
}

async fn print_now(database: &Database, out: &mut Printer<impl Write>) -> Result<(), Failure> {
    let mut after = None;
    out.header()?;
    loop {
        let page = accounts_after(database, after.as_ref(), PAGE).await?;
        for row in &page {
            out.row(&Balance { account: row.id.clone(), balance: row.balance.get(), version: row.version.get() })?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.id),
            None => return Ok(()),
        }
    }
}

/// Builds the balances of then in tables of their own, and removes them again. No read model that is kept up is touched:
/// what is in the log now counts, whether it is in them or not.
async fn print_at(store: &Store, time: DateTime<Utc>, out: &mut Printer<impl Write>) -> Result<(), Failure> {
    remove_left_behind(&store.database).await?;
    let name = format!("{} {}", shown(Utc::now()), Uuid::new_v4());
    let (worker, until, bar) = (store.worker(), AsOf::Occurred(time), OfBuild::new(BalanceRow::NAME));
    let built = worker.as_of(read_model::balances(), &until, &name, |progress| bar.show(progress)).await;
    bar.clear();
    let printed = match built {
        Ok(balances) => {
            tell_left_out(&balances).await?;
            print_built(&balances, out).await
        }
        Err(error) => Err(Failure::because(format!("building the balances at {}", shown(time)), &error)),
    };
    store.database.remove_as_of(BalanceRow::NAME, &name).await?;
    printed
}

async fn print_built(balances: &Frozen, out: &mut Printer<impl Write>) -> Result<(), Failure> {
    let database = balances.database();
    let mut after = None;
    out.header()?;
    loop {
        let page = balances_after(database, after.as_ref(), PAGE).await?;
        for row in &page {
            out.row(&Balance { account: row.account.clone(), balance: row.balance, version: row.version.get() })?;
        }
        match page.into_iter().next_back() {
            Some(last) => after = Some(last.account),
            None => return Ok(()),
        }
    }
}

/// Accounts whose events could not be folded in are parked in what was built, as they are in the read models.
async fn tell_left_out(balances: &Frozen) -> Result<(), Failure> {
    let mut parked = balances.parked(i32::MAX.unsigned_abs()).await?;
    parked.sort_by(|one, other| one.aggregate_id.cmp(&other.aggregate_id));
    for Parked { aggregate_id, reason, .. } in parked {
        eprintln!("bank: account {aggregate_id} lacks events, since they can't be folded in: {reason}");
    }
    Ok(())
}

/// What processes left behind that were killed while they printed.
async fn remove_left_behind(database: &Database) -> Result<(), Failure> {
    let sql = format!(
        "SELECT label FROM {} WHERE projection = ? AND state = 'frozen' AND created_at < ?",
        database.table_name("es_builds")
    );
    let long_ago = Utc::now() - LEFT_BEHIND;
    for row in database.fetch(&sql, &[BalanceRow::NAME.into(), long_ago.into()]).await? {
        database.remove_as_of(BalanceRow::NAME, &row.get::<String>("label")?).await?;
    }
    Ok(())
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
            Ok(writeln!(self.out, "{},{balance},{version}", quoted(account.as_str()))?)
        } else {
            Ok(writeln!(self.out, "{:<24} {balance:>20} {version:>8}", account.as_str())?)
        }
    }
}

/// A field of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}
