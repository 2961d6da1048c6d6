//! `bank account`, `bank history` and `bank explain`: an account as it was, how it came to be so, and where a row comes from.

use std::collections::BTreeMap;
use std::io::{self, Write};

use chrono::{DateTime, NaiveDate, Utc};
use es_core::{AggregateKey, Version};
use es_projections::Lineage;
use es_projections::audit::{At, Change, Entry, LIMIT_MAX, Order, Past, Query, Step, explain};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::{Options, ReadModels};
use crate::audit::{Shown, print_line, stream};
use crate::damaged::Listing;
use crate::failure::Failure;
use crate::output::stdout;
use crate::read_model::{AccountRow, BranchTotal, DailyBalance, PastAccount, StatementLine};
use crate::time::last_of;

#[derive(Debug, clap::Args)]
pub(crate) struct AccountArgs {
    /// The account
    account: AggregateKey,
    #[command(flatten)]
    when: When,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct When {
    /// As it was at a business time: RFC 3339, or a date for its end
    #[arg(long, value_name = "TIME", value_parser = last_of)]
    at: Option<DateTime<Utc>>,
    /// As it was known at a time: RFC 3339, or a date for its end
    #[arg(long, value_name = "TIME", value_parser = last_of)]
    recorded: Option<DateTime<Utc>>,
    /// As this version left it
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct HistoryArgs {
    /// The account
    account: AggregateKey,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExplainArgs {
    #[command(subcommand)]
    row: Row,
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
}

/// A row of a read model.
#[derive(Debug, clap::Subcommand)]
enum Row {
    /// A row of the table accounts
    Account { account: AggregateKey },
    /// A row of the table branches
    Branch { branch: String },
    /// A row of the table statements
    Statement { account: AggregateKey, version: u64 },
    /// A row of the table daily
    Day { account: AggregateKey, day: NaiveDate },
}

/// A version of an account with what it changed, as JSON shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Told<'a> {
    #[serde(flatten)]
    event: Shown<'a>,
    /// By field. Null for an event that this release does not know, and all after it; and for all after one that is damaged.
    changed: Option<BTreeMap<&'a str, FromTo<'a>>>,
}

#[derive(Debug, Serialize)]
struct FromTo<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    from: &'a Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: &'a Option<Value>,
}

impl<'a> Told<'a> {
    pub(crate) fn of(step: &'a Step) -> Self {
        // An account's fields are all at the top.
        let field = |change: &'a Change| {
            let Change { field, from, to } = change;
            (field.trim_start_matches('/'), FromTo { from, to })
        };
        let changed = step.changes.as_ref().map(|changes| changes.iter().map(field).collect());
        Self { event: Shown::of(&step.entry), changed }
    }
}

/// Brings the read models up to date and prints the account.
pub(crate) async fn account(options: &Options, args: &AccountArgs) -> Result<(), Failure> {
    let at = match args.when {
        When { at: Some(time), .. } => At::Occurred(time),
        When { recorded: Some(time), .. } => At::Recorded(time),
        When { version: Some(version), .. } => At::Version(Version::new(version)),
        When { .. } => At::Recorded(DateTime::<Utc>::MAX_UTC),
    };
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let past = Past::of(stream(args.account.clone()));
    let then = past.state_at::<PastAccount>(&models.store.database, &at).await;
    models.stop().await?;
    let Some(then) = then? else {
        return Err(Failure::new(format!("account {} was not there then", args.account)));
    };
    let AccountRow { id, owner, balance, overdraft_limit, status, .. } = &then.state.0;
    let version = then.version();
    let mut out = stdout();
    if args.json {
        let account = json!({
            "id": id, "owner": owner, "balance": balance, "overdraft_limit": overdraft_limit, "status": status.as_str(),
            "version": version.map(Version::get), "left_out": then.left_out, "last": Shown::of(&then.last),
        });
        writeln!(out, "{account}")?;
        return Ok(out.flush()?);
    }
    writeln!(
        out,
        "{id} {status} balance {balance} overdraft limit {overdraft_limit} {} owner {owner:?}",
        match version {
            Some(version) => format!("version {version}"),
            None => format!("no version ({} later ones left out)", then.left_out),
        }
    )?;
    write!(out, "since ")?;
    print_line(&mut out, &then.last)?;
    Ok(out.flush()?)
}

