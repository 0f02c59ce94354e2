//! File name templates such as `{epoch}-{val_loss:.2f}`.

use super::python_format::{Number, Spec};

/// A parsed file name template.
#[derive(Debug, PartialEq)]
pub(super) struct Template<'a>(Vec<Part<'a>>);

#[derive(Debug, PartialEq)]
enum Part<'a> {
    Text(&'a str),
    Field { key: &'a str, spec: Spec },
}

impl<'a> Template<'a> {
    /// Parses a template; `Err` describes what is wrong with it.
    pub(super) fn parse(text: &'a str) -> Result<Template<'a>, String> {
        let wrong = |problem: &str| format!("the file name `{text}` {problem}");
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, field)) = rest.split_once('{') {
            let Some((field, after)) = field.split_once('}') else {
                return Err(wrong("has a `{` without its `}`; write fields as `{val_loss:.2f}`"));
            };
            let (key, spec) = field.split_once(':').unwrap_or((field, ""));
            if key.is_empty() || key.contains('{') || before.contains('}') {
                return Err(wrong("has braces that are not a field; write fields as `{val_loss:.2f}`"));
            }
            let spec = Spec::parse(spec).map_err(|problem| wrong(&format!("has the field `{key}`, and {problem}")))?;
            parts.push(Part::Text(before));
            parts.push(Part::Field { key, spec });
            rest = after;
        }
        if rest.contains('}') {
            return Err(wrong("has a `}` without its `{`; write fields as `{val_loss:.2f}`"));
        }
        parts.push(Part::Text(rest));
        Ok(Template(parts))
    }

    /// The names of the values in it.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Field { key, .. } => Some(*key),
        })
    }

    /// Whether the template may have generated `name`: its literal parts occur in order.
    pub(super) fn may_have_made(&self, name: &str) -> bool {
        let text = |part: &Part<'a>| match part {
            Part::Text(text) => Some(*text),
            Part::Field { .. } => None,
        };
        let texts: Vec<&str> = self.0.iter().filter_map(text).collect();
        let [first, between @ .., last] = texts.as_slice() else { return texts == [name] };
        let after = |rest: &'_ str, text: &&str| rest.find(text).map(|at| at + text.len());
        let inner = name.strip_prefix(first).and_then(|rest| rest.strip_suffix(last));
        inner.is_some_and(|inner| {
            let mut rest = inner;
            between.iter().all(|text| after(rest, text).map(|at| rest = &rest[at..]).is_some())
        })
    }

    /// Formats the name from the value of each key. With `equals`, each value is preceded by its key and that text.
    pub(super) fn render(&self, equals: Option<&str>, value: impl Fn(&str) -> Number) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => name.push_str(text),
                Part::Field { key, spec } => {
                    if let Some(equals) = equals {
                        name.push_str(key);
                        name.push_str(equals);
                    }
                    let pushed = spec.push(&mut name, value(key));
                    pushed.map_err(|problem| {
                        format!("the field `{key}` of the file name cannot be written: {problem}")
                    })?;
                }
            }
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::{Number, Template};
    use crate::model_checkpoint::python_format::Number::{Float, Int};

    type Values<'a> = &'a [(&'a str, Number)];

    fn name(template: &str, insert: bool, values: Values<'_>) -> String {
        let value = |key: &str| values.iter().find(|(name, _)| *name == key).map_or(Int(0), |(_, value)| *value);
        Template::parse(template).unwrap().render(insert.then_some("="), value).unwrap()
    }

    /// Every name here is what `ModelCheckpoint.format_checkpoint_name` of Lightning 2.6.6 returns.
    #[test]
    fn names_are_those_of_lightning() {
        let f32 = |x: f32| Float(x.into());
        let cases: &[(&str, bool, Values<'_>, &str)] = &[
            ("{epoch}-{step}", true, &[("epoch", Int(3)), ("step", Int(42))], "epoch=3-step=42"),
            ("{epoch:03d}", true, &[("epoch", Int(5))], "epoch=005"),
            (
                "{epoch}-{val_loss:.2f}",
                true,
                &[("epoch", Int(2)), ("val_loss", f32(0.123456))],
                "epoch=2-val_loss=0.12",
            ),
            (
                "epoch={epoch}-validation_loss={val_loss:.2f}",
                false,
                &[("epoch", Int(2)), ("val_loss", f32(0.123456))],
                "epoch=2-validation_loss=0.12",
            ),
            ("{missing:d}", true, &[], "missing=0"),
            ("{missing:.3f}", true, &[], "missing=0.000"),
            ("{epoch:03d}-{acc}", true, &[("epoch", Int(3)), ("acc", f32(2.0))], "epoch=003-acc=2.0"),
            ("{epoch}-{epoch_test}", true, &[("epoch", Int(1)), ("epoch_test", Int(3))], "epoch=1-epoch_test=3"),
            ("{epoch_test:03d}-{epoch}", true, &[("epoch", Int(1)), ("epoch_test", Int(3))], "epoch_test=003-epoch=1"),
            ("{epoch}{epoch:02d}", true, &[("epoch", Int(1))], "epoch=1epoch=01"),
            (
                "{abc}-{a}-{ab:.1f}",
                true,
                &[("a", f32(1.5)), ("ab", f32(2.25)), ("abc", f32(3.0))],
                "abc=3.0-a=1.5-ab=2.2",
            ),
            ("{val/loss:.5f}", true, &[("val/loss", f32(0.5))], "val/loss=0.50000"),
            ("ckpt-{val/loss:.2e}", false, &[("val/loss", f32(0.5))], "ckpt-5.00e-01"),
            ("{val.loss:.1%}", true, &[("val.loss", f32(0.125))], "val.loss=12.5%"),
            ("plain", true, &[], "plain"),
            ("{loss}", true, &[("loss", f32(0.1))], "loss=0.10000000149011612"),
            ("{loss}", true, &[("loss", f32(1e-5))], "loss=9.999999747378752e-06"),
            ("{loss}", true, &[("loss", Float(f64::NAN))], "loss=nan"),
            ("{loss:.2f}", true, &[("loss", Float(f64::INFINITY))], "loss=inf"),
            (
                "{loss:08.3f}|{loss:+.1f}|{loss:^9.2g}",
                true,
                &[("loss", f32(1234.5))],
                "loss=1234.500|loss=+1234.5|loss= 1.2e+03 ",
            ),
        ];
        for (template, insert, values, expected) in cases {
            assert_eq!(name(template, *insert, values), *expected, "{template}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for (template, expected) in [
            ("{epoch", "the file name `{epoch` has a `{` without its `}`; write fields as `{val_loss:.2f}`"),
            ("epoch}", "the file name `epoch}` has a `}` without its `{`; write fields as `{val_loss:.2f}`"),
            ("{}", "the file name `{}` has braces that are not a field; write fields as `{val_loss:.2f}`"),
            (
                "{{epoch}}",
                "the file name `{{epoch}}` has braces that are not a field; write fields as `{val_loss:.2f}`",
            ),
            ("}{epoch}", "the file name `}{epoch}` has braces that are not a field; write fields as `{val_loss:.2f}`"),
            (
                "{acc:.2x}",
                "the file name `{acc:.2x}` has the field `acc`, and `.2x` is not a number format; write `[[fill]align][sign][0][width][.precision][d|f|e|g|%]`, such as `.2f` or `03d`",
            ),
        ] {
            assert_eq!(Template::parse(template).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_format_that_does_not_fit_names_its_field() {
        let rendered = Template::parse("{val_loss:d}").unwrap().render(None, |_| Float(0.5));
        assert_eq!(
            rendered.unwrap_err(),
            "the field `val_loss` of the file name cannot be written: `d` is for whole numbers, and the value has decimals; write `.0f`"
        );
    }

    #[test]
    fn names_are_recognised() {
        let made = |template: &str, name: &str| Template::parse(template).unwrap().may_have_made(name);
        for (template, name) in [
            ("last", "last"),
            ("{epoch}-last", "epoch=3-last"),
            ("last-{step}", "last-step=3"),
            ("{epoch}-last-{step}", "epoch=3-last-step=3"),
            ("a{epoch}-{step}b", "aepoch=3-step=3b"),
            ("{epoch}", "anything"),
        ] {
            assert!(made(template, name), "{template} {name}");
        }
        for (template, name) in
            [("last", "last2"), ("last-{step}", "last"), ("{epoch}-last", "last-epoch=3"), ("a{x}-{y}b", "ax=1y=1b")]
        {
            assert!(!made(template, name), "{template} {name}");
        }
    }
}
