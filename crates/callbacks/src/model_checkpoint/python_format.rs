//! Python's format specification mini-language, for the numbers in file names.

/// A number in a file name.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

/// `[[fill]align][sign][0][width][.precision][type]` with a type of `d`, `f`, `e`, `g`, `%`, their capitals, or none.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Spec {
    fill: Option<char>,
    align: Option<char>,
    sign: Option<char>,
    width: u8,
    precision: Option<u8>,
    kind: Option<char>,
}

impl Spec {
    /// Parses a specification; `Err` describes what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Spec, String> {
        let mut spec = Spec::default();
        let mut rest = text;
        let is_align = |c: char| "<>=^".contains(c);
        let mut chars = rest.chars();
        match (chars.next(), chars.next()) {
            (Some(fill), Some(align)) if is_align(align) => {
                (spec.fill, spec.align) = (Some(fill), Some(align));
                rest = chars.as_str();
            }
            (Some(align), _) if is_align(align) => {
                spec.align = Some(align);
                rest = &rest[1..];
            }
            _ => {}
        }
        spec.sign = take_any(&mut rest, "+- ");
        if take_any(&mut rest, "0").is_some() {
            spec.fill = spec.fill.or(Some('0'));
            spec.align = spec.align.or(Some('='));
        }
        let wrong = || {
            format!(
                "`{text}` is not a number format; write `[[fill]align][sign][0][width][.precision][d|f|e|g|%]`, such as `.2f` or `03d`"
            )
        };
        spec.width = take_number(&mut rest).ok_or_else(wrong)?.unwrap_or(0);
        if take_any(&mut rest, ".").is_some() {
            spec.precision = Some(take_number(&mut rest).ok_or_else(wrong)?.ok_or_else(wrong)?);
        }
        spec.kind = take_any(&mut rest, "dfFeEgG%");
        if rest.is_empty() { Ok(spec) } else { Err(wrong()) }
    }

    /// Appends `number`, formatted as by Python.
    pub(super) fn push(&self, out: &mut String, number: Number) -> Result<(), String> {
        let is_int_kind = matches!(self.kind, None | Some('d'));
        let (negative, digits) = match number {
            Number::Int(_) if is_int_kind && self.precision.is_some() => {
                return Err("a precision is for numbers with decimals; write it with a type, such as `.2f`".into());
            }
            Number::Int(int) if is_int_kind => (int < 0, int.unsigned_abs().to_string()),
            Number::Int(int) => (int < 0, self.float((int as f64).abs())),
            Number::Float(_) if self.kind == Some('d') => {
                return Err("`d` is for whole numbers, and the value has decimals; write `.0f`".into());
            }
            Number::Float(float) => (float.is_sign_negative() && !float.is_nan(), self.float(float.abs())),
        };
        let sign = match self.sign {
            _ if negative => "-",
            Some('+') => "+",
            Some(' ') => " ",
            _ => "",
        };
        let padding = usize::from(self.width).saturating_sub(sign.len() + digits.chars().count());
        let (before, between, after) = match self.align {
            Some('<') => (0, 0, padding),
            Some('^') => (padding / 2, 0, padding - padding / 2),
            Some('=') => (0, padding, 0),
            _ => (padding, 0, 0),
        };
        let pad = |out: &mut String, n| out.extend(std::iter::repeat_n(self.fill.unwrap_or(' '), n));
        pad(out, before);
        out.push_str(sign);
        pad(out, between);
        out.push_str(&digits);
        pad(out, after);
        Ok(())
    }

    /// The digits of a float without a sign.
    fn float(&self, x: f64) -> String {
        let percent = if self.kind == Some('%') { "%" } else { "" };
        let precision = self.precision.map(usize::from);
        let digits = match self.kind {
            _ if x.is_nan() => "nan".to_owned(),
            _ if x.is_infinite() => "inf".to_owned(),
            Some('f' | 'F') => format!("{x:.*}", precision.unwrap_or(6)),
            Some('%') => format!("{:.*}", precision.unwrap_or(6), x * 100.0),
            Some('e' | 'E') => {
                let (mantissa, exponent) = scientific(&format!("{x:.*e}", precision.unwrap_or(6)));
                with_exponent(&mantissa, exponent)
            }
            None if precision.is_none() => repr(x),
            kind => general(x, precision.unwrap_or(6).max(1), kind.is_none()),
        };
        let digits = digits + percent;
        if self.kind.is_some_and(char::is_uppercase) { digits.to_uppercase() } else { digits }
    }
}

