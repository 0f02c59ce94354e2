//! The curve of a learning-rate range test: as SVG, and in a terminal.

use std::path::Path;

use plotters::prelude::*;
use textplots::{Chart, LabelBuilder, LabelFormat, Plot, Shape};

use super::options::LrFindMode;
use crate::error::Error;

/// Width and height of the terminal's drawing, in dots: two to a column, four to a line.
const DOTS: (u32, u32) = (120, 60);

/// The losses at the learning rates of a range test.
pub(super) struct Curve<'a> {
    pub lr: &'a [f64],
    pub loss: &'a [f64],
    pub mode: LrFindMode,
    /// The suggested rate, and the loss there.
    pub suggestion: Option<(f64, f64)>,
}

/// The finite points, with the rate as its logarithm to base 10 where it rose exponentially.
fn points(found: &Curve) -> Vec<(f32, f32)> {
    let x = |lr: f64| if found.mode == LrFindMode::Exponential { lr.log10() } else { lr };
    let all = found.lr.iter().zip(found.loss);
    all.filter(|(_, loss)| loss.is_finite()).map(|(&lr, &loss)| (x(lr) as f32, loss as f32)).collect()
}

pub(super) fn terminal(found: &Curve) -> String {
    let points = points(found);
    let suggestion = match found.suggestion {
        Some((lr, _)) => format!("steepest at a learning rate of {lr:.3e}"),
        None => "too few points for a suggestion".to_owned(),
    };
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return suggestion };
    let is_log = found.mode == LrFindMode::Exponential;
    let label = move |x: f32| if is_log { format!("{:.1e}", 10f64.powf(x.into())) } else { format!("{x:.1e}") };
    let mut chart = Chart::new(DOTS.0, DOTS.1, first.0, last.0);
    let lines = Shape::Lines(&points);
    let chart = chart.lineplot(&lines).x_label_format(LabelFormat::Custom(Box::new(label)));
    // Nothing is drawn before.
    chart.figures();
    format!("loss against learning rate\n{chart}\n{suggestion}")
}

pub(super) fn svg(found: &Curve, path: &Path) -> Result<(), Error> {
    let failed = |error: String| {
        Error::Config(format!("the plot cannot be written to {}: {error}; choose another path", path.display()))
    };
    let text = render(found).map_err(|error| failed(error.to_string()))?;
    std::fs::write(path, text).map_err(|error| failed(error.to_string()))
}

fn render(found: &Curve) -> Result<String, Box<dyn std::error::Error>> {
    let points: Vec<(f64, f64)> =
        found.lr.iter().copied().zip(found.loss.iter().copied()).filter(|(_, loss)| loss.is_finite()).collect();
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Err("there are no points".into()) };
    let losses = points.iter().map(|point| point.1);
    let (low, high) = losses.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), y| (low.min(y), high.max(y)));
    let margin = (high - low).max(f64::EPSILON) * 0.05;
    let y = low - margin..high + margin;
    let mark = found.suggestion;

    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (720, 440)).into_drawing_area();
        area.fill(&WHITE)?;
        let mut builder = ChartBuilder::on(&area);
        builder.margin(16).x_label_area_size(44).y_label_area_size(64);
        macro_rules! draw {
            ($x:expr) => {{
                let mut chart = builder.build_cartesian_2d($x, y)?;
                chart
                    .configure_mesh()
                    .x_desc("Learning rate")
                    .y_desc("Loss")
                    .x_label_formatter(&|x| format!("{x:.0e}"))
                    .draw()?;
                chart.draw_series(LineSeries::new(points.iter().copied(), BLUE.stroke_width(2)))?;
                chart.draw_series(mark.iter().map(|point| Circle::new(*point, 6, RED.filled())))?;
            }};
        }
        match found.mode {
            LrFindMode::Exponential => draw!((first.0..last.0).log_scale()),
            LrFindMode::Linear => draw!(first.0..last.0),
        }
        area.present()?;
    }
    Ok(text)
}
