//! A seal as text, signed: a checkpoint of a transparency log (<https://c2sp.org/tlog-checkpoint>) in a signed note
//! (<https://c2sp.org/signed-note>), which tools of others read too.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::key::{PublicKey, SigningKey};
use super::tree::TreeHash;
use crate::log::reader::Checkpoint;

/// What the line after the root's begins with, and the version of the JSON behind it.
const EXTENSION: &str = "es/1 ";
const SIGNATURE: &str = "\u{2014} ";
/// A note is far smaller; what claims to be one and is larger is not looked at.
const BYTES_MAX: usize = 16 << 10;

/// What is signed: that the first `size` events of a partition are those of which the tree has this root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seal {
    /// The partition: `<context>.<aggregate>/<partition>/<log id>`.
    pub origin: String,
    /// The number of events.
    pub size: u64,
    /// The root of the tree.
    pub root: TreeHash,
    /// When it was signed, by the clock of the process that did.
    pub signed_at: DateTime<Utc>,
    /// The place in the log behind these events.
    pub reader: Checkpoint,
}

#[derive(Serialize, Deserialize)]
struct Extension {
    signed_at: DateTime<Utc>,
    reader: Checkpoint,
}

/// Why a text is not a seal, or not one that a trusted key signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSealed {
    /// It is not a checkpoint, or one of another kind of log.
    #[error("it is not a signed checkpoint of this kind of log: {0}")]
    Malformed(&'static str),
    /// Nobody signed it whose key was given.
    #[error("it is signed by {0}, none of which is a key that is trusted here")]
    UnknownKey(String),
    /// A signature that should be by a trusted key is not.
    #[error("the signature by {0} is not right: the text was changed, or another key made it")]
    Forged(String),
}

impl Seal {
    /// The text, signed.
    pub(super) fn sign(&self, key: &SigningKey) -> String {
        let text = self.to_string();
        let signature = key.sign(text.as_bytes());
        let signed = [key.public().id(key.name()).as_slice(), &signature].concat();
        format!("{text}\n{SIGNATURE}{} {}\n", key.name(), BASE64.encode(signed))
    }

    /// Reads a signed text, and tells whose signature is right: the name that stands with it.
    ///
    /// # Errors
    /// [`NotSealed`] when it is no seal, none of the keys signed it, or a signature that names one of them is wrong.
    pub fn verify(note: &str, keys: &[PublicKey]) -> Result<(Self, String), NotSealed> {
        use NotSealed::{Forged, Malformed};
        if note.len() > BYTES_MAX || note.chars().any(|c| c.is_control() && c != '\n') {
            return Err(Malformed("it is too long, or has control characters"));
        }
        let end = note.rfind("\n\n").ok_or(Malformed("it has no signature"))? + 1;
        let (text, signatures) = (&note[..end], &note[end + 1..]);
        let (mut signed, mut others) = (None, Vec::new());
        for line in signatures.lines() {
            let line = line.strip_prefix(SIGNATURE).and_then(|line| line.split_once(' '));
            let (name, signature) = line.ok_or(Malformed("a line of a signature does not look like one"))?;
            let signature = BASE64.decode(signature).map_err(|_| Malformed("a signature is not base64"))?;
            let Some((id, signature)) = signature.split_first_chunk::<4>() else {
                return Err(Malformed("a signature is too short"));
            };
            match keys.iter().find(|key| key.id(name) == *id) {
                Some(key) if key.verifies(text.as_bytes(), signature) => signed = Some(name.to_owned()),
                Some(_) => return Err(Forged(name.into())),
                None => others.push(name),
            }
        }
        let signer = signed.ok_or_else(|| NotSealed::UnknownKey(others.join(", ")))?;
        Ok((Self::parse(text).map_err(Malformed)?, signer))
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut lines = text.lines();
        let mut line = |missing| lines.next().filter(|line| !line.is_empty()).ok_or(missing);
        let origin = line("it has no origin")?.to_owned();
        let size = line("it has no size")?.parse().map_err(|_| "its size is not a number")?;
        let root = BASE64.decode(line("it has no root")?).ok().and_then(|root| root.try_into().ok());
        let root = root.ok_or("its root is not a hash")?;
        let extension = lines.find_map(|line| line.strip_prefix(EXTENSION)).ok_or("it has no line es/1")?;
        let Extension { signed_at, reader } =
            serde_json::from_str(extension).map_err(|_| "its line es/1 can't be read")?;
        Ok(Self { origin, size, root, signed_at, reader })
    }
}