/// `repr` of a Python float, as its `str` is too.
pub(crate) fn python_float(x: f64) -> String {
    let mut out = String::new();
    // An empty specification takes every float.
    _ = Spec::default().push(&mut out, Number::Float(x));
    out
}

fn take_any(rest: &mut &str, any: &str) -> Option<char> {
    let first = rest.chars().next().filter(|c| any.contains(*c))?;
    *rest = &rest[first.len_utf8()..];
    Some(first)
}

/// `None` if the number is too long for a file name.
fn take_number(rest: &mut &str) -> Option<Option<u8>> {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, after) = rest.split_at(end);
    *rest = after;
    if digits.is_empty() { Some(None) } else { digits.parse().ok().map(Some) }
}

/// The shortest digits that parse back as `x`.
fn repr(x: f64) -> String {
    let (mantissa, exponent) = scientific(&format!("{x:e}"));
    if (-4..16).contains(&exponent) { with_point(format!("{x}")) } else { with_exponent(&mantissa, exponent) }
}

/// `g`; with `keep_point`, the layout of a precision without a type.
fn general(x: f64, precision: usize, keep_point: bool) -> String {
    let (mantissa, exponent) = scientific(&format!("{x:.*e}", precision - 1));
    let digits_before_point = precision as i32 - i32::from(keep_point);
    if !(-4..digits_before_point).contains(&exponent) {
        return with_exponent(without_zeros(&mantissa), exponent);
    }
    let decimals = (precision as i32 - 1 - exponent).max(0) as usize;
    let fixed = format!("{x:.decimals$}");
    let short = without_zeros(&fixed).to_owned();
    if keep_point { with_point(short) } else { short }
}

/// Mantissa and exponent of Rust's `1.5e-7`.
fn scientific(text: &str) -> (String, i32) {
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    (mantissa.to_owned(), exponent.parse().unwrap_or(0))
}

fn with_exponent(mantissa: &str, exponent: i32) -> String {
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

fn with_point(digits: String) -> String {
    if digits.contains('.') { digits } else { digits + ".0" }
}

fn without_zeros(digits: &str) -> &str {
    if digits.contains('.') { digits.trim_end_matches('0').trim_end_matches('.') } else { digits }
}

#[cfg(test)]
mod tests {
    use super::{Number, Spec, python_float};

    /// Results of Python. A row is a kind, a format, and the formatted numbers of the kind's first row.
    const GOLDEN: &str = include_str!("../../tests/golden/python_format.txt");

    #[test]
    fn numbers_are_laid_out_as_python_lays_them_out() {
        let mut numbers = Vec::new();
        let mut compared = 0;
        for line in GOLDEN.lines() {
            let cells: Vec<&str> = line.split('|').collect();
            let (kind, spec, cells) = (cells[0], cells[1], &cells[2..]);
            let parse = |cell: &&str| match kind {
                "int" => Number::Int(cell.parse().unwrap()),
                _ => Number::Float(cell.parse().unwrap()),
            };
            if spec.is_empty() {
                numbers = cells.iter().map(parse).collect();
            }
            let spec = Spec::parse(spec).unwrap();
            for (number, expected) in numbers.iter().zip(cells) {
                let mut text = String::new();
                spec.push(&mut text, *number).unwrap();
                assert_eq!(text, *expected, "{number:?} as {spec:?}");
                compared += 1;
            }
        }
        assert_eq!(compared, 33 * 14 + 22 * 5);
    }

    #[test]
    fn what_is_no_format_is_refused() {
        for wrong in ["x", ".f", "5.2q", "999d", ".999f", "d2", "é", "<<<", ".2f ", ","] {
            let message = Spec::parse(wrong).unwrap_err();
            assert!(
                message.starts_with(&format!("`{wrong}` is not a number format; write `[[fill]align]")),
                "{message}"
            );
        }
    }

    #[test]
    fn formats_that_do_not_fit_the_number_are_refused() {
        let refusal = |spec: &str, number| Spec::parse(spec).unwrap().push(&mut String::new(), number).unwrap_err();
        assert_eq!(
            refusal("d", Number::Float(0.5)),
            "`d` is for whole numbers, and the value has decimals; write `.0f`"
        );
        assert_eq!(
            refusal(".2", Number::Int(3)),
            "a precision is for numbers with decimals; write it with a type, such as `.2f`"
        );
    }

    #[test]
    fn floats_are_printed_shortest() {
        assert_eq!(
            [0.1, 1e-5, 1e22, f64::from(0.1_f32)].map(python_float),
            ["0.1", "1e-05", "1e+22", "0.10000000149011612"]
        );
    }
}
