//! The format of payloads.

use serde::Serialize;

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
