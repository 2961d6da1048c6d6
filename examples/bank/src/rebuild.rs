//! `bank rebuild`: builds a read model anew beside the live one, then switches.

use std::fmt;
use std::io::Write;
use std::time::Instant;

use es_projections::{Check, Database, Error, Projection};

use crate::app::{Options, Store, catch_up};
use crate::failure::Failure;
use crate::output::stdout;
use crate::progress::OfBuild;
use crate::read_model::{self, Name};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The read model; all of them unless given
    #[arg(value_name = "READ MODEL")]
    read_model: Option<Name>,
    /// Switch only where the new one holds the same rows as the live one
    #[arg(long)]
    equal: bool,
}

/// Rebuilds one read model after the other.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let store = Store::open(options).await?;
    let names = args.read_model.map_or(Name::ALL.to_vec(), |name| vec![name]);
    for name in names {
        match name {
            Name::Accounts => rebuild(&store, read_model::accounts(), args.equal).await?,
            Name::Statements => rebuild(&store, read_model::statements(), args.equal).await?,
            Name::Audit => rebuild(&store, store.audit_trail(), args.equal).await?,
        }
    }
    store.close().await;
    Ok(())
}

async fn rebuild(store: &Store, projection: impl Projection, equal: bool) -> Result<(), Failure> {
    let name = projection.name().to_owned();
    match live_version(&store.database, &name).await? {
        None => return build(store, projection).await,
        Some(live) if equal && live != projection.version() => {
            let ours = projection.version();
            return Err(Failure::new(format!(
                "read model {name} was built by version {live} of its projection and this release has version {ours}, so that \
                 their rows are not meant to be equal: run it without --equal; nothing was done"
            )));
        }
        Some(_) => {}
    }
    let check = if equal { Check::Equal } else { Check::Nothing };
    let (worker, bar, started) = (store.worker(), OfBuild::new(&name), Instant::now());
    let mut last = None;
    let rebuilt = worker.rebuild(projection, check, |progress| {
        bar.show(progress);
        last = Some(progress);
    });
    let rebuilt = rebuilt.await;
    bar.clear();
    rebuilt.map_err(|error| failure(&name, &error))?;
    // The log has all of it still: what was replaced would only take up room.
    store.database.remove_replaced(&name).await?;
    let (records, took) = (last.map_or(0, |last| last.done), started.elapsed().as_secs_f64());
    let same = if equal { ", with the same rows as the one before" } else { "" };
    told(format_args!(
        "{name}: rebuilt from {records} records in {took:.1} s, {:.0} records/s; it is live{same}",
        records as f64 / took
    ))
}

/// On standard output, at once, so that a line that can't be written is a failure.
fn told(line: fmt::Arguments<'_>) -> Result<(), Failure> {
    let mut out = stdout();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// What no release has built yet is not rebuilt: it is built as a start of the bank does it.
async fn build(store: &Store, projection: impl Projection) -> Result<(), Failure> {
    let (name, started) = (projection.name().to_owned(), Instant::now());
    let handle = store.worker().start(projection).await?;
    catch_up(&handle).await?;
    handle.stop().await?;
    told(format_args!("{name}: was not there, built in {:.1} s; it is live", started.elapsed().as_secs_f64()))
}

fn failure(name: &str, error: &Error) -> Failure {
    match error {
        Error::Differs { difference, .. } => Failure::new(format!(
            "read model {name} differs from what the log gives, and stays: {difference}; without --equal the rebuilt one \
             replaces it"
        )),
        Error::Fenced { .. } => Failure::new(format!(
            "rebuilding read model {name} was broken off by another process that started the same later: let that one end"
        )),
        error => Failure::because(format!("rebuilding read model {name}"), error),
    }
}

/// Which version of its projection built the live one; none where there is none.
async fn live_version(database: &Database, name: &str) -> Result<Option<u32>, Error> {
    let builds = database.table_name("es_builds");
    let sql = format!("SELECT version FROM {builds} WHERE projection = ? AND state = 'live'");
    database.fetch(&sql, &[name.into()]).await?.first().map(|row| row.get("version")).transpose()
}
