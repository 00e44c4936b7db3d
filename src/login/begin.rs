//! A login has succeeded, whatever its kind: a session begins under a new id, and the browser's former one ends
//! (behaviour S7).

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};

use super::record;
use super::{Logins, Visit};
use crate::oidc::Tokens;
use crate::primitives::secret::SecretText;
use crate::provider::{Provider, Unclaimed};
use crate::session::cookie::Ticket;
use crate::session::manager::{NewSession, SessionError, entry_of, new_csrf_token};
use crate::session::model::Secrets;
use crate::session::open::Open;
use crate::session::ticket::{SessionId, TicketSeed};
use crate::store::record::Record;
use crate::telemetry::audit::Event;

/// Pauses between attempts to store a new session.
const BEGIN_PAUSES: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];

/// What a login has brought.
pub(super) struct Arrival {
    pub(super) tokens: Tokens,
    /// Revokes the refresh token if no session begins.
    pub(super) unclaimed: Unclaimed,
    /// `sub`
    pub(super) subject: String,
    /// `sid`
    pub(super) provider_session: Option<String>,
    /// Whether the refresh token outlives the user's logout.
    pub(super) offline: bool,
    pub(super) id_token: Option<SecretText>,
    /// How long ago the user might have authenticated, in seconds, if the login was begun with such a demand.
    pub(super) max_age: Option<u32>,
    pub(super) claims: Map<String, Value>,
}

impl Logins {
    /// `former` is the session that the browser had when the login began.
    pub(super) async fn begin(
        &self,
        visit: &Visit<'_>,
        provider: &Arc<Provider>,
        arrival: Arrival,
        former: Option<SessionId>,
    ) -> Result<Arc<Open>, SessionError> {
        let Arrival { tokens, unclaimed, subject, provider_session, offline, id_token, max_age, claims } = arrival;
        let context = self.former_context(visit, provider, former, &subject).await;
        let new = NewSession {
            provider: provider.name().to_string(),
            subject,
            provider_session,
            secrets: Secrets {
                access_token: tokens.access_token,
                bound: tokens.bound,
                access_issued: self.sessions.clock().now(),
                access_expires: tokens.access_expires,
                forced: None,
                max_age,
                refresh_token: tokens.refresh_token,
                refresh_expires: tokens.refresh_expires,
                offline,
                id_token,
                claims,
                context,
                csrf_token: new_csrf_token()?,
                tickets: TicketSeed::generate()?,
            },
        };
        // What was shown to the provider is spent: a store that fails for a moment must not cost the login.
        let mut pauses = BEGIN_PAUSES.iter();
        loop {
            match (self.sessions.begin(&new, &visit.site.profile).await, pauses.next()) {
                (Ok(open), _) => {
                    unclaimed.claim();
                    return Ok(open);
                }
                (Err(error), None) => return Err(error),
                (Err(error), Some(pause)) => {
                    tracing::warn!(%error, "a new session could not be stored yet");
                    tokio::time::sleep(*pause).await;
                }
            }
        }
    }

    /// What applications keep of the user, from the session that the browser had: a user who logs in again keeps it,
    /// another one gets nothing of it. A store that fails here loses it.
    async fn former_context(
        &self,
        visit: &Visit<'_>,
        provider: &Provider,
        former: Option<SessionId>,
        subject: &str,
    ) -> Map<String, Value> {
        if visit.site.profile.context.is_none() {
            return Map::new();
        }
        let shown = match visit.ticket {
            Ticket::One(id) => Some(id),
            _ => None,
        };
        // Only a ticket that opens the session speaks for its user: now, or as the login began.
        let key = match shown {
            Some(shown) => match self.sessions.recognise(&shown, &visit.site.profile).await {
                Ok(Some(open)) => *open.key(),
                _ => return Map::new(),
            },
            None => match former {
                Some(former) => former.key(),
                None => return Map::new(),
            },
        };
        let same = |old: &Record| {
            old.subject == subject && *old.provider == **provider.name() && *old.site == *visit.site.profile.site
        };
        match self.sessions.read(&key).await {
            Ok(Some((old, secrets))) if same(&old) => secrets.context,
            _ => Map::new(),
        }
    }

    /// Ends a session that nobody was given the ticket of. If the store fails here it ends by its own time.
    pub(super) async fn take_back(&self, provider: &Arc<Provider>, open: &Open) {
        match self.sessions.end(open.key()).await {
            Ok(Some(Secrets { refresh_token: Some(token), offline: false, .. })) => {
                tokio::spawn(provider.clone().revoke_patiently(token));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the session of a login that was taken back could not be ended"),
        }
    }

    /// The session that ends with a new login of this browser: one of this site that its ticket opens, also if it is over or
    /// its provider has left the site. Who merely knows which session a ticket is for, by one that is long exchanged or by a
    /// forged one, ends nobody's.
    pub(super) async fn session_to_succeed(&self, visit: &Visit<'_>) -> Result<Option<Arc<Open>>, SessionError> {
        match visit.ticket {
            Ticket::One(id) => self.sessions.left_behind(&id, &visit.site.profile).await,
            _ => Ok(None),
        }
    }

    /// The browser's former session ends with the new login, whether the browser showed it now or when the login began
    /// (`former`, of which it showed a good ticket then, which may be exchanged since), or got it from another tab meanwhile. An
    /// OpenID provider's refresh token is left alone: it is tied to the user's login with the provider, which goes on. A
    /// backend is told as at a logout, unless it gave the same one again (`token`). A store that fails here leaves the former
    /// session to end by its own time.
    pub(super) async fn end_former(
        &self,
        visit: &Visit<'_>,
        binding: Option<&str>,
        former: Option<SessionId>,
        open: &Open,
        token: Option<&SecretText>,
    ) {
        let result = async {
            let latest = match binding {
                Some(binding) => record::succeed(&self.sessions, visit.site, binding, open).await?,
                None => None,
            };
            let shown = self.session_to_succeed(visit).await?.map(|open| *open.key());
            for key in [shown, former.map(|id| id.key()), latest.map(|id| id.key())].into_iter().flatten() {
                let Some((key, record, secrets)) = self.sessions.end_one(&key).await? else { continue };
                self.sessions.audit().tell(Event::SessionEnded, &entry_of(&key, &record, "new_login"));
                let provider = visit.site.named(&record.provider).filter(|provider| provider.credentials().is_some());
                let old = secrets.and_then(|secrets| secrets.refresh_token);
                if let (Some(provider), Some(old)) = (provider, old)
                    && token.is_none_or(|token| token.expose() != old.expose())
                {
                    tokio::spawn(provider.clone().revoke_patiently(old));
                }
            }
            Ok::<(), SessionError>(())
        };
        if let Err(error) = result.await {
            tracing::warn!(%error, "a browser's former session could not be ended");
        }
    }
}
