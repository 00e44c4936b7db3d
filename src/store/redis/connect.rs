//! One connection: to a server, or to the one that Sentinels name.

use std::collections::HashMap;
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, Server};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::time::{sleep, timeout};

use super::address::{self, Sentinels, Target};
use super::causes::cause;

/// Longest wait for a TCP connection with its TLS handshake, and again for the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for a Sentinel; the others are asked at the same time.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// How often the Sentinels are asked whether the server is still the one.
const SENTINELS_ASKED_EVERY: Duration = Duration::from_secs(1);

/// How many times in a row most Sentinels must name another primary, without an election later than ours, until they are
/// believed: Sentinels that were set up anew count from the beginning.
const OUTVOTED: u32 = 5;

/// Most commands waiting for the connection; more than these fail at once.
const COMMAND_BUFFER: usize = 5_000;

/// fred's task of one connection; the connection ends with it.
pub(super) struct Router {
    task: ConnectHandle,
    pub(super) leads_to: Place,
}

/// Where a connection leads to.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) server: Server,
    /// The number of the election that made it the primary; 0 where no Sentinel said.
    election: u64,
}

impl Router {
    /// Waits for its end and says why.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Err(error)) => cause(&error),
            _ => "the connection was closed".to_owned(),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where to connect to, and how.
pub(super) struct Way {
    pub(super) client: Config,
    pub(super) target: Target,
    pub(super) command_timeout: Duration,
}

impl Way {
    /// For logs.
    pub(super) fn name(&self) -> String {
        match &self.target {
            Target::Server(server) => server.to_string(),
            Target::Sentinels(sentinels) => format!("the primary of {}", sentinels.service),
        }
    }

    /// Waits until the server is not the one to talk to any more, as far as others can tell.
    pub(super) async fn replaced(&self, place: &Place) {
        match &self.target {
            Target::Server(_) => std::future::pending().await,
            Target::Sentinels(sentinels) => sentinels.named_another(place).await,
        }
    }

    /// A client with one connection to a server, that ends with it.
    pub(super) async fn open(&self, events_waiting: usize) -> Result<(Client, Router), Error> {
        let (place, is_named) = match &self.target {
            Target::Server(server) => (Place { server: server.clone(), election: 0 }, false),
            Target::Sentinels(sentinels) => (sentinels.primary().await?.place, true),
        };
        let (client, router) = open(&self.client, place, self.command_timeout, events_waiting).await?;
        if is_named {
            // Sentinels may not know yet that it is no longer the primary.
            let role: Value = client.custom(command("ROLE"), Vec::<Value>::new()).await?;
            let role = role.into_array().into_iter().next().and_then(|role| role.as_string());
            if role.as_deref() != Some("master") {
                return Err(Error::new(ErrorKind::Sentinel, "the server that the Sentinels name is not a primary"));
            }
        }
        Ok((client, router))
    }
}

impl Sentinels {
    /// The newest that any of them knows: each election has a number that is higher than those before it, and for a second
    /// or two only the Sentinel that led the last one knows what came of it. Of those with the same number most votes count.
    async fn primary(&self) -> Result<Named, Error> {
        let asked = self.hosts.iter().map(|host| timeout(SENTINEL_TIMEOUT, self.ask(host)));
        let mut votes: Vec<(Opinion, usize)> = Vec::new();
        let mut electing = Vec::new();
        let mut failure =
            Error::new(ErrorKind::Sentinel, "no Sentinel answers in time: check the hosts of `store.url`");
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(Ok(opinion)) => {
                    if opinion.replaces_it {
                        electing.push(opinion.primary.clone());
                    }
                    match votes.iter_mut().find(|(known, _)| known.is_same(&opinion)) {
                        Some((_, votes)) => *votes += 1,
                        None => votes.push((opinion, 1)),
                    }
                }
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        // Of equals the first, as the settings have them.
        let most = votes.iter().map(|(opinion, votes)| (opinion.election, *votes)).max();
        let best = votes.into_iter().find(|(opinion, votes)| Some((opinion.election, *votes)) == most);
        let (best, votes) = best.ok_or(failure)?;
        if electing.contains(&best.primary) {
            // Should it return just now, perhaps empty, it is still the wrong one.
            return Err(Error::new(ErrorKind::Sentinel, "the Sentinels are electing another primary: wait"));
        }
        let place = Place { server: best.primary, election: best.election };
        Ok(Named { place, by_most: votes * 2 > self.hosts.len() })
    }

