//! What the page shows beside curves, as JSON: the account of the time, starts, warnings, the environment, checkpoints.

use serde_json::{Value, json};

use crate::ledger::Ledger;
use crate::metrics::Point;
use crate::number::compact;
use crate::record::{ACTIVITIES, Saved, Segment};
use crate::run::Run;

/// How many starts and warnings of a run are shown: the last.
const MOST_SHOWN: usize = 200;

/// Seconds of training between two points of a curve of throughput.
const SECONDS_OF_POINT: f64 = 0.5;

/// What is known of how a run went; null if it has left no record.
pub(crate) fn record(run: &Run, now: f64) -> Value {
    let segments = &run.record.segments;
    let Some(last) = segments.last() else { return Value::Null };
    // A test that follows does not tell how the training went.
    let told = segments.iter().rev().find(|segment| segment.is_fit()).unwrap_or(last);
    let shown = &segments[segments.len().saturating_sub(MOST_SHOWN)..];
    let warnings: Vec<Value> = segments.iter().flat_map(|segment| &segment.warnings).map(warning).collect();
    json!({
        "status": told.status(now),
        "error": told.end.as_ref().and_then(|end| end.error.as_deref()),
        "ledger": ledger(&Ledger::of(&run.record)),
        "starts": shown.iter().map(|segment| start(segment, now)).collect::<Vec<_>>(),
        "starts_before": segments.len() - shown.len(),
        "warnings": warnings[warnings.len().saturating_sub(MOST_SHOWN)..],
        "warnings_before": warnings.len().saturating_sub(MOST_SHOWN),
        "summary": segments.iter().rev().find_map(|segment| segment.summary.as_deref()),
    })
}

fn warning((time, text): &(f64, String)) -> Value {
    json!([time, text])
}

fn ledger(ledger: &Ledger) -> Value {
    let spent = ACTIVITIES.iter().zip(ledger.spent).map(|(name, spent)| json!([name, compact(spent)]));
    let restarts = ledger
        .restarts
        .iter()
        .map(|at| json!({ "step": compact(at.step), "epoch": compact(at.epoch), "reached": compact(at.reached), "down": compact(at.down) }));
    json!({
        "spent": spent.collect::<Vec<_>>(),
        "lost": compact(ledger.redone + ledger.down),
        "redone": compact(ledger.redone),
        "down": compact(ledger.down),
        "steps_redone": compact(ledger.steps_redone),
        "total": compact(ledger.total()),
        "goodput": ledger.goodput().map(compact),
        "steps": compact(ledger.steps),
        "samples": compact(ledger.samples),
        "steps_per_second": ledger.rate(ledger.steps).map(compact),
        "samples_per_second": ledger.rate(ledger.samples).map(compact),
        "restarts": restarts.collect::<Vec<_>>(),
    })
}

fn start(segment: &Segment, now: f64) -> Value {
    let last = segment.last();
    json!({
        "entry": segment.entry,
        "begun": segment.begun,
        "lasted": compact(last.spent.iter().sum()),
        "from": segment.training.as_ref().map(|training| compact(training.step)),
        "to": segment.training.as_ref().map(|_| compact(last.step)),
        "resumed_from": segment.training.as_ref().and_then(|training| training.resumed_from.as_deref()),
        "status": segment.status(now),
        "error": segment.end.as_ref().and_then(|end| end.error.as_deref()),
    })
}

/// Curves of the throughput, by name: of samples, and of steps for runs whose batches have no size.
pub(crate) fn rates(runs: &[Run]) -> impl Iterator<Item = (&'static str, Vec<(usize, Vec<Point>)>)> {
    let of_runs = |count: fn(&crate::record::Progress) -> f64| {
        let curves = runs.iter().enumerate().map(|(index, run)| {
            (index, run.record.segments.iter().flat_map(|segment| rate(segment, count)).collect::<Vec<_>>())
        });
        curves.filter(|(_, points)| points.len() > 1).collect::<Vec<_>>()
    };
    let all = [("samples per second", of_runs(|at| at.samples)), ("batches per second", of_runs(|at| at.batches))];
    all.into_iter().filter(|(_, curves)| !curves.is_empty())
}

