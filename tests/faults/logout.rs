//! The provider logs a user out while the session's tokens are being refreshed.

use std::time::{Duration, Instant};

use cloakroom::demo::Fault;

use crate::backchannel_kit::{log_out_at, one_session, token};
use crate::harness::Wishes;
use crate::kit::*;
use crate::redis_server::RedisServer;
use crate::report::Row;
use crate::yard::{Fleet, Scale, Tally, client, dice, get, progress, sleep_exactly};

/// A refresh takes a little less, in microseconds.
const OFFSETS: u64 = 12_000;

/// By then every replica has heard of a logout (behaviour O8).
const HEARD: Duration = Duration::from_secs(1);

pub(crate) async fn run(scale: Scale) -> Vec<Row> {
    let redis = RedisServer::start();
    let mut wishes = Wishes { session: STEADY_TICKET.into(), ..ticking_on(&redis) };
    wishes.provider.ledger_capacity = 100;
    let fleet = Fleet::start(wishes).await;
    let (world, client) = (&fleet.world, client());
    let ledger = world.demo.provider.ledger();
    let proxies = [&world.proxy, &fleet.others[0], &fleet.others[1]];
    let rounds = scale.of(2_000, 50);
    // A refresh that takes a while, with the provider's part in the middle.
    token_fault(world, Fault::slow(Duration::from_millis(2)));
    token_fault(world, Fault::slow(Duration::from_millis(2)).after_work());
    let (mut during, mut late, mut alive, mut unrevoked) = (Tally::default(), 0, 0, 0);
    for round in 0..rounds {
        let (browser, sid) = one_session(world).await;
        let ticket = ticket(&browser);
        world.clock.advance(OVER);
        let logout = token(world, None, Some(&sid));
        let requests = proxies.map(|proxy| {
            let (client, at, ticket) = (client.clone(), proxy.address, ticket.clone());
            tokio::spawn(async move { get(&client, at, &ticket).await })
        });
        sleep_exactly(Duration::from_micros(dice(OFFSETS))).await;
        log_out_at(proxies[round % 3], &logout).await;
        for request in requests {
            during.add(request.await.expect("a task").status);
        }
        let over = Instant::now();
        for proxy in proxies {
            // The news may be on the way still. The clock of the sessions stands, so no copy dies of old age.
            let mut first = true;
            while get(&client, proxy.address, &ticket).await.status != 401 {
                late += usize::from(std::mem::take(&mut first));
                if over.elapsed() > HEARD {
                    alive += 1;
                    break;
                }
            }
        }
        unrevoked += usize::from(!is_revoked(ledger, &sid).await);
        if round % 200 == 199 {
            progress(&format!("{} logouts; requests meanwhile {:?}", round + 1, during.0));
        }
    }
    let again = fleet.shown_again();
    let other = during.all() - during.of(200) - during.of(401);
    vec![
        Row {
            run: "logout",
            done: format!("{rounds} back-channel logouts at a random moment of a refresh; 3 replicas, Redis"),
            criterion: "no session alive on any replica 1 s afterwards, the newest refresh token revoked".to_owned(),
            measured: format!(
                "{alive} alive ({late} in the first moment), {unrevoked} not revoked; {again} tokens shown again; requests meanwhile: {} before the \
                 logout, {} after, {other} others",
                during.of(200),
                during.of(401)
            ),
            passed: alive == 0 && unrevoked == 0 && again == 0 && other == 0,
        }
        .tell(),
    ]
}

/// Whether the newest refresh token of a session at the provider is revoked before long.
async fn is_revoked(ledger: &cloakroom::demo::provider::Ledger, sid: &str) -> bool {
    for _ in 0..200 {
        let newest = ledger.issued().into_iter().rev().find(|issued| issued.sid == sid);
        let token = newest.and_then(|issued| issued.refresh_token).expect("a refresh token");
        if ledger.revoked().contains(&token) {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}
