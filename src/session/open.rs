//! An opened session, as the local cache keeps it: only what a request needs, ready made.
//!
//! The refresh token, the ID token and the claims stay sealed in the store; they are opened when a refresh, a logout or
//! `/userinfo` asks for them. So an entry costs little memory, and a request with a cached session does no cryptography
//! and formats nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::Value;

use super::cookie::Cookies;
use super::model::{Record, Secrets, SessionId, SessionKey};
use crate::config::settings::ClaimPath;
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

/// What a site wants prepared in each of its sessions.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Name of the site.
    pub site: Arc<str>,
    /// Name of its provider; sessions of another one are none here (behaviour S11).
    pub provider: Option<Arc<str>>,
    /// Claims that go into identity headers; [`Open::identity`] takes an index into this list.
    pub claims: Vec<ClaimPath>,
    /// Whether a route sends the ID token.
    pub id_token: bool,
}

/// An opened session.
pub struct Open {
    id: SessionId,
    key: SessionKey,
    version: u64,
    generation: u64,
    site: Arc<str>,
    provider: String,
    subject: String,
    created: Timestamp,
    absolute_end: Timestamp,
    access_issued: Timestamp,
    access_expires: Option<Timestamp>,
    has_refresh_token: bool,
    authorization: Option<HeaderValue>,
    id_authorization: Option<HeaderValue>,
    identity: Box<[Option<HeaderValue>]>,
    csrf_token: SecretText,
    csrf_cookie: Option<HeaderValue>,
    last_seen: AtomicU64,
    idle_end: AtomicU64,
    checked: AtomicU64,
}

impl Open {
    /// Prepares a session for its requests. `checked` is when the record was read.
    pub(super) fn new(
        id: SessionId,
        record: &Record,
        secrets: &Secrets,
        profile: &Profile,
        cookies: &Cookies,
        checked: Timestamp,
    ) -> Self {
        Self {
            id,
            key: id.key(),
            version: record.version,
            generation: record.generation,
            site: profile.site.clone(),
            provider: record.provider.clone(),
            subject: record.subject.clone(),
            created: record.created,
            absolute_end: record.absolute_end,
            access_issued: secrets.access_issued,
            access_expires: secrets.access_expires,
            has_refresh_token: secrets.usable_refresh_token().is_some(),
            authorization: bearer(&secrets.access_token),
            id_authorization: secrets.id_token.as_ref().filter(|_| profile.id_token).and_then(bearer),
            identity: profile.claims.iter().map(|path| claim_header(&secrets.claims, path)).collect(),
            csrf_cookie: cookies.set_csrf(secrets.csrf_token.expose()),
            csrf_token: secrets.csrf_token.clone(),
            last_seen: AtomicU64::new(record.last_seen.as_millis()),
            idle_end: AtomicU64::new(record.idle_end.as_millis()),
            checked: AtomicU64::new(checked.as_millis()),
        }
    }

    /// The ticket in the browser.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Its name in the store.
    #[must_use]
    pub fn key(&self) -> &SessionKey {
        &self.key
    }

    /// Version of the record it was opened from.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Token generation it was opened from.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The site it belongs to.
    #[must_use]
    pub fn site(&self) -> &Arc<str> {
        &self.site
    }

    /// The provider that made it.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// `sub` at the provider.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the user logged in.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// When the access token ends.
    #[must_use]
    pub fn access_expires(&self) -> Option<Timestamp> {
        self.access_expires
    }

    /// Whether there is a way to a newer access token.
    #[must_use]
    pub fn has_refresh_token(&self) -> bool {
        self.has_refresh_token
    }

    /// `Bearer …` with the access token; `None` if the token has bytes that no header may carry.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// `Bearer …` with the ID token, where the site's [`Profile`] asks for it.
    #[must_use]
    pub fn id_authorization(&self) -> Option<&HeaderValue> {
        self.id_authorization.as_ref()
    }

    /// The header value of a claim of the site's [`Profile`].
    #[must_use]
    pub fn identity(&self, claim: usize) -> Option<&HeaderValue> {
        self.identity.get(claim)?.as_ref()
    }

    /// The session's CSRF token.
    #[must_use]
    pub fn csrf_token(&self) -> &str {
        self.csrf_token.expose()
    }

    /// `Set-Cookie` for the CSRF token.
    #[must_use]
    pub fn csrf_cookie(&self) -> Option<&HeaderValue> {
        self.csrf_cookie.as_ref()
    }

    /// When it is over unless used before.
    #[must_use]
    pub fn idle_end(&self) -> Timestamp {
        Timestamp::from_millis(self.idle_end.load(Ordering::Relaxed))
    }

