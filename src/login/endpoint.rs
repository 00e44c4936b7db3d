//! Which endpoint a path names.

use std::sync::Arc;

use super::return_to::ReturnTo;
use super::start::Wishes;
use crate::config::settings::Aliases;
use crate::credentials::Backend;
use crate::oidc;
use crate::primitives::path::PathPrefix;
use crate::provider::Provider;
use crate::session::profile::Profile;

/// The endpoints below `auth_path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Starts a login, or takes what a user has typed for one.
    Login,
    /// Ends it; the redirect URI.
    Callback,
    /// Ends the session.
    Logout,
    /// Where the provider sends the browser after a logout.
    LoggedOut,
    /// Claims of the user.
    UserInfo,
    /// State of the session.
    Session,
    /// The provider says that a user has logged out elsewhere.
    BackchannelLogout,
    /// The same, in a frame of the provider's page.
    FrontchannelLogout,
    /// What happens to the session, as it happens.
    Events,
    /// Public keys that our assertions to the provider are verified with.
    ClientKeys,
    /// Public keys of proxy tokens.
    KeySet,
}

impl Endpoint {
    /// The methods it knows at a path of a site, as in `Allow`.
    #[must_use]
    pub fn methods(self, site: &SiteAuth, path: &str) -> &'static str {
        match self {
            Self::Logout => "GET, POST",
            Self::Login if site.backends().next().is_some() => "GET, POST",
            // One way only: else whoever can make the browser do the other has a choice that was not meant to be.
            Self::Callback if site.called_back(path).is_some_and(|(_, oidc)| oidc.posts_response()) => "POST",
            Self::BackchannelLogout => "POST",
            Self::Login | Self::Callback | Self::Events | Self::FrontchannelLogout => "GET",
            Self::LoggedOut | Self::UserInfo | Self::Session | Self::KeySet | Self::ClientKeys => "GET, HEAD",
        }
    }
}

/// What the login room knows about a site.
pub struct SiteAuth {
    /// What its sessions have prepared.
    pub profile: Arc<Profile>,
    /// Its providers; none on a site without logins.
    pub providers: Vec<Arc<Provider>>,
    /// Prefix of the endpoints.
    pub auth_path: PathPrefix,
    /// Extra paths.
    pub aliases: Aliases,
    /// Public origins from the settings; see [`SiteAuth::public_origin`].
    pub origins: Vec<String>,
}

