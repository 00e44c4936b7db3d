//! What becomes of a request whose token the upstream refuses (behaviour B5).

use std::sync::Arc;

use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, HeaderValue};
use http_auth::{ChallengeParser, ChallengeRef};

use super::admit::Gate;
use super::answers::goes_to_login;
use super::check::log_in_first;
use super::session::Origin;
use super::{Pass, Request};
use crate::answer::{Answer, Code};
use crate::config::settings::Access;
use crate::primitives::dpop::SCHEME;
use crate::primitives::path::escape_query;
use crate::refresh::Refreshed;
use crate::session::open::Open;

/// What to do with a request whose token was refused.
pub enum Refusal {
    /// Its client gets the upstream's answer: there is no newer token, or none for now.
    PassOn,
    /// It goes upstream once more, as a request of this session.
    Again(Arc<Open>),
    /// It goes upstream once more, with this token.
    AgainWith(HeaderValue),
    /// The session is over, or its user may no longer pass. Here is the answer.
    Over(Box<Answer>),
}

impl Gate {
    /// Looks for a newer token than the one that the upstream of `pass` has refused.
    ///
    /// Whatever keeps us from getting one (the provider is away, the store is, the token was replaced only just now) says
    /// nothing about the request, so the upstream's own answer stands and the session is kept. Only where the provider
    /// has ended the session is there something to say that the upstream cannot know.
    pub async fn refused(&self, request: Request<'_>, pass: &Pass) -> Refusal {
        if let (Some(made), Some(refused)) = (pass.route.made, &pass.minted) {
            return self.made_anew(pass, made, refused).await;
        }
        let Some(open) = &pass.session else { return Refusal::PassOn };
        let result = match self.refresher.replace(open).await {
            // The settings have changed meanwhile: what is prepared for others has its claims in other places.
            Refreshed::Renewed(newer) if !Arc::ptr_eq(newer.profile(), open.profile()) => {
                match self.sessions.prepare(&newer, open.profile(), pass.level).await {
                    Ok(Some(same)) => Refreshed::Renewed(same),
                    Ok(None) | Err(_) => return Refusal::PassOn,
                }
            }
            result => result,
        };
        match result {
            Refreshed::Renewed(newer) if pass.token_of(&newer) != pass.token_of(open) => {
                // With the new token the user may have other claims.
                match self.kept_out(&request, pass, &newer) {
                    Some(answer) => Refusal::Over(Box::new(answer)),
                    None => Refusal::Again(newer),
                }
            }
            Refreshed::Ended if pass.route.access == Access::Required => self
                .ended(request, pass, Code::RefreshRejected)
                .map_or(Refusal::PassOn, |answer| Refusal::Over(Box::new(answer))),
            Refreshed::Renewed(_) | Refreshed::Ended | Refreshed::Failed(_) => Refusal::PassOn,
        }
    }

    /// A navigation is sent to log in, everything else gets 401; as if the session had been over before. An application
    /// that showed a proxy token has no user in front of it, whatever headers it hands on.
    pub(super) fn ended(&self, request: Request<'_>, pass: &Pass, code: Code) -> Option<Answer> {
        if !pass.by_cookie {
            return Some(*self.token_invalid());
        }
        let auth = self.auth.get(pass.site.index)?;
        let login = auth.login_url();
        let to_login = goes_to_login(&request, pass.route.on_missing);
        self.count_unauthenticated(if to_login { "redirect" } else { "401" });
        if !to_login {
            return Some(Answer::problem(code, None, Some(&login)));
        }
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        if let Some(manner) = request.connection.forward_auth {
            let authority = self.authority(&request, &pass.client).ok()?;
            let origin = Origin { client: &pass.client, authority: &authority }.write();
            return Some(log_in_first(auth, &pass.route, &escape_query(target).to_string(), &origin, manner, code));
        }
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("return_to", target);
        if let Some(provider) = &pass.route.provider {
            query.append_pair("provider", provider);
        }
        Answer::redirect(&format!("{login}?{}", query.finish()))
    }
}

