//! What a `CombinedLoader` yields: rows of batches, each named by its loader and place.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use expect_test::{Expect, expect};
use fulgurite_data::{Batch, BoxLoader, CombinedLoader, DataError, DataLoader, FnLoader, InMemory, IntoLoader, Loader};

/// `n` batches, `a0` to `a{n - 1}`; from the second epoch or round on with its number.
fn named(name: &'static str, n: usize) -> BoxLoader<String> {
    let epoch = move |epoch: u64| {
        let (round, epoch) = (epoch >> 32, epoch & u64::from(u32::MAX));
        let suffix = match (epoch, round) {
            (0, 0) => String::new(),
            (0, round) => "'".repeat(round as usize),
            (epoch, round) => format!("/{epoch}{}", "'".repeat(round as usize)),
        };
        (0..n).map(move |i| Ok(format!("{name}{i}{suffix}")))
    };
    FnLoader::new(epoch).with_len(n).into_loader()
}

/// The same without a known length.
fn unsized_(name: &'static str, n: usize) -> BoxLoader<String> {
    let inner = named(name, n);
    let batches: Vec<String> = inner.iter(0, 0).unwrap().map(Result::unwrap).collect();
    FnLoader::new(move |epoch| {
        let suffix = "'".repeat((epoch >> 32) as usize);
        batches.clone().into_iter().map(move |batch| Ok(batch + &suffix))
    })
    .into_loader()
}

fn rows<B: Batch + Debug>(loader: &dyn Loader<Batch = B>, epoch: u64, skip: usize) -> Vec<String> {
    loader.iter(epoch, skip).unwrap().map(|row| format!("{:?}", row.unwrap()).replace('"', "")).collect()
}

/// Pins the rows, and checks that length and every entry into the epoch agree with them.
#[track_caller]
fn check<B: Batch + Debug>(loader: CombinedLoader<B>, expected: Expect) {
    let all = rows(&loader, 0, 0);
    if let Some(len) = loader.len() {
        assert_eq!(len, all.len());
    }
    for skip in 0..=all.len() + 1 {
        assert_eq!(rows(&loader, 0, skip), all[skip.min(all.len())..], "entered at {skip}");
    }
    expected.assert_eq(&all.join(" "));
}

#[test]
fn min_size_ends_with_the_shortest() {
    check(CombinedLoader::min_size((named("a", 2), named("b", 3))), expect!["(a0, b0) (a1, b1)"]);
    check(CombinedLoader::min_size((named("a", 0), named("b", 3))), expect![""]);
    check(CombinedLoader::min_size((named("a", 3), unsized_("b", 1))), expect!["(a0, b0)"]);
    check(CombinedLoader::min_size(vec![named("a", 1), named("b", 2)]), expect!["[a0, b0]"]);
}

#[test]
fn max_size_cycle_begins_shorter_ones_again() {
    check(
        CombinedLoader::max_size_cycle((named("a", 2), named("b", 5))),
        expect!["(a0, b0) (a1, b1) (a0', b2) (a1', b3) (a0'', b4)"],
    );
    check(
        CombinedLoader::max_size_cycle((named("a", 3), named("b", 3), named("c", 1))),
        expect!["(a0, b0, c0) (a1, b1, c0') (a2, b2, c0'')"],
    );
    check(CombinedLoader::max_size_cycle((unsized_("a", 2), named("b", 3))), expect!["(a0, b0) (a1, b1) (a0', b2)"]);
    check(CombinedLoader::max_size_cycle(vec![unsized_("a", 1), unsized_("b", 2)]), expect!["[a0, b0] [a0', b1]"]);
}

#[test]
fn max_size_gives_nothing_of_those_that_ended() {
    check(CombinedLoader::max_size((named("a", 1), named("b", 2))), expect!["(Some(a0), Some(b0)) (None, Some(b1))"]);
    check(
        CombinedLoader::max_size((unsized_("a", 2), named("b", 0), named("c", 1), named("d", 1))),
        expect!["(Some(a0), None, Some(c0), Some(d0)) (Some(a1), None, None, None)"],
    );
}

