//! The golden hook orders of `crates/trainer/tests/golden` are what Lightning 2.6.6 calls.

use fulgurite_parity::python;

#[track_caller]
fn check(accumulate: &str, golden: &str) {
    let events = python("hooks.py", &[accumulate]);
    let events: Vec<&str> = events.as_array().unwrap().iter().map(|event| event.as_str().unwrap()).collect();
    assert_eq!(events, golden.lines().collect::<Vec<_>>());
}

#[test]
fn the_golden_order_is_lightnings() {
    check("1", include_str!("../../../../crates/trainer/tests/golden/hooks_accumulate_1.txt"));
}

#[test]
fn the_golden_order_of_manual_optimization_is_lightnings() {
    check("manual", include_str!("../../../../crates/trainer/tests/golden/hooks_manual.txt"));
}

#[test]
fn the_golden_order_while_accumulating_is_lightnings() {
    check("2", include_str!("../../../../crates/trainer/tests/golden/hooks_accumulate_2.txt"));
}
