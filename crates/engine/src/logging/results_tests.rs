//! What a store makes of the values of an epoch.

use super::*;

fn epoch(values: &[(LogValue<'_>, f64)], reduce: Reduce) -> f64 {
    let mut store = ResultStore::default();
    for (value, batch_size) in values {
        let options = LogOptions {
            on_step: Some(false),
            on_epoch: Some(true),
            batch_size: Some(*batch_size),
            reduce,
            ..LogOptions::default()
        };
        store.start_batch();
        store.record(Hook::TrainingStep, "x", value, &options).unwrap();
    }
    let mut found = None;
    let mut read = |item: Item<'_>| {
        found = Some(item.value.to_f64());
        Ok(())
    };
    store.visit(false, &mut read).unwrap();
    found.unwrap()
}

fn tensor(value: f64, kind: Kind) -> LogValue<'static> {
    LogValue::Owned(Tensor::from(value).to_kind(kind))
}

#[test]
fn a_mean_is_weighted_in_f64_whatever_the_kind() {
    assert_eq!(epoch(&[(tensor(1500.0, Kind::Half), 64.0)], Reduce::Mean), 1500.0);
    assert_eq!(epoch(&[(tensor(2.296875, Kind::BFloat16), 33.0)], Reduce::Mean), 2.296875);
    let int = || LogValue::Owned(Tensor::from(16_777_217_i64));
    assert_eq!(epoch(&[(int(), 3.0)], Reduce::Mean), 16_777_217.0);
    let two = [(tensor(60_000.0, Kind::Half), 1.0), (tensor(40_000.0, Kind::Half), 3.0)];
    // Half has 32 between its numbers here.
    assert_eq!(epoch(&two, Reduce::Mean), (60_000.0 + 3.0 * 40_000.0) / 4.0);
    assert_eq!(epoch(&two, Reduce::Sum), 100_000.0);
}

#[test]
fn nan_is_the_greatest_and_the_smallest() {
    let number = |x: f64| (LogValue::Number(x), 1.0);
    let nan = || tensor(f64::NAN, Kind::Float);
    for reduce in [Reduce::Min, Reduce::Max, Reduce::Sum, Reduce::Mean] {
        for values in [
            [number(f64::NAN), number(1.0)],
            [number(1.0), number(f64::NAN)],
            [(nan(), 1.0), (tensor(1.0, Kind::Float), 1.0)],
            [(tensor(1.0, Kind::Float), 1.0), (nan(), 1.0)],
            // One of each.
            [(nan(), 1.0), number(1.0)],
            [(tensor(1.0, Kind::Float), 1.0), number(f64::NAN)],
        ] {
            assert!(epoch(&values, reduce).is_nan(), "{reduce:?}");
        }
    }
    let values = [number(1.0), (tensor(3.0, Kind::Float), 1.0), number(-2.0)];
    assert_eq!((epoch(&values, Reduce::Min), epoch(&values, Reduce::Max)), (-2.0, 3.0));
}
