//! es-projections
