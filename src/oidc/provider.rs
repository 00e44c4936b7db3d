//! One OpenID provider, as its client.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use openidconnect::{
    AuthorizationCode, ClientId, IssuerUrl, OAuth2TokenResponse as _, PkceCodeVerifier, RedirectUrl, RefreshToken,
};
use tokio::sync::Semaphore;
use url::Url;

use super::access_token::{self, AccessToken, AccessTokenError};
use super::answer::{Failure, OFFLINE_ACCESS, TokenAnswer, Tokens};
use super::authorization::check_pkce_verifier;
use super::breaker::{Breaker, Health};
use super::client::Discovered;
use super::credentials::Credentials;
use super::demands::Demands;
use super::dpop::Dpop;
use super::error::{OidcError, RefreshError, SetupError};
use super::http::{self, Endpoint};
use super::id_token::{self, Expected, IdToken, IdTokenError, Origin, Previous};
use super::introspection;
use super::jwks::{Jwks, KeySet};
use super::jwt::{Jwt, JwtError};
use super::logout_token::{self, LogoutToken, LogoutTokenError};
use super::metadata::Metadata;
use crate::config::rules;
use crate::config::settings::{self, ClientAuth, FrontchannelLogout, LogoutScope, PushedAuthorization};
use crate::primitives::clock::{Clock, Timestamp};
use crate::primitives::dpop::Prover;
use crate::primitives::secret::SecretText;
use crate::primitives::signing::SigningKey;

/// One provider. Made without I/O; [`Provider::maintain`] brings it to life.
pub struct Provider {
    name: Arc<str>,
    issuer: IssuerUrl,
    client_id: ClientId,
    settings: settings::Provider,
    pub(super) http: http::Client,
    credentials: Arc<Credentials>,
    clock: Clock,
    jwks: Jwks,
    discovered: ArcSwapOption<Discovered>,
    last_error: Mutex<Option<String>>,
    breaker: Breaker,
    /// Of introspection: tokens of strangers must not keep sessions from their refresh.
    introspection_breaker: Breaker,
    introspections: Semaphore,
    introspection_places: Semaphore,
    pushes: Semaphore,
}

/// What a redeemed code brings.
#[derive(Clone, Debug)]
pub struct Login {
    /// The tokens.
    pub tokens: Tokens,
    /// Who logged in.
    pub id_token: IdToken,
}

/// What a refresh brings.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// The tokens; without a refresh token in them the old one stays (behaviour R5).
    pub tokens: Tokens,
    /// `None`: the old ID token and its claims stay.
    pub id_token: Option<IdToken>,
}

impl Provider {
    /// A provider that is not ready yet. No I/O.
    ///
    /// # Errors
    /// [`SetupError`] for settings that can never work.
    pub fn new(settings: &settings::Provider, http: http::Client, clock: Clock) -> Result<Self, SetupError> {
        let issuer = IssuerUrl::new(settings.issuer.clone()).map_err(|_| SetupError::Issuer)?;
        if issuer.url().scheme() != "https" && !rules::is_loopback_http(issuer.url()) {
            return Err(SetupError::Issuer);
        }
        for name in settings.authorization_params.keys() {
            if rules::RESERVED_PARAMETERS.contains(&name.as_str()) {
                return Err(SetupError::ReservedParameter(name.clone()));
            }
        }
        let max_age = settings.authorization_params.get("max_age");
        if max_age.is_some_and(|text| rules::max_age(text).is_none()) {
            return Err(SetupError::MaxAge);
        }
        Ok(Self {
            name: settings.name.clone(),
            issuer,
            client_id: ClientId::new(settings.client_id.clone()),
            credentials: Arc::new(Credentials::new(
                &settings.client_id,
                &settings.issuer,
                &settings.client_auth,
                settings.dpop.as_ref(),
                clock.clone(),
            )),
            settings: settings.clone(),
            jwks: Jwks::new(http.clone(), clock.clone()),
            breaker: Breaker::new(clock.clone()),
            introspection_breaker: Breaker::new(clock.clone()),
            introspections: Semaphore::new(introspection::CALLS),
            introspection_places: Semaphore::new(introspection::WAITING),
            pushes: Semaphore::new(super::pushed::PUSHES),
            http,
            clock,
            discovered: ArcSwapOption::empty(),
            last_error: Mutex::new(None),
        })
    }

