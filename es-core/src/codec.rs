//! Payloads to bytes and back, without the names of Rust variants.
//!
//! An event enum's variant is stored as its fields alone, `{"amount":5}`: the type's name stands in a header, so
//! renaming a variant changes nothing that is stored. Two small serde adapters do it, so every `#[serde(…)]`
//! attribute on a field works as usual.

mod variant;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::aggregate::{Command, Event, MessageType};
use crate::error::DecodeError;
use crate::guard;
use variant::{EncodeVariant, decode_variant};

/// How payloads become bytes.
pub trait Codec: Send + Sync + 'static {
    /// The value of the `content-type` header.
    const CONTENT_TYPE: &'static str;

    /// Serialises a value.
    ///
    /// # Errors
    /// What the value's `Serialize` refuses.
    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String>;

    /// Reads a value through serde's deserializer of the format; `seed` says of what.
    ///
    /// # Errors
    /// Bytes that are not of the format or not of the shape.
    fn decode<'de, S: serde::de::DeserializeSeed<'de>>(bytes: &'de [u8], seed: S) -> Result<S::Value, String>;
}

/// JSON (RFC 8259), the default.
#[derive(Debug, Clone, Copy)]
pub struct Json;

impl Codec for Json {
    const CONTENT_TYPE: &'static str = "application/json";

    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, String> {
        serde_json::to_vec(value).map_err(|error| error.to_string())
    }

    fn decode<'de, S: serde::de::DeserializeSeed<'de>>(bytes: &'de [u8], seed: S) -> Result<S::Value, String> {
        let mut json = serde_json::Deserializer::from_slice(bytes);
        let value = seed.deserialize(&mut json).map_err(|error| error.to_string())?;
        json.end().map_err(|error| error.to_string())?;
        Ok(value)
    }
}

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

/// The stored type and payload of a command.
///
/// # Errors
/// What a field's `Serialize` refuses.
pub fn encode_command<C: Codec, T: Command>(command: &T) -> Result<(&'static MessageType, Vec<u8>), String> {
    guard::fallible("writing the command", || {
        Ok::<_, String>((&T::TYPES[command.type_index()], C::encode(&EncodeVariant(command))?))
    })
}

/// The command of a type name and payload.
///
/// # Errors
/// [`DecodeError`] names what does not fit.
pub fn decode_command<C: Codec, T: Command>(name: &str, payload: &[u8]) -> Result<T, DecodeError> {
    let index = find(T::TYPES, name).ok_or_else(|| DecodeError::UnknownType { name: name.into() })?;
    decode_at::<C, T>(name, index, payload)
}

fn find(types: &[MessageType], name: &str) -> Option<usize> {
    types.iter().position(|known| known.name == name)
}

fn decode_at<C: Codec, T: DeserializeOwned>(name: &str, index: usize, payload: &[u8]) -> Result<T, DecodeError> {
    guard::fallible("reading it", || C::decode(payload, decode_variant(index)))
        .map_err(|reason| DecodeError::Payload { name: name.into(), reason })
}
