//! Evidence that nobody changed what was recorded: every partition of an events topic is a transparency log.
//!
//! The hash of each event covers what must not change and the hash of the aggregate's event before it. That alone
//! tells a slip of the disk, not an intruder, who can compute all hashes anew. So the events of a partition, in their order,
//! are also the leaves of a Merkle tree ([RFC 6962], section 2.1), and from time to time whoever owns the partition signs
//! how many there are and the tree's root, with a key that is not in the log ([`Sealing`]). Such a *seal* is a
//! [checkpoint] of a transparency log in a [signed note]: a few lines of text, which anyone can keep, print or publish.
//!
//! Signed notes are in the seals topic beside the events topic, with the hash of every leaf. [`crate::verify`]
//! compares log and seals, and [`Proof`] is what shows a third party that one event is among those sealed, without any other.
//!
//! # What it does not protect from
//! - What is done to an event before it is sealed, at most [`Sealing::every`] after it was recorded.
//! - Who has the key, or rules the process that has it, can have anything sealed. Keep it where only that process reads it.
//! - Who cuts off the end of the seals topic can cut off or rewrite the events behind the last note that is left: nothing
//!   there tells, and the next process signs what it finds. (One that works goes on from nothing but what it signed.) So keep the
//!   newest notes elsewhere, too: [`crate::verify`] takes such notes, and tells what is missing or different.
//! - The name that stands with a signature is not signed: the key is what counts. One key for several logs is
//!   no harm, since a note names its log by a random id; compare that with the one you know.
//! - Who may write to the seals topic can put hashes there before the right ones. Then signed roots alone tell what
//!   was changed, between which two notes, until the topic is put right.
//! - Claims, answers records (refusals), trace contexts, media types and the hash of the command are not covered.
//!
//! [RFC 6962]: https://www.rfc-editor.org/rfc/rfc6962#section-2.1
//! [checkpoint]: https://c2sp.org/tlog-checkpoint
//! [signed note]: https://c2sp.org/signed-note

mod key;
mod note;
mod proof;
mod sealer;
pub(crate) mod topic;
pub(crate) mod tree;

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use crate::engine::companion::{Beside, Companion};
use crate::log::reader::{EventSource, Fed, Recorded};
use crate::log::{TopicKind, TopicSpec};

#[cfg(test)]
pub(crate) use key::tests;
pub use key::{InvalidKey, PublicKey, SigningKey};
pub use note::{NotSealed, Seal};
pub use proof::{NotProven, Proof};
use sealer::Sealer;
pub use topic::seals_topic;
pub use tree::{TreeHash, leaf_hash};

/// How events are sealed.
#[derive(Debug, Clone)]
pub struct Sealing {
    /// Signs.
    pub key: SigningKey,
    /// Earlier keys, and those of other processes: seals that they signed are gone on from.
    pub trusted: Vec<PublicKey>,
    /// How long after it was recorded an event is sealed at the latest, while all is well; 10 s.
    pub every: Duration,
}

impl Sealing {
    /// With this key, every 10 s.
    pub fn new(key: SigningKey) -> Self {
        Self { key, trusted: Vec::new(), every: Duration::from_secs(10) }
    }
}

#[async_trait]
impl Companion for Sealing {
    fn topics(&self, namespace: &str, aggregate: &str) -> Vec<TopicSpec> {
        vec![TopicSpec { name: seals_topic(namespace, aggregate), kind: TopicKind::Seals }]
    }

    async fn run(&self, beside: Beside) {
        Sealer::new(self.clone(), beside).run().await;
    }
}

/// What a partition is called in its seals: the log's id tells it from others of the same name.
pub(crate) fn origin(source: &EventSource, partition: u32, log_id: Uuid) -> String {
    format!("{}.{}/{partition}/{log_id}", source.context, source.category)
}

/// What has a leaf: the events that count, and the words that aggregates were erased.
pub(crate) fn sealed_of(fed: Fed) -> Vec<Recorded> {
    match fed {
        Fed::Events(events) => events,
        Fed::Erased(erased) => vec![*erased],
        _ => Vec::new(),
    }
}
