//! A bank on `es-core`: the worked example.
//!
//! [`domain`] holds what a bank is, [`read_model`] what SQL sees of it, [`app`] brings log, owners and read models
//! together, and the rest are the commands of the command line and the HTTP interface.

mod app;
mod audit;
mod balances;
mod cli;
mod domain;
mod failure;
mod folder;
mod http;
mod import;
mod log;
mod parked;
mod progress;
mod quarantine;
mod read_model;
mod rebuild;
mod serve;
mod time;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
