//! Records that somebody changed in Redis: no session, no panic, nobody else's data (behaviour K2, K3, F5).

use reqwest::StatusCode;

use crate::backchannel_kit::{ALICE, log_out_at, token};
use crate::harness::{Browser, World, logs};
use crate::kit::*;
use crate::redis_server::RedisServer;

/// Moves the version of the records, or a proxy that knows a session already would not look at its secrets again.
const CHANGED: &str = "for _, key in ipairs(KEYS) do redis.call('HINCRBY', key, 'v', 1) end";

/// The key of the browser's session in Redis: it ends in SHA-256 of the handle, the first 16 bytes of the cookie.
fn key_of(redis: &RedisServer, browser: &Browser) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use sha2::Digest as _;
    let id = URL_SAFE_NO_PAD.decode(ticket(browser)).expect("base64url");
    let name = URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(&id[..16]));
    let found = run(redis, &format!("KEYS cloakroom:*s:{name}"));
    found.lines().find(|line| line.ends_with(&name)).expect("the session's key").to_owned()
}

fn run(redis: &RedisServer, command: &str) -> String {
    let answer = String::from_utf8_lossy(&redis.raw(&format!("{command}\r\n"))).into_owned();
    assert!(!answer.starts_with('-'), "{command}: {answer}");
    answer
}

/// Asks with an empty cache.
async fn state(world: &World, browser: &mut Browser) -> (StatusCode, String) {
    world.clock.advance(CACHE_TTL);
    let answer = browser.fetch("/api/whoami").await;
    if answer.status == StatusCode::OK {
        let claims = answer.json();
        return (answer.status, claims["user"].as_str().expect("a user").to_owned());
    }
    assert!(answer.set_cookies().is_empty(), "{answer:?}");
    (answer.status, answer.code().to_owned())
}

fn alice() -> (StatusCode, String) {
    (StatusCode::OK, "alice".to_owned())
}

fn nobody() -> (StatusCode, String) {
    (StatusCode::UNAUTHORIZED, "session_expired".to_owned())
}

