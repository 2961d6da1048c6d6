//! What became of commands whose append was in doubt.

use super::{Known, Owner};
use crate::domain::aggregate::{Apply, Handle};
use crate::domain::error::NotDone;
use crate::engine::round::Pending;

impl<A: Handle + Apply> Owner<A> {
    /// The log was read to a claim above the one in doubt: what is in it happened, what is not did not and never will.
    pub(super) fn settle(&self, known: &mut Option<Known<A>>, doubtful: &mut Vec<Pending>) {
        let Some(known) = known else { return };
        for pending in doubtful.drain(..) {
            match known.state.recorded(&pending.id, &pending.command) {
                Ok(found) => {
                    let found = found.filter(|found| pending.may_be(found, self.limits.state.spans));
                    match found.and_then(|known| known.told(pending.expected)) {
                        Some(answer) => pending.answer(&answer),
                        // Nobody can tell: what was recorded may have been forgotten since.
                        None if pending.may_be_forgotten(known.state.last_recorded_ms(), self.limits.state.spans) => {}
                        None => pending.not_done(&NotDone::NotInLog),
                    }
                }
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "settling a command"),
            }
        }
    }
}
