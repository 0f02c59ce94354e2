//! [`Screen`]: the terminal area in which progress lines are redrawn.

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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use ::console::measure_text_width;
    use indicatif::{ProgressDrawTarget, TermLike};

    use super::*;

    const WIDTH: usize = 80;

    /// The lines of a terminal, and the one the cursor is in.
    #[derive(Debug, Clone, Default)]
    struct Terminal(Arc<Mutex<(Vec<String>, usize)>>);

    impl Terminal {
        fn lines(&self) -> Vec<String> {
            let lines = self.0.lock().unwrap().0.clone();
            lines.iter().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
        }
    }

    impl TermLike for Terminal {
        fn width(&self) -> u16 {
            WIDTH as u16
        }

        fn move_cursor_up(&self, n: usize) -> io::Result<()> {
            self.0.lock().unwrap().1 -= n;
            Ok(())
        }

        fn move_cursor_down(&self, n: usize) -> io::Result<()> {
            self.0.lock().unwrap().1 += n;
            Ok(())
        }

        fn move_cursor_right(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn move_cursor_left(&self, _: usize) -> io::Result<()> {
            Ok(())
        }

        fn write_line(&self, text: &str) -> io::Result<()> {
            self.write_str(text)?;
            self.move_cursor_down(1)
        }

        fn write_str(&self, text: &str) -> io::Result<()> {
            let (lines, row) = &mut *self.0.lock().unwrap();
            // What follows a full line goes to the next.
            if !text.is_empty() && lines.get(*row).is_some_and(|line| measure_text_width(line) >= WIDTH) {
                *row += 1;
            }
            lines.resize(lines.len().max(*row + 1), String::new());
            lines[*row].push_str(text);
            Ok(())
        }

        fn clear_line(&self) -> io::Result<()> {
            let (lines, row) = &mut *self.0.lock().unwrap();
            lines[*row].clear();
            Ok(())
        }

        fn flush(&self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(label: &str, position: u64) -> Option<Line<'_>> {
        Some(Line {
            label,
            position,
            total: None,
            elapsed: Duration::ZERO,
            rate: None,
            metrics: &[],
            version: None,
            is_finished: false,
        })
    }

    #[test]
    fn validation_stands_below_its_epoch_and_goes_again() {
        let terminal = Terminal::default();
        let target = ProgressDrawTarget::term_like(Box::new(terminal.clone()));
        let mut screen = Screen::new(&MultiProgress::with_draw_target(target)).unwrap();
        screen.show(1, line("Validation", 1));
        screen.show(0, line("Epoch", 7));
        assert_eq!(terminal.lines(), ["Epoch 7/? 0:00:00", "Validation 1/? 0:00:00"]);
        screen.show(0, line("Epoch", 8));
        screen.show(1, None);
        assert_eq!(terminal.lines(), ["Epoch 8/? 0:00:00"]);
        screen.clear();
        assert!(terminal.lines().is_empty(), "{:?}", terminal.lines());
    }

    #[test]
    fn nothing_moves_where_nothing_can() {
        assert!(Screen::new(&MultiProgress::with_draw_target(ProgressDrawTarget::hidden())).is_none());
    }
}
