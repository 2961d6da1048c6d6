//! Reading the events of a partition beside the hashes that were sealed.

use std::collections::{HashMap, VecDeque};

use super::Verifier;
use super::chain::{Chain, Part};
use super::report::{Erased, Finding, Progress, Sealed, Verified, Wrong};
use super::survey::{Survey, is_about};
use crate::domain::causes::with_causes;
use crate::domain::envelope::Envelope;
use crate::domain::ids::{StreamId, Version};
use crate::evidence::seal::topic::{Told, Word};
use crate::evidence::seal::tree::{Tree, TreeHash};
use crate::evidence::seal::{Seal, leaf_hash, sealed_of};
use crate::log::reader::{Checkpoint, Fed, PartitionReader, Recorded};
use crate::log::record::{self, Decoded};
use crate::log::scan::Scan;
use crate::log::{LogError, LogErrorKind, StoredRecord};

const FINDINGS_MAX: usize = 100;
const ERASED_MAX: usize = 1_000;
/// Hashes that are looked through for the one that an event has: more than are gone in one place.
const AHEAD_MAX: usize = 1_000_000;
/// Hashes of missing events that are looked for elsewhere in the log.
const MISSING_MAX: usize = 100_000;

/// The way through a partition.
pub(super) struct Walk<'a> {
    verifier: &'a Verifier,
    partition: u32,
    end: u64,
    verified: Verified,
    survey: Survey,
    /// What was sealed, from `ahead` on.
    told: Option<Told>,
    /// Hashes that were read of it and not passed yet.
    ahead: VecDeque<TreeHash>,
    /// The place among what was sealed.
    index: u64,
    /// The offset behind the last one that stands where something was sealed. Places can't tell when the log is read once
    /// more: what was erased is not there to be counted.
    sealed_to: u64,
    /// The tree of all before that place, and the last place where it was what somebody signed.
    tree: Tree,
    agreed: u64,
    chain: Chain,
    missing: Missing,
    /// Where log and seals part for good: from here on they are not compared.
    astray: Option<Astray>,
    /// The events that were read from there on.
    beyond: u64,
}

/// What was sealed and does not stand at its place.
#[derive(Default)]
struct Missing {
    count: u64,
    first: Option<u64>,
    /// Those that are looked for, with their places.
    hashes: HashMap<TreeHash, u64>,
}

struct Astray {
    expected: TreeHash,
    found: TreeHash,
    /// It is told already that the event was changed.
    told: bool,
    event: (u64, StreamId, Version),
}

/// What the log has of hashes that were looked for, by the place where they were sealed.
#[derive(Default)]
struct Sought {
    found: HashMap<u64, Found>,
    /// The missing event, as the one that follows on it names it.
    named: HashMap<u64, (StreamId, Version)>,
}

/// An event that was looked for.
struct Found {
    offset: u64,
    event: (StreamId, Version),
    /// Why it does not count, if it does not.
    void: Option<String>,
}

impl<'a> Walk<'a> {
    pub(super) async fn begin(verifier: &'a Verifier, partition: u32) -> Result<Self, LogError> {
        let (mut survey, mut told) = (Survey::default(), None);
        if let Some((seals, keys)) = verifier.seals_of(partition) {
            survey = Survey::read(&seals, keys, &verifier.source).await?;
            told = Some(Told::open(&seals, survey.end).await?);
            for note in &verifier.notes {
                if let Ok((seal, by)) = Seal::verify(note, keys)
                    && is_about(&seal, &verifier.source, partition)
                {
                    survey.check(seal, by);
                }
            }
        }
        // Read after the seals: what they cover is there.
        let end = verifier.log.bounds(&verifier.source.topic, partition).await?.end;
        Ok(Self {
            verifier,
            partition,
            end,
            verified: Verified { partition, notes: survey.notes, sealed: survey.sealed.clone(), ..Verified::default() },
            survey,
            told,
            ahead: VecDeque::new(),
            index: 0,
            sealed_to: 0,
            tree: Tree::default(),
            agreed: 0,
            chain: Chain::new(Part::ALL, verifier.heads_max),
            missing: Missing::default(),
            astray: None,
            beyond: 0,
        })
    }

