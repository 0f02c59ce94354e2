//! [`Lock`]: one writer of a journal at a time, by Optuna's rules.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use crate::entropy::uuid;

/// A lock that nobody has touched for so long belongs to a process that is gone.
const GRACE: Duration = Duration::from_secs(30);

/// A symbolic link beside the journal, made exclusively; it is removed when dropped.
pub(super) struct Lock {
    link: PathBuf,
}

impl Lock {
    /// Waits until nobody else has the lock of `journal`.
    pub(super) fn acquire(journal: &Path) -> io::Result<Lock> {
        Lock::acquire_after(journal, GRACE)
    }

    fn acquire_after(journal: &Path, grace: Duration) -> io::Result<Lock> {
        let mut link = journal.as_os_str().to_owned();
        link.push(".lock");
        let lock = Lock { link: link.into() };
        let mut pause = Duration::from_millis(1);
        let mut seen: Option<(SystemTime, Instant)> = None;
        loop {
            match symlink(journal, &lock.link) {
                Ok(()) => return Ok(lock),
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    std::mem::forget(lock);
                    return Err(error);
                }
                Err(_) => {}
            }
            // Optuna looks at what the link leads to, which changes while others write.
            let modified = fs::metadata(&lock.link).and_then(|meta| meta.modified());
            match (modified, seen) {
                (Ok(modified), Some((before, since))) if modified == before => {
                    if since.elapsed() > grace {
                        lock.release();
                        seen = None;
                        continue;
                    }
                }
                (Ok(modified), _) => seen = Some((modified, Instant::now())),
                (Err(_), _) => {}
            }
            sleep(pause);
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Removes the link, under a name of one's own first, so that only one process removes it.
    fn release(&self) {
        let mut aside = self.link.as_os_str().to_owned();
        aside.push(format!("{}.rename", uuid()));
        if fs::rename(&self.link, &aside).is_ok() {
            let _ = fs::remove_file(&aside);
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, link)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_lock_of_a_process_that_is_gone_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let journal = folder.path().join("journal.log");
        fs::write(&journal, "").unwrap();
        let began = Instant::now();
        std::mem::forget(Lock::acquire(&journal).unwrap());
        let taken = Lock::acquire_after(&journal, Duration::from_millis(50)).unwrap();
        assert!(began.elapsed() > Duration::from_millis(50));
        drop(taken);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