async fn lasting_world(redis: &RedisServer) -> World {
    let wishes = ticking_on(redis);
    let provider = cloakroom::demo::ProviderConfig { access_token_lifetime: secs(24 * 3600), ..Default::default() };
    world(crate::harness::Wishes { provider, ..wishes }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn k3_swapped_records_and_fields_are_no_sessions() {
    let redis = RedisServer::start();
    let world = lasting_world(&redis).await;
    let mut alices = world.logged_in().await;
    world.demo.provider.switches().auto_login("bob");
    let mut bobs = world.logged_in().await;
    let (a, b) = (key_of(&redis, &alices), key_of(&redis, &bobs));
    assert_eq!(state(&world, &mut bobs).await.1, "bob");

    let swap = |fields: &str| {
        let script = format!(
            "local f = {{{fields}}} \
             local a = redis.call('HMGET', KEYS[1], unpack(f)) local b = redis.call('HMGET', KEYS[2], unpack(f)) \
             for i = 1, #f do redis.call('HSET', KEYS[1], f[i], b[i]) redis.call('HSET', KEYS[2], f[i], a[i]) end {CHANGED}"
        );
        run(&redis, &format!("EVAL \"{script}\" 2 {a} {b}"));
    };
    for fields in ["'sealed'", "'sealed','meta'", "'v','t','meta','sealed'"] {
        swap(fields);
        assert_eq!(state(&world, &mut alices).await, nobody(), "{fields}");
        assert_eq!(state(&world, &mut bobs).await, nobody(), "{fields}");
        swap(fields);
        assert_eq!(state(&world, &mut alices).await, alice(), "{fields}");
    }
    // What lies outside the sealed part names nobody: the claims are inside.
    swap("'meta'");
    for (browser, name) in [(&mut alices, "alice"), (&mut bobs, "bob")] {
        let (status, who) = state(&world, browser).await;
        assert!(status != StatusCode::OK || who == name, "{who}");
        if status == StatusCode::OK {
            assert_eq!(browser.fetch("/userinfo").await.json()["preferred_username"], name);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn k2_a_changed_byte_anywhere_is_no_session() {
    let redis = RedisServer::start();
    let world = lasting_world(&redis).await;
    let mut browser = world.logged_in().await;
    let key = key_of(&redis, &browser);
    let length = run(&redis, &format!("HSTRLEN {key} sealed"));
    let length: usize = length.trim_start_matches(':').split("\r\n").next().unwrap().parse().expect("a length");
    let places = (1..=70).chain((71..length).step_by(97)).chain([length - 16, length]);
    for place in places {
        let flip = format!(
            "EVAL \"local s = redis.call('HGET', KEYS[1], 'sealed') \
             local c = string.char(bit.bxor(string.byte(s, {place}), {mask})) \
             redis.call('HSET', KEYS[1], 'sealed', string.sub(s, 1, {place} - 1) .. c .. string.sub(s, {place} + 1)) \
             {CHANGED}\" 1 {key}",
            mask = 1 << (place % 8),
        );
        run(&redis, &flip);
        assert_eq!(state(&world, &mut browser).await, nobody(), "byte {place}");
        run(&redis, &flip);
    }
    assert_eq!(state(&world, &mut browser).await, alice(), "and nothing was deleted meanwhile");
}

#[tokio::test(flavor = "multi_thread")]
async fn f5_fields_that_cannot_be_read_are_no_session() {
    let redis = RedisServer::start();
    let world = lasting_world(&redis).await;
    let mut browser = world.logged_in().await;
    let key = key_of(&redis, &browser);
    run(&redis, &format!("COPY {key} backup"));
    for damage in [
        "HDEL KEY meta",
        "HDEL KEY sealed",
        "HSET KEY v x",
        "HSET KEY t \"-5 1 1 1 1\"",
        "HSET KEY t x",
        "HSET KEY meta {",
        "HSET KEY meta []",
        "HSET KEY sealed \"\"",
        "HSET KEY sealed \"\\x01\\x04test\"",
        "HSET KEY sealed \"\\x01\\xff\"",
        "HSET KEY t \"1 9000000000000 1 0 9000000000000\"",
        "HSET KEY t \"1 1 9000000000000 0 9000000000000\"",
    ] {
        run(&redis, &damage.replace("KEY", &key));
        if !damage.contains("v x") {
            run(&redis, &format!("HINCRBY {key} v 1"));
        }
        assert_eq!(state(&world, &mut browser).await, nobody(), "{damage}");
        let told = browser.fetch("/auth/session").await;
        assert_eq!(told.json()["authenticated"], false, "{damage}");
        run(&redis, &format!("COPY backup {key} REPLACE"));
    }
    assert_eq!(state(&world, &mut browser).await, alice());

    // Who is shut out by damage can log in again.
    run(&redis, &format!("HSET {key} meta x"));
    world.clock.advance(CACHE_TTL);
    assert_logs_in_again(&mut browser).await;
    assert!(!logs().contains("panicked"));
}

/// Whoever cannot read a record ends it all the same: to a newer version on another replica it is a session.
#[tokio::test(flavor = "multi_thread")]
async fn o5_a_logout_ends_records_that_cannot_be_read_too() {
    let redis = RedisServer::start();
    let world = lasting_world(&redis).await;
    for (subject, by_sid) in [(Some(ALICE), false), (None, true)] {
        let spoilt = world.logged_in().await;
        let sid = newest(&world).sid;
        let other = world.logged_in().await;
        let keys = [key_of(&redis, &spoilt), key_of(&redis, &other)];
        run(&redis, &format!("HSET {} meta {{}}", keys[0]));
        log_out_at(&world.proxy, &token(&world, subject, by_sid.then_some(sid.as_str()))).await;
        let is_there = |key: &str| run(&redis, &format!("EXISTS {key}")).starts_with(":1");
        assert!(!is_there(&keys[0]), "{subject:?}");
        assert_eq!(is_there(&keys[1]), by_sid, "another session of the user's");
        world.clock.advance(secs(2));
    }
}
