//! What MLflow's own client says of a program.

use std::path::Path;
use std::{env, fs};

/// The tag that holds a run's name.
pub const RUN_NAME: &str = "mlflow.runName";

/// The user, the program and its git commit, under the names of MLflow's client.
///
/// ```
/// let tags = fulgurite_trackers::mlflow::context_tags();
/// assert!(tags.contains(&("mlflow.source.type".to_owned(), "LOCAL".to_owned())));
/// ```
pub fn context_tags() -> Vec<(String, String)> {
    let user = ["LOGNAME", "USER", "USERNAME"].iter().find_map(|name| env::var(name).ok());
    let program = env::args_os().next().map(|program| program.to_string_lossy().into_owned());
    let commit = env::current_dir().ok().and_then(|folder| git_commit(&folder));
    let tags = [
        ("mlflow.user", user),
        ("mlflow.source.name", program),
        ("mlflow.source.type", Some("LOCAL".to_owned())),
        ("mlflow.source.git.commit", commit),
    ];
    tags.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
}

/// The commit that is checked out in the repository around a folder.
fn git_commit(folder: &Path) -> Option<String> {
    let git = folder.ancestors().map(|folder| folder.join(".git")).find(|git| git.is_dir())?;
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
