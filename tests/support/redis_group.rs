//! Several real servers that belong together: a primary and a replica under three Sentinels, and a cluster of three.
//!
//! Included by path beside `redis_server.rs`, as a sibling module of that name.
#![allow(dead_code)] // Not every includer uses all of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::redis_server::{RedisServer, free_port};

const DEADLINE: Duration = Duration::from_secs(20);

/// Asks until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One that all tests share that run at the same time; the last one ends it.
pub(crate) fn shared<T>(place: &'static Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
    place.upgrade().unwrap_or_else(|| {
        let one = Arc::new(start());
        *place = Arc::downgrade(&one);
        one
    })
}

/// A primary and its replica, watched by three Sentinels that elect another within about a second.
pub(crate) struct Watched {
    pub(crate) servers: [RedisServer; 2],
    sentinels: Vec<(u16, Child, tempfile::TempDir)>,
}

impl Watched {
    pub(crate) fn start() -> Self {
        let primary = RedisServer::start_with(&["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"]);
        let port = primary.port().to_string();
        let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port, "--repl-diskless-sync-delay", "0"]);
        until("the replica follows", || replica.ask("INFO replication").contains("master_link_status:up"));
        let sentinels = (0..3).map(|_| sentinel(primary.port())).collect();
        let watched = Self { servers: [primary, replica], sentinels };
        for (port, ..) in &watched.sentinels {
            until("each Sentinel knows the others and the replica", || {
                let answer = ask(*port, "SENTINEL master main");
                answer.contains("num-other-sentinels\r\n$1\r\n2") && answer.contains("num-slaves\r\n$1\r\n1")
            });
        }
        watched
    }

    /// Stops a Sentinel (`-STOP`) or lets it go on (`-CONT`).
    pub(crate) fn signal_sentinel(&self, n: usize, signal: &str) {
        let (_, process, _) = &self.sentinels[n];
        let status = Command::new("kill").args([signal, &process.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()));
    }

    /// Ends a Sentinel, which knows only what it knew when it is started again.
    pub(crate) fn kill_sentinel(&mut self, n: usize) {
        let (_, process, _) = &mut self.sentinels[n];
        let _ = process.kill();
        let _ = process.wait();
    }

    pub(crate) fn restart_sentinel(&mut self, n: usize) {
        let (port, process, directory) = &mut self.sentinels[n];
        *process = run_sentinel(directory);
        until("the Sentinel answers", || !ask(*port, "PING").is_empty());
    }

    /// What a Sentinel takes for the primary, `None` if it does not answer.
    pub(crate) fn named_by(&self, n: usize) -> Option<u16> {
        let answer = ask(self.sentinels[n].0, "SENTINEL get-master-addr-by-name main");
        answer.lines().rfind(|line| !line.is_empty())?.parse().ok()
    }

    /// All Sentinels.
    pub(crate) fn url(&self) -> String {
        let mut ports = self.sentinels.iter().map(|(port, ..)| port);
        let mut url = format!("redis-sentinel://127.0.0.1:{}?sentinelServiceName=main", ports.next().unwrap());
        for port in ports {
            url.push_str(&format!("&node=127.0.0.1:{port}"));
        }
        url
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        for (_, process, _) in &mut self.sentinels {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn sentinel(primary: u16) -> (u16, Child, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let (port, file) = (free_port(), directory.path().join("sentinel.conf"));
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor main 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds main 500\nsentinel failover-timeout main 2000\n",
        directory.path().display()
    );
    std::fs::write(&file, text).unwrap();
    let process = run_sentinel(&directory);
    (port, process, directory)
}

fn run_sentinel(directory: &tempfile::TempDir) -> Child {
    Command::new(super::redis_server::program())
        .arg(directory.path().join("sentinel.conf"))
        .arg("--sentinel")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be installed (Debian: apt install redis-server)")
}

/// Asks a Sentinel, which knows no `QUIT`; so whatever comes within a moment is the answer.
fn ask(port: u16, command: &str) -> String {
    let mut text = Vec::new();
    if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        let _ = stream.set_read_timeout(Some(Duration::from_millis(100)));
        let _ = stream.write_all(format!("{command}\r\n").as_bytes());
        let _ = stream.read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Three primaries that have a third of the slots each.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<RedisServer>,
    buses: Vec<u16>,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let buses: Vec<_> = (0..3).map(|_| free_port()).collect();
        let nodes = buses.iter().map(|bus| {
            let bus = bus.to_string();
            RedisServer::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1500",
            ])
        });
        let cluster = Self { nodes: nodes.collect(), buses };
        for (n, slots) in [(0, "0 5460"), (1, "5461 10922"), (2, "10923 16383")] {
            cluster.nodes[n].ask(&format!("CLUSTER ADDSLOTSRANGE {slots}\r\nCLUSTER SET-CONFIG-EPOCH {}", n + 1));
        }
        for (node, bus) in cluster.nodes.iter().zip(&cluster.buses).skip(1) {
            cluster.nodes[0].ask(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", node.port()));
        }
        for node in &cluster.nodes {
            until("the cluster is whole", || {
                let info = node.ask("CLUSTER INFO");
                info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
            });
        }
        cluster
    }

    /// The first node alone: the others are to be found.
    pub(crate) fn url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.nodes[0].port())
    }

    /// The cluster's name of a node.
    pub(crate) fn id(&self, node: usize) -> String {
        let answer = self.nodes[node].ask("CLUSTER MYID");
        answer.split("\r\n").nth(1).unwrap().to_owned()
    }
}
