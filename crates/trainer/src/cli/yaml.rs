//! YAML: reading it with its lines, and writing it with comments.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde_json::Value;

use super::schema::Schema;
use super::tree::{Content, Node, Origin};
use crate::error::Error;

/// Reads a text. `name` is what messages call it.
pub(super) fn read(text: &str, name: &str) -> Result<Node, Error> {
    let name: Rc<str> = name.into();
    if text.trim().is_empty() {
        return Ok(Node::map([], &Origin::File { name, line: 1 }));
    }
    let node: Node = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.without_snippet().to_string();
        let message = message.split(" at line ").next().unwrap_or(&message).trim_end_matches([':', ',']).to_owned();
        Error::Config(format!("{name}:{line}: this is not YAML: {message}"))
    })?;
    Ok(node.named(&name))
}

/// A value on the command line or in a variable: YAML, or text if it is none.
pub(super) fn read_value(text: &str, origin: &Origin) -> Node {
    match serde_saphyr::from_str::<Node>(text) {
        Ok(node) => node.from(origin),
        Err(_) => Node::scalar(text, origin),
    }
}

/// Reads a file and the files it includes.
pub(super) fn read_file(path: &Path) -> Result<Vec<Node>, Error> {
    let mut layers = Vec::new();
    include(path, &mut Vec::new(), &mut layers)?;
    Ok(layers)
}

/// What a file includes comes before it, so that its own values win.
fn include(path: &Path, chain: &mut Vec<PathBuf>, layers: &mut Vec<Node>) -> Result<(), Error> {
    let wrong = |message: String| Error::Config(message);
    let shown = path.display().to_string();
    let real = path
        .canonicalize()
        .map_err(|error| wrong(format!("the configuration file {shown} cannot be read: {}", io_reason(&error))))?;
    chain.push(real.clone());
    if chain[..chain.len() - 1].contains(&real) {
        let names = chain.iter().map(|path| path.file_name().unwrap_or_default().display().to_string());
        return Err(wrong(format!(
            "these configuration files include each other: {}; leave one `include` out",
            names.collect::<Vec<_>>().join(" -> ")
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("the configuration file {shown} cannot be read: {}", io_reason(&error))))?;
    let mut node = read(&text, &shown)?;
    let origin = node.origin.clone();
    let Some(entries) = node.as_map_mut() else {
        return Err(wrong(format!("{origin}: a configuration file is a mapping, such as `trainer:` and its options")));
    };
    if let Some(included) = entries.shift_remove("include") {
        let files = match &included.content {
            Content::List(items) => items.iter().collect(),
            _ => vec![&included],
        };
        for file in files {
            let Some(name) = file.as_str() else {
                return Err(wrong(format!("{}: `include` names files; write one, or a list of them", file.origin)));
            };
            include(&path.parent().unwrap_or(Path::new("")).join(name), chain, layers)?;
        }
    }
    chain.pop();
    layers.push(node);
    Ok(())
}

fn io_reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::NotFound => "there is no such file".into(),
        _ => error.to_string(),
    }
}

// Writing -------------------------------------------------------------------------------------------------------------

/// A mapping as YAML; with a schema, each option after a comment that says what it is.
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
    if is_plain(text) { text.to_owned() } else { Value::from(text).to_string() }
}

/// Whether a text can stand without quotes.
pub(super) fn is_plain(text: &str) -> bool {
    let special = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '/' || first == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-./".contains(c))
        && !special.contains(&text.to_ascii_lowercase().as_str())
        // `16-mixed` starts with a digit and is a text all the same.
        || text.starts_with(|first: char| first.is_ascii_digit())
            && text.contains(|c: char| "-_".contains(c))
            && text.contains(|c: char| c.is_ascii_alphabetic() && !"eExXoO".contains(c))
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c))
}

fn push_indent(out: &mut String, width: usize) {
    out.extend(std::iter::repeat_n(' ', width));
}
