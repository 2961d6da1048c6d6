//! The proof that an event is among those sealed, for somebody who has neither the log nor any other event.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::key::PublicKey;
use super::note::{NotSealed, Seal};
use super::topic::{SealsPartition, Told, Word};
use super::tree::{Prover, TreeHash, leaf_hash, root_from_proof};
use crate::domain::envelope::Envelope;
use crate::domain::hash::{CommandHash, EventHash};
use crate::domain::ids::{Actor, AggregateKey, CausationId, CommandId, CorrelationId, EventId, StreamId, Version};
use crate::log::LogError;

const FORMAT: u32 = 1;

/// An event, a seal, and the hashes between them. As JSON it is all that a third party needs beside the public key.
///
/// To check it: compute the event's hash from its fields, from that the leaf's, from that and the hashes of the path the
/// root, compare it with that of the note, and check the note's signature. [`Proof::verify`] does so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    format: u32,
    event: Fields,
    /// The place of the event among those of the partition, from 0.
    index: u64,
    /// The hashes beside the way from the leaf to the root, in base64.
    path: Vec<String>,
    note: String,
}

/// What an event's hash covers, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    /// `<context>.<aggregate>`
    aggregate: String,
    aggregate_id: String,
    version: u64,
    event_type: String,
    schema_version: u32,
    event_id: EventId,
    recorded_at_ms: i64,
    occurred_at_us: i64,
    command_id: String,
    correlation_id: String,
    causation_id: String,
    actor: String,
    payload_base64: String,
    previous_hash: String,
}

