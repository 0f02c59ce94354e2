//! Names that MLflow takes.

use std::borrow::Cow;

/// What MLflow keeps of a hyper-parameter, in characters.
pub const MAX_PARAM: usize = 6000;

/// The longest name.
const LONGEST: usize = 250;

/// The name under which MLflow takes a metric or hyper-parameter: without characters that Lightning removes too, and without
/// what would make it a path that leads elsewhere. `None` if nothing is left.
///
/// ```
/// use fulgurite_trackers::mlflow::metric_key;
///
/// assert_eq!(metric_key("val/loss").as_deref(), Some("val/loss"));
/// assert_eq!(metric_key("/a@b//c/").as_deref(), Some("ab/c"));
/// assert_eq!(metric_key("@"), None);
/// ```
pub fn metric_key(name: &str) -> Option<Cow<'_, str>> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_/. -".contains(c);
    let is_part = |part: &str| !matches!(part, "" | "." | "..");
    if name.chars().all(is_allowed) && name.split('/').all(is_part) && name.len() <= LONGEST {
        return Some(name.into());
    }
    let cleaned: String = name.chars().filter(|c| is_allowed(*c)).collect();
    let parts: Vec<&str> = cleaned.split('/').filter(|part| is_part(part)).collect();
    let mut key = parts.join("/");
    key.truncate(LONGEST);
    let key = key.trim_end_matches('/').to_owned();
    (!key.is_empty()).then_some(key.into())
}

#[cfg(test)]
mod tests {
    use super::metric_key;

    #[test]
    fn names_become_those_that_mlflow_takes() {
        let long = "x".repeat(300);
        for (name, key) in [
            ("train_loss", Some("train_loss")),
            ("a b.c-d", Some("a b.c-d")),
            ("größe", Some("gre")),
            ("../../etc", Some("etc")),
            (".", None),
            ("🚀", None),
            ("a\"'b\n", Some("ab")),
            (&long, Some(&long[..250])),
        ] {
            assert_eq!(metric_key(name).as_deref(), key, "{name:?}");
        }
    }
}
