//! [`Pip`]: installs packages, shows how far it is, and says in one sentence what went wrong.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use crate::console::StatusLine;
use crate::prerequisites::no_space;

/// An installation to be. The user's configuration of pip (index, proxy, certificates) applies.
pub struct Pip<'a> {
    /// The Python whose pip is used.
    pub python: OsString,
    /// The Python it installs for, if another.
    pub interpreter: Option<&'a Path>,
    /// The folder whose growth is shown. Its subfolder `tmp` takes what pip downloads and unpacks, so that all of it
    /// is on one disk.
    pub folder: &'a Path,
    /// What is installed, for messages.
    pub what: &'static str,
    /// The bytes that it needs, for the message that there is no room.
    pub needed: u64,
}

impl Pip<'_> {
    /// Runs `pip install` with `args`.
    ///
    /// # Errors
    ///
    /// When it fails: why, and what to do about it, in one sentence.
    pub fn install(&self, args: &[OsString]) -> Result<()> {
        let temporary = self.folder.join("tmp");
        fs::create_dir_all(&temporary)?;
        let mut pip = Command::new(&self.python);
        pip.args(["-m", "pip"]);
        if let Some(interpreter) = self.interpreter {
            pip.arg("--python").arg(interpreter);
        }
        // Quiet, because the line with the megabytes is ours: pip's bar is silent wherever there is no terminal.
        pip.args(["install", "--quiet", "--no-compile", "--only-binary", ":all:", "--disable-pip-version-check"]);
        pip.args(args).env("TMPDIR", &temporary).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = pip.spawn().context("pip does not start")?;

        let mut stderr = child.stderr.take().context("pip's messages are piped")?;
        let messages = thread::spawn(move || {
            let mut text = Vec::new();
            let read = stderr.read_to_end(&mut text);
            read.map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        let mut progress = Progress::new(self.what);
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            thread::sleep(Duration::from_millis(100));
            progress.show(self.folder);
        };
        progress.end();
        let messages = messages.join().map_err(|_| anyhow!("pip's messages cannot be read"))??;
        if status.success() { Ok(()) } else { Err(self.explain(&messages)) }
    }

    /// What pip's messages mean, and what to do about it.
    fn explain(&self, messages: &str) -> anyhow::Error {
        let what = self.what;
        let says = |needles: &[&str]| needles.iter().any(|needle| messages.contains(needle));
        if says(&["No space left on device", "Errno 28", "Disk quota exceeded"]) {
            return no_space(self.folder, None, self.needed, what);
        }
        // Asked before what is missing from the index: of an index it cannot reach, pip says that it has nothing.
        if says(&[
            "connection broken by",
            "Max retries exceeded",
            "Failed to establish a new connection",
            "Read timed out",
        ]) {
            return anyhow!(
                "cannot reach pip's package index, from which {what} comes: connect this machine to the network, or configure pip's index-url or proxy, and try again"
            );
        }
        if says(&["No matching distribution found"]) {
            return anyhow!(
                "the package index has no build of {what} for this machine and its Python: install Python 3.11 to 3.14, on Linux with glibc 2.28 or later or on macOS with Apple silicon"
            );
        }
        if says(&["no such option: --python"]) {
            return anyhow!("this Python's pip is too old: update it with `python3 -m pip install --upgrade pip`");
        }
        let last = messages.lines().rev().find(|line| line.starts_with("ERROR:")).or(messages.lines().last());
        let last = last.unwrap_or("no reason given").trim_start_matches("ERROR:").trim();
        anyhow!("pip could not install {what}: {last}")
    }
}

/// Says how much there is so far.
struct Progress {
    what: &'static str,
    started: Instant,
    shown: Instant,
    line: StatusLine,
}

impl Progress {
    fn new(what: &'static str) -> Progress {
        let now = Instant::now();
        Progress { what, started: now, shown: now, line: StatusLine::new() }
    }

    fn show(&mut self, folder: &Path) {
        let pause = if self.line.is_redrawn() { Duration::from_millis(500) } else { Duration::from_secs(10) };
        if self.shown.elapsed() < pause {
            return;
        }
        let (megabytes, seconds) = (size(folder) / 1_000_000, self.started.elapsed().as_secs());
        self.line.show(&format!("{}: {megabytes} MB so far, {seconds} s", self.what));
        self.shown = Instant::now();
    }

    fn end(&self) {
        self.line.end();
    }
}

/// The bytes of the files in a folder, as far as they can be read while others write and rename them.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(messages: &str) -> String {
        let folder = Path::new("/somewhere");
        let pip = Pip { python: "python3".into(), interpreter: None, folder, what: "libtorch", needed: 3_000_000_000 };
        pip.explain(messages).to_string()
    }

    #[test]
    fn no_network_is_told_from_an_index_that_has_nothing() {
        let nothing = "ERROR: Could not find a version that satisfies the requirement torch==2.11.0 (from versions: none)\n\
                       ERROR: No matching distribution found for torch==2.11.0\n";
        let retry = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError('<…>: Failed to \
                     establish a new connection: [Errno -3] Temporary failure in name resolution')': /simple/torch/\n";
        let no_network = "cannot reach pip's package index, from which libtorch comes: connect this machine to the network, or configure pip's index-url or proxy, and try again";
        let no_build = "the package index has no build of libtorch for this machine and its Python: install Python 3.11 to 3.14, on Linux with glibc 2.28 or later or on macOS with Apple silicon";
        assert_eq!(explained(&format!("{retry}{nothing}")), no_network);
        assert_eq!(explained(nothing), no_build);
    }

    #[test]
    fn a_disk_that_fills_up_is_one_sentence() {
        assert_eq!(
            explained("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"),
            "libtorch does not fit on the disk of /somewhere: it needs 3.0 GB while it is installed; make room and try again"
        );
    }

    #[test]
    fn an_old_pip_is_to_be_updated() {
        assert_eq!(
            explained("Usage: …\n\nno such option: --python\n"),
            "this Python's pip is too old: update it with `python3 -m pip install --upgrade pip`"
        );
    }

    #[test]
    fn anything_else_is_pips_last_error() {
        assert_eq!(
            explained("WARNING: a\nERROR: Could not find an activated virtualenv (required).\n"),
            "pip could not install libtorch: Could not find an activated virtualenv (required)."
        );
        assert_eq!(explained(""), "pip could not install libtorch: no reason given");
    }

    #[test]
    fn the_size_of_a_folder_counts_what_lies_deep() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("a/b/c"), [0; 10]).unwrap();
        fs::write(folder.path().join("d"), [0; 5]).unwrap();
        assert_eq!(size(folder.path()), 15);
    }
}
