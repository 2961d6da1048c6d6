//! Lists, in which a row that can't be read takes no other with it.

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use es_projections::{DamagedRow, Readable};
use serde::Serialize;

use super::problem::{self, Problem};

/// How often a row was listed that can't be read.
static TOLD: AtomicU64 = AtomicU64::new(0);

#[derive(Debug, Serialize)]
struct Listed<'a, T> {
    items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
    /// What can't be read, and so is not among the items.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    damaged: Vec<Damaged>,
}

#[derive(Debug, Serialize)]
struct Damaged {
    /// Which row it is, as far as that can be read.
    id: String,
    /// How many of the items come first.
    before: usize,
    /// Under which the log tells what is wrong.
    reference: String,
}

impl Damaged {
    fn new(damaged: &DamagedRow, before: usize) -> Self {
        let (id, reference) = (damaged.row.clone(), problem::reference());
        TOLD.fetch_add(1, Ordering::Relaxed);
        tracing::error!(row = id, damage = damaged.reason, reference, "a row can't be read");
        Self { id, before, reference }
    }
}

/// How often a row was listed that can't be read, since the start.
pub(super) fn told() -> u64 {
    TOLD.load(Ordering::Relaxed)
}

/// A page as JSON. Each damaged row has its place, its id and a line in the log.
pub(super) fn listed<'a, T, S: Serialize>(page: &'a Readable<T, String>, show: impl Fn(&'a T) -> S) -> Response {
    let (mut items, mut damaged) = (Vec::with_capacity(page.items.len()), Vec::new());
    for row in &page.items {
        match row {
            Ok(row) => items.push(show(row)),
            Err(row) => damaged.push(Damaged::new(row, items.len())),
        }
    }
    // What borrows from the rows must be written before they go.
    match serde_json::to_vec(&Listed { items, next: page.next.as_deref(), damaged }) {
        Ok(bytes) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], Body::from(bytes)).into_response()
        }
        Err(error) => Problem::internal(&error).into_response(),
    }
}
