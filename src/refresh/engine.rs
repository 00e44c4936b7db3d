//! The refresh of one session's tokens on demand.
//!
//! Within a process each session has at most one refresh under way. The new tokens are stored before anyone gets them
//! (behaviour R4); a logout that came first wins, and the late refresh token is revoked (R6). What an error means for
//! the session follows the table of R10. Replicas are not yet coordinated: the lease in the record has its place between
//! reading the record and calling the provider.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::Cache;

use super::flight::Flights;
use crate::oidc::{self, Previous, Provider, Providers, RefreshError};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;
use crate::session::manager::Sessions;
use crate::session::model::{Record, Secrets, SessionId, SessionKey};
use crate::session::open::{Open, Profile};
use crate::store::Swap;
use crate::telemetry::Metrics;

/// How long a request waits for a refresh while its own token still lives.
const WAIT_ALIVE: Duration = Duration::from_secs(2);
/// How long a request waits for a refresh when its token is dead.
const WAIT_DEAD: Duration = Duration::from_secs(8);
/// How long new tokens are held while the store does not take them.
const STORE_PATIENCE: Duration = Duration::from_secs(60);
/// Pause after a refused connection, 429, 500 or 503 that names no time itself.
const PAUSE_UNAVAILABLE: Duration = Duration::from_secs(1);
/// Longest pause that a provider may ask for.
const PAUSE_LONGEST: Duration = Duration::from_secs(60);
/// Pause after an answer that says our own settings are wrong.
const PAUSE_MISCONFIGURED: Duration = Duration::from_secs(30);
/// A refresh token whose last use is in doubt is not shown again within this time (behaviour R8).
const PAUSE_IN_DOUBT: Duration = Duration::from_secs(600);
/// Sessions whose pause is remembered.
const PAUSES: usize = 50_000;

/// What became of the wish for a fresh token.
#[derive(Clone)]
pub enum Refreshed {
    /// The session with a fresh token.
    Renewed(Arc<Open>),
    /// The session is over: the provider refused the refresh token, or a logout came first.
    Ended,
    /// No fresh token for now; the session is kept.
    Failed(Failure),
}

/// Why there is no fresh token although the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The provider gave none; there is nothing to refresh with.
    NoRefreshToken,
    /// The provider is not reached, busy, or refuses us as a client; ask again after this time.
    Provider(Duration),
    /// Nobody knows whether the provider used up the refresh token.
    InDoubt,
    /// The session store is not there.
    Store,
}

#[derive(Clone, Copy)]
struct Pause {
    generation: u64,
    until: Timestamp,
    failure: Failure,
}

/// Refreshes tokens of sessions.
pub struct Refresher {
    sessions: Arc<Sessions>,
    providers: Providers,
    minimum_lifetime: Duration,
    flights: Flights<SessionKey, Refreshed>,
    pauses: Cache<SessionKey, Pause>,
    metrics: Arc<Metrics>,
}

