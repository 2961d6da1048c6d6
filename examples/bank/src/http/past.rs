//! An account as it was, and how it came to be what it is.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use es_core::Version;
use es_projections::audit::{At, Past, Query};

use super::commands::Id;
use super::damaged::listed;
use super::problem::Problem;
use super::reading::{AsOf, Asked, Page, limit_of, query, shown};
use super::{App, headers, tags, wait_for};
use crate::audit::stream;
use crate::past::Told;
use crate::read_model::{self, PastAccount};
use crate::time::last_of;

/// Its events, the newest first, each with what it changed.
pub(super) async fn history(
    State(app): State<App>,
    Id(account): Id,
    headers: HeaderMap,
    asked: Asked<Page>,
) -> Result<Response, Problem> {
    let Page { limit, cursor } = query(asked)?;
    let asked = Query { limit: limit_of(limit)?, cursor, ..Query::default() };
    wait_for(&app.audit, headers::position(&headers)?).await?;
    let past = Past::of(stream(account.key().clone()));
    let history = past.history_readable::<PastAccount>(&app.database, &asked).await.map_err(Problem::asked)?;
    if history.items.is_empty() && read_model::account(&app.database, account.key()).await?.is_none() {
        return Err(Problem::account_not_found(account.as_str()));
    }
    Ok(listed(&history, Told::of))
}

/// The account as a version left it, or as it was at the end of a business time.
pub(super) async fn account(app: &App, id: &Id, headers: &HeaderMap, as_of: AsOf) -> Result<Response, Problem> {
    let at = match as_of {
        AsOf { at: Some(time), version: None } => {
            let time = last_of(&time).map_err(|error| Problem::bad_request(format!("at: {error}")))?;
            At::Occurred(time)
        }
        AsOf { at: None, version: Some(version) } => {
            let wrong = |_| Problem::bad_request(format!("version: {version:?} is not a number from 1 on"));
            At::Version(Version::new(version.parse().map_err(wrong)?))
        }
        _ => return Err(Problem::bad_request("at and version: only one of them can be given")),
    };
    wait_for(&app.audit, headers::position(headers)?).await?;
    let past = Past::of(stream(id.0.key().clone()));
    let then = past.state_at::<PastAccount>(&app.database, &at).await.map_err(Problem::asked)?;
    let then = then.ok_or_else(|| Problem::account_not_found(id.0.as_str()))?;
    let (version, left_out) = (then.version(), then.left_out);
    let account = axum::Json(shown(then.state.0).of_past(version, left_out));
    match version {
        Some(version) => tags::tagged(headers, version, account),
        // What no version left so has no tag.
        None => Ok(account.into_response()),
    }
}
