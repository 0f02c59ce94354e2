//! The identity of a process: the checksum of its program, and nonces.

use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::Read;
use std::path::Path;

/// The length and checksum of the executable, unless `FULGURITE_SKIP_PROGRAM_CHECK` is set, such as for heterogeneous
/// machines, each with its own executable.
pub(super) fn program() -> Option<String> {
    if std::env::var_os("FULGURITE_SKIP_PROGRAM_CHECK").is_some() {
        return None;
    }
    // The running executable, even if its file has been replaced since it started.
    let running = Path::new("/proc/self/exe");
    let path = if running.exists() { running.to_owned() } else { std::env::current_exe().ok()? };
    let mut file = File::open(path).ok()?;
    let mut chunk = vec![0; 1 << 20];
    let (mut length, mut checksum) = (0_u64, 0);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => return Some(format!("{length} bytes, checksum {checksum:08x}")),
            n => {
                length += n as u64;
                checksum = crc32c::crc32c_append(checksum, &chunk[..n]);
            }
        }
    }
}

/// A text that no process has used before.
pub(super) fn nonce() -> String {
    let random = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}-{}", random(), random(), std::process::id())
}
