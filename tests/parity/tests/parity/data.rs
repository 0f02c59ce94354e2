//! Padding against PyTorch's, scaling and imputation against scikit-learn's formulas in NumPy.

use fulgurite::data::PadSequences;
use fulgurite::data::tabular::{Impute, MinMaxScaler, SimpleImputer, StandardScaler};
use fulgurite::tch::{Kind, Tensor};
use fulgurite_parity::python;
use serde_json::Value;

/// Numbers, and NaN for null.
fn numbers(list: &Value) -> Vec<f64> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap_or(f64::NAN)).collect()
}

fn flat(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).reshape([-1])).unwrap()
}

#[track_caller]
fn close(found: &[f64], expected: &Value) {
    let expected = numbers(expected);
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?} {expected:?}");
}

#[test]
fn padded_sequences_and_fitted_tables_agree() {
    let expected = python("data.py", &[]);
    let sequence = |list: &Value| Tensor::from_slice(&numbers(list)).to_kind(Kind::Int64).view([-1, 2]);
    let sequences: Vec<Tensor> = expected["sequences"].as_array().unwrap().iter().map(sequence).collect();
    for case in expected["padded"].as_array().unwrap() {
        let padding = PadSequences::new().padding_value(-1.0).batch_first(case["batch_first"].as_bool().unwrap());
        let padding = if case["side"] == "left" { padding.pad_left() } else { padding };
        assert_eq!(flat(&padding.pad(&sequences).unwrap().values), numbers(&case["values"]), "{case}");
    }

    let table = |key: &str| Tensor::from_slice(&numbers(&expected[key])).view([-1, 3]);
    let (train, table) = (table("train"), table("table"));
    close(&flat(&StandardScaler::fit(&train).unwrap().transform(&table).unwrap()), &expected["standard"]);
    close(&flat(&MinMaxScaler::fit(&train).unwrap().transform(&table).unwrap()), &expected["min_max"]);
    let values = |impute| SimpleImputer::fit(&train, impute).unwrap().values().to_vec();
    close(&values(Impute::Mean), &expected["mean"]);
    close(&values(Impute::Median), &expected["median"]);
    close(&values(Impute::MostFrequent), &expected["most_frequent"]);
}
