//! An opened session, as the local cache keeps it: only what a request needs, ready made.
//!
//! The refresh token, the ID token and the claims stay sealed in the store; they are opened when a refresh, a logout or
//! `/userinfo` asks for them. So an entry costs little memory, and a request with a cached session does no cryptography
//! and formats nothing.

mod lasting;
mod weight;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::HeaderValue;

pub(super) use self::lasting::Lasting;
use super::claims::claim_header;
use super::context;
use super::cookie::Cookies;
use super::issued::Slot;
use super::model::Secrets;
use super::plan::is_fresh;
use super::profile::Profile;
use super::proxy_token::{Minted, ProxyTokens};
use super::rules::judge;
use super::ticket::SessionId;
use crate::config::settings::Level;
use crate::primitives::clock::Timestamp;
use crate::primitives::dpop;
use crate::primitives::secret::SecretText;
use crate::store::record::{Record, SessionKey};

/// How far behind its plan a refresh must be before a request begins it.
const OVERDUE: Duration = Duration::from_secs(3);

/// An opened session.
pub struct Open {
    id: SessionId,
    /// The ticket before the present one, and until when it counts.
    former: Option<(SessionId, Timestamp)>,
    /// When the ticket is to be exchanged for a new one; `None` = never.
    rotate_at: Option<Timestamp>,
    rotating: AtomicBool,
    /// When its tokens are due for a refresh, if ever.
    due: Option<Timestamp>,
    hurried: AtomicBool,
    subject: Box<str>,
    minted: ArcSwapOption<Minted>,
    /// Of each target of the profile, made for this access token.
    exchanged: Box<[Arc<Slot>]>,
    holds_tokens: bool,
    parting: AtomicBool,
    key: SessionKey,
    version: u64,
    generation: u64,
    profile: Arc<Profile>,
    provider: Arc<str>,
    absolute_end: Timestamp,
    /// The absolute end is that of the refresh token.
    ends_with_provider: bool,
    access_issued: Timestamp,
    access_expires: Option<Timestamp>,
    has_refresh_token: bool,
    authorization: Option<HeaderValue>,
    /// Of an access token that goes with a proof.
    token_hash: Option<Box<str>>,
    id_authorization: Option<HeaderValue>,
    identity: Box<[Option<HeaderValue>]>,
    met: Box<[bool]>,
    /// For a user who returns, and for one who is logged on.
    context: Option<Box<[Option<HeaderValue>; 2]>>,
    csrf_token: SecretText,
    csrf_cookie: Option<HeaderValue>,
    last_seen: AtomicU64,
    idle_end: AtomicU64,
    returning_end: AtomicU64,
    checked: AtomicU64,
    ended: AtomicBool,
    bytes: u64,
}

/// When tickets are exchanged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rotation {
    /// Zero = never.
    pub(super) every: Duration,
    /// How long the ticket before the present one counts.
    pub(super) grace: Duration,
}