    pub(super) async fn run(
        mut self,
        progress: &mut Progress,
        report: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Verified, LogError> {
        let read = self.read(progress, report).await?;
        self.verified.aggregates = self.chain.len();
        let mut left = std::mem::take(&mut self.chain.left);
        let mut erased = self.chain.gone();
        while let Some(part) = left.pop() {
            self.chain = Chain::new(part, self.verifier.heads_max);
            self.read_chain(progress, report).await?;
            self.verified.aggregates += self.chain.len();
            erased = erased.saturating_add(self.chain.gone());
            left.append(&mut self.chain.left);
        }
        let ends = read.is_ok();
        if let Err(why) = read {
            self.find(self.index + self.beyond, None, None, Wrong::Unreadable(why));
        }
        self.conclude(erased, ends).await?;
        self.verified.unsealed = self.index.saturating_sub(self.sealed());
        for wrong in std::mem::take(&mut self.survey.wrong) {
            self.find(self.survey.sealed.as_ref().map_or(0, |sealed| sealed.size), None, None, Wrong::Seals(wrong));
        }
        self.sort();
        Ok(self.verified)
    }

    /// Keeps the first findings. A chain breaks where something else is wrong, too, which says more.
    fn sort(&mut self) {
        self.verified.findings.sort_by_key(|finding| (finding.index, matches!(finding.wrong, Wrong::Chain(_))));
        self.verified.findings.truncate(FINDINGS_MAX);
    }

    /// Reads all events; the inner error tells why the log can't be read on.
    async fn read(
        &mut self,
        progress: &mut Progress,
        report: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Result<(), String>, LogError> {
        let mut reader = self.reader();
        let mut scan = match readable(self.scan().await)? {
            Ok(scan) => scan,
            Err(why) => return Ok(Err(why)),
        };
        loop {
            let records = match readable(scan.next().await)? {
                Ok(Some(records)) => records,
                Ok(None) => {
                    self.compare_logs(&reader);
                    return Ok(Ok(()));
                }
                Err(why) => return Ok(Err(why)),
            };
            progress.done += records.len() as u64;
            for stored in records {
                // Whatever a record is refused for, its bytes say it.
                match reader.feed(stored).map_err(|error| with_causes(&error)) {
                    Ok(Fed::Events(events)) => {
                        for event in events {
                            self.event(&event).await?;
                        }
                    }
                    Ok(Fed::Erased(erased)) => self.erased(&erased).await?,
                    Ok(Fed::Void(_)) => self.verified.void += 1,
                    Ok(Fed::Foreign(_)) => self.verified.foreign += 1,
                    Ok(Fed::Nothing | Fed::Answers(_) | Fed::Claim(_) | Fed::Copied(_)) => {}
                    Err(why) => return Ok(Err(why)),
                }
            }
            report(*progress);
        }
    }

    /// Reads all events once more, for aggregates whose heads had no room the first time.
    async fn read_chain(
        &mut self,
        progress: &mut Progress,
        report: &mut (impl FnMut(Progress) + Send),
    ) -> Result<(), LogError> {
        let (mut reader, mut index) = (self.reader(), 0);
        let Ok(mut scan) = readable(self.scan().await)? else { return Ok(()) }; // told by the first time
        while let Ok(Some(records)) = readable(scan.next().await)? {
            progress.done += records.len() as u64;
            for stored in records {
                match reader.feed(stored) {
                    Ok(Fed::Events(events)) => {
                        for event in events {
                            self.follow(&event, index);
                            index += 1;
                        }
                    }
                    Ok(Fed::Erased(erased)) => {
                        self.follow_erased(&erased, index);
                        index += 1;
                    }
                    Ok(_) => {}
                    Err(_) => return Ok(()),
                }
            }
            report(*progress);
        }
        Ok(())
    }

    /// Notes of another log, signed with the same key, say nothing about this one.
    fn compare_logs(&mut self, reader: &PartitionReader) {
        let here = reader.log_id();
        if let Some(sealed) = self.survey.log_id.filter(|sealed| *sealed != here) {
            let wrong = format!("the notes are about log {sealed}, this is log {here}: one of them was exchanged");
            self.find(0, None, None, Wrong::Seals(wrong));
        }
    }

    fn reader(&self) -> PartitionReader {
        PartitionReader::resume(self.verifier.source.clone(), self.partition, &Checkpoint::default())
    }

    async fn scan(&self) -> Result<Scan, LogError> {
        let Verifier { log, source, .. } = self.verifier;
        Scan::open(log.as_ref(), &source.topic, self.partition, 0..self.end).await
    }

    async fn event(&mut self, event: &Recorded) -> Result<(), LogError> {
        self.verified.events += 1;
        let index = self.index + self.beyond;
        self.compare(event).await?;
        self.follow(event, index);
        Ok(())
    }

    async fn erased(&mut self, erased: &Recorded) -> Result<(), LogError> {
        let index = self.index + self.beyond;
        self.compare(erased).await?;
        self.follow_erased(erased, index);
        let Envelope { stream, version, recorded_at, .. } = &erased.envelope;
        if self.verified.erased.len() < ERASED_MAX {
            let erased = Erased { stream: stream.clone(), version: *version, recorded_at: *recorded_at };
            self.verified.erased.push(erased);
        }
        Ok(())
    }

    fn follow(&mut self, event: &Recorded, index: u64) {
        if let Some(broken) = self.chain.event(&event.envelope) {
            self.find_at(index, event, Wrong::Chain(broken));
        }
    }

    fn follow_erased(&mut self, erased: &Recorded, index: u64) {
        let Envelope { stream, version, .. } = &erased.envelope;
        let is_sealed = self.survey.sealed.is_none() || erased.offset < self.sealed_to;
        if is_sealed {
            // Of what was erased some may be left for a while, and its chain has holes.
            self.verified.findings.retain(|finding| {
                let of_erased = finding.event.as_ref().is_some_and(|(of, at)| of == stream && at <= version);
                !(of_erased && matches!(finding.wrong, Wrong::Chain(_)))
            });
        }
        if let Some(broken) = self.chain.erased(&erased.envelope, is_sealed) {
            self.find_at(index, erased, Wrong::Chain(broken));
        }
    }

    /// Compares an event with itself, and with what was sealed at its place.
    async fn compare(&mut self, event: &Recorded) -> Result<(), LogError> {
        let own = event.envelope.compute_hash();
        let changed = own != event.envelope.hash;
        if changed {
            self.find_at(self.index + self.beyond, event, Wrong::Changed);
        }
        if self.astray.is_some() {
            self.beyond += 1;
            return Ok(());
        }
        let (told, computed) = (leaf_hash(&event.envelope.hash), leaf_hash(&own));
        if self.index >= self.sealed() {
            self.pass(told);
            return Ok(());
        }
        self.sealed_to = event.offset + 1;
        let is_it = |sealed: &TreeHash| *sealed == told || *sealed == computed;
        let mut place = 0;
        loop {
            if place == self.ahead.len() && !self.read_ahead().await? {
                break;
            }
            if is_it(&self.ahead[place]) {
                for _ in 0..place {
                    self.pass_missing();
                }
                let sealed = self.ahead.pop_front().expect("it was just looked at");
                self.pass(sealed);
                return Ok(());
            }
            place += 1;
        }
        let Some(expected) = self.ahead.front().copied() else {
            // They were there a moment ago: the topic is being changed.
            self.find(self.index, None, None, Wrong::Seals("hashes that it had are gone".into()));
            self.survey.sealed = None;
            self.pass(told);
            return Ok(());
        };
        let Recorded { offset, envelope, .. } = event;
        self.beyond = 1;
        self.astray = Some(Astray {
            expected,
            found: told,
            told: changed,
            event: (*offset, envelope.stream.clone(), envelope.version),
        });
        Ok(())
    }

    /// How many events were sealed.
    fn sealed(&self) -> u64 {
        self.survey.sealed.as_ref().map_or(0, |sealed| sealed.size)
    }

    /// Reads one more hash that was sealed, if there is one and room for it.
    async fn read_ahead(&mut self) -> Result<bool, LogError> {
        if self.ahead.len() >= AHEAD_MAX || self.index + self.ahead.len() as u64 >= self.sealed() {
            return Ok(false);
        }
        let Some(told) = &mut self.told else { return Ok(false) };
        while let Some(word) = told.next().await? {
            if let Word::Leaf(leaf) = word {
                self.ahead.push_back(leaf);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn pass_missing(&mut self) {
        let Some(sealed) = self.ahead.pop_front() else { return };
        self.missing.count += 1;
        self.missing.first.get_or_insert(self.index);
        if self.missing.hashes.len() < MISSING_MAX {
            self.missing.hashes.insert(sealed, self.index);
        }
        self.pass(sealed);
    }

    /// Goes on to the next place, and compares the root there with the notes that are to be believed only then.
    fn pass(&mut self, leaf: TreeHash) {
        self.tree.push(leaf);
        self.index += 1;
        let here = self.survey.doubtful.iter().take_while(|(seal, _)| seal.size <= self.index).count();
        for (seal, by) in self.survey.doubtful.drain(..here).collect::<Vec<_>>() {
            let Seal { size, root, signed_at, .. } = seal;
            if size == self.index && root == self.tree.root() {
                self.agreed = size;
            } else if size == self.index {
                let wrong = Wrong::NotAsSigned(Box::new(Sealed { size, signed_at, by }));
                self.find(self.agreed.min(size - 1), None, None, wrong);
            }
        }
    }

    /// When all was read: tells what is not where it was sealed, unless it was erased. `ends`: the log could be read to its end.
    async fn conclude(&mut self, erased: u64, ends: bool) -> Result<(), LogError> {
        let (read_to, ends) = (self.index, ends && self.astray.is_none());
        if ends {
            while !self.ahead.is_empty() || self.read_ahead().await? {
                self.pass_missing();
            }
        }
        let unexplained = self.missing.count > erased;
        if unexplained || self.astray.is_some() {
            self.explain(unexplained, erased > 0, read_to).await?;
        }
        if ends {
            for (seal, _) in std::mem::take(&mut self.survey.doubtful) {
                self.find(self.index, None, None, Wrong::CutOff(seal.size - self.index));
            }
        }
        Ok(())
    }

    async fn explain(&mut self, unexplained: bool, any_erased: bool, read_to: u64) -> Result<(), LogError> {
        let mut hashes = std::mem::take(&mut self.missing.hashes);
        let (astray, index) = (self.astray.take(), self.index);
        hashes.extend(astray.iter().map(|astray| (astray.expected, index)));
        let mut sought = self.seek(&hashes).await?;
        // Where some were erased, those that are still there somewhere were not.
        let elsewhere = sought.found.keys().copied().filter(|place| any_erased && *place < index).min();
        if let Some(place) = elsewhere.or(self.missing.first.filter(|_| unexplained)) {
            // Behind the last that is still there, whether it counts or not, all are gone.
            let cut = sought.found.keys().max().map_or(read_to, |last| read_to.max(last + 1));
            let (offset, event, wrong) = match sought.found.remove(&place) {
                Some(Found { offset, event, void: None }) => (Some(offset), Some(event), Wrong::Moved),
                Some(Found { offset, event, void: Some(why) }) => {
                    (Some(offset), Some(event), Wrong::NoLongerCounts(why))
                }
                None if place >= cut => (None, sought.named.remove(&place), Wrong::CutOff(self.index - place)),
                None => (None, sought.named.remove(&place), Wrong::Dropped),
            };
            self.find(place, offset, event, wrong);
            if place < cut && cut < self.index {
                self.find(cut, None, None, Wrong::CutOff(self.index - cut));
            }
        }
        if let Some(Astray { found, told: false, event: (offset, stream, version), .. }) = astray {
            let wrong = match sought.found.remove(&index) {
                Some(Found { offset, event, void: Some(why) }) => {
                    self.find(index, Some(offset), Some(event), Wrong::NoLongerCounts(why));
                    return Ok(());
                }
                Some(_) => Wrong::Inserted,
                None if self.was_sealed(&found).await? => Wrong::Inserted,
                None => Wrong::Rewritten,
            };
            self.find(index, Some(offset), Some((stream, version)), wrong);
        }
        Ok(())
    }

    /// Looks through the whole log for events with these hashes, whether they count or not.
    async fn seek(&self, hashes: &HashMap<TreeHash, u64>) -> Result<Sought, LogError> {
        let mut sought = Sought::default();
        let (mut reader, mut scan) = (self.reader(), self.scan().await?);
        let mut waiting: HashMap<u64, u64> = HashMap::new();
        while let Some(records) = scan.next().await? {
            for stored in records {
                let StoredRecord { offset, record } = &stored;
                let offset = *offset;
                if let Decoded::Event(_, event) | Decoded::Erased(_, event) = record::decode(record) {
                    let name = |version| (event.stream.clone(), Version::new(version));
                    if let Some(place) = hashes.get(&leaf_hash(&event.hash)).filter(|_| waiting.len() < 2 * MISSING_MAX)
                    {
                        let void = Some("the rest of its command is not there".to_owned());
                        let found = Found { offset, event: name(event.version.get()), void };
                        sought.found.entry(*place).or_insert(found);
                        waiting.insert(offset, *place);
                    }
                    if let Some(place) = hashes.get(&leaf_hash(&event.previous_hash)) {
                        sought.named.insert(*place, name(event.version.get().saturating_sub(1)));
                    }
                }
                let Ok(fed) = reader.feed(stored) else { return Ok(sought) };
                let why = match &fed {
                    Fed::Void(reason) => Some(reason.to_string()),
                    Fed::Foreign(reason) => Some(reason.clone()),
                    _ => None,
                };
                if let (Some(why), Some(place)) = (why, waiting.get(&offset))
                    && let Some(found) = sought.found.get_mut(place).filter(|found| found.offset == offset)
                {
                    found.void = Some(why);
                }
                for counted in sealed_of(fed) {
                    if let Some(place) = waiting.get(&counted.offset) {
                        let Recorded { offset, envelope: Envelope { stream, version, .. }, .. } = counted;
                        sought.found.insert(*place, Found { offset, event: (stream, version), void: None });
                    }
                }
            }
        }
        Ok(sought)
    }

    /// Whether this was sealed at some other place.
    async fn was_sealed(&self, leaf: &TreeHash) -> Result<bool, LogError> {
        let Some((seals, _)) = self.verifier.seals_of(self.partition) else { return Ok(false) };
        let mut told = Told::open(&seals, self.survey.end).await?;
        while let Some(word) = told.next().await? {
            if word == Word::Leaf(*leaf) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn find_at(&mut self, index: u64, event: &Recorded, wrong: Wrong) {
        let Envelope { stream, version, .. } = &event.envelope;
        self.find(index, Some(event.offset), Some((stream.clone(), *version)), wrong);
    }

    fn find(&mut self, index: u64, offset: Option<u64>, event: Option<(StreamId, Version)>, wrong: Wrong) {
        // Those that come last may be the first in order.
        self.verified.findings.push(Finding { partition: self.partition, index, offset, event, wrong });
        if self.verified.findings.len() >= 2 * FINDINGS_MAX {
            self.sort();
        }
    }
}

/// Tells a log that was damaged or changed from one that can't be read now.
fn readable<T>(read: Result<T, LogError>) -> Result<Result<T, String>, LogError> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(error) if error.kind() == LogErrorKind::Lost => Ok(Err(with_causes(&error))),
        Err(error) => Err(error),
    }
}
