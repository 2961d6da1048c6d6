//! Random bits, so that tests can hold them.

use std::cell::Cell;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// How many ids are drawn from the operating system at once.
const DRAWN: usize = 16;

/// 128 random bits for an id of which many are needed. Each call to the operating system takes a microsecond, so bits for
/// several ids are drawn at once. What is left of them is in each copy of a machine: the time, mixed in, tells the copies
/// apart.
pub(crate) fn unique() -> u128 {
    thread_local! {
        static LEFT: Cell<([u128; DRAWN], usize)> = const { Cell::new(([0; DRAWN], 0)) };
    }
    let (mut drawn, mut left) = LEFT.get();
    if left == 0 {
        let mut bytes = [0; 16 * DRAWN];
        SystemRandom.fill(&mut bytes);
        for (bits, bytes) in drawn.iter_mut().zip(bytes.as_chunks().0) {
            *bits = u128::from_le_bytes(*bytes);
        }
        left = DRAWN;
    }
    left -= 1;
    let bits = std::mem::take(&mut drawn[left]);
    LEFT.set((drawn, left));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    bits ^ now.as_nanos()
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

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_id_comes_twice() {
        let threads: Vec<_> =
            (0..4).map(|_| std::thread::spawn(|| (0..10_000).map(|_| unique()).collect::<Vec<_>>())).collect();
        let all: HashSet<u128> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(all.len(), 40_000);
        let set = |bit: u32| all.iter().filter(|id| *id >> bit & 1 == 1).count();
        let even = (0..128).all(|bit| (18_000..22_000).contains(&set(bit)));
        assert!(even, "some bit is more often set than not");
    }
}
