//! `bank balances`: the balance of each account, now or at a business time.

use std::io::Write;

use chrono::{DateTime, TimeDelta, Utc};
use es_core::{AggregateKey, Version};
use es_projections::audit::csv_cell;
use es_projections::{After, AsOf, DamagedRow, Database, Frozen, Parked, ReadModel};
use uuid::Uuid;

use crate::app::{Options, ReadModels, Store};
use crate::damaged::Damage;
use crate::failure::Failure;
use crate::output::{Output, say, stdout};
use crate::progress::OfBuild;
use crate::read_model::{self, AccountRow, BalanceRow};
use crate::time::{last_of, shown};

/// Rows of one query.
const PAGE: u32 = 2_000;
/// Longer than anybody prints.
const LEFT_BEHIND: TimeDelta = TimeDelta::days(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The balances at a business time: RFC 3339, or a date for its end. An account has a version where one left it so
    #[arg(long, value_name = "TIME", value_parser = last_of)]
    at: Option<DateTime<Utc>>,
    /// Print as CSV
    #[arg(long)]
    csv: bool,
}

/// Prints the balances: those of now after the read models are up to date.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut out = Printer { out: stdout(), csv: args.csv, count: 0, damage: Damage::default() };
    if let Some(time) = args.at {
        let store = Store::open(options).await?;
        print_at(&store, time, &mut out).await?;
        out.out.flush()?;
        store.close().await;
        return Ok(());
    }
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    print_now(&models.store.database, &mut out).await?;
    out.out.flush()?;
    models.stop().await
}

/// All of one moment, however long it takes to print them.
async fn print_now(database: &Database, out: &mut Printer) -> Result<(), Failure> {
    let mut moment = database.at_one_moment(&[AccountRow::NAME]).await?;
    out.header()?;
    let mut after = Some(After::default());
    while let Some(place) = after.take_if(|_| !out.out.is_deserted()) {
        let page = moment.page::<AccountRow>(&place, PAGE).await?;
        for row in &page.items {
            out.told(row, |AccountRow { id, balance, version, .. }| (id, balance.get(), Some(*version)))?;
        }
        after = page.next;
    }
    out.out.flush()?;
    out.damage.or_fail(AccountRow::NAME)
}

/// Builds the balances of then in tables of their own, and removes them again. No read model that is kept up is touched:
/// what is in the log now counts, whether it is in them or not.
async fn print_at(store: &Store, time: DateTime<Utc>, out: &mut Printer) -> Result<(), Failure> {
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

async fn print_built(balances: &Frozen, out: &mut Printer) -> Result<(), Failure> {
    out.header()?;
    let mut after = Some(After::default());
    while let Some(place) = after.take_if(|_| !out.out.is_deserted()) {
        let page = balances.database().page::<BalanceRow>(&place, PAGE).await?;
        for row in &page.items {
            out.told(row, |row: &BalanceRow| (&row.account, row.balance, row.version()))?;
        }
        after = page.next;
    }
    out.out.flush()?;
    out.damage.or_fail_with("the balances that were built", "ask again")
}

/// Accounts whose events could not be folded in are parked in what was built, as they are in the read models.
async fn tell_left_out(balances: &Frozen) -> Result<(), Failure> {
    let mut parked = balances.parked(i32::MAX.unsigned_abs()).await?;
    parked.sort_by(|one, other| one.aggregate_id.cmp(&other.aggregate_id));
    for Parked { aggregate_id, reason, .. } in parked {
        say(format_args!("bank: account {aggregate_id} lacks events, since they can't be folded in: {reason}"));
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

struct Printer {
    out: Output,
    csv: bool,
    count: usize,
    damage: Damage,
}

impl Printer {
    fn header(&mut self) -> Result<(), Failure> {
        let line = if self.csv {
            "account,balance,version".into()
        } else {
            format!("{:<24} {:>20} {:>8}", "account", "balance", "version")
        };
        Ok(writeln!(self.out, "{line}")?)
    }

    /// A row, of which `of` gives the account with its balance, and the version that left it so, if one did.
    fn told<R>(
        &mut self,
        row: &Result<R, DamagedRow>,
        of: impl Fn(&R) -> (&AggregateKey, i64, Option<Version>),
    ) -> Result<(), Failure> {
        let (account, balance, version) = match row {
            Ok(row) => of(row),
            Err(damaged) => {
                self.out.flush()?;
                self.damage.tell(damaged, self.count);
                return Ok(());
            }
        };
        self.count += 1;
        let version = version.map(|version| version.to_string());
        if self.csv {
            Ok(writeln!(self.out, "{},{balance},{}", quoted(account.as_str()), version.unwrap_or_default())?)
        } else {
            Ok(writeln!(self.out, "{:<24} {balance:>20} {:>8}", account.as_str(), version.as_deref().unwrap_or("-"))?)
        }
    }
}

/// A text of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    let text = csv_cell(text);
    if text.contains([',', '"']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for (account, cell) in [
            ("7", "7"),
            ("a=b", "a=b"),
            ("=1+1", "'=1+1"),
            ("+7", "'+7"),
            ("-7", "'-7"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("'7", "''7"),
            ("=HYPERLINK(\"x\",1)", "\"'=HYPERLINK(\"\"x\"\",1)\""),
        ] {
            assert_eq!(quoted(account), cell);
        }
    }
}
