//! The program itself under signals.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom::primitives::clock::Clock;
use reqwest::StatusCode;

use crate::harness::{Browser, PATIENCE, Wishes, eventually};
use crate::kit::*;
use crate::process::{Process, free_address};
use crate::redis_server::RedisServer;

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

/// A provider may take its time; the tokens that it gives then are the only copy.
#[tokio::test(flavor = "multi_thread")]
async fn r3_a_refresh_that_takes_long_outlives_the_signal() {
    let redis = RedisServer::start();
    // To the process, whose clock is the machine's, a token of this provider is nearly over at once.
    let clock = Clock::manual(Clock::system().now().minus(NEARLY_OVER));
    let world = world(Wishes { clock, ..ticking_on(&redis) }).await;
    let mut browser = world.logged_in().await;
    let (address, admin) = (free_address(), free_address());
    let yaml = world.yaml.replace("@PROXY@", &address.to_string()).replace("@ADMIN@", &admin.to_string());
    let environment =
        [("TEST_KEY", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="), ("TEST_SECRET", cloakroom::demo::CLIENT_SECRET)];
    let mut process = Process::start(&yaml, &environment);
    eventually("the program is ready", || async {
        match reqwest::get(format!("http://{admin}/readyz?verbose")).await {
            Ok(answer) => answer.text().await.unwrap_or_default().contains("demo: ready"),
            Err(_) => false,
        }
    })
    .await;
    let gate = hold_tokens(&world, false);
    let mut there = Browser::new(address);
    there.jars = browser.jars.clone();
    there.set_cookie(crate::harness::SESSION, &ticket(&browser));
    tokio::spawn(async move { there.fetch("/api/whoami").await });
    gate.arrived(1).await;
    let status = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
    assert!(status.expect("kill").success());
    // Five seconds for load balancers, and then longer than requests usually take.
    tokio::time::sleep(secs(13)).await;
    assert!(!process.has_ended(), "{}", process.output());
    gate.open();
    let until = Instant::now() + PATIENCE;
    while !process.has_ended() {
        assert!(Instant::now() < until, "it ends when nothing is left to do");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.clock.advance(NEARLY_OVER);
    assert_eq!(browser.fetch("/api/whoami").await.status, StatusCode::OK);
    assert_eq!(relayed(&world), newest(&world).access_token);
    assert_eq!(token_calls(&world), 2, "the login and one refresh");
    assert_shown_once(&world);
}
