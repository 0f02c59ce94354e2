//! The three summaries of TensorBoard's hyper-parameter table: the columns, the values of a run, and its status.

use fulgurite_torch::{Dict, Value};

use super::event_file::unix_time;
use super::proto::{bool_in_oneof, bytes, double, double_in_oneof, integer, message};
use super::summary::metadata;
use crate::loggers::RunStatus;
use crate::loggers::hparams::flatten_hparams;
use crate::loggers::python_format::{display, tensor_number};

const PLUGIN: &[u8] = b"hparams";

/// The value of a hyper-parameter in the table.
#[derive(Debug, PartialEq)]
pub(super) enum Cell {
    Number(f64),
    Bool(bool),
    Text(String),
}

/// The flattened hyper-parameters. Values other than numbers, booleans and strings are formatted as in Python.
pub(super) fn cells(params: &Dict) -> Vec<(String, Cell)> {
    let cell = |value: &Value| match value {
        Value::Int(i) => Cell::Number(*i as f64),
        Value::Float(x) => Cell::Number(*x),
        Value::Bool(b) => Cell::Bool(*b),
        Value::Tensor(tensor) => tensor_number(tensor).map_or_else(|| Cell::Text(display(value)), Cell::Number),
        other => Cell::Text(display(other)),
    };
    flatten_hparams(params).into_iter().map(|(name, value)| (name, cell(&value))).collect()
}

/// The hyper-parameters and metrics of the table.
pub(super) fn experiment<'a>(out: &mut Vec<u8>, cells: &[(String, Cell)], metric_tags: impl Iterator<Item = &'a str>) {
    metadata(out, "_hparams_/experiment", PLUGIN, |out| {
        message(out, 2, |out| {
            for (name, cell) in cells {
                let data_type = match cell {
                    Cell::Text(_) => 1,
                    Cell::Bool(_) => 2,
                    Cell::Number(_) => 3,
                };
                message(out, 4, |out| {
                    bytes(out, 1, name.as_bytes());
                    integer(out, 4, data_type);
                });
            }
            for tag in metric_tags {
                message(out, 5, |out| message(out, 1, |out| bytes(out, 2, tag.as_bytes())));
            }
        });
    });
}

/// The values of this run.
pub(super) fn session_start(out: &mut Vec<u8>, cells: &[(String, Cell)]) {
    metadata(out, "_hparams_/session_start_info", PLUGIN, |out| {
        message(out, 3, |out| {
            for (name, cell) in cells {
                message(out, 1, |entry| {
                    bytes(entry, 1, name.as_bytes());
                    message(entry, 2, |value| match cell {
                        Cell::Number(number) => double_in_oneof(value, 2, *number),
                        Cell::Text(text) => bytes(value, 3, text.as_bytes()),
                        Cell::Bool(b) => bool_in_oneof(value, 4, *b),
                    });
                });
            }
            double(out, 5, unix_time());
        });
    });
}

/// The status of this run at its end. An interrupted run counts as failed.
pub(super) fn session_end(out: &mut Vec<u8>, status: RunStatus) {
    metadata(out, "_hparams_/session_end_info", PLUGIN, |out| {
        message(out, 4, |out| {
            integer(out, 1, if status == RunStatus::Success { 1 } else { 2 });
            double(out, 2, unix_time());
        });
    });
}

#[cfg(test)]
mod tests {
    use fulgurite_torch::tch::Tensor;
    use fulgurite_torch::{Dict, Value};

    use super::{Cell, cells, experiment};

    #[test]
    fn the_table_is_declared_as_in_torch() {
        let mut out = Vec::new();
        let cells = [("lr".to_owned(), Cell::Number(0.5)), ("act".to_owned(), Cell::Text("relu".into()))];
        experiment(&mut out, &cells, ["hp_metric"].into_iter());
        let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
        // `torch.utils.tensorboard.summary.hparams({"lr": 0.5, "act": "relu"}, {"hp_metric": -1})[0]`.
        let expected = "0a470a145f68706172616d735f2f6578706572696d656e744a2f0a2d0a0768706172616d731222122022060a02\
                        6c72200322070a0361637420012a0d0a0b120968705f6d6574726963";
        assert_eq!(hex, expected);
    }

    #[test]
    fn every_value_has_a_cell() {
        let params = Dict::new()
            .with("lr", 0.1)
            .with("net", Dict::new().with("width", 8).with("bias", true))
            .with("betas", (0.9, 0.999))
            .with("none", Value::None)
            .with("scale", Tensor::from(2.0))
            .with("act", "relu");
        let text = |text: &str| Cell::Text(text.into());
        let expected = [
            ("lr", Cell::Number(0.1)),
            ("net/width", Cell::Number(8.0)),
            ("net/bias", Cell::Bool(true)),
            ("betas", text("(0.9, 0.999)")),
            ("none", text("None")),
            ("scale", Cell::Number(2.0)),
            ("act", text("relu")),
        ];
        assert_eq!(cells(&params), expected.map(|(name, cell)| (name.to_owned(), cell)));
    }
}
