//! One process follows another on the same sockets, and no client notices.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::Client;
use tokio::task::JoinHandle;

use crate::harness::{PATIENCE, eventually};
use crate::process::{PROGRAM, Process, free_address};
use crate::wire::h2c_client;

const ENVIRONMENT: [(&str, &str); 2] = [("KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("SECRET", "s")];

/// Settings of a process that says which one it is.
struct Place {
    home: SocketAddr,
    admin: SocketAddr,
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("rights");
        Self { home: free_address(), admin: free_address(), folder }
    }

    fn settings(&self, name: &str) -> String {
        let Self { home, admin, folder } = self;
        let socket = folder.path().join("upgrade.sock");
        format!(
            "listeners: [{{ address: \"{home}\" }}]
admin: {{ address: \"{admin}\" }}
keys: [{{ id: a, secret: {{ env: KEY }} }}]
session: {{ cookie: {{ name: session, secure: false }} }}
shutdown: {{ lame_duck: 100ms, grace: 5s, upgrade_socket: {} }}
providers:
  - name: none
    kind: oidc
    issuer: http://127.0.0.1:1
    client_id: c
    client_auth: {{ method: client_secret_basic, secret: {{ env: SECRET }} }}
sites:
  - hosts: [127.0.0.1]
    provider: none
    routes: [{{ path: /, access: public, respond: {{ body: {name} }} }}]
",
            socket.display()
        )
    }

    fn start(&self, name: &str) -> Process {
        Process::start(&self.settings(name), &ENVIRONMENT)
    }

    fn follow(&self, name: &str) -> Process {
        let mut command = Command::new(PROGRAM);
        Process::start_as(command.args(["run", "--upgrade"]).stdin(Stdio::null()), &self.settings(name), &ENVIRONMENT)
    }

    async fn is_served_by(&self, name: &str) -> bool {
        said(&one_connection_each(), self.home).await.is_ok_and(|said| said == name)
    }

    async fn is_ready(&self) -> bool {
        let answer = one_connection_each().get(format!("http://{}/readyz", self.admin)).send().await;
        answer.is_ok_and(|answer| answer.status() == 200)
    }
}

fn one_connection_each() -> Client {
    cloakroom::listener::tls::install_crypto_provider();
    Client::builder().no_proxy().timeout(PATIENCE).pool_max_idle_per_host(0).build().expect("client")
}

async fn said(client: &Client, home: SocketAddr) -> reqwest::Result<String> {
    client.get(format!("http://{home}/")).send().await?.error_for_status()?.text().await
}

/// Clients who ask without pause, and fail at the first answer that does not come.
struct Crowd {
    done: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<()>>,
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
    }
}

impl Crowd {
    fn of(clients: impl IntoIterator<Item = Client>, home: SocketAddr) -> Self {
        let (done, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients = clients.into_iter().map(|client| {
            let (done, answers) = (done.clone(), answers.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::SeqCst) {
                    said(&client, home).await.expect("an answer");
                    answers.fetch_add(1, Ordering::SeqCst);
                }
            })
        });
        let clients = clients.collect();
        Self { done, answers, clients }
    }

    async fn go_home(mut self) -> usize {
        self.done.store(true, Ordering::SeqCst);
        for client in std::mem::take(&mut self.clients) {
            client.await.expect("no request failed");
        }
        self.answers.load(Ordering::SeqCst)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_process_takes_the_sockets_and_no_request_fails() {
    let place = Place::new();
    let mut old = place.start("first");
    eventually("the first serves", || place.is_served_by("first")).await;
    let crowd = Crowd::of([one_connection_each(), one_connection_each(), h2c_client()], place.home);
    let mut new = place.follow("second");
    // At once, while the second is still starting.
    old.signal("-QUIT");
    eventually("the first ends", || {
        let ended = old.has_ended();
        async move { ended }
    })
    .await;
    eventually("the second serves", || place.is_served_by("second")).await;
    assert!(place.is_ready().await, "the admin listener went with the others");
    assert!(crowd.go_home().await > 100);
    assert!(!new.has_ended(), "{}", new.output());
    assert!(!place.folder.path().join("upgrade.sock").exists());

    // What was taken over can be handed over again.
    let third = place.follow("third");
    new.signal("-QUIT");
    eventually("the third serves", || place.is_served_by("third")).await;
    drop(third);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_sent_away_before_the_listeners_close() {
    let place = Place::new();
    let process = Process::start(&place.settings("one").replace("lame_duck: 100ms", "lame_duck: 4s"), &ENVIRONMENT);
    eventually("it serves", || place.is_served_by("one")).await;
    let keeping = Client::builder().no_proxy().timeout(PATIENCE).build().expect("client");
    let says_close = || async {
        let answer = keeping.get(format!("http://{}/", place.home)).send().await.expect("an answer");
        answer.headers().get("connection").is_some_and(|value| value == "close")
    };
    assert!(!says_close().await);
    process.signal("-TERM");
    eventually("an answer says that it is the last", says_close).await;
    assert!(place.is_served_by("one").await, "who comes now is still served");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_new_process_sigquit_changes_nothing() {
    let place = Place::new();
    let mut old = place.start("first");
    eventually("it serves", || place.is_served_by("first")).await;
    let socket = place.folder.path().join("upgrade.sock");
    // Left behind by a process that was killed.
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket"));
    old.signal("-QUIT");
    eventually("it says why", || async { old.output().contains("start `cloakroom run --upgrade`") }).await;

    std::fs::set_permissions(place.folder.path(), std::fs::Permissions::from_mode(0o755)).expect("rights");
    let mut new = place.follow("second");
    eventually("a folder open to all is refused", || {
        let refused = new.has_ended() && new.output().contains("chmod 0700");
        async move { refused }
    })
    .await;
    assert!(place.is_served_by("first").await && place.is_ready().await && !old.has_ended());
}

/// As systemd does it: the socket is descriptor 3, and the environment tells whose it is.
fn activated(place: &Place, name: &str, socket: &TcpListener, notify: &str) -> Process {
    let socket = OwnedFd::from(socket.try_clone().expect("the same socket"));
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" run "$@""#, PROGRAM]).stdin(socket);
    Process::start_as(shell.env("NOTIFY_SOCKET", notify), &place.settings(name), &ENVIRONMENT)
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_keeps_the_socket_while_processes_come_and_go() {
    let place = Place::new();
    let path = place.folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket for news");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a deadline");
    let news = || {
        let mut buffer = [0; 256];
        let length = manager.recv(&mut buffer).expect("news");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let notify = path.to_str().expect("a path");
    let socket = TcpListener::bind(place.home).expect("the socket");
    // They ask before there is anybody to answer: the connections wait in the queue of the socket.
    let crowd = Crowd::of([one_connection_each(), one_connection_each()], place.home);
    let mut first = activated(&place, "first", &socket, notify);
    eventually("the first serves", || place.is_served_by("first")).await;
    assert_eq!(news(), "READY=1\n");

    first.signal("-TERM");
    eventually("the first ends", || {
        let ended = first.has_ended();
        async move { ended }
    })
    .await;
    assert_eq!(news(), "STOPPING=1\n");
    let _second = activated(&place, "second", &socket, notify);
    eventually("the second serves", || place.is_served_by("second")).await;
    assert!(crowd.go_home().await > 20);
}
