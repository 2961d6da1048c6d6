//! `bank quarantine`: what is on the events topic and does not count.

use std::io::Write;

use chrono::{DateTime, Utc};
use es_projections::{DamagedRow, Error, Row, Value};
use serde_json::json;

use crate::app::{Options, ReadModels};
use crate::damaged::Damage;
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
         ORDER BY topic_partition, topic_offset LIMIT $4 OFFSET $5",
        database.table_name("es_quarantine")
    );
    let mut out = stdout();
    let (mut partition, mut offset, mut count, mut unreadable) = (-1_i64, -1_i64, 0_u64, 0_u64);
    let mut damage = Damage::default();
    if args.json {
        write!(out, "{{\"void\":{void},\"foreign\":[")?;
    }
    loop {
        let topic = Value::from(models.store.source.topic.to_string());
        let args_of_page = [topic, partition.into(), offset.into(), PAGE.into(), Value::Integer(unreadable as i64)];
        let rows = database.fetch_readable(&sql, &args_of_page).await?;
        for row in &rows {
            let Foreign { topic, at, reason, bytes, recorded } = match Foreign::read(row) {
                Ok(foreign) => foreign,
                Err(Error::Damaged(reason)) => {
                    unreadable += 1;
                    out.flush()?;
                    damage.tell(&DamagedRow { row: named(row), reason }, count as usize);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            ((partition, offset), unreadable) = (at, 0);
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
    models.stop().await?;
    // Whichever read model passes them first notes them; what is there already stays.
    damage.or_fail_with("the quarantine", "remove them, and `bank rebuild accounts` notes them again")
}

/// A record that is not ours.
struct Foreign {
    topic: String,
    at: (i64, i64),
    reason: String,
    bytes: i64,
    recorded: Option<DateTime<Utc>>,
}

impl Foreign {
    fn read(row: &Row) -> Result<Self, Error> {
        Ok(Self {
            topic: row.get("topic")?,
            at: (row.get("topic_partition")?, row.get("topic_offset")?),
            reason: row.get("reason")?,
            bytes: row.get("record_size")?,
            recorded: row.get("recorded_at")?,
        })
    }
}

/// Where the record is, as far as that can be read.
fn named(row: &Row) -> String {
    let number = |column| row.get::<i64>(column).map_or_else(|_| "?".into(), |number| number.to_string());
    format!("the foreign record at partition {} offset {}", number("topic_partition"), number("topic_offset"))
}
