//! The connection to Redis, made when first needed and kept up from then on.
//!
//! fred multiplexes all commands over one connection, but its own reconnection is not used: commands sent meanwhile
//! would wait in its buffer, the order to reconnect travels through that same bounded buffer (and ends the client for
//! good if it is full), and a peer that stops reading stops its checks as well. Here a fred client lives as long as
//! one connection. A task of ours, the *keeper*, makes the next one, and all others see the [`State`] and need not try.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::ClientLike as _;
use fred::types::ConnectHandle;
use fred::types::config::{Config, ConnectionConfig, PerformanceConfig};
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::{Change, StoreError};
use super::changes::{self, Hub};
use super::keys::PARTITIONS;
use crate::primitives::random;

/// How long a request waits for a lost connection to come back before it is told so; an attempt that fails tells it
/// at once. Behaviour D1 allows 250 ms.
const PATIENCE: Duration = Duration::from_millis(150);

/// Longest wait for a TCP connection with its TLS handshake, and again for the greeting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Delay of the second attempt to connect; the first is made at once, each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(25);

/// Longest delay between two attempts: a Redis that returns is noticed within half a second.
const LONGEST_DELAY: Duration = Duration::from_millis(400);

/// A connection that held this long was a good one: after it the delays begin anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// Most commands waiting for the connection; more than these fail at once.
const COMMAND_BUFFER: usize = 5_000;

/// Answers after which this connection is of no use: the server's role or our rights have changed, or it is starting.
const WRONG_SERVER: [&str; 5] = ["READONLY", "MASTERDOWN", "LOADING", "NOAUTH", "CLUSTERDOWN"];

/// Where commands go.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: Mutex<Option<AbortHandle>>,
}

/// What the tasks of a link know.
pub(super) struct Shared {
    config: Config,
    command_timeout: Duration,
    state: watch::Sender<State>,
    pub(super) hub: Hub,
}

enum State {
    /// No keeper runs: nobody has asked yet, or the runtime that it lived on has ended.
    Asleep,
    /// The keeper is at it; worth waiting for until then.
    Connecting(Instant),
    /// There it is.
    Up(Arc<Connection>),
    /// The latest attempt failed, and why. The keeper goes on trying.
    Down(Arc<str>),
}

/// One connection and what is known of its health.
pub(super) struct Connection {
    client: Client,
    since: Instant,
    /// When the latest answer came, in milliseconds after `since`.
    answered: AtomicU64,
    /// Whether it is over, or to be: the keeper makes another, and commands under way stop waiting. One that meets the
    /// end of fred's task would wait for its timeout otherwise.
    over: watch::Sender<bool>,
}

impl Link {
    pub(super) fn new(config: Config, command_timeout: Duration, channel: String) -> Self {
        let state = watch::Sender::new(State::Asleep);
        let shared = Shared { config, command_timeout, state, hub: Hub::new(channel) };
        Self { shared: Arc::new(shared), keeper: Mutex::new(None) }
    }

    pub(super) fn channel(&self) -> &str {
        self.shared.hub.channel()
    }