    /// When it is over in any case.
    #[must_use]
    pub fn absolute_end(&self) -> Timestamp {
        self.absolute_end
    }

    /// Whether it is over.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.absolute_end || now >= self.idle_end()
    }

    /// Whether the access token has at least `minimum` left. For tokens that live shorter than twice that, half their
    /// life is the bound, or each request would refresh (behaviour R11).
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp, minimum: Duration) -> bool {
        let Some(end) = self.access_expires else { return true };
        let bound = minimum.min(end.since(self.access_issued) / 2);
        end.since(now) > bound
    }

    /// Whether the access token still lives at all.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.access_expires.is_none_or(|end| now < end)
    }

    /// Whether the store was asked within `ttl`.
    pub(super) fn is_current(&self, now: Timestamp, ttl: Duration) -> bool {
        now.since(Timestamp::from_millis(self.checked.load(Ordering::Relaxed))) < ttl
    }

    /// Takes over what a re-read record says about times.
    pub(super) fn confirm(&self, record: &Record, now: Timestamp) {
        self.last_seen.fetch_max(record.last_seen.as_millis(), Ordering::Relaxed);
        self.idle_end.fetch_max(record.idle_end.as_millis(), Ordering::Relaxed);
        self.checked.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Takes over the uses that `older` knows of and the store perhaps does not yet.
    pub(super) fn inherit(&self, older: &Self) {
        self.last_seen.fetch_max(older.last_seen.load(Ordering::Relaxed), Ordering::Relaxed);
        self.idle_end.fetch_max(older.idle_end.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Notes a use; `true` for the one caller in each `step` that should tell the store.
    pub(super) fn note_use(&self, now: Timestamp, idle_timeout: Duration, step: Duration) -> bool {
        let seen = self.last_seen.load(Ordering::Relaxed);
        if now.since(Timestamp::from_millis(seen)) < step {
            return false;
        }
        if self.last_seen.compare_exchange(seen, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        self.idle_end.fetch_max(now.plus(idle_timeout).as_millis(), Ordering::Relaxed);
        true
    }
}

fn bearer(token: &SecretText) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A claim as a header value: text as it is, lists joined with commas, non-ASCII percent-encoded as UTF-8. A value with
/// a line break or NUL gives no header at all (behaviour H8).
fn claim_header(claims: &serde_json::Map<String, Value>, path: &ClaimPath) -> Option<HeaderValue> {
    let mut names = path.0.iter();
    let mut value = claims.get(names.next()?)?;
    for name in names {
        value = value.as_object()?.get(name)?;
    }
    let text = claim_text(value)?;
    if text.bytes().any(|b| b < b' ' || b == 0x7f) {
        return None;
    }
    // `%` itself is escaped, so that the upstream can decode without doubt.
    const ESCAPED: &AsciiSet = &CONTROLS.add(b'%');
    HeaderValue::from_str(&utf8_percent_encode(&text, ESCAPED).to_string()).ok()
}

fn claim_text(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        Value::Array(items) => Some(items.iter().filter_map(claim_text).collect::<Vec<_>>().join(",")),
        Value::Object(_) => serde_json::to_string(value).ok(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn header(claims: Value, path: &str) -> Option<String> {
        let path = ClaimPath(path.split('.').map(str::to_owned).collect());
        claim_header(claims.as_object().unwrap(), &path).map(|v| v.to_str().unwrap().to_owned())
    }

    #[test]
    fn claims_become_header_values() {
        let claims = json!({"sub": "alice", "n": 5, "realm_access": {"roles": ["user", "admin"]}, "null": null});
        assert_eq!(header(claims.clone(), "sub").as_deref(), Some("alice"));
        assert_eq!(header(claims.clone(), "n").as_deref(), Some("5"));
        assert_eq!(header(claims.clone(), "realm_access.roles").as_deref(), Some("user,admin"));
        assert_eq!(header(claims.clone(), "realm_access.none"), None);
        assert_eq!(header(claims.clone(), "sub.deeper"), None);
        assert_eq!(header(claims, "null"), None);
    }

    #[test]
    fn h8_line_breaks_are_refused_and_non_ascii_is_encoded() {
        assert_eq!(header(json!({"a": "x\r\nEvil: 1"}), "a"), None);
        assert_eq!(header(json!({"a": "x\0"}), "a"), None);
        assert_eq!(header(json!({"a": "Ærø"}), "a").as_deref(), Some("%C3%86r%C3%B8"));
        assert_eq!(header(json!({"a": "100%"}), "a").as_deref(), Some("100%25"));
    }
}
