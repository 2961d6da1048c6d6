//! `bank export`: events of the audit trail as files with a manifest of hashes, and whether they are still as they were.

use std::io::Write;
use std::path::{Path, PathBuf};

use es_projections::audit::{ExportFormat, Exported, check_export, export};
use serde_json::json;

use crate::app::{Options, ReadModels};
use crate::audit::Selection;
use crate::failure::Failure;
use crate::output::stdout;
use crate::progress::bar;
use crate::time::shown;

#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false, args = ["into", "check"])]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// Write the events to this folder, which is made where it is missing and must not hold an export
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    /// As CSV instead of JSON lines
    #[arg(long, conflicts_with = "check")]
    csv: bool,
    /// Check a folder that was exported to, without opening the bank's data
    #[arg(long, value_name = "DIR", conflicts_with = "Selection")]
    check: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Exports, with the read models up to date, or checks an export.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let (folder, done, [how, kept]) = match (&args.check, &args.into) {
        (Some(folder), _) => {
            let done = check_export(folder).await?;
            (folder, done, ["are as they were exported", "to be compared with the one that was kept"])
        }
        (None, Some(folder)) => {
            (folder, exported(options, args, folder).await?, ["were exported", "to be kept elsewhere"])
        }
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let Exported { manifest, manifest_sha256 } = done;
    let mut out = stdout();
    if args.json {
        let folder = folder.display().to_string();
        let summary = json!({ "folder": folder, "manifest": manifest, "manifest_sha256": manifest_sha256 });
        writeln!(out, "{summary}")?;
        return Ok(out.flush()?);
    }
    let (file, at) = (folder.join(&manifest.file.name), shown(manifest.exported_at));
    writeln!(out, "{} events in {} {how} at {at}", manifest.events, file.display())?;
    writeln!(out, "the SHA-256 of manifest.json, {kept}: {manifest_sha256}")?;
    Ok(out.flush()?)
}

async fn exported(options: &Options, args: &Args, folder: &Path) -> Result<Exported, Failure> {
    let query = args.selection.query();
    let format = if args.csv { ExportFormat::Csv } else { ExportFormat::JsonLines };
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let bar = bar(0, "export {human_pos} events {per_sec} {elapsed}");
    let done = export(&models.store.database, &query, format, folder, |events| bar.set_position(events)).await;
    bar.finish_and_clear();
    models.stop().await?;
    Ok(done?)
}
