//! Whether an export still is what was exported.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::folder::{EVENTS_CSV, EVENTS_JSON, LINES, MANIFEST, SUMS, failed, sums};
use super::line::Line;
use super::manifest::{self, ExportedFile, FORMAT, Manifest, hex};
use super::{ExportFormat, Exported, csv};
use crate::audit::entry::Entry;
use crate::error::Error;

/// No line is as long as this, nor a manifest, whatever was done to the file.
const LINE_MAX: u64 = 64 << 20;
/// 64 digits and a line end.
const LINE_HASH: usize = 65;

/// Checks an exported folder: every file against the manifest, every line and the hash of its event, and all events together.
///
/// That tells of anything that was changed without changing all hashes with it. Whoever might have done that is found out by
/// [`Exported::manifest_sha256`], if it was kept elsewhere when the export was made.
///
/// # Errors
/// [`Error::Damaged`] when something is not what was exported: the first wrong line is named, or the file;
/// [`Error::Invalid`] for a folder without a finished export; [`Error::OtherVersion`] for one in the format of a later release;
/// [`Error::File`] when a file can't be read.
pub async fn check_export(folder: &Path) -> Result<Exported, Error> {
    let folder = folder.to_owned();
    super::joined(spawn_blocking(move || check(&folder)).await)
}

fn check(folder: &Path) -> Result<Exported, Error> {
    let (manifest, format, manifest_sha256) = read_manifest(folder)?;
    let path = folder.join(SUMS);
    if whole(&path)? != sums(&manifest, &manifest_sha256).as_bytes() {
        return Err(changed(&path, "it does not go with manifest.json: one of them was changed"));
    }
    let lines = folder.join(LINES);
    let mut input = Input::open(lines.clone())?;
    while input.line()?.is_some() {}
    input.is(&manifest.lines)?;

    let mut input = Input::open(folder.join(&manifest.file.name))?;
    let mut hashes = BufReader::new(File::open(&lines).map_err(|source| failed("reading", &lines, source))?);
    if format == ExportFormat::Csv && input.line()? != Some(&csv::header()) {
        return Err(input.wrong("it is not the header"));
    }
    let mut seen = manifest::Events::default();
    loop {
        let record = match format {
            ExportFormat::JsonLines => input.line()?,
            ExportFormat::Csv => input.record()?,
        };
        let expected = line_hash(&mut hashes).map_err(|source| failed("reading", &lines, source))?;
        match (record, expected) {
            (None, None) => break,
            (None, Some(_)) => return Err(input.wrong("it is missing: more lines were exported")),
            (Some(_), None) => return Err(input.wrong("no more lines were exported")),
            (Some(record), Some(expected)) if hex(Sha256::new_with_prefix(record)) != expected => {
                return Err(input.wrong("it is not the one that was exported there"));
            }
            (Some(record), Some(_)) => {
                let entry = entry(record, format).map_err(|reason| input.wrong(&reason))?;
                let event = &entry.recorded.envelope;
                if event.compute_hash() != event.hash {
                    return Err(input.wrong("its event is not what was recorded: the event's hash is another"));
                }
                seen.add(&entry);
            }
        }
    }
    let path = input.path.clone();
    input.is(&manifest.file)?;
    if !seen.are_those_of(&manifest) {
        return Err(changed(&path, "its events are not those of the manifest"));
    }
    Ok(Exported { manifest, manifest_sha256 })
}

