//! The threads that wait for the disk, so that no thread of the runtime does.
//!
//! One thread writes. What has gathered while it waited for the disk goes into its next transaction, all of it: many
//! callers share one wait, and each is answered when its own write is on the disk. Two threads read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Database, ReadTransaction};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::timeout;

use super::super::{Change, StoreError};
use super::disk::Disk;
use super::fault::Fault;
use super::open::reopen;
use super::tables::Tables;

/// Most jobs that wait for a thread; more than these fail at once.
const QUEUE: usize = 1_024;

/// Most writes of one transaction.
const BATCH: usize = 256;

const READERS: usize = 2;

/// Longest wait for a read: a page of the disk at most.
const READ_TIMEOUT: Duration = Duration::from_millis(500);

/// Longest wait for a write: a disk may have to find room.
const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Pause between two attempts to open the database again.
const REOPEN_EVERY: Duration = Duration::from_millis(250);

/// The threads and the way to them.
pub(super) struct Engine {
    writes: Option<mpsc::Sender<Box<dyn Write>>>,
    reads: Vec<mpsc::Sender<Read>>,
    turn: AtomicUsize,
    threads: Vec<JoinHandle<()>>,
}

type Read = Box<dyn FnOnce(&Shared) + Send>;

/// What the threads share.
struct Shared {
    path: PathBuf,
    disk: Disk,
    /// Why there is none, while there is none.
    database: RwLock<Result<Database, String>>,
}

/// A write and whoever waits for it.
trait Write: Send {
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Job<F, T> {
    act: Option<F>,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Write for Job<F, T>
where
    F: FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send,
    T: Send,
{
    fn run(&mut self, tables: &mut Tables<'_>) -> Result<(), Fault> {
        if let Some(act) = self.act.take() {
            self.result = Some(act(tables)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let never = || StoreError::Unavailable("it was not written".to_owned());
        let Self { result, reply, .. } = *self;
        // Whoever waited may have gone.
        let _ = reply.send(outcome.and_then(|()| result.ok_or_else(never)));
    }
}

impl Engine {
    pub(super) fn start(
        path: PathBuf,
        disk: Disk,
        database: Database,
        changes: broadcast::Sender<Change>,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { path, disk, database: RwLock::new(Ok(database)) });
        let mut threads = Vec::new();
        let (writes, queue) = mpsc::channel(QUEUE);
        let writer = Arc::clone(&shared);
        let name = std::thread::Builder::new().name("store writer".to_owned());
        threads.push(name.spawn(move || write_all(&writer, queue, &changes))?);
        let mut reads = Vec::new();
        for _ in 0..READERS {
            let (sender, mut queue) = mpsc::channel::<Read>(QUEUE);
            let reader = Arc::clone(&shared);
            let name = std::thread::Builder::new().name("store reader".to_owned());
            threads.push(name.spawn(move || {
                while let Some(read) = queue.blocking_recv() {
                    read(&reader);
                }
            })?);
            reads.push(sender);
        }
        Ok(Self { writes: Some(writes), reads, turn: AtomicUsize::new(0), threads })
    }

    /// Does this in one transaction, alone or with others', and returns when it is on the disk.
    pub(super) async fn write<T, F>(&self, act: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tables<'_>) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(Job { act: Some(act), result: None, reply });
        let queue = self.writes.as_ref().ok_or_else(ended)?;
        queue.try_send(job).map_err(|_| StoreError::Unavailable("too many writes wait for the disk".to_owned()))?;
        timeout(WRITE_TIMEOUT, answer).await.map_err(|_| slow())?.map_err(|_| ended())?
    }

    /// Looks at the last transaction that is on the disk.
    pub(super) async fn read<T, F>(&self, act: F) -> Result<T, StoreError>
    where
        F: FnOnce(&ReadTransaction) -> Result<T, Fault> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Read = Box::new(move |shared| {
            let _ = reply.send(shared.read(act));
        });
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let queue = self.reads.get(turn % self.reads.len().max(1)).ok_or_else(ended)?;
        queue.try_send(job).map_err(|_| StoreError::Unavailable("too many reads wait for the disk".to_owned()))?;
        timeout(READ_TIMEOUT, answer).await.map_err(|_| slow())?.map_err(|_| ended())?
    }
}

impl Drop for Engine {
    /// What was begun is ended, and the file is closed in good order.
    fn drop(&mut self) {
        self.writes = None;
        self.reads.clear();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn read<T>(&self, act: impl FnOnce(&ReadTransaction) -> Result<T, Fault>) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().map_err(|reason| self.unavailable(reason))?;
        // A page that is damaged under way could make the database panic; that must not end the thread.
        let outcome = catch_unwind(AssertUnwindSafe(|| act(&database.begin_read()?)));
        outcome.unwrap_or_else(|_| Err(panicked())).map_err(|fault| self.error(&fault))
    }

    /// All of it or nothing.
    fn transact(&self, batch: &mut [Box<dyn Write>]) -> Result<Vec<Change>, Fault> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = database.as_ref().map_err(|reason| Fault::Disk(reason.clone()))?;
        let work = || {
            let mut write = database.begin_write()?;
            // Two waits for the disk instead of one; a page that goes bad is then told from a transaction that was cut
            // off, and never answered with the state before it, where a session that has ended still lives.
            write.set_two_phase_commit(true);
            let mut tables = Tables::open(&write)?;
            for job in batch {
                job.run(&mut tables)?;
            }
            let changes = std::mem::take(&mut tables.changes);
            drop(tables);
            write.commit()?;
            Ok(changes)
        };
        catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(panicked()))
    }

