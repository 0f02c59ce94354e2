//! [`Node`]: a configuration as a tree that knows where each value came from.

use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::Spanned;

use super::schema::Schema;

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The options' own default.
    Default,
    /// A file, or the program's own defaults.
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

/// A value and where it was said.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub content: Content,
    pub origin: Origin,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Anything without parts.
    Scalar(Value),
    List(Vec<Node>),
    Map(IndexMap<String, Node>),
}

impl Node {
    pub(super) fn scalar(value: impl Into<Value>, origin: &Origin) -> Node {
        Node { content: Content::Scalar(value.into()), origin: origin.clone() }
    }

    pub(super) fn map(entries: impl IntoIterator<Item = (String, Node)>, origin: &Origin) -> Node {
        Node { content: Content::Map(entries.into_iter().collect()), origin: origin.clone() }
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
        Node { content, origin: origin.clone() }
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

    /// Lays `over` over this: options that it says take the place of these. Structs are merged, everything else is
    /// replaced; of a class the options are merged, unless it becomes another class.
    pub(super) fn merge(&mut self, over: Node, schema: Schema<'_>) {
        if schema.classes().is_some() && self.is_same_class(&over) {
            return self.merge_class(over);
        }
        let is_struct = schema.is_struct();
        match (&mut self.content, over.content) {
            (Content::Map(entries), Content::Map(more)) if is_struct => {
                for (key, node) in more {
                    match (entries.get_mut(&key), schema.field(&key)) {
                        (Some(held), Some(field)) => held.merge(node, field),
                        _ => drop(entries.insert(key, node)),
                    }
                }
            }
            (content, over_content) => {
                *content = over_content;
                self.origin = over.origin;
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

// Reading YAML --------------------------------------------------------------------------------------------------------

/// A node whose origin holds the line alone; [`Node::named`] adds the file.
impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        let Spanned { value: content, referenced, .. } = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Node { content, origin: Origin::File { name: "".into(), line: referenced.line() } })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, value: $type) -> Result<Content, E> {
            Ok(Content::Scalar(value.into()))
        })*
    };
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_str: &str, visit_string: String }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Content, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Content::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Content, A::Error> {
        let mut map = IndexMap::new();
        while let Some((key, node)) = entries.next_entry::<String, Node>()? {
            map.insert(key, node);
        }
        Ok(Content::Map(map))
    }
}

impl Node {
    /// The same, read from the file `name`.
    pub(super) fn named(mut self, file: &Rc<str>) -> Node {
        if let Origin::File { name, .. } = &mut self.origin {
            *name = file.clone();
        }
        self.content = match self.content {
            Content::List(items) => Content::List(items.into_iter().map(|item| item.named(file)).collect()),
            Content::Map(entries) => {
                Content::Map(entries.into_iter().map(|(key, node)| (key, node.named(file))).collect())
            }
            scalar => scalar,
        };
        self
    }

    /// The same, all of it from `origin`.
    pub(super) fn from(mut self, origin: &Origin) -> Node {
        self.origin = origin.clone();
        self.content = match self.content {
            Content::List(items) => Content::List(items.into_iter().map(|item| item.from(origin)).collect()),
            Content::Map(entries) => {
                Content::Map(entries.into_iter().map(|(key, node)| (key, node.from(origin))).collect())
            }
            scalar => scalar,
        };
        self
    }
}