    /// Waits until the Sentinels name another server than this one. It may go on answering as a primary for ten seconds
    /// before they make a replica of it: one that was cut off, or that was away and has returned.
    async fn named_another(&self, than: &Place) {
        let (mut outvoted, mut election) = (0, than.election);
        while outvoted < OUTVOTED {
            sleep(SENTINELS_ASKED_EVERY).await;
            match self.primary().await {
                Ok(named) if named.place.server == than.server => {
                    (outvoted, election) = (0, election.max(named.place.election));
                }
                Ok(named) if named.place.election > election => return,
                // Who has not heard of the latest election yet names the primary before it.
                Ok(named) if named.by_most => outvoted += 1,
                _ => {}
            }
        }
    }

    async fn ask(&self, host: &Server) -> Result<Opinion, Error> {
        let place = Place { server: host.clone(), election: 0 };
        let (client, _router) = open(&self.client, place, SENTINEL_TIMEOUT, 32).await?;
        let about = |what: &str| vec![what.to_owned(), self.service.clone()];
        // Before the address, so that an election that ends in between is no longer going on.
        let state: Option<HashMap<String, String>> =
            client.custom(command("SENTINEL"), about("master")).await.unwrap_or_default();
        let answer: Option<(String, u16)> =
            client.custom(command("SENTINEL"), about("get-master-addr-by-name")).await?;
        let unknown = || Error::new(ErrorKind::Sentinel, "the Sentinels know no such `sentinelServiceName`");
        let (host, port) = answer.ok_or_else(unknown)?;
        let say = |name: &str| state.as_ref().and_then(|state| state.get(name)).map_or("", String::as_str);
        let was = (say("ip"), say("port").parse());
        let replaces_it =
            say("flags").split(',').any(|flag| flag == "failover_in_progress") && was == (host.as_str(), Ok(port));
        Ok(Opinion {
            primary: Server::new(host, port),
            election: say("config-epoch").parse().unwrap_or(0),
            replaces_it,
        })
    }
}

/// What the Sentinels say together.
struct Named {
    place: Place,
    /// Whether more than half of all those in the settings say so.
    by_most: bool,
}

/// What one Sentinel says.
struct Opinion {
    primary: Server,
    /// The number of the election that made it the primary; 0 if the Sentinel does not let us know.
    election: u64,
    /// It is about to make another the primary.
    replaces_it: bool,
}

impl Opinion {
    fn is_same(&self, other: &Self) -> bool {
        (&self.primary, self.election) == (&other.primary, other.election)
    }
}

/// A command that fred has no function for, or whose function lies behind a feature.
pub(super) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

async fn open(
    config: &Config,
    leads_to: Place,
    command_timeout: Duration,
    events_waiting: usize,
) -> Result<(Client, Router), Error> {
    let performance = PerformanceConfig {
        broadcast_channel_capacity: events_waiting,
        // A little before ours, so that fred learns of it and drops what it has not sent yet.
        default_command_timeout: (command_timeout * 15 / 16).max(Duration::from_millis(1)),
        ..PerformanceConfig::default()
    };
    let mut connection = ConnectionConfig {
        connection_timeout: CONNECT_TIMEOUT,
        internal_command_timeout: CONNECT_TIMEOUT,
        // A command that may have arrived is not sent twice.
        max_command_attempts: 1,
        max_command_buffer_len: COMMAND_BUFFER,
        ..ConnectionConfig::default()
    };
    connection.tcp.nodelay = Some(true);
    // No reconnection policy: the client ends with its connection.
    let client = Client::new(address::at(config, leads_to.server.clone()), Some(performance), Some(connection), None);

    // Listening must begin before the task does, and the task's handle must be ours from its first moment.
    let mut connected = std::pin::pin!(client.wait_for_connect());
    let early = futures::future::poll_immediate(connected.as_mut()).await;
    let router = Router { task: client.connect(), leads_to };
    match early {
        Some(result) => result?,
        None => connected.await?,
    }
    // fred takes a peer that accepts and closes for a connection.
    client.ping::<String>(None).await?;
    Ok((client.clone(), router))
}
