//! The connections to one server, from the moment it was found until it is given up. Each is lent to one command at a
//! time: a statement that waits for a lock keeps no other waiting behind it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::dial::{Dialer, Session};
use super::fault::{Fault, Kind};

/// Most commands that wait for a connection; more than these fail at once.
const MOST_WAITING: usize = 1_024;

/// The connections.
pub(super) struct Pool {
    dialer: Arc<Dialer>,
    /// The keeper's: connections must not end with the runtime of some caller.
    runtime: Handle,
    idle: Mutex<Vec<Session>>,
    /// One for each connection that is lent or may be opened.
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    pub(super) since: Instant,
    /// When the latest answer came, in milliseconds after `since`.
    answered: AtomicU64,
    /// Why it is over, once it is.
    over: watch::Sender<Option<Arc<str>>>,
}

/// A connection in use; back in the pool when dropped.
pub(super) struct Lent {
    session: Option<Session>,
    pool: Arc<Pool>,
    // Behind the pool's connection: whoever gets it next finds the connection there.
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(dialer: Arc<Dialer>, first: Session, most: usize) -> Arc<Self> {
        Arc::new(Self {
            dialer,
            runtime: Handle::current(),
            idle: Mutex::new(vec![first]),
            permits: Arc::new(Semaphore::new(most.max(1))),
            waiting: AtomicUsize::new(0),
            since: Instant::now(),
            answered: AtomicU64::new(0),
            over: watch::Sender::new(None),
        })
    }

    /// A connection that is idle now or comes free, or a new one while there are too few.
    pub(super) async fn take(self: &Arc<Self>, deadline: Instant) -> Result<Lent, Fault> {
        loop {
            let permit = self.permit(deadline).await?;
            if let Some(session) = self.pop() {
                return Ok(Lent { session: Some(session), pool: Arc::clone(self), _permit: permit });
            }
            let (sender, receiver) = oneshot::channel();
            let pool = Arc::clone(self);
            // A task of its own, so that a command that gives up waiting leaves a connection for the next one.
            self.runtime.spawn(async move {
                let opened = pool.dialer.open(false).await;
                let _ = sender.send(match opened {
                    Ok(session) => Ok(Lent { session: Some(session), pool, _permit: permit }),
                    Err(fault) => {
                        match fault.kind {
                            // Those that there are must do.
                            Kind::Crowded => permit.forget(),
                            _ => pool.give_up(&fault.text),
                        }
                        Err(fault)
                    }
                });
            });
            match timeout_at(deadline, receiver).await {
                Ok(Ok(Err(Fault { kind: Kind::Crowded, text }))) => {
                    tracing::warn!(reason = text, "PostgreSQL takes no more connections; going on with fewer");
                }
                Ok(Ok(outcome)) => return outcome,
                Ok(Err(_)) => return Err(Fault::server("the connection was lost")),
                Err(_) => return Err(busy()),
            }
        }
    }

    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, Fault> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiter = Waiter::new(&self.waiting).ok_or_else(busy)?;
        match timeout_at(deadline, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Fault::server("the connection was lost")),
            Err(_) => Err(busy()),
        }
    }

    fn pop(&self) -> Option<Session> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        // The latest one first: it is the warmest, and the others may rest.
        std::iter::from_fn(|| idle.pop()).find(|session| !session.is_closed())
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
        self.permits.close();
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
        if let Some(session) = self.session.take().filter(|session| !session.is_closed() && !self.pool.is_over()) {
            self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner).push(session);
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
