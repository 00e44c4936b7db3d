//! What an opened session costs the local cache.

use http::header::HeaderValue;

use super::Open;

/// What an exchanged token costs beside its own bytes.
const EXCHANGED: usize = 384;

/// What an entry costs beside its own bytes: its places in the cache and in the index, and the allocator's share.
const OVERHEAD: usize = 256;

impl Open {
    /// About how much memory it takes, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn measure(&self) -> u64 {
        let header = |value: &Option<HeaderValue>| value.as_ref().map_or(0, HeaderValue::len);
        let identity: usize = self.identity.iter().map(|value| size_of::<Option<HeaderValue>>() + header(value)).sum();
        let texts = header(&self.authorization) + header(&self.id_authorization) + header(&self.csrf_cookie);
        let texts = texts + self.token_hash.as_ref().map_or(0, |hash| hash.len());
        let context = |all: &[Option<HeaderValue>; 2]| {
            all.iter().map(|value| header(value) + size_of::<Option<HeaderValue>>()).sum()
        };
        let context: usize = self.context.as_deref().map_or(0, context);
        // As long as a proxy token is; made later.
        let proxy = if self.profile.proxy_token { 512 + (self.provider.len() + self.subject.len()) * 3 } else { 0 };
        // As long as the token that they come from, more or less; got later.
        let exchanged = self.exchanged.len() * (EXCHANGED + header(&self.authorization));
        let rest = proxy
            + exchanged
            + identity
            + context
            + self.met.len()
            + self.provider.len()
            + self.csrf_token.expose().len();
        u64::try_from(size_of::<Self>() + texts + rest + OVERHEAD).unwrap_or(u64::MAX)
    }
}
