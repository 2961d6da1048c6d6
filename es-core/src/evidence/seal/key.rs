//! The key that seals are signed with.

use std::fmt;

use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePublicKey, spki::der::pem::LineEnding};
use ed25519_dalek::{Signature, Signer};
use sha2::{Digest, Sha256};

/// In a signed note: an Ed25519 key.
const ALGORITHM: u8 = 1;

/// An Ed25519 key that signs, and the name that stands with its signatures.
///
/// ```sh
/// openssl genpkey -algorithm ed25519 -out signing-key.pem
/// openssl pkey -in signing-key.pem -pubout -out public-key.pem
/// ```
#[derive(Clone)]
pub struct SigningKey {
    name: String,
    key: ed25519_dalek::SigningKey,
}

/// The public half: what a verifier needs, and may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(ed25519_dalek::VerifyingKey);

/// Why a text is not a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// Not a private key of this kind.
    #[error(
        "it is not an Ed25519 private key in PEM (PKCS #8): make one with openssl genpkey -algorithm ed25519 -out FILE"
    )]
    Signing(#[source] ed25519_dalek::pkcs8::Error),
    /// Not a public key of this kind.
    #[error("it is not an Ed25519 public key in PEM: make one with openssl pkey -in SIGNING-KEY -pubout -out FILE")]
    Public(#[source] ed25519_dalek::pkcs8::spki::Error),
    /// The name can't stand in a signature's line.
    #[error(
        "the name {0:?} can't stand with a signature: give 1 to 100 characters without spaces, + and control characters"
    )]
    Name(String),
}

impl SigningKey {
    /// The key in a PEM text (PKCS #8), with a name that says whose it is, for example `example.com/bank`.
    ///
    /// # Errors
    /// [`InvalidKey`] when it is no such text, or the name has spaces or `+`.
    pub fn from_pem(name: &str, pem: &str) -> Result<Self, InvalidKey> {
        let key = ed25519_dalek::SigningKey::from_pkcs8_pem(pem).map_err(InvalidKey::Signing)?;
        Self::checked(name, key)
    }

    fn checked(name: &str, key: ed25519_dalek::SigningKey) -> Result<Self, InvalidKey> {
        let unfit = |c: char| c.is_whitespace() || c.is_control() || c == '+';
        if name.is_empty() || name.len() > 100 || name.chars().any(unfit) {
            return Err(InvalidKey::Name(name.into()));
        }
        Ok(Self { name: name.into(), key })
    }

    /// The name that stands with its signatures.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.key.verifying_key())
    }

    pub(super) fn sign(&self, text: &[u8]) -> [u8; 64] {
        self.key.sign(text).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("name", &self.name).finish_non_exhaustive()
    }
}

impl PublicKey {
    /// The key in a PEM text (SubjectPublicKeyInfo).
    ///
    /// # Errors
    /// [`InvalidKey::Public`] when it is no such text.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidKey> {
        ed25519_dalek::VerifyingKey::from_public_key_pem(pem).map(Self).map_err(InvalidKey::Public)
    }

    /// As [`PublicKey::from_pem`] reads it.
    ///
    /// # Panics
    /// Never: a key can be written.
    pub fn to_pem(&self) -> String {
        self.0.to_public_key_pem(LineEnding::LF).expect("32 bytes can be written")
    }

    /// What stands in a signature of this key under this name: tells which key to try.
    pub(super) fn id(&self, name: &str) -> [u8; 4] {
        let hasher = Sha256::new().chain_update(name).chain_update([b'\n', ALGORITHM]).chain_update(self.0.as_bytes());
        let [first, second, third, fourth, ..] = <[u8; 32]>::from(hasher.finalize());
        [first, second, third, fourth]
    }

    pub(super) fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify_strict(text, &signature).is_ok())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// As OpenSSL writes it.
    pub(crate) const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";

    /// The key of the first test vector of RFC 8032, section 7.1.
    pub(crate) fn key() -> SigningKey {
        SigningKey::from_pem("example.com/bank", PEM).unwrap()
    }

    pub(crate) fn other_key() -> SigningKey {
        SigningKey::checked("example.com/witness", ed25519_dalek::SigningKey::from_bytes(&[7; 32])).unwrap()
    }

    #[test]
    fn the_signature_is_that_of_the_standard() {
        let signature: String = key().sign(b"").iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            signature,
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
        assert!(key().public().verifies(b"", &key().sign(b"")));
        assert!(!key().public().verifies(b"x", &key().sign(b"")));
        assert!(!key().public().verifies(b"", &[0; 64]));
        assert!(!key().public().verifies(b"", b"short"));
    }

    #[test]
    fn keys_are_read_and_what_is_none_is_told_with_the_remedy() {
        let public = key().public();
        assert_eq!(PublicKey::from_pem(&public.to_pem()).unwrap(), public);
        insta::assert_snapshot!(SigningKey::from_pem("a", "rubbish").unwrap_err(), @"it is not an Ed25519 private key in PEM (PKCS #8): make one with openssl genpkey -algorithm ed25519 -out FILE");
        insta::assert_snapshot!(SigningKey::from_pem("a", &public.to_pem()).unwrap_err(), @"it is not an Ed25519 private key in PEM (PKCS #8): make one with openssl genpkey -algorithm ed25519 -out FILE");
        insta::assert_snapshot!(PublicKey::from_pem(PEM).unwrap_err(), @"it is not an Ed25519 public key in PEM: make one with openssl pkey -in SIGNING-KEY -pubout -out FILE");
        insta::assert_snapshot!(SigningKey::from_pem("two words", PEM).unwrap_err(), @r#"the name "two words" can't stand with a signature: give 1 to 100 characters without spaces, + and control characters"#);
        assert!(!format!("{:?}", key()).contains("9d61"), "a key is not told in a log");
    }
}
