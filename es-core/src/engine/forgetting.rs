//! By which time command ids are forgotten.

use serde::{Deserialize, Serialize};

use crate::engine::store::key::Spans;

/// By which time command ids are forgotten. It follows the partition's time, which is the earlier of log and clock, and
/// lags an eighth to a quarter of the retention behind it. A clock that is wrong for no longer than that makes nothing
/// forgotten, however far ahead it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Forgetting {
    pub(crate) by_ms: i64,
    /// The time that comes next, once the partition's time has gone on from there.
    pub(crate) next_ms: i64,
}

impl Forgetting {
    /// Notes the partition's time.
    pub(crate) fn follow(&mut self, time_ms: i64, spans: Spans) {
        if time_ms < self.next_ms {
            // The clock was ahead, and was set right.
            *self = Self { by_ms: self.by_ms.min(time_ms), next_ms: time_ms };
        } else if time_ms.saturating_sub(self.next_ms) >= spans.retention_ms / 8 {
            *self = Self { by_ms: self.next_ms, next_ms: time_ms };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: Spans = Spans { retention_ms: 800 };

    fn after(times: impl IntoIterator<Item = i64>) -> i64 {
        let mut forgetting = Forgetting::default();
        times.into_iter().for_each(|time_ms| forgetting.follow(time_ms, SPANS));
        forgetting.by_ms
    }

    #[test]
    fn it_lags_an_eighth_to_a_quarter_of_the_retention_behind() {
        let mut forgetting = Forgetting::default();
        for time_ms in 1_000..10_000 {
            forgetting.follow(time_ms, SPANS);
            let lag_ms = time_ms - forgetting.by_ms;
            assert!(time_ms < 1_100 || (100..200).contains(&lag_ms), "{lag_ms} at {time_ms}");
        }
    }

    #[test]
    fn a_jump_counts_once_the_time_has_gone_on_from_there() {
        assert_eq!(after([1_000, 1_100, 1_000_000]), 1_100);
        assert_eq!(after([1_000, 1_100, 1_000_000, 1_000_099]), 1_100);
        assert_eq!(after([1_000, 1_100, 1_000_000, 1_000_100]), 1_000_000);
    }

    #[test]
    fn a_clock_that_is_set_right_is_followed_from_there() {
        assert_eq!(after([1_000, 1_100, 1_000_000, 1_200, 1_300]), 1_200);
        assert_eq!(after([1_000, 1_000_000, 1_000_100, 1_200]), 1_200);
    }
}
