//! Validation of configurations: unknown options and values of the wrong type, with suggestions.

use std::rc::Rc;

use fulgurite_engine::Error;
use fulgurite_engine::profilers::PROFILERS;
use serde_json::Value;

use fulgurite_fabric::removed::{self, Place};
use fulgurite_fabric::strategy::Strategies;

use super::kind::Kind;
use super::layout::{INERT, INERT_OF_STRATEGIES, Layout, SCHEDULER_KEYS, stepped_by};
use super::registry::Misfit;
use super::schema::Schema;
use super::tree::{Content, Node, Origin};

pub(super) fn wrong<T>(message: String) -> Result<T, Error> {
    Err(Error::Config(message))
}

/// Puts a layer into its normal form: classes as `class_path` and `init_args`, what is null and cannot be left out, and
/// texts as they are written.
///
/// # Errors
///
/// Fails if an option or class does not exist.
pub(super) fn normalize(layout: &Layout, node: &mut Node) -> Result<(), Error> {
    normalize_at(layout, node, layout.schema(), &mut Vec::new())
}

fn normalize_at(layout: &Layout, node: &mut Node, schema: Schema<'_>, path: &mut Vec<String>) -> Result<(), Error> {
    if let Some(kind) = schema.classes() {
        return normalize_classes(layout, node, kind, schema.is_class_list(), &path.join("."));
    }
    if !schema.is_struct() {
        settle(node, schema);
        return Ok(());
    }
    let origin = node.origin.clone();
    let Some(entries) = node.as_map_mut() else {
        if node.is_null() && schema.accepts_null() {
            return Ok(());
        }
        return wrong(format!("{origin}: `{}` takes options by name, not {}", path.join("."), shown(&node.to_json())));
    };
    // Null for an option that is not nullable means that it is unset. Lightning's own files often contain this.
    entries.retain(|key, value| !is_inert(key, value));
    entries.retain(|key, value| !value.is_null() || schema.field(key).is_none_or(Schema::accepts_null_or_class));
    for (key, value) in entries {
        path.push(key.clone());
        match schema.field(key) {
            Some(field) => normalize_at(layout, value, field, path)?,
            None if layout.is_elsewhere(&path.iter().map(String::as_str).collect::<Vec<_>>()) => {}
            None => {
                let names: Vec<&str> = schema.fields().map(|(name, _)| name).collect();
                return Err(unknown_option(&value.origin, path, &names));
            }
        }
        path.pop();
    }
    Ok(())
}

/// Converts scalars that were read as another type to strings, if a string is expected.
fn settle(node: &mut Node, schema: Schema<'_>) {
    match &mut node.content {
        Content::Scalar(value) => {
            // What was not read from a text, such as hyper-parameters, may be a number.
            let number = value.as_number().map(|number| Rc::from(number.to_string()));
            if let Some(written) = node.written.take().or(number).filter(|written| schema.means_text(value, written)) {
                *value = Value::from(&*written);
            }
        }
        Content::List(items) => {
            let items = items.iter_mut().enumerate().filter_map(|(at, item)| Some((item, schema.item(at)?)));
            items.for_each(|(item, schema)| settle(item, schema));
        }
        Content::Map(entries) => {
            let entries = entries.iter_mut().filter_map(|(key, value)| {
                let schema = schema.field(key).or_else(|| schema.values())?;
                Some((value, schema))
            });
            entries.for_each(|(value, schema)| settle(value, schema));
        }
    }
}

/// Whether Lightning's own files contain this without effect.
fn is_inert(key: &str, value: &Node) -> bool {
    INERT.contains(&key) && (value.is_null() || matches!(value.content, Content::Scalar(Value::Bool(false))))
}

impl Schema<'_> {
    fn accepts_null_or_class(self) -> bool {
        self.accepts_null() || self.classes().is_some_and(|kind| kind != Kind::Strategy)
    }
}

fn is_class_of_strategies(name: &str) -> bool {
    name.ends_with("Strategy") && !Strategies::names().iter().any(|known| known == name)
}

/// A value in place of a class.
pub(super) fn plain_names(kind: Kind) -> Vec<String> {
    match kind {
        Kind::Strategy => Strategies::names(),
        Kind::Profiler => PROFILERS.map(str::to_owned).to_vec(),
        _ => Vec::new(),
    }
}

