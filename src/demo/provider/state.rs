//! What all endpoints of the provider share, and the one place that looks at the clock.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use ring::error::Unspecified;
use serde_json::Value;

use super::config::{Client, ProviderConfig, User};
use super::grants::{Grants, Refusal};
use super::keys::{KeyRing, Signing};
use super::ledger::Ledger;
use super::switches::Switches;
use crate::demo::support::locked;

/// Below this path live the endpoints, and the cookie of the login page: cookies do not tell ports apart,
/// so a cookie for `/` would also go to the proxy on the same machine.
pub(super) const BASE_PATH: &str = "/oauth";

/// One provider. The handlers hold it in an `Arc`.
pub(super) struct Shared {
    pub(super) config: ProviderConfig,
    pub(super) issuer: String,
    pub(super) switches: Switches,
    pub(super) ledger: Ledger,
    address: SocketAddr,
    keys: Mutex<KeyRing>,
    grants: Mutex<Grants>,
}

impl Shared {
    pub(super) fn new(config: ProviderConfig, address: SocketAddr, keys: KeyRing, switches: Switches, ledger: Ledger) -> Arc<Self> {
        let issuer = config.issuer.clone().unwrap_or_else(|| format!("http://{address}"));
        Arc::new(Self { config, issuer, switches, ledger, address, keys: Mutex::new(keys), grants: Mutex::default() })
    }

    /// The address of an endpoint.
    pub(super) fn url(&self, endpoint: &str) -> String {
        format!("http://{}{BASE_PATH}/{endpoint}", self.address)
    }

    /// Seconds since 1970.
    pub(super) fn now(&self) -> u64 {
        (self.config.clock)().duration_since(UNIX_EPOCH).map(|time| time.as_secs()).unwrap_or_default()
    }

    pub(super) fn client(&self, id: &str) -> Option<&Client> {
        self.config.clients.iter().find(|client| client.id == id)
    }

    /// A user by login name, with the roles of the moment.
    pub(super) fn user(&self, login: &str) -> Option<User> {
        let mut user = self.config.users.iter().find(|user| user.login == login).cloned()?;
        if let Some(roles) = self.switches.now().roles {
            user.roles = roles;
        }
        Some(user)
    }

    pub(super) fn access_token_lifetime(&self) -> Duration {
        self.switches.now().access_token_lifetime.unwrap_or(self.config.access_token_lifetime)
    }

    /// Works on the promises. The lock is held for `work` only.
    pub(super) fn grants<T>(&self, work: impl FnOnce(&mut Grants) -> T) -> T {
        work(&mut locked(&self.grants))
    }

    pub(super) fn keys<T>(&self, work: impl FnOnce(&mut KeyRing) -> T) -> T {
        work(&mut locked(&self.keys))
    }

    /// Signs with the current key, or with the unpublished one while `stale_jwks` is on.
    pub(super) fn sign(&self, token_type: &str, claims: &Value, signing: &Signing) -> Result<String, Unspecified> {
        let stale = *signing == Signing::Honest && self.switches.now().stale_jwks;
        let signing = if stale { &Signing::Unpublished } else { signing };
        self.keys(|keys| keys.sign(token_type, claims, signing))
    }
}

impl From<Refusal> for super::token::TokenError {
    fn from(refusal: Refusal) -> Self {
        Self::invalid_grant(refusal.0)
    }
}
