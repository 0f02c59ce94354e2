//! [`Schema`]: the type, default and documentation of an option, from its JSON schema.

use serde_json::{Map, Value, json};

use super::kind::Kind;

pub(super) use fulgurite_fabric::strategy::options_schema;

/// An option for a class, or for a list of classes.
pub(super) fn class_slot(kind: Kind, is_list: bool, default: Value, description: &str) -> Value {
    json!({ "x-classes": kind.name(), "x-list": is_list, "default": default, "description": description })
}

/// A view of a JSON schema.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema<'a>(pub &'a Value);

impl<'a> Schema<'a> {
    /// The kind of classes expected here, if any.
    pub(super) fn classes(self) -> Option<Kind> {
        Kind::from_name(self.0.get("x-classes")?.as_str()?)
    }

    /// Whether several classes are allowed here.
    pub(super) fn is_class_list(self) -> bool {
        self.0.get("x-list") == Some(&Value::Bool(true))
    }

    fn variants(self) -> impl Iterator<Item = Schema<'a>> {
        let lists = ["anyOf", "oneOf"].into_iter().filter_map(move |key| self.0.get(key)?.as_array());
        lists.flatten().map(Schema)
    }

    /// The options of a struct, also of one that may be null.
    fn properties(self) -> Option<&'a Map<String, Value>> {
        let own = self.0.get("properties").and_then(Value::as_object);
        own.or_else(|| {
            let mut structs = self.variants().filter(|variant| !variant.is_null());
            match (structs.next(), structs.next()) {
                (Some(only), None) => only.properties(),
                _ => None,
            }
        })
    }

    pub(super) fn is_struct(self) -> bool {
        self.properties().is_some()
    }

    pub(super) fn fields(self) -> impl Iterator<Item = (&'a str, Schema<'a>)> {
        self.properties().into_iter().flatten().map(|(name, field)| (name.as_str(), Schema(field)))
    }

    pub(super) fn field(self, name: &str) -> Option<Schema<'a>> {
        self.properties()?.get(name).map(Schema)
    }

    /// The schema of the items of a list, by itself or among variants.
    pub(super) fn items(self) -> Option<Schema<'a>> {
        self.0.get("items").map(Schema).or_else(|| self.variants().find_map(Schema::items))
    }

    /// The schema of an item of a list, or of a tuple.
    pub(super) fn item(self, at: usize) -> Option<Schema<'a>> {
        let tuple = self.0.get("prefixItems").and_then(Value::as_array).and_then(|items| items.get(at)).map(Schema);
        tuple.or_else(|| self.0.get("items").map(Schema)).or_else(|| self.variants().find_map(|list| list.item(at)))
    }

    /// The schema of the values of a map with any keys.
    pub(super) fn values(self) -> Option<Schema<'a>> {
        self.0.get("additionalProperties").map(Schema).or_else(|| self.variants().find_map(Schema::values))
    }

    /// Whether a scalar that is parsed as `value` is meant as the string that it is `written` as: a string or this
    /// choice is expected, and nothing of the value's type.
    pub(super) fn means_text(self, value: &Value, written: &str) -> bool {
        !self.takes(value) && (self.takes_any_text() || self.choices().iter().any(|choice| choice == written))
    }

    fn takes(self, value: &Value) -> bool {
        let names = self.type_names();
        let is_taken = match value {
            Value::Bool(_) => names.contains(&"boolean"),
            Value::Number(number) => names.contains(&"number") || names.contains(&"integer") && !number.is_f64(),
            _ => true,
        };
        is_taken || self.variants().any(|variant| variant.takes(value))
    }

    fn takes_any_text(self) -> bool {
        let is_free = self.0.get("enum").is_none() && self.0.get("const").is_none();
        is_free && self.type_names().contains(&"string") || self.variants().any(Schema::takes_any_text)
    }

    /// The smallest number it can be.
    pub(super) fn minimum(self) -> Option<&'a Value> {
        self.0.get("minimum")
    }

    pub(super) fn default(self) -> Option<&'a Value> {
        self.0.get("default")
    }

    /// The documentation's first paragraph, in one line.
    pub(super) fn doc(self) -> String {
        let text = self.0.get("description").and_then(Value::as_str).unwrap_or_default();
        let paragraph = text.split("\n\n").next().unwrap_or_default();
        without_links(&paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// The types in `type`.
    fn type_names(self) -> Vec<&'a str> {
        match self.0.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn is_null(self) -> bool {
        self.type_names() == ["null"]
    }

    pub(super) fn accepts_null(self) -> bool {
        self.type_names().contains(&"null") || self.variants().any(Schema::accepts_null)
    }

    pub(super) fn is_bool(self) -> bool {
        self.type_names().contains(&"boolean") || self.variants().any(Schema::is_bool)
    }

    /// Whether it is a string, or null.
    pub(super) fn is_text(self) -> bool {
        let names = self.type_names();
        let is_text = names.contains(&"string") && names.iter().all(|name| ["string", "null"].contains(name));
        is_text && self.0.get("enum").is_none() || {
            let mut variants = self.variants().filter(|variant| !variant.is_null()).peekable();
            variants.peek().is_some() && variants.all(Schema::is_text)
        }
    }

    /// The choices, if it has a closed list of strings.
    pub(super) fn choices(self) -> Vec<String> {
        let mut choices = Vec::new();
        if let Some(Value::String(only)) = self.0.get("const") {
            choices.push(only.clone());
        }
        if let Some(Value::Array(all)) = self.0.get("enum") {
            choices.extend(all.iter().filter_map(Value::as_str).map(String::from));
        }
        choices.extend(self.variants().flat_map(Schema::choices));
        choices
    }

    /// The type in few words, such as `int|null` or `min|max`.
    pub(super) fn type_text(self) -> String {
        self.type_words().join("|")
    }

    fn type_words(self) -> Vec<String> {
        if let Some(kind) = self.classes() {
            return vec![if self.is_class_list() { format!("list of {}", kind.plural()) } else { kind.name().into() }];
        }
        let mut words = Vec::new();
        if let Some(Value::Array(values)) = self.0.get("enum") {
            words.extend(values.iter().map(short));
        } else if let Some(value) = self.0.get("const") {
            words.push(short(value));
        } else {
            words.extend(self.type_names().into_iter().map(|name| match name {
                "integer" => "int".into(),
                "number" => "float".into(),
                "boolean" => "bool".into(),
                "string" => "str".into(),
                "array" => self.list_text(),
                "object" => "mapping".into(),
                other => other.to_owned(),
            }));
        }
        for variant in self.variants() {
            words.extend(variant.type_words());
        }
        let mut seen = std::collections::HashSet::new();
        words.retain(|word| seen.insert(word.clone()));
        // Null last, regardless of the order of the schema.
        words.sort_by_key(|word| word == "null");
        words
    }

    fn list_text(self) -> String {
        if let Some(Value::Array(items)) = self.0.get("prefixItems") {
            let items: Vec<String> = items.iter().map(|item| Schema(item).type_text()).collect();
            return format!("[{}]", items.join(", "));
        }
        match self.0.get("items") {
            Some(items) => format!("list of {}", Schema(items).type_text()),
            None => "list".into(),
        }
    }
}

/// A value as it is written in one line.
pub(super) fn short(value: &Value) -> String {
    match value {
        Value::String(text) if super::plain::is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

/// `[text](link)` and `[text]` become `text`.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("[`") {
        let Some((name, tail)) = after.split_once("`]") else { break };
        out.push_str(before);
        out.push('`');
        out.push_str(name);
        out.push('`');
        rest = match tail.strip_prefix('(').and_then(|link| link.split_once(')')) {
            Some((_, tail)) => tail,
            None => tail,
        };
    }
    out + rest
}
