//! [`Findings`]: what a tool found.

/// What a tool found.
pub(super) struct Findings {
    /// For standard output.
    pub text: String,
    /// Whether everything is as one would hope. If not, the program ends with 1.
    pub good: bool,
}

impl From<String> for Findings {
    fn from(text: String) -> Findings {
        Findings { text, good: true }
    }
}
