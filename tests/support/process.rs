//! `cloakroom run` as a process of its own, with everything it writes kept in a file.
#![allow(dead_code)] // Not every includer uses all of it.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_cloakroom");

/// A running server; killed when dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

impl Process {
    /// Starts the program with these settings and environment.
    pub(crate) fn start(yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_as(Command::new(PROGRAM).arg("run").stdin(Stdio::null()), yaml, environment)
    }

    /// The same by another command line, which `-c` and the file are put behind.
    pub(crate) fn start_as(command: &mut Command, yaml: &str, environment: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (settings, output) = (directory.path().join("settings.yaml"), directory.path().join("output"));
        std::fs::write(&settings, yaml).expect("settings");
        let file = File::create(&output).expect("a file for the output");
        let child = command
            .arg("-c")
            .arg(&settings)
            .envs(environment.iter().copied())
            .stdout(file.try_clone().expect("the same file"))
            .stderr(file)
            .spawn()
            .expect("the program");
        Self { child, output, _directory: directory }
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Puts other settings in the place of those it was started with.
    pub(crate) fn write_settings(&self, yaml: &str) {
        let folder = self._directory.path();
        std::fs::write(folder.join("next"), yaml).expect("settings");
        std::fs::rename(folder.join("next"), folder.join("settings.yaml")).expect("settings");
    }

    /// Sends it a signal: `-HUP`.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child to wait for").is_some()
    }

    /// Ends it as Ctrl-C does, and returns all it has written.
    pub(crate) fn interrupted(&mut self) -> String {
        self.signal("-INT");
        self.child.wait().expect("its end");
        self.output()
    }

    /// All it has written so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.output).expect("its output")).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback address that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    let socket = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    socket.local_addr().expect("its address")
}
