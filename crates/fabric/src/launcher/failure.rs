//! [`Failure`]: the report of a node about a rank that failed.

use serde::{Deserialize, Serialize};

/// The maximum length of the message of another node, in characters.
const MAX_MESSAGE_LENGTH: usize = 2000;

/// A description of the rank that failed, and the exit code of its node, which is never 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub message: String,
    pub code: i32,
}

impl Failure {
    /// Parses the report of another node, within bounds. `None` if it is malformed.
    pub(super) fn parse(message: &[u8]) -> Option<Failure> {
        let Failure { message, code } = serde_json::from_slice(message).ok()?;
        let is_code = (1..=255).contains(&code);
        Some(Failure {
            message: message.chars().take(MAX_MESSAGE_LENGTH).collect(),
            code: if is_code { code } else { 1 },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_within_bounds_and_never_ends_with_0() {
        let read = |text: &str| Failure::parse(text.as_bytes());
        for (code, expected) in [(7, 7), (0, 1), (256, 1), (-1, 1), (255, 255)] {
            let failure = read(&format!(r#"{{"message":"died","code":{code}}}"#)).unwrap();
            assert_eq!(failure, Failure { message: "died".into(), code: expected });
        }
        let long = read(&format!(r#"{{"message":"{}","code":1}}"#, "é".repeat(100_000))).unwrap();
        assert_eq!(long.message.chars().count(), MAX_MESSAGE_LENGTH);
        assert_eq!(read("{}"), None);
    }
}
