//! An account as it was, and how it came to be what it is.

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use es_core::Version;
use es_projections::audit::{At, Past, Query};

use super::audit::json_of;
use super::commands::Id;
use super::problem::Problem;
use super::reading::{AsOf, Asked, Listed, Page, limit_of, query, shown};
use super::{App, headers, wait_for};
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
    let (past, before) = (Past::of(stream(account.key().clone())), PastAccount::absent(account.key()));
    let history = past.history_of(&app.database, &asked, before, PastAccount::fold).await?;
    if history.steps.is_empty() && read_model::account(&app.database, account.key()).await?.is_none() {
        return Err(Problem::account_not_found(account.as_str()));
    }
    Ok(json_of(&Listed { items: history.steps.iter().map(Told::of).collect(), next: history.next }))
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
    let (past, before) = (Past::of(stream(id.0.key().clone())), PastAccount::absent(id.0.key()));
    let then = past.fold_at(&app.database, &at, before, PastAccount::fold).await?;
    let row = then.ok_or_else(|| Problem::account_not_found(id.0.as_str()))?.state.0;
    let tag = format!("\"{}\"", row.version);
    Ok(([(header::ETAG, tag)], axum::Json(shown(row))).into_response())
}
