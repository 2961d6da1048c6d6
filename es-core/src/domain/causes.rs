//! An error as people read it.

use std::error::Error;
use std::iter;

/// An error whose causes go round in a circle ends here.
const CAUSES_MAX: usize = 32;

/// An error with its causes, each once, in one line: for logs, answers and command lines.
///
/// Errors say what failed, and leave why to their [`source`](Error::source): "connecting to Kafka at kafka-1:9092" alone helps
/// nobody.
///
/// ```
/// use es_core::log::{LogError, LogErrorKind};
///
/// let cause = std::io::Error::other("connection refused");
/// let error = LogError::new(LogErrorKind::Unavailable, "connecting to Kafka at kafka-1:9092").with_source(cause);
/// assert_eq!(es_core::with_causes(&error), "connecting to Kafka at kafka-1:9092: connection refused");
/// ```
pub fn with_causes(error: &dyn Error) -> String {
    let causes = iter::successors(error.source(), |cause| (*cause).source()).take(CAUSES_MAX);
    causes.fold(line(error), |told, cause| {
        let cause = line(cause);
        // An error may be another one under a name of its own, or end with its cause.
        if told.ends_with(&cause) { told } else { format!("{told}: {cause}") }
    })
}

/// What an error says for itself, without line breaks.
fn line(error: &dyn Error) -> String {
    let text = error.to_string();
    if !text.contains(char::is_control) {
        return text;
    }
    let words = text.split(char::is_control).map(str::trim).filter(|part| !part.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("opening the log")]
        Opening(#[source] Box<Failed>),
        #[error("appending: {0}")]
        Repeating(#[source] Box<Failed>),
        #[error(transparent)]
        Same(Box<Failed>),
        #[error("the disk\n\tis full")]
        Full,
    }

    #[test]
    fn each_cause_is_told_once_in_one_line() {
        let full = || Box::new(Failed::Full);
        assert_eq!(with_causes(&Failed::Full), "the disk is full");
        assert_eq!(with_causes(&Failed::Opening(full())), "opening the log: the disk is full");
        assert_eq!(with_causes(&Failed::Same(full())), "the disk is full");
        let deep = Failed::Opening(Box::new(Failed::Same(Box::new(Failed::Opening(full())))));
        assert_eq!(with_causes(&deep), "opening the log: the disk is full");
        let repeating = Failed::Opening(Box::new(Failed::Repeating(Box::new(Failed::Opening(full())))));
        assert_eq!(with_causes(&repeating), "opening the log: appending: opening the log: the disk is full");
    }

    #[derive(Debug)]
    struct Round(&'static str);

    impl std::fmt::Display for Round {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    static FIRST: Round = Round("first");
    static SECOND: Round = Round("second");

    impl Error for Round {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(if self.0 == "first" { &SECOND } else { &FIRST })
        }
    }

    #[test]
    fn causes_that_go_round_in_a_circle_end() {
        let told = with_causes(&FIRST);
        assert!(told.starts_with("first: second: first") && told.len() < 500, "{told}");
    }
}
