//! The page that lists the arguments, methods and properties of Lightning's `Trainer` leaves none out.

use std::collections::BTreeSet;

use fulgurite_parity::python;

const PAGE: &str = include_str!("../../../../docs/src/trainer-arguments.md");

#[test]
fn none_is_silently_missing() {
    let first_cells = PAGE.lines().filter(|line| line.starts_with("| `")).filter_map(|line| line.split(" | ").next());
    let listed: BTreeSet<&str> = first_cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    let theirs = python("arguments.py", &[]);
    let all = theirs.as_object().unwrap().values().flat_map(|names| names.as_array().unwrap());
    let singular = |name: &str| listed.contains(format!("{}(s)", name.trim_end_matches('s')).as_str());
    let missing: Vec<&str> =
        all.map(|name| name.as_str().unwrap()).filter(|name| !listed.contains(name) && !singular(name)).collect();
    assert!(missing.is_empty(), "docs/src/trainer-arguments.md does not list {missing:?}");
}
