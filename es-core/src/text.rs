//! How texts of others are told in messages and logs.

use std::borrow::Cow;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(short("ž"), "ž");
        let long = format!("{}žž", "x".repeat(SHOWN_MAX - 1));
        assert_eq!(short(&long), format!("{}… ({} bytes)", "x".repeat(SHOWN_MAX - 1), SHOWN_MAX + 3));
    }
}
