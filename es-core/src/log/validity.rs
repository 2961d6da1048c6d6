//! The validity rule: which records of a partition count. Decided by the log, the same for every reader, in
//! constant memory.
//!
//! Several processes may believe that they own a partition, and what a paused or cut-off one sent may land late.
//! The claim that stands last in the log decides: only its writer's records count, in its sequence, and none that
//! lies lower than where that sequence can be. Owner, projections, audit and tools all read through this.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::ids::Epoch;
use crate::log::record::Stamp;

/// The rule's state: the current claim, the last sequence, and what is held of one command.
#[derive(Debug, Clone)]
pub struct Rule<T> {
    current: Current,
    held: Vec<(u64, u64, T)>,
}

/// The state without what is held: what a checkpoint stores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The epoch of the current claim; number 0 before the first.
    pub epoch: Epoch,
    /// The offset of the current claim.
    pub claim_offset: u64,
    /// The sequence of the last record that counted; 0 right after the claim.
    pub last_sequence: u64,
    /// The id of the copy, where the partition is one: the owners of the copy claim under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<Uuid>,
    /// Whether the records so far are copied, so that their offsets mean nothing: until an owner of the copy claims.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub copied: bool,
}

/// What a record is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict<T> {
    /// It counts and completes a command: these are the command's events.
    Released(Vec<T>),
    /// It counts; more of its command must come first.
    Held,
    /// It does not count.
    Void(VoidReason),
}

/// Why a record does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum VoidReason {
    /// Its number is below the current claim's: a superseded writer.
    Superseded,
    /// Its number is above the current claim's: a claim was lost. Alarm; do not serve.
    LostClaim,
    /// It has the current number and another writer: the loser of a duel, or a copy.
    OtherWriter,
    /// Its sequence is not above the last: a copy.
    Repeated,
    /// Its offset is too low for its sequence: the log lost its tail.
    OffsetTooLow,
    /// It is not the next event of the command that is held.
    Incomplete,
    /// The events of its command are larger together than those of a command may be.
    TooLarge,
    /// A claim whose number is not above the current one: it lost.
    LostDuel,
    /// A claim of the log that the partition is a copy of, or of another copy: a copier that was late brought it.
    OtherCopy,
    /// It says that the partition is a copy, and other records stand before it.
    NotFirst,
}

impl fmt::Display for VoidReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Superseded => "its writer's claim was superseded before it",
            Self::LostClaim => "its writer's claim is not in the log",
            Self::OtherWriter => "another writer has the claim of its number",
            Self::Repeated => "its sequence is not above that of the record before it",
            Self::OffsetTooLow => "its offset is too low for its sequence",
            Self::Incomplete => "it is not the next event of its command",
            Self::TooLarge => "the events of its command are larger than those of a command may be",
            Self::LostDuel => "another claim with as high a number stands before it",
            Self::OtherCopy => "it claims another copy of the log",
            Self::NotFirst => "it says that a copy begins, and other records stand before it",
        })
    }
}

impl<T> Rule<T> {
    /// Starts at a place in the log where `current` was the state and nothing was held.
    pub fn resume(current: Current) -> Self {
        Self { current, held: Vec::new() }
    }

    /// The state without what is held.
    pub fn current(&self) -> Current {
        self.current
    }

    /// Where a reader that has read up to `next` goes on after a restart, and in which state: at the first held
    /// event, since what is held is not stored.
    pub fn resume_point(&self, next: u64) -> (u64, Current) {
        match self.held.first() {
            None => (next, self.current),
            Some((offset, sequence, _)) => (*offset, Current { last_sequence: sequence - 1, ..self.current }),
        }
    }

    /// Takes the record with which a copied partition begins: from here to the first claim under this copy's id records
    /// count by their claim and sequence alone, wherever they stand. A copy has no holes where its source has some.
    ///
    /// # Errors
    /// [`VoidReason::NotFirst`] when anything counted before it.
    pub fn copied(&mut self, copy: Uuid) -> Result<(), VoidReason> {
        if self.current != Current::default() {
            return Err(VoidReason::NotFirst);
        }
        self.current = Current { copy: Some(copy), copied: true, ..Current::default() };
        Ok(())
    }