/// Brings the read models up to date and prints the account's versions from the first on.
pub(crate) async fn history(options: &Options, args: &HistoryArgs) -> Result<(), Failure> {
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let past = Past::of(stream(args.account.clone()));
    let mut query = Query { order: Order::OldestFirst, limit: LIMIT_MAX, ..Query::default() };
    let mut listing = Listing::new(args.json);
    loop {
        let page = past.history_readable::<PastAccount>(&models.store.database, &query).await?;
        for step in &page.items {
            listing.row(step, Told::of, print_step)?;
        }
        query.cursor = page.next;
        if query.cursor.is_none() || listing.is_deserted() {
            break;
        }
    }
    if listing.is_empty() {
        models.stop().await?;
        return Err(Failure::new(format!("there is no account {}: nothing was ever recorded of it", args.account)));
    }
    let damage = listing.end(None)?;
    models.stop().await?;
    damage.or_fail("audit")
}

fn print_step(out: &mut impl Write, step: &Step) -> io::Result<()> {
    print_line(out, &step.entry)?;
    let Some(changes) = &step.changes else { return writeln!(out, "    what it changed is not known") };
    for Change { field, from, to } in changes {
        let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".into(), Value::to_string);
        writeln!(out, "    {} from {} to {}", field.trim_start_matches('/'), value(from), value(to))?;
    }
    Ok(())
}

/// Brings the read models up to date and prints the event that last changed a row.
pub(crate) async fn row(options: &Options, args: &ExplainArgs) -> Result<(), Failure> {
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let explained = explained(&models, &args.row).await;
    models.stop().await?;
    let entry = explained?;
    let event = &entry.recorded.envelope;
    let mut out = stdout();
    if args.json {
        writeln!(out, "{}", json!({ "event": Shown::of(&entry) }))?;
        return Ok(out.flush()?);
    }
    print_line(&mut out, &entry)?;
    match &event.actor {
        Some(actor) => writeln!(out, "by command {} of {actor}", event.command_id)?,
        None => writeln!(out, "by command {}; who sent it is not known", event.command_id)?,
    }
    writeln!(out, "all of its conversation: bank audit --correlation {}", quoted(event.correlation_id.as_str()))?;
    writeln!(out, "all of the account: bank history {}", quoted(event.stream.id.as_str()))?;
    Ok(out.flush()?)
}

async fn explained(models: &ReadModels, row: &Row) -> Result<Entry, Failure> {
    let database = &models.store.database;
    let (name, lineage): (String, Option<Lineage>) = match row {
        Row::Account { account } => (format!("account {account}"), database.lineage::<AccountRow>(account).await?),
        Row::Branch { branch } => (format!("branch {branch}"), database.lineage::<BranchTotal>(branch).await?),
        Row::Statement { account, version } => {
            let key = (account.clone(), Version::new(*version));
            (format!("line {version} in the statement of {account}"), database.lineage::<StatementLine>(&key).await?)
        }
        Row::Day { account, day } => {
            let key = (account.clone(), *day);
            (format!("day {day} of {account}"), database.lineage::<DailyBalance>(&key).await?)
        }
    };
    let lineage = lineage.ok_or_else(|| Failure::new(format!("there is no row for {name}")))?;
    let missing = || {
        Failure::new(format!(
            "event {} at {}, which {name} tells of, is not in the audit trail: run `bank rebuild audit`, or `bank parked`",
            lineage.event_id, lineage.position
        ))
    };
    explain(database, &lineage).await?.ok_or_else(missing)
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.:/".contains(character);
    if text.chars().all(plain) { text.into() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}
