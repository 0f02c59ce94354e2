//! Identifiers and names that W&B takes.

use crate::random::random_u64;

const LETTERS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

/// Small letters and digits.
pub(super) fn random_text(length: usize) -> String {
    let mut text = String::with_capacity(length);
    while text.len() < length {
        let mut random = random_u64(3);
        // Few enough of 64 bits that all letters are about as likely.
        for _ in 0..4.min(length - text.len()) {
            text.push(char::from(LETTERS[(random % 36) as usize]));
            random /= 36;
        }
    }
    text
}

/// A new identifier of a run: eight small letters and digits.
///
/// ```
/// let id = fulgurite_trackers::wandb::run_id();
/// assert!(id.len() == 8 && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
/// ```
pub fn run_id() -> String {
    random_text(8)
}

/// Why W&B takes no such identifier of a run; `None` if it does.
///
/// ```
/// use fulgurite_trackers::wandb::wrong_run_id;
///
/// assert_eq!(wrong_run_id("version_3"), None);
/// assert!(wrong_run_id("a/b").is_some());
/// ```
pub fn wrong_run_id(id: &str) -> Option<String> {
    let reserved = |c: char| ":;,#?/'\\%".contains(c) || c.is_control();
    if id.is_empty() || id.trim() != id || id.len() > 128 || id.starts_with('.') || id.contains(reserved) {
        return Some(format!(
            "{id:?} is no identifier of a run; give 1 to 128 characters without spaces at the ends and without : ; , # ? / ' \\ %"
        ));
    }
    None
}

/// Why W&B takes no such name of a project; `None` if it does.
///
/// ```
/// use fulgurite_trackers::wandb::wrong_project;
///
/// assert_eq!(wrong_project("my project"), None);
/// assert!(wrong_project("a/b").is_some());
/// ```
pub fn wrong_project(project: &str) -> Option<String> {
    let reserved = |c: char| "/\\#?%:".contains(c) || c.is_control();
    if project.is_empty() || project.chars().count() > 128 || project.starts_with('.') || project.contains(reserved) {
        return Some(format!(
            "{project:?} is no name of a project; give 1 to 128 characters without / \\ # ? % : and without a dot at the start"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_differ() {
        let ids: std::collections::HashSet<String> = (0..1000).map(|_| run_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert_eq!(random_text(130).len(), 130);
    }
}
