//! How to talk to an address: protocol, TLS, time limits.
//!
//! Pingora verifies nothing if the name to ask for is empty. Here a peer speaks TLS exactly if its target has a
//! [`ServerName`], which is never empty, and nothing else makes one.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::oneshot;

use super::target::Target;
use crate::config::settings::{self, ClientCertificate, Protocol, UpstreamTimeouts, UpstreamTls};
use crate::routing::tunnel::{self, CloseCode};

/// Longest silence of an upstream in a tunnel.
const TUNNEL_SILENCE: Duration = Duration::from_secs(3600);
/// Part of the group key of tunnels: they take no pooled connection.
const TUNNELS: u64 = 1 << 63;
/// Most requests at a time on one HTTP/2 connection; the server may allow fewer.
const H2_STREAMS: usize = 100;
/// How often an HTTP/2 connection is asked for a sign of life. One that died silently would take many requests along.
const H2_PING_EVERY: Duration = Duration::from_secs(10);

/// What all addresses of an upstream have in common.
pub(super) struct Wire {
    protocol: Protocol,
    timeouts: UpstreamTimeouts,
    /// Two upstreams with an address in common share no connections: their timeouts, authorities and certificates may
    /// differ.
    group_key: u64,
    tls: Option<Tls>,
}

struct Tls {
    settings: UpstreamTls,
    ca: Option<Arc<[WrappedX509]>>,
    client: Option<Arc<CertKey>>,
    /// For tunnels; made with the first one, for it may read all authorities of the system.
    tunnels: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Wire {
    /// `group_key` is unlike that of every other upstream, also of those that were before.
    pub(super) fn new(settings: &settings::Upstream, group_key: u64) -> Self {
        let tls = settings.tls.as_ref().map(|tls| Tls {
            settings: tls.clone(),
            ca: tls.ca.as_ref().map(|ca| ca.iter().map(wrapped).collect()),
            client: tls.client_certificate.as_ref().map(|client| {
                let chain = client.chain.iter().map(|der| der.as_ref().to_vec()).collect();
                Arc::new(CertKey::new(chain, client.key.secret_der().to_vec()))
            }),
            tunnels: OnceLock::new(),
        });
        Self { protocol: settings.protocol, timeouts: settings.timeouts, group_key: group_key & !TUNNELS, tls }
    }

    /// Every target has a name to ask for then.
    pub(super) fn speaks_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Every step under a time limit.
    pub(super) fn peer(&self, target: &Target) -> Box<HttpPeer> {
        let server_name = target.server_name().map(|name| name.as_str().to_owned());
        // At once where Pingora wants it: it is too large to be handed about.
        let mut peer =
            Box::new(HttpPeer::new(target.address(), server_name.is_some(), server_name.unwrap_or_default()));
        if let (Some(_), Some(tls)) = (target.server_name(), &self.tls) {
            peer.options.ca.clone_from(&tls.ca);
            peer.client_cert_key.clone_from(&tls.client);
        }
        if self.protocol != Protocol::Http1 {
            peer.options.set_http_version(2, 2);
            peer.options.max_h2_streams = H2_STREAMS;
            peer.options.h2_ping_interval = Some(H2_PING_EVERY);
        }
        self.limit(&mut peer);
        peer
    }

    fn limit(&self, peer: &mut HttpPeer) {
        peer.group_key = self.group_key;
        peer.options.connection_timeout = Some(self.timeouts.connect);
        peer.options.total_connection_timeout = Some(self.timeouts.connect.saturating_mul(2));
        peer.options.read_timeout = Some(self.timeouts.read);
        peer.options.write_timeout = Some(self.timeouts.write);
        peer.options.idle_timeout = Some(self.timeouts.idle);
    }

    /// The same through a tunnel, over HTTP/1.1 whatever the protocol, which may be silent for long. Pingora takes no other
    /// timeout once the connection is there, so this one is also that of the handshake's answer. To Pingora it is a plain
    /// connection: TLS lies below the frames that the tunnel looks at, so the connector shakes hands itself.
    pub(super) fn tunnel_peer(
        &self,
        target: &Target,
        ending: oneshot::Receiver<CloseCode>,
    ) -> Result<Box<HttpPeer>, String> {
        let mut peer = Box::new(HttpPeer::new(target.address(), false, String::new()));
        self.limit(&mut peer);
        peer.options.read_timeout = Some(self.timeouts.read.max(TUNNEL_SILENCE));
        // What has been a tunnel, or was refused to be one, serves nothing else.
        peer.options.idle_timeout = Some(Duration::ZERO);
        peer.group_key |= TUNNELS;
        let tls = match target.server_name() {
            Some(name) => Some((self.tunnel_config()?, name.clone())),
            None => None,
        };
        peer.options.custom_l4 = Some(Arc::new(tunnel::Connector::new(self.timeouts.connect, tls, ending)));
        Ok(peer)
    }

    fn tunnel_config(&self) -> Result<Arc<ClientConfig>, String> {
        let Some(tls) = &self.tls else { return client_config(None, None).map(Arc::new) };
        let make = || client_config(tls.settings.ca.as_deref(), tls.settings.client_certificate.as_deref());
        tls.tunnels.get_or_init(|| make().map(Arc::new)).clone()
    }
}

/// The settings have been checked for this.
fn wrapped(certificate: &CertificateDer<'_>) -> WrappedX509 {
    WrappedX509::new(certificate.as_ref().to_vec(), parse_x509)
}

/// Trusts these authorities, or the system's.
fn client_config(
    ca: Option<&[CertificateDer<'static>]>,
    client: Option<&ClientCertificate>,
) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let native = if ca.is_none() { rustls_native_certs::load_native_certs().certs } else { Vec::new() };
    roots.add_parsable_certificates(ca.unwrap_or(&native).iter().cloned());
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let mut config = match client {
        Some(client) => builder
            .with_client_auth_cert(client.chain.clone(), client.key.clone_key())
            .map_err(|error| error.to_string())?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