#[test]
fn sequential_walks_one_after_the_other() {
    check(CombinedLoader::sequential([named("a", 2), named("b", 0), named("c", 1)]), expect!["a0 a1 c0"]);
    check(CombinedLoader::sequential([unsized_("a", 2), named("b", 2)]), expect!["a0 a1 b0 b1"]);
    check(CombinedLoader::sequential(Vec::<BoxLoader<String>>::new()), expect![""]);
    let parts = CombinedLoader::sequential([named("a", 2), named("b", 1)]).sequence().unwrap();
    assert_eq!(parts.iter().map(Loader::len).collect::<Vec<_>>(), [Some(2), Some(1)]);
    assert!(CombinedLoader::min_size(vec![named("a", 2)]).sequence().is_none());
}

#[test]
fn loaders_may_be_named() {
    let loaders = || BTreeMap::from([("big".to_owned(), named("b", 2)), ("small".to_owned(), named("s", 1))]);
    check(CombinedLoader::max_size_cycle(loaders()), expect!["{big: b0, small: s0} {big: b1, small: s0'}"]);
    check(
        CombinedLoader::max_size(loaders()),
        expect!["{big: Some(b0), small: Some(s0)} {big: Some(b1), small: None}"],
    );
}

/// Says that it has `says` batches, and has `n`.
fn mistaken(name: &'static str, says: usize, n: usize) -> BoxLoader<String> {
    let inner = unsized_(name, n);
    FnLoader::new(move |epoch| inner.iter(epoch, 0).unwrap().map(|batch| Ok(batch?))).with_len(says).into_loader()
}

#[test]
fn rows_go_by_the_batches_there_are_and_not_by_the_lengths() {
    fn check<B: Batch + Debug>(make: impl Fn(usize) -> CombinedLoader<B>, expected: Expect) {
        let all: Vec<String> = rows(&make(3), 0, 0);
        expected.assert_eq(&all.join(" "));
        for says in [0, 1, 2, 7] {
            for skip in 0..=all.len() + 1 {
                assert_eq!(rows(&make(says), 0, skip), all[skip.min(all.len())..], "{says} said, entered at {skip}");
            }
        }
    }
    let exact = |name: &str, n: usize| (0..n).map(|i| format!("{name}{i}")).collect::<Vec<_>>();
    check(
        |says| CombinedLoader::min_size((mistaken("a", says, 3), exact("b", 5))),
        expect!["(a0, b0) (a1, b1) (a2, b2)"],
    );
    check(
        |says| CombinedLoader::max_size_cycle((mistaken("a", says, 3), exact("b", 2))),
        expect!["(a0, b0) (a1, b1) (a2, b0)"],
    );
    check(
        |says| CombinedLoader::max_size_cycle((mistaken("a", says, 2), exact("b", 3))),
        expect!["(a0, b0) (a1, b1) (a0', b2)"],
    );
    check(
        |says| CombinedLoader::max_size((mistaken("a", says, 3), exact("b", 1))),
        expect!["(Some(a0), Some(b0)) (Some(a1), None) (Some(a2), None)"],
    );
    check(
        |says| CombinedLoader::sequential([mistaken("a", says, 3), exact("b", 1).into_loader()]),
        expect!["a0 a1 a2 b0"],
    );
    assert!(CombinedLoader::min_size((exact("a", 3), exact("b", 5))).len_is_exact());
    assert!(!CombinedLoader::min_size((exact("a", 3), mistaken("b", 5, 5))).len_is_exact());
}

#[test]
fn no_loader_yields_nothing() {
    check(CombinedLoader::min_size(Vec::<BoxLoader<String>>::new()), expect![""]);
    check(CombinedLoader::max_size_cycle(Vec::<BoxLoader<String>>::new()), expect![""]);
    check(CombinedLoader::max_size(Vec::<BoxLoader<String>>::new()), expect![""]);
}

