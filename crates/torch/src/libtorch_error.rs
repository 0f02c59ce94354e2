//! [`LibtorchError`]: what libtorch says of a failed operation, apart from its C++ frames.

use std::error::Error;
use std::fmt;

use crate::tch::TchError;

/// The variable with which PyTorch shows C++ frames.
const SHOW_FRAMES: &str = "TORCH_SHOW_CPP_STACKTRACES";
/// What libtorch's exceptions have between the message and the frames.
const FRAMES: &str = "Exception raised from ";
/// What begins, after the sentence on an operation that a device does not have, a list of all that have it.
const BACKENDS: &str = "This could be because the operator doesn't exist for this backend";
/// What `tch` puts before a message.
const OF_TCH: &str = "Internal torch error: ";
/// What `Result::unwrap` puts before the error.
const OF_UNWRAP: &str = "called `Result::unwrap()` on an `Err` value: ";

/// An exception of libtorch: the operation, and its message. The C++ functions that it came through are shown where the
/// environment variable `TORCH_SHOW_CPP_STACKTRACES` is 1, as in PyTorch.
///
/// ```
/// use fulgurite_torch::TorchError;
/// use fulgurite_torch::tch::{Device, Kind, Tensor};
///
/// let [a, b] = [[4, 3], [5, 2]].map(|shape| Tensor::ones(shape, (Kind::Float, Device::Cpu)));
/// let error = TorchError::from(a.f_matmul(&b).unwrap_err());
/// assert_eq!(error.to_string(), "matmul: mat1 and mat2 shapes cannot be multiplied (4x3 and 5x2)");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct LibtorchError(Box<Parts>);

/// In a box, as every result of this workspace has room for its error.
#[derive(Clone, PartialEq, Eq)]
struct Parts {
    message: String,
    operation: Option<String>,
    about: Option<String>,
    frames: Option<String>,
}

impl LibtorchError {
    /// Takes apart what an exception's `what()` says, also as `tch` and a panic quote it.
    pub fn parse(text: &str) -> LibtorchError {
        let escaped = format!("\\n{FRAMES}");
        let (said, frames) = match (text.find(&format!("\n{FRAMES}")), text.find(&escaped)) {
            (Some(at), _) => (text[..at].to_owned(), Some(text[at + 1..].trim_end().to_owned())),
            (None, Some(at)) => (unescaped(&text[..at]), Some(unescaped(text[at + 2..].trim_end_matches("\")")))),
            (None, None) => (text.to_owned(), None),
        };
        let message = said.replace(OF_UNWRAP, "").replace("Torch(\"", "").replace(OF_TCH, "");
        let operation = frames.as_deref().and_then(operation);
        let (message, frames) = match message.find(BACKENDS) {
            Some(at) => (&message[..at], Some(format!("{}\n{}", &message[at..], frames.unwrap_or_default()))),
            None => (message.as_str(), frames),
        };
        LibtorchError(Box::new(Parts { message: message.trim_end().to_owned(), operation, about: None, frames }))
    }

    /// Adds what the message is about, such as the parameter of a layer.
    #[must_use]
    pub fn about(mut self, what: &str) -> LibtorchError {
        self.0.about = Some(what.to_owned());
        self
    }

    /// The message of libtorch.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The operation that the program called, such as `linear`, if libtorch's frames name it.
    pub fn operation(&self) -> Option<&str> {
        self.0.operation.as_deref()
    }

    /// The C++ functions that the exception came through.
    pub fn frames(&self) -> Option<&str> {
        self.0.frames.as_deref()
    }
}

impl From<&TchError> for LibtorchError {
    fn from(error: &TchError) -> LibtorchError {
        LibtorchError::parse(&error.to_string())
    }
}

impl fmt::Display for LibtorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Some messages begin with it.
        if let Some(operation) = self.operation().filter(|operation| !self.0.message.contains(operation)) {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(about) = &self.0.about {
            write!(f, "; {about}")?;
        }
        match &self.0.frames {
            Some(frames) if shows_frames() => write!(f, "\n{frames}"),
            _ => Ok(()),
        }
    }
}

/// As it is displayed: what `main` returns is shown in this form.
impl fmt::Debug for LibtorchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error for LibtorchError {}

/// Whether C++ frames are wanted.
pub(crate) fn shows_frames() -> bool {
    std::env::var_os(SHOW_FRAMES).is_some_and(|value| value == "1")
}

/// The outermost function of the dispatcher, without its overload: what the program called.
fn operation(frames: &str) -> Option<String> {
    let called = frames.lines().filter_map(|frame| frame.split_once("at::_ops::")?.1.split_once("::"));
    let name = called.map(|(name, _)| name).next_back()?;
    let overload = name.match_indices('_').find(|(at, _)| name[at + 1..].starts_with(|c: char| c.is_ascii_uppercase()));
    Some(overload.map_or(name, |(at, _)| &name[..at]).to_owned())
}

