//! Clients that bring an access token themselves: programs and mobile apps (RFC 6750; behaviour A1-A3, A7).
//!
//! A token is verified once and then known by its SHA-256 (behaviour A4), until it ends or for [`KNOWN`], whichever is sooner.
//! That hash is all the cryptography that a request with a known token costs. What goes upstream for it is ready made, as with
//! sessions.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::admit::Gate;
use super::opaque::Opaque;
use super::session::Case;
use crate::answer::{Answer, Code};
use crate::config::settings::{self, Access};
use crate::oidc::{AccessToken, AccessTokenError, Provider, SKEW, is_jwt};
use crate::primitives::clock::Timestamp;
use crate::routing::route::is_preflight;
use crate::session::claims::claim_header;
use crate::session::issued::Slot;
use crate::session::profile::Profile;
use crate::session::rules::judge;
use crate::telemetry::Throttle;
use crate::telemetry::audit::{Actor, Entry, Event};

/// How long a verified token counts without another look: a key that the provider has taken back opens nothing after that.
const KNOWN: Duration = Duration::from_secs(300);
/// Most bytes of tokens that a site remembers, and about how many of them that is.
const MEMORY: u64 = 16 << 20;
const TYPICAL: u64 = 2 << 10;
/// What an entry costs beside its own bytes.
const OVERHEAD: usize = 256;

/// Who calls with a verified token of their own.
pub struct Bearer {
    authorization: HeaderValue,
    provider: Arc<str>,
    subject: String,
    scopes: Vec<String>,
    identity: Box<[Option<HeaderValue>]>,
    met: Box<[bool]>,
    exchanged: Box<[Arc<Slot>]>,
    expires: Timestamp,
    /// From then on it is verified anew.
    until: Timestamp,
}

impl Bearer {
    /// `Bearer …`, as the client sent it.
    #[must_use]
    pub fn authorization(&self) -> &HeaderValue {
        &self.authorization
    }

    /// The header value of a claim of the site's [`Profile`].
    #[must_use]
    pub fn identity(&self, claim: usize) -> Option<&HeaderValue> {
        self.identity.get(claim)?.as_ref()
    }

    /// Whether the token's claims meet a condition of the site's [`Profile`].
    #[must_use]
    pub fn meets(&self, condition: usize) -> bool {
        self.met.get(condition).is_some_and(|met| *met)
    }

    /// The place of the token that it is exchanged for, by target of the site's [`Profile`].
    #[must_use]
    pub fn exchanged(&self, target: usize) -> Option<&Arc<Slot>> {
        self.exchanged.get(target)
    }

    /// Name of the provider that made the token.
    #[must_use]
    pub fn provider(&self) -> &Arc<str> {
        &self.provider
    }

    /// `sub` at that provider.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// When the token ends.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }

    fn bytes(&self) -> usize {
        let identity = self.identity.iter().map(|value| value.as_ref().map_or(0, HeaderValue::len)).sum::<usize>();
        let scopes = self.scopes.iter().map(|scope| scope.len() + size_of::<String>()).sum::<usize>();
        let places = self.identity.len() * size_of::<Option<HeaderValue>>();
        OVERHEAD
            + size_of::<Self>()
            + (1 + self.exchanged.len()) * self.authorization.len()
            + self.exchanged.len() * OVERHEAD
            + self.subject.len()
            + self.met.len()
            + identity
            + scopes
            + places
    }
}

/// The access tokens of one site.
pub struct Bearers {
    /// Whoever may make them: each has an issuer of its own.
    providers: Vec<Arc<Provider>>,
    settings: settings::Bearer,
    profile: Arc<Profile>,
    known: Cache<Name, Arc<Bearer>, Weight>,
    /// What its provider says of tokens that cannot be read here.
    pub(super) opaque: Opaque,
}

/// Names a token without holding it: SHA-256 of it, whole, for a name that is cut short could be another one's too.
pub(super) type Name = [u8; 32];

fn name_of(text: &str) -> Name {
    Sha256::digest(text).into()
}

/// How long a token is known at least, if `life` allows it.
const MOMENT: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Weight;

impl Weighter<Name, Arc<Bearer>> for Weight {
    fn weight(&self, _: &Name, bearer: &Arc<Bearer>) -> u64 {
        u64::try_from(bearer.bytes()).unwrap_or(u64::MAX)
    }
}

impl Bearers {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(providers: Vec<Arc<Provider>>, settings: settings::Bearer, profile: Arc<Profile>) -> Self {
        let typical = usize::try_from(MEMORY / TYPICAL).unwrap_or(1);
        let known = Cache::with_weighter(typical, MEMORY, Weight);
        Self { providers, settings, profile, known, opaque: Opaque::new() }
    }

    /// A token says whose it is, and is judged by that one's keys alone.
    async fn judge(&self, text: &str) -> Result<(&Arc<Provider>, AccessToken), AccessTokenError> {
        let mut others = self.providers.iter().skip(1);
        let named = others.find(|provider| provider.is_said_to_issue(text));
        // The first one judges its own, and says what is wrong with those of nobody here.
        let provider = named.or(self.providers.first()).ok_or(AccessTokenError::Issuer)?;
        let token = provider.access_token(text, &self.settings.audiences, self.settings.untyped).await?;
        Ok((provider, token))
    }

