//! Turns the endpoints of an upstream into addresses, in the background. No request ever waits for a name.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{BoxFuture, join_all};
use pingora::{Error, ErrorType};
use pingora_load_balancing::discovery::ServiceDiscovery;
use pingora_load_balancing::{Backend, Extensions};

use super::upstream::Target;
use crate::config::settings::{Endpoint, ServerName, Upstream, UpstreamTls};

/// Longest wait for one answer of the name service.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

/// Asks the name service: host and port in, addresses out. Tests bring their own.
pub type Lookup = Arc<dyn Fn(String, u16) -> BoxFuture<'static, std::io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// The machine's own resolver, asked on a thread of its own.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|host, port| Box::pin(async move { tokio::net::lookup_host((host, port)).await.map(Iterator::collect) }))
}

/// What is known of an endpoint beside its address.
#[derive(Clone, Debug)]
struct Seat {
    /// Host and port as the settings have them.
    authority: Arc<str>,
    server_name: Option<ServerName>,
    weight: u32,
}

/// A DNS name and its last good answer.
struct Name {
    host: String,
    port: u16,
    seat: Seat,
    last: Mutex<Vec<SocketAddr>>,
}

/// The endpoints of one upstream: fixed addresses, and names that are looked up again and again.
pub(super) struct Endpoints {
    upstream: Arc<str>,
    fixed: Vec<(SocketAddr, Seat)>,
    names: Vec<Name>,
    lookup: Lookup,
}

impl Endpoints {
    pub(super) fn new(settings: &Upstream, lookup: Lookup) -> Self {
        let (mut fixed, mut names) = (Vec::new(), Vec::new());
        for Endpoint { host, port, weight } in &settings.endpoints {
            let named = |tls: &UpstreamTls| tls.server_name.clone().or_else(|| ServerName::parse(host));
            let server_name = settings.tls.as_ref().map(named);
            if server_name == Some(None) {
                // Checked settings have none of these. Without a name nothing would be verified.
                tracing::error!(upstream = %settings.name, host, "left out: TLS needs `server_name` for an IP address");
                continue;
            }
            let address = host.parse::<IpAddr>();
            let authority = match &address {
                Ok(address) => SocketAddr::new(*address, *port).to_string(),
                Err(_) => format!("{host}:{port}"),
            };
            let seat = Seat { authority: authority.into(), server_name: server_name.flatten(), weight: *weight };
            match address {
                Ok(address) => fixed.push((SocketAddr::new(address, *port), seat)),
                Err(_) => names.push(Name { host: host.clone(), port: *port, seat, last: Mutex::default() }),
            }
        }
        Self { upstream: Arc::clone(&settings.name), fixed, names, lookup }
    }

    /// Takes over the last good answers for names that `before` has too: until the name service has been asked again, they are
    /// the best that is known.
    pub(super) fn learn(&self, before: &Self) {
        let same = |name: &&Name, other: &&Name| (&name.host, name.port) == (&other.host, other.port);
        for name in &self.names {
            let Some(known) = before.names.iter().find(|other| same(&name, other)) else { continue };
            let last = known.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
            *name.last.lock().unwrap_or_else(PoisonError::into_inner) = last;
        }
    }

    /// What is known without asking anybody: fixed addresses, and the last answers for names.
    pub(super) fn known(&self) -> Vec<Arc<Target>> {
        let last = |name: &Name| name.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.backends(self.names.iter().map(last)).iter().filter_map(target).collect()
    }

    /// Everything, given the addresses of each name.
    fn backends(&self, answers: impl IntoIterator<Item = Vec<SocketAddr>>) -> BTreeSet<Backend> {
        let found = self
            .names
            .iter()
            .zip(answers)
            .flat_map(|(name, addresses)| addresses.into_iter().map(|address| backend(address, &name.seat)));
        self.fixed.iter().map(|(address, seat)| backend(*address, seat)).chain(found).collect()
    }

    /// Whether every endpoint is an address, so that looking again changes nothing.
    pub(super) fn is_fixed(&self) -> bool {
        self.names.is_empty()
    }