impl Refresher {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        providers: Providers,
        minimum_lifetime: Duration,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let (flights, pauses) = (Flights::new(), Cache::new(PAUSES));
        Arc::new(Self { sessions, providers, minimum_lifetime, flights, pauses, metrics })
    }

    /// Whether the session's access token may go upstream as it is.
    #[must_use]
    pub fn is_fresh(&self, open: &Open) -> bool {
        open.is_fresh(self.sessions.clock().now(), self.minimum_lifetime)
    }

    /// The session with an access token that has `minimum_lifetime` left. Where there is none to be had, a token that
    /// still lives is used to its end.
    pub async fn freshen(self: &Arc<Self>, open: Arc<Open>, profile: &Arc<Profile>) -> Refreshed {
        if self.is_fresh(&open) {
            return Refreshed::Renewed(open);
        }
        let now = self.sessions.clock().now();
        let result = match self.pauses.get(open.key()) {
            Some(pause) if pause.generation == open.generation() && now < pause.until => {
                Refreshed::Failed(pause.failure)
            }
            _ if !open.has_refresh_token() => Refreshed::Failed(Failure::NoRefreshToken),
            _ => self.wait(&open, profile, now).await,
        };
        match result {
            Refreshed::Failed(_) if open.is_alive(self.sessions.clock().now()) => Refreshed::Renewed(open),
            other => other,
        }
    }

    async fn wait(self: &Arc<Self>, open: &Arc<Open>, profile: &Arc<Profile>, now: Timestamp) -> Refreshed {
        let patience = if open.is_alive(now) { WAIT_ALIVE } else { WAIT_DEAD };
        let waiters = self.metrics.token_refresh_waiters.with_label_values(&[open.provider()]);
        waiters.inc();
        let flight = self.flights.join(*open.key(), || {
            let (engine, open, profile) = (self.clone(), open.clone(), profile.clone());
            async move { engine.run(&open, &profile).await }
        });
        let result = tokio::time::timeout(patience, flight).await;
        waiters.dec();
        // A waiter that gives up ends nothing: the refresh goes on without it (behaviour R9).
        result.ok().flatten().unwrap_or(Refreshed::Failed(Failure::Provider(PAUSE_UNAVAILABLE)))
    }

    /// The one refresh of a session that is under way.
    async fn run(&self, open: &Open, profile: &Profile) -> Refreshed {
        let (record, secrets) = match self.sessions.read(open.key()).await {
            Ok(Some(read)) => read,
            Ok(None) => return Refreshed::Ended,
            Err(error) => {
                tracing::warn!(%error, "a session could not be read for its refresh");
                return Refreshed::Failed(Failure::Store);
            }
        };
        if record.generation != open.generation() {
            // Somebody was faster; the result is in the record.
            let Some(newer) = self.sessions.remember(*open.id(), &record, &secrets, profile) else {
                return Refreshed::Ended;
            };
            if self.is_fresh(&newer) {
                return Refreshed::Renewed(newer);
            }
        }
        let Some(provider) = self.providers.get(record.provider.as_str()) else {
            tracing::error!(provider = record.provider, "a session's provider is no longer in the settings");
            return Refreshed::Failed(Failure::NoRefreshToken);
        };
        let Some(refresh_token) = secrets.usable_refresh_token() else {
            return Refreshed::Failed(Failure::NoRefreshToken);
        };

        let timer = self.metrics.token_refresh_duration_seconds.with_label_values(&[provider.name()]).start_timer();
        let previous = Previous { subject: &record.subject, auth_time: auth_time(&secrets), nonce: None };
        let answer = provider.refresh(refresh_token, previous).await;
        timer.observe_duration();
        self.count(provider, &answer);
        match answer {
            Ok(tokens) => self.keep(open, profile, provider, record, merge(&secrets, tokens, self.now())).await,
            Err(error) => self.refused(open, profile, &record, secrets, error).await,
        }
    }

    /// Stores new tokens, however long it takes within reason, and only then hands them out.
    async fn keep(
        &self,
        open: &Open,
        profile: &Profile,
        provider: &Arc<Provider>,
        mut record: Record,
        secrets: Secrets,
    ) -> Refreshed {
        let generation = record.generation;
        let started = tokio::time::Instant::now();
        let mut pause = Duration::from_millis(50);
        loop {
            match self.sessions.write(open.key(), &record, &secrets).await {
                Ok((Swap::Stored, stored)) => {
                    return self.renewed(open, profile, &stored, &secrets);
                }
                Ok((Swap::Gone, _)) => return Self::too_late(provider, &secrets),
                Ok((Swap::Conflict, _)) => match self.sessions.read(open.key()).await {
                    Ok(None) => return Self::too_late(provider, &secrets),
                    Ok(Some((now, theirs))) if now.generation != generation => {
                        // Ours, if an earlier try was done though the store seemed to fail. Else another replica stored
                        // newer tokens: theirs count, ours are superfluous.
                        if theirs.access_token.expose() != secrets.access_token.expose() {
                            Self::revoke(provider, secrets.refresh_token.as_ref());
                        }
                        return self.renewed(open, profile, &now, &theirs);
                    }
                    Ok(Some((now, _))) => {
                        record = now;
                        continue;
                    }
                    Err(_) => {}
                },
                Err(error) => tracing::warn!(%error, "refreshed tokens are held until the store takes them"),
            }
            if started.elapsed() > STORE_PATIENCE {
                tracing::error!(
                    "refreshed tokens could not be stored and are given up; the session may have to log in"
                );
                self.pause(open.key(), generation, PAUSE_IN_DOUBT, Failure::InDoubt);
                return Refreshed::Failed(Failure::Store);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn renewed(&self, open: &Open, profile: &Profile, record: &Record, secrets: &Secrets) -> Refreshed {
        // A logout that came after the tokens were stored found them there and revokes them itself.
        let renewed = self.sessions.remember(*open.id(), record, secrets, profile);
        renewed.map_or(Refreshed::Ended, Refreshed::Renewed)
    }

    /// The session ended while its refresh was under way: logout wins.
    fn too_late(provider: &Arc<Provider>, secrets: &Secrets) -> Refreshed {
        Self::revoke(provider, secrets.refresh_token.as_ref());
        Refreshed::Ended
    }

    /// Nobody waits for a revocation.
    fn revoke(provider: &Arc<Provider>, token: Option<&SecretText>) {
        if let Some(token) = token {
            tokio::spawn(provider.clone().revoke_patiently(token.clone()));
        }
    }

    async fn refused(
        &self,
        open: &Open,
        profile: &Profile,
        record: &Record,
        secrets: Secrets,
        error: RefreshError,
    ) -> Refreshed {
        let provider = record.provider.as_str();
        let (pause, failure) = match error {
            RefreshError::Rejected(_) | RefreshError::IdentityChanged(_) => {
                return self.rejected(open, profile, record, &error).await;
            }
            RefreshError::Misconfigured(ref code) => {
                tracing::error!(provider, code, "the provider refuses us as a client; check client_id and client_auth");
                (PAUSE_MISCONFIGURED, Failure::Provider(PAUSE_MISCONFIGURED))
            }
            RefreshError::Unavailable { ref reason, retry_after } => {
                let pause = retry_after.unwrap_or(PAUSE_UNAVAILABLE).clamp(PAUSE_UNAVAILABLE, PAUSE_LONGEST);
                tracing::warn!(provider, reason, "the provider cannot refresh tokens now");
                (pause, Failure::Provider(pause))
            }
            RefreshError::InDoubt(ref why) => {
                tracing::warn!(provider, why, "the outcome of a token refresh is unknown");
                self.note_doubt(open, profile, record, secrets).await;
                (PAUSE_IN_DOUBT, Failure::InDoubt)
            }
        };
        self.pause(open.key(), record.generation, pause, failure);
        Refreshed::Failed(failure)
    }

    fn pause(&self, key: &SessionKey, generation: u64, length: Duration, failure: Failure) {
        self.pauses.insert(*key, Pause { generation, until: self.now().plus(length), failure });
    }

    /// Writes into the record that the refresh token is not to be shown again, by no replica and after no restart. If
    /// the store fails, this process alone keeps it in mind for a while.
    async fn note_doubt(&self, open: &Open, profile: &Profile, record: &Record, secrets: Secrets) {
        let secrets = Secrets { refresh_in_doubt: true, ..secrets };
        match self.sessions.write(open.key(), record, &secrets).await {
            Ok((Swap::Stored, stored)) => {
                self.sessions.remember(*open.id(), &stored, &secrets, profile);
            }
            // A logout, or newer tokens of another replica: there is nothing left to doubt.
            Ok((Swap::Gone | Swap::Conflict, _)) => {}
            Err(error) => tracing::warn!(%error, "a refresh token in doubt could not be marked in the store"),
        }
    }

    /// The provider says the refresh token is worth nothing. If another replica used it meanwhile its result counts,
    /// else the session is over (behaviour R10).
    async fn rejected(&self, open: &Open, profile: &Profile, read: &Record, error: &RefreshError) -> Refreshed {
        match self.sessions.read(open.key()).await {
            Ok(Some((record, secrets))) if record.generation != read.generation => {
                return self.renewed(open, profile, &record, &secrets);
            }
            Ok(_) => {}
            Err(_) => return Refreshed::Failed(Failure::Store),
        }
        tracing::info!(provider = read.provider, %error, "a session ends: its refresh token was refused");
        self.end(open.id(), &read.provider).await
    }

    async fn end(&self, id: &SessionId, provider: &str) -> Refreshed {
        match self.sessions.end(id).await {
            Ok(_) => {
                self.metrics.logouts_total.with_label_values(&[provider, "refresh_rejected"]).inc();
                Refreshed::Ended
            }
            Err(_) => Refreshed::Failed(Failure::Store),
        }
    }

    fn count(&self, provider: &Provider, answer: &Result<oidc::Refreshed, RefreshError>) {
        let result = match answer {
            Ok(_) => "ok",
            Err(RefreshError::Rejected(_) | RefreshError::IdentityChanged(_)) => "invalid_grant",
            Err(RefreshError::Misconfigured(_)) => "client_error",
            Err(RefreshError::Unavailable { retry_after: Some(_), .. }) => "throttled",
            Err(RefreshError::Unavailable { retry_after: None, .. }) => "error",
            Err(RefreshError::InDoubt(_)) => "timeout",
        };
        self.metrics.token_refreshes_total.with_label_values(&[provider.name(), "inline", result]).inc();
    }

    fn now(&self) -> Timestamp {
        self.sessions.clock().now()
    }
}

/// The newest of each kind of token; what the provider did not send anew is kept (behaviour R5, R12).
fn merge(old: &Secrets, new: oidc::Refreshed, now: Timestamp) -> Secrets {
    let oidc::Refreshed { tokens, id_token } = new;
    let (refresh_token, refresh_expires) = match tokens.refresh_token {
        Some(token) => (Some(token), tokens.refresh_expires),
        None => (old.refresh_token.clone(), old.refresh_expires),
    };
    let (id_token, claims) = match id_token {
        Some(fresh) => (Some(fresh.text), fresh.claims),
        None => (old.id_token.clone(), old.claims.clone()),
    };
    Secrets {
        access_token: tokens.access_token,
        access_issued: now,
        access_expires: tokens.access_expires,
        refresh_token,
        refresh_expires,
        refresh_in_doubt: false,
        id_token,
        claims,
        csrf_token: old.csrf_token.clone(),
    }
}

/// `auth_time` of the session's ID token (Core §2).
fn auth_time(secrets: &Secrets) -> Option<Timestamp> {
    secrets.claims.get("auth_time")?.as_u64().map(Timestamp::from_secs)
}