    /// The provider to ask about a token, if it is one of those that are asked about.
    fn asked(&self, text: &str) -> Option<&Arc<Provider>> {
        if is_jwt(text) {
            return self.providers.iter().find(|it| it.introspects_jwts() && it.is_said_to_issue(text));
        }
        self.settings.opaque.then(|| self.providers.iter().find(|provider| provider.introspects())).flatten()
    }

    /// What tokens are compared with.
    pub(super) fn settings(&self) -> &settings::Bearer {
        &self.settings
    }

    /// Knows the holder of the token of this name from now on, for `life` at most. `onward` goes upstream.
    pub(super) fn remember(
        &self,
        name: Name,
        onward: &str,
        provider: &Provider,
        token: AccessToken,
        now: Timestamp,
        life: Duration,
    ) -> Option<Arc<Bearer>> {
        let mut authorization = HeaderValue::from_str(&format!("Bearer {onward}")).ok()?;
        authorization.set_sensitive(true);
        // What was got for the same token goes on to count.
        let known = self.known.get(&name);
        let known = known.filter(|known| known.authorization == authorization && known.provider == *provider.name());
        let exchanged = known.map_or_else(
            || self.profile.exchanges.iter().map(|_| Arc::default()).collect(),
            |known| known.exchanged.clone(),
        );
        let bearer = Arc::new(Bearer {
            authorization,
            provider: provider.name().clone(),
            identity: self.profile.claims.iter().map(|path| claim_header(&token.claims, path)).collect(),
            met: judge(&self.profile.conditions, &token.claims),
            exchanged,
            subject: token.subject,
            scopes: token.scopes,
            expires: token.expires,
            // One that is over and counts only because clocks differ is known for a moment, or each request would be a new one
            // to whoever exchanges it.
            until: token.expires.max(now.plus(MOMENT).min(token.expires.plus(SKEW))).min(now.plus(life)),
        });
        if now < bearer.until {
            self.known.insert(name, bearer.clone());
        }
        Some(bearer)
    }
}

/// What `Authorization` says.
enum Shown<'r> {
    Nothing,
    Token(&'r str),
    /// Twice, or nothing that could be a token (RFC 6750 §2.1).
    Unreadable,
}

impl<'r> Shown<'r> {
    fn of(headers: &'r http::HeaderMap) -> Self {
        let mut fields = headers.get_all(AUTHORIZATION).iter();
        let Some(field) = fields.next() else { return Self::Nothing };
        if fields.next().is_some() {
            return Self::Unreadable;
        }
        let Some((scheme, rest)) = field.as_bytes().split_at_checked(6) else { return Self::Nothing };
        if !scheme.eq_ignore_ascii_case(b"bearer") || rest.first().is_some_and(|next| *next != b' ') {
            // Another scheme is not for us, and does not go on.
            return Self::Nothing;
        }
        match field.to_str().ok().and_then(|text| text.get(6..)).map(str::trim) {
            Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => Self::Token(token),
            _ => Self::Unreadable,
        }
    }
}

impl Gate {
    /// Who calls with a token on a route that takes them; `None` if none came. Whoever shows one is judged by it, session or
    /// not (behaviour A1).
    pub(super) async fn bearer(&self, case: &Case<'_>) -> Result<Option<Arc<Bearer>>, Box<Answer>> {
        let request = &case.request;
        if is_preflight(request.method, request.headers) && case.route.forward().is_some() {
            return Ok(None);
        }
        let text = match Shown::of(request.headers) {
            Shown::Token(text) => text,
            Shown::Unreadable => {
                let detail = "Authorization has to be there once, and Bearer followed by one token.";
                let answer = Answer::problem(Code::BadRequest, Some(detail), None);
                return Err(Box::new(challenge(answer, "Bearer error=\"invalid_request\"")));
            }
            Shown::Nothing if case.route.accept.session || case.route.access != Access::Required => return Ok(None),
            Shown::Nothing => {
                self.count_unauthenticated("401");
                // RFC 6750 §3.1: who has shown nothing is told of no error.
                return Err(Box::new(challenge(Answer::problem(Code::TokenMissing, None, None), "Bearer")));
            }
        };
        let Some(bearers) = self.bearers.get(case.site.index).and_then(Option::as_ref) else {
            return Err(Box::new(Answer::problem(Code::Internal, None, None)));
        };
        // The one name of this request: whoever asks about the token goes by it as well.
        let name = name_of(text);
        let bearer = match bearers.known.get(&name).filter(|known| self.clock.now() < known.until) {
            Some(known) => known,
            None => Box::pin(self.verify(case, bearers, name, text)).await?,
        };
        if case.route.provider.as_ref().is_some_and(|name| **name != **bearer.provider()) {
            // As good as one of a stranger's here.
            return Err(self.refuse(case, AccessTokenError::Issuer));
        }
        if let Some(answer) = self.too_many_of_bearer(request, case.route, &bearer) {
            return Err(Box::new(answer));
        }
        if !case.route.scopes.iter().all(|scope| bearer.scopes.contains(scope)) {
            let wanted = case.route.scopes.join(" ");
            self.metrics.bearer_tokens_total.with_label_values(&["insufficient_scope"]).inc();
            let detail = format!("The token needs the scope {wanted}.");
            let answer = Answer::problem(Code::InsufficientScope, Some(&detail), None);
            let text = format!("Bearer error=\"insufficient_scope\", scope=\"{wanted}\"");
            return Err(Box::new(challenge(answer, &text)));
        }
        Ok(Some(bearer))
    }

