//! Names of headers.

use std::borrow::Cow;
use std::ffi::CStr;
use std::sync::Mutex;

use crate::client::lock;

/// The most names that are kept for the life of the process, and the longest of them in bytes. Every event has the
/// same ten; the bounds are for records of others.
const NAMES: usize = 64;
const NAME_BYTES: usize = 64;

/// Header names that came before. Reading is a third faster where they are not copied for each record.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<&'static str>);

impl Names {
    pub(crate) fn get(&mut self, name: &CStr) -> Cow<'static, str> {
        if let Some(known) = self.0.iter().find(|known| known.as_bytes() == name.to_bytes()) {
            return Cow::Borrowed(known);
        }
        let name = name.to_string_lossy();
        match keep(&name) {
            Some(kept) => {
                self.0.push(kept);
                Cow::Borrowed(kept)
            }
            None => Cow::Owned(name.into_owned()),
        }
    }
}

fn keep(name: &str) -> Option<&'static str> {
    static KEPT: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut kept = lock(&KEPT);
    if let Some(known) = kept.iter().find(|known| **known == name) {
        return Some(known);
    }
    if kept.len() == NAMES || name.len() > NAME_BYTES {
        return None;
    }
    let name: &'static str = Box::leak(name.into());
    kept.push(name);
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_copied_once_and_only_so_many_are_kept() {
        let mut names = Names::default();
        assert!(matches!(names.get(c"ce_id"), Cow::Borrowed("ce_id")));
        assert!(matches!(Names::default().get(c"ce_id"), Cow::Borrowed("ce_id")));
        assert!(matches!(names.get(c"\xff"), Cow::Borrowed("\u{fffd}")));
        let long = std::ffi::CString::new("n".repeat(NAME_BYTES + 1)).unwrap();
        assert!(matches!(names.get(&long), Cow::Owned(name) if name.len() == NAME_BYTES + 1));
        for number in 0..2 * NAMES {
            let name = std::ffi::CString::new(format!("x-{number}")).unwrap();
            assert_eq!(names.get(&name), format!("x-{number}"));
        }
        assert!(names.0.len() <= NAMES);
    }
}
