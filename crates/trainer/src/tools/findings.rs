//! [`Findings`]: the result of a tool.

/// The result of a tool.
pub(super) struct Findings {
    /// The text for standard output.
    pub text: String,
    /// Whether no problem was found. Otherwise the program exits with 1.
    pub good: bool,
}

impl From<String> for Findings {
    fn from(text: String) -> Findings {
        Findings { text, good: true }
    }
}
