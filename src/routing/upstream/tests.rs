use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pingora::listeners::ALPN;
use pingora::upstreams::peer::Peer as _;
use tokio::sync::watch;

use super::*;
use crate::config::settings::{Endpoint, Protocol, ServerName, UpstreamTimeouts, UpstreamTls};
use crate::routing::discovery::system_lookup;

fn settings(endpoints: &[(&str, u16)]) -> settings::Upstream {
    let second = Duration::from_secs(1);
    settings::Upstream {
        timeouts: UpstreamTimeouts { connect: second, read: second * 2, write: second * 3, idle: second * 4 },
        ..settings::Upstream::plain("api", endpoints.iter().map(|(host, port)| Endpoint::new(*host, *port)).collect())
    }
}

fn of(settings: &settings::Upstream) -> Arc<Upstream> {
    let upstreams = Upstreams::new(std::slice::from_ref(settings), &system_lookup(), &Metrics::new().unwrap());
    Arc::clone(upstreams.get("api").unwrap())
}

fn upstream(endpoints: &[(&str, u16)]) -> Arc<Upstream> {
    of(&settings(endpoints))
}

fn port(upstream: &Upstream, failed: &[SocketAddr]) -> u16 {
    upstream.pick(b"", failed).unwrap().address().port()
}

#[test]
fn addresses_take_turns_without_any_service_running() {
    let upstream = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]);
    let ports: Vec<_> = (0..6).map(|_| port(&upstream, &[])).collect();
    assert_eq!(ports, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_failed_address_is_avoided_unless_it_is_the_only_one() {
    let pair = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2)]);
    let failed = ["127.0.0.1:3".parse().unwrap(), "127.0.0.1:2".parse().unwrap()];
    assert!((0..3).all(|_| port(&pair, &failed[1..]) == 1));
    let single = upstream(&[("127.0.0.1", 2)]);
    assert!((0..2).all(|_| port(&single, &failed) == 2));
    let three = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]);
    assert!((0..6).all(|_| port(&three, &failed) == 1));
    assert!(upstream(&[("name.invalid", 1)]).pick(b"", &[]).is_none());
}

#[test]
fn every_step_towards_an_upstream_has_a_time_limit() {
    let upstream = upstream(&[("127.0.0.1", 1)]);
    let peer = upstream.peer(&upstream.pick(b"", &[]).unwrap());
    let seconds = |duration: Option<Duration>| duration.unwrap().as_secs();
    assert_eq!(seconds(peer.options.connection_timeout), 1);
    assert_eq!(seconds(peer.options.total_connection_timeout), 2);
    assert_eq!(seconds(peer.options.read_timeout), 2);
    assert_eq!(seconds(peer.options.write_timeout), 3);
    assert_eq!(seconds(peer.options.idle_timeout), 4);
    assert_ne!(peer.group_key, 0);
}

#[tokio::test]
async fn tls_always_has_a_name_and_verifies_it() {
    let tls = UpstreamTls { ca: None, server_name: None, client_certificate: None };
    let named = ServerName::parse("api.internal");
    for (endpoint, server_name, expected) in [
        ("localhost", None, Some("localhost")),
        ("localhost", named.clone(), Some("api.internal")),
        ("127.0.0.1", named, Some("api.internal")),
        // No checked settings are like this; there is no address then, rather than a connection to anybody.
        ("127.0.0.1", None, None),
    ] {
        let settings = settings::Upstream {
            tls: Some(UpstreamTls { server_name, ..tls.clone() }),
            protocol: Protocol::H2,
            ..settings(&[(endpoint, 1)])
        };
        let lookup: Lookup =
            Arc::new(|_, port| Box::pin(async move { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) }));
        let upstreams = Upstreams::new(&[settings], &lookup, &Metrics::new().unwrap());
        upstreams.find_first().await;
        let upstream = upstreams.get("api").unwrap();
        let Some(target) = upstream.pick(b"", &[]) else {
            assert_eq!(expected, None);
            continue;
        };
        let peer = upstream.peer(&target);
        assert_eq!((peer.is_tls(), Some(peer.sni.as_str())), (true, expected));
        assert!(peer.verify_cert() && peer.verify_hostname());
        assert_eq!((peer.options.alpn.clone(), peer.options.max_h2_streams), (ALPN::H2, 100));
    }
}

