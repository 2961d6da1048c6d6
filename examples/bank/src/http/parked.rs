//! Accounts whose commands are answered "parked": which they are, and trying them again.

use axum::Json;
use axum::extract::{Path, State};
use es_core::{Retried, RetryError};
use serde_json::{Value, json};

use super::App;
use super::problem::Problem;
use crate::domain::AccountId;

/// Those of the partitions that this process follows. Why is for operators, who read the log.
pub(super) async fn list(State(app): State<App>) -> Json<Value> {
    let parked: u64 = app.bus.status().iter().map(|partition| partition.parked).sum();
    let items: Vec<_> = app.bus.parked().iter().map(|parked| json!({ "id": parked.aggregate.as_str() })).collect();
    Json(json!({ "parked": parked, "items": items }))
}

/// Reads the account's events again, and lets it go on where they can be used now.
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Problem> {
    let account: AccountId = id.parse().map_err(|_| Problem::account_not_found(&id))?;
    match app.bus.retry_parked(account.key()).await? {
        Retried::Resumed => Ok(Json(json!({ "id": id, "resumed": true }))),
        Retried::NotParked => Ok(Json(json!({ "id": id, "resumed": false }))),
        Retried::Parked { reason } => Err(Problem::parked(&reason)),
    }
}

impl From<RetryError> for Problem {
    fn from(error: RetryError) -> Self {
        let detail = match &error {
            RetryError::NotServed { .. } => {
                "the account is not served by this process, so nothing was done: ask the others"
            }
            RetryError::Overtaken { .. } => {
                "another account went on while this one's events were read, so nothing was done: try again"
            }
            _ => "the account's events could not be read, and nothing was done",
        };
        Self::unavailable("not-ready", detail, &error)
    }
}
