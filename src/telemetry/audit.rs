//! The audit log: who did what to whose session, as one line each, apart from the log of the program.
//!
//! A line holds names that the settings and the provider gave, never a token, cookie or code (behaviour D3). A session
//! is named by a keyed hash: neither the cookie nor the key in the store, so that a log opens and ends no session. The
//! fields are described in `docs/reference/audit.md`.

use std::net::IpAddr;

use prometheus::IntCounterVec;
use quick_cache::sync::Cache;
use zeroize::Zeroizing;

use super::{Metrics, Pseudonyms};
use crate::primitives::clock::Clock;
use crate::primitives::random;

/// The target of every line: it passes whatever `RUST_LOG` says.
pub const TARGET: &str = "audit";

/// The version of the fields.
const SCHEMA: u32 = 1;

/// Sessions whose record cannot be read and was told of already: a browser asks on and on.
const UNREADABLE_KNOWN: usize = 10_000;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user came back from the provider and was let in.
    LoginSuccess,
    /// A user came back and was not let in.
    LoginFailure,
    /// A session began.
    SessionCreated,
    /// A session ended before its time.
    SessionEnded,
    /// A user logged out here.
    Logout,
    /// A provider sent a logout token.
    BackchannelLogout,
    /// An administrator ended sessions.
    AdminRevoked,
    /// A provider refused a refresh token.
    RefreshRejected,
    /// A refresh token may have been used up and is not shown again: the session ends with its access token.
    RefreshInDoubt,
    /// A request did not prove that it comes from our own page.
    CsrfRejected,
    /// An access token that a client brought does not count here.
    TokenRejected,
    /// A rule of a route kept a user out.
    AccessDenied,
    /// A provider gave no token for an upstream.
    UpstreamTokenRefused,
    /// A proxy in front asked about a request and was not understood, or may not ask.
    CheckRefused,
    /// A record of a session is there and cannot be read.
    SessionUnreadable,
    /// Another replica has another key under the same id.
    KeyChanged,
    /// New settings took the place of the old ones.
    ConfigChanged,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::LoginSuccess,
        Self::LoginFailure,
        Self::SessionCreated,
        Self::SessionEnded,
        Self::Logout,
        Self::BackchannelLogout,
        Self::AdminRevoked,
        Self::RefreshRejected,
        Self::RefreshInDoubt,
        Self::CsrfRejected,
        Self::TokenRejected,
        Self::AccessDenied,
        Self::UpstreamTokenRefused,
        Self::CheckRefused,
        Self::SessionUnreadable,
        Self::KeyChanged,
        Self::ConfigChanged,
    ];

    /// The word in the log and in the metric.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LoginSuccess => "login_success",
            Self::LoginFailure => "login_failure",
            Self::SessionCreated => "session_created",
            Self::SessionEnded => "session_ended",
            Self::Logout => "logout",
            Self::BackchannelLogout => "backchannel_logout",
            Self::AdminRevoked => "admin_revoked",
            Self::RefreshRejected => "refresh_rejected",
            Self::RefreshInDoubt => "refresh_in_doubt",
            Self::CsrfRejected => "csrf_rejected",
            Self::TokenRejected => "token_rejected",
            Self::AccessDenied => "access_denied",
            Self::UpstreamTokenRefused => "upstream_token_refused",
            Self::CheckRefused => "check_refused",
            Self::SessionUnreadable => "session_unreadable",
            Self::KeyChanged => "key_changed",
            Self::ConfigChanged => "config_changed",
        }
    }

    /// Whether it tells of something refused or broken.
    fn is_failure(self) -> bool {
        matches!(
            self,
            Self::LoginFailure
                | Self::RefreshRejected
                | Self::RefreshInDoubt
                | Self::CsrfRejected
                | Self::TokenRejected
                | Self::AccessDenied
                | Self::UpstreamTokenRefused
                | Self::CheckRefused
                | Self::SessionUnreadable
                | Self::KeyChanged
        )
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Actor {
    /// The browser that sent the request.
    User,
    /// An OpenID provider.
    Idp,
    /// An administrator.
    Admin,
    /// Cloakroom itself.
    #[default]
    System,
}

impl Actor {
    fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Idp => "idp",
            Self::Admin => "admin",
            Self::System => "system",
        }
    }
}

