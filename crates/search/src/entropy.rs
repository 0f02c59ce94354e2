//! Numbers that nobody else has.

use rand::{Rng, SeedableRng, TryRng};
use rand_chacha::ChaCha8Rng;
use time::OffsetDateTime;

/// Random bytes of the operating system.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    if rand::rngs::SysRng.try_fill_bytes(&mut bytes).is_err() {
        // Without them: what differs between processes and moments.
        let nanos = OffsetDateTime::now_utc().unix_timestamp_nanos() as u64;
        ChaCha8Rng::seed_from_u64(nanos ^ u64::from(std::process::id()).rotate_left(32)).fill_bytes(&mut bytes);
    }
    bytes
}

/// A random identifier, of version 4.
pub(crate) fn uuid() -> String {
    let mut bytes: [u8; 16] = bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}
