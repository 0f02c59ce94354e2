//! Names that Trackio takes.

use std::borrow::Cow;

/// A project's name becomes that of files, to which Trackio adds.
const LONGEST_PROJECT: usize = 180;

/// The longest name of a folder, in bytes.
const LONGEST_FOLDER: usize = 100;

/// What Trackio's own files of a project end with.
const RESERVED_ENDS: [&str; 7] =
    ["_system", "_configs", "_traces", "_artifacts", "_artifact_versions", "_artifact_aliases", "_run_artifact_links"];

/// What a project is called where Trackio makes files for it.
pub(super) fn project_folder(project: &str) -> String {
    let folder: String = project.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect();
    if folder.is_empty() { "default".to_owned() } else { folder }
}

/// A run's name, or something like it, as one folder.
pub(super) fn run_folder(run: &str) -> String {
    let mut folder = String::new();
    for c in run.chars().map(|c| if c.is_alphanumeric() || "-_. ".contains(c) { c } else { '_' }) {
        if folder.len() + c.len_utf8() > LONGEST_FOLDER {
            break;
        }
        folder.push(c);
    }
    let folder = folder.trim();
    if folder.trim_matches('.').is_empty() { "_".to_owned() } else { folder.to_owned() }
}

/// Whether a project can have this name.
///
/// # Errors
///
/// Fails with the reason: Trackio would mix its files up with others, or could not write them.
///
/// ```
/// use fulgurite_trackers::trackio::check_project;
///
/// assert!(check_project("digits").is_ok());
/// assert!(check_project("registry-a").is_err());
/// ```
pub fn check_project(project: &str) -> Result<(), String> {
    let folder = project_folder(project);
    let reserved = RESERVED_ENDS.iter().find(|end| folder.len() > end.len() && folder.ends_with(*end));
    let why = if project.trim().is_empty() {
        "it is empty".to_owned()
    } else if folder.starts_with("registry-") {
        "names that begin with `registry-` are those of Trackio's registries".to_owned()
    } else if let Some(end) = reserved {
        format!("names that end with `{end}` are those of Trackio's own files")
    } else if folder.len() > LONGEST_PROJECT {
        format!("it has more than {LONGEST_PROJECT} bytes, and files get it as their name")
    } else {
        return Ok(());
    };
    let shown: String = project.chars().take(40).collect();
    Err(format!("a project of Trackio cannot be called {shown:?}: {why}; choose another name as `project`"))
}

/// The name of a metric, which is another one if Trackio uses it itself.
///
/// ```
/// use fulgurite_trackers::trackio::metric_key;
///
/// assert_eq!(metric_key("val/loss"), "val/loss");
/// assert_eq!(metric_key("time"), "__time");
/// ```
pub fn metric_key(name: &str) -> Cow<'_, str> {
    let is_reserved = ["project", "run", "timestamp", "step", "time", "metrics"].contains(&name);
    if is_reserved || name.starts_with("__") { format!("__{name}").into() } else { name.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn projects_that_would_harm_others_are_refused() {
        for good in ["a", "my project", "größe/🚀", "system", "🚀"] {
            assert_eq!(check_project(good), Ok(()), "{good}");
        }
        for bad in ["", " ", "registry-x", "re/gistry-x", "a_system", "a_artifact_versions", &"x".repeat(300)] {
            assert!(check_project(bad).unwrap_err().contains("choose another name as `project`"), "{bad}");
        }
    }

    #[test]
    fn runs_have_folders_of_one_level() {
        for (run, folder) in [("a b", "a b"), ("../../x", ".._.._x"), ("..", "_"), ("", "_"), ("\"🚀\"\n", "____")] {
            assert_eq!(run_folder(run), folder);
        }
        assert_eq!(run_folder(&"ü".repeat(300)).len(), 100);
    }
}
