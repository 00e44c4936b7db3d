//! The end of sessions that comes from outside: a provider's logout token, an administrator.

mod tombstone;

use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

pub use tombstone::{LIFE as TOMBSTONE_LIFE, Login};

use self::tombstone::Grave;
use crate::config::settings::LogoutScope;
use crate::oidc::{self, LogoutToken, Whose};
use crate::primitives::clock::Timestamp;
use crate::provider::Providers;
use crate::session::manager::{EndedSession, SessionError, Sessions, entry_of};
use crate::store::record::{Owner, Record, SessionKey};
use crate::store::{MarkKey, StoreError};
use crate::telemetry::Metrics;
use crate::telemetry::audit::{Actor, Entry, Event};

/// Sessions ended at a time.
const AT_ONCE: usize = 16;
/// Refresh tokens revoked at a time: the end of many sessions must not be a flood of requests at their provider.
const REVOCATIONS_AT_ONCE: usize = 8;

/// Ends sessions and sees to what follows from it.
pub struct Revoker {
    sessions: Arc<Sessions>,
    providers: Providers,
    metrics: Arc<Metrics>,
    turns: Arc<Semaphore>,
}

/// Who ended a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A provider, by a logout token.
    Backchannel,
    /// A provider, by way of the browser.
    Frontchannel,
    /// An administrator.
    Admin,
    /// The user, from another browser.
    User,
}

impl By {
    fn as_str(self) -> &'static str {
        match self {
            Self::Backchannel => "backchannel",
            Self::Frontchannel => "frontchannel",
            Self::Admin => "admin",
            Self::User => "user",
        }
    }

    fn actor(self) -> Actor {
        match self {
            Self::Backchannel | Self::Frontchannel => Actor::Idp,
            Self::Admin => Actor::Admin,
            Self::User => Actor::User,
        }
    }
}

/// Which sessions an administrator means. There is none for "all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// All of a user, at one provider or at any.
    User {
        /// `sub`
        subject: String,
        /// Name of the provider.
        provider: Option<String>,
    },
    /// All of a session at the provider.
    ProviderSession {
        /// `sid`
        sid: String,
        /// Name of the provider.
        provider: Option<String>,
    },
    /// This one.
    Session(SessionKey),
}

/// A logout token was good and yet did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LogoutFailure {
    /// Its `jti` is known: it has done its work before.
    #[error("the logout token was used before")]
    Replayed,
    /// The store failed. Nothing is remembered of the token: it may be sent again.
    #[error(transparent)]
    Session(#[from] SessionError),
}

impl From<StoreError> for LogoutFailure {
    fn from(error: StoreError) -> Self {
        Self::Session(error.into())
    }
}

impl Revoker {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(sessions: Arc<Sessions>, providers: Providers, metrics: Arc<Metrics>) -> Self {
        Self { sessions, providers, metrics, turns: Arc::new(Semaphore::new(REVOCATIONS_AT_ONCE)) }
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Names of all providers, sorted.
    #[must_use]
    pub fn providers(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.providers.keys().map(|name| &**name).collect();
        names.sort_unstable();
        names
    }

    /// Does what a verified logout token says (Back-Channel Logout §2.7) and tells how many sessions it ended.
    ///
    /// The `jti` is remembered at the end, so that a token whose work failed half way may be sent again (behaviour O5).
    ///
    /// # Errors
    /// [`LogoutFailure`]
    pub async fn log_out(
        &self,
        provider: &oidc::Provider,
        token: &LogoutToken,
        client_ip: IpAddr,
    ) -> Result<usize, LogoutFailure> {
        let (store, clock) = (self.sessions.store(), self.sessions.clock());
        let name = provider.name();
        let used = mark_key(&[b"logout token", name.as_bytes(), token.id.as_bytes()]);
        if store.marked(&used).await?.is_some() {
            return Err(LogoutFailure::Replayed);
        }
        // Before the sessions end: see `tombstone`.
        if let Some(sid) = token.whose.sid() {
            tombstone::set(&**store, name, Grave::Session(sid), clock.now(), clock.now()).await?;
        }
        let everything = token.whose.sid().is_none() || provider.logout_scope() == LogoutScope::User;
        if let Some(subject) = token.whose.subject().filter(|_| everything) {
            tombstone::set(&**store, name, Grave::Subject(subject), token.issued, clock.now()).await?;
        }
        let ended = match (&token.whose, provider.logout_scope()) {
            (Whose::Session { sid, .. }, LogoutScope::Session) => {
                self.end_of(&Owner::ProviderSession { provider: name, sid }, By::Backchannel, client_ip).await?
            }
            (Whose::Subject(subject) | Whose::Session { subject: Some(subject), .. }, _) => {
                self.end_of(&Owner::Subject { provider: name, subject }, By::Backchannel, client_ip).await?
            }
            (Whose::Session { sid, subject: None }, LogoutScope::User) => {
                self.end_users_of(name, sid, token.issued, client_ip).await?
            }
        };
        if !store.mark(&used, token.issued, token.dead).await? {
            return Err(LogoutFailure::Replayed);
        }
        let lag = clock.now().since(token.issued);
        self.metrics.revocation_lag_seconds.observe(lag.as_secs_f64());
        Ok(ended.len())
    }

