//! [`StateDictMismatch`]: how a state dict and a model differ.

use std::collections::HashMap;
use std::fmt;

/// How a state dict and a model differ. Its text has the number of differences of each kind and the first ten.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StateDictMismatch {
    /// The differences: what the state dict lacks, then what the model lacks, then what is different in both.
    pub differences: Vec<Difference>,
    /// The number of the model's tensors for which the state dict has one of the same name and shape.
    pub fitting: usize,
    /// The number of the model's tensors, by name.
    pub in_model: usize,
}

/// A name for which a state dict and a model differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name.
    pub key: String,
    /// What the state dict has under the name.
    pub given: Option<Given>,
    /// The shape that the model's tensor has.
    pub model: Option<Vec<i64>>,
}

/// An entry of a state dict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    /// A tensor of this shape.
    Tensor(Vec<i64>),
    /// Something else, of this type.
    Other(&'static str),
}

/// The beginning of names that only one of a state dict and a model has, such as `module.` or `model.`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The prefix.
    pub prefix: String,
    /// Whether the state dict's names begin with it, or the model's.
    pub is_given: bool,
    /// The number of the missing tensors that would be found.
    pub found: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Missing,
    Unexpected,
    OtherShape,
    NoTensor,
}

impl Difference {
    fn kind(&self) -> Kind {
        match (&self.given, &self.model) {
            (None, _) => Kind::Missing,
            (Some(_), None) => Kind::Unexpected,
            (Some(Given::Tensor(_)), Some(_)) => Kind::OtherShape,
            (Some(Given::Other(_)), Some(_)) => Kind::NoTensor,
        }
    }
}

impl StateDictMismatch {
    /// More are counted and not listed.
    const LISTED: usize = 10;
    const KINDS: [(Kind, &str); 4] = [
        (Kind::Missing, "missing"),
        (Kind::Unexpected, "unexpected"),
        (Kind::OtherShape, "of another shape"),
        (Kind::NoTensor, "not a tensor"),
    ];

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Difference> {
        self.differences.iter().filter(move |difference| difference.kind() == kind)
    }

    /// The number of differences of each kind to list: the kinds take turns, so that none hides another.
    fn listed(&self) -> [usize; 4] {
        let there = Self::KINDS.map(|(kind, _)| self.of_kind(kind).count());
        let mut listed = [0; 4];
        for turn in 0..Self::LISTED {
            for (listed, there) in listed.iter_mut().zip(there) {
                *listed += usize::from(turn < there);
            }
            if listed.iter().sum::<usize>() >= Self::LISTED {
                break;
            }
        }
        let mut surplus = listed.iter().sum::<usize>().saturating_sub(Self::LISTED);
        for listed in listed.iter_mut().rev().filter(|listed| **listed > 1) {
            let taken = surplus.min(1);
            *listed -= taken;
            surplus -= taken;
        }
        listed
    }

    /// The prefix without which, or with which, at least half of the missing tensors would be found: wrappers such as
    /// PyTorch's `DataParallel` and `torch.compile`, and attributes that hold a model, put one before its names.
    pub fn prefix(&self) -> Option<Prefix> {
        let missing = || self.of_kind(Kind::Missing).filter_map(|d| Some((d.key.as_str(), d.model.as_ref()?)));
        let unexpected = || {
            self.of_kind(Kind::Unexpected).filter_map(|d| match &d.given {
                Some(Given::Tensor(shape)) => Some((d.key.as_str(), shape)),
                _ => None,
            })
        };
        let stripped = common_prefix(unexpected(), missing()).map(|(prefix, found)| (prefix, true, found));
        let added = common_prefix(missing(), unexpected()).map(|(prefix, found)| (prefix, false, found));
        let best = stripped.into_iter().chain(added).max_by_key(|(_, _, found)| *found);
        let (prefix, is_given, found) = best.filter(|(_, _, found)| 2 * found >= missing().count())?;
        Some(Prefix { prefix: prefix.to_owned(), is_given, found })
    }
}

