//! Whether the process lives, and whether it takes commands.

use axum::extract::State;
use es_core::OwnerState;

use super::App;
use super::problem::Problem;
use crate::failure::chain;

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Every partition has an owner that serves, and every projection runs, here or in another process, and is not further behind than
/// it may be.
pub(super) async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    for partition in app.bus.status() {
        if !matches!(partition.state, OwnerState::Serving | OwnerState::Elsewhere) {
            let detail =
                format!("the owner of partition {} is not serving: {:?}", partition.partition, partition.state);
            return Err(Problem::try_again("not-ready", detail));
        }
    }
    for projection in app.projections.iter() {
        let checked = projection.check(app.lag_max).await;
        checked.map_err(|unwell| Problem::try_again("not-ready", chain(&unwell)))?;
    }
    Ok("ready\n")
}

/// What is there.
pub(super) async fn index() -> &'static str {
    "A bank on es-core. The interface is JSON over HTTP:\n\n\
     POST /api/accounts                     open an account\n\
     POST /api/accounts/{id}/deposits       put money in\n\
     POST /api/accounts/{id}/withdrawals    take money out\n\
     POST /api/accounts/{id}/close          close it\n\
     GET  /api/accounts                     all accounts\n\
     GET  /api/accounts/{id}                one account\n\
     GET  /api/accounts/{id}/history        its events\n\
     GET  /api/audit                        the audit trail, by account, actor, correlation, causation, caused_by,\n\
    \x20                                       command, type, from, to, recorded_from, recorded_to, field=path=value\n\
     GET  /api/live                         each recorded event as it comes\n\
     GET  /healthz /readyz /metrics         for operators\n"
}
