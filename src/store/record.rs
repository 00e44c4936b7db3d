//! What a store keeps of a session: names, times, versions and a sealed part that it cannot read.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::primitives::clock::Timestamp;
use crate::primitives::random;

/// Names a session in the store: SHA-256 of the handle in its cookie, so that it opens none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionKey([u8; 32]);

impl SessionKey {
    /// From its 32 bytes, as a store returns them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// As 43 characters of base64url, for stores with text keys and for administrators.
    #[must_use]
    pub fn to_text(self) -> String {
        random::base64url(&self.0)
    }

    /// The inverse of [`SessionKey::to_text`].
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Self> {
        random::from_base64url(text).map(Self)
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(…)")
    }
}

/// A session as the store keeps it. All but [`Record::sealed`] lies outside the sealed part, so that "last seen", leases
/// and rotation cost no cryptography.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Moves by one with every compare-and-swap; a new record has 1. "Last seen" does not move it.
    pub version: u64,
    /// Name of the site it belongs to; on any other it is no session (behaviour S11).
    pub site: String,
    /// Name of the provider that made it.
    pub provider: String,
    /// `sub` at that provider.
    pub subject: String,
    /// `sid` at that provider, if it gave one.
    pub provider_session: Option<String>,
    /// When the user logged in.
    pub created: Timestamp,
    /// When a request last used it; written in batches.
    pub last_seen: Timestamp,
    /// Over at this moment unless used before.
    pub idle_end: Timestamp,
    /// Over at this moment in any case.
    pub absolute_end: Timestamp,
    /// Kept until this moment even when over, so that its user is still recognised; zero = no longer.
    pub returning_end: Timestamp,
    /// Which ticket of the session is the current one; moves with each timed rotation.
    pub rotation: u32,
    /// When the current ticket was made.
    pub rotated: Timestamp,
    /// A refresh that is under way, or was when its owner died.
    pub intent: Option<Intent>,
    /// The provider may have used the refresh token up without our hearing of it: it is not shown again then (behaviour
    /// R8), only revoked at logout. Holds the owner of the intent that is to blame, who may know better.
    pub refresh_in_doubt: Option<u64>,
    /// The provider asked for no further attempt before this moment.
    pub retry_at: Option<Timestamp>,
    /// When the background refresher should look at it; `None` = never.
    pub due: Option<Timestamp>,
    /// Id of the key that sealed it, for the count of records by key.
    pub sealing_key: String,
    /// Counts the sealings; part of the sealed part's authenticated data. It moves exactly when the tokens change.
    pub generation: u64,
    /// Tokens and claims, sealed.
    pub sealed: Vec<u8>,
}

impl Record {
    /// Whether nobody is logged on by it any more.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.idle_end.min(self.absolute_end)
    }

    /// The store keeps the record no longer than this.
    #[must_use]
    pub fn end(&self) -> Timestamp {
        self.idle_end.min(self.absolute_end).max(self.returning_end)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Written into the record before a refresh token is shown to the provider, so that no two replicas show the same one
/// (behaviour R2). The record's [`generation`](Record::generation) says which refresh token it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// Names the attempt: random, so that an owner knows its own.
    pub owner: u64,
    /// When the first owner wrote it; the token was not shown before.
    pub begun: Timestamp,
    /// The lease: whoever finds the intent after this moment knows that its owner died or lost the store.
    pub until: Timestamp,
}

/// Whose sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Owner<'a> {
    /// A user: `sub` at a provider.
    Subject {
        /// Name of the provider.
        provider: &'a str,
        /// `sub`.
        subject: &'a str,
    },
    /// A session at the provider: its `sid`.
    ProviderSession {
        /// Name of the provider.
        provider: &'a str,
        /// `sid`.
        sid: &'a str,
    },
}

impl Owner<'_> {
    /// Whether the record is one of theirs.
    #[must_use]
    pub fn owns(&self, record: &Record) -> bool {
        match *self {
            Self::Subject { provider, subject } => record.provider == provider && record.subject == subject,
            Self::ProviderSession { provider, sid } => {
                record.provider == provider && record.provider_session.as_deref() == Some(sid)
            }
        }
    }
}
