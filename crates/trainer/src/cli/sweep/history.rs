//! The history of a study: the values of its trials, and the best so far, as SVG and in a terminal.

use std::path::Path;

use fulgurite_search::{Direction, Study, Trial, TrialState};
use plotters::prelude::*;
use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};

use super::board::number;

/// Width and height of the terminal's drawing, in dots: two to a column, four to a line.
const DOTS: (u32, u32) = (120, 40);

/// Values by the number of the trial.
struct History {
    values: Vec<(f64, f64)>,
    best: Vec<(f64, f64)>,
}

impl History {
    fn of(study: &Study) -> History {
        let complete = study.trials().filter(|trial| trial.state == TrialState::Complete);
        let point = |trial: &Trial| Some((trial.number as f64, trial.value.filter(|value| value.is_finite())?));
        let values: Vec<(f64, f64)> = complete.filter_map(point).collect();
        let mut best: Vec<(f64, f64)> = Vec::new();
        for (number, value) in &values {
            let so_far = best.last().map_or(*value, |(_, best)| better(study.direction(), *best, *value));
            best.push((*number, so_far));
        }
        History { values, best }
    }
}

fn better(direction: Direction, a: f64, b: f64) -> f64 {
    if direction.is_better(b, a) { b } else { a }
}

/// The best value so far, over the trials; `None` if there are too few.
pub(super) fn terminal(study: &Study, monitor: &str) -> Option<String> {
    let History { best, .. } = History::of(study);
    let ([first, .., last], true) = (&best[..], best.len() > 1) else { return None };
    let points: Vec<(f32, f32)> = best.iter().map(|(x, y)| (*x as f32, *y as f32)).collect();
    let mut chart = Chart::new(DOTS.0, DOTS.1, first.0 as f32, last.0 as f32);
    let steps = Shape::Steps(&points);
    let chart = chart.lineplot(&steps).x_label_format(LabelFormat::Custom(Box::new(|x| format!("{x:.0}"))));
    let chart = chart.y_label_format(LabelFormat::Custom(Box::new(|y| number(f64::from(y)))));
    // Nothing is drawn before.
    chart.figures();
    Some(format!("best {monitor} after each trial\n{chart}"))
}

/// Draws it; `false` if there is nothing to draw.
pub(super) fn svg(study: &Study, monitor: &str, path: &Path) -> Result<bool, String> {
    let history = History::of(study);
    if history.values.is_empty() {
        return Ok(false);
    }
    let text = render(&history, monitor).map_err(|error| error.to_string())?;
    std::fs::write(path, text).map(|()| true).map_err(|error| error.to_string())
}

fn render(history: &History, monitor: &str) -> Result<String, Box<dyn std::error::Error>> {
    let values = history.values.iter().map(|(_, value)| *value);
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    let margin = (high - low).max(f64::EPSILON) * 0.05;
    let last = history.values.last().map_or(0.0, |(number, _)| *number);
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (720, 440)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(16).x_label_area_size(44).y_label_area_size(64);
        let mut chart = builder.build_cartesian_2d(-0.5..last + 0.5, low - margin..high + margin)?;
        chart.configure_mesh().x_desc("Trial").y_desc(monitor).x_label_formatter(&|x| format!("{x:.0}")).draw()?;
        // A step from each trial to the next.
        let steps = history.best.windows(2).flat_map(|pair| [pair[0], (pair[1].0, pair[0].1), pair[1]]);
        chart.draw_series(LineSeries::new(steps, RED.stroke_width(2)))?;
        chart.draw_series(history.values.iter().map(|point| Circle::new(*point, 4, BLUE.filled())))?;
        area.present()?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use fulgurite_search::{RandomSampler, SearchSpace};
    use serde_json::json;

    use super::*;

    #[test]
    fn the_history_is_drawn() {
        let folder = tempfile::tempdir().unwrap();
        let mut study = Study::open(folder.path().join("journal.log"), "s", Direction::Minimize).unwrap();
        let space = SearchSpace::from_value(&json!({ "x": { "float": [0, 1] } })).unwrap();
        let path = folder.path().join("history.svg");
        assert!(terminal(&study, "loss").is_none() && svg(&study, "loss", &path) == Ok(false));
        for value in [0.5, 0.75, 0.25] {
            let id = study.ask(&mut RandomSampler::new(None), &space).unwrap().unwrap();
            study.tell(id, TrialState::Complete, Some(value)).unwrap();
        }
        assert_eq!(History::of(&study).best, [(0.0, 0.5), (1.0, 0.5), (2.0, 0.25)]);
        let drawn = terminal(&study, "loss").unwrap();
        assert!(drawn.contains(" 0.5\n") && drawn.contains(" 0.25\n") && drawn.trim_end().ends_with(" 2"), "{drawn}");
        assert!(drawn.chars().any(|c| ('\u{2801}'..='\u{28ff}').contains(&c)), "{drawn}");
        assert_eq!(svg(&study, "loss", &path), Ok(true));
        assert_eq!(std::fs::read_to_string(&path).unwrap().matches("<circle").count(), 3);
    }
}