fn rate(segment: &Segment, count: fn(&crate::record::Progress) -> f64) -> Vec<Point> {
    let busy = |at: &crate::record::Progress| at.spent_on("training") + at.spent_on("data");
    let mut points = Vec::new();
    let (mut seconds, mut counted) = (0.0, 0.0);
    for at in &segment.progress {
        let (passed, done) = (busy(at) - seconds, count(at) - counted);
        if passed >= SECONDS_OF_POINT && done > 0.0 {
            points.push(Point { step: at.step, epoch: at.epoch, value: done / passed });
            (seconds, counted) = (busy(at), count(at));
        }
    }
    points
}

/// Versions, hardware and settings of the last start of each run.
pub(crate) fn environment(runs: &[Run]) -> Value {
    const NOTHING: &Vec<(String, String)> = &Vec::new();
    compare(runs, |run| run.record.segments.last().map_or(NOTHING, |segment| &segment.about))
}

/// The values of each name for each run, those first in which runs differ.
pub(crate) fn compare<'r>(runs: &'r [Run], of: impl Fn(&'r Run) -> &'r Vec<(String, String)>) -> Value {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in runs.iter().flat_map(&of) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let value = |run, name: &str| of(run).iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str());
    let mut rows: Vec<(bool, &str, Vec<Option<&str>>)> = names
        .into_iter()
        .map(|name| {
            let values: Vec<Option<&str>> = runs.iter().map(|run| value(run, name)).collect();
            (values.windows(2).any(|pair| pair[0] != pair[1]), name, values)
        })
        .collect();
    rows.sort_by_key(|(differs, _, _)| !differs);
    rows.into_iter()
        .map(|(differs, name, values)| json!({ "name": name, "differs": differs, "values": values }))
        .collect()
}

/// The files of each run, with the scores that its record has of them. A file that is not in the folder of the run, and may be
/// elsewhere or gone, has no size.
pub(crate) fn checkpoints(runs: &[Run]) -> Vec<Value> {
    runs.iter().enumerate().flat_map(|(index, run)| of_run(index, run)).collect()
}

fn of_run(index: usize, run: &Run) -> Vec<Value> {
    let saved: Vec<&Saved> = run.record.segments.iter().flat_map(|segment| &segment.checkpoints).collect();
    let known = |name: &str| saved.iter().rev().find(|saved| saved.name() == name).copied();
    let here: Vec<(&str, u64, Option<&Saved>)> =
        run.checkpoints.iter().map(|file| (file.name.as_str(), file.bytes, known(&file.name))).collect();
    let best = best(here.iter().filter_map(|(_, _, saved)| *saved));
    let row = |(name, bytes, saved): &(&str, u64, Option<&Saved>)| {
        let is_best = saved.zip(best).is_some_and(|(saved, best)| std::ptr::eq(saved, best));
        json!({
            "run": index,
            "name": name,
            "bytes": bytes,
            "step": saved.map(|saved| compact(saved.step)),
            "monitor": saved.and_then(|saved| saved.monitor.as_deref()),
            "score": saved.and_then(|saved| saved.score).map(compact),
            "best": is_best,
        })
    };
    here.iter().map(row).collect()
}

/// The one with the best score of those that have one.
fn best<'s>(saved: impl Iterator<Item = &'s Saved>) -> Option<&'s Saved> {
    let scored = saved.filter_map(|saved| Some((saved, saved.score.filter(|score| !score.is_nan())?)));
    let worth = |(saved, score): &(&Saved, f64)| if saved.high_is_good { *score } else { -*score };
    scored.max_by(|a, b| worth(a).total_cmp(&worth(b))).map(|(saved, _)| saved)
}
