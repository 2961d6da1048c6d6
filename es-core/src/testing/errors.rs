//! Errors that tell their cause: a check of every public error of a crate.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::iter::successors;
use std::path::Path;

use crate::domain::causes::with_causes;

/// Checks one value of each public error, and of each variant, of the crate whose sources are in a folder.
///
/// Each must say what failed without its cause, so that [`with_causes`] tells every cause once; as a fragment: in one line,
/// beginning with a lower case letter, without a full stop.
///
/// # Panics
/// If an error does not, or an error or variant that the sources have is not among `known`.
#[track_caller]
pub fn errors_tell_their_cause(sources: &Path, known: &[(&str, &dyn Error)]) {
    for (name, error) in known {
        check(name, *error);
    }
    let mut declared = BTreeMap::new();
    collect(sources, &mut declared);
    let tried: BTreeSet<&str> = known.iter().map(|(name, _)| *name).collect();
    for (name, variants) in &declared {
        assert!(tried.contains(name.as_str()), "no value of the public error {name} is tried");
        for variant in variants {
            let found = known.iter().any(|(of, error)| of == name && is_variant(*error, variant));
            assert!(found, "no {name}::{variant} is tried");
        }
    }
    let gone: Vec<_> = tried.iter().filter(|name| !declared.contains_key(**name)).collect();
    assert!(gone.is_empty(), "{gone:?} are no public errors of {}", sources.display());
}

fn is_variant(error: &dyn Error, variant: &str) -> bool {
    let shown = format!("{error:?}");
    shown.strip_prefix(variant).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

#[track_caller]
fn check(name: &str, error: &dyn Error) {
    let (said, told) = (error.to_string(), with_causes(error));
    assert!(!said.is_empty() && !said.ends_with('.') && !said.contains('\n'), "{name}: {said:?}");
    assert!(!said.starts_with(char::is_uppercase), "{name} begins in upper case: {said:?}");
    for cause in successors(error.source(), |cause| (*cause).source()) {
        let cause = cause.to_string();
        assert_eq!(told.matches(&cause).count(), 1, "{name} tells the cause {cause:?} not once: {told:?}");
    }
}

/// The public errors of the files below a folder, each with its variants.
fn collect(folder: &Path, declared: &mut BTreeMap<String, Vec<String>>) {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    for path in entries.map(|entry| entry.expect("a file of the sources").path()) {
        let is_test = path.file_stem().is_some_and(|name| name == "tests" || name == "doc");
        if path.is_dir() && !is_test {
            collect(&path, declared);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_test {
            read(&fs::read_to_string(&path).expect("a source in UTF-8"), declared);
        }
    }
}

fn read(source: &str, declared: &mut BTreeMap<String, Vec<String>>) {
    let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    let lines: Vec<&str> = source.lines().collect();
    let written = lines.iter().filter_map(|line| line.strip_prefix("impl")?.split_once("Error for "));
    let by_hand: BTreeSet<&str> = written.map(|(_, name)| name.split([' ', '<']).next().unwrap_or_default()).collect();
    let mut derived = false;
    for (place, line) in lines.iter().enumerate() {
        derived |= line.starts_with("#[derive(") && line.contains("thiserror::Error");
        let item = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "));
        let private = ["enum ", "struct ", "pub(crate) ", "pub(super) "].iter().any(|start| line.starts_with(start));
        let Some(item) = item else {
            derived &= !private;
            continue;
        };
        let name = item.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
        if std::mem::take(&mut derived) || by_hand.contains(name) {
            let inside = lines[place + 1..].iter().take_while(|line| **line != "}");
            let is_enum = line.starts_with("pub enum");
            declared.insert(name.to_owned(), inside.filter_map(|line| variant(line)).filter(|_| is_enum).collect());
        }
    }
}

/// The variant that begins in a line of an enum.
fn variant(line: &str) -> Option<String> {
    let inside = line.strip_prefix("    ").filter(|inside| inside.starts_with(char::is_uppercase))?;
    Some(inside.chars().take_while(|c| c.is_alphanumeric()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Bad {
        #[error("opening the log ({0}): check it")]
        Twice(#[source] std::io::Error),
        #[error("Opening")]
        Upper,
        #[error("opening.")]
        Stop,
    }

    #[test]
    fn an_error_that_tells_its_cause_itself_or_is_no_fragment_is_found() {
        let found = |error: &Bad| {
            let checked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check("Bad", error)));
            checked.is_err()
        };
        assert!(found(&Bad::Twice(std::io::Error::other("it is gone"))));
        assert!(found(&Bad::Upper) && found(&Bad::Stop));
    }

    #[test]
    fn public_errors_are_found_with_their_variants() {
        let source = "\
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// One.
    #[error(\"one\")]
    One,
    Two { what: String },
}
#[derive(Debug, thiserror::Error)]
enum Private { Three }
pub struct NoError;
#[derive(Debug)]
pub struct ByHand(u8);
impl std::error::Error for ByHand {}
";
        let mut declared = BTreeMap::new();
        read(source, &mut declared);
        let expected = [("Broken".to_owned(), vec!["One".to_owned(), "Two".to_owned()]), ("ByHand".to_owned(), vec![])];
        assert_eq!(declared, expected.into());
    }
}