    async fn verify(
        &self,
        case: &Case<'_>,
        bearers: &Arc<Bearers>,
        name: Name,
        text: &str,
    ) -> Result<Arc<Bearer>, Box<Answer>> {
        let found = match bearers.asked(text) {
            Some(provider) => bearers.ask(provider, name, text, &self.clock).await.map(Some),
            None => bearers
                .judge(text)
                .await
                .map(|(provider, token)| bearers.remember(name, text, provider, token, self.clock.now(), KNOWN)),
        };
        match found {
            Ok(bearer) => {
                self.metrics.bearer_tokens_total.with_label_values(&["ok"]).inc();
                bearer.ok_or_else(|| Box::new(Answer::problem(Code::Internal, None, None)))
            }
            Err(error) => Err(self.refuse(case, error)),
        }
    }

    /// The answer to a token that does not count, once it is counted and told.
    fn refuse(&self, case: &Case<'_>, error: AccessTokenError) -> Box<Answer> {
        self.metrics.bearer_tokens_total.with_label_values(&[error.word()]).inc();
        self.tell_of_refusal(case, error);
        if error == AccessTokenError::ProviderFailed {
            let detail = "The token cannot be verified: the login service does not answer as it should.";
            return Box::new(Answer::problem(Code::ProviderFailed, Some(detail), None));
        }
        if error.is_of_provider() {
            self.count_unauthenticated("503");
            let detail = "The token cannot be verified just now. Please try again in a moment.";
            return Box::new(Answer::problem(Code::ProviderUnavailable, Some(detail), None));
        }
        self.count_unauthenticated("401");
        let code = if error == AccessTokenError::Bound { Code::TokenBound } else { Code::TokenInvalid };
        let answer = Answer::problem(code, Some(&error.to_string()), None);
        let text = format!("Bearer error=\"invalid_token\", error_description=\"{error}\"");
        Box::new(challenge(answer, &text))
    }

    /// One line a second: anybody may send tokens. That one has ended is no news at all.
    fn tell_of_refusal(&self, case: &Case<'_>, error: AccessTokenError) {
        static REFUSALS: Throttle = Throttle::new();
        if error == AccessTokenError::Expired {
            return;
        }
        let Some(held_back) = REFUSALS.pass() else { return };
        tracing::info!(site = %case.site.name, route = %case.route.name, %error, held_back, "an access token is refused");
        self.sessions.audit().tell(
            Event::TokenRejected,
            &Entry {
                actor: Actor::User,
                reason: Some(error.word()),
                site: Some(&case.site.name),
                client_ip: Some(case.origin.client.ip),
                ..Entry::default()
            },
        );
    }
}

fn challenge(answer: Answer, text: &str) -> Answer {
    match HeaderValue::from_str(text) {
        Ok(value) => answer.header(WWW_AUTHENTICATE, value),
        Err(_) => answer,
    }
}

/// Names who calls, for limits by session. A session's handle has another type, so none is counted with it.
pub(super) fn counted(bearer: &Bearer) -> impl Hash + '_ {
    ("bearer", &*bearer.provider, &*bearer.subject)
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn a4_a_token_is_known_by_its_sha_256() {
        // FIPS 180-4, appendix B.1 of its examples.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(name_of("abc").map(|byte| format!("{byte:02x}")).concat(), expected);
    }

    #[test]
    fn a_token_is_one_word_behind_the_scheme_and_comes_once() {
        let read = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(AUTHORIZATION, HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            match Shown::of(&headers) {
                Shown::Nothing => "-".to_owned(),
                Shown::Token(token) => token.to_owned(),
                Shown::Unreadable => "?".to_owned(),
            }
        };
        for (fields, expected) in [
            (&[][..], "-"),
            (&["Bearer a.b.c"], "a.b.c"),
            (&["bEARER  a"], "a"),
            (&["Bearer"], "?"),
            (&["Bearer "], "?"),
            (&["Bearer a b"], "?"),
            (&["Bearer a,b"], "a,b"),
            (&["Bearer \u{fc}"], "?"),
            (&["Bearerx a"], "-"),
            (&["Basic eDp5"], "-"),
            (&["DPoP a"], "-"),
            (&["", "Bearer a"], "?"),
            (&["Bearer a", "Bearer a"], "?"),
        ] {
            assert_eq!(read(fields), expected, "{fields:?}");
        }
    }
}
