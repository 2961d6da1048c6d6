//! The audit trail: every event with its metadata, as a table to be queried.
//!
//! [`AuditTrail`] is a projection like any other; [`Query`] asks it, and [`export()`] writes what it finds to files. The columns of `<namespace>_audit`, for SQL of
//! one's own:
//!
//! | column | holds |
//! |---|---|
//! | `category`, `aggregate_id`, `version` | the stream and the place in it: the primary key |
//! | `context` | the bounded context |
//! | `event_id`, `event_type`, `schema_version` | the event |
//! | `recorded_at`, `occurred_at` | when it was recorded, and the business time |
//! | `command_id`, `command_hash` | the command that it comes from, and the hash of what was asked |
//! | `correlation_id`, `causation_id`, `actor`, `traceparent` | the rest of the metadata, null where not given |
//! | `content_type`, `payload`, `payload_bytes` | the event's payload: in `payload` if it is JSON, to the byte; else in `payload_bytes` |
//! | `previous_hash`, `hash` | the chain |
//! | `topic`, `topic_partition`, `topic_offset` | where it is in the log |
//!
//! Commands that were refused, and changed nothing, are in `<namespace>_audit_refused`: [`RefusedQuery`] asks for them.
//!
//! # Indexes
//! Writing them is most of what the trail costs, so they are few, and each serves several filters:
//!
//! | index | over | serves |
//! |---|---|---|
//! | the primary key | `category`, `aggregate_id`, `version` | an aggregate |
//! | `by_recorded` | `event_type`, `recorded_at` | type, time of recording, both, or no filter |
//! | `by_occurred` | `event_type`, `occurred_at`, `recorded_at` | business time; with type |
//! | `actor_recorded` | `actor`, `event_type`, `recorded_at` | actor; with type, time of recording, both |
//! | `actor_occurred` | `actor`, `event_type`, `occurred_at`, `recorded_at` | actor with business time; with type |
//! | `by_command` | `command_id` | command, and what began a conversation |
//! | `by_causation` | `causation_id`, `recorded_at` | causation; with time of recording; the tree |
//! | `corr_recorded` | `correlation_id`, `recorded_at` | what joined a conversation; with time of recording |
//! | `corr_occurred` | `correlation_id`, `occurred_at`, `recorded_at` | the same with business time |
//!
//! Each has its rows in the order of a page, whatever is in it: a page is as quick for a rare actor, for business times
//! long ago of what was recorded today, and where there is nothing at all. None leads with a time: event types are few, so a question
//! without a type goes through the index of each and merges them, which spares two indexes more. Nor is there one over an
//! aggregate's times. Recorded time never falls within an aggregate, so a range of it is a range of versions, found by halving; business
//! time is compared with each event of the aggregate, 500 a page. A business time is often shared by many, as a day is, so `recorded_at` follows it.
//!
//! Rows without an actor or a causation id are not in those indexes. A command that is given no correlation id begins a
//! conversation of its own, with its command id; those rows are left out of the indexes over `correlation_id`, since
//! random ids make them the dearest to write. So ask for
//! `correlation_id = 'x' AND correlation_id <> command_id OR command_id = 'x'`, as [`Query`] does.
//!
//! # States
//! `<namespace>_audit_states` holds, for the aggregate types that the trail [keeps](AuditTrail::keeping) states of, the state behind each
//! 500 versions of an aggregate, as JSON, with the hash of that version. It serves [`Past`] and no one else. It is part of the read model:
//! it is built anew with it, and `verify` compares it with what the log gives. States that an earlier release has kept in another form
//! are neither used nor compared; with each 500 versions more of an aggregate some of them are kept anew.
//!
//! # Damage
//! A row that can't be read is what somebody wrote there by hand. [`Query::run`] and all that must be whole, as an export, fails then;
//! [`Query::run_readable`], [`RefusedQuery::run_readable`] and [`Past::history_readable`] give the rest of the page, with the damaged
//! row told at its place, and pages go on behind it. An aggregate's past has its hash chain checked, too.
//!
//! # Paging while events come
//! A cursor is a place in the order: pages neither repeat nor leave out what was there when the first was asked for. What is
//! added later is found if its place is behind the cursor. Partitions are read side by side, so what another one recorded
//! a little earlier may come in before the cursor; who must have it asks again.

mod entry;
mod explain;
mod export;
mod past;
mod place;
mod query;
mod refused;
mod states;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use es_core::{EventSource, Recorded};

use crate::error::ProjectionError;
use crate::projection::{Projection, RefusedCommand};
use crate::sql::{Kind, OnDuplicate, Table, Tx};
pub use entry::Entry;
pub(crate) use entry::to_row;
pub use explain::explain;
pub use export::csv::cell as csv_cell;
pub use export::{ExportFormat, Exported, ExportedFile, ExportedPartition, Manifest, check_export, export};
pub use past::{At, Change, History, Past, StateAt, Step};
pub(crate) use query::named;
pub use query::{LIMIT_MAX, Order, Page, PayloadField, Query};
pub use refused::{Refused, RefusedPage, RefusedQuery};
pub use states::PastState;
use states::{Keeper, Keepers};

