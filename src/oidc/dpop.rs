//! Tokens that are bound to our key (DPoP, RFC 9449): requests to the provider carry a proof, and one that lacks the nonce
//! which the provider wants in it is made once more.

use std::time::{Duration, Instant};

use ::http::HeaderMap;
use ::http::header::AUTHORIZATION;
use openidconnect::{HttpRequest, HttpResponse};

use super::credentials::Credentials;
use super::http::{Client, Endpoint, Error};
use crate::primitives::clock::Clock;
use crate::primitives::dpop::{self, Nonce, Proven, Prover};
use crate::primitives::secret::SecretText;
use crate::primitives::signing::SigningKey;

/// Our key towards one provider, and what the provider wants in the next proof.
pub(super) struct Dpop {
    prover: Prover,
    /// Of the token endpoint and its kin (§8).
    authorization: Nonce,
    /// Of the UserInfo endpoint, which is a resource server (§9).
    resource: Nonce,
}

impl Dpop {
    pub(super) fn new(key: &SigningKey, clock: Clock) -> Self {
        let prover = Prover::new(key.clone(), clock);
        Self { prover, authorization: Nonce::default(), resource: Nonce::default() }
    }

    pub(super) fn prover(&self) -> &Prover {
        &self.prover
    }

    /// Notes what an answer of this endpoint brings; see [`Nonce::hear`].
    pub(super) fn hear(&self, endpoint: Endpoint, answer: &HeaderMap) -> bool {
        self.nonce(endpoint).hear(answer)
    }

    fn nonce(&self, endpoint: Endpoint) -> &Nonce {
        if endpoint == Endpoint::UserInfo { &self.resource } else { &self.authorization }
    }

    /// Puts a fresh proof into a request that is about to be sent.
    fn apply(&self, endpoint: Endpoint, request: &mut HttpRequest, token: Option<&SecretText>) -> Result<(), Error> {
        let uri = request.uri();
        let authority = uri.authority().ok_or(Error::Invalid)?.as_str();
        let address = dpop::address(uri.scheme_str() == Some("https"), authority, uri.path());
        let (hash, nonce) = (token.map(|token| dpop::token_hash(token.expose())), self.nonce(endpoint).current());
        let proof = self.prover.proof(&Proven {
            method: request.method().as_str(),
            address: &address,
            token_hash: hash.as_deref(),
            nonce: nonce.as_deref().map(String::as_str),
        });
        let proof = proof.ok_or_else(|| Error::NotSent("no proof can be made".to_owned()))?;
        request.headers_mut().insert(dpop::PROOF, proof);
        Ok(())
    }
}

/// A challenge that took longer is a failure: who has shown a refresh token has the right to do so for a short time only. The
/// nonce is known the next time.
const AT_ONCE: Duration = Duration::from_secs(1);

impl Client {
    /// Sends what is proved to be ours, and that `token` is, each attempt with proofs of its own. There is a second one only
    /// if the provider wants its nonce in the proof: then it has done nothing yet (§8), and a refresh token may be shown
    /// again.
    pub(super) async fn send_proved(
        &self,
        endpoint: Endpoint,
        request: &HttpRequest,
        total: Duration,
        credentials: &Credentials,
        token: Option<&SecretText>,
    ) -> Result<HttpResponse, Error> {
        // Nobody binds anything at the other endpoints.
        let takes_proofs = matches!(endpoint, Endpoint::Token | Endpoint::Pushed | Endpoint::UserInfo);
        let dpop = credentials.dpop().filter(|_| takes_proofs);
        let attempt = async || {
            let mut request = request.clone();
            match token {
                Some(token) => {
                    let value = dpop::authorization(dpop.is_some(), token).ok_or(Error::Invalid)?;
                    request.headers_mut().insert(AUTHORIZATION, value);
                }
                None => credentials.apply(&mut request)?,
            }
            if let Some(dpop) = dpop {
                dpop.apply(endpoint, &mut request, token)?;
            }
            self.send(endpoint, request, total, dpop).await
        };
        let begun = Instant::now();
        match attempt().await {
            Err(Error::NonceWanted) if begun.elapsed() < AT_ONCE => attempt().await,
            result => result,
        }
    }
}
