//! The folder of an export. All files are written under other names, synced and then renamed, the manifest last, so that a process or a
//! machine that stops in the midst leaves nothing that looks like an export.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::manifest::{ExportedFile, Manifest, hex};
use crate::error::Error;

pub(super) const MANIFEST: &str = "manifest.json";
pub(super) const LINES: &str = "lines.sha256";
pub(super) const SUMS: &str = "SHA256SUMS";
pub(super) const EVENTS_JSON: &str = "events.jsonl";
pub(super) const EVENTS_CSV: &str = "events.csv";
/// What shows that a folder holds an export.
const ALL: [&str; 5] = [MANIFEST, EVENTS_JSON, EVENTS_CSV, LINES, SUMS];

/// A folder that an export is being written to. Dropped before the end, it removes what it has written.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Locked as long as this is there: two exports into one folder would mix.
    handle: File,
    written: Vec<PathBuf>,
}

impl Folder {
    /// Takes a folder without an export, and makes it where it is missing.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |source| failed("making the folder", path, source);
        fs::create_dir_all(path).map_err(failed)?;
        let handle = File::open(path).map_err(failed)?;
        // A file system that has no locks has to do without.
        if let Err(TryLockError::WouldBlock) = handle.try_lock() {
            return Err(Error::invalid(format!("{} is being exported to: choose another folder", path.display())));
        }
        let names: Vec<_> = ALL.into_iter().filter(|name| path.join(name).symlink_metadata().is_ok()).collect();
        if names.is_empty() {
            return Ok(Self { path: path.to_owned(), handle, written: Vec::new() });
        }
        let (shown, names) = (path.display(), names.join(", "));
        Err(Error::invalid(format!(
            "{shown} holds {names} of an export already, which stays as it is: choose another folder, or remove that"
        )))
    }

    pub(super) fn create(&mut self, name: &'static str) -> Result<Output, Error> {
        let path = self.path.join(unfinished(name));
        let file = File::create(&path).map_err(|source| failed("making", &path, source))?;
        self.written.push(path.clone());
        Ok(Output { name, path, out: BufWriter::with_capacity(64 << 10, file), digest: Sha256::new(), bytes: 0 })
    }

    /// Puts all files in place, and tells the hash of the manifest.
    pub(super) fn finish(mut self, manifest: &Manifest) -> Result<String, Error> {
        let mut output = self.create(MANIFEST)?;
        output.write(manifest.text().as_bytes())?;
        let sha256 = output.finish()?.sha256;
        let mut output = self.create(SUMS)?;
        output.write(sums(manifest, &sha256).as_bytes())?;
        output.finish()?;
        let events = if manifest.file.name == EVENTS_CSV { EVENTS_CSV } else { EVENTS_JSON };
        for name in [events, LINES, SUMS, MANIFEST] {
            if name == MANIFEST {
                self.sync()?; // the others have their names, whatever happens now
            }
            let (from, to) = (self.path.join(unfinished(name)), self.path.join(name));
            fs::rename(&from, &to).map_err(|source| failed("putting in place", &to, source))?;
            self.written.push(to);
        }
        self.sync()?;
        self.written.clear();
        Ok(sha256)
    }

    fn sync(&self) -> Result<(), Error> {
        self.handle.sync_all().map_err(|source| failed("syncing the folder", &self.path, source))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // The manifest is the first to go. What can't be removed has a name that says what it is.
        for path in self.written.iter().rev() {
            let _ = fs::remove_file(path);
        }
    }
}

/// A file that is being written.
#[derive(Debug)]
pub(super) struct Output {
    name: &'static str,
    path: PathBuf,
    out: BufWriter<File>,
    digest: Sha256,
    bytes: u64,
}

impl Output {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| failed("writing", &self.path, source))
    }

    /// Makes it durable.
    pub(super) fn finish(mut self) -> Result<ExportedFile, Error> {
        let synced = self.out.flush().and_then(|()| self.out.get_ref().sync_all());
        synced.map_err(|source| failed("writing", &self.path, source))?;
        Ok(ExportedFile { name: self.name.into(), bytes: self.bytes, sha256: hex(self.digest) })
    }
}

/// What `sha256sum -c` reads.
pub(super) fn sums(manifest: &Manifest, manifest_sha256: &str) -> String {
    let of = |file: &ExportedFile| format!("{}  {}\n", file.sha256, file.name);
    format!("{}{}{manifest_sha256}  {MANIFEST}\n", of(&manifest.file), of(&manifest.lines))
}

pub(super) fn failed(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::File { doing, path: path.to_owned(), source }
}

fn unfinished(name: &str) -> String {
    format!("{name}.unfinished")
}
