//! Records of CSV as RFC 4180 has them.

use csv_core::{ReadRecordResult, Reader, Terminator, WriterBuilder};

use super::line::COLUMNS;

/// The first record of a file.
pub(super) fn header() -> Vec<u8> {
    let mut header = Vec::new();
    write(COLUMNS, &mut header);
    header
}

/// Appends a record.
pub(super) fn write(fields: [&str; COLUMNS.len()], out: &mut Vec<u8>) {
    let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).build();
    // All that a record can become: each character a doubled quote, two quotes and a comma a field, and the end.
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
    let field = |(start, end): (&usize, &usize)| String::from_utf8(text[*start..*end].to_vec());
    let fields: Result<_, _> = starts.zip(&ends[..ended]).map(field).collect();
    fields.map_err(|error| error.to_string())
}
