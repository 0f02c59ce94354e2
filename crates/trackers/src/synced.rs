//! [`Synced`].

/// What became of an outbox.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// Where it was sent: the address of the server and the run.
    pub to: String,
    /// How many values were sent.
    pub values: usize,
    /// How many files were sent.
    pub files: usize,
    /// What the user should know.
    pub warnings: Vec<String>,
    /// Why some of it is still there.
    pub left: Option<String>,
}
