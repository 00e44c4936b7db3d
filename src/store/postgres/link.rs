//! The way to PostgreSQL, found when first needed and kept up from then on.
//!
//! A task of ours, the *keeper*, makes the first connection and with it a [`Pool`]; when that is given up, the next one.
//! All others see the [`State`] and need not try: while PostgreSQL is known to be away, commands fail at once.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::super::{CHANGES_WAITING, Change, StoreError};
use super::dial::Dialer;
use super::fault::{Fault, Kind};
use super::pool::Pool;
use super::sql::Query;
use super::{listen, sweep};
use crate::primitives::clock::Clock;
use crate::primitives::random;

/// How long a request waits for a lost connection to come back before it is told so; an attempt that fails tells it
/// at once. Behaviour D1 allows 250 ms.
const PATIENCE: Duration = Duration::from_millis(150);

/// Delay of the second attempt to connect; the first is made at once, each further one waits twice as long.
const FIRST_DELAY: Duration = Duration::from_millis(25);

/// Longest delay between two attempts: a PostgreSQL that returns is noticed within half a second.
const LONGEST_DELAY: Duration = Duration::from_millis(400);

/// A pool that held this long was a good one: after it the delays begin anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// Where commands go.
pub(super) struct Link {
    shared: Arc<Shared>,
    keeper: Mutex<Option<AbortHandle>>,
}

pub(super) struct Shared {
    pub(super) dialer: Arc<Dialer>,
    pub(super) clock: Clock,
    pub(super) changes: broadcast::Sender<Change>,
    connections: usize,
    command_timeout: Duration,
    state: watch::Sender<State>,
}

enum State {
    /// No keeper runs: nobody has asked yet, or the runtime that it lived on has ended.
    Asleep,
    /// The keeper is at it; worth waiting for until then.
    Connecting(Instant),
    /// There it is.
    Up(Arc<Pool>),
    /// The latest attempt failed, and why. The keeper goes on trying.
    Down(Arc<str>),
}

impl Link {
    pub(super) fn new(dialer: Dialer, connections: usize, command_timeout: Duration, clock: Clock) -> Self {
        let shared = Shared {
            dialer: Arc::new(dialer),
            clock,
            changes: broadcast::Sender::new(CHANGES_WAITING),
            connections,
            command_timeout,
            state: watch::Sender::new(State::Asleep),
        };
        Self { shared: Arc::new(shared), keeper: Mutex::new(None) }
    }