#[test]
fn a_loader_can_be_limited() {
    check(
        CombinedLoader::max_size_cycle((named("a", 3).limit(2), named("b", 9).limit(3))),
        expect!["(a0, b0) (a1, b1) (a0', b2)"],
    );
    check(CombinedLoader::sequential([named("a", 3).limit(1), named("b", 2).limit(5)]), expect!["a0 b0 b1"]);
    check(CombinedLoader::min_size((unsized_("a", 3).limit(2), named("b", 9))), expect!["(a0, b0) (a1, b1)"]);
}

#[test]
fn a_loader_that_begins_again_is_shuffled_anew_and_the_same_every_time() {
    let shuffled = |n: i64| DataLoader::new(InMemory::new(0..n)).shuffle(true).seed(3);
    let both = CombinedLoader::max_size_cycle((shuffled(8), shuffled(16)));
    assert!(both.is_shuffled());
    let of = |epoch, skip| rows(&both, epoch, skip);
    let first = |row: &String| row.split(',').next().unwrap().to_owned();
    let rounds: Vec<String> = of(0, 0).iter().map(first).collect();
    let (one, two) = rounds.split_at(8);
    assert_ne!(one, two);
    let sorted = |round: &[String]| {
        let mut round = round.to_vec();
        round.sort();
        round
    };
    assert_eq!(sorted(one), sorted(two));
    assert_ne!(of(0, 0), of(1, 0));
    for skip in [0, 5, 8, 11] {
        assert_eq!(of(1, skip), of(1, 0)[skip..]);
    }
    let in_order = both.sequential().unwrap();
    assert!(!in_order.is_shuffled());
    assert_eq!(rows(&in_order, 0, 0), rows(&in_order, 1, 0));
    assert!(in_order.sequential().is_none());
}

#[test]
fn what_comes_before_is_not_loaded_where_lengths_are_known() {
    let loads = Arc::new(AtomicUsize::new(0));
    let counting = |n: i64| {
        let loads = loads.clone();
        let load = move |x: i64, _: &mut _| {
            loads.fetch_add(1, Ordering::Relaxed);
            x
        };
        DataLoader::new(fulgurite_data::Dataset::map(InMemory::new(0..n), load))
    };
    let both = CombinedLoader::max_size_cycle((counting(10), counting(100)));
    assert_eq!(both.iter(0, 95).unwrap().count(), 5);
    assert_eq!(loads.load(Ordering::Relaxed), 10);
}

#[test]
fn an_empty_loader_cannot_begin_again() {
    for empty in [named("a", 0), unsized_("a", 0)] {
        let error = CombinedLoader::max_size_cycle((empty, named("b", 2))).iter(0, 0).unwrap().next().unwrap();
        assert_eq!(
            error.unwrap_err().to_string(),
            "a loader of a CombinedLoader in the mode max_size_cycle is empty, so it cannot begin again; leave it out"
        );
    }
}

#[test]
fn an_error_ends_the_walk() {
    let failing = || FnLoader::new(|_| [Ok(1i64), Err("the disk is gone".into()), Ok(2)].into_iter());
    let good = || vec![1i64, 2, 3];
    let ends = |mut rows: Box<dyn Iterator<Item = Result<(), DataError>> + Send>| {
        assert!(rows.next().unwrap().is_ok());
        let error = rows.next().unwrap().unwrap_err();
        assert_eq!(error.to_string(), "batch 1 of the loader failed: the disk is gone");
        assert!(rows.next().is_none());
    };
    let unit = |row: Result<_, DataError>| row.map(|_: (i64, i64)| ());
    ends(Box::new(CombinedLoader::min_size((good(), failing())).iter(0, 0).unwrap().map(unit)));
    ends(Box::new(CombinedLoader::max_size_cycle((failing(), good())).iter(0, 0).unwrap().map(unit)));
    ends(Box::new(CombinedLoader::max_size((failing(), good())).iter(0, 0).unwrap().map(|row| row.map(|_| ()))));
    ends(Box::new(CombinedLoader::sequential([failing()]).iter(0, 0).unwrap().map(|row| row.map(|_| ()))));
}
