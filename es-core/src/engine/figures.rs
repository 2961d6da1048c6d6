//! All figures of a partition: each is declared once, with its name, kind and help. From that come what its tasks count, what
//! [`Bus::status`](crate::Bus::status) tells, and what a program shows to Prometheus.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::engine::health::Health;
use crate::engine::owner_state::OwnerState;
use crate::engine::parked::Parked;

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureKind {
    /// It only grows, from 0 at the start of the process.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// A figure of a partition, as monitoring takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// The name as Prometheus has it, without the program's prefix: that of a counter ends in `_total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: FigureKind,
    /// What it says, in a sentence without an end.
    pub help: &'static str,
    /// Its value now.
    pub value: u64,
}

macro_rules! figures {
    ($($field:ident: $kind:ident $name:literal, $help:literal;)*) => {
        /// What the tasks of a partition count, from the start of the process on.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $field: AtomicU64,)*
            /// The offset up to which the log was read.
            pub(crate) read_to: AtomicU64,
            pub(crate) parked: Arc<Parked>,
            pub(crate) health: Health,
        }

        /// A partition's owner, as [`Bus::status`](crate::Bus::status) shows it.
        #[derive(Debug, Clone)]
        #[non_exhaustive]
        pub struct PartitionStatus {
            /// The partition.
            pub partition: u32,
            /// What its owner is doing.
            pub state: OwnerState,
            $(#[doc = $help] #[doc = "."] pub $field: u64,)*
            /// Commands that wait for the owner.
            pub queued: usize,
            /// Aggregates whose events or states can't be used; [`Bus::parked`](crate::Bus::parked) names them. None where
            /// another process owns the partition.
            pub parked: u64,
            /// Times since the start that a task of the partition panicked and was started anew.
            pub restarts: u64,
            /// Tasks of the partition that do not run now, and why: the process is not well as long as there are some.
            pub down: Vec<String>,
        }

        impl PartitionStatus {
            pub(crate) fn of(partition: u32, state: OwnerState, queued: usize, counters: &Counters) -> Self {
                Self {
                    partition,
                    state,
                    $($field: counters.$field.load(Ordering::Relaxed),)*
                    queued,
                    parked: counters.parked.count(),
                    restarts: counters.health.restarts(),
                    down: counters.health.down(),
                }
            }

            /// All figures, for monitoring. The same of every partition, in the same order.
            pub fn figures(&self) -> Vec<Figure> {
                use FigureKind::{Counter, Gauge};
                let figure = |name, kind, help, value| Figure { name, kind, help, value };
                let serving = u64::from(self.state == OwnerState::Serving);
                vec![
                    figure("serving", Gauge, "Whether the owner of the partition takes commands", serving),
                    $(figure($name, $kind, $help, self.$field),)*
                    figure("queued_commands", Gauge, "Commands that wait for the owner", self.queued as u64),
                    figure("parked_aggregates", Gauge, "Aggregates whose events or states can't be used", self.parked),
                    figure(
                        "task_restarts_total",
                        Counter,
                        "Tasks of the partition that panicked and were started anew",
                        self.restarts,
                    ),
                    figure("tasks_down", Gauge, "Tasks of the partition that do not run now", self.down.len() as u64),
                ]
            }
        }
    };
}

figures! {
    rounds: Counter "rounds_total", "Rounds appended to the log";
    records: Counter "records_total", "Records appended to the log";
    doubts: Counter "doubts_total", "Appends that came to be in doubt";
    void: Counter "void_records_total", "Records of superseded writers seen";
    foreign: Counter "foreign_records_total", "Records seen that are not ours";
    forwarded: Counter "forwarded_commands_total", "Commands from other processes that were answered";
    rejected: Counter "rejected_commands_total", "Records on the commands topic that were no command, misrouted ones among them";
    misrouted: Counter "misrouted_commands_total", "Commands that came to a partition in which their aggregate does not live";
    expired: Counter "expired_commands_total", "Commands that expired before they were decided";
    restored: Counter "restored_aggregates_total", "States loaded from the snapshots topic instead of being folded from events";
    checkpoints: Counter "checkpoints_total", "Checkpoints written to the snapshots topic";
    failed_checkpoints: Counter "failed_checkpoints_total", "Checkpoints that could not be written; what they would have held is in a later one";
    sealed: Gauge "sealed_events", "Events that the last seal covers which this process signed, or went on from";
    unsealed: Gauge "unsealed_events", "Events after the last seal that are read and not sealed yet";
    seals: Counter "seals_total", "Seals signed";
    failed_seals: Counter "failed_seals_total", "Times that the partition could not be sealed, which is tried again";
}
