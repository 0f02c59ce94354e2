//! [`Board`]: what people see of a sweep.

use fulgurite_engine::Console;
use fulgurite_search::{Study, Trial, TrialState};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

/// How many trials the table in a terminal has.
const ROWS: usize = 12;

/// In a terminal a table that is drawn anew, else a line per trial that has ended.
pub(super) struct Board {
    console: Console,
    monitor: String,
    table: Option<ProgressBar>,
}

impl Board {
    pub(super) fn new(console: &Console, monitor: &str) -> Board {
        let table = console.is_terminal().then(|| console.bars().add(ProgressBar::no_length()));
        let style = ProgressStyle::with_template("{msg}");
        if let (Some(table), Ok(style)) = (&table, style) {
            table.set_style(style);
        }
        Board { console: console.clone(), monitor: monitor.to_owned(), table }
    }

    /// Draws the table.
    pub(super) fn draw(&self, study: &Study) {
        if let Some(bar) = &self.table {
            bar.set_message(self.latest(study));
            bar.tick();
        }
    }

    /// The latest trials.
    fn latest(&self, study: &Study) -> String {
        let trials: Vec<&Trial> = study.trials().collect();
        let best = study.best_trial();
        let last = &trials[trials.len().saturating_sub(ROWS)..];
        // The best one stays in sight.
        let above = best.filter(|best| last.first().is_some_and(|first| best.number < first.number));
        let shown: Vec<&Trial> = above.into_iter().chain(last.iter().copied()).collect();
        table(&shown, &self.monitor, best.map(|best| best.number))
    }

    /// A trial has ended; `problem` is why it failed.
    pub(super) fn ended(&self, trial: &Trial, problem: Option<&str>) {
        let Trial { number, state, .. } = trial;
        match problem {
            Some(problem) => self.console.print(&format!("trial {number} failed: {problem}")),
            None if self.table.is_none() => {
                let (value, parameters) = (value(trial), parameters(trial));
                self.console.print(&format!("trial {number} {}: {} {value}; {parameters}", state.name(), self.monitor));
            }
            None => {}
        }
    }

    pub(super) fn say(&self, line: &str) {
        self.console.print(line);
    }

    /// Leaves the table as lines like others, or what is printed next would take its place.
    pub(super) fn close(&self, study: &Study) {
        if let Some(bar) = &self.table {
            bar.finish_and_clear();
            self.latest(study).lines().for_each(|line| self.console.print(line));
        }
    }
}

/// `model.lr=0.01, model.width=64`.
pub(super) fn parameters(trial: &Trial) -> String {
    let shown: Vec<String> =
        trial.params.iter().map(|(name, param)| format!("{name}={}", short(&param.value()))).collect();
    shown.join(", ")
}

/// The value of a trial, or the last that it has reported.
fn value(trial: &Trial) -> String {
    let value = trial.value.or_else(|| trial.last().map(|(_, value)| value));
    let value = value.map_or_else(|| "-".to_owned(), number);
    match trial.last().filter(|_| matches!(trial.state, TrialState::Running | TrialState::Pruned)) {
        Some((epoch, _)) => format!("{value} (epoch {epoch})"),
        None => value,
    }
}

fn short(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(given) if given.is_f64() => given.as_f64().map_or_else(|| given.to_string(), number),
        other => other.to_string(),
    }
}

/// Five digits of a number, or so.
pub(super) fn number(number: f64) -> String {
    let text = match number.abs() {
        size if size == 0.0 || !size.is_finite() => return number.to_string(),
        size if !(1e-3..1e6).contains(&size) => return format!("{number:.3e}"),
        size if size < 0.1 => format!("{number:.6}"),
        _ => format!("{number:.5}"),
    };
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Trial, parameters, value and state.
fn table(trials: &[&Trial], monitor: &str, best: Option<usize>) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in trials.iter().flat_map(|trial| &trial.params) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let head = ["trial"].into_iter().chain(names.iter().copied()).chain([monitor, "state"]);
    let mut rows: Vec<Vec<String>> = vec![head.map(str::to_owned).collect()];
    for trial in trials {
        let parameters =
            names.iter().map(|name| trial.param(name).map_or(String::new(), |param| short(&param.value())));
        let state = if best == Some(trial.number) { "best" } else { trial.state.name() };
        rows.push(
            [trial.number.to_string()].into_iter().chain(parameters).chain([value(trial), state.into()]).collect(),
        );
    }
    let columns = rows[0].len();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        fulgurite_torch::printable(cells.join("  ").trim_end()).into_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use fulgurite_search::{Direction, RandomSampler, SearchSpace};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_has_parameters_values_and_states() {
        let folder = tempfile::tempdir().unwrap();
        let mut study = Study::open(folder.path().join("journal.log"), "s", Direction::Minimize).unwrap();
        let space = SearchSpace::from_value(&json!({ "model.width": { "choice": [64] } })).unwrap();
        let mut sampler = RandomSampler::new(Some(0));
        let ids = [(); 2].map(|()| study.ask(&mut sampler, &space).unwrap().unwrap());
        study.report(ids[0], 0, 0.5).unwrap();
        study.tell(ids[0], TrialState::Complete, Some(0.5)).unwrap();
        study.report(ids[1], 3, 0.75).unwrap();
        let trials: Vec<&Trial> = study.trials().collect();
        let expected = "trial  model.width  val_loss        state\n\
                        0      64           0.5             best\n\
                        1      64           0.75 (epoch 3)  running";
        assert_eq!(table(&trials, "val_loss", Some(0)), expected);
        let shown = ["0.1", "1e-05", "64.0", "0.0", "0.006435355668266614", "-12345.678912", "1e300", "7"];
        let expected = ["0.1", "1.000e-5", "64", "0", "0.006435", "-12345.67891", "1.000e300", "7"];
        assert_eq!(shown.map(|text| short(&text.parse().unwrap())), expected);
        assert_eq!([f64::NAN, f64::NEG_INFINITY].map(number), ["NaN", "-inf"]);
    }
}
