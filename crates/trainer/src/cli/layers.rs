//! Layering: defaults, the program's defaults, a checkpoint, the environment, files and arguments, each over the ones
//! before it.

use std::path::Path;
use std::rc::Rc;

use super::args::{Argument, RunRequest};
use super::check::{nearest, normalize, unknown_option, wrong};
use super::files::Files;
use super::kind::Kind;
use super::layout::{Layout, SCHEDULER_KEYS, Subcommand, stepped_by};
use super::schema::Schema;
use super::short_names;
use super::tree::{Content, Node, Origin};
use super::yaml;
use fulgurite_engine::Error;
use fulgurite_fabric::strategy::StrategyChoice;

/// Everything but the options' own defaults.
pub(super) struct Sources<'a> {
    /// The program's defaults, as YAML.
    pub program: Option<&'a str>,
    /// Hyper-parameters of a checkpoint, for the model.
    pub checkpoint: Option<Node>,
    /// Environment variables.
    pub env: &'a [(String, String)],
    /// The command line.
    pub request: &'a RunRequest,
    pub files: &'a Files,
}

/// The merged configuration of all sources.
pub(super) fn resolve(layout: &Layout, sources: Sources<'_>) -> Result<Node, Error> {
    let mut config = Config { layout, files: sources.files, root: layout.defaults() };
    if let Some(text) = sources.program {
        config.layer(yaml::read(text, "the program's defaults")?)?;
    }
    if let Some(hparams) = sources.checkpoint {
        let origin = hparams.origin.clone();
        config.layer(Node::map([("model".to_owned(), hparams)], &origin))?;
    }
    config.environment(sources.env, sources.request.subcommand)?;
    for argument in &sources.request.arguments {
        match argument {
            Argument::ProgramConfig(file) => config.program_file(Path::new(file), sources.request.subcommand)?,
            Argument::Config(file) => config.file(Path::new(file))?,
            Argument::Set { name, append, value } => {
                let origin = Origin::Arg(format!("--{name}").into());
                let long = match short_names::are_taken(sources.env) {
                    true => short_names::long(layout, &config.root, sources.request.subcommand, name)?,
                    false => None,
                };
                let path: Vec<&str> = long.as_ref().unwrap_or(name).split('.').collect();
                config.set(&path, *append, value.as_deref(), &origin)?;
            }
        }
    }
    Ok(config.root)
}

struct Config<'a> {
    layout: &'a Layout,
    files: &'a Files,
    root: Node,
}

