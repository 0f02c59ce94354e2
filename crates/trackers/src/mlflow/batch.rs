//! [`Item`]s, and how many of them go into one request.

use serde_json::{Value, json};

use crate::entry::Number;

/// What one request may have.
const METRICS: usize = 800;
const OTHERS: usize = 100;
const BYTES: usize = 900_000;

/// One thing that `log-batch` takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Item {
    Metric { key: String, value: Number, ms: i64, step: i64 },
    Param(String, String),
    Tag(String, String),
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Metric { key, .. } => key.len() + 100,
            // Characters that JSON escapes become longer.
            Item::Param(key, value) | Item::Tag(key, value) => key.len() + value.len() * 2 + 50,
        }
    }

    pub(super) fn key(&self) -> &str {
        match self {
            Item::Metric { key, .. } | Item::Param(key, _) | Item::Tag(key, _) => key,
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Item::Metric { .. } => "metric",
            Item::Param(..) => "hyper-parameter",
            Item::Tag(..) => "tag",
        }
    }
}

/// How many items the next request has: at least one if there is any.
pub(super) fn next_request(items: &[Item]) -> usize {
    let (mut metrics, mut params, mut tags, mut bytes) = (0, 0, 0, 0);
    for (count, item) in items.iter().enumerate() {
        match item {
            Item::Metric { .. } => metrics += 1,
            Item::Param(..) => params += 1,
            Item::Tag(..) => tags += 1,
        }
        bytes += item.size();
        let fits = metrics <= METRICS && params <= OTHERS && tags <= OTHERS && bytes <= BYTES;
        if count > 0 && !fits {
            return count;
        }
    }
    items.len()
}

/// The body of a request.
pub(super) fn body(run_id: &str, items: &[Item]) -> Value {
    let pair = |key: &str, value: &str| json!({ "key": key, "value": value });
    let (mut metrics, mut params, mut tags) = (Vec::new(), Vec::new(), Vec::new());
    for item in items {
        match item {
            Item::Metric { key, value, ms, step } => {
                metrics.push(json!({ "key": key, "value": value, "timestamp": ms, "step": step }));
            }
            Item::Param(key, value) => params.push(pair(key, value)),
            Item::Tag(key, value) => tags.push(pair(key, value)),
        }
    }
    json!({ "run_id": run_id, "metrics": metrics, "params": params, "tags": tags })
}
