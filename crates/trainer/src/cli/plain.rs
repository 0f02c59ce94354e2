//! Strings that need no quotes in YAML.

/// Whether a string needs no quotes.
pub(super) fn is_plain(text: &str) -> bool {
    let special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/' || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !special.contains(&text.to_ascii_lowercase().as_str())
        // `16-mixed` starts with a digit, but is a string.
        || text.starts_with(|first: char| first.is_ascii_digit())
            && text.contains(|c: char| "-_".contains(c))
            && text.contains(|c: char| c.is_ascii_alphabetic() && !"bBeExXoO".contains(c))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}
