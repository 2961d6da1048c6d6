//! `bank parked`: accounts whose events wait, since one of them could not be folded into a read model.

use std::io::{self, BufWriter, Write};
use std::time::Duration;

use es_core::{AggregateKey, StreamId};
use es_projections::{Database, Error, Parked, Resumed};
use serde_json::json;

use crate::app::{Options, ReadModels};
use crate::audit::{Shown, print_line, stream};
use crate::failure::Failure;
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
    },
    /// Leave the events of the first waiting command out of the read model for good, and fold in what waits behind
    Skip {
        #[command(flatten)]
        which: Which,
        /// Who says so; it is kept
        #[arg(long, value_name = "WHO", value_parser = not_blank)]
        by: String,
        /// For what reason; it is kept
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

fn not_blank(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Err("it is empty".into()) } else { Ok(text.into()) }
}

/// Brings the read models up to date, and shows what is parked or has it seen to.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let models = ReadModels::open(options, None).await?;
    models.settle().await?;
    let database = &models.store.database;
    if let Some(Command::Show { which, .. } | Command::Retry { which } | Command::Skip { which, .. }) = &args.command {
        which.must_be_parked(database).await?;
    }
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match &args.command {
        None => list(database, args.json, &mut out).await,
        Some(Command::Show { which, json }) => show(database, which, *json, &mut out).await,
        Some(Command::Retry { which }) => {
            let (model, stream) = which.names();
            resumed(which, "events", database.retry_parked(model, &stream, WITHIN).await, &mut out)
        }
        Some(Command::Skip { which, by, why }) => {
            let (model, stream) = which.names();
            resumed(which, "other events", database.skip_parked(model, &stream, by, why, WITHIN).await, &mut out)
        }
    };
    out.flush()?;
    drop(out);
    models.stop().await?;
    done
}

async fn list(database: &Database, json: bool, out: &mut impl Write) -> Result<(), Failure> {
    let mut all = Vec::new();
    for name in Name::ALL {
        all.extend(database.parked(name.as_str(), SHOWN_MAX).await?);
    }
    if json {
        let items: Vec<_> = all.iter().map(as_json).collect();
        writeln!(out, "{}", json!({ "items": items }))?;
        return Ok(());
    }
    for parked in &all {
        let Parked { projection, aggregate_id, reason, attempts, waiting, .. } = parked;
        let (since, tried) = (shown(parked.parked_at), shown(parked.tried_at));
        writeln!(
            out,
            "{projection} {aggregate_id} since {since}, {waiting} events wait, tried {attempts} times, last {tried}: {reason}"
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
    let events = database.waiting(model, &stream, SHOWN_MAX).await?;
    let parked = database.parked(model, SHOWN_MAX).await?;
    let parked = parked.iter().find(|parked| parked.aggregate_id == stream.id.as_str());
    if json {
        let items: Vec<_> = events.iter().map(Shown::of).collect();
        writeln!(out, "{}", json!({ "parked": parked.map(as_json), "items": items }))?;
        return Ok(());
    }
    for entry in &events {
        print_line(out, entry)?;
    }
    let Some(parked) = parked else { return Ok(()) };
    if parked.waiting > events.len() as u64 {
        writeln!(out, "… and {} more", parked.waiting - events.len() as u64)?;
    }
    writeln!(out, "the first can't be folded in: {}", parked.reason)?;
    Ok(())
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

    async fn must_be_parked(&self, database: &Database) -> Result<(), Failure> {
        let (model, stream) = self.names();
        if database.waiting(model, &stream, 1).await?.is_empty() {
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
        "parked_at": shown(parked.parked_at),
        "tried_at": shown(parked.tried_at),
    })
}
