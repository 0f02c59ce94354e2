//! The page that lists every argument is complete.

use std::collections::BTreeSet;

use fulgurite::TrainerConfig;

const PAGE: &str = include_str!("../../../../../docs/src/trainer-arguments.md");

/// What the first cells of its tables name, and the state beside it.
fn rows() -> Vec<(Vec<String>, String)> {
    let cells = |line: &'static str| line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect::<Vec<_>>();
    let tables = PAGE.lines().filter(|line| line.starts_with("| `")).map(cells);
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    tables.map(|cells| (names(cells[0]), cells[1].to_owned())).collect()
}

#[test]
fn it_has_every_field_of_the_configuration() {
    let fields = serde_json::to_value(TrainerConfig::default()).unwrap();
    let listed: BTreeSet<String> = rows().into_iter().flat_map(|(names, _)| names).collect();
    let missing: Vec<&String> = fields.as_object().unwrap().keys().filter(|&field| !listed.contains(field)).collect();
    assert!(missing.is_empty(), "docs/src/trainer-arguments.md does not list {missing:?}");
}

#[test]
fn every_state_is_one_of_four() {
    for (names, state) in rows() {
        let known = ["works", "differs", "later", "left out"].contains(&state.as_str());
        assert!(known, "{names:?} has the state {state:?}");
    }
}
