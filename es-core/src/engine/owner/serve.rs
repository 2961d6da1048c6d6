//! Serving, which is the write path: rounds of commands are decided, appended at once, and told when they are proven.

use std::sync::atomic::Ordering;

use super::{Claimed, Inbox, Known, Left, Obstacle, Owner, revoked};
use crate::domain::aggregate::{Apply, Handle};
use crate::domain::causes::with_causes;
use crate::domain::ids::Epoch;
use crate::engine::owner_state::OwnerState;
use crate::engine::retry::{Refolded, Retried};
use crate::engine::round::{Closed, Job, Pending, Round};
use crate::engine::store::StoreError;

impl<A: Handle + Apply> Owner<A> {
    /// Rounds, until something comes between.
    pub(super) async fn serve(
        &mut self,
        known: &mut Known<A>,
        mut claimed: Claimed,
        inbox: &mut Inbox<A>,
        queued: &mut Vec<Job<A>>,
    ) -> Left {
        self.status.send_replace(OwnerState::Serving);
        let mut sequence = 0;
        let shutdown = self.shutdown.clone();
        let mut mandate = self.mandate.clone();
        loop {
            if !mandate.borrow().is_held() {
                return Left::Revoked;
            }
            while let Ok(refolded) = self.refolded.try_recv() {
                if let Err(error) = resume(known, &claimed, refolded) {
                    return Left::Store(error);
                }
            }
            if queued.is_empty() {
                let received = tokio::select! {
                    biased;
                    () = shutdown.cancelled() => return Left::Shutdown,
                    () = revoked(&mut mandate) => return Left::Revoked,
                    Some(refolded) = self.refolded.recv() => match resume(known, &claimed, refolded) {
                        Ok(()) => continue,
                        Err(error) => return Left::Store(error),
                    },
                    received = inbox.recv_many(queued, self.limits.round_max) => received, // no timer
                };
                if received == 0 {
                    return Left::Shutdown; // every bus is gone
                }
            }
            let now_ms = match self.timely_ms(known).await {
                Ok(now_ms) => now_ms,
                Err(obstacle) => return Left::Untimely(obstacle),
            };
            let mut closed = match self.decide(known, claimed.epoch, sequence, now_ms, inbox, queued).await {
                Ok(closed) => closed,
                Err(error) => return Left::Store(error),
            };
            if closed.records.is_empty() {
                continue; // every command was answered from memory
            }
            let records = std::mem::take(&mut closed.records);
            let count = records.len();
            let append = claimed.writer.append(records);
            match tokio::time::timeout(self.limits.append_deadline, append).await {
                Ok(Ok(offsets)) if follows_on(&offsets, claimed.offset + closed.first_sequence, count) => {
                    sequence = closed.last_sequence;
                    self.publish(known, closed, &claimed);
                }
                Ok(Ok(offsets)) => {
                    return self.doubt(&Gap { claimed: claimed.offset, sequence, offsets }, closed.into_pending());
                }
                Ok(Err(error)) => return self.doubt(&error, closed.into_pending()),
                Err(_) => return self.doubt(&Obstacle::Deadline(self.limits.append_deadline), closed.into_pending()),
            }
            if let Err(error) = known.state.flush_if_due(|| known.reader.checkpoint()).await {
                return Left::Store(error);
            }
        }
    }

    /// Decides what is queued; a round of answers alone waits a moment for company.
    async fn decide(
        &mut self,
        known: &mut Known<A>,
        epoch: Epoch,
        sequence: u64,
        now_ms: i64,
        inbox: &mut Inbox<A>,
        queued: &mut Vec<Job<A>>,
    ) -> Result<Closed<A>, StoreError> {
        let mut round = Round::new(&self.context, &mut known.state, epoch, sequence);
        round.at(now_ms);
        let mut lingered = false;
        loop {
            let mut rest = std::mem::take(queued).into_iter();
            while round.bytes() < self.limits.round_max_bytes
                && let Some(job) = rest.next()
            {
                if let Err(error) = round.decide(job) {
                    queued.extend(rest);
                    return Err(error);
                }
            }
            queued.extend(rest);
            if lingered || !round.has_only_answers() {
                return Ok(round.close());
            }
            lingered = true;
            let company = inbox.recv_many(queued, self.limits.round_max);
            let _ = tokio::time::timeout(self.limits.linger, company).await; // cancel safe: nothing is lost
            // A clock that jumped is seen to before the next round.
            if let Ok(now_ms) = self.pace.time_ms(self.clock.as_ref(), self.limits.time.skew_max_ms) {
                round.at(now_ms);
            }
        }
    }

    fn publish(&self, known: &mut Known<A>, closed: Closed<A>, claimed: &Claimed) {
        let records = closed.last_sequence + 1 - closed.first_sequence;
        self.counters.rounds.fetch_add(1, Ordering::Relaxed);
        self.counters.records.fetch_add(records, Ordering::Relaxed);
        known.reader.proven(closed.last_record(claimed.offset));
        closed.publish(&mut known.state, claimed.offset);
    }

    fn doubt(&self, why: &dyn std::error::Error, pending: Vec<Pending>) -> Left {
        self.counters.doubts.fetch_add(1, Ordering::Relaxed);
        let commands = pending.len();
        tracing::warn!(topic = %self.source.topic, partition = self.partition, commands, why = with_causes(why), "an append is in doubt");
        self.status.send_replace(OwnerState::TakingOver { reason: "an append is in doubt".into() });
        Left::Doubt(pending)
    }
}

/// Takes the state of a parked aggregate that was read while it was parked, under this claim. It decides nothing then, so
/// all its events are in the state.
fn resume<A: Handle + Apply>(known: &mut Known<A>, claimed: &Claimed, refolded: Refolded<A>) -> Result<(), StoreError> {
    let Refolded { aggregate, entry, read_to, resumed, taken } = refolded;
    let before = known.state.entry(&aggregate)?;
    let retried = if before.parked.is_none() {
        Retried::NotParked
    } else if read_to > claimed.offset && known.state.resume(aggregate, &before, entry, resumed) {
        Retried::Resumed
    } else {
        return Ok(()); // nothing is told
    };
    let _ = taken.send(retried); // the caller may have gone
    Ok(())
}

/// Whether the reports are exactly the offsets that follow: then no other record, and so no claim, came between.
fn follows_on(offsets: &[u64], first: u64, count: usize) -> bool {
    offsets.len() == count && offsets.iter().zip(first..).all(|(reported, expected)| *reported == expected)
}

#[derive(Debug, thiserror::Error)]
#[error("after sequence {sequence} of the claim at offset {claimed} the log reported {offsets:?}")]
struct Gap {
    claimed: u64,
    sequence: u64,
    offsets: Vec<u64>,
}
