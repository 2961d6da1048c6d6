//! How the tasks of a partition are.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which tasks of a partition are down, and how often one was.
#[derive(Debug, Default)]
pub(crate) struct Health {
    restarts: AtomicU64,
    down: Mutex<BTreeMap<&'static str, String>>,
}

impl Health {
    /// How often a task was started anew.
    pub(crate) fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Tasks that do not run, and why.
    pub(crate) fn down(&self) -> Vec<String> {
        self.lock().iter().map(|(task, text)| format!("{task} panicked and is started anew soon: {text}")).collect()
    }

    /// A task panicked, and will be started anew.
    pub(crate) fn goes_down(&self, task: &'static str, text: &str) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(task, text.to_owned());
    }

    /// It runs again.
    pub(crate) fn comes_up(&self, task: &'static str) {
        self.lock().remove(task);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.down.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
