//! Accounts as the read model has them.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use es_core::{AggregateKey, Version};
use es_projections::audit::LIMIT_MAX;
use es_projections::{After, Readable};
use serde::{Deserialize, Serialize};

use super::commands::Id;
use super::damaged::listed;
use super::problem::Problem;
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

pub(super) async fn list(State(app): State<App>, headers: HeaderMap, asked: Asked<Page>) -> Result<Response, Problem> {
    let Page { limit, cursor } = query(asked)?;
    let limit = limit_of(limit)?;
    let after = cursor.map_or(Ok(After::default()), |cursor| decode(&cursor))?;
    wait_for(&app.accounts, headers::position(&headers)?).await?;
    let Readable { items, next } = app.database.page::<AccountRow>(&after, limit).await?;
    Ok(listed(&Readable { items, next: next.as_ref().map(encode) }, |row| shown(row.clone())))
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

/// A cursor is the last id in hexadecimal, and how many rows behind it can't be read: nothing to be taken apart, and fit for a URL.
fn encode(After { key, damaged }: &After<AggregateKey>) -> String {
    let id: String = key.iter().flat_map(|id| id.as_str().bytes()).map(|byte| format!("{byte:02x}")).collect();
    if *damaged == 0 { id } else { format!("{id}-{damaged}") }
}

fn decode(cursor: &str) -> Result<After<AggregateKey>, Problem> {
    let read = || {
        let (id, damaged) = match cursor.split_once('-') {
            Some((id, damaged)) => (id, damaged.parse().ok().filter(|damaged| *damaged > 0)?),
            None => (cursor, 0),
        };
        if id.is_empty() && damaged > 0 {
            return Some(After { key: None, damaged });
        }
        let pairs = id.as_bytes().chunks(2).map(|pair| {
            let digits = std::str::from_utf8(pair).ok().filter(|pair| pair.len() == 2)?;
            u8::from_str_radix(digits, 16).ok()
        });
        let bytes: Option<Vec<u8>> = pairs.collect();
        let key = AggregateKey::new(String::from_utf8(bytes?).ok()?).ok()?;
        Some(After { key: Some(key), damaged })
    };
    read().ok_or_else(|| Problem::bad_request(format!("cursor: {cursor:?} is not one of this list")))
}
