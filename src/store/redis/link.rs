//! The connection to Redis, made when first needed and kept up from then on.
//!
//! fred multiplexes all commands over one connection, but its own reconnection is not used: commands sent meanwhile
//! would wait in its buffer, the order to reconnect travels through that same bounded buffer (and ends the client for
//! good if it is full), and a peer that stops reading stops its checks as well. Here a fred client lives as long as
//! one connection. A task of ours, the *keeper*, makes the next one, and all others see the [`State`] and need not try.
//!
//! The connection lives on the runtime of its first use. A runtime of its own was measured beside that (`benches/store`,
//! two cores shared with Redis, 64 callers, four runs): 11.6 to 17.2 µs a load against 12.8 to 15.7 µs, sometimes the
//! one ahead and sometimes the other; for a single caller 27.8 against 28.4 µs. It would be a thread more for nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::types::config::Server;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::super::StoreError;
use super::causes;
use super::connect::{Router, Way};
use crate::primitives::random;

/// How long a request waits for a lost connection to come back before it is told so; an attempt that fails tells it
/// at once. Behaviour D1 allows 250 ms.
const PATIENCE: Duration = Duration::from_millis(150);

/// Delay of the second attempt to connect; the first is made at once, each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(25);

/// Longest delay between two attempts: a Redis that returns is noticed within half a second.
const LONGEST_DELAY: Duration = Duration::from_millis(400);

/// A connection that held this long was a good one: after it the delays begin anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// fred passes errors of the connection on through a channel of this size.
const EVENTS_WAITING: usize = 32;

/// What a command is told that had none.
const NO_ANSWER: &str = "no answer in time";

/// What came of a command that failed.
pub(super) enum Fault {
    /// It was not done: the slot is on that node.
    Moved(Server),
    /// It was not done: ask that node, this once, with `ASKING` before it.
    Ask(Server),
    /// It was not done: some of its keys have moved already.
    TryAgain,
    Other(StoreError),
}

impl Fault {
    fn new(reason: &str) -> Self {
        Self::Other(StoreError::Unavailable(reason.to_owned()))
    }

    fn of(error: &Error) -> Self {
        let mut words = error.details().split(' ');
        match (words.next(), words.nth(1).and_then(server)) {
            (Some("MOVED"), Some(server)) => Self::Moved(server),
            (Some("ASK"), Some(server)) => Self::Ask(server),
            (Some("TRYAGAIN"), _) => Self::TryAgain,
            _ => Self::Other(causes::unavailable(error)),
        }
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Other(error) => error,
            Fault::Moved(_) | Fault::Ask(_) => Self::Unavailable(
                "this Redis is one node of a cluster: write `redis-cluster://` in `store.url`".to_owned(),
            ),
            Fault::TryAgain => Self::Unavailable("a part of the Redis cluster is being moved: wait".to_owned()),
        }
    }
}

/// `host:port` of a redirection; a node that knows no host of the other leaves it empty.
fn server(text: &str) -> Option<Server> {
    let (host, port) = text.rsplit_once(':')?;
    Some(Server::new(host.trim_matches(['[', ']']), port.parse().ok()?))
}

/// Where commands go.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: Mutex<Option<AbortHandle>>,
}

/// What the tasks of a link know.
pub(super) struct Shared {
    pub(super) way: Way,
    state: watch::Sender<State>,
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
    pub(super) fn new(way: Way) -> Self {
        let state = watch::Sender::new(State::Asleep);
        Self { shared: Arc::new(Shared { way, state }), keeper: Mutex::new(None) }
    }

