//! The connections to one server, from the moment it was found until it is given up. Each is lent to one command at a
//! time: a statement that waits for a lock keeps no other waiting behind it.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, Sleep};

use super::dial::{Dialer, Session};
use super::fault::{Fault, Kind};

/// Most commands that wait for a connection; more than these fail at once.
const MOST_WAITING: usize = 1_024;

/// Connections that are opened at a time. A server that has just come back, or has little to spare, gets to its commands
/// sooner that way, and one connection does hundreds of them while another is opened.
const OPENING_AT_A_TIME: usize = 2;

/// The connections.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    /// The keeper's: connections must not end with the runtime of some caller.
    runtime: Handle,
    connections: Mutex<Connections>,
    /// One for each idle connection; who waits gets whichever comes first, those that were lent or a new one.
    ready: Semaphore,
    waiting: AtomicUsize,
    pub(super) since: Instant,
    /// When the latest answer came, in milliseconds after `since`.
    answered: AtomicU64,
    /// Why it is over, once it is.
    over: watch::Sender<Option<Arc<str>>>,
}

struct Connections {
    idle: Vec<Session>,
    /// Idle ones and lent ones.
    open: usize,
    opening: usize,
    most: usize,
}

/// A connection in use; back in the pool when dropped.
pub(super) struct Lent {
    session: Option<Session>,
    pool: Arc<Pool>,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>, first: Session, most: usize) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            runtime: Handle::current(),
            connections: Mutex::new(Connections { idle: vec![first], open: 1, opening: 0, most: most.max(1) }),
            ready: Semaphore::new(1),
            waiting: AtomicUsize::new(0),
            since: Instant::now(),
            answered: AtomicU64::new(0),
            over: watch::Sender::new(None),
        })
    }

    /// A connection that is idle now or comes free, or a new one while there are too few; no later than `deadline`.
    pub(super) async fn take(self: &Arc<Self>, mut deadline: Pin<&mut Sleep>) -> Result<Lent, Fault> {
        loop {
            self.turn(deadline.as_mut()).await?;
            let mut connections = self.connections();
            // The latest one first: it is the warmest, and the others may rest.
            match connections.idle.pop() {
                Some(session) if !session.is_closed() => {
                    return Ok(Lent { session: Some(session), pool: Arc::clone(self) });
                }
                Some(_) => connections.open -= 1,
                None => {}
            }
        }
    }

    /// Waits until there is an idle connection for the caller.
    async fn turn(self: &Arc<Self>, deadline: Pin<&mut Sleep>) -> Result<(), Fault> {
        if let Ok(turn) = self.ready.try_acquire() {
            turn.forget();
            return Ok(());
        }
        let _waiter = Waiter::new(&self.waiting).ok_or_else(busy)?;
        self.open_more();
        tokio::select! {
            biased;
            turn = self.ready.acquire() => match turn {
                Ok(turn) => {
                    turn.forget();
                    Ok(())
                }
                Err(_) => Err(Fault::server("the connection was lost")),
            },
            () = deadline => Err(busy()),
        }
    }

    /// Opens one more for those who wait, if there may be more. In a task of its own, so that a command that gives up
    /// waiting leaves a connection for the next one.
    fn open_more(self: &Arc<Self>) {
        {
            let mut connections = self.connections();
            let full = connections.open + connections.opening >= connections.most;
            if self.is_over() || full || connections.opening >= OPENING_AT_A_TIME {
                return;
            }
            connections.opening += 1;
        }
        let pool = Arc::clone(self);
        self.runtime.spawn(async move {
            let begun = Instant::now();
            let opened = pool.dialer.open(false).await;
            if let Err(fault) = pool.take_in(opened) {
                pool.judge(&fault, begun);
            } else if pool.waiting.load(Ordering::Relaxed) > 0 {
                pool.open_more();
            }
        });
    }

    fn take_in(&self, opened: Result<Session, Fault>) -> Result<(), Fault> {
        let mut connections = self.connections();
        connections.opening -= 1;
        connections.idle.push(opened?);
        connections.open += 1;
        drop(connections);
        // A server that lets us in is not silent.
        self.note_answer();
        self.ready.add_permits(1);
        Ok(())
    }

    /// What a connection that could not be opened means for the others.
    fn judge(&self, fault: &Fault, begun: Instant) {
        let mut connections = self.connections();
        // Those that there are must do, if there are any.
        if fault.kind == Kind::Crowded && connections.open > 0 {
            connections.most = connections.open;
            tracing::warn!(reason = fault.text, "PostgreSQL takes no more connections; going on with fewer");
        } else if connections.open == 0 || self.is_silent_since(begun) {
            drop(connections);
            self.give_up(&fault.text);
        }
    }

    fn connections(&self) -> MutexGuard<'_, Connections> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note_answer(&self) {
        self.answered.store(millis(self.since.elapsed()), Ordering::Relaxed);
    }

    /// Whether no command had an answer since then: the server is gone or stuck.
    pub(super) fn is_silent_since(&self, moment: Instant) -> bool {
        self.answered.load(Ordering::Relaxed) <= millis(moment.duration_since(self.since))
    }

    /// Lets nobody use these connections any more; whoever uses one now may go on.
    pub(super) fn give_up(&self, reason: &str) {
        self.ready.close();
        self.over.send_if_modified(|over| {
            let first = over.is_none();
            if first {
                *over = Some(reason.into());
            }
            first
        });
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.borrow().is_some()
    }

    /// Waits until it is given up, and tells why.
    pub(super) async fn over(&self) -> Arc<str> {
        let mut over = self.over.subscribe();
        let reason = over.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_default()
    }
}

impl Lent {
    pub(super) fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Closes the connection instead of giving it back.
    pub(super) fn discard(mut self) {
        self.session = None;
    }
}

impl Drop for Lent {
    /// Also when its caller went away in the middle of a command: what PostgreSQL answers to that one is dropped, and
    /// `statement_timeout` bounds how long the next one stands behind it.
    fn drop(&mut self) {
        let session = self.session.take().filter(|session| !session.is_closed() && !self.pool.is_over());
        let mut connections = self.pool.connections();
        if let Some(session) = session {
            connections.idle.push(session);
            drop(connections);
            self.pool.ready.add_permits(1);
        } else {
            connections.open -= 1;
            drop(connections);
            if self.pool.waiting.load(Ordering::Relaxed) > 0 {
                self.pool.open_more();
            }
        }
    }
}

/// Counted as long as it lives.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn new(waiting: &'a AtomicUsize) -> Option<Self> {
        let waiter = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn busy() -> Fault {
    Fault { text: "every connection is busy".to_owned(), kind: Kind::Statement }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