fn read_manifest(folder: &Path) -> Result<(Manifest, ExportFormat, String), Error> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let path = folder.join(MANIFEST);
    if let Err(error) = path.symlink_metadata()
        && error.kind() == io::ErrorKind::NotFound
    {
        let shown = folder.display();
        return Err(Error::invalid(format!(
            "{shown} holds no export, or one that was never finished: it has no {MANIFEST}"
        )));
    }
    let text = whole(&path)?;
    let unreadable = |error: serde_json::Error| changed(&path, &error.to_string());
    let Version { format } = serde_json::from_slice(&text).map_err(unreadable)?;
    if format != FORMAT {
        let shown = path.display();
        return Err(Error::OtherVersion(format!("{shown} has format {format}, and this release reads {FORMAT} only")));
    }
    let manifest: Manifest = serde_json::from_slice(&text).map_err(unreadable)?;
    let format = match manifest.file.name.as_str() {
        EVENTS_JSON => ExportFormat::JsonLines,
        EVENTS_CSV => ExportFormat::Csv,
        other => return Err(changed(&path, &format!("no export has its events in {other:?}"))),
    };
    Ok((manifest, format, hex(Sha256::new_with_prefix(&text))))
}

fn entry(record: &[u8], format: ExportFormat) -> Result<Entry, String> {
    match format {
        ExportFormat::JsonLines => Line::from_json(record)?.entry(),
        ExportFormat::Csv => Line::from_csv(&csv::read(record)?)?.entry(),
    }
}

/// The next line's hash. The file was found to be the one that was exported.
fn line_hash(hashes: &mut impl Read) -> io::Result<Option<String>> {
    let mut text = String::with_capacity(LINE_HASH);
    hashes.take(LINE_HASH as u64).read_to_string(&mut text)?;
    Ok(text.pop().map(|_| text))
}

fn whole(path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|source| failed("reading", path, source))?;
    file.take(LINE_MAX).read_to_end(&mut bytes).map_err(|source| failed("reading", path, source))?;
    Ok(bytes)
}

fn changed(path: &Path, reason: &str) -> Error {
    Error::Damaged(format!("{} is not what was exported: {reason}", path.display()))
}

/// A file that is read line by line.
struct Input {
    path: PathBuf,
    file: BufReader<File>,
    digest: Sha256,
    bytes: u64,
    line: Vec<u8>,
    /// The number of the line that was read last, and of the one behind it.
    number: u64,
    next: u64,
}

impl Input {
    fn open(path: PathBuf) -> Result<Self, Error> {
        let file = File::open(&path).map_err(|source| failed("reading", &path, source))?;
        let file = BufReader::with_capacity(64 << 10, file);
        Ok(Self { path, file, digest: Sha256::new(), bytes: 0, line: Vec::new(), number: 0, next: 1 })
    }

    /// The next line with its end.
    fn line(&mut self) -> Result<Option<&[u8]>, Error> {
        self.begin();
        Ok(if self.read_on()? { Some(&self.line) } else { None })
    }

    /// The next record of CSV with its end.
    fn record(&mut self) -> Result<Option<&[u8]>, Error> {
        self.begin();
        while self.read_on()? && !csv::is_whole(&self.line) {}
        Ok(if self.line.is_empty() { None } else { Some(&self.line) })
    }

    fn begin(&mut self) {
        self.line.clear();
        self.number = self.next;
    }

    fn read_on(&mut self) -> Result<bool, Error> {
        let before = self.line.len();
        let room = LINE_MAX - before as u64;
        let read = (&mut self.file).take(room).read_until(b'\n', &mut self.line);
        let read = read.map_err(|source| failed("reading", &self.path, source))?;
        if read as u64 == room {
            return Err(self.wrong("it is longer than any line of an export"));
        }
        self.digest.update(&self.line[before..]);
        self.bytes += read as u64;
        self.next += u64::from(read > 0);
        Ok(read > 0)
    }

    fn wrong(&self, reason: &str) -> Error {
        let Self { number, path, .. } = self;
        Error::Damaged(format!("line {number} of {} is not what was exported: {reason}", path.display()))
    }

    /// Whether what was read is the file that the manifest tells of.
    fn is(self, file: &ExportedFile) -> Result<(), Error> {
        if self.bytes == file.bytes && hex(self.digest) == file.sha256 {
            return Ok(());
        }
        Err(changed(&self.path, "it has not the size and the hash that the manifest tells"))
    }
}
