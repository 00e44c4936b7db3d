//! One connection: to a server, or to the one that Sentinels name.

use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig, Server};
use fred::types::{ClusterHash, ConnectHandle, CustomCommand, Value};
use tokio::time::timeout;

use super::address::{self, Sentinels, Target};
use super::causes::cause;

/// Longest wait for a TCP connection with its TLS handshake, and again for the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longest wait for a Sentinel; the others are asked at the same time.
const SENTINEL_TIMEOUT: Duration = Duration::from_millis(500);

/// Most commands waiting for the connection; more than these fail at once.
const COMMAND_BUFFER: usize = 5_000;

/// fred's task of one connection; the connection ends with it.
pub(super) struct Router(ConnectHandle);

impl Router {
    /// Waits for its end and says why.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.0).await {
            Ok(Err(error)) => cause(&error),
            _ => "the connection was closed".to_owned(),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.0.abort();
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

    /// A client with one connection, that ends with it.
    pub(super) async fn open(&self, events_waiting: usize) -> Result<(Client, Router), Error> {
        let (server, is_named) = match &self.target {
            Target::Server(server) => (server.clone(), false),
            Target::Sentinels(sentinels) => (sentinels.primary().await?, true),
        };
        let (client, router) = open(address::at(&self.client, server), self.command_timeout, events_waiting).await?;
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
    /// What most of them say: one may have been cut off from the others and know nothing of a failover.
    async fn primary(&self) -> Result<Server, Error> {
        let asked = self.hosts.iter().map(|host| timeout(SENTINEL_TIMEOUT, self.ask(host)));
        let mut votes: Vec<(Server, usize)> = Vec::new();
        let mut failure =
            Error::new(ErrorKind::Sentinel, "no Sentinel answers in time: check the hosts of `store.url`");
        for answer in futures::future::join_all(asked).await {
            match answer {
                Ok(Ok(server)) => match votes.iter_mut().find(|(known, _)| *known == server) {
                    Some((_, votes)) => *votes += 1,
                    None => votes.push((server, 1)),
                },
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            }
        }
        // Of equals the first, as the settings have them.
        let most = votes.iter().map(|(_, votes)| *votes).max();
        votes.into_iter().find(|(_, votes)| Some(*votes) == most).map(|(server, _)| server).ok_or(failure)
    }

    async fn ask(&self, host: &Server) -> Result<Server, Error> {
        let config = address::at(&self.client, host.clone());
        let (client, _router) = open(config, SENTINEL_TIMEOUT, 32).await?;
        let args = vec!["get-master-addr-by-name".to_owned(), self.service.clone()];
        let answer: Option<(String, u16)> = client.custom(command("SENTINEL"), args).await?;
        let unknown = || Error::new(ErrorKind::Sentinel, "the Sentinels know no such `sentinelServiceName`");
        answer.map(|(host, port)| Server::new(host, port)).ok_or_else(unknown)
    }
}

/// A command that fred has no function for, or whose function lies behind a feature.
pub(super) fn command(name: &'static str) -> CustomCommand {
    CustomCommand::new_static(name, ClusterHash::FirstKey, false)
}

async fn open(config: Config, command_timeout: Duration, events_waiting: usize) -> Result<(Client, Router), Error> {
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
    let client = Client::new(config, Some(performance), Some(connection), None);

    // Listening must begin before the task does, and the task's handle must be ours from its first moment.
    let mut connected = std::pin::pin!(client.wait_for_connect());
    let early = futures::future::poll_immediate(connected.as_mut()).await;
    let router = Router(client.connect());
    match early {
        Some(result) => result?,
        None => connected.await?,
    }
    // fred takes a peer that accepts and closes for a connection.
    client.ping::<String>(None).await?;
    Ok((client.clone(), router))
}
