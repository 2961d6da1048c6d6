//! The plan of a page: which index has its entries, in their order.

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};
use es_core::{Actor, CausationId, CommandId, CorrelationId, StreamId};

use super::by::By;
use super::{Order, Query};
use crate::audit::place::Place;
use crate::error::Error;
use crate::sql::{Database, Value};

/// The rows whose command did not begin the conversation: the others are found by their command id.
pub(in crate::audit) const JOINED_CONVERSATION: &str = "correlation_id <> command_id";
/// The most commands and events of a tree: the whole of it is looked for again for each page.
pub(super) const TREE_MAX: u32 = 10_000;
/// SQLite takes that many parts of a `UNION ALL`.
const TYPES_MAX: usize = 500;

/// The filter that leads, the narrowest one by its nature. The others are applied to what it finds.
enum Lead<'a> {
    /// The tree of what this caused.
    CausedBy(&'a CausationId),
    Command(&'a CommandId),
    Aggregate(&'a StreamId),
    Causation(&'a CausationId),
    Correlation(&'a CorrelationId),
    Actor(&'a Actor),
    /// A type or a time, or nothing.
    All,
}

/// A statement and its arguments: no value stands in the text.
pub(super) type Statement = (String, Vec<Value>);

/// Rows that an index has in the order of the page.
#[derive(Debug, Clone, Default)]
pub(super) struct Branch {
    conditions: Vec<String>,
    args: Vec<Value>,
}

impl Branch {
    fn of(condition: &str, args: impl IntoIterator<Item = Value>) -> Self {
        Self::default().and(condition, args)
    }

    fn and(mut self, condition: &str, args: impl IntoIterator<Item = Value>) -> Self {
        self.conditions.push(condition.to_owned());
        self.args.extend(args);
        self
    }
}

/// Where the rows of a page are.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) by: By,
    table: String,
    branches: Vec<Branch>,
    /// Whether the branches need no order and no limit of their own.
    merged: bool,
    /// The range that is asked for, of the first column that the rows are ordered by.
    from: Option<Value>,
    to: Option<Value>,
}

impl Plan {
    /// The next rows behind a place: as many as are asked for, or all that are left.
    pub(super) fn statement(&self, query: &Query, place: &Place, rows: u32) -> Option<Statement> {
        let after = place.values();
        let (direction, beyond) = query.order.sql();
        let columns = self.by.columns();
        // Behind a place means behind the begin of the range too. Two bounds on one side would be one too many for SQLite,
        // which takes another index then.
        let (from, to) = match (query.order, after) {
            (Order::OldestFirst, Some(_)) => (None, self.to.as_ref()),
            (Order::NewestFirst, Some(_)) => (self.from.as_ref(), None),
            (_, None) => (self.from.as_ref(), self.to.as_ref()),
        };
        let order = columns.iter().map(|column| format!("{column} {direction}")).collect::<Vec<_>>().join(", ");
        let mut args = Vec::new();
        let branch = |branch: &Branch| {
            let mut conditions = branch.conditions.clone();
            args.extend(branch.args.iter().cloned());
            for (bound, value) in [(">=", from), ("<", to)] {
                conditions.extend(value.map(|_| format!("{} {bound} ?", columns[0])));
                args.extend(value.cloned());
            }
            if let Some(after) = after {
                let places = vec!["?"; columns.len()].join(", ");
                conditions.push(format!("({}) {beyond} ({places})", columns.join(", ")));
                args.extend(after.iter().cloned());
            }
            let found = format!("SELECT * FROM {} WHERE {}", self.table, conditions.join(" AND "));
            if self.merged {
                return found;
            }
            args.push(rows.saturating_add(place.damaged).into());
            format!("SELECT * FROM ({found} ORDER BY {order} LIMIT ?) AS branch")
        };
        let branches: Vec<_> = self.branches.iter().map(branch).collect();
        if branches.is_empty() {
            return None; // not even one event type
        }
        args.extend([rows.into(), place.damaged.into()]);
        Some((format!("{} ORDER BY {order} LIMIT ? OFFSET ?", branches.join(" UNION ALL ")), args))
    }
}

impl Query {
    fn lead(&self) -> Lead<'_> {
        let leads = [
            self.caused_by.as_ref().map(Lead::CausedBy),
            self.command.as_ref().map(Lead::Command),
            self.aggregate.as_ref().map(Lead::Aggregate),
            self.causation.as_ref().map(Lead::Causation),
            self.correlation.as_ref().map(Lead::Correlation),
            self.actor.as_ref().map(Lead::Actor),
        ];
        leads.into_iter().flatten().next().unwrap_or(Lead::All)
    }

    /// What the pages are ordered by.
    pub(super) fn by(&self) -> By {
        match self.lead() {
            Lead::Aggregate(_) => By::Version,
            Lead::Causation(_) => By::Recorded,
            _ => {
                let ends = |from: Option<_>, to: Option<_>| usize::from(from.is_some()) + usize::from(to.is_some());
                let business = ends(self.from, self.to);
                if business > ends(self.recorded_from, self.recorded_to) { By::Occurred } else { By::Recorded }
            }
        }
    }

    /// Finds out where the rows are.
    pub(super) async fn plan(&self, database: &Database) -> Result<Plan, Error> {
        let (table, by) = (database.table_name("audit"), self.by());
        let branches = match self.lead() {
            Lead::CausedBy(id) => {
                let ids = commands_of_tree(database, &table, id).await?;
                vec![Branch::of(&format!("command_id IN ({})", vec!["?"; ids.len()].join(", ")), ids)]
            }
            Lead::Command(id) => vec![Branch::of("command_id = ?", [id.as_str().into()])],
            Lead::Aggregate(stream) => vec![of_stream(stream)],
            Lead::Causation(id) => vec![Branch::of("causation_id = ?", [id.as_str().into()])],
            Lead::Correlation(id) => {
                let joined = format!("correlation_id = ? AND {JOINED_CONVERSATION}");
                let began = "command_id = ? AND correlation_id = command_id";
                vec![Branch::of(&joined, [id.as_str().into()]), Branch::of(began, [id.as_str().into()])]
            }
            Lead::Actor(actor) => {
                let of_actor = Branch::of("actor = ?", [actor.as_str().into()]);
                self.of_each_type(database, &table, of_actor).await?
            }
            Lead::All => self.of_each_type(database, &table, Branch::default()).await?,
        };
        let (from, to) = match by {
            By::Version => {
                let stream = self.aggregate.as_ref().expect("versions are those of one aggregate");
                let from = self.first_version(database, &table, stream, self.recorded_from).await?;
                (from, self.first_version(database, &table, stream, self.recorded_to).await?)
            }
            // SQLite tells indexes that begin alike apart by how much of them is asked for, and only then by their order. So
            // there is always a range.
            By::Recorded => (or_ever(self.recorded_from), self.recorded_to.map(Into::into)),
            By::Occurred => (or_ever(self.from), self.to.map(Into::into)),
        };
        let merged = branches.len() == 1 || database.merges_unions();
        Ok(Plan { by, table, branches, merged, from, to })
    }

    /// The statement that goes through the tree, if one is asked for.
    pub(super) fn tree(&self, database: &Database) -> Option<Statement> {
        self.caused_by.as_ref().map(|id| tree(database, &database.table_name("audit"), id))
    }

    /// The rows of the type that is asked for; of each that there is, if none is. Types are few, so going through an index for
    /// each spares one that leads without the type.
    async fn of_each_type(&self, database: &Database, table: &str, of: Branch) -> Result<Vec<Branch>, Error> {
        let types = match &self.event_type {
            Some(event_type) => vec![event_type.clone()],
            None => {
                let (sql, args) = types(table, &of);
                let rows = database.fetch_planned(&sql, &args).await?;
                let names: Vec<String> = rows.iter().filter_map(|row| row.get("name").ok()).collect();
                if names.len() < rows.len() {
                    // What has no name that can be read is told, too, though no index has it in the order of the page.
                    return Ok(vec![of]);
                }
                names
            }
        };
        if types.len() > TYPES_MAX {
            return Err(Error::invalid(format!("there are more than {TYPES_MAX} event types: ask for one of them")));
        }
        Ok(types.into_iter().map(|name| of.clone().and("event_type = ?", [name.into()])).collect())
    }

    /// The first version that was recorded at this time or later. Recorded time never falls within an aggregate, so halving
    /// finds it, without an index.
    async fn first_version(
        &self,
        database: &Database,
        table: &str,
        stream: &StreamId,
        time: Option<DateTime<Utc>>,
    ) -> Result<Option<Value>, Error> {
        let Some(time) = time else { return Ok(None) };
        let Branch { conditions, args } = of_stream(stream);
        let of_stream = format!("FROM {table} WHERE {}", conditions.join(" AND "));
        let middle = "(low + high) / 2";
        let earlier = format!("(SELECT recorded_at {of_stream} AND version >= {middle} ORDER BY version LIMIT 1) < ?");
        let sql = format!(
            "WITH RECURSIVE halving(low, high) AS (\
             SELECT CAST(1 AS BIGINT), (SELECT version + 1 {of_stream} ORDER BY version DESC LIMIT 1) \
             UNION ALL SELECT CASE WHEN {earlier} THEN {middle} + 1 ELSE low END, \
             CASE WHEN {earlier} THEN high ELSE {middle} END FROM halving WHERE low < high) \
             SELECT low FROM halving WHERE low >= high"
        );
        let args = [&args[..], &args[..], &[time.into()], &args[..], &[time.into()]].concat();
        let rows = database.fetch_planned(&sql, &args).await?;
        // No row: there is no such aggregate.
        rows.first().map(|row| row.get::<i64>("low").map(Value::from)).transpose()
    }
}

/// The begin of a range, or the first time that can be stored.
fn or_ever(from: Option<DateTime<Utc>>) -> Option<Value> {
    let ever = || NaiveDate::from_ymd_opt(0, 1, 1).map(|day| day.and_time(NaiveTime::MIN).and_utc());
    from.or_else(ever).map(Into::into)
}

fn of_stream(stream: &StreamId) -> Branch {
    Branch::of("category = ? AND aggregate_id = ?", [stream.category.clone().into(), stream.id.as_str().into()])
}

/// The event types among some rows, each by a look-up behind the one before.
fn types(table: &str, of: &Branch) -> Statement {
    let condition = of.conditions.iter().map(|condition| format!("{condition} AND ")).collect::<String>();
    let next = |than: &str| {
        format!("(SELECT event_type FROM {table} WHERE {condition}event_type {than} ORDER BY event_type LIMIT 1)")
    };
    let (first, behind) = (next(">= ''"), next("> types.name"));
    let sql = format!(
        "WITH RECURSIVE types(name) AS (SELECT {first} UNION ALL SELECT {behind} FROM types WHERE types.name IS NOT NULL) \
         SELECT name FROM types WHERE name IS NOT NULL"
    );
    (sql, [&of.args[..], &of.args[..]].concat())
}

/// All that an id caused, itself among it: ids of commands, with a 1, and of events. What is there already is not added again, so it ends
/// even if the ids go in a circle.
fn tree(database: &Database, table: &str, id: &CausationId) -> Statement {
    let bytewise = database.bytewise();
    let sql = format!(
        "WITH RECURSIVE caused(id, kind) AS (SELECT CAST(? AS TEXT){bytewise}, 1 UNION \
         SELECT CASE which.n WHEN 1 THEN t.command_id ELSE CAST(t.event_id AS TEXT) END, which.n \
         FROM caused JOIN {table} AS t ON t.causation_id = caused.id OR t.command_id = caused.id \
         CROSS JOIN (SELECT 1 AS n UNION ALL SELECT 2) AS which) SELECT id, kind FROM caused LIMIT ?"
    );
    (sql, vec![id.as_str().into(), (TREE_MAX + 1).into()])
}

/// The commands of a tree. They are arguments of the statement that finds their events: a database does not know how few they are, and
/// would rather read all events than look for those of each.
async fn commands_of_tree(database: &Database, table: &str, id: &CausationId) -> Result<Vec<Value>, Error> {
    let (sql, args) = tree(database, table, id);
    let rows = database.fetch_planned(&sql, &args).await?;
    if rows.len() > TREE_MAX as usize {
        return Err(Error::invalid(format!(
            "what {:?} caused is more than {TREE_MAX} commands and events: ask for what it caused directly, or for the \
             conversation",
            id.as_str()
        )));
    }
    let mut ids = Vec::with_capacity(rows.len());
    for row in &rows {
        if row.get::<i64>("kind")? == 1 {
            ids.push(Value::Text(row.get("id")?));
        }
    }
    Ok(ids)
}
