//! Rows of a file of the PKDD'99 challenge: `;`, quotes, CRLF, Latin-1 or UTF-8.
//!
//! Each line is split by itself, so that a quote that is never closed costs its own row and none after it.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv_core::ReadRecordResult;

use crate::failure::Failure;

/// A row is some 100 bytes; a line longer than this is no row, and is not kept in memory.
const LINE_MAX: usize = 4_096;

/// What UTF-8 may begin with, and Latin-1 does not.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How letters beyond ASCII are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Encoding {
    #[value(name = "latin-1")]
    Latin1,
    #[value(name = "utf-8")]
    Utf8,
}

/// The lines of a file, and where each column is.
pub(super) struct Rows {
    path: PathBuf,
    input: BufReader<File>,
    bytes: u64,
    at: u64,
    line: u64,
    /// None until it is known.
    encoding: Option<Encoding>,
    splitter: Splitter,
    columns: HashMap<&'static str, usize>,
}

/// A row that can't be taken: where and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) line: u64,
    pub(super) reason: String,
}

/// The fields of a line.
pub(super) struct Fields<'a> {
    pub(super) line: u64,
    columns: &'a HashMap<&'static str, usize>,
    fields: Vec<String>,
}

impl Rows {
    /// Opens the file and finds each of `columns` in its first line.
    pub(super) fn open(path: &Path, columns: &[&'static str], encoding: Option<Encoding>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::because(format!("reading {}", path.display()), &error);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::new(format!("reading {}: it is a folder, name a file", path.display())));
        }
        let mut rows = Self {
            path: path.to_owned(),
            input: BufReader::with_capacity(64 << 10, file),
            bytes: metadata.len(),
            at: 0,
            line: 0,
            encoding,
            splitter: Splitter::default(),
            columns: HashMap::new(),
        };
        let header = rows.next_line()?.unwrap_or_else(|| Ok(Vec::new()));
        rows.columns = header.and_then(|header| find_columns(&header, columns)).map_err(|reason| {
            let expected = columns.join(";");
            Failure::new(format!("the header of {} does not fit: {reason}; expected is {expected}", path.display()))
        })?;
        Ok(rows)
    }

    /// The size of the file.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much of the file was read.
    pub(super) fn at(&self) -> u64 {
        self.at
    }

    /// The next line that is not empty.
    pub(super) fn next(&mut self) -> Result<Option<Result<Fields<'_>, Refused>>, Failure> {
        let Some(fields) = self.next_line()? else { return Ok(None) };
        let (line, count) = (self.line, self.columns.len());
        let refused = |reason| Refused { line, reason };
        Ok(Some(fields.map_err(refused).and_then(|fields| match fields.len() {
            found if found != count => Err(refused(format!("it has {found} fields, not {count}"))),
            _ => Ok(Fields { line, columns: &self.columns, fields }),
        })))
    }

    fn next_line(&mut self) -> Result<Option<Result<Vec<String>, String>>, Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut self.input).take(LINE_MAX as u64).read_until(b'\n', &mut line);
            let read = read.map_err(|error| self.failed(&error))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.at += read as u64;
            if read == LINE_MAX && line.last() != Some(&b'\n') {
                self.at += skip_line(&mut self.input).map_err(|error| self.failed(&error))?;
                return Ok(Some(Err(format!("it is longer than {LINE_MAX} bytes"))));
            }
            let ends = |byte: &u8| *byte == b'\n' || *byte == b'\r';
            while line.last().is_some_and(ends) {
                line.pop();
            }
            if self.line == 1 && line.starts_with(BYTE_ORDER_MARK) {
                line.drain(..BYTE_ORDER_MARK.len());
                self.marked()?;
            }
            if !line.is_empty() {
                let text = self.decode(&line)?;
                return Ok(Some(text.and_then(|text| self.splitter.split(&text))));
            }
        }
    }

    /// It begins with a byte order mark.
    fn marked(&mut self) -> Result<(), Failure> {
        if self.encoding == Some(Encoding::Latin1) {
            let path = self.path.display();
            return Err(Failure::new(format!("{path} begins with a byte order mark: it is UTF-8 and not Latin-1")));
        }
        self.encoding = Some(Encoding::Utf8);
        Ok(())
    }

    /// The text of a line. Where nobody said how it is written, what both could be is nobody's to guess: money would be
    /// booked with another text than the file's.
    fn decode(&self, line: &[u8]) -> Result<Result<String, String>, Failure> {
        let utf8 = std::str::from_utf8(line);
        match (self.encoding, utf8) {
            (Some(Encoding::Latin1), _) | (None, Err(_)) => Ok(Ok(latin1(line))),
            (Some(Encoding::Utf8), Err(_)) => Ok(Err("it is not UTF-8".into())),
            (None, Ok(text)) if !text.is_ascii() => {
                let (number, path) = (self.line, self.path.display());
                Err(Failure::new(format!(
                    "line {number} of {path} can be read as UTF-8 and as Latin-1: say which it is with --encoding; \
                     what stands before it is imported, and importing the file again goes on"
                )))
            }
            (_, Ok(text)) => Ok(Ok(text.into())),
        }
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::because(format!("reading {} behind line {}", self.path.display(), self.line), error)
    }
}

