//! Taking a partition over: what the log has is folded, and a claim shuts out whoever wrote before.

use std::sync::atomic::Ordering;

use uuid::Uuid;

use super::{Claimed, Known, Obstacle, Owner};
use crate::domain::aggregate::{Apply, Handle};
use crate::domain::ids::Epoch;
use crate::domain::text::short;
use crate::engine::state::PartitionState;
use crate::log::reader::{Fed, PartitionReader, verify_checkpoint};
use crate::log::record::{Claim, PreviousClaim};
use crate::log::{Batch, LogReader, LogWriter};

/// The first claim in a copy is as far as this above those that were copied: what the source claims from then on, and a
/// copier brings that is late, is below it.
const ABOVE_SOURCE: u64 = 1 << 32;

impl<A: Handle + Apply> Owner<A> {
    /// Catches up, claims, and reads to the claim. Harmless to repeat, and to drop: an unused claim only voids.
    pub(super) async fn take_over(&mut self, known: &mut Option<Known<A>>) -> Result<Claimed, Obstacle> {
        self.clock_ms()?;
        match known {
            // What was read may be gone by now, and other records at its place.
            Some(known) => {
                let checkpoint = known.reader.checkpoint();
                verify_checkpoint(self.log.as_ref(), &self.source, self.partition, &checkpoint).await?;
            }
            None => *known = Some(self.open().await?),
        }
        let known = known.as_mut().expect("opened just now");
        let before = known.reader.current().epoch;
        let topic = self.source.topic.clone();
        // Both take a while to open.
        let writer = async { Ok(self.log.writer(&topic, self.partition).await?) };
        let (mut tail, mut writer) = futures::try_join!(self.catch_up(known), writer)?;
        self.timely_ms(known).await?;
        let current = known.reader.current();
        let grant = self.mandate.borrow().grant();
        let another_came = current.epoch != before && !self.claims.writers.contains(&current.epoch.writer);
        if another_came && self.claims.grant == Some(grant) {
            return Err(self.superseded(known)); // it claimed later, and the group has not spoken since: it is right
        }
        let above = if current.copied { ABOVE_SOURCE } else { 1 };
        let epoch = Epoch { number: current.epoch.number + above, writer: self.context.random.u64() };
        self.claims.note(epoch, grant);
        let offset = self.append_claim(known, writer.as_mut(), epoch).await?;
        self.read_to(known, tail.as_mut(), offset + 1).await?;
        let current = known.reader.current();
        if current.epoch != epoch && self.claims.writers.contains(&current.epoch.writer) {
            return Err(Obstacle::OwnClaim(current.epoch)); // one whose report was lost landed late, before this one
        }
        // The epoch alone does not tell: a copy of this machine may have drawn the same bits.
        if (current.epoch, current.claim_offset) != (epoch, offset) {
            return Err(self.superseded(known));
        }
        if current.copied {
            return Err(Obstacle::Copied); // it began while the claim was on its way
        }
        self.timely_ms(known).await?; // by what the owner before wrote last
        tracing::info!(%topic, partition = self.partition, %epoch, offset, "took over a partition");
        self.claims.served = epoch.number;
        if let Some(snapshots) = &self.snapshots {
            known.state.keep_snapshots(snapshots, epoch);
        }
        Ok(Claimed { epoch, offset, writer })
    }

    /// Reads to the end of the log, and what reads on.
    async fn catch_up(&self, known: &mut Known<A>) -> Result<Box<dyn LogReader>, Obstacle> {
        let topic = &self.source.topic;
        let end = self.log.bounds(topic, self.partition).await?.end;
        let mut tail = self.log.reader(topic, &[(self.partition, known.reader.next())]).await?;
        self.read_to(known, tail.as_mut(), end).await?;
        Ok(tail)
    }

    pub(super) async fn open(&self) -> Result<Known<A>, Obstacle> {
        let store = self.folder.store()?;
        if let Some(snapshots) = &self.snapshots {
            snapshots.restore_where_quicker(&store).await;
        }
        let (state, checkpoint) = PartitionState::open(
            self.partition,
            store,
            self.clock.clone(),
            self.limits.state,
            self.counters.parked.clone(),
        )?;
        verify_checkpoint(self.log.as_ref(), &self.source, self.partition, &checkpoint).await?;
        let reader = PartitionReader::resume(self.source.clone(), self.partition, &checkpoint);
        self.counters.read_to.store(reader.next(), Ordering::Relaxed);
        Ok(Known { state, reader })
    }

    async fn append_claim(&self, known: &Known<A>, writer: &mut dyn LogWriter, epoch: Epoch) -> Result<u64, Obstacle> {
        let current = known.reader.current();
        let previous = (current.epoch.number > 0).then_some(PreviousClaim {
            number: current.epoch.number,
            writer: current.epoch.writer,
            offset: current.claim_offset,
        });
        let log_id = match known.reader.log_id() {
            id if id.is_nil() => Uuid::from_u128(self.context.random.u128()),
            id => id,
        };
        let partitions = Some(self.source.partitions);
        let program = Some(self.program.clone());
        let claim = Claim { epoch, log_id, node: self.node.clone(), program, partitions, previous, copy: current.copy };
        let now_ms = self.clock.now_ms().max(known.state.last_recorded_ms());
        let append = writer.append(vec![self.context.encoder.claim(&claim, now_ms)]);
        let deadline = self.limits.append_deadline;
        let offsets = tokio::time::timeout(deadline, append)
            .await
            .map_err(|_| Obstacle::Deadline(deadline))?
            .map_err(Obstacle::Claim)?;
        Ok(offsets[0])
    }

    /// Reads and folds up to, not including, offset `end`.
    async fn read_to(&self, known: &mut Known<A>, tail: &mut dyn LogReader, end: u64) -> Result<(), Obstacle> {
        while known.reader.next() < end {
            let batch = tail.next().await?;
            self.fold(known, batch)?;
            known.state.flush_if_due(|| known.reader.checkpoint()).await?;
        }
        Ok(())
    }

    pub(super) fn fold(&self, known: &mut Known<A>, batch: Batch) -> Result<(), Obstacle> {
        for stored in batch.records {
            let (offset, timestamp_ms) = (stored.offset, stored.record.timestamp_ms);
            let before = known.reader.checkpoint();
            let fed = known.reader.feed(stored)?;
            self.note(&fed, offset);
            known.state.replay(fed, offset, timestamp_ms, &before)?;
        }
        known.reader.skip_to(batch.next);
        self.counters.read_to.store(known.reader.next(), Ordering::Relaxed);
        Ok(())
    }

    /// Counts and logs what does not count as an event.
    fn note(&self, fed: &Fed, offset: u64) {
        let (topic, partition) = (&self.source.topic, self.partition);
        match fed {
            Fed::Void(reason) => {
                self.counters.void.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%topic, partition, offset, ?reason, "void record");
            }
            Fed::Foreign(reason) => {
                self.counters.foreign.fetch_add(1, Ordering::Relaxed);
                if let Some(left_out) = self.seldom.note() {
                    let reason = short(reason);
                    tracing::warn!(%topic, partition, offset, %reason, left_out, "foreign record");
                }
            }
            Fed::Nothing | Fed::Events(_) | Fed::Erased(_) | Fed::Answers(_) | Fed::Claim(_) | Fed::Copied(_) => {}
        }
    }

    pub(super) fn superseded(&self, known: &Known<A>) -> Obstacle {
        let epoch = known.reader.current().epoch;
        Obstacle::Superseded { by: format!("{} (claim {epoch})", known.reader.node()) }
    }
}