fn normalize_classes(layout: &Layout, node: &mut Node, kind: Kind, is_list: bool, path: &str) -> Result<(), Error> {
    match &mut node.content {
        Content::Scalar(Value::Null) => Ok(()),
        Content::Scalar(Value::Bool(_)) if kind == Kind::Logger => Ok(()),
        // Names of strategies are checked where all are known.
        Content::Scalar(Value::String(name)) if kind == Kind::Strategy && !is_class_of_strategies(name) => Ok(()),
        Content::Scalar(Value::String(name))
            if kind == Kind::Profiler && PROFILERS.contains(&&*name.to_lowercase()) =>
        {
            Ok(())
        }
        Content::List(items) if is_list => {
            items.iter_mut().try_for_each(|item| normalize_class(layout, item, kind, path))
        }
        _ if is_list => {
            normalize_class(layout, node, kind, path)?;
            let origin = node.origin.clone();
            let only = std::mem::replace(node, Node::new(Content::List(Vec::new()), &origin));
            node.content = Content::List(vec![only]);
            Ok(())
        }
        _ => normalize_class(layout, node, kind, path),
    }
}

fn normalize_class(layout: &Layout, node: &mut Node, kind: Kind, path: &str) -> Result<(), Error> {
    let origin = node.origin.clone();
    if let Some(name) = node.as_str() {
        let name = Node::scalar(name, &origin);
        *node = Node::map([("class_path".to_owned(), name)], &origin);
    }
    let Some(entries) = node.as_map_mut() else {
        let value = shown(&node.to_json());
        return wrong(format!(
            "{origin}: `{path}` takes the name of a class, or `class_path` and `init_args`, not {value}"
        ));
    };
    let extra: &[&str] = if kind == Kind::Scheduler { &SCHEDULER_KEYS } else { &[] };
    for (key, value) in entries.iter_mut() {
        if let Some(schema) = stepped_by().field(key).filter(|_| extra.contains(&key.as_str())) {
            settle(value, schema);
        }
        if !["class_path", "init_args"].contains(&key.as_str()) && !extra.contains(&key.as_str()) {
            let names: Vec<&str> = ["class_path", "init_args"].into_iter().chain(extra.iter().copied()).collect();
            return Err(unknown_option(&value.origin, &[path, key], &names));
        }
    }
    let Some(name) = entries.get("class_path").and_then(Node::as_str).map(super::tree::short_name) else {
        return wrong(format!("{origin}: `{path}` needs `class_path`, the name of a class"));
    };
    let options = entries.entry("init_args".to_owned()).or_insert_with(|| Node::map([], &origin));
    if options.is_null() {
        *options = Node::map([], &origin);
    }
    // Lightning's `ReduceLROnPlateau` has its monitor among its options.
    if kind == Kind::Scheduler
        && let Some(monitor) = options.as_map_mut().and_then(|options| options.shift_remove("monitor"))
    {
        entries.insert("monitor".to_owned(), monitor);
    }
    if layout.registry.is_elsewhere(kind, &name) {
        return Ok(());
    }
    let Some(class) = layout.registry.find(kind, &name) else {
        let origin = entries.get("class_path").map_or(&origin, |path| &path.origin);
        return Err(unknown_class(layout, origin, kind, &name));
    };
    entries.insert("class_path".to_owned(), Node::scalar(class.name.as_str(), &origin));
    let Some(options) = entries.get_mut("init_args").and_then(Node::as_map_mut) else { return Ok(()) };
    options.retain(|key, value| !is_inert(key, value) || class.schema().field(key).is_some());
    if kind == Kind::Strategy {
        let is_default = |key: &str, value: &Node| INERT_OF_STRATEGIES.contains(&(key, &value.to_json().to_string()));
        let is_null =
            |value: &Node, field: Option<Schema<'_>>| value.is_null() && !field.is_some_and(Schema::accepts_null);
        options.retain(|key, value| !is_default(key, value) && !is_null(value, class.schema().field(key)));
    }
    for (key, value) in options {
        match class.schema().field(key) {
            Some(field) => normalize_at(layout, value, field, &mut vec![class.name.clone(), key.clone()])?,
            None => {
                let names: Vec<&str> = class.schema().fields().map(|(name, _)| name).collect();
                return Err(unknown_option(&value.origin, &[&class.name, key], &names));
            }
        }
    }
    Ok(())
}

