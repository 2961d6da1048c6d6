//! es-kafka
