//! What an import tells: a progress bar, refused rows and the summary.

use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use crate::failure::Failure;
use crate::output::{say, stdout};
use crate::progress;

/// Counts what happens to the rows, and shows it on standard error.
pub(super) struct Report {
    bar: ProgressBar,
    read: AtomicU64,
    accepted: AtomicU64,
    duplicate: AtomicU64,
    refused: AtomicU64,
    opened_otherwise: AtomicU64,
}

/// What has become of the file.
#[derive(Debug, Serialize)]
pub(super) struct Summary {
    read: u64,
    accepted: u64,
    duplicate: u64,
    refused: u64,
    accounts: usize,
    seconds: f64,
    per_second: f64,
}

impl Report {
    /// A report on a file of this size.
    pub(super) fn new(bytes: u64) -> Self {
        let bar = progress::bar(bytes, "{wide_bar} {percent}% of {total_bytes} {msg} {elapsed}");
        let [read, accepted, duplicate, refused, opened_otherwise] = std::array::from_fn(|_| AtomicU64::new(0));
        Self { bar, read, accepted, duplicate, refused, opened_otherwise }
    }

    /// A row was read.
    pub(super) fn read(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    /// The file was read up to here.
    pub(super) fn read_up_to(&self, bytes: u64) {
        self.bar.set_position(bytes);
    }

    /// A row has a receipt.
    pub(super) fn done(&self, duplicate: bool) {
        let counter = if duplicate { &self.duplicate } else { &self.accepted };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// A row is refused.
    pub(super) fn refused(&self, what: &str) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        self.note(what);
    }

    /// An account of the accounts' file was open before, and not by the same command.
    pub(super) fn opened_otherwise(&self) {
        self.opened_otherwise.fetch_add(1, Ordering::Relaxed);
    }

    /// Tells something beside the progress bar.
    pub(super) fn note(&self, what: &str) {
        self.bar.suspend(|| say(what));
    }

    pub(super) fn waiting_for_read_models(&self) {
        self.bar.set_message("read models");
    }

    pub(super) fn finish(&self, accounts: usize, took: Duration) -> Summary {
        self.bar.finish_and_clear();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let otherwise = get(&self.opened_otherwise);
        if otherwise > 0 {
            say(format_args!(
                "{otherwise} accounts were open before, with another branch than in the accounts file or none, and stay \
                 so: a branch is told when an account is opened"
            ));
        }
        let (read, seconds) = (get(&self.read), took.as_secs_f64());
        Summary {
            read,
            accepted: get(&self.accepted),
            duplicate: get(&self.duplicate),
            refused: get(&self.refused),
            accounts,
            seconds: round(seconds),
            per_second: round(read as f64 / seconds),
        }
    }
}

impl Summary {
    pub(super) fn print(&self, json: bool) -> Result<(), Failure> {
        let mut out = stdout();
        if json {
            writeln!(out, "{}", serde_json::to_string(self)?)?;
            return Ok(out.flush()?);
        }
        let Self { read, accepted, duplicate, refused, accounts, seconds, per_second } = self;
        writeln!(out, "{read} rows read: {accepted} accepted, {duplicate} duplicate, {refused} refused")?;
        writeln!(out, "{accounts} accounts, {seconds:.1} s, {per_second:.0} rows/s")?;
        Ok(out.flush()?)
    }
}

fn round(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