    /// Changes from now on, and as soon as there is a connection; where no runtime is to make one, the next command does.
    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        let receiver = self.shared.hub.subscribe();
        if tokio::runtime::Handle::try_current().is_ok() {
            self.wake_keeper(Instant::now() + self.shared.command_timeout);
        }
        receiver
    }

    /// How many partitions one script may touch: all of them where there is but one node.
    pub(super) fn partitions_at_a_time(&self) -> usize {
        if self.shared.config.server.is_clustered() { 1 } else { usize::from(PARTITIONS) }
    }

    pub(super) fn a_partition_of_each_node(&self) -> Vec<u8> {
        if self.shared.config.server.is_clustered() { (0..PARTITIONS).collect() } else { vec![0] }
    }

    /// Sends a command and waits for the answer, both together no longer than the command timeout.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if there is no connection, no answer in time, or an error for an answer. Whether
    /// Redis did the command is unknown, then.
    pub(super) async fn run<T, F, A>(&self, command: F) -> Result<T, StoreError>
    where
        F: FnOnce(Client) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.shared.command_timeout;
        let connection = self.connection(deadline).await?;
        let mut over = connection.over.subscribe();
        let sent = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = timeout_at(deadline, command(connection.client.clone())) => outcome,
            _ = over.wait_for(|over| *over) => {
                return Err(StoreError::Unavailable("the connection was lost".to_owned()));
            }
        };
        match outcome {
            Ok(Ok(answer)) => {
                connection.note_answer();
                Ok(answer)
            }
            Ok(Err(error)) if *error.kind() != ErrorKind::Timeout => {
                if is_wrong_server(&error) {
                    self.shared.give_up(&connection);
                }
                Err(unavailable(&error))
            }
            Ok(Err(_)) | Err(_) => {
                // The commands behind this one need not find out one by one.
                if sent.elapsed() * 2 >= self.shared.command_timeout && connection.silent_since(sent) {
                    self.shared.give_up(&connection);
                }
                Err(StoreError::Unavailable("no answer in time".to_owned()))
            }
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, StoreError> {
        if let State::Up(connection) = &*self.shared.state.borrow() {
            return Ok(Arc::clone(connection));
        }
        let mut state = self.shared.state.subscribe();
        loop {
            self.wake_keeper(deadline);
            let until = match &*state.borrow_and_update() {
                State::Up(connection) => return Ok(Arc::clone(connection)),
                State::Down(reason) => return Err(StoreError::Unavailable(reason.to_string())),
                State::Connecting(until) => deadline.min(*until),
                State::Asleep => deadline,
            };
            if !matches!(timeout_at(until, state.changed()).await, Ok(Ok(()))) {
                return Err(StoreError::Unavailable("not connected yet".to_owned()));
            }
        }
    }

    /// Starts the keeper on the caller's runtime if there is none.
    fn wake_keeper(&self, deadline: Instant) {
        let asleep = self.shared.state.send_if_modified(|state| {
            let asleep = matches!(state, State::Asleep);
            if asleep {
                *state = State::Connecting(deadline);
            }
            asleep
        });
        if asleep {
            // Moved in before the task first runs, so that the state is right even if it never does.
            let sleeper = SleepOnDrop(Arc::clone(&self.shared));
            let keeper = tokio::spawn(async move { tokio::join!(keep(&sleeper.0), changes::listen(&sleeper.0)) });
            let keeper = keeper.abort_handle();
            *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            keeper.abort();
        }
    }
}

impl Shared {
    /// Lets nobody use this connection any more.
    fn give_up(&self, connection: &Arc<Connection>) {
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(current) if Arc::ptr_eq(current, connection));
            if current {
                *state = State::Connecting(Instant::now() + PATIENCE);
            }
            current
        });
        connection.over.send_replace(true);
    }

    /// Waits for a connection.
    pub(super) async fn connected(&self) -> Arc<Connection> {
        let mut state = self.state.subscribe();
        loop {
            if let State::Up(connection) = &*state.borrow_and_update() {
                return Arc::clone(connection);
            }
            // The sender lives as long as `self`.
            let _ = state.changed().await;
        }
    }
}

impl Connection {
    /// Becomes true when it is over.
    pub(super) fn over(&self) -> watch::Receiver<bool> {
        self.over.subscribe()
    }

    pub(super) fn is_over(&self) -> bool {
        *self.over.borrow()
    }

    fn note_answer(&self) {
        let at = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered.store(at, Ordering::Relaxed);
    }

    /// Whether no command had an answer since then: the peer is gone or stuck.
    fn silent_since(&self, moment: Instant) -> bool {
        let moment = u64::try_from(moment.duration_since(self.since).as_millis()).unwrap_or(u64::MAX);
        self.answered.load(Ordering::Relaxed) <= moment
    }
}

/// In a script's error the code may stand behind some words of Redis' own.
fn is_wrong_server(error: &Error) -> bool {
    WRONG_SERVER.iter().any(|code| error.details().contains(code))
}

/// The keeper ends only from outside; then nobody may think that it still runs.
struct SleepOnDrop(Arc<Shared>);

