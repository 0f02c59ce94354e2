//! [`Line`]: one progress line, fitted to a width.

use std::collections::VecDeque;
use std::time::Duration;

use ::console::{Style, measure_text_width, truncate_str};
use fulgurite_torch::printable_in_line;

const SHORTEST_BAR: usize = 8;
const LONGEST_BAR: usize = 40;

/// The parts of a progress line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    pub label: &'a str,
    pub position: u64,
    pub total: Option<u64>,
    pub elapsed: Duration,
    /// Steps per second, if known.
    pub rate: Option<f64>,
    /// Names and formatted values of metrics.
    pub metrics: &'a [(String, String)],
    /// The version of the logger.
    pub version: Option<&'a str>,
    /// The task is finished: no bar and no remaining time.
    pub is_finished: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Label,
    Bar,
    Count,
    Elapsed,
    Remaining,
    Rate,
    Metric(usize),
    Version,
}

impl Line<'_> {
    /// All parts except the bar, of any length: for a log file.
    pub(super) fn unfitted(&self) -> String {
        let pieces: Vec<_> = self.pieces().into_iter().filter(|piece| *piece != Piece::Bar).collect();
        self.write(&pieces, 0, false)
    }

    /// As much as fits into `width` columns. The bar shrinks first; then pieces go, the least missed first.
    pub(super) fn fit(&self, width: usize, colors: bool) -> String {
        let mut pieces = self.pieces();
        let mut dropped = Vec::new();
        let mut expendable = self.expendable();
        while self.width(&pieces) > width
            && let Some(piece) = expendable.pop_front()
        {
            pieces.retain(|kept| *kept != piece);
            dropped.push(piece);
        }
        // A long piece that had to go may have left room for a short one that went before it.
        for piece in dropped.into_iter().rev().filter(|piece| !matches!(piece, Piece::Metric(_))) {
            let mut more = self.pieces();
            more.retain(|other| *other == piece || pieces.contains(other));
            if self.width(&more) <= width {
                pieces = more;
            }
        }
        let spare = width.saturating_sub(self.width(&pieces));
        let line = self.write(&pieces, (SHORTEST_BAR + spare).min(LONGEST_BAR), colors);
        truncate_str(&line, width, "…").into_owned()
    }

    /// All pieces there are something to say for, in the order they are written.
    fn pieces(&self) -> Vec<Piece> {
        let mut pieces = vec![Piece::Label];
        if !self.is_finished && self.total.is_some() {
            pieces.push(Piece::Bar);
        }
        pieces.extend([Piece::Count, Piece::Elapsed]);
        if !self.is_finished && self.remaining().is_some() {
            pieces.push(Piece::Remaining);
        }
        if self.rate.is_some() {
            pieces.push(Piece::Rate);
        }
        pieces.extend((0..self.metrics.len()).map(Piece::Metric));
        if self.version.is_some() {
            pieces.push(Piece::Version);
        }
        pieces
    }

    /// What may go, the least missed first. The first metric outlives the bar; of a finished line, all of them outlive
    /// the rest.
    fn expendable(&self) -> VecDeque<Piece> {
        let mut order = VecDeque::from([Piece::Version]);
        let later_metrics = (1..self.metrics.len()).rev().map(Piece::Metric);
        if self.is_finished {
            order.extend([Piece::Rate, Piece::Elapsed, Piece::Count]);
            order.extend(later_metrics);
        } else {
            order.push_back(Piece::Elapsed);
            order.extend(later_metrics);
            order.extend([Piece::Bar, Piece::Rate, Piece::Remaining]);
        }
        order.extend([Piece::Metric(0), Piece::Count]);
        order
    }

    /// The columns of `pieces`, with the shortest bar.
    fn width(&self, pieces: &[Piece]) -> usize {
        measure_text_width(&self.write(pieces, SHORTEST_BAR, false))
    }

    fn write(&self, pieces: &[Piece], bar: usize, colors: bool) -> String {
        let mut line = String::new();
        for piece in pieces {
            let text = match piece {
                Piece::Label => printable_in_line(self.label).into_owned(),
                Piece::Bar => self.bar(bar, colors),
                Piece::Count => match self.total {
                    Some(total) => format!("{}/{total}", self.position),
                    None if self.is_finished => self.position.to_string(),
                    None => format!("{}/?", self.position),
                },
                Piece::Elapsed => duration(self.elapsed),
                Piece::Remaining => {
                    let sign = if pieces.contains(&Piece::Elapsed) { "• " } else { "-" };
                    format!("{sign}{}", duration(self.remaining().unwrap_or_default()))
                }
                Piece::Rate => rate(self.rate.unwrap_or_default()),
                Piece::Metric(index) => {
                    let (name, value) = &self.metrics[*index];
                    format!("{}: {value}", printable_in_line(name))
                }
                Piece::Version => format!("v_num: {}", printable_in_line(self.version.unwrap_or_default())),
            };
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(&text);
        }
        line
    }

    fn remaining(&self) -> Option<Duration> {
        let steps = self.total?.saturating_sub(self.position) as f64;
        Duration::try_from_secs_f64(steps / self.rate?).ok()
    }

    /// A bar of `width` columns, in steps of half a column; readable without colours too.
    fn bar(&self, width: usize, colors: bool) -> String {
        let total = self.total.unwrap_or_default().max(1);
        let halves = (self.position.min(total) as f64 / total as f64 * 2.0 * width as f64) as usize;
        let mut filled = "━".repeat(halves / 2);
        if halves % 2 == 1 {
            filled.push('╸');
        }
        let rest = "─".repeat(width - halves.div_ceil(2));
        let paint = |style: Style, text: String| style.apply_to(text).force_styling(colors);
        format!("{}{}", paint(Style::new().cyan(), filled), paint(Style::new().dim(), rest))
    }
}

