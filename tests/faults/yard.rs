//! What the runs share.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cloakroom::primitives::random;
use reqwest::Client;
use reqwest::header::{COOKIE, HeaderMap, RETRY_AFTER, SET_COOKIE};

use crate::harness::{Proxy, SESSION, Wishes, World};
use crate::kit;
use crate::postgres_server::PostgresServer;

/// By how much the numbers of a run shrink.
#[derive(Clone, Copy)]
pub(crate) struct Scale(usize);

impl Scale {
    /// `SCALE=20` does a twentieth.
    pub(crate) fn from_env() -> Self {
        let wanted = std::env::var("SCALE").ok().and_then(|text| text.parse().ok());
        Self(wanted.unwrap_or(1).max(1))
    }

    pub(crate) fn divisor(self) -> usize {
        self.0
    }

    /// So many in full; never fewer than `least`.
    pub(crate) fn of(self, full: usize, least: usize) -> usize {
        (full / self.0).max(least)
    }
}

/// Three replicas, one of them inside the world.
pub(crate) struct Fleet {
    pub(crate) world: World,
    pub(crate) others: [Proxy; 2],
}

impl Fleet {
    pub(crate) async fn start(wishes: Wishes) -> Self {
        let world = kit::world(wishes).await;
        let others = [world.replica().await, world.replica().await];
        for other in &others {
            other.knows_provider().await;
        }
        Self { world, others }
    }

    pub(crate) fn addresses(&self) -> [SocketAddr; 3] {
        [self.world.proxy.address, self.others[0].address, self.others[1].address]
    }

    /// So many new sessions; their cookies.
    pub(crate) async fn log_in(&self, count: usize) -> Vec<String> {
        let mut tickets = Vec::new();
        for _ in 0..count {
            tickets.push(kit::ticket(&self.world.logged_in().await));
        }
        tickets
    }

    /// The sum of a metric over all replicas and all its series that begin so.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let mut sum = 0.0;
        for proxy in [&self.world.proxy, &self.others[0], &self.others[1]] {
            let text = proxy.admin_page("/metrics").await.1;
            let lines = text.lines().filter(|line| line.starts_with(series));
            sum += lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
        }
        sum
    }

    /// How many refresh tokens were shown more than once.
    pub(crate) fn shown_again(&self) -> usize {
        let shown = self.world.demo.provider.ledger().all_presentations();
        shown.values().filter(|times| **times > 1).count()
    }
}

/// YAML of a store in a schema of its own.
pub(crate) fn postgres_at(server: &PostgresServer) -> String {
    format!("{{ kind: postgres, url: \"{}\", schema: {} }}", server.url(), server.fresh_schema())
}

/// One answer, as far as a run looks at it.
#[derive(Debug)]
pub(crate) struct Got {
    /// 0 = none, the connection broke.
    pub(crate) status: u16,
    /// The code of an error of ours.
    pub(crate) code: String,
    pub(crate) retry_after: Option<u64>,
    pub(crate) touches_cookies: bool,
    pub(crate) took: Duration,
    pub(crate) at: Instant,
}

pub(crate) fn client() -> Client {
    cloakroom::listener::tls::install_crypto_provider();
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().expect("a client")
}

/// A script's request with this session.
pub(crate) async fn get(client: &Client, at: SocketAddr, ticket: &str) -> Got {
    let begun = Instant::now();
    let call = client
        .get(format!("http://{at}/api/whoami"))
        .header(COOKIE, format!("{SESSION}={ticket}"))
        .header("sec-fetch-mode", "cors");
    let (status, headers) = match call.send().await {
        Ok(answer) => {
            let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
            // Read to its end, or the connection is not used again.
            let _ = answer.bytes().await;
            (status, headers)
        }
        Err(_) => (0, HeaderMap::new()),
    };
    let retry_after = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let code = headers.get("cloakroom-error").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let touches_cookies = headers.contains_key(SET_COOKIE);
    Got { status, code, retry_after, touches_cookies, took: begun.elapsed(), at: begun }
}

/// Statuses and how often each came.
#[derive(Default)]
pub(crate) struct Tally(pub(crate) BTreeMap<u16, usize>);

impl Tally {
    pub(crate) fn add(&mut self, status: u16) {
        *self.0.entry(status).or_default() += 1;
    }

    pub(crate) fn of(&self, status: u16) -> usize {
        self.0.get(&status).copied().unwrap_or_default()
    }

    pub(crate) fn all(&self) -> usize {
        self.0.values().sum()
    }

    /// Everything but 200.
    pub(crate) fn bad(&self) -> usize {
        self.all() - self.of(200)
    }
}

/// The value below which `percent` of all lie.
pub(crate) fn percentile(values: &mut [Duration], percent: f64) -> Duration {
    values.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let at = (values.len() as f64 * percent / 100.0) as usize;
    values.get(at.min(values.len().saturating_sub(1))).copied().unwrap_or_default()
}

/// A random number below `bound`.
pub(crate) fn dice(bound: u64) -> u64 {
    u64::from_ne_bytes(random::bytes().expect("randomness")) % bound.max(1)
}

/// Sleeps for less than the runtime's timer can.
pub(crate) async fn sleep_exactly(length: Duration) {
    let _ = tokio::task::spawn_blocking(move || std::thread::sleep(length)).await;
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(process: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or_default() * 1024
}

/// CPU time of a process, its threads together.
pub(crate) fn cpu(process: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name in brackets may hold spaces; user and system time are fields 14 and 15, in hundredths of a second.
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

pub(crate) fn progress(text: &str) {
    eprintln!("   {text}");
}
