//! Accounts as the read model has them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use es_core::{AggregateKey, Version};
use es_projections::audit::LIMIT_MAX;
use serde::{Deserialize, Serialize};

use super::commands::Id;
use super::problem::{self, Problem};
use super::{App, headers, past, tags, wait_for};
use crate::read_model::{self, AccountRow};

const LIMIT: u32 = 100;

/// The query of a request, or what is wrong with it.
pub(super) type Asked<T> = Result<Query<T>, QueryRejection>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    pub(super) limit: Option<u32>,
    pub(super) cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AsOf {
    pub(super) at: Option<String>,
    pub(super) version: Option<String>,
}

#[derive(Debug, Serialize)]
pub(super) struct Listed<T> {
    pub(super) items: Vec<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
    /// What can't be read, and so is not among the items.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) damaged: Vec<Damaged>,
}

#[derive(Debug, Serialize)]
pub(super) struct Damaged {
    id: String,
    /// Under which the log tells what is wrong.
    reference: String,
}

impl Damaged {
    pub(super) fn new(id: String, damage: &(dyn std::error::Error + 'static)) -> Self {
        let reference = problem::reference();
        tracing::error!(id, error = damage, reference, "a row can't be read");
        Self { id, reference }
    }
}

#[derive(Debug, Serialize)]
pub(super) struct Shown {
    id: AggregateKey,
    owner: String,
    balance: i64,
    overdraft_limit: i64,
    status: &'static str,
    /// Null where no version left it so: at a business time before that of events that were recorded in between.
    version: Option<u64>,
    /// How many events these are.
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<u64>,
}

impl Shown {
    /// The same as of some time.
    pub(super) fn of_past(self, version: Option<Version>, left_out: u64) -> Self {
        Self { version: version.map(Version::get), left_out: (left_out > 0).then_some(left_out), ..self }
    }
}

pub(super) async fn list(
    State(app): State<App>,
    headers: HeaderMap,
    asked: Asked<Page>,
) -> Result<Json<Listed<Shown>>, Problem> {
    let Page { limit, cursor } = query(asked)?;
    let limit = limit_of(limit)?;
    let after = cursor.map(|cursor| decode(&cursor)).transpose()?;
    wait_for(&app.accounts, headers::position(&headers)?).await?;
    let mut rows = read_model::accounts_after(&app.database, after.as_ref(), limit + 1).await?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows.last().filter(|_| more).map(|(last, _)| encode(last.as_str()));
    let (mut items, mut damaged) = (Vec::with_capacity(rows.len()), Vec::new());
    for (id, row) in rows {
        match row {
            Ok(row) => items.push(shown(row)),
            Err(damage) => damaged.push(Damaged::new(id.to_string(), &damage)),
        }
    }
    Ok(Json(Listed { items, next, damaged }))
}

pub(super) async fn one(
    State(app): State<App>,
    id: Id,
    headers: HeaderMap,
    asked: Asked<AsOf>,
) -> Result<Response, Problem> {
    let as_of = query(asked)?;
    if as_of.at.is_some() || as_of.version.is_some() {
        return past::account(&app, &id, &headers, as_of).await;
    }
    let Id(id) = id;
    wait_for(&app.accounts, headers::position(&headers)?).await?;
    let row = read_model::account(&app.database, id.key()).await?;
    let row = row.ok_or_else(|| Problem::account_not_found(id.as_str()))?;
    tags::tagged(&headers, row.version, Json(shown(row)))
}

/// The query, or a problem that names what is wrong.
pub(super) fn query<T>(asked: Asked<T>) -> Result<T, Problem> {
    asked.map(|Query(query)| query).map_err(|rejection| Problem::bad_request(rejection.body_text()))
}

pub(super) fn limit_of(limit: Option<u32>) -> Result<u32, Problem> {
    let limit = limit.unwrap_or(LIMIT);
    let wrong = || Problem::bad_request(format!("limit: {limit} is not between 1 and {LIMIT_MAX}"));
    if (1..=LIMIT_MAX).contains(&limit) { Ok(limit) } else { Err(wrong()) }
}

pub(super) fn shown(row: AccountRow) -> Shown {
    Shown {
        id: row.id,
        owner: row.owner,
        balance: row.balance.get(),
        overdraft_limit: row.overdraft_limit.get(),
        status: row.status.as_str(),
        version: Some(row.version.get()),
        left_out: None,
    }
}

/// A cursor is the last id in hexadecimal: nothing to be taken apart, and fit for a URL.
fn encode(id: &str) -> String {
    id.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn decode(cursor: &str) -> Result<AggregateKey, Problem> {
    let pairs = cursor.as_bytes().chunks(2).map(|pair| {
        let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
        u8::from_str_radix(digits, 16).ok()
    });
    let bytes: Option<Vec<u8>> = pairs.collect();
    let id = bytes.and_then(|bytes| AggregateKey::new(String::from_utf8(bytes).ok()?).ok());
    id.ok_or_else(|| Problem::bad_request(format!("cursor: {cursor:?} is not one of this list")))
}