    /// After an error of the disk the database refuses everything until it is opened again, from what is on the disk.
    fn reopen(&self) {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened.
        *database = Err("the database is closed".to_owned());
        *database = reopen(&self.disk).map_err(|fault| fault.text().to_owned());
        if let Err(reason) = &*database {
            tracing::error!(path = %self.path.display(), reason, "the session store cannot be opened again; trying on");
        }
    }

    fn is_closed(&self) -> bool {
        self.database.read().unwrap_or_else(PoisonError::into_inner).is_err()
    }

    fn error(&self, fault: &Fault) -> StoreError {
        match fault {
            Fault::Disk(reason) => self.unavailable(reason),
            Fault::Damaged(reason) => StoreError::Damaged(format!("{}: {reason}", self.path.display())),
        }
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {reason}", self.path.display()))
    }
}

fn write_all(shared: &Shared, mut queue: mpsc::Receiver<Box<dyn Write>>, changes: &broadcast::Sender<Change>) {
    let mut tried = Instant::now();
    while let Some(first) = queue.blocking_recv() {
        let mut batch = vec![first];
        while let Some(job) = (batch.len() < BATCH).then(|| queue.try_recv().ok()).flatten() {
            batch.push(job);
        }
        if shared.is_closed() && tried.elapsed() >= REOPEN_EVERY {
            shared.reopen();
            tried = Instant::now();
        }
        match shared.transact(&mut batch) {
            Ok(told) => {
                for change in told {
                    // Nobody listening is no error.
                    let _ = changes.send(change);
                }
                batch.into_iter().for_each(|job| job.answer(Ok(())));
            }
            Err(fault) => {
                if matches!(fault, Fault::Disk(_)) && !shared.is_closed() {
                    tracing::warn!(path = %shared.path.display(), reason = fault.text(), "sessions cannot be written");
                    shared.reopen();
                    tried = Instant::now();
                }
                batch.into_iter().for_each(|job| job.answer(Err(shared.error(&fault))));
            }
        }
    }
}

fn panicked() -> Fault {
    Fault::Damaged("the database gave up on the file".to_owned())
}

fn slow() -> StoreError {
    StoreError::Unavailable("the disk does not answer in time".to_owned())
}

fn ended() -> StoreError {
    StoreError::Unavailable("the threads of the store have ended".to_owned())
}
