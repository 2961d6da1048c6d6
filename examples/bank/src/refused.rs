//! Attempts that were refused: `bank audit --refused`, and how they are shown.

use std::io::{self, Write};

use es_core::Actor;
use es_projections::audit::{LIMIT_MAX, Refused, RefusedQuery};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::{Options, ReadModels};
use crate::damaged::Listing;
use crate::domain::AccountError;
use crate::failure::Failure;
use crate::time::shown;

/// A refused command with its metadata, as JSON shows it.
#[derive(Debug, Serialize)]
pub(crate) struct ShownRefused<'a> {
    account: &'a str,
    version: u64,
    command_id: &'a str,
    command_type: Option<&'a str>,
    correlation_id: &'a str,
    causation_id: Option<&'a str>,
    actor: Option<&'a str>,
    recorded_at: String,
    answer: &'a str,
    why: String,
    /// What was answered, as it is in the log.
    reason: Option<&'a RawValue>,
    position: String,
}

impl<'a> ShownRefused<'a> {
    pub(crate) fn of(refused: &'a Refused) -> Self {
        let Refused { stream, version, command_id, command_type, correlation_id, causation_id, actor, .. } = refused;
        let (category, partition, offset) = (&stream.category, refused.partition, refused.offset);
        Self {
            account: stream.id.as_str(),
            version: version.get(),
            command_id: command_id.as_str(),
            command_type: command_type.as_deref(),
            correlation_id: correlation_id.as_str(),
            causation_id: causation_id.as_ref().map(|id| id.as_str()),
            actor: actor.as_ref().map(Actor::as_str),
            recorded_at: shown(refused.recorded_at),
            answer: &refused.answer,
            why: why(refused),
            reason: serde_json::from_str(&refused.reason).ok(),
            position: format!("{category}/{partition}@{offset}"),
        }
    }
}

/// Why, for people.
fn why(refused: &Refused) -> String {
    if refused.answer == "conflict" {
        return format!("the account was at version {}, expected was {}", refused.version, refused.reason);
    }
    serde_json::from_str::<AccountError>(&refused.reason)
        .map_or_else(|_| refused.reason.clone(), |error| error.to_string())
}

/// Brings the read models up to date and prints what was refused, the newest first.
pub(crate) async fn run(
    options: &Options,
    mut query: RefusedQuery,
    limit: Option<u32>,
    json: bool,
) -> Result<(), Failure> {
    let models = ReadModels::open_to_read(options).await?;
    models.catch_up().await?;
    let (mut listing, mut left) = (Listing::new(json), limit);
    loop {
        query.limit = left.unwrap_or(LIMIT_MAX);
        let page = query.run_readable(&models.store.database).await?;
        for refused in &page.items {
            listing.row(refused, ShownRefused::of, print_line)?;
        }
        left = left.map(|left| left - page.items.len() as u32);
        query.cursor = page.next;
        if query.cursor.is_none() || left == Some(0) || listing.is_deserted() {
            break;
        }
    }
    let damage = listing.end(query.cursor.as_deref())?;
    models.stop().await?;
    damage.or_fail("audit")
}

fn print_line(out: &mut impl Write, refused: &Refused) -> io::Result<()> {
    let (time, account, version) = (shown(refused.recorded_at), &refused.stream.id, refused.version);
    let kind = refused.command_type.as_deref().unwrap_or("a command");
    let actor = refused.actor.as_ref().map_or("-", Actor::as_str);
    let (command, answer, why) = (&refused.command_id, &refused.answer, why(refused));
    writeln!(
        out,
        "{time} {account} {version} {kind} {command} by {actor} in {} {answer}: {why}",
        refused.correlation_id
    )
}
