//! Which names a crate may have.

use anyhow::{Result, bail};

/// Names that cargo or rustc keep for themselves, or that would hide what every crate has.
const TAKEN: [&str; 10] =
    ["alloc", "build", "core", "deps", "examples", "incremental", "proc-macro", "proc_macro", "std", "test"];

/// What a crate of the template depends on.
const DEPENDENCIES: [&str; 3] = ["fulgurite", "schemars", "serde"];

const KEYWORDS: [&str; 52] = [
    "Self", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
    "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
    "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
    "trait", "true", "try", "type", "typeof", "unsized", "use", "virtual", "where", "while", "yield", "_",
];

/// Whether a crate may be called so; if not, why.
pub(crate) fn check(name: &str) -> Result<()> {
    let shown = name.escape_debug();
    let help = "choose another, with `--name` if the folder is to be called so";
    if name.is_empty() {
        bail!("a crate needs a name: {help}");
    }
    let strange = name.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-' && *c != '_');
    if let Some(strange) = strange {
        bail!(
            "`{shown}` cannot be the name of a crate, which has letters without accents, digits, `-` and `_`, and no {strange:?}: {help}"
        );
    }
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        bail!("`{shown}` cannot be the name of a crate, which begins with a letter: {help}");
    }
    if KEYWORDS.contains(&name) || name == concat!("un", "safe") {
        bail!("`{shown}` is a keyword of Rust, and cannot be the name of a crate: {help}");
    }
    if TAKEN.contains(&name) {
        bail!("`{shown}` is a name that Rust or cargo use themselves: {help}");
    }
    if DEPENDENCIES.contains(&name) {
        bail!("`{shown}` is the name of a crate that the new one depends on: {help}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;

    fn refusal(name: &str) -> String {
        check(name).unwrap_err().to_string()
    }

    #[test]
    fn usual_names_are_fine() {
        for name in ["my-model", "digits2", "A_b", "_x"] {
            check(name).unwrap();
        }
    }

    #[test]
    fn others_are_refused_for_a_reason() {
        let help = "choose another, with `--name` if the folder is to be called so";
        assert_eq!(
            refusal("a b"),
            format!(
                "`a b` cannot be the name of a crate, which has letters without accents, digits, `-` and `_`, and no ' ': {help}"
            )
        );
        assert!(refusal("modèle").ends_with(&format!("and no 'è': {help}")));
        assert!(refusal("a\u{1b}[2J").starts_with("`a\\u{1b}[2J` cannot be"));
        assert_eq!(refusal("2d"), format!("`2d` cannot be the name of a crate, which begins with a letter: {help}"));
        assert_eq!(refusal("test"), format!("`test` is a name that Rust or cargo use themselves: {help}"));
        assert_eq!(refusal("core"), format!("`core` is a name that Rust or cargo use themselves: {help}"));
        assert_eq!(
            refusal("fulgurite"),
            format!("`fulgurite` is the name of a crate that the new one depends on: {help}")
        );
        assert_eq!(
            refusal("match"),
            format!("`match` is a keyword of Rust, and cannot be the name of a crate: {help}")
        );
        assert_eq!(refusal(""), format!("a crate needs a name: {help}"));
    }
}
