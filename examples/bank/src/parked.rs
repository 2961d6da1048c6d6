//! `bank parked`: accounts whose events wait, since one of them could not be folded into a read model.

use std::io::Write;
use std::time::Duration;

use es_core::{AggregateKey, EventId, StreamId};
use es_projections::{DamagedRow, Database, Error, Parked, Resumed};
use serde_json::json;

use crate::app::{Options, ReadModels};
use crate::audit::{Shown, print_line, stream};
use crate::damaged::Damage;
use crate::failure::Failure;
use crate::output::stdout;
use crate::read_model::Name;
use crate::time::shown;

/// The most accounts, and the most waiting events of an account, that are shown.
const SHOWN_MAX: u32 = 1_000;
/// How long is waited for an account to be folded in again.
const WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the events of a parked account that wait
    Show {
        #[command(flatten)]
        which: Which,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Fold in the events of a parked account that wait
    Retry {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        seen: Seen,
    },
    /// Leave the events of the first waiting command out of the read model for good, and fold in what waits behind
    Skip {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        seen: Seen,
        /// Your name, which is kept
        #[arg(long, value_name = "WHO", value_parser = not_blank)]
        by: String,
        /// The reason, which is kept
        #[arg(long, value_name = "TEXT", value_parser = not_blank)]
        why: String,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The read model
    #[arg(value_name = "READ MODEL")]
    read_model: Name,
    /// The account
    account: AggregateKey,
}

#[derive(Debug, clap::Args)]
struct Seen {
    /// The version that the account waits behind, as `bank parked` shows it: nothing is done where it is another one by now
    #[arg(long, value_name = "N")]
    version: u64,
}

fn not_blank(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".into()) } else { Ok(text.into()) }
}

/// Brings the read models up to date, and shows what is parked or has it seen to.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let models = ReadModels::open_to_read(options).await?;
    models.settle().await?;
    let database = &models.store.database;
    if let Some(Command::Show { which, .. } | Command::Retry { which, .. } | Command::Skip { which, .. }) =
        &args.command
    {
        which.must_be_parked(database).await?;
    }
    let mut out = stdout();
    let done = match &args.command {
        None => list(database, args.json, &mut out).await,
        Some(Command::Show { which, json }) => show(database, which, *json, &mut out).await,
        Some(Command::Retry { which, seen }) => retry(database, which, seen, &mut out).await,
        Some(Command::Skip { which, seen, by, why }) => skip(database, which, seen, by, why, &mut out).await,
    };
    out.flush()?;
    drop(out);
    models.stop().await?;
    done
}

async fn retry(database: &Database, which: &Which, seen: &Seen, out: &mut impl Write) -> Result<(), Failure> {
    let (model, stream) = which.names();
    let event = which.event(database, seen).await?;
    resumed(which, "events", database.retry_parked(model, &stream, event, WITHIN).await, out)
}

async fn skip(
    database: &Database,
    which: &Which,
    seen: &Seen,
    by: &str,
    why: &str,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let (model, stream) = which.names();
    let event = which.event(database, seen).await?;
    resumed(which, "other events", database.skip_parked(model, &stream, event, by, why, WITHIN).await, out)
}

async fn list(database: &Database, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (mut all, mut failure) = (Vec::new(), Ok(()));
    for name in Name::ALL {
        let read = readable(database.parked_readable(name.as_str(), SHOWN_MAX).await?, &mut all);
        failure = failure.and(read.or_fail(name.as_str()));
    }
    print_list(&all, json, out)?;
    failure
}

/// Adds those that can be read; the others are told.
fn readable<T>(rows: Vec<Result<T, DamagedRow>>, all: &mut Vec<T>) -> Damage {
    let mut damage = Damage::default();
    for row in rows {
        match row {
            Ok(row) => all.push(row),
            Err(damaged) => damage.tell(&damaged, all.len()),
        }
    }
    damage
}

