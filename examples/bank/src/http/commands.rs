//! Requests that change something.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use super::App;
use super::body::{self, amount, amount_or_zero, optional_amount, optional_text, text};
use super::headers::CommandHeaders;
use super::problem::Problem;
use crate::domain::{AccountCommand, AccountId, Money};

const POSITION: HeaderName = HeaderName::from_static("es-position");

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Open {
    #[serde(default)]
    id: Option<String>,
    #[serde(deserialize_with = "text")]
    owner: String,
    #[serde(default, deserialize_with = "amount_or_zero")]
    overdraft_limit: Money,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deposit {
    #[serde(deserialize_with = "amount")]
    amount: Money,
    #[serde(default, deserialize_with = "optional_text")]
    reference: Option<String>,
    #[cfg(next_release)]
    #[serde(default, deserialize_with = "optional_text")]
    note: Option<String>,
}

impl From<Deposit> for AccountCommand {
    fn from(deposit: Deposit) -> Self {
        Self::Deposit {
            amount: deposit.amount,
            reference: deposit.reference,
            #[cfg(next_release)]
            note: deposit.note,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Withdrawal {
    #[serde(deserialize_with = "amount")]
    amount: Money,
    #[serde(default, deserialize_with = "optional_text")]
    reference: Option<String>,
    #[serde(default, deserialize_with = "optional_amount")]
    fee: Option<Money>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Serialize)]
struct Answer {
    id: String,
    version: u64,
    position: String,
    duplicate: bool,
}

pub(super) async fn open(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, Problem> {
    let command = CommandHeaders::of(&headers)?;
    let Open { id, owner, overdraft_limit } = body::object(&headers, body).await?;
    let id = id.unwrap_or_else(|| command.new_id().to_string());
    let id: AccountId = id.parse().map_err(|error| Problem::bad_request(format!("id: {error}")))?;
    let location = format!("/api/accounts/{}", utf8_percent_encode(id.as_str(), NON_ALPHANUMERIC));
    reserve(&app, &id, &command, &owner, overdraft_limit).await?;
    let open = AccountCommand::Open { owner, overdraft_limit, branch: None };
    let mut response = send(&app, &id, &command, open).await?;
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// A key is known to the account that it was used for, so another account would not know that it is used again. Where
/// the body names the account, the account that is made of the key keeps what the key stands for. That one costs a
/// round more, which the other commands don't pay: their account is in the path.
async fn reserve(
    app: &App,
    id: &AccountId,
    headers: &CommandHeaders,
    owner: &str,
    overdraft_limit: Money,
) -> Result<(), Problem> {
    let Some(keeper) = headers.id_of_key().map(|id| id.to_string()).filter(|keeper| keeper != id.as_str()) else {
        return Ok(());
    };
    let keeper: AccountId = keeper.parse().map_err(|error| Problem::bad_request(format!("id: {error}")))?;
    let reserve = AccountCommand::Reserve { id: id.to_string(), owner: owner.into(), overdraft_limit };
    headers.identify(app.bus.send(&keeper, reserve)).await?;
    Ok(())
}

pub(super) async fn deposit(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let command = CommandHeaders::of(&headers)?;
    let deposit: Deposit = body::object(&headers, body).await?;
    send(&app, &id, &command, deposit.into()).await
}

pub(super) async fn withdraw(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let command = CommandHeaders::of(&headers)?;
    let Withdrawal { amount, reference, fee } = body::object(&headers, body).await?;
    send(&app, &id, &command, AccountCommand::Withdraw { amount, reference, fee }).await
}

pub(super) async fn close(
    State(app): State<App>,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let command = CommandHeaders::of(&headers)?;
    let Nothing {} = body::object_or_nothing(&headers, body).await?;
    send(&app, &id, &command, AccountCommand::Close).await
}

async fn send(
    app: &App,
    id: &AccountId,
    headers: &CommandHeaders,
    command: AccountCommand,
) -> Result<Response, Problem> {
    let receipt = headers.send(|| app.bus.send(id, command.clone())).await?;
    let position = receipt.position.to_string();
    let header = [(POSITION, position.clone())];
    let (version, duplicate) = (receipt.version.get(), receipt.duplicate);
    let answer = Answer { id: id.to_string(), version, position, duplicate };
    Ok((StatusCode::CREATED, header, Json(answer)).into_response())
}

/// The account id of the path. What can't be the id of an account is that of none.
pub(super) struct Id(pub(super) AccountId);

impl FromRequestParts<App> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let path: Result<Path<String>, PathRejection> = Path::from_request_parts(parts, app).await;
        let Path(id) = path.map_err(|rejection| Problem::bad_request(rejection.body_text()))?;
        id.parse().map(Id).map_err(|_| Problem::account_not_found(&id))
    }
}
