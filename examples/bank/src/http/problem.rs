//! Problem documents (RFC 9457), and what each error is as one.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use es_core::{ExpectedVersion, InvalidCommand, NotDone, SendError};
use es_projections::Error;
use serde_json::json;
use uuid::Uuid;

use crate::domain::AccountError;

/// An answer that is not what was asked for.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after_s: Option<u64>,
    /// Under which the log tells what is not the client's to know.
    reference: Option<String>,
}

impl Problem {
    /// A problem with a status and a code, a word that stays the same.
    ///
    /// # Panics
    /// When `status` is none.
    pub(super) fn new(status: u16, code: &'static str, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).expect("each problem has a status that exists");
        Self { status, code, detail: detail.into(), retry_after_s: None, reference: None }
    }

    /// The request is not what it should be; the detail names the field.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(400, "bad-request", detail)
    }

    pub(super) fn account_not_found(id: &str) -> Self {
        Self::new(404, "account-not-found", format!("there is no account {id:?}"))
    }

    /// What is wrong with a question that has a client's words in it.
    pub(super) fn asked(error: Error) -> Self {
        match error {
            Error::Invalid(detail) => Self::bad_request(detail),
            error => error.into(),
        }
    }

    /// What is ours to mend: told in full in the log, and to the sender that it is there.
    pub(super) fn internal(error: &(dyn std::error::Error + 'static)) -> Self {
        let reference = reference();
        tracing::error!(error, reference, "a request failed");
        let detail = "the request failed for a reason that is in the log of the bank, under the reference";
        Self { reference: Some(reference), ..Self::new(500, "internal-error", detail) }
    }

    /// The account is parked; why is told in the log.
    pub(super) fn parked(why: &str) -> Self {
        let reference = reference();
        tracing::warn!(why, reference, "an account is parked");
        let detail =
            "the account's events can't be read by this release, so nothing was done: its operator must see to it";
        Self { reference: Some(reference), ..Self::new(423, "parked", detail) }
    }

    /// The same where trying again may help. Where the database is, and what it says, is nobody's to know.
    pub(super) fn unavailable(code: &'static str, detail: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let reference = reference();
        tracing::warn!(error, reference, "a request could not be answered");
        let detail = format!("{detail}: try again later; the log of the bank tells more under the reference");
        Self { reference: Some(reference), ..Self::try_again(code, detail) }
    }

    /// Nothing was done, and trying again helps.
    pub(super) fn try_again(code: &'static str, detail: impl Into<String>) -> Self {
        Self { retry_after_s: Some(1), ..Self::new(503, code, detail) }
    }
}

#[cfg(test)]
impl Problem {
    pub(super) fn status(&self) -> u16 {
        self.status.as_u16()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, detail, retry_after_s, reference } = self;
        let mut title = code.replace('-', " ");
        title[..1].make_ascii_uppercase();
        let kind = format!("urn:bank:problem:{code}");
        let mut body =
            json!({ "type": kind, "title": title, "status": status.as_u16(), "detail": detail, "code": code });
        if let Some(reference) = reference {
            body["reference"] = reference.into();
        }
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
        let detail = es_core::with_causes(&error);
        match error {
            SendError::Refused(refusal) => refusal.into(),
            SendError::Conflict { expected, actual } => {
                let why = match expected {
                    ExpectedVersion::NoStream => "and If-None-Match asks that nothing was recorded of it yet",
                    _ => "which If-Match does not name",
                };
                let detail = format!("the account is at version {actual}, {why}: nothing was done");
                Self::new(412, "version-mismatch", detail)
            }
            SendError::NotDone(NotDone::Overloaded { retry_after }) => {
                let seconds = retry_after.as_secs_f64().ceil() as u64;
                Self { retry_after_s: Some(seconds.max(1)), ..Self::try_again("overloaded", detail) }
            }
            SendError::NotDone(_) => {
                Self::unavailable("not-ready", "nothing was done: send it again with the same Idempotency-Key", &error)
            }
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
            SendError::Parked { .. } => Self::parked(&detail),
            error => Self::internal(&error),
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
            Error::Parked { projection, stream, .. } => {
                let detail =
                    format!("{stream} is parked in read model {projection} until it is seen to: see bank parked");
                Self::new(423, "parked", detail)
            }
            Error::Deadline { .. } => Self::try_again("not-caught-up", error.to_string()),
            Error::Stopped { .. } => Self::unavailable("not-ready", "a read model is not kept up here", &error),
            error if error.is_retryable() => {
                Self::unavailable("database-unavailable", "the database of the read models does not answer", error)
            }
            error => Self::internal(error),
        }
    }
}

/// Short enough to be told on the telephone.
pub(super) fn reference() -> String {
    format!("{:08x}", Uuid::new_v4().as_u128() >> 96)
}

#[cfg(test)]
mod tests {
    use es_core::Version;

    use super::*;

    const SECRET: &str = "postgres://bank@10.1.2.3:5432/bank";

    fn unavailable() -> Error {
        let source = Box::new(std::io::Error::other(format!("{SECRET} went away")));
        Error::Unavailable { doing: "a query".into(), database: SECRET.into(), source }
    }

    fn sql() -> Error {
        let source = Box::new(std::io::Error::other("relation bank_accounts does not exist"));
        Error::Sql { doing: "a query".into(), database: SECRET.into(), source }
    }

    /// Shows: what is the server's is told as such, with where the log tells of it, and with nothing of its insides.
    #[tokio::test]
    async fn faults_of_the_server_tell_nothing_of_its_insides() {
        for (error, status) in [
            (unavailable(), 503),
            (sql(), 500),
            (Error::Invalid("column \"status\" is read as text, but holds null".into()), 500),
            (Error::Damaged("column \"status\" holds \"x\"".into()), 500),
            (Error::Stopped { projection: "accounts".into(), source: Some(std::sync::Arc::new(unavailable())) }, 503),
        ] {
            let response = Problem::from(error).into_response();
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().contains_key(header::RETRY_AFTER), status == 503);
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            let text = std::str::from_utf8(&body).unwrap();
            assert!(text.contains("\"reference\":\""), "{text}");
            for secret in ["postgres", "10.1.2.3", "column", "relation", "went away"] {
                assert!(!text.contains(secret), "{text}");
            }
        }
        assert_eq!(Problem::asked(Error::Invalid("limit 0".into())).status(), 400);
        assert_eq!(Problem::asked(sql()).status(), 500);
    }

    /// Shows: a sender is told of the header that it sent, and not of another.
    #[test]
    fn a_version_mismatch_names_the_header() {
        let actual = Version::new(3);
        for (expected, header, other) in [
            (ExpectedVersion::NoStream, "If-None-Match", "If-Match"),
            (ExpectedVersion::Exactly(Version::new(2)), "If-Match", "If-None-Match"),
        ] {
            let problem = Problem::from(SendError::Conflict { expected, actual });
            assert_eq!((problem.status(), problem.code), (412, "version-mismatch"));
            assert!(problem.detail.contains(header) && !problem.detail.contains(other), "{}", problem.detail);
        }
    }

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
