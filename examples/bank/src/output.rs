//! Standard output and standard error. Whoever reads them may go away at any time, as `head` does, and that is no
//! failure: what a command does, and its exit status, are the command's own.

use std::fmt;
use std::io::{self, BufWriter, StdoutLock, Write};

use tracing_subscriber::fmt::MakeWriter;

/// Standard output, buffered. Once its reader has gone, everything is taken and dropped.
pub(crate) struct Output<W: Write = StdoutLock<'static>> {
    out: BufWriter<W>,
    deserted: bool,
}

/// Standard output.
pub(crate) fn stdout() -> Output {
    Output::new(io::stdout().lock())
}

/// Writes a line to standard error, if anybody reads it.
pub(crate) fn say(line: impl fmt::Display) {
    // There is no other place to complain to.
    let _ = writeln!(io::stderr(), "{line}");
}

impl<W: Write> Output<W> {
    fn new(out: W) -> Self {
        Self { out: BufWriter::new(out), deserted: false }
    }

    /// Whether the reader has gone, so that a long list may end here.
    pub(crate) fn is_deserted(&self) -> bool {
        self.deserted
    }

    fn taken<T>(&mut self, written: io::Result<T>, otherwise: T) -> io::Result<T> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.deserted = true;
                Ok(otherwise)
            }
            written => written,
        }
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.deserted {
            return Ok(bytes.len());
        }
        let written = self.out.write(bytes);
        self.taken(written, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.deserted {
            return Ok(());
        }
        let flushed = self.out.flush();
        self.taken(flushed, ())
    }
}

/// Standard error for the log: a line that nobody takes is lost, and is nobody's failure.
pub(crate) struct LogLines;

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = LogLine;
    fn make_writer(&'a self) -> LogLine {
        LogLine
    }
}

pub(crate) struct LogLine;

impl Write for LogLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Broken(io::ErrorKind);

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Err(self.0.into())
        }
    }

    #[test]
    fn a_reader_that_has_gone_is_no_failure_and_a_full_disk_is_one() {
        let mut gone = Output::new(Broken(io::ErrorKind::BrokenPipe));
        assert!(!gone.is_deserted());
        for _ in 0..3 {
            writeln!(gone, "{}", "x".repeat(100_000)).unwrap();
            gone.flush().unwrap();
            assert!(gone.is_deserted());
        }
        let mut full = Output::new(Broken(io::ErrorKind::StorageFull));
        assert!(writeln!(full, "x").and_then(|()| full.flush()).is_err());
    }
}
