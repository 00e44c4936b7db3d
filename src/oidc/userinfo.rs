//! Claims of the UserInfo endpoint (Core §5.3), for providers whose ID tokens say little (behaviour T6).

use serde_json::{Map, Value};

use super::answer::Failure;
use super::client::Discovered;
use super::http::Endpoint;
use super::{IdToken, OidcError, Provider};
use crate::primitives::secret::SecretText;

/// Claims that speak of the login and its tokens, not of the user: only a signed ID token may say them.
const NOT_OF_THE_USER: [&str; 17] = [
    "iss",
    "sub",
    "aud",
    "azp",
    "exp",
    "iat",
    "nbf",
    "jti",
    "nonce",
    "at_hash",
    "c_hash",
    "s_hash",
    "typ",
    "sid",
    "acr",
    "amr",
    "auth_time",
];

impl Provider {
    /// Adds what the endpoint says of the user to a verified ID token, if the settings ask for that. Where both say
    /// something, the endpoint's word is the newer.
    ///
    /// # Errors
    /// [`OidcError::UserInfoSubject`] for somebody else's claims, none of which is taken (Core §5.3.2);
    /// [`OidcError::Unavailable`] or [`OidcError::Unexpected`] if there is no answer that can be read.
    pub(super) async fn add_userinfo(
        &self,
        discovered: &Discovered,
        access_token: &SecretText,
        id_token: &mut IdToken,
    ) -> Result<(), OidcError> {
        if !self.merges_userinfo() {
            return Ok(());
        }
        let endpoint = discovered.metadata.userinfo_endpoint.as_ref();
        let endpoint = endpoint.ok_or_else(|| OidcError::Unexpected("it has no UserInfo endpoint".to_owned()))?;
        let answer = self.http.get_as(Endpoint::UserInfo, endpoint, access_token, self.credentials()).await;
        let body = answer.map_err(Failure::from)?;
        // A signed or encrypted answer (`application/jwt`) is not what was asked for.
        let claims = serde_json::from_slice::<Map<String, Value>>(&body);
        let claims = claims.map_err(|_| OidcError::Unexpected("its UserInfo is no JSON object".to_owned()))?;
        if claims.get("sub").and_then(Value::as_str) != Some(id_token.subject.as_str()) {
            return Err(OidcError::UserInfoSubject);
        }
        id_token.claims.extend(claims.into_iter().filter(|(name, _)| !NOT_OF_THE_USER.contains(&name.as_str())));
        Ok(())
    }
}
