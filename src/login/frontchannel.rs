//! Front-channel logout: the provider's logout page shows this endpoint in a frame, to say that a user has logged out there
//! (OpenID Connect Front-Channel Logout; behaviour O10).
//!
//! The browser brings no cookie of ours into a frame of another site, so the session is found by the provider's `sid`
//! alone, which nobody knows but the provider and those who hold an ID token.

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};

use super::query::single;
use super::{Logins, Visit};
use crate::answer::{Answer, Code};
use crate::config::settings::FrontchannelLogout;

/// Longest `sid` that is looked for.
const LONGEST_SID: usize = 255;

impl Logins {
    /// `GET /auth/frontchannel-logout`.
    pub(super) async fn frontchannel_logout(&self, visit: Visit<'_>) -> Answer {
        let Some(provider) = &visit.site.provider else {
            return Answer::problem(Code::NotFound, None, None);
        };
        let needs_issuer = match provider.frontchannel_logout() {
            FrontchannelLogout::Off => return Answer::problem(Code::NotFound, None, None),
            FrontchannelLogout::IssuerAndSession => true,
            FrontchannelLogout::Session => false,
        };
        let query = visit.query.map(str::as_bytes);
        let (Ok(issuer), Ok(sid)) = (single(query, "iss"), single(query, "sid")) else {
            return Answer::status_only(StatusCode::BAD_REQUEST);
        };
        let fits = issuer.as_deref().map_or(!needs_issuer, |issuer| issuer == provider.issuer());
        let sid = sid.filter(|sid| fits && (1..=LONGEST_SID).contains(&sid.len()));
        let Some(sid) = sid else { return Answer::status_only(StatusCode::BAD_REQUEST) };
        match self.revoker.log_out_in_front(provider, &sid, visit.client_ip).await {
            Ok(_) => {}
            Err(error) => {
                tracing::error!(provider = %provider.name(), %error, "a logout of the provider could not be done");
                return Answer::problem(Code::StoreUnavailable, None, None);
            }
        }
        // It looks the same whether there was a session. The provider's page alone may show it.
        let policy = format!("default-src 'none'; frame-ancestors {}", provider.page_origins().join(" "));
        match HeaderValue::from_str(&policy) {
            Ok(policy) => Answer::empty().header(CONTENT_SECURITY_POLICY, policy),
            Err(_) => Answer::empty(),
        }
    }
}
