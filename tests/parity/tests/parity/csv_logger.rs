//! Our `metrics.csv` and `hparams.yaml` against those of Lightning's `CSVLogger`, byte for byte.

use std::fs;
use std::path::Path;

use fulgurite_fabric::loggers::{CsvLogger, Logger, RunStatus};
use fulgurite_parity::python;
use fulgurite_torch::Value;
use serde_json::{Value as Json, json};

/// Tells our logger what `calls` say, then Lightning's, and returns what the script found.
fn log_both(folder: &Path, calls: &Json) -> (CsvLogger, Json) {
    let mut ours = CsvLogger::new(folder.join("ours")).flush_logs_every_n_steps(3);
    for call in calls.as_array().unwrap() {
        if let Some(metrics) = call.get("metrics") {
            let metrics: Vec<(&str, f64)> = metrics
                .as_array()
                .unwrap()
                .iter()
                .map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap().parse().unwrap()))
                .collect();
            ours.log_metrics(&metrics, call["step"].as_i64().unwrap()).unwrap();
        } else if let Some(params) = call.get("hparams") {
            ours.log_hyperparams(value(params).as_dict().unwrap()).unwrap();
        } else {
            ours.save().unwrap();
        }
    }
    ours.finalize(RunStatus::Success).unwrap();
    let path = folder.join("calls.json");
    fs::write(&path, calls.to_string()).unwrap();
    let hparams = ours.log_dir().unwrap().join("hparams.yaml");
    let theirs = folder.join("theirs");
    let args = [&path, &theirs, &hparams].map(|path| path.to_str().unwrap());
    let found = python("csv_logger.py", &args);
    (ours, found)
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap()), Value::Int),
        Json::String(text) => Value::Str(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(value).collect()),
        Json::Object(map) => Value::Dict(map.iter().map(|(key, item)| (key.as_str().into(), value(item))).collect()),
    }
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn files_are_equal_byte_for_byte() {
    let texts = [
        "adam",
        "16-mixed",
        "12",
        "yes",
        "y",
        "null",
        "2020-01-01",
        "0x1f",
        "1_000",
        "1:20",
        ".inf",
        "héllo ✓ 😀",
        "a\tb",
        "a: b",
        "a #b",
        "- x",
        "it's",
        "say \"x\"",
        "",
        " lead",
        "C:\\x",
        "http://x.y/z",
        "*x",
        "@x",
        "{a}",
        "a, b",
        "=",
        "true",
        "\u{1}",
    ];
    let numbers = json!([0.1, 1e-5, 1e16, 3.0, -3, true, null, 123_456.789]);
    let blocks = json!([{"kind": "conv", "args": {"k": 3}}, [1, [2, 3]], [], {}]);
    let mut params = json!({"lr": 0.1, "numbers": numbers, "net": {"widths": [64, 32], "blocks": blocks, "opts": {}}});
    for text in texts {
        params[format!("key {text}")] = json!(text);
        params[format!("{text}:")] = json!([text]);
    }
    let mut calls = vec![json!({"hparams": params})];
    calls.push(json!({"hparams": {"lr": 0.2, "more": [1.5, "x"]}}));
    let mut seed = 1_u64;
    let mut random = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let bits = f64::from_bits(seed ^ seed >> 29);
        // A third of any size, a third as they come out of an f32 loss, a third short.
        match seed >> 33 & 3 {
            0 if bits.is_finite() => bits,
            1 => f64::from((seed >> 40) as f32 / 1e9),
            _ => ((seed >> 40) as f64 / 1e3).round() / 1e4,
        }
    };
    for step in 0..200_i64 {
        let epoch = (step / 20).to_string();
        let mut metrics = vec![json!(["train_loss_step", random().to_string()]), json!(["epoch", epoch])];
        if step >= 50 {
            metrics.insert(0, json!(["lr-Adam", random().to_string()]));
        }
        calls.push(json!({"metrics": metrics, "step": step}));
        if step % 20 == 19 {
            let special = ["nan", "inf", "-inf", "0", "-0"][step as usize / 20 % 5];
            calls.push(json!({"metrics": [["val_acc", special], ["a,\"b\"", "1"], ["epoch", epoch]], "step": step}));
        }
        if step % 67 == 5 {
            calls.push(json!({"save": null}));
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (ours, found) = log_both(folder.path(), &Json::Array(calls));
    let (ours, theirs) = (ours.log_dir().unwrap(), Path::new(found["log_dir"].as_str().unwrap()));
    assert_eq!(read(ours, "metrics.csv"), read(theirs, "metrics.csv"));
    assert_eq!(read(ours, "hparams.yaml"), read(theirs, "hparams.yaml"));
}

/// Where PyYAML folds lines, or leaves bare what only YAML 1.1 takes for a string, the bytes differ and the values do
/// not.
#[test]
fn every_text_reads_back_as_itself() {
    let words = "word ".repeat(60);
    let texts =
        ["1e5", "0o7", "nan", "inf", "a\nb", "\n", &words, "a\u{85}b\u{2028}", "\u{feff}x", "?", "a\r\nb", "|", "~"];
    let params: serde_json::Map<String, Json> =
        texts.iter().map(|text| ((*text).into(), json!([text, {"nested": text}]))).collect();
    let folder = tempfile::tempdir().unwrap();
    let (_, found) = log_both(folder.path(), &json!([{"hparams": params}]));
    assert_eq!(found["lightning"], Json::Object(params.clone()));
    assert_eq!(found["safe"], Json::Object(params));
}
