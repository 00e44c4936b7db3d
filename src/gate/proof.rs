//! The proof that goes upstream beside a token that is bound to our key (DPoP, RFC 9449 §7).

use http::{HeaderValue, Method};

use super::Pass;
use super::admit::Gate;
use crate::primitives::dpop::{Proven, address};
use crate::routing::table::Made;

impl Gate {
    /// A fresh proof for one attempt at an upstream, as it is addressed there: its scheme, the `Host` that it is sent, the
    /// path that it is asked for. `None` if no proof belongs there, or none can be made, because the key has been taken out
    /// of the settings since: then the upstream refuses the token, and a refresh brings one that needs none.
    #[must_use]
    pub fn proof(&self, pass: &Pass, method: &Method, host: &HeaderValue, path: &str) -> Option<HeaderValue> {
        let hash = pass.token_hash()?;
        let provider = self.auth.get(pass.site.index)?.named(giver(pass)?)?.oidc()?;
        let upstream = pass.upstream()?;
        let nonce = upstream.nonce().current();
        provider.prover()?.proof(&Proven {
            method: method.as_str(),
            address: &address(upstream.speaks_tls(), host.to_str().ok()?, path),
            token_hash: Some(&hash),
            nonce: nonce.as_deref().map(String::as_str),
        })
    }
}

/// Name of the provider that has given the token: the user's, unless it is our own.
fn giver(pass: &Pass) -> Option<&str> {
    match (pass.route.made, &pass.session, &pass.bearer) {
        (Some(Made::Own(index)), ..) if !pass.own_token().is_some_and(|value| pass.is_of_session(value)) => {
            Some(&pass.site.client_tokens.get(index)?.provider)
        }
        (_, Some(open), _) => Some(open.provider()),
        (_, None, bearer) => Some(bearer.as_ref()?.provider()),
    }
}
