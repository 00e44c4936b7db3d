//! A real `redis-server` of one test: on a free loopback port, without persistence, gone when dropped.
//!
//! Included by path from unit tests and integration tests alike, so it names nothing of the crate.
#![allow(dead_code)] // Not every includer uses all of it.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(10);

/// A running (or stopped, or killed) server.
pub(crate) struct RedisServer {
    port: u16,
    options: Vec<String>,
    process: Child,
    directory: tempfile::TempDir,
}

impl RedisServer {
    /// Starts a server and waits until it answers. A machine without `redis-server` fails the test: a store that was
    /// not tested is not a store that works.
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`RedisServer::start`], with more options (`["--requirepass", "secret"]`).
    pub(crate) fn start_with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        // Between finding a free port and using it, another test may have taken it.
        for _ in 0..10 {
            let port = free_port();
            let directory = tempfile::tempdir().expect("a temporary directory");
            let process = spawn(port, &options, directory.path());
            let mut server = Self { port, options: options.clone(), process, directory };
            if server.answers_before_it_ends() {
                return server;
            }
        }
        panic!("redis-server did not start");
    }

    /// `redis://127.0.0.1:port`
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Its port.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// Kills it at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Starts it again on the same port, empty, and waits until it answers.
    pub(crate) fn restart(&mut self) {
        self.kill();
        let until = Instant::now() + DEADLINE;
        loop {
            self.process = spawn(self.port, &self.options, self.directory.path());
            if self.answers_before_it_ends() {
                return;
            }
            assert!(Instant::now() < until, "redis-server did not start again on port {}", self.port);
        }
    }

    /// Stops the process where it is (SIGSTOP): connections stay open, nothing answers.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Lets a frozen process go on (SIGCONT).
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    /// Sends commands, one a line, and returns the answers as text.
    pub(crate) fn ask(&self, commands: &str) -> String {
        String::from_utf8_lossy(&self.raw(commands)).into_owned()
    }

    /// Sends commands, one a line, and returns all bytes of the answers.
    pub(crate) fn raw(&self, commands: &str) -> Vec<u8> {
        raw(self.address(), commands).expect("redis-server answers")
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        let status = Command::new("sh").args(["-c", r#"kill "$0" "$1""#, signal, &pid]).status().expect("sh");
        assert!(status.success(), "kill {signal}");
    }

    fn answers_before_it_ends(&mut self) -> bool {
        let until = Instant::now() + DEADLINE;
        while Instant::now() < until && self.process.try_wait().expect("a child to wait for").is_none() {
            // Any answer will do: with a password it is an error. The pid tells our server from another on the port.
            let pid = format!("process_id:{}\r\n", self.process.id());
            let login = match self.options.iter().position(|option| option == "--requirepass") {
                Some(at) => format!("AUTH {}\r\n", self.options[at + 1]),
                None => String::new(),
            };
            let answer = raw(self.address(), &format!("{login}INFO server\r\n")).unwrap_or_default();
            if answer.windows(pid.len()).any(|window| window == pid.as_bytes()) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A loopback port that was free a moment ago.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("its address").port()
}

/// The server's program: `redis-server`, or another that does the same (`REDIS_SERVER=/usr/bin/valkey-server`).
pub(crate) fn program() -> std::ffi::OsString {
    std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into())
}

fn spawn(port: u16, options: &[String], directory: &std::path::Path) -> Child {
    Command::new(program())
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--appendonly", "no"])
        .args(["--maxmemory-policy", "noeviction", "--daemonize", "no", "--dir"])
        .arg(directory)
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be installed (Debian: apt install redis-server)")
}

fn raw(address: SocketAddr, commands: &str) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.write_all(commands.as_bytes())?;
    stream.write_all(b"\r\nQUIT\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}
