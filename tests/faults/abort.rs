//! The client goes away at every step of a refresh.

use std::net::SocketAddr;
use std::time::Duration;

use cloakroom::primitives::failpoint::POINTS;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::harness::{SESSION, Wishes};
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, Tally, client, dice, get, progress, sleep_exactly};

const SESSIONS: usize = 50;
/// A refresh takes a little less.
const OFFSETS: u64 = 7_000;
/// How long a refresh is held at a point, so that the proxy hears of the reset while it is there.
const HELD: Duration = Duration::from_micros(500);

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    // A refresh that waited for its rate would go on in the next round, and be taken for one of that.
    let refresh = "{ ahead: 0s, per_second: 100000, concurrency: 1000 }".into();
    let fleet = Fleet::start(Wishes { session: STEADY_TICKET.into(), refresh, ..ticking_on(&redis) }).await;
    let tickets = fleet.log_in(SESSIONS).await;
    let rounds = scale.of(10_000 / SESSIONS, 16);
    let addresses = fleet.addresses();
    let client = client();
    let mut tally = Tally::default();
    let before = token_calls(&fleet.world);
    for round in 0..rounds {
        fleet.world.clock.advance(OVER);
        if round % 2 == 0 {
            let resets = tickets.iter().map(|ticket| at_random(addresses[round % 3], ticket));
            futures::future::join_all(resets).await;
        } else {
            at_point(POINTS[round / 2 % POINTS.len()], addresses[round % 3], &tickets).await;
        }
        let calls = tickets.iter().map(|ticket| get(&client, addresses[(round + 1) % 3], ticket));
        futures::future::join_all(calls).await.iter().for_each(|got| tally.add(got.status));
        // A flight that waits for another's looks again after 100 ms: before time moves on, or it begins the next round's.
        tokio::time::sleep(Duration::from_millis(150)).await;
        if round % 20 == 19 {
            progress(&format!("{} aborts; afterwards {:?}", (round + 1) * SESSIONS, tally.0));
        }
    }
    let (again, calls) = (fleet.shown_again(), token_calls(&fleet.world) - before);
    vec![
        Row {
            run: "abort",
            done: format!(
                "{} refreshes whose client resets its connection, half at {} points, half at random; 3 replicas",
                rounds * SESSIONS,
                POINTS.len()
            ),
            criterion: "0 lost, one token call a refresh".to_owned(),
            measured: format!(
                "{} lost, {} not served at once; {calls} token calls, {again} tokens shown again",
                tally.of(401),
                tally.bad()
            ),
            passed: tally.bad() == 0 && again == 0 && calls == rounds * SESSIONS,
        }
        .tell(),
    ]
}

async fn ask(at: SocketAddr, ticket: &str) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.expect("a connection");
    let request =
        format!("GET /api/whoami HTTP/1.1\r\nHost: {at}\r\nSec-Fetch-Mode: cors\r\nCookie: {SESSION}={ticket}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    stream
}

fn reset(stream: &TcpStream) {
    stream.set_zero_linger().expect("an option");
}

async fn at_random(at: SocketAddr, ticket: &str) {
    let stream = ask(at, ticket).await;
    sleep_exactly(Duration::from_micros(dice(OFFSETS))).await;
    reset(&stream);
}

/// One after the other, so that it is the right connection that is reset.
async fn at_point(point: &str, at: SocketAddr, tickets: &[String]) {
    let (there, mut arrivals) = mpsc::unbounded_channel();
    fail::cfg_callback(point, move || {
        let _ = there.send(());
        std::thread::sleep(HELD);
    })
    .expect("a fail point");
    for ticket in tickets {
        let stream = ask(at, ticket).await;
        let _ = tokio::time::timeout(secs(2), arrivals.recv())
            .await
            .unwrap_or_else(|_| panic!("the refresh comes to {point}"));
        reset(&stream);
        drop(stream);
        while arrivals.try_recv().is_ok() {}
    }
    fail::remove(point);
}
