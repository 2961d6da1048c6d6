//! What is stored: keys and record values. A stored format is for ever; `docs/formats.md` describes it.

use std::borrow::Cow;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{decode_varint, encode_varint, encoded_len_varint};

use crate::log::Record;

/// The first byte of every record value.
const FORMAT: u8 = 1;

/// Header names that are stored as a number, from 1. Only ever add at the end.
const NAMES: [&str; 10] = [
    "ce_specversion",
    "ce_id",
    "ce_source",
    "ce_type",
    "ce_subject",
    "ce_time",
    "ce_partitionkey",
    "content-type",
    "traceparent",
    "es",
];

/// The key of a record: segment, topic, partition, offset. Segments come first, so that keys grow with time and
/// nothing is ever sorted again but within a segment.
pub(super) fn record_key(segment: u32, topic: u32, partition: u32, offset: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..4].copy_from_slice(&segment.to_be_bytes());
    key[4..].copy_from_slice(&segment_key(topic, partition, offset));
    key
}

/// Segment and offset of a record's key.
pub(super) fn parse_record_key(key: &[u8]) -> Option<(u32, u64)> {
    let key: &[u8; 20] = key.try_into().ok()?;
    let segment = u32::from_be_bytes(key[..4].try_into().ok()?);
    Some((segment, u64::from_be_bytes(key[12..].try_into().ok()?)))
}

/// The key under which stands in which segment the records of a partition go on from this offset.
pub(super) fn segment_key(topic: u32, partition: u32, offset: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&topic.to_be_bytes());
    key[4..8].copy_from_slice(&partition.to_be_bytes());
    key[8..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The value of a record.
pub(super) fn encode(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(encoded_size(record));
    out.put_u8(FORMAT);
    out.put_i64(record.timestamp_ms);
    put(&mut out, &record.key);
    match &record.value {
        None => encode_varint(0, &mut out),
        Some(value) => {
            encode_varint(value.len() as u64 + 1, &mut out);
            out.put_slice(value);
        }
    }
    encode_varint(record.headers.len() as u64, &mut out);
    for (name, value) in &record.headers {
        match NAMES.iter().position(|known| known == name) {
            Some(place) => encode_varint(place as u64 + 1, &mut out),
            None => {
                encode_varint(0, &mut out);
                put(&mut out, name.as_bytes());
            }
        }
        put(&mut out, value);
    }
    out
}

/// At least as much as is needed, and little more.
fn encoded_size(record: &Record) -> usize {
    let lengths = 3 * encoded_len_varint(u64::from(u32::MAX)) + 10 * record.headers.len();
    1 + 8 + lengths + record.size()
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    encode_varint(bytes.len() as u64, out);
    out.put_slice(bytes);
}

/// Reads a record value; key, value and headers share its memory.
///
/// # Errors
/// What is wrong with it.
pub(super) fn decode(mut stored: Bytes) -> Result<Record, String> {
    let input = &mut stored;
    match input.try_get_u8() {
        Ok(FORMAT) => {}
        Ok(format) if format > FORMAT => return Err(format!("it has format {format}: upgrade this program")),
        Ok(format) => return Err(format!("it has format {format}")),
        Err(_) => return Err("it is empty".into()),
    }
    let timestamp_ms = input.try_get_i64().map_err(|_| "it ends within its timestamp")?;
    let key = take(input, "key")?;
    let value = match length(input, "value")? {
        0 => None,
        length => Some(take_bytes(input, length - 1, "value")?),
    };
    let count = length(input, "headers")?;
    let mut headers = Vec::with_capacity(count.min(input.len()));
    for _ in 0..count {
        headers.push((name(input)?, take(input, "header")?));
    }
    if !input.is_empty() {
        return Err(format!("it has {} bytes too many", input.len()));
    }
    Ok(Record { key, value, headers, timestamp_ms })
}

fn name(input: &mut Bytes) -> Result<Cow<'static, str>, String> {
    match length(input, "header name")? {
        0 => {
            let name = take(input, "header name")?;
            let name = std::str::from_utf8(&name).map_err(|_| "a header name is not UTF-8")?;
            Ok(Cow::Owned(name.to_owned()))
        }
        number => {
            let known = NAMES.get(number - 1).ok_or_else(|| format!("header name {number} is not known"))?;
            Ok(Cow::Borrowed(known))
        }
    }
}

fn length(input: &mut Bytes, what: &str) -> Result<usize, String> {
    let length = decode_varint(input).map_err(|_| format!("it ends within the length of its {what}"))?;
    usize::try_from(length).map_err(|_| format!("the length of its {what} is {length}"))
}

fn take(input: &mut Bytes, what: &str) -> Result<Bytes, String> {
    let length = length(input, what)?;
    take_bytes(input, length, what)
}

fn take_bytes(input: &mut Bytes, length: usize, what: &str) -> Result<Bytes, String> {
    if length > input.len() {
        return Err(format!("it ends within its {what}"));
    }
    Ok(input.split_to(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        Record {
            key: Bytes::from("a/1@1.00000000000000ff"),
            value: Some(Bytes::from("{}")),
            headers: vec![
                ("ce_specversion".into(), Bytes::from("1.0")),
                ("es".into(), Bytes::from_static(&[0, 255])),
                ("mine".into(), Bytes::new()),
            ],
            timestamp_ms: 1_700_000_000_000,
        }
    }

    /// The bytes of format 1, for ever.
    const FULL: &str = "010000018bcfe5680016612f3140312e30303030303030303030303030306666037b7d\
                        030103312e300a0200ff00046d696e6500";
    const TOMBSTONE: &str = "01ffffffffffffffff01610000";

    fn unhex(text: &str) -> Bytes {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn the_stored_bytes_are_these_and_old_ones_are_read() {
        let tombstone = Record { key: Bytes::from("a"), value: None, headers: vec![], timestamp_ms: -1 };
        for (bytes, record) in [(FULL, full()), (TOMBSTONE, tombstone)] {
            assert_eq!(decode(unhex(bytes)).unwrap(), record);
            assert_eq!(Bytes::from(encode(&record)), unhex(bytes));
        }
        assert_eq!(&record_key(1, 2, 3, 4)[..], unhex("0000000100000002000000030000000000000004"));
        assert_eq!(parse_record_key(&record_key(1, 2, 3, 4)), Some((1, 4)));
    }

    #[test]
    fn an_empty_value_is_not_a_tombstone() {
        let record = Record { value: Some(Bytes::new()), ..full() };
        assert_eq!(decode(encode(&record).into()).unwrap(), record);
    }

    #[test]
    fn room_is_made_once() {
        let record = full();
        assert!(encode(&record).len() <= encoded_size(&record));
    }

    #[test]
    fn rubbish_is_an_error_and_never_a_panic() {
        let good = encode(&full());
        for end in 0..good.len() {
            assert!(decode(Bytes::copy_from_slice(&good[..end])).is_err(), "cut at {end}");
        }
        assert_eq!(decode([good.as_slice(), &[0]].concat().into()).unwrap_err(), "it has 1 bytes too many");
        assert_eq!(decode(Bytes::from_static(&[2])).unwrap_err(), "it has format 2: upgrade this program");
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            let _ = decode(bytes.into());
        }
    }
}
