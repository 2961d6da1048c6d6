//! What domain code sees: aggregates, commands, events, and what they look like where they are stored. It knows neither
//! the log nor the engine.

pub(crate) mod aggregate;
pub(crate) mod causes;
pub(crate) mod clock;
pub mod codec;
pub(crate) mod envelope;
pub(crate) mod error;
pub(crate) mod format;
pub(crate) mod guard;
pub(crate) mod hash;
pub(crate) mod ids;
pub(crate) mod limits;
pub(crate) mod random;
pub mod shape;
pub(crate) mod text;