/// The prefix of `long` names after which most of the `short` ones of the same shape come, and their number.
fn common_prefix<'k>(
    long: impl Iterator<Item = (&'k str, &'k Vec<i64>)>,
    short: impl Iterator<Item = (&'k str, &'k Vec<i64>)>,
) -> Option<(&'k str, usize)> {
    let short: HashMap<&str, &Vec<i64>> = short.collect();
    let mut found: HashMap<&str, usize> = HashMap::new();
    for (name, shape) in long {
        for (dot, _) in name.match_indices('.') {
            let (prefix, rest) = name.split_at(dot + 1);
            if short.get(rest) == Some(&shape) {
                *found.entry(prefix).or_default() += 1;
            }
        }
    }
    found.into_iter().max_by_key(|(prefix, count)| (*count, std::cmp::Reverse(*prefix)))
}

impl fmt::Display for StateDictMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = Self::KINDS.map(|(kind, text)| (self.of_kind(kind).count(), text));
        let counts = counts.iter().filter(|(count, _)| *count > 0);
        let counts: Vec<String> = counts.map(|(count, text)| format!("{count} {text}")).collect();
        let counts = counts.join(", ");
        let prefix = self.prefix();
        let has_names_in_common =
            self.fitting > 0 || prefix.is_some() || self.of_kind(Kind::OtherShape).next().is_some();
        let fitting = if self.fitting == 0 { "none".to_owned() } else { self.fitting.to_string() };
        write!(f, "{counts}; {fitting} of the model's {} tensors can be loaded", self.in_model)?;
        f.write_str(if has_names_in_common { ":" } else { ", so the architecture is another one:" })?;
        let listed = self.listed();
        for ((kind, text), listed) in Self::KINDS.into_iter().zip(listed) {
            for Difference { key, given, model } in self.of_kind(kind).take(listed) {
                write!(f, "\n\t{text}: {}", Name(key))?;
                match (given, model) {
                    (Some(given), Some(model)) => {
                        write!(f, " is {given} in the state dict and {} in the model", Shape(model))
                    }
                    (Some(given), None) => write!(f, " {given}"),
                    (None, Some(model)) => write!(f, " {}", Shape(model)),
                    (None, None) => Ok(()),
                }?;
            }
        }
        match self.differences.len() - listed.iter().sum::<usize>() {
            0 => {}
            more => write!(f, "\n\tand {more} more")?,
        }
        match prefix {
            None => Ok(()),
            Some(Prefix { prefix, is_given, found }) => {
                let what = if is_given { "without the prefix" } else { "with the prefix" };
                write!(f, "\n\t{found} of the missing would be found {what} {} of names", Name(&prefix))?;
                f.write_str(if is_given {
                    " in the state dict"
                } else {
                    " in the model before those in the state dict"
                })
            }
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Given::Tensor(shape) => Shape(shape).fmt(f),
            Given::Other(type_name) => f.write_str(type_name),
        }
    }
}

/// A name of a file or model, quoted, escaped, and cut if it is very long.
struct Name<'n>(&'n str);

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 200;
        match self.0.char_indices().nth(MOST) {
            Some((end, _)) => write!(f, "{:?}…", &self.0[..end]),
            None => write!(f, "{:?}", self.0),
        }
    }
}

/// A shape, cut if it has very many dimensions.
struct Shape<'s>(&'s [i64]);

