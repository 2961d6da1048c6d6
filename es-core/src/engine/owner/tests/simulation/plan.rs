//! What may happen in a run, drawn from its seed, and what is to be reached over all runs.

use std::collections::BTreeMap;
use std::time::Duration;

/// What may happen in a run beside what always may: crashes, lost and late appends, claims against each other, strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hazard {
    /// Ids are forgotten within the run.
    Retention,
    /// Clocks are off by more than the retention, each process's by its own, and jump.
    Clocks,
    /// Commands that can't be done.
    Failures,
    /// Commands on the topic, several behind each other.
    Topic,
    /// Another retention after a restart.
    Settings,
    /// The group forgets where it was.
    Offsets,
    /// The topics of commands, replies and snapshots are made anew.
    TopicsAnew,
    /// State is on a disk.
    Disk,
    /// Some processes are of the release before.
    Releases,
}

impl Hazard {
    const ALL: [Self; 9] = [
        Self::Retention,
        Self::Clocks,
        Self::Failures,
        Self::Topic,
        Self::Settings,
        Self::Offsets,
        Self::TopicsAnew,
        Self::Disk,
        Self::Releases,
    ];
}

#[derive(Debug, Clone)]
pub(super) struct Plan {
    hazards: Vec<Hazard>,
    /// How long a command id is remembered.
    pub(super) retention: Duration,
}

impl Plan {
    /// `SIM_HAZARDS=Topic,Clocks` leaves out all others.
    pub(super) fn of(rng: &mut fastrand::Rng) -> Self {
        let only = std::env::var("SIM_HAZARDS").ok();
        let mut hazards = Vec::new();
        for hazard in Hazard::ALL {
            // The disk takes real time.
            let drawn = rng.u32(..if hazard == Hazard::Disk { 50 } else { 3 }) == 0;
            let named = |only: &String| only.split(',').any(|name| name == format!("{hazard:?}"));
            let allowed = only.as_ref().is_none_or(named);
            if drawn && allowed {
                hazards.push(hazard);
            }
        }
        let hours = *rng.choice(&[1, 24, 24 * 7]).expect("some");
        Self { hazards, retention: Duration::from_secs(hours * 3600) }
    }

    pub(super) fn has(&self, hazard: Hazard) -> bool {
        self.hazards.contains(&hazard)
    }

    /// One that happens now and then, if there is any.
    pub(super) fn any(&self, rng: &mut fastrand::Rng) -> Option<Hazard> {
        rng.choice(&self.hazards).copied()
    }

    /// The retention of a process that starts.
    pub(super) fn any_retention(&self, rng: &mut fastrand::Rng) -> Duration {
        match (self.has(Hazard::Settings), rng.u32(..4)) {
            (true, 0) => self.retention / 2,
            (true, 1) => self.retention * 2,
            (true, 2) => self.retention + self.retention / 7,
            _ => self.retention,
        }
    }

    /// How long a command of the topic may live by the longest of those.
    pub(super) fn longest_life(&self) -> Duration {
        if self.has(Hazard::Settings) { self.retention } else { self.retention / 2 }
    }

    pub(super) fn shortest_retention(&self) -> Duration {
        if self.has(Hazard::Settings) { self.retention / 2 } else { self.retention }
    }
}

/// What some run must have come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// A command took effect again after its id was forgotten.
    DoneAgain,
    /// The clock of a process that served was further ahead, or behind, than the retention; or was set while it served.
    ClockAhead,
    ClockBehind,
    ClockSet,
    Panicked,
    TooLarge,
    TooMany,
    Parked,
    /// A command that can't be read was answered.
    Malformed,
    Expired,
    /// An owner of the release before was asked for what only the next one knows.
    NotKnown,
    /// Two commands of one client over the topic, both decided.
    InOrder,
    /// Of these the second was on the topic before the first was decided.
    InFlight,
    RetentionLonger,
    RetentionShorter,
    OffsetsLost,
    /// The group's offset was beyond the end of the topic.
    OffsetBeyondEnd,
    CommandsAnew,
    RepliesAnew,
    SnapshotsAnew,
    DiskReopened,
    /// Processes of both releases lived at once.
    BothReleases,
    /// A sending was told that nothing was done, or that the outcome is unknown, and another one did it.
    NotDoneThenDone,
    UnknownThenDone,
}

impl Reach {
    pub(super) const ALL: [Self; 24] = [
        Self::DoneAgain,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::ClockSet,
        Self::Panicked,
        Self::TooLarge,
        Self::TooMany,
        Self::Parked,
        Self::Malformed,
        Self::Expired,
        Self::NotKnown,
        Self::InOrder,
        Self::InFlight,
        Self::RetentionLonger,
        Self::RetentionShorter,
        Self::OffsetsLost,
        Self::OffsetBeyondEnd,
        Self::CommandsAnew,
        Self::RepliesAnew,
        Self::SnapshotsAnew,
        Self::DiskReopened,
        Self::BothReleases,
        Self::NotDoneThenDone,
        Self::UnknownThenDone,
    ];
}

/// How often a run came to each.
pub(super) type Reached = BTreeMap<Reach, u64>;
