//! The HTTP interface: JSON in, JSON or a problem document out.

mod audit;
mod body;
mod commands;
mod connection;
mod damaged;
mod guard;
mod headers;
mod health;
mod live;
mod metrics;
mod parked;
mod past;
mod problem;
mod reading;
mod tags;

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Uri};
use axum::routing::{get, post};
use axum::{Router, middleware};
use es_core::{Bus, Position};
use es_projections::{Database, RunningProjection};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::Bank;
use crate::domain::Account;
use connection::Limits;
pub(crate) use guard::Trust;
use guard::{Names, guard};
use live::Live;
use problem::Problem;

/// How long a GET waits for the position that it was given.
const WAIT: Duration = Duration::from_secs(5);

/// How long the database may take to answer a question of a GET.
const READ_MAX: Duration = Duration::from_secs(5);

/// What every request may use.
#[derive(Clone)]
struct App {
    bus: Bus<Account>,
    database: Database,
    accounts: RunningProjection,
    audit: RunningProjection,
    projections: Arc<[RunningProjection]>,
    live: Arc<Live>,
    /// How old what the read models lack may be.
    lag_max: Option<Duration>,
    trust: Arc<Trust>,
    names: Arc<Names>,
}

/// How HTTP is served.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    /// The address as it was asked for.
    pub(crate) listen: String,
    pub(crate) trust: Trust,
    pub(crate) lag_max: Option<Duration>,
}

/// Serves until `stop`, then finishes the requests that are under way.
pub(crate) fn serve(
    listener: TcpListener,
    bank: &Bank,
    serving: Serving,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let models = &bank.models;
    let Serving { listen, trust, lag_max } = serving;
    let app = App {
        bus: bank.bus.clone(),
        database: models.store.database.within(READ_MAX),
        accounts: models.accounts.clone(),
        audit: models.audit.clone(),
        projections: models.all().into_iter().cloned().collect(),
        live: Arc::new(Live::new(models, stop.clone())),
        lag_max,
        names: Arc::new(Names::new(&trust, &listen)),
        trust: Arc::new(trust),
    };
    connection::serve(listener, router(app), Limits::default(), stop)
}

fn router(app: App) -> Router {
    Router::new()
        .route("/api/accounts", get(reading::list).post(commands::open))
        .route("/api/accounts/{id}", get(reading::one))
        .route("/api/accounts/{id}/deposits", post(commands::deposit))
        .route("/api/accounts/{id}/withdrawals", post(commands::withdraw))
        .route("/api/accounts/{id}/close", post(commands::close))
        .route("/api/accounts/{id}/history", get(past::history))
        .route("/api/audit", get(audit::trail))
        .route("/api/live", get(live::events))
        .route("/api/parked", get(parked::list))
        .route("/api/parked/{id}/retry", post(parked::retry))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::text))
        .route("/", get(health::index))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(404, "not-found", format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(405, "method-not-allowed", format!("{} does not take {method}", uri.path()))
}

/// Waits until a read model contains the position that the request names.
async fn wait_for(read_model: &RunningProjection, position: Option<Position>) -> Result<(), Problem> {
    let Some(position) = position else { return Ok(()) };
    read_model.wait_for(&position, WAIT).await.map_err(Problem::asked)
}
