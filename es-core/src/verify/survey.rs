//! What the seals of a partition say, and how far it is to be believed.

use crate::log::LogError;
use crate::reader::EventSource;
use crate::seal::topic::{SealsPartition, Told, Word};
use crate::seal::tree::Tree;
use crate::seal::{PublicKey, Seal, origin};

use super::report::Sealed;

/// Notes that are compared with the log itself, at most.
const DOUBTFUL_MAX: usize = 10_000;
/// What is wrong with the topic, at most.
const WRONG_MAX: usize = 20;

/// What was learnt from the seals topic.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// The end of what was read of the topic.
    pub(super) end: u64,
    /// The last note that is right. The hashes of so many leaves in the topic are those that were signed.
    pub(super) sealed: Option<Sealed>,
    /// Notes that are right.
    pub(super) notes: u64,
    /// Signed notes that the topic's hashes don't prove: the log itself must agree with them. By size.
    pub(super) doubtful: Vec<(Seal, String)>,
    /// What is wrong with the topic.
    pub(super) wrong: Vec<String>,
}

impl Survey {
    pub(super) async fn read(
        seals: &SealsPartition,
        keys: &[PublicKey],
        source: &EventSource,
    ) -> Result<Self, LogError> {
        let partition = seals.partition;
        let mut survey = Self { end: seals.log.bounds(&seals.topic, partition).await?.end, ..Self::default() };
        let mut told = Told::open(seals, survey.end).await?;
        let (mut tree, mut has_gap) = (Tree::default(), false);
        while let Some(word) = told.next().await? {
            match word {
                Word::Leaf(leaf) => tree.push(leaf),
                Word::Gap(offset) if !has_gap => {
                    has_gap = true;
                    survey
                        .wrong(format!("the hashes from event {} on are missing at its offset {offset}", tree.size()));
                }
                Word::Gap(_) => {}
                Word::Foreign(offset) => survey.wrong(format!("the record at its offset {offset} is no seal")),
                Word::Note(offset, note) => match Seal::verify(&note, keys) {
                    Ok((seal, by)) if is_about(&seal, source, partition) => survey.note(seal, by, &tree, offset),
                    Ok((seal, _)) => {
                        survey.wrong(format!("the note at its offset {offset} is about {}", seal.origin));
                    }
                    Err(error) => survey.wrong(format!("the note at its offset {offset}: {error}")),
                },
            }
        }
        Ok(survey)
    }

    fn note(&mut self, seal: Seal, by: String, tree: &Tree, offset: u64) {
        if seal.size == tree.size() && seal.root == tree.root() {
            self.notes += 1;
            self.sealed = Some(Sealed { size: seal.size, signed_at: seal.signed_at, by });
            return;
        }
        // A note of fewer events that came late is nothing unusual, and the log shows whether it is right.
        if seal.size >= tree.size() {
            self.wrong(format!("the hashes before the note at its offset {offset} are not those that were signed"));
        }
        self.doubt(seal, by);
    }

    /// Takes a note with which the log itself must agree.
    pub(super) fn doubt(&mut self, seal: Seal, by: String) {
        if self.doubtful.len() < DOUBTFUL_MAX {
            let place = self.doubtful.partition_point(|(known, _)| known.size <= seal.size);
            self.doubtful.insert(place, (seal, by));
        }
    }

    fn wrong(&mut self, what: String) {
        if self.wrong.len() < WRONG_MAX {
            self.wrong.push(what);
        }
    }
}

/// Whether a note is about this partition, by its own word.
pub(super) fn is_about(seal: &Seal, source: &EventSource, partition: u32) -> bool {
    seal.origin == origin(source, partition, seal.reader.log_id)
}
