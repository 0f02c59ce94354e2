//! How a run stands by its record, in lines for a terminal.

use crate::ledger::Ledger;
use crate::record::{Record, Segment};
use crate::time::lasting;

const BAR: usize = 24;

/// What the record says, or nothing if there is none.
pub(crate) fn standing(record: &Record, now: f64) -> String {
    // What follows a fit, such as a test, does not tell how the fit went.
    let told = record.segments.iter().rev().find(|segment| segment.is_fit() || segment.status(now) == "running");
    let Some(last) = told.or(record.segments.last()) else { return String::new() };
    let (ledger, mut text) = (Ledger::of(record), String::new());
    let mut line = vec![format!("{} {}", last.entry, last.status(now))];
    line.extend(how_far(last));
    line.extend(last.status(now).eq("running").then(|| left(last)).flatten());
    text += &format!("{}\n", line.join(", "));
    let mut line = Vec::new();
    line.extend(rate(last).map(|(samples, steps)| match samples > 0.0 {
        true => format!("{} samples/s, {} steps/s", rounded(samples), rounded(steps)),
        false => format!("{} steps/s", rounded(steps)),
    }));
    line.extend(ledger.goodput().map(|goodput| format!("goodput {:.0} %", 100.0 * goodput)));
    line.extend(ledger.rate(1.0).map(|_| format!("waiting for data {:.0} %", 100.0 * waiting(&ledger))));
    if let count @ 1.. = ledger.restarts.len() {
        line.push(format!("{count} restart(s), {} lost", lasting(ledger.redone + ledger.down)));
    }
    if !line.is_empty() {
        text += &format!("{}\n", line.join(", "));
    }
    if let Some(error) = last.end.as_ref().and_then(|end| end.error.as_deref()) {
        text += &format!("error: {}\n", error.lines().next().unwrap_or_default());
    }
    text
}

fn waiting(ledger: &Ledger) -> f64 {
    ledger.spent[1] / ledger.total().max(f64::MIN_POSITIVE)
}

/// `[██████░░] 75 % of 200 steps`.
fn how_far(segment: &Segment) -> Option<String> {
    let last = segment.progress.iter().rev().find(|at| at.of_steps.is_some())?;
    let (step, steps) = (segment.last().step, last.of_steps.filter(|steps| *steps > 0.0)?);
    let part = (step / steps).clamp(0.0, 1.0);
    let full = (part * BAR as f64) as usize;
    let bar: String = (0..BAR).map(|at| if at < full { '█' } else { '░' }).collect();
    Some(format!("[{bar}] {:.0} % of {steps} steps", (100.0 * part).floor()))
}

/// How long it takes to the end, as things have gone since training began.
fn left(segment: &Segment) -> Option<String> {
    let (last, first) = (segment.last(), segment.training.as_ref()?);
    let to_go = segment.progress.iter().rev().find_map(|at| at.of_steps)? - last.step;
    let (done, setup) = (last.step - first.step, last.spent_on("setup"));
    let took = last.spent.iter().sum::<f64>() - setup;
    (done > 0.0 && to_go > 0.0).then(|| format!("{} left", lasting(took / done * to_go)))
}

/// Samples and steps per second of the last minute or so.
fn rate(segment: &Segment) -> Option<(f64, f64)> {
    let last = segment.last();
    let since = segment.progress.iter().rev().find(|at| last.time - at.time >= 30.0 && at.step < last.step);
    let from = since.cloned().unwrap_or_default();
    let busy = |at: &crate::record::Progress| at.spent_on("training") + at.spent_on("data");
    let (seconds, samples) = (busy(&last) - busy(&from), last.samples - from.samples);
    let first = segment.training.as_ref().map_or(0.0, |training| training.step);
    let steps = last.step - if since.is_some() { from.step } else { first };
    (seconds > 0.0 && steps > 0.0).then_some((samples / seconds, steps / seconds))
}

fn rounded(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{End, Progress, Training};

    #[test]
    fn a_run_says_how_far_it_is() {
        let at = |time, step: f64, training: f64| {
            let mut at = Progress { time, step, samples: step * 32.0, of_steps: Some(400.0), ..Progress::default() };
            (at.spent[0], at.spent[1], at.spent[6]) = (training, training / 4.0, 5.0);
            at
        };
        let mut segment = Segment {
            entry: "fit".into(),
            begun: 1000.0,
            training: Some(Training { step: 0.0, epoch: 0.0, resumed_from: None }),
            progress: vec![at(1055.0, 50.0, 40.0), at(1105.0, 100.0, 80.0)],
            ..Segment::default()
        };
        let said = |segment: Segment, now| standing(&Record { segments: vec![segment] }, now);
        let copy = |segment: &Segment| Segment {
            entry: segment.entry.clone(),
            begun: segment.begun,
            training: Some(Training { step: 0.0, epoch: 0.0, resumed_from: None }),
            progress: segment.progress.clone(),
            ..Segment::default()
        };
        assert_eq!(
            said(copy(&segment), 1106.0),
            "fit running, [██████░░░░░░░░░░░░░░░░░░] 25 % of 400 steps, 5 min left\n\
             32.0 samples/s, 1.0 steps/s, goodput 76 %, waiting for data 19 %\n"
        );
        assert!(said(copy(&segment), 5000.0).starts_with("fit killed, ["));
        segment.end = Some(End { status: "failed".into(), error: Some("no more\nlines".into()) });
        let said = said(segment, 1106.0);
        assert!(said.starts_with("fit failed, [") && said.ends_with("\nerror: no more\n"), "{said}");
        assert_eq!(standing(&Record::default(), 0.0), "");
    }
}