    /// The name in the settings.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What users are told that it is.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.settings.title
    }

    /// How long it still answers to a refresh token that it has exchanged already; zero = it never does.
    #[must_use]
    pub fn refresh_token_grace(&self) -> Duration {
        self.settings.refresh_token_grace
    }

    /// Whether its token endpoint is to be left alone for the moment.
    #[must_use]
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    pub(super) fn introspection_breaker(&self) -> &Breaker {
        &self.introspection_breaker
    }

    /// Turns at the endpoint for pushed requests.
    pub(super) fn pushes(&self) -> &Semaphore {
        &self.pushes
    }

    /// Places of those who wait for a turn at the introspection endpoint.
    pub(super) fn introspection_places(&self) -> &Semaphore {
        &self.introspection_places
    }

    /// Turns at the introspection endpoint.
    pub(super) fn introspections(&self) -> &Semaphore {
        &self.introspections
    }

    pub(super) fn http(&self) -> &http::Client {
        &self.http
    }

    pub(super) fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The issuer, as configured.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether discovery has succeeded once; from then on it stays so.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.discovered.load().is_some()
    }

    /// What there is to say beside [`Provider::is_ready`], for `readyz?verbose`; empty if all is well.
    #[must_use]
    pub fn status(&self) -> String {
        let error = self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (self.is_ready(), error) {
            (true, None) => String::new(),
            (true, Some(error)) => format!("with old metadata: {error}"),
            (false, None) => "discovery has not ended yet".to_owned(),
            (false, Some(error)) => error,
        }
    }

    /// Reads metadata and keys once and takes them over together; on failure the old ones stay.
    pub(super) async fn discover(&self) -> Result<(), String> {
        let result = self.read_metadata().await;
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = result.as_ref().err().cloned();
        result
    }

    async fn read_metadata(&self) -> Result<(), String> {
        let url = self.issuer.join(".well-known/openid-configuration").map_err(|e| e.to_string())?;
        let body = self.http.get(Endpoint::Discovery, &url).await.map_err(|e| format!("discovery: {e}"))?;
        let with_certificate = matches!(self.settings.client_auth, ClientAuth::Tls(_));
        let metadata = Metadata::parse(&body, &self.issuer, with_certificate).map_err(|e| e.to_string())?;
        if let Some(prover) = self.prover() {
            metadata.check_proofs(prover).map_err(|e| e.to_string())?;
        }
        self.jwks.load(&metadata.jwks_uri).await.map_err(|e| format!("key set: {e}"))?;
        let discovered = Discovered::new(metadata, self.client_id.clone(), self.issuer.clone());
        self.discovered.store(Some(Arc::new(discovered)));
        Ok(())
    }

    pub(super) fn discovered(&self) -> Result<Arc<Discovered>, OidcError> {
        self.discovered.load_full().ok_or(OidcError::NotReady)
    }

    /// Whether and how it may end sessions by way of the browser.
    #[must_use]
    pub fn frontchannel_logout(&self) -> FrontchannelLogout {
        self.settings.frontchannel_logout
    }

    /// Origins of its pages: the issuer's, and that of its logout page where it is another.
    #[must_use]
    pub fn page_origins(&self) -> Vec<String> {
        let mut origins = vec![self.issuer.url().origin().ascii_serialization()];
        if let Some(page) = self.discovered.load().as_ref().and_then(|it| it.metadata.end_session_endpoint.clone()) {
            let page = page.origin().ascii_serialization();
            if !origins.contains(&page) {
                origins.push(page);
            }
        }
        origins
    }

    pub(super) fn settings(&self) -> &settings::Provider {
        &self.settings
    }

    pub(super) fn merges_userinfo(&self) -> bool {
        self.settings.merge_userinfo
    }

    /// Whether access tokens are revoked at logout, too.
    #[must_use]
    pub fn revokes_access_tokens(&self) -> bool {
        self.settings.revoke_access_tokens
    }

    /// Exchanges a code for tokens (RFC 6749 §4.1.3) and verifies the ID token. If that is refused, the refresh token that
    /// came with it is revoked, for nobody holds it; unless the right user has merely not authenticated as was asked.
    ///
    /// # Errors
    /// [`OidcError`]
    pub async fn redeem(
        self: &Arc<Self>,
        code: &str,
        pkce_verifier: &str,
        redirect_uri: &Url,
        nonce: &str,
        demands: &Demands,
    ) -> Result<Login, OidcError> {
        let discovered = self.discovered()?;
        check_pkce_verifier(pkce_verifier)?;
        let sent = self.clock.now();
        let answer = discovered
            .client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .set_pkce_verifier(PkceCodeVerifier::new(pkce_verifier.to_owned()))
            .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(redirect_uri.clone())))
            .request_async(&self.http.endpoint(Endpoint::Token).proving(&self.credentials))
            .await
            .map_err(|error| Failure::read(error, &[code, pkce_verifier, self.client_secret()]).into());
        self.breaker.note(Health::of_login(&answer));
        let answer = answer?;
        let (tokens, id_token) = self.take(answer, sent)?;
        let origin = Origin::Login { nonce, demands };
        let verified = match &id_token {
            Some(id_token) => self.verify(id_token, tokens.access_token.expose(), origin).await,
            None => Err(IdTokenError::Missing),
        };
        let complete = match verified {
            Ok(mut id_token) => {
                let added = self.add_userinfo(&discovered, &tokens.access_token, &mut id_token).await;
                added.map(|()| id_token)
            }
            Err(error) => Err(error.into()),
        };
        match complete {
            Ok(id_token) => Ok(Login { tokens, id_token }),
            // The provider's session is the one that the user had, and so may a former session's refresh token be: both go on
            // (behaviour L16).
            Err(error) if error.is_about_strength() => Err(error),
            Err(error) => {
                self.disown(tokens);
                Err(error)
            }
        }
    }

    /// Gets new tokens (RFC 6749 §6). The refresh token is shown to the provider once; nothing here repeats it.
    ///
    /// # Errors
    /// [`RefreshError`]
    pub async fn refresh(
        self: &Arc<Self>,
        token: &SecretText,
        previous: Previous<'_>,
    ) -> Result<Refreshed, RefreshError> {
        let discovered = self
            .discovered()
            .map_err(|error| RefreshError::Unavailable { reason: error.to_string(), retry_after: None })?;
        let sent = self.clock.now();
        let answer = discovered
            .client
            .exchange_refresh_token(&RefreshToken::new(token.expose().to_owned()))
            .request_async(&self.http.endpoint(Endpoint::Token).for_refresh().proving(&self.credentials))
            .await
            .map_err(|error| Failure::read(error, &[token.expose(), self.client_secret()]).into());
        self.breaker.note(Health::of_refresh(&answer));
        let answer = answer?;
        let (tokens, id_token) = answer.into_parts(sent, self.prover().is_some())?;
        let Some(text) = id_token else { return Ok(Refreshed { tokens, id_token: None }) };
        match self.verify(&text, tokens.access_token.expose(), Origin::Refresh(previous)).await {
            Ok(mut id_token) => match self.add_userinfo(&discovered, &tokens.access_token, &mut id_token).await {
                Ok(()) => Ok(Refreshed { tokens, id_token: Some(id_token) }),
                Err(OidcError::UserInfoSubject) => {
                    self.disown(tokens);
                    Err(RefreshError::IdentityChanged(IdTokenError::Subject))
                }
                // The tokens are good. Claims stay as they were, for half of the new ones would take some away.
                Err(error) => {
                    tracing::warn!(provider = %self.name, %error, "a user's claims stay as they were");
                    Ok(Refreshed { tokens, id_token: None })
                }
            },
            // Its claims are the same user's, and it came straight from the provider over TLS (Core §3.1.3.7, 6.).
            // A key set that cannot be fetched for a moment must not end every session that is refreshed just then;
            // but no claim is taken from it either.
            Err(IdTokenError::KeysUnavailable) => {
                tracing::warn!(provider = %self.name, "a refreshed ID token is left aside: no key set to verify it");
                Ok(Refreshed { tokens, id_token: None })
            }
            Err(error) => {
                self.disown(tokens);
                Err(RefreshError::IdentityChanged(error))
            }
        }
    }

    /// Takes the answer to a login apart. If its tokens are not of the type that was asked for, the refresh token among them
    /// is revoked, for nobody holds it.
    fn take(self: &Arc<Self>, answer: TokenAnswer, sent: Timestamp) -> Result<(Tokens, Option<String>), Failure> {
        let refresh_token = answer.refresh_token().map(|token| SecretText::new(token.secret().clone()));
        let taken = answer.into_parts(sent, self.prover().is_some());
        if let (Err(Failure::Unusable(_)), Some(orphan)) = (&taken, refresh_token) {
            tokio::spawn(Arc::clone(self).revoke_patiently(orphan));
        }
        taken
    }

    /// What proves that its tokens are ours to use; `None` = they are bearer tokens.
    #[must_use]
    pub fn prover(&self) -> Option<&Prover> {
        self.credentials.dpop().map(Dpop::prover)
    }

    /// The provider's logout page (RP-Initiated Logout §2); `None` if it has none.
    #[must_use]
    pub fn end_session_url(
        &self,
        id_token_hint: Option<&SecretText>,
        post_logout_redirect_uri: &Url,
        state: Option<&str>,
    ) -> Option<Url> {
        let mut url = self.discovered.load().as_ref()?.metadata.end_session_endpoint.clone()?;
        {
            let mut query = url.query_pairs_mut();
            if let Some(hint) = id_token_hint {
                query.append_pair("id_token_hint", hint.expose());
            }
            query.append_pair("client_id", &self.client_id);
            query.append_pair("post_logout_redirect_uri", post_logout_redirect_uri.as_str());
            if let Some(state) = state {
                query.append_pair("state", state);
            }
        }
        Some(url)
    }

    async fn verify(&self, text: &str, access_token: &str, origin: Origin<'_>) -> Result<IdToken, IdTokenError> {
        let judge = |keys: &KeySet| {
            let (issuer, client_id, now) = (&self.issuer, &self.client_id, self.clock.now());
            id_token::verify(text, &keys.keys, &Expected { issuer, client_id, access_token, now, origin })
        };
        let keys = self.jwks.current().ok_or(IdTokenError::KeysUnavailable)?;
        match judge(&keys) {
            Err(IdTokenError::UnknownKey) => match self.jwks.newer_than(keys).await {
                Ok(newer) => judge(&newer),
                Err(error) => {
                    tracing::warn!(provider = %self.name, %error, "an ID token names an unknown key");
                    Err(IdTokenError::KeysUnavailable)
                }
            },
            verdict => verdict,
        }
    }

    /// Whether a token says that this provider has issued it. Nothing is verified by that.
    #[must_use]
    pub fn is_said_to_issue(&self, token: &str) -> bool {
        let claims = Jwt::read(token).ok().map(|jwt| jwt.claims);
        claims.is_some_and(|claims| claims.get("iss").and_then(|iss| iss.as_str()) == Some(self.issuer()))
    }

    /// Verifies a logout token (Back-Channel Logout §2.6). Whether its `jti` is new is for the caller to find out.
    ///
    /// # Errors
    /// [`LogoutTokenError`]; worth another try if it is [`LogoutTokenError::KeysUnavailable`].
    pub async fn logout_token(&self, text: &str) -> Result<LogoutToken, LogoutTokenError> {
        let needs_end = self.settings.backchannel_logout.require_exp;
        let judge = |keys: &KeySet| {
            let (issuer, client_id, now) = (self.issuer.as_str(), self.client_id.as_str(), self.clock.now());
            let expected = logout_token::Expected { issuer, client_id, now, needs_end };
            logout_token::verify(text, &keys.keys, &expected)
        };
        let keys = self.jwks.current().ok_or(LogoutTokenError::KeysUnavailable)?;
        match judge(&keys) {
            Err(LogoutTokenError::Jwt(JwtError::UnknownKey)) => match self.jwks.newer_than(keys).await {
                Ok(newer) => judge(&newer),
                Err(error) => {
                    tracing::warn!(provider = %self.name, %error, "a logout token names an unknown key");
                    Err(LogoutTokenError::KeysUnavailable)
                }
            },
            verdict => verdict,
        }
    }

    /// Verifies an access token that a client brings (RFC 9068 §4). `untyped`: it may say `JWT` for its type, or nothing.
    ///
    /// # Errors
    /// [`AccessTokenError`]; worth another try if it is [`AccessTokenError::KeysUnavailable`].
    pub async fn access_token(
        &self,
        text: &str,
        audiences: &[String],
        untyped: bool,
    ) -> Result<AccessToken, AccessTokenError> {
        let judge = |keys: &KeySet| {
            let expected =
                access_token::Expected { issuer: self.issuer.as_str(), audiences, untyped, now: self.clock.now() };
            access_token::verify(text, &keys.keys, &expected)
        };
        let keys = self.jwks.current().ok_or(AccessTokenError::KeysUnavailable)?;
        match judge(&keys) {
            Err(AccessTokenError::Jwt(JwtError::UnknownKey)) => match self.jwks.newer_than(keys).await {
                Ok(newer) => judge(&newer),
                // Its caller tells, at its own pace: anybody may invent a key's name.
                Err(_) => Err(AccessTokenError::KeysUnavailable),
            },
            verdict => verdict,
        }
    }

    /// Which sessions a logout token with a `sid` ends.
    #[must_use]
    pub fn logout_scope(&self) -> LogoutScope {
        self.settings.backchannel_logout.scope
    }

    /// Whether it is asked for tokens that outlive the user's logout (Core §11).
    #[must_use]
    pub fn asks_offline(&self) -> bool {
        self.settings.scopes.iter().any(|scope| scope == OFFLINE_ACCESS)
    }

    /// The key cache, for its tests.
    #[cfg(test)]
    pub(super) fn jwks(&self) -> &Jwks {
        &self.jwks
    }

    /// What proves to the provider that a request is ours.
    pub(super) fn credentials(&self) -> &Arc<Credentials> {
        &self.credentials
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(super) fn client_secret(&self) -> &str {
        self.credentials.secret()
    }

    pub(super) fn client_id(&self) -> &str {
        &self.client_id
    }

    pub(super) fn pushed_authorization(&self) -> PushedAuthorization {
        self.settings.pushed_authorization
    }

    /// Public keys of `private_key_jwt`, each as a JWK (RFC 7517 §4), for the provider to fetch; none without such keys.
    #[must_use]
    pub fn client_keys(&self) -> Vec<serde_json::Value> {
        self.credentials.public_keys()
    }

    /// Signs with other keys from now on, if it signs at all.
    pub fn replace_client_keys(&self, keys: &Arc<[SigningKey]>) {
        self.credentials.replace_keys(keys);
    }
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("name", &self.name).field("issuer", &self.issuer()).finish_non_exhaustive()
    }
}
