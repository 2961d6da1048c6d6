//! `bank verify`: whether what the bank shows is what its log gives.

use std::io::{self, BufWriter, Write};

use serde_json::json;

use crate::app::{Options, Store};
use crate::failure::Failure;
use crate::read_models_verify::compare;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Compares the read models with the log; fails with the first difference.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let store = Store::open(options).await?;
    let compared = compare(&store).await?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        writeln!(out, "{}", json!({ "read_models": compared.as_json() }))?;
    } else {
        write!(out, "{}", compared.lines())?;
    }
    out.flush()?;
    drop(out);
    store.close().await;
    compared.difference().map_or(Ok(()), |difference| Err(Failure::new(difference)))
}