impl Open {
    /// Prepares a session for its requests. `checked` is when the record was read.
    pub(super) fn new(
        record: &Record,
        secrets: &Secrets,
        profile: &Arc<Profile>,
        cookies: &Cookies,
        rotation: Rotation,
        checked: Timestamp,
    ) -> Self {
        let id = secrets.tickets.ticket(record.rotation);
        let former = record.rotation.checked_sub(1).map(|before| secrets.tickets.ticket(before));
        let mut open = Self {
            id,
            former: former.map(|former| (former, record.rotated.plus(rotation.grace))),
            rotate_at: (!rotation.every.is_zero()).then(|| record.rotated.plus(rotation.every)),
            rotating: AtomicBool::new(false),
            due: record.due,
            hurried: AtomicBool::new(false),
            subject: if profile.proxy_token { record.subject.as_str().into() } else { Box::default() },
            minted: ArcSwapOption::empty(),
            exchanged: profile.exchanges.iter().map(|_| Arc::default()).collect(),
            holds_tokens: secrets.has_tokens(),
            parting: AtomicBool::new(false),
            key: id.key(),
            version: record.version,
            generation: record.generation,
            profile: profile.clone(),
            provider: shared(&profile.providers, &record.provider),
            absolute_end: record.absolute_end,
            ends_with_provider: secrets.refresh_expires.is_some_and(|end| end <= record.absolute_end),
            access_issued: secrets.access_issued,
            access_expires: secrets.access_expires,
            has_refresh_token: secrets.refresh_token.is_some() && record.refresh_in_doubt.is_none(),
            authorization: authorization(secrets.bound, &secrets.access_token),
            token_hash: secrets.bound.then(|| dpop::token_hash(secrets.access_token.expose()).into()),
            id_authorization: secrets
                .id_token
                .as_ref()
                .filter(|_| profile.id_token)
                .and_then(|token| authorization(false, token)),
            identity: profile.claims.iter().map(|path| claim_header(&secrets.claims, path)).collect(),
            context: profile.context.as_ref().map(|told| {
                let (provider, subject) = (&record.provider, &record.subject);
                let header = |level| context::header(level, provider, subject, &secrets.claims, told, &secrets.context);
                Box::new([header(Level::Returning), header(Level::LoggedOn)])
            }),
            met: judge(&profile.conditions, &secrets.claims),
            csrf_cookie: cookies.set_csrf(secrets.csrf_token.expose()),
            csrf_token: secrets.csrf_token.clone(),
            last_seen: AtomicU64::new(record.last_seen.as_millis()),
            idle_end: AtomicU64::new(record.idle_end.as_millis()),
            returning_end: AtomicU64::new(record.returning_end.as_millis()),
            checked: AtomicU64::new(checked.as_millis()),
            ended: AtomicBool::new(false),
            bytes: 0,
        };
        open.bytes = open.measure();
        open
    }

    /// The present ticket.
    #[must_use]
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whether a ticket opens this session: the present one, or for a while the one before (behaviour S8).
    #[must_use]
    pub fn takes(&self, id: &SessionId, now: Timestamp) -> bool {
        self.id.is(id) || self.former.as_ref().is_some_and(|(former, until)| now < *until && former.is(id))
    }

    /// Whether it is time for a new ticket.
    #[must_use]
    pub fn is_rotation_due(&self, now: Timestamp) -> bool {
        self.rotate_at.is_some_and(|at| at <= now)
    }

