//! Payloads to bytes and back, without the names of Rust variants.
//!
//! An event enum's variant is stored as its fields alone, `{"amount":5}`: the type's name stands in a header, so
//! renaming a variant changes nothing that is stored. Two small serde adapters do it, so every `#[serde(…)]`
//! attribute on a field works as usual.

mod variant;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer};

use crate::domain::aggregate::{Command, Event, MessageType};
use crate::domain::error::DecodeError;
use crate::domain::format::{Codec, Json};
use crate::domain::guard;
use crate::domain::hash::CommandHash;
use crate::domain::shape;
use variant::{EncodeVariant, decode_variant};

/// The stored type and payload of an event.
///
/// # Errors
/// What a field's `Serialize` refuses.
pub fn encode_event<C: Codec, E: Event>(event: &E) -> Result<(&'static MessageType, Vec<u8>), String> {
    guard::fallible("writing the event", || {
        Ok::<_, String>((&E::TYPES[event.type_index()], C::encode(&EncodeVariant(event))?))
    })
}

/// The event of a stored type name, schema version and payload.
///
/// # Errors
/// [`DecodeError`] names what does not fit: the type, its schema version, or the payload.
pub fn decode_event<C: Codec, E: Event>(name: &str, schema_version: u32, payload: &[u8]) -> Result<E, DecodeError> {
    let index = find(E::TYPES, name).ok_or_else(|| DecodeError::UnknownType { name: name.into() })?;
    let known = E::TYPES[index].schema_version;
    if schema_version != known {
        return Err(DecodeError::UnknownSchemaVersion { name: name.into(), stored: schema_version, known });
    }
    decode_at::<C, E>(name, index, payload)
}

/// A command as it is sent to another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its stored type.
    pub kind: &'static MessageType,
    /// Its fields. In JSON without those that equal their default, so that an earlier release, which does not know
    /// them, can decide the command.
    pub payload: Vec<u8>,
    /// By which a repeat of it is known.
    pub hash: CommandHash,
}

/// Encodes a command.
///
/// # Errors
/// What a field's `Serialize` refuses, and numbers that JSON has not.
pub fn encode_command<C: Codec, T: Command>(command: &T) -> Result<Encoded, String> {
    let (kind, canonical) = canonical_command(command)?;
    let hash = CommandHash::of(kind.name, &canonical);
    // What is canonical is JSON.
    let is_json = C::CONTENT_TYPE == Json::CONTENT_TYPE;
    let encode = || C::encode(&EncodeVariant(command));
    let payload = if is_json { canonical } else { guard::fallible("writing the command", encode)? };
    Ok(Encoded { kind, payload, hash })
}

/// The hash by which a repeat of a command is known. It is made of the JSON that `docs/formats.md` calls canonical, in
/// any codec: maps and sets have no order there, and what equals its default is left out, so that a later release,
/// which gives a command another field with a default, takes the same request for the same.
///
/// # Errors
/// What a field's `Serialize` refuses, and numbers that JSON has not.
pub fn hash_command<T: Command>(command: &T) -> Result<CommandHash, String> {
    let (kind, canonical) = canonical_command(command)?;
    Ok(CommandHash::of(kind.name, &canonical))
}

fn canonical_command<T: Command>(command: &T) -> Result<(&'static MessageType, Vec<u8>), String> {
    let index = command.type_index();
    let canonical = || shape::of_commands::<T>().canonical(index, EncodeVariant(command));
    Ok((&T::TYPES[index], guard::fallible("writing the command", canonical)?))
}

/// The command of a type name and payload. Unlike an event, which stays what it is, a command is refused that has a
/// field which this program does not know: whoever sent it meant something by it.
///
/// # Errors
/// [`DecodeError`] names what does not fit.
pub fn decode_command<C: Codec, T: Command>(name: &str, payload: &[u8]) -> Result<T, DecodeError> {
    let index = find(T::TYPES, name).ok_or_else(|| DecodeError::UnknownType { name: name.into() })?;
    let mut unknown = None;
    let seed = Strict { seed: decode_variant(index), unknown: &mut unknown };
    let command = guard::fallible("reading it", || C::decode(payload, seed))
        .map_err(|reason| DecodeError::Payload { name: name.into(), reason })?;
    match unknown {
        None => Ok(command),
        Some(field) => Err(DecodeError::UnknownField { name: name.into(), field }),
    }
}

/// What tells the shape of a command type from others: 16 hexadecimal digits. `None` where there is no such type.
pub(crate) fn command_fingerprint<T: Command>(name: &str) -> Option<&'static str> {
    find(T::TYPES, name).map(|index| shape::of_commands::<T>().fingerprint(index))
}

/// Notes the first field, at any depth, that nobody reads.
struct Strict<'a, S> {
    seed: S,
    unknown: &'a mut Option<String>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let Self { seed, unknown } = self;
        let mut note = |path: serde_ignored::Path<'_>| _ = unknown.get_or_insert_with(|| path.to_string());
        seed.deserialize(serde_ignored::Deserializer::new(deserializer, &mut note))
    }
}

fn find(types: &[MessageType], name: &str) -> Option<usize> {
    types.iter().position(|known| known.name == name)
}

fn decode_at<C: Codec, T: DeserializeOwned>(name: &str, index: usize, payload: &[u8]) -> Result<T, DecodeError> {
    guard::fallible("reading it", || C::decode(payload, decode_variant(index)))
        .map_err(|reason| DecodeError::Payload { name: name.into(), reason })
}