/// The error for an unknown option; `known` are its siblings.
pub(super) fn unknown_option<S: AsRef<str>>(origin: &Origin, path: &[S], known: &[&str]) -> Error {
    let path: Vec<&str> = path.iter().map(AsRef::as_ref).collect();
    let (last, parents) = path.split_last().map_or(("", &[][..]), |(last, parents)| (*last, parents));
    let full = |name: &str| parents.iter().copied().chain([name]).collect::<Vec<_>>().join(".");
    if let ["trainer", argument] = path[..]
        && let Some(hint) = removed::hint(Place::Argument, argument)
    {
        return Error::Config(format!("{origin}: `trainer.{argument}` no longer exists: {hint}"));
    }
    let advice = match nearest(last, known.iter().copied()) {
        Some(name) => format!("did you mean `{}`?", full(name)),
        None if parents.is_empty() => format!("there are {}", known.join(", ")),
        None => format!("`{}` has {}", parents.join("."), known.join(", ")),
    };
    Error::Config(format!("{origin}: there is no option `{}`; {advice}", path.join(".")))
}

pub(super) fn unknown_class(layout: &Layout, origin: &Origin, kind: Kind, name: &str) -> Error {
    if let Some(hint) = kind.removed_hint(name) {
        return Error::Config(format!("{origin}: {} `{name}` no longer exists: {hint}", kind.name()));
    }
    let by_name = plain_names(kind);
    let mut names = layout.registry.names(kind);
    names.extend(by_name.iter().map(String::as_str));
    let advice = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", names.join(", ")),
    };
    Error::Config(format!("{origin}: there is no {} `{name}`; {advice}", kind.name()))
}

/// The suggested name, if one is similar.
pub(super) fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = given.to_ascii_lowercase().replace('-', "_");
    let scored = known.into_iter().map(|name| (strsim::jaro_winkler(&lower, &name.to_ascii_lowercase()), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(score, _)| *score >= 0.8).map(|(_, name)| name)
}

/// The error for a value of the wrong type: `misfit` is serde's error about `node`, which is at `prefix`.
pub(super) fn misfit(node: &Node, schema: Schema<'_>, prefix: &str, misfit: &Misfit) -> Error {
    let path: Vec<&str> = misfit.path.iter().map(String::as_str).filter(|part| *part != "?").collect();
    let found = node.nearest(path.iter().copied());
    // The deepest option that is known by name, or all of it if it has no parts.
    let known = path.iter().scan(schema, |at, part| {
        let inner = at.field(part).or_else(|| at.items().filter(|_| part.parse::<usize>().is_ok()))?;
        *at = inner;
        Some(inner)
    });
    let field = known.last();
    let field = field.or_else(|| (path.is_empty() && !schema.is_struct()).then_some(schema));
    let name = std::iter::once(prefix).chain(path.iter().copied()).collect::<Vec<_>>().join(".");
    let value = shown(&found.to_json());
    let origin = &found.origin;
    let only_type =
        ["invalid type", "data did not match", "unknown variant", "invalid length", "invalid value: string"];
    let says_only_type = only_type.iter().any(|start| misfit.message.starts_with(start));
    let Some(field) = field else {
        return Error::Config(format!("{origin}: `{name}`: {}", misfit.message));
    };
    if says_only_type {
        let choices = field.choices();
        let meant = found.as_str().and_then(|text| nearest(text, choices.iter().map(String::as_str)));
        let advice = meant.map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
        return Error::Config(format!("{origin}: `{name}` takes {}, not {value}{advice}", field.type_text()));
    }
    match field.minimum().filter(|_| misfit.message.starts_with("invalid value: integer")) {
        Some(least) => Error::Config(format!("{origin}: `{name}` is {least} or more, not {value}")),
        None => Error::Config(format!("{origin}: `{name}` cannot be {value}: {}", misfit.message)),
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) if text.trim().is_empty() => "an empty text".into(),
        Value::String(text) => format!("the text `{text}`"),
        Value::Null => "null".into(),
        Value::Array(_) => format!("the list `{value}`"),
        Value::Object(_) => "a mapping".into(),
        other => format!("`{other}`"),
    }
}
