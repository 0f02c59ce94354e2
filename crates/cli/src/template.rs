//! The files of a new crate: those of the folder `template`, which `cargo generate` makes crates of too.

/// The path of each file in the new crate, and its text. A name that ends in `.liquid` there is without it here: cargo would
/// take a folder with a `Cargo.toml` for a crate.
const FILES: [(&str, &str); 8] = [
    (".cargo/config.toml", include_str!("../template/.cargo/config.toml")),
    (".gitignore", include_str!("../template/.gitignore")),
    ("Cargo.toml", include_str!("../template/Cargo.toml.liquid")),
    ("README.md", include_str!("../template/README.md")),
    ("src/data.rs", include_str!("../template/src/data.rs")),
    ("src/defaults.yaml", include_str!("../template/src/defaults.yaml")),
    ("src/main.rs", include_str!("../template/src/main.rs")),
    ("src/model.rs", include_str!("../template/src/model.rs")),
];

/// The files of a crate with this name and this dependency on `fulgurite`.
pub(crate) fn files(name: &str, fulgurite: &str) -> Vec<(&'static str, String)> {
    let filled = |text: &str| text.replace("{{project-name}}", name).replace("{{fulgurite}}", fulgurite);
    FILES.iter().map(|(path, text)| (*path, filled(text))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::{FILES, files};

    fn names(folder: &Path, prefix: &str) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        let names = entries.flat_map(|entry| {
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            match entry.file_type().unwrap().is_dir() {
                true => names(&entry.path(), &format!("{name}/")),
                false => BTreeSet::from([name]),
            }
        });
        names.collect()
    }

    #[test]
    fn every_file_of_the_folder_is_in_a_new_crate() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("template");
        let mut there = names(&folder, "");
        assert!(there.remove("cargo-generate.toml"));
        let there: BTreeSet<_> = there.iter().map(|name| name.trim_end_matches(".liquid").to_owned()).collect();
        assert_eq!(there, FILES.iter().map(|(path, _)| (*path).to_owned()).collect());
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        let files = files("my-model", "{ path = \"/x\" }");
        let left: Vec<_> = files.iter().filter(|(_, text)| text.contains("{{") || text.contains("{%")).collect();
        assert!(left.is_empty(), "{left:?}");
        let (_, manifest) = files.iter().find(|(path, _)| *path == "Cargo.toml").unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-model"));
        assert_eq!(manifest["dependencies"]["fulgurite"]["path"].as_str(), Some("/x"));
    }
}
