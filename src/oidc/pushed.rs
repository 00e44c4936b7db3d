//! Pushed authorization requests (RFC 9126): the provider gets the login request from us, over TLS and with our proof, and
//! the browser carries a reference to it. Nobody on the way reads or changes what is asked (behaviour L9).

use serde::Deserialize;
use url::Url;

use super::answer::Failure;
use super::client::Discovered;
use super::http::Endpoint;
use super::{AuthorizationRequest, OidcError, Provider};
use crate::config::settings::PushedAuthorization;

/// Longest `request_uri` that is carried in an address.
const LONGEST_REFERENCE: usize = 1024;

/// Requests that may be pushed at a time: whoever comes by may begin a login.
pub(super) const PUSHES: usize = 32;

/// RFC 9126 §2.2. How long the reference lives is the provider's affair: the browser goes there at once.
#[derive(Deserialize)]
struct Pushed {
    request_uri: String,
}

impl Provider {
    /// Where the browser goes to log in. Without pushing no I/O; with it one request. A provider that offers pushing and
    /// fails at it is not asked in the open instead: then whoever disturbs the one would choose the other.
    ///
    /// # Errors
    /// As [`Provider::authorization_url`]; [`OidcError::Unavailable`], [`OidcError::Refused`] and [`OidcError::Unexpected`]
    /// of the endpoint for pushed requests.
    pub async fn begin(&self, request: &AuthorizationRequest<'_>) -> Result<Url, OidcError> {
        let url = self.authorization_url(request)?;
        let discovered = self.discovered()?;
        match (self.pushed_authorization(), &discovered.metadata.pushed_endpoint) {
            (PushedAuthorization::Off, _) | (PushedAuthorization::Auto, None) => Ok(url),
            (PushedAuthorization::Require, None) => {
                Err(OidcError::Unexpected("it offers no pushed authorization requests".to_owned()))
            }
            (_, Some(endpoint)) => self.push(&discovered, endpoint, &url).await,
        }
    }

    async fn push(&self, discovered: &Discovered, endpoint: &Url, url: &Url) -> Result<Url, OidcError> {
        let _turn = self.pushes().try_acquire().map_err(|_| OidcError::Unavailable {
            reason: "too many logins begin at once".to_owned(),
            retry_after: None,
        })?;
        // The endpoint's own parameters stay with it; ours stand behind them.
        let mut onward = discovered.metadata.authorization_endpoint.url().clone();
        let own = onward.query_pairs().count();
        let form: Vec<_> = url.query_pairs().skip(own).map(|(name, value)| (name.into(), value.into())).collect();
        let answer = self
            .http
            .post_form(Endpoint::Pushed, endpoint, &form, "application/json", self.credentials())
            .await
            .map_err(Failure::from)?;
        if !answer.status().is_success() {
            // Who is about to log in is nobody's business who reads the log (behaviour D3).
            let hints = form.iter().filter(|(name, _)| name == "login_hint").map(|(_, value)| value.as_str());
            let secrets: Vec<&str> = hints.chain([self.client_secret()]).collect();
            return Err(Failure::refusal(answer.body(), &secrets).into());
        }
        let good = |pushed: &Pushed| {
            (1..=LONGEST_REFERENCE).contains(&pushed.request_uri.len())
                && pushed.request_uri.bytes().all(|b| b.is_ascii_graphic())
        };
        let pushed = serde_json::from_slice::<Pushed>(answer.body()).ok().filter(good);
        let pushed = pushed.ok_or_else(|| OidcError::Unexpected("a pushed request got no reference".to_owned()))?;
        onward
            .query_pairs_mut()
            .append_pair("client_id", self.client_id())
            .append_pair("request_uri", &pushed.request_uri);
        Ok(onward)
    }
}
