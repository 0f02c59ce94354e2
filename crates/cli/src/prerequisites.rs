//! What must be on the machine already. Each missing thing is one sentence that says what to install.

use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Result, bail};

/// The first cargo that knows `include` in its configuration.
const CARGO: (u32, u32) = (1, 94);

/// Runs a program and returns what it printed, or `None` when it is not there or fails.
fn output(command: &mut Command) -> Option<Output> {
    command.output().ok().filter(|output| output.status.success())
}

/// Cargo is new enough to read what set-up writes.
///
/// # Errors
///
/// When it is older.
pub fn cargo_is_new_enough() -> Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = output(Command::new(cargo).arg("--version")).map(|output| output.stdout).unwrap_or_default();
    let printed = String::from_utf8_lossy(&printed);
    match cargo_version(&printed) {
        Some(version) if version < CARGO => bail!(
            "cargo {}.{} is too old, {}.{} or later is needed: run `rustup update stable`",
            version.0,
            version.1,
            CARGO.0,
            CARGO.1
        ),
        _ => Ok(()),
    }
}

fn cargo_version(printed: &str) -> Option<(u32, u32)> {
    let mut numbers = printed.strip_prefix("cargo ")?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// There is a C++ compiler, as the `cc` crate will look for it.
///
/// # Errors
///
/// When there is none.
pub fn compiler_is_there() -> Result<()> {
    let named = std::env::var("CXX").ok().filter(|name| !name.trim().is_empty());
    let compiler = named.as_deref().unwrap_or("c++");
    let mut words = compiler.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("c++"));
    if output(command.args(words).arg("--version")).is_some() {
        return Ok(());
    }
    let from = if named.is_some() { "which the variable CXX names" } else { "the usual name" };
    bail!(
        "there is no C++ compiler (`{compiler}`, {from}, does not run): install one, with `apt install g++` on Debian and Ubuntu, `dnf install gcc-c++` on Fedora, `xcode-select --install` on macOS"
    );
}

/// `folder` has room for `needed` bytes of `what`. Where nobody can tell, it is taken to have.
///
/// # Errors
///
/// When it has less.
pub fn has_space(folder: &Path, needed: u64, what: &str) -> Result<()> {
    let printed = output(Command::new("df").arg("-Pk").arg(folder).env("LC_ALL", "C"));
    let free = printed.and_then(|output| free_bytes(&String::from_utf8_lossy(&output.stdout)));
    match free {
        Some(free) if free < needed => Err(no_space(folder, Some(free), needed, what)),
        _ => Ok(()),
    }
}

/// The error for a disk that is full, or would be.
pub fn no_space(folder: &Path, free: Option<u64>, needed: u64, what: &str) -> anyhow::Error {
    let free = free.map(|free| format!(", and {:.1} GB are free", free as f64 / 1e9)).unwrap_or_default();
    anyhow::anyhow!(
        "{what} does not fit on the disk of {}: it needs {:.1} GB while it is installed{free}; make room and try again",
        folder.display(),
        needed as f64 / 1e9
    )
}

/// The free bytes in the table that `df -Pk` prints for one file system.
fn free_bytes(table: &str) -> Option<u64> {
    let words: Vec<&str> = table.lines().nth(1)?.split_whitespace().collect();
    // Names of file systems and folders may contain spaces; the column between the two ends with a percent sign.
    let capacity = words.iter().rposition(|word| word.strip_suffix('%').is_some_and(|n| n.parse::<u8>().is_ok()))?;
    words.get(capacity.checked_sub(1)?)?.parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_version_is_read() {
        assert_eq!(cargo_version("cargo 1.95.0 (f2d3ce0bd 2026-03-21)\n"), Some((1, 95)));
        assert_eq!(cargo_version("cargo 1.93.0-nightly (abc 2025-10-01)"), Some((1, 93)));
        assert_eq!(cargo_version(""), None);
    }

    #[test]
    fn free_space_is_read_from_df() {
        let table = "Filesystem 1024-blocks    Used Available Capacity Mounted on\n\
                     /dev/my disk  263174212 22917228  2000000      24% /mnt/100% full\n";
        assert_eq!(free_bytes(table), Some(2_000_000 * 1024));
        assert_eq!(free_bytes("df: no such folder"), None);
    }

    #[test]
    fn a_disk_too_small_is_one_sentence() {
        assert!(has_space(&std::env::temp_dir(), 0, "libtorch").is_ok());
        let error = has_space(&std::env::temp_dir(), u64::MAX, "libtorch").unwrap_err().to_string();
        assert!(error.starts_with("libtorch does not fit on the disk of "), "{error}");
        assert!(error.ends_with(" GB are free; make room and try again"), "{error}");
    }
}
