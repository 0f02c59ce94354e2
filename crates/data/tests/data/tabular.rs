//! Tables and series: missing values, scales, categories, times, windows.

use std::fs;

use fulgurite_data::datasets::{CsvTable, SlidingWindows};
use fulgurite_data::tabular::{Impute, MinMaxScaler, OrdinalEncoder, SimpleImputer, StandardScaler, Unknown};
use fulgurite_data::torch::Dict;
use fulgurite_data::torch::tch::{Device, Kind, Tensor};
use fulgurite_data::{DataError, DataLoader, Loader};
use tempfile::tempdir;

const NAN: f32 = f32::NAN;

fn table(rows: &[&[f32]]) -> Tensor {
    Tensor::from_slice(&rows.concat()).view([rows.len() as i64, rows[0].len() as i64])
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

#[track_caller]
fn close(found: &Tensor, expected: &[f64]) {
    let found = numbers(found);
    let differs = |(a, b): (&f64, &f64)| (a - b).abs() > 1e-6 || a.is_nan() != b.is_nan();
    assert!(found.len() == expected.len() && !found.iter().zip(expected).any(differs), "{found:?}");
}

fn message<T: std::fmt::Debug>(result: Result<T, DataError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn scales_are_those_of_the_training_part_and_can_be_undone() {
    let train = table(&[&[1.0, 5.0, 2.0], &[2.0, 5.0, NAN], &[4.0, 5.0, 8.0]]);
    let all = table(&[&[7.0, 6.0, 5.0], &[NAN, 5.0, 11.0]]);
    let standard = StandardScaler::fit(&train).unwrap();
    assert_eq!((standard.mean(), standard.std()[1]), (&[7.0 / 3.0, 5.0, 5.0][..], 1.0));
    let scaled = standard.transform(&all).unwrap();
    close(&scaled, &[3.741_657_387, 1.0, 0.0, f64::NAN, 0.0, 2.0]);
    close(&standard.inverse_transform(&scaled).unwrap(), &[7.0, 6.0, 5.0, f64::NAN, 5.0, 11.0]);

    let min_max = MinMaxScaler::fit(&train).unwrap().feature_range(-1.0, 1.0).unwrap();
    let scaled = min_max.transform(&all).unwrap();
    close(&scaled, &[3.0, 1.0, 0.0, f64::NAN, -1.0, 2.0]);
    close(&min_max.inverse_transform(&scaled).unwrap(), &[7.0, 6.0, 5.0, f64::NAN, 5.0, 11.0]);

    // Series [N, steps, features], and integers.
    let series = Tensor::arange(12, (Kind::Int64, Device::Cpu)).view([2, 3, 2]);
    let scaled = StandardScaler::fit(&series).unwrap().transform(&series).unwrap();
    assert_eq!((scaled.kind(), scaled.size()), (Kind::Float, vec![2, 3, 2]));
    close(&scaled.mean_dim(&[0i64, 1][..], false, Kind::Double), &[0.0, 0.0]);
    assert_eq!(StandardScaler::fit(&series.to_kind(Kind::Half)).unwrap().mean(), [5.0, 6.0]);
}

#[test]
fn fitted_objects_come_back_from_a_checkpoint() {
    let train = table(&[&[1.0, 5.0], &[2.5, NAN]]);
    let standard = StandardScaler::fit(&train).unwrap();
    let min_max = MinMaxScaler::fit(&train).unwrap().feature_range(-2.0, 3.0).unwrap();
    let imputer = SimpleImputer::fit(&train, Impute::Mean).unwrap();
    let encoder = OrdinalEncoder::fit(["b", "a"]).unknown(Unknown::OwnIndex);
    let saved = Dict::new()
        .with("standard", standard.to_dict())
        .with("min_max", min_max.to_dict())
        .with("imputer", imputer.to_dict())
        .with("encoder", encoder.to_dict());
    let root = tempdir().unwrap();
    let path = root.path().join("fitted.ckpt");
    fulgurite_data::torch::serialization::save(&path, &saved.into()).unwrap();
    let loaded = fulgurite_data::torch::serialization::load(&path).unwrap();
    let loaded = |key| loaded.as_dict().unwrap().dict(key).unwrap();
    assert_eq!(StandardScaler::from_dict(loaded("standard")).unwrap(), standard);
    assert_eq!(MinMaxScaler::from_dict(loaded("min_max")).unwrap(), min_max);
    assert_eq!(SimpleImputer::from_dict(loaded("imputer")).unwrap(), imputer);
    assert_eq!(OrdinalEncoder::from_dict(loaded("encoder")).unwrap(), encoder);
    assert_eq!(
        message(StandardScaler::from_dict(loaded("imputer"))),
        "this is not what `to_dict` of a StandardScaler returned: no entry `mean`; there are: values"
    );
    let wrong = Dict::new().with("mean", vec!["a"]).with("std", vec![1.0]);
    assert_eq!(
        message(StandardScaler::from_dict(&wrong)),
        "this is not what `to_dict` of a StandardScaler returned: entry `mean` holds str, not numbers"
    );
}

#[test]
fn missing_values_become_what_the_training_part_has() {
    let train = table(&[&[1.0, 4.0], &[2.0, NAN], &[9.0, 4.0], &[2.0, 3.0], &[NAN, 3.0]]);
    let values = |impute| SimpleImputer::fit(&train, impute).unwrap().values().to_vec();
    assert_eq!(values(Impute::Mean), [3.5, 3.5]);
    assert_eq!(values(Impute::Median), [2.0, 3.5]);
    assert_eq!(values(Impute::MostFrequent), [2.0, 3.0]);
    assert_eq!(values(Impute::Constant(-1.0)), [-1.0, -1.0]);
    let imputed = SimpleImputer::fit(&train, Impute::MostFrequent).unwrap().transform(&train).unwrap();
    close(&imputed, &[1.0, 4.0, 2.0, 3.0, 9.0, 4.0, 2.0, 3.0, 2.0, 3.0]);
}

#[test]
fn what_cannot_be_fitted_or_applied_is_explained() {
    assert_eq!(
        message(StandardScaler::fit(&table(&[&[1.0, NAN], &[2.0, NAN]]))),
        "feature 1 has no value in what a StandardScaler is fitted on, Float of [2, 2]; leave it out, or fit on more rows"
    );
    assert_eq!(
        message(MinMaxScaler::fit(&table(&[&[1.0, 2.0], &[f32::INFINITY, 2.0]]))),
        "feature 0 of row 1 is inf; a MinMaxScaler is fitted on finite numbers and NaN"
    );
    let scaler = StandardScaler::fit(&table(&[&[1.0, 2.0]])).unwrap();
    assert_eq!(
        message(scaler.transform(&table(&[&[1.0, 2.0, 3.0]]))),
        "a StandardScaler was fitted on 2 features, but this tensor of [1, 3] has 3"
    );
    assert!(message(StandardScaler::fit(&Tensor::from(1.0))).starts_with("a StandardScaler needs a tensor whose last"));
    assert_eq!(
        message(MinMaxScaler::fit(&table(&[&[1.0]])).unwrap().feature_range(1.0, 1.0)),
        "feature_range(1, 1): the first is below the second"
    );
}

#[test]
fn unknown_categories_are_an_error_or_have_an_index() {
    let encoder = OrdinalEncoder::fit(["red", "blue", "red"]);
    assert_eq!(encoder.transform(["red", "blue"]).unwrap(), Tensor::from_slice(&[1i64, 0]));
    assert_eq!((encoder.num_indices(), encoder.category(1), encoder.category(2)), (2, Some("red"), None));
    assert_eq!(
        message(encoder.transform(["blue", "mauve"])),
        "`mauve` in row 1 is none of the known categories (blue, red); with `Unknown::OwnIndex` it gets an index of its own"
    );
    let own = encoder.unknown(Unknown::OwnIndex);
    assert_eq!((own.transform(["mauve"]).unwrap(), own.num_indices()), (Tensor::from_slice(&[2i64]), 3));
}

#[test]
fn a_table_with_holes_and_times_is_read() {
    let root = tempdir().unwrap();
    let path = root.path().join("power.csv");
    fs::write(
        &path,
        "when,load,kind\n2024-01-01 00:30:00,1.5,a\n1970-01-02 00:00:00,NA,\n2024-02-29 23:00:00,-999,b\n",
    )
    .unwrap();
    let table = CsvTable::read(&path).unwrap();
    close(&table.numbers_or_nan(&["load"]).unwrap(), &[1.5, f64::NAN, -999.0]);
    assert_eq!(table.texts("kind").unwrap(), ["a", "", "b"]);
    let format = "[year]-[month]-[day] [hour]:[minute]:[second]";
    let seconds = Tensor::from_slice(&[1_704_069_000i64, 86_400, 1_709_247_600]);
    assert_eq!(table.timestamps("when", format).unwrap(), seconds);
    let plain = |error: DataError| error.to_string().replace(&root.path().display().to_string(), "ROOT");
    assert_eq!(
        plain(table.timestamps("when", "[year]-[month]-[day]").unwrap_err()),
        "ROOT/power.csv is not usable: `2024-01-01 00:30:00` in line 2, column `when`, is not a time of the format \
         `[year]-[month]-[day]`"
    );
    assert!(
        plain(table.timestamps("when", "[years]").unwrap_err()).starts_with("`[years]` is not a format of times: ")
    );
    let whole = table.clone().drop_missing(&["load", "kind"]).unwrap();
    assert_eq!((whole.num_rows(), whole.texts("kind").unwrap()), (2, vec!["a", "b"]));
    close(&table.clone().missing_values(["NA", "-999"]).numbers_or_nan(&["load"]).unwrap(), &[1.5, f64::NAN, f64::NAN]);
    // As spreadsheets write it, with the mark of UTF-8.
    fs::write(&path, "\u{feff}x\n1\n").unwrap();
    close(&CsvTable::read(&path).unwrap().numbers(&["x"]).unwrap(), &[1.0]);
    fs::write(&path, "x\nNA\n").unwrap();
    assert_eq!(
        plain(CsvTable::read(&path).unwrap().drop_missing(&["x"]).unwrap_err()),
        "ROOT/power.csv is not usable: every row misses a value of the columns x"
    );
}

#[test]
fn dates_and_offsets_are_seconds_since_1970() {
    let root = tempdir().unwrap();
    let path = root.path().join("dates.csv");
    fs::write(&path, "day,stamp\n2.1.1970,1970-01-01T02:00:10+02:00\n").unwrap();
    let table = CsvTable::read(&path).unwrap();
    let day = table.timestamps("day", "[day padding:none].[month padding:none].[year]").unwrap();
    assert_eq!(day, Tensor::from_slice(&[86_400i64]));
    let format = "[year]-[month]-[day]T[hour]:[minute]:[second][offset_hour sign:mandatory]:[offset_minute]";
    assert_eq!(table.timestamps("stamp", format).unwrap(), Tensor::from_slice(&[10i64]));
}

#[test]
fn windows_cover_every_series_and_cross_none() {
    let series = |from: i64, steps: i64| Tensor::arange_start(from, from + steps, (Kind::Int64, Device::Cpu));
    let windows = SlidingWindows::new([series(0, 6), series(100, 4), series(200, 8)], 3, 1).unwrap();
    let windows = windows.stride(2).unwrap();
    let batch = DataLoader::new(windows.clone()).batch_size(100).num_workers(2).iter(0, 0).unwrap().next().unwrap();
    let (inputs, targets) = batch.unwrap();
    let expected = [[0i64, 1, 2], [2, 3, 4], [100, 101, 102], [200, 201, 202], [202, 203, 204], [204, 205, 206]];
    assert_eq!(inputs, Tensor::from_slice(&expected.concat()).view([6, 3]));
    assert_eq!(targets, Tensor::from_slice(&[3i64, 5, 103, 203, 205, 207]).view([6, 1]));
    assert_eq!((windows.place(2), windows.place(5)), ((1, 0), (2, 4)));
}

#[test]
fn series_that_have_no_windows_are_explained() {
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, Device::Cpu));
    let error = |series: &[&[i64]], window, horizon| {
        message(SlidingWindows::new(series.iter().map(|size| zeros(size)), window, horizon))
    };
    assert_eq!(
        error(&[&[30, 2], &[5, 2]], 4, 2),
        "series 1 has 5 steps, but a window and its horizon are 6; leave it out, or choose a shorter window"
    );
    assert_eq!(
        error(&[&[30, 2], &[30, 3]], 4, 2),
        "series may differ in their number of steps alone, but a step of series 0 is [2] of Float, and of series 1 [3] of \
         Float"
    );
    assert_eq!(error(&[], 4, 2), "windows need at least one series");
    assert_eq!(error(&[&[]], 4, 2), "series 0 is a scalar; a series is a tensor [steps, ...]");
    assert_eq!(error(&[&[9]], 0, 2), "a window of 0 steps with a horizon of 2: both are at least 1");
    let windows = SlidingWindows::new([zeros(&[9])], 2, 2).unwrap();
    assert_eq!(message(windows.stride(0)), "the stride of windows is 0; it is at least 1");
}
