//! What operators ask to be done with parked aggregates.

use std::time::Duration;

use es_core::{Cause, Recorded, StreamId};
use tokio::time::Instant;

use super::run::{Run, commands, in_limits};
use super::state::Origin;
use crate::audit::Entry;
use crate::error::Error;
use crate::parked::{self, Asked};
use crate::sql::Tx;

/// Waiting events of one transaction, roughly.
const PAGE: u32 = 500;

/// For how long the events of one aggregate are folded in before others get a turn: what is left goes on at the next look.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What came of a page of waiting events.
enum Page {
    /// All are folded in, and there may be more.
    Folded,
    /// One failed, or there are no more.
    Last,
}

impl Run {
    /// Does what operators ask; what fails is done the next time. False when it is not known which aggregates are parked now:
    /// then nothing may be folded in.
    pub(super) async fn see_to_requests(&mut self) -> Result<bool, Error> {
        let wishes = self.see_to_all_requests().await?;
        // Also notices what was unparked by a commit that failed only to be told.
        let parked = self.look_for_parked().await;
        self.board.parked(self.parked.len());
        let failure = match parked {
            Ok(()) => wishes,
            Err(error) if error.is_fenced() => return Err(error),
            Err(error) => {
                self.board.trouble(Origin::Commit, error.into());
                return Ok(false);
            }
        };
        match failure {
            Some(error) => self.board.trouble(Origin::Commit, error.into()),
            None => self.board.well(Origin::Commit),
        }
        Ok(true)
    }

    /// Tells what failed last, save for the loss of the fence, which ends it.
    async fn see_to_all_requests(&self) -> Result<Option<Error>, Error> {
        let asked = parked::asked(&self.database, self.ledger.build());
        let asked = match in_limits(&self.database, "looking for what is asked", asked).await {
            Ok(asked) => asked,
            Err(error) => return Ok(Some(error)),
        };
        let mut failure = None;
        for (stream, mut asked) in asked {
            // Others see to those of their places.
            if !self.parked.contains(&stream) {
                continue;
            }
            let until = Instant::now() + AT_ONCE;
            while !self.shutdown.is_cancelled() && Instant::now() < until {
                match self.resume_in_time(&stream, &asked).await {
                    Ok(Page::Folded) => asked = Asked::Retry { seen: None },
                    Ok(Page::Last) => break,
                    Err(error) if error.is_fenced() => return Err(error),
                    Err(error) => {
                        failure = Some(error);
                        break;
                    }
                }
            }
        }
        Ok(failure)
    }

    /// Reads which aggregates are parked, when nothing of this worker's can change that any more.
    pub(super) async fn look_for_parked(&mut self) -> Result<(), Error> {
        let look = async {
            // Waits for a commit that failed only to be told.
            let mut tx = self.begin_holding().await?;
            let parked = parked::streams_in(&mut tx, self.ledger.build()).await?;
            tx.rollback().await.map(|()| parked)
        };
        let parked = in_limits(&self.database, "looking for what is parked", look).await?;
        self.note_parked(parked);
        Ok(())
    }

    /// Begins a transaction in which nobody else can take any of the places that this worker holds. It moves no checkpoint, by which
    /// the loss of its commit in a crash would show.
    async fn begin_holding(&self) -> Result<Tx, Error> {
        let mut tx = self.database.begin_durably().await?;
        if !self.ledger.holds(&mut tx).await? {
            return Err(self.ledger.fenced(0));
        }
        Ok(tx)
    }

    /// One attempt, which ends soon after the worker was asked to stop.
    async fn resume_in_time(&self, stream: &StreamId, asked: &Asked) -> Result<Page, Error> {
        match self.in_time(self.resume(stream, asked)).await {
            Some(Ok(done)) => done,
            Some(Err(slow)) => self.give_up(stream, &slow).await.map(|()| Page::Last),
            None => Ok(Page::Last),
        }
    }

    /// Answers that it failed, so that others are not kept waiting by one that hangs.
    async fn give_up(&self, stream: &StreamId, reason: &Cause) -> Result<(), Error> {
        in_limits(&self.database, "giving a wish up", async {
            let mut tx = self.begin_holding().await?;
            parked::failed_again(&mut tx, self.ledger.build(), stream, reason).await?;
            tx.commit().await
        })
        .await
    }

    /// Folds in the first of the events that wait.
    async fn resume(&self, stream: &StreamId, asked: &Asked) -> Result<Page, Error> {
        let build = self.ledger.build();
        let mut tx = self.begin_holding().await?;
        let entries = parked::first_waiting(&mut tx, build, stream, PAGE).await?;
        let more = entries.len() >= PAGE as usize;
        // Somebody else's wish may have been done since it was seen.
        let first = entries.first().map(|entry| entry.recorded.envelope.event_id);
        if asked.seen().is_some_and(|seen| first != Some(seen)) {
            parked::refuse(&mut tx, build, stream).await?;
            return tx.commit().await.map(|()| Page::Last);
        }
        let left_out = match asked {
            Asked::Retry { .. } => 0,
            Asked::Skip { by, why, .. } => {
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
