//! The short form of `cargo xtask torture`.

use fulgurite_torture::campaign::{Campaign, Undisturbed};
use fulgurite_torture::life::{Fate, Program, Victims};

fn program(args: &[&str]) -> Program {
    let path = env!("CARGO_BIN_EXE_fulgurite-torture").into();
    Program { path, args: args.iter().map(|arg| (*arg).into()).collect(), ranks: 1 }
}

/// The calls of one save, in the middle of the run.
#[test]
fn a_run_killed_in_any_call_of_a_save_goes_on() {
    let undisturbed = Undisturbed::train(&program(&[])).unwrap();
    let one_save = undisturbed.calls_of_a_save();
    let calls: Vec<u64> = (0..one_save + 2).map(|call| 3 * one_save + call).collect();
    let endure = |calls: &[u64], args: &[&str]| {
        for call in calls {
            let fate = |how: &str| Fate::KilledIn(format!("{call}:{how}"));
            // The second process dies in one of its first saves, of what the first one left.
            Campaign::endure(&program(args), &undisturbed, &[fate("kill-within"), fate("kill-after")]).unwrap();
        }
    };
    let (one, other) = calls.split_at(calls.len() / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| endure(one, &[]));
        scope.spawn(|| endure(other, &["--link"]));
    });
}

#[test]
fn a_run_killed_at_any_time_goes_on() {
    let undisturbed = Undisturbed::train(&program(&[])).unwrap();
    let at = |percent: u32| Fate::KilledAfter(undisturbed.time() / 100 * percent);
    Campaign::endure(&program(&[]), &undisturbed, &[at(40), at(55), at(60), at(70), at(80)]).unwrap();
    Campaign::endure(&program(&["--asynchronous"]), &undisturbed, &[at(50), at(60), at(45)]).unwrap();
    Campaign::endure(&program(&["--link"]), &undisturbed, &[at(1), at(65), at(50), at(75), at(90)]).unwrap();
}

/// Whoever of a supervisor and its two ranks dies.
#[test]
fn a_run_of_two_ranks_goes_on_whoever_of_it_is_killed() {
    let of_two = |args: &[&str]| Program { ranks: 2, ..program(args) };
    let undisturbed = Undisturbed::train(&of_two(&[])).unwrap();
    let after = |percent: u32| undisturbed.time() / 100 * percent;
    let some = |victims: Victims, percent: u32| Fate::SomeKilledAfter(victims, after(percent));
    let fates = [some(Victims::Rank(1), 60), some(Victims::Rank(0), 70), some(Victims::All, 75)];
    Campaign::endure(&of_two(&[]), &undisturbed, &fates).unwrap();
    let within = Fate::KilledIn(format!("{}:kill-within", undisturbed.calls() / 3));
    let fates = [Fate::KilledAfter(after(65)), within, some(Victims::Rank(1), 80)];
    Campaign::endure(&of_two(&["--asynchronous"]), &undisturbed, &fates).unwrap();
}
