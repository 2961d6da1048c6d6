//! The end of the journal after a power cut.
//!
//! The journal is fjall's, in its format 3: batches, each with a start, items, and an end with a checksum. A batch
//! that was being written may be there in part, in any part, since disks write pages in any order. fjall drops it
//! where the file merely ends too early, but does not open a database whose last batch has a wrong checksum, and drops
//! all that follows a damaged batch, acknowledged or not. Therefore the journal is looked through first: what was
//! torn at the end is cut off, and damage in the middle is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::Xxh3;

use super::unavailable;
use crate::log::{LogError, LogErrorKind};

/// The last bytes of every batch.
const TRAILER: &[u8] = b"FJL\x03";

/// What room for more looks like, and how much is read at once.
static ZEROES: [u8; 1 << 16] = [0; 1 << 16];

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
    let mut torn: Option<(PathBuf, u64)> = None;
    for path in journals(data).map_err(failed)? {
        let (whole, rest) = scan(&path).map_err(failed)?;
        if let Some((torn, at)) = &torn
            && (whole > 0 || rest != Rest::Empty)
        {
            return Err(damaged(torn, *at)); // the batch was not the last one
        }
        match rest {
            Rest::Empty => {}
            // At most the trailer of the torn batch itself: a batch is only begun when the one before it is on disk.
            Rest::Torn { trailers: 0 | 1 } => torn = Some((path, whole)),
            Rest::Torn { .. } => return Err(damaged(&path, whole)),
        }
    }
    if let Some((path, whole)) = torn {
        tracing::warn!(journal = %path.display(), offset = whole, "cutting off a batch that was never acknowledged");
        let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        file.set_len(whole).and_then(|()| file.sync_all()).map_err(failed)?;
    }
    Ok(())
}

fn damaged(journal: &Path, at: u64) -> LogError {
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

/// What follows the whole batches of a journal.
#[derive(Debug, PartialEq, Eq)]
enum Rest {
    /// Nothing, or zeroes: room for more.
    Empty,
    /// Something else, with so many trailers of batches.
    Torn { trailers: usize },
}

/// How many bytes at the beginning are whole batches, and what follows. Piece by piece: a journal has some 64 MB.
fn scan(path: &Path) -> io::Result<(u64, Rest)> {
    let mut journal =
        Journal { input: BufReader::with_capacity(ZEROES.len(), File::open(path)?), read: 0, hash: Xxh3::new() };
    let mut whole = 0;
    while journal.batch()?.is_some() {
        whole = journal.read;
    }
    Ok((whole, rest(journal.input.get_ref(), whole)?))
}

/// What is from there on, where the file system holds anything at all: the rest of the room for more is a hole.
fn rest(mut file: &File, whole: u64) -> io::Result<Rest> {
    let mut found = Found { empty: true, trailers: 0, matched: 0 };
    let mut at = whole;
    while let Some(held) = held(file, at)? {
        file.seek(SeekFrom::Start(held.start))?;
        found.read(&mut BufReader::with_capacity(ZEROES.len(), file.take(held.end - held.start)))?;
        at = held.end;
    }
    let Found { empty, trailers, .. } = found;
    Ok(if empty { Rest::Empty } else { Rest::Torn { trailers } })
}

/// The next part of the file that is no hole.
#[cfg(target_os = "linux")]
fn held(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;

    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some(start..seek(file, SeekFrom::Hole(start))?)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(target_os = "linux"))]
fn held(file: &File, from: u64) -> io::Result<Option<Range<u64>>> {
    let end = file.metadata()?.len();
    Ok((from < end).then_some(from..end))
}

struct Found {
    empty: bool,
    trailers: usize,
    /// How much of a trailer was read last.
    matched: usize,
}

impl Found {
    fn read(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        self.matched = 0;
        loop {
            let piece = input.fill_buf()?;
            if piece.is_empty() {
                return Ok(());
            }
            if self.matched > 0 || *piece != ZEROES[..piece.len()] {
                self.empty = false;
                for byte in piece {
                    self.matched = match *byte {
                        byte if byte == TRAILER[self.matched] => self.matched + 1,
                        byte => usize::from(byte == TRAILER[0]), // no other byte of it is like its first
                    };
                    if self.matched == TRAILER.len() {
                        self.trailers += 1;
                        self.matched = 0;
                    }
                }
            }
            let length = piece.len();
            input.consume(length);
        }
    }
}

/// A journal that is read in order.
struct Journal<R> {
    input: R,
    read: u64,
    hash: Xxh3,
}

impl<R: BufRead> Journal<R> {
    /// Reads a batch; `None` when it is not whole.
    fn batch(&mut self) -> io::Result<Option<()>> {
        let Some([START, header @ ..]) = self.take::<13>()? else { return Ok(None) };
        let items = u32::from_le_bytes(header[..4].try_into().expect("four bytes")); // the sequence number follows
        self.hash.reset();
        for _ in 0..items {
            if self.item()?.is_none() {
                return Ok(None);
            }
        }
        let hash = self.hash.digest().to_le_bytes();
        let Some([END, end @ ..]) = self.take::<13>()? else { return Ok(None) };
        Ok((end[..8] == hash && end[8..] == *TRAILER).then_some(()))
    }

    fn item(&mut self) -> io::Result<Option<()>> {
        match self.take()? {
            Some([ITEM]) => {
                // Kind of value, compression, keyspace; lengths of key, value, and value as it is stored.
                let Some(header) = self.take::<20>()? else { return Ok(None) };
                let key = u16::from_le_bytes(header[10..12].try_into().expect("two bytes"));
                let value = u32::from_le_bytes(header[16..].try_into().expect("four bytes"));
                self.skip(u64::from(key) + u64::from(value))
            }
            Some([CLEAR]) => self.skip(8), // keyspace
            _ => Ok(None),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<Option<[u8; N]>> {
        let mut bytes = [0; N];
        match self.input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        self.hash.update(&bytes);
        self.read += N as u64;
        Ok(Some(bytes))
    }

    fn skip(&mut self, mut length: u64) -> io::Result<Option<()>> {
        while length > 0 {
            let piece = self.input.fill_buf()?;
            if piece.is_empty() {
                return Ok(None);
            }
            let taken = piece.len().min(usize::try_from(length).unwrap_or(usize::MAX));
            self.hash.update(&piece[..taken]);
            self.input.consume(taken);
            self.read += taken as u64;
            length -= taken as u64;
        }
        Ok(Some(()))
    }
}
