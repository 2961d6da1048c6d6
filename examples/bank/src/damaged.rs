//! Lists that are printed: a row that can't be read takes no other with it. It is told at its place, on standard error, and makes the
//! command fail in the end.

use std::io::{self, Write};

use es_projections::DamagedRow;
use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Output, say, stdout};

/// The most damaged rows that JSON tells of.
const KEPT_MAX: usize = 1_000;

/// Rows that can't be read.
#[derive(Debug, Default)]
pub(crate) struct Damage {
    count: usize,
    kept: Vec<Value>,
}

impl Damage {
    /// Tells of one, behind so many items. What is printed before it was flushed.
    pub(crate) fn tell(&mut self, damaged: &DamagedRow, before: usize) {
        say(format_args!("bank: {damaged}"));
        self.count += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.push(json!({ "id": damaged.row, "before": before, "reason": damaged.reason }));
        }
    }

    /// A list without some of its rows is a failure, when all else was told.
    pub(crate) fn or_fail(&self, read_model: &str) -> Result<(), Failure> {
        let remedy = format!("build it anew with `bank rebuild {read_model}`");
        self.or_fail_with(&format!("read model {read_model}"), &remedy)
    }

    /// The same of another list, with what helps.
    pub(crate) fn or_fail_with(&self, list: &str, remedy: &str) -> Result<(), Failure> {
        let rows = match self.count {
            0 => return Ok(()),
            1 => "1 row".into(),
            count => format!("{count} rows"),
        };
        Err(Failure::new(format!("{rows} of {list} can't be read: {remedy}")))
    }
}

/// A list, in lines or as one JSON object.
pub(crate) struct Listing {
    out: Output,
    json: bool,
    count: usize,
    damage: Damage,
}

impl Listing {
    pub(crate) fn new(json: bool) -> Self {
        Self { out: stdout(), json, count: 0, damage: Damage::default() }
    }

    pub(crate) fn row<'a, T, S: Serialize>(
        &mut self,
        row: &'a Result<T, DamagedRow>,
        show: impl Fn(&'a T) -> S,
        print: impl Fn(&mut Output, &T) -> io::Result<()>,
    ) -> Result<(), Failure> {
        match row {
            Ok(row) => {
                if self.json {
                    let before = if self.count == 0 { "{\"items\":[" } else { ",\n" };
                    write!(self.out, "{before}{}", serde_json::to_string(&show(row))?)?;
                } else {
                    print(&mut self.out, row)?;
                }
                self.count += 1;
            }
            Err(damaged) => {
                self.out.flush()?;
                self.damage.tell(damaged, self.count);
            }
        }
        Ok(())
    }

    /// Whether nobody reads it any more.
    pub(crate) fn is_deserted(&self) -> bool {
        self.out.is_deserted()
    }

    /// Whether there was no row, damaged or not.
    pub(crate) fn is_empty(&self) -> bool {
        self.count + self.damage.count == 0
    }

    /// Tells where to go on, and gives what could not be read.
    pub(crate) fn end(mut self, next: Option<&str>) -> Result<Damage, Failure> {
        if self.json {
            let before = if self.count == 0 { "{\"items\":[" } else { "" };
            write!(self.out, "{before}]")?;
            if !self.damage.kept.is_empty() {
                write!(self.out, ",\"damaged\":{}", Value::from(self.damage.kept.clone()))?;
            }
            if let Some(next) = next {
                write!(self.out, ",\"next\":{}", Value::from(next))?;
            }
            writeln!(self.out, "}}")?;
        }
        self.out.flush()?;
        if let Some(next) = next.filter(|_| !self.json) {
            say(format_args!("there is more: --cursor {next}"));
        }
        Ok(self.damage)
    }
}