    /// Asks for one name. A failed or empty answer leaves the last good one in place: a name service that stumbles
    /// must not take the upstream down.
    async fn look_up(&self, name: &Name) -> Vec<SocketAddr> {
        let answer = tokio::time::timeout(LOOKUP_DEADLINE, (self.lookup)(name.host.clone(), name.port)).await;
        let problem = match answer {
            Ok(Ok(addresses)) if !addresses.is_empty() => {
                name.last.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&addresses);
                return addresses;
            }
            Ok(Ok(_)) => "no address".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {LOOKUP_DEADLINE:?}"),
        };
        let last = name.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tracing::warn!(upstream = %self.upstream, host = %name.host, kept = last.len(), %problem, "name not resolved");
        last
    }
}

#[async_trait]
impl ServiceDiscovery for Endpoints {
    async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let answers = join_all(self.names.iter().map(|name| self.look_up(name))).await;
        let backends = self.backends(answers);
        if backends.is_empty() {
            // An error keeps the old set; an empty set would replace it.
            return Error::e_explain(ErrorType::InternalError, "no endpoint has an address");
        }
        Ok((backends, HashMap::new()))
    }
}

fn backend(address: SocketAddr, seat: &Seat) -> Backend {
    let mut ext = Extensions::new();
    ext.insert(seat.clone());
    let weight = usize::try_from(seat.weight).unwrap_or(1);
    Backend { addr: pingora::protocols::l4::socket::SocketAddr::Inet(address), weight, ext }
}

/// The way back from what Pingora keeps.
pub(super) fn target(backend: &Backend) -> Option<Arc<Target>> {
    let Seat { authority, server_name, weight } = backend.ext.get::<Seat>()?.clone();
    Some(Target::new(*backend.addr.as_inet()?, authority, server_name, weight))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn upstream(endpoints: &[(&str, u16)]) -> Upstream {
        Upstream::plain("api", endpoints.iter().map(|(host, port)| Endpoint::new(*host, *port)).collect())
    }

    async fn addresses(endpoints: &Endpoints) -> Option<Vec<String>> {
        let (found, _) = endpoints.discover().await.ok()?;
        Some(found.iter().map(|backend| backend.addr.to_string()).collect())
    }

    #[tokio::test]
    async fn a_failed_or_empty_answer_keeps_the_last_good_one() {
        let answers: Arc<Mutex<Vec<io::Result<Vec<SocketAddr>>>>> = Arc::new(Mutex::new(vec![
            Ok(vec!["10.0.0.3:80".parse().unwrap()]),
            Ok(vec![]),
            Err(io::Error::other("SERVFAIL")),
            Ok(vec!["10.0.0.1:80".parse().unwrap(), "10.0.0.2:80".parse().unwrap()]),
        ]));
        let script = Arc::clone(&answers);
        let lookup: Lookup = Arc::new(move |_, _| {
            let answer = script.lock().unwrap().pop().unwrap();
            Box::pin(async move { answer })
        });
        let endpoints = Endpoints::new(&upstream(&[("api.internal", 80)]), lookup);
        let first = Some(vec!["10.0.0.1:80".to_owned(), "10.0.0.2:80".to_owned()]);
        for _ in 0..3 {
            assert_eq!(addresses(&endpoints).await, first);
        }
        assert_eq!(addresses(&endpoints).await, Some(vec!["10.0.0.3:80".to_owned()]));
    }

    #[tokio::test]
    async fn one_dead_name_does_not_hide_the_others() {
        let lookup: Lookup = Arc::new(|host, _| {
            Box::pin(async move {
                match host.as_str() {
                    "good" => Ok(vec!["10.0.0.9:80".parse().unwrap()]),
                    _ => Err(io::Error::other("NXDOMAIN")),
                }
            })
        });
        let all = upstream(&[("good", 80), ("bad", 80), ("::1", 81)]);
        let mixed = Endpoints::new(&all, Arc::clone(&lookup));
        assert!(!mixed.is_fixed());
        assert_eq!(addresses(&mixed).await, Some(vec!["10.0.0.9:80".to_owned(), "[::1]:81".to_owned()]));
        let dead = Endpoints::new(&upstream(&[("bad", 80)]), lookup);
        assert_eq!(addresses(&dead).await, None, "no address at all is an error, not an empty set");
    }
}