    /// Takes a claim, which says in which copy it was made. One with a higher number becomes the current one, and what was
    /// held is void.
    ///
    /// # Errors
    /// [`VoidReason::LostDuel`] when its number is not higher; [`VoidReason::OtherCopy`] when it was made elsewhere, and
    /// does not stand among what was copied.
    pub fn claim(&mut self, offset: u64, epoch: Epoch, copy: Option<Uuid>) -> Result<(), VoidReason> {
        let native = copy == self.current.copy;
        if !native && !self.current.copied {
            return Err(VoidReason::OtherCopy);
        }
        if epoch.number <= self.current.epoch.number {
            return Err(VoidReason::LostDuel);
        }
        let copied = self.current.copied && !native;
        self.current = Current { epoch, claim_offset: offset, last_sequence: 0, copied, ..self.current };
        self.held.clear();
        Ok(())
    }

    /// Takes an answers record.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn answers(&mut self, offset: u64, stamp: Stamp) -> Result<(), VoidReason> {
        self.advance(offset, stamp)
    }

    /// Takes an event.
    pub fn event(&mut self, offset: u64, stamp: Stamp, event: T) -> Verdict<T> {
        if let Err(reason) = self.advance(offset, stamp) {
            return Verdict::Void(reason);
        }
        if stamp.index == 0 {
            self.held.clear();
        } else if self.held.len() != stamp.index as usize {
            self.held.clear();
            return Verdict::Void(VoidReason::Incomplete);
        }
        if stamp.count == 1 {
            return Verdict::Released(vec![event]);
        }
        self.held.push((offset, stamp.sequence, event));
        if stamp.index + 1 < stamp.count {
            return Verdict::Held;
        }
        Verdict::Released(self.held.drain(..).map(|(_, _, event)| event).collect())
    }

    /// Gives up the command that is held: none of its events counts.
    pub(crate) fn give_up(&mut self) {
        self.held.clear();
    }

    /// Notes what this process itself appended and saw proven, without reading it back.
    pub fn proven(&mut self, last_sequence: u64) {
        debug_assert!(self.held.is_empty(), "an owner reads to its claim, which voids what is held, before it appends");
        self.current.last_sequence = last_sequence;
    }

    fn advance(&mut self, offset: u64, stamp: Stamp) -> Result<(), VoidReason> {
        let current = &mut self.current;
        if stamp.epoch.number > current.epoch.number {
            return Err(VoidReason::LostClaim);
        }
        if stamp.epoch.number < current.epoch.number {
            return Err(VoidReason::Superseded);
        }
        if stamp.epoch.writer != current.epoch.writer {
            return Err(VoidReason::OtherWriter);
        }
        if stamp.sequence <= current.last_sequence {
            return Err(VoidReason::Repeated);
        }
        if !current.copied && offset < current.claim_offset.saturating_add(stamp.sequence) {
            return Err(VoidReason::OffsetTooLow);
        }
        current.last_sequence = stamp.sequence;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epoch(number: u64, writer: u64) -> Epoch {
        Epoch { number, writer }
    }

    /// The stamp of event `index` of `count`, by the writer of `rule()`.
    fn stamp(sequence: u64, index: u32, count: u32) -> Stamp {
        Stamp { epoch: epoch(5, 50), sequence, index, count }
    }

    /// Claim 5 by writer 50 at offset 10.
    fn rule() -> Rule<&'static str> {
        let mut rule = Rule::resume(Current::default());
        rule.claim(10, epoch(5, 50), None).unwrap();
        rule
    }

    fn void<T>(reason: VoidReason) -> Verdict<T> {
        Verdict::Void(reason)
    }

    #[test]
    fn a_command_of_one_event_counts_at_once() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 1), "a"), Verdict::Released(vec!["a"]));
        assert_eq!(rule.event(12, stamp(2, 0, 1), "b"), Verdict::Released(vec!["b"]));
        assert_eq!(
            rule.current(),
            Current { epoch: epoch(5, 50), claim_offset: 10, last_sequence: 2, ..Current::default() }
        );
    }

    #[test]
    fn the_events_of_a_command_are_released_together() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 3), "a"), Verdict::Held);
        assert_eq!(rule.event(12, stamp(2, 1, 3), "b"), Verdict::Held);
        assert_eq!(rule.event(13, stamp(3, 2, 3), "c"), Verdict::Released(vec!["a", "b", "c"]));
        assert_eq!(rule.event(14, stamp(4, 0, 2), "d"), Verdict::Held);
        assert_eq!(
            rule.event(15, stamp(5, 1, 2), "e"),
            Verdict::Released(vec!["d", "e"]),
            "nothing is left of the first"
        );
    }

    #[test]
    fn nothing_counts_before_the_first_claim() {
        let mut rule = Rule::resume(Current::default());
        assert_eq!(rule.event(0, stamp(1, 0, 1), "a"), void(VoidReason::LostClaim));
        let zero = Stamp { epoch: epoch(0, 7), ..stamp(1, 0, 1) };
        assert_eq!(rule.event(1, zero, "a"), void(VoidReason::OtherWriter));
        assert_eq!(rule.claim(2, epoch(0, 7), None), Err(VoidReason::LostDuel));
    }

    #[test]
    fn a_claim_must_have_a_higher_number() {
        let mut rule = rule();
        let before = rule.current();
        assert_eq!(rule.claim(11, epoch(5, 51), None), Err(VoidReason::LostDuel), "the second of a duel");
        assert_eq!(rule.claim(12, epoch(4, 40), None), Err(VoidReason::LostDuel), "one that comes late");
        assert_eq!(rule.claim(13, epoch(5, 50), None), Err(VoidReason::LostDuel), "a copy");
        assert_eq!(rule.current(), before);
        assert_eq!(rule.claim(14, epoch(9, 90), None), Ok(()), "numbers may be left out");
        assert_eq!(
            rule.current(),
            Current { epoch: epoch(9, 90), claim_offset: 14, last_sequence: 0, ..Current::default() }
        );
    }

    #[test]
    fn a_superseded_writer_counts_no_more() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 1), "a"), Verdict::Released(vec!["a"]));
        rule.claim(12, epoch(6, 60), None).unwrap();
        assert_eq!(rule.event(13, stamp(2, 0, 1), "b"), void(VoidReason::Superseded));
        assert_eq!(rule.answers(14, stamp(3, 0, 0)), Err(VoidReason::Superseded));
        assert_eq!(rule.current().last_sequence, 0);
    }

    #[test]
    fn a_number_above_the_claim_means_that_a_claim_was_lost() {
        let mut rule = rule();
        let above = Stamp { epoch: epoch(6, 50), ..stamp(1, 0, 1) };
        assert_eq!(rule.event(11, above, "a"), void(VoidReason::LostClaim));
        assert_eq!(rule.answers(12, above), Err(VoidReason::LostClaim));
    }

    #[test]
    fn another_writer_with_the_same_number_does_not_count() {
        let mut rule = rule();
        let other = Stamp { epoch: epoch(5, 51), ..stamp(1, 0, 1) };
        assert_eq!(rule.event(11, other, "a"), void(VoidReason::OtherWriter));
        assert_eq!(rule.current().last_sequence, 0);
    }

    #[test]
    fn a_sequence_counts_once() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 1), "a"), Verdict::Released(vec!["a"]));
        assert_eq!(rule.answers(12, stamp(2, 0, 0)), Ok(()));
        assert_eq!(rule.event(13, stamp(1, 0, 1), "a"), void(VoidReason::Repeated));
        assert_eq!(rule.event(14, stamp(2, 0, 1), "b"), void(VoidReason::Repeated));
        assert_eq!(rule.answers(15, stamp(2, 0, 0)), Err(VoidReason::Repeated));
        assert_eq!(rule.event(16, stamp(4, 0, 1), "c"), Verdict::Released(vec!["c"]), "3 was compacted away");
    }

    #[test]
    fn an_offset_below_the_sequences_place_means_a_lost_tail() {
        let mut rule = rule();
        assert_eq!(rule.event(12, stamp(3, 0, 1), "a"), void(VoidReason::OffsetTooLow));
        assert_eq!(rule.answers(12, stamp(3, 0, 0)), Err(VoidReason::OffsetTooLow));
        assert_eq!(rule.current().last_sequence, 0, "what does not count moves nothing");
        assert_eq!(rule.event(13, stamp(3, 0, 1), "a"), Verdict::Released(vec!["a"]), "the lowest that can be");
        assert_eq!(
            rule.event(99, stamp(4, 0, 1), "b"),
            Verdict::Released(vec!["b"]),
            "foreign records may lie between"
        );
    }

    #[test]
    fn a_command_without_its_beginning_does_not_count() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 1, 2), "b"), void(VoidReason::Incomplete));
        assert_eq!(rule.event(12, stamp(2, 0, 1), "c"), Verdict::Released(vec!["c"]));
    }

    #[test]
    fn a_command_with_a_hole_does_not_count_and_neither_does_its_rest() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 4), "a"), Verdict::Held);
        assert_eq!(rule.event(13, stamp(3, 2, 4), "c"), void(VoidReason::Incomplete));
        assert_eq!(rule.event(14, stamp(4, 1, 4), "b"), void(VoidReason::Incomplete), "what was held is void");
        assert_eq!(rule.event(15, stamp(5, 3, 4), "d"), void(VoidReason::Incomplete));
    }

    #[test]
    fn a_new_command_voids_one_that_was_not_finished() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 3), "a"), Verdict::Held);
        assert_eq!(rule.event(12, stamp(2, 0, 2), "x"), Verdict::Held);
        assert_eq!(rule.event(13, stamp(3, 1, 2), "y"), Verdict::Released(vec!["x", "y"]));
        assert_eq!(rule.event(14, stamp(4, 0, 2), "b"), Verdict::Held);
        assert_eq!(rule.event(15, stamp(5, 0, 1), "z"), Verdict::Released(vec!["z"]));
        assert_eq!(rule.event(16, stamp(6, 1, 2), "c"), void(VoidReason::Incomplete));
    }

    #[test]
    fn a_claim_voids_what_is_held() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 2), "a"), Verdict::Held);
        rule.claim(12, epoch(6, 60), None).unwrap();
        let second = Stamp { epoch: epoch(6, 60), ..stamp(1, 1, 2) };
        assert_eq!(rule.event(13, second, "b"), void(VoidReason::Incomplete));
    }

    #[test]
    fn a_claim_that_lost_voids_nothing() {
        let mut rule = rule();
        assert_eq!(rule.event(11, stamp(1, 0, 2), "a"), Verdict::Held);
        assert_eq!(rule.claim(12, epoch(5, 51), None), Err(VoidReason::LostDuel));
        assert_eq!(rule.event(13, stamp(2, 1, 2), "b"), Verdict::Released(vec!["a", "b"]));
    }

    #[test]
    fn one_resumes_at_the_next_record_or_at_the_first_that_is_held() {
        let mut rule = rule();
        assert_eq!(rule.resume_point(11), (11, rule.current()));
        assert_eq!(rule.event(11, stamp(1, 0, 1), "a"), Verdict::Released(vec!["a"]));
        assert_eq!(rule.resume_point(12), (12, rule.current()));

        assert_eq!(rule.event(14, stamp(3, 0, 3), "b"), Verdict::Held); // 12 and 13 hold no record that counts
        assert_eq!(rule.event(15, stamp(4, 1, 3), "c"), Verdict::Held);
        let (next, current) = rule.resume_point(16);
        assert_eq!(
            (next, current),
            (14, Current { epoch: epoch(5, 50), claim_offset: 10, last_sequence: 2, ..Current::default() })
        );
        let mut resumed = Rule::resume(current);
        assert_eq!(resumed.event(14, stamp(3, 0, 3), "b"), Verdict::Held);
        assert_eq!(resumed.event(15, stamp(4, 1, 3), "c"), Verdict::Held);
        assert_eq!(resumed.event(16, stamp(5, 2, 3), "d"), Verdict::Released(vec!["b", "c", "d"]));
        assert_eq!(resumed.event(17, stamp(5, 0, 1), "d"), void(VoidReason::Repeated));
    }

    const COPY: Uuid = Uuid::from_u128(1);

    /// A copy of a log with claim 5 by writer 50, of which the records 1 and 2 are gone.
    fn copy() -> Rule<&'static str> {
        let mut rule = Rule::resume(Current::default());
        rule.copied(COPY).unwrap();
        rule.claim(1, epoch(5, 50), None).unwrap();
        assert_eq!(rule.event(2, stamp(3, 0, 1), "a"), Verdict::Released(vec!["a"]), "offsets mean nothing");
        rule
    }

    #[test]
    fn in_a_copy_records_count_by_claim_and_sequence_alone() {
        let mut rule = copy();
        assert_eq!(rule.event(3, stamp(3, 0, 1), "a"), void(VoidReason::Repeated));
        assert_eq!(rule.claim(4, epoch(5, 50), None), Err(VoidReason::LostDuel), "brought twice");
        assert_eq!(rule.claim(5, epoch(6, 60), Some(Uuid::from_u128(7))), Ok(()), "of a copy that was copied");
        assert_eq!(rule.event(6, stamp(4, 0, 1), "b"), void(VoidReason::Superseded));
        let (_, saved) = rule.resume_point(7);
        let mut resumed = Rule::resume(saved);
        let stamp = Stamp { epoch: epoch(6, 60), ..stamp(9, 0, 1) };
        assert_eq!(resumed.event(7, stamp, "c"), Verdict::Released(vec!["c"]), "it is known after a restart");
    }

    #[test]
    fn the_first_claim_under_the_copys_id_ends_that() {
        let mut rule = copy();
        rule.claim(3, epoch(9, 90), Some(COPY)).unwrap();
        let stamp = |sequence| Stamp { epoch: epoch(9, 90), ..stamp(sequence, 0, 1) };
        assert_eq!(rule.event(4, stamp(2), "b"), void(VoidReason::OffsetTooLow));
        assert_eq!(rule.event(5, stamp(2), "b"), Verdict::Released(vec!["b"]));
        assert_eq!(rule.claim(6, epoch(10, 100), None), Err(VoidReason::OtherCopy), "a copier that is late");
        assert_eq!(rule.claim(7, epoch(10, 100), Some(Uuid::from_u128(7))), Err(VoidReason::OtherCopy));
        assert_eq!(rule.copied(Uuid::from_u128(7)), Err(VoidReason::NotFirst));
        assert_eq!(rule.event(8, stamp(3), "c"), Verdict::Released(vec!["c"]));
        assert_eq!(rule.claim(9, epoch(10, 100), Some(COPY)), Ok(()));
    }

    #[test]
    fn a_copy_begins_with_its_first_record_only() {
        let mut rule = rule();
        assert_eq!(rule.copied(COPY), Err(VoidReason::NotFirst));
        assert_eq!(rule.claim(11, epoch(6, 60), Some(COPY)), Err(VoidReason::OtherCopy));
        let mut rule = Rule::<()>::resume(Current::default());
        rule.copied(COPY).unwrap();
        assert_eq!(rule.copied(Uuid::from_u128(2)), Err(VoidReason::NotFirst), "a second copier");
    }

    #[test]
    fn what_was_proven_is_not_read_again() {
        let mut rule = rule();
        rule.proven(3);
        assert_eq!(rule.event(13, stamp(3, 0, 1), "a"), void(VoidReason::Repeated));
        assert_eq!(rule.event(14, stamp(4, 0, 1), "b"), Verdict::Released(vec!["b"]));
    }
}