/// The projection that keeps the audit trail.
#[derive(Debug, Clone)]
pub struct AuditTrail {
    table: Table,
    topics: HashMap<Arc<str>, Arc<str>>,
    states: Table,
    keepers: Keepers,
}

impl AuditTrail {
    /// The audit trail of these sources, the ones that its worker reads.
    pub fn new(sources: &[EventSource]) -> Self {
        let topics = sources.iter().map(|source| (source.category.clone(), source.topic.clone()));
        Self { table: table(), topics: topics.collect(), states: states::table(), keepers: Keepers::new() }
    }

    /// Keeps the states of an aggregate type behind each 500 versions, in a table beside the trail's. So a version of an aggregate
    /// with very many is told as quickly as one with few. Aggregates with less have none, and cost nothing.
    #[must_use]
    pub fn keeping<S: PastState>(mut self) -> Self {
        let keeper = Keeper::of::<S>();
        self.keepers.insert(keeper.category, keeper);
        self
    }

    async fn keep_states(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        for event in events.iter().filter(|event| event.envelope.version.get().is_multiple_of(states::EVERY)) {
            let Some(keeper) = self.keepers.get(&*event.envelope.stream.category) else { continue };
            let rows = keeper.keep(tx, event).await?;
            tx.upsert(&self.states, rows).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Projection for AuditTrail {
    fn name(&self) -> &str {
        "audit"
    }

    /// Raised when the indexes change too: only a table that is made anew gets them.
    fn version(&self) -> u32 {
        3
    }

    fn tables(&self) -> Vec<Table> {
        vec![self.table.clone(), refused::table(), self.states.clone()]
    }

    fn form_column(&self, table: &str) -> Option<&'static str> {
        (table == self.states.name()).then_some("form")
    }

    fn wants_refused(&self) -> bool {
        true
    }

    async fn refused(&self, tx: &mut Tx, commands: &[RefusedCommand]) -> Result<(), ProjectionError> {
        let mut rows = Vec::with_capacity(commands.len());
        for command in commands {
            let topic = self.topics.get(&command.category);
            let unknown = || format!("the audit trail was made without the source of {}", command.category);
            rows.extend(refused::to_row(command, topic.ok_or_else(unknown)?));
        }
        if !rows.is_empty() {
            tx.insert(&refused::table(), rows, OnDuplicate::Keep).await?;
        }
        Ok(())
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let mut rows = Vec::with_capacity(events.len());
        for event in events {
            let category = &event.envelope.stream.category;
            let topic = self.topics.get(category);
            let topic = topic.ok_or_else(|| format!("the audit trail was made without the source of {category}"))?;
            rows.push(entry::to_row(event, topic));
        }
        // Versions are 1, 2, 3 … without duplicate: a second event of the same version is damage, and is told.
        tx.insert(&self.table, rows, OnDuplicate::Fail).await?;
        self.keep_states(tx, events).await
    }
}

fn table() -> Table {
    columns(Table::new("audit"))
        .index("by_recorded", &["event_type", "recorded_at"])
        .index("by_occurred", &["event_type", "occurred_at", "recorded_at"])
        .index_present("actor_recorded", &["actor", "event_type", "recorded_at"])
        .index_present("actor_occurred", &["actor", "event_type", "occurred_at", "recorded_at"])
        .index("by_command", &["command_id"])
        .index_present("by_causation", &["causation_id", "recorded_at"])
        .index_where("corr_recorded", &["correlation_id", "recorded_at"], query::JOINED_CONVERSATION)
        .index_where("corr_occurred", &["correlation_id", "occurred_at", "recorded_at"], query::JOINED_CONVERSATION)
}

/// What holds an event: the key and the other columns, in the order of `entry::to_row`.
pub(crate) fn columns(table: Table) -> Table {
    table
        .key("category", Kind::Text)
        .key("aggregate_id", Kind::Text)
        .key("version", Kind::Integer)
        .column("context", Kind::Text)
        .column("event_id", Kind::Uuid)
        .column("event_type", Kind::Text)
        .column("schema_version", Kind::Integer)
        .column("recorded_at", Kind::Time)
        .column("occurred_at", Kind::Time)
        .column("command_id", Kind::Text)
        .column("command_hash", Kind::Bytes)
        .column("correlation_id", Kind::Text)
        .optional("causation_id", Kind::Text)
        .optional("actor", Kind::Text)
        .optional("traceparent", Kind::Text)
        .column("content_type", Kind::Text)
        .optional("payload", Kind::Json)
        .optional("payload_bytes", Kind::Bytes)
        .column("previous_hash", Kind::Bytes)
        .column("hash", Kind::Bytes)
        .column("topic", Kind::Text)
        .column("topic_partition", Kind::Integer)
        .column("topic_offset", Kind::Integer)
}