    /// Whether a refresh in the background is overdue by more than it takes one to be done.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.due.is_some_and(|due| due.plus(OVERDUE) <= now)
    }

    /// `true` for the one caller that is to hurry an overdue refresh.
    #[must_use]
    pub fn claim_hurry(&self) -> bool {
        !self.hurried.swap(true, Ordering::Relaxed)
    }

    /// Whether there is an access or a refresh token in it.
    #[must_use]
    pub fn holds_tokens(&self) -> bool {
        self.holds_tokens
    }

    /// `true` for the one caller that is to take its tokens out.
    #[must_use]
    pub fn claim_parting(&self) -> bool {
        !self.parting.swap(true, Ordering::Relaxed)
    }

    /// Lets somebody else try.
    pub fn release_parting(&self) {
        self.parting.store(false, Ordering::Relaxed);
    }

    /// `true` for the one caller that is to rotate it.
    pub(super) fn claim_rotation(&self) -> bool {
        !self.rotating.swap(true, Ordering::Relaxed)
    }

    /// Lets somebody else try.
    pub(super) fn release_rotation(&self) {
        self.rotating.store(false, Ordering::Relaxed);
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
        &self.profile.site
    }

    /// What its site wants prepared.
    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The provider that made it.
    #[must_use]
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The same, to be kept.
    #[must_use]
    pub fn shared_provider(&self) -> &Arc<str> {
        &self.provider
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

    /// `Bearer …` or `DPoP …` with the access token; `None` if the token has bytes that no header may carry.
    #[must_use]
    pub fn authorization(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }

    /// What a proof beside the access token says of it (RFC 9449 §4.2); `None` = it needs none.
    #[must_use]
    pub fn token_hash(&self) -> Option<&str> {
        self.token_hash.as_deref()
    }

    /// `Bearer …` with the ID token, where the site's [`Profile`] asks for it.
    #[must_use]
    pub fn id_authorization(&self) -> Option<&HeaderValue> {
        self.id_authorization.as_ref()
    }

    /// `Bearer …` with a proxy token that has at least half of its life left. Made when it is first asked for, and once in
    /// half a life; it is the same for all requests meanwhile.
    #[must_use]
    pub fn proxy_authorization(&self, tokens: &ProxyTokens, now: Timestamp) -> Option<HeaderValue> {
        if let Some(minted) = &*self.minted.load()
            && now < minted.renew_at
        {
            return Some(minted.authorization.clone());
        }
        let minted = tokens.mint(&self.key, &self.provider, &self.subject, now)?;
        let authorization = minted.authorization.clone();
        self.minted.store(Some(Arc::new(minted)));
        Some(authorization)
    }

    /// The place of the token that the access token is exchanged for, by target of the site's [`Profile`].
    #[must_use]
    pub fn exchanged(&self, target: usize) -> Option<&Arc<Slot>> {
        self.exchanged.get(target)
    }

    /// The header value of a claim of the site's [`Profile`].
    #[must_use]
    pub fn identity(&self, claim: usize) -> Option<&HeaderValue> {
        self.identity.get(claim)?.as_ref()
    }

    /// What applications are told of a user of this level, where the site's [`Profile`] asks for it.
    #[must_use]
    pub fn context(&self, level: Level) -> Option<&HeaderValue> {
        let [returning, logged_on] = &**self.context.as_ref()?;
        match level {
            Level::Returning => returning.as_ref(),
            Level::LoggedOn => logged_on.as_ref(),
        }
    }

    /// Whether the user's claims meet a condition of the site's [`Profile`].
    #[must_use]
    pub fn meets(&self, condition: usize) -> bool {
        self.met.get(condition).is_some_and(|met| *met)
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

    /// Whether the access token has at least `minimum` left; see [`is_fresh`].
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp, minimum: Duration) -> bool {
        is_fresh(self.access_issued, self.access_expires, now, minimum)
    }

    /// Whether the access token still lives at all.
    #[must_use]
    pub fn is_alive(&self, now: Timestamp) -> bool {
        self.access_expires.is_none_or(|end| now < end)
    }

    /// Takes over the uses that `older` knows of and the store perhaps does not yet, and what its access token was
    /// exchanged for, if it is the same one.
    pub(super) fn inherit(&mut self, older: &Self) {
        if self.authorization == older.authorization {
            for (place, target) in self.exchanged.iter_mut().zip(&self.profile.exchanges) {
                let known = older.profile.exchanges.iter().position(|other| other == target);
                if let Some(slot) = known.and_then(|index| older.exchanged.get(index)) {
                    place.clone_from(slot);
                }
            }
        }
        self.last_seen.fetch_max(older.last_seen.load(Ordering::Relaxed), Ordering::Relaxed);
        self.idle_end.fetch_max(older.idle_end.load(Ordering::Relaxed), Ordering::Relaxed);
        self.returning_end.fetch_max(older.returning_end.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// One of `known` where it is one of them, for they are there anyway.
fn shared(known: &[Arc<str>], name: &str) -> Arc<str> {
    known.iter().find(|known| ***known == *name).map_or_else(|| name.into(), Arc::clone)
}

fn authorization(bound: bool, token: &SecretText) -> Option<HeaderValue> {
    if token.expose().is_empty() { None } else { dpop::authorization(bound, token) }
}
