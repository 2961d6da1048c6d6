//! Entity tags (RFC 9110, 8.8.3): a version, in quotes, and the conditions that requests put on them.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use es_core::Version;

use super::headers;
use super::problem::Problem;

/// What a condition names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Tags {
    /// `*`: whatever there is.
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    weak: bool,
    /// None for a tag that is not ours.
    version: Option<Version>,
}

impl Tags {
    /// Those of a header, whose lines are one list.
    pub(super) fn of(headers: &HeaderMap, name: &'static str) -> Result<Option<Self>, Problem> {
        let Some(text) = headers::list(headers, name)? else { return Ok(None) };
        let wrong = || Problem::bad_request(format!("{name}: {text:?} is neither * nor a list of versions, as \"7\""));
        Self::parse(&text).map(Some).ok_or_else(wrong)
    }

    fn parse(text: &str) -> Option<Self> {
        if text.trim() == "*" {
            return Some(Self::Any);
        }
        let (mut rest, mut tags) = (text.trim(), Vec::new());
        while !rest.is_empty() {
            let (tag, behind) = tag(rest)?;
            tags.push(tag);
            let behind = behind.trim_start();
            // Empty elements of a list are to be passed over.
            rest =
                if behind.is_empty() { behind } else { behind.strip_prefix(',')?.trim_start_matches([',', ' ', '\t']) };
        }
        (!tags.is_empty()).then_some(Self::Listed(tags))
    }

    /// The versions that a command may be decided on: a weak tag says nothing of them.
    pub(super) fn strong(&self) -> Option<Vec<Version>> {
        match self {
            Self::Any => None,
            Self::Listed(tags) => Some(tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version).collect()),
        }
    }

    /// Whether a reader has this version already: weak or not, it is the same.
    fn has(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(tags) => tags.iter().any(|tag| tag.version == Some(version)),
        }
    }
}

/// A tag, and what stands behind it. A version without quotes is taken, too.
fn tag(text: &str) -> Option<(Tag, &str)> {
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |quoted| (true, quoted));
    if let Some(opaque) = quoted.strip_prefix('"') {
        let (opaque, behind) = opaque.split_once('"')?;
        return Some((Tag { weak, version: version(opaque) }, behind));
    }
    let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
    let version = version(&text[..end])?;
    Some((Tag { weak: false, version: Some(version) }, &text[end..]))
}

/// Written as we write it, since another text is another tag.
fn version(text: &str) -> Option<Version> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text).map(Version::new)
}

/// The answer with its tag, or that the reader has it already.
pub(super) fn tagged(headers: &HeaderMap, version: Version, answer: impl IntoResponse) -> Result<Response, Problem> {
    let tag = HeaderValue::try_from(format!("\"{version}\"")).expect("digits and quotes");
    let known = Tags::of(headers, "if-none-match")?.is_some_and(|tags| tags.has(version));
    let answer = if known { StatusCode::NOT_MODIFIED.into_response() } else { answer.into_response() };
    Ok(([(header::ETAG, tag)], answer).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(Option<Vec<u64>>, bool)> {
        let tags = Tags::parse(text)?;
        let strong = tags.strong().map(|versions| versions.iter().map(|version| version.get()).collect());
        Some((strong, tags.has(Version::new(7))))
    }

    /// What `If-Match` compares, and whether `If-None-Match` has version 7.
    #[test]
    fn tags_are_compared_as_the_standard_says() {
        for (text, strong, has) in [
            ("*", None, true),
            ("\"7\"", Some(vec![7]), true),
            ("7", Some(vec![7]), true),
            ("W/\"7\"", Some(vec![]), true),
            ("\"6\"", Some(vec![6]), false),
            ("\"6\", \"7\"", Some(vec![6, 7]), true),
            ("\"6\",\"7\"", Some(vec![6, 7]), true),
            ("\"6\" , W/\"7\", \"8\"", Some(vec![6, 8]), true),
            ("\"other\"", Some(vec![]), false),
            ("\"07\"", Some(vec![]), false),
            ("\"a, b\", \"7\"", Some(vec![7]), true),
            ("\"6\",, \"7\",", Some(vec![6, 7]), true),
        ] {
            assert_eq!(parsed(text), Some((strong, has)), "{text}");
        }
        for wrong in ["", " ", "abc", "\"7", "7\"", "\"6\" \"7\"", "*, \"7\"", "W/7", "\"7\", abc", "-1"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_reader_that_has_it_is_not_sent_it_again() {
        let ask = |condition: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static(condition));
            let answer = tagged(&headers, Version::new(7), "the account").unwrap();
            assert_eq!(answer.headers()[header::ETAG], "\"7\"");
            answer.status().as_u16()
        };
        assert_eq!([ask("\"7\""), ask("W/\"7\""), ask("*"), ask("\"6\"")], [304, 304, 304, 200]);
    }
}