/// Why a proof proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotProven {
    /// It can't be read.
    #[error("it is not a proof of format {FORMAT}: {0}")]
    Malformed(String),
    /// The note is not to be trusted.
    #[error("its note is not to be trusted")]
    Note(#[from] NotSealed),
    /// The event is not the one at this place of what was sealed.
    #[error("the event is not number {index} of those that were sealed: it, or the proof, was changed")]
    Differs {
        /// Its place, from 0.
        index: u64,
    },
    /// No seal in the topic covers the event.
    #[error("no seal by a trusted key covers the event yet, or it was changed since")]
    NotSealed,
    /// The log can't be read.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl Proof {
    /// Makes the proof from the seals topic.
    pub(crate) async fn make(event: &Envelope, seals: &SealsPartition, keys: &[PublicKey]) -> Result<Self, NotProven> {
        let end = seals.log.bounds(&seals.topic, seals.partition).await?.end;
        let leaf = leaf_hash(&event.hash);
        let (mut told, mut leaves, mut index, mut last) = (Told::open(seals, end).await?, 0, None, None);
        while let Some(word) = told.next().await? {
            match word {
                Word::Leaf(found) => {
                    index = index.or((found == leaf).then_some(leaves));
                    leaves += 1;
                }
                Word::Note(_, note) => {
                    let signed = Seal::verify(&note, keys).ok().filter(|(seal, _)| seal.size == leaves);
                    last = signed.map(|(seal, _)| (note, seal.size)).or(last);
                }
                Word::Gap(_) => break,
                Word::Foreign(_) => {}
            }
        }
        let (Some(index), Some((note, size))) = (index, last) else { return Err(NotProven::NotSealed) };
        if index >= size {
            return Err(NotProven::NotSealed);
        }
        let (mut told, mut prover, mut left) = (Told::open(seals, end).await?, Prover::new(index, size), size);
        while let Some(word) = told.next().await? {
            if let Word::Leaf(leaf) = word {
                prover.push(leaf);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
        let path = prover.finish().iter().map(|hash| BASE64.encode(hash)).collect();
        let proof = Self { format: FORMAT, event: Fields::of(event), index, path, note };
        proof.verify(keys)?;
        Ok(proof)
    }

    /// Checks the proof, and tells the event, its place among those of its partition, from 0, and the seal.
    ///
    /// The event's `command_hash`, `traceparent` and `content_type` are not proven, and empty.
    ///
    /// # Errors
    /// [`NotProven`] when it does not prove that the event is among those that the owner of one of the keys sealed.
    pub fn verify(&self, keys: &[PublicKey]) -> Result<(Envelope, u64, Seal), NotProven> {
        if self.format != FORMAT {
            return Err(NotProven::Malformed(format!("its format is {}", self.format)));
        }
        let event = self.event.envelope().map_err(NotProven::Malformed)?;
        let path: Option<Vec<TreeHash>> =
            self.path.iter().map(|hash| BASE64.decode(hash).ok().and_then(|hash| hash.try_into().ok())).collect();
        let path = path.ok_or_else(|| NotProven::Malformed("a part of its path is not a hash".into()))?;
        let (seal, _) = Seal::verify(&self.note, keys)?;
        if root_from_proof(leaf_hash(&event.hash), self.index, seal.size, &path) != Some(seal.root) {
            return Err(NotProven::Differs { index: self.index });
        }
        Ok((event, self.index, seal))
    }
}

impl Fields {
    fn of(event: &Envelope) -> Self {
        Self {
            aggregate: format!("{}.{}", event.context, event.stream.category),
            aggregate_id: event.stream.id.as_str().into(),
            version: event.version.get(),
            event_type: event.event_type.as_ref().into(),
            schema_version: event.schema_version,
            event_id: event.event_id,
            recorded_at_ms: event.recorded_at.timestamp_millis(),
            occurred_at_us: event.occurred_at.timestamp_micros(),
            command_id: event.command_id.as_str().into(),
            correlation_id: event.correlation_id.as_str().into(),
            causation_id: event.causation_id.as_ref().map_or("", CausationId::as_str).into(),
            actor: event.actor.as_ref().map_or("", Actor::as_str).into(),
            payload_base64: BASE64.encode(&event.payload),
            previous_hash: event.previous_hash.to_string(),
        }
    }

    fn envelope(&self) -> Result<Envelope, String> {
        fn optional<T>(
            text: &str,
            new: fn(&str) -> Result<T, crate::domain::ids::InvalidId>,
        ) -> Result<Option<T>, String> {
            if text.is_empty() { Ok(None) } else { new(text).map(Some).map_err(|error| error.to_string()) }
        }
        let invalid = |error: crate::domain::ids::InvalidId| error.to_string();
        let (context, category) =
            self.aggregate.split_once('.').ok_or("its aggregate is not of the form context.aggregate")?;
        let recorded_at = DateTime::<Utc>::from_timestamp_millis(self.recorded_at_ms);
        let occurred_at = DateTime::<Utc>::from_timestamp_micros(self.occurred_at_us);
        let mut event = Envelope {
            context: context.into(),
            stream: StreamId { category: category.into(), id: AggregateKey::new(&self.aggregate_id).map_err(invalid)? },
            version: Version::new(self.version),
            event_id: self.event_id,
            event_type: self.event_type.as_str().into(),
            schema_version: self.schema_version,
            recorded_at: recorded_at.ok_or("its recorded_at_ms is out of range")?,
            occurred_at: occurred_at.ok_or("its occurred_at_us is out of range")?,
            command_id: CommandId::new(&self.command_id).map_err(invalid)?,
            command_hash: CommandHash::default(),
            correlation_id: CorrelationId::new(&self.correlation_id).map_err(invalid)?,
            causation_id: optional(&self.causation_id, |text| CausationId::new(text))?,
            actor: optional(&self.actor, |text| Actor::new(text))?,
            traceparent: None,
            content_type: "".into(),
            payload: BASE64.decode(&self.payload_base64).map(Bytes::from).map_err(|_| "its payload is not base64")?,
            previous_hash: from_hex(&self.previous_hash).ok_or("its previous_hash is not a hash")?,
            hash: EventHash::default(),
        };
        event.hash = event.compute_hash();
        Ok(event)
    }
}

fn from_hex(text: &str) -> Option<EventHash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
    }
    Some(EventHash(hash))
}