impl SiteAuth {
    /// The provider of that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.iter().find(|provider| **provider.name() == *name)
    }

    /// Its OpenID providers.
    pub fn oidc(&self) -> impl Iterator<Item = (&Arc<Provider>, &Arc<oidc::Provider>)> {
        self.providers.iter().filter_map(|provider| Some((provider, provider.oidc()?)))
    }

    /// Where an OpenID provider sends the browser back to. Each has an address of its own, so that no provider can pass its
    /// answer off as another's, whether it names itself in it or not (behaviour L5; RFC 9700 §4.4.2.2). The first one's
    /// stays what it is on a site with one.
    #[must_use]
    pub fn callback_path(&self, provider: &str) -> String {
        match self.oidc().next() {
            Some((first, _)) if **first.name() != *provider => self.path_of(&format!("callback/{provider}")),
            _ => self.path_of("callback"),
        }
    }

    /// Which OpenID provider a callback's address is for.
    #[must_use]
    pub fn called_back(&self, path: &str) -> Option<(&Arc<Provider>, &Arc<oidc::Provider>)> {
        self.oidc().find(|(provider, _)| self.callback_path(provider.name()) == path)
    }

    /// Its backends with a login of their own.
    pub fn backends(&self) -> impl Iterator<Item = (&Arc<Provider>, &Arc<Backend>)> {
        self.providers.iter().filter_map(|provider| Some((provider, provider.credentials()?)))
    }

    /// The one of them that is named, or that need not be.
    #[must_use]
    pub fn backend(&self, name: Option<&str>) -> Option<(&Arc<Provider>, &Arc<Backend>)> {
        let mut fitting = self.backends().filter(|(_, backend)| name.is_none_or(|name| **backend.name() == *name));
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }

    /// The endpoint at a canonical path. `Some(None)` for a path below `auth_path` that is none.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<Option<Endpoint>> {
        if let Some(rest) = self.auth_path.rest(path) {
            return Some(match rest {
                "/login" => Some(Endpoint::Login),
                "/callback" => Some(Endpoint::Callback),
                "/logout" => Some(Endpoint::Logout),
                "/logged-out" => Some(Endpoint::LoggedOut),
                "/userinfo" => Some(Endpoint::UserInfo),
                "/session" => Some(Endpoint::Session),
                "/backchannel-logout" => Some(Endpoint::BackchannelLogout),
                "/frontchannel-logout" => Some(Endpoint::FrontchannelLogout),
                "/events" => Some(Endpoint::Events),
                "/client-jwks.json" => Some(Endpoint::ClientKeys),
                "/jwks.json" => Some(Endpoint::KeySet),
                rest if rest.starts_with("/callback/") && self.called_back(path).is_some() => Some(Endpoint::Callback),
                _ => None,
            });
        }
        let is = |alias: &Option<PathPrefix>| alias.as_ref().is_some_and(|alias| alias.as_str() == path);
        if is(&self.aliases.login) {
            Some(Some(Endpoint::Login))
        } else if is(&self.aliases.logout) {
            Some(Some(Endpoint::Logout))
        } else if is(&self.aliases.userinfo) {
            Some(Some(Endpoint::UserInfo))
        } else {
            None
        }
    }

    /// Path of an endpoint.
    #[must_use]
    pub fn path_of(&self, last: &str) -> String {
        format!("{}/{last}", self.auth_path.as_str())
    }

    /// Where a page sends its user to log in.
    #[must_use]
    pub fn login_url(&self) -> String {
        self.path_of("login")
    }

    /// Where a login starts at a provider, or at the choice of one, with all that it is to know.
    #[must_use]
    pub fn login_with(&self, provider: Option<&str>, return_to: &ReturnTo, wishes: &Wishes) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if let Some(provider) = provider.filter(|_| self.providers.len() > 1) {
            query.append_pair("provider", provider);
        }
        query.append_pair("return_to", return_to.as_str());
        query.extend_pairs(wishes.asked.iter().map(|(name, value)| (name.as_str(), value)));
        if wishes.step_up {
            query.append_pair("step_up", "1");
        }
        format!("{}?{}", self.login_url(), query.finish())
    }

    /// Whether a provider of the site has browsers post its answers.
    #[must_use]
    pub fn takes_posted_answers(&self) -> bool {
        self.oidc().any(|(_, oidc)| oidc.posts_response())
    }

    /// The origin for absolute addresses. Of those in the settings the one that the request shows, else one of the
    /// same host (a proxy in front may hide scheme and port), else the first; without any, the request's own.
    #[must_use]
    pub fn public_origin<'a>(&'a self, seen: &'a str) -> &'a str {
        best_origin(&self.origins, seen)
    }

    /// Every origin whose pages may use this site's sessions.
    pub fn trusted_origins<'a>(&'a self, seen: &'a str) -> impl Iterator<Item = &'a str> {
        self.origins.iter().map(String::as_str).chain(std::iter::once(seen))
    }
}

fn best_origin<'a>(listed: &'a [String], seen: &'a str) -> &'a str {
    let same = listed.iter().find(|origin| *origin == seen);
    let same = same.or_else(|| listed.iter().find(|origin| host_of(origin) == host_of(seen)));
    same.or(listed.first()).map_or(seen, String::as_str)
}

/// Host of an origin, without port; an IPv6 address keeps its brackets.
fn host_of(origin: &str) -> &str {
    let authority = origin.split_once("://").map_or(origin, |(_, authority)| authority);
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => host,
        _ => authority,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_that_fits_the_request_best() {
        let listed = ["https://a.example", "https://b.example:8443", "https://b.example", "https://[::1]:8443"];
        let listed = listed.map(str::to_owned);
        for (seen, expected) in [
            ("https://a.example", "https://a.example"),
            ("https://b.example", "https://b.example"),
            ("http://b.example:8080", "https://b.example:8443"),
            ("http://[::1]", "https://[::1]:8443"),
            ("http://[::1]:80", "https://[::1]:8443"),
            ("http://[::2]:80", "https://a.example"),
            ("https://evil.example", "https://a.example"),
            ("https://a.example.evil", "https://a.example"),
            ("", "https://a.example"),
        ] {
            assert_eq!(best_origin(&listed, seen), expected, "{seen}");
        }
        assert_eq!(best_origin(&[], "http://a.example:8080"), "http://a.example:8080");
    }
}
