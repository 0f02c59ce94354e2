//! YAML: reading with line numbers, and writing with comments.

use std::fmt;
use std::rc::Rc;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_saphyr::options::NonFiniteFloatPolicy;
use serde_saphyr::{Location, Spanned};

use super::plain::is_plain;
use super::schema::Schema;
use super::tree::{Content, Node, Origin};
use fulgurite_engine::Error;

/// The maximum number of values repeated by aliases: a few lines could expand to billions.
const MAX_REPEATED: usize = 100_000;

/// Parses a text. `name` is used in messages.
pub(super) fn read(text: &str, name: &str) -> Result<Node, Error> {
    let name: Rc<str> = name.into();
    if text.trim().is_empty() {
        return Ok(Node::map([], &Origin::File { name, line: 1 }));
    }
    let parsed = parse(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).trim_end_matches([':', ',']);
        // What follows is advice to a program that uses the parser.
        let message = match message.split_once(", set DuplicateKeyPolicy") {
            Some((duplicate, _)) => format!("{duplicate}; leave one of the two out"),
            None => message.to_owned(),
        };
        Error::Config(format!("{name}:{line}: this is not YAML: {message}"))
    })?;
    Ok(parsed.node(text, &|line| Origin::File { name: name.clone(), line }))
}

/// Parses a value from the command line or a variable: YAML, or a string if it is not valid YAML. An empty text is not
/// null.
pub(super) fn read_value(text: &str, origin: &Origin) -> Node {
    let parsed = parse(text).map(|parsed| parsed.node(text, &|_| origin.clone())).ok();
    let says_null = ["null", "Null", "NULL", "~"].contains(&text.trim());
    parsed.filter(|node| says_null || !node.is_null()).unwrap_or_else(|| Node::scalar(text, origin))
}

fn parse(text: &str) -> Result<Parsed, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_REPEATED },
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
    };
    serde_saphyr::from_str_with_options(text, options)
}

// Reading -------------------------------------------------------------------------------------------------------------

/// A value, and its location in the text.
struct Parsed(Spanned<ParsedContent>);

enum ParsedContent {
    Scalar(Value),
    /// `.inf` and its like, which JSON does not have: a text.
    NotFinite,
    List(Vec<Parsed>),
    Map(IndexMap<String, Parsed>),
}

impl Parsed {
    /// `origin` creates one from a line number.
    fn node(self, text: &str, origin: &dyn Fn(u64) -> Origin) -> Node {
        let Spanned { value, referenced, defined } = self.0;
        let mut written = None;
        let content = match value {
            ParsedContent::Scalar(scalar) => {
                written = source(text, defined).filter(|_| !scalar.is_string());
                Content::Scalar(scalar)
            }
            ParsedContent::NotFinite => Content::Scalar(source(text, defined).as_deref().into()),
            ParsedContent::List(items) => {
                Content::List(items.into_iter().map(|item| item.node(text, origin)).collect())
            }
            ParsedContent::Map(entries) => {
                Content::Map(entries.into_iter().map(|(key, value)| (key, value.node(text, origin))).collect())
            }
        };
        Node { written, ..Node::new(content, &origin(referenced.line())) }
    }
}

/// The part of the text that a scalar was read from.
fn source(text: &str, location: Location) -> Option<Rc<str>> {
    let span = location.span();
    let start = usize::try_from(span.byte_offset()?).ok()?;
    let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
    text.get(start..end).map(|part| part.trim().into())
}

impl<'de> Deserialize<'de> for Parsed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed, D::Error> {
        Spanned::deserialize(deserializer).map(Parsed)
    }
}

impl<'de> Deserialize<'de> for ParsedContent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ParsedContent, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

macro_rules! scalars {
    ($($visit:ident: $type:ty),*) => {
        $(fn $visit<E>(self, value: $type) -> Result<ParsedContent, E> {
            Ok(ParsedContent::Scalar(value.into()))
        })*
    };
}

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = ParsedContent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    scalars! { visit_bool: bool, visit_i64: i64, visit_u64: u64, visit_str: &str, visit_string: String }

    fn visit_f64<E>(self, value: f64) -> Result<ParsedContent, E> {
        Ok(if value.is_finite() { ParsedContent::Scalar(value.into()) } else { ParsedContent::NotFinite })
    }

    fn visit_unit<E>(self) -> Result<ParsedContent, E> {
        Ok(ParsedContent::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<ParsedContent, E> {
        Ok(ParsedContent::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<ParsedContent, D::Error> {
        ParsedContent::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<ParsedContent, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(ParsedContent::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<ParsedContent, A::Error> {
        let mut map = IndexMap::new();
        while let Some((key, value)) = entries.next_entry::<String, Parsed>()? {
            map.insert(key, value);
        }
        Ok(ParsedContent::Map(map))
    }
}

// Writing -------------------------------------------------------------------------------------------------------------

/// A mapping as YAML; with a schema, each option preceded by a comment with its documentation.
pub(super) fn write(value: &Value, comments: Option<Schema<'_>>) -> String {
    let mut out = String::new();
    write_entries(&mut out, value, comments, 0);
    out
}

fn write_entries(out: &mut String, value: &Value, schema: Option<Schema<'_>>, indent: usize) {
    let Value::Object(entries) = value else { return };
    for (key, value) in entries {
        let field = schema.and_then(|schema| schema.field(key));
        if let Some(field) = field {
            write_comment(out, field, indent);
        }
        push_indent(out, indent);
        out.push_str(&text(key));
        out.push(':');
        write_after_key(out, value, field, indent);
    }
}

fn write_comment(out: &mut String, field: Schema<'_>, indent: usize) {
    let doc = field.doc();
    let facts = if field.is_struct() { String::new() } else { format!(" ({})", field.type_text()) };
    if !doc.is_empty() || !facts.is_empty() {
        push_indent(out, indent);
        out.push_str(format!("# {doc}{facts}").trim_end());
        out.push('\n');
    }
}

fn write_after_key(out: &mut String, value: &Value, schema: Option<Schema<'_>>, indent: usize) {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            out.push('\n');
            write_entries(out, value, schema, indent + 2);
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            out.push('\n');
            for item in items {
                push_indent(out, indent);
                out.push('-');
                write_item(out, item, indent);
            }
        }
        other => {
            out.push(' ');
            out.push_str(&inline(other));
            out.push('\n');
        }
    }
}

/// An item of a list, its first entry on the line of the dash.
fn write_item(out: &mut String, item: &Value, indent: usize) {
    if item.as_object().is_none_or(serde_json::Map::is_empty) {
        out.push(' ');
        out.push_str(&inline(item));
        out.push('\n');
        return;
    }
    let mut lines = String::new();
    write_entries(&mut lines, item, None, indent + 2);
    out.push_str(&lines[indent + 1..]);
}

/// A value in one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Null => "null".into(),
        Value::Number(number) => {
            let number = number.to_string();
            // A float of YAML 1.1 has a point.
            if number.contains('e') && !number.contains('.') { number.replace('e', ".0e") } else { number }
        }
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", text(key), inline(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::Bool(on) => on.to_string(),
    }
}

fn text(text: &str) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    // JSON leaves some characters as they are that YAML does not print, or takes for the end of a line.
    let mut quoted = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            // Controls of the direction of text, which are not printed as they are.
            | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                quoted.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => quoted.push(c),
        }
    }
    quoted
}

fn push_indent(out: &mut String, width: usize) {
    out.extend(std::iter::repeat_n(' ', width));
}
