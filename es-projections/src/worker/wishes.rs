//! What operators ask to be done with parked aggregates.

use es_core::{Recorded, StreamId};

use super::run::{Run, commands};
use super::state::Origin;
use crate::audit::Entry;
use crate::error::Error;
use crate::parked::{self, Asked};

/// Waiting events of one transaction, roughly.
const PAGE: u32 = 500;

/// What came of a page of waiting events.
enum Page {
    /// All are folded in, and there may be more.
    Folded,
    /// One failed, or there are no more.
    Last,
}

impl Run {
    /// Does what operators ask. Where the database fails it is done the next time.
    pub(super) async fn see_to_wishes(&mut self) -> Result<(), Error> {
        match self.try_see_to_wishes().await {
            Err(error) if error.is_retryable() => {
                self.board.trouble(Origin::Commit, error.into());
                Ok(())
            }
            done => done,
        }
    }

    async fn try_see_to_wishes(&mut self) -> Result<(), Error> {
        for (stream, asked) in parked::asked(&self.database, self.ledger.build()).await? {
            let mut asked = asked;
            while let Page::Folded = self.resume(&stream, &asked).await? {
                asked = Asked::Retry;
            }
        }
        // Also notices what was unparked by a commit that failed only to be told.
        let parked = parked::streams(&self.database, self.ledger.build()).await?;
        self.parked = parked.into_iter().collect();
        self.board.parked(self.parked.len());
        Ok(())
    }

    /// Folds in the first of the events that wait.
    async fn resume(&self, stream: &StreamId, asked: &Asked) -> Result<Page, Error> {
        let build = self.ledger.build();
        let mut tx = self.database.begin().await?;
        if !self.ledger.holds(&mut tx).await? {
            return Err(self.ledger.fenced(0));
        }
        let entries = parked::first_waiting(&mut tx, build, stream, PAGE).await?;
        let more = entries.len() >= PAGE as usize;
        let left_out = match asked {
            Asked::Retry => 0,
            Asked::Skip { by, why } => {
                let first = first_command(&entries);
                parked::skip(&mut tx, build, &entries[..first], by, why).await?;
                first
            }
        };
        let events: Vec<Recorded> = entries.into_iter().map(|entry| entry.recorded).collect();
        let mut folded = left_out;
        let mut failure = None;
        for command in commands(&events[left_out..]) {
            failure = self.fold_command(&mut tx, command).await?;
            if failure.is_some() {
                break;
            }
            folded += command.len();
        }
        parked::done(&mut tx, build, &events[..folded]).await?;
        match &failure {
            Some(reason) => parked::failed_again(&mut tx, build, stream, reason).await?,
            None if more => parked::go_on(&mut tx, build, stream).await?,
            None => parked::unpark(&mut tx, build, stream).await?,
        }
        tx.commit().await?;
        let projection = self.board.projection();
        match &failure {
            Some(_) => tracing::warn!(%projection, %stream, folded, "parked still"),
            None => tracing::info!(%projection, %stream, folded, "what waited is folded in"),
        }
        Ok(if failure.is_none() && more { Page::Folded } else { Page::Last })
    }
}

/// How many of the entries are of the first one's command.
fn first_command(entries: &[Entry]) -> usize {
    let command = |entry: &Entry| entry.recorded.envelope.command_id.clone();
    let first = entries.first().map(command);
    entries.iter().take_while(|entry| Some(command(entry)) == first).count()
}
