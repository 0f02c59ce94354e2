//! [`Checkout`]: the git repository around the program.

use std::path::Path;
use std::{env, fs};

use crate::http::Address;

/// What is checked out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// The commit.
    pub commit: String,
    /// The address of the repository, without keys, if it has one.
    pub remote: Option<String>,
}

impl Checkout {
    /// The repository around the current folder; `None` if there is none with a commit.
    ///
    /// ```
    /// if let Some(checkout) = fulgurite_trackers::Checkout::around_here() {
    ///     assert!(checkout.commit.len() >= 40);
    /// }
    /// ```
    pub fn around_here() -> Option<Checkout> {
        Checkout::around(&env::current_dir().ok()?)
    }

    fn around(folder: &Path) -> Option<Checkout> {
        let git = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.is_dir())?;
        let remote = fs::read_to_string(git.join("config")).ok().and_then(|config| origin(&config));
        Some(Checkout { commit: commit(&git)?, remote })
    }
}

fn commit(git: &Path) -> Option<String> {
    let head = fs::read_to_string(git.join("HEAD")).ok()?;
    let Some(name) = head.trim().strip_prefix("ref: ") else { return is_commit(head.trim()) };
    if let Ok(commit) = fs::read_to_string(git.join(name)) {
        return is_commit(commit.trim());
    }
    let packed = fs::read_to_string(git.join("packed-refs")).ok()?;
    let mut lines = packed.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(_, packed)| *packed == name).and_then(|(commit, _)| is_commit(commit))
}

fn is_commit(text: &str) -> Option<String> {
    (text.len() >= 40 && text.chars().all(|c| c.is_ascii_hexdigit())).then(|| text.to_owned())
}

/// The address of the remote `origin`. One of HTTP may hold a key, which is left out.
fn origin(config: &str) -> Option<String> {
    let mut section = "";
    let url = config.lines().map(str::trim).find_map(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let (name, value) = line.split_once('=')?;
        (section == "[remote \"origin\"]" && name.trim() == "url").then(|| value.trim())
    })?;
    match url.contains("://") {
        true => Address::parse(url).map(|address| address.url),
        false => Some(url.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkout_is_found_from_below_without_its_key() {
        let root = tempfile::tempdir().unwrap();
        let (git, below) = (root.path().join(".git"), root.path().join("a/b"));
        fs::create_dir_all(&git).unwrap();
        fs::create_dir_all(&below).unwrap();
        let commit = "0123456789".repeat(4);
        fs::write(git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
        fs::write(git.join("packed-refs"), format!("# pack-refs\n{commit} refs/heads/main\n")).unwrap();
        assert_eq!(Checkout::around(&below), Some(Checkout { commit: commit.clone(), remote: None }));
        for (url, remote) in [
            ("https://ann:s3cret@host/a.git", Some("https://host/a.git")),
            ("git@host:a/b.git", Some("git@host:a/b.git")),
            ("ssh://ann:s3cret@host/a", None),
        ] {
            fs::write(git.join("config"), format!("[core]\n\turl = x\n[remote \"origin\"]\n\turl = {url}\n")).unwrap();
            assert_eq!(Checkout::around(&below).unwrap().remote.as_deref(), remote);
        }
    }
}
