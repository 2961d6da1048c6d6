//! A recorded event with everything that is known about it, and the hash that covers it.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use crate::domain::aggregate::{Aggregate, Event};
use crate::domain::codec;
use crate::domain::error::DecodeError;
use crate::domain::format::Codec;
use crate::domain::hash::{CommandHash, EventHash};
use crate::domain::ids::{Actor, CausationId, CommandId, CorrelationId, EventId, ExpectedVersion, StreamId, Version};

/// The version of what [`Envelope::compute_hash`] covers and how.
const HASH_FORMAT: u32 = 1;

/// An event as it was recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The bounded context, for example `bank`.
    pub context: Arc<str>,
    /// The stream.
    pub stream: StreamId,
    /// The place in the stream.
    pub version: Version,
    /// Unique id of the event.
    pub event_id: EventId,
    /// The stored name of the event's type, for example `deposited`.
    pub event_type: Arc<str>,
    /// The version of the payload's shape.
    pub schema_version: u32,
    /// When the owner recorded it, to the millisecond; never falls within a partition.
    pub recorded_at: DateTime<Utc>,
    /// The business time, to the microsecond.
    pub occurred_at: DateTime<Utc>,
    /// The command that it comes from.
    pub command_id: CommandId,
    /// The hash of that command's type and payload.
    pub command_hash: CommandHash,
    /// The conversation.
    pub correlation_id: CorrelationId,
    /// The command or event that caused the command, where it was said.
    pub causation_id: Option<CausationId>,
    /// Who sent the command, where it was said.
    pub actor: Option<Actor>,
    /// The W3C trace context of the sender, where it was given.
    pub traceparent: Option<Arc<str>>,
    /// The media type of the payload.
    pub content_type: Arc<str>,
    /// The encoded event.
    pub payload: Bytes,
    /// The hash of the stream's previous event; zeroes at version 1.
    pub previous_hash: EventHash,
    /// The hash over all of the above but the command's hash, trace context and media type.
    pub hash: EventHash,
}

impl Envelope {
    /// The event itself, as aggregate `A` knows it.
    ///
    /// # Errors
    /// [`DecodeError`] when this program does not know the type, its schema version, or can't read the payload.
    pub fn event<A: Aggregate>(&self) -> Result<A::Event, DecodeError> {
        self.decode::<A::Codec, A::Event>()
    }

    /// The event itself, of an event enum and a codec.
    ///
    /// # Errors
    /// As for [`Envelope::event`].
    pub fn decode<C: Codec, E: Event>(&self) -> Result<E, DecodeError> {
        codec::decode_event::<C, E>(&self.event_type, self.schema_version, &self.payload)
    }

    /// The SHA-256 over the immutable fields, each with its length before it; `docs/formats.md` has the order.
    ///
    /// Claim, sequence, offset and partition are not covered: a copy in another log has the same hash.
    pub fn compute_hash(&self) -> EventHash {
        let mut hasher = FieldHasher(Sha256::new());
        hasher.field(&HASH_FORMAT.to_be_bytes());
        hasher.field(format!("{}.{}", self.context, self.stream.category).as_bytes());
        hasher.field(self.stream.id.as_str().as_bytes());
        hasher.field(&self.version.get().to_be_bytes());
        hasher.field(self.event_type.as_bytes());
        hasher.field(&self.schema_version.to_be_bytes());
        hasher.field(self.event_id.get().as_bytes());
        hasher.field(&self.recorded_at.timestamp_millis().to_be_bytes());
        hasher.field(&self.occurred_at.timestamp_micros().to_be_bytes());
        hasher.field(self.command_id.as_str().as_bytes());
        hasher.field(self.correlation_id.as_str().as_bytes());
        hasher.field(self.causation_id.as_ref().map_or(&[], |id| id.as_str().as_bytes()));
        hasher.field(self.actor.as_ref().map_or(&[], |actor| actor.as_str().as_bytes()));
        hasher.field(&Sha256::digest(&self.payload));
        hasher.field(&self.previous_hash.0);
        EventHash(hasher.0.finalize().into())
    }
}

struct FieldHasher(Sha256);

impl FieldHasher {
    fn field(&mut self, bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).expect("a field fits in a record, which is far below 4 GiB");
        self.0.update(len.to_be_bytes());
        self.0.update(bytes);
    }
}

/// What travels with a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Metadata {
    pub(crate) command_id: CommandId,
    pub(crate) correlation_id: CorrelationId,
    pub(crate) causation_id: Option<CausationId>,
    pub(crate) actor: Option<Actor>,
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    pub(crate) expected: ExpectedVersion,
    pub(crate) traceparent: Option<Arc<str>>,
}