/// The text that is signed.
impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extension = Extension { signed_at: self.signed_at, reader: self.reader.clone() };
        let extension = serde_json::to_string(&extension).map_err(|_| fmt::Error)?;
        let root = BASE64.encode(self.root);
        writeln!(f, "{}\n{}\n{root}\n{EXTENSION}{extension}", self.origin, self.size)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::ids::Epoch;
    use crate::evidence::seal::key::tests::{key, other_key};
    use crate::log::reader::LastRecord;
    use crate::log::validity::Current;

    fn seal() -> Seal {
        Seal {
            origin: "bank.account/3/10101010-1010-1010-1010-101010101010".into(),
            size: 1_042,
            root: [0xab; 32],
            signed_at: DateTime::from_timestamp_millis(1_700_000_000_123).unwrap(),
            reader: Checkpoint {
                log_id: Uuid::from_bytes([0x10; 16]),
                next: 1_100,
                current: Current {
                    epoch: Epoch { number: 7, writer: 0x0123_4567_89ab_cdef },
                    claim_offset: 1_000,
                    last_sequence: 99,
                    ..Current::default()
                },
                last: Some(LastRecord {
                    offset: 1_098,
                    epoch: Epoch { number: 7, writer: 0x0123_4567_89ab_cdef },
                    sequence: 98,
                    event_id: Some(Uuid::from_bytes([0xe0; 16]).into()),
                }),
            },
        }
    }

    /// Stored for ever: what an earlier release signed is read by a later one.
    #[test]
    fn a_note_keeps_its_bytes() {
        let note = seal().sign(&key());
        insta::assert_snapshot!(note, @r#"
        bank.account/3/10101010-1010-1010-1010-101010101010
        1042
        q6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=
        es/1 {"signed_at":"2023-11-14T22:13:20.123Z","reader":{"log_id":"10101010-1010-1010-1010-101010101010","next":1100,"current":{"epoch":{"number":7,"writer":81985529216486895},"claim_offset":1000,"last_sequence":99},"last":{"offset":1098,"epoch":{"number":7,"writer":81985529216486895},"sequence":98,"event_id":"e0e0e0e0-e0e0-e0e0-e0e0-e0e0e0e0e0e0"}}}

        — example.com/bank JySvXE/moDPcOtoEbKdOuVbOW9yY4vryA+EcNGDAtnPYGiXNdxUqQt6ZoitHHJQffzGK1LQhCNIcu21eR063a/FkbQg=
        "#);
        assert_eq!(Seal::verify(&note, &[key().public()]), Ok((seal(), "example.com/bank".into())));
    }

    #[test]
    fn whatever_is_signed_is_read_back_equal() {
        let mut random = fastrand::Rng::with_seed(12);
        for _ in 0..200 {
            let time = random.i64(0..=crate::domain::limits::TIME_MAX_MS);
            let current = Current {
                epoch: Epoch { number: random.u64(..), writer: random.u64(..) },
                claim_offset: random.u64(..),
                last_sequence: random.u64(..),
                copy: random.bool().then(|| Uuid::from_u128(random.u128(..))),
                copied: random.bool(),
            };
            let last = random.bool().then(|| LastRecord {
                offset: random.u64(..),
                epoch: current.epoch,
                sequence: random.u64(..),
                event_id: random.bool().then(|| Uuid::from_u128(random.u128(..)).into()),
            });
            let log_id = Uuid::from_u128(random.u128(..));
            let seal = Seal {
                origin: format!("bank.account/{}/{log_id}", random.u32(..)),
                size: random.u64(..),
                root: std::array::from_fn(|_| random.u8(..)),
                signed_at: DateTime::from_timestamp_millis(time).unwrap(),
                reader: Checkpoint { log_id, next: random.u64(..), current, last },
            };
            let read = Seal::verify(&seal.sign(&key()), &[key().public()]);
            assert_eq!(read, Ok((seal, "example.com/bank".into())));
        }
    }

    #[test]
    fn whatever_is_changed_in_a_note_is_noticed() {
        let note = seal().sign(&key());
        let keys = [key().public()];
        for place in 0..note.len() {
            let mut changed = note.clone().into_bytes();
            changed[place] ^= 1 << (place % 7);
            let Ok(changed) = String::from_utf8(changed) else { continue };
            assert!(Seal::verify(&changed, &keys).is_err(), "byte {place}: {changed}");
        }
    }

    #[test]
    fn a_note_counts_by_the_keys_that_are_trusted() {
        let note = seal().sign(&key());
        let by_other = Seal::verify(&note, &[other_key().public()]);
        assert_eq!(by_other, Err(NotSealed::UnknownKey("example.com/bank".into())));
        assert!(Seal::verify(&note, &[other_key().public(), key().public()]).is_ok(), "an old key and a new one");
        // A second signature, of a witness: both notes have the same text.
        let witness = seal().sign(&other_key());
        let both = format!("{note}{}", &witness[witness.rfind("\n\n").unwrap() + 2..]);
        assert!(Seal::verify(&both, &[key().public()]).is_ok());
        assert!(Seal::verify(&both, &[other_key().public()]).is_ok());
    }

    #[test]
    fn what_is_no_seal_is_told_so() {
        let keys = [key().public()];
        for text in ["", "\n\n", "a\n\n\u{2014} b c\n", &"x".repeat(BYTES_MAX + 1), "a\nb\n\n\u{2014} b AAAA\n"] {
            assert!(Seal::verify(text, &keys).is_err(), "{text}");
        }
        // Signed, and a checkpoint of another kind of log.
        let foreign = "example.com/log\n12\nq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6s=\n";
        let signed = [key().public().id(key().name()).as_slice(), &key().sign(foreign.as_bytes())].concat();
        let note = format!("{foreign}\n{SIGNATURE}example.com/bank {}\n", BASE64.encode(signed));
        assert_eq!(Seal::verify(&note, &keys), Err(NotSealed::Malformed("it has no line es/1")));
    }
}
