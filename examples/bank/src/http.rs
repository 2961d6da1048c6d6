//! The HTTP interface: JSON in, JSON or a problem document out.

mod audit;
mod body;
mod commands;
mod connection;
mod headers;
mod health;
mod live;
mod metrics;
mod past;
mod problem;
mod reading;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use es_core::{Bus, Position};
use es_projections::{Database, Handle};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::app::Bank;
use crate::domain::Account;
use connection::WriteDeadline;
use live::Live;
use problem::Problem;

/// How long a GET waits for the position that it was given.
const WAIT: Duration = Duration::from_secs(5);

/// What every request may use.
#[derive(Clone)]
struct App {
    bus: Bus<Account>,
    database: Database,
    accounts: Handle,
    audit: Handle,
    projections: Arc<[Handle]>,
    live: Arc<Live>,
    /// How old what the read models lack may be.
    lag_max: Option<Duration>,
}

/// Serves until `stop`, then finishes the requests that are under way.
pub(crate) fn serve(
    listener: TcpListener,
    bank: &Bank,
    lag_max: Option<Duration>,
    stop: CancellationToken,
) -> impl Future<Output = ()> + use<> {
    let models = &bank.models;
    let app = App {
        bus: bank.bus.clone(),
        database: models.store.database.clone(),
        accounts: models.accounts.clone(),
        audit: models.audit.clone(),
        projections: models.all().into_iter().cloned().collect(),
        live: Arc::new(Live::new(models, stop.clone())),
        lag_max,
    };
    let router = router(app);
    async move {
        let served = axum::serve(WriteDeadline(listener), router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::error!(%error, "serving HTTP failed");
        }
    }
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
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::text))
        .route("/", get(health::index))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(app)
}

async fn not_found(uri: Uri) -> Problem {
    Problem::new(404, "not-found", format!("there is nothing at {}", uri.path()))
}

async fn not_allowed(method: Method, uri: Uri) -> Problem {
    Problem::new(405, "method-not-allowed", format!("{} does not take {method}", uri.path()))
}

/// Waits until a read model contains the position that the request names.
async fn wait_for(read_model: &Handle, position: Option<Position>) -> Result<(), Problem> {
    let Some(position) = position else { return Ok(()) };
    Ok(read_model.wait_for(&position, WAIT).await?)
}