/// What is known of an event. Whatever is not, is left out of the line.
#[derive(Clone, Copy, Default)]
pub struct Entry<'a> {
    /// Who did it.
    pub actor: Actor,
    /// A word of a fixed list.
    pub reason: Option<&'a str>,
    /// Whether an event that may go either way failed.
    pub failed: bool,
    /// Name of the site.
    pub site: Option<&'a str>,
    /// Name of the provider.
    pub provider: Option<&'a str>,
    /// `sub` at the provider.
    pub subject: Option<&'a str>,
    /// The key of the session in the store; only its keyed hash is written.
    pub session: Option<&'a [u8; 32]>,
    /// Where the request came from.
    pub client_ip: Option<IpAddr>,
    /// How many sessions it was about.
    pub sessions: Option<usize>,
    /// Names of settings whose new values hold.
    pub applied: Option<&'a str>,
    /// Names of settings whose new values wait for a restart.
    pub needs_restart: Option<&'a str>,
}

/// Writes the audit log.
pub struct Audit {
    pseudonyms: Pseudonyms,
    clock: Clock,
    events: IntCounterVec,
    unreadable: Cache<[u8; 32], ()>,
}

impl Audit {
    /// `key` makes the hashes of sessions: replicas with the same key write the same ones.
    #[must_use]
    pub fn new(key: &Zeroizing<[u8; 32]>, clock: Clock, metrics: &Metrics) -> Self {
        let pseudonyms = Pseudonyms::new(key);
        // From the beginning: of a counter that appears with its first event nobody sees that it has risen.
        for event in Event::ALL {
            metrics.audit_events_total.with_label_values(&[event.as_str()]);
        }
        Self { pseudonyms, clock, events: metrics.audit_events_total.clone(), unreadable: Cache::new(UNREADABLE_KNOWN) }
    }

    /// Writes one line and counts it.
    pub fn tell(&self, event: Event, entry: &Entry<'_>) {
        self.events.with_label_values(&[event.as_str()]).inc();
        let id = random::bytes::<16>().map(|bytes| random::base64url(&bytes)).unwrap_or_default();
        let since = std::time::Duration::from_millis(self.clock.now().as_millis());
        let time = std::time::UNIX_EPOCH.checked_add(since).map(humantime::format_rfc3339_millis);
        let session = entry.session.map(|key| self.pseudonyms.of(key));
        let failed = entry.failed || event.is_failure();
        tracing::info!(
            target: TARGET,
            stream = "audit",
            schema = SCHEMA,
            id,
            time = time.map(tracing::field::display),
            event = event.as_str(),
            result = if failed { "failure" } else { "success" },
            reason = entry.reason,
            actor = entry.actor.as_str(),
            site = entry.site,
            provider = entry.provider,
            sub = entry.subject,
            session = session.as_deref(),
            client_ip = entry.client_ip.map(tracing::field::display),
            sessions = entry.sessions,
            applied = entry.applied,
            needs_restart = entry.needs_restart,
        );
    }

    /// A provider refused the refresh token of a session, which ends with that.
    pub fn refresh_rejected(&self, entry: &Entry<'_>) {
        self.tell(Event::RefreshRejected, &Entry { actor: Actor::Idp, ..*entry });
        self.tell(Event::SessionEnded, &Entry { reason: Some(Event::RefreshRejected.as_str()), ..*entry });
    }

    /// New settings hold: which ones, by name, and which wait for a restart. Values are never told.
    pub fn config_changed(&self, applied: &[&str], needs_restart: &[&str]) {
        let (applied, needs_restart) = (applied.join(","), needs_restart.join(","));
        let needs_restart = Some(needs_restart.as_str()).filter(|names| !names.is_empty());
        self.tell(Event::ConfigChanged, &Entry { applied: Some(&applied), needs_restart, ..Entry::default() });
    }

    /// A record that cannot be read is told of once, however often it is asked for.
    pub fn unreadable(&self, entry: &Entry<'_>) {
        let Some(key) = entry.session else { return };
        if self.unreadable.get(key).is_none() {
            self.unreadable.insert(*key, ());
            self.tell(Event::SessionUnreadable, entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_schema_knows_every_event() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../docs/reference/audit.schema.json")).unwrap();
        let events: Vec<_> = Event::ALL.iter().map(|event| event.as_str()).collect();
        assert_eq!(schema["properties"]["event"]["enum"], serde_json::json!(events));
        assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_told_of_once() {
        let metrics = Metrics::new().unwrap();
        let audit = Audit::new(&Zeroizing::new([1; 32]), Clock::system(), &metrics);
        for session in [[1; 32], [2; 32], [1; 32], [1; 32]] {
            audit.unreadable(&Entry { session: Some(&session), ..Entry::default() });
        }
        let page = metrics.render();
        assert!(page.contains("cloakroom_audit_events_total{event=\"session_unreadable\"} 2"), "{page}");
    }
}