#[test]
fn no_two_upstreams_share_connections() {
    let settings = settings(&[("127.0.0.1", 1)]);
    let key = |upstream: &Upstream| upstream.peer(&upstream.pick(b"", &[]).unwrap()).reuse_hash();
    assert_ne!(key(&of(&settings)), key(&of(&settings)));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_fails_goes_and_comes_and_never_do_all_go() {
    let upstream = upstream(&[("127.0.0.1", 1), ("127.0.0.1", 2), ("127.0.0.1", 3)]);
    let targets = upstream.targets.load_full();
    let fail = |place: usize| (0..5).for_each(|_| upstream.failed(&targets.list()[place]));
    fail(0);
    assert_eq!(upstream.in_service(), (2, 3));
    let ports: std::collections::BTreeSet<_> = (0..9).map(|_| port(&upstream, &[])).collect();
    assert_eq!(ports.into_iter().collect::<Vec<_>>(), [2, 3]);
    fail(1);
    fail(2);
    assert_eq!(upstream.in_service(), (0, 3));
    assert!(!Upstreams::default().report().1.contains("api"));
    let ports: std::collections::BTreeSet<_> = (0..9).map(|_| port(&upstream, &[])).collect();
    assert_eq!(ports.len(), 3, "with none left all are used");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(upstream.in_service(), (3, 3));
}

#[test]
fn no_more_requests_at_a_time_than_the_settings_allow() {
    let settings = settings::Upstream { max_requests: Some(2), ..settings(&[("127.0.0.1", 1)]) };
    let upstream = of(&settings);
    let target = upstream.pick(b"", &[]).unwrap();
    let (one, _other) = (upstream.enter(&target).unwrap(), upstream.enter(&target).unwrap());
    assert!((0..3).all(|_| upstream.enter(&target).is_err()));
    drop(one);
    let third = upstream.enter(&target);
    assert!(third.is_ok() && upstream.enter(&target).is_err());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_appears_late_is_found_by_retrying() {
    let known = Arc::new(AtomicBool::new(false));
    let answer = Arc::clone(&known);
    let lookup: Lookup = Arc::new(move |_, port| {
        let found = answer.load(Ordering::SeqCst);
        Box::pin(async move {
            if found { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) } else { Err(std::io::Error::other("no")) }
        })
    });
    let metrics = Metrics::new().unwrap();
    let upstreams = Upstreams::new(&[settings(&[("late.internal", 7)])], &lookup, &metrics);
    upstreams.find_first().await;
    let upstream = Arc::clone(upstreams.get("api").unwrap());
    assert!(upstream.pick(b"", &[]).is_none());
    assert_eq!(upstreams.report(), (false, "api: none of 0 addresses in service".to_owned()));
    known.store(true, Ordering::SeqCst);
    let (_change, now) = watch::channel(upstreams);
    let keeper = tokio::spawn(keeper::keep_all(now));
    while upstream.pick(b"", &[]).is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keeper.abort();
    assert_eq!(upstream.pick(b"", &[]).unwrap().address(), SocketAddr::from(([10, 0, 0, 1], 7)));
}

#[test]
fn a_change_keeps_what_has_not_changed() {
    let (metrics, lookup) = (Metrics::new().unwrap(), system_lookup());
    let one = settings(&[("127.0.0.1", 1), ("127.0.0.1", 2)]);
    let other = settings::Upstream { name: "other".into(), ..one.clone() };
    let before = Upstreams::new(&[one.clone(), other.clone()], &lookup, &metrics);
    let changed = settings::Upstream { balance: Balance::Random, ..other };
    let after = before.changed_to(&[changed, one], &lookup, &metrics);
    assert!(Arc::ptr_eq(before.get("api").unwrap(), after.get("api").unwrap()));
    assert!(!Arc::ptr_eq(before.get("other").unwrap(), after.get("other").unwrap()));
}

#[test]
fn other_retries_leave_an_upstream_as_it_is() {
    let (metrics, lookup) = (Metrics::new().unwrap(), system_lookup());
    let one = settings(&[("127.0.0.1", 1), ("127.0.0.1", 2)]);
    let before = Upstreams::new(std::slice::from_ref(&one), &lookup, &metrics);
    let changed = [settings::Upstream { retries: settings::Retries { attempts: 7, budget: 0 }, ..one.clone() }];
    let after = before.changed_to(&changed, &lookup, &metrics);
    let upstream = after.get("api").unwrap();
    assert!(Arc::ptr_eq(before.get("api").unwrap(), upstream));
    assert_eq!(upstream.retries().attempts(), one.retries.attempts, "not before the settings hold");
    upstream.retries().note_request(std::time::Instant::now());
    after.set_retries(&changed);
    assert_eq!(upstream.retries().attempts(), 7);
    let granted = (0..10_000).filter(|_| upstream.retries().take(std::time::Instant::now())).count();
    assert_eq!(granted, 100, "nothing beyond the floor");
    // And back, although what the upstream was made from says so already.
    let back = after.changed_to(std::slice::from_ref(&one), &lookup, &metrics);
    back.set_retries(std::slice::from_ref(&one));
    assert_eq!(upstream.retries().attempts(), one.retries.attempts);
    // With something else beside it is another one.
    let more = settings::Upstream { balance: Balance::Random, ..changed[0].clone() };
    let after = back.changed_to(&[more], &lookup, &metrics);
    assert!(!Arc::ptr_eq(upstream, after.get("api").unwrap()));
    assert_eq!(after.get("api").unwrap().retries().attempts(), 7);
}

#[tokio::test(start_paused = true)]
async fn addresses_outlive_a_change_while_the_name_service_is_away() {
    let address: Arc<Mutex<Option<u8>>> = Arc::new(Mutex::new(Some(1)));
    let answer = Arc::clone(&address);
    let lookup: Lookup = Arc::new(move |host, port| {
        let last = *answer.lock().unwrap();
        Box::pin(async move {
            match last {
                Some(last) if host == "old.internal" => Ok(vec![SocketAddr::from(([10, 0, 0, last], port))]),
                Some(_) => Ok(vec![SocketAddr::from(([10, 0, 9, 9], port))]),
                // It does not even say no.
                None => std::future::pending().await,
            }
        })
    });
    let metrics = Metrics::new().unwrap();
    let one = settings(&[("old.internal", 7)]);
    let before = Upstreams::new(std::slice::from_ref(&one), &lookup, &metrics);
    before.find_first().await;
    *address.lock().unwrap() = None;
    let changed =
        settings::Upstream { balance: Balance::Random, ..settings(&[("old.internal", 7), ("new.internal", 7)]) };
    let after = before.changed_to(&[changed], &lookup, &metrics);
    let upstream = Arc::clone(after.get("api").unwrap());
    let known = |upstream: &Upstream| {
        let targets = upstream.targets.load();
        targets.list().iter().map(|target| target.address().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(known(&upstream), ["10.0.0.1:7"], "at once");
    after.find_first().await;
    assert_eq!(known(&upstream), ["10.0.0.1:7"], "and after it was asked in vain");

    // Its first answer counts, when the names are asked for the next time.
    let begun = tokio::time::Instant::now();
    let (_change, now) = watch::channel(after);
    let keeper = tokio::spawn(keeper::keep_all(now));
    *address.lock().unwrap() = Some(2);
    while known(&upstream) != ["10.0.0.2:7", "10.0.9.9:7"] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    keeper.abort();
    assert!(begun.elapsed() < Duration::from_secs(16), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn another_port_is_another_service_and_inherits_nothing() {
    let lookup: Lookup = Arc::new(|_, port| Box::pin(async move { Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]) }));
    let metrics = Metrics::new().unwrap();
    let before = Upstreams::new(&[settings(&[("a.internal", 1)])], &lookup, &metrics);
    before.find_first().await;
    let after = before.changed_to(&[settings(&[("a.internal", 2)])], &lookup, &metrics);
    assert!(after.get("api").unwrap().pick(b"", &[]).is_none());
}
