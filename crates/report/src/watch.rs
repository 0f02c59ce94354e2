//! [`watch`]: how runs stand, as text for a terminal.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::error::Result;
use crate::metrics::{Metrics, Point};
use crate::run::{self, Run};
use crate::standing::standing;
use crate::time::now;

const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The columns of numbers and the spaces between all columns.
const NUMBERS: usize = 3 * 12;
const WIDEST_NAME: usize = 32;

/// How the runs stand that are named, or are in what is named: for each its last step, how far it is, how fast, and how long it takes
/// to the end, as far as its record says so, and for each name the last, smallest and
/// largest value and a curve, in lines of at most `width` columns. It reads the files that runs write, and nothing else.
///
/// ```
/// use fulgurite_report::watch;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("metrics.csv"), "loss,step\n0.5,0\n0.25,1\n0.125,2\n")?;
/// let text = watch(&[folder.path().to_owned()], 80)?;
/// assert!(text.contains("step 2") && text.contains("loss"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// Fails if there is no run, or a `metrics.csv` cannot be read.
pub fn watch(paths: &[PathBuf], width: usize) -> Result<String> {
    let runs: Vec<Run> = run::find(paths)?.iter().map(|folder| Run::read(folder)).collect::<Result<_>>()?;
    Ok(runs.iter().map(|run| about(run, width, now())).collect::<Vec<_>>().join("\n"))
}

fn about(run: &Run, width: usize, now: f64) -> String {
    let (step, epoch) = run.metrics.last();
    let mut text = format!("{}   step {step}", run.name);
    let _ = epoch.map(|epoch| write!(text, ", epoch {epoch}"));
    let _ = age(run).map(|age| write!(text, ", written {age} ago"));
    text.push('\n');
    standing(&run.record, now).lines().for_each(|line| text += &format!("{}\n", printable(line)));
    text += &table(&run.metrics, width);
    if let Some(last) = run.checkpoints.last() {
        let _ = writeln!(text, "{} checkpoint(s), such as {}", run.checkpoints.len(), printable(&last.name));
    }
    text
}

fn table(metrics: &Metrics, width: usize) -> String {
    let series: Vec<_> = metrics.series.iter().filter(|(name, _)| name != "epoch").collect();
    let longest = series.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).clamp(4, WIDEST_NAME);
    let columns = width.saturating_sub(longest + NUMBERS + 2).clamp(0, 100);
    let mut text = format!("{:longest$}{:>12}{:>12}{:>12}\n", "name", "last", "min", "max");
    for (name, points) in series {
        let name: String = printable(name).chars().take(longest).collect();
        let finite = || points.iter().map(|point| point.value).filter(|value| value.is_finite());
        let (min, max) = (finite().fold(f64::NAN, f64::min), finite().fold(f64::NAN, f64::max));
        let last = points.last().map_or(f64::NAN, |point| point.value);
        let curve = curve(points, columns, min, max);
        let _ = writeln!(text, "{name:longest$}{:>12}{:>12}{:>12}  {curve}", number(last), number(min), number(max));
    }
    text
}

/// A block for each part of the curve, as high as its mean. What is no number is a space.
fn curve(points: &[Point], columns: usize, min: f64, max: f64) -> String {
    let columns = columns.min(points.len());
    let block = |column: usize| {
        let part = &points[column * points.len() / columns..(column + 1) * points.len() / columns];
        let values: Vec<f64> = part.iter().map(|point| point.value).filter(|value| value.is_finite()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let height = if max > min { (mean - min) / (max - min) } else { 0.5 };
        match values.is_empty() {
            true => ' ',
            false => BLOCKS[((height * BLOCKS.len() as f64) as usize).min(BLOCKS.len() - 1)],
        }
    };
    (0..columns).map(block).collect()
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size != 0.0 && !(1e-3..1e6).contains(&size) && size.is_finite() => format!("{value:.3e}"),
        _ if value.fract() == 0.0 => format!("{value}"),
        _ => format!("{value:.5}"),
    }
}

/// How long ago a run has written something.
fn age(run: &Run) -> Option<String> {
    let modified = |file| run.folder.join(file).metadata().ok()?.modified().ok();
    let modified = modified("metrics.csv").max(modified("run.jsonl"))?;
    let seconds = SystemTime::now().duration_since(modified).ok()?.as_secs();
    Some(match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    })
}

/// Text without what a terminal would obey.
fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: &[f64]) -> Vec<Point> {
        values.iter().enumerate().map(|(i, value)| Point { step: i as f64, epoch: 0.0, value: *value }).collect()
    }

    #[test]
    fn a_curve_has_a_block_for_each_part() {
        let rising: Vec<f64> = (0..16).map(f64::from).collect();
        assert_eq!(curve(&points(&rising), 8, 0.0, 15.0), "▁▂▃▄▅▆▇█");
        assert_eq!(curve(&points(&[0.0, f64::NAN, 1.0]), 8, 0.0, 1.0), "▁ █");
        assert_eq!(curve(&points(&[2.0, 2.0]), 8, 2.0, 2.0), "▅▅");
        assert_eq!(curve(&points(&rising), 0, 0.0, 15.0), "");
    }

    #[test]
    fn lines_fit_and_a_terminal_is_given_nothing_to_obey() {
        let metrics = Metrics { series: vec![("a\u{1b}[2Jb".into(), points(&[1e-9, 123456789.0]))], rows: 2 };
        let text = table(&metrics, 70);
        assert!(text.lines().all(|line| line.chars().count() <= 70), "{text}");
        assert!(!text.contains('\u{1b}') && text.contains("1.235e8") && text.contains("1.000e-9"), "{text}");
    }
}