/// Hours, minutes and seconds.
fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Steps per second, or seconds per step if that is the greater number.
fn rate(per_second: f64) -> String {
    let (number, unit) = if per_second >= 1.0 { (per_second, "it/s") } else { (per_second.recip(), "s/it") };
    let decimals = match number {
        0.0..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}{unit}")
}

/// A metric's value in five columns where that is possible, as Lightning's tqdm bar writes it: at least three
/// significant digits, and an exponent for what is very small or very large.
pub(super) fn value(x: f64) -> String {
    let magnitude = x.abs();
    let decimals = match magnitude {
        0.0 => 3,
        0.001..0.01 => 5,
        0.01..0.1 => 4,
        0.1..10.0 => 3,
        10.0..100.0 => 2,
        100.0..1000.0 => 1,
        1000.0..1e6 => 0,
        _ if magnitude.is_finite() => return format!("{x:.2e}"),
        _ => return x.to_string().to_lowercase(),
    };
    format!("{x:.decimals$}")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn metrics() -> Vec<(String, String)> {
        [("train_loss", 0.3121), ("val_acc", 0.9808), ("val_loss", 1.5)]
            .map(|(name, x)| (name.to_owned(), value(x)))
            .into()
    }

    fn line(metrics: &[(String, String)]) -> Line<'_> {
        Line {
            label: "Epoch 3/19",
            position: 120,
            total: Some(450),
            elapsed: Duration::from_secs(12),
            rate: Some(38.12),
            metrics,
            version: Some("0"),
            is_finished: false,
        }
    }

    const WIDTHS: [usize; 10] = [20, 30, 40, 50, 60, 80, 100, 120, 140, 200];

    fn at_all_widths(line: Line<'_>) -> String {
        let fitted = WIDTHS.map(|width| format!("{width:3} {}\n", line.fit(width, false)));
        fitted.concat()
    }

    #[test]
    fn a_line_at_many_widths() {
        expect![[r#"
             20 Epoch 3/19 120/450
             30 Epoch 3/19 120/450 -0:00:08
             40 Epoch 3/19 120/450 train_loss: 0.312
             50 Epoch 3/19 120/450 -0:00:08 train_loss: 0.312
             60 Epoch 3/19 120/450 -0:00:08 38.1it/s train_loss: 0.312
             80 Epoch 3/19 ━━╸─────── 120/450 -0:00:08 38.1it/s train_loss: 0.312 val_acc: 0.981
            100 Epoch 3/19 ━━━╸────────── 120/450 -0:00:08 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500
            120 Epoch 3/19 ━━━━──────────── 120/450 0:00:12 • 0:00:08 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            140 Epoch 3/19 ━━━━━━━━━╸────────────────────────── 120/450 0:00:12 • 0:00:08 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            200 Epoch 3/19 ━━━━━━━━━━╸───────────────────────────── 120/450 0:00:12 • 0:00:08 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
        "#]].assert_eq(&at_all_widths(line(&metrics())));
    }

    #[test]
    fn a_finished_line_keeps_its_metrics() {
        let metrics = metrics();
        let finished = Line { position: 450, is_finished: true, ..line(&metrics) };
        expect![[r#"
             20 Epoch 3/19 450/450
             30 Epoch 3/19 train_loss: 0.312
             40 Epoch 3/19 450/450 train_loss: 0.312
             50 Epoch 3/19 train_loss: 0.312 val_acc: 0.981
             60 Epoch 3/19 train_loss: 0.312 val_acc: 0.981 val_loss: 1.500
             80 Epoch 3/19 450/450 0:00:12 train_loss: 0.312 val_acc: 0.981 val_loss: 1.500
            100 Epoch 3/19 450/450 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            120 Epoch 3/19 450/450 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            140 Epoch 3/19 450/450 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            200 Epoch 3/19 450/450 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
        "#]]
        .assert_eq(&at_all_widths(finished));
        expect!["Epoch 3/19 450/450 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0"]
            .assert_eq(&finished.unfitted());
    }

    #[test]
    fn without_a_total_there_is_neither_bar_nor_remaining_time() {
        let metrics = metrics();
        let unknown = Line { total: None, ..line(&metrics) };
        expect![[r#"
             20 Epoch 3/19 120/?
             30 Epoch 3/19 120/? 38.1it/s
             40 Epoch 3/19 120/? train_loss: 0.312
             50 Epoch 3/19 120/? 38.1it/s train_loss: 0.312
             60 Epoch 3/19 120/? 38.1it/s train_loss: 0.312 val_acc: 0.981
             80 Epoch 3/19 120/? 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500
            100 Epoch 3/19 120/? 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            120 Epoch 3/19 120/? 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            140 Epoch 3/19 120/? 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
            200 Epoch 3/19 120/? 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0
        "#]]
        .assert_eq(&at_all_widths(unknown));
        expect!["Epoch 3/19 120 0:00:12 38.1it/s train_loss: 0.312 val_acc: 0.981 val_loss: 1.500 v_num: 0"]
            .assert_eq(&Line { is_finished: true, ..unknown }.unfitted());
    }

    #[test]
    fn before_the_first_step_there_is_no_rate() {
        let first = Line { position: 0, rate: None, version: None, elapsed: Duration::ZERO, ..line(&[]) };
        expect!["Epoch 3/19 ─────────────────────────────────── 0/450 0:00:00"].assert_eq(&first.fit(60, false));
        expect!["Epoch 3/19 0/450 0:00:00"].assert_eq(&first.unfitted());
    }

    #[test]
    fn no_width_is_exceeded() {
        let mut metrics = metrics();
        metrics.push(("损失".into(), value(0.5)));
        for width in 1..=200 {
            for position in [0, 1, 449, 450] {
                for colors in [false, true] {
                    let text = Line { position, ..line(&metrics) }.fit(width, colors);
                    assert!(measure_text_width(&text) <= width, "{width}: {text}");
                }
            }
        }
    }

    #[test]
    fn colors_are_the_only_difference_they_make() {
        let metrics = metrics();
        let (plain, colored) = (line(&metrics).fit(80, false), line(&metrics).fit(80, true));
        assert_ne!(plain, colored);
        assert_eq!(::console::strip_ansi_codes(&colored), plain);
        assert!(!plain.contains('\x1b'));
    }

    #[test]
    fn bars_move_by_half_a_column() {
        let at = |position| Line { position, total: Some(8), ..line(&[]) }.bar(4, false);
        let bars = [0, 1, 2, 5, 8, 9].map(at).join("\n");
        expect![[r#"
            ────
            ╸───
            ━───
            ━━╸─
            ━━━━
            ━━━━"#]]
        .assert_eq(&bars);
    }

    #[test]
    fn values_take_five_columns_where_they_can() {
        let values = [
            0.0,
            0.3121,
            -0.5,
            9.876_54,
            12.345,
            123.456,
            1234.5,
            123_456.0,
            12_345_678.0,
            0.0456,
            0.00123,
            1e-5,
            f64::NAN,
            f64::NEG_INFINITY,
        ];
        expect!["0.000 0.312 -0.500 9.877 12.35 123.5 1234 123456 1.23e7 0.0456 0.00123 1.00e-5 nan -inf"]
            .assert_eq(&values.map(value).join(" "));
    }

    #[test]
    fn rates_turn_over_below_one() {
        expect!["12346it/s 381it/s 38.1it/s 3.81it/s 1.00it/s 2.50s/it 1000s/it"]
            .assert_eq(&[12_345.6, 381.2, 38.12, 3.812, 1.0, 0.4, 0.001].map(rate).join(" "));
    }

    #[test]
    fn durations_have_hours() {
        let seconds = [0, 31, 754, 100_000].map(|s| duration(Duration::from_secs(s)));
        expect!["0:00:00 0:00:31 0:12:34 27:46:40"].assert_eq(&seconds.join(" "));
    }
}
