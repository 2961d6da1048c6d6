//! Keeps what is on an events topic and is not an event of ours, to be looked at.

use super::queue::{Chunk, Quarantined, start_of};
use crate::error::Error;
use crate::place::Place;
use crate::sql::{Kind, OnDuplicate, Table, Tx, Value};

/// Writes the batch's foreign records. Several projections read the same topic, so they may be there already.
pub(super) async fn insert(tx: &mut Tx, places: &[Place], chunks: &[Chunk]) -> Result<(), Error> {
    let of_chunk = |chunk: &Chunk| {
        let place = &places[chunk.place];
        let row = |record: &Quarantined| -> Vec<Value> {
            vec![
                place.topic.clone().into(),
                place.partition.into(),
                Value::Integer(record.offset as i64),
                record.reason.replace('\0', "\u{fffd}").into(),
                record.recorded_at().into(),
                start_of(&record.key).into(),
                start_of(&record.value).into(),
                Value::Integer((record.key.len() + record.value.len()) as i64),
            ]
        };
        chunk.quarantined.iter().map(row).collect::<Vec<_>>()
    };
    let rows: Vec<_> = chunks.iter().flat_map(of_chunk).collect();
    if !rows.is_empty() {
        tx.insert(&table(), rows, OnDuplicate::Keep).await?;
    }
    Ok(())
}

/// As the migration makes it.
fn table() -> Table {
    Table::new("es_quarantine")
        .key("topic", Kind::Text)
        .key("topic_partition", Kind::Integer)
        .key("topic_offset", Kind::Integer)
        .column("reason", Kind::Text)
        .optional("recorded_at", Kind::Time)
        .column("record_key", Kind::Bytes)
        .column("record_start", Kind::Bytes)
        .column("record_size", Kind::Integer)
}
