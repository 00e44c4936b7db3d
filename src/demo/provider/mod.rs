//! An OpenID provider inside the program: for `cloakroom demo`, so that nobody has to install one, and for
//! tests, because it can misbehave on demand and counts what it is asked.
//!
//! It is a real provider as far as a client can see: discovery, code flow with PKCE, rotation of refresh
//! tokens with reuse detection, single sign-on, revocation, logout. It is not a safe one: everybody logs in
//! with one click. Therefore it refuses to listen on anything but loopback.

mod assertion;
mod authorize;
mod backchannel;
mod client;
mod config;
mod dpop;
mod exchange;
mod grants;
mod issue;
mod keys;
mod ledger;
mod logout;
mod metadata;
mod pages;
mod parameters;
mod pushed;
mod state;
mod switches;
#[cfg(test)]
mod tests;
mod token;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::{MethodRouter, get, post};
use ring::error::Unspecified;
use serde_json::Value;
use url::Url;

pub use backchannel::{Delivered, LogoutTokenFault, send_logout_token};
pub use config::{Client, ProviderClock, ProviderConfig, UriRule, User};
pub use keys::Signing;
pub use ledger::{Issued, Ledger, Recorded};
pub use switches::{Endpoint, IdTokenFault, Misbehaviour, ResponseIssuer, Rotation, Switches, canary_traces};

use super::server::Server;
use keys::KeyRing;
use state::{BASE_PATH, Shared};

/// A running provider. It stops when it is dropped.
pub struct Provider {
    server: Server,
    shared: Arc<Shared>,
}

impl Provider {
    /// Binds the address and serves on the current tokio runtime.
    ///
    /// # Errors
    /// If the address is not a loopback address or cannot be bound, or if there is no tokio runtime's
    /// reactor to register with.
    pub fn start(config: ProviderConfig) -> io::Result<Self> {
        let address = config.address;
        if !address.ip().is_loopback() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the demo provider listens on loopback only"));
        }
        let keys = KeyRing::generate().map_err(signing_failed)?;
        let switches = Switches::default();
        let ledger = Ledger::new(config.ledger_capacity);
        // The issuer is known only once the port is, so the state is made while the server starts.
        let made = OnceLock::new();
        let server = Server::start(address, |bound| {
            let shared = made.get_or_init(|| Shared::new(config, bound, keys, switches, ledger));
            router(shared)
        })?;
        let shared = made.into_inner().ok_or_else(|| io::Error::other("the provider was not built"))?;
        Ok(Self { server, shared })
    }

    /// The address it is bound to.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Its issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.shared.issuer
    }

    /// Goes down: the listener closes, open connections are reset. Sessions and tokens are kept.
    pub async fn stop(&self) {
        self.server.stop().await;
    }

    /// Comes back on the same port, with all it knew.
    ///
    /// # Errors
    /// If somebody took the port meanwhile.
    pub fn restart(&self) -> io::Result<()> {
        self.server.restart()
    }

    /// The switches by which it misbehaves.
    pub fn switches(&self) -> &Switches {
        &self.shared.switches
    }

    /// What it was asked and what it gave.
    pub fn ledger(&self) -> &Ledger {
        &self.shared.ledger
    }

    /// Makes the next key the signing key and publishes it beside the old ones. Tokens signed under
    /// [`Misbehaviour::stale_jwks`] were signed with just this key, so now they can be verified.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn rotate_keys(&self) -> io::Result<()> {
        self.shared.keys(KeyRing::rotate).map_err(signing_failed)
    }

    /// Takes all keys but the signing one out of the published set.
    pub fn retire_old_keys(&self) {
        self.shared.keys(KeyRing::retire_old);
    }

    /// Ends the provider session `sid`: its refresh tokens are worth nothing from now on.
    pub fn end_session(&self, sid: &str) {
        self.shared.grants(|grants| grants.end_sid(sid));
    }

    /// Ends every token there is, as a provider that lost its memory.
    pub fn forget_tokens(&self) {
        self.shared.grants(grants::Grants::forget_tokens);
    }

    /// A JWT of the provider over any claims, honest or not: bearer tokens, logout tokens, forgeries.
    ///
    /// # Errors
    /// If signing fails.
    pub fn sign(&self, token_type: &str, claims: &Value, signing: &Signing) -> io::Result<String> {
        self.shared.sign(token_type, claims, signing).map_err(signing_failed)
    }
}

fn signing_failed(_: Unspecified) -> io::Error {
    io::Error::other("signing failed")
}

fn router(shared: &Arc<Shared>) -> Router {
    let at = |name: &str| format!("{BASE_PATH}/{name}");
    let route = |endpoint: Endpoint, methods: MethodRouter<Arc<Shared>>| {
        let faults = shared.switches.faults(endpoint);
        let ledger = shared.ledger.clone();
        methods.layer(from_fn(move |request: Request, next: Next| {
            ledger.called(endpoint);
            faults.clone().strike(request, next)
        }))
    };
    // Below the path of the issuer, if it has one (OpenID Connect Discovery, 4).
    let issuer = Url::parse(&shared.issuer).map(|issuer| issuer.path().trim_end_matches('/').to_owned());
    let discovery = format!("{}/.well-known/openid-configuration", issuer.unwrap_or_default());
    Router::new()
        .route(&discovery, route(Endpoint::Discovery, get(metadata::discovery)))
        .route(&at("jwks"), route(Endpoint::Jwks, get(metadata::jwks)))
        .route(&at("authorize"), route(Endpoint::Authorize, get(authorize::show).post(authorize::choose)))
        .route(&at("token"), route(Endpoint::Token, post(token::token)))
        .route(&at("par"), route(Endpoint::Pushed, post(pushed::push)))
        .route(&at("userinfo"), route(Endpoint::Userinfo, get(metadata::userinfo).post(metadata::userinfo)))
        .route(&at("revoke"), route(Endpoint::Revoke, post(logout::revoke)))
        .route(&at("end-session"), route(Endpoint::EndSession, get(logout::end_session).post(logout::end_session)))
        .route(&at("login.css"), get(pages::style))
        .with_state(Arc::clone(shared))
}
