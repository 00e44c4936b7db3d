//! Which server a command goes to. A single server has all partitions; of a cluster we know which node has which, and
//! follow when one moves. Each node has a [`Link`] of its own: one that is away takes only its partitions with it.
//!
//! fred's own clustered client is not used: it ends all connections when one node is away, and it reads the answer to
//! `ASKING` past the answers to commands under way on the same connection, which then get each other's.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use fred::clients::Client;
use fred::error::Error;
use fred::interfaces::ClientLike as _;
use fred::types::Value;
use fred::types::config::{Config, Server};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::super::{Change, StoreError};
use super::address::{Address, Place, Target};
use super::changes::{self, Hub};
use super::connect::{Way, command};
use super::keys::{self, PARTITIONS};
use super::link::{Fault, Link};
use super::slots;

/// Most redirections that a command follows.
const REDIRECTIONS: usize = 8;

/// Wait before a command is sent again whose keys are being moved.
const PAUSE: Duration = Duration::from_millis(5);

/// The cluster is asked for its layout no more often than this.
const LAYOUT_AGE: Duration = Duration::from_millis(100);

/// How a command is to be sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it is.
    Plain,
    /// In one piece: a node that is to get the slot does this one command.
    Asking,
}

/// All servers of the store.
pub(super) struct Nodes {
    known: Arc<Known>,
    listener: Mutex<Option<AbortHandle>>,
}

/// What the tasks know.
pub(super) struct Known {
    client: Config,
    command_timeout: Duration,
    pub(super) hub: Hub,
    /// Some nodes of the cluster; `None` for a single server.
    seeds: Option<Vec<Server>>,
    layout: ArcSwap<Layout>,
    /// Links to the nodes of the layout, and to those it is asked of.
    links: Mutex<HashMap<Server, Arc<Link>>>,
    refreshing: tokio::sync::Mutex<Option<Instant>>,
    listening: AtomicBool,
}

/// Which node has which partition.
#[derive(Default)]
struct Layout {
    nodes: Vec<(Server, Arc<Link>)>,
    /// By partition, the place in `nodes`; empty as long as nothing is known.
    of: Vec<usize>,
}

impl Nodes {
    pub(super) fn new(address: Address, command_timeout: Duration, channel: String) -> Self {
        let Address { client, place } = address;
        let mut layout = Layout::default();
        let seeds = match place {
            Place::One(target) => {
                let server = match &target {
                    Target::Server(server) => server.clone(),
                    Target::Sentinels(sentinels) => Server::new(sentinels.service.as_str(), 0),
                };
                let way = Way { client: client.clone(), target, command_timeout };
                layout = Layout { nodes: vec![(server, Arc::new(Link::new(way)))], of: vec![0; PARTITIONS.into()] };
                None
            }
            Place::Cluster(seeds) => Some(seeds),
        };
        let known = Known {
            client,
            command_timeout,
            hub: Hub::new(channel),
            seeds,
            layout: ArcSwap::from_pointee(layout),
            links: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            listening: AtomicBool::new(false),
        };
        Self { known: Arc::new(known), listener: Mutex::default() }
    }

    pub(super) fn channel(&self) -> &str {
        self.known.hub.channel()
    }

    /// Changes from now on, and as soon as there is a connection; where no runtime is to make one, the next command does.
    pub(super) fn changes(&self) -> broadcast::Receiver<Change> {
        let receiver = self.known.hub.subscribe();
        if tokio::runtime::Handle::try_current().is_ok() {
            self.listen();
        }
        receiver
    }

    /// How many partitions one script may touch: all of them where there is but one server.
    pub(super) fn partitions_at_a_time(&self) -> usize {
        if self.known.seeds.is_some() { 1 } else { usize::from(PARTITIONS) }
    }

    /// Sends a command to the node of a partition and waits for the answer, in all no longer than the command timeout.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] if there is no connection, no answer in time, or an error for an answer. Whether
    /// Redis did the command is unknown, then.
    pub(super) async fn run<T, F, A>(&self, partition: u8, command: F) -> Result<T, StoreError>
    where
        F: Fn(Client, Manner) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        self.listen();
        let deadline = Instant::now() + self.known.command_timeout;
        let (mut server, mut link) = self.known.node_of(partition, deadline).await?;
        let mut manner = Manner::Plain;
        for _ in 0..REDIRECTIONS {
            match link.run(deadline, |client| send(client, manner, &command)).await {
                Ok(answer) => return Ok(answer),
                // A single server that redirects is none: its answer says so.
                Err(fault) if self.known.seeds.is_none() => return Err(fault.into()),
                Err(Fault::Moved(to)) => {
                    self.refresh();
                    (server, link) = self.known.link_at(to, &server);
                    manner = Manner::Plain;
                }
                Err(Fault::Ask(to)) => {
                    (server, link) = self.known.link_at(to, &server);
                    manner = Manner::Asking;
                }
                Err(Fault::TryAgain) if Instant::now() + PAUSE < deadline => {
                    sleep(PAUSE).await;
                    (server, link) = self.known.node_of(partition, deadline).await?;
                    manner = Manner::Plain;
                }
                Err(fault) => {
                    // It may have lost its partitions to another.
                    self.refresh();
                    return Err(fault.into());
                }
            }
        }
        Err(Fault::TryAgain.into())
    }

    /// Sends a command to one node, whatever it has.
    pub(super) async fn run_on<T, F, A>(&self, link: &Link, command: F) -> Result<T, StoreError>
    where
        F: FnOnce(Client) -> A,
        A: Future<Output = Result<T, Error>>,
    {
        let deadline = Instant::now() + self.known.command_timeout;
        link.run(deadline, command).await.map_err(StoreError::from)
    }

    /// All nodes that have partitions, and one partition of each.
    pub(super) async fn each(&self) -> Result<Vec<(u8, Arc<Link>)>, StoreError> {
        self.listen();
        let deadline = Instant::now() + self.known.command_timeout;
        self.known.node_of(0, deadline).await?;
        let layout = self.known.layout.load();
        let first = |n: usize| layout.of.iter().position(|of| *of == n).and_then(|at| u8::try_from(at).ok());
        Ok(layout.nodes.iter().enumerate().filter_map(|(n, (_, link))| Some((first(n)?, Arc::clone(link)))).collect())
    }

    /// Asks for the layout anew, on the side.
    fn refresh(&self) {
        let known = Arc::clone(&self.known);
        tokio::spawn(async move {
            let deadline = Instant::now() + known.command_timeout;
            if let Err(error) = known.refresh(deadline).await {
                tracing::debug!(%error, "the layout of the Redis cluster is not known");
            }
        });
    }

    /// Starts the task that hears changes, on the caller's runtime, if there is none.
    fn listen(&self) {
        if self.known.listening.load(Ordering::Relaxed) || self.known.listening.swap(true, Ordering::AcqRel) {
            return;
        }
        // Moved in before the task first runs, so that the flag is right even if it never does.
        let guard = NotListening(Arc::clone(&self.known));
        let task = tokio::spawn(async move { changes::listen(&guard.0).await }).abort_handle();
        *lock(&self.listener) = Some(task);
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if let Some(task) = lock(&self.listener).take() {
            task.abort();
        }
    }
}

