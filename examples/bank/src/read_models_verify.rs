//! `bank verify`, the read models: each is compared with what the log gives, while it serves.

use std::fmt::Write as _;

use es_projections::{
    ColumnDiffers, ComparedTable, Difference, Error, Parked, Projection, RowDiffers, Skipped, Verdict, Verified,
};
use serde_json::{Value, json};

use crate::app::Store;
use crate::failure::Failure;
use crate::parked;
use crate::progress::OfBuild;
use crate::read_model::{self, Name};
use crate::time::shown;

/// What came of comparing each read model with the log.
pub(crate) struct Compared(Vec<Verified>);

/// Compares one read model after the other.
pub(crate) async fn compare(store: &Store) -> Result<Compared, Failure> {
    let mut compared = Vec::new();
    for name in Name::ALL {
        compared.push(match name {
            Name::Accounts => verify(store, read_model::accounts()).await?,
            Name::Statements => verify(store, read_model::statements()).await?,
            Name::Audit => verify(store, store.audit_trail()).await?,
        });
    }
    Ok(Compared(compared))
}

async fn verify(store: &Store, projection: impl Projection) -> Result<Verified, Failure> {
    let (name, worker) = (projection.name().to_owned(), store.worker());
    let bar = OfBuild::new(&name);
    let verified = worker.verify(projection, |progress| bar.show(progress)).await;
    bar.clear();
    verified.map_err(|error| match error {
        Error::OtherVersion(_) => Failure::new(format!(
            "read model {name} was built by another release of the bank: verify it with that one, or run `bank rebuild {name}`; \
             nothing of it was compared"
        )),
        Error::Fenced { .. } => Failure::new(format!(
            "verifying read model {name} was broken off by another process that began the same later: let that one end"
        )),
        error => Failure::because(format!("verifying read model {name}"), &error),
    })
}

impl Compared {
    /// The first difference, if there is any.
    pub(crate) fn difference(&self) -> Option<String> {
        let differs = self.0.iter().find(|verified| verified.verdict() == Verdict::Differs)?;
        let row = || differs.differences().next().map(ToString::to_string);
        let parked = || differs.not_replayed.first().map(cannot_be_replayed);
        let what = parked().or_else(row).unwrap_or_default();
        Some(format!("read model {} differs from the log: {what}", differs.projection))
    }

    /// What to print, a few lines for each read model.
    pub(crate) fn lines(&self) -> String {
        let mut lines = String::new();
        for verified in &self.0 {
            // Writing to a string does not fail.
            let _ = write_lines(&mut lines, verified);
        }
        lines
    }

    /// The same for programs.
    pub(crate) fn as_json(&self) -> Value {
        self.0.iter().map(as_json).collect()
    }
}

fn write_lines(out: &mut String, verified: &Verified) -> std::fmt::Result {
    let (name, records) = (&verified.projection, verified.at.iter().map(|at| at.next).sum::<u64>());
    match verified.verdict() {
        Verdict::Equal => writeln!(out, "{name}: equal to what {records} records of the log give")?,
        Verdict::Differs => writeln!(out, "{name}: differs from what {records} records of the log give")?,
        Verdict::Empty => {
            writeln!(out, "{name}: nothing was compared, since it is empty, and {records} records give nothing")?;
        }
    }
    for ComparedTable { name, rows, replayed_rows, digest, replayed_digest, .. } in &verified.tables {
        write!(out, "  {name}: {rows} rows, {digest}")?;
        if digest != replayed_digest {
            write!(out, "; replayed {replayed_rows} rows, {replayed_digest}")?;
        }
        writeln!(out)?;
    }
    for difference in verified.differences() {
        writeln!(out, "  {difference}")?;
    }
    for parked in &verified.not_replayed {
        writeln!(out, "  {}", cannot_be_replayed(parked))?;
    }
    for Parked { aggregate_id, waiting, reason, .. } in &verified.parked {
        writeln!(out, "  account {aggregate_id} is parked: {waiting} events wait and were not compared: {reason}")?;
    }
    for Skipped { aggregate_id, version, skipped_by, skipped_why, .. } in &verified.skipped {
        writeln!(out, "  event {version} of account {aggregate_id} was left out by {skipped_by}: {skipped_why}")?;
    }
    if verified.behind() > 0 {
        writeln!(out, "  {} more records of the log are not in it yet, and were not compared", verified.behind())?;
    }
    Ok(())
}

fn cannot_be_replayed(parked: &Parked) -> String {
    format!("account {} can't be replayed, though it is in it: {}", parked.aggregate_id, parked.reason)
}

fn as_json(verified: &Verified) -> Value {
    let at = verified
        .at
        .iter()
        .map(|at| json!({ "topic": *at.topic, "partition": at.partition, "offset": at.next, "end": at.end }));
    let table = |table: &ComparedTable| {
        json!({
            "table": table.name,
            "rows": table.rows,
            "digest": table.digest.to_string(),
            "replayed_rows": table.replayed_rows,
            "replayed_digest": table.replayed_digest.to_string(),
        })
    };
    let skipped = |skipped: &Skipped| {
        json!({
            "account": skipped.aggregate_id,
            "version": skipped.version.get(),
            "type": skipped.event_type,
            "reason": skipped.reason,
            "skipped_by": skipped.skipped_by,
            "skipped_why": skipped.skipped_why,
            "skipped_at": shown(skipped.skipped_at),
        })
    };
    json!({
        "read_model": verified.projection,
        "verdict": verified.verdict().to_string(),
        "compared_to": at.collect::<Value>(),
        "behind": verified.behind(),
        "tables": verified.tables.iter().map(table).collect::<Value>(),
        "differences": verified.differences().map(difference_as_json).collect::<Value>(),
        "not_replayed": verified.not_replayed.iter().map(parked::as_json).collect::<Value>(),
        "parked": verified.parked.iter().map(parked::as_json).collect::<Value>(),
        "skipped": verified.skipped.iter().map(skipped).collect::<Value>(),
    })
}

fn difference_as_json(difference: &Difference) -> Value {
    let row = match difference.row {
        RowDiffers::Changed => "changed",
        RowDiffers::Missing => "missing",
        RowDiffers::Added => "added",
    };
    let column = |ColumnDiffers { column, live, replayed }: &ColumnDiffers| json!({ "column": column, "live": live, "replayed": replayed });
    json!({
        "table": difference.table,
        "key": difference.key,
        "row": row,
        "columns": difference.columns.iter().map(column).collect::<Value>(),
    })
}
