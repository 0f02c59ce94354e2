//! [`RunToken`]: the secret with which the processes of a run authenticate their messages.
//!
//! The store of c10d has no authentication: every process that reaches its port can read and set keys. Supervisors and ranks
//! therefore use keys with a prefix derived from the token, and messages that can end a run are signed with it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{SUPERVISOR, is_supervised};
use crate::FabricError;

/// The environment variable with the token. The supervisor sets it for its ranks; for supervisors of several nodes, and for
/// ranks of an external launcher, the user may set it to the same text everywhere.
pub const RUN_TOKEN: &str = "FULGURITE_RUN_TOKEN";

/// The minimum length; shorter tokens can be guessed.
const MIN_LENGTH: usize = 16;
/// The length of a generated token, in bytes.
const GENERATED_LENGTH: usize = 32;
/// The length of a signature, in bytes.
const SIGNATURE_LENGTH: usize = 32;

/// A secret of the processes of one run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RunToken(String);

impl RunToken {
    /// The token in the environment of this process, if any. A program that a rank starts ignores the token of the rank.
    pub(crate) fn given() -> Result<Option<RunToken>, FabricError> {
        if std::env::var_os(SUPERVISOR).is_some() && !is_supervised() {
            return Ok(None);
        }
        let Some(text) = std::env::var_os(RUN_TOKEN) else { return Ok(None) };
        let unreadable = || {
            FabricError::environment(format!(
                "the environment variable {RUN_TOKEN} is not valid UTF-8; set it to ASCII text, or unset it"
            ))
        };
        RunToken::parse(text.to_str().ok_or_else(unreadable)?.trim())
    }

    fn parse(text: &str) -> Result<Option<RunToken>, FabricError> {
        match text.len() {
            0 => Ok(None),
            1..MIN_LENGTH => Err(FabricError::environment(format!(
                "the environment variable {RUN_TOKEN} has {} characters, which can be guessed; set it to at least \
                 {MIN_LENGTH} random characters, the same for all processes of the run, or unset it",
                text.len()
            ))),
            _ => Ok(Some(RunToken(text.to_owned()))),
        }
    }

    /// Generates a token.
    pub(crate) fn random() -> Result<RunToken, FabricError> {
        let mut bytes = [0_u8; GENERATED_LENGTH];
        getrandom::fill(&mut bytes).map_err(|error| {
            FabricError::launch(format!("the random number generator of the system failed: {error}"))
        })?;
        Ok(RunToken(hex(&bytes)))
    }

    /// The token that the first node published, if it has the format of [`random`](RunToken::random).
    pub(crate) fn parse_published(text: &[u8]) -> Option<RunToken> {
        let is_token = text.len() == 2 * GENERATED_LENGTH && text.iter().all(u8::is_ascii_hexdigit);
        std::str::from_utf8(text).ok().filter(|_| is_token).map(|text| RunToken(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A prefix for keys of the store that only the processes of the run know.
    pub(crate) fn namespace(&self) -> String {
        format!("fulgurite/{}", hex(&self.signature("room", &[])[..16]))
    }

    /// Signs a message for this key; [`verify`](RunToken::verify) checks the signature.
    pub(crate) fn sign(&self, key: &str, message: &[u8]) -> Vec<u8> {
        [&self.signature(key, message), message].concat()
    }

    /// The message, if it was signed with this token for this key.
    pub(crate) fn verify<'m>(&self, key: &str, signed: &'m [u8]) -> Option<&'m [u8]> {
        let (signature, message) = signed.split_at_checked(SIGNATURE_LENGTH)?;
        self.mac(key, message)?.verify_slice(signature).ok()?;
        Some(message)
    }

    fn signature(&self, key: &str, message: &[u8]) -> [u8; SIGNATURE_LENGTH] {
        self.mac(key, message).map_or([0; SIGNATURE_LENGTH], |mac| mac.finalize().into_bytes().into())
    }

    /// Never `None`: HMAC accepts keys of any length.
    fn mac(&self, key: &str, message: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok()?;
        mac.update(&(key.len() as u64).to_le_bytes());
        mac.update(key.as_bytes());
        mac.update(message);
        Some(mac)
    }
}

/// Does not print the secret.
impl std::fmt::Debug for RunToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RunToken")
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_signed_with_the_token_are_accepted() {
        let (ours, theirs) = (RunToken::random().unwrap(), RunToken::random().unwrap());
        let signed = ours.sign("failed", b"rank 1 died");
        assert_eq!(ours.verify("failed", &signed), Some(&b"rank 1 died"[..]));
        let published = RunToken::parse_published(ours.as_str().as_bytes()).unwrap();
        assert_eq!(published.verify("failed", &signed), Some(&b"rank 1 died"[..]));
        assert_eq!(RunToken::parse_published(b"short"), None);
        assert_eq!(RunToken::parse_published(&[b'a'; 1000]), None);
        assert_eq!(theirs.verify("failed", &signed), None);
        assert_eq!(ours.verify("ended", &signed), None);
        for index in 0..signed.len() {
            let mut changed = signed.clone();
            changed[index] ^= 1;
            assert_eq!(ours.verify("failed", &changed), None);
            assert_eq!(ours.verify("failed", &signed[..index]), None);
        }
        assert_ne!(ours.namespace(), theirs.namespace());
        assert!(!ours.namespace().contains(ours.as_str()));
        assert_eq!(format!("{ours:?}"), "RunToken");
    }

    #[test]
    fn a_token_is_long_enough_not_to_be_guessed() {
        assert_eq!(RunToken::parse("").unwrap(), None);
        assert!(RunToken::parse("0123456789abcdef").unwrap().is_some());
        let error = RunToken::parse("secret").unwrap_err().to_string();
        assert!(error.contains("FULGURITE_RUN_TOKEN has 6 characters") && !error.contains("secret"), "{error}");
    }
}
