//! Tokens for single upstreams: one request at the provider for all who wait.
//!
//! Each is kept where what it comes from is kept, see [`Slot`]. A request runs in a task of its own: whoever stops waiting
//! cancels nothing. Those of our own are replaced in the background as well, see [`keep`](Grants::keep).

mod keep;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use quick_cache::sync::Cache;

use crate::config::settings::{self, ClientToken, Target};
use crate::oidc::{OidcError, Provider, ServiceToken};
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;
use crate::provider::Providers;
use crate::refresh::Refresher;
use crate::session::issued::{Issued, Lack, Slot, Turn};
use crate::session::manager::Sessions;
use crate::store::record::SessionKey;
use crate::telemetry::audit::{Actor, Entry, Event};
use crate::telemetry::traces::carried;
use crate::telemetry::{Metrics, Throttle};

/// How long a request waits for a new token if the present one outlives that.
const WAIT_ALIVE: Duration = Duration::from_secs(2);
/// How long a request waits when there is no token.
const WAIT_DEAD: Duration = Duration::from_secs(8);
/// Life of a token of which the provider does not say how long it lives.
const UNSAID: Duration = Duration::from_secs(300);
/// How long a provider that gives no token is not asked for this one again.
const PAUSE_REFUSED: Duration = Duration::from_secs(10);
/// The same for one that does not answer, unless it says itself how long.
const PAUSE_UNAVAILABLE: Duration = Duration::from_secs(1);
const PAUSE_LONGEST: Duration = Duration::from_secs(60);

/// Sessions and targets of which it is remembered that another access token helps nothing.
const IN_VAIN: usize = 10_000;

/// Gets tokens for single upstreams.
pub struct Grants {
    sessions: Arc<Sessions>,
    refresher: Arc<Refresher>,
    providers: Providers,
    minimum_lifetime: Duration,
    /// How long before its end a token of our own is replaced while the old one still serves.
    ahead: Duration,
    /// Of whom it is replaced although nobody asks just then: tokens that were asked for within this time. `None` = never.
    kept_within: Option<Duration>,
    /// Where a refresh has been in vain: what the provider did not like is not the access token.
    in_vain: Cache<(SessionKey, Target), ()>,
    /// Places of tokens of our own; they outlast the settings that ask for them.
    clients: Mutex<HashMap<ClientToken, Arc<Slot>>>,
    metrics: Arc<Metrics>,
}

/// A token that is wanted.
#[derive(Clone)]
pub struct Wish {
    /// Its place.
    pub slot: Arc<Slot>,
    /// Who gives it.
    pub provider: Arc<Provider>,
    /// The user's access token, which it is given for; `None` = it is one of our own.
    pub subject: Option<SecretText>,
    /// What it is to be good for.
    pub target: Target,
    /// For the audit log; `None` = nobody waits for it.
    pub whose: Option<Whose>,
}

/// Whose request asks.
#[derive(Clone)]
pub struct Whose {
    /// Name of the site.
    pub site: Arc<str>,
    /// The session.
    pub session: Option<SessionKey>,
    /// `sub` of a client that came with a token of its own.
    pub subject: Option<String>,
    /// Where the request came from.
    pub client_ip: IpAddr,
}

/// No token, and when to ask again.
pub type NoToken = (Lack, Duration);

impl Grants {
    /// Ties the parts together. No I/O.
    #[must_use]
    pub fn new(
        sessions: Arc<Sessions>,
        refresher: Arc<Refresher>,
        providers: Providers,
        settings: &settings::Refresh,
        metrics: Arc<Metrics>,
    ) -> Self {
        let minimum_lifetime = settings.minimum_lifetime;
        let ahead = settings.ahead.max(minimum_lifetime);
        let kept_within = (!settings.ahead.is_zero()).then_some(settings.active_within);
        let (in_vain, clients) = (Cache::new(IN_VAIN), Mutex::default());
        Self { sessions, refresher, providers, minimum_lifetime, ahead, kept_within, in_vain, clients, metrics }
    }

    /// Whether it is worth a refresh that a session's access token is not exchanged for this reason.
    #[must_use]
    pub fn blames_token(&self, session: &SessionKey, target: &Target, lack: Lack) -> bool {
        match lack {
            Lack::Stale => true,
            Lack::Unclear => self.in_vain.get(&(*session, target.clone())).is_none(),
            Lack::Denied | Lack::Refused | Lack::Unavailable => false,
        }
    }

    /// Notes what became of an exchange for which the access token had been refreshed: what the provider says of a token that
    /// is new is not about the token, and that session need not be refreshed for this target again.
    pub fn note_newer(&self, session: &SessionKey, target: &Target, result: &Result<HeaderValue, NoToken>) {
        if let Err((Lack::Unclear, _)) = result {
            self.in_vain.insert((*session, target.clone()), ());
        }
    }