impl fmt::Display for Shape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 12;
        match self.0.get(..MOST) {
            Some(first) if self.0.len() > MOST => write!(f, "{first:?}… of {} dimensions", self.0.len()),
            _ => write!(f, "{:?}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn missing(key: &str, shape: &[i64]) -> Difference {
        Difference { key: key.to_owned(), given: None, model: Some(shape.into()) }
    }

    fn unexpected(key: &str, shape: &[i64]) -> Difference {
        Difference { key: key.to_owned(), given: Some(Given::Tensor(shape.into())), model: None }
    }

    fn says(differences: Vec<Difference>, fitting: usize, expected: &Expect) {
        let in_model = fitting + differences.iter().filter(|difference| difference.model.is_some()).count();
        let text = StateDictMismatch { differences, fitting, in_model }.to_string();
        expected.assert_eq(&text.replace('\t', "    "));
    }

    #[test]
    fn ten_are_listed_and_no_kind_hides_another() {
        let mut all: Vec<Difference> = (0..40).map(|i| missing(&format!("blocks.{i}.weight"), &[8, 8])).collect();
        all.extend((0..3).map(|i| unexpected(&format!("layers.{i}.w\x1b"), &[i])));
        let given = Some(Given::Tensor(vec![1000, 8]));
        all.push(Difference { key: "head.weight".into(), given, model: Some(vec![10, 8]) });
        let given = Some(Given::Other("int"));
        all.push(Difference { key: "head.bias".into(), given, model: Some(vec![10]) });
        says(
            all,
            7,
            &expect![[r#"
                40 missing, 3 unexpected, 1 of another shape, 1 not a tensor; 7 of the model's 49 tensors can be loaded:
                    missing: "blocks.0.weight" [8, 8]
                    missing: "blocks.1.weight" [8, 8]
                    missing: "blocks.2.weight" [8, 8]
                    missing: "blocks.3.weight" [8, 8]
                    missing: "blocks.4.weight" [8, 8]
                    unexpected: "layers.0.w\u{1b}" [0]
                    unexpected: "layers.1.w\u{1b}" [1]
                    unexpected: "layers.2.w\u{1b}" [2]
                    of another shape: "head.weight" is [1000, 8] in the state dict and [10, 8] in the model
                    not a tensor: "head.bias" is int in the state dict and [10] in the model
                    and 35 more"#]],
        );
    }

    #[test]
    fn a_prefix_of_all_names_is_named() {
        let layers = || ["fc.weight", "fc.bias", "out.weight"].map(|name| (name, [2i64]));
        let mut wrapped: Vec<Difference> = layers().iter().map(|(name, shape)| missing(name, shape)).collect();
        wrapped.extend(layers().iter().map(|(name, shape)| unexpected(&format!("module.{name}"), shape)));
        says(
            wrapped,
            0,
            &expect![[r#"
                3 missing, 3 unexpected; none of the model's 3 tensors can be loaded:
                    missing: "fc.weight" [2]
                    missing: "fc.bias" [2]
                    missing: "out.weight" [2]
                    unexpected: "module.fc.weight" [2]
                    unexpected: "module.fc.bias" [2]
                    unexpected: "module.out.weight" [2]
                    3 of the missing would be found without the prefix "module." of names in the state dict"#]],
        );
        let held = layers().map(|(name, shape)| missing(&format!("net.model.{name}"), &shape)).into_iter();
        let differences = held.chain(layers().map(|(name, shape)| unexpected(name, &shape))).collect();
        let mismatch = StateDictMismatch { differences, fitting: 0, in_model: 3 };
        assert_eq!(mismatch.prefix(), Some(Prefix { prefix: "net.model.".into(), is_given: false, found: 3 }));
        let chance = vec![missing("a.weight", &[1]), missing("b", &[1]), missing("c", &[1]), unexpected("x.b", &[1])];
        assert_eq!(StateDictMismatch { differences: chance, fitting: 0, in_model: 3 }.prefix(), None);
    }

    #[test]
    fn what_a_file_says_is_bounded() {
        let differences = vec![unexpected(&"x".repeat(100_000), &[1; 10_000])];
        let text = StateDictMismatch { differences, fitting: 1, in_model: 1 }.to_string();
        assert!(text.len() < 500 && text.ends_with("… of 10000 dimensions"), "{text}");
    }
}
