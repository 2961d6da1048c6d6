//! Records of CSV as RFC 4180 has them, in which no cell is a formula.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, Reader, Terminator, WriterBuilder};

/// The fields of a line, in their order. Names and order are a stored format.
pub(super) const COLUMNS: [&str; 23] = [
    "context",
    "category",
    "aggregate_id",
    "version",
    "event_id",
    "event_type",
    "schema_version",
    "recorded_at",
    "occurred_at",
    "command_id",
    "command_hash",
    "correlation_id",
    "causation_id",
    "actor",
    "traceparent",
    "content_type",
    "previous_hash",
    "hash",
    "topic",
    "partition",
    "offset",
    "payload",
    "payload_base64",
];

/// The first record of a file.
pub(super) fn header() -> Vec<u8> {
    let mut header = Vec::new();
    write(COLUMNS, &mut header);
    header
}

/// A text as a cell of CSV that a spreadsheet takes for no formula: an apostrophe stands before what it would take for one, and
/// before an apostrophe. Without its first apostrophe a cell is the text again.
pub fn cell(text: &str) -> Cow<'_, str> {
    const FORMULA: [char; 7] = ['=', '+', '-', '@', '\t', '\r', '\''];
    if text.starts_with(FORMULA) { format!("'{text}").into() } else { text.into() }
}

/// The text of a cell.
fn text_of(cell: &str) -> &str {
    cell.strip_prefix('\'').unwrap_or(cell)
}

/// Appends a record.
pub(super) fn write(fields: [&str; COLUMNS.len()], out: &mut Vec<u8>) {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).build();
    // All that a record can become: each character a doubled quote, two quotes and a comma a field, and the end.
    let fields = fields.map(cell);
    let room = fields.iter().map(|field| 2 * field.len() + 3).sum::<usize>() + 2;
    let mut end = out.len();
    out.resize(end + room, 0);
    for (place, field) in fields.into_iter().enumerate() {
        if place > 0 {
            end += writer.delimiter(&mut out[end..]).1;
        }
        end += writer.field(field.as_bytes(), &mut out[end..]).2;
    }
    end += writer.terminator(&mut out[end..]).1;
    out.truncate(end);
}

/// Whether a record is whole: a line end between quotes does not end it.
pub(super) fn is_whole(record: &[u8]) -> bool {
    record.iter().filter(|byte| **byte == b'"').count() % 2 == 0
}

/// The fields of a record.
pub(super) fn read(record: &[u8]) -> Result<Vec<String>, String> {
    let (mut text, mut ends) = (vec![0; record.len()], [0; COLUMNS.len() + 1]);
    let (mut read, mut written, mut ended) = (0, 0, 0);
    let mut reader = Reader::new();
    loop {
        // The second time without input, which tells the reader that this is the end.
        let (result, more_read, more_written, more_ended) =
            reader.read_record(&record[read..], &mut text[written..], &mut ends[ended..]);
        read += more_read;
        written += more_written;
        ended += more_ended;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::Record | ReadRecordResult::End => break,
            ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => return Err("it has more fields".into()),
        }
    }
    if !matches!(&record[read..], b"" | b"\n") {
        return Err("a carriage return stands in its midst".into());
    }
    let starts = std::iter::once(&0).chain(&ends[..ended]);
    let field =
        |(start, end): (&usize, &usize)| std::str::from_utf8(&text[*start..*end]).map(|cell| text_of(cell).into());
    let fields: Result<_, _> = starts.zip(&ends[..ended]).map(field).collect();
    fields.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_each_is_the_text_again() {
        for (text, as_cell) in [
            ("", ""),
            ("7", "7"),
            ("a=b", "a=b"),
            ("=1+1", "'=1+1"),
            ("+7", "'+7"),
            ("-7", "'-7"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            ("\r=1", "'\r=1"),
            ("'7", "''7"),
            ("''=7", "'''=7"),
        ] {
            assert_eq!(cell(text), as_cell);
            let fields: [&str; COLUMNS.len()] = [text; COLUMNS.len()];
            let mut record = Vec::new();
            write(fields, &mut record);
            assert_eq!(read(&record).unwrap(), fields);
        }
    }
}
