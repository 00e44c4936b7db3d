//! How a request proves that it is this client's: one place for all of the provider's endpoints (RFC 6749 §2.3, RFC 7523
//! §2.2, RFC 8705 §2).

use std::sync::Arc;
use std::time::Duration;

use ::http::HeaderValue;
use ::http::header::AUTHORIZATION;
use arc_swap::ArcSwap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openidconnect::HttpRequest;
use serde_json::{Value, json};
use url::form_urlencoded;

use super::dpop::Dpop;
use super::http;
use crate::config::settings::ClientAuth;
use crate::primitives::clock::Clock;
use crate::primitives::random;
use crate::primitives::secret::SecretText;
use crate::primitives::signing::SigningKey;

/// `client_assertion_type` of a JWT (RFC 7523 §2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// How long an assertion is good for (behaviour L8). It is made when it is sent, and some clocks go wrong.
const ASSERTION_LIFE: Duration = Duration::from_secs(60);

/// What we have to prove who we are.
pub(super) struct Credentials {
    client_id: String,
    issuer: String,
    clock: Clock,
    method: Method,
    dpop: Option<Dpop>,
}

enum Method {
    Basic(SecretText),
    Post(SecretText),
    Assertion(ArcSwap<Arc<[SigningKey]>>),
    /// The id alone: the handshake shows a certificate, or there is nothing to show.
    Id,
}

impl Credentials {
    /// `key` is the one that tokens are bound to; `None` = they are bearer tokens.
    pub(super) fn new(
        client_id: &str,
        issuer: &str,
        auth: &ClientAuth,
        key: Option<&SigningKey>,
        clock: Clock,
    ) -> Self {
        let method = match auth {
            ClientAuth::Basic(secret) => Method::Basic(secret.clone()),
            ClientAuth::Post(secret) => Method::Post(secret.clone()),
            ClientAuth::PrivateKeyJwt(keys) => Method::Assertion(ArcSwap::from_pointee(keys.clone())),
            ClientAuth::Tls(_) | ClientAuth::None => Method::Id,
        };
        let dpop = key.map(|key| Dpop::new(key, clock.clone()));
        Self { client_id: client_id.to_owned(), issuer: issuer.to_owned(), clock, method, dpop }
    }

    /// What proves that tokens are ours to use, where they are bound to a key (RFC 9449).
    pub(super) fn dpop(&self) -> Option<&Dpop> {
        self.dpop.as_ref()
    }

    /// Adds the proof to a form that is about to be sent. Asked once for each attempt, so that no assertion is sent twice
    /// (behaviour L8). The form may name the client or not; afterwards it does unless the proof itself does.
    ///
    /// # Errors
    /// [`http::Error::NotSent`] if no assertion can be made, [`http::Error::Invalid`] for a client id that fits no header.
    pub(super) fn apply(&self, request: &mut HttpRequest) -> Result<(), http::Error> {
        let parameters = || form_urlencoded::parse(request.body());
        // An authorization request names its client in any case (RFC 9126 §2.1).
        let names_client = parameters().any(|(name, _)| name == "response_type");
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(parameters().filter(|(name, _)| name != "client_id"));
        match &self.method {
            Method::Basic(secret) => {
                let mut value = self.basic(secret).ok_or(http::Error::Invalid)?;
                value.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, value);
                if names_client {
                    form.append_pair("client_id", &self.client_id);
                }
            }
            Method::Post(secret) => {
                form.append_pair("client_id", &self.client_id).append_pair("client_secret", secret.expose());
            }
            Method::Assertion(keys) => {
                let keys = keys.load();
                let assertion = keys.first().and_then(|key| self.assertion(key));
                let assertion = assertion.ok_or_else(|| http::Error::NotSent("no assertion can be made".to_owned()))?;
                form.append_pair("client_id", &self.client_id)
                    .append_pair("client_assertion_type", ASSERTION_TYPE)
                    .append_pair("client_assertion", &assertion);
            }
            Method::Id => {
                form.append_pair("client_id", &self.client_id);
            }
        }
        *request.body_mut() = form.finish().into_bytes();
        Ok(())
    }

    /// Both parts are form-encoded before Basic encodes them (RFC 6749 §2.3.1).
    fn basic(&self, secret: &SecretText) -> Option<HeaderValue> {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let pair = format!("{}:{}", encoded(&self.client_id), encoded(secret.expose()));
        HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()
    }

    /// RFC 7523 §3. The issuer alone is the audience: an assertion for a token endpoint's address is one that another
    /// provider could ask for and use (behaviour L8).
    fn assertion(&self, key: &SigningKey) -> Option<String> {
        let now = self.clock.now();
        let claims = json!({
            "iss": self.client_id,
            "sub": self.client_id,
            "aud": self.issuer,
            "jti": random::token().ok()?,
            "iat": now.as_secs(),
            "exp": now.plus(ASSERTION_LIFE).as_secs(),
        });
        key.sign("JWT", &claims).ok()
    }

    /// The keys that assertions are verified with, each as a JWK (RFC 7517 §4); none if there are no assertions.
    pub(super) fn public_keys(&self) -> Vec<Value> {
        let Method::Assertion(keys) = &self.method else { return Vec::new() };
        keys.load().iter().map(|key| key.public_jwk().clone()).collect()
    }

    /// Takes other keys from now on. Whoever makes no assertions has none to change.
    pub(super) fn replace_keys(&self, new: &Arc<[SigningKey]>) {
        if let Method::Assertion(keys) = &self.method {
            keys.store(Arc::new(new.clone()));
        }
    }

    /// The secret, to take it out of texts; empty if there is none.
    pub(super) fn secret(&self) -> &str {
        match &self.method {
            Method::Basic(secret) | Method::Post(secret) => secret.expose(),
            Method::Assertion(_) | Method::Id => "",
        }
    }
}
