//! The end of the journal after a power cut.
//!
//! The journal is fjall's, in its format 3: batches, each with a start, items, and an end with a checksum. A batch
//! that was being written may be there in part, in any part, since disks write pages in any order. fjall drops it
//! where the file merely ends too early, but does not open a database whose last batch has a wrong checksum, and drops
//! all that follows a damaged batch, acknowledged or not. Therefore the journal is looked through first: what was
//! torn at the end is cut off, and damage in the middle is an error.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::unavailable;
use crate::log::{LogError, LogErrorKind};

/// The last bytes of every batch.
const TRAILER: &[u8] = b"FJL\x03";

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Cuts off a torn batch at the journal's end.
///
/// # Errors
/// [`LogErrorKind::Lost`] when there is damage before the last batch. Nothing is changed then.
pub(super) fn repair(data: &Path) -> Result<(), LogError> {
    let failed =
        |error: io::Error| unavailable(format!("reading the journal in {} failed", data.display())).with_source(error);
    let mut torn: Option<(PathBuf, usize)> = None;
    for path in journals(data).map_err(failed)? {
        let bytes = fs::read(&path).map_err(failed)?;
        let whole = whole_batches(&bytes);
        let rest = &bytes[whole..];
        if let Some((torn, at)) = torn.take_if(|_| whole > 0) {
            return Err(damaged(&torn, at)); // the batch was not the last one
        }
        if is_zero(rest) {
            continue; // room for more
        }
        // At most the trailer of the torn batch itself: a batch is only begun when the one before it is on disk.
        if torn.is_some() || rest.windows(TRAILER.len()).filter(|window| *window == TRAILER).count() > 1 {
            return Err(damaged(&path, whole));
        }
        torn = Some((path, whole));
    }
    if let Some((path, whole)) = torn {
        tracing::warn!(journal = %path.display(), offset = whole, "cutting off a batch that was never acknowledged");
        let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.set_len(whole as u64).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn damaged(journal: &Path, at: usize) -> LogError {
    let message = format!(
        "the journal {} is damaged at byte {at}, and acknowledged records follow: restore the log from a copy",
        journal.display()
    );
    LogError::new(LogErrorKind::Lost, message)
}

/// The journals, oldest first.
fn journals(data: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = vec![];
    for entry in fs::read_dir(data)? {
        let path = entry?.path();
        let number = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".jnl")?.parse().ok());
        found.extend(number.map(|number| (number, path)));
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Compared block by block: there are up to 64 MB of them.
fn is_zero(bytes: &[u8]) -> bool {
    const ZEROES: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROES.len()).all(|block| block == &ZEROES[..block.len()])
}

/// How many bytes at the beginning are whole batches.
fn whole_batches(bytes: &[u8]) -> usize {
    let mut whole = 0;
    while let Some(length) = batch(&bytes[whole..]) {
        whole += length;
    }
    whole
}

/// The length of the batch at the beginning, if it is whole.
fn batch(bytes: &[u8]) -> Option<usize> {
    let mut rest = bytes;
    if u8(&mut rest)? != START {
        return None;
    }
    let items = u32(&mut rest)?;
    take(&mut rest, 8)?; // sequence number
    let content = rest;
    for _ in 0..items {
        item(&mut rest)?;
    }
    let content = &content[..content.len() - rest.len()];
    let mut hasher = Xxh3::new();
    hasher.update(content);
    let end = u8(&mut rest)? == END
        && take(&mut rest, 8)? == hasher.digest().to_le_bytes()
        && take(&mut rest, TRAILER.len())? == TRAILER;
    end.then(|| bytes.len() - rest.len())
}

fn item(rest: &mut &[u8]) -> Option<()> {
    match u8(rest)? {
        ITEM => {
            take(rest, 1 + 1 + 8)?; // kind of value, compression, keyspace
            let key = usize::from(u16::from_le_bytes(take(rest, 2)?.try_into().ok()?));
            take(rest, 4)?; // length of the value before compression
            let value = u32(rest)? as usize;
            take(rest, key + value)?;
        }
        CLEAR => {
            take(rest, 8)?; // keyspace
        }
        _ => return None,
    }
    Some(())
}

fn u8(rest: &mut &[u8]) -> Option<u8> {
    take(rest, 1).map(|bytes| bytes[0])
}

fn u32(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(take(rest, 4)?.try_into().ok()?))
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}
