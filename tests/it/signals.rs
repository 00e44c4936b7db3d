//! The program itself under signals.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::harness::PATIENCE;

/// A running demo; killed when dropped.
struct Demo {
    child: Child,
    home: String,
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Demo {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_cloakroom"))
            .args(["demo", "--port", "0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let home = lines.find_map(|line| {
            let line = line.expect("a line");
            line.trim().strip_prefix("Open").map(|address| address.trim().replace("localhost", "127.0.0.1"))
        });
        // The pipe stays open as long as somebody reads it.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, home: home.expect("the address") }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(status.expect("kill").success());
    }

    async fn answers(&self) -> bool {
        let client = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("client");
        client.get(format!("{}auth/session", self.home)).send().await.is_ok_and(|answer| answer.status() == 200)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hangup_changes_nothing_and_an_idle_process_ends_soon_after_the_lame_duck() {
    let mut demo = Demo::start();
    let until = Instant::now() + PATIENCE;
    while !demo.answers().await {
        assert!(Instant::now() < until, "the demo never answers");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    demo.signal("-HUP");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(demo.answers().await, "still there after SIGHUP");

    let begun = Instant::now();
    demo.signal("-TERM");
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(demo.answers().await, "still serving during the lame duck");
    let status = loop {
        if let Some(status) = demo.child.try_wait().expect("a status") {
            break status;
        }
        assert!(begun.elapsed() < Duration::from_secs(9), "an idle process waits for nobody");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() >= Duration::from_secs(5), "{:?}", begun.elapsed());
}