    /// What others may wait for.
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(&*self.shared.state.borrow(), State::Up(_))
    }

    /// Sends a command and waits for the answer, both together no longer than until the deadline.
    ///
    /// # Errors
    /// [`Fault`]: there is no connection, no answer in time, or an error for an answer. Whether Redis did the command is
    /// unknown, unless it sent us elsewhere.
    pub(super) async fn run<T, F, A>(&self, deadline: Instant, command: F) -> Result<T, Fault>
    where
        F: FnOnce(Client) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let connection = self.connection(deadline).await?;
        let mut over = connection.over.subscribe();
        let sent = Instant::now();
        let outcome = tokio::select! {
            biased;
            outcome = timeout_at(deadline, command(connection.client.clone())) => outcome,
            _ = over.wait_for(|over| *over) => return Err(Fault::new("the connection was lost")),
        };
        match outcome {
            Ok(Ok(answer)) => {
                connection.note_answer();
                Ok(answer)
            }
            Ok(Err(error)) if *error.kind() != ErrorKind::Timeout => {
                if causes::is_wrong_server(&error) {
                    self.shared.give_up(&connection, None);
                }
                Err(Fault::of(&error))
            }
            Ok(Err(_)) | Err(_) => {
                // The commands behind this one need not find out one by one, nor wait for a server that is stuck.
                if sent.elapsed() * 2 >= self.shared.way.command_timeout && connection.silent_since(sent) {
                    self.shared.give_up(&connection, Some(NO_ANSWER));
                }
                Err(Fault::new(NO_ANSWER))
            }
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, Fault> {
        if let State::Up(connection) = &*self.shared.state.borrow() {
            return Ok(Arc::clone(connection));
        }
        let mut state = self.shared.state.subscribe();
        loop {
            self.wake_keeper(deadline);
            let until = match &*state.borrow_and_update() {
                State::Up(connection) => return Ok(Arc::clone(connection)),
                State::Down(reason) => return Err(Fault::new(reason)),
                State::Connecting(until) => deadline.min(*until),
                State::Asleep => deadline,
            };
            if !matches!(timeout_at(until, state.changed()).await, Ok(Ok(()))) {
                return Err(Fault::new("not connected yet"));
            }
        }
    }

    /// Starts the keeper on the caller's runtime if there is none.
    pub(super) fn wake_keeper(&self, deadline: Instant) {
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
            let keeper = tokio::spawn(async move { keep(&sleeper.0).await }).abort_handle();
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
    /// Lets nobody use this connection any more, nor wait for the next one if there is a reason not to.
    fn give_up(&self, connection: &Arc<Connection>, reason: Option<&str>) {
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(current) if Arc::ptr_eq(current, connection));
            if current {
                *state = match reason {
                    Some(reason) => State::Down(reason.into()),
                    None => State::Connecting(Instant::now() + PATIENCE),
                };
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

/// The keeper ends only from outside; then nobody may think that it still runs.
struct SleepOnDrop(Arc<Shared>);

impl Drop for SleepOnDrop {
    fn drop(&mut self) {
        self.0.state.send_replace(State::Asleep);
    }
}

/// Connects, waits for the end of the connection, and connects again; never returns.
async fn keep(shared: &Shared) {
    let server = shared.way.name();
    let mut delay = Duration::ZERO;
    let mut told = false;
    loop {
        match connect(shared).await {
            Ok((connection, mut router)) => {
                tracing::info!(server, "connected to Redis");
                told = false;
                shared.state.send_replace(State::Up(Arc::clone(&connection)));
                let mut over = connection.over.subscribe();
                let place = router.leads_to.clone();
                let reason = tokio::select! {
                    reason = router.ended() => reason,
                    _ = over.wait_for(|over| *over) => "it does not answer, or is not the server it was".to_owned(),
                    () = shared.way.replaced(&place) => "the Sentinels name another server".to_owned(),
                };
                shared.give_up(&connection, None);
                drop(router);
                tracing::warn!(server, reason, "lost the connection to Redis");
                if connection.since.elapsed() >= GOOD_LIFE {
                    delay = Duration::ZERO;
                }
            }
            Err(error) => {
                let reason = causes::cause(&error);
                // Once an outage: an attempt is made several times a second.
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(server, reason, "cannot connect to Redis; trying on");
                }
                shared.state.send_replace(State::Down(reason.into()));
            }
        }
        sleep(random::jittered(delay)).await;
        delay = (delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
    }
}

async fn connect(shared: &Shared) -> Result<(Arc<Connection>, Router), Error> {
    let (client, router) = shared.way.open(EVENTS_WAITING).await?;
    let connection =
        Connection { client, since: Instant::now(), answered: AtomicU64::new(0), over: watch::Sender::new(false) };
    Ok((Arc::new(connection), router))
}
