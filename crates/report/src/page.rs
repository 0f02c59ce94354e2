//! The page: what it shows, as JSON within HTML.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::metrics::{Point, decimate};
use crate::run::Run;

const PAGE: &str = include_str!("page.html");
/// What stands for the data in [`PAGE`].
const DATA: &str = "\"DATA\"";

/// Points of all curves together: a page of some megabytes.
const POINTS: usize = 200_000;
/// Points of one curve: more than a screen has columns.
const POINTS_OF_CURVE: usize = 4_000;

pub(crate) fn page(runs: &[Run]) -> String {
    let curves: usize = runs.iter().map(|run| run.metrics.series.len()).sum();
    let most = (POINTS / curves.max(1)).clamp(100, POINTS_OF_CURVE);
    let names: BTreeSet<&str> = runs
        .iter()
        .flat_map(|run| &run.metrics.series)
        .map(|(name, _)| name.as_str())
        .filter(|name| *name != "epoch")
        .collect();
    let chart = |name: &&str| {
        let curve = |(index, run): (usize, &Run)| {
            let (_, points) = run.metrics.series.iter().find(|(other, _)| other == name)?;
            Some(curve(index, points, most))
        };
        json!({ "name": name, "curves": runs.iter().enumerate().filter_map(curve).collect::<Vec<_>>() })
    };
    let data = json!({
        "runs": runs.iter().map(about).collect::<Vec<_>>(),
        "charts": names.iter().map(chart).collect::<Vec<_>>(),
        "params": params(runs),
    });
    // What a file says must not end the script that it is in.
    PAGE.replacen(DATA, &data.to_string().replace('<', "\\u003c"), 1)
}

fn about(run: &Run) -> Value {
    let (step, epoch) = run.metrics.last();
    let last = |(name, points): &(String, Vec<Point>)| Some((name.clone(), compact(points.last()?.value)));
    let last: Map<String, Value> =
        run.metrics.series.iter().filter(|(name, _)| name != "epoch").filter_map(last).collect();
    json!({
        "name": run.name,
        "folder": run.folder.display().to_string(),
        "rows": run.metrics.rows,
        "step": step,
        "epoch": epoch,
        "last": last,
        "checkpoints": run.checkpoints.iter().map(|file| json!([file.name, file.bytes])).collect::<Vec<_>>(),
    })
}

fn curve(run: usize, points: &[Point], most: usize) -> Value {
    let kept = decimate(points, most);
    let values = |of: fn(&Point) -> f64| kept.iter().map(|point| compact(of(point))).collect::<Vec<_>>();
    let finite = points.iter().map(|point| point.value).filter(|value| value.is_finite());
    let (least, most) = finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), value| (a.min(value), b.max(value)));
    json!({
        "run": run,
        "count": points.len(),
        "min": compact(least),
        "max": compact(most),
        "step": values(|point| point.step),
        "epoch": values(|point| point.epoch),
        "value": values(|point| point.value),
    })
}

/// A number with as many digits as can be seen; a text for what is none.
fn compact(value: f64) -> Value {
    match value {
        _ if value.is_nan() => "NaN".into(),
        _ if value.is_infinite() => (if value > 0.0 { "Infinity" } else { "-Infinity" }).into(),
        _ if value.fract() == 0.0 && value.abs() < 9e15 => json!(value as i64),
        _ => format!("{value:.6e}").parse::<f64>().map_or(Value::Null, |rounded| json!(rounded)),
    }
}

/// The parameters by name, with the values of each run, those first in which runs differ.
fn params(runs: &[Run]) -> Value {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(|run| &run.params) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value =
        |run: &Run, name: &str| run.params.iter().find(|(other, _)| other == name).map(|(_, value)| value.clone());
    let mut rows: Vec<(bool, &str, Vec<Option<String>>)> = names
        .into_iter()
        .map(|name| {
            let values: Vec<Option<String>> = runs.iter().map(|run| value(run, name)).collect();
            (values.windows(2).any(|pair| pair[0] != pair[1]), name, values)
        })
        .collect();
    rows.sort_by_key(|(differs, _, _)| !differs);
    rows.into_iter()
        .map(|(differs, name, values)| json!({ "name": name, "differs": differs, "values": values }))
        .collect()
}
