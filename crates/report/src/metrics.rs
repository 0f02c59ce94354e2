//! [`Metrics`]: the values of a run, by name.

use std::path::Path;

use crate::error::{ReportError, Result, failed};

/// A logged value: when, and what.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Point {
    pub(crate) step: f64,
    /// NaN if no epoch was logged with it.
    pub(crate) epoch: f64,
    pub(crate) value: f64,
}

/// What a run has logged, of each name in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) series: Vec<(String, Vec<Point>)>,
    pub(crate) rows: u64,
}

impl Metrics {
    /// Reads a `metrics.csv`: a column for each name, `step`, and `epoch`, with empty cells where nothing was logged.
    pub(crate) fn read(path: &Path) -> Result<Metrics> {
        let file = std::fs::File::open(path).map_err(failed(path, "read"))?;
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(std::io::BufReader::new(file));
        let wrong = |error: csv::Error| {
            let line = error.position().map_or(1, csv::Position::line);
            ReportError::Damaged { path: path.into(), line, problem: error.to_string() }
        };
        let names: Vec<String> = reader.headers().map_err(wrong)?.iter().map(str::to_owned).collect();
        let place = |name: &str| names.iter().position(|other| other == name);
        let (step_at, epoch_at) = (place("step"), place("epoch"));
        let mut metrics = Metrics::default();
        let mut columns: Vec<Vec<Point>> = vec![Vec::new(); names.len()];
        let mut row = csv::StringRecord::new();
        while reader.read_record(&mut row).map_err(wrong)? {
            let number = |at: Option<usize>| at.and_then(|at| number(row.get(at)?));
            // The last line of a run that was killed may be half a line.
            if row.len() < names.len() {
                continue;
            }
            let step = number(step_at).unwrap_or(metrics.rows as f64);
            let epoch = number(epoch_at).unwrap_or(f64::NAN);
            metrics.rows += 1;
            for (at, points) in columns.iter_mut().enumerate() {
                if Some(at) != step_at
                    && let Some(value) = number(Some(at))
                {
                    points.push(Point { step, epoch, value });
                }
            }
        }
        metrics.series = names.into_iter().zip(columns).filter(|(_, points)| !points.is_empty()).collect();
        Ok(metrics)
    }

    /// The last step, and the last epoch, if there is one.
    pub(crate) fn last(&self) -> (f64, Option<f64>) {
        let points = || self.series.iter().flat_map(|(_, points)| points.last());
        let step = points().map(|point| point.step).fold(0.0, f64::max);
        let epochs = points().map(|point| point.epoch).filter(|epoch| epoch.is_finite());
        (step, epochs.fold(None, |last: Option<f64>, epoch| Some(last.map_or(epoch, |last| last.max(epoch)))))
    }
}

/// A number as Python writes it, too.
fn number(cell: &str) -> Option<f64> {
    match cell.trim() {
        "" => None,
        "nan" | "NaN" => Some(f64::NAN),
        "inf" | "Infinity" => Some(f64::INFINITY),
        "-inf" | "-Infinity" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

/// Leaves at most about `most` points, in such a way that no spike is lost: of each part of the curve the first and last point,
/// the smallest and the largest, and one that is no number, if there is any.
pub(crate) fn decimate(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let parts = (most / 5).max(1);
    let mut kept = Vec::with_capacity(most);
    for part in points.chunks(points.len().div_ceil(parts)) {
        let finite = || part.iter().enumerate().filter(|(_, point)| point.value.is_finite());
        let by_value = |a: &(usize, &Point), b: &(usize, &Point)| a.1.value.total_cmp(&b.1.value);
        let at = |found: Option<(usize, &Point)>| found.map(|(index, _)| index);
        let odd = part.iter().position(|point| !point.value.is_finite());
        let mut wanted: Vec<usize> =
            [Some(0), Some(part.len() - 1), at(finite().min_by(by_value)), at(finite().max_by(by_value)), odd]
                .into_iter()
                .flatten()
                .collect();
        wanted.sort_unstable();
        wanted.dedup();
        kept.extend(wanted.into_iter().map(|index| part[index]));
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn points(values: impl IntoIterator<Item = f64>) -> Vec<Point> {
        values.into_iter().enumerate().map(|(i, value)| Point { step: i as f64, epoch: 0.0, value }).collect()
    }

    #[test]
    fn no_spike_is_lost() {
        let mut values = vec![0.5; 100_000];
        values[12_345] = 9.0;
        values[54_321] = -9.0;
        values[77_777] = f64::NAN;
        let kept = decimate(&points(values), 1000);
        assert!(kept.len() <= 1000, "{}", kept.len());
        let at = |step: f64| kept.iter().find(|point| point.step == step).unwrap().value;
        assert_eq!((at(12_345.0), at(54_321.0), at(0.0), at(99_999.0)), (9.0, -9.0, 0.5, 0.5));
        assert!(at(77_777.0).is_nan());
        assert!(kept.is_sorted_by_key(|point| point.step));
        assert_eq!(decimate(&points([1.0, 2.0]), 1000).len(), 2);
    }

    #[test]
    fn a_file_is_read_by_columns() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.csv");
        std::fs::write(&path, "acc,epoch,loss,step\r\n,0,0.5,0\r\n0.75,1,,9\r\n,1,nan,9\r\n0.1,").unwrap();
        let metrics = Metrics::read(&path).unwrap();
        let names: Vec<&str> = metrics.series.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, metrics.rows, metrics.last()), (vec!["acc", "epoch", "loss"], 3, (9.0, Some(1.0))));
        assert_eq!(metrics.series[0].1, [Point { step: 9.0, epoch: 1.0, value: 0.75 }]);
        assert!(metrics.series[2].1[1].value.is_nan());
    }
}
