//! [`Node`]: a configuration as a tree with the origin of each value.

use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;
use serde_json::Value;

use super::schema::Schema;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The options' own default.
    Default,
    /// A file, or the program's defaults.
    File { name: Rc<str>, line: u64 },
    /// An environment variable.
    Env(Rc<str>),
    /// The command line.
    Arg(Rc<str>),
    /// The hyper-parameters of a checkpoint.
    Checkpoint(Rc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("defaults"),
            Origin::File { name, line } => write!(f, "{name}:{line}"),
            Origin::Env(name) => write!(f, "environment variable {name}"),
            Origin::Arg(name) => f.write_str(name),
            Origin::Checkpoint(path) => write!(f, "hyper-parameters of {path}"),
        }
    }
}

/// A value and its origin.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub content: Content,
    pub origin: Origin,
    /// How a scalar is written that is read as something else than a text, such as `1.10` or `yes`: what it means where
    /// its option is a text.
    pub written: Option<Rc<str>>,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// A scalar.
    Scalar(Value),
    List(Vec<Node>),
    Map(IndexMap<String, Node>),
}

impl Node {
    pub(super) fn new(content: Content, origin: &Origin) -> Node {
        Node { content, origin: origin.clone(), written: None }
    }

    pub(super) fn scalar(value: impl Into<Value>, origin: &Origin) -> Node {
        Node::new(Content::Scalar(value.into()), origin)
    }

    pub(super) fn map(entries: impl IntoIterator<Item = (String, Node)>, origin: &Origin) -> Node {
        Node::new(Content::Map(entries.into_iter().collect()), origin)
    }

    /// A JSON value, all of it from `origin`.
    pub(super) fn from_json(value: &Value, origin: &Origin) -> Node {
        let content = match value {
            Value::Array(items) => Content::List(items.iter().map(|item| Node::from_json(item, origin)).collect()),
            Value::Object(entries) => {
                Content::Map(entries.iter().map(|(key, value)| (key.clone(), Node::from_json(value, origin))).collect())
            }
            scalar => Content::Scalar(scalar.clone()),
        };
        Node::new(content, origin)
    }

    pub(super) fn to_json(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Node::to_json).collect()),
            Content::Map(entries) => {
                Value::Object(entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect())
            }
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(&self.content, Content::Scalar(Value::Null))
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Content::Scalar(Value::String(text)) = &self.content { Some(text) } else { None }
    }

    pub(super) fn as_map(&self) -> Option<&IndexMap<String, Node>> {
        if let Content::Map(entries) = &self.content { Some(entries) } else { None }
    }

    pub(super) fn as_map_mut(&mut self) -> Option<&mut IndexMap<String, Node>> {
        if let Content::Map(entries) = &mut self.content { Some(entries) } else { None }
    }

    fn into_map(self) -> IndexMap<String, Node> {
        if let Content::Map(entries) = self.content { entries } else { IndexMap::new() }
    }

    pub(super) fn as_list(&self) -> Option<&[Node]> {
        if let Content::List(items) = &self.content { Some(items) } else { None }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.as_map()?.get(key)
    }

    /// The node at a path, or the deepest one on the way to it.
    pub(super) fn nearest<'a>(&self, path: impl IntoIterator<Item = &'a str>) -> &Node {
        let mut node = self;
        for part in path {
            let next = match &node.content {
                Content::Map(entries) => entries.get(part),
                Content::List(items) => part.parse().ok().and_then(|index: usize| items.get(index)),
                Content::Scalar(_) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// Merges `over` into this node: its options override these. Structs are merged, everything else is replaced; the
    /// options of a class are merged, unless the class changes.
    pub(super) fn merge(&mut self, over: Node, schema: Schema<'_>) {
        if schema.classes().is_some() && self.is_same_class(&over) {
            return self.merge_class(over);
        }
        let (Content::Map(entries), true, Content::Map(_)) = (&mut self.content, schema.is_struct(), &over.content)
        else {
            *self = over;
            return;
        };
        for (key, node) in over.into_map() {
            match (entries.get_mut(&key), schema.field(&key)) {
                (Some(held), Some(field)) => held.merge(node, field),
                _ => drop(entries.insert(key, node)),
            }
        }
    }

    fn is_same_class(&self, other: &Node) -> bool {
        let class = |node: &Node| node.get("class_path").and_then(|name| name.as_str().map(short_name));
        class(self).is_some() && class(self) == class(other)
    }

    fn merge_class(&mut self, over: Node) {
        let (Content::Map(entries), Content::Map(more)) = (&mut self.content, over.content) else { return };
        for (key, node) in more {
            match (entries.get_mut(&key).map(|held| &mut held.content), node) {
                (Some(Content::Map(held)), Node { content: Content::Map(options), .. }) => held.extend(options),
                (_, node) => drop(entries.insert(key, node)),
            }
        }
    }
}

/// `EarlyStopping` of `lightning.pytorch.callbacks.EarlyStopping`.
pub(super) fn short_name(class_path: &str) -> String {
    class_path.rsplit('.').next().unwrap_or(class_path).to_owned()
}
