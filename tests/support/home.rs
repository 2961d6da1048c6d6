//! Folders for servers, cleared even after a test process that was killed.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use crate::names::unique_name;

const PREFIX: &str = "es-tests-";
const LOCK: &str = "lock";

/// A folder in the system's place for temporary files, removed on drop.
///
/// A process that is killed, or whose server lives in a `static`, drops nothing. So a locked file beside each folder
/// says that its process lives, and whoever makes a folder first removes those that have lost their process.
pub(crate) struct Home {
    folder: PathBuf,
    _lock: File,
}

impl Home {
    pub(crate) fn new(server: &str) -> Home {
        let parent = std::env::temp_dir();
        sweep(&parent);
        let folder = parent.join(unique_name(&format!("{PREFIX}{server}-")));
        let lock = File::create(folder.with_extension(LOCK)).expect("the folder for temporary files can be written");
        lock.lock().expect("a new file can be locked");
        fs::create_dir(&folder).expect("a folder with a new name can be made");
        Home { folder, _lock: lock }
    }

    /// Hands the folder to another user, under whose name its server runs.
    pub(crate) fn give_to(&self, uid: u32, gid: u32) {
        chown(&self.folder, Some(uid), Some(gid)).expect("root can give away its folder");
    }

    pub(crate) fn path(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        remove(&self.folder);
    }
}

fn sweep(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten().map(|entry| entry.path());
    let locks = entries.filter(|path| is_lock(path));
    for path in locks {
        // Another user's files can't be opened, and are that user's to remove.
        let orphaned = File::open(&path).is_ok_and(|file| file.try_lock().is_ok());
        if orphaned {
            remove(&path.with_extension(""));
        }
    }
}

fn is_lock(path: &Path) -> bool {
    let ours = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX));
    ours && path.extension().is_some_and(|extension| extension == LOCK)
}

/// The lock goes last, so that what could not be removed now is tried again by the next sweep.
fn remove(folder: &Path) {
    let removed = fs::remove_dir_all(folder);
    if removed.is_ok() || !folder.exists() {
        let _ = fs::remove_file(folder.with_extension(LOCK));
    }
}
