//! Authorization requests: what they ask for, and what the login must then bring (Core §3.1.2.1; behaviour L1, L16).

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use openidconnect::core::CoreAuthenticationFlow;
use openidconnect::{CsrfToken, Nonce, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use url::Url;

use super::demands::Demands;
use super::{OidcError, Provider};
use crate::config::rules;
use crate::config::settings::{LoginParameter, ResponseMode};

/// What an authorization request is made of (Core §3.1.2.1).
#[derive(Clone, Copy)]
pub struct AuthorizationRequest<'a> {
    /// Our callback.
    pub redirect_uri: &'a Url,
    /// Names the login.
    pub state: &'a str,
    /// Comes back in the ID token.
    pub nonce: &'a str,
    /// Stays here; its hash goes out (RFC 7636, always S256).
    pub pkce_verifier: &'a str,
    /// As the page asked, from an allow list, as far as it [counts](Provider::counting); no name twice.
    pub asked: &'a [(LoginParameter, String)],
}

impl Provider {
    /// Where the browser goes to log in if the request is not pushed ([`Provider::begin`]). No I/O: [`OidcError::NotReady`] at
    /// once when there is no metadata yet, or while the provider is known to be down (behaviour D2).
    ///
    /// # Errors
    /// [`OidcError::NotReady`]; [`OidcError::Argument`] for a PKCE verifier that RFC 7636 §4.1 does not allow.
    pub fn authorization_url(&self, request: &AuthorizationRequest<'_>) -> Result<Url, OidcError> {
        let discovered = self.discovered()?;
        if self.breaker().wait().is_some() {
            return Err(OidcError::NotReady);
        }
        check_pkce_verifier(request.pkce_verifier)?;
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(request.pkce_verifier.to_owned()));
        let (state, nonce) = (request.state.to_owned(), request.nonce.to_owned());
        let mut url = discovered
            .client
            .authorize_url(CoreAuthenticationFlow::AuthorizationCode, || CsrfToken::new(state), || Nonce::new(nonce))
            .add_scopes(self.scopes())
            .set_pkce_challenge(challenge)
            .set_redirect_uri(Cow::Owned(RedirectUrl::from_url(request.redirect_uri.clone())));
        if self.posts_response() {
            url = url.add_extra_param("response_mode", "form_post");
        }
        if let Some(prover) = self.prover() {
            // The code is worth nothing to whoever has not the key (RFC 9449 §10).
            url = url.add_extra_param("dpop_jkt", prover.thumbprint().to_owned());
        }
        for (name, value) in self.parameters(request.asked) {
            url = url.add_extra_param(name.to_owned(), value.to_owned());
        }
        Ok(url.url().0)
    }

    /// What counts of a page's wishes: what the settings fix, a link must not replace. It may make a login more recent (of two
    /// `max_age` the shorter counts), and a step-up demands its `acr_values` whatever the settings wish for: they are verified
    /// then, and beside them what `claims` of the settings demand of all logins.
    #[must_use]
    pub fn counting(&self, mut asked: Vec<(LoginParameter, String)>, step_up: bool) -> Vec<(LoginParameter, String)> {
        let fixed = &self.settings().authorization_params;
        let seconds = |text: &str| rules::max_age(text).unwrap_or(Duration::MAX);
        asked.retain(|(name, value)| match (name, fixed.get(name.as_str())) {
            (_, None) => true,
            (LoginParameter::MaxAge, Some(fixed)) => seconds(value) < seconds(fixed),
            (LoginParameter::AcrValues, Some(_)) => step_up,
            (_, Some(_)) => false,
        });
        asked
    }

    /// The free parameters of a request, no name twice (RFC 6749 §3.1): what [counts](Self::counting), and the settings.
    fn parameters<'p>(&'p self, asked: &'p [(LoginParameter, String)]) -> Vec<(&'p str, &'p str)> {
        let mut all: Vec<_> = asked.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (name, value) in &self.settings().authorization_params {
            if !all.iter().any(|(other, _)| other == name) {
                all.push((name, value));
            }
        }
        all
    }

    /// What the ID token of such a login must hold; with `step_up` one of the `acr_values` that were asked for, too, which
    /// are else as the provider likes.
    #[must_use]
    pub fn demands(&self, asked: &[(LoginParameter, String)], step_up: bool) -> Demands {
        let demands = Demands::of(self.parameters(asked).into_iter());
        match asked.iter().find(|(name, _)| step_up && *name == LoginParameter::AcrValues) {
            Some((_, contexts)) => demands.with_contexts(contexts),
            None => demands,
        }
    }

    /// What pages may ask for.
    #[must_use]
    pub fn login_parameters(&self) -> &[LoginParameter] {
        &self.settings().login_parameters
    }

    /// Whether its answer to a login is posted.
    #[must_use]
    pub fn posts_response(&self) -> bool {
        self.settings().response_mode == ResponseMode::FormPost
    }

    /// Checks `iss` of an authorization response, good or bad, as plain text (RFC 9207 §2.4; behaviour L5).
    ///
    /// # Errors
    /// [`OidcError::ResponseIssuer`], [`OidcError::ResponseIssuerMissing`]; [`OidcError::NotReady`] if it is missing
    /// and nothing is known yet of whether it should be there.
    pub fn check_response_issuer(&self, iss: Option<&str>) -> Result<(), OidcError> {
        match iss {
            Some(iss) if iss == self.issuer() => Ok(()),
            Some(_) => Err(OidcError::ResponseIssuer),
            None if self.discovered()?.metadata.names_issuer_in_response => Err(OidcError::ResponseIssuerMissing),
            None => Ok(()),
        }
    }

    fn scopes(&self) -> impl Iterator<Item = Scope> + '_ {
        let mut seen = HashSet::new();
        let all = std::iter::once("openid").chain(self.settings().scopes.iter().map(String::as_str));
        all.filter(move |scope| seen.insert(*scope)).map(|scope| Scope::new(scope.to_owned()))
    }
}

/// RFC 7636 §4.1: 43 to 128 unreserved characters. The crate panics on a wrong length.
pub(super) fn check_pkce_verifier(verifier: &str) -> Result<(), OidcError> {
    let good = (43..=128).contains(&verifier.len())
        && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
    if good { Ok(()) } else { Err(OidcError::Argument("the PKCE verifier")) }
}
