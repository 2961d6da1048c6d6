//! Where a page of the trail begins.

use crate::sql::Value;

/// Behind an entry, or at the begin, and behind so many more that can't be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The entry's values of what the page is ordered by, and the same as text.
    entry: Option<(Vec<Value>, String)>,
    pub(super) damaged: u32,
}

impl Place {
    pub(super) fn behind(values: Vec<Value>, text: String) -> Self {
        Self { entry: Some((values, text)), damaged: 0 }
    }

    pub(super) fn values(&self) -> Option<&[Value]> {
        self.entry.as_ref().map(|(values, _)| values.as_slice())
    }

    /// The part of a cursor that tells it, as it may stand in a URL. An entry's text begins with a number.
    pub(super) fn text(&self) -> String {
        let entry = self.entry.as_ref().map_or("", |(_, text)| text);
        match self.damaged {
            0 => entry.to_owned(),
            damaged => format!("~{damaged}.{entry}"),
        }
    }

    /// `values` reads the entry's text.
    pub(super) fn parse(text: &str, values: impl Fn(&str) -> Option<Vec<Value>>) -> Option<Self> {
        let (damaged, text) = match text.strip_prefix('~') {
            Some(rest) => rest.split_once('.').and_then(|(damaged, text)| Some((damaged.parse().ok()?, text)))?,
            None => (0, text),
        };
        let entry = match text {
            "" if damaged > 0 => None,
            text => Some((values(text)?, text.to_owned())),
        };
        Some(Self { entry, damaged })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written() {
        let values = |text: &str| Some(vec![Value::from(text.split('.').next()?.parse::<i64>().ok()?)]);
        let behind = Place::behind(vec![7.into()], "7.a.+b".into());
        for place in [behind.clone(), Place { damaged: 3, ..behind }, Place { entry: None, damaged: 1 }] {
            assert_eq!(Place::parse(&place.text(), values), Some(place));
        }
        for text in ["", "~", "~1", "~0.", "~x.7", "~-1.7", "a"] {
            assert_eq!(Place::parse(text, values), None, "{text}");
        }
    }
}
