//! How texts of others are told in messages and logs.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Bytes of a text that are told at most.
const SHOWN_MAX: usize = 300;

/// The text, or its beginning and how long it is: what came from outside may be a megabyte, and a flood of it.
pub(crate) fn short(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN_MAX {
        return text.into();
    }
    let end = text.floor_char_boundary(SHOWN_MAX);
    format!("{}… ({} bytes)", &text[..end], text.len()).into()
}

/// Lets a line be logged now and then only: a flood of records must not become a flood of lines.
#[derive(Debug, Default)]
pub(crate) struct Seldom(Mutex<(Option<Instant>, u64)>);

/// How often a line is logged at most.
const LOGGED_EVERY: Duration = Duration::from_secs(10);

impl Seldom {
    /// `None` where the line is to be left out; else how many were since the last one.
    pub(crate) fn note(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, left_out) = &mut *state;
        if last.is_some_and(|last| last.elapsed() < LOGGED_EVERY) {
            *left_out += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_once_and_counted() {
        let seldom = Seldom::default();
        assert_eq!(seldom.note(), Some(0));
        for _ in 0..1_000 {
            assert_eq!(seldom.note(), None);
        }
        seldom.0.lock().unwrap().0 = Instant::now().checked_sub(LOGGED_EVERY);
        assert_eq!(seldom.note(), Some(1_000));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(short("ž"), "ž");
        let long = format!("{}žž", "x".repeat(SHOWN_MAX - 1));
        assert_eq!(short(&long), format!("{}… ({} bytes)", "x".repeat(SHOWN_MAX - 1), SHOWN_MAX + 3));
    }
}
