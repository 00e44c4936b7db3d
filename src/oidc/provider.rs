//! One OpenID provider, as its client.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use openidconnect::{ClientId, IssuerUrl};
use tokio::sync::Semaphore;
use url::Url;

use super::answer::OFFLINE_ACCESS;
use super::breaker::Breaker;
use super::client::Discovered;
use super::credentials::Credentials;
use super::dpop::Dpop;
use super::error::{OidcError, SetupError};
use super::http::{self, Endpoint};
use super::introspection;
use super::jwks::Jwks;
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
    introspections: introspection::Turns,
    pushes: Semaphore,
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
            introspections: introspection::Turns::new(&clock),
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

    /// Turns at the endpoint for pushed requests.
    pub(super) fn pushes(&self) -> &Semaphore {
        &self.pushes
    }

    /// Turns at the introspection endpoint.
    pub(super) fn introspections(&self) -> &introspection::Turns {
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

    /// Whether claims of the UserInfo endpoint are added to those of the ID token.
    #[must_use]
    pub fn merges_userinfo(&self) -> bool {
        self.settings.merge_userinfo
    }

    /// Whether access tokens are revoked at logout, too.
    #[must_use]
    pub fn revokes_access_tokens(&self) -> bool {
        self.settings.revoke_access_tokens
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

    /// The key cache.
    pub(super) fn jwks(&self) -> &Jwks {
        &self.jwks
    }

    pub(super) fn issuer_url(&self) -> &IssuerUrl {
        &self.issuer
    }

    pub(super) fn client(&self) -> &ClientId {
        &self.client_id
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