impl Config<'_> {
    fn layer(&mut self, mut node: Node) -> Result<(), Error> {
        normalize(self.layout, &mut node)?;
        self.root.merge(node, self.layout.schema());
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<(), Error> {
        self.files.layers(path)?.into_iter().try_for_each(|layer| self.layer(layer))
    }

    /// A file with a section for each subcommand.
    fn program_file(&mut self, path: &Path, subcommand: Subcommand) -> Result<(), Error> {
        for mut layer in self.files.layers(path)? {
            let Some(sections) = layer.as_map_mut() else { continue };
            for (name, section) in sections.iter() {
                if Subcommand::from_name(name).is_none() {
                    return Err(Error::Config(format!(
                        "{}: a file before the subcommand has sections fit, validate, test, predict, tune and sweep, not `{name}`; \
                         give it after the subcommand, or put its content under `{}`",
                        section.origin,
                        subcommand.name()
                    )));
                }
            }
            if let Some(section) = sections.shift_remove(subcommand.name()) {
                self.layer(section)?;
            }
        }
        Ok(())
    }

    /// `PL_CONFIG`, then `PL_FIT__TRAINER__MAX_EPOCHS` and similar variables.
    fn environment(&mut self, env: &[(String, String)], subcommand: Subcommand) -> Result<(), Error> {
        let prefix = format!("PL_{}__", subcommand.name().to_uppercase());
        for name in ["PL_CONFIG".to_owned(), format!("{prefix}CONFIG")] {
            if let Some((_, file)) = env.iter().find(|(held, _)| *held == name) {
                if file.is_empty() {
                    return wrong(format!(
                        "environment variable {name} is empty; write the name of a file, or unset it"
                    ));
                }
                self.file(Path::new(file))?;
            }
        }
        let mut variables: Vec<_> =
            env.iter().filter_map(|(name, value)| Some((name, name.strip_prefix(&prefix)?, value))).collect();
        variables.sort();
        for (name, option, value) in variables {
            if option == "CONFIG" {
                continue;
            }
            let path = self.spelt(option);
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.set(&path, false, Some(value), &Origin::Env(name.as_str().into()))?;
        }
        Ok(())
    }

    /// The path of an option, from its name in capitals.
    fn spelt(&self, option: &str) -> Vec<String> {
        let mut schema = Some(self.layout.schema());
        let mut path: Vec<String> = Vec::new();
        for part in option.split("__") {
            let mut names: Vec<String> =
                schema.into_iter().flat_map(Schema::fields).map(|(name, _)| name.to_owned()).collect();
            if let Some(kind) = schema.and_then(Schema::classes) {
                let options = self.layout.registry.of(kind).flat_map(|class| class.schema().fields());
                names.extend(options.map(|(name, _)| name.to_owned()));
            }
            let own = names.into_iter().find(|name| name.eq_ignore_ascii_case(part));
            let own = own.unwrap_or_else(|| part.to_ascii_lowercase());
            if schema.is_some_and(|schema| schema.classes().is_none()) {
                schema = schema.and_then(|schema| schema.field(&own));
            }
            path.push(own);
        }
        path
    }

    /// One option.
    fn set(&mut self, path: &[&str], append: bool, value: Option<&str>, origin: &Origin) -> Result<(), Error> {
        let mut schema = self.layout.schema();
        for (index, part) in path.iter().enumerate() {
            let Some(field) = schema.field(part) else {
                if self.layout.is_elsewhere(path) {
                    return self.layer(nest(path, yaml::read_value(value.unwrap_or("true"), origin), origin));
                }
                return Err(self.unknown(origin, &path[..=index], schema));
            };
            schema = field;
            if let Some(kind) = schema.classes() {
                let (place, rest) = path.split_at(index + 1);
                return self.set_class(place, rest, kind, append, value, origin);
            }
        }
        if path.len() == 1 && schema.is_struct() {
            return self.set_group(path[0], value, origin);
        }
        let mut node = parse_value(schema, value, &path.join("."), origin)?;
        if append {
            let mut items = self.root.nearest(path.iter().copied()).as_list().map(<[Node]>::to_vec).unwrap_or_default();
            match node.content {
                Content::List(more) => items.extend(more),
                _ => items.push(node),
            }
            node = Node::new(Content::List(items), origin);
        }
        self.layer(nest(path, node, origin))
    }

    fn unknown(&self, origin: &Origin, path: &[&str], siblings: Schema<'_>) -> Error {
        let names: Vec<&str> = siblings.fields().map(|(name, _)| name).collect();
        let last = path.last().copied().unwrap_or_default();
        if path.len() == 1 && nearest(last, names.iter().copied()).is_none() {
            if let (Origin::Arg(_), Some(flag)) = (origin, nearest(last, ["config", "print_config"])) {
                return Error::Config(format!("{origin}: there is no option `{last}`; did you mean `--{flag}`?"));
            }
            // `--max_epochs` is meant to be `--trainer.max_epochs`.
            let inner =
                self.layout.groups().flat_map(|(group, schema)| schema.fields().map(move |(name, _)| (group, name)));
            let inner: Vec<_> = inner.collect();
            if let Some(name) = nearest(last, inner.iter().map(|(_, name)| *name))
                && let Some((group, name)) = inner.into_iter().find(|(_, held)| *held == name)
            {
                return Error::Config(format!("{origin}: there is no option `{last}`; did you mean `{group}.{name}`?"));
            }
        }
        unknown_option(origin, path, &names)
    }

    /// `--trainer t.yaml`, or `--trainer "{max_epochs: 3}"`.
    fn set_group(&mut self, group: &str, value: Option<&str>, origin: &Origin) -> Result<(), Error> {
        let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
            return wrong(format!("{origin} needs the name of a file with the options of `{group}`"));
        };
        let inline = yaml::read_value(value, origin);
        if inline.as_map().is_some() {
            return self.layer(nest(&[group], inline, origin));
        }
        for layer in self.files.layers(Path::new(value))? {
            let origin = layer.origin.clone();
            self.layer(nest(&[group], layer, &origin))?;
        }
        Ok(())
    }

    /// `--optimizer AdamW`, `--trainer.callbacks+=Timer`, `--optimizer.lr 0.1`, `--trainer.callbacks.monitor val_loss`.
    fn set_class(
        &mut self,
        place: &[&str],
        rest: &[&str],
        kind: Kind,
        append: bool,
        value: Option<&str>,
        origin: &Origin,
    ) -> Result<(), Error> {
        if rest.is_empty() {
            let Some(value) = value.filter(|value| !value.trim().is_empty()) else {
                return wrong(format!("{origin} needs the name of a class"));
            };
            let mut layer = nest(place, yaml::read_value(value, origin), origin);
            if !append {
                return self.layer(layer);
            }
            normalize(self.layout, &mut layer)?;
            let more = layer.nearest(place.iter().copied()).as_list().map(<[Node]>::to_vec).unwrap_or_default();
            let mut items =
                self.root.nearest(place.iter().copied()).as_list().map(<[Node]>::to_vec).unwrap_or_default();
            items.extend(more);
            return self.layer(nest(place, Node::new(Content::List(items), origin), origin));
        }
        if kind == Kind::Strategy {
            self.strategy_of_a_name(place, origin);
        }
        let (named, key) = self.class_option(place, rest, kind, origin)?;
        let Some(class) = self.class_at(place, named.as_deref()) else {
            let (what, place) = (kind.name(), place.join("."));
            let how = if matches!(kind, Kind::Callback | Kind::Logger | Kind::Plugin) { "+=" } else { " " };
            let which = named.unwrap_or_else(|| "CLASS".into());
            return wrong(format!("{origin} belongs to no {what}; name it before, with --{place}{how}{which}"));
        };
        let name = class.get("class_path").and_then(Node::as_str).unwrap_or_default().to_owned();
        if kind == Kind::Scheduler
            && SCHEDULER_KEYS.contains(&key)
            && let Some(field) = stepped_by().field(key)
        {
            let node = parse_value(field, value, &format!("{}.{key}", place.join(".")), origin)?;
            class.as_map_mut().map(|entries| entries.insert(key.to_owned(), node));
            return normalize(self.layout, &mut self.root);
        }
        let schema = self.layout.registry.find(kind, &name).map(|class| class.schema());
        let Some(field) = schema.and_then(|schema| schema.field(key)) else {
            let names: Vec<&str> = schema.into_iter().flat_map(Schema::fields).map(|(name, _)| name).collect();
            return Err(unknown_option(origin, &[&name, key], &names));
        };
        let node = parse_value(field, value, &format!("{}.{key}", place.join(".")), origin)?;
        let options = self.class_at(place, named.as_deref()).and_then(|class| class.as_map_mut()?.get_mut("init_args"));
        if let Some(options) = options.and_then(Node::as_map_mut) {
            options.insert(key.to_owned(), node);
        }
        normalize(self.layout, &mut self.root)
    }

    /// An option turns a name into a class, with the options that the name stands for.
    fn strategy_of_a_name(&mut self, place: &[&str], origin: &Origin) {
        let node = place.iter().try_fold(&mut self.root, |node, part| node.as_map_mut()?.get_mut(*part));
        let Some(node) = node else { return };
        let Some(choice) = node.as_str().map(|name| StrategyChoice::from(name).expand_alias()) else { return };
        if self.layout.registry.find(Kind::Strategy, choice.class_path()).is_none() {
            return;
        }
        let options = choice.options().iter().map(|(name, value)| (name.clone(), Node::from_json(value, origin)));
        let class = [
            ("class_path".to_owned(), Node::scalar(choice.class_path(), origin)),
            ("init_args".to_owned(), Node::map(options, origin)),
        ];
        *node = Node::map(class, origin);
    }

    /// The class at a place: of a list the one that is named, or the last.
    fn class_at(&mut self, place: &[&str], named: Option<&str>) -> Option<&mut Node> {
        let place = place.iter().try_fold(&mut self.root, |node, part| node.as_map_mut()?.get_mut(*part))?;
        let is_meant = |node: &Node| {
            let class = node.get("class_path").and_then(Node::as_str);
            class.is_some() && (named.is_none() || class == named)
        };
        if matches!(place.content, Content::Map(_)) {
            return is_meant(place).then_some(place);
        }
        match &mut place.content {
            Content::List(items) => items.iter_mut().rev().find(|item| is_meant(item)),
            _ => None,
        }
    }

    /// The class that an option belongs to, if given, and the name of the option.
    fn class_option<'p>(
        &self,
        place: &[&str],
        rest: &[&'p str],
        kind: Kind,
        origin: &Origin,
    ) -> Result<(Option<String>, &'p str), Error> {
        let mut rest = rest;
        let mut named = None;
        if let [name, more @ ..] = rest
            && !more.is_empty()
            && let Some(class) = self.layout.registry.find(kind, name)
        {
            (named, rest) = (Some(class.name.clone()), more);
        }
        if let ["init_args", more @ ..] = rest {
            rest = more;
        }
        match rest {
            [key] => Ok((named, key)),
            _ => wrong(format!("{origin}: an option of a class is named as in `{}.CLASS.OPTION`", place.join("."))),
        }
    }
}

