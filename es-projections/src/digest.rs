//! Whether two read models hold the same rows.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::sql::{Database, Row, Table, Value, names};

/// Rows of one query.
const PAGE: u32 = 2_000;
/// The most rows that are told.
const TOLD_MAX: usize = 5;

/// A digest over all rows of a read model: equal for equal rows, whatever order they were written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of tables.
pub(crate) async fn of(database: &Database, tables: &[Table]) -> Result<Digest, Error> {
    let mut hash = Sha256::new();
    for table in tables {
        // Adding up the rows' hashes makes the order in which a database sorts them irrelevant.
        let mut sum = [0; 32];
        let mut pages = Pages::of(database, table);
        while let Some(rows) = pages.next().await? {
            rows.iter().for_each(|row| add(&mut sum, &row_hash(row)));
        }
        hash.update(table.shape().as_bytes());
        hash.update(sum);
    }
    Ok(Digest(hash.finalize().into()))
}

/// The first rows of a table that are not the same in both, in words.
pub(crate) async fn differences(one: &Database, other: &Database, table: &Table) -> Result<Vec<String>, Error> {
    let mut told = Vec::new();
    let name = table.name();
    for (from, to, way) in [(one, other, true), (other, one, false)] {
        let mut pages = Pages::of(from, table);
        while let Some(rows) = pages.next().await? {
            let keys = rows.iter().map(|row| row.values()[..table.key_columns().len()].to_vec()).collect();
            let mut tx = to.begin().await?;
            let found = tx.load(table, keys).await?;
            tx.rollback().await?;
            for row in &rows {
                let key = &row.values()[..table.key_columns().len()];
                let same_key = |other: &&Row| other.values()[..key.len()] == *key;
                match (found.iter().find(same_key), way) {
                    (Some(there), true) if there.values() != row.values() => {
                        told.push(format!("{name} {}: {}", list(key), changes(table, row, there)));
                    }
                    (None, true) => told.push(format!("{name} {} is missing in the new one", list(key))),
                    (None, false) => told.push(format!("{name} {} is in the new one only", list(key))),
                    (Some(_), _) => {}
                }
                if told.len() == TOLD_MAX {
                    return Ok(told);
                }
            }
        }
    }
    Ok(told)
}

fn list(values: &[Value]) -> String {
    values.iter().map(Value::to_string).collect::<Vec<_>>().join("/")
}

fn changes(table: &Table, one: &Row, other: &Row) -> String {
    let pairs = table.columns().iter().zip(one.values()).zip(other.values());
    let differ = pairs.filter(|((_, one), other)| one != other);
    let tell = |((column, one), other): ((&crate::sql::Column, &Value), &Value)| {
        format!("{} is {one}, in the new one {other}", column.name)
    };
    differ.map(tell).collect::<Vec<_>>().join(", ")
}

fn row_hash(row: &Row) -> [u8; 32] {
    let mut hash = Sha256::new();
    for value in row.values() {
        // The kind matters where two values are written alike.
        let kind = value.kind().map_or(0, |kind| kind as u8 + 1);
        let text = match value {
            Value::Bytes(bytes) => bytes.clone(),
            other => other.to_string().into_bytes(),
        };
        hash.update([kind]);
        hash.update((text.len() as u64).to_be_bytes());
        hash.update(&text);
    }
    hash.finalize().into()
}

/// Adds numbers of 256 bits.
fn add(sum: &mut [u8; 32], term: &[u8; 32]) {
    let mut carry = 0;
    for (digit, more) in sum.iter_mut().zip(term).rev() {
        let total = u16::from(*digit) + u16::from(*more) + carry;
        (*digit, carry) = (total as u8, total >> 8);
    }
}

/// The rows of a table in the order of their keys.
struct Pages<'a> {
    database: &'a Database,
    table: &'a Table,
    /// The key of the last row; none before the first page.
    last: Option<Vec<Value>>,
    ended: bool,
}

impl<'a> Pages<'a> {
    fn of(database: &'a Database, table: &'a Table) -> Self {
        Self { database, table, last: None, ended: false }
    }

    async fn next(&mut self) -> Result<Option<Vec<Row>>, Error> {
        if self.ended {
            return Ok(None);
        }
        let (key, all) = (names(self.table.key_columns(), ""), names(self.table.columns(), ""));
        let behind = self.last.as_ref().map(|last| format!("WHERE ({key}) > ({})", vec!["?"; last.len()].join(", ")));
        let name = self.database.table_name(self.table.name());
        let sql = format!("SELECT {all} FROM {name} {} ORDER BY {key} LIMIT {PAGE}", behind.unwrap_or_default());
        let args = self.last.take().unwrap_or_default();
        let rows = self.database.fetch_declared(self.table, &sql, &args).await?;
        self.ended = rows.len() < PAGE as usize;
        self.last = rows.last().map(|row| row.values()[..self.table.key_columns().len()].to_vec());
        Ok(Some(rows))
    }
}
