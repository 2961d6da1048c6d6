//! The audit trail and the history of an account.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use es_core::{AggregateKey, Json as JsonCodec, codec};
use es_projections::audit::{Entry, Query};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::commands::Id;
use super::problem::Problem;
use super::reading::{Asked, Listed, Page, limit_of, query};
use super::{App, headers, wait_for};
use crate::audit::{Shown, stream};
use crate::domain::AccountEvent;
use crate::read_model;
use crate::time::{end_of, start_of};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    account: Option<String>,
    actor: Option<String>,
    correlation: Option<String>,
    #[serde(rename = "type")]
    event_type: Option<String>,
    from: Option<String>,
    to: Option<String>,
    limit: Option<u32>,
    cursor: Option<String>,
}

/// An event of an account with what it changed.
#[derive(Debug, Serialize)]
struct Changed<'a> {
    #[serde(flatten)]
    event: Shown<'a>,
    changed: Value,
}

pub(super) async fn trail(
    State(app): State<App>,
    headers: HeaderMap,
    asked: Asked<Filter>,
) -> Result<Response, Problem> {
    let filter = query(asked)?;
    let asked = Query {
        aggregate: id::<AggregateKey>("account", filter.account)?.map(stream),
        actor: id("actor", filter.actor)?,
        correlation: id("correlation", filter.correlation)?,
        event_type: filter.event_type,
        from: time("from", filter.from, start_of)?,
        to: time("to", filter.to, end_of)?,
        limit: limit_of(filter.limit)?,
        cursor: filter.cursor,
        ..Query::default()
    };
    wait_for(&app.audit, headers::position(&headers)?).await?;
    let page = asked.run(&app.database).await?;
    Ok(json_of(&Listed { items: page.entries.iter().map(Shown::of).collect(), next: page.next }))
}

pub(super) async fn history(
    State(app): State<App>,
    Id(account): Id,
    headers: HeaderMap,
    asked: Asked<Page>,
) -> Result<Response, Problem> {
    let Page { limit, cursor } = query(asked)?;
    let aggregate = id::<AggregateKey>("id", Some(account.to_string()))?.map(stream);
    let asked = Query { aggregate, limit: limit_of(limit)?, cursor, ..Query::default() };
    wait_for(&app.audit, headers::position(&headers)?).await?;
    let page = asked.run(&app.database).await?;
    if page.entries.is_empty() && read_model::account(&app.database, account.key()).await?.is_none() {
        return Err(Problem::account_not_found(account.as_str()));
    }
    let items = page.entries.iter().map(|entry| Changed { event: Shown::of(entry), changed: changed(entry) });
    Ok(json_of(&Listed { items: items.collect(), next: page.next }))
}

/// The fields that an event changed: by how much, or to what. Null for an event that this release does not know.
fn changed(entry: &Entry) -> Value {
    let event = &entry.recorded.envelope;
    let event = codec::decode_event::<JsonCodec, AccountEvent>(&event.event_type, event.schema_version, &event.payload);
    match event {
        Ok(AccountEvent::Opened { owner, overdraft_limit, branch }) => {
            let mut changed = json!({
                "status": { "to": "open" }, "owner": { "to": owner }, "overdraft_limit": { "to": overdraft_limit }
            });
            if let Some(branch) = branch {
                changed["branch"] = json!({ "to": branch });
            }
            changed
        }
        Ok(event @ (AccountEvent::Deposited { .. } | AccountEvent::Withdrawn { .. })) => {
            json!({ "balance": { "by": event.balance_change() } })
        }
        Ok(AccountEvent::Closed) => json!({ "status": { "to": "closed" } }),
        Err(_) => Value::Null,
    }
}

fn id<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: Option<String>) -> Result<Option<T>, Problem> {
    let parse = |text: String| text.parse().map_err(|error| Problem::bad_request(format!("{name}: {error}")));
    text.map(parse).transpose()
}

fn time<T>(name: &str, text: Option<String>, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
    let parse = |text: String| parse(&text).map_err(|error| Problem::bad_request(format!("{name}: {error}")));
    text.map(parse).transpose()
}

/// What borrows from the rows must be written before they go.
fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], Body::from(bytes)).into_response()
        }
        Err(error) => Problem::new(500, "internal-error", error.to_string()).into_response(),
    }
}