    /// The place of a token of our own: one for all routes and requests that send it, whatever becomes of the settings.
    #[must_use]
    pub fn place_of(&self, token: &ClientToken) -> Arc<Slot> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|known, slot| known == token || Arc::strong_count(slot) > 1);
        clients.entry(token.clone()).or_default().clone()
    }

    /// The token of our own of a place, if it need not be waited for. One that is about to end is replaced meanwhile: `wish`
    /// says what to ask for.
    #[must_use]
    pub fn own(self: &Arc<Self>, slot: &Slot, wish: impl FnOnce() -> Option<Wish>) -> Option<HeaderValue> {
        let now = self.now();
        slot.note(now);
        if let Some(token) = slot.fresh(now, self.ahead) {
            return Some(token);
        }
        let token = slot.fresh(now, self.minimum_lifetime)?;
        if slot.lack(now).is_none()
            && !slot.is_taken()
            && let Some(wish) = wish()
        {
            let engine = self.clone();
            tokio::spawn(async move { engine.fill(&wish, None).await });
        }
        Some(token)
    }

    /// The token of a place, if it has enough of its life left.
    #[must_use]
    pub fn fresh(&self, slot: &Slot) -> Option<HeaderValue> {
        slot.fresh(self.now(), self.minimum_lifetime)
    }

    /// The token of a place, from the provider if need be. Where there is none to be had, one that still lives is used to
    /// its end.
    ///
    /// # Errors
    /// [`NoToken`]
    pub async fn token(self: &Arc<Self>, wish: Wish) -> Result<HeaderValue, NoToken> {
        let slot = wish.slot.clone();
        let patience = if slot.alive(self.now().plus(WAIT_ALIVE)).is_some() { WAIT_ALIVE } else { WAIT_DEAD };
        let result = self.wait(wish, None, patience).await;
        result.or_else(|lack| slot.alive(self.now()).ok_or(lack))
    }

    /// Another token than the one that an upstream has refused although its time is not over; from the provider once in
    /// five minutes (behaviour B5). `None` if there is none to be had.
    pub async fn another(self: &Arc<Self>, wish: Wish, refused: &HeaderValue) -> Option<HeaderValue> {
        let got = self.wait(wish, Some(refused.clone()), WAIT_DEAD).await.ok()?;
        (got != *refused).then_some(got)
    }

    async fn wait(
        self: &Arc<Self>,
        wish: Wish,
        refused: Option<HeaderValue>,
        patience: Duration,
    ) -> Result<HeaderValue, NoToken> {
        let waiters = self.metrics.upstream_token_waiters.with_label_values(&[&**wish.provider.name()]);
        waiters.inc();
        let engine = self.clone();
        let work = tokio::spawn(carried(async move { engine.fill(&wish, refused.as_ref()).await }));
        let result = tokio::time::timeout(patience, work).await;
        waiters.dec();
        match result {
            Ok(Ok(result)) => result,
            // It goes on without us, or it panicked.
            Ok(Err(_)) | Err(_) => Err((Lack::Unavailable, PAUSE_UNAVAILABLE)),
        }
    }

    /// Those who come while the provider is asked find what it said.
    async fn fill(&self, wish: &Wish, refused: Option<&HeaderValue>) -> Result<HeaderValue, NoToken> {
        let turn = wish.slot.turn().await;
        let now = self.now();
        let least = if wish.subject.is_some() { self.minimum_lifetime } else { self.ahead };
        if let Some(token) = wish.slot.fresh(now, least).filter(|token| Some(token) != refused) {
            return Ok(token);
        }
        if let Some(lack) = wish.slot.lack(now) {
            return Err(lack);
        }
        if refused.is_some() && wish.slot.alive(now).is_some() && !turn.may_replace(now) {
            return Err((Lack::Refused, PAUSE_REFUSED));
        }
        let leave = self.refresher.leave(wish.provider.name(), wish.whose.is_none());
        let leave = tokio::time::timeout(WAIT_DEAD, leave).await;
        let _leave = match leave.unwrap_or(Err(PAUSE_UNAVAILABLE)) {
            Ok(leave) => leave,
            // Or each of those who wait behind this one would wait as long again.
            Err(pause) => {
                // One that was not in a hurry has not waited, and speaks for nobody.
                if wish.whose.is_some() {
                    turn.lacks(Lack::Unavailable, self.now().plus(pause.min(PAUSE_UNAVAILABLE)));
                }
                return Err((Lack::Unavailable, pause));
            }
        };
        let answer = match &wish.subject {
            Some(subject) => wish.provider.exchange(subject, &wish.target).await,
            None => wish.provider.client_token(&wish.target).await,
        };
        self.settle(wish, &turn, answer)
    }

    fn settle(
        &self,
        wish: &Wish,
        turn: &Turn<'_>,
        answer: Result<ServiceToken, OidcError>,
    ) -> Result<HeaderValue, NoToken> {
        // What is wrong for one session is often wrong for all of them.
        static FAILURES: Throttle = Throttle::new();
        let error = match answer {
            Ok(got) => {
                let expires = got.expires.unwrap_or_else(|| got.since.plus(UNSAID));
                match Issued::new(&got.token, got.bound, got.since, expires) {
                    Some(token) => {
                        self.count(wish, "ok");
                        let authorization = token.authorization().clone();
                        turn.keep(token);
                        return Ok(authorization);
                    }
                    None => OidcError::Unexpected("the token does not fit a header".to_owned()),
                }
            }
            Err(error) => error,
        };
        let (lack, pause) = match judge(&error) {
            // It is nobody's fault but ours.
            (Lack::Denied | Lack::Stale | Lack::Unclear, pause) if wish.subject.is_none() => (Lack::Refused, pause),
            judged => judged,
        };
        turn.lacks(lack, self.now().plus(pause));
        self.count(wish, if lack == Lack::Unavailable { "unavailable" } else { "refused" });
        if let Some(held_back) = FAILURES.pass() {
            let (provider, site) = (wish.provider.name(), wish.whose.as_ref().map(|whose| &*whose.site));
            tracing::warn!(%provider, site, %error, held_back, "the provider gives no token for an upstream");
        }
        if lack != Lack::Unavailable {
            self.tell(wish, &error);
        }
        Err((lack, pause))
    }

    fn tell(&self, wish: &Wish, error: &OidcError) {
        let whose = wish.whose.as_ref();
        self.sessions.audit().tell(
            Event::UpstreamTokenRefused,
            &Entry {
                actor: Actor::Idp,
                reason: Some(word(error)),
                site: whose.map(|whose| &*whose.site),
                provider: Some(wish.provider.name()),
                subject: whose.and_then(|whose| whose.subject.as_deref()),
                session: whose.and_then(|whose| whose.session.as_ref()).map(SessionKey::as_bytes),
                client_ip: whose.map(|whose| whose.client_ip),
                ..Entry::default()
            },
        );
    }

    fn count(&self, wish: &Wish, result: &str) {
        let kind = if wish.subject.is_some() { "exchange" } else { "client_credentials" };
        let labels = [&**wish.provider.name(), kind, result];
        self.metrics.upstream_tokens_total.with_label_values(&labels).inc();
    }

    fn now(&self) -> Timestamp {
        self.sessions.clock().now()
    }
}

