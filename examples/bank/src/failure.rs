//! What ends the program: one line that says what failed and what to do.

use std::error::Error;
use std::fmt;
use std::io;

/// Why a command failed, in one line.
#[derive(Debug)]
pub(crate) struct Failure {
    line: String,
    nobody_reads: bool,
}

impl Failure {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { line: one_line(&what.into()), nobody_reads: false }
    }

    /// What failed, then each cause.
    pub(crate) fn because(what: impl fmt::Display, error: &(dyn Error + 'static)) -> Self {
        Self::new(format!("{what}: {}", chain(error)))
    }

    /// Whether it is only that the reader of our output has gone, as `head` does.
    pub(crate) fn nobody_reads(&self) -> bool {
        self.nobody_reads
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

impl<E: Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        let output = error.downcast_ref::<io::Error>();
        let nobody_reads = output.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        Self { nobody_reads, ..Self::new(chain(error)) }
    }
}

/// An error and its causes, each once.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
