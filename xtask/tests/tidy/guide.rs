//! Every public item of the crates that a program chooses from is named in the guide.

use super::{contains_word, files, none};

/// Files whose `pub use` lines are what users see of a crate.
const CATALOGUES: [&str; 10] = [
    "crates/data/src/lib.rs",
    "crates/data/src/datasets/mod.rs",
    "crates/data/src/tabular/mod.rs",
    "crates/data/src/transforms/mod.rs",
    "crates/metrics/src/lib.rs",
    "crates/metrics/src/classification/mod.rs",
    "crates/nn/src/lib.rs",
    "crates/nn/src/loss/mod.rs",
    "crates/nn/src/rnn/mod.rs",
    "crates/nn/src/transformer/mod.rs",
];

/// The names that a file re-exports.
fn exported(text: &str) -> Vec<&str> {
    let statements = text.split("\npub use ").skip(1).filter_map(|rest| rest.split_once(';'));
    let lists = statements.map(|(path, _)| match path.split_once('{') {
        Some((_, list)) => list.trim_end_matches('}'),
        None => path.rsplit("::").next().unwrap_or(path),
    });
    let names = lists.flat_map(|list| list.split(',')).map(|item| item.rsplit(" as ").next().unwrap_or(item).trim());
    names.filter(|name| !name.is_empty() && *name != "*").collect()
}

#[test]
fn every_public_item_of_data_metrics_and_nn_is_named_in_the_guide() {
    let files = files();
    let pages: Vec<&str> =
        files.iter().filter(|file| file.path.starts_with("docs/src/")).map(|file| file.text.as_str()).collect();
    let is_named = |name: &str| pages.iter().any(|page| page.lines().any(|line| contains_word(line, name)));
    let mut missing = Vec::new();
    for path in CATALOGUES {
        let names = exported(&files.iter().find(|file| file.path == path).unwrap().text);
        assert!(names.len() > 3, "{path}: {names:?}");
        missing.extend(names.into_iter().filter(|name| !is_named(name)).map(|name| format!("{path}: {name}")));
    }
    none("no page of docs/src names these public items", missing);
}
