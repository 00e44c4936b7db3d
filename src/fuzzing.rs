//! Doors to private rooms, for the fuzz targets in `fuzz/`: the very functions that the proxy calls, and nothing decided
//! here. Compiled for fuzzing, and with the unit tests so that it goes on compiling; no part of what is shipped.

use std::net::SocketAddr;
use std::sync::Arc;

use openidconnect::core::CoreJsonWebKeySet;
use openidconnect::{ClientId, IssuerUrl};
use pingora::http::RequestHeader;
use pingora::protocols::l4::stream::Stream;

use crate::app::App;
use crate::config::settings::Settings;
use crate::gate::{Gate, Pass};
use crate::listener::Said;
use crate::oidc::{self, IdToken, IdTokenError, LogoutToken, LogoutTokenError};
use crate::primitives::clock::{Clock, Timestamp};
use crate::{listener, proxy};

/// The gate that a server with these settings has. Nothing is started, and no connection is opened.
#[must_use]
pub fn gate(settings: &Settings) -> Option<Arc<Gate>> {
    let app = App::new(settings, &Clock::system()).ok()?;
    Some(app.reloader().gate.load_full())
}

/// Gives a request the target under which it goes upstream. `false`: it would fail instead.
pub fn set_target(request: &mut RequestHeader, pass: &Pass) -> bool {
    proxy::set_path(request, pass).is_ok()
}

/// The PROXY header in front of these bytes: the client, if it names one, and its length. `None`: not whole yet.
///
/// # Errors
/// What is wrong with it.
pub fn parse_proxy_header(bytes: &[u8]) -> Result<Option<(Option<SocketAddr>, usize)>, String> {
    Ok(listener::parse(bytes)?.map(|(said, length)| (client(said), length)))
}

/// Reads a PROXY header off the front of a stream.
///
/// # Errors
/// What is wrong with it.
pub async fn read_proxy_header(stream: &mut Stream) -> Result<Option<SocketAddr>, String> {
    listener::read(stream).await.map(client)
}

fn client(said: Said) -> Option<SocketAddr> {
    match said {
        Said::Client(address) => Some(address),
        Said::Somebody | Said::Itself => None,
    }
}

/// A provider as the judges of its tokens know it.
pub struct Issuer {
    issuer: IssuerUrl,
    client_id: ClientId,
    keys: CoreJsonWebKeySet,
}

impl Issuer {
    /// With the key set that it publishes. `None` for what is no URL or no key set.
    #[must_use]
    pub fn new(issuer: &str, client_id: &str, keys: &str) -> Option<Self> {
        Some(Self {
            issuer: IssuerUrl::new(issuer.to_owned()).ok()?,
            client_id: ClientId::new(client_id.to_owned()),
            keys: oidc::parse_keys(keys.as_bytes())?,
        })
    }

    /// Judges the ID token of a login.
    ///
    /// # Errors
    /// As the login would fail.
    pub fn id_token(
        &self,
        text: &str,
        access_token: &str,
        nonce: &str,
        now: Timestamp,
    ) -> Result<IdToken, IdTokenError> {
        let origin = oidc::Origin::Login { nonce, demands: &oidc::Demands::default() };
        let (issuer, client_id) = (&self.issuer, &self.client_id);
        let expected = oidc::ExpectedIdToken { issuer, client_id, access_token, now, origin };
        oidc::verify_id_token(text, &self.keys, &expected)
    }

    /// Judges a logout token.
    ///
    /// # Errors
    /// As the provider is told.
    pub fn logout_token(&self, text: &str, needs_end: bool, now: Timestamp) -> Result<LogoutToken, LogoutTokenError> {
        let (issuer, client_id) = (self.issuer.as_str(), self.client_id.as_str());
        let expected = oidc::ExpectedLogoutToken { issuer, client_id, now, needs_end };
        oidc::verify_logout_token(text, &self.keys, &expected)
    }
}
