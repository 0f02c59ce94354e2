//! [`Opaque`]: an object that is not plain data, within a tree of plain data.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// An object that is not plain data, such as one of another language, within a tree of plain data. Hyper-parameters,
/// predictions and the outputs of steps may contain it. Loggers show the name of its type, and it cannot be written to
/// a file. Cloning it clones the handle; it is equal only to itself.
///
/// ```
/// use fulgurite_torch::{Dict, Opaque};
///
/// struct Tokenizer(usize);
/// let hparams = Dict::new().with("tokenizer", Opaque::new(Tokenizer(8)).named("transformers.Tokenizer"));
/// let tokenizer = hparams.get("tokenizer").and_then(|value| value.as_opaque()).unwrap();
/// assert_eq!(tokenizer.type_name(), "transformers.Tokenizer");
/// assert_eq!(tokenizer.downcast_ref::<Tokenizer>().map(|tokenizer| tokenizer.0), Some(8));
/// ```
#[derive(Clone)]
pub struct Opaque {
    type_name: Arc<str>,
    object: Arc<dyn Any + Send + Sync>,
}

impl Opaque {
    /// Wraps an object, under the name of its Rust type.
    pub fn new<T: Any + Send + Sync>(object: T) -> Opaque {
        Opaque { type_name: crate::short_type_name::<T>().into(), object: Arc::new(object) }
    }

    /// Sets another name for its type, such as that of a class of another language.
    #[must_use]
    pub fn named(self, type_name: impl Into<Arc<str>>) -> Opaque {
        Opaque { type_name: type_name.into(), ..self }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        &self.type_name
    }

    /// The object, if it is of this type.
    pub fn downcast_ref<T: Any>(&self) -> Option<&T> {
        self.object.downcast_ref()
    }
}

impl fmt::Debug for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Opaque({})", self.type_name)
    }
}

impl PartialEq for Opaque {
    fn eq(&self, other: &Opaque) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.object), Arc::as_ptr(&other.object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Value;
    use crate::{Dict, serialization};

    #[test]
    fn an_object_equals_itself_alone_and_is_no_json() {
        let object = Opaque::new(String::from("text"));
        assert_eq!(Value::from(object.clone()), Value::from(object.clone()));
        assert_ne!(Value::from(object.clone()), Value::from(Opaque::new(String::from("text"))));
        assert_eq!(object.downcast_ref::<String>().map(String::as_str), Some("text"));
        assert!(object.downcast_ref::<i64>().is_none());
        assert_eq!(Value::from(object).to_json(), None);
    }

    #[test]
    fn an_object_cannot_be_written_and_the_error_says_where_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.ckpt");
        let hparams = Dict::new().with("lr", 0.1).with("tokenizers", vec![Opaque::new(3u8).named("Tokenizer")]);
        let error = serialization::save(&path, &Dict::new().with("hyper_parameters", hparams).into()).unwrap_err();
        expect_test::expect![
            "`hyper_parameters.tokenizers.0` cannot be written to a checkpoint: it is an object of type Tokenizer, and a file holds plain data; take it out in `on_save_checkpoint`, or put what it is made of in its place"
        ].assert_eq(&error.to_string());
        assert!(!path.exists());
    }
}
