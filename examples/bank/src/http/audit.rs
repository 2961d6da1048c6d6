//! The audit trail.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use es_core::AggregateKey;
use es_projections::audit::Query;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use super::reading::{Asked, Listed, limit_of, query};
use super::{App, headers, wait_for};
use crate::audit::{Shown, stream};
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

fn id<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str, text: Option<String>) -> Result<Option<T>, Problem> {
    let parse = |text: String| text.parse().map_err(|error| Problem::bad_request(format!("{name}: {error}")));
    text.map(parse).transpose()
}

fn time<T>(name: &str, text: Option<String>, parse: fn(&str) -> Result<T, String>) -> Result<Option<T>, Problem> {
    let parse = |text: String| parse(&text).map_err(|error| Problem::bad_request(format!("{name}: {error}")));
    text.map(parse).transpose()
}

/// What borrows from the rows must be written before they go.
pub(super) fn json_of(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => {
            let json = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, json)], Body::from(bytes)).into_response()
        }
        Err(error) => Problem::new(500, "internal-error", error.to_string()).into_response(),
    }
}
