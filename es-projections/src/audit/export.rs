//! What a query finds, as files for whoever has no access to the database: an auditor, an archive, a court.

mod check;
pub(super) mod csv;
mod folder;
mod line;
mod manifest;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::entry::Entry;
use super::query::{Order, Page, Query};
use crate::error::Error;
use crate::sql::Database;
pub use check::check_export;
use folder::{EVENTS_CSV, EVENTS_JSON, Folder, LINES, Output};
use line::Line;
pub use manifest::{ExportedFile, ExportedPartition, Manifest};

/// Events of a page. Three pages are in memory at most: one that is asked for, one that waits, one that is written.
const PAGE: u32 = 250;

/// How an export has its events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ExportFormat {
    /// A JSON object a line, in `events.jsonl`.
    #[default]
    JsonLines,
    /// A table as RFC 4180 has it, with a header, in `events.csv`.
    Csv,
}

/// An export that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// What it holds.
    pub manifest: Manifest,
    /// The SHA-256 of `manifest.json`, in hexadecimal digits. Whoever knows it from elsewhere knows that nothing in the folder was
    /// changed: all other hashes follow from it.
    pub manifest_sha256: String,
}

/// Writes the events that a query finds to a folder, the oldest first, with a manifest of hashes. `docs/formats.md` tells what the
/// files hold: each line is enough to compute the event's hash again.
///
/// Of the query the filters count, and not its order, limit and cursor. It goes through all pages, a bounded number of
/// events at a time; `progress` is told how many were found. Each event's hash is checked on the way.
///
/// The folder is made where it is missing. The manifest is put in place last, when all else is on disk: a folder without one
/// holds no export.
///
/// Events that are recorded meanwhile may or may not be among those exported, as with [pages](super#paging-while-events-come); a
/// `recorded_to` in the past leaves no doubt.
///
/// ```no_run
/// # async fn export(database: es_projections::Database) -> Result<(), Box<dyn std::error::Error>> {
/// use std::path::Path;
///
/// use es_projections::audit::{ExportFormat, Query, check_export, export};
///
/// let query = Query { actor: Some("teller-7".parse()?), ..Query::default() };
/// let folder = Path::new("teller-7");
/// let exported = export(&database, &query, ExportFormat::Csv, folder, |_| ()).await?;
/// println!("{} events; keep this elsewhere: {}", exported.manifest.events, exported.manifest_sha256);
/// // Years later, without the database:
/// assert_eq!(check_export(folder).await?, exported);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::Invalid`] for a folder that holds an export already, or is being exported to, and for an impossible query;
/// [`Error::Damaged`] for an event that is not what was recorded, which is named; [`Error::File`] when the folder can't be written or
/// is full; [`Error::Unavailable`] or [`Error::Sql`] when the database fails or has no audit trail. None of them leaves files of this export.
///
/// # Cancel safety
/// Dropping the future ends the export, and what was written is removed; unless all of it was written and is being put in place, which is finished.
pub async fn export(
    database: &Database,
    query: &Query,
    format: ExportFormat,
    folder: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Exported, Error> {
    let mut query = Query { order: Order::OldestFirst, limit: PAGE, cursor: None, ..query.clone() };
    let mut page = query.run(database).await?; // no folder is made for what can't be asked
    let (path, of) = (folder.to_owned(), query.clone());
    let (pages, written) = mpsc::channel(1);
    let writing = spawn_blocking(move || Writer::begin(path, format)?.write_all(written));
    let (mut found, mut failure) = (0, None);
    loop {
        let Page { entries, next } = page;
        found += entries.len() as u64;
        if pages.send(entries).await.is_err() {
            break; // the writer tells why
        }
        progress(found);
        query.cursor = next;
        if query.cursor.is_none() {
            break;
        }
        page = match query.run(database).await {
            Ok(page) => page,
            Err(error) => {
                failure = Some(error);
                break;
            }
        };
    }
    drop(pages);
    let writer = joined(writing.await)?;
    match failure {
        Some(failure) => Err(failure), // and the writer takes its files with it
        None => joined(spawn_blocking(move || writer.finish(&of)).await),
    }
}

/// Blocking work is cancelled only with its runtime, and who awaits it is then too.
fn joined<T>(task: Result<T, tokio::task::JoinError>) -> T {
    task.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The files of an export as far as they are written.
struct Writer {
    format: ExportFormat,
    events: Output,
    lines: Output,
    seen: manifest::Events,
    // Dropped last: the files are closed before they are removed.
    folder: Folder,
}

impl Writer {
    fn begin(path: PathBuf, format: ExportFormat) -> Result<Self, Error> {
        let mut folder = Folder::take(&path)?;
        let (name, header) = match format {
            ExportFormat::JsonLines => (EVENTS_JSON, Vec::new()),
            ExportFormat::Csv => (EVENTS_CSV, csv::header()),
        };
        let (mut events, lines) = (folder.create(name)?, folder.create(LINES)?);
        events.write(&header)?;
        Ok(Self { format, events, lines, seen: manifest::Events::default(), folder })
    }

    fn write_all(mut self, mut pages: mpsc::Receiver<Vec<Entry>>) -> Result<Self, Error> {
        let mut line = Vec::new();
        while let Some(page) = pages.blocking_recv() {
            for entry in &page {
                line.clear();
                self.write(entry, &mut line)?;
            }
        }
        Ok(self)
    }

    fn write(&mut self, entry: &Entry, line: &mut Vec<u8>) -> Result<(), Error> {
        let event = &entry.recorded.envelope;
        if event.compute_hash() != event.hash {
            return Err(Error::Damaged(format!(
                "version {} of {} in the audit trail is not what was recorded: its hash says so; build the trail anew from the log",
                event.version, event.stream
            )));
        }
        match self.format {
            ExportFormat::JsonLines => Line::of(entry).write_json(line),
            ExportFormat::Csv => Line::of(entry).write_csv(line),
        }
        self.seen.add(entry);
        self.events.write(line)?;
        let mut sha256 = manifest::hex(Sha256::new_with_prefix(&line));
        sha256.push('\n');
        self.lines.write(sha256.as_bytes())
    }

    /// Only this makes it an export, so a writer that is dropped has made none.
    fn finish(self, query: &Query) -> Result<Exported, Error> {
        let Self { events, lines, seen, folder, .. } = self;
        let manifest = Manifest::of(query, seen, events.finish()?, lines.finish()?);
        let manifest_sha256 = folder.finish(&manifest)?;
        Ok(Exported { manifest, manifest_sha256 })
    }
}
