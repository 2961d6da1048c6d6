//! Names that no other test uses, and the place of the bank's binary.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A short name that begins with `label` and that nothing else has, in this process or another.
///
/// With a lower-case `label` it is fit for topics, consumer groups, contexts and databases: only `a-z` and `0-9` are
/// added.
///
/// ```
/// assert_ne!(es_tests::unique_name("group"), es_tests::unique_name("group"));
/// ```
pub fn unique_name(label: &str) -> String {
    static PROCESS: LazyLock<u64> = LazyLock::new(random);
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // A letter between both numbers keeps 1 + 23 apart from 12 + 3.
    let process = *PROCESS % 36_u64.pow(6);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{label}{}x{count}", base36(process))
}

/// The first part of the names of a test's topics, so that tests on one broker do not meet.
///
/// ```
/// let events = format!("{}.account.events", es_tests::topic_prefix());
/// # assert!(events.starts_with('t'));
/// ```
pub fn topic_prefix() -> String {
    unique_name("t")
}

/// The built `bank` program: `BANK_BIN` where that is set, else the one beside the running test or benchmark.
///
/// # Panics
/// If it is not there. Cargo builds no other package's programs for a test, so it has to be built before.
pub fn bank_binary() -> PathBuf {
    program("bank", "BANK_BIN")
}

/// The same bank as its next release: the program `bank-next`, or `BANK_NEXT_BIN`.
///
/// # Panics
/// As [`bank_binary`].
pub fn bank_next_binary() -> PathBuf {
    program("bank-next", "BANK_NEXT_BIN")
}

fn program(name: &str, variable: &str) -> PathBuf {
    if let Some(given) = std::env::var_os(variable) {
        let given = PathBuf::from(given);
        assert!(given.is_file(), "{variable} names no file: {}", given.display());
        return given;
    }
    let this = std::env::current_exe().expect("a running program has a path");
    // Tests are in `target/debug/deps`, programs in `target/debug`.
    let found = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "the program `{name}` is not beside {}: run `cargo build --workspace` first, with `--release` if this is one",
            this.display()
        )
    })
}

/// 64 random bits, without a crate for it: each `RandomState` is seeded at random.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn base36(mut number: u64) -> String {
    let mut digits = Vec::new();
    while number > 0 {
        digits.push(char::from_digit((number % 36) as u32, 36).expect("a remainder of 36 is a digit"));
        number /= 36;
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names are unique, short, and made of what topics and databases both allow.
    #[test]
    fn unique_names_differ_and_fit_everywhere() {
        let names: Vec<String> = (0..100).map(|_| unique_name("x")).collect();
        let different: std::collections::HashSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        for name in &names {
            assert!(name.len() <= 12, "{name}");
            assert!(name.starts_with('x'), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{name}");
        }
    }
}