/// A value for an option, parsed according to the option's type.
fn parse_value(schema: Schema<'_>, value: Option<&str>, name: &str, origin: &Origin) -> Result<Node, Error> {
    match value {
        None if schema.is_bool() => Ok(Node::scalar(true, origin)),
        None => wrong(format!("{origin} needs a value: `{name}` takes {}", schema.type_text())),
        Some(text) if schema.is_text() && !(text == "null" && schema.accepts_null()) => Ok(Node::scalar(text, origin)),
        Some(text) => Ok(yaml::read_value(text, origin)),
    }
}

/// A mapping with only `node` at `path`.
fn nest(path: &[&str], node: Node, origin: &Origin) -> Node {
    path.iter().rev().fold(node, |node, part| Node::map([((*part).to_owned(), node)], origin))
}

/// Copies the source of each link to its target, which cannot be set otherwise.
pub(super) fn follow_links(root: &mut Node, links: &[(String, String)]) -> Result<(), Error> {
    for (source, target) in links {
        let value = root.nearest(source.split('.')).clone();
        let held = root.nearest(target.split('.'));
        if held.origin != Origin::Default && held.to_json() != value.to_json() {
            return wrong(format!("{}: `{target}` follows `{source}`; set that instead", held.origin));
        }
        let mut node = &mut *root;
        for part in target.split('.') {
            match node.as_map_mut() {
                Some(entries) => {
                    let origin: Rc<str> = source.as_str().into();
                    node = entries.entry(part.to_owned()).or_insert_with(|| Node::map([], &Origin::Arg(origin)));
                }
                None => return wrong(format!("the program links `{source}` to `{target}`, which is not an option")),
            }
        }
        *node = value;
    }
    Ok(())
}