/// What the `Debug` form of a text escapes.
fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\\"", "\"").replace("\\'", "'").replace("\\\\", "\\")
}

/// A message without the C++ frames that libtorch's errors have in it, unless they are wanted.
///
/// ```
/// use fulgurite_torch::readable_message;
///
/// let message = "shapes differ\nException raised from meta at LinearAlgebra.cpp:1 (most recent call first):\nframe #0: ...";
/// assert_eq!(readable_message(message), "shapes differ");
/// assert_eq!(readable_message("no such file"), "no such file");
/// ```
pub fn readable_message(text: &str) -> String {
    if has_frames(text) { LibtorchError::parse(text).to_string() } else { text.to_owned() }
}

pub(crate) fn has_frames(text: &str) -> bool {
    text.contains(FRAMES)
}

/// An error of foreign code without the C++ frames that libtorch's errors have in their messages: an error of `tch` becomes a
/// [`LibtorchError`], and one that has such an error among its causes is quoted. Any other is returned as it is.
///
/// ```
/// use fulgurite_torch::readable_error;
/// use fulgurite_torch::tch::Tensor;
///
/// let error = Tensor::from(1.0).f_view([2, 3]).unwrap_err();
/// assert!(error.to_string().contains("frame #1"));
/// assert_eq!(readable_error(error.into()).to_string(), "view: shape '[2, 3]' is invalid for input of size 1");
/// ```
pub fn readable_error(error: Box<dyn Error + Send + Sync>) -> Box<dyn Error + Send + Sync> {
    let error = match error.downcast::<TchError>() {
        Ok(error) => return LibtorchError::from(error.as_ref()).into(),
        Err(error) => error,
    };
    if !shows_frames() && shows(error.as_ref()) { Quoted::of(error.as_ref()).into() } else { error }
}

/// Whether frames stand in the message of an error or of one of its causes.
fn shows(error: &(dyn Error + 'static)) -> bool {
    has_frames(&error.to_string()) || error.source().is_some_and(shows)
}

/// The messages of an error and its causes.
struct Quoted {
    message: String,
    source: Option<Box<Quoted>>,
}

impl Quoted {
    fn of(error: &dyn Error) -> Quoted {
        let source = error.source().map(|source| Box::new(Quoted::of(source)));
        Quoted { message: readable_message(&error.to_string()), source }
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Quoted {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &dyn Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHAT: &str = "mat1 and \"mat2\" differ\nException raised from meta at LinearAlgebra.cpp:196 (most recent call first):\n\
        frame #0: c10::Error::Error(c10::SourceLocation, std::string) + 0x9d (0x7f in libc10.so)\n\
        frame #7: at::_ops::addmm::call(at::Tensor const&) + 0x1 (0x7f in libtorch_cpu.so)\n\
        frame #9: at::_ops::add_Tensor::call(at::Tensor const&) + 0x1 (0x7f in libtorch_cpu.so)\n\
        frame #11: /usr/bin/program() [0x1]\n";

    #[test]
    fn from_every_form() {
        let panic = |prefix: &str| format!("{prefix}{:?}", TchError::Torch(WHAT.into()));
        for text in [WHAT.to_owned(), TchError::Torch(WHAT.into()).to_string(), panic(OF_UNWRAP)] {
            let error = LibtorchError::parse(&text);
            assert_eq!(error.to_string(), "add: mat1 and \"mat2\" differ", "{text}");
            assert_eq!(error.operation(), Some("add"));
            assert_eq!(error.frames().unwrap().lines().count(), 5, "{text}");
        }
        assert_eq!(readable_message(&panic("the product: ")), "add: the product: mat1 and \"mat2\" differ");
    }

    #[test]
    fn backends_are_not_listed() {
        let said = "Could not run 'aten::add' with arguments from the 'CUDA' backend.";
        let list =
            "If you are on mobile, see there. 'aten::add' is only available for: [CPU].\n\nCPU: registered at A.cpp:1";
        let what = WHAT.replace("mat1 and \"mat2\" differ", &format!("{said} {BACKENDS}, or not. {list}"));
        let error = LibtorchError::parse(&what);
        assert_eq!(error.to_string(), said);
        assert!(error.frames().unwrap().contains("CPU: registered at A.cpp:1"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("of the encoder: {source}")]
    struct Own {
        #[from]
        source: TchError,
    }

    #[test]
    fn no_source_shows_frames() {
        let error = readable_error(Own { source: TchError::Torch(WHAT.into()) }.into());
        assert_eq!(error.to_string(), "add: of the encoder: mat1 and \"mat2\" differ");
        assert_eq!(error.source().unwrap().to_string(), "add: mat1 and \"mat2\" differ");
        let clean = readable_error(Own { source: TchError::Torch("no frames".into()) }.into());
        assert!(clean.is::<Own>());
    }
}
