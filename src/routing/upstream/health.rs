//! Health checks: an endpoint is asked how it is.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Weak};

use async_trait::async_trait;
use futures::future::join_all;
use http::header::{HOST, USER_AGENT};
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::prelude::{Error, ErrorType};
use pingora::upstreams::peer::HttpPeer;
use pingora_load_balancing::Backend;

use super::Upstream;
use super::target::Target;
use crate::config::settings::HealthCheck;

/// Opens the connections of all checks, one for each: an established one hides what is wrong with new ones.
static CONNECTOR: LazyLock<Connector> = LazyLock::new(|| Connector::new(None));

/// Checks the addresses of one upstream; Pingora counts how often in a row.
pub(super) struct Checker {
    /// The upstream owns what owns this.
    pub(super) upstream: Weak<Upstream>,
    pub(super) settings: HealthCheck,
}

impl Checker {
    async fn ask(&self, peer: HttpPeer, target: &Target) -> pingora::Result<()> {
        let (mut session, _) = CONNECTOR.get_http_session(&peer).await?;
        let Some(path) = &self.settings.path else { return Ok(()) };
        let mut request = RequestHeader::build("GET", path.as_bytes(), None)?;
        request.insert_header(HOST, target.authority())?;
        request.insert_header(USER_AGENT, "cloakroom-health-check")?;
        if session.as_http2().is_some() {
            request.set_version(http::Version::HTTP_2);
            let uri = http::Uri::builder()
                .scheme(if peer.is_tls() { "https" } else { "http" })
                .authority(target.authority())
                .path_and_query(path.as_str())
                .build();
            let invalid = |_| Error::explain(ErrorType::InternalError, "the target of a health check");
            request.set_uri(uri.map_err(invalid)?);
            request.remove_header(&HOST);
        }
        session.write_request_header(Box::new(request)).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |header| header.status.as_u16());
        let expect = &self.settings.expect;
        if expect.contains(&status) || expect.is_empty() && (200..300).contains(&status) {
            return Ok(());
        }
        Error::e_explain(ErrorType::HTTPStatus(status), "the answer is not one that is expected")
    }
}

#[async_trait]
impl pingora_load_balancing::health_check::HealthCheck for Checker {
    async fn check(&self, backend: &Backend) -> pingora::Result<()> {
        let Some(upstream) = self.upstream.upgrade() else { return Ok(()) };
        let Some(target) = upstream.target_of(backend) else { return Ok(()) };
        let mut peer = upstream.wire.peer(&target);
        // The one request of its connection; Pingora would keep a connection that had room for more.
        peer.options.max_h2_streams = 1;
        let answer = tokio::time::timeout(self.settings.timeout, self.ask(*peer, &target)).await;
        let result = answer.unwrap_or_else(|_| Error::e_explain(ErrorType::ReadTimedout, "no answer in time"));
        upstream.metrics.checked(result.is_ok());
        if let Err(error) = &result {
            let (upstream, address) = (upstream.name(), target.address());
            tracing::debug!(%upstream, %address, %error, "health check failed");
        }
        result
    }

    async fn health_status_change(&self, backend: &Backend, healthy: bool) {
        let Some(upstream) = self.upstream.upgrade() else { return };
        let Some(target) = upstream.target_of(backend) else { return };
        target.set_healthy(healthy);
        let address = target.address();
        if healthy {
            tracing::info!(upstream = %upstream.name(), %address, "address in service: the health check is good again");
        } else {
            tracing::warn!(upstream = %upstream.name(), %address, "address out of service: the health check fails");
        }
        upstream.recount();
    }

    fn health_threshold(&self, success: bool) -> usize {
        let times = if success { self.settings.healthy_after } else { self.settings.unhealthy_after };
        usize::try_from(times).unwrap_or(usize::MAX)
    }
}

impl Upstream {
    /// Asks each of its addresses once how it is, in the way of its health check; without one a connection, with its TLS
    /// handshake, is enough. Changes nothing.
    pub async fn try_out(self: &Arc<Self>, check: Option<&HealthCheck>) -> Vec<(SocketAddr, Result<(), String>)> {
        let settings = check.cloned().unwrap_or_default();
        let checker = Arc::new(Checker { upstream: Arc::downgrade(self), settings });
        let targets = self.targets.load_full();
        let mut ask = Vec::new();
        for target in targets.list() {
            let mut peer = self.wire.peer(target);
            peer.options.max_h2_streams = 1;
            let (checker, target) = (Arc::clone(&checker), Arc::clone(target));
            ask.push(async move {
                let within = checker.settings.timeout;
                let result = match tokio::time::timeout(within, checker.ask(*peer, &target)).await {
                    Ok(result) => result.map_err(|error| one_line(&error.to_string())),
                    Err(_) => Err(format!("no answer within {within:?}")),
                };
                (target.address(), result)
            });
        }
        join_all(ask).await
    }

    fn target_of(&self, backend: &Backend) -> Option<Arc<Target>> {
        let address = *backend.addr.as_inet()?;
        self.targets.load().list().iter().find(|target| target.address() == address).cloned()
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
