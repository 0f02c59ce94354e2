//! `CombinedLoader` against Lightning's: the same rows for every pair of lengths, in every mode.

use fulgurite::data::{Batches, CombinedLoader, Loader};
use fulgurite_parity::python;
use serde_json::{Value, json};

#[test]
fn rows_agree() {
    for case in python("combined_loader.py", &[]).as_array().unwrap() {
        let lengths: Vec<i64> = case["lengths"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let loaders: Vec<Batches<i64>> = lengths.iter().map(|&n| Batches::new((0..n).collect())).collect();
        let (len, rows) = match case["mode"].as_str().unwrap() {
            "min_size" => walk(CombinedLoader::min_size(loaders), |row| json!(row)),
            "max_size_cycle" => walk(CombinedLoader::max_size_cycle(loaders), |row| json!(row)),
            "max_size" => walk(CombinedLoader::max_size(loaders), |row| json!(row)),
            "sequential" => walk(CombinedLoader::sequential(loaders), |row| json!(row)),
            mode => panic!("unknown mode {mode}"),
        };
        assert_eq!((&json!(len), &rows), (&case["len"], &case["rows"]), "{} of {lengths:?}", case["mode"]);
    }
}

fn walk<B: fulgurite::data::Batch>(loader: CombinedLoader<B>, row: fn(B) -> Value) -> (Option<usize>, Value) {
    let rows = loader.iter(0, 0).unwrap().map(|batch| row(batch.unwrap()));
    (loader.len(), rows.collect())
}
