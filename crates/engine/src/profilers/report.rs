//! The destination and layout of profiler reports.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::ProfiledRun;
use crate::error::Result;
use crate::stage::TrainerFn;

/// Adds a report to its file.
pub(crate) fn append_report(path: &Path, report: &str) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "{report}")
    };
    write().map_err(|error| format!("cannot write {}: {error}", path.display()).into())
}

/// The file name `<stage>-<filename>[-rank]<what follows>`, without what file systems refuse.
pub(super) fn file_name(run: Option<&ProfiledRun>, filename: Option<&str>, more: Option<&str>, ending: &str) -> String {
    let stage = run.map(|run| stage_name(run.entry_point).to_owned());
    let rank = run.and_then(|run| run.rank).map(|rank| rank.to_string());
    let parts = [stage, filename.map(str::to_owned), rank, more.map(str::to_owned)];
    let name = parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
    let mut clean = String::with_capacity(name.len());
    for c in name.chars() {
        let c = if "\\/:*?\"<>|\n\r\t".contains(c) { '_' } else { c };
        if c != '_' || !clean.ends_with('_') {
            clean.push(c);
        }
    }
    let clean = clean.trim();
    format!("{}{ending}", if clean.is_empty() { "profile" } else { clean })
}

/// The destination of a run's report: a file if there is a name for it.
pub(super) fn report_path(
    run: Option<&ProfiledRun>,
    dirpath: Option<&Path>,
    filename: Option<&str>,
) -> Option<PathBuf> {
    let folder = dirpath.or(run.map(|run| run.log_dir.as_path()))?;
    Some(folder.join(file_name(run, Some(filename?), None, ".txt")))
}

/// `FIT Profiler Report`, or without a run `Profiler Report`.
pub(super) fn title(run: Option<&ProfiledRun>) -> String {
    let stage = run.map(|run| stage_name(run.entry_point).to_uppercase() + " ").unwrap_or_default();
    format!("{stage}Profiler Report\n")
}

fn stage_name(entry: TrainerFn) -> &'static str {
    match entry {
        TrainerFn::Fit => "fit",
        TrainerFn::Validate => "validate",
        TrainerFn::Test => "test",
        TrainerFn::Predict => "predict",
    }
}

/// A table of text: the first column to the left, the others to the right.
pub(super) struct Table {
    rows: Vec<Vec<String>>,
    /// A line is drawn above these rows.
    rules: Vec<usize>,
}

impl Table {
    pub(super) fn new(header: &[&str]) -> Table {
        Table { rows: vec![header.iter().map(|cell| (*cell).to_owned()).collect()], rules: vec![0, 1] }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Draws a line below the rows so far.
    pub(super) fn rule(&mut self) {
        self.rules.push(self.rows.len());
    }

    /// The lines, each with its end.
    pub(super) fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|c| c.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        let rule = "-".repeat(widths.iter().map(|width| width + 5).sum::<usize>() + 1);
        let mut out = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            if self.rules.contains(&index) {
                let _ = writeln!(out, "{rule}");
            }
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let _ =
                    if column == 0 { write!(out, "|  {cell:<width$}  ") } else { write!(out, "|  {cell:>width$}  ") };
            }
            out.push_str("|\n");
        }
        let _ = writeln!(out, "{rule}");
        out
    }
}

/// A number with `digits` significant digits, never in powers of ten.
pub(super) fn significant(value: f64, digits: i32) -> String {
    if value == 0.0 || !value.is_finite() {
        return format!("{value:.1}");
    }
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = (digits - 1 - magnitude).clamp(0, 12) as usize;
    let text = format!("{value:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// Seconds of nanoseconds.
pub(super) fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Milliseconds of nanoseconds, with four digits.
pub(super) fn milliseconds(nanoseconds: u64) -> String {
    significant(nanoseconds as f64 / 1e6, 4)
}

/// The percentage of a total; 0 if that is 0.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 };
    format!("{share:.1}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fulgurite_torch::tch::Device;

    #[test]
    fn files_are_named_after_stage_name_and_rank() {
        let mut run =
            ProfiledRun { entry_point: TrainerFn::Fit, log_dir: "logs".into(), rank: None, device: Device::Cpu };
        assert_eq!(report_path(Some(&run), None, Some("perf")), Some("logs/fit-perf.txt".into()));
        assert_eq!(report_path(Some(&run), Some(Path::new("here")), None), None);
        run.rank = Some(3);
        assert_eq!(
            report_path(Some(&run), Some(Path::new("here")), Some("a/b:c")),
            Some("here/fit-a_b_c-3.txt".into())
        );
        assert_eq!(file_name(None, None, None, ".txt"), "profile.txt");
    }

    #[test]
    fn numbers_have_significant_digits() {
        let told = [0.0, 1.0, 0.000_012_345_678, 12.345_678, 123_456.78].map(|x| significant(x, 5));
        assert_eq!(told, ["0.0", "1", "0.000012346", "12.346", "123457"]);
    }
}
