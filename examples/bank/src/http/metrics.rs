//! Figures for Prometheus.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use es_core::{OwnerState, PartitionStatus};
use es_projections::{PartitionLag, PartitionProgress, RunningProjection, Status, WorkerState};

use super::App;

/// The figures of the owners and projections, in Prometheus' text format.
pub(super) async fn text(State(app): State<App>) -> impl IntoResponse {
    let mut text = String::new();
    owners(&mut text, &app.bus.status());
    projections(&mut text, &app).await;
    let help = "Times that a list was asked for in which a row could not be read";
    head(&mut text, "bank_damaged_rows_total", "counter", help);
    let _ = writeln!(text, "bank_damaged_rows_total {}", super::damaged::told()); // writing to a String can't fail
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

fn owners(text: &mut String, partitions: &[PartitionStatus]) {
    type Figure = (&'static str, &'static str, &'static str, fn(&PartitionStatus) -> u64);
    let figures: [Figure; 20] = [
        ("serving", "gauge", "Whether the owner of the partition takes commands", |at| {
            u64::from(at.state == OwnerState::Serving)
        }),
        ("rounds_total", "counter", "Rounds appended to the log", |at| at.rounds),
        ("records_total", "counter", "Records appended to the log", |at| at.records),
        ("doubts_total", "counter", "Appends that came to be in doubt", |at| at.doubts),
        ("void_records_total", "counter", "Records of superseded writers seen", |at| at.void),
        ("foreign_records_total", "counter", "Records seen that are not ours", |at| at.foreign),
        ("forwarded_commands_total", "counter", "Commands from other processes that were answered", |at| at.forwarded),
        ("rejected_commands_total", "counter", "Records on the commands topic that were no command", |at| at.rejected),
        ("misrouted_commands_total", "counter", "Commands that came to the wrong partition", |at| at.misrouted),
        ("expired_commands_total", "counter", "Commands that expired before they were decided", |at| at.expired),
        ("checkpoints_total", "counter", "Checkpoints written to the snapshots topic", |at| at.checkpoints),
        ("failed_checkpoints_total", "counter", "Checkpoints that could not be written", |at| at.failed_checkpoints),
        ("restored_aggregates_total", "counter", "Aggregates whose state came from a snapshot", |at| at.restored),
        ("sealed_events", "gauge", "Events that the partition's last seal covers", |at| at.sealed),
        ("unsealed_events", "gauge", "Events after it that are read and not sealed yet", |at| at.unsealed),
        ("failed_seals_total", "counter", "Times that the partition could not be sealed", |at| at.failed_seals),
        ("parked_accounts", "gauge", "Accounts whose events can't be read, so that their commands are refused", |at| {
            at.parked
        }),
        ("queued_commands", "gauge", "Commands that wait for the owner", |at| at.queued as u64),
        ("task_restarts_total", "counter", "Tasks of the partition that panicked and were started anew", |at| {
            at.restarts
        }),
        ("tasks_down", "gauge", "Tasks of the partition that do not run now", |at| at.down.len() as u64),
    ];
    for (name, kind, help, figure) in figures {
        head(text, &format!("bank_owner_{name}"), kind, help);
        for at in partitions {
            line(text, &format!("bank_owner_{name}"), &format!("partition=\"{}\"", at.partition), figure(at));
        }
    }
}

async fn projections(text: &mut String, app: &App) {
    let projections = &app.projections;
    let label = |name: &str| format!("projection=\"{name}\"");
    let statuses = futures::future::join_all(projections.iter().map(RunningProjection::status)).await;
    head(
        text,
        "bank_projection_running",
        "gauge",
        "Whether the projection works without trouble, here or in another process",
    );
    for (projection, status) in projections.iter().zip(&statuses) {
        let running = matches!(status.state, WorkerState::Running | WorkerState::StandingBy { .. });
        line(text, "bank_projection_running", &label(projection.projection()), u64::from(running));
    }
    head(
        text,
        "bank_projection_standing_by",
        "gauge",
        "Whether other processes hold all partitions of the projection, and this one watches",
    );
    for (projection, status) in projections.iter().zip(&statuses) {
        let standing_by = matches!(status.state, WorkerState::StandingBy { .. });
        line(text, "bank_projection_standing_by", &label(projection.projection()), u64::from(standing_by));
    }
    let help = "Partitions whose events this process folds in; other processes have the rest";
    head(text, "bank_projection_partitions", "gauge", help);
    for projection in projections.iter() {
        let held = projection.progress().iter().filter(|at| at.held).count();
        line(text, "bank_projection_partitions", &label(projection.projection()), held);
    }
    lags(text, projections, &statuses);
    let help = "Accounts whose events wait, since one of them could not be folded in: see bank parked";
    head(text, "bank_projection_parked_aggregates", "gauge", help);
    for (projection, status) in projections.iter().zip(&statuses) {
        line(text, "bank_projection_parked_aggregates", &label(projection.projection()), status.parked);
    }
    type Figure = (&'static str, &'static str, fn(&PartitionProgress) -> u64);
    let figures: [Figure; 3] = [
        ("events", "Events folded in", |at| at.events),
        ("void_records", "Void records passed", |at| at.void),
        ("quarantined_records", "Records quarantined, since they are not ours", |at| at.quarantined),
    ];
    for (name, help, figure) in figures {
        let name_total = format!("bank_projection_{name}_total");
        head(text, &name_total, "counter", help);
        for projection in projections.iter() {
            let progress = projection.progress();
            let figure: u64 = progress.iter().map(figure).sum();
            line(text, &name_total, &label(projection.projection()), figure);
        }
    }
}

/// How far each projection is behind in each partition.
fn lags(text: &mut String, projections: &[RunningProjection], statuses: &[Status]) {
    let lags = || {
        let known = projections
            .iter()
            .zip(statuses)
            .filter_map(|(projection, status)| Some((projection, status.lag.as_ref()?)));
        known.flat_map(|(projection, lag)| lag.partitions.iter().map(move |at| (projection.projection(), at)))
    };
    let label =
        |projection: &str, at: &PartitionLag| format!("projection=\"{projection}\",partition=\"{}\"", at.partition);
    let help = "Records of the log that the projection has not handled yet";
    head(text, "bank_projection_lag_records", "gauge", help);
    for (projection, at) in lags() {
        line(text, "bank_projection_lag_records", &label(projection, at), at.records);
    }
    let help = "For how long the first event has waited that the projection has not handled yet";
    head(text, "bank_projection_lag_seconds", "gauge", help);
    for (projection, at) in lags() {
        line(text, "bank_projection_lag_seconds", &label(projection, at), at.time.as_secs_f64());
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}"); // writing to a String can't fail
}

fn line(text: &mut String, name: &str, label: &str, value: impl Display) {
    let _ = writeln!(text, "{name}{{{label}}} {value}");
}