    /// Ends the sessions of a session at the provider, as it says through the browser (Front-Channel Logout §3), and tells
    /// how many. Logins on their way that belong to it end too.
    ///
    /// # Errors
    /// [`SessionError`] if the store fails; a second call ends the rest.
    pub async fn log_out_in_front(
        &self,
        provider: &oidc::Provider,
        sid: &str,
        client_ip: IpAddr,
    ) -> Result<usize, SessionError> {
        let (store, now) = (self.sessions.store(), self.sessions.clock().now());
        tombstone::set(&**store, provider.name(), Grave::Session(sid), now, now).await?;
        let owner = Owner::ProviderSession { provider: provider.name(), sid };
        Ok(self.end_of(&owner, By::Frontchannel, client_ip).await?.len())
    }

    /// Ends the sessions that a user has in other browsers than this one, on all sites of the provider.
    ///
    /// # Errors
    /// [`SessionError`] if the store fails; a second call ends the rest.
    pub async fn log_out_elsewhere(
        &self,
        provider: &str,
        subject: &str,
        here: &SessionKey,
        client_ip: IpAddr,
    ) -> Result<usize, SessionError> {
        let found = self.sessions.store().find(&Owner::Subject { provider, subject }).await?;
        let others = found.into_iter().map(|(key, _)| key).filter(|key| key != here).collect();
        Ok(self.end_all(others, By::User, client_ip).await?.len())
    }

    /// Whether a logout has overtaken the login. To be asked after its session was stored.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn has_overtaken(&self, login: &Login<'_>) -> Result<bool, SessionError> {
        Ok(tombstone::covers(&**self.sessions.store(), login, self.sessions.clock().now()).await?)
    }

    /// The living sessions that an administrator means.
    ///
    /// # Errors
    /// [`SessionError`] if the store cannot say.
    pub async fn find(&self, selector: &Selector) -> Result<Vec<(SessionKey, Record)>, SessionError> {
        if let Selector::Session(key) = selector {
            let record = self.sessions.store().load(key).await?;
            return Ok(record.map(|record| (*key, record)).into_iter().collect());
        }
        let mut found = Vec::new();
        for owner in self.owners(selector) {
            found.extend(self.sessions.store().find(&owner).await?);
        }
        found.sort_by_key(|(key, record)| (record.created, *key));
        Ok(found)
    }

    /// Ends the sessions that an administrator means.
    ///
    /// # Errors
    /// [`SessionError`] if the store fails; some may have ended by then, and another call ends the rest.
    pub async fn revoke(&self, selector: &Selector, client_ip: IpAddr) -> Result<Vec<EndedSession>, SessionError> {
        if let Selector::Session(key) = selector {
            return self.end_all(vec![*key], By::Admin, client_ip).await;
        }
        let keys = self.find(selector).await?.into_iter().map(|(key, _)| key).collect();
        let mut ended = self.end_all(keys, By::Admin, client_ip).await?;
        for owner in self.owners(selector) {
            ended.extend(self.sweep(&owner, By::Admin, client_ip).await?);
        }
        Ok(ended)
    }

    fn owners<'a>(&'a self, selector: &'a Selector) -> Vec<Owner<'a>> {
        let (Selector::User { provider, .. } | Selector::ProviderSession { provider, .. }) = selector else {
            return Vec::new();
        };
        let providers = match provider {
            Some(one) => vec![one.as_str()],
            None => self.providers(),
        };
        let owner = |provider| match selector {
            Selector::User { subject, .. } => Some(Owner::Subject { provider, subject }),
            Selector::ProviderSession { sid, .. } => Some(Owner::ProviderSession { provider, sid }),
            Selector::Session(_) => None,
        };
        providers.into_iter().filter_map(owner).collect()
    }

    async fn end_of(&self, owner: &Owner<'_>, by: By, client_ip: IpAddr) -> Result<Vec<EndedSession>, SessionError> {
        let found = self.sessions.store().find(owner).await?;
        let mut ended = self.end_all(found.into_iter().map(|(key, _)| key).collect(), by, client_ip).await?;
        ended.extend(self.sweep(owner, by, client_ip).await?);
        Ok(ended)
    }

