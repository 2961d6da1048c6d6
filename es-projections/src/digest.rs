//! A digest over the rows of a table, whatever order they are in.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::pages::{Pages, Side};
use crate::sql::{Database, Row, Table, Value};

/// A digest over all rows of a read model, or of one of its tables: equal for equal rows, whatever order they were written in,
/// and whichever database they are in.
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
        let mut sum = Sum::default();
        let (mut pages, mut side) = (Pages::of(table), Side::Now(database));
        while let Some(rows) = pages.next(&mut side).await? {
            rows.iter().for_each(|row| sum.add(&row_hash(row)));
        }
        hash.update(table.columns_text().as_bytes());
        hash.update(sum.hashes);
    }
    Ok(Digest(hash.finalize().into()))
}

/// How many rows there are, and what their hashes add up to: that makes the order in which a database sorts them irrelevant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) rows: u64,
    hashes: [u8; 32],
}

impl Sum {
    /// Adds numbers of 256 bits.
    pub(crate) fn add(&mut self, hash: &[u8; 32]) {
        self.rows += 1;
        let mut carry = 0;
        for (digit, more) in self.hashes.iter_mut().zip(hash).rev() {
            let total = u16::from(*digit) + u16::from(*more) + carry;
            (*digit, carry) = (total as u8, total >> 8);
        }
    }

    /// The digest of the table that has these rows.
    pub(crate) fn digest(&self, table: &Table) -> Digest {
        Digest(Sha256::new().chain_update(table.columns_text()).chain_update(self.hashes).finalize().into())
    }
}

pub(crate) fn row_hash(row: &Row) -> [u8; 32] {
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
