//! Random bits, so that tests can hold them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Gives random bits for whatever must be unique: the writer of a claim, the id of a log, the ids of events.
///
/// Two processes with equal bits may take each other's records for their own. So nothing seeded by a clock, a process id
/// or a thread will do: copies of one virtual machine agree in all of these.
pub trait Random: fmt::Debug + Send + Sync + 'static {
    /// Fills all the bytes.
    fn fill(&self, bytes: &mut [u8]);
}

impl dyn Random {
    /// 64 random bits.
    pub fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// 128 random bits.
    pub fn u128(&self) -> u128 {
        let mut bytes = [0; 16];
        self.fill(&mut bytes);
        u128::from_le_bytes(bytes)
    }
}

/// The operating system's random bits, drawn anew at each call: what was drawn before a machine is copied is not
/// handed out by both copies.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemRandom;

impl Random for SystemRandom {
    /// # Panics
    /// When the operating system has none to give, as in a sandbox without `getrandom` and `/dev/urandom`.
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}

/// The same bits from the same seed, for tests that are to run the same again.
#[derive(Debug)]
pub struct SeededRandom(Mutex<fastrand::Rng>);

impl SeededRandom {
    /// A source that begins with this seed.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}
