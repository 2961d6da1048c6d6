//! Checks that nobody changed what was recorded: log, hash chain and seals, without trusting a database or the process
//! that wrote them. It only reads, so it works on a copy of the log as well.
//!
//! Of each partition it reads the seals first: up to the last note whose signature and root are right, the hashes in the
//! seals topic are what was signed ([`crate::seal`]). Then it reads the events in order, through the same rule as every reader, and compares:
//!
//! - each event with its own hash: *changed*;
//! - each event's version and previous hash with the aggregate's event before: *broken chain*;
//! - each event with the hash that was sealed at its place: *rewritten*, *dropped*, *moved*, *inserted*, *no longer
//!   counting*, or *cut off* at the end, even if all hashes were computed anew;
//! - the root of what it read with further signed notes, for example of an auditor who kept the newest.
//!
//! An aggregate that was erased leaves one record, which is sealed like an event. Its events' hashes are still in the seals
//! topic: all others remain verifiable, and the report tells what was erased.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use es_core::doc::{Account, AccountCommand};
//! use es_core::seal::{Sealing, SigningKey, seals_topic};
//! use es_core::verify::Verifier;
//! use es_core::{Engine, EngineConfig, log::{Log, memory::MemoryLog}};
//!
//! // openssl genpkey -algorithm ed25519
//! let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
//! let key = SigningKey::from_pem("example.com/bank", pem)?;
//! let log: Arc<dyn Log> = Arc::new(MemoryLog::new(4));
//! let config = EngineConfig { companions: vec![Arc::new(Sealing::new(key.clone()))], ..EngineConfig::default() };
//! let engine = Engine::new(log.clone(), config);
//! let bus = engine.start::<Account>().await?;
//! bus.ready().await?;
//! bus.send(&"42".to_owned(), AccountCommand::Deposit { amount: 5 }).await?;
//! engine.shutdown().await;
//!
//! let seals = seals_topic("bank", "account");
//! let report = Verifier::new(log, bus.source().clone()).seals(&seals, vec![key.public()]).run(|_| {}).await?;
//! assert!(report.is_sound());
//! assert_eq!((report.events(), report.sealed()), (1, 1));
//! # Ok(())
//! # }
//! ```

mod chain;
mod report;
mod survey;
#[cfg(test)]
mod tests;
mod walk;

use std::sync::Arc;

use crate::domain::envelope::Envelope;
use crate::domain::ids::{StreamId, Version};
use crate::evidence::seal::topic::SealsPartition;
use crate::evidence::seal::{NotProven, Proof, PublicKey, Seal, sealed_of};
use crate::log::partition::partition_of;
use crate::log::reader::{Checkpoint, EventSource, PartitionReader};
use crate::log::scan::Scan;
use crate::log::{Log, LogError};
pub use report::{Erased, Finding, Progress, Report, Sealed, Verified, Wrong};
use survey::Survey;
use walk::Walk;

/// What verifies the events of an aggregate type.
#[derive(Debug, Clone)]
pub struct Verifier {
    log: Arc<dyn Log>,
    source: EventSource,
    seals: Option<(Arc<str>, Vec<PublicKey>)>,
    notes: Vec<String>,
    heads_max: usize,
}

impl Verifier {
    /// Without seals: only slips and clumsy changes are found, since whoever changes an event may compute the hashes anew.
    pub fn new(log: Arc<dyn Log>, source: EventSource) -> Self {
        Self { log, source, seals: None, notes: Vec::new(), heads_max: 1_000_000 }
    }

    /// With the seals topic, as [`crate::seal::seals_topic`] names it, and the keys that are trusted.
    #[must_use]
    pub fn seals(mut self, topic: &str, keys: Vec<PublicKey>) -> Self {
        self.seals = Some((topic.into(), keys));
        self
    }

    /// A signed note that was kept elsewhere: what it says must be in the log. It is about one of the partitions, and
    /// signed with one of the keys.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Aggregates of a partition whose heads are kept in memory at once, about 150 bytes each; 1,000,000. Where there are
    /// more, the partition is read again, for each so many once.
    #[must_use]
    pub fn heads_max(mut self, heads_max: usize) -> Self {
        self.heads_max = heads_max.max(1);
        self
    }

    /// Reads everything and tells what was found; `report` is called as it goes on.
    ///
    /// # Errors
    /// When the log can't be reached, or its settings are not those of the program. That it was damaged or changed is not an error but a finding.
    pub async fn run(&self, mut report: impl FnMut(Progress) + Send) -> Result<Report, LogError> {
        let mut progress = Progress { done: 0, total: 0 };
        for partition in 0..self.source.partitions {
            progress.total += self.log.bounds(&self.source.topic, partition).await?.end;
        }
        let mut partitions = Vec::new();
        for partition in 0..self.source.partitions {
            let walk = Walk::begin(self, partition).await?;
            partitions.push(walk.run(&mut progress, &mut report).await?);
        }
        let notes = self.notes.iter().filter_map(|note| self.misfit(note)).collect();
        Ok(Report { partitions, notes })
    }

    /// Proves that an event is among those sealed, to whoever has neither the log nor any other event.
    ///
    /// # Errors
    /// [`NotProven::NotSealed`] when no seal of a trusted key covers it.
    pub async fn prove(&self, event: &Envelope) -> Result<Proof, NotProven> {
        let partition = partition_of(&event.stream.id, self.source.partitions);
        let Some((seals, keys)) = self.seals_of(partition) else { return Err(NotProven::NotSealed) };
        Proof::make(event, &seals, keys).await
    }

    /// The newest signed note that is right of each partition that has any: what an auditor keeps.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn newest_notes(&self) -> Result<Vec<String>, LogError> {
        let mut notes = Vec::new();
        for partition in 0..self.source.partitions {
            let Some((seals, keys)) = self.seals_of(partition) else { continue };
            notes.extend(Survey::read(&seals, keys, &self.source).await?.note);
        }
        Ok(notes)
    }

    /// Finds an event in the log.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn find(&self, stream: &StreamId, version: Version) -> Result<Option<Envelope>, LogError> {
        let partition = partition_of(&stream.id, self.source.partitions);
        let end = self.log.bounds(&self.source.topic, partition).await?.end;
        let mut scan = Scan::open(self.log.as_ref(), &self.source.topic, partition, 0..end).await?;
        let mut reader = PartitionReader::resume(self.source.clone(), partition, &Checkpoint::default());
        while let Some(records) = scan.next().await? {
            for stored in records {
                let mut events = sealed_of(reader.feed(stored)?).into_iter().map(|event| event.envelope);
                if let Some(found) = events.find(|event| event.stream == *stream && event.version == version) {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    fn seals_of(&self, partition: u32) -> Option<(SealsPartition, &[PublicKey])> {
        let (topic, keys) = self.seals.as_ref()?;
        Some((SealsPartition { log: self.log.clone(), topic: topic.clone(), partition }, keys))
    }

    /// What is wrong with a note that was given, if it is about none of the partitions.
    fn misfit(&self, note: &str) -> Option<String> {
        let keys = self.seals.as_ref().map_or(&[][..], |(_, keys)| keys);
        match Seal::verify(note, keys) {
            Err(error) => Some(format!("a note that was given: {error}")),
            Ok((seal, _)) => {
                let about = |partition| survey::is_about(&seal, &self.source, partition);
                let fits = (0..self.source.partitions).any(about);
                (!fits).then(|| format!("a note that was given is about {}, which is not here", seal.origin))
            }
        }
    }
}