/// Whether a 401 asks for nothing but a better token; with `bound`, for one that is bound to a key (RFC 9449 §7.1). One that
/// wants another login (RFC 9470), more rights or another scheme is for the client to read; so is one that cannot be read
/// here.
#[must_use]
pub fn asks_for_token(answer: &HeaderMap, bound: bool) -> bool {
    let scheme = if bound { SCHEME } else { "Bearer" };
    let (mut ours, mut other) = (false, false);
    for field in answer.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = field.to_str() else { return false };
        for challenge in ChallengeParser::new(text) {
            match challenge {
                Ok(challenge) if !challenge.scheme.eq_ignore_ascii_case(scheme) => other = true,
                Ok(challenge) if says_no_more(&challenge) => ours = true,
                Ok(_) | Err(_) => return false,
            }
        }
    }
    ours || !other
}

/// Whether a challenge (RFC 6750 §3, RFC 9449 §7.1) speaks of the token alone.
fn says_no_more(challenge: &ChallengeRef<'_>) -> bool {
    challenge.params.iter().all(|(name, value)| {
        if name.eq_ignore_ascii_case("error") {
            return value.to_unescaped() == "invalid_token";
        }
        // RFC 9470 §3, and the claims that Entra ID asks for when it re-evaluates a session.
        !["acr_values", "max_age", "claims"].iter().any(|more| name.eq_ignore_ascii_case(more))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_challenge_that_speaks_of_the_token_alone_asks_for_a_newer_one() {
        for (fields, asks) in [
            (&[][..], true),
            (&["Bearer"], true),
            (&["bearer realm=\"api\""], true),
            (&["Bearer realm=\"a, b\", error=\"invalid_token\", error_description=\"it \\\"ended\\\"\""], true),
            (&["Bearer scope=\"read\", error=invalid_token"], true),
            (&["Basic realm=\"x\", Bearer error=\"invalid_token\""], true),
            (&["Basic realm=\"x\"", "Bearer"], true),
            (&["Basic realm=\"x\""], false),
            (&["DPoP algs=\"ES256\", error=\"invalid_token\""], false),
            (&["Bearer error=\"insufficient_user_authentication\", acr_values=\"gold\""], false),
            (&["Bearer error=\"insufficient_scope\""], false),
            (&["Bearer error=\"invalid_request\""], false),
            (&["Bearer error=\"invalid_token\", max_age=5"], false),
            (&["Bearer error=\"insufficient_claims\", claims=\"e30=\""], false),
            (&["Bearer error=\"invalid_token\"", "Bearer error=\"insufficient_scope\""], false),
            (&["Bearer error=\"invalid_token"], false),
            (&["Bearer \u{fc}"], false),
        ] {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(WWW_AUTHENTICATE, http::HeaderValue::from_bytes(field.as_bytes()).unwrap());
            }
            assert_eq!(asks_for_token(&headers, false), asks, "{fields:?}");
            // The same in the other scheme, and with both swapped.
            let mut swapped = HeaderMap::new();
            for field in fields.iter().filter(|field| field.is_ascii()) {
                let field = field.replace("DPoP", "Other").replace("Bearer", "DPoP").replace("bearer", "dpop");
                swapped.append(WWW_AUTHENTICATE, field.parse().unwrap());
            }
            if fields.iter().all(|field| field.is_ascii()) {
                assert_eq!(asks_for_token(&swapped, true), asks, "{swapped:?}");
            }
        }
    }

    #[test]
    fn a_refused_proof_is_not_mended_by_a_newer_token() {
        for field in ["DPoP error=\"use_dpop_nonce\"", "DPoP error=\"invalid_dpop_proof\"", "Bearer"] {
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, http::HeaderValue::from_static(field))]);
            assert!(!asks_for_token(&headers, true), "{field}");
        }
    }
}
