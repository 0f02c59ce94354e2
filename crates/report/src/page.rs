//! The page: what it shows, as JSON within HTML.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::facts;
use crate::metrics::{Point, decimate};
use crate::number::compact;
use crate::run::Run;

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPTS: [&str; 4] = [
    include_str!("page/common.js"),
    include_str!("page/tables.js"),
    include_str!("page/charts.js"),
    include_str!("page/main.js"),
];

/// Points of all curves together: a page of some megabytes.
const POINTS: usize = 200_000;
/// Points of one curve: more than a screen has columns.
const POINTS_OF_CURVE: usize = 4_000;

pub(crate) fn page(runs: &[Run], now: f64) -> String {
    let data = json!({
        "runs": runs.iter().map(|run| about(run, now)).collect::<Vec<_>>(),
        "charts": charts(runs),
        "params": facts::compare(runs, |run| &run.params),
        "environment": facts::environment(runs),
        "checkpoints": facts::checkpoints(runs),
    });
    let page = PAGE.replacen("\"STYLE\"", STYLE, 1).replacen("\"SCRIPT\"", &SCRIPTS.concat(), 1);
    // What a file says must not end the script that it is in.
    page.replacen("\"DATA\"", &data.to_string().replace('<', "\\u003c"), 1)
}

/// The curves of each name, beside those that belong to it.
fn charts(runs: &[Run]) -> Vec<Value> {
    let curves: usize = runs.iter().map(|run| run.metrics.series.len()).sum();
    let most = (POINTS / curves.max(1)).clamp(100, POINTS_OF_CURVE);
    let names: BTreeSet<(Group, &str)> = runs
        .iter()
        .flat_map(|run| &run.metrics.series)
        .map(|(name, _)| (Group::of(name), name.as_str()))
        .filter(|(_, name)| *name != "epoch")
        .collect();
    let chart = |(group, name): &(Group, &str)| {
        let curve = |(index, run): (usize, &Run)| {
            let (_, points) = run.metrics.series.iter().find(|(other, _)| other == name)?;
            Some(curve(index, points, most))
        };
        let curves: Vec<_> = runs.iter().enumerate().filter_map(curve).collect();
        json!({ "name": name, "group": group.heading(), "curves": curves })
    };
    let logged = names.iter().map(chart);
    logged
        .chain(facts::rates(runs).map(|(name, of_runs)| {
            let curves: Vec<_> = of_runs.iter().map(|(index, points)| curve(*index, points, most)).collect();
            json!({ "name": name, "group": Group::Throughput.heading(), "curves": curves })
        }))
        .collect()
}

/// The heading of a curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Group {
    Logged,
    LearningRate,
    GradientNorm,
    Throughput,
}

impl Group {
    fn of(name: &str) -> Group {
        let last = name.rsplit('/').next().unwrap_or_default();
        match last {
            // What LearningRateMonitor calls them, with the momentum beside them.
            "lr" | "learning_rate" => Group::LearningRate,
            _ if last.starts_with("lr-") => Group::LearningRate,
            _ if name.contains("grad") && name.contains("norm") => Group::GradientNorm,
            _ if last.contains("_per_sec") || last == "mfu" => Group::Throughput,
            _ => Group::Logged,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Group::Logged => "Logged values",
            Group::LearningRate => "Learning rate",
            Group::GradientNorm => "Gradient norm",
            Group::Throughput => "Throughput",
        }
    }
}

fn about(run: &Run, now: f64) -> Value {
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
        "record": facts::record(run, now),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_its_curve_stands() {
        let of = |name: &str| Group::of(name).heading();
        assert_eq!(
            [of("lr-AdamW/pg1"), of("lr"), of("lr-AdamW-momentum")],
            ["Logged values", "Learning rate", "Learning rate"]
        );
        assert_eq!([of("grad_2.0_norm_total"), of("grad_norm")], ["Gradient norm"; 2]);
        assert_eq!(
            [of("train/device/samples_per_sec"), of("train/time"), of("val_loss")][..2],
            ["Throughput", "Logged values"]
        );
    }
}
