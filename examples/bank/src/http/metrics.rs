//! Figures for Prometheus.

use std::fmt::{Display, Write};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use es_core::{Figure, FigureKind, PartitionStatus};
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
    let all: Vec<_> = partitions.iter().map(|at| (at.partition, at.figures())).collect();
    let Some((_, figures)) = all.first() else { return };
    for (place, Figure { name, kind, help, .. }) in figures.iter().enumerate() {
        let kind = match kind {
            FigureKind::Counter => "counter",
            FigureKind::Gauge => "gauge",
        };
        head(text, &format!("bank_owner_{name}"), kind, help);
        for (partition, figures) in &all {
            let value = figures[place].value;
            line(text, &format!("bank_owner_{name}"), &format!("partition=\"{partition}\""), value);
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