/// What an error means, and how long the provider is not asked again.
fn judge(error: &OidcError) -> NoToken {
    match error {
        OidcError::NotReady => (Lack::Unavailable, PAUSE_UNAVAILABLE),
        OidcError::Unavailable { retry_after, .. } => {
            (Lack::Unavailable, retry_after.unwrap_or_default().clamp(PAUSE_UNAVAILABLE, PAUSE_LONGEST))
        }
        OidcError::Refused(code) => match code.as_str() {
            "access_denied" => (Lack::Denied, PAUSE_REFUSED),
            // What providers say of a token that is over.
            "invalid_grant" | "invalid_token" => (Lack::Stale, PAUSE_REFUSED),
            // RFC 8693 §2.2.2 has this for such a token, and for all else that is wrong with the request as well; Keycloak
            // says it of a user who may not have the audience.
            "invalid_request" => (Lack::Unclear, PAUSE_REFUSED),
            _ => (Lack::Refused, PAUSE_REFUSED),
        },
        _ => (Lack::Refused, PAUSE_REFUSED),
    }
}

/// A word of a fixed list, for the audit log.
fn word(error: &OidcError) -> &'static str {
    const CODES: [&str; 9] = [
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "invalid_target",
        "invalid_token",
        "unauthorized_client",
        "unsupported_grant_type",
    ];
    match error {
        OidcError::Refused(code) => CODES.into_iter().find(|known| *known == code.as_str()).unwrap_or("other"),
        _ => "unexpected_answer",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oidc::ErrorCode;

    #[test]
    fn what_an_error_means() {
        let refused = |code: &str| judge(&OidcError::Refused(ErrorCode::new(code))).0;
        assert_eq!(refused("access_denied"), Lack::Denied);
        assert_eq!((refused("invalid_grant"), refused("invalid_token")), (Lack::Stale, Lack::Stale));
        assert_eq!(refused("invalid_request"), Lack::Unclear);
        for code in ["invalid_target", "invalid_scope", "invalid_client", "unauthorized_client", "x"] {
            assert_eq!(refused(code), Lack::Refused, "{code}");
        }
        let busy = |seconds: Option<u64>| {
            let retry_after = seconds.map(Duration::from_secs);
            judge(&OidcError::Unavailable { reason: String::new(), retry_after }).1.as_secs()
        };
        assert_eq!((busy(None), busy(Some(7)), busy(Some(3_600))), (1, 7, 60));
        assert_eq!(judge(&OidcError::Unexpected(String::new())).0, Lack::Refused);
    }

    #[test]
    fn the_audit_log_knows_a_fixed_list_of_words() {
        let told = |code: &str| word(&OidcError::Refused(ErrorCode::new(code)));
        assert_eq!((told("invalid_target"), told("a_strangers_word")), ("invalid_target", "other"));
    }
}
