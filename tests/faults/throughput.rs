//! How many refreshes a second a core does, where the provider answers at once. CPU time of the proxy's process alone;
//! provider and store are processes of their own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cloakroom::primitives::clock::{Clock, Timestamp};

use crate::harness::free_address;
use crate::kit::secs;
use crate::process::Process;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::seed::{ENVIRONMENT, Seeder, settings};
use crate::yard::{Scale, client, cpu};

const GOAL: f64 = 1_000.0;

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    let (_provider, issuer) = provider();
    let refresh = "{ ahead: 10m, concurrency: 64, per_second: 100000 }";
    let yaml = settings(&redis, &issuer, "127.0.0.1:9", refresh);
    let sessions = scale.of(40_000, 4_000);
    let now = Clock::system().now();
    // Overdue, all of them, with tokens that live.
    let (issued, end) = (Timestamp::from_millis(now.as_millis() - 3_600_000), now.plus(secs(400)));
    Seeder::new(&yaml).seed(sessions, 1024, |_| (issued, end)).await;

    let yaml = yaml.replace("@PROXY@", &free_address().to_string()).replace("@ADMIN@", &free_address().to_string());
    let proxy = Process::start(&yaml, &[ENVIRONMENT[0], ENVIRONMENT[1], ("RUST_LOG", "error")]);
    if let Ok(wait) = std::env::var("PROFILE") {
        // For whoever wants to look with a profiler: which process, and time to attach.
        eprintln!("   the proxy is process {}", proxy.id());
        tokio::time::sleep(secs(wait.parse().unwrap_or(0))).await;
    }
    // The first tenth warms up.
    let begun = until(&issuer, sessions / 10).await;
    let before = cpu(proxy.id());
    let ended = until(&issuer, sessions).await;
    let spent = cpu(proxy.id()).saturating_sub(before);
    let count = (ended.0 - begun.0) as f64;
    let (a_core, a_second) = (count / spent.as_secs_f64(), count / (ended.2 - begun.2).as_secs_f64());
    vec![
        Row {
            run: "throughput",
            done: format!("{sessions} overdue sessions in Redis, one replica, a provider that answers at once"),
            criterion: "≥ 1,000 refreshes a second of the proxy's CPU time, each refresh token shown once".to_owned(),
            measured: format!(
                "{a_core:.0} a second of CPU time ({a_second:.0} a second of the clock, with provider and store on the \
                 same cores); {} refused",
                ended.1
            ),
            passed: a_core >= GOAL && ended.1 == 0 && ended.0 == sessions,
        }
        .tell(),
    ]
}

/// Waits until the provider had so many calls: calls, refusals, when.
async fn until(issuer: &str, calls: usize) -> (usize, usize, Instant) {
    let client = client();
    let deadline = Instant::now() + secs(300);
    loop {
        let answer = client.get(format!("{issuer}/calls")).send().await.expect("the provider");
        let text = answer.text().await.expect("text");
        let (all, wrong) = text.split_once(' ').expect("two numbers");
        let (all, wrong) = (all.parse().expect("a number"), wrong.parse().expect("a number"));
        if all >= calls || Instant::now() > deadline {
            return (all, wrong, Instant::now());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The quick provider as a process; it ends when its standard input does.
struct Provider(Child);

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn provider() -> (Provider, String) {
    let program = std::env::current_exe().expect("this program");
    let mut child = Command::new(program)
        .args(["child", "provider", "0"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut issuer = String::new();
    BufReader::new(child.stdout.take().expect("its output")).read_line(&mut issuer).expect("a line");
    (Provider(child), issuer.trim().to_owned())
}
