//! Temporary files: their names, and which of them are abandoned.
//!
//! A file is locked (`flock`) for as long as it is written. The kernel releases the lock when the process dies for any
//! reason, also across containers. So an unlocked temporary file of this machine is abandoned.
//! Other machines' locks are not seen on every network file system; their files must also be old.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

/// How long a file of another machine must not have changed.
const FOREIGN_AGE: Duration = Duration::from_secs(3600);

/// Identifies this machine; or no machine, if it has no unique name.
static MACHINE: LazyLock<Option<u32>> = LazyLock::new(|| {
    let boot = fs::read("/proc/sys/kernel/random/boot_id").ok()?;
    Some(crc32fast::hash(&boot))
});

/// How many bytes of a file's name are in that of its temporary, which must not be too long where the name just fits.
const KEPT_OF_NAME: usize = 100;

/// The longest name that file systems take, in bytes.
const MAX_NAME: usize = 255;

/// A name that no other process chooses: `.last.ckpt.tmp-MACHINE-RANDOM`, in 8 and 16 hexadecimal digits.
pub(super) fn temporary_name(name: &OsStr) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(beginning(name, KEPT_OF_NAME));
    let random = RandomState::new().build_hasher().finish();
    hidden.push(format!(".tmp-{:08x}-{random:016x}", MACHINE.unwrap_or(0)));
    hidden
}

/// The path beside `path` whose name is its own with `ending`, the same each time; the name is shortened, and made
/// unique by a checksum, if it would be too long.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default();
    let mut longer = name.to_owned();
    if name.len() + ending.len() > MAX_NAME {
        longer = beginning(name, KEPT_OF_NAME);
        longer.push(format!("-{:08x}", crc32fast::hash(name.as_encoded_bytes())));
    }
    longer.push(ending);
    path.with_file_name(longer)
}

/// As many whole characters of a name as have `limit` bytes.
fn beginning(name: &OsStr, limit: usize) -> OsString {
    if name.len() <= limit {
        return name.to_owned();
    }
    let text = name.to_string_lossy();
    text[..text.floor_char_boundary(limit)].into()
}

/// The machine that a name of [`temporary_name`] was made on.
fn machine_of(name: &OsStr) -> Option<u32> {
    // Only the end matters, which is ASCII.
    let name = name.to_string_lossy();
    let (name, tail) = name.rsplit_once(".tmp-")?;
    let (machine, random) = tail.split_once('-')?;
    let is_ours = name.starts_with('.') && machine.len() == 8 && random.len() == 16;
    (is_ours && u64::from_str_radix(random, 16).is_ok()).then(|| u32::from_str_radix(machine, 16).ok())?
}

/// Marks a file that was just made as being written. An error of kind `AlreadyExists` where it was taken for abandoned
/// before that.
pub(super) fn hold(file: &File, path: &Path) -> io::Result<()> {
    match file.try_lock() {
        // Removed in between: the name leads elsewhere, or nowhere.
        Ok(()) if !path.try_exists()? => Err(io::ErrorKind::AlreadyExists.into()),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::AlreadyExists.into()),
        // A file system without locks: its temporaries stay where they are.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(()),
    }
}

pub(super) fn remove_abandoned(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(machine) = machine_of(&entry.file_name())
            && entry.file_type().is_ok_and(|kind| kind.is_file())
        {
            // Another process may have removed or finished it meanwhile.
            let _ = remove_if_abandoned(&entry.path(), machine);
        }
    }
    Ok(())
}

fn remove_if_abandoned(path: &Path, machine: u32) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    let is_ours = MACHINE.is_some_and(|ours| ours == machine);
    if !is_ours && file.metadata()?.modified()?.elapsed().map_or(true, |age| age < FOREIGN_AGE) {
        return Ok(());
    }
    match file.try_lock() {
        Ok(()) => fs::remove_file(path),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_writes_is_removed_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &OsStr| folder.path().join(name);
        let abandoned = temporary_name(OsStr::new("epoch=3.ckpt"));
        let held = temporary_name(OsStr::new("last.ckpt"));
        let foreign = OsStr::new(".last.ckpt.tmp-ffffffff-0123456789abcdef");
        let old = OsStr::new(".last.ckpt.tmp-ffffffff-0000000000000000");
        let others = ["last.ckpt", ".last.ckpt.tmp-1-2", ".tmp-notes", "last.ckpt.tmp-ffffffff-0123456789abcdef"];
        for name in [&abandoned, foreign].into_iter().chain(others.map(OsStr::new)) {
            fs::write(at(name), b"half").unwrap();
        }
        let writing = File::create_new(at(&held)).unwrap();
        hold(&writing, &at(&held)).unwrap();
        let two_hours_ago = SystemTime::now() - 2 * FOREIGN_AGE;
        File::create_new(at(old)).unwrap().set_modified(two_hours_ago).unwrap();

        remove_abandoned(folder.path()).unwrap();
        let mut left: Vec<OsString> = [&held, foreign].into_iter().map(OsString::from).collect();
        left.extend(others.map(OsString::from));
        left.sort();
        assert_eq!(names(folder.path()), left);

        drop(writing);
        remove_abandoned(folder.path()).unwrap();
        assert!(!at(&held).exists());
    }

    #[test]
    fn names_beside_a_file_fit_whatever_its_own_name_is() {
        for letter in ["a", "é", "日"] {
            for length in 1..=255 {
                let name = OsString::from(letter.repeat(length / letter.len()));
                let temporary = temporary_name(&name);
                assert!(temporary.len() <= 255 && machine_of(&temporary).is_some(), "{temporary:?}");
                let path = Path::new("folder").join(&name);
                let linked = beside(&path, ".tmp");
                assert!(linked.file_name().unwrap().len() <= 255 && linked != path, "{linked:?}");
                assert_eq!(linked, beside(&path, ".tmp"));
            }
        }
        assert_eq!(beside(Path::new("a/last.ckpt"), ".tmp"), Path::new("a/last.ckpt.tmp"));
        let long = |last: &str| beside(Path::new(&("a".repeat(254) + last)), ".tmp");
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn a_file_that_was_removed_before_it_was_held_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let file = File::create_new(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(hold(&file, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    }
}