/// The task ends only from outside, with its runtime; then nobody may think that it still runs.
struct NotListening(Arc<Known>);

impl Drop for NotListening {
    fn drop(&mut self) {
        self.0.listening.store(false, Ordering::Release);
    }
}

impl Known {
    /// Links to all nodes.
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.layout.load().nodes.iter().map(|(_, link)| Arc::clone(link)).collect()
    }

    /// The node of a partition.
    pub(super) async fn node_of(&self, partition: u8, deadline: Instant) -> Result<(Server, Arc<Link>), StoreError> {
        if let Some(node) = self.layout.load().node_of(partition) {
            return Ok(node);
        }
        self.refresh(deadline).await?;
        let unknown =
            || StoreError::Unavailable("no node of the Redis cluster has that slot: see `CLUSTER INFO`".to_owned());
        self.layout.load().node_of(partition).ok_or_else(unknown)
    }

    /// The link to a node; one that names no host of its own is on that of the other.
    fn link_at(&self, mut server: Server, other: &Server) -> (Server, Arc<Link>) {
        if server.host.is_empty() {
            server.host = other.host.clone();
        }
        let link = lock(&self.links).entry(server.clone()).or_insert_with(|| Arc::new(self.link(&server))).clone();
        (server, link)
    }

    fn link(&self, server: &Server) -> Link {
        let target = Target::Server(server.clone());
        Link::new(Way { client: self.client.clone(), target, command_timeout: self.command_timeout })
    }

    /// Asks the cluster for its layout, unless somebody just did.
    async fn refresh(&self, deadline: Instant) -> Result<(), StoreError> {
        let Some(seeds) = &self.seeds else { return Ok(()) };
        let mut refreshed = self.refreshing.lock().await;
        if refreshed.is_some_and(|at| at.elapsed() < LAYOUT_AGE) {
            return Ok(());
        }
        let mut asked: Vec<_> = self.layout.load().nodes.clone();
        // Those that are up first, for the others may let us wait.
        asked.sort_by_key(|(_, link)| !link.is_up());
        asked.extend(seeds.iter().map(|seed| self.link_at(seed.clone(), seed)));
        let mut failure = StoreError::Unavailable("not connected yet".to_owned());
        for (server, link) in asked {
            let answer = link.run(deadline, |client| async move {
                client.custom::<Value, _>(command("CLUSTER"), vec!["SLOTS"]).await
            });
            match answer.await.map_err(StoreError::from).and_then(|answer| slots::parse(answer, &server)) {
                Ok(owners) => {
                    self.lay_out(&owners);
                    *refreshed = Some(Instant::now());
                    return Ok(());
                }
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Takes a new layout over. Links that it does not need end.
    fn lay_out(&self, owners: &[Option<Server>]) {
        let mut layout = Layout::default();
        for owner in owners {
            let Some(server) = owner else { continue };
            let at = layout.nodes.iter().position(|(known, _)| known == server);
            layout.of.push(at.unwrap_or_else(|| {
                layout.nodes.push(self.link_at(server.clone(), server));
                layout.nodes.len() - 1
            }));
        }
        // A slot that nobody has: nothing can be placed, until somebody has it.
        if layout.of.len() != owners.len() {
            layout.of.clear();
        }
        lock(&self.links).retain(|server, _| layout.nodes.iter().any(|(known, _)| known == server));
        self.layout.store(Arc::new(layout));
    }
}

impl Layout {
    fn node_of(&self, partition: u8) -> Option<(Server, Arc<Link>)> {
        self.nodes.get(*self.of.get(usize::from(partition % keys::PARTITIONS))?).cloned()
    }
}

/// Sends a command, with `ASKING` right before it if need be. Should another's command come between, the node sends
/// ours back where it was, and we ask again.
async fn send<T, F, A>(client: Client, manner: Manner, run: &F) -> Result<T, Error>
where
    F: Fn(Client, Manner) -> A,
    A: Future<Output = Result<T, Error>>,
{
    if manner == Manner::Plain {
        return run(client, manner).await;
    }
    let asking = client.custom::<Value, Value>(command("ASKING"), Vec::new());
    let (_, answer) = futures::future::join(asking, run(client.clone(), manner)).await;
    answer
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