    /// Runs a statement and waits for its rows, no longer than the command timeout from now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if there is no connection, no answer in time, or an error for an answer. Whether
    /// PostgreSQL did the command is unknown, then.
    pub(super) async fn query(&self, query: Query, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let deadline = Instant::now() + self.shared.command_timeout;
        self.wake_keeper(deadline);
        self.shared.query(query, values, deadline).await
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        let receiver = self.shared.changes.subscribe();
        // Whoever listens may never ask for anything.
        if Handle::try_current().is_ok() {
            self.wake_keeper(Instant::now() + self.shared.command_timeout);
        }
        receiver
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Starts the keeper on the caller's runtime if there is none.
    fn wake_keeper(&self, deadline: Instant) {
        if !matches!(*self.shared.state.borrow(), State::Asleep) {
            return;
        }
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
            let keeper = tokio::spawn(async move {
                let shared = &sleeper.0;
                tokio::join!(keep(shared), listen::keep(shared), sweep::keep(shared));
            });
            *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper.abort_handle());
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

/// The keeper ends only from outside; then nobody may think that it still runs.
struct SleepOnDrop(Arc<Shared>);

impl Drop for SleepOnDrop {
    fn drop(&mut self) {
        self.0.state.send_replace(State::Asleep);
    }
}

impl Shared {
    /// Waits until there is a connection, however long that takes.
    pub(super) async fn until_up(&self) -> Option<Arc<Pool>> {
        let mut state = self.state.subscribe();
        let state = state.wait_for(|state| matches!(state, State::Up(_))).await.ok()?;
        if let State::Up(pool) = &*state { Some(Arc::clone(pool)) } else { None }
    }

    pub(super) async fn query_soon(
        &self,
        query: Query,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, StoreError> {
        self.query(query, values, Instant::now() + self.command_timeout).await
    }

    async fn query(
        &self,
        query: Query,
        values: &[&(dyn ToSql + Sync)],
        deadline: Instant,
    ) -> Result<Vec<Row>, StoreError> {
        let pool = self.pool(deadline).await?;
        // One timer for both waits: to set one is a good part of what a command costs here.
        let mut timer = pin!(sleep_until(deadline));
        let lent = pool.take(timer.as_mut()).await.map_err(unavailable)?;
        let Some(session) = lent.session() else {
            return Err(StoreError::Unavailable("the connection was lost".to_owned()));
        };
        let sent = Instant::now();
        let answer = tokio::select! {
            biased;
            answer = session.query(query, values) => Some(answer),
            () = timer => None,
        };
        match answer {
            Some(Ok(rows)) => {
                pool.note_answer();
                Ok(rows)
            }
            Some(Err(fault)) => {
                if fault.kind == Kind::Server {
                    self.give_up(&pool, &fault.text);
                    lent.discard();
                } else {
                    pool.note_answer();
                }
                Err(unavailable(fault))
            }
            None => {
                // The commands behind this one need not find out one by one.
                if sent.elapsed() * 2 >= self.command_timeout && pool.is_silent_since(sent) {
                    self.give_up(&pool, "PostgreSQL does not answer");
                }
                lent.discard();
                Err(StoreError::Unavailable("no answer in time".to_owned()))
            }
        }
    }

    async fn pool(&self, deadline: Instant) -> Result<Arc<Pool>, StoreError> {
        if let State::Up(pool) = &*self.state.borrow() {
            return Ok(Arc::clone(pool));
        }
        let mut state = self.state.subscribe();
        loop {
            let until = match &*state.borrow_and_update() {
                State::Up(pool) => return Ok(Arc::clone(pool)),
                State::Down(reason) => return Err(StoreError::Unavailable(reason.to_string())),
                State::Connecting(until) => deadline.min(*until),
                State::Asleep => deadline,
            };
            if !matches!(timeout_at(until, state.changed()).await, Ok(Ok(()))) {
                return Err(StoreError::Unavailable("not connected yet".to_owned()));
            }
        }
    }

    /// Lets nobody begin to use this pool any more.
    fn give_up(&self, pool: &Arc<Pool>, reason: &str) {
        self.state.send_if_modified(|state| {
            let current = matches!(state, State::Up(current) if Arc::ptr_eq(current, pool));
            if current {
                *state = State::Connecting(Instant::now() + PATIENCE);
            }
            current
        });
        pool.give_up(reason);
    }
}

/// Connects, waits until that is over, and connects again; never returns.
async fn keep(shared: &Shared) {
    let server = shared.dialer.server();
    let mut retry = Retry::default();
    loop {
        match shared.dialer.open(true).await {
            Ok(first) => {
                tracing::info!(server, "connected to PostgreSQL");
                let pool = Pool::new(Arc::clone(&shared.dialer), first, shared.connections);
                shared.state.send_replace(State::Up(Arc::clone(&pool)));
                let reason = pool.over().await;
                shared.give_up(&pool, &reason);
                tracing::warn!(server, reason = &*reason, "lost the connection to PostgreSQL");
                retry.held(pool.since.elapsed());
            }
            Err(fault) => {
                if retry.is_news(&fault.text) {
                    tracing::warn!(server, reason = fault.text, "cannot connect to PostgreSQL; trying on");
                }
                shared.state.send_replace(State::Down(fault.text.into()));
            }
        }
        retry.wait().await;
    }
}

/// When to try again, and whether to speak of it.
#[derive(Default)]
pub(super) struct Retry {
    delay: Duration,
    told: String,
}

impl Retry {
    /// A connection has lasted so long.
    pub(super) fn held(&mut self, life: Duration) {
        if life >= GOOD_LIFE {
            self.delay = Duration::ZERO;
        }
        self.told.clear();
    }

    /// Once for each reason: an attempt is made several times a second.
    pub(super) fn is_news(&mut self, reason: &str) -> bool {
        let news = self.told != reason;
        reason.clone_into(&mut self.told);
        news
    }

    pub(super) async fn wait(&mut self) {
        sleep(random::jittered(self.delay)).await;
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
    }
}

fn unavailable(fault: Fault) -> StoreError {
    StoreError::Unavailable(fault.text)
}
