//! Lists in which a row that can't be read takes no other with it.

use std::fmt;

use crate::error::Error;

/// A row that can't be read: it holds what no worker wrote there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedRow {
    /// Which row it is, as far as that can be read.
    pub row: String,
    /// What is wrong with it.
    pub reason: String,
}

impl DamagedRow {
    /// Of what reading it gave; only damage is the row's, all else ends the list.
    pub(crate) fn of<T>(read: Result<T, Error>, row: impl FnOnce() -> String) -> Result<Result<T, Self>, Error> {
        match read {
            Ok(read) => Ok(Ok(read)),
            Err(Error::Damaged(reason)) => Ok(Err(Self { row: row(), reason })),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for DamagedRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} can't be read: {}", self.row, self.reason)
    }
}

impl std::error::Error for DamagedRow {}

/// A page of a list, where each row that can't be read is told at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readable<T, C> {
    /// What the page holds, in its order.
    pub items: Vec<Result<T, DamagedRow>>,
    /// Where the next page begins, behind what can't be read, too; none if there is none.
    pub next: Option<C>,
}

impl<T, C> Readable<T, C> {
    /// The items, if all of them can be read.
    ///
    /// # Errors
    /// [`Error::Damaged`] with the first that can't.
    pub fn all(self) -> Result<(Vec<T>, Option<C>), Error> {
        let all: Result<Vec<T>, DamagedRow> = self.items.into_iter().collect();
        all.map(|items| (items, self.next)).map_err(|damaged| Error::Damaged(damaged.to_string()))
    }
}

/// Where a page of the rows of a read model begins, which are in the order of their keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct After<K> {
    /// Behind the row of this key; at the first row without one.
    pub key: Option<K>,
    /// Behind so many more that can't be read.
    pub damaged: u32,
}

impl<K> Default for After<K> {
    fn default() -> Self {
        Self { key: None, damaged: 0 }
    }
}

impl<K> From<K> for After<K> {
    fn from(key: K) -> Self {
        Self { key: Some(key), damaged: 0 }
    }
}
