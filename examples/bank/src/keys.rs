//! The keys that events are sealed with, and whose seals are trusted.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use es_core::seal::{InvalidKey, PublicKey, Sealing, SigningKey};

use crate::failure::Failure;

#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Keys {
    /// Seal the events with this Ed25519 key (PEM): openssl genpkey -algorithm ed25519 -out FILE
    #[arg(long, env = "BANK_SIGNING_KEY", value_name = "FILE", global = true)]
    signing_key: Option<PathBuf>,
    /// The name that stands with the key's signatures, for example example.com/bank
    #[arg(long, env = "BANK_SIGNING_NAME", value_name = "NAME", default_value = "bank", global = true)]
    signing_name: String,
    /// How long after it was recorded an event is sealed at the latest
    #[arg(long, env = "BANK_SEAL_EVERY", value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400), global = true)]
    seal_every: u64,
    /// Trust seals by this key, too (PEM): openssl pkey -in SIGNING-KEY -pubout -out FILE; may be given several times
    #[arg(long = "public-key", env = "BANK_PUBLIC_KEYS", value_name = "FILE", value_delimiter = ',', global = true)]
    public_keys: Vec<PathBuf>,
}

impl Keys {
    /// How events are to be sealed, if they are.
    pub(crate) fn sealing(&self) -> Result<Option<Sealing>, Failure> {
        let Some(key) = self.signing()? else { return Ok(None) };
        Ok(Some(Sealing { key, trusted: self.public()?, every: Duration::from_secs(self.seal_every) }))
    }

    /// Whose seals are trusted: the signing key's, if there is one, and the public keys'.
    pub(crate) fn trusted(&self) -> Result<Vec<PublicKey>, Failure> {
        let own = self.signing()?.map(|key| key.public());
        Ok(own.into_iter().chain(self.public()?).collect())
    }

    fn signing(&self) -> Result<Option<SigningKey>, Failure> {
        let Some(file) = &self.signing_key else { return Ok(None) };
        let key = SigningKey::from_pem(&self.signing_name, &read(file)?);
        key.map(Some).map_err(|error| match error {
            InvalidKey::Name(_) => Failure::because("--signing-name", &error),
            error => unusable(file, &error),
        })
    }

    fn public(&self) -> Result<Vec<PublicKey>, Failure> {
        let one = |file: &PathBuf| PublicKey::from_pem(&read(file)?).map_err(|error| unusable(file, &error));
        self.public_keys.iter().map(one).collect()
    }
}

fn unusable(file: &Path, error: &InvalidKey) -> Failure {
    // The cause is how the library that reads keys puts it, which nobody understands better.
    Failure::new(format!("the key in {} can't be used: {error}", file.display()))
}

/// The text in a file.
pub(crate) fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| Failure::because(format!("reading {} failed", file.display()), &error))
}
