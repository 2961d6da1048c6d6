//! The real transactions that the bank imports, and the accounts that they are of.
//!
//! They lie compressed beside the bank, `examples/bank/data`; its README names the source.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use flate2::read::GzDecoder;

use crate::home::Home;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/bank/data");

/// The 28,205 transactions of the year 1993, unpacked once for this process.
///
/// ```
/// let text = std::fs::read_to_string(es_tests::transactions()).unwrap();
/// assert_eq!(text.lines().count(), 1 + 28_205); // the first names the columns
/// ```
pub fn transactions() -> PathBuf {
    unpacked("trans-1993.asc")
}

/// The accounts of those transactions and of later ones, unpacked once for this process.
///
/// ```
/// let text = std::fs::read_to_string(es_tests::accounts()).unwrap();
/// assert_eq!(text.lines().count(), 1 + 4_500);
/// ```
pub fn accounts() -> PathBuf {
    unpacked("account.asc")
}

fn unpacked(name: &str) -> PathBuf {
    static UNPACKED: LazyLock<Home> = LazyLock::new(|| {
        let home = Home::new("data");
        for name in ["trans-1993.asc", "account.asc"] {
            unpack(&Path::new(FOLDER).join(format!("{name}.gz")), &home.path().join(name));
        }
        home
    });
    UNPACKED.path().join(name)
}

fn unpack(packed: &Path, to: &Path) {
    let unpacked = File::open(packed).and_then(|packed| {
        let mut text = Vec::new();
        io::copy(&mut GzDecoder::new(packed), &mut text)?;
        fs::write(to, text)
    });
    unpacked.unwrap_or_else(|error| panic!("unpacking {} failed: {error}", packed.display()));
}
