//! A read model as of a business time: the events that took place by then, of aggregates that were there by then.

use std::collections::HashSet;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use es_core::{Recorded, StreamId, Version};

use crate::builds::Build;
use crate::error::{Error, ProjectionError};
use crate::projection::{Projection, RefusedCommand};
use crate::sql::{Kind, OnDuplicate, Table, Tx, Value};

/// Folds in what took place until a time. An aggregate whose first event took place later was not there yet, whatever else is
/// recorded of it with an earlier time.
pub(super) struct Occurred {
    pub(super) projection: Arc<dyn Projection>,
    pub(super) build: Build,
    pub(super) until: DateTime<Utc>,
}

impl Occurred {
    /// Tells which of these aggregates were not there yet, and notes those of which that shows now.
    async fn absent(&self, tx: &mut Tx, events: &[Recorded]) -> Result<HashSet<StreamId>, Error> {
        let is_first = |event: &&Recorded| event.envelope.version == Version::new(1);
        let (firsts, others): (Vec<_>, Vec<_>) = events.iter().partition(is_first);
        let later = firsts.into_iter().filter(|event| event.envelope.occurred_at > self.until);
        let mut absent: HashSet<_> = later.map(|event| event.envelope.stream.clone()).collect();
        if !absent.is_empty() {
            let rows = absent.iter().map(|stream| self.row(stream)).collect();
            tx.insert(&table(), rows, OnDuplicate::Keep).await?;
        }
        let asked: HashSet<_> = others.into_iter().map(|event| &event.envelope.stream).collect();
        let keys: Vec<_> =
            asked.into_iter().filter(|stream| !absent.contains(stream)).map(|stream| self.row(stream)).collect();
        for row in tx.load(&table(), keys).await? {
            absent.insert(StreamId { category: row.get("category")?, id: row.get("aggregate_id")? });
        }
        Ok(absent)
    }

    fn row(&self, stream: &StreamId) -> Vec<Value> {
        [&self.build.key()[..], &[stream.category.clone().into(), stream.id.clone().into()]].concat()
    }
}

fn table() -> Table {
    let key = |table: Table, (name, kind)| table.key(name, kind);
    let columns =
        [("projection", Kind::Text), ("build", Kind::Integer), ("category", Kind::Text), ("aggregate_id", Kind::Text)];
    columns.into_iter().fold(Table::new("es_absent"), key)
}

#[async_trait]
impl Projection for Occurred {
    fn name(&self) -> &str {
        self.projection.name()
    }

    fn version(&self) -> u32 {
        self.projection.version()
    }

    fn tables(&self) -> Vec<Table> {
        self.projection.tables()
    }

    fn form_column(&self, table: &str) -> Option<&'static str> {
        self.projection.form_column(table)
    }

    async fn project(&self, tx: &mut Tx, events: &[Recorded]) -> Result<(), ProjectionError> {
        let absent = self.absent(tx, events).await?;
        let counts =
            |event: &&Recorded| event.envelope.occurred_at <= self.until && !absent.contains(&event.envelope.stream);
        let events: Vec<_> = events.iter().filter(counts).cloned().collect();
        match events.is_empty() {
            true => Ok(()),
            false => self.projection.project(tx, &events).await,
        }
    }

    fn wants_refused(&self) -> bool {
        self.projection.wants_refused()
    }

    /// What has no business time counts by when it was recorded.
    async fn refused(&self, tx: &mut Tx, commands: &[RefusedCommand]) -> Result<(), ProjectionError> {
        let known: Vec<_> = commands.iter().filter(|command| command.recorded_at <= self.until).cloned().collect();
        self.projection.refused(tx, &known).await
    }
}
