//! [`Failure`]: what a node says of a rank that died.

use serde::{Deserialize, Serialize};

/// Of what another node says, in characters.
const LONGEST_MESSAGE: usize = 2000;

/// A rank that died, and what its node ended with, which is never 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub message: String,
    pub code: i32,
}

impl Failure {
    /// What another node says, within bounds; `None` for what is nothing of the kind.
    pub(super) fn read(message: &[u8]) -> Option<Failure> {
        let Failure { message, code } = serde_json::from_slice(message).ok()?;
        let is_code = (1..=255).contains(&code);
        Some(Failure { message: message.chars().take(LONGEST_MESSAGE).collect(), code: if is_code { code } else { 1 } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_within_bounds_and_never_ends_with_0() {
        let read = |text: &str| Failure::read(text.as_bytes());
        for (code, expected) in [(7, 7), (0, 1), (256, 1), (-1, 1), (255, 255)] {
            let failure = read(&format!(r#"{{"message":"died","code":{code}}}"#)).unwrap();
            assert_eq!(failure, Failure { message: "died".into(), code: expected });
        }
        let long = read(&format!(r#"{{"message":"{}","code":1}}"#, "é".repeat(100_000))).unwrap();
        assert_eq!(long.message.chars().count(), LONGEST_MESSAGE);
        assert_eq!(read("{}"), None);
    }
}
