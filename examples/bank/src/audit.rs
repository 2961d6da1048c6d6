//! `bank audit`: the audit trail, and how its entries are shown.

use std::io::{self, Write};

use chrono::{DateTime, Utc};
use es_core::{Actor, Aggregate, AggregateKey, CausationId, CommandId, CorrelationId, Event, Position, StreamId};
use es_projections::audit::{Entry, LIMIT_MAX, Order, PayloadField, Query, RefusedQuery};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::{Options, ReadModels};
use crate::cli::wrong_usage;
use crate::damaged::Listing;
use crate::domain::{Account, AccountEvent};
use crate::failure::Failure;
use crate::refused;
use crate::time::{end_of, shown, start_of};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    selection: Selection,
    /// What was refused instead of what was done, the newest first: of an account, an actor, a conversation or a command
    #[arg(long)]
    refused: bool,
    /// At most so many events, up to 1000, and where to go on; all unless given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LIMIT_MAX)))]
    limit: Option<u32>,
    /// Go on where an earlier --limit ended, with the same filters
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Which events are meant: those that all filters let through.
#[derive(Debug, clap::Args)]
pub(crate) struct Selection {
    /// Events of this account
    #[arg(long, value_name = "A")]
    account: Option<AggregateKey>,
    /// Events whose commands this actor sent
    #[arg(long, value_name = "X")]
    actor: Option<Actor>,
    /// Events of this conversation
    #[arg(long, value_name = "C")]
    correlation: Option<CorrelationId>,
    /// Events of the command with this id
    #[arg(long, value_name = "C")]
    command: Option<CommandId>,
    /// Events of commands that this command or event caused directly
    #[arg(long, value_name = "C")]
    causation: Option<CausationId>,
    /// All that this command or event caused: its own events, those of the commands that they caused, and so on
    #[arg(long, value_name = "C")]
    caused_by: Option<CausationId>,
    /// Events of this type: opened, deposited, withdrawn or closed
    #[arg(long = "type", value_name = "T")]
    event_type: Option<String>,
    /// Events that occurred then or later, in the order of business time: RFC 3339, or a date from its begin
    #[arg(long, value_name = "T", value_parser = start_of)]
    from: Option<DateTime<Utc>>,
    /// Events that occurred until then, in the order of business time: RFC 3339, or a date to its end
    #[arg(long, value_name = "T", value_parser = end_of)]
    to: Option<DateTime<Utc>>,
    /// Events that were recorded then or later: RFC 3339, or a date from its begin
    #[arg(long, value_name = "T", value_parser = start_of)]
    recorded_from: Option<DateTime<Utc>>,
    /// Events that were recorded until then: RFC 3339, or a date to its end
    #[arg(long, value_name = "T", value_parser = end_of)]
    recorded_to: Option<DateTime<Utc>>,
    /// Events with this field, as amount=500; may be given several times
    #[arg(long = "field", value_name = "PATH=VALUE")]
    fields: Vec<PayloadField>,
}

impl Selection {
    /// The query for what was refused of them. What it can't be asked for ends the program.
    fn refused(&self, cursor: Option<String>) -> RefusedQuery {
        let others = [
            ("causation", self.causation.is_some()),
            ("caused-by", self.caused_by.is_some()),
            ("type", self.event_type.is_some()),
            ("from", self.from.is_some()),
            ("to", self.to.is_some()),
            ("field", !self.fields.is_empty()),
        ];
        if let Some((other, _)) = others.iter().find(|(_, given)| *given) {
            wrong_usage(&format!("--{other} does not go with --refused: what was refused is no event, and has none"));
        }
        RefusedQuery {
            aggregate: self.account.clone().map(stream),
            actor: self.actor.clone(),
            correlation: self.correlation.clone(),
            command: self.command.clone(),
            from: self.recorded_from,
            to: self.recorded_to,
            cursor,
            ..RefusedQuery::default()
        }
    }

