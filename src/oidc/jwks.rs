//! The provider's public keys: fetched with discovery, again when a token names an unknown one (behaviour T5).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::{CoreJsonWebKey, CoreJsonWebKeySet};
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::http;
use crate::primitives::clock::{Clock, Timestamp};

/// Between two fetches for unknown keys. Tokens with invented key ids cost the provider no more than this.
const THROTTLE: Duration = Duration::from_secs(5);

/// More keys than any provider has; each token without key id is tried against the whole set.
const MOST_KEYS: usize = 64;

/// RFC 7518 §3.3: 2048 bits or larger.
const SHORTEST_RSA_MODULUS: usize = 256;

/// Why there is no newer key set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeysError {
    #[error(transparent)]
    Http(#[from] http::Error),
    #[error("the key set is not understood")]
    Unreadable,
    #[error("the key set holds no usable key")]
    Empty,
    #[error("the key set was asked for a moment ago")]
    Throttled,
    #[error("the provider's metadata has not been read yet")]
    NotReady,
    #[error("the fetch was given up")]
    Aborted,
}

/// A fetched key set and where it came from.
#[derive(Debug)]
pub(super) struct KeySet {
    url: Url,
    /// Only keys of known type that may verify a signature.
    pub(super) keys: CoreJsonWebKeySet,
}

/// The cache of one provider's keys. The old set stays until a new one is there.
#[derive(Clone)]
pub(super) struct Jwks(Arc<Inner>);

struct Inner {
    http: http::Client,
    clock: Clock,
    current: ArcSwapOption<KeySet>,
    /// Held while fetching, so that one fetch serves all who wait; when the last fetch for an unknown key began.
    asked: Mutex<Option<Timestamp>>,
}

impl Jwks {
    pub(super) fn new(http: http::Client, clock: Clock) -> Self {
        Self(Arc::new(Inner { http, clock, current: ArcSwapOption::empty(), asked: Mutex::new(None) }))
    }

    /// The present set; `None` before the first [`Jwks::load`].
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        self.0.current.load_full()
    }

    /// Fetches the set that the metadata points to.
    pub(super) async fn load(&self, url: &Url) -> Result<(), KeysError> {
        let _fetching = self.0.asked.lock().await;
        self.0.fetch(url).await.map(drop)
    }

    /// A newer set than `seen`, in which a key was not found.
    ///
    /// Runs in its own task: a login that is given up does not spoil the fetch for those who wait for it.
    pub(super) async fn newer_than(&self, seen: Arc<KeySet>) -> Result<Arc<KeySet>, KeysError> {
        let inner = self.0.clone();
        tokio::spawn(async move { inner.newer_than(&seen).await }).await.unwrap_or(Err(KeysError::Aborted))
    }
}

impl Inner {
    async fn newer_than(&self, seen: &Arc<KeySet>) -> Result<Arc<KeySet>, KeysError> {
        let mut asked = self.asked.lock().await;
        let current = self.current.load_full().ok_or(KeysError::NotReady)?;
        if !Arc::ptr_eq(&current, seen) {
            return Ok(current);
        }
        let now = self.clock.now();
        if asked.is_some_and(|last| now < last.plus(THROTTLE)) {
            return Err(KeysError::Throttled);
        }
        *asked = Some(now);
        self.fetch(&seen.url).await
    }

    async fn fetch(&self, url: &Url) -> Result<Arc<KeySet>, KeysError> {
        let answer = self.http.get(http::Endpoint::Jwks, url).await.map_err(KeysError::from);
        let keys = answer.and_then(|body| parse(&body));
        self.http.key_set(keys.is_ok());
        let set = Arc::new(KeySet { url: url.clone(), keys: keys? });
        self.current.store(Some(set.clone()));
        Ok(set)
    }
}

/// Keys of unknown type or algorithm are left out; nobody can sign with them towards us.
pub(super) fn parse(body: &[u8]) -> Result<CoreJsonWebKeySet, KeysError> {
    #[derive(serde::Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let document: Document = serde_json::from_slice(body).map_err(|_| KeysError::Unreadable)?;
    let keys: Vec<CoreJsonWebKey> = document
        .keys
        .into_iter()
        .take(MOST_KEYS)
        .filter(may_verify)
        .filter_map(|k| serde_json::from_value(k).ok())
        .collect();
    if keys.is_empty() { Err(KeysError::Empty) } else { Ok(CoreJsonWebKeySet::new(keys)) }
}

/// Public-key types only: a shared secret in a public document would let anyone sign.
fn may_verify(key: &Value) -> bool {
    match key.get("kty").and_then(Value::as_str) {
        Some("RSA") => key
            .get("n")
            .and_then(Value::as_str)
            .and_then(|n| URL_SAFE_NO_PAD.decode(n).ok())
            .is_some_and(|n| n.iter().skip_while(|b| **b == 0).count() >= SHORTEST_RSA_MODULUS),
        Some("EC" | "OKP") => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use openidconnect::JsonWebKey as _;
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_and_weak_keys_are_left_out() {
        let ec = json!({"kty": "EC", "crv": "P-256", "kid": "good", "x": "AAAA", "y": "AAAA", "use": "sig"});
        let keys = json!({"keys": [
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "AKP", "kid": "post-quantum", "alg": "ML-DSA-65", "pub": "AAAA"},
            {"kty": "RSA", "kid": "weak", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0xff_u8; 128])},
            {"kty": "RSA", "kid": "padded", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode([0_u8; 256])},
            {"kty": "RSA", "kid": "encryption", "alg": "RSA-OAEP", "use": "enc", "e": "AQAB",
             "n": URL_SAFE_NO_PAD.encode([0xff_u8; 256])},
            "not a key", {"no": "type"}, ec,
        ]});
        let set = parse(keys.to_string().as_bytes()).unwrap();
        let ids: Vec<_> = set.keys().iter().filter_map(|k| k.key_id()).map(|id| id.as_str()).collect();
        assert_eq!(ids, ["good"]);
    }

    #[test]
    fn a_set_without_usable_keys_is_refused() {
        assert_eq!(parse(br#"{"keys": []}"#), Err(KeysError::Empty));
        assert_eq!(parse(br#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#), Err(KeysError::Empty));
        assert_eq!(parse(b"<html>"), Err(KeysError::Unreadable));
        assert_eq!(parse(b"{}"), Err(KeysError::Unreadable));
    }
}