impl Drop for SleepOnDrop {
    fn drop(&mut self) {
        self.0.state.send_replace(State::Asleep);
    }
}

/// fred's task of one connection; the connection ends with it.
pub(super) struct Router(ConnectHandle);

impl Router {
    /// Waits for its end and says why.
    pub(super) async fn ended(&mut self) -> String {
        match (&mut self.0).await {
            Ok(Err(error)) => cause(&error),
            _ => "connection closed".to_owned(),
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Connects, waits for the end of the connection, and connects again; never returns.
async fn keep(shared: &Shared) {
    let server = shared.config.server.hosts().first().map(ToString::to_string).unwrap_or_default();
    let mut delay = Duration::ZERO;
    let mut told = false;
    loop {
        match connect(shared).await {
            Ok((connection, mut router)) => {
                tracing::info!(server, "connected to Redis");
                told = false;
                shared.state.send_replace(State::Up(Arc::clone(&connection)));
                let mut over = connection.over.subscribe();
                let reason = tokio::select! {
                    reason = router.ended() => reason,
                    _ = over.wait_for(|over| *over) => "it does not answer, or is not the server it was".to_owned(),
                };
                shared.give_up(&connection);
                drop(router);
                tracing::warn!(server, reason, "lost the connection to Redis");
                if connection.since.elapsed() >= GOOD_LIFE {
                    delay = Duration::ZERO;
                }
            }
            Err(error) => {
                let reason = error.to_string();
                // Once an outage: an attempt is made several times a second.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(server, reason, "cannot connect to Redis; trying on");
                }
                shared.state.send_replace(State::Down(reason.into()));
            }
        }
        sleep(jittered(delay)).await;
        delay = (delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
    }
}

async fn connect(shared: &Shared) -> Result<(Arc<Connection>, Router), Error> {
    let (client, router) = open(shared, 32).await?;
    let connection =
        Connection { client, since: Instant::now(), answered: AtomicU64::new(0), over: watch::Sender::new(false) };
    Ok((Arc::new(connection), router))
}

/// A client with one connection, that ends with it.
pub(super) async fn open(shared: &Shared, events_waiting: usize) -> Result<(Client, Router), Error> {
    let performance = PerformanceConfig {
        broadcast_channel_capacity: events_waiting,
        // A little before ours, so that fred learns of it and drops what it has not sent yet.
        default_command_timeout: (shared.command_timeout * 15 / 16).max(Duration::from_millis(1)),
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
    let client = Client::new(shared.config.clone(), Some(performance), Some(connection), None);

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

/// Up to a quarter less, so that many proxies do not return in step.
fn jittered(delay: Duration) -> Duration {
    let [random] = random::bytes::<1>().unwrap_or_default();
    delay - delay / 4 * u32::from(random) / 256
}

/// What an operator needs of fred's error. It names no URL and no password; of a command that Redis does not know, Redis
/// quotes the arguments, and those stay out.
pub(super) fn cause(error: &Error) -> String {
    let text = error.to_string();
    text.split_once(", with args").map_or(text.as_str(), |(text, _)| text).to_owned()
}

fn unavailable(error: &Error) -> StoreError {
    match error.kind() {
        ErrorKind::Parse | ErrorKind::NotFound | ErrorKind::InvalidArgument => StoreError::Damaged(cause(error)),
        _ => StoreError::Unavailable(cause(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_quote_no_arguments() {
        let details = "ERR unknown command 'EVALSHA', with args beginning with: 'x' '1' 'cloakroom:s:key'";
        let error = unavailable(&Error::new(ErrorKind::Unknown, details));
        assert_eq!(error.to_string(), "the session store is unavailable: Unknown Error: ERR unknown command 'EVALSHA'");
    }

    #[test]
    fn jitter_takes_at_most_a_quarter() {
        for _ in 0..100 {
            let delay = jittered(LONGEST_DELAY);
            assert!(delay <= LONGEST_DELAY && delay > LONGEST_DELAY * 3 / 4 - Duration::from_millis(1));
        }
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
