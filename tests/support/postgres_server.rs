//! A real PostgreSQL of the tests: a cluster of its own on a free loopback port, gone with whoever started it.
//!
//! Included by path from unit tests, integration tests and benches alike, so it names nothing of the crate.
#![allow(dead_code)] // Not every includer uses all of it.

use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(30);

/// Faster than a disk allows, and as good as long as the machine itself does not crash.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 300
shared_buffers = 32MB
fsync = off
full_page_writes = off
logging_collector = off
";

/// `guarded` must show a password, all others are believed.
const WHO_MAY_CONNECT: &str = "
host all guarded 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
";

/// Holds the server until its own standard input ends, which it does with the test's process, however that ends.
const HOLD: &str = r#""$1"/postgres -D "$2" -p "$3" >>"$2/log" 2>&1 & pid=$!
read -r order
kill -QUIT $pid 2>/dev/null
wait $pid
[ "$order" = keep ] || rm -rf "$2""#;

/// A running (or stopped, or killed) server.
pub(crate) struct PostgresServer {
    port: u16,
    data: PathBuf,
    holder: Child,
}

/// The server that all tests of this program share; each has a schema of its own in it.
pub(crate) fn shared() -> &'static PostgresServer {
    static SHARED: OnceLock<PostgresServer> = OnceLock::new();
    SHARED.get_or_init(PostgresServer::start)
}

impl PostgresServer {
    /// Makes a cluster, starts its server and waits until it answers. A machine without PostgreSQL fails the test: a
    /// store that was not tested is not a store that works.
    pub(crate) fn start() -> Self {
        let data = tempfile::Builder::new().prefix("postgres-").tempdir().expect("a temporary directory").keep();
        let (user, group) = owner();
        chown(&data, Some(user), Some(group)).expect("a directory of the server's user");
        let made = unprivileged("initdb")
            .args(["--auth=trust", "--username=postgres", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"])
            .arg(&data)
            .output()
            .expect("PostgreSQL must be installed (Debian: apt install postgresql)");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(data.join("pg_hba.conf"), WHO_MAY_CONNECT).expect("pg_hba.conf");
        let mut settings =
            fs::OpenOptions::new().append(true).open(data.join("postgresql.conf")).expect("its settings");
        settings.write_all(SETTINGS.as_bytes()).expect("its settings");
        // Between finding a free port and using it, another test may have taken it.
        for _ in 0..10 {
            let port = free_port();
            let mut server = Self { port, holder: hold(&data, port), data: data.clone() };
            if server.answers_before_it_ends() {
                return server;
            }
            server.end("keep");
            std::mem::forget(server);
        }
        panic!("PostgreSQL did not start: {}", fs::read_to_string(data.join("log")).unwrap_or_default());
    }

    /// `postgres://postgres@127.0.0.1:port/postgres`
    pub(crate) fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// The same for another user.
    pub(crate) fn url_of(&self, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/postgres", self.port)
    }

    /// Where it listens.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A name for a schema that nobody has used yet.
    pub(crate) fn fresh_schema(&self) -> String {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst))
    }

    /// What `psql` prints, as the superuser.
    pub(crate) fn sql(&self, text: &str) -> String {
        let output = Command::new(folder().join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text, &self.url()])
            .env("PGOPTIONS", "-c default_transaction_read_only=off")
            .output()
            .expect("psql");
        assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Kills all of its processes at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        self.signal("-KILL");
        self.end("keep");
    }

    /// Starts it again on the same port with what it had, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let until = Instant::now() + DEADLINE;
        loop {
            self.holder = hold(&self.data, self.port);
            if self.answers_before_it_ends() {
                return;
            }
            self.end("keep");
            assert!(Instant::now() < until, "PostgreSQL did not start again on port {}", self.port);
        }
    }

    /// Stops all of its processes where they are (SIGSTOP): connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets frozen processes go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let Some(first) = self.pid() else { return };
        // The first one first: it starts no others then.
        for pid in std::iter::once(first).chain(children(first)) {
            // One that has ended by now is no mistake.
            let _ = Command::new("sh").args(["-c", r#"kill "$0" "$1" 2>/dev/null"#, signal, &pid.to_string()]).status();
        }
    }

    /// The first process of the server, by the file that it writes.
    fn pid(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("postmaster.pid")).ok()?.lines().next()?.parse().ok()
    }

    fn answers_before_it_ends(&mut self) -> bool {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until {
            let mine = self.pid().is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
            let log = fs::read_to_string(self.data.join("log")).unwrap_or_default();
            let ended = log.lines().last().is_some_and(|line| line.contains("database system is shut down"));
            let ready = mine
                && Command::new(folder().join("pg_isready"))
                    .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                    .status()
                    .is_ok_and(|status| status.success());
            if ready {
                return true;
            }
            if ended && !mine {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Ends the holder and with it the server.
    fn end(&mut self, order: &str) {
        self.thaw();
        if let Some(mut input) = self.holder.stdin.take() {
            let _ = writeln!(input, "{order}");
        }
        let _ = self.holder.wait();
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.end("");
    }
}

fn hold(data: &Path, port: u16) -> Child {
    let (user, group) = owner();
    let _ = fs::remove_file(data.join("log"));
    let mut command = Command::new("sh");
    if is_root() {
        command.uid(user).gid(group);
    }
    command
        .args(["-c", HOLD, "sh"])
        .arg(folder())
        .arg(data)
        .arg(port.to_string())
        .current_dir(data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("sh")
}

/// A program of PostgreSQL as a user that it does not refuse: anyone but root.
fn unprivileged(program: &str) -> Command {
    let mut command = Command::new(folder().join(program));
    command.current_dir("/");
    if is_root() {
        let (user, group) = owner();
        command.uid(user).gid(group);
    }
    command
}

/// Who is to run the server: we ourselves, or, for root, the user that the package has made, or nobody.
fn owner() -> (u32, u32) {
    if !is_root() {
        return (id("-u"), id("-g"));
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |name: &str| {
        let mut fields = users.lines().find(|line| line.starts_with(&format!("{name}:")))?.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    of("postgres").or_else(|| of("nobody")).unwrap_or((65_534, 65_534))
}

fn is_root() -> bool {
    id("-u") == 0
}

fn id(what: &str) -> u32 {
    static IDS: OnceLock<[u32; 2]> = OnceLock::new();
    let [user, group] = *IDS.get_or_init(|| {
        ["-u", "-g"].map(|what| {
            let output = Command::new("id").arg(what).output().expect("id");
            String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
        })
    });
    if what == "-u" { user } else { group }
}

/// Where the server's programs are: Debian keeps them out of the path, one folder a version.
fn folder() -> PathBuf {
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().map(|entry| entry.path());
    if let Some(newest) = installed.filter(|path| path.join("bin/initdb").exists()).max_by_key(version) {
        return newest.join("bin");
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    found.expect("PostgreSQL must be installed (Debian: apt install postgresql)")
}

/// The processes that this one has started.
fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which stands in brackets: state, then the parent.
        let parent_of = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        parent_of == Some(parent)
    })
    .collect()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}
