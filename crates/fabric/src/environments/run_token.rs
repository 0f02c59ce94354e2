//! [`RunToken`]: the secret by which the processes of a run tell each other's messages from those of strangers.
//!
//! c10d's store has no passwords: whoever reaches its port can read and set keys. What supervisors and ranks say to each
//! other through it stands under a name that is made of the token, and what a run may end by is signed with it.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::{SUPERVISOR, is_supervised};
use crate::FabricError;

/// Holds the token. Ranks are told it by the supervisor; for supervisors of several nodes, and for ranks that somebody
/// else starts, the user may set it to the same text everywhere.
pub const RUN_TOKEN: &str = "FULGURITE_RUN_TOKEN";

/// Shorter ones can be guessed.
const SHORTEST: usize = 16;
/// Of a token that is made here, in bytes.
const LENGTH: usize = 32;
/// Of a signature, in bytes.
const SIGNATURE: usize = 32;

/// A secret of the processes of one run.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RunToken(String);

impl RunToken {
    /// The token that this process was given, if any. That of a rank is not that of a program which the rank starts.
    pub(crate) fn given() -> Result<Option<RunToken>, FabricError> {
        if std::env::var_os(SUPERVISOR).is_some() && !is_supervised() {
            return Ok(None);
        }
        let Some(text) = std::env::var_os(RUN_TOKEN) else { return Ok(None) };
        let unreadable = || FabricError::environment(format!("the environment variable {RUN_TOKEN} is no UTF-8 text"));
        RunToken::parse(text.to_str().ok_or_else(unreadable)?.trim())
    }

    fn parse(text: &str) -> Result<Option<RunToken>, FabricError> {
        match text.len() {
            0 => Ok(None),
            1..SHORTEST => Err(FabricError::environment(format!(
                "the environment variable {RUN_TOKEN} has {} characters, which can be guessed; set it to at least \
                 {SHORTEST} random ones, the same for all processes of the run, or unset it",
                text.len()
            ))),
            _ => Ok(Some(RunToken(text.to_owned()))),
        }
    }

    /// A token that nobody knows.
    pub(crate) fn random() -> Result<RunToken, FabricError> {
        let mut bytes = [0_u8; LENGTH];
        getrandom::fill(&mut bytes)
            .map_err(|error| FabricError::launch(format!("the system has no random numbers: {error}")))?;
        Ok(RunToken(hex(&bytes)))
    }

    /// What the first node of the run said, if it is what [`random`](RunToken::random) makes.
    pub(crate) fn heard(text: &[u8]) -> Option<RunToken> {
        let is_one = text.len() == 2 * LENGTH && text.iter().all(u8::is_ascii_hexdigit);
        std::str::from_utf8(text).ok().filter(|_| is_one).map(|text| RunToken(text.to_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// A prefix of keys that only the processes of the run know.
    pub(crate) fn room(&self) -> String {
        format!("fulgurite/{}", hex(&self.signature("room", &[])[..16]))
    }

    /// The message, so that [`open`](RunToken::open) knows it for one of the run's, said under this key.
    pub(crate) fn seal(&self, key: &str, message: &[u8]) -> Vec<u8> {
        [&self.signature(key, message), message].concat()
    }

    /// The message, unless somebody else made it, or for another key.
    pub(crate) fn open<'m>(&self, key: &str, sealed: &'m [u8]) -> Option<&'m [u8]> {
        let (signature, message) = sealed.split_at_checked(SIGNATURE)?;
        self.mac(key, message)?.verify_slice(signature).ok()?;
        Some(message)
    }

    fn signature(&self, key: &str, message: &[u8]) -> [u8; SIGNATURE] {
        self.mac(key, message).map_or([0; SIGNATURE], |mac| mac.finalize().into_bytes().into())
    }

    /// `None` never: HMAC takes keys of any length.
    fn mac(&self, key: &str, message: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).ok()?;
        mac.update(&(key.len() as u64).to_le_bytes());
        mac.update(key.as_bytes());
        mac.update(message);
        Some(mac)
    }
}

/// A secret is not shown.
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
    fn only_who_has_the_token_is_believed() {
        let (ours, theirs) = (RunToken::random().unwrap(), RunToken::random().unwrap());
        let sealed = ours.seal("failed", b"rank 1 died");
        assert_eq!(ours.open("failed", &sealed), Some(&b"rank 1 died"[..]));
        let heard = RunToken::heard(ours.as_str().as_bytes()).unwrap();
        assert_eq!(heard.open("failed", &sealed), Some(&b"rank 1 died"[..]));
        assert_eq!(RunToken::heard(b"short"), None);
        assert_eq!(RunToken::heard(&[b'a'; 1000]), None);
        assert_eq!(theirs.open("failed", &sealed), None);
        assert_eq!(ours.open("ended", &sealed), None);
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert_eq!(ours.open("failed", &changed), None);
            assert_eq!(ours.open("failed", &sealed[..index]), None);
        }
        assert_ne!(ours.room(), theirs.room());
        assert!(!ours.room().contains(ours.as_str()));
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
