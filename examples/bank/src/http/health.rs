//! Whether the process lives, and whether it takes commands.

use axum::extract::State;
use es_core::OwnerState;
use es_projections::Unwell;

use super::App;
use super::problem::{self, Problem};

/// Parked accounts that are named.
const NAMED: usize = 10;

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "alive\n"
}

/// Every partition has an owner that serves, and every projection runs, here or in another process, and is not further behind than
/// it may be.
pub(super) async fn ready(State(app): State<App>) -> Result<String, Problem> {
    for partition in app.bus.status() {
        if !matches!(partition.state, OwnerState::Serving | OwnerState::Elsewhere) {
            let (number, state) = (partition.partition, partition.state);
            let reference = problem::reference();
            tracing::warn!(partition = number, ?state, reference, "not ready");
            let detail = format!("the owner of partition {number} is not serving; the log tells why under {reference}");
            return Err(Problem::try_again("not-ready", detail));
        }
        if let Some(down) = partition.down.first() {
            let (number, reference) = (partition.partition, problem::reference());
            tracing::warn!(partition = number, down, reference, "not ready");
            let detail = format!("a task of partition {number} does not run; the log tells which under {reference}");
            return Err(Problem::try_again("not-ready", detail));
        }
    }
    for projection in app.projections.iter() {
        let checked = projection.check(app.lag_max).await;
        checked.map_err(not_well)?;
    }
    // A parked account stops no other: who would take the process out of service for it would stop them all.
    let parked: u64 = app.bus.status().iter().map(|partition| partition.parked).sum();
    let which: Vec<_> = app.bus.parked().into_iter().take(NAMED).map(|parked| parked.aggregate.to_string()).collect();
    Ok(match parked {
        0 => "ready\n".into(),
        parked => format!("ready, but {parked} accounts are parked, among them {which:?}\n"),
    })
}

/// What the database or the log said names where they are, which is not told to everybody who can reach this port.
fn not_well(unwell: Unwell) -> Problem {
    match &unwell {
        Unwell::Trouble { .. } | Unwell::Failed { .. } => {
            Problem::unavailable("not-ready", &unwell.to_string(), &unwell)
        }
        unwell => Problem::try_again("not-ready", unwell.to_string()),
    }
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
    \x20                                       command, type, from, to, recorded_from, recorded_to, field=path=value;\n\
    \x20                                       what was refused with refused=true\n\
     GET  /api/live                         each recorded event as it comes\n\
     GET  /api/parked                       accounts that take no commands, since their events can't be read\n\
     POST /api/parked/{id}/retry            have one of them tried again\n\
     GET  /healthz /readyz /metrics         for operators\n"
}