impl Fields<'_> {
    /// The field of a column that was asked for when the file was opened.
    pub(super) fn get(&self, column: &str) -> &str {
        self.fields[self.columns[column]].trim()
    }

    /// The same row, refused.
    pub(super) fn refuse(&self, reason: impl Into<String>) -> Refused {
        Refused { line: self.line, reason: reason.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} refused: {}", self.line, self.reason)
    }
}

/// Splits one line after the other.
struct Splitter {
    reader: csv_core::Reader,
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Default for Splitter {
    fn default() -> Self {
        let reader = csv_core::ReaderBuilder::new().delimiter(b';').build();
        // A line has fewer bytes and fields than this, whatever is in it: a letter of Latin-1 may become two bytes.
        Self { reader, text: vec![0; 2 * LINE_MAX], ends: vec![0; LINE_MAX] }
    }
}

impl Splitter {
    fn split(&mut self, line: &str) -> Result<Vec<String>, String> {
        let line = line.as_bytes();
        // The reader would take it for the end of the row, and what follows would be lost without a word.
        if line.contains(&b'\r') {
            return Err("a carriage return stands in its midst, without a line feed".into());
        }
        if line.iter().filter(|byte| **byte == b'"').count() % 2 == 1 {
            return Err("a quote is not closed".into());
        }
        self.reader.reset();
        let (mut read, mut written, mut ended) = (0, 0, 0);
        loop {
            // The second time without input, which tells the reader that this is the end.
            let (result, more_read, more_written, more_ended) =
                self.reader.read_record(&line[read..], &mut self.text[written..], &mut self.ends[ended..]);
            read += more_read;
            written += more_written;
            ended += more_ended;
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::Record | ReadRecordResult::End => break,
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => return Err("it is too long".into()),
            }
        }
        let starts = std::iter::once(&0).chain(&self.ends[..ended]);
        let field = |(start, end): (&usize, &usize)| String::from_utf8(self.text[*start..*end].to_vec());
        let fields: Result<_, _> = starts.zip(&self.ends[..ended]).map(field).collect();
        fields.map_err(|error| error.to_string())
    }
}

/// Each byte of Latin-1 is the character of the same number.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

fn find_columns(header: &[String], columns: &[&'static str]) -> Result<HashMap<&'static str, usize>, String> {
    let mut found = HashMap::new();
    for (place, name) in header.iter().enumerate() {
        let name = name.trim();
        let Some(column) = columns.iter().find(|column| **column == name) else {
            return Err(format!("column {name:?} is unknown"));
        };
        if found.insert(*column, place).is_some() {
            return Err(format!("column {name:?} is there twice"));
        }
    }
    match columns.iter().find(|column| !found.contains_key(**column)) {
        Some(missing) => Err(format!("column {missing:?} is missing")),
        None => Ok(found),
    }
}

fn skip_line(input: &mut impl BufRead) -> io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = input.fill_buf()?;
        let (len, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => (end + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(len);
        skipped += len as u64;
        if done {
            return Ok(skipped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader of CSV takes a lone carriage return for the end of a row.
    #[test]
    fn a_carriage_return_within_a_line_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows");
        std::fs::write(&path, "a;b\r\n1;2\r3;4\r\n5;6\r\n7;\"8\r\"\n").unwrap();
        let mut rows = Rows::open(&path, &["a", "b"], None).unwrap();
        let mut seen = Vec::new();
        while let Some(row) = rows.next().unwrap() {
            seen.push(
                row.map_or_else(|refused| refused.to_string(), |row| format!("{} {}", row.get("a"), row.get("b"))),
            );
        }
        let reason = "a carriage return stands in its midst, without a line feed";
        assert_eq!(seen, [format!("line 2 refused: {reason}"), "5 6".into(), format!("line 4 refused: {reason}")]);
    }
}