/// The write protocol with random faults, and a judge: several processes that all may believe to own the partition,
/// producers whose records land late, in order, as a prefix of what was sent, crashes, lost reports, copies,
/// compaction, lost tails. After each run the log is walked with the rule.
#[cfg(test)]
mod model {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use fastrand::Rng;

    use super::*;

    const RUNS: u64 = 3_000;
    const STEPS: usize = 200;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Claim,
        /// An event of this command, at this version.
        Event {
            command: u64,
            version: u64,
        },
        Answers,
    }

    #[derive(Debug, Clone, Copy)]
    struct Entry {
        kind: Kind,
        stamp: Stamp,
        /// The producer, and the place among its records. The broker refuses one that does not follow the one before.
        sent: Option<(usize, u64)>,
    }

    /// `None` where compaction took the record.
    type Log = Vec<Option<Entry>>;

    struct Walked {
        rule: Rule<u64>,
        /// Offsets of the events that count.
        events: Vec<u64>,
    }

    fn walk(log: &Log, range: std::ops::Range<usize>, current: Current) -> Walked {
        let mut walked = Walked { rule: Rule::resume(current), events: vec![] };
        for offset in range {
            let Some(entry) = log[offset] else { continue };
            let at = offset as u64;
            match entry.kind {
                Kind::Claim => drop(walked.rule.claim(at, entry.stamp.epoch, None)),
                Kind::Answers => drop(walked.rule.answers(at, entry.stamp)),
                Kind::Event { .. } => match walked.rule.event(at, entry.stamp, at) {
                    Verdict::Released(events) => walked.events.extend(events),
                    Verdict::Held | Verdict::Void(_) => {}
                },
            }
        }
        walked
    }

    fn walk_all(log: &Log) -> Walked {
        walk(log, 0..log.len(), Current::default())
    }

    enum State {
        Idle,
        Claiming,
        /// Serves since its claim at this offset; so many records of a round are not reported yet.
        Owner {
            claim: u64,
            left: usize,
        },
    }

    struct Process {
        state: State,
        epoch: Epoch,
        producer: Option<usize>,
        sequence: u64,
        version: u64,
        /// Commands that are in the log, or in the round on its way.
        known: BTreeSet<u64>,
        /// The round's commands with events, answered when all of it is reported.
        round: Vec<u64>,
    }

    #[derive(Default)]
    struct Producer {
        owner: usize,
        queue: VecDeque<Entry>,
        sent: u64,
    }

    /// Whether a mirror copies records, or the log is compacted: not both, since the last of two copies stays.
    #[derive(PartialEq)]
    enum Copies {
        Mirrored,
        Compacted,
    }

    struct World {
        random: Rng,
        log: Log,
        copies: Copies,
        processes: Vec<Process>,
        producers: Vec<Producer>,
        /// In the order of each producer: who, where, what.
        reports: Vec<(usize, u64, Entry)>,
        /// Commands and the number of their events.
        commands: BTreeMap<u64, u32>,
        acknowledged: BTreeSet<u64>,
        tail_lost: bool,
        ids: u64,
    }

    impl World {
        fn new(seed: u64) -> Self {
            let mut random = Rng::with_seed(seed);
            let process = || Process {
                state: State::Idle,
                epoch: Epoch::default(),
                producer: None,
                sequence: 0,
                version: 0,
                known: BTreeSet::new(),
                round: vec![],
            };
            Self {
                processes: (0..random.usize(1..=3)).map(|_| process()).collect(),
                copies: if random.bool() { Copies::Mirrored } else { Copies::Compacted },
                random,
                log: vec![],
                producers: vec![],
                reports: vec![],
                commands: BTreeMap::new(),
                acknowledged: BTreeSet::new(),
                tail_lost: false,
                ids: 0,
            }
        }

        fn id(&mut self) -> u64 {
            self.ids += 1;
            self.ids
        }

        fn step(&mut self) {
            let process = self.random.usize(..self.processes.len());
            match self.random.u32(..1000) {
                0..3 => self.lose_tail(),
                3..10 => self.copy_foreign(),
                10..20 if self.copies == Copies::Mirrored => self.mirror(),
                20..30 if self.copies == Copies::Compacted => self.compact(),
                _ => {}
            }
            match self.random.u32(..100) {
                0..3 => self.claim(process),
                3..5 => self.doubt(process), // also what a crash looks like to the log
                5..40 => self.serve(process),
                40..75 => self.deliver(),
                75..77 => self.discard(),
                _ => self.report(),
            }
        }

        /// Never uses this producer again; what it sent may still land.
        fn doubt(&mut self, process: usize) {
            let process = &mut self.processes[process];
            process.state = State::Idle;
            process.producer = None;
            process.round.clear();
        }

        fn claim(&mut self, process: usize) {
            self.doubt(process);
            let number = walk_all(&self.log).rule.current().epoch.number + 1;
            let epoch = Epoch { number, writer: self.id() };
            let stamp = Stamp { epoch, sequence: 0, index: 0, count: 0 };
            let claim = Entry { kind: Kind::Claim, stamp, sent: None };
            self.producers.push(Producer { owner: process, queue: [claim].into(), sent: 0 });
            let producer = Some(self.producers.len() - 1);
            let process = &mut self.processes[process];
            (process.state, process.epoch, process.producer, process.sequence) = (State::Claiming, epoch, producer, 0);
        }

        /// Reads to the claim, and serves if it won.
        fn take_over(&mut self, process: usize, offset: u64) {
            let epoch = self.processes[process].epoch;
            let at = offset as usize;
            let landed = self.log.get(at).copied().flatten().is_some_and(|entry| entry.stamp.epoch == epoch);
            let beaten = landed
                && self.log[..at]
                    .iter()
                    .flatten()
                    .any(|entry| entry.kind == Kind::Claim && entry.stamp.epoch.number >= epoch.number);
            if !landed || beaten {
                return self.doubt(process);
            }
            let events = walk(&self.log, 0..at + 1, Current::default()).events;
            let known = events.iter().filter_map(|at| match self.log[*at as usize]?.kind {
                Kind::Event { command, .. } => Some(command),
                _ => None,
            });
            let known = known.collect();
            let process = &mut self.processes[process];
            process.known = known;
            process.version = events.len() as u64;
            process.state = State::Owner { claim: offset, left: 0 };
        }

        /// Decides one round on the working state and sends it.
        fn serve(&mut self, process: usize) {
            let State::Owner { claim, left: 0 } = self.processes[process].state else { return };
            let mut entries = vec![];
            for _ in 0..self.random.usize(1..=3) {
                let again = !self.commands.is_empty() && self.random.u8(..10) < 3;
                let command = if again {
                    *self.random.choice(self.commands.keys()).expect("there are some")
                } else {
                    let (command, count) = (self.id(), self.random.u32(0..=3));
                    self.commands.insert(command, count);
                    command
                };
                let count = self.commands[&command];
                let process = &mut self.processes[process];
                if !process.known.insert(command) {
                    continue;
                }
                let mut stamp = Stamp { epoch: process.epoch, sequence: 0, index: 0, count };
                for index in 0..count {
                    process.version += 1;
                    stamp.index = index;
                    let kind = Kind::Event { command, version: process.version };
                    entries.push(Entry { kind, stamp, sent: None });
                }
                if count == 0 {
                    entries.push(Entry { kind: Kind::Answers, stamp, sent: None });
                } else {
                    process.round.push(command);
                }
            }
            let process = &mut self.processes[process];
            for entry in &mut entries {
                process.sequence += 1;
                entry.stamp.sequence = process.sequence;
            }
            process.state = State::Owner { claim, left: entries.len() };
            self.producers[process.producer.expect("an owner has one")].queue.extend(entries);
        }

        /// One record of some producer lands.
        fn deliver(&mut self) {
            let waiting = (0..self.producers.len()).filter(|place| !self.producers[*place].queue.is_empty());
            let Some(place) = self.random.choice(waiting.collect::<Vec<_>>()) else { return };
            let on_broker =
                self.log.iter().rev().flatten().filter_map(|entry| entry.sent).find(|(from, _)| *from == place);
            let producer = &mut self.producers[place];
            if on_broker.is_some_and(|(_, sent)| sent != producer.sent) {
                return producer.queue.clear(); // the log lost its tail: out of order, for good
            }
            let mut entry = producer.queue.pop_front().expect("it waits");
            producer.sent += 1;
            entry.sent = Some((place, producer.sent));
            self.log.push(Some(entry));
            self.reports.push((place, self.log.len() as u64 - 1, entry));
        }

        /// What a producer that nobody uses any more still holds is lost.
        fn discard(&mut self) {
            let used: Vec<_> = self.processes.iter().filter_map(|process| process.producer).collect();
            let dead = (0..self.producers.len()).filter(|place| !used.contains(place));
            if let Some(place) = self.random.choice(dead.collect::<Vec<_>>()) {
                self.producers[place].queue.clear();
            }
        }

        /// The oldest report of some producer arrives. An owner takes exactly the offset that follows on.
        fn report(&mut self) {
            if self.reports.is_empty() {
                return;
            }
            let (producer, ..) = self.reports[self.random.usize(..self.reports.len())];
            let oldest = self.reports.iter().position(|(from, ..)| *from == producer).expect("it is among them");
            let (_, offset, entry) = self.reports.remove(oldest);
            let owner = self.producers[producer].owner;
            let process = &mut self.processes[owner];
            if process.producer != Some(producer) {
                return;
            }
            match &mut process.state {
                State::Idle => {}
                State::Claiming => self.take_over(owner, offset),
                State::Owner { claim, .. } if offset != *claim + entry.stamp.sequence => self.doubt(owner),
                State::Owner { left, .. } => {
                    *left -= 1;
                    if *left == 0 {
                        self.acknowledged.extend(process.round.drain(..));
                    }
                }
            }
        }

        fn lose_tail(&mut self) {
            if !self.log.is_empty() {
                let lost = self.random.usize(1..=self.log.len().min(5));
                self.log.truncate(self.log.len() - lost);
                self.tail_lost = true;
            }
        }

        /// A record of another partition or a backup, with the current number.
        fn copy_foreign(&mut self) {
            let number = walk_all(&self.log).rule.current().epoch.number;
            let epoch = Epoch { number, writer: u64::MAX };
            let stamp = Stamp { epoch, sequence: self.random.u64(1..30), index: 0, count: 1 };
            let kind = Kind::Event { command: u64::MAX - self.id(), version: 99 };
            self.log.push(Some(Entry { kind, stamp, sent: None }));
        }

        /// A mirror appends one of our own records again.
        fn mirror(&mut self) {
            let ours = self.log.iter().flatten().filter(|entry| entry.kind != Kind::Claim).copied();
            if let Some(entry) = self.random.choice(ours.collect::<Vec<_>>()) {
                self.log.push(Some(Entry { sent: None, ..entry }));
            }
        }

        /// Keeps the last record of each key, but for the newest few.
        fn compact(&mut self) {
            let before = walk_all(&self.log).events;
            let mut seen = BTreeSet::new();
            let newest = self.random.usize(3..=8);
            for slot in self.log.iter_mut().rev().skip(newest) {
                let Some(entry) = slot else { continue };
                let Epoch { number, writer } = entry.stamp.epoch;
                let key = match entry.kind {
                    Kind::Claim => (0, 0, number, writer),
                    Kind::Answers => (1, entry.stamp.sequence, number, writer),
                    Kind::Event { version, .. } => (2, version, number, writer),
                };
                if !seen.insert(key) {
                    *slot = None;
                }
            }
            assert_eq!(walk_all(&self.log).events, before, "compaction changed what counts");
        }

        fn judge(&mut self) {
            let good = walk_all(&self.log).events;
            let mut counts: BTreeMap<u64, u32> = BTreeMap::new();
            for (place, at) in good.iter().enumerate() {
                let Some(Entry { kind: Kind::Event { command, version }, .. }) = self.log[*at as usize] else {
                    panic!("offset {at} is no event")
                };
                assert_eq!(version, place as u64 + 1, "at offset {at}");
                assert!(self.commands.contains_key(&command), "a foreign record was applied");
                *counts.entry(command).or_default() += 1;
            }
            for (command, count) in &counts {
                assert_eq!(count, &self.commands[command], "command {command} is there in part or twice");
            }
            if !self.tail_lost {
                let lost: Vec<_> = self.acknowledged.iter().filter(|command| !counts.contains_key(command)).collect();
                assert!(lost.is_empty(), "commands {lost:?} were acknowledged and are not there");
            }
            for cut in 0..=self.log.len() {
                let first = walk(&self.log, 0..cut, Current::default());
                let (next, current) = first.rule.resume_point(cut as u64);
                let rest = walk(&self.log, next as usize..self.log.len(), current);
                assert_eq!([first.events, rest.events].concat(), good, "resumed at {cut}");
                assert_eq!(rest.rule.current(), walk_all(&self.log).rule.current(), "resumed at {cut}");
            }
        }
    }

    #[test]
    fn versions_have_no_hole_duplicate_or_fork_and_a_resumed_reader_neither_loses_nor_doubles() {
        let (mut events, mut acknowledged) = (0, 0);
        for seed in 0..RUNS {
            let run = std::panic::catch_unwind(|| {
                let mut world = World::new(seed);
                (0..STEPS).for_each(|_| world.step());
                world.judge();
                (walk_all(&world.log).events.len(), world.acknowledged.len())
            });
            let (counted, answered) = run.unwrap_or_else(|_| panic!("seed {seed}"));
            (events, acknowledged) = (events + counted, acknowledged + answered);
        }
        assert!(
            events > 5 * RUNS as usize && acknowledged > RUNS as usize,
            "{events} events, {acknowledged} acknowledged"
        );
    }
}
