//! The audit trail.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use es_core::{AggregateKey, Event};
use es_projections::audit::{Query, RefusedQuery};

use super::damaged::listed;
use super::problem::Problem;
use super::reading::{Asked, limit_of, query};
use super::{App, headers, wait_for};
use crate::audit::{Shown, stream};
use crate::domain::AccountEvent;
use crate::refused::ShownRefused;
use crate::time::{end_of, start_of};

pub(super) async fn trail(
    State(app): State<App>,
    headers: HeaderMap,
    asked: Asked<Vec<(String, String)>>,
) -> Result<Response, Problem> {
    let mut parameters = Parameters(query(asked)?);
    match parameters.one("refused")?.as_deref() {
        None | Some("false") => {}
        Some("true") => return refused(app, headers, parameters).await,
        Some(other) => return Err(Problem::bad_request(format!("refused: {other:?} is neither true nor false"))),
    }
    let asked = asked_of(&mut parameters)?;
    parameters.end()?;
    asked.check_type(AccountEvent::TYPES).map_err(|error| Problem::bad_request(format!("type: {error}")))?;
    wait_for(&app.audit, headers::position(&headers)?).await?;
    let page = asked.run_readable(&app.database).await.map_err(Problem::asked)?;
    Ok(listed(&page, Shown::of))
}

/// What was refused instead of what was done.
async fn refused(app: App, headers: HeaderMap, mut parameters: Parameters) -> Result<Response, Problem> {
    let limit = parameters.one("limit")?.map(|limit| limit.parse::<u32>()).transpose();
    let query = RefusedQuery {
        aggregate: id::<AggregateKey>("account", parameters.one("account")?)?.map(stream),
        actor: id("actor", parameters.one("actor")?)?,
        correlation: id("correlation", parameters.one("correlation")?)?,
        command: id("command", parameters.one("command")?)?,
        from: time("recorded_from", parameters.one("recorded_from")?, start_of)?,
        to: time("recorded_to", parameters.one("recorded_to")?, end_of)?,
        limit: limit_of(limit.map_err(|error| Problem::bad_request(format!("limit: {error}")))?)?,
        cursor: parameters.one("cursor")?,
    };
    parameters.end()?;
    wait_for(&app.audit, headers::position(&headers)?).await?;
    let page = query.run_readable(&app.database).await.map_err(Problem::asked)?;
    Ok(listed(&page, ShownRefused::of))
}

fn asked_of(parameters: &mut Parameters) -> Result<Query, Problem> {
    let limit = parameters.one("limit")?.map(|limit| limit.parse::<u32>()).transpose();
    let fields = parameters.all("field").into_iter().map(|field| id("field", Some(field)));
    Ok(Query {
        fields: fields.filter_map(Result::transpose).collect::<Result<_, _>>()?,
        aggregate: id::<AggregateKey>("account", parameters.one("account")?)?.map(stream),
        actor: id("actor", parameters.one("actor")?)?,
        correlation: id("correlation", parameters.one("correlation")?)?,
        causation: id("causation", parameters.one("causation")?)?,
        caused_by: id("caused_by", parameters.one("caused_by")?)?,
        command: id("command", parameters.one("command")?)?,
        event_type: parameters.one("type")?,
        from: time("from", parameters.one("from")?, start_of)?,
        to: time("to", parameters.one("to")?, end_of)?,
        recorded_from: time("recorded_from", parameters.one("recorded_from")?, start_of)?,
        recorded_to: time("recorded_to", parameters.one("recorded_to")?, end_of)?,
        limit: limit_of(limit.map_err(|error| Problem::bad_request(format!("limit: {error}")))?)?,
        cursor: parameters.one("cursor")?,
        ..Query::default()
    })
}

/// Those of a request that were not taken yet.
struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// All of this name.
    fn all(&mut self, name: &str) -> Vec<String> {
        self.0.extract_if(.., |(given, _)| given == name).map(|(_, value)| value).collect()
    }

    /// The only one of this name, if there is one.
    fn one(&mut self, name: &str) -> Result<Option<String>, Problem> {
        let mut values = self.all(name);
        let value = values.pop();
        if !values.is_empty() {
            return Err(Problem::bad_request(format!("{name} is given more than once")));
        }
        Ok(value)
    }

    /// Refuses what nobody asked for, since a filter that is misspelt would let everything through.
    fn end(self) -> Result<(), Problem> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        Err(Problem::bad_request(format!("there is no parameter {name:?}")))
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
