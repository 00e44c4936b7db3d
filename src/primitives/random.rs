//! Randomness from the operating system.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct NoEntropy(getrandom::Error);

/// `N` fresh random bytes.
///
/// # Errors
/// [`NoEntropy`] if the operating system refuses; nothing may go on with a weaker source.
pub fn bytes<const N: usize>() -> Result<[u8; N], NoEntropy> {
    let mut out = [0_u8; N];
    getrandom::fill(&mut out).map_err(NoEntropy)?;
    Ok(out)
}

/// 256 fresh random bits as 43 characters of base64url.
///
/// # Errors
/// [`NoEntropy`], as [`bytes()`].
pub fn token() -> Result<String, NoEntropy> {
    Ok(base64url(&bytes::<32>()?))
}

/// Up to a quarter less than `wait`, so that many processes do not act in step; not spread at all without entropy.
#[must_use]
pub fn jittered(wait: Duration) -> Duration {
    let [dice] = bytes::<1>().unwrap_or_default();
    wait - wait / 4 * u32::from(dice) / 256
}

/// Base64url without padding (RFC 4648 §5).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The exact inverse of [`base64url`] for `N` bytes; `None` for anything else, non-canonical forms included.
#[must_use]
pub fn from_base64url<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut out = [0_u8; N];
    if text.len() != N.checked_mul(4)?.div_ceil(3) {
        return None;
    }
    let written = URL_SAFE_NO_PAD.decode_slice(text, &mut out).ok()?;
    (written == N).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_takes_a_quarter_at_most() {
        let wait = Duration::from_secs(400);
        let waits: Vec<_> = (0..100).map(|_| jittered(wait)).collect();
        assert!(waits.iter().all(|one| (wait * 3 / 4..=wait).contains(one)), "{waits:?}");
        assert!(waits.iter().any(|one| *one != waits[0]), "{waits:?}");
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn base64url_goes_both_ways_and_refuses_the_rest() {
        let id = bytes::<32>().unwrap();
        let text = base64url(&id);
        assert_eq!(text.len(), 43);
        assert_eq!(from_base64url::<32>(text.as_bytes()), Some(id));
        assert_eq!(from_base64url::<32>(b"short"), None);
        assert_eq!(from_base64url::<32>(&[b'!'; 43]), None);
        // The last character carries two unused bits; only the zero form counts.
        let mut odd = base64url(&[0_u8; 32]).into_bytes();
        if let Some(last) = odd.last_mut() {
            *last = b'B';
        }
        assert_eq!(from_base64url::<32>(&odd), None);
    }
}