fn print_list(all: &[Parked], json: bool, out: &mut impl Write) -> Result<(), Failure> {
    if json {
        let items: Vec<_> = all.iter().map(as_json).collect();
        writeln!(out, "{}", json!({ "items": items }))?;
        return Ok(());
    }
    for parked in all {
        let Parked { projection, aggregate_id, reason, attempts, waiting, version, .. } = parked;
        let (since, tried) = (shown(parked.parked_at), shown(parked.tried_at));
        writeln!(
            out,
            "{projection} {aggregate_id} since {since}, {waiting} events wait from version {version} on, tried {attempts} times, \
             last {tried}: {reason}"
        )?;
    }
    match all.len() {
        0 => writeln!(out, "nothing is parked")?,
        1 => writeln!(out, "1 account is parked")?,
        parked => writeln!(out, "{parked} accounts are parked")?,
    }
    Ok(())
}

async fn show(database: &Database, which: &Which, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let (model, stream) = which.names();
    let waiting = database.waiting_readable(model, &stream, SHOWN_MAX).await?;
    let (shown, mut events) = (waiting.len() as u64, Vec::new());
    let damage = readable(waiting, &mut events);
    // Of others that can't be read the list tells.
    let parked = database.parked_readable(model, SHOWN_MAX).await?;
    let parked = parked.iter().flatten().find(|parked| parked.aggregate_id == stream.id.as_str());
    if json {
        let items: Vec<_> = events.iter().map(Shown::of).collect();
        writeln!(out, "{}", json!({ "parked": parked.map(as_json), "items": items }))?;
        return damage.or_fail(model);
    }
    for entry in &events {
        print_line(out, entry)?;
    }
    if let Some(parked) = parked {
        if parked.waiting > shown {
            writeln!(out, "… and {} more", parked.waiting - shown)?;
        }
        writeln!(out, "the first can't be folded in: {}", parked.reason)?;
    }
    damage.or_fail(model)
}

fn resumed(which: &Which, what: &str, resumed: Result<Resumed, Error>, out: &mut impl Write) -> Result<(), Failure> {
    let Which { read_model, account } = which;
    match resumed {
        Ok(Resumed::Done) => Ok(writeln!(out, "account {account} has all its {what} in read model {read_model}")?),
        Ok(Resumed::Parked(Parked { reason, waiting, .. })) => Err(Failure::new(format!(
            "account {account} is parked in read model {read_model} still, {waiting} events wait: {reason} (a release that can \
             fold it in, or `bank parked skip`, lets it go on)"
        ))),
        Err(error) => Err(error.into()),
    }
}

impl Which {
    fn names(&self) -> (&'static str, StreamId) {
        (self.read_model.as_str(), stream(self.account.clone()))
    }

    /// The event that was seen, which must be the first that waits.
    async fn event(&self, database: &Database, seen: &Seen) -> Result<EventId, Failure> {
        let (model, stream) = self.names();
        let first = database.waiting(model, &stream, 1).await?;
        let first = first.first().map(|entry| &entry.recorded.envelope);
        match first {
            Some(first) if first.version.get() == seen.version => Ok(first.event_id),
            first => {
                let now = first.map_or("nothing".into(), |first| format!("version {}", first.version));
                Err(Failure::new(format!(
                    "account {} waits behind {now} in read model {model}, not behind version {}: look at it again with `bank parked \
                     show {model} {}`; nothing was done",
                    self.account, seen.version, self.account
                )))
            }
        }
    }

    async fn must_be_parked(&self, database: &Database) -> Result<(), Failure> {
        let (model, stream) = self.names();
        if database.waiting_readable(model, &stream, 1).await?.is_empty() {
            let account = &self.account;
            return Err(Failure::new(format!(
                "account {account} is not parked in read model {model}: `bank parked` lists those that are"
            )));
        }
        Ok(())
    }
}

pub(crate) fn as_json(parked: &Parked) -> serde_json::Value {
    json!({
        "read_model": parked.projection,
        "account": parked.aggregate_id,
        "reason": parked.reason,
        "attempts": parked.attempts,
        "waiting": parked.waiting,
        "version": parked.version.get(),
        "parked_at": shown(parked.parked_at),
        "tried_at": shown(parked.tried_at),
    })
}
