//! Which partitions a worker holds, brought in line with its share.

use super::run::Run;
use super::share::Plan;
use crate::error::Error;

impl Run {
    /// Brings what this worker holds in line with its share; true when that has changed, and reading has to begin anew.
    pub(super) async fn regroup(&mut self) -> Result<bool, Error> {
        let view = self.heartbeat.view.borrow_and_update().clone();
        if view.replaced {
            return Ok(true);
        }
        let Some(seen) = view.standing.as_ref() else { return Ok(false) };
        let me = self.ledger.member().name.clone();
        let before = self.ledger.held();
        let ours: Vec<_> = (0..before.len()).map(|place| seen.is_held_by(place, &me)).collect();
        if ours == before && (view.ailing || view.plan(seen, &before, &me).is_empty()) {
            return Ok(false);
        }
        // What was seen may be older than what this worker did since.
        let standing = self.ledger.look().await?;
        self.ledger.drop_lost(&standing);
        self.ledger.give_back(&self.ledger.strays(&standing)).await?;
        let plan = if view.ailing { Plan::default() } else { view.plan(&standing, &self.ledger.held(), &me) };
        self.ledger.give_back(&plan.give).await?;
        for (from, places) in &plan.take {
            // What a long transaction of the holder has locked is passed over.
            match self.ledger.take(&standing, places, from.as_ref()).await {
                Err(error) if error.is_retryable() => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "taking partitions over failed");
                }
                taken => taken?,
            }
        }
        let after = self.ledger.held();
        if after != before {
            let count = |held: &[bool]| held.iter().filter(|held| **held).count();
            let (projection, had, has) = (self.board.projection(), count(&before), count(&after));
            tracing::info!(%projection, had, has, of = after.len(), "the worker's share of the partitions changed");
        }
        Ok(after != before)
    }
}
