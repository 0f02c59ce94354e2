//! [`Keys`]: maps the names in a file to those of a model.

use std::collections::HashMap;

use fulgurite_torch::Dict;

type Rename = Box<dyn Fn(&str) -> Option<String> + Send>;

/// Renamings, and which of the new names are wanted.
#[derive(Default)]
pub(crate) struct Keys {
    renames: Vec<Rename>,
    only: Vec<String>,
    except: Vec<String>,
}

impl Keys {
    pub(crate) fn replace_prefix(&mut self, from: String, to: String) {
        self.map(Box::new(move |key| match key.strip_prefix(&from) {
            Some(rest) => Some(format!("{to}{rest}")),
            None => Some(key.to_owned()),
        }));
    }

    pub(crate) fn map(&mut self, rename: Rename) {
        self.renames.push(rename);
    }

    pub(crate) fn only(&mut self, pattern: String) {
        self.only.push(pattern);
    }

    pub(crate) fn except(&mut self, pattern: String) {
        self.except.push(pattern);
    }

    /// Whether this name of the model is selected.
    pub(crate) fn selects(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        (self.only.is_empty() || any(&self.only)) && !any(&self.except)
    }

    /// The selected entries, under their new names. The old names of the others are added to `skipped`.
    pub(crate) fn apply(&self, state: &Dict, skipped: &mut Vec<String>) -> Result<Dict, String> {
        let mut renamed = Dict::new();
        let mut origins: HashMap<String, &str> = HashMap::new();
        for (key, value) in state.iter() {
            let Some(key) = key.as_str() else { continue };
            let name = self.renames.iter().try_fold(key.to_owned(), |name, rename| rename(&name));
            let Some(name) = name.filter(|name| self.selects(name)) else {
                skipped.push(key.to_owned());
                continue;
            };
            renamed.push(name.as_str(), value.clone());
            if let Some(other) = origins.insert(name.clone(), key) {
                return Err(format!("its `{other}` and `{key}` would both be `{name}`; change the renaming"));
            }
        }
        Ok(renamed)
    }
}

/// A name and everything below it, or a pattern with `*` (any characters) and `?` (one).
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.contains(['*', '?']) {
        true => glob(pattern.as_bytes(), name.as_bytes()),
        false => name.strip_prefix(pattern).is_some_and(|rest| {
            rest.is_empty() || rest.starts_with('.') || pattern.is_empty() || pattern.ends_with('.')
        }),
    }
}

/// Goes back to the last `*` where the rest does not match, which takes at most the product of the lengths.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&letter) if letter == b'?' || letter == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((at, taken)) = star else { return false };
                star = Some((at, taken + 1));
                p = at + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|&letter| letter == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_names_parts_or_globs() {
        for (pattern, name, expected) in [
            ("backbone", "backbone", true),
            ("backbone", "backbone.fc.weight", true),
            ("backbone", "backbone2.weight", false),
            ("backbone.", "backbone.fc", true),
            ("*.bias", "layer.1.bias", true),
            ("*.bias", "layer.1.bias.extra", false),
            ("layer.?.weight", "layer.1.weight", true),
            ("layer.?.weight", "layer.12.weight", false),
            ("a*b*c", "a.b.b.c", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn renamings_follow_each_other_before_the_selection() {
        let mut keys = Keys::default();
        keys.replace_prefix("module.".into(), String::new());
        keys.map(Box::new(|key| (key != "step").then(|| key.replace("gamma", "weight"))));
        keys.replace_prefix(String::new(), "net.".into());
        keys.except("net.head".into());
        let state = Dict::new().with("module.norm.gamma", 1).with("step", 2).with("head.bias", 3).with(4, 5);
        let mut skipped = Vec::new();
        assert_eq!(keys.apply(&state, &mut skipped).unwrap(), Dict::new().with("net.norm.weight", 1));
        assert_eq!(skipped, ["step", "head.bias"]);
    }

    #[test]
    fn two_names_that_become_one_are_refused() {
        let mut keys = Keys::default();
        keys.replace_prefix("module.".into(), String::new());
        let both = Dict::new().with("module.a", 1).with("a", 2);
        let error = keys.apply(&both, &mut Vec::new()).unwrap_err();
        assert_eq!(error, "its `module.a` and `a` would both be `a`; change the renaming");
    }
}
