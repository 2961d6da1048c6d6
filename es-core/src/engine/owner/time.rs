//! Whether an owner may serve by the clocks: the log's, the machine's, and one that nobody sets.

use std::fmt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};

use super::{Known, Obstacle, Owner};
use crate::domain::aggregate::{Apply, Handle};
use crate::domain::clock::Clock;
use crate::log::reader::record_at;
use crate::log::record::{Decoded, decode};

/// How many claims are looked at for the one under which the last record was written.
const CLAIMS_MAX: usize = 100;

/// How far clocks may differ.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TimeLimits {
    pub(crate) skew_max_ms: i64,
    /// An operator has a log served whose time is ahead, up to this one.
    pub(crate) accepted_until_ms: Option<i64>,
}

/// Compares the clock with one that nobody sets.
#[derive(Debug)]
pub(crate) struct Pace {
    /// By how much the clock is ahead of that one, when both were last looked at.
    offset_ms: i64,
    /// The offset after a jump, and since when it is that.
    jumped: Option<(i64, i64)>,
}

impl Pace {
    pub(crate) fn of(clock: &dyn Clock) -> Self {
        Self { offset_ms: clock.now_ms() - clock.steady_ms(), jumped: None }
    }

    /// The clock's time, unless it jumped ahead by more than `max_ms`. A clock that keeps its new time for as long is
    /// believed: a machine that slept is right to jump.
    pub(super) fn time_ms(&mut self, clock: &dyn Clock, max_ms: i64) -> Result<i64, Untimely> {
        let (steady_ms, now_ms) = (clock.steady_ms(), clock.now_ms());
        let offset_ms = now_ms - steady_ms;
        let ahead_ms = offset_ms.saturating_sub(self.offset_ms);
        let (at, since) = match self.jumped {
            Some((at, since)) if (offset_ms - at).abs() <= max_ms => (at, since),
            _ => (offset_ms, steady_ms),
        };
        if ahead_ms <= max_ms || steady_ms - since >= max_ms {
            *self = Self { offset_ms, jumped: None };
            return Ok(now_ms);
        }
        self.jumped = Some((at, since));
        Err(Untimely::ClockJumped { ahead_ms, believed_after_ms: max_ms })
    }
}

/// Why a partition is not served for the sake of time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untimely {
    #[error(
        "the last record of {place} was recorded at {at} by {by}, {} ahead of this machine's clock: set the clock right, or \
         wait until it is as late; a log whose time is to stay so is served with accept_time_until at {at} or later", Span(*ahead_ms)
    )]
    LogAhead { place: String, at: String, by: String, ahead_ms: i64 },
    #[error(
        "this machine's clock jumped ahead by {}: set it right; it is believed when it has kept that time for {}",
        Span(*ahead_ms), Span(*believed_after_ms)
    )]
    ClockJumped { ahead_ms: i64, believed_after_ms: i64 },
}

/// Milliseconds for people.
struct Span(i64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = TimeDelta::milliseconds(self.0);
        match (span.num_days(), span.num_hours(), span.num_minutes()) {
            (days @ 2.., ..) => write!(f, "{days} days"),
            (_, hours @ 2.., _) => write!(f, "{hours} hours"),
            (.., minutes @ 2..) => write!(f, "{minutes} minutes"),
            _ => write!(f, "{} s", span.num_seconds()),
        }
    }
}

impl<A: Handle + Apply> Owner<A> {
    /// The clock's time, unless it has jumped since it was last looked at.
    pub(super) fn clock_ms(&mut self) -> Result<i64, Obstacle> {
        Ok(self.pace.time_ms(self.clock.as_ref(), self.limits.time.skew_max_ms)?)
    }

    /// The same, unless the log is further ahead of it than clocks may differ. Recorded time never falls: whatever is
    /// recorded from then on would carry the time of a clock that was wrong.
    pub(super) async fn timely_ms(&mut self, known: &Known<A>) -> Result<i64, Obstacle> {
        let now_ms = self.clock_ms()?;
        let TimeLimits { skew_max_ms, accepted_until_ms } = self.limits.time;
        let last_ms = known.state.last_recorded_ms();
        let ahead_ms = last_ms.saturating_sub(now_ms);
        if ahead_ms <= skew_max_ms || accepted_until_ms.is_some_and(|until| last_ms <= until) {
            return Ok(now_ms);
        }
        let place = format!("{}/{}", self.source.topic, self.partition);
        let at = DateTime::<Utc>::from_timestamp_millis(last_ms).unwrap_or_default();
        let at = at.to_rfc3339_opts(SecondsFormat::Millis, true);
        let by = self.last_recorder(known).await?;
        Err(Untimely::LogAhead { place, at, by, ahead_ms }.into())
    }

    /// Who wrote the last record: claims name the node, and each names the claim before it.
    async fn last_recorder(&self, known: &Known<A>) -> Result<String, Obstacle> {
        let current = known.reader.current();
        let epoch = known.reader.checkpoint().last.map_or(current.epoch, |last| last.epoch);
        let mut offset = current.claim_offset;
        for _ in 0..CLAIMS_MAX {
            let found = record_at(self.log.as_ref(), &self.source.topic, self.partition, offset).await?;
            let Some(Decoded::Claim(claim)) = found.map(|found| decode(&found.record)) else { break };
            if claim.epoch == epoch {
                return Ok(format!("node {} under claim {epoch}", claim.node));
            }
            let Some(previous) = claim.previous else { break };
            offset = previous.offset;
        }
        Ok(format!("the writer of claim {epoch}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::clock::ManualClock;

    #[test]
    fn a_clock_that_jumps_is_believed_when_it_keeps_its_time() {
        let clock = ManualClock::at(1_700_000_000_000);
        let mut pace = Pace::of(&clock);
        let jumped = |pace: &mut Pace| match pace.time_ms(&clock, 300_000) {
            Ok(now_ms) => {
                assert_eq!(now_ms, clock.now_ms());
                None
            }
            Err(Untimely::ClockJumped { ahead_ms, .. }) => Some(ahead_ms),
            Err(other) => panic!("{other}"),
        };
        clock.advance(86_400_000); // time goes by
        assert_eq!(jumped(&mut pace), None);
        clock.jump(300_000);
        assert_eq!(jumped(&mut pace), None, "clocks are set now and then");
        clock.jump(8 * 86_400_000);
        assert_eq!(jumped(&mut pace), Some(8 * 86_400_000));
        clock.advance(299_999);
        assert_eq!(jumped(&mut pace), Some(8 * 86_400_000));
        clock.jump(-8 * 86_400_000);
        assert_eq!(jumped(&mut pace), None, "it was set right");
        clock.jump(8 * 86_400_000);
        assert!(jumped(&mut pace).is_some());
        clock.advance(299_999);
        clock.jump(86_400_000);
        assert!(jumped(&mut pace).is_some());
        clock.advance(299_999);
        assert!(jumped(&mut pace).is_some(), "it jumped again meanwhile");
        clock.advance(1);
        assert_eq!(jumped(&mut pace), None, "it kept that time");
        assert_eq!(jumped(&mut pace), None);
        clock.jump(-9 * 86_400_000);
        assert_eq!(jumped(&mut pace), None, "recorded time stands still, and nothing is forgotten");
    }
}