    /// Ends what is left of an owner's sessions: those that this version cannot read, which to a newer one on another
    /// replica are sessions like any other. [`SessionStore::find`] leaves them out.
    ///
    /// [`SessionStore::find`]: crate::store::SessionStore::find
    async fn sweep(&self, owner: &Owner<'_>, by: By, client_ip: IpAddr) -> Result<Vec<EndedSession>, SessionError> {
        let ended = self.sessions.end_of(owner).await?;
        for session in &ended {
            self.follow_up(session, by, client_ip);
        }
        Ok(ended)
    }

    /// Ends sessions several at a time. Each is followed up as soon as it has ended, so that a store that fails half way
    /// leaves no refresh token behind of which nobody knows.
    async fn end_all(
        &self,
        keys: Vec<SessionKey>,
        by: By,
        client_ip: IpAddr,
    ) -> Result<Vec<EndedSession>, SessionError> {
        let ending = futures::stream::iter(keys).map(|key| async move {
            let ended = self.sessions.end_one(&key).await?;
            if let Some(ended) = &ended {
                self.follow_up(ended, by, client_ip);
            }
            Ok::<_, SessionError>(ended)
        });
        let all: Vec<_> = ending.buffer_unordered(AT_ONCE).collect().await;
        let all: Result<Vec<_>, _> = all.into_iter().collect();
        Ok(all?.into_iter().flatten().collect())
    }

    /// Ends all sessions of the users of a provider's session, of whom the token says nothing else. The session itself
    /// ends last: while it is there, a second try finds its user.
    async fn end_users_of(
        &self,
        provider: &str,
        sid: &str,
        issued: Timestamp,
        client_ip: IpAddr,
    ) -> Result<Vec<EndedSession>, LogoutFailure> {
        let store = self.sessions.store();
        let mut ended = Vec::new();
        let mut found = store.find(&Owner::ProviderSession { provider, sid }).await?;
        found.dedup_by(|(_, one), (_, other)| one.subject == other.subject);
        for (_, Record { subject, .. }) in found {
            let now = self.sessions.clock().now();
            tombstone::set(&**store, provider, Grave::Subject(&subject), issued, now).await?;
            let mut all = store.find(&Owner::Subject { provider, subject: &subject }).await?;
            all.sort_by_key(|(_, record)| record.provider_session.as_deref() == Some(sid));
            for (key, _) in all {
                ended.extend(self.end_all(vec![key], By::Backchannel, client_ip).await?);
            }
            ended
                .extend(self.sweep(&Owner::Subject { provider, subject: &subject }, By::Backchannel, client_ip).await?);
        }
        ended.extend(self.sweep(&Owner::ProviderSession { provider, sid }, By::Backchannel, client_ip).await?);
        Ok(ended)
    }

    /// What follows from the end of a session: it is counted and written down, and its refresh token is revoked, unless
    /// it was granted to outlive the user's logout (Back-Channel Logout §2.7; behaviour O9).
    fn follow_up(&self, (key, record, secrets): &EndedSession, by: By, client_ip: IpAddr) {
        self.metrics.logouts_total.with_label_values(&[record.provider.as_str(), by.as_str()]).inc();
        let entry = entry_of(key, record, by.as_str());
        let entry = Entry { actor: by.actor(), client_ip: Some(client_ip), ..entry };
        self.sessions.audit().tell(Event::SessionEnded, &entry);
        let token =
            secrets.as_ref().filter(|secrets| !secrets.offline).and_then(|secrets| secrets.refresh_token.clone());
        let Some(provider) = self.providers.get(record.provider.as_str()) else { return };
        if let Some(secrets) =
            secrets.as_ref().filter(|one| provider.revokes_access_tokens() && !one.access_token.expose().is_empty())
        {
            let (provider, token, turn) = (provider.clone(), secrets.access_token.clone(), self.turns.clone());
            tokio::spawn(async move {
                let _turn = turn.acquire().await;
                provider.revoke_access_token(token).await;
            });
        }
        if let Some(token) = token {
            let provider = provider.clone();
            let turn = self.turns.clone();
            tokio::spawn(async move {
                let _turn = turn.acquire().await;
                provider.revoke_patiently(token).await;
            });
        }
    }
}

/// The name of a remembered fact: its parts, each behind its length (behaviour K3).
fn mark_key(parts: &[&[u8]]) -> MarkKey {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    MarkKey(hash.finalize().into())
}
