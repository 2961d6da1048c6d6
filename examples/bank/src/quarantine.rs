//! `bank quarantine`: what is on the events topic and does not count.

use std::io::Write;

use chrono::{DateTime, Utc};
use es_projections::Value;
use serde_json::json;

use crate::app::{Options, ReadModels};
use crate::failure::Failure;
use crate::output::stdout;

/// Rows of one query.
const PAGE: i64 = 1_000;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Brings the read models up to date, and prints the records that are not ours and how many of superseded processes
/// were passed.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let void: u64 = models.accounts.progress().iter().map(|partition| partition.void).sum();
    let database = &models.store.database;
    let sql = format!(
        "SELECT topic, topic_partition, topic_offset, reason, recorded_at, record_size FROM {} \
         WHERE topic = $1 AND (topic_partition > $2 OR (topic_partition = $2 AND topic_offset > $3)) \
         ORDER BY topic_partition, topic_offset LIMIT $4",
        database.table_name("es_quarantine")
    );
    let mut out = stdout();
    let (mut partition, mut offset, mut count) = (-1_i64, -1_i64, 0_u64);
    if args.json {
        write!(out, "{{\"void\":{void},\"foreign\":[")?;
    }
    loop {
        let topic = Value::from(models.store.source.topic.to_string());
        let rows = database.fetch(&sql, &[topic, partition.into(), offset.into(), PAGE.into()]).await?;
        for row in &rows {
            (partition, offset) = (row.get("topic_partition")?, row.get("topic_offset")?);
            let (topic, reason) = (row.get::<String>("topic")?, row.get::<String>("reason")?);
            let bytes = row.get::<i64>("record_size")?;
            let recorded = row.get::<Option<DateTime<Utc>>>("recorded_at")?;
            if args.json {
                let comma = if count == 0 { "" } else { ",\n" };
                let record = json!({
                    "topic": topic, "partition": partition, "offset": offset, "reason": reason, "bytes": bytes,
                    "recorded_at": recorded,
                });
                write!(out, "{comma}{record}")?;
            } else {
                writeln!(out, "{topic}/{partition} offset {offset}, {bytes} bytes: {reason}")?;
            }
            count += 1;
        }
        if rows.len() < PAGE as usize || out.is_deserted() {
            break;
        }
    }
    if args.json {
        writeln!(out, "]}}")?;
    } else {
        writeln!(out, "{count} foreign records, {void} void records of superseded processes")?;
    }
    out.flush()?;
    drop(out);
    models.stop().await
}
