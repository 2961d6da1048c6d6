//! A bank on `es-core`: the worked example.
//!
//! [`domain`] holds what a bank is, [`read_model`] what SQL sees of it, [`app`] brings log, owners and read models
//! together, and the rest are the commands of the command line and the HTTP interface.
//!
//! `cfg(next_release)` is on in the package `bank-next` alone, `tests/next`. It builds this source once more, as a
//! release that tests run beside this one. The only difference: there a deposit may have a note.

// Either may be closed at any time, and then these macros panic: see `output`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod app;
mod audit;
mod balances;
mod cli;
mod damaged;
mod domain;
mod export;
mod failure;
mod folder;
mod http;
mod import;
mod keys;
mod log;
mod output;
mod parked;
mod past;
mod progress;
mod quarantine;
mod read_model;
mod read_models_verify;
mod rebuild;
mod refused;
mod serve;
mod time;
mod verify;

use std::process::ExitCode;

/// Events and rows are made by some threads and dropped by others: with Linux's own allocator an import takes a quarter more of
/// the processor, and the whole bank a quarter more memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    cli::run()
}
