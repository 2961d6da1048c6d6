//! Integration tests of the workspace, a module a scenario.
//!
//! `scripts/test` runs them all. Those that need a server are ignored in a bare `cargo test`.

mod bank;
mod bank_cli;
mod bank_damaged;
mod bank_export;
mod bank_http;
mod bank_import;
mod bank_read_models;
mod bank_verify;
mod cluster;
mod errors;
mod kafka_faults;
mod kafka_group;
mod kafka_log;
mod kafka_snapshots;
mod kafka_topics;
mod kcat;
mod projections;
mod read_models;
mod servers;
mod tidy;
mod write_path;
