//! What the embedded provider is told at its start: its address, its clients, its users, its lifetimes.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

/// Where the provider gets the time from; tests bring their own.
pub type ProviderClock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Everything a [`Provider`](super::Provider) is made of. `Default` is the demo on a free port.
#[derive(Clone)]
pub struct ProviderConfig {
    /// A loopback address; port 0 picks a free one. Others are refused: anyone can log in here.
    pub address: SocketAddr,
    /// The issuer, if it is not to be `http://ADDRESS`. The endpoints stay on the bound address.
    pub issuer: Option<String>,
    /// Who may ask for tokens.
    pub clients: Vec<Client>,
    /// Who can log in, each with one click.
    pub users: Vec<User>,
    /// The `aud` of access tokens.
    pub audience: String,
    /// Life of an access token and of the ID token that comes with it. A switch can change it while running.
    pub access_token_lifetime: Duration,
    /// Life of a refresh token, and so the longest pause between two refreshes.
    pub refresh_token_lifetime: Duration,
    /// How long the provider remembers who logged in at its own page.
    pub sso_lifetime: Duration,
    /// How many requests and issued tokens the ledger remembers.
    pub ledger_capacity: usize,
    /// The time.
    pub clock: ProviderClock,
}

impl Default for ProviderConfig {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            issuer: None,
            clients: vec![Client::demo()],
            users: vec![User::alice(), User::bob()],
            audience: "demo-api".to_owned(),
            access_token_lifetime: Duration::from_secs(60),
            refresh_token_lifetime: Duration::from_secs(30 * 60),
            sso_lifetime: Duration::from_secs(10 * 60 * 60),
            ledger_capacity: 1_000,
            clock: Arc::new(SystemTime::now),
        }
    }
}

impl fmt::Debug for ProviderConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clients: Vec<&str> = self.clients.iter().map(|client| client.id.as_str()).collect();
        formatter
            .debug_struct("ProviderConfig")
            .field("address", &self.address)
            .field("issuer", &self.issuer)
            .field("clients", &clients)
            .finish_non_exhaustive()
    }
}

/// A registered client.
#[derive(Clone)]
pub struct Client {
    /// Its `client_id`.
    pub id: String,
    /// Its secret, sent by Basic or in the form. None makes it a public client.
    pub secret: Option<String>,
    /// Its public keys, as a JWK Set: then it shows signed assertions, and nothing else (RFC 7523).
    pub jwks: Option<serde_json::Value>,
    /// Where a login may end.
    pub redirect_uris: Vec<UriRule>,
    /// Where a logout may end.
    pub post_logout_redirect_uris: Vec<UriRule>,
}

impl Client {
    /// The client of the demo: any port of this machine.
    pub fn demo() -> Self {
        let rules = |tail: &str| {
            ["http://127.0.0.1:*", "http://localhost:*", "https://127.0.0.1:*", "https://localhost:*"]
                .iter()
                .map(|origin| UriRule::new(&format!("{origin}{tail}")))
                .collect()
        };
        Self {
            id: crate::demo::CLIENT_ID.to_owned(),
            secret: Some(crate::demo::CLIENT_SECRET.to_owned()),
            jwks: None,
            redirect_uris: rules("/auth/callback"),
            post_logout_redirect_uris: rules("/*"),
        }
    }
}

/// Which URIs a client registered: one exactly, or, for a demo whose port nobody knows beforehand,
/// one with `*` for the port and perhaps a `*` at its end for any path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriRule(String);

impl UriRule {
    /// `http://app.test/auth/callback`, `http://127.0.0.1:*/auth/callback` or `http://127.0.0.1:*/*`.
    pub fn new(pattern: &str) -> Self {
        Self(pattern.to_owned())
    }

    /// Whether the rule allows `uri`. Without a `*` this is plain string comparison (RFC 9700, 4.1.3).
    pub fn allows(&self, uri: &str) -> bool {
        let Some((origin, tail)) = self.0.split_once(":*") else {
            return same_tail(&self.0, uri);
        };
        let Some(rest) = uri.strip_prefix(origin).and_then(|rest| rest.strip_prefix(':')) else {
            return false;
        };
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        (1..=5).contains(&digits) && rest.get(digits..).is_some_and(|rest| same_tail(tail, rest))
    }
}

fn same_tail(pattern: &str, text: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == text, |prefix| text.starts_with(prefix))
}

/// Somebody who can log in.
#[derive(Clone, Debug)]
pub struct User {
    /// The name on the button, also `preferred_username`.
    pub login: String,
    /// The subject identifier.
    pub subject: String,
    /// The name of the person.
    pub name: String,
    /// The address of the person; always "verified".
    pub email: String,
    /// `realm_access.roles`, as Keycloak writes them.
    pub roles: Vec<String>,
}

impl User {
    /// Alice is a user and an administrator; her name is not ASCII.
    pub fn alice() -> Self {
        Self::new("alice", "a11ce000-0000-4000-8000-000000000001", "Alice Ærø", &["user", "admin"])
    }

    /// Bob is a user.
    pub fn bob() -> Self {
        Self::new("bob", "b0b00000-0000-4000-8000-000000000002", "Bob Builder", &["user"])
    }

    fn new(login: &str, subject: &str, name: &str, roles: &[&str]) -> Self {
        Self {
            login: login.to_owned(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            email: format!("{login}@example.com"),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        }
    }

    /// The claims about the person, as in the ID token and at the userinfo endpoint.
    pub(super) fn claims(&self) -> Value {
        json!({
            "name": self.name,
            "preferred_username": self.login,
            "email": self.email,
            "email_verified": true,
            "realm_access": { "roles": self.roles },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::UriRule;

    #[test]
    fn a_rule_without_star_is_a_plain_comparison() {
        let rule = UriRule::new("http://app.test/auth/callback");
        assert!(rule.allows("http://app.test/auth/callback"));
        for other in
            ["http://app.test/auth/callback/", "http://app.test/auth/callback?x", "http://APP.test/auth/callback"]
        {
            assert!(!rule.allows(other), "{other}");
        }
    }

    #[test]
    fn a_star_stands_for_the_port_only() {
        let rule = UriRule::new("http://127.0.0.1:*/auth/callback");
        assert!(rule.allows("http://127.0.0.1:8080/auth/callback"));
        for other in [
            "http://127.0.0.1/auth/callback",
            "http://127.0.0.1:/auth/callback",
            "http://127.0.0.1:80@evil.test/auth/callback",
            "http://127.0.0.1:123456/auth/callback",
            "http://127.0.0.1:8080/auth/callback/x",
            "http://127.0.0.1.evil.test:80/auth/callback",
        ] {
            assert!(!rule.allows(other), "{other}");
        }
        assert!(UriRule::new("http://localhost:*/*").allows("http://localhost:1/any"));
    }
}
