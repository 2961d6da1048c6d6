//! Problem documents (RFC 9457), and what each error is as one.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use es_core::{InvalidCommand, NotDone, SendError};
use es_projections::Error;
use serde_json::json;

use crate::domain::AccountError;
use crate::failure::chain;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a status and a code, a word that stays the same.
    ///
    /// # Panics
    /// When `status` is none.
    pub(super) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("each problem has a status that exists");
        Self { status, code, detail: detail.into(), retry_after_s: None }
    }

    /// The request is not what it should be; the detail names the field.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", detail)
    }

    pub(super) fn account_not_found(id: &str) -> Self {
        Self::new(404, "account-not-found", format!("there is no account {id:?}"))
    }

    /// Nothing was done, and trying again helps.
    pub(super) fn try_again(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(503, code, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, retry_after_s } = self;
        let mut title = code.replace('-', " ");
        title[..1].make_ascii_uppercase();
        let kind = format!("urn:bank:problem:{code}");
        let body = json!({ "type": kind, "title": title, "status": status.as_u16(), "detail": detail, "code": code });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<SendError<AccountError>> for Problem {
    fn from(error: SendError<AccountError>) -> Self {
        let detail = chain(&error);
        match error {
            SendError::Refused(refusal) => refusal.into(),
            SendError::Conflict { .. } => Self::new(412, "version-mismatch", detail),
            SendError::NotDone(NotDone::Overloaded { retry_after }) => {
                let seconds = retry_after.as_secs_f64().ceil() as u64;
                Self { retry_after_s: Some(seconds.max(1)), ..Self::try_again("overloaded", detail) }
            }
            SendError::NotDone(_) => Self::try_again("not-ready", detail),
            SendError::OutcomeUnknown { .. } => {
                let again = "send it again with the same Idempotency-Key to learn whether it happened";
                Self::new(504, "outcome-unknown", format!("the answer took too long: {again}"))
            }
            SendError::CommandIdReused => {
                let detail = "this Idempotency-Key was used before with another body: give each command its own";
                Self::new(422, "idempotency-key-reused", detail)
            }
            SendError::Invalid(InvalidCommand::TooLarge { .. }) => Self::new(413, "too-large", detail),
            SendError::Invalid(_) => Self::bad_request(detail),
            SendError::Parked { .. } => Self::new(423, "parked", detail),
            error => internal(&error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(refusal: AccountError) -> Self {
        let (status, code) = match &refusal {
            AccountError::AlreadyOpen => (409, "account-exists"),
            AccountError::NotFound => (404, "account-not-found"),
            AccountError::Closed => (422, "account-closed"),
            AccountError::AmountNotPositive { .. } => (422, "amount-not-positive"),
            AccountError::OverdraftNegative { .. } => (422, "overdraft-negative"),
            AccountError::InsufficientFunds { .. } => (422, "insufficient-funds"),
            AccountError::BalanceTooLarge { .. } => (422, "balance-too-large"),
            AccountError::BalanceNotZero { .. } => (422, "balance-not-zero"),
        };
        Self::new(status, code, refusal.to_string())
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        match &error {
            Error::Invalid(detail) => Self::bad_request(detail),
            Error::Parked { projection, stream, .. } => {
                let detail =
                    format!("{stream} is parked in read model {projection} until it is seen to: see bank parked");
                Self::new(423, "parked", detail)
            }
            Error::Deadline { .. } => Self::try_again("not-caught-up", error.to_string()),
            Error::Stopped { .. } => Self::try_again("not-ready", error.to_string()),
            error if error.is_retryable() => Self::try_again("database-unavailable", error.to_string()),
            error => internal(error),
        }
    }
}

/// What is ours to mend: told in full in the log, not to the sender.
fn internal(error: &(dyn std::error::Error + 'static)) -> Problem {
    tracing::error!(error, "a request failed");
    Problem::new(500, "internal-error", "the request failed for a reason that is in the log of the bank")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows: who waits for an event that is parked is told so, and not that it is visible or will be soon.
    #[test]
    fn a_parked_account_is_423() {
        let error =
            Error::Parked { projection: "accounts".into(), stream: "account-7".into(), reason: "too large".into() };
        let problem = Problem::from(error);
        assert_eq!((problem.status.as_u16(), problem.code), (423, "parked"));
        assert_eq!(problem.detail, "account-7 is parked in read model accounts until it is seen to: see bank parked");
    }
}
