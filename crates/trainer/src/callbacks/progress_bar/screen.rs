//! [`Screen`]: where lines of progress move, if they can.

use ::console::{Term, colors_enabled_stderr};
use indicatif::{MultiProgress, ProgressStyle};

use super::line::Line;

/// The bars of a terminal, one per row.
pub(super) struct Screen {
    bars: MultiProgress,
    rows: [Option<indicatif::ProgressBar>; 2],
}

impl Screen {
    /// `None` where nothing can move: in a pipe, a file, memory, or a terminal without cursor movements.
    pub(super) fn new(bars: &MultiProgress) -> Option<Screen> {
        (!bars.is_hidden()).then(|| Screen { bars: bars.clone(), rows: [None, None] })
    }

    /// `line`, as much of it as fits.
    pub(super) fn fit(line: Line<'_>) -> String {
        let (_, width) = Term::stderr().size();
        line.fit(width.into(), colors_enabled_stderr())
    }

    /// Shows a line in a row, or clears the row.
    pub(super) fn show(&mut self, row: usize, line: Option<Line<'_>>) {
        match (line, self.rows[row].take()) {
            (Some(line), bar) => {
                let bar = bar.unwrap_or_else(|| self.add(row));
                bar.set_message(Screen::fit(line));
                self.rows[row] = Some(bar);
            }
            (None, Some(bar)) => {
                bar.finish_and_clear();
                self.bars.remove(&bar);
            }
            (None, None) => {}
        }
    }

    /// Clears all rows.
    pub(super) fn clear(&mut self) {
        (0..self.rows.len()).for_each(|row| self.show(row, None));
    }

    fn add(&self, row: usize) -> indicatif::ProgressBar {
        let bar = indicatif::ProgressBar::no_length();
        // `wide_msg` is cut where the terminal ends, should it have shrunk since the line was fitted.
        if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
            bar.set_style(style);
        }
        if row == 0 { self.bars.insert(0, bar) } else { self.bars.add(bar) }
    }
}
