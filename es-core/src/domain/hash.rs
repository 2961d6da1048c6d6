//! Hashes of events and of commands.

use std::fmt;

use sha2::{Digest, Sha256};

/// A SHA-256.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventHash(pub [u8; 32]);

/// Tells the same command from another: a byte for the kind, and 16 for the hash.
///
/// The one kind so far, 1, is the first half of the SHA-256 of the command's type name, a zero byte and its payload in
/// canonical form. It can be guessed by whoever can guess the command; 2 is kept for a hash with a key.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CommandHash(pub [u8; 17]);

impl CommandHash {
    const PLAIN: u8 = 1;

    /// The hash of a command's type name and its payload in canonical form; [`crate::codec::hash_command`] makes it of
    /// a command.
    pub fn of(name: &str, canonical: &[u8]) -> Self {
        let digest = Sha256::new().chain_update(name).chain_update([0]).chain_update(canonical).finalize();
        let mut hash = [Self::PLAIN; 17];
        hash[1..].copy_from_slice(&digest[..16]);
        Self(hash)
    }

    /// How the hash was made.
    pub fn kind(self) -> u8 {
        self.0[0]
    }

    /// Whether both are of the same command; `None` where one is of a kind that this program can't make.
    pub fn is_same(self, other: Self) -> Option<bool> {
        (self.kind() == Self::PLAIN && other.kind() == Self::PLAIN).then_some(self == other)
    }
}

macro_rules! hex_display {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{self}")
            }
        }
    )*};
}

hex_display!(EventHash, CommandHash);
