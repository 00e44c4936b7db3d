//! Tokens for single services: the provider gives them for a user's access token (RFC 8693, RFC 8707), or to us as its
//! client (RFC 6749 §4.4).

use serde_json::Value;

use super::answer::{Failure, TokenAnswer};
use super::breaker::Health;
use super::http::Endpoint;
use super::{OidcError, Provider};
use crate::config::settings::Target;
use crate::primitives::clock::Timestamp;
use crate::primitives::secret::SecretText;

const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// A token for one service.
#[derive(Clone, Debug)]
pub struct ServiceToken {
    /// Goes upstream; printable ASCII, fit for a header.
    pub token: SecretText,
    /// Whether it is bound to our key, and goes upstream with a proof (RFC 9449).
    pub bound: bool,
    /// When it was asked for.
    pub since: Timestamp,
    /// When it ends; `None` if the provider does not say.
    pub expires: Option<Timestamp>,
}

impl Provider {
    /// Exchanges a user's access token for one that is good for `target`. A refresh token that comes along is left aside:
    /// the user's own gets the next access token, and that one is exchanged again. It is not revoked either: with it would go
    /// what stands on the same grant (RFC 7009 §2.1), which is the access token that came beside it, and at many providers
    /// the refresh token of the user's session.
    ///
    /// # Errors
    /// [`OidcError`]; worth another try if [`OidcError::is_transient`].
    pub async fn exchange(&self, subject: &SecretText, target: &Target) -> Result<ServiceToken, OidcError> {
        let form = [
            ("grant_type", GRANT_TYPE),
            ("subject_token", subject.expose()),
            ("subject_token_type", ACCESS_TOKEN),
            ("requested_token_type", ACCESS_TOKEN),
        ];
        self.service_token(&form, target, &[subject.expose(), self.client_secret()]).await
    }

    /// A token of our own for `target`.
    ///
    /// # Errors
    /// [`OidcError`]; worth another try if [`OidcError::is_transient`].
    pub async fn client_token(&self, target: &Target) -> Result<ServiceToken, OidcError> {
        self.service_token(&[("grant_type", "client_credentials")], target, &[self.client_secret()]).await
    }

    async fn service_token(
        &self,
        grant: &[(&str, &str)],
        target: &Target,
        secrets: &[&str],
    ) -> Result<ServiceToken, OidcError> {
        let discovered = self.discovered()?;
        let mut form: Vec<_> = grant.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let scope = Some(target.scope.join(" ")).filter(|scope| !scope.is_empty());
        for (name, value) in [("audience", &target.audience), ("resource", &target.resource), ("scope", &scope)] {
            form.extend(value.as_ref().map(|value| (name.to_owned(), value.clone())));
        }
        let sent = self.now();
        let endpoint = discovered.metadata.token_endpoint.url();
        let answer =
            self.http.post_form(Endpoint::Token, endpoint, &form, "application/json", self.credentials()).await;
        let token = match answer.map_err(Failure::from) {
            Ok(answer) if answer.status().is_success() => read(answer.body(), sent, self.prover().is_some()),
            Ok(answer) => Err(busy(Failure::refusal(answer.body(), secrets)).into()),
            Err(failure) => Err(failure.into()),
        };
        self.breaker().note(Health::of_login(&token));
        token
    }
}

/// Some providers say so in place of a status.
fn busy(failure: Failure) -> Failure {
    match failure {
        Failure::Refused(code) if matches!(code.as_str(), "temporarily_unavailable" | "server_error" | "slow_down") => {
            Failure::Unavailable { reason: code.to_string(), retry_after: None }
        }
        other => other,
    }
}

/// A good answer (RFC 8693 §2.2.1). Another kind of token than the one asked for is none that an upstream takes.
fn read(body: &[u8], sent: Timestamp, bound: bool) -> Result<ServiceToken, OidcError> {
    let unexpected = |reason: &str| OidcError::Unexpected(reason.to_owned());
    // Cut off, or a page of somebody in between.
    let broken = |_| OidcError::Unavailable { reason: "the answer is no JSON".to_owned(), retry_after: None };
    let document: Value = serde_json::from_slice(body).map_err(broken)?;
    let kind = document.get("issued_token_type").and_then(Value::as_str);
    if !matches!(kind, None | Some(ACCESS_TOKEN | JWT)) {
        return Err(unexpected("what it issues is no access token"));
    }
    let answer: TokenAnswer =
        serde_json::from_value(document).map_err(|_| unexpected("the answer is not understood"))?;
    let (tokens, _) = answer.into_parts(sent, bound)?;
    Ok(ServiceToken { token: tokens.access_token, bound, since: sent, expires: tokens.access_expires })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_access_token_that_fits_a_header_is_taken() {
        let sent = Timestamp::from_secs(1_000);
        let good = read(br#"{"access_token":"a","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":60,"refresh_token":"r"}"#, sent, false).unwrap();
        assert_eq!((good.token.expose(), good.expires), ("a", Some(Timestamp::from_secs(1_060))));
        assert_eq!(
            read(br#"{"access_token":"a"}"#, sent, false).unwrap().expires,
            None,
            "lenient where providers differ"
        );
        for body in [
            r#"{"access_token":"a","issued_token_type":"urn:ietf:params:oauth:token-type:saml2","token_type":"N_A"}"#,
            r#"{"access_token":"a","token_type":"N_A"}"#,
            r#"{"access_token":"a","token_type":"DPoP"}"#,
            r#"{"access_token":"a\r\nX-Evil: 1"}"#,
            r#"{"access_token":""}"#,
            r#"{"token_type":"Bearer"}"#,
            "[]",
        ] {
            let error = read(body.as_bytes(), sent, false).unwrap_err();
            assert!(matches!(error, OidcError::Unexpected(_)) && !error.is_transient(), "{body}: {error}");
        }
        let (bound, bearer) = (r#"{"access_token":"a","token_type":"DPoP"}"#, r#"{"access_token":"a"}"#);
        assert!(read(bound.as_bytes(), sent, true).unwrap().bound);
        assert!(!read(bearer.as_bytes(), sent, true).unwrap_err().is_transient(), "not bound to our key");
        assert!(read(br#"{"access_token":"a","#, sent, false).unwrap_err().is_transient());
    }
}
