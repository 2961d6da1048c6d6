//! Bodies of requests: bounded, and read strictly.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use futures::StreamExt;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, de};

use super::problem::Problem;
use crate::domain::Money;

const BODY_MAX: usize = 64 << 10;
/// What is read of a body that is too large, so that its sender comes to read the answer.
const DRAIN_MAX: usize = 32 << 20;
/// How long a sender may take for a body.
const BODY_WITHIN: Duration = if cfg!(test) { Duration::from_millis(300) } else { Duration::from_secs(30) };
const TEXT_MAX: usize = 200;

/// Reads a JSON object.
pub(super) async fn object<T: DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = read(body).await?;
    must_be_json(headers)?;
    parse(&bytes)
}

/// Reads a body that may be left out.
pub(super) async fn object_or_nothing<T: DeserializeOwned + Default>(
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Problem> {
    let bytes = read(body).await?;
    if bytes.is_empty() && !headers.contains_key(header::CONTENT_TYPE) {
        return Ok(T::default());
    }
    must_be_json(headers)?;
    if bytes.is_empty() { Ok(T::default()) } else { parse(&bytes) }
}

/// What a form of any page may send is not taken for JSON, whatever it holds.
fn must_be_json(headers: &HeaderMap) -> Result<(), Problem> {
    let mut given = headers.get_all(header::CONTENT_TYPE).iter();
    let (first, more) = (given.next().and_then(|value| value.to_str().ok()), given.next());
    let kind = first.map(|value| value.split(';').next().unwrap_or_default().trim());
    match kind {
        Some(kind) if more.is_none() && kind.eq_ignore_ascii_case("application/json") => Ok(()),
        _ => {
            let found = first.map_or_else(|| "missing".into(), |kind| format!("{kind:?}"));
            let detail = format!("Content-Type: it is {found}, and must be application/json");
            Err(Problem::new(415, "unsupported-media-type", detail))
        }
    }
}

pub(super) async fn read(body: Body) -> Result<Vec<u8>, Problem> {
    let late = || Problem::new(408, "request-timeout", format!("the body did not come within {BODY_WITHIN:?}"));
    tokio::time::timeout(BODY_WITHIN, read_bounded(body)).await.map_err(|_| late())?
}

async fn read_bounded(body: Body) -> Result<Vec<u8>, Problem> {
    let (mut stream, mut bytes, mut read) = (body.into_data_stream(), Vec::new(), 0);
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| Problem::bad_request(format!("the body can't be read: {error}")))?;
        read += chunk.len();
        if read <= BODY_MAX {
            bytes.extend_from_slice(&chunk);
        } else if read > DRAIN_MAX {
            break;
        }
    }
    let too_large = || Problem::new(413, "too-large", format!("the body has more than {BODY_MAX} bytes"));
    if read <= BODY_MAX { Ok(bytes) } else { Err(too_large()) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // Serde would take an array as the fields in their order, which is no interface of ours.
    if bytes.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::bad_request("the body is not a JSON object"));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        // The path of an object that ends too early has no name.
        let place = if matches!(path.as_str(), "." | "?") { String::new() } else { format!("{path}: ") };
        Problem::bad_request(format!("{place}{}", error.into_inner()))
    })?;
    json.end().map_err(|error| Problem::bad_request(format!("the body goes on behind its object: {error}")))?;
    Ok(value)
}

/// From 1 to the largest amount.
pub(super) fn amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    number(deserializer, 1)
}

/// The same, where it is given.
pub(super) fn optional_amount<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Money>, D::Error> {
    #[derive(Deserialize)]
    struct Amount(#[serde(deserialize_with = "amount")] Money);
    Ok(Option::<Amount>::deserialize(deserializer)?.map(|Amount(money)| money))
}

/// From 0 to the largest amount.
pub(super) fn amount_or_zero<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Money, D::Error> {
    number(deserializer, 0)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, least: i64) -> Result<Money, D::Error> {
    let number = i64::deserialize(deserializer);
    let money = number.ok().and_then(|number| Money::new(number).ok()).filter(|money| money.get() >= least);
    money.ok_or_else(|| de::Error::custom(format!("it is not a whole number from {least} to {}", Money::MAX)))
}

/// A text of 1 to 200 characters without control characters.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    check_text(String::deserialize(deserializer)?)
}

/// The same, where it is given.
pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer)?.map(check_text).transpose()
}

fn check_text<E: de::Error>(text: String) -> Result<String, E> {
    let chars = text.chars().count();
    if chars == 0 || chars > TEXT_MAX {
        return Err(E::custom(format!("it has {chars} characters, not 1 to {TEXT_MAX}")));
    }
    if text.chars().any(char::is_control) { Err(E::custom("it holds a control character")) } else { Ok(text) }
}