    /// The query for them, the first first. What can't be meant ends the program.
    pub(crate) fn query(&self) -> Query {
        for (what, from, to) in [("", self.from, self.to), ("recorded-", self.recorded_from, self.recorded_to)] {
            if from.zip(to).is_some_and(|(from, to)| from >= to) {
                wrong_usage(&format!("--{what}from is later than --{what}to: nothing can be between"));
            }
        }
        let query = Query {
            aggregate: self.account.clone().map(stream),
            actor: self.actor.clone(),
            correlation: self.correlation.clone(),
            causation: self.causation.clone(),
            caused_by: self.caused_by.clone(),
            command: self.command.clone(),
            event_type: self.event_type.clone(),
            from: self.from,
            to: self.to,
            recorded_from: self.recorded_from,
            recorded_to: self.recorded_to,
            fields: self.fields.clone(),
            order: Order::OldestFirst,
            limit: LIMIT_MAX,
            cursor: None,
        };
        if let Err(unknown) = query.check_type(AccountEvent::TYPES) {
            wrong_usage(&format!("--type: {unknown}"));
        }
        query
    }
}

/// Brings the read models up to date and prints the entries, the first first.
pub(crate) async fn run(options: &Options, args: &Args) -> Result<(), Failure> {
    let mut query = args.selection.query();
    if args.refused {
        let query = args.selection.refused(args.cursor.clone());
        return refused::run(options, query, args.limit, args.json).await;
    }
    (query.limit, query.cursor) = (args.limit.unwrap_or(LIMIT_MAX), args.cursor.clone());
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let (mut listing, mut left) = (Listing::new(args.json), args.limit);
    loop {
        let page = query.run_readable(&models.store.database).await?;
        for entry in &page.items {
            listing.row(entry, Shown::of, print_line)?;
        }
        // A page may have fewer entries than its limit and still a next one.
        left = left.map(|left| left - page.items.len() as u32);
        query.cursor = page.next;
        if query.cursor.is_none() || left == Some(0) || listing.is_deserted() {
            break;
        }
        query.limit = left.unwrap_or(LIMIT_MAX);
    }
    let damage = listing.end(query.cursor.as_deref())?;
    models.stop().await?;
    damage.or_fail("audit")
}

/// An event in a line.
pub(crate) fn print_line(out: &mut impl Write, entry: &Entry) -> io::Result<()> {
    let event = &entry.recorded.envelope;
    let (occurred, recorded) = (shown(event.occurred_at), shown(event.recorded_at));
    let (account, version, kind) = (&event.stream.id, event.version, &event.event_type);
    let payload = String::from_utf8_lossy(&event.payload);
    let actor = event.actor.as_ref().map_or("-", Actor::as_str);
    writeln!(
        out,
        "{occurred} {account} {version} {kind} {payload} by {actor} in {} recorded {recorded}",
        event.correlation_id
    )
}

/// The stream of an account.
pub(crate) fn stream(id: AggregateKey) -> StreamId {
    StreamId { category: Account::NAME.into(), id }
}

/// An event with its metadata, as JSON shows it.
#[derive(Debug, Serialize)]
pub(crate) struct Shown<'a> {
    account: &'a str,
    version: u64,
    #[serde(rename = "type")]
    event_type: &'a str,
    schema_version: u32,
    data: Option<&'a RawValue>,
    occurred_at: String,
    recorded_at: String,
    event_id: String,
    command_id: &'a str,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    actor: Option<&'a str>,
    position: String,
    hash: String,
    previous_hash: String,
}

impl<'a> Shown<'a> {
    pub(crate) fn of(entry: &'a Entry) -> Self {
        Self::recorded(&entry.recorded)
    }

    pub(crate) fn recorded(recorded: &'a es_core::Recorded) -> Self {
        let event = &recorded.envelope;
        let category = event.stream.category.clone();
        let position = Position { category, partition: recorded.partition, offset: recorded.offset };
        Self {
            account: event.stream.id.as_str(),
            version: event.version.get(),
            event_type: &event.event_type,
            schema_version: event.schema_version,
            data: serde_json::from_slice(&event.payload).ok(),
            occurred_at: shown(event.occurred_at),
            recorded_at: shown(event.recorded_at),
            event_id: event.event_id.to_string(),
            command_id: event.command_id.as_str(),
            correlation_id: event.correlation_id.as_str(),
            causation_id: event.causation_id.as_ref().map(|id| id.as_str()),
            actor: event.actor.as_ref().map(Actor::as_str),
            position: position.to_string(),
            hash: event.hash.to_string(),
            previous_hash: event.previous_hash.to_string(),
        }
    }
}
