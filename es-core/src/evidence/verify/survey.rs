//! What the seals of a partition say, and how far it is to be believed.

use uuid::Uuid;

use crate::evidence::seal::topic::{SealsPartition, Told, Word};
use crate::evidence::seal::tree::Tree;
use crate::evidence::seal::{PublicKey, Seal, origin};
use crate::log::LogError;
use crate::log::reader::EventSource;

use super::report::Sealed;

/// Notes of the topic that are compared with the log itself, at most.
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
    /// The text of the last note that is right.
    pub(super) note: Option<String>,
    /// The log that the notes are about: the first of them says it.
    pub(super) log_id: Option<Uuid>,
    /// Signed notes with which the log itself must agree: those that the topic's hashes don't prove, those that were given, and
    /// the last one that is right. By size.
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
        let (mut tree, mut has_gap, mut last) = (Tree::default(), false, None);
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
                    Ok((seal, by)) if survey.is_of_this_log(&seal, source, partition) => {
                        if seal.size == tree.size() && seal.root == tree.root() {
                            let Seal { size, signed_at, .. } = seal;
                            survey.notes += 1;
                            survey.sealed = Some(Sealed { size, signed_at, by: by.clone() });
                            survey.note = Some(note);
                            last = Some((seal, by));
                        } else {
                            survey.doubt(seal, by, &tree, offset);
                        }
                    }
                    Ok((seal, _)) => {
                        survey.wrong(format!("the note at its offset {offset} is about {}", seal.origin));
                    }
                    Err(error) => survey.wrong(format!("the note at its offset {offset}: {error}")),
                },
            }
        }
        if let Some((seal, by)) = last {
            survey.check(seal, by); // the hashes are read once more for the comparison
        }
        Ok(survey)
    }

    fn is_of_this_log(&mut self, seal: &Seal, source: &EventSource, partition: u32) -> bool {
        is_about(seal, source, partition) && *self.log_id.get_or_insert(seal.reader.log_id) == seal.reader.log_id
    }

    fn doubt(&mut self, seal: Seal, by: String, tree: &Tree, offset: u64) {
        // A note of fewer events that came late is nothing unusual, and the log shows whether it is right.
        if seal.size >= tree.size() {
            self.wrong(format!("the hashes before the note at its offset {offset} are not those that were signed"));
        }
        if self.doubtful.iter().any(|(known, _)| (known.size, known.root) == (seal.size, seal.root)) {
            return;
        }
        if self.doubtful.len() >= DOUBTFUL_MAX {
            self.wrong(format!("it has more than {DOUBTFUL_MAX} notes that its hashes don't prove"));
            self.doubtful.remove(0); // the larger ones say more
        }
        self.check(seal, by);
    }

    /// Takes a note with which the log itself must agree.
    pub(super) fn check(&mut self, seal: Seal, by: String) {
        let place = self.doubtful.partition_point(|(known, _)| known.size <= seal.size);
        self.doubtful.insert(place, (seal, by));
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
