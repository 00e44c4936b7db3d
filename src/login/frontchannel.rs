//! Front-channel logout: the provider's logout page shows this endpoint in a frame, to say that a user has logged out there
//! (OpenID Connect Front-Channel Logout; behaviour O10).
//!
//! The browser brings no cookie of ours into a frame of another site, so the session is found by the provider's `sid`
//! alone, which nobody knows but the provider and those who hold an ID token.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_SECURITY_POLICY;
use http::{HeaderValue, StatusCode};

use super::query::single;
use super::{BROWSERS, Logins, SiteAuth, Visit};
use crate::answer::{Answer, Code};
use crate::config::settings::FrontchannelLogout;
use crate::oidc;
use crate::primitives::clock::Timestamp;
use crate::primitives::neighbour::Neighbour;
use crate::primitives::tally::{Key, Tally};

/// Longest `sid` that is looked for.
const LONGEST_SID: usize = 255;

/// Frames that an address may ask for within [`FRONT_WINDOW`]. Many users may share one, and log out in the morning at once.
const FRONTS: u32 = 600;
/// The same of all addresses together, for each provider that one is answered for. Each of these leaves a tombstone for a
/// login's life, which must not take the room of those that logout tokens leave: at most 352,000.
const ALL_FRONTS: u32 = 16_000;
/// See [`FRONTS`] and [`ALL_FRONTS`].
const FRONT_WINDOW: Duration = Duration::from_secs(60);

/// How many frames there were of late.
pub(super) struct Fronts {
    addresses: Tally,
    all: Tally,
}

impl Fronts {
    pub(super) fn new() -> Self {
        Self { addresses: Tally::new(FRONT_WINDOW, BROWSERS), all: Tally::new(FRONT_WINDOW, 1) }
    }

    /// Counts one that may be answered, for so many providers.
    fn admit(&self, client: IpAddr, providers: usize, now: Timestamp) -> bool {
        let (who, all) = (Key::of(&Neighbour::from(client)), Key::of(&()));
        if self.addresses.wait(who, FRONTS, now).is_some() || self.all.wait(all, ALL_FRONTS, now).is_some() {
            return false;
        }
        self.addresses.add(who, now);
        for _ in 0..providers {
            self.all.add(all, now);
        }
        true
    }
}

impl Logins {
    /// `GET /auth/frontchannel-logout`.
    pub(super) async fn frontchannel_logout(&self, visit: Visit<'_>) -> Answer {
        if visit.site.oidc().all(|(_, oidc)| oidc.frontchannel_logout() == FrontchannelLogout::Off) {
            return Answer::problem(Code::NotFound, None, None);
        }
        let query = visit.query.map(str::as_bytes);
        let (Ok(issuer), Ok(sid)) = (single(query, "iss"), single(query, "sid")) else {
            return Answer::status_only(StatusCode::BAD_REQUEST);
        };
        let speakers = speakers(visit.site, issuer.as_deref());
        let sid = sid.filter(|sid| !speakers.is_empty() && (1..=LONGEST_SID).contains(&sid.len()));
        let Some(sid) = sid else { return Answer::status_only(StatusCode::BAD_REQUEST) };
        // Anybody may ask, and each time something is written.
        if !self.fronts.admit(visit.client_ip, speakers.len(), self.sessions.clock().now()) {
            return Answer::status_only(StatusCode::TOO_MANY_REQUESTS);
        }
        for provider in &speakers {
            if let Err(error) = self.revoker.log_out_in_front(provider, &sid, visit.client_ip).await {
                tracing::error!(provider = %provider.name(), %error, "a logout of the provider could not be done");
                return Answer::problem(Code::StoreUnavailable, None, None);
            }
        }
        // It looks the same whether there was a session. The provider's page alone may show it.
        let origins: Vec<_> = speakers.iter().flat_map(|provider| provider.page_origins()).collect();
        let policy = format!("default-src 'none'; frame-ancestors {}", origins.join(" "));
        match HeaderValue::from_str(&policy) {
            Ok(policy) => Answer::empty().header(CONTENT_SECURITY_POLICY, policy),
            Err(_) => Answer::empty(),
        }
    }
}

/// Whose page it may be: that of the issuer that is named, if it may end sessions in this way. Where none is named, that of
/// each provider that need not name itself: a `sid` is one provider's own, so it ends nothing at the others.
fn speakers<'s>(site: &'s SiteAuth, issuer: Option<&str>) -> Vec<&'s Arc<oidc::Provider>> {
    let may_be = |provider: &oidc::Provider| match (provider.frontchannel_logout(), issuer) {
        (FrontchannelLogout::Off, _) | (FrontchannelLogout::IssuerAndSession, None) => false,
        (FrontchannelLogout::Session, None) => true,
        (_, Some(issuer)) => issuer == provider.issuer(),
    };
    site.oidc().map(|(_, oidc)| oidc).filter(|oidc| may_be(oidc)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o10_strangers_cannot_fill_the_store_with_tombstones() {
        // However many providers it may be for which one speaks, there are no more tombstones.
        for providers in [1, 4] {
            let (fronts, now) = (Fronts::new(), Timestamp::from_secs(1_900_000_000));
            let ip = |n: u32| IpAddr::from((0x0a00_0000 | n).to_be_bytes());
            let admitted =
                |from: u32, times: u32| (0..times).filter(|_| fronts.admit(ip(from), providers, now)).count();
            assert_eq!(admitted(1, FRONTS + 10), FRONTS as usize);
            let others: usize = (2..40).map(|from| admitted(from, FRONTS)).sum();
            assert_eq!((others + FRONTS as usize) * providers, ALL_FRONTS as usize);
            assert!(fronts.admit(ip(99), providers, now.plus(FRONT_WINDOW + FRONT_WINDOW / 8)));
        }
    }
}
